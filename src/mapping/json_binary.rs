//! JSON in the server's binary form, to the server's own text of it without the white space outside strings. Knows
//! nothing of columns or of where the bytes came from.
//!
//! A document is a type byte and a value; containers hold tables of offsets into themselves. So bytes made by an enemy
//! could say a little and mean a lot (many entries that point to one value): every document has a budget of twice its own
//! length for the bytes that are visited, which no honest one can exceed, because its values do not overlap.

use base64::Engine as _;

use crate::error::{Error, ErrorKind, Result};

use super::double::write_double;
use super::packed_decimal::write_packed_decimal;

/// The server refuses documents that are nested deeper.
const MAX_DEPTH: u32 = 100;

/// Type bytes of the form.
mod tag {
    pub const SMALL_OBJECT: u8 = 0;
    pub const LARGE_OBJECT: u8 = 1;
    pub const SMALL_ARRAY: u8 = 2;
    pub const LARGE_ARRAY: u8 = 3;
    pub const LITERAL: u8 = 4;
    pub const INT16: u8 = 5;
    pub const UINT16: u8 = 6;
    pub const INT32: u8 = 7;
    pub const UINT32: u8 = 8;
    pub const INT64: u8 = 9;
    pub const UINT64: u8 = 10;
    pub const DOUBLE: u8 = 11;
    pub const STRING: u8 = 12;
    pub const OPAQUE: u8 = 15;
}

/// Column types that an opaque value can have.
mod opaque {
    pub const TIMESTAMP: u8 = 7;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const DECIMAL: u8 = 246;
}

/// Appends the document's text. On an error `out` is as it was.
pub fn write_json_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let begun_at = out.len();
    let mut writer = Writer { out, budget: 2 * bytes.len() + 16 };
    let written = match bytes.split_first() {
        Some((&kind, data)) => writer.value(kind, data, 0),
        // A column that was added without a value to rows that were there.
        None => writer.literal(0),
    };
    written.ok_or_else(|| {
        out.truncate(begun_at);
        Error::new(ErrorKind::Undecodable, "its bytes are no JSON document")
    })
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// How many bytes may still be visited.
    budget: usize,
}

