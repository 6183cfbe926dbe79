//! Reads chunks of one table over a connection of its own, by the binary protocol. Knows nothing of windows.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Params, Row, Value as SqlValue};

use crate::change::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::source::control;
use crate::source::schema;
use crate::source::snapshot::chunk;
use crate::state::KeyPart;
use crate::table::{Column, ColumnType, TableDef};

/// One chunk as it was read.
pub struct Chunk {
    rows: Vec<Row>,
    /// The key of the last row; the next chunk begins after it.
    pub last_key: Option<Vec<KeyPart>>,
    /// Nothing is left up to the snapshot's last key.
    pub is_last: bool,
    /// How many rows were looked at.
    pub walked: usize,
    pub elapsed: Duration,
    pub bytes: usize,
}

impl Chunk {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Calls `take` with the wanted columns' values of one row.
    pub fn with_row<T>(
        &self,
        row: usize,
        types: &[&ColumnType],
        take: impl FnOnce(&[Value<'_>]) -> Result<T>,
    ) -> Result<T> {
        let row = &self.rows[row];
        let of =
            |(at, ty): (usize, &&ColumnType)| value(row.as_ref(at).unwrap_or(&SqlValue::NULL), ty);
        let values: Vec<_> = types.iter().enumerate().map(of).collect();
        take(&values)
    }
}

/// Reads the greatest key of the table, or `None` where the table is empty.
pub async fn last_key(conn: &mut Conn, def: &TableDef) -> Result<Option<Vec<KeyPart>>> {
    let row: Option<Row> =
        conn.exec_first(chunk::select_last_key(def), ()).await.map_err(|error| {
            control::error(error).context(format!("cannot read the last key of {}", def.id))
        })?;
    row.map(|row| key_of(&row, 0, def)).transpose()
}

/// Whether the server understands this as a condition on the table's rows. It is run as it is, in a session that may
/// only read.
pub async fn check_condition(conn: &mut Conn, def: &TableDef, condition: &str) -> Result<()> {
    let statement = chunk::select_nothing(def, condition);
    let wrong = |reason: &str| {
        Error::input(format!("the source does not understand the condition: {reason}"))
    };
    match conn.exec_drop(statement, ()).await {
        Ok(()) => Ok(()),
        Err(mysql_async::Error::Driver(DriverError::StmtParamsMismatch { .. })) => {
            Err(wrong("it holds a `?`, and there is nothing to be put there"))
        }
        Err(cause) if control::code(&cause).is_some() => {
            Err(wrong(&control::error(cause).report()))
        }
        Err(cause) => Err(control::error(cause).context("cannot ask the source for a condition")),
    }
}

/// The server's own estimate of the table's rows.
pub async fn estimated_rows(conn: &mut Conn, def: &TableDef) -> Result<u64> {
    let rows: Option<Option<u64>> = conn
        .exec_first(
            "SELECT table_rows FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
            (&def.id.db, &def.id.name),
        )
        .await
        .map_err(control::error)?;
    Ok(rows.flatten().unwrap_or(0))
}

/// Reads the rows after `after` up to `until`, walking over at most `rows_max` of them, by one statement. Of rows beyond
/// `bytes_max` none is kept but the first: they belong to the next chunk.
///
/// Where a condition picks few of the rows, a statement before looks for the key at which the walk ends.
pub async fn read_chunk(
    conn: &mut Conn,
    def: &TableDef,
    wanted: &[usize],
    after: Option<&[KeyPart]>,
    until: &[KeyPart],
    most: (u32, usize),
) -> Result<Chunk> {
    read_chunk_where(conn, def, wanted, (after, until), most, None).await
}

/// The same of the rows for which `condition` is true, which is SQL. At most `rows_max` are walked over, whether it is true
/// for them or not: where it picks few, a statement before looks for the key at which the walk ends.
pub async fn read_chunk_where(
    conn: &mut Conn,
    def: &TableDef,
    wanted: &[usize],
    (after, until): (Option<&[KeyPart]>, &[KeyPart]),
    (rows_max, bytes_max): (u32, usize),
    condition: Option<&str>,
) -> Result<Chunk> {
    let started = Instant::now();
    let tried = |error| control::error(error).context(format!("cannot read a chunk of {}", def.id));
    let step = match condition {
        Some(_) => step(conn, def, (after, until), rows_max).await?,
        None => None,
    };
    let until = step.as_deref().unwrap_or(until);
    let statement = chunk::select_where(def, wanted, after.is_some(), condition);
    let params = params(after, until, rows_max);
    let mut answer = conn.exec_iter(statement, params).await.map_err(tried)?;
    let (mut rows, mut bytes, mut is_cut) = (Vec::new(), 0, false);
    while let Some(row) = answer.next().await.map_err(tried)? {
        if bytes >= bytes_max {
            is_cut = true;
            continue;
        }
        bytes += row_bytes(&row);
        rows.push(row);
    }
    drop(answer);
    // Where the two statements do not see the same, rows that came between them push others out of a full chunk.
    let is_whole = !is_cut && rows.len() < rows_max as usize;
    let last_key = match step.clone().filter(|_| is_whole) {
        Some(step) => Some(step),
        None => rows.last().map(|row| key_of(row, wanted.len(), def)).transpose()?,
    };
    Ok(Chunk {
        last_key,
        is_last: is_whole && step.is_none(),
        walked: if is_whole && step.is_some() { rows_max as usize } else { rows.len() },
        rows,
        elapsed: started.elapsed(),
        bytes,
    })
}

fn params(after: Option<&[KeyPart]>, until: &[KeyPart], count: u32) -> Params {
    let mut params: Vec<SqlValue> = Vec::new();
    for key in after.into_iter().chain([until]) {
        params.extend(chunk::bound_parts(key).iter().map(bind));
    }
    params.push(SqlValue::UInt(u64::from(count)));
    Params::Positional(params)
}

/// The key of the last of the next `rows` rows, if there are so many.
async fn step(
    conn: &mut Conn,
    def: &TableDef,
    (after, until): (Option<&[KeyPart]>, &[KeyPart]),
    rows: u32,
) -> Result<Option<Vec<KeyPart>>> {
    let statement = chunk::select_step(def, after.is_some());
    let params = params(after, until, rows.saturating_sub(1));
    let row: Option<Row> = conn.exec_first(statement, params).await.map_err(|error| {
        control::error(error).context(format!("cannot walk along the key of {}", def.id))
    })?;
    row.map(|row| key_of(&row, 0, def)).transpose()
}

/// Reads the rows with these keys, as far as there are any. Nothing proves that the columns are still those of `def`.
pub async fn find(
    conn: &mut Conn,
    def: &TableDef,
    wanted: &[usize],
    key: &[usize],
    keys: &[Vec<KeyPart>],
) -> Result<Chunk> {
    let started = Instant::now();
    let rows = rows_of(conn, def, wanted, key, keys).await?;
    let bytes = rows.iter().map(row_bytes).sum();
    let walked = rows.len();
    Ok(Chunk { last_key: None, is_last: true, walked, rows, elapsed: started.elapsed(), bytes })
}

async fn rows_of(
    conn: &mut Conn,
    def: &TableDef,
    wanted: &[usize],
    key: &[usize],
    keys: &[Vec<KeyPart>],
) -> Result<Vec<Row>> {
    let tried = |error| control::error(error).context(format!("cannot read rows of {}", def.id));
    // Few different statements: each is prepared once. The last key stands for those that are missing.
    let count = keys.len().next_power_of_two();
    let fill = keys.last().into_iter().cycle().take(count - keys.len());
    let params: Vec<_> = keys.iter().chain(fill).flatten().map(bind).collect();
    let statement = chunk::select_keys(def, wanted, key, count);
    conn.exec(statement, Params::Positional(params)).await.map_err(tried)
}

/// Reads the rows with these keys, as far as there are any, and proves that the wanted columns are still those of `def`. To
/// be called within a transaction: the table cannot be altered between the two, for the transaction holds on to its
/// definition.
pub async fn read_keys(
    conn: &mut Conn,
    def: &TableDef,
    wanted: &[usize],
    key: &[usize],
    keys: &[Vec<KeyPart>],
) -> Result<Chunk> {
    let started = Instant::now();
    let rows = rows_of(conn, def, wanted, key, keys).await?;
    let now = schema::read_if_table(conn, &def.id).await?;
    let of = |def: &TableDef, at: &usize| def.columns.get(*at).cloned();
    let is_same = |now: &TableDef| {
        wanted.iter().chain(key).all(|at| of(now, at) == of(def, at))
            && now.primary_key == def.primary_key
    };
    if !now.as_ref().is_some_and(is_same) {
        let what = format!("{} was altered since the log left columns of its rows out", def.id);
        return Err(Error::new(ErrorKind::Schema, what));
    }
    let bytes = rows.iter().map(row_bytes).sum();
    let walked = rows.len();
    Ok(Chunk { last_key: None, is_last: true, walked, rows, elapsed: started.elapsed(), bytes })
}

fn row_bytes(row: &Row) -> usize {
    let held = |at| match row.as_ref(at) {
        Some(SqlValue::Bytes(bytes)) => bytes.len(),
        _ => 0,
    };
    (0..row.len()).map(|at| held(at) + size_of::<SqlValue>()).sum()
}

fn bind(part: &KeyPart) -> SqlValue {
    match part {
        KeyPart::Int(number) => SqlValue::Int(*number),
        KeyPart::UInt(number) => SqlValue::UInt(*number),
        KeyPart::Bytes(bytes) => SqlValue::Bytes(bytes.clone()),
        KeyPart::Text(text) => SqlValue::Bytes(text.clone().into_bytes()),
    }
}

/// The primary key of a row whose key columns begin at `from`.
fn key_of(row: &Row, from: usize, def: &TableDef) -> Result<Vec<KeyPart>> {
    let parts = def.primary_key.iter().enumerate();
    parts
        .map(|(at, ordinal)| {
            let column = &def.columns[*ordinal];
            let value = row.as_ref(from + at).unwrap_or(&SqlValue::NULL);
            key_part(value, column).ok_or_else(|| no_place(def, column))
        })
        .collect()
}

fn key_part(value: &SqlValue, column: &Column) -> Option<KeyPart> {
    Some(match value {
        SqlValue::NULL => return None,
        SqlValue::Int(number) => KeyPart::Int(*number),
        SqlValue::UInt(number) => KeyPart::UInt(*number),
        SqlValue::Bytes(bytes) if matches!(column.ty, ColumnType::Bit { .. }) => {
            KeyPart::UInt(bits(bytes))
        }
        SqlValue::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => KeyPart::Text(text.to_owned()),
            Err(_) => KeyPart::Bytes(bytes.clone()),
        },
        // Dates and times: their literal, as the server reads it back.
        other => KeyPart::Text(other.as_sql(true).trim_matches('\'').to_owned()),
    })
}

/// BIT comes as its bytes, the highest first.
fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

fn no_place(def: &TableDef, column: &Column) -> Error {
    let message = format!(
        "a key of {} cannot be gone on from: column `{}` ({}) holds bytes that its character set has no character for, or \
         that another character is written with",
        def.id, column.name, column.declared
    );
    Error::new(ErrorKind::DocumentRefused, message).with_advice("mend the row")
}

/// A value of the binary protocol as the value of a column of this type.
fn value<'r>(value: &'r SqlValue, ty: &ColumnType) -> Value<'r> {
    match (value, ty) {
        (SqlValue::NULL, _) => Value::Null,
        (SqlValue::Int(number), ColumnType::Year) => Value::Year(*number as u16),
        (SqlValue::UInt(number), ColumnType::Year) => Value::Year(*number as u16),
        (SqlValue::Int(number), _) => Value::Int(*number),
        (SqlValue::UInt(number), _) => Value::UInt(*number),
        (SqlValue::Float(number), _) => Value::Float(*number),
        (SqlValue::Double(number), _) => Value::Double(*number),
        (SqlValue::Bytes(bytes), ColumnType::Decimal { .. }) => Value::DecimalText(bytes),
        (SqlValue::Bytes(bytes), ColumnType::Binary { length }) => {
            Value::Binary { bytes, length: *length }
        }
        (SqlValue::Bytes(bytes), ColumnType::Bytes) => Value::Bytes(bytes),
        (SqlValue::Bytes(bytes), ColumnType::Enum { .. }) => Value::Label(bytes),
        (SqlValue::Bytes(bytes), ColumnType::Set { .. }) => Value::Labels(bytes),
        (SqlValue::Bytes(bytes), ColumnType::Json | ColumnType::JsonText) => Value::JsonText(bytes),
        (SqlValue::Bytes(bytes), ColumnType::TextIn { .. }) => Value::Encoded(bytes),
        (SqlValue::Bytes(bytes), ColumnType::Bit { .. }) => Value::UInt(bits(bytes)),
        (SqlValue::Bytes(bytes), ColumnType::Geometry) => Value::Geometry(bytes),
        (SqlValue::Bytes(bytes), ColumnType::Vector) => Value::Vector(bytes),
        (SqlValue::Bytes(bytes), _) => Value::Text(bytes),
        (&SqlValue::Date(year, month, day, ..), ColumnType::Date) => {
            Value::Date { year, month, day }
        }
        (
            &SqlValue::Date(year, month, day, hours, minutes, seconds, micros),
            ColumnType::Timestamp { .. } | ColumnType::RowEnd,
        ) => Value::Timestamp {
            seconds: unix_seconds(year, month, day, hours, minutes, seconds),
            micros,
            fsp: if let ColumnType::Timestamp { fsp } = ty { *fsp } else { 6 },
        },
        (&SqlValue::Date(year, month, day, hours, minutes, seconds, micros), ty) => {
            let fsp = if let ColumnType::DateTime { fsp } = ty { *fsp } else { 0 };
            Value::DateTime { year, month, day, hours, minutes, seconds, micros, fsp }
        }
        (&SqlValue::Time(negative, days, hours, minutes, seconds, micros), ty) => {
            let fsp = if let ColumnType::Time { fsp } = ty { *fsp } else { 0 };
            let hours = (days * 24 + u32::from(hours)) as u16;
            Value::Time { negative, hours, minutes, seconds, micros, fsp }
        }
    }
}

