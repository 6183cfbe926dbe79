//! Documents of our own in the cluster that is written to: few, small, changed under conditions, in an index that nobody
//! else uses. Must not know what they say.

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::error::Result;

/// The index of our own documents.
pub const INDEX: &str = ".driftless";

/// Reads and changes documents of our own.
///
/// * **What was acknowledged is seen** by every later read, from whatever machine.
/// * **A condition is checked by the cluster**: of two writes under the same condition at most one is done.
/// * **`Err` promises nothing**: the write may have been done, or may be done later.
/// * A write never makes the index.
pub trait Notes: Send + Sync {
    /// Makes the index where it is not there.
    fn prepare<'a>(&'a self) -> BoxFuture<'a, Result<()>>;

    /// The documents with these ids, in their order; None where there is none, and where there is no index.
    fn read<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Option<Note>>>>;

    /// Writes one document if it is as `when` says.
    fn write<'a>(
        &'a self,
        id: &'a str,
        body: &'a Value,
        when: When,
    ) -> BoxFuture<'a, Result<Written<Place>>>;

    /// Writes documents, or deletes those without a body, under a version: what has a higher one stays. The documents are
    /// written each for itself.
    fn write_all<'a>(
        &'a self,
        notes: &'a [(String, Option<Value>)],
        version: u64,
    ) -> BoxFuture<'a, Result<Written<()>>>;
}

/// A document as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub place: Place,
    pub version: u64,
    pub body: Value,
}

/// Which of its states a document is in. No two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub seq_no: u64,
    pub primary_term: u64,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Absent,
    At(Place),
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written<T> {
    Done(T),
    /// The document is not as it should have been; of several, one at least has a higher version.
    Conflict,
    /// There is no index any more.
    NoIndex,
}
