//! Owns the source's tailer and the links' workers: starts them, and decides what follows when one ends. Does no work on
//! rows itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::flow::budget::Budget;
use crate::link::control::Control;
use crate::link::end::End;
use crate::link::lease::Lease;
use crate::link::letters::Letters;
use crate::link::standby::{self, Waiting};
use crate::link::status::{Live, State, Status, unix_seconds};
use crate::link::upstream::Lost;
use crate::link::{Config, Origin, Overrides, PipelineMode, Spec, start, watchdog};
use crate::pipeline;
use crate::position::Version;
use crate::sink::{self, Permit, Sink};
use crate::source::places::Places;
use crate::source::server::Server;
use crate::source::tailer::Tailer;
use crate::source::{self, snapshot};
use crate::state::LinkRecord;

/// What the daemon is made of.
#[derive(Clone)]
pub struct Parts {
    pub link: Config,
    pub source: source::Config,
    pub snapshot: snapshot::Config,
    pub sink: sink::Config,
    pub pipeline: pipeline::Config,
    pub standby: standby::Config,
    /// All queues of all links together stay below this.
    pub memory_limit_bytes: usize,
    pub state: crate::state::State,
}

/// Starts what [`Control`] then steers.
pub struct Supervisor;

pub(super) struct Inner {
    pub parts: Parts,
    pub sink: Arc<dyn Sink>,
    pub pipelines: pipeline::Api,
    pub links: Mutex<BTreeMap<String, Entry>>,
    /// Links of the configuration that could not be made so far, and why.
    pub unmade: Mutex<BTreeMap<String, Status>>,
    /// Told when links that could not be made shall be tried again.
    pub resumed: Notify,
    pub run: tokio::sync::Mutex<Run>,
    /// What the links' queues may hold together.
    pub budget: Arc<Budget>,
    /// For links that follow the log by themselves.
    pub places: Places,
    /// Held while versions are reserved.
    pub reserving: Arc<Mutex<()>>,
    /// No version above this was ever given out; durable in the source's record.
    pub highest_version: Arc<AtomicU64>,
    restarts: mpsc::Sender<Restart>,
    /// How many links the configuration wants.
    pub declared: AtomicUsize,
    /// Links whose source has ended.
    pub finished: watch::Sender<BTreeSet<String>>,
    pub keeper: Mutex<Option<JoinHandle<()>>>,
    /// Links that nobody may start: the name of an index moves with them.
    pub held: Mutex<BTreeSet<String>>,
    /// Whoever begins or ends a rebuild, or moves a name, has it.
    pub moving: tokio::sync::Mutex<()>,
    /// Copies take turns in reading.
    pub copy_turns: Arc<Semaphore>,
    /// True from the moment when everything is to end for good.
    pub ending: watch::Sender<bool>,
    /// What is needed to write, where there are other daemons of this name.
    pub lease: Option<Arc<Lease>>,
    /// Another daemon runs the links, and this one waits.
    pub waiting: Mutex<Option<Waiting>>,
}

/// A link as the doors see it.
pub(super) struct Entry {
    pub record: LinkRecord,
    pub live: Arc<Live>,
    pub letters: Arc<Letters>,
}

/// What runs now.
#[derive(Default)]
pub(super) struct Run {
    pub tailer: Option<Tailer>,
    /// The one that the tailer follows.
    pub server: Option<Server>,
    /// Links whose checkpoints the source cannot be followed from, and why. It is their trouble only.
    pub lost: BTreeMap<String, Lost>,
    pub workers: BTreeMap<String, Running>,
    is_stopping: bool,
}

pub(super) struct Running {
    stop: watch::Sender<bool>,
    pub task: JoinHandle<()>,
}

/// Begin the stream again at the checkpoints; in a new epoch if `above` is given.
#[derive(Debug, Default)]
struct Restart {
    above: Option<Version>,
}

/// The version that was met is one of many: others of its epoch lie above it, by twice the bytes of log that it lasted. Were
/// the next epoch to begin among them, its reservation would take them for our own. This is for 8 TiB.
const FOREIGN_SPAN: u64 = 1 << 44;

