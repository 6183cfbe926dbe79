//! The row decoder against real servers: every type, edge values and random ones, each column compared with what the
//! server itself selects.

use std::fmt::Write as _;
use std::time::Duration;

use driftless::change::{Change, ChangeKind, Value};
use driftless::error::ErrorKind;
use driftless::mapping::json_binary::write_json_binary;
use driftless::mapping::packed_decimal::write_packed_decimal;
use driftless::mysql::{Connection, DumpFrom};
use driftless::source::binlog::{Body, FormatDescription, TableMap, gtid_set, rows};
use driftless::table::{Column, ColumnType, TableDef, TableId};

use crate::replication::{SERVERS, database, dump, executed, read_log, root, root_at, run};
use crate::support::servers::{self, Flavour};

const RANDOM_ROWS: u64 = 300;

/// How a column is declared, what it means, how the server is asked for a text that says everything about its value,
/// and values that are worth a row.
struct Case {
    name: String,
    declared: String,
    ty: ColumnType,
    select: &'static str,
    edges: Vec<String>,
    random: fn(&mut Random) -> String,
}

/// Marsaglia's xorshift: small, and the seed says it all.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Numbers of all sizes, not only large ones.
    pub fn sized(&mut self, bits: u32) -> u64 {
        let width = self.below(u64::from(bits) + 1) as u32;
        self.next() & (1_u64.checked_shl(width).unwrap_or(0)).wrapping_sub(1)
    }

    pub fn signed(&mut self, bits: u32) -> i64 {
        let magnitude = self.sized(bits - 1) as i64;
        if self.below(2) == 0 { magnitude } else { -magnitude - 1 }
    }

    pub fn text(&mut self, max: u64) -> String {
        const CHARS: [char; 16] = [
            'a', 'Z', ' ', '"', '\\', '/', '\n', '\t', '\u{1}', '\u{1f}', '\u{7f}', 'é', '中',
            '😀', '\'', '\u{2028}',
        ];
        (0..self.below(max)).map(|_| CHARS[self.below(16) as usize]).collect()
    }

    pub fn bytes(&mut self, max: u64) -> String {
        let mut hex = String::from("X'");
        for _ in 0..self.below(max) {
            let _ = write!(hex, "{:02x}", self.sized(8));
        }
        hex + "'"
    }

    pub fn json(&mut self, depth: u32) -> String {
        match self.below(if depth > 4 { 6 } else { 8 }) {
            0 => ["null", "true", "false"][self.below(3) as usize].to_owned(),
            1 => self.signed(64).to_string(),
            2 => self.sized(64).to_string(),
            3 => {
                let number = f64::from_bits(self.next());
                if number.is_finite() { format!("{number:e}") } else { "0.5".to_owned() }
            }
            4 => format!("{}.{}e{}", self.signed(20), self.sized(30), self.below(40) as i64 - 20),
            5 => serde_json::to_string(&self.text(20)).expect("a string"),
            6 => {
                let items: Vec<_> = (0..self.below(6)).map(|_| self.json(depth + 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let items: Vec<_> = (0..self.below(6))
                    .map(|_| {
                        let key = serde_json::to_string(&self.text(8)).expect("a string");
                        format!("{key}:{}", self.json(depth + 1))
                    })
                    .collect();
                format!("{{{}}}", items.join(","))
            }
        }
    }
}

pub fn utf8(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("CONVERT(X'{hex}' USING utf8mb4)")
}

pub fn json(text: &str) -> String {
    format!("CAST({} AS JSON)", utf8(text))
}

pub fn decimal(random: &mut Random, whole: u64, scale: u64) -> String {
    let digits = |random: &mut Random, count: u64| -> String {
        (0..random.below(count + 1)).map(|_| char::from(b'0' + random.below(10) as u8)).collect()
    };
    let sign = if random.below(2) == 0 { "" } else { "-" };
    format!("{sign}0{}.{}0", digits(random, whole), digits(random, scale))
}

pub fn moment(random: &mut Random, first_year: u64, years: u64) -> String {
    let (date, time) = (date(random, first_year, years), time_of_day(random));
    format!("'{} {time}'", date.trim_matches('\''))
}

pub fn date(random: &mut Random, first_year: u64, years: u64) -> String {
    format!(
        "'{:04}-{:02}-{:02}'",
        first_year + random.below(years),
        1 + random.below(12),
        1 + random.below(28)
    )
}

pub fn time_of_day(random: &mut Random) -> String {
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        random.below(24),
        random.below(60),
        random.below(60),
        random.below(1_000_000)
    )
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add =
        |declared: &str, ty, select, edges: &[&str], random: fn(&mut Random) -> String| {
            let name = format!("c{}", cases.len());
            let edges = edges.iter().map(|edge| (*edge).to_owned()).collect();
            cases.push(Case { name, declared: declared.to_owned(), ty, select, edges, random });
        };
    use ColumnType as C;
    const PLAIN: &str = "{}";
    const NUMBER: &str = "CAST({} AS UNSIGNED)";
    const BYTES: &str = "HEX({})";

    add("TINYINT", C::TinyInt { unsigned: false }, PLAIN, &["-128", "-1", "127"], |r| {
        r.signed(8).to_string()
    });
    add("TINYINT UNSIGNED", C::TinyInt { unsigned: true }, PLAIN, &["0", "255"], |r| {
        r.sized(8).to_string()
    });
    add("SMALLINT", C::SmallInt { unsigned: false }, PLAIN, &["-32768", "-1", "32767"], |r| {
        r.signed(16).to_string()
    });
    add("SMALLINT UNSIGNED", C::SmallInt { unsigned: true }, PLAIN, &["65535"], |r| {
        r.sized(16).to_string()
    });
    add(
        "MEDIUMINT",
        C::MediumInt { unsigned: false },
        PLAIN,
        &["-8388608", "-1", "8388607"],
        |r| r.signed(24).to_string(),
    );
    add("MEDIUMINT UNSIGNED", C::MediumInt { unsigned: true }, PLAIN, &["16777215"], |r| {
        r.sized(24).to_string()
    });
    // YEAR before a signed column: it is counted among the numbers that have a sign.
    add("YEAR", C::Year, NUMBER, &["0", "1901", "2155", "2000"], |r| {
        (1901 + r.below(255)).to_string()
    });
    add("INT", C::Int { unsigned: false }, PLAIN, &["-2147483648", "-1", "2147483647"], |r| {
        r.signed(32).to_string()
    });
    add("INT UNSIGNED", C::Int { unsigned: true }, PLAIN, &["4294967295"], |r| {
        r.sized(32).to_string()
    });
    add(
        "BIGINT",
        C::BigInt { unsigned: false },
        PLAIN,
        &["-9223372036854775808", "-1", "9223372036854775807"],
        |r| r.signed(64).to_string(),
    );
    add("BIGINT UNSIGNED", C::BigInt { unsigned: true }, PLAIN, &["18446744073709551615"], |r| {
        r.sized(64).to_string()
    });
    add(
        "FLOAT",
        C::Float,
        "CAST({} AS DOUBLE)",
        &["0", "-0e0", "0.1", "3.4e38", "1e-38", "16777217"],
        |r| format!("{:e}", f64::from(f32::from_bits(r.next() as u32 & 0xbf7f_ffff))),
    );
    add(
        "DOUBLE",
        C::Double,
        PLAIN,
        &["0.1", "-0e0", "1.7976931348623157e308", "1e20", "2.2250738585072014e-308"],
        |r| {
            let n = f64::from_bits(r.next());
            if n.is_finite() { format!("{n:e}") } else { "0.5".to_owned() }
        },
    );
    add(
        "DECIMAL(10,2)",
        C::Decimal { precision: 10, scale: 2 },
        PLAIN,
        &["0", "-0.01", "99999999.99", "-99999999.99", "1.5"],
        |r| decimal(r, 8, 2),
    );
    add(
        "DECIMAL(65,30)",
        C::Decimal { precision: 65, scale: 30 },
        PLAIN,
        &[
            "0",
            "-99999999999999999999999999999999999.999999999999999999999999999999",
            "0.000000000000000000000000000001",
        ],
        |r| decimal(r, 35, 30),
    );
    add(
        "DECIMAL(19,0)",
        C::Decimal { precision: 19, scale: 0 },
        PLAIN,
        &["9999999999999999999", "-1"],
        |r| decimal(r, 19, 0),
    );
    add(
        "DECIMAL(9,9)",
        C::Decimal { precision: 9, scale: 9 },
        PLAIN,
        &["0.999999999", "-0.000000001"],
        |r| decimal(r, 0, 9),
    );
    add(
        "DECIMAL(20,1)",
        C::Decimal { precision: 20, scale: 1 },
        PLAIN,
        &["-1000000000000000000.1"],
        |r| decimal(r, 19, 1),
    );
    add(
        "DATE",
        C::Date,
        PLAIN,
        &["'0000-00-00'", "'2024-00-00'", "'9999-12-31'", "'1000-01-01'", "'2024-02-29'"],
        |r| date(r, 1, 9998),
    );
    for fsp in 0..=6 {
        add(
            &format!("TIME({fsp})"),
            C::Time { fsp },
            PLAIN,
            &[
                "'00:00:00'",
                "'-838:59:59'",
                "'838:59:59'",
                "'-00:00:00.100000'",
                "'-00:00:01.999999'",
                "'-12:34:56.000001'",
                "'23:59:59.123456'",
            ],
            |r| {
                let sign = if r.below(2) == 0 { "" } else { "-" };
                format!("'{sign}{}:{}'", r.below(838), &time_of_day(r)[3..])
            },
        );
        add(
            &format!("DATETIME({fsp})"),
            C::DateTime { fsp },
            PLAIN,
            &[
                "'0000-00-00 00:00:00'",
                "'9999-12-31 23:59:59.4'",
                "'1000-01-01 00:00:00'",
                "'2024-01-02 03:04:05.123456'",
            ],
            |r| moment(r, 1, 9998),
        );
        add(
            &format!("TIMESTAMP({fsp}) NULL"),
            C::Timestamp { fsp },
            "UNIX_TIMESTAMP({})",
            &[
                "'0000-00-00 00:00:00'",
                "'1970-01-01 00:00:01'",
                "'2038-01-19 03:14:07.4'",
                "'2024-01-02 03:04:05.123456'",
            ],
            |r| moment(r, 1971, 66),
        );
    }
    add("CHAR(10)", C::Text, BYTES, &["''", "'a  '", "'😀中é'"], |r| utf8(&r.text(10)));
    add("CHAR(255)", C::Text, BYTES, &["''", "REPEAT('😀', 255)", "REPEAT('a', 255)"], |r| {
        utf8(&r.text(255))
    });
    add("VARCHAR(20)", C::Text, BYTES, &["''", "'  a  '"], |r| utf8(&r.text(20)));
    add("VARCHAR(300) CHARACTER SET utf8mb3", C::Text, BYTES, &["REPEAT('中', 300)"], |r| {
        utf8(&r.text(100).replace('😀', "x"))
    });
    add("VARCHAR(20) CHARACTER SET ascii", C::Text, BYTES, &["'plain'"], |_| "'x'".to_owned());
    add("TINYTEXT", C::Text, BYTES, &["''", "'tiny'"], |r| utf8(&r.text(50)));
    add("TEXT", C::Text, BYTES, &["''", "REPEAT('é', 300)"], |r| utf8(&r.text(400)));
    add("MEDIUMTEXT", C::Text, BYTES, &["REPEAT('x', 70000)"], |r| utf8(&r.text(40)));
    add("LONGTEXT", C::Text, BYTES, &["'long'"], |r| utf8(&r.text(40)));
    // Trailing zeros are cut in the log and belong to the value.
    add(
        "BINARY(10)",
        C::Binary { length: 10 },
        BYTES,
        &["''", "X'00'", "X'61000000'", "X'00000000000000000001'", "X'ffffffffffffffffffff'"],
        |r| r.bytes(10),
    );
    add(
        "BINARY(255)",
        C::Binary { length: 255 },
        BYTES,
        &["''", "X'20'", "REPEAT('x', 255)"],
        |r| r.bytes(255),
    );
    add("VARBINARY(20)", C::Bytes, BYTES, &["''", "X'6100'", "X'00'"], |r| r.bytes(20));
    add("VARBINARY(300)", C::Bytes, BYTES, &["X'00'"], |r| r.bytes(300));
    add("TINYBLOB", C::Bytes, BYTES, &["X'00ff'"], |r| r.bytes(100));
    add("BLOB", C::Bytes, BYTES, &["REPEAT(X'00', 300)"], |r| r.bytes(300));
    add("LONGBLOB", C::Bytes, BYTES, &["''"], |r| r.bytes(30));
    let labels = |count: usize| (0..count).map(|at| format!("l{at}")).collect::<Vec<_>>();
    let list =
        |count: usize| labels(count).iter().map(|l| format!("'{l}'")).collect::<Vec<_>>().join(",");
    add(
        "ENUM('a','b','ü')",
        C::Enum { labels: vec!["a".into(), "b".into(), "ü".into()] },
        NUMBER,
        &["'a'", "'ü'", "'not a label'"],
        |r| (1 + r.below(3)).to_string(),
    );
    add(
        &format!("ENUM({})", list(300)),
        C::Enum { labels: labels(300) },
        NUMBER,
        &["'l0'", "'l299'"],
        |r| (1 + r.below(300)).to_string(),
    );
    add("SET('a','b','c')", C::Set { labels: labels(3) }, NUMBER, &["''", "'a,c'"], |r| {
        r.below(8).to_string()
    });
    add(&format!("SET({})", list(20)), C::Set { labels: labels(20) }, NUMBER, &["'l19'"], |r| {
        r.sized(20).to_string()
    });
    add(
        &format!("SET({})", list(64)),
        C::Set { labels: labels(64) },
        NUMBER,
        &["'l63'", "18446744073709551615"],
        |r| r.sized(64).to_string(),
    );
    add("JSON", C::Json, PLAIN, &[], |r| json(&r.json(0)));
    cases
}

