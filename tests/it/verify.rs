//! `VERIFY LINK`: what is planted is found, exactly that, while rows change; a repair mends it. A program in another language
//! says the same of table and index each time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::no_gtids::OFF;
use crate::support::checker::{Checker, Found};
use crate::support::daemon::{Answer, Daemon, Setup};
use crate::support::mysql::Mysql;
use crate::support::search::{Product, Search};
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_10, SECONDS_30, unique, until};

/// What a verification answered.
#[derive(Debug)]
pub struct Verdict {
    pub summary: Value,
    /// Kind and id.
    pub differences: BTreeSet<(String, String)>,
    pub answer: Answer,
}

impl Verdict {
    fn of(answer: Answer) -> Self {
        let summary = serde_json::from_str(&answer.cell(0, "Message")).expect("JSON");
        let differences =
            (1..answer.rows.len()).map(|row| (answer.cell(row, "Kind"), answer.cell(row, "Id")));
        Self { summary, differences: differences.collect(), answer }
    }

    pub fn count(&self, of: &str) -> u64 {
        self.summary[of].as_u64().unwrap_or_else(|| panic!("no {of} in {}", self.summary))
    }

    fn named(&self, kind: &str) -> Vec<String> {
        let of_kind = |(found, id): &(String, String)| (found == kind).then(|| id.clone());
        self.differences.iter().filter_map(of_kind).collect()
    }

    /// The independent check sees the same.
    fn agrees_with(&self, found: &Found) {
        assert_eq!(self.named("missing"), found.missing, "{self:?}");
        let mut extra = self.named("extra");
        extra.extend(self.named("foreign"));
        extra.sort();
        assert_eq!(extra, found.extra, "{self:?}");
        assert_eq!(self.named("different"), found.different, "{self:?}");
        assert_eq!(self.named("stale_vector"), found.stale, "{self:?}");
    }

    fn is_clean(&self) {
        assert_eq!(self.count("differences"), 0, "{self:?}");
        assert_eq!(self.count("unjudged"), 0, "{self:?}");
    }
}

/// Runs a statement for as long as it takes.
pub async fn verify(daemon: &Daemon, statement: &str) -> Verdict {
    Verdict::of(try_verify(daemon, statement).await.unwrap_or_else(|e| panic!("{statement}: {e}")))
}

async fn try_verify(daemon: &Daemon, statement: &str) -> Result<Answer, String> {
    // The clients of the other tests wait a minute.
    let client = reqwest::Client::builder().timeout(MINUTES_2 * 10).build().expect("a client");
    let body = json!({ "query": statement }).to_string();
    let request = client
        .post(format!("{}/_sql", daemon.url()))
        .header("content-type", "application/json")
        .body(body);
    let response = request.send().await.map_err(|error| error.to_string())?;
    let (is_ok, text) = (response.status().is_success(), response.text().await);
    let text = text.map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if !is_ok {
        return Err(answer.to_string());
    }
    let columns = serde_json::from_value(answer["columns"].clone()).expect("columns");
    let rows = serde_json::from_value(answer["rows"].clone()).expect("rows");
    Ok(Answer { columns, rows })
}

/// Rows with texts and their vectors, of which those from `PLANTED` on are left alone by the load.
struct Shop {
    mysql: Mysql,
    search: Search,
    daemon: Daemon,
    table: String,
    index: String,
    rows: u64,
    scrolls: bool,
}

/// Texts come again and again, so that their vectors can be told from others.
const TEXTS: u64 = 40;

