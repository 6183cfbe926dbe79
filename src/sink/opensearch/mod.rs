//! The OpenSearch sink, and the Elasticsearch sink, which speaks the same but for [`product`]: bulks of external versions
//! through a write alias. Must not know where operations come from.
//!
//! Why a deleted index cannot come back through us (rule 14): every bulk goes to an alias that [`index`] put on the
//! index, with `require_alias`. When the index is deleted its alias goes too, and the server then refuses to create
//! anything. For that to hold in a bulk of deletes only, [`bulk`] adds a guard.

mod beside;
mod bulk;
mod http;
mod index;
mod notes;
mod older;
mod product;
mod reading;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};

pub use self::bulk::write_operation;
use self::http::{Answer, Http};
pub(super) use self::notes::OwnNotes;
pub(super) use self::product::Product;
use self::reading::By;
use super::answer::{self, Placed};
use super::{
    Changes, Config, ID_BYTES_MAX, Moved, Moving, Named, Older, Outcome, PAGE_DOCUMENTS, Permit,
    Sink, Stored, Target,
};
use crate::document::{Batch, DocOp};
use crate::error::{Remedy, Result};
use crate::flow::aimd::Aimd;
use crate::naive::{Rule, is_naive};
use crate::position::Version;

pub(super) struct OpenSearch {
    http: Http,
    /// Less than configured where something on the way refuses that (413).
    bulk_bytes: Aimd,
    bulk_documents: usize,
    timeout_ms: u64,
    permit: Option<Arc<dyn Permit>>,
}

/// Most documents of a request whose pipeline the cluster runs: it asks the model for each, often one by one, and what is
/// not answered within `sink.timeout_ms` is sent, and paid for, again.
const DELEGATED_DOCUMENTS_MAX: usize = 100;

/// What is refused as too large is as a rule a limit that somebody has set and that stays; so it is tried rarely.
const TOO_LARGE_ROUND: usize = 500;
const TOO_LARGE_PARTS_MAX: usize = 256;

/// What one request holds.
type Part<'p, 'b> = Cow<'p, [Placed<'b>]>;

impl OpenSearch {
    pub(super) fn new(
        config: &Config,
        product: Product,
        permit: Option<Arc<dyn Permit>>,
    ) -> Result<Self> {
        Ok(Self {
            http: Http::new(config, product)?,
            bulk_bytes: Aimd::new(
                config.bulk_bytes / TOO_LARGE_PARTS_MAX,
                config.bulk_bytes,
                config.bulk_bytes / TOO_LARGE_PARTS_MAX,
            ),
            bulk_documents: config.bulk_documents.max(1),
            timeout_ms: config.timeout_ms,
            permit,
        })
    }

    async fn write_batch(&self, target: &Target, batch: &Batch) -> Result<Vec<Outcome>> {
        debug_assert!(has_one_operation_per_document(batch), "a batch must be coalesced");
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|op| unsendable(&op)).collect();
        let sendable: Vec<Placed<'_>> =
            batch.iter().enumerate().filter(|(at, _)| outcomes[*at].is_none()).collect();

        let documents_max = match target.runs_pipeline {
            true => self.bulk_documents.min(DELEGATED_DOCUMENTS_MAX),
            false => self.bulk_documents,
        };
        // A stack, because a part that is too large for the server is put back as two halves.
        let mut parts: Vec<Part<'_, '_>> =
            bulk::split(&sendable, self.bulk_bytes.now(), documents_max)
                .into_iter()
                .rev()
                .map(Cow::Borrowed)
                .collect();
        let mut unanswered = None;
        while let Some(part) = parts.pop() {
            let is_begun = outcomes.iter().any(Option::is_some);
            match self.write_part(target, &part, &mut outcomes).await {
                Ok(ControlFlow::Continue(more)) => parts.extend(more),
                Ok(ControlFlow::Break(())) => break,
                // What was answered for is not to be embedded by the cluster once more.
                Err(error)
                    if target.runs_pipeline && is_begun && error.remedy() == Remedy::Retry =>
                {
                    unanswered = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let retry = || match &unanswered {
            Some(error) if error.is_overload() => {
                Outcome::Overloaded { reason: error.report(), retry_after: error.retry_after() }
            }
            Some(error) => Outcome::Retry { reason: error.report() },
            None => Outcome::Retry { reason: "the server did not answer for it".to_owned() },
        };
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(retry)).collect())
    }

    /// One request. Goes on with the parts that are to be sent because of its answer, or breaks off where no further
    /// request can help before somebody has acted.
    async fn write_part<'p, 'b: 'p>(
        &self,
        target: &Target,
        part: &[Placed<'b>],
        outcomes: &mut [Option<Outcome>],
    ) -> Result<ControlFlow<(), Vec<Part<'p, 'b>>>> {
        let seen = self.bulk_bytes.cuts();
        let answer = self.send(target, part).await?;
        match (answer.status, part) {
            (413, [(at, _)]) => {
                outcomes[*at] = Some(refused("the document alone is larger than the server takes"));
                Ok(ControlFlow::Continue(Vec::new()))
            }
            (413, _) => {
                self.bulk_bytes.cut(seen);
                Ok(ControlFlow::Continue(halves(part.to_vec())))
            }
            (200, _) => {
                self.bulk_bytes.grow(TOO_LARGE_ROUND);
                let spoilt = answer::read(target, part, &answer.body, outcomes)?;
                match (spoilt.is_empty(), part.len()) {
                    (true, _) => Ok(ControlFlow::Continue(Vec::new())),
                    // It is the one.
                    (false, 1) => Ok(ControlFlow::Break(())),
                    // The model refused several texts, perhaps for one of them: halves find out which.
                    (false, _) => {
                        spoilt.iter().for_each(|at| outcomes[*at] = None);
                        let again = part.iter().filter(|(at, _)| spoilt.contains(at)).copied();
                        Ok(ControlFlow::Continue(halves(again.collect())))
                    }
                }
            }
            _ => Err(answer.into_error("write a bulk")),
        }
    }

