//! Links that begin at a place in the log (`from`): which rows they bring, what is refused, and what a crash changes.

use std::collections::BTreeMap;

use serde_json::Value;
use toml::Table;

use crate::no_gtids::OFF;
use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour};
use crate::support::stage::{Stage, index_body};
use crate::support::{SECONDS_10, SECONDS_30, until};

/// Adds a link of the configuration with an index of its own, which begins at `from`; gives the index.
async fn declare(stage: &Stage, links: &mut Vec<toml::Value>, from: &str) -> String {
    let (db, index) = (&stage.db, stage.search.index("from", index_body()).await);
    let mapping = format!("{index}.id({db}.t.id),{index}.a({db}.t.a),{index}.b({db}.t.b)");
    let key = format!("{index}.id={db}.t.id");
    let link = [("mapping", mapping.as_str()), ("key", &key), ("from", from)];
    let link = link.map(|(name, value)| (name.to_owned(), value.into()));
    links.push(Table::from_iter(link).into());
    index
}

async fn restart(stage: &mut Stage, links: Vec<toml::Value>) {
    stage.daemon.stop().await;
    stage.daemon.reconfigure("links", links);
    stage.daemon.start_again().await;
}

async fn ids(stage: &Stage, index: &str) -> Vec<String> {
    stage.search.docs(index).await.into_keys().collect()
}

async fn until_ids(stage: &Stage, index: &str, expected: &[&str], what: &str) {
    until(what, SECONDS_30, async || {
        let found = ids(stage, index).await;
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}, {}", shown(stage, index).await))
        }
    })
    .await;
}

async fn shown(stage: &Stage, link: &str) -> String {
    let asked = format!("CALL dbms_etl.show_sync_link_by_id('{link}')");
    match stage.daemon.try_sql(&asked).await {
        Ok(answer) => answer.cell(0, "Message"),
        Err(error) => error,
    }
}

/// The end of the log: file and offset.
async fn place(mysql: &Mysql) -> (String, u64) {
    let mut session = mysql.session().await;
    use mysql_async::prelude::Queryable as _;
    let row: Option<mysql_async::Row> = match session.query_first("SHOW MASTER STATUS").await {
        Ok(row) => row,
        Err(_) => session.query_first("SHOW BINARY LOG STATUS").await.expect("has a log"),
    };
    let row = row.expect("has a log");
    (row.get(0).expect("a file"), row.get(1).expect("an offset"))
}

async fn seconds(mysql: &Mysql) -> u64 {
    mysql.value("SELECT UNIX_TIMESTAMP()").await
}

/// The next second on the server's clock has begun, so that its log tells the two apart.
async fn until_next_second(mysql: &Mysql) -> u64 {
    let before = seconds(mysql).await;
    until("a second has passed", SECONDS_10, async || seconds(mysql).await > before).await;
    seconds(mysql).await
}

/// The server's own text of what it has executed; None where it has no GTIDs.
async fn gtids(mysql: &Mysql, flavour: Flavour, has_gtids: bool) -> Option<String> {
    match (flavour.is_mariadb(), has_gtids) {
        (true, _) => Some(mysql.value("SELECT @@global.gtid_binlog_pos").await),
        (false, true) => Some(mysql.value("SELECT @@global.gtid_executed").await),
        (false, false) => None,
    }
}

async fn every_beginning(mysql: Mysql, flavour: Flavour, has_gtids: bool) {
    let mut stage = Stage::set(mysql, |setup| setup.set("link.on_purged", "fail")).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b'), (2, 'a', 'b'), (3, 'a', 'b')").await;
    // The place is not in the first file, and has others behind it.
    stage.exec("FLUSH BINARY LOGS").await;
    stage.exec("UPDATE {t} SET a = 'before' WHERE id = 1").await;
    let (file, offset) = place(&stage.mysql).await;
    let set = gtids(&stage.mysql, flavour, has_gtids).await;
    let moment = until_next_second(&stage.mysql).await;
    stage.exec("UPDATE {t} SET a = 'behind' WHERE id = 2").await;
    stage.exec("FLUSH BINARY LOGS").await;
    stage.exec("INSERT INTO {t} VALUES (4, 'behind', 'it')").await;
    stage.exec("DELETE FROM {t} WHERE id = 3").await;

    let mut links = Vec::new();
    let mut from = vec![format!("file:{file}:{offset}"), format!("{file}:{offset}")];
    from.extend(set.map(|set| format!("gtid:{set}")));
    from.push(format!("timestamp:{}", utc(moment)));
    let mut indexes = BTreeMap::new();
    for from in from {
        indexes.insert(declare(&stage, &mut links, &from).await, from);
    }
    let now = declare(&stage, &mut links, "now").await;
    let snapshot = declare(&stage, &mut links, "snapshot").await;
    restart(&mut stage, links).await;
    for (index, from) in &indexes {
        until_ids(&stage, index, &["2", "4"], &format!("{from} brings what is behind it")).await;
    }
    until_ids(&stage, &snapshot, &["1", "2", "4"], "a copy brings all").await;
    until("the link from now on runs", SECONDS_30, async || {
        let shown = shown(&stage, &now).await;
        if shown.contains("\"running\"") { Ok(()) } else { Err(shown) }
    })
    .await;
    stage.exec("INSERT INTO {t} VALUES (5, 'now', 'now')").await;
    stage.exec("UPDATE {t} SET a = 'newest' WHERE id = 2").await;
    until_ids(&stage, &now, &["2", "5"], "from now on alone").await;
    for kill in [false, true] {
        if kill {
            stage.daemon.kill9();
            stage.exec("INSERT INTO {t} VALUES (6, 'killed', 'it')").await;
            stage.exec("UPDATE {t} SET a = 'killed' WHERE id = 4").await;
            stage.daemon.start_again().await;
            until_ids(&stage, &now, &["2", "4", "5", "6"], "what came meanwhile").await;
        }
        for (index, from) in &indexes {
            let expected: &[&str] = if kill { &["2", "4", "5", "6"] } else { &["2", "4", "5"] };
            until_ids(&stage, index, expected, &format!("{from} goes on")).await;
            let rows = stage.expected().await;
            until("each is as its row", SECONDS_30, async || {
                let found: BTreeMap<String, Value> = stage
                    .search
                    .docs(index)
                    .await
                    .into_iter()
                    .map(|(id, doc)| (id, doc.source))
                    .collect();
                let is_same = found.iter().all(|(id, doc)| rows.get(id) == Some(doc));
                if is_same { Ok(()) } else { Err(format!("{found:?}")) }
            })
            .await;
        }
    }
}

