//! Looks through an index for documents below a version, page by page, by a scroll. Must not know why.

use opensearch::http::Method;
use serde::Deserialize;
use serde_json::json;

use super::beside;
use super::http::{Answer, Http};
use super::{Older, PAGE_DOCUMENTS, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Version;

/// How long the cluster keeps its place between two pages; the pages' deletes are written meanwhile.
const KEPT: &str = "10m";

/// What is wanted of an answer, or it has three times the bytes.
const SHOWN: &str =
    "filter_path=_scroll_id,timed_out,_shards.failed,hits.hits._id,hits.hits._version,error,status";

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    _scroll_id: String,
    #[serde(default)]
    timed_out: bool,
    #[serde(default)]
    _shards: Shards,
    #[serde(default)]
    hits: Hits,
}

#[derive(Default, Deserialize)]
struct Shards {
    #[serde(default)]
    failed: u64,
}

#[derive(Default, Deserialize)]
struct Hits {
    #[serde(default)]
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    _id: String,
    _version: u64,
}

/// Versions can be neither searched nor sorted by, only shown; so every document is looked at.
pub(super) async fn page(
    http: &Http,
    target: &Target,
    below: Version,
    after: Option<&str>,
) -> Result<Older> {
    let mut answer = match after {
        Some(scroll) => next(http, scroll).await?,
        None => {
            beside::refresh(http, &target.index).await?;
            let body = json!({
                "size": PAGE_DOCUMENTS, "version": true, "_source": false, "sort": ["_doc"],
                "query": {"match_all": {}},
            });
            let path = format!("/{}/_search?scroll={KEPT}&{SHOWN}", target.index);
            read(http.fetch(&path, &body).await?)?
        }
    };
    // A page without any old document is not handed out, lest the caller wait for nothing.
    loop {
        let Page { _scroll_id: scroll, hits, .. } = answer;
        if hits.hits.is_empty() {
            let body = json!({"scroll_id": scroll});
            // What is not given back runs out by itself.
            let _ = http.control(Method::Delete, "/_search/scroll", Some(&body)).await;
            return Ok(Older::default());
        }
        let older = hits.hits.into_iter().filter(|hit| hit._version < below.0);
        let ids: Vec<String> = older.map(|hit| hit._id).collect();
        if !ids.is_empty() {
            return Ok(Older { ids, next: Some(scroll) });
        }
        answer = next(http, &scroll).await?;
    }
}

async fn next(http: &Http, scroll: &str) -> Result<Page> {
    let body = json!({"scroll": KEPT, "scroll_id": scroll});
    let answer = http.fetch(&format!("/_search/scroll?{SHOWN}"), &body).await?;
    if answer.status == 404 {
        return Err(Error::new(ErrorKind::SinkBusy, "the cluster has lost the place of a search"));
    }
    read(answer)
}

/// An answer that leaves out a shard would leave out documents.
fn read(answer: Answer) -> Result<Page> {
    if answer.status != 200 {
        return Err(answer.into_error("look through the index"));
    }
    let page: Page = serde_json::from_slice(&answer.body).map_err(|cause| {
        let what = "cannot look through the index: the answer is not understood";
        Error::new(ErrorKind::SinkBusy, what).caused_by(cause)
    })?;
    match page.timed_out || page._shards.failed > 0 {
        true => Err(Error::new(ErrorKind::SinkBusy, "not all shards of the index have answered")),
        false => Ok(page),
    }
}
