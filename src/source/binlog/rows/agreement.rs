//! Whether a column's definition and its layout in the log are of one mind, and how its bytes are then read.

use crate::error::{Error, ErrorKind, Result};
use crate::table::{Column, ColumnType, TableDef};

use super::super::collation::{charset_of, is_utf8};
use super::super::table_map::{MapColumn, column_kind as k};
use super::super::value::Read;
use super::{place, schema};

/// The binary collation.
const BINARY: u64 = 63;

/// Whether the column is in the log what its definition says.
pub fn check(def: &TableDef, column: &Column, in_log: &MapColumn) -> Result<()> {
    use ColumnType as C;
    let kind = in_log.kind;
    let [low, high] = in_log.metadata.to_le_bytes();
    let string = matches!(kind, k::VARCHAR | k::VAR_STRING | k::STRING | k::TINY_BLOB..=k::BLOB)
        || is_packed(kind);
    let binary = in_log.collation.is_none_or(|collation| collation == BINARY);
    let sign = |unsigned: bool| in_log.unsigned.is_none_or(|in_log| in_log == unsigned);
    // MariaDB shows that a column has its own first form of digits behind the second.
    let old = |fsp: u8| fsp == 0 || column.declared.contains("mariadb-5.3");
    let agrees = match &column.ty {
        C::TinyInt { unsigned } => kind == k::TINY && sign(*unsigned),
        C::SmallInt { unsigned } => kind == k::SHORT && sign(*unsigned),
        C::MediumInt { unsigned } => kind == k::INT24 && sign(*unsigned),
        C::Int { unsigned } => kind == k::LONG && sign(*unsigned),
        C::BigInt { unsigned } => kind == k::LONGLONG && sign(*unsigned),
        C::Float => kind == k::FLOAT,
        C::Double => kind == k::DOUBLE,
        C::Decimal { precision, scale } => {
            kind == k::NEWDECIMAL && (low, high) == (*precision, *scale)
        }
        C::Date => matches!(kind, k::DATE | k::NEWDATE),
        C::Time { fsp } => (kind == k::TIME2 && low == *fsp) || (kind == k::TIME && old(*fsp)),
        C::DateTime { fsp } => {
            (kind == k::DATETIME2 && low == *fsp) || (kind == k::DATETIME && old(*fsp))
        }
        C::Timestamp { fsp } => {
            (kind == k::TIMESTAMP2 && low == *fsp) || (kind == k::TIMESTAMP && old(*fsp))
        }
        C::RowEnd => (kind == k::TIMESTAMP2 && low == 6) || (kind == k::TIMESTAMP && old(6)),
        C::Year => kind == k::YEAR,
        C::Bit { length } => {
            kind == k::BIT && u16::from(high) * 8 + u16::from(low) == u16::from(*length)
        }
        C::Text => string && in_log.collation.is_none_or(is_utf8),
        C::TextIn { charset } => {
            string && in_log.collation.is_none_or(|number| charset_of(number) == Some(*charset))
        }
        C::Binary { length } => kind == k::STRING && in_log.metadata == *length && binary,
        C::Bytes => string && binary,
        C::Enum { .. } => kind == k::ENUM,
        C::Set { .. } => kind == k::SET,
        C::Json => kind == k::JSON,
        C::JsonText => {
            let is_text = matches!(kind, k::TINY_BLOB..=k::BLOB | k::BLOB_COMPRESSED);
            is_text && in_log.collation.is_none_or(is_utf8)
        }
        C::Uuid | C::Inet6 => kind == k::STRING && in_log.metadata == 16 && binary,
        C::Inet4 => kind == k::STRING && in_log.metadata == 4 && binary,
        C::Geometry => kind == k::GEOMETRY,
        // MariaDB's is a VARBINARY in the log.
        C::Vector => kind == k::VECTOR || (kind == k::VARCHAR && binary),
        C::Unsupported { .. } => true,
    };
    if !agrees {
        let place = place(&def.id, &column.name);
        let collation = in_log.collation.map(|number| format!(", collation {number}"));
        let message = format!(
            "{place} is {}, but has type {kind} ({}{}) in the log",
            column.declared,
            in_log.metadata,
            collation.unwrap_or_default()
        );
        return Err(schema(message));
    }
    match &in_log.name {
        Some(name) if name.to_lowercase() != column.name.to_lowercase() => {
            Err(schema(format!("{} is called `{name}` in the log", place(&def.id, &column.name))))
        }
        _ => Ok(()),
    }
}

