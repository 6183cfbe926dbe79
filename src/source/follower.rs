//! Follows the events of one source in order: counts the bytes that versions are made of, keeps the position, and
//! sorts what concerns each link. Does no I/O but to hand over; knows nothing of mappings.
//!
//! `n` counts the uncompressed bytes of log inside transaction groups: every event from a group's GTID event to its
//! commit, without its checksum, and what is compressed as it is unpacked. Rotations, format
//! descriptions and heartbeats are in no group. So `n` grows by the same amount over the same transactions, however
//! they are sent, split into files or compressed.

mod held;
mod subscriber;

pub(super) use self::subscriber::any_waits;
mod xa;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::READ_BYTES;
use crate::naive::{Rule, is_naive};
use crate::position::{Checkpoint, Gtid, GtidSet, Position, Sid};
use crate::source::binlog::checksum::CHECKSUM_LEN;
use crate::source::binlog::event::{GroupStart, Query, RowsEvent, TableMapEvent};
use crate::source::binlog::header::HEADER_LEN;
use crate::source::binlog::packed::Packed;
use crate::source::binlog::payload::{Inflater, Payload};
use crate::source::binlog::{Body, Event, FormatDescription, Header, TableMap};
use crate::source::ddl;
use crate::source::ddl::temporary::Temporaries;
use crate::source::follower::held::Held;
use crate::source::follower::subscriber::{Patience, Subscriber};
use crate::source::numbering::Numbering;
use crate::source::server::{Naming, Server};
use crate::source::stream::{Began, Ddl, Item, Rows};
use crate::source::tailer::{Durable, Sharing, Subscription};
use crate::table::TableId;
use crate::telemetry::metrics::metrics;

/// Where the stream stands after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A transaction is open.
    Within,
    /// No transaction is open.
    Boundary,
}

/// The server's own bound of an event.
const INNER_EVENT_BYTES_MAX: usize = 1 << 30;

/// What is handed over at once is at least this large, unless the stream pauses.
const HAND_OVER_BYTES: usize = 256 << 10;

/// A smaller event is copied out of the buffer of the connection, a quarter of which it does not fill.
const COPIED_BYTES: usize = READ_BYTES / 4;

pub struct Follower {
    /// The last boundary.
    at: Checkpoint,
    server: Server,
    numbering: Numbering,
    format: FormatDescription,
    /// Counted bytes up to the event that is being read.
    n: u64,
    group: Option<Group>,
    /// Rows of the open group, on MariaDB.
    held: Held,
    /// Table maps by the log's table id; the subscribed ones outlive their transaction, because most come again.
    tables: HashMap<u64, Table>,
    subscribers: Vec<Subscriber>,
    joining: Vec<Subscription>,
    /// A link has joined.
    has_served: bool,
    /// A boundary was passed since the last one was made known.
    boundary_is_new: bool,
    durable: Durable,
    sharing: Sharing,
    /// Counted bytes of log at the beginning.
    began_at: u64,
    /// How far the stream is, for those who follow the log by themselves.
    reached: Arc<AtomicU64>,
    /// Made with the first compressed transaction.
    inflater: Option<Inflater>,
    temporaries: Temporaries,
}

/// An open transaction.
struct Group {
    gtid: Option<Gtid>,
    committed_at_us: u64,
    /// BEGIN or XA START was seen: the group ends at its commit, not at the first statement.
    has_begun: bool,
    /// The rows count only at an XA COMMIT. The text is the GTID.
    xa: Option<Arc<str>>,
    /// Rows of a subscribed table were handed over.
    has_rows: bool,
    /// Rows count when the group is committed, and not before (rule 9).
    is_held: bool,
    /// Its statement takes effect with that of another group.
    concerns_nothing: bool,
}

pub(super) struct Table {
    map: Arc<TableMap>,
    /// Indices of the subscribers that want it; empty for a table that nobody mapped.
    subscribers: Vec<usize>,
}

