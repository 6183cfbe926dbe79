//! The columns that the oracle draws: how each is declared, what may stand in it, and how the server is asked for the same
//! value. Knows nothing of how values are read.

use std::collections::HashMap;
use std::fmt::Write as _;

use driftless::table::Charset;

use crate::decoder::{
    Random, date, decimal, json, json_edges, moment, time_of_day, utf8, without_white_space,
};
use crate::support::mysql::Mysql;
use crate::support::servers::Flavour;

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
/// Where JSON_QUOTE is not known, or has escapes of its own.
const TEXT_IN_HEX: &str = "HEX(CONVERT({} USING utf8mb4))";

/// How a server is asked for what not all answer alike.
struct Server {
    flavour: Flavour,
    text: (&'static str, fn(&str, &str) -> bool),
    set: (&'static str, fn(&str, &str) -> bool),
    shape: (&'static str, fn(&str, &str) -> bool),
    /// How deep collections already are: what a server does not take inside another, or at all, is not drawn.
    depth: u64,
    float: &'static str,
    utf8mb3: &'static str,
}

impl Server {
    fn of(flavour: Flavour) -> Self {
        let is_new_mysql = matches!(flavour, Flavour::Mysql97 | Flavour::Mysql80);
        let is_mariadb = flavour.is_mariadb();
        Self {
            flavour,
            text: if is_new_mysql { (QUOTED, same) } else { (TEXT_IN_HEX, is_text_in_hex) },
            set: if is_new_mysql { (QUOTED, is_set) } else { (TEXT_IN_HEX, is_set_in_hex) },
            shape: match (is_new_mysql, is_mariadb) {
                (true, _) => ("ST_AsGeoJSON({})", is_json),
                (_, true) => ("ST_AsGeoJSON({})", is_geojson),
                _ => ("AsText({})", has_numbers_of),
            },
            depth: match (is_new_mysql, is_mariadb) {
                (true, _) => 0,
                (_, true) => DEPTH_MAX,
                _ => DEPTH_MAX + 1,
            },
            float: if is_new_mysql { "CAST({} AS DOUBLE)" } else { "{} * 1e0" },
            utf8mb3: match flavour {
                Flavour::Mysql56 | Flavour::Mariadb105 => "utf8",
                _ => "utf8mb3",
            },
        }
    }

    fn has(&self, name: &str) -> bool {
        has_type(self.flavour, name)
    }
}

/// Whether the server has a type, or an attribute of columns.
pub fn has_type(flavour: Flavour, name: &str) -> bool {
    match name {
        "VECTOR" => matches!(flavour, Flavour::Mysql97 | Flavour::Mariadb118),
        "UUID" | "INET4" => matches!(flavour, Flavour::Mariadb118 | Flavour::Mariadb1011),
        "INET6" | "COMPRESSED" => flavour.is_mariadb(),
        "JSON" | "GENERATED" | "INVISIBLE" => flavour != Flavour::Mysql56,
        _ => true,
    }
}

/// Every kind once, each drawn anew.
pub fn draw(random: &mut Random, alphabet: &Alphabet, flavour: Flavour) -> Vec<Drawn> {
    let server = Server::of(flavour);
    let mut all = Vec::new();
    numbers(&server, random, &mut all);
    moments(&server, &mut all);
    texts(&server, random, alphabet, &mut all);
    labels(&server, random, &mut all);
    bytes(random, &mut all);
    shapes(&server, &mut all);
    json_and_vectors(&server, random, &mut all);
    addresses(&server, &mut all);
    if server.has("COMPRESSED") {
        compressed(&server, &mut all);
    }
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

fn numbers(server: &Server, random: &mut Random, all: &mut Vec<Drawn>) {
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
    if server.has("INVISIBLE") {
        // One without a default may not be NOT NULL everywhere.
        let default = if server.flavour.is_mariadb() { " DEFAULT 0" } else { "" };
        let declared = format!("INT INVISIBLE{default}");
        all.push(column("INVISIBLE", declared, NUMBER, same, |r| r.signed(32).to_string()));
    }
    for stored in ["VIRTUAL", "STORED"].into_iter().filter(|_| server.has("GENERATED")) {
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
    all.push(column("FLOAT", "FLOAT", server.float, is_float, float));
    all.push(column("FLOAT(M,D)", "FLOAT(9,3)", server.float, is_float, |r| {
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

fn moments(server: &Server, all: &mut Vec<Drawn>) {
    all.push(column("DATE", "DATE", TEXT, is_date, |r| match r.below(8) {
        0 => "'0000-00-00'".to_owned(),
        1 => format!("'{:04}-00-00'", r.below(3000)),
        2 => "'2024-02-00'".to_owned(),
        _ => date(r, 1, 9998),
    }));
    // Elsewhere a TIMESTAMP has 31 bits of seconds.
    let years = if server.flavour == Flavour::Mariadb118 { 135 } else { 66 };
    for fsp in 0..=6 {
        let draw = |r: &mut Random| match r.below(8) {
            0 => "'0000-00-00 00:00:00'".to_owned(),
            1 => format!("'2026-03-00 {}'", time_of_day(r)),
            _ => moment(r, 1, 9998),
        };
        all.push(column("DATETIME", format!("DATETIME({fsp})"), TEXT, is_date_time, draw));
        let draw = move |r: &mut Random| match r.below(8) {
            0 => "'0000-00-00 00:00:00'".to_owned(),
            _ => moment(r, 1971, years),
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

fn texts(server: &Server, random: &mut Random, alphabet: &Alphabet, all: &mut Vec<Drawn>) {
    let types = |random: &mut Random| match random.below(7) {
        0 => format!("CHAR({})", 1 + random.below(60)),
        1 => format!("VARCHAR({})", 1 + random.below(60)),
        2 => format!("VARCHAR({})", 300 + random.below(60)),
        3 => "TINYTEXT".to_owned(),
        4 => "TEXT".to_owned(),
        5 => "MEDIUMTEXT".to_owned(),
        _ => "LONGTEXT".to_owned(),
    };
    for (at, name) in ["utf8mb4", server.utf8mb3, "ascii"].into_iter().enumerate() {
        let declared = format!("{} CHARACTER SET {name}", types(random));
        let last = [char::MAX, '\u{ffff}', '\u{7f}'][at];
        all.push(column(name, declared, server.text.0, server.text.1, move |r| {
            utf8(&r.text(40).chars().filter(|c| *c <= last).collect::<String>())
        }));
    }
    let (select, agrees) = server.text;
    for (name, codes) in Charset::ALL.iter().filter_map(|set| alphabet.get_key_value(set.name())) {
        let (name, codes) = (*name, codes.clone());
        let declared = format!("{} CHARACTER SET {name}", types(random));
        all.push(column(name, declared, select, agrees, move |r| {
            let mut text = format!("_{name} X'");
            for _ in 0..r.below(30) {
                text += &codes[r.below(codes.len() as u64) as usize];
            }
            text + "'"
        }));
    }
}

fn labels(server: &Server, random: &mut Random, all: &mut Vec<Drawn>) {
    for (charset, letters) in [
        ("utf8mb4", "aü中"),
        ("latin1", "aß€"),
        ("gbk", "a中国"),
        ("sjis", "a日本"),
        ("ucs2", "aя中"),
    ] {
        if charset == "ucs2" && server.flavour == Flavour::Mysql56 {
            // It loses such labels when the table is made.
            continue;
        }
        let letters: Vec<char> = letters.chars().collect();
        let list = |count: u64| {
            let label = |at: u64| format!("'{}{at}'", letters[at as usize % letters.len()]);
            (0..count).map(label).collect::<Vec<_>>().join(",")
        };
        let few = 2 + random.below(60);
        let (enum_count, set_count) = if random.below(2) == 0 { (few, few) } else { (300, 64) };
        let declared = format!("ENUM({}) CHARACTER SET {charset}", list(enum_count));
        all.push(column("ENUM", declared, server.text.0, server.text.1, move |r| {
            r.below(enum_count + 1).to_string()
        }));
        let declared = format!("SET({}) CHARACTER SET {charset}", list(set_count));
        all.push(column("SET", declared, server.set.0, server.set.1, move |r| {
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

/// The text in the server's answer.
fn unhex(servers: &str) -> String {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("hex") as u8;
    let pairs = servers.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    String::from_utf8(bytes).expect("the server answers in UTF-8")
}

fn is_text_in_hex(ours: &str, servers: &str) -> bool {
    ours == serde_json::to_string(&unhex(servers)).expect("a text")
}

fn is_set_in_hex(ours: &str, servers: &str) -> bool {
    is_set(ours, &unhex(servers))
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

fn shapes(server: &Server, all: &mut Vec<Drawn>) {
    let ((select, agrees), depth) = (server.shape, server.depth);
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
        all.push(column(kind, kind, select, agrees, move |r| shape(r, at as u64, depth)));
    }
    all.push(column("GEOMETRY", "GEOMETRY", select, agrees, move |r| {
        let kind = r.below(7);
        shape(r, kind, depth)
    }));
    let declared = match server.flavour {
        Flavour::Mysql97 | Flavour::Mysql80 => "GEOMETRY SRID 4326",
        Flavour::Mysql56 => return,
        _ => "GEOMETRY REF_SYSTEM_ID=4326",
    };
    all.push(column("SRID 4326", declared, select, agrees, move |r| {
        let kind = r.below(7);
        format!("ST_GeomFromText('{}', 4326)", wkt(r, kind, depth))
    }));
}

fn shape(random: &mut Random, kind: u64, depth: u64) -> String {
    let srid = [0, 4326, 3857][random.below(3) as usize];
    format!("ST_GeomFromText('{}', {srid})", wkt(random, kind, depth))
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

const DEPTH_MAX: u64 = 3;

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
        _ if depth <= DEPTH_MAX && random.below(5) == 0 => "GEOMETRYCOLLECTION EMPTY".to_owned(),
        _ => {
            let kinds = if depth < DEPTH_MAX { 7 } else { 6 };
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

/// Numbers as texts of other digits, but of the same value as far as the server has digits for it.
fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() <= one.abs().max(other.abs()) * 1e-12
}

fn is_geojson(ours: &str, servers: &str) -> bool {
    fn is_same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
        use serde_json::Value as V;
        match (one, other) {
            (V::Number(one), V::Number(other)) => {
                is_near(one.as_f64().expect("a double"), other.as_f64().expect("a double"))
            }
            (V::Array(one), V::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_same(a, b))
            }
            (V::Object(one), V::Object(other)) => {
                let is_there = |(key, value): (&String, &V)| {
                    other.get(key).is_some_and(|other| is_same(value, other))
                };
                one.len() == other.len() && one.iter().all(is_there)
            }
            (one, other) => one == other,
        }
    }
    let parsed = |text: &str| serde_json::from_str(text).expect("is JSON");
    // The server leaves a bracket out where a collection is empty.
    let servers = servers.replace("\"geometries\":]", "\"geometries\": []");
    is_same(&parsed(ours), &parsed(&servers))
}

fn has_numbers_of(ours: &str, servers: &str) -> bool {
    let numbers = |text: &str| -> Vec<f64> {
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e');
        text.split(|c: char| !is_part(c)).filter_map(|part| part.parse().ok()).collect()
    };
    let (ours, servers) = (numbers(ours), numbers(servers));
    ours.len() == servers.len() && ours.iter().zip(&servers).all(|(a, b)| is_near(*a, *b))
}

fn addresses(server: &Server, all: &mut Vec<Drawn>) {
    for (name, draw) in [
        ("UUID", uuid as fn(&mut Random) -> String),
        ("INET6", inet6),
        ("INET4", |r| {
            let mut byte = || r.sized(8);
            format!("'{}.{}.{}.{}'", byte(), byte(), byte(), byte())
        }),
    ] {
        if server.has(name) {
            all.push(column(name, name, TEXT, is_string, draw));
        }
    }
}

/// Of any version, with zeros at the end now and then. Some variants the server does not take.
pub fn uuid(random: &mut Random) -> String {
    const VARIANT: u64 = 1 << 63;
    let (high, low) = (random.next(), random.next() << (8 * random.below(8)) | VARIANT);
    let hex = format!("{high:016x}{low:016x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("'{}'", parts.join("-"))
}

/// With zeros anywhere, and with a whole IPv4 in it.
pub fn inet6(random: &mut Random) -> String {
    let is_mapped = random.below(3) == 0;
    let zeros = random.next();
    let mut words = Vec::new();
    for at in 0..8 {
        words.push(match at {
            0..=4 if is_mapped => "0".to_owned(),
            5 if is_mapped => ["0", "ffff"][random.below(2) as usize].to_owned(),
            at if zeros >> (2 * at) & 3 != 0 => "0".to_owned(),
            _ => format!("{:x}", random.sized(16)),
        });
    }
    format!("'{}'", words.join(":"))
}

/// Short values, which stay as they are, and long ones.
fn compressed(server: &Server, all: &mut Vec<Drawn>) {
    let text = |r: &mut Random| {
        let times = if r.below(2) == 0 { 1 } else { 10 };
        format!("REPEAT({}, {times})", utf8(&r.text(30)))
    };
    let (select, agrees) = server.text;
    for declared in [
        "VARCHAR(400) COMPRESSED",
        "TEXT COMPRESSED",
        "TINYTEXT COMPRESSED CHARACTER SET utf8mb4",
        "LONGTEXT COMPRESSED CHARACTER SET utf16",
    ] {
        all.push(column("COMPRESSED", declared, select, agrees, text));
    }
    for declared in ["VARBINARY(100) COMPRESSED", "BLOB COMPRESSED", "MEDIUMBLOB COMPRESSED"] {
        all.push(column("COMPRESSED", declared, "TO_BASE64({})", is_base64, |r| {
            let times = if r.below(2) == 0 { 1 } else { 20 };
            format!("REPEAT({}, {times})", r.bytes(5))
        }));
    }
}

fn json_and_vectors(server: &Server, random: &mut Random, all: &mut Vec<Drawn>) {
    if server.flavour.is_mariadb() {
        all.push(column("JSON", "JSON", "{}", is_stored_json, |r| utf8(&r.json(0))));
    }
    if server.has("VECTOR") && server.flavour.is_mariadb() {
        let dimension = 1 + random.below(20);
        all.push(column(
            "VECTOR",
            format!("VECTOR({dimension})"),
            "HEX({})",
            is_vector,
            move |r| vector(r, dimension),
        ));
    }
    if !matches!(server.flavour, Flavour::Mysql97 | Flavour::Mysql80) {
        return;
    }
    const LONG: usize = 2_000;
    let edges: Vec<String> = json_edges().into_iter().filter(|edge| edge.len() < LONG).collect();
    all.push(column("JSON", "JSON", TEXT, is_json, move |r| match r.below(3) {
        0 => edges[r.below(edges.len() as u64) as usize].clone(),
        _ => json(&r.json(0)),
    }));
    if server.has("VECTOR") {
        // Larger vectors than the column takes are refused.
        all.push(column("VECTOR", "VECTOR(8)", "HEX({})", is_vector, |r| {
            let dimension = 1 + r.below(8);
            vector(r, dimension)
        }));
    }
}

fn vector(random: &mut Random, dimension: u64) -> String {
    let mut hex = String::from("X'");
    for _ in 0..dimension {
        let number = f32::from_bits(random.next() as u32 & 0xbf7f_ffff);
        for byte in number.to_le_bytes() {
            let _ = write!(hex, "{byte:02x}");
        }
    }
    hex + "'"
}

/// The text that was stored, but for white space and for keys that an object has again.
fn is_stored_json(ours: &str, servers: &str) -> bool {
    /// Which of equal keys stays is not told by this parser, so their values may be different.
    fn has_same_keys(one: &serde_json::Value, other: &serde_json::Value) -> bool {
        use serde_json::Value as V;
        match (one, other) {
            (V::Object(one), V::Object(other)) => {
                let keys = |object: &serde_json::Map<String, V>| -> Vec<String> {
                    object.keys().cloned().collect()
                };
                keys(one) == keys(other)
            }
            (V::Array(one), V::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| has_same_keys(a, b))
            }
            (one, other) => one == other,
        }
    }
    let compact = without_white_space(servers);
    let parsed = |text: &str| serde_json::from_str(text).expect("is JSON");
    ours == compact
        || (ours.len() < compact.len() && has_same_keys(&parsed(ours), &parsed(servers)))
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
pub async fn alphabet(flavour: Flavour, server: &Mysql) -> Alphabet {
    let known: Vec<(String,)> =
        server.query("SELECT character_set_name FROM information_schema.character_sets").await;
    let mut all = Alphabet::new();
    for charset in Charset::ALL.iter().filter(|set| known.iter().any(|(name,)| name == set.name()))
    {
        let name = charset.name();
        let number = numbers_below(9_600);
        // Elsewhere what is not well-formed is no NULL, but a question mark.
        let also = match flavour {
            Flavour::Mysql97 | Flavour::Mysql80 => "",
            _ => "AND CONVERT(CONVERT(UNHEX(code) USING $) USING utf8mb4) <> '?'",
        };
        let sql = format!(
            "SELECT code FROM (SELECT n, IF(n < 256, LPAD(HEX(n), 2, '0'), LPAD(HEX((n - 256) * 7 MOD 65536), 4, '0')) code \
             FROM ({number}) numbers) codes \
             WHERE CHAR_LENGTH(CONVERT(CONVERT(UNHEX(code) USING {name}) USING utf8mb4)) = 1 {} ORDER BY n",
            also.replace('$', name)
        );
        let mut codes: Vec<String> =
            server.query::<(String,)>(sql).await.into_iter().map(|(code,)| code).collect();
        // The server fills up what is too short for a character of these.
        codes.retain(|code| match name {
            // Halves of characters are characters to some servers.
            "ucs2" => code.len() == 4 && !("D8".."E0").contains(&&code[..2]),
            "utf16" | "utf16le" => code.len() == 4,
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

/// A query of the numbers `n` below `count`, up to 100,000, that old servers understand too.
pub fn numbers_below(count: u64) -> String {
    let digits: Vec<_> = (0..10).map(|digit| format!("SELECT {digit} d")).collect();
    let digits = digits.join(" UNION ALL ");
    format!(
        "SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d n \
         FROM ({digits}) a, ({digits}) b, ({digits}) c, ({digits}) e, ({digits}) f \
         WHERE a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d < {count}"
    )
}