impl Shop {
    async fn open(mysql: Mysql, search: Option<Search>, rows: u64) -> Self {
        let setup = match &search {
            Some(search) => Setup::new(&mysql, &format!("http://{}", search.address()))
                .set("sink.type", search.product().kind()),
            None => Setup::new(&mysql, "http://127.0.0.1:9").set("sink.type", "embedded"),
        };
        let daemon = setup.start().await;
        let scrolls = search.is_some();
        let search = search.unwrap_or_else(|| Search::at(daemon.url()));
        let pipeline = unique("shop");
        let body = json!({"processors": [{"text_embedding":
            {"model_id": "hashing-16", "field_map": {"text": "vector"}}}]});
        let (status, answer) =
            daemon.request("PUT", &format!("/_ingest/pipeline/{pipeline}"), Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        let mut vector = json!({"type": "knn_vector", "dimension": 16});
        if !scrolls {
            vector["method"] = json!({"name": "hnsw", "engine": "faiss"});
        }
        let mut body = json!({"settings": {"index": {"default_pipeline": pipeline}},
            "mappings": {"properties": {"id": {"type": "long"}, "text": {"type": "keyword"},
                "price": {"type": "long"}, "vector": vector}}});
        if !scrolls {
            body["settings"]["index"]["knn"] = json!(true);
        }
        let index = search.index("shop", body).await;
        let db = mysql.database("shop").await;
        let table = format!("{db}.product");
        mysql
            .exec(format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY, text VARCHAR(200), price BIGINT) CHARSET utf8mb4"))
            .await;
        let mut from = 0;
        while from < rows {
            // MariaDB recurs a thousand times and takes no hint.
            let count = (rows - from).min(if rows < 10_000 { 900 } else { 50_000 });
            mysql
                .exec(format!(
                    "INSERT INTO {table} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
                     SELECT /*+ SET_VAR(cte_max_recursion_depth = 100000) */ {from} + i, \
                     IF(({from} + i) % {TEXTS} = 0, NULL, CONCAT('product of kind ', ({from} + i) % {TEXTS})), i FROM n"
                ))
                .await;
            from += count;
        }
        Self { mysql, search, daemon, table, index, rows, scrolls }
    }

    async fn link(&self) {
        let (table, index) = (&self.table, &self.index);
        self.daemon
            .sql(&format!("CALL dbms_etl.sync_by_table('search', '{table}', '{index}', '')"))
            .await;
        self.until_copied().await;
    }

    async fn until_copied(&self) {
        let index = &self.index;
        let message = async || {
            let sql = format!("CALL dbms_etl.show_sync_link_by_id('{index}')");
            let message = self.daemon.sql(&sql).await.cell(0, "Message");
            let message: Value = serde_json::from_str(&message).expect("JSON");
            message
        };
        until("the snapshot is done", MINUTES_2 * 5, async || {
            let message = message().await;
            if message["jobStatus"] == "running" { Ok(()) } else { Err(message.to_string()) }
        })
        .await;
    }

    /// Waits until the load's last change is a document.
    async fn settle(&self) {
        self.mysql.exec(format!("UPDATE {} SET price = price + 1 WHERE id = 1", self.table)).await;
        let price: i64 =
            self.mysql.value(format!("SELECT price FROM {} WHERE id = 1", self.table)).await;
        until("the last change is a document", MINUTES_2, async || {
            let doc = self.search.doc(&self.index, "1").await;
            doc.is_some_and(|doc| doc.source["price"] == price)
        })
        .await;
    }

    async fn check(&self) -> Found {
        let checker = Checker {
            mysql: self.mysql.address(),
            node: self.search.url().to_owned(),
            table: self.table.clone(),
            index: self.index.clone(),
            key: vec!["id"],
            fields: json!({"id": "id", "text": "text", "price": "price"}),
            vectors: json!({"vector": "text"}),
            scrolls: self.scrolls,
        };
        checker.run().await
    }

    async fn verify(&self, clauses: &str) -> Verdict {
        verify(&self.daemon, &format!("VERIFY LINK {} {clauses}", self.index)).await
    }

    /// One of each kind; gives kinds and ids.
    async fn plant(&self) -> BTreeSet<(String, String)> {
        let at = |place: u64| self.rows - 1_000 + place * TEXTS + 1;
        let path = |id: u64| format!("/{}/_doc/{id}", self.index);
        self.search.ok("DELETE", &path(at(1)), None).await;
        let raw = |id: u64| format!("/{}/_doc/{id}?pipeline=_none", self.index);
        let write = async |id: u64, body: Value| {
            self.search.ok("PUT", &raw(id), Some(body)).await;
        };
        let mut changed =
            self.search.doc(&self.index, &at(2).to_string()).await.expect("is there").source;
        changed["price"] = json!(-7);
        write(at(2), changed).await;
        let mut stale =
            self.search.doc(&self.index, &at(3).to_string()).await.expect("is there").source;
        let other = self.search.doc(&self.index, &(at(3) + 1).to_string()).await.expect("is there");
        stale["vector"] = other.source["vector"].clone();
        write(at(3), stale.clone()).await;
        let extra = self.rows + 1_000_000_000;
        stale["id"] = json!(extra);
        write(extra, stale).await;
        let named = |kind: &str, id: u64| (kind.to_owned(), id.to_string());
        BTreeSet::from([
            named("missing", at(1)),
            named("different", at(2)),
            named("stale_vector", at(3)),
            named("extra", extra),
        ])
    }
}

/// Changes, makes and deletes rows until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    statements: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Statements of a writer between two looks at how far the link is behind.
const UNPACED: u64 = 50;

impl Load {
    /// `statement` makes the n-th one. With the link's `lag` a writer waits now and then until the link has almost caught
    /// up, so that not every row is on its way all the time; without it there is no pause.
    fn start(
        mysql: &Mysql,
        lag: Option<Lag>,
        statement: impl Fn(u64) -> String + Clone + Send + 'static,
    ) -> Self {
        const WRITERS: u64 = 2;
        let stop = Arc::new(AtomicBool::new(false));
        let statements = Arc::new(AtomicU64::new(0));
        let write = |writer: u64| {
            let (mysql, lag, statement) = (mysql.clone(), lag.clone(), statement.clone());
            let (stop, statements) = (stop.clone(), statements.clone());
            tokio::spawn(async move {
                let mut session = mysql.session().await;
                let mut number = writer;
                while !stop.load(Ordering::Relaxed) {
                    let sql = statement(number);
                    session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
                    number += WRITERS;
                    statements.fetch_add(1, Ordering::Relaxed);
                    let looks = (number / WRITERS).is_multiple_of(UNPACED);
                    while looks && !stop.load(Ordering::Relaxed) {
                        let Some(lag) = &lag else { break };
                        if lag.ms().await < 100.0 {
                            break;
                        }
                    }
                }
            })
        };
        let tasks = (0..WRITERS).map(write).collect();
        Self { stop, statements, tasks }
    }

    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("the load ends");
        }
        self.statements.load(Ordering::Relaxed)
    }
}

