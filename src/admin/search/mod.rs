//! The part of a search node's REST API that the embedded index answers at the HTTP door: indexes, documents, bulks,
//! searches. What is not there is 400 with a sentence. Only where the sink is the embedded one; knows no sockets.
//!
//! [`request`] takes a request apart and says which parameters it may have; [`documents`] writes and reads documents,
//! [`bulk`] reads the lines of many, [`pipelines`] runs the index's pipeline on them; [`indexes`] is everything about whole
//! indexes, and searches; [`room`] bounds what is under way at once.

mod bulk;
mod documents;
mod indexes;
mod pipelines;
mod request;
mod room;

use axum::http::{Method, Uri};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::index::{Answer, Fault, Indexes};
use crate::link::Control;
use request::Request;
pub use room::{Room, room_for_body};

/// No bulk is longer; a search node's own limit.
pub const BODY_BYTES_MAX: usize = 100 << 20;

/// Whose place we take: clients look at the version before they ask anything.
const VERSION: &str = "2.19.1";

/// Status and JSON.
pub type Reply = (u16, String);

/// What a search node says of itself.
pub fn about() -> Value {
    json!({
        "name": "driftless",
        "cluster_name": "driftless",
        "cluster_uuid": "_na_",
        "version": {
            "distribution": "opensearch",
            "number": VERSION,
            "build_type": format!("driftless {}", env!("CARGO_PKG_VERSION")),
            "build_hash": "unknown",
            "build_date": "unknown",
            "build_snapshot": false,
            "lucene_version": "none",
            "minimum_wire_compatibility_version": VERSION,
            "minimum_index_compatibility_version": VERSION,
        },
        "tagline": "an index that never drifts from its source",
    })
}

/// Answers one request.
pub async fn handle(
    control: &Control,
    indexes: &Indexes,
    method: &Method,
    uri: &Uri,
    body: Bytes,
) -> Reply {
    let request = Request::new(method.as_str(), uri, body);
    match route(control, indexes, &request).await {
        Ok(reply) => reply,
        Err(fault) => refusal(&fault),
    }
}

async fn route(control: &Control, indexes: &Indexes, request: &Request<'_>) -> Answer<Reply> {
    let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    match (request.method, segments.as_slice()) {
        ("PUT" | "POST", ["_bulk"]) => documents::bulk(control, indexes, request, None).await,
        ("PUT" | "POST", [index, "_bulk"]) => {
            documents::bulk(control, indexes, request, Some(index)).await
        }
        ("POST", [index, "_doc"]) => {
            documents::put(control, indexes, request, index, None, false).await
        }
        ("PUT" | "POST", [index, "_doc", id]) => {
            documents::put(control, indexes, request, index, Some(id), false).await
        }
        ("PUT" | "POST", [index, "_create", id]) => {
            documents::put(control, indexes, request, index, Some(id), true).await
        }
        ("POST", [index, "_update", id]) => {
            documents::update(control, indexes, request, index, id).await
        }
        ("DELETE", [index, "_doc", id]) => {
            documents::delete(control, indexes, request, index, id).await
        }
        ("GET" | "HEAD", [index, "_doc", id]) => documents::get(indexes, request, index, id).await,
        ("GET" | "POST", [index, "_search"]) => indexes::search(indexes, request, index).await,
        ("GET" | "POST", [index, "_count"]) => indexes::count(indexes, request, index).await,
        ("GET" | "POST", ["_refresh"]) => indexes::refresh(indexes, request, None),
        ("GET" | "POST", [index, "_refresh"]) => indexes::refresh(indexes, request, Some(index)),
        ("GET", ["_mapping"]) => indexes::mappings(indexes, request, None),
        ("GET", [index, "_mapping"]) => indexes::mappings(indexes, request, Some(index)),
        ("PUT" | "POST", [index, "_mapping"]) => {
            indexes::put_mapping(indexes, request, index).await
        }
        ("GET", [index, "_settings"]) => indexes::settings(indexes, request, index),
        ("GET", ["_cat", "indices"]) => indexes::cat(indexes, request, None).await,
        ("GET", ["_cat", "indices", index]) => indexes::cat(indexes, request, Some(index)).await,
        ("GET", ["_cluster", "health"]) => indexes::health(indexes, request, None),
        ("GET", ["_cluster", "health", index]) => indexes::health(indexes, request, Some(index)),
        (method, [index]) if !index.starts_with('_') => match method {
            "PUT" => indexes::create(indexes, request, index).await,
            "DELETE" => indexes::delete(indexes, request, index).await,
            "GET" | "HEAD" => indexes::get(indexes, request, index),
            _ => Err(not_here(request)),
        },
        _ => Err(not_here(request)),
    }
}

fn not_here(request: &Request<'_>) -> Fault {
    Fault::request(format!(
        "{} {} is not answered by the embedded index; it answers index, _mapping, _settings, _bulk, _doc, _create, _update, _search, _count, _refresh, _cat/indices and _cluster/health",
        request.method, request.path
    ))
}

pub fn refusal(fault: &Fault) -> Reply {
    let error = error(fault);
    let body = json!({
        "error": {"root_cause": [error], "type": fault.kind, "reason": fault.reason},
        "status": fault.status,
    });
    (fault.status, body.to_string())
}

fn error(fault: &Fault) -> Value {
    json!({"type": fault.kind, "reason": fault.reason})
}

/// A task that blocks, on a thread where that does no harm.
async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let broke = |_| Fault::new(500, "exception", "the request broke off");
    tokio::task::spawn_blocking(task).await.map_err(broke)?
}

fn find(indexes: &Indexes, name: &str) -> Answer<std::sync::Arc<crate::index::Index>> {
    if name == "_all" || name.contains(['*', ',']) {
        return Err(Fault::request(format!(
            "[{name}] can mean several indexes: the embedded index answers for one at a time"
        )));
    }
    indexes.get(name).ok_or_else(|| match indexes.why_broken(name) {
        None => Fault::no_such_index(name),
        Some(reason) => Fault::new(
            503,
            "no_shard_available_action_exception",
            format!("the index [{name}] cannot be opened: {reason}"),
        ),
    })
}
