//! The CRC32 at the end of an event. Knows nothing of events but where their last four bytes are.

use crate::error::{Error, ErrorKind, Result};

/// Bytes of the checksum.
pub const CHECKSUM_LEN: usize = 4;

/// The event without its checksum, if the checksum is right.
pub fn verify(event: &[u8]) -> Result<&[u8]> {
    let Some((body, stored)) = event.split_last_chunk::<CHECKSUM_LEN>() else {
        return Err(damaged("an event is too short to have a checksum"));
    };
    if crc32fast::hash(body) != u32::from_le_bytes(*stored) {
        return Err(damaged(format!(
            "the checksum of an event of {} bytes (type {}) is wrong",
            event.len(),
            body.get(4).copied().unwrap_or(0)
        )));
    }
    Ok(body)
}

#[cold]
fn damaged(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Undecodable, message)
        .with_advice("the log or the way it came is damaged: check the source's log with mysqlbinlog --verify-binlog-checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let mut event = b"some bytes of an event".to_vec();
        let sum = crc32fast::hash(&event);
        event.extend_from_slice(&sum.to_le_bytes());
        assert_eq!(verify(&event).expect("it is whole").len(), event.len() - 4);
        for at in 0..event.len() {
            let mut damaged = event.clone();
            damaged[at] ^= 1;
            assert!(verify(&damaged).is_err(), "byte {at}");
        }
        assert!(verify(b"abc").is_err());
    }
}
