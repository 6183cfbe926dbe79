//! Trouble of the sink: storms of refusals, slowness, partial failures, lost answers, an index that is closed, read-only or
//! another one, a dead address, one rotten document.

use std::time::Duration;

use serde_json::{Value, json};

use crate::delivery::fill;
use crate::faults::{is_proven_equal, metric, until_it_waits};
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, index_body};
use crate::support::{MINUTES_2, SECONDS_30, pass, until};

async fn running() -> Stage {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("sink.bulk_documents", 50).set("sink.timeout_ms", 2_000)
    })
    .await;
    fill(&stage, 0, 1_000, 32).await;
    stage.link().await;
    stage.settle().await;
    stage
}

async fn settings(stage: &Stage, body: Value) {
    stage.search.ok("PUT", &format!("/{}/_settings", stage.index), Some(body)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storms_slowness_partial_failures_and_lost_answers_lose_nothing() {
    let stage = running().await;
    type Storm = fn(u64) -> Fault;
    let storms: [(&str, Storm); 5] = [
        ("429", |n| Fault::Answer {
            status: 429,
            retry_after_s: n.is_multiple_of(4).then_some(1),
            body: "{}".to_owned(),
        }),
        ("503", |_| Fault::status(503)),
        ("partial failures", |n| Fault::RefuseHalf(if n % 2 == 0 { 429 } else { 503 })),
        ("lost answers", |_| Fault::LoseAnswer),
        ("lost requests", |_| Fault::LoseRequest),
    ];
    let retries = format!("driftless_sink_retries_total{{link=\"{}\"}}", stage.index);
    for (name, storm) in storms {
        let before = metric(&stage, &retries).await;
        for n in 0..12 {
            stage.proxy.inject(storm(n));
        }
        stage.exec(&format!("UPDATE {{t}} SET a = '{name}' WHERE id % 3 = 0")).await;
        stage
            .exec("UPDATE {t} SET id = id + 1 WHERE id BETWEEN 800 AND 2000 ORDER BY id DESC")
            .await;
        stage.exec("UPDATE {t} SET id = id - 1 WHERE id BETWEEN 801 AND 2000 ORDER BY id").await;
        is_proven_equal(&stage, name).await;
        stage.proxy.forget_faults();
        assert!(metric(&stage, &retries).await > before, "{name}: it was tried again");
    }
    stage.proxy.delay(Duration::from_millis(200));
    stage.proxy.throttle(50_000);
    stage.exec("UPDATE {t} SET a = 'slow' WHERE id % 5 = 0").await;
    stage.settle().await;
    stage.proxy.delay(Duration::ZERO);
    stage.proxy.throttle(0);
    is_proven_equal(&stage, "slow").await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_closed_or_read_only_is_waited_for() {
    let stage = running().await;
    let blocks = ["read_only_allow_delete", "read_only", "write", "closed"];
    for (round, block) in blocks.into_iter().enumerate() {
        let path = |verb: &str| format!("/{}/{verb}", stage.index);
        match block {
            "closed" => drop(stage.search.ok("POST", &path("_close"), None).await),
            _ => settings(&stage, json!({"index": {"blocks": {block: true}}})).await,
        }
        stage.exec(&format!("UPDATE {{t}} SET a = 'round {round}' WHERE id % 4 = 0")).await;
        stage.exec(&format!("DELETE FROM {{t}} WHERE id = {round}")).await;
        let why = until_it_waits(&stage).await;
        assert!(why.contains("block") || why.contains("clos"), "{block}: {why}");
        match block {
            "closed" => drop(stage.search.ok("POST", &path("_open"), None).await),
            _ => settings(&stage, json!({"index": {"blocks": {block: false}}})).await,
        }
        is_proven_equal(&stage, block).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_is_down_at_the_start_and_for_long_is_waited_for() {
    let mut stage = running().await;
    stage.daemon.stop().await;
    stage.proxy.cut();
    stage.daemon.start_again_unready();
    let why = until_it_waits(&stage).await;
    assert!(why.contains("sink") || why.contains("127.0.0.1"), "{why}");
    fill(&stage, 2_000, 20_000, 192).await;
    pass(Duration::from_secs(5)).await;
    assert_eq!(stage.status().await.0, "recovering");
    stage.proxy.mend();
    is_proven_equal(&stage, "the sink is there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_addresses_a_dead_and_a_silent_one_are_left_out() {
    let node = servers::opensearch();
    let silent = Proxy::http(node.address()).await;
    let dead = servers::free_port();
    let mut stage =
        Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup.set("sink.timeout_ms", 1_000))
            .await;
    stage.daemon.stop().await;
    let addresses = vec![format!("http://127.0.0.1:{dead}"), silent.url(), stage.proxy.url()];
    stage.daemon.reconfigure("sink.addresses", addresses);
    stage.daemon.start_again().await;
    fill(&stage, 0, 2_000, 32).await;
    stage.link().await;
    stage.settle().await;
    silent.hold();
    stage.exec("UPDATE {t} SET a = 'one is silent' WHERE id % 2 = 0").await;
    is_proven_equal(&stage, "one of three answers").await;
    // The one that was left is gone, and the silent one speaks again.
    silent.release();
    stage.proxy.cut();
    stage.exec("DELETE FROM {t} WHERE id % 7 = 0").await;
    is_proven_equal(&stage, "another of three answers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_rotten_document_among_ten_thousand_is_the_only_one_that_waits() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    // What is neither true, false nor empty is refused.
    let truths = json!({"mappings": {"properties": {"id": {"type": "long"}, "a": {"type": "keyword"},
        "b": {"type": "boolean"}}}});
    stage.index = stage.search.index("rotten", truths).await;
    fill(&stage, 0, 10_000, 32).await;
    stage.exec("UPDATE {t} SET b = IF(id % 2, 'true', 'false')").await;
    stage.exec("UPDATE {t} SET b = 'rotten' WHERE id = 7777").await;
    stage.link().await;
    until("all others are documents", MINUTES_2, async || {
        let count = stage.search.count(&stage.index).await;
        if count == 9_999 { Ok(()) } else { Err(format!("{count} documents")) }
    })
    .await;
    let letters = format!("driftless_dead_letters{{link=\"{}\"}}", stage.index);
    assert_eq!(metric(&stage, &letters).await, 1.0);
    let shown = stage.daemon.sql(&format!("SHOW DEAD LETTERS OF LINK {}", stage.index)).await;
    assert!(format!("{shown:?}").contains("7777"), "{shown:?}");
    stage.exec("UPDATE {t} SET b = 'true' WHERE id = 7777").await;
    is_proven_equal(&stage, "the rotten one was mended").await;
    assert_eq!(metric(&stage, &letters).await, 0.0);
}

/// The index is deleted, and made again by somebody with another idea of its fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_comes_back_with_other_fields_stops_the_link_until_it_is_right() {
    let stage = running().await;
    stage.search.delete_index(&stage.index).await;
    stage.exec("UPDATE {t} SET a = 'there is no index' WHERE id < 100").await;
    until_it_waits(&stage).await;
    let other = json!({"mappings": {"properties": {"a": {"type": "integer"}}}});
    stage.search.create_index(&stage.index, other).await;
    let message = until("the link has failed", MINUTES_2, async || {
        let (state, message) = stage.status().await;
        if state == "failed" { Ok(message) } else { Err(format!("{state}: {message}")) }
    })
    .await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("refuse"), "{errors}");
    stage.search.delete_index(&stage.index).await;
    stage.search.create_index(&stage.index, index_body()).await;
    stage.daemon.sql(&format!("RESUME LINK {}", stage.index)).await;
    until("the link runs", SECONDS_30, async || stage.status().await.0 == "running").await;
    is_proven_equal(&stage, "the index is as it was").await;
}
