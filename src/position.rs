//! Where in a source's log something stands: GTID sets, positions, versions, checkpoints. Data only.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The server (and, since MySQL 8.3, the tag) that numbers transactions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid {
    pub uuid: [u8; 16],
    /// Empty for an untagged GTID.
    pub tag: Arc<str>,
}

impl Sid {
    pub fn untagged(uuid: [u8; 16]) -> Self {
        Self { uuid, tag: Arc::from("") }
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.uuid.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_char('-')?;
            }
            write!(f, "{byte:02x}")?;
        }
        if self.tag.is_empty() { Ok(()) } else { write!(f, ":{}", self.tag) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gtid {
    pub sid: Sid,
    pub gno: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sid, self.gno)
    }
}

/// A set of transactions: per server sorted, disjoint, non-touching ranges `first..=last`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GtidSet {
    ranges: BTreeMap<Sid, Vec<(u64, u64)>>,
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Per server its ranges, both ends included.
    pub fn iter(&self) -> impl Iterator<Item = (&Sid, &[(u64, u64)])> {
        self.ranges.iter().map(|(sid, ranges)| (sid, ranges.as_slice()))
    }

    pub fn insert(&mut self, gtid: &Gtid) {
        match self.ranges.get_mut(&gtid.sid) {
            // The hot case: the next number of a server that is known.
            Some(ranges) => match ranges.last_mut() {
                Some((_, last)) if *last + 1 == gtid.gno => *last = gtid.gno,
                _ => insert_range(ranges, gtid.gno, gtid.gno),
            },
            None => {
                self.ranges.insert(gtid.sid.clone(), vec![(gtid.gno, gtid.gno)]);
            }
        }
    }

    pub fn insert_range(&mut self, sid: &Sid, first: u64, last: u64) {
        insert_range(self.ranges.entry(sid.clone()).or_default(), first, last);
    }

    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.ranges.get(&gtid.sid).is_some_and(|ranges| holds(ranges, gtid.gno, gtid.gno))
    }

    /// Whether every transaction of `other` is in this set.
    pub fn covers(&self, other: &GtidSet) -> bool {
        other.ranges.iter().all(|(sid, theirs)| {
            let ours = self.ranges.get(sid).map_or(&[][..], Vec::as_slice);
            theirs.iter().all(|&(first, last)| holds(ours, first, last))
        })
    }

    pub fn union(&mut self, other: &GtidSet) {
        for (sid, ranges) in &other.ranges {
            for &(first, last) in ranges {
                self.insert_range(sid, first, last);
            }
        }
    }

    /// What both sets hold.
    pub fn intersection(&self, other: &GtidSet) -> GtidSet {
        let mut both = GtidSet::default();
        for (sid, ours) in &self.ranges {
            let theirs = other.ranges.get(sid).map_or(&[][..], Vec::as_slice);
            for &(a, b) in ours {
                for &(c, d) in theirs {
                    if a.max(c) <= b.min(d) {
                        both.insert_range(sid, a.max(c), b.min(d));
                    }
                }
            }
        }
        both
    }
}

fn holds(ranges: &[(u64, u64)], first: u64, last: u64) -> bool {
    let at = ranges.partition_point(|&(_, end)| end < first);
    ranges.get(at).is_some_and(|&(start, end)| start <= first && last <= end)
}

fn insert_range(ranges: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    // Everything that overlaps or touches first..=last is melted into it.
    let from = ranges.partition_point(|&(_, end)| end.saturating_add(1) < first);
    let to = ranges.partition_point(|&(start, _)| start <= last.saturating_add(1));
    let melted =
        ranges[from..to].iter().fold((first, last), |(a, b), &(c, d)| (a.min(c), b.max(d)));
    ranges.splice(from..to, [melted]);
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (sid, ranges)) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_char(',')?;
            }
            write!(f, "{sid}")?;
            for &(first, last) in ranges {
                match first == last {
                    true => write!(f, ":{first}")?,
                    false => write!(f, ":{first}-{last}")?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = Error;

    /// Reads the server's form: `uuid:1-5:7,uuid:tag:1-3`, with white space and line breaks anywhere between parts.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |part: &str| Error::input(format!("`{part}` is not a part of a GTID set"));
        let mut set = GtidSet::default();
        for server in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut parts = server.split(':').map(str::trim);
            let uuid = parts.next().and_then(parse_uuid).ok_or_else(|| bad(server))?;
            let mut sid = Sid::untagged(uuid);
            for part in parts {
                if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    sid.tag = Arc::from(part.to_ascii_lowercase());
                    continue;
                }
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let first: u64 = first.trim().parse().map_err(|_| bad(part))?;
                let last: u64 = last.trim().parse().map_err(|_| bad(part))?;
                if first == 0 || first > last {
                    return Err(bad(part));
                }
                set.insert_range(&sid, first, last);
            }
        }
        Ok(set)
    }
}

