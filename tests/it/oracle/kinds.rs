//! The columns that the oracle draws: how each is declared, what may stand in it, and how the server is asked for the same
//! value. Knows nothing of how values are read.

use std::collections::HashMap;
use std::fmt::Write as _;

use driftless::table::Charset;

use crate::decoder::{
    Random, date, decimal, json, json_edges, moment, time_of_day, utf8, without_white_space,
};
use crate::support::mysql::Mysql;

/// One column of a random table.
pub struct Drawn {
    pub kind: String,
    /// Type and attributes without NULL or NOT NULL.
    pub declared: String,
    pub may_be_null: bool,
    pub is_generated: bool,
    /// What the server is asked; `{}` is the column.
    pub select: &'static str,
    /// Whether our JSON is right, by the server's answer.
    pub agrees: fn(&str, &str) -> bool,
    pub value: Box<dyn Fn(&mut Random) -> String>,
}

/// Codes of one character each, by the name of a character set.
pub type Alphabet = HashMap<&'static str, Vec<String>>;

const NUMBER: &str = "{} + 0";
const TEXT: &str = "CAST({} AS CHAR)";
const QUOTED: &str = "JSON_QUOTE(CONVERT({} USING utf8mb4))";

/// Every kind once, each drawn anew.
pub fn draw(random: &mut Random, alphabet: &Alphabet, has_vector: bool) -> Vec<Drawn> {
    let mut all = Vec::new();
    numbers(random, &mut all);
    moments(&mut all);
    texts(random, alphabet, &mut all);
    labels(random, &mut all);
    bytes(random, &mut all);
    shapes(&mut all);
    json_and_vectors(random, has_vector, &mut all);
    all
}

fn column(
    kind: &str,
    declared: impl Into<String>,
    select: &'static str,
    agrees: fn(&str, &str) -> bool,
    value: impl Fn(&mut Random) -> String + 'static,
) -> Drawn {
    Drawn {
        kind: kind.to_owned(),
        declared: declared.into(),
        may_be_null: true,
        is_generated: false,
        select,
        agrees,
        value: Box::new(value),
    }
}

fn same(ours: &str, servers: &str) -> bool {
    ours == servers
}

fn is_string(ours: &str, expected: &str) -> bool {
    ours.strip_prefix('"').and_then(|ours| ours.strip_suffix('"')) == Some(expected)
}

