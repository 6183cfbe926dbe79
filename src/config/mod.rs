//! The TOML file: every stage's own `Config` put together, read, checked, and explained when it is wrong. Must not know
//! what a stage does with its values.
//!
//! [`load`] reads the file; `value` hands TOML to the stages' `Deserialize` with the place of every key; `text` reads
//! strings and puts the environment into them; `check` says which values cannot be meant; `links` turns `[[links]]` into
//! what the SQL door would have made of it; [`Problems`] shows all that is wrong at once.

mod check;
mod links;
mod load;
mod problem;
mod text;
mod value;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use load::{Loaded, door, load};
pub use problem::Problems;

use crate::admin::http;
use crate::source::snapshot;
use crate::telemetry::log;
use crate::{link, pipeline, sink, source};

/// Where the state lies when nobody says otherwise and this account may write there.
const STATE_DIR: &str = "/var/lib/driftless";
/// Where it lies else.
const STATE_DIR_OF_USER: &str = "./driftless-state";

/// The whole file. `config/driftless.toml` explains each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub state_dir: Option<PathBuf>,
    /// What all queues of all links together may hold.
    pub memory_limit_bytes: usize,
    pub http: http::Config,
    pub log: log::Config,
    pub secrets: Secrets,
    pub source: source::Config,
    pub snapshot: snapshot::Config,
    pub pipeline: pipeline::Config,
    pub sink: sink::Config,
    pub link: link::Config,
    pub standby: link::standby::Config,
    links: Vec<links::Entry>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: None,
            memory_limit_bytes: 512 << 20,
            http: http::Config::default(),
            log: log::Config::default(),
            secrets: Secrets::default(),
            source: source::Config::default(),
            snapshot: snapshot::Config::default(),
            pipeline: pipeline::Config::default(),
            sink: sink::Config::default(),
            link: link::Config::default(),
            standby: link::standby::Config::default(),
            links: Vec::new(),
        }
    }
}

/// What seals credentials at rest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    pub key_file: Option<PathBuf>,
}

impl Config {
    /// The directory of the state: as configured, else `/var/lib/driftless` if this account may write there, else
    /// `./driftless-state`. Makes nothing.
    pub fn state_dir(&self) -> PathBuf {
        match &self.state_dir {
            Some(dir) => dir.clone(),
            None if is_writable(Path::new(STATE_DIR)) => STATE_DIR.into(),
            None => STATE_DIR_OF_USER.into(),
        }
    }
}

/// Whether files can be made in `dir`, or `dir` can be made. Only trying tells: modes say nothing of read-only mounts.
fn is_writable(dir: &Path) -> bool {
    let Some(existing) = dir.ancestors().find(|dir| dir.is_dir()) else { return false };
    let probe = existing.join(format!(".driftless-{}", uuid::Uuid::new_v4()));
    let made = fs::File::create_new(&probe).is_ok();
    made && fs::remove_file(&probe).is_ok()
}
