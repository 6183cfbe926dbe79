//! Counts the links that were left behind by the stream they share, and follow the log by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::telemetry::metrics::metrics;

/// More links than this are not left behind: those that come after make the others wait. Each reads the whole log once
/// more.
const PLACES_MAX: usize = 16;

/// All places of one source.
#[derive(Clone, Default)]
pub struct Places(Arc<AtomicUsize>);

/// The place of one link, which it has taken or may take; given back when the last handle goes.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    places: Places,
    is_taken: AtomicBool,
}

impl Places {
    pub fn is_free(&self) -> bool {
        self.0.load(Ordering::Relaxed) < PLACES_MAX
    }

    pub fn place(&self) -> Place {
        Place(Arc::new(Inner { places: self.clone(), is_taken: AtomicBool::new(false) }))
    }
}

impl Place {
    pub fn take(&self) {
        if !self.0.is_taken.swap(true, Ordering::AcqRel) {
            self.0.places.0.fetch_add(1, Ordering::Relaxed);
            metrics().source_own_streams.inc();
        }
    }

    pub fn is_taken(&self) -> bool {
        self.0.is_taken.load(Ordering::Acquire)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.is_taken.get_mut() {
            self.places.0.fetch_sub(1, Ordering::Relaxed);
            metrics().source_own_streams.dec();
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
        assert_eq!(places.0.load(Ordering::Relaxed), 1);
        drop(last);
        assert_eq!(places.0.load(Ordering::Relaxed), 0);
    }
}