fn is_packed(kind: u8) -> bool {
    matches!(kind, k::BLOB_COMPRESSED | k::VARCHAR_COMPRESSED)
}

pub fn read(column: &Column, in_log: &MapColumn) -> Result<Read> {
    use ColumnType as C;
    Ok(match column.ty {
        C::TinyInt { unsigned } => {
            if unsigned {
                Read::TinyUint
            } else {
                Read::TinyInt
            }
        }
        C::SmallInt { unsigned } => {
            if unsigned {
                Read::SmallUint
            } else {
                Read::SmallInt
            }
        }
        C::MediumInt { unsigned } => {
            if unsigned {
                Read::MediumUint
            } else {
                Read::MediumInt
            }
        }
        C::Int { unsigned } => {
            if unsigned {
                Read::Uint
            } else {
                Read::Int
            }
        }
        C::BigInt { unsigned } => {
            if unsigned {
                Read::BigUint
            } else {
                Read::BigInt
            }
        }
        C::Float => Read::Float,
        C::Double => Read::Double,
        C::Decimal { precision, scale } => Read::Decimal { precision, scale },
        C::Date => Read::Date,
        C::Time { fsp: 1.. } | C::DateTime { fsp: 1.. } | C::Timestamp { fsp: 1.. } | C::RowEnd
            if matches!(in_log.kind, k::TIME | k::DATETIME | k::TIMESTAMP) =>
        {
            hires(&column.ty)
        }
        C::Time { .. } if in_log.kind == k::TIME => Read::OldTime,
        C::Time { fsp } => Read::Time { fsp },
        C::DateTime { .. } if in_log.kind == k::DATETIME => Read::OldDateTime,
        C::DateTime { fsp } => Read::DateTime { fsp },
        C::Timestamp { .. } if in_log.kind == k::TIMESTAMP => Read::OldTimestamp,
        C::Timestamp { fsp } => Read::Timestamp { fsp },
        C::RowEnd => Read::Timestamp { fsp: 6 },
        C::Year => Read::Year,
        C::Bit { .. } => Read::Bit,
        C::Text | C::TextIn { .. } | C::Bytes | C::JsonText if is_packed(in_log.kind) => {
            Read::Packed
        }
        C::Text => Read::Text,
        C::TextIn { .. } => Read::Encoded,
        C::Binary { length } => Read::Binary { length },
        C::Bytes => Read::Bytes,
        C::Enum { .. } => Read::Enum,
        C::Set { .. } => Read::Set,
        C::Json => Read::Json,
        C::JsonText => Read::JsonText,
        C::Uuid | C::Inet6 => Read::Binary { length: 16 },
        C::Inet4 => Read::Binary { length: 4 },
        C::Geometry => Read::Geometry,
        C::Vector => Read::Vector,
        C::Unsupported { ref reason } => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: {reason}", column.declared),
            ));
        }
    })
}

/// Digits behind the second in the form that MariaDB had for them first.
fn hires(ty: &ColumnType) -> Read {
    match *ty {
        ColumnType::Time { fsp } => Read::HiresTime { fsp },
        ColumnType::DateTime { fsp } => Read::HiresDateTime { fsp },
        ColumnType::Timestamp { fsp } => Read::HiresTimestamp { fsp },
        ColumnType::RowEnd => Read::HiresTimestamp { fsp: 6 },
        // Only moments are asked for.
        _ => Read::OldTimestamp,
    }
}
