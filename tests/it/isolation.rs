//! One link's trouble is its own (delivery contract, 5): links of one source share its stream, and no link that takes
//! nothing, or that was away for long, keeps the others waiting. How it comes back to the shared stream is tested too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::no_gtids;
use crate::support::daemon::{Daemon, Setup};
use crate::support::mysql::Mysql;
use crate::support::search::Search;
use crate::support::servers::{self, Flavour};
use crate::support::stage::difference;
use crate::support::{MINUTES_2, SECONDS_30, until};

/// So many links, each with a table and an index of its own.
struct Links {
    mysql: Mysql,
    search: Search,
    daemon: Daemon,
    db: String,
    indexes: Vec<String>,
}

/// More than a link's queue holds, and more than links may differ by when the stream begins.
const MUCH_MB: usize = 96;

impl Links {
    async fn make(mysql: Mysql, count: usize) -> Self {
        let search = servers::opensearch();
        let db = mysql.database("isolation").await;
        let daemon =
            Setup::new(&mysql, search.url()).set("memory_limit_bytes", "64MiB").start().await;
        let mut links = Self { mysql, search, daemon, db, indexes: Vec::new() };
        for at in 0..count {
            let (db, body) = (&links.db, json!({"mappings": {"dynamic": false, "properties": {}}}));
            links
                .mysql
                .exec(format!("CREATE TABLE {db}.t{at} (id BIGINT PRIMARY KEY, a LONGTEXT)"))
                .await;
            let index = links.search.index("isolation", body).await;
            links
                .daemon
                .sql(&format!(
                    "CALL dbms_etl.sync_by_map('search', '{index}.id({db}.t{at}.id),{index}.a({db}.t{at}.a)', \
                     '{index}.id={db}.t{at}.id', '', '')"
                ))
                .await;
            links.indexes.push(index);
        }
        for at in 0..count {
            links.exec(at, "INSERT INTO {t} VALUES (0, 'first')").await;
            links.until_equal(at, "the link is there").await;
        }
        links
    }

    async fn exec(&self, at: usize, sql: &str) {
        self.mysql.exec(sql.replace("{t}", &format!("{}.t{at}", self.db))).await;
    }

    /// So many MB of log for a table of few rows.
    async fn write_much(&self, at: usize, seed: usize) {
        for n in 0..MUCH_MB {
            let id = n % 10 + 1;
            let text = format!("REPEAT(CONCAT('{seed}', {n}, '.'), 250000)");
            self.exec(at, &format!("REPLACE INTO {{t}} VALUES ({id}, LEFT({text}, 1000000))"))
                .await;
        }
    }

    async fn until_equal(&self, at: usize, what: &str) {
        until(what, MUCH_TIME, async || {
            let table = format!("{}.t{at}", self.db);
            let rows: Vec<(i64, String)> =
                self.mysql.query(format!("SELECT id, a FROM {table}")).await;
            let expected: BTreeMap<String, Value> = rows
                .into_iter()
                .map(|(id, a)| (id.to_string(), json!({"id": id, "a": a})))
                .collect();
            let docs = self.search.docs(&self.indexes[at]).await;
            let found = docs.into_iter().map(|(id, doc)| (id, doc.source)).collect();
            difference(&found, &expected).map_err(|why| why.chars().take(300).collect::<String>())
        })
        .await;
    }

    async fn block(&self, at: usize, is_blocked: bool) {
        let body = json!({"index": {"blocks": {"write": is_blocked}}});
        let path = format!("/{}/_settings", self.indexes[at]);
        self.search.ok("PUT", &path, Some(body)).await;
    }

    async fn own_streams(&self) -> f64 {
        self.daemon.metric("driftless_source_own_streams").await.expect("it is there")
    }

    fn times_alone(&self) -> usize {
        self.daemon.log().matches("follows the log by itself until it has caught up").count()
    }

    async fn behind(&self) -> f64 {
        self.daemon.metric("driftless_source_links_behind").await.expect("it is there")
    }

    async fn until_all_share(&self) {
        until("all links share the stream", MUCH_TIME, async || match self.behind().await {
            0.0 => Ok(()),
            count => Err(format!("{count} do not")),
        })
        .await;
    }

