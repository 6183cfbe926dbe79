//! Events as bytes, built by hand.

use super::*;
use crate::source::binlog::header::Kind;

/// A whole event with a right checksum.
fn event(kind: Kind, flags: u16, data: &[u8]) -> Vec<u8> {
    let size = (HEADER_LEN + data.len() + 4) as u32;
    let mut event = 7_u32.to_le_bytes().to_vec();
    event.push(kind.0);
    event.extend_from_slice(&1_u32.to_le_bytes());
    event.extend_from_slice(&size.to_le_bytes());
    event.extend_from_slice(&99_u32.to_le_bytes());
    event.extend_from_slice(&flags.to_le_bytes());
    event.extend_from_slice(data);
    let sum = crc32fast::hash(&event);
    event.extend_from_slice(&sum.to_le_bytes());
    event
}

fn format_description(checksum_algorithm: u8) -> Vec<u8> {
    let mut data = 4_u16.to_le_bytes().to_vec();
    let mut version = b"9.7.4".to_vec();
    version.resize(50, 0);
    data.extend_from_slice(&version);
    data.extend_from_slice(&[0; 4]);
    data.push(HEADER_LEN as u8);
    let mut lengths = [0; 42];
    for (kind, length) in [(2, 13), (4, 8), (19, 8), (23, 8), (24, 8), (30, 10), (31, 10), (32, 10)]
    {
        lengths[kind - 1] = length;
    }
    data.extend_from_slice(&lengths);
    data.push(checksum_algorithm);
    event(Kind::FORMAT_DESCRIPTION, 0, &data)
}

#[test]
fn the_log_says_whether_events_end_in_a_checksum() {
    let bytes = format_description(1);
    let read = FormatDescription::assumed().read(&bytes).expect("well formed");
    let Body::FormatDescription(format) = read.body else { panic!("not a format description") };
    let server_version = "9.7.4".to_owned();
    let expected = FormatDescription { server_version, checksums: true, is_mariadb: false };
    assert_eq!(*format, expected);
    let bytes = format_description(0);
    let read = FormatDescription::assumed().read(&bytes).expect("well formed");
    let Body::FormatDescription(format) = read.body else { panic!("not a format description") };
    assert!(!format.checksums);
    assert!(FormatDescription::assumed().read(&format_description(7)).is_err());
}

#[test]
fn a_damaged_event_is_an_error() {
    let format = FormatDescription::assumed();
    let good = event(Kind::XID, 0, &5_u64.to_le_bytes());
    assert!(matches!(format.read(&good).expect("well formed").body, Body::Xid(5)));
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        assert!(format.read(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn an_unknown_event_is_skipped_only_if_it_may_be() {
    let format = FormatDescription::assumed();
    assert!(matches!(
        format.read(&event(Kind(200), 0x80, b"x")).expect("may be skipped").body,
        Body::Other
    ));
    let error = format.read(&event(Kind(200), 0, b"x")).expect_err("may be a change");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn both_forms_of_heartbeat_tell_where_the_source_is() {
    let format = FormatDescription::assumed();
    let bytes = event(Kind::HEARTBEAT, 0, b"binlog.000007");
    let Body::Heartbeat(heartbeat) = format.read(&bytes).expect("well formed").body else {
        panic!("no heartbeat")
    };
    assert_eq!((heartbeat.file, heartbeat.offset), (&b"binlog.000007"[..], 99));
    let bytes = event(Kind::HEARTBEAT_V2, 0, b"\x01\x03b.7\x02\x03\xfc\x34\x12\x00");
    let Body::Heartbeat(heartbeat) = format.read(&bytes).expect("well formed").body else {
        panic!("no heartbeat")
    };
    assert_eq!((heartbeat.file, heartbeat.offset), (&b"b.7"[..], 0x1234));
}

#[test]
fn a_statement_is_found_behind_its_status() {
    let mut data = vec![9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0];
    data.extend_from_slice(b"\x01\x02\x03db\0DROP TABLE t");
    let bytes = event(Kind::QUERY, 0, &data);
    let Body::Query(query) = FormatDescription::assumed().read(&bytes).expect("well formed").body
    else {
        panic!("no statement")
    };
    assert_eq!((query.thread_id, query.db, query.statement), (9, &b"db"[..], &b"DROP TABLE t"[..]));
}

#[test]
fn no_bytes_make_any_event_panic() {
    let format = FormatDescription::assumed();
    for kind in 0..=60 {
        for length in 0..80 {
            for fill in [0x00, 0x01, 0x20, 0x7f, 0xfe, 0xff] {
                let data = vec![fill; length];
                let _ = format.read(&event(Kind(kind), 0, &data));
            }
        }
    }
}
