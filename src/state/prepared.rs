//! What prepared XA transactions do to a link's documents, by link and group: kept from XA PREPARE until a checkpoint has
//! passed XA COMMIT or XA ROLLBACK. Must not know when that is.
//!
//! One record is one document: of the operations of a group only the last of a document counts, and written under the
//! document's id it takes the place of those before it. So a group needs no memory, however large it is. Records are
//! bytes: what the first byte says, then the document itself.

use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::{Durability, Family, KeyPart, State, failed, joined_key};
use crate::error::{Error, ErrorKind, Result};

/// What is left to do with one document when its group is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreparedOp {
    /// The whole document as JSON.
    Upsert(Vec<u8>),
    Delete,
    /// The log left columns of the row with this key out: what it is behind the commit must be read.
    ReadAgain(Vec<KeyPart>),
    /// What the group did to the table is not known: the table must be copied. Of no document.
    CopyAgain,
    /// No document: rows that refer to a key that goes, which the text in the place of the id names.
    Children,
}

impl PreparedOp {
    /// What it holds of memory beside itself, in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Upsert(body) => body.len(),
            Self::Delete | Self::CopyAgain | Self::Children => 0,
            Self::ReadAgain(key) => key.iter().map(KeyPart::size_bytes).sum(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Upsert(body) => [&[UPSERT], body.as_slice()].concat(),
            Self::Delete => vec![DELETE],
            Self::CopyAgain => vec![COPY_AGAIN],
            Self::Children => vec![CHILDREN],
            Self::ReadAgain(key) => {
                let mut bytes = vec![READ_AGAIN];
                serde_json::to_writer(&mut bytes, key).expect("a key can be written to memory");
                bytes
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&UPSERT, body) => Some(Self::Upsert(body.to_vec())),
            (&DELETE, []) => Some(Self::Delete),
            (&COPY_AGAIN, []) => Some(Self::CopyAgain),
            (&CHILDREN, []) => Some(Self::Children),
            (&READ_AGAIN, key) => serde_json::from_slice(key).ok().map(Self::ReadAgain),
            _ => None,
        }
    }
}

/// A number is never used again for another form.
const UPSERT: u8 = 1;
const DELETE: u8 = 2;
const READ_AGAIN: u8 = 3;
const COPY_AGAIN: u8 = 4;
const CHILDREN: u8 = 5;

pub struct Prepared<'s> {
    pub(super) state: &'s State,
}

impl Prepared<'_> {
    /// Writes one operation for each document, in the place of what the group had of it. Not synced: a checkpoint that is
    /// written later is never found without it.
    pub fn put<'o>(
        &self,
        link: &str,
        group: &str,
        ops: impl IntoIterator<Item = (&'o String, &'o PreparedOp)>,
    ) -> Result<()> {
        let prefix = prefix(link, group);
        let family = self.state.family(Family::Prepared);
        let mut batch = WriteBatch::default();
        for (id, op) in ops {
            batch.put_cf(family, [&prefix, id.as_bytes()].concat(), op.encode());
        }
        self.state.write(batch, Durability::Buffered)
    }

    /// The group's operations behind document `after`, in the order of their ids, until they take `bytes_max`.
    pub fn after(
        &self,
        link: &str,
        group: &str,
        after: Option<&str>,
        bytes_max: usize,
    ) -> Result<Vec<(String, PreparedOp)>> {
        let prefix = prefix(link, group);
        let from = [&prefix, after.unwrap_or_default().as_bytes()].concat();
        let mode = IteratorMode::From(&from, Direction::Forward);
        let (mut ops, mut bytes) = (Vec::new(), 0);
        for entry in self.state.inner.db.iterator_cf(self.state.family(Family::Prepared), mode) {
            let (key, value) = entry.map_err(|cause| failed("read from prepared", cause))?;
            let Some(id) = key.strip_prefix(prefix.as_slice()) else { break };
            if after.is_some_and(|after| after.as_bytes() == id) {
                continue;
            }
            bytes += key.len() + value.len();
            let id = String::from_utf8(id.to_vec()).ok();
            ops.push(id.zip(PreparedOp::decode(&value)).ok_or_else(damaged)?);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(ops)
    }

    /// Not synced: a group that is found again after a crash is one that no checkpoint names.
    pub fn delete(&self, link: &str, group: &str) -> Result<()> {
        let mut batch = WriteBatch::default();
        self.state.delete_range(Family::Prepared, &prefix(link, group), &mut batch);
        self.state.write(batch, Durability::Buffered)
    }

    /// Deletes the groups of a link that are not wanted: those that an earlier life read beyond its last checkpoint.
    pub fn retain(&self, link: &str, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let all = joined_key(link, &[""]);
        let mut from = all.clone();
        loop {
            let mode = IteratorMode::From(&from, Direction::Forward);
            let family = self.state.family(Family::Prepared);
            let Some(entry) = self.state.inner.db.iterator_cf(family, mode).next() else {
                return Ok(());
            };
            let (key, _) = entry.map_err(|cause| failed("read from prepared", cause))?;
            let Some(rest) = key.strip_prefix(all.as_slice()) else { return Ok(()) };
            let group = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            let group = std::str::from_utf8(group).map_err(|_| damaged())?;
            if !is_wanted(group) {
                self.delete(link, group)?;
            }
            from = prefix(link, group);
            *from.last_mut().expect("it ends in a separator") = 1;
        }
    }
}

