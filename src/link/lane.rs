//! One lane at work: takes batches in order, has them embedded and written, and tries again for as long as waiting can
//! help. The order itself is `flow::lane`'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::document::{Batch, DocOp, Key};
use crate::error::{Error, ErrorKind, Remedy};
use crate::flow::backoff::Backoff;
use crate::flow::lane::{Lane, Number};
use crate::flow::queue;
use crate::link::end::End;
use crate::link::letters::{Letters, Refusal};
use crate::link::pipeline_mode::{PipelineMode, Way, not_here};
use crate::link::status::Live;
use crate::naive::{Rule, is_naive};
use crate::pipeline;
use crate::position::Version;
use crate::sink::{Outcome, Sink, Target};

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
    /// `db.table`.
    pub table: String,
    /// No version above this one was ever given out by us.
    pub highest_version: Arc<AtomicU64>,
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

/// Runs until the queue is closed and everything is acknowledged, or until something fails for good. Up to
/// `look_ahead_bytes` of batches (and the one that goes beyond) are taken out of the queue before they can be sent, to
/// see which waiting operations are superseded.
pub(super) async fn run(
    route: Arc<Route>,
    shared: Arc<Shared>,
    mut input: queue::Receiver<(Number, Batch)>,
    look_ahead_bytes: usize,
) -> Result<(), End> {
    let mut in_flight = FuturesUnordered::new();
    let mut is_open = true;
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
                Some((number, batch)) => shared.lane().push(number, batch),
                None => is_open = false,
            },
            Some(delivered) = in_flight.next(), if !in_flight.is_empty() => {
                let (number, keys): (Number, Vec<Key>) = delivered?;
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
    let mut left = embed(route, shared, batch).await?;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut had_trouble = false;
    loop {
        shared.lane().keep_wanted(&mut left);
        if left.is_empty() {
            if had_trouble {
                route.live.trouble_is_over();
            }
            return Ok((number, keys));
        }
        let bytes = left.size_bytes() as i64;
        route.live.metrics.sink_bulks.inc();
        route.live.metrics.sink_inflight_bytes.add(bytes);
        let written = route.sink.write(&route.target, &left).await;
        route.live.metrics.sink_inflight_bytes.sub(bytes);
        let trouble = match written {
            Ok(outcomes) => take_out_acknowledged(route, &mut left, outcomes)?,
            Err(error) if error.remedy() == Remedy::Retry => Some((error.kind(), error.report())),
            Err(error) => return Err(error.into()),
        };
        let Some((kind, reason)) = trouble else { continue };
        had_trouble = true;
        route.live.metrics.sink_retries.inc();
        let wait = backoff.next(None);
        tracing::warn!(
            index = route.index,
            reason,
            retry_in_ms = wait.as_millis() as u64,
            "cannot write"
        );
        route.live.wait_for(reason);
        tokio::time::sleep(wait).await;
        if kind == ErrorKind::SinkBlocked {
            check_target(route).await?;
        }
    }
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
    let run = pipeline.run(&batch, &route.target.dimensions, &wanted);
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
    Ok(embedded)
}

/// The pipeline was deleted here while the link ran. Where nobody has said that we must run it, the cluster may have it.
fn withdrawn(route: &Route, name: &str) -> End {
    let error = not_here(&route.index, name);
    match route.mode {
        PipelineMode::Auto => End::Again(error),
        PipelineMode::Emulate | PipelineMode::Delegate => error.into(),
    }
}

/// Leaves in `left` what must be tried again, and says why.
fn take_out_acknowledged(
    route: &Route,
    left: &mut Batch,
    outcomes: Vec<Outcome>,
) -> Result<Option<(ErrorKind, String)>, End> {
    let mut trouble = None;
    let mut at = 0;
    let mut failure = None;
    let mut done = 0;
    left.retain(|op| {
        let outcome = outcomes.get(at);
        at += 1;
        match outcome {
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
                let refusal = Refusal {
                    stage: "sink",
                    action: op.action,
                    document: op.id,
                    key: op.key,
                    version: op.version,
                    reason,
                    table: &route.table,
                    behind: route.live.position(),
                    body: op.body,
                };
                match route.letters.keep(&refusal) {
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
                trouble = Some((ErrorKind::SinkBlocked, reason.clone()));
                true
            }
            Some(Outcome::Retry { reason }) => {
                trouble.get_or_insert_with(|| (ErrorKind::SinkBusy, reason.clone()));
                true
            }
            None => {
                let reason = "the sink's answer left a document out".to_owned();
                trouble.get_or_insert((ErrorKind::SinkBusy, reason));
                true
            }
        }
    });
    route.live.metrics.documents_done.inc_by(done);
    match failure {
        Some(error) => Err(error),
        None => Ok(trouble),
    }
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
