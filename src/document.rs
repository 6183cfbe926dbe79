//! Document operations and the batch that carries them: two arenas, of ids and of bodies, and no allocation per
//! document. Knows nothing of tables or sinks.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
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

/// Operations in commit order, with their ids in one buffer and their bodies in another.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    /// Apart from the bodies, so that an id is a `&str` again without being looked through.
    ids: String,
    bodies: Vec<u8>,
    entries: Vec<Entry>,
}

/// No batch is given more room than this before it needs it.
const ROOM_BYTES_MAX: usize = 8 << 20;

impl Batch {
    /// An empty batch with room for as much as `other` holds: in a busy lane one batch is as large as the next, and
    /// growing step by step copies everything twice.
    pub fn with_room_of(other: &Self) -> Self {
        Self {
            ids: String::with_capacity(other.ids.len().min(ROOM_BYTES_MAX)),
            bodies: Vec::with_capacity(other.bodies.len().min(ROOM_BYTES_MAX)),
            entries: Vec::with_capacity(
                other.entries.len().min(ROOM_BYTES_MAX / size_of::<Entry>()),
            ),
        }
    }

    /// Appends an upsert; `id` and `body` are copied.
    pub fn upsert(&mut self, id: &str, key: Key, version: Version, body: &[u8]) {
        self.push(Action::Upsert, id, key, version, body);
    }

    pub fn delete(&mut self, id: &str, key: Key, version: Version) {
        self.push(Action::Delete, id, key, version, &[]);
    }

    fn push(&mut self, action: Action, id: &str, key: Key, version: Version, body: &[u8]) {
        let (id_start, body_start) = (self.ids.len(), self.bodies.len());
        self.ids.push_str(id);
        self.bodies.extend_from_slice(body);
        let (id, body) = (id_start..self.ids.len(), body_start..self.bodies.len());
        self.entries.push(Entry { action, key, version, id, body });
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the batch holds of memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.ids.len() + self.bodies.len() + self.entries.len() * size_of::<Entry>()
    }

    pub fn get(&self, at: usize) -> Option<DocOp<'_>> {
        self.entries.get(at).map(|entry| self.borrow(entry))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = DocOp<'_>> + DoubleEndedIterator {
        self.entries.iter().map(|entry| self.borrow(entry))
    }

    #[inline]
    fn borrow<'b>(&'b self, entry: &Entry) -> DocOp<'b> {
        borrow(&self.ids, &self.bodies, entry)
    }

    /// Keeps the operations for which `wanted` says so; the bytes of the others stay until the batch is dropped.
    pub fn retain(&mut self, mut wanted: impl FnMut(DocOp<'_>) -> bool) {
        let Self { ids, bodies, entries } = self;
        entries.retain(|entry| wanted(borrow(ids, bodies, entry)));
    }

    /// Keeps the last operation of each document: what commit order leaves in the end. `spare` is used for looking up,
    /// and is left with nothing in it.
    pub fn coalesce(&mut self, spare: &mut hashbrown::HashSet<Key, KeyHasher>) {
        if self.entries.len() < 2 {
            return;
        }
        spare.reserve(self.entries.len());
        let is_last = |entry: &Entry| spare.insert(entry.key);
        let keep: Vec<bool> = self.entries.iter().rev().map(is_last).collect();
        let are_all = spare.len() == self.entries.len();
        spare.clear();
        if are_all {
            return;
        }
        let mut keep = keep.into_iter().rev();
        self.entries.retain(|_| keep.next().unwrap_or(true));
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.bodies.clear();
        self.entries.clear();
    }
}

#[inline]
fn borrow<'b>(ids: &'b str, bodies: &'b [u8], entry: &Entry) -> DocOp<'b> {
    DocOp {
        action: entry.action,
        id: &ids[entry.id.clone()],
        key: entry.key,
        version: entry.version,
        body: &bodies[entry.body.clone()],
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

/// For maps by [`Key`]: a key is a hash already. Its lower half chooses the lane, so the upper one chooses the place.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHash(u64);

pub type KeyHasher = BuildHasherDefault<KeyHash>;

impl Hasher for KeyHash {
    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys come by `write_u128`; anything else would still be told apart.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
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
        let mut spare = Default::default();
        batch.coalesce(&mut spare);
        assert!(spare.is_empty());
        let left: Vec<_> = batch.iter().map(|op| (op.id, op.version.0, op.action)).collect();
        assert_eq!(left, [("a", 3, Action::Upsert), ("b", 4, Action::Delete)]);
    }
}
