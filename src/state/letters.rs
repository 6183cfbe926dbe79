//! Dead letters by link and document: what could not be written for good, and why. Must not know what becomes of them.

use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::{Durability, Family, State, joined_key};
use crate::error::Result;

/// An operation that was refused for good; the newest of its document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LetterRecord {
    /// The `_id`; of a row that can have none, its key.
    pub document: String,
    /// Who refused it: `sink`, `model` or `pipeline`, or `row` where it cannot be made a document; `parked` where the sink
    /// has not refused it, and could not write it for long.
    pub stage: String,
    /// `upsert` or `delete`.
    pub action: String,
    pub version: u64,
    pub reason: String,
    /// `db.table` of its row.
    pub table: String,
    /// The link's checkpoint at that time: the change lies behind it.
    pub behind: String,
    /// What was to be written, as JSON; empty for a delete, and where it was large.
    pub body: String,
    /// Unix seconds.
    pub at: u64,
    /// How often what is parked was tried again.
    pub tries: u32,
    /// When it is tried again, in Unix seconds.
    pub retry_at: u64,
}

pub struct Letters<'s> {
    pub(super) state: &'s State,
}

impl Letters<'_> {
    /// Takes the place of what was there of the document. Not synced: a checkpoint that is written later is never found
    /// without it.
    pub fn put(&self, link: &str, letter: &LetterRecord) -> Result<()> {
        let key = joined_key(link, &[&letter.document]);
        self.state.put(Family::Letters, &key, letter, Durability::Buffered)
    }

    pub fn get(&self, link: &str, document: &str) -> Result<Option<LetterRecord>> {
        self.state.get(Family::Letters, &joined_key(link, &[document]))
    }

    pub fn delete(&self, link: &str, document: &str) -> Result<()> {
        self.state.delete(Family::Letters, &joined_key(link, &[document]), Durability::Buffered)
    }

    /// Those of a link in the order of their documents.
    pub fn list(&self, link: &str) -> Result<Vec<LetterRecord>> {
        let found = self.state.list(Family::Letters, &joined_key(link, &[""]))?;
        Ok(found.into_iter().map(|(_, letter)| letter).collect())
    }

    /// Deletes all of a link.
    pub fn delete_of(&self, link: &str) -> Result<()> {
        let mut batch = WriteBatch::default();
        self.delete_all(link, &mut batch);
        self.state.write(batch, Durability::Buffered)
    }

    /// Adds the deletion of all of a link to `batch`.
    pub(super) fn delete_all(&self, link: &str, batch: &mut WriteBatch) {
        self.state.delete_range(Family::Letters, &joined_key(link, &[""]), batch);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;

    #[test]
    fn the_newest_letter_of_a_document_is_found_until_its_link_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let letter = |document: &str, version| LetterRecord {
            document: document.to_owned(),
            version,
            ..LetterRecord::default()
        };
        for (link, document, version) in
            [("a", "x", 1), ("a", "x", 2), ("a", "w\0", 3), ("ab", "x", 4), ("a", "y", 5)]
        {
            state.letters().put(link, &letter(document, version)).expect("writes");
        }
        state.letters().delete("a", "y").expect("deletes");
        let found = state.letters().list("a").expect("reads");
        assert_eq!(found, [letter("w\0", 3), letter("x", 2)]);
        state.links().delete("a").expect("deletes");
        assert_eq!(state.letters().list("a").expect("reads"), []);
        assert_eq!(state.letters().list("ab").expect("reads").len(), 1);
    }
}
