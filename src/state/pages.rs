//! The state as pages that can be kept elsewhere, and put in the place of another state: one page for each link, and one
//! for what all links share. Must not know where they are kept.
//!
//! A page is true for itself. All records of a page are read at one moment, and writes become visible in the order in which
//! they were made; so a page is as a crash at that moment would have left the link: a checkpoint is never found without what
//! was written before it. Pages of different moments may stand beside each other, because no link's record speaks of another
//! link's. What they share is the epoch, which is in none of them: who keeps pages keeps that apart, ahead of its first use.
//!
//! What grows with the table or with a transaction (prepared XA transactions, rows that refer to keys, dead letters) is in the
//! page while it is small. Where it is not, the page names it, and the link's record says that its table is to be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rocksdb::{Direction, IteratorMode, SnapshotWithThreadMode, WriteBatch};
use serde::{Deserialize, Serialize};

use super::sealing::Sealed;
use super::source::{self, SourceRecord};
use super::{
    DB, Durability, Family, LinkRecord, RECORD_VERSION, ReadEnvelope, State, WriteEnvelope, decode,
    failed, joined_key,
};
use crate::error::{Error, ErrorKind, Result};

/// What of a link's records that can grow without bound is in its page.
const BULKY_BYTES_MAX: usize = 1 << 20;

/// A page unpacks to no more.
const PAGE_BYTES_MAX: u64 = 256 << 20;

/// Where this directory says whose it is.
const PAIR_KEY: &[u8] = b"pair";

/// Behind every key: ids are UTF-8, which has no such byte.
const END: [u8; 1] = [0xff];

/// Records that were read together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    records: Vec<Record>,
    /// Families of which it has nothing, because it would be too much.
    #[serde(default)]
    left_out: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    family: String,
    key: Text,
    value: Text,
}

/// Bytes, as text where they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Base64 { base64: String },
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Base64 { base64: BASE64.encode(bytes) },
        }
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        match self {
            Self::Plain(text) => Ok(text.clone().into_bytes()),
            Self::Base64 { base64 } => BASE64.decode(base64).map_err(|_| damaged()),
        }
    }
}

/// The whole state but for the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pages {
    /// Connectors, models, pipelines, settings, sealed credentials.
    pub shared: Page,
    /// By id.
    pub links: BTreeMap<String, Page>,
}

/// Whose copy this directory belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRecord {
    pub name: String,
    /// The directory's own, drawn when it was first used with a name.
    pub id: String,
    /// The version of the last copy that was begun from here.
    pub stamp: u64,
}

impl Page {
    /// Packed, for keeping. Equal pages give equal bytes.
    pub fn pack(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|cause| failed("pack a page", cause))?;
        zstd::bulk::compress(&json, 1).map_err(|cause| failed("pack a page", cause))
    }

    pub fn unpack(bytes: &[u8]) -> Result<Self> {
        let mut json = Vec::new();
        zstd::stream::read::Decoder::new(bytes)
            .and_then(|unpacked| unpacked.take(PAGE_BYTES_MAX).read_to_end(&mut json))
            .map_err(|_| damaged())?;
        serde_json::from_slice(&json).map_err(|_| damaged())
    }

    /// The link that it is of.
    pub fn link(&self) -> Result<Option<LinkRecord>> {
        let Some(record) = self.of(Family::Links).next() else { return Ok(None) };
        decode(Family::Links, &record.key.bytes()?, &record.value.bytes()?).map(Some)
    }

    /// What is too large to be in it.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn of(&self, family: Family) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.family == family.name())
    }
}

type Moment<'s> = SnapshotWithThreadMode<'s, DB>;

impl State {
    /// A number that grows with every write.
    pub fn writes(&self) -> u64 {
        self.inner.db.latest_sequence_number()
    }

