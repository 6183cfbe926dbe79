//! Single documents and bulks of them: what is asked for, the pipeline that they run through, what became of them. Knows no
//! searches.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::request::Request;
use super::{Reply, blocking, bulk, error, find, pipelines};
use crate::index::{Answer, Expect, Fault, Indexes, SourceFilter, What, Write, Written};
use crate::link::Control;

const WRITING: [&str; 8] = [
    "refresh",
    "timeout",
    "wait_for_active_shards",
    "require_alias",
    "op_type",
    "version",
    "version_type",
    "pipeline",
];

/// One change that was asked for, on its way.
pub(super) struct Item {
    pub action: &'static str,
    pub index: String,
    pub id: String,
    /// None from when it is handed over.
    pub what: Option<What>,
    pub expect: Expect,
    /// None where the index's own is to run, `_none` for none.
    pub pipeline: Option<String>,
    pub done: Option<Result<Written, Fault>>,
}

impl Item {
    /// The whole document that it writes, or would write where there is none: what a pipeline works on.
    pub fn whole(&self) -> Option<&[u8]> {
        match self.what.as_ref()? {
            What::Put(source) => Some(source),
            What::Merge { otherwise, .. } => otherwise.as_deref(),
            What::Delete => None,
        }
    }

    pub fn set_whole(&mut self, document: Vec<u8>) {
        match &mut self.what {
            Some(What::Put(source)) => *source = document,
            Some(What::Merge { part, otherwise: Some(otherwise) }) => {
                // With `doc_as_upsert` both are one document, and stay it.
                if part == otherwise {
                    part.clone_from(&document);
                }
                *otherwise = document;
            }
            _ => {}
        }
    }
}

pub async fn put(
    control: &Control,
    indexes: &Indexes,
    request: &Request<'_>,
    index: &str,
    id: Option<&str>,
    only_new: bool,
) -> Answer<Reply> {
    request.only(&WRITING)?;
    find(indexes, index)?;
    let action = match request.parameter("op_type") {
        Some("create") => "create",
        None | Some("index") if only_new => "create",
        None | Some("index") => "index",
        Some(_) => return Err(Fault::request("opType must be 'create' or 'index'")),
    };
    let version = request.parameter("version").map(Value::from);
    let item = Item {
        action,
        index: index.to_owned(),
        id: id.map_or_else(new_id, str::to_owned),
        what: Some(What::Put(request.body.to_vec())),
        expect: expect(action, version.as_ref(), request.parameter("version_type"))?,
        pipeline: request.parameter("pipeline").map(str::to_owned),
        done: None,
    };
    single(control, indexes, item).await
}

pub async fn update(
    control: &Control,
    indexes: &Indexes,
    request: &Request<'_>,
    index: &str,
    id: &str,
) -> Answer<Reply> {
    request.only(&[
        "refresh",
        "timeout",
        "wait_for_active_shards",
        "require_alias",
        "retry_on_conflict",
    ])?;
    find(indexes, index)?;
    let item = Item {
        action: "update",
        index: index.to_owned(),
        id: id.to_owned(),
        what: Some(bulk::merge(&request.body)?),
        expect: Expect::Anything,
        pipeline: None,
        done: None,
    };
    single(control, indexes, item).await
}

pub async fn delete(
    control: &Control,
    indexes: &Indexes,
    request: &Request<'_>,
    index: &str,
    id: &str,
) -> Answer<Reply> {
    request.only(&["refresh", "timeout", "wait_for_active_shards", "version", "version_type"])?;
    find(indexes, index)?;
    let version = request.parameter("version").map(Value::from);
    let item = Item {
        action: "delete",
        index: index.to_owned(),
        id: id.to_owned(),
        what: Some(What::Delete),
        expect: expect("delete", version.as_ref(), request.parameter("version_type"))?,
        pipeline: None,
        done: None,
    };
    single(control, indexes, item).await
}

pub async fn get(indexes: &Indexes, request: &Request<'_>, index: &str, id: &str) -> Answer<Reply> {
    request.only(&[
        "realtime",
        "refresh",
        "preference",
        "_source",
        "_source_includes",
        "_source_excludes",
    ])?;
    let mut filter = SourceFilter::default();
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    match request.parameter("_source") {
        None | Some("true") => {}
        Some("false") => filter.none = true,
        Some(names) => filter.includes = list(names),
    }
    if let Some(names) = request.parameter("_source_includes") {
        filter.includes = list(names);
    }
    if let Some(names) = request.parameter("_source_excludes") {
        filter.excludes = list(names);
    }
    let (found, wanted) = (find(indexes, index)?, id.to_owned());
    let Some((version, source)) = blocking(move || found.get(&wanted)).await? else {
        return Ok((404, json!({"_index": index, "_id": id, "found": false}).to_string()));
    };
    let source = filter.apply(&source)?;
    Ok((200, shown(index, id, version, source.as_deref())))
}

fn shown(index: &str, id: &str, version: u64, source: Option<&RawValue>) -> String {
    let head = json!({"_index": index, "_id": id, "_version": version, "found": true}).to_string();
    match source {
        None => head,
        // The source goes out byte for byte.
        Some(source) => format!("{},\"_source\":{}}}", head.trim_end_matches('}'), source.get()),
    }
}

