//! The AutoETL tutorial against real servers: rows become documents with the right vector, and change and go with them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::model::{Model, vector};
use crate::support::mysql::Mysql;
use crate::support::search::{Product, Search};
use crate::support::servers::{self, Flavour};
use crate::support::tutorial::{Door, index_body, sync_by_map};
use crate::support::{SECONDS_30, unique, until};

/// Everything of the tutorial up to its last step.
struct Stage {
    mysql: Mysql,
    search: Search,
    model: Model,
    daemon: Daemon,
    db: String,
    index: String,
}

impl Stage {
    async fn set(flavour: Flavour, product: Product) -> Self {
        let mysql = servers::mysql(flavour);
        let search = servers::search(product);
        let model = Model::start().await;
        let daemon =
            Setup::new(&mysql, search.url()).set("sink.type", product.kind()).start().await;
        let door = Door::Driftless(&daemon);
        let model_id = door.deploy_model(&model.address()).await;
        let answer = door.predict(&model_id, "hello world").await;
        let output = &answer["inference_results"][0]["output"][0];
        assert_eq!(output["shape"], json!([4]));
        assert_eq!(output["name"], "sentence_embedding");
        let pipeline = unique("text_to_vec_pipeline");
        door.make_pipeline(&pipeline, &model_id).await;
        let db = mysql.database("tutorial").await;
        mysql
            .exec(format!("CREATE TABLE {db}.test_table (id INT PRIMARY KEY, t1 INT, t2 TEXT)"))
            .await;
        let index = search.index("tutorial", index_body(&pipeline)).await;
        Self { mysql, search, model, daemon, db, index }
    }

    async fn table(&self) -> BTreeMap<String, Value> {
        let rows: Vec<(i64, Option<String>)> =
            self.mysql.query(format!("SELECT id, t2 FROM {}.test_table", self.db)).await;
        rows.into_iter().map(|(id, text)| (id.to_string(), document(id, text.as_deref()))).collect()
    }

    async fn until_equal(&self, what: &str) {
        until(what, SECONDS_30, async || {
            let expected = self.table().await;
            let found: BTreeMap<_, _> = self
                .search
                .docs(&self.index)
                .await
                .into_iter()
                .map(|(id, doc)| (id, doc.source))
                .collect();
            if found == expected {
                Ok(())
            } else {
                Err(format!("found {found:?}, expected {expected:?}"))
            }
        })
        .await;
    }
}

/// What the tutorial's mapping and pipeline make of a row.
fn document(id: i64, text: Option<&str>) -> Value {
    match text {
        Some(text) => json!({"my_text": text, "id": id, "my_vector": vector(text, 4)}),
        None => json!({"my_text": null, "id": id}),
    }
}