/// Seconds since 1970 of a moment in UTC (sessions read TIMESTAMPs in UTC); 0 for the zero timestamp.
fn unix_seconds(year: u16, month: u8, day: u8, hours: u8, minutes: u8, seconds: u8) -> u32 {
    if year < 1970 || month == 0 || day == 0 {
        return 0;
    }
    let leap = |year: u32| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let year = u32::from(year);
    let mut days: u32 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    const BEFORE_MONTH: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    days += BEFORE_MONTH.get(usize::from(month - 1)).copied().unwrap_or(0);
    if month > 2 && leap(year) {
        days += 1;
    }
    days += u32::from(day) - 1;
    days * 86_400 + u32::from(hours) * 3_600 + u32::from(minutes) * 60 + u32::from(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_counted_from_1970() {
        assert_eq!(unix_seconds(1970, 1, 1, 0, 0, 1), 1);
        assert_eq!(unix_seconds(2024, 2, 29, 12, 0, 0), 1_709_208_000);
        assert_eq!(unix_seconds(2024, 3, 1, 0, 0, 0), 1_709_251_200);
        assert_eq!(unix_seconds(2100, 3, 1, 0, 0, 0), 4_107_542_400);
        assert_eq!(unix_seconds(0, 0, 0, 0, 0, 0), 0);
    }
}
