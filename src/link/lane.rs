//! One lane at work: takes batches in order, has them embedded and written, and tries again for as long as waiting can
//! help. The order itself is `flow::lane`'s.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::document::{Action, Batch, DocOp, Key, KeyHasher};
use crate::error::{Error, ErrorKind, Remedy};
use crate::flow::backoff::Backoff;
use crate::flow::budget::Loan;
use crate::flow::lane::{Lane, Number};
use crate::flow::pressure::{Pressure, Turn};
use crate::flow::queue;
use crate::link::end::End;
use crate::link::letters::{Letters, PARKED, Refusal};
use crate::link::pipeline_mode::{PipelineMode, Way, not_here};
use crate::link::status::Live;
use crate::naive::{Rule, hang_if_told, is_naive};
use crate::pipeline;
use crate::position::Version;
use crate::sink::{Outcome, Sink, Target};
use crate::telemetry::metrics::metrics;

/// Where the operations of one link go.
pub(super) struct Route {
    pub sink: Arc<dyn Sink>,
    pub target: Target,
    pub way: Way,
    /// What was asked for, and `way` followed from.
    pub mode: PipelineMode,
    /// The name as the mapping has it.
    pub index: String,
    pub pipelines: pipeline::Api,
    pub live: Arc<Live>,
    pub letters: Arc<Letters>,
    /// How much is sent at once, for all lanes of the link.
    pub pressure: Pressure,
    /// `db.table`.
    pub table: String,
    /// What fails for so long while others pass is parked; zero: nothing is.
    pub park_after: Duration,
    /// What stands still for so long, beyond the time-outs of its own, is begun again.
    pub watchdog: Option<Duration>,
    /// Of one request.
    pub sink_timeout: Duration,
    pub began: Instant,
    /// When the sink has written something last, in milliseconds since `began`.
    pub passed_at_ms: AtomicU64,
    /// No version above this one was ever given out by us.
    pub highest_version: Arc<AtomicU64>,
}

impl Route {
    /// Shows how much is sent at once.
    pub fn show_pressure(&self) {
        let metrics = &self.live.metrics;
        metrics.sink_concurrency.set(self.pressure.requests() as i64);
        let bytes = self.pressure.bytes().min(self.sink.bulk_bytes());
        metrics.sink_bulk_bytes.set(bytes as i64);
    }
}

/// What a lane's task and the worker share.
pub(super) struct Shared {
    lane: Mutex<Lane>,
    /// Every batch up to this number is acknowledged.
    done: AtomicU64,
    /// Told whenever `done` grows or the lane becomes idle; one for all lanes of a link.
    progress: Arc<Notify>,
}

impl Shared {
    pub fn new(in_flight_max: usize, progress: Arc<Notify>) -> Self {
        Self { lane: Mutex::new(Lane::new(in_flight_max)), done: AtomicU64::new(0), progress }
    }

    pub fn done(&self) -> Number {
        self.done.load(Ordering::Acquire)
    }

    pub fn is_idle(&self) -> bool {
        self.lane().is_idle()
    }