    async fn restarts(&self, at: usize) -> Value {
        let statement = format!("CALL dbms_etl.show_sync_link_by_id('{}')", self.indexes[at]);
        let message = self.daemon.sql(&statement).await.cell(0, "Message");
        serde_json::from_str::<Value>(&message).expect("the message is JSON")["restart_times"]
            .clone()
    }
}

const MUCH_TIME: Duration = MINUTES_2;

/// Rows of every other link are documents in time, while one takes nothing.
async fn others_are_in_time(links: &Links, until_id: i64) {
    for id in 1..=until_id {
        for at in 1..links.indexes.len() {
            let written = Instant::now();
            links.exec(at, &format!("INSERT INTO {{t}} VALUES ({id}, 'row {id}')")).await;
            let what = format!("row {id} of table {at} is a document");
            let index = &links.indexes[at];
            until(&what, SECONDS_30, async || links.search.doc(index, &id.to_string()).await).await;
            let took = written.elapsed();
            assert!(took < Duration::from_secs(1), "{what} after {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_one_link_of_ten_that_takes_nothing_leaves_the_others_in_time() {
    let links = Links::make(servers::mysql(Flavour::Mysql97), 10).await;
    links.block(0, true).await;
    tokio::join!(links.write_much(0, 1), others_are_in_time(&links, 20));
    others_are_in_time_from(&links, 21, 25).await;
    links.block(0, false).await;
    links.until_equal(0, "the link that was stuck has caught up").await;
    links.until_all_share().await;
    // Both are served by the shared stream.
    for at in 0..links.indexes.len() {
        links.exec(at, "INSERT INTO {t} VALUES (1000, 'last')").await;
        links.until_equal(at, "the index equals its table").await;
    }
    for at in 1..links.indexes.len() {
        assert_eq!(links.restarts(at).await, "0", "link {at} was disturbed");
    }
}

async fn others_are_in_time_from(links: &Links, from: i64, to: i64) {
    for id in from..=to {
        for at in 1..links.indexes.len() {
            links.exec(at, &format!("INSERT INTO {{t}} VALUES ({id}, 'row {id}')")).await;
        }
    }
    for at in 1..links.indexes.len() {
        links.until_equal(at, "the others go on").await;
    }
}

/// A link that was away comes back while its own table and the others' are written, and the daemon is killed meanwhile.
async fn a_link_that_was_away(mysql: Mysql) {
    let mut links = Links::make(mysql, 3).await;
    let id = links.indexes[0].clone();
    links.daemon.sql(&format!("PAUSE LINK {id}")).await;
    links.write_much(0, 1).await;
    links.block(0, true).await;
    links.daemon.sql(&format!("RESUME LINK {id}")).await;
    until("it follows the log by itself", SECONDS_30, async || links.times_alone() == 1).await;
    // It takes nothing more, or what comes makes needless what waits.
    until("it gives its turn back", MUCH_TIME, async || links.own_streams().await == 0.0).await;
    others_are_in_time(&links, 3).await;
    links.daemon.kill9();
    // It is ready when all links are.
    links.daemon.start_again_unready();
    others_are_in_time_from(&links, 4, 6).await;
    until("it does so after a start too", SECONDS_30, async || links.times_alone() > 1).await;
    links.block(0, false).await;
    // It comes back in the middle of transactions.
    let writes = async {
        for n in 0..400 {
            links.exec(0, &format!("REPLACE INTO {{t}} VALUES ({}, 'late {n}')", n % 50)).await;
            links.exec(1, &format!("REPLACE INTO {{t}} VALUES ({}, 'late {n}')", n % 50)).await;
        }
    };
    tokio::join!(writes, links.until_all_share());
    for at in 0..links.indexes.len() {
        links.exec(at, "REPLACE INTO {t} VALUES (1000, 'last')").await;
        links.until_equal(at, "the index equals its table").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_away_for_long_catches_up_by_itself_and_shares_the_stream_again() {
    a_link_that_was_away(servers::mysql(Flavour::Mysql97)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_away_catches_up_on_mariadb_and_without_gtids() {
    a_link_that_was_away(servers::mysql(Flavour::MARIADB[0])).await;
    let server = servers::own_mysql(Flavour::Mysql80, &no_gtids::OFF).await;
    a_link_that_was_away(server.client()).await;
}
