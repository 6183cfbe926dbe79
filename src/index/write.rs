//! The one writer of an index: versions, tombstones, and one commit for everybody who waits.
//!
//! Why an acknowledgement is durable and versions hold (rule 15): each `_id` has at most one row, a document or a
//! tombstone, which carries its version. A write reads that version, from the writes before it in the same group or else
//! from the last commit, decides, and replaces the row; deletion of the old row and the new row are parts of one commit,
//! which is synced before anybody is told. There is one writer, so nothing comes between reading and replacing. A failed
//! commit is rolled back as a whole, and everybody in the group is told that nothing is certain.

use std::collections::HashMap;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use serde_json::{Map, Value};
use tantivy::indexer::IndexWriterOptions;
use tantivy::{IndexWriter, Searcher};
use tokio::sync::oneshot;

use super::disk::{self, Generation};
use super::fault::{Answer, Fault};
use super::fields::{self, Fields};
use super::{Shared, source};
use crate::error::{Error, ErrorKind, Result};

/// The longest `_id`, in bytes of UTF-8.
pub(super) const ID_BYTES_MAX: usize = 512;
/// What a group may hold; what waits beyond that waits for the next commit.
const GROUP_BYTES_MAX: usize = 32 << 20;
/// Rows that are held in memory before a segment is written.
const ARENA_BYTES: usize = 32 << 20;

/// One change of one document.
#[derive(Debug, Clone)]
pub struct Write {
    pub id: String,
    pub what: What,
    pub expect: Expect,
}

#[derive(Debug, Clone)]
pub enum What {
    /// The whole document as JSON.
    Put(Vec<u8>),
    Delete,
    /// Merged into the document that is there; `otherwise` is written where there is none.
    Merge {
        part: Map<String, Value>,
        otherwise: Option<Vec<u8>>,
    },
}

/// What must be true of the document for the change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing; the version grows by one.
    Anything,
    Absent,
    /// The stored version is below this one, which then is stored.
    Below(u64),
    /// It is not above this one.
    NotAbove(u64),
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Created(u64),
    Updated(u64),
    Deleted(u64),
    /// There was nothing to delete; remembered all the same.
    NotFound(u64),
    Conflict {
        current: u64,
        fault: Fault,
    },
    Refused(Fault),
}

impl Write {
    fn size_bytes(&self) -> usize {
        let body = match &self.what {
            What::Put(source) => source.len(),
            What::Delete => 0,
            What::Merge { part, otherwise } => {
                64 * part.len() + otherwise.as_ref().map_or(0, Vec::len)
            }
        };
        self.id.len() + body
    }
}

enum Asked {
    Write { writes: Vec<Write>, reply: oneshot::Sender<Result<Vec<Written>>> },
    Map { mappings: Value, reply: oneshot::Sender<Answer<()>> },
}

/// The way to an index's writer, which is a thread of its own and ends when this is dropped.
pub(super) struct Desk {
    /// None only while this is being dropped.
    asked: Option<Sender<Asked>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.asked = None;
        // The files are free for the next writer when the thread has ended; one that panicked has ended too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Desk {
    pub fn start(shared: Weak<Shared>, name: &str) -> Result<Self> {
        let (asked, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("index {name}"))
            .spawn(move || run(&shared, &waiting))
            .map_err(|cause| Error::new(ErrorKind::Io, "cannot start a thread").caused_by(cause))?;
        Ok(Self { asked: Some(asked), thread: Some(thread) })
    }

    /// One result for each write, in order, once all are durable. Err promises nothing.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Write { writes, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    fn ask(&self, asked: Asked) -> Result<()> {
        let desk = self.asked.as_ref().ok_or_else(stopped)?;
        desk.send(asked).map_err(|_| stopped())
    }

    /// Adds what the mapping does not have yet.
    pub async fn map(&self, mappings: Value) -> Answer<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Map { mappings, reply })?;
        answer.await.map_err(|_| stopped())?
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::SinkBlocked, "the index is being deleted, or its writer has ended")
}

type Group = Vec<(Vec<Write>, oneshot::Sender<Result<Vec<Written>>>)>;

