//! Every code of every character set against the servers, which convert the same bytes; and the tables that the program
//! has of them, which are made here: `DRIFTLESS_WRITE_TABLES=1` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use driftless::change::Value;
use driftless::mapping::json;
use driftless::table::{Charset, ColumnType};
use encoding_rs::{BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, SHIFT_JIS};

use crate::oracle::numbers_below;
use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour};

/// Codes and what the server makes of each; only those that it takes for well-formed.
type Codes = BTreeMap<Vec<u8>, String>;

/// The codes `code(n)` for n below `count`, where `code` is an expression of bytes.
async fn ask(server: &Mysql, charset: Charset, count: u64, code: &str) -> Codes {
    let name = charset.name();
    if server.value::<String>("SELECT VERSION()").await.contains("MariaDB") {
        return ask_mariadb(server, name, count, code).await;
    }
    let sql = format!(
        "WITH RECURSIVE numbers AS (SELECT 0 n UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {count}), \
         codes AS (SELECT HEX({code}) code FROM numbers) \
         SELECT /*+ SET_VAR(cte_max_recursion_depth = 2000000) */ code, \
         HEX(CONVERT(CONVERT(UNHEX(code) USING {name}) USING utf8mb4)) FROM codes"
    );
    let rows: Vec<(String, Option<String>)> = server.query(sql).await;
    assert_eq!(rows.len() as u64, count);
    let text =
        |text: String| String::from_utf8(unhex(&text)).expect("the server converts to UTF-8");
    rows.into_iter().filter_map(|(code, found)| Some((unhex(&code), text(found?)))).collect()
}

