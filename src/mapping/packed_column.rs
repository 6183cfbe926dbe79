//! Values of columns that MariaDB stores compressed, which the log has as they are stored. Knows no columns.

use std::io::Read as _;

use flate2::bufread::{DeflateDecoder, ZlibDecoder};

use crate::error::{Error, ErrorKind, Result};

/// Of the first byte: the method, whether zlib's own frame is left out, and how many bytes of length follow.
const METHOD: u8 = 0xf0;
const IS_FRAMELESS: u8 = 0x08;
const LENGTH_BYTES: u8 = 0x07;

const AS_IT_IS: u8 = 0x00;
const ZLIB: u8 = 0x80;

/// The server's own bound of a value.
const VALUE_BYTES_MAX: u64 = 1 << 30;

/// Room that is made before anything is unpacked; more is only made as bytes come.
const FIRST_ROOM_PER_BYTE: u64 = 4;

/// The value as it was before it was compressed. One that is empty has no bytes at all.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let Some((first, rest)) = packed.split_first() else { return Ok(Vec::new()) };
    match first & METHOD {
        AS_IT_IS => Ok(rest.to_vec()),
        ZLIB => {
            let length_len = usize::from(first & LENGTH_BYTES);
            let (length, rest) = rest.split_at_checked(length_len).ok_or_else(other_length)?;
            let length = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
            if length > VALUE_BYTES_MAX {
                return Err(other_length());
            }
            let room = (rest.len() as u64).saturating_mul(FIRST_ROOM_PER_BYTE).min(length);
            let mut value = Vec::with_capacity(room as usize);
            // One byte more than it should be is enough to know that it lies.
            let read = match first & IS_FRAMELESS {
                0 => ZlibDecoder::new(rest).take(length + 1).read_to_end(&mut value),
                _ => DeflateDecoder::new(rest).take(length + 1).read_to_end(&mut value),
            };
            read.map_err(|cause| {
                Error::new(ErrorKind::Undecodable, "cannot unpack a compressed value")
                    .caused_by(cause)
            })?;
            if value.len() as u64 != length {
                return Err(other_length());
            }
            Ok(value)
        }
        _ => {
            let what = format!("it is compressed in a way that is not known ({first:#04x})");
            Err(Error::new(ErrorKind::Unsupported, what))
        }
    }
}

#[cold]
fn other_length() -> Error {
    Error::new(ErrorKind::Undecodable, "a compressed value has another length than it says")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of MariaDB 11.8: 'hello', REPEAT('abc', 90), REPEAT('x', 200) and ''.
    #[test]
    fn values_are_as_they_were_before() {
        let long = [0x8a, 1, 0x0e, 0x4b, 0x4c, 0x4a, 0x4e, 0x1c, 0x45, 0x30, 4, 0];
        assert_eq!(unpack(b"\0hello").expect("one"), b"hello");
        assert_eq!(unpack(&long).expect("one"), b"abc".repeat(90));
        let short = [0x89, 0xc8, 0xab, 0xa8, 0x18, 0x1e, 0, 0];
        assert_eq!(unpack(&short).expect("one"), b"x".repeat(200));
        assert_eq!(unpack(b"").expect("one"), b"");
    }

    #[test]
    fn a_value_that_lies_is_an_error_and_takes_no_memory() {
        let short = [0x89, 0xc8, 0xab, 0xa8, 0x18, 0x1e, 0, 0];
        for (at, byte) in [(0, 0x81), (0, 0x90), (1, 0xc7), (1, 0xc9), (3, 0)] {
            let mut other = short;
            other[at] = byte;
            assert!(unpack(&other).is_err(), "{at} {byte:#x}");
        }
        for end in 1..short.len() - 1 {
            assert!(unpack(&short[..end]).is_err(), "cut at {end}");
        }
        let huge = [&[0x8c, 0x3f, 0xff, 0xff, 0xff][..], &short[2..]].concat();
        let info = allocation_counter::measure(|| assert!(unpack(&huge).is_err()));
        assert!(info.bytes_max < 100_000, "{} bytes", info.bytes_max);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(first in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = unpack(&[&[first], &rest[..]].concat());
        }
    }
}
