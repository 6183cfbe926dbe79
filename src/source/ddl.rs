//! Not yet written.
use crate::table::TableId;

/// What a statement of the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Begin,
    Commit,
    Rollback,
    /// SAVEPOINT, RELEASE SAVEPOINT and ROLLBACK TO.
    Savepoint,
    /// XA START, with the text of its XID.
    XaStart(String),
    XaEnd,
    XaCommit,
    XaRollback,
    /// Rows changed by a statement instead of row events.
    Dml,
    /// A definition changed; without `changes_columns` rows and columns stay as they are.
    Ddl { changes_columns: bool },
    Other,
}

/// A statement of the log as far as a link must understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub kind: Kind,
    /// The tables that it can touch, as far as they are named.
    pub tables: Vec<TableId>,
}

impl Read {
    /// Whether the statement can touch `table`; in doubt it can.
    pub fn names(&self, table: &TableId) -> bool {
        self.tables.contains(table)
    }
}

/// Reads a statement of a QUERY event; `default_db` is the event's database, empty if it has none.
pub fn read(statement: &str, default_db: &str) -> Read {
    let _ = (statement, default_db);
    Read { kind: Kind::Other, tables: Vec::new() }
}
