//! A table's definition out of what the log itself announces, where the server logs with `binlog_row_metadata = FULL`.
//! Pure; must not know what the dictionary says.
//!
//! The log says less than the dictionary: nothing of unique keys but the primary one, nothing of how wide a number is
//! shown (`tinyint(1)` is `tinyint`), and of a shape only that it is one.

use crate::error::{Error, ErrorKind, Result};
use crate::table::{Charset, Column, ColumnType, TableDef};

use super::binlog::TableMap;
use super::binlog::collation::{bytes_per_character_max, charset_of, is_utf8};
use super::binlog::table_map::{MapColumn, column_kind as k};

/// The collation of binary columns.
const BINARY: u64 = 63;

/// The definition as of the event that `map` was read from. An error where the server does not log all that it takes.
pub fn definition(map: &TableMap) -> Result<TableDef> {
    let mut columns = Vec::with_capacity(map.columns.len());
    for column in &map.columns {
        let name = column.name.clone().ok_or_else(|| not_full(map))?;
        let (ty, declared) = meaning(column).ok_or_else(|| not_full(map))?;
        columns.push(Column { name, ty, nullable: column.nullable, declared });
    }
    let primary_key: Vec<usize> = map.primary_key.iter().map(|part| part.ordinal).collect();
    let is_whole = map.primary_key.iter().all(|part| !part.is_prefix);
    let unique_keys = match is_whole && !primary_key.is_empty() {
        true => vec![primary_key.clone()],
        false => Vec::new(),
    };
    Ok(TableDef { id: map.table.clone(), columns, primary_key, unique_keys })
}

fn not_full(map: &TableMap) -> Error {
    let message = format!("the log does not say what the columns of {} are", map.table);
    Error::new(ErrorKind::Unsupported, message).with_advice(
        "the log must be written with binlog_row_metadata = FULL: \
         SET PERSIST binlog_row_metadata = 'FULL' on the server that writes it",
    )
}

/// What a column's values mean, and its type as the server writes it, as far as it can be told. None where the log does
/// not say.
fn meaning(column: &MapColumn) -> Option<(ColumnType, String)> {
    use ColumnType as C;
    let [low, high] = column.metadata.to_le_bytes();
    let plain = |ty: ColumnType, declared: &str| Some((ty, declared.to_owned()));
    match column.kind {
        k::TINY => integer(column, "tinyint", |unsigned| C::TinyInt { unsigned }),
        k::SHORT => integer(column, "smallint", |unsigned| C::SmallInt { unsigned }),
        k::INT24 => integer(column, "mediumint", |unsigned| C::MediumInt { unsigned }),
        k::LONG => integer(column, "int", |unsigned| C::Int { unsigned }),
        k::LONGLONG => integer(column, "bigint", |unsigned| C::BigInt { unsigned }),
        k::FLOAT => plain(C::Float, "float"),
        k::DOUBLE => plain(C::Double, "double"),
        k::NEWDECIMAL => {
            let declared = format!("decimal({low},{high})");
            Some((C::Decimal { precision: low, scale: high }, declared))
        }
        k::DATE | k::NEWDATE => plain(C::Date, "date"),
        k::TIME => plain(C::Time { fsp: 0 }, "time"),
        k::TIME2 => Some((C::Time { fsp: low }, fractional("time", low))),
        k::DATETIME => plain(C::DateTime { fsp: 0 }, "datetime"),
        k::DATETIME2 => Some((C::DateTime { fsp: low }, fractional("datetime", low))),
        k::TIMESTAMP => plain(C::Timestamp { fsp: 0 }, "timestamp"),
        k::TIMESTAMP2 => Some((C::Timestamp { fsp: low }, fractional("timestamp", low))),
        k::YEAR => plain(C::Year, "year"),
        k::BIT => Some(bit(u16::from(high) * 8 + u16::from(low))),
        k::VARCHAR | k::VAR_STRING => character(column, "varchar", "varbinary", C::Bytes),
        k::STRING => character(column, "char", "binary", C::Binary { length: column.metadata }),
        k::TINY_BLOB..=k::BLOB => blob(column, low),
        k::ENUM => labelled(column, "enum", |labels| C::Enum { labels }),
        k::SET => labelled(column, "set", |labels| C::Set { labels }),
        k::JSON => plain(C::Json, "json"),
        k::GEOMETRY => plain(C::Geometry, "geometry"),
        k::VECTOR => plain(C::Vector, "vector"),
        // Only NULL is left: the layout's parser refuses all others.
        kind => Some((unsupported(format!("type {kind} of the log is not known")), "null".into())),
    }
}

fn integer(
    column: &MapColumn,
    name: &str,
    ty: impl Fn(bool) -> ColumnType,
) -> Option<(ColumnType, String)> {
    let unsigned = column.unsigned?;
    let declared = if unsigned { format!("{name} unsigned") } else { name.to_owned() };
    Some((ty(unsigned), declared))
}

