//! Names of XA transactions, in one spelling however the log or the server writes them. Pure.

use std::fmt::{self, Write as _};

use crate::source::binlog::event::XaPrepare;

/// An XID as the log's statements spell it: `X'6774',X'6271',1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(String);

impl Xid {
    pub fn new(gtrid: &[u8], bqual: &[u8], format_id: u32) -> Self {
        let mut text = String::with_capacity(2 * (gtrid.len() + bqual.len()) + 18);
        for part in [gtrid, bqual] {
            text.push_str("X'");
            for byte in part {
                let _ = write!(text, "{byte:02x}");
            }
            text.push_str("',");
        }
        let _ = write!(text, "{format_id}");
        Self(text)
    }

    /// Of the event that ends a prepared group.
    pub fn of_event(event: &XaPrepare<'_>) -> Self {
        Self::new(event.gtrid, event.bqual, event.format_id)
    }

    /// Of `XA COMMIT …` or `XA ROLLBACK …`. The server logs all three parts, as hexadecimal literals.
    pub fn of_statement(statement: &str) -> Option<Self> {
        let mut words = statement.trim().splitn(3, char::is_whitespace);
        let (_xa, _verb, rest) = (words.next()?, words.next()?, words.next()?);
        let mut parts = rest.split(',').map(str::trim);
        let gtrid = hexadecimal(parts.next()?)?;
        let bqual = parts.next().map_or(Some(Vec::new()), hexadecimal)?;
        let format_id = parts.next().map_or(Some(1), |text| text.parse().ok())?;
        Some(Self::new(&gtrid, &bqual, format_id))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it was written by [`Self::as_str`].
    pub fn stored(text: String) -> Self {
        Self(text)
    }
}

/// `X'00ff'`.
fn hexadecimal(literal: &str) -> Option<Vec<u8>> {
    let digits = literal.strip_prefix(['X', 'x'])?.strip_prefix('\'')?.strip_suffix('\'')?;
    bytes_of(digits)
}

pub(super) fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_and_statement_name_the_same_transaction() {
        let event =
            XaPrepare { one_phase: false, format_id: u32::MAX, gtrid: b"m,'", bqual: &[0, 0xff] };
        let of_event = Xid::of_event(&event);
        assert_eq!(of_event.as_str(), "X'6d2c27',X'00ff',4294967295");
        let statement = "XA COMMIT X'6d2c27',X'00ff',4294967295";
        assert_eq!(Xid::of_statement(statement), Some(of_event.clone()));
        assert_eq!(Xid::stored(of_event.as_str().to_owned()), of_event);
        let short = Xid::of_statement("XA ROLLBACK X'6D',X'',1").expect("is read");
        assert_eq!(short.as_str(), "X'6d',X'',1");
    }

    #[test]
    fn what_is_no_name_is_none() {
        for statement in
            ["", "XA", "XA COMMIT", "XA COMMIT x", "XA COMMIT X'6', X'',1", "XA COMMIT X'é0'"]
        {
            assert_eq!(Xid::of_statement(statement), None, "{statement}");
        }
    }
}
