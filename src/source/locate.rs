//! Finds the place of a link's beginning in the log of the source, and refuses what is none. Reads the log over a
//! connection of its own; knows nothing of links.
//!
//! A beginning is a set of transactions that is a beginning of the log: everything up to some boundary, and nothing behind
//! it. A set with a hole is none: the server would send the transaction in the hole, and not the one behind it, which has
//! perhaps changed the same row. So what is given is looked for in the log itself, in the one file in which it lies.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error::{Error, ErrorKind, Result};
use crate::position::{GtidSet, log_file};
use crate::source::Config;
use crate::source::ahead::Ahead;
use crate::source::beginning::{Beginning, moment};
use crate::source::control;
use crate::source::server::{Naming, Server};
use crate::source::snapshot::watermark;

/// Everything in front of the beginning; None for a beginning with a copy, which begins where the stream is.
pub async fn locate(
    config: &Config,
    conn: &mut Conn,
    server: &Server,
    beginning: &Beginning,
) -> Result<Option<GtidSet>> {
    let is_from_log = match beginning {
        Beginning::Snapshot => return Ok(None),
        Beginning::Now => false,
        Beginning::Gtids(_) | Beginning::Place { .. } | Beginning::Moment(_) => true,
    };
    let executed = watermark::executed(conn, server).await?;
    if !is_from_log {
        return Ok(Some(executed));
    }
    let purged = watermark::purged(conn, server).await?;
    let files = files(conn).await?;
    let mut log = Log { config, conn, server, executed, purged, files };
    let found = match beginning {
        Beginning::Gtids(set) => log.behind(set).await,
        Beginning::Place { file, offset } => log.at(file, *offset).await,
        Beginning::Moment(micros) => log.from(*micros).await,
        Beginning::Snapshot | Beginning::Now => Ok(log.executed.clone()),
    };
    found.map(Some).map_err(|error| error.context(format!("the link cannot begin at {beginning}")))
}

/// A file of the log, as the server lists it.
struct LogFile {
    name: String,
    bytes: u64,
}

async fn files(conn: &mut Conn) -> Result<Vec<LogFile>> {
    let tried = |cause| control::error(cause).context("cannot list the files of the source's log");
    let rows: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await.map_err(tried)?;
    let listed = rows.into_iter().filter_map(|row| {
        let name = row.get_opt::<String, _>(0)?.ok()?;
        Some(LogFile { name, bytes: row.get_opt::<u64, _>(1)?.ok()? })
    });
    Ok(listed.collect())
}

struct Log<'a> {
    config: &'a Config,
    conn: &'a mut Conn,
    server: &'a Server,
    executed: GtidSet,
    purged: GtidSet,
    files: Vec<LogFile>,
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Input, what)
}

