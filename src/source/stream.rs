//! What a tailer hands to a link: rows events of its tables, statements that touch them, and the boundaries between
//! transactions. Data only.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::position::{Checkpoint, Gtid, GtidSet};
use crate::source::binlog::TableMap;

/// One step of the stream, in log order.
#[derive(Debug)]
pub enum Item {
    Rows(Rows),
    /// A statement that can have changed a table of the link, not its rows one by one.
    Ddl(Ddl),
    /// A change of a table of the link that cannot be followed; the rows before it were delivered.
    Unfollowable(Error),
    /// Everything up to here was delivered, and no transaction is open.
    Boundary(Arc<Checkpoint>),
    /// The tailer has ended and will deliver nothing more.
    Broken(Arc<Error>),
}

/// Where the delivery to a link begins.
#[derive(Debug, Clone)]
pub struct Began {
    pub checkpoint: Arc<Checkpoint>,
    /// Whether `n` belongs to the position. It does not where a new epoch began behind the link's checkpoint; then the
    /// first boundary brings the right one, and nothing may be stored or given a version before it.
    pub is_exact: bool,
}

/// A rows event, undecoded.
#[derive(Debug, Clone)]
pub struct Rows {
    pub map: Arc<TableMap>,
    /// The whole event with its header, without its checksum.
    pub event: Bytes,
    /// Counted bytes of log before the event's first byte.
    pub n: u64,
    /// When the transaction was committed, in microseconds since 1970.
    pub committed_at_us: u64,
}

/// A statement that can have changed a table of the link.
#[derive(Debug, Clone)]
pub struct Ddl {
    pub statement: String,
    /// The statement's database; empty where it has none.
    pub db: String,
    pub gtid: Gtid,
    /// Counted bytes of log before the statement's event.
    pub n: u64,
    /// Every transaction up to the one of the statement, which is among them.
    pub behind: Arc<GtidSet>,
}

impl Item {
    /// What the item holds of memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        let held = match self {
            Item::Rows(rows) => rows.event.len(),
            Item::Ddl(ddl) => ddl.statement.len(),
            Item::Unfollowable(_) | Item::Boundary(_) | Item::Broken(_) => 0,
        };
        held + size_of::<Item>()
    }
}
