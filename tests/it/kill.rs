//! Kill -9 under load, twenty times, and a few times before Elasticsearch: between a bulk and its acknowledgement, inside a
//! chunk of the snapshot, anywhere. In the end the index must equal the table, row by row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::proxy::Gate;
use crate::support::search::Product;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

/// How much is done to a daemon.
struct Extent {
    product: Product,
    kills: u32,
    /// Of these; the others meet the stream.
    kills_in_snapshot: u32,
    /// Kills of each kind that must have happened.
    met_at_least: u32,
    with_large_transaction: bool,
}

const ROWS_BEFORE: u32 = 40_000;

/// A small generator of our own, so that a seed printed is a load repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Writes without pause until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    statements: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(stage: &Stage, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let statements = Arc::new(AtomicU64::new(0));
        let writers: [fn(&mut Random) -> Vec<String>; 3] =
            [single_rows, shifted_range, swapped_keys];
        let tasks = writers
            .into_iter()
            .enumerate()
            .map(|(number, writer)| {
                let (mysql, table) = (stage.mysql.clone(), format!("{}.t", stage.db));
                let (stop, statements) = (stop.clone(), statements.clone());
                let mut random = Random(seed + number as u64);
                tokio::spawn(async move {
                    use mysql_async::prelude::Queryable;
                    let mut session = mysql.session().await;
                    while !stop.load(Ordering::Relaxed) {
                        for sql in writer(&mut random) {
                            session
                                .query_drop(sql.replace("{t}", &table))
                                .await
                                .expect("the load's statement runs");
                            statements.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
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

/// Inserts, updates and deletes of single rows, also among those that the snapshot copies.
fn single_rows(random: &mut Random) -> Vec<String> {
    let id = random.below(u64::from(ROWS_BEFORE) + 5_000);
    let value = random.below(1_000_000);
    vec![match random.below(10) {
        0..=4 => format!("REPLACE INTO {{t}} VALUES ({id}, 'r{value}', 'x')"),
        5..=8 => format!("UPDATE {{t}} SET a = 'u{value}' WHERE id = {id}"),
        _ => format!("DELETE FROM {{t}} WHERE id = {id}"),
    }]
}

/// `ID = ID + 1` over a range, there and back: one event deletes and writes the same documents.
fn shifted_range(random: &mut Random) -> Vec<String> {
    let from = 100_000 + random.below(3) * 10_000;
    let to = from + 400;
    vec![
        format!("UPDATE {{t}} SET id = id + 1 WHERE id BETWEEN {from} AND {to} ORDER BY id DESC"),
        format!(
            "UPDATE {{t}} SET id = id - 1, a = 'v{}' WHERE id BETWEEN {from} AND {to} + 1 ORDER BY id",
            random.below(1_000)
        ),
    ]
}

/// Two rows change keys with each other.
fn swapped_keys(random: &mut Random) -> Vec<String> {
    let (a, b) = (200_000 + random.below(20), 200_020 + random.below(20));
    vec![
        "BEGIN".to_owned(),
        format!("UPDATE {{t}} SET id = -1 WHERE id = {a}"),
        format!("UPDATE {{t}} SET id = {a} WHERE id = {b}"),
        format!("UPDATE {{t}} SET id = {b} WHERE id = -1"),
        "COMMIT".to_owned(),
    ]
}

fn numbers(from: u32, count: u32) -> String {
    format!(
        "INSERT INTO {{t}} WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) \
         SELECT {from} + i, CONCAT('row ', i), REPEAT('y', 40) FROM n"
    )
}

async fn fill(stage: &Stage, from: u32, count: u32) {
    use mysql_async::prelude::Queryable;
    let mut session = stage.mysql.session().await;
    session
        .query_drop("SET SESSION cte_max_recursion_depth = 10000000")
        .await
        .expect("a session variable");
    session
        .query_drop(numbers(from, count).replace("{t}", &format!("{}.t", stage.db)))
        .await
        .expect("rows are made");
}

/// What the kills have met.
#[derive(Debug, Default)]
struct Met {
    between_bulk_and_answer: u32,
    inside_a_chunk: u32,
    elsewhere: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_load_lose_nothing() {
    lose_nothing(Extent {
        product: Product::OpenSearch,
        kills: 20,
        kills_in_snapshot: 8,
        met_at_least: 3,
        with_large_transaction: true,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_kills_before_elasticsearch_lose_nothing() {
    lose_nothing(Extent {
        product: Product::Elasticsearch,
        kills: 5,
        kills_in_snapshot: 3,
        met_at_least: 1,
        with_large_transaction: false,
    })
    .await;
}

async fn lose_nothing(extent: Extent) {
    let kills = extent.kills;
    let seed =
        std::env::var("KILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |now| now.as_secs())
        });
    eprintln!("kill test: seed {seed} (KILL_SEED repeats it)");
    let mut random = Random(seed);
    let search = servers::search(extent.product);
    let mut stage = Stage::before(search, servers::mysql(Flavour::Mysql97), |setup| {
        setup
            .set("snapshot.chunk_rows", 1_000)
            .set("sink.bulk_documents", 500)
            .set("link.checkpoint_interval_ms", 200)
    })
    .await;
    fill(&stage, 0, ROWS_BEFORE).await;
    for range in 0..3 {
        fill(&stage, 100_000 + range * 10_000, 401).await;
    }
    fill(&stage, 200_000, 40).await;
    let load = Load::start(&stage, seed);
    stage.link().await;
    let mut met = Met::default();
    let mut large = Vec::new();
    let mut held_early = None;
    for kill in 0..kills {
        if kill == extent.kills_in_snapshot {
            stage.until_snapshot_is_done().await;
            if extent.with_large_transaction {
                let (mysql, db) = (stage.mysql.clone(), stage.db.clone());
                large.push(tokio::spawn(async move { one_large_transaction(&mysql, &db).await }));
            }
        }
        kill_once(&mut stage, &mut random, &mut met, held_early.take()).await;
        if kill + 1 < extent.kills_in_snapshot {
            held_early = Some(stage.proxy.hold_next_answer());
        }
        stage.daemon.start_again().await;
    }
    for transaction in large {
        transaction.await.expect("the large transaction commits");
    }
    let statements = load.finish().await;
    eprintln!(
        "kill test: {kills} kills under {statements} statements: {} between a bulk and its acknowledgement, {} inside \
         a chunk of the snapshot, {} elsewhere",
        met.between_bulk_and_answer, met.inside_a_chunk, met.elsewhere
    );
    stage.until_equal("the index equals the table", MINUTES_2).await;
    assert!(met.between_bulk_and_answer >= extent.met_at_least, "{met:?}");
    assert!(met.inside_a_chunk >= extent.met_at_least, "{met:?}");
}

/// 100,000 rows in one transaction, and a change of all of them in another.
async fn one_large_transaction(mysql: &crate::support::mysql::Mysql, db: &str) {
    use mysql_async::prelude::Queryable;
    let mut session = mysql.session().await;
    session
        .query_drop("SET SESSION cte_max_recursion_depth = 10000000")
        .await
        .expect("a session variable");
    for sql in [
        numbers(1_000_000, 100_000),
        "UPDATE {t} SET b = CONCAT(b, '!') WHERE id BETWEEN 1000000 AND 1100000".to_owned(),
    ] {
        session
            .query_drop(sql.replace("{t}", &format!("{db}.t")))
            .await
            .expect("the large transaction runs");
    }
}

/// Two kills of three wait for a bulk that the index has applied and whose answer is held; the third falls where it
/// falls, after some bulks. In the snapshot (`held_early`) every kill waits for the first bulk of the life before it, so
/// that the copy does not end before enough of them have met it.
async fn kill_once(
    stage: &mut Stage,
    random: &mut Random,
    met: &mut Met,
    held_early: Option<Gate>,
) {
    let is_copying = held_early.is_some() || stage.status().await.0 == "snapshotting";
    let held = match held_early {
        Some(gate) => Some(gate),
        None => {
            let reached = stage.proxy.forwarded() + random.below(6);
            until("some bulks have passed", SECONDS_30, async || {
                stage.proxy.forwarded() >= reached
            })
            .await;
            (random.below(3) != 0).then(|| stage.proxy.hold_next_answer())
        }
    };
    if let Some(gate) = &held {
        gate.arrived().await;
    }
    let in_flight = stage.proxy.in_flight();
    let still_copying = is_copying && stage.status().await.0 == "snapshotting";
    stage.daemon.kill9();
    match (in_flight > 0, still_copying) {
        // A chunk whose rows are on their way has not been recorded as done.
        (true, true) => {
            met.between_bulk_and_answer += 1;
            met.inside_a_chunk += 1;
        }
        (true, false) => met.between_bulk_and_answer += 1,
        (false, true) => met.inside_a_chunk += 1,
        (false, false) => met.elsewhere += 1,
    }
    if let Some(gate) = held {
        gate.open();
    }
}