fn fractional(name: &str, fsp: u8) -> String {
    if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") }
}

fn bit(bits: u16) -> (ColumnType, String) {
    let ty = match u8::try_from(bits) {
        Ok(length @ 1..=64) => ColumnType::Bit { length },
        _ => unsupported("its length is not known".into()),
    };
    (ty, format!("bit({bits})"))
}

/// CHAR and VARCHAR and what they are of bytes.
fn character(
    column: &MapColumn,
    of_text: &str,
    of_bytes: &str,
    bytes: ColumnType,
) -> Option<(ColumnType, String)> {
    let collation = column.collation?;
    if collation == BINARY {
        return Some((bytes, format!("{of_bytes}({})", column.metadata)));
    }
    let characters = column.metadata / bytes_per_character_max(collation);
    Some((text(collation), format!("{of_text}({characters})")))
}

/// TEXT and BLOB, by the bytes of their length.
fn blob(column: &MapColumn, width: u8) -> Option<(ColumnType, String)> {
    let collation = column.collation?;
    let size = match width {
        1 => "tiny",
        3 => "medium",
        4 => "long",
        _ => "",
    };
    Some(match collation {
        BINARY => (ColumnType::Bytes, format!("{size}blob")),
        _ => (text(collation), format!("{size}text")),
    })
}

fn text(collation: u64) -> ColumnType {
    match charset_of(collation) {
        Some(charset) => ColumnType::TextIn { charset },
        None if is_utf8(collation) => ColumnType::Text,
        None => unsupported(format!("collation {collation} is not known")),
    }
}

fn labelled(
    column: &MapColumn,
    name: &str,
    ty: impl Fn(Vec<String>) -> ColumnType,
) -> Option<(ColumnType, String)> {
    let collation = column.collation?;
    let labels = column.labels.as_ref()?.iter().map(|label| read_label(label, collation));
    let labels: Option<Vec<String>> = labels.collect();
    Some(match labels {
        Some(labels) => {
            let shown: Vec<_> =
                labels.iter().map(|label| format!("'{}'", label.replace('\'', "''"))).collect();
            (ty(labels), format!("{name}({})", shown.join(",")))
        }
        None => {
            let reason = "a label is not ASCII, in a character set other than utf8mb4";
            (unsupported(reason.into()), name.to_owned())
        }
    })
}

/// A label in UTF-8; None where that takes more than looking at it.
fn read_label(label: &[u8], collation: u64) -> Option<String> {
    let is_ascii = || match charset_of(collation) {
        // Their bytes below 128 are no ASCII, or not all of them.
        Some(
            Charset::Ucs2 | Charset::Utf16 | Charset::Utf16le | Charset::Utf32 | Charset::Swe7,
        ) => false,
        Some(_) => label.is_ascii(),
        None => false,
    };
    if is_utf8(collation) || is_ascii() {
        return String::from_utf8(label.to_vec()).ok();
    }
    None
}

