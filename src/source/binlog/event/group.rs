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
}

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
        tag if is_tag(tag) => Sid { uuid, tag: Arc::from(tag) },
        _ => return Err(bad_gtid()),
    };
    if gno == 0 || gno > GNO_MAX {
        return Err(bad_gtid());
    }
    Ok(Gtid { sid, gno })
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
