//! `make bench-log`: a log of which one event of rows in a hundred is of a mapped table, streamed by the daemon and read
//! raw by `mysqlbinlog`. What it costs to step over what nobody wants.

use mysql_async::prelude::Queryable as _;

use crate::daemon::Daemon;
use crate::null_sink::{NullSink, State};
use crate::rows::Table;
use crate::source::Source;
use crate::{Phase, Runs, Size, check, say};

/// The server closes an event of rows at 8 KiB: eight rows of the unmapped table, twenty of the mapped one.
const EVENTS_OF_OTHERS: u32 = 99;
const OTHERS_PER_EVENT: u32 = 8;
const OTHER_BYTES: u32 = 1000;
const MAPPED_PER_TRANSACTION: u32 = 20;

pub async fn run(size: &Size) {
    let megabytes = size.log_mb;
    let source = Source::start();
    let sink = NullSink::start();
    let mut table = Table::of(1);
    source.load(&table).await;
    let mut daemon = Daemon::new(source.port, &sink);
    daemon.start();
    daemon.until_written(&sink, table.checksum()).await;
    daemon.until_caught_up().await;
    daemon.stop().await;
    daemon.save_state();
    let copied = sink.state().clone();

    eprintln!("writing {megabytes} MB of log");
    let transaction_bytes = EVENTS_OF_OTHERS * OTHERS_PER_EVENT * OTHER_BYTES;
    let transactions = (u64::from(megabytes) * 1_000_000).div_ceil(transaction_bytes.into()) as u32;
    let files = write(&source, &mut table, transactions).await;
    let (expected, rows) = (table.checksum(), transactions * MAPPED_PER_TRANSACTION);
    let (mut raw, mut stream, mut ratio) = (Runs::default(), Phase::default(), Runs::default());
    let mut log_bytes = 0;
    for _ in 0..size.runs {
        let read: Vec<_> = files.iter().map(|file| source.read_raw(file)).collect();
        let raw_s: f64 = read.iter().map(|(took, _)| took.as_secs_f64()).sum();
        log_bytes = read.iter().map(|(_, bytes)| bytes).sum();
        *sink.state() = State::clone(&copied);
        daemon.restore_state();
        daemon.start();
        let cost = daemon.until_written(&sink, expected).await;
        daemon.stop().await;
        check(&sink, expected);
        stream.add(rows, cost);
        let streamed_s = cost.elapsed.as_secs_f64();
        say("stream", &stream);
        eprintln!("{log_bytes} bytes: raw {raw_s:.2} s, stream {streamed_s:.2} s");
        raw.0.push(log_bytes as f64 / 1e6 / raw_s);
        ratio.0.push(raw_s / streamed_s);
    }
    let megabytes = log_bytes as f64 / 1e6;
    let line = |name: &str, runs: &Runs, digits: usize| {
        let (low, high) = runs.range();
        println!("| {name} | {:.digits$} | {low:.digits$} to {high:.digits$} |", runs.median());
    };
    println!("{megabytes:.0} MB of log, {rows} rows of the mapped table; median of {}", size.runs);
    println!("| figure | median | range |\n|---|---|---|");
    line("raw read, MB/s", &raw, 0);
    line("stream : raw", &ratio, 2);
    line("stream, peak RSS, MiB", &stream.peak_rss_mib, 0);
    println!(
        "{}",
        serde_json::json!({
            "log_mb": megabytes.round(),
            "raw_mb_per_s": raw.median().round(),
            "stream_to_raw": (ratio.median() * 100.0).round() / 100.0,
            "peak_rss_mib": stream.peak_rss_mib.median().round(),
        })
    );
}

/// The unmapped table keeps nothing, so that only its log costs time. Gives the files that hold all of it.
async fn write(source: &Source, table: &mut Table, transactions: u32) -> Vec<String> {
    let mut conn = source.connect().await;
    let others = EVENTS_OF_OTHERS * OTHERS_PER_EVENT;
    for statement in [
        "USE bench",
        "CREATE TABLE others (id INT, filler VARBINARY(2000)) ENGINE = BLACKHOLE",
        "CREATE TABLE numbers (id INT PRIMARY KEY)",
        "SET SESSION cte_max_recursion_depth = 100000",
        &format!(
            "INSERT INTO numbers WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {others}) SELECT i FROM n"
        ),
    ] {
        conn.query_drop(statement).await.expect("the tables can be made");
    }
    let first = source.new_file(&mut conn).await;
    for _ in 0..transactions {
        let mut statements = format!(
            "BEGIN;INSERT INTO others SELECT id, REPEAT('x', {OTHER_BYTES}) FROM numbers;INSERT INTO goods VALUES "
        );
        for at in 0..MAPPED_PER_TRANSACTION {
            statements.push_str(if at == 0 { "(" } else { ",(" });
            table.insert().write_values(&mut statements);
            statements.push(')');
        }
        statements.push_str(";COMMIT");
        conn.query_drop(statements).await.expect("the rows are new");
    }
    let end = source.new_file(&mut conn).await;
    let all: Vec<(String, u64, String)> =
        conn.query("SHOW BINARY LOGS").await.expect("it is a statement");
    all.into_iter().map(|(file, ..)| file).filter(|file| (&first..&end).contains(&file)).collect()
}
