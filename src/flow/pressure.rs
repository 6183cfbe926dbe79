//! How many requests may be under way to one receiver, how large each may be, and until when none may: found by what
//! became of those before. Knows nothing of what they hold.
//!
//! Requests and bytes are two [`Aimd`] bounds: a receiver that has too much to do is sent half as many at once, and half as
//! much with each. One request is always let through. What the receiver asks for by `Retry-After` holds for all requests.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::flow::aimd::Aimd;

pub struct Pressure {
    requests: Aimd,
    bytes: Aimd,
    under_way: AtomicUsize,
    /// Told when there is room for one more request.
    freed: Notify,
    /// No request begins before, in milliseconds since `began`.
    held_until_ms: AtomicU64,
    began: Instant,
}

/// Requests are never made smaller than this part of what is configured: below that most of a request is its head.
const BYTES_PARTS_MAX: usize = 64;

/// From the smallest request to the largest it takes so many rounds without trouble.
const BYTES_STEPS: usize = 32;

impl Pressure {
    /// At most so many requests of so many bytes.
    pub fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self {
            requests: Aimd::new(1, requests_max, 1),
            bytes: Aimd::new(bytes_max / BYTES_PARTS_MAX, bytes_max, bytes_max / BYTES_STEPS),
            under_way: AtomicUsize::new(0),
            freed: Notify::new(),
            held_until_ms: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Requests that may be under way now.
    pub fn requests(&self) -> usize {
        self.requests.now()
    }

    /// What one of them may hold now; `None` where that is as much as was ever allowed.
    pub fn bytes_if_less(&self) -> Option<usize> {
        (!self.bytes.is_at_max()).then(|| self.bytes.now())
    }

    pub fn bytes(&self) -> usize {
        self.bytes.now()
    }

    /// A turn, if there is one now. Locks nothing.
    pub fn try_turn(&self) -> Option<Turn<'_>> {
        if self.hold_left().is_some() {
            return None;
        }
        let limit = self.requests.now();
        let take = |under_way: usize| (under_way < limit).then_some(under_way + 1);
        self.under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Turn {
            pressure: self,
            requests_seen: self.requests.cuts(),
            bytes_seen: self.bytes.cuts(),
        })
    }

    /// Waits for a turn. Cancel safe.
    pub async fn turn(&self) -> Turn<'_> {
        loop {
            if let Some(left) = self.hold_left() {
                tokio::time::sleep(left).await;
                continue;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Whoever is freed from here on is not missed.
            freed.as_mut().enable();
            if let Some(turn) = self.try_turn() {
                return turn;
            }
            if self.hold_left().is_none() {
                freed.await;
            }
        }
    }

    /// No request begins before this time has passed.
    pub fn hold(&self, wait: Duration) {
        let until = self.began.elapsed() + wait;
        self.held_until_ms.fetch_max(until.as_millis() as u64, Ordering::AcqRel);
    }

    fn hold_left(&self) -> Option<Duration> {
        let until = self.held_until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let left = Duration::from_millis(until).checked_sub(self.began.elapsed());
        left.filter(|left| !left.is_zero())
    }
}

/// A request under way. Dropping it is being done with it, without having learnt anything.
pub struct Turn<'p> {
    pressure: &'p Pressure,
    requests_seen: u64,
    bytes_seen: u64,
}

impl Turn<'_> {
    /// The receiver has taken it.
    pub fn went_well(self) {
        let pressure = self.pressure;
        if pressure.requests.is_at_max() && pressure.bytes.is_at_max() {
            return;
        }
        // A round is as many requests as may be under way.
        let round = pressure.requests.now();
        pressure.bytes.grow(round);
        if pressure.requests.grow(round) {
            pressure.freed.notify_one();
        }
    }

    /// The receiver has too much to do.
    pub fn was_too_much(self) {
        self.pressure.requests.cut(self.requests_seen);
        self.pressure.bytes.cut(self.bytes_seen);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pressure.under_way.fetch_sub(1, Ordering::AcqRel);
        self.pressure.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_requests_than_the_bound_are_under_way_and_one_always_is() {
        let pressure = Pressure::new(4, 1 << 20);
        let mut turns: Vec<_> = std::iter::from_fn(|| pressure.try_turn()).collect();
        assert_eq!(turns.len(), 4);
        // All four failed together, which counts once.
        for turn in turns.drain(..) {
            turn.was_too_much();
        }
        assert_eq!((pressure.requests(), pressure.bytes()), (2, 1 << 19));
        for _ in 0..10 {
            pressure.turn().await.was_too_much();
        }
        assert_eq!((pressure.requests(), pressure.bytes()), (1, (1 << 20) / BYTES_PARTS_MAX));
        let only = pressure.turn().await;
        let next = pressure.turn();
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        only.went_well();
        next.await.went_well();
    }

    #[tokio::test]
    async fn what_goes_well_brings_everything_back() {
        let pressure = Pressure::new(4, 1 << 20);
        for _ in 0..5 {
            pressure.turn().await.was_too_much();
        }
        let mut requests = 0;
        while pressure.bytes_if_less().is_some() || pressure.requests() < 4 {
            pressure.turn().await.went_well();
            requests += 1;
            assert!(requests < 1_000, "it does not come back");
        }
        pressure.turn().await.went_well();
        assert_eq!((pressure.requests(), pressure.bytes()), (4, 1 << 20));
    }

    #[tokio::test]
    async fn a_wish_to_be_left_alone_holds_for_all() {
        let pressure = Pressure::new(4, 1 << 20);
        pressure.hold(Duration::from_millis(30));
        assert!(pressure.try_turn().is_none());
        let began = Instant::now();
        drop(pressure.turn().await);
        assert!(began.elapsed() >= Duration::from_millis(30));
    }
}
