//! A copy that does no harm: it is paced, held back while the source is busy, paused, and has an end while its table grows.

use std::time::Instant;

use mysql_async::prelude::Queryable as _;

use crate::mariadb::numbers;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

async fn copied(stage: &Stage) -> f64 {
    let series = format!("driftless_link_rows_total{{kind=\"snapshot\",link=\"{}\"}}", stage.index);
    stage.daemon.metric(&series).await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_keeps_to_its_pace_and_a_pause_holds_it_at_its_chunk() {
    let paced = |setup: crate::support::daemon::Setup| {
        setup.set("snapshot.rows_per_s", 200).set("snapshot.chunk_rows", 100)
    };
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), paced).await;
    stage.exec(&numbers(1, 1_200)).await;
    let began = Instant::now();
    stage.link().await;
    until("a part is copied", SECONDS_30, async || copied(&stage).await >= 300.0).await;
    // Three chunks of a hundred: the third may begin a second behind the first.
    assert!(began.elapsed().as_secs_f64() >= 1.0, "{:?}", began.elapsed());
    stage.daemon.sql(&format!("PAUSE LINK `{}`", stage.index)).await;
    stage.until_state("paused").await;
    let (paused_at, documents) = (copied(&stage).await, stage.found().await.len());
    assert!(paused_at < 1_200.0 && documents as f64 <= paused_at, "{documents} of {paused_at}");
    let between = Instant::now();
    until("a chunk would have come", SECONDS_30, async || between.elapsed().as_secs_f64() > 1.5)
        .await;
    assert_eq!(stage.found().await.len(), documents);
    // It holds over a restart.
    stage.daemon.stop().await;
    stage.daemon.start_again().await;
    stage.exec("UPDATE {t} SET a = 'while it was paused' WHERE id % 100 = 0").await;
    stage.daemon.sql(&format!("RESUME LINK `{}`", stage.index)).await;
    stage.until_snapshot_is_done().await;
    stage.until_equal("all is copied", SECONDS_30).await;
    // This life of the daemon has copied the rest alone.
    assert!(copied(&stage).await <= 1_200.0 - documents as f64 + 100.0);
    assert!(began.elapsed().as_secs_f64() >= 1_100.0 / 200.0, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_held_back_while_the_source_is_busy() {
    let server = servers::own_mysql(Flavour::Mysql80, &[]).await;
    let careful = |setup: crate::support::daemon::Setup| {
        setup.set("snapshot.max_threads_running", 8).set("snapshot.chunk_rows", 10)
    };
    let stage = Stage::set(server.client(), careful).await;
    stage.exec(&numbers(1, 50)).await;
    let mut busy = Vec::new();
    let mut lock = stage.mysql.session().await;
    lock.query_drop("DO GET_LOCK('busy', 30)").await.expect("is locked");
    for _ in 0..12 {
        let mut session = stage.mysql.session().await;
        busy.push(tokio::spawn(async move {
            let _ = session.query_drop("DO GET_LOCK('busy', 120), RELEASE_LOCK('busy')").await;
        }));
    }
    until("the source is busy", SECONDS_30, async || {
        let running: Vec<(String, u64)> =
            stage.mysql.query("SHOW GLOBAL STATUS LIKE 'Threads_running'").await;
        running[0].1 > 12
    })
    .await;
    stage.link().await;
    until("it is told that it is held", SECONDS_30, async || {
        let (_, message) = stage.status().await;
        let text = message.to_string();
        if text.contains("held: the source has 1") { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(copied(&stage).await, 0.0);
    lock.query_drop("DO RELEASE_LOCK('busy')").await.expect("is released");
    stage.until_equal("then it goes on", SECONDS_30).await;
    stage.until_snapshot_is_done().await;
    for session in busy {
        session.await.expect("ends");
    }
}

/// Rows are put behind the end faster than they are copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_a_table_that_grows_at_its_end_has_an_end() {
    let paced = |setup: crate::support::daemon::Setup| {
        setup.set("snapshot.rows_per_s", 100).set("snapshot.chunk_rows", 20)
    };
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), paced).await;
    stage.exec(&numbers(1, 200)).await;
    stage.link().await;
    let mut last = 10_000;
    until("the copy is done", MINUTES_2, async || {
        stage.exec(&numbers(last, last + 99)).await;
        last += 100;
        let (state, message) = stage.status().await;
        let is_done = state == "running" || state == "catching_up";
        if is_done { Ok(()) } else { Err(message.to_string()) }
    })
    .await;
    // What was there when it began, and what came before the end was looked for.
    let rows = f64::from(200 + last - 10_000);
    assert!(copied(&stage).await < rows / 2.0, "{} of {rows}", copied(&stage).await);
    stage.until_equal("all is there", SECONDS_30).await;
}

/// What somebody else has done to documents of some rows is mended for those rows, while the link streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_copied_again_by_a_statement_beside_the_stream() {
    let stage =
        Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup.set("snapshot.chunk_rows", 20))
            .await;
    stage.exec(&numbers(1, 300)).await;
    stage.link().await;
    stage.until_snapshot_is_done().await;
    stage.settle().await;
    let at = |id: u32| format!("/{}/_doc/{id}", stage.index);
    for id in [5, 150, 250] {
        stage.search.ok("DELETE", &at(id), None).await;
    }
    let before = copied(&stage).await;
    let order = format!(
        "SNAPSHOT LINK `{}` TABLE {}.t WHERE id < 200 AND (a <> '(' OR b = 'x') -- some",
        stage.index, stage.db
    );
    stage.daemon.sql(&order).await;
    stage.exec("UPDATE {t} SET a = 'changed meanwhile' WHERE id BETWEEN 100 AND 120").await;
    let found = async |id: u32| stage.search.doc(&stage.index, &id.to_string()).await.is_some();
    until("those of the condition are there", SECONDS_30, async || {
        found(5).await && found(150).await
    })
    .await;
    stage.until_snapshot_is_done().await;
    stage.settle().await;
    assert!(!found(250).await);
    let rows = copied(&stage).await - before;
    assert!((170.0..=199.0).contains(&rows), "{rows}");
    stage.daemon.sql(&format!("SNAPSHOT LINK `{}`", stage.index)).await;
    stage.until_equal("all is there", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_copy_outlives_kills_and_pauses() {
    let paced = |setup: crate::support::daemon::Setup| {
        setup.set("snapshot.rows_per_s", 100).set("snapshot.chunk_rows", 40)
    };
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql80), paced).await;
    stage.exec(&numbers(1, 400)).await;
    stage.link().await;
    stage.until_snapshot_is_done().await;
    stage.settle().await;
    stage.search.ok("DELETE", &format!("/{}/_doc/399", stage.index), None).await;
    let order = format!("SNAPSHOT LINK `{}` WHERE b IS NOT NULL", stage.index);
    stage.daemon.sql(&order).await;
    // Before it can have begun, and in the middle of it.
    stage.daemon.kill9();
    stage.exec("UPDATE {t} SET a = 'behind the first kill' WHERE id % 50 = 0").await;
    stage.daemon.start_again().await;
    until("a part is copied", SECONDS_30, async || copied(&stage).await >= 80.0).await;
    stage.until_state("snapshotting").await;
    let refused = stage.daemon.try_sql(&order).await.expect_err("one runs already");
    assert!(refused.contains("is being copied"), "{refused}");
    stage.daemon.kill9();
    stage.daemon.start_again().await;
    until("it goes on", SECONDS_30, async || copied(&stage).await >= 40.0).await;
    stage.daemon.sql(&format!("PAUSE LINK `{}`", stage.index)).await;
    stage.daemon.sql(&format!("RESUME LINK `{}`", stage.index)).await;
    stage.until_equal("all is there", SECONDS_30).await;
    stage.until_snapshot_is_done().await;
    // It is done once and for all.
    stage.settle().await;
    stage.daemon.stop().await;
    stage.daemon.start_again().await;
    stage.settle().await;
    assert_eq!(copied(&stage).await, 0.0);
    stage.daemon.sql(&format!("PAUSE LINK `{}`", stage.index)).await;
    stage.search.ok("DELETE", &format!("/{}/_doc/1", stage.index), None).await;
    stage.daemon.sql(&order).await;
    stage.daemon.sql(&format!("RESUME LINK `{}`", stage.index)).await;
    stage.until_equal("a paused link begins with it when it goes on", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_copied_again_is_refused() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.link().await;
    stage.until_snapshot_is_done().await;
    stage.settle().await;
    for (rows, text) in [
        ("WHERE c = 1", "Unknown column 'c'"),
        ("WHERE id = ", "does not understand the condition"),
        ("WHERE id = 1) OR (1 = 1", "closes nothing"),
        ("WHERE (id = 1", "is not closed"),
        ("WHERE id = ?", "holds a `?`"),
        ("WHERE", "condition is empty"),
        ("TABLE other.t", "is of table"),
        ("TABLE t", "expected `.`"),
    ] {
        let statement = format!("SNAPSHOT LINK `{}` {rows}", stage.index);
        let refused = stage.daemon.try_sql(&statement).await.expect_err("is refused");
        assert!(refused.contains(text), "{rows}: {refused}");
    }
    let refused = stage.daemon.try_sql("SNAPSHOT LINK nobody").await.expect_err("there is none");
    assert!(refused.contains("unknown link `nobody`"), "{refused}");
}

