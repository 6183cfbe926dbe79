//! Bulk answers: bytes to outcomes, and the one table of error classes (rule 14). Pure; input from outside never
//! panics.
//!
//! An answer's items are not in the order of the request when several fail in a pipeline, so each is matched by index,
//! `_id` and action. An error's class follows from its type, not from its status: a missing model is 404 and a write
//! block 403, yet no document is to blame. Where the cluster runs the pipeline, what its model's endpoint answered comes
//! back as one type with the endpoint's status, and there the status is what tells.

mod words;

use std::borrow::Cow;

use serde::Deserialize;

use self::words::{Endpoint, OF_THE_ENDPOINT};
use super::{Outcome, Target};
use crate::document::{Action, DocOp};
use crate::error::{Error, ErrorKind, Result};
use crate::naive::{Rule, is_naive};
use crate::position::Version;

/// An operation and its place in the batch.
pub type Placed<'b> = (usize, DocOp<'b>);

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    items: Vec<Item<'a>>,
}

/// One of the two is there; what we did not send or only sent as a guard has neither.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    index: Option<Answered<'a>>,
    #[serde(borrow)]
    delete: Option<Answered<'a>>,
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow, default)]
    _index: Cow<'a, str>,
    #[serde(borrow, default)]
    _id: Cow<'a, str>,
    #[serde(default)]
    status: u16,
    #[serde(borrow)]
    error: Option<ItemError<'a>>,
}

#[derive(Deserialize)]
struct ItemError<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    caused_by: Option<Box<ItemError<'a>>>,
}

impl ItemError<'_> {
    fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("")
    }

    /// Whether it repeats what the endpoint of a model said to the cluster's own pipeline.
    fn is_of_the_endpoint(&self) -> bool {
        self.reason().starts_with(OF_THE_ENDPOINT)
    }

    fn cause_kind(&self) -> &str {
        self.caused_by.as_ref().map_or("", |cause| &cause.kind)
    }
}

/// Writes the outcome of every operation of `part` that `body` answers for to its place in `outcomes`. Gives back the
/// places of those that a model behind the cluster's pipeline refused: it may have seen the texts of several documents in
/// one request, and then one of them has spoilt it for the others.
pub fn read(
    target: &Target,
    part: &[Placed<'_>],
    body: &[u8],
    outcomes: &mut [Option<Outcome>],
) -> Result<Vec<usize>> {
    if all_done(target, part, body).is_some() {
        for (place, _) in part {
            if let Some(outcome) = outcomes.get_mut(*place) {
                *outcome = Some(Outcome::Done);
            }
        }
        return Ok(Vec::new());
    }
    let endpoint = Endpoint::new(part);
    let mut spoilt = Vec::new();
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|cause| {
        Error::new(ErrorKind::SinkBusy, "the sink's answer to a bulk makes no sense")
            .caused_by(cause)
            .with_advice(
                "look whether something between driftless and the cluster answers instead of it",
            )
    })?;
    let mut by_document = None;
    for (at, item) in answer.items.iter().enumerate() {
        let (action, answered) = match (&item.index, &item.delete) {
            (Some(answered), _) => (Action::Upsert, answered),
            (None, Some(answered)) => (Action::Delete, answered),
            (None, None) => continue,
        };
        // Nearly always the item at the same place is the one, and comparing is cheaper than looking up.
        let same_place =
            part.get(at).filter(|(_, op)| op.action == action && op.id == answered._id);
        let place = match same_place {
            Some((place, _)) => Some(*place),
            None => by_document
                .get_or_insert_with(|| index_by_document(part))
                .get(&(action == Action::Delete, &*answered._id))
                .copied(),
        };
        let Some(place) = place.filter(|place| *place < outcomes.len()) else { continue };
        let outcome = outcome_of(target, answered, &endpoint);
        let is_of_the_endpoint = answered.error.as_ref().is_some_and(ItemError::is_of_the_endpoint);
        if is_of_the_endpoint && matches!(outcome, Outcome::Refused { .. }) {
            spoilt.push(place);
        }
        outcomes[place] = Some(outcome);
    }
    // An answer that names an operation twice means what it says last.
    spoilt.retain(|place| matches!(outcomes.get(*place), Some(Some(Outcome::Refused { .. }))));
    Ok(spoilt)
}

