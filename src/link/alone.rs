//! A link that follows the log by itself because the stream that all share has gone on without it, and its way back.
//!
//! Why nothing is lost or done twice on the way back: both streams count the same bytes, for they are of one server and
//! one epoch, so a place in one means the same in the other. The link first joins the shared stream, at a boundary of it,
//! and goes on with its own until it is at that boundary or beyond. Then it takes the shared stream's items, without those
//! that stand before the boundary that it has reached. That is one between transactions, so no transaction is cut.

use std::collections::BTreeSet;
use std::sync::Weak;

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::link::end::End;
use crate::link::supervisor::Inner;
use crate::link::upstream::Joined;
use crate::link::worker::Worker;
use crate::source::tailer::Tailer;
use crate::table::TableId;

/// A stream of one link.
pub(super) struct Alone {
    pub tailer: Tailer,
    pub way_back: WayBack,
}

/// Where the shared stream is, and what the link wants of it.
pub(super) struct WayBack {
    pub inner: Weak<Inner>,
    pub link: String,
    pub table: TableId,
    pub others: BTreeSet<TableId>,
    pub joining: Joining,
}

pub(super) enum Joining {
    Far,
    Asked(oneshot::Receiver<Joined>),
    Joined(Box<Joined>),
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.tailer.abandon();
    }
}

/// The link asks to come back when it is no farther behind than this, in counted bytes of log.
const NEAR_BYTES: u64 = 4 << 20;

impl WayBack {
    fn ask_if_near(&self, at: u64) -> Option<oneshot::Receiver<Joined>> {
        let inner = self.inner.upgrade()?;
        let (answer, asked) = oneshot::channel();
        let (link, table, others) = (self.link.clone(), self.table.clone(), self.others.clone());
        tokio::spawn(async move {
            if let Some(joined) = inner.join_if_near((&link, &table, &others), at, NEAR_BYTES).await
            {
                let _ = answer.send(joined);
            }
        });
        Some(asked)
    }
}

impl Worker {
    /// Now and then, between two items: looks whether the shared stream can be taken, and takes it.
    pub(super) fn come_back(&mut self) -> Result<(), End> {
        let Some(alone) = &mut self.setup.alone else { return Ok(()) };
        let way_back = &mut alone.way_back;
        way_back.joining = match std::mem::replace(&mut way_back.joining, Joining::Far) {
            Joining::Far => way_back.ask_if_near(self.at.n).map_or(Joining::Far, Joining::Asked),
            Joining::Asked(mut asked) => match asked.try_recv() {
                Ok(joined) => Joining::Joined(Box::new(joined)),
                Err(oneshot::error::TryRecvError::Empty) => Joining::Asked(asked),
                Err(oneshot::error::TryRecvError::Closed) => Joining::Far,
            },
            Joining::Joined(joined) if joined.input.is_closed() => Joining::Far,
            Joining::Joined(joined) if joined.began.checkpoint.epoch != self.at.epoch => {
                let what = "the stream that all share is of another epoch than the link's own";
                return Err(End::Rewind(Error::new(ErrorKind::SourceUnreachable, what)));
            }
            // It has waited for another link meanwhile.
            Joining::Joined(joined) if joined.began.checkpoint.n + NEAR_BYTES < self.at.n => {
                Joining::Far
            }
            Joining::Joined(joined)
                if self.is_at_boundary && joined.began.checkpoint.n <= self.at.n =>
            {
                self.share(*joined);
                return Ok(());
            }
            joining @ Joining::Joined(_) => joining,
        };
        Ok(())
    }

    fn share(&mut self, joined: Joined) {
        tracing::info!(
            link = self.setup.link,
            "the link has caught up, and shares the stream again"
        );
        self.begins_at = self.at.n;
        self.setup.input = joined.input;
        self.setup.place = joined.place;
        self.setup.alone = None;
        self.setup.live.trouble_is_over();
    }

    /// The stream has nothing more for the link.
    pub(super) async fn left_behind(&mut self) -> End {
        if !self.setup.place.is_taken() {
            return Error::new(ErrorKind::SourceUnreachable, "the tailer has ended").into();
        }
        if let Err(end) = self.acknowledged().await {
            return end;
        }
        let what = "the link did not keep up, and follows the log by itself from here";
        End::Again(Error::new(ErrorKind::SourceUnreachable, what))
    }
}
