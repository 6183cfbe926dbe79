//! A link's life by statement: it is paused, goes on, and is reset.

use serde_json::json;

use crate::support::daemon::Setup;
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, index_body};
use crate::support::{SECONDS_30, until};

async fn staged() -> Stage {
    // The first document that is refused stops the link.
    let setup = |setup: Setup| setup.set("link.error_limit.records", 0);
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b'), (3, 'a', 'b')").await;
    stage.link().await;
    stage.settle().await;
    stage
}

async fn say(stage: &Stage, verb: &str) {
    stage.daemon.sql(&format!("{verb} LINK `{}`", stage.index)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_link_rests_through_restarts_and_goes_on_where_it_stopped() {
    let mut stage = staged().await;
    let other = stage.search.index("other", index_body()).await;
    stage.daemon.sql(&stage.statement().replace(&stage.index, &other)).await;
    say(&stage, "pause").await;
    assert_eq!(stage.until_state("paused").await["errors"], "");
    for sql in ["UPDATE {t} SET a = 'meanwhile' WHERE id = 1", "DELETE FROM {t} WHERE id = 2"] {
        stage.exec(sql).await;
    }
    let paused = std::mem::replace(&mut stage.index, other);
    stage.until_equal("the other link goes on", SECONDS_30).await;
    stage.daemon.stop().await;
    stage.daemon.start_again().await;
    stage.exec("INSERT INTO {t} VALUES (4, 'behind', 'the restart')").await;
    stage.until_equal("it does so behind a restart too", SECONDS_30).await;
    stage.index = paused;
    assert_eq!(stage.status().await.0, "paused");
    let doc = stage.search.doc(&stage.index, "2").await.expect("it is as it was");
    assert_eq!(doc.source, json!({"id": 2, "a": "a", "b": "b"}));
    say(&stage, "RESUME").await;
    stage.settle().await;
    stage.until_equal("it has caught up", SECONDS_30).await;
    let refused = stage.daemon.try_sql(&format!("RESUME LINK '{}'", stage.index)).await;
    let refused = refused.expect_err("it does not rest");
    assert!(refused.contains("so it goes on anyway"), "{refused}");
    let refused = stage.daemon.try_sql("PAUSE LINK nobody").await.expect_err("there is none");
    assert!(refused.contains("unknown link `nobody`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_link_goes_on_without_a_restart_when_its_cause_is_gone() {
    let stage = staged().await;
    let strict =
        json!({"dynamic": "strict", "properties": {"a": {"type": "keyword", "ignore_above": 100}}});
    stage.search.ok("PUT", &format!("/{}/_mapping", stage.index), Some(strict)).await;
    stage.daemon.sql(&format!("CALL dbms_etl.drop_sync_link_by_id('{}')", stage.index)).await;
    stage.exec("ALTER TABLE {t} ADD COLUMN c VARCHAR(9) DEFAULT 'c'").await;
    let with_c = format!("{0}.c({1}.t.c),{0}.id(", stage.index, stage.db);
    let statement = stage.statement().replacen(&format!("{}.id(", stage.index), &with_c, 1);
    stage.daemon.sql(&statement).await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("RESUME LINK"), "{errors}");
    let wider = json!({"properties": {"c": {"type": "keyword"}}});
    stage.search.ok("PUT", &format!("/{}/_mapping", stage.index), Some(wider)).await;
    say(&stage, "RESUME").await;
    stage.until_state("running").await;
    let doc = stage.search.doc(&stage.index, "3").await.expect("it is written");
    assert_eq!(doc.source, json!({"c": "c", "id": 3, "a": "a", "b": "b"}));
}

/// What somebody else has done to the index is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_link_copies_its_table_again_and_deletes_what_has_no_row() {
    let mut stage = staged().await;
    let at = |id: &str| format!("/{}/_doc/{id}", stage.index);
    stage.search.ok("PUT", &at("77"), Some(json!({"id": 77, "a": "of", "b": "nobody"}))).await;
    stage.search.ok("PUT", &at("1"), Some(json!({"id": 1, "a": "changed", "b": ""}))).await;
    stage.search.ok("DELETE", &at("3"), None).await;
    say(&stage, "RESET").await;
    stage.until_equal("the index is the table again", SECONDS_30).await;
    stage.settle().await;
    // Once only.
    stage.daemon.stop().await;
    stage.daemon.start_again().await;
    stage.settle().await;
    let copied = format!("driftless_link_rows_total{{kind=\"snapshot\",link=\"{}\"}}", stage.index);
    assert_eq!(stage.daemon.metric(&copied).await.unwrap_or(0.0), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_link_leaves_its_index_without_our_alias_or_takes_it_along() {
    let stage = staged().await;
    let aliases = async || {
        let (status, found) =
            stage.search.request("GET", &format!("/{}/_alias", stage.index), None).await;
        (status, found[&stage.index]["aliases"].as_object().map(|aliases| aliases.len()))
    };
    assert_eq!(aliases().await, (200, Some(1)));
    stage.daemon.sql(&format!("DROP LINK {}", stage.index)).await;
    assert_eq!(aliases().await, (200, Some(0)));
    assert_eq!(stage.search.count(&stage.index).await, 4);
    stage.link().await;
    stage.until_state("running").await;
    let refused = stage.daemon.try_sql(&format!("DROP LINK {} WITH ROWS", stage.index)).await;
    assert!(refused.expect_err("there is no such clause").contains("INDEX behind WITH"));
    stage.daemon.sql(&format!("DROP LINK {} WITH INDEX", stage.index)).await;
    assert_eq!(aliases().await, (404, None));
    let unknown = stage.daemon.try_sql(&format!("DROP LINK {}", stage.index)).await;
    assert!(unknown.expect_err("it is gone").contains("unknown link"));
}

/// Whoever makes the index, or the column, later need not restart anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_the_file_is_made_when_what_it_lacks_has_come() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b')").await;
    let (db, index) = (stage.db.clone(), format!("{}-late", stage.index));
    let link = toml::Table::from_iter([
        ("mapping".to_owned(), format!("{index}.id({db}.t.id),{index}.c({db}.t.c)").into()),
        ("key".to_owned(), format!("{index}.id={db}.t.id").into()),
    ]);
    stage.daemon.stop().await;
    stage.daemon.reconfigure("links", vec![toml::Value::from(link)]);
    stage.daemon.start_again_unready();
    stage.daemon.listens().await;
    let of_file = async || {
        let (_, links) = stage.daemon.request("GET", "/_links", None).await;
        links["links"][0].clone()
    };
    until("the column is missed", SECONDS_30, async || {
        let link = of_file().await;
        let is_told = link["errors"].as_str().is_some_and(|text| text.contains("RESUME LINK"));
        if link["state"] == "failed" && is_told { Ok(()) } else { Err(link.to_string()) }
    })
    .await;
    stage.exec("ALTER TABLE {t} ADD COLUMN c INT NOT NULL DEFAULT 7").await;
    stage.daemon.sql(&format!("RESUME LINK `{index}`")).await;
    until("the index is waited for", SECONDS_30, async || {
        let link = of_file().await;
        let text = link["errors"].as_str().unwrap_or_default();
        if link["state"] == "recovering" && text.contains("does not exist") {
            Ok(())
        } else {
            Err(link.to_string())
        }
    })
    .await;
    stage.search.create_index(&index, serde_json::json!({})).await;
    until("the row is a document", SECONDS_30, async || {
        let doc = stage.search.doc(&index, "1").await;
        doc.is_some_and(|doc| doc.source["c"] == 7)
    })
    .await;
    let dropped = stage.daemon.sql(&format!("DROP LINK `{index}`")).await;
    let message = dropped.cell(0, "Message");
    assert!(message.contains("the configuration file has the link"), "{message}");
}
