//! `REBUILD LINK`: an index is made anew under its name while rows change and somebody searches; killed at any moment it ends
//! right, and it can go back. Each ends with a program in another language that says table and index are the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::rules::{Reading, assert_only_right_holds, holds};
use crate::support::checker::Checker;
use crate::support::daemon::Setup;
use crate::support::proxy::{Fault, Gate, Proxy, Request};
use crate::support::search::{Product, Search};
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, index_body};
use crate::support::{MINUTES_2, SECONDS_30, unique, until};
use crate::verify::verify;

/// A stage whose index is an alias, and whose proxy watches every request.
async fn staged(product: Product, setup: impl FnOnce(Setup) -> Setup) -> Stage {
    let (search, mysql) = (servers::search(product), servers::mysql(Flavour::Mysql97));
    let proxy = Proxy::http_watching(search.address(), "").await;
    let db = mysql.database("rebuild").await;
    mysql
        .exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200)) CHARSET utf8mb4"))
        .await;
    let index = unique("goods");
    let mut body = index_body();
    body["aliases"] = json!({ index.clone(): {} });
    search.create_index(&format!("{index}_v1"), body).await;
    let setup = setup(Setup::new(&mysql, &proxy.url()).set("sink.type", product.kind()));
    let daemon = setup.start().await;
    Stage { mysql, search, proxy, daemon, db, index }
}

async fn insert(stage: &Stage, rows: u64) {
    stage
        .exec(&format!("INSERT INTO {{t}} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i, '0', '0' FROM n"))
        .await;
}

/// The link runs, and its table is in its index.
async fn linked(stage: &Stage, rows: u64) {
    insert(stage, rows).await;
    stage.link().await;
    stage.until_snapshot_is_done().await;
    stage.until_equal("the index is the table", SECONDS_30).await;
}

async fn say(stage: &Stage, rest: &str) -> String {
    let answer = stage.daemon.sql(&format!("REBUILD LINK `{}` {rest}", stage.index)).await;
    answer.cell(0, "Message")
}

async fn refused(stage: &Stage, statement: &str) -> String {
    let answer = stage.daemon.try_sql(statement).await;
    answer.expect_err(&format!("`{statement}` is refused"))
}

async fn shown(stage: &Stage, id: &str) -> Value {
    let (status, answer) = stage.daemon.request("GET", "/_links", None).await;
    assert_eq!(status, 200, "{answer}");
    let mut links = answer["links"].as_array().expect("links").iter();
    links.find(|link| link["id"] == id).cloned().unwrap_or(Value::Null)
}

async fn until_phase(stage: &Stage, phase: &str) -> Value {
    until(&format!("the rebuild is {phase}"), MINUTES_2, async || {
        let link = shown(stage, &stage.index).await;
        if link["rebuild"]["phase"] == phase { Ok(link) } else { Err(link.to_string()) }
    })
    .await
}

/// The index that the alias leads to.
async fn leads_to(stage: &Stage) -> String {
    let found = stage.search.ok("GET", &format!("/_alias/{}", stage.index), None).await;
    let found: Vec<&String> = found.as_object().expect("indexes").keys().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn at(stage: &Stage, version: u32) -> String {
    format!("{}_v{version}", stage.index)
}

/// Table and index are the same, says the other program, and so do we.
async fn is_true(stage: &Stage, link: &str, index: &str, fields: Value) {
    stage.settle().await;
    let checker = Checker {
        mysql: stage.mysql.address(),
        node: stage.search.url().to_owned(),
        table: format!("{}.t", stage.db),
        index: index.to_owned(),
        key: vec!["id"],
        fields,
        vectors: json!({}),
        scrolls: true,
    };
    let verdict = verify(&stage.daemon, &format!("VERIFY LINK `{link}`")).await;
    assert_eq!(verdict.count("differences"), 0, "{verdict:?}");
    let found = checker.run().await;
    assert!(found.is_clean(), "{found:?}");
}

fn plain() -> Value {
    json!({"id": "id", "a": "a", "b": "b"})
}

fn is_bulk_of(index: &str) -> impl Fn(&Request) -> bool + Send + Sync + 'static {
    let path = format!("/{index}.driftless/_bulk");
    move |request| request.path.starts_with(&path)
}