/// How far a link is behind.
#[derive(Clone)]
struct Lag {
    client: reqwest::Client,
    url: String,
    series: String,
}

impl Lag {
    /// In milliseconds; nothing while there is no daemon.
    async fn ms(&self) -> f64 {
        let Ok(response) = self.client.get(&self.url).send().await else { return 0.0 };
        let text = response.text().await.unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(&self.series));
        found.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    }
}

/// On fewer rows a load without pause would change each of them several times a second.
const ROWS_FOR_FULL_LOAD: u64 = 50_000;

impl Shop {
    fn lag(&self) -> Lag {
        let client = crate::support::http_client();
        let url = format!("{}/metrics", self.daemon.url());
        let series = format!("driftless_link_lag_ms{{link=\"{}\"}} ", self.index);
        Lag { client, url, series }
    }

    /// How long a copy beside the stream takes.
    async fn copy_again(&self) -> Duration {
        let series =
            format!("driftless_link_rows_total{{kind=\"snapshot\",link=\"{}\"}}", self.index);
        let copied = async || self.daemon.metric(&series).await.unwrap_or(0.0);
        let (began, before) = (Instant::now(), copied().await);
        self.daemon.sql(&format!("SNAPSHOT LINK `{}`", self.index)).await;
        let most = before + self.rows as f64 * 0.5;
        until("rows are copied", MINUTES_2 * 5, async || copied().await > most).await;
        self.until_copied().await;
        began.elapsed()
    }

