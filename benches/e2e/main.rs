//! `make bench`: what Driftless does in a second and what that costs, with a real MySQL before it and a sink behind it that
//! costs nothing. `docs/benchmarks.md` says what each figure means. A run that lost or changed a row panics and prints none.
//!
//! `BENCH_ROWS=100000 BENCH_RUNS=1 make bench` is a quick try; `BENCH_LATENCY_S` shortens the part that waits. `make
//! bench-decode` and `make bench-log` are the parts of their names.

#![allow(clippy::print_stdout, reason = "figures are what this program is for")]

mod daemon;
mod decode;
mod large_log;
mod null_sink;
mod rows;
mod source;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use daemon::{Cost, Daemon};
use mysql_async::prelude::Queryable as _;
use null_sink::{Checksum, NullSink, State};
use rows::Table;
use serde_json::json;
use source::Source;

const COMMITS_PER_S: u32 = 100;

/// How large, and how often.
struct Size {
    rows: u32,
    changes: u32,
    runs: usize,
    latency_s: u32,
    /// Of the log that is mostly of no interest.
    log_mb: u32,
}

/// One figure's runs.
#[derive(Default)]
struct Runs(Vec<f64>);

impl Runs {
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
        }
    }

    fn range(&self) -> (f64, f64) {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        self.0.iter().fold(ends, |(low, high), value| (low.min(*value), high.max(*value)))
    }
}

/// Rate, processor time and memory of a phase, run by run.
#[derive(Default)]
struct Phase {
    rows_per_s: Runs,
    cpu_us_per_row: Runs,
    peak_rss_mib: Runs,
}

impl Phase {
    fn add(&mut self, rows: u32, cost: Cost) {
        let rows = f64::from(rows);
        self.rows_per_s.0.push(rows / cost.elapsed.as_secs_f64());
        self.cpu_us_per_row.0.push(cost.cpu.as_secs_f64() * 1e6 / rows);
        self.peak_rss_mib.0.push(cost.peak_rss_bytes as f64 / f64::from(1 << 20));
    }
}

fn main() {
    // `cargo bench` hands over its own arguments, `cargo test --benches` other ones; there is one benchmark.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    if !is_bench {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    runtime.block_on(async {
        match wanted.as_deref() {
            None => run(&size()).await,
            Some("decode") => decode::run(&size()).await,
            Some("log") => large_log::run(&size()).await,
            Some(other) => panic!("{other} is not a benchmark; `decode` and `log` are, or nothing"),
        }
    });
}

fn size() -> Size {
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    };
    let rows = number("BENCH_ROWS", 1_000_000_u32);
    let changes = rows / 2 / source::CHANGES_PER_TRANSACTION * source::CHANGES_PER_TRANSACTION;
    let runs = number("BENCH_RUNS", 5) as usize;
    Size {
        rows,
        changes,
        runs: runs.max(1),
        latency_s: number("BENCH_LATENCY_S", 20),
        log_mb: number("BENCH_LOG_MB", 2_200),
    }
}

async fn run(size: &Size) {
    let source = Source::start();
    let sink = NullSink::start();
    let mut table = Table::of(size.rows);
    eprintln!("loading {} rows", size.rows);
    source.load(&table).await;
    let mut daemon = Daemon::new(source.port, &sink);

    let (mut snapshot, expected) = (Phase::default(), table.checksum());
    let mut select = Runs::default();
    for _ in 0..size.runs {
        select.0.push(f64::from(size.rows) / source.select_all(size.rows).await.as_secs_f64());
        *sink.state() = State::default();
        daemon.forget_state();
        daemon.start();
        snapshot.add(size.rows, daemon.until_written(&sink, expected).await);
        daemon.until_caught_up().await;
        daemon.stop().await;
        check(&sink, expected);
        say("snapshot", &snapshot);
    }
    daemon.save_state();
    let copied = sink.state().clone();

    eprintln!("making {} changes", size.changes);
    let log = source.change(&mut table, size.changes).await;
    let (mut raw, mut stream, expected) = (Runs::default(), Phase::default(), table.checksum());
    let mut log_bytes = 0;
    for _ in 0..size.runs {
        let (took, bytes) = source.read_raw(&log);
        raw.0.push(f64::from(size.changes) / took.as_secs_f64());
        log_bytes = bytes;
        *sink.state() = copied.clone();
        daemon.restore_state();
        daemon.start();
        stream.add(size.changes, daemon.until_written(&sink, expected).await);
        daemon.stop().await;
        check(&sink, expected);
        say("stream", &stream);
    }

    eprintln!("measuring latency");
    let (mut p50, mut p99) = (Runs::default(), Runs::default());
    daemon.start();
    daemon.until_caught_up().await;
    for _ in 0..size.runs {
        let mut latencies = latencies(&source, &sink, &mut table, size.latency_s).await;
        latencies.sort();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
        p50.0.push(at(0.50).as_secs_f64() * 1e3);
        p99.0.push(at(0.99).as_secs_f64() * 1e3);
    }
    daemon.stop().await;
    check(&sink, table.checksum());
    print(size, log_bytes, (&snapshot, &select), (&stream, &raw), (&p50, &p99));
}