/// The alias is taken away from one index and given to another.
fn is_move(request: &Request) -> bool {
    let is_of_aliases = request.path.starts_with("/_aliases");
    is_of_aliases && String::from_utf8_lossy(&request.body).contains("remove")
}

/// Rules with field `c` in the place of `b`.
fn with_c(stage: &Stage) -> String {
    let (i, db) = (&stage.index, &stage.db);
    format!(
        "WITH MAPPING '{i}.id({db}.t.id), {i}.a({db}.t.a), {i}.c({db}.t.b)', \
         INDEX '{{\"mappings\": {{\"properties\": {{\"c\": {{\"type\": \"keyword\"}}, \"b\": null}}}}}}'"
    )
}

/// A document is lost from the new index while it is filled.
async fn rule_20(reading: Reading) {
    let setup = |setup: Setup| {
        let setup = setup.set("snapshot.chunk_rows", 50);
        if reading == Reading::Naive { setup.naive("rule20") } else { setup }
    };
    let stage = staged(Product::OpenSearch, setup).await;
    linked(&stage, 300).await;
    let new = at(&stage, 2);
    let is_new = is_bulk_of(&new);
    let seen = AtomicU64::new(0);
    let gate = Gate::new();
    stage.proxy.inject_when(
        move |request| is_new(request) && seen.fetch_add(1, Ordering::SeqCst) == 1,
        Fault::HoldRequest(gate.clone()),
    );
    say(&stage, "").await;
    gate.arrived().await;
    let lost = until("some of it is filled", SECONDS_30, async || {
        stage.search.docs(&new).await.into_keys().next()
    })
    .await;
    stage.search.ok("DELETE", &format!("/{new}/_doc/{lost}"), None).await;
    assert_eq!(leads_to(&stage).await, at(&stage, 1), "the name moves before the copy is done");
    gate.open();
    let link = until_phase(&stage, "kept").await;
    assert_eq!(leads_to(&stage).await, new);
    let held = holds(&stage, reading).await;
    if reading == Reading::Right {
        assert_eq!(link["rebuild"]["differences"], 1, "{link}");
        is_true(&stage, &stage.index, &stage.index, plain()).await;
    }
    assert_only_right_holds(reading, held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_20_a_name_moves_when_the_new_index_is_seen_to_be_right() {
    rule_20(Reading::Right).await;
    rule_20(Reading::Naive).await;
}

/// Changes rows as fast as it can, each in both columns at once and to a higher number than before.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(stage: &Stage, rows: u64) -> Self {
        const WRITERS: u64 = 2;
        let stop = Arc::new(AtomicBool::new(false));
        let write = |writer: u64| {
            let (mysql, stop) = (stage.mysql.clone(), stop.clone());
            let table = format!("{}.t", stage.db);
            tokio::spawn(async move {
                let mut session = mysql.session().await;
                let mut number = 1;
                while !stop.load(Ordering::Relaxed) {
                    // Each writer has rows of its own, so that a row's numbers grow.
                    let id = (number * 7) % (rows / WRITERS) * WRITERS + writer + 1;
                    let extra = 1_000_000 + writer * 1_000_000 + number % 50;
                    for sql in [
                        format!(
                            "UPDATE {table} SET a = '{number}', b = '{number}' WHERE id = {id}"
                        ),
                        match number % 2 {
                            0 => format!("REPLACE INTO {table} VALUES ({extra}, '1', '1')"),
                            _ => format!("DELETE FROM {table} WHERE id = {extra}"),
                        },
                    ] {
                        session.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
                    }
                    number += 1;
                }
            })
        };
        let tasks = (0..WRITERS).map(write).collect();
        Self { stop, tasks }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("the load ends");
        }
    }
}

/// What somebody sees who searches by the alias all the while.
struct Searcher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    searches: u64,
    old: u64,
    new: u64,
}

