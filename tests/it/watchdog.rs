//! No silent stop: a stage that stands still with something to do is named and begun again, and one that waits for a reason is
//! left alone. Nothing from outside makes a stage hang, so a fault switch does (`DRIFTLESS_HANG`, `src/naive.rs`).

use std::time::Duration;

use crate::support::daemon::Setup;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

const STAGES: [&str; 4] = ["tailer", "worker", "lane", "copy"];

/// A daemon whose stages hang where a file of their name is in the folder.
async fn set(folder: &std::path::Path, setup: impl FnOnce(Setup) -> Setup) -> Stage {
    let folder = folder.to_str().expect("a path in UTF-8").to_owned();
    Stage::set(servers::mysql(Flavour::Mysql97), |given| {
        setup(
            given
                .env("DRIFTLESS_HANG", &folder)
                .set("link.watchdog_secs", 3)
                .set("sink.timeout_ms", 1_000),
        )
    })
    .await
}

async fn restarts(stage: &Stage, of: &str) -> f64 {
    let series = format!("driftless_watchdog_restarts_total{{stage=\"{of}\"}}");
    stage.daemon.metric(&series).await.expect("it is there")
}

async fn hangs_and_is_begun_again(hung: &str) {
    let folder = servers::data_dir();
    let stage = set(folder.path(), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b')").await;
    let switch = folder.path().join(hung);
    if hung == "copy" {
        std::fs::write(&switch, "").expect("can be written");
        stage.link().await;
    } else {
        stage.link().await;
        stage.settle().await;
        std::fs::write(&switch, "").expect("can be written");
        stage.exec("UPDATE {t} SET a = 'while it hangs' WHERE id = 1").await;
    }
    until(&format!("the {hung} hangs"), SECONDS_30, async || !switch.exists()).await;
    let mut id = 10;
    until(&format!("the {hung} is begun again"), MINUTES_2, async || {
        id += 1;
        stage.exec(&format!("INSERT INTO {{t}} VALUES ({id}, 'the source goes on', 'x')")).await;
        restarts(&stage, hung).await > 0.0
    })
    .await;
    stage.until_equal("everything is written", MINUTES_2).await;
    stage.until_state("running").await;
    for other in STAGES {
        assert_eq!(restarts(&stage, other).await, f64::from(other == hung), "{other}, not {hung}");
    }
    let log = stage.daemon.log();
    let told = log.lines().find(|line| line.contains("the watchdog") && line.contains(hung));
    assert!(told.is_some(), "the log does not name the {hung}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tailer_that_stands_still_is_begun_again() {
    hangs_and_is_begun_again("tailer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stands_still_is_begun_again() {
    hangs_and_is_begun_again("worker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_stands_still_is_begun_again() {
    hangs_and_is_begun_again("lane").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_stands_still_is_begun_again() {
    hangs_and_is_begun_again("copy").await;
}

/// A sink that takes connections and never answers, then one that is not there, while the queues are full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_reason_is_not_begun_again() {
    let folder = servers::data_dir();
    let stage = set(folder.path(), |setup| setup.set("memory_limit_bytes", "16MiB")).await;
    stage.link().await;
    stage.settle().await;
    let silent = stage.proxy.hold_next_request();
    stage.exec("INSERT INTO {t} VALUES (1, 'never answered', 'x')").await;
    silent.arrived().await;
    stage.until_equal("it is sent again behind the time-out", SECONDS_30).await;

    stage.proxy.cut();
    let lag = format!("driftless_link_lag_ms{{link=\"{}\"}}", stage.index);
    let mut id = 1_000;
    until("the link has waited for long", MINUTES_2, async || {
        let rows: Vec<String> = (id..id + 1_000)
            .map(|id| format!("({id}, REPEAT('a', 200), REPEAT('b', 200))"))
            .collect();
        stage.exec(&format!("INSERT INTO {{t}} VALUES {}", rows.join(","))).await;
        id += 1_000;
        stage.daemon.metric(&lag).await.is_some_and(|lag| lag > 10_000.0)
    })
    .await;
    // Nothing is committed while it waits on.
    let waited = std::time::Instant::now();
    until("it has waited on", SECONDS_30, async || waited.elapsed() > Duration::from_secs(5)).await;
    stage.daemon.sql(&format!("PAUSE LINK {}", stage.index)).await;
    stage.exec("UPDATE {t} SET a = 'paused' WHERE id = 1").await;
    stage.proxy.mend();
    stage.daemon.sql(&format!("RESUME LINK {}", stage.index)).await;
    stage.until_equal("everything is written", MINUTES_2).await;
    for stood_still in STAGES {
        assert_eq!(restarts(&stage, stood_still).await, 0.0, "{stood_still}");
    }
}
