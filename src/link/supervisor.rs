//! Owns the source's tailer and the links' workers: starts them, decides what follows when one ends, and answers the
//! doors. Does no work on rows itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::flow::queue;
use crate::link::end::End;
use crate::link::status::{Live, State, Status, unix_seconds};
use crate::link::{Config, Spec, start};
use crate::mapping;
use crate::pipeline;
use crate::position::{Checkpoint, Epoch, GtidSet, Position, Version};
use crate::sink::{self, Sink};
use crate::source::snapshot::watermark;
use crate::source::stream::{Began, Item};
use crate::source::tailer::{Durable, Subscription, Tailer};
use crate::source::{self, control, snapshot};
use crate::state::{LinkRecord, RuleRecord, SourceRecord};
use crate::table::TableId;
use crate::telemetry::metrics::metrics;

/// What the daemon is made of.
#[derive(Clone)]
pub struct Parts {
    pub link: Config,
    pub source: source::Config,
    pub snapshot: snapshot::Config,
    pub sink: sink::Config,
    pub pipeline: pipeline::Config,
    /// All queues of a link together stay below this.
    pub memory_limit_bytes: usize,
    pub state: crate::state::State,
}

/// Starts what [`Control`] then steers.
pub struct Supervisor;

/// The doors' handle on all links. Clones are the same handle.
#[derive(Clone)]
pub struct Control {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub parts: Parts,
    pub sink: Arc<dyn Sink>,
    pub pipelines: pipeline::Api,
    links: Mutex<BTreeMap<String, Entry>>,
    run: tokio::sync::Mutex<Run>,
    /// No version above this was ever given out; durable in the source's record.
    pub highest_version: Arc<AtomicU64>,
    restarts: mpsc::Sender<Restart>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// A link as the doors see it.
struct Entry {
    record: LinkRecord,
    live: Arc<Live>,
}

/// What runs now.
#[derive(Default)]
struct Run {
    tailer: Option<Tailer>,
    server_uuid: String,
    workers: BTreeMap<String, Running>,
    is_stopping: bool,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Begin the stream again at the checkpoints; in a new epoch if `above` is given.
#[derive(Debug, Default)]
struct Restart {
    above: Option<Version>,
}

impl Supervisor {
    /// Opens the sink, takes up the links in the state, and makes those of the configuration.
    pub fn start(parts: Parts, declared: Vec<Spec>) -> Result<Control> {
        let sink = sink::build(&parts.sink)?;
        let pipelines = pipeline::Api::new(parts.state.clone(), parts.pipeline.clone())?;
        let highest = parts.state.source().get()?.map_or(0, |record| record.highest_version);
        let (restarts, requests) = mpsc::channel(RESTARTS_WAITING_MAX);
        let inner = Arc::new(Inner {
            sink,
            pipelines,
            links: Mutex::default(),
            run: tokio::sync::Mutex::default(),
            highest_version: Arc::new(AtomicU64::new(highest)),
            restarts,
            keeper: Mutex::default(),
            parts,
        });
        for record in inner.parts.state.links().list()? {
            inner.remember(record, State::Scheduled);
        }
        let keeper = tokio::spawn(keep(inner.clone(), requests, declared));
        *lock(&inner.keeper) = Some(keeper);
        Ok(Control { inner })
    }
}

/// Starts the links of the state and the configuration, and restarts the stream when a link asks for it.
async fn keep(inner: Arc<Inner>, mut requests: mpsc::Receiver<Restart>, declared: Vec<Spec>) {
    for id in inner.ids() {
        inner.start_worker(&id).await;
    }
    for spec in declared {
        let already = spec.id.clone().unwrap_or_else(|| spec.rules.index().to_owned());
        if inner.ids().contains(&already) {
            continue;
        }
        tokio::spawn(declare(Control { inner: inner.clone() }, already, spec));
    }
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut last = tokio::time::Instant::now();
    while let Some(first) = requests.recv().await {
        if last.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next(None)).await;
        last = tokio::time::Instant::now();
        let mut above = first.above;
        while let Ok(more) = requests.try_recv() {
            above = above.max(more.above);
        }
        inner.restart(above).await;
    }
}

/// Makes a link of the configuration, for as long as waiting can help.
async fn declare(control: Control, id: String, spec: Spec) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let errors = match control.create(spec.clone()).await {
            Ok(_) => return,
            Err(errors) => errors,
        };
        let reason = errors.iter().map(|error| error.report()).collect::<Vec<_>>().join("; ");
        if errors.iter().any(|error| error.remedy() != Remedy::Retry) {
            tracing::error!(link = id, reason, "the link of the configuration cannot be made");
            return;
        }
        tracing::warn!(link = id, reason, "the link of the configuration waits");
        tokio::time::sleep(backoff.next(None)).await;
    }
}