/// A condition is not evaluated before rows are read. The link is well without the copy, and another one can be asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_condition_fails_on_a_row_ends_and_leaves_the_link_running() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b')").await;
    stage.link().await;
    stage.settle().await;
    let order = format!("SNAPSHOT LINK {}", stage.index);
    stage.daemon.sql(&format!("{order} WHERE id = (SELECT id FROM {}.t)", stage.db)).await;
    until("it is said why the copy has ended", SECONDS_30, async || {
        let (state, message) = stage.status().await;
        let others = message["others"].as_str().unwrap_or_default();
        let is_told = others.contains("the copy that was ordered has ended: ");
        if is_told && state == "running" { Ok(()) } else { Err(format!("{state}: {message}")) }
    })
    .await;
    // What another writer has done is written over, once something was committed behind the copy before.
    let path = format!("/{}/_doc/1", stage.index);
    stage.search.ok("PUT", &path, Some(serde_json::json!({"id": 1, "a": "foreign"}))).await;
    stage.exec("INSERT INTO {t} VALUES (3, 'a', 'b')").await;
    until("the link has come to a later place", SECONDS_30, async || {
        stage.search.doc(&stage.index, "3").await
    })
    .await;
    let again = format!("{order} WHERE id = 1");
    until("another copy is ordered, when the end of the first is stored", SECONDS_30, async || {
        stage.daemon.try_sql(&again).await
    })
    .await;
    stage.until_equal("the document is as its row", SECONDS_30).await;
    stage.exec("INSERT INTO {t} VALUES (4, 'a', 'b')").await;
    stage.until_equal("the link goes on", SECONDS_30).await;
}

