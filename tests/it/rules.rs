//! The design rules that the delivery contract stands on, each as the interleaving that breaks its naive reading. Every
//! test runs twice: with the right reading it must hold, with the naive one put in its place (`DRIFTLESS_NAIVE`) it
//! must be seen to break. Rule 1 is also a model, in `window_model`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::failover;
use crate::mariadb;
use crate::standby;
use crate::support::daemon::Setup;
use crate::support::model::{Behaviour, Model};
use crate::support::proxy::{Proxy, Request};
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, difference, index_body};
use crate::support::tutorial::Door;
use crate::support::{SECONDS_10, SECONDS_30, unique, until};
use crate::verify::verify;

/// Which reading is in force.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Reading {
    Right,
    Naive,
}

impl Reading {
    fn of(self, rule: &str) -> impl FnOnce(Setup) -> Setup + use<'_> {
        move |setup| if self == Reading::Naive { setup.naive(rule) } else { setup }
    }
}

/// Whether the index comes to equal the table.
pub async fn holds(stage: &Stage, reading: Reading) -> Result<(), String> {
    stage.settle().await;
    if reading == Reading::Right {
        stage.until_equal("the index equals the table", SECONDS_30).await;
    }
    difference(&stage.found().await, &stage.expected().await)
}

pub fn assert_only_right_holds(reading: Reading, held: Result<(), String>) {
    match reading {
        Reading::Right => assert_eq!(held, Ok(())),
        Reading::Naive => assert!(
            held.is_err(),
            "the naive reading was not seen to break, so this test proves nothing"
        ),
    }
}

/// Commits hang between log and engine while a snapshot begins: what the stream passed is not yet to be seen.
async fn rule_1(reading: Reading, options: &[&str]) {
    let server = servers::own_mysql(Flavour::Mysql97, options).await;
    let stage = Stage::set(server.client(), reading.of("rule1")).await;
    stage.exec("INSERT INTO {t} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i, 'old', 'old' FROM n").await;
    // Another link, so that the stream runs and passes the held commits before the snapshot begins.
    let other = stage.search.index("other", index_body()).await;
    stage
        .mysql
        .exec(format!(
            "CREATE TABLE {}.other (id BIGINT PRIMARY KEY, a VARCHAR(9), b VARCHAR(9))",
            stage.db
        ))
        .await;
    let statement = stage.statement().replace(&stage.index, &other).replace(".t.", ".other.");
    stage.daemon.sql(&statement).await;
    let question = format!("CALL dbms_etl.show_sync_link_by_id('{other}')");
    until("the other link runs", SECONDS_30, async || {
        stage.daemon.sql(&question).await.cell(0, "Message").contains("\"running\"")
    })
    .await;
    let events =
        || async { stage.daemon.metric("driftless_source_events_total").await.unwrap_or(0.0) };
    for sql in [
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
        "SET GLOBAL rpl_semi_sync_source_timeout = 5000",
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica = 1",
        "SET GLOBAL rpl_semi_sync_source_enabled = 1",
    ] {
        stage.mysql.exec(sql).await;
    }
    let before = events().await;
    let held = [
        "UPDATE {t} SET a = 'new' WHERE id = 5",
        "DELETE FROM {t} WHERE id = 7",
        "UPDATE {t} SET id = 1009 WHERE id = 9",
        "INSERT INTO {t} VALUES (2000, 'new', 'new')",
    ];
    let commits: Vec<_> = held
        .iter()
        .map(|sql| {
            let (mysql, sql) =
                (stage.mysql.clone(), sql.replace("{t}", &format!("{}.t", stage.db)));
            tokio::spawn(async move { mysql.exec(sql).await })
        })
        .collect();
    // Four transactions of at least four events each.
    until("the stream has passed the held commits", SECONDS_10, async || {
        let events = events().await;
        if events >= before + 16.0 { Ok(()) } else { Err(format!("{events} of {before} + 16")) }
    })
    .await;
    assert!(!commits.iter().any(tokio::task::JoinHandle::is_finished), "the commits are not held");
    stage.link().await;
    for commit in commits {
        commit.await.expect("the held commit ends");
    }
    stage.mysql.exec("SET GLOBAL rpl_semi_sync_source_enabled = 0").await;
    assert_only_right_holds(reading, holds(&stage, reading).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_1_commits_held_between_log_and_engine_are_not_lost() {
    let options: [&[&str]; 2] = [&[], &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]];
    for options in options {
        rule_1(Reading::Right, options).await;
        rule_1(Reading::Naive, options).await;
    }
}

/// One rows event deletes and writes the same keys.
async fn rule_2(reading: Reading) {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), reading.of("rule2")).await;
    stage.link().await;
    stage.exec("INSERT INTO {t} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i, 'x', 'y' FROM n").await;
    stage.until_equal("50 rows are documents", SECONDS_30).await;
    let bulks_before = stage.proxy.requests().len();
    stage.exec("UPDATE {t} SET id = id + 1 ORDER BY id DESC").await;
    stage.until_equal("the keys have moved", SECONDS_30).await;
    let bulks = stage.proxy.requests();
    let versions: Vec<_> = bulks[bulks_before..].iter().flat_map(versions_of).collect();
    let distinct: BTreeSet<_> = versions.iter().collect();
    assert!(versions.len() >= 51, "{} operations", versions.len());
    let held = if distinct.len() == versions.len() {
        Ok(())
    } else {
        Err("operations share a version".to_owned())
    };
    assert_only_right_holds(reading, held);
}

