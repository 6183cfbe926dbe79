//! One link's run: takes the stream's items in order, decodes and maps them into the lanes, copies the table in windows
//! between them, and writes the checkpoint behind what the lanes acknowledged.
//!
//! Why a checkpoint never passes an unacknowledged change: a mark is noted at a boundary, after everything before it
//! was put into the lanes, and comes out of [`Acks`] only when all lanes have acknowledged that much. A chunk's progress
//! is part of a mark that is noted after the chunk's rows were put into the lanes, so both are stored by one write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use crate::change::{Change, ChangeKind};
use crate::document::DocOp;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::acks::Acks;
use crate::flow::queue;
use crate::link::alone::Alone;
use crate::link::altering::Holding;
use crate::link::cascades::watch::Cascades;
use crate::link::copy::{Copier, Subject};
use crate::link::copying::{Copying, Pace, record, reply_of};
use crate::link::end::End;
use crate::link::inquiry::Inquiries;
use crate::link::lane::Route;
use crate::link::lanes::Lanes;
use crate::link::left_out::{LeftOut, is_incomplete};
use crate::link::policy::Policy;
use crate::link::prepared::{Open, Prepared};
use crate::link::status::{Live, State, unix_millis};
use crate::link::verify::Counts;
use crate::mapping;
use crate::naive::hang_if_told;
use crate::position::{Checkpoint, Version};
use crate::source::binlog::event::RowsEvent;
use crate::source::binlog::rows;
use crate::source::ddl::fate::Named;
use crate::source::places::Place;
use crate::source::snapshot::{self, chunk};
use crate::source::stream::{Began, Item, Rows};
use crate::state::{self, CheckpointRecord, History, SnapshotRecord};
use crate::table::{Family, TableDef, TableId};

/// What a worker is started with.
pub(super) struct Setup {
    pub link: String,
    pub def: Arc<TableDef>,
    pub plan: Arc<mapping::Plan>,
    /// The forms of values that the link was made with.
    pub forms: mapping::Forms,
    pub began: Began,
    /// Items that were taken out of the queue already.
    pub first: Vec<Item>,
    pub snapshot: SnapshotRecord,
    /// XA transactions that are prepared at the checkpoint.
    pub prepared: Arc<Open>,
    pub index_uuid: String,
    pub state: state::State,
    pub live: Arc<Live>,
    pub input: queue::Receiver<Vec<Item>>,
    /// The stream is the link's own.
    pub alone: Option<Alone>,
    /// Taken where the shared stream has left the link behind.
    pub place: Place,
    pub lanes: Lanes,
    pub copier: Option<Copier>,
    /// What is read of the source besides the log.
    pub subject: Arc<Subject>,
    pub snapshot_config: snapshot::Config,
    /// The rules as they are now; `plan` is these compiled against `def`.
    pub spec: mapping::Spec,
    pub named: Named,
    pub history: History,
    pub holding: Holding,
    pub cascades: Cascades,
    /// The source logs what foreign keys do.
    pub logs_cascades: bool,
    /// The other tables whose rows the stream brings.
    pub followed: BTreeSet<TableId>,
    pub policy: Policy,
    pub all_columns: bool,
    pub route: Arc<Route>,
    pub checkpoint_interval: Duration,
    pub stop: watch::Receiver<bool>,
}

/// Everything up to a boundary, and how far the snapshot was then.
struct Mark {
    checkpoint: Arc<Checkpoint>,
    snapshot: SnapshotRecord,
    prepared: Arc<Open>,
    /// Commit time of the first change since the mark before, in microseconds since 1970.
    first_commit_us: Option<u64>,
}

pub(super) struct Worker {
    pub(super) setup: Setup,
    pub(super) decoder: Decoder,
    acks: Acks<Mark>,
    /// The last boundary that was taken in.
    pub(super) at: Arc<Checkpoint>,
    /// What stands before this in the stream was taken in from another.
    pub(super) begins_at: u64,
    /// Nothing was taken in since `at`.
    pub(super) is_at_boundary: bool,
    /// A boundary behind `at` that was put off, and since when.
    put_off: Option<(Arc<Checkpoint>, Instant)>,
    /// Commit time of the first change since the newest mark.
    pub(super) first_commit_us: Option<u64>,
    pub(super) holding: Holding,
    pub(super) prepared: Prepared,
    pub(super) left_out: LeftOut,
    pub(super) inquiries: Inquiries,
    pub(super) cascades: Cascades,
    pub(super) copying: Copying,
    /// What a copy that compares has found so far.
    pub(super) mended: Counts,
    pub(super) snapshot: SnapshotRecord,
    pub(super) size: chunk::Size,
    pub(super) pace: Pace,
    /// The state has the order for the copy that runs.
    pub(super) order_is_kept: bool,
    acked: Option<Mark>,
    /// The last checkpoint found the disk full.
    waits_for_room: bool,
    /// The snapshot's last row is in the index.
    snapshot_is_acked: bool,
    pub(super) snapshot_logged: Instant,
    checkpoint_written: Instant,
    tick: Interval,
}