/// The end of a run: the daemon has stopped, so nothing can mend what is wrong now.
fn check(sink: &NullSink, expected: Checksum) {
    let state = sink.state();
    assert!(state.fault.is_none(), "the sink was sent {:?}", state.fault);
    assert_eq!(state.checksum, expected, "rows were lost or changed");
}

/// From the commit's return to the reading of the bulk that holds it, commit by commit. A document that is there before
/// its commit returns counts as 0.
async fn latencies(
    source: &Source,
    sink: &NullSink,
    table: &mut Table,
    seconds: u32,
) -> Vec<Duration> {
    let mut conn = source.connect().await;
    conn.query_drop("USE bench").await.expect("the database is there");
    sink.watch(table.next_id());
    let mut committed = HashMap::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / COMMITS_PER_S);
    for _ in 0..COMMITS_PER_S * seconds {
        pace.tick().await;
        let (id, mut values) = (table.next_id(), String::new());
        table.insert().write_values(&mut values);
        let insert = format!("INSERT INTO goods VALUES ({values})");
        conn.query_drop(insert).await.expect("the row is new");
        committed.insert(id, Instant::now());
    }
    let began = Instant::now();
    while sink.arrivals().len() < committed.len() {
        assert!(began.elapsed() < Duration::from_secs(30), "documents are missing");
        pace.tick().await;
    }
    let took = |(id, read_at): (u32, Instant)| read_at.saturating_duration_since(committed[&id]);
    sink.arrivals().into_iter().map(took).collect()
}

fn say(what: &str, phase: &Phase) {
    let last = |runs: &Runs| runs.0.last().copied().unwrap_or(f64::NAN);
    eprintln!(
        "{what}: {:.0} rows/s, {:.2} µs CPU a row, {:.0} MiB",
        last(&phase.rows_per_s),
        last(&phase.cpu_us_per_row),
        last(&phase.peak_rss_mib)
    );
}

fn print(
    size: &Size,
    log_bytes: u64,
    (snapshot, select): (&Phase, &Runs),
    (stream, raw): (&Phase, &Runs),
    (p50, p99): (&Runs, &Runs),
) {
    println!(
        "{} rows; {} changes in {} transactions, {} MiB of log; {} commits/s for {} s; median (lowest to highest) of {}",
        size.rows,
        size.changes,
        size.changes / source::CHANGES_PER_TRANSACTION,
        log_bytes >> 20,
        COMMITS_PER_S,
        size.latency_s,
        size.runs
    );
    let line = |name: &str, runs: &Runs, digits: usize| {
        let (low, high) = runs.range();
        let median = runs.median();
        println!("| {name} | {median:.digits$} | {low:.digits$} to {high:.digits$} |");
    };
    println!("| figure | median | range |\n|---|---|---|");
    line("stream, rows/s", &stream.rows_per_s, 0);
    line("stream, µs CPU a row", &stream.cpu_us_per_row, 2);
    line("stream, peak RSS, MiB", &stream.peak_rss_mib, 0);
    line("snapshot, rows/s", &snapshot.rows_per_s, 0);
    line("snapshot, µs CPU a row", &snapshot.cpu_us_per_row, 2);
    line("snapshot, peak RSS, MiB", &snapshot.peak_rss_mib, 0);
    line("SELECT *, rows/s", select, 0);
    line("raw read, rows/s", raw, 0);
    line("latency p50, ms", p50, 2);
    line("latency p99, ms", p99, 2);
    println!("stream : raw = {:.2}", stream.rows_per_s.median() / raw.median());
    let snapshot_to_select = snapshot.rows_per_s.median() / select.median();
    println!("snapshot : SELECT * = {snapshot_to_select:.2}");
    let round = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
    let figures = json!({
        "stream_rows_per_s": stream.rows_per_s.median().round() as u64,
        "stream_cpu_us_per_row": round(stream.cpu_us_per_row.median(), 3),
        "snapshot_rows_per_s": snapshot.rows_per_s.median().round() as u64,
        "select_rows_per_s": select.median().round() as u64,
        "snapshot_ratio_to_select": round(snapshot_to_select, 3),
        "snapshot_cpu_us_per_row": round(snapshot.cpu_us_per_row.median(), 3),
        "peak_rss_mib": round(stream.peak_rss_mib.median().max(snapshot.peak_rss_mib.median()), 1),
        "raw_read_rows_per_s": raw.median().round() as u64,
        "latency_ms_p50": round(p50.median(), 3),
        "latency_ms_p99": round(p99.median(), 3),
    });
    println!("{figures}");
}
