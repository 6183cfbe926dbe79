//! How many bytes a column takes in a row. Knows nothing of what they mean.

use crate::error::Result;

use super::super::cursor::Cursor;
use super::super::table_map::{MapColumn, column_kind as k};
use super::super::value::fraction_len;

/// How many bytes a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Fixed(u16),
    /// As many as the little-endian integer of so many bytes before them says.
    Counted(u8),
}

impl Width {
    /// Of a column as it is announced.
    pub fn of(column: &MapColumn) -> Self {
        let metadata = column.metadata;
        let [low, high] = metadata.to_le_bytes();
        match column.kind {
            k::TINY | k::YEAR => Width::Fixed(1),
            k::SHORT => Width::Fixed(2),
            k::INT24 | k::DATE | k::NEWDATE | k::TIME => Width::Fixed(3),
            k::LONG | k::FLOAT | k::TIMESTAMP => Width::Fixed(4),
            k::LONGLONG | k::DOUBLE | k::DATETIME => Width::Fixed(8),
            k::TIMESTAMP2 => Width::Fixed(4 + fraction_len(low)),
            k::DATETIME2 => Width::Fixed(5 + fraction_len(low)),
            k::TIME2 => Width::Fixed(3 + fraction_len(low)),
            k::NEWDECIMAL => Width::Fixed(decimal_len(low, high)),
            k::ENUM | k::SET => Width::Fixed(metadata),
            k::BIT => Width::Fixed(u16::from(high) + u16::from(low > 0)),
            k::VARCHAR | k::VAR_STRING | k::STRING => {
                Width::Counted(if metadata < 256 { 1 } else { 2 })
            }
            k::TINY_BLOB..=k::BLOB | k::GEOMETRY | k::JSON | k::VECTOR => Width::Counted(low),
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

/// Nine digits take four bytes; what is left over on either side of the point takes what it needs.
fn decimal_len(precision: u8, scale: u8) -> u16 {
    const LEFT_OVER: [u16; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    let side = |digits: u8| u16::from(digits / 9) * 4 + LEFT_OVER[usize::from(digits % 9)];
    side(precision.saturating_sub(scale)) + side(scale)
}
