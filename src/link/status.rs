//! How a link is: the states it can be in, what it shows, and the shared cell that its tasks write into. Decides
//! nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc};

use crate::flow::pulse::Pulse;
use crate::link::Spec;
use crate::link::inquiry::Inquiry;
use crate::link::pipeline_mode::Way;
use crate::link::rebuild::Rebuild;
use crate::state::{LinkRecord, VerifiedRecord};
use crate::telemetry::metrics::{LinkMetrics, metrics};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, not begun.
    Scheduled,
    Snapshotting,
    /// The snapshot is done; the stream is behind.
    CatchingUp,
    Running,
    /// Waits for the source, the model or the sink, and tries again.
    Recovering,
    /// Stopped at a clean checkpoint; somebody must act.
    Failed,
    /// Stopped at a clean checkpoint, because somebody wanted it.
    Paused,
    /// Run by another daemon, in whose place this one can step.
    Standby,
}

impl State {
    /// Stands until somebody acts.
    pub fn is_at_rest(self) -> bool {
        matches!(self, State::Failed | State::Paused)
    }

    /// Those of a link that is run here.
    pub const ALL: [State; 7] = [
        State::Scheduled,
        State::Snapshotting,
        State::CatchingUp,
        State::Running,
        State::Recovering,
        State::Failed,
        State::Paused,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Snapshotting => "snapshotting",
            State::CatchingUp => "catching_up",
            State::Running => "running",
            State::Recovering => "recovering",
            State::Failed => "failed",
            State::Paused => "paused",
            State::Standby => "standby",
        }
    }
}

/// What a link shows of itself.
#[derive(Debug, Clone)]
pub struct Status {
    pub id: String,
    pub index: String,
    pub table: String,
    pub state: State,
    /// Why it failed or what it waits for; empty when all is well.
    pub errors: String,
    /// Age of the oldest unacknowledged change in milliseconds; −1 before the stream.
    pub latency_ms: i64,
    /// How long after its commit the last change was acknowledged, in milliseconds; −1 before the first.
    pub acked_after_ms: i64,
    pub restarts: u64,
    /// Documents that were refused for good.
    pub dead_letters: u64,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds.
    pub updated_at: u64,
    pub snapshot: Option<Progress>,
    /// The checkpoint's position.
    pub position: String,
    /// Who runs the index's default pipeline, `emulate` or `delegate`; empty where it has none, and before the link runs.
    pub pipeline_mode: &'static str,
    /// That pipeline.
    pub pipeline: String,
    /// What a statement on the table has meant for the link last; empty where nothing is to be said.
    pub note: String,
    /// The verification that runs, if one does.
    pub verification: Option<Verification>,
    /// The last one that has looked at everything.
    pub verified: Option<VerifiedRecord>,
    /// The rebuild of its index that goes on, or whose old index is kept.
    pub rebuild: Option<Rebuild>,
    /// The link whose shadow this one is; empty where it is none.
    pub shadow_of: String,
    pub statement: String,
}

impl Status {
    /// Of a link that the configuration wants and that is not made.
    pub(super) fn unmade(id: &str, spec: &Spec, state: State, reason: &str) -> Self {
        let now = unix_seconds();
        Self {
            id: id.to_owned(),
            index: spec.rules.index().to_owned(),
            table: spec.rules.table().map(ToString::to_string).unwrap_or_default(),
            state,
            errors: reason.to_owned(),
            latency_ms: -1,
            acked_after_ms: -1,
            restarts: 0,
            dead_letters: 0,
            created_at: now,
            updated_at: now,
            snapshot: None,
            position: String::new(),
            pipeline_mode: "",
            pipeline: String::new(),
            note: String::new(),
            verification: None,
            verified: None,
            rebuild: None,
            shadow_of: String::new(),
            statement: spec.statement.clone(),
        }
    }

    /// Of a link that the daemon on `leader` runs, as the copy of its state has it.
    pub(super) fn standing_by(record: &LinkRecord, leader: &str) -> Self {
        let table = record.rules.first().map(|rule| format!("{}.{}", rule.db, rule.table));
        Self {
            id: record.id.clone(),
            index: record.index.clone(),
            table: table.unwrap_or_default(),
            state: State::Standby,
            errors: String::new(),
            latency_ms: -1,
            acked_after_ms: -1,
            restarts: record.restarts,
            dead_letters: 0,
            created_at: record.created_at,
            updated_at: record.updated_at,
            snapshot: None,
            position: String::new(),
            pipeline_mode: "",
            pipeline: String::new(),
            note: format!("run by the daemon on {leader}, for which this one stands by"),
            verification: None,
            verified: record.verified,
            rebuild: None,
            shadow_of: record.shadow_of.clone().unwrap_or_default(),
            statement: record.statement.clone(),
        }
    }
}

