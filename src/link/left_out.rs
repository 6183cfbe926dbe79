//! Columns that row images leave out (`binlog_row_image` MINIMAL or NOBLOB, differences of JSON values): the rows are
//! read again by their key, in batches, and then go into the lanes as if the log had had them whole.
//!
//! A row is read only when the server has executed the transaction of its event, so what is read is the row as of the
//! event or newer. It is written with the version of the event. Why that converges:
//!
//! 1. *The row is newer.* Then a later event changed it, which stands behind this one in the log, and is written with a
//!    higher version in its turn. The last event of a row has nothing behind it: what is read for it is its last state.
//! 2. *The row is gone*, or has another key now. Then an event behind this one deleted it under this key, for this one
//!    left it there. Nothing is written; that event's delete follows.
//! 3. *Order.* A document waits here with its newest operation only. One that comes meanwhile and is whole, a delete too,
//!    takes its place and goes into the lanes at once, so nothing is put into a lane behind a newer one. Everything is
//!    read and put before a boundary is noted and before a DDL is taken in, so no checkpoint passes a row that waits, and
//!    no window opens over one.
//! 4. *The definition.* Columns are read by name, with the definition of the moment of reading. It is compared with the
//!    one that holds for the event, in the transaction that reads the rows, which keeps the table from being altered in
//!    between. If it is another one for the columns in question, nothing is written: a statement on
//!    the table stands further on in the log, and behind it the table is copied again.
//!
//! So for a moment a document may be newer than the checkpoint says, and where later events of the row are whole, it can
//! go through its last states once more. It never ends there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;

use crate::change::{Change, ChangeKind, Row, Value};
use crate::document::{Action, DocOp, IdHasher};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::link::copy::Subject;
use crate::link::end::End;
use crate::link::worker::Worker;
use crate::mapping;
use crate::position::{Gtid, GtidSet, Version};
use crate::source::control;
use crate::source::snapshot::scan::{self, Chunk};
use crate::source::snapshot::view;
use crate::source::stream::Rows;
use crate::state::KeyPart;
use crate::table::{Column, ColumnType, TableDef};

/// Documents whose newest change left columns out.
#[derive(Default)]
pub(super) struct LeftOut {
    waiting: HashMap<String, Waiting>,
    /// The transactions of their events.
    transactions: GtidSet,
    /// Kept between two batches.
    conn: Option<Conn>,
}

struct Waiting {
    key: Vec<KeyPart>,
    version: Version,
    /// The row may be gone without an event of its own: where it is not there, its document is deleted.
    may_be_gone: bool,
}

/// Rows that are read by one statement.
const ROWS_MAX: usize = 256;

impl LeftOut {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A copy that has not begun will bring what waited.
    pub fn forget(&mut self) {
        self.waiting.clear();
        self.transactions = GtidSet::default();
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() >= ROWS_MAX
    }

    /// An operation of this document goes into the lanes: what waited for it is older.
    #[inline]
    pub fn supersede(&mut self, id: &str) {
        if !self.waiting.is_empty() {
            self.waiting.remove(id);
        }
    }

    pub fn wait(&mut self, id: &str, key: Vec<KeyPart>, version: Version, gtid: Option<&Gtid>) {
        let waiting = Waiting { key, version, may_be_gone: false };
        self.waiting.insert(id.to_owned(), waiting);
        if let Some(gtid) = gtid {
            self.transactions.insert(gtid);
        }
    }

    /// A row that may have been changed, or deleted, without an event of its own.
    pub fn wait_gone(
        &mut self,
        id: &str,
        key: Vec<KeyPart>,
        version: Version,
        gtid: Option<&Gtid>,
    ) {
        self.wait(id, key, version, gtid);
        if let Some(waiting) = self.waiting.get_mut(id) {
            waiting.may_be_gone = true;
        }
    }

    /// Nothing is read before the source has executed these.
    pub fn wait_for(&mut self, transactions: &GtidSet) {
        self.transactions.union(transactions);
    }
}

/// Whether the change leaves a row behind of which not everything that is mapped is known.
pub(super) fn is_incomplete(change: &Change<'_>) -> bool {
    change.kind != ChangeKind::Delete && change.after.values.contains(&Value::LeftOut)
}

/// The key of a row as the source can be asked for it.
pub(super) fn key_of(plan: &mapping::Plan, row: &Row<'_>) -> Result<Vec<KeyPart>> {
    key_of_values(plan, &row.values)
}

