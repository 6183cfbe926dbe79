//! One link's place at the stream: what is collected for it, what it has already, and how long the others wait for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::flow::queue::{Closed, Room};
use crate::position::{Gtid, GtidSet};
use crate::source::stream::Item;
use crate::source::tailer::Subscription;

pub(super) struct Subscriber {
    pub subscription: Subscription,
    /// Until the stream has passed this set, transactions in it were handed over in an earlier life.
    pub passed: Option<GtidSet>,
    items: Vec<Item>,
    bytes: usize,
    patience: Patience,
    pub is_gone: bool,
}

impl Subscriber {
    /// With the time that may be spent on waiting for it.
    pub fn new(subscription: Subscription, passed: Option<GtidSet>, patience: Patience) -> Self {
        Self { subscription, passed, items: Vec::new(), bytes: 0, patience, is_gone: false }
    }

    /// Bytes that were collected and not handed over.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, item: Item) {
        if self.is_gone {
            return;
        }
        self.bytes += item.size_bytes();
        self.items.push(item);
    }

    pub fn wants(&self, gtid: Option<&Gtid>) -> bool {
        match (&self.passed, gtid) {
            (Some(passed), Some(gtid)) => !passed.contains(gtid),
            _ => true,
        }
    }

    /// Everything that the link has when it has the open transaction too.
    pub fn behind(&self, at: &GtidSet, open: &Gtid) -> GtidSet {
        let mut behind = at.clone();
        behind.pass(open);
        if let Some(passed) = &self.passed {
            behind.union(passed);
        }
        behind
    }

    /// Hands over what was collected, if there is room before the link's patience ends; false where there is not. Then the
    /// link can be left behind, or it can be tried again.
    pub async fn hand_over(&mut self) -> bool {
        if self.items.is_empty() {
            return true;
        }
        let sent = match self.room().await {
            Ok(None) => return false,
            Ok(Some(room)) => {
                self.bytes = 0;
                self.subscription.queue.send_reserved(std::mem::take(&mut self.items), room)
            }
            Err(closed) => Err(closed),
        };
        if sent.is_err() {
            self.go();
        }
        true
    }

    /// The stream goes on without the link.
    pub fn leave(&mut self) {
        tracing::warn!(
            link = self.subscription.link,
            "the link is left behind: its queue was full for too long"
        );
        self.subscription.place.take();
        self.go();
    }

    fn go(&mut self) {
        self.is_gone = true;
        (self.items, self.bytes) = (Vec::new(), 0);
    }

    async fn room(&mut self) -> Result<Option<Room>, Closed> {
        let queue = &self.subscription.queue;
        if let Some(room) = queue.try_reserve(self.bytes)? {
            return Ok(Some(room));
        }
        let _waits = Waits::begin();
        loop {
            let (began, waiting) = (Instant::now(), queue.bytes());
            let patience = self.patience.at(began);
            let room = tokio::time::timeout(patience, queue.reserve(self.bytes)).await;
            self.patience.spend(began.elapsed());
            match room {
                Ok(room) => return room.map(Some),
                Err(_) if self.patience.is_for_stillness && queue.bytes() < waiting => {}
                Err(_) => return Ok(None),
            }
        }
    }
}

/// Streams of this process that wait for a link just now.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whether any stream waits because a link's queue is full.
pub fn any_waits() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

struct Waits;

impl Waits {
    fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long the stream waits for a link.
pub(super) struct Patience {
    left: Duration,
    max: Duration,
    since: Instant,
    /// Each wait has its own, for as long as the link takes nothing at all; else what is spent comes back with time.
    is_for_stillness: bool,
}

/// One part in so many of the time that passes may be spent on waiting.
const PATIENCE_SHARE: u32 = 10;

impl Patience {
    /// With a link that keeps others waiting.
    pub fn among_others() -> Self {
        let max = Duration::from_millis(250);
        Self { left: max, max, since: Instant::now(), is_for_stillness: false }
    }

    /// With a link whose stream is its own.
    pub fn alone() -> Self {
        let max = Duration::from_secs(10);
        Self { left: max, max, since: Instant::now(), is_for_stillness: true }
    }

    fn at(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.since) / PATIENCE_SHARE;
        self.left = (self.left + earned).min(self.max);
        self.since = now;
        self.left
    }

    fn spend(&mut self, waited: Duration) {
        if self.is_for_stillness {
            return;
        }
        self.left = self.left.saturating_sub(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_used_up_by_waiting_and_comes_back_with_time() {
        let mut patience = Patience::among_others();
        let (start, max) = (patience.since, patience.max);
        assert_eq!(patience.at(start), max);
        patience.spend(Duration::from_millis(200));
        assert_eq!(patience.at(start), Duration::from_millis(50));
        patience.spend(Duration::from_millis(60));
        assert_eq!(patience.at(start), Duration::ZERO);
        assert_eq!(patience.at(start + Duration::from_secs(1)), Duration::from_millis(100));
        assert_eq!(patience.at(start + Duration::from_secs(60)), max);
    }
}
