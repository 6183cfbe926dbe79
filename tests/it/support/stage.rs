//! A source table, an index and a daemon between them, for tests that look at what arrives. The mapping is plain:
//! column `id` becomes the `_id`, and `id`, `a` and `b` become fields of those names.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::{Daemon, Setup};
use super::mysql::Mysql;
use super::proxy::Proxy;
use super::search::Search;
use super::servers;
use super::{SECONDS_30, until};

pub struct Stage {
    pub mysql: Mysql,
    pub search: Search,
    /// Between the daemon and the index; it keeps the bulks that pass.
    pub proxy: Proxy,
    pub daemon: Daemon,
    pub db: String,
    pub index: String,
}

impl Stage {
    /// Makes table and index, and starts a daemon as `setup` wants it. There is no link yet.
    pub async fn set(mysql: Mysql, setup: impl FnOnce(Setup) -> Setup) -> Self {
        Self::before(servers::opensearch(), mysql, setup).await
    }

    /// The same with the index on this node.
    pub async fn before(search: Search, mysql: Mysql, setup: impl FnOnce(Setup) -> Setup) -> Self {
        let proxy = Proxy::http_watching(search.address(), "_bulk").await;
        let db = mysql.database("stage").await;
        mysql
            .exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200)) CHARSET utf8mb4"))
            .await;
        let index = search.index("stage", index_body()).await;
        let daemon =
            setup(Setup::new(&mysql, &proxy.url()).set("sink.type", search.product().kind()))
                .start()
                .await;
        Self { mysql, search, proxy, daemon, db, index }
    }

    pub fn statement(&self) -> String {
        let (index, db) = (&self.index, &self.db);
        format!(
            "CALL dbms_etl.sync_by_map('search', '{index}.id({db}.t.id),{index}.a({db}.t.a),{index}.b({db}.t.b)', \
             '{index}.id={db}.t.id', '', '')"
        )
    }

    pub async fn link(&self) {
        self.daemon.sql(&self.statement()).await;
    }

    pub async fn exec(&self, sql: &str) {
        self.mysql.exec(sql.replace("{t}", &format!("{}.t", self.db))).await;
    }

    /// The documents that the table's rows should be.
    pub async fn expected(&self) -> BTreeMap<String, Value> {
        let rows: Vec<(i64, Option<String>, Option<String>)> =
            self.mysql.query(format!("SELECT id, a, b FROM {}.t", self.db)).await;
        rows.into_iter()
            .map(|(id, a, b)| (id.to_string(), json!({"id": id, "a": a, "b": b})))
            .collect()
    }

    pub async fn found(&self) -> BTreeMap<String, Value> {
        self.search.docs(&self.index).await.into_iter().map(|(id, doc)| (id, doc.source)).collect()
    }

    pub async fn until_equal(&self, what: &str, deadline: Duration) {
        until(what, deadline, async || difference(&self.found().await, &self.expected().await))
            .await;
    }

    /// The link's state, its errors and the rest of its message.
    pub async fn status(&self) -> (String, Value) {
        let answer =
            self.daemon.sql(&format!("CALL dbms_etl.show_sync_link_by_id('{}')", self.index)).await;
        let message: Value =
            serde_json::from_str(&answer.cell(0, "Message")).expect("the message is JSON");
        (message["jobStatus"].as_str().unwrap_or_default().to_owned(), message)
    }

    pub async fn until_state(&self, state: &str) -> Value {
        until(&format!("the link is {state}"), SECONDS_30, async || {
            let (found, message) = self.status().await;
            if found == state { Ok(message) } else { Err(format!("it is {found}: {message}")) }
        })
        .await
    }

    /// Waits until the snapshot is in the index, and a checkpoint that says so is stored.
    pub async fn until_snapshot_is_done(&self) {
        until("the snapshot is done", super::MINUTES_2, async || {
            let (state, message) = self.status().await;
            if state == "running" || state == "catching_up" {
                Ok(())
            } else {
                Err(format!("{state}: {message}"))
            }
        })
        .await;
    }

    /// Waits until everything that was committed so far has been delivered, whether rightly or not: a row written now
    /// is a document, and nothing is unacknowledged.
    pub async fn settle(&self) {
        const SENTINEL: i64 = 999_999_999;
        self.exec(&format!("REPLACE INTO {{t}} VALUES ({SENTINEL}, UUID(), '')")).await;
        let expected = self.expected().await[&SENTINEL.to_string()].clone();
        until("the sentinel is a document", SECONDS_30, async || {
            let found = self.search.doc(&self.index, &SENTINEL.to_string()).await;
            found.is_some_and(|doc| doc.source == expected)
        })
        .await;
        let lag = format!("driftless_link_lag_ms{{link=\"{}\"}}", self.index);
        until("nothing is unacknowledged", SECONDS_30, async || {
            self.daemon.metric(&lag).await == Some(0.0)
        })
        .await;
    }
}

pub fn index_body() -> Value {
    json!({"mappings": {"properties": {
        "id": {"type": "long"}, "a": {"type": "keyword"}, "b": {"type": "keyword"}
    }}})
}

/// The first few differences, or that there are none.
pub fn difference(
    found: &BTreeMap<String, Value>,
    expected: &BTreeMap<String, Value>,
) -> Result<(), String> {
    let mut differences = Vec::new();
    for (id, doc) in expected {
        match found.get(id) {
            None => differences.push(format!("{id} is missing")),
            Some(other) if other != doc => differences.push(format!("{id} is {other}, not {doc}")),
            Some(_) => {}
        }
    }
    differences.extend(
        found.keys().filter(|id| !expected.contains_key(*id)).map(|id| format!("{id} is extra")),
    );
    if differences.is_empty() {
        return Ok(());
    }
    let count = differences.len();
    differences.truncate(5);
    Err(format!(
        "{count} differences, {} documents for {} rows: {}",
        found.len(),
        expected.len(),
        differences.join("; ")
    ))
}