/// Documents that are worth a row; those that the server makes itself hold values that no text can.
pub fn json_edges() -> Vec<String> {
    let mut edges: Vec<String> = [
        "[1e20, 1.0, 0.1, 1e-7, 123456789012345680000, -0.0, 0, -0, 1e14, 1e15, 1e16, 1.5e-15, 1.5e-16, 5e-324]",
        "[0, -1, 32767, 32768, -32768, -32769, 65535, 65536, 2147483647, 2147483648, -2147483648, -2147483649]",
        "[9223372036854775807, 9223372036854775808, -9223372036854775808, 18446744073709551615, 18446744073709551616]",
        r#"{"": 1, "b": {"c": [1, [2, [3, {"d": null}]]]}, "aa": true, "é": "中😀", "\"\\\u0001": false}"#,
        r#""a\"\\\/\b\f\n\r\t\u0000\u001f\u007fé😀\u2028 x : , y""#,
        "[]",
        "{}",
        "null",
        "12",
        "-1.5",
        r#""""#,
    ]
    .iter()
    .map(|text| json(text))
    .collect();
    edges.push(json(&format!("{}1{}", "[".repeat(99), "]".repeat(99))));
    // Over 64 KiB, so that offsets are large and small integers stand inside their entries.
    let large: Vec<String> =
        (0..9000_i64).map(|at| format!("{{\"key{at}\":{}}}", at * at * at - 4000)).collect();
    edges.push(json(&format!("[{}]", large.join(","))));
    let keys: Vec<String> =
        (0..4000).map(|at| format!("\"a key with a number {at}\":{}", at * 70_000)).collect();
    edges.push(json(&format!("{{{}}}", keys.join(","))));
    edges.extend(
        [
            "JSON_ARRAY(CAST(12.50 AS DECIMAL(10,2)), CAST(-0.05 AS DECIMAL(65,30)), 0.000, -1.5, 12345678901234567890.12)",
            "JSON_OBJECT('d', CAST('2015-01-15' AS DATE), 'dt', CAST('2015-01-15 23:24:25.12' AS DATETIME(2)))",
            "JSON_ARRAY(TIME'-12:13:14.5', TIME'838:59:59', TIME'-00:00:00.000001', TIMESTAMP'2024-02-29 01:02:03.000004')",
            "JSON_ARRAY(X'61', b'1011', CAST('' AS BINARY))",
            "JSON_ARRAY(CAST(REPEAT('x', 56) AS BINARY), CAST(REPEAT('x', 57) AS BINARY), CAST(REPEAT('x', 58) AS BINARY))",
            "JSON_ARRAY(CAST(REPEAT('xyz', 1000) AS BINARY))",
            "JSON_OBJECT('long', REPEAT('中', 50000), 's', REPEAT('a', 127), 't', REPEAT('b', 128))",
            "JSON_ARRAY(1e20, 0.1e0, 1e-7, -0e0, CAST(1 AS UNSIGNED), CAST(-1 AS SIGNED), YEAR('2024-01-01'))",
            "JSON_ARRAY(ST_GeomFromText('POINT(1 2)'))",
        ]
        .map(str::to_owned),
    );
    edges
}

