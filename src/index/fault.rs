//! A request that the index cannot or will not answer, in the words of a search node: status, type and a sentence.

use std::fmt;

use crate::error::{Error, ErrorKind, Remedy};

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

/// By what is to be done: who asked is told whether to ask otherwise, or again, or not at all.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let report = error.report();
        match (error.kind(), error.remedy()) {
            (ErrorKind::NotFound, _) => Self::new(404, "resource_not_found_exception", report),
            (ErrorKind::DocumentRefused, _) => Self::mapping(report),
            (_, Remedy::Refuse) => Self::request(report),
            (_, Remedy::Retry | Remedy::Stop) => Self::new(503, "cluster_block_exception", report),
            (_, Remedy::Fail | Remedy::NewEpoch) => Self::new(500, "exception", report),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_the_status_of_its_remedy() {
        for (kind, status) in [
            (ErrorKind::Input, 400),
            (ErrorKind::DocumentRefused, 400),
            (ErrorKind::NotFound, 404),
            (ErrorKind::SinkBusy, 503),
            (ErrorKind::ModelBusy, 503),
            (ErrorKind::SinkBlocked, 503),
            (ErrorKind::ModelRefused, 500),
            (ErrorKind::State, 500),
        ] {
            assert_eq!(Fault::from(Error::new(kind, "x")).status, status, "{kind:?}");
        }
    }
}