/// How far a verification is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    pub rows: u64,
    pub documents: u64,
    pub differences: u64,
    /// What it waits for; empty where it goes on.
    pub waits_for: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub rows: u64,
    /// The server's own estimate.
    pub rows_total_estimate: u64,
    pub rows_per_s: f64,
    pub eta_s: Option<u64>,
    /// It stands still, because so many threads of the source are running.
    pub held_at_threads_running: Option<u64>,
}

/// The cell that a link's tasks share.
pub(super) struct Live {
    pub metrics: LinkMetrics,
    /// Milliseconds, −1 before the stream.
    lag_ms: AtomicI64,
    /// Milliseconds, −1 before the first acknowledged change.
    acked_after_ms: AtomicI64,
    restarts: AtomicU64,
    /// The state has an order for a copy, which the worker takes when it can.
    pub copy_is_ordered: AtomicBool,
    /// Of the link's worker.
    pub pulse: Pulse,
    /// Told that the worker stands still.
    pub given_up: Notify,
    changing: Mutex<Changing>,
}

struct Changing {
    /// The state but for passing trouble.
    phase: State,
    reason: String,
    /// What a task waits for now, and since when.
    trouble: Option<String>,
    updated_at: u64,
    snapshot: Option<Progress>,
    snapshot_began: Option<(Instant, u64)>,
    position: String,
    way: Way,
    note: String,
    verification: Option<Verification>,
    /// How far a copy is that compares.
    mending: Option<Verification>,
    /// What the rebuild of its index does, and what that waits for.
    rebuild: (&'static str, String),
    /// How the worker that runs now is asked; that of one that has ended is closed.
    inquiries: Option<mpsc::Sender<Inquiry>>,
}

impl Live {
    pub fn new(link: &str, phase: State, restarts: u64) -> Self {
        let live = Self {
            metrics: metrics().link(link),
            lag_ms: AtomicI64::new(-1),
            acked_after_ms: AtomicI64::new(-1),
            restarts: AtomicU64::new(restarts),
            copy_is_ordered: AtomicBool::new(false),
            pulse: Pulse::default(),
            given_up: Notify::new(),
            changing: Mutex::new(Changing {
                phase,
                reason: String::new(),
                trouble: None,
                updated_at: unix_seconds(),
                snapshot: None,
                snapshot_began: None,
                position: String::new(),
                way: Way::Plain,
                note: String::new(),
                verification: None,
                mending: None,
                rebuild: ("", String::new()),
                inquiries: None,
            }),
        };
        live.metrics.set_state(phase.as_str());
        live
    }

    fn change<T>(&self, change: impl FnOnce(&mut Changing) -> T) -> T {
        let mut changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = changing.shown_state();
        let result = change(&mut changing);
        let after = changing.shown_state();
        drop(changing);
        if before != after {
            self.metrics.set_state(after.as_str());
        }
        result
    }

    pub fn set_phase(&self, phase: State) {
        self.change(|c| {
            if c.phase != phase {
                c.phase = phase;
                c.updated_at = unix_seconds();
            }
        });
    }

    pub fn phase(&self) -> State {
        self.change(|c| c.phase)
    }

    pub fn fail(&self, reason: String) {
        self.change(|c| {
            c.phase = State::Failed;
            c.reason = reason;
            c.trouble = None;
            c.updated_at = unix_seconds();
        });
    }

    /// Goes on from rest.
    pub fn begin_again(&self, phase: State) {
        self.change(|c| {
            c.phase = phase;
            c.reason = String::new();
            c.trouble = None;
            c.updated_at = unix_seconds();
        });
    }

    /// Says what the link waits for.
    pub fn wait_for(&self, trouble: String) {
        self.change(|c| {
            if c.trouble.is_none() {
                c.updated_at = unix_seconds();
            }
            c.trouble = Some(trouble);
        });
    }

    pub fn trouble_is_over(&self) {
        self.change(|c| {
            if c.trouble.take().is_some() {
                c.updated_at = unix_seconds();
            }
        });
    }

