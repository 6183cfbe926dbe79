//! One budget of bytes for all links of the process: a part that each link has for itself, and a pool from which those that
//! have much to do borrow. Knows nothing of what is held.
//!
//! Why no link can starve another: nobody ever waits for a loan. What a link has for itself is enough to go on with, in small
//! pieces, whatever the others hold; a loan makes the pieces larger, and goes back with the piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub struct Budget {
    limit: usize,
    /// How many share it.
    links: AtomicUsize,
    /// In units of [`UNIT`], for a semaphore counts to 2³² only.
    pool: Arc<Semaphore>,
}

/// Bytes from the pool, until it is dropped.
pub struct Loan {
    _permit: OwnedSemaphorePermit,
}

const UNIT: usize = 1 << 10;

/// No share is smaller, however many links there are: each must be able to go on.
const SHARE_MIN: usize = 256 << 10;

impl Budget {
    pub fn new(limit: usize) -> Self {
        let units = (limit / 2 / UNIT).min(Semaphore::MAX_PERMITS);
        let pool = Arc::new(Semaphore::new(units));
        Self { limit, links: AtomicUsize::new(1), pool }
    }

    /// So many links share it from now on.
    pub fn set_links(&self, count: usize) {
        self.links.store(count.max(1), Ordering::Relaxed);
    }

    /// What a link's lanes may hold without a loan: a quarter of the limit for all, and no more for a few.
    pub fn lanes_share(&self) -> usize {
        (self.of_all(4)).min(self.limit / 16).max(SHARE_MIN)
    }

    /// What a link may hold of the stream before it is decoded: an eighth for all.
    pub fn events_share(&self) -> usize {
        self.of_all(8).max(SHARE_MIN)
    }

    /// What a link may hold of its table while it copies: an eighth for all.
    pub fn copy_share(&self) -> usize {
        self.of_all(8).max(SHARE_MIN)
    }

    fn of_all(&self, part: usize) -> usize {
        self.limit / part / self.links.load(Ordering::Relaxed)
    }

    /// Room for so many bytes beyond what the link has for itself, if it is there now.
    pub fn try_borrow(&self, bytes: usize) -> Option<Loan> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        let permit = self.pool.clone().try_acquire_many_owned(units).ok()?;
        Some(Loan { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn all_together_stay_below_the_limit_and_each_can_go_on() {
        for links in [1, 4, 10, 100] {
            let budget = Budget::new(512 * MIB);
            budget.set_links(links);
            let shares = budget.lanes_share() + budget.events_share() + budget.copy_share();
            assert!(links * shares + 256 * MIB <= 512 * MIB, "{links}");
            assert!(budget.lanes_share() >= SHARE_MIN);
        }
    }

    #[test]
    fn what_is_borrowed_is_there_again_when_it_is_given_back() {
        let budget = Budget::new(16 * MIB);
        let loans: Vec<_> = std::iter::from_fn(|| budget.try_borrow(3 * MIB)).collect();
        assert_eq!(loans.len(), 2);
        assert!(budget.try_borrow(2 * MIB).is_some(), "what is left is lent in smaller pieces");
        drop(loans);
        assert!(budget.try_borrow(8 * MIB).is_some());
    }
}
