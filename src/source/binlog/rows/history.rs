//! Tables that keep the past of their rows (MariaDB's system versioning): what the log says of them → what became of the
//! rows that still are so. Knows nothing of how rows are laid out.
//!
//! The server deletes a row by setting its end, and changes one by changing it and writing the one before as a row that
//! has ended. What has ended is no row to us, so an image of it is as if there was none.

use crate::change::{Change, ChangeKind};
use crate::error::Result;

use super::super::value::Read;
use super::{Present, Reader, is_set};
use crate::change::Value;
use crate::source::binlog::cursor::{Cursor, ends_early};

/// The last moment that a server has, of 32 bits with a sign (up to MariaDB 11.4) or without.
const LAST_SECONDS: [u32; 2] = [i32::MAX as u32, u32::MAX];
const LAST_MICROS: u32 = 999_999;

impl<'a> Reader<'a, '_> {
    /// Fills `change` with what became of the next row that still is so.
    pub(super) fn next_current(&mut self, change: &mut Change<'a>) -> Result<bool> {
        while self.step(change)? {
            let first = self.is_current(self.first, self.image_at(change, true))?;
            let kind = match change.kind {
                ChangeKind::Update => {
                    let second = self.is_current(self.second, self.image_at(change, false))?;
                    // An image that leaves the end out has the one of the image before.
                    match (first.unwrap_or(true), second.or(first).unwrap_or(true)) {
                        (true, true) => Some(ChangeKind::Update),
                        (true, false) => Some(ChangeKind::Delete),
                        (false, true) => Some(ChangeKind::Insert),
                        (false, false) => None,
                    }
                }
                kind => first.unwrap_or(true).then_some(kind),
            };
            if let Some(kind) = kind {
                change.kind = kind;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the first image of the change begins, or the second one of an update.
    fn image_at(&self, change: &Change<'a>, is_first: bool) -> usize {
        let row = match (change.kind, is_first) {
            (ChangeKind::Insert, _) | (ChangeKind::Update, false) => &change.after,
            (ChangeKind::Delete, _) | (ChangeKind::Update, true) => &change.before,
        };
        row.offset as usize
    }

    /// Whether the row of an image has not ended; None where the image leaves that out.
    fn is_current(&self, present: Present<'a>, at: usize) -> Result<Option<bool>> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let (nulls, rest) = rest.split_at_checked(present.null_bytes).ok_or_else(ends_early)?;
        let (mut cursor, mut bit) = (Cursor::new(rest), 0);
        for (ordinal, step) in self.plan.steps.iter().enumerate() {
            if !present.all && !is_set(present.bitmap, ordinal) {
                continue;
            }
            let is_null = is_set(nulls, bit);
            bit += 1;
            if is_null {
                continue;
            }
            let bytes = step.width.take(&mut cursor)?;
            if step.is_row_end {
                return is_last(bytes).map(Some);
            }
        }
        Ok(None)
    }
}

/// Both forms of a TIMESTAMP(6) have the seconds in four bytes and the microseconds in three, the highest first.
fn is_last(bytes: &[u8]) -> Result<bool> {
    let value = Read::Timestamp { fsp: 6 }.value(bytes)?;
    Ok(matches!(value, Value::Timestamp { seconds, micros: LAST_MICROS, .. }
        if LAST_SECONDS.contains(&seconds)))
}
