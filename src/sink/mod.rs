//! Where document operations are written: the contract of a sink, its configuration, and the registry. Must not know
//! where operations come from or what a checkpoint is.

pub mod answer;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "daemon")]
pub mod notes;
#[cfg(feature = "daemon")]
mod opensearch;

use std::collections::HashMap;
use std::path::PathBuf;
#[cfg(feature = "daemon")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "daemon")]
use futures_util::future::{BoxFuture, FutureExt as _};
use secrecy::SecretString;
use serde::Deserialize;

#[cfg(feature = "daemon")]
pub use self::opensearch::write_operation;
#[cfg(feature = "daemon")]
use self::opensearch::{OpenSearch, OwnNotes, Product};
#[cfg(feature = "daemon")]
use crate::document::Batch;
use crate::error::{Error, nearest};
#[cfg(feature = "daemon")]
use crate::error::{ErrorKind, Result};
#[cfg(feature = "embedded")]
use crate::index::Indexes;
use crate::position::Version;

/// The longest `_id` in bytes of UTF-8 that an index takes; one that is longer fails the whole request it is in.
pub const ID_BYTES_MAX: usize = 512;

/// Writes document operations to one cluster.
///
/// * **A batch has one operation per `_id`**: the caller coalesces. Answers are matched by index, `_id` and action, so
///   with two operations on one document they would be ambiguous.
/// * **Order.** Within a batch no order is kept; between calls neither. The caller keeps at most one operation of a
///   document in flight; versions do the rest.
/// * **Parallel calls** are welcome, also on the same target.
/// * **Duplicates** are harmless: an operation that is written again with the same version ends in the same document.
/// * **`Ok` promises** one [`Outcome`] for each operation, in the batch's order. Only [`Outcome::Done`] means that the
///   operation is durable in the index that `target` names. It says nothing of visibility to a search.
/// * **`Err` promises nothing**: any part of the batch may have been written. The whole batch may be written again.
/// * A write never creates an index, and never waits for room: patience is the caller's.
#[cfg(feature = "daemon")]
pub trait Sink: Send + Sync {
    /// Asks whether the sink answers us, without looking at any index.
    fn greet<'a>(&'a self) -> BoxFuture<'a, Result<()>>;

    /// Looks at the index (or the alias) `index` without changing anything.
    fn inspect<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Target>>;

    /// Looks at the index and makes what writing to it needs. An index that is not there is `NotFound`.
    fn prepare<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Target>>;

    /// The UUID of the index behind `index`; None where there is none. Cheap.
    fn uuid<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Option<String>>>;

    /// Whether what is behind this sink runs ingest pipelines of its own.
    fn runs_pipelines(&self) -> bool;

    /// Whether it has one of this name. Where we may not ask, it is taken to: a write will tell.
    fn has_pipeline<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Writes all operations of `batch`, as said above.
    fn write<'a>(
        &'a self,
        target: &'a Target,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<Vec<Outcome>>>;

    /// A page of the documents whose version is below `below`, as many as fit into [`PAGE_DOCUMENTS`]; the first page
    /// where `after` is None. Every write that was done before the first page was asked for is seen; of those that are
    /// done later, any part. A page that cannot be had any more is an error that asks to begin anew.
    fn older<'a>(
        &'a self,
        target: &'a Target,
        below: Version,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Older>>;

    /// What a request may hold now, in bytes: less than was configured where the sink has refused that as too large.
    fn bulk_bytes(&self) -> usize {
        usize::MAX
    }

    /// The documents with these ids, in their order, as they are at some moment of the call, refreshed or not; None where
    /// there is none. A write that was acknowledged before the call is seen.
    fn read<'a>(
        &'a self,
        target: &'a Target,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>>;

    /// The same as a search sees them: what was written before the last [`Sink::refresh`], and of later writes any part.
    /// Costs less where there is a difference.
    fn look_up<'a>(
        &'a self,
        target: &'a Target,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        self.read(target, ids)
    }

    /// Takes back what [`Sink::prepare`] has put on the index, or deletes the index. One that is not there is no error.
    fn let_go<'a>(&'a self, index: &'a str, with_index: bool) -> BoxFuture<'a, Result<()>>;

    /// What stands behind `index`, an index or an alias.
    fn named<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<Named>> {
        let _ = index;
        async { Err(has_no_aliases()) }.boxed()
    }

    /// Makes the index `new` as `present` is, but for what `changes` says. It is empty, and must not be there yet.
    fn make_like<'a>(
        &'a self,
        present: &'a str,
        new: &'a str,
        changes: &'a Changes,
    ) -> BoxFuture<'a, Result<()>> {
        let _ = (present, new, changes);
        async { Err(has_no_aliases()) }.boxed()
    }

    /// Has searches see every write to `index` that was acknowledged before.
    fn refresh<'a>(&'a self, index: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Lets all names that lead to one index lead to another, at one moment, with all that they say beside it. `Err` says
    /// nothing: it may have been done, or be done later.
    fn move_names<'a>(&'a self, moving: &'a Moving) -> BoxFuture<'a, Result<Moved>> {
        let _ = moving;
        async { Err(has_no_aliases()) }.boxed()
    }

    /// The indexes behind this sink, if they are our own.
    #[cfg(feature = "embedded")]
    fn indexes(&self) -> Option<&Indexes> {
        None
    }
}

