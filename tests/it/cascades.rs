//! What foreign keys do to rows of a mapped table, on servers that log it and on servers that do not. The naive reading is
//! refuted in `rules`. The end of each is that the index equals the table.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;

use crate::no_gtids;
use crate::support::daemon::Setup;
use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_30, until};

/// `t` refers to `p` by its unmapped column `p` and by `b`, and to itself by `up`; `p` refers to `g`, which nobody maps.
const TABLES: &[&str] = &[
    "CREATE TABLE {db}.g (id INT PRIMARY KEY, x INT)",
    "CREATE TABLE {db}.p (x INT, id INT PRIMARY KEY, g INT, code VARCHAR(50) UNIQUE, \
     FOREIGN KEY (g) REFERENCES {db}.g (id) ON DELETE CASCADE ON UPDATE CASCADE) CHARSET utf8mb4",
    "ALTER TABLE {t} ADD p INT INVISIBLE, ADD up BIGINT INVISIBLE, \
     ADD CONSTRAINT by_p FOREIGN KEY (p) REFERENCES {db}.p (id) ON DELETE CASCADE ON UPDATE CASCADE, \
     ADD CONSTRAINT by_b FOREIGN KEY (b) REFERENCES {db}.p (code) ON DELETE SET NULL ON UPDATE CASCADE, \
     ADD CONSTRAINT by_up FOREIGN KEY (up) REFERENCES {t} (id) ON DELETE CASCADE",
    "INSERT INTO {db}.g VALUES (1, 0), (2, 0), (3, 0), (4, 0)",
    "INSERT INTO {db}.p VALUES (0, 1, 1, 'one'), (0, 2, 1, 'two'), (0, 3, 2, 'three'), (0, 4, 3, 'vier'), \
     (0, 5, 4, 'fünf'), (0, 6, NULL, 'six'), (0, 7, NULL, 'seven'), (0, 8, NULL, '')",
    "INSERT INTO {t} (id, a, b, p, up) VALUES (1, 'a', 'one', 1, NULL), (2, 'a', 'ONE', 2, NULL), (3, 'a', 'two', 2, 1), \
     (4, 'a', 'three', 3, 3), (5, 'a', 'vier', 4, NULL), (6, 'a', 'fünf', 6, NULL), (7, 'a', 'FÜNF', NULL, 6), \
     (8, 'a', NULL, 7, 7), (9, 'a', 'six', NULL, 8), (10, 'a', 'six', 1, NULL), (11, 'a', NULL, NULL, NULL)",
];

async fn exec(stage: &Stage, sql: &str) {
    stage.exec(&sql.replace("{db}", &stage.db)).await;
}

