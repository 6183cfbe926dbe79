//! `VERIFY LINK` as the doors show it: the order, how far it is, and the table of its verdict. Verifies nothing.

use serde_json::{Value, json};

use super::table::Table;
use crate::link::{Counts, Difference, Order, Verdict, Verification};
use crate::statement::VerifyLink;

const COLUMNS: [&str; 4] = ["Kind", "Id", "Fields", "Message"];

pub fn order(statement: &VerifyLink) -> Order {
    Order {
        link: statement.link.text.clone(),
        condition: statement.condition.as_ref().map(|condition| condition.text.clone()),
        sample_ppm: statement.sample_ppm,
        with_vectors: statement.with_vectors,
        repair: statement.repair,
    }
}

/// `verification of 1200 rows and 0 documents so far, 3 differences`.
pub fn progress(verification: &Verification) -> String {
    let Verification { rows, documents, differences, waits_for } = verification;
    let mut text = format!(
        "verification of {rows} rows and {documents} documents so far, {differences} differences"
    );
    if !waits_for.is_empty() {
        text.push_str(&format!(", waits for: {waits_for}"));
    }
    text
}

/// First the summary, as JSON in a string, and then the differences.
pub fn table(verdict: &Verdict) -> Table {
    let mut rows = vec![vec![json!("summary"), Value::Null, Value::Null, json!(summary(verdict))]];
    rows.extend(verdict.differences.iter().map(row));
    Table { columns: COLUMNS.map(str::to_owned).to_vec(), rows }
}

fn summary(verdict: &Verdict) -> String {
    let Counts {
        rows,
        documents,
        missing,
        different,
        stale_vectors,
        extra,
        foreign,
        unjudged,
        repaired,
    } = verdict.counts;
    json!({
        "rows": rows,
        "documents": documents,
        "differences": verdict.counts.differences(),
        "missing": missing,
        "different": different,
        "stale_vectors": stale_vectors,
        "extra": extra,
        "foreign": foreign,
        "unjudged": unjudged,
        "repaired": repaired,
        "shown": verdict.differences.len(),
        "extras_looked_for": verdict.has_looked_for_extras,
        "vectors_computed": verdict.has_computed_vectors,
        "elapsed_ms": verdict.elapsed.as_millis() as u64,
        "position": verdict.position,
    })
    .to_string()
}

fn row(difference: &Difference) -> Vec<Value> {
    vec![
        json!(difference.kind.as_str()),
        json!(difference.id),
        json!(difference.fields.join(", ")),
        json!(difference.remedy),
    ]
}
