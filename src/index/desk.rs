//! The one writer of an index, a thread: takes up everybody who waits, and makes one commit for all of them.
//!
//! Why an acknowledgement is durable and versions hold (rule 15): each `_id` has at most one row, a document or a
//! tombstone, which carries its version. A write reads that version, from the writes before it in the same group or else
//! from the last commit, decides, and replaces the row; deletion of the old row and the new row are parts of one commit,
//! which is synced before anybody is told. There is one writer, so nothing comes between reading and replacing. A failed
//! commit is rolled back as a whole, and everybody in the group is told that nothing is certain.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use serde_json::Value;
use tantivy::IndexWriter;
use tantivy::indexer::IndexWriterOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::change::Changes;
use super::disk::{self, Generation};
use super::fault::Answer;
use super::write::{Write, Written};
use super::{Shared, gone, growth};
use crate::error::{Error, ErrorKind, Result};

/// What a group may hold; what waits beyond that waits for the next commit.
const GROUP_BYTES_MAX: usize = 32 << 20;
/// What may wait for the writer of one index, this group and the next; who brings more waits for room.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Rows that are held in memory before a segment is written.
const ARENA_BYTES: usize = 32 << 20;

enum Asked {
    Write(Waiting),
    Map { mappings: Value, reply: oneshot::Sender<Answer<()>> },
}

struct Waiting {
    writes: Vec<Write>,
    reply: oneshot::Sender<Result<Vec<Written>>>,
    size_bytes: usize,
    /// Given back when all is done.
    _room: OwnedSemaphorePermit,
}

/// The way to an index's writer, which is a thread of its own and ends when this is dropped.
pub(super) struct Desk {
    /// None only while this is being dropped.
    asked: Option<Sender<Asked>>,
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.asked = None;
        let Some(thread) = self.thread.take() else { return };
        // The files are free for the next writer when the thread has ended; one that panicked has ended too. It may be in
        // a commit, which no task of a runtime may wait for.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(|| thread.join())),
            Err(_) => drop(thread.join()),
        }
    }
}

impl Desk {
    pub fn start(shared: Weak<Shared>, name: &str) -> Result<Self> {
        let (asked, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("index {name}"))
            .spawn(move || run(&shared, &waiting))
            .map_err(|cause| Error::new(ErrorKind::Io, "cannot start a thread").caused_by(cause))?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        Ok(Self { asked: Some(asked), room, thread: Some(thread) })
    }

    /// One result for each write, in order, once all are durable. Err promises nothing.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let size_bytes = writes.iter().map(Write::size_bytes).sum::<usize>();
        // One that is larger than all there is takes all there is.
        let wanted = u32::try_from(size_bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Write(Waiting { writes, reply, size_bytes, _room: room }))?;
        answer.await.map_err(|_| stopped())?
    }

    /// Adds what the mapping does not have yet.
    pub async fn map(&self, mappings: Value) -> Answer<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Map { mappings, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    fn ask(&self, asked: Asked) -> Result<()> {
        let desk = self.asked.as_ref().ok_or_else(stopped)?;
        desk.send(asked).map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::SinkBlocked, "the index's writer broke off; the log says why")
}

fn run(shared: &Weak<Shared>, waiting: &Receiver<Asked>) {
    let mut writer = Writer::default();
    let mut next = waiting.recv().ok();
    while let Some(asked) = next.take() {
        let Some(shared) = shared.upgrade() else { return };
        let worked = guarded(|| match asked {
            Asked::Map { mappings, reply } => {
                // A caller who has gone needs no answer.
                let _ = reply.send(growth::map(&shared, &mut writer, &mappings));
            }
            Asked::Write(first) => {
                let mut group = vec![first];
                next = gather(waiting, &mut group);
                write_group(&shared, &mut writer, group);
            }
        });
        if !worked {
            tracing::error!(index = shared.name(), "a write broke off; the writer begins anew");
            writer.close();
        }
        drop(shared);
        next = next.or_else(|| waiting.recv().ok());
    }
}

