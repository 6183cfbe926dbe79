//! What must outlive the process, in RocksDB: links, checkpoints, the source's epoch, definitions, the catalog with
//! its sealed secrets. Knows records and keys; must not know what a link does with them.
//!
//! Every method is synchronous, and one that syncs waits for the disk: call it through `spawn_blocking`. One write is
//! one atomic batch, and all families share one write-ahead log, so a synced write makes every earlier write durable
//! too: what is found after a crash is always a prefix of what was written.
//!
//! The directory carries a format version and every value a record version (`{"v":1,"value":…}`). Either being newer
//! than this program is refused, because a guess at a checkpoint is worse than a stop.

mod catalog;
mod checkpoints;
mod families;
mod letters;
mod links;
mod open;
mod pages;
mod prepared;
mod schemas;
mod sealing;
mod source;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rocksdb::{ColumnFamily, DB, Direction, IteratorMode, WriteBatch, WriteOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::catalog::Catalog;
pub use self::checkpoints::{CheckpointRecord, Checkpoints, CopyOrder, KeyPart, SnapshotRecord};
pub use self::families::{Child, Families, FamilyRecord, entry_name};
pub use self::letters::{LetterRecord, Letters};
pub use self::links::{LinkRecord, Links, RebuildPhase, RebuildRecord, RuleRecord, VerifiedRecord};
pub use self::pages::{Page, Pages, PairRecord};
pub use self::prepared::{Prepared, PreparedOp};
pub use self::schemas::{Copy, History, SchemaRecord, Schemas};
pub use self::sealing::SealingKey;
pub use self::source::{Source, SourceRecord};

use crate::error::{Error, ErrorKind, Result};

/// The open state directory; clones share it. Only one process can have it open.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
    /// Whether those who have this handle, or a clone of it, may write no more.
    has_ended: Arc<RwLock<bool>>,
}

struct Inner {
    db: DB,
    sealing_key: SealingKey,
}

/// The column families. A name is never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Links,
    Checkpoints,
    Source,
    Schemas,
    Catalog,
    Secrets,
    Prepared,
    Families,
    Children,
    Letters,
}

impl Family {
    const ALL: [Self; 10] = [
        Self::Links,
        Self::Checkpoints,
        Self::Source,
        Self::Schemas,
        Self::Catalog,
        Self::Secrets,
        Self::Prepared,
        Self::Families,
        Self::Children,
        Self::Letters,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Checkpoints => "checkpoints",
            Self::Source => "source",
            Self::Schemas => "schemas",
            Self::Catalog => "catalog",
            Self::Secrets => "secrets",
            Self::Prepared => "prepared",
            Self::Families => "families",
            Self::Children => "children",
            Self::Letters => "letters",
        }
    }
}

/// Whether a write returns before or after it is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Survives the process being killed, not the machine losing power.
    Buffered,
    Synced,
}

impl Durability {
    fn synced_if(sync: bool) -> Self {
        if sync { Self::Synced } else { Self::Buffered }
    }
}

/// The version of every record that this program writes, and the highest that it reads.
const RECORD_VERSION: u32 = 2;

#[derive(Serialize)]
struct WriteEnvelope<'a, T: ?Sized> {
    v: u32,
    value: &'a T,
}

