//! Dead letters: operations that the sink or the model refuses for good, and rows that cannot be made documents (`refused`).
//! Each is kept in the state, and the link goes on without it, up to a limit. What is only parked (`parked`) is a letter too,
//! of a stage of its own.
//!
//! A letter stands for its document: the newest refused operation takes the place of an older one, and one that is
//! acknowledged, and newer, makes it void. It is written before its operation counts as done, so no checkpoint passes an
//! operation that is neither in the index nor here. What a letter holds is for people. To try one again is to read its row
//! anew and write that under a version of that moment, so nothing newer can be overwritten.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::document::{Action, DocOp, Key, KeyHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::link::Config;
use crate::link::control::Control;
use crate::link::inquiry::Rewrite;
use crate::link::status::unix_seconds;
use crate::link::supervisor::lock;
use crate::link::verify::{asking::Asking, keys};
use crate::position::Version;
use crate::state::{LetterRecord, State};
use crate::telemetry::metrics::{LinkMetrics, metrics};

/// The letters of one link.
pub(super) struct Letters {
    link: String,
    state: State,
    /// No more than this are kept.
    records_max: usize,
    /// What is parked is tried again after so long, then after twice as long, and so on.
    first_retry_secs: u64,
    known: Mutex<HashMap<Key, Known, KeyHasher>>,
    /// Of all of them, those that are parked included.
    held: AtomicUsize,
    parked: AtomicUsize,
    metrics: LinkMetrics,
}

/// What is remembered of a letter.
#[derive(Clone, Copy)]
struct Known {
    version: Version,
    is_parked: bool,
}

/// The stage of what is parked.
pub(super) const PARKED: &str = "parked";

/// No more than so many are parked; others go on waiting in their lanes.
const PARKED_MAX: usize = 1_000;

/// What was refused, where and why.
pub(super) struct Refusal<'r> {
    pub stage: &'static str,
    pub action: Action,
    /// The `_id`, or what stands for it.
    pub document: &'r str,
    pub key: Key,
    pub version: Version,
    pub reason: &'r str,
    pub table: &'r str,
    /// The checkpoint of that moment.
    pub behind: String,
    pub body: &'r [u8],
}

/// What is parked is tried again this often at least.
const RETRY_SECS_MAX: u64 = 3_600;

/// A larger document is not kept with its letter.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Rows that are read anew at once; the stream stands still meanwhile.
pub(super) const RETRIED_AT_ONCE: usize = 256;

impl Letters {
    pub fn open(state: &State, link: &str, config: &Config) -> Result<Self> {
        let letters = Self {
            link: link.to_owned(),
            state: state.clone(),
            records_max: config.error_limit.records,
            first_retry_secs: (config.park_after_secs / 10).max(1),
            known: Mutex::default(),
            held: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            metrics: metrics().link(link),
        };
        let mut known = lock(&letters.known);
        for letter in state.letters().list(link)? {
            let (version, is_parked) = (Version(letter.version), letter.stage == PARKED);
            known.insert(key(&letter.document), Known { version, is_parked });
        }
        letters.counted(&known);
        drop(known);
        Ok(letters)
    }