/// Events of a link that wait to be decoded. They are there to bridge the moments in which the link waits for a lane; a
/// tenth of a second of the fastest log is enough for that, and more would only be memory.
const EVENTS_BYTES_MAX: usize = 16 << 20;

impl Inner {
    fn ids(&self) -> Vec<String> {
        lock(&self.links).keys().cloned().collect()
    }

    fn remember(&self, record: LinkRecord, phase: State) -> Arc<Live> {
        let live = Arc::new(Live::new(&record.id, phase, record.restarts));
        lock(&self.links).insert(record.id.clone(), Entry { record, live: live.clone() });
        live
    }

    pub fn record_of(&self, id: &str) -> Option<(LinkRecord, Arc<Live>)> {
        lock(&self.links).get(id).map(|entry| (entry.record.clone(), entry.live.clone()))
    }

    async fn start_worker(self: &Arc<Self>, id: &str) {
        let mut run = self.run.lock().await;
        if run.is_stopping || run.workers.get(id).is_some_and(|running| !running.task.is_finished())
        {
            return;
        }
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run_link(self.clone(), id.to_owned(), stopped));
        run.workers.insert(id.to_owned(), Running { stop, task });
    }

    async fn restart(self: &Arc<Self>, above: Option<Version>) {
        self.stop_all(false).await;
        if let Some(above) = above {
            let noted = self.note_foreign_version(above);
            if let Err(error) = noted {
                tracing::error!(error = %error.report(), "cannot note the version that was met");
            }
        }
        for id in self.ids() {
            let is_failed =
                self.record_of(&id).is_none_or(|(_, live)| live.phase() == State::Failed);
            if !is_failed {
                self.start_worker(&id).await;
            }
        }
    }

    /// Makes the next start of the stream begin an epoch above `above`.
    fn note_foreign_version(&self, above: Version) -> Result<()> {
        let Some(mut record) = self.parts.state.source().get()? else { return Ok(()) };
        record.highest_version = record.highest_version.max(above.0);
        // An epoch that no checkpoint has: the next start finds that it must begin a new one.
        record.epoch = 0;
        self.parts.state.source().put(&record, true)
    }

    async fn stop_all(&self, for_good: bool) {
        let (workers, tailer) = {
            let mut run = self.run.lock().await;
            run.is_stopping = for_good;
            (std::mem::take(&mut run.workers), run.tailer.take())
        };
        for running in workers.values() {
            let _ = running.stop.send(true);
        }
        let timeout = Duration::from_millis(self.parts.link.stop_timeout_ms);
        let deadline = tokio::time::Instant::now() + timeout;
        for (id, mut running) in workers {
            if tokio::time::timeout_at(deadline, &mut running.task).await.is_err() {
                tracing::warn!(
                    link = id,
                    "was not idle in time; what is in flight will be replayed"
                );
                running.task.abort();
                let _ = running.task.await;
            }
        }
        if let Some(tailer) = tailer {
            tailer.stop().await;
        }
    }

    /// Subscribes a link to the stream, which is started if it does not run.
    pub async fn join_stream(
        self: &Arc<Self>,
        link: &str,
        table: &TableId,
        from: Option<Checkpoint>,
    ) -> Result<(Began, queue::Receiver<Vec<Item>>, String), End> {
        let room = (self.parts.memory_limit_bytes / 8).min(EVENTS_BYTES_MAX);
        let (queue, input) = queue::bounded(room);
        let (began_sender, began) = oneshot::channel();
        let server_uuid = {
            let mut run = self.run.lock().await;
            if run.tailer.as_ref().is_none_or(Tailer::has_ended) {
                let (tailer, server_uuid) = self.start_tailer().await.map_err(wait_or_fail)?;
                run.tailer = Some(tailer);
                run.server_uuid = server_uuid;
            }
            let tailer = run.tailer.as_ref().expect("it was just started");
            tailer
                .subscribe(Subscription {
                    link: link.to_owned(),
                    table: table.clone(),
                    from,
                    queue,
                    began: began_sender,
                })
                .await?;
            run.server_uuid.clone()
        };
        let ahead = |_| {
            let what = "the stream is ahead of this link's checkpoint";
            End::Again(Error::new(ErrorKind::SourceUnreachable, what))
        };
        Ok((began.await.map_err(ahead)?, input, server_uuid))
    }

    async fn start_tailer(self: &Arc<Self>) -> Result<(Tailer, String)> {
        let mut conn = control::connect(&self.parts.source).await?;
        let executed = watermark::executed(&mut conn).await?;
        let record = self.parts.state.source().get()?;
        let checkpoints = self.checkpoints()?;
        let known = record.as_ref().filter(|record| record.server_uuid == executed.server_uuid);
        let start = match known.and_then(|record| earliest(&checkpoints, Epoch(record.epoch))) {
            Some(start) => start,
            None => self.begin_epoch(&executed, record.as_ref(), &checkpoints)?,
        };
        if !executed.gtids.covers(&start.position.gtids) {
            return Err(lost_transactions(&executed.gtids, &start.position.gtids));
        }
        let epoch = start.epoch;
        metrics().source_epoch.set(epoch.0 as i64);
        let reserved = Version(self.highest_version.load(Ordering::Acquire));
        let server_uuid = executed.server_uuid.clone();
        let (state, highest) = (self.parts.state.clone(), self.highest_version.clone());
        let uuid = server_uuid.clone();
        let reserve = Box::new(move |wanted: Version| {
            let reserved = Version(wanted.0 + RESERVED_AHEAD);
            let record = SourceRecord {
                server_uuid: uuid.clone(),
                epoch: epoch.0,
                highest_version: reserved.0,
            };
            state.source().put(&record, true)?;
            highest.store(reserved.0, Ordering::Release);
            Ok(reserved)
        });
        let inner = Arc::downgrade(self);
        let report = Box::new(move |trouble: Option<String>| {
            let Some(inner) = inner.upgrade() else { return };
            for entry in lock(&inner.links).values() {
                match &trouble {
                    Some(trouble) => entry.live.wait_for(trouble.clone()),
                    None => entry.live.trouble_is_over(),
                }
            }
        });
        let durable = Durable { reserved, reserve };
        Ok((Tailer::start(self.parts.source.clone(), start, durable, report), server_uuid))
    }

    /// The checkpoints of the links that run or are about to.
    fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let mut checkpoints = Vec::new();
        for id in self.ids() {
            let is_failed =
                self.record_of(&id).is_none_or(|(_, live)| live.phase() == State::Failed);
            if is_failed {
                continue;
            }
            if let Some(record) = self.parts.state.checkpoints().get(&id)? {
                checkpoints.push(record.checkpoint);
            }
        }
        Ok(checkpoints)
    }

    fn begin_epoch(
        &self,
        executed: &watermark::Executed,
        record: Option<&SourceRecord>,
        checkpoints: &[Checkpoint],
    ) -> Result<Checkpoint> {
        let assigned =
            checkpoints.iter().map(|checkpoint| checkpoint.version().0).max().unwrap_or(0);
        let highest = record.map_or(0, |record| record.highest_version).max(assigned);
        let epoch = Epoch::begin(unix_seconds(), Version(highest));
        let new = SourceRecord {
            server_uuid: executed.server_uuid.clone(),
            epoch: epoch.0,
            highest_version: epoch.0 + RESERVED_AHEAD,
        };
        self.parts.state.source().put(&new, true)?;
        self.highest_version.store(new.highest_version, Ordering::Release);
        let gtids = match checkpoints.split_first() {
            None => executed.gtids.clone(),
            Some((first, rest)) => {
                let both = |set: GtidSet, next: &Checkpoint| set.intersection(&next.position.gtids);
                rest.iter().fold(first.position.gtids.clone(), both)
            }
        };
        tracing::info!(epoch = epoch.0, gtids = %gtids, "a new epoch begins");
        let position = Position { file: String::new(), offset: 0, gtids };
        Ok(Checkpoint { epoch, n: 0, position })
    }

    /// Stores what a link became.
    fn store_record(&self, id: &str, change: impl FnOnce(&mut LinkRecord)) {
        let record = {
            let mut links = lock(&self.links);
            let Some(entry) = links.get_mut(id) else { return };
            change(&mut entry.record);
            entry.record.updated_at = unix_seconds();
            entry.record.clone()
        };
        if let Err(error) = self.parts.state.links().put(&record) {
            tracing::error!(link = id, error = %error.report(), "cannot store the link");
        }
    }
}