impl Writer<'_> {
    fn value(&mut self, kind: u8, data: &[u8], depth: u32) -> Option<()> {
        let mut integer = itoa::Buffer::new();
        let digits = match kind {
            tag::SMALL_OBJECT => return self.container::<2>(data, true, depth),
            tag::LARGE_OBJECT => return self.container::<4>(data, true, depth),
            tag::SMALL_ARRAY => return self.container::<2>(data, false, depth),
            tag::LARGE_ARRAY => return self.container::<4>(data, false, depth),
            tag::LITERAL => return self.literal(*data.first()?),
            tag::DOUBLE => {
                let number = f64::from_le_bytes(*data.first_chunk()?);
                return write_double(number, b".0", self.out);
            }
            tag::STRING => {
                let (length, data) = variable_length(data)?;
                return self.string(data.get(..length)?);
            }
            tag::OPAQUE => return self.opaque(data),
            tag::INT16 => integer.format(i16::from_le_bytes(*data.first_chunk()?)),
            tag::UINT16 => integer.format(u16::from_le_bytes(*data.first_chunk()?)),
            tag::INT32 => integer.format(i32::from_le_bytes(*data.first_chunk()?)),
            tag::UINT32 => integer.format(u32::from_le_bytes(*data.first_chunk()?)),
            tag::INT64 => integer.format(i64::from_le_bytes(*data.first_chunk()?)),
            tag::UINT64 => integer.format(u64::from_le_bytes(*data.first_chunk()?)),
            _ => return None,
        };
        self.out.extend_from_slice(digits.as_bytes());
        Some(())
    }

    fn literal(&mut self, literal: u8) -> Option<()> {
        let text: &[u8] = match literal {
            0 => b"null",
            1 => b"true",
            2 => b"false",
            _ => return None,
        };
        self.out.extend_from_slice(text);
        Some(())
    }

    /// `W` is the width of offsets and counts: 2 in small containers, 4 in large ones.
    fn container<const W: usize>(
        &mut self,
        data: &[u8],
        is_object: bool,
        depth: u32,
    ) -> Option<()> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let count = uint::<W>(data, 0)?;
        let data = data.get(..uint::<W>(data, W)?)?;
        let key_width = if is_object { W + 2 } else { 0 };
        let keys_at = 2 * W;
        let values_at = keys_at.checked_add(count.checked_mul(key_width)?)?;
        let tables_end = values_at.checked_add(count.checked_mul(W + 1)?)?;
        if tables_end > data.len() {
            return None;
        }
        self.spend(tables_end)?;
        self.out.push(if is_object { b'{' } else { b'[' });
        for at in 0..count {
            if at > 0 {
                self.out.push(b',');
            }
            if is_object {
                let entry = keys_at + at * key_width;
                let (start, length) = (uint::<W>(data, entry)?, uint::<2>(data, entry + W)?);
                self.string(data.get(start..)?.get(..length)?)?;
                self.out.push(b':');
            }
            self.entry::<W>(data, values_at + at * (W + 1), depth)?;
        }
        self.out.push(if is_object { b'}' } else { b']' });
        Some(())
    }

    /// A small value stands in its entry, a larger one where the entry points to.
    fn entry<const W: usize>(&mut self, data: &[u8], at: usize, depth: u32) -> Option<()> {
        let kind = *data.get(at)?;
        let inlined = match kind {
            tag::LITERAL | tag::INT16 | tag::UINT16 => true,
            tag::INT32 | tag::UINT32 => W == 4,
            _ => false,
        };
        if inlined {
            return self.value(kind, data.get(at + 1..at + 1 + W)?, depth + 1);
        }
        self.spend(1)?;
        self.value(kind, data.get(uint::<W>(data, at + 1)?..)?, depth + 1)
    }

    fn string(&mut self, text: &[u8]) -> Option<()> {
        self.spend(text.len())?;
        simdutf8::basic::from_utf8(text).ok()?;
        write_string(text, self.out);
        Some(())
    }

    fn opaque(&mut self, data: &[u8]) -> Option<()> {
        let (&kind, data) = data.split_first()?;
        let (length, data) = variable_length(data)?;
        let data = data.get(..length)?;
        self.spend(length)?;
        match kind {
            opaque::DECIMAL => {
                let (&[precision, scale], digits) = data.split_first_chunk()?;
                write_packed_decimal(digits, precision, scale, self.out).ok()
            }
            opaque::DATE | opaque::TIME | opaque::DATETIME | opaque::TIMESTAMP => {
                write_time(kind, i64::from_le_bytes(data.try_into().ok()?), self.out)
            }
            _ => {
                write_base64(kind, data, self.out);
                Some(())
            }
        }
    }

    fn spend(&mut self, bytes: usize) -> Option<()> {
        self.budget = self.budget.checked_sub(bytes)?;
        Some(())
    }
}

#[inline]
fn uint<const W: usize>(data: &[u8], at: usize) -> Option<usize> {
    let bytes: &[u8; W] = data.get(at..)?.first_chunk()?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// Seven bits a byte, lowest first, at most five bytes; and what follows it.
fn variable_length(data: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0_u64;
    for at in 0..5 {
        let byte = *data.get(at)?;
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(length).ok()?, data.get(at + 1..)?));
        }
    }
    None
}

