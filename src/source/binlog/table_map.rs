//! A table's layout as the log announces it before its rows: column types and what the server adds to them. Knows
//! nothing of definitions.

use crate::error::{Error, ErrorKind, Result};
use crate::table::TableId;

use super::cursor::Cursor;
use super::event::TableMapEvent;

/// The server has no more columns in a table.
const MAX_COLUMNS: u64 = 4096;

/// Column type numbers of the log.
pub mod column_kind {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    /// Of MariaDB.
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}
use column_kind as k;

/// One column as the log announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapColumn {
    /// A number of [`column_kind`]. ENUM and SET, which the log dresses up as STRING, stand here as themselves.
    pub kind: u8,
    /// By kind: length, length bytes, fraction digits, or precision (low byte) and scale (high byte).
    pub metadata: u16,
    pub nullable: bool,
    /// None where it means nothing or the server does not say.
    pub unsigned: Option<bool>,
    /// Number of the collation; 63 is binary. None where it means nothing or the server does not say. Of an ENUM or SET:
    /// of its labels.
    pub collation: Option<u64>,
    /// Only where the server logs with `binlog_row_metadata = FULL`.
    pub name: Option<String>,
    /// Of an ENUM or SET, in the column's own character set; the same condition.
    pub labels: Option<Vec<Vec<u8>>>,
}

/// A column of the primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPart {
    /// An index into the table's columns; not beyond them.
    pub ordinal: usize,
    /// Only the beginning of the column counts.
    pub is_prefix: bool,
}

/// A TABLE_MAP event, parsed; kept as long as the ones that follow are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    pub table_id: u64,
    pub table: TableId,
    pub columns: Vec<MapColumn>,
    /// Empty where the table has none, or the server does not say (`binlog_row_metadata` is not FULL).
    pub primary_key: Vec<KeyPart>,
    layout: Vec<u8>,
}

impl TableMap {
    pub fn parse(event: &TableMapEvent<'_>) -> Result<Self> {
        let table = TableId::new(event.db, event.table);
        let (columns, primary_key) = layout(event.columns, event.is_mariadb)
            .map_err(|error| error.context(format!("the log's layout of {table}")))?;
        let layout = event.layout.to_vec();
        Ok(Self { table_id: event.table_id, table, columns, primary_key, layout })
    }

    /// Whether the event announces the same layout of the same table. The table id may differ: adopt it from the event.
    #[inline]
    pub fn is_same(&self, event: &TableMapEvent<'_>) -> bool {
        self.layout == event.layout
    }
}

fn layout(bytes: &[u8], is_mariadb: bool) -> Result<(Vec<MapColumn>, Vec<KeyPart>)> {
    let characters = if is_mariadb { is_character_of_mariadb } else { is_character };
    let mut cursor = Cursor::new(bytes);
    let count = cursor.lenenc()?;
    if count > MAX_COLUMNS {
        return Err(Error::new(
            ErrorKind::Undecodable,
            format!("{count} columns are more than a table can have"),
        ));
    }
    let kinds = cursor.bytes(count as usize)?;
    let mut metadata = Cursor::new(cursor.lenenc_bytes()?);
    let mut columns = Vec::with_capacity(kinds.len());
    for &kind in kinds {
        let (kind, metadata) = read_metadata(kind, &mut metadata)?;
        columns.push(MapColumn {
            kind,
            metadata,
            nullable: false,
            unsigned: None,
            collation: None,
            name: None,
            labels: None,
        });
    }
    let mut primary_key = Vec::new();
    let nulls = cursor.bytes(kinds.len().div_ceil(8))?;
    for (at, column) in columns.iter_mut().enumerate() {
        column.nullable = nulls.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0);
    }
    while !cursor.is_empty() {
        let field = cursor.u8()?;
        let value = cursor.lenenc_bytes()?;
        match field {
            1 => read_signs(&mut columns, value),
            2 => read_default_collation(&mut columns, characters, value)?,
            3 => read_collations(&mut columns, characters, value)?,
            4 => read_names(&mut columns, value)?,
            5 => read_labels(&mut columns, k::SET, value)?,
            6 => read_labels(&mut columns, k::ENUM, value)?,
            8 => primary_key = read_key(columns.len(), value, false)?,
            9 => primary_key = read_key(columns.len(), value, true)?,
            10 => read_default_collation(&mut columns, has_labels, value)?,
            11 => read_collations(&mut columns, has_labels, value)?,
            _ => (),
        }
    }
    Ok((columns, primary_key))
}

