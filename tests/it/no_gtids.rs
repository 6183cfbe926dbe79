//! MySQL without GTIDs as a source: by places in its log, with copies that wait for active transactions.

use mysql_async::prelude::Queryable as _;

use crate::mariadb::{held_commits, is_mended_where_its_log_is_gone, life, numbers};
use crate::support::servers::{self, Flavour, OwnMysql};
use crate::support::stage::Stage;
use crate::support::{SECONDS_10, SECONDS_30, until};

pub const OFF: [&str; 2] = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"];

async fn own(flavour: Flavour) -> OwnMysql {
    servers::own_mysql(flavour, &OFF).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_9_7_is_copied_and_followed_without_gtids() {
    life(own(Flavour::Mysql97).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_8_0_is_copied_and_followed_without_gtids() {
    life(own(Flavour::Mysql80).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_leave_columns_out_are_followed_without_gtids() {
    let options = [OFF[0], OFF[1], "--binlog-row-image=MINIMAL"];
    let server = servers::own_mysql(Flavour::Mysql80, &options).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec(&numbers(1, 900)).await;
    stage.link().await;
    stage.until_equal("copied", SECONDS_30).await;
    stage.exec("UPDATE {t} SET a = 'one column' WHERE id % 3 = 0").await;
    stage.until_equal("followed", SECONDS_30).await;
    stage.daemon.kill9();
    stage.exec("UPDATE {t} SET b = 'another' WHERE id % 5 = 0").await;
    stage.exec("DELETE FROM {t} WHERE id % 7 = 0").await;
    stage.daemon.start_again().await;
    stage.until_equal("what was changed meanwhile", SECONDS_30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_waits_for_a_transaction_that_works_and_not_for_one_that_idles() {
    let server = own(Flavour::Mysql80).await;
    let stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec(&numbers(1, 50)).await;
    let table = format!("{}.t", stage.db);
    let mut idle = stage.mysql.session().await;
    for sql in ["BEGIN".to_owned(), format!("UPDATE {table} SET a = 'never' WHERE id = 9")] {
        idle.query_drop(sql).await.expect("is begun");
    }
    let mut works = stage.mysql.session().await;
    for sql in ["BEGIN".to_owned(), format!("UPDATE {table} SET a = 'worked' WHERE id = 8")] {
        works.query_drop(sql).await.expect("is begun");
    }
    let lock = stage.mysql.session().await;
    let mut lock = lock;
    lock.query_drop("DO GET_LOCK('driftless_works', 30)").await.expect("is locked");
    let working = tokio::spawn(async move {
        works.query_drop("DO GET_LOCK('driftless_works', 60)").await.expect("waits");
        works.query_drop("COMMIT").await.expect("is committed");
    });
    stage.link().await;
    until("what is waited for is told", SECONDS_30, async || {
        let (_, message) = stage.status().await;
        let text = message.to_string();
        if text.contains("1 transactions have ended that were active") { Ok(()) } else { Err(text) }
    })
    .await;
    lock.query_drop("DO RELEASE_LOCK('driftless_works')").await.expect("is released");
    working.await.expect("ends");
    stage.until_equal("the copy went on, beside a transaction that idles", SECONDS_30).await;
    idle.query_drop("ROLLBACK").await.expect("is rolled back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_log_was_purged_is_mended_without_gtids() {
    let server = own(Flavour::Mysql97).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    stage.link().await;
    stage.settle().await;
    is_mended_where_its_log_is_gone(&mut stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_without_gtids_is_no_place_to_go_on() {
    let server = own(Flavour::Mysql80).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec(&numbers(1, 5)).await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    let other = own(Flavour::Mysql80).await;
    let mysql = other.client();
    for sql in ["FLUSH BINARY LOGS", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS"] {
        mysql.exec(sql).await;
    }
    stage.daemon.reconfigure("source.port", i64::from(other.port()));
    stage.daemon.start_again().await;
    until("the link says so", SECONDS_30, async || {
        let (state, message) = stage.status().await;
        let text = message.to_string();
        let is_told = state == "failed" && text.contains("another server wrote it");
        if is_told { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gtids_that_are_switched_on_later_do_not_stop_a_link() {
    let server = own(Flavour::Mysql80).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    stage.exec(&numbers(1, 20)).await;
    stage.link().await;
    stage.until_equal("copied", SECONDS_30).await;
    for sql in [
        "SET GLOBAL enforce_gtid_consistency = ON",
        "SET GLOBAL gtid_mode = OFF_PERMISSIVE",
        "SET GLOBAL gtid_mode = ON_PERMISSIVE",
    ] {
        stage.mysql.exec(sql).await;
        stage.exec("UPDATE {t} SET a = UUID() WHERE id < 5").await;
    }
    until("gtid_mode is ON", SECONDS_10, async || {
        stage.mysql.try_exec("SET GLOBAL gtid_mode = ON").await
    })
    .await;
    stage.exec("UPDATE {t} SET a = 'named' WHERE id > 15").await;
    stage.until_equal("followed", SECONDS_30).await;
    // The server sends nothing any more that stands before: the checkpoint must be behind it.
    stage.daemon.stop().await;
    stage.exec("DELETE FROM {t} WHERE id = 3").await;
    stage.daemon.start_again().await;
    stage.until_equal("resumed", SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_privilege_is_named_with_its_grant() {
    let server = own(Flavour::Mysql80).await;
    let mysql = server.client();
    let (user, password) = mysql.replication_user().await;
    let config = driftless::source::Config {
        host: mysql.host().to_owned(),
        port: mysql.port(),
        user: user.clone(),
        password: Some(password.into()),
        ..Default::default()
    };
    let errors = async || {
        use driftless::source::{control, preflight};
        let mut conn = control::connect(&config).await.expect("logs in");
        let found = preflight::preflight(&mut conn, &[]).await.expect("looks");
        found.into_iter().filter(|f| f.level == preflight::Level::Error).collect::<Vec<_>>()
    };
    let found = errors().await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].remedy, format!("GRANT PROCESS ON *.* TO `{user}`@`%`"));
    mysql.exec(&found[0].remedy).await;
    assert_eq!(errors().await, []);
}

/// How commits hang for five seconds.
pub const HOLD: [&str; 4] = [
    "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
    "SET GLOBAL rpl_semi_sync_source_timeout = 5000",
    "SET GLOBAL rpl_semi_sync_source_wait_no_replica = 1",
    "SET GLOBAL rpl_semi_sync_source_enabled = 1",
];
pub const RELEASE: &str = "SET GLOBAL rpl_semi_sync_source_enabled = 0";

/// The list of active transactions is asked for all the time by somebody else, and commits hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_list_of_active_transactions_is_not_believed() {
    let server = own(Flavour::Mysql97).await;
    let stage = Stage::set(server.client(), |setup| setup).await;
    let mysql = stage.mysql.clone();
    let asking = tokio::spawn(async move {
        let mut session = mysql.session().await;
        loop {
            let asked = "SELECT COUNT(*) FROM information_schema.innodb_trx";
            session.query_drop(asked).await.expect("is asked");
            session.query_drop("DO SLEEP(0.05)").await.expect("sleeps");
        }
    });
    stage.exec(&numbers(1, 20)).await;
    stage.link().await;
    until("it is told why nothing goes on", SECONDS_30, async || {
        let (_, message) = stage.status().await;
        let text = message.to_string();
        if text.contains("shows an old list") { Ok(()) } else { Err(text) }
    })
    .await;
    asking.abort();
    stage.until_equal("then the copy goes on", SECONDS_30).await;
    held_commits_are_seen(server).await;
}

async fn held_commits_are_seen(server: OwnMysql) {
    let stage = Stage::set(server.client(), |setup| setup).await;
    held_commits(&stage, &HOLD, RELEASE).await;
    stage.settle().await;
    stage.until_equal("the held commits are in the index", SECONDS_30).await;
}
