//! `VERIFY LINK`: says which documents are not what their rows make them, while rows change and the link runs, and has
//! them written anew. A task of its own beside the link's worker, with a connection of its own to the source.
//!
//! Table and index are never at the same moment: the index is behind the table by the lag of the link, and the log, from
//! which it is written, is ahead of what a SELECT can see. So one look finds suspects, and proves nothing.
//!
//! *Where the suspects come from.* The rows are read in chunks along the primary key, and their documents by id, as they
//! were when the verification began or later (`walk`). A document that equals its row is right, for what follows is a change on its
//! way. All others are suspects. Meanwhile the ids of the index are read page by page; those that no row has come for
//! are turned back into keys and looked for in the table (`met`), and those without a row are suspects.
//!
//! *What proves a difference* (`judge`). For some suspects at once:
//!
//! 1. Have the worker *note* from now on which of their documents it puts an operation in for.
//! 2. Wait until everything that stands in the log by now can be seen (`source::snapshot::view`), and then SELECT their
//!    rows by key.
//! 3. Wait until everything that can be seen by now is *acknowledged*: the worker has taken it in, all of it is put into
//!    the lanes, and the lanes have been answered for all that was put in.
//! 4. Read the documents, and then ask what was noted. Take a document for which nothing was noted.
//!
//! What the index holds of it in 4 is what the link has put in for it up to 1, all of it acknowledged (3), nothing else
//! since. Every change that was put in up to 1 stood in the log by then, so the SELECT saw it (2). Every change that the
//! SELECT saw was put in (3), and not behind 1, so before. Both are the same changes: the document must be what the row
//! that was read makes of it. If it is not, that is a difference, and no change on its way can explain it.
//!
//! *If something was noted*, the document is looked at again in another round. A row that changes faster than rounds can
//! be made is counted apart, as one that cannot be judged; each of its changes writes the whole document anew.
//!
//! *What can be seen by now* is within what stands in the log by now, on every kind of server
//! (`source::snapshot::watermark::settled`). Tables without transactions are changed before that is logged: of those a row
//! that changes at this moment may be taken for a difference.
//!
//! *The definition.* Rows are read with the definition that the link has when the verification begins. A statement on the
//! table that a SELECT could see is taken in by the worker in 3, and the answer then names another plan: everything begins
//! anew. The same is asked once more in the end.
//!
//! *Memory* is bounded by two chunks, a page of ids, so many suspects, and what `met` has room for.

pub(in crate::link) mod asking;
mod compare;
mod comparer;
mod expected;
mod judge;
pub(in crate::link) mod keys;
mod met;
mod schedule;
mod walk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use mysql_async::Conn;
use tokio::sync::oneshot;

use self::asking::Asking;
pub(super) use self::comparer::{Comparer, Sought, Wrong};
use self::met::Met;
use crate::document::{IdHasher, Key, KeyHasher};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::link::control::Control;
use crate::link::inquiry::Inquiry;
use crate::link::status::{Live, Verification, unix_millis, unix_seconds};
use crate::link::supervisor::{Inner, lock};
use crate::source::server::Server;
use crate::source::snapshot::{scan, watermark};
use crate::state::{KeyPart, VerifiedRecord};

/// What shall be verified, and how.
#[derive(Debug, Clone, Default)]
pub struct Order {
    pub link: String,
    /// A condition on the table's columns, in SQL: rows for which it is not true are left out, and so are documents
    /// without a row, of which nobody can say whether it would be.
    pub condition: Option<String>,
    /// So many of a million rows, and of a million documents, drawn by lot.
    pub sample_ppm: Option<u32>,
    /// Whether vectors are computed again also where that costs money.
    pub with_vectors: bool,
    pub repair: bool,
}