    async fn send(&self, target: &Target, part: &[Placed<'_>]) -> Result<Answer> {
        let body = bulk::body(part);
        // Behind everything that takes time: what follows is the request itself.
        let left = self.permit.as_ref().map(|permit| permit.time_left()).transpose()?;
        let timeout_ms =
            left.map_or(self.timeout_ms, |left| self.timeout_ms.min(left.as_millis() as u64));
        let path = if is_naive(Rule::ErrorClasses) {
            bulk::path_creating_indices(&target.index)
        } else {
            bulk::path(&target.alias, timeout_ms, target.runs_pipeline)
        };
        self.http.bulk(&path, body, Some(Duration::from_millis(timeout_ms))).await
    }
}

impl OwnNotes {
    pub(super) fn new(config: &Config, product: Product) -> Result<Self> {
        Ok(Self { http: Http::new(config, product)? })
    }
}

impl Sink for OpenSearch {
    fn greet<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        index::greet(&self.http).boxed()
    }

    fn inspect<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Target>> {
        index::inspect(&self.http, index).boxed()
    }

    fn prepare<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Target>> {
        index::prepare(&self.http, index).boxed()
    }

    fn uuid<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        index::uuid(&self.http, index).boxed()
    }

    fn runs_pipelines(&self) -> bool {
        true
    }

    fn has_pipeline<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        index::has_pipeline(&self.http, name).boxed()
    }

    fn write<'a>(
        &'a self,
        target: &'a Target,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<Vec<Outcome>>> {
        self.write_batch(target, batch).boxed()
    }

    fn bulk_bytes(&self) -> usize {
        self.bulk_bytes.now()
    }

    fn older<'a>(
        &'a self,
        target: &'a Target,
        below: Version,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Older>> {
        older::page(&self.http, target, below, after).boxed()
    }

    fn read<'a>(
        &'a self,
        target: &'a Target,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        reading::read(&self.http, target, ids, By::Get).boxed()
    }

    fn look_up<'a>(
        &'a self,
        target: &'a Target,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        reading::read(&self.http, target, ids, By::Search).boxed()
    }

    fn let_go<'a>(&'a self, index: &'a str, with_index: bool) -> BoxFuture<'a, Result<()>> {
        index::let_go(&self.http, index, with_index).boxed()
    }

    fn named<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Named>> {
        beside::named(&self.http, index).boxed()
    }

    fn make_like<'a>(
        &'a self,
        present: &'a str,
        new: &'a str,
        changes: &'a Changes,
    ) -> BoxFuture<'a, Result<()>> {
        beside::make_like(&self.http, present, new, changes).boxed()
    }

    fn refresh<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<()>> {
        beside::refresh(&self.http, index).boxed()
    }

    fn move_names<'a>(&'a self, moving: &'a Moving) -> BoxFuture<'a, Result<Moved>> {
        beside::move_names(&self.http, moving).boxed()
    }
}

/// Two parts of about the same size, the first one last; of one operation, one.
fn halves<'p, 'b: 'p>(mut operations: Vec<Placed<'b>>) -> Vec<Part<'p, 'b>> {
    let second = operations.split_off(operations.len().div_ceil(2));
    [second, operations].into_iter().filter(|part| !part.is_empty()).map(Cow::Owned).collect()
}

/// The end of an operation that would fail the whole bulk it is in, or break its lines.
fn unsendable(op: &DocOp<'_>) -> Option<Outcome> {
    if op.id.is_empty() {
        return Some(refused("its _id is empty"));
    }
    if op.id.len() > ID_BYTES_MAX {
        let length = op.id.len();
        return Some(refused(format!("its _id has {length} bytes, more than {ID_BYTES_MAX}")));
    }
    if memchr::memchr(b'\n', op.body).is_some() {
        return Some(refused("its JSON is written over several lines"));
    }
    if i64::try_from(op.version.0).is_err() {
        let reason = format!("version {} is beyond what an index can hold", op.version);
        return Some(Outcome::Blocked { reason });
    }
    None
}

fn refused(reason: impl Into<Cow<'static, str>>) -> Outcome {
    Outcome::Refused { reason: reason.into().into_owned() }
}

fn has_one_operation_per_document(batch: &Batch) -> bool {
    let mut ids = hashbrown::HashSet::<&str, foldhash::fast::RandomState>::default();
    // The naive reading of rule 5 sends several, which is what it is there to show.
    batch.iter().all(|op| ids.insert(op.id)) || is_naive(Rule::Tombstones)
}
