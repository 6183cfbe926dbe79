//! Fail-over: the address of a source leads to another server, which was its replica. What it has is gone on with; what
//! it has not, because it was promoted too early, is named, and the table is copied again.

use crate::support::mysql::Mysql;
use crate::support::proxy::Proxy;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

/// Makes `replica` follow `primary`, whose transactions it has so far.
pub async fn follow(flavour: Flavour, replica: &Mysql, primary: &Mysql) {
    let port = primary.port();
    let statements = match flavour.is_mariadb() {
        true => vec![
            "SET GLOBAL gtid_slave_pos = @@global.gtid_binlog_pos".to_owned(),
            format!(
                "CHANGE MASTER TO master_host = '127.0.0.1', master_port = {port}, master_user = 'root', \
                 master_ssl = 0, master_ssl_verify_server_cert = 0, master_use_gtid = slave_pos"
            ),
            "START SLAVE".to_owned(),
        ],
        false => vec![
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'root', \
                 SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1"
            ),
            "START REPLICA".to_owned(),
        ],
    };
    for sql in statements {
        replica.exec(sql).await;
    }
}

/// Waits until `replica` has what `primary` has, and makes it follow nobody.
pub async fn promote(flavour: Flavour, replica: &Mysql, primary: &Mysql) {
    let executed = match flavour.is_mariadb() {
        true => "SELECT @@global.gtid_binlog_pos",
        false => "SELECT @@global.gtid_executed",
    };
    let wanted: String = primary.value(executed).await;
    until("the replica has everything", SECONDS_30, async || {
        let has: String = replica.value(executed).await;
        if has == wanted { Ok(()) } else { Err(format!("{has}, not {wanted}")) }
    })
    .await;
    let statements = match flavour.is_mariadb() {
        true => ["STOP SLAVE", "RESET SLAVE ALL"],
        false => ["STOP REPLICA", "RESET REPLICA ALL"],
    };
    for sql in statements {
        replica.exec(sql).await;
    }
}

fn copies(stage: &Stage) -> usize {
    stage.daemon.log().matches("snapshot done").count()
}

async fn over_two_promotions(flavour: Flavour) {
    let (one, two) =
        (servers::own_mysql(flavour, &[]).await, servers::own_mysql(flavour, &[]).await);
    let (first, second) = (one.client(), two.client());
    let way = Proxy::tcp(&first.address()).await;
    let mut stage =
        Stage::set(first.clone(), |setup| setup.set("source.port", i64::from(way.port()))).await;
    follow(flavour, &second, &first).await;
    stage.exec("INSERT INTO {t} VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x')").await;
    stage.link().await;
    stage.settle().await;
    stage.exec("UPDATE {t} SET a = 'before' WHERE id = 1").await;

    promote(flavour, &second, &first).await;
    stage.mysql = second.clone();
    stage.exec("UPDATE {t} SET b = 'promoted' WHERE id = 2").await;
    way.lead_to(&second.address());
    way.drop_connections();
    stage.exec("DELETE FROM {t} WHERE id = 3").await;
    stage.settle().await;
    stage.until_equal("the promoted server is gone on with", SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
    assert_eq!(copies(&stage), 1, "{flavour:?}: what it has was not copied");

    // The other way round, and too early: what is written next is on the old primary alone.
    follow(flavour, &first, &second).await;
    stage.daemon.kill9();
    stage.daemon.start_again().await;
    stage.settle().await;
    promote(flavour, &first, &second).await;
    stage.exec("INSERT INTO {t} VALUES (4, 'lost', 'x')").await;
    stage.exec("UPDATE {t} SET a = 'lost' WHERE id = 1").await;
    stage.settle().await;
    let lost: String = stage
        .mysql
        .value(match flavour.is_mariadb() {
            true => "SELECT @@global.gtid_binlog_pos",
            false => "SELECT @@global.server_uuid",
        })
        .await;
    stage.mysql = first.clone();
    for number in 10..20 {
        stage.exec(&format!("INSERT INTO {{t}} VALUES ({number}, 'kept', 'x')")).await;
    }
    way.lead_to(&first.address());
    way.drop_connections();
    stage.until_equal("the index is what the source is now", MINUTES_2).await;
    stage.settle().await;
    stage.exec("UPDATE {t} SET a = 'goes on' WHERE id = 2").await;
    stage.until_equal("the stream goes on", SECONDS_30).await;
    assert_eq!(stage.until_state("running").await["errors"], "");
    let log = stage.daemon.log();
    let told = log.lines().find(|line| line.contains("lost a fail-over"));
    assert!(told.is_some_and(|line| line.contains(&lost)), "{flavour:?}: {lost}: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_of_mariadb_is_gone_on_with_and_lost_transactions_are_named() {
    for flavour in Flavour::MARIADB {
        over_two_promotions(flavour).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_of_mysql_is_gone_on_with_and_lost_transactions_are_named() {
    for flavour in Flavour::ALL {
        over_two_promotions(flavour).await;
    }
}