/// How often acknowledgements are looked at and a busy lane is shown what waits for it, if nothing else happens.
const TICK: Duration = Duration::from_millis(100);

/// For so long boundaries are put off at most.
const PUT_OFF_MAX: Duration = Duration::from_millis(250);

/// Buffers of decoding and mapping, used again and again.
#[derive(Default)]
pub(super) struct Decoder {
    plan: Option<(Arc<crate::source::binlog::TableMap>, Arc<rows::Plan>)>,
    pub(super) scratch: mapping::Scratch,
    id: String,
}

impl Worker {
    pub fn new(mut setup: Setup) -> Self {
        let nothing = Cascades::new(Family::default(), None);
        let cascades = std::mem::replace(&mut setup.cascades, nothing);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (inquiries_open, inquiries) = Inquiries::open();
        setup.live.open_inquiries(inquiries_open);
        setup.live.show_mending(None);
        let copying = if setup.snapshot.done { Copying::Done } else { Copying::Ready };
        Self {
            decoder: Decoder::default(),
            acks: Acks::default(),
            at: setup.began.checkpoint.clone(),
            begins_at: 0,
            is_at_boundary: setup.began.is_exact,
            put_off: None,
            first_commit_us: None,
            holding: setup.holding.clone(),
            prepared: Prepared::new(setup.prepared.clone()),
            left_out: LeftOut::default(),
            inquiries,
            cascades,
            copying,
            mended: Counts::default(),
            snapshot: setup.snapshot.clone(),
            size: chunk::Size::new(&setup.snapshot_config),
            pace: Pace::new(),
            order_is_kept: false,
            acked: None,
            waits_for_room: false,
            snapshot_is_acked: setup.snapshot.done,
            snapshot_logged: Instant::now(),
            checkpoint_written: Instant::now(),
            tick,
            setup,
        }
    }

    /// Runs the link until it must end, and leaves a checkpoint behind in every case but a hard failure of the sink.
    pub async fn run(mut self) -> End {
        let live = self.setup.live.clone();
        let at_work = live.pulse.begin();
        let worked = self.work().await;
        // What follows waits for the lanes, for as long as the sink takes.
        drop(at_work);
        let end = match worked {
            Ok(end) => end,
            Err(End::Stopped) if !*self.setup.stop.borrow() => self.setup.lanes.why_closed().await,
            Err(end) => end,
        };
        let is_clean = matches!(end, End::Stopped | End::Finished)
            || matches!(&end, End::Failed(error) if is_of_the_source(error));
        if is_clean && let Err(other) = self.setup.lanes.drain().await {
            tracing::warn!(link = self.setup.link, end = ?other, "the last writes were not acknowledged");
        }
        if let Err(error) = self.take_acks().and_then(|()| self.write_checkpoint(true)) {
            tracing::error!(link = self.setup.link, error = %error.report(), "the last checkpoint was not written");
        }
        self.setup.lanes.abort().await;
        end
    }

