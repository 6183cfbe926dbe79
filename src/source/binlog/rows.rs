//! Rows events to changes: only the wanted columns are decoded, the others are stepped over. Nothing is allocated per
//! row or column.
//!
//! Why a plan can be trusted: it is made of one definition and one announced layout that agree in every column's type,
//! sign and (where the server names them) name; a layout with other bytes needs another plan. That the definition is
//! the one of the event's position is the caller's to prove.

use crate::change::{Change, ChangeKind, Row, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::table::{Column, ColumnType, TableDef, TableId};

use super::cursor::{Cursor, ends_early};
use super::event::{RowsEvent, RowsKind};
use super::table_map::{MapColumn, TableMap, column_kind as k};
use super::value::{Read, fraction_len};

/// The binary collation.
const BINARY: u64 = 63;

/// How many bytes a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Fixed(u16),
    /// As many as the little-endian integer of so many bytes before them says.
    Counted(u8),
}

#[derive(Debug, Clone, Copy)]
struct Step {
    width: Width,
    /// Where the value goes and how it is read; None for a column that is stepped over.
    wanted: Option<(u16, Read)>,
}

/// How the rows of one table in one layout are walked.
#[derive(Debug, Clone)]
pub struct Plan {
    table: TableId,
    steps: Vec<Step>,
    /// Names of the wanted columns, for messages.
    names: Vec<String>,
}

impl Plan {
    /// `wanted` are ordinals into `def.columns`, each at most once; values come in their order.
    pub fn new(def: &TableDef, wanted: &[usize], map: &TableMap) -> Result<Self> {
        if def.columns.len() != map.columns.len() {
            let (in_log, defined) = (map.columns.len(), def.columns.len());
            return Err(schema(format!(
                "{} has {in_log} columns in the log, but {defined} as it is defined",
                def.id
            )));
        }
        let mut steps = Vec::with_capacity(map.columns.len());
        for (column, in_log) in def.columns.iter().zip(&map.columns) {
            check(def, column, in_log)?;
            steps.push(Step { width: width(in_log), wanted: None });
        }
        let mut names = Vec::with_capacity(wanted.len());
        for (slot, &ordinal) in wanted.iter().enumerate() {
            let (Some(step), Some(column), Some(in_log)) =
                (steps.get_mut(ordinal), def.columns.get(ordinal), map.columns.get(ordinal))
            else {
                return Err(schema(format!("{} has no column number {}", def.id, ordinal + 1)));
            };
            if step.wanted.is_some() {
                return Err(Error::input(format!(
                    "column `{}` of {} is wanted twice",
                    column.name, def.id
                )));
            }
            let read = read(column, in_log)
                .map_err(|error| error.context(place(&def.id, &column.name)))?;
            step.wanted = Some((slot as u16, read));
            names.push(column.name.clone());
        }
        Ok(Self { table: def.id.clone(), steps, names })
    }
}

/// The rows of one event, one after the other.
#[derive(Debug)]
pub struct Reader<'a, 'p> {
    plan: &'p Plan,
    kind: ChangeKind,
    bytes: &'a [u8],
    at: usize,
    first: Present<'a>,
    /// Of the after images of updates.
    second: Present<'a>,
}

/// Which columns the images hold.
#[derive(Debug, Clone, Copy)]
struct Present<'a> {
    bitmap: &'a [u8],
    all: bool,
    null_bytes: usize,
}

impl<'a, 'p> Reader<'a, 'p> {
    pub fn new(event: &RowsEvent<'a>, plan: &'p Plan) -> Result<Self> {
        let RowsKind::Whole(kind) = event.kind else {
            let message =
                format!("an update of {} was logged as differences of JSON documents", plan.table);
            return Err(Error::new(ErrorKind::Unsupported, message).with_advice(
                "SET PERSIST binlog_row_value_options = '' and start the sessions that write anew",
            ));
        };
        if event.column_count != plan.steps.len() {
            let (rows, map) = (event.column_count, plan.steps.len());
            let message =
                format!("rows of {} have {rows} columns, but {map} were announced", plan.table);
            return Err(Error::new(ErrorKind::Undecodable, message));
        }
        let mut cursor = Cursor::new(event.bytes.get(event.bitmaps_at..).unwrap_or_default());
        let first = Present::read(&mut cursor, plan)?;
        let second =
            if kind == ChangeKind::Update { Present::read(&mut cursor, plan)? } else { first };
        let at = event.bytes.len() - cursor.rest().len();
        Ok(Self { plan, kind, bytes: event.bytes, at, first, second })
    }

    /// Fills `change` with the next row; false where there is none. Its offsets count from the event's first byte.
    #[inline]
    pub fn next(&mut self, change: &mut Change<'a>) -> Result<bool> {
        if self.at >= self.bytes.len() {
            return Ok(false);
        }
        let begun_at = self.at;
        change.kind = self.kind;
        match self.kind {
            ChangeKind::Insert => self.image(self.first, &mut change.after)?,
            ChangeKind::Delete => self.image(self.first, &mut change.before)?,
            ChangeKind::Update => {
                self.image(self.first, &mut change.before)?;
                self.image(self.second, &mut change.after)?;
            }
        }
        if self.at == begun_at {
            return Err(ends_early().context(format!("a row of {} is empty", self.plan.table)));
        }
        Ok(true)
    }

