//! UUID, INET4 and INET6 of MariaDB as their texts, which the server shows. Knows no columns.

use std::io::Write as _;

use crate::error::{Error, ErrorKind, Result};
use crate::table::ColumnType;

/// Writes the bytes of a value of one of these types as a JSON string; the log cuts zeros at their end.
pub(super) fn write_address(bytes: &[u8], ty: &ColumnType, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'"');
    match ty {
        ColumnType::Uuid => write_uuid(&whole(bytes)?, out),
        ColumnType::Inet4 => write_inet4(whole(bytes)?, out),
        _ => write_inet6(whole(bytes)?, out),
    }
    out.push(b'"');
    Ok(())
}

fn whole<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    let mut whole = [0; N];
    let Some(begin) = whole.get_mut(..bytes.len()) else {
        return Err(Error::new(ErrorKind::Undecodable, "it has more bytes than its type"));
    };
    begin.copy_from_slice(bytes);
    Ok(whole)
}

fn write_uuid(bytes: &[u8; 16], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn write_inet4([a, b, c, d]: [u8; 4], out: &mut Vec<u8>) {
    write!(out, "{a}.{b}.{c}.{d}").expect("memory takes all");
}

/// `::` stands for the first of the longest runs of zeros, even for one of them. Behind nothing but zeros (or zeros and
/// ffff) the last four bytes are shown as an INET4.
fn write_inet6(bytes: [u8; 16], out: &mut Vec<u8>) {
    let (pairs, _) = bytes.as_chunks::<2>();
    let mut words = [0_u16; 8];
    for (word, pair) in words.iter_mut().zip(pairs) {
        *word = u16::from_be_bytes(*pair);
    }
    let (gap_at, gap_len) = longest_gap(&words);
    let is_inet4 = gap_at == 0 && (gap_len == 6 || (gap_len == 5 && words[5] == 0xffff));
    let mut at = 0;
    while at < words.len() {
        if at == gap_at && gap_len > 0 {
            out.extend_from_slice(if at == 0 { b"::" } else { b":" });
            at += gap_len;
        } else if at == 6 && is_inet4 {
            let [.., a, b, c, d] = bytes;
            return write_inet4([a, b, c, d], out);
        } else {
            write!(out, "{:x}", words[at]).expect("memory takes all");
            at += 1;
            if at < words.len() {
                out.push(b':');
            }
        }
    }
}

fn longest_gap(words: &[u16; 8]) -> (usize, usize) {
    let (mut longest, mut run) = ((0, 0), (0, 0));
    for (at, word) in words.iter().enumerate() {
        run = match (*word, run) {
            (0, (_, 0)) => (at, 1),
            (0, (begin, length)) => (begin, length + 1),
            _ => (0, 0),
        };
        if run.1 > longest.1 {
            longest = run;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], ty: &ColumnType) -> String {
        let mut out = Vec::new();
        write_address(bytes, ty, &mut out).expect("is one");
        String::from_utf8(out).expect("ASCII").trim_matches('"').to_owned()
    }

    /// Texts of MariaDB 11.8.
    #[test]
    fn addresses_are_shown_as_the_server_shows_them() {
        let words = |words: [u16; 8]| words.map(u16::to_be_bytes).concat();
        for (address, shown) in [
            ([0; 8], "::"),
            ([0, 0, 0, 0, 0, 0, 0, 1], "::1"),
            ([1, 0, 0, 0, 0, 0, 0, 0], "1::"),
            ([0, 1, 0, 0, 0, 0, 0, 0], "0:1::"),
            ([1, 2, 3, 4, 5, 6, 7, 8], "1:2:3:4:5:6:7:8"),
            ([1, 0, 0, 2, 0, 0, 0, 3], "1:0:0:2::3"),
            ([1, 0, 2, 0, 3, 0, 0, 4], "1:0:2:0:3::4"),
            ([0xff00, 0, 0, 0, 0x12, 0, 0, 1], "ff00::12:0:0:1"),
            ([0, 0, 0, 0, 0, 0xffff, 0x0102, 0x0304], "::ffff:1.2.3.4"),
            ([0, 0, 0, 0, 0, 0xffff, 0, 0], "::ffff:0.0.0.0"),
            ([0, 0, 0, 0, 0, 0, 0x0102, 0x0304], "::1.2.3.4"),
            ([0, 0, 0, 0, 0, 0, 1, 0], "::0.1.0.0"),
        ] {
            assert_eq!(text(&words(address), &ColumnType::Inet6), shown);
        }
        assert_eq!(text(&[10, 0, 0, 1], &ColumnType::Inet4), "10.0.0.1");
        assert_eq!(text(&[1], &ColumnType::Inet4), "1.0.0.0");
        let uuid = text(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x1d, 0xef], &ColumnType::Uuid);
        assert_eq!(uuid, "01234567-89ab-1def-0000-000000000000");
        assert!(write_address(&[0; 5], &ColumnType::Inet4, &mut Vec::new()).is_err());
    }
}
