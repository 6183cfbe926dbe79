//! Reads the log ahead of a link, over a connection of its own, for the statements on one table: rows and everything
//! else are stepped over undecoded. Knows nothing of what a statement means.

use std::time::Instant;

use bytes::Bytes;
use mysql_async::Conn;

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{EventStream, stream_ended};
use crate::position::{Checkpoint, Epoch, Gtid, GtidSet, Position};
use crate::source::Config;
use crate::source::binlog::event::Query;
use crate::source::binlog::payload::{Inflater, Payload};
use crate::source::binlog::{Body, FormatDescription};
use crate::source::ddl::temporary::Temporaries;
use crate::source::ddl::{self, Kind};
use crate::source::replication::{self, Opened};
use crate::source::snapshot::watermark;
use crate::table::TableId;

/// A statement on the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    pub statement: String,
    pub db: String,
    pub gtid: Gtid,
}

/// The log behind a position, and how far it was read.
pub struct Ahead {
    table: TableId,
    events: EventStream,
    silence_max: std::time::Duration,
    format: FormatDescription,
    passed: GtidSet,
    open: Option<Gtid>,
    /// BEGIN was seen: the transaction ends at its commit.
    has_begun: bool,
    inflater: Option<Inflater>,
    temporaries: Temporaries,
}

/// The server's own bound of an event.
const INNER_EVENT_BYTES_MAX: usize = 1 << 30;

/// More statements on one table than this are not kept.
const STATEMENTS_MAX: usize = 10_000;

impl Ahead {
    /// Begins behind the transactions `passed` of the server; None where another server is at the address.
    pub async fn open(
        config: &Config,
        server_uuid: &str,
        table: &TableId,
        passed: &GtidSet,
    ) -> Result<Option<Self>> {
        let position = Position { file: String::new(), offset: 0, gtids: passed.clone() };
        let at = Checkpoint { epoch: Epoch(0), n: 0, position };
        let events = match replication::open(config, server_uuid, &at).await? {
            Opened::Stream(events) => events,
            Opened::Elsewhere(_) => return Ok(None),
        };
        Ok(Some(Self {
            table: table.clone(),
            events,
            silence_max: std::time::Duration::from_millis(config.read_timeout_ms()),
            format: FormatDescription::assumed(),
            passed: passed.clone(),
            open: None,
            has_begun: false,
            inflater: None,
            temporaries: Temporaries::default(),
        }))
    }

    /// Everything up to where it was read. Not all of it need be executed yet.
    pub fn passed(&self) -> &GtidSet {
        &self.passed
    }

    /// Reads on until everything in `until` was passed; gives the statements on the table on that way, in order. `conn`
    /// tells now and then which of those transactions were rolled back, and will never come.
    pub async fn read(&mut self, until: &GtidSet, conn: &mut Conn) -> Result<Vec<Met>> {
        let (mut met, mut until, mut asked) = (Vec::new(), until.clone(), Instant::now());
        while self.open.is_some() || !self.passed.covers(&until) {
            let event = tokio::time::timeout(self.silence_max, self.events.next())
                .await
                .map_err(|_| Error::new(ErrorKind::SourceUnreachable, "the source was silent"))??
                .ok_or_else(stream_ended)?;
            self.take(&event, &mut met)?;
            if asked.elapsed() >= watermark::ASK_EVERY {
                asked = Instant::now();
                until = until.intersection(&watermark::followable(conn).await?.known);
            }
            if met.len() > STATEMENTS_MAX {
                let what = format!("{} has more statements than can be followed", self.table);
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        }
        Ok(met)
    }

    fn take(&mut self, bytes: &Bytes, met: &mut Vec<Met>) -> Result<()> {
        let event = self.format.read(bytes)?;
        match event.body {
            Body::FormatDescription(format) => self.format = *format,
            Body::GroupStart(start) => {
                self.open = start.gtid;
                self.has_begun = false;
            }
            Body::Query(query) => {
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
            Body::Heartbeat(_)
            | Body::Rotate(_)
            | Body::PreviousGtids(_)
            | Body::TableMap(_)
            | Body::Rows(_)
            | Body::Packed(_)
            | Body::RowsQuery(_)
            | Body::Stop
            | Body::Other => {}
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(gtid) = self.open.take() {
            self.passed.insert(&gtid);
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
                let concerns = read.names(&self.table) && !is_hidden;
                if let Some(gtid) = self.open.clone().filter(|_| concerns) {
                    met.push(Met { statement: statement.into_owned(), db: db.into_owned(), gtid });
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

    fn take_payload(&mut self, payload: &Payload<'_>, met: &mut Vec<Met>) -> Result<()> {
        let mut inflater = match self.inflater.take() {
            Some(inflater) => inflater,
            None => Inflater::new(INNER_EVENT_BYTES_MAX)?,
        };
        let format = self.format.clone();
        let mut events = inflater.open(payload)?;
        while let Some(inner) = events.next()? {
            let inner = Bytes::copy_from_slice(inner);
            if let Body::Query(query) = format.read_inner(&inner)?.body {
                self.take_query(&query, met);
            }
        }
        self.inflater = Some(inflater);
        Ok(())
    }
}
