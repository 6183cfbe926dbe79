//! Counts the links that the stream they share has left behind, and gives some of them at a time a turn to follow the log
//! by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metrics::metrics;

/// More links than this are not left behind: those that come after make the others wait, for what is slow then is the sink
/// of all.
const PLACES_MAX: usize = 16;

/// Links that read the log by themselves at once.
const TURNS_MAX: usize = 4;

/// All places of one source.
#[derive(Clone)]
pub struct Places {
    taken: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
    turns: Arc<Semaphore>,
}

/// The place of one link, which it has taken or may take; given back when the last handle goes.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    taken: Arc<AtomicUsize>,
    is_taken: AtomicBool,
}

/// A link waits to join the shared stream, while this is there.
pub struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave to read the log; given back when it goes.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(TURNS_MAX));
        Self { taken: Arc::default(), waiting: Arc::default(), turns }
    }
}

impl Places {
    pub fn is_free(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < PLACES_MAX
    }

    pub fn wait(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self.waiting.clone())
    }

    /// Links that wait to join the shared stream.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn place(&self) -> Place {
        let (taken, is_taken) = (self.taken.clone(), AtomicBool::new(false));
        Place(Arc::new(Inner { taken, is_taken }))
    }

    /// Waits for a turn; first come, first served. Cancel safe.
    pub async fn turn(&self) -> Turn {
        let permit = self.turns.clone().acquire_owned().await;
        metrics().source_own_streams.inc();
        Turn { _permit: permit.expect("nobody closes it") }
    }

    pub fn has_turns(&self) -> bool {
        self.turns.available_permits() > 0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        metrics().source_own_streams.dec();
    }
}

impl Place {
    pub fn take(&self) {
        if !self.0.is_taken.swap(true, Ordering::AcqRel) {
            self.0.taken.fetch_add(1, Ordering::Relaxed);
            metrics().source_links_behind.inc();
        }
    }

    pub fn is_taken(&self) -> bool {
        self.0.is_taken.load(Ordering::Acquire)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.is_taken.get_mut() {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            metrics().source_links_behind.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_with_its_last_handle() {
        let places = Places::default();
        let taken: Vec<_> = (0..PLACES_MAX).map(|_| places.place()).collect();
        taken.iter().for_each(Place::take);
        taken[0].take();
        let untaken = places.place();
        assert!(!places.is_free() && taken[0].is_taken() && !untaken.is_taken());
        let last = taken[0].clone();
        drop((taken, untaken));
        assert!(places.is_free());
        assert_eq!(places.taken.load(Ordering::Relaxed), 1);
        drop(last);
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn some_have_a_turn_and_the_next_waits() {
        let places = Places::default();
        let mut turns = Vec::new();
        for _ in 0..TURNS_MAX {
            turns.push(places.turn().await);
        }
        assert!(!places.has_turns());
        let next = places.turn();
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        turns.pop();
        next.await;
    }
}
