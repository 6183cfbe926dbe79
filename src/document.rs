//! Document operations and the batch that carries them: one arena of bytes, no allocation per document. Knows nothing
//! of tables or sinks.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::OnceLock;

use crate::position::Version;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Upsert,
    Delete,
}

/// One operation on one document, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocOp<'b> {
    pub action: Action,
    pub id: &'b str,
    pub key: Key,
    pub version: Version,
    /// The whole document as JSON; empty for a delete.
    pub body: &'b [u8],
}

#[derive(Debug, Clone)]
struct Entry {
    action: Action,
    key: Key,
    version: Version,
    id: Range<usize>,
    body: Range<usize>,
}

/// Operations in commit order, with their ids and bodies in one buffer.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Batch {
    /// Appends an upsert; `id` and `body` are copied.
    pub fn upsert(&mut self, id: &str, key: Key, version: Version, body: &[u8]) {
        self.push(Action::Upsert, id, key, version, body);
    }

    pub fn delete(&mut self, id: &str, key: Key, version: Version) {
        self.push(Action::Delete, id, key, version, &[]);
    }

    fn push(&mut self, action: Action, id: &str, key: Key, version: Version, body: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(id.as_bytes());
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(body);
        let end = self.bytes.len();
        self.entries.push(Entry { action, key, version, id: start..middle, body: middle..end });
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the batch holds of memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    pub fn get(&self, at: usize) -> Option<DocOp<'_>> {
        self.entries.get(at).map(|entry| self.borrow(entry))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = DocOp<'_>> + DoubleEndedIterator {
        self.entries.iter().map(|entry| self.borrow(entry))
    }

    fn borrow<'b>(&'b self, entry: &Entry) -> DocOp<'b> {
        let id =
            std::str::from_utf8(&self.bytes[entry.id.clone()]).expect("ids are pushed as &str");
        DocOp {
            action: entry.action,
            id,
            key: entry.key,
            version: entry.version,
            body: &self.bytes[entry.body.clone()],
        }
    }

    /// Keeps the operations for which `wanted` says so; the bytes of the others stay until the batch is dropped.
    pub fn retain(&mut self, mut wanted: impl FnMut(DocOp<'_>) -> bool) {
        let Self { bytes, entries } = self;
        entries.retain(|entry| {
            let id = std::str::from_utf8(&bytes[entry.id.clone()]).expect("ids are pushed as &str");
            let body = &bytes[entry.body.clone()];
            wanted(DocOp { action: entry.action, id, key: entry.key, version: entry.version, body })
        });
    }

    /// Keeps the last operation of each document: what commit order leaves in the end.
    pub fn coalesce(&mut self) {
        if self.entries.len() < 2 {
            return;
        }
        let mut last = hashbrown::HashMap::<&[u8], usize, foldhash::fast::RandomState>::with_capacity_and_hasher(
            self.entries.len(),
            foldhash::fast::RandomState::default(),
        );
        for (at, entry) in self.entries.iter().enumerate() {
            last.insert(&self.bytes[entry.id.clone()], at);
        }
        if last.len() == self.entries.len() {
            return;
        }
        let mut keep = vec![false; self.entries.len()];
        last.into_values().for_each(|at| keep[at] = true);
        let mut at = 0;
        self.entries.retain(|_| {
            at += 1;
            keep[at - 1]
        });
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

/// A document as the lanes know it: 128 bits of keyed hash of its `_id`, the same for the whole life of the process.
///
/// Lanes take two operations with equal keys for operations of one document, and may drop the older. So a key must
/// never be shared: 64 bits would collide within a year of billions of rows, and a hash without a secret seed could be
/// made to.
pub type Key = u128;

/// Hashes ids to keys; all hashers of a process agree.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher;

impl IdHasher {
    pub fn key(self, id: &str) -> Key {
        type Seeded = foldhash::quality::RandomState;
        static SEEDS: OnceLock<[Seeded; 2]> = OnceLock::new();
        let [high, low] = SEEDS.get_or_init(|| [Seeded::default(), Seeded::default()]);
        (Key::from(high.hash_one(id)) << 64) | Key::from(low.hash_one(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_operation_of_a_document_is_left() {
        let hash = IdHasher;
        let mut batch = Batch::default();
        for (version, id) in [(1, "a"), (2, "b"), (3, "a")] {
            batch.upsert(id, hash.key(id), Version(version), b"{}");
        }
        batch.delete("b", hash.key("b"), Version(4));
        batch.coalesce();
        let left: Vec<_> = batch.iter().map(|op| (op.id, op.version.0, op.action)).collect();
        assert_eq!(left, [("a", 3, Action::Upsert), ("b", 4, Action::Delete)]);
    }
}
