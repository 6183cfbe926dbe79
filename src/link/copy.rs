//! The task that reads a snapshot's chunks for a link's worker, over a connection of its own. It waits, reads and
//! answers; what may be written of a chunk is the worker's to say (`source::snapshot::window`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::link::prepared::Open;
use crate::link::status::Live;
use crate::link::supervisor::lock;
use crate::link::verify::{Comparer, Sought, Wrong};
use crate::naive::hang_if_told;
use crate::position::{GtidSet, Version};
use crate::source::server::{Naming, Server};
use crate::source::snapshot::scan::{self, Chunk};
use crate::source::snapshot::{chunk, undecided, view};
use crate::source::xid::Xid;
use crate::source::{self, control};
use crate::state::KeyPart;
use crate::table::TableDef;
use crate::telemetry::metrics::metrics;

#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Where the snapshot ends, and about how many rows it has.
    Bounds { delivered: GtidSet },
    /// To wait until the next chunk may be begun: until `due`, until the server has no more threads running, and until it
    /// is this copy's turn.
    Rest { due: Instant, threads_running_max: u32 },
    Chunk {
        delivered: GtidSet,
        after: Option<Vec<KeyPart>>,
        until: Vec<KeyPart>,
        condition: Option<String>,
        rows_max: u32,
    },
    /// A page of the documents below a version: which of them have no row.
    Extras { below: Version, after: Option<String> },
}

impl Request {
    fn has_condition(&self) -> bool {
        matches!(self, Request::Chunk { condition: Some(_), .. })
    }
}

pub(super) enum Reply {
    Bounds(Bounds),
    Rested,
    Chunk {
        chunk: Chunk,
        executed: GtidSet,
        /// None where all of it is to be written.
        wrong: Option<Box<Wrong>>,
    },
    Extras(Sought),
    /// Rows and documents of this link cannot be compared.
    Incomparable(Error),
    Failed(Error),
}

/// Where a snapshot ends.
pub(super) struct Bounds {
    pub until: Option<Vec<KeyPart>>,
    pub rows_total: u64,
    /// What they can show, and what can have been committed before they were read.
    pub executed: GtidSet,
}

/// The worker's side: one request at a time.
pub(super) struct Copier {
    requests: mpsc::Sender<(Request, Turn)>,
    replies: mpsc::Receiver<Reply>,
    task: JoinHandle<()>,
}

/// Leave to read a chunk, where the asker has one already.
type Turn = Option<OwnedSemaphorePermit>;

/// What a copier reads, and from where.
pub(super) struct Subject {
    pub source: source::Config,
    pub server: Server,
    pub def: Arc<TableDef>,
    pub wanted: Vec<usize>,
    /// A chunk is cut off where it holds more.
    pub chunk_bytes_max: usize,
    /// What is not answered for so long is asked anew.
    pub watchdog: Option<Duration>,
    /// Of the whole process: as many as chunks may be read at once.
    pub turns: Arc<Semaphore>,
    pub live: Arc<Live>,
    /// XA transactions that the stream has delivered as prepared, as of now; the worker sees to it until the copy is done.
    pub prepared: Mutex<Arc<Open>>,
    /// XA transactions of MariaDB whose commits the stream has delivered, and that need not be visible yet.
    pub ended: Mutex<BTreeSet<Xid>>,
}

/// More XA transactions than this are never between log and engine at once.
const ENDED_MAX: usize = 10_000;

impl Subject {
    /// A session at the server that the stream comes from.
    pub async fn connect(&self) -> Result<mysql_async::Conn> {
        let mut conn = control::connect(&self.source).await?;
        control::in_time(control::ANSWERED_IN, self.server.expect(&mut conn)).await?;
        Ok(conn)
    }

    /// The stream has delivered the commit of this XA transaction.
    pub fn note_ended(&self, xid: &Xid) {
        if self.server.naming == Naming::Domains {
            let mut ended = lock(&self.ended);
            if ended.len() >= ENDED_MAX {
                ended.pop_first();
            }
            ended.insert(xid.clone());
        }
    }

    /// Returns, within a transaction, when what was delivered can be seen; tells the link's status what is waited for.
    pub async fn open(&self, conn: &mut mysql_async::Conn, delivered: &GtidSet) -> Result<()> {
        let mut ended = lock(&self.ended).clone();
        if !ended.is_empty() {
            let waited_for = ended.clone();
            undecided::wait_until_done(conn, &mut ended).await?;
            lock(&self.ended).retain(|xid| !waited_for.contains(xid));
        }
        let waiting = Waiting::of(&self.live);
        view::open_transaction(conn, &self.server, delivered, &|why| waiting.tell(why)).await
    }
}

