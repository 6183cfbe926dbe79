//! What went wrong, as the HTTP door says it: status, JSON and text. `docs/http.md` documents the shape.

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Remedy};

/// The status of an answer with these errors, decided by the first.
pub fn status(errors: &[Error]) -> u16 {
    let Some(error) = errors.first() else { return 500 };
    match (error.kind(), error.remedy()) {
        (ErrorKind::NotFound, _) => 404,
        (ErrorKind::State | ErrorKind::Io, _) => 500,
        // The same statement may succeed later.
        (_, Remedy::Retry | Remedy::Stop) => 503,
        (_, Remedy::Refuse | Remedy::Fail | Remedy::NewEpoch) => 400,
    }
}

/// `{"error": {…the first…}, "errors": [{…}, …], "status": 400}`.
pub fn json(status: u16, errors: &[Error], text: &str) -> Value {
    let all: Vec<Value> = errors.iter().map(|error| one(error, text)).collect();
    json!({ "error": all.first(), "errors": all, "status": status })
}

/// Each error with the place in the statement that it speaks of.
pub fn text(errors: &[Error], text: &str) -> String {
    let all: Vec<String> =
        errors.iter().map(|error| format!("error: {}\n", error.point_into(text))).collect();
    all.join("")
}

fn one(error: &Error, text: &str) -> Value {
    let mut shown = json!({ "type": kind(error.kind()), "reason": reason(error) });
    if let Some(advice) = error.advice() {
        shown["advice"] = json!(advice);
    }
    if let Some(span) = error.span() {
        let (line, column) = span.line_column(text);
        shown["line"] = json!(line);
        shown["column"] = json!(column);
        shown["pointer"] = json!(error.point_into(text));
    }
    shown
}

/// The report without the advice, which has its own field.
fn reason(error: &Error) -> String {
    let report = error.report();
    let advice = error.advice().map(|advice| format!("; {advice}"));
    let cut = advice.and_then(|advice| report.strip_suffix(&advice).map(str::to_owned));
    cut.unwrap_or(report)
}

fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Input => "input",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::NotFound => "not_found",
        ErrorKind::SourceUnreachable => "source_unreachable",
        ErrorKind::SourceRefused => "source_refused",
        ErrorKind::SourceLost => "source_lost",
        ErrorKind::Schema => "schema",
        ErrorKind::Undecodable => "undecodable",
        ErrorKind::ModelBusy => "model_busy",
        ErrorKind::ModelAnswer => "model_answer",
        ErrorKind::ModelRefused => "model_refused",
        ErrorKind::SinkBusy => "sink_busy",
        ErrorKind::SinkBlocked => "sink_blocked",
        ErrorKind::DocumentRefused => "document_refused",
        ErrorKind::ForeignVersion => "foreign_version",
        ErrorKind::State => "state",
        ErrorKind::StateFull => "state_full",
        ErrorKind::Io => "io",
        ErrorKind::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Span;

    #[test]
    fn an_error_has_its_place_in_the_statement() {
        let statement = "CALL x(\n  t3)";
        let errors = [
            Error::input("unknown column `t3`").with_advice("it has id, t1").at(Span::new(10, 12)),
            Error::new(ErrorKind::SinkBusy, "cannot reach the index"),
        ];
        let pretty = serde_json::to_string_pretty(&json(status(&errors), &errors, statement))
            .expect("it is JSON");
        insta::assert_snapshot!(pretty, @r#"
        {
          "error": {
            "type": "input",
            "reason": "unknown column `t3`",
            "advice": "it has id, t1",
            "line": 2,
            "column": 3,
            "pointer": "unknown column `t3`; it has id, t1\n  line 2, column 3\n  |   t3)\n  |   ^^"
          },
          "errors": [
            {
              "type": "input",
              "reason": "unknown column `t3`",
              "advice": "it has id, t1",
              "line": 2,
              "column": 3,
              "pointer": "unknown column `t3`; it has id, t1\n  line 2, column 3\n  |   t3)\n  |   ^^"
            },
            {
              "type": "sink_busy",
              "reason": "cannot reach the index"
            }
          ],
          "status": 400
        }
        "#);
        insta::assert_snapshot!(text(&errors, statement), @r#"
        error: unknown column `t3`; it has id, t1
          line 2, column 3
          |   t3)
          |   ^^
        error: cannot reach the index
        "#);
    }
}
