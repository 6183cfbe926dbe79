//! `pipeline_mode`: the same rows with vectors of ours and with vectors of the cluster's own pipeline, who is chosen to
//! make them, and what becomes of rows when the cluster's model is in trouble.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};
use toml::{Table, Value as Toml};

use crate::support::daemon::{Daemon, Setup};
use crate::support::model::{Behaviour, Model, vector};
use crate::support::mysql::Mysql;
use crate::support::proxy::{Proxy, Request};
use crate::support::search::Search;
use crate::support::servers::{self, Flavour};
use crate::support::tutorial::{Door, index_body, sync_by_map};
use crate::support::{SECONDS_30, unique, until};

/// One endpoint behind two models: Driftless' and the node's. The node is reached through a proxy that keeps the bulks.
struct Stage {
    mysql: Mysql,
    search: Search,
    proxy: Proxy,
    model: Model,
    daemon: Daemon,
    db: String,
}

impl Stage {
    async fn set(setup: impl FnOnce(Setup) -> Setup) -> Self {
        let mysql = servers::mysql(Flavour::Mysql97);
        let search = servers::opensearch();
        let proxy = Proxy::http_watching(search.address(), "_bulk").await;
        let db = mysql.database("modes").await;
        mysql
            .exec(format!(
                "CREATE TABLE {db}.test_table (id INT PRIMARY KEY, t1 INT, t2 TEXT) CHARSET utf8mb4"
            ))
            .await;
        let daemon = setup(Setup::new(&mysql, &proxy.url())).start().await;
        Self { mysql, search, proxy, model: Model::start().await, daemon, db }
    }

    async fn at_driftless(&self, pipeline: &str) {
        make(Door::Driftless(&self.daemon), &self.model, pipeline).await;
    }

    async fn at_the_node(&self, pipeline: &str) {
        make(Door::Node(&self.search), &self.model, pipeline).await;
    }

    /// An index whose default pipeline is `pipeline`.
    async fn index(&self, pipeline: &str) -> String {
        self.search.index("modes", index_body(pipeline)).await
    }

    async fn exec(&self, sql: &str) {
        self.mysql.exec(sql.replace("{t}", &format!("{}.test_table", self.db))).await;
    }

    /// Restarts the daemon with one link of the configuration for each pair of index and mode.
    async fn declare(&mut self, links: &[(&str, &str)]) {
        let links = links.iter().map(|(index, mode)| link(index, &self.db, mode)).collect();
        restart(&mut self.daemon, "links", Toml::Array(links)).await;
    }

    async fn expected(&self) -> BTreeMap<String, Value> {
        let rows: Vec<(i64, Option<i64>, Option<String>)> =
            self.mysql.query(format!("SELECT id, t1, t2 FROM {}.test_table", self.db)).await;
        rows.into_iter().map(|(id, t1, t2)| (id.to_string(), document(id, t1, t2))).collect()
    }

    async fn until_equal(&self, index: &str, what: &str) {
        until(what, SECONDS_30 * 2, async || {
            let (found, expected) = (sources(&self.search, index).await, self.expected().await);
            if found == expected {
                return Ok(());
            }
            let differs = |id: &&String| found.get(*id) != expected.get(*id);
            let ids: Vec<_> = expected.keys().chain(found.keys()).filter(differs).collect();
            Err(format!("{index}: {ids:?} differ"))
        })
        .await;
    }

    /// What `/_links` says of the link.
    async fn shown(&self, link: &str) -> Value {
        let (status, answer) = self.daemon.request("GET", "/_links", None).await;
        assert_eq!(status, 200, "{answer}");
        let links = answer["links"].as_array().expect("a list");
        links.iter().find(|shown| shown["id"] == link).cloned().unwrap_or_default()
    }

    async fn until_state(&self, link: &str, state: &str) -> Value {
        until("the link is in this state", SECONDS_30, async || {
            let shown = self.shown(link).await;
            if shown["state"] == state { Ok(shown) } else { Err(shown.to_string()) }
        })
        .await
    }
}

