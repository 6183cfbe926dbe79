//! Sync links: the only place that knows all stages, and only wires them.
//!
//! A link's way of a row: the source's tailer hands rows events over a queue to the link's [`worker`], which decodes
//! them and maps them to document operations; an operation goes to the lane of its `_id`; a [`lane`] task takes a batch,
//! lets the pipeline embed it and the sink write it; and what all lanes have acknowledged becomes the link's checkpoint.
//! The [`supervisor`] owns the source's tailer and the links' workers and decides what follows when one ends. [`verify`]
//! compares table and index beside a running worker, and [`rebuild`]
//! makes an index anew.

mod alone;
mod altering;
mod beginning;
mod cascades;
mod check;
mod consequence;
mod control;
mod copy;
mod copying;
mod definition;
mod end;
mod inquiry;
mod kept;
mod lane;
mod lanes;
mod lease;
mod left_out;
mod letters;
mod mending;
mod ordered;
mod parked;
mod pipeline_mode;
mod policy;
mod purging;
mod prepared;
mod rebuild;
mod refused;
pub mod standby;
mod start;
mod status;
mod supervisor;
mod upstream;
mod verify;
mod watchdog;
mod worker;

use std::time::Duration;

use serde::Deserialize;

pub use check::{Found, check};
pub use control::Control;
pub use letters::Retried;
pub use pipeline_mode::{PipelineMode, nobody_to_delegate_to};
pub use policy::{AddColumns, OnGone, OnPurged, Overrides, Policy};
pub use rebuild::{Begun, NewRules, Rebuild, Wanted};
pub use status::{Progress, State, Status, Verification};
pub use supervisor::{Parts, Supervisor};
pub use verify::{Counts, Difference, Order, Verdict};

use crate::error::Span;
use crate::mapping;
pub use crate::source::beginning::Beginning;
pub use crate::source::preflight::{Finding, Level};
use crate::table::TableId;

/// How a link runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often a checkpoint is written, in milliseconds.
    pub checkpoint_interval_ms: u64,
    /// How long a stopping link may take to have its last writes acknowledged, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Who runs an index's default pipeline, for links that do not say it themselves.
    pub pipeline_mode: PipelineMode,
    /// The forms of values, for links that say nothing else when they are made.
    pub types: mapping::Forms,
    /// What TRUNCATE of a table, or of a partition, does to the documents.
    pub on_truncate: OnGone,
    /// What DROP does to them.
    pub on_drop: OnGone,
    /// Whether a column that is added to a table becomes a field of the links that have all its columns.
    pub add_columns: AddColumns,
    /// What a link does whose place in the log is gone.
    pub on_purged: OnPurged,
    /// A link verifies itself so long after it was verified last; 0: never.
    pub verify_every_secs: u64,
    /// Whether it then mends what differs.
    pub verify_repair: bool,
    /// A stage that stands still for so long although it has something to do is begun again; 0: never.
    pub watchdog_secs: u64,
    /// A document that cannot be written for so long while others can is parked; 0: never.
    pub park_after_secs: u64,
    /// How long the old index of a link is kept when its name has moved to another one, in seconds.
    pub rebuild_keep_old_secs: u64,
    /// How much may be refused.
    pub error_limit: ErrorLimit,
}

/// How much may be refused before a link fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorLimit {
    /// Dead letters that a link may have; 0: the first refused document stops it.
    pub records: usize,
}

impl Default for ErrorLimit {
    fn default() -> Self {
        Self { records: 100 }
    }
}

impl Config {
    fn watchdog(&self) -> Option<Duration> {
        (self.watchdog_secs > 0).then(|| Duration::from_secs(self.watchdog_secs))
    }

    /// The policy of links that say nothing of their own.
    pub fn policy(&self) -> Policy {
        Policy {
            on_truncate: self.on_truncate,
            on_drop: self.on_drop,
            add_columns: self.add_columns,
            on_purged: self.on_purged,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            checkpoint_interval_ms: 1_000,
            stop_timeout_ms: 8_000,
            pipeline_mode: PipelineMode::Auto,
            types: mapping::Forms::default(),
            on_truncate: OnGone::Delete,
            on_drop: OnGone::Fail,
            add_columns: AddColumns::Ignore,
            on_purged: OnPurged::Verify,
            verify_every_secs: 0,
            verify_repair: false,
            watchdog_secs: 60,
            park_after_secs: 600,
            rebuild_keep_old_secs: 86_400,
            error_limit: ErrorLimit::default(),
        }
    }
}

/// Who made a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Sql,
    Config,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Config => "config",
        }
    }
}

/// A link as somebody asks for it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `None`: the index's name.
    pub id: Option<String>,
    pub origin: Origin,
    /// The text that the spans point into; kept to be shown.
    pub statement: String,
    pub rules: Rules,
    /// `None`: as `link.pipeline_mode` says.
    pub pipeline_mode: Option<PipelineMode>,
    /// The forms of values in which the link differs from [`Config::types`].
    pub types: mapping::Overrides,
    /// What the link says of itself.
    pub overrides: Overrides,
    pub from: Beginning,
    /// Where it stands in the configuration file, from 1 on; None for a statement.
    pub line: Option<usize>,
}

#[derive(Debug, Clone)]
pub enum Rules {
    Map(mapping::Spec),
    /// A whole table, or the named columns of it; the primary key becomes the `_id`.
    Table {
        table: TableId,
        table_span: Span,
        index: String,
        columns: Option<Vec<(String, Span)>>,
        columns_span: Span,
    },
}

impl Rules {
    pub fn index(&self) -> &str {
        match self {
            Self::Map(spec) => &spec.index,
            Self::Table { index, .. } => index,
        }
    }

    pub fn table(&self) -> Option<&TableId> {
        match self {
            Self::Map(spec) => spec.rules.first().map(|rule| &rule.table),
            Self::Table { table, .. } => Some(table),
        }
    }
}