    /// Everything as it is at one moment.
    pub fn pages(&self) -> Result<Pages> {
        let moment = self.inner.db.snapshot();
        let mut shared = Page::default();
        for family in [Family::Catalog, Family::Secrets] {
            self.collect(&moment, family, b"", usize::MAX, &mut shared.records)?;
        }
        let mut links = BTreeMap::new();
        for (key, _) in self.all(&moment, Family::Links)? {
            let id = String::from_utf8(key).map_err(|_| damaged())?;
            let page = self.page(&moment, &id)?;
            links.insert(id, page);
        }
        Ok(Pages { shared, links })
    }

    fn page(&self, moment: &Moment<'_>, link: &str) -> Result<Page> {
        let mut page = Page::default();
        for family in [Family::Links, Family::Checkpoints, Family::Families] {
            let value = moment
                .get_cf(self.family(family), link)
                .map_err(|cause| failed(&format!("read from {}", family.name()), cause))?;
            page.records.extend(value.map(|value| Record::of(family, link.as_bytes(), &value)));
        }
        let own = joined_key(link, &[""]);
        for family in [Family::Checkpoints, Family::Schemas] {
            self.collect(moment, family, &own, usize::MAX, &mut page.records)?;
        }
        for family in [Family::Letters, Family::Prepared, Family::Children] {
            let before = page.records.len();
            let is_whole =
                self.collect(moment, family, &own, BULKY_BYTES_MAX, &mut page.records)?;
            if !is_whole {
                page.records.truncate(before);
                page.left_out.push(family.name().to_owned());
            }
        }
        Ok(page)
    }

    /// Adds the records whose keys begin with `prefix`; false where they have more than `bytes_max`.
    fn collect(
        &self,
        moment: &Moment<'_>,
        family: Family,
        prefix: &[u8],
        bytes_max: usize,
        records: &mut Vec<Record>,
    ) -> Result<bool> {
        let from = IteratorMode::From(prefix, Direction::Forward);
        let mut bytes = 0_usize;
        for entry in moment.iterator_cf(self.family(family), from) {
            let (key, value) =
                entry.map_err(|cause| failed(&format!("read from {}", family.name()), cause))?;
            if !key.starts_with(prefix) {
                break;
            }
            bytes = bytes.saturating_add(key.len() + value.len());
            if bytes > bytes_max {
                return Ok(false);
            }
            records.push(Record::of(family, &key, &value));
        }
        Ok(true)
    }

    fn all(&self, moment: &Moment<'_>, family: Family) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let entries = moment.iterator_cf(self.family(family), IteratorMode::Start);
        let entries = entries.map(|entry| match entry {
            Ok((key, value)) => Ok((key.into_vec(), value.into_vec())),
            Err(cause) => Err(failed(&format!("read from {}", family.name()), cause)),
        });
        entries.collect()
    }

    /// Puts these pages, and this epoch, in the place of all that is there: whole, or not at all.
    pub fn replace(&self, pages: &Pages, source: Option<&SourceRecord>) -> Result<()> {
        let mut batch = WriteBatch::default();
        for family in Family::ALL.into_iter().filter(|family| *family != Family::Source) {
            batch.delete_range_cf(self.family(family), &[][..], &END[..]);
        }
        match source {
            Some(source) => {
                batch.put_cf(self.family(Family::Source), source::KEY, encoded(source)?);
            }
            None => batch.delete_cf(self.family(Family::Source), source::KEY),
        }
        self.put_page(&pages.shared, &mut batch)?;
        for page in pages.links.values() {
            self.put_page(page, &mut batch)?;
            if page.left_out.is_empty() {
                continue;
            }
            if let Some(mut link) = page.link()? {
                let what = page.left_out.join(", ");
                link.is_incomplete = Some(format!(
                    "its state comes from the copy in the cluster, for which this was too large: {what}"
                ));
                batch.put_cf(self.family(Family::Links), &link.id, encoded(&link)?);
            }
        }
        self.write(batch, Durability::Synced)
    }