/// Whether `body` is, byte for byte, the answer that says of every operation of `part`, in its order, that it was
/// written: nearly every answer is, and comparing is far cheaper than parsing. Of anything else, a guard's item
/// included, it says nothing.
fn all_done(target: &Target, part: &[Placed<'_>], body: &[u8]) -> Option<()> {
    let mut rest = body.strip_prefix(br#"{"items":["#)?;
    for (at, (_, op)) in part.iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b",")?;
        }
        rest = match op.action {
            Action::Upsert => rest.strip_prefix(br#"{"index":{"_index":""#)?,
            Action::Delete => rest.strip_prefix(br#"{"delete":{"_index":""#)?,
        };
        // An id that JSON would escape does not stand there as it is, and so is not found.
        rest = rest.strip_prefix(target.index.as_bytes())?.strip_prefix(br#"","_id":""#)?;
        rest = rest.strip_prefix(op.id.as_bytes())?.strip_prefix(br#"","status":"#)?;
        let (status, behind) = rest.split_first_chunk::<3>()?;
        let is_done = match status {
            b"200" | b"201" => true,
            b"404" => op.action == Action::Delete,
            _ => false,
        };
        rest = behind.strip_prefix(b"}}").filter(|_| is_done)?;
    }
    (rest == b"]}").then_some(())
}

type ByDocument<'b> = hashbrown::HashMap<(bool, &'b str), usize, foldhash::fast::RandomState>;

fn index_by_document<'b>(part: &[Placed<'b>]) -> ByDocument<'b> {
    part.iter().map(|(place, op)| ((op.action == Action::Delete, op.id), *place)).collect()
}

