//! A link whose place in the log is gone: what differs from the table is written, and nothing else, also through a kill;
//! where that cannot be known everything is copied.

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::prelude::Queryable as _;
use serde_json::json;

use crate::delivery::{fill, purge, quiet_stage};
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

const ROWS: u32 = 4_000;

/// About one row in a hundred.
const CHANGES: [&str; 4] = [
    "UPDATE {t} SET a = 'meanwhile' WHERE id % 200 = 0",
    "UPDATE {t} SET id = id + 100000 WHERE id % 500 = 1",
    "DELETE FROM {t} WHERE id % 400 = 2",
    "INSERT INTO {t} VALUES (50000, 'new', 'b'), (50001, 'new', 'b')",
];

type Versions = BTreeMap<String, u64>;

async fn versions(stage: &Stage) -> Versions {
    let docs = stage.search.docs(&stage.index).await;
    docs.into_iter().map(|(id, doc)| (id, doc.version)).collect()
}

/// The ids of documents that are new, are gone, or have another version.
fn touched(before: &Versions, after: &Versions) -> BTreeSet<String> {
    let ids = before.keys().chain(after.keys());
    ids.filter(|id| before.get(*id) != after.get(*id)).cloned().collect()
}

/// The ids of rows that the changes make, take, or alter.
fn changed() -> BTreeSet<String> {
    let of = |id: u32| match id {
        _ if id % 500 == 1 => vec![id, id + 100_000],
        _ if id.is_multiple_of(200) || id % 400 == 2 => vec![id],
        _ => vec![],
    };
    // Two rows are there from the beginning.
    let changed = (100..100 + ROWS).chain([1, 2]).flat_map(of).chain([50_000, 50_001]);
    changed.map(|id| id.to_string()).collect()
}

/// A link that was stopped, and changes that no log has any more.
async fn behind_a_purge(chunk_rows: i64) -> (Stage, servers::OwnMysql) {
    let (mut stage, server) =
        quiet_stage(&[], |setup| setup.set("snapshot.chunk_rows", chunk_rows)).await;
    fill(&stage, 100, ROWS, 32).await;
    stage.link().await;
    stage.until_equal("copied", SECONDS_30).await;
    stage.settle().await;
    stage.daemon.stop().await;
    for sql in CHANGES {
        stage.exec(sql).await;
    }
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    purge(&stage).await;
    (stage, server)
}

async fn metric(stage: &Stage, name: &str) -> f64 {
    stage.daemon.metric(&format!("{name}{{link=\"{}\"}}", stage.index)).await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_table_whose_log_was_purged_has_what_differs_written_and_nothing_else() {
    let (mut stage, _server) = behind_a_purge(500).await;
    let before = versions(&stage).await;
    stage.daemon.start_again().await;
    let message = stage.until_state("running").await;
    assert_eq!(message["errors"], "");
    assert!(message.to_string().contains("what differs is mended"), "{message}");
    stage.until_equal("the index is what the table is", SECONDS_30).await;
    let after = versions(&stage).await;
    assert_eq!(touched(&before, &after), changed());
    let upserted = touched(&before, &after).iter().filter(|id| after.contains_key(*id)).count();
    eprintln!("{ROWS} rows: {} documents touched, {upserted} written", changed().len());
    assert_eq!(metric(&stage, "driftless_verify_repaired_total").await, changed().len() as f64);
    // The next start goes on from there, and compares nothing.
    stage.daemon.stop().await;
    stage.exec("DELETE FROM {t} WHERE id = 50000").await;
    stage.daemon.start_again().await;
    stage.settle().await;
    stage.until_equal("the stream goes on", SECONDS_30).await;
    assert_eq!(metric(&stage, "driftless_verify_rows_total").await, 0.0);
}

/// Rows change all the time, also those that have been compared and those that will be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_verification_behind_a_purge_is_killed_in_the_middle_and_goes_on() {
    let (mut stage, _server) = behind_a_purge(20).await;
    let before = versions(&stage).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (mysql, db) = (stage.mysql.clone(), stage.db.clone());
    let load = tokio::spawn(async move {
        let mut session = mysql.session().await;
        let mut stopped = stopped;
        let mut loaded = BTreeSet::new();
        for number in 0_u64.. {
            if stopped.try_recv().is_ok() {
                break;
            }
            let id = 100 + number.wrapping_mul(6_364_136_223_846_793_005) % u64::from(ROWS);
            let sql = match number % 3 {
                0 => format!("DELETE FROM {db}.t WHERE id = {id}"),
                1 => format!("REPLACE INTO {db}.t VALUES ({id}, 'load', '{number}')"),
                _ => format!("UPDATE {db}.t SET b = '{number}' WHERE id = {id}"),
            };
            session.query_drop(&sql).await.expect("is written");
            loaded.insert(id.to_string());
            // So that most rows stay as they are.
            if loaded.len() >= 400 {
                let _ = stopped.await;
                break;
            }
        }
        loaded
    });
    let rows = f64::from(ROWS);
    stage.daemon.start_again().await;
    until("it is in the middle", SECONDS_30, async || {
        metric(&stage, "driftless_verify_rows_total").await >= rows / 4.0
    })
    .await;
    let compared = metric(&stage, "driftless_verify_rows_total").await;
    let (state, message) = stage.status().await;
    stage.daemon.kill9();
    assert!(compared < rows * 0.9, "the kill came too late to show anything: {compared} rows");
    assert_eq!(state, "catching_up", "{message}");
    stage.daemon.start_again().await;
    until("all rows are compared", MINUTES_2, async || {
        let (state, message) = stage.status().await;
        if state == "running" { Ok(()) } else { Err(message.to_string()) }
    })
    .await;
    stop.send(()).expect("there is a load");
    let loaded = load.await.expect("the load ends");
    stage.settle().await;
    stage.until_equal("the index is what the table is", SECONDS_30).await;
    let mut expected = changed();
    expected.extend(loaded);
    expected.insert("999999999".to_owned());
    let touched = touched(&before, &versions(&stage).await);
    let needless: Vec<_> = touched.difference(&expected).collect();
    assert!(needless.is_empty(), "{} documents written for nothing: {needless:?}", needless.len());
}

