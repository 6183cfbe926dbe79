//! The definition of a column as a statement writes it → the column as the dictionary will show it. Pure; knows no
//! table. What is not known for certain makes it `None`, never a guess.

use std::borrow::Cow;

use super::tokens::Token;
use super::words::Words;
use crate::source::column_type::{Declared, column_type};
use crate::table::{Column, ColumnType};

/// A column that a statement defines.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Defined {
    pub column: Column,
    /// The character set that its text is in from here on; None where it has none, or nothing says which.
    pub charset: Option<String>,
    pub is_generated: bool,
    /// Rows that are there already have another value in it than NULL.
    pub fills: bool,
    pub is_primary: bool,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Where it is, or at the end.
    Unsaid,
    First,
    After(String),
}

/// What a definition leaves to its table and its server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defaults<'a> {
    /// The table's character set, if it is known.
    pub charset: Option<&'a str>,
    /// The server is MariaDB, whose JSON is a text.
    pub is_mariadb: bool,
}

/// Reads `name type attributes [FIRST | AFTER name]`.
pub(super) fn defined(tokens: &[Token<'_>], defaults: Defaults<'_>) -> Option<Defined> {
    let words = &mut Words::new(tokens);
    let name = words.name()?.to_owned();
    let declared = typed(words)?;
    let attributes = attributes(words)?;
    Some(finish(name, declared, attributes, defaults))
}

/// A type as it is written.
#[derive(Debug, Default)]
struct Typed {
    /// As the dictionary calls it: `varchar`.
    data_type: &'static str,
    /// What stands behind it in the dictionary's text: `(20)`, ` unsigned`.
    suffix: String,
    numbers: Vec<u64>,
    labels: Vec<String>,
    is_text: bool,
    /// NCHAR and the like bring their own.
    charset: Option<String>,
    is_serial: bool,
}

impl Typed {
    fn of(data_type: &'static str) -> Self {
        Self { data_type, ..Self::default() }
    }
}

fn typed(words: &mut Words<'_, '_>) -> Option<Typed> {
    let word = words.name()?.to_ascii_uppercase();
    let word = word.as_str();
    Some(match word {
        "TINYINT" | "INT1" => integer(words, "tinyint", 3)?,
        "SMALLINT" | "INT2" => integer(words, "smallint", 5)?,
        "MEDIUMINT" | "INT3" | "MIDDLEINT" => integer(words, "mediumint", 8)?,
        "INT" | "INTEGER" | "INT4" => integer(words, "int", 10)?,
        "BIGINT" | "INT8" => integer(words, "bigint", 20)?,
        "BOOL" | "BOOLEAN" => Typed { suffix: "(1)".into(), ..Typed::of("tinyint") },
        "SERIAL" => Typed { suffix: " unsigned".into(), is_serial: true, ..Typed::of("bigint") },
        "DECIMAL" | "DEC" | "NUMERIC" | "FIXED" => decimal(words)?,
        "FLOAT" => floating(words, true)?,
        "DOUBLE" | "FLOAT8" | "REAL" => {
            words.accept(&["PRECISION"]);
            floating(words, false)?
        }
        "FLOAT4" => floating(words, true)?,
        "DATE" => Typed::of("date"),
        "YEAR" => {
            words.group();
            Typed::of("year")
        }
        "TIME" => fractional(words, "time")?,
        "DATETIME" => fractional(words, "datetime")?,
        "TIMESTAMP" => fractional(words, "timestamp")?,
        "CHAR" | "CHARACTER" if words.accept(&["VARYING"]) => sized_text(words, "varchar", None)?,
        "CHAR" | "CHARACTER" => sized_text(words, "char", Some(1))?,
        "VARCHAR" | "VARCHARACTER" => sized_text(words, "varchar", None)?,
        "NCHAR" | "NVARCHAR" | "NATIONAL" => return national(word, words),
        "BINARY" => sized_bytes(words, "binary", Some(1))?,
        "VARBINARY" => sized_bytes(words, "varbinary", None)?,
        "TINYTEXT" => Typed { is_text: true, ..Typed::of("tinytext") },
        "MEDIUMTEXT" => Typed { is_text: true, ..Typed::of("mediumtext") },
        "LONGTEXT" => Typed { is_text: true, ..Typed::of("longtext") },
        // With a length the server chooses one of the four by the bytes of a character.
        "TEXT" if words.peek().is_none_or(|token| !token.is_sign('(')) => {
            Typed { is_text: true, ..Typed::of("text") }
        }
        "TINYBLOB" => Typed::of("tinyblob"),
        "MEDIUMBLOB" => Typed::of("mediumblob"),
        "LONGBLOB" => Typed::of("longblob"),
        "BLOB" if words.peek().is_none_or(|token| !token.is_sign('(')) => Typed::of("blob"),
        "ENUM" => labelled(words, "enum")?,
        "SET" => labelled(words, "set")?,
        "JSON" => Typed::of("json"),
        "BIT" => {
            let bits = numbers(words)?.first().copied().unwrap_or(1);
            Typed { suffix: format!("({bits})"), numbers: vec![bits], ..Typed::of("bit") }
        }
        "VECTOR" => {
            let length = numbers(words)?.first().copied().unwrap_or(2_048);
            Typed { suffix: format!("({length})"), numbers: vec![length], ..Typed::of("vector") }
        }
        "UUID" => Typed::of("uuid"),
        "INET4" => Typed::of("inet4"),
        "INET6" => Typed::of("inet6"),
        "GEOMETRY" => Typed::of("geometry"),
        "POINT" => Typed::of("point"),
        "LINESTRING" => Typed::of("linestring"),
        "POLYGON" => Typed::of("polygon"),
        "MULTIPOINT" => Typed::of("multipoint"),
        "MULTILINESTRING" => Typed::of("multilinestring"),
        "MULTIPOLYGON" => Typed::of("multipolygon"),
        "GEOMETRYCOLLECTION" | "GEOMCOLLECTION" => Typed::of("geomcollection"),
        _ => return None,
    })
}

/// `(10, 2)`; nothing where there are no parentheses.
fn numbers(words: &mut Words<'_, '_>) -> Option<Vec<u64>> {
    if words.peek().is_none_or(|token| !token.is_sign('(')) {
        return Some(Vec::new());
    }
    let inside = words.group()?;
    Words::split(inside).into_iter().map(|part| Words::new(part).number()).collect()
}

/// Widths of integers are shown only where they mean something: with ZEROFILL, and for `tinyint(1)`.
fn integer(
    words: &mut Words<'_, '_>,
    data_type: &'static str,
    default_width: u64,
) -> Option<Typed> {
    let width = numbers(words)?.first().copied();
    let signs = signs(words);
    let suffix = match (width, signs) {
        (width, Signs { zerofill: true, .. }) => {
            format!("({}) unsigned zerofill", width.unwrap_or(default_width))
        }
        (_, Signs { unsigned: true, .. }) => " unsigned".to_owned(),
        (Some(1), _) if data_type == "tinyint" => "(1)".to_owned(),
        _ => String::new(),
    };
    Some(Typed { suffix, ..Typed::of(data_type) })
}

#[derive(Clone, Copy, Default)]
struct Signs {
    unsigned: bool,
    zerofill: bool,
}

impl Signs {
    fn suffix(self) -> &'static str {
        match (self.unsigned, self.zerofill) {
            (_, true) => " unsigned zerofill",
            (true, false) => " unsigned",
            (false, false) => "",
        }
    }
}

