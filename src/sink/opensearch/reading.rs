//! Reads documents by their ids: as they are now (`_mget`, which is realtime), or as a search sees them, which costs the
//! cluster about half. Must not know what they should be.

use std::borrow::Cow;
use std::error::Error as _;

use hashbrown::HashMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::http::{Answer, Http, TooLarge};
use super::product::Product;
use super::{Stored, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Version;

/// Ids in one request; documents of a thousand numbers then make an answer of some megabytes.
const IDS_MAX: usize = 500;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    docs: Vec<Found<'a>>,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    _id: Cow<'a, str>,
    #[serde(default)]
    found: bool,
    #[serde(default)]
    _version: u64,
    #[serde(borrow, default)]
    _source: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Value>,
}

/// What a search answers.
#[derive(Deserialize)]
struct Searched<'a> {
    #[serde(default)]
    timed_out: bool,
    _shards: Shards,
    #[serde(borrow)]
    hits: Hits<'a>,
}

#[derive(Deserialize)]
struct Shards {
    failed: u64,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow)]
    _id: Cow<'a, str>,
    _version: u64,
    #[serde(borrow, default)]
    _source: Option<&'a RawValue>,
}

/// How documents are asked for.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// As they are now.
    Get,
    /// As they were when the index was last refreshed, or later.
    Search,
}