impl Follower {
    pub fn new(server: Server, start: Checkpoint, durable: Durable, sharing: Sharing) -> Self {
        let position = &start.position;
        Self {
            n: start.n,
            reached: Arc::new(AtomicU64::new(start.n)),
            began_at: start.n,
            sharing,
            numbering: Numbering::new(server.clone(), &position.file, position.offset),
            server,
            held: Held::default(),
            at: start,
            format: FormatDescription::assumed(),
            group: None,
            tables: HashMap::new(),
            subscribers: Vec::new(),
            joining: Vec::new(),
            has_served: false,
            boundary_is_new: false,
            durable,
            inflater: None,
            temporaries: Temporaries::default(),
        }
    }

    /// Counted bytes of log up to the last boundary that was made known.
    pub fn reached(&self) -> Arc<AtomicU64> {
        self.reached.clone()
    }

    /// The boundary behind which the stream must be resumed.
    pub fn resume_at(&self) -> &Checkpoint {
        &self.at
    }

    /// The stream begins anew at [`Self::resume_at`]: what was read of an open transaction will come again, with the
    /// same versions.
    pub fn reconnected(&mut self) {
        self.n = self.at.n;
        self.group = None;
        self.held = Held::default();
        self.tables.clear();
        self.format = FormatDescription::assumed();
    }

    /// Links that wait to join.
    pub fn waiting(&self) -> usize {
        self.joining.len()
    }

    pub fn wait_to_join(&mut self, subscription: Subscription) {
        self.joining.push(subscription);
    }

    /// Reads one event as it came over the connection.
    pub async fn follow(&mut self, bytes: &Bytes) -> Result<Step> {
        metrics().source_events.inc();
        metrics().source_bytes.inc_by(bytes.len() as u64);
        self.keep_reserved(bytes.len())?;
        let was_open = self.group.is_some();
        let header = self.follow_whole(bytes).await.map_err(|error| {
            error.context(format!(
                "in {} behind offset {}",
                self.at.position.file, self.at.position.offset
            ))
        })?;
        self.numbering.read(&header);
        if self.group.is_some() {
            self.held.spill_if_large(&self.durable.dir).await?;
            return Ok(Step::Within);
        }
        if was_open || self.numbering.is_by_place() {
            self.reach_boundary();
        }
        self.release().await?;
        Ok(Step::Boundary)
    }

    /// The tables that are followed, for [`is_wanted`].
    pub(super) fn tables(&self) -> &HashMap<u64, Table> {
        &self.tables
    }

    /// Counts an event that was not wanted, of which the beginning alone is there.
    fn step_over(&mut self, header: Header) -> Header {
        let checksum = if self.format.checksums { CHECKSUM_LEN as u64 } else { 0 };
        if self.group.is_some() {
            self.n += u64::from(header.event_size).saturating_sub(checksum);
        }
        header
    }

    /// No transaction is open.
    fn reach_boundary(&mut self) {
        let position = &mut self.at.position;
        let (file, offset) = (self.numbering.file(), self.numbering.offset());
        // Between transactions a server without GTIDs gets on too: to the next file.
        let is_same = self.at.n == self.n && position.offset == offset && position.file == file;
        if is_same {
            return;
        }
        self.at.n = self.n;
        position.offset = offset;
        if position.file != file {
            file.clone_into(&mut position.file);
        }
        self.numbering.reach(&mut position.gtids);
        self.boundary_is_new = true;
    }

    async fn follow_whole(&mut self, bytes: &Bytes) -> Result<Header> {
        let header = Header::parse_beginning(bytes)?;
        if header.event_size as usize > bytes.len() && !is_wanted(&self.tables, bytes) {
            return Ok(self.step_over(header));
        }
        let event = self.format.read(bytes)?;
        let header = event.header;
        match event.body {
            Body::Payload(payload) => self.follow_payload(&payload).await.map(|()| header),
            Body::Packed(packed) => self.follow_packed(&packed).map(|()| header),
            _ => self.follow_event(event, bytes),
        }
    }

