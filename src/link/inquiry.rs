//! What a link's worker is asked by others while it runs: what it does, whether everything up to a moment has been
//! acknowledged, which of some documents it operates on meanwhile, and to write some rows again. What the answers are good
//! for is `verify`'s to say.
//!
//! *Written again.* Rows are read again by their keys while the stream stands at a boundary B and the server has executed
//! everything up to B, and are written with the highest version that is below all that will come from behind B; a document
//! without a row is deleted with it. Whatever is in a lane by then has a lower version, and a document has one operation in
//! flight. What was read may be newer than B: then the change lies behind B, and follows with a higher version. So a repair
//! never ends in an older state. The highest, because another writer that gives no version has raised that of the document
//! by one each time; where this is not enough, an epoch above it is asked for.

use std::sync::Arc;

use hashbrown::HashSet;
use tokio::sync::{mpsc, oneshot};

use crate::document::{Action, DocOp, IdHasher, Key, KeyHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::lane::Number;
use crate::link::altering::Holding;
use crate::link::copy::Subject;
use crate::link::end::End;
use crate::link::lane::Route;
use crate::link::left_out::Asked;
use crate::link::policy::Policy;
use crate::link::worker::Worker;
use crate::mapping;
use crate::position::{GtidSet, Version};
use crate::source::snapshot;
use crate::state::KeyPart;

pub(super) type Keys = HashSet<Key, KeyHasher>;

/// Who waits for an answer that names the plan of that moment.
type Told = oneshot::Sender<Result<Arc<mapping::Plan>>>;

pub(super) enum Inquiry {
    Describe(oneshot::Sender<Result<Standing>>),
    /// Notes from now on which of these documents are operated on.
    Watch {
        documents: Keys,
        told: oneshot::Sender<()>,
    },
    /// Told when all that is covered was taken in, and everything that was taken in by then is acknowledged.
    Settle {
        covers: GtidSet,
        told: Told,
    },
    /// Told which of the watched documents were operated on.
    Touched(oneshot::Sender<Keys>),
    /// The index holds a version, this one or one that cannot be known, above what can be written: the link's run ends,
    /// and an epoch above it begins.
    Outgrow {
        above: Version,
    },
    /// Told when it is acknowledged.
    Rewrite {
        rows: Rewrite,
        told: Told,
    },
}

/// Documents that shall be made what their rows say.
pub(super) struct Rewrite {
    pub documents: Vec<(String, Vec<KeyPart>)>,
    /// Else those without rows stay.
    pub may_delete: bool,
}

/// What a link does with rows, as of now.
#[derive(Clone)]
pub(super) struct Standing {
    pub subject: Arc<Subject>,
    pub plan: Arc<mapping::Plan>,
    pub route: Arc<Route>,
    pub policy: Policy,
    pub snapshot: snapshot::Config,
}

/// Inquiries that wait to be taken; there is one who asks, and asks one after the other.
const WAITING_MAX: usize = 4;

/// The worker's side.
pub(super) struct Inquiries {
    incoming: mpsc::Receiver<Inquiry>,
    /// Wait for a boundary.
    settling: Vec<(GtidSet, Told)>,
    rewriting: Vec<(Rewrite, Told)>,
    /// Wait for the lanes, with the batches that they wait for.
    acknowledging: Vec<(Vec<Number>, Told, Arc<mapping::Plan>)>,
}

impl Inquiries {
    pub fn open() -> (mpsc::Sender<Inquiry>, Self) {
        let (sender, incoming) = mpsc::channel(WAITING_MAX);
        let (settling, rewriting, acknowledging) = (Vec::new(), Vec::new(), Vec::new());
        (sender, Self { incoming, settling, rewriting, acknowledging })
    }

    /// Cancel safe.
    pub async fn next(&mut self) -> Inquiry {
        match self.incoming.recv().await {
            Some(inquiry) => inquiry,
            None => std::future::pending().await,
        }
    }

    pub fn wait_for_boundary(&self) -> bool {
        !(self.settling.is_empty() && self.rewriting.is_empty())
    }

    pub fn take_done(&mut self, done: &[Number]) {
        if self.acknowledging.is_empty() {
            return;
        }
        let is_done = |(reached, ..): &mut (Vec<Number>, _, _)| {
            reached.iter().zip(done).all(|(reached, done)| done >= reached)
        };
        for (_, told, plan) in self.acknowledging.extract_if(.., is_done) {
            // Who does not listen any more need not be told.
            let _ = told.send(Ok(plan));
        }
    }
}

impl Worker {
    pub(super) async fn take_inquiry(&mut self, inquiry: Inquiry) -> Result<(), End> {
        match inquiry {
            Inquiry::Describe(told) => {
                let _ = told.send(self.why_not_settled().map_or_else(|| Ok(self.standing()), Err));
            }
            Inquiry::Watch { documents, told } => {
                self.setup.lanes.watch(documents);
                let _ = told.send(());
            }
            Inquiry::Touched(told) => {
                let _ = told.send(self.setup.lanes.touched());
            }
            Inquiry::Outgrow { above } => {
                let reason = format!(
                    "documents of {} hold versions that another writer has given them",
                    self.setup.route.index
                );
                let above = above.max(self.at.highest_version());
                return Err(End::NewEpoch { above, reason });
            }
            Inquiry::Settle { covers, told } => self.inquiries.settling.push((covers, told)),
            Inquiry::Rewrite { rows, told } => self.inquiries.rewriting.push((rows, told)),
        }
        if self.is_at_boundary {
            self.answer_at_boundary().await?;
        }
        Ok(())
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            subject: self.setup.subject.clone(),
            plan: self.setup.plan.clone(),
            route: self.setup.route.clone(),
            policy: self.setup.policy,
            snapshot: self.setup.snapshot_config.clone(),
        }
    }

    /// Why the index cannot be expected to equal the table.
    fn why_not_settled(&self) -> Option<Error> {
        let table = &self.setup.def.id;
        let what = match &self.holding {
            Holding::Gone { .. } => format!("the table {table} is gone"),
            Holding::Skipping(_) => format!("{table} was altered, and will be copied again"),
            Holding::Defined if self.snapshot.compares && !self.snapshot.done => {
                format!("{table} is compared with its documents already")
            }
            Holding::Defined if !self.snapshot.done => format!("{table} is being copied"),
            Holding::Defined => return None,
        };
        let advice =
            "ask again when the link's jobStatus is `running`: CALL dbms_etl.show_sync_link()";
        Some(Error::new(ErrorKind::Unsupported, what).with_advice(advice))
    }

    /// At a boundary with nothing behind it.
    pub(super) async fn answer_at_boundary(&mut self) -> Result<(), End> {
        if !self.inquiries.wait_for_boundary() {
            return Ok(());
        }
        let at = &self.at.position.gtids;
        let settled: Vec<_> =
            self.inquiries.settling.extract_if(.., |(covers, _)| at.covers(covers)).collect();
        for (_, told) in settled {
            self.tell_when_acknowledged(told);
        }
        for (rows, told) in std::mem::take(&mut self.inquiries.rewriting) {
            if self.why_not_settled().is_none()
                && let Err(error) = self.rewrite(rows).await?
            {
                let _ = told.send(Err(error));
                continue;
            }
            self.tell_when_acknowledged(told);
        }
        self.setup.lanes.send_to_idle().await?;
        self.inquiries.take_done(&self.setup.lanes.done());
        Ok(())
    }

    fn tell_when_acknowledged(&mut self, told: Told) {
        if let Some(error) = self.why_not_settled() {
            let _ = told.send(Err(error));
            return;
        }
        let (reached, plan) = (self.setup.lanes.reached(), self.setup.plan.clone());
        self.inquiries.acknowledging.push((reached, told, plan));
    }

    /// Puts the rows into the lanes as they are now; an error that says that the table is another one is the asker's.
    pub(super) async fn rewrite(&mut self, rows: Rewrite) -> Result<Result<()>, End> {
        let asked = Asked {
            subject: self.setup.subject.clone(),
            def: self.setup.def.clone(),
            wanted: self.cascades.wanted.clone(),
            transactions: self.at.position.gtids.clone(),
            keys: rows.documents.iter().map(|(_, key)| key.clone()).collect(),
            key_ordinals: self.setup.plan.key_ordinals().collect(),
        };
        let chunk = match self.meanwhile(asked.read_patiently(None)).await? {
            Ok((_, chunk)) => chunk,
            Err(error) if error.kind() == ErrorKind::Schema => return Ok(Err(error)),
            Err(error) => return Err(error.into()),
        };
        let (plan, def) = (self.setup.plan.clone(), self.setup.def.clone());
        let types: Vec<_> = self.cascades.wanted.iter().map(|at| &def.columns[*at].ty).collect();
        let version = self.at.highest_version();
        let mut wanted: HashSet<String> = rows.documents.into_iter().map(|(id, _)| id).collect();
        let (mut id, mut body) = (String::new(), Vec::new());
        for row in 0..chunk.len() {
            let refused = chunk.with_row(row, &types, |values| {
                id.clear();
                body.clear();
                plan.id(values, &mut id)?;
                self.track_read(values, &id)?;
                Ok(plan.body(values, &mut body).err())
            })?;
            if let Some(error) = refused {
                wanted.remove(&id);
                self.refuse(&id, version, &error)?;
                continue;
            }
            // Of a key that compares equal there may be a row with another `_id`.
            if wanted.remove(&id) {
                let key = IdHasher.key(&id);
                let action = Action::Upsert;
                self.setup.lanes.put(DocOp { action, id: &id, key, version, body: &body });
                if self.setup.lanes.any_is_full() {
                    self.send_full().await?;
                }
            }
        }
        for id in wanted.iter().filter(|_| rows.may_delete) {
            let (action, key) = (Action::Delete, IdHasher.key(id));
            self.setup.lanes.put(DocOp { action, id, key, version, body: &[] });
        }
        self.write_fresh()?;
        Ok(Ok(()))
    }
}