async fn follow_the_page(flavour: Flavour, product: Product) {
    let stage = Stage::set(flavour, product).await;
    let (mysql, db) = (&stage.mysql, &stage.db);
    mysql.exec(format!("INSERT INTO {db}.test_table(id, t1, t2) VALUES (1, 11, 'aaa'), (2, 22, 'bbb'), (3, 33, 'ccc')")).await;
    let answer = stage.daemon.sql(&sync_by_map(&stage.index, db)).await;
    assert_eq!(answer.cell(0, "Link Id"), stage.index);
    stage.until_equal("the rows from before the link are documents").await;

    mysql
        .exec(format!(
            "INSERT INTO {db}.test_table VALUES (4, 44, '数据库 ünd more'), (5, 55, NULL)"
        ))
        .await;
    stage.until_equal("inserted rows are documents").await;
    mysql.exec(format!("UPDATE {db}.test_table SET t2 = 'changed' WHERE id = 2")).await;
    stage.until_equal("a changed text has its own vector").await;
    let texts_before = stage.model.texts().len();
    mysql.exec(format!("UPDATE {db}.test_table SET t1 = 99 WHERE id = 1")).await;
    stage.until_equal("a change of an unmapped column changes nothing").await;
    mysql.exec(format!("UPDATE {db}.test_table SET id = 30 WHERE id = 3")).await;
    stage.until_equal("a changed key moves the document").await;
    assert_eq!(stage.model.texts().len(), texts_before, "equal texts are not embedded again");
    mysql.exec(format!("DELETE FROM {db}.test_table WHERE id = 4")).await;
    stage.until_equal("a deleted row's document is gone").await;

    let hits =
        stage.search.search(&stage.index, json!({"query": {"match": {"my_text": "aaa"}}})).await;
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0]["_id"], "1");
    assert_eq!(hits[0]["_source"], document(1, Some("aaa")));
    let knn = product.nearest("my_vector", &vector("changed", 4), 1);
    assert_eq!(stage.search.search(&stage.index, knn).await[0]["_id"], "2");

    let shown = stage.daemon.sql("CALL dbms_etl.show_sync_link()").await;
    assert_eq!(
        shown.columns,
        ["View Name", "Type", "Status", "Message", "Created_at", "Updated_at"]
    );
    assert_eq!(
        (shown.cell(0, "Type"), shown.cell(0, "Status")),
        ("search".to_owned(), "active".to_owned())
    );
    let message: Value =
        serde_json::from_str(&shown.cell(0, "Message")).expect("the message is JSON");
    assert_eq!(message["errors"], "");
    stage.daemon.sql(&format!("CALL dbms_etl.drop_sync_link_by_id('{}')", stage.index)).await;
    assert!(stage.daemon.sql("CALL dbms_etl.show_sync_link()").await.rows.is_empty());
    assert!(!stage.daemon.log().contains("sk-planted-secret"), "the log holds the credential");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_works_with_mysql_97() {
    follow_the_page(Flavour::Mysql97, Product::OpenSearch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_works_with_mysql_80() {
    follow_the_page(Flavour::Mysql80, Product::OpenSearch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_works_with_elasticsearch() {
    follow_the_page(Flavour::Mysql97, Product::Elasticsearch).await;
}

/// The same rows through Driftless' pipeline and through the node's own, with the same stand-in behind both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_equal_those_of_the_real_ml_commons_pipeline() {
    let stage = Stage::set(Flavour::Mysql97, Product::OpenSearch).await;
    let (mysql, db) = (&stage.mysql, &stage.db);
    let long = "long text, ".repeat(1_000);
    let texts: Vec<Option<String>> = (0..120)
        .map(|row| match row % 6 {
            0 => None,
            1 => Some(format!("数据库同步 {row} 検索 색인")),
            2 => Some(format!("{row} {long}")),
            3 => Some(format!("quotes \" ' \\ and <tags> & \t tabs {row}")),
            4 => Some(format!("emoji 🦀 {row} ü ß ñ")),
            _ => Some(format!("plain text number {row}")),
        })
        .collect();
    let mut conn = mysql.session().await;
    for (id, text) in texts.iter().enumerate() {
        use mysql_async::prelude::Queryable;
        conn.exec_drop(format!("INSERT INTO {db}.test_table VALUES (?, 0, ?)"), (id, text))
            .await
            .expect("inserts");
    }
    stage.daemon.sql(&sync_by_map(&stage.index, db)).await;
    stage.until_equal("120 rows are documents").await;

    let node = Door::Node(&stage.search);
    let model_id = node.deploy_model(&stage.model.address()).await;
    let pipeline = unique("node_pipeline");
    node.make_pipeline(&pipeline, &model_id).await;
    let theirs = stage.search.index("ml_commons", index_body(&pipeline)).await;
    for (id, text) in texts.iter().enumerate() {
        let body = json!({"my_text": text, "id": id});
        stage.search.ok("PUT", &format!("/{theirs}/_doc/{id}"), Some(body)).await;
    }
    let (ours, theirs) = (stage.search.docs(&stage.index).await, stage.search.docs(&theirs).await);
    assert_eq!(ours.len(), 120);
    for (id, doc) in &ours {
        assert_eq!(doc.source, theirs[id].source, "document {id}");
    }
}
