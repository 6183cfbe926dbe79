//! A search index of our own, on disk: documents with external versions, words, numbers and exact vector search. Speaks a
//! search node's JSON for mappings and queries; what is not there is refused with a sentence. Must not know links, sinks or
//! HTTP.
//!
//! Under the given directory each index has a directory named by its UUID, with `description.json` and one directory for
//! the generation that counts. [`Indexes`] is the registry; [`write`] the one writer of an index with its argument for
//! durability; [`search`] answers queries. Everything that was acknowledged is visible to the next search.

mod collect;
mod description;
mod disk;
mod fault;
mod fields;
mod moment;
mod query;
mod search;
mod source;
mod vector;
mod words;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde_json::Value;

pub use description::Description;
pub use fault::{Answer, Fault};
pub use fields::{Dynamic, Fields, Kind};
pub use search::{Found, Hit, Search, SourceFilter};
pub use write::{Expect, What, Write, Written};

use crate::error::{Error, ErrorKind, Result};
use disk::Generation;
use write::Desk;

/// All indexes of one directory. Clones are the same.
#[derive(Clone)]
pub struct Indexes {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    by_name: RwLock<BTreeMap<String, Arc<Index>>>,
}

impl Indexes {
    /// Opens what is in `dir`, and changes nothing there; a directory that is not there holds no index.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for index_dir in directories(dir)? {
            let Some(description) = Description::load(&index_dir)? else { continue };
            let name = description.name.clone();
            by_name.insert(name, Arc::new(Index::open(index_dir, description)?));
        }
        let inner = Inner { dir: dir.to_owned(), by_name: RwLock::new(by_name) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Removes what a crash has left behind. Only for the one who writes here.
    pub fn sweep(&self) -> Result<()> {
        for dir in directories(&self.inner.dir)? {
            let counts = match Description::load(&dir)? {
                Some(description) => disk::dir_of(&dir, description.generation),
                None => {
                    remove(&dir);
                    continue;
                }
            };
            directories(&dir)?
                .iter()
                .filter(|inner| **inner != counts)
                .for_each(|inner| remove(inner));
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<Arc<Index>> {
        self.inner.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// In the order of their names.
    pub fn list(&self) -> Vec<Arc<Index>> {
        self.inner
            .by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Makes an index from `{"settings": …, "mappings": …}`. Blocks.
    pub fn create(&self, name: &str, body: &Value) -> Answer<Arc<Index>> {
        let (description, fields) = Description::new(name, body)?;
        let mut by_name = self.inner.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = by_name.get(name) {
            return Err(Fault::new(
                400,
                "resource_already_exists_exception",
                format!("index [{name}/{}] already exists", index.description().uuid),
            ));
        }
        let dir = self.inner.dir.join(&description.uuid);
        std::fs::create_dir_all(&dir)?;
        let generation = Generation::create(&dir, description.generation, fields)?;
        description.store(&dir)?;
        disk::sync_dir(&self.inner.dir)?;
        let index = Arc::new(Index::over(dir, description, generation));
        by_name.insert(name.to_owned(), index.clone());
        Ok(index)
    }

    /// Blocks.
    pub fn delete(&self, name: &str) -> Answer<()> {
        let mut by_name = self.inner.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let index = by_name.get(name).ok_or_else(|| Fault::no_such_index(name))?;
        Description::remove(&index.shared.dir)?;
        // What a write under way still puts there is swept at the next start.
        remove(&index.shared.dir);
        by_name.remove(name);
        Ok(())
    }
}

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
        let shared = Arc::new(Shared { dir, current: RwLock::new(current) });
        Self { shared, desk: OnceLock::new() }
    }

    pub fn name(&self) -> String {
        self.shared.name()
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
        let documents = search::count(&generation, &Value::Null)?;
        let rows: u64 = searcher.segment_readers().iter().map(|s| u64::from(s.max_doc())).sum();
        let bytes = searcher.space_usage()?.total().get_bytes();
        Ok((documents, rows - documents as u64, bytes))
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

    /// Makes another generation the one that counts, on disk first.
    fn replace(&self, generation: Generation, mappings: Value) -> Result<()> {
        let description =
            Description { mappings, generation: generation.number, ..self.description() };
        description.store(&self.dir)?;
        let current =
            Current { description: Arc::new(description), generation: Arc::new(generation) };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(disk::broken(dir, "read", cause)),
    };
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    Ok(found)
}

/// What cannot be removed now is garbage for the next sweep.
fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), error = %error, "cannot remove what is left of an index");
    }
}
