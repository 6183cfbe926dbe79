//! The worker's side of statements on its table: finds out what holds behind one, keeps it in the history, and goes on
//! under it. What a statement means is `consequence`'s to say.

use std::sync::{Arc, Mutex};

use crate::error::{Error, ErrorKind};
use crate::link::copy::{Copier, Subject};
use crate::link::copying::Copying;
use crate::link::end::End;
use crate::link::policy::OnGone;
use crate::link::supervisor::lock;
use crate::link::verify::Counts;
use crate::link::worker::Worker;
use crate::link::{consequence, definition};
use crate::mapping;
use crate::naive::{Rule, is_naive};
use crate::position::{GtidSet, Version};
use crate::source::ahead::Met;
use crate::source::ddl::fate::{Fate, fate};
use crate::source::stream::Ddl;
use crate::state::{Copy, SchemaRecord, SnapshotRecord};
use crate::table::{ColumnType, TableDef};

/// What is known of the rows that come.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Holding {
    /// The link's definition holds for them.
    Defined,
    /// Nothing proves what they mean before the stream has covered this; then the table is copied.
    Skipping(GtidSet),
    /// No table has the name. Where that was found at an earlier statement than the one by which it went, the rows between
    /// the two are not read.
    Gone { early: bool },
}

impl Worker {
    pub(super) async fn take_ddl(&mut self, ddl: Ddl) -> Result<(), End> {
        if is_naive(Rule::Definitions) {
            return Ok(());
        }
        let fate = fate(&ddl.statement, &ddl.db, &self.setup.named);
        let is_done =
            matches!(&self.holding, Holding::Skipping(until) if until.contains(&ddl.gtid));
        let is_nothing = match fate {
            Fate::Nothing => true,
            // In files the statement that made the table stands before its first row, by which it is known; another table
            // of the name would be seen by its layout.
            Fate::Made { .. } if self.setup.subject.source.files().is_some() => !self.is_gone(),
            Fate::Made { if_absent } => if_absent && !self.is_gone(),
            Fate::Gone { to: None } if self.holding == (Holding::Gone { early: true }) => false,
            Fate::Gone { .. } => self.is_gone(),
            Fate::Altered | Fate::Emptied | Fate::Taken { .. } => false,
        };
        if is_done || is_nothing {
            return Ok(());
        }
        self.is_at_boundary = false;
        let version = self.at.epoch.version(ddl.n, 0);
        let Ddl { statement, db, gtid, behind, .. } = ddl;
        let met = Met { statement, db, gtid, announced: None };
        tracing::info!(
            link = self.setup.link,
            statement = met.statement,
            "a statement on the table"
        );
        match &fate {
            Fate::Emptied => {
                return self.take_away(&met, self.setup.policy.on_truncate, version).await;
            }
            Fate::Gone { to: None } => {
                self.take_away(&met, self.setup.policy.on_drop, version).await?;
                if self.is_gone() {
                    self.holding = Holding::Gone { early: false };
                    return Ok(());
                }
            }
            _ => {}
        }
        let known = self.setup.history.behind(&met.gtid).cloned();
        let record = match known {
            Some(record) => Some(record),
            None => self.learn(&met, &fate, &behind).await?,
        };
        match record {
            Some(record) => self.adopt(&record, version),
            None => Ok(()),
        }
    }

    /// The rows go without events. What was read of them for a copy is not true any more.
    async fn take_away(&mut self, met: &Met, policy: OnGone, version: Version) -> Result<(), End> {
        match policy {
            OnGone::Fail => Err(End::Failed(consequence::destroyed(&self.setup.def.id, met))),
            OnGone::Ignore => Ok(()),
            OnGone::Delete => {
                self.stop_chunk();
                // What is there now, if anything, was inserted since; or the table was a temporary one of that name, made
                // before this log is read, and all rows are there.
                self.copy_anew(None);
                self.start_copier()?;
                let count = self.purge(version, version).await?;
                tracing::info!(
                    link = self.setup.link,
                    count,
                    "documents whose rows went are deleted"
                );
                Ok(())
            }
        }
    }

