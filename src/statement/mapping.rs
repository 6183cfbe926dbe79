//! Not yet written.
use super::ast::{Assignment, Mapping};
use crate::error::{Error, ErrorKind, Result};

/// Reads `index.field(db.table.column), …`: one index, one table, no field twice. Spans point into `text`.
pub fn mapping_list(text: &str) -> Result<Vec<Assignment>> {
    let _ = text;
    Err(Error::new(ErrorKind::Unsupported, "not yet written"))
}

/// Reads `index.field=db.table.column, …`. Spans point into `text`.
pub fn key_list(text: &str) -> Result<Vec<Assignment>> {
    let _ = text;
    Err(Error::new(ErrorKind::Unsupported, "not yet written"))
}

/// Joins both lists. What is wrong between them is said of the key list, so the error's span points into its text.
pub fn mapping(rules: Vec<Assignment>, keys: Vec<Assignment>) -> Result<Mapping> {
    let _ = (rules, keys);
    Err(Error::new(ErrorKind::Unsupported, "not yet written"))
}
