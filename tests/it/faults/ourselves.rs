//! Driftless itself is ended: killed while it embeds, told to stop while everybody else is silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::delivery::fill;
use crate::faults::{checker, is_proven_equal, proxied};
use crate::support::daemon::Setup;
use crate::support::model::{Behaviour, Model};
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::tutorial::Door;
use crate::support::{MINUTES_2, SECONDS_30, unique, until};
use crate::verify::verify;
use crate::xa::versions;

/// Between question and answer, in copy and stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_vectors_are_computed_lose_neither_row_nor_vector() {
    let model = Model::start().await;
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("snapshot.chunk_rows", 100).set("link.checkpoint_interval_ms", 100)
    })
    .await;
    let door = Door::Driftless(&stage.daemon);
    let model_id = door.deploy_model(&model.address()).await;
    let pipeline = unique("killed");
    let body = json!({"processors": [{"text_embedding": {"model_id": model_id, "field_map": {"a": "vector"}}}]});
    let path = format!("/_ingest/pipeline/{pipeline}");
    let (status, answer) = stage.daemon.request("PUT", &path, Some(body)).await;
    assert!(status < 300, "{answer}");
    let settings = json!({"index": {"default_pipeline": pipeline}});
    stage.search.ok("PUT", &format!("/{}/_settings", stage.index), Some(settings)).await;
    fill(&stage, 0, 1_500, 32).await;
    model.behave(Behaviour::Slow(Duration::from_millis(100)));
    stage.link().await;
    for kill in 0..8 {
        let asked = model.requests().len();
        stage
            .exec(&format!(
                "UPDATE {{t}} SET a = CONCAT('kill {kill} ', id) WHERE id % 30 = {kill}"
            ))
            .await;
        until("the model is asked", SECONDS_30, async || model.requests().len() > asked).await;
        stage.daemon.kill9();
        stage.daemon.start_again().await;
    }
    model.behave(Behaviour::Fine);
    stage.exec("DELETE FROM {t} WHERE id % 10 = 9").await;
    until("no document differs, vectors included", MINUTES_2, async || {
        let mut checker = checker(&stage);
        checker.vectors = json!({"vector": "a"});
        let found = checker.run().await;
        if found.is_clean() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let sql = format!("VERIFY LINK {} WITH VECTORS", stage.index);
    let verdict = verify(&stage.daemon, &sql).await;
    assert!(verdict.differences.is_empty(), "{verdict:?}");
}

/// The checkpoint that a stop leaves is behind everything that was sent: nothing is sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_leaves_a_checkpoint_behind_all_that_was_written() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        // The only checkpoints are those of the stops.
        setup.set("link.checkpoint_interval_ms", 600_000)
    })
    .await;
    fill(&stage, 0, 200, 32).await;
    stage.link().await;
    stage.settle().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (mysql, db, stopped) = (stage.mysql.clone(), stage.db.clone(), stop.clone());
    let load = tokio::spawn(async move {
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            count += 1;
            mysql.exec(format!("UPDATE {db}.t SET a = '{count}' WHERE id = {}", count % 200)).await;
        }
    });
    for _ in 0..4 {
        let reached = stage.proxy.forwarded() + 30;
        until("bulks have passed", SECONDS_30, async || stage.proxy.forwarded() >= reached).await;
        let began = Instant::now();
        assert!(stage.daemon.stop().await.success());
        assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
        stage.daemon.start_again().await;
    }
    stop.store(true, Ordering::Relaxed);
    load.await.expect("the load ends");
    stage.settle().await;
    let twice: BTreeMap<_, _> = versions(&stage.proxy.requests())
        .into_iter()
        .filter(|(_, versions)| !versions.is_sorted_by(|one, next| one < next))
        .collect();
    assert!(twice.is_empty(), "sent more than once: {twice:?}");
    is_proven_equal(&stage, "nothing was lost either").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_takes_ten_seconds_at_most_while_source_and_sink_are_silent() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let (mut stage, source) =
        proxied(mysql, |setup: Setup| setup.set("snapshot.chunk_rows", 100)).await;
    fill(&stage, 0, 5_000, 32).await;
    for (in_copy, of_source) in [(true, true), (false, true), (false, false)] {
        if in_copy {
            stage.proxy.delay(Duration::from_millis(30));
            stage.link().await;
            stage.until_state("snapshotting").await;
        } else {
            stage.settle().await;
        }
        match of_source {
            true => source.hold(),
            false => stage.proxy.hold(),
        }
        stage.exec("UPDATE {t} SET b = CONCAT(b, '.') WHERE id < 500").await;
        let began = Instant::now();
        let status = stage.daemon.stop().await;
        let took = began.elapsed();
        assert!(status.success() && took < Duration::from_secs(12), "{status} after {took:?}");
        source.release();
        stage.proxy.release();
        stage.proxy.delay(Duration::ZERO);
        stage.daemon.start_again().await;
        stage.until_snapshot_is_done().await;
    }
    is_proven_equal(&stage, "what was not written is written").await;
}
