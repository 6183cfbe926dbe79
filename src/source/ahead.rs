//! Reads the log ahead of a link, over a connection of its own, for the statements on one table: rows and everything
//! else are stepped over undecoded. Knows nothing of what a statement means.

use std::time::Instant;

use bytes::Bytes;
use mysql_async::Conn;

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{EventStream, stream_ended};
use crate::position::{Gtid, GtidSet, Position};
use crate::source::Config;
use crate::source::binlog::event::{Query, TableMapEvent};
use crate::source::binlog::payload::{Inflater, Payload};
use crate::source::binlog::{Body, FormatDescription, Header, TableMap};
use crate::source::ddl::temporary::Temporaries;
use crate::source::ddl::{self, Kind};
use crate::source::from_table_map;
use crate::source::numbering::Numbering;
use crate::source::replication::{self, Opened};
use crate::source::server::{Naming, Server};
use crate::source::snapshot::watermark;
use crate::table::{TableDef, TableId};

/// A statement on the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    pub statement: String,
    pub db: String,
    pub gtid: Gtid,
    /// The table as the first rows behind the statement announce it, before any other statement; None where there are
    /// none, or where the log does not say what its columns are.
    pub announced: Option<Box<TableDef>>,
}

/// The log behind a position, and how far it was read.
pub struct Ahead {
    table: TableId,
    events: EventStream,
    silence_max: std::time::Duration,
    format: FormatDescription,
    numbering: Numbering,
    passed: GtidSet,
    open: Option<Gtid>,
    /// BEGIN was seen: the transaction ends at its commit.
    has_begun: bool,
    /// Its statement takes effect with another one, which will commit it.
    concerns_nothing: bool,
    inflater: Option<Inflater>,
    temporaries: Temporaries,
    /// The file that is read says itself what is before it, and `passed` does not know it yet.
    asks_head: bool,
    has_read_head: bool,
    file_begun_at_us: u64,
    committed_at_us: u64,
}

/// What one event brought.
pub struct Step {
    /// The transaction that begins with it.
    pub begun: Option<Gtid>,
    /// When that was committed, as far as the log says, in microseconds since 1970.
    pub committed_at_us: u64,
}

/// The server's own bound of an event.
const INNER_EVENT_BYTES_MAX: usize = 1 << 30;

/// More statements on one table than this are not kept.
const STATEMENTS_MAX: usize = 10_000;

impl Ahead {
    /// Begins behind the transactions `passed` of the server; None where another server is at the address.
    pub async fn open(
        config: &Config,
        server: &Server,
        table: &TableId,
        passed: &GtidSet,
    ) -> Result<Option<Self>> {
        let position = Position { file: String::new(), offset: 0, gtids: passed.clone() };
        let events = match replication::open_beside(config, server, &position).await? {
            Opened::Stream(events) => events,
            Opened::Elsewhere(_) => return Ok(None),
        };
        Ok(Some(Self::new(config, server, table.clone(), events, passed.clone())))
    }

    /// Begins at the head of a file of the log, for [`Self::step`]. `passed` is before it, as far as the file does not say
    /// that itself; None where another server is at the address.
    pub async fn open_file(
        config: &Config,
        server: &Server,
        file: &str,
        passed: GtidSet,
    ) -> Result<Option<Self>> {
        let events = match replication::open_file(config, server, file).await? {
            Opened::Stream(events) => events,
            Opened::Elsewhere(_) => return Ok(None),
        };
        let mut ahead = Self::new(config, server, TableId::new("", ""), events, passed);
        ahead.numbering.begin_file(file, 0);
        ahead.asks_head = server.naming == Naming::Gtids;
        Ok(Some(ahead))
    }

    fn new(
        config: &Config,
        server: &Server,
        table: TableId,
        events: EventStream,
        passed: GtidSet,
    ) -> Self {
        Self {
            table,
            events,
            silence_max: std::time::Duration::from_millis(config.read_timeout_ms()),
            format: FormatDescription::assumed(),
            numbering: Numbering::new(server.clone(), "", 0),
            passed,
            open: None,
            has_begun: false,
            concerns_nothing: false,
            inflater: None,
            temporaries: Temporaries::default(),
            asks_head: false,
            has_read_head: false,
            file_begun_at_us: 0,
            committed_at_us: 0,
        }
    }