/// Says for how long documents may be written.
#[cfg(feature = "daemon")]
pub trait Permit: Send + Sync {
    /// A request that is sent now must have ended when this time is over. Asked before each one; an error says that none
    /// may be sent now.
    fn time_left(&self) -> Result<Duration>;
}

/// What stands behind a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The concrete index; of an alias with several the one that is written to.
    pub index: String,
    pub uuid: String,
    pub is_alias: bool,
}

/// What shall be different in an index that is made like another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Settings that take the place of others; null: the server's default.
    pub settings: Option<serde_json::Value>,
    /// What is put over the mapping.
    pub mappings: Option<serde_json::Value>,
    pub default_pipeline: Option<String>,
}

/// From which index to which one the names go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moving {
    pub from: String,
    pub to: String,
    /// The first index goes, and its own name becomes an alias too.
    pub replaces: bool,
}

#[derive(Debug)]
pub enum Moved {
    Done,
    /// Nothing has changed.
    Refused(Error),
}

/// What is to be said where names cannot move.
#[cfg(feature = "daemon")]
fn has_no_aliases() -> Error {
    let what = "a rebuild moves an alias, and the embedded sink has none";
    Error::new(ErrorKind::Unsupported, what).with_advice(
        "make another index with the mapping you want, and COPY LINK <id> TO INDEX <index>; search there when it runs",
    )
}

/// Every type of sink that this build has.
pub const KINDS: &[&str] = &[
    "opensearch",
    "elasticsearch",
    #[cfg(feature = "embedded")]
    "embedded",
];

/// An index that is ready to be written to, as it was when it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// The concrete index.
    pub index: String,
    /// The alias through which everything is written: it dies with the index, so a write cannot create another one.
    pub alias: String,
    /// Another UUID under the same name is another index, which holds nothing of ours.
    pub uuid: String,
    pub default_pipeline: Option<String>,
    /// Runs even where we ask for no pipeline.
    pub final_pipeline: Option<String>,
    /// What becomes of a field that the mapping does not have.
    pub dynamic: Dynamic,
    /// Field by dotted path → type, objects included.
    pub fields: HashMap<String, String>,
    /// Vector field by dotted path → dimension.
    pub dimensions: HashMap<String, usize>,
    /// Whether the cluster shall run the index's default pipeline on what we write. The writer decides; nothing that is
    /// looked up says so.
    pub runs_pipeline: bool,
}

/// What an index does with a field that its mapping does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dynamic {
    /// It is added, with a guessed type.
    #[default]
    Adds,
    /// It is kept in the source and not searchable.
    Ignores,
    /// The document is refused.
    Refuses,
}

/// Ids have 512 bytes at most, so a page is half a megabyte.
pub const PAGE_DOCUMENTS: usize = 1_000;

/// A page of documents by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Older {
    pub ids: Vec<String>,
    /// Where the next page begins; None behind the last one.
    pub next: Option<String>,
}

/// A document as the index holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub version: Version,
    /// Its JSON as it was written, vectors included.
    pub source: Vec<u8>,
}

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Written, durable; also a delete that found nothing.
    Done,
    /// The index holds `current`, which is above the operation's version. Whether that is good, the caller knows.
    Conflict { current: Version },
    /// Not written; waiting can help.
    Retry { reason: String },
    /// Not written, because the sink has too much to do; waiting can help, and so can less at once.
    Overloaded { reason: String, retry_after: Option<Duration> },
    /// Not written, and not before somebody mends something outside of the document.
    Blocked { reason: String },
    /// Not written, and never will be as it is.
    Refused { reason: String },
}