pub(super) async fn read(
    http: &Http,
    target: &Target,
    ids: &[&str],
    by: By,
) -> Result<Vec<Option<Stored>>> {
    let mut all = Vec::with_capacity(ids.len());
    // A stack, because a part whose answer is too long is put back as two halves.
    let mut parts: Vec<&[&str]> = ids.chunks(IDS_MAX).rev().collect();
    while let Some(part) = parts.pop() {
        match (ask(http, target, part, by).await, by) {
            (Ok(answer), By::Get) => read_page(target, part, &answer.body, &mut all)?,
            (Ok(answer), By::Search) => read_hits(target, part, &answer.body, &mut all)?,
            (Err(error), _) if part.len() > 1 && is_too_large(&error) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(all)
}

async fn ask(http: &Http, target: &Target, ids: &[&str], by: By) -> Result<Answer> {
    let (path, body) = match by {
        By::Get => (format!("/{}/_mget", target.index), json!({ "ids": ids })),
        By::Search => {
            let body = json!({
                "size": ids.len(), "version": true, "sort": ["_doc"], "track_total_hits": false,
                "query": {"ids": {"values": ids}},
            });
            (format!("/{}/_search", target.index), body)
        }
    };
    // Newer versions leave vectors out of what they show unless they are asked for; older ones refuse the question.
    let may_leave_out = http.product == Product::Elasticsearch && !target.dimensions.is_empty();
    if may_leave_out {
        let answer = http.fetch(&format!("{path}?_source_exclude_vectors=false"), &body).await?;
        if answer.status != 400 {
            return checked(answer);
        }
    }
    checked(http.fetch(&path, &body).await?)
}

fn checked(answer: Answer) -> Result<Answer> {
    match answer.status {
        200 => Ok(answer),
        _ => Err(answer.into_error("read documents")),
    }
}

fn is_too_large(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<TooLarge>())
}

fn read_page(
    target: &Target,
    ids: &[&str],
    body: &[u8],
    all: &mut Vec<Option<Stored>>,
) -> Result<()> {
    let odd =
        |what: &str| Error::new(ErrorKind::SinkBusy, format!("cannot read documents: {what}"));
    let page: Page<'_> = serde_json::from_slice(body)
        .map_err(|cause| odd("the answer is not understood").caused_by(cause))?;
    if page.docs.len() != ids.len() {
        return Err(odd("the answer has another number of documents than was asked for"));
    }
    for (found, id) in page.docs.into_iter().zip(ids) {
        if found._id != *id {
            return Err(odd("the answer has other documents than were asked for"));
        }
        if let Some(error) = found.error {
            let kind = error["type"].as_str().unwrap_or_default();
            let reason = error["reason"].as_str().unwrap_or_default();
            return Err(odd(&format!("{kind}: {reason}")));
        }
        if !found.found {
            all.push(None);
            continue;
        }
        let source = found._source.ok_or_else(|| keeps_no_source(target))?;
        let source = source.get().as_bytes().to_vec();
        all.push(Some(Stored { version: Version(found._version), source }));
    }
    Ok(())
}

fn read_hits(
    target: &Target,
    ids: &[&str],
    body: &[u8],
    all: &mut Vec<Option<Stored>>,
) -> Result<()> {
    let odd =
        |what: &str| Error::new(ErrorKind::SinkBusy, format!("cannot look documents up: {what}"));
    let answer: Searched<'_> = serde_json::from_slice(body)
        .map_err(|cause| odd("the answer is not understood").caused_by(cause))?;
    if answer.timed_out || answer._shards.failed > 0 {
        return Err(odd("not all shards of the index have answered"));
    }
    let mut found = HashMap::with_capacity(ids.len());
    for hit in answer.hits.hits {
        let source = hit._source.ok_or_else(|| keeps_no_source(target))?;
        let source = source.get().as_bytes().to_vec();
        found.insert(hit._id, Stored { version: Version(hit._version), source });
    }
    all.extend(ids.iter().map(|id| found.remove(*id)));
    Ok(())
}

fn keeps_no_source(target: &Target) -> Error {
    let what = format!("index {} does not keep the documents that are written to it", target.index);
    Error::new(ErrorKind::Unsupported, what)
        .with_advice("make it anew without \"_source\": {\"enabled\": false}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ids: &[&str], body: &str) -> Result<Vec<Option<Stored>>> {
        let mut all = Vec::new();
        read_page(&Target::default(), ids, body.as_bytes(), &mut all).map(|()| all)
    }

    #[test]
    fn what_a_search_finds_is_put_in_the_order_that_was_asked_for() {
        let read = |body: &str| {
            let mut all = Vec::new();
            read_hits(&Target::default(), &["1", "2", "a\"b"], body.as_bytes(), &mut all)
                .map(|()| all)
        };
        let body = r#"{"timed_out":false,"_shards":{"failed":0},"hits":{"hits":[
            {"_id":"a\"b","_version":7,"_source":{"n":1.10}},{"_id":"1","_version":5,"_source":{}}]}}"#;
        let stored =
            |version, source: &[u8]| Stored { version: Version(version), source: source.to_vec() };
        let expected = [Some(stored(5, b"{}")), None, Some(stored(7, br#"{"n":1.10}"#))];
        assert_eq!(read(body).expect("reads"), expected);
        let partly = body.replace(r#""failed":0"#, r#""failed":1"#);
        assert_eq!(read(&partly).expect_err("an error").kind(), ErrorKind::SinkBusy);
    }

    #[test]
    fn an_answer_is_taken_only_for_the_documents_that_were_asked_for() {
        let body = r#"{"docs":[{"_id":"a\"b","_version":7,"found":true,"_source":{ "n":1.10}},{"_id":"2","found":false}]}"#;
        let stored = Stored { version: Version(7), source: br#"{ "n":1.10}"#.to_vec() };
        assert_eq!(read(&["a\"b", "2"], body).expect("reads"), [Some(stored), None]);
        assert!(read(&["2", "a\"b"], body).is_err() && read(&["2"], body).is_err());
        let failed = r#"{"docs":[{"_id":"1","error":{"type":"routing_missing_exception","reason":"routing is required"}}]}"#;
        let error = read(&["1"], failed).expect_err("an error");
        assert!(error.report().contains("routing is required"), "{}", error.report());
        let bare = r#"{"docs":[{"_id":"1","found":true,"_version":1}]}"#;
        assert_eq!(read(&["1"], bare).expect_err("an error").kind(), ErrorKind::Unsupported);
    }
}
