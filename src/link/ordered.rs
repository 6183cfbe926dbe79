//! Copies that a statement asks for while the link streams: SNAPSHOT LINK. The order is kept in the state until a
//! checkpoint says that its copy has begun, so it is carried out over every crash, a second time at worst.
//!
//! The copy is that of a new link: chunks, windows and versions are the same, and so is the argument why nothing newer is
//! overwritten (`source::snapshot::window`). It deletes nothing.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::link::altering::Holding;
use crate::link::control::Control;
use crate::link::copying::Copying;
use crate::link::definition;
use crate::link::end::End;
use crate::link::status::{State, unix_millis};
use crate::link::worker::Worker;
use crate::source::control;
use crate::source::snapshot::scan;
use crate::state::{CopyOrder, SnapshotRecord};
use crate::table::TableId;

impl Control {
    /// Has a link copy its rows again, or those for which `condition` holds, beside the stream.
    pub async fn order_copy(
        &self,
        id: &str,
        table: Option<TableId>,
        condition: Option<&str>,
    ) -> Result<()> {
        let inner = &self.inner;
        let (record, live) = inner.record_of(id).ok_or_else(|| self.unknown(id))?;
        if inner.parts.source.files().is_some() {
            let what = "the source is a folder of log files, from which no table can be copied";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let rule = record.rules.first();
        let own = rule.map(|rule| TableId::new(&rule.db, &rule.table));
        let own =
            own.ok_or_else(|| Error::new(ErrorKind::State, "the stored link has no rules"))?;
        if table.is_some_and(|table| table != own) {
            return Err(Error::input(format!("the link `{id}` is of table {own}")));
        }
        let checkpoints = inner.parts.state.checkpoints();
        let stored = checkpoints.get(id)?;
        let was_done =
            stored.and_then(|stored| stored.snapshot).is_some_and(|snapshot| snapshot.done);
        // The checkpoint is of up to a second ago.
        if !was_done || live.phase() == State::Snapshotting {
            let what = format!("{own} is being copied for the link `{id}`");
            return Err(Error::input(what).with_advice("wait until that copy is done"));
        }
        if let Some(condition) = condition {
            let mut conn = control::connect(&inner.parts.source).await?;
            let def = definition::read(&mut conn, &own).await?;
            scan::check_condition(&mut conn, &def, condition).await?;
        }
        if checkpoints.ordered_copy(id)?.is_some() {
            let what = format!("a copy of {own} for the link `{id}` is ordered already");
            return Err(Error::input(what).with_advice("wait until that copy is done"));
        }
        let number = unix_millis().unsigned_abs();
        let order = CopyOrder { number, filter: condition.map(str::to_owned) };
        checkpoints.order_copy(id, &order)?;
        live.copy_is_ordered.store(true, Ordering::Release);
        tracing::info!(link = id, "a copy is ordered");
        Ok(())
    }
}

impl Worker {
    /// Looks for an order from before this life of the link.
    pub(super) fn find_order(&mut self) -> Result<()> {
        let checkpoints = self.setup.state.checkpoints();
        if let Some(number) = self.snapshot.ordered {
            // It has begun, or has ended.
            checkpoints.take_order(&self.setup.link, number)?;
        }
        let is_there = checkpoints.ordered_copy(&self.setup.link)?.is_some();
        self.setup.live.copy_is_ordered.store(is_there, Ordering::Release);
        Ok(())
    }

    /// Begins the copy that is ordered, at a boundary with nothing behind it, where no other copy runs or is owed.
    pub(super) async fn take_order(&mut self) -> Result<(), End> {
        if !self.setup.live.copy_is_ordered.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_free = self.snapshot.done && !self.snapshot.again;
        if !is_free || !self.is_at_boundary || self.holding != Holding::Defined {
            return Ok(());
        }
        self.setup.live.copy_is_ordered.store(false, Ordering::Release);
        let checkpoints = self.setup.state.checkpoints();
        let Some(order) = checkpoints.ordered_copy(&self.setup.link)? else { return Ok(()) };
        self.snapshot = SnapshotRecord {
            ordered: Some(order.number),
            filter: order.filter,
            unindexed: self.snapshot.unindexed,
            ..SnapshotRecord::default()
        };
        self.copying = Copying::Ready;
        self.order_is_kept = true;
        self.setup.live.set_note(String::new());
        self.setup.live.forget_snapshot();
        self.note_mark();
        self.start_copier()?;
        self.ask_next().await
    }

    /// A checkpoint with this snapshot is written.
    pub(super) fn end_order(&mut self, written: &SnapshotRecord) -> Result<()> {
        if let Some(number) = written.ordered
            && self.order_is_kept
        {
            self.order_is_kept = self.snapshot.ordered != written.ordered;
            self.setup.state.checkpoints().take_order(&self.setup.link, number)?;
        }
        Ok(())
    }

    /// The rows that were asked for cannot be read. The link is well without them.
    pub(super) fn give_order_up(&mut self, why: &Error) {
        let why = why.report();
        tracing::error!(link = self.setup.link, reason = why, "the ordered copy has ended");
        self.setup.live.set_note(format!("the copy that was ordered has ended: {why}"));
        self.snapshot.done = true;
        self.snapshot.filter = None;
        self.copying = Copying::Done;
        self.setup.copier = None;
        self.note_mark();
    }
}
