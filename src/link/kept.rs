//! The copy of the state that is kept in the cluster, for a daemon that has to go on without this disk. Must not know who
//! leads.
//!
//! The copy is the state's pages (`state::pages`), each a document, and a list of the links. A link's page is written before
//! the list names it, and deleted when the list names it no longer; what all links share is written before the links that may need
//! it. So whatever write was the last, each link that is listed has a page that was true once, and going on from there is
//! what a restart after a crash is: everything behind the checkpoint is delivered again, under the same versions.
//!
//! *Late writes.* Each round has a number, which begins with the term of the lease and is the version of what it
//! writes. A new holder begins by writing everything, so what an earlier one still has on its way is refused, or was there
//! before it was read.
//!
//! *Which is newer, disk or copy?* The disk knows the number of the last round that was begun from it, written before the round and
//! behind what the round had read. The disk of the last holder of the lease is at least as new as the copy if its number is
//! not below the copy's; then the copy is not needed. In any other case the copy is what counts: another one has held the lease since,
//! or the disk lost its last writes, or is an older one put back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::link::lease::Lease;
use crate::link::status::unix_millis;
use crate::sink::notes::{Note, Notes, Written};
use crate::state::{Page, Pages, PairRecord, State};
use crate::telemetry::metrics::metrics;

/// How often it is looked whether there is something to be copied.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// A longer id of a link stands in the name of its page as a hash: names have 512 bytes at most.
const ID_BYTES_MAX: usize = 300;

/// A copy as it was found.
#[derive(Debug)]
pub(super) struct Kept {
    pub pages: Pages,
    /// The number of the newest round that it has something of.
    pub stamp: u64,
}

/// Keeps the copy as the state is.
pub(super) struct Keeper {
    notes: Arc<dyn Notes>,
    lease: Arc<Lease>,
    state: State,
    pair: PairRecord,
    host: String,
    /// The state's writes that were looked at last.
    looked_at: Option<u64>,
    /// Everything that was written up to then is in the copy.
    whole_at: Instant,
    /// What stands in the copy, packed, by the name of its document.
    written: BTreeMap<String, Vec<u8>>,
    rounds: u32,
}

fn shared_name(name: &str) -> String {
    format!("shared:{name}")
}

fn list_name(name: &str) -> String {
    format!("list:{name}")
}

fn page_name(name: &str, link: &str) -> String {
    if link.len() <= ID_BYTES_MAX {
        return format!("link:{name}:{link}");
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, link.as_bytes());
    format!("link:{name}:#{}", BASE64.encode(hash))
}

/// The copy as it is now; None where none was ever whole.
pub(super) async fn read(notes: &dyn Notes, name: &str) -> Result<Option<Kept>> {
    let mut first = notes.read(&[list_name(name), shared_name(name)]).await?;
    let (Some(shared), Some(list)) = (first.pop().flatten(), first.pop().flatten()) else {
        return Ok(None);
    };
    let ids: Vec<String> = serde_json::from_slice(&payload(&list)?).map_err(|_| unreadable())?;
    let names: Vec<String> = ids.iter().map(|id| page_name(name, id)).collect();
    let found = notes.read(&names).await?;
    let mut kept = Kept {
        pages: Pages { shared: Page::unpack(&payload(&shared)?)?, links: BTreeMap::new() },
        stamp: list.version.max(shared.version),
    };
    for (id, note) in ids.into_iter().zip(found) {
        let Some(note) = note else { return Err(lacks(&id)) };
        kept.stamp = kept.stamp.max(note.version);
        kept.pages.links.insert(id, Page::unpack(&payload(&note)?)?);
    }
    Ok(Some(kept))
}

fn lacks(link: &str) -> Error {
    let what = format!(
        "the copy of the state in the index .driftless lacks the link `{link}`, which it lists"
    );
    Error::new(ErrorKind::SinkBlocked, what).with_advice(
        "start the daemon that led last; or delete the index .driftless, and the links begin anew",
    )
}

fn payload(note: &Note) -> Result<Vec<u8>> {
    let text = note.body["payload"].as_str();
    text.and_then(|text| BASE64.decode(text).ok()).ok_or_else(unreadable)
}

fn unreadable() -> Error {
    Error::new(
        ErrorKind::SinkBlocked,
        "the copy of the state in the index .driftless cannot be read",
    )
    .with_advice("see that all daemons of this name are of one version")
}

/// What one round has to write.
struct Round {
    shared: (String, Vec<u8>),
    links: Vec<(String, Vec<u8>)>,
    list: (String, Vec<u8>),
}

