//! A request that the index cannot or will not answer, in the words of a search node: status, type and a sentence.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why not. `reason` holds no value of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub status: u16,
    pub kind: &'static str,
    pub reason: String,
}

pub type Answer<T> = Result<T, Fault>;

impl Fault {
    pub fn new(status: u16, kind: &'static str, reason: impl Into<String>) -> Self {
        Self { status, kind, reason: reason.into() }
    }

    /// The request is wrong as written, or asks for what is not here.
    pub fn request(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    /// A query or a search body that is not understood.
    pub fn parsing(reason: impl Into<String>) -> Self {
        Self::new(400, "parsing_exception", reason)
    }

    /// A mapping, or a document that does not fit its mapping.
    pub fn mapping(reason: impl Into<String>) -> Self {
        Self::new(400, "mapper_parsing_exception", reason)
    }

    pub fn no_such_index(name: &str) -> Self {
        Self::new(404, "index_not_found_exception", format!("no such index [{name}]"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

/// The disk or the index's files fail.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = if error.kind() == ErrorKind::SinkBusy { 503 } else { 500 };
        Self::new(status, "exception", error.report())
    }
}

impl From<tantivy::TantivyError> for Fault {
    fn from(error: tantivy::TantivyError) -> Self {
        Self::new(500, "exception", format!("the embedded index failed: {error}"))
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::new(500, "exception", format!("the embedded index failed: {error}"))
    }
}
