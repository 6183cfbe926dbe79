//! Not yet written.
use super::ast::Statement;
use crate::error::{Error, ErrorKind, Result};

/// Reads one statement; the error's span points into `text`.
pub fn parse(text: &str) -> Result<Statement> {
    let _ = text;
    Err(Error::new(ErrorKind::Unsupported, "not yet written"))
}
