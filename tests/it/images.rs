//! Row images that leave columns out: rows are read again by their keys, and the index equals the table all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mysql_async::prelude::Queryable as _;
use serde_json::json;

use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

/// What a session says before it changes rows, by the image that it leaves.
const MINIMAL: &str = "SET SESSION binlog_row_image = MINIMAL";
const NOBLOB: &str = "SET SESSION binlog_row_image = NOBLOB";
const PARTIAL: &str = "SET SESSION binlog_row_value_options = PARTIAL_JSON";

/// Runs statements in one session that begins with `setting`.
async fn change(stage: &Stage, setting: &str, statements: &[&str]) {
    let mut session = stage.mysql.session().await;
    for sql in [setting].iter().chain(statements) {
        let sql = sql.replace("{t}", &format!("{}.t", stage.db)).replace("{db}", &stage.db);
        session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// Keys of every kind and columns that images leave out; the oracle is a link that copies the table in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_image_leaves_out_is_what_a_copy_of_the_table_has() {
    for flavour in Flavour::ALL {
        let stage = Stage::set(servers::mysql(flavour), |setup| setup).await;
        let table = format!("{}.wide", stage.db);
        stage
            .mysql
            .exec(format!(
                "CREATE TABLE {table} (d DECIMAL(20,4), n VARCHAR(40), w DATETIME(3), s TIMESTAMP(6), k BINARY(4), \
                 y DATE, z TIME(2), u BIGINT UNSIGNED, a INT DEFAULT 7, txt TEXT, bl BLOB, j JSON, g INT AS (a + 1), \
                 PRIMARY KEY (d, n, w, s, k, y, z, u)) CHARSET utf8mb4"
            ))
            .await;
        let body =
            json!({"mappings": {"dynamic": false, "properties": {"u": {"type": "keyword"}}}});
        let (streamed, copied) = (
            stage.search.index("streamed", body.clone()).await,
            stage.search.index("copied", body).await,
        );
        let statement = |index: &str| {
            let names = ["d", "n", "w", "s", "k", "y", "z", "u", "a", "txt", "bl", "j", "g"];
            let rules: Vec<_> =
                names.iter().map(|name| format!("{index}.{name}({table}.{name})")).collect();
            let keys: Vec<_> =
                names[..8].iter().map(|name| format!("{index}.{name}={table}.{name}")).collect();
            format!(
                "CALL dbms_etl.sync_by_map('search', '{}', '{}', '', '')",
                rules.join(","),
                keys.join(",")
            )
        };
        stage.daemon.sql(&statement(&streamed)).await;
        let insert = |number: u32| {
            format!(
                "INSERT INTO {{db}}.wide (d, n, w, s, k, y, z, u, txt, bl, j) VALUES (-12345.6789 * {number}, 'Ä|\\\\b{number}', \
                 '2026-03-04 05:06:07.120', '2026-03-04 05:06:07.000001', X'00{number:02}', '0000-00-00', '-838:59:58.25', \
                 18446744073709551615 - {number}, REPEAT('text', 300), REPEAT('blob', 300), '{{\"a\": [1, 2], \"b\": \"long enough to be worth it\"}}')"
            )
        };
        let inserts: Vec<String> = (10..90).map(insert).collect();
        let relaxed = "SET SESSION sql_mode = ''";
        for (turn, setting) in [MINIMAL, NOBLOB, PARTIAL].into_iter().enumerate() {
            let mut statements = vec![relaxed];
            if turn == 0 {
                statements.extend(inserts[..60].iter().map(String::as_str));
            }
            let changes = [
                "UPDATE {db}.wide SET a = a + 1 WHERE u % 3 = 0",
                "UPDATE {db}.wide SET j = JSON_SET(j, '$.a[1]', 'x') WHERE u % 2 = 0",
                "UPDATE {db}.wide SET n = CONCAT(n, 'x'), k = X'0A' WHERE u % 7 = 0",
                "UPDATE {db}.wide SET txt = CONCAT(txt, 'more'), bl = NULL WHERE u % 5 = 0",
                "DELETE FROM {db}.wide WHERE u % 11 = 0",
            ];
            statements.extend(changes);
            change(&stage, setting, &statements).await;
        }
        change(&stage, MINIMAL, &[relaxed, "UPDATE {db}.wide SET j = JSON_REMOVE(j, '$.b')"]).await;
        let last = [
            relaxed,
            "SET SESSION binlog_row_image = MINIMAL",
            "UPDATE {db}.wide SET j = JSON_SET(j, '$.c', 1)",
        ];
        change(&stage, PARTIAL, &last).await;
        stage.daemon.sql(&statement(&copied)).await;
        let count: u64 = stage.mysql.value(format!("SELECT COUNT(*) FROM {table}")).await;
        assert!(count > 20, "{count}");
        until("both indexes are the same", SECONDS_30, async || {
            let streamed: Vec<_> = stage
                .search
                .docs(&streamed)
                .await
                .into_iter()
                .map(|(id, doc)| (id, doc.source))
                .collect();
            let copied: Vec<_> = stage
                .search
                .docs(&copied)
                .await
                .into_iter()
                .map(|(id, doc)| (id, doc.source))
                .collect();
            if copied.len() as u64 == count && streamed == copied {
                return Ok(());
            }
            let differing = streamed.iter().zip(&copied).find(|(one, other)| one != other);
            Err(format!(
                "{} and {} of {count} documents: {differing:?}",
                streamed.len(),
                copied.len()
            ))
        })
        .await;
    }
}

/// When the rows are read again, all of this lies behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_changed_again_before_they_are_read_again_end_right() {
    for flavour in Flavour::ALL {
        // Of its own: a prepared transaction holds up each new link.
        let server = servers::own_mysql(flavour, &[]).await;
        let mut stage = Stage::set(server.client(), |setup| setup).await;
        stage
            .exec(
                "INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b'), (3, 'a', 'b'), (4, 'a', 'b')",
            )
            .await;
        stage.link().await;
        stage.settle().await;
        stage.daemon.stop().await;
        let statements = [
            "UPDATE {t} SET a = 'again' WHERE id = 1",
            "UPDATE {t} SET b = 'and again' WHERE id = 1",
            "UPDATE {t} SET a = 'gone' WHERE id = 2",
            "DELETE FROM {t} WHERE id = 2",
            "UPDATE {t} SET a = 'moved' WHERE id = 3",
            "UPDATE {t} SET id = 30 WHERE id = 3",
            "INSERT INTO {t} (id, a) VALUES (3, 'another')",
            "UPDATE {t} SET a = 'deleted and made anew' WHERE id = 4",
            "DELETE FROM {t} WHERE id = 4",
            "INSERT INTO {t} (id) VALUES (4)",
            "BEGIN",
            "INSERT INTO {t} (id, b) VALUES (5, 'x')",
            "UPDATE {t} SET a = 'y' WHERE id = 5",
            "SAVEPOINT s",
            "UPDATE {t} SET a = 'z' WHERE id = 5",
            "ROLLBACK TO s",
            "COMMIT",
        ];
        change(&stage, MINIMAL, &statements).await;
        change(&stage, "DO 0", &["UPDATE {t} SET a = 'whole' WHERE id = 30"]).await;
        let xid = crate::support::unique("minimal");
        let start = format!("XA START '{xid}'");
        let (end, prepare) = (format!("XA END '{xid}'"), format!("XA PREPARE '{xid}'"));
        let in_xa = [
            &*start,
            "UPDATE {t} SET a = 'xa' WHERE id = 5",
            "UPDATE {t} SET id = 50 WHERE id = 1",
            &*end,
            &*prepare,
        ];
        change(&stage, MINIMAL, &in_xa).await;
        stage.daemon.start_again().await;
        stage.settle().await;
        stage.until_equal("all but what is prepared", SECONDS_30).await;
        stage.daemon.kill9();
        stage.mysql.exec(format!("XA COMMIT '{xid}'")).await;
        stage.daemon.start_again().await;
        stage.settle().await;
        stage.until_equal("what was prepared too", SECONDS_30).await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

/// The whole server leaves columns out, while a snapshot runs and the daemon is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_minimal_images_is_copied_and_followed_through_kills() {
    let options = ["--binlog-row-image=MINIMAL", "--binlog-row-value-options=PARTIAL_JSON"];
    let server = servers::own_mysql(Flavour::Mysql97, &options).await;
    let mut stage =
        Stage::set(server.client(), |setup| setup.set("snapshot.chunk_rows", 500)).await;
    stage
        .exec("INSERT INTO {t} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i, 'old', 'old' FROM n")
        .await;
    stage.exec("INSERT INTO {t} SELECT id + 1000, a, b FROM {t}").await;
    stage.exec("INSERT INTO {t} SELECT id + 2000, a, b FROM {t}").await;

    // Rule 13: an `_id` that a deleted row's image does not have.
    stage.exec("ALTER TABLE {t} ADD UNIQUE (a, id), MODIFY a VARCHAR(200) NOT NULL").await;
    let other_key = stage.statement().replace(
        &format!("{0}.id={1}.t.id", stage.index, stage.db),
        &format!("{0}.a={1}.t.a,{0}.id={1}.t.id", stage.index, stage.db),
    );
    let refused =
        stage.daemon.try_sql(&other_key).await.expect_err("the _id is not the primary key");
    assert!(refused.contains("binlog_row_image is MINIMAL"), "{refused}");

    // A key that an inserted row's image does not have.
    stage.exec("ALTER TABLE {t} ALTER COLUMN id SET DEFAULT 5").await;
    let refused =
        stage.daemon.try_sql(&stage.statement()).await.expect_err("the key has a default");
    assert!(refused.contains("`id`, of which the _id is made, has a default"), "{refused}");
    stage.exec("ALTER TABLE {t} ALTER COLUMN id DROP DEFAULT").await;

    let stop = Arc::new(AtomicBool::new(false));
    let (mysql, db, stopped) = (stage.mysql.clone(), stage.db.clone(), stop.clone());
    let load = tokio::spawn(async move {
        let mut session = mysql.session().await;
        let mut turn = 0u32;
        while !stopped.load(Ordering::Relaxed) {
            turn += 1;
            let (id, range) = (turn * 7919 % 4000, turn * 31 % 3000);
            for sql in [
                format!("UPDATE {db}.t SET a = 'u{turn}' WHERE id = {id}"),
                format!(
                    "UPDATE {db}.t SET b = 'r{turn}' WHERE id BETWEEN {range} AND {range} + 400"
                ),
                format!("DELETE FROM {db}.t WHERE id = {id} + 1"),
                format!("INSERT IGNORE INTO {db}.t (id, a) VALUES ({id} + 1, 'i{turn}')"),
                format!(
                    "UPDATE IGNORE {db}.t SET id = id + 1 WHERE id BETWEEN {id} AND {id} + 5 ORDER BY id DESC"
                ),
            ] {
                session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        }
        turn
    });
    stage.link().await;
    let rows = format!("driftless_link_rows_total{{kind=\"update\",link=\"{}\"}}", stage.index);
    for _ in 0..4 {
        until("more was read", MINUTES_2, async || {
            stage.daemon.metric(&rows).await.unwrap_or(0.0) > 500.0
        })
        .await;
        stage.daemon.kill9();
        stage.daemon.start_again().await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.expect("the load ends") > 10);
    stage.until_equal("the index equals the table", MINUTES_2).await;
    stage.settle().await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

/// What is read with another definition is not written: behind the statement the table is copied again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_not_read_again_with_another_definition() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a1', 'b1'), (2, 'a1', 'b1')").await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    change(&stage, MINIMAL, &["UPDATE {t} SET a = 'a2' WHERE id = 1"]).await;
    stage.exec("ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a").await;
    change(&stage, MINIMAL, &["DELETE FROM {t} WHERE id = 2"]).await;
    stage.daemon.start_again().await;
    // The field `a` follows its column to the new name.
    until("the row is a document", SECONDS_30, async || {
        let doc = stage.search.doc(&stage.index, "1").await.map(|doc| doc.source);
        if doc == Some(json!({"id": 1, "a": "a2", "b": "b1"})) {
            Ok(())
        } else {
            Err(format!("{doc:?}"))
        }
    })
    .await;
    until("the deleted one is none", SECONDS_30, async || {
        stage.search.doc(&stage.index, "2").await.is_none()
    })
    .await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}