/// An index that does not keep what is written to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_documents_cannot_be_compared_the_whole_table_is_copied_behind_a_purge() {
    let (mut stage, _server) = quiet_stage(&[], |setup| setup).await;
    let body = json!({"mappings": {"_source": {"enabled": false},
        "properties": {"id": {"type": "long"}, "a": {"type": "keyword"}, "b": {"type": "keyword"}}}});
    stage.index = stage.search.index("closed", body).await;
    fill(&stage, 100, 300, 32).await;
    stage.link().await;
    let count = async |stage: &Stage, a: &str| {
        stage.search.refresh(&stage.index).await;
        let body = json!({"query": {"term": {"a": a}}});
        let path = format!("/{}/_count", stage.index);
        stage.search.ok("POST", &path, Some(body)).await["count"].as_u64()
    };
    until("copied", SECONDS_30, async || {
        stage.search.refresh(&stage.index).await;
        stage.search.count(&stage.index).await == 302
    })
    .await;
    stage.until_state("running").await;
    stage.daemon.stop().await;
    stage.exec("UPDATE {t} SET a = 'meanwhile' WHERE id >= 100 AND id < 110").await;
    stage.exec("DELETE FROM {t} WHERE id >= 200 AND id < 220").await;
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    purge(&stage).await;
    stage.daemon.start_again().await;
    until("the rows are documents", SECONDS_30, async || {
        count(&stage, "meanwhile").await == Some(10)
            && stage.search.count(&stage.index).await == 282
    })
    .await;
    let message = stage.until_state("running").await.to_string();
    assert!(message.contains("cannot be compared"), "{message}");
}

/// What refers to what is learnt anew: the rows that came meanwhile go with their parents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_keys_are_followed_behind_a_purge_that_left_documents_as_they_were() {
    let server = servers::own_mysql(Flavour::Mysql80, &[]).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    let parent = format!("CREATE TABLE {}.p (id BIGINT PRIMARY KEY)", stage.db);
    let fill = format!("INSERT INTO {}.p VALUES (1), (2), (3)", stage.db);
    let refer = format!(
        "ALTER TABLE {{t}} ADD p BIGINT INVISIBLE, ADD FOREIGN KEY (p) REFERENCES {}.p (id) ON DELETE CASCADE",
        stage.db
    );
    let rows = "INSERT INTO {t} (id, a, b, p) VALUES (1, 'a', 'b', 1), (2, 'a', 'b', 2), (3, 'a', 'b', NULL)";
    for sql in [parent.as_str(), &fill, &refer, rows] {
        stage.exec(sql).await;
    }
    stage.link().await;
    stage.until_equal("copied", SECONDS_30).await;
    stage.until_state("running").await;
    stage.daemon.stop().await;
    // A reference that changes shows in no mapped column.
    stage.exec("UPDATE {t} SET p = 3 WHERE id = 3").await;
    stage.exec("INSERT INTO {t} (id, a, b, p) VALUES (4, 'a', 'b', 2)").await;
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    purge(&stage).await;
    stage.daemon.start_again().await;
    stage.until_equal("the new row is a document", SECONDS_30).await;
    stage.until_state("running").await;
    stage.exec(&format!("DELETE FROM {}.p WHERE id IN (2, 3)", stage.db)).await;
    stage.until_equal("the children are gone", SECONDS_30).await;
    assert_eq!(stage.search.count(&stage.index).await, 1);
}
