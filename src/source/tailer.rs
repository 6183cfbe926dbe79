//! Tails the binlog of one source for all its links: reads events, counts versions' bytes, and hands each link what
//! concerns its tables. Knows nothing of mappings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::flow::queue;
use crate::mysql::stream_ended;
use crate::naive::hang_if_told;
use crate::position::{Checkpoint, Version};
use crate::source::Config;
use crate::source::files::LogFiles;
use crate::source::follower::{self, Follower, Step, is_wanted};
use crate::source::places::{Place, Places, Turn};
use crate::source::replication::{self, Opened};
use crate::source::server::Server;
use crate::source::stream::{Began, Item};
use crate::table::TableId;
use crate::telemetry::metrics::metrics;

/// One link's interest in the stream.
pub struct Subscription {
    pub link: String,
    pub table: TableId,
    /// Tables whose changes reach into `table`: their rows are delivered too.
    pub others: Vec<TableId>,
    /// The link's checkpoint: transactions in it are not delivered again. `None`: from the next boundary on.
    pub from: Option<Checkpoint>,
    pub queue: queue::Sender<Vec<Item>>,
    /// Told the boundary at which the delivery begins.
    pub began: oneshot::Sender<Began>,
    /// Taken for the link where the stream leaves it behind.
    pub place: Place,
}

impl Subscription {
    /// The link's own table first.
    pub fn tables(&self) -> impl Iterator<Item = &TableId> {
        std::iter::once(&self.table).chain(&self.others)
    }
}

/// Called, rarely, before versions above the last reservation are given out; returns the new bound. It must be durable
/// when the call returns.
pub type Reserve = Box<dyn FnMut(Version) -> Result<Version> + Send>;

/// The bound up to which versions may be given out, and how it is raised.
pub struct Durable {
    pub reserved: Version,
    pub reserve: Reserve,
    /// Where files are made that no name leads to, for what does not fit into memory.
    pub dir: std::path::PathBuf,
}

/// Told why the stream stands still, and that it goes on again.
pub type Report = Box<dyn Fn(Option<String>) + Send + Sync>;

/// Whose stream it is.
pub enum Sharing {
    /// All links', but for those that it leaves behind, for as many as there are places. So many are about to join.
    All { places: Places, expected: usize },
    /// One link's, for as long as that takes something.
    One(Turn),
}

/// A running tailer. Dropping the handle does not stop it; `stop` does.
pub struct Tailer {
    subscriptions: mpsc::Sender<Subscription>,
    reached: Arc<AtomicU64>,
    progress: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Tailer {
    /// Starts tailing behind `start`. It reconnects by itself for as long as waiting can help.
    pub fn start(
        config: Config,
        server: Server,
        start: Checkpoint,
        durable: Durable,
        (sharing, report): (Sharing, Report),
    ) -> Self {
        let (subscriptions, requests) = mpsc::channel(SUBSCRIPTIONS_WAITING_MAX);
        let (stop, stopped) = watch::channel(false);
        let (is_shared, expected) = match &sharing {
            Sharing::All { expected, .. } => (true, *expected),
            Sharing::One(_) => (false, 1),
        };
        let follower = Follower::new(server.clone(), start, durable, sharing);
        let reached = follower.reached();
        let progress = Arc::new(AtomicU64::new(0));
        let run = Run {
            config,
            server,
            follower,
            requests,
            stopped,
            is_shared,
            expected,
            report,
            progress: progress.clone(),
        };
        Self { subscriptions, reached, progress, stop, task: tokio::spawn(run.run()) }
    }

    pub async fn subscribe(&self, subscription: Subscription) -> Result<()> {
        let ended = |_| Error::new(ErrorKind::SourceUnreachable, "the source's tailer has ended");
        self.subscriptions.send(subscription).await.map_err(ended)
    }

    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Counted bytes of log up to the last boundary that was made known.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Grows with every event that is followed, but for heartbeats, and with every try to connect.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// A way to subscribe that outlives the handle.
    pub fn subscriptions(&self) -> mpsc::Sender<Subscription> {
        self.subscriptions.clone()
    }

    /// Stops reading, without waiting for the task.
    pub fn abandon(&self) {
        let _ = self.stop.send(true);
    }

    /// Stops reading and waits for the task to end.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(ENDS_IN, &mut self.task).await.is_err() {
            tracing::error!("the tailer did not end when it was told to");
            self.task.abort();
        }
    }
}

/// Whether a stream of this process waits because a link takes nothing.
pub fn any_waits_for_a_link() -> bool {
    follower::any_waits()
}

