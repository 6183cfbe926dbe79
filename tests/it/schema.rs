//! Statements that change a mapped table while rows flow, while the daemon is down, and while it is killed: `docs/schema-changes.md`,
//! line by line, on every server. The end of each is that the index equals what a SELECT gives.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, difference};
use crate::support::{MINUTES_2, SECONDS_30, until};

async fn linked(flavour: Flavour, setup: impl FnOnce(Setup) -> Setup) -> Stage {
    let stage = Stage::set(servers::mysql(flavour), setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a1', 'b1'), (2, 'a2', 'b2'), (3, 'a3', 'b3')").await;
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    stage.until_state("running").await;
    stage
}

/// Waits until the documents are what this SELECT of `id`, `a` and `b` gives.
async fn until_index_is(stage: &Stage, select: &str) {
    let select = select.replace("{t}", &format!("{}.t", stage.db));
    until(&format!("the index is: {select}"), MINUTES_2, async || {
        let rows: Vec<(i64, Option<String>, Option<String>)> = stage.mysql.query(&select).await;
        let expected: BTreeMap<String, Value> = rows
            .into_iter()
            .map(|(id, a, b)| (id.to_string(), json!({"id": id, "a": a, "b": b})))
            .collect();
        let (state, message) = stage.status().await;
        assert_ne!(state, "failed", "{message}");
        difference(&stage.found().await, &expected)
    })
    .await;
}

fn copied(stage: &Stage) -> usize {
    stage.daemon.log().matches("snapshot done").count() - 1
}

async fn each<F: Future<Output = ()>>(test: impl Fn(Flavour) -> F) {
    for flavour in Flavour::EVERY {
        test(flavour).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_come_go_move_and_are_renamed_while_rows_flow() {
    each(|flavour| async move {
        let stage = linked(flavour, |setup| setup).await;
        for (statement, row, select) in [
            ("ADD COLUMN c INT AFTER id", "(10, 5, 'a10', 'b10')", "SELECT id, a, b FROM {t}"),
            ("DROP COLUMN c", "(11, 'a11', 'b11')", "SELECT id, a, b FROM {t}"),
            ("RENAME COLUMN a TO x", "(12, 'a12', 'b12')", "SELECT id, x, b FROM {t}"),
            (
                "CHANGE x a VARCHAR(255), ADD INDEX (b)",
                "(13, 'a13', 'b13')",
                "SELECT id, a, b FROM {t}",
            ),
            (
                "RENAME COLUMN a TO b, RENAME COLUMN b TO a",
                "(14, 'a14', 'b14')",
                "SELECT id, b, a FROM {t}",
            ),
            ("MODIFY a VARCHAR(200) FIRST", "('b15', 15, 'a15')", "SELECT id, b, a FROM {t}"),
            (
                "CHANGE id number BIGINT NOT NULL, COMMENT 'x'",
                "('b16', 16, 'a16')",
                "SELECT number, b, a FROM {t}",
            ),
            ("MODIFY b TEXT", "('b17', 17, 'a17')", "SELECT number, b, a FROM {t}"),
        ] {
            stage.exec(&format!("ALTER TABLE {{t}} {statement}")).await;
            stage.exec(&format!("INSERT INTO {{t}} VALUES {row}")).await;
            until_index_is(&stage, select).await;
        }
        stage.exec("DELETE FROM {t} WHERE number = 2").await;
        stage.exec("UPDATE {t} SET number = number + 100, b = 'new' ORDER BY number DESC").await;
        until_index_is(&stage, "SELECT number, b, a FROM {t}").await;
        assert_eq!(copied(&stage), 0, "nothing had to be copied again");
        assert_eq!(stage.until_state("running").await["restart_times"], "0");
    })
    .await;
}

/// Rows, statements and swaps, one after the other; every row must be read as it was meant.
const OLD_LOG: &[&str] = &[
    "INSERT INTO {t} VALUES (10, 'a10', 'b10')",
    "UPDATE {t} SET a = 'a1x' WHERE id = 1",
    "ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a",
    "INSERT INTO {t} (id, b, a) VALUES (11, 'a11', 'b11')",
    "ALTER TABLE {t} ADD COLUMN c VARCHAR(200) FIRST, ADD COLUMN e ENUM('x', 'it''s') AFTER id",
    "INSERT INTO {t} VALUES ('c12', 12, 'it''s', 'a12', 'b12')",
    "DELETE FROM {t} WHERE id = 2",
    "ALTER TABLE {t} RENAME COLUMN b TO x",
    "INSERT INTO {t} (id, x, a) VALUES (17, 'a17', 'b17')",
    "ALTER TABLE {t} CHANGE a b VARCHAR(200), CHANGE x a VARCHAR(200), MODIFY id BIGINT NOT NULL FIRST",
    "INSERT INTO {t} (id, a, b) VALUES (13, 'a13', 'b13')",
    "ALTER TABLE {t} DROP COLUMN c, DROP e",
    "ALTER TABLE {t} ADD INDEX by_a (a), ENGINE=InnoDB",
    "INSERT INTO {t} VALUES (14, 'a14', 'b14')",
    "UPDATE {t} SET b = CONCAT(b, '!') WHERE id IN (3, 12)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_log_is_read_with_the_definitions_of_its_time() {
    each(|flavour| async move {
        let mut stage = linked(flavour, |setup| setup).await;
        stage.daemon.stop().await;
        for sql in OLD_LOG {
            stage.exec(sql).await;
        }
        stage.daemon.start_again().await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        assert_eq!(copied(&stage), 0, "the chain of definitions was proven");
        stage.exec("INSERT INTO {t} VALUES (15, 'a15', 'b15')").await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        // Another life begins behind them.
        stage.daemon.kill9();
        stage.exec("INSERT INTO {t} VALUES (16, 'a16', 'b16')").await;
        stage.daemon.start_again().await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_proven_is_not_read_but_copied_again() {
    each(|flavour| async move {
        let mut stage = linked(flavour, |setup| setup).await;
        stage.daemon.stop().await;
        for sql in [
            "INSERT INTO {t} VALUES (10, 'a10', 'b10')",
            "ALTER TABLE {t} MODIFY a VARCHAR(200) AFTER b",
            "DELETE FROM {t} WHERE id = 1",
            "CREATE TABLE {t}_2 LIKE {t}",
            "INSERT INTO {t}_2 SELECT * FROM {t} WHERE id <> 3",
            "RENAME TABLE {t} TO {t}_1, {t}_2 TO {t}",
            "INSERT INTO {t} (id, a, b) VALUES (11, 'a11', 'b11')",
            "ALTER TABLE {t} DROP a, ADD a VARCHAR(200) DEFAULT 'filled' FIRST",
            "DELETE FROM {t} WHERE id = 2",
        ] {
            stage.exec(sql).await;
        }
        stage.daemon.start_again().await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        assert_eq!(copied(&stage), 1);
        let (_, message) = stage.status().await;
        let told = message["others"].as_str().unwrap_or_default();
        assert!(told.contains("is not proven"), "{told}");
        stage.daemon.kill9();
        stage.exec("INSERT INTO {t} (id, a, b) VALUES (12, 'a12', 'b12')").await;
        stage.daemon.start_again().await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_column_that_is_mapped_stops_the_link_with_rule_and_remedy() {
    let stage = linked(Flavour::Mysql97, |setup| setup).await;
    stage.exec("ALTER TABLE {t} DROP COLUMN b").await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    let told =
        format!("column `b` of {}.t, which field `b` is made of, is gone by: ALTER", stage.db);
    assert!(errors.contains(&told) && errors.contains("create it again"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_unique_any_more_stops_the_link() {
    let stage = linked(Flavour::Mysql97, |setup| setup).await;
    stage.exec("ALTER TABLE {t} DROP PRIMARY KEY, ADD PRIMARY KEY (id, a)").await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("can have the same (id)"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_dropped_and_added_in_one_statement_is_another() {
    each(|flavour| async move {
        let stage = linked(flavour, |setup| setup).await;
        stage.exec("ALTER TABLE {t} DROP a, ADD a VARCHAR(200) DEFAULT 'new' AFTER id").await;
        stage.exec("INSERT INTO {t} VALUES (4, 'a4', 'b4')").await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        assert_eq!(copied(&stage), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncate_deletes_and_rows_behind_it_stay_also_while_a_copy_runs() {
    each(|flavour| async move {
        let mut stage = Stage::set(servers::mysql(flavour), |setup| {
            setup.set("snapshot.chunk_rows", 100).set("sink.bulk_documents", 100)
        })
        .await;
        let fill = "INSERT INTO {t} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i * 2, 'old', 'old' FROM n";
        stage.exec(fill).await;
        stage.proxy.delay(Duration::from_millis(20));
        stage.link().await;
        stage.exec("UPDATE {t} SET a = 'changed' WHERE id % 10 = 0").await;
        stage.exec("TRUNCATE TABLE {t}").await;
        stage.exec("INSERT INTO {t} VALUES (1, 'new', 'x'), (4, 'new', 'x'), (5000, 'new', 'x')").await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        stage.proxy.delay(Duration::ZERO);
        stage.exec("DELETE FROM {t}").await;
        stage.exec(fill).await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;

        stage.daemon.kill9();
        stage.exec("TRUNCATE TABLE {t}").await;
        stage.exec("INSERT INTO {t} VALUES (2, 'new', 'x'), (3, 'new', 'x')").await;
        stage.exec("TRUNCATE TABLE {t}").await;
        stage.exec("INSERT INTO {t} VALUES (4, 'newer', 'x')").await;
        stage.daemon.start_again().await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncate_and_drop_do_what_the_link_is_told() {
    let stage = linked(Flavour::Mysql97, |setup| setup.set("link.on_truncate", "ignore")).await;
    stage.exec("TRUNCATE TABLE {t}").await;
    stage.exec("INSERT INTO {t} VALUES (7, 'a7', 'b7')").await;
    until("the new row is a document", SECONDS_30, async || {
        stage.search.doc(&stage.index, "7").await.is_some()
    })
    .await;
    stage.search.refresh(&stage.index).await;
    assert_eq!(stage.found().await.len(), 4, "what was there stays");
    stage.exec("DROP TABLE {t}").await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("DROP TABLE") && errors.contains("on_drop"), "{errors}");

    let stage = linked(Flavour::Mysql97, |setup| setup.set("link.on_truncate", "fail")).await;
    stage.exec("TRUNCATE TABLE {t}").await;
    stage.until_state("failed").await;

    let stage = linked(Flavour::Mysql97, |setup| setup.set("link.on_drop", "delete")).await;
    stage.exec("DROP TABLE {t}").await;
    until("the documents are gone", SECONDS_30, async || {
        stage.search.refresh(&stage.index).await;
        stage.found().await.is_empty()
    })
    .await;
    stage.exec("CREATE TABLE {t} (b VARCHAR(20), a VARCHAR(20), id BIGINT PRIMARY KEY) CHARSET utf8mb4").await;
    stage.exec("INSERT INTO {t} (id, a, b) VALUES (7, 'a7', 'b7')").await;
    until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn online_schema_changes_keep_the_link_running() {
    each(|flavour| async move {
        let stage = linked(flavour, |setup| setup).await;
        let alter = |copy: &str, change: &str| {
            [
                format!("CREATE TABLE {{db}}.{copy} LIKE {{t}}"),
                format!("ALTER TABLE {{db}}.{copy} {change}"),
                format!("INSERT INTO {{db}}.{copy} (id, a, b) SELECT id, a, b FROM {{t}}"),
            ]
        };
        let cut_overs: [(&str, &str, &[&str]); 4] = [
            (
                "_t_gho",
                "ADD c INT",
                &["RENAME TABLE {t} TO {db}._t_del, {db}._t_gho TO {t}", "DROP TABLE {db}._t_del"],
            ),
            (
                "_t_gho",
                "ADD e INT FIRST",
                &[
                    "ALTER TABLE {t} RENAME {db}._t_del",
                    "ALTER TABLE {db}._t_gho RENAME {t}",
                    "DROP TABLE {db}._t_del",
                ],
            ),
            (
                "_t_new",
                "DROP c",
                &[
                    "RENAME TABLE {t} TO {db}._t_old, {db}._t_new TO {t}",
                    "DROP TABLE IF EXISTS {db}._t_old",
                ],
            ),
            (
                "_t_new",
                "DROP e",
                &[
                    "RENAME TABLE {t} TO {db}._t_old, {db}._t_new TO {t}",
                    "DROP TABLE IF EXISTS {db}._t_old",
                ],
            ),
        ];
        for (number, (copy, change, cut_over)) in (20..).zip(cut_overs) {
            let steps = alter(copy, change);
            for sql in steps.iter().map(String::as_str).chain(cut_over.iter().copied()) {
                stage.exec(&sql.replace("{db}", &stage.db)).await;
            }
            stage.exec(&format!("INSERT INTO {{t}} (id, a, b) VALUES ({number}, 'a', 'b')")).await;
            stage.exec(&format!("UPDATE {{t}} SET a = 'behind {number}' WHERE id = 1")).await;
            until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        }
        assert_eq!(copied(&stage), 0, "the mapped columns are the same");
        for sql in alter("_t_gho", "MODIFY a CHAR(2)") {
            let sql = sql.replace("SELECT id, a, b", "SELECT id, LEFT(a, 2), b");
            stage.exec(&sql.replace("{db}", &stage.db)).await;
        }
        let cut_over = "RENAME TABLE {t} TO {db}._t_del, {db}._t_gho TO {t}";
        stage.exec(&cut_over.replace("{db}", &stage.db)).await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        assert_eq!(copied(&stage), 1);
    })
    .await;
}

/// Two online schema changes in an old log, with rows behind each; how often the table was copied again.
async fn copies_after_two_online_changes(metadata: &str) -> (usize, String) {
    let server =
        servers::own_mysql(Flavour::Mysql80, &[&format!("--binlog-row-metadata={metadata}")]).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a1', 'b1'), (2, 'a2', 'b2'), (3, 'a3', 'b3')").await;
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    stage.until_state("running").await;
    stage.daemon.stop().await;
    for (number, change) in [(10, "ADD c INT FIRST"), (20, "DROP c, ADD d VARCHAR(20) AFTER id")] {
        for sql in [
            "CREATE TABLE {db}._t_gho LIKE {t}",
            &format!("ALTER TABLE {{db}}._t_gho {change}"),
            "INSERT INTO {db}._t_gho (id, a, b) SELECT id, a, b FROM {t}",
            "RENAME TABLE {t} TO {db}._t_del, {db}._t_gho TO {t}",
            "DROP TABLE {db}._t_del",
            &format!("INSERT INTO {{t}} (id, a, b) VALUES ({number}, 'a', 'b')"),
            &format!("UPDATE {{t}} SET a = 'behind {number}' WHERE id = 1"),
            &format!("DELETE FROM {{t}} WHERE id = {}", number / 10 + 1),
        ] {
            stage.exec(&sql.replace("{db}", &stage.db)).await;
        }
    }
    stage.daemon.start_again().await;
    until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    let message = stage.until_state("running").await;
    (copied(&stage), format!("{message} {}", stage.daemon.log()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_between_two_online_changes_are_read_where_the_log_names_their_columns() {
    for (metadata, expected) in [("FULL", 0), ("MINIMAL", 1)] {
        let (copies, told) = copies_after_two_online_changes(metadata).await;
        assert_eq!(copies, expected, "{metadata}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_renamed_away_is_waited_for_and_another_is_copied() {
    each(|flavour| async move {
        let mut stage = linked(flavour, |setup| setup).await;
        stage.exec("RENAME TABLE {t} TO {t}_away").await;
        let told = until("the status says so", SECONDS_30, async || {
            let (state, message) = stage.status().await;
            let told = message["others"].as_str().unwrap_or_default().to_owned();
            if state == "running" && told.contains("was renamed to") { Ok(told) } else { Err(told) }
        })
        .await;
        assert!(told.contains("RENAME TABLE") && told.contains("is there again"), "{told}");
        stage.exec("CREATE TABLE {t}_other (b VARCHAR(200), id BIGINT PRIMARY KEY, a VARCHAR(200)) CHARSET utf8mb4").await;
        stage.exec("INSERT INTO {t}_other VALUES ('other', 2, 'x'), ('other', 50, 'y')").await;
        // The wait survives a crash.
        stage.daemon.kill9();
        stage.daemon.start_again().await;
        stage.exec("RENAME TABLE {t}_other TO {t}").await;
        stage.exec("INSERT INTO {t} (id, a, b) VALUES (60, 'a60', 'b60')").await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_go_take_their_documents_along() {
    each(|flavour| async move {
        let stage = Stage::set(servers::mysql(flavour), |setup| setup).await;
        stage.exec("ALTER TABLE {t} PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20), PARTITION p2 VALUES LESS THAN MAXVALUE)").await;
        stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (11, 'a', 'b'), (21, 'a', 'b')").await;
        stage.link().await;
        stage.until_equal("the rows are documents", SECONDS_30).await;
        stage.exec("ALTER TABLE {t} DROP PARTITION p0").await;
        stage.exec("INSERT INTO {t} VALUES (2, 'a', 'b'), (12, 'a', 'b')").await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
        stage.exec("ALTER TABLE {t} TRUNCATE PARTITION p1").await;
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_columns_become_fields_where_the_link_is_to_have_them_all() {
    each(|flavour| async move {
        let stage =
            Stage::set(servers::mysql(flavour), |setup| setup.set("link.add_columns", "auto"))
                .await;
        stage.exec("INSERT INTO {t} VALUES (1, 'a1', 'b1')").await;
        let call = format!(
            "CALL dbms_etl.sync_by_table('search', '{}.t', '{}', '')",
            stage.db, stage.index
        );
        stage.daemon.sql(&call).await;
        stage.until_equal("the row is a document", SECONDS_30).await;
        stage.until_state("running").await;
        stage
            .exec(
                "ALTER TABLE {t} ADD COLUMN c INT DEFAULT 7, ADD place POINT, ADD mood ENUM('no?')",
            )
            .await;
        stage.exec("INSERT INTO {t} (id, a, c) VALUES (2, 'a2', 8)").await;
        let expected = BTreeMap::from([
            ("1".to_owned(), json!({"id": 1, "a": "a1", "b": "b1", "c": 7, "place": null})),
            ("2".to_owned(), json!({"id": 2, "a": "a2", "b": null, "c": 8, "place": null})),
        ]);
        until("old rows have the new field too", SECONDS_30, async || {
            difference(&stage.found().await, &expected)
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_around_statements_leave_every_row_as_it_was_meant() {
    each(|flavour| async move {
        let mut stage = linked(flavour, |setup| {
            setup.set("link.checkpoint_interval_ms", 50).set("snapshot.chunk_rows", 50)
        })
        .await;
        let fill = "INSERT INTO {t} (id, a, b) WITH RECURSIVE n AS (SELECT 100 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 400) SELECT i, 'a', 'b' FROM n";
        stage.exec(fill).await;
        for (number, statement) in (1000..).zip([
            "ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a",
            "ALTER TABLE {t} ADD c INT FIRST",
            "ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a",
            "ALTER TABLE {t} MODIFY a VARCHAR(190)",
            "TRUNCATE TABLE {t}",
            "ALTER TABLE {t} DROP c",
        ]) {
            stage.exec(&format!("INSERT INTO {{t}} (id, a, b) VALUES ({number}0, 'a', 'b')")).await;
            stage.exec(statement).await;
            stage.exec(&format!("INSERT INTO {{t}} (id, a, b) VALUES ({number}1, 'x{number}', 'y')")).await;
            stage.exec("UPDATE {t} SET a = CONCAT(a, '+') WHERE id % 7 = 0").await;
            stage.daemon.kill9();
            stage.exec(&format!("INSERT INTO {{t}} (id, a, b) VALUES ({number}2, 'x', 'y{number}')")).await;
            stage.daemon.start_again().await;
        }
        until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_names_in_the_log_an_old_log_is_read_alike() {
    // The names are compared with every definition that is used.
    let server = servers::own_mysql(Flavour::Mysql97, &["--binlog-row-metadata=FULL"]).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a1', 'b1'), (2, 'a2', 'b2'), (3, 'a3', 'b3')").await;
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    stage.until_state("running").await;
    stage.daemon.stop().await;
    for sql in OLD_LOG {
        stage.exec(sql).await;
    }
    stage.daemon.start_again().await;
    until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
    assert_eq!(copied(&stage), 0, "the chain of definitions was proven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_name_differs_by_case_is_another() {
    let stage = linked(Flavour::Mysql97, |setup| setup.set("link.on_drop", "delete")).await;
    for sql in ["CREATE TABLE {db}.T LIKE {t}", "TRUNCATE TABLE {db}.T", "DROP TABLE {db}.T"] {
        stage.exec(&sql.replace("{db}", &stage.db)).await;
    }
    stage.exec("INSERT INTO {t} VALUES (4, 'a4', 'b4')").await;
    stage.until_equal("its documents are there", SECONDS_30).await;
    assert_eq!(copied(&stage), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_the_file_has_its_own_word_on_statements() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let mut stage = Stage::set(mysql, |setup| setup).await;
    let mapping = format!("{0}.id({1}.t.id),{0}.a({1}.t.a),{0}.b({1}.t.b)", stage.index, stage.db);
    let key = format!("{}.id={}.t.id", stage.index, stage.db);
    let link = |on_drop: &str| {
        let entry = [
            ("mapping", mapping.as_str()),
            ("key", key.as_str()),
            ("on_truncate", "fail"),
            ("on_drop", on_drop),
        ];
        let table = entry.map(|(name, value)| (name.to_owned(), toml::Value::from(value)));
        toml::Value::Array(vec![toml::Value::Table(toml::Table::from_iter(table))])
    };
    stage.daemon.stop().await;
    stage.daemon.reconfigure("links", link("fail"));
    stage.exec("INSERT INTO {t} VALUES (1, 'a1', 'b1')").await;
    stage.daemon.start_again().await;
    stage.until_equal("the row is a document", SECONDS_30).await;
    stage.until_state("running").await;
    stage.exec("DROP TABLE {t}").await;
    stage.until_state("failed").await;
    stage.daemon.stop().await;
    stage.daemon.reconfigure("links", link("delete"));
    stage.daemon.start_again().await;
    until("the documents are gone", SECONDS_30, async || {
        stage.search.refresh(&stage.index).await;
        stage.found().await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_computed_from_a_changed_one_is_copied_again() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("ALTER TABLE {t} DROP b, ADD c VARCHAR(20), ADD b VARCHAR(200) AS (UPPER(c))").await;
    stage.exec("INSERT INTO {t} (id, a, c) VALUES (1, 'a1', 'long enough')").await;
    stage.link().await;
    stage.until_equal("the row is a document", SECONDS_30).await;
    stage.until_state("running").await;
    let mut session = stage.mysql.session().await;
    session.query_drop("SET SESSION sql_mode = ''").await.expect("is set");
    let alter = format!("ALTER TABLE {}.t MODIFY c VARCHAR(4)", stage.db);
    session.query_drop(alter).await.expect("is cut");
    until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
}

/// Everything at random, with the daemon up, stopped or killed: in the end the index is the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_of_random_statements_ends_with_the_index_equal_to_the_table() {
    for flavour in Flavour::EVERY {
        let seed = std::env::var("DRIFTLESS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |now| now.as_nanos() as u64)
        });
        tell_seed(seed);
        random_life(flavour, Random(seed)).await;
    }
}

async fn random_life(flavour: Flavour, mut random: Random) {
    let mut stage = linked(flavour, |setup| {
        setup.set("link.checkpoint_interval_ms", 50).set("snapshot.chunk_rows", 40)
    })
    .await;
    // The columns that fields `a` and `b` are made of, and the others.
    let (mut names, mut others) = (["a".to_owned(), "b".to_owned()], Vec::<String>::new());
    let mut is_up = true;
    for step in 1..90 {
        let [a, b] = names.clone();
        let statements: Vec<String> = match random.below(16) {
            0..=2 => vec![format!(
                "INSERT IGNORE INTO {{t}} (id, {a}, {b}) WITH RECURSIVE n AS (SELECT {step}000 AS i UNION ALL SELECT i + 1 FROM n \
                 WHERE i < {step}000 + {}) SELECT i, CONCAT('a', i), CONCAT('b', i) FROM n",
                random.below(60)
            )],
            3 => vec![format!(
                "UPDATE {{t}} SET {a} = CONCAT({a}, '+') WHERE id % 5 = {}",
                random.below(5)
            )],
            4 => vec![format!("DELETE FROM {{t}} WHERE id % 11 = {}", random.below(11))],
            5 => vec!["UPDATE IGNORE {t} SET id = id + 1 ORDER BY id DESC LIMIT 30".to_owned()],
            6 | 7 => {
                names.swap(0, 1);
                vec![format!(
                    "ALTER TABLE {{t}} RENAME COLUMN {a} TO {b}, RENAME COLUMN {b} TO {a}"
                )]
            }
            8 => {
                names[0] = format!("n{step}");
                vec![format!("ALTER TABLE {{t}} RENAME COLUMN {a} TO n{step}")]
            }
            9 => {
                others.push(format!("x{step}"));
                let place = ["FIRST", &format!("AFTER {a}"), ""][random.below(3)].to_owned();
                vec![format!("ALTER TABLE {{t}} ADD x{step} VARCHAR(200) DEFAULT 'x' {place}")]
            }
            10 if !others.is_empty() => {
                let gone = others.remove(random.below(others.len()));
                vec![format!("ALTER TABLE {{t}} DROP COLUMN {gone}")]
            }
            11 => vec![format!(
                "ALTER TABLE {{t}} MODIFY {b} VARCHAR({}) FIRST",
                150 + random.below(50)
            )],
            12 if random.below(2) == 0 => vec!["TRUNCATE TABLE {t}".to_owned()],
            13 => [
                "CREATE TABLE {db}._t_gho LIKE {t}",
                "INSERT INTO {db}._t_gho SELECT * FROM {t}",
                "RENAME TABLE {t} TO {db}._t_del, {db}._t_gho TO {t}",
                "DROP TABLE {db}._t_del",
            ]
            .map(|sql| sql.replace("{db}", &stage.db))
            .to_vec(),
            14 | 15 => {
                match (is_up, random.below(2)) {
                    (true, 0) => drop(stage.daemon.stop().await),
                    (true, _) => stage.daemon.kill9(),
                    (false, _) => stage.daemon.start_again().await,
                }
                is_up = !is_up;
                continue;
            }
            _ => continue,
        };
        for sql in statements {
            stage.exec(&sql).await;
        }
    }
    if !is_up {
        stage.daemon.start_again().await;
    }
    let [a, b] = names;
    until_index_is(&stage, &format!("SELECT id, {a}, {b} FROM {{t}}")).await;
}

/// Random ALTERs: what we make of each must be what the server makes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_applied_as_the_server_applies_them() {
    for flavour in Flavour::EVERY {
        let mysql = servers::mysql(flavour);
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |now| now.as_nanos() as u64);
        tell_seed(seed);
        apply_random(&mysql, flavour.is_mariadb(), Random(seed)).await;
    }
}

#[allow(clippy::print_stderr)]
fn tell_seed(seed: u64) {
    eprintln!("seed {seed}");
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const TYPES: &[&str] = &[
    "INT",
    "INT(9) UNSIGNED",
    "integer",
    "TINYINT(1)",
    "BOOLEAN",
    "SMALLINT ZEROFILL",
    "BIGINT NOT NULL",
    "DECIMAL",
    "NUMERIC(9, 3) UNSIGNED",
    "FLOAT",
    "DOUBLE PRECISION",
    "FLOAT(40)",
    "DATE",
    "DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3)",
    "TIMESTAMP NULL",
    "TIME(6)",
    "YEAR",
    "CHAR",
    "CHARACTER VARYING(30)",
    "VARCHAR(50) CHARACTER SET latin1",
    "VARCHAR(10) COLLATE utf8mb4_bin NOT NULL DEFAULT 'it''s'",
    "NCHAR(3)",
    "TEXT",
    "MEDIUMTEXT CHARSET ascii",
    "BLOB",
    "VARBINARY(9)",
    "BINARY(3)",
    "JSON",
    "ENUM('a','b,c','it''s')",
    "SET('x','y') DEFAULT 'x'",
    "BIT(3)",
    "GEOMETRY",
    "INT AS (1 + 1) STORED",
    "INT COMMENT 'a, b' INVISIBLE",
    "VARCHAR(5) BINARY CHARACTER SET utf8mb4",
];

/// Of MariaDB alone.
const MARIADB_TYPES: &[&str] = &[
    "JSON",
    "JSON NOT NULL DEFAULT '{}'",
    "LONGTEXT",
    "TEXT CHECK (JSON_VALID(id))",
    "UUID",
    "INET6 NOT NULL",
    "VARCHAR(50) COMPRESSED",
    "BLOB COMPRESSED",
    "TINYINT(1) UNSIGNED",
    "VARCHAR(5) COLLATE uca1400_ai_ci",
    "INT AS (1 + 1) PERSISTENT",
];

async fn apply_random(mysql: &Mysql, is_mariadb: bool, mut random: Random) {
    use driftless::source::ddl::apply::{Defaults, apply};
    let db = mysql.database("alter").await;
    let mut session = mysql.session().await;
    session.query_drop(format!("USE {db}")).await.expect("the database is there");
    let made = "CREATE TABLE t (id INT PRIMARY KEY, c0 VARCHAR(20), c1 INT) CHARSET utf8mb4";
    session.query_drop(made).await.expect("the table is made");
    let (mut before, mut applied, mut understood) = (read(&mut session, &db).await, 0, 0);
    for number in 2..250 {
        let column =
            |random: &mut Random| before.columns[random.below(before.columns.len())].name.clone();
        let types = if is_mariadb && random.below(2) == 0 { MARIADB_TYPES } else { TYPES };
        let place = match random.below(3) {
            0 => String::new(),
            1 => " FIRST".to_owned(),
            _ => format!(" AFTER {}", column(&mut random)),
        };
        let clause = match random.below(9) {
            0..=2 => format!("ADD COLUMN c{number} {}{place}", random.of(types)),
            3 => format!("DROP {}", column(&mut random)),
            4 => format!("MODIFY {} {}{place}", column(&mut random), random.of(types)),
            5 => format!("CHANGE {} `c{number}` {}{place}", column(&mut random), random.of(types)),
            6 => format!("RENAME COLUMN {} TO c{number}", column(&mut random)),
            7 => format!(
                "ADD (x{number} {}, y{number} INT), ADD INDEX ({})",
                random.of(TYPES),
                column(&mut random)
            ),
            _ => format!(
                "MODIFY {} {}, DROP COLUMN {}, COMMENT='c'",
                column(&mut random),
                random.of(TYPES),
                column(&mut random)
            ),
        };
        let statement = format!("ALTER TABLE t {clause}");
        if session.query_drop(&statement).await.is_err() {
            continue;
        }
        applied += 1;
        let after = read(&mut session, &db).await;
        let defaults = Defaults { charset: Some("utf8mb4"), is_mariadb };
        if let Some(altered) = apply(&statement, &db, &before, defaults) {
            understood += 1;
            let ours: Vec<_> = altered.def.columns.iter().map(shown).collect();
            let theirs: Vec<_> = after.columns.iter().map(shown).collect();
            assert_eq!(ours, theirs, "{statement}");
            assert_eq!(altered.def.primary_key, after.primary_key, "{statement}");
        }
        before = after;
    }
    assert!(applied > 80, "only {applied} statements were accepted by the server");
    assert!(understood * 10 > applied * 8, "{understood} of {applied} were understood");
}

fn shown(column: &driftless::table::Column) -> String {
    let nullable = if column.nullable { "" } else { " not null" };
    format!("{} {} {:?}{nullable}", column.name, column.declared, column.ty)
}

async fn read(session: &mut mysql_async::Conn, db: &str) -> driftless::table::TableDef {
    let id = driftless::table::TableId::new(db, "t");
    let found = driftless::source::schema::read_definition(session, &id).await;
    found.expect("is read").expect("is there")
}

/// What MariaDB alone has: statements that wait, that ignore rows, in two phases, or of other kinds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_mariadb_alone_are_followed() {
    for flavour in Flavour::MARIADB {
        let stage = linked(flavour, |setup| setup).await;
        let mut number = 100;
        let mut step = async |sql: &str, copies: Option<usize>| {
            let before = copied(&stage);
            let mut session = stage.mysql.session().await;
            for sql in sql.split("; ") {
                let sql = sql.replace("{t}", &format!("{}.t", stage.db)).replace("{db}", &stage.db);
                session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            number += 1;
            stage
                .exec(&format!("INSERT INTO {{t}} (id, a, b) VALUES ({number}, 'a{number}', 'b')"))
                .await;
            stage.exec("UPDATE {t} SET b = CONCAT(b, '.') ORDER BY id LIMIT 1").await;
            until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
            if let Some(copies) = copies {
                assert_eq!(copied(&stage) - before, copies, "{flavour:?}: {sql}");
            }
        };
        step("ALTER TABLE {t} WAIT 5 ADD COLUMN c INT AFTER id", Some(0)).await;
        step("ALTER TABLE {t} NOWAIT DROP COLUMN c", Some(0)).await;
        step("ALTER ONLINE TABLE {t} ADD COLUMN IF NOT EXISTS c INT FIRST", Some(0)).await;
        step("ALTER TABLE {t} DROP COLUMN IF EXISTS c, DROP COLUMN IF EXISTS nothing", Some(0))
            .await;
        step("ALTER TABLE {t} MODIFY COLUMN IF EXISTS a VARCHAR(210) AFTER b", Some(0)).await;
        step("ALTER TABLE {t} ADD c INT FIRST, ALGORITHM = INSTANT", Some(0)).await;
        step("ALTER TABLE {t} DROP c, ALGORITHM = INSTANT", Some(0)).await;
        step("ALTER TABLE {t} ADD KEY IF NOT EXISTS by_a (a)", Some(0)).await;
        step("SET binlog_alter_two_phase = ON; ALTER TABLE {t} ADD c INT FIRST; ALTER TABLE {t} DROP c", Some(0)).await;
        step("CREATE SEQUENCE {db}.s; DO NEXTVAL({db}.s); ALTER SEQUENCE {db}.s RESTART 50; DROP SEQUENCE {db}.s", Some(0)).await;
        step("CREATE TABLE {db}._t_gho LIKE {t}; INSERT INTO {db}._t_gho SELECT * FROM {t}; RENAME TABLE {t} WAIT 3 TO {db}._t_del, {db}._t_gho NOWAIT TO {t}; DROP TABLE {db}._t_del WAIT 1", Some(0)).await;
        step("CREATE TABLE {db}._t_new LIKE {t}; INSERT INTO {db}._t_new SELECT * FROM {t}; RENAME TABLE {t} TO {db}._t_old; RENAME TABLE {db}._t_new NOWAIT TO {t}; DROP TABLE {db}._t_old", Some(0)).await;
        step("CREATE TABLE {db}._t_gho LIKE {t}; INSERT INTO {db}._t_gho SELECT * FROM {t}; ALTER TABLE {t} NOWAIT RENAME {db}._t_del; ALTER TABLE {db}._t_gho WAIT 2 RENAME TO {t}; DROP TABLE {db}._t_del", Some(0)).await;
        step("INSERT INTO {t} (id, a, b) VALUES (60, 'same', 'x'), (61, 'same', 'x'), (62, 'same', 'x'); ALTER IGNORE TABLE {t} ADD UNIQUE one_a (a)", Some(1)).await;
        step("ALTER TABLE {t} DROP CONSTRAINT one_a", Some(0)).await;
        step("TRUNCATE TABLE {t} WAIT 2", None).await;
        step("CREATE OR REPLACE TABLE {t} (b VARCHAR(200), id BIGINT PRIMARY KEY, a VARCHAR(200)) CHARSET utf8mb4", None).await;
        step("CREATE OR REPLACE TABLE {t} (id BIGINT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200)) SELECT 7 AS id, 'selected' AS a, 'x' AS b", None).await;
        step("ALTER TABLE {t} PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (110), PARTITION p1 VALUES LESS THAN MAXVALUE)", None).await;
        step("ALTER TABLE {t} CONVERT PARTITION p0 TO TABLE {db}.parted", None).await;
        step("ALTER TABLE {t} REMOVE PARTITIONING", None).await;
        step("ALTER TABLE {t} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", None).await;
        step("ALTER TABLE {t} MODIFY a VARCHAR(200) CHARACTER SET latin1", None).await;
        assert_eq!(stage.until_state("running").await["restart_times"], "0");
    }
}

/// A table that takes a link's name: by a statement that waits, and out of a partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_mariadb_that_takes_the_name_is_found_behind_every_statement() {
    for flavour in Flavour::MARIADB {
        let stage = linked(flavour, |setup| setup.set("link.on_drop", "delete")).await;
        let plain = "CREATE TABLE {t}_o (b VARCHAR(20), id BIGINT PRIMARY KEY, a VARCHAR(20)) CHARSET utf8mb4";
        for take in [
            "RENAME TABLE {t}_o WAIT 2 TO {t}",
            "ALTER TABLE {t}_o NOWAIT RENAME {t}",
            "ALTER TABLE {t}_o PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (50), PARTITION p1 VALUES LESS THAN MAXVALUE); \
             ALTER TABLE {t}_o CONVERT PARTITION p0 TO TABLE {t}",
        ] {
            stage.exec("DROP TABLE {t}").await;
            stage.exec(plain).await;
            stage.exec("INSERT INTO {t}_o VALUES ('other', 2, 'x'), ('other', 51, 'y')").await;
            until("the documents went", SECONDS_30, async || {
                stage.search.refresh(&stage.index).await;
                stage.found().await.is_empty()
            })
            .await;
            for sql in take.split("; ") {
                stage.exec(sql).await;
            }
            until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
            stage.exec("INSERT INTO {t} (id, a, b) VALUES (7, 'behind', 'x')").await;
            until_index_is(&stage, "SELECT id, a, b FROM {t}").await;
            stage.exec("DROP TABLE IF EXISTS {t}_o").await;
        }
    }
}
