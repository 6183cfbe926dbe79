//! A copy that does no harm: it is paced, held back while the source is busy, paused, and has an end while its table grows.

use std::time::Instant;

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
    let lock = stage.mysql.session().await;
    let mut lock = lock;
    use mysql_async::prelude::Queryable as _;
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
    assert!(last > 10_100 && copied(&stage).await < 600.0, "{} of {last}", copied(&stage).await);
    stage.until_equal("all is there", SECONDS_30).await;
}