struct Run {
    config: Config,
    /// The server that `follower`'s position belongs to.
    server: Server,
    follower: Follower,
    requests: mpsc::Receiver<Subscription>,
    stopped: watch::Receiver<bool>,
    is_shared: bool,
    /// Links that are waited for at the beginning.
    expected: usize,
    report: Report,
    progress: Arc<AtomicU64>,
}

/// Far longer than it takes the task to end, for it listens wherever it waits.
const ENDS_IN: Duration = Duration::from_secs(5);

/// Links that may wait at once to join the stream.
const SUBSCRIPTIONS_WAITING_MAX: usize = 4_096;

/// A boundary is made known at least this often while transactions stream by.
const BOUNDARY_INTERVAL: Duration = Duration::from_millis(20);

/// How often files are looked at for what has come.
const GROWTH_INTERVAL: Duration = Duration::from_millis(100);

/// The links of a configuration join within this of each other.
const GATHERING: Duration = Duration::from_millis(500);

/// A log that cannot be decoded behind one place over so many connections in a row is damaged where it lies.
const DAMAGED_TIMES_MAX: u32 = 5;

/// Where the stream was when something could not be decoded, and how often in a row.
#[derive(Default)]
struct Damage {
    n: u64,
    times: u32,
}

/// How a connection that did not break ended.
enum Followed {
    /// There are files in the place of a server, and they have ended.
    Ended,
    /// The one link that it was for takes nothing, or has gone.
    Deserted,
    /// The address leads to another server. The error is one that waiting mends: the links begin again there, in a new
    /// epoch, if it has what they have.
    Elsewhere(Error),
}

fn elsewhere(expected: &str, found: &str) -> Error {
    let what =
        format!("the source's address leads to server {found} now, and led to {expected} before");
    Error::new(ErrorKind::SourceUnreachable, what)
}

