//! MariaDB as a source, and what holds for every server that cannot name executed transactions: copies, the stream, kills,
//! restarts, domains, groups that are rolled back.

use mysql_async::prelude::Queryable as _;

use crate::support::daemon::Setup;
use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour, OwnMysql};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_10, SECONDS_30, until};

/// Rows `from` to `to`, by a form that all servers read.
pub fn numbers(from: u32, to: u32) -> String {
    let digit = "(SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 \
                 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    format!(
        "INSERT INTO {{t}} SELECT i, CONCAT('row ', i), REPEAT('y', 150) FROM (SELECT {from} + a.d + 10 * b.d + 100 * c.d \
         + 1000 * e.d AS i FROM {digit} a, {digit} b, {digit} c, {digit} e) n WHERE i <= {to}"
    )
}

/// A table is copied while it changes, and followed over every kind of interruption.
pub async fn life(mut server: OwnMysql) {
    let mut stage =
        Stage::set(server.client(), |setup| setup.set("snapshot.chunk_rows", 100)).await;
    stage.exec(&numbers(1, 4_000)).await;
    stage.link().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::spawn(change_until(stage.mysql.clone(), stage.db.clone(), stop.clone()));
    until("a part is copied", SECONDS_30, async || {
        let (_, message) = stage.status().await;
        let documents = stage.found().await.len();
        if documents >= 300 { Ok(()) } else { Err(format!("{documents}: {message}")) }
    })
    .await;
    stage.daemon.kill9();
    stage.daemon.start_again().await;
    stage.until_snapshot_is_done().await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let changes = writer.await.expect("the writer ends");
    assert!(changes > 20, "{changes} changes only");
    stage.until_equal("copied while it changed", MINUTES_2).await;

    stage.daemon.kill9();
    stage.exec("UPDATE {t} SET id = id + 100000 WHERE id % 7 = 0").await;
    stage.exec("DELETE FROM {t} WHERE id % 5 = 0").await;
    stage.daemon.start_again().await;
    stage.until_equal("changes of the meantime", SECONDS_30).await;

    stage.exec("FLUSH BINARY LOGS").await;
    stage.until_equal("nothing happened", SECONDS_30).await;
    stage.exec("UPDATE {t} SET b = 'behind a rotation' WHERE id < 100").await;
    stage.until_equal("behind a rotation", SECONDS_30).await;

    for is_killed in [true, false] {
        match is_killed {
            true => server.kill().await,
            false => server.stop().await,
        }
        if !is_killed {
            stage.daemon.kill9();
        }
        server.start().await;
        stage.mysql = server.client();
        stage.exec("UPDATE {t} SET b = 'after a restart' WHERE id BETWEEN 100 AND 200").await;
        if !is_killed {
            stage.daemon.start_again().await;
        }
        stage.exec("REPLACE INTO {t} VALUES (1, 'new', 'again')").await;
        stage.until_equal("after the server's restart", SECONDS_30).await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

/// Changes rows all over the table, in transactions of several statements; how many.
async fn change_until(
    mysql: Mysql,
    db: String,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> u32 {
    // Where rows must be read again, a copy beside a writer that never rests has no end.
    const CHANGES_MAX: u32 = 1_500;
    let mut count = 0;
    let mut session = mysql.session().await;
    while count < CHANGES_MAX && !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let id = 1 + count * 37 % 4_000;
        for sql in [
            "BEGIN".to_owned(),
            format!("UPDATE {db}.t SET a = 'changed {count}' WHERE id = {id}"),
            format!("DELETE FROM {db}.t WHERE id = {}", id + 3),
            format!("REPLACE INTO {db}.t VALUES ({}, 'new {count}', 'x')", id + 5),
            "COMMIT".to_owned(),
        ] {
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        count += 1;
    }
    count
}

/// Commits hang between log and engine while a table is copied; `hold` and `release` make them.
pub async fn held_commits(stage: &Stage, hold: &[&str], release: &str) {
    stage.exec(&numbers(1, 300)).await;
    // Another link, so that the stream runs and passes the held commits before the copy begins.
    let other = stage.search.index("other", crate::support::stage::index_body()).await;
    let table = format!("{}.other (id BIGINT PRIMARY KEY, a VARCHAR(9), b VARCHAR(9))", stage.db);
    stage.mysql.exec(format!("CREATE TABLE {table}")).await;
    let statement = stage.statement().replace(&stage.index, &other).replace(".t.", ".other.");
    stage.daemon.sql(&statement).await;
    let events =
        || async { stage.daemon.metric("driftless_source_events_total").await.unwrap_or(0.0) };
    let running = async || {
        let answer =
            stage.daemon.sql(&format!("CALL dbms_etl.show_sync_link_by_id('{other}')")).await;
        answer.cell(0, "Message").contains("\"running\"")
    };
    until("the other link runs", SECONDS_30, running).await;
    for sql in hold {
        stage.mysql.exec(sql).await;
    }
    let before = events().await;
    // One transaction: the next one may wait for it before it is in the log.
    let held = [
        "BEGIN",
        "UPDATE {t} SET a = 'new' WHERE id = 5",
        "DELETE FROM {t} WHERE id = 7",
        "UPDATE {t} SET id = 1009 WHERE id = 9",
        "INSERT INTO {t} VALUES (2000, 'new', 'new')",
        "COMMIT",
    ];
    let (mysql, table) = (stage.mysql.clone(), format!("{}.t", stage.db));
    let commit = tokio::spawn(async move {
        let mut session = mysql.session().await;
        for sql in held {
            session.query_drop(sql.replace("{t}", &table)).await.expect("is held, and then done");
        }
    });
    // Four tables' layouts and rows, between a beginning and an end.
    until("the stream has passed the held commit", SECONDS_10, async || {
        events().await >= before + 10.0
    })
    .await;
    assert!(!commit.is_finished(), "the commit is not held");
    stage.link().await;
    commit.await.expect("the held commit ends");
    stage.mysql.exec(release).await;
}

/// How commits of MariaDB hang for five seconds.
pub const HOLD: [&str; 4] = [
    "SET GLOBAL rpl_semi_sync_master_timeout = 5000",
    "SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC",
    "SET GLOBAL rpl_semi_sync_master_wait_no_slave = ON",
    "SET GLOBAL rpl_semi_sync_master_enabled = ON",
];
pub const RELEASE: &str = "SET GLOBAL rpl_semi_sync_master_enabled = OFF";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_11_8_is_copied_and_followed_over_kills_and_restarts() {
    life(servers::own_mysql(Flavour::Mariadb118, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_10_11_is_copied_and_followed_over_kills_and_restarts() {
    life(servers::own_mysql(Flavour::Mariadb1011, &[]).await).await;
}

/// What the log leaves out is read again where it can be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_leave_columns_out_are_followed_on_mariadb() {
    life(servers::own_mysql(Flavour::Mariadb118, &["--binlog-row-image=MINIMAL"]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_by_file_and_offset_on_mariadb() {
    let server = servers::own_mysql(Flavour::Mariadb1011, &[]).await;
    let mut stage = Stage::set(server.client(), |setup| setup.set("source.resume", "file")).await;
    stage.exec(&numbers(1, 50)).await;
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    stage.daemon.kill9();
    stage.exec("UPDATE {t} SET id = id + 1 ORDER BY id DESC").await;
    stage.exec("FLUSH BINARY LOGS").await;
    stage.exec("DELETE FROM {t} WHERE id < 9").await;
    stage.daemon.start_again().await;
    stage.until_equal("what was changed meanwhile is in the index", SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

/// Each domain has numbers of its own, and each is taken up again where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn domains_are_resumed_one_by_one() {
    for flavour in Flavour::MARIADB {
        let server = servers::own_mysql(flavour, &[]).await;
        let mut stage = Stage::set(server.client(), |setup| setup).await;
        let in_domain = async |stage: &Stage, domain: u32, sql: &str| {
            let mut session = stage.mysql.session().await;
            let set =
                format!("SET SESSION gtid_domain_id = {domain}, server_id = {}", 100 + domain);
            session.query_drop(set).await.expect("is set");
            let sql = sql.replace("{t}", &format!("{}.t", stage.db));
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        };
        in_domain(&stage, 7, "INSERT INTO {t} VALUES (1, 'seven', 'x'), (2, 'seven', 'x')").await;
        in_domain(&stage, 3, "INSERT INTO {t} VALUES (3, 'three', 'x')").await;
        stage.link().await;
        stage.until_equal("the rows are documents", SECONDS_30).await;
        for round in 0..3 {
            stage.daemon.kill9();
            for domain in [9, 3, 7, 3, 0] {
                let id = 100 * round + domain;
                let sql =
                    format!("REPLACE INTO {{t}} VALUES ({id}, 'round {round}', 'of {domain}')");
                in_domain(&stage, domain, &sql).await;
            }
            stage.daemon.start_again().await;
            stage.until_equal("all domains", SECONDS_30).await;
        }
        let message = stage.until_state("running").await;
        let position: String = stage.mysql.value("SELECT @@global.gtid_binlog_pos").await;
        let mut parts: Vec<&str> = position.split(',').collect();
        parts.sort_by_key(|part| {
            part.split('-').next().and_then(|domain| domain.parse::<u32>().ok())
        });
        until("the position reads as the server writes it", SECONDS_10, async || {
            let (_, message) = stage.status().await;
            let text = message.to_string();
            if text.contains(&parts.join(",")) { Ok(()) } else { Err(text) }
        })
        .await;
        assert_eq!(message["errors"], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_ed25519_logs_in() {
    let server = servers::own_mysql(Flavour::Mariadb118, &[]).await;
    let mysql = server.client();
    mysql.exec("INSTALL SONAME 'auth_ed25519'").await;
    mysql.exec("CREATE USER signed IDENTIFIED VIA ed25519 USING PASSWORD('Pa55-word')").await;
    mysql.exec("GRANT REPLICATION SLAVE, BINLOG MONITOR, SELECT ON *.* TO signed").await;
    let stage = Stage::set(mysql, |setup: Setup| {
        setup.set("source.user", "signed").set("source.password", "Pa55-word")
    })
    .await;
    stage.exec("INSERT INTO {t} VALUES (1, 'copied', 'x')").await;
    stage.link().await;
    stage.settle().await;
    stage.until_equal("the index equals the table", SECONDS_30).await;
}

/// A transaction that is larger than what is held in memory, with a part of it rolled back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_larger_than_memory_waits_for_its_end_on_disk() {
    let server = servers::own_mysql(Flavour::Mariadb118, &[]).await;
    let stage = Stage::set(server.client(), |setup| setup).await;
    stage.mysql.exec(format!("ALTER TABLE {}.t MODIFY b LONGTEXT", stage.db)).await;
    stage
        .mysql
        .exec(format!("CREATE TABLE {}.m (id INT PRIMARY KEY) ENGINE = MyISAM", stage.db))
        .await;
    stage.link().await;
    stage.settle().await;
    let mut session = stage.mysql.session().await;
    let rows = |from: u32| {
        format!(
            "INSERT INTO {{t}} SELECT {from} + seq, 'large', REPEAT('x', 20000) FROM {{db}}.seq_1_to_900"
        )
    };
    let steps = [
        "BEGIN".to_owned(),
        rows(1_000),
        "SAVEPOINT kept".to_owned(),
        rows(2_000),
        "INSERT INTO {m} VALUES (1)".to_owned(),
        "ROLLBACK TO kept".to_owned(),
        rows(3_000),
        "COMMIT".to_owned(),
    ];
    for sql in steps {
        let sql = sql
            .replace("{t}", &format!("{}.t", stage.db))
            .replace("{m}", &format!("{}.m", stage.db))
            .replace("{db}", &stage.db);
        session
            .query_drop(&sql)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", &sql[..60.min(sql.len())]));
    }
    stage.settle().await;
    stage.until_equal("1800 rows of it happened", SECONDS_30).await;
    assert_eq!(stage.found().await.len(), 1_801);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_mariadb_whose_log_was_purged_is_mended() {
    let server = servers::own_mysql(Flavour::Mariadb1011, &[]).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    stage.link().await;
    stage.settle().await;
    is_mended_where_its_log_is_gone(&mut stage).await;
}

pub async fn is_mended_where_its_log_is_gone(stage: &mut Stage) {
    stage.daemon.stop().await;
    stage.exec("INSERT INTO {t} VALUES (1, 'lost', 'x')").await;
    stage.exec("FLUSH BINARY LOGS").await;
    stage.exec("INSERT INTO {t} VALUES (2, 'there', 'x')").await;
    stage.exec("FLUSH BINARY LOGS").await;
    let logs = stage.mysql.rows("SHOW BINARY LOGS").await;
    let last: String = logs.last().and_then(|row| row.get(0)).expect("there is a log");
    until("the old files are gone", SECONDS_30, async || {
        stage.exec(&format!("PURGE BINARY LOGS TO '{last}'")).await;
        stage.mysql.rows("SHOW BINARY LOGS").await.len() == 1
    })
    .await;
    stage.daemon.start_again().await;
    stage.until_equal("what the purged files had is written", SECONDS_30).await;
    stage.settle().await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_mariadb_has_what_preflight_asks_for_and_no_more() {
    for flavour in Flavour::MARIADB {
        let mysql = servers::mysql(flavour);
        let db = mysql.database("privileges").await;
        mysql.exec(format!("CREATE TABLE {db}.t (id INT PRIMARY KEY, a INT)")).await;
        let user = crate::support::unique("cdc");
        mysql.exec(format!("CREATE USER {user} IDENTIFIED BY 'Pa55-word'")).await;
        let config = driftless::source::Config {
            host: mysql.host().to_owned(),
            port: mysql.port(),
            user: user.clone(),
            password: Some("Pa55-word".into()),
            ..Default::default()
        };
        let table = [driftless::table::TableId::new(&db, "t")];
        let errors = async || {
            use driftless::source::{control, preflight};
            let mut conn = control::connect(&config).await.expect("logs in");
            let found = preflight::preflight(&mut conn, &table).await.expect("looks");
            let errors = found.into_iter().filter(|f| f.level == preflight::Level::Error);
            errors.collect::<Vec<_>>()
        };
        let found = errors().await;
        assert_eq!(found.len(), 3, "{found:#?}");
        for finding in found {
            mysql.exec(&finding.remedy).await;
        }
        assert_eq!(errors().await, []);
        // It does for a link.
        let stage = Stage::set(mysql.clone(), |setup: Setup| {
            setup.set("source.user", user.as_str()).set("source.password", "Pa55-word")
        })
        .await;
        mysql.exec(format!("GRANT SELECT ON {}.t TO {user}", stage.db)).await;
        stage.exec("INSERT INTO {t} VALUES (1, 'copied', 'x')").await;
        stage.link().await;
        stage.settle().await;
        stage.until_equal("the index equals the table", SECONDS_30).await;
        let checked = stage.daemon.run(&["check"]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

/// A server that dies while it writes a transaction leaves a part of it at the end of its log. It is rolled back, its
/// number is given to another one, and its rows are not that one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_transaction_at_the_end_of_a_file_has_not_happened() {
    for flavour in Flavour::MARIADB {
        let mut server = servers::own_mysql(flavour, &[]).await;
        let mut stage = Stage::set(server.client(), |setup| setup).await;
        stage.exec(&numbers(1, 5)).await;
        stage.link().await;
        stage.settle().await;
        stage.daemon.stop().await;
        stage.exec("INSERT INTO {t} VALUES (77, 'never', 'x')").await;
        server.kill().await;
        tear_the_last_commit(server.data_dir());
        server.start().await;
        stage.mysql = server.client();
        let mut session = stage.mysql.session().await;
        for sql in ["SET SESSION sql_log_bin = 0", "DELETE FROM {t} WHERE id = 77"] {
            let sql = sql.replace("{t}", &format!("{}.t", stage.db));
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        stage.exec("UPDATE {t} SET a = 'behind' WHERE id = 3").await;
        stage.daemon.start_again().await;
        stage.settle().await;
        stage.until_equal("what was torn off has not happened", SECONDS_30).await;
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

/// Cuts off the XID event that ends the last file.
fn tear_the_last_commit(dir: &std::path::Path) {
    let index = std::fs::read_to_string(dir.join("binlog.index")).expect("there is an index");
    let last = index.lines().last().expect("it names a file").trim_start_matches("./");
    let path = dir.join(last);
    let bytes = std::fs::read(&path).expect("is readable");
    let (mut at, mut begin) = (4, 4);
    while let Some(size) = bytes.get(at + 9..at + 13).and_then(<[u8]>::first_chunk::<4>) {
        begin = at;
        at += u32::from_le_bytes(*size) as usize;
    }
    assert_eq!((at, bytes[begin + 4]), (bytes.len(), 16), "the last event is an XID");
    std::fs::write(&path, &bytes[..begin]).expect("is written");
}
