//! What a link cannot follow stops it as `failed` at a clean checkpoint, with the reason; what does not concern it
//! leaves it running. And what a link cannot take at all is refused when it is made.

use serde_json::json;

use crate::support::SECONDS_30;
use crate::support::daemon::Setup;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;

async fn running_link() -> Stage {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup: Setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b')").await;
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    stage
}

/// Runs the statements in one session, after a row that must still arrive; gives the reason.
async fn fails_after(statements: &[&str]) -> String {
    use mysql_async::prelude::Queryable;
    let stage = running_link().await;
    stage.exec("INSERT INTO {t} VALUES (3, 'before', 'the end')").await;
    let mut session = stage.mysql.session().await;
    for sql in statements {
        session
            .query_drop(sql.replace("{t}", &format!("{}.t", stage.db)))
            .await
            .expect("the statement runs");
    }
    let message = stage.until_state("failed").await;
    let doc =
        stage.search.doc(&stage.index, "3").await.expect("what was before the stop is written");
    assert_eq!(doc.source, json!({"id": 3, "a": "before", "b": "the end"}));
    message["errors"].as_str().expect("a reason").replace(&stage.db, "db")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ddl_that_drops_a_mapped_column_stops_the_link_and_is_named() {
    let reason = fails_after(&["ALTER TABLE {t} DROP COLUMN b"]).await;
    assert!(reason.contains("ALTER TABLE db.t DROP COLUMN b"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_concern_the_columns_leaves_the_link_running() {
    let stage = running_link().await;
    stage.exec("ALTER TABLE {t} ADD INDEX by_a (a), COMMENT = 'indexed'").await;
    for sql in [
        "CREATE TABLE other (id INT PRIMARY KEY)",
        "INSERT INTO other VALUES (1)",
        "ALTER TABLE other ADD x GEOMETRY",
        "DROP TABLE other",
    ] {
        let qualified = sql.replace("other", &format!("{}.other", stage.db));
        stage.mysql.exec(qualified).await;
    }
    stage.exec("INSERT INTO {t} VALUES (4, 'after', 'all')").await;
    stage.until_equal("rows behind the DDL are documents", SECONDS_30).await;
    assert_eq!(stage.status().await.0, "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_link_goes_on_after_a_restart_when_its_cause_is_gone() {
    let setup = |setup: Setup| setup.set("link.error_limit.records", 0);
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    let strict =
        json!({"properties": {"a": {"type": "keyword", "ignore_above": 100}}, "dynamic": "strict"});
    stage.search.ok("PUT", &format!("/{}/_mapping", stage.index), Some(strict)).await;
    let without_b = stage
        .search
        .index(
            "narrow",
            json!({"mappings": {"dynamic": "strict", "properties": {
        "id": {"type": "long"}, "a": {"type": "keyword"}}}}),
        )
        .await;
    stage.index = without_b;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b')").await;
    stage.link().await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("refuses document 1"), "{errors}");
    let wider = json!({"properties": {"b": {"type": "keyword"}}});
    stage.search.ok("PUT", &format!("/{}/_mapping", stage.index), Some(wider)).await;
    stage.daemon.stop().await;
    stage.daemon.start_again().await;
    stage.until_equal("the refused row is a document", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_cannot_be_mapped_are_named_when_the_link_is_made() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup: Setup| setup).await;
    let db = &stage.db;
    stage.mysql.exec(format!("CREATE TABLE {db}.odd (id INT PRIMARY KEY, kind ENUM(0xff, 'b') CHARSET binary, mood SET('yes', 'no?') CHARSET utf8mb4)")).await;
    let index = &stage.index;
    let make = |column: &str| {
        format!(
            "CALL dbms_etl.sync_by_map('search', '{index}.x({db}.odd.{column})', '{index}.id={db}.odd.id', '', '')"
        )
    };
    for (column, named) in [("kind", "labels"), ("mood", "label")] {
        let refused = stage.daemon.try_sql(&make(column)).await.expect_err("it cannot be mapped");
        assert!(refused.contains(&format!("`{column}`")) && refused.contains(named), "{refused}");
    }
    let refused =
        stage.daemon.try_sql(&make("missing")).await.expect_err("there is no such column");
    assert!(
        refused.contains(&format!("unknown column `missing` in {db}.odd; it has id, kind, mood")),
        "{refused}"
    );
}