    /// On the rows below the planted ones.
    fn load(&self) -> Load {
        let (table, rows) = (self.table.clone(), self.rows - 1_100);
        let lag = (self.rows < ROWS_FOR_FULL_LOAD).then(|| self.lag());
        Load::start(&self.mysql, lag, move |number| {
            let id = (number.wrapping_mul(6_364_136_223_846_793_005) >> 33) % rows + 2;
            match number % 8 {
                0 => format!("DELETE FROM {table} WHERE id = {id}"),
                1 => format!("REPLACE INTO {table} VALUES ({id}, 'product of kind 3', {number})"),
                2 => format!("UPDATE {table} SET text = 'product of kind 5' WHERE id = {id}"),
                3 => format!("UPDATE {table} SET text = NULL WHERE id BETWEEN {id} AND {id} + 3"),
                _ => format!("UPDATE {table} SET price = {number} WHERE id = {id}"),
            }
        })
    }
}

/// The whole story, on `rows` rows; gives how long the copy took, and the verification.
async fn planted_is_found_and_mended(mysql: Mysql, search: Option<Search>, rows: u64) {
    let version: String = mysql.value("SELECT VERSION()").await;
    let shop = Shop::open(mysql, search, rows).await;
    let began = Instant::now();
    shop.link().await;
    let copied = began.elapsed();
    shop.verify("").await.is_clean();
    assert!(shop.check().await.is_clean());
    let planted = shop.plant().await;

    let load = shop.load();
    let verdict = shop.verify("").await;
    let statements = load.finish().await;
    assert_eq!(verdict.differences, planted, "{verdict:?}");
    assert_eq!(verdict.count("differences"), 4);
    assert_eq!(verdict.count("unjudged"), 0);
    assert!(verdict.count("rows") > rows / 2 && verdict.count("documents") > rows / 2);
    assert!(statements > 20, "there was no load: {statements} statements");
    let fields =
        verdict.answer.rows.iter().find(|row| row[0] == "different").map(|row| row[2].clone());
    assert_eq!(fields, Some(json!("price")));
    shop.settle().await;
    verdict.agrees_with(&shop.check().await);

    // Nothing is in the way now, so the time is the verification's own.
    let quiet = shop.verify("").await;
    quiet.agrees_with(&shop.check().await);
    let took = quiet.count("elapsed_ms");
    eprintln!(
        "{rows} rows from {}: copied in {copied:.1?}, verified in {took} ms, under load ({statements} statements) in {} ms",
        version,
        verdict.count("elapsed_ms")
    );

    let load = shop.load();
    let repaired = shop.verify("REPAIR").await;
    load.finish().await;
    assert_eq!(repaired.differences, planted, "{repaired:?}");
    assert_eq!(repaired.count("repaired"), 4);
    shop.settle().await;
    assert!(shop.check().await.is_clean());
    shop.verify("").await.is_clean();

    let load = shop.load();
    let took = shop.copy_again().await;
    let statements = load.finish().await;
    eprintln!("{rows} rows copied under load ({statements} statements) in {took:.1?}");
}

