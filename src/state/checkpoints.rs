//! Checkpoints by link: how far the stream and the snapshot are acknowledged. Must not know how either goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Durability, Family, State, joined_key};
use crate::error::{Error, ErrorKind, Result};
use crate::position::{Checkpoint, Epoch, Position};

/// How far a link is. Stream and snapshot are one record and so one atomic write: a chunk that is done can never be
/// found beside a position that is older than the chunk's window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointRecord {
    pub checkpoint: Checkpoint,
    /// None where the link takes no snapshot.
    pub snapshot: Option<SnapshotRecord>,
    /// The index that holds what was acknowledged; another UUID under the same name holds nothing of it.
    pub index_uuid: String,
    /// XA transactions that were prepared up to the checkpoint, while the link followed the log, and not ended. By XID
    /// the group of [`super::Prepared`] that holds what they do to the link's documents; None where that is nothing.
    pub prepared: Arc<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub done: bool,
    /// The key of the last row that was copied; None before the first chunk.
    pub after: Option<Vec<KeyPart>>,
    /// The highest key when the snapshot began; rows above it come by the stream. None where the table was empty.
    pub until: Option<Vec<KeyPart>>,
    pub rows: u64,
    /// An estimate, for progress and ETA.
    pub rows_total: u64,
    /// When the copy is done, documents below this version are deleted: they have no row.
    #[serde(default)]
    pub sweep_below: Option<u64>,
    /// When the copy is done, another one begins.
    #[serde(default)]
    pub again: bool,
    /// Rows were taken in without noting what they refer to, because the source logged what foreign keys do.
    #[serde(default)]
    pub unindexed: bool,
    /// Only documents that are not what their rows make them are written, and only those without a row are deleted.
    #[serde(default)]
    pub compares: bool,
    /// The number of the order by which a statement asked for it, of a link that had copied its table.
    #[serde(default)]
    pub ordered: Option<u64>,
    /// The rows that are copied, as a condition; None: all.
    #[serde(default)]
    pub filter: Option<String>,
}

/// A copy that a statement asks for, and that has not begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOrder {
    /// No two orders of a link have the same.
    pub number: u64,
    /// The rows that are wanted, as a condition; None: all.
    pub filter: Option<String>,
}

/// One column of a key as a value to bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "lowercase")]
pub enum KeyPart {
    Int(i64),
    UInt(u64),
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    Bytes(Vec<u8>),
    Text(String),
}

impl KeyPart {
    /// What it holds of memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Int(_) | Self::UInt(_) => 0,
                Self::Bytes(bytes) => bytes.len(),
                Self::Text(text) => text.len(),
            }
    }
}

/// The checkpoints of all links.
pub struct Checkpoints<'s> {
    pub(super) state: &'s State,
}

impl Checkpoints<'_> {
    /// Without `sync` the record survives the process but perhaps not the machine; an older one is then found, from
    /// which the same operations follow again.
    pub fn put(&self, link: &str, record: &CheckpointRecord, sync: bool) -> Result<()> {
        let stored = Stored::from(record);
        let durability = Durability::synced_if(sync);
        self.state.put(Family::Checkpoints, link.as_bytes(), &stored, durability)
    }

    pub fn get(&self, link: &str) -> Result<Option<CheckpointRecord>> {
        let stored: Option<Stored> = self.state.get(Family::Checkpoints, link.as_bytes())?;
        stored.map(|stored| stored.into_record(link)).transpose()
    }

    pub fn delete(&self, link: &str) -> Result<()> {
        self.state.delete(Family::Checkpoints, &order_key(link), Durability::Buffered)?;
        self.state.delete(Family::Checkpoints, link.as_bytes(), Durability::Synced)
    }

    /// Keeps the order until a checkpoint says that its copy has begun.
    pub fn order_copy(&self, link: &str, order: &CopyOrder) -> Result<()> {
        self.state.put(Family::Checkpoints, &order_key(link), order, Durability::Synced)
    }

    pub fn ordered_copy(&self, link: &str) -> Result<Option<CopyOrder>> {
        self.state.get(Family::Checkpoints, &order_key(link))
    }

    /// The order of this number is carried out; another one stays.
    pub fn take_order(&self, link: &str, number: u64) -> Result<()> {
        match self.ordered_copy(link)? {
            Some(order) if order.number == number => {
                self.state.delete(Family::Checkpoints, &order_key(link), Durability::Buffered)
            }
            _ => Ok(()),
        }
    }
}

