//! The foreign keys that cascade into a link's table, and which of its rows refer to which key: what is found there is
//! read again when a key goes. Must not know when that is.
//!
//! An entry may be there that is not true any more; one that is true must be there. So entries are written before the
//! checkpoint passes what made them, and taken away when it has passed what made them untrue: see `link::cascades`.

use rocksdb::{Direction, IteratorMode, WriteBatch};
use serde::{Deserialize, Serialize};

use super::schemas::StoredDefinition;
use super::{Durability, Family as Records, KeyPart, State, failed, joined_key};
use crate::error::{Error, ErrorKind, Result};
use crate::position::GtidSet;
use crate::table::{Action, Family, ForeignKey, TableId};

/// The keys as they were read last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyRecord {
    pub family: Family,
    /// The statement's transaction behind which they were read, alone in a set; empty for the link's beginning.
    pub behind: GtidSet,
    /// Everything that the server had executed, or was about to, when they were read.
    pub read_at: GtidSet,
}

/// A row that refers to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The form of the key that it refers to, by which it is found.
    pub form: String,
    /// The document's `_id`.
    pub id: String,
    /// The columns that make the `_id`.
    pub key: Vec<KeyPart>,
    /// The columns that refer.
    pub refers_to: Vec<KeyPart>,
}

pub struct Families<'s> {
    pub(super) state: &'s State,
}

impl Families<'_> {
    pub fn put(&self, link: &str, record: &FamilyRecord) -> Result<()> {
        let stored = Stored::from(record);
        self.state.put(Records::Families, link.as_bytes(), &stored, Durability::Synced)
    }

    pub fn get(&self, link: &str) -> Result<Option<FamilyRecord>> {
        let stored: Option<Stored> = self.state.get(Records::Families, link.as_bytes())?;
        stored.map(|stored| stored.into_record(link)).transpose()
    }

    /// The record and all entries of a link.
    pub fn delete(&self, link: &str) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.state.family(Records::Families), link.as_bytes());
        self.state.delete_range(Records::Children, &joined_key(link, &[""]), &mut batch);
        self.state.write(batch, Durability::Synced)
    }

    /// Writes entries of rows that refer by the foreign key of this name. Not synced: a checkpoint that is written later
    /// is never found without them.
    pub fn put_children<'c>(
        &self,
        link: &str,
        children: impl IntoIterator<Item = (&'c str, &'c Child)>,
    ) -> Result<()> {
        let family = self.state.family(Records::Children);
        let mut batch = WriteBatch::default();
        for (foreign_key, child) in children {
            let name = entry_name(link, foreign_key, &child.form, &child.id);
            let value = serde_json::to_vec(&(&child.key, &child.refers_to))
                .expect("a key can be written to memory");
            batch.put_cf(family, &name, value);
        }
        self.state.write(batch, Durability::Buffered)
    }

    /// Adds the entries of one link to those of another, not all at once.
    pub(super) fn copy_children(&self, from: &str, to: &str) -> Result<()> {
        /// In a batch, so that no link needs much memory.
        const AT_ONCE: usize = 10_000;
        let family = self.state.family(Records::Children);
        let (prefix, new_prefix) = (joined_key(from, &[""]), joined_key(to, &[""]));
        let mut batch = WriteBatch::default();
        let mode = IteratorMode::From(&prefix, Direction::Forward);
        for entry in self.state.inner.db.iterator_cf(family, mode) {
            let (name, value) = entry.map_err(|cause| failed("read from children", cause))?;
            let Some(rest) = name.strip_prefix(prefix.as_slice()) else { break };
            batch.put_cf(family, [&new_prefix, rest].concat(), value);
            if batch.len() >= AT_ONCE {
                self.state.write(std::mem::take(&mut batch), Durability::Buffered)?;
            }
        }
        self.state.write(batch, Durability::Buffered)
    }

    /// Entries of rows that refer by this key to what has this form (None: to anything), behind the entry `after`, in
    /// their order.
    pub fn children(
        &self,
        link: &str,
        (foreign_key, form): (&str, Option<&str>),
        after: Option<&[u8]>,
        count_max: usize,
    ) -> Result<Vec<(Box<[u8]>, Child)>> {
        let all = joined_key(link, &[foreign_key, ""]);
        let prefix = match form {
            Some(form) => joined_key(link, &[foreign_key, form, ""]),
            None => all.clone(),
        };
        let mode = IteratorMode::From(after.unwrap_or(&prefix), Direction::Forward);
        let mut found = Vec::new();
        for entry in self.state.inner.db.iterator_cf(self.state.family(Records::Children), mode) {
            let (name, value) = entry.map_err(|cause| failed("read from children", cause))?;
            if !name.starts_with(&prefix) || found.len() == count_max {
                break;
            }
            if after == Some(&name) {
                continue;
            }
            let child = read_child(&name, all.len(), &value).ok_or_else(damaged)?;
            found.push((name, child));
        }
        Ok(found)
    }

    /// One entry of each form that rows refer to by this key, behind the form `after`, in their order.
    pub fn forms(
        &self,
        link: &str,
        foreign_key: &str,
        after: Option<&str>,
        count_max: usize,
    ) -> Result<Vec<Child>> {
        let all = joined_key(link, &[foreign_key, ""]);
        // The next byte behind the one that ends the form.
        let behind = |form: &str| {
            let mut name = joined_key(link, &[foreign_key, form]);
            name.push(1);
            name
        };
        let mut entries = self.state.inner.db.raw_iterator_cf(self.state.family(Records::Children));
        entries.seek(after.map_or_else(|| all.clone(), behind));
        let mut found: Vec<Child> = Vec::new();
        while let (Some(name), Some(value)) = (entries.key(), entries.value()) {
            if !name.starts_with(&all) || found.len() == count_max {
                break;
            }
            let child = read_child(name, all.len(), value).ok_or_else(damaged)?;
            entries.seek(behind(&child.form));
            found.push(child);
        }
        entries.status().map_err(|cause| failed("read from children", cause))?;
        Ok(found)
    }

    pub fn delete_children<'n>(&self, names: impl IntoIterator<Item = &'n [u8]>) -> Result<()> {
        let family = self.state.family(Records::Children);
        let mut batch = WriteBatch::default();
        for name in names {
            batch.delete_cf(family, name);
        }
        self.state.write(batch, Durability::Buffered)
    }
}

