//! All indexes of one directory: opened, made, deleted. An index that cannot be opened is known with its reason and stands
//! in nobody else's way. Knows no documents.
//!
//! An index exists on disk exactly while its directory has a `description.json`. The rename that puts it there and the
//! unlink that takes it away are the points of no return: what is known here changes at once with them, also where the
//! sync that follows fails. No lock is held over work on the disk: a name that is being made or deleted is set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde_json::Value;

use super::disk::{self, Generation};
use super::fault::{Answer, Fault};
use super::{Description, Index};
use crate::error::{Error, ErrorKind, Result};

/// How often an index is looked at again that changes while it is being opened.
const OPENINGS_MAX: usize = 5;

/// All indexes of one directory. Clones are the same.
#[derive(Clone)]
pub struct Indexes {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    by_name: RwLock<BTreeMap<String, Arc<Index>>>,
    broken: RwLock<BTreeMap<String, Broken>>,
    /// Names that are being made or deleted just now.
    set_aside: Mutex<BTreeSet<String>>,
}

/// An index that is there and cannot be opened.
#[derive(Debug, Clone)]
struct Broken {
    dirs: Vec<PathBuf>,
    reason: String,
}

impl Indexes {
    /// Opens what is in `dir`, and changes nothing there; a directory that is not there holds no index.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut found: BTreeMap<String, Vec<(PathBuf, Result<Index>)>> = BTreeMap::new();
        for index_dir in directories(dir)? {
            let (name, opened) = match open(&index_dir) {
                Ok(None) => continue,
                Ok(Some(index)) => (index.name(), Ok(index)),
                Err(error) => (Description::name_in(&index_dir), Err(error)),
            };
            found.entry(name).or_default().push((index_dir, opened));
        }
        let (mut by_name, mut broken) = (BTreeMap::new(), BTreeMap::new());
        for (name, mut of_this_name) in found {
            let why = match of_this_name.pop() {
                Some((_, Ok(index))) if of_this_name.is_empty() => {
                    by_name.insert(name, Arc::new(index));
                    continue;
                }
                Some((dir, Err(error))) if of_this_name.is_empty() => {
                    Broken { dirs: vec![dir], reason: error.report() }
                }
                last => several(of_this_name.into_iter().chain(last).map(|(dir, _)| dir).collect()),
            };
            tracing::error!(index = name, reason = why.reason, "an index cannot be opened");
            broken.insert(name, why);
        }
        let inner = Inner {
            dir: dir.to_owned(),
            by_name: RwLock::new(by_name),
            broken: RwLock::new(broken),
            set_aside: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Removes what a crash has left behind. Only for the one who writes here.
    pub fn sweep(&self) -> Result<()> {
        for dir in directories(&self.inner.dir)? {
            let counts = match Description::load(&dir) {
                Ok(Some(description)) => disk::dir_of(&dir, description.generation),
                Ok(None) => {
                    remove(&dir);
                    continue;
                }
                // Nobody knows what of it counts.
                Err(_) => continue,
            };
            if !counts.exists() {
                continue;
            }
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
        let by_name = self.inner.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.values().cloned().collect()
    }

    /// Why the index of this name, which is there, cannot be used.
    pub fn why_broken(&self, name: &str) -> Option<String> {
        let broken = self.inner.broken.read().unwrap_or_else(PoisonError::into_inner);
        broken.get(name).map(|broken| broken.reason.clone())
    }

    /// The names of the indexes that cannot be opened.
    pub fn broken(&self) -> Vec<String> {
        let broken = self.inner.broken.read().unwrap_or_else(PoisonError::into_inner);
        broken.keys().cloned().collect()
    }

    /// Makes an index from `{"settings": …, "mappings": …}`. Blocks.
    pub fn create(&self, name: &str, body: &Value) -> Answer<Arc<Index>> {
        let (description, fields) = Description::new(name, body)?;
        let _aside = self.set_aside(name)?;
        let exists = match (self.get(name), self.why_broken(name)) {
            (Some(index), _) => Some(format!("{name}/{}", index.description().uuid)),
            (None, Some(reason)) => Some(format!("{name}, which cannot be opened: {reason}")),
            (None, None) => None,
        };
        if let Some(exists) = exists {
            return Err(Fault::new(
                400,
                "resource_already_exists_exception",
                format!("index [{exists}] already exists"),
            ));
        }
        let dir = self.inner.dir.join(&description.uuid);
        std::fs::create_dir_all(&dir)?;
        let begun = disk::sync_dir(&self.inner.dir)
            .and_then(|()| Generation::create(&dir, description.generation, fields))
            .and_then(|generation| Ok((generation, description.store(&dir)?)));
        let (generation, synced) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                remove(&dir);
                return Err(error.into());
            }
        };
        let index = Arc::new(Index::over(dir, description, generation));
        self.inner
            .by_name
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), index.clone());
        if let Err(error) = synced {
            index.shared.must_sync();
            return Err(error.context(format!("the index {name} is made, but not durably")).into());
        }
        Ok(index)
    }

    /// Blocks.
    pub fn delete(&self, name: &str) -> Answer<()> {
        let _aside = self.set_aside(name)?;
        let Some(index) = self.get(name) else { return self.delete_broken(name) };
        let synced = index.shared.delete()?;
        self.inner.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        // What a write under way still puts there is swept at the next start.
        remove(&index.dir());
        synced.map_err(|error| not_durably_deleted(name, error))
    }

    fn delete_broken(&self, name: &str) -> Answer<()> {
        let broken = self.inner.broken.read().unwrap_or_else(PoisonError::into_inner);
        let found = broken.get(name).cloned().ok_or_else(|| Fault::no_such_index(name))?;
        drop(broken);
        let mut synced = Ok(());
        for dir in &found.dirs {
            synced = Description::remove(dir)?.and(synced);
            remove(dir);
        }
        self.inner.broken.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        synced.map_err(|error| not_durably_deleted(name, error))
    }

    /// Keeps others from making or deleting an index of this name.
    fn set_aside(&self, name: &str) -> Answer<Aside<'_>> {
        match lock(&self.inner.set_aside).insert(name.to_owned()) {
            true => Ok(Aside { names: &self.inner.set_aside, name: name.to_owned() }),
            false => Err(Fault::new(
                503,
                "process_cluster_event_timeout_exception",
                format!("the index [{name}] is being made or deleted; ask again"),
            )),
        }
    }
}

