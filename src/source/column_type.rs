//! What the dictionary says of a column → what its values mean. Pure; must not know how it was asked.

use crate::table::{Charset, ColumnType};

/// One column as `information_schema.columns` has it.
pub(super) struct Declared<'a> {
    /// `enum`
    pub data_type: &'a str,
    /// `enum('a','b')`
    pub text: &'a str,
    pub precision: Option<u64>,
    pub scale: Option<u64>,
    pub fsp: Option<u64>,
    pub charset: Option<&'a str>,
    pub octets: Option<u64>,
    /// JSON is a text that the server was told to look at, as in MariaDB.
    pub is_json_text: bool,
}

pub(super) fn column_type(declared: &Declared<'_>) -> ColumnType {
    let unsigned = declared.text.split_ascii_whitespace().any(|word| word == "unsigned");
    let fsp = u8::try_from(declared.fsp.unwrap_or(0)).unwrap_or(0);
    match declared.data_type {
        "tinyint" => ColumnType::TinyInt { unsigned },
        "smallint" => ColumnType::SmallInt { unsigned },
        "mediumint" => ColumnType::MediumInt { unsigned },
        "int" => ColumnType::Int { unsigned },
        "bigint" => ColumnType::BigInt { unsigned },
        "float" => ColumnType::Float,
        "double" => ColumnType::Double,
        "decimal" => decimal(declared),
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { fsp },
        "datetime" => ColumnType::DateTime { fsp },
        "timestamp" => ColumnType::Timestamp { fsp },
        "year" => ColumnType::Year,
        "json" | "longtext" if declared.is_json_text => ColumnType::JsonText,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => text(declared),
        "binary" => match declared.octets.and_then(|octets| u16::try_from(octets).ok()) {
            Some(length) => ColumnType::Binary { length },
            None => unsupported("its length is not known"),
        },
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnType::Bytes,
        "enum" => match labels(declared) {
            Ok(labels) => ColumnType::Enum { labels },
            Err(reason) => unsupported(reason),
        },
        "set" => match labels(declared) {
            Ok(labels) => ColumnType::Set { labels },
            Err(reason) => unsupported(reason),
        },
        "json" => ColumnType::Json,
        "bit" => match declared.precision.and_then(|bits| u8::try_from(bits).ok()) {
            Some(length @ 1..=64) => ColumnType::Bit { length },
            _ => unsupported("its length is not known"),
        },
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geomcollection" | "geometrycollection" => ColumnType::Geometry,
        "vector" => ColumnType::Vector,
        "uuid" => ColumnType::Uuid,
        "inet4" => ColumnType::Inet4,
        "inet6" => ColumnType::Inet6,
        other => unsupported(format!("type {other} is not known")),
    }
}

/// A type as the servers of today write it: older ones, and MariaDB, show widths of numbers that mean nothing and say
/// some things in comments. So a definition is the same wherever it is read, and however it was written.
#[cfg(feature = "daemon")]
pub(super) fn plain(declared: &str, is_json_text: bool) -> String {
    if is_json_text {
        return "json".to_owned();
    }
    let (name, behind) = declared.split_at(declared.find(['(', ' ']).unwrap_or(declared.len()));
    let (width, attributes) = match behind.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((width, attributes)) => (Some(width), attributes),
        None => (None, behind),
    };
    match name {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => {
            // Clients take this one for a boolean.
            let is_kept = attributes.contains("zerofill")
                || (name == "tinyint" && width == Some("1") && attributes.is_empty());
            match is_kept {
                true => declared.to_owned(),
                false => format!("{name}{attributes}"),
            }
        }
        "year" if width == Some("4") => name.to_owned(),
        "geometrycollection" => "geomcollection".to_owned(),
        _ => declared.replace(" /*M!100301 COMPRESSED*/", " compressed"),
    }
}

fn decimal(declared: &Declared<'_>) -> ColumnType {
    let small = |number: Option<u64>| number.and_then(|number| u8::try_from(number).ok());
    match (small(declared.precision), small(declared.scale)) {
        (Some(precision), Some(scale)) => ColumnType::Decimal { precision, scale },
        _ => unsupported("its precision is not known"),
    }
}

fn text(declared: &Declared<'_>) -> ColumnType {
    match declared.charset {
        Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii") => ColumnType::Text,
        // The bytes as they are.
        Some("binary") | None => ColumnType::Bytes,
        Some(other) => match Charset::from_name(other) {
            Some(charset) => ColumnType::TextIn { charset },
            None => unsupported(format!("character set {other} is not known")),
        },
    }
}

fn unsupported(reason: impl Into<String>) -> ColumnType {
    ColumnType::Unsupported { reason: reason.into() }
}