    fn put_page(&self, page: &Page, batch: &mut WriteBatch) -> Result<()> {
        for record in &page.records {
            let known = Family::ALL.into_iter().find(|family| family.name() == record.family);
            let family = known.filter(|family| *family != Family::Source).ok_or_else(newer)?;
            let value = record.value.bytes()?;
            if family != Family::Prepared && version_of(&value) > Some(RECORD_VERSION) {
                return Err(newer());
            }
            batch.put_cf(self.family(family), record.key.bytes()?, value);
        }
        Ok(())
    }

    /// Refuses a page whose credentials were sealed with another key than ours.
    pub fn check_seals(&self, shared: &Page) -> Result<()> {
        let ours = self.sealing_key().fingerprint();
        let mut owners = BTreeSet::new();
        for record in shared.of(Family::Secrets) {
            let (key, value) = (record.key.bytes()?, record.value.bytes()?);
            let sealed: Sealed = decode(Family::Secrets, &key, &value)?;
            if sealed.key != ours {
                owners.insert(String::from_utf8_lossy(&key).into_owned());
            }
        }
        if owners.is_empty() {
            return Ok(());
        }
        let owners = owners.into_iter().collect::<Vec<_>>().join(", ");
        Err(Error::new(
            ErrorKind::State,
            format!(
                "the credentials in the cluster's copy are sealed with another key (of {owners})"
            ),
        )
        .with_advice("give both daemons one key: DRIFTLESS_SECRET_KEY or `secrets.key_file`"))
    }

    /// Whether there is anything that a copy would take away.
    pub fn is_in_use(&self) -> Result<bool> {
        let has_some = |family| self.inner.db.iterator_cf(self.family(family), IteratorMode::Start);
        let mut kinds = [Family::Links, Family::Catalog].into_iter();
        Ok(kinds.any(|family| has_some(family).next().is_some()))
    }

    pub fn pair(&self) -> Result<Option<PairRecord>> {
        self.get(Family::Source, PAIR_KEY)
    }

    /// Not synced: what a later write, which is, or a copy tells about it is what counts.
    pub fn put_pair(&self, record: &PairRecord) -> Result<()> {
        self.put(Family::Source, PAIR_KEY, record, Durability::Buffered)
    }
}

impl Record {
    fn of(family: Family, key: &[u8], value: &[u8]) -> Self {
        let family = family.name().to_owned();
        Self { family, key: Text::of(key), value: Text::of(value) }
    }
}

fn encoded<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(&WriteEnvelope { v: RECORD_VERSION, value: record })
        .map_err(|cause| failed("write the state", cause))
}

fn version_of(value: &[u8]) -> Option<u32> {
    serde_json::from_slice::<ReadEnvelope<'_>>(value).ok().map(|envelope| envelope.v)
}

fn damaged() -> Error {
    Error::new(ErrorKind::State, "cannot read the copy of the state in the cluster: it is damaged")
        .with_advice(
            "stop the daemons, delete the index .driftless, and start the one whose disk is newest",
        )
}