impl Run {
    async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => {}
            () = self.run_until_broken() => {}
        }
        self.show_connected(false);
    }

    async fn run_until_broken(&mut self) {
        let mut damage = Damage::default();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            let (error, is_over) = match self.connect_and_follow(&mut backoff).await {
                Ok(Followed::Elsewhere(error)) => (error, true),
                Ok(Followed::Ended) => {
                    tracing::info!("the log files have ended");
                    self.follower.broadcast(|| Item::Ended).await;
                    return;
                }
                Ok(Followed::Deserted) => return,
                Err(error) => {
                    let is_over = error.remedy() != Remedy::Retry
                        && !self.may_come_whole(&error, &mut damage);
                    (error, is_over)
                }
            };
            self.show_connected(false);
            if is_over {
                tracing::error!(error = %error.report(), "the stream has ended");
                let error = Arc::new(error);
                self.follower.broadcast(|| Item::Broken(error.clone())).await;
                return;
            }
            let wait = backoff.next(None);
            tracing::warn!(error = %error.report(), retry_in_ms = wait.as_millis() as u64, "the stream broke off");
            metrics().source_reconnects.inc();
            (self.report)(Some(error.report()));
            tokio::time::sleep(wait).await;
        }
    }

    /// What cannot be decoded may have been damaged on its way, and comes again over the next connection. A log that is
    /// damaged itself is so each time.
    fn may_come_whole(&self, error: &Error, damage: &mut Damage) -> bool {
        if error.kind() != ErrorKind::Undecodable || self.config.files().is_some() {
            return false;
        }
        let n = self.follower.resume_at().n;
        *damage = match damage.n == n {
            true => Damage { n, times: damage.times + 1 },
            false => Damage { n, times: 1 },
        };
        damage.times < DAMAGED_TIMES_MAX
    }

    /// Follows the stream over one connection until it breaks.
    async fn connect_and_follow(&mut self, backoff: &mut Backoff) -> Result<Followed> {
        if let Some(dir) = self.config.files() {
            let files = LogFiles::open(dir, &self.follower.resume_at().position.gtids)?;
            return self.follow_files(files).await;
        }
        self.progress.fetch_add(1, Ordering::Relaxed);
        let at = &self.follower.resume_at().position;
        let opened = replication::open(&self.config, &self.server, at).await?;
        let mut events = match opened {
            Opened::Stream(events) => events,
            Opened::Elsewhere(found) => {
                return Ok(Followed::Elsewhere(elsewhere(&self.server.identity, &found)));
            }
        };
        self.follower.reconnected();
        self.show_connected(true);
        (self.report)(None);
        tracing::info!(position = %self.follower.resume_at().position, "following the binlog");
        let silence_max = Duration::from_millis(self.config.read_timeout_ms());
        let mut boundary_sent = Instant::now();
        let expected = std::mem::take(&mut self.expected);
        self.gather(expected).await?;
        self.follower.boundary().await;
        loop {
            let tables = self.follower.tables();
            let wanted = |beginning: &[u8]| is_wanted(tables, beginning);
            let event = match events.next_buffered(&wanted)? {
                Some(event) => event,
                None => tokio::select! {
                    biased;
                    request = self.requests.recv() => {
                        let request = request.ok_or_else(nobody)?;
                        self.admit(Some(request));
                        self.follower.boundary().await;
                        continue;
                    }
                    event = tokio::time::timeout(silence_max, events.next(&wanted)) => {
                        event.map_err(|_| was_silent(silence_max))??.ok_or_else(stream_ended)?
                    }
                },
            };
            backoff.reset();
            if !is_heartbeat(&event) {
                self.progress.fetch_add(1, Ordering::Relaxed);
            }
            hang_if_told("tailer").await;
            let step = self.follower.follow(&event).await?;
            let is_due = !events.buffered() || boundary_sent.elapsed() >= BOUNDARY_INTERVAL;
            if step == Step::Boundary && is_due {
                boundary_sent = Instant::now();
                self.admit(None);
                self.follower.boundary().await;
            } else if !events.buffered() || self.follower.is_full() {
                self.follower.flush().await;
            }
            if self.follower.is_deserted() {
                return Ok(Followed::Deserted);
            }
        }
    }

    /// Follows a folder of files to its end for now, and on when they grow.
    async fn follow_files(&mut self, mut files: LogFiles) -> Result<Followed> {
        self.follower.reconnected();
        self.show_connected(true);
        (self.report)(None);
        self.gather(usize::MAX).await?;
        self.follower.boundary().await;
        let mut boundary_sent = Instant::now();
        loop {
            let Some(event) = files.next_event()? else {
                self.admit(None);
                self.follower.boundary().await;
                if self.config.until_end {
                    return Ok(Followed::Ended);
                }
                tokio::select! {
                    request = self.requests.recv() => self.admit(Some(request.ok_or_else(nobody)?)),
                    () = tokio::time::sleep(GROWTH_INTERVAL) => {}
                }
                continue;
            };
            let step = self.follower.follow(&event).await?;
            if step == Step::Boundary && boundary_sent.elapsed() >= BOUNDARY_INTERVAL {
                boundary_sent = Instant::now();
                self.admit(None);
                self.follower.boundary().await;
                tokio::task::yield_now().await;
            } else if self.follower.is_full() {
                self.follower.flush().await;
            }
            if self.follower.is_deserted() {
                return Ok(Followed::Deserted);
            }
        }
    }

    fn show_connected(&self, is_connected: bool) {
        if self.is_shared {
            metrics().source_connected.set(is_connected.into());
        }
    }

    /// Waits for so many links, but no longer than they take to come. What is read before a link joins is lost to it, and
    /// it has to read it by itself.
    async fn gather(&mut self, expected: usize) -> Result<()> {
        self.admit(None);
        while self.follower.waiting() < expected {
            let coming = self.requests.recv();
            let is_first = expected == usize::MAX && self.follower.waiting() == 0;
            let request = match is_first {
                // Of files nothing is read for nobody.
                true => coming.await,
                false => match tokio::time::timeout(GATHERING, coming).await {
                    Ok(request) => request,
                    Err(_) => break,
                },
            };
            self.admit(Some(request.ok_or_else(nobody)?));
        }
        Ok(())
    }

    /// Takes new subscriptions in; only called where no transaction is open, or kept until then.
    fn admit(&mut self, first: Option<Subscription>) {
        for subscription in
            first.into_iter().chain(std::iter::from_fn(|| self.requests.try_recv().ok()))
        {
            self.follower.wait_to_join(subscription);
        }
    }
}

/// By the type in the event's header; what it says is `follower`'s.
fn is_heartbeat(event: &[u8]) -> bool {
    const HEARTBEAT: u8 = 27;
    const HEARTBEAT_V2: u8 = 41;
    matches!(event.get(4), Some(&HEARTBEAT | &HEARTBEAT_V2))
}

fn nobody() -> Error {
    Error::new(ErrorKind::Stopped, "nobody follows the source")
}

fn was_silent(silence_max: Duration) -> Error {
    let silence_ms = silence_max.as_millis();
    let message = format!("the source was silent for {silence_ms} ms, heartbeats included");
    Error::new(ErrorKind::SourceUnreachable, message)
}