    /// Everything up to where it was read. Not all of it need be executed yet.
    pub fn passed(&self) -> &GtidSet {
        &self.passed
    }

    /// A transaction was read in part.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Where the next event begins.
    pub fn place(&self) -> (&str, u64) {
        (self.numbering.file(), self.numbering.offset())
    }

    /// What is before the file is known.
    pub fn has_read_head(&self) -> bool {
        self.has_read_head
    }

    /// When the file was begun.
    pub fn file_begun_at_us(&self) -> u64 {
        self.file_begun_at_us
    }

    /// Reads one event.
    pub async fn step(&mut self) -> Result<Step> {
        let was_open = self.open.is_some();
        let event = self.next().await?;
        self.take(&event, &mut Vec::new())?;
        let begun = self.open.clone().filter(|_| !was_open);
        Ok(Step { begun, committed_at_us: self.committed_at_us })
    }

    async fn next(&mut self) -> Result<Bytes> {
        tokio::time::timeout(self.silence_max, self.events.next(&is_wanted))
            .await
            .map_err(|_| Error::new(ErrorKind::SourceUnreachable, "the source was silent"))??
            .ok_or_else(stream_ended)
    }

    /// Reads on until everything in `until` was passed; gives the statements on the table on that way, in order. `conn`
    /// tells now and then which of those transactions were rolled back, and will never come.
    /// What the first rows announce goes to the last of `met`, if that has nothing yet.
    pub async fn read(
        &mut self,
        until: &GtidSet,
        (conn, server): (&mut Conn, &Server),
        met: &mut Vec<Met>,
    ) -> Result<()> {
        let (mut until, mut asked) = (until.clone(), Instant::now());
        while self.open.is_some() || !self.passed.covers(&until) {
            let event = self.next().await?;
            self.take(&event, met)?;
            if asked.elapsed() >= watermark::ASK_EVERY {
                asked = Instant::now();
                until = until.intersection(&watermark::logged(conn, server).await?);
            }
            if met.len() > STATEMENTS_MAX {
                let what = format!("{} has more statements than can be followed", self.table);
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &Bytes, met: &mut Vec<Met>) -> Result<()> {
        if !is_wanted(bytes) {
            // Of a large one the beginning alone is there.
            self.numbering.read(&Header::parse_beginning(bytes)?);
            return Ok(());
        }
        let event = self.format.read(bytes)?;
        let header = event.header;
        match event.body {
            Body::FormatDescription(format) => {
                self.format = *format;
                // A file that ended within a transaction: it was rolled back.
                self.open = None;
                if self.file_begun_at_us == 0 {
                    self.file_begun_at_us = u64::from(header.timestamp) * 1_000_000;
                }
                self.has_read_head |= !self.asks_head;
            }
            Body::GroupStart(start) => {
                self.committed_at_us = match start.commit_micros {
                    0 => u64::from(header.timestamp) * 1_000_000,
                    micros => micros,
                };
                self.open = Some(self.numbering.gtid(&start)?);
                self.has_begun = start.mariadb.is_some_and(|start| !start.is_standalone());
                self.concerns_nothing = start.mariadb.is_some_and(|start| start.alters_nothing());
            }
            Body::Rotate(rotate) => {
                self.numbering.begin_file(rotate.file, rotate.offset);
                return Ok(());
            }
            Body::Query(query) => {
                if self.open.is_none() && self.numbering.is_by_place() {
                    // Before 5.7 no event goes before a transaction's first statement.
                    self.open = Some(self.numbering.here()?);
                    self.committed_at_us = u64::from(header.timestamp) * 1_000_000;
                    self.has_begun = false;
                    self.concerns_nothing = false;
                }
                if self.take_query(&query, met) {
                    self.end();
                }
            }
            Body::Payload(payload) => {
                self.take_payload(&payload, met)?;
                self.end();
            }
            Body::Packed(packed) if packed.is_statement() => {
                let plain = packed.unpack(INNER_EVENT_BYTES_MAX)?;
                let format = self.format.clone();
                if let Body::Query(query) = format.read_inner(&plain)?.body
                    && self.take_query(&query, met)
                {
                    self.end();
                }
            }
            Body::Xid(_) | Body::XaPrepare(_) => self.end(),
            Body::Incident => {
                return Err(Error::new(
                    ErrorKind::SourceLost,
                    "the source says that its log lost events (INCIDENT)",
                ));
            }
            Body::TableMap(map) => self.take_map(&map, met)?,
            Body::PreviousGtids(before) => {
                if std::mem::take(&mut self.asks_head) {
                    self.passed.union(&before);
                    self.has_read_head = true;
                }
            }
            Body::Heartbeat(_)
            | Body::Rows(_)
            | Body::Packed(_)
            | Body::RowsQuery(_)
            | Body::Stop
            | Body::Other => {}
        }
        self.numbering.read(&header);
        if self.open.is_none() {
            self.numbering.reach(&mut self.passed);
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(gtid) = self.open.take() {
            self.passed.pass(&gtid);
        }
    }

    /// Whether the statement ends its transaction.
    fn take_query(&mut self, query: &Query<'_>, met: &mut Vec<Met>) -> bool {
        if query.statement == b"BEGIN" {
            self.has_begun = true;
            return false;
        }
        let (db, statement) = (String::from_utf8_lossy(query.db), ddl::text::statement(query));
        let read = ddl::read(&statement, &db);
        let is_hidden = self.temporaries.hides(query.thread_id, &self.table);
        self.temporaries.note(query.thread_id, &read, &statement, &db);
        match read.kind {
            Kind::Begin | Kind::XaStart(_) => {
                self.has_begun = true;
                false
            }
            Kind::Commit | Kind::Rollback => true,
            Kind::Ddl { .. } => {
                let concerns = read.names(&self.table) && !is_hidden && !self.concerns_nothing;
                if let Some(gtid) = self.open.clone().filter(|_| concerns) {
                    met.push(Met {
                        statement: statement.into_owned(),
                        db: db.into_owned(),
                        gtid,
                        announced: None,
                    });
                }
                !self.has_begun
            }
            Kind::Savepoint
            | Kind::XaEnd
            | Kind::XaCommit
            | Kind::XaRollback
            | Kind::Dml
            | Kind::Temporary { .. }
            | Kind::Other => !self.has_begun,
        }
    }

    fn take_map(&self, event: &TableMapEvent<'_>, met: &mut [Met]) -> Result<()> {
        let is_ours = event.table == self.table.name && event.db == self.table.db;
        if let Some(last) = met.last_mut()
            && is_ours
            && last.announced.is_none()
        {
            last.announced =
                from_table_map::definition(&TableMap::parse(event)?).ok().map(Box::new);
        }
        Ok(())
    }

    fn take_payload(&mut self, payload: &Payload<'_>, met: &mut Vec<Met>) -> Result<()> {
        let mut inflater = match self.inflater.take() {
            Some(inflater) => inflater,
            None => Inflater::new(INNER_EVENT_BYTES_MAX)?,
        };
        let format = self.format.clone();
        let mut events = inflater.open(payload)?;
        while let Some(inner) = events.next()? {
            let inner = Bytes::copy_from_slice(inner);
            match format.read_inner(&inner)?.body {
                Body::Query(query) => {
                    self.take_query(&query, met);
                }
                Body::TableMap(map) => self.take_map(&map, met)?,
                _ => {}
            }
        }
        self.inflater = Some(inflater);
        Ok(())
    }
}

/// Rows are stepped over, and need not be had whole.
fn is_wanted(beginning: &[u8]) -> bool {
    !Header::parse_beginning(beginning).is_ok_and(|header| header.kind.is_rows())
}
