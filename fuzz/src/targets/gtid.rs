//! Sets of GTIDs, as text and in the log's binary form: what was read must survive being written, in both.

use driftless::position::{GtidSet, Sid};
use driftless::source::binlog::gtid_set::{decode, encode};

pub fn read(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let from_text = text.parse::<GtidSet>().ok();
    let from_bytes = decode(input).ok();
    for set in from_text.iter().chain(&from_bytes) {
        assert!(set.covers(set));
        assert_eq!(&set.intersection(set), set);
        let mut twice = set.clone();
        twice.union(set);
        assert_eq!(&twice, set);
        // Of MariaDB, and of a log without GTIDs, a set has no such form.
        if set.iter().all(|(sid, _)| matches!(sid, Sid::Server { .. })) {
            assert_eq!(&decode(&encode(set)).expect("our own bytes"), set);
            continue_each(set);
        }
    }
    if let Some(set) = from_text {
        assert_eq!(set.to_string().parse::<GtidSet>().expect("our own text"), set);
    }
}

/// The next transaction of each server goes in.
fn continue_each(set: &GtidSet) {
    let mut longer = set.clone();
    for (sid, ranges) in set.iter() {
        let Some((_, last)) = ranges.last() else { continue };
        let gno = last.saturating_add(1);
        let next = driftless::position::Gtid::new(sid.clone(), gno);
        longer.insert(&next);
        assert!(longer.contains(&next));
    }
    assert!(longer.covers(set));
}
