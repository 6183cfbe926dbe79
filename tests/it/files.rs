//! A folder of log files in the place of a server: what a real server wrote is copied and replayed, to the same documents
//! as the table's rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::mysql::Mysql;
use crate::support::search::Search;
use crate::support::servers::{self, Flavour, OwnMysql};
use crate::support::stage::difference;
use crate::support::{MINUTES_2, SECONDS_30, until};

const FULL: &str = "--binlog-row-metadata=FULL";

/// A daemon that replays the files in `dir`, with a link of `t` of database `shop`.
fn setup(dir: &Path, mysql: &Mysql, sink: &Search, index: &str) -> Setup {
    let mapping = ["id", "name", "price", "kind", "doc"]
        .map(|column| format!("{index}.{column}(shop.t.{column})"))
        .join(", ");
    Setup::new(mysql, sink.url())
        .set("source.type", "binlog_files")
        .set("source.path", dir.to_str().expect("a path in UTF-8"))
        .set("source.until_end", true)
        .link(index, &mapping, &format!("{index}.id=shop.t.id"))
}

/// Inserts, updates, deletes, over three files, in part compressed.
async fn write(mysql: &Mysql) {
    let mut session = mysql.session().await;
    let mut run = async |sql: &str| {
        mysql_async::prelude::Queryable::query_drop(&mut session, sql).await.expect(sql);
    };
    for round in 0..3 {
        for n in 0..20 {
            let (id, price) = (round * 20 + n, n);
            run(&format!(
                "INSERT INTO shop.t VALUES ({id}, 'name é {id}', {price}.25, 'b', '{{\"n\": [{id}, null]}}')"
            ))
            .await;
        }
        run("UPDATE shop.t SET price = price + 1, kind = 'a' WHERE id MOD 3 = 0").await;
        run(&format!("DELETE FROM shop.t WHERE id = {}", round * 20 + 7)).await;
        run(&format!("UPDATE shop.t SET id = id + 1000 WHERE id = {}", round * 20 + 8)).await;
        run("FLUSH BINARY LOGS").await;
        run("SET binlog_transaction_compression = ON").await;
    }
}

async fn rows(mysql: &Mysql) -> BTreeMap<String, Value> {
    let sql = "SELECT id, name, CAST(price AS CHAR), kind, CAST(doc AS CHAR) FROM shop.t";
    let rows: Vec<(i64, String, String, String, String)> = mysql.query(sql).await;
    let document = |(id, name, price, kind, doc): (i64, String, String, String, String)| {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let fields = json!({
            "id": id, "name": name, "price": parsed(&price), "kind": kind, "doc": parsed(&doc)
        });
        (id.to_string(), fields)
    };
    rows.into_iter().map(document).collect()
}

async fn documents(sink: &Search, index: &str) -> BTreeMap<String, Value> {
    let docs = sink.docs(index).await;
    docs.into_iter().map(|(id, doc)| (id, doc.source)).collect()
}

/// Copies the log's files; of the last one only so many bytes, if that is given.
fn copy(server: &OwnMysql, to: &Path, last_bytes: Option<usize>) {
    let mut names: Vec<_> = std::fs::read_dir(server.data_dir())
        .expect("the data directory can be listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.starts_with("binlog.0"))
        .collect();
    names.sort();
    // The newest one has nothing in it yet.
    names.pop();
    for (at, name) in names.iter().enumerate() {
        let mut bytes = std::fs::read(server.data_dir().join(name)).expect("a log file");
        if let Some(most) = last_bytes.filter(|_| at + 1 == names.len()) {
            assert!(bytes.len() > most, "there is nothing to cut off");
            bytes.truncate(most);
        }
        std::fs::write(to.join(name), bytes).expect("a copy");
    }
}

async fn ended(daemon: &mut Daemon) -> ExitStatus {
    daemon.exited(MINUTES_2).await
}

async fn source() -> OwnMysql {
    let server = servers::own_mysql(Flavour::Mysql97, &[FULL]).await;
    let mysql = server.client();
    mysql.exec("CREATE DATABASE shop").await;
    mysql
        .exec(
            "CREATE TABLE shop.t (id INT PRIMARY KEY, name VARCHAR(40), price DECIMAL(10,2), \
             kind ENUM('a','b'), doc JSON)",
        )
        .await;
    write(&mysql).await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_files_ends_with_the_documents_of_the_rows() {
    let server = source().await;
    let mysql = server.client();
    let sink = servers::opensearch();
    let fields = json!({"properties": {"doc": {"type": "object", "enabled": false}}});
    let index = sink.index("replayed", json!({"mappings": fields})).await;
    let dir = servers::data_dir();
    copy(&server, dir.path(), Some(3_000));

    // The last file is torn in the middle: what is whole in it is written, and nothing of what is not.
    let mut daemon = setup(dir.path(), &mysql, &sink, &index).spawn();
    assert!(ended(&mut daemon).await.success(), "{}", daemon.log());
    let torn = documents(&sink, &index).await;
    let expected = rows(&mysql).await;
    assert!(torn.len() > 30 && torn != expected, "{} documents", torn.len());

    // It is whole now: the replay goes on where it ended.
    copy(&server, dir.path(), None);
    daemon.start_again_unready();
    assert!(ended(&mut daemon).await.success(), "{}", daemon.log());
    assert_eq!(difference(&documents(&sink, &index).await, &expected), Ok(()));

    // Files that grow are followed where no end is asked for.
    daemon.reconfigure("source.until_end", false);
    daemon.start_again().await;
    mysql.exec("INSERT INTO shop.t VALUES (5000, 'late', 1.5, 'a', '{}')").await;
    mysql.exec("FLUSH BINARY LOGS").await;
    copy(&server, dir.path(), None);
    let expected = rows(&mysql).await;
    until("the new file is read", SECONDS_30, async || {
        difference(&documents(&sink, &index).await, &expected)
    })
    .await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_files_cannot_tell_ends_the_replay_with_a_failure() {
    let server = source().await;
    let mysql = server.client();
    let sink = servers::opensearch();
    let index = sink.index("refused", json!({})).await;
    mysql.exec("ALTER TABLE shop.t MODIFY name TEXT, ADD more INT").await;
    mysql.exec("INSERT INTO shop.t VALUES (6000, 'late', 1.5, 'a', '{}', 1)").await;
    mysql.exec("FLUSH BINARY LOGS").await;
    let dir = servers::data_dir();
    copy(&server, dir.path(), None);
    let mut daemon = setup(dir.path(), &mysql, &sink, &index).spawn();
    assert_eq!(ended(&mut daemon).await.code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("takes a server that can be asked"), "{log}");
    assert!(!documents(&sink, &index).await.contains_key("6000"));
}
