//! Notices what stands still with something to do, names it, and has it begin again at its checkpoint.
//!
//! What is watched, and what standing still means:
//!
//! - *The tailer*: the source has executed more than at the look before, and no event has come since, nor a try to connect. One that
//!   waits because a link's queue is full works. A connection that is dead is noticed by the missing heartbeats, earlier.
//! - *The tailer, too*: new connections reach another server than the stream comes from. A tailer that waits for a link does not
//!   read, so it does not notice that its own connection is gone, and a link that asks the other server for rows waits for it.
//! - *A link's worker*: it comes by every tenth of a second whatever it waits for, and has not.
//! - *A lane*: a write has taken longer than all time-outs of the sink together (`lane`). What waits between two tries, for the
//!   model or for its turn is not in a write.
//! - *A copy*: a read has brought nothing (`copy`). What waits for its turn, for the rate, or for commits to be seen does not read.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// New connections reached another server at the look before.
    was_elsewhere: bool,
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
            (self.still_since, self.was_elsewhere) = (None, false);
            return;
        };
        // Asked behind the progress: what is executed by then and was read before was progress at this look or the next.
        let executed = match executed(inner, &server).await {
            Ok(Some(executed)) => executed,
            Ok(None) if std::mem::replace(&mut self.was_elsewhere, true) => {
                *self = Self::default();
                return begin_again(inner, "the source's address leads to another server now");
            }
            Ok(None) => return,
            Err(error) => {
                // The tailer says so itself where it concerns it.
                tracing::debug!(reason = %error.report(), "the watchdog cannot see how far the source is");
                self.still_since = None;
                return;
            }
        };
        self.was_elsewhere = false;
        let has_moved = self.executed.as_ref().is_some_and(|before| *before != executed);
        if progress != self.progress || any_waits_for_a_link() {
            self.still_since = None;
        } else if has_moved {
            self.still_since.get_or_insert_with(Instant::now);
        }
        (self.progress, self.executed) = (progress, Some(executed));
        if self.still_since.is_some_and(|since| since.elapsed() >= patience) {
            self.still_since = None;
            begin_again(inner, "its tailer stood still");
        }
    }
}

/// What the source has executed; None where another server is at its address.
async fn executed(inner: &Inner, server: &Server) -> Result<Option<GtidSet>> {
    let config = &inner.parts.source;
    let asked = async {
        // A new one each time, for one that stands says nothing of where the address leads.
        let mut conn = control::connect(config).await?;
        if Server::of(&mut conn).await?.identity != server.identity {
            return Ok(None);
        }
        let executed = watermark::executed(&mut conn, server).await?;
        let _ = conn.disconnect().await;
        Ok(Some(executed))
    };
    control::in_time(config.connect_timeout(), asked).await
}

fn begin_again(inner: &Inner, why: &str) {
    tracing::error!(
        stage = "tailer",
        why,
        "the watchdog has found a stage that stands still; the stream begins again"
    );
    metrics().watchdog_restarted("tailer");
    for entry in lock(&inner.links).values().filter(|entry| !entry.live.phase().is_at_rest()) {
        entry.live.wait_for(format!("the watchdog begins the stream again: {why}"));
    }
    inner.ask_new_stream();
}