fn numbers(random: &mut Random, all: &mut Vec<Drawn>) {
    for (name, bits) in
        [("TINYINT", 8), ("SMALLINT", 16), ("MEDIUMINT", 24), ("INT", 32), ("BIGINT", 64)]
    {
        all.push(column(name, name, NUMBER, same, move |r| r.signed(bits).to_string()));
        let unsigned = format!("{name} UNSIGNED");
        let zerofill = ["", " ZEROFILL"][random.below(2) as usize];
        all.push(column(&unsigned, format!("{unsigned}{zerofill}"), NUMBER, same, move |r| {
            r.sized(bits).to_string()
        }));
    }
    all.push(column("TINYINT(1)", "TINYINT(1)", NUMBER, same, |r| r.signed(8).to_string()));
    all.push(column("INVISIBLE", "INT INVISIBLE", NUMBER, same, |r| r.signed(32).to_string()));
    for stored in ["VIRTUAL", "STORED"] {
        let declared = format!("BIGINT GENERATED ALWAYS AS (id * 7919 - 500000) {stored}");
        let mut generated = column(stored, declared, NUMBER, same, |_| unreachable!());
        generated.is_generated = true;
        all.push(generated);
    }
    all.push(column("YEAR", "YEAR", NUMBER, same, |r| match r.below(8) {
        0 => "0".to_owned(),
        _ => (1901 + r.below(255)).to_string(),
    }));
    let bits = 1 + random.below(64);
    for (kind, bits) in [("BIT", bits), ("BIT(1)", 1), ("BIT(64)", 64)] {
        all.push(column(kind, format!("BIT({bits})"), NUMBER, same, move |r| {
            r.sized(bits as u32).to_string()
        }));
    }
    let float = |r: &mut Random| format!("{:e}", f32::from_bits(r.next() as u32 & 0xbf7f_ffff));
    all.push(column("FLOAT", "FLOAT", "CAST({} AS DOUBLE)", is_float, float));
    all.push(column("FLOAT(M,D)", "FLOAT(9,3)", "CAST({} AS DOUBLE)", is_float, |r| {
        format!("{}.{}", r.signed(20), r.below(1_000_000))
    }));
    let double = |r: &mut Random| {
        let number = f64::from_bits(r.next());
        if number.is_finite() { format!("{number:e}") } else { "0.5".to_owned() }
    };
    all.push(column("DOUBLE", "DOUBLE", "{}", is_double, double));
    all.push(column("DOUBLE(M,D)", "DOUBLE(15,4)", "{} * 1e0", is_double, |r| {
        format!("{}.{}", r.signed(36), r.below(1_000_000))
    }));
    let precision = 1 + random.below(65);
    let scale = random.below(precision.min(30) + 1);
    let zerofill = ["", " UNSIGNED ZEROFILL"][random.below(2) as usize];
    for (kind, declared, precision, scale) in [
        ("DECIMAL", format!("DECIMAL({precision},{scale}){zerofill}"), precision, scale),
        ("DECIMAL(65,30)", "DECIMAL(65,30)".to_owned(), 65, 30),
    ] {
        all.push(column(kind, declared, TEXT, is_decimal, move |r| {
            decimal(r, precision - scale, scale)
        }));
    }
}

/// How many digits a number has that are not zeros at either end.
fn digits(number: &str) -> usize {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len()
}

fn is_float(ours: &str, servers: &str) -> bool {
    let Ok(number) = servers.parse::<f64>() else { return false };
    is_shortest_float(ours, number as f32)
}

fn is_shortest_float(ours: &str, number: f32) -> bool {
    let is_float = ours.contains(['.', 'e']);
    is_float && ours.parse() == Ok(number) && digits(ours) == digits(&format!("{number:e}"))
}

fn is_double(ours: &str, servers: &str) -> bool {
    let Ok(number) = servers.parse::<f64>() else { return false };
    let is_float = ours.contains(['.', 'e']);
    is_float && ours.parse() == Ok(number) && digits(ours) == digits(&format!("{number:e}"))
}

fn is_decimal(ours: &str, servers: &str) -> bool {
    let (sign, number) = servers.strip_prefix('-').map_or(("", servers), |number| ("-", number));
    let number = number.trim_start_matches('0');
    let zero = if number.is_empty() || number.starts_with('.') { "0" } else { "" };
    ours == format!("{sign}{zero}{number}")
}

fn moments(all: &mut Vec<Drawn>) {
    all.push(column("DATE", "DATE", TEXT, is_date, |r| match r.below(8) {
        0 => "'0000-00-00'".to_owned(),
        1 => format!("'{:04}-00-00'", r.below(3000)),
        2 => "'2024-02-00'".to_owned(),
        _ => date(r, 1, 9998),
    }));
    for fsp in 0..=6 {
        let draw = |r: &mut Random| match r.below(8) {
            0 => "'0000-00-00 00:00:00'".to_owned(),
            1 => format!("'2026-03-00 {}'", time_of_day(r)),
            _ => moment(r, 1, 9998),
        };
        all.push(column("DATETIME", format!("DATETIME({fsp})"), TEXT, is_date_time, draw));
        let draw = |r: &mut Random| match r.below(8) {
            0 => "'0000-00-00 00:00:00'".to_owned(),
            _ => moment(r, 1971, 66),
        };
        all.push(column("TIMESTAMP", format!("TIMESTAMP({fsp})"), TEXT, is_timestamp, draw));
        all.push(column("TIME", format!("TIME({fsp})"), TEXT, is_string, |r| {
            let sign = if r.below(2) == 0 { "" } else { "-" };
            let hours = if r.below(3) == 0 { 0 } else { r.below(839) };
            format!("'{sign}{hours}:{}'", &time_of_day(r)[3..])
        }));
    }
}

