//! What a link does at statements that take rows or add columns. Data only.

use serde::Deserialize;

/// What becomes of the documents when the rows go without events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGone {
    /// The documents go too.
    Delete,
    /// The documents stay.
    Ignore,
    /// The link stops as `failed`.
    Fail,
}

/// What becomes of a column that is added to a table whose every column is a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddColumns {
    Auto,
    Ignore,
}

/// What a link does when the source no longer has the log that follows its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPurged {
    /// The table is compared with the documents, and what differs is mended.
    Verify,
    /// The table is copied again, and documents without a row are deleted.
    Snapshot,
    /// The link stops as `failed`.
    Fail,
}

/// The policy of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub on_truncate: OnGone,
    pub on_drop: OnGone,
    pub add_columns: AddColumns,
    pub on_purged: OnPurged,
}

/// What a link says of itself, in the place of what is said for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    pub on_truncate: Option<OnGone>,
    pub on_drop: Option<OnGone>,
    pub add_columns: Option<AddColumns>,
    pub on_purged: Option<OnPurged>,
    pub verify_every_secs: Option<u64>,
    pub verify_repair: Option<bool>,
}

impl OnGone {
    pub const WORDS: &str = "`delete`, `ignore` or `fail`";

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Ignore => "ignore",
            Self::Fail => "fail",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Delete, Self::Ignore, Self::Fail].into_iter().find(|one| one.as_str() == text)
    }
}

impl AddColumns {
    pub const WORDS: &str = "`auto` or `ignore`";

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ignore => "ignore",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Auto, Self::Ignore].into_iter().find(|one| one.as_str() == text)
    }
}

impl OnPurged {
    pub const WORDS: &str = "`verify`, `snapshot` or `fail`";

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Snapshot => "snapshot",
            Self::Fail => "fail",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Verify, Self::Snapshot, Self::Fail].into_iter().find(|one| one.as_str() == text)
    }
}

impl Policy {
    pub fn with(self, overrides: Overrides) -> Self {
        Self {
            on_truncate: overrides.on_truncate.unwrap_or(self.on_truncate),
            on_drop: overrides.on_drop.unwrap_or(self.on_drop),
            add_columns: overrides.add_columns.unwrap_or(self.add_columns),
            on_purged: overrides.on_purged.unwrap_or(self.on_purged),
        }
    }

    /// Table and index tell what is wrong only where each document has a row.
    pub fn goes_on_if_purged(self) -> bool {
        let goes_on = match self.on_purged {
            OnPurged::Verify | OnPurged::Snapshot => true,
            OnPurged::Fail => false,
        };
        goes_on && !self.keeps_documents()
    }

    /// Documents without rows are wanted, so nothing may be deleted for having none.
    pub fn keeps_documents(self) -> bool {
        self.on_truncate == OnGone::Ignore || self.on_drop == OnGone::Ignore
    }
}