/// The string in quotes, with the server's choice of escapes.
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = special[0];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        rest = &special[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// The server's packed moment: date and time of day in bits, 24 bits of microseconds below them.
fn write_time(kind: u8, packed: i64, out: &mut Vec<u8>) -> Option<()> {
    use std::io::Write as _;
    let magnitude = packed.unsigned_abs();
    let (whole, micros) = (magnitude >> 24, magnitude & 0xff_ffff);
    let (seconds, minutes) = (whole & 63, whole >> 6 & 63);
    let written = match kind {
        opaque::TIME => {
            let (sign, hours) = (if packed < 0 { "-" } else { "" }, whole >> 12 & 0x3ff);
            write!(out, "\"{sign}{hours:02}:{minutes:02}:{seconds:02}.{micros:06}\"")
        }
        _ => {
            let (hours, day, months) = (whole >> 12 & 31, whole >> 17 & 31, whole >> 22);
            let (year, month) = (months / 13, months % 13);
            match kind {
                opaque::DATE => write!(out, "\"{year:04}-{month:02}-{day:02}\""),
                _ => write!(
                    out,
                    "\"{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{micros:06}\""
                ),
            }
        }
    };
    written.ok()
}

/// Base 64 in lines of 76 characters; the line breaks between them stand escaped in the string.
fn write_base64(kind: u8, data: &[u8], out: &mut Vec<u8>) {
    const BYTES_PER_LINE: usize = 57;
    out.extend_from_slice(b"\"base64:type");
    out.extend_from_slice(itoa::Buffer::new().format(kind).as_bytes());
    out.push(b':');
    for (line, bytes) in data.chunks(BYTES_PER_LINE).enumerate() {
        if line > 0 {
            out.extend_from_slice(b"\\n");
        }
        let start = out.len();
        out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
        // The room is exactly what the encoding takes.
        let _ = base64::engine::general_purpose::STANDARD.encode_slice(bytes, &mut out[start..]);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_json_binary(bytes, &mut out).expect("well formed");
        String::from_utf8(out).expect("UTF-8")
    }

    fn double(number: f64) -> String {
        text(&[&[tag::DOUBLE], &number.to_le_bytes()[..]].concat())
    }

    #[test]
    fn doubles_are_written_as_the_server_writes_them() {
        // Answers of MySQL 9.7 and 8.0.
        for (number, written) in [
            (1e20, "1e20"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-7, "0.0000001"),
            (123_456_789_012_345_680_000.0, "1.2345678901234568e20"),
            (-0.0, "-0.0"),
            (0.0, "0.0"),
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (123_456_789_012_345.0, "123456789012345.0"),
            (1_039_419_587_921_041.9, "1039419587921041.9"),
            (1_234_567_890_123_456.0, "1.234567890123456e15"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.5e-15, "0.0000000000000015"),
            (5e-324, "5e-324"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e308"),
            (-12.5, "-12.5"),
            (100.0, "100.0"),
        ] {
            assert_eq!(double(number), written);
        }
    }

    #[test]
    fn small_and_inlined_values_of_an_object_are_found() {
        // {"a": 1, "bb": "x"}: two entries of keys, two of values, the keys, the string.
        let body = [
            2,
            0,
            24,
            0, // count, size
            18,
            0,
            1,
            0,
            19,
            0,
            2,
            0, // keys
            tag::INT16,
            1,
            0,
            tag::STRING,
            21,
            0, // values
            b'a',
            b'b',
            b'b',
            1,
            b'x',
            0,
        ];
        assert_eq!(text(&[&[tag::SMALL_OBJECT], &body[..]].concat()), r#"{"a":1,"bb":"x"}"#);
    }

    #[test]
    fn an_empty_value_is_null() {
        assert_eq!(text(&[]), "null");
    }

    #[test]
    fn values_that_overlap_do_not_multiply() {
        // Each of 60 arrays holds 20 times the next one.
        let mut bytes = vec![tag::SMALL_ARRAY];
        let body_len = 4 + 20 * 3;
        for level in 0..60_usize {
            let next = (body_len) as u16;
            let size = (body_len * (60 - level)) as u16;
            bytes.extend_from_slice(&20_u16.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            for _ in 0..20 {
                bytes.push(tag::SMALL_ARRAY);
                bytes.extend_from_slice(&next.to_le_bytes());
            }
        }
        let mut out = b"kept".to_vec();
        assert!(write_json_binary(&bytes, &mut out).is_err());
        assert_eq!(out, b"kept");
    }

    #[test]
    fn nesting_that_points_to_itself_ends() {
        // An array whose only value is itself.
        let bytes = [tag::SMALL_ARRAY, 1, 0, 7, 0, tag::SMALL_ARRAY, 0, 0];
        assert!(write_json_binary(&bytes, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..16) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let mut out = Vec::new();
            if write_json_binary(&bytes, &mut out).is_ok() {
                prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&out).is_ok());
            }
        }

        #[test]
        fn doubles_read_back_the_same(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            prop_assert_eq!(double(number).parse::<f64>().expect("a number").to_bits(), number.to_bits());
        }
    }
}