impl Keeper {
    pub fn new(
        notes: Arc<dyn Notes>,
        lease: Arc<Lease>,
        state: State,
        pair: PairRecord,
        host: String,
    ) -> Self {
        Self {
            notes,
            lease,
            state,
            pair,
            host,
            looked_at: None,
            whole_at: Instant::now(),
            written: BTreeMap::new(),
            rounds: 0,
        }
    }

    /// Brings the copy up to the state as it is now.
    pub async fn copy(&mut self) -> Result<()> {
        if self.lease.has_lost_copy.swap(false, Ordering::AcqRel) {
            self.written.clear();
            self.looked_at = None;
        }
        let (began, writes) = (Instant::now(), self.state.writes());
        if self.looked_at != Some(writes) {
            let copied = self.copy_all().await;
            metrics().copy_age_ms.set(self.whole_at.elapsed().as_millis() as i64);
            copied?;
            self.looked_at = Some(writes);
        }
        self.whole_at = began;
        metrics().copy_age_ms.set(0);
        Ok(())
    }

    async fn copy_all(&mut self) -> Result<()> {
        let (state, name) = (self.state.clone(), self.pair.name.clone());
        let read = tokio::task::spawn_blocking(move || round(&state, &name));
        let round = read.await.map_err(|cause| {
            Error::new(ErrorKind::Stopped, "the state is not read any more").caused_by(cause)
        })??;
        let is_new = |entry: &(String, Vec<u8>), written: &BTreeMap<String, Vec<u8>>| {
            written.get(&entry.0) != Some(&entry.1)
        };
        let links: Vec<_> =
            round.links.iter().filter(|link| is_new(link, &self.written)).cloned().collect();
        let gone = self.written.keys().filter(|name| {
            let is_there = round.links.iter().any(|(there, _)| there == *name);
            !is_there && **name != round.shared.0 && **name != round.list.0
        });
        let gone: Vec<String> = gone.cloned().collect();
        let shared = is_new(&round.shared, &self.written).then(|| round.shared.clone());
        let list = is_new(&round.list, &self.written).then(|| round.list.clone());
        if links.is_empty() && gone.is_empty() && shared.is_none() && list.is_none() {
            return Ok(());
        }
        self.rounds += 1;
        let stamp = (self.lease.term << 32) | u64::from(self.rounds);
        self.pair.stamp = stamp;
        self.state.put_pair(&self.pair)?;
        self.put(shared.into_iter().collect(), stamp).await?;
        self.put(links, stamp).await?;
        self.put(list.into_iter().collect(), stamp).await?;
        let notes: Vec<_> = gone.iter().map(|name| (name.clone(), None)).collect();
        self.write(&notes, stamp).await?;
        for name in &gone {
            self.written.remove(name);
        }
        Ok(())
    }

    async fn put(&mut self, entries: Vec<(String, Vec<u8>)>, stamp: u64) -> Result<()> {
        let notes: Vec<_> =
            entries.iter().map(|(name, packed)| (name.clone(), Some(self.body(packed)))).collect();
        self.write(&notes, stamp).await?;
        self.written.extend(entries);
        Ok(())
    }

    async fn write(&self, notes: &[(String, Option<Value>)], stamp: u64) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        match self.notes.write_all(notes, stamp).await? {
            Written::Done(()) => Ok(()),
            Written::Conflict => {
                let what = "the copy of the state was written by somebody else";
                Err(Error::new(ErrorKind::SinkBusy, what))
            }
            Written::NoIndex => {
                Err(Error::new(ErrorKind::SinkBusy, "the index .driftless is not there"))
            }
        }
    }

    fn body(&self, packed: &[u8]) -> Value {
        json!({
            "name": self.pair.name, "kind": "state", "host": self.host, "term": self.lease.term,
            "at": unix_millis(), "payload": BASE64.encode(packed),
        })
    }
}

fn round(state: &State, name: &str) -> Result<Round> {
    let Pages { shared, links } = state.pages()?;
    let ids: Vec<&String> = links.keys().collect();
    let list = serde_json::to_vec(&ids)
        .map_err(|cause| Error::new(ErrorKind::State, "cannot list the links").caused_by(cause))?;
    let packed = links.iter().map(|(id, page)| Ok((page_name(name, id), page.pack()?)));
    Ok(Round {
        shared: (shared_name(name), shared.pack()?),
        list: (list_name(name), list),
        links: packed.collect::<Result<_>>()?,
    })
}