    pub fn queued_bytes(&self) -> usize {
        self.lane().queued_bytes()
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_wanted(&self, op: &DocOp<'_>) -> bool {
        self.lane().is_wanted(op)
    }
}

/// A batch on its way to its lane.
pub(super) struct Sent {
    pub number: Number,
    pub batch: Batch,
    /// What it holds beyond the link's own share; kept until it is acknowledged.
    pub loan: Option<Loan>,
}

/// Runs until the queue is closed and everything is acknowledged, or until something fails for good. Up to
/// `look_ahead_bytes` of batches (and the one that goes beyond) are taken out of the queue before they can be sent, to
/// see which waiting operations are superseded.
pub(super) async fn run(
    route: Arc<Route>,
    shared: Arc<Shared>,
    mut input: queue::Receiver<Sent>,
    look_ahead_bytes: usize,
) -> Result<(), End> {
    let mut in_flight = FuturesUnordered::new();
    let mut is_open = true;
    let mut loans: HashMap<Number, Loan> = HashMap::new();
    loop {
        loop {
            let next = shared.lane().take();
            let Some((number, batch)) = next else { break };
            in_flight.push(deliver(&route, &shared, number, batch));
        }
        if !is_open && in_flight.is_empty() {
            return Ok(());
        }
        let has_room = shared.lane().queued_bytes() < look_ahead_bytes;
        tokio::select! {
            item = input.recv(), if is_open && has_room => match item {
                Some(Sent { number, batch, loan }) => {
                    loans.extend(loan.map(|loan| (number, loan)));
                    shared.lane().push(number, batch);
                }
                None => is_open = false,
            },
            Some(delivered) = in_flight.next(), if !in_flight.is_empty() => {
                let (number, keys): (Number, Vec<Key>) = delivered?;
                loans.remove(&number);
                let done = shared.lane().finish(number, keys);
                shared.done.store(done, Ordering::Release);
                shared.progress.notify_one();
            }
        }
    }
}

/// Embeds and writes one batch until every operation in it is acknowledged or superseded.
async fn deliver(
    route: &Route,
    shared: &Shared,
    number: Number,
    batch: Batch,
) -> Result<(Number, Vec<Key>), End> {
    let keys = batch.iter().map(|op| op.key).collect();
    let mut left = Left::new(embed(route, shared, batch).await?);
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut had_trouble = false;
    loop {
        shared.lane().keep_wanted(&mut left.batch);
        if left.batch.is_empty() {
            if had_trouble {
                route.live.trouble_is_over();
            }
            return Ok((number, keys));
        }
        let Some(turn) = route.pressure.try_turn() else {
            drop(route.pressure.turn().await);
            continue;
        };
        let part = left.part(route.pressure.bytes_if_less());
        let sent = part.as_ref().unwrap_or(&left.batch);
        let bytes = sent.size_bytes() as i64;
        route.live.metrics.sink_bulks.inc();
        route.live.metrics.sink_inflight_bytes.add(bytes);
        let written = write_watched(route, sent).await;
        route.live.metrics.sink_inflight_bytes.sub(bytes);
        let written = written?;
        let tried = left.from..left.from + sent.len();
        let trouble = match written {
            Ok(outcomes) => take_out_acknowledged(route, &mut left, tried, outcomes)?,
            Err(error) if error.remedy() == Remedy::Retry => {
                left.from = tried.end;
                Some(Trouble::of(&error))
            }
            Err(error) => return Err(error.into()),
        };
        learn(route, turn, trouble.as_ref());
        let Some(trouble) = trouble else { continue };
        had_trouble = true;
        route.live.metrics.sink_retries.inc();
        let wait = backoff.next(trouble.retry_after);
        if trouble.retry_after.is_some() {
            route.pressure.hold(wait);
        }
        tracing::warn!(
            index = route.index,
            reason = trouble.reason,
            retry_in_ms = wait.as_millis() as u64,
            "cannot write"
        );
        route.live.wait_for(trouble.reason);
        tokio::time::sleep(wait).await;
        if trouble.kind == ErrorKind::SinkBlocked {
            check_target(route).await?;
        }
    }
}

/// Writes, but not for longer than the sink can take with all of its own time-outs: what does not come back then never
/// will, and the checkpoint with it.
async fn write_watched(route: &Route, sent: &Batch) -> Result<Written, End> {
    let writing = async {
        hang_if_told("lane").await;
        route.sink.write(&route.target, sent).await
    };
    let Some(watchdog) = route.watchdog else { return Ok(writing.await) };
    // Each part of a batch has the time-out for itself; no part has fewer than 50 documents but for its bytes.
    let parts = (2 + sent.len() / 50).max(sent.size_bytes() / route.sink.bulk_bytes());
    let patience = watchdog + route.sink_timeout * u32::try_from(parts).unwrap_or(u32::MAX);
    match tokio::time::timeout(patience, writing).await {
        Ok(written) => Ok(written),
        Err(_) => {
            metrics().watchdog_restarted("lane");
            let what = format!(
                "the watchdog begins the link again: one of its lanes stood still for {} s in a write to the sink",
                patience.as_secs()
            );
            Err(End::Again(Error::new(ErrorKind::SinkBusy, what)))
        }
    }
}

type Written = crate::error::Result<Vec<Outcome>>;

/// Why operations must be tried again.
struct Trouble {
    kind: ErrorKind,
    reason: String,
    /// The sink has too much to do.
    is_overload: bool,
    /// Its own wish.
    retry_after: Option<Duration>,
}

impl Trouble {
    fn new(kind: ErrorKind, reason: &str) -> Self {
        Self { kind, reason: reason.to_owned(), is_overload: false, retry_after: None }
    }

    fn of(error: &Error) -> Self {
        let (is_overload, retry_after) = (error.is_overload(), error.retry_after());
        Self { is_overload, retry_after, ..Self::new(error.kind(), &error.report()) }
    }
}

/// What of a batch is to be written.
struct Left {
    batch: Batch,
    /// Where the next request begins, if not everything fits into one.
    from: usize,
    /// Operations that the sink could not write while it answered, and since when.
    failing: HashMap<Key, Instant, KeyHasher>,
}

impl Left {
    fn new(batch: Batch) -> Self {
        Self { batch, from: 0, failing: HashMap::default() }
    }

