//! Where in a source's log something stands: GTID sets, positions, versions, checkpoints. Data only.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// What numbers transactions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sid {
    /// A MySQL server with GTIDs. The tag came with 8.3 and is empty for an untagged GTID.
    Server { uuid: [u8; 16], tag: Arc<str> },
    /// A domain of MariaDB. Its numbers grow along the log, whichever server wrote them.
    Domain(u32),
    /// The log of one server without GTIDs, whose files are called `base.000001` and so on. A transaction's number is the
    /// place where it begins ([`place`]).
    Log { server: [u8; 16], base: Arc<str> },
}

impl Sid {
    pub fn untagged(uuid: [u8; 16]) -> Self {
        Self::Server { uuid, tag: Arc::from("") }
    }
}

/// Bits of a place that are the offset: 256 GiB, which is far above any file, for a file ends with the first transaction
/// that takes it beyond 1 GiB.
const OFFSET_BITS: u32 = 38;

/// The number of what begins at `offset` of the log file with this number; None where it cannot be told.
pub fn place(file: u64, offset: u64) -> Option<u64> {
    let fits = file < 1 << (63 - OFFSET_BITS) && offset < 1 << OFFSET_BITS;
    fits.then_some(file << OFFSET_BITS | offset)
}

/// `binlog.000003` as `binlog` and 3.
pub fn log_file(name: &str) -> Option<(&str, u64)> {
    let (base, number) = name.rsplit_once('.')?;
    Some((base, number.parse().ok()?))
}

/// The file and the offset of a place.
fn of_place(base: &str, place: u64) -> (String, u64) {
    (format!("{base}.{:06}", place >> OFFSET_BITS), place & ((1 << OFFSET_BITS) - 1))
}

struct Uuid<'a>(&'a [u8; 16]);

impl fmt::Display for Uuid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_char('-')?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gtid {
    pub sid: Sid,
    pub gno: u64,
    /// The `server_id` that MariaDB names a transaction by too; 0 elsewhere.
    pub origin: u32,
}

impl Gtid {
    pub fn new(sid: Sid, gno: u64) -> Self {
        Self { sid, gno, origin: 0 }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sid {
            Sid::Server { uuid, tag } if tag.is_empty() => {
                write!(f, "{}:{}", Uuid(uuid), self.gno)
            }
            Sid::Server { uuid, tag } => write!(f, "{}:{tag}:{}", Uuid(uuid), self.gno),
            Sid::Domain(domain) => write!(f, "{domain}-{}-{}", self.origin, self.gno),
            Sid::Log { base, .. } => {
                let (file, offset) = of_place(base, self.gno);
                write!(f, "{file}:{offset}")
            }
        }
    }
}

/// The server's rule for tags, once they are in lower case.
pub fn is_tag(text: &str) -> bool {
    const BYTES_MAX: usize = 32;
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let goes_on = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    begins && text.len() <= BYTES_MAX && text.chars().all(goes_on)
}

/// The server gives no transaction a higher number.
pub const GNO_MAX: u64 = i64::MAX as u64;