fn read_metadata(kind: u8, cursor: &mut Cursor<'_>) -> Result<(u8, u16)> {
    Ok(match kind {
        k::FLOAT | k::DOUBLE | k::TIMESTAMP2 | k::DATETIME2 | k::TIME2 => {
            (kind, cursor.u8()?.into())
        }
        k::TINY_BLOB..=k::BLOB | k::BLOB_COMPRESSED | k::GEOMETRY | k::JSON | k::VECTOR => {
            (kind, cursor.u8()?.into())
        }
        k::VARCHAR | k::VARCHAR_COMPRESSED | k::VAR_STRING | k::NEWDECIMAL | k::BIT => {
            (kind, cursor.u16()?)
        }
        k::STRING | k::ENUM | k::SET => {
            let [real, low] = cursor.array()?;
            // Lengths over 255 hide their two highest bits, inverted, in the bits 4 and 5 of the type.
            match real & 0x30 {
                0x30 => (real, low.into()),
                high => (real | 0x30, u16::from(low) | (u16::from(high ^ 0x30) << 4)),
            }
        }
        k::TINY
        | k::SHORT
        | k::LONG
        | k::NULL
        | k::TIMESTAMP
        | k::LONGLONG
        | k::INT24
        | k::DATE
        | k::TIME
        | k::DATETIME
        | k::YEAR
        | k::NEWDATE => (kind, 0),
        unknown => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("column type {unknown} is not known"),
            ));
        }
    })
}

fn is_numeric(kind: u8) -> bool {
    matches!(kind, k::TINY..=k::DOUBLE | k::LONGLONG | k::INT24 | k::YEAR | k::NEWDECIMAL)
}

/// Columns that the server counts when it lists collations: a VECTOR is one; a JSON and in MySQL a GEOMETRY are not.
fn is_character(kind: u8) -> bool {
    matches!(
        kind,
        k::VARCHAR | k::VAR_STRING | k::STRING | k::TINY_BLOB
            ..=k::BLOB | k::VECTOR | k::BLOB_COMPRESSED | k::VARCHAR_COMPRESSED
    )
}

fn is_character_of_mariadb(kind: u8) -> bool {
    is_character(kind) || kind == k::GEOMETRY
}

fn has_labels(kind: u8) -> bool {
    matches!(kind, k::ENUM | k::SET)
}

/// One bit for each numeric column (YEAR is one of them), from the highest bit on.
fn read_signs(columns: &mut [MapColumn], value: &[u8]) {
    for (at, column) in columns.iter_mut().filter(|column| is_numeric(column.kind)).enumerate() {
        column.unsigned = value.get(at / 8).map(|byte| byte & (0x80 >> (at % 8)) != 0);
    }
}

/// The collation of most of the columns that are counted, then pairs of number and collation of the others.
fn read_default_collation(
    columns: &mut [MapColumn],
    counts: fn(u8) -> bool,
    value: &[u8],
) -> Result<()> {
    let mut cursor = Cursor::new(value);
    let default = cursor.lenenc()?;
    let mut characters: Vec<&mut MapColumn> =
        columns.iter_mut().filter(|column| counts(column.kind)).collect();
    for column in &mut characters {
        column.collation = Some(default);
    }
    while !cursor.is_empty() {
        let (at, collation) = (cursor.lenenc()?, cursor.lenenc()?);
        if let Some(column) = characters.get_mut(at as usize) {
            column.collation = Some(collation);
        }
    }
    Ok(())
}

fn read_collations(columns: &mut [MapColumn], counts: fn(u8) -> bool, value: &[u8]) -> Result<()> {
    let mut cursor = Cursor::new(value);
    for column in columns.iter_mut().filter(|column| counts(column.kind)) {
        column.collation = Some(cursor.lenenc()?);
    }
    Ok(())
}

fn read_names(columns: &mut [MapColumn], value: &[u8]) -> Result<()> {
    let mut cursor = Cursor::new(value);
    for column in columns {
        column.name = Some(String::from_utf8_lossy(cursor.lenenc_bytes()?).into_owned());
    }
    Ok(())
}

/// For each column of the kind: how many labels, and these.
fn read_labels(columns: &mut [MapColumn], kind: u8, value: &[u8]) -> Result<()> {
    let mut cursor = Cursor::new(value);
    for column in columns.iter_mut().filter(|column| column.kind == kind) {
        let mut labels = Vec::new();
        for _ in 0..cursor.lenenc()? {
            labels.push(cursor.lenenc_bytes()?.to_vec());
        }
        column.labels = Some(labels);
    }
    Ok(())
}

