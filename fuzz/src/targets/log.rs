//! A log as bytes: framing, every kind of event, compressed transactions, and rows by the layouts before them. Input:
//! whole events one after the other, without checksums.

use std::collections::HashMap;

use driftless::position::Sid;
use driftless::source::binlog::event::RowsEvent;
use driftless::source::binlog::gtid_set;
use driftless::source::binlog::payload::{Inflater, Payload};
use driftless::source::binlog::{Body, Event, FormatDescription, TableMap};
use driftless::source::ddl;
use driftless::source::xid::Xid;

use super::rows;

const HEADER_LEN: usize = 19;
/// As the daemon has a bound, only smaller.
const INNER_EVENT_BYTES_MAX: usize = 256 << 10;
/// Inner events that are looked at: packed, a few bytes can be very many.
const INNER_EVENTS_MAX: usize = 64;

pub fn read(input: &[u8]) {
    // As it is before a log says itself which server wrote it.
    for is_mariadb in [false, true] {
        read_as(input, is_mariadb);
    }
}

fn read_as(input: &[u8], is_mariadb: bool) {
    let server_version = String::new();
    let mut format = FormatDescription { server_version, checksums: false, is_mariadb };
    let mut maps = HashMap::new();
    for bytes in split(input) {
        // Even behind an event that cannot be read the next one is looked at: more is tried that way.
        let Ok(event) = format.read(bytes) else { continue };
        match event.body {
            Body::FormatDescription(announced) => format = *announced,
            Body::Payload(payload) => read_payload(&format, &payload, &mut maps),
            Body::Packed(packed) => {
                let Ok(plain) = packed.unpack(INNER_EVENT_BYTES_MAX) else { continue };
                if let Ok(event) = format.read_inner(&plain) {
                    read_event(event, &mut maps);
                }
            }
            _ => read_event(event, &mut maps),
        }
    }
}

/// Cuts at the lengths that the headers claim, as far as they can be true.
pub fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut events = Vec::new();
    while !rest.is_empty() {
        let claimed = rest.get(9..13).and_then(|bytes| bytes.first_chunk::<4>());
        let size = claimed.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        let (event, behind) =
            rest.split_at_checked(size.max(HEADER_LEN)).unwrap_or((rest, &[][..]));
        events.push(event);
        rest = behind;
    }
    events
}

/// A whole event of the kind, without a checksum.
pub fn event(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut event = vec![0; 4];
    event.push(kind);
    event.extend_from_slice(&[1, 0, 0, 0]);
    event.extend_from_slice(&((HEADER_LEN + data.len()) as u32).to_le_bytes());
    event.extend_from_slice(&[0; 6]);
    event.extend_from_slice(data);
    event
}

fn read_payload(
    format: &FormatDescription,
    payload: &Payload<'_>,
    maps: &mut HashMap<u64, TableMap>,
) {
    let mut inflater = Inflater::new(INNER_EVENT_BYTES_MAX).expect("a decompressor starts");
    let mut events = inflater.open(payload).expect("a decompressor begins again");
    for _ in 0..INNER_EVENTS_MAX {
        let Ok(Some(bytes)) = events.next() else { return };
        if let Ok(event) = format.read_inner(bytes) {
            read_event(event, maps);
        }
    }
}

fn read_event(event: Event<'_>, maps: &mut HashMap<u64, TableMap>) {
    match event.body {
        Body::PreviousGtids(set) => {
            // MariaDB's list has no such form.
            if set.iter().all(|(sid, _)| matches!(sid, Sid::Server { .. })) {
                assert_eq!(gtid_set::decode(&gtid_set::encode(&set)).expect("our own bytes"), set);
            }
        }
        Body::Query(query) => {
            let statement = String::from_utf8_lossy(query.statement);
            let _ = ddl::read(&statement, &String::from_utf8_lossy(query.db));
        }
        Body::TableMap(announced) => {
            let known = maps.get(&announced.table_id).is_some_and(|map| map.is_same(&announced));
            if known {
                return;
            }
            if let Ok(map) = TableMap::parse(&announced) {
                rows::assert_agreement(&map);
                maps.insert(announced.table_id, map);
            }
        }
        Body::Rows(rows) => {
            assert_eq!(RowsEvent::read(event.bytes).expect("it was read before"), rows);
            if let Some(map) = maps.get(&rows.table_id) {
                rows::walk(map, &rows);
            }
        }
        Body::XaPrepare(prepare) => {
            let xid = Xid::of_event(&prepare);
            assert_eq!(Xid::of_statement(&format!("XA COMMIT {}", xid.as_str())), Some(xid));
        }
        Body::GroupStart(start) => drop(start.gtid.map(|gtid| gtid.to_string())),
        Body::FormatDescription(_)
        | Body::Payload(_)
        | Body::Packed(_)
        | Body::Rotate(_)
        | Body::RowsQuery(_)
        | Body::Xid(_)
        | Body::Heartbeat(_)
        | Body::Incident
        | Body::Stop
        | Body::Other => {}
    }
}
