//! The first event of every log file: how all that follow are laid out. Knows nothing of their contents.

use crate::error::{Error, ErrorKind, Result};

use super::super::checksum::{self, CHECKSUM_LEN};
use super::super::cursor::Cursor;
use super::super::header::{HEADER_LEN, Header, Kind};
use super::{Body, Event, parse};

/// Checksum algorithm numbers of the last byte before the checksum.
const NONE: u8 = 0;
const CRC32: u8 = 1;

/// Kinds whose fixed part we read, with the length that we know.
const KNOWN_LAYOUTS: [(Kind, u8); 8] = [
    (Kind::QUERY, 13),
    (Kind::ROTATE, 8),
    (Kind::TABLE_MAP, 8),
    (Kind::WRITE_ROWS_V1, 8),
    (Kind::UPDATE_ROWS_V1, 8),
    (Kind::WRITE_ROWS, 10),
    (Kind::UPDATE_ROWS, 10),
    (Kind::DELETE_ROWS, 10),
];

/// How the events of one log file are laid out, and whether they end in a checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    pub server_version: String,
    pub checksums: bool,
    /// The server is MariaDB, which fills some fields otherwise.
    pub is_mariadb: bool,
}

impl FormatDescription {
    /// What holds before the first FORMAT_DESCRIPTION event: the server ends events as the session asked it to
    /// (`@source_binlog_checksum`, which `mysql::prepare_session` sets to CRC32).
    pub fn assumed() -> Self {
        Self { server_version: String::new(), checksums: true, is_mariadb: false }
    }

    /// Reads one whole event, verifying its checksum. After a [`Body::FormatDescription`] the caller goes on with that
    /// one.
    pub fn read<'a>(&self, event: &'a [u8]) -> Result<Event<'a>> {
        let header = Header::parse(event)?;
        if header.kind == Kind::FORMAT_DESCRIPTION {
            return Self::parse(header, event);
        }
        let bytes = if self.checksums { checksum::verify(event)? } else { event };
        parse(self, header, bytes)
    }

    /// Reads one event that was packed: such events carry no checksum, that of what they were packed in covers them.
    pub fn read_inner<'a>(&self, event: &'a [u8]) -> Result<Event<'a>> {
        parse(self, Header::parse(event)?, event)
    }

    /// This event says itself whether it (and all that follow) has a checksum, and has room for one in any case.
    fn parse(header: Header, event: &[u8]) -> Result<Event<'_>> {
        let without = event.len().checked_sub(CHECKSUM_LEN).and_then(|end| event.get(..end));
        let (bytes, checksums) = match without.and_then(<[u8]>::last) {
            Some(&CRC32) => (checksum::verify(event)?, true),
            // Not verified: the server changes this event for us and then leaves the old checksum in place.
            Some(&NONE) => (without.unwrap_or(event), false),
            _ => return Err(unsupported("its checksum algorithm is not known")),
        };
        let mut cursor = Cursor::new(bytes.get(HEADER_LEN..).unwrap_or_default());
        let version = cursor.u16()?;
        let server_version = cursor.bytes(50)?.split(|byte| *byte == 0).next().unwrap_or_default();
        let server_version = String::from_utf8_lossy(server_version).into_owned();
        let _created = cursor.u32()?;
        let header_len = cursor.u8()?;
        if version != 4 || usize::from(header_len) != HEADER_LEN {
            return Err(unsupported(&format!(
                "format version {version}, headers of {header_len} bytes"
            )));
        }
        let lengths = cursor.rest();
        for (kind, known) in KNOWN_LAYOUTS {
            let found = lengths.get(usize::from(kind.0) - 1).copied();
            // 0 stands where the server no longer writes the kind.
            if found.is_some_and(|found| found != known && found != 0) {
                return Err(unsupported(&format!("events of type {} have another layout", kind.0)));
            }
        }
        let is_mariadb = server_version.contains("MariaDB");
        let format = Self { server_version, checksums, is_mariadb };
        Ok(Event { header, bytes, body: Body::FormatDescription(Box::new(format)) })
    }
}

fn unsupported(why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("cannot read this server's log: {why}"))
        .with_advice("MySQL 5.6 and later and MariaDB 10.5 and later are understood")
}