impl Order {
    /// Nothing is left out.
    fn is_whole(&self) -> bool {
        self.condition.is_none() && self.sample_ppm.is_none()
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub counts: Counts,
    /// At most [`SHOWN_MAX`] of them.
    pub differences: Vec<Difference>,
    /// Everything up to here was executed when it began, and is in the index but for the differences.
    pub position: String,
    pub elapsed: Duration,
    /// Whether documents without rows were looked for.
    pub has_looked_for_extras: bool,
    /// Whether vectors were compared, and not only looked for.
    pub has_computed_vectors: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows whose documents were looked at.
    pub rows: u64,
    /// Documents whose rows were looked for.
    pub documents: u64,
    pub missing: u64,
    pub different: u64,
    pub stale_vectors: u64,
    pub extra: u64,
    /// Extra documents with an `_id` that no row of the table can have.
    pub foreign: u64,
    /// Documents that changed each time they were looked at.
    pub unjudged: u64,
    /// Differences that are mended.
    pub repaired: u64,
}

impl Counts {
    /// All differences, the repaired ones too.
    pub fn differences(&self) -> u64 {
        self.missing + self.different + self.stale_vectors + self.extra + self.foreign
    }
}

/// A document that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub kind: Kind,
    pub id: String,
    /// In which it differs, where both are there.
    pub fields: Vec<String>,
    /// What was done about it, or can be.
    pub remedy: String,
    pub is_repaired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Missing,
    Different,
    /// Nothing but vectors that are not those of the texts.
    StaleVector,
    Extra,
    Foreign,
    Unjudged,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Different => "different",
            Self::StaleVector => "stale_vector",
            Self::Extra => "extra",
            Self::Foreign => "foreign",
            Self::Unjudged => "unjudged",
        }
    }
}

/// Differences that are shown one by one; all are counted.
pub const SHOWN_MAX: usize = 1_000;

/// Suspects that are gathered before they are judged.
const SUSPECTS_MAX: usize = 2_000;

/// Differences that are known again when the ids of an index must be read from the beginning.
const RECORDED_MAX: usize = 1 << 20;

/// How often a verification begins anew because the table was altered.
const BEGINNINGS_MAX: u32 = 3;

/// A document that was seen not to be what its row makes it.
struct Suspect {
    id: String,
    /// None where no row can have this id.
    key: Option<Vec<KeyPart>>,
    /// How often it was looked at and had changed meanwhile.
    rounds: u32,
    /// How often it was written anew.
    rewritten: u32,
    /// What was found before it was.
    found: Option<(Kind, Vec<String>)>,
}

impl Suspect {
    fn new(id: String, key: Option<Vec<KeyPart>>) -> Self {
        Self { id, key, rounds: 0, rewritten: 0, found: None }
    }
}

impl Control {
    /// Compares the link's table with its index, and repairs if that is asked for. Ends when the future is dropped.
    pub async fn verify(&self, order: &Order) -> Result<Verdict> {
        let id = &order.link;
        let (_, live) = self.inner.record_of(id).ok_or_else(|| self.unknown(id))?;
        if self.inner.parts.source.files().is_some() {
            let what = "the source is a folder of log files: there is no table to compare with";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .with_advice("verify a link that follows the server itself"));
        }
        if !live.begin_verification() {
            let what = format!("the link `{id}` is being verified already");
            return Err(Error::new(ErrorKind::Unsupported, what)
                .with_advice("wait for its end, or break it off where it was begun"));
        }
        let _running = Running(live.clone());
        let mut ending = self.inner.ending.subscribe();
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => {
                Err(Error::new(ErrorKind::Stopped, "Driftless stops before the verification has ended"))
            }
            verdict = Verifier::run(self, order, live) => verdict,
        }
    }
}