fn wait_or_fail(error: Error) -> End {
    if error.remedy() == Remedy::Retry { End::Wait(error) } else { error.into() }
}

/// Wishes for a restart that may wait; one restart serves them all.
const RESTARTS_WAITING_MAX: usize = 64;

/// Versions are reserved this far ahead: 2 GiB of log for one fsync.
const RESERVED_AHEAD: u64 = 1 << 32;

/// The checkpoint at which the stream must begin for all, if they all belong to `epoch`.
fn earliest(checkpoints: &[Checkpoint], epoch: Epoch) -> Option<Checkpoint> {
    let all_belong = checkpoints.iter().all(|checkpoint| checkpoint.epoch == epoch);
    if !all_belong {
        return None;
    }
    checkpoints.iter().min_by_key(|checkpoint| checkpoint.n).cloned()
}

fn lost_transactions(executed: &GtidSet, ours: &GtidSet) -> Error {
    let _ = executed;
    Error::new(
        ErrorKind::SourceLost,
        format!("the source has not executed all transactions that were applied ({ours})"),
    )
    .with_advice("it was restored or lost a fail-over: drop the link and create it again")
}

/// Runs one link until it is stopped or fails, and says what follows.
async fn run_link(inner: Arc<Inner>, id: String, stop: watch::Receiver<bool>) {
    let Some((record, live)) = inner.record_of(&id) else { return };
    if record.state != State::Scheduled.as_str() {
        inner.store_record(&id, |record| {
            record.state = State::Scheduled.as_str().to_owned();
            record.reason = String::new();
        });
    }
    match start::run(&inner, &record, &live, stop).await {
        End::Stopped => {}
        End::Failed(error) => {
            tracing::error!(link = id, error = %error.report(), "the link has failed");
            live.fail(error.report());
            inner.store_record(&id, |record| {
                record.state = State::Failed.as_str().to_owned();
                record.reason = error.report();
            });
        }
        End::Again(error) | End::Wait(error) => {
            live.wait_for(error.report());
            inner.ask_restart(&id, &live, Restart::default());
        }
        End::NewEpoch { above, reason } => {
            tracing::error!(link = id, reason, "a new epoch begins; the index should be checked");
            live.wait_for(reason);
            inner.ask_restart(&id, &live, Restart { above: Some(above) });
        }
        End::Replaced => {
            tracing::warn!(
                link = id,
                index = record.index,
                "the index was made anew; it is filled again"
            );
            live.forget_snapshot();
            if let Err(error) = start::forget_snapshot(&inner, &id) {
                live.fail(error.report());
                return;
            }
            inner.ask_restart(&id, &live, Restart::default());
        }
    }
}

