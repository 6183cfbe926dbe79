//! The delivery contract of `docs/delivery.md`, line by line, as far as no rule's test and not the kill test shows it:
//! cut connections, resuming, memory, stops. A test begins with `d` and the number of its line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::Setup;
use crate::support::model::{Behaviour, Model};
use crate::support::proxy::Proxy;
use crate::support::servers::{self, Flavour, OwnMysql};
use crate::support::stage::{Stage, index_body};
use crate::support::tutorial::Door;
use crate::support::{MINUTES_2, SECONDS_10, SECONDS_30, unique, until};

/// Rows `from..from + count` in one transaction, with `bytes` bytes in column `b`.
pub async fn fill(stage: &Stage, from: u32, count: u32, bytes: u32) {
    let mut session = stage.mysql.session().await;
    fill_in(&mut session, &stage.db, from, count, bytes).await;
}

async fn fill_in(session: &mut mysql_async::Conn, db: &str, from: u32, count: u32, bytes: u32) {
    use mysql_async::prelude::Queryable;
    for sql in [
        "SET SESSION cte_max_recursion_depth = 10000000".to_owned(),
        format!(
            "INSERT INTO {db}.t WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) \
             SELECT {from} + i, CONCAT('row ', i), REPEAT(LPAD(i, 32, 'x'), {bytes} DIV 32) FROM n"
        ),
    ] {
        session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

async fn metric(stage: &Stage, series: &str) -> f64 {
    stage.daemon.metric(series).await.unwrap_or(0.0)
}

/// A stage that reads its source through a proxy.
async fn proxied_stage(setup: impl FnOnce(Setup) -> Setup) -> (Stage, Proxy) {
    let mysql = servers::mysql(Flavour::Mysql97);
    let source = Proxy::tcp(&mysql.address()).await;
    let port = i64::from(source.port());
    let stage = Stage::set(mysql, |default| setup(default).set("source.port", port)).await;
    (stage, source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_cut_connection_loses_nothing_in_the_middle_of_a_transaction_either() {
    let (stage, source) = proxied_stage(|setup| setup).await;
    fill(&stage, 0, 100, 32).await;
    stage.link().await;
    stage.until_equal("the first rows are documents", SECONDS_30).await;
    // Some ten megabytes in one transaction, so slowly that every cut falls into it.
    source.delay(Duration::from_millis(15));
    let before = metric(&stage, "driftless_source_bytes_total").await;
    fill(&stage, 1_000, 50_000, 192).await;
    stage.exec("UPDATE {t} SET id = id + 1 WHERE id >= 1000 ORDER BY id DESC LIMIT 300").await;
    let mut cut_at = before;
    for _ in 0..3 {
        let reached = until("more of the transaction has come", SECONDS_30, async || {
            let bytes = metric(&stage, "driftless_source_bytes_total").await;
            (bytes > cut_at + 1_000_000.0).then_some(bytes)
        })
        .await;
        assert!(reached < cut_at + 8_000_000.0, "the transaction came too fast to be cut");
        source.drop_connections();
        cut_at = reached;
    }
    source.delay(Duration::ZERO);
    stage.until_equal("all rows are documents", MINUTES_2).await;
    assert!(metric(&stage, "driftless_source_reconnects_total").await >= 3.0);

    source.cut();
    stage.until_state("recovering").await;
    stage.exec("DELETE FROM {t} WHERE id < 50").await;
    source.mend();
    stage.until_equal("what was changed meanwhile is in the index", SECONDS_30).await;
    stage.until_state("running").await;
}

/// A server whose log nobody else fills, with a table that has a history in the current file.
pub async fn quiet_stage(
    options: &[&str],
    setup: impl FnOnce(Setup) -> Setup,
) -> (Stage, OwnMysql) {
    let server = servers::own_mysql(Flavour::Mysql97, options).await;
    let stage = Stage::set(server.client(), setup).await;
    stage.exec("ALTER TABLE {t} ADD COLUMN gone INT").await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'old', 1), (2, 'old', 'old', 2)").await;
    stage.exec("ALTER TABLE {t} DROP COLUMN gone").await;
    stage.exec("UPDATE {t} SET a = 'new' WHERE id = 1").await;
    (stage, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_reading_goes_on_by_file_and_offset() {
    let (mut stage, _server) = quiet_stage(&[], |setup| setup.set("source.resume", "file")).await;
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    // Nothing was committed since the link began: what stands before it in the file must not be read again.
    for change in
        ["INSERT INTO {t} VALUES (3, 'x', 'y')", "UPDATE {t} SET id = id + 1 ORDER BY id DESC"]
    {
        stage.daemon.kill9();
        stage.exec(change).await;
        stage.daemon.start_again().await;
        stage.until_equal("what was changed meanwhile is in the index", SECONDS_30).await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
    stage.daemon.kill9();
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    stage.exec("DELETE FROM {t} WHERE id = 2").await;
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    stage.daemon.start_again().await;
    stage.until_equal("files were followed", SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_checkpoint_may_hold_what_the_source_has_not_yet_executed() {
    let (mut stage, _server) = quiet_stage(&[], |setup| setup).await;
    stage.link().await;
    stage.settle().await;
    for sql in [
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
        "SET GLOBAL rpl_semi_sync_source_timeout = 600000",
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica = 1",
        "SET GLOBAL rpl_semi_sync_source_enabled = 1",
    ] {
        stage.mysql.exec(sql).await;
    }
    let (mysql, db) = (stage.mysql.clone(), stage.db.clone());
    let held = tokio::spawn(async move {
        mysql.exec(format!("INSERT INTO {db}.t VALUES (7, 'held', 'x')")).await;
    });
    until("the held row is a document", SECONDS_30, async || {
        stage.search.doc(&stage.index, "7").await.is_some()
    })
    .await;
    stage.daemon.stop().await;
    assert!(!held.is_finished(), "the commit is not held");
    stage.daemon.start_again().await;
    let (state, message) = stage.status().await;
    assert_ne!(state, "failed", "{message}");
    stage.mysql.exec("SET GLOBAL rpl_semi_sync_source_enabled = 0").await;
    held.await.expect("the held commit ends");
    stage.settle().await;
    stage.until_equal("the index equals the table", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_snapshot_goes_on_at_its_chunk() {
    const ROWS: u32 = 20_000;
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup
            .set("snapshot.chunk_rows", 500)
            .set("sink.bulk_documents", 200)
            .set("link.checkpoint_interval_ms", 20)
    })
    .await;
    fill(&stage, 0, ROWS, 32).await;
    stage.proxy.delay(Duration::from_millis(30));
    stage.link().await;
    let series = format!("driftless_snapshot_rows{{link=\"{}\"}}", stage.index);
    let written =
        format!("driftless_sink_documents_total{{link=\"{}\",outcome=\"done\"}}", stage.index);
    let copied = until("a third is acknowledged", MINUTES_2, async || {
        let documents = metric(&stage, &written).await;
        (documents >= f64::from(ROWS / 3)).then_some(documents)
    })
    .await;
    let (state, message) = stage.status().await;
    assert_eq!(state, "snapshotting");
    let told = message["others"].as_str().unwrap_or_default();
    assert!(told.contains(" rows/s") && told.contains("of about"), "progress is told: {told}");
    stage.daemon.kill9();
    stage.exec("DELETE FROM {t} WHERE id < 10").await;
    stage.proxy.delay(Duration::ZERO);
    stage.daemon.start_again().await;
    stage.until_equal("the index equals the table", MINUTES_2).await;
    assert!(stage.daemon.log().contains("snapshot done"));
    // What this life has read itself: all but what was acknowledged before, as far as no lane was behind the others.
    let read = format!("driftless_link_rows_total{{kind=\"snapshot\",link=\"{}\"}}", stage.index);
    let read = stage.daemon.metric(&read).await.expect("rows are counted");
    let held = f64::from(ROWS) / 5.0;
    assert!(read <= f64::from(ROWS) - copied + held, "{read} rows were read again after {copied}");
    assert!(metric(&stage, &series).await >= f64::from(ROWS) - 10.0, "the count went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_document_never_goes_back_while_kills_are_replayed() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("link.checkpoint_interval_ms", 500)
    })
    .await;
    stage.exec("INSERT INTO {t} VALUES (1, '0', 'x')").await;
    stage.link().await;
    stage.until_equal("the row is a document", SECONDS_30).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (mysql, db, stopped) = (stage.mysql.clone(), stage.db.clone(), stop.clone());
    let writer = tokio::spawn(async move {
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            count += 1;
            mysql.exec(format!("UPDATE {db}.t SET a = '{count}' WHERE id = 1")).await;
        }
    });
    let looks = Arc::new(AtomicU64::new(0));
    let (search, index, stopped, looked) =
        (stage.search.clone(), stage.index.clone(), stop.clone(), looks.clone());
    let watcher = tokio::spawn(async move {
        let (mut version, mut count) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            let doc = search.doc(&index, "1").await.expect("it is never away");
            let now: u64 = doc.source["a"].as_str().and_then(|a| a.parse().ok()).expect("a number");
            assert!(doc.version >= version, "version {} after {version}", doc.version);
            assert!(now >= count, "state {now} after {count}");
            (version, count) = (doc.version, now);
            looked.fetch_add(1, Ordering::Relaxed);
        }
    });
    for _ in 0..6 {
        let reached = stage.proxy.forwarded() + 20;
        until("some bulks have passed", SECONDS_30, async || stage.proxy.forwarded() >= reached)
            .await;
        stage.daemon.kill9();
        stage.daemon.start_again().await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer ends");
    watcher.await.expect("the document never went back");
    assert!(looks.load(Ordering::Relaxed) > 100, "it was looked at often");
    stage.until_equal("the index equals the table", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d4_composite_keys_are_copied_moved_and_deleted() {
    let stage =
        Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup.set("snapshot.chunk_rows", 3))
            .await;
    let (db, index) = (&stage.db, &stage.index);
    let exec = async |sql: &str| stage.mysql.exec(sql.replace("{c}", &format!("{db}.c"))).await;
    exec(
        "CREATE TABLE {c} (p VARCHAR(20), n DECIMAL(20,2), d DATE, v VARCHAR(20), PRIMARY KEY (p, n, d)) CHARSET utf8mb4",
    )
    .await;
    for p in ["a", "a|b", "a\\\\", "\\\\|", "ü", "漢"] {
        for n in ["-1.50", "0.00", "12345678901234567.25"] {
            exec(&format!("INSERT INTO {{c}} VALUES ('{p}', {n}, '2026-03-04', 'v')")).await;
        }
    }
    stage
        .daemon
        .sql(&format!(
            "CALL dbms_etl.sync_by_map('search', '{index}.a({db}.c.v)', '{index}.p={db}.c.p,{index}.n={db}.c.n,{index}.d={db}.c.d', '', '')"
        ))
        .await;
    let expected = async || {
        let keys: Vec<(String, String, String)> = stage
            .mysql
            .query(format!("SELECT p, CAST(n AS CHAR), CAST(d AS CHAR) FROM {db}.c"))
            .await;
        let escaped = |part: String| part.replace('\\', "\\\\").replace('|', "\\|");
        let mut ids: Vec<String> =
            keys.into_iter().map(|(p, n, d)| format!("{}|{n}|{d}", escaped(p))).collect();
        ids.sort();
        ids
    };
    let until_equal = async |what: &str| {
        until(what, SECONDS_30, async || {
            let found: Vec<String> = stage.search.docs(index).await.into_keys().collect();
            let expected = expected().await;
            if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
        })
        .await;
    };
    until_equal("18 rows are copied").await;
    exec("UPDATE {c} SET n = n + 1 WHERE p = 'a|b'").await;
    exec("UPDATE {c} SET p = 'b|a' WHERE p = 'a' AND n < 0").await;
    exec("DELETE FROM {c} WHERE p = '漢' AND n <> 0").await;
    until_equal("keys have moved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_a_missing_index_of_one_link_leaves_the_stream_of_the_others_alone() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    let other = other_link(&stage).await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    stage.search.delete_index(&other).await;
    let streams = |stage: &Stage| stage.daemon.log().matches("following the binlog").count();
    let before = streams(&stage);
    stage.daemon.start_again_unready();
    stage.settle().await;
    let waits = || stage.daemon.log().matches("the link waits").count();
    until("the other link has looked five times", SECONDS_30, async || waits() >= 5).await;
    stage.settle().await;
    assert!(
        streams(&stage) - before <= 1,
        "the stream was begun {} times",
        streams(&stage) - before
    );
    stage.search.create_index(&other, index_body()).await;
    stage.exec("INSERT INTO {t}2 VALUES (1, 'a', 'b')").await;
    until("the other link has its document", SECONDS_30, async || {
        stage.search.doc(&other, "1").await.is_some()
    })
    .await;
}

/// A second link, of table `t2`; gives its index.
async fn other_link(stage: &Stage) -> String {
    let index = stage.search.index("other", index_body()).await;
    stage.exec("CREATE TABLE {t}2 LIKE {t}").await;
    let statement = stage.statement().replace(&stage.index, &index).replace(".t.", ".t2.");
    stage.daemon.sql(&statement).await;
    index
}

/// Deletes every file of the log but the last.
pub async fn purge(stage: &Stage) {
    let all: Vec<(String, u64, String)> = stage.mysql.query("SHOW BINARY LOGS").await;
    let last = &all.last().expect("there is a log").0;
    stage.mysql.exec(format!("PURGE BINARY LOGS TO '{last}'")).await;
}

const MEANWHILE: [&str; 4] = [
    "UPDATE {t} SET a = 'meanwhile' WHERE id % 7 = 0",
    "UPDATE {t} SET id = id + 10000 WHERE id % 11 = 0",
    "DELETE FROM {t} WHERE id % 13 = 0",
    "INSERT INTO {t} VALUES (5000, 'new', 'b')",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_table_whose_log_was_purged_is_copied_again() {
    let copies = |setup: Setup| setup.set("link.on_purged", "snapshot");
    let (mut stage, _server) = quiet_stage(&[], copies).await;
    fill(&stage, 100, 300, 32).await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    for sql in MEANWHILE {
        stage.exec(sql).await;
    }
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    purge(&stage).await;
    stage.exec("INSERT INTO {t} VALUES (5001, 'behind', 'the purge')").await;
    stage.daemon.start_again().await;
    stage.until_equal("all that was done meanwhile is in the index", SECONDS_30).await;
    stage.settle().await;
    assert_eq!(stage.until_state("running").await["errors"], "");
    // What was copied is known to be: the next start goes on from there.
    stage.daemon.stop().await;
    stage.exec("DELETE FROM {t} WHERE id = 5001").await;
    stage.daemon.start_again().await;
    stage.settle().await;
    stage.until_equal("the stream goes on", SECONDS_30).await;
    let copied = format!("driftless_link_rows_total{{kind=\"snapshot\",link=\"{}\"}}", stage.index);
    assert_eq!(metric(&stage, &copied).await, 0.0);
}

/// As behind a restored backup or a fail-over: the log that was applied is not the source's any more, and its
/// transactions begin at number one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_source_that_lost_transactions_is_mended() {
    let (mut stage, _server) = quiet_stage(&[], |setup| setup).await;
    fill(&stage, 100, 300, 32).await;
    stage.link().await;
    stage.settle().await;
    for sql in MEANWHILE {
        stage.exec(sql).await;
    }
    stage.settle().await;
    stage.daemon.stop().await;
    for sql in [
        "SET SESSION sql_log_bin = 0; DELETE FROM {t} WHERE id % 3 = 0; UPDATE {t} SET a = 'lost' WHERE id % 5 = 0",
    ] {
        stage.exec(sql).await;
    }
    stage.mysql.exec("RESET BINARY LOGS AND GTIDS").await;
    stage.exec("INSERT INTO {t} VALUES (6000, 'another', 'history')").await;
    stage.daemon.start_again().await;
    stage.until_equal("the index is what the source is now", SECONDS_30).await;
    for sql in MEANWHILE {
        stage.exec(&sql.replace("INSERT", "REPLACE")).await;
    }
    stage.settle().await;
    stage.until_equal("the stream goes on", SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_a_checkpoint_whose_log_is_gone_fails_its_own_link_only() {
    let (mut stage, _server) = quiet_stage(&[], |setup| setup.set("link.on_purged", "fail")).await;
    let other = other_link(&stage).await;
    stage.link().await;
    stage.settle().await;
    stage.exec("ALTER TABLE {t}2 DROP COLUMN b").await;
    let state = async |stage: &Stage| {
        let sql = format!("CALL dbms_etl.show_sync_link_by_id('{other}')");
        stage.daemon.sql(&sql).await.cell(0, "Message")
    };
    until("the other link has failed", SECONDS_30, async || {
        state(&stage).await.contains("\"jobStatus\":\"failed\"")
    })
    .await;
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    stage.settle().await;
    stage.daemon.stop().await;
    purge(&stage).await;
    stage.exec("INSERT INTO {t} VALUES (9, 'behind', 'the purge')").await;
    stage.daemon.start_again().await;
    stage.until_equal("the healthy link goes on", SECONDS_30).await;
    until("the other link says what is gone", SECONDS_30, async || {
        let message = state(&stage).await;
        if message.contains("has purged the log") { Ok(()) } else { Err(message) }
    })
    .await;
}

const MEMORY_LIMIT: i64 = 64 << 20;
const WIDE_ROWS: u32 = 3_000;
const WIDE_BYTES: u32 = 80 << 10;

/// Beside the queues' bytes each of which is counted once: a batch that is being sent exists as its request too, and
/// the allocator keeps what was used. Twice the limit above the idle daemon is far below the 240 MB that flow.
async fn memory_stays_bounded(compressed: bool) {
    use mysql_async::prelude::Queryable;
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("memory_limit_bytes", MEMORY_LIMIT)
    })
    .await;
    stage.exec("ALTER TABLE {t} MODIFY b MEDIUMTEXT").await;
    stage.exec("CREATE TABLE {t}2 LIKE {t}").await;
    let wide = json!({"mappings": {"properties": {"id": {"type": "long"}, "a": {"type": "keyword"}, "b": {"type": "text", "index": false}}}});
    stage.index = stage.search.index("wide", wide).await;
    stage.link().await;
    stage.settle().await;
    let resident = "driftless_memory_resident_bytes";
    let idle = metric(&stage, resident).await;
    stage.proxy.cut();
    let mut session = stage.mysql.session().await;
    if compressed {
        session
            .query_drop("SET SESSION binlog_transaction_compression = ON")
            .await
            .expect("a session variable");
    }
    let before = metric(&stage, "driftless_source_bytes_total").await;
    fill_in(&mut session, &stage.db, 0, WIDE_ROWS, WIDE_BYTES).await;
    stage.until_state("recovering").await;
    let bound = idle + 2.0 * MEMORY_LIMIT as f64;
    let started = Instant::now();
    let mut most = idle;
    let (mut read, mut since) = (before, Instant::now());
    until("the stream has come to a stand", MINUTES_2, async || {
        most = most.max(metric(&stage, resident).await);
        let now = metric(&stage, "driftless_source_bytes_total").await;
        // Heartbeats go on coming while there is room.
        if now > read + 10_000.0 {
            (read, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(3)
    })
    .await;
    if !compressed {
        let all = f64::from(WIDE_ROWS) * f64::from(WIDE_BYTES);
        assert!(read - before < all, "the stream was not slowed: {} bytes", read - before);
    }
    stage.proxy.mend();
    until("everything is a document", MINUTES_2, async || {
        most = most.max(metric(&stage, resident).await);
        let count = stage.search.count(&stage.index).await;
        if count == u64::from(WIDE_ROWS) + 1 { Ok(()) } else { Err(format!("{count} documents")) }
    })
    .await;
    eprintln!(
        "memory: idle {:.0} MB, at most {:.0} MB, limit {} MB, {:?}",
        idle / 1e6,
        most / 1e6,
        MEMORY_LIMIT / 1_000_000,
        started.elapsed()
    );
    assert!(most <= bound, "{most} bytes resident, idle were {idle}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_stalled_sink_slows_the_stream_and_a_transaction_larger_than_memory_passes() {
    memory_stays_bounded(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_compressed_transaction_larger_than_memory_passes() {
    memory_stays_bounded(true).await;
}

/// Each link has more to write than all may hold together, and none can write anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_ten_links_whose_sink_takes_nothing_share_one_bound() {
    const LINKS: usize = 10;
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("memory_limit_bytes", MEMORY_LIMIT)
    })
    .await;
    let (db, wide) = (&stage.db, json!({"mappings": {"dynamic": false, "properties": {}}}));
    let mut indexes = Vec::new();
    for at in 0..LINKS {
        stage
            .mysql
            .exec(format!(
                "CREATE TABLE {db}.w{at} (id BIGINT PRIMARY KEY, a VARCHAR(9), b MEDIUMTEXT)"
            ))
            .await;
        let index = stage.search.index("wide", wide.clone()).await;
        let statement = stage.statement().replace(&stage.index, &index);
        stage.daemon.sql(&statement.replace(".t.", &format!(".w{at}."))).await;
        stage.mysql.exec(format!("INSERT INTO {db}.w{at} VALUES (0, '', '')")).await;
        indexes.push(index);
    }
    let are_there = async |count: u64| {
        for index in &indexes {
            let found = stage.search.count(index).await;
            if found != count {
                return Err(format!("{found} documents in {index}"));
            }
        }
        Ok(())
    };
    until("all links run", SECONDS_30, async || are_there(1).await).await;
    let resident = "driftless_memory_resident_bytes";
    let idle = metric(&stage, resident).await;
    stage.proxy.cut();
    let mut most = idle;
    for round in 0..8 {
        for at in 0..LINKS {
            let rows: Vec<String> = (1..=40)
                .map(|id| format!("({}, '', REPEAT('x', 80000))", round * 40 + id))
                .collect();
            stage.mysql.exec(format!("INSERT INTO {db}.w{at} VALUES {}", rows.join(","))).await;
        }
        most = most.max(metric(&stage, resident).await);
    }
    let began = Instant::now();
    until("nothing more is taken in for a while", MINUTES_2, async || {
        most = most.max(metric(&stage, resident).await);
        began.elapsed() > SECONDS_10
    })
    .await;
    stage.proxy.mend();
    until("everything is a document", MINUTES_2, async || {
        most = most.max(metric(&stage, resident).await);
        are_there(8 * 40 + 1).await
    })
    .await;
    eprintln!("memory: idle {:.0} MB, at most {:.0} MB", idle / 1e6, most / 1e6);
    assert!(most <= idle + 2.0 * MEMORY_LIMIT as f64, "{most} bytes resident, idle were {idle}");
}

async fn stops_in_time(stage: &mut Stage) {
    let started = Instant::now();
    let status = stage.daemon.stop().await;
    let taken = started.elapsed();
    assert!(taken < SECONDS_10 + Duration::from_secs(2), "it took {taken:?}");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_stop_takes_ten_seconds_at_most_while_the_sink_is_down() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("memory_limit_bytes", 16 << 20)
    })
    .await;
    stage.link().await;
    stage.settle().await;
    stage.proxy.cut();
    fill(&stage, 0, 60_000, 192).await;
    stage.until_state("recovering").await;
    stops_in_time(&mut stage).await;
    stage.proxy.mend();
    stage.daemon.start_again().await;
    stage.until_equal("what was not written is written", MINUTES_2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_stop_takes_ten_seconds_at_most_while_the_model_is_down() {
    let model = Model::start().await;
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    let door = Door::Driftless(&stage.daemon);
    let model_id = door.deploy_model(&model.address()).await;
    let pipeline = unique("down");
    let body = json!({"processors": [{"text_embedding": {"model_id": model_id, "field_map": {"a": "vector"}}}]});
    let path = format!("/_ingest/pipeline/{pipeline}");
    let (status, answer) = stage.daemon.request("PUT", &path, Some(body)).await;
    assert!(status < 300, "{answer}");
    let settings = json!({"index": {"default_pipeline": pipeline}});
    stage.search.ok("PUT", &format!("/{}/_settings", stage.index), Some(settings)).await;
    stage.link().await;
    model.behave(Behaviour::Status(503, None));
    stage.exec("INSERT INTO {t} VALUES (1, 'text', 'x')").await;
    until("the model was asked", SECONDS_10, async || !model.requests().is_empty()).await;
    stops_in_time(&mut stage).await;
    model.behave(Behaviour::Fine);
    stage.daemon.start_again().await;
    until("the row is a document with its vector", SECONDS_30, async || {
        stage.search.doc(&stage.index, "1").await.is_some_and(|doc| doc.source["vector"].is_array())
    })
    .await;
}