fn unsupported(reason: String) -> ColumnType {
    ColumnType::Unsupported { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::binlog::{Body, FormatDescription};

    /// The map of an event's data, without header and checksum.
    fn map(data: &[u8]) -> TableMap {
        let mut event = vec![0; 19];
        event[4] = 19;
        event[9..13].copy_from_slice(&(19 + data.len() as u32).to_le_bytes());
        event.extend_from_slice(data);
        let read = FormatDescription::assumed().read_inner(&event).expect("an event");
        let Body::TableMap(event) = read.body else { panic!("no layout") };
        TableMap::parse(&event).expect("well formed")
    }

    fn declared(def: &TableDef) -> Vec<&str> {
        def.columns.iter().map(|column| column.declared.as_str()).collect()
    }

    /// Of MySQL 9.7: (id INT, a ENUM('x','y''z','中'), b SET('p','q','r'), c ENUM(…) in latin1, d SET('ä','b') in latin1,
    /// e ENUM('1') in binary).
    const LABELS: &[u8] = &[
        110, 0, 0, 0, 0, 0, 1, 0, 1, 102, 0, 6, 108, 97, 98, 101, 108, 115, 0, 6, 3, 254, 254, 254,
        254, 254, 10, 247, 1, 248, 1, 247, 1, 248, 1, 247, 1, 62, 1, 1, 0, 4, 13, 2, 105, 100, 1,
        97, 1, 98, 1, 99, 1, 100, 1, 101, 11, 9, 252, 255, 0, 252, 255, 0, 8, 8, 63, 5, 12, 3, 1,
        112, 1, 113, 1, 114, 2, 1, 228, 1, 98, 6, 27, 3, 1, 120, 3, 121, 39, 122, 3, 228, 184, 173,
        2, 5, 97, 115, 99, 105, 105, 5, 108, 97, 116, 105, 110, 1, 1, 49, 8, 1, 0, 12, 1, 252,
    ];

    #[test]
    fn labels_are_those_of_the_table_or_not_believed() {
        let def = definition(&map(LABELS)).expect("all is there");
        assert_eq!(def.id.to_string(), "f.labels");
        assert_eq!(def.column_names(), "id, a, b, c, d, e");
        assert_eq!((&def.primary_key, &def.unique_keys), (&vec![0], &vec![vec![0]]));
        assert_eq!(
            declared(&def),
            [
                "int",
                "enum('x','y''z','中')",
                "set('p','q','r')",
                "enum('ascii','latin')",
                "set",
                "enum"
            ]
        );
        let labels = ["x", "y'z", "中"].map(str::to_owned).to_vec();
        assert_eq!(def.columns[1].ty, ColumnType::Enum { labels });
        for at in [4, 5] {
            assert!(matches!(def.columns[at].ty, ColumnType::Unsupported { .. }), "{at}");
        }
        let nullable: Vec<_> = def.columns.iter().map(|column| column.nullable).collect();
        assert_eq!(nullable, [false, true, true, true, true, true]);
    }

    /// Of MySQL 9.7: (a VARCHAR(40), b TEXT, PRIMARY KEY (b(3), a)), in utf8mb4.
    #[test]
    fn a_primary_key_of_a_prefix_is_no_unique_key_of_columns() {
        let def = definition(&map(&[
            111, 0, 0, 0, 0, 0, 1, 0, 1, 102, 0, 8, 112, 114, 101, 102, 105, 120, 101, 100, 0, 2,
            15, 252, 3, 160, 0, 2, 0, 2, 3, 252, 255, 0, 4, 4, 1, 97, 1, 98, 9, 4, 1, 3, 0, 0, 12,
            1, 192,
        ]))
        .expect("all is there");
        assert_eq!(declared(&def), ["varchar(40)", "text"]);
        assert_eq!(def.primary_key, [1, 0]);
        assert!(def.unique_keys.is_empty());
    }

    /// Of MySQL 9.7: texts and bytes in several character sets.
    #[test]
    fn text_is_told_from_bytes_and_by_its_character_set() {
        let def = definition(&map(&[
            109, 0, 0, 0, 0, 0, 1, 0, 1, 102, 0, 5, 116, 101, 120, 116, 115, 0, 16, 15, 3, 254, 15,
            252, 252, 252, 252, 15, 254, 15, 252, 252, 254, 15, 15, 24, 40, 0, 206, 252, 176, 4, 1,
            2, 3, 4, 80, 0, 254, 16, 44, 1, 2, 4, 254, 3, 27, 0, 14, 0, 252, 255, 1, 1, 0, 3, 25,
            252, 255, 0, 252, 255, 0, 252, 255, 0, 252, 255, 0, 8, 252, 255, 0, 28, 54, 63, 63, 63,
            63, 11, 33, 13, 4, 32, 1, 97, 1, 98, 1, 99, 1, 100, 1, 101, 1, 102, 1, 103, 1, 104, 1,
            105, 1, 106, 1, 107, 1, 108, 1, 109, 1, 110, 1, 111, 1, 113, 8, 2, 1, 0, 12, 2, 255,
            255,
        ]))
        .expect("all is there");
        assert_eq!(
            declared(&def),
            [
                "varchar(10)",
                "int",
                "char(255)",
                "varchar(300)",
                "tinytext",
                "text",
                "mediumtext",
                "longtext",
                "varchar(20)",
                "binary(16)",
                "varbinary(300)",
                "blob",
                "longblob",
                "char(3)",
                "varchar(9)",
                "varchar(7)",
            ]
        );
        let ty = |at: usize| def.columns[at].ty.clone();
        assert_eq!(ty(5), ColumnType::TextIn { charset: Charset::Latin1 });
        assert_eq!(ty(8), ColumnType::TextIn { charset: Charset::Utf16 });
        assert_eq!(ty(9), ColumnType::Binary { length: 16 });
        assert_eq!(ty(10), ColumnType::Bytes);
        assert_eq!(ty(13), ColumnType::Text);
        assert_eq!(ty(15), ColumnType::TextIn { charset: Charset::Sjis });
        assert_eq!(def.primary_key, [1, 0]);
    }

    #[test]
    fn a_log_without_names_or_signs_is_refused_with_what_to_set() {
        // Two columns, INT and VARCHAR(10), and nothing more; then signs and collation, as MINIMAL has them.
        let bare = b"\x07\0\0\0\0\0\0\0\x01d\0\x01t\0\x02\x03\x0f\x02\x28\0\x03".to_vec();
        let mut minimal = bare.clone();
        minimal.extend_from_slice(&[1, 1, 0, 2, 3, 0xfc, 255, 0]);
        for data in [bare, minimal] {
            let error = definition(&map(&data)).expect_err("no names");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.report().contains("binlog_row_metadata = 'FULL'"), "{}", error.report());
        }
    }
}
