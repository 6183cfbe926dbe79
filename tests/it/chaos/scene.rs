//! Everything that the faults are done to: two servers that replicate, an index, a daemon, and a proxy on either side of
//! it. Knows how to wait until index and table are equal, and who compares them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::chaos::load::{Target, Watcher, Writers, first_rows};
use crate::failover::{follow, promote};
use crate::support::checker::Checker;
use crate::support::daemon::{Daemon, Setup};
use crate::support::mysql::Mysql;
use crate::support::proxy::Proxy;
use crate::support::search::Search;
use crate::support::servers::{self, Flavour, OwnMysql, OwnOpensearch};
use crate::support::stage::difference;
use crate::support::{MINUTES_2, SECONDS_30, until};
use crate::verify::verify;

const FLAVOUR: Flavour = Flavour::Mysql97;
const SENTINEL: u64 = 900_000_000;

pub struct Scene {
    /// The primary is at `primary`, the other one follows it.
    servers: [OwnMysql; 2],
    primary: usize,
    pub server_is_down: bool,
    pub target: Target,
    pub source: Proxy,
    pub sink: Proxy,
    pub search: Search,
    node: Option<OwnOpensearch>,
    pub daemon: Daemon,
    /// The daemon's account.
    pub user: String,
    pub db: String,
    pub index: String,
    writers: Writers,
    pub watcher: Watcher,
    sentinels: u64,
}

