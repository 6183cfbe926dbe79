//! Which checkpoint may be written: boundaries in order, each with the batch of every lane that must be done before.
//! Knows nothing of what a mark means.

use std::collections::VecDeque;

/// Marks that wait for their lanes.
///
/// Why a mark that is handed out is safe: a lane numbers its batches from 1 and reports `done` = the highest number up
/// to which *every* batch is acknowledged. A mark is noted with the number that each lane's batches had reached when
/// everything before the mark had been put into them. So `done ≥ number` in all lanes means that everything before the
/// mark is acknowledged, however the lanes' answers interleave. Marks come out in the order in which they went in.
#[derive(Debug)]
pub struct Acks<M> {
    waiting: VecDeque<(M, Vec<u64>)>,
}

impl<M> Default for Acks<M> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<M> Acks<M> {
    /// Notes `mark`: everything before it is in the lanes' batches up to `reached`, lane by lane.
    pub fn note(&mut self, mark: M, reached: Vec<u64>) {
        self.waiting.push_back((mark, reached));
    }

    /// Takes out every mark whose batches are done, and returns the last of them.
    pub fn take_done(&mut self, done: &[u64]) -> Option<M> {
        let mut last = None;
        while let Some((_, reached)) = self.waiting.front() {
            let is_done = reached.iter().zip(done).all(|(reached, done)| done >= reached);
            if !is_done {
                break;
            }
            last = self.waiting.pop_front().map(|(mark, _)| mark);
        }
        last
    }

    /// The oldest mark that is not done.
    pub fn oldest(&self) -> Option<&M> {
        self.waiting.front().map(|(mark, _)| mark)
    }

    pub fn iter(&self) -> impl Iterator<Item = &M> {
        self.waiting.iter().map(|(mark, _)| mark)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a newer mark take the place of the newest waiting one, where the two wait for the same batches.
    pub fn replace_newest(&mut self, merge: impl FnOnce(&mut M) -> bool, reached: &[u64]) -> bool {
        match self.waiting.back_mut() {
            Some((mark, waits_for)) if waits_for == reached => merge(mark),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_waits_for_every_lane_and_for_the_marks_before_it() {
        let mut acks = Acks::default();
        acks.note('a', vec![1, 0]);
        acks.note('b', vec![1, 2]);
        acks.note('c', vec![1, 2]);
        assert_eq!(acks.take_done(&[0, 2]), None);
        assert_eq!(acks.take_done(&[1, 1]), Some('a'));
        assert_eq!(acks.oldest(), Some(&'b'));
        assert_eq!(acks.take_done(&[9, 9]), Some('c'));
        assert!(acks.is_empty());
    }
}
