//! The load beneath the faults: writers that change rows without pause, each its own, with a counter that only grows, and
//! a watcher that looks at documents all the time and notes those whose counter went back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use serde_json::json;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use crate::chaos::Random;
use crate::support::mysql::Mysql;
use crate::support::pass;
use crate::support::search::Search;

const WRITERS: u64 = 3;
/// Rows of one writer.
const ROWS: u64 = 400;
/// Keys of different writers are this far apart.
const APART: u64 = 1_000_000;

/// Until a server that is away is asked again.
const AWAY: Duration = Duration::from_millis(50);

/// Where the writers write. Who holds it for writing has their pause.
pub type Target = Arc<RwLock<Mysql>>;

pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(target: &Target, table: &str, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..WRITERS)
            .map(|number| {
                let (target, table, stop) = (target.clone(), table.to_owned(), stop.clone());
                let random = Random::new(seed.wrapping_add(number));
                tokio::spawn(write(Writer { number, random, counter: 0 }, target, table, stop))
            })
            .collect();
        Self { stop, tasks }
    }

    pub async fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.expect("a writer ends");
        }
    }
}

struct Writer {
    number: u64,
    random: Random,
    counter: u64,
}

/// What cannot be written, because the server is away, is not tried again: the next is something else.
async fn write(mut writer: Writer, target: Target, table: String, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let statements = writer.transaction();
        let mysql = target.read().await;
        let Ok(mut session) = mysql.try_session().await else {
            drop(mysql);
            pass(AWAY).await;
            continue;
        };
        for statement in statements {
            if session.query_drop(statement.replace("{t}", &table)).await.is_err() {
                break;
            }
        }
    }
}

impl Writer {
    fn key(&mut self) -> u64 {
        self.number * APART + self.random.below(ROWS)
    }

    fn transaction(&mut self) -> Vec<String> {
        self.counter += 1;
        let (n, key, other) = (self.counter, self.key(), self.key());
        let from = self.number * APART;
        let text = "z".repeat(self.random.below(150) as usize);
        match self.random.below(20) {
            0..=7 => vec![format!("REPLACE INTO {{t}} VALUES ({key}, {n}, 'r{n}', '{text}')")],
            8..=12 => vec![format!("UPDATE {{t}} SET n = {n}, b = '{text}' WHERE id = {key}")],
            13 => vec![format!("DELETE FROM {{t}} WHERE id = {key}")],
            14 => vec![
                "SET SESSION binlog_row_image = MINIMAL".to_owned(),
                format!("UPDATE {{t}} SET n = {n} WHERE id = {key}"),
            ],
            15 => vec![
                "SET SESSION binlog_transaction_compression = ON".to_owned(),
                format!(
                    "UPDATE {{t}} SET n = {n}, a = 'all' WHERE id BETWEEN {from} AND {from} + {ROWS}"
                ),
            ],
            // One event that deletes and writes the same documents.
            16 => vec![format!(
                "UPDATE {{t}} SET id = id + 1, n = {n} WHERE id BETWEEN {key} AND {from} + {ROWS} ORDER BY id DESC LIMIT 50"
            )],
            17 => vec![
                "BEGIN".to_owned(),
                format!("UPDATE {{t}} SET id = {from} + 999999, n = {n} WHERE id = {key}"),
                format!("UPDATE {{t}} SET id = {key}, n = {n} WHERE id = {other}"),
                format!("UPDATE {{t}} SET id = {other}, n = {n} WHERE id = {from} + 999999"),
                "COMMIT".to_owned(),
            ],
            18 => vec![
                "BEGIN".to_owned(),
                format!("REPLACE INTO {{t}} VALUES ({key}, {n}, 'never', 'x')"),
                "ROLLBACK".to_owned(),
            ],
            _ => {
                let xid = format!("'w{}-{n}'", self.number);
                vec![
                    format!("XA START {xid}"),
                    format!("UPDATE {{t}} SET n = {n}, a = 'xa' WHERE id = {key}"),
                    format!("XA END {xid}"),
                    format!("XA PREPARE {xid}"),
                    format!("XA COMMIT {xid}"),
                ]
            }
        }
    }
}

/// Rows that are there before the link.
pub fn first_rows() -> Vec<String> {
    let rows = |number: u64| {
        format!(
            "INSERT INTO {{t}} WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {ROWS}) \
             SELECT {} + i, 0, 'first', 'x' FROM n",
            number * APART
        )
    };
    (0..WRITERS).map(rows).collect()
}

/// What the watcher has seen.
#[derive(Default)]
struct Seen {
    counters: BTreeMap<String, u64>,
    regressed: u64,
    told: Vec<String>,
    moved_at: Option<Instant>,
    longest_stall: Duration,
}

pub struct Watcher {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Looks at documents by their ids, which shows what was acknowledged last, refreshed or not.
    pub fn start(search: Search, index: &str) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let ids: Vec<String> = (0..WRITERS)
            .flat_map(|number| (0..40).map(move |row| (number * APART + row * 10).to_string()))
            .collect();
        let path = format!("/{index}/_mget");
        let (shared, stopped) = (seen.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let before = shared.lock().expect("nobody panics with it").counters.clone();
                let answer = search.try_request("POST", &path, Some(json!({"ids": ids}))).await;
                let Ok((200, answer)) = answer else {
                    pass(AWAY).await;
                    continue;
                };
                let mut seen = shared.lock().expect("nobody panics with it");
                // The scene has made it forget meanwhile: this is what was before.
                if seen.counters.len() < before.len() {
                    continue;
                }
                seen.look(answer["docs"].as_array().map_or(&[], Vec::as_slice));
            }
        });
        Self { seen, stop, task: Some(task) }
    }

    pub fn begin_round(&self) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        (seen.moved_at, seen.longest_stall) = (Some(Instant::now()), Duration::ZERO);
        seen.regressed = 0;
    }

    /// How many documents went back in this round, and for how long none went on.
    pub fn end_round(&self) -> (u64, Duration) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        for told in seen.told.drain(..) {
            eprintln!("chaos: {told}");
        }
        (seen.regressed, seen.longest_stall)
    }

    /// A node that was killed forgets what it showed and had not acknowledged.
    pub fn forget(&self) {
        self.seen.lock().expect("nobody panics with it").counters.clear();
    }

    pub async fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            task.await.expect("the watcher ends");
        }
    }
}

impl Seen {
    fn look(&mut self, docs: &[serde_json::Value]) {
        for doc in docs {
            let (Some(id), Some(n)) = (doc["_id"].as_str(), doc["_source"]["n"].as_u64()) else {
                continue;
            };
            let last = self.counters.insert(id.to_owned(), n).unwrap_or(0);
            if n < last {
                self.regressed += 1;
                self.told.push(format!("document {id} went back from {last} to {n}: {doc}"));
            }
            if n > last {
                let moved_at = self.moved_at.replace(Instant::now());
                let stall = moved_at.map_or(Duration::ZERO, |at| at.elapsed());
                self.longest_stall = self.longest_stall.max(stall);
            }
        }
    }
}