impl Scene {
    pub async fn set(seed: u64, with_own_node: bool) -> Self {
        // Transactions that were prepared and lost their session hold their rows.
        let options = ["--innodb-lock-wait-timeout=1"];
        let (one, two) = tokio::join!(
            servers::own_mysql(FLAVOUR, &options),
            servers::own_mysql(FLAVOUR, &options)
        );
        let mysql = one.client();
        follow(FLAVOUR, &two.client(), &mysql).await;
        let node = match with_own_node {
            true => Some(servers::own_opensearch().await),
            false => None,
        };
        let search = node.as_ref().map_or_else(servers::opensearch, OwnOpensearch::client);
        let (source, sink) =
            (Proxy::tcp(&mysql.address()).await, Proxy::http(search.address()).await);
        let db = mysql.database("chaos").await;
        mysql
            .exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, n BIGINT, a VARCHAR(200), b VARCHAR(200)) CHARSET utf8mb4"))
            .await;
        for sql in first_rows() {
            mysql.exec(sql.replace("{t}", &format!("{db}.t"))).await;
        }
        let index = search.index("chaos", index_body()).await;
        let (user, password) = mysql.replication_user().await;
        mysql.exec(format!("GRANT XA_RECOVER_ADMIN ON *.* TO `{user}`@'%'")).await;
        let setup = setup(&mysql, &sink, &source);
        let daemon =
            setup.set("source.user", &*user).set("source.password", &*password).start().await;
        let target: Target = Arc::new(RwLock::new(mysql));
        let writers = Writers::start(&target, &format!("{db}.t"), seed);
        let watcher = Watcher::start(search.clone(), &index);
        let servers = [one, two];
        let scene = Self {
            servers,
            primary: 0,
            server_is_down: false,
            target,
            source,
            sink,
            search,
            node,
            daemon,
            user,
            db,
            index,
            writers,
            watcher,
            sentinels: 0,
        };
        let (db, index) = (&scene.db, &scene.index);
        scene
            .daemon
            .sql(&format!("CALL dbms_etl.sync_by_table('search', '{db}.t', '{index}', 'id,n,a,b')"))
            .await;
        scene
    }

    pub fn has_own_node(&self) -> bool {
        self.node.is_some()
    }

    pub fn begin_round(&self) {
        self.watcher.begin_round();
    }

    pub fn end_round(&self) -> (u64, Duration) {
        self.watcher.end_round()
    }

    pub async fn mysql(&self) -> Mysql {
        self.target.read().await.clone()
    }

    pub async fn stop_server(&mut self, as_in_a_crash: bool) {
        self.server_is_down = true;
        match as_in_a_crash {
            true => self.servers[self.primary].kill().await,
            false => self.servers[self.primary].stop().await,
        }
    }

    pub async fn start_server(&mut self) {
        self.servers[self.primary].start().await;
        self.server_is_down = false;
    }

    pub fn node(&mut self) -> &mut OwnOpensearch {
        self.node.as_mut().expect("faults of the node are drawn where it is our own")
    }

    /// Asks the node about the index, if it is there to answer.
    pub async fn ask_node(&self, method: &str, path: &str, body: Option<Value>) {
        self.search.try_request(method, &format!("/{}{path}", self.index), body).await.ok();
    }

    /// An index of the same name, in the place of one that was deleted.
    pub async fn make_index(&self) {
        self.ask_node("PUT", "", Some(index_body())).await;
    }

    /// The replica becomes the primary, with all that was committed, and the other way round.
    pub async fn fail_over(&mut self) {
        let mut target = self.target.write().await;
        let (old, new) =
            (self.servers[self.primary].client(), self.servers[1 - self.primary].client());
        ask_again(&new).await;
        promote(FLAVOUR, &new, &old).await;
        follow(FLAVOUR, &old, &new).await;
        self.primary = 1 - self.primary;
        self.source.lead_to(&new.address());
        self.source.drop_connections();
        *target = new;
    }

    /// Deletes all of the log but its end, when the replica has it.
    pub async fn purge(&self) {
        let mysql = self.target.write().await;
        let replica = self.servers[1 - self.primary].client();
        ask_again(&replica).await;
        mysql.exec("FLUSH BINARY LOGS").await;
        let executed: String = mysql.value("SELECT @@global.gtid_executed").await;
        until("the replica has everything", SECONDS_30, async || {
            let has: String = replica.value("SELECT @@global.gtid_executed").await;
            has == executed
        })
        .await;
        let all: Vec<(String, u64, String)> = mysql.query("SHOW BINARY LOGS").await;
        let last = &all.last().expect("there is a log").0;
        mysql.exec(format!("PURGE BINARY LOGS TO '{last}'")).await;
    }

    /// A statement of the daemon's language about the link, when the daemon answers at all.
    pub async fn statement(&self, sql: &str) -> Result<(), String> {
        self.daemon.listens().await;
        self.daemon.try_sql(&sql.replace("{link}", &self.index)).await.map(drop)
    }

    /// The link's state and message, as long as somebody answers.
    async fn status(&self) -> String {
        self.daemon.listens().await;
        let sql = format!("CALL dbms_etl.show_sync_link_by_id('{}')", self.index);
        match self.daemon.try_sql(&sql).await {
            Ok(answer) => answer.cell(0, "Message"),
            Err(error) => error,
        }
    }

    /// Waits until a row that is written now is a document, and nothing is unacknowledged; then has the writers pause and
    /// counts the documents that are not what their rows are.
    pub async fn catch_up(&mut self) -> u64 {
        self.sentinels += 1;
        let (number, target) = (self.sentinels, self.target.clone());
        let mysql = target.write().await;
        decide_prepared(&mysql).await;
        let sql = format!("REPLACE INTO {}.t VALUES ({SENTINEL}, {number}, '', '')", self.db);
        mysql.exec(sql).await;
        let caught_up = tokio::time::timeout(MINUTES_2 + SECONDS_30, async {
            until("the sentinel is a document", MINUTES_2 * 2, async || {
                let doc = self.search.doc(&self.index, &SENTINEL.to_string()).await;
                doc.is_some_and(|doc| doc.source["n"] == number)
            })
            .await;
            until("nothing is missing or differs", MINUTES_2 * 2, async || {
                self.difference(&mysql).await
            })
            .await;
        });
        if caught_up.await.is_ok() {
            return 0;
        }
        let why = self.difference(&mysql).await.err().unwrap_or_default();
        eprintln!("chaos: not caught up: {why}\n{}", self.status().await);
        why.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(1)
    }

    async fn difference(&self, mysql: &Mysql) -> Result<(), String> {
        let rows: Vec<(u64, u64, String, String)> =
            mysql.query(format!("SELECT id, n, a, b FROM {}.t", self.db)).await;
        let expected: BTreeMap<String, Value> = rows
            .into_iter()
            .map(|(id, n, a, b)| (id.to_string(), json!({"id": id, "n": n, "a": a, "b": b})))
            .collect();
        let docs = self.search.docs(&self.index).await;
        let found = docs.into_iter().map(|(id, doc)| (id, doc.source)).collect();
        difference(&found, &expected)
    }

    /// So that the next round begins with nothing of what this one has spoilt.
    pub async fn mend(&mut self) {
        self.statement("RESUME LINK {link}").await.ok();
        self.statement("VERIFY LINK {link} REPAIR").await.ok();
        self.watcher.forget();
        self.catch_up().await;
    }

    /// What VERIFY LINK and the checker that knows nothing of us find, while the writers pause.
    pub async fn differences(&self) -> u64 {
        let mysql = self.target.write().await;
        let found = Checker {
            mysql: mysql.address(),
            node: self.search.url().to_owned(),
            table: format!("{}.t", self.db),
            index: self.index.clone(),
            key: vec!["id"],
            fields: json!({"id": "id", "n": "n", "a": "a", "b": "b"}),
            vectors: json!({}),
            scrolls: true,
        }
        .run()
        .await;
        until("the link is running", MINUTES_2, async || {
            let status = self.status().await;
            if status.contains("\"jobStatus\":\"running\"") { Ok(()) } else { Err(status) }
        })
        .await;
        let verdict = verify(&self.daemon, &format!("VERIFY LINK {}", self.index)).await;
        let kinds = ["missing", "extra", "different"];
        let told: u64 = kinds.into_iter().map(|kind| verdict.count(kind)).sum();
        let seen = found.missing.len() + found.extra.len() + found.different.len();
        if told + seen as u64 > 0 {
            eprintln!("chaos: {verdict:?}\n{found:?}");
        }
        told + seen as u64
    }

    pub async fn end(&mut self) {
        self.writers.finish().await;
        self.watcher.finish().await;
    }
}

