//! The requests of ml-commons and of ingest pipelines, answered in their JSON: who asks for what, and who answers. Knows
//! no socket; whoever listens hands over method, path, query and body.

mod connectors;
pub(super) mod fault;
mod ingest;
mod models;
mod predict;
mod settings;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use serde_json::{Map, Value};

use super::Pipeline;
use crate::{
    connector::{Catalog, Config, Models, Settings},
    error::Result,
};
use fault::Fault;

/// Status and JSON of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }

    fn acknowledged() -> Self {
        Self::ok(serde_json::json!({"acknowledged": true}))
    }
}

/// All definitions, and the door to change them. Clones share everything.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    models: Arc<Models>,
    pipelines: RwLock<HashMap<String, Arc<Pipeline>>>,
    settings: Mutex<Settings>,
    /// The last tasks, for those who ask how a registration went; gone after a restart.
    tasks: Mutex<VecDeque<(String, Value)>>,
    /// Changes of definitions come one after the other, so that each sees what the one before left.
    changes: tokio::sync::Mutex<()>,
}

/// One request, taken apart.
struct Request<'a> {
    query: Vec<(String, String)>,
    body: &'a [u8],
}

impl Request<'_> {
    fn flag(&self, name: &str) -> bool {
        self.query.iter().any(|(key, value)| key == name && (value.is_empty() || value == "true"))
    }

    /// The body as an object; `empty` is the fault of a request without one.
    fn object(&self, empty: Fault) -> std::result::Result<Map<String, Value>, Fault> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Err(empty);
        }
        match serde_json::from_slice(self.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Fault::parse("the request's body must be a JSON object")),
            Err(error) => Err(Fault::json(&error)),
        }
    }
}

type Handled = std::result::Result<Answer, Fault>;

impl Api {
    /// Opens the catalog in `state` and makes its pipelines ready.
    pub fn new(state: impl Into<Catalog>, config: Config) -> Result<Self> {
        let catalog = state.into();
        let settings = Settings::load(&catalog)?;
        let models = Arc::new(Models::open(catalog, config, &settings)?);
        let pipelines = ingest::load(&models)?;
        let inner = Inner {
            models,
            pipelines: RwLock::new(pipelines),
            settings: Mutex::new(settings),
            tasks: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The pipeline as it is defined now; a later definition is seen by the next call.
    pub fn pipeline(&self, name: &str) -> Option<Arc<Pipeline>> {
        self.inner.pipelines.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Answers one request. `path` may begin with a slash or not.
    pub async fn handle(&self, method: &str, path: &str, query: &str, body: &[u8]) -> Answer {
        let segments: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let uri = format!("/{}", path.trim_start_matches('/'));
        match methods(&segments) {
            [] => fault::no_handler(method, &uri),
            allowed if !allowed.contains(&method) => fault::wrong_method(method, &uri, allowed),
            _ => match self.route(method, &segments, &Request { query, body }).await {
                Ok(answer) => answer,
                Err(fault) => fault.answer(),
            },
        }
    }

    async fn route(&self, method: &str, segments: &[&str], request: &Request<'_>) -> Handled {
        match (method, segments) {
            ("GET", ["_cluster", "settings"]) => self.get_settings(request),
            (_, ["_cluster", "settings"]) => self.put_settings(request).await,
            (_, ["_plugins", "_ml", "model_groups", "_register"]) => {
                self.register_group(request).await
            }
            (_, ["_plugins", "_ml", "model_groups", id]) => self.get_group(id),
            (_, ["_plugins", "_ml", "connectors", "_create"]) => {
                self.create_connector(request).await
            }
            ("GET", ["_plugins", "_ml", "connectors", id]) => self.get_connector(id),
            ("PUT", ["_plugins", "_ml", "connectors", id]) => {
                self.update_connector(id, request).await
            }
            (_, ["_plugins", "_ml", "connectors", id]) => self.delete_connector(id).await,
            (_, ["_plugins", "_ml", "models", "_register"]) => self.register_model(request).await,
            ("GET", ["_plugins", "_ml", "models", id]) => self.get_model(id),
            (_, ["_plugins", "_ml", "models", id]) => self.delete_model(id).await,
            (_, ["_plugins", "_ml", "models", id, "_deploy"]) => self.deploy(id).await,
            (_, ["_plugins", "_ml", "models", id, "_undeploy"]) => self.undeploy(id).await,
            (_, ["_plugins", "_ml", "models", id, "_predict"]) => {
                self.predict(id, request, false).await
            }
            // The last form, with `_predict` twice, is the one of PolarDB's tutorial.
            (_, ["_plugins", "_ml", "_predict", "text_embedding", id, ..]) => {
                self.predict(id, request, true).await
            }
            (_, ["_plugins", "_ml", "tasks", id]) => self.get_task(id),
            ("GET", ["_ingest", "pipeline"]) => self.get_pipelines("*"),
            ("GET", ["_ingest", "pipeline", names]) => self.get_pipelines(names),
            ("PUT", ["_ingest", "pipeline", name]) => self.put_pipeline(name, request).await,
            (_, ["_ingest", "pipeline", names]) => self.delete_pipelines(names).await,
            _ => Err(Fault::new(500, "exception", "a route without an answer")),
        }
    }
}

/// The methods that a path takes; none for a path that is not ours.
fn methods(segments: &[&str]) -> &'static [&'static str] {
    match segments {
        ["_cluster", "settings"] => &["GET", "PUT"],
        ["_plugins", "_ml", "connectors", "_create"]
        | ["_plugins", "_ml", "models" | "model_groups", "_register"]
        | ["_plugins", "_ml", "models", _, "_deploy" | "_undeploy" | "_predict"]
        | ["_plugins", "_ml", "_predict", "text_embedding", _]
        | ["_plugins", "_ml", "_predict", "text_embedding", _, "_predict"] => &["POST"],
        ["_plugins", "_ml", "connectors", _] => &["GET", "PUT", "DELETE"],
        ["_plugins", "_ml", "models", _] => &["GET", "DELETE"],
        ["_plugins", "_ml", "model_groups" | "tasks", _] | ["_ingest", "pipeline"] => &["GET"],
        ["_ingest", "pipeline", _] => &["GET", "PUT", "DELETE"],
        _ => &[],
    }
}

/// A path's segment with its `%xx` read.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