    /// `whole` holds the event's bytes.
    fn follow_event(&mut self, event: Event<'_>, whole: &Bytes) -> Result<Header> {
        let header = event.header;
        let counted = event.bytes.len() as u64;
        match event.body {
            Body::FormatDescription(format) => {
                self.format = *format;
                self.tables.clear();
                self.abandon_group();
                return Ok(header);
            }
            Body::Rotate(rotate) => {
                self.numbering.begin_file(rotate.file, rotate.offset);
                // Where the server begins to read for us is not where the last boundary is: a file that is looked
                // through by GTID set begins before it.
                let is_news = !header.is_artificial() && self.at.position.file != rotate.file;
                if is_news && !self.numbering.is_by_place() {
                    self.at.position.file = rotate.file.to_owned();
                    self.at.position.offset = rotate.offset;
                }
                return Ok(header);
            }
            Body::GroupStart(start) => self.begin_group(start, &header)?,
            Body::Payload(_) | Body::Packed(_) => {
                let message = "what is compressed lies within a compressed transaction";
                return Err(Error::new(ErrorKind::Undecodable, message));
            }
            Body::Query(query) => {
                if self.group.is_none() && self.numbering.is_by_place() {
                    // Before 5.7 no event goes before a transaction's first statement.
                    self.begin_group(GroupStart::default(), &header)?;
                }
                self.follow_query(query, counted);
                return Ok(header);
            }
            Body::TableMap(table) => self.follow_table_map(&table)?,
            Body::Rows(rows) => self.follow_rows(&rows, whole.slice_ref(event.bytes)),
            Body::Xid(_) => {
                self.n += counted;
                self.end_group();
                return Ok(header);
            }
            Body::XaPrepare(prepare) => {
                self.follow_xa_prepare(&prepare);
                self.n += counted;
                self.end_group();
                return Ok(header);
            }
            Body::Incident => {
                return Err(Error::new(
                    ErrorKind::SourceLost,
                    "the source says that its log lost events (INCIDENT)",
                )
                .with_advice("drop the link and create it again"));
            }
            Body::PreviousGtids(_)
            | Body::RowsQuery(_)
            | Body::Heartbeat(_)
            | Body::Stop
            | Body::Other => {}
        }
        if self.group.is_some() {
            self.n += counted;
        }
        Ok(header)
    }

    /// A compressed transaction: its inner events count as if they had come alone, and are handed over like them, for
    /// unpacked it may be larger than memory.
    async fn follow_payload(&mut self, payload: &Payload<'_>) -> Result<()> {
        let mut inflater = match self.inflater.take() {
            Some(inflater) => inflater,
            None => Inflater::new(INNER_EVENT_BYTES_MAX)?,
        };
        let format = self.format.clone();
        let mut events = inflater.open(payload)?;
        while let Some(inner) = events.next()? {
            let inner = Bytes::copy_from_slice(inner);
            self.keep_reserved(inner.len())?;
            self.follow_event(format.read_inner(&inner)?, &inner)?;
            if self.is_full() {
                self.flush().await;
            }
        }
        self.inflater = Some(inflater);
        Ok(())
    }

    /// A compressed event counts as the plain one.
    fn follow_packed(&mut self, packed: &Packed<'_>) -> Result<()> {
        let plain = Bytes::from(packed.unpack(INNER_EVENT_BYTES_MAX)?);
        self.keep_reserved(plain.len())?;
        let format = self.format.clone();
        self.follow_event(format.read_inner(&plain)?, &plain).map(|_| ())
    }

