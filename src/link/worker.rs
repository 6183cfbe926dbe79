//! One link's run: takes the stream's items in order, decodes and maps them into the lanes, copies the table in windows
//! between them, and writes the checkpoint behind what the lanes acknowledged.
//!
//! Why a checkpoint never passes an unacknowledged change: a mark is noted at a boundary, after everything before it
//! was put into the lanes, and comes out of [`Acks`] only when all lanes have acknowledged that much. A chunk's progress
//! is part of a mark that is noted after the chunk's rows were put into the lanes, so both are stored by one write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::change::{Change, ChangeKind};
use crate::document::{Action, DocOp, IdHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::acks::Acks;
use crate::flow::queue;
use crate::link::copy::{Copier, Reply, Request};
use crate::link::end::End;
use crate::link::lanes::Lanes;
use crate::link::status::{Live, State, unix_millis};
use crate::mapping;
use crate::naive::{Rule, is_naive};
use crate::position::{Checkpoint, GtidSet};
use crate::source::binlog::event::RowsEvent;
use crate::source::binlog::rows;
use crate::source::snapshot::window::Window;
use crate::source::snapshot::{self, chunk};
use crate::source::stream::{Began, Ddl, Item, Rows};
use crate::state::{self, CheckpointRecord, SnapshotRecord};
use crate::table::TableDef;

/// What a worker is started with.
pub(super) struct Setup {
    pub link: String,
    pub def: Arc<TableDef>,
    pub plan: mapping::Plan,
    pub began: Began,
    /// Items that were taken out of the queue already.
    pub first: Vec<Item>,
    pub snapshot: SnapshotRecord,
    pub index_uuid: String,
    pub state: state::State,
    pub live: Arc<Live>,
    pub input: queue::Receiver<Vec<Item>>,
    pub lanes: Lanes,
    pub copier: Option<Copier>,
    pub snapshot_config: snapshot::Config,
    /// The `_id` is made of the primary key, not of another unique one.
    pub id_is_primary_key: bool,
    pub checkpoint_interval: Duration,
    pub stop: watch::Receiver<bool>,
}

/// Everything up to a boundary, and how far the snapshot was then.
struct Mark {
    checkpoint: Arc<Checkpoint>,
    snapshot: SnapshotRecord,
    /// Commit time of the first change since the mark before, in microseconds since 1970.
    first_commit_us: Option<u64>,
}

pub(super) struct Worker {
    setup: Setup,
    decoder: Decoder,
    acks: Acks<Mark>,
    /// The last boundary that was taken in.
    at: Arc<Checkpoint>,
    /// Nothing was taken in since `at`.
    is_at_boundary: bool,
    /// Commit time of the first change since the newest mark.
    first_commit_us: Option<u64>,
    copying: Copying,
    snapshot: SnapshotRecord,
    size: chunk::Size,
    acked: Option<Mark>,
    /// The snapshot's last row is in the index.
    snapshot_is_acked: bool,
    snapshot_logged: Instant,
}

/// A busy lane is shown what waits for it this often.
const SHOW_INTERVAL: Duration = Duration::from_millis(100);

/// Where the snapshot stands.
enum Copying {
    /// Waits for a boundary to ask the next thing at.
    Ready,
    AskedForBounds,
    /// The window is open, the chunk is being read.
    Reading(Window),
    /// The chunk was read; its rows wait until the stream has covered what was executed by then.
    Covering {
        window: Window,
        chunk: snapshot::scan::Chunk,
        executed: GtidSet,
    },
    Done,
}

/// Buffers of decoding and mapping, used again and again.
#[derive(Default)]
struct Decoder {
    plan: Option<(Arc<crate::source::binlog::TableMap>, rows::Plan)>,
    scratch: mapping::Scratch,
    id: String,
}

impl Worker {
    pub fn new(setup: Setup) -> Self {
        let copying = if setup.snapshot.done { Copying::Done } else { Copying::Ready };
        Self {
            decoder: Decoder::default(),
            acks: Acks::default(),
            at: setup.began.checkpoint.clone(),
            is_at_boundary: setup.began.is_exact,
            first_commit_us: None,
            copying,
            snapshot: setup.snapshot.clone(),
            size: chunk::Size::new(&setup.snapshot_config),
            acked: None,
            snapshot_is_acked: setup.snapshot.done,
            snapshot_logged: Instant::now(),
            setup,
        }
    }

    /// Runs the link until it must end, and leaves a checkpoint behind in every case but a hard failure of the sink.
    pub async fn run(mut self) -> End {
        let end = match self.work().await {
            Ok(end) => end,
            Err(End::Stopped) => self.setup.lanes.why_closed().await,
            Err(end) => end,
        };
        let is_clean = matches!(end, End::Stopped)
            || matches!(&end, End::Failed(error) if is_of_the_source(error));
        if is_clean && let Err(other) = self.setup.lanes.drain().await {
            tracing::warn!(link = self.setup.link, end = ?other, "the last writes were not acknowledged");
        }
        self.take_acks();
        if let Err(error) = self.write_checkpoint(true) {
            tracing::error!(link = self.setup.link, error = %error.report(), "the last checkpoint was not written");
        }
        self.setup.lanes.abort().await;
        end
    }

    async fn work(&mut self) -> Result<End, End> {
        let mut checkpoint_due = tokio::time::interval(self.setup.checkpoint_interval);
        checkpoint_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut show_due = tokio::time::interval(SHOW_INTERVAL);
        show_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.setup.stop.clone();
        if self.is_at_boundary {
            self.note_mark();
        }
        self.ask_next().await?;
        for item in std::mem::take(&mut self.setup.first) {
            self.take_item(item).await?;
        }
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(End::Stopped),
                _ = checkpoint_due.tick() => {
                    self.take_acks();
                    self.write_checkpoint(false)?;
                }
                progress = self.setup.lanes.progress() => {
                    progress?;
                    self.take_acks();
                    self.setup.lanes.send_to_idle().await?;
                }
                _ = show_due.tick() => {
                    self.take_acks();
                    self.show_queues();
                    self.setup.lanes.show_to_busy()?;
                }
                reply = reply_of(&mut self.setup.copier) => self.take_reply(reply).await?,
                items = self.setup.input.recv() => {
                    let items = items.ok_or_else(|| Error::new(ErrorKind::SourceUnreachable, "the tailer has ended"))?;
                    for item in items {
                        self.take_item(item).await?;
                    }
                    self.setup.lanes.send_to_idle().await?;
                }
            }
        }
    }

    async fn take_item(&mut self, item: Item) -> Result<(), End> {
        match item {
            Item::Rows(rows) => self.take_rows(&rows).await,
            Item::Boundary(boundary) => {
                self.at = boundary;
                self.is_at_boundary = true;
                self.note_mark();
                self.at_boundary().await
            }
            Item::Ddl(ddl) => self.take_ddl(&ddl),
            Item::Unfollowable(error) => Err(End::Failed(error)),
            Item::Broken(error) => Err(broken(&error)),
        }
    }

    fn take_ddl(&mut self, ddl: &Ddl) -> Result<(), End> {
        // An index that goes may be the key that proves the `_id`s; the primary key can't go unseen.
        let is_harmless = !ddl.changes_columns && self.setup.id_is_primary_key;
        if is_harmless || is_naive(Rule::Definitions) {
            tracing::info!(
                link = self.setup.link,
                statement = ddl.statement,
                "DDL leaves the mapping as it is"
            );
            return Ok(());
        }
        let error = Error::new(
            ErrorKind::Schema,
            format!("{} was changed by: {}", self.setup.def.id, ddl.statement.trim()),
        )
        .with_advice("drop the link and create it again for the table as it is now");
        Err(End::Failed(error))
    }

    async fn take_rows(&mut self, rows: &Rows) -> Result<(), End> {
        self.is_at_boundary = false;
        self.first_commit_us.get_or_insert(rows.committed_at_us);
        let is_known = matches!(&self.decoder.plan, Some((map, _)) if Arc::ptr_eq(map, &rows.map));
        if !is_known {
            let plan = rows::Plan::new(&self.setup.def, self.setup.plan.wanted(), &rows.map)?;
            self.decoder.plan = Some((rows.map.clone(), plan));
        }
        let (_, plan) = self.decoder.plan.as_ref().expect("it was just made");
        let mut reader = rows::Reader::new(&RowsEvent::read(&rows.event)?, plan)?;
        let mut change = Change::reusable(ChangeKind::Insert);
        let epoch = self.at.epoch;
        let mut count = 0;
        while reader.next(&mut change)? {
            count += 1;
            let lanes = &mut self.setup.lanes;
            if let Some(window) = self.copying.window() {
                record(window, &self.setup.plan, &change, &mut self.decoder.id)?;
            }
            let version = |offset| epoch.version(rows.n, offset);
            self.setup
                .plan
                .apply(&change, version, &mut self.decoder.scratch, &mut |op| lanes.put(op))?;
            if lanes.any_is_full() {
                lanes.send_full().await?;
            }
        }
        // All rows of an event are of one kind.
        let metrics = &self.setup.live.metrics;
        match change.kind {
            ChangeKind::Insert => metrics.rows_insert.inc_by(count),
            ChangeKind::Update => metrics.rows_update.inc_by(count),
            ChangeKind::Delete => metrics.rows_delete.inc_by(count),
        }
        Ok(())
    }

    /// Everything up to `at` is in the lanes: once they have acknowledged it, it can be a checkpoint.
    fn note_mark(&mut self) {
        let reached = self.setup.lanes.reached();
        let first_commit_us = self.first_commit_us.take();
        let (checkpoint, snapshot) = (self.at.clone(), self.snapshot.clone());
        let merged = self.acks.replace_newest(
            |newest| {
                newest.checkpoint = checkpoint.clone();
                newest.snapshot = snapshot.clone();
                newest.first_commit_us = newest.first_commit_us.or(first_commit_us);
                true
            },
            &reached,
        );
        if !merged {
            self.acks.note(Mark { checkpoint, snapshot, first_commit_us }, reached);
        }
    }

    fn show_queues(&self) {
        let metrics = &self.setup.live.metrics;
        metrics.queue_events_bytes.set(self.setup.input.bytes() as i64);
        metrics.queue_lanes_bytes.set(self.setup.lanes.waiting_bytes() as i64);
    }

    fn take_acks(&mut self) {
        let done = self.setup.lanes.done();
        if let Some(mark) = self.acks.take_done(&done) {
            self.snapshot_is_acked = mark.snapshot.done;
            self.acked = Some(mark);
        }
        let oldest =
            self.acks.iter().find_map(|mark| mark.first_commit_us).or(self.first_commit_us);
        let lag_ms = oldest.map_or(0, |us| (unix_millis() - (us / 1_000) as i64).max(0));
        if self.snapshot_is_acked {
            self.setup.live.set_lag_ms(lag_ms);
            let phase = self.setup.live.phase();
            let is_near = lag_ms < 1_000;
            if phase != State::Failed && (is_near || phase != State::Running) {
                self.setup.live.set_phase(if is_near { State::Running } else { State::CatchingUp });
            }
        } else {
            self.setup.live.set_phase(State::Snapshotting);
        }
    }

    /// Not fsynced but at the end: what a power failure takes away is replayed.
    fn write_checkpoint(&mut self, sync: bool) -> Result<()> {
        let Some(mark) = self.acked.take() else { return Ok(()) };
        let record = CheckpointRecord {
            checkpoint: (*mark.checkpoint).clone(),
            snapshot: Some(mark.snapshot),
            index_uuid: self.setup.index_uuid.clone(),
        };
        self.setup.state.checkpoints().put(&self.setup.link, &record, sync)?;
        self.setup.live.metrics.checkpoint_written();
        self.setup.live.set_position(record.checkpoint.position.to_string());
        Ok(())
    }

    /// The snapshot's next step, at a boundary with nothing behind it.
    async fn at_boundary(&mut self) -> Result<(), End> {
        match &self.copying {
            Copying::Ready => self.ask_next().await,
            Copying::Covering { window, executed, .. }
                if window.is_covered(executed, &self.at.position.gtids) =>
            {
                self.write_chunk().await
            }
            Copying::AskedForBounds
            | Copying::Reading(_)
            | Copying::Covering { .. }
            | Copying::Done => Ok(()),
        }
    }

    async fn ask_next(&mut self) -> Result<(), End> {
        let (Copying::Ready, true, Some(copier)) =
            (&self.copying, self.is_at_boundary, &self.setup.copier)
        else {
            return Ok(());
        };
        let delivered = self.at.position.gtids.clone();
        let Some(until) = self.snapshot.until.clone() else {
            copier.ask(Request::Bounds { delivered }).await?;
            self.copying = Copying::AskedForBounds;
            return Ok(());
        };
        let window = Window::open(delivered, self.setup.snapshot_config.recorded_bytes);
        let delivered = window.must_be_executed().clone();
        let (after, rows_max) = (self.snapshot.after.clone(), self.size.rows());
        copier.ask(Request::Chunk { delivered, after, until, rows_max }).await?;
        self.copying = Copying::Reading(window);
        Ok(())
    }

    async fn take_reply(&mut self, reply: Reply) -> Result<(), End> {
        match (reply, std::mem::replace(&mut self.copying, Copying::Ready)) {
            (Reply::Failed(error), _) => return Err(error.into()),
            (Reply::Bounds { until, rows_total }, _) => {
                self.snapshot.done = until.is_none();
                self.snapshot.until = until;
                self.snapshot.rows_total = rows_total;
                self.setup.live.set_snapshot(self.snapshot.rows, rows_total);
                if self.snapshot.done {
                    self.finish_snapshot();
                }
            }
            (Reply::Chunk { chunk, executed }, Copying::Reading(window)) => {
                if window.has_overflowed() {
                    self.size.halve();
                } else {
                    self.size.learn(chunk.len(), chunk.elapsed, chunk.bytes);
                    let is_covered = window.is_covered(&executed, &self.at.position.gtids);
                    self.copying = Copying::Covering { window, chunk, executed };
                    if is_covered {
                        return self.write_chunk().await;
                    }
                    return Ok(());
                }
            }
            (Reply::Chunk { .. }, other) => self.copying = other,
        }
        self.ask_next().await
    }

    /// Puts the chunk's rows into the lanes, but for those that changed since the window was opened.
    async fn write_chunk(&mut self) -> Result<(), End> {
        let copying = std::mem::replace(&mut self.copying, Copying::Ready);
        let Copying::Covering { window, chunk, .. } = copying else {
            self.copying = copying;
            return Ok(());
        };
        if window.has_overflowed() {
            self.size.halve();
            return self.ask_next().await;
        }
        self.put_rows(&window, &chunk).await?;
        self.setup.live.metrics.rows_snapshot.inc_by(chunk.len() as u64);
        self.snapshot.rows += chunk.len() as u64;
        self.snapshot.after = chunk.last_key.clone().or(self.snapshot.after.take());
        self.setup.live.set_snapshot(self.snapshot.rows, self.snapshot.rows_total);
        self.log_progress();
        if chunk.is_last {
            self.finish_snapshot();
        }
        self.note_mark();
        self.setup.lanes.send_to_idle().await?;
        self.ask_next().await
    }

    async fn put_rows(
        &mut self,
        window: &Window,
        chunk: &snapshot::scan::Chunk,
    ) -> Result<(), End> {
        let plan = &self.setup.plan;
        let types: Vec<_> =
            plan.wanted().iter().map(|at| &self.setup.def.columns[*at].ty).collect();
        let version = self.at.version();
        let (mut id, mut body) = (String::new(), Vec::new());
        for row in 0..chunk.len() {
            let is_new = chunk.with_row(row, &types, |values| {
                id.clear();
                plan.id(values, &mut id)?;
                if !window.may_write(&id) {
                    return Ok(false);
                }
                body.clear();
                plan.body(values, &mut body)?;
                Ok(true)
            })?;
            if is_new {
                let key = IdHasher.key(&id);
                self.setup.lanes.put(DocOp {
                    action: Action::Upsert,
                    id: &id,
                    key,
                    version,
                    body: &body,
                });
                if self.setup.lanes.any_is_full() {
                    self.setup.lanes.send_full().await?;
                }
            }
        }
        Ok(())
    }

    fn finish_snapshot(&mut self) {
        self.snapshot.done = true;
        self.copying = Copying::Done;
        self.setup.copier = None;
        self.note_mark();
        tracing::info!(link = self.setup.link, rows = self.snapshot.rows, "snapshot done");
    }

    fn log_progress(&mut self) {
        const EVERY: Duration = Duration::from_secs(5);
        if self.snapshot_logged.elapsed() < EVERY {
            return;
        }
        self.snapshot_logged = Instant::now();
        if let Some(progress) = self.setup.live.snapshot() {
            tracing::info!(
                link = self.setup.link,
                rows = progress.rows,
                rows_total_estimate = progress.rows_total_estimate,
                rows_per_s = progress.rows_per_s as u64,
                eta_s = progress.eta_s,
                "snapshot goes on"
            );
        }
    }
}

