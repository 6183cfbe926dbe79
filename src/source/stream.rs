//! What a tailer hands to a link: rows events of its tables, statements that touch them, and the boundaries between
//! transactions. Data only.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::position::{Checkpoint, Gtid, GtidSet};
use crate::source::binlog::TableMap;
use crate::source::xid::Xid;

/// One step of the stream, in log order.
#[derive(Debug)]
pub enum Item {
    Rows(Rows),
    /// Rows of an XA transaction, which count only when it is committed. The text is the GTID of the group that they
    /// stand in.
    Prepared(Rows, Arc<str>),
    /// What became of an XA transaction. Told of every one, whatever tables it touched.
    Xa {
        step: Xa,
        n: u64,
    },
    /// A statement that can have changed a table of the link, not its rows one by one.
    Ddl(Ddl),
    /// A change of a table of the link that the log does not have as rows; those before it were delivered. Within an XA
    /// transaction with the GTID of its group, like [`Item::Prepared`].
    Unfollowable {
        why: Error,
        group: Option<Arc<str>>,
        n: u64,
    },
    /// Everything up to here was delivered, and no transaction is open.
    Boundary(Arc<Checkpoint>),
    /// The log has ended, and all of it was delivered.
    Ended,
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
    /// What the event keeps of memory: the buffer that it lies in, if that is larger.
    pub held_bytes: usize,
    /// Counted bytes of log before the event's first byte.
    pub n: u64,
    /// When the transaction was committed, in microseconds since 1970.
    pub committed_at_us: u64,
    /// The transaction.
    pub gtid: Option<Gtid>,
}

/// A step of an XA transaction.
#[derive(Debug, Clone)]
pub enum Xa {
    /// Its rows were delivered as those of `group`, and wait for the end.
    Prepared {
        xid: Xid,
        group: Arc<str>,
    },
    /// `XA COMMIT … ONE PHASE`: the rows of `group` count at once.
    CommittedAtOnce {
        group: Arc<str>,
        at: Commit,
    },
    Committed {
        xid: Xid,
        at: Commit,
    },
    RolledBack {
        xid: Xid,
    },
}

/// The place of a commit in the log.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Counted bytes of log before the event that commits.
    pub n: u64,
    /// Microseconds since 1970.
    pub committed_at_us: u64,
    /// The transaction that commits.
    pub gtid: Option<Gtid>,
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
    /// Counted bytes of log before it; None for what has no place in the log.
    pub fn n(&self) -> Option<u64> {
        match self {
            Item::Rows(rows) | Item::Prepared(rows, _) => Some(rows.n),
            Item::Xa { n, .. } | Item::Unfollowable { n, .. } => Some(*n),
            Item::Ddl(ddl) => Some(ddl.n),
            Item::Boundary(boundary) => Some(boundary.n),
            Item::Ended | Item::Broken(_) => None,
        }
    }

    /// What the item holds of memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        let held = match self {
            Item::Rows(rows) | Item::Prepared(rows, _) => rows.held_bytes,
            Item::Ddl(ddl) => ddl.statement.len(),
            Item::Xa { .. }
            | Item::Unfollowable { .. }
            | Item::Boundary(_)
            | Item::Ended
            | Item::Broken(_) => 0,
        };
        held + size_of::<Item>()
    }
}
