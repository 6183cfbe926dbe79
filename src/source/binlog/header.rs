//! The nineteen bytes that every event begins with. Knows nothing of what follows them.

use crate::error::{Error, ErrorKind, Result};

use super::cursor::Cursor;

/// Bytes of the common header.
pub const HEADER_LEN: usize = 19;

/// Flag of events that the server made up for us; they stand in no log.
const ARTIFICIAL: u16 = 0x20;
/// Flag of events that a reader who does not know them may skip.
const IGNORABLE: u16 = 0x80;

/// What an event is, by the number in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    pub const QUERY: Self = Self(2);
    pub const STOP: Self = Self(3);
    pub const ROTATE: Self = Self(4);
    pub const INTVAR: Self = Self(5);
    pub const APPEND_BLOCK: Self = Self(9);
    pub const DELETE_FILE: Self = Self(11);
    pub const RAND: Self = Self(13);
    pub const USER_VAR: Self = Self(14);
    pub const FORMAT_DESCRIPTION: Self = Self(15);
    pub const XID: Self = Self(16);
    pub const BEGIN_LOAD_QUERY: Self = Self(17);
    pub const EXECUTE_LOAD_QUERY: Self = Self(18);
    pub const TABLE_MAP: Self = Self(19);
    pub const WRITE_ROWS_V1: Self = Self(23);
    pub const UPDATE_ROWS_V1: Self = Self(24);
    pub const DELETE_ROWS_V1: Self = Self(25);
    pub const INCIDENT: Self = Self(26);
    pub const HEARTBEAT: Self = Self(27);
    pub const IGNORABLE: Self = Self(28);
    pub const ROWS_QUERY: Self = Self(29);
    pub const WRITE_ROWS: Self = Self(30);
    pub const UPDATE_ROWS: Self = Self(31);
    pub const DELETE_ROWS: Self = Self(32);
    pub const GTID: Self = Self(33);
    pub const ANONYMOUS_GTID: Self = Self(34);
    pub const PREVIOUS_GTIDS: Self = Self(35);
    pub const TRANSACTION_CONTEXT: Self = Self(36);
    pub const VIEW_CHANGE: Self = Self(37);
    pub const XA_PREPARE: Self = Self(38);
    pub const PARTIAL_UPDATE_ROWS: Self = Self(39);
    pub const TRANSACTION_PAYLOAD: Self = Self(40);
    pub const HEARTBEAT_V2: Self = Self(41);
    pub const GTID_TAGGED: Self = Self(42);
    // Those of MariaDB.
    pub const MARIADB_ANNOTATE_ROWS: Self = Self(160);
    pub const MARIADB_CHECKPOINT: Self = Self(161);
    pub const MARIADB_GTID: Self = Self(162);
    pub const MARIADB_GTID_LIST: Self = Self(163);
    pub const START_ENCRYPTION: Self = Self(164);
    pub const QUERY_COMPRESSED: Self = Self(165);
    pub const WRITE_ROWS_COMPRESSED_V1: Self = Self(166);
    pub const UPDATE_ROWS_COMPRESSED_V1: Self = Self(167);
    pub const DELETE_ROWS_COMPRESSED_V1: Self = Self(168);
    pub const WRITE_ROWS_COMPRESSED: Self = Self(169);
    pub const UPDATE_ROWS_COMPRESSED: Self = Self(170);
    pub const DELETE_ROWS_COMPRESSED: Self = Self(171);
}

impl Kind {
    /// Rows of one table, whose id stands first.
    pub fn is_rows(self) -> bool {
        matches!(
            self,
            Self::WRITE_ROWS_V1
                | Self::UPDATE_ROWS_V1
                | Self::DELETE_ROWS_V1
                | Self::WRITE_ROWS
                | Self::UPDATE_ROWS
                | Self::DELETE_ROWS
                | Self::PARTIAL_UPDATE_ROWS
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970 at which the statement began; 0 in events that the server made up.
    pub timestamp: u32,
    pub kind: Kind,
    pub server_id: u32,
    /// Bytes of the whole event, header and checksum included.
    pub event_size: u32,
    /// Where the next event begins in its file, modulo 2³²; 0 where that means nothing.
    pub next_offset: u32,
    pub flags: u16,
}

impl Header {
    pub fn parse(event: &[u8]) -> Result<Self> {
        let header = Self::parse_beginning(event)?;
        if header.event_size as usize != event.len() {
            let message = format!(
                "an event of type {} says that it has {} bytes, but {} came",
                header.kind.0,
                header.event_size,
                event.len()
            );
            return Err(Error::new(ErrorKind::Undecodable, message));
        }
        Ok(header)
    }

    /// Of an event whose beginning alone is there.
    pub fn parse_beginning(event: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(event);
        Ok(Self {
            timestamp: cursor.u32()?,
            kind: Kind(cursor.u8()?),
            server_id: cursor.u32()?,
            event_size: cursor.u32()?,
            next_offset: cursor.u32()?,
            flags: cursor.u16()?,
        })
    }

    /// Made up by the server for this connection: it stands in no log and counts for no version.
    pub fn is_artificial(&self) -> bool {
        self.flags & ARTIFICIAL != 0
    }

    /// May be skipped by those who do not know its kind.
    pub fn is_ignorable(&self) -> bool {
        self.flags & IGNORABLE != 0
    }
}