    pub fn count_restart(&self) -> u64 {
        self.restarts.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub fn set_lag_ms(&self, lag_ms: i64) {
        self.lag_ms.store(lag_ms, Ordering::Relaxed);
        self.metrics.lag_ms.set(lag_ms);
    }

    pub fn set_acked_after_ms(&self, acked_after_ms: i64) {
        self.acked_after_ms.store(acked_after_ms, Ordering::Relaxed);
    }

    pub fn set_note(&self, note: String) {
        self.change(|c| c.note = note);
    }

    pub fn open_inquiries(&self, inquiries: mpsc::Sender<Inquiry>) {
        self.change(|c| c.inquiries = Some(inquiries));
    }

    pub fn inquiries(&self) -> Option<mpsc::Sender<Inquiry>> {
        self.change(|c| c.inquiries.clone())
    }

    /// False where a verification runs already.
    pub fn begin_verification(&self) -> bool {
        self.change(|c| {
            let is_first = c.verification.is_none();
            c.verification.get_or_insert_default();
            is_first
        })
    }

    pub fn show_verification(&self, verification: Option<Verification>) {
        self.change(|c| c.verification = verification);
    }

    /// An empty word leaves that of before.
    pub fn set_rebuild(&self, doing: &'static str, waits_for: String) {
        self.change(|c| {
            let doing = if doing.is_empty() { c.rebuild.0 } else { doing };
            c.rebuild = (doing, waits_for);
        });
    }

    pub fn rebuild(&self) -> (&'static str, String) {
        self.change(|c| c.rebuild.clone())
    }

    pub fn show_mending(&self, mending: Option<Verification>) {
        let (is, was) =
            (mending.is_some(), self.change(|c| std::mem::replace(&mut c.mending, mending)));
        // Else one that somebody asked for may be running.
        if is != was.is_some() {
            self.metrics.verify_running.set(is.into());
        }
    }

    pub fn reason(&self) -> String {
        self.change(|c| c.reason.clone())
    }

    pub fn position(&self) -> String {
        self.change(|c| c.position.clone())
    }

    pub fn set_position(&self, position: String) {
        self.change(|c| c.position = position);
    }

    pub fn set_way(&self, way: Way) {
        self.change(|c| c.way = way);
    }

    /// `rows` of about `rows_total_estimate` are copied; the rate is that of this life of the process.
    pub fn set_snapshot(&self, rows: u64, rows_total_estimate: u64) {
        self.metrics.snapshot_rows.set(rows as i64);
        self.metrics.snapshot_rows_total_estimate.set(rows_total_estimate as i64);
        self.change(|c| {
            let (began, rows_before) = *c.snapshot_began.get_or_insert((Instant::now(), rows));
            let elapsed = began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
            let rows_per_s = (rows - rows_before) as f64 / elapsed;
            let left = rows_total_estimate.saturating_sub(rows) as f64;
            let eta_s = (rows_per_s > 0.0).then(|| (left / rows_per_s).ceil() as u64);
            let held_at_threads_running = c.snapshot.and_then(|c| c.held_at_threads_running);
            c.snapshot = Some(Progress {
                rows,
                rows_total_estimate,
                rows_per_s,
                eta_s,
                held_at_threads_running,
            });
        });
    }

    /// The copy stands still, because so many threads of the source are running; None: it does not.
    pub fn hold_snapshot(&self, threads_running: Option<u64>) {
        self.change(|c| {
            if let Some(progress) = &mut c.snapshot {
                progress.held_at_threads_running = threads_running;
            }
        });
    }

    pub fn forget_snapshot(&self) {
        self.change(|c| {
            c.snapshot = None;
            c.snapshot_began = None;
        });
    }

    pub fn snapshot(&self) -> Option<Progress> {
        self.change(|c| c.snapshot)
    }

    /// Fills in what changes; the rest is the link's record.
    pub fn show(&self, status: &mut Status) {
        status.latency_ms = self.lag_ms.load(Ordering::Relaxed);
        status.acked_after_ms = self.acked_after_ms.load(Ordering::Relaxed);
        status.restarts = self.restarts();
        self.change(|c| {
            status.state = c.shown_state();
            status.errors = c.trouble.clone().unwrap_or_else(|| c.reason.clone());
            status.updated_at = c.updated_at;
            status.snapshot = c.snapshot;
            status.position = c.position.clone();
            let (mode, pipeline) = c.way.shown();
            (status.pipeline_mode, status.pipeline) = (mode, pipeline.to_owned());
            status.note = c.note.clone();
            status.verification = c.verification.clone().or_else(|| c.mending.clone());
        });
    }
}

impl Changing {
    fn shown_state(&self) -> State {
        match (self.phase, &self.trouble) {
            (State::Failed | State::Paused, _) | (_, None) => self.phase,
            (_, Some(_)) => State::Recovering,
        }
    }
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

pub(super) fn unix_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}