    /// Dead letters, without what is parked.
    pub fn count(&self) -> usize {
        self.held().saturating_sub(self.parked())
    }

    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Keeps what was refused; false where there are too many.
    pub fn keep(&self, refusal: &Refusal<'_>) -> Result<bool> {
        let mut known = lock(&self.known);
        let is_parked = refusal.stage == PARKED;
        let (count, max) = match is_parked {
            true => (self.parked(), PARKED_MAX),
            false => (self.count(), self.records_max),
        };
        let is_new = known.get(&refusal.key).is_none_or(|known| known.is_parked != is_parked);
        if count >= max && is_new {
            return Ok(false);
        }
        let (tries, retry_at) = match is_parked {
            true => self.when_to_retry(refusal.document)?,
            false => (0, 0),
        };
        let letter = LetterRecord {
            document: refusal.document.to_owned(),
            stage: refusal.stage.to_owned(),
            action: match refusal.action {
                Action::Upsert => "upsert".to_owned(),
                Action::Delete => "delete".to_owned(),
            },
            version: refusal.version.0,
            reason: refusal.reason.to_owned(),
            table: refusal.table.to_owned(),
            behind: refusal.behind.clone(),
            body: match refusal.body.len() {
                0..=BODY_BYTES_MAX => String::from_utf8_lossy(refusal.body).into_owned(),
                _ => String::new(),
            },
            at: unix_seconds(),
            tries,
            retry_at,
        };
        self.state.letters().put(&self.link, &letter)?;
        known.insert(refusal.key, Known { version: refusal.version, is_parked });
        self.counted(&known);
        // The reason may quote the row; it is for those who ask.
        match is_parked {
            true => tracing::warn!(
                link = self.link,
                document = refusal.document,
                "a document is parked"
            ),
            false => tracing::warn!(link = self.link, document = refusal.document, "a dead letter"),
        }
        Ok(true)
    }

    /// One that was parked before keeps its time.
    fn when_to_retry(&self, document: &str) -> Result<(u32, u64)> {
        let before = self.state.letters().get(&self.link, document)?;
        let before = before.filter(|letter| letter.stage == PARKED);
        let kept = before.filter(|letter| letter.retry_at > unix_seconds());
        Ok(kept.map_or_else(
            || (0, unix_seconds() + self.first_retry_secs),
            |letter| (letter.tries, letter.retry_at),
        ))
    }

    /// Whether the document is parked.
    pub fn is_parked(&self, key: Key) -> bool {
        self.parked() > 0 && lock(&self.known).get(&key).is_some_and(|known| known.is_parked)
    }

    /// What is parked and to be tried again by now; each is given the time of its next try first.
    pub fn take_due(&self) -> Result<Vec<String>> {
        if self.parked() == 0 {
            return Ok(Vec::new());
        }
        let now = unix_seconds();
        let mut due = Vec::new();
        for mut letter in self.state.letters().list(&self.link)? {
            let known = lock(&self.known);
            let is_parked = known.get(&key(&letter.document)).is_some_and(|known| known.is_parked);
            if !is_parked || letter.retry_at > now {
                continue;
            }
            letter.tries = letter.tries.saturating_add(1);
            let wait = self.first_retry_secs << letter.tries.min(16);
            letter.retry_at = now + wait.min(RETRY_SECS_MAX);
            self.state.letters().put(&self.link, &letter)?;
            due.push(letter.document);
        }
        Ok(due)
    }

    /// Whether the document is a letter.
    pub fn holds(&self, document: &str) -> bool {
        self.held() > 0 && lock(&self.known).contains_key(&key(document))
    }

    /// The refusal that is one too many, with what the others mean for it.
    pub fn too_many(&self, refusal: Error) -> Error {
        match self.count() {
            0 => refusal,
            count => refusal.context(format!(
                "{count} dead letters are there already (SHOW DEAD LETTERS; RETRY or DISCARD them, or allow more by a larger link.error_limit.records)"
            )),
        }
    }

    /// The row of this letter is gone, or has another key.
    pub fn forget(&self, document: &str, version: Version) -> Result<()> {
        if self.held() == 0 { Ok(()) } else { self.make_void(key(document), document, version) }
    }

    /// An operation was acknowledged: an older letter of its document is void.
    #[inline]
    pub fn acknowledged(&self, op: &DocOp<'_>) -> Result<()> {
        if self.held() == 0 { Ok(()) } else { self.make_void(op.key, op.id, op.version) }
    }

