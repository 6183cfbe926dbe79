//! Single documents and bulks of them: what is asked for, the pipeline that they run through, what became of them. Knows no
//! searches.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::Request;
use super::{Reply, blocking, error, find};
use crate::document::{Batch, IdHasher};
use crate::index::{
    Answer, Expect, Fault, Index, Indexes, Kind, SourceFilter, What, Write, Written,
};
use crate::link::Control;
use crate::position::Version;

/// How long a request waits for its vectors; then its client asks again.
const PIPELINE_MAX: Duration = Duration::from_secs(60);

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
struct Item {
    action: &'static str,
    index: String,
    write: Write,
    /// None where the index's own is to run, `_none` for none.
    pipeline: Option<String>,
    done: Option<Result<Written, Fault>>,
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
    let only_new = only_new || request.parameter("op_type") == Some("create");
    let action = if only_new { "create" } else { "index" };
    let version = request.parameter("version").map(Value::from);
    let write = Write {
        id: id.map_or_else(new_id, str::to_owned),
        what: What::Put(request.body.to_vec()),
        expect: expect(action, version.as_ref(), request.parameter("version_type"))?,
    };
    let pipeline = request.parameter("pipeline").map(str::to_owned);
    let item = Item { action, index: index.to_owned(), write, pipeline, done: None };
    single(control, indexes, item).await
}

pub async fn update(
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
    let write =
        Write { id: id.to_owned(), what: merge(request.json()?)?, expect: Expect::Anything };
    let mut items =
        [Item { action: "update", index: index.to_owned(), write, pipeline: None, done: None }];
    write_all(indexes, &mut items).await;
    alone(&items[0])
}

pub async fn delete(
    indexes: &Indexes,
    request: &Request<'_>,
    index: &str,
    id: &str,
) -> Answer<Reply> {
    request.only(&["refresh", "timeout", "wait_for_active_shards", "version", "version_type"])?;
    find(indexes, index)?;
    let version = request.parameter("version").map(Value::from);
    let expect = expect("delete", version.as_ref(), request.parameter("version_type"))?;
    let write = Write { id: id.to_owned(), what: What::Delete, expect };
    let mut items =
        [Item { action: "delete", index: index.to_owned(), write, pipeline: None, done: None }];
    write_all(indexes, &mut items).await;
    alone(&items[0])
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
    let mut items = parse(request.body, index, request.parameter("pipeline"))?;
    run_pipelines(control, indexes, &mut items).await;
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
    run_pipelines(control, indexes, &mut items).await;
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
    let mut body = json!({"_index": item.index, "_id": item.write.id});
    let mut written = |version: u64, result: &str| {
        body["_version"] = json!(version);
        body["result"] = json!(result);
        body["_shards"] = json!({"total": 1, "successful": 1, "failed": 0});
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
                let writes = places.iter().map(|at| items[*at].write.clone()).collect();
                match index.write(writes).await {
                    Ok(written) => written.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(Fault::from(error)); places.len()],
                }
            }
        };
        for (at, result) in places.into_iter().zip(results) {
            items[at].done = Some(result);
        }
    }
}

/// Runs whole documents through the pipelines that they are meant for.
async fn run_pipelines(control: &Control, indexes: &Indexes, items: &mut [Item]) {
    let mut groups: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        let What::Put(_) = item.write.what else { continue };
        let Some(index) = indexes.get(&item.index) else { continue };
        let description = index.description();
        let default = description.pipeline("index.default_pipeline");
        match item.pipeline.as_deref().or(default) {
            None | Some("_none") => {}
            Some(name) => {
                groups.entry((item.index.clone(), name.to_owned())).or_default().push(at);
            }
        }
    }
    let deadline = Instant::now() + PIPELINE_MAX;
    for ((index, pipeline), places) in groups {
        let Some(index) = indexes.get(&index) else { continue };
        let run = Run { control, pipeline: &pipeline, dimensions: dimensions(&index), deadline };
        run.on(items, places).await;
    }
}

struct Run<'r> {
    control: &'r Control,
    pipeline: &'r str,
    dimensions: HashMap<String, usize>,
    deadline: Instant,
}