fn run(shared: &Weak<Shared>, waiting: &Receiver<Asked>) {
    let mut writer = None;
    let mut next = waiting.recv().ok();
    while let Some(asked) = next.take() {
        let Some(shared) = shared.upgrade() else { return };
        match asked {
            Asked::Map { mappings, reply } => {
                // A caller who has gone needs no answer.
                let _ = reply.send(map(&shared, &mut writer, &mappings));
            }
            Asked::Write { writes, reply } => {
                let mut group = vec![(writes, reply)];
                next = gather(waiting, &mut group);
                write_group(&shared, &mut writer, group);
            }
        }
        drop(shared);
        next = next.or_else(|| waiting.recv().ok());
    }
}

/// Takes up everybody who waits already; gives back what does not belong to the group.
fn gather(waiting: &Receiver<Asked>, group: &mut Group) -> Option<Asked> {
    let size = |writes: &[Write]| writes.iter().map(Write::size_bytes).sum::<usize>();
    let mut bytes = size(&group[0].0);
    while bytes < GROUP_BYTES_MAX {
        match waiting.try_recv().ok()? {
            Asked::Write { writes, reply } => {
                bytes += size(&writes);
                group.push((writes, reply));
            }
            other => return Some(other),
        }
    }
    None
}

fn write_group(shared: &Shared, writer: &mut Option<IndexWriter>, group: Group) {
    let mut done = Vec::with_capacity(group.len());
    let result = apply(shared, writer, &group, &mut done);
    if result.is_err() {
        // Nothing of the group may slip into a later commit.
        *writer = None;
    }
    for ((_, reply), written) in
        group.into_iter().zip(done.into_iter().map(Some).chain(std::iter::repeat(None)))
    {
        let answer = match (&result, written) {
            (Ok(()), Some(written)) => Ok(written),
            (Err(fault), _) => Err(failed(&fault.reason)),
            (Ok(()), None) => Err(failed("a write was left out")),
        };
        // A caller who has gone needs no answer.
        let _ = reply.send(answer);
    }
}

fn failed(reason: &str) -> Error {
    Error::new(ErrorKind::SinkBusy, format!("cannot commit to the embedded index: {reason}"))
        .with_advice("look at the disk of the state directory; it is tried again")
}

fn apply(
    shared: &Shared,
    writer: &mut Option<IndexWriter>,
    group: &Group,
    done: &mut Vec<Vec<Written>>,
) -> Answer<()> {
    let mut parsed = add_unknown_fields(shared, writer, group)?.into_iter();
    let generation = shared.generation();
    let writer = open_writer(writer, &generation)?;
    let searcher = generation.reader.searcher();
    let mut changes =
        Changes { shared, generation: &generation, writer, searcher, pending: HashMap::new() };
    for (writes, _) in group {
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            let document = parsed.next().flatten();
            written.push(changes.make(write, document)?);
        }
        done.push(written);
    }
    if !changes.pending.is_empty() {
        writer.commit()?;
        disk::sync_dir(&generation.dir)?;
        generation.reader.reload()?;
    }
    Ok(())
}

/// Parsed, and as its bytes.
type Document = (Map<String, Value>, Vec<u8>);

type Parsed = Option<Answer<Map<String, Value>>>;

/// The documents of a group, and the mapping with what they bring: all of it in one new generation, if any.
fn add_unknown_fields(
    shared: &Shared,
    writer: &mut Option<IndexWriter>,
    group: &Group,
) -> Answer<Vec<Parsed>> {
    let mut mappings = shared.description().mappings;
    let mut fields = shared.generation().fields.clone();
    let mut grew = false;
    let mut parsed = Vec::new();
    for write in group.iter().flat_map(|(writes, _)| writes) {
        let document = match &write.what {
            What::Put(source) => Some(source::parse(source)),
            What::Merge { part, .. } => Some(Ok(part.clone())),
            What::Delete => None,
        };
        parsed.push(match document {
            Some(Ok(document)) => Some(match grow(&mut mappings, &mut fields, &document) {
                Ok(more) => {
                    grew |= more;
                    Ok(document)
                }
                Err(fault) => Err(fault),
            }),
            other => other,
        });
    }
    if grew {
        new_generation(shared, writer, mappings, fields)?;
    }
    Ok(parsed)
}

