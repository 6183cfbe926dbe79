//! How far a log was read, and what number its transactions have there: the log's own, or, on a server without GTIDs, the
//! place where each begins. Knows nothing of what they hold.
//!
//! A place is known before the transaction is read, grows along the log, and is the same on every replay. What was passed
//! is everything that begins before the place that was reached; places between transactions, at the head of a file, are
//! reached too, so that the end of the log, as the server tells it, is passed in the end.

use crate::error::{Error, ErrorKind, Result};
use crate::position::{Gtid, GtidSet, Sid, log_file, place};
use crate::source::binlog::event::GroupStart;
use crate::source::binlog::{Header, Kind};
use crate::source::server::{Naming, Server};

pub struct Numbering {
    server: Server,
    file: String,
    /// The protocol tells offsets in 32 bits; here they have all.
    offset: u64,
    /// Of a server without GTIDs: the log, and the number of the file.
    log: Option<(Sid, u64)>,
}

impl Numbering {
    /// Reading begins at `offset` of `file`, which may be empty.
    pub fn new(server: Server, file: &str, offset: u64) -> Self {
        let mut numbering = Self { server, file: String::new(), offset: 0, log: None };
        numbering.begin_file(file, offset);
        numbering
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The server has no GTIDs.
    pub fn is_by_place(&self) -> bool {
        self.server.naming == Naming::Places
    }

    pub fn begin_file(&mut self, file: &str, offset: u64) {
        self.offset = offset;
        if self.file == file {
            return;
        }
        self.file = file.to_owned();
        self.log = match log_file(file) {
            Some((base, number)) if self.is_by_place() => Some((self.server.log(base), number)),
            _ => None,
        };
    }

    /// An event was read to its end. One that leads to another file says where it ends in its own.
    pub fn read(&mut self, header: &Header) {
        if !header.is_artificial() && header.kind != Kind::ROTATE {
            self.offset = reached(self.offset, header.next_offset);
        }
    }

    /// The transaction that begins at the place that was reached.
    pub fn gtid(&self, start: &GroupStart) -> Result<Gtid> {
        if self.is_by_place() {
            return self.here();
        }
        start.gtid.clone().ok_or_else(|| {
            Error::new(ErrorKind::SourceRefused, "a transaction in the log has no GTID")
                .with_advice("set gtid_mode=ON on the source")
        })
    }

    /// The transaction that begins at the place that was reached, by that place.
    pub fn here(&self) -> Result<Gtid> {
        let number = self
            .log
            .as_ref()
            .and_then(|(sid, number)| Some(Gtid::new(sid.clone(), place(*number, self.offset)?)));
        number.ok_or_else(|| {
            let what =
                format!("offset {} of the log file {} cannot be told", self.offset, self.file);
            Error::new(ErrorKind::Unsupported, what).with_advice("set gtid_mode=ON on the source")
        })
    }

    /// No transaction is open: everything before the place that was reached was passed.
    pub fn reach(&self, passed: &mut GtidSet) {
        if let Some((log, number)) = &self.log
            && let Some(place) = place(*number, self.offset)
        {
            passed.reach(log, place);
        }
    }
}

/// The offset behind `offset` whose low 32 bits are `low`; 0 says nothing.
fn reached(offset: u64, low: u32) -> u64 {
    const ROUND: u64 = 1 << 32;
    match offset - offset % ROUND + u64::from(low) {
        _ if low == 0 => offset,
        next if next < offset => next + ROUND,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_on_beyond_four_gibibytes() {
        assert_eq!(reached(4, 126), 126);
        assert_eq!(reached(126, 0), 126);
        assert_eq!(reached((1 << 32) - 10, 30), (1 << 32) + 30);
        assert_eq!(reached((3 << 32) + 7, 9), (3 << 32) + 9);
    }

    #[test]
    fn a_transaction_is_passed_when_the_log_was_read_beyond_its_beginning() {
        let server = Server {
            identity: "3e11fa47-71ca-11e1-9e33-c80aa9429562".into(),
            naming: Naming::Places,
        };
        let mut numbering = Numbering::new(server, "binlog.000009", 157);
        let first = numbering.gtid(&GroupStart::default()).expect("has a place");
        assert_eq!(first.to_string(), "binlog.000009:157");
        let mut passed = GtidSet::default();
        numbering.reach(&mut passed);
        assert!(!passed.contains(&first));
        numbering.begin_file("binlog.000010", 4);
        numbering.reach(&mut passed);
        assert!(
            passed.contains(&first) && !passed.contains(&numbering.here().expect("has a place"))
        );
        assert_eq!(passed.to_string(), "binlog.000010:4");
    }
}
