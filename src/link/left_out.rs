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
use crate::link::copying::Copying;
use crate::link::end::End;
use crate::link::worker::Worker;
use crate::mapping;
use crate::position::{Gtid, GtidSet, Version};
use crate::source::control;
use crate::source::snapshot::scan::{self, Chunk};
use crate::source::snapshot::watermark;
use crate::source::stream::Rows;
use crate::state::KeyPart;
use crate::table::{Column, ColumnType};

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
        self.waiting.insert(id.to_owned(), Waiting { key, version });
        if let Some(gtid) = gtid {
            self.transactions.insert(gtid);
        }
    }
}

/// Whether the change leaves a row behind of which not everything that is mapped is known.
pub(super) fn is_incomplete(change: &Change<'_>) -> bool {
    change.kind != ChangeKind::Delete && change.after.values.contains(&Value::LeftOut)
}

/// The key of a row as the source can be asked for it.
pub(super) fn key_of(plan: &mapping::Plan, row: &Row<'_>) -> Result<Vec<KeyPart>> {
    plan.key_values(&row.values).map(|(column, value)| key_part(column, value)).collect()
}

fn key_part(column: &Column, value: &Value<'_>) -> Result<KeyPart> {
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
        if self.left_out.is_empty() {
            return Ok(());
        }
        if matches!(self.copying, Copying::Ready)
            && !self.snapshot.done
            && self.snapshot.until.is_none()
        {
            // Not once the bounds are asked for: rows above them come by the stream alone.
            self.left_out.forget();
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.left_out.waiting);
        let asked = Asked {
            subject: self.setup.subject.clone(),
            transactions: std::mem::take(&mut self.left_out.transactions),
            keys: waiting.values().map(|one| one.key.clone()).collect(),
            key_ordinals: self.setup.plan.key_ordinals().collect(),
        };
        let conn = self.left_out.conn.take();
        let (conn, chunk) = match self.meanwhile(asked.read_patiently(conn)).await? {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Schema => return self.meet_altered(&error),
            Err(error) => return Err(error.into()),
        };
        self.left_out.conn = Some(conn);
        let (plan, def) = (self.setup.plan.clone(), self.setup.def.clone());
        let types: Vec<_> = plan.wanted().iter().map(|at| &def.columns[*at].ty).collect();
        let (mut id, mut body) = (String::new(), Vec::new());
        for row in 0..chunk.len() {
            let found = chunk.with_row(row, &types, |values| {
                id.clear();
                plan.id(values, &mut id)?;
                let found = waiting.remove(&id);
                body.clear();
                if found.is_some() {
                    plan.body(values, &mut body)?;
                }
                Ok(found)
            })?;
            let Some(found) = found else { continue };
            let (key, version) = (IdHasher.key(&id), found.version);
            let action = Action::Upsert;
            self.setup.lanes.put(DocOp { action, id: &id, key, version, body: &body });
            if self.setup.lanes.any_is_full() {
                self.send_full().await?;
            }
        }
        Ok(())
    }

    /// The table is not any more what it was for the rows that wait.
    fn meet_altered(&mut self, error: &Error) -> Result<(), End> {
        tracing::warn!(link = self.setup.link, reason = %error.report(), "the table is copied again");
        self.setup.live.set_note(format!("the table is copied again: {}", error.report()));
        self.stop_chunk();
        self.copy_anew(None);
        self.start_copier()
    }
}

/// One batch of keys.
pub(super) struct Asked {
    pub subject: Arc<Subject>,
    /// Must be executed before.
    pub transactions: GtidSet,
    pub keys: Vec<Vec<KeyPart>>,
    pub key_ordinals: Vec<usize>,
}

impl Asked {
    /// Reads for as long as waiting can help.
    pub async fn read_patiently(self, mut conn: Option<Conn>) -> Result<(Conn, Chunk)> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut had_trouble = false;
        loop {
            match self.read(conn.take()).await {
                Ok(read) => {
                    if had_trouble {
                        self.subject.live.trouble_is_over();
                    }
                    return Ok(read);
                }
                Err(error) if error.remedy() == Remedy::Retry => {
                    had_trouble = true;
                    tracing::warn!(error = %error.report(), "rows wait to be read again");
                    self.subject.live.wait_for(error.report());
                    tokio::time::sleep(backoff.next(None)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&self, conn: Option<Conn>) -> Result<(Conn, Chunk)> {
        let subject = &self.subject;
        let mut conn = match conn {
            Some(conn) => conn,
            None => {
                let mut conn = control::connect(&subject.source).await?;
                let found = watermark::executed(&mut conn).await?.server_uuid;
                if found != subject.server_uuid {
                    return Err(scan::other_server(&subject.server_uuid, &found));
                }
                conn
            }
        };
        watermark::wait_until_executed(&mut conn, &self.transactions).await?;
        let wanted = &subject.wanted;
        let read = scan::read_keys(&mut conn, &subject.def, wanted, &self.key_ordinals, &self.keys);
        let chunk = read.await.map_err(|error| self.explain(error))?;
        Ok((conn, chunk))
    }

    fn explain(&self, error: Error) -> Error {
        error.context("columns that the log leaves out cannot be read")
    }
}