    fn image(&mut self, present: Present<'a>, row: &mut Row<'a>) -> Result<()> {
        row.offset = self.at as u32;
        row.values.clear();
        row.values.resize(self.plan.names.len(), Value::Null);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (nulls, rest) = rest.split_at_checked(present.null_bytes).ok_or_else(ends_early)?;
        let mut cursor = Cursor::new(rest);
        let mut bit = 0;
        for (ordinal, step) in self.plan.steps.iter().enumerate() {
            if !present.all && !is_set(present.bitmap, ordinal) {
                continue;
            }
            let null = is_set(nulls, bit);
            bit += 1;
            if null {
                continue;
            }
            let bytes =
                step.width.take(&mut cursor).map_err(|error| self.plan.in_column(error, step))?;
            let Some((slot, read)) = step.wanted else { continue };
            if let Some(value) = row.values.get_mut(usize::from(slot)) {
                *value = read.value(bytes).map_err(|error| self.plan.in_column(error, step))?;
            }
        }
        self.at = self.bytes.len() - cursor.rest().len();
        Ok(())
    }
}

impl Plan {
    #[cold]
    fn in_column(&self, error: Error, step: &Step) -> Error {
        let name = step.wanted.and_then(|(slot, _)| self.names.get(usize::from(slot)));
        match name {
            Some(name) => error.context(format!("cannot decode {}", place(&self.table, name))),
            None => error.context(format!("cannot decode a row of {}", self.table)),
        }
    }
}

impl<'a> Present<'a> {
    fn read(cursor: &mut Cursor<'a>, plan: &Plan) -> Result<Self> {
        let columns = plan.steps.len();
        let bitmap = cursor.bytes(columns.div_ceil(8))?;
        // The bits behind the last column may be set, and mean nothing.
        let present = (0..columns).filter(|&ordinal| is_set(bitmap, ordinal)).count();
        let missing = plan.steps.iter().enumerate().find_map(|(ordinal, step)| {
            let (slot, _) = step.wanted.filter(|_| !is_set(bitmap, ordinal))?;
            plan.names.get(usize::from(slot))
        });
        if let Some(name) = missing {
            let message =
                format!("a row image lacks {}, which is mapped", place(&plan.table, name));
            return Err(Error::new(ErrorKind::Unsupported, message).with_advice(
                "SET PERSIST binlog_row_image = FULL and start the sessions that write anew",
            ));
        }
        Ok(Self { bitmap, all: present == columns, null_bytes: present.div_ceil(8) })
    }
}

impl Width {
    #[inline]
    fn take<'a>(self, cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
        match self {
            Self::Fixed(count) => cursor.bytes(usize::from(count)),
            Self::Counted(1) => {
                let count = usize::from(cursor.u8()?);
                cursor.bytes(count)
            }
            Self::Counted(2) => {
                let count = usize::from(cursor.u16()?);
                cursor.bytes(count)
            }
            Self::Counted(width) => {
                let count = cursor.uint(usize::from(width))?;
                cursor.bytes(count as usize)
            }
        }
    }
}

#[inline]
fn is_set(bitmap: &[u8], bit: usize) -> bool {
    bitmap.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
}

fn width(column: &MapColumn) -> Width {
    let metadata = column.metadata;
    let [low, high] = metadata.to_le_bytes();
    match column.kind {
        k::TINY | k::YEAR => Width::Fixed(1),
        k::SHORT => Width::Fixed(2),
        k::INT24 | k::DATE | k::NEWDATE | k::TIME => Width::Fixed(3),
        k::LONG | k::FLOAT | k::TIMESTAMP => Width::Fixed(4),
        k::LONGLONG | k::DOUBLE | k::DATETIME => Width::Fixed(8),
        k::TIMESTAMP2 => Width::Fixed(4 + fraction_len(low)),
        k::DATETIME2 => Width::Fixed(5 + fraction_len(low)),
        k::TIME2 => Width::Fixed(3 + fraction_len(low)),
        k::NEWDECIMAL => Width::Fixed(decimal_len(low, high)),
        k::ENUM | k::SET => Width::Fixed(metadata),
        k::BIT => Width::Fixed(u16::from(high) + u16::from(low > 0)),
        k::VARCHAR | k::VAR_STRING | k::STRING => {
            Width::Counted(if metadata < 256 { 1 } else { 2 })
        }
        k::TINY_BLOB..=k::BLOB | k::GEOMETRY | k::JSON | k::VECTOR => Width::Counted(low),
        // Only NULL is left: the layout's parser refuses all others.
        _ => Width::Fixed(0),
    }
}