fn newer() -> Error {
    let what = "the copy of the state in the cluster was written by a newer driftless";
    Error::new(ErrorKind::State, what).with_advice("run the newer driftless that wrote it")
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::super::{Child, KeyPart, LetterRecord, PreparedOp, SealingKey};
    use super::*;
    use crate::state::CheckpointRecord;

    fn filled(state: &State) {
        for id in ["a", "ab"] {
            let link = LinkRecord { id: id.into(), index: id.into(), ..LinkRecord::default() };
            state.links().put(&link).expect("writes");
            state.checkpoints().put(id, &CheckpointRecord::default(), false).expect("writes");
            let letter = LetterRecord { document: "\u{1}x".into(), ..LetterRecord::default() };
            state.letters().put(id, &letter).expect("writes");
        }
        let value = serde_json::json!({"n": 2.50});
        state.catalog().put("model", "m", &value).expect("writes");
        let secrets = BTreeMap::from([("k".to_owned(), "sesame".to_owned().into())]);
        state.catalog().put_secrets("c", &secrets).expect("writes");
        let op = PreparedOp::Upsert(vec![0xff, 0]);
        state.prepared().put("a", "g:1", [(&"d".to_owned(), &op)]).expect("writes");
    }

    #[test]
    fn pages_take_the_place_of_another_state() {
        let (one, other) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let (state, target) = (open(one.path()), open(other.path()));
        filled(&state);
        let stale = LinkRecord { id: "stale".into(), ..LinkRecord::default() };
        target.links().put(&stale).expect("writes");
        let pair = PairRecord { name: "n".into(), id: "i".into(), stamp: 4 };
        target.put_pair(&pair).expect("writes");
        let mut pages = state.pages().expect("reads");
        for page in pages.links.values_mut().chain([&mut pages.shared]) {
            *page = Page::unpack(&page.pack().expect("packs")).expect("unpacks");
        }
        assert_eq!(pages, state.pages().expect("reads"));
        assert_eq!(
            pages.links["a"].link().expect("reads").map(|link| link.index).as_deref(),
            Some("a")
        );
        let source = SourceRecord { server_uuid: "u".into(), epoch: 7, highest_version: 9 };
        target.replace(&pages, Some(&source)).expect("writes");
        assert_eq!(target.pages().expect("reads"), pages);
        assert_eq!(target.source().get().expect("reads"), Some(source));
        assert_eq!(target.pair().expect("reads"), Some(pair));
        assert_eq!(target.links().list().expect("reads").len(), 2);
        assert_eq!(target.prepared().after("a", "g:1", None, 99).expect("reads").len(), 1);
        assert_eq!(target.catalog().secrets("c").expect("opens").len(), 1);
    }

    #[test]
    fn what_is_too_large_is_named_and_the_link_told() {
        let (one, other) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let (state, target) = (open(one.path()), open(other.path()));
        filled(&state);
        let key = vec![KeyPart::Text("k".repeat(1_000))];
        let children: Vec<_> = (0..600)
            .map(|number| Child {
                form: format!("={number:04}"),
                id: number.to_string(),
                key: key.clone(),
                refers_to: key.clone(),
            })
            .collect();
        let children = children.iter().map(|child| ("f", child));
        state.families().put_children("a", children).expect("writes");
        let pages = state.pages().expect("reads");
        assert_eq!(pages.links["a"].left_out(), ["children"]);
        assert!(pages.links["ab"].left_out().is_empty());
        target.replace(&pages, None).expect("writes");
        let incomplete =
            |id: &str| target.links().get(id).expect("reads").expect("is there").is_incomplete;
        assert!(incomplete("a").is_some_and(|why| why.ends_with("too large: children")));
        assert_eq!(incomplete("ab"), None);
    }

    #[test]
    fn credentials_of_another_key_are_refused_before_anything_is_replaced() {
        let (one, other) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let state = open(one.path());
        filled(&state);
        let shared = state.pages().expect("reads").shared;
        state.check_seals(&shared).expect("its own");
        let target = State::open(other.path(), SealingKey::from_bytes([8; 32])).expect("opens");
        let error = target.check_seals(&shared).expect_err("refused");
        assert!(error.report().contains("another key (of c)"), "{}", error.report());
        target.check_seals(&Page::default()).expect("nothing is sealed");
    }

    #[test]
    fn a_term_that_has_ended_writes_nothing_more() {
        let dir = tempfile::tempdir().expect("made");
        let state = open(dir.path());
        let term = state.new_term();
        filled(&term);
        term.end_term();
        let link = LinkRecord { id: "late".into(), ..LinkRecord::default() };
        let error = term.links().put(&link).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Stopped);
        state.links().put(&link).expect("another handle still writes");
    }
}