/// A replica whose source was away waits a minute before it asks again.
async fn ask_again(replica: &Mysql) {
    replica.exec("STOP REPLICA").await;
    replica.exec("START REPLICA").await;
}

/// What writers have prepared, and could not end because they were cut off.
async fn decide_prepared(mysql: &Mysql) {
    let prepared: Vec<(i64, u32, u32, String)> = mysql.query("XA RECOVER").await;
    for (at, (.., xid)) in prepared.into_iter().enumerate() {
        let end = ["COMMIT", "ROLLBACK"][at % 2];
        until("the prepared transaction can be ended", SECONDS_30, async || {
            mysql.try_exec(&format!("XA {end} '{xid}'")).await
        })
        .await;
    }
}

fn setup(mysql: &Mysql, sink: &Proxy, source: &Proxy) -> Setup {
    Setup::new(mysql, &sink.url())
        .set("source.port", i64::from(source.port()))
        // The proxy damages what it can read.
        .set("source.tls.mode", "disabled")
        .set("source.heartbeat_ms", 200)
        .set("source.read_timeout_ms", 2_000)
        .set("source.connect_timeout_ms", 2_000)
        .set("sink.timeout_ms", 3_000)
        .set("sink.bulk_documents", 100)
        .set("snapshot.chunk_rows", 200)
        .set("link.checkpoint_interval_ms", 200)
        .set("memory_limit_bytes", "16MiB")
}

fn index_body() -> Value {
    json!({"mappings": {"properties": {"id": {"type": "long"}, "n": {"type": "long"},
        "a": {"type": "keyword"}, "b": {"type": "keyword"}}}})
}