/// Wishes for a restart that may wait; one restart serves them all.
const RESTARTS_WAITING_MAX: usize = 64;

impl Supervisor {
    /// Opens the sink, takes up the links in the state, and makes those of the configuration.
    pub fn start(parts: Parts, declared: Vec<Spec>) -> Result<Control> {
        Self::begin(parts, declared, None)
    }

    /// The same for as long as the lease is held.
    pub(super) fn lead(parts: Parts, declared: Vec<Spec>, lease: Arc<Lease>) -> Result<Control> {
        Self::begin(parts, declared, Some(lease))
    }

    /// Runs nothing, and says so.
    pub(super) fn stand_by(parts: Parts) -> Result<Control> {
        let (inner, _) = Inner::new(parts, 0, None)?;
        *lock(&inner.waiting) = Some(Waiting::default());
        Ok(Control { inner })
    }

    fn begin(parts: Parts, declared: Vec<Spec>, lease: Option<Arc<Lease>>) -> Result<Control> {
        let (inner, requests) = Inner::new(parts, declared.len(), lease)?;
        #[cfg(feature = "embedded")]
        if let Some(indexes) = inner.sink.indexes() {
            indexes.sweep()?;
        }
        for record in inner.parts.state.links().list()? {
            let is_paused = record.state == State::Paused.as_str();
            inner.remember(record, if is_paused { State::Paused } else { State::Scheduled })?;
        }
        inner.hold_moving();
        let keeper = tokio::spawn(keep(inner.clone(), requests, declared));
        *lock(&inner.keeper) = Some(keeper);
        Ok(Control { inner })
    }
}

/// Starts the links of the state and the configuration, and restarts the stream when a link asks for it.
async fn keep(inner: Arc<Inner>, mut requests: mpsc::Receiver<Restart>, declared: Vec<Spec>) {
    inner.take_up_modes(&declared);
    for spec in &declared {
        inner.adopt_overrides(spec);
    }
    inner.start_workers().await;
    // They end with this task.
    let mut beside = JoinSet::new();
    for spec in declared {
        let already = spec.id.clone().unwrap_or_else(|| spec.rules.index().to_owned());
        if inner.ids().contains(&already) {
            continue;
        }
        beside.spawn(declare(Control { inner: inner.clone() }, already, spec));
    }
    beside.spawn(Control { inner: inner.clone() }.verify_when_due());
    beside.spawn(Control { inner: inner.clone() }.retry_parked());
    beside.spawn(Control { inner: inner.clone() }.rebuild_when_asked());
    beside.spawn(watchdog::watch(inner.clone()));
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
    let unmade = |state, reason: &str| {
        let status = Status::unmade(&id, &spec, state, reason);
        lock(&control.inner.unmade).insert(id.clone(), status);
    };
    loop {
        let errors = match control.create(spec.clone()).await {
            Ok(_) => {
                lock(&control.inner.unmade).remove(&id);
                return;
            }
            Err(errors) => errors,
        };
        let reason = errors.iter().map(|error| error.report()).collect::<Vec<_>>().join("; ");
        let has_end = control.inner.parts.source.files().is_some();
        // Somebody may make the index meanwhile, or the table.
        let may_come = |error: &Error| error.kind() == ErrorKind::NotFound && !has_end;
        if errors.iter().any(|error| error.remedy() != Remedy::Retry && !may_come(error)) {
            tracing::error!(link = id, reason, "the link of the configuration cannot be made");
            let then = format!("when that is mended: RESUME LINK `{id}`, which then makes it");
            let asked = control.inner.resumed.notified();
            tokio::pin!(asked);
            asked.as_mut().enable();
            unmade(State::Failed, &format!("{reason}; {then}"));
            control.inner.finished.send_modify(|_| ());
            asked.await;
            backoff.reset();
            continue;
        }
        tracing::warn!(link = id, reason, "the link of the configuration waits");
        unmade(State::Recovering, &reason);
        tokio::time::sleep(backoff.next(None)).await;
    }
}