pub async fn bulk(
    control: &Control,
    indexes: &Indexes,
    request: &Request<'_>,
    index: Option<&str>,
) -> Answer<Reply> {
    request.only(&["refresh", "timeout", "wait_for_active_shards", "require_alias", "pipeline"])?;
    let started = Instant::now();
    let (body, index) = (request.body.clone(), index.map(str::to_owned));
    let pipeline = request.parameter("pipeline").map(str::to_owned);
    let read = move || bulk::parse(&body, index.as_deref(), pipeline.as_deref());
    let mut items = blocking(read).await?;
    pipelines::run(control, indexes, &mut items).await;
    write_all(indexes, &mut items).await;
    let shown: Vec<Value> = items
        .iter()
        .map(|item| {
            let (status, mut body) = told(item);
            body["status"] = json!(status);
            json!({item.action: body})
        })
        .collect();
    // Deleting what is not there is no error.
    let errors =
        items.iter().any(|item| !matches!(&item.done, Some(Ok(written)) if is_written(written)));
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok((200, json!({"took": took, "errors": errors, "items": shown}).to_string()))
}

async fn single(control: &Control, indexes: &Indexes, item: Item) -> Answer<Reply> {
    let mut items = [item];
    pipelines::run(control, indexes, &mut items).await;
    write_all(indexes, &mut items).await;
    alone(&items[0])
}

/// The answer to a request for one document.
fn alone(item: &Item) -> Answer<Reply> {
    match &item.done {
        Some(Ok(Written::Refused(fault) | Written::Conflict { fault, .. })) | Some(Err(fault)) => {
            Err(fault.clone())
        }
        _ => {
            let (status, body) = told(item);
            Ok((status, body.to_string()))
        }
    }
}

fn told(item: &Item) -> (u16, Value) {
    let mut body = json!({"_index": item.index, "_id": item.id});
    let mut written = |version: u64, result: &str| {
        body["_version"] = json!(version);
        body["result"] = json!(result);
        body["_shards"] = json!({"total": 1, "successful": 1, "failed": 0});
        // Clients insist on both. These are what a search node says of a change that was given none.
        body["_seq_no"] = json!(-2);
        body["_primary_term"] = json!(0);
    };
    let (status, fault) = match &item.done {
        Some(Ok(Written::Created(version))) => (written(*version, "created"), (201, None)).1,
        Some(Ok(Written::Updated(version))) => (written(*version, "updated"), (200, None)).1,
        Some(Ok(Written::Deleted(version))) => (written(*version, "deleted"), (200, None)).1,
        Some(Ok(Written::NotFound(version))) => (written(*version, "not_found"), (404, None)).1,
        Some(Ok(Written::Refused(fault) | Written::Conflict { fault, .. })) | Some(Err(fault)) => {
            (fault.status, Some(error(fault)))
        }
        None => (500, Some(error(&Fault::new(500, "exception", "it was left out")))),
    };
    if let Some(fault) = fault {
        body["error"] = fault;
    }
    (status, body)
}

fn is_written(written: &Written) -> bool {
    !matches!(written, Written::Refused(_) | Written::Conflict { .. })
}

/// One write for each index; those of several indexes one after the other.
async fn write_all(indexes: &Indexes, items: &mut [Item]) {
    let mut by_index: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate().filter(|(_, item)| item.done.is_none()) {
        by_index.entry(item.index.clone()).or_default().push(at);
    }
    for (name, places) in by_index {
        let results = match find(indexes, &name) {
            Err(fault) => vec![Err(fault); places.len()],
            Ok(index) => {
                let write = |at: &usize| {
                    let Item { id, what, expect, .. } = &mut items[*at];
                    let what = what.take().unwrap_or(What::Delete);
                    Write { id: id.clone(), what, expect: *expect }
                };
                match index.write(places.iter().map(write).collect()).await {
                    Ok(written) => written.into_iter().map(Ok).collect(),
                    Err(error) => {
                        // Deleted while they waited.
                        let gone = find(indexes, &name).err();
                        vec![Err(gone.unwrap_or_else(|| Fault::from(error))); places.len()]
                    }
                }
            }
        };
        for (at, result) in places.into_iter().zip(results) {
            items[at].done = Some(result);
        }
    }
}

/// What must be true of the document, from `op_type`, `version` and `version_type`.
pub(super) fn expect(
    action: &str,
    version: Option<&Value>,
    version_type: Option<&str>,
) -> Answer<Expect> {
    let number = |version: &Value| {
        let number = match version {
            Value::String(text) => text.parse::<i64>().ok(),
            other => other.as_i64(),
        };
        number
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| Fault::request("a version is a number from 0 to 9223372036854775807"))
    };
    match (version, version_type, action) {
        (None, None | Some("internal"), "create") => Ok(Expect::Absent),
        (None, None | Some("internal"), _) => Ok(Expect::Anything),
        (Some(version), Some("external" | "external_gt"), "index" | "delete") => {
            Ok(Expect::Below(number(version)?))
        }
        (Some(version), Some("external_gte"), "index" | "delete") => {
            Ok(Expect::NotAbove(number(version)?))
        }
        (Some(_), None | Some("internal"), _) => Err(Fault::request(
            "internal versioning can not be used for optimistic concurrency control; the embedded index takes versions of the types external and external_gte",
        )),
        _ => Err(Fault::request(format!(
            "version and version_type do not fit together, or not with [{action}]"
        ))),
    }
}

pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_shown_byte_for_byte() {
        let source = RawValue::from_string("{\"n\": 1.50}".into()).expect("JSON");
        let text = shown("a", "}", 7, Some(&source));
        assert_eq!(
            text,
            "{\"_index\":\"a\",\"_id\":\"}\",\"_version\":7,\"found\":true,\"_source\":{\"n\": 1.50}}"
        );
    }
}
