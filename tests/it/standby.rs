//! Several daemons of one name before one cluster: a new disk goes on from the copy, one daemon writes at a time, and another
//! one steps in. What a stopped leader can do when it wakes is rule 19, in `rules`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::support::checker::Checker;
use crate::support::daemon::{Daemon, Setup};
use crate::support::model::Model;
use crate::support::proxy::Proxy;
use crate::support::search::Product;
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, difference};
use crate::support::tutorial::Door;
use crate::support::{MINUTES_2, SECONDS_10, SECONDS_30, unique, until};
use crate::verify::verify;

/// Our own documents lie in one index of the cluster, and one of these tests deletes it. And deadlines are kept better
/// alone.
pub async fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// Short, so that the tests are, and long enough for a machine that does much else.
pub const LEASE_SECS: i64 = 5;

const KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const OTHER_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000002";

/// A table, an index and the daemon that leads.
pub struct Pair {
    pub stage: Stage,
    pub name: String,
    lease_secs: i64,
}

/// Another daemon of the name, with a way to the cluster of its own.
pub struct Other {
    pub daemon: Daemon,
    pub proxy: Proxy,
}

impl Pair {
    pub async fn set(lease_secs: i64, setup: impl FnOnce(Setup) -> Setup) -> Self {
        Self::before(Product::OpenSearch, lease_secs, setup).await
    }

    async fn before(product: Product, lease_secs: i64, setup: impl FnOnce(Setup) -> Setup) -> Self {
        let name = unique("pair");
        let (mysql, search) = (servers::mysql(Flavour::Mysql97), servers::search(product));
        let stage = Stage::before(search, mysql, |own| setup(member(own, &name, lease_secs))).await;
        until_leads(&stage.daemon).await;
        Self { stage, name, lease_secs }
    }

    /// Starts another daemon of the name on an empty disk.
    pub async fn another(&self, setup: impl FnOnce(Setup) -> Setup) -> Other {
        let proxy = Proxy::http_watching(self.stage.search.address(), "_bulk").await;
        let own = Setup::new(&self.stage.mysql, &proxy.url())
            .set("sink.type", self.stage.search.product().kind());
        let daemon = setup(member(own, &self.name, self.lease_secs)).spawn();
        daemon.listens().await;
        Other { daemon, proxy }
    }

    /// From here on this one is asked; gives the one that was before.
    pub fn lead(&mut self, other: Other) -> Other {
        let proxy = std::mem::replace(&mut self.stage.proxy, other.proxy);
        Other { daemon: std::mem::replace(&mut self.stage.daemon, other.daemon), proxy }
    }

    /// Operations on the index's documents that came through this proxy.
    fn written(&self, proxy: &Proxy) -> usize {
        let path = format!("/{}.driftless/_bulk", self.stage.index);
        let bulks = proxy.requests().into_iter().filter(|request| request.path.starts_with(&path));
        bulks.map(|bulk| bulk.text().matches("\"version_type\"").count()).sum()
    }

    /// Waits until everything that the leader's state has is in the copy.
    pub async fn until_copied(&self) {
        until_copied(&self.stage.daemon).await;
    }

    async fn lease(&self) -> Option<Value> {
        let path = format!("/.driftless/_doc/lease:{}", self.name);
        let (status, answer) = self.stage.search.request("GET", &path, None).await;
        (status == 200).then(|| answer["_source"].clone())
    }

    /// The independent check, and our own.
    async fn check(&self) {
        let Stage { mysql, search, daemon, db, index, .. } = &self.stage;
        let checker = Checker {
            mysql: mysql.address(),
            node: search.url().to_owned(),
            table: format!("{db}.t"),
            index: index.clone(),
            key: vec!["id"],
            fields: json!({"id": "id", "a": "a", "b": "b"}),
            vectors: json!({}),
            scrolls: true,
        };
        let found = checker.run().await;
        assert!(found.is_clean() && found.rows > 0, "{found:?}");
        let verdict = verify(daemon, &format!("VERIFY LINK {index}")).await;
        assert_eq!(
            (verdict.count("differences"), verdict.count("unjudged")),
            (0, 0),
            "{verdict:?}"
        );
    }