/// Changes one key of the configuration and restarts; waits for the door alone, since links may be meant to fail.
async fn restart(daemon: &mut Daemon, key: &str, value: impl Into<Toml>) {
    daemon.stop().await;
    daemon.reconfigure(key, value);
    daemon.start_again_unready();
    let address = daemon.url().trim_start_matches("http://").to_owned();
    until("the door is open", SECONDS_30, async || {
        tokio::net::TcpStream::connect(&address).await.is_ok()
    })
    .await;
}

async fn make(door: Door<'_>, model: &Model, pipeline: &str) {
    let model_id = door.deploy_model(&model.address()).await;
    door.make_pipeline(pipeline, &model_id).await;
}

/// `id` and `t1` as they are, `t2` as the text that the pipeline embeds.
fn link(index: &str, db: &str, mode: &str) -> Toml {
    let mapping = format!(
        "{index}.my_text({db}.test_table.t2), {index}.id({db}.test_table.id), {index}.n({db}.test_table.t1)"
    );
    let key = format!("{index}.id={db}.test_table.id");
    let entries = [("mapping", mapping), ("key", key), ("pipeline_mode", mode.to_owned())];
    Toml::Table(Table::from_iter(
        entries.map(|(name, value)| (name.to_owned(), Toml::String(value))),
    ))
}

fn document(id: i64, t1: Option<i64>, t2: Option<String>) -> Value {
    match t2 {
        Some(text) => json!({"my_text": text, "id": id, "n": t1, "my_vector": vector(&text, 4)}),
        None => json!({"my_text": null, "id": id, "n": t1}),
    }
}

async fn sources(search: &Search, index: &str) -> BTreeMap<String, Value> {
    search.docs(index).await.into_iter().map(|(id, doc)| (id, doc.source)).collect()
}

/// Texts of all sorts, and none.
fn text(row: usize) -> Option<String> {
    match row % 6 {
        0 => None,
        1 => Some(format!("数据库同步 {row} 検索 색인")),
        2 => Some(format!("{row} {}", "long text, ".repeat(950))),
        3 => Some(format!("quotes \" ' \\ and <tags> & \t tabs {row}")),
        4 => Some(format!("emoji 🦀 {row} ü ß ñ")),
        _ => Some(format!("plain text number {row}")),
    }
}

async fn insert(stage: &Stage, rows: std::ops::Range<usize>) {
    let mut conn = stage.mysql.session().await;
    for row in rows {
        let sql = format!("INSERT INTO {}.test_table VALUES (?, ?, ?)", stage.db);
        conn.exec_drop(sql, (row, row * 10, text(row))).await.expect("inserts");
    }
}

/// Everything that can happen to a row.
async fn change_rows(stage: &Stage, from: usize) {
    let at = |offset: usize| from + offset;
    insert(stage, from..from + 12).await;
    stage
        .exec(&format!("UPDATE {{t}} SET t2 = 'another 文' WHERE id IN ({}, {})", at(1), at(0)))
        .await;
    stage.exec(&format!("UPDATE {{t}} SET t1 = t1 + 1 WHERE id = {}", at(2))).await;
    stage.exec(&format!("UPDATE {{t}} SET t2 = NULL WHERE id = {}", at(3))).await;
    stage
        .exec(&format!("UPDATE {{t}} SET id = id + 100000 WHERE id IN ({}, {})", at(4), at(8)))
        .await;
    stage
        .exec(&format!("DELETE FROM {{t}} WHERE id IN ({}, {}, {})", at(5), at(6), from + 100_008))
        .await;
    stage.exec(&format!("INSERT INTO {{t}} VALUES ({}, 7, 'came back')", at(5))).await;
}

