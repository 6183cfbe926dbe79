//! Events that say where we are and what was said: rotations, heartbeats, statements. Knows nothing of rows.

use crate::error::Result;

use super::super::cursor::{Cursor, ends_early};
use super::super::header::Header;

/// The log goes on in another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate<'a> {
    pub file: &'a str,
    pub offset: u64,
}

impl<'a> Rotate<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let offset = cursor.u64()?;
        Ok(Self { offset, file: file_name(cursor.rest())? })
    }
}

/// Nothing happened for a while; the server has sent all up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    pub file: &'a [u8],
    pub offset: u64,
}

impl<'a> Heartbeat<'a> {
    pub(super) fn parse(header: &Header, data: &'a [u8]) -> Self {
        Self { file: data, offset: u64::from(header.next_offset) }
    }

    /// Fields of type, length, value; 0 ends them, 1 is the file, 2 the offset.
    pub(super) fn parse_v2(data: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let mut heartbeat = Self { file: &[], offset: 0 };
        while !cursor.is_empty() {
            let field = cursor.lenenc()?;
            if field == 0 {
                break;
            }
            let value = cursor.lenenc_bytes()?;
            match field {
                1 => heartbeat.file = value,
                2 => heartbeat.offset = Cursor::new(value).lenenc()?,
                _ => (),
            }
        }
        Ok(heartbeat)
    }
}

/// A statement, as it was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    pub thread_id: u32,
    /// The error that the statement ended with on the source; 0 for none.
    pub error_code: u16,
    /// The schema that was current, in UTF-8; may be empty.
    pub db: &'a [u8],
    /// In the character set of the client that sent it.
    pub statement: &'a [u8],
    /// What else is known of the session: codes, each with its value.
    pub status: &'a [u8],
}

/// Codes of the status, which stand in this order.
const FLAGS: u8 = 0;
const SQL_MODE: u8 = 1;
const CATALOG: u8 = 2;
const AUTO_INCREMENT: u8 = 3;
const CHARSETS: u8 = 4;
const CATALOG_WITHOUT_ZERO: u8 = 6;

impl<'a> Query<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self> {
        Self::parse_with(data, 0)
    }

    /// EXECUTE_LOAD_QUERY has thirteen more bytes of fixed part: which file, and where its name stands.
    pub(super) fn parse_load(data: &'a [u8]) -> Result<Self> {
        Self::parse_with(data, 13)
    }

    fn parse_with(data: &'a [u8], more: usize) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let thread_id = cursor.u32()?;
        let _seconds_taken = cursor.u32()?;
        let db_len = usize::from(cursor.u8()?);
        let error_code = cursor.u16()?;
        let status_len = usize::from(cursor.u16()?);
        cursor.bytes(more)?;
        let status = cursor.bytes(status_len)?;
        let db = cursor.bytes(db_len)?;
        let _zero = cursor.u8()?;
        Ok(Self { thread_id, error_code, db, statement: cursor.rest(), status })
    }

    /// The collation, by number, in which the client sends; 0 where it is not known.
    pub fn client_collation(&self) -> u16 {
        self.find(CHARSETS).and_then(|mut cursor| cursor.u16().ok()).unwrap_or(0)
    }

    /// The session's SQL mode, a bit each.
    pub fn sql_mode(&self) -> u64 {
        self.find(SQL_MODE).and_then(|mut cursor| cursor.u64().ok()).unwrap_or(0)
    }

    /// Stands at the value of a code of the status.
    fn find(&self, wanted: u8) -> Option<Cursor<'a>> {
        let mut cursor = Cursor::new(self.status);
        loop {
            let code = cursor.u8().ok()?;
            if code == wanted {
                return Some(cursor);
            }
            let length = match code {
                FLAGS | AUTO_INCREMENT => 4,
                SQL_MODE => 8,
                CHARSETS => 6,
                CATALOG => usize::from(cursor.u8().ok()?) + 1,
                CATALOG_WITHOUT_ZERO => usize::from(cursor.u8().ok()?),
                _ => return None,
            };
            cursor.bytes(length).ok()?;
        }
    }
}

fn file_name(bytes: &[u8]) -> Result<&str> {
    simdutf8::basic::from_utf8(bytes)
        .map_err(|_| ends_early().context("the next log file's name is not UTF-8"))
}
