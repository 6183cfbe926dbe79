//! How an embedding endpoint is called: connectors (a request template with its credentials) and models (a named use of
//! a connector), as ml-commons defines them. Knows no document and no pipeline.
//!
//! Read in this order: `definition` turns the JSON of a connector into a [`Connector`]; `template` and `presets` are
//! its language; `call` sends one request; `models` joins a stored model with its connector, its limits and the cache
//! of vectors; `hashing` is the one model that needs neither connector nor endpoint; `catalog` keeps the definitions, `settings` says whom we may call.

mod cache;
mod call;
mod catalog;
mod definition;
mod hashing;
mod limits;
mod models;
mod presets;
mod settings;
mod template;

use serde::Deserialize;

pub use self::{
    cache::Vector,
    call::{Class, Failure},
    catalog::{Catalog, Kind, new_id, now_ms},
    definition::{Connector, split_credential},
    hashing::Hashing,
    models::{Model, Models, Prediction},
    settings::{PRIVATE_IP, Scope, Settings, TRUSTED_ENDPOINTS, WITHOUT_EFFECT},
    template::{Parameters, Secrets},
};

/// How embedding endpoints are called, where a connector does not say otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Memory for vectors of texts that were asked for before; 0 switches the cache off.
    pub cache_bytes: usize,
    /// Texts in one request; a connector's `input_docs_processed_step_size` and a processor's `batch_size` win.
    pub batch_texts: usize,
    /// Requests of one model that may be under way at once.
    pub concurrency: usize,
    pub connect_timeout_ms: u64,
    /// Longest time from request to whole answer; a connector's `client_config.read_timeout` (seconds) wins.
    pub timeout_ms: u64,
    /// The first wait after a failure lies between 0 and this; each next one between 0 and twice as much.
    pub retry_wait_ms: u64,
    pub retry_wait_max_ms: u64,
    /// Whom connectors may call as long as no `_cluster/settings` request has said so.
    pub trusted_endpoints: Vec<String>,
    /// Whether connectors may call private addresses as long as no `_cluster/settings` request has said so.
    pub private_ip_enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            batch_texts: 32,
            concurrency: 4,
            connect_timeout_ms: 5_000,
            timeout_ms: 30_000,
            retry_wait_ms: 200,
            retry_wait_max_ms: 30_000,
            trusted_endpoints: [
                r"^https://api\.openai\.com/.*$",
                r"^https://api\.cohere\.(ai|com)/.*$",
            ]
            .map(str::to_owned)
            .to_vec(),
            private_ip_enabled: false,
        }
    }
}