/// Tells a link's status what is waited for, and takes that back when it is dropped.
pub(super) struct Waiting<'a> {
    live: &'a Live,
    has_told: AtomicBool,
}

impl<'a> Waiting<'a> {
    pub fn of(live: &'a Live) -> Self {
        Self { live, has_told: AtomicBool::new(false) }
    }

    pub fn tell(&self, why: String) {
        self.has_told.store(true, Ordering::Relaxed);
        self.live.wait_for(why);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if *self.has_told.get_mut() {
            self.live.trouble_is_over();
        }
    }
}

impl Copier {
    /// With a comparer, what is right in the index is told beside each chunk.
    pub fn start(subject: Arc<Subject>, comparer: Option<Comparer>) -> Result<Self> {
        chunk::check_key(&subject.def)?;
        let (requests, incoming) = mpsc::channel(1);
        let (outgoing, replies) = mpsc::channel(1);
        let task = tokio::spawn(serve(subject, comparer, incoming, outgoing));
        Ok(Self { requests, replies, task })
    }

    pub async fn ask(&self, request: Request) -> Result<()> {
        self.ask_with(request, None).await
    }

    /// Asks for a chunk without a rest before.
    pub async fn ask_with(&self, request: Request, turn: Turn) -> Result<()> {
        self.requests
            .send((request, turn))
            .await
            .map_err(|_| Error::new(ErrorKind::Stopped, "the snapshot's task has ended"))
    }

    /// The next answer. Cancel safe.
    pub async fn reply(&mut self) -> Reply {
        match self.replies.recv().await {
            Some(reply) => reply,
            None => Reply::Failed(Error::new(ErrorKind::Stopped, "the snapshot's task has ended")),
        }
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    subject: Arc<Subject>,
    comparer: Option<Comparer>,
    mut requests: mpsc::Receiver<(Request, Turn)>,
    replies: mpsc::Sender<Reply>,
) {
    let (mut conn, mut turn) = (None, None);
    while let Some(mut request) = next(&mut requests, &mut turn).await {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let (mut had_trouble, mut stood_still) = (false, 0);
        let reply = loop {
            let patience = subject.watchdog.map(|watchdog| watchdog * (1 << stood_still));
            let asking = Asked { subject: &subject, patience };
            match answer(&asking, comparer.as_ref(), &mut conn, &request).await {
                Ok(reply) => break reply,
                // Of another table, in the condition: no stream will bring that.
                Err(error) if error.kind() == ErrorKind::Schema && request.has_condition() => {
                    break Reply::Failed(error);
                }
                // No such table or column: the stream will bring the statement, and the worker then asks anew.
                Err(error)
                    if error.remedy() == Remedy::Retry || error.kind() == ErrorKind::Schema =>
                {
                    (conn, turn) = (None, None);
                    had_trouble = true;
                    // A chunk that takes long for good reasons is waited for longer each time.
                    stood_still = (stood_still + u32::from(error.is_overload())).min(6);
                    if let Request::Extras { after, .. } = &mut request {
                        // The index may have lost the place.
                        *after = None;
                    }
                    tracing::warn!(error = %error.report(), "the snapshot waits");
                    subject.live.wait_for(error.report());
                    tokio::time::sleep(backoff.next(error.retry_after())).await;
                }
                Err(error) => break Reply::Failed(error),
            }
        };
        if had_trouble {
            subject.live.trouble_is_over();
        }
        match &reply {
            // Nobody closes it.
            Reply::Rested => turn = subject.turns.clone().acquire_owned().await.ok(),
            Reply::Bounds(_)
            | Reply::Chunk { .. }
            | Reply::Extras(_)
            | Reply::Incomparable(_)
            | Reply::Failed(_) => drop(turn.take()),
        }
        if replies.send(reply).await.is_err() {
            return;
        }
    }
}

/// A link whose sink takes nothing asks for nothing: it must not keep a turn from the others. When it goes on, its chunk is
/// read without one.
const TURN_IS_KEPT: Duration = Duration::from_secs(1);

async fn next(requests: &mut mpsc::Receiver<(Request, Turn)>, turn: &mut Turn) -> Option<Request> {
    let asked = match turn.is_some() {
        true => match tokio::time::timeout(TURN_IS_KEPT, requests.recv()).await {
            Ok(asked) => asked,
            Err(_) => {
                *turn = None;
                requests.recv().await
            }
        },
        false => requests.recv().await,
    };
    let (request, brought) = asked?;
    *turn = brought.or(turn.take());
    Some(request)
}

/// What a request is answered with.
struct Asked<'a> {
    subject: &'a Subject,
    /// For one read.
    patience: Option<Duration>,
}