impl Log<'_> {
    /// Behind the transactions of `set`, if they are a beginning of the log.
    async fn behind(&mut self, set: &GtidSet) -> Result<GtidSet> {
        if self.server.naming == Naming::Places {
            return Err(refused("the source has no GTIDs").with_advice(self.possible()));
        }
        if !self.executed.covers(set) {
            let what = format!("the source has not executed all of that; it has {}", self.executed);
            return Err(refused(what).with_advice(self.possible()));
        }
        if !set.covers(&self.purged) {
            return Err(self.is_purged());
        }
        let file = self.last_file_in(set).await?;
        let (mut log, set) = (self.open(file).await?, set.clone());
        while log.is_open() || !log.passed().covers(&set) {
            let begun = log.step().await?.begun;
            if let Some(gtid) = begun.filter(|gtid| !set.contains(gtid)) {
                let what = format!(
                    "that is no beginning of the log, which has {gtid} before the last of them"
                );
                let advice = format!("write gtid:{}, or what is further on", log.passed());
                return Err(refused(what).with_advice(advice));
            }
        }
        Ok(log.passed().clone())
    }

    /// The last file before whose first transaction nothing is that is not in `set`.
    async fn last_file_in(&mut self, set: &GtidSet) -> Result<usize> {
        // What is before a file grows from file to file. The first file was looked at with what was purged.
        let (mut fits, mut too_far) = (0, self.files.len());
        while too_far - fits > 1 {
            let middle = fits + (too_far - fits) / 2;
            let head = self.head(middle).await?;
            if set.covers(head.passed()) { fits = middle } else { too_far = middle }
        }
        Ok(fits)
    }

    /// At this offset, if it is a boundary between transactions.
    async fn at(&mut self, file: &str, offset: u64) -> Result<GtidSet> {
        let Some(at) = self.files.iter().position(|listed| listed.name == file) else {
            return Err(match (self.number(file), self.files.first()) {
                (Some(number), Some(first)) if Some(number) < self.number(&first.name) => {
                    self.is_purged()
                }
                _ => refused(format!("the source's log has no file {file}"))
                    .with_advice(self.possible()),
            });
        };
        let bytes = self.files.get(at).map_or(0, |listed| listed.bytes);
        if offset > bytes {
            let what = format!("{file} has {bytes} bytes");
            return Err(refused(what).with_advice(self.possible()));
        }
        let mut log = self.open(at).await?;
        let (mut is_boundary, mut before) = (offset <= FIRST_OFFSET, FIRST_OFFSET);
        loop {
            let (reached_file, reached) = log.place();
            let is_behind = reached_file != file || reached >= offset;
            if is_behind && log.has_read_head() {
                // Where a file ends, the next one begins.
                is_boundary |= reached_file != file && offset == bytes;
                break;
            }
            log.step().await?;
            let (reached_file, reached) = log.place();
            if reached_file == file && reached <= offset && !log.is_open() {
                is_boundary |= reached == offset;
                before = reached;
            }
        }
        if !is_boundary {
            let what = "no transaction ends there";
            let advice = format!("the last one before ends at file:{file}:{before}");
            return Err(refused(what).with_advice(advice));
        }
        Ok(log.passed().clone())
    }

    /// In front of the first transaction that was committed at `micros` or later.
    async fn from(&mut self, micros: u64) -> Result<GtidSet> {
        let now = self.clock().await?;
        if micros > now {
            let what = format!("the source's clock says {}", moment(now));
            return Err(refused(what).with_advice("write an earlier moment, or `now`"));
        }
        let mut at = self.files.len();
        let mut oldest = 0;
        // A file says in seconds when it was begun: what is of the same second may stand in the one before.
        let found = loop {
            let Some(before) = at.checked_sub(1) else { break self.is_whole().then_some(0) };
            at = before;
            oldest = self.head(at).await?.file_begun_at_us();
            if oldest / 1_000_000 < micros / 1_000_000 {
                break Some(at);
            }
        };
        let Some(at) = found else {
            let what = "the source's log does not go back so far";
            let oldest = moment((oldest / 1_000_000 + 1) * 1_000_000);
            let advice = format!("the earliest is timestamp:{oldest}; {}", self.possible());
            return Err(refused(what).with_advice(advice));
        };
        let mut log = self.open(at).await?;
        while log.is_open() || !log.passed().covers(&self.executed) || !log.has_read_head() {
            let step = log.step().await?;
            if step.begun.is_some() && step.committed_at_us >= micros {
                break;
            }
        }
        // Of the one that is open nothing is in there.
        Ok(log.passed().clone())
    }

    async fn clock(&mut self) -> Result<u64> {
        let asked = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)";
        let now: Option<u64> = self.conn.query_first(asked).await.map_err(control::error)?;
        now.ok_or_else(|| refused("the source does not tell the time"))
    }

    /// Nothing was taken away from the log's beginning.
    fn is_whole(&self) -> bool {
        let is_first = |file: &LogFile| self.number(&file.name) == Some(1);
        match self.server.naming {
            Naming::Gtids | Naming::Domains => self.purged.is_empty(),
            Naming::Places => self.files.first().is_some_and(is_first),
        }
    }

    fn number(&self, file: &str) -> Option<u64> {
        log_file(file).map(|(_, number)| number)
    }

    /// Reads a file from its head on.
    async fn open(&mut self, at: usize) -> Result<Ahead> {
        let none = || refused("the source has no file of its log");
        let file = self.files.get(at).map(|file| file.name.clone()).ok_or_else(none)?;
        let passed = match self.server.naming {
            // Besides what the file says itself.
            Naming::Gtids => self.purged.clone(),
            Naming::Places => GtidSet::default(),
            Naming::Domains => watermark::before_file(self.conn, &file).await?,
        };
        let opened = Ahead::open_file(self.config, self.server, &file, passed).await?;
        opened.ok_or_else(|| {
            let what = "the source's address leads to another server now";
            Error::new(ErrorKind::SourceUnreachable, what)
        })
    }

    /// A file whose head alone was read.
    async fn head(&mut self, at: usize) -> Result<Ahead> {
        let mut log = self.open(at).await?;
        while !log.has_read_head() {
            log.step().await?;
        }
        Ok(log)
    }

    fn is_purged(&self) -> Error {
        refused("the source has purged that part of its log").with_advice(self.possible())
    }

    /// The oldest and the newest beginning that there are.
    fn possible(&self) -> String {
        let first = match (self.server.naming, self.files.first()) {
            (Naming::Gtids | Naming::Domains, Some(file)) => {
                format!("file:{}:{FIRST_OFFSET} (gtid:{})", file.name, self.purged)
            }
            (Naming::Places, Some(file)) => format!("file:{}:{FIRST_OFFSET}", file.name),
            (_, None) => "nothing".to_owned(),
        };
        format!("the oldest place that the log has is {first}; `now` is its end")
    }
}

/// Behind the four bytes that a file begins with.
const FIRST_OFFSET: u64 = 4;
