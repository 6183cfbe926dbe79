//! When something that works has shown last that it still does. Knows nothing of what it is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A beat costs a look at the clock and one store.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Milliseconds of this process's life, from 1; 0: nothing is at work.
    beat_ms: AtomicU64,
}

impl Pulse {
    /// Nothing, where nothing is at work.
    pub fn beat(&self) {
        if self.beat_ms.load(Ordering::Relaxed) > 0 {
            self.beat_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// It works from here on, until what is given back is dropped.
    pub fn begin(&self) -> AtWork<'_> {
        self.beat_ms.store(now_ms(), Ordering::Relaxed);
        AtWork { pulse: self }
    }

    /// For how long it has stood still; `None` where it has not begun, or has ended.
    pub fn still_for(&self) -> Option<Duration> {
        let beat_ms = self.beat_ms.load(Ordering::Relaxed);
        (beat_ms > 0).then(|| Duration::from_millis(now_ms().saturating_sub(beat_ms)))
    }
}

/// See [`Pulse::begin`].
pub struct AtWork<'p> {
    pulse: &'p Pulse,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.pulse.beat_ms.store(0, Ordering::Relaxed);
    }
}

fn now_ms() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_at_work_can_stand_still() {
        let pulse = Pulse::default();
        assert_eq!(pulse.still_for(), None);
        let at_work = pulse.begin();
        assert!(pulse.still_for().is_some_and(|still| still < Duration::from_secs(5)));
        drop(at_work);
        assert_eq!(pulse.still_for(), None);
    }
}