/// The versions of a bulk's action lines.
fn versions_of(bulk: &Request) -> Vec<u64> {
    let version = |line: &str| -> Option<u64> {
        let action: Value = serde_json::from_str(line).ok()?;
        let action = action.get("index").or_else(|| action.get("delete"))?;
        action.get("version")?.as_u64()
    };
    bulk.text().lines().filter_map(version).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_2_keys_moved_by_one_within_one_event_leave_every_document() {
    rule_2(Reading::Right).await;
    rule_2(Reading::Naive).await;
}

/// Transactions are prepared, and then rolled back or committed much later.
async fn rule_3(reading: Reading, flavour: Flavour) {
    use mysql_async::prelude::Queryable as _;
    // Of its own: a prepared transaction holds up each new link.
    let server = servers::own_mysql(flavour, &[]).await;
    let stage = Stage::set(server.client(), reading.of("rule3")).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x'), (3, 'old', 'x')").await;
    stage.link().await;
    stage.settle().await;
    let xids = [unique("committed"), unique("undone")];
    for (xid, row) in xids.iter().zip([1, 2]) {
        let mut session = stage.mysql.session().await;
        for sql in [
            format!("XA START '{xid}'"),
            format!("UPDATE {}.t SET a = 'new' WHERE id = {row}", stage.db),
            format!("INSERT INTO {}.t VALUES (10 + {row}, 'new', 'x')", stage.db),
            format!("XA END '{xid}'"),
            format!("XA PREPARE '{xid}'"),
        ] {
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }
    let prepared = holds(&stage, reading).await;
    stage.mysql.exec(format!("XA COMMIT '{}'", xids[0])).await;
    stage.mysql.exec(format!("XA ROLLBACK '{}'", xids[1])).await;
    let ended = holds(&stage, reading).await;
    assert_only_right_holds(reading, prepared);
    assert_only_right_holds(reading, ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_3_rows_count_when_their_xa_transaction_is_committed() {
    for flavour in Flavour::ALL.into_iter().chain(Flavour::MARIADB) {
        rule_3(Reading::Right, flavour).await;
        rule_3(Reading::Naive, flavour).await;
    }
}

/// A document holds a version above all that we ever gave out.
async fn rule_4(reading: Reading) {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), reading.of("rule4")).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'ours', 'ours'), (2, 'ours', 'ours')").await;
    let path = format!("/{}/_doc/1?version={}&version_type=external_gte", stage.index, 1u64 << 61);
    stage.search.ok("PUT", &path, Some(json!({"id": 1, "a": "foreign"}))).await;
    stage.link().await;
    assert_only_right_holds(reading, holds(&stage, reading).await);
    if reading == Reading::Right {
        let (_, message) = stage.status().await;
        assert_ne!(message["restart_times"], "0", "a new epoch began: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_4_versions_of_another_writer_do_not_freeze_the_index() {
    rule_4(Reading::Right).await;
    rule_4(Reading::Naive).await;
}

/// A write is late, its document's delete is not, and the index has forgotten the delete when the write arrives.
async fn rule_5(reading: Reading) {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        reading.of("rule5")(setup).set("sink.bulk_documents", 1).set("sink.inflight", 4)
    })
    .await;
    let settings = json!({"index": {"gc_deletes": "100ms"}});
    stage.search.ok("PUT", &format!("/{}/_settings", stage.index), Some(settings)).await;
    stage.link().await;
    stage.settle().await;
    let late = stage.proxy.hold_next_request();
    stage.exec("INSERT INTO {t} VALUES (1, 'late', 'late')").await;
    late.arrived().await;
    let forwarded = stage.proxy.forwarded();
    stage.exec("DELETE FROM {t} WHERE id = 1").await;
    if reading == Reading::Naive {
        until("the delete has overtaken", SECONDS_10, async || stage.proxy.forwarded() > forwarded)
            .await;
        forget_tombstones(&stage).await;
    }
    late.open();
    assert_only_right_holds(reading, holds(&stage, reading).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_5_a_forgotten_tombstone_lets_no_older_state_back() {
    rule_5(Reading::Right).await;
    rule_5(Reading::Naive).await;
}

/// A later write that finds a tombstone expired takes it out of the shard's memory.
async fn forget_tombstones(stage: &Stage) {
    let forget = format!("/{}/_doc/other", stage.index);
    let started = std::time::Instant::now();
    until("tombstones have expired", SECONDS_10, async || {
        stage.search.ok("PUT", &forget, Some(json!({"id": 0}))).await;
        stage.search.refresh(&stage.index).await;
        started.elapsed() > Duration::from_millis(1_500)
    })
    .await;
    stage.search.ok("DELETE", &forget, None).await;
}

/// A document waits for its embedding, and is deleted meanwhile.
async fn rule_6(reading: Reading) {
    let model = Model::start().await;
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), reading.of("rule6")).await;
    let door = Door::Driftless(&stage.daemon);
    let model_id = door.deploy_model(&model.address()).await;
    let pipeline = unique("rule_6");
    let body = json!({"processors": [{"text_embedding": {"model_id": model_id, "field_map": {"a": "vector"}}}]});
    let (status, answer) =
        stage.daemon.request("PUT", &format!("/_ingest/pipeline/{pipeline}"), Some(body)).await;
    assert!(status < 300, "{answer}");
    let settings = json!({"index": {"default_pipeline": pipeline}});
    stage.search.ok("PUT", &format!("/{}/_settings", stage.index), Some(settings)).await;
    stage.link().await;
    stage.exec("INSERT INTO {t} VALUES (2, 'fine', 'x')").await;
    until("the first row is a document", SECONDS_30, async || {
        stage.search.doc(&stage.index, "2").await.is_some()
    })
    .await;

    model.behave(Behaviour::Refuse("poison".to_owned(), 503));
    let asked = model.requests().len();
    stage.exec("INSERT INTO {t} VALUES (1, 'poison', 'x')").await;
    until("the model was asked and refused", SECONDS_10, async || model.requests().len() > asked)
        .await;
    let lag = format!("driftless_link_lag_ms{{link=\"{}\"}}", stage.index);
    until("the row is seen to wait", SECONDS_10, async || {
        stage.daemon.metric(&lag).await > Some(0.0)
    })
    .await;
    stage.exec("DELETE FROM {t} WHERE id = 1").await;
    let acknowledged = tokio::time::timeout(
        SECONDS_10,
        until("all is acknowledged", SECONDS_30, async || {
            stage.daemon.metric(&lag).await == Some(0.0)
        }),
    );
    let held =
        acknowledged.await.map_err(|_| "the deleted row still waits for its embedding".to_owned());
    assert_only_right_holds(reading, held);
    assert!(stage.search.doc(&stage.index, "1").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_6_a_waiting_upsert_is_dropped_when_its_row_is_deleted() {
    rule_6(Reading::Right).await;
    rule_6(Reading::Naive).await;
}

/// A replica is promoted too early: it lacks transactions that were applied, and goes on with others of its own.
async fn rule_7(reading: Reading) {
    let flavour = Flavour::Mysql97;
    let (one, two) =
        (servers::own_mysql(flavour, &[]).await, servers::own_mysql(flavour, &[]).await);
    let (first, second) = (one.client(), two.client());
    let way = Proxy::tcp(&first.address()).await;
    let setup = |setup: Setup| reading.of("rule7")(setup.set("source.port", i64::from(way.port())));
    let mut stage = Stage::set(first.clone(), setup).await;
    failover::follow(flavour, &second, &first).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'both', 'x'), (2, 'both', 'x')").await;
    stage.link().await;
    stage.settle().await;
    failover::promote(flavour, &second, &first).await;
    stage.exec("INSERT INTO {t} VALUES (3, 'lost', 'x')").await;
    stage.exec("UPDATE {t} SET a = 'lost' WHERE id = 1").await;
    stage.settle().await;
    stage.mysql = second.clone();
    stage.exec("INSERT INTO {t} VALUES (10, 'kept', 'x')").await;
    way.lead_to(&second.address());
    way.drop_connections();
    assert_only_right_holds(reading, holds(&stage, reading).await);
    let epochs = stage.daemon.log().matches("lost a fail-over").count();
    assert_eq!(epochs > 0, reading == Reading::Right, "it says so, and only then");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_7_what_a_fail_over_has_lost_is_mended_before_the_stream_goes_on() {
    rule_7(Reading::Right).await;
    rule_7(Reading::Naive).await;
}

/// Two columns of one type change places while the daemon is down.
async fn rule_8(reading: Reading) {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), reading.of("rule8")).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a1', 'b1')").await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    stage.exec("INSERT INTO {t} VALUES (5, 'a5', 'b5')").await;
    stage.exec("ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a").await;
    stage.daemon.start_again().await;
    let found = until("row 5 is a document", SECONDS_30, async || {
        stage.search.doc(&stage.index, "5").await
    })
    .await;
    let right = json!({"id": 5, "a": "a5", "b": "b5"});
    let held = if found.source == right { Ok(()) } else { Err(format!("{}", found.source)) };
    assert_only_right_holds(reading, held);
    if reading == Reading::Right {
        stage.exec("INSERT INTO {t} (id, b, a) VALUES (6, 'a6', 'b6')").await;
        let found = until("row 6 is a document", SECONDS_30, async || {
            stage.search.doc(&stage.index, "6").await
        })
        .await;
        assert_eq!(found.source, json!({"id": 6, "a": "a6", "b": "b6"}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_8_columns_that_changed_places_are_not_mixed_up() {
    rule_8(Reading::Right).await;
    rule_8(Reading::Naive).await;
}

/// MariaDB logs transactions that were rolled back, as a whole or to a savepoint.
async fn rule_9(reading: Reading, flavour: Flavour) {
    use mysql_async::prelude::Queryable as _;
    let stage = Stage::set(servers::mysql(flavour), reading.of("rule9")).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x'), (3, 'old', 'x')").await;
    stage
        .mysql
        .exec(format!("CREATE TABLE {}.m (id INT PRIMARY KEY) ENGINE = MyISAM", stage.db))
        .await;
    stage.link().await;
    stage.settle().await;
    let scripts: [&[&str]; 2] = [
        &[
            "BEGIN",
            "INSERT INTO {t} VALUES (10, 'never', 'x')",
            "UPDATE {t} SET a = 'never' WHERE id = 1",
            "DELETE FROM {t} WHERE id = 2",
            "CREATE TEMPORARY TABLE {db}.passing (id INT)",
            "ROLLBACK",
        ],
        &[
            "BEGIN",
            "INSERT INTO {t} VALUES (20, 'kept', 'x')",
            "SAVEPOINT a",
            "INSERT INTO {t} VALUES (21, 'never', 'x')",
            "INSERT INTO {db}.m VALUES (1)",
            "SAVEPOINT b",
            "DELETE FROM {t} WHERE id = 3",
            "ROLLBACK TO a",
            "INSERT INTO {t} VALUES (22, 'kept', 'x')",
            "COMMIT",
        ],
    ];
    for script in scripts {
        let mut session = stage.mysql.session().await;
        for sql in script {
            let sql = sql.replace("{t}", &format!("{}.t", stage.db)).replace("{db}", &stage.db);
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }
    assert_only_right_holds(reading, holds(&stage, reading).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_9_what_mariadb_rolled_back_is_not_delivered() {
    for flavour in Flavour::MARIADB {
        rule_9(Reading::Right, flavour).await;
        rule_9(Reading::Naive, flavour).await;
    }
}

/// Commits of MariaDB hang between log and engine, and a copy begins.
async fn rule_18(reading: Reading, flavour: Flavour) {
    let server = servers::own_mysql(flavour, &[]).await;
    let stage = Stage::set(server.client(), reading.of("rule18")).await;
    mariadb::held_commits(&stage, &mariadb::HOLD, mariadb::RELEASE).await;
    assert_only_right_holds(reading, holds(&stage, reading).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_18_a_snapshot_of_mariadb_is_taken_again_until_it_shows_what_was_delivered() {
    for flavour in Flavour::MARIADB {
        rule_18(Reading::Right, flavour).await;
        rule_18(Reading::Naive, flavour).await;
    }
}

/// A row is on its way to the index when its table is emptied; and a temporary table of the same name is dropped.
async fn rule_10(reading: Reading) {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), reading.of("rule10")).await;
    stage.link().await;
    stage.settle().await;
    let late = stage.proxy.hold_next_request();
    stage.exec("INSERT INTO {t} VALUES (1, 'late', 'late')").await;
    late.arrived().await;
    stage.exec("TRUNCATE TABLE {t}").await;
    let met = match reading {
        Reading::Right => "a statement on the table",
        Reading::Naive => "documents whose rows went are deleted",
    };
    until("the statement was met", SECONDS_10, async || stage.daemon.log().contains(met)).await;
    late.open();
    stage.exec("INSERT INTO {t} VALUES (2, 'behind', 'x')").await;
    assert_only_right_holds(reading, holds(&stage, reading).await);
    if reading == Reading::Right {
        use mysql_async::prelude::Queryable;
        let mut session = stage.mysql.session().await;
        for sql in [
            "SET SESSION binlog_format = STATEMENT".to_owned(),
            format!("CREATE TEMPORARY TABLE {}.t (id INT)", stage.db),
            format!("DROP TABLE {}.t", stage.db),
        ] {
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        stage.settle().await;
        stage.until_equal("the temporary table concerns nobody", SECONDS_30).await;
        assert_eq!(stage.status().await.0, "running");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_a_truncated_table_leaves_no_document_that_was_on_its_way() {
    rule_10(Reading::Right).await;
    rule_10(Reading::Naive).await;
}

/// Values change without row events: the server cuts them to a shorter type.
async fn rule_11(reading: Reading) {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), reading.of("rule11")).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'long enough', 'b'), (2, 'short', 'b')").await;
    stage.link().await;
    stage.settle().await;
    use mysql_async::prelude::Queryable;
    let mut session = stage.mysql.session().await;
    session.query_drop("SET SESSION sql_mode = ''").await.expect("is set");
    let alter = format!("ALTER TABLE {}.t MODIFY a VARCHAR(6)", stage.db);
    session.query_drop(alter).await.expect("is cut");
    for sql in [
        "SET SESSION binlog_format = STATEMENT",
        "UPDATE {t} SET b = 'by a statement' WHERE id = 1",
        "DELETE FROM {t} WHERE id = 2",
    ] {
        let sql = sql.replace("{t}", &format!("{}.t", stage.db));
        session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    stage.exec("INSERT INTO {t} VALUES (3, 'behind', 'b')").await;
    until("the row behind is a document", SECONDS_30, async || {
        stage.search.doc(&stage.index, "3").await.is_some()
    })
    .await;
    let held = match reading {
        Reading::Right => {
            stage.until_equal("the cut values are in the index", SECONDS_30).await;
            Ok(())
        }
        Reading::Naive => {
            stage.search.refresh(&stage.index).await;
            difference(&stage.found().await, &stage.expected().await)
        }
    };
    assert_only_right_holds(reading, held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_what_statements_changed_without_rows_is_copied_again() {
    rule_11(Reading::Right).await;
    rule_11(Reading::Naive).await;
}

/// The parent's delete is in the log, what it does to the children is not.
async fn rule_12(reading: Reading) {
    let stage = Stage::set(servers::mysql(Flavour::Mysql80), reading.of("rule12")).await;
    let parents = format!("{}.parents", stage.db);
    for sql in [
        format!("CREATE TABLE {parents} (code VARCHAR(200) PRIMARY KEY) CHARSET utf8mb4"),
        format!("INSERT INTO {parents} VALUES (''), ('x'), ('y')"),
        format!(
            "ALTER TABLE {{t}} ADD FOREIGN KEY (b) REFERENCES {parents} (code) ON DELETE CASCADE ON UPDATE CASCADE"
        ),
        "INSERT INTO {t} VALUES (1, 'a1', 'x'), (2, 'a2', 'y'), (3, 'a3', NULL)".to_owned(),
    ] {
        stage.exec(&sql).await;
    }
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    stage.exec(&format!("DELETE FROM {parents} WHERE code = 'x'")).await;
    stage.exec(&format!("UPDATE {parents} SET code = 'z' WHERE code = 'y'")).await;
    assert_only_right_holds(reading, holds(&stage, reading).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_12_what_a_foreign_key_does_to_rows_reaches_their_documents() {
    rule_12(Reading::Right).await;
    rule_12(Reading::Naive).await;
}

/// The `_id` is made of a column that the images of deleted rows do not have.
async fn rule_13(reading: Reading) {
    let server = servers::own_mysql(Flavour::Mysql97, &["--binlog-row-image=MINIMAL"]).await;
    let stage = Stage::set(server.client(), reading.of("rule13")).await;
    stage.exec("ALTER TABLE {t} MODIFY a VARCHAR(200) NOT NULL, ADD UNIQUE (a)").await;
    let key = |column: &str| format!("'{}.{column}={}.t.{column}'", stage.index, stage.db);
    let by_a = stage.statement().replace(&key("id"), &key("a"));
    let made = stage.daemon.try_sql(&by_a).await;
    if reading == Reading::Right {
        let refused = made.expect_err("its images lack the `_id`");
        assert!(refused.contains("binlog_row_image is MINIMAL"), "{refused}");
        return;
    }
    made.expect("it is made");
    stage.exec("INSERT INTO {t} VALUES (1, 'goes', 'x'), (2, 'stays', 'x')").await;
    let is_there = async |id: &str| stage.search.doc(&stage.index, id).await.is_some();
    until("both are documents", SECONDS_30, async || is_there("stays").await).await;
    stage.exec("DELETE FROM {t} WHERE id = 1").await;
    stage.exec("INSERT INTO {t} VALUES (3, 'behind', 'x')").await;
    until("what follows is a document", SECONDS_30, async || is_there("behind").await).await;
    assert!(is_there("goes").await, "the naive reading was not seen to break");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_13_an_id_that_images_leave_out_is_refused() {
    rule_13(Reading::Right).await;
    rule_13(Reading::Naive).await;
}

/// The index is closed for writes, then deleted: neither is a row's fault.
async fn rule_14(reading: Reading) {
    let setup = |setup: Setup| reading.of("rule14")(setup.set("link.error_limit.records", 0));
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    stage.link().await;
    stage.settle().await;
    let block = |on: bool| json!({"index": {"blocks": {"write": on}}});
    let settings = format!("/{}/_settings", stage.index);
    stage.search.ok("PUT", &settings, Some(block(true))).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'blocked', 'x')").await;
    let state = until("the link has met the block", SECONDS_30, async || {
        let (state, _) = stage.status().await;
        (state != "running" && state != "catching_up").then_some(state)
    })
    .await;
    let held = if state == "recovering" { Ok(()) } else { Err(state) };
    assert_only_right_holds(reading, held);
    stage.search.ok("PUT", &settings, Some(block(false))).await;
    if reading == Reading::Naive {
        return;
    }
    stage.until_equal("what was blocked is written", SECONDS_30).await;

    stage.search.delete_index(&stage.index).await;
    stage.exec("INSERT INTO {t} VALUES (2, 'deleted', 'x')").await;
    stage.until_state("recovering").await;
    let (status, _) = stage.search.request("GET", &format!("/{}", stage.index), None).await;
    assert_eq!(status, 404, "the write has made the index again");
    stage.search.create_index(&stage.index, index_body()).await;
    stage.until_equal("the index that was made anew is filled", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_14_a_deleted_index_is_not_made_again_by_a_write() {
    rule_14(Reading::Right).await;
    rule_14(Reading::Naive).await;
}

/// A link reads the log beside the stream that the others share.
async fn rule_17(reading: Reading) {
    let setup = reading.of("rule17");
    let stage = Stage::set(servers::mysql(Flavour::MARIADB[0]), setup).await;
    stage.link().await;
    let other = stage.search.index("other", index_body()).await;
    let db = &stage.db;
    stage.mysql.exec(format!("CREATE TABLE {db}.other LIKE {db}.t")).await;
    let statement = stage.statement().replace(&stage.index, &other).replace(".t.", ".other.");
    stage.daemon.sql(&statement).await;
    stage.settle().await;
    stage.daemon.sql(&format!("PAUSE LINK {}", stage.index)).await;
    for id in 1..=20 {
        stage.exec(&format!("INSERT INTO {{t}} VALUES ({id}, 'x', 'x')")).await;
        stage.mysql.exec(format!("INSERT INTO {db}.other VALUES ({id}, 'x', 'x')")).await;
    }
    until("the other link goes on", SECONDS_30, async || {
        stage.search.doc(&other, "20").await.is_some()
    })
    .await;
    // The paused one is behind now, and must read what the shared stream has passed.
    stage.daemon.sql(&format!("RESUME LINK {}", stage.index)).await;
    stage.until_equal("the link has caught up", SECONDS_30).await;
    let metric = async |name: &str| stage.daemon.metric(name).await.expect("it is there");
    if reading == Reading::Right {
        until("the link shares the stream again", SECONDS_30, async || {
            metric("driftless_source_own_streams").await == 0.0
        })
        .await;
    }
    let shown = stage.daemon.sql(&format!("CALL dbms_etl.show_sync_link_by_id('{other}')")).await;
    let held = match metric("driftless_source_reconnects_total").await {
        0.0 if shown.cell(0, "Message").contains("\"running\"") => Ok(()),
        count => Err(format!("{count} times cut off; the other: {}", shown.cell(0, "Message"))),
    };
    assert_only_right_holds(reading, held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_17_a_second_reader_of_the_log_does_not_cut_off_the_first() {
    rule_17(Reading::Right).await;
    rule_17(Reading::Naive).await;
}

/// The index is behind the table, and then ahead of it: the link is well both times.
async fn rule_16(reading: Reading) {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let stage = Stage::set(server.client(), reading.of("rule16")).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'old'), (2, 'old', 'old')").await;
    stage.link().await;
    stage.settle().await;
    let statement = format!("VERIFY LINK {}", stage.index);
    let verified = async || match verify(&stage.daemon, &statement).await.count("differences") {
        0 => Ok(()),
        count => Err(format!("{count} differences")),
    };

    // What was changed is on its way.
    let gate = stage.proxy.hold_next_request();
    stage.exec("UPDATE {t} SET a = 'new' WHERE id = 1").await;
    gate.arrived().await;
    let rows = format!("driftless_verify_rows_total{{link=\"{}\"}}", stage.index);
    let open = async {
        until("the rows were looked at", SECONDS_30, async || {
            stage.daemon.metric(&rows).await >= Some(3.0)
        })
        .await;
        gate.open();
    };
    let (behind, ()) = tokio::join!(verified(), open);
    stage.settle().await;

    // The log has a change, and the index has it from there; the server shows it only when it is committed.
    for sql in [
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
        "SET GLOBAL rpl_semi_sync_source_timeout = 5000",
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica = 1",
        "SET GLOBAL rpl_semi_sync_source_enabled = 1",
    ] {
        stage.mysql.exec(sql).await;
    }
    let (mysql, sql) =
        (stage.mysql.clone(), format!("UPDATE {}.t SET b = 'new' WHERE id = 2", stage.db));
    let commit = tokio::spawn(async move { mysql.exec(sql).await });
    until("the change is in the index", SECONDS_10, async || {
        stage.search.doc(&stage.index, "2").await.is_some_and(|doc| doc.source["b"] == "new")
    })
    .await;
    assert!(!commit.is_finished(), "the commit is not held");
    let ahead = verified().await;
    commit.await.expect("the held commit ends");
    assert_only_right_holds(reading, behind);
    assert_only_right_holds(reading, ahead);
    assert_eq!(difference(&stage.found().await, &stage.expected().await), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_16_a_change_on_its_way_is_never_reported_as_a_difference() {
    rule_16(Reading::Right).await;
    rule_16(Reading::Naive).await;
}

/// A leader is stopped with an upsert that it could not send, and wakes when the row is long deleted. It cannot reach the
/// source any more, so it does not see that.
async fn rule_19(reading: Reading) {
    let source = Proxy::tcp(&servers::mysql(Flavour::Mysql97).address()).await;
    let setup =
        |setup: Setup| reading.of("rule19")(setup).set("source.port", i64::from(source.port()));
    let mut pair = standby::Pair::set(standby::LEASE_SECS, setup).await;
    let settings = json!({"index": {"gc_deletes": "100ms"}});
    let path = format!("/{}/_settings", pair.stage.index);
    pair.stage.search.ok("PUT", &path, Some(settings)).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    let other = pair.another(|setup| setup).await;
    standby::until_stands_by(&other.daemon).await;
    pair.until_copied().await;

    let retries = format!("driftless_sink_retries_total{{link=\"{}\"}}", pair.stage.index);
    pair.stage.proxy.cut();
    pair.stage.exec("INSERT INTO {t} VALUES (1, 'late', 'late')").await;
    until("the upsert waits", SECONDS_10, async || {
        pair.stage.daemon.metric(&retries).await > Some(0.0)
    })
    .await;
    pair.stage.daemon.signal("STOP");
    source.cut();
    pair.stage.proxy.mend();
    // It takes two requests and their answers to notice that the lease is lost, and half a request to write.
    pair.stage.proxy.delay(Duration::from_millis(200));
    let old = pair.lead(other);
    standby::until_leads(&pair.stage.daemon).await;
    pair.stage.until_equal("the new leader has written it", SECONDS_30).await;
    pair.stage.exec("DELETE FROM {t} WHERE id = 1").await;
    pair.stage.until_equal("the new leader has deleted it", SECONDS_30).await;
    forget_tombstones(&pair.stage).await;
    old.daemon.signal("CONT");
    standby::until_stands_by(&old.daemon).await;
    assert_only_right_holds(reading, holds(&pair.stage, reading).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_19_a_leader_that_wakes_writes_nothing_behind_its_lease() {
    let _one = standby::one_at_a_time().await;
    rule_19(Reading::Right).await;
    rule_19(Reading::Naive).await;
}

/// Events that are larger than the limit: of a table that nobody mapped, and with a column that nobody mapped.
async fn rule_22(reading: Reading) {
    const MIB: f64 = 1_048_576.0;
    let options = ["--max-allowed-packet=1G", "--innodb-redo-log-capacity=4G"];
    let server = servers::own_mysql(Flavour::Mysql80, &options).await;
    let limit = reading.of("rule22");
    let stage =
        Stage::set(server.client(), |setup| limit(setup.set("memory_limit_bytes", 16 << 20))).await;
    // No redo log to be filled.
    stage.exec("CREATE TABLE {t}_big (id INT PRIMARY KEY, v LONGBLOB) ENGINE = MyISAM").await;
    stage.exec("ALTER TABLE {t} ADD v LONGBLOB INVISIBLE").await;
    stage.link().await;
    stage.settle().await;
    let idle = stage.daemon.most_resident_bytes();
    stage.exec("INSERT INTO {t}_big VALUES (1, REPEAT('x', 300 << 20))").await;
    stage.settle().await;
    let grown = (stage.daemon.most_resident_bytes() - idle) / MIB;
    eprintln!("{reading:?}: {grown:.0} MiB more for 300 MiB that nobody wants");
    assert_only_right_holds(reading, if grown < 64.0 { Ok(()) } else { Err(grown.to_string()) });
    if reading == Reading::Right {
        let wide = "INSERT INTO {t} (id, a, b, v) VALUES (5, 'wide', 'x', REPEAT('x', 100 << 20))";
        stage.exec(wide).await;
        stage.exec("UPDATE {t} SET a = 'wider' WHERE id = 5").await;
        stage.settle().await;
        stage.until_equal("the wide row is a document", SECONDS_30).await;
        let grown = (stage.daemon.most_resident_bytes() - idle) / MIB;
        eprintln!("{grown:.0} MiB more for events of 100 and 200 MiB");
        // The update has both images. One event is worked at while the next is read.
        assert!(grown < 100.0 + 200.0 + 64.0, "{grown} MiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_22_a_large_event_takes_no_memory_that_nobody_needs() {
    rule_22(Reading::Right).await;
    rule_22(Reading::Naive).await;
}
