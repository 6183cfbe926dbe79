//! Bounds: a transaction far larger than the memory that is allowed, and many links at once.

use std::time::Instant;

use serde_json::json;

use crate::delivery::fill;
use crate::faults::{metric, nobody_finds_a_difference};
use crate::support::daemon::Setup;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, until};

const LIMIT_MB: u32 = 16;

/// The least limit that there is; `DRIFTLESS_TIMES_MEMORY=40` for what the reliability page promises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_many_times_the_memory_limit_passes() {
    const ROW_BYTES: u32 = 64 << 10;
    let times = std::env::var("DRIFTLESS_TIMES_MEMORY").ok().and_then(|times| times.parse().ok());
    let rows = times.unwrap_or(16) * LIMIT_MB * (1 << 20) / ROW_BYTES;
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("memory_limit_bytes", format!("{LIMIT_MB}MiB"))
    })
    .await;
    stage.exec("ALTER TABLE {t} MODIFY b MEDIUMTEXT").await;
    let wide = json!({"mappings": {"properties": {"id": {"type": "long"}, "a": {"type": "keyword"},
        "b": {"type": "text", "index": false}}}});
    stage.index = stage.search.index("wide", wide).await;
    stage.link().await;
    stage.settle().await;
    let idle = metric(&stage, "driftless_memory_resident_bytes").await;
    let began = Instant::now();
    fill(&stage, 0, rows, ROW_BYTES).await;
    until("everything is a document", MINUTES_2 * 3, async || {
        let count = stage.search.count(&stage.index).await;
        if count == u64::from(rows) + 1 { Ok(()) } else { Err(format!("{count} of {rows}")) }
    })
    .await;
    let most = stage.daemon.most_resident_bytes();
    eprintln!(
        "bounds: {} MiB in one transaction at a limit of {LIMIT_MB} MiB: idle {:.0} MiB, at most {:.0} MiB, {:?}",
        rows * (ROW_BYTES >> 10) / 1024,
        idle / 1048576.0,
        most / 1048576.0,
        began.elapsed()
    );
    // Of the limit twice: a batch that is sent exists as its request too. The allocator keeps what was used.
    let limit = f64::from(LIMIT_MB << 20);
    assert!(most <= idle + 4.0 * limit, "{most} bytes, idle were {idle}");
    stage.settle().await;
    nobody_finds_a_difference(&stage, "the transaction is in the index").await;
}

/// `DRIFTLESS_LINKS=500` for more. Each link has an index of its own, and a node of the tests takes a thousand of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_links_start_at_once_and_run() {
    let wanted = std::env::var("DRIFTLESS_LINKS").ok().and_then(|links| links.parse().ok());
    let links: usize = wanted.unwrap_or(24);
    // The shared node has the indexes of the other tests too.
    let node = match wanted.is_some() {
        true => Some(servers::own_opensearch().await),
        false => None,
    };
    let search = node.as_ref().map_or_else(servers::opensearch, servers::OwnOpensearch::client);
    let mysql = servers::mysql(Flavour::Mysql97);
    let db = mysql.database("many").await;
    let mut setup = Setup::new(&mysql, search.url()).set("memory_limit_bytes", "16MiB");
    let mut indexes = Vec::new();
    let body = json!({"settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"id": {"type": "long"}, "a": {"type": "keyword"}}}});
    for at in 0..links {
        mysql.exec(format!("CREATE TABLE {db}.t{at} (id BIGINT PRIMARY KEY, a VARCHAR(50))")).await;
        mysql.exec(format!("INSERT INTO {db}.t{at} VALUES (1, 'copied'), (2, 'copied')")).await;
        let index = search.index("many", body.clone()).await;
        let mapping = format!("{index}.id({db}.t{at}.id),{index}.a({db}.t{at}.a)");
        setup = setup.link(&index, &mapping, &format!("{index}.id={db}.t{at}.id"));
        indexes.push(index);
    }
    let began = Instant::now();
    let mut daemon = setup.spawn();
    let all_have = async |id: &str, a: &str| {
        for (at, index) in indexes.iter().enumerate() {
            until(&format!("row {id} of table {at} is a document"), MINUTES_2 * 5, async || {
                search.doc(index, id).await.is_some_and(|doc| doc.source["a"] == a)
            })
            .await;
        }
    };
    all_have("2", "copied").await;
    let copied = began.elapsed();
    daemon.ready().await;
    let began = Instant::now();
    for at in 0..links {
        mysql.exec(format!("UPDATE {db}.t{at} SET a = 'streamed' WHERE id = 1")).await;
    }
    all_have("1", "streamed").await;
    let streamed = began.elapsed();
    daemon.kill9();
    for at in 0..links {
        mysql.exec(format!("INSERT INTO {db}.t{at} VALUES (3, 'behind a kill')")).await;
    }
    let began = Instant::now();
    daemon.start_again_unready();
    all_have("3", "behind a kill").await;
    daemon.ready().await;
    eprintln!(
        "many links: {links}: copied after {copied:.1?}, streamed after {streamed:.1?}, again after a kill {:.1?}, at most \
         {:.0} MiB",
        began.elapsed(),
        daemon.most_resident_bytes() / 1048576.0
    );
    for index in &indexes {
        search.delete_index(index).await;
    }
}