/// A value as the server's answer to the case's question says it.
fn shown(value: &Value<'_>) -> Option<String> {
    let fraction = |micros: u32, fsp: u8| match fsp {
        0 => String::new(),
        fsp => format!(".{}", &format!("{micros:06}")[..usize::from(fsp)]),
    };
    let hex =
        |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02X}"));
    Some(match *value {
        Value::Null => return None,
        Value::Int(number) => number.to_string(),
        Value::UInt(number) | Value::Set(number) => number.to_string(),
        Value::Float(number) => format!("{:e}", f64::from(number)),
        Value::Double(number) => format!("{number:e}"),
        Value::PackedDecimal { bytes, precision, scale } => {
            let mut digits = Vec::new();
            write_packed_decimal(bytes, precision, scale, &mut digits).expect("well formed");
            String::from_utf8(digits).expect("digits")
        }
        Value::Date { year, month, day } => format!("{year:04}-{month:02}-{day:02}"),
        Value::Time { negative, hours, minutes, seconds, micros, fsp } => {
            let sign = if negative { "-" } else { "" };
            format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{}", fraction(micros, fsp))
        }
        Value::DateTime { year, month, day, hours, minutes, seconds, micros, fsp } => format!(
            "{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}{}",
            fraction(micros, fsp)
        ),
        Value::Timestamp { seconds: 0, .. } => "0".to_owned(),
        Value::Timestamp { seconds, micros, fsp } => format!("{seconds}{}", fraction(micros, fsp)),
        Value::Year(year) => year.to_string(),
        Value::Enum(label) => label.to_string(),
        Value::Text(bytes) => {
            assert!(str::from_utf8(bytes).is_ok());
            hex(bytes)
        }
        Value::Bytes(bytes) => hex(bytes),
        Value::Binary { bytes, length } => {
            let mut padded = bytes.to_vec();
            padded.resize(usize::from(length), 0);
            hex(&padded)
        }
        Value::JsonBinary(bytes) => {
            let mut text = Vec::new();
            write_json_binary(bytes, &mut text).expect("well formed");
            String::from_utf8(text).expect("UTF-8")
        }
        ref other => panic!("the log has no {other:?}"),
    })
}