/// A UUID with or without its hyphens.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits =
        text.bytes().filter(|byte| *byte != b'-').map(|byte| (byte as char).to_digit(16));
    let mut uuid = [0u8; 16];
    for byte in &mut uuid {
        *byte = (digits.next()?? * 16 + digits.next()??) as u8;
    }
    digits.next().is_none().then_some(uuid)
}

/// A transaction boundary of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    pub file: String,
    /// Where the next event begins in `file`.
    pub offset: u64,
    /// Every transaction up to here, those before the log's beginning included.
    pub gtids: GtidSet,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} [{}]", self.file, self.offset, self.gtids)
    }
}

/// Base of the versions of one span of one server's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

/// 2020-01-01T00:00:00Z.
const YEAR_2020_SECONDS: u64 = 1_577_836_800;

impl Epoch {
    /// The epoch that begins now: above every version that was assigned or seen, and above what any earlier life of
    /// ours can have assigned if clocks are right. `unix_seconds` is the wall clock.
    pub fn begin(unix_seconds: u64, highest_version: Version) -> Self {
        let by_clock = unix_seconds.saturating_sub(YEAR_2020_SECONDS) << 32;
        if crate::naive::is_naive(crate::naive::Rule::Conflicts) {
            return Self(by_clock);
        }
        Self(by_clock.max(highest_version.0 + 1))
    }

    /// The version of an operation whose row image begins `offset` bytes into an event that `n` counted bytes precede.
    ///
    /// It grows along the log, is the same again on every replay, and differs between the two operations of an update
    /// that changes a key, because their images begin at different bytes.
    pub fn version(self, n: u64, offset: u32) -> Version {
        let offset = if crate::naive::is_naive(crate::naive::Rule::Versions) {
            0
        } else {
            u64::from(offset)
        };
        Version(self.0 + 2 * (n + offset))
    }
}

/// A document version: external, at most 2⁶³ − 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is stored of a link's way: everything up to here is acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub epoch: Epoch,
    /// Uncompressed bytes of log inside transaction groups since the epoch began.
    pub n: u64,
    pub position: Position,
}

impl Checkpoint {
    /// Above every version assigned before this checkpoint, and not above any that is assigned behind it.
    pub fn version(&self) -> Version {
        self.epoch.version(self.n, 0)
    }

    /// The highest version that is below every one that is assigned behind this checkpoint: each of those stems from a
    /// place behind the header of the event that comes next.
    pub fn highest_version(&self) -> Version {
        Version(self.version().0 + 2 * EVENT_HEADER_BYTES - 1)
    }
}

const EVENT_HEADER_BYTES: u64 = 19;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().expect("a valid set")
    }

    #[test]
    fn the_servers_form_is_read_and_written() {
        let text = format!("{A}:1-5:7,{A}:ours:1-2");
        assert_eq!(set(&text.replace(',', ",\n")).to_string(), text);
        assert!("nonsense".parse::<GtidSet>().is_err());
        assert!(format!("{A}:5-1").parse::<GtidSet>().is_err());
        assert!(set("").is_empty());
    }

    #[test]
    fn covers_and_intersects() {
        let all = set(&format!("{A}:1-10"));
        assert!(all.covers(&set(&format!("{A}:2-3:9"))));
        assert!(!all.covers(&set(&format!("{A}:9-11"))));
        assert!(!all.covers(&set(&format!("{A}:tag:1"))));
        assert_eq!(all.intersection(&set(&format!("{A}:5-20"))), set(&format!("{A}:5-10")));
    }

    #[test]
    fn an_epoch_begins_above_all_that_was_seen() {
        let seen = Version(u64::MAX / 4);
        assert!(Epoch::begin(0, seen).0 > seen.0);
        assert_eq!(Epoch::begin(YEAR_2020_SECONDS + 1, Version(0)).0, 1 << 32);
    }

    proptest! {
        #[test]
        fn a_set_is_the_numbers_put_into_it(numbers in prop::collection::vec(1u64..60, 0..80)) {
            let sid = Sid::untagged(parse_uuid(A).expect("valid"));
            let mut ranges = GtidSet::default();
            for &gno in &numbers {
                ranges.insert(&Gtid { sid: sid.clone(), gno });
            }
            for gno in 1..61 {
                prop_assert_eq!(ranges.contains(&Gtid { sid: sid.clone(), gno }), numbers.contains(&gno));
            }
            prop_assert_eq!(set(&ranges.to_string()), ranges);
        }
    }
}
