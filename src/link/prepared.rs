//! The XA side of a link's worker: keeps what a prepared transaction does to the link's documents until it is committed
//! or rolled back (rule 3). How such a transaction stands in the log is told in `source::follower::xa`.
//!
//! *When it counts.* Rows of a prepared group are mapped where they stand, with the definition that holds there, and what
//! they do is kept in the state: by XA PREPARE all of it is written, so no checkpoint passes XA PREPARE without it. At XA
//! COMMIT it goes into the lanes, and its documents count as changed for the window of a snapshot: that is the place
//! where a SELECT begins to see them. A group is deleted when a checkpoint that no longer names it is written; until then
//! a replay of XA COMMIT finds it again. A checkpoint names the prepared transactions of its position, so that a replay
//! of a log in which one XID is used twice takes the right group.
//!
//! *Its versions.* XA COMMIT has a hundred bytes of log and may bring a million operations, so they cannot have a place
//! each. They need none. A transaction is one moment: of its operations on one document only the last is kept, so it has
//! at most one operation for each document, and all of them carry the version of the place where the event of the
//! commit begins. Two operations of one document then still have different versions: an operation before it stems from a
//! row image or a boundary that lies before the event's first byte, one behind it from an image or a boundary behind its
//! last. The place is the same again on every replay and for every link.
//!
//! *What was prepared before the link began.* Its rows were never delivered, and a copy that reads the table before it is
//! committed has the old ones. So every XID that was prepared since the beginning is remembered, also where no row of the
//! table was touched; another one that is committed is from before. Where the account may ask for prepared transactions, a
//! copy begins only when those are gone (`source::snapshot::undecided`). Where it may not, the link is stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::change::{Change, ChangeKind};
use crate::document::{Action, DocOp, IdHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::link::altering::Holding;
use crate::link::cascades::watch::Cascades;
use crate::link::cascades::{Hit, Place};
use crate::link::copying::Copying;
use crate::link::end::End;
use crate::link::left_out::{self, is_incomplete};
use crate::link::supervisor::lock;
use crate::link::worker::Worker;
use crate::mapping;
use crate::position::Version;
use crate::source::binlog::event::RowsEvent;
use crate::source::binlog::rows;
use crate::source::stream::{Commit, Rows, Xa};
use crate::source::xid::Xid;
use crate::state::PreparedOp;

/// By XID the group in the state, if it does anything to the link's documents.
pub(super) type Open = BTreeMap<String, Option<String>>;

/// XA transactions between their first row and their end.
#[derive(Default)]
pub(super) struct Prepared {
    /// Prepared up to the last item, and not ended.
    pub open: Arc<Open>,
    /// The same as of the last boundary: what a checkpoint there must name.
    pub at_boundary: Arc<Open>,
    /// The group whose rows come just now.
    reading: Option<Reading>,
    /// Groups in the state that have ended, and that the last written checkpoint may still name.
    ended: Vec<String>,
    /// One that is from before the link's beginning was committed while the snapshot's bounds were asked for.
    pub bounds_are_stale: bool,
}

struct Reading {
    group: Arc<str>,
    ops: BTreeMap<String, PreparedOp>,
    ops_bytes: usize,
    /// Operations before those in `ops` are in the state.
    is_spilled: bool,
}

/// Stands for no document: every `_id` has a character.
const NO_DOCUMENT: &str = "";

/// What of a group is held before it is written to the state, and what is read of it at once.
const PIECE_BYTES: usize = 1 << 20;

impl Prepared {
    pub fn new(open: Arc<Open>) -> Self {
        Self { at_boundary: open.clone(), open, ..Self::default() }
    }

    /// What was read of the group so far.
    fn reading_of(&mut self, group: &Arc<str>) -> Reading {
        match self.reading.take() {
            Some(reading) if reading.group == *group => reading,
            _ => Reading {
                group: group.clone(),
                ops: BTreeMap::new(),
                ops_bytes: 0,
                is_spilled: false,
            },
        }
    }

    /// The groups that have ended and that a checkpoint with these open ones does not need.
    pub fn take_needless(&mut self, open: &Open) -> Vec<String> {
        let is_named = |group: &String| open.values().flatten().any(|named| named == group);
        let (kept, needless) = std::mem::take(&mut self.ended).into_iter().partition(is_named);
        self.ended = kept;
        needless
    }
}

impl Reading {
    fn put(&mut self, op: &DocOp<'_>) {
        let kept = match op.action {
            Action::Upsert => PreparedOp::Upsert(op.body.to_vec()),
            Action::Delete => PreparedOp::Delete,
        };
        self.keep(op.id, kept);
    }

    fn keep(&mut self, id: &str, op: PreparedOp) {
        const ENTRY_BYTES: usize = size_of::<(String, PreparedOp)>();
        self.ops_bytes += ENTRY_BYTES + id.len() + op.size_bytes();
        self.ops.insert(id.to_owned(), op);
    }

    fn keep_hits(&mut self, cascades: &Cascades, hits: Vec<Hit>) {
        for hit in hits {
            self.keep(&hit_name(cascades, &hit), PreparedOp::Children);
        }
    }

    /// A change whose after image lacks mapped columns.
    fn keep_incomplete(&mut self, plan: &mapping::Plan, change: &Change<'_>) -> Result<()> {
        let (mut id, mut before) = (String::new(), String::new());
        plan.id(&change.after.values, &mut id)?;
        if change.kind == ChangeKind::Update {
            plan.id(&change.before.values, &mut before)?;
            if before != id {
                self.keep(&before, PreparedOp::Delete);
            }
        }
        self.keep(&id, PreparedOp::ReadAgain(left_out::key_of(plan, &change.after)?));
        Ok(())
    }
}

/// What stands in the place of a document's id. A key is named, for its place in the family may be another at the commit.
fn hit_name(cascades: &Cascades, hit: &Hit) -> String {
    match hit {
        Hit::Children { key, form: Some(form) } => format!("\0{}\0{form}", cascades.key(*key).name),
        Hit::Children { key, form: None } => format!("\0{}", cascades.key(*key).name),
        Hit::Above => "\0\0above".to_owned(),
        Hit::Unknown => "\0\0unknown".to_owned(),
    }
}

fn named_hits(cascades: &Cascades, name: &str) -> Vec<Hit> {
    let mut parts = name.splitn(3, '\0').skip(1);
    match (parts.next(), parts.next()) {
        (Some(""), Some("above")) => vec![Hit::Above],
        (Some(name), form) if !name.is_empty() => {
            let is_it = |key: &usize| cascades.key(*key).name == name;
            let found = cascades.own.iter().map(|own| own.key).find(is_it);
            match found {
                Some(key) => vec![Hit::Children { key, form: form.map(str::to_owned) }],
                None => vec![Hit::Unknown],
            }
        }
        _ => vec![Hit::Unknown],
    }
}

impl Worker {
    /// Takes in rows that count only when their transaction is committed.
    pub(super) fn take_prepared(&mut self, rows: &Rows, group: &Arc<str>) -> Result<()> {
        if rows.map.table != self.setup.def.id {
            return self.take_prepared_parent(rows, group);
        }
        self.is_at_boundary = false;
        if self.holding != Holding::Defined {
            return Ok(());
        }
        let plan = self.plan_of(rows)?;
        let event = RowsEvent::read(&rows.event)?;
        let mut reader = rows::Reader::new(&event, &plan)?;
        let mut change = Change::reusable(ChangeKind::Insert);
        let mut reading = self.prepared.reading_of(group);
        let keys = self.has_cascades() && !event.logs_cascades();
        let parent = self.cascades.is_own_parent(&rows.map.table).filter(|_| keys);
        let mut count = 0;
        while reader.next(&mut change)? {
            count += 1;
            // What is not true before the commit is stale, and of what was true nothing is taken away.
            if change.kind != ChangeKind::Delete && keys {
                let mut id = String::new();
                self.setup.plan.id(&change.after.values, &mut id)?;
                self.track_read(&change.after.values, &id)?;
            }
            if let Some(parent) = parent {
                let hits = self.hits(parent, &change, event.can_cascade());
                reading.keep_hits(&self.cascades, hits);
            }
            let version = |_| Version::default();
            if is_incomplete(&change) {
                reading.keep_incomplete(&self.setup.plan, &change)?;
            } else {
                let mut put = |op: DocOp<'_>| reading.put(&op);
                self.setup.plan.apply(&change, version, &mut self.decoder.scratch, &mut put)?;
            }
            if reading.ops_bytes >= PIECE_BYTES {
                self.spill(&mut reading)?;
            }
        }
        self.write_fresh()?;
        self.count_rows(change.kind, count);
        self.prepared.reading = Some(reading);
        Ok(())
    }

    /// Rows of a table that the link's rows refer to.
    fn take_prepared_parent(&mut self, rows: &Rows, group: &Arc<str>) -> Result<()> {
        let event = RowsEvent::read(&rows.event)?;
        let table = &rows.map.table;
        let at = self.cascades.parents.iter().position(|parent| parent.table == *table);
        let (Some(at), true) = (at, self.has_cascades() && !event.logs_cascades()) else {
            return Ok(());
        };
        self.is_at_boundary = false;
        let mut reading = self.prepared.reading_of(group);
        let mut change = Change::reusable(ChangeKind::Insert);
        match self.parent_plan(at, rows)? {
            Some(plan) => {
                let mut reader = rows::Reader::new(&event, &plan)?;
                while reader.next(&mut change)? {
                    let hits = self.hits(at, &change, event.can_cascade());
                    reading.keep_hits(&self.cascades, hits);
                    if reading.ops_bytes >= PIECE_BYTES {
                        self.spill(&mut reading)?;
                    }
                }
            }
            None if event.can_cascade() => {
                reading.keep_hits(&self.cascades, vec![Hit::Unknown]);
            }
            None => {}
        }
        self.prepared.reading = Some(reading);
        Ok(())
    }

    /// Takes in a change that counts only when its transaction is committed, and that the log does not have as rows.
    pub(super) fn take_prepared_unseen(&mut self, group: &Arc<str>) {
        self.is_at_boundary = false;
        if self.holding == Holding::Defined {
            let mut reading = self.prepared.reading_of(group);
            reading.keep(NO_DOCUMENT, PreparedOp::CopyAgain);
            self.prepared.reading = Some(reading);
        }
    }

    fn spill(&self, reading: &mut Reading) -> Result<()> {
        self.setup.state.prepared().put(&self.setup.link, &reading.group, &reading.ops)?;
        reading.ops.clear();
        reading.ops_bytes = 0;
        reading.is_spilled = true;
        Ok(())
    }

    pub(super) async fn take_xa(&mut self, step: Xa) -> Result<(), End> {
        self.is_at_boundary = false;
        // Rows of a group that did not come to its end will come again.
        let reading = self.prepared.reading.take();
        let reading_of = |group: &str| reading.filter(|reading| *reading.group == *group);
        match step {
            // Its rows, if any, were not read. What it did is in the copy that follows, or it counts there as one from
            // before the link began. Where no table has the name it has no rows of ours, for DDL waits for its locks.
            Xa::Prepared { .. } if matches!(self.holding, Holding::Skipping(_)) => {}
            Xa::Prepared { xid, group } => {
                let has_rows = match reading_of(&group) {
                    Some(mut reading) => self.spill(&mut reading).map(|()| true)?,
                    None => false,
                };
                let group = has_rows.then(|| group.as_ref().to_owned());
                Arc::make_mut(&mut self.prepared.open).insert(xid.as_str().to_owned(), group);
                if !self.snapshot.done {
                    *lock(&self.setup.subject.prepared) = self.prepared.open.clone();
                }
            }
            Xa::CommittedAtOnce { group, at } => {
                if let Some(reading) = reading_of(&group) {
                    self.commit_at_once(reading, &at).await?;
                }
            }
            Xa::Committed { xid, at } => {
                self.setup.subject.note_ended(&xid);
                match self.end_of(&xid) {
                    Some(Some(group)) => {
                        self.commit(&group, &at).await?;
                        self.prepared.ended.push(group);
                    }
                    Some(None) => {}
                    None => self.meet_foreign(&xid)?,
                }
            }
            Xa::RolledBack { xid } => {
                let group = self.end_of(&xid).flatten();
                self.prepared.ended.extend(group);
            }
        }
        Ok(())
    }

    /// What was remembered of a transaction that ends now; None for one that was prepared before the link began.
    fn end_of(&mut self, xid: &Xid) -> Option<Option<String>> {
        let ended = Arc::make_mut(&mut self.prepared.open).remove(xid.as_str());
        if !self.snapshot.done {
            *lock(&self.setup.subject.prepared) = self.prepared.open.clone();
        }
        ended
    }

    async fn commit_at_once(&mut self, mut reading: Reading, at: &Commit) -> Result<(), End> {
        if !reading.is_spilled {
            return self.put_committed(reading.ops.iter(), at).await;
        }
        self.spill(&mut reading)?;
        self.commit(&reading.group, at).await?;
        // No checkpoint names it: a replay reads its rows again.
        self.setup.state.prepared().delete(&self.setup.link, &reading.group)?;
        Ok(())
    }

    /// Puts what a group does into the lanes, as of the place of its commit.
    async fn commit(&mut self, group: &str, at: &Commit) -> Result<(), End> {
        let (state, link) = (self.setup.state.clone(), self.setup.link.clone());
        let mut after = None::<String>;
        loop {
            let ops = state.prepared().after(&link, group, after.as_deref(), PIECE_BYTES)?;
            let Some((last, _)) = ops.last() else { return Ok(()) };
            after = Some(last.clone());
            self.put_committed(ops.iter().map(|(id, op)| (id, op)), at).await?;
        }
    }

    async fn put_committed(
        &mut self,
        ops: impl Iterator<Item = (&String, &PreparedOp)>,
        at: &Commit,
    ) -> Result<(), End> {
        self.first_commit_us.get_or_insert(at.committed_at_us);
        let version = self.at.epoch.version(at.n, 0);
        let mut copies_again = false;
        for (id, op) in ops {
            if let Some(window) = self.copying.window()
                && *op != PreparedOp::Children
            {
                window.record(id);
            }
            let (action, body) = match op {
                PreparedOp::Upsert(body) => (Action::Upsert, body.as_slice()),
                PreparedOp::Delete => (Action::Delete, &[][..]),
                PreparedOp::CopyAgain => {
                    copies_again = true;
                    continue;
                }
                PreparedOp::Children => {
                    let place = Place { n: at.n, version, gtid: at.gtid.as_ref() };
                    for hit in named_hits(&self.cascades, id) {
                        self.meet(hit, place).await?;
                    }
                    continue;
                }
                PreparedOp::ReadAgain(key) => {
                    self.left_out.wait(id, key.clone(), version, at.gtid.as_ref());
                    if self.left_out.is_full() {
                        self.fill_left_out().await?;
                    }
                    continue;
                }
            };
            self.left_out.supersede(id);
            let key = IdHasher.key(id);
            self.setup.lanes.put(DocOp { action, id, key, version, body });
            if self.setup.lanes.any_is_full() {
                self.send_full().await?;
            }
        }
        if copies_again {
            let what = "an XA transaction has changes that were logged as statements, not as rows";
            self.take_unfollowable(Error::new(ErrorKind::Unsupported, what))?;
        }
        Ok(())
    }

    /// A transaction was committed whose rows were delivered before the link began.
    fn meet_foreign(&mut self, xid: &Xid) -> Result<(), End> {
        if self.holding != Holding::Defined {
            return Ok(());
        }
        let copies_all = !self.snapshot.done && self.snapshot.filter.is_none();
        if copies_all && self.snapshot.until.is_none() {
            // Nothing was copied yet, and what will be read is read when this is executed. Bounds that were asked for
            // may have been read before it.
            self.prepared.bounds_are_stale =
                matches!(self.copying, Copying::AskedForBounds | Copying::Bounded(_));
            return Ok(());
        }
        let table = &self.setup.def.id;
        let what = format!(
            "the XA transaction {xid} was prepared before this link began, and is committed now: what it changed of {table} \
             was never seen"
        );
        let advice = "drop the link and create it again; GRANT XA_RECOVER_ADMIN ON *.* TO the source's user, and a link \
                      waits at its beginning until such transactions have ended";
        Err(End::Failed(Error::new(ErrorKind::Unsupported, what).with_advice(advice)))
    }
}