/// Nine digits take four bytes; what is left over on either side of the point takes what it needs.
fn decimal_len(precision: u8, scale: u8) -> u16 {
    const LEFT_OVER: [u16; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    let side = |digits: u8| u16::from(digits / 9) * 4 + LEFT_OVER[usize::from(digits % 9)];
    side(precision.saturating_sub(scale)) + side(scale)
}

/// Whether the column is in the log what its definition says.
fn check(def: &TableDef, column: &Column, in_log: &MapColumn) -> Result<()> {
    use ColumnType as C;
    let kind = in_log.kind;
    let [low, high] = in_log.metadata.to_le_bytes();
    let string = matches!(kind, k::VARCHAR | k::VAR_STRING | k::STRING | k::TINY_BLOB..=k::BLOB);
    let binary = in_log.collation.is_none_or(|collation| collation == BINARY);
    let sign = |unsigned: bool| in_log.unsigned.is_none_or(|in_log| in_log == unsigned);
    let agrees = match &column.ty {
        C::TinyInt { unsigned } => kind == k::TINY && sign(*unsigned),
        C::SmallInt { unsigned } => kind == k::SHORT && sign(*unsigned),
        C::MediumInt { unsigned } => kind == k::INT24 && sign(*unsigned),
        C::Int { unsigned } => kind == k::LONG && sign(*unsigned),
        C::BigInt { unsigned } => kind == k::LONGLONG && sign(*unsigned),
        C::Float => kind == k::FLOAT,
        C::Double => kind == k::DOUBLE,
        C::Decimal { precision, scale } => {
            kind == k::NEWDECIMAL && (low, high) == (*precision, *scale)
        }
        C::Date => matches!(kind, k::DATE | k::NEWDATE),
        C::Time { fsp } => (kind == k::TIME2 && low == *fsp) || (kind == k::TIME && *fsp == 0),
        C::DateTime { fsp } => {
            (kind == k::DATETIME2 && low == *fsp) || (kind == k::DATETIME && *fsp == 0)
        }
        C::Timestamp { fsp } => {
            (kind == k::TIMESTAMP2 && low == *fsp) || (kind == k::TIMESTAMP && *fsp == 0)
        }
        C::Year => kind == k::YEAR,
        C::Text => string && in_log.collation.is_none_or(is_utf8),
        C::Binary { length } => kind == k::STRING && in_log.metadata == *length && binary,
        C::Bytes => string && binary,
        C::Enum { .. } => kind == k::ENUM,
        C::Set { .. } => kind == k::SET,
        C::Json => kind == k::JSON,
        C::Unsupported { .. } => true,
    };
    if !agrees {
        let place = place(&def.id, &column.name);
        let message = format!(
            "{place} is {}, but has type {kind} ({}) in the log",
            column.declared, in_log.metadata
        );
        return Err(schema(message));
    }
    match &in_log.name {
        Some(name) if name.to_lowercase() != column.name.to_lowercase() => {
            Err(schema(format!("{} is called `{name}` in the log", place(&def.id, &column.name))))
        }
        _ => Ok(()),
    }
}

/// utf8mb4, utf8mb3 and ascii: bytes that are UTF-8 as they stand.
fn is_utf8(collation: u64) -> bool {
    matches!(collation, 45 | 46 | 224..=247 | 255..=323 | 33 | 76 | 83 | 192..=215 | 223 | 11 | 65)
}

fn read(column: &Column, in_log: &MapColumn) -> Result<Read> {
    use ColumnType as C;
    Ok(match column.ty {
        C::TinyInt { unsigned } => {
            if unsigned {
                Read::TinyUint
            } else {
                Read::TinyInt
            }
        }
        C::SmallInt { unsigned } => {
            if unsigned {
                Read::SmallUint
            } else {
                Read::SmallInt
            }
        }
        C::MediumInt { unsigned } => {
            if unsigned {
                Read::MediumUint
            } else {
                Read::MediumInt
            }
        }
        C::Int { unsigned } => {
            if unsigned {
                Read::Uint
            } else {
                Read::Int
            }
        }
        C::BigInt { unsigned } => {
            if unsigned {
                Read::BigUint
            } else {
                Read::BigInt
            }
        }
        C::Float => Read::Float,
        C::Double => Read::Double,
        C::Decimal { precision, scale } => Read::Decimal { precision, scale },
        C::Date => Read::Date,
        C::Time { .. } if in_log.kind == k::TIME => Read::OldTime,
        C::Time { fsp } => Read::Time { fsp },
        C::DateTime { .. } if in_log.kind == k::DATETIME => Read::OldDateTime,
        C::DateTime { fsp } => Read::DateTime { fsp },
        C::Timestamp { .. } if in_log.kind == k::TIMESTAMP => Read::OldTimestamp,
        C::Timestamp { fsp } => Read::Timestamp { fsp },
        C::Year => Read::Year,
        C::Text => Read::Text,
        C::Binary { length } => Read::Binary { length },
        C::Bytes => Read::Bytes,
        C::Enum { .. } => Read::Enum,
        C::Set { .. } => Read::Set,
        C::Json => Read::Json,
        C::Unsupported { ref reason } => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: {reason}", column.declared),
            ));
        }
    })
}

fn place(table: &TableId, column: &str) -> String {
    format!("column `{column}` of {table}")
}

fn schema(message: String) -> Error {
    Error::new(ErrorKind::Schema, message)
        .with_advice("the table was altered between its definition and this event; drop the link and make it again")
}