#[derive(Deserialize)]
struct ReadEnvelope<'a> {
    v: u32,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl State {
    /// Opens the state in `dir`, and makes it where there is none.
    pub fn open(dir: &Path, sealing_key: SealingKey) -> Result<Self> {
        let db = open::open(dir)?;
        Ok(Self { inner: Arc::new(Inner { db, sealing_key }), has_ended: Arc::default() })
    }

    /// A handle on the same state for those who are told together that they may write no more.
    pub fn new_term(&self) -> Self {
        Self { inner: self.inner.clone(), has_ended: Arc::default() }
    }

    /// When this returns nothing is written any more by this handle and its clones.
    pub fn end_term(&self) {
        *self.has_ended.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// The state directory.
    pub fn dir(&self) -> PathBuf {
        let db = self.inner.db.path();
        db.parent().unwrap_or(db).to_owned()
    }

    pub fn links(&self) -> Links<'_> {
        Links { state: self }
    }

    pub fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { state: self }
    }

    pub fn source(&self) -> Source<'_> {
        Source { state: self }
    }

    pub fn schemas(&self) -> Schemas<'_> {
        Schemas { state: self }
    }

    pub fn prepared(&self) -> Prepared<'_> {
        Prepared { state: self }
    }

    pub fn letters(&self) -> Letters<'_> {
        Letters { state: self }
    }

    pub fn families(&self) -> Families<'_> {
        Families { state: self }
    }

    pub fn catalog(&self) -> Catalog<'_> {
        Catalog { state: self }
    }

    /// Makes everything that was written so far durable.
    pub fn sync(&self) -> Result<()> {
        self.inner.db.flush_wal(true).map_err(|cause| failed("sync the state", cause))
    }

    fn sealing_key(&self) -> &SealingKey {
        &self.inner.sealing_key
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.inner.db.cf_handle(family.name()).expect("every family was opened with the database")
    }

    fn get<T: DeserializeOwned>(&self, family: Family, key: &[u8]) -> Result<Option<T>> {
        let bytes = self
            .inner
            .db
            .get_pinned_cf(self.family(family), key)
            .map_err(|cause| failed(&format!("read from {}", family.name()), cause))?;
        bytes.map(|bytes| decode(family, key, &bytes)).transpose()
    }

    /// All records whose key begins with `prefix`, with the rest of their keys, in the order of the keys.
    fn list<T: DeserializeOwned>(
        &self,
        family: Family,
        prefix: &[u8],
    ) -> Result<Vec<(Box<[u8]>, T)>> {
        let mut records = Vec::new();
        let from = IteratorMode::From(prefix, Direction::Forward);
        for entry in self.inner.db.iterator_cf(self.family(family), from) {
            let (key, bytes) =
                entry.map_err(|cause| failed(&format!("read from {}", family.name()), cause))?;
            let Some(rest) = key.strip_prefix(prefix) else { break };
            records.push((Box::from(rest), decode(family, &key, &bytes)?));
        }
        Ok(records)
    }

    fn put<T: Serialize + ?Sized>(
        &self,
        family: Family,
        key: &[u8],
        record: &T,
        durability: Durability,
    ) -> Result<()> {
        let mut batch = WriteBatch::default();
        self.add(family, key, record, &mut batch)?;
        self.write(batch, durability)
    }

    /// Adds a record to `batch`.
    fn add<T: Serialize + ?Sized>(
        &self,
        family: Family,
        key: &[u8],
        record: &T,
        batch: &mut WriteBatch,
    ) -> Result<()> {
        let bytes = serde_json::to_vec(&WriteEnvelope { v: RECORD_VERSION, value: record })
            .map_err(|cause| failed(&format!("write to {}", family.name()), cause))?;
        batch.put_cf(self.family(family), key, bytes);
        Ok(())
    }

    fn delete(&self, family: Family, key: &[u8], durability: Durability) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.family(family), key);
        self.write(batch, durability)
    }

    /// Adds the deletion of every key that begins with `prefix`, which ends in a zero byte, to `batch` as one mark,
    /// however many they are.
    fn delete_range(&self, family: Family, prefix: &[u8], batch: &mut WriteBatch) {
        debug_assert_eq!(prefix.last(), Some(&0), "the end of the range is found by the separator");
        let mut end = prefix.to_vec();
        if let Some(last) = end.last_mut() {
            *last = 1;
        }
        batch.delete_range_cf(self.family(family), prefix, &end);
    }

    /// Adds the deletion of every key that begins with `prefix` to `batch`.
    fn delete_prefix(&self, family: Family, prefix: &[u8], batch: &mut WriteBatch) -> Result<()> {
        let from = IteratorMode::From(prefix, Direction::Forward);
        for entry in self.inner.db.iterator_cf(self.family(family), from) {
            let (key, _) =
                entry.map_err(|cause| failed(&format!("read from {}", family.name()), cause))?;
            if !key.starts_with(prefix) {
                break;
            }
            batch.delete_cf(self.family(family), &key);
        }
        Ok(())
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let has_ended = self.has_ended.read().unwrap_or_else(PoisonError::into_inner);
        if *has_ended {
            let what = "another daemon may lead by now, so nothing is written here";
            return Err(Error::new(ErrorKind::Stopped, what));
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.inner.db.write_opt(batch, &options).map_err(|cause| {
            // The database looks for room every few seconds, and then takes writes again.
            let text = cause.to_string();
            if ["No space left on device", "Disk quota exceeded"].iter().any(|full| text.contains(full)) {
                return Error::new(ErrorKind::StateFull, "cannot write the state")
                    .caused_by(cause)
                    .with_advice("make room on the disk of the state directory; no restart is needed");
            }
            failed("write the state", cause).with_advice(
                "look at the disk of the state directory (space, errors), then start driftless again",
            )
        })
    }
}

/// `first NUL second`: neither link ids nor kinds hold a zero byte, so that prefixes are unambiguous.
fn joined_key(first: &str, rest: &[&str]) -> Vec<u8> {
    debug_assert!(!first.contains('\0'), "a zero byte separates the parts of a key");
    let mut key = first.as_bytes().to_vec();
    for part in rest {
        key.push(0);
        key.extend_from_slice(part.as_bytes());
    }
    key
}

fn decode<T: DeserializeOwned>(family: Family, key: &[u8], bytes: &[u8]) -> Result<T> {
    let place = || format!("record {:?} of {}", String::from_utf8_lossy(key), family.name());
    let damaged = |cause: serde_json::Error| {
        // The cause is named by place only: its text could quote the record.
        Error::new(
            ErrorKind::State,
            format!(
                "cannot read {} of the state: not a record of version {RECORD_VERSION} (byte {})",
                place(),
                cause.column()
            ),
        )
        .with_advice(
            "the state directory is damaged: restore it, or remove it and let the links begin anew",
        )
    };
    let envelope: ReadEnvelope<'_> = serde_json::from_slice(bytes).map_err(damaged)?;
    if envelope.v > RECORD_VERSION {
        return Err(Error::new(
            ErrorKind::State,
            format!(
                "{} of the state has version {}, and this driftless reads up to {RECORD_VERSION}",
                place(),
                envelope.v
            ),
        )
        .with_advice("run the newer driftless that wrote it"));
    }
    serde_json::from_str(envelope.value.get()).map_err(damaged)
}

fn failed(tried: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::State, format!("cannot {tried}")).caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn open(dir: &Path) -> State {
        State::open(dir, SealingKey::from_bytes([7; 32])).expect("opens")
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let family = state.family(Family::Source);
        state.inner.db.put_cf(family, b"source", br#"{"v":3,"value":{}}"#).expect("writes");
        let error = state.source().get().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::State);
        assert!(error.report().contains("version 3"), "{}", error.report());
    }

    #[test]
    fn a_damaged_record_is_refused_and_not_quoted() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let family = state.family(Family::Source);
        state
            .inner
            .db
            .put_cf(family, b"source", br#"{"v":1,"value":{"geheim":1}}"#)
            .expect("writes");
        let report = state.source().get().expect_err("refused").report();
        assert!(report.contains("\"source\" of source") && !report.contains("geheim"), "{report}");
    }
}