/// The server's answer in the form of [`shown`].
fn expected(case: &Case, cell: Option<Vec<u8>>) -> Option<String> {
    let text = String::from_utf8(cell?).expect("UTF-8");
    Some(match &case.ty {
        ColumnType::Float | ColumnType::Double => {
            format!("{:e}", text.parse::<f64>().expect("a number"))
        }
        ColumnType::Timestamp { .. } if text.parse::<f64>() == Ok(0.0) => "0".to_owned(),
        ColumnType::Json => without_white_space(&text),
        _ => text,
    })
}

pub fn without_white_space(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|char| {
            if in_string {
                in_string = escaped || *char != '"';
                escaped = !escaped && *char == '\\';
                return true;
            }
            in_string = *char == '"';
            *char != ' '
        })
        .collect()
}

type Shown = Vec<Option<String>>;

async fn selected(connection: &mut Connection, cases: &[Case]) -> Vec<(u64, Shown)> {
    let asked: Vec<String> =
        cases.iter().map(|case| case.select.replace("{}", &case.name)).collect();
    let answer =
        run(connection, &format!("SELECT id, {} FROM t ORDER BY id", asked.join(", "))).await;
    answer
        .into_iter()
        .map(|mut row| {
            let values = row.split_off(1);
            let id = String::from_utf8(row.swap_remove(0).expect("a key")).expect("digits");
            let shown = cases.iter().zip(values).map(|(case, cell)| expected(case, cell)).collect();
            (id.parse().expect("a number"), shown)
        })
        .collect()
}

