//! The task that reads a snapshot's chunks for a link's worker, over a connection of its own. It waits, reads and
//! answers; what may be written of a chunk is the worker's to say (`source::snapshot::window`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::link::prepared::Open;
use crate::link::status::Live;
use crate::link::supervisor::lock;
use crate::position::GtidSet;
use crate::source::snapshot::scan::{self, Chunk};
use crate::source::snapshot::{chunk, undecided, watermark};
use crate::source::xid::Xid;
use crate::source::{self, control};
use crate::state::KeyPart;
use crate::table::TableDef;

#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Where the snapshot ends, and about how many rows it has.
    Bounds {
        delivered: GtidSet,
    },
    Chunk {
        delivered: GtidSet,
        after: Option<Vec<KeyPart>>,
        until: Vec<KeyPart>,
        rows_max: u32,
    },
}

pub(super) enum Reply {
    Bounds(Bounds),
    Chunk { chunk: Chunk, executed: GtidSet },
    Failed(Error),
}

/// Where a snapshot ends.
pub(super) struct Bounds {
    pub until: Option<Vec<KeyPart>>,
    pub rows_total: u64,
    /// What was executed before they were read.
    pub executed: GtidSet,
}

/// The worker's side: one request at a time.
pub(super) struct Copier {
    requests: mpsc::Sender<Request>,
    replies: mpsc::Receiver<Reply>,
    task: JoinHandle<()>,
}

/// What a copier reads, and from where.
pub(super) struct Subject {
    pub source: source::Config,
    pub server_uuid: String,
    pub def: Arc<TableDef>,
    pub wanted: Vec<usize>,
    /// A chunk is cut off where it holds more.
    pub chunk_bytes_max: usize,
    pub live: Arc<Live>,
    /// XA transactions that the stream has delivered as prepared, as of now; the worker sees to it until the copy is done.
    pub prepared: Mutex<Arc<Open>>,
}

impl Copier {
    pub fn start(subject: Arc<Subject>) -> Result<Self> {
        chunk::check_key(&subject.def)?;
        let (requests, incoming) = mpsc::channel(1);
        let (outgoing, replies) = mpsc::channel(1);
        let task = tokio::spawn(serve(subject, incoming, outgoing));
        Ok(Self { requests, replies, task })
    }

    pub async fn ask(&self, request: Request) -> Result<()> {
        self.requests
            .send(request)
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
    mut requests: mpsc::Receiver<Request>,
    replies: mpsc::Sender<Reply>,
) {
    let mut conn = None;
    while let Some(request) = requests.recv().await {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut had_trouble = false;
        let reply = loop {
            match answer(&subject, &mut conn, &request).await {
                Ok(reply) => break reply,
                // No such table or column: the stream will bring the statement, and the worker then asks anew.
                Err(error)
                    if error.remedy() == Remedy::Retry || error.kind() == ErrorKind::Schema =>
                {
                    conn = None;
                    had_trouble = true;
                    tracing::warn!(error = %error.report(), "the snapshot waits");
                    subject.live.wait_for(error.report());
                    tokio::time::sleep(backoff.next(None)).await;
                }
                Err(error) => break Reply::Failed(error),
            }
        };
        if had_trouble {
            subject.live.trouble_is_over();
        }
        if replies.send(reply).await.is_err() {
            return;
        }
    }
}

async fn answer(
    subject: &Subject,
    conn: &mut Option<mysql_async::Conn>,
    request: &Request,
) -> Result<Reply> {
    if conn.is_none() {
        *conn = Some(control::connect(&subject.source).await?);
    }
    let conn = conn.as_mut().expect("it was just opened");
    match request {
        Request::Bounds { delivered } => {
            watermark::wait_until_executed(conn, delivered).await?;
            wait_until_decided(subject, conn).await?;
            let executed = watermark::executed(conn).await?;
            same_server(subject, executed.server_uuid)?;
            let rows_total = scan::estimated_rows(conn, &subject.def).await?;
            let until = scan::last_key(conn, &subject.def).await?;
            Ok(Reply::Bounds(Bounds { until, rows_total, executed: executed.gtids }))
        }
        Request::Chunk { delivered, after, until, rows_max } => {
            watermark::wait_until_executed(conn, delivered).await?;
            let chunk = scan::read_chunk(
                conn,
                &subject.def,
                &subject.wanted,
                after.as_deref(),
                until,
                (*rows_max, subject.chunk_bytes_max),
            )
            .await?;
            let executed = watermark::executed(conn).await?;
            same_server(subject, executed.server_uuid)?;
            Ok(Reply::Chunk { chunk, executed: executed.gtids })
        }
    }
}

async fn wait_until_decided(subject: &Subject, conn: &mut mysql_async::Conn) -> Result<()> {
    let has_waited = AtomicBool::new(false);
    let tell = |why| {
        has_waited.store(true, Ordering::Relaxed);
        subject.live.wait_for(why);
    };
    let known = |xid: &Xid| lock(&subject.prepared).contains_key(xid.as_str());
    undecided::wait_until_decided(conn, known, tell).await?;
    if has_waited.into_inner() {
        subject.live.trouble_is_over();
    }
    Ok(())
}

fn same_server(subject: &Subject, found: String) -> Result<()> {
    if found == subject.server_uuid {
        Ok(())
    } else {
        Err(scan::other_server(&subject.server_uuid, &found))
    }
}