    async fn fill(&self, rows: u32) {
        let numbers = format!(
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        );
        let sql = format!("INSERT INTO {{t}} {numbers} SELECT i, '0', 'old' FROM n");
        self.stage.exec(&sql).await;
    }
}

fn member(setup: Setup, name: &str, lease_secs: i64) -> Setup {
    setup
        .set("standby.name", name)
        .set("standby.lease_secs", lease_secs)
        .env("DRIFTLESS_SECRET_KEY", KEY)
}

async fn leads(daemon: &Daemon) -> bool {
    daemon.metric("driftless_leader").await == Some(1.0)
}

pub async fn until_leads(daemon: &Daemon) {
    until("the daemon leads", SECONDS_30, async || leads(daemon).await).await;
}

/// Waits until the daemon says that another one leads.
pub async fn until_stands_by(daemon: &Daemon) {
    until("the daemon stands by", SECONDS_30, async || {
        let (status, answer) = daemon.request("GET", "/readyz", None).await;
        let stands_by =
            status == 200 && answer["status"] == "standby" && answer["leader"].is_string();
        if stands_by { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
}

/// Checkpoints are written each second, and copied each second.
async fn until_copied(daemon: &Daemon) {
    let began = Instant::now();
    until("what is there now is copied", SECONDS_30, async || {
        let age = daemon.metric("driftless_state_copy_age_ms").await;
        let is_later = began.elapsed() > Duration::from_secs(3);
        if is_later && age == Some(0.0) { Ok(()) } else { Err(format!("{age:?}")) }
    })
    .await;
}

/// Changes rows without pause. Row 1 counts, so whoever reads its document can tell whether it went back.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(stage: &Stage) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mysql, table, stopped) =
            (stage.mysql.clone(), format!("{}.t", stage.db), stop.clone());
        let task = tokio::spawn(async move {
            use mysql_async::prelude::Queryable;
            let mut session = mysql.session().await;
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                count += 1;
                let id = 10 + count % 200;
                for sql in [
                    format!("UPDATE {table} SET a = a + 1 WHERE id = 1"),
                    format!("REPLACE INTO {table} VALUES ({id}, {count}, 'load')"),
                    format!("DELETE FROM {table} WHERE id = {}", 10 + (count + 100) % 200),
                    format!("UPDATE {table} SET id = -id WHERE id IN ({id}, -{id})"),
                ] {
                    // The two ids of a row and its mirror image may both be there.
                    let _ = session.query_drop(sql).await;
                }
            }
        });
        Self { stop, task }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the load ends");
    }
}