/// Adds the document's unknown fields to the mapping; a document that does not fit leaves it as it was.
fn grow(mappings: &mut Value, fields: &mut Fields, document: &Map<String, Value>) -> Answer<bool> {
    let unknown = source::unknown(fields, document)?;
    if unknown.is_empty() {
        return Ok(false);
    }
    let mut larger = mappings.clone();
    if larger["properties"].is_null() {
        larger["properties"] = Value::Object(Map::new());
    }
    for (path, field) in unknown {
        fields::insert(&mut larger["properties"], &path, field);
    }
    let larger_fields = Fields::parse(&larger)?;
    source::values(&larger_fields, document)?;
    (*mappings, *fields) = (larger, larger_fields);
    Ok(true)
}

fn open_writer<'w>(
    writer: &'w mut Option<IndexWriter>,
    generation: &Generation,
) -> Answer<&'w mut IndexWriter> {
    if writer.is_none() {
        // One thread, so that rows come to disk in the order in which they were given.
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(ARENA_BYTES)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        *writer = Some(generation.index.writer_with_options(options)?);
    }
    Ok(writer.as_mut().expect("it was just opened"))
}

/// A document as the writes before in the same group have left it.
struct Pending {
    version: u64,
    source: Option<Vec<u8>>,
}

struct Changes<'s> {
    shared: &'s Shared,
    generation: &'s Generation,
    writer: &'s IndexWriter,
    searcher: Searcher,
    pending: HashMap<String, Pending>,
}

impl Changes<'_> {
    fn make(&mut self, write: &Write, document: Parsed) -> Answer<Written> {
        if write.id.is_empty() || write.id.len() > ID_BYTES_MAX {
            let length = write.id.len();
            return Ok(Written::Refused(Fault::request(format!(
                "an _id has 1 to {ID_BYTES_MAX} bytes; this one has {length}"
            ))));
        }
        let (version, is_live) = match self.pending.get(&write.id) {
            Some(pending) => (Some(pending.version), pending.source.is_some()),
            None => {
                let place = self.generation.find(&self.searcher, &write.id)?;
                (place.map(|place| place.version), place.is_some_and(|place| place.is_live))
            }
        };
        let next = match next_version(write, version, is_live) {
            Ok(next) => next,
            Err(fault) => return Ok(Written::Conflict { current: version.unwrap_or(0), fault }),
        };
        let (document, source) = match (&write.what, document) {
            (What::Delete, _) => return self.delete(write, next, is_live),
            (_, Some(Err(fault))) => return Ok(Written::Refused(fault)),
            (What::Put(source), Some(Ok(document))) => (document, source.clone()),
            (What::Merge { otherwise, .. }, Some(Ok(part))) => {
                match self.merged(write, part, otherwise.as_deref(), is_live)? {
                    Ok(both) => both,
                    Err(fault) => return Ok(Written::Refused(fault)),
                }
            }
            (_, None) => return Ok(Written::Refused(Fault::mapping("there is no document"))),
        };
        let values = match source::values(&self.generation.fields, &document) {
            Ok(values) => values,
            Err(fault) => return Ok(Written::Refused(fault)),
        };
        let row = self.generation.row(&write.id, next, &source, values);
        self.writer.delete_term(self.generation.id_term(&write.id));
        self.writer.add_document(row)?;
        self.pending.insert(write.id.clone(), Pending { version: next, source: Some(source) });
        Ok(if is_live { Written::Updated(next) } else { Written::Created(next) })
    }

    fn delete(&mut self, write: &Write, next: u64, is_live: bool) -> Answer<Written> {
        self.writer.delete_term(self.generation.id_term(&write.id));
        self.writer.add_document(self.generation.tombstone(&write.id, next))?;
        self.pending.insert(write.id.clone(), Pending { version: next, source: None });
        Ok(if is_live { Written::Deleted(next) } else { Written::NotFound(next) })
    }

    /// The document with `part` merged into it.
    fn merged(
        &self,
        write: &Write,
        part: Map<String, Value>,
        otherwise: Option<&[u8]>,
        is_live: bool,
    ) -> Answer<Answer<Document>> {
        let old = match (is_live, self.pending.get(&write.id), otherwise) {
            (false, _, Some(otherwise)) => otherwise.to_vec(),
            (false, _, None) => {
                let reason = format!("[{}]: document missing", write.id);
                return Ok(Err(Fault::new(404, "document_missing_exception", reason)));
            }
            (true, Some(pending), _) => pending.source.clone().unwrap_or_default(),
            (true, None, _) => match self.generation.find(&self.searcher, &write.id)? {
                Some(place) => self.generation.load(&self.searcher, place.address)?.1,
                None => Vec::new(),
            },
        };
        let mut document = match source::parse(&old) {
            Ok(document) => document,
            Err(fault) => return Ok(Err(fault)),
        };
        if is_live {
            merge(&mut document, part);
        } else if let Err(fault) = self.is_mapped(&document) {
            return Ok(Err(fault));
        }
        let source = Value::Object(document.clone()).to_string().into_bytes();
        Ok(Ok((document, source)))
    }

    /// The fields of an `upsert` are not looked at beforehand, so they must be known.
    fn is_mapped(&self, document: &Map<String, Value>) -> Answer<()> {
        match source::unknown(&self.generation.fields, document)?.first() {
            None => Ok(()),
            Some((path, _)) => Err(Fault::mapping(format!(
                "the field [{path}] of an upsert is not in the mapping of [{}]",
                self.shared.name()
            ))),
        }
    }
}

