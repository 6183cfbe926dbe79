//! Trouble of the source: it restarts, crashes, loses what it had sent, is a replica, ends our sessions, lets nobody idle,
//! has another reader with our number.

use std::time::Duration;

use crate::delivery::{fill, purge};
use crate::failover::follow;
use crate::faults::{is_proven_equal, metric, proxied, until_it_waits};
use crate::support::daemon::Setup;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{SECONDS_30, pass, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_restarts_or_crashes_is_waited_for() {
    let mut server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let stage = Stage::set(server.client(), |setup| setup).await;
    fill(&stage, 0, 500, 32).await;
    stage.link().await;
    stage.settle().await;
    for crashes in [false, true] {
        stage.exec("UPDATE {t} SET a = 'before' WHERE id % 3 = 0").await;
        match crashes {
            true => server.kill().await,
            false => server.stop().await,
        }
        let why = until_it_waits(&stage).await;
        assert!(why.contains("source") || why.contains("cannot connect to"), "{why}");
        assert_eq!(metric(&stage, "driftless_source_connected").await, 0.0);
        server.start().await;
        stage.exec("DELETE FROM {t} WHERE id % 7 = 0 AND id < 300").await;
        is_proven_equal(&stage, "the source is there again").await;
        assert_eq!(metric(&stage, "driftless_source_connected").await, 1.0);
    }
    assert_eq!(stage.until_state("running").await["errors"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_killed_are_opened_anew_in_copy_and_stream() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let (user, password) = mysql.replication_user().await;
    let stage = Stage::set(mysql, |setup| {
        setup
            .set("source.user", &*user)
            .set("source.password", &*password)
            .set("snapshot.chunk_rows", 200)
    })
    .await;
    fill(&stage, 0, 10_000, 32).await;
    stage.proxy.delay(Duration::from_millis(20));
    stage.link().await;
    for _ in 0..4 {
        until("a session was killed", SECONDS_30, async || kill_sessions(&stage, &user).await > 0)
            .await;
        pass(Duration::from_millis(300)).await;
    }
    stage.proxy.delay(Duration::ZERO);
    stage.until_snapshot_is_done().await;
    for round in 0..3 {
        stage.exec(&format!("UPDATE {{t}} SET a = 'round {round}' WHERE id % 5 = {round}")).await;
        until("a session was killed", SECONDS_30, async || kill_sessions(&stage, &user).await > 0)
            .await;
    }
    is_proven_equal(&stage, "all sessions were killed").await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

/// All that this account has; gives their number.
async fn kill_sessions(stage: &Stage, user: &str) -> usize {
    let sql = format!("SELECT id FROM information_schema.processlist WHERE user = '{user}'");
    let ids: Vec<(u64,)> = stage.mysql.query(sql).await;
    for (id,) in &ids {
        // It may have ended by itself.
        stage.mysql.try_exec(&format!("KILL {id}")).await.ok();
    }
    ids.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_replica_is_followed_through_its_own_pauses_and_restarts() {
    for flavour in [Flavour::Mysql97, Flavour::Mariadb118] {
        let primary = servers::own_mysql(flavour, &[]).await;
        let mut replica = servers::own_mysql(flavour, &[]).await;
        follow(flavour, &replica.client(), &primary.client()).await;
        let (stop, start, read_only) = match flavour.is_mariadb() {
            true => ("STOP SLAVE SQL_THREAD", "START SLAVE", "SET GLOBAL read_only = ON"),
            false => {
                ("STOP REPLICA SQL_THREAD", "START REPLICA", "SET GLOBAL super_read_only = ON")
            }
        };
        replica.client().exec(read_only).await;
        let port = i64::from(replica.port());
        let stage = Stage::set(primary.client(), |setup| setup.set("source.port", port)).await;
        stage.exec("INSERT INTO {t} VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x')").await;
        let table = format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{}'",
            stage.db
        );
        until("the replica has the table", SECONDS_30, async || {
            replica.client().value::<i64>(&table).await == 1
        })
        .await;
        stage.link().await;
        stage.settle().await;
        replica.client().exec(stop).await;
        stage.exec("UPDATE {t} SET a = 'while the replica paused' WHERE id = 1").await;
        replica.client().exec(start).await;
        stage.settle().await;
        replica.stop().await;
        stage.exec("DELETE FROM {t} WHERE id = 2").await;
        replica.start().await;
        replica.client().exec(start).await;
        is_proven_equal(&stage, "the replica has what the primary has").await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

/// The server's time-outs are of a second each, and the sink takes nothing for longer than that either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idling_beyond_every_time_out_breaks_nothing() {
    let options = [
        "--wait-timeout=1",
        "--interactive-timeout=1",
        "--net-read-timeout=1",
        "--net-write-timeout=1",
    ];
    let server = servers::own_mysql(Flavour::Mysql97, &options).await;
    let stage = Stage::set(server.client(), |setup| {
        setup
            .set("source.read_timeout_ms", 2_000)
            .set("source.heartbeat_ms", 300)
            .set("memory_limit_bytes", "16MiB")
    })
    .await;
    fill(&stage, 0, 100, 32).await;
    stage.link().await;
    stage.settle().await;
    pass(Duration::from_secs(4)).await;
    stage.exec("UPDATE {t} SET a = 'after a long silence' WHERE id = 1").await;
    stage.settle().await;
    stage.proxy.hold();
    fill(&stage, 1_000, 150_000, 192).await;
    pass(Duration::from_secs(4)).await;
    stage.proxy.release();
    is_proven_equal(&stage, "what idled goes on").await;
    assert_eq!(metric(&stage, "driftless_source_reconnects_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_purged_while_the_connection_is_cut_is_made_up_for() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let (stage, source) = proxied(server.client(), |setup: Setup| setup).await;
    fill(&stage, 0, 500, 32).await;
    stage.link().await;
    stage.settle().await;
    source.cut();
    until_it_waits(&stage).await;
    stage.exec("DELETE FROM {t} WHERE id % 4 = 0").await;
    stage.exec("UPDATE {t} SET a = 'meanwhile' WHERE id % 3 = 0").await;
    for _ in 0..3 {
        stage.mysql.exec("FLUSH BINARY LOGS").await;
        stage.exec("INSERT INTO {t} SELECT MAX(id) + 1, 'rotated', 'x' FROM {t} AS more").await;
    }
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    purge(&stage).await;
    source.mend();
    is_proven_equal(&stage, "table and index were compared").await;
    let message = stage.until_state("running").await;
    assert!(message.to_string().contains("what differs is mended"), "{message}");
}

/// MySQL tells readers apart by more than their number; MariaDB ends the one that was there first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_with_our_server_id_is_named_with_the_remedy() {
    let number = 1_000_000 + i64::from(std::process::id());
    let with_number = |setup: Setup| setup.set("source.server_id", number);
    let both = async |flavour: Flavour| {
        let mysql = servers::mysql(flavour);
        let one = Stage::set(mysql.clone(), with_number).await;
        one.link().await;
        one.settle().await;
        let two = Stage::set(mysql, with_number).await;
        two.link().await;
        two.settle().await;
        (one, two)
    };
    let (one, two) = both(Flavour::Mysql97).await;
    for stage in [&one, &two] {
        stage.exec("INSERT INTO {t} VALUES (1, 'both', 'x')").await;
        is_proven_equal(stage, "both read").await;
    }
    let (mut one, two) = both(Flavour::Mariadb118).await;
    let message = one.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("give every reader of this source a server_id of its own"), "{errors}");
    one.exec("INSERT INTO {t} VALUES (1, 'one', 'x')").await;
    one.daemon.stop().await;
    one.daemon.reconfigure("source.server_id", number + 1);
    one.daemon.start_again().await;
    for stage in [&one, &two] {
        is_proven_equal(stage, "each has a number of its own").await;
    }
}
