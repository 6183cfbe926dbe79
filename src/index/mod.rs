//! A search index of our own, on disk: documents with external versions, words, numbers and exact vector search. Speaks a
//! search node's JSON for mappings and queries; what is not there is refused with a sentence. Must not know links, sinks or
//! HTTP.
//!
//! Under the given directory each index has a directory named by its UUID, with `description.json` and one directory for
//! the generation that counts. [`registry`] knows all of them; [`desk`] is the one writer of an index with its argument
//! for durability; [`search`] answers queries. Everything that was acknowledged is visible to the next search.

mod change;
mod collect;
mod description;
mod desk;
mod disk;
mod fault;
mod fields;
mod growth;
mod live;
mod moment;
mod query;
mod raw;
mod registry;
mod search;
mod shown;
mod source;
mod terms;
mod vector;
mod words;
mod write;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use serde_json::Value;

pub use description::Description;
pub use fault::{Answer, Fault};
pub use fields::{Dynamic, Fields, Kind};
pub use raw::Members;
pub use registry::Indexes;
pub use search::{Found, Hit, Search, is_duration};
pub use shown::SourceFilter;
pub use write::{Expect, What, Write, Written};

use crate::error::{Error, ErrorKind, Result};
use desk::Desk;
use disk::Generation;

/// One index.
pub struct Index {
    shared: Arc<Shared>,
    /// Started by the first write, so that who only reads takes no lock.
    desk: OnceLock<Desk>,
}

/// What the writer's thread and the readers share.
struct Shared {
    dir: PathBuf,
    current: RwLock<Current>,
    /// Held by whoever changes the description on disk, so that nothing comes back that was deleted.
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    /// From before the description goes until the end.
    is_deleted: bool,
    /// A description was put in place and its directory's sync failed: nothing is acknowledged before one succeeds.
    must_sync: bool,
}

#[derive(Clone)]
struct Current {
    description: Arc<Description>,
    generation: Arc<Generation>,
}

impl Index {
    fn open(dir: PathBuf, description: Description) -> Result<Self> {
        let fields = Fields::parse(&description.mappings).map_err(|fault| {
            let message =
                format!("the mapping of the index in {} is not understood", dir.display());
            Error::new(ErrorKind::State, message).caused_by(fault)
        })?;
        let generation = Generation::open(&dir, description.generation, fields)?;
        Ok(Self::over(dir, description, generation))
    }

    fn over(dir: PathBuf, description: Description, generation: Generation) -> Self {
        let current =
            Current { description: Arc::new(description), generation: Arc::new(generation) };
        let shared =
            Arc::new(Shared { dir, current: RwLock::new(current), life: Mutex::default() });
        Self { shared, desk: OnceLock::new() }
    }

    pub fn name(&self) -> String {
        self.shared.name()
    }

    fn dir(&self) -> PathBuf {
        self.shared.dir.clone()
    }

    pub fn description(&self) -> Arc<Description> {
        self.shared.current().description
    }

    /// The mapping as it is understood.
    pub fn fields(&self) -> Fields {
        self.shared.generation().fields.clone()
    }

    /// One result for each write, in order, once all are durable and visible. Err promises nothing.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.desk()?.write(writes).await
    }

    /// Adds fields to the mapping; those that are there stay as they are.
    pub async fn map(&self, mappings: Value) -> Answer<()> {
        self.desk()?.map(mappings).await
    }

    /// Version and source of a document. Blocks for as long as the disk does.
    pub fn get(&self, id: &str) -> Answer<Option<(u64, Vec<u8>)>> {
        let generation = self.shared.generation();
        let searcher = generation.reader.searcher();
        match generation.find(&searcher, id)? {
            Some(place) if place.is_live => {
                Ok(Some((place.version, generation.load(&searcher, place.address)?.1)))
            }
            _ => Ok(None),
        }
    }

    /// Blocks for as long as the search takes.
    pub fn search(&self, search: &Search) -> Answer<Found> {
        let Current { description, generation } = self.shared.current();
        search.run(&generation, description.result_window())
    }

    /// Ids of documents whose version is below `below`, in their order, behind `after`. Blocks.
    pub fn older(&self, below: u64, after: &str, count_max: usize) -> Answer<Vec<String>> {
        let generation = self.shared.generation();
        let searcher = generation.reader.searcher();
        Ok(generation.older(&searcher, below, after, count_max)?)
    }

    /// How many documents match `query`, a query's JSON. Blocks.
    pub fn count(&self, query: &Value) -> Answer<usize> {
        search::count(&self.shared.generation(), query)
    }

    /// Documents, rows that await being merged away, and bytes on disk. Blocks.
    pub fn size(&self) -> Answer<(usize, u64, u64)> {
        let generation = self.shared.generation();
        let searcher = generation.reader.searcher();
        let documents = search::live(&generation, &searcher)?;
        let rows: u64 = searcher.segment_readers().iter().map(|s| u64::from(s.max_doc())).sum();
        let bytes = searcher.space_usage()?.total().get_bytes();
        Ok((documents, rows.saturating_sub(documents as u64), bytes))
    }

    fn desk(&self) -> Result<&Desk> {
        if let Some(desk) = self.desk.get() {
            return Ok(desk);
        }
        let desk = Desk::start(Arc::downgrade(&self.shared), &self.name())?;
        // If somebody was faster, ours ends unused.
        Ok(self.desk.get_or_init(|| desk))
    }
}

impl Shared {
    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn generation(&self) -> Arc<Generation> {
        self.current().generation
    }

    fn description(&self) -> Description {
        self.current().description.as_ref().clone()
    }

    fn name(&self) -> String {
        self.current().description.name.clone()
    }

    /// Makes another generation the one that counts, on disk first. True where that is durable too; where it is not, it
    /// counts all the same, and [`Self::settle`] stands before whatever is acknowledged next.
    fn replace(&self, generation: Generation, mappings: Value) -> Result<bool> {
        let mut life = self.life();
        life.check(&self.name())?;
        let description =
            Description { mappings, generation: generation.number, ..self.description() };
        let synced = description.store(&self.dir)?;
        let current =
            Current { description: Arc::new(description), generation: Arc::new(generation) };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        if let Err(error) = &synced {
            tracing::warn!(error = error.report(), "a mapping grew, but not durably yet");
            life.must_sync = true;
        }
        Ok(synced.is_ok())
    }

    /// Whether writes may be acknowledged: not where the index was deleted, nor while its description is not durable.
    fn settle(&self) -> Result<()> {
        let mut life = self.life();
        life.check(&self.name())?;
        if life.must_sync {
            disk::sync_dir(&self.dir)?;
            life.must_sync = false;
        }
        Ok(())
    }

    fn must_sync(&self) {
        self.life().must_sync = true;
    }

    /// From now on there is no such index. The inner result says whether that is durable.
    fn delete(&self) -> Result<Result<()>> {
        let mut life = self.life();
        life.check(&self.name())?;
        life.is_deleted = true;
        let removed = Description::remove(&self.dir);
        life.is_deleted = removed.is_ok();
        removed
    }

    fn is_deleted(&self) -> bool {
        self.life().is_deleted
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn check(&self, name: &str) -> Result<()> {
        match self.is_deleted {
            false => Ok(()),
            true => Err(gone(name)),
        }
    }
}

fn gone(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the index {name} was deleted"))
}
