//! Looks through an index for documents below a version, page by page, by a scroll. Must not know why.

use opensearch::http::Method;
use serde_json::{Value, json};

use super::http::{Answer, Http};
use super::{Older, PAGE_DOCUMENTS, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Version;

/// How long the cluster keeps its place between two pages; the pages' deletes are written meanwhile.
const KEPT: &str = "10m";

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
            refresh(http, target).await?;
            let body = json!({
                "size": PAGE_DOCUMENTS, "version": true, "_source": false, "sort": ["_doc"],
                "query": {"match_all": {}},
            });
            let path = format!("/{}/_search?scroll={KEPT}", target.index);
            read(http.control(Method::Post, &path, Some(&body)).await?)?
        }
    };
    // A page without any old document is not handed out, lest the caller wait for nothing.
    loop {
        let scroll = answer["_scroll_id"].as_str().unwrap_or_default().to_owned();
        let hits = answer["hits"]["hits"].as_array().map(Vec::as_slice).unwrap_or_default();
        if hits.is_empty() {
            let body = json!({"scroll_id": scroll});
            // What is not given back runs out by itself.
            let _ = http.control(Method::Delete, "/_search/scroll", Some(&body)).await;
            return Ok(Older::default());
        }
        let is_older = |hit: &&Value| hit["_version"].as_u64().is_some_and(|v| v < below.0);
        let ids: Vec<String> = hits
            .iter()
            .filter(is_older)
            .filter_map(|hit| hit["_id"].as_str().map(str::to_owned))
            .collect();
        if !ids.is_empty() {
            return Ok(Older { ids, next: Some(scroll) });
        }
        answer = next(http, &scroll).await?;
    }
}

async fn refresh(http: &Http, target: &Target) -> Result<()> {
    let path = format!("/{}/_refresh", target.index);
    read(http.control(Method::Post, &path, None).await?).map(|_| ())
}

async fn next(http: &Http, scroll: &str) -> Result<Value> {
    let body = json!({"scroll": KEPT, "scroll_id": scroll});
    let answer = http.control(Method::Post, "/_search/scroll", Some(&body)).await?;
    if answer.status == 404 {
        return Err(Error::new(ErrorKind::SinkBusy, "the cluster has lost the place of a search"));
    }
    read(answer)
}

/// An answer that leaves out a shard would leave out documents.
fn read(answer: Answer) -> Result<Value> {
    if answer.status != 200 {
        return Err(answer.into_error("look through the index"));
    }
    let answer = answer.json()?;
    let is_partial = answer["timed_out"] == true
        || answer["_shards"]["failed"].as_u64().is_some_and(|failed| failed > 0);
    match is_partial {
        true => Err(Error::new(ErrorKind::SinkBusy, "not all shards of the index have answered")),
        false => Ok(answer),
    }
}