/// The name of a row's entry; the length of the `_id` stands last, for it may hold any byte.
pub fn entry_name(link: &str, foreign_key: &str, form: &str, id: &str) -> Vec<u8> {
    let mut name = joined_key(link, &[foreign_key, form, id]);
    name.extend_from_slice(&(id.len() as u32).to_be_bytes());
    name
}

/// `form_at` is where the form begins in the name.
fn read_child(name: &[u8], form_at: usize, value: &[u8]) -> Option<Child> {
    let (rest, length) = name.split_last_chunk::<4>()?;
    let id_at = rest.len().checked_sub(u32::from_be_bytes(*length) as usize)?;
    let form = rest.get(form_at..id_at.checked_sub(1)?)?;
    let (key, refers_to) = serde_json::from_slice(value).ok()?;
    Some(Child {
        form: String::from_utf8(form.to_vec()).ok()?,
        id: String::from_utf8(rest.get(id_at..)?.to_vec()).ok()?,
        key,
        refers_to,
    })
}

fn damaged() -> Error {
    Error::new(ErrorKind::State, "cannot read which rows refer to which in the state")
        .with_advice("the state directory is damaged: restore it, or make the link anew")
}

#[derive(Serialize, Deserialize)]
struct Stored {
    keys: Vec<StoredKey>,
    ancestors: Vec<(String, String, StoredDefinition)>,
    behind: String,
    read_at: String,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    name: String,
    child: (String, String),
    columns: Vec<String>,
    parent: (String, String),
    parent_columns: Vec<String>,
    on_delete: StoredAction,
    on_update: StoredAction,
    is_plain: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredAction {
    Restrict,
    Cascade,
    SetNull,
}

impl From<Action> for StoredAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Restrict => Self::Restrict,
            Action::Cascade => Self::Cascade,
            Action::SetNull => Self::SetNull,
        }
    }
}

impl From<StoredAction> for Action {
    fn from(action: StoredAction) -> Self {
        match action {
            StoredAction::Restrict => Self::Restrict,
            StoredAction::Cascade => Self::Cascade,
            StoredAction::SetNull => Self::SetNull,
        }
    }
}

impl From<&FamilyRecord> for Stored {
    fn from(record: &FamilyRecord) -> Self {
        let pair = |table: &TableId| (table.db.clone(), table.name.clone());
        let key = |key: &ForeignKey| StoredKey {
            name: key.name.clone(),
            child: pair(&key.child),
            columns: key.columns.clone(),
            parent: pair(&key.parent),
            parent_columns: key.parent_columns.clone(),
            on_delete: key.on_delete.into(),
            on_update: key.on_update.into(),
            is_plain: key.is_plain,
        };
        let ancestors = record.family.ancestors.iter();
        Self {
            keys: record.family.keys.iter().map(key).collect(),
            ancestors: ancestors
                .map(|def| (def.id.db.clone(), def.id.name.clone(), def.into()))
                .collect(),
            behind: record.behind.stored(),
            read_at: record.read_at.stored(),
        }
    }
}