impl Inner {
    fn ask_restart(&self, id: &str, live: &Live, restart: Restart) {
        let restarts = live.count_restart();
        self.store_record(id, |record| record.restarts = restarts);
        // A full queue holds enough wishes for a restart already.
        let _ = self.restarts.try_send(restart);
    }
}

impl Control {
    /// Makes a link and starts it. Everything that can be known to be wrong is said now, all at once.
    pub async fn create(&self, spec: Spec) -> Result<Status, Vec<Error>> {
        let inner = &self.inner;
        let id = spec.id.clone().unwrap_or_else(|| spec.rules.index().to_owned());
        let table =
            spec.rules.table().cloned().ok_or_else(|| vec![Error::input("a link needs a rule")])?;
        inner.refuse_twice(&id, spec.rules.index()).map_err(|error| vec![error])?;
        let mapping = start::validate(inner, &spec, &table).await?;
        let now = unix_seconds();
        let record = LinkRecord {
            id: id.clone(),
            origin: spec.origin.as_str().to_owned(),
            statement: spec.statement,
            index: mapping.index.clone(),
            rules: rule_records(&mapping.rules),
            keys: rule_records(&mapping.keys),
            state: State::Scheduled.as_str().to_owned(),
            reason: String::new(),
            restarts: 0,
            created_at: now,
            updated_at: now,
        };
        inner.refuse_twice(&id, &record.index).map_err(|error| vec![error])?;
        inner.parts.state.links().put(&record).map_err(|error| vec![error])?;
        inner.remember(record, State::Scheduled);
        inner.start_worker(&id).await;
        tracing::info!(link = id, table = %table, "link made");
        self.status(&id).map_err(|error| vec![error])
    }

