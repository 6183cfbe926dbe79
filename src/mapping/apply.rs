//! A plan at work: a row's values to its `_id` and its document, a change to its operations. This is the hot path: it
//! allocates nothing per row once its buffers have grown.

use super::compile::Plan;
use super::json;
use super::key::write_part;
use crate::change::{Change, ChangeKind, Row, Value};
use crate::document::{Action, DocOp};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Version;
use crate::table::Column;

/// OpenSearch refuses longer ones.
const MAX_ID_BYTES: usize = 512;

/// Buffers that [`Plan::apply`] uses again and again; one per thread of work.
#[derive(Debug, Default)]
pub struct Scratch {
    id: String,
    id_before: String,
    body: Vec<u8>,
    part: Vec<u8>,
}

impl Plan {
    /// Writes the `_id` of a row behind what `out` holds.
    pub fn id(&self, values: &[Value<'_>], out: &mut String) -> Result<()> {
        self.write_id(values, &mut Vec::new(), out)
    }

    /// Writes the document of a row behind what `out` holds.
    pub fn body(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        for field in &self.fields {
            let value = self.value(values, field.slot)?;
            let column = &self.columns[field.slot];
            out.extend_from_slice(&field.opening);
            json::write_as(value, &column.ty, field.form, out)
                .map_err(|error| self.blame(error, column))?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Hands the operations of one change to `out`, in their order. `version` is asked with the offset of the row image
    /// that the operation comes from. Either all operations of the change are handed over or, on an error, none.
    pub fn apply(
        &self,
        change: &Change<'_>,
        version: impl Fn(u32) -> Version,
        scratch: &mut Scratch,
        out: &mut impl FnMut(DocOp<'_>),
    ) -> Result<()> {
        let Scratch { id, id_before, body, part } = scratch;
        id.clear();
        id_before.clear();
        body.clear();
        let before = matches!(change.kind, ChangeKind::Update | ChangeKind::Delete);
        let after = matches!(change.kind, ChangeKind::Update | ChangeKind::Insert);
        if before {
            self.write_id(&change.before.values, part, id_before)?;
        }
        if after {
            self.write_id(&change.after.values, part, id)?;
            self.body(&change.after.values, body)?;
        }
        let operation = |action, id, row: &Row<'_>, body| DocOp {
            action,
            id,
            key: self.hasher.key(id),
            version: version(row.offset),
            body,
        };
        if before && id != id_before {
            out(operation(Action::Delete, id_before, &change.before, &[]));
        }
        if after {
            out(operation(Action::Upsert, id, &change.after, body));
        }
        Ok(())
    }

    /// Writes the `_id` of the row with these key columns, which stand in the order of the `_id`.
    pub fn id_of_key(&self, key: &[Value<'_>], out: &mut String) -> Result<()> {
        self.write_id_of(|at, _| self.value(key, at), &mut Vec::new(), out)
    }

    fn write_id(&self, values: &[Value<'_>], part: &mut Vec<u8>, out: &mut String) -> Result<()> {
        self.write_id_of(|_, slot| self.value(values, slot), part, out)
    }

    #[inline]
    fn write_id_of<'v, 'a: 'v>(
        &self,
        value_of: impl Fn(usize, usize) -> Result<&'v Value<'a>>,
        part: &mut Vec<u8>,
        out: &mut String,
    ) -> Result<()> {
        let start = out.len();
        let several = self.keys.len() > 1;
        for (at, slot) in self.keys.iter().enumerate() {
            if at > 0 {
                out.push('|');
            }
            let (value, column) = (value_of(at, *slot)?, &self.columns[*slot]);
            write_part(value, &column.ty, several, part, out)
                .map_err(|error| self.blame(error, column))?;
        }
        match out.len() - start {
            1..=MAX_ID_BYTES => Ok(()),
            0 => Err(self.bad_id("is empty")),
            bytes => Err(self.bad_id(&format!("has {bytes} bytes, more than {MAX_ID_BYTES}"))),
        }
    }

    fn value<'v, 'a>(&self, values: &'v [Value<'a>], slot: usize) -> Result<&'v Value<'a>> {
        values.get(slot).ok_or_else(|| {
            let message = format!(
                "a row of {} has {} values where {} are wanted",
                self.table(),
                values.len(),
                self.columns.len()
            );
            Error::new(ErrorKind::Schema, message)
        })
    }

    fn blame(&self, error: Error, column: &Column) -> Error {
        error.context(format!("cannot write column `{}` of {}", column.name, self.table()))
    }

    fn bad_id(&self, problem: &str) -> Error {
        let names: Vec<_> = self.keys().map(|column| format!("`{}`", column.name)).collect();
        let from = format!("made of key column {} of {}", names.join(", "), self.table());
        Error::new(ErrorKind::DocumentRefused, format!("an _id {from} {problem}"))
            .with_advice("use another unique key, or mend the row")
    }
}