/// There what is not well-formed is no NULL, but holds question marks; or, in UCS-2, halves of characters.
async fn ask_mariadb(server: &Mysql, name: &str, count: u64, code: &str) -> Codes {
    let sql = format!(
        "SELECT HEX({code}), HEX(CONVERT(CONVERT({code} USING {name}) USING utf8mb4)) FROM ({}) numbers",
        numbers_below(count)
    );
    let rows: Vec<(String, Option<String>)> = server.query(sql).await;
    assert_eq!(rows.len() as u64, count);
    let known = |(code, text): (String, Option<String>)| {
        let text = String::from_utf8(unhex(&text?)).ok().filter(|text| !text.contains('?'))?;
        Some((unhex(&code), text))
    };
    rows.into_iter().filter_map(known).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

const ONE: &str = "UNHEX(LPAD(HEX(n), 2, '0'))";
const TWO: &str = "UNHEX(LPAD(HEX(n), 4, '0'))";
/// Three bytes in the Japanese sets of EUC.
const THREE: &str = "UNHEX(CONCAT('8F', LPAD(HEX(n), 4, '0')))";
/// Two numbers of 16 bits: a pair of surrogates, or the code of UTF-32.
const PAIR: &str = "UNHEX(CONCAT(HEX(0xD800 + n * 37 DIV 1024), HEX(0xDC00 + n * 37 MOD 1024)))";
const PAIR_TURNED: &str = "UNHEX(CONCAT(LPAD(HEX(n * 37 DIV 1024 MOD 256), 2, '0'), HEX(0xD8 + n * 37 DIV 1024 DIV 256), \
     LPAD(HEX(n * 37 MOD 256), 2, '0'), HEX(0xDC + n * 37 MOD 1024 DIV 256)))";
const WIDE: &str = "UNHEX(LPAD(HEX(n * 17), 8, '0'))";
/// Four bytes of GB 18030: the basic plane whole, of the others every 23rd.
const FOUR_BASIC: &str = "UNHEX(HEX((n DIV 12600 + 0x81) * 0x1000000 + (n DIV 1260 MOD 10 + 0x30) * 0x10000 \
     + (n DIV 10 MOD 126 + 0x81) * 0x100 + n MOD 10 + 0x30))";
const FOUR_OTHER: &str = "UNHEX(HEX((n * 23 DIV 12600 + 0x90) * 0x1000000 + (n * 23 DIV 1260 MOD 10 + 0x30) * 0x10000 \
     + (n * 23 DIV 10 MOD 126 + 0x81) * 0x100 + n * 23 MOD 10 + 0x30))";

async fn codes(server: &Mysql, charset: Charset) -> Codes {
    // The server fills up what is too short for a character of these.
    let (is_wide, is_widest) = match charset {
        Charset::Ucs2 | Charset::Utf16 | Charset::Utf16le => (true, false),
        Charset::Utf32 => (true, true),
        _ => (false, false),
    };
    let mut codes = Codes::new();
    if !is_wide {
        codes.extend(ask(server, charset, 1 << 8, ONE).await);
    }
    if !is_widest {
        codes.extend(ask(server, charset, 1 << 16, TWO).await);
    }
    match charset {
        Charset::Ujis | Charset::Eucjpms => {
            codes.extend(ask(server, charset, 1 << 16, THREE).await)
        }
        Charset::Gb18030 => {
            codes.extend(ask(server, charset, 50_400, FOUR_BASIC).await);
            codes.extend(ask(server, charset, 45_000, FOUR_OTHER).await);
        }
        Charset::Utf16 => codes.extend(ask(server, charset, 28_000, PAIR).await),
        Charset::Utf16le => codes.extend(ask(server, charset, 28_000, PAIR_TURNED).await),
        Charset::Utf32 => codes.extend(ask(server, charset, 66_000, WIDE).await),
        _ => {}
    }
    codes
}

/// Our own text of these bytes.
fn decoded(bytes: &[u8], charset: Charset) -> String {
    let mut out = Vec::new();
    json::write(&Value::Encoded(bytes), &ColumnType::TextIn { charset }, &mut out)
        .expect("text is written, whatever it is");
    serde_json::from_slice(&out).expect("it is a JSON string")
}

#[tokio::test]
async fn every_code_of_every_character_set_becomes_what_the_server_makes_of_it() {
    for flavour in Flavour::ALL.into_iter().chain(Flavour::MARIADB) {
        let server = servers::mysql(flavour);
        let known: Vec<String> = server
            .query::<(String,)>("SELECT character_set_name FROM information_schema.character_sets")
            .await
            .into_iter()
            .map(|(name,)| name)
            .filter(|name| !matches!(name.as_str(), "utf8mb4" | "utf8mb3" | "ascii" | "binary"))
            .collect();
        // MariaDB has no gb18030.
        let missing = usize::from(flavour.is_mariadb());
        assert_eq!(known.len() + missing, Charset::ALL.len(), "{known:?}");
        let mut compared = 0;
        for name in &known {
            let charset = Charset::from_name(name).unwrap_or_else(|| panic!("{name} is not known"));
            let codes = codes(&server, charset).await;
            assert!(codes.len() >= 256 / 2 - 1, "{name} has {} codes", codes.len());
            let mut wrong = Vec::new();
            for (code, text) in &codes {
                let ours = decoded(code, charset);
                if ours != *text {
                    wrong.push(format!("{code:02x?} is {text:?}, not {ours:?}"));
                }
            }
            let count = wrong.len();
            wrong.truncate(8);
            assert!(
                wrong.is_empty(),
                "{}, {name}: {count} differ: {}",
                flavour.name(),
                wrong.join("; ")
            );
            compared += codes.len();
            joined(&server, charset, &codes).await;
        }
        eprintln!("{}: {compared} codes of {} character sets", flavour.name(), known.len());
    }
}

/// Codes of one character each in one text: where a character ends is agreed upon too.
async fn joined(server: &Mysql, charset: Charset, codes: &Codes) {
    // Alone, the server takes bytes for well-formed in eucjpms that it refuses in a text.
    let is_text = |code: &[u8]| match code {
        [one] => one.is_ascii(),
        [rest @ .., last] => rest[0] >= 0x80 && *last >= 0xa1,
        [] => false,
    };
    let one_each = codes.iter().filter(|(code, text)| {
        text.chars().count() == 1 && (charset != Charset::Eucjpms || is_text(code))
    });
    let text: Vec<u8> = one_each.flat_map(|(code, _)| code).copied().collect();
    let hex = text.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let name = charset.name();
    let sql = format!("SELECT HEX(CONVERT(CONVERT(X'{hex}' USING {name}) USING utf8mb4))");
    let found: Option<String> = server.value(sql).await;
    let found = found
        .map(|hex| unhex(&hex))
        .unwrap_or_else(|| panic!("{name}: its characters are no text together"));
    assert!(decoded(&text, charset).into_bytes() == found, "{name}: joined, it differs");
}

const SINGLE_BYTE: [Charset; 23] = [
    Charset::Armscii8,
    Charset::Cp1250,
    Charset::Cp1251,
    Charset::Cp1256,
    Charset::Cp1257,
    Charset::Cp850,
    Charset::Cp852,
    Charset::Cp866,
    Charset::Dec8,
    Charset::Geostd8,
    Charset::Greek,
    Charset::Hebrew,
    Charset::Hp8,
    Charset::Keybcs2,
    Charset::Koi8r,
    Charset::Koi8u,
    Charset::Latin1,
    Charset::Latin2,
    Charset::Latin5,
    Charset::Latin7,
    Charset::Macce,
    Charset::Macroman,
    Charset::Swe7,
];

fn multi_byte() -> [(Charset, &'static Encoding); 9] {
    [
        (Charset::Big5, BIG5),
        (Charset::Gbk, GBK),
        (Charset::Gb2312, GBK),
        (Charset::Euckr, EUC_KR),
        (Charset::Sjis, SHIFT_JIS),
        (Charset::Cp932, SHIFT_JIS),
        (Charset::Ujis, EUC_JP),
        (Charset::Eucjpms, EUC_JP),
        (Charset::Gb18030, GB18030),
    ]
}

#[tokio::test]
async fn the_tables_of_characters_are_the_servers() {
    let server = servers::mysql(Flavour::Mysql97);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mapping/charset/tables.rs");
    let made = tables(&server).await;
    if std::env::var_os("DRIFTLESS_WRITE_TABLES").is_some() {
        std::fs::write(&path, &made).expect("the tables can be written");
    }
    let there = std::fs::read_to_string(&path).expect("the tables are there");
    assert!(there == made, "{} is not what the server says", path.display());
}

const HEAD: &str = "//! Made by `tests/it/charsets.rs` from the answers of a server, and compared with every server of the tests by it; not to
//! be edited. Knows numbers only.

/// A run of codes, so many, whose characters follow each other: first code, count, Unicode of the first; 0 where the codes
/// have no character.
pub type Run = (u32, u16, u32);

// Unicode of the upper 128 bytes (of the lower 128 for SWE7); 0 where there is none.

";

async fn tables(server: &Mysql) -> String {
    let mut text = HEAD.to_owned();
    for charset in SINGLE_BYTE.into_iter().chain([Charset::Tis620]) {
        let codes = ask(server, charset, 1 << 8, ONE).await;
        let from = if charset == Charset::Swe7 { 0 } else { 0x80_u8 };
        let _ = writeln!(text, "pub static {}: [u16; 128] = [", charset.name().to_uppercase());
        for line in 0..16 {
            let codes = (0..8).map(|at| {
                let code = from + line * 8 + at;
                format!("{:#06x}", unicode(&[code], codes.get(&vec![code])))
            });
            let _ = writeln!(text, "    {},", codes.collect::<Vec<_>>().join(", "));
        }
        text += "];\n\n";
    }
    text += "// Where the server reads codes otherwise than encoding_rs does.\n";
    for (charset, encoding) in multi_byte() {
        let _ = writeln!(text, "\npub static {}: &[Run] = &[", charset.name().to_uppercase());
        for (first, count, unicode) in runs(&codes(server, charset).await, encoding) {
            let _ = writeln!(text, "    ({first:#x}, {count}, {unicode:#x}),");
        }
        text += "];\n";
    }
    text
}

/// The one character that the server gives, or 0.
fn unicode(code: &[u8], text: Option<&String>) -> u32 {
    let mut chars = text.map_or("", String::as_str).chars();
    match (chars.next(), chars.next()) {
        (Some('?'), None) if code != b"?" => 0,
        (Some(c), None) => c.into(),
        _ => 0,
    }
}

fn runs(codes: &Codes, encoding: &'static Encoding) -> Vec<(u32, u32, u32)> {
    let mut runs: Vec<(u32, u32, u32)> = Vec::new();
    let is_one = |text: &str| text.chars().count() == 1;
    for (bytes, text) in codes {
        if !is_one(text) || (bytes.len() > 1 && bytes[0] < 0x80) {
            continue;
        }
        let code = bytes.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
        let theirs = unicode(bytes, Some(text));
        if theirs == standard(bytes, encoding) {
            continue;
        }
        match runs.last_mut() {
            Some((first, count, unicode))
                if code == *first + *count
                    && theirs == if *unicode == 0 { 0 } else { *unicode + *count } =>
            {
                *count += 1;
            }
            _ => runs.push((code, 1, theirs)),
        }
    }
    runs
}

fn standard(bytes: &[u8], encoding: &'static Encoding) -> u32 {
    let mut units = [0; 4];
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let (result, _, count) = decoder.decode_to_utf16_without_replacement(bytes, &mut units, true);
    if result != encoding_rs::DecoderResult::InputEmpty {
        return 0;
    }
    let mut chars = char::decode_utf16(units[..count].iter().copied());
    match (chars.next(), chars.next()) {
        (Some(Ok(c)), None) => c.into(),
        _ => 0,
    }
}
