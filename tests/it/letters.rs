//! Dead letters: what an index refuses for good neither stops its link nor is lost, and what is tried again is the row as it
//! is then.

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::model::{Behaviour, Model};
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::tutorial::Door;
use crate::support::{MINUTES_2, SECONDS_30, unique, until};

/// The index takes numbers where the table has texts, and no fields but its own.
async fn set(setup: impl FnOnce(Setup) -> Setup) -> Stage {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    let body = json!({"mappings": {"dynamic": "strict", "properties": {
        "id": {"type": "long"}, "a": {"type": "long"}, "b": {"type": "keyword"}
    }}});
    stage.index = stage.search.index("letters", body).await;
    stage
}

async fn letters(stage: &Stage) -> Vec<(String, String)> {
    let statement = format!("SHOW DEAD LETTERS OF LINK {}", stage.index);
    let answer = stage.daemon.sql(&statement).await;
    let cells = |row| (answer.cell(row, "Document"), answer.cell(row, "Reason"));
    (0..answer.rows.len()).map(cells).collect()
}

async fn until_letters(stage: &Stage, expected: &[&str]) {
    until(&format!("the dead letters are {expected:?}"), SECONDS_30, async || {
        let found = letters(stage).await;
        let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        if ids == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let gauge = format!("driftless_dead_letters{{link=\"{}\"}}", stage.index);
    assert_eq!(stage.daemon.metric(&gauge).await, Some(expected.len() as f64));
}

async fn until_doc(stage: &Stage, id: &str, a: Value) {
    until(&format!("{id} is {a}"), SECONDS_30, async || {
        let found = stage.search.doc(&stage.index, id).await.map(|doc| doc.source["a"].clone());
        if found.as_ref() == Some(&a) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_index_refuses_becomes_a_dead_letter_and_the_link_goes_on() {
    let mut stage = set(|setup| setup.set("link.checkpoint_interval_ms", 100)).await;
    // Met by the copy, and by the stream.
    stage.exec("INSERT INTO {t} VALUES (1, '10', 'x'), (2, 'no number', 'x')").await;
    stage.link().await;
    until_letters(&stage, &["2"]).await;
    let many: Vec<String> = (100..300).map(|id| format!("({id}, '{id}', '')")).collect();
    stage
        .exec(&format!("INSERT INTO {{t}} VALUES {}, (3, 'none either', 'x')", many.join(",")))
        .await;
    stage.exec("UPDATE {t} SET a = 'not any more' WHERE id = 1").await;
    stage.exec("INSERT INTO {t} VALUES (4, '40', 'behind')").await;
    until_doc(&stage, "4", json!("40")).await;
    until_letters(&stage, &["1", "2", "3"]).await;
    // The document as it was before.
    until_doc(&stage, "1", json!("10")).await;
    let found = letters(&stage).await;
    assert!(found[1].1.contains("mapper_parsing_exception"), "{found:?}");
    let (state, message) = stage.status().await;
    assert_eq!((state.as_str(), &message["restart_times"]), ("running", &json!("0")));
    assert!(message["others"].as_str().unwrap_or_default().contains("3 dead letters"), "{message}");
    let export = format!("EXPORT DEAD LETTERS OF LINK {}", stage.index);
    let exported = stage.daemon.run(&["sql", "--format", "jsonl", &export]);
    let lines = String::from_utf8_lossy(&exported.stdout).into_owned();
    let letter = |line| serde_json::from_str::<Value>(line).expect("JSON in one line");
    let documents: Vec<Value> =
        lines.lines().map(|line| letter(line)["Document"].clone()).collect();
    assert_eq!(documents, ["1", "2", "3"], "{lines}");

    let repair = format!("VERIFY LINK {} REPAIR", stage.index);
    let verdict = stage.daemon.sql(&repair).await;
    let told = |row| verdict.cell(row, "Message").contains("it is a dead letter");
    assert_eq!((1..verdict.rows.len()).filter(|row| told(*row)).count(), 3, "{:?}", verdict.rows);
    assert_eq!(stage.status().await.1["restart_times"], "0");

    stage.daemon.kill9();
    stage.daemon.start_again().await;
    until_letters(&stage, &["1", "2", "3"]).await;
    // A newer change makes a letter void: one that can be written, and a delete.
    stage.exec("UPDATE {t} SET a = '20' WHERE id = 2").await;
    stage.exec("DELETE FROM {t} WHERE id = 3").await;
    until_doc(&stage, "2", json!("20")).await;
    until_letters(&stage, &["1"]).await;

    let other = format!("RETRY DEAD LETTERS OF LINK {} DOCUMENT '9'", stage.index);
    let refused = stage.daemon.try_sql(&other).await.expect_err("there is none");
    assert!(refused.contains("has no dead letter of document 9"), "{refused}");
    stage.daemon.sql(&format!("DISCARD DEAD LETTERS OF LINK {} DOCUMENT '1'", stage.index)).await;
    until_letters(&stage, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_dead_letters_than_allowed_stop_the_link_and_none_is_lost() {
    let stage = set(|setup| setup.set("link.error_limit.records", 2)).await;
    stage.link().await;
    stage.until_state("running").await;
    stage.exec("INSERT INTO {t} VALUES (1, 'one', ''), (2, 'two', ''), (3, '30', '')").await;
    until_letters(&stage, &["1", "2"]).await;
    stage.exec("INSERT INTO {t} VALUES (4, 'four', ''), (5, '50', '')").await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(
        errors.contains("refuses document 4")
            && errors.contains("2 dead letters are there already"),
        "{errors}"
    );
    stage.exec("UPDATE {t} SET a = '40' WHERE id = 4").await;
    stage.daemon.sql(&format!("DISCARD DEAD LETTERS OF LINK {}", stage.index)).await;
    // What was refused is met again, and there is room for it now.
    stage.daemon.sql(&format!("RESUME LINK {}", stage.index)).await;
    until_doc(&stage, "4", json!("40")).await;
    until_doc(&stage, "5", json!("50")).await;
    until_letters(&stage, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_tried_again_never_overwrites_something_newer() {
    let mut stage = set(|setup| setup).await;
    // The index knows no `b`.
    let body = json!({"mappings": {"dynamic": "strict", "properties": {
        "id": {"type": "long"}, "a": {"type": "keyword"}
    }}});
    stage.index = stage.search.index("letters", body).await;
    stage.link().await;
    stage.until_state("running").await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x'), (3, 'old', 'x')").await;
    until_letters(&stage, &["1", "2", "3"]).await;
    let mapping = json!({"properties": {"b": {"type": "keyword"}}});
    stage.search.ok("PUT", &format!("/{}/_mapping", stage.index), Some(mapping)).await;
    stage.exec("UPDATE {t} SET a = 'new' WHERE id = 1").await;
    until_letters(&stage, &["2", "3"]).await;
    // The row of a letter goes while nobody looks: its document must not come back.
    stage.daemon.sql(&format!("PAUSE LINK {}", stage.index)).await;
    stage.exec("DELETE FROM {t} WHERE id = 3").await;
    stage.exec("UPDATE {t} SET b = 'newest' WHERE id = 2").await;
    let again = format!("RETRY DEAD LETTERS OF LINK {}", stage.index);
    let paused = stage.daemon.try_sql(&again).await;
    assert!(paused.expect_err("it is paused").contains("is paused"));
    stage.daemon.sql(&format!("RESUME LINK {}", stage.index)).await;
    let answer = stage.daemon.sql(&again).await;
    assert_eq!(answer.cell(0, "Status"), "retried");
    until_letters(&stage, &[]).await;
    stage.until_equal("every row is a document, and no other", SECONDS_30).await;
}

/// Rows whose `_id` would be too long: met by a copy, inserted, updated to one and back, deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_cannot_be_documents_become_dead_letters_until_they_can() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("link.checkpoint_interval_ms", 100)
    })
    .await;
    let (db, index) = (stage.db.clone(), stage.index.clone());
    stage
        .mysql
        .exec(format!("CREATE TABLE {db}.k (k VARCHAR(600) PRIMARY KEY, a VARCHAR(9))"))
        .await;
    let exec = async |stage: &Stage, sql: &str| {
        stage.mysql.exec(sql.replace("{k}", &format!("{db}.k"))).await;
    };
    exec(&stage, "INSERT INTO {k} VALUES ('short', 'x'), (REPEAT('c', 600), 'x')").await;
    let map = format!("{index}.a({db}.k.a)");
    stage
        .daemon
        .sql(&format!(
            "CALL dbms_etl.sync_by_map('search', '{map}', '{index}.id={db}.k.k', '', '')"
        ))
        .await;
    let long = |letter: &str| letter.repeat(600);
    until_letters(&stage, &[&long("c")]).await;
    let found = letters(&stage).await;
    assert!(found[0].1.contains("600 bytes, more than 512"), "{found:?}");

    exec(&stage, "INSERT INTO {k} VALUES (REPEAT('d', 600), 'x'), ('goes', 'x'), ('stays', 'x')")
        .await;
    until_letters(&stage, &[&long("c"), &long("d")]).await;
    // A document goes with its key, and comes back with another one.
    exec(&stage, "UPDATE {k} SET k = REPEAT('e', 600) WHERE k = 'goes'").await;
    exec(&stage, "UPDATE {k} SET k = 'back' WHERE k = REPEAT('d', 600)").await;
    until_letters(&stage, &[&long("c"), &long("e")]).await;
    let ids =
        async |stage: &Stage| stage.search.docs(&index).await.into_keys().collect::<Vec<String>>();
    let expected = ["back", "short", "stays"];
    until("the others are documents", SECONDS_30, async || {
        let found = ids(&stage).await;
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    stage.daemon.kill9();
    stage.daemon.start_again().await;
    exec(&stage, "DELETE FROM {k} WHERE LENGTH(k) > 512").await;
    until_letters(&stage, &[]).await;
    assert_eq!(ids(&stage).await, expected);
    assert_eq!(stage.status().await.0, "running");
}

/// A link whose column `a` is embedded by Driftless, with the model.
async fn embedding(setup: impl FnOnce(Setup) -> Setup) -> (Stage, Model) {
    let model = Model::start().await;
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    let model_id = Door::Driftless(&stage.daemon).deploy_model(&model.address()).await;
    let pipeline = unique("refusing");
    let body = json!({"processors": [{"text_embedding": {"model_id": model_id, "field_map": {"a": "vector"}}}]});
    let path = format!("/_ingest/pipeline/{pipeline}");
    let (status, answer) = stage.daemon.request("PUT", &path, Some(body)).await;
    assert!(status < 300, "{answer}");
    let settings = json!({"index": {"default_pipeline": pipeline}});
    stage.search.ok("PUT", &format!("/{}/_settings", stage.index), Some(settings)).await;
    stage.link().await;
    stage.until_state("running").await;
    (stage, model)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_the_model_refuses_becomes_a_dead_letter_and_the_others_pass() {
    let (stage, model) = embedding(|setup| {
        setup.set("link.error_limit.records", 2).set("link.checkpoint_interval_ms", 100)
    })
    .await;
    model.behave(Behaviour::Refuse("poison".to_owned(), 400));
    let many: Vec<String> = (10..90).map(|id| format!("({id}, 'text {id}', '')")).collect();
    stage.exec(&format!("INSERT INTO {{t}} VALUES {}, (1, 'poison', '')", many.join(","))).await;
    until_letters(&stage, &["1"]).await;
    until_doc(&stage, "89", json!("text 89")).await;
    let shown = stage.daemon.sql(&format!("SHOW DEAD LETTERS OF LINK {}", stage.index)).await;
    assert_eq!(shown.cell(0, "Stage"), "model");
    assert!(shown.cell(0, "Reason").contains("the endpoint answered 400"), "{:?}", shown.rows);
    // Alone in its request, so that only another text can tell whose fault it is.
    stage.exec("INSERT INTO {t} VALUES (2, 'poison too', '')").await;
    until_letters(&stage, &["1", "2"]).await;
    stage.exec("INSERT INTO {t} VALUES (3, 'fine', '')").await;
    until_doc(&stage, "3", json!("fine")).await;
    let (state, message) = stage.status().await;
    assert_eq!((state.as_str(), &message["restart_times"]), ("running", &json!("0")));

    stage.exec("UPDATE {t} SET a = 'mended' WHERE id = 1").await;
    until_doc(&stage, "1", json!("mended")).await;
    until_letters(&stage, &["2"]).await;
    model.behave(Behaviour::Fine);
    stage.daemon.sql(&format!("RETRY DEAD LETTERS OF LINK {}", stage.index)).await;
    until_letters(&stage, &[]).await;
    until_doc(&stage, "2", json!("poison too")).await;
    let doc = stage.search.doc(&stage.index, "2").await.expect("it is there");
    assert!(doc.source["vector"].is_array(), "{}", doc.source);

    model.behave(Behaviour::Refuse("poison".to_owned(), 422));
    stage.exec("INSERT INTO {t} VALUES (4, 'poison 4', ''), (5, 'poison 5', '')").await;
    until_letters(&stage, &["4", "5"]).await;
    stage.exec("INSERT INTO {t} VALUES (6, 'poison 6', '')").await;
    let errors = stage.until_state("failed").await["errors"].to_string();
    assert!(errors.contains("document `6`") && errors.contains("2 dead letters"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_refuses_every_text_stops_the_link_and_makes_no_dead_letter() {
    let (stage, model) = embedding(|setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'before', '')").await;
    until_doc(&stage, "1", json!("before")).await;
    model.behave(Behaviour::Status(400, None));
    stage.exec("INSERT INTO {t} VALUES (2, 'behind', ''), (3, 'behind it', '')").await;
    let errors = stage.until_state("failed").await["errors"].to_string();
    assert!(errors.contains("the endpoint answered 400"), "{errors}");
    until_letters(&stage, &[]).await;
    model.behave(Behaviour::Fine);
    stage.daemon.sql(&format!("RESUME LINK {}", stage.index)).await;
    until_doc(&stage, "3", json!("behind it")).await;
}

/// The cluster's own pipeline fails on one document, in a way that is nobody's fault for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_14_a_document_that_fails_while_others_pass_is_parked_and_tried_again() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup
            .set("link.park_after_secs", 4)
            .set("link.pipeline_mode", "delegate")
            .set("link.error_limit.records", 0)
            .set("link.checkpoint_interval_ms", 100)
    })
    .await;
    let pipeline = unique("failing");
    let path = format!("/_ingest/pipeline/{pipeline}");
    let fails = json!({"processors": [{"fail": {"if": "ctx.a == 'stuck'", "message": "not now"}}]});
    stage.search.ok("PUT", &path, Some(fails)).await;
    let settings = json!({"index": {"default_pipeline": pipeline}});
    stage.search.ok("PUT", &format!("/{}/_settings", stage.index), Some(settings)).await;
    stage.link().await;
    stage.until_state("running").await;
    stage.exec("INSERT INTO {t} VALUES (1, 'stuck', 'x'), (2, 'fine', 'x')").await;
    until_doc(&stage, "2", json!("fine")).await;
    let parked = format!("driftless_parked_documents{{link=\"{}\"}}", stage.index);
    let mut id = 10;
    until("the document is parked, while others pass", MINUTES_2, async || {
        id += 1;
        stage.exec(&format!("INSERT INTO {{t}} VALUES ({id}, 'fine', 'x')")).await;
        stage.daemon.metric(&parked).await == Some(1.0)
    })
    .await;
    let shown = stage.daemon.sql(&format!("SHOW DEAD LETTERS OF LINK {}", stage.index)).await;
    assert_eq!((shown.rows.len(), shown.cell(0, "Document").as_str()), (1, "1"));
    assert_eq!(shown.cell(0, "Stage"), "parked");
    assert!(shown.cell(0, "Reason").contains("not now"), "{:?}", shown.rows);
    assert_eq!(
        stage.daemon.metric(&parked.replace("parked_documents", "dead_letters")).await,
        Some(0.0)
    );
    // The checkpoint has passed it: a life that begins there does not meet it in the log.
    stage.exec("INSERT INTO {t} VALUES (3, 'behind', 'x')").await;
    until_doc(&stage, "3", json!("behind")).await;
    let lag = format!("driftless_link_lag_ms{{link=\"{}\"}}", stage.index);
    until("nothing is unacknowledged", SECONDS_30, async || {
        stage.daemon.metric(&lag).await == Some(0.0)
    })
    .await;
    stage.daemon.kill9();
    stage.daemon.start_again().await;
    stage.until_state("running").await;
    assert_eq!(stage.daemon.metric(&parked).await, Some(1.0));
    stage.exec("INSERT INTO {t} VALUES (4, 'later', 'x')").await;
    until_doc(&stage, "4", json!("later")).await;
    assert!(stage.search.doc(&stage.index, "1").await.is_none());
    until("it is tried again, in vain", SECONDS_30, async || {
        stage.daemon.log().contains("what is parked is tried again")
    })
    .await;

    // Its row is another one by the time when it can be written.
    stage.search.ok("PUT", &path, Some(json!({"processors": []}))).await;
    stage.until_equal("it is written by itself", MINUTES_2).await;
    until("nothing is parked", SECONDS_30, async || {
        stage.daemon.metric(&parked).await == Some(0.0)
    })
    .await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}
