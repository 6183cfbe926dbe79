//! Whole indexes: made, looked at, deleted; and what is searched for in them. Knows no single documents.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::Request;
use super::room::room_for_search;
use super::{Reply, blocking, find};
use crate::index::{Answer, Description, Fault, Found, Hit, Index, Indexes, Search};

const WAITING: [&str; 4] =
    ["timeout", "master_timeout", "cluster_manager_timeout", "wait_for_active_shards"];

pub async fn create(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Reply> {
    request.only(&WAITING)?;
    let (body, all, index) = (request.json()?, indexes.clone(), name.to_owned());
    blocking(move || all.create(&index, &body).map(|_| ())).await?;
    ok(json!({"acknowledged": true, "shards_acknowledged": true, "index": name}))
}

pub async fn delete(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Reply> {
    request.only(&[&WAITING[..], &["ignore_unavailable"]].concat())?;
    // One that cannot be opened can be deleted.
    if indexes.why_broken(name).is_none() && found(indexes, request, name)?.is_none() {
        return ok(json!({"acknowledged": true}));
    }
    let (all, index) = (indexes.clone(), name.to_owned());
    blocking(move || all.delete(&index)).await?;
    ok(json!({"acknowledged": true}))
}

pub fn get(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Reply> {
    request.only(&["flat_settings", "include_defaults", "local", "master_timeout"])?;
    let description = find(indexes, name)?.description();
    ok(json!({name: {
        "aliases": {},
        "mappings": description.mappings,
        "settings": shown(&description, request.flag("flat_settings")),
    }}))
}

pub fn settings(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Reply> {
    request.only(&["flat_settings", "include_defaults", "local", "master_timeout"])?;
    let description = find(indexes, name)?.description();
    ok(json!({name: {"settings": shown(&description, request.flag("flat_settings"))}}))
}

fn shown(description: &Description, flat: bool) -> Value {
    let mut settings = description.settings.clone();
    // One shard, whatever was asked for: it says what there is.
    for (name, value) in [
        ("index.number_of_shards", "1".to_owned()),
        ("index.number_of_replicas", "0".to_owned()),
        ("index.uuid", description.uuid.clone()),
        ("index.provided_name", description.name.clone()),
        ("index.creation_date", description.created_at_ms.to_string()),
    ] {
        settings.insert(name.to_owned(), Value::String(value));
    }
    if flat {
        return Value::Object(settings);
    }
    let inside: Map<String, Value> = settings
        .into_iter()
        .map(|(name, value)| (name.trim_start_matches("index.").to_owned(), value))
        .collect();
    json!({ "index": inside })
}

pub fn mappings(indexes: &Indexes, request: &Request<'_>, name: Option<&str>) -> Answer<Reply> {
    request.only(&["local", "master_timeout"])?;
    let all = match name {
        Some(name) => vec![find(indexes, name)?],
        None => indexes.list(),
    };
    let shown: Map<String, Value> = all
        .iter()
        .map(|index| (index.name(), json!({"mappings": index.description().mappings})))
        .collect();
    ok(Value::Object(shown))
}

pub async fn put_mapping(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Reply> {
    request.only(&WAITING)?;
    find(indexes, name)?.map(request.json()?).await?;
    ok(json!({"acknowledged": true}))
}

/// Everything that was acknowledged is visible already.
pub fn refresh(indexes: &Indexes, request: &Request<'_>, name: Option<&str>) -> Answer<Reply> {
    request.only(&["ignore_unavailable", "allow_no_indices", "expand_wildcards"])?;
    let count = match name {
        Some(name) => found(indexes, request, name)?.map_or(0, |_| 1),
        None => indexes.list().len(),
    };
    ok(json!({"_shards": {"total": count, "successful": count, "failed": 0}}))
}

pub async fn cat(indexes: &Indexes, request: &Request<'_>, name: Option<&str>) -> Answer<Reply> {
    request.only(&["format", "bytes", "local", "master_timeout"])?;
    if request.parameter("format") != Some("json")
        || !matches!(request.parameter("bytes"), None | Some("b"))
    {
        return Err(Fault::request(
            "the embedded index gives _cat/indices as format=json, in bytes",
        ));
    }
    let all = match name {
        Some(name) => vec![find(indexes, name)?],
        None => indexes.list(),
    };
    let rows = blocking(move || {
        let row = |index: &Arc<Index>| {
            let (documents, deleted, bytes) = index.size()?;
            Ok(json!({
                "health": "green", "status": "open", "index": index.name(),
                "uuid": index.description().uuid, "pri": "1", "rep": "0",
                "docs.count": documents.to_string(), "docs.deleted": deleted.to_string(),
                "store.size": format!("{bytes}b"), "pri.store.size": format!("{bytes}b"),
            }))
        };
        all.iter().map(row).collect::<Answer<Vec<Value>>>()
    });
    let mut rows = rows.await?;
    if name.is_none() {
        rows.extend(indexes.broken().into_iter().map(|name| {
            json!({"health": "red", "status": "open", "index": name, "pri": "1", "rep": "0"})
        }));
    }
    ok(Value::Array(rows))
}

pub fn health(indexes: &Indexes, request: &Request<'_>, name: Option<&str>) -> Answer<Reply> {
    let known =
        ["wait_for_status", "wait_for_no_relocating_shards", "wait_for_nodes", "level", "local"];
    request.only(&[&WAITING[..], &known].concat())?;
    let count = match name {
        Some(name) => find(indexes, name).map(|_| 1)?,
        None => indexes.list().len(),
    };
    let broken = if name.is_none() { indexes.broken().len() } else { 0 };
    let status = if broken > 0 { "red" } else { "green" };
    ok(json!({
        "cluster_name": "driftless", "status": status, "timed_out": false,
        "number_of_nodes": 1, "number_of_data_nodes": 1,
        "discovered_master": true, "discovered_cluster_manager": true,
        "active_primary_shards": count, "active_shards": count,
        "relocating_shards": 0, "initializing_shards": 0, "unassigned_shards": broken,
        "delayed_unassigned_shards": 0, "number_of_pending_tasks": 0, "number_of_in_flight_fetch": 0,
        "task_max_waiting_in_queue_millis": 0,
        "active_shards_percent_as_number": 100.0 * count as f64 / (count + broken).max(1) as f64,
    }))
}

pub async fn count(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Reply> {
    request.only(&["ignore_unavailable", "allow_no_indices", "expand_wildcards", "preference"])?;
    let index = found(indexes, request, name)?;
    let query = counted(request.json()?)?;
    let _room = room_for_search().await?;
    let count = match index {
        None => 0,
        Some(index) => blocking(move || index.count(&query)).await?,
    };
    ok(json!({"count": count, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0}}))
}

/// The query of a count's body; null where there is no body.
fn counted(body: Value) -> Answer<Value> {
    let mut body = match body {
        Value::Null => return Ok(Value::Null),
        Value::Object(body) => body,
        _ => return Err(Fault::parsing("the body of a count is not an object")),
    };
    if let Some(other) = body.keys().find(|key| *key != "query") {
        return Err(Fault::parsing(format!(
            "request does not support [{other}]: a count takes query"
        )));
    }
    match body.remove("query") {
        Some(Value::Null) => Err(Fault::parsing("Unknown key for a VALUE_NULL in [query].")),
        query => Ok(query.unwrap_or(Value::Null)),
    }
}

/// None for an index that is not there and need not be.
fn found(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Option<Arc<Index>>> {
    match find(indexes, name) {
        Err(fault) if fault.status == 404 && request.flag("ignore_unavailable") => Ok(None),
        other => other.map(Some),
    }
}

pub async fn search(indexes: &Indexes, request: &Request<'_>, name: &str) -> Answer<Reply> {
    let in_url = ["from", "size", "sort", "_source", "version"];
    let harmless = [
        "ignore_unavailable",
        "allow_no_indices",
        "expand_wildcards",
        "preference",
        "request_cache",
        "search_type",
        "typed_keys",
        "track_total_hits",
        "timeout",
        "ccs_minimize_roundtrips",
    ];
    request.only(&[&in_url[..], &harmless].concat())?;
    let started = Instant::now();
    let index = found(indexes, request, name)?;
    let mut search = Search::parse(&request.json()?)?;
    for key in in_url {
        if let Some(text) = request.parameter(key) {
            search.set(key, &parameter(key, text))?;
        }
    }
    let wants_version = search.version;
    let _room = room_for_search().await?;
    let found = match index {
        None => Found { total: 0, max_score: None, hits: Vec::new() },
        Some(index) => blocking(move || index.search(&search)).await?,
    };
    let hits = found.hits.iter().map(|hit| ShownHit::new(name, hit, wants_version)).collect();
    let answer = Shown {
        took: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        timed_out: false,
        shards: json!({"total": 1, "successful": 1, "skipped": 0, "failed": 0}),
        hits: ShownHits {
            total: json!({"value": found.total, "relation": "eq"}),
            max_score: found.max_score,
            hits,
        },
    };
    Ok((
        200,
        serde_json::to_string(&answer)
            .map_err(|_| Fault::new(500, "exception", "a hit is not JSON"))?,
    ))
}

/// A parameter of the URL as it would stand in the body.
fn parameter(key: &str, text: &str) -> Value {
    let list = |text: &str| Value::Array(text.split(',').map(Value::from).collect());
    match (key, text) {
        ("sort", text) => list(text),
        ("_source" | "version", "true" | "false") => Value::Bool(text == "true"),
        ("_source", text) => list(text),
        _ => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
    }
}

#[derive(Serialize)]
struct Shown<'f> {
    took: u64,
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Value,
    hits: ShownHits<'f>,
}

#[derive(Serialize)]
struct ShownHits<'f> {
    total: Value,
    max_score: Option<f32>,
    hits: Vec<ShownHit<'f>>,
}

#[derive(Serialize)]
struct ShownHit<'f> {
    #[serde(rename = "_index")]
    index: &'f str,
    #[serde(rename = "_id")]
    id: &'f str,
    #[serde(rename = "_version", skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(rename = "_score")]
    score: Option<f32>,
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<&'f RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<&'f [Value]>,
}

impl<'f> ShownHit<'f> {
    fn new(index: &'f str, hit: &'f Hit, wants_version: bool) -> Self {
        Self {
            index,
            id: &hit.id,
            version: wants_version.then_some(hit.version),
            score: hit.score,
            source: hit.source.as_deref(),
            sort: hit.sort.as_deref(),
        }
    }
}

fn ok(body: Value) -> Answer<Reply> {
    Ok((200, body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_count_does_not_know_is_refused() {
        for body in [json!([]), json!("x"), json!({"size": 1}), json!({"query": null})] {
            assert_eq!(counted(body.clone()).expect_err("refused").status, 400, "{body}");
        }
        assert_eq!(counted(Value::Null), Ok(Value::Null));
        assert_eq!(counted(json!({"query": {"match_all": {}}})), Ok(json!({"match_all": {}})));
    }
}