fn signs(words: &mut Words<'_, '_>) -> Signs {
    let mut signs = Signs::default();
    loop {
        if words.accept(&["UNSIGNED"]) {
            signs.unsigned = true;
        } else if words.accept(&["ZEROFILL"]) {
            signs.zerofill = true;
        } else if !words.accept(&["SIGNED"]) {
            return signs;
        }
    }
}

fn decimal(words: &mut Words<'_, '_>) -> Option<Typed> {
    let given = numbers(words)?;
    let precision = given.first().copied().filter(|precision| *precision > 0).unwrap_or(10);
    let scale = given.get(1).copied().unwrap_or(0);
    let suffix = format!("({precision},{scale}){}", signs(words).suffix());
    Some(Typed { suffix, numbers: vec![precision, scale], ..Typed::of("decimal") })
}

fn floating(words: &mut Words<'_, '_>, is_single: bool) -> Option<Typed> {
    let given = numbers(words)?;
    let is_single = is_single && !(given.len() == 1 && given[0] > 24);
    let digits = match given.as_slice() {
        [digits, scale] => format!("({digits},{scale})"),
        _ => String::new(),
    };
    let suffix = format!("{digits}{}", signs(words).suffix());
    Some(Typed { suffix, ..Typed::of(if is_single { "float" } else { "double" }) })
}

