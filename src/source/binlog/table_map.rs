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
    /// Number of the collation; 63 is binary. None where it means nothing or the server does not say.
    pub collation: Option<u64>,
    /// Only where the server logs with `binlog_row_metadata = FULL`.
    pub name: Option<String>,
}

/// A TABLE_MAP event, parsed; kept as long as the ones that follow are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    pub table_id: u64,
    pub table: TableId,
    pub columns: Vec<MapColumn>,
    layout: Vec<u8>,
}

impl TableMap {
    pub fn parse(event: &TableMapEvent<'_>) -> Result<Self> {
        let table = TableId::new(event.db, event.table);
        let columns = columns(event.columns, event.is_mariadb)
            .map_err(|error| error.context(format!("the log's layout of {table}")))?;
        Ok(Self { table_id: event.table_id, table, columns, layout: event.layout.to_vec() })
    }

    /// Whether the event announces the same layout of the same table. The table id may differ: adopt it from the event.
    #[inline]
    pub fn is_same(&self, event: &TableMapEvent<'_>) -> bool {
        self.layout == event.layout
    }
}

fn columns(bytes: &[u8], is_mariadb: bool) -> Result<Vec<MapColumn>> {
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
        });
    }
    let nulls = cursor.bytes(kinds.len().div_ceil(8))?;
    for (at, column) in columns.iter_mut().enumerate() {
        column.nullable = nulls.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0);
    }
    while !cursor.is_empty() {
        let field = cursor.u8()?;
        let value = cursor.lenenc_bytes()?;
        match field {
            1 => read_signs(&mut columns, value),
            2 => read_default_collation(&mut columns, value, is_mariadb)?,
            3 => read_collations(&mut columns, value, is_mariadb)?,
            4 => read_names(&mut columns, value)?,
            _ => (),
        }
    }
    Ok(columns)
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
fn is_character(kind: u8, is_mariadb: bool) -> bool {
    match kind {
        k::VARCHAR | k::VAR_STRING | k::STRING | k::TINY_BLOB..=k::BLOB | k::VECTOR => true,
        k::BLOB_COMPRESSED | k::VARCHAR_COMPRESSED => true,
        k::GEOMETRY => is_mariadb,
        _ => false,
    }
}

/// One bit for each numeric column (YEAR is one of them), from the highest bit on.
fn read_signs(columns: &mut [MapColumn], value: &[u8]) {
    for (at, column) in columns.iter_mut().filter(|column| is_numeric(column.kind)).enumerate() {
        column.unsigned = value.get(at / 8).map(|byte| byte & (0x80 >> (at % 8)) != 0);
    }
}

/// The collation of most character columns, then pairs of number and collation of the others.
fn read_default_collation(columns: &mut [MapColumn], value: &[u8], is_mariadb: bool) -> Result<()> {
    let mut cursor = Cursor::new(value);
    let default = cursor.lenenc()?;
    let mut characters: Vec<&mut MapColumn> =
        columns.iter_mut().filter(|column| is_character(column.kind, is_mariadb)).collect();
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

fn read_collations(columns: &mut [MapColumn], value: &[u8], is_mariadb: bool) -> Result<()> {
    let mut cursor = Cursor::new(value);
    for column in columns.iter_mut().filter(|column| is_character(column.kind, is_mariadb)) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let columns = columns(&bytes, true).expect("well formed");
        let collations: Vec<_> = columns.iter().map(|column| column.collation).collect();
        assert_eq!(collations, [Some(63), Some(8), Some(63), Some(63), Some(2_304)]);
    }

    #[test]
    fn an_impossible_number_of_columns_is_an_error() {
        assert!(columns(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false).is_err());
        assert!(columns(&[5, 1, 1], false).is_err());
    }
}
