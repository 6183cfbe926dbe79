//! Changes to document operations: which columns of a row become which fields, what the `_id` is, and how values are
//! written as JSON. Pure; knows nothing of where a change came from or where a document goes.
//!
//! A [`Spec`] is what the user wrote, a [`Plan`] is that compiled against a table's definition. The document is always
//! whole: each upsert carries every mapped field.

mod address;
mod apply;
mod charset;
mod compile;
mod double;
mod escape;
mod form;
mod geometry;
pub mod json;
pub mod json_binary;
mod json_text;
mod key;
mod moment;
mod packed_column;
pub mod packed_decimal;

pub use apply::Scratch;
pub use compile::{Plan, compile};
pub use form::{Forms, Overrides};
pub use key::key_text;

use crate::error::Span;
use crate::table::{ColumnType, TableDef, TableId};

/// A mapping as written: `rules` make the document, `keys` make its `_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub index: String,
    pub rules: Vec<Rule>,
    pub keys: Vec<Rule>,
}

/// One column that becomes one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub field: String,
    pub table: TableId,
    pub column: String,
    /// Where the column is named in the text that the mapping was written in.
    pub span: Span,
    /// Where the field is named there.
    pub field_span: Span,
}

impl Spec {
    /// The mapping of `sync_by_table`: a field for each column in `columns`, or for every column of the table if there
    /// is no list; the key is the primary key, or else the first unique key of NOT NULL columns. `span` is the place of
    /// the column list, for errors about columns that the list does not name.
    pub fn of_table(
        index: &str,
        def: &TableDef,
        columns: Option<&[(String, Span)]>,
        span: Span,
    ) -> Self {
        // A listed column is named as the server spells it; an unknown one stays, for the compiler to complain of.
        let rule = |name: &str, span: Span| {
            let known = def.ordinal(name).map(|ordinal| &def.columns[ordinal].name);
            let column = known.map_or(name, String::as_str).to_owned();
            Rule { field: column.clone(), table: def.id.clone(), column, span, field_span: span }
        };
        let rules = match columns {
            Some(columns) => columns.iter().map(|(name, span)| rule(name, *span)).collect(),
            // The end is the same in all rows.
            None => def
                .columns
                .iter()
                .filter(|column| column.ty != ColumnType::RowEnd)
                .map(|column| rule(&column.name, span))
                .collect(),
        };
        let primary = Some(&def.primary_key).filter(|key| !key.is_empty());
        let key = primary.or(def.unique_keys.first()).map_or(&[][..], Vec::as_slice);
        let keys = key.iter().filter_map(|ordinal| def.columns.get(*ordinal));
        let keys = keys.map(|column| rule(&column.name, span)).collect();
        Self { index: index.to_owned(), rules, keys }
    }
}

#[cfg(test)]
mod tests;