impl Inner {
    /// Another link that writes to the index of this UUID, through an alias perhaps.
    pub async fn shares_index(&self, link: &str, uuid: &str) -> Result<Option<String>> {
        let others: Vec<(String, String)> = lock(&self.links)
            .values()
            .filter(|entry| entry.record.id != link)
            .map(|entry| (entry.record.id.clone(), entry.record.index.clone()))
            .collect();
        for (other, index) in others {
            if self.sink.uuid(&index).await?.is_some_and(|found| found == uuid) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// Shown as running, and noting for it, until dropped.
struct Running(Arc<Live>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.metrics.verify_running.set(0);
        self.0.show_verification(None);
        if let Some(inquiries) = self.0.inquiries() {
            let (told, _) = oneshot::channel();
            // Where it is full, the next verification makes it end.
            let _ = inquiries.try_send(Inquiry::Watch { documents: Default::default(), told });
        }
    }
}

struct Verifier<'a> {
    control: &'a Control,
    order: &'a Order,
    live: Arc<Live>,
    /// The worker and what it does; another one after each break.
    link: Asking,
    conn: Option<Conn>,
    suspects: Vec<Suspect>,
    verdict: Verdict,
    /// Documents whose difference is counted.
    recorded: HashSet<Key, KeyHasher>,
    met: Met,
    /// The link was asked for versions above those of documents that could not be written.
    has_outgrown: bool,
    /// Why documents without a row are not deleted, if they are not.
    why_kept: Option<String>,
    shown: Verification,
    /// Draws other documents each time.
    seed: i64,
    backoff: Backoff,
}

impl<'a> Verifier<'a> {
    async fn run(control: &'a Control, order: &'a Order, live: Arc<Live>) -> Result<Verdict> {
        let began = Instant::now();
        live.metrics.verify_running.set(1);
        let mut beginnings = 0;
        loop {
            beginnings += 1;
            let mut verifier = Self::begin(control, order, live.clone()).await?;
            match verifier.all().await {
                // The worker knows another table than this one.
                Err(error) if error.kind() == ErrorKind::Schema && beginnings < BEGINNINGS_MAX => {
                    tracing::warn!(link = order.link, reason = %error.report(), "the verification begins anew");
                }
                Err(error) if error.kind() == ErrorKind::Schema => {
                    let what = error.context("the table is altered again and again");
                    return Err(what.with_advice("verify the link when its table stays as it is"));
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    let mut verdict = verifier.verdict;
                    verdict.elapsed = began.elapsed();
                    finish(control, order, &live, &verdict);
                    return Ok(verdict);
                }
            }
        }
    }

    async fn begin(control: &'a Control, order: &'a Order, live: Arc<Live>) -> Result<Self> {
        let link = Asking::begin(control, &order.link, &live).await?;
        let mut verifier = Self {
            control,
            order,
            live,
            link,
            conn: None,
            suspects: Vec::new(),
            verdict: Verdict::default(),
            recorded: HashSet::default(),
            met: Met::default(),
            has_outgrown: false,
            why_kept: None,
            shown: Verification::default(),
            seed: unix_millis(),
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
        };
        verifier.why_kept = verifier.why_kept().await?;
        verifier.verdict.has_computed_vectors = verifier.link.computes_vectors(order)?;
        Ok(verifier)
    }

    async fn all(&mut self) -> Result<()> {
        loop {
            match self.note_position().await {
                Err(error) if error.remedy() == Remedy::Retry => self.recover(error).await?,
                done => break done?,
            }
        }
        self.walk().await?;
        self.judge(0).await?;
        loop {
            match self.settle_now().await {
                Err(error) if error.remedy() == Remedy::Retry => self.recover(error).await?,
                done => return done,
            }
        }
    }

    /// Also looks whether the condition is one.
    async fn note_position(&mut self) -> Result<()> {
        let (def, server) = (self.link.standing.subject.def.clone(), self.server());
        let condition = self.order.condition.clone();
        let conn = self.conn().await?;
        if let Some(condition) = condition {
            scan::check_condition(conn, &def, &condition).await?;
        }
        self.verdict.position = watermark::executed(conn, &server).await?.to_string();
        Ok(())
    }

    /// Whatever was done to the table by now is known to the worker, which names the plan that it has.
    async fn settle_now(&mut self) -> Result<()> {
        let server = self.server();
        let covers = watermark::settled(self.conn().await?, &server).await?;
        self.link.settle(covers, &self.live, &mut self.shown).await
    }

    fn server(&self) -> Server {
        self.link.standing.subject.server.clone()
    }

    async fn conn(&mut self) -> Result<&mut Conn> {
        if self.conn.is_none() {
            let conn = self.link.standing.subject.connect().await?;
            self.conn = Some(conn);
        }
        Ok(self.conn.as_mut().expect("it was just opened"))
    }

    /// Something broke that time may mend, the link's run perhaps: waits, and takes up what runs then.
    async fn recover(&mut self, error: Error) -> Result<()> {
        tracing::warn!(link = self.order.link, error = %error.report(), "the verification waits");
        self.shown.waits_for = error.report();
        self.show();
        tokio::time::sleep(self.backoff.next(None)).await;
        self.conn = None;
        self.link = self.link.again(self.control, &self.order.link, &self.live).await?;
        self.shown.waits_for.clear();
        self.show();
        Ok(())
    }

