//! Bulk requests: operations to the bytes that are sent. Pure; must not know HTTP.

use opensearch::BulkParts;

use crate::document::{Action, DocOp};
use crate::sink::answer::Placed;

/// What an action line costs beside the `_id`, at most.
const LINE_BYTES: usize = 96;

/// Only what [`crate::sink::answer`] reads: an answer is then about 60 bytes an operation.
const FILTER: &str = "filter_path=error,status,items.*._index,items.*._id,items.*.status,\
    items.*.error.type,items.*.error.reason,items.*.error.caused_by.type,\
    items.*.error.caused_by.reason";

/// The document of the guard: no operation on it ever changes anything, whether it exists or not.
const GUARD_ID: &str = "driftless-guard";

/// Where a bulk for `alias` goes. The server gives up waiting for a shard before we give up waiting for the server, so
/// that no write of a request that we hold for lost is still to come. Without `pipeline=_none` the cluster runs the
/// index's default pipeline; a final pipeline it runs either way.
pub(super) fn path(alias: &str, timeout_ms: u64, runs_pipeline: bool) -> String {
    let server_timeout_ms = (timeout_ms / 4 * 3).max(1);
    let url = BulkParts::Index(alias).url();
    let pipeline = if runs_pipeline { "" } else { "pipeline=_none&" };
    format!("{url}?{pipeline}require_alias=true&timeout={server_timeout_ms}ms&{FILTER}")
}

/// The naive reading of rule 14: a write to a missing index creates it.
pub(super) fn path_creating_indices(index: &str) -> String {
    format!("{}?pipeline=_none&{FILTER}", BulkParts::Index(index).url())
}

/// Cuts `operations` into parts of at most `bytes` and `documents` each; one operation that is larger is its own part.
pub(super) fn split<'s, 'b>(
    operations: &'s [Placed<'b>],
    bytes: usize,
    documents: usize,
) -> Vec<&'s [Placed<'b>]> {
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (at, operation) in operations.iter().enumerate() {
        let next = size_of_operation(operation);
        let is_full = size + next > bytes || at - start == documents;
        if is_full && at > start {
            parts.push(&operations[start..at]);
            (start, size) = (at, 0);
        }
        size += next;
    }
    if start < operations.len() {
        parts.push(&operations[start..]);
    }
    parts
}

fn size_of_operation((_, op): &Placed<'_>) -> usize {
    LINE_BYTES + op.id.len() + op.body.len()
}

