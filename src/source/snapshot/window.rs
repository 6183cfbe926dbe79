//! The window of one chunk: which of its rows may be written, and when. Pure; the argument why it is right stands here.
//!
//! A change passes three stages on the server: it is written to the **log** (and may reach us from there), it is
//! committed in the **engine** (a SELECT sees it), and its transaction becomes **executed** (`gtid_executed` names it).
//! The order of the first two is fixed, executed comes last, and any time may pass in between. A SELECT may therefore
//! miss a change that the stream has already delivered, and may show one that the stream has not delivered yet.
//!
//! The window:
//!
//! 1. *Open* at a boundary P of the stream, and from then on record the id of every row image, before and after, of
//!    the whole table.
//! 2. *Select* only when the server has executed everything that was delivered up to P.
//! 3. Read the executed set H after the SELECT.
//! 4. When the stream has *covered* H, write the rows whose id was not recorded.
//!
//! Take a row that is written in 4, as the SELECT saw it, and any change of it. If the stream delivered the change up
//! to P, then it was executed before the SELECT (2), so the SELECT saw it or something newer. If the stream delivered it
//! between P and 4, its id is recorded (1), and the row is not written. If the stream has not delivered it by 4, it is
//! not in H (the stream covers H), the stream will deliver it later, and its version is above the row's. So what is
//! written is never older than what the index has, and nothing that the SELECT missed is missing. A row that was
//! deleted is treated likewise: its id is recorded, or the SELECT did not see it, or the delete is still to come.
//!
//! `tests/it/window_model.rs` tries this function in all interleavings of a small world, beside naive readings.

use hashbrown::HashSet;

use crate::position::GtidSet;

/// One window, opened at a boundary.
#[derive(Debug)]
pub struct Window {
    delivered: GtidSet,
    /// The document ids that changed since the window was opened.
    recorded: HashSet<Box<str>, foldhash::fast::RandomState>,
    recorded_bytes: usize,
    recorded_bytes_max: usize,
    overflowed: bool,
}

impl Window {
    /// Opens at the boundary up to which the stream has delivered `delivered`. At most `recorded_bytes_max` bytes of
    /// ids are kept.
    pub fn open(delivered: GtidSet, recorded_bytes_max: usize) -> Self {
        Self {
            delivered,
            recorded: HashSet::default(),
            recorded_bytes: 0,
            recorded_bytes_max,
            overflowed: false,
        }
    }

    /// What the server must have executed before the SELECT.
    pub fn must_be_executed(&self) -> &GtidSet {
        &self.delivered
    }

    /// Notes that the stream delivered a change of the row with this id.
    pub fn record(&mut self, id: &str) {
        if self.overflowed || self.recorded.contains(id) {
            return;
        }
        self.recorded_bytes += id.len() + size_of::<Box<str>>();
        self.recorded.insert(id.into());
        if self.recorded_bytes > self.recorded_bytes_max {
            self.overflowed = true;
            self.recorded = HashSet::default();
        }
    }

    /// More changed than the window can remember: throw the chunk away and take a smaller one.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Whether the chunk's rows may be written now.
    pub fn is_covered(&self, executed_after_select: &GtidSet, streamed: &GtidSet) -> bool {
        streamed.covers(executed_after_select)
    }

    /// Whether the row with this id may be written.
    pub fn may_write(&self, id: &str) -> bool {
        !self.overflowed && !self.recorded.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_row_is_not_written_and_an_overflow_writes_nothing() {
        let mut window = Window::open(GtidSet::default(), 100);
        window.record("a");
        assert!(!window.may_write("a") && window.may_write("b"));
        (0..20).for_each(|id| window.record(&id.to_string()));
        assert!(window.has_overflowed() && !window.may_write("b"));
    }
}