impl Run<'_> {
    async fn on(&self, items: &mut [Item], places: Vec<usize>) {
        let (objects, others): (Vec<usize>, Vec<usize>) =
            places.into_iter().partition(|at| is_object(&items[*at]));
        for at in others {
            items[at].done =
                Some(Err(Fault::mapping("failed to parse: the document is not a JSON object")));
        }
        if self.together(items, &objects).await.is_ok() {
            return;
        }
        // One document that the pipeline cannot take must not hold the others back.
        for at in objects {
            if let Err(fault) = self.together(items, &[at]).await {
                items[at].done = Some(Err(fault));
            }
        }
    }

    async fn together(&self, items: &mut [Item], places: &[usize]) -> Answer<()> {
        let mut batch = Batch::default();
        for at in places {
            let Item { write: Write { id, what: What::Put(source), .. }, .. } = &items[*at] else {
                continue;
            };
            // The place stands where a version would: what comes back is matched by it.
            batch.upsert(id, IdHasher.key(&format!("{at} {id}")), Version(*at as u64), source);
        }
        let done =
            self.control.embed(self.pipeline, &batch, &self.dimensions, self.deadline).await?;
        let mut late: Vec<usize> = places.to_vec();
        for op in done.iter() {
            let Ok(at) = usize::try_from(op.version.0) else { continue };
            items[at].write.what = What::Put(op.body.to_vec());
            late.retain(|place| *place != at);
        }
        for at in late {
            let reason = "the model did not answer in time; ask again";
            items[at].done = Some(Err(Fault::new(429, "rejected_execution_exception", reason)));
        }
        Ok(())
    }
}

fn is_object(item: &Item) -> bool {
    let What::Put(source) = &item.write.what else { return false };
    serde_json::from_slice::<Map<String, Value>>(source).is_ok()
}

fn dimensions(index: &Index) -> HashMap<String, usize> {
    let fields = index.fields();
    let vectors = fields.all.iter().filter_map(|field| match field.kind {
        Kind::Vector { dimension, .. } => Some((field.path.clone(), dimension)),
        _ => None,
    });
    vectors.collect()
}

/// Reads a bulk: an action a line, and behind it the document where there is one. A line that is not understood refuses
/// the whole bulk before anything is written.
fn parse(body: &[u8], index: Option<&str>, pipeline: Option<&str>) -> Answer<Vec<Item>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::new(400, "parse_exception", "request body is required"));
    }
    if !body.ends_with(b"\n") {
        return Err(Fault::request("The bulk request must be terminated by a newline [\\n]"));
    }
    let mut lines = body.split(|byte| *byte == b'\n').enumerate();
    let mut items = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = number + 1;
        let malformed =
            |why: &str| Fault::request(format!("Malformed action/metadata line [{number}]: {why}"));
        let action: Value =
            serde_json::from_slice(line).map_err(|_| malformed("it is not JSON"))?;
        let action = action
            .as_object()
            .filter(|action| action.len() == 1)
            .and_then(|action| action.iter().next());
        let Some((name, Value::Object(about))) = action else {
            return Err(malformed("it is not {\"action\": {…}}"));
        };
        let action = match name.as_str() {
            "index" => "index",
            "create" => "create",
            "update" => "update",
            "delete" => "delete",
            _ => return Err(malformed("the actions are index, create, update and delete")),
        };
        let document = match action {
            "delete" => None,
            _ => Some(
                lines
                    .next()
                    .map(|(_, line)| line)
                    .filter(|line| !line.is_empty())
                    .ok_or_else(|| malformed("its document is missing"))?,
            ),
        };
        let mut item = item(action, about, document, index).map_err(|fault| Fault {
            reason: format!("line [{number}]: {}", fault.reason),
            ..fault
        })?;
        item.pipeline = item.pipeline.or_else(|| pipeline.map(str::to_owned));
        items.push(item);
    }
    Ok(items)
}