impl Stored {
    fn into_record(self, link: &str) -> Result<FamilyRecord> {
        let set = |text: &str| -> Result<GtidSet> {
            text.parse().map_err(|cause: Error| {
                let what = format!("cannot read the foreign keys of link {link}");
                Error::new(ErrorKind::State, what).caused_by(cause).with_advice(
                    "the state directory is damaged: restore it, or make the link anew",
                )
            })
        };
        let key = |key: StoredKey| ForeignKey {
            name: key.name,
            child: TableId::new(key.child.0, key.child.1),
            columns: key.columns,
            parent: TableId::new(key.parent.0, key.parent.1),
            parent_columns: key.parent_columns,
            on_delete: key.on_delete.into(),
            on_update: key.on_update.into(),
            is_plain: key.is_plain,
        };
        let ancestors = self
            .ancestors
            .into_iter()
            .map(|(db, name, def)| def.into_definition(&TableId::new(db, name)))
            .collect::<Result<_>>()?;
        let keys = self.keys.into_iter().map(key).collect();
        Ok(FamilyRecord {
            family: Family { keys, ancestors },
            behind: set(&self.behind)?,
            read_at: set(&self.read_at)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;

    fn child(form: &str, id: &str) -> Child {
        let key = |text: &str| vec![KeyPart::Text(text.into())];
        Child { form: form.into(), id: id.into(), key: key(id), refers_to: key(form) }
    }

    #[test]
    fn rows_are_found_by_what_they_refer_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let families = state.families();
        let ours = [child("=1", "a"), child("=1", "b\0b"), child("=10", "c"), child("?", "d")];
        families.put_children("l", ours.iter().map(|one| ("f", one))).expect("writes");
        families.put_children("l", [("g", &ours[0])]).expect("writes");
        families.put_children("l2", [("f", &ours[0])]).expect("writes");
        let found = |form, after: Option<&[u8]>, count| {
            let found = families.children("l", ("f", form), after, count).expect("reads");
            found.into_iter().map(|(_, child)| child).collect::<Vec<_>>()
        };
        assert_eq!(found(Some("=1"), None, 9), ours[..2]);
        assert_eq!(found(None, None, 9), ours);
        let first = entry_name("l", "f", "=1", "a");
        assert_eq!(found(Some("=1"), Some(&first), 9), ours[1..2]);
        assert_eq!(found(Some("=1"), None, 1), ours[..1]);
        families.delete_children([first.as_slice()]).expect("deletes");
        assert_eq!(found(Some("=1"), None, 9), ours[1..2]);
        let more = child("=1\u{1}x", "e");
        families.put_children("l", [("f", &more)]).expect("writes");
        let forms = |after, count| {
            let found = families.forms("l", "f", after, count).expect("reads");
            found.into_iter().map(|child| child.id).collect::<Vec<_>>()
        };
        assert_eq!(forms(None, 9), ["b\0b", "e", "c", "d"]);
        assert_eq!(forms(None, 2), ["b\0b", "e"]);
        assert_eq!(forms(Some("=1"), 9), ["e", "c", "d"]);
        assert_eq!(forms(Some("?"), 9), [""; 0]);
        families.delete("l").expect("deletes");
        assert_eq!(found(None, None, 9), []);
        let others = families.children("l2", ("f", None), None, 9).expect("reads");
        assert_eq!(others.len(), 1);
    }

    #[test]
    fn a_family_is_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let id = |name: &str| TableId::new("d", name);
        let key = ForeignKey {
            name: "f".into(),
            child: id("c"),
            columns: vec!["p".into()],
            parent: id("p"),
            parent_columns: vec!["id".into()],
            on_delete: Action::Cascade,
            on_update: Action::SetNull,
            is_plain: true,
        };
        let family = Family {
            keys: vec![key],
            ancestors: vec![crate::table::TableDef {
                id: id("p"),
                columns: vec![],
                primary_key: vec![],
                unique_keys: vec![],
            }],
        };
        let set: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().expect("a set");
        let record = FamilyRecord { family, behind: GtidSet::default(), read_at: set };
        state.families().put("l", &record).expect("writes");
        assert_eq!(state.families().get("l").expect("reads"), Some(record));
        state.families().delete("l").expect("deletes");
        assert_eq!(state.families().get("l").expect("reads"), None);
    }
}