    /// Ends a link and forgets it; the index stays as it is.
    pub async fn drop_link(&self, id: &str) -> Result<()> {
        let inner = &self.inner;
        let (record, _) = inner.record_of(id).ok_or_else(|| self.unknown(id))?;
        let running = inner.run.lock().await.workers.remove(id);
        if let Some(running) = running {
            running.task.abort();
            let _ = running.task.await;
        }
        let state = &inner.parts.state;
        state.links().delete(id)?;
        state.checkpoints().delete(id)?;
        if let Some(rule) = record.rules.first() {
            state.schemas().delete(id, &TableId::new(&rule.db, &rule.table))?;
        }
        lock(&inner.links).remove(id);
        metrics().forget_link(id);
        tracing::info!(link = id, "link dropped");
        Ok(())
    }

    pub fn statuses(&self) -> Vec<Status> {
        lock(&self.inner.links).values().map(show).collect()
    }

    pub fn status(&self, id: &str) -> Result<Status> {
        // The lock is given back before `unknown` takes it again.
        let found = lock(&self.inner.links).get(id).map(show);
        found.ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: &str) -> Error {
        let ids = self.inner.ids();
        let known = if ids.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are {}", ids.join(", "))
        };
        Error::new(ErrorKind::NotFound, format!("unknown link `{id}`; {known}"))
    }

    /// Answers a request of the search node's API that concerns models and pipelines.
    pub async fn search_api(
        &self,
        method: &str,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> (u16, serde_json::Value) {
        let answer = self.inner.pipelines.handle(method, path, query, body).await;
        (answer.status, answer.body)
    }

    /// Whether every link that has not failed does its work; else what is waited for.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        let waiting: Vec<_> = self
            .statuses()
            .into_iter()
            .filter(|status| matches!(status.state, State::Recovering | State::Scheduled))
            .map(|status| format!("{}: {} {}", status.id, status.state.as_str(), status.errors))
            .collect();
        if waiting.is_empty() { Ok(()) } else { Err(waiting) }
    }

    /// Stops all links at a clean checkpoint, in bounded time.
    pub async fn shutdown(&self) {
        if let Some(keeper) = lock(&self.inner.keeper).take() {
            keeper.abort();
        }
        self.inner.stop_all(true).await;
    }
}

impl Inner {
    /// Two links must never write the same documents.
    fn refuse_twice(&self, id: &str, index: &str) -> Result<()> {
        let links = lock(&self.links);
        if links.contains_key(id) {
            return Err(Error::input(format!("a link with the id `{id}` exists already"))
                .with_advice(format!(
                    "drop it first: CALL dbms_etl.drop_sync_link_by_id('{id}')"
                )));
        }
        match links.values().find(|entry| entry.record.index == index) {
            None => Ok(()),
            Some(other) => Err(Error::input(format!(
                "the link `{}` writes index {index} already, and two links would overwrite each other's documents",
                other.record.id
            ))
            .with_advice("choose another index, or drop that link")),
        }
    }
}

fn show(entry: &Entry) -> Status {
    let record = &entry.record;
    let table = record.rules.first().map(|rule| format!("{}.{}", rule.db, rule.table));
    let mut status = Status {
        id: record.id.clone(),
        index: record.index.clone(),
        table: table.unwrap_or_default(),
        state: State::Scheduled,
        errors: String::new(),
        latency_ms: -1,
        restarts: record.restarts,
        created_at: record.created_at,
        updated_at: record.updated_at,
        snapshot: None,
        position: String::new(),
        statement: record.statement.clone(),
    };
    entry.live.show(&mut status);
    status.updated_at = status.updated_at.max(record.updated_at);
    status
}

fn rule_records(rules: &[mapping::Rule]) -> Vec<RuleRecord> {
    rules
        .iter()
        .map(|rule| RuleRecord {
            field: rule.field.clone(),
            db: rule.table.db.clone(),
            table: rule.table.name.clone(),
            column: rule.column.clone(),
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