fn is_date(ours: &str, servers: &str) -> bool {
    if servers.contains("-00") { ours == "null" } else { is_string(ours, servers) }
}

fn is_date_time(ours: &str, servers: &str) -> bool {
    is_date(ours, &servers.replace(' ', "T"))
}

fn is_timestamp(ours: &str, servers: &str) -> bool {
    is_date(ours, &(servers.replace(' ', "T") + "Z"))
}

fn texts(random: &mut Random, alphabet: &Alphabet, all: &mut Vec<Drawn>) {
    let types = |random: &mut Random| match random.below(7) {
        0 => format!("CHAR({})", 1 + random.below(60)),
        1 => format!("VARCHAR({})", 1 + random.below(60)),
        2 => format!("VARCHAR({})", 300 + random.below(60)),
        3 => "TINYTEXT".to_owned(),
        4 => "TEXT".to_owned(),
        5 => "MEDIUMTEXT".to_owned(),
        _ => "LONGTEXT".to_owned(),
    };
    for (at, name) in ["utf8mb4", "utf8mb3", "ascii"].into_iter().enumerate() {
        let declared = format!("{} CHARACTER SET {name}", types(random));
        let last = [char::MAX, '\u{ffff}', '\u{7f}'][at];
        all.push(column(name, declared, QUOTED, same, move |r| {
            utf8(&r.text(40).chars().filter(|c| *c <= last).collect::<String>())
        }));
    }
    for charset in Charset::ALL {
        let name = charset.name();
        let codes = alphabet[name].clone();
        let declared = format!("{} CHARACTER SET {name}", types(random));
        all.push(column(name, declared, QUOTED, same, move |r| {
            let mut text = format!("_{name} X'");
            for _ in 0..r.below(30) {
                text += &codes[r.below(codes.len() as u64) as usize];
            }
            text + "'"
        }));
    }
}

fn labels(random: &mut Random, all: &mut Vec<Drawn>) {
    for (charset, letters) in [
        ("utf8mb4", "aü中"),
        ("latin1", "aß€"),
        ("gbk", "a中国"),
        ("sjis", "a日本"),
        ("ucs2", "aя中"),
    ] {
        let letters: Vec<char> = letters.chars().collect();
        let list = |count: u64| {
            let label = |at: u64| format!("'{}{at}'", letters[at as usize % letters.len()]);
            (0..count).map(label).collect::<Vec<_>>().join(",")
        };
        let few = 2 + random.below(60);
        let (enum_count, set_count) = if random.below(2) == 0 { (few, few) } else { (300, 64) };
        let declared = format!("ENUM({}) CHARACTER SET {charset}", list(enum_count));
        all.push(column("ENUM", declared, QUOTED, same, move |r| {
            r.below(enum_count + 1).to_string()
        }));
        let declared = format!("SET({}) CHARACTER SET {charset}", list(set_count));
        all.push(column("SET", declared, QUOTED, is_set, move |r| {
            r.sized(set_count as u32).to_string()
        }));
    }
}

fn is_set(ours: &str, servers: &str) -> bool {
    let labels = servers.trim_matches('"');
    let quoted: Vec<_> = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| format!("\"{label}\""))
        .collect();
    ours == format!("[{}]", quoted.join(","))
}