    fn show(&mut self) {
        let counts = &self.verdict.counts;
        self.shown.rows = counts.rows;
        self.shown.documents = counts.documents;
        self.shown.differences = counts.differences();
        self.live.show_verification(Some(self.shown.clone()));
    }

    /// Why a document without a row may not be deleted.
    async fn why_kept(&self) -> Result<Option<String>> {
        let standing = &self.link.standing;
        if standing.policy.keeps_documents() {
            let why =
                "the link keeps documents whose rows went (on_truncate or on_drop is `ignore`)";
            return Ok(Some(why.to_owned()));
        }
        let uuid = &standing.route.target.uuid;
        let other = self.control.inner.shares_index(&self.order.link, uuid).await?;
        Ok(other.map(|other| format!("the link `{other}` writes to the same index")))
    }

    /// Counts a difference, and shows it if there is room.
    fn record(
        &mut self,
        kind: Kind,
        id: String,
        fields: Vec<String>,
        is_repaired: bool,
    ) -> Result<()> {
        if self.recorded.len() >= RECORDED_MAX {
            let what = format!("more than {RECORDED_MAX} documents differ from the table");
            let advice = "make the index anew: delete it, and the link fills it again";
            return Err(Error::new(ErrorKind::Unsupported, what).with_advice(advice));
        }
        if !self.recorded.insert(IdHasher.key(&id)) {
            return Ok(());
        }
        let counts = &mut self.verdict.counts;
        counts.add(kind);
        counts.repaired += u64::from(is_repaired);
        if self.verdict.differences.len() < SHOWN_MAX {
            let remedy = match !is_repaired && self.is_refused(&id) {
                true => format!(
                    "it is a dead letter: see SHOW DEAD LETTERS OF LINK `{}`",
                    self.order.link
                ),
                false => self.remedy(kind, is_repaired),
            };
            self.verdict.differences.push(Difference { kind, id, fields, remedy, is_repaired });
        }
        Ok(())
    }

    /// What the row makes of the document was refused for good.
    fn is_refused(&self, id: &str) -> bool {
        self.link.standing.route.letters.holds(id)
    }

    fn remedy(&self, kind: Kind, is_repaired: bool) -> String {
        let asked = self.order.repair;
        let table = &self.link.standing.subject.def.id;
        match (kind, &self.why_kept) {
            (Kind::Extra, _) if is_repaired => "deleted".to_owned(),
            (_, _) if is_repaired => "written anew".to_owned(),
            (Kind::Unjudged, _) => {
                "it changed each time it was looked at, which writes it anew".to_owned()
            }
            (Kind::Foreign, _) => {
                format!(
                    "no row of {table} can have this _id: another writer's, so it is not deleted"
                )
            }
            (Kind::Extra, Some(why)) => format!("it is not deleted: {why}"),
            (_, _) if asked => {
                "still there: the index holds a version above those that are written now".to_owned()
            }
            (Kind::Extra, None) => "REPAIR deletes it".to_owned(),
            (Kind::Missing | Kind::Different | Kind::StaleVector, _) => {
                "REPAIR writes it".to_owned()
            }
        }
    }
}

fn finish(control: &Control, order: &Order, live: &Live, verdict: &Verdict) {
    let (link, counts) = (&order.link, verdict.counts);
    for (kind, count) in [
        ("missing", counts.missing),
        ("different", counts.different),
        ("stale_vector", counts.stale_vectors),
        ("extra", counts.extra),
        ("foreign", counts.foreign),
        ("unjudged", counts.unjudged),
    ] {
        live.metrics.set_verify_differences(kind, count);
    }
    live.metrics.verify_repaired.inc_by(counts.repaired);
    tracing::info!(
        link,
        rows = counts.rows,
        documents = counts.documents,
        differences = counts.differences(),
        unjudged = counts.unjudged,
        repaired = counts.repaired,
        elapsed_ms = verdict.elapsed.as_millis() as u64,
        "verified"
    );
    let verified = VerifiedRecord {
        at: unix_seconds(),
        differences: counts.differences(),
        repaired: counts.repaired,
        unjudged: counts.unjudged,
    };
    if verified.left() > 0 {
        let left = verified.left();
        tracing::error!(link, left, "documents differ from the table; see VERIFY LINK");
    }
    if order.is_whole() {
        live.metrics.verify_ended_at.set(verified.at as i64);
        control.inner.store_record(link, |record| record.verified = Some(verified));
    }
}
