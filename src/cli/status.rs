//! `driftless status`: the links of a running daemon, for people.

use serde::Deserialize;
use serde_json::json;

use super::{Failure, ask, print};
use crate::admin::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    daemon: ask::Daemon,
}

#[derive(Debug, Deserialize)]
struct Answer {
    links: Vec<Link>,
}

#[derive(Debug, Deserialize)]
struct Link {
    id: String,
    table: String,
    index: String,
    state: String,
    errors: String,
    latency_ms: i64,
    restarts: u64,
    dead_letters: u64,
    verified: Option<Verified>,
    pipeline: String,
    pipeline_mode: String,
    snapshot: Option<Progress>,
}

/// What the last verification of the whole link has found.
#[derive(Debug, Deserialize)]
struct Verified {
    at: String,
    differences: u64,
    repaired: u64,
}

#[derive(Debug, Deserialize)]
struct Progress {
    rows: u64,
    rows_total_estimate: u64,
    rows_per_s: f64,
    eta_s: Option<u64>,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let answer = arguments.daemon.ask("/_links", None)?;
    if !answer.is_ok {
        return Err(Failure::Failed(answer.text));
    }
    let answer: Answer = serde_json::from_str(&answer.text).map_err(|cause| {
        Failure::Failed(format!("this is not the answer of a daemon of our version: {cause}"))
    })?;
    match answer.links.is_empty() {
        true => print("no links; CALL dbms_etl.sync_by_map(…) makes one\n"),
        false => print(show(&answer.links).to_text()),
    }
    Ok(())
}

fn show(links: &[Link]) -> Table {
    let columns = [
        "LINK", "STATE", "LAG", "SNAPSHOT", "VERIFIED", "LETTERS", "PIPELINE", "RESTARTS", "FROM",
        "TO", "REASON",
    ];
    let row = |link: &Link| {
        let cells = [
            link.id.clone(),
            link.state.clone(),
            lag(link.latency_ms),
            link.snapshot
                .as_ref()
                .map(|snapshot| progress(&link.state, snapshot))
                .unwrap_or_default(),
            link.verified.as_ref().map(verified).unwrap_or_default(),
            link.dead_letters.to_string(),
            pipeline(link),
            link.restarts.to_string(),
            link.table.clone(),
            link.index.clone(),
            link.errors.clone(),
        ];
        cells.map(|cell| json!(cell)).to_vec()
    };
    Table { columns: columns.map(str::to_owned).to_vec(), rows: links.iter().map(row).collect() }
}

/// `12 ms`, `3.4 s`, `2 h 05 min`; nothing before the stream.
fn lag(ms: i64) -> String {
    match ms {
        ..0 => "-".to_owned(),
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => duration(ms as u64 / 1_000),
    }
}

/// `2026-11-21 22:41:21: 4 differ`; nothing before the first one.
fn verified(verified: &Verified) -> String {
    match verified.differences.saturating_sub(verified.repaired) {
        0 => format!("{}: right", verified.at),
        left => format!("{}: {left} differ", verified.at),
    }
}

/// `text_to_vec (emulate)`; nothing where no pipeline runs.
fn pipeline(link: &Link) -> String {
    match (link.pipeline.as_str(), link.pipeline_mode.as_str()) {
        (_, "") => String::new(),
        ("", mode) => format!("none ({mode})"),
        (name, mode) => format!("{name} ({mode})"),
    }
}

fn progress(state: &str, progress: &Progress) -> String {
    // A link that waits or has failed may be in the middle of its snapshot.
    if matches!(state, "catching_up" | "running") {
        return format!("{} rows, done", progress.rows);
    }
    let Progress { rows, rows_total_estimate, rows_per_s, eta_s } = progress;
    let mut text = format!("{rows} of ~{rows_total_estimate}, {rows_per_s:.0}/s");
    // One that stands has no speed.
    if state != "snapshotting" {
        return format!("{rows} of ~{rows_total_estimate} read");
    }
    if let Some(eta_s) = eta_s {
        text.push_str(&format!(", {} left", duration(*eta_s)));
    }
    text
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_shown_with_lag_and_progress() {
        let answer = json!({"links": [
            {"id": "products", "table": "shop.products", "index": "products", "state": "snapshotting", "errors": "",
             "latency_ms": -1, "restarts": 0, "position": "", "statement": "", "dead_letters": 0, "verified": null,
             "pipeline": "to_vec", "pipeline_mode": "emulate",
             "snapshot": {"rows": 1200, "rows_total_estimate": 500000, "rows_per_s": 300.4, "eta_s": 1663}},
            {"id": "orders", "table": "shop.orders", "index": "orders", "state": "recovering",
             "errors": "cannot connect to 10.0.0.9:3306", "latency_ms": 7_500_000, "restarts": 3, "dead_letters": 2,
             "verified": {"at": "2026-11-21 22:41:21", "differences": 4, "repaired": 1, "unjudged": 0},
             "pipeline": "", "pipeline_mode": "", "snapshot": null},
            {"id": "users", "table": "shop.users", "index": "users", "state": "running", "errors": "",
             "latency_ms": 12, "restarts": 0, "dead_letters": 0,
             "verified": {"at": "2026-11-21 22:41:21", "differences": 1, "repaired": 1, "unjudged": 0}, "pipeline": "", "pipeline_mode": "delegate",
             "snapshot": {"rows": 20, "rows_total_estimate": 18, "rows_per_s": 300.4, "eta_s": 0}},
        ]});
        let answer: Answer = serde_json::from_value(answer).expect("the door's shape");
        insta::assert_snapshot!(show(&answer.links).to_text(), @r#"
        +----------+--------------+------------+------------------------------------------+-------------------------------+---------+------------------+----------+---------------+----------+---------------------------------+
        | LINK     | STATE        | LAG        | SNAPSHOT                                 | VERIFIED                      | LETTERS | PIPELINE         | RESTARTS | FROM          | TO       | REASON                          |
        +----------+--------------+------------+------------------------------------------+-------------------------------+---------+------------------+----------+---------------+----------+---------------------------------+
        | products | snapshotting | -          | 1200 of ~500000, 300/s, 27 min 43 s left |                               | 0       | to_vec (emulate) | 0        | shop.products | products |                                 |
        | orders   | recovering   | 2 h 05 min |                                          | 2026-11-21 22:41:21: 3 differ | 2       |                  | 3        | shop.orders   | orders   | cannot connect to 10.0.0.9:3306 |
        | users    | running      | 12 ms      | 20 rows, done                            | 2026-11-21 22:41:21: right    | 0       | none (delegate)  | 0        | shop.users    | users    |                                 |
        +----------+--------------+------------+------------------------------------------+-------------------------------+---------+------------------+----------+---------------+----------+---------------------------------+
        "#);
    }

    #[test]
    fn a_lag_is_read_at_a_glance() {
        let shown = [-1, 12, 3_400, 65_000, 7_500_000].map(lag);
        assert_eq!(shown, ["-", "12 ms", "3.4 s", "1 min 05 s", "2 h 05 min"]);
    }
}
