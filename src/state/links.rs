//! Links by id: what each was asked to do, and how it stands. Must not know what the states mean.

use std::collections::BTreeMap;

use rocksdb::{Direction, IteratorMode, WriteBatch};
use serde::{Deserialize, Serialize};

use super::{Durability, Family, State, failed, joined_key};
use crate::error::Result;

/// One link, as it is found again after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    pub id: String,
    /// `sql` or `config`: who made it, and so who may drop it.
    pub origin: String,
    /// The text as it was given; empty for a link of the configuration.
    pub statement: String,
    pub index: String,
    pub rules: Vec<RuleRecord>,
    pub keys: Vec<RuleRecord>,
    /// Empty: as the configuration says for all links.
    #[serde(default)]
    pub pipeline_mode: String,
    /// The forms of its values, by option; links that were stored before there were options have none.
    #[serde(default)]
    pub types: BTreeMap<String, String>,
    pub state: String,
    pub reason: String,
    pub restarts: u64,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds.
    pub updated_at: u64,
    /// Every column of the table is a field, as far as it could be when the link was made.
    #[serde(default)]
    pub all_columns: bool,
    /// What the link does at statements that change its table; None: as the configuration says for all.
    #[serde(default)]
    pub on_truncate: Option<String>,
    #[serde(default)]
    pub on_drop: Option<String>,
    #[serde(default)]
    pub add_columns: Option<String>,
    #[serde(default)]
    pub on_purged: Option<String>,
    /// How often the link verifies itself, and whether it repairs then; None: as the configuration says for all.
    #[serde(default)]
    pub verify_every_secs: Option<u64>,
    #[serde(default)]
    pub verify_repair: Option<bool>,
    /// The last verification that has looked at everything.
    #[serde(default)]
    pub verified: Option<VerifiedRecord>,
    /// The next start begins with a copy of the table, whatever the checkpoint says.
    #[serde(default)]
    pub is_reset: bool,
    /// Why the next start begins with a comparison of the table and its documents, as behind a purge; None: it does not.
    #[serde(default)]
    pub is_incomplete: Option<String>,
    /// The rebuild of this link that goes on, or whose old index is still kept.
    #[serde(default)]
    pub rebuild: Option<RebuildRecord>,
    /// The link that this one is the shadow of: it fills that one's new index, or keeps its old one.
    #[serde(default)]
    pub shadow_of: Option<String>,
    /// How often its index was made anew.
    #[serde(default)]
    pub generation: u64,
}

/// One index in the place of another under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildRecord {
    pub phase: RebuildPhase,
    /// The shadow: it fills the new index, and when the name has moved it keeps the old one.
    pub other: String,
    /// The shadow's index.
    pub index: String,
    pub index_uuid: String,
    /// The index that the name leads to.
    pub present: String,
    pub present_uuid: String,
    /// The name is that of the present index, which must go for an alias to have it.
    pub replaces: bool,
    pub keep_old_secs: u64,
    /// Unix seconds; None before the name has moved.
    pub kept_until: Option<u64>,
    /// What verifications of the new index have found, and mended of it.
    pub differences: u64,
    pub repaired: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebuildPhase {
    /// The shadow fills the new index.
    #[default]
    Filling,
    /// The name moves now, or has moved; the index that it leads to says which.
    Moving,
    /// The name has moved, and the shadow keeps the old index.
    Kept,
}

/// What a verification has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedRecord {
    /// When it ended, in Unix seconds.
    pub at: u64,
    pub differences: u64,
    pub repaired: u64,
    pub unjudged: u64,
}

impl VerifiedRecord {
    /// Differences that it left.
    pub fn left(self) -> u64 {
        self.differences.saturating_sub(self.repaired)
    }
}

/// One column that goes to one field (or, among the keys, into the `_id`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRecord {
    pub field: String,
    pub db: String,
    pub table: String,
    pub column: String,
}

/// Where a link has records beside its own and those of its rows by foreign keys, under its id or behind it.
const OF_A_LINK: [Family; 5] =
    [Family::Checkpoints, Family::Schemas, Family::Prepared, Family::Families, Family::Letters];

/// All links; every write is synced.
pub struct Links<'s> {
    pub(super) state: &'s State,
}