impl Searcher {
    fn start(search: &Search, alias: &str, rows: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (search, alias, stopped) = (search.clone(), alias.to_owned(), stop.clone());
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut newest: HashMap<u64, u64> = HashMap::new();
            let body = json!({"size": 5_000, "query": {"range": {"id": {"lte": rows}}}});
            while !stopped.load(Ordering::Relaxed) {
                let hits = search.search(&alias, body.clone()).await;
                assert_eq!(hits.len() as u64, rows, "a document is missing, or there twice");
                let mut shapes = [0, 0];
                for hit in &hits {
                    let doc = hit["_source"].as_object().expect("a document");
                    let fields: Vec<&str> = doc.keys().map(String::as_str).collect();
                    let is_new = doc.contains_key("c");
                    let expected = if is_new { ["id", "a", "c"] } else { ["id", "a", "b"] };
                    assert_eq!(fields, expected, "half a document: {doc:?}");
                    let other = &doc[expected[2]];
                    assert_eq!(&doc["a"], other, "of two moments: {doc:?}");
                    shapes[usize::from(is_new)] += 1;
                    let number: u64 =
                        other.as_str().and_then(|n| n.parse().ok()).expect("a number");
                    let id = doc["id"].as_u64().expect("an id");
                    let before = newest.insert(id, number).unwrap_or(0);
                    assert!(before <= number, "document {id} went back from {before} to {number}");
                }
                assert!(shapes.contains(&0), "documents of both indexes: {shapes:?}");
                seen.searches += 1;
                seen.old += u64::from(shapes[0] > 0);
                seen.new += u64::from(shapes[1] > 0);
            }
            seen
        });
        Self { stop, task }
    }

    async fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the searcher has seen nothing wrong")
    }
}

async fn a_searcher_sees_nothing_of_it(product: Product) {
    const ROWS: u64 = 400;
    let stage = staged(product, |setup| setup.set("snapshot.chunk_rows", 40)).await;
    linked(&stage, ROWS).await;
    let load = Load::start(&stage, ROWS);
    let searcher = Searcher::start(&stage.search, &stage.index, ROWS);
    let again = async |phase: &str, version| {
        let link = until_phase(&stage, phase).await;
        assert_eq!(leads_to(&stage).await, at(&stage, version), "{link}");
    };
    say(&stage, &with_c(&stage)).await;
    again("kept", 2).await;
    // The link streams on into the new index, and its shadow into the old one.
    stage.exec("INSERT INTO {t} VALUES (500000, 'x', 'x')").await;
    for version in [2, 1] {
        until("both have the new row", SECONDS_30, async || {
            stage.search.doc(&at(&stage, version), "500000").await.is_some()
        })
        .await;
    }
    load.finish().await;
    let seen = searcher.finish().await;
    assert!(seen.old > 0 && seen.new > 0, "{seen:?}");
    let new = json!({"id": "id", "a": "a", "c": "b"});
    settle_new(&stage).await;
    let verdict = verify(&stage.daemon, &format!("VERIFY LINK `{}`", stage.index)).await;
    assert_eq!(verdict.count("differences"), 0, "{verdict:?}");
    check(&stage, &stage.index, new).await;
    check(&stage, &at(&stage, 1), plain()).await;
}

/// Everything that was committed is in both indexes.
async fn settle_new(stage: &Stage) {
    stage.exec("REPLACE INTO {t} VALUES (999999999, UUID(), 'x')").await;
    let row: String =
        stage.mysql.value(format!("SELECT a FROM {}.t WHERE id = 999999999", stage.db)).await;
    for version in [1, 2] {
        until("the last row is a document", SECONDS_30, async || {
            let doc = stage.search.doc(&at(stage, version), "999999999").await;
            doc.is_some_and(|doc| doc.source["a"] == row)
        })
        .await;
    }
    let shadow = shown(stage, &stage.index).await["rebuild"]["link"].clone();
    for link in [stage.index.as_str(), shadow.as_str().expect("a link")] {
        let lag = format!("driftless_link_lag_ms{{link=\"{link}\"}}");
        until("nothing is unacknowledged", SECONDS_30, async || {
            stage.daemon.metric(&lag).await == Some(0.0)
        })
        .await;
    }
}