    /// A file of the log has ended within a transaction: the server died while it wrote that, and has rolled it back.
    /// MariaDB leaves what was written in its log, and gives the number to another transaction.
    fn abandon_group(&mut self) {
        let Some(group) = &self.group else { return };
        tracing::warn!(gtid = ?group.gtid, "the log has a part of a transaction, which was rolled back");
        if group.has_rows && !group.is_held && group.xa.is_none() {
            self.tell_all(self.n, rolled_back);
        }
        self.held = Held::default();
        self.group = None;
    }

    fn begin_group(&mut self, start: GroupStart, header: &Header) -> Result<()> {
        self.abandon_group();
        let gtid = self.numbering.gtid(&start)?;
        if matches!(gtid.sid, Sid::Domain(_)) && self.at.position.gtids.contains(&gtid) {
            return Err(out_of_order(&gtid, &self.at.position.gtids));
        }
        let committed_at_us = match start.commit_micros {
            0 => u64::from(header.timestamp) * 1_000_000,
            micros => micros,
        };
        let mariadb = start.mariadb;
        let mut group = Group {
            gtid: Some(gtid),
            committed_at_us,
            has_begun: mariadb.is_some_and(|start| !start.is_standalone()),
            xa: None,
            has_rows: false,
            is_held: mariadb.is_some() && !is_naive(Rule::HeldGroups),
            concerns_nothing: mariadb.is_some_and(|start| start.alters_nothing()),
        };
        if mariadb.is_some_and(|start| start.is_prepared_xa()) {
            group.begin_xa();
        }
        self.group = Some(group);
        Ok(())
    }

    /// The group is committed, or was nothing that can be.
    fn end_group(&mut self) {
        let gtid = self.group.take().and_then(|group| group.gtid);
        if let Some(gtid) = gtid {
            self.at.position.gtids.pass(&gtid);
        }
    }