    /// The operations from `from` on that fit into one request of so many bytes, one at least; `None` where that is all
    /// of them. Only a sink that is sent less than was configured has a batch cut, for that copies it.
    fn part(&mut self, bytes: Option<usize>) -> Option<Batch> {
        let is_larger = |bytes: &usize| self.from > 0 || self.batch.size_bytes() > *bytes;
        let Some(bytes) = bytes.filter(is_larger) else {
            self.from = 0;
            return None;
        };
        if self.from >= self.batch.len() {
            self.from = 0;
        }
        let mut part = Batch::default();
        for op in self.batch.iter().skip(self.from) {
            if !part.is_empty() && part.size_bytes() + op.id.len() + op.body.len() > bytes {
                break;
            }
            match op.action {
                Action::Upsert => part.upsert(op.id, op.key, op.version, op.body),
                Action::Delete => part.delete(op.id, op.key, op.version),
            }
        }
        Some(part)
    }
}

/// What a request's end says of how much the sink can take.
fn learn(route: &Route, turn: Turn<'_>, trouble: Option<&Trouble>) {
    match trouble {
        None => turn.went_well(),
        Some(trouble) if trouble.is_overload => turn.was_too_much(),
        // A sink that is away or blocked says nothing of that.
        Some(_) => drop(turn),
    }
    route.show_pressure();
}

/// A wait that is longer than an embedding usually takes is shown in the link's status.
const WORTH_SAYING: Duration = Duration::from_secs(2);

async fn embed(route: &Route, shared: &Shared, batch: Batch) -> Result<Batch, End> {
    let Way::Emulated(name) = &route.way else { return Ok(batch) };
    if batch.is_empty() {
        return Ok(batch);
    }
    let pipeline = route.pipelines.pipeline(name).ok_or_else(|| withdrawn(route, name))?;
    let wanted = |op: &DocOp<'_>| shared.is_wanted(op);
    let run = pipeline.run_apart(&batch, &route.target.dimensions, &wanted);
    tokio::pin!(run);
    let mut has_waited = false;
    let embedded = loop {
        tokio::select! {
            biased;
            embedded = &mut run => break embedded?,
            () = tokio::time::sleep(WORTH_SAYING) => {
                has_waited = true;
                route.live.wait_for(format!("waits for the model behind pipeline {name}; the log says why"));
            }
        }
    };
    if has_waited {
        route.live.trouble_is_over();
    }
    for refused in embedded.refused {
        if let Some(op) = batch.get(refused.at).filter(wanted) {
            keep_unembedded(route, &op, refused.why)?;
        }
    }
    Ok(embedded.batch)
}

/// A document that the pipeline, or the model behind it, refuses while it takes others becomes a dead letter.
fn keep_unembedded(route: &Route, op: &DocOp<'_>, why: Error) -> Result<(), End> {
    let stage = if why.kind() == ErrorKind::ModelRefused { "model" } else { "pipeline" };
    route.live.metrics.documents_refused.inc();
    match keep_letter(route, stage, op, &why.report())? {
        true => Ok(()),
        false => Err(End::Failed(route.letters.too_many(why))),
    }
}

/// The pipeline was deleted here while the link ran. Where nobody has said that we must run it, the cluster may have it.
fn withdrawn(route: &Route, name: &str) -> End {
    let error = not_here(&route.index, name);
    match route.mode {
        PipelineMode::Auto => End::Again(error),
        PipelineMode::Emulate | PipelineMode::Delegate => error.into(),
    }
}

/// Leaves in `left` what must be tried again, and says why. `outcomes` are those of the operations `tried`; the next
/// request begins behind what is left of these.
fn take_out_acknowledged(
    route: &Route,
    left: &mut Left,
    tried: Range<usize>,
    outcomes: Vec<Outcome>,
) -> Result<Option<Trouble>, End> {
    let mut trouble: Option<Trouble> = None;
    let mut at = 0;
    let Left { batch, from: next, failing } = left;
    *next = tried.start;
    let mut failure = None;
    let mut done = 0;
    batch.retain(|op| {
        at += 1;
        if !tried.contains(&(at - 1)) {
            return true;
        }
        let is_left = match outcomes.get(at - 1 - tried.start) {
            Some(Outcome::Done) => {
                done += 1;
                keep_failure(&mut failure, route.letters.acknowledged(&op));
                false
            }
            Some(Outcome::Conflict { current }) if is_ours(route, *current) => {
                route.live.metrics.documents_conflict.inc();
                keep_failure(&mut failure, route.letters.acknowledged(&op));
                false
            }
            Some(Outcome::Conflict { current }) => {
                failure.get_or_insert_with(|| foreign(route, op.id, *current));
                true
            }
            Some(Outcome::Refused { reason }) => {
                route.live.metrics.documents_refused.inc();
                match keep_letter(route, "sink", &op, reason) {
                    Ok(true) => false,
                    Ok(false) => {
                        failure.get_or_insert_with(|| refused(route, op.id, reason));
                        true
                    }
                    Err(error) => {
                        keep_failure(&mut failure, Err(error));
                        true
                    }
                }
            }
            Some(Outcome::Blocked { reason }) => {
                trouble = Some(Trouble::new(ErrorKind::SinkBlocked, reason));
                true
            }
            Some(Outcome::Retry { reason } | Outcome::Overloaded { reason, .. })
                if is_to_be_parked(route, failing, op.key) =>
            {
                match keep_letter(route, PARKED, &op, reason) {
                    Ok(true) => false,
                    Ok(false) => {
                        trouble.get_or_insert_with(|| Trouble::new(ErrorKind::SinkBusy, reason));
                        true
                    }
                    Err(error) => {
                        keep_failure(&mut failure, Err(error));
                        true
                    }
                }
            }
            Some(Outcome::Overloaded { reason, retry_after }) => {
                let found =
                    trouble.get_or_insert_with(|| Trouble::new(ErrorKind::SinkBusy, reason));
                found.is_overload = true;
                found.retry_after = found.retry_after.max(*retry_after);
                true
            }
            Some(Outcome::Retry { reason }) => {
                trouble.get_or_insert_with(|| Trouble::new(ErrorKind::SinkBusy, reason));
                true
            }
            None => {
                let reason = "the sink's answer left a document out";
                trouble.get_or_insert_with(|| Trouble::new(ErrorKind::SinkBusy, reason));
                true
            }
        };
        *next += usize::from(is_left);
        is_left
    });
    if done > 0 {
        route.live.metrics.documents_done.inc_by(done);
        route.passed_at_ms.store(route.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(trouble),
    }
}

/// False where there are too many.
fn keep_letter(
    route: &Route,
    stage: &'static str,
    op: &DocOp<'_>,
    reason: &str,
) -> crate::error::Result<bool> {
    route.letters.keep(&Refusal {
        stage,
        action: op.action,
        document: op.id,
        key: op.key,
        version: op.version,
        reason,
        table: &route.table,
        behind: route.live.position(),
        body: op.body,
    })
}

/// Whether an operation that could not be written has failed for long enough while others were written, to the end. One of a
/// document that is parked already has.
fn is_to_be_parked(
    route: &Route,
    failing: &mut HashMap<Key, Instant, KeyHasher>,
    key: Key,
) -> bool {
    let since = *failing.entry(key).or_insert_with(Instant::now);
    if route.park_after.is_zero() {
        return false;
    }
    let passed_at = route.began + Duration::from_millis(route.passed_at_ms.load(Ordering::Relaxed));
    let others_pass = passed_at >= since + route.park_after / 2;
    (since.elapsed() >= route.park_after && others_pass) || route.letters.is_parked(key)
}

fn keep_failure(failure: &mut Option<End>, result: crate::error::Result<()>) {
    if let Err(error) = result {
        failure.get_or_insert_with(|| error.into());
    }
}

/// A conflict means success only where the stored version can be one of ours; above all that we ever gave out it is
/// a foreign writer's, or that of a life whose state is lost.
fn is_ours(route: &Route, current: Version) -> bool {
    is_naive(Rule::Conflicts) || current.0 <= route.highest_version.load(Ordering::Acquire)
}

fn foreign(route: &Route, id: &str, current: Version) -> End {
    let reason = format!(
        "document {id} of {} holds version {current}, which this daemon never gave out: another writer fills the \
         index, or the state directory was lost",
        route.index
    );
    End::NewEpoch { above: current, reason }
}

fn refused(route: &Route, id: &str, reason: &str) -> End {
    let message = format!("{} refuses document {id}: {reason}", route.index);
    let advice = match route.way {
        Way::Delegated(_) => {
            "mend the row, the index's mapping or the cluster's pipeline, or let Driftless run the pipeline (pipeline_mode \
             `emulate`, where a blank text gets no vector), then RESUME LINK"
        }
        Way::Plain | Way::Emulated(_) => "mend the row or the index's mapping, then RESUME LINK",
    };
    let refusal = Error::new(ErrorKind::DocumentRefused, message).with_advice(advice);
    End::Failed(route.letters.too_many(refusal))
}

/// Something in the sink must be mended by somebody: looks whether it is, and whether it is still the same index.
async fn check_target(route: &Route) -> Result<(), End> {
    match route.sink.prepare(&route.index).await {
        Ok(target) if target.uuid != route.target.uuid => Err(End::Replaced),
        Ok(target) if target.default_pipeline != route.target.default_pipeline => {
            let what = format!("the default pipeline of index {} is another one now", route.index);
            Err(End::Again(Error::new(ErrorKind::SinkBlocked, what)))
        }
        Ok(_) => Ok(()),
        Err(error) => {
            route.live.wait_for(error.report());
            Ok(())
        }
    }
}
