//! How long to wait before the next try: exponential back-off with full jitter, a cap, and the server's own wish
//! (`Retry-After`). Knows no clock and no network: the caller waits.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// A server may ask for any patience; more than this would look like a hang to an operator.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The waits of one sequence of tries. Full jitter (any wait between nothing and the step) keeps many waiters from
/// coming back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// The longest possible first wait; each step doubles it.
    base: Duration,
    cap: Duration,
    /// How many waits were handed out since the last success.
    tries: u32,
    random: RandomState,
}

impl Backoff {
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, tries: 0, random: RandomState::new() }
    }

    /// The wait before the next try. A server's wish is a lower bound: the jitter comes on top of it, at most one
    /// base step, so that all who were told the same second do not come in the same millisecond.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let step = self
            .base
            .saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX))
            .min(self.cap);
        let share = (self.random.hash_one(self.tries) >> 11) as f64 / (1u64 << 53) as f64;
        self.tries = self.tries.saturating_add(1);
        match retry_after {
            Some(wish) => wish.min(RETRY_AFTER_MAX) + self.base.min(self.cap).mul_f64(share),
            None => step.mul_f64(share),
        }
    }

    /// How many waits were handed out since the beginning or the last [`Self::reset`].
    pub fn tries(&self) -> u32 {
        self.tries
    }

    pub fn reset(&mut self) {
        self.tries = 0;
        self.random = RandomState::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(2);

    #[test]
    fn no_wait_is_longer_than_its_step_or_the_cap() {
        for _ in 0..50 {
            let mut backoff = Backoff::new(BASE, CAP);
            for tries in 0..80 {
                let step =
                    BASE.saturating_mul(1u32.checked_shl(tries).unwrap_or(u32::MAX)).min(CAP);
                assert!(backoff.next(None) <= step, "try {tries}");
            }
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_step() {
        let waits: Vec<_> = (0..200).map(|_| Backoff::new(BASE, CAP).next(None)).collect();
        assert!(waits.iter().any(|wait| *wait < BASE / 4));
        assert!(waits.iter().any(|wait| *wait > BASE * 3 / 4));
    }

    #[test]
    fn what_the_server_asks_for_is_waited_but_not_for_ever() {
        let mut backoff = Backoff::new(BASE, CAP);
        let wait = backoff.next(Some(Duration::from_secs(7)));
        assert!(wait >= Duration::from_secs(7) && wait <= Duration::from_secs(7) + BASE);
        assert!(backoff.next(Some(Duration::from_secs(1 << 40))) <= RETRY_AFTER_MAX + BASE);
    }
}
