//! Notices what stands still with something to do, names it, and has it begin again at its checkpoint.
//!
//! What is watched, and what standing still means:
//!
//! - *The tailer*: the source has executed more than at the look before, and no event has come since, nor a try to connect. One that
//!   waits because a link's queue is full works. A connection that is dead is noticed by the missing heartbeats, earlier.
//! - *A link's worker*: it comes by every tenth of a second whatever it waits for, and has not.
//! - *A lane*: a write has taken longer than all time-outs of the sink together (`lane`). What waits between two tries, for the
//!   model or for its turn is not in a write.
//! - *A copy*: a read has brought nothing (`copy`). What waits for its turn, for the rate, or for commits to be seen does not read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Conn;

use crate::error::{Error, ErrorKind, Result};
use crate::link::end::End;
use crate::link::supervisor::{Inner, lock};
use crate::position::GtidSet;
use crate::source::control;
use crate::source::server::Server;
use crate::source::snapshot::watermark;
use crate::source::tailer::any_waits_for_a_link;
use crate::telemetry::metrics::metrics;

/// So many looks in the time that something may stand still.
const LOOKS: u32 = 4;
const LOOK_EVERY_MAX: Duration = Duration::from_secs(10);

/// Looks for as long as the process lives, if somebody wants that.
pub(super) async fn watch(inner: Arc<Inner>) {
    let Some(patience) = inner.parts.link.watchdog() else { return };
    let mut tailer = TailerWatch::default();
    loop {
        tokio::time::sleep((patience / LOOKS).min(LOOK_EVERY_MAX)).await;
        look_at_workers(&inner, patience);
        if inner.parts.source.files().is_none() {
            tailer.look(&inner, patience).await;
        }
    }
}

fn look_at_workers(inner: &Inner, patience: Duration) {
    for (link, entry) in lock(&inner.links).iter() {
        let Some(still) = entry.live.pulse.still_for().filter(|still| *still >= patience) else {
            continue;
        };
        tracing::error!(
            link,
            stage = "worker",
            still_s = still.as_secs(),
            "the watchdog has found a stage that stands still; the link begins again"
        );
        metrics().watchdog_restarted("worker");
        // Not again while it ends.
        entry.live.pulse.beat();
        entry.live.given_up.notify_waiters();
    }
}

/// How a link's run ends whose worker does not come back.
pub(super) fn worker_stood_still() -> End {
    let what = "the watchdog begins the link again: its worker stood still";
    End::Again(Error::new(ErrorKind::SourceUnreachable, what))
}

#[derive(Default)]
struct TailerWatch {
    conn: Option<Conn>,
    /// At the look before.
    progress: u64,
    executed: Option<GtidSet>,
    /// Since when the source goes on and the tailer does not.
    still_since: Option<Instant>,
}

impl TailerWatch {
    async fn look(&mut self, inner: &Arc<Inner>, patience: Duration) {
        // Somebody who starts or stops the tailer has the lock.
        let found = inner.run.try_lock().ok().and_then(|run| {
            let tailer = run.tailer.as_ref().filter(|tailer| !tailer.has_ended())?;
            Some((tailer.progress(), run.server.clone()?))
        });
        let Some((progress, server)) = found else {
            self.still_since = None;
            return;
        };
        // Asked behind the progress: what is executed by then and was read before was progress at this look or the next.
        let executed = match self.executed(inner, &server).await {
            Ok(executed) => executed,
            Err(error) => {
                // The tailer says so itself where it concerns it.
                tracing::debug!(reason = %error.report(), "the watchdog cannot see how far the source is");
                (self.conn, self.still_since) = (None, None);
                return;
            }
        };
        let has_moved = self.executed.as_ref().is_some_and(|before| *before != executed);
        if progress != self.progress || any_waits_for_a_link() {
            self.still_since = None;
        } else if has_moved {
            self.still_since.get_or_insert_with(Instant::now);
        }
        (self.progress, self.executed) = (progress, Some(executed));
        if self.still_since.is_some_and(|since| since.elapsed() >= patience) {
            self.still_since = None;
            self.begin_again(inner);
        }
    }

    async fn executed(&mut self, inner: &Inner, server: &Server) -> Result<GtidSet> {
        let config = &inner.parts.source;
        let asked = async {
            if self.conn.is_none() {
                self.conn = Some(control::connect(config).await?);
            }
            let conn = self.conn.as_mut().expect("it was just opened");
            watermark::executed(conn, server).await
        };
        control::in_time(config.connect_timeout(), asked).await
    }

    fn begin_again(&self, inner: &Inner) {
        tracing::error!(
            stage = "tailer",
            "the watchdog has found a stage that stands still while the source goes on; the stream begins again"
        );
        metrics().watchdog_restarted("tailer");
        for entry in lock(&inner.links).values().filter(|entry| !entry.live.phase().is_at_rest()) {
            entry.live.wait_for(
                "the watchdog begins the stream again: its tailer stood still".to_owned(),
            );
        }
        inner.ask_new_stream();
    }
}
