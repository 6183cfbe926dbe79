//! A bounded reader over borrowed bytes: every read either has its bytes or is an error. Knows no event.

use crate::error::{Error, ErrorKind, Result};

/// Reads little-endian integers and slices from the front of `rest`.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned integer of `width` bytes, at most eight.
    pub fn uint(&mut self, width: usize) -> Result<u64> {
        let bytes = self.bytes(width)?;
        let mut wide = [0; 8];
        wide.get_mut(..width).ok_or_else(ends_early)?.copy_from_slice(bytes);
        Ok(u64::from_le_bytes(wide))
    }

    /// The protocol's length-encoded integer.
    pub fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            short @ 0..=0xfa => Ok(u64::from(short)),
            0xfc => self.uint(2),
            0xfd => self.uint(3),
            0xfe => self.uint(8),
            _ => Err(Error::new(ErrorKind::Undecodable, "a length begins with an impossible byte")),
        }
    }

    /// As many bytes as the length-encoded integer before them says.
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.lenenc()?;
        self.bytes(usize::try_from(count).map_err(|_| ends_early())?)
    }

    /// The server's serialisation library's integer: as many low one-bits in the first byte as there are further
    /// bytes, the value in what remains.
    pub fn varint(&mut self) -> Result<u64> {
        let first = *self.rest.first().ok_or_else(ends_early)?;
        let extra = first.trailing_ones() as usize;
        if extra == 8 {
            self.u8()?;
            return self.u64();
        }
        Ok(self.uint(extra + 1)? >> (extra + 1))
    }

    /// The same for signed integers: the lowest bit of the value is its sign.
    pub fn varint_signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        let magnitude = (value >> 1) as i64;
        Ok(if value & 1 == 1 { !magnitude } else { magnitude })
    }
}

#[cold]
pub fn ends_early() -> Error {
    Error::new(ErrorKind::Undecodable, "the bytes end before the event does")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_all_widths_are_read() {
        let bytes = [0xfa, 0xfc, 1, 2, 0xfd, 1, 2, 3, 0xfe, 1, 0, 0, 0, 0, 0, 0, 1, 0xff];
        let mut cursor = Cursor::new(&bytes);
        let mut next = || cursor.lenenc();
        assert_eq!(next().expect("one byte"), 0xfa);
        assert_eq!(next().expect("two bytes"), 0x201);
        assert_eq!(next().expect("three bytes"), 0x3_0201);
        assert_eq!(next().expect("eight bytes"), 0x0100_0000_0000_0001);
        assert!(next().is_err());
    }

    #[test]
    fn variable_integers_count_their_bytes_by_low_ones() {
        assert_eq!(Cursor::new(&[0x04]).varint().expect("one byte"), 2);
        assert_eq!(Cursor::new(&[0b0000_0001, 0x02]).varint().expect("two bytes"), 128);
        let widest = [0xff, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(Cursor::new(&widest).varint().expect("nine bytes"), 0x0807_0605_0403_0201);
        assert_eq!(Cursor::new(&[0b0000_0110]).varint_signed().expect("negative"), -2);
        assert!(Cursor::new(&[0x01]).varint().is_err());
    }
}