impl Asked<'_> {
    /// Reads, and gives up where nothing comes for too long. The connection must not be used again then.
    async fn watched<T>(&self, reading: impl Future<Output = Result<T>>) -> Result<T> {
        let reading = async {
            hang_if_told("copy").await;
            reading.await
        };
        let Some(patience) = self.patience else { return reading.await };
        match tokio::time::timeout(patience, reading).await {
            Ok(read) => read,
            Err(_) => {
                metrics().watchdog_restarted("copy");
                let what = format!(
                    "the watchdog begins the copy's read again: it stood still for {} s",
                    patience.as_secs()
                );
                Err(Error::new(ErrorKind::SourceUnreachable, what).overloaded(None))
            }
        }
    }
}

async fn answer(
    asked: &Asked<'_>,
    comparer: Option<&Comparer>,
    conn: &mut Option<mysql_async::Conn>,
    request: &Request,
) -> Result<Reply> {
    let subject = asked.subject;
    if let (Request::Extras { below, after }, Some(comparer)) = (request, comparer) {
        let found = comparer.without_rows(conn, *below, after.as_deref()).await;
        return found.map(Reply::Extras);
    }
    if conn.is_none() {
        *conn = Some(subject.connect().await?);
    }
    let conn = conn.as_mut().expect("it was just opened");
    match request {
        Request::Bounds { delivered } => {
            subject.open(conn, delivered).await?;
            view::close(conn, &subject.server).await?;
            wait_until_decided(subject, conn).await?;
            subject.open(conn, delivered).await?;
            let rows_total = asked.watched(scan::estimated_rows(conn, &subject.def)).await?;
            let until = asked.watched(scan::last_key(conn, &subject.def)).await?;
            let executed = view::close(conn, &subject.server).await?;
            Ok(Reply::Bounds(Bounds { until, rows_total, executed }))
        }
        Request::Rest { due, threads_running_max } => {
            tokio::time::sleep_until((*due).into()).await;
            rest(subject, conn, u64::from(*threads_running_max)).await?;
            Ok(Reply::Rested)
        }
        Request::Chunk { delivered, after, until, condition, rows_max } => {
            subject.open(conn, delivered).await?;
            let reading = scan::read_chunk_where(
                conn,
                &subject.def,
                &subject.wanted,
                (after.as_deref(), until),
                (*rows_max, subject.chunk_bytes_max),
                condition.as_deref(),
            );
            let chunk = asked.watched(reading).await?;
            let executed = view::close(conn, &subject.server).await?;
            let wrong = match comparer {
                Some(comparer) => match comparer.wrong(&chunk).await {
                    Ok(wrong) => Some(Box::new(wrong)),
                    Err(error) if error.remedy() == Remedy::Retry => return Err(error),
                    Err(error) => return Ok(Reply::Incomparable(error)),
                },
                None => None,
            };
            Ok(Reply::Chunk { chunk, executed, wrong })
        }
        Request::Extras { .. } => {
            let what = "documents can be looked for by a copy that compares, and by no other";
            Err(Error::new(ErrorKind::Unsupported, what))
        }
    }
}

/// How often a server that is busy is asked whether it still is.
const ASK_BUSY_EVERY: Duration = Duration::from_millis(250);

/// Returns when the server has no more threads running than `max`; 0 says that they do not count.
async fn rest(subject: &Subject, conn: &mut mysql_async::Conn, max: u64) -> Result<()> {
    if max == 0 {
        return Ok(());
    }
    let holding = Holding { live: &subject.live };
    loop {
        let running = control::threads_running(conn);
        let running = control::in_time(control::ANSWERED_IN, running).await?;
        if running <= max {
            return Ok(());
        }
        holding.tell(running);
        tokio::time::sleep(ASK_BUSY_EVERY).await;
    }
}

/// Shows why a copy stands still, and takes that back when it is dropped.
struct Holding<'a> {
    live: &'a Live,
}

impl Holding<'_> {
    fn tell(&self, threads_running: u64) {
        self.live.hold_snapshot(Some(threads_running));
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.live.hold_snapshot(None);
    }
}

async fn wait_until_decided(subject: &Subject, conn: &mut mysql_async::Conn) -> Result<()> {
    let waiting = Waiting::of(&subject.live);
    let known = |xid: &Xid| lock(&subject.prepared).contains_key(xid.as_str());
    undecided::wait_until_decided(conn, &subject.server, known, |why| waiting.tell(why)).await
}
