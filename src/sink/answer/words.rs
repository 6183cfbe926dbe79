//! The words of a bulk answer, made fit to be shown: short, and without what the server or a model's endpoint quotes of
//! a document. Pure.

use std::cell::{OnceCell, RefCell};

use serde_json::Value;

use super::Placed;

/// Reasons are for people; this much of one is enough.
const REASON_BYTES_MAX: usize = 400;
/// How a cluster's pipeline begins to repeat what the model's endpoint said.
pub(super) const OF_THE_ENDPOINT: &str = "Error from remote service";
/// An endpoint that says more than this is not listened to.
const ENDPOINT_BYTES_MAX: usize = 4096;
/// So many different sentences of one answer are looked through.
const SENTENCES_MAX: usize = 16;
/// A text of one or two letters gives nothing away, and would tear any sentence apart.
const QUOTE_BYTES_MIN: usize = 3;

/// The server's reason without the parts in which it quotes the document.
pub(super) fn shown(reason: &str) -> &str {
    const QUOTES: [&str; 6] = [
        ". Preview of field's value",
        ". Preview of invalid vector",
        "; Preview of invalid vector",
        "The prefix of the first immense term",
        "For input string",
        // A parser's: behind it stands the document.
        "[Source: ",
    ];
    /// What comes behind these is the text, or a part of it; behind the last one Elasticsearch repeats the cause.
    const BEFORE_A_TEXT: [&str; 3] =
        ["Invalid payload", "not filled in payload", "failed to parse:"];
    let mut reason = reason;
    for quote in QUOTES {
        reason = reason.split(quote).next().unwrap_or(reason);
    }
    for before in BEFORE_A_TEXT {
        if let Some(at) = reason.find(before) {
            reason = &reason[..at + before.len()];
        }
    }
    short(reason.trim_end_matches(':'))
}

/// As much of the cause's reason as can be shown, of the few that hold none of the document's values and without which
/// nobody knows what to do.
pub(super) fn shown_cause(reason: &str) -> Option<&str> {
    /// What they begin with, and where they begin to quote.
    const KNOWN: [(&str, &str); 5] = [
        ("Vector dimension mismatch", "\n"),
        ("The [dense_vector] field [", "\n"),
        // Zero, or not of unit length.
        ("The [", ". Preview of"),
        ("element_type [", " but found"),
        ("Limit of total fields [", "\n"),
    ];
    let (_, quote) = KNOWN.iter().find(|(beginning, _)| reason.starts_with(beginning))?;
    Some(short(reason.split(quote).next().unwrap_or(reason)))
}

fn short(reason: &str) -> &str {
    reason[..reason.floor_char_boundary(REASON_BYTES_MAX.min(reason.len()))].trim_end()
}

/// What a model's endpoint said about a request's documents. It may quote any of them: the cluster may have sent it the
/// texts of several at once.
pub(super) struct Endpoint<'p> {
    part: &'p [Placed<'p>],
    /// All texts of the part, the longest first.
    texts: OnceCell<Vec<String>>,
    /// Sentences as they came and as they are shown: often one for all.
    known: RefCell<Vec<(String, String)>>,
}

impl<'p> Endpoint<'p> {
    pub fn new(part: &'p [Placed<'p>]) -> Self {
        Self { part, texts: OnceCell::new(), known: RefCell::default() }
    }

    pub fn shown(&self, reason: &str) -> String {
        let mut known = self.known.borrow_mut();
        if let Some((_, shown)) = known.iter().find(|(came, _)| came == reason) {
            return shown.clone();
        }
        if reason.len() > ENDPOINT_BYTES_MAX || known.len() == SENTENCES_MAX {
            return format!("{OF_THE_ENDPOINT} (it says too much to be shown)");
        }
        let texts = self.texts.get_or_init(|| texts(self.part));
        let mut clean = reason.to_owned();
        for text in texts {
            clean = clean.replace(text, "…");
        }
        let shown = short(&clean).to_owned();
        known.push((reason.to_owned(), shown.clone()));
        shown
    }
}

/// Every text of the documents, as it is and as JSON writes it.
fn texts(part: &[Placed<'_>]) -> Vec<String> {
    let mut texts = Vec::new();
    for (_, op) in part {
        if let Ok(document) = serde_json::from_slice::<Value>(op.body) {
            collect(&document, &mut texts);
        }
    }
    texts.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    texts.dedup();
    texts
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() >= QUOTE_BYTES_MIN => {
            let written = value.to_string();
            let escaped = &written[1..written.len() - 1];
            if escaped != text {
                // As JSON inside of JSON, which is how a cluster repeats an answer.
                texts.push(escaped.replace('\\', "\\\\"));
                texts.push(escaped.to_owned());
            }
            texts.push(text.clone());
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, texts)),
        Value::Object(object) => object.values().for_each(|value| collect(value, texts)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Batch;
    use crate::position::Version;

    #[test]
    fn an_endpoints_words_are_shown_without_the_texts_of_any_document() {
        let mut batch = Batch::default();
        batch.upsert(
            "a",
            0,
            Version(1),
            r#"{"t":"open sesame","o":{"l":["say \"friend\""]},"n":7}"#.as_bytes(),
        );
        batch.upsert("b", 0, Version(2), r#"{"t":"open sesame now","s":"is"}"#.as_bytes());
        let part: Vec<_> = batch.iter().enumerate().collect();
        let endpoint = Endpoint::new(&part);
        let said = r#"Error from remote service: {"message": "'open sesame now' and 'say \"friend\"' is 7"}"#;
        let shown = r#"Error from remote service: {"message": "'…' and '…' is 7"}"#;
        assert_eq!(endpoint.shown(said), shown);
        assert_eq!(endpoint.shown(said), shown, "the second time");
        let long = format!("{OF_THE_ENDPOINT}: {}", "x".repeat(ENDPOINT_BYTES_MAX));
        assert!(endpoint.shown(&long).ends_with("(it says too much to be shown)"));
    }

    #[test]
    fn a_servers_reason_does_not_quote_the_document() {
        for (reason, expected) in [
            ("failed [n]. Preview of field's value: 'sesame'", "failed [n]"),
            ("Invalid payload: { \"input\": [sesame", "Invalid payload"),
            (
                "Some parameter placeholder not filled in payload: sesame",
                "Some parameter placeholder not filled in payload",
            ),
            ("[1:12] failed to parse: [1:6] Unexpected sesame", "[1:12] failed to parse"),
            (
                "[1:8] Unexpected close marker '}' (for root starting at [Source: (byte[])\"sesame\"; line: 1])",
                "[1:8] Unexpected close marker '}' (for root starting at",
            ),
        ] {
            assert_eq!(shown(reason), expected);
        }
        assert_eq!(shown(&"é".repeat(300)).len(), REASON_BYTES_MAX);
        for (cause, expected) in [
            (
                "The [cosine] similarity does not support vectors with zero magnitude. Preview of invalid vector: [0.0]",
                Some("The [cosine] similarity does not support vectors with zero magnitude"),
            ),
            (
                "element_type [byte] vectors only support integers between [-128, 127] but found [300] at dim [3];",
                Some("element_type [byte] vectors only support integers between [-128, 127]"),
            ),
            ("Failed to parse value [sesame] as only [true] or [false] are allowed.", None),
        ] {
            assert_eq!(shown_cause(cause), expected);
        }
    }
}
