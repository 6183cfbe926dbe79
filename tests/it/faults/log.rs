//! A log that does not come as it was written: damaged or cut on its way, damaged where it lies, torn by a crash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::delivery::{fill, purge};
use crate::faults::{is_proven_equal, metric, proxied};
use crate::support::daemon::Setup;
use crate::support::servers::{self, Flavour, OwnMysql};
use crate::support::stage::Stage;
use crate::support::{SECONDS_30, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_damaged_or_cut_on_its_way_is_asked_for_again() {
    for flavour in [Flavour::Mysql97, Flavour::Mariadb118] {
        let (stage, source) = proxied(servers::mysql(flavour), |setup: Setup| setup).await;
        stage.link().await;
        stage.settle().await;
        source.delay(Duration::from_millis(5));
        source.throttle(2_000_000);
        for round in 0..4 {
            let marker = format!("marked {round}.");
            match round % 2 {
                0 => source.flip_in_log(&marker),
                _ => source.cut_in_log(&marker),
            }
            stage.exec(&format!("INSERT INTO {{t}} VALUES ({round}, '{marker}', 'x')")).await;
            until("it was damaged", SECONDS_30, async || source.damaged() > round).await;
            stage.settle().await;
        }
        is_proven_equal(&stage, "what was damaged came again").await;
        assert!(metric(&stage, "driftless_source_reconnects_total").await >= 4.0);
        let log = stage.daemon.log();
        assert!(log.contains("the stream broke off") && log.contains("checksum"), "{flavour:?}");
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_damaged_where_it_lies_stops_the_link_until_it_is_purged() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    fill(&stage, 0, 200, 32).await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    stage.exec("INSERT INTO {t} VALUES (1000, 'to be damaged', 'x')").await;
    stage.exec("UPDATE {t} SET a = 'behind it' WHERE id < 10").await;
    let damaged = newest_log(&server);
    stage.mysql.exec("FLUSH BINARY LOGS").await;
    spoil(&damaged, b"to be damaged");
    stage.daemon.start_again_unready();
    stage.daemon.listens().await;
    let message = stage.until_state("failed").await;
    let errors = message["errors"].as_str().unwrap_or_default();
    assert!(errors.contains("checksum"), "{errors}");
    purge(&stage).await;
    stage.daemon.sql(&format!("RESUME LINK {}", stage.index)).await;
    is_proven_equal(&stage, "table and index were compared").await;
}

/// The end of the log was not on the disk when the machine died: what it says was sent already, and its number goes to
/// another transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_end_was_lost_in_a_crash_is_noticed_though_its_numbers_come_again() {
    let mut server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let (stage, source) = proxied(server.client(), |setup: Setup| setup).await;
    fill(&stage, 0, 200, 32).await;
    stage.link().await;
    stage.settle().await;
    let torn = newest_log(&server);
    let length = fs::metadata(&torn).expect("the log is there").len();
    stage.exec("UPDATE {t} SET a = 'sent, and lost' WHERE id = 1").await;
    stage.settle().await;
    source.cut();
    server.kill().await;
    File::options().write(true).open(&torn).and_then(|file| file.set_len(length)).expect("torn");
    server.start().await;
    // As many transactions as were lost, and none that could be told from them by its number.
    stage.exec("UPDATE {t} SET a = 'instead' WHERE id = 2").await;
    stage.exec("UPDATE {t} SET a = 'instead' WHERE id = 3").await;
    source.mend();
    is_proven_equal(&stage, "what came instead is in the index").await;
    assert_eq!(stage.until_state("running").await["errors"], "");
}

fn newest_log(server: &OwnMysql) -> PathBuf {
    let files = fs::read_dir(server.data_dir()).expect("the folder is there").flatten();
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("binlog.") && name.ends_with(|last: char| last.is_ascii_digit())
    };
    files.map(|file| file.path()).filter(is_log).max().expect("there is a log")
}

/// Flips a bit amid these bytes.
fn spoil(path: &Path, bytes: &[u8]) {
    let mut whole = fs::read(path).expect("it can be read");
    let at = whole.windows(bytes.len()).position(|window| window == bytes).expect("it is there");
    whole[at + bytes.len() / 2] ^= 0x10;
    fs::write(path, whole).expect("it can be written");
}