    /// Hands over what was held of the group that was just committed.
    async fn release(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held).release().await?;
        while let Some(row) = held.next().await? {
            for at in row.subscribers.iter() {
                self.subscribers[*at].push(Item::Rows(row.rows.clone()));
            }
            if self.is_full() {
                self.flush().await;
            }
        }
        Ok(())
    }

    /// `counted` are the bytes of its event.
    fn follow_query(&mut self, query: Query<'_>, counted: u64) {
        let n = self.n;
        self.n += counted;
        // Nearly every transaction has one, as these bytes.
        if query.statement == b"BEGIN" {
            if let Some(group) = &mut self.group {
                group.has_begun = true;
            }
            return;
        }
        let (db, statement) = (String::from_utf8_lossy(query.db), ddl::text::statement(&query));
        let read = ddl::read(&statement, &db);
        let Some(group) = &mut self.group else { return };
        if group.concerns_nothing {
            return self.end_group();
        }
        let ends_group = !group.has_begun;
        let gtid = group.gtid.clone();
        match &read.kind {
            ddl::Kind::Begin => group.has_begun = true,
            ddl::Kind::XaStart(_) => group.begin_xa(),
            ddl::Kind::Commit => self.end_group(),
            ddl::Kind::Rollback => {
                match (group.has_rows, group.is_held) {
                    (true, true) => self.held = Held::default(),
                    // It was told that they did happen.
                    (true, false) if self.server.naming == Naming::Domains => {}
                    (true, false) => self.tell_all(n, rolled_back),
                    (false, _) => {}
                }
                self.end_group();
            }
            // What is prepared is handed over at once, so what it rolls back is not known any more.
            ddl::Kind::Savepoint if group.xa.is_some() || !group.is_held => {
                let rolls_back = ddl::is_rollback_to(&statement) && !is_naive(Rule::HeldGroups);
                if group.has_rows && rolls_back {
                    self.tell_all(n, partly_rolled_back);
                }
            }
            ddl::Kind::Savepoint => {
                if !self.held.follow_savepoint(&statement) {
                    self.tell_all(n, partly_rolled_back);
                }
            }
            ddl::Kind::Dml | ddl::Kind::Ddl { .. } => {
                for subscriber in self.subscribers.iter_mut().filter(|s| s.wants(gtid.as_ref())) {
                    let is_meant = |table: &&TableId| {
                        read.names(table) && !self.temporaries.hides(query.thread_id, table)
                    };
                    let Some(table) = subscriber.subscription.tables().find(is_meant) else {
                        continue;
                    };
                    let item = match (&read.kind, &gtid) {
                        (ddl::Kind::Ddl { .. }, Some(gtid)) => Item::Ddl(Ddl {
                            statement: statement.clone().into_owned(),
                            db: db.clone().into_owned(),
                            gtid: gtid.clone(),
                            n,
                            behind: Arc::new(subscriber.behind(&self.at.position.gtids, gtid)),
                        }),
                        _ => {
                            let why = logged_as_statement(table, &statement);
                            Item::Unfollowable { why, group: group.xa.clone(), n }
                        }
                    };
                    subscriber.push(item);
                }
                self.temporaries.note(query.thread_id, &read, &statement, &db);
                if ends_group {
                    self.end_group();
                }
            }
            ddl::Kind::XaCommit | ddl::Kind::XaRollback => {
                let commits = read.kind == ddl::Kind::XaCommit;
                self.follow_xa_end(&statement, commits, n);
            }
            ddl::Kind::Temporary { .. } => {
                self.temporaries.note(query.thread_id, &read, &statement, &db);
                if ends_group {
                    self.end_group();
                }
            }
            ddl::Kind::XaEnd | ddl::Kind::Other => {
                if ends_group {
                    self.end_group();
                }
            }
        }
    }

    fn tell_all(&mut self, n: u64, error: impl Fn(&TableId) -> Error) {
        let group = self.group.as_ref();
        let gtid = group.and_then(|group| group.gtid.clone());
        let xa = group.and_then(|group| group.xa.clone());
        for subscriber in self.subscribers.iter_mut().filter(|s| s.wants(gtid.as_ref())) {
            let why = error(&subscriber.subscription.table);
            subscriber.push(Item::Unfollowable { why, group: xa.clone(), n });
        }
    }

    fn follow_table_map(&mut self, event: &TableMapEvent<'_>) -> Result<()> {
        if self.tables.get(&event.table_id).is_some_and(|table| table.map.is_same(event)) {
            return Ok(());
        }
        let wants = |(at, subscriber): (usize, &Subscriber)| {
            let is = |table: &TableId| table.name == event.table && table.db == event.db;
            subscriber.subscription.tables().any(is).then_some(at)
        };
        let subscribers: Vec<_> = self.subscribers.iter().enumerate().filter_map(wants).collect();
        if subscribers.is_empty() {
            // Rows of a table id that is not known are skipped undecoded.
            self.tables.remove(&event.table_id);
            return Ok(());
        }
        let map = Arc::new(TableMap::parse(event)?);
        self.tables.insert(event.table_id, Table { map, subscribers });
        Ok(())
    }

    fn follow_rows(&mut self, rows: &RowsEvent<'_>, event: Bytes) {
        let (Some(table), Some(group)) = (self.tables.get(&rows.table_id), &mut self.group) else {
            return;
        };
        group.has_rows = true;
        // A slice keeps the whole buffer that it was read into, of which other tables' rows may have the rest.
        let (event, held_bytes) = match event.len() {
            length if length < COPIED_BYTES => (Bytes::copy_from_slice(&event), length),
            length => (event, length.max(READ_BYTES)),
        };
        let logs_cascades = rows.logs_cascades();
        let rows = Rows {
            map: table.map.clone(),
            event,
            held_bytes,
            n: self.n,
            committed_at_us: group.committed_at_us,
            gtid: group.gtid.clone(),
        };
        let subscribers = &self.subscribers;
        let wants = |at: &&usize| {
            let subscriber = &subscribers[**at];
            let is_own = subscriber.subscription.table == rows.map.table;
            // Other tables are followed for what the log does not say of their children.
            subscriber.wants(rows.gtid.as_ref()) && (is_own || !logs_cascades)
        };
        let wanting: Vec<usize> = table.subscribers.iter().filter(wants).copied().collect();
        if group.is_held && group.xa.is_none() {
            return self.held.take(rows, wanting);
        }
        for at in wanting {
            let rows = rows.clone();
            self.subscribers[at].push(match &group.xa {
                Some(gtid) => Item::Prepared(rows, gtid.clone()),
                None => Item::Rows(rows),
            });
        }
    }

    /// Sees to it that every version of the next `bytes` of log is below the durable reservation.
    fn keep_reserved(&mut self, bytes: usize) -> Result<()> {
        // Asked for each event, inner ones too, none of which is above 1 GiB.
        let ahead = (bytes as u64).max(1 << 30);
        if self.at.epoch.version(self.n + ahead, 0) >= self.durable.reserved {
            self.durable.reserved =
                (self.durable.reserve)(self.at.epoch.version(self.n + ahead, 0))?;
        }
        Ok(())
    }

    /// The stream was for one link, which has it no more.
    pub fn is_deserted(&self) -> bool {
        matches!(self.sharing, Sharing::One(_))
            && self.has_served
            && self.joining.is_empty()
            && self.subscribers.iter().all(|one| one.is_gone)
    }

    /// Enough was collected to be handed over.
    pub fn is_full(&self) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.bytes() >= HAND_OVER_BYTES)
    }

    /// Hands over what was collected. Where a link's queue is full this waits, for a while: then the link is left behind,
    /// unless it is the last that shares the stream, or too many are behind.
    pub async fn flush(&mut self) {
        for at in 0..self.subscribers.len() {
            while !self.subscribers[at].hand_over().await {
                if self.may_leave_one() {
                    self.subscribers[at].leave();
                }
            }
        }
    }

    fn may_leave_one(&self) -> bool {
        match &self.sharing {
            Sharing::All { places, .. } => {
                let there = self.subscribers.iter().filter(|one| !one.is_gone).count();
                there + places.waiting() > 1 && places.is_free()
            }
            // Each life of it gets on by a transaction at least.
            Sharing::One(_) => self.at.n > self.began_at,
        }
    }

    /// Where no transaction is open: makes the boundary known, and lets links leave and join.
    pub async fn boundary(&mut self) {
        if self.group.is_some() {
            return self.flush().await;
        }
        if self.boundary_is_new {
            self.boundary_is_new = false;
            self.reached.store(self.at.n, Ordering::Release);
            let boundary = Arc::new(self.at.clone());
            for subscriber in &mut self.subscribers {
                if subscriber
                    .passed
                    .as_ref()
                    .is_some_and(|passed| self.at.position.gtids.covers(passed))
                {
                    subscriber.passed = None;
                }
                if subscriber.passed.is_none() {
                    subscriber.push(Item::Boundary(boundary.clone()));
                }
            }
        }
        self.flush().await;
        self.change_subscribers();
    }

    fn change_subscribers(&mut self) {
        let some_left =
            self.subscribers.iter().any(|s| s.is_gone || s.subscription.queue.is_closed());
        if !some_left && self.joining.is_empty() {
            return;
        }
        // Tables name their subscribers by index.
        self.tables.clear();
        self.subscribers.retain(|s| !s.is_gone && !s.subscription.queue.is_closed());
        for mut subscription in std::mem::take(&mut self.joining) {
            let Some((began_at, passed)) = self.join_at(subscription.from.take()) else {
                // Dropping `began` says so.
                tracing::warn!(
                    link = subscription.link,
                    "the stream is ahead of the link's checkpoint"
                );
                continue;
            };
            let (began, _) = oneshot::channel();
            let began = std::mem::replace(&mut subscription.began, began);
            if began.send(began_at).is_ok() {
                self.has_served = true;
                let patience = match &self.sharing {
                    Sharing::All { .. } => Patience::among_others(),
                    Sharing::One(_) => Patience::alone(),
                };
                self.subscribers.push(Subscriber::new(subscription, passed, patience));
            }
        }
    }

    /// Where a link with this checkpoint joins, and what it has already; `None` where the stream is beyond it.
    fn join_at(&self, from: Option<Checkpoint>) -> Option<(Began, Option<GtidSet>)> {
        let here = || Began { checkpoint: Arc::new(self.at.clone()), is_exact: true };
        let Some(from) = from else { return Some((here(), None)) };
        let passed = from.position.gtids;
        if !passed.covers(&self.at.position.gtids) {
            return None;
        }
        if self.at.position.gtids.covers(&passed) {
            return Some((here(), None));
        }
        let is_exact = from.epoch == self.at.epoch;
        let (epoch, n) = if is_exact { (from.epoch, from.n) } else { (self.at.epoch, self.at.n) };
        let position = Position { gtids: passed.clone(), ..from.position };
        let checkpoint = Arc::new(Checkpoint { epoch, n, position });
        Some((Began { checkpoint, is_exact }, Some(passed)))
    }

    /// Tells every link, waiting ones too, the same thing as the last thing.
    pub async fn broadcast(&mut self, item: impl Fn() -> Item) {
        let others = self.subscribers.len() > 1;
        for subscriber in &mut self.subscribers {
            subscriber.push(item());
            while !subscriber.hand_over().await {
                if others {
                    subscriber.leave();
                }
            }
        }
        for subscription in std::mem::take(&mut self.joining) {
            let _ = subscription.queue.send(vec![item()], 1).await;
        }
    }
}

