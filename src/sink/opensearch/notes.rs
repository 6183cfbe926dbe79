//! Our own documents in the cluster: conditions by `if_seq_no`, versions for what is written many at once. Writes go
//! through an alias of the index, as all others do (rule 14), so that none makes the index with guessed fields. Must not
//! know what the documents say.

use futures_util::future::{BoxFuture, FutureExt as _};
use opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Answer, Http};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::notes::{INDEX, Note, Notes, Place, When, Written};

/// It goes when the index goes.
const ALIAS: &str = ".driftless-notes";

/// A request with several documents holds so many bytes, or one document.
const BULK_BYTES: usize = 4 << 20;

/// Documents that are asked for at once.
const IDS_MAX: usize = 100;

pub(in crate::sink) struct OwnNotes {
    pub(super) http: Http,
}

#[derive(Deserialize)]
struct Page {
    docs: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    found: bool,
    #[serde(default)]
    _seq_no: u64,
    #[serde(default)]
    _primary_term: u64,
    #[serde(default)]
    _version: u64,
    #[serde(default)]
    _source: Value,
    #[serde(default)]
    error: Option<Value>,
}

impl OwnNotes {
    /// Strict, so that nobody's field gets in by mistake; what we say lies in one field that is not looked into.
    async fn make_index(&self) -> Result<()> {
        let description = json!({
            "settings": {"index": {
                "hidden": true, "number_of_shards": 1, "auto_expand_replicas": "0-1",
            }},
            "mappings": {"dynamic": "strict", "properties": {
                "name": {"type": "keyword"}, "kind": {"type": "keyword"}, "host": {"type": "keyword"},
                "term": {"type": "long"}, "at": {"type": "date"}, "payload": {"type": "binary"},
            }},
            "aliases": {ALIAS: {"is_hidden": true}},
        });
        let path = format!("/{INDEX}");
        let answer = self.http.control(Method::Put, &path, Some(&description)).await?;
        match (answer.status, error_type(&answer).as_deref()) {
            (200, _) => {
                tracing::info!(index = INDEX, "made the index of Driftless' own documents");
                Ok(())
            }
            (400, Some("resource_already_exists_exception")) => self.put_alias().await,
            _ => Err(answer.into_error(&format!("make the index {INDEX}"))),
        }
    }

    async fn put_alias(&self) -> Result<()> {
        let add = json!({"index": INDEX, "alias": ALIAS, "is_hidden": true});
        let actions = json!({"actions": [{"add": add}]});
        let answer = self.http.control(Method::Post, "/_aliases", Some(&actions)).await?;
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.into_error(&format!("put the alias {ALIAS} on {INDEX}"))),
        }
    }

    async fn has_alias(&self) -> Result<bool> {
        let answer =
            self.http.control(Method::Get, &format!("/{INDEX}/_alias/{ALIAS}"), None).await?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(answer.into_error(&format!("look at the index {INDEX}"))),
        }
    }

    async fn read_some(&self, ids: &[String], found: &mut Vec<Option<Note>>) -> Result<()> {
        let answer = self.http.fetch(&format!("/{INDEX}/_mget"), &json!({ "ids": ids })).await?;
        if answer.status == 404 && is_no_index(&answer) {
            found.extend(ids.iter().map(|_| None));
            return Ok(());
        }
        if answer.status != 200 {
            return Err(answer.into_error(&format!("read from {INDEX}")));
        }
        let page: Page = serde_json::from_slice(&answer.body)
            .map_err(|cause| odd("the answer is not understood").caused_by(cause))?;
        if page.docs.len() != ids.len() {
            return Err(odd("the answer has another number of documents than was asked for"));
        }
        for doc in page.docs {
            found.push(note(doc)?);
        }
        Ok(())
    }

    async fn write_one(&self, id: &str, body: &Value, when: When) -> Result<Written<Place>> {
        let condition = match when {
            When::Absent => "op_type=create".to_owned(),
            When::At(place) => {
                format!("if_seq_no={}&if_primary_term={}", place.seq_no, place.primary_term)
            }
        };
        let path = format!("/{ALIAS}/_doc/{id}?require_alias=true&pipeline=_none&{condition}");
        let answer = self.http.control(Method::Put, &path, Some(body)).await?;
        match answer.status {
            200 | 201 => {
                let json = answer.json()?;
                let number = |name: &str| json[name].as_u64();
                let place = number("_seq_no").zip(number("_primary_term"));
                let (seq_no, primary_term) =
                    place.ok_or_else(|| odd("the answer does not say where it was written"))?;
                Ok(Written::Done(Place { seq_no, primary_term }))
            }
            409 => Ok(Written::Conflict),
            404 if is_no_index(&answer) => Ok(Written::NoIndex),
            _ => Err(answer.into_error(&format!("write to {INDEX}"))),
        }
    }

    async fn write_many(&self, lines: Vec<u8>) -> Result<Written<()>> {
        let path = format!(
            "/{ALIAS}/_bulk?require_alias=true&pipeline=_none&filter_path=error,status,items.*.status,items.*.error"
        );
        let answer = self.http.bulk(&path, lines, None).await?;
        if answer.status == 404 && is_no_index(&answer) {
            return Ok(Written::NoIndex);
        }
        if answer.status != 200 {
            return Err(answer.into_error(&format!("write to {INDEX}")));
        }
        let json = answer.json()?;
        let items = json["items"].as_array().ok_or_else(|| odd("the answer has no items"))?;
        let mut written = Written::Done(());
        for item in items.iter().filter_map(|item| item.as_object()?.values().next()) {
            let kind = item["error"]["type"].as_str().unwrap_or_default();
            match item["status"].as_u64().unwrap_or(0) {
                200 | 201 => {}
                // A document to be deleted that is not there.
                404 if kind.is_empty() => {}
                404 => return Ok(Written::NoIndex),
                409 => written = Written::Conflict,
                status => {
                    let reason = item["error"]["reason"].as_str().unwrap_or_default();
                    let what = format!("cannot write to {INDEX}: {status} {kind}: {reason}");
                    return Err(Error::new(ErrorKind::SinkBusy, what));
                }
            }
        }
        Ok(written)
    }
}

