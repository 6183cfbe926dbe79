//! Statements on a mapped table, and near one, that are easily taken for what they are not: temporary tables of its name,
//! other character sets, tables that went before they were looked at, transactions that never come.

use mysql_async::prelude::Queryable as _;
use serde_json::json;

use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, unique, until};

const AS_STATEMENTS: &str = "SET SESSION binlog_format = STATEMENT";
const MINIMAL: &str = "SET SESSION binlog_row_image = MINIMAL";

async fn session(stage: &Stage, statements: &[&str]) -> mysql_async::Conn {
    let mut session = stage.mysql.session().await;
    say(stage, &mut session, &["USE {db}"]).await;
    say(stage, &mut session, statements).await;
    session
}

async fn say(stage: &Stage, session: &mut mysql_async::Conn, statements: &[&str]) {
    for sql in statements {
        let sql = sql.replace("{t}", &format!("{}.t", stage.db)).replace("{db}", &stage.db);
        session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

async fn linked(mysql: Mysql) -> Stage {
    let stage = Stage::set(mysql, |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x')").await;
    stage.link().await;
    stage.settle().await;
    stage
}

async fn is_followed(stage: &Stage, what: &str) {
    stage.settle().await;
    stage.until_equal(what, SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_table_of_a_mapped_name_concerns_nobody_else() {
    for flavour in Flavour::ALL {
        let mut stage = linked(servers::mysql(flavour)).await;
        let temporary = "CREATE TEMPORARY TABLE t (id INT, x INT)";
        let mut one =
            session(&stage, &[AS_STATEMENTS, temporary, "INSERT INTO t VALUES (1, 1)"]).await;
        let renamed =
            ["TRUNCATE TABLE t", "ALTER TABLE t RENAME COLUMN x TO a", "ALTER TABLE t RENAME TO u"];
        say(&stage, &mut one, &renamed).await;
        stage.exec("INSERT INTO {t} VALUES (4, 'd', 'x')").await;
        is_followed(&stage, "nothing went, and the stream goes on").await;
        // The log from where the daemon goes on does not tell that the table is temporary.
        say(&stage, &mut one, &[temporary]).await;
        let mut other = session(&stage, &[AS_STATEMENTS, temporary]).await;
        is_followed(&stage, "beyond the statement that made it").await;
        stage.daemon.stop().await;
        say(&stage, &mut one, &["TRUNCATE TABLE t"]).await;
        say(&stage, &mut other, &["ALTER TABLE t RENAME TO u"]).await;
        stage.exec("INSERT INTO {t} VALUES (5, 'e', 'x')").await;
        stage.daemon.start_again().await;
        is_followed(&stage, "all rows are there again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_read_in_their_clients_character_set() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.mysql.exec(format!("RENAME TABLE {0}.t TO {0}.naïf", stage.db)).await;
    stage.mysql.exec(format!("INSERT INTO {}.naïf VALUES (1, 'a1', 'b1')", stage.db)).await;
    let statement =
        stage.statement().replace(&format!("{}.t.", stage.db), &format!("{}.naïf.", stage.db));
    stage.daemon.sql(&statement).await;
    let is = |id: &'static str, expected: serde_json::Value| {
        let stage = &stage;
        async move {
            until("the row is a document", SECONDS_30, async || {
                let doc = stage.search.doc(&stage.index, id).await.map(|doc| doc.source);
                if doc.as_ref() == Some(&expected) { Ok(()) } else { Err(format!("{doc:?}")) }
            })
            .await;
        }
    };
    is("1", json!({"id": 1, "a": "a1", "b": "b1"})).await;
    let mut latin1 = session(&stage, &["SET NAMES latin1"]).await;
    latin1
        .query_drop(&b"ALTER TABLE na\xeff MODIFY a VARCHAR(200) AFTER b"[..])
        .await
        .expect("the columns change places");
    stage
        .mysql
        .exec(format!("INSERT INTO {}.naïf (id, a, b) VALUES (2, 'a2', 'b2')", stage.db))
        .await;
    is("2", json!({"id": 2, "a": "a2", "b": "b2"})).await;
    latin1.query_drop(&b"TRUNCATE na\xeff"[..]).await.expect("it is emptied");
    until("the documents went", SECONDS_30, async || {
        stage.search.refresh(&stage.index).await;
        stage.found().await.is_empty()
    })
    .await;
}

/// A table that is not there when the statement before it is looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_went_before_it_was_looked_at_is_copied_when_it_is_back() {
    let mut stage = linked(servers::mysql(Flavour::Mysql97)).await;
    stage.daemon.stop().await;
    for sql in [
        "CREATE TABLE {db}._t_gho LIKE {t}",
        "ALTER TABLE {t} ADD INDEX (a)",
        "UPDATE {t} SET a = 'between' WHERE id = 1",
        "DELETE FROM {t} WHERE id = 2",
        "INSERT INTO {db}._t_gho SELECT * FROM {t}",
        "RENAME TABLE {t} TO {db}._t_del",
    ] {
        stage.exec(&sql.replace("{db}", &stage.db)).await;
    }
    stage.daemon.start_again().await;
    until("the link waits for the table", SECONDS_30, async || {
        let message = stage.status().await.1.to_string();
        if message.contains("no table is called") { Ok(()) } else { Err(message) }
    })
    .await;
    stage.exec(&format!("RENAME TABLE {}._t_gho TO {{t}}", stage.db)).await;
    is_followed(&stage, "what was changed before it went is in the index").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_dropped_before_it_was_looked_at_takes_its_documents_along() {
    let setup = |setup: crate::support::daemon::Setup| setup.set("link.on_drop", "delete");
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'x'), (2, 'b', 'x')").await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    stage.exec("ALTER TABLE {t} ADD INDEX (a)").await;
    stage.exec("DROP TABLE {t}").await;
    stage.daemon.start_again().await;
    until("the documents went", SECONDS_30, async || {
        stage.search.refresh(&stage.index).await;
        let found = stage.found().await;
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    stage.exec("CREATE TABLE {t} (id BIGINT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200))").await;
    stage.exec("INSERT INTO {t} VALUES (7, 'another', 'table')").await;
    is_followed(&stage, "a table of the name is followed again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_takes_the_name_is_not_the_table() {
    let mut stage = linked(servers::mysql(Flavour::Mysql97)).await;
    stage.daemon.stop().await;
    for sql in [
        "ALTER TABLE {t} ADD INDEX (a)",
        "RENAME TABLE {t} TO {db}.t_base",
        "CREATE VIEW {t} AS SELECT * FROM {db}.t_base",
        "UPDATE {db}.t_base SET a = 'meanwhile' WHERE id = 2",
    ] {
        stage.exec(&sql.replace("{db}", &stage.db)).await;
    }
    stage.daemon.start_again().await;
    until("the link waits for the table", SECONDS_30, async || {
        let message = stage.status().await.1.to_string();
        if message.contains("no table is called") { Ok(()) } else { Err(message) }
    })
    .await;
    stage.exec("DROP VIEW {t}").await;
    stage.exec(&format!("RENAME TABLE {}.t_base TO {{t}}", stage.db)).await;
    is_followed(&stage, "the table is back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_loses_its_sign_is_copied_again() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("ALTER TABLE {t} MODIFY a DECIMAL(10,2)").await;
    stage.exec("INSERT INTO {t} VALUES (1, -1.5, 'x')").await;
    stage.link().await;
    let unsigned = ["SET SESSION sql_mode = ''", "ALTER TABLE {t} MODIFY a DECIMAL(10,2) UNSIGNED"];
    for (statements, expected) in [(&[][..], -1.5), (&unsigned[..], 0.0)] {
        session(&stage, statements).await;
        until("the value is the table's", SECONDS_30, async || {
            let doc = stage.search.doc(&stage.index, "1").await.map(|doc| doc.source);
            let is_equal = doc.as_ref().is_some_and(|doc| doc["a"] == json!(expected));
            if is_equal { Ok(()) } else { Err(format!("{doc:?}")) }
        })
        .await;
    }
}

/// A key whose texts are ordered otherwise from here on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_begins_anew_where_the_order_of_its_key_changes() {
    let setup = |setup: crate::support::daemon::Setup| setup.set("snapshot.chunk_rows", 20);
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), setup).await;
    let body =
        json!({"mappings": {"properties": {"id": {"type": "keyword"}, "a": {"type": "long"}}}});
    stage.index = stage.search.index("ordered", body).await;
    let table = format!("{}.v", stage.db);
    stage
        .mysql
        .exec(format!(
            "CREATE TABLE {table} (id VARCHAR(40) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, a INT)"
        ))
        .await;
    let mut rows = stage.mysql.session().await;
    for sql in [
        "SET SESSION cte_max_recursion_depth = 100000".to_owned(),
        format!(
            "INSERT INTO {table} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
             SELECT CONCAT(IF(i % 2, 'a', 'B'), LPAD(i * 7919 % 30000, 6, '0'), IF(i % 3, 'x', 'X')), i FROM n"
        ),
    ] {
        rows.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let call = format!("CALL dbms_etl.sync_by_table('search', '{table}', '{}', '*')", stage.index);
    stage.daemon.sql(&call).await;
    let copied = format!("driftless_link_rows_total{{kind=\"snapshot\",link=\"{}\"}}", stage.index);
    until("a part is copied", SECONDS_30, async || {
        stage.daemon.metric(&copied).await.unwrap_or(0.0) > 300.0
    })
    .await;
    stage
        .mysql
        .exec(format!("ALTER TABLE {table} MODIFY id VARCHAR(40) COLLATE utf8mb4_bin"))
        .await;
    until("every row is a document", MINUTES_2, async || {
        let count = stage.search.count(&stage.index).await;
        let (state, _) = stage.status().await;
        if (count, state.as_str()) == (30_000, "running") {
            Ok(())
        } else {
            Err(format!("{count} {state}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_of_another_character_set_is_read_again_as_it_is() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    stage.exec("ALTER TABLE {t} MODIFY a VARCHAR(200) CHARACTER SET latin1").await;
    stage.exec("INSERT INTO {t} VALUES (1, 'é', 'x')").await;
    stage.link().await;
    stage.settle().await;
    session(&stage, &[MINIMAL, "UPDATE {t} SET b = 'y' WHERE id = 1"]).await;
    is_followed(&stage, "the text is what it was").await;
}

/// While the stream is behind, rows come whose images are incomplete and whose keys lie above the copy's bounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_rows_that_come_while_a_copy_begins_are_not_lost() {
    let mut stage = linked(servers::mysql(Flavour::Mysql97)).await;
    stage.daemon.stop().await;
    session(&stage, &[AS_STATEMENTS, "UPDATE {t} SET b = 'a statement'"]).await;
    let inserters: Vec<_> = (0..4)
        .map(|at| {
            let (mysql, table) = (stage.mysql.clone(), format!("{}.t", stage.db));
            tokio::spawn(async move {
                let mut session = mysql.session().await;
                session.query_drop(MINIMAL).await.expect("is set");
                for turn in 0..2_000 {
                    let id = 1_000 + turn * 4 + at;
                    let sql = format!("INSERT INTO {table} (id, a) VALUES ({id}, 'row {id}')");
                    session.query_drop(&sql).await.expect("the key is new");
                }
            })
        })
        .collect();
    let begun = format!("SELECT COUNT(*) FROM {}.t", stage.db);
    until("there is something to catch up with", SECONDS_30, async || {
        stage.mysql.value::<u64>(&begun).await > 1_000
    })
    .await;
    stage.daemon.start_again().await;
    for inserter in inserters {
        inserter.await.expect("all rows are inserted");
    }
    stage.until_equal("no row is missing", MINUTES_2).await;
}

/// XA transactions need a server of their own, for each that is prepared holds up every new link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_within_an_xa_transaction_count_when_it_is_committed() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mut stage = linked(server.client()).await;
    let xid = unique("statements");
    let prepared = [
        AS_STATEMENTS,
        &format!("XA START '{xid}'"),
        "UPDATE {t} SET a = 'by a statement' WHERE id = 1",
        &format!("XA END '{xid}'"),
        &format!("XA PREPARE '{xid}'"),
    ];
    drop(session(&stage, &prepared).await);
    stage.exec("UPDATE {t} SET b = 'y' WHERE id = 2").await;
    is_followed(&stage, "what is prepared does not count").await;
    stage.daemon.stop().await;
    stage.mysql.exec(format!("XA COMMIT '{xid}'")).await;
    stage.daemon.start_again().await;
    is_followed(&stage, "what is committed does").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xa_transaction_elsewhere_does_not_disturb_a_cut_over() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let stage = linked(server.client()).await;
    let xid = unique("elsewhere");
    for sql in [
        "CREATE TABLE {db}.other (id INT PRIMARY KEY)",
        "CREATE TABLE {db}._t_gho LIKE {t}",
        "INSERT INTO {db}._t_gho SELECT * FROM {t}",
        "RENAME TABLE {t} TO {db}._t_del",
    ] {
        stage.exec(&sql.replace("{db}", &stage.db)).await;
    }
    let prepared = [
        &*format!("XA START '{xid}'"),
        "INSERT INTO {db}.other VALUES (1)",
        &format!("XA END '{xid}'"),
        &format!("XA PREPARE '{xid}'"),
    ];
    drop(session(&stage, &prepared).await);
    stage.exec(&format!("RENAME TABLE {}._t_gho TO {{t}}", stage.db)).await;
    stage.mysql.exec(format!("XA COMMIT '{xid}'")).await;
    stage.exec("UPDATE {t} SET a = 'behind' WHERE id = 1").await;
    is_followed(&stage, "the stream goes on").await;
}

/// A number that a session has taken, and gives back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_never_comes_is_not_waited_for() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'x')").await;
    let owned = [
        "SET GTID_NEXT = '3e11fa47-71ca-11e1-9e33-c80aa9429562:77'",
        "BEGIN",
        "INSERT INTO {t} VALUES (9, 'never', 'x')",
    ];
    let mut owner = session(&stage, &owned).await;
    stage.link().await;
    stage.exec("INSERT INTO {t} VALUES (2, 'b', 'x')").await;
    say(&stage, &mut owner, &["ROLLBACK"]).await;
    is_followed(&stage, "the link has begun").await;
}