fn fractional(words: &mut Words<'_, '_>, data_type: &'static str) -> Option<Typed> {
    let digits = numbers(words)?.first().copied().unwrap_or(0);
    let suffix = if digits > 0 { format!("({digits})") } else { String::new() };
    Some(Typed { suffix, numbers: vec![digits], ..Typed::of(data_type) })
}

fn sized_text(
    words: &mut Words<'_, '_>,
    data_type: &'static str,
    default: Option<u64>,
) -> Option<Typed> {
    let length = numbers(words)?.first().copied().or(default)?;
    let suffix = format!("({length})");
    Some(Typed { suffix, numbers: vec![length], is_text: true, ..Typed::of(data_type) })
}

fn sized_bytes(
    words: &mut Words<'_, '_>,
    data_type: &'static str,
    default: Option<u64>,
) -> Option<Typed> {
    let length = numbers(words)?.first().copied().or(default)?;
    Some(Typed { suffix: format!("({length})"), numbers: vec![length], ..Typed::of(data_type) })
}

fn national(word: &str, words: &mut Words<'_, '_>) -> Option<Typed> {
    let is_varying = match word {
        "NVARCHAR" => true,
        "NCHAR" => words.accept(&["VARYING", "VARCHAR"]),
        _ => {
            let is_long = words.accept(&["VARCHAR"]);
            is_long || (words.accept(&["CHAR", "CHARACTER"]) && words.accept(&["VARYING"]))
        }
    };
    let typed = if is_varying {
        sized_text(words, "varchar", None)
    } else {
        sized_text(words, "char", Some(1))
    };
    typed.map(|typed| Typed { charset: Some("utf8mb3".into()), ..typed })
}

fn labelled(words: &mut Words<'_, '_>, data_type: &'static str) -> Option<Typed> {
    let label = |part: &[Token<'_>]| match part {
        // In double quotes it is a text for most sessions.
        [Token::Text(label) | Token::Name(label)] => Some(label.trim_end_matches(' ').to_owned()),
        _ => None,
    };
    let labels: Vec<String> =
        Words::split(words.group()?).into_iter().map(label).collect::<Option<_>>()?;
    Some(Typed { labels, is_text: true, ..Typed::of(data_type) })
}

/// What stands behind the type.
#[derive(Debug)]
struct Attributes {
    charset: Option<String>,
    nullable: bool,
    is_generated: bool,
    has_default: bool,
    is_primary: bool,
    is_compressed: bool,
    place: Place,
}

fn attributes(words: &mut Words<'_, '_>) -> Option<Attributes> {
    let mut found = Attributes {
        charset: None,
        nullable: true,
        is_generated: false,
        has_default: false,
        is_primary: false,
        is_compressed: false,
        place: Place::Unsaid,
    };
    while !words.is_empty() {
        attribute(words, &mut found)?;
    }
    Some(found)
}

