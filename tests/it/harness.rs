//! The harness tests itself: what the other tests take for granted about servers and proxy.

use serde_json::json;

use crate::support::proxy::{Fault, Proxy};
use crate::support::search::Product;
use crate::support::servers::{self, Flavour};
use crate::support::{SECONDS_30, http_client, until};

#[tokio::test]
async fn the_shared_servers_are_what_the_rules_need() {
    for flavour in Flavour::ALL {
        let mysql = servers::mysql(flavour);
        let version = mysql.value::<String>("SELECT VERSION()").await;
        assert!(
            version.starts_with(&flavour.name()["mysql-".len()..]),
            "{} is {version}",
            flavour.name()
        );
        let settings = mysql
            .query::<(String, String, String)>(
                "SELECT @@gtid_mode, @@binlog_format, @@binlog_row_image",
            )
            .await;
        assert_eq!(settings, [("ON".to_owned(), "ROW".to_owned(), "FULL".to_owned())]);
    }
    let (status, answer) = servers::opensearch().request("GET", "/", None).await;
    assert_eq!((status, answer["version"]["number"].as_str()), (200, Some("2.19.1")));
    // Elasticsearch's node was built without its first page.
    let path = "/_nodes/_local?filter_path=nodes.*.version";
    let answer = servers::search(Product::Elasticsearch).ok("GET", path, None).await;
    assert!(answer.to_string().contains("\"version\":\"8.19."), "{answer}");
}

#[tokio::test]
async fn a_replication_user_can_log_in_and_read_but_not_write() {
    use mysql_async::prelude::Queryable;
    for flavour in Flavour::ALL {
        let mysql = servers::mysql(flavour);
        let database = mysql.database("harness").await;
        mysql.exec(format!("CREATE TABLE {database}.t (id INT PRIMARY KEY)")).await;
        let (user, password) = mysql.replication_user().await;
        let mut session = mysql.session_as(&user, &password).await;
        let rows: Vec<u32> =
            session.query(format!("SELECT id FROM {database}.t")).await.expect("it may read");
        assert!(rows.is_empty());
        session
            .query_drop(format!("INSERT INTO {database}.t VALUES (1)"))
            .await
            .expect_err("it may not write");
    }
}

#[tokio::test]
async fn documents_come_back_with_their_versions() {
    let search = servers::opensearch();
    let index = search
        .index("harness", json!({"mappings": {"properties": {"n": {"type": "integer"}}}}))
        .await;
    for id in ["1", "a|b", "ü/2"] {
        let id = crate::support::search::encoded(id);
        let path = format!("/{index}/_doc/{id}?version=7&version_type=external_gte");
        search.ok("PUT", &path, Some(json!({"n": 1}))).await;
    }
    let docs = search.docs(&index).await;
    assert_eq!(docs.keys().map(String::as_str).collect::<Vec<_>>(), ["1", "a|b", "ü/2"]);
    assert!(docs.values().all(|doc| doc.version == 7 && doc.source == json!({"n": 1})));
    assert_eq!(search.doc(&index, "ü/2").await.as_ref(), docs.get("ü/2"));
    assert_eq!(search.doc(&index, "none").await, None);
}

#[tokio::test]
async fn the_proxy_holds_the_answer_of_a_bulk_that_was_applied() {
    let (search, proxy, index) = proxied_index().await;
    let gate = proxy.hold_next_answer();
    let sender = tokio::spawn(bulk(proxy.url(), index.clone(), "1"));
    gate.arrived().await;
    assert!(search.doc(&index, "1").await.is_some(), "the index has it, the sender does not know");
    assert_eq!((proxy.forwarded(), proxy.in_flight()), (1, 1));
    gate.open();
    assert_eq!(sender.await.expect("the sender does not panic"), Ok(200));
    until("the answer is handed back", SECONDS_30, async || proxy.in_flight() == 0).await;
    assert_eq!(proxy.unanswered(), 0);
}

#[tokio::test]
async fn the_proxy_sends_a_held_request_although_its_sender_is_gone() {
    let (search, proxy, index) = proxied_index().await;
    let gate = proxy.hold_next_request();
    let sender = tokio::spawn(bulk(proxy.url(), index.clone(), "1"));
    gate.arrived().await;
    assert_eq!(search.doc(&index, "1").await, None);
    sender.abort();
    gate.open();
    until("the late bulk is applied", SECONDS_30, async || search.doc(&index, "1").await).await;
    until("the loss is counted", SECONDS_30, async || proxy.unanswered() == 1).await;
}

#[tokio::test]
async fn the_proxy_refuses_and_loses_what_it_is_told_to() {
    let (search, proxy, index) = proxied_index().await;
    proxy.inject(Fault::status(503));
    proxy.inject_when(|request| request.text().contains("\"_id\":\"2\""), Fault::LoseAnswer);
    proxy.inject(Fault::LoseRequest);
    assert_eq!(bulk(proxy.url(), index.clone(), "1").await, Ok(503));
    assert_eq!(search.doc(&index, "1").await, None);
    assert!(bulk(proxy.url(), index.clone(), "2").await.is_err());
    assert!(search.doc(&index, "2").await.is_some());
    assert!(bulk(proxy.url(), index.clone(), "3").await.is_err());
    assert_eq!(search.doc(&index, "3").await, None);
    assert_eq!(bulk(proxy.url(), index.clone(), "4").await, Ok(200));
    proxy.cut();
    assert!(bulk(proxy.url(), index.clone(), "5").await.is_err());
    proxy.mend();
    assert_eq!(bulk(proxy.url(), index, "6").await, Ok(200));
}

#[tokio::test]
async fn the_proxy_cuts_a_session_of_mysql() {
    use mysql_async::prelude::Queryable;
    let mysql = servers::mysql(Flavour::Mysql97);
    let proxy = Proxy::tcp(&mysql.address()).await;
    let mut session = crate::support::mysql::Mysql::at("127.0.0.1", proxy.port()).session().await;
    let one: Option<u32> =
        session.query_first("SELECT 1").await.expect("it works through the proxy");
    assert_eq!(one, Some(1));
    proxy.cut();
    session.query_drop("SELECT 1").await.expect_err("the connection is cut");
}

#[tokio::test]
async fn a_private_server_survives_its_crash() {
    let mut server = servers::own_mysql(Flavour::Mysql97, &["--server-id=77"]).await;
    assert_eq!(server.client().value::<u32>("SELECT @@server_id").await, 77);
    server.client().exec("CREATE DATABASE survives").await;
    server.kill().await;
    server.start().await;
    assert_eq!(server.client().value::<String>("SHOW DATABASES LIKE 'survives'").await, "survives");
}

async fn proxied_index() -> (crate::support::search::Search, Proxy, String) {
    let search = servers::opensearch();
    let index = search.index("harness", json!({})).await;
    let proxy = Proxy::http(search.url()).await;
    (search, proxy, index)
}

/// Sends one bulk of one document; gives the status, or what broke.
async fn bulk(url: String, index: String, id: &'static str) -> Result<u16, String> {
    let body = format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{{\"n\":1}}\n");
    let request = http_client()
        .post(format!("{url}/{index}/_bulk"))
        .header("content-type", "application/x-ndjson")
        .body(body);
    match request.send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(format!("{error:?}")),
    }
}
