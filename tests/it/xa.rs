//! XA transactions: their rows count when they are committed, whatever is restarted between XA PREPARE and then. The
//! naive reading is refuted in `rules`. Every test has a server of its own: a prepared transaction holds up each new link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use serde_json::Value;

use crate::support::daemon::Setup;
use crate::support::proxy::Request;
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, index_body};
use crate::support::{MINUTES_2, SECONDS_30, unique, until};

/// Runs the statements between XA START and XA PREPARE.
async fn prepare(stage: &Stage, xid: &str, statements: &[&str]) {
    in_xa(stage, xid, statements, "XA PREPARE").await;
}

async fn in_xa(stage: &Stage, xid: &str, statements: &[&str], end: &str) {
    let mut session = stage.mysql.session().await;
    let (start, ended) = (format!("XA START '{xid}'"), format!("XA END '{xid}'"));
    let prepared = match end.strip_suffix(" ONE PHASE") {
        Some(commit) => format!("{commit} '{xid}' ONE PHASE"),
        None => format!("{end} '{xid}'"),
    };
    for sql in
        [start.as_str()].into_iter().chain(statements.iter().copied()).chain([&*ended, &*prepared])
    {
        let sql = sql.replace("{t}", &format!("{}.t", stage.db)).replace("{db}", &stage.db);
        session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    session.disconnect().await.expect("says good-bye");
}

/// XA COMMIT or XA ROLLBACK in another session. MariaDB knows the transaction there when it has noticed that the one that
/// prepared it is gone.
async fn decide(stage: &Stage, sql: &str) {
    until(sql, SECONDS_30, async || stage.mysql.try_exec(sql).await).await;
}

fn numbers(from: u32, to: u32) -> String {
    format!(
        "INSERT INTO {{t}} WITH RECURSIVE n AS (SELECT {from} AS i UNION ALL SELECT i + 1 FROM n WHERE i < {to}) \
         SELECT i, CONCAT('row ', i), REPEAT('y', 150) FROM n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_delivered_when_daemon_and_server_were_killed_between_prepare_and_commit() {
    for flavour in Flavour::EVERY {
        let mut server = servers::own_mysql(flavour, &[]).await;
        let mut stage = Stage::set(server.client(), |setup| setup).await;
        stage
            .exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x'), (3, 'old', 'x')")
            .await;
        stage.link().await;
        stage.settle().await;
        let change = [
            "UPDATE {t} SET a = 'new' WHERE id = 1",
            "DELETE FROM {t} WHERE id = 2",
            "UPDATE {t} SET id = 30 WHERE id = 3",
            "INSERT INTO {t} VALUES (4, 'new', 'x')",
        ];
        prepare(&stage, "kept", &change).await;
        prepare(&stage, "dropped", &["INSERT INTO {t} VALUES (500, 'never', 'x')"]).await;
        stage.settle().await;
        // The checkpoint of a stop lies behind XA PREPARE.
        stage.daemon.stop().await;
        server.kill().await;
        server.start().await;
        stage.daemon.start_again().await;
        stage.settle().await;
        stage.until_equal("nothing is committed yet", SECONDS_30).await;
        stage.daemon.kill9();
        decide(&stage, "XA COMMIT 'kept'").await;
        decide(&stage, "XA ROLLBACK 'dropped'").await;
        stage.daemon.start_again().await;
        stage.settle().await;
        stage.until_equal("what was committed is in the index", SECONDS_30).await;
        assert!(stage.search.doc(&stage.index, "30").await.is_some());
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

/// By id the versions of a bulk's operations.
pub fn versions(bulks: &[Request]) -> BTreeMap<String, Vec<u64>> {
    let mut versions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in
        bulks.iter().flat_map(|bulk| bulk.text().lines().map(str::to_owned).collect::<Vec<_>>())
    {
        let Ok(action) = serde_json::from_str::<Value>(&line) else { continue };
        let Some(action) = action.get("index").or_else(|| action.get("delete")) else { continue };
        if let (Some(id), Some(version)) = (action["_id"].as_str(), action["version"].as_u64()) {
            versions.entry(id.to_owned()).or_default().push(version);
        }
    }
    versions
}

/// One XID twice, and a kill behind both commits: the replay must not take the second's rows for the first's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_gives_the_same_rows_the_same_versions() {
    for flavour in Flavour::EVERY {
        // No checkpoint but those of the beginning and of the end.
        let server = servers::own_mysql(flavour, &[]).await;
        let mut stage =
            Stage::set(server.client(), |setup| setup.set("link.checkpoint_interval_ms", 600_000))
                .await;
        stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x')").await;
        stage.link().await;
        stage.settle().await;
        let xid = unique("again");
        prepare(&stage, &xid, &["UPDATE {t} SET a = 'first' WHERE id = 1"]).await;
        stage.settle().await;
        stage.daemon.stop().await;
        stage.daemon.start_again().await;
        let before = stage.proxy.requests().len();
        decide(&stage, &format!("XA COMMIT '{xid}'")).await;
        let second =
            ["UPDATE {t} SET a = 'second' WHERE id = 2", "UPDATE {t} SET id = 3 WHERE id = 2"];
        prepare(&stage, &xid, &second).await;
        decide(&stage, &format!("XA COMMIT '{xid}'")).await;
        stage.exec("INSERT INTO {t} VALUES (4, 'behind', 'x')").await;
        stage.until_equal("both are in the index", SECONDS_30).await;
        let first_life = versions(&stage.proxy.requests()[before..]);
        stage.daemon.kill9();
        let before = stage.proxy.requests().len();
        stage.daemon.start_again().await;
        until("the replay has written all", SECONDS_30, async || {
            versions(&stage.proxy.requests()[before..]).len() >= first_life.len()
        })
        .await;
        assert_eq!(versions(&stage.proxy.requests()[before..]), first_life, "{flavour:?}");
        assert_eq!(first_life["2"], first_life["3"], "one place, one version");
        assert!(first_life["1"] < first_life["2"] && first_life["3"] < first_life["4"]);
        stage.settle().await;
        stage.until_equal("the index equals the table", SECONDS_30).await;
    }
}

/// More than is held in memory, with every document changed twice; compressed in the log too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_goes_through_the_state() {
    for flavour in Flavour::EVERY {
        let server = servers::own_mysql(flavour, &[]).await;
        let mut stage = Stage::set(server.client(), |setup: Setup| setup).await;
        stage.exec(&numbers(1, 900)).await;
        stage.link().await;
        stage.settle().await;
        let xid = unique("large");
        let depth = match flavour.is_mariadb() {
            true => "SET SESSION max_recursive_iterations = 100000",
            false => "SET SESSION cte_max_recursion_depth = 100000",
        };
        let change = [
            depth,
            &numbers(1_000, 20_000),
            "UPDATE {t} SET id = id + 1, a = 'moved' WHERE id < 999999999 ORDER BY id DESC",
        ];
        prepare(&stage, &xid, &change).await;
        // On MariaDB a prepared transaction goes on to lock the gaps between its rows, the one of the sentinel too.
        if !flavour.is_mariadb() {
            stage.settle().await;
        }
        stage.daemon.kill9();
        stage.daemon.start_again().await;
        decide(&stage, &format!("XA COMMIT '{xid}'")).await;
        stage.until_equal("all rows have moved", MINUTES_2).await;
        let change = [
            "SET SESSION binlog_transaction_compression = ON",
            "UPDATE {t} SET id = id - 1, a = 'back' WHERE id < 999999999 ORDER BY id",
            "DELETE FROM {t} WHERE id < 100",
        ];
        // A session setting cannot be changed inside the transaction.
        if !flavour.is_mariadb() {
            stage.mysql.exec(change[0]).await;
        }
        in_xa(&stage, &xid, &change[1..], "XA COMMIT ONE PHASE").await;
        stage.until_equal("all rows have moved back", MINUTES_2).await;
        stage.settle().await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_links_get_each_its_own_rows_of_a_transaction() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let stage = Stage::set(server.client(), |setup| setup).await;
    let other = stage.search.index("other", index_body()).await;
    let table = "CREATE TABLE {db}.other (id BIGINT PRIMARY KEY, a VARCHAR(9), b VARCHAR(9))";
    stage.mysql.exec(table.replace("{db}", &stage.db)).await;
    let statement = stage.statement().replace(&stage.index, &other).replace(".t.", ".other.");
    stage.link().await;
    stage.daemon.sql(&statement).await;
    stage.settle().await;
    let xid = unique("both");
    let change =
        ["INSERT INTO {t} VALUES (1, 'one', 'x')", "INSERT INTO {db}.other VALUES (2, 'two', 'x')"];
    prepare(&stage, &xid, &change).await;
    stage.settle().await;
    assert_eq!(stage.search.docs(&other).await.len(), 0);
    decide(&stage, &format!("XA COMMIT '{xid}'")).await;
    stage.until_equal("the first link has its row", SECONDS_30).await;
    until("the second link has its row", SECONDS_30, async || {
        stage.search.doc(&other, "2").await.is_some()
    })
    .await;
    assert!(stage.search.doc(&other, "1").await.is_none());
    assert_eq!(stage.until_state("running").await["errors"], "");
}

/// The rows of such a transaction lie before the stream, and become visible behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_begins_when_what_was_prepared_before_it_has_ended() {
    for flavour in Flavour::EVERY {
        let server = servers::own_mysql(flavour, &[]).await;
        let stage = Stage::set(server.client(), |setup| setup).await;
        stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x')").await;
        prepare(
            &stage,
            "before",
            &["UPDATE {t} SET a = 'new'", "INSERT INTO {t} VALUES (9, 'new', 'x')"],
        )
        .await;
        stage.link().await;
        let message = stage.until_state("recovering").await;
        let errors = message["errors"].as_str().unwrap_or_default();
        assert!(errors.contains("XA COMMIT X'6265666f7265',X'',1"), "{errors}");
        decide(&stage, "XA COMMIT 'before'").await;
        stage.settle().await;
        stage.until_equal("the copy has what was committed", SECONDS_30).await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_privilege_a_transaction_from_before_the_link_stops_it() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mysql = server.client();
    let (user, password) = mysql.replication_user().await;
    let stage = Stage::set(mysql, |setup| {
        setup.set("source.user", user.as_str()).set("source.password", password.as_str())
    })
    .await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x')").await;
    prepare(&stage, "before", &["UPDATE {t} SET a = 'new' WHERE id = 1"]).await;
    prepare(&stage, "undone", &["INSERT INTO {t} VALUES (7, 'never', 'x')"]).await;
    stage.link().await;
    stage.settle().await;
    // One that is rolled back changes nothing; nor does one that was seen to touch nothing of ours.
    decide(&stage, "XA ROLLBACK 'undone'").await;
    let table = "CREATE TABLE {db}.other (id BIGINT PRIMARY KEY)";
    stage.mysql.exec(table.replace("{db}", &stage.db)).await;
    prepare(&stage, "elsewhere", &["INSERT INTO {db}.other VALUES (1)"]).await;
    decide(&stage, "XA COMMIT 'elsewhere'").await;
    stage.settle().await;
    assert_eq!(stage.until_state("running").await["errors"], "");
    decide(&stage, "XA COMMIT 'before'").await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("was prepared before this link began"), "{errors}");
    assert!(errors.contains("GRANT XA_RECOVER_ADMIN"), "{errors}");
}

/// A snapshot in small chunks, transactions that are prepared in one window and committed in another, and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_during_a_snapshot_and_kills_are_not_lost() {
    for flavour in Flavour::EVERY {
        let server = servers::own_mysql(flavour, &[]).await;
        let mut stage = Stage::set(server.client(), |setup| {
            setup.set("snapshot.chunk_rows", 100).set("link.checkpoint_interval_ms", 50)
        })
        .await;
        stage.exec(&numbers(1, 900)).await;
        stage.exec("INSERT INTO {t} SELECT id + 1000, a, b FROM {t}").await;
        stage.exec("INSERT INTO {t} SELECT id + 2000, a, b FROM {t}").await;
        let stop = Arc::new(AtomicBool::new(false));
        let (mysql, table, stopped) =
            (stage.mysql.clone(), format!("{}.t", stage.db), stop.clone());
        let load = tokio::spawn(async move {
            let (mut session, beside) = (mysql.session().await, mysql);
            let (name, mut turn) = (unique("load"), 0u32);
            while !stopped.load(Ordering::Relaxed) {
                turn += 1;
                let (row, end) =
                    (turn * 397 % 3900, if turn.is_multiple_of(5) { "ROLLBACK" } else { "COMMIT" });
                let ended = if turn.is_multiple_of(7) { "COMMIT" } else { end };
                let one_phase = if turn.is_multiple_of(7) { "ONE PHASE" } else { "" };
                let mut statements = vec![
                    format!("XA START '{name}'"),
                    format!(
                        "UPDATE {table} SET a = 'x{turn}' WHERE id BETWEEN {row} AND {row} + 20"
                    ),
                    format!("DELETE FROM {table} WHERE id = {row} + 21"),
                    format!("REPLACE INTO {table} VALUES ({row} + 22, 'new{turn}', 'x')"),
                    format!("XA END '{name}'"),
                ];
                if one_phase.is_empty() {
                    let other = (row + 2000) % 3900;
                    statements.push(format!("XA PREPARE '{name}'"));
                    statements.push(format!("UPDATE {table} SET b = 'p{turn}' WHERE id = {other}"));
                }
                statements.push(format!("XA {ended} '{name}' {one_phase}"));
                for sql in statements {
                    // MariaDB takes nothing else from a session whose transaction is prepared.
                    match sql.starts_with("UPDATE") && sql.contains("SET b") {
                        true => beside.exec(&sql).await,
                        false => session
                            .query_drop(&sql)
                            .await
                            .unwrap_or_else(|error| panic!("{sql}: {error}")),
                    }
                }
            }
            turn
        });
        stage.proxy.delay(Duration::from_millis(5));
        stage.link().await;
        for _ in 0..3 {
            let rows =
                format!("driftless_link_rows_total{{kind=\"snapshot\",link=\"{}\"}}", stage.index);
            until("chunks were copied", MINUTES_2, async || {
                let done = stage.status().await.0 == "running";
                done || stage.daemon.metric(&rows).await.unwrap_or(0.0) >= 300.0
            })
            .await;
            stage.daemon.kill9();
            stage.daemon.start_again().await;
        }
        stage.until_snapshot_is_done().await;
        stop.store(true, Ordering::Relaxed);
        assert!(load.await.expect("the load ends") > 20);
        stage.settle().await;
        stage.until_equal("the index equals the table", MINUTES_2).await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

/// MariaDB logs what was rolled back to a savepoint, where a table without transactions was changed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_prepared_transaction_has_rolled_back_to_a_savepoint_is_not_delivered() {
    for flavour in Flavour::MARIADB {
        let server = servers::own_mysql(flavour, &[]).await;
        let mut stage = Stage::set(server.client(), |setup| setup).await;
        stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x')").await;
        let plain = "CREATE TABLE {db}.m (id INT PRIMARY KEY) ENGINE = MyISAM";
        stage.mysql.exec(plain.replace("{db}", &stage.db)).await;
        stage.link().await;
        stage.settle().await;
        let statements = [
            "UPDATE {t} SET a = 'kept' WHERE id = 1",
            "SAVEPOINT s",
            "INSERT INTO {t} VALUES (3, 'never', 'x')",
            "UPDATE {t} SET a = 'never' WHERE id = 2",
            "INSERT INTO {db}.m VALUES (1)",
            "ROLLBACK TO s",
            "INSERT INTO {t} VALUES (4, 'kept', 'x')",
        ];
        prepare(&stage, "partly", &statements).await;
        stage.settle().await;
        stage.until_equal("nothing is committed yet", SECONDS_30).await;
        stage.daemon.kill9();
        stage.daemon.start_again().await;
        decide(&stage, "XA COMMIT 'partly'").await;
        stage.settle().await;
        stage.until_equal("what was not rolled back", SECONDS_30).await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}
