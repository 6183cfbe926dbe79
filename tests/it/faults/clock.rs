//! The wall clock jumps, by days and years, while the daemon runs and while it does not.

use std::collections::BTreeMap;

use crate::delivery::fill;
use crate::faults::is_proven_equal;
use crate::support::clock::Clock;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;

const DAY: i64 = 24 * 3600;

async fn versions(stage: &Stage) -> BTreeMap<String, u64> {
    let docs = stage.search.docs(&stage.index).await;
    docs.into_iter().map(|(id, doc)| (id, doc.version)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_makes_no_document_stand_still_or_go_back() {
    let clock = Clock::new();
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| clock.of(setup)).await;
    fill(&stage, 0, 200, 32).await;
    stage.link().await;
    stage.settle().await;
    let mut before = versions(&stage).await;
    for (round, days) in [1, -1, 400, -4_000, 0].into_iter().enumerate() {
        clock.jump(days * DAY);
        stage.exec(&format!("UPDATE {{t}} SET a = 'round {round}'")).await;
        stage.settle().await;
        stage.daemon.kill9();
        stage.exec(&format!("UPDATE {{t}} SET b = 'round {round}'")).await;
        stage.daemon.start_again().await;
        is_proven_equal(&stage, &format!("{days} days")).await;
        let after = versions(&stage).await;
        let is_newer =
            |(id, version): (&String, &u64)| after.get(id).is_some_and(|now| now > version);
        assert!(before.iter().all(is_newer), "{days} days: versions grow");
        before = after;
    }
    // Ten years back, and nothing is known any more of the versions that were given out.
    clock.jump(-3_650 * DAY);
    stage.daemon.kill9();
    std::fs::remove_dir_all(stage.daemon.state_dir()).expect("it can be removed");
    stage.daemon.start_again().await;
    stage.exec("UPDATE {t} SET a = 'behind all'").await;
    stage.link().await;
    is_proven_equal(&stage, "a new epoch is above what was met").await;
}
