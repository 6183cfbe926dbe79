//! Integers and strings of the protocol, read from the front of a packet and written to the end of one. Knows no packet.

use crate::error::{Error, ErrorKind, Result};

/// Reads little-endian integers and slices from the front of `rest`.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(packet: &'a [u8]) -> Self {
        Self { rest: packet }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn uint(&mut self, width: usize) -> Result<u64> {
        let bytes = self.bytes(width)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Up to a zero byte, which is taken too; the whole rest where there is none.
    pub fn until_zero(&mut self) -> &'a [u8] {
        let end = memchr::memchr(0, self.rest);
        let (text, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        text
    }

    /// A length-encoded integer; None for the marker of NULL.
    pub fn lenenc(&mut self) -> Result<Option<u64>> {
        match self.uint(1)? {
            0xfb => Ok(None),
            0xfc => self.uint(2).map(Some),
            0xfd => self.uint(3).map(Some),
            0xfe => self.uint(8).map(Some),
            0xff => Err(Error::new(
                ErrorKind::SourceUnreachable,
                "the source's answer has an impossible length",
            )),
            short => Ok(Some(short)),
        }
    }

    /// As many bytes as the length-encoded integer before them says; None for NULL.
    pub fn lenenc_bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match self.lenenc()? {
            None => Ok(None),
            Some(count) => self.bytes(usize::try_from(count).map_err(|_| ends_early())?).map(Some),
        }
    }
}

/// Appends `bytes` behind their length.
pub fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = (bytes.len() as u64).to_le_bytes();
    match bytes.len() {
        0..=0xfa => out.push(length[0]),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&length[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&length[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&length);
        }
    }
    out.extend_from_slice(bytes);
}

#[cold]
fn ends_early() -> Error {
    Error::new(ErrorKind::SourceUnreachable, "the source's answer ends early")
        .with_advice("see that host and port are those of a MySQL server")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_of_any_length_come_back(length in prop_oneof![0usize..600, 65_500usize..65_600, Just(1 << 24)]) {
            let bytes = vec![7; length];
            let mut out = Vec::new();
            put_lenenc_bytes(&mut out, &bytes);
            let mut fields = Fields::new(&out);
            prop_assert_eq!(fields.lenenc_bytes().expect("whole"), Some(&bytes[..]));
            prop_assert!(fields.is_empty());
            prop_assert!(Fields::new(&out[..out.len() - 1]).lenenc_bytes().is_err() || length == 0);
        }
    }

    #[test]
    fn null_is_not_a_length() {
        assert_eq!(Fields::new(&[0xfb]).lenenc_bytes().expect("whole"), None);
        assert!(Fields::new(&[0xff]).lenenc().is_err());
    }
}