/// How a cluster is reached and how much is sent to it at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    #[serde(rename = "type")]
    pub kind: String,
    /// `http://host:port`; used in turn, one that does not answer is left out for a while.
    pub addresses: Vec<String>,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub password_file: Option<PathBuf>,
    /// In the place of user and password: `id:key`, or the two in base64 as the cluster gives them.
    pub api_key: Option<SecretString>,
    pub api_key_file: Option<PathBuf>,
    /// Certificates in PEM that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Ordered writers of a link.
    pub lanes: usize,
    /// Requests that one lane may have in flight.
    pub inflight: usize,
    /// A request holds at most so many bytes, or one operation.
    pub bulk_bytes: usize,
    pub bulk_documents: usize,
    pub connect_timeout_ms: u64,
    pub timeout_ms: u64,
    /// Where the embedded indexes lie: a part of the state directory, so no key of its own.
    #[serde(skip)]
    pub index_dir: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: "opensearch".into(),
            addresses: vec!["http://127.0.0.1:9200".into()],
            user: None,
            password: None,
            password_file: None,
            api_key: None,
            api_key_file: None,
            ca_file: None,
            lanes: 4,
            inflight: 2,
            bulk_bytes: 5 << 20,
            bulk_documents: 5_000,
            connect_timeout_ms: 5_000,
            timeout_ms: 60_000,
            index_dir: PathBuf::from("index"),
        }
    }
}

/// The sink that `config` asks for. Nothing is connected yet.
#[cfg(feature = "daemon")]
pub fn build(config: &Config) -> Result<Arc<dyn Sink>> {
    build_under(config, None)
}

/// The same, writing documents only where `permit` says so. Sinks of our own ask nobody: nobody else can write there.
#[cfg(feature = "daemon")]
pub fn build_under(config: &Config, permit: Option<Arc<dyn Permit>>) -> Result<Arc<dyn Sink>> {
    match config.kind.as_str() {
        "opensearch" => Ok(Arc::new(OpenSearch::new(config, Product::OpenSearch, permit)?)),
        "elasticsearch" => Ok(Arc::new(OpenSearch::new(config, Product::Elasticsearch, permit)?)),
        #[cfg(feature = "embedded")]
        "embedded" => Ok(Arc::new(embedded::Embedded::open(&config.index_dir)?)),
        other => Err(unknown_kind(other)),
    }
}

/// Documents of our own in the cluster that `config` names; each request ends within `timeout`.
#[cfg(feature = "daemon")]
pub fn notes(config: &Config, timeout: Duration) -> Result<Arc<dyn notes::Notes>> {
    let timeout_ms = (timeout.as_millis() as u64).max(1);
    let config = Config {
        timeout_ms: config.timeout_ms.min(timeout_ms),
        connect_timeout_ms: config.connect_timeout_ms.min(timeout_ms),
        ..config.clone()
    };
    match config.kind.as_str() {
        "opensearch" => Ok(Arc::new(OwnNotes::new(&config, Product::OpenSearch)?)),
        "elasticsearch" => Ok(Arc::new(OwnNotes::new(&config, Product::Elasticsearch)?)),
        other => {
            Err(Error::input(format!("a sink of type `{other}` keeps nothing for another daemon")))
        }
    }
}

/// What is to be said of a type that this build does not have.
pub fn unknown_kind(kind: &str) -> Error {
    let advice = match nearest(kind, KINDS.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("this build has {}", KINDS.join(", ")),
    };
    Error::input(format!("unknown sink type `{kind}`")).with_advice(advice)
}

#[cfg(all(test, feature = "daemon"))]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_told_the_nearest() {
        let config = Config { kind: "opensaerch".into(), ..Config::default() };
        let error = build(&config).err().expect("refused");
        assert_eq!(error.report(), "unknown sink type `opensaerch`; did you mean `opensearch`?");
    }

    #[test]
    fn an_address_must_be_one_and_holds_no_password() {
        for address in ["localhost:9200", "http://me:sesame@localhost:9200", "ftp://x"] {
            let config = Config { addresses: vec![address.into()], ..Config::default() };
            let error = build(&config).err().expect("refused");
            assert!(!error.report().contains("sesame"), "{}", error.report());
        }
        assert!(build(&Config { addresses: vec![], ..Config::default() }).is_err());
    }
}
