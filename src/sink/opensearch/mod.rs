//! The OpenSearch sink: bulks of external versions through a write alias. Must not know where operations come from.
//!
//! Why a deleted index cannot come back through us (rule 14): every bulk goes to an alias that [`index`] put on the
//! index, with `require_alias`. When the index is deleted its alias goes too, and the server then refuses to create
//! anything. For that to hold in a bulk of deletes only, [`bulk`] adds a guard.

mod bulk;
mod http;
mod index;
mod older;
mod response;

use std::borrow::Cow;

use futures_util::future::{BoxFuture, FutureExt as _};

use self::http::{Answer, Http};
use super::{Config, ID_BYTES_MAX, Older, Outcome, PAGE_DOCUMENTS, Sink, Target};
use crate::document::{Batch, DocOp};
use crate::error::Result;
use crate::naive::{Rule, is_naive};
use crate::position::Version;

pub(super) struct OpenSearch {
    http: Http,
    bulk_bytes: usize,
    bulk_documents: usize,
    timeout_ms: u64,
}

/// An operation and its place in the batch.
type Placed<'b> = (usize, DocOp<'b>);

impl OpenSearch {
    pub(super) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            http: Http::new(config)?,
            bulk_bytes: config.bulk_bytes.max(1),
            bulk_documents: config.bulk_documents.max(1),
            timeout_ms: config.timeout_ms,
        })
    }

    async fn write_batch(&self, target: &Target, batch: &Batch) -> Result<Vec<Outcome>> {
        debug_assert!(has_one_operation_per_document(batch), "a batch must be coalesced");
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|op| unsendable(&op)).collect();
        let sendable: Vec<Placed<'_>> =
            batch.iter().enumerate().filter(|(at, _)| outcomes[*at].is_none()).collect();

        // A stack, because a part that is too large for the server is put back as two halves.
        let mut parts = bulk::split(&sendable, self.bulk_bytes, self.bulk_documents);
        parts.reverse();
        while let Some(part) = parts.pop() {
            let answer = self.send(target, part).await?;
            match (answer.status, part) {
                (413, [(at, _)]) => {
                    outcomes[*at] =
                        Some(refused("the document alone is larger than the server takes"));
                }
                (413, _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                (200, _) => response::read(target, part, &answer.body, &mut outcomes)?,
                _ => return Err(answer.into_error("write a bulk")),
            }
        }
        let unanswered = || Outcome::Retry { reason: "the server did not answer for it".into() };
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect())
    }

    async fn send(&self, target: &Target, part: &[Placed<'_>]) -> Result<Answer> {
        let path = if is_naive(Rule::ErrorClasses) {
            bulk::path_creating_indices(&target.index)
        } else {
            bulk::path(&target.alias, self.timeout_ms)
        };
        self.http.bulk(&path, bulk::body(part)).await
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

    fn write<'a>(
        &'a self,
        target: &'a Target,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<Vec<Outcome>>> {
        self.write_batch(target, batch).boxed()
    }

    fn older<'a>(
        &'a self,
        target: &'a Target,
        below: Version,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Older>> {
        older::page(&self.http, target, below, after).boxed()
    }
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
