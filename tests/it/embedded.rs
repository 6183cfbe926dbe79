//! The embedded index behind the daemon: the whole tutorial with no search node, kill -9 under load, and an official client.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::model::{Model, vector};
use crate::support::mysql::Mysql;
use crate::support::search::Search;
use crate::support::servers::{self, Flavour};
use crate::support::stage::difference;
use crate::support::tutorial::{Door, index_body, sync_by_map};
use crate::support::{MINUTES_2, SECONDS_30, http_client, unique, until};

/// Nothing listens there: who asked a node would be seen.
const NOBODY: &str = "http://127.0.0.1:9";

async fn daemon(mysql: &Mysql) -> Daemon {
    let setup = Setup::new(mysql, NOBODY).set("sink.type", "embedded");
    setup.set("link.checkpoint_interval_ms", 200).start().await
}

/// Every document, by `_id`.
async fn documents(search: &Search, index: &str) -> BTreeMap<String, Value> {
    let count = search.count(index).await;
    let hits = search.search(index, json!({"size": count, "sort": ["_doc"]})).await;
    let entry =
        |hit: Value| (hit["_id"].as_str().expect("an id").to_owned(), hit["_source"].clone());
    hits.into_iter().map(entry).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_tutorial_works_with_no_search_node() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let model = Model::start().await;
    let daemon = daemon(&mysql).await;
    let search = Search::at(daemon.url());
    let door = Door::Driftless(&daemon);
    let model_id = door.deploy_model(&model.address()).await;
    let pipeline = unique("text_to_vec_pipeline");
    door.make_pipeline(&pipeline, &model_id).await;
    let db = mysql.database("embedded").await;
    mysql.exec(format!("CREATE TABLE {db}.test_table (id INT PRIMARY KEY, t1 INT, t2 TEXT)")).await;
    mysql.exec(format!("INSERT INTO {db}.test_table VALUES (1, 11, 'aaa'), (2, 22, 'bbb')")).await;

    // The page's own engine, which a node without its native code could not have.
    let mut body = index_body(&pipeline);
    body["mappings"]["properties"]["my_vector"]["method"]["engine"] = json!("faiss");
    let made = search.ok("PUT", "/test_index", Some(body)).await;
    assert_eq!(
        made,
        json!({"acknowledged": true, "shards_acknowledged": true, "index": "test_index"})
    );
    daemon.sql(&sync_by_map("test_index", &db)).await;
    let document =
        |id: i64, text: &str| json!({"my_text": text, "id": id, "my_vector": vector(text, 4)});
    until("both rows are documents", SECONDS_30, async || {
        let found = documents(&search, "test_index").await;
        let expected = [("1", document(1, "aaa")), ("2", document(2, "bbb"))];
        difference(&found, &expected.map(|(id, doc)| (id.to_owned(), doc)).into())
    })
    .await;
    mysql.exec(format!("UPDATE {db}.test_table SET t2 = '数据库 changed' WHERE id = 2")).await;
    mysql.exec(format!("INSERT INTO {db}.test_table VALUES (3, 33, 'ccc')")).await;
    mysql.exec(format!("DELETE FROM {db}.test_table WHERE id = 1")).await;
    until("the changes are there", SECONDS_30, async || {
        let found = documents(&search, "test_index").await;
        let expected = [("2", document(2, "数据库 changed")), ("3", document(3, "ccc"))];
        difference(&found, &expected.map(|(id, doc)| (id.to_owned(), doc)).into())
    })
    .await;

    let answer = search
        .ok("POST", "/test_index/_search", Some(json!({"query": {"match": {"my_text": "ccc"}}})))
        .await;
    assert_eq!(answer["hits"]["total"], json!({"value": 1, "relation": "eq"}));
    assert_eq!(answer["hits"]["hits"][0]["_source"], document(3, "ccc"));
    let knn = json!({"knn": {"my_vector": {"vector": vector("ccc", 4), "k": 1}}});
    assert_eq!(search.search("test_index", json!({"query": knn})).await[0]["_id"], "3");
    let hybrid = json!({"hybrid": {"queries": [{"match": {"my_text": "数据"}}, knn]}});
    assert_eq!(search.search("test_index", json!({"query": hybrid})).await.len(), 2);

    // A document that comes by the door runs through the index's pipeline too.
    search.ok("PUT", "/test_index/_doc/9", Some(json!({"my_text": "by hand", "id": 9}))).await;
    let by_hand = search.doc("test_index", "9").await.expect("is there");
    assert_eq!(
        by_hand.source,
        json!({"my_text": "by hand", "id": 9, "my_vector": vector("by hand", 4)})
    );

    // So does one that an update makes where there was none.
    let upsert = json!({"doc": {"my_text": "by update", "id": 10}, "doc_as_upsert": true});
    search.ok("POST", "/test_index/_update/10", Some(upsert)).await;
    let by_update = search.doc("test_index", "10").await.expect("is there");
    assert_eq!(by_update.source["my_vector"], json!(vector("by update", 4)));

    let refused = json!({"query": {"match_all": {}}, "aggs": {"a": {}}});
    let (status, answer) = search.request("POST", "/test_index/_search", Some(refused)).await;
    assert_eq!(status, 400);
    assert!(
        answer["error"]["reason"].as_str().is_some_and(|reason| reason.contains("[aggs]")),
        "{answer}"
    );
    let (status, _) = search.request("POST", "/nowhere/_search", None).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_lose_nothing_of_the_embedded_index() {
    use mysql_async::prelude::Queryable;
    let mysql = servers::mysql(Flavour::Mysql97);
    let mut daemon = daemon(&mysql).await;
    let search = Search::at(daemon.url());
    let db = mysql.database("embedded_kill").await;
    mysql.exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, a VARCHAR(200))")).await;
    let rows: Vec<String> = (0..3_000).map(|id| format!("({id}, 'before {id}')")).collect();
    mysql.exec(format!("INSERT INTO {db}.t VALUES {}", rows.join(","))).await;
    let body = json!({
        "settings": {"index.max_result_window": 1_000_000},
        "mappings": {"properties": {"id": {"type": "long"}, "a": {"type": "keyword"}}}
    });
    let index = search.index("embedded_kill", body).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (mysql, stop, table) = (mysql.clone(), stop.clone(), format!("{db}.t"));
        async move {
            let mut session = mysql.session().await;
            let mut n: u64 = 1;
            while !stop.load(Ordering::Relaxed) {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let id = (n >> 33) % 4_000;
                let sql = match (n >> 20) % 4 {
                    0 => format!("DELETE FROM {table} WHERE id = {id}"),
                    1 => format!(
                        "UPDATE {table} SET id = id + 10000, a = 'moved' WHERE id = {id} AND NOT EXISTS (SELECT 1 FROM (SELECT id FROM {table} WHERE id = {id} + 10000) x)"
                    ),
                    _ => format!("REPLACE INTO {table} VALUES ({id}, 'n{n}')"),
                };
                session.query_drop(sql).await.expect("the load's statement runs");
            }
        }
    });
    daemon
        .sql(&format!(
            "CALL dbms_etl.sync_by_map('search', '{index}.id({db}.t.id),{index}.a({db}.t.a)', '{index}.id={db}.t.id', '', '')"
        ))
        .await;
    let done = format!("driftless_sink_documents_total{{link=\"{index}\",outcome=\"done\"}}");
    for _ in 0..6 {
        // Each life writes something before it ends.
        until("some documents were written", SECONDS_30, async || {
            daemon.metric(&done).await.is_some_and(|count| count > 20.0)
        })
        .await;
        daemon.kill9();
        daemon.start_again().await;
    }
    stop.store(true, Ordering::Relaxed);
    load.await.expect("the load ends");
    until("the index equals the table", MINUTES_2, async || {
        let rows: Vec<(i64, String)> = mysql.query(format!("SELECT id, a FROM {db}.t")).await;
        let expected = rows.into_iter().map(|(id, a)| (id.to_string(), json!({"id": id, "a": a})));
        difference(&documents(&search, &index).await, &expected.collect())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_embedded_door_does_not_do_is_refused() {
    let daemon = daemon(&servers::mysql(Flavour::Mysql97)).await;
    let search = Search::at(daemon.url());
    search.ok("PUT", "/r", None).await;
    search.ok("PUT", "/p", Some(json!({"settings": {"index.default_pipeline": "nowhere"}}))).await;
    for (method, path, body, told) in [
        ("PUT", "/r/_doc/1?op_type=foo", json!({}), "opType"),
        ("PUT", "/r/_doc/1?require_alias=true", json!({}), "no aliases"),
        ("PUT", "/r/_doc/1?refresh=maybe", json!({}), "wait_for"),
        ("POST", "/r/_update/1?require_alias", json!({"doc": {}}), "no aliases"),
        ("POST", "/r/_update/1", json!({"doc": [1]}), "[doc]"),
        ("POST", "/_bulk?require_alias=true", json!({}), "no aliases"),
        ("POST", "/r/_count", json!([]), "not an object"),
        ("POST", "/r/_count", json!({"query": null}), "[query]"),
        ("POST", "/r/_search?timeout=soon", json!({}), "[timeout]"),
        ("POST", "/r/_search", json!({"query": {"ids": {"values": [null]}}}), "[_id]"),
        ("PUT", "/r/_mapping", json!({"properties": {"a": {"type": "nested"}}}), "[nested]"),
        // The client's fault, and not a failure of ours.
        ("PUT", "/p/_doc/1", json!({"a": 1}), "[nowhere]"),
        ("POST", "/p/_update/1", json!({"doc": {"a": 1}, "doc_as_upsert": true}), "[nowhere]"),
    ] {
        let (status, answer) = search.request(method, path, Some(body)).await;
        let reason = answer["error"]["reason"].as_str().unwrap_or_default();
        assert!(status == 400 && reason.contains(told), "{method} {path}: {status} {answer}");
    }
    assert_eq!(search.count("r").await + search.count("p").await, 0);
    let (status, _) = search.request("POST", "/nowhere/_search", Some(json!({}))).await;
    assert_eq!(status, 404);
    let none = search.ok("POST", "/nowhere/_search?ignore_unavailable=true", Some(json!({}))).await;
    assert_eq!(none["hits"]["total"]["value"], 0);
    let written = search.ok("PUT", "/r/_doc/1", Some(json!({"a": 1}))).await;
    assert!(written["_seq_no"].is_i64() && written["_primary_term"].is_u64(), "{written}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_a_mapping_grows_lose_nothing_that_was_acknowledged() {
    let mut daemon = daemon(&servers::mysql(Flavour::Mysql97)).await;
    let search = Search::at(daemon.url());
    search.ok("PUT", "/g", None).await;
    let acknowledged: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    for life in 0..5_u64 {
        // Each document brings a field, and so a generation.
        let writer = tokio::spawn({
            let (url, acknowledged) = (daemon.url().to_owned(), acknowledged.clone());
            async move {
                let http = http_client();
                for n in life * 1_000.. {
                    let body = json!({format!("f{n}"): n}).to_string();
                    let asked = http.put(format!("{url}/g/_doc/{n}")).body(body).send().await;
                    match asked {
                        Ok(answer) if answer.status() == 201 => {
                            acknowledged.lock().expect("a set").insert(n);
                        }
                        _ => return,
                    }
                }
            }
        });
        until("this life wrote something", SECONDS_30, async || {
            acknowledged.lock().expect("a set").range(life * 1_000 + 5..).next().is_some()
        })
        .await;
        daemon.kill9();
        writer.await.expect("the writer ends");
        daemon.start_again().await;
    }
    let acknowledged = acknowledged.lock().expect("a set").clone();
    for n in acknowledged {
        let query = json!({"query": {"term": {format!("f{n}"): n}}});
        let hits = search.search("g", query).await;
        assert_eq!((hits.len(), &hits[0]["_id"]), (1, &json!(n.to_string())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_cannot_be_opened_does_not_keep_the_daemon_from_starting() {
    let mut daemon = daemon(&servers::mysql(Flavour::Mysql97)).await;
    let search = Search::at(daemon.url());
    search.ok("PUT", "/whole", None).await;
    search.ok("PUT", "/broken", None).await;
    let listed = search.ok("GET", "/_cat/indices?format=json", None).await;
    let listed = listed.as_array().expect("rows");
    let uuid =
        listed.iter().find(|row| row["index"] == "broken").expect("is listed")["uuid"].clone();
    daemon.kill9();
    let dir = daemon.state_dir().join("index").join(uuid.as_str().expect("a text"));
    std::fs::remove_dir_all(dir.join("generation-0")).expect("is removed");
    daemon.start_again().await;
    search.ok("PUT", "/whole/_doc/1", Some(json!({"a": 1}))).await;
    let (status, answer) = search.request("POST", "/broken/_search", None).await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(search.ok("GET", "/_cluster/health", None).await["status"], "red");
    search.ok("DELETE", "/broken", None).await;
    search.ok("PUT", "/broken", None).await;
    assert_eq!(search.ok("GET", "/_cluster/health", None).await["status"], "green");
}

/// What the client is asked to do; it fails by itself.
const CLIENT: &str = r#"
import sys
from opensearchpy import OpenSearch, helpers
from opensearchpy.exceptions import ConflictError, NotFoundError, RequestError
client = OpenSearch(sys.argv[1])
assert client.ping() and client.info()["version"]["distribution"] == "opensearch"
client.indices.create(index="py", body={"mappings": {"properties": {
    "name": {"type": "text"}, "price": {"type": "double"}, "v": {"type": "knn_vector", "dimension": 2}}}})
assert client.indices.exists(index="py") and not client.indices.exists(index="nowhere")
done, errors = helpers.bulk(client, [
    {"_index": "py", "_id": str(n), "name": f"thing {n}", "price": n / 2, "v": [n, 0]} for n in range(500)], refresh=True)
assert (done, errors) == (500, []), (done, errors)
assert client.count(index="py")["count"] == 500
hits = client.search(index="py", body={"query": {"match": {"name": "42"}}})["hits"]
assert hits["total"]["value"] == 1 and hits["hits"][0]["_source"]["price"] == 21.0, hits
near = client.search(index="py", body={"size": 2, "query": {"knn": {"v": {"vector": [7.2, 0], "k": 2}}}, "_source": ["name"]})
assert [hit["_id"] for hit in near["hits"]["hits"]] == ["7", "8"], near
cheap = client.search(index="py", body={"query": {"bool": {"filter": [{"range": {"price": {"lt": 1}}}]}}, "sort": [{"price": "desc"}]})
assert [hit["_id"] for hit in cheap["hits"]["hits"]] == ["1", "0"], cheap
client.index(index="py", id="a", body={"name": "one"}, version=7, version_type="external_gte")
try:
    client.index(index="py", id="a", body={"name": "older"}, version=6, version_type="external_gte")
    raise SystemExit("an older version was taken")
except ConflictError:
    pass
client.update(index="py", id="a", body={"doc": {"price": 3}})
assert client.get(index="py", id="a")["_source"] == {"name": "one", "price": 3}
client.delete(index="py", id="a")
try:
    client.get(index="py", id="a")
    raise SystemExit("a deleted document was found")
except NotFoundError:
    pass
try:
    client.search(index="py", body={"query": {"fuzzy": {"name": "thin"}}})
    raise SystemExit("a query that is not there was answered")
except RequestError as error:
    assert error.status_code == 400 and "fuzzy" in str(error), error
assert [row["index"] for row in client.cat.indices(format="json")] == ["py"]
assert client.cluster.health()["status"] == "green"
assert client.indices.get_mapping(index="py")["py"]["mappings"]["properties"]["v"]["dimension"] == 2
client.indices.delete(index="py")
print("all done")
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_client_creates_bulks_and_searches() {
    let python = tokio::task::spawn_blocking(python).await.expect("the client is installed");
    let daemon = daemon(&servers::mysql(Flavour::Mysql97)).await;
    let url = daemon.url().to_owned();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python).args(["-c", CLIENT, &url]).output().expect("python runs")
    });
    let output = output.await.expect("python ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && output.stdout.starts_with(b"all done"), "{told}");
}

/// A Python with the client, made once in the target directory.
fn python() -> PathBuf {
    let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("opensearch-py-3.2.0");
    let python = venv.join("bin/python");
    let run = |command: &mut Command| {
        let output =
            command.output().expect("python3 is there; `tests/servers/install servers` gets it");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let has_client = || {
        let import = Command::new(&python).args(["-c", "import opensearchpy"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    if !has_client() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "opensearch-py==3.2.0",
        ]));
    }
    python
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_table_is_an_empty_index_and_fills_again() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let daemon = daemon(&mysql).await;
    let search = Search::at(daemon.url());
    let db = mysql.database("embedded").await;
    mysql.exec(format!("CREATE TABLE {db}.t (id INT PRIMARY KEY, a VARCHAR(20))")).await;
    mysql.exec(format!("INSERT INTO {db}.t WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 999) SELECT i, 'old' FROM n")).await;
    search
        .create_index("truncated", json!({"mappings": {"properties": {"a": {"type": "keyword"}}}}))
        .await;
    daemon.sql(&format!("CALL dbms_etl.sync_by_table('search', '{db}.t', 'truncated', '')")).await;
    until("the rows are documents", SECONDS_30, async || {
        documents(&search, "truncated").await.len() == 999
    })
    .await;
    mysql.exec(format!("TRUNCATE TABLE {db}.t")).await;
    mysql.exec(format!("INSERT INTO {db}.t VALUES (5, 'new')")).await;
    until("only the new row is a document", SECONDS_30, async || {
        documents(&search, "truncated").await
            == BTreeMap::from([("5".to_owned(), json!({"id": 5, "a": "new"}))])
    })
    .await;
}