async fn check(stage: &Stage, index: &str, fields: Value) {
    let checker = Checker {
        mysql: stage.mysql.address(),
        node: stage.search.url().to_owned(),
        table: format!("{}.t", stage.db),
        index: index.to_owned(),
        key: vec!["id"],
        fields,
        vectors: json!({}),
        scrolls: true,
    };
    let found = checker.run().await;
    assert!(found.is_clean(), "{index}: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_searcher_misses_no_document_and_sees_no_half_one_while_an_index_is_rebuilt() {
    a_searcher_sees_nothing_of_it(Product::OpenSearch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_searcher_of_elasticsearch_sees_nothing_of_a_rebuild_either() {
    a_searcher_sees_nothing_of_it(Product::Elasticsearch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_is_killed_while_it_copies_goes_on() {
    let mut stage = staged(Product::OpenSearch, |setup| setup.set("snapshot.chunk_rows", 30)).await;
    linked(&stage, 300).await;
    let new = at(&stage, 2);
    let is_new = is_bulk_of(&new);
    let seen = AtomicU64::new(0);
    let gate = Gate::new();
    stage.proxy.inject_when(
        move |request| is_new(request) && seen.fetch_add(1, Ordering::SeqCst) == 5,
        Fault::HoldRequest(gate.clone()),
    );
    say(&stage, "").await;
    gate.arrived().await;
    stage.daemon.kill9();
    for sql in [
        "UPDATE {t} SET a = 'meanwhile' WHERE id % 7 = 0",
        "DELETE FROM {t} WHERE id % 11 = 0",
        "INSERT INTO {t} VALUES (1000, 'meanwhile', '')",
    ] {
        stage.exec(sql).await;
    }
    stage.daemon.start_again().await;
    gate.open();
    until_phase(&stage, "kept").await;
    assert_eq!(leads_to(&stage).await, new);
    is_true(&stage, &stage.index, &stage.index, plain()).await;
    is_true(&stage, &format!("{}~1", stage.index), &at(&stage, 1), plain()).await;
}

/// Where the daemon is killed around the move.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    /// The request has not come to the cluster, and comes late.
    Before,
    /// The alias has moved, and the daemon has not heard of it.
    Behind,
}

async fn killed_around_the_move(kill: Kill) {
    let mut stage = staged(Product::OpenSearch, |setup| setup).await;
    linked(&stage, 200).await;
    let load = Load::start(&stage, 200);
    let gate = Gate::new();
    let fault = match kill {
        Kill::Before => Fault::HoldRequest(gate.clone()),
        Kill::Behind => Fault::HoldAnswer(gate.clone()),
    };
    stage.proxy.inject_when(is_move, fault);
    say(&stage, "WITH KEEP OLD 1 HOUR").await;
    gate.arrived().await;
    // Nothing writes to either now, and whatever the old index has is in the new one.
    let version = if kill == Kill::Before { 1 } else { 2 };
    assert_eq!(leads_to(&stage).await, at(&stage, version));
    let (old, new) =
        (stage.search.docs(&at(&stage, 1)).await, stage.search.docs(&at(&stage, 2)).await);
    for id in 1..=200 {
        let id = id.to_string();
        assert!(old[&id].version <= new[&id].version, "{id}: {:?}, {:?}", old[&id], new[&id]);
    }
    stage.daemon.kill9();
    load.finish().await;
    stage.exec("UPDATE {t} SET b = 'meanwhile' WHERE id % 5 = 0").await;
    stage.daemon.start_again().await;
    let link = until_phase(&stage, "kept").await;
    assert_eq!(link["rebuild"]["link"], format!("{}~1", stage.index), "{link}");
    // The first request comes to the cluster when the move is done.
    gate.open();
    assert_eq!(leads_to(&stage).await, at(&stage, 2));
    is_true(&stage, &stage.index, &stage.index, plain()).await;
    is_true(&stage, &format!("{}~1", stage.index), &at(&stage, 1), plain()).await;
    assert_eq!(shown(&stage, &format!("{}~2", stage.index)).await, Value::Null);
    // Behind another kill all is as it was.
    stage.daemon.kill9();
    stage.exec("DELETE FROM {t} WHERE id % 5 = 0").await;
    stage.daemon.start_again().await;
    stage.until_equal("the index is the table", SECONDS_30).await;
    assert_eq!(shown(&stage, &stage.index).await["rebuild"]["phase"], "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_is_killed_around_the_move_ends_right() {
    killed_around_the_move(Kill::Before).await;
    killed_around_the_move(Kill::Behind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_the_cluster_refuses_or_does_not_answer_leaves_all_as_it_was() {
    let stage = staged(Product::OpenSearch, |setup| setup).await;
    linked(&stage, 50).await;
    stage.proxy.inject_when(is_move, Fault::status(403));
    stage.proxy.inject_when(is_move, Fault::LoseRequest);
    stage.proxy.inject_when(is_move, Fault::LoseAnswer);
    say(&stage, "").await;
    until_phase(&stage, "kept").await;
    assert_eq!(leads_to(&stage).await, at(&stage, 2));
    assert!(stage.daemon.log().contains("403"), "it was refused once");
    is_true(&stage, &stage.index, &stage.index, plain()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_can_go_back_and_forth_while_the_old_index_is_kept() {
    let mut stage = staged(Product::OpenSearch, |setup| setup).await;
    linked(&stage, 100).await;
    // What else leads there goes along, as it is.
    let other = unique("shown");
    let says = json!({"filter": {"term": {"a": "0"}}, "search_routing": "1", "index_routing": "1"});
    let mut add = says.clone();
    add["index"] = json!(at(&stage, 1));
    add["alias"] = json!(other);
    stage.search.ok("POST", "/_aliases", Some(json!({"actions": [{"add": add}]}))).await;
    say(&stage, "WITH KEEP OLD 1 HOUR").await;
    let link = until_phase(&stage, "kept").await;
    assert!(link["rebuild"]["kept_until"].is_string(), "{link}");
    let (_, message) = stage.status().await;
    let others = message["others"].as_str().unwrap_or_default();
    assert!(others.contains("is kept by the link") && others.contains("ROLLBACK"), "{others}");
    let found = stage.search.ok("GET", &format!("/_alias/{other}"), None).await;
    assert_eq!(found, json!({ at(&stage, 2): {"aliases": { other: says }} }));
    stage.exec("UPDATE {t} SET a = 'behind' WHERE id < 50").await;
    for (version, shadow) in [(1, "~2"), (2, "~1"), (1, "~2")] {
        say(&stage, "ROLLBACK").await;
        assert_eq!(leads_to(&stage).await, at(&stage, version));
        let link = shown(&stage, &stage.index).await;
        assert_eq!(link["rebuild"]["link"], format!("{}{shadow}", stage.index), "{link}");
        stage.exec(&format!("UPDATE {{t}} SET b = 'round {version}' WHERE id < 10")).await;
        is_true(&stage, &stage.index, &stage.index, plain()).await;
    }
    stage.daemon.stop().await;
    stage.daemon.start_again().await;
    let shadow = format!("{}~2", stage.index);
    is_true(&stage, &shadow, &at(&stage, 2), plain()).await;
    let why = refused(&stage, &format!("DROP LINK `{}`", stage.index)).await;
    assert!(why.contains("is still kept"), "{why}");
    stage.daemon.sql(&format!("DROP LINK `{shadow}` WITH INDEX")).await;
    assert_eq!(stage.search.request("GET", &format!("/{}", at(&stage, 2)), None).await.0, 404);
    assert_eq!(shown(&stage, &stage.index).await["rebuild"], Value::Null);
    // The next one takes the next numbers that are free.
    say(&stage, "WITH KEEP OLD 1 SECOND").await;
    until("the old index is gone, and its link", MINUTES_2, async || {
        let gone = stage.search.request("GET", &format!("/{}", at(&stage, 1)), None).await.0 == 404;
        gone && shown(&stage, &stage.index).await["rebuild"].is_null()
    })
    .await;
    assert_eq!(leads_to(&stage).await, at(&stage, 2));
    assert_eq!(shown(&stage, &format!("{}~1", stage.index)).await, Value::Null);
    is_true(&stage, &stage.index, &stage.index, plain()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_the_configuration_stays_the_same_link_when_its_index_is_rebuilt() {
    let (search, mysql) = (servers::opensearch(), servers::mysql(Flavour::Mysql97));
    let proxy = Proxy::http_watching(search.address(), "").await;
    let db = mysql.database("rebuild").await;
    mysql.exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200)) CHARSET utf8mb4")).await;
    let index = search.index("goods", index_body()).await;
    let mapping = format!("{index}.id({db}.t.id), {index}.a({db}.t.a), {index}.b({db}.t.b)");
    let daemon = Setup::new(&mysql, &proxy.url())
        .link(&index, &mapping, &format!("{index}.id={db}.t.id"))
        .start()
        .await;
    let mut stage = Stage { mysql, search, proxy, daemon, db, index };
    insert(&stage, 60).await;
    until("the link is made, and runs", SECONDS_30, async || {
        shown(&stage, &stage.index).await["state"] == "running"
    })
    .await;
    // It is an index, whose name is free only when it goes.
    for keep in ["", "WITH KEEP OLD 1 DAY"] {
        let statement = format!("REBUILD LINK `{}` {keep}", stage.index);
        let why = refused(&stage, &statement).await;
        assert!(why.contains("KEEP OLD 0") && why.contains("no alias"), "{why}");
    }
    say(&stage, &format!("{}, KEEP OLD 0", with_c(&stage))).await;
    until("the name is an alias", MINUTES_2, async || {
        let (status, found) =
            stage.search.request("GET", &format!("/_alias/{}", stage.index), None).await;
        let link = shown(&stage, &stage.index).await;
        let is_moved = status == 200 && link["rebuild"].is_null() && link["state"] == "running";
        if is_moved { Ok(()) } else { Err(format!("{found} {link}")) }
    })
    .await;
    let new = at(&stage, 2);
    assert_eq!(leads_to(&stage).await, new);
    stage.daemon.stop().await;
    stage.exec("UPDATE {t} SET b = 'behind the restart' WHERE id < 30").await;
    stage.daemon.start_again().await;
    let (_, answer) = stage.daemon.request("GET", "/_links", None).await;
    assert_eq!(answer["links"].as_array().map(Vec::len), Some(1), "{answer}");
    until("the link has its rules still", SECONDS_30, async || {
        let doc = stage.search.doc(&stage.index, "7").await.expect("is there").source;
        doc == json!({"id": 7, "a": "0", "c": "behind the restart"})
    })
    .await;
    check(&stage, &stage.index, json!({"id": "id", "a": "a", "c": "b"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_model_takes_the_place_of_one() {
    let stage = staged(Product::OpenSearch, |setup| setup).await;
    let pipelines = [unique("small"), unique("large")];
    for (pipeline, model) in pipelines.iter().zip(["hashing-16", "hashing-32"]) {
        let body = json!({"processors": [{"text_embedding":
            {"model_id": model, "field_map": {"a": "vector"}}}]});
        let path = format!("/_ingest/pipeline/{pipeline}");
        assert_eq!(stage.daemon.request("PUT", &path, Some(body)).await.0, 200);
    }
    let old = at(&stage, 1);
    let mapping = json!({"properties": {"vector": {"type": "knn_vector", "dimension": 16}}});
    stage.search.ok("PUT", &format!("/{old}/_mapping"), Some(mapping)).await;
    let settings = json!({"index.default_pipeline": pipelines[0]});
    stage.search.ok("PUT", &format!("/{old}/_settings"), Some(settings)).await;
    insert(&stage, 80).await;
    stage.exec("UPDATE {t} SET a = CONCAT('kind ', id % 9)").await;
    stage.link().await;
    stage.until_snapshot_is_done().await;
    let dimension = async |index: &str| {
        let doc = stage.search.doc(index, "5").await.expect("is there");
        doc.source["vector"].as_array().map(Vec::len)
    };
    assert_eq!(dimension(&stage.index).await, Some(16));
    // Its vectors do not fit into the present mapping.
    let too_large = format!("REBUILD LINK `{}` WITH PIPELINE '{}'", stage.index, pipelines[1]);
    stage.daemon.sql(&too_large).await;
    let failed = until("the shadow says why it fails", SECONDS_30, async || {
        let waits_for = shown(&stage, &stage.index).await["rebuild"]["waits_for"].clone();
        waits_for.as_str().filter(|text| text.contains("dimension")).map(str::to_owned)
    })
    .await;
    assert!(failed.contains("has failed"), "{failed}");
    stage.exec("UPDATE {t} SET b = 'goes on' WHERE id = 5").await;
    until("the link goes on", SECONDS_30, async || {
        stage.search.doc(&old, "5").await.is_some_and(|doc| doc.source["b"] == "goes on")
    })
    .await;
    say(&stage, "CANCEL").await;
    assert_eq!(stage.search.request("GET", &format!("/{}", at(&stage, 2)), None).await.0, 404);
    say(
        &stage,
        &format!(
            "WITH PIPELINE '{}', INDEX '{{\"mappings\": {{\"properties\": {{\"vector\": {{\"dimension\": 32}}}}}}}}'",
            pipelines[1]
        ),
    )
    .await;
    until_phase(&stage, "kept").await;
    assert_eq!(dimension(&stage.index).await, Some(32));
    assert_eq!(dimension(&old).await, Some(16));
    let link = shown(&stage, &stage.index).await;
    assert_eq!(link["pipeline"], json!(pipelines[1]), "{link}");
    let verdict = verify(&stage.daemon, &format!("VERIFY LINK `{}`", stage.index)).await;
    assert_eq!(verdict.count("differences"), 0, "{verdict:?}");
    let checker = Checker {
        mysql: stage.mysql.address(),
        node: stage.search.url().to_owned(),
        table: format!("{}.t", stage.db),
        index: stage.index.clone(),
        key: vec!["id"],
        fields: plain(),
        vectors: json!({"vector": "a"}),
        scrolls: true,
    };
    let found = checker.run().await;
    assert!(found.is_clean(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_whose_mapping_made_it_fail_is_well_behind_a_rebuild() {
    let stage = staged(Product::OpenSearch, |setup| setup.set("link.error_limit.records", 0)).await;
    linked(&stage, 30).await;
    let strict =
        json!({"dynamic": "strict", "properties": {"b": {"type": "keyword", "ignore_above": 9}}});
    stage.search.ok("PUT", &format!("/{}/_mapping", at(&stage, 1)), Some(strict)).await;
    let kept = stage.daemon.sql(&format!("DROP LINK `{}`", stage.index)).await;
    assert_eq!(kept.cell(0, "Status"), "dropped");
    let with_c = format!("{0}.c({1}.t.b),{0}.id(", stage.index, stage.db);
    let statement = stage.statement().replacen(&format!("{}.id(", stage.index), &with_c, 1);
    stage.daemon.sql(&statement).await;
    stage.until_state("failed").await;
    say(&stage, "WITH INDEX '{\"mappings\": {\"properties\": {\"c\": {\"type\": \"keyword\"}}}}'")
        .await;
    until_phase(&stage, "kept").await;
    stage.until_state("running").await;
    stage.exec("UPDATE {t} SET b = 'well' WHERE id = 3").await;
    until("the link streams", SECONDS_30, async || {
        stage.search.doc(&stage.index, "3").await.is_some_and(|doc| doc.source["c"] == "well")
    })
    .await;
    assert_eq!(shown(&stage, &format!("{}~1", stage.index)).await["state"], "failed");
    check(&stage, &stage.index, json!({"id": "id", "a": "a", "b": "b", "c": "b"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_rebuilt_is_refused_and_changes_nothing() {
    let stage = staged(Product::OpenSearch, |setup| setup).await;
    linked(&stage, 20).await;
    let (link, db) = (&stage.index, &stage.db);
    for (rest, expected) in [
        ("WITH PIPELINE 'nowhere'", "registered neither"),
        ("WITH INDEX '{\"mappings\": {\"properties\": {\"a\": {\"type\": \"wrong\"}}}}'", "wrong"),
        ("WITH MAPPING 'elsewhere.a(x.t.a)'", "these rules are for elsewhere"),
        (&format!("WITH MAPPING '{link}.a(x.t.a)'"), "this rule is of x.t"),
        (&format!("WITH MAPPING '{link}.id({db}.t.a)'"), "is the key of column"),
        (&format!("WITH MAPPING '{link}.id({db}.t.id), {link}.z({db}.t.z)'"), "unknown column"),
        ("CANCEL", "there is no rebuild"),
        ("ROLLBACK", "there is no rebuild"),
    ] {
        let why = refused(&stage, &format!("REBUILD LINK `{link}` {rest}")).await;
        assert!(why.contains(expected) && why.contains("\"line\""), "{rest}: {why}");
    }
    let why = refused(&stage, "REBUILD LINK nobody").await;
    assert!(why.contains("unknown link"), "{why}");
    assert_eq!(stage.search.request("GET", &format!("/{}", at(&stage, 2)), None).await.0, 404);
    let named = stage.statement().replace(&stage.index, &format!("{link}~2"));
    let why = refused(&stage, &named).await;
    assert!(why.contains("the id of a shadow"), "{why}");
    // While one goes on.
    let gate = Gate::new();
    stage.proxy.inject_when(is_bulk_of(&at(&stage, 2)), Fault::HoldRequest(gate.clone()));
    say(&stage, "").await;
    gate.arrived().await;
    for (statement, expected) in [
        (format!("REBUILD LINK `{link}`"), "being rebuilt already"),
        (format!("REBUILD LINK `{link}~2`"), "is the shadow of"),
        (format!("REBUILD LINK `{link}` ROLLBACK"), "CANCEL"),
        (format!("DROP LINK `{link}`"), "CANCEL"),
        (format!("DROP LINK `{link}~2` WITH INDEX"), "CANCEL"),
    ] {
        let why = refused(&stage, &statement).await;
        assert!(why.contains(expected), "{statement}: {why}");
    }
    assert_eq!(shown(&stage, &format!("{link}~2")).await["shadow_of"], json!(link));
    say(&stage, "CANCEL").await;
    gate.open();
    assert_eq!(stage.search.request("GET", &format!("/{}", at(&stage, 2)), None).await.0, 404);
    assert_eq!(shown(&stage, &format!("{link}~2")).await, Value::Null);
    is_true(&stage, link, link, plain()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_copied_to_another_index() {
    let stage = staged(Product::OpenSearch, |setup| setup).await;
    linked(&stage, 40).await;
    let other = stage.search.index("other", index_body()).await;
    let link = &stage.index;
    for (statement, expected) in [
        (format!("COPY LINK nobody TO INDEX {other}"), "unknown link"),
        (format!("COPY LINK `{link}` TO INDEX `{link}_v1`"), "overwrite each other"),
        (format!("COPY LINK `{link}` TO INDEX nothing"), "does not exist"),
        (format!("COPY LINK `{link}` TO INDEX {other} AS `x~1`"), "the id of a shadow"),
        (format!("COPY LINK `{link}` TO INDEX {other} AS `{link}`"), "exists already"),
    ] {
        let why = refused(&stage, &statement).await;
        assert!(why.contains(expected), "{statement}: {why}");
    }
    let copy = unique("copy");
    stage.daemon.sql(&format!("COPY LINK `{link}` TO INDEX {other} AS {copy}")).await;
    until("it runs", SECONDS_30, async || shown(&stage, &copy).await["state"] == "running").await;
    stage.exec("UPDATE {t} SET a = 'both' WHERE id < 20").await;
    let stage = Stage { index: other.clone(), ..stage };
    stage.until_equal("the other index is the table too", SECONDS_30).await;
    check(&stage, &other, plain()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_index_is_not_rebuilt_but_its_link_is_copied() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let setup = Setup::new(&mysql, "http://127.0.0.1:9").set("sink.type", "embedded");
    let daemon = setup.start().await;
    let search = Search::at(daemon.url());
    let db = mysql.database("rebuild").await;
    mysql
        .exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200)) CHARSET utf8mb4"))
        .await;
    let index = search.index("goods", index_body()).await;
    let other = search.index("other", index_body()).await;
    let proxy = Proxy::http(search.address()).await;
    let stage = Stage { mysql, search, proxy, daemon, db, index };
    insert(&stage, 5).await;
    stage.link().await;
    let why = refused(&stage, &format!("REBUILD LINK `{}`", stage.index)).await;
    assert!(why.contains("the embedded sink has none") && why.contains("COPY LINK"), "{why}");
    stage.daemon.sql(&format!("COPY LINK `{}` TO INDEX {other}", stage.index)).await;
    until("the copy has the rows", SECONDS_30, async || {
        stage.search.doc(&other, "5").await.is_some_and(|doc| doc.source["a"] == "0")
    })
    .await;
}
