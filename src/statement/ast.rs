//! What a statement says, as data with the place of every name in the text. Knows nothing of tables or mappings.

use crate::error::Span;

/// One statement of the administration language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    SyncByMap(Mapping),
    SyncByTable(SyncByTable),
    ShowSyncLink,
    ShowSyncLinkById {
        id: Name,
    },
    DropSyncLinkById {
        id: Name,
    },
    PauseLink {
        id: Name,
    },
    ResumeLink {
        id: Name,
    },
    ResetLink {
        id: Name,
    },
    DropLink {
        id: Name,
        with_index: bool,
    },
    SnapshotLink(SnapshotLink),
    RebuildLink(RebuildLink),
    CopyLink(CopyLink),
    VerifyLink(VerifyLink),
    /// `None`: of all links.
    ShowDeadLetters {
        link: Option<Name>,
    },
    /// `None`: all letters of the link.
    RetryDeadLetters {
        link: Name,
        document: Option<Name>,
    },
    DiscardDeadLetters {
        link: Name,
        document: Option<Name>,
    },
}

/// `SNAPSHOT LINK id TABLE db.table WHERE condition`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLink {
    pub id: Name,
    /// Database and table.
    pub table: Option<(Name, Name)>,
    /// As it is written, for the server to read.
    pub condition: Option<Name>,
}

/// `VERIFY LINK x [WHERE condition] [SAMPLE n%] [WITH VECTORS] [REPAIR]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyLink {
    pub link: Name,
    /// SQL of the source, as it was written; its parentheses are balanced, and it holds no `;`.
    pub condition: Option<Name>,
    /// Rows and documents of a million.
    pub sample_ppm: Option<u32>,
    pub with_vectors: bool,
    pub repair: bool,
}

/// `REBUILD LINK x [WITH option[, option…]]`, `REBUILD LINK x CANCEL`, `REBUILD LINK x ROLLBACK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildLink {
    pub link: Name,
    pub what: Rebuild,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebuild {
    Begin(RebuildOptions),
    Cancel,
    Rollback,
}

/// In what the new index is different, and what becomes of the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebuildOptions {
    /// A JSON object with `settings` and `mappings`, or one of them.
    pub index: Option<Name>,
    /// Rules in the place of the link's; at least one, of one index and one table.
    pub mapping: Option<Vec<Assignment>>,
    pub pipeline: Option<Name>,
    pub keep_old: Option<KeepOld>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepOld {
    pub secs: u64,
    pub span: Span,
}

/// `COPY LINK x TO INDEX y [AS id]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyLink {
    pub link: Name,
    pub index: Name,
    pub id: Option<Name>,
}

/// A name as it is meant (quotes and escapes undone), and the bytes of the text that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

/// One table's columns, by rule, to one index: at least one rule and one key, all of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub index: Name,
    pub rules: Vec<Assignment>,
    /// The columns that make `_id`, in their order.
    pub keys: Vec<Assignment>,
}

/// `index.field(db.table.column)` of a mapping list or `index.field=db.table.column` of a key list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub index: Name,
    /// Everything between the index and the parenthesis, dots included.
    pub field: Name,
    pub db: Name,
    pub table: Name,
    pub column: Name,
}

impl Assignment {
    /// From the database's name to the end of the column's.
    pub fn source_span(&self) -> Span {
        Span::new(self.db.span.start, self.column.span.end)
    }
}

/// `sync_by_table("search", "db.table", "index", "columns")`: the fields are called as the columns are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncByTable {
    pub db: Name,
    pub table: Name,
    pub index: Name,
    /// `None` for `*` and for an empty list: all columns.
    pub columns: Option<Vec<Name>>,
    /// The column list's argument.
    pub columns_span: Span,
}