impl Notes for OwnNotes {
    fn prepare<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        async {
            match self.has_alias().await? {
                true => Ok(()),
                false => self.make_index().await,
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<Option<Note>>>> {
        async move {
            let mut found = Vec::with_capacity(ids.len());
            for some in ids.chunks(IDS_MAX) {
                self.read_some(some, &mut found).await?;
            }
            Ok(found)
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        id: &'a str,
        body: &'a Value,
        when: When,
    ) -> BoxFuture<'a, Result<Written<Place>>> {
        self.write_one(id, body, when).boxed()
    }

    fn write_all<'a>(
        &'a self,
        notes: &'a [(String, Option<Value>)],
        version: u64,
    ) -> BoxFuture<'a, Result<Written<()>>> {
        async move {
            let mut lines = Vec::new();
            for (at, (id, body)) in notes.iter().enumerate() {
                let what = json!({"_id": id, "version": version, "version_type": "external_gte"});
                let action = if body.is_some() { "index" } else { "delete" };
                lines.extend_from_slice(json!({ action: what }).to_string().as_bytes());
                lines.push(b'\n');
                if let Some(body) = body {
                    lines.extend_from_slice(body.to_string().as_bytes());
                    lines.push(b'\n');
                }
                if lines.len() >= BULK_BYTES || at + 1 == notes.len() {
                    match self.write_many(std::mem::take(&mut lines)).await? {
                        Written::Done(()) => {}
                        other => return Ok(other),
                    }
                }
            }
            Ok(Written::Done(()))
        }
        .boxed()
    }
}

fn note(doc: Found) -> Result<Option<Note>> {
    if let Some(error) = doc.error {
        let kind = error["type"].as_str().unwrap_or_default();
        return match kind {
            "index_not_found_exception" => Ok(None),
            _ => Err(odd(&format!("{kind}: {}", error["reason"].as_str().unwrap_or_default()))),
        };
    }
    let place = Place { seq_no: doc._seq_no, primary_term: doc._primary_term };
    Ok(doc.found.then_some(Note { place, version: doc._version, body: doc._source }))
}

fn error_type(answer: &Answer) -> Option<String> {
    let json = answer.json().ok()?;
    json["error"]["type"].as_str().map(str::to_owned)
}

fn is_no_index(answer: &Answer) -> bool {
    error_type(answer).is_some_and(|kind| kind == "index_not_found_exception")
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::SinkBusy, format!("cannot use the index {INDEX}: {what}"))
}