    /// Finds out what holds behind the statement, and keeps it before any row is decoded with it.
    async fn learn(
        &mut self,
        met: &Met,
        fate: &Fate,
        behind: &Arc<GtidSet>,
    ) -> Result<Option<SchemaRecord>, End> {
        let found = match fate {
            Fate::Gone { to: None } => {
                vec![consequence::gone(met, behind, self.went("was dropped", met))]
            }
            _ => {
                let (subject, from) = (self.setup.subject.clone(), behind.clone());
                let first = met.clone();
                let looking =
                    async move { definition::look_ahead_patiently(&subject, &first, &from).await };
                let elsewhere = || {
                    let what = "the source's address leads to another server now";
                    End::Again(Error::new(ErrorKind::SourceUnreachable, what))
                };
                let (seen, all) = self.meanwhile(looking).await??.ok_or_else(elsewhere)?;
                if let Fate::Gone { to: Some(to) } = fate {
                    if seen.def.is_some() && all.len() == 1 {
                        tracing::info!(link = self.setup.link, "a temporary table was meant");
                        return Ok(None);
                    }
                    let reason = self.went(&format!("was renamed to {to}"), met);
                    return self.keep(behind, vec![consequence::gone(met, behind, reason)]);
                }
                let standing = consequence::Standing {
                    def: &self.setup.def,
                    holds: self.holding == Holding::Defined,
                    spec: &self.setup.spec,
                    named: &self.setup.named,
                    policy: self.setup.policy,
                    all_columns: self.setup.all_columns,
                };
                consequence::records(&standing, &all, &seen).map_err(End::Failed)?
            }
        };
        self.keep(behind, found)
    }

    fn went(&self, how: &str, met: &Met) -> String {
        format!(
            "{} {how} by: {}; the link goes on when a table of that name is there again",
            self.setup.def.id,
            met.statement.trim()
        )
    }

    /// Stores what was found behind a statement; gives the record that holds there.
    fn keep(
        &mut self,
        behind: &GtidSet,
        found: Vec<SchemaRecord>,
    ) -> Result<Option<SchemaRecord>, End> {
        let first = found.first().cloned();
        let checkpoints = self.setup.state.checkpoints();
        let stored = checkpoints.get(&self.setup.link)?;
        let checkpoint = stored.map(|stored| stored.checkpoint.position.gtids).unwrap_or_default();
        // What is known beyond this statement was found from another moment.
        self.setup.history.learn(behind, &checkpoint, found);
        self.setup.state.schemas().put(
            &self.setup.link,
            &self.setup.def.id,
            &self.setup.history,
        )?;
        Ok(first)
    }

    /// Goes on under what a record says, from the statement of `version` on.
    fn adopt(&mut self, record: &SchemaRecord, version: Version) -> Result<(), End> {
        self.setup.live.set_note(record.reason.clone());
        if !record.reason.is_empty() {
            tracing::warn!(link = self.setup.link, reason = record.reason, "the table has changed");
        }
        self.forget_decoding();
        self.stop_chunk();
        let Some(def) = &record.definition else {
            let early = record.copy != Copy::No;
            self.holding = Holding::Gone { early };
            if early {
                // Whatever table has the name next, what was not read is made good by a copy of it.
                self.copy_anew(self.sweeps(&record.copy).then_some(version));
            }
            return Ok(());
        };
        if let Some((rules, keys)) = &record.rules {
            self.setup.spec = consequence::spec_of(&self.setup.spec.index, rules, keys);
        }
        let walks_as_before = has_same_order(&self.setup.def, def);
        self.setup.plan = compiled(&self.setup.spec, def, &self.setup.forms)?;
        self.setup.def = Arc::new(def.clone());
        self.bind_cascades();
        let ended = lock(&self.setup.subject.ended).clone();
        self.setup.subject = Arc::new(Subject {
            def: self.setup.def.clone(),
            wanted: self.cascades.wanted.clone(),
            prepared: Mutex::new(self.prepared.open.clone()),
            source: self.setup.subject.source.clone(),
            ended: Mutex::new(ended),
            server: self.setup.subject.server.clone(),
            chunk_bytes_max: self.setup.subject.chunk_bytes_max,
            watchdog: self.setup.subject.watchdog,
            turns: self.setup.subject.turns.clone(),
            live: self.setup.live.clone(),
        });
        self.holding = match &record.skipped {
            Some(until) => Holding::Skipping(until.clone()),
            None => Holding::Defined,
        };
        let copies = record.copy != Copy::No;
        if copies || !(self.snapshot.done || walks_as_before) {
            self.copy_anew(self.sweeps(&record.copy).then_some(version));
        }
        // A condition may name what is not there any more; the rows that it leaves out do no harm.
        self.snapshot.filter = None;
        self.start_copier()
    }