fn attribute(words: &mut Words<'_, '_>, found: &mut Attributes) -> Option<()> {
    if words.accept(&["FIRST"]) {
        found.place = Place::First;
    } else if words.accept(&["AFTER"]) {
        found.place = Place::After(words.name()?.to_owned());
    } else if words.accept_all(&["NOT", "NULL"]) {
        found.nullable = false;
    } else if words.accept(&["NULL", "VISIBLE", "INVISIBLE", "ENFORCED"])
        || words.accept_all(&["NOT", "ENFORCED"])
    {
    } else if words.accept_all(&["CHARACTER", "SET"])
        || words.accept_all(&["CHAR", "SET"])
        || words.accept(&["CHARSET"])
    {
        found.charset = Some(words.name()?.to_ascii_lowercase());
    } else if words.accept(&["COLLATE"]) {
        words.accept_sign('=');
        let collation = text_or_name(words)?.to_ascii_lowercase();
        // MariaDB has some that are of any character set.
        if !collation.starts_with("uca1400_") {
            found.charset = Some(charset_of(&collation).to_owned());
        }
    } else if words.accept(&["DEFAULT"]) {
        found.has_default = !words.is(&["NULL"]);
        default_value(words)?;
    } else if words.accept_all(&["ON", "UPDATE"]) {
        words.next()?;
        words.group();
    } else if words.accept(&["AUTO_INCREMENT"]) {
        found.has_default = true;
    } else if words.accept(&["UNIQUE"]) {
        words.accept(&["KEY"]);
    } else if words.accept_all(&["PRIMARY", "KEY"]) || words.accept(&["KEY"]) {
        found.is_primary = true;
        found.nullable = false;
    } else if words.accept(&["COMMENT"]) {
        words.next()?;
    } else if words.accept_all(&["GENERATED", "ALWAYS", "AS"]) || words.accept(&["AS"]) {
        words.group()?;
        found.is_generated = true;
        let _ = words.accept(&["VIRTUAL", "STORED", "PERSISTENT"]);
    } else if words.accept(&["COLUMN_FORMAT", "STORAGE", "SRID"]) {
        words.next()?;
    } else if words.accept(&["COMPRESSED"]) {
        found.is_compressed = true;
        if words.accept_sign('=') {
            words.name()?;
        }
    } else if words.accept(&["CONSTRAINT"]) {
        if !words.is(&["CHECK"]) {
            words.name()?;
        }
    } else if words.accept(&["CHECK"]) {
        words.group()?;
    } else if words.is(&["PARTITION"]) {
        // The table's partitions, which end the statement.
        while words.next().is_some() {}
    } else {
        return None;
    }
    Some(())
}

fn text_or_name<'a>(words: &mut Words<'a, '_>) -> Option<&'a str> {
    match words.next()? {
        Token::Text(text) => Some(text),
        token => token.name(),
    }
}

/// A literal, a call, or an expression in parentheses.
fn default_value(words: &mut Words<'_, '_>) -> Option<()> {
    if words.group().is_some() {
        return Some(());
    }
    let _ = words.accept_sign('-') || words.accept_sign('+');
    let first = words.next()?;
    match first {
        // `b'01'`, `x'ff'`, `_utf8mb4'x'`; `1.5`; `CURRENT_TIMESTAMP(6)`.
        Token::Word(_) => {
            if matches!(words.peek(), Some(Token::Text(_))) {
                words.next();
            } else if words.accept_sign('.') {
                words.number();
            } else {
                words.group();
            }
        }
        Token::Sign('.') => drop(words.number()?),
        Token::Text(_) | Token::Name(_) => {
            while matches!(words.peek(), Some(Token::Text(_))) {
                words.next();
            }
        }
        Token::Sign(_) => return None,
    }
    Some(())
}

/// `utf8mb4_0900_ai_ci` is of utf8mb4.
pub(super) fn charset_of(collation: &str) -> &str {
    collation.split('_').next().unwrap_or(collation)
}

fn finish(name: String, typed: Typed, attributes: Attributes, defaults: Defaults<'_>) -> Defined {
    let own = attributes.charset.as_deref().or(typed.charset.as_deref());
    let charset = own.or(defaults.charset).filter(|_| typed.is_text);
    let (data_type, charset) = match charset {
        Some("binary") => (of_bytes(typed.data_type), charset),
        _ => (Cow::Borrowed(typed.data_type), charset),
    };
    let compressed = if attributes.is_compressed { " compressed" } else { "" };
    let text = format!("{data_type}{}{}{compressed}", label_list(&typed.labels), typed.suffix);
    let ty = if typed.is_text && charset.is_none() {
        ColumnType::Unsupported { reason: "its character set is not known".into() }
    } else {
        let number = |at: usize| typed.numbers.get(at).copied();
        column_type(&Declared {
            data_type: &data_type,
            text: &text,
            precision: number(0),
            scale: number(1),
            fsp: number(0),
            charset,
            octets: number(0),
            is_json_text: defaults.is_mariadb && data_type == "json",
        })
    };
    let nullable = attributes.nullable && !typed.is_serial;
    Defined {
        column: Column { name, ty, nullable, declared: text },
        charset: charset.map(str::to_owned),
        is_generated: attributes.is_generated,
        fills: attributes.has_default || attributes.is_generated || !nullable,
        is_primary: attributes.is_primary,
        place: attributes.place,
    }
}