/// Whether the work came to its end: one that panics must not be the end of all that follow.
fn guarded(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_ok()
}

/// Takes up everybody who waits already; gives back what does not belong to the group.
fn gather(waiting: &Receiver<Asked>, group: &mut Vec<Waiting>) -> Option<Asked> {
    let mut bytes = group[0].size_bytes;
    while bytes < GROUP_BYTES_MAX {
        match waiting.try_recv().ok()? {
            Asked::Write(another) => {
                bytes += another.size_bytes;
                group.push(another);
            }
            other => return Some(other),
        }
    }
    None
}

fn write_group(shared: &Shared, writer: &mut Writer, mut group: Vec<Waiting>) {
    let all = group.iter_mut().map(|waiting| std::mem::take(&mut waiting.writes)).collect();
    let result = apply(shared, writer, all);
    if result.is_err() {
        // Nothing of the group may slip into a later commit.
        writer.close();
    }
    let mut done = result.map(Vec::into_iter);
    for waiting in group {
        let answer = match &mut done {
            Ok(done) => done.next().ok_or_else(|| failed("a write was left out")),
            Err(_) if shared.is_deleted() => Err(gone(&shared.name())),
            Err(fault) => Err(failed(&fault.reason)),
        };
        // A caller who has gone needs no answer.
        let _ = waiting.reply.send(answer);
    }
}

fn failed(reason: &str) -> Error {
    Error::new(ErrorKind::SinkBusy, format!("cannot commit to the embedded index: {reason}"))
        .with_advice("look at the disk of the state directory; it is tried again")
}

fn apply(
    shared: &Shared,
    writer: &mut Writer,
    group: Vec<Vec<Write>>,
) -> Answer<Vec<Vec<Written>>> {
    shared.settle()?;
    let generation = shared.generation();
    let mut changes = Changes::over(&shared.description(), &generation);
    let mut done = Vec::with_capacity(group.len());
    for writes in group {
        let written = writes.into_iter().map(|write| changes.make(write));
        done.push(written.collect::<Answer<Vec<Written>>>()?);
    }
    if changes.is_empty() {
        return Ok(done);
    }
    if let Some((mappings, fields)) = changes.mapping() {
        growth::new_generation(shared, writer, mappings, fields)?;
    }
    let generation = shared.generation();
    let writer = writer.open(&generation)?;
    changes.put(&generation, writer)?;
    writer.commit()?;
    disk::sync_dir(&generation.dir)?;
    generation.reader.reload()?;
    shared.settle()?;
    Ok(done)
}

/// The writer of a generation, opened when it is needed.
#[derive(Default)]
pub(super) struct Writer(Option<IndexWriter>);

impl Writer {
    pub fn open(&mut self, generation: &Generation) -> Answer<&mut IndexWriter> {
        if self.0.is_none() {
            // One thread, so that rows come to disk in the order in which they were given.
            let options = IndexWriterOptions::builder()
                .memory_budget_per_thread(ARENA_BYTES)
                .num_worker_threads(1)
                .num_merge_threads(1)
                .build();
            let writer: IndexWriter = generation.index.writer_with_options(options)?;
            // A commit that came to nothing has left files whose names the next one needs.
            writer.garbage_collect_files().wait()?;
            self.0 = Some(writer);
        }
        Ok(self.0.as_mut().expect("it was just opened"))
    }

    /// Ends it with its threads, so that nothing of it holds files when the next one is opened.
    pub fn close(&mut self) {
        let ended = self.0.take().map(IndexWriter::wait_merging_threads);
        if let Some(Err(error)) = ended {
            tracing::warn!(error = %error, "a writer of the embedded index ended with an error");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_is_not_the_end() {
        let (reply, answer) = oneshot::channel::<()>();
        assert!(!guarded(|| {
            let _reply = reply;
            panic!("as meant");
        }));
        assert!(answer.blocking_recv().is_err(), "who waits for it is told");
        assert!(guarded(|| ()));
    }
}