    fn sweeps(&self, copy: &Copy) -> bool {
        *copy == Copy::RowsAndSweep && !self.setup.policy.keeps_documents()
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.holding, Holding::Gone { .. })
    }

    /// Rows of the table were changed, and the log does not say how: what is there is copied again, and what is not
    /// there any more is deleted.
    pub(super) fn take_unfollowable(&mut self, why: Error) -> Result<(), End> {
        self.is_at_boundary = false;
        if self.holding != Holding::Defined || is_naive(Rule::SilentChanges) {
            // What is skipped is copied again.
            return Ok(());
        }
        if self.setup.policy.keeps_documents() {
            // Documents without rows are wanted, and which of them the change made is not known.
            return Err(End::Failed(why));
        }
        self.left_out.forget();
        tracing::warn!(link = self.setup.link, reason = %why.report(), "the table is copied again");
        self.setup.live.set_note(format!("the table is copied again: {}", why.report()));
        self.stop_chunk();
        self.copy_anew(Some(self.at.version()));
        self.start_copier()
    }

    /// Lets the copy begin at the next boundary, from the first key on. Where `sweep_below` is said, documents that have
    /// no row are deleted behind it; else where an earlier copy would have.
    pub(super) fn copy_anew(&mut self, sweep_below: Option<Version>) {
        let sweep_below = sweep_below.map(|version| version.0).or(self.snapshot.sweep_below);
        // This copy is also the one that foreign keys asked for, which may have taken rows.
        let owes_sweep = self.snapshot.again && !self.setup.policy.keeps_documents();
        let sweep_below = sweep_below.or(owes_sweep.then(|| self.at.version().0));
        let compares = self.snapshot.compares && !self.snapshot.done;
        self.snapshot = SnapshotRecord { sweep_below, compares, ..SnapshotRecord::default() };
        self.mended = Counts::default();
        self.setup.live.show_mending(None);
        self.copying = Copying::Ready;
        self.setup.live.forget_snapshot();
    }

    /// Rows that could not be read have passed.
    pub(super) fn end_skipping(&mut self) -> Result<(), End> {
        let is_over = matches!(&self.holding, Holding::Skipping(until)
            if self.at.position.gtids.covers(until));
        if is_over {
            self.holding = Holding::Defined;
            self.forget_decoding();
            self.start_copier()?;
        }
        Ok(())
    }

    /// A chunk that is being read, or waits to be written, is thrown away.
    pub(super) fn stop_chunk(&mut self) {
        if self.setup.copier.take().is_some() {
            // It may have waited for just this statement.
            self.setup.live.trouble_is_over();
        }
        if !matches!(self.copying, Copying::Done) {
            self.copying = Copying::Ready;
        }
    }

    /// Where the copy is not done and the definition holds.
    pub(super) fn start_copier(&mut self) -> Result<(), End> {
        if self.snapshot.done || self.holding != Holding::Defined {
            return Ok(());
        }
        self.show_copied();
        *lock(&self.setup.subject.prepared) = self.prepared.open.clone();
        let comparer = self.comparer()?;
        self.setup.copier = Some(Copier::start(self.setup.subject.clone(), comparer)?);
        Ok(())
    }
}

/// The plan of `spec` for the table as `def` says, in the link's forms of values.
pub(super) fn compiled(
    spec: &mapping::Spec,
    def: &TableDef,
    forms: &mapping::Forms,
) -> Result<Arc<mapping::Plan>, End> {
    let plan = mapping::compile(spec, def).map_err(|errors| {
        let reasons: Vec<_> = errors.iter().map(Error::report).collect();
        End::Failed(Error::new(ErrorKind::Schema, reasons.join("; ")))
    })?;
    Ok(Arc::new(plan.in_forms(forms)))
}

/// Whether a copy along the primary key can go on where it was. The order of texts is that of their collation, which a
/// definition does not tell.
fn has_same_order(old: &TableDef, new: &TableDef) -> bool {
    let key = |def: &TableDef| {
        let column =
            |at: &usize| (def.columns[*at].name.clone(), def.columns[*at].declared.clone());
        def.primary_key.iter().map(column).collect::<Vec<_>>()
    };
    let is_text =
        |at: &usize| matches!(new.columns[*at].ty, ColumnType::Text | ColumnType::TextIn { .. });
    key(old) == key(new) && !new.primary_key.iter().any(is_text)
}