fn definition(db: &str, cases: &[Case]) -> TableDef {
    let id = ColumnType::BigInt { unsigned: true };
    let mut columns = vec![Column {
        name: "id".into(),
        ty: id,
        nullable: false,
        declared: "bigint unsigned".into(),
    }];
    columns.extend(cases.iter().map(|case| Column {
        name: case.name.clone(),
        ty: case.ty.clone(),
        nullable: true,
        declared: case.declared.to_lowercase(),
    }));
    let unsupported = |name: &str| Column {
        name: name.into(),
        ty: ColumnType::Unsupported { reason: "not yet decoded".into() },
        nullable: true,
        declared: name.into(),
    };
    columns.extend(["bits", "shape"].map(unsupported));
    TableDef {
        id: TableId::new(db, "t"),
        columns,
        primary_key: vec![0],
        unique_keys: vec![vec![0]],
    }
}

/// Edge rows (each case's n-th edge value in the n-th row), a row of NULLs, random rows.
async fn fill(connection: &mut Connection, cases: &[Case]) -> u64 {
    let json_edges = json_edges();
    let edge_rows =
        cases.iter().map(|case| case.edges.len()).max().unwrap_or(0).max(json_edges.len());
    let seed = std::env::var("DRIFTLESS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x9e37);
    eprintln!("DRIFTLESS_TEST_SEED={seed}");
    let mut random = Random(seed);
    let mut id = 0;
    for row in 0..edge_rows as u64 + 1 + RANDOM_ROWS {
        let values: Vec<String> = cases
            .iter()
            .map(|case| {
                let edges = if case.ty == ColumnType::Json { &json_edges } else { &case.edges };
                match row.checked_sub(edge_rows as u64) {
                    None => edges.get(row as usize).cloned().unwrap_or_else(|| "NULL".to_owned()),
                    Some(0) => "NULL".to_owned(),
                    Some(_) if random.below(8) == 0 => "NULL".to_owned(),
                    Some(_) => (case.random)(&mut random),
                }
            })
            .collect();
        let sql = format!(
            "INSERT INTO t VALUES ({id}, {}, b'101', ST_GeomFromText('POINT(1 2)'))",
            values.join(", ")
        );
        run(connection, &sql).await;
        id += 1;
    }
    id
}

/// What the log says of the table: by kind, id (of the before image where there is one) and both images.
type Logged = (ChangeKind, u64, Shown, Shown);

async fn every_type(server: &str, db: &str, session: &str) {
    let cases = cases();
    let options = root(server);
    let mut connection = database(&options, db).await;
    run(&mut connection, session).await;
    let columns: Vec<String> =
        cases.iter().map(|case| format!("{} {}", case.name, case.declared)).collect();
    let create = format!(
        "CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, {}, bits BIT(10), shape GEOMETRY) CHARACTER SET utf8mb4",
        columns.join(", ")
    );
    run(&mut connection, &create).await;
    let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut connection).await));
    let rows = fill(&mut connection, &cases).await;
    let first = selected(&mut connection, &cases).await;
    assert_eq!(first.len() as u64, rows);
    // One event moves every row's values to the row above it, key and all; then half of them go.
    run(&mut connection, "UPDATE t SET id = id + 100000 ORDER BY id").await;
    run(&mut connection, "UPDATE t SET c0 = c0 DIV 2, c9 = NULL, c20 = 'changed'").await;
    let second = selected(&mut connection, &cases).await;
    run(&mut connection, "DELETE FROM t").await;
    run(&mut connection, "CREATE TABLE finished (id INT)").await;

    let def = definition(db, &cases);
    let wanted: Vec<usize> = (0..=cases.len()).collect();
    let mut stream = dump(&options, from, Duration::from_secs(20)).await;
    let (mut map, mut logged) = (None::<TableMap>, Vec::<Logged>::new());
    let mut payloads = 0;
    read_log(&mut stream, |event| {
        match &event.body {
            Body::Payload(_) => payloads += 1,
            Body::Query(query) => {
                return query.db == db.as_bytes()
                    && query.statement.starts_with(b"CREATE TABLE fin");
            }
            Body::TableMap(event) if event.db == db => {
                let same = map.take().filter(|map| map.is_same(event));
                map = Some(same.unwrap_or_else(|| TableMap::parse(event).expect("well formed")));
            }
            Body::TableMap(_) => map = None,
            Body::Rows(rows_event) => {
                let Some(map) = &map else { return false };
                let plan = rows::Plan::new(&def, &wanted, map)
                    .unwrap_or_else(|e| panic!("{}", e.report()));
                let mut reader = rows::Reader::new(rows_event, &plan).expect("well formed");
                let mut change = Change::reusable(ChangeKind::Insert);
                let mut last_offset = 0;
                while reader.next(&mut change).unwrap_or_else(|e| panic!("{}", e.report())) {
                    logged.push(copied(&change));
                    for (used, row) in [
                        (change.kind != ChangeKind::Insert, &change.before),
                        (change.kind != ChangeKind::Delete, &change.after),
                    ] {
                        assert!(
                            !used
                                || (row.offset > last_offset
                                    && (row.offset as usize) < event.bytes.len())
                        );
                        last_offset = if used { row.offset } else { last_offset };
                    }
                }
                check_some_columns(&def, map, rows_event, &logged);
            }
            _ => (),
        }
        false
    })
    .await;

    assert!(payloads as u64 > rows || session.ends_with("OFF"));
    let of = |kind| logged.iter().filter(move |(logged, ..)| *logged == kind).collect::<Vec<_>>();
    for (kind, count) in [(ChangeKind::Insert, 1), (ChangeKind::Update, 2), (ChangeKind::Delete, 1)]
    {
        assert_eq!(of(kind).len() as u64, count * rows, "{kind:?}");
    }
    let (inserts, updates, deletes) =
        (of(ChangeKind::Insert), of(ChangeKind::Update), of(ChangeKind::Delete));
    for (at, ((id, values), (later_id, later))) in first.iter().zip(&second).enumerate() {
        compare(&cases, inserts[at].1, &inserts[at].3, *id, values);
        compare(&cases, updates[at].1, &updates[at].2, *id, values);
        let moved = &updates[at + first.len()];
        compare(&cases, moved.1, &moved.2, *later_id, values);
        compare(&cases, moved.1, &moved.3, *later_id, later);
        compare(&cases, deletes[at].1, &deletes[at].2, *later_id, later);
    }
    run(&mut connection, &format!("DROP DATABASE {db}")).await;
}