impl Inner {
    fn new(
        parts: Parts,
        declared: usize,
        lease: Option<Arc<Lease>>,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Restart>)> {
        let permit = lease.clone().map(|lease| lease as Arc<dyn Permit>);
        let sink = sink::build_under(&parts.sink, permit)?;
        let pipelines = pipeline::Api::new(parts.state.clone(), parts.pipeline.clone())?;
        let highest = parts.state.source().get()?.map_or(0, |record| record.highest_version);
        let (restarts, requests) = mpsc::channel(RESTARTS_WAITING_MAX);
        let inner = Self {
            sink,
            pipelines,
            links: Mutex::default(),
            unmade: Mutex::default(),
            resumed: Notify::new(),
            run: tokio::sync::Mutex::default(),
            budget: Arc::new(Budget::new(parts.memory_limit_bytes)),
            places: Places::default(),
            reserving: Arc::default(),
            highest_version: Arc::new(AtomicU64::new(highest)),
            restarts,
            declared: AtomicUsize::new(declared),
            finished: watch::Sender::default(),
            keeper: Mutex::default(),
            held: Mutex::default(),
            moving: tokio::sync::Mutex::default(),
            copy_turns: Arc::new(Semaphore::new(parts.snapshot.parallel.clamp(1, 1_024))),
            ending: watch::Sender::new(false),
            lease,
            waiting: Mutex::default(),
            parts,
        };
        Ok((Arc::new(inner), requests))
    }

    /// What the configuration says of a link that was made from it may have changed since.
    fn adopt_overrides(&self, spec: &Spec) {
        let id = spec.id.clone().unwrap_or_else(|| spec.rules.index().to_owned());
        let Some((record, _)) = self.record_of(&id) else { return };
        self.tell_other_rules(&id, &record, spec);
        let mut wanted = record.clone();
        set_overrides(&mut wanted, spec.overrides);
        if record.origin == Origin::Config.as_str() && wanted != record {
            self.store_record(&id, |record| set_overrides(record, spec.overrides));
        }
    }

    /// A link that is made keeps its rules, whatever becomes of the file.
    fn tell_other_rules(&self, id: &str, record: &LinkRecord, spec: &Spec) {
        let is_as_made = record.generation == 0 && record.origin == Origin::Config.as_str();
        if !is_as_made || record.statement == spec.statement {
            return;
        }
        let what = format!(
            "the configuration has other rules for the link than those it was made with, which it keeps: \
             REBUILD LINK `{id}` WITH MAPPING '…' gives it others, or DROP LINK `{id}` and a restart"
        );
        tracing::warn!(link = id, "{what}");
        if let Some((_, live)) = self.record_of(id) {
            live.set_note(what);
        }
    }

    pub fn ids(&self) -> Vec<String> {
        lock(&self.links).keys().cloned().collect()
    }

    pub fn remember(&self, record: LinkRecord, phase: State) -> Result<()> {
        let live = Arc::new(Live::new(&record.id, phase, record.restarts));
        live.metrics.verify_ended_at.set(record.verified.map_or(0, |verified| verified.at as i64));
        let letters = Letters::open(&self.parts.state, &record.id, &self.parts.link)?;
        let letters = Arc::new(letters);
        lock(&self.links).insert(record.id.clone(), Entry { record, live, letters });
        self.share_memory();
        Ok(())
    }

    /// Divides the memory among the links that are there or are to be made.
    pub fn share_memory(&self) {
        let declared = self.declared.load(Ordering::Relaxed);
        self.budget.set_links(lock(&self.links).len().max(declared));
    }

    pub fn letters_of(&self, id: &str) -> Option<Arc<Letters>> {
        lock(&self.links).get(id).map(|entry| entry.letters.clone())
    }

    /// Takes the pipeline modes of links that are made already from the file they came from.
    fn take_up_modes(&self, declared: &[Spec]) {
        for spec in declared {
            let id = spec.id.as_deref().unwrap_or(spec.rules.index());
            let mode = spec.pipeline_mode.map_or("", PipelineMode::as_str);
            let is_other = self.record_of(id).is_some_and(|(record, _)| {
                record.origin == Origin::Config.as_str() && record.pipeline_mode != mode
            });
            if is_other {
                self.store_record(id, |record| record.pipeline_mode = mode.to_owned());
            }
        }
    }

