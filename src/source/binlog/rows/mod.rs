//! Rows events to changes: only the wanted columns are decoded, the others are stepped over. Nothing is allocated per
//! row or column.
//!
//! Why a plan can be trusted: it is made of one definition and one announced layout that agree in every column's type,
//! sign and (where the server names them) name; a layout with other bytes needs another plan. That the definition is
//! the one of the event's position is the caller's to prove.

mod agreement;
mod history;
#[cfg(test)]
mod tests;
mod width;

use crate::change::{Change, ChangeKind, Row, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::table::{ColumnType, TableDef, TableId};

use super::cursor::{Cursor, ends_early};
use super::event::{RowsEvent, RowsKind};
use super::table_map::{TableMap, column_kind};
use super::value::Read;
use width::Width;

#[derive(Debug, Clone, Copy)]
struct Step {
    width: Width,
    /// Where the value goes and how it is read; None for a column that is stepped over.
    wanted: Option<(u16, Read)>,
    is_json: bool,
    /// Tells whether the image is of a row that still is so.
    is_row_end: bool,
}

/// How the rows of one table in one layout are walked.
#[derive(Debug, Clone)]
pub struct Plan {
    table: TableId,
    steps: Vec<Step>,
    /// Names of the wanted columns, for messages.
    names: Vec<String>,
    /// The table keeps the past of its rows.
    has_history: bool,
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
            agreement::check(def, column, in_log)?;
            let is_json = in_log.kind == column_kind::JSON;
            let is_row_end = column.ty == ColumnType::RowEnd;
            let width = Width::of(in_log, &column.ty);
            steps.push(Step { width, wanted: None, is_json, is_row_end });
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
            let read = agreement::read(column, in_log)
                .map_err(|error| error.context(place(&def.id, &column.name)))?;
            step.wanted = Some((slot as u16, read));
            names.push(column.name.clone());
        }
        let has_history = steps.iter().any(|step| step.is_row_end);
        Ok(Self { table: def.id.clone(), steps, names, has_history })
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
    /// After images may hold differences of JSON values.
    has_differences: bool,
}

/// Which columns the images hold.
#[derive(Debug, Clone, Copy)]
struct Present<'a> {
    bitmap: &'a [u8],
    all: bool,
    /// All that are wanted are there.
    all_wanted: bool,
    null_bytes: usize,
}

impl<'a, 'p> Reader<'a, 'p> {
    pub fn new(event: &RowsEvent<'a>, plan: &'p Plan) -> Result<Self> {
        let (kind, has_differences) = match event.kind {
            RowsKind::Whole(kind) => (kind, false),
            RowsKind::PartialUpdate => (ChangeKind::Update, true),
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
        Ok(Self { plan, kind, bytes: event.bytes, at, first, second, has_differences })
    }

    /// No wanted column can be [`Value::LeftOut`] in any row of the event.
    pub fn is_whole(&self) -> bool {
        self.first.all_wanted && self.second.all_wanted && !self.has_differences
    }

    /// Fills `change` with the next row; false where there is none. Its offsets count from the event's first byte.
    #[inline]
    pub fn next(&mut self, change: &mut Change<'a>) -> Result<bool> {
        if self.plan.has_history { self.next_current(change) } else { self.step(change) }
    }

    /// Fills `change` with the next row as the log has it.
    #[inline]
    fn step(&mut self, change: &mut Change<'a>) -> Result<bool> {
        if self.at >= self.bytes.len() {
            return Ok(false);
        }
        let begun_at = self.at;
        change.kind = self.kind;
        match self.kind {
            ChangeKind::Insert => self.image::<false>(self.first, &[], &mut change.after)?,
            ChangeKind::Delete => self.image::<false>(self.first, &[], &mut change.before)?,
            ChangeKind::Update => {
                self.image::<false>(self.first, &[], &mut change.before)?;
                if self.has_differences {
                    let differing = self.differing()?;
                    self.image::<true>(self.second, differing, &mut change.after)?;
                } else {
                    self.image::<false>(self.second, &[], &mut change.after)?;
                }
                if !self.second.all_wanted {
                    self.inherit(change);
                }
            }
        }
        if self.at == begun_at {
            return Err(ends_early().context(format!("a row of {} is empty", self.plan.table)));
        }
        Ok(true)
    }

    /// Which of the table's JSON columns the after image that follows has as differences: a bit for each, whether the
    /// image has the column or not. Empty where none is.
    fn differing(&mut self) -> Result<&'a [u8]> {
        const PARTIAL_JSON: u64 = 1;
        let mut cursor = Cursor::new(self.bytes.get(self.at..).unwrap_or_default());
        let options = cursor.lenenc()?;
        let json_columns = self.plan.steps.iter().filter(|step| step.is_json).count();
        let bits = match options & PARTIAL_JSON {
            0 => &[][..],
            _ => cursor.bytes(json_columns.div_ceil(8))?,
        };
        self.at = self.bytes.len() - cursor.rest().len();
        Ok(bits)
    }

    /// What the after image leaves out has not changed: it is what the before image has, if that has it.
    fn inherit(&self, change: &mut Change<'a>) {
        for (ordinal, step) in self.plan.steps.iter().enumerate() {
            let Some((slot, _)) = step.wanted else { continue };
            let slot = usize::from(slot);
            if is_set(self.second.bitmap, ordinal) {
                continue;
            }
            if let (Some(after), Some(before)) =
                (change.after.values.get_mut(slot), change.before.values.get(slot))
            {
                *after = *before;
            }
        }
    }

    /// `differing` has a bit for each JSON column of the table.
    fn image<const DIFFERENCES: bool>(
        &mut self,
        present: Present<'a>,
        differing: &[u8],
        row: &mut Row<'a>,
    ) -> Result<()> {
        row.offset = self.at as u32;
        row.values.clear();
        row.values.resize(self.plan.names.len(), Value::Null);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (nulls, rest) = rest.split_at_checked(present.null_bytes).ok_or_else(ends_early)?;
        let mut cursor = Cursor::new(rest);
        let (mut bit, mut json) = (0, 0);
        for (ordinal, step) in self.plan.steps.iter().enumerate() {
            let differs = DIFFERENCES && step.is_json && is_set(differing, json);
            json += usize::from(DIFFERENCES && step.is_json);
            if !present.all && !is_set(present.bitmap, ordinal) {
                leave_out(row, step);
                continue;
            }
            let null = is_set(nulls, bit);
            bit += 1;
            if null {
                continue;
            }
            let bytes =
                step.width.take(&mut cursor).map_err(|error| self.plan.in_column(error, step))?;
            if differs {
                leave_out(row, step);
                continue;
            }
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
        let is_there =
            |(ordinal, step): (usize, &Step)| step.wanted.is_none() || is_set(bitmap, ordinal);
        let all_wanted = plan.steps.iter().enumerate().all(is_there);
        Ok(Self { bitmap, all: present == columns, all_wanted, null_bytes: present.div_ceil(8) })
    }
}

#[cold]
fn leave_out(row: &mut Row<'_>, step: &Step) {
    if let Some((slot, _)) = step.wanted
        && let Some(value) = row.values.get_mut(usize::from(slot))
    {
        *value = Value::LeftOut;
    }
}

#[inline]
fn is_set(bitmap: &[u8], bit: usize) -> bool {
    bitmap.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
}

fn place(table: &TableId, column: &str) -> String {
    format!("column `{column}` of {table}")
}

fn schema(message: String) -> Error {
    Error::new(ErrorKind::Schema, message)
        .with_advice("the table was altered between its definition and this event; drop the link and make it again")
}