/// A set of transactions: per server sorted, disjoint, non-touching ranges `first..=last`.
///
/// Of a domain of MariaDB, and of a log without GTIDs, what was passed is always everything from the beginning on, because
/// numbers grow along the log: one range from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GtidSet {
    ranges: BTreeMap<Sid, Vec<(u64, u64)>>,
    /// By domain its last transaction and the server that numbered it: MariaDB resumes by both.
    origins: BTreeMap<u32, (u64, u32)>,
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Per server its ranges, both ends included.
    pub fn iter(&self) -> impl Iterator<Item = (&Sid, &[(u64, u64)])> {
        self.ranges.iter().map(|(sid, ranges)| (sid, ranges.as_slice()))
    }

    /// This transaction alone.
    pub fn insert(&mut self, gtid: &Gtid) {
        self.note_origin(gtid);
        match self.ranges.get_mut(&gtid.sid) {
            // The hot case: the next number of a server that is known.
            Some(ranges) => match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(gtid.gno) => *last = gtid.gno,
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

    /// The log was read to the end of this transaction. Of MariaDB that takes all in with a lower number of its domain. Of a
    /// log without GTIDs it says nothing: [`Self::reach`] does.
    pub fn pass(&mut self, gtid: &Gtid) {
        match gtid.sid {
            Sid::Server { .. } => self.insert(gtid),
            Sid::Domain(_) => {
                self.note_origin(gtid);
                match self.ranges.get_mut(&gtid.sid) {
                    Some(ranges) => insert_range(ranges, 1, gtid.gno),
                    None => self.insert_range(&gtid.sid, 1, gtid.gno),
                }
            }
            Sid::Log { .. } => {}
        }
    }

    /// Everything that begins before this place of a log.
    pub fn reach(&mut self, log: &Sid, place: u64) {
        let Some(last) = place.checked_sub(1).filter(|last| *last > 0) else { return };
        match self.ranges.get_mut(log) {
            Some(ranges) => insert_range(ranges, 1, last),
            None => self.insert_range(log, 1, last),
        }
    }

    /// Where a log without GTIDs was read to: file and offset.
    pub fn reached(&self) -> Option<(String, u64)> {
        self.ranges.iter().find_map(|(sid, ranges)| match (sid, ranges.first()) {
            (Sid::Log { base, .. }, Some(&(1, last))) => Some(of_place(base, last + 1)),
            _ => None,
        })
    }

    /// Whether it tells places of a log without GTIDs.
    pub fn is_of_places(&self) -> bool {
        self.ranges.keys().any(|sid| matches!(sid, Sid::Log { .. }))
    }

    /// The last transaction of each domain, as MariaDB writes a position: `0-1-5,7-1-3`.
    pub fn domains(&self) -> String {
        let one =
            |(domain, (number, server)): (&u32, &(u64, u32))| format!("{domain}-{server}-{number}");
        self.origins.iter().map(one).collect::<Vec<_>>().join(",")
    }

    fn note_origin(&mut self, gtid: &Gtid) {
        let Sid::Domain(domain) = gtid.sid else { return };
        let noted = self.origins.entry(domain).or_insert((gtid.gno, gtid.origin));
        if noted.0 < gtid.gno {
            *noted = (gtid.gno, gtid.origin);
        }
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
        for (domain, theirs) in &other.origins {
            let ours = self.origins.entry(*domain).or_insert(*theirs);
            *ours = (*ours).max(*theirs);
        }
        for (sid, ranges) in &other.ranges {
            for &(first, last) in ranges {
                self.insert_range(sid, first, last);
            }
        }
    }

    /// What both sets hold.
    pub fn intersection(&self, other: &GtidSet) -> GtidSet {
        let mut both = GtidSet::default();
        for (domain, ours) in &self.origins {
            if let Some(theirs) = other.origins.get(domain) {
                both.origins.insert(*domain, *ours.min(theirs));
            }
        }
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

impl GtidSet {
    /// All that there is to know, as [`Self::from_str`] reads it; of MySQL's GTIDs the server's own form.
    pub fn stored(&self) -> String {
        let mut text = String::new();
        for (sid, ranges) in &self.ranges {
            if !text.is_empty() {
                text.push(',');
            }
            let _ = match sid {
                Sid::Server { uuid, tag } if tag.is_empty() => write!(text, "{}", Uuid(uuid)),
                Sid::Server { uuid, tag } => write!(text, "{}:{tag}", Uuid(uuid)),
                Sid::Domain(domain) => {
                    let (number, server) = self.origins.get(domain).copied().unwrap_or_default();
                    write!(text, "domain/{domain}/{server}/{number}")
                }
                Sid::Log { server, base } => {
                    let _ = write!(text, "log/{}/", Uuid(server));
                    base.bytes().try_for_each(|byte| write!(text, "{byte:02x}"))
                }
            };
            let _ = write_ranges(&mut text, ranges);
        }
        text
    }
}

fn write_ranges(f: &mut impl fmt::Write, ranges: &[(u64, u64)]) -> fmt::Result {
    for &(first, last) in ranges {
        match first == last {
            true => write!(f, ":{first}")?,
            false => write!(f, ":{first}-{last}")?,
        }
    }
    Ok(())
}

impl fmt::Display for GtidSet {
    /// As the users of the server know it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (sid, ranges)) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_char(',')?;
            }
            let last = ranges.last().copied().unwrap_or_default();
            match sid {
                Sid::Server { uuid, tag } => {
                    write!(f, "{}", Uuid(uuid))?;
                    if !tag.is_empty() {
                        write!(f, ":{tag}")?;
                    }
                    write_ranges(f, ranges)?;
                }
                Sid::Domain(domain) => {
                    let origin = self.origins.get(domain).map_or(0, |(_, server)| *server);
                    write!(f, "{domain}-{origin}-{}", last.1)?;
                }
                Sid::Log { base, .. } => {
                    let place = if last.0 == 1 { last.1 + 1 } else { last.1 };
                    let (file, offset) = of_place(base, place);
                    write!(f, "{file}:{offset}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = Error;

    /// Reads MySQL's form, `uuid:1-5:7,uuid:tag:1-3`, MariaDB's, `0-1-5,7-1-3`, and what [`GtidSet::stored`] wrote, with white
    /// space and line breaks anywhere between parts.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |part: &str| Error::input(format!("`{part}` is not a part of a GTID set"));
        let mut set = GtidSet::default();
        for server in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if let Some(gtid) = gtid_of_mariadb(server) {
                set.pass(&gtid);
                continue;
            }
            let mut parts = server.split(':').map(str::trim);
            let mut sid =
                parts.next().and_then(|name| set.take_sid(name)).ok_or_else(|| bad(server))?;
            for part in parts {
                if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    let given = part.to_ascii_lowercase();
                    match &mut sid {
                        Sid::Server { tag, .. } if is_tag(&given) => *tag = Arc::from(given),
                        Sid::Server { .. } | Sid::Domain(_) | Sid::Log { .. } => {
                            return Err(bad(part));
                        }
                    }
                    continue;
                }
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let first: u64 = first.trim().parse().map_err(|_| bad(part))?;
                let last: u64 = last.trim().parse().map_err(|_| bad(part))?;
                if first == 0 || first > last || last > GNO_MAX {
                    return Err(bad(part));
                }
                set.insert_range(&sid, first, last);
            }
        }
        Ok(set)
    }
}

impl GtidSet {
    /// The name before the ranges; what is stored of a domain's last transaction goes into the set.
    fn take_sid(&mut self, name: &str) -> Option<Sid> {
        let mut parts = name.split('/');
        let sid = match parts.next()? {
            "domain" => {
                let domain = parts.next()?.parse().ok()?;
                let (server, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
                self.origins.insert(domain, (number, server));
                Sid::Domain(domain)
            }
            "log" => {
                let server = parse_uuid(parts.next()?)?;
                let hexadecimal = parts.next()?;
                let byte = |at| u8::from_str_radix(hexadecimal.get(at..at + 2)?, 16).ok();
                let base: Option<Vec<u8>> = (0..hexadecimal.len()).step_by(2).map(byte).collect();
                Sid::Log { server, base: Arc::from(String::from_utf8(base?).ok()?) }
            }
            uuid => Sid::untagged(parse_uuid(uuid)?),
        };
        parts.next().is_none().then_some(sid)
    }
}

/// `0-1-5`: domain, server, number.
fn gtid_of_mariadb(text: &str) -> Option<Gtid> {
    let mut parts = text.split('-').map(str::trim);
    let domain = parts.next()?.parse().ok()?;
    let origin = parts.next()?.parse().ok()?;
    let gno = parts.next()?.parse().ok()?;
    (parts.next().is_none() && gno > 0).then_some(Gtid { sid: Sid::Domain(domain), gno, origin })
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
        if self.gtids.is_of_places() {
            return self.gtids.fmt(f);
        }
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
        assert!(format!("{A}:1-{}", u64::MAX).parse::<GtidSet>().is_err());
        assert!(format!("{A}:{}:1", "t".repeat(32)).parse::<GtidSet>().is_ok());
        assert!(format!("{A}:{}:1", "t".repeat(33)).parse::<GtidSet>().is_err());
        assert!(format!("{A}:t g:1").parse::<GtidSet>().is_err());
        assert!(set("").is_empty());
    }

    #[test]
    fn mariadbs_position_is_all_of_each_domain_up_to_a_number() {
        let passed = set("0-1-5, 7-2-9");
        assert_eq!(
            (passed.to_string(), passed.domains()),
            ("0-1-5,7-2-9".into(), "0-1-5,7-2-9".into())
        );
        assert_eq!(set(&passed.stored()), passed);
        let gtid = |domain, gno| Gtid { sid: Sid::Domain(domain), gno, origin: 3 };
        assert!(passed.contains(&gtid(0, 1)) && !passed.contains(&gtid(0, 6)));
        let mut further = passed.clone();
        further.pass(&gtid(0, 8));
        assert_eq!(further.domains(), "0-3-8,7-2-9");
        assert!(further.covers(&passed) && !passed.covers(&further));
        assert_eq!(further.intersection(&passed), passed);
        let mut behind = GtidSet::default();
        behind.insert(&gtid(0, 8));
        assert_eq!(set(&behind.stored()), behind);
        assert!(!behind.contains(&gtid(0, 7)) && further.covers(&behind));
    }

    #[test]
    fn a_log_without_gtids_is_passed_up_to_a_place() {
        let log = Sid::Log { server: parse_uuid(A).expect("valid"), base: Arc::from("my,bin.log") };
        let at = |file, offset| place(file, offset).expect("can be told");
        let mut passed = GtidSet::default();
        passed.reach(&log, at(3, 1234));
        assert_eq!(passed.to_string(), "my,bin.log.000003:1234");
        assert_eq!(passed.reached(), Some(("my,bin.log.000003".to_owned(), 1234)));
        assert_eq!(set(&passed.stored()), passed);
        let gtid = |place| Gtid::new(log.clone(), place);
        assert!(passed.contains(&gtid(at(3, 1233))) && passed.contains(&gtid(at(2, 1 << 30))));
        assert!(!passed.contains(&gtid(at(3, 1234))));
        assert_eq!(gtid(at(3, 1234)).to_string(), "my,bin.log.000003:1234");
        let other = Sid::Log { server: [7; 16], base: Arc::from("my,bin.log") };
        let mut elsewhere = GtidSet::default();
        elsewhere.reach(&other, at(9, 4));
        assert!(!elsewhere.covers(&passed));
        assert_eq!(log_file("my.bin.000012"), Some(("my.bin", 12)));
        assert_eq!(place(1, 1 << 40), None);
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
                ranges.insert(&Gtid::new(sid.clone(), gno));
            }
            for gno in 1..61 {
                prop_assert_eq!(ranges.contains(&Gtid::new(sid.clone(), gno)), numbers.contains(&gno));
            }
            prop_assert_eq!(set(&ranges.to_string()), ranges);
        }
    }
}