/// Whether an event that begins so must be had whole: rows of a table that nobody follows need not, which may be larger
/// than memory.
pub(super) fn is_wanted(tables: &HashMap<u64, Table>, beginning: &[u8]) -> bool {
    const TABLE_ID_BYTES: usize = 6;
    let kind = Header::parse_beginning(beginning).map(|header| header.kind);
    let body = beginning.get(HEADER_LEN..).and_then(|body| body.get(..TABLE_ID_BYTES));
    match (kind, body) {
        (Ok(kind), Some(id)) if kind.is_rows() && !is_naive(Rule::Memory) => {
            let id = id.iter().rev().fold(0, |id, byte| id << 8 | u64::from(*byte));
            tables.contains_key(&id)
        }
        _ => true,
    }
}

fn shortened(statement: &str) -> String {
    const SHOWN: usize = 300;
    match statement.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &statement[..end]),
        None => statement.to_owned(),
    }
}

const START_AGAIN: &str =
    "drop the link and create it again: the snapshot reads what the log does not say";

fn logged_as_statement(table: &TableId, statement: &str) -> Error {
    // The statement's literals are cells' values, so only its verb is shown.
    let verb = statement.split_whitespace().next().unwrap_or_default();
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "a data change of {table} was logged as a statement ({} …), not as rows",
            shortened(verb)
        ),
    )
    .with_advice(format!(
        "set binlog_format=ROW for every session on the source, then {START_AGAIN}"
    ))
}

fn partly_rolled_back(table: &TableId) -> Error {
    let what = format!(
        "a transaction was rolled back to a savepoint that its log does not have, while {table} is mapped"
    );
    Error::new(ErrorKind::Unsupported, what).with_advice(START_AGAIN)
}

fn out_of_order(gtid: &Gtid, passed: &GtidSet) -> Error {
    let what = format!("the log has transaction {gtid} behind {passed}: numbers go backwards");
    Error::new(ErrorKind::SourceLost, what).with_advice(
        "SET GLOBAL gtid_strict_mode = ON on the source, so that this cannot happen, then drop the link and create it again",
    )
}

fn rolled_back(table: &TableId) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("a transaction that ends in ROLLBACK was logged while {table} is mapped"),
    )
    .with_advice(START_AGAIN)
}
