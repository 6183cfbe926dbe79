//! Events that begin and prepare transactions: GTIDs of both formats, XA PREPARE. Knows nothing of sets.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::position::{GNO_MAX, Gtid, Sid, is_tag};

use super::super::cursor::Cursor;

/// Bit of the commit time stamp that says that the original one follows.
const HAS_ORIGINAL: u64 = 1 << 55;

/// A transaction begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupStart {
    /// None where the server runs without GTIDs.
    pub gtid: Option<Gtid>,
    /// Microseconds since 1970 at which this server committed it; 0 where the log does not say.
    pub commit_micros: u64,
    /// The same of the server where it was first committed.
    pub original_commit_micros: u64,
    /// Bytes of the whole group in the log, as it stands there (compressed or not); 0 where the log does not say.
    pub transaction_bytes: u64,
    /// What MariaDB says besides; there the event takes the place of BEGIN.
    pub mariadb: Option<MariadbStart>,
}

/// The flags of MariaDB's GTID event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MariadbStart {
    flags: u8,
    flags_more: u8,
}

impl MariadbStart {
    /// One statement that is its own end; else a COMMIT, a ROLLBACK or an XID event ends the group.
    pub fn is_standalone(self) -> bool {
        self.flags & 1 != 0
    }

    /// It can be rolled back: it touches no table without transactions.
    pub fn is_transactional(self) -> bool {
        self.flags & 4 != 0
    }

    /// Its rows count at an XA COMMIT only.
    pub fn is_prepared_xa(self) -> bool {
        self.flags & 64 != 0
    }

    /// It is an XA COMMIT or XA ROLLBACK.
    pub fn is_completed_xa(self) -> bool {
        self.flags & 128 != 0
    }

    /// Its statement takes no effect: an ALTER TABLE begins, which another group will commit or roll back, or one that
    /// another group began has failed.
    pub fn alters_nothing(self) -> bool {
        const BEGINS: u8 = 2;
        const ROLLED_BACK: u8 = 8;
        self.flags_more & (BEGINS | ROLLED_BACK) != 0
    }
}

/// Flag of a MariaDB group that was committed together with others, whose number follows.
const HAS_COMMIT_ID: u8 = 2;

impl GroupStart {
    pub(super) fn parse(data: &[u8], has_gtid: bool) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let _flags = cursor.u8()?;
        let uuid = cursor.array::<16>()?;
        let gno = cursor.u64()?;
        let mut start = Self::default();
        if has_gtid {
            start.gtid = Some(gtid(uuid, "", gno)?);
        }
        // All that follows came with later versions of the server.
        let Ok(2) = cursor.u8() else { return Ok(start) };
        cursor.bytes(16)?;
        let Ok(micros) = cursor.uint(7) else { return Ok(start) };
        start.commit_micros = micros & !HAS_ORIGINAL;
        start.original_commit_micros = match micros & HAS_ORIGINAL {
            0 => start.commit_micros,
            _ => cursor.uint(7)?,
        };
        start.transaction_bytes = cursor.lenenc().unwrap_or(0);
        Ok(start)
    }

    /// MariaDB's: number, domain and flags; the server is the header's.
    pub(super) fn parse_mariadb(server_id: u32, data: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let (gno, domain, flags) = (cursor.u64()?, cursor.u32()?, cursor.u8()?);
        if gno == 0 || gno == u64::MAX {
            return Err(bad_gtid());
        }
        let mut start = MariadbStart { flags, flags_more: 0 };
        if flags & HAS_COMMIT_ID != 0 {
            cursor.u64()?;
        }
        if start.is_prepared_xa() || start.is_completed_xa() {
            let _format_id = cursor.u32()?;
            let xid_len = usize::from(cursor.u8()?) + usize::from(cursor.u8()?);
            cursor.bytes(xid_len)?;
        }
        // Zeros fill the event up where nothing more is said.
        start.flags_more = cursor.u8().unwrap_or(0);
        let gtid = Gtid { sid: Sid::Domain(domain), gno, origin: server_id };
        Ok(Self { gtid: Some(gtid), mariadb: Some(start), ..Self::default() })
    }

    /// The format of tagged GTIDs: numbered fields of the server's serialisation library. A field that we do not know
    /// ends what we can read, because nothing says how long it is; ours come first.
    pub(super) fn parse_tagged(data: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let _version = cursor.varint()?;
        let _size = cursor.varint()?;
        let _last_needed_field = cursor.varint()?;
        let (mut uuid, mut gno, mut tag) = ([0u8; 16], 0, "");
        let mut start = Self::default();
        while !cursor.is_empty() {
            match cursor.varint()? {
                0 => drop(cursor.varint()?),
                1 => {
                    for byte in &mut uuid {
                        *byte = cursor.varint()? as u8;
                    }
                }
                2 => gno = cursor.varint_signed()? as u64,
                3 => {
                    let length = cursor.varint()? as usize;
                    tag = str::from_utf8(cursor.bytes(length)?).map_err(|_| bad_gtid())?;
                }
                4 | 5 => drop(cursor.varint_signed()?),
                6 => start.commit_micros = cursor.varint()?,
                7 => start.original_commit_micros = cursor.varint()?,
                8 => start.transaction_bytes = cursor.varint()?,
                _ => break,
            }
        }
        if start.original_commit_micros == 0 {
            start.original_commit_micros = start.commit_micros;
        }
        start.gtid = Some(gtid(uuid, tag, gno)?);
        Ok(start)
    }
}

