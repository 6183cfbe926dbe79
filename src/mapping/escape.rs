//! JSON strings: UTF-8 is checked, and what must be escaped is escaped as MySQL's own JSON text does it, so that a
//! string inside a JSON column and the same string in a text column are the same bytes. Knows no columns.

use crate::error::{Error, ErrorKind, Result};

/// Writes `text` as a JSON string with its quotes.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    check_utf8(text)?;
    out.reserve(text.len() + 2);
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
    Ok(())
}

/// The text as `str`, if it is UTF-8.
pub(super) fn check_utf8(text: &[u8]) -> Result<&str> {
    simdutf8::basic::from_utf8(text).map_err(|_| {
        Error::new(ErrorKind::DocumentRefused, "its bytes are not valid UTF-8")
            .with_advice("mend the row: the value does not agree with the column's character set")
    })
}

/// Appends `text` with its escapes.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = first_special(rest) {
        out.extend_from_slice(&rest[..at]);
        write_escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Makes a JSON string of all that stands in `out` from `start` on, which is valid JSON: so only quotes and backslashes
/// must be escaped. In place, because the text may be long.
pub(super) fn quote_json(start: usize, out: &mut Vec<u8>) {
    let needs_escape = |byte: &u8| matches!(byte, b'"' | b'\\');
    let escapes = out.iter().skip(start).filter(|byte| needs_escape(byte)).count();
    let mut from = out.len();
    out.resize(from + escapes + 2, b'"');
    let mut to = out.len() - 1;
    while from > start {
        from -= 1;
        to -= 1;
        out[to] = out[from];
        if needs_escape(&out[to]) {
            to -= 1;
            out[to] = b'\\';
        }
    }
    out[start] = b'"';
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Where the first byte stands that a JSON string cannot hold as it is. Eight bytes at a time: text of natural language
/// hardly has any.
fn first_special(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let special = specials(u64::from_le_bytes(*word));
        if special != 0 {
            return Some(at * 8 + special.trailing_zeros() as usize / 8);
        }
    }
    let is_special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    tail.iter().position(is_special).map(|at| words.len() * 8 + at)
}

/// Marks the bytes below 0x20, `"` and `\` by their highest bit. The subtractions can carry a false mark only above a
/// true one, so the lowest mark is always right.
fn specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write_string(text.as_bytes(), &mut out).expect("a &str is UTF-8");
        String::from_utf8(out).expect("escapes are ASCII")
    }

    #[test]
    fn control_characters_are_escaped_as_mysql_does() {
        let text = "\u{8}\t\n\u{c}\r\"\\/\u{0}\u{1f}\u{7f}é漢😀";
        assert_eq!(written(text), "\"\\b\\t\\n\\f\\r\\\"\\\\/\\u0000\\u001f\u{7f}é漢😀\"");
    }

    #[test]
    fn what_is_not_utf8_is_refused_without_its_bytes() {
        let error = write_string(b"caf\xe9", &mut Vec::new()).expect_err("it is Latin-1");
        assert_eq!(error.kind(), ErrorKind::DocumentRefused);
        assert!(!error.report().contains("caf"));
    }

    proptest! {
        #[test]
        fn a_string_reads_back_as_itself(text in "(\\PC|[\\x00-\\x22]|\\\\){0,40}") {
            let back: String = serde_json::from_str(&written(&text)).expect("it is JSON");
            prop_assert_eq!(back, text);
        }

        #[test]
        fn json_becomes_a_string_in_place(text in "(\\PC|[\\x00-\\x22]|\\\\){0,40}") {
            let json = written(&text);
            let mut out = [b"before ", json.as_bytes()].concat();
            quote_json(7, &mut out);
            let expected = serde_json::to_string(&json).expect("a string");
            prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), format!("before {expected}"));
        }

        #[test]
        fn the_scan_by_words_finds_what_a_scan_by_bytes_finds(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let by_bytes = bytes.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(first_special(&bytes), by_bytes);
        }
    }
}