fn merge(into: &mut Map<String, Value>, part: Map<String, Value>) {
    for (key, value) in part {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The version that the change stores, or why it is not made.
fn next_version(write: &Write, current: Option<u64>, is_live: bool) -> Result<u64, Fault> {
    let conflict = |reason: String| {
        Err(Fault::new(
            409,
            "version_conflict_engine_exception",
            format!("[{}]: version conflict, {reason}", write.id),
        ))
    };
    let stored = current.unwrap_or(0);
    match write.expect {
        Expect::Absent if is_live => {
            conflict(format!("document already exists (current version [{stored}])"))
        }
        Expect::Anything | Expect::Absent => Ok(stored + 1),
        Expect::NotAbove(version) if current.is_none_or(|current| current <= version) => {
            Ok(version)
        }
        Expect::Below(version) if current.is_none_or(|current| current < version) => Ok(version),
        Expect::NotAbove(version) => conflict(format!(
            "current version [{stored}] is higher than the one provided [{version}]"
        )),
        Expect::Below(version) => conflict(format!(
            "current version [{stored}] is higher or equal to the one provided [{version}]"
        )),
    }
}

fn map(shared: &Shared, writer: &mut Option<IndexWriter>, mappings: &Value) -> Answer<()> {
    let old = shared.description().mappings;
    let merged = fields::merge(&old, mappings)?;
    let fields = Fields::parse(&merged)?;
    if merged == old {
        return Ok(());
    }
    new_generation(shared, writer, merged, fields)
}

/// Fills a generation with the new mapping from the one that is there, and puts it in its place. It counts from the
/// moment at which the description on disk names it; a crash before leaves everything as it was.
fn new_generation(
    shared: &Shared,
    writer: &mut Option<IndexWriter>,
    mappings: Value,
    fields: Fields,
) -> Answer<()> {
    // The old generation takes no more writes.
    *writer = None;
    let old = shared.generation();
    let new = Generation::create(&shared.dir, old.number + 1, fields)?;
    let mut new_writer = None;
    copy(&old, &new, open_writer(&mut new_writer, &new)?)?;
    shared.replace(new, mappings)?;
    *writer = new_writer;
    // Searches that are under way keep its files open.
    let _ = std::fs::remove_dir_all(&old.dir);
    Ok(())
}

fn copy(old: &Generation, new: &Generation, writer: &mut IndexWriter) -> Answer<()> {
    let searcher = old.reader.searcher();
    for (ordinal, segment) in (0_u32..).zip(searcher.segment_readers()) {
        for doc in segment.doc_ids_alive() {
            let place = old.place(&searcher, tantivy::DocAddress::new(ordinal, doc))?;
            let (id, bytes) = old.load(&searcher, place.address)?;
            if !place.is_live {
                writer.add_document(new.tombstone(&id, place.version))?;
                continue;
            }
            let document = source::parse(&bytes)?;
            // What was kept without being searchable may not fit the mapping that came later; it stays so.
            let values = source::values_that_fit(&new.fields, &document);
            writer.add_document(new.row(&id, place.version, &bytes, values))?;
        }
    }
    writer.commit()?;
    disk::sync_dir(&new.dir)?;
    new.reader.reload()?;
    Ok(())
}