fn gtid(uuid: [u8; 16], tag: &str, gno: u64) -> Result<Gtid> {
    let sid = match tag {
        "" => Sid::untagged(uuid),
        tag if is_tag(tag) => Sid::Server { uuid, tag: Arc::from(tag) },
        _ => return Err(bad_gtid()),
    };
    if gno == 0 || gno > GNO_MAX {
        return Err(bad_gtid());
    }
    Ok(Gtid::new(sid, gno))
}

fn bad_gtid() -> Error {
    Error::new(ErrorKind::Undecodable, "a transaction begins with an impossible GTID")
}

/// An XA transaction is prepared; its rows came before, its COMMIT or ROLLBACK comes as a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// Whether this is `XA COMMIT … ONE PHASE`: committed at once.
    pub one_phase: bool,
    pub format_id: u32,
    pub gtrid: &'a [u8],
    pub bqual: &'a [u8],
}

impl<'a> XaPrepare<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let one_phase = cursor.u8()? != 0;
        let format_id = cursor.u32()?;
        let gtrid_len = cursor.u32()? as usize;
        let bqual_len = cursor.u32()? as usize;
        Ok(Self {
            one_phase,
            format_id,
            gtrid: cursor.bytes(gtrid_len)?,
            bqual: cursor.bytes(bqual_len)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(flags: u8, more: &[u8]) -> Vec<u8> {
        let mut data = 9u64.to_le_bytes().to_vec();
        data.extend_from_slice(&7u32.to_le_bytes());
        data.push(flags);
        data.extend_from_slice(more);
        data
    }

    #[test]
    fn mariadbs_event_is_read_with_and_without_what_may_follow() {
        let plain = GroupStart::parse_mariadb(3, &event(1, &[0; 6])).expect("is read");
        assert_eq!(plain.gtid.expect("has one").to_string(), "7-3-9");
        assert!(plain.mariadb.expect("is MariaDB's").is_standalone());
        let mut more = vec![0; 8];
        more.extend_from_slice(&[1, 0, 0, 0, 2, 1, b'x', b'a', b'b', 2]);
        let xa = GroupStart::parse_mariadb(3, &event(2 | 4 | 64, &more)).expect("is read");
        let xa = xa.mariadb.expect("is MariaDB's");
        assert!(xa.is_prepared_xa() && xa.is_transactional() && xa.alters_nothing());
        assert!(!xa.is_standalone() && !xa.is_completed_xa());
        for end in 0..more.len() - 1 {
            assert!(GroupStart::parse_mariadb(3, &event(2 | 64, &more[..end])).is_err(), "{end}");
        }
        assert!(GroupStart::parse_mariadb(3, &[0; 19]).is_err(), "number 0");
    }
}