/// Beside the link's checkpoint.
fn order_key(link: &str) -> Vec<u8> {
    joined_key(link, &["copy"])
}

#[derive(Serialize, Deserialize)]
struct Stored {
    epoch: u64,
    n: u64,
    file: String,
    offset: u64,
    gtids: String,
    snapshot: Option<SnapshotRecord>,
    index_uuid: String,
    #[serde(default)]
    prepared: BTreeMap<String, Option<String>>,
}

impl From<&CheckpointRecord> for Stored {
    fn from(record: &CheckpointRecord) -> Self {
        let Checkpoint { epoch, n, position } = &record.checkpoint;
        Self {
            epoch: epoch.0,
            n: *n,
            file: position.file.clone(),
            offset: position.offset,
            gtids: position.gtids.stored(),
            snapshot: record.snapshot.clone(),
            index_uuid: record.index_uuid.clone(),
            prepared: record.prepared.as_ref().clone(),
        }
    }
}

impl Stored {
    fn into_record(self, link: &str) -> Result<CheckpointRecord> {
        let gtids = self.gtids.parse().map_err(|cause: Error| {
            Error::new(ErrorKind::State, format!("cannot read the checkpoint of link {link}"))
                .caused_by(cause)
                .with_advice("the state directory is damaged: restore it, or make the link anew")
        })?;
        Ok(CheckpointRecord {
            checkpoint: Checkpoint {
                epoch: Epoch(self.epoch),
                n: self.n,
                position: Position { file: self.file, offset: self.offset, gtids },
            },
            snapshot: self.snapshot,
            index_uuid: self.index_uuid,
            prepared: Arc::new(self.prepared),
        })
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text).map_err(|_| serde::de::Error::custom("not base64"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;

    #[test]
    fn a_checkpoint_is_found_again_with_every_kind_of_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let gtids = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:ours:1-2".parse().expect("a set");
        let record = CheckpointRecord {
            checkpoint: Checkpoint {
                epoch: Epoch(u64::MAX >> 2),
                n: 77,
                position: Position { file: "binlog.000003".into(), offset: 1 << 40, gtids },
            },
            snapshot: Some(SnapshotRecord {
                done: false,
                after: Some(vec![
                    KeyPart::Int(i64::MIN),
                    KeyPart::UInt(u64::MAX),
                    KeyPart::Bytes(vec![0, 0xff, b'"']),
                    KeyPart::Text("中\u{0}\"".into()),
                ]),
                until: None,
                rows: 10,
                rows_total: 20,
                sweep_below: Some(1 << 60),
                again: true,
                unindexed: true,
                compares: true,
                ordered: Some(5),
                filter: Some("`a` > '1'".into()),
            }),
            index_uuid: "Zk3".into(),
            prepared: Arc::new(BTreeMap::from([
                ("x".into(), Some("g".into())),
                ("y".into(), None),
            ])),
        };
        for sync in [false, true] {
            let state = open(dir.path());
            state.checkpoints().put("7", &record, sync).expect("writes");
            drop(state);
            let state = open(dir.path());
            assert_eq!(state.checkpoints().get("7").expect("reads").as_ref(), Some(&record));
            let order = CopyOrder { number: 5, filter: Some("x = 1".into()) };
            state.checkpoints().order_copy("7", &order).expect("writes");
            assert_eq!(state.checkpoints().ordered_copy("7").expect("reads"), Some(order));
            assert_eq!(state.checkpoints().ordered_copy("70").expect("reads"), None);
            state.checkpoints().take_order("7", 4).expect("another one");
            assert!(state.checkpoints().ordered_copy("7").expect("reads").is_some());
            state.checkpoints().delete("7").expect("deletes");
            assert_eq!(state.checkpoints().get("7").expect("reads"), None);
            assert_eq!(state.checkpoints().ordered_copy("7").expect("reads"), None);
        }
    }
}