impl Copying {
    /// The window that must know of every change.
    fn window(&mut self) -> Option<&mut Window> {
        match self {
            Copying::Reading(window) | Copying::Covering { window, .. } => Some(window),
            Copying::Ready | Copying::AskedForBounds | Copying::Done => None,
        }
    }
}

/// Notes the ids of both images: the row that a chunk shows may be the one before or the one behind the change.
fn record(
    window: &mut Window,
    plan: &mapping::Plan,
    change: &Change<'_>,
    id: &mut String,
) -> Result<()> {
    let before = (change.kind != ChangeKind::Insert).then_some(&change.before);
    let after = (change.kind != ChangeKind::Delete).then_some(&change.after);
    for row in before.into_iter().chain(after) {
        id.clear();
        plan.id(&row.values, id)?;
        window.record(id);
    }
    Ok(())
}

/// Resolves when the link must stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to ask for it, which means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn reply_of(copier: &mut Option<Copier>) -> Reply {
    match copier {
        Some(copier) => copier.reply().await,
        None => std::future::pending().await,
    }
}

/// Trouble of the source leaves the lanes in order, so that what they hold can still be acknowledged.
fn is_of_the_source(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unsupported
        | ErrorKind::SourceRefused
        | ErrorKind::SourceLost
        | ErrorKind::SourceUnreachable
        | ErrorKind::Schema
        | ErrorKind::Undecodable => true,
        ErrorKind::Input
        | ErrorKind::NotFound
        | ErrorKind::ModelBusy
        | ErrorKind::ModelAnswer
        | ErrorKind::ModelRefused
        | ErrorKind::SinkBusy
        | ErrorKind::SinkBlocked
        | ErrorKind::DocumentRefused
        | ErrorKind::ForeignVersion
        | ErrorKind::State
        | ErrorKind::Io
        | ErrorKind::Stopped => false,
    }
}

fn broken(error: &Error) -> End {
    let mut copy = Error::new(error.kind(), error.to_string());
    if let Some(advice) = error.advice() {
        copy = copy.with_advice(advice);
    }
    copy.into()
}
