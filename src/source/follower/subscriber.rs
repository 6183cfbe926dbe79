//! One link's place at the stream: what is collected for it, what it has already, and how long the others wait for it.

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
    pub fn new(subscription: Subscription, passed: Option<GtidSet>) -> Self {
        let patience = Patience { left: PATIENCE_MAX, since: Instant::now() };
        Self { subscription, passed, items: Vec::new(), bytes: 0, patience, is_gone: false }
    }

    /// Bytes that were collected and not handed over.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, item: Item) {
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

    /// Hands over what was collected; waits for room as long as that takes.
    pub async fn flush(&mut self) {
        self.hand_over(false).await;
    }

    /// Hands over what was collected, or leaves the link behind if it has kept the others waiting for too long.
    pub async fn flush_or_leave(&mut self) {
        self.hand_over(true).await;
    }

    async fn hand_over(&mut self, may_leave: bool) {
        if self.is_gone {
            self.items.clear();
            self.bytes = 0;
        }
        if self.items.is_empty() {
            return;
        }
        let sent = match self.room(may_leave).await {
            Ok(Some(room)) => {
                let items = std::mem::take(&mut self.items);
                self.bytes = 0;
                self.subscription.queue.send_reserved(items, room)
            }
            Ok(None) => {
                self.subscription.place.take();
                tracing::warn!(
                    link = self.subscription.link,
                    "the link is left behind: it does not keep up with the others of its source"
                );
                Err(Closed)
            }
            Err(closed) => Err(closed),
        };
        self.is_gone |= sent.is_err();
    }

    /// Room for what was collected; None where waiting for it would cost the others too much.
    async fn room(&mut self, may_leave: bool) -> Result<Option<Room>, Closed> {
        let queue = &self.subscription.queue;
        if let Some(room) = queue.try_reserve(self.bytes)? {
            return Ok(Some(room));
        }
        if !may_leave {
            return queue.reserve(self.bytes).await.map(Some);
        }
        let began = Instant::now();
        let room = tokio::time::timeout(self.patience.at(began), queue.reserve(self.bytes)).await;
        self.patience.spend(began.elapsed());
        room.map_or(Ok(None), |room| room.map(Some))
    }
}

/// How long the stream may still wait for a link while others could go on.
struct Patience {
    left: Duration,
    since: Instant,
}

const PATIENCE_MAX: Duration = Duration::from_millis(250);

/// One part in so many of the time that passes may be spent on waiting.
const PATIENCE_SHARE: u32 = 10;

impl Patience {
    fn at(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.since) / PATIENCE_SHARE;
        self.left = (self.left + earned).min(PATIENCE_MAX);
        self.since = now;
        self.left
    }

    fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_used_up_by_waiting_and_comes_back_with_time() {
        let start = Instant::now();
        let mut patience = Patience { left: PATIENCE_MAX, since: start };
        assert_eq!(patience.at(start), PATIENCE_MAX);
        patience.spend(Duration::from_millis(200));
        assert_eq!(patience.at(start), Duration::from_millis(50));
        patience.spend(Duration::from_millis(60));
        assert_eq!(patience.at(start), Duration::ZERO);
        assert_eq!(patience.at(start + Duration::from_secs(1)), Duration::from_millis(100));
        assert_eq!(patience.at(start + Duration::from_secs(60)), PATIENCE_MAX);
    }
}
