//! Forms that a server's log can take, from the server to the index: other event versions, without checksums, with what
//! is only for messages, in several files, encrypted, tagged.

use mysql_async::prelude::Queryable as _;
use serde_json::json;

use crate::support::SECONDS_30;
use crate::support::servers::{self, Flavour, OwnMysql};
use crate::support::stage::Stage;

async fn in_session(stage: &Stage, statements: &[&str]) {
    let mut session = stage.mysql.session().await;
    for sql in statements {
        let sql = sql.replace("{t}", &format!("{}.t", stage.db));
        session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

async fn stage_on(server: &OwnMysql) -> Stage {
    let stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x'), (2, 'old', 'x')").await;
    stage.link().await;
    stage.settle().await;
    stage
}

async fn is_followed(stage: &Stage, what: &str) {
    stage.settle().await;
    stage.until_equal(what, SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

const CHANGES: [&str; 5] = [
    "INSERT INTO {t} VALUES (3, 'new', 'x'), (4, NULL, 'y')",
    "UPDATE {t} SET a = 'changed' WHERE id IN (1, 4)",
    "UPDATE {t} SET id = id + 1 WHERE id < 9 ORDER BY id DESC",
    "DELETE FROM {t} WHERE id = 3",
    "REPLACE INTO {t} VALUES (2, 'again', UUID())",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_events_of_the_first_version_are_followed() {
    let server = servers::own_mysql(Flavour::Mysql80, &["--log-bin-use-v1-row-events=1"]).await;
    let stage = stage_on(&server).await;
    in_session(&stage, &CHANGES).await;
    is_followed(&stage, "what was changed is in the index").await;
}

/// A change of the setting begins a new file of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_come_and_go() {
    for flavour in Flavour::ALL {
        let server = servers::own_mysql(flavour, &["--binlog-checksum=NONE"]).await;
        let mut stage = stage_on(&server).await;
        in_session(&stage, &CHANGES[..2]).await;
        is_followed(&stage, "without checksums").await;
        stage.mysql.exec("SET GLOBAL binlog_checksum = CRC32").await;
        in_session(&stage, &CHANGES[2..4]).await;
        is_followed(&stage, "with checksums").await;
        stage.daemon.stop().await;
        in_session(&stage, &CHANGES[4..]).await;
        stage.mysql.exec("SET GLOBAL binlog_checksum = NONE").await;
        stage.exec("INSERT INTO {t} VALUES (70, 'behind', 'x')").await;
        stage.daemon.start_again().await;
        is_followed(&stage, "one file with and one without").await;
    }
}

/// The texts of statements, savepoints, new files and a restart of the server, all in the way of one link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_many_files_and_words_is_followed() {
    for flavour in Flavour::ALL {
        let mut server = servers::own_mysql(flavour, &["--binlog-rows-query-log-events=ON"]).await;
        let stage = stage_on(&server).await;
        in_session(&stage, &CHANGES).await;
        let savepoints = [
            "BEGIN",
            "INSERT INTO {t} VALUES (20, 'kept', 'x')",
            "SAVEPOINT one",
            "INSERT INTO {t} VALUES (21, 'undone', 'x')",
            "SAVEPOINT two",
            "UPDATE {t} SET a = 'undone' WHERE id = 20",
            "ROLLBACK TO one",
            "INSERT INTO {t} VALUES (22, 'kept', 'x')",
            "RELEASE SAVEPOINT one",
            "COMMIT",
            "FLUSH BINARY LOGS",
            "FLUSH BINARY LOGS",
            "INSERT INTO {t} VALUES (23, 'in a third file', 'x')",
        ];
        in_session(&stage, &savepoints).await;
        is_followed(&stage, "savepoints and files").await;
        server.stop().await;
        server.start().await;
        in_session(&stage, &["INSERT INTO {t} VALUES (24, 'after a restart', 'x')"]).await;
        is_followed(&stage, "after a restart").await;
        server.kill().await;
        server.start().await;
        in_session(&stage, &["DELETE FROM {t} WHERE id = 22"]).await;
        is_followed(&stage, "after a crash").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tagged_transactions_are_followed_and_resumed_from() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x')").await;
    in_session(
        &stage,
        &["SET gtid_next = 'AUTOMATIC:before'", "INSERT INTO {t} VALUES (2, 'old', 'x')"],
    )
    .await;
    stage.link().await;
    stage.settle().await;
    let tagged = [
        "SET gtid_next = 'AUTOMATIC:tag'",
        "UPDATE {t} SET a = 'tagged'",
        "INSERT INTO {t} VALUES (3, 'tagged', 'x')",
    ];
    in_session(&stage, &tagged).await;
    is_followed(&stage, "tagged transactions").await;
    stage.daemon.kill9();
    in_session(&stage, &["SET gtid_next = 'AUTOMATIC:tag'", "DELETE FROM {t} WHERE id = 1"]).await;
    stage.daemon.start_again().await;
    is_followed(&stage, "behind a tagged checkpoint").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_log_is_followed() {
    let keys = servers::data_dir();
    let file = format!("--keyring-file-data={}", keys.path().join("keyring").display());
    let options = ["--early-plugin-load=keyring_file.so", file.as_str(), "--binlog-encryption=ON"];
    let server = servers::own_mysql(Flavour::Mysql80, &options).await;
    let stage = stage_on(&server).await;
    let encrypted: Vec<(String, u64, String)> = stage.mysql.query("SHOW BINARY LOGS").await;
    assert_eq!(encrypted.last().map(|(.., encrypted)| encrypted.as_str()), Some("Yes"));
    in_session(&stage, &CHANGES).await;
    is_followed(&stage, "what was changed is in the index").await;
}

/// What a session logs as statements is copied again, in the stream and where the daemon finds it behind a restart; and
/// documents that lost their rows by it go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_logged_as_statements_are_copied_again() {
    for flavour in Flavour::ALL {
        let mut stage =
            Stage::set(servers::mysql(flavour), |setup| setup.set("snapshot.chunk_rows", 50)).await;
        stage.exec("INSERT INTO {t} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 400) SELECT i, 'old', 'x' FROM n").await;
        stage.link().await;
        stage.settle().await;
        let as_statements = [
            "SET SESSION binlog_format = STATEMENT",
            "UPDATE {t} SET a = 'a statement' WHERE id % 7 = 0",
            "DELETE FROM {t} WHERE id % 5 = 0",
            "BEGIN",
            "INSERT INTO {t} VALUES (500, 'new', 'x')",
            "UPDATE {t} SET id = id + 1000 WHERE id % 11 = 0",
            "COMMIT",
            "SET SESSION binlog_format = ROW",
            "UPDATE {t} SET b = 'rows' WHERE id % 3 = 0",
            "DELETE FROM {t} WHERE id % 13 = 0",
        ];
        in_session(&stage, &as_statements).await;
        is_followed(&stage, "in the stream").await;
        stage.daemon.kill9();
        let again = as_statements.map(|sql| sql.replace("500", "501").replace("% 7", "% 17"));
        in_session(&stage, &again.each_ref().map(String::as_str)).await;
        stage.daemon.start_again().await;
        is_followed(&stage, "in a log from before").await;
    }
}

/// Nobody can say which documents without a row are wanted, and which are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_keeps_documents_without_rows_stops_at_statements() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("link.on_truncate", "ignore")
    })
    .await;
    stage.exec("INSERT INTO {t} VALUES (1, 'old', 'x')").await;
    stage.link().await;
    stage.settle().await;
    let statements = ["SET SESSION binlog_format = STATEMENT", "DELETE FROM {t} WHERE id = 1"];
    in_session(&stage, &statements).await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("was logged as a statement (DELETE …)"), "{errors}");
}

/// One row that no packet of the protocol holds whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_over_sixteen_mebibytes_becomes_a_document() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("ALTER TABLE {t} MODIFY b LONGTEXT").await;
    let body = json!({"mappings": {"properties": {"id": {"type": "long"}, "a": {"type": "keyword"},
        "b": {"type": "text", "index": false}}}});
    stage.index = stage.search.index("large", body).await;
    stage.link().await;
    stage.settle().await;
    stage
        .exec("INSERT INTO {t} VALUES (1, 'large', REPEAT('x', 17 << 20)), (2, 'small', 'x')")
        .await;
    stage.until_equal("the large row is a document", SECONDS_30).await;
    in_session(&stage, &["SET SESSION binlog_row_image = NOBLOB", "UPDATE {t} SET a = 'changed'"])
        .await;
    stage.until_equal("the large row was read again", SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}