    pub fn record_of(&self, id: &str) -> Option<(LinkRecord, Arc<Live>)> {
        lock(&self.links).get(id).map(|entry| (entry.record.clone(), entry.live.clone()))
    }

    pub async fn start_worker(self: &Arc<Self>, id: &str) {
        let mut run = self.run.lock().await;
        let is_held = lock(&self.held).contains(id);
        let runs = run.workers.get(id).is_some_and(|running| !running.task.is_finished());
        if run.is_stopping || is_held || runs {
            return;
        }
        let (stop, stopped) = watch::channel(false);
        let (inner, link) = (self.clone(), id.to_owned());
        let task = tokio::spawn(async move {
            let run = std::panic::AssertUnwindSafe(run_link(inner.clone(), link.clone(), stopped));
            if run.catch_unwind().await.is_err() {
                inner.fail(
                    &link,
                    "a mistake of Driftless ended the link's task; see the log".into(),
                );
            }
        });
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
        self.start_workers().await;
    }

    /// Starts every link that is not at rest.
    async fn start_workers(self: &Arc<Self>) {
        for id in self.ids() {
            let rests = self.record_of(&id).is_none_or(|(_, live)| live.phase().is_at_rest());
            if !rests {
                self.start_worker(&id).await;
            }
        }
    }

    /// Stops a link's task, if it has one, at a clean checkpoint if that is there in time; says whether it was.
    pub async fn stop_worker(&self, id: &str) -> bool {
        let Some(mut running) = self.run.lock().await.workers.remove(id) else { return true };
        let _ = running.stop.send(true);
        let timeout = Duration::from_millis(self.parts.link.stop_timeout_ms);
        let is_in_time = tokio::time::timeout(timeout, &mut running.task).await.is_ok();
        if !is_in_time {
            running.task.abort();
            let _ = running.task.await;
        }
        is_in_time
    }

    /// Makes the next start of the stream begin an epoch above `above`.
    fn note_foreign_version(&self, above: Version) -> Result<()> {
        let Some(mut record) = self.parts.state.source().get()? else { return Ok(()) };
        record.highest_version = record.highest_version.max(above.0 + FOREIGN_SPAN);
        // An epoch that no checkpoint has: the next start finds that it must begin a new one.
        record.epoch = 0;
        self.parts.state.source().put(&record, true)
    }

    pub async fn stop_all(&self, for_good: bool) {
        let timeout = Duration::from_millis(self.parts.link.stop_timeout_ms);
        self.stop_all_within(for_good, timeout).await;
    }

    pub async fn stop_all_within(&self, for_good: bool, timeout: Duration) {
        let (workers, tailer) = {
            let mut run = self.run.lock().await;
            run.is_stopping = for_good;
            (std::mem::take(&mut run.workers), run.tailer.take())
        };
        for running in workers.values() {
            let _ = running.stop.send(true);
        }
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

    /// Fails a link, and says what brings it back where the error does not.
    fn fail_of(&self, id: &str, error: &Error) {
        let then = match error.kind() {
            ErrorKind::ModelAnswer | ErrorKind::ModelRefused => {
                format!("; when that is mended: RESUME LINK `{id}`")
            }
            _ => String::new(),
        };
        self.fail(id, format!("{}{then}", error.report()));
    }

    pub fn fail(&self, id: &str, reason: String) {
        if let Some((_, live)) = self.record_of(id) {
            live.fail(reason.clone());
        }
        self.store_record(id, |record| {
            record.state = State::Failed.as_str().to_owned();
            record.reason = reason;
        });
        // Whoever waits for the end looks again.
        self.finished.send_modify(|_| ());
    }

    /// Stores what a link became.
    pub fn store_record(&self, id: &str, change: impl FnOnce(&mut LinkRecord)) {
        if let Err(error) = self.change_record(id, change) {
            tracing::error!(link = id, error = %error.report(), "cannot store the link");
        }
    }

    /// The same, for those who must know whether it is stored; else nothing has changed. One at a time, so that an older
    /// record is never stored last.
    pub fn change_record(&self, id: &str, change: impl FnOnce(&mut LinkRecord)) -> Result<()> {
        let mut links = lock(&self.links);
        let Some(entry) = links.get_mut(id) else { return Ok(()) };
        let mut record = entry.record.clone();
        change(&mut record);
        record.updated_at = unix_seconds();
        self.parts.state.links().put(&record)?;
        entry.record = record;
        Ok(())
    }
}

/// Runs one link until it is stopped, fails, or concerns the others. What it can mend by beginning again at its
/// checkpoint is its own trouble.
async fn run_link(inner: Arc<Inner>, id: String, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        let began = tokio::time::Instant::now();
        if !run_once(&inner, &id, stop.clone()).await {
            return;
        }
        if began.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        let is_stopped = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(backoff.next(None), is_stopped).await.is_ok() {
            return;
        }
    }
}