impl Links<'_> {
    /// Writes the link under its own id, in the place of what was there.
    pub fn put(&self, link: &LinkRecord) -> Result<()> {
        self.state.put(Family::Links, link.id.as_bytes(), link, Durability::Synced)
    }

    /// Writes several links, all or none.
    pub fn put_all(&self, links: &[&LinkRecord]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for link in links {
            self.state.add(Family::Links, link.id.as_bytes(), *link, &mut batch)?;
        }
        self.state.write(batch, Durability::Synced)
    }

    /// Lets `link` go on with everything that `shadow` has, under its own id, and `kept`, where there is one, with
    /// everything that the link had; else that is forgotten. All or nothing, but for the rows by foreign keys: these are
    /// copied first, so that after a crash some may be there twice, which is harmless where both links make the same ids.
    pub fn exchange(
        &self,
        link: &LinkRecord,
        shadow: &str,
        kept: Option<&LinkRecord>,
    ) -> Result<()> {
        let families = self.state.families();
        if let Some(kept) = kept {
            families.copy_children(&link.id, &kept.id)?;
        }
        families.copy_children(shadow, &link.id)?;
        let mut batch = WriteBatch::default();
        if let Some(kept) = kept {
            self.copy(&link.id, &kept.id, &mut batch)?;
            self.state.add(Family::Links, kept.id.as_bytes(), kept, &mut batch)?;
        }
        self.forget(&link.id, &mut batch);
        self.copy(shadow, &link.id, &mut batch)?;
        self.forget(shadow, &mut batch);
        self.state.delete_range(Family::Children, &joined_key(shadow, &[""]), &mut batch);
        batch.delete_cf(self.state.family(Family::Links), shadow);
        self.state.add(Family::Links, link.id.as_bytes(), link, &mut batch)?;
        self.state.write(batch, Durability::Synced)
    }

    /// Adds what `from` has, but for its rows by foreign keys, to `batch` under `to`.
    fn copy(&self, from: &str, to: &str, batch: &mut WriteBatch) -> Result<()> {
        let db = &self.state.inner.db;
        for family in OF_A_LINK {
            let handle = self.state.family(family);
            let reading = |cause| failed(&format!("read from {}", family.name()), cause);
            if let Some(value) = db.get_pinned_cf(handle, from).map_err(reading)? {
                batch.put_cf(handle, to, value);
            }
            let (prefix, new_prefix) = (joined_key(from, &[""]), joined_key(to, &[""]));
            let all = IteratorMode::From(&prefix, Direction::Forward);
            for entry in db.iterator_cf(handle, all) {
                let (key, value) = entry.map_err(reading)?;
                let Some(rest) = key.strip_prefix(prefix.as_slice()) else { break };
                batch.put_cf(handle, [&new_prefix, rest].concat(), value);
            }
        }
        Ok(())
    }

    /// Adds the deletion of what [`Links::copy`] copies to `batch`.
    fn forget(&self, id: &str, batch: &mut WriteBatch) {
        for family in OF_A_LINK {
            batch.delete_cf(self.state.family(family), id);
            self.state.delete_range(family, &joined_key(id, &[""]), batch);
        }
    }

    pub fn get(&self, id: &str) -> Result<Option<LinkRecord>> {
        self.state.get(Family::Links, id.as_bytes())
    }

    /// In the order of their ids, compared as text.
    pub fn list(&self) -> Result<Vec<LinkRecord>> {
        let links = self.state.list(Family::Links, b"")?;
        Ok(links.into_iter().map(|(_, link)| link).collect())
    }

    /// Deletes the link with its checkpoint and its definitions, all or nothing: a later link with the same id can
    /// never go on from them.
    pub fn delete(&self, id: &str) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.state.family(Family::Links), id);
        batch.delete_cf(self.state.family(Family::Checkpoints), id);
        self.state.delete_range(Family::Checkpoints, &joined_key(id, &[""]), &mut batch);
        self.state.delete_prefix(Family::Schemas, &joined_key(id, &[""]), &mut batch)?;
        self.state.delete_range(Family::Prepared, &joined_key(id, &[""]), &mut batch);
        self.state.letters().delete_all(id, &mut batch);
        self.state.write(batch, Durability::Synced)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::super::{CheckpointRecord, Child, History, LetterRecord, SchemaRecord};
    use super::*;
    use crate::table::{TableDef, TableId};

    fn link(id: &str) -> LinkRecord {
        let rule = RuleRecord {
            field: "text".into(),
            db: "shop".into(),
            table: "goods".into(),
            column: "name".into(),
        };
        LinkRecord { id: id.into(), rules: vec![rule], restarts: 3, ..LinkRecord::default() }
    }

    #[test]
    fn a_link_is_found_again_in_another_life() {
        let dir = tempfile::tempdir().expect("a directory");
        open(dir.path()).links().put(&link("2")).expect("writes");
        open(dir.path()).links().put(&link("1")).expect("writes");
        let state = open(dir.path());
        assert_eq!(state.links().list().expect("lists"), [link("1"), link("2")]);
        assert_eq!(state.links().get("2").expect("reads"), Some(link("2")));
        assert_eq!(state.links().get("3").expect("reads"), None);
    }

    #[test]
    fn a_link_that_was_stored_before_there_were_options_is_read() {
        let mut stored = serde_json::to_value(link("1")).expect("is JSON");
        stored.as_object_mut().expect("an object").remove("types").expect("is there now");
        let read: LinkRecord = serde_json::from_value(stored).expect("reads");
        assert_eq!(read, link("1"));
    }

    #[test]
    fn two_links_exchange_all_that_they_have() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let letter = |link: &str| LetterRecord { document: link.into(), ..Default::default() };
        let child = |form: &str| Child {
            form: form.into(),
            id: "1".into(),
            key: Vec::new(),
            refers_to: Vec::new(),
        };
        for name in ["a", "a~2", "ab"] {
            let checkpoint = CheckpointRecord { index_uuid: name.into(), ..Default::default() };
            state.links().put(&link(name)).expect("writes");
            state.checkpoints().put(name, &checkpoint, false).expect("writes");
            state.letters().put(name, &letter(name)).expect("writes");
            let child = child(name);
            state.families().put_children(name, [("f", &child)]).expect("writes");
        }
        let kept = LinkRecord { id: "a~1".into(), ..link("a") };
        state.links().exchange(&link("a"), "a~2", Some(&kept)).expect("exchanges");
        let uuid = |name| state.checkpoints().get(name).expect("reads").map(|c| c.index_uuid);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!((uuid("a"), uuid("a~1"), uuid("a~2")), (some("a~2"), some("a"), None));
        assert_eq!(state.letters().list("a").expect("reads"), [letter("a~2")]);
        assert_eq!(state.letters().list("a~1").expect("reads"), [letter("a")]);
        assert_eq!(state.letters().list("a~2").expect("reads"), []);
        let forms = |name| {
            let found = state.families().children(name, ("f", None), None, 9).expect("reads");
            found.into_iter().map(|(_, child)| child.form).collect::<Vec<_>>()
        };
        // What was there too is there still.
        assert_eq!((forms("a"), forms("a~1")), (vec!["a".into(), "a~2".into()], vec!["a".into()]));
        assert_eq!(forms("a~2"), [""; 0]);
        state.links().exchange(&link("a"), "a~1", None).expect("exchanges");
        assert_eq!((uuid("a"), uuid("a~1"), uuid("ab")), (some("a"), None, some("ab")));
        let ids: Vec<_> = state.links().list().expect("lists").into_iter().map(|l| l.id).collect();
        assert_eq!(ids, ["a", "ab"]);
    }

    #[test]
    fn a_deleted_link_leaves_no_checkpoint_and_no_definition() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let id = TableId::new("shop", "goods");
        let definition =
            TableDef { id: id.clone(), columns: vec![], primary_key: vec![], unique_keys: vec![] };
        let history = History::beginning(SchemaRecord {
            definition: Some(definition),
            behind: Default::default(),
            read_at: Default::default(),
            skipped: None,
            rules: None,
            copy: Default::default(),
            reason: String::new(),
        });
        for link_id in ["1", "11"] {
            state.links().put(&link(link_id)).expect("writes");
            state.checkpoints().put(link_id, &CheckpointRecord::default(), false).expect("writes");
            state.schemas().put(link_id, &id, &history).expect("writes");
        }
        state.links().delete("1").expect("deletes");
        assert_eq!(state.links().get("1").expect("reads"), None);
        assert_eq!(state.checkpoints().get("1").expect("reads"), None);
        assert_eq!(state.schemas().get("1", &id).expect("reads"), None);
        assert!(state.links().get("11").expect("reads").is_some());
        assert!(state.checkpoints().get("11").expect("reads").is_some());
        assert!(state.schemas().get("11", &id).expect("reads").is_some());
    }
}
