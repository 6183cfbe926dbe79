//! Links by id: what each was asked to do, and how it stands. Must not know what the states mean.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::{Durability, Family, State, joined_key};
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

/// All links; every write is synced.
pub struct Links<'s> {
    pub(super) state: &'s State,
}

impl Links<'_> {
    /// Writes the link under its own id, in the place of what was there.
    pub fn put(&self, link: &LinkRecord) -> Result<()> {
        self.state.put(Family::Links, link.id.as_bytes(), link, Durability::Synced)
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
    use super::super::{CheckpointRecord, History, SchemaRecord};
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