fn copied(change: &Change<'_>) -> Logged {
    let image = |values: &[Value<'_>]| -> Shown { values.iter().skip(1).map(shown).collect() };
    let keyed = if change.kind == ChangeKind::Insert { &change.after } else { &change.before };
    let Some(Value::UInt(id)) = keyed.values.first() else { panic!("no key") };
    let before =
        if change.kind == ChangeKind::Insert { Shown::new() } else { image(&change.before.values) };
    let after =
        if change.kind == ChangeKind::Delete { Shown::new() } else { image(&change.after.values) };
    (change.kind, *id, before, after)
}

/// The same event with few columns wanted, in another order, gives the same values.
fn check_some_columns(
    def: &TableDef,
    map: &TableMap,
    event: &driftless::source::binlog::event::RowsEvent<'_>,
    logged: &[Logged],
) {
    let wanted = [def.columns.len() - 3, 0, 5];
    let plan = rows::Plan::new(def, &wanted, map).expect("agrees");
    let mut reader = rows::Reader::new(event, &plan).expect("well formed");
    let mut change = Change::reusable(ChangeKind::Insert);
    let mut seen = Vec::new();
    while reader.next(&mut change).expect("well formed") {
        let row = if change.kind == ChangeKind::Delete { &change.before } else { &change.after };
        seen.push((shown(&row.values[0]), shown(&row.values[2])));
    }
    let all = &logged[logged.len() - seen.len()..];
    for ((json, fifth), (kind, _, before, after)) in seen.iter().zip(all) {
        let image = if *kind == ChangeKind::Delete { before } else { after };
        assert_eq!(
            (json.as_ref(), fifth.as_ref()),
            (image[wanted[0] - 1].as_ref(), image[4].as_ref())
        );
    }
}

fn compare(cases: &[Case], logged_id: u64, logged: &Shown, id: u64, selected: &Shown) {
    assert_eq!(logged_id, id);
    for ((case, logged), selected) in cases.iter().zip(logged).zip(selected) {
        assert_eq!(logged, selected, "row {id}, {} {}", case.name, case.declared);
    }
}

#[tokio::test]
async fn every_type_of_9_7_reads_as_the_server_shows_it() {
    every_type(SERVERS[0], "wire_types", "SET SESSION binlog_transaction_compression = OFF").await;
}

#[tokio::test]
async fn every_type_of_8_0_reads_as_the_server_shows_it() {
    every_type(SERVERS[1], "wire_types", "SET SESSION binlog_transaction_compression = OFF").await;
}

#[tokio::test]
async fn every_type_reads_the_same_out_of_compressed_transactions() {
    for server in SERVERS {
        every_type(server, "wire_packed", "SET SESSION binlog_transaction_compression = ON").await;
    }
}

/// The layout of the next table of `db`.
async fn layout_of(server: &str, db: &str, create: &str, insert: &str) -> TableMap {
    let options = root(server);
    let mut connection = database(&options, db).await;
    run(&mut connection, create).await;
    let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut connection).await));
    run(&mut connection, insert).await;
    let mut stream = dump(&options, from, Duration::from_secs(20)).await;
    let mut map = None;
    read_log(&mut stream, |event| {
        if let Body::TableMap(event) = &event.body
            && event.db == db
        {
            map = Some(TableMap::parse(event).expect("well formed"));
        }
        map.is_some()
    })
    .await;
    run(&mut connection, &format!("DROP DATABASE {db}")).await;
    map.expect("it came")
}