fn outcome_of(target: &Target, answered: &Answered<'_>, endpoint: &Endpoint<'_>) -> Outcome {
    let Some(error) = &answered.error else {
        if answered._index != target.index {
            let reason = format!("{} no longer leads to {}", target.alias, target.index);
            return Outcome::Blocked { reason };
        }
        return match answered.status {
            // 404 is a delete that found nothing.
            200..300 | 404 => Outcome::Done,
            status => Outcome::Retry { reason: format!("status {status} without an error") },
        };
    };
    let reason = describe(error, endpoint);
    if error.kind == "version_conflict_engine_exception" {
        return match current_version(error.reason()) {
            Some(current) => Outcome::Conflict { current },
            None => Outcome::Blocked { reason },
        };
    }
    let class = if is_naive(Rule::ErrorClasses) {
        class_by_status(answered.status)
    } else {
        class_by_type(error, answered.status)
    };
    match class {
        Class::Document => Outcome::Refused { reason },
        Class::Patience if is_overload(&error.kind, answered.status) => {
            Outcome::Overloaded { reason, retry_after: None }
        }
        Class::Patience => Outcome::Retry { reason },
        Class::Systemic => Outcome::Blocked { reason },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// This document can never be written.
    Document,
    /// The cluster will be able to later.
    Patience,
    /// Somebody has to mend something.
    Systemic,
}

fn class_by_type(error: &ItemError<'_>, status: u16) -> Class {
    // The index can be told to take more. Elasticsearch wraps it as if it were the document's.
    if [Some(error), error.caused_by.as_deref()].into_iter().flatten().any(is_full) {
        return Class::Systemic;
    }
    match &*error.kind {
        "mapper_parsing_exception"
        | "document_parsing_exception"
        | "strict_dynamic_mapping_exception"
        | "parsing_exception"
        | "json_parse_exception"
        | "x_content_parse_exception"
        | "not_x_content_exception"
        | "stream_constraints_exception"
        | "max_bytes_length_exceeded_exception" => Class::Document,
        "illegal_argument_exception" if blames_the_document(error) => Class::Document,
        // What the emulated pipeline holds against a text as well.
        "status_exception" if error.is_of_the_endpoint() && matches!(status, 400 | 413 | 422) => {
            Class::Document
        }
        "status_exception" if error.is_of_the_endpoint() && matches!(status, 408 | 425) => {
            Class::Patience
        }
        "es_rejected_execution_exception"
        | "opensearch_rejected_execution_exception"
        | "rejected_execution_exception"
        | "circuit_breaking_exception"
        | "m_l_limit_exceeded_exception"
        | "process_cluster_event_timeout_exception"
        | "unavailable_shards_exception"
        | "no_shard_available_action_exception"
        | "timeout_exception"
        | "elasticsearch_timeout_exception"
        | "opensearch_timeout_exception"
        | "receive_timeout_transport_exception"
        | "node_closed_exception"
        | "node_disconnected_exception"
        | "node_not_connected_exception"
        | "connect_transport_exception"
        | "send_request_transport_exception"
        | "already_closed_exception"
        | "shard_not_found_exception"
        | "illegal_index_shard_state_exception"
        | "index_shard_not_started_exception"
        | "index_shard_recovering_exception"
        | "not_cluster_manager_exception"
        | "not_master_exception"
        | "cluster_manager_not_discovered_exception"
        | "master_not_discovered_exception"
        | "failed_to_commit_cluster_state_exception" => Class::Patience,
        "index_not_found_exception" | "index_closed_exception" | "security_exception" => {
            Class::Systemic
        }
        // A full disk (429) and a missing manager (503) pass; a write block (403) is somebody's will.
        _ if status == 429 || status >= 500 => Class::Patience,
        _ => Class::Systemic,
    }
}

/// Whether the cluster would take the same if it had less to do.
fn is_overload(kind: &str, status: u16) -> bool {
    status == 429
        || kind.ends_with("rejected_execution_exception")
        || kind.ends_with("timeout_exception")
        || matches!(kind, "circuit_breaking_exception" | "m_l_limit_exceeded_exception")
}

fn is_full(error: &ItemError<'_>) -> bool {
    error.reason().contains("Limit of total fields [")
}

/// `illegal_argument_exception` is everybody's: of a value that no index takes, and of a pipeline or a write index that
/// is not there. What is not known to be the document's is not held against it.
fn blames_the_document(error: &ItemError<'_>) -> bool {
    const OF_A_DOCUMENT: [&str; 10] = [
        // The three of text_embedding: blank or no text, an object, and a placeholder in the text.
        ", cannot process it",
        "configuration doesn't match actual value type",
        "placeholder not filled in payload",
        "immense term",
        "is too large, must be <=",
        "Vector dimension mismatch",
        "cannot be changed from type",
        "can't merge a non",
        "can't be changed from nested",
        "can't be changed from non-nested",
    ];
    error.cause_kind() == "max_bytes_length_exceeded_exception"
        || OF_A_DOCUMENT.iter().any(|part| error.reason().contains(part))
}

/// The naive reading of rule 14.
fn class_by_status(status: u16) -> Class {
    match status {
        429 | 500.. => Class::Patience,
        _ => Class::Document,
    }
}

/// `[id]: version conflict, current version [7] is higher than the one provided [5]`. The last one counts: the id may
/// say the same.
fn current_version(reason: &str) -> Option<Version> {
    let (_, rest) = reason.rsplit_once("current version [")?;
    let (number, _) = rest.split_once(']')?;
    number.parse().ok().map(Version)
}

/// Type and reason, without the parts in which the document is quoted.
fn describe(error: &ItemError<'_>, endpoint: &Endpoint<'_>) -> String {
    let reason = match error.is_of_the_endpoint() {
        true => endpoint.shown(error.reason()).into(),
        false => Cow::Borrowed(words::shown(error.reason())),
    };
    let mut text = format!("{}: {reason}", error.kind);
    if let Some(cause) = &error.caused_by {
        text.push_str(" (");
        text.push_str(&cause.kind);
        if let Some(shown) = words::shown_cause(cause.reason()) {
            text.push_str(": ");
            text.push_str(shown);
        }
        text.push(')');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Batch;

    fn target() -> Target {
        Target { index: "goods".into(), alias: "goods.driftless".into(), ..Target::default() }
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.upsert("a", 0, Version(5), b"{}");
        batch.upsert("b", 0, Version(6), b"{}");
        batch.delete("c", 0, Version(7));
        batch
    }

    fn outcomes(body: &str) -> Vec<Option<Outcome>> {
        let batch = batch();
        let part: Vec<_> = batch.iter().enumerate().collect();
        let mut outcomes = vec![None; batch.len()];
        read(&target(), &part, body.as_bytes(), &mut outcomes).expect("is an answer");
        outcomes
    }

    fn outcome(status: u16, error: &str) -> Outcome {
        let body = format!(
            r#"{{"items":[{{"index":{{"_index":"goods","_id":"a","status":{status},"error":{error}}}}}]}}"#
        );
        outcomes(&body)[0].clone().expect("is answered")
    }

    #[test]
    fn items_are_matched_by_id_and_action_in_any_order() {
        let body = r#"{"items":[
            {"update":{"_index":"goods","_id":"driftless-guard","status":404,"error":{"type":"document_missing_exception"}}},
            {"delete":{"_index":"goods","_id":"c","status":404}},
            {"delete":{"_index":"goods","_id":"a","status":200}},
            {"index":{"_index":"goods","_id":"b","status":429,"error":{"type":"circuit_breaking_exception","reason":"full"}}},
            {"index":{"_index":"goods","_id":"unknown","status":200}},
            {"index":{"_index":"goods","_id":"a","status":200}}]}"#;
        let reason = "circuit_breaking_exception: full".into();
        let busy = Outcome::Overloaded { reason, retry_after: None };
        assert_eq!(outcomes(body), [Some(Outcome::Done), Some(busy), Some(Outcome::Done)]);
    }

    #[test]
    fn an_answer_in_which_all_is_well_is_read_without_parsing() {
        let batch = batch();
        let part: Vec<_> = batch.iter().enumerate().collect();
        let body = |index: &str, id: &str, status: &str, end: &str| {
            format!(
                r#"{{"items":[{{"index":{{"_index":"goods","_id":"a","status":201}}}},{{"index":{{"_index":"{index}","_id":"{id}","status":{status}}}}},{{"delete":{{"_index":"goods","_id":"c","status":404}}}}{end}"#
            )
        };
        let is_seen = |body: String| all_done(&target(), &part, body.as_bytes()).is_some();
        assert!(is_seen(body("goods", "b", "200", "]}")));
        for (index, id, status, end) in [
            ("goods", "b", "404", "]}"),
            ("goods", "b", "409", "]}"),
            ("goods", "b", "2000", "]}"),
            ("goods2", "b", "200", "]}"),
            ("goods", "bb", "200", "]}"),
            ("goods", "b", "200", r#","x"]}"#),
            ("goods", "b", "200", ""),
        ] {
            assert!(!is_seen(body(index, id, status, end)), "{index} {id} {status} {end}");
        }
        let done = vec![Some(Outcome::Done); 3];
        assert_eq!(outcomes(&body("goods", "b", "200", "]}")), done, "by comparing");
        assert_eq!(outcomes(&body("goods", "b", "200", "] }")), done, "by parsing");
    }

    #[test]
    fn a_write_that_went_to_another_index_is_not_done() {
        let body = r#"{"items":[{"index":{"_index":"goods.driftless","_id":"a","status":201}}]}"#;
        assert!(matches!(outcomes(body)[0], Some(Outcome::Blocked { .. })));
    }

    #[test]
    fn the_current_version_is_not_taken_from_the_id() {
        let reason = "[current version [9]]: version conflict, current version [7] is higher than the one provided [5]";
        let error =
            format!(r#"{{"type":"version_conflict_engine_exception","reason":"{reason}"}}"#);
        assert_eq!(outcome(409, &error), Outcome::Conflict { current: Version(7) });
    }

    #[test]
    fn rule_14_classes_go_by_type() {
        let class = |status, kind: &str, reason: &str| {
            let error =
                ItemError { kind: kind.into(), reason: Some(reason.into()), caused_by: None };
            class_by_type(&error, status)
        };
        let of = "illegal_argument_exception";
        assert_eq!(class(400, "mapper_parsing_exception", ""), Class::Document);
        assert_eq!(
            class(400, of, "Document contains at least one immense term in"),
            Class::Document
        );
        assert_eq!(class(400, of, "pipeline with id [x] does not exist"), Class::Systemic);
        assert_eq!(
            class(400, of, "Limit of total fields [1000] has been exceeded"),
            Class::Systemic
        );
        assert_eq!(class(403, "cluster_block_exception", "write (api)"), Class::Systemic);
        assert_eq!(class(429, "cluster_block_exception", "flood-stage"), Class::Patience);
        assert_eq!(class(503, "cluster_block_exception", "no master"), Class::Patience);
        assert_eq!(class(404, "resource_not_found_exception", "model"), Class::Systemic);
        assert_eq!(class(404, "index_not_found_exception", "require_alias"), Class::Systemic);
        assert_eq!(class(429, "status_exception", "remote"), Class::Patience);
        assert_eq!(class(400, "something_new_exception", ""), Class::Systemic);
    }

    /// As 2.19.1 answered in recordings: a busy, unreachable or odd model is waited for, a model that is not there or may
    /// not be asked is somebody's to mend, and only what is said of a text is held against it.
    #[test]
    fn errors_of_the_clusters_own_pipeline_have_their_classes() {
        let class = |status, kind: &str, reason: &str| {
            let error =
                ItemError { kind: kind.into(), reason: Some(reason.into()), caused_by: None };
            class_by_type(&error, status)
        };
        let said = "Error from remote service: {\"error\": {}}";
        for status in [408, 425, 429, 500, 502, 503, 504, 529] {
            assert_eq!(class(status, "status_exception", said), Class::Patience, "{status}");
        }
        for status in [400, 413, 422] {
            assert_eq!(class(status, "status_exception", said), Class::Document, "{status}");
        }
        for status in [401, 403, 404] {
            assert_eq!(class(status, "status_exception", said), Class::Systemic, "{status}");
        }
        for (status, kind, reason) in [
            (500, "status_exception", "Error communicating with remote model: Read timed out"),
            (
                500,
                "status_exception",
                "Error communicating with remote model: Connection refused: /127.0.0.1:9",
            ),
            (429, "status_exception", "Request is throttled at model level."),
            (
                429,
                "circuit_breaking_exception",
                "Memory Circuit Breaker is open, please check your resources!",
            ),
            (500, "m_l_limit_exceeded_exception", "exceed max running task limit"),
            (500, "m_l_exception", "Fail to execute PREDICT in aws connector"),
            (500, "index_out_of_bounds_exception", "Index 1 out of bounds for length 1"),
            (500, "null_pointer_exception", "Cannot invoke"),
            (500, "path_not_found_exception", "Expected to find an object"),
        ] {
            assert_eq!(class(status, kind, reason), Class::Patience, "{reason}");
        }
        let of = "illegal_argument_exception";
        for (status, kind, reason) in [
            (404, "status_exception", "Failed to find model"),
            (400, of, "Model not ready yet. Please deploy the model first."),
            (400, of, "Remote inference host name has private ip address: 127.0.0.1"),
            (400, of, "pipeline with id [x] does not exist"),
            (400, of, "Invalid payload: { \"input\": "),
        ] {
            assert_eq!(class(status, kind, reason), Class::Systemic, "{reason}");
        }
        for reason in [
            "map type field [title] has empty string value, cannot process it",
            "list type field [title] has null, cannot process it",
            "[t] configuration doesn't match actual value type, configuration type is: java.lang.String",
            "Some parameter placeholder not filled in payload: foo",
        ] {
            assert_eq!(class(400, of, reason), Class::Document, "{reason}");
        }
    }

    #[test]
    fn what_a_model_refused_is_told_apart_and_does_not_quote_a_text() {
        let mut batch = Batch::default();
        batch.upsert("a", 0, Version(5), br#"{"t":"sesame"}"#);
        batch.upsert("b", 0, Version(6), br#"{"t":"other"}"#);
        let part: Vec<_> = batch.iter().enumerate().collect();
        let body = r#"{"items":[
            {"index":{"_index":"goods","_id":"b","status":400,"error":{"type":"status_exception","reason":"Error from remote service: no 'sesame'"}}},
            {"index":{"_index":"goods","_id":"a","status":400,"error":{"type":"mapper_parsing_exception","reason":"x"}}}]}"#;
        let mut outcomes = vec![None; 2];
        let spoilt = read(&target(), &part, body.as_bytes(), &mut outcomes).expect("an answer");
        assert_eq!(spoilt, [1]);
        let reason = "status_exception: Error from remote service: no '…'".to_owned();
        assert_eq!(outcomes[1], Some(Outcome::Refused { reason }));
    }

    #[test]
    fn a_reason_does_not_quote_the_document() {
        let error = r#"{"type":"mapper_parsing_exception",
            "reason":"failed to parse field [n] of type [integer] in document with id 'a'. Preview of field's value: 'sesame'",
            "caused_by":{"type":"number_format_exception","reason":"For input string: \"sesame\""}}"#;
        let Outcome::Refused { reason } = outcome(400, error) else { panic!("is refused") };
        assert_eq!(
            reason,
            "mapper_parsing_exception: failed to parse field [n] of type [integer] in document with id 'a' (number_format_exception)"
        );
        let error = r#"{"type":"mapper_parsing_exception","reason":"failed to parse field [v]",
            "caused_by":{"type":"illegal_argument_exception","reason":"Vector dimension mismatch. Expected: 3, Given: 2"}}"#;
        let Outcome::Refused { reason } = outcome(400, error) else { panic!("is refused") };
        assert!(reason.ends_with("Expected: 3, Given: 2)"), "{reason}");
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let batch = batch();
        let part: Vec<_> = batch.iter().enumerate().collect();
        for body in ["", "<html>", r#"{"items":[{"index":3}]}"#] {
            let mut outcomes = vec![None; 3];
            let error =
                read(&target(), &part, body.as_bytes(), &mut outcomes).expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::SinkBusy);
        }
        assert_eq!(outcomes("{}"), [None, None, None]);
    }
}