/// 50,000, or what the variable says: `make verify-million`.
fn rows() -> u64 {
    std::env::var("DRIFTLESS_VERIFY_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(50_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_and_mends_what_is_planted_among_50000_rows_under_load() {
    planted_is_found_and_mended(
        servers::mysql(Flavour::Mysql97),
        Some(servers::opensearch()),
        rows(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_and_mends_what_is_planted_with_the_older_mysql_before_elasticsearch() {
    let node = servers::search(Product::Elasticsearch);
    planted_is_found_and_mended(servers::mysql(Flavour::Mysql80), Some(node), 5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_and_mends_what_is_planted_in_the_embedded_index() {
    planted_is_found_and_mended(servers::mysql(Flavour::Mysql97), None, 3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_and_mends_what_is_planted_on_mariadb() {
    let mysql = servers::mysql(Flavour::Mariadb118);
    planted_is_found_and_mended(mysql, Some(servers::opensearch()), 5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_and_mends_what_is_planted_without_gtids() {
    let server = servers::own_mysql(Flavour::Mysql80, &OFF).await;
    planted_is_found_and_mended(server.client(), Some(servers::opensearch()), 5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_repairs_to_the_end_after_a_kill() {
    let mut shop =
        Shop::open(servers::mysql(Flavour::Mysql97), Some(servers::opensearch()), 6_000).await;
    shop.link().await;
    let everything = json!({"query": {"range": {"id": {"gt": 1000}}}});
    let path = format!("/{}/_delete_by_query?refresh=true&conflicts=proceed", shop.index);
    shop.search.refresh(&shop.index).await;
    shop.search.ok("POST", &path, Some(everything)).await;
    assert_eq!(shop.search.count(&shop.index).await, 1_000);
    let load = shop.load();
    let statement = format!("VERIFY LINK {} REPAIR", shop.index);
    let mut is_killed_in_the_middle = false;
    for _ in 0..5 {
        let repair = try_verify(&shop.daemon, &statement);
        let some_are_back = until("some documents are back", SECONDS_30, async || {
            shop.search.count(&shop.index).await >= 1_300
        });
        tokio::select! {
            done = repair => panic!("it ended before it was killed: {done:?}"),
            () = some_are_back => {}
        }
        shop.daemon.kill9();
        let count = shop.search.count(&shop.index).await;
        is_killed_in_the_middle |= count < 5_900;
        shop.daemon.start_again().await;
        if is_killed_in_the_middle {
            break;
        }
    }
    assert!(is_killed_in_the_middle, "the kill came too late to show anything");
    let verdict = shop.verify("REPAIR").await;
    assert!(verdict.count("missing") > 0, "{}", verdict.summary);
    assert_eq!(verdict.count("repaired"), verdict.count("differences"), "{}", verdict.summary);
    load.finish().await;
    shop.settle().await;
    shop.verify("").await.is_clean();
    assert!(shop.check().await.is_clean());
}

/// A document with a version above all of ours: the link begins an epoch above it, and then it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_mends_a_document_with_a_version_above_ours() {
    let shop =
        Shop::open(servers::mysql(Flavour::Mysql97), Some(servers::opensearch()), 2_000).await;
    shop.link().await;
    let path = |id: u64| {
        format!(
            "/{}/_doc/{id}?version={}&version_type=external&pipeline=_none",
            shop.index,
            1u64 << 61
        )
    };
    shop.search.ok("PUT", &path(1_500), Some(json!({"id": 1_500}))).await;
    shop.search.ok("PUT", &path(9_999), Some(json!({"id": 9_999}))).await;
    let repaired = shop.verify("REPAIR").await;
    assert_eq!(repaired.count("repaired"), 2, "{repaired:?}");
    shop.settle().await;
    shop.verify("").await.is_clean();
    assert!(shop.check().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_reads_keys_of_every_type_back_from_ids() {
    for flavour in Flavour::ALL {
        let stage = Stage::set(servers::mysql(flavour), |setup| setup).await;
        let table = format!("{}.wide", stage.db);
        stage
            .mysql
            .exec(format!(
                "CREATE TABLE {table} (d DECIMAL(20,4), n VARCHAR(40), l VARCHAR(20) CHARACTER SET latin1, \
                 g VARCHAR(20) CHARACTER SET gbk, w DATETIME(3), s TIMESTAMP(6), k BINARY(4), v VARBINARY(9), y DATE, \
                 z TIME(2), j YEAR, b BIT(9), u BIGINT UNSIGNED, i MEDIUMINT, txt TEXT CHARACTER SET latin1, \
                 PRIMARY KEY (d, n, l, g, w, s, k, v, y, z, j, b, u, i)) CHARSET utf8mb4"
            ))
            .await;
        let mut session = stage.mysql.session().await;
        let insert = |number: u32| {
            format!(
                "INSERT INTO {table} VALUES (-12345.6789 * {number}, 'Ä|\\\\b{number}', 'größe {number}', '中文{number}', \
                 '2026-03-04 05:06:07.120', '2026-03-04 05:06:07.000001', X'00{number:02}', X'FF00{number:02}', \
                 '0000-00-00', '-838:59:58.25', 2026, {number}, 18446744073709551615 - {number}, -{number}, 'größe {number}')"
            )
        };
        session.query_drop("SET SESSION sql_mode = ''").await.expect("is set");
        for number in 10..60 {
            let sql = insert(number);
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let index = stage.search.index("wide", json!({"mappings": {"dynamic": false}})).await;
        stage
            .daemon
            .sql(&format!("CALL dbms_etl.sync_by_table('search', '{table}', '{index}', '')"))
            .await;
        until("all rows are documents", SECONDS_30, async || {
            stage.search.count(&index).await == 50
        })
        .await;
        let statement = format!("VERIFY LINK {index}");
        until("the link runs", SECONDS_30, async || try_verify(&stage.daemon, &statement).await)
            .await;
        let verdict = verify(&stage.daemon, &statement).await;
        verdict.is_clean();
        assert_eq!((verdict.count("rows"), verdict.count("documents")), (50, 50));
        let before = stage.search.docs(&index).await;
        let ids: Vec<String> = before.keys().cloned().collect();
        for id in &ids[..5] {
            let path = format!("/{index}/_doc/{}", crate::support::search::encoded(id));
            stage.search.ok("DELETE", &path, None).await;
        }
        for id in &ids[5..10] {
            let path = format!("/{index}/_doc/{}", crate::support::search::encoded(id));
            stage.search.ok("PUT", &path, Some(json!({"txt": "other"}))).await;
        }
        for (at, id) in ids[10..14].iter().enumerate() {
            // Ids that no row has, and one that no row can have.
            let other = match at {
                0 => id.replace("Ä", "ä"),
                1 => id.replace("größe", "groesse"),
                2 => id.replace("2026-03-04T05:06:07.120", "2026-02-31T05:06:07.120"),
                _ => "nobody".to_owned(),
            };
            let path = format!("/{index}/_doc/{}", crate::support::search::encoded(&other));
            stage.search.ok("PUT", &path, Some(json!({"txt": "other"}))).await;
        }
        // More versions than fit below those that will come.
        for count in 0..50 {
            let path = format!("/{index}/_doc/{}", crate::support::search::encoded(&ids[5]));
            stage.search.ok("PUT", &path, Some(json!({"txt": count.to_string()}))).await;
        }
        let verdict = verify(&stage.daemon, &format!("{statement} REPAIR")).await;
        assert_eq!((verdict.count("missing"), verdict.count("different")), (5, 5), "{verdict:?}");
        assert_eq!(verdict.count("extra") + verdict.count("foreign"), 4, "{verdict:?}");
        assert!(verdict.named("foreign").contains(&"nobody".to_owned()), "{verdict:?}");
        assert_eq!(verdict.count("repaired"), 14 - verdict.count("foreign"), "{verdict:?}");
        for id in verdict.named("foreign") {
            let path = format!("/{index}/_doc/{}", crate::support::search::encoded(&id));
            stage.search.ok("DELETE", &path, None).await;
        }
        verify(&stage.daemon, &statement).await.is_clean();
        let after = stage.search.docs(&index).await;
        let sources = |docs: &std::collections::BTreeMap<String, crate::support::search::Doc>| {
            docs.iter().map(|(id, doc)| (id.clone(), doc.source.clone())).collect::<Vec<_>>()
        };
        assert_eq!(sources(&before), sources(&after));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_looks_at_what_a_condition_or_a_sample_says() {
    let shop =
        Shop::open(servers::mysql(Flavour::Mysql97), Some(servers::opensearch()), 4_000).await;
    shop.link().await;
    let planted = shop.plant().await;
    let verdict =
        shop.verify("WHERE id < 3000 AND (price > 0 OR text = 'REPAIR') -- all of them").await;
    assert_eq!((verdict.count("rows"), verdict.count("documents")), (2_999, 0));
    verdict.is_clean();
    assert_eq!(verdict.summary["extras_looked_for"], false);
    let verdict = shop.verify("WHERE id > 3000").await;
    let without_extra: BTreeSet<_> =
        planted.iter().filter(|(kind, _)| kind != "extra").cloned().collect();
    assert_eq!((verdict.count("rows"), verdict.differences), (1_000, without_extra));
    let verdict = shop.verify("SAMPLE 25%").await;
    assert!((600..1_400).contains(&verdict.count("rows")), "{}", verdict.summary);
    assert!(verdict.differences.is_subset(&planted), "{verdict:?}");
    let verdict = shop.verify("SAMPLE 100% WITH VECTORS").await;
    assert_eq!(verdict.differences, planted);

    let refused = async |statement: &str| match try_verify(&shop.daemon, statement).await {
        Ok(answer) => panic!("{statement} is not refused: {answer:?}"),
        Err(error) => error,
    };
    let index = &shop.index;
    let error = refused(&format!("VERIFY LINK {index}x")).await;
    assert!(error.contains(&format!("did you mean `{index}`?")), "{error}");
    let error = refused(&format!("VERIFY LINK {index} WHERE nobody = 1")).await;
    assert!(error.contains("Unknown column 'nobody'") && error.contains("^^^^^^"), "{error}");
    let error = refused(&format!("VERIFY LINK {index} WHERE id = ?")).await;
    assert!(error.contains("does not understand the condition"), "{error}");
    let error = refused(&format!("VERIFY LINK {index} WHERE 1) OR (1 = 1")).await;
    assert!(error.contains("this parenthesis closes nothing"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_tells_by_its_exit_code_whether_they_differ() {
    let shop =
        Shop::open(servers::mysql(Flavour::Mysql97), Some(servers::opensearch()), 2_000).await;
    shop.link().await;
    let run = async |arguments: Vec<&str>| {
        let output = tokio::task::block_in_place(|| shop.daemon.run(&arguments));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = run(vec!["verify", &shop.index]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    shop.plant().await;
    let (code, out, err) = run(vec!["verify", &shop.index]).await;
    assert_eq!((code, err.as_str()), (Some(1), "4 documents differ from the table\n"), "{out}");
    assert!(out.contains("| stale_vector | ") && out.contains("REPAIR writes it"), "{out}");
    let (code, out, err) =
        run(vec!["verify", &shop.index, "--where", "id < 100", "--sample", "50%"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = run(vec!["verify", &shop.index, "--repair"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("written anew") && out.contains("deleted"), "{out}");
    let (code, _, err) = run(vec!["verify", "nobody"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("unknown link `nobody`"), "{err}");
    let statement = format!("VERIFY LINK {}", shop.index);
    let (code, out, _) = run(vec!["sql", &statement]).await;
    assert_eq!(code, Some(0), "{out}");
    let differences =
        format!("driftless_verify_differences{{kind=\"missing\",link=\"{}\"}}", shop.index);
    assert_eq!(shop.daemon.metric(&differences).await, Some(0.0));
    let repaired = format!("driftless_verify_repaired_total{{link=\"{}\"}}", shop.index);
    assert_eq!(shop.daemon.metric(&repaired).await, Some(4.0));
}

/// Begins a verification that must wait, because the link's next bulk is held.
async fn waiting(stage: &Stage) -> crate::support::proxy::Gate {
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b')").await;
    stage.link().await;
    stage.settle().await;
    let gate = stage.proxy.hold_next_request();
    stage.exec("UPDATE {t} SET a = 'new' WHERE id = 1").await;
    gate.arrived().await;
    gate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_is_shown_ends_with_its_caller_and_is_alone() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    let gate = waiting(&stage).await;
    let statement = format!("VERIFY LINK {}", stage.index);
    let running = format!("driftless_verify_running{{link=\"{}\"}}", stage.index);
    {
        let verifying = try_verify(&stage.daemon, &statement);
        let looking = async {
            until("it says that it waits for the link", SECONDS_10, async || {
                let (_, message) = stage.status().await;
                let others = message["others"].as_str().unwrap_or_default();
                others.contains("verification of 3 rows") && others.contains("waits for: the link")
            })
            .await;
            assert_eq!(stage.daemon.metric(&running).await, Some(1.0));
            let (_, links) = stage.daemon.request("GET", "/_links", None).await;
            assert_eq!(links["links"][0]["verification"]["rows"], 3, "{links}");
            let second = try_verify(&stage.daemon, &statement).await.expect_err("it is not alone");
            assert!(second.contains("is being verified already"), "{second}");
        };
        tokio::select! {
            done = verifying => panic!("it did not wait: {done:?}"),
            () = looking => {}
        }
    }
    // The caller has hung up.
    until("it has ended", SECONDS_10, async || stage.daemon.metric(&running).await == Some(0.0))
        .await;
    gate.open();
    verify(&stage.daemon, &statement).await.is_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_ends_when_the_daemon_stops() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    let _gate = waiting(&stage).await;
    let statement = format!("VERIFY LINK {}", stage.index);
    let url = format!("{}/_sql", stage.daemon.url());
    let verifying = tokio::spawn(async move {
        let client = crate::support::http_client();
        let body = json!({ "query": statement }).to_string();
        let request = client.post(url).header("content-type", "application/json").body(body);
        request.send().await.map(|response| response.status().as_u16())
    });
    let running = format!("driftless_verify_running{{link=\"{}\"}}", stage.index);
    until("it runs", SECONDS_10, async || stage.daemon.metric(&running).await == Some(1.0)).await;
    let began = Instant::now();
    assert!(stage.daemon.stop().await.success());
    assert!(began.elapsed() < SECONDS_10 + SECONDS_10 / 10, "{:?}", began.elapsed());
    assert_eq!(verifying.await.expect("it ends").ok(), Some(503));
}

/// The table is altered while it is verified: it begins anew, under the new definition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_begins_anew_where_the_table_is_altered() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    let gate = waiting(&stage).await;
    let statement = format!("VERIFY LINK {}", stage.index);
    let verifying = verify(&stage.daemon, &statement);
    let altering = async {
        let rows = format!("driftless_verify_rows_total{{link=\"{}\"}}", stage.index);
        until("rows are read", SECONDS_10, async || stage.daemon.metric(&rows).await == Some(3.0))
            .await;
        stage.exec("ALTER TABLE {t} ADD COLUMN first INT FIRST").await;
        gate.open();
    };
    let (verdict, ()) = tokio::join!(verifying, altering);
    verdict.is_clean();
    assert!(stage.daemon.log().contains("the verification begins anew"), "{}", stage.daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_deletes_nothing_where_documents_without_rows_are_wanted() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("link.on_truncate", "ignore")
    })
    .await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b')").await;
    stage.link().await;
    stage.settle().await;
    stage.exec("TRUNCATE TABLE {t}").await;
    stage.exec("INSERT INTO {t} VALUES (2, 'a', 'b')").await;
    until("the new row is a document", SECONDS_30, async || {
        stage.search.doc(&stage.index, "2").await
    })
    .await;
    let verdict = verify(&stage.daemon, &format!("VERIFY LINK {} REPAIR", stage.index)).await;
    assert_eq!((verdict.count("extra"), verdict.count("repaired")), (2, 0), "{verdict:?}");
    assert!(verdict.answer.cell(1, "Message").contains("on_truncate"), "{verdict:?}");
    assert!(stage.search.doc(&stage.index, "1").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_comes_by_itself_and_mends_where_that_is_wanted() {
    let every = |setup: Setup| setup.set("link.verify_every_secs", 1);
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), every).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b')").await;
    stage.link().await;
    stage.settle().await;
    let index = stage.index.clone();
    let series = |name: &str| format!("driftless_verify_{name}{{link=\"{index}\"}}");
    let missing = format!("driftless_verify_differences{{kind=\"missing\",link=\"{index}\"}}");
    let counted = async |stage: &Stage, count: f64| {
        until("it was verified", SECONDS_30, async || {
            stage.daemon.metric(&missing).await == Some(count)
        })
        .await;
    };
    counted(&stage, 0.0).await;
    stage.search.ok("DELETE", &format!("/{index}/_doc/2"), None).await;
    counted(&stage, 1.0).await;
    let (_, message) = stage.status().await;
    assert!(message.to_string().contains("found 1 documents that differ"), "{message}");
    // It is found again and again, and left as it is.
    let ended = stage.daemon.metric(&series("ended_timestamp_seconds")).await;
    assert!(ended > Some(0.0));
    until("it was verified again", SECONDS_30, async || {
        stage.daemon.metric(&series("ended_timestamp_seconds")).await > ended
    })
    .await;
    assert!(stage.search.doc(&index, "2").await.is_none());

    stage.daemon.stop().await;
    stage.daemon.reconfigure("link.verify_repair", true);
    stage.daemon.start_again().await;
    until("it is mended", SECONDS_30, async || stage.search.doc(&index, "2").await.is_some()).await;
    counted(&stage, 0.0).await;
    assert!(stage.daemon.metric(&series("repaired_total")).await >= Some(1.0));
}
