//! How many bytes a column takes in a row. Knows nothing of what they mean.

use crate::error::Result;

use super::super::cursor::Cursor;
use super::super::table_map::{MapColumn, column_kind as k};
use super::super::value::{fraction_len, hires_date_time_len, hires_time_len, hires_timestamp_len};
use crate::table::ColumnType;

/// How many bytes a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Fixed(u16),
    /// As many as the little-endian integer of so many bytes before them says.
    Counted(u8),
}

impl Width {
    /// Of a column as it is announced. The old forms of moments are announced without their digits, which MariaDB had
    /// before MySQL had another form for them; those are the definition's.
    pub fn of(column: &MapColumn, ty: &ColumnType) -> Self {
        let metadata = column.metadata;
        let [low, high] = metadata.to_le_bytes();
        match column.kind {
            k::TIME | k::DATETIME | k::TIMESTAMP => Width::Fixed(old_moment_len(ty)),
            k::TINY | k::YEAR => Width::Fixed(1),
            k::SHORT => Width::Fixed(2),
            k::INT24 | k::DATE | k::NEWDATE => Width::Fixed(3),
            k::LONG | k::FLOAT => Width::Fixed(4),
            k::LONGLONG | k::DOUBLE => Width::Fixed(8),
            k::TIMESTAMP2 => Width::Fixed(4 + fraction_len(low)),
            k::DATETIME2 => Width::Fixed(5 + fraction_len(low)),
            k::TIME2 => Width::Fixed(3 + fraction_len(low)),
            k::NEWDECIMAL => Width::Fixed(decimal_len(low, high)),
            k::ENUM | k::SET => Width::Fixed(metadata),
            k::BIT => Width::Fixed(u16::from(high) + u16::from(low > 0)),
            k::VARCHAR | k::VAR_STRING | k::STRING => {
                Width::Counted(if metadata < 256 { 1 } else { 2 })
            }
            k::VARCHAR_COMPRESSED => Width::Counted(if metadata < 256 { 1 } else { 2 }),
            k::TINY_BLOB..=k::BLOB | k::BLOB_COMPRESSED | k::GEOMETRY | k::JSON | k::VECTOR => {
                Width::Counted(low)
            }
            // Only NULL is left: the layout's parser refuses all others.
            _ => Width::Fixed(0),
        }
    }

    /// The column's bytes, without their count.
    #[inline]
    pub fn take<'a>(self, cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
        match self {
            Self::Fixed(count) => cursor.bytes(usize::from(count)),
            Self::Counted(1) => {
                let count = usize::from(cursor.u8()?);
                cursor.bytes(count)
            }
            Self::Counted(2) => {
                let count = usize::from(cursor.u16()?);
                cursor.bytes(count)
            }
            Self::Counted(width) => {
                let count = cursor.uint(usize::from(width))?;
                cursor.bytes(count as usize)
            }
        }
    }
}

/// Of a moment in its old form; the definition was found to agree in what kind it is.
fn old_moment_len(ty: &ColumnType) -> u16 {
    match *ty {
        ColumnType::Time { fsp } => hires_time_len(fsp),
        ColumnType::DateTime { fsp } => hires_date_time_len(fsp),
        ColumnType::Timestamp { fsp } => hires_timestamp_len(fsp),
        ColumnType::RowEnd => hires_timestamp_len(6),
        _ => 0,
    }
}

/// Nine digits take four bytes; what is left over on either side of the point takes what it needs.
fn decimal_len(precision: u8, scale: u8) -> u16 {
    const LEFT_OVER: [u16; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    let side = |digits: u8| u16::from(digits / 9) * 4 + LEFT_OVER[usize::from(digits % 9)];
    side(precision.saturating_sub(scale)) + side(scale)
}