/// Looks at the document that counts, all the time.
struct Watch {
    stop: Arc<AtomicBool>,
    highest: Arc<AtomicI64>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start(stage: &Stage) -> Self {
        let (stop, highest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (search, index) = (stage.search.clone(), stage.index.clone());
        let (stopped, seen) = (stop.clone(), highest.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let doc = search.doc(&index, "1").await.expect("it is never deleted");
                let count = doc.source["a"].as_str().expect("a text").parse().expect("a number");
                let before = seen.fetch_max(count, Ordering::Relaxed);
                assert!(count >= before, "the document went back from {before} to {count}");
            }
        });
        Self { stop, highest, task }
    }

    /// Waits until the document has grown by so much.
    async fn grows(&self, by: i64) {
        let from = self.highest.load(Ordering::Relaxed);
        until("the document grows", SECONDS_30, async || {
            self.highest.load(Ordering::Relaxed) >= from + by
        })
        .await;
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the document never went back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_disk_goes_on_from_the_copy_with_models_and_credentials() {
    let _one = one_at_a_time().await;
    let model = Model::start().await;
    let mut pair = Pair::set(LEASE_SECS, |setup| setup).await;
    let door = Door::Driftless(&pair.stage.daemon);
    let model_id = door.deploy_model(&model.address()).await;
    pair.fill(300).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    pair.until_copied().await;
    let epoch = pair.stage.daemon.metric("driftless_source_epoch").await;
    pair.stage.daemon.kill9();
    pair.stage.exec("UPDATE {t} SET a = 'while nobody was there' WHERE id < 5").await;
    pair.stage.exec("DELETE FROM {t} WHERE id = 7").await;

    let other = pair.another(|setup| setup).await;
    pair.lead(other);
    until_leads(&pair.stage.daemon).await;
    pair.stage.until_equal("the new disk goes on", SECONDS_30).await;
    pair.stage.settle().await;
    let written = pair.written(&pair.stage.proxy);
    // Some changes are delivered again; the table of 300 rows is not.
    assert!(written < 60, "{written} operations");
    assert_eq!(pair.stage.daemon.metric("driftless_source_epoch").await, epoch, "the same epoch");
    let asked = model.requests().len();
    Door::Driftless(&pair.stage.daemon).predict(&model_id, "hello").await;
    assert_eq!(model.requests().len(), asked + 1, "the model is there, with its credential");
    pair.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_writes_and_a_killed_one_is_replaced_within_fifteen_seconds() {
    let _one = one_at_a_time().await;
    // As configured where nobody says otherwise.
    let mut pair = Pair::set(10, |setup| setup).await;
    pair.fill(300).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    let other = pair.another(|setup| setup).await;
    until_stands_by(&other.daemon).await;
    pair.until_copied().await;
    until("the standby shows the link", SECONDS_30, async || {
        let shown = other.daemon.sql("CALL dbms_etl.show_sync_link()").await;
        let is_there = shown.rows.len() == 1 && shown.cell(0, "Status") == "standby";
        if is_there { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    let refused = other.daemon.try_sql(&format!("PAUSE LINK {}", pair.stage.index)).await;
    let refused = refused.expect_err("it does not lead");
    assert!(refused.starts_with("503") && refused.contains("stands by"), "{refused}");
    let (status, answer) = other.daemon.request("GET", "/_cluster/settings", None).await;
    assert_eq!(status, 503, "{answer}");
    let load = Load::start(&pair.stage);
    let watch = Watch::start(&pair.stage);
    watch.grows(20).await;
    assert_eq!(pair.written(&other.proxy), 0, "only one writes");
    assert_eq!(other.daemon.metric("driftless_leader").await, Some(0.0));

    pair.stage.daemon.kill9();
    let killed = Instant::now();
    pair.stage.exec("REPLACE INTO {t} VALUES (5000, 'behind', 'the kill')").await;
    until("what was written behind the kill is delivered", SECONDS_30, async || {
        pair.stage.search.doc(&pair.stage.index, "5000").await.is_some()
    })
    .await;
    let took = killed.elapsed();
    pair.lead(other);
    assert!(leads(&pair.stage.daemon).await);
    watch.grows(20).await;
    load.finish().await;
    watch.finish().await;
    pair.stage.settle().await;
    pair.stage.until_equal("all is delivered", SECONDS_30).await;
    pair.check().await;
    assert!(took < Duration::from_secs(15), "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_under_load_wakes_as_standby_and_harms_nothing() {
    let _one = one_at_a_time().await;
    let mut pair = Pair::set(LEASE_SECS, |setup| setup).await;
    pair.fill(300).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    let load = Load::start(&pair.stage);
    let watch = Watch::start(&pair.stage);
    let other = pair.another(|setup| setup).await;
    until_stands_by(&other.daemon).await;
    pair.until_copied().await;
    watch.grows(20).await;
    let mut old = pair.lead(other);
    // Twice, so that each of the two disks was once the old one.
    for _ in 0..2 {
        old.daemon.signal("STOP");
        until_leads(&pair.stage.daemon).await;
        watch.grows(50).await;
        let written = pair.written(&old.proxy);
        old.daemon.signal("CONT");
        until_stands_by(&old.daemon).await;
        let late = pair.written(&old.proxy) - written;
        // At most what every lane had read from its queue when the process was stopped.
        assert!(late < 5_000, "{late} operations behind the lease");
        let written = pair.written(&old.proxy);
        watch.grows(50).await;
        assert_eq!(pair.written(&old.proxy), written, "it writes nothing as standby");
        assert!(leads(&pair.stage.daemon).await);
        pair.until_copied().await;
        old = pair.lead(old);
    }
    load.finish().await;
    watch.finish().await;
    // The one that was stopped last stands by.
    pair.lead(old);
    pair.stage.settle().await;
    pair.stage.until_equal("all is delivered", SECONDS_30).await;
    pair.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_contenders_exactly_one_wins() {
    let _one = one_at_a_time().await;
    let mut pair = Pair::set(LEASE_SECS, |setup| setup).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    let (first, second) = (pair.another(|setup| setup).await, pair.another(|setup| setup).await);
    until_stands_by(&first.daemon).await;
    until_stands_by(&second.daemon).await;
    pair.until_copied().await;
    pair.stage.daemon.kill9();
    let counted =
        async || usize::from(leads(&first.daemon).await) + usize::from(leads(&second.daemon).await);
    until("one of them leads", SECONDS_30, async || counted().await > 0).await;
    // For longer than a lease.
    let began = Instant::now();
    until("it stays the only one", SECONDS_10, async || {
        assert_eq!(counted().await, 1);
        began.elapsed() > Duration::from_secs(7)
    })
    .await;
    let is_first = leads(&first.daemon).await;
    let (winner, loser) = if is_first { (first, second) } else { (second, first) };
    until_stands_by(&loser.daemon).await;
    pair.lead(winner);
    pair.stage.settle().await;
    pair.stage.until_equal("the winner delivers", SECONDS_30).await;
    assert_eq!(pair.written(&loser.proxy), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_away_for_longer_than_the_lease_finds_its_leader_again() {
    let _one = one_at_a_time().await;
    let pair = Pair::set(LEASE_SECS, |setup| setup).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    let term = pair.lease().await.expect("there is a lease")["term"].clone();
    pair.stage.proxy.cut();
    pair.stage.exec("INSERT INTO {t} VALUES (1, 'meanwhile', 'x')").await;
    until("the daemon says that its lease has run out", SECONDS_30, async || {
        let (status, answer) = pair.stage.daemon.request("GET", "/readyz", None).await;
        let says = status == 503 && answer.to_string().contains("has run out");
        if says { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
    assert!(leads(&pair.stage.daemon).await, "nobody else does");
    pair.stage.proxy.mend();
    pair.stage.daemon.ready().await;
    pair.stage.settle().await;
    pair.stage.until_equal("it goes on by itself", SECONDS_30).await;
    assert_eq!(pair.lease().await.expect("there is a lease")["term"], term, "it was never lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_with_another_sealing_key_says_so_and_does_not_take_over() {
    let _one = one_at_a_time().await;
    let model = Model::start().await;
    let mut pair = Pair::set(LEASE_SECS, |setup| setup).await;
    Door::Driftless(&pair.stage.daemon).deploy_model(&model.address()).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    pair.until_copied().await;
    let mut other = pair.another(|setup| setup.env("DRIFTLESS_SECRET_KEY", OTHER_KEY)).await;
    let says = async || {
        let (status, answer) = other.daemon.request("GET", "/readyz", None).await;
        let says = status == 503 && answer.to_string().contains("sealed with another key");
        if says { Ok(()) } else { Err(format!("{status} {answer}")) }
    };
    until("the standby says so before it is needed", SECONDS_30, &says).await;
    pair.stage.daemon.kill9();
    let killed = Instant::now();
    until("the lease has run out twice", SECONDS_30, async || {
        assert!(!leads(&other.daemon).await, "it must not lead");
        killed.elapsed() > Duration::from_secs(12)
    })
    .await;
    until("it still says so", SECONDS_10, &says).await;
    other.daemon.stop().await;
    other.daemon.set_env("DRIFTLESS_SECRET_KEY", KEY);
    other.daemon.start_again().await;
    pair.lead(other);
    until_leads(&pair.stage.daemon).await;
    pair.stage.settle().await;
    pair.stage.until_equal("with the right key it takes over", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_index_of_leases_is_made_again_by_the_one_that_leads() {
    let _one = one_at_a_time().await;
    let mut pair = Pair::set(LEASE_SECS, |setup| setup).await;
    pair.fill(300).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    pair.until_copied().await;
    let other = pair.another(|setup| setup).await;
    until_stands_by(&other.daemon).await;
    pair.stage.search.delete_index(".driftless").await;
    until("the lease is there again", SECONDS_30, async || pair.lease().await).await;
    let path = format!("/.driftless/_doc/list:{}", pair.name);
    until("the copy is there again", SECONDS_30, async || {
        pair.stage.search.request("GET", &path, None).await.0 == 200
    })
    .await;
    assert!(leads(&pair.stage.daemon).await && !leads(&other.daemon).await);
    let described = pair.stage.search.ok("GET", "/.driftless", None).await;
    assert_eq!(described[".driftless"]["mappings"]["dynamic"], "strict", "{described}");
    pair.stage.daemon.kill9();
    pair.stage.exec("UPDATE {t} SET a = 'later' WHERE id = 1").await;
    pair.lead(other);
    until_leads(&pair.stage.daemon).await;
    pair.stage.until_equal("the other goes on", SECONDS_30).await;
    let written = pair.written(&pair.stage.proxy);
    assert!(written < 60, "{written} operations");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_wins_over_an_older_disk_and_a_newer_disk_over_the_copy() {
    let _one = one_at_a_time().await;
    let mut pair = Pair::set(LEASE_SECS, |setup| setup).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    pair.until_copied().await;
    // Its own disk: no wait, and no copy needed.
    pair.stage.daemon.kill9();
    pair.stage.daemon.start_again().await;
    until_leads(&pair.stage.daemon).await;
    let log = pair.stage.daemon.log();
    assert_eq!(log.matches("from_copy=false").count(), 2, "{log}");
    pair.stage.settle().await;

    let other = pair.another(|setup| setup).await;
    until_stands_by(&other.daemon).await;
    let stopped = Instant::now();
    pair.stage.daemon.stop().await;
    let mut old = pair.lead(other);
    until_leads(&pair.stage.daemon).await;
    assert!(stopped.elapsed() < Duration::from_secs(13), "a stopped leader gives its lease back");
    let index = pair.stage.index.clone();
    pair.stage.daemon.sql(&format!("PAUSE LINK {index}")).await;
    pair.until_copied().await;
    let copied = format!("driftless_link_state{{link=\"{index}\",state=\"paused\"}}");
    assert_eq!(pair.stage.daemon.metric(&copied).await, Some(1.0));
    pair.stage.daemon.stop().await;
    old.daemon.start_again().await;
    pair.lead(old);
    until_leads(&pair.stage.daemon).await;
    let log = pair.stage.daemon.log();
    assert_eq!(log.matches("from_copy=true").count(), 1, "{log}");
    let (state, message) = pair.stage.status().await;
    assert_eq!(state, "paused", "what the other one was told is known here: {message}");
    pair.stage.exec("INSERT INTO {t} VALUES (1, 'x', 'y')").await;
    pair.stage.daemon.sql(&format!("RESUME LINK {index}")).await;
    pair.stage.settle().await;
    assert_eq!(difference(&pair.stage.found().await, &pair.stage.expected().await), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_with_links_of_its_own_does_not_lose_them_to_a_name() {
    let _one = one_at_a_time().await;
    let pair = Pair::set(LEASE_SECS, |setup| setup).await;
    let mut alone = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    alone.link().await;
    alone.settle().await;
    alone.daemon.stop().await;
    alone.daemon.reconfigure("standby.name", pair.name.as_str());
    alone.daemon.reconfigure("standby.lease_secs", LEASE_SECS);
    alone.daemon.start_again_unready();
    alone.daemon.listens().await;
    until("it says why it does not stand by", SECONDS_30, async || {
        let (status, answer) = alone.daemon.request("GET", "/readyz", None).await;
        let says = status == 503 && answer.to_string().contains("links of its own");
        if says { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
    alone.daemon.stop().await;
    // Under a name of its own it goes on with what it has.
    alone.daemon.reconfigure("standby.name", unique("alone"));
    alone.daemon.start_again().await;
    until_leads(&alone.daemon).await;
    alone.settle().await;
    alone.until_equal("it goes on", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_before_elasticsearch_steps_in() {
    let _one = one_at_a_time().await;
    let mut pair = Pair::before(Product::Elasticsearch, LEASE_SECS, |setup| setup).await;
    pair.fill(300).await;
    pair.stage.link().await;
    pair.stage.settle().await;
    let other = pair.another(|setup| setup).await;
    until_stands_by(&other.daemon).await;
    pair.until_copied().await;
    pair.stage.daemon.kill9();
    pair.stage.exec("UPDATE {t} SET a = 'later' WHERE id = 1").await;
    pair.lead(other);
    until_leads(&pair.stage.daemon).await;
    pair.stage.until_equal("the other goes on", MINUTES_2).await;
    let written = pair.written(&pair.stage.proxy);
    assert!(written < 60, "{written} operations");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_the_copy_has_the_table_compared() {
    let _one = one_at_a_time().await;
    let mut pair = Pair::set(LEASE_SECS, |setup| setup).await;
    pair.fill(50).await;
    pair.stage.exec("ALTER TABLE {t} MODIFY b MEDIUMTEXT").await;
    // Longer than what the field takes, so each is a dead letter; together they are more than the copy takes of a kind.
    let numbers =
        "WITH RECURSIVE n AS (SELECT 100 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 140)";
    let long = format!("INSERT INTO {{t}} {numbers} SELECT i, '0', REPEAT('x', 40000) FROM n");
    pair.stage.exec(&long).await;
    pair.stage.link().await;
    let series = format!("driftless_dead_letters{{link=\"{}\"}}", pair.stage.index);
    let until_letters = async |daemon: &Daemon, count: f64| {
        until("there are the letters", SECONDS_30, async || {
            let found = daemon.metric(&series).await;
            if found == Some(count) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    until_letters(&pair.stage.daemon, 41.0).await;
    pair.until_copied().await;
    pair.stage.daemon.kill9();
    pair.stage.exec("DELETE FROM {t} WHERE id = 9").await;
    pair.stage.exec("UPDATE {t} SET b = 'short' WHERE id = 110").await;
    let other = pair.another(|setup| setup).await;
    pair.lead(other);
    until_leads(&pair.stage.daemon).await;
    let Stage { search, index, .. } = &pair.stage;
    until("the changes are delivered", SECONDS_30, async || {
        search.doc(index, "110").await.is_some() && search.doc(index, "9").await.is_none()
    })
    .await;
    until_letters(&pair.stage.daemon, 40.0).await;
    let (_, message) = pair.stage.status().await;
    assert!(message.to_string().contains("too large: letters"), "{message}");
    assert_eq!(search.count(index).await, 50);
}
