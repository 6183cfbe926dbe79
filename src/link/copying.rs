//! The snapshot's side of a link's worker: asks for chunks at boundaries, keeps the window of the one that is read, and
//! puts its rows into the lanes when the stream has covered it. Why that is right stands in `source::snapshot::window`.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::change::{Change, ChangeKind};
use crate::document::{Action, DocOp, IdHasher};
use crate::error::{ErrorKind, Result};
use crate::link::cascades::ABOVE;
use crate::link::copy::{Bounds, Copier, Reply, Request};
use crate::link::end::End;
use crate::link::left_out;
use crate::link::refused::stand_in;
use crate::link::verify::{Sought, Wrong};
use crate::link::worker::Worker;
use crate::mapping;
use crate::position::{GtidSet, Version};
use crate::source::snapshot;
use crate::source::snapshot::window::Window;

/// Where the snapshot stands.
pub(super) enum Copying {
    /// Waits for a boundary to ask the next thing at.
    Ready,
    AskedForBounds,
    /// Waits until the next chunk may be begun.
    Resting,
    /// The bounds were read; the first window waits until the stream has covered what was executed by then. An XA
    /// transaction from before the link's beginning is in there if the bounds show what it did.
    Bounded(Bounds),
    /// The window is open, the chunk is being read.
    Reading(Window),
    /// The chunk was read; its rows wait until the stream has covered what was executed by then.
    Covering {
        window: Window,
        chunk: snapshot::scan::Chunk,
        executed: GtidSet,
        /// The documents that are to be written; None: all.
        wrong: Option<Box<Wrong>>,
    },
    /// Every row was compared; documents without one are looked for.
    Seeking,
    /// These had none; a boundary is waited for.
    Sought(Sought),
    Done,
}

/// When the next chunk may be begun.
pub(super) struct Pace {
    chunk_began: Instant,
    due: Instant,
    /// It may be begun now.
    has_rested: bool,
}

impl Pace {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { chunk_began: now, due: now, has_rested: false }
    }
}

impl Copying {
    /// The window that must know of every change.
    pub(super) fn window(&mut self) -> Option<&mut Window> {
        match self {
            Copying::Reading(window) | Copying::Covering { window, .. } => Some(window),
            Copying::Ready
            | Copying::AskedForBounds
            | Copying::Resting
            | Copying::Bounded(_)
            | Copying::Seeking
            | Copying::Sought(_)
            | Copying::Done => None,
        }
    }
}

impl Worker {
    /// The snapshot's next step, at a boundary with nothing behind it.
    pub(super) async fn at_boundary(&mut self) -> Result<(), End> {
        match &self.copying {
            Copying::Ready => self.ask_next().await,
            Copying::Covering { window, executed, .. }
                if window.is_covered(executed, &self.at.position.gtids) =>
            {
                self.write_chunk().await
            }
            Copying::Bounded(bounds) if self.at.position.gtids.covers(&bounds.executed) => {
                self.take_bounds().await
            }
            Copying::Sought(_) => match std::mem::replace(&mut self.copying, Copying::Seeking) {
                Copying::Sought(sought) => self.judge_sought(sought).await,
                _ => Ok(()),
            },
            Copying::AskedForBounds
            | Copying::Resting
            | Copying::Bounded(_)
            | Copying::Reading(_)
            | Copying::Covering { .. }
            | Copying::Seeking
            | Copying::Done => Ok(()),
        }
    }

    pub(super) async fn ask_next(&mut self) -> Result<(), End> {
        let (Copying::Ready, true, Some(copier)) =
            (&self.copying, self.is_at_boundary, &self.setup.copier)
        else {
            return Ok(());
        };
        let delivered = self.at.position.gtids.clone();
        let Some(until) = self.snapshot.until.clone() else {
            // Every row that is there will be written from here on. Not from the statement on that asked for the copy:
            // where rows behind it are skipped, an earlier life may have written some of them, and their deletes are
            // skipped too.
            if let Some(below) = &mut self.snapshot.sweep_below {
                *below = self.at.version().0.max(*below);
            }
            copier.ask(Request::Bounds { delivered }).await?;
            self.copying = Copying::AskedForBounds;
            return Ok(());
        };
        let has_rested = std::mem::take(&mut self.pace.has_rested);
        let turn = if has_rested { None } else { self.turn_at_once() };
        if !has_rested && turn.is_none() {
            let threads_running_max = self.setup.snapshot_config.max_threads_running;
            copier.ask(Request::Rest { due: self.pace.due, threads_running_max }).await?;
            self.copying = Copying::Resting;
            return Ok(());
        }
        self.pace.chunk_began = Instant::now();
        let window = Window::open(delivered, self.setup.snapshot_config.recorded_bytes);
        let delivered = window.must_be_executed().clone();
        let (after, rows_max) = (self.snapshot.after.clone(), self.size.rows());
        let condition = self.snapshot.filter.clone();
        let request = Request::Chunk { delivered, after, until, condition, rows_max };
        copier.ask_with(request, turn).await?;
        self.copying = Copying::Reading(window);
        Ok(())
    }

