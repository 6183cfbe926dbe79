//! A sink, or a model, that cannot take what is sent to it: what it asks for is given, and no more than it takes is sent.

use std::time::{Duration, Instant};

use crate::support::daemon::Setup;
use crate::support::proxy::Fault;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

async fn set(setup: impl FnOnce(Setup) -> Setup) -> Stage {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    stage.link().await;
    stage.settle().await;
    stage
}

async fn gauge(stage: &Stage, name: &str) -> f64 {
    let series = format!("{name}{{link=\"{}\"}}", stage.index);
    stage.daemon.metric(&series).await.expect("it is there")
}

/// So many rows in one transaction, of about 200 bytes each.
async fn fill(stage: &Stage, from: usize, count: usize) {
    let rows = |ids: std::ops::Range<usize>| {
        ids.map(|id| format!("({id}, REPEAT('a', 90), REPEAT('b', 90))"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let (mut at, end) = (from, from + count);
    while at < end {
        let next = (at + 2_000).min(end);
        stage.exec(&format!("REPLACE INTO {{t}} VALUES {}", rows(at..next))).await;
        at = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sink_asks_for_by_retry_after_holds_for_the_whole_link() {
    let stage = set(|setup| setup).await;
    let body = "{\"error\":\"too much\"}".to_owned();
    stage.proxy.inject(Fault::Answer { status: 429, retry_after_s: Some(3), body });
    let (began, before) = (Instant::now(), stage.proxy.requests().len());
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b')").await;
    until("the sink has refused", SECONDS_30, async || stage.proxy.requests().len() > before).await;
    // Of other lanes too.
    for id in 2..20 {
        stage.exec(&format!("INSERT INTO {{t}} VALUES ({id}, 'a', 'b')")).await;
    }
    until("the next request comes", SECONDS_30, async || stage.proxy.requests().len() > before + 1)
        .await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(3), "it came after {waited:?}");
    stage.until_equal("everything is written", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_with_too_much_to_do_is_sent_less_until_all_goes_well() {
    let small = |setup: Setup| setup.set("sink.bulk_bytes", 32 << 10);
    let stage = set(small).await;
    let all = (8.0, f64::from(32 << 10));
    let now = async || {
        let requests = gauge(&stage, "driftless_sink_concurrency").await;
        (requests, gauge(&stage, "driftless_sink_bulk_bytes").await)
    };
    assert_eq!(now().await, all);
    for at in 0..40 {
        stage.proxy.inject(Fault::status(if at % 2 == 0 { 429 } else { 503 }));
    }
    fill(&stage, 0, 4_000).await;
    until("it is sent an eighth", SECONDS_30, async || {
        let found = now().await;
        if found.0 <= 1.0 && found.1 <= all.1 / 8.0 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    stage.until_equal("everything is written all the same", MINUTES_2).await;
    assert_eq!(gauge(&stage, "driftless_dead_letters").await, 0.0);
    let mut from = 10_000;
    until("it is sent as much as before", MINUTES_2, async || {
        fill(&stage, from, 2_000).await;
        from += 2_000;
        let found = now().await;
        if found == all { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    stage.until_equal("everything is written", MINUTES_2).await;
    let (state, message) = stage.status().await;
    assert_eq!((state.as_str(), message["restart_times"].as_str()), ("running", Some("0")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_were_refused_as_too_large_are_not_tried_each_time() {
    let stage = set(|setup| setup.set("sink.bulk_bytes", 256 << 10)).await;
    const TAKEN: usize = 20_000;
    for _ in 0..10_000 {
        stage.proxy.inject_when(|request| request.body.len() > TAKEN, Fault::status(413));
    }
    fill(&stage, 0, 8_000).await;
    stage.until_equal("everything is written", MINUTES_2).await;
    let bytes = gauge(&stage, "driftless_sink_bulk_bytes").await;
    assert!(bytes <= TAKEN as f64, "{bytes} bytes are sent at once");
    assert_eq!(gauge(&stage, "driftless_dead_letters").await, 0.0);
    let refused = |requests: &[crate::support::proxy::Request]| {
        requests.iter().filter(|request| request.body.len() > TAKEN).count()
    };
    let before = refused(&stage.proxy.requests());
    assert!(before > 0, "none was too large");
    fill(&stage, 10_000, 8_000).await;
    stage.until_equal("what comes later is written", MINUTES_2).await;
    assert_eq!(refused(&stage.proxy.requests()), before, "what is known was tried again");
}
