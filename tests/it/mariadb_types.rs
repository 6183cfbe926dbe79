//! MariaDB's types through the daemon: a row that was copied and the same row by the stream are the same bytes, and those
//! that `docs/types.md` promises. Values at random are compared in `oracle`.

use mysql_async::prelude::Queryable as _;
use serde_json::json;

use crate::support::servers::{self, Flavour, OwnMysql};
use crate::support::stage::Stage;
use crate::support::{SECONDS_30, until};

/// A column, two values, and the JSON of each.
type Case = (&'static str, [(&'static str, &'static str); 2]);

const CASES: &[Case] = &[
    (
        "uu UUID",
        [
            ("'01234567-89AB-4DEF-8123-456789ABCD00'", r#""01234567-89ab-4def-8123-456789abcd00""#),
            ("'ffffffff-ffff-1fff-bfff-ffffffffffff'", r#""ffffffff-ffff-1fff-bfff-ffffffffffff""#),
        ],
    ),
    ("i4 INET4", [("'10.0.0.1'", r#""10.0.0.1""#), ("'255.255.255.0'", r#""255.255.255.0""#)]),
    (
        "i6 INET6",
        [
            ("'2001:db8:0:0:0:0:0:0'", r#""2001:db8::""#),
            ("'::ffff:192.0.2.1'", r#""::ffff:192.0.2.1""#),
        ],
    ),
    (
        "vc VARCHAR(2000) COMPRESSED CHARACTER SET latin1",
        [("CONCAT('é', REPEAT('x', 5))", r#""éxxxxx""#), ("''", r#""""#)],
    ),
    ("lc LONGTEXT COMPRESSED", [("REPEAT('ab', 4)", r#""abababab""#), ("'中'", r#""中""#)]),
    (
        "bc VARBINARY(2000) COMPRESSED",
        [("REPEAT('a', 6)", r#""YWFhYWFh""#), ("x'00'", r#""AA==""#)],
    ),
    ("blc BLOB COMPRESSED", [("x'01ff'", r#""Af8=""#), ("''", r#""""#)]),
    (
        "js JSON",
        [
            (
                r#"'{"a": [1.50, "\\u00e9 x"], "a": 2, "b": null}'"#,
                r#"{"a":[1.50,"\u00e9 x"],"b":null}"#,
            ),
            ("'[]'", "[]"),
        ],
    ),
    ("b1 BIT(1)", [("1", "1"), ("0", "0")]),
    ("b12 BIT(12)", [("b'101010101010'", "2730"), ("0", "0")]),
    ("b64 BIT(64)", [("18446744073709551615", "18446744073709551615"), ("1", "1")]),
    (
        "tm TIME(6)",
        [
            ("'-838:59:59.000001'", r#""-838:59:59.000001""#),
            ("'-00:00:00.5'", r#""-00:00:00.500000""#),
        ],
    ),
    ("t0 TIME", [("'-00:00:01'", r#""-00:00:01""#), ("'838:59:59'", r#""838:59:59""#)]),
    ("d DATE", [("'0000-00-00'", "null"), ("'2026-02-00'", "null")]),
    (
        "dt DATETIME(3)",
        [("'0000-00-00'", "null"), ("'9999-12-31 23:59:59.999'", r#""9999-12-31T23:59:59.999""#)],
    ),
    (
        "ts TIMESTAMP(6) NULL",
        [("0", "null"), ("'2038-01-19 03:14:07.999999'", r#""2038-01-19T03:14:07.999999Z""#)],
    ),
    ("y YEAR", [("0", "0"), ("2155", "2155")]),
    ("bu BIGINT UNSIGNED", [("18446744073709551615", "18446744073709551615"), ("0", "0")]),
    (
        "de DECIMAL(65,30)",
        [
            (
                "-99999999999999999999999999999999999.999999999999999999999999999999",
                "-99999999999999999999999999999999999.999999999999999999999999999999",
            ),
            ("0.000000000000000000000000000001", "0.000000000000000000000000000001"),
        ],
    ),
    ("fl FLOAT", [("0.1", "0.1"), ("-1e30", "-1e+30")]),
    ("db DOUBLE", [("1", "1.0"), ("2.2250738585072014e-308", "2.2250738585072014e-308")]),
    (
        "pt POINT",
        [
            (
                "ST_GeomFromText('POINT(10 20)', 4326)",
                r#"{"type":"Point","coordinates":[10.0,20.0]}"#,
            ),
            ("POINT(-0.5, 1)", r#"{"type":"Point","coordinates":[-0.5,1.0]}"#),
        ],
    ),
    (
        "en ENUM('grün', 'it''s', '') CHARACTER SET latin1",
        [("'grün'", r#""grün""#), ("''", r#""""#)],
    ),
    ("st SET('a', 'ß', 'c')", [("'c,a'", r#"["a","c"]"#), ("''", "[]")]),
    ("u2 VARCHAR(9) CHARACTER SET ucs2", [("'é中'", r#""é中""#), ("'a '", r#""a ""#)]),
    ("u32 CHAR(9) CHARACTER SET utf32", [("'😀'", r#""😀""#), ("'a '", r#""a""#)]),
    ("sj TEXT CHARACTER SET sjis", [("'ソ'", r#""ソ""#), (r"'a\\b'", r#""a\\b""#)]),
    ("inv INT INVISIBLE", [("7", "7"), ("NULL", "null")]),
    ("gv INT AS (bu MOD 10) VIRTUAL", [("", "5"), ("", "0")]),
    (
        "gs VARCHAR(40) AS (CONCAT(i4, '/', y)) STORED",
        [("", r#""10.0.0.1/0000""#), ("", r#""255.255.255.0/2155""#)],
    ),
];

const OF_11_8: &[Case] = &[(
    "ve VECTOR(3) NOT NULL",
    [
        ("VEC_FromText('[1, 0.1, -2.5]')", "[1.0,0.1,-2.5]"),
        ("VEC_FromText('[0, 300000.5, -0.5]')", "[0.0,300000.5,-0.5]"),
    ],
)];

fn cases(flavour: Flavour) -> Vec<&'static Case> {
    // INET4 came with 10.10, so both have it.
    let more = if flavour == Flavour::Mariadb118 { OF_11_8 } else { &[] };
    CASES.iter().chain(more).collect()
}

async fn both_ways(flavour: Flavour, server: &OwnMysql) {
    let mut stage = Stage::set(server.client(), |setup| setup).await;
    let cases = cases(flavour);
    let table = format!("{}.types", stage.db);
    let columns: Vec<_> = cases.iter().map(|(column, _)| *column).collect();
    stage
        .mysql
        .exec(format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, {}) CHARSET utf8mb4",
            columns.join(", ")
        ))
        .await;
    let name = |column: &str| column.split(' ').next().expect("a name").to_owned();
    let mut session = stage.mysql.session().await;
    session.query_drop("SET sql_mode = ''").await.expect("is set");
    session.query_drop("SET time_zone = '+00:00'").await.expect("is set");
    let written: Vec<_> = cases.iter().filter(|(_, [(value, _), _])| !value.is_empty()).collect();
    let names: Vec<_> = written.iter().map(|(column, _)| name(column)).collect();
    let mut insert = async |from: u32| {
        for at in [0, 1] {
            let values: Vec<_> = written.iter().map(|(_, values)| values[at].0).collect();
            let sql = format!(
                "INSERT INTO {table} (id, {}) VALUES ({}, {})",
                names.join(", "),
                from + at as u32,
                values.join(", ")
            );
            session.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    };
    insert(10).await;
    stage.index = stage.search.index("types", json!({"mappings": {"dynamic": false}})).await;
    let call = format!("CALL dbms_etl.sync_by_table('search', '{table}', '{}', '')", stage.index);
    stage.daemon.sql(&call).await;
    stage.until_state("running").await;
    insert(20).await;
    let fields: Vec<_> = [0, 1]
        .map(|at| {
            let field = |(column, values): &&Case| format!("\"{}\":{}", name(column), values[at].1);
            cases.iter().map(field).collect::<Vec<_>>().join(",")
        })
        .into();
    for id in [10, 11, 20, 21] {
        let expected = format!("{{\"id\":{id},{}}}", fields[id % 10]);
        let body = until("the row was sent", SECONDS_30, async || {
            let action = format!("\"_id\":\"{id}\"");
            let texts: Vec<_> = stage.proxy.requests().iter().map(|one| one.text()).collect();
            let lines = || texts.iter().flat_map(|text| text.lines());
            lines()
                .zip(lines().skip(1))
                .find(|(line, _)| line.contains(&action))
                .map(|(_, body)| body.to_owned())
        })
        .await;
        assert_eq!(body, expected, "{flavour:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_every_type_of_mariadb_is_the_same_by_copy_and_by_stream() {
    for flavour in Flavour::MARIADB {
        both_ways(flavour, &servers::own_mysql(flavour, &[]).await).await;
    }
}

/// Compressed events, names in the log, and columns that images leave out: of a row that is read again too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_every_type_is_the_same_out_of_other_logs_of_mariadb() {
    let options = [
        "--log-bin-compress=ON",
        "--log-bin-compress-min-len=10",
        "--binlog-row-metadata=FULL",
        "--binlog-row-image=MINIMAL",
    ];
    let flavour = Flavour::Mariadb118;
    both_ways(flavour, &servers::own_mysql(flavour, &options).await).await;
}

/// Documents are the rows that still are so, whatever is done to the table's past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_keeps_its_past_is_followed_by_its_present() {
    for flavour in Flavour::MARIADB {
        let mut stage = Stage::set(servers::mysql(flavour), |setup| setup).await;
        stage.exec("ALTER TABLE {t} ADD SYSTEM VERSIONING").await;
        stage.exec("INSERT INTO {t} VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x')").await;
        stage.exec("UPDATE {t} SET a = 'past' WHERE id = 1").await;
        stage.exec("DELETE FROM {t} WHERE id = 2").await;
        stage.link().await;
        stage.until_equal("copied", SECONDS_30).await;
        stage.until_state("running").await;
        for sql in [
            "UPDATE {t} SET a = 'changed' WHERE id = 3",
            "UPDATE {t} SET id = 30 WHERE id = 3",
            "DELETE FROM {t} WHERE id = 1",
            "INSERT INTO {t} VALUES (1, 'again', 'x'), (2, 'again', 'x')",
            "REPLACE INTO {t} VALUES (2, 'replaced', 'x')",
            "INSERT INTO {t} VALUES (2, 'dup', 'x') ON DUPLICATE KEY UPDATE a = 'updated'",
            "DELETE HISTORY FROM {t}",
        ] {
            stage.exec(sql).await;
            stage.until_equal(sql, SECONDS_30).await;
        }
        stage.daemon.kill9();
        let alter = "SET STATEMENT system_versioning_alter_history = KEEP FOR ALTER TABLE {t}";
        stage.exec("DELETE FROM {t} WHERE id = 1").await;
        stage.exec(&format!("{alter} ADD COLUMN c INT FIRST")).await;
        stage.exec("UPDATE {t} SET a = 'behind the statement' WHERE id = 2").await;
        stage.daemon.start_again().await;
        stage.until_equal("statement and past", SECONDS_30).await;
        for sql in
            ["ALTER TABLE {t} DROP SYSTEM VERSIONING", "ALTER TABLE {t} ADD SYSTEM VERSIONING"]
        {
            stage.exec(sql).await;
            stage.exec("UPDATE {t} SET b = CONCAT(b, '+')").await;
            stage.exec("DELETE FROM {t} WHERE id = 30").await;
            stage.exec("INSERT INTO {t} (id, a, b) VALUES (30, 'new', 'x')").await;
            stage.until_equal(sql, SECONDS_30).await;
        }
        assert_eq!(stage.until_state("running").await["errors"], "");
    }
}