/// Whether each operation of a bulk is a whole document or a delete; the guard beside deletes is neither.
fn assert_whole_documents(bulk: &Request) {
    let body = bulk.text();
    let mut lines = body.lines();
    while let Some(action) = lines.next() {
        let action: Value = serde_json::from_str(action).expect("JSON");
        let kind = action.as_object().and_then(|o| o.keys().next()).expect("an action").as_str();
        match kind {
            "delete" => {}
            "index" => {
                let written: Value =
                    serde_json::from_str(lines.next().unwrap_or_default()).expect("JSON");
                let keys: Vec<_> = written.as_object().expect("an object").keys().collect();
                assert_eq!(keys, ["my_text", "id", "n"], "a whole document, without a vector");
            }
            _ => {
                assert_eq!(action, json!({"update": {"_id": "driftless-guard"}}));
                assert_eq!(lines.next(), Some("{\"doc\":{}}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_modes_make_the_same_documents_of_the_same_rows() {
    let mut stage = Stage::set(|setup| setup).await;
    let pipeline = unique("both_modes");
    stage.at_driftless(&pipeline).await;
    stage.at_the_node(&pipeline).await;
    let (ours, theirs) = (stage.index(&pipeline).await, stage.index(&pipeline).await);
    insert(&stage, 0..480).await;
    stage.declare(&[(&ours, "emulate"), (&theirs, "delegate")]).await;
    for index in [&ours, &theirs] {
        stage.until_equal(index, "the snapshot is there").await;
    }
    change_rows(&stage, 1_000).await;
    for index in [&ours, &theirs] {
        stage.until_equal(index, "the changes are there").await;
    }
    for (index, mode) in [(&ours, "emulate"), (&theirs, "delegate")] {
        let shown = stage.until_state(index, "running").await;
        assert_eq!((&shown["pipeline_mode"], &shown["pipeline"]), (&json!(mode), &json!(pipeline)));
    }
    // Killed, it writes again what it has written: conflicts are success in both modes.
    stage.daemon.kill9();
    change_rows(&stage, 2_000).await;
    stage.daemon.start_again().await;
    for index in [&ours, &theirs] {
        stage.until_equal(index, "what came while it was down is there").await;
    }
    let found = (sources(&stage.search, &ours).await, sources(&stage.search, &theirs).await);
    assert!(found.0.len() > 480 && found.0 == found.1, "{} and {}", found.0.len(), found.1.len());

    let bulks = stage.proxy.requests();
    let of = |index: &str| {
        let path = format!("/{index}.driftless/_bulk?");
        bulks.iter().filter(move |bulk| bulk.path.starts_with(&path)).collect::<Vec<_>>()
    };
    assert!(of(&ours).iter().all(|bulk| bulk.path.contains("pipeline=_none")));
    let delegated = of(&theirs);
    assert!(!delegated.is_empty());
    for bulk in delegated {
        assert!(!bulk.path.contains("pipeline="), "{}", bulk.path);
        assert_whole_documents(bulk);
        assert!(
            bulk.text().matches("\"version_type\"").count() <= 100,
            "a cluster gets as much as it can embed in time"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_takes_the_pipeline_that_is_there() {
    let mut stage = Stage::set(|setup| setup).await;
    let (both, theirs, nobodys) = (unique("both"), unique("theirs"), unique("nobodys"));
    stage.at_driftless(&both).await;
    stage.at_the_node(&both).await;
    stage.at_the_node(&theirs).await;
    insert(&stage, 0..6).await;
    for (pipeline, mode) in [(&both, "emulate"), (&theirs, "delegate")] {
        let index = stage.index(pipeline).await;
        stage.daemon.sql(&sync_by_map(&index, &stage.db)).await;
        let shown = stage.until_state(&index, "running").await;
        assert_eq!((&shown["pipeline_mode"], &shown["pipeline"]), (&json!(mode), &json!(pipeline)));
        let table =
            stage.daemon.sql(&format!("CALL dbms_etl.show_sync_link_by_id('{index}')")).await;
        let said = format!("pipeline {pipeline} ({mode})");
        assert!(table.cell(0, "Message").contains(&said), "{}", table.cell(0, "Message"));
        until("the rows have their vectors", SECONDS_30, async || {
            let found = sources(&stage.search, &index).await;
            found.len() == 6
                && found["1"]["my_vector"] == json!(vector(&text(1).expect("a text"), 4))
        })
        .await;
    }
    let index = stage.index(&nobodys).await;
    let refusal = stage.daemon.try_sql(&sync_by_map(&index, &stage.db)).await.expect_err("refused");
    for part in [
        "registered neither at Driftless nor in the cluster",
        &format!("PUT _ingest/pipeline/{nobodys} at Driftless' own address"),
        "or at the cluster's",
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }

    // For links that say nothing themselves the configuration decides.
    for (mode, pipeline, sentence) in [
        ("emulate", &theirs, "which is not registered at Driftless"),
        ("delegate", &nobodys, "which the cluster does not have"),
    ] {
        restart(&mut stage.daemon, "link.pipeline_mode", mode).await;
        let index = stage.index(pipeline).await;
        let made = stage.daemon.try_sql(&sync_by_map(&index, &stage.db)).await;
        let refusal = made.expect_err("refused");
        assert!(refusal.contains(sentence), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_comes_and_goes_is_settled_anew() {
    let stage = Stage::set(|setup| setup).await;
    let (first, second) = (unique("first"), unique("second"));
    stage.at_driftless(&first).await;
    stage.at_the_node(&first).await;
    stage.at_the_node(&second).await;
    let index = stage.index(&first).await;
    stage.daemon.sql(&sync_by_map(&index, &stage.db)).await;
    let settled = async |mode: &str, pipeline: &str| {
        let shown = stage.until_state(&index, "running").await;
        shown["pipeline_mode"] == mode && shown["pipeline"] == pipeline
    };
    assert!(settled("emulate", &first).await);

    // It is deleted here, and the cluster has it.
    let path = format!("/_ingest/pipeline/{first}");
    assert_eq!(stage.daemon.request("DELETE", &path, None).await.0, 200);
    stage.exec("INSERT INTO {t} VALUES (1, 0, 'one')").await;
    until("the cluster embeds it", SECONDS_30, async || {
        settled("delegate", &first).await && sources(&stage.search, &index).await.contains_key("1")
    })
    .await;

    // The index gets another one, which the cluster runs from the next write on.
    let settings = json!({"index.default_pipeline": second});
    stage.search.ok("PUT", &format!("/{index}/_settings"), Some(settings)).await;
    stage.search.ok("DELETE", &path, None).await;
    stage.exec("INSERT INTO {t} VALUES (2, 0, 'two')").await;
    until("the second pipeline runs", SECONDS_30, async || {
        let found = sources(&stage.search, &index).await;
        found.get("2") == Some(&json!({"my_text": "two", "id": 2, "my_vector": vector("two", 4)}))
    })
    .await;
    let found = sources(&stage.search, &index).await;
    assert_eq!(found["1"], json!({"my_text": "one", "id": 1, "my_vector": vector("one", 4)}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_model_is_in_trouble_loses_nothing() {
    let mut stage = Stage::set(|setup| setup).await;
    let pipeline = unique("trouble");
    stage.at_the_node(&pipeline).await;
    let index = stage.index(&pipeline).await;
    insert(&stage, 0..12).await;
    stage.declare(&[(&index, "delegate")]).await;
    stage.until_equal(&index, "the snapshot is there").await;
    let troubles = [
        Behaviour::Status(429, Some(1)),
        Behaviour::Status(500, None),
        Behaviour::Drop,
        Behaviour::NotJson,
        Behaviour::Status(401, None),
    ];
    for (at, trouble) in troubles.into_iter().enumerate() {
        let from = 1_000 * (at + 1);
        stage.model.behave(trouble);
        change_rows(&stage, from).await;
        let shown = stage.until_state(&index, "recovering").await;
        assert_ne!(shown["errors"], "");
        let refused =
            format!("driftless_sink_documents_total{{link=\"{index}\",outcome=\"refused\"}}");
        assert_eq!(stage.daemon.metric(&refused).await, Some(0.0));
        stage.model.behave(Behaviour::Fine);
        stage.until_equal(&index, "the link has recovered by itself").await;
        stage.until_state(&index, "running").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_the_clusters_pipeline_refuses_is_named_by_its_document() {
    let mut stage = Stage::set(|setup| setup.set("link.error_limit.records", 0)).await;
    let pipeline = unique("refused");
    let model_id = Door::Node(&stage.search).deploy_model(&stage.model.address()).await;
    // One request for several documents: what one text spoils fails them all.
    let processor =
        json!({"model_id": model_id, "field_map": {"my_text": "my_vector"}, "batch_size": 8});
    let body = json!({"processors": [{"text_embedding": processor}]});
    stage.search.ok("PUT", &format!("/_ingest/pipeline/{pipeline}"), Some(body)).await;
    let (poisoned, blank) = (stage.index(&pipeline).await, stage.index(&pipeline).await);

    stage.model.behave(Behaviour::Refuse("sesame".to_owned(), 400));
    insert(&stage, 1..6).await;
    stage.exec("INSERT INTO {t} VALUES (77, 0, 'open sesame'), (78, 0, 'harmless')").await;
    stage.declare(&[(&poisoned, "delegate")]).await;
    let shown = stage.until_state(&poisoned, "failed").await;
    let errors = shown["errors"].as_str().unwrap_or_default();
    assert!(
        errors.contains("refuses document 77: ") && errors.contains("stub says 400"),
        "{errors}"
    );
    assert!(!stage.daemon.log().contains("sesame"), "the log quotes a text");

    stage.model.behave(Behaviour::Fine);
    stage.exec("UPDATE {t} SET t2 = ' ' WHERE id = 77").await;
    stage.declare(&[(&blank, "delegate")]).await;
    let shown = stage.until_state(&blank, "failed").await;
    let errors = shown["errors"].as_str().unwrap_or_default();
    for part in ["refuses document 77: ", "has empty string value", "`emulate`, where a blank text"]
    {
        assert!(errors.contains(part), "{errors}");
    }
    // The way out that the message names: the same link of the file, in the other mode.
    stage.declare(&[(&blank, "auto")]).await;
    stage.at_driftless(&pipeline).await;
    stage.declare(&[(&blank, "emulate")]).await;
    until("the blank text is a document without a vector", SECONDS_30, async || {
        let found = sources(&stage.search, &blank).await;
        found.len() == 7 && found["77"] == json!({"my_text": " ", "id": 77, "n": 0})
    })
    .await;
    assert_eq!(stage.until_state(&blank, "running").await["pipeline_mode"], "emulate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_can_be_delegated_to_the_embedded_sink() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let db = mysql.database("modes").await;
    mysql.exec(format!("CREATE TABLE {db}.test_table (id INT PRIMARY KEY, t1 INT, t2 TEXT)")).await;
    let setup = Setup::new(&mysql, "http://127.0.0.1:1").set("sink.type", "embedded");
    let mut daemon = setup.start().await;
    let (status, answer) = daemon.request("PUT", "/emb", Some(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    restart(&mut daemon, "links", Toml::Array(vec![link("emb", &db, "delegate")])).await;
    until("the link is refused with advice", SECONDS_30, async || {
        let (_, answer) = daemon.request("GET", "/_links", None).await;
        let errors = answer["links"][0]["errors"].as_str().unwrap_or_default().to_owned();
        let is_said = errors.contains("the embedded sink has no cluster")
            && errors.contains("write `auto` or `emulate`");
        if is_said { Ok(()) } else { Err(errors) }
    })
    .await;
}