fn bytes(random: &mut Random, all: &mut Vec<Drawn>) {
    let length = 1 + random.below(255);
    for (kind, declared) in [
        ("BINARY", format!("BINARY({length})")),
        ("VARBINARY", format!("VARBINARY({})", 1 + random.below(400))),
        ("TINYBLOB", "TINYBLOB".to_owned()),
        ("BLOB", "BLOB".to_owned()),
        ("MEDIUMBLOB", "MEDIUMBLOB".to_owned()),
        ("LONGBLOB", "LONGBLOB".to_owned()),
        ("CHARACTER SET binary", "VARCHAR(40) CHARACTER SET binary".to_owned()),
    ] {
        all.push(column(kind, declared, "TO_BASE64({})", is_base64, |r| r.bytes(120)));
    }
}

fn is_base64(ours: &str, servers: &str) -> bool {
    is_string(ours, &servers.replace('\n', ""))
}

fn shapes(all: &mut Vec<Drawn>) {
    let kinds = [
        "POINT",
        "LINESTRING",
        "POLYGON",
        "MULTIPOINT",
        "MULTILINESTRING",
        "MULTIPOLYGON",
        "GEOMETRYCOLLECTION",
    ];
    for (at, kind) in kinds.into_iter().enumerate() {
        all.push(column(kind, kind, "ST_AsGeoJSON({})", is_json, move |r| shape(r, at as u64)));
    }
    all.push(column("GEOMETRY", "GEOMETRY", "ST_AsGeoJSON({})", is_json, |r| {
        let kind = r.below(7);
        shape(r, kind)
    }));
    all.push(column("SRID 4326", "GEOMETRY SRID 4326", "ST_AsGeoJSON({})", is_json, |r| {
        let kind = r.below(7);
        format!("ST_GeomFromText('{}', 4326)", wkt(r, kind, 0))
    }));
}

fn shape(random: &mut Random, kind: u64) -> String {
    let srid = [0, 4326, 3857][random.below(3) as usize];
    format!("ST_GeomFromText('{}', {srid})", wkt(random, kind, 0))
}

/// Within the bounds of latitudes, so that any reference system takes it.
fn position(random: &mut Random) -> String {
    let mut number = || match random.below(6) {
        0 => random.below(90).to_string(),
        1 => format!("-{}e-{}", random.below(90), random.below(30)),
        2 => "-0".to_owned(),
        _ => format!("{}", (random.next() as i64 as f64) / (i64::MAX as f64) * 89.0),
    };
    let (x, y) = (number(), number());
    format!("{x} {y}")
}

fn wkt(random: &mut Random, kind: u64, depth: u64) -> String {
    let line = |random: &mut Random| {
        let count = 2 + random.below(5);
        let positions: Vec<_> = (0..count).map(|_| position(random)).collect();
        format!("({})", positions.join(","))
    };
    let polygon = |random: &mut Random| {
        let rings: Vec<_> = (0..1 + random.below(2))
            .map(|_| {
                let (first, a, b) = (position(random), position(random), position(random));
                format!("({first},{a},{b},{first})")
            })
            .collect();
        format!("({})", rings.join(","))
    };
    let many = |random: &mut Random, one: &dyn Fn(&mut Random) -> String| {
        let parts: Vec<_> = (0..1 + random.below(4)).map(|_| one(random)).collect();
        format!("({})", parts.join(","))
    };
    match kind {
        0 => format!("POINT({})", position(random)),
        1 => format!("LINESTRING{}", line(random)),
        2 => format!("POLYGON{}", polygon(random)),
        3 => format!("MULTIPOINT{}", many(random, &|random| position(random))),
        4 => format!("MULTILINESTRING{}", many(random, &line)),
        5 => format!("MULTIPOLYGON{}", many(random, &polygon)),
        _ if random.below(5) == 0 => "GEOMETRYCOLLECTION EMPTY".to_owned(),
        _ => {
            let kinds = if depth < 3 { 7 } else { 6 };
            let part = |random: &mut Random| {
                let kind = random.below(kinds);
                wkt(random, kind, depth + 1)
            };
            format!("GEOMETRYCOLLECTION{}", many(random, &part))
        }
    }
}

