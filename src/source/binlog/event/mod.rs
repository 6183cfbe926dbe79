//! One event: what it is and its parts, borrowed from its bytes. Knows nothing of how rows are laid out inside.

mod format_description;
mod group;
mod rows;
mod session;
#[cfg(test)]
mod tests;

pub use format_description::FormatDescription;
pub use group::{GroupStart, MariadbStart, XaPrepare};
pub use rows::{RowsEvent, RowsKind, TableMapEvent};
pub use session::{Heartbeat, Query, Rotate};

use crate::error::{Error, ErrorKind, Result};
use crate::position::GtidSet;

use super::gtid_set;
use super::header::{HEADER_LEN, Header, Kind};
use super::packed::Packed;
use super::payload::Payload;

/// One event, borrowed from its bytes.
#[derive(Debug)]
pub struct Event<'a> {
    pub header: Header,
    /// The whole event, its header included, its checksum not. Its length is what the event counts for versions.
    pub bytes: &'a [u8],
    pub body: Body<'a>,
}

/// What an event says. Kinds that carry nothing for us are [`Body::Other`].
#[derive(Debug)]
pub enum Body<'a> {
    /// From here on events are read by this one.
    FormatDescription(Box<FormatDescription>),
    Rotate(Rotate<'a>),
    /// A transaction begins, with or without a GTID, tagged or not.
    GroupStart(GroupStart),
    PreviousGtids(GtidSet),
    /// A statement: BEGIN, COMMIT, XA …, DDL, or a change that was not logged as rows (LOAD DATA included).
    Query(Query<'a>),
    TableMap(TableMapEvent<'a>),
    Rows(RowsEvent<'a>),
    /// The text of the statement whose rows follow; for messages only.
    RowsQuery(&'a [u8]),
    /// The transaction is committed.
    Xid(u64),
    XaPrepare(XaPrepare<'a>),
    Heartbeat(Heartbeat<'a>),
    /// Events of a whole transaction.
    Payload(Payload<'a>),
    /// A statement or rows of MariaDB; unpacked, it is another event.
    Packed(Packed<'a>),
    /// The server lost something while it wrote the log: whatever follows is not the whole truth.
    Incident,
    /// The server closed its log.
    Stop,
    /// Known to carry nothing for us, or marked as skippable.
    Other,
}

/// The parts of one event whose checksum is already off.
fn parse<'a>(format: &FormatDescription, header: Header, bytes: &'a [u8]) -> Result<Event<'a>> {
    let data = bytes.get(HEADER_LEN..).unwrap_or_default();
    let body = match header.kind {
        Kind::ROTATE => Body::Rotate(Rotate::parse(data)?),
        Kind::GTID => Body::GroupStart(GroupStart::parse(data, true)?),
        Kind::ANONYMOUS_GTID => Body::GroupStart(GroupStart::parse(data, false)?),
        Kind::GTID_TAGGED => Body::GroupStart(GroupStart::parse_tagged(data)?),
        Kind::MARIADB_GTID => Body::GroupStart(GroupStart::parse_mariadb(header.server_id, data)?),
        Kind::MARIADB_GTID_LIST => Body::PreviousGtids(gtid_set::decode_list(data)?),
        Kind::PREVIOUS_GTIDS => Body::PreviousGtids(gtid_set::decode(data)?),
        Kind::QUERY => Body::Query(Query::parse(data)?),
        Kind::EXECUTE_LOAD_QUERY => Body::Query(Query::parse_load(data)?),
        Kind::TABLE_MAP => Body::TableMap(TableMapEvent::parse(data, format.is_mariadb)?),
        Kind::WRITE_ROWS
        | Kind::UPDATE_ROWS
        | Kind::DELETE_ROWS
        | Kind::WRITE_ROWS_V1
        | Kind::UPDATE_ROWS_V1
        | Kind::DELETE_ROWS_V1
        | Kind::PARTIAL_UPDATE_ROWS => Body::Rows(RowsEvent::parse(header.kind, bytes)?),
        // One byte of (truncated) length, then the text up to the end.
        Kind::ROWS_QUERY => Body::RowsQuery(data.get(1..).unwrap_or_default()),
        Kind::MARIADB_ANNOTATE_ROWS => Body::RowsQuery(data),
        Kind::QUERY_COMPRESSED
        | Kind::WRITE_ROWS_COMPRESSED_V1
        | Kind::UPDATE_ROWS_COMPRESSED_V1
        | Kind::DELETE_ROWS_COMPRESSED_V1
        | Kind::WRITE_ROWS_COMPRESSED
        | Kind::UPDATE_ROWS_COMPRESSED
        | Kind::DELETE_ROWS_COMPRESSED => Body::Packed(Packed::parse(&header, bytes)?),
        Kind::START_ENCRYPTION if !header.is_ignorable() => return Err(encrypted()),
        Kind::XID => Body::Xid(super::cursor::Cursor::new(data).u64()?),
        Kind::XA_PREPARE => Body::XaPrepare(XaPrepare::parse(data)?),
        Kind::HEARTBEAT => Body::Heartbeat(Heartbeat::parse(&header, data)),
        Kind::HEARTBEAT_V2 => Body::Heartbeat(Heartbeat::parse_v2(data)?),
        Kind::TRANSACTION_PAYLOAD => Body::Payload(Payload::parse(data)?),
        Kind::INCIDENT => Body::Incident,
        Kind::STOP => Body::Stop,
        Kind::INTVAR
        | Kind::RAND
        | Kind::USER_VAR
        | Kind::APPEND_BLOCK
        | Kind::DELETE_FILE
        | Kind::BEGIN_LOAD_QUERY
        | Kind::IGNORABLE
        | Kind::TRANSACTION_CONTEXT
        | Kind::VIEW_CHANGE
        | Kind::MARIADB_CHECKPOINT => Body::Other,
        _ if header.is_ignorable() => Body::Other,
        unknown => return Err(unknown_kind(unknown)),
    };
    Ok(Event { header, bytes, body })
}

/// An event that we do not know may be a change that we would miss, so it is never skipped.
fn unknown_kind(kind: Kind) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the log has an event of type {}, which is not known", kind.0),
    )
    .with_advice(
        "MySQL 5.6 to 9.7 and MariaDB 10.5 to 11.8 are understood; report the server's version",
    )
}

/// Stands in the files of a server that encrypts its log. It sends them decrypted, and this event as one to be skipped.
#[cold]
fn encrypted() -> Error {
    Error::new(ErrorKind::Unsupported, "the log is encrypted (START_ENCRYPTION)")
        .with_advice("read it from the server, which sends it decrypted, and not from its files")
}