/// The labels, in UTF-8 whatever the column's own character set is.
///
/// The dictionary shows them in a character set of at most three bytes a character, with `?` in the place of any other
/// character (seen on 8.0.33 and 9.7.4). Which of the two a `?` is, it does not tell, so such a label is not believed.
fn labels(declared: &Declared<'_>) -> Result<Vec<String>, String> {
    if declared.charset == Some("binary") {
        return Err("labels of character set binary (not yet)".into());
    }
    let list = declared.text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let labels = list.and_then(quoted_list).ok_or("its labels cannot be read")?;
    let is_of_three_bytes =
        matches!(declared.charset, Some("utf8mb3" | "utf8" | "latin1" | "ascii"));
    if !is_of_three_bytes && labels.iter().any(|label| label.contains('?')) {
        return Err(
            "a label holds `?` or a character that the server's dictionary shows as `?`".into()
        );
    }
    Ok(labels)
}

/// `'a','b''c','d\\e'` → a, b'c, d\e: the list as the dictionary writes it, which escapes in both ways.
fn quoted_list(list: &str) -> Option<Vec<String>> {
    let mut labels = Vec::new();
    let mut rest = list.chars().peekable();
    loop {
        if rest.next()? != '\'' {
            return None;
        }
        let mut label = String::new();
        loop {
            match rest.next()? {
                '\'' if rest.next_if_eq(&'\'').is_some() => label.push('\''),
                '\'' => break,
                '\\' => label.push(match rest.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    '0' => '\0',
                    other => other,
                }),
                other => label.push(other),
            }
        }
        labels.push(label);
        match rest.next() {
            None => return Some(labels),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data_type: &str, text: &str, charset: Option<&str>) -> ColumnType {
        let declared = Declared {
            data_type,
            text,
            precision: Some(10),
            scale: Some(2),
            fsp: Some(3),
            charset,
            octets: Some(9),
            is_json_text: false,
        };
        column_type(&declared)
    }

    #[test]
    fn labels_come_out_of_their_quotes() {
        let ty = of("enum", r"enum('a','b''c','d,e','中','x\\y','','n\nn',')')", Some("latin1"));
        let labels = ["a", "b'c", "d,e", "中", r"x\y", "", "n\nn", ")"].map(str::to_owned).to_vec();
        assert_eq!(ty, ColumnType::Enum { labels });
        for broken in ["enum('a'", "enum(a)", "enum('a'b)", "enum()", "enum"] {
            assert!(matches!(of("enum", broken, None), ColumnType::Unsupported { .. }), "{broken}");
        }
    }

    #[test]
    fn a_type_is_written_as_the_servers_of_today_do() {
        for (shown, expected) in [
            ("int(11)", "int"),
            ("bigint(20) unsigned", "bigint unsigned"),
            ("int(10) unsigned zerofill", "int(10) unsigned zerofill"),
            ("tinyint(4)", "tinyint"),
            ("tinyint(1)", "tinyint(1)"),
            ("tinyint(1) unsigned", "tinyint unsigned"),
            ("year(4)", "year"),
            ("decimal(10,2)", "decimal(10,2)"),
            ("varchar(9) /*M!100301 COMPRESSED*/", "varchar(9) compressed"),
            ("enum('int(11)')", "enum('int(11)')"),
            ("datetime(3) /* mariadb-5.3 */", "datetime(3) /* mariadb-5.3 */"),
            ("geometrycollection", "geomcollection"),
            ("int", "int"),
        ] {
            assert_eq!(plain(shown, false), expected);
        }
    }

    #[test]
    fn a_label_that_may_be_lost_is_not_believed() {
        let lost = of("set", "set('?')", Some("utf8mb4"));
        assert!(matches!(lost, ColumnType::Unsupported { .. }));
        assert_eq!(
            of("set", "set('?')", Some("utf8mb3")),
            ColumnType::Set { labels: vec!["?".into()] }
        );
    }

    #[test]
    fn signs_and_character_sets_are_seen() {
        assert_eq!(of("int", "int unsigned", None), ColumnType::Int { unsigned: true });
        assert_eq!(
            of("mediumint", "mediumint(8) unsigned zerofill", None),
            ColumnType::MediumInt { unsigned: true }
        );
        assert_eq!(of("varchar", "varchar(5)", Some("ascii")), ColumnType::Text);
        let latin1 = ColumnType::TextIn { charset: Charset::Latin1 };
        assert_eq!(of("text", "text", Some("latin1")), latin1);
        assert_eq!(of("bit", "bit(10)", None), ColumnType::Bit { length: 10 });
        for (data_type, charset, said) in [
            ("text", Some("klingon"), "character set klingon is not known"),
            ("xmltype", None, "type xmltype is not known"),
        ] {
            let reason = said.to_owned();
            assert_eq!(of(data_type, data_type, charset), ColumnType::Unsupported { reason });
        }
    }
}