#[tokio::test]
async fn a_definition_that_does_not_agree_with_the_log_is_refused_by_column() {
    let create = "CREATE TABLE t (id INT, y YEAR, u INT UNSIGNED, s VARCHAR(10), b VARBINARY(10), d DATETIME(3))";
    for server in SERVERS {
        let map = layout_of(server, "wire_layout", create, "INSERT INTO t (id) VALUES (1)").await;
        let column = |name: &str, ty| Column {
            name: name.into(),
            ty,
            nullable: true,
            declared: name.into(),
        };
        let right = TableDef {
            id: TableId::new("wire_layout", "t"),
            columns: vec![
                column("id", ColumnType::Int { unsigned: false }),
                column("y", ColumnType::Year),
                column("u", ColumnType::Int { unsigned: true }),
                column("s", ColumnType::Text),
                column("b", ColumnType::Bytes),
                column("d", ColumnType::DateTime { fsp: 3 }),
            ],
            primary_key: vec![],
            unique_keys: vec![],
        };
        rows::Plan::new(&right, &[0, 1, 2, 3, 4, 5], &map)
            .unwrap_or_else(|error| panic!("{}", error.report()));
        for (ordinal, wrong) in [
            (0, ColumnType::Int { unsigned: true }),
            (0, ColumnType::BigInt { unsigned: false }),
            (2, ColumnType::Int { unsigned: false }),
            (3, ColumnType::Bytes),
            (4, ColumnType::Text),
            (5, ColumnType::DateTime { fsp: 2 }),
        ] {
            let mut def = right.clone();
            def.columns[ordinal].ty = wrong;
            let error = rows::Plan::new(&def, &[], &map).expect_err("does not agree");
            assert_eq!(error.kind(), ErrorKind::Schema);
            assert!(
                error.to_string().contains(&format!("`{}`", def.columns[ordinal].name)),
                "{error}"
            );
        }
        let mut short = right.clone();
        short.columns.pop();
        assert_eq!(
            rows::Plan::new(&short, &[], &map).expect_err("too short").kind(),
            ErrorKind::Schema
        );
        let mut unsupported = right.clone();
        unsupported.columns[3].ty = ColumnType::Unsupported { reason: "gbk".into() };
        let error = rows::Plan::new(&unsupported, &[3], &map).expect_err("cannot be decoded");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("column `s` of wire_layout.t"), "{error}");
        rows::Plan::new(&unsupported, &[0], &map).expect("it is not wanted");
    }
}