fn item(
    action: &'static str,
    about: &Map<String, Value>,
    document: Option<&[u8]>,
    index: Option<&str>,
) -> Answer<Item> {
    let known = [
        "_index",
        "_id",
        "version",
        "version_type",
        "pipeline",
        "retry_on_conflict",
        "require_alias",
    ];
    if let Some(other) = about.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Fault::request(format!(
            "the embedded index does not know the parameter [{other}] of an action"
        )));
    }
    let text = |key: &str| match about.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    if about.get("require_alias").is_some_and(|required| *required != Value::Bool(false)) {
        return Err(Fault::request(
            "the embedded index has no aliases, and so none can be required",
        ));
    }
    let index = text("_index").or_else(|| index.map(str::to_owned));
    let index = index.ok_or_else(|| Fault::request("index is missing"))?;
    let id = match (text("_id"), action) {
        (Some(id), _) => id,
        (None, "index" | "create") => new_id(),
        (None, _) => return Err(Fault::request("an _id is needed")),
    };
    let version_type = text("version_type");
    let expect = expect(action, about.get("version"), version_type.as_deref())?;
    let what = match (action, document) {
        ("update", Some(document)) => {
            let body = serde_json::from_slice(document)
                .map_err(|_| Fault::request("an update is not JSON"))?;
            merge(body)?
        }
        (_, Some(document)) => What::Put(document.strip_suffix(b"\r").unwrap_or(document).to_vec()),
        (_, None) => What::Delete,
    };
    Ok(Item {
        action,
        index,
        write: Write { id, what, expect },
        pipeline: text("pipeline"),
        done: None,
    })
}

/// What must be true of the document, from `op_type`, `version` and `version_type`.
fn expect(action: &str, version: Option<&Value>, version_type: Option<&str>) -> Answer<Expect> {
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

fn merge(body: Value) -> Answer<What> {
    let Value::Object(mut body) = body else {
        return Err(Fault::parsing("an update is an object"));
    };
    let take = |body: &mut Map<String, Value>, key: &str| match body.remove(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Fault::parsing(format!("[{key}] of an update is not an object"))),
    };
    let (part, upsert) = (take(&mut body, "doc")?, take(&mut body, "upsert")?);
    let as_upsert = body.remove("doc_as_upsert").unwrap_or(Value::Bool(false));
    if let Some(other) = body.keys().next() {
        return Err(Fault::parsing(format!(
            "the embedded index does not know [{other}] in an update; it takes doc, doc_as_upsert and upsert"
        )));
    }
    let part = part.ok_or_else(|| Fault::parsing("an update needs [doc]"))?;
    let otherwise = if as_upsert == Value::Bool(true) { Some(part.clone()) } else { upsert };
    let otherwise = otherwise.map(|document| Value::Object(document).to_string().into_bytes());
    Ok(What::Merge { part, otherwise })
}

fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        parse(body.as_bytes(), Some("a"), None).err().expect("is refused").reason
    }

    #[test]
    fn a_bulk_is_read_line_by_line() {
        let body = "{\"index\":{\"_id\":\"1\",\"version\":7,\"version_type\":\"external_gte\"}}\n{\"n\":1}\n\n\
                    {\"create\":{\"_index\":\"b\"}}\r\n{}\r\n{\"delete\":{\"_id\":2}}\n\
                    {\"update\":{\"_id\":\"3\"}}\n{\"doc\":{\"n\":2},\"doc_as_upsert\":true}\n";
        let items = parse(body.as_bytes(), Some("a"), Some("_none")).expect("is understood");
        let shown: Vec<_> =
            items.iter().map(|i| (i.action, i.index.as_str(), i.write.expect)).collect();
        assert_eq!(
            shown,
            [
                ("index", "a", Expect::NotAbove(7)),
                ("create", "b", Expect::Absent),
                ("delete", "a", Expect::Anything),
                ("update", "a", Expect::Anything),
            ]
        );
        assert!(matches!(&items[1].write.what, What::Put(source) if source == b"{}"));
        assert_eq!(items[2].write.id, "2");
        assert!(matches!(&items[3].write.what, What::Merge { otherwise: Some(_), .. }));
    }

    #[test]
    fn a_line_that_is_not_understood_refuses_the_bulk() {
        assert!(refused("{\"index\":{}}\n{}").contains("newline"));
        assert!(refused("{\"index\":{}}\n").contains("missing"));
        assert!(refused("{\"upsert\":{}}\n{}\n").contains("actions"));
        assert!(refused("{\"index\":{\"routing\":\"x\"}}\n{}\n").contains("[routing]"));
        assert!(refused("{\"index\":{\"_id\":\"1\",\"version\":7}}\n{}\n").contains("external"));
        assert!(refused("{\"index\":{\"if_seq_no\":7}}\n{}\n").contains("[if_seq_no]"));
        assert!(refused("{\"update\":{\"_id\":\"1\"}}\n{\"script\":\"x\"}\n").contains("[script]"));
        assert!(parse(b"\n", None, None).is_err());
    }

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
