//! Not yet written.
use super::{Scratch, Spec};
use crate::change::{Change, Value};
use crate::document::DocOp;
use crate::error::{Error, ErrorKind, Result};
use crate::position::Version;
use crate::table::{Column, TableDef, TableId};

/// A mapping that is proven against a table's definition.
#[derive(Debug, Clone)]
pub struct Plan {
    table: TableId,
    index: String,
    wanted: Vec<usize>,
    fields: Vec<(String, Column)>,
}

/// Proves `spec` against `def`: all that is wrong, at once, each with its place in the mapping's text.
pub fn compile(spec: &Spec, def: &TableDef) -> Result<Plan, Vec<Error>> {
    let _ = (spec, def);
    Err(vec![Error::new(ErrorKind::Unsupported, "not yet written")])
}

impl Plan {
    /// The table as the server spells it.
    pub fn table(&self) -> &TableId {
        &self.table
    }

    pub fn index(&self) -> &str {
        &self.index
    }

    /// Ordinals of the columns that are needed, rising. Rows given to this plan hold the values of just these columns,
    /// in this order.
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// Fields in the order of the rules.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.fields.iter().map(|(name, column)| (name.as_str(), column))
    }

    /// The columns that make `_id`, in its order.
    pub fn keys(&self) -> impl Iterator<Item = &Column> {
        self.fields.iter().map(|(_, column)| column)
    }

    /// Writes the `_id` of a row behind what `out` holds.
    pub fn id(&self, values: &[Value<'_>], out: &mut String) -> Result<()> {
        let _ = (values, out);
        Ok(())
    }

    /// Writes the document of a row behind what `out` holds.
    pub fn body(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        let _ = (values, out);
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
        let _ = (change, version, scratch, out);
        Ok(())
    }
}