fn is_json(ours: &str, servers: &str) -> bool {
    ours == without_white_space(servers)
}

fn json_and_vectors(random: &mut Random, has_vector: bool, all: &mut Vec<Drawn>) {
    const LONG: usize = 2_000;
    let edges: Vec<String> = json_edges().into_iter().filter(|edge| edge.len() < LONG).collect();
    all.push(column("JSON", "JSON", TEXT, is_json, move |r| match r.below(3) {
        0 => edges[r.below(edges.len() as u64) as usize].clone(),
        _ => json(&r.json(0)),
    }));
    if has_vector {
        let dimension = 1 + random.below(20);
        all.push(column("VECTOR", format!("VECTOR({dimension})"), "HEX({})", is_vector, |r| {
            let mut hex = String::from("X'");
            for _ in 0..1 + r.below(8) {
                let number = f32::from_bits(r.next() as u32 & 0xbf7f_ffff);
                for byte in number.to_le_bytes() {
                    let _ = write!(hex, "{byte:02x}");
                }
            }
            hex + "'"
        }));
        // Larger vectors than the column takes are refused.
        let last = all.last_mut().expect("was just added");
        last.declared = "VECTOR(8)".to_owned();
    }
}

fn is_vector(ours: &str, servers: &str) -> bool {
    let byte = |at: usize| u8::from_str_radix(&servers[at..at + 2], 16).expect("hex");
    let number = |at: usize| f32::from_le_bytes([0, 2, 4, 6].map(|offset| byte(at * 8 + offset)));
    let ours = ours.trim_start_matches('[').trim_end_matches(']');
    let numbers: Vec<&str> = ours.split(',').filter(|text| !text.is_empty()).collect();
    numbers.len() * 8 == servers.len()
        && numbers.iter().enumerate().all(|(at, text)| is_shortest_float(text, number(at)))
}

/// Codes of one character each that this server takes for well-formed: all of one byte, every seventh of two, some of more.
pub async fn alphabet(server: &Mysql) -> Alphabet {
    let mut all = Alphabet::new();
    for charset in Charset::ALL {
        let name = charset.name();
        let sql = format!(
            "WITH RECURSIVE numbers AS (SELECT 0 n UNION ALL SELECT n + 1 FROM numbers WHERE n < 9600), \
             codes AS (SELECT IF(n < 256, LPAD(HEX(n), 2, '0'), LPAD(HEX((n - 256) * 7 MOD 65536), 4, '0')) code FROM numbers) \
             SELECT /*+ SET_VAR(cte_max_recursion_depth = 10000) */ code FROM codes \
             WHERE CHAR_LENGTH(CONVERT(CONVERT(UNHEX(code) USING {name}) USING utf8mb4)) = 1"
        );
        let mut codes: Vec<String> =
            server.query::<(String,)>(sql).await.into_iter().map(|(code,)| code).collect();
        // The server fills up what is too short for a character of these.
        codes.retain(|code| match name {
            "ucs2" | "utf16" | "utf16le" => code.len() == 4,
            "utf32" => false,
            // Alone, bytes are taken for well-formed that are refused in a text.
            "eucjpms" if code.len() == 2 => code.as_str() < "80",
            "eucjpms" => code.as_str() >= "8E" && code[2..] >= *"A1",
            _ => true,
        });
        let more: &[&str] = match name {
            "gb18030" => &["9439FC36", "81308130", "8431A439"],
            "ujis" | "eucjpms" => &["8FB0A1", "8FA2C3", "8FF3F3", "8FF5A1"],
            "utf16" => &["D83DDE00", "DBFFDFFF"],
            "utf16le" => &["3DD800DE", "FFDBFFDF"],
            "utf32" => &["0001F600", "00000041", "00004E2D", "0010FFFF"],
            _ => &[],
        };
        codes.extend(more.iter().map(|code| (*code).to_owned()));
        all.insert(name, codes);
    }
    all
}