    async fn work(&mut self) -> Result<End, End> {
        if self.is_at_boundary {
            self.end_learning()?;
            self.note_mark();
        }
        self.find_order()?;
        self.start_copier()?;
        self.ask_next().await?;
        for item in std::mem::take(&mut self.setup.first) {
            self.take_item(item).await?;
        }
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.setup.stop) => return Ok(End::Stopped),
                progress = self.setup.lanes.progress() => {
                    progress?;
                    self.take_acks()?;
                    self.setup.lanes.send_to_idle().await?;
                }
                _ = self.tick.tick() => {
                    self.tend()?;
                    self.setup.lanes.show_to_busy()?;
                    self.come_back()?;
                    self.take_order().await?;
                }
                reply = reply_of(&mut self.setup.copier) => self.take_reply(reply).await?,
                inquiry = self.inquiries.next() => self.take_inquiry(inquiry).await?,
                items = self.setup.input.recv_held() => {
                    let Some(items) = items else { return Err(self.left_behind().await) };
                    for item in items {
                        if item.n().is_none_or(|n| n >= self.begins_at) {
                            self.take_item(item).await?;
                        }
                    }
                    self.setup.lanes.send_to_idle().await?;
                }
            }
        }
    }

    async fn take_item(&mut self, item: Item) -> Result<(), End> {
        self.setup.live.pulse.beat();
        hang_if_told("worker").await;
        match item {
            Item::Rows(rows) => self.take_rows(&rows).await,
            Item::Prepared(rows, group) => Ok(self.take_prepared(&rows, &group)?),
            Item::Xa { step, .. } => self.take_xa(step).await,
            Item::Boundary(boundary) if self.puts_off(&boundary) => Ok(()),
            Item::Boundary(boundary) => self.take_boundary(boundary).await,
            Item::Ddl(ddl) => {
                self.catch_up(self.at.epoch.version(ddl.n, 0)).await?;
                self.take_ddl(ddl.clone()).await?;
                self.take_ddl_of_keys(&ddl).await
            }
            Item::Unfollowable { group: Some(group), .. } => {
                self.take_prepared_unseen(&group);
                Ok(())
            }
            Item::Unfollowable { why, group: None, .. } => self.take_unfollowable(why),
            Item::Ended => {
                if let Some((boundary, _)) = self.put_off.take() {
                    self.take_boundary(boundary).await?;
                }
                self.acknowledged().await?;
                Err(End::Finished)
            }
            Item::Broken(error) => Err(broken(&error)),
        }
    }

    async fn take_boundary(&mut self, boundary: Arc<Checkpoint>) -> Result<(), End> {
        self.catch_up(boundary.version()).await?;
        self.at = boundary;
        self.is_at_boundary = true;
        self.prepared.at_boundary = self.prepared.open.clone();
        self.end_skipping()?;
        self.end_learning()?;
        self.note_mark();
        self.take_order().await?;
        self.at_boundary().await?;
        self.answer_at_boundary().await
    }

    /// Whether a boundary is left out because rows wait to be read again and more of the stream is there. Before they
    /// are read, the source must show what was delivered, which takes long on some; so several boundaries share one
    /// reading. Nothing is lost by it: a boundary that is not taken in is as one that the tailer did not make known, and
    /// what is read later is as of the change or newer.
    fn puts_off(&mut self, boundary: &Arc<Checkpoint>) -> bool {
        let since = self.put_off.take().map_or_else(Instant::now, |(_, since)| since);
        let has_more = self.setup.input.bytes() > 0;
        let puts_off = has_more && !self.left_out.is_empty() && since.elapsed() < PUT_OFF_MAX;
        self.put_off = puts_off.then(|| (boundary.clone(), since));
        puts_off
    }

    /// Reads what waits to be read before something that stands behind it is taken in.
    async fn catch_up(&mut self, version: Version) -> Result<(), End> {
        self.cascades.newest = self.cascades.newest.max(version);
        self.fill_left_out().await?;
        self.find_orphans().await?;
        self.fill_left_out().await?;
        Ok(self.write_fresh()?)
    }

    async fn take_rows(&mut self, rows: &Rows) -> Result<(), End> {
        if rows.map.table != self.setup.def.id {
            return self.take_parent_rows(rows).await;
        }
        self.is_at_boundary = false;
        if self.holding != Holding::Defined {
            return Ok(());
        }
        self.first_commit_us.get_or_insert(rows.committed_at_us);
        let plan = self.plan_of(rows)?;
        let event = RowsEvent::read(&rows.event)?;
        let mut reader = rows::Reader::new(&event, &plan)?;
        let mut change = Change::reusable(ChangeKind::Insert);
        let epoch = self.at.epoch;
        let keys = self.has_cascades().then(|| self.cascades.is_own_parent(&rows.map.table));
        let can_cascade = event.can_cascade();
        let is_whole = reader.is_whole();
        let mut count = 0;
        while reader.next(&mut change)? {
            count += 1;
            if let Some(window) = self.copying.window() {
                record(window, &self.setup.plan, &change, &mut self.decoder.id)?;
            }
            if keys.is_some() {
                if event.logs_cascades() {
                    self.snapshot.unindexed = true;
                } else {
                    self.track(&change, rows.n)?;
                }
                let offset = change.after.offset.max(change.before.offset);
                self.cascades.newest = epoch.version(rows.n, offset);
            }
            if !is_whole && is_incomplete(&change) {
                self.take_incomplete(&change, rows)?;
                if let Some(Some(parent)) = keys
                    && !event.logs_cascades()
                {
                    self.meet_parent(parent, &change, rows, can_cascade).await?;
                }
                if self.left_out.is_full() {
                    self.fill_left_out().await?;
                }
                continue;
            }
            let (lanes, left_out) = (&mut self.setup.lanes, &mut self.left_out);
            let mut put = |op: DocOp<'_>| {
                left_out.supersede(op.id);
                lanes.put(op);
            };
            let version = |offset| epoch.version(rows.n, offset);
            let scratch = &mut self.decoder.scratch;
            if let Err(error) = self.setup.plan.apply(&change, version, scratch, &mut put) {
                self.take_refused(&change, rows.n, error)?;
            }
            if let Some(Some(parent)) = keys
                && !event.logs_cascades()
            {
                self.meet_parent(parent, &change, rows, can_cascade).await?;
            }
            if self.setup.lanes.any_is_full() {
                self.send_full().await?;
            }
        }
        self.write_fresh()?;
        self.count_rows(change.kind, count);
        Ok(())
    }

    /// How the rows of this event are walked.
    pub(super) fn plan_of(&mut self, rows: &Rows) -> Result<Arc<rows::Plan>> {
        if let Some((map, plan)) = &self.decoder.plan
            && Arc::ptr_eq(map, &rows.map)
        {
            return Ok(plan.clone());
        }
        let plan = rows::Plan::new(&self.setup.def, &self.cascades.wanted, &rows.map)?;
        let plan = Arc::new(plan);
        self.decoder.plan = Some((rows.map.clone(), plan.clone()));
        Ok(plan)
    }

    /// All rows of an event are of one kind.
    pub(super) fn count_rows(&self, kind: ChangeKind, count: u64) {
        let metrics = &self.setup.live.metrics;
        match kind {
            ChangeKind::Insert => metrics.rows_insert.inc_by(count),
            ChangeKind::Update => metrics.rows_update.inc_by(count),
            ChangeKind::Delete => metrics.rows_delete.inc_by(count),
        }
    }

    /// Everything up to `at` is in the lanes: once they have acknowledged it, it can be a checkpoint.
    pub(super) fn note_mark(&mut self) {
        let reached = self.setup.lanes.reached();
        let first_commit_us = self.first_commit_us.take();
        let (checkpoint, snapshot) = (self.at.clone(), self.snapshot.clone());
        let prepared = self.prepared.at_boundary.clone();
        let merged = self.acks.replace_newest(
            |newest| {
                newest.checkpoint = checkpoint.clone();
                newest.snapshot = snapshot.clone();
                newest.prepared = prepared.clone();
                newest.first_commit_us = newest.first_commit_us.or(first_commit_us);
                true
            },
            &reached,
        );
        if !merged {
            self.acks.note(Mark { checkpoint, snapshot, prepared, first_commit_us }, reached);
        }
    }

    /// What must happen every now and then, also while a lane takes nothing.
    fn tend(&mut self) -> Result<()> {
        self.setup.live.pulse.beat();
        self.take_acks()?;
        let metrics = &self.setup.live.metrics;
        metrics.queue_events_bytes.set(self.setup.input.bytes() as i64);
        metrics.queue_lanes_bytes.set(self.setup.lanes.waiting_bytes() as i64);
        if self.checkpoint_written.elapsed() >= self.setup.checkpoint_interval {
            self.checkpoint_written = Instant::now();
            self.write_checkpoint_or_wait()?;
        }
        Ok(())
    }

    /// While our own disk is full the link goes on without checkpoints: what is delivered meanwhile would be replayed.
    fn write_checkpoint_or_wait(&mut self) -> Result<()> {
        match self.write_checkpoint(false) {
            Ok(()) if self.waits_for_room => {
                self.waits_for_room = false;
                self.setup.live.trouble_is_over();
                tracing::info!(link = self.setup.link, "there is room for checkpoints again");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::StateFull => {
                if !self.waits_for_room {
                    tracing::error!(link = self.setup.link, error = %error.report(), "no checkpoint can be written");
                }
                self.waits_for_room = true;
                self.setup.live.wait_for(error.report());
                Ok(())
            }
            written => written,
        }
    }

    /// Does `work` beside what must go on meanwhile: acknowledgements, checkpoints, and the ear for a stop. The stream
    /// stands still.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.setup.stop) => return Err(End::Stopped),
                progress = self.setup.lanes.progress() => {
                    progress?;
                    self.take_acks()?;
                    self.setup.lanes.send_to_idle().await?;
                }
                _ = self.tick.tick() => {
                    self.tend()?;
                    self.setup.lanes.show_to_busy()?;
                }
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Waits until everything that was put into the lanes is acknowledged.
    pub(super) async fn acknowledged(&mut self) -> Result<(), End> {
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.setup.stop) => return Err(End::Stopped),
                drained = self.setup.lanes.drain() => {
                    drained?;
                    self.take_acks()?;
                    return Ok(());
                }
                _ = self.tick.tick() => self.tend()?,
            }
        }
    }

    /// The next rows are decoded by a plan made anew.
    pub(super) fn forget_decoding(&mut self) {
        self.decoder.plan = None;
    }

    /// Sends the batches that are full. Where a lane cannot take more this waits, and goes on to acknowledge, to show
    /// and to listen meanwhile.
    pub(super) async fn send_full(&mut self) -> Result<(), End> {
        loop {
            tokio::select! {
                biased;
                sent = self.setup.lanes.send_full() => return sent,
                () = stopped(&mut self.setup.stop) => return Err(End::Stopped),
                _ = self.tick.tick() => self.tend()?,
            }
        }
    }

    fn take_acks(&mut self) -> Result<()> {
        let done = self.setup.lanes.done();
        self.inquiries.take_done(&done);
        let age_ms = |us: u64| (unix_millis() - (us / 1_000) as i64).max(0);
        if let Some(mark) = self.acks.take_done(&done) {
            if let Some(committed_at_us) = mark.first_commit_us {
                self.setup.live.set_acked_after_ms(age_ms(committed_at_us));
            }
            let is_copied = mark.snapshot.done && !self.snapshot_is_acked;
            self.snapshot_is_acked = mark.snapshot.done;
            self.acked = Some(mark);
            // What is shown as copied is not copied again after a crash.
            if is_copied {
                self.write_checkpoint_or_wait()?;
            }
        }
        let oldest =
            self.acks.iter().find_map(|mark| mark.first_commit_us).or(self.first_commit_us);
        let lag_ms = oldest.map_or(0, age_ms);
        if self.snapshot_is_acked {
            self.setup.live.set_lag_ms(lag_ms);
            let phase = self.setup.live.phase();
            let is_near = lag_ms < 1_000;
            if phase != State::Failed && (is_near || phase != State::Running) {
                self.setup.live.set_phase(if is_near { State::Running } else { State::CatchingUp });
            }
        } else {
            let compares = self.snapshot.compares;
            let phase = if compares { State::CatchingUp } else { State::Snapshotting };
            self.setup.live.set_phase(phase);
        }
        Ok(())
    }

    /// Not fsynced but at the end: what a power failure takes away is replayed.
    fn write_checkpoint(&mut self, sync: bool) -> Result<()> {
        let Some(mark) = &self.acked else { return Ok(()) };
        let record = CheckpointRecord {
            checkpoint: (*mark.checkpoint).clone(),
            snapshot: Some(mark.snapshot.clone()),
            index_uuid: self.setup.index_uuid.clone(),
            prepared: mark.prepared.clone(),
        };
        self.setup.state.checkpoints().put(&self.setup.link, &record, sync)?;
        self.acked = None;
        if let Some(snapshot) = &record.snapshot {
            self.end_order(snapshot)?;
        }
        let needless = self.cascades.take_removable(record.checkpoint.n);
        if !needless.is_empty() {
            let names = needless.iter().map(|name| &**name);
            self.setup.state.families().delete_children(names)?;
        }
        for group in self.prepared.take_needless(&record.prepared) {
            self.setup.state.prepared().delete(&self.setup.link, &group)?;
        }
        self.setup.live.metrics.checkpoint_written();
        self.setup.live.set_position(record.checkpoint.position.to_string());
        Ok(())
    }
}

/// Resolves when the link must stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to ask for it, which means the same.
    let _ = stop.wait_for(|stop| *stop).await;
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
        | ErrorKind::StateFull
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