/// The columns of the primary key; where one of them is a prefix, the length of each follows it, and 0 is all of it.
fn read_key(columns: usize, value: &[u8], has_prefixes: bool) -> Result<Vec<KeyPart>> {
    let mut cursor = Cursor::new(value);
    let mut key: Vec<KeyPart> = Vec::new();
    while !cursor.is_empty() {
        let ordinal = cursor.lenenc()?;
        let is_prefix = has_prefixes && cursor.lenenc()? != 0;
        let ordinal = usize::try_from(ordinal).ok().filter(|ordinal| *ordinal < columns);
        let Some(ordinal) = ordinal else {
            return Err(Error::new(
                ErrorKind::Undecodable,
                "the primary key has a column that is none of the table's",
            ));
        };
        key.push(KeyPart { ordinal, is_prefix });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(bytes: &[u8], is_mariadb: bool) -> Result<Vec<MapColumn>> {
        layout(bytes, is_mariadb).map(|(columns, _)| columns)
    }

    #[test]
    fn signs_count_year_among_the_numbers() {
        // tinyint unsigned, year, int signed, varchar(10), bigint unsigned
        let bytes = [5, 1, 13, 3, 15, 8, 2, 40, 0, 0x1f, 1, 1, 0b1101_0000];
        let columns = columns(&bytes, false).expect("well formed");
        let unsigned: Vec<_> = columns.iter().map(|column| column.unsigned).collect();
        assert_eq!(unsigned, [Some(true), Some(true), Some(false), None, Some(true)]);
    }

    /// Bytes of MySQL 9.7 for (a VECTOR(3), b VARCHAR(327) in gbk, g POINT, c TEXT in latin1, bl BLOB).
    #[test]
    fn a_vector_is_counted_among_the_columns_with_a_collation() {
        let bytes = [
            5, 242, 15, 255, 252, 252, 6, 4, 0x8e, 2, 4, 2, 2, 0x1f, 3, 4, 63, 28, 8, 63, 7, 1, 1,
            13, 1, 3,
        ];
        let columns = columns(&bytes, false).expect("well formed");
        let collations: Vec<_> = columns.iter().map(|column| column.collation).collect();
        assert_eq!(collations, [Some(63), Some(28), None, Some(8), Some(63)]);
    }

    #[test]
    fn long_binary_columns_and_sets_hide_behind_the_string_type() {
        // binary(255), char(255) of 1020 bytes, enum of 1 byte, set of 8 bytes
        let (high, low) = (0xfe_u8 ^ 0x30, 0xfc_u8);
        let bytes = [4, 254, 254, 254, 254, 8, 254, 255, high, low, 247, 1, 248, 8, 0];
        let columns = columns(&bytes, false).expect("well formed");
        let seen: Vec<_> = columns.iter().map(|column| (column.kind, column.metadata)).collect();
        assert_eq!(seen, [(k::STRING, 255), (k::STRING, 1020), (k::ENUM, 1), (k::SET, 8)]);
    }

    /// Bytes of MariaDB 11.8 for (u UUID, t TEXT COMPRESSED in latin1, g POINT, v VECTOR(3), c CHAR(5) in utf8mb4).
    #[test]
    fn mariadb_counts_shapes_among_the_columns_with_a_collation() {
        let bytes = [
            5, 254, 140, 255, 15, 254, 8, 254, 16, 2, 4, 12, 0, 254, 20, 0x1f, 2, 7, 63, 1, 8, 4,
            0xfc, 0, 9,
        ];
        let (columns, _) = layout(&bytes, true).expect("well formed");
        let collations: Vec<_> = columns.iter().map(|column| column.collation).collect();
        assert_eq!(collations, [Some(63), Some(8), Some(63), Some(63), Some(2_304)]);
    }

    #[test]
    fn labels_and_keys_are_read_where_the_server_names_them() {
        // enum of 1 byte, int, set of 1 byte; latin1 and utf8mb4; the key is (int, enum by its first 2 bytes)
        let bytes = [
            3, 254, 3, 254, 4, 247, 1, 248, 1, 0, 6, 6, 2, 1, b'a', 2, b'b', b'c', 5, 3, 1, 1,
            b'x', 10, 5, 8, 1, 0xfc, 255, 0, 9, 4, 1, 0, 0, 2,
        ];
        let (columns, key) = layout(&bytes, false).expect("well formed");
        let labels = |at: usize| columns[at].labels.clone().unwrap_or_default();
        assert_eq!(labels(0), [b"a".to_vec(), b"bc".to_vec()]);
        assert_eq!(labels(2), [b"x".to_vec()]);
        assert_eq!(columns[1].labels, None);
        assert_eq!((columns[0].collation, columns[2].collation), (Some(8), Some(255)));
        let part = |ordinal, is_prefix| KeyPart { ordinal, is_prefix };
        assert_eq!(key, [part(1, false), part(0, true)]);
        assert!(
            layout(&[1, 3, 0, 0, 8, 1, 1], false).is_err(),
            "a key column behind the last column"
        );
        let endless = [1, 254, 2, 247, 1, 0, 6, 4, 0xfd, 0xff, 0xff, 0xff];
        assert!(layout(&endless, false).is_err(), "labels that do not come");
    }

    #[test]
    fn an_impossible_number_of_columns_is_an_error() {
        assert!(layout(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false).is_err());
        assert!(layout(&[5, 1, 1], false).is_err());
    }
}
