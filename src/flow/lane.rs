//! The order inside one lane: which batch may be sent, and which operation is still wanted. Pure; sends nothing.
//!
//! Why a document's operations can neither overtake each other nor be resurrected while this process lives:
//!
//! 1. A document belongs to one lane, and its operations enter the lane in commit order.
//! 2. [`Lane::take`] gives out batches in that order, and only when none of the batch's documents is in flight. So at
//!    most one operation of a document is on its way, and the next one starts when that has been answered. Versions and
//!    tombstones are not needed for this order; they protect what an earlier life of ours may still have under way.
//! 3. An operation that waits, in the queue or between two tries, is dropped as soon as a newer one of its document is
//!    queued ([`Lane::is_wanted`]). The newer one stands behind it in the log, so a checkpoint that passes the dropped
//!    one does not pass the newer one before that is acknowledged.
//!
//! After a crash the replay begins at the checkpoint and holds the newest operation of every document that was not
//! acknowledged, so the end is the same.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::{HashMap, HashSet};

use crate::document::{Batch, DocOp, Key, KeyHasher};
use crate::naive::{Rule, is_naive};
use crate::position::Version;

/// The number of a batch in its lane, from 1.
pub type Number = u64;

pub struct Lane {
    queued: VecDeque<(Number, Batch)>,
    queued_bytes: usize,
    /// The newest queued version of each document that has an operation in `queued`.
    newest: HashMap<Key, Version, KeyHasher>,
    in_flight: HashSet<Key, KeyHasher>,
    in_flight_batches: usize,
    in_flight_max: usize,
    /// Every batch up to this one is done.
    done: Number,
    /// Batches behind a gap that are done.
    done_behind: BTreeSet<Number>,
    /// Empty between two calls.
    spare: HashSet<Key, KeyHasher>,
}

impl Lane {
    /// `in_flight_max` is the number of bulk requests that may be on their way at once.
    pub fn new(in_flight_max: usize) -> Self {
        Self {
            queued: VecDeque::new(),
            queued_bytes: 0,
            newest: HashMap::default(),
            in_flight: HashSet::default(),
            in_flight_batches: 0,
            in_flight_max: in_flight_max.max(1),
            done: 0,
            done_behind: BTreeSet::new(),
            spare: HashSet::default(),
        }
    }

    /// Queues a batch; numbers are given from 1 without gaps.
    pub fn push(&mut self, number: Number, mut batch: Batch) {
        batch.coalesce(&mut self.spare);
        for op in batch.iter() {
            self.newest.insert(op.key, op.version);
        }
        self.queued_bytes += batch.size_bytes();
        self.queued.push_back((number, batch));
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The next batch that may be sent now, without the operations that newer ones have made needless. It is in flight
    /// until [`Lane::finish`]. It may be empty; finish it all the same.
    pub fn take(&mut self) -> Option<(Number, Batch)> {
        if self.in_flight_batches >= self.in_flight_max {
            return None;
        }
        let (_, front) = self.queued.front()?;
        let overtakes = front.iter().any(|op| self.in_flight.contains(&op.key));
        if overtakes && !is_naive(Rule::Tombstones) {
            return None;
        }
        let (number, mut batch) = self.queued.pop_front()?;
        self.queued_bytes -= batch.size_bytes();
        batch.retain(|op| {
            let is_wanted = self.is_wanted(&op);
            if is_wanted {
                self.newest.remove(&op.key);
                self.in_flight.insert(op.key);
            }
            is_wanted
        });
        self.in_flight_batches += 1;
        Some((number, batch))
    }

    /// Whether no newer operation of the same document is queued.
    pub fn is_wanted(&self, op: &DocOp<'_>) -> bool {
        if is_naive(Rule::LateOperations) || is_naive(Rule::Tombstones) {
            return true;
        }
        self.newest.get(&op.key).is_none_or(|newest| *newest <= op.version)
    }

    /// Leaves the operations in `batch` that are still wanted.
    pub fn keep_wanted(&self, batch: &mut Batch) {
        if !self.newest.is_empty() {
            batch.retain(|op| self.is_wanted(&op));
        }
    }

    /// Batch `number`, which held the documents `keys`, is acknowledged. Returns the number up to which all are.
    pub fn finish(&mut self, number: Number, keys: impl IntoIterator<Item = Key>) -> Number {
        for key in keys {
            self.in_flight.remove(&key);
        }
        self.in_flight_batches -= 1;
        self.done_behind.insert(number);
        while self.done_behind.remove(&(self.done + 1)) {
            self.done += 1;
        }
        self.done
    }

    /// Nothing queued and nothing in flight: what comes next can be sent at once.
    pub fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.in_flight_batches == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ops: &[(Key, u64)]) -> Batch {
        let mut batch = Batch::default();
        for &(key, version) in ops {
            batch.upsert(&key.to_string(), key, Version(version), b"{}");
        }
        batch
    }

    fn versions(batch: &Batch) -> Vec<u64> {
        batch.iter().map(|op| op.version.0).collect()
    }

    #[test]
    fn a_document_has_one_operation_in_flight() {
        let mut lane = Lane::new(4);
        lane.push(1, batch(&[(7, 1)]));
        let (first, sent) = lane.take().expect("nothing is in flight");
        lane.push(2, batch(&[(7, 2), (8, 3)]));
        assert!(lane.take().is_none(), "document 7 is in flight");
        lane.finish(first, sent.iter().map(|op| op.key));
        assert_eq!(versions(&lane.take().expect("free").1), [2, 3]);
    }

    #[test]
    fn different_documents_are_pipelined_up_to_the_limit() {
        let mut lane = Lane::new(2);
        for number in 1..=3 {
            lane.push(number, batch(&[(Key::from(number), number)]));
        }
        assert_eq!(lane.take().map(|(number, _)| number), Some(1));
        assert_eq!(lane.take().map(|(number, _)| number), Some(2));
        assert!(lane.take().is_none());
        assert_eq!(lane.finish(2, [2]), 0, "batch 1 is still out");
        assert_eq!(lane.finish(1, [1]), 2);
    }

    #[test]
    fn a_newer_operation_cancels_a_waiting_one() {
        let mut lane = Lane::new(2);
        lane.push(1, batch(&[(7, 1), (8, 2)]));
        let (_, waiting) = lane.take().expect("free");
        lane.push(2, batch(&[(7, 3)]));
        let wanted: Vec<_> = waiting.iter().map(|op| lane.is_wanted(&op)).collect();
        assert_eq!(wanted, [false, true]);
    }

    #[test]
    fn an_older_operation_in_the_queue_is_not_sent() {
        let mut lane = Lane::new(1);
        lane.push(1, batch(&[(7, 1), (8, 2)]));
        lane.push(2, batch(&[(7, 3)]));
        assert_eq!(versions(&lane.take().expect("free").1), [2]);
    }
}