/// One table's chunk hangs, and a second table has no turn before it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_take_turns_in_being_read() {
    let one_by_one = |setup: crate::support::daemon::Setup| {
        setup
            .set("snapshot.parallel", 1)
            .set("snapshot.chunk_rows", 10)
            .set("snapshot.rows_per_s", 20)
    };
    let stage = Stage::set(servers::mysql(Flavour::Mysql80), one_by_one).await;
    stage.exec(&numbers(1, 40)).await;
    stage.mysql.exec(format!("CREATE TABLE {0}.o LIKE {0}.t", stage.db)).await;
    stage.mysql.exec(format!("INSERT INTO {}.o VALUES (1, 'a', 'b')", stage.db)).await;
    // So that the server's estimate tells when the end of the copy was looked for.
    stage.mysql.exec(format!("ANALYZE TABLE {}.o", stage.db)).await;
    stage.link().await;
    until("a chunk is copied", SECONDS_30, async || copied(&stage).await >= 10.0).await;
    let mut lock = stage.mysql.session().await;
    lock.query_drop(format!("LOCK TABLES {}.t WRITE", stage.db)).await.expect("is locked");
    until("a chunk waits", SECONDS_30, async || {
        let waiting: u64 = stage
            .mysql
            .value(format!(
                "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table%' AND info LIKE \
                 '%{}%'",
                stage.db
            ))
            .await;
        waiting > 0
    })
    .await;
    let other = stage.search.index("other", crate::support::stage::index_body()).await;
    let statement = stage.statement().replace(&stage.index, &other).replace(".t.", ".o.");
    stage.daemon.sql(&statement).await;
    let shown = async || {
        let asked = format!("CALL dbms_etl.show_sync_link_by_id('{other}')");
        stage.daemon.sql(&asked).await.cell(0, "Message")
    };
    until("its end is known", SECONDS_30, async || {
        let shown = shown().await;
        if shown.contains("snapshot 0 of about 1 rows") { Ok(()) } else { Err(shown) }
    })
    .await;
    assert!(stage.search.doc(&other, "1").await.is_none());
    lock.query_drop("UNLOCK TABLES").await.expect("is unlocked");
    until("then it is copied", SECONDS_30, async || stage.search.doc(&other, "1").await.is_some())
        .await;
    stage.until_equal("and so is the first", SECONDS_30).await;
}

/// Nothing is committed between the last copy of a link and the first of another one with the same index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_made_anew_writes_over_what_the_one_before_has_copied() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b')").await;
    stage.link().await;
    stage.until_state("running").await;
    let index = &stage.index;
    for statement in [format!("SNAPSHOT LINK {index}"), format!("RESET LINK {index}")] {
        stage.daemon.sql(&statement).await;
        stage.until_equal("it is copied again", SECONDS_30).await;
    }
    stage.until_state("running").await;
    let path = format!("/{index}/_doc/2");
    stage.search.ok("PUT", &path, Some(serde_json::json!({"id": 2, "a": "foreign"}))).await;
    stage.daemon.sql(&format!("VERIFY LINK {index} REPAIR")).await;
    stage.until_equal("it is mended", SECONDS_30).await;
    stage.daemon.sql(&format!("DROP LINK {index}")).await;
    let db = &stage.db;
    let narrow = format!(
        "CALL dbms_etl.sync_by_map('search', '{index}.id({db}.t.id)', '{index}.id={db}.t.id', '', '')"
    );
    stage.daemon.sql(&narrow).await;
    until("the documents are of the new link", SECONDS_30, async || {
        let found = stage.found().await;
        let is_narrow = found.values().all(|doc| doc.as_object().is_some_and(|doc| doc.len() == 1));
        if is_narrow { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}