pub(super) fn key_of_values(plan: &mapping::Plan, values: &[Value<'_>]) -> Result<Vec<KeyPart>> {
    plan.key_values(values).map(|(column, value)| key_part(column, value)).collect()
}

pub(super) fn key_part(column: &Column, value: &Value<'_>) -> Result<KeyPart> {
    Ok(match *value {
        Value::Int(number) => KeyPart::Int(number),
        Value::UInt(number) => KeyPart::UInt(number),
        Value::Year(year) => KeyPart::UInt(year.into()),
        Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => KeyPart::Text(text.to_owned()),
            Err(_) => KeyPart::Bytes(bytes.to_vec()),
        },
        Value::Bytes(bytes) => KeyPart::Bytes(bytes.to_vec()),
        Value::Binary { bytes, length } => {
            // The log cuts trailing zero bytes, a comparison does not add them.
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().max(length.into()), 0);
            KeyPart::Bytes(bytes)
        }
        _ => {
            let text = mapping::key_text(value, &column.ty)?;
            KeyPart::Text(match column.ty {
                // Sessions of ours are in UTC, and the server reads no `Z`.
                ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
                    text.trim_end_matches('Z').replacen('T', " ", 1)
                }
                _ => text,
            })
        }
    })
}

impl Worker {
    /// Takes in a change whose after image lacks mapped columns.
    pub(super) fn take_incomplete(&mut self, change: &Change<'_>, rows: &Rows) -> Result<()> {
        let plan = self.setup.plan.clone();
        let version = |row: &Row<'_>| self.at.epoch.version(rows.n, row.offset);
        let mut id = String::new();
        plan.id(&change.after.values, &mut id)?;
        if change.kind == ChangeKind::Update {
            let mut before = String::new();
            plan.id(&change.before.values, &mut before)?;
            if before != id {
                let (key, version) = (IdHasher.key(&before), version(&change.before));
                self.left_out.supersede(&before);
                let (action, id) = (Action::Delete, before.as_str());
                self.setup.lanes.put(DocOp { action, id, key, version, body: &[] });
            }
        }
        let key = key_of(&plan, &change.after)?;
        self.left_out.wait(&id, key, version(&change.after), rows.gtid.as_ref());
        Ok(())
    }

    /// Reads all rows that wait, and puts them into the lanes.
    pub(super) async fn fill_left_out(&mut self) -> Result<(), End> {
        loop {
            self.draw_children()?;
            if self.left_out.is_empty() {
                self.cascades.gone.clear();
                return Ok(());
            }
            self.read_left_out().await?;
        }
    }

    async fn read_left_out(&mut self) -> Result<(), End> {
        let mut waiting = std::mem::take(&mut self.left_out.waiting);
        if self.copy_is_ahead() {
            // It brings the rows that are there. Not once the bounds are asked for: rows above them come by the stream
            // alone.
            waiting.retain(|_, one| one.may_be_gone);
        }
        if waiting.is_empty() {
            self.left_out.forget();
            return Ok(());
        }
        let keys = waiting.values().map(|one| one.key.clone()).collect();
        let transactions = std::mem::take(&mut self.left_out.transactions);
        let (plan, def) = (self.setup.plan.clone(), self.setup.def.clone());
        let key_ordinals: Vec<_> = plan.key_ordinals().collect();
        let wanted = self.cascades.wanted.clone();
        let asked = (def.clone(), wanted.clone(), key_ordinals);
        let Some(chunk) = self.read_by_key(asked, keys, transactions).await? else {
            return self.meet_altered(waiting.values().any(|one| one.may_be_gone));
        };
        let types: Vec<_> = wanted.iter().map(|at| &def.columns[*at].ty).collect();
        let (mut id, mut body) = (String::new(), Vec::new());
        for row in 0..chunk.len() {
            let mut refused = None;
            let found = chunk.with_row(row, &types, |values| {
                id.clear();
                match plan.id(values, &mut id) {
                    Ok(()) => {}
                    // Nobody waits for it.
                    Err(error) if error.kind() == ErrorKind::DocumentRefused => return Ok(None),
                    Err(error) => return Err(error),
                }
                let found = waiting.remove(&id);
                body.clear();
                if found.is_some() {
                    self.track_read(values, &id)?;
                    refused = plan.body(values, &mut body).err();
                }
                Ok(found)
            })?;
            let Some(found) = found else { continue };
            let (key, version) = (IdHasher.key(&id), found.version);
            if let Some(error) = refused {
                self.refuse(&id, version, &error)?;
                continue;
            }
            let action = Action::Upsert;
            self.setup.lanes.put(DocOp { action, id: &id, key, version, body: &body });
            if self.setup.lanes.any_is_full() {
                self.send_full().await?;
            }
        }
        self.delete_gone(waiting).await
    }

