//! TABLE_MAP and rows events, as far as their heads: which table, which columns, where the rows begin. Cheap enough to
//! be read for every event of every table, wanted or not.

use crate::change::ChangeKind;
use crate::error::{Error, ErrorKind, Result};

use super::super::cursor::Cursor;
use super::super::header::{HEADER_LEN, Kind};

/// Flag of the last rows event of a statement.
const STATEMENT_END: u16 = 1;

/// Flag of rows that were changed with `foreign_key_checks = 0`.
const UNCHECKED: u16 = 2;

/// Flag of a server that runs foreign keys in SQL and logs what they change (9.6 and later).
const LOGS_CASCADES: u16 = 16;

/// A table's layout is announced; [`super::super::TableMap::parse`] reads the rest of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableMapEvent<'a> {
    pub table_id: u64,
    pub db: &'a str,
    pub table: &'a str,
    /// Everything behind the table id and the flags: equal bytes are an equal layout of the same table.
    pub layout: &'a [u8],
    /// Everything behind the names.
    pub(in super::super) columns: &'a [u8],
    /// MariaDB lists collations of other columns than MySQL does.
    pub(in super::super) is_mariadb: bool,
}

impl<'a> TableMapEvent<'a> {
    pub(super) fn parse(data: &'a [u8], is_mariadb: bool) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let table_id = cursor.uint(6)?;
        let _flags = cursor.u16()?;
        let layout = cursor.rest();
        let db = name(&mut cursor)?;
        let table = name(&mut cursor)?;
        Ok(Self { table_id, db, table, layout, columns: cursor.rest(), is_mariadb })
    }
}

/// One length byte, the name, a zero byte.
fn name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let length = usize::from(cursor.u8()?);
    let bytes = cursor.bytes(length)?;
    let _zero = cursor.u8()?;
    simdutf8::basic::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::Undecodable, "a table's name in the log is not UTF-8"))
}

/// What the rows of an event mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    Whole(ChangeKind),
    /// After images hold differences of JSON documents (`binlog_row_value_options = PARTIAL_JSON`).
    PartialUpdate,
}

/// Rows of one table, not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsEvent<'a> {
    pub table_id: u64,
    pub kind: RowsKind,
    pub flags: u16,
    pub column_count: usize,
    /// The event, from its header to its last row.
    pub(in super::super) bytes: &'a [u8],
    /// Where in `bytes` the bitmaps of the columns that are present begin.
    pub(in super::super) bitmaps_at: usize,
}

impl<'a> RowsEvent<'a> {
    /// Reads a rows event again that was read once: `bytes` are its [`super::Event::bytes`].
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let kind = bytes.get(4).copied().ok_or_else(super::super::cursor::ends_early)?;
        Self::parse(Kind(kind), bytes)
    }

    pub(super) fn parse(kind: Kind, bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes.get(HEADER_LEN..).unwrap_or_default());
        let table_id = cursor.uint(6)?;
        let flags = cursor.u16()?;
        let has_extra =
            !matches!(kind, Kind::WRITE_ROWS_V1 | Kind::UPDATE_ROWS_V1 | Kind::DELETE_ROWS_V1);
        if has_extra {
            // The length counts its own two bytes.
            let length = usize::from(cursor.u16()?);
            cursor.bytes(length.saturating_sub(2))?;
        }
        let column_count = cursor.lenenc()? as usize;
        let bitmaps_at = bytes.len() - cursor.rest().len();
        let kind = match kind {
            Kind::WRITE_ROWS | Kind::WRITE_ROWS_V1 => RowsKind::Whole(ChangeKind::Insert),
            Kind::UPDATE_ROWS | Kind::UPDATE_ROWS_V1 => RowsKind::Whole(ChangeKind::Update),
            Kind::DELETE_ROWS | Kind::DELETE_ROWS_V1 => RowsKind::Whole(ChangeKind::Delete),
            _ => RowsKind::PartialUpdate,
        };
        Ok(Self { table_id, kind, flags, column_count, bytes, bitmaps_at })
    }

    /// The rows' changes may have changed rows that refer to them, without a word in the log.
    pub fn can_cascade(&self) -> bool {
        self.flags & (UNCHECKED | LOGS_CASCADES) == 0
    }

    /// What foreign keys changed is in the log like any other change.
    pub fn logs_cascades(&self) -> bool {
        self.flags & LOGS_CASCADES != 0
    }

    /// The last rows event of its statement: table ids announced before mean nothing behind it.
    pub fn ends_statement(&self) -> bool {
        self.flags & STATEMENT_END != 0
    }
}