struct Aside<'i> {
    names: &'i Mutex<BTreeSet<String>>,
    name: String,
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        lock(self.names).remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody knows which of them holds what was acknowledged.
fn several(dirs: Vec<PathBuf>) -> Broken {
    let shown: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let reason = format!(
        "{} directories hold an index of this name: {}; stop the daemon and move away those that are not wanted, or delete the index",
        dirs.len(),
        shown.join(", ")
    );
    Broken { dirs, reason }
}

fn not_durably_deleted(name: &str, error: Error) -> Fault {
    error.context(format!("the index {name} is deleted, but may be back after a crash")).into()
}

/// None where `dir` holds no index.
fn open(dir: &Path) -> Result<Option<Index>> {
    let mut description = match Description::load(dir)? {
        Some(description) => description,
        None => return Ok(None),
    };
    for _ in 0..OPENINGS_MAX {
        let generation = description.generation;
        let error = match Index::open(dir.to_owned(), description) {
            Ok(index) => return Ok(Some(index)),
            Err(error) => error,
        };
        // A daemon that runs beside us may have put another generation in the place of this one.
        description = match Description::load(dir)? {
            None => return Ok(None),
            Some(again) if again.generation == generation => return Err(error),
            Some(again) => again,
        };
    }
    Err(Error::new(
        ErrorKind::State,
        format!("the index in {} changes all the time", dir.display()),
    ))
}

pub(super) fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
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
    match std::fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(dir = %dir.display(), error = %error, "cannot remove what is left of an index");
        }
    }
}