/// All of one session, one after the other.
async fn together(stage: &Stage, statements: &[&str]) {
    let mut session = stage.mysql.session().await;
    for sql in statements {
        let sql = sql.replace("{t}", &format!("{}.t", stage.db)).replace("{db}", &stage.db);
        session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

async fn set(mysql: Mysql, setup: impl FnOnce(Setup) -> Setup) -> Stage {
    let stage = Stage::set(mysql, setup).await;
    for sql in TABLES {
        exec(&stage, sql).await;
    }
    stage
}

async fn linked(mysql: Mysql, setup: impl FnOnce(Setup) -> Setup) -> Stage {
    let stage = set(mysql, setup).await;
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    stage.until_state("running").await;
    stage
}

fn copied(stage: &Stage) -> usize {
    stage.daemon.log().matches("snapshot done").count() - 1
}

const NATIVE: &[&str] = &["--innodb-native-foreign-keys=ON"];

/// Each kind of change.
async fn every_change(mysql: Mysql) {
    let stage = linked(mysql, |setup| setup).await;
    for statements in [
        &["UPDATE {db}.p SET x = 1"][..],
        &["UPDATE {db}.p SET code = 'uno' WHERE id = 1"],
        &["UPDATE {db}.p SET id = 20, code = 'zwei' WHERE id = 2"],
        &["DELETE FROM {db}.p WHERE code = 'FÜNF'"],
        // The rows of p, and by them those of t, and by those more of t.
        &["DELETE FROM {db}.g WHERE id = 1"],
        &["UPDATE {db}.g SET id = 20 WHERE id = 2"],
        &["DELETE FROM {db}.g WHERE id = 20"],
        &["DELETE FROM {t} WHERE id = 6"],
        &[
            "INSERT INTO {t} (id, a, b, p, up) VALUES (6, 'again', 'six', 6, NULL), (7, 'again', 'vier', NULL, 6)",
        ],
        // In one transaction: gone with the parent, and there again.
        &[
            "BEGIN",
            "DELETE FROM {db}.p WHERE id = 6",
            "INSERT INTO {db}.p VALUES (0, 6, 3, 'six')",
            "INSERT INTO {t} (id, a, b, p, up) VALUES (6, 'behind', 'six', 6, NULL)",
            "COMMIT",
        ],
        &[
            "BEGIN",
            "INSERT INTO {t} (id, a, p) VALUES (30, 'short', 6)",
            "DELETE FROM {db}.p WHERE id = 6",
            "COMMIT",
        ],
        // A parent that went with its own parent comes back, before anybody could look.
        &[
            "INSERT INTO {db}.p VALUES (0, 40, 4, 'forty')",
            "INSERT INTO {t} (id, a, b, p) VALUES (40, 'a', NULL, 40), (41, 'a', 'forty', NULL)",
            "BEGIN",
            "DELETE FROM {db}.g WHERE id = 4",
            "INSERT INTO {db}.p VALUES (0, 40, NULL, 'forty')",
            "COMMIT",
        ],
        &["REPLACE INTO {db}.p VALUES (0, 7, NULL, 'sieben')"],
        &[
            "SET foreign_key_checks = 0",
            "DELETE FROM {db}.p WHERE id = 4",
            "INSERT INTO {db}.p VALUES (0, 4, 3, 'vier')",
            "SET foreign_key_checks = 1",
            "DELETE FROM {db}.g WHERE id = 3",
        ],
    ] {
        together(&stage, statements).await;
        stage.until_equal(statements.last().expect("is there"), SECONDS_30).await;
    }
    assert_eq!(copied(&stage), 0, "only what was changed was read");
    let state = stage.until_state("running").await;
    assert_eq!(state["restart_times"], "0");
}

/// Each kind of change, on a server that does not log what follows (8.0, and 9.7 where it is told so) and on one that does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_foreign_key_changes_are_read_again_two_levels_deep() {
    let native = servers::own_mysql(Flavour::Mysql97, NATIVE).await;
    let servers =
        [servers::mysql(Flavour::Mysql80), native.client(), servers::mysql(Flavour::Mysql97)];
    for mysql in servers {
        every_change(mysql).await;
    }
}

/// MariaDB logs nothing of it, and a server without GTIDs is read in another way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_foreign_key_changes_are_read_again_on_mariadb_and_without_gtids() {
    let plain = (Flavour::Mysql80, &no_gtids::OFF[..]);
    let maria = Flavour::MARIADB.map(|flavour| (flavour, &[][..]));
    for (flavour, options) in maria.into_iter().chain([plain]) {
        let server = servers::own_mysql(flavour, options).await;
        every_change(server.client()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_logs_what_its_keys_do_has_nothing_done_twice() {
    let stage = linked(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    exec(&stage, "DELETE FROM {db}.g WHERE id = 1").await;
    stage.until_equal("the rows are gone", SECONDS_30).await;
    stage.settle().await;
    let deleted: Vec<String> = stage
        .proxy
        .requests()
        .iter()
        .flat_map(|request| request.text().lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.contains("\"delete\""))
        .collect();
    let of = |id: &str| {
        deleted.iter().filter(|line| line.contains(&format!("\"_id\":\"{id}\""))).count()
    };
    assert_eq!([of("1"), of("2"), of("3"), of("4")], [1, 1, 1, 1], "{deleted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keys_did_while_the_daemon_was_killed_is_found() {
    let native = servers::own_mysql(Flavour::Mysql97, NATIVE).await;
    for mysql in [servers::mysql(Flavour::Mysql80), native.client()] {
        let mut stage =
            linked(mysql, |setup| setup.set("link.checkpoint_interval_ms", 60_000)).await;
        // The only checkpoint that says that the copy is done.
        stage.daemon.stop().await;
        stage.daemon.start_again().await;
        stage.until_state("running").await;
        let late = stage.proxy.hold_next_request();
        exec(&stage, "DELETE FROM {db}.p WHERE id = 3").await;
        exec(&stage, "DELETE FROM {db}.g WHERE id = 1").await;
        late.arrived().await;
        stage.daemon.kill9();
        late.open();
        exec(&stage, "DELETE FROM {db}.p WHERE id = 4").await;
        exec(&stage, "INSERT INTO {db}.p VALUES (0, 4, NULL, 'vier'), (0, 1, NULL, 'one')").await;
        exec(
            &stage,
            "INSERT INTO {t} (id, a, b, p) VALUES (1, 'new', 'one', 1), (50, 'new', 'vier', 4)",
        )
        .await;
        exec(&stage, "UPDATE {db}.p SET id = 104, code = 'four' WHERE id = 4").await;
        stage.daemon.start_again().await;
        stage.until_equal("the replay has found them", MINUTES_2).await;
        stage.daemon.kill9();
        exec(&stage, "DELETE FROM {db}.p WHERE id = 104").await;
        stage.daemon.start_again().await;
        stage.until_equal("the second too", MINUTES_2).await;
        assert_eq!(copied(&stage), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_go_while_the_table_is_copied_take_their_rows_along() {
    let native = servers::own_mysql(Flavour::Mysql97, NATIVE).await;
    for mysql in [servers::mysql(Flavour::Mysql80), native.client()] {
        let stage =
            set(mysql, |setup| setup.set("snapshot.chunk_rows", 50).set("sink.bulk_documents", 50))
                .await;
        exec(&stage, "INSERT INTO {db}.g WITH RECURSIVE n AS (SELECT 100 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 140) SELECT i, 0 FROM n").await;
        exec(&stage, "INSERT INTO {db}.p WITH RECURSIVE n AS (SELECT 100 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT 0, i, 100 + i MOD 40, CONCAT('p', i) FROM n").await;
        exec(&stage, "INSERT INTO {t} (id, a, b, p) WITH RECURSIVE n AS (SELECT 100 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i, 'a', CONCAT('p', 100 + i MOD 150), 100 + i MOD 200 FROM n").await;
        stage.proxy.delay(Duration::from_millis(15));
        stage.link().await;
        for number in 0..40 {
            exec(&stage, &format!("DELETE FROM {{db}}.p WHERE id = {}", 100 + number * 3)).await;
            exec(
                &stage,
                &format!(
                    "UPDATE {{db}}.p SET id = id + 1000, code = CONCAT(code, 'x') WHERE id = {}",
                    101 + number * 3
                ),
            )
            .await;
            if number % 4 == 0 {
                exec(&stage, &format!("DELETE FROM {{db}}.g WHERE id = {}", 100 + number)).await;
            }
        }
        stage.proxy.delay(Duration::ZERO);
        stage.until_equal("the index equals the table", MINUTES_2).await;
        assert_eq!(copied(&stage), 0, "one copy was enough");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_goes_in_an_xa_transaction_takes_its_rows_along_at_the_commit() {
    let server = servers::own_mysql(Flavour::Mysql97, NATIVE).await;
    let mut stage = linked(server.client(), |setup| setup).await;
    // The checkpoint says that the copy is done.
    stage.daemon.stop().await;
    stage.daemon.start_again().await;
    together(
        &stage,
        &[
            "XA START 'x'",
            "DELETE FROM {db}.p WHERE id = 3",
            "DELETE FROM {db}.g WHERE id = 1",
            "DELETE FROM {t} WHERE id = 6",
            "INSERT INTO {t} (id, a, b, p) VALUES (60, 'xa', 'vier', 4)",
            "XA END 'x'",
            "XA PREPARE 'x'",
        ],
    )
    .await;
    stage.exec("UPDATE {t} SET a = 'meanwhile' WHERE id = 11").await;
    stage.until_equal("nothing has happened yet", SECONDS_30).await;
    stage.daemon.kill9();
    stage.daemon.start_again().await;
    stage.until_state("running").await;
    exec(&stage, "XA COMMIT 'x'").await;
    stage.until_equal("now it has", SECONDS_30).await;
    exec(&stage, "DELETE FROM {db}.p WHERE id = 4").await;
    stage.until_equal("a row of the transaction refers to it", SECONDS_30).await;
    assert_eq!(copied(&stage), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_come_and_go_are_followed() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql80), |setup| setup).await;
    for sql in [
        "CREATE TABLE {db}.p (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE) CHARSET utf8mb4",
        "INSERT INTO {db}.p VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four'), (5, 'five'), (6, 'six'), (7, '')",
        "INSERT INTO {t} VALUES (1, 'a', 'one'), (2, 'a', 'two'), (3, 'a', 'three'), (4, 'a', 'four'), (5, 'a', 'five'), (6, 'a', 'six')",
    ] {
        exec(&stage, sql).await;
    }
    stage.link().await;
    stage.until_equal("the rows are documents", SECONDS_30).await;
    let key = "ADD CONSTRAINT k FOREIGN KEY (b) REFERENCES {db}.p (code) ON DELETE CASCADE ON UPDATE CASCADE";
    exec(&stage, &format!("ALTER TABLE {{t}} {key}")).await;
    exec(&stage, "DELETE FROM {db}.p WHERE id = 1").await;
    stage.until_equal("a new key", MINUTES_2).await;
    exec(&stage, "DELETE FROM {db}.p WHERE id = 2").await;
    stage.until_equal("a new key that was learned", SECONDS_30).await;
    let copies = copied(&stage);
    // The table that is referred to changes its columns and its name.
    exec(&stage, "ALTER TABLE {db}.p ADD c INT FIRST").await;
    exec(&stage, "ALTER TABLE {db}.p RENAME COLUMN code TO word").await;
    stage.settle().await;
    exec(&stage, "UPDATE {db}.p SET word = 'drei' WHERE id = 3").await;
    stage.until_equal("the columns have moved", MINUTES_2).await;
    exec(&stage, "RENAME TABLE {db}.p TO {db}.q").await;
    exec(&stage, "DELETE FROM {db}.q WHERE id = 4").await;
    stage.until_equal("the name is another", MINUTES_2).await;
    stage.daemon.kill9();
    exec(&stage, "ALTER TABLE {db}.q DROP COLUMN c").await;
    exec(&stage, "DELETE FROM {db}.q WHERE id = 5").await;
    stage.daemon.start_again().await;
    stage.until_equal("nobody has seen it", MINUTES_2).await;
    assert!(copied(&stage) <= copies + 3, "a copy for each statement at most");
    exec(&stage, "ALTER TABLE {t} DROP FOREIGN KEY k").await;
    exec(&stage, "DELETE FROM {db}.q WHERE id = 6").await;
    stage.settle().await;
    stage.until_equal("the key is gone", SECONDS_30).await;
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn drawn(dice: &mut Dice) -> String {
    let (g, p, t) = (dice.below(6), dice.below(20), dice.below(60));
    let (other_p, other_t) = (dice.below(20), dice.below(60));
    let code = |p: u64| ["c", "C", "ç", "ss"][p as usize % 4].to_owned() + &(p / 2).to_string();
    match dice.below(14) {
        0 => format!("INSERT IGNORE INTO {{db}}.g VALUES ({g}, 0)"),
        1 => format!("DELETE FROM {{db}}.g WHERE id = {g}"),
        2 => format!("UPDATE IGNORE {{db}}.g SET id = {} WHERE id = {g}", dice.below(6)),
        3 | 4 => format!(
            "REPLACE INTO {{db}}.p VALUES (0, {p}, (SELECT id FROM {{db}}.g WHERE id = {g}), '{}')",
            code(p)
        ),
        5 => format!("DELETE FROM {{db}}.p WHERE id = {p}"),
        6 => format!(
            "UPDATE IGNORE {{db}}.p SET id = {other_p}, code = '{}' WHERE id = {p}",
            code(other_p)
        ),
        7 => format!("UPDATE {{db}}.p SET x = x + 1 WHERE id > {p}"),
        8 => format!("DELETE FROM {{t}} WHERE id = {t}"),
        9 => format!("UPDATE IGNORE {{t}} SET id = {other_t} WHERE id = {t}"),
        10 => format!(
            "UPDATE IGNORE {{t}} SET p = {p}, b = '{}', a = UUID() WHERE id = {t}",
            code(other_p)
        ),
        _ => format!(
            "INSERT IGNORE INTO {{t}} (id, a, b, p, up) SELECT {t}, UUID(), (SELECT code FROM {{db}}.p WHERE id = {p}), \
             (SELECT id FROM {{db}}.p WHERE id = {other_p}), (SELECT id FROM {{t}} WHERE id = {other_t})"
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_drawn_changes_end_right_through_kills() {
    let native = servers::own_mysql(Flavour::Mysql97, NATIVE).await;
    let seed: u64 = match std::env::var("DRIFTLESS_TEST_SEED") {
        Ok(seed) => seed.parse().expect("the seed is a number"),
        Err(_) => std::process::id().into(),
    };
    eprintln!("DRIFTLESS_TEST_SEED={seed}");
    for mysql in [servers::mysql(Flavour::Mysql80), native.client()] {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut stage = linked(mysql, |setup| {
            setup.set("link.checkpoint_interval_ms", 300).set("snapshot.chunk_rows", 10)
        })
        .await;
        for round in 0..10 {
            let mut session = stage.mysql.session().await;
            for _ in 0..60 {
                let count = 1 + dice.below(3);
                let mut statements = vec!["BEGIN".to_owned()];
                statements.extend((0..count).map(|_| drawn(&mut dice)));
                statements.push("COMMIT".to_owned());
                for sql in statements {
                    let sql =
                        sql.replace("{t}", &format!("{}.t", stage.db)).replace("{db}", &stage.db);
                    // What a key forbids is no matter here.
                    let _ = session.query_drop(&sql).await;
                }
            }
            drop(session);
            if round % 2 == 1 {
                stage.daemon.kill9();
                stage.daemon.start_again().await;
            }
            stage.until_equal(&format!("round {round} of seed {seed}"), MINUTES_2).await;
        }
        assert_eq!(copied(&stage), 0);
    }
}

/// What is known of who refers to whom can be out of date until a checkpoint has passed; such entries may make a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_have_referred_to_each_other_in_turn_are_looked_for_once() {
    let mysql = servers::mysql(Flavour::Mysql80);
    let stage = linked(mysql, |setup| setup.set("link.checkpoint_interval_ms", 600_000)).await;
    let one_below_the_other = [
        "INSERT INTO {t} (id, a, b, up) VALUES (101, 'above', NULL, NULL), (102, 'below', NULL, 101)",
        "DELETE FROM {t} WHERE id = 102",
        "DELETE FROM {t} WHERE id = 101",
    ];
    let and_the_other_way_round = [
        "INSERT INTO {t} (id, a, b, up) VALUES (102, 'above', NULL, NULL), (101, 'below', NULL, 102)",
        "DELETE FROM {t} WHERE id = 102",
        "INSERT INTO {t} (id, a, b) VALUES (103, 'behind', NULL)",
    ];
    together(&stage, &one_below_the_other).await;
    together(&stage, &and_the_other_way_round).await;
    stage.until_equal("both are gone", SECONDS_30).await;
    assert_eq!(copied(&stage), 0);
}

/// Where a text can be compared by its case and trailing spaces alone, the server does not hold more for equal.
#[tokio::test]
async fn texts_of_printable_ascii_differ_by_no_more_than_their_forms_say() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let db = mysql.database("forms").await;
    mysql.exec(format!("CREATE TABLE {db}.s (s VARCHAR(9)) CHARSET ascii")).await;
    let signs = "WITH RECURSIVE n AS (SELECT 32 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 126)";
    mysql.exec(format!("INSERT INTO {db}.s {signs} SELECT CONCAT('x', CHAR(i)) FROM n")).await;
    mysql
        .exec(format!(
            "INSERT INTO {db}.s {signs} SELECT CONCAT(CHAR(n.i), CHAR(m.i), 'x') FROM n, n m"
        ))
        .await;
    mysql.exec(format!("INSERT INTO {db}.s VALUES ('x')")).await;
    for collation in [
        "utf8mb4_0900_ai_ci",
        "utf8mb4_0900_as_ci",
        "utf8mb4_0900_as_cs",
        "utf8mb4_0900_bin",
        "utf8mb4_bin",
        "utf8mb4_general_ci",
        "utf8mb4_unicode_ci",
        "utf8mb4_unicode_520_ci",
        "latin1_swedish_ci",
        "latin1_general_ci",
        "latin1_bin",
        "ascii_general_ci",
        "ascii_bin",
        "utf8mb3_general_ci",
        "utf8mb3_unicode_ci",
    ] {
        let charset = collation.split('_').next().expect("it has one");
        let text = format!("CONVERT(s USING {charset}) COLLATE {collation}");
        let found: Vec<(Vec<u8>,)> = mysql
            .query(format!(
                "SELECT CAST(MIN(s) AS BINARY) FROM {db}.s GROUP BY {text} \
                 HAVING COUNT(DISTINCT CAST(LOWER(TRIM(TRAILING ' ' FROM s)) AS BINARY)) > 1"
            ))
            .await;
        assert!(found.is_empty(), "{collation} holds for equal: {found:?}");
    }
    until("the database is dropped", SECONDS_30, async || {
        mysql.try_exec(&format!("DROP DATABASE {db}")).await.ok()
    })
    .await;
}