    /// The documents of rows that were not found, and that nothing in the log will delete.
    async fn delete_gone(&mut self, waiting: HashMap<String, Waiting>) -> Result<(), End> {
        for (id, gone) in waiting.into_iter().filter(|(_, one)| one.may_be_gone) {
            let (key, version) = (IdHasher.key(&id), gone.version);
            self.setup.lanes.put(DocOp {
                action: Action::Delete,
                id: &id,
                key,
                version,
                body: &[],
            });
            self.meet_gone(&id, &gone.key, version);
            if self.setup.lanes.any_is_full() {
                self.send_full().await?;
            }
        }
        Ok(())
    }

    /// Rows of any table by a key of theirs, when the source has executed these transactions; None where the table is
    /// another one by now.
    pub(super) async fn read_by_key(
        &mut self,
        (def, wanted, key_ordinals): (Arc<TableDef>, Vec<usize>, Vec<usize>),
        keys: Vec<Vec<KeyPart>>,
        transactions: GtidSet,
    ) -> Result<Option<Chunk>, End> {
        let subject = self.setup.subject.clone();
        let asked = Asked { subject, def, wanted, transactions, keys, key_ordinals };
        let conn = self.left_out.conn.take();
        match self.meanwhile(asked.read_patiently(conn)).await? {
            Ok((conn, chunk)) => {
                self.left_out.conn = Some(conn);
                Ok(Some(chunk))
            }
            Err(error) if error.kind() == ErrorKind::Schema => {
                tracing::warn!(link = self.setup.link, reason = %error.report(), "rows were not read");
                self.setup.live.set_note(format!("the table is copied again: {}", error.report()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The table is not any more what it was for the rows that wait.
    fn meet_altered(&mut self, may_be_gone: bool) -> Result<(), End> {
        if may_be_gone && self.setup.policy.keeps_documents() {
            let what = "rows that a foreign key changed cannot be read any more";
            return Err(End::Failed(Error::new(ErrorKind::Unsupported, what)));
        }
        tracing::warn!(link = self.setup.link, "the table is copied again");
        self.stop_chunk();
        self.copy_anew(may_be_gone.then(|| self.at.version()));
        self.start_copier()
    }
}

/// A batch of rows is never waited for any longer over one connection.
const ROWS_ANSWERED_IN_MAX: Duration = Duration::from_secs(3_600);

/// One batch of keys.
pub(super) struct Asked {
    pub subject: Arc<Subject>,
    pub def: Arc<TableDef>,
    pub wanted: Vec<usize>,
    pub transactions: GtidSet,
    pub keys: Vec<Vec<KeyPart>>,
    pub key_ordinals: Vec<usize>,
}

impl Asked {
    /// Reads for as long as waiting can help.
    pub async fn read_patiently(self, mut conn: Option<Conn>) -> Result<(Conn, Chunk)> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut had_trouble = false;
        let mut limit = control::ANSWERED_IN;
        loop {
            match self.read(conn.take(), limit).await {
                Ok(read) => {
                    if had_trouble {
                        self.subject.live.trouble_is_over();
                    }
                    return Ok(read);
                }
                Err(error) if error.remedy() == Remedy::Retry => {
                    had_trouble = true;
                    // Rows may be large, and the way slow.
                    limit = (limit * 2).min(ROWS_ANSWERED_IN_MAX);
                    tracing::warn!(error = %error.report(), "rows wait to be read again");
                    self.subject.live.wait_for(error.report());
                    tokio::time::sleep(backoff.next(None)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&self, conn: Option<Conn>, limit: Duration) -> Result<(Conn, Chunk)> {
        let subject = &self.subject;
        let mut conn = match conn {
            Some(conn) => conn,
            None => subject.connect().await?,
        };
        subject.open(&mut conn, &self.transactions).await?;
        let (def, wanted) = (&self.def, &self.wanted);
        let read = scan::read_keys(&mut conn, def, wanted, &self.key_ordinals, &self.keys);
        let read = control::in_time(limit, read).await;
        let chunk = read.map_err(|error| self.explain(error))?;
        view::close(&mut conn, &subject.server).await?;
        Ok((conn, chunk))
    }

    fn explain(&self, error: Error) -> Error {
        error.context("what the log leaves out cannot be read")
    }
}