/// Text in the character set `binary` is bytes.
fn of_bytes(data_type: &str) -> Cow<'static, str> {
    Cow::Owned(match data_type {
        "char" => "binary".into(),
        "varchar" => "varbinary".into(),
        other => other.replace("text", "blob"),
    })
}

/// As the dictionary writes it: quotes are doubled, and so are backslashes.
fn label_list(labels: &[String]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let quoted = |label: &String| format!("'{}'", label.replace('\\', "\\\\").replace('\'', "''"));
    format!("({})", labels.iter().map(quoted).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::super::tokens::Cursor;
    use super::*;

    fn read(text: &str) -> Option<Defined> {
        let mut cursor = Cursor::new(text, "d");
        let clause = cursor.clause().unwrap_or_default();
        defined(&clause, Defaults { charset: Some("utf8mb4"), is_mariadb: false })
    }

    #[test]
    fn columns_are_shown_as_the_dictionary_would() {
        for (written, shown) in [
            ("a INTEGER(11) UNSIGNED NOT NULL", "int unsigned"),
            ("a INT(5) ZEROFILL", "int(5) unsigned zerofill"),
            ("a BOOL DEFAULT TRUE", "tinyint(1)"),
            ("a TINYINT(1)", "tinyint(1)"),
            ("a TINYINT(4)", "tinyint"),
            ("a NUMERIC(5) DEFAULT -1.50", "decimal(5,0)"),
            ("a DOUBLE PRECISION", "double"),
            ("a FLOAT(30)", "double"),
            (
                "a DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)",
                "datetime(3)",
            ),
            ("a CHARACTER VARYING(7) COLLATE utf8mb4_bin AFTER `b c`", "varchar(7)"),
            ("a VARCHAR(5) CHARACTER SET binary", "varbinary(5)"),
            ("a TEXT COMMENT 'it''s, NOT NULL' FIRST", "text"),
            ("a ENUM('x','it''s') DEFAULT 'x'", "enum('x','it''s')"),
            ("a INT GENERATED ALWAYS AS (b + (1)) STORED NOT NULL", "int"),
            ("a JSON DEFAULT (JSON_ARRAY())", "json"),
            ("a VARCHAR(9) DEFAULT _utf8mb4'x' CHECK (a > 'b')", "varchar(9)"),
            ("a VARCHAR(9) COMPRESSED=zlib COLLATE uca1400_ai_ci", "varchar(9) compressed"),
            ("a UUID NOT NULL DEFAULT UUID()", "uuid"),
            ("a INT AS (b + 1) PERSISTENT INVISIBLE", "int"),
        ] {
            let found = read(written).unwrap_or_else(|| panic!("{written} is not read"));
            assert_eq!(found.column.declared, shown, "{written}");
        }
        for unknown in ["a TEXT(9)", "a STRANGE", "a INT STRANGE", "a VARCHAR", "a"] {
            assert_eq!(read(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_column_fills_rows_where_its_default_is_not_null() {
        let fills = |text: &str| read(text).expect("is read").fills;
        assert!(!fills("a INT") && !fills("a INT DEFAULT NULL") && !fills("a INT NULL"));
        assert!(fills("a INT DEFAULT 0") && fills("a INT NOT NULL") && fills("a INT AS (b)"));
    }

    #[test]
    fn a_character_set_that_nothing_tells_is_not_guessed() {
        let mut cursor = Cursor::new("a VARCHAR(9)", "d");
        let clause = cursor.clause().expect("a clause");
        let found = defined(&clause, Defaults::default()).expect("is read");
        assert!(matches!(found.column.ty, ColumnType::Unsupported { .. }));
        assert_eq!(found.column.declared, "varchar(9)");
    }
}
