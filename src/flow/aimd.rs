//! How much at once, found by trying: halved when the other side has too much to do, raised by small steps while all goes
//! well. Knows nothing of what is counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A bound that moves between `floor` and `max`. Nothing in it locks; where all goes well at `max` it is only read.
#[derive(Debug)]
pub struct Aimd {
    now: AtomicUsize,
    floor: usize,
    max: usize,
    step: usize,
    /// How often it was halved.
    cuts: AtomicU64,
    /// Successes since it was changed last.
    good: AtomicUsize,
}

impl Aimd {
    /// Begins at `max`, which is what somebody has configured.
    pub fn new(floor: usize, max: usize, step: usize) -> Self {
        let max = max.max(1);
        Self {
            now: AtomicUsize::new(max),
            floor: floor.clamp(1, max),
            max,
            step: step.max(1),
            cuts: AtomicU64::new(0),
            good: AtomicUsize::new(0),
        }
    }

    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub fn is_at_max(&self) -> bool {
        self.now() >= self.max
    }

    /// What [`Self::cut`] is told by an attempt that begins now.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// An attempt that began when there had been `seen` cuts met too much. Of all that were under way together the first
    /// one to say so halves, and the others mean the same. Says whether it is another number now.
    pub fn cut(&self, seen: u64) -> bool {
        let is_first =
            self.cuts.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !is_first {
            return false;
        }
        self.good.store(0, Ordering::Relaxed);
        let halve = |now: usize| Some((now / 2).max(self.floor));
        let before = self.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, halve);
        before.is_ok_and(|before| before > self.floor)
    }

    /// An attempt went well; each `round` of them raises by a step. Says whether it is another number now.
    pub fn grow(&self, round: usize) -> bool {
        if self.is_at_max() || self.good.fetch_add(1, Ordering::AcqRel) + 1 < round {
            return false;
        }
        self.good.store(0, Ordering::Relaxed);
        let raise = |now: usize| (now < self.max).then(|| (now + self.step).min(self.max));
        self.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_at_once_and_comes_back_by_steps() {
        let bound = Aimd::new(1, 8, 1);
        assert!(bound.cut(bound.cuts()) && bound.now() == 4);
        assert!(!bound.grow(3) && !bound.grow(3) && bound.grow(3));
        assert_eq!(bound.now(), 5);
        while bound.now() < 8 {
            bound.grow(1);
        }
        assert!(!bound.grow(1) && bound.is_at_max());
    }

    #[test]
    fn what_was_under_way_together_halves_it_once() {
        let bound = Aimd::new(1, 8, 1);
        let seen = bound.cuts();
        assert!(bound.cut(seen));
        assert!(!bound.cut(seen) && !bound.cut(seen));
        assert_eq!(bound.now(), 4);
    }

    #[test]
    fn it_stays_within_its_ends() {
        let bound = Aimd::new(3, 8, 100);
        for _ in 0..9 {
            bound.cut(bound.cuts());
        }
        assert_eq!(bound.now(), 3);
        assert!(!bound.cut(bound.cuts()), "it is no other number");
        assert!(bound.grow(1));
        assert_eq!(bound.now(), 8);
    }
}
