//! The embedded sink: operations to the index of our own. An operation is durable when it is done, with its version or
//! tombstone in the same commit (rule 15; the argument stands in `index`). Must not know where operations come from.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};

use super::{Dynamic, Older, Outcome, PAGE_DOCUMENTS, Sink, Stored, Target};
use crate::document::{Action, Batch, DocOp};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{self, Expect, Index, Indexes, Kind, What, Write, Written};
use crate::position::Version;

pub(super) struct Embedded {
    indexes: Indexes,
}

impl Embedded {
    /// Opens the indexes in `dir` and changes nothing there.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Ok(Self { indexes: Indexes::open(dir)? })
    }

    fn find(&self, name: &str) -> Result<Arc<Index>> {
        self.check(name)?;
        self.indexes.get(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the index {name} does not exist")).with_advice(
                format!(
                    "create it at Driftless' own address with the mapping you want: PUT /{name} {{\"mappings\": {{\"properties\": {{…}}}}}}"
                ),
            )
        })
    }

    /// An index that cannot be opened is there: nobody shall take it for one that was deleted.
    fn check(&self, name: &str) -> Result<()> {
        match self.indexes.why_broken(name) {
            None => Ok(()),
            Some(reason) => {
                let message = format!("the index {name} cannot be opened: {reason}");
                Err(Error::new(ErrorKind::SinkBlocked, message).with_advice(format!(
                    "mend it and start again, or DELETE /{name} and make it anew: its links fill it"
                )))
            }
        }
    }

    async fn write_batch(&self, target: &Target, batch: &Batch) -> Result<Vec<Outcome>> {
        self.check(&target.index)?;
        let found = self.indexes.get(&target.index);
        // An index made anew under the name holds nothing of ours, and is not written to (rule 14).
        let gone = || {
            let reason = format!("the index {} is not there any more", target.index);
            Ok(vec![Outcome::Blocked { reason }; batch.len()])
        };
        let Some(index) = found.filter(|index| index.description().uuid == target.uuid) else {
            return gone();
        };
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|op| unwritable(&op)).collect();
        let writes = batch.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
        let written = index.write(writes.map(|(op, _)| write(&op)).collect()).await;
        let mut written = match written {
            Ok(written) => written.into_iter(),
            // Deleted while the batch waited.
            Err(error) if error.kind() == ErrorKind::NotFound => return gone(),
            Err(error) => return Err(error),
        };
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = written.next().map(told);
        }
        let unanswered = || Outcome::Retry { reason: "the index did not answer for it".into() };
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect())
    }
}

impl Sink for Embedded {
    fn greet<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        // It is in this process.
        async { Ok(()) }.boxed()
    }

    fn inspect<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Target>> {
        async move { Ok(describe(self.find(index)?.as_ref())) }.boxed()
    }

    fn prepare<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Target>> {
        self.inspect(index)
    }

    fn uuid<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            self.check(index)?;
            Ok(self.indexes.get(index).map(|index| index.description().uuid.clone()))
        }
        .boxed()
    }

    fn let_go<'a>(&'a self, index: &'a str, with_index: bool) -> BoxFuture<'a, Result<()>> {
        async move {
            if !with_index || self.indexes.get(index).is_none() {
                return Ok(());
            }
            let (indexes, name) = (self.indexes.clone(), index.to_owned());
            let delete = move || indexes.delete(&name);
            tokio::task::spawn_blocking(delete).await.map_err(unread)?.map_err(unread)
        }
        .boxed()
    }

    fn runs_pipelines(&self) -> bool {
        false
    }

    fn has_pipeline<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        async { Ok(false) }.boxed()
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
        async move {
            let (index, after) = (self.find(&target.index)?, after.map(str::to_owned));
            let look =
                move || index.older(below.0, after.as_deref().unwrap_or_default(), PAGE_DOCUMENTS);
            let ids = tokio::task::spawn_blocking(look).await.map_err(unread)?.map_err(unread)?;
            let next = ids.last().filter(|_| ids.len() == PAGE_DOCUMENTS).cloned();
            Ok(Older { ids, next })
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        target: &'a Target,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        async move {
            let index = self.find(&target.index)?;
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let look = move || {
                let stored = |(version, source)| Stored { version: Version(version), source };
                ids.iter().map(|id| Ok(index.get(id)?.map(stored))).collect::<index::Answer<_>>()
            };
            tokio::task::spawn_blocking(look).await.map_err(unread)?.map_err(unread)
        }
        .boxed()
    }

    /// Documents are looked up as they are now.
    fn refresh<'a>(&'a self, _index: &'a str) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn indexes(&self) -> Option<&Indexes> {
        Some(&self.indexes)
    }
}

fn unread(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::SinkBusy, "cannot look through the index").caused_by(cause)
}

fn describe(index: &Index) -> Target {
    let (description, known) = (index.description(), index.fields());
    let mut fields: HashMap<String, String> =
        known.objects().map(|path| (path.to_owned(), "object".to_owned())).collect();
    let mut dimensions = HashMap::new();
    // What stands under `fields` is another view of a field, not a place in a document.
    for field in known.all.iter().filter(|field| field.path == field.source) {
        fields.insert(field.path.clone(), field.kind.name().to_owned());
        if let Kind::Vector { dimension, .. } = field.kind {
            dimensions.insert(field.path.clone(), dimension);
        }
    }
    Target {
        index: description.name.clone(),
        alias: description.name.clone(),
        uuid: description.uuid.clone(),
        default_pipeline: description.pipeline("index.default_pipeline").map(str::to_owned),
        final_pipeline: None,
        dynamic: match known.dynamic {
            index::Dynamic::Adds => Dynamic::Adds,
            index::Dynamic::Ignores => Dynamic::Ignores,
            index::Dynamic::Refuses => Dynamic::Refuses,
        },
        fields,
        dimensions,
        runs_pipeline: false,
    }
}

/// The same bound on versions as in a cluster, so that an index can move there.
fn unwritable(op: &DocOp<'_>) -> Option<Outcome> {
    let is_beyond = i64::try_from(op.version.0).is_err();
    is_beyond.then(|| Outcome::Blocked {
        reason: format!("version {} is beyond what an index can hold", op.version),
    })
}

fn write(op: &DocOp<'_>) -> Write {
    let what = match op.action {
        Action::Upsert => What::Put(op.body.to_vec()),
        Action::Delete => What::Delete,
    };
    Write { id: op.id.to_owned(), what, expect: Expect::NotAbove(op.version.0) }
}

fn told(written: Written) -> Outcome {
    match written {
        Written::Created(_) | Written::Updated(_) | Written::Deleted(_) | Written::NotFound(_) => {
            Outcome::Done
        }
        Written::Conflict { current, .. } => Outcome::Conflict { current: Version(current) },
        Written::Refused(fault) => {
            Outcome::Refused { reason: format!("{}: {}", fault.kind, fault.reason) }
        }
    }
}