/// The body of one bulk request: whole documents and deletes, never a document's changed part. A cluster runs no default
/// pipeline on the `doc` of an `update` (seen on 2.19.1), so the vector of the old text would stay.
///
/// `require_alias` is not heeded for deletes: a bulk of nothing else with external versions creates a missing index and
/// then answers that nothing was found there (seen on OpenSearch 2.19.1 and Elasticsearch 8.19.21). Any other action forbids it for the whole bulk, so such
/// a bulk ends with one that can do nothing: a change of nothing in a document that does not exist.
pub(super) fn body(operations: &[Placed<'_>]) -> Vec<u8> {
    let size = operations.iter().map(size_of_operation).sum::<usize>() + 2 * LINE_BYTES;
    let mut out = Vec::with_capacity(size);
    for (_, op) in operations {
        write_operation(op, &mut out);
    }
    if operations.iter().all(|(_, op)| op.action == Action::Delete) {
        out.extend_from_slice(br#"{"update":{"_id":"#);
        write_string(GUARD_ID, &mut out);
        out.extend_from_slice(b"}}\n{\"doc\":{}}\n");
    }
    out
}

/// The lines of one operation.
#[inline]
pub fn write_operation(op: &DocOp<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(match op.action {
        Action::Upsert => br#"{"index":{"_id":"#,
        Action::Delete => br#"{"delete":{"_id":"#,
    });
    write_string(op.id, out);
    out.extend_from_slice(br#","version":"#);
    out.extend_from_slice(itoa::Buffer::new().format(op.version.0).as_bytes());
    out.extend_from_slice(b",\"version_type\":\"external_gte\"}}\n");
    if op.action == Action::Upsert {
        out.extend_from_slice(op.body);
        out.push(b'\n');
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    let is_plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if is_plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    serde_json::to_writer(out, text).expect("a string is written to memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Batch;
    use crate::position::Version;

    fn placed(batch: &Batch) -> Vec<(usize, DocOp<'_>)> {
        batch.iter().enumerate().collect()
    }

    #[test]
    fn a_body_has_a_line_for_each_action_and_document() {
        let mut batch = Batch::default();
        batch.upsert("a\"\n\\中", 1, Version(7), br#"{"t":"x"}"#);
        batch.delete("2", 2, Version(u64::MAX >> 1));
        let body = String::from_utf8(body(&placed(&batch))).expect("is UTF-8");
        assert_eq!(
            body,
            r#"{"index":{"_id":"a\"\n\\中","version":7,"version_type":"external_gte"}}
{"t":"x"}
{"delete":{"_id":"2","version":9223372036854775807,"version_type":"external_gte"}}
"#
        );
    }

    #[test]
    fn a_bulk_of_deletes_carries_the_guard() {
        let mut batch = Batch::default();
        batch.delete("2", 2, Version(3));
        let body = String::from_utf8(body(&placed(&batch))).expect("is UTF-8");
        assert!(
            body.ends_with("{\"update\":{\"_id\":\"driftless-guard\"}}\n{\"doc\":{}}\n"),
            "{body}"
        );
    }

    #[test]
    fn every_write_is_a_whole_document_and_only_the_guard_an_update() {
        let mut batch = Batch::default();
        for at in 0..50_u64 {
            let id = at.to_string();
            match at % 3 {
                0 => batch.delete(&id, at.into(), Version(at)),
                _ => batch.upsert(&id, at.into(), Version(at), br#"{"text":"t","update":1}"#),
            }
        }
        let written = String::from_utf8(body(&placed(&batch))).expect("is UTF-8");
        let mut lines = written.lines();
        while let Some(action) = lines.next() {
            let action: serde_json::Value = serde_json::from_str(action).expect("JSON");
            if action.get("index").is_some() {
                assert_eq!(lines.next(), Some(r#"{"text":"t","update":1}"#));
            } else {
                assert!(action.get("delete").is_some(), "{action}");
            }
        }
        let mut deletes = Batch::default();
        deletes.delete("1", 1, Version(1));
        let written = String::from_utf8(body(&placed(&deletes))).expect("is UTF-8");
        let guard = format!(r#"{{"update":{{"_id":"{GUARD_ID}"}}}}"#);
        // Without `doc_as_upsert` or `upsert` there is no document in it that a pipeline could run on.
        assert!(written.ends_with(&format!("{guard}\n{{\"doc\":{{}}}}\n")), "{written}");
    }

    #[test]
    fn the_cluster_runs_its_pipeline_only_where_it_shall() {
        assert!(path("a", 1000, false).contains("?pipeline=_none&require_alias=true&"));
        assert!(path("a", 1000, true).contains("?require_alias=true&"));
        assert!(!path("a", 1000, true).contains("pipeline"));
    }

    #[test]
    fn parts_are_bounded_in_bytes_and_documents_and_lose_nothing() {
        let mut batch = Batch::default();
        for (at, length) in [10, 10, 5000, 10, 10, 10, 10].into_iter().enumerate() {
            batch.upsert(&at.to_string(), 0, Version(1), &vec![b'x'; length]);
        }
        let placed = placed(&batch);
        let sizes: Vec<usize> = split(&placed, 1000, 3).iter().map(|part| part.len()).collect();
        assert_eq!(sizes, [2, 1, 3, 1]);
        assert!(split(&[], 1000, 3).is_empty());
    }
}