fn utc(seconds: u64) -> String {
    driftless::source::beginning::moment(seconds * 1_000_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_begins_where_it_is_told_to() {
    every_beginning(servers::mysql(Flavour::Mysql97), Flavour::Mysql97, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_on_8_0_begins_where_it_is_told_to() {
    every_beginning(servers::mysql(Flavour::Mysql80), Flavour::Mysql80, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_without_gtids_begins_where_it_is_told_to() {
    let server = servers::own_mysql(Flavour::Mysql80, &OFF).await;
    every_beginning(server.client(), Flavour::Mysql80, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_on_mariadb_begins_where_it_is_told_to() {
    every_beginning(servers::mysql(Flavour::Mariadb118), Flavour::Mariadb118, true).await;
}

/// Makes links from these beginnings; each must be refused with a message that holds all of its texts.
async fn refuses(stage: &mut Stage, refusals: &[(String, Vec<&str>)]) {
    let mut links = Vec::new();
    let mut expected = BTreeMap::new();
    for (from, texts) in refusals {
        expected.insert(declare(stage, &mut links, from).await, (from, texts));
    }
    restart(stage, links).await;
    for (link, (from, texts)) in expected {
        until(&format!("{from} is refused"), SECONDS_30, async || {
            let shown = shown(stage, &link).await;
            let is_told =
                shown.contains("\"failed\"") && texts.iter().all(|text| shown.contains(text));
            if is_told { Ok(()) } else { Err(shown) }
        })
        .await;
        assert_eq!(ids(stage, &link).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_beginning_of_the_log_is_refused_with_what_is_possible() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    let mysql = stage.mysql.clone();
    let (first, _) = place(&mysql).await;
    stage.exec("FLUSH BINARY LOGS").await;
    let (second, _) = place(&mysql).await;
    mysql.exec(format!("PURGE BINARY LOGS TO '{second}'")).await;
    let (_, before) = place(&mysql).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b')").await;
    let one: String = mysql.value("SELECT @@global.gtid_executed").await;
    stage.exec("INSERT INTO {t} VALUES (2, 'a', 'b')").await;
    let (_, end) = place(&mysql).await;
    let (uuid, upto) = one.split_once(":1-").expect("one server's transactions");
    let upto: u64 = upto.parse().expect("a number");
    let refusals = [
        (format!("gtid:{uuid}:1-{}", upto + 100), vec!["has not executed", "oldest place"]),
        (format!("gtid:{uuid}:1-{}:{}", upto - 1, upto + 1), vec!["no beginning of the log"]),
        (format!("gtid:{uuid}:1"), vec!["has purged", second.as_str()]),
        (format!("file:{first}:4"), vec!["has purged", second.as_str()]),
        ("file:other.000099:4".to_owned(), vec!["has no file other.000099", second.as_str()]),
        (format!("file:{second}:{}", end + 1_000_000), vec!["bytes"]),
        (
            format!("file:{second}:{}", before + 1),
            vec!["no transaction ends there", "the last one before"],
        ),
        // Behind the GTID event, which belongs to its transaction.
        (format!("file:{second}:{}", before + 79), vec!["no transaction ends there"]),
        ("timestamp:2999-01-01T00:00:00Z".to_owned(), vec!["clock says"]),
        ("timestamp:2020-01-01T00:00:00Z".to_owned(), vec!["does not go back so far", "earliest"]),
    ];
    refuses(&mut stage, &refusals).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_altered_since_is_refused_and_one_that_was_emptied_is_not() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    let start = place(&stage.mysql).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'b')").await;
    stage.exec("ALTER TABLE {t} ADD COLUMN c INT FIRST").await;
    let altered = place(&stage.mysql).await;
    stage.exec("INSERT INTO {t} VALUES (0, 2, 'a', 'b')").await;
    stage.exec("TRUNCATE TABLE {t}").await;
    stage.exec("INSERT INTO {t} VALUES (0, 3, 'a', 'b')").await;
    let mut links = Vec::new();
    let early = declare(&stage, &mut links, &format!("{}:{}", start.0, start.1)).await;
    let late = declare(&stage, &mut links, &format!("{}:{}", altered.0, altered.1)).await;
    restart(&mut stage, links).await;
    until("it is told", SECONDS_30, async || {
        let shown = shown(&stage, &early).await;
        let is_told =
            shown.contains("\"failed\"") && shown.contains("was altered behind the place");
        if is_told { Ok(()) } else { Err(shown) }
    })
    .await;
    until_ids(&stage, &late, &["3"], "what was emptied is empty").await;
}