/// Group names are GTIDs, which hold no zero byte.
fn prefix(link: &str, group: &str) -> Vec<u8> {
    joined_key(link, &[group, ""])
}

fn damaged() -> Error {
    Error::new(ErrorKind::State, "cannot read a prepared XA transaction in the state")
        .with_advice("the state directory is damaged: restore it, or make the link anew")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::open;
    use super::*;

    fn ops(list: &[(&str, PreparedOp)]) -> BTreeMap<String, PreparedOp> {
        list.iter().map(|(id, op)| ((*id).to_owned(), op.clone())).collect()
    }

    #[test]
    fn the_last_operation_of_a_document_is_found_in_pieces() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let prepared = state.prepared();
        let body = |text: &str| PreparedOp::Upsert(text.as_bytes().to_vec());
        prepared.put("1", "g:1", &ops(&[("a", body("{}")), ("", body("x"))])).expect("writes");
        prepared
            .put("1", "g:1", &ops(&[("a", PreparedOp::Delete), ("b\0", body("y"))]))
            .expect("writes");
        let again = PreparedOp::ReadAgain(vec![KeyPart::Bytes(vec![0, 255]), KeyPart::Int(-1)]);
        prepared.put("1", "g:1", &ops(&[("c", again.clone())])).expect("writes");
        prepared.put("1", "g:11", &ops(&[("a", body("other"))])).expect("writes");
        prepared.put("11", "g:1", &ops(&[("a", body("other"))])).expect("writes");
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let piece = prepared.after("1", "g:1", after.as_deref(), 1).expect("reads");
            let Some((id, _)) = piece.last() else { break };
            assert_eq!(piece.len(), 1);
            after = Some(id.clone());
            found.extend(piece);
        }
        let expected =
            [("", body("x")), ("a", PreparedOp::Delete), ("b\0", body("y")), ("c", again.clone())];
        assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), ops(&expected));
        prepared.delete("1", "g:1").expect("deletes");
        assert_eq!(prepared.after("1", "g:1", None, 99).expect("reads"), []);
        assert_eq!(prepared.after("1", "g:11", None, 99).expect("reads").len(), 1);
    }

    #[test]
    fn groups_that_no_checkpoint_names_are_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let prepared = state.prepared();
        for group in ["g:1", "g:2", "g:3"] {
            prepared.put("1", group, &ops(&[("a", PreparedOp::Delete)])).expect("writes");
            prepared.put("2", group, &ops(&[("a", PreparedOp::Delete)])).expect("writes");
        }
        prepared.retain("1", |group| group == "g:2").expect("deletes");
        let left = |link: &str, group: &str| {
            !prepared.after(link, group, None, 99).expect("reads").is_empty()
        };
        assert_eq!([left("1", "g:1"), left("1", "g:2"), left("1", "g:3")], [false, true, false]);
        assert!(left("2", "g:1"));
        state.links().delete("1").expect("deletes");
        assert!(!left("1", "g:2") && left("2", "g:2"));
    }
}
