//! GTID sets in the server's binary form: in PREVIOUS_GTIDS, and for COM_BINLOG_DUMP_GTID. Knows no connection.
//!
//! Two formats: where no GTID has a tag, the first eight bytes count the servers. Where one has, their highest and lowest
//! byte are 1, the count stands between, and every server's UUID is followed by a tag.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::position::{GNO_MAX, Gtid, GtidSet, Sid, is_tag};

use super::cursor::Cursor;

const TAGGED: u64 = 1;

/// The form that COM_BINLOG_DUMP_GTID takes.
pub fn encode(set: &GtidSet) -> Vec<u8> {
    let servers = || {
        set.iter().filter_map(|(sid, ranges)| match sid {
            Sid::Server { uuid, tag } => Some((uuid, tag, ranges)),
            // No set of these is ever sent in this form.
            Sid::Domain(_) | Sid::Log { .. } => None,
        })
    };
    let tagged = servers().any(|(_, tag, _)| !tag.is_empty());
    let count = servers().count() as u64;
    let head = if tagged { (TAGGED << 56) | (count << 8) | TAGGED } else { count };
    let mut out = head.to_le_bytes().to_vec();
    for (uuid, tag, ranges) in servers() {
        out.extend_from_slice(uuid);
        if tagged {
            // A tag has at most 32 bytes, so its length always fits the one-byte form.
            out.push((tag.len() as u8) << 1);
            out.extend_from_slice(tag.as_bytes());
        }
        out.extend_from_slice(&(ranges.len() as u64).to_le_bytes());
        for &(first, last) in ranges {
            out.extend_from_slice(&first.to_le_bytes());
            // The server's ranges end before their second number.
            out.extend_from_slice(&last.saturating_add(1).to_le_bytes());
        }
    }
    out
}

pub fn decode(bytes: &[u8]) -> Result<GtidSet> {
    let mut cursor = Cursor::new(bytes);
    let head = cursor.u64()?;
    let (tagged, count) = match head >> 56 {
        0 => (false, head),
        TAGGED => (true, (head >> 8) & 0xffff_ffff_ffff),
        _ => return Err(impossible()),
    };
    let mut set = GtidSet::default();
    for _ in 0..count {
        let uuid = cursor.array()?;
        let mut sid = Sid::untagged(uuid);
        if tagged {
            let length = cursor.varint()? as usize;
            let tag = str::from_utf8(cursor.bytes(length)?).map_err(|_| impossible())?;
            if !tag.is_empty() && !is_tag(tag) {
                return Err(impossible());
            }
            sid = Sid::Server { uuid, tag: Arc::from(tag) };
        }
        for _ in 0..cursor.u64()? {
            let (first, end) = (cursor.u64()?, cursor.u64()?);
            if first == 0 || first >= end || end - 1 > GNO_MAX {
                return Err(impossible());
            }
            set.insert_range(&sid, first, end - 1);
        }
    }
    Ok(set)
}

/// MariaDB's GTID_LIST: of each domain the last transaction of each server before this file, the very last behind the
/// others.
pub fn decode_list(bytes: &[u8]) -> Result<GtidSet> {
    let mut cursor = Cursor::new(bytes);
    // The highest four bits are flags.
    let count = cursor.u32()? & 0x0fff_ffff;
    let mut set = GtidSet::default();
    for _ in 0..count {
        let (domain, origin, gno) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
        if gno == 0 || gno == u64::MAX {
            return Err(impossible());
        }
        set.pass(&Gtid { sid: Sid::Domain(domain), gno, origin });
    }
    Ok(set)
}

fn impossible() -> Error {
    Error::new(ErrorKind::Undecodable, "a set of GTIDs in the log makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn a_set_survives_its_binary_form() {
        for text in ["", &format!("{A}:1-5:7"), &format!("{A}:1-5,{A}:ours:3,{A}:theirs:1-9")] {
            let set: GtidSet = text.parse().expect("a valid set");
            assert_eq!(decode(&encode(&set)).expect("readable"), set, "{text}");
        }
    }

    #[test]
    fn an_untagged_set_has_the_form_of_old_servers() {
        let set: GtidSet = format!("{A}:1-5").parse().expect("a valid set");
        let bytes = encode(&set);
        assert_eq!(bytes.len(), 8 + 16 + 8 + 16);
        assert_eq!(bytes[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[40..48], [6, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_number_that_no_transaction_can_have_is_an_error() {
        let of = |end: u64| {
            let mut bytes = encode(&format!("{A}:1").parse().expect("a valid set"));
            bytes[40..48].copy_from_slice(&end.to_le_bytes());
            decode(&bytes)
        };
        assert!(of(GNO_MAX + 1).is_ok());
        assert!(of(GNO_MAX + 2).is_err());
        assert!(of(u64::MAX).is_err());
    }

    #[test]
    fn a_list_of_mariadb_is_its_position() {
        let mut bytes = (0x1000_0000u32 | 3).to_le_bytes().to_vec();
        for (domain, server, number) in [(0u32, 1u32, 5u64), (0, 2, 9), (7, 1, 3)] {
            bytes.extend_from_slice(&domain.to_le_bytes());
            bytes.extend_from_slice(&server.to_le_bytes());
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(decode_list(&bytes).expect("is read").domains(), "0-2-9,7-1-3");
        assert!(decode_list(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn claimed_counts_without_bytes_are_errors() {
        assert!(decode(&u64::MAX.to_le_bytes()).is_err());
        assert!(decode(&[0xff; 7]).is_err());
        assert!(decode(&(1u64 << 40).to_le_bytes()).is_err());
    }
}
