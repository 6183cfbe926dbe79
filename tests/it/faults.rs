//! What goes wrong at three in the morning, as far as no other test shows it: `docs/reliability.md` has a row for each. A
//! test ends when VERIFY LINK and a checker that knows nothing of us find no difference.

mod bounds;
mod clock;
mod disk;
mod log;
mod ourselves;
mod sink;
mod source;

use serde_json::json;

use crate::support::MINUTES_2;
use crate::support::checker::Checker;
use crate::support::daemon::Setup;
use crate::support::mysql::Mysql;
use crate::support::proxy::Proxy;
use crate::support::stage::Stage;
use crate::verify::verify;

/// Everything that was committed is delivered, and nobody finds a difference.
async fn is_proven_equal(stage: &Stage, what: &str) {
    stage.settle().await;
    stage.until_equal(what, MINUTES_2).await;
    nobody_finds_a_difference(stage, what).await;
}

async fn nobody_finds_a_difference(stage: &Stage, what: &str) {
    let verdict = verify(&stage.daemon, &format!("VERIFY LINK {}", stage.index)).await;
    assert!(verdict.differences.is_empty(), "{what}: {verdict:?}");
    let found = checker(stage).run().await;
    assert!(found.is_clean(), "{what}: {found:?}");
}

fn checker(stage: &Stage) -> Checker {
    Checker {
        mysql: stage.mysql.address(),
        node: stage.search.url().to_owned(),
        table: format!("{}.t", stage.db),
        index: stage.index.clone(),
        key: vec!["id"],
        fields: json!({"id": "id", "a": "a", "b": "b"}),
        vectors: json!({}),
        scrolls: true,
    }
}

/// A stage that reads its source through a proxy, in the clear, so that the proxy can damage what passes.
async fn proxied(mysql: Mysql, setup: impl FnOnce(Setup) -> Setup) -> (Stage, Proxy) {
    let source = Proxy::tcp(&mysql.address()).await;
    let port = i64::from(source.port());
    let stage = Stage::set(mysql, |default| {
        setup(default).set("source.port", port).set("source.tls.mode", "disabled")
    })
    .await;
    (stage, source)
}

async fn metric(stage: &Stage, series: &str) -> f64 {
    stage.daemon.metric(series).await.unwrap_or(0.0)
}

/// Waits until the link waits, and gives the reason that it shows.
async fn until_it_waits(stage: &Stage) -> String {
    stage.daemon.listens().await;
    let message = stage.until_state("recovering").await;
    format!("{} {}", message["errors"], message["others"])
}