    fn make_void(&self, key: Key, document: &str, version: Version) -> Result<()> {
        let mut known = lock(&self.known);
        if known.get(&key).is_none_or(|letter| letter.version > version) {
            return Ok(());
        }
        self.state.letters().delete(&self.link, document)?;
        known.remove(&key);
        self.counted(&known);
        Ok(())
    }

    /// All documents below this version are gone, or were written again.
    pub fn forget_below(&self, below: Version) -> Result<()> {
        for letter in self.state.letters().list(&self.link)? {
            if letter.version < below.0 {
                self.make_void(key(&letter.document), &letter.document, below)?;
            }
        }
        Ok(())
    }

    fn counted(&self, known: &HashMap<Key, Known, KeyHasher>) {
        let parked = known.values().filter(|known| known.is_parked).count();
        self.parked.store(parked, Ordering::Relaxed);
        self.held.store(known.len(), Ordering::Relaxed);
        self.metrics.parked_documents.set(parked as i64);
        self.metrics.dead_letters.set((known.len() - parked) as i64);
    }
}

fn key(document: &str) -> Key {
    crate::document::IdHasher.key(document)
}

/// What became of letters that were tried again.
pub struct Retried {
    pub tried: usize,
    /// Of those, how many were refused again, or cannot be tried because no row can have such an `_id`.
    pub left: usize,
}

impl Control {
    /// The letters of one link, or of all, with the link of each.
    pub fn dead_letters(&self, link: Option<&str>) -> Result<Vec<(String, LetterRecord)>> {
        let links = match link {
            Some(link) => {
                self.inner.record_of(link).ok_or_else(|| self.unknown(link))?;
                vec![link.to_owned()]
            }
            None => self.inner.ids(),
        };
        let mut all = Vec::new();
        for link in links {
            let found = self.inner.parts.state.letters().list(&link)?;
            all.extend(found.into_iter().map(|letter| (link.clone(), letter)));
        }
        Ok(all)
    }

    /// Writes the rows of a link's letters anew, as they are now; documents without a row are deleted.
    pub async fn retry_letters(&self, link: &str, document: Option<&str>) -> Result<Retried> {
        let (_, live) = self.inner.record_of(link).ok_or_else(|| self.unknown(link))?;
        let tried: Vec<String> =
            self.chosen(link, document)?.into_iter().map(|letter| letter.document).collect();
        let asking = Asking::begin(self, link, &live).await?;
        let plan = asking.standing.plan.clone();
        for page in tried.chunks(RETRIED_AT_ONCE) {
            let key_of = |id: &String| Some((id.clone(), keys::key_of(&plan, id)?));
            let documents: Vec<_> = page.iter().filter_map(key_of).collect();
            if !documents.is_empty() {
                asking.rewrite(Rewrite { documents, may_delete: true }).await?;
            }
        }
        let left = self.chosen(link, None)?;
        let left = left.iter().filter(|letter| tried.contains(&letter.document)).count();
        Ok(Retried { tried: tried.len(), left })
    }

    /// Forgets letters, and says how many.
    pub fn discard_letters(&self, link: &str, document: Option<&str>) -> Result<usize> {
        let letters = self.inner.letters_of(link).ok_or_else(|| self.unknown(link))?;
        let chosen = self.chosen(link, document)?;
        for letter in &chosen {
            // One that came meanwhile stays.
            letters.make_void(key(&letter.document), &letter.document, Version(letter.version))?;
        }
        Ok(chosen.len())
    }

    fn chosen(&self, link: &str, document: Option<&str>) -> Result<Vec<LetterRecord>> {
        let mut found = self.inner.parts.state.letters().list(link)?;
        let Some(document) = document else { return Ok(found) };
        found.retain(|letter| letter.document == document);
        if found.is_empty() {
            let what = format!("the link `{link}` has no dead letter of document {document}");
            return Err(Error::new(ErrorKind::NotFound, what)
                .with_advice(format!("see SHOW DEAD LETTERS OF LINK `{link}`")));
        }
        Ok(found)
    }
}