    /// Leave to read the next chunk, where nothing is to be waited for before.
    fn turn_at_once(&self) -> Option<OwnedSemaphorePermit> {
        let is_held = self.setup.snapshot_config.max_threads_running > 0;
        if is_held || self.pace.due > Instant::now() {
            return None;
        }
        self.setup.subject.turns.clone().try_acquire_owned().ok()
    }

    pub(super) async fn take_reply(&mut self, reply: Reply) -> Result<(), End> {
        match (reply, std::mem::replace(&mut self.copying, Copying::Ready)) {
            (Reply::Failed(error), _) if self.snapshot.filter.is_some() => {
                self.give_order_up(&error);
                return self.end_learning();
            }
            (Reply::Failed(error), _) => return Err(error.into()),
            (Reply::Incomparable(error), _) => {
                self.stop_chunk();
                self.give_comparing_up(&error);
                self.start_copier()?;
            }
            (Reply::Extras(sought), Copying::Seeking) => {
                if self.is_at_boundary {
                    self.copying = Copying::Seeking;
                    return self.judge_sought(sought).await;
                }
                self.copying = Copying::Sought(sought);
                return Ok(());
            }
            (Reply::Extras(_), other) => self.copying = other,
            (Reply::Bounds(bounds), _) => {
                let is_covered = self.at.position.gtids.covers(&bounds.executed);
                self.copying = Copying::Bounded(bounds);
                if is_covered {
                    return self.take_bounds().await;
                }
                return Ok(());
            }
            (Reply::Rested, Copying::Resting) => self.pace.has_rested = true,
            (Reply::Rested, other) => self.copying = other,
            (Reply::Chunk { chunk, executed, wrong }, Copying::Reading(window)) => {
                let pause = self.setup.snapshot_config.pause_behind(chunk.walked);
                self.pace.due = self.pace.chunk_began + pause;
                if window.has_overflowed() {
                    self.size.halve();
                } else {
                    self.size.learn(chunk.walked, chunk.elapsed, chunk.bytes);
                    let is_covered = window.is_covered(&executed, &self.at.position.gtids);
                    self.copying = Copying::Covering { window, chunk, executed, wrong };
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

    async fn take_bounds(&mut self) -> Result<(), End> {
        let copying = std::mem::replace(&mut self.copying, Copying::Ready);
        let is_stale = std::mem::take(&mut self.prepared.bounds_are_stale);
        if let (Copying::Bounded(bounds), false) = (copying, is_stale) {
            let is_empty = bounds.until.is_none();
            self.snapshot.until = bounds.until;
            self.snapshot.rows_total = bounds.rows_total;
            self.show_copied();
            if is_empty {
                self.end_rows().await?;
            }
        }
        self.ask_next().await
    }

    /// Puts the chunk's rows into the lanes, but for those that changed since the window was opened. The next chunk, in a
    /// window of its own, is read meanwhile.
    async fn write_chunk(&mut self) -> Result<(), End> {
        let copying = std::mem::replace(&mut self.copying, Copying::Ready);
        let Copying::Covering { window, chunk, wrong, .. } = copying else {
            self.copying = copying;
            return Ok(());
        };
        if window.has_overflowed() {
            self.size.halve();
            return self.ask_next().await;
        }
        self.snapshot.rows += chunk.walked as u64;
        self.snapshot.after = chunk.last_key.clone().or(self.snapshot.after.take());
        if !chunk.is_last {
            self.ask_next().await?;
            // What is asked runs before this task goes on; else it would wait for the rows, for no other thread may take it.
            tokio::task::yield_now().await;
        }
        self.put_rows(&window, &chunk, wrong.as_deref()).await?;
        self.setup.live.metrics.rows_snapshot.inc_by(chunk.len() as u64);
        if let Some(wrong) = &wrong {
            self.note_compared(wrong);
        }
        self.show_copied();
        self.log_progress();
        // Rows that had to be read again may have shown that the table must be copied anew, from the first key on.
        if chunk.is_last && self.snapshot.until.is_some() {
            self.end_rows().await?;
        }
        self.note_mark();
        self.setup.lanes.send_to_idle().await?;
        self.ask_next().await
    }

    async fn put_rows(
        &mut self,
        window: &Window,
        chunk: &snapshot::scan::Chunk,
        wrong: Option<&Wrong>,
    ) -> Result<(), End> {
        let (plan, def) = (self.setup.plan.clone(), self.setup.def.clone());
        let types: Vec<_> = self.cascades.wanted.iter().map(|at| &def.columns[*at].ty).collect();
        // Not below what a repair, or a copy of an earlier link, has written at the same place (`inquiry`).
        let version = self.at.highest_version();
        self.cascades.newest = self.cascades.newest.max(version);
        let (mut id, mut body) = (String::new(), Vec::new());
        for row in 0..chunk.len() {
            let mut refused = None;
            let is_new = chunk.with_row(row, &types, |values| {
                id.clear();
                if let Err(error) = plan.id(values, &mut id) {
                    refused = Some((stand_in(&plan, values)?, error));
                    return Ok(false);
                }
                self.track_read(values, &id)?;
                if !window.may_write(&id) {
                    return Ok(false);
                }
                if self.may_be_stale(window, values) {
                    let key = left_out::key_of_values(&plan, values)?;
                    self.left_out.wait_gone(&id, key, version, None);
                    self.left_out.wait_for(&self.at.position.gtids);
                    return Ok(false);
                }
                if wrong.is_some_and(|wrong| !wrong.contains(&id)) {
                    return Ok(false);
                }
                body.clear();
                if let Err(error) = plan.body(values, &mut body) {
                    refused = Some((id.clone(), error));
                    return Ok(false);
                }
                Ok(true)
            })?;
            if let Some((document, error)) = refused {
                self.refuse(&document, version, &error)?;
            }
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
                    self.send_full().await?;
                }
            }
            if self.left_out.is_full() {
                self.fill_left_out().await?;
            }
        }
        if !window.may_write(ABOVE) {
            self.cascades.orphans.get_or_insert_default().union(&self.at.position.gtids);
        }
        self.fill_left_out().await?;
        self.find_orphans().await?;
        Ok(self.write_fresh()?)
    }

    pub(super) async fn finish_snapshot(&mut self) -> Result<(), End> {
        let below = self.snapshot.sweep_below.take();
        if self.snapshot.compares {
            if let Some(below) = below {
                // What is still refused has been refused again since.
                self.setup.route.letters.forget_below(Version(below))?;
            }
            self.tell_mended();
        } else if let Some(below) = below {
            let count = self.purge(Version(below), self.at.version()).await?;
            tracing::info!(link = self.setup.link, count, "documents without a row are deleted");
        }
        self.snapshot.done = true;
        self.snapshot.filter = None;
        self.copying = Copying::Done;
        self.setup.copier = None;
        self.note_mark();
        tracing::info!(link = self.setup.link, rows = self.snapshot.rows, "snapshot done");
        self.end_learning()
    }

    pub(super) fn show_copied(&self) {
        if self.snapshot.compares {
            return self.show_mended();
        }
        self.setup.live.set_snapshot(self.snapshot.rows, self.snapshot.rows_total);
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

/// Notes the ids of both images: the row that a chunk shows may be the one before or the one behind the change.
pub(super) fn record(
    window: &mut Window,
    plan: &mapping::Plan,
    change: &Change<'_>,
    id: &mut String,
) -> Result<()> {
    let before = (change.kind != ChangeKind::Insert).then_some(&change.before);
    let after = (change.kind != ChangeKind::Delete).then_some(&change.after);
    for row in before.into_iter().chain(after) {
        id.clear();
        match plan.id(&row.values, id) {
            Ok(()) => window.record(id),
            // No chunk can write it either.
            Err(error) if error.kind() == ErrorKind::DocumentRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) async fn reply_of(copier: &mut Option<Copier>) -> Reply {
    match copier {
        Some(copier) => copier.reply().await,
        None => std::future::pending().await,
    }
}