/// Whether the link is to begin again.
async fn run_once(inner: &Arc<Inner>, id: &str, stop: watch::Receiver<bool>) -> bool {
    let Some((record, live)) = inner.record_of(id) else { return false };
    inner.finished.send_modify(|finished| {
        finished.remove(id);
    });
    if record.state != State::Scheduled.as_str() {
        inner.store_record(id, |record| {
            record.state = State::Scheduled.as_str().to_owned();
            record.reason = String::new();
        });
    }
    let end = tokio::select! {
        end = start::run(inner, &record, &live, stop) => end,
        () = live.given_up.notified() => watchdog::worker_stood_still(),
    };
    match end {
        End::Stopped => {}
        End::Finished => {
            tracing::info!(link = id, "everything in the log files is written");
            inner.finished.send_modify(|finished| {
                finished.insert(id.to_owned());
            });
        }
        End::Failed(error) => {
            tracing::error!(link = id, error = %error.report(), "the link has failed");
            inner.fail_of(id, &error);
        }
        End::Again(error) | End::Wait(error) => {
            tracing::warn!(link = id, reason = %error.report(), "the link begins again at its checkpoint");
            live.wait_for(error.report());
            inner.count_restart(id, &live);
            return true;
        }
        End::Rewind(error) => {
            live.wait_for(error.report());
            inner.ask_restart(id, &live, Restart::default());
        }
        End::NewEpoch { above, reason } => {
            tracing::error!(link = id, reason, "a new epoch begins; the index should be checked");
            live.wait_for(reason);
            inner.ask_restart(id, &live, Restart { above: Some(above) });
        }
        End::Replaced => {
            tracing::warn!(
                link = id,
                index = record.index,
                "the index was made anew; it is filled again"
            );
            live.forget_snapshot();
            if let Err(error) = start::forget_snapshot(inner, id) {
                live.fail(error.report());
                return false;
            }
            inner.count_restart(id, &live);
            return true;
        }
    }
    false
}

impl Inner {
    /// Has the stream begin again, under versions above all that were ever given out.
    pub fn ask_new_epoch(&self, id: &str, live: &Live) {
        let highest = Version(self.highest_version.load(Ordering::Acquire));
        self.ask_restart(id, live, Restart { above: Some(highest) });
    }

    fn count_restart(&self, id: &str, live: &Live) {
        let restarts = live.count_restart();
        self.store_record(id, |record| record.restarts = restarts);
    }

    /// Has the stream begin again at the checkpoints of all links.
    pub fn ask_new_stream(&self) {
        // A full queue holds enough wishes for a restart already.
        let _ = self.restarts.try_send(Restart::default());
    }

    fn ask_restart(&self, id: &str, live: &Live, restart: Restart) {
        self.count_restart(id, live);
        // A full queue holds enough wishes for a restart already.
        let _ = self.restarts.try_send(restart);
    }
}

pub(super) fn set_overrides(record: &mut LinkRecord, overrides: Overrides) {
    let Overrides {
        on_truncate,
        on_drop,
        add_columns,
        on_purged,
        verify_every_secs,
        verify_repair,
    } = overrides;
    record.on_truncate = on_truncate.map(|one| one.as_str().to_owned());
    record.on_drop = on_drop.map(|one| one.as_str().to_owned());
    record.add_columns = add_columns.map(|one| one.as_str().to_owned());
    record.on_purged = on_purged.map(|one| one.as_str().to_owned());
    record.verify_every_secs = verify_every_secs;
    record.verify_repair = verify_repair;
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