#[tokio::test]
async fn what_a_row_image_leaves_out_is_told_from_null() {
    for server in SERVERS {
        let options = root(server);
        let mut connection = database(&options, "wire_minimal").await;
        run(&mut connection, "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)").await;
        run(&mut connection, "INSERT INTO t VALUES (1, 2, 3)").await;
        run(&mut connection, "SET SESSION binlog_row_image = MINIMAL").await;
        let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut connection).await));
        run(&mut connection, "UPDATE t SET b = 4").await;
        let int = |name: &str| Column {
            name: name.into(),
            ty: ColumnType::Int { unsigned: false },
            nullable: true,
            declared: "int".into(),
        };
        let def = TableDef {
            id: TableId::new("wire_minimal", "t"),
            columns: vec![int("id"), int("a"), int("b")],
            primary_key: vec![0],
            unique_keys: vec![vec![0]],
        };
        let mut stream = dump(&options, from, Duration::from_secs(20)).await;
        let (mut map, mut seen) = (None::<TableMap>, None);
        read_log(&mut stream, |event| {
            match &event.body {
                Body::TableMap(event) if event.db == "wire_minimal" => {
                    map = TableMap::parse(event).ok()
                }
                Body::TableMap(_) => map = None,
                Body::Rows(event) => {
                    let Some(map) = &map else { return false };
                    let plan = rows::Plan::new(&def, &[0, 1], map).expect("agrees");
                    let mut reader = rows::Reader::new(event, &plan).expect("well formed");
                    assert!(!reader.is_whole());
                    let mut change = Change::reusable(ChangeKind::Update);
                    assert!(reader.next(&mut change).expect("well formed"));
                    seen = Some(format!("{:?} {:?}", change.before.values, change.after.values));
                }
                _ => (),
            }
            seen.is_some()
        })
        .await;
        assert_eq!(seen.as_deref(), Some("[Int(1), LeftOut] [Int(1), LeftOut]"));
        run(&mut connection, "DROP DATABASE wire_minimal").await;
    }
}

/// What an encrypted server sends is in the clear; its files say that they are not.
#[tokio::test]
async fn an_encrypted_log_is_read_from_the_server_and_refused_as_a_file() {
    let keys = servers::data_dir();
    let file = keys.path().join("keys");
    std::fs::write(&file, format!("1;{}\n", "0123456789abcdef".repeat(4))).expect("is written");
    let options = [
        "--plugin-load-add=file_key_management",
        "--encrypt-binlog=ON",
        &format!("--file-key-management-filename={}", file.display()),
    ];
    let server = servers::own_mysql(Flavour::Mariadb118, &options).await;
    let options = root_at("127.0.0.1", server.port());
    let mut connection = database(&options, "wire_encrypted").await;
    run(&mut connection, "CREATE TABLE t (id INT PRIMARY KEY)").await;
    run(&mut connection, "INSERT INTO t VALUES (1), (2)").await;
    let mut stream =
        dump(&options, DumpFrom::Domains(String::new()), Duration::from_secs(20)).await;
    let mut map = None;
    read_log(&mut stream, |event| match &event.body {
        Body::TableMap(event) => {
            map = Some((event.db.to_owned(), event.table.to_owned()));
            false
        }
        Body::Rows(_) => true,
        _ => false,
    })
    .await;
    assert_eq!(map, Some(("wire_encrypted".to_owned(), "t".to_owned())));

    // The file that is being written has a mark that its checksum does not know of.
    run(&mut connection, "FLUSH BINARY LOGS").await;
    let log = std::fs::read(server.data_dir().join("binlog.000001")).expect("the log is there");
    let mut rest = &log[4..];
    let mut format = FormatDescription::assumed();
    let error = loop {
        let size = u32::from_le_bytes(rest[9..13].try_into().expect("four bytes")) as usize;
        let (event, behind) = rest.split_at(size);
        match format.read(event) {
            Ok(read) => {
                if let Body::FormatDescription(next) = read.body {
                    format = *next;
                }
            }
            Err(error) => break error,
        }
        rest = behind;
    };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.report().contains("encrypted"), "{}", error.report());
}
