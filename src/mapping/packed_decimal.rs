//! DECIMAL as the server packs it, to its digits. Knows nothing of JSON or of where the bytes came from.
//!
//! Nine digits stand in four bytes, big-endian, from the point outwards; what is left over at either end takes as few
//! bytes as its digits need. The highest bit is inverted, and all bits are for a negative number, so that bytes sort as
//! the numbers do.

use crate::error::{Error, ErrorKind, Result};

const DIGITS_PER_GROUP: usize = 9;
/// Bytes of a group by its number of digits.
const GROUP_BYTES: [usize; DIGITS_PER_GROUP + 1] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// The server's limits.
const MAX_PRECISION: u8 = 65;
const MAX_SCALE: u8 = 30;

/// Appends the number with exactly `scale` digits behind the point, and no leading zero but the one before the point.
/// On an error `out` is as it was.
pub fn write_packed_decimal(
    bytes: &[u8],
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<()> {
    if precision == 0 || precision > MAX_PRECISION || scale > MAX_SCALE || scale > precision {
        return Err(impossible());
    }
    let (whole, fraction) = (usize::from(precision - scale), usize::from(scale));
    let (whole_bytes, fraction_bytes) = (side_bytes(whole), side_bytes(fraction));
    if bytes.len() != whole_bytes + fraction_bytes {
        return Err(impossible());
    }
    let negative = bytes.first().is_some_and(|first| first & 0x80 == 0);
    let mask = if negative { 0xff } else { 0 };
    let begun_at = out.len();
    if negative {
        out.push(b'-');
    }
    let digits_at = out.len();
    let (left, right) = bytes.split_at(whole_bytes);
    let written = write_whole(left, whole, mask, out).and_then(|()| {
        drop_leading_zeros(out, digits_at);
        if fraction > 0 {
            out.push(b'.');
        }
        // The sign's bit stands in the first byte, which is the fraction's where there is no whole part.
        let flip = if whole_bytes == 0 { 0x80 } else { 0 };
        write_fraction(right, fraction, mask, flip, out)
    });
    if written.is_none() {
        out.truncate(begun_at);
        return Err(impossible());
    }
    Ok(())
}

fn side_bytes(digits: usize) -> usize {
    digits / DIGITS_PER_GROUP * 4 + GROUP_BYTES[digits % DIGITS_PER_GROUP]
}

/// The short group comes first.
fn write_whole(mut bytes: &[u8], digits: usize, mask: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut flip = 0x80;
    let mut write = |bytes: &mut &[u8], digits: usize, out: &mut Vec<u8>| {
        let (group, rest) = bytes.split_at_checked(GROUP_BYTES[digits])?;
        *bytes = rest;
        write_group(group, digits, mask, std::mem::take(&mut flip), out)
    };
    if !digits.is_multiple_of(DIGITS_PER_GROUP) {
        write(&mut bytes, digits % DIGITS_PER_GROUP, out)?;
    }
    for _ in 0..digits / DIGITS_PER_GROUP {
        write(&mut bytes, DIGITS_PER_GROUP, out)?;
    }
    Some(())
}

/// The short group comes last.
fn write_fraction(
    mut bytes: &[u8],
    digits: usize,
    mask: u8,
    mut flip: u8,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut left = digits;
    while left > 0 {
        let digits = left.min(DIGITS_PER_GROUP);
        let (group, rest) = bytes.split_at_checked(GROUP_BYTES[digits])?;
        write_group(group, digits, mask, std::mem::take(&mut flip), out)?;
        bytes = rest;
        left -= digits;
    }
    Some(())
}

/// One group with exactly `digits` digits; None where it has more.
fn write_group(bytes: &[u8], digits: usize, mask: u8, flip: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut value = 0_u32;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = byte ^ mask ^ if at == 0 { flip } else { 0 };
        value = value << 8 | u32::from(byte);
    }
    let start = out.len();
    out.resize(start + digits, b'0');
    for place in out[start..].iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
    (value == 0).then_some(())
}

fn drop_leading_zeros(out: &mut Vec<u8>, from: usize) {
    let zeros = out[from..].iter().take_while(|digit| **digit == b'0').count();
    let is_all = from + zeros == out.len();
    out.drain(from..from + zeros);
    if is_all {
        out.push(b'0');
    }
}

#[cold]
fn impossible() -> Error {
    Error::new(ErrorKind::Undecodable, "its bytes are no DECIMAL of its precision and scale")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8], precision: u8, scale: u8) -> String {
        let mut out = Vec::new();
        write_packed_decimal(bytes, precision, scale, &mut out).expect("well formed");
        String::from_utf8(out).expect("digits")
    }

    /// Packs as the server does.
    fn packed(negative: bool, whole: &str, fraction: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let group = |digits: &str, bytes: &mut Vec<u8>| {
            let value: u32 = digits.parse().expect("digits");
            bytes.extend_from_slice(&value.to_be_bytes()[4 - GROUP_BYTES[digits.len()]..]);
        };
        let (short, full) = whole.split_at(whole.len() % 9);
        for part in std::iter::once(short)
            .chain(full.as_bytes().chunks(9).map(|c| str::from_utf8(c).expect("ascii")))
        {
            if !part.is_empty() {
                group(part, &mut bytes);
            }
        }
        for part in fraction.as_bytes().chunks(9) {
            group(str::from_utf8(part).expect("ascii"), &mut bytes);
        }
        bytes[0] ^= 0x80;
        if negative {
            bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
        }
        bytes
    }

    #[test]
    fn examples_of_the_manual_are_read() {
        // 1234567890.1234 and its negative as DECIMAL(14,4).
        assert_eq!(text(&[0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2], 14, 4), "1234567890.1234");
        assert_eq!(text(&[0x7e, 0xf2, 0x04, 0xc7, 0x2d, 0xfb, 0x2d], 14, 4), "-1234567890.1234");
    }

    #[test]
    fn zero_and_bare_fractions_have_a_digit_before_the_point() {
        assert_eq!(text(&packed(false, "000", "00"), 5, 2), "0.00");
        assert_eq!(text(&packed(true, "", "05"), 2, 2), "-0.05");
        assert_eq!(text(&packed(false, "0", ""), 1, 0), "0");
    }

    #[test]
    fn impossible_bytes_leave_the_output_as_it_was() {
        let mut out = b"kept".to_vec();
        for (bytes, precision, scale) in
            [(&[0x80][..], 5, 2), (&[0xff, 0xff], 3, 1), (&[], 0, 0), (&[0x80; 40], 99, 40)]
        {
            assert!(write_packed_decimal(bytes, precision, scale, &mut out).is_err());
        }
        assert_eq!(out, b"kept");
    }

    proptest! {
        #[test]
        fn digits_come_back_as_they_were_packed(
            negative in any::<bool>(),
            whole in "[0-9]{0,35}",
            fraction in "[0-9]{0,30}",
        ) {
            prop_assume!(!whole.is_empty() || !fraction.is_empty());
            let (precision, scale) = ((whole.len() + fraction.len()) as u8, fraction.len() as u8);
            let shown = text(&packed(negative, &whole, &fraction), precision, scale);
            let trimmed = whole.trim_start_matches('0');
            let sign = if negative { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            let head = if trimmed.is_empty() { "0" } else { trimmed };
            prop_assert_eq!(shown, format!("{sign}{head}{point}{fraction}"));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), precision: u8, scale: u8) {
            let _ = write_packed_decimal(&bytes, precision, scale, &mut Vec::new());
        }
    }
}
