//! Packets: four bytes of length and number, then up to 16 MiB − 1; a full one is continued by the next. Pure; knows
//! nothing of sockets or of what packets say.
//!
//! One buffer per connection; a packet is split off it without a copy. Only a message of several packets is copied
//! together, because their heads stand between. Memory grows with what came, never with what a length claims: at most
//! one packet's length is reserved ahead, and a message of several takes no more than its own bytes. One that nobody
//! wants is thrown away packet by packet, but for its beginning.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};

/// The length that says that the message goes on in the next packet.
const FULL: usize = 0xff_ffff;
/// Bytes before each packet.
pub const HEAD: usize = 4;
/// What is asked of the socket at once: large, so that a busy log costs few system calls.
pub const READ_BYTES: usize = 512 << 10;
/// Below this much room the buffer is renewed before a read.
const LEAST_ROOM_BYTES: usize = 64 << 10;

/// What is kept of a message of several packets that nobody wants.
const KEPT_BYTES: usize = 64;

/// A message, or the beginning of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub bytes: Bytes,
    /// Bytes that came behind them and were thrown away.
    pub thrown_away: usize,
}

/// Whether a message of several packets, which begins so, is wanted whole.
pub type Wanted<'w> = &'w (dyn Fn(&[u8]) -> bool + Send + Sync);

/// Bytes that came, and messages out of them.
#[derive(Debug, Default)]
pub struct Joiner {
    buffer: BytesMut,
    /// The packets so far of a message of several; if it is not wanted, its beginning.
    joined: Vec<u8>,
    /// Bytes of it that were thrown away.
    thrown_away: usize,
}

impl Joiner {
    /// Where what came is put behind what is there.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether nothing came that was not taken.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.joined.is_empty()
    }

    /// The next message and its last packet's number, if it is there whole.
    pub fn take(&mut self, max_bytes: usize, wanted: Wanted<'_>) -> Result<Option<(Message, u8)>> {
        while let Some((length, sequence)) = head(&self.buffer) {
            if self.joined.len() + self.thrown_away + length > max_bytes {
                let message = format!("the source sent a message of more than {max_bytes} bytes");
                return Err(Error::new(ErrorKind::Undecodable, message));
            }
            if self.buffer.len() < HEAD + length {
                return Ok(None);
            }
            self.buffer.advance(HEAD);
            let packet = self.buffer.split_to(length);
            if length < FULL && self.joined.is_empty() {
                return Ok(Some((Message { bytes: packet.freeze(), thrown_away: 0 }, sequence)));
            }
            self.join(&packet, wanted);
            if length < FULL {
                let bytes = Bytes::from(std::mem::take(&mut self.joined));
                let thrown_away = std::mem::take(&mut self.thrown_away);
                return Ok(Some((Message { bytes, thrown_away }, sequence)));
            }
        }
        Ok(None)
    }

    fn join(&mut self, packet: &[u8], wanted: Wanted<'_>) {
        let is_kept = match self.joined.is_empty() {
            true => wanted(packet),
            false => self.thrown_away == 0,
        };
        let kept = match is_kept {
            true => packet,
            false if self.joined.is_empty() => &packet[..packet.len().min(KEPT_BYTES)],
            false => &[],
        };
        self.thrown_away += packet.len() - kept.len();
        // Not doubled: the message may be a gibibyte.
        self.joined.reserve_exact(kept.len());
        self.joined.extend_from_slice(kept);
    }

    /// Whether [`Self::take`] has one to give.
    pub fn has_message(&self) -> bool {
        let mut rest = &self.buffer[..];
        while let Some((length, _)) = head(rest) {
            let Some(behind) = rest.get(HEAD + length..) else { return false };
            if length < FULL {
                return true;
            }
            rest = behind;
        }
        false
    }

    /// Before more is read.
    pub fn make_room(&mut self) {
        let missing = head(&self.buffer)
            .map_or(0, |(length, _)| (HEAD + length).saturating_sub(self.buffer.len()));
        let room = self.buffer.capacity() - self.buffer.len();
        if room < LEAST_ROOM_BYTES.max(missing) {
            self.buffer.reserve(READ_BYTES.max(missing));
        }
    }
}

fn head(bytes: &[u8]) -> Option<(usize, u8)> {
    let &[a, b, c, sequence] = bytes.first_chunk::<HEAD>()?;
    Some((u32::from_le_bytes([a, b, c, 0]) as usize, sequence))
}

/// Appends `message` as packets from number `sequence` on; the number behind the last.
pub fn frame(message: &[u8], mut sequence: u8, out: &mut Vec<u8>) -> u8 {
    let mut rest = message;
    loop {
        let (packet, behind) = rest.split_at(rest.len().min(FULL));
        out.extend_from_slice(&(packet.len() as u32).to_le_bytes()[..3]);
        out.push(sequence);
        out.extend_from_slice(packet);
        sequence = sequence.wrapping_add(1);
        rest = behind;
        if packet.len() < FULL {
            return sequence;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NO_LIMIT: usize = usize::MAX >> 1;

    /// What comes out when `wire` comes in pieces of `piece` bytes.
    fn received(wire: &[u8], piece: usize) -> Vec<Bytes> {
        let mut joiner = Joiner::default();
        let mut messages = Vec::new();
        for part in wire.chunks(piece) {
            joiner.make_room();
            joiner.buffer.extend_from_slice(part);
            loop {
                let promised = joiner.has_message();
                let Some((message, _)) = joiner.take(NO_LIMIT, &|_| true).expect("well formed")
                else {
                    assert!(!promised);
                    break;
                };
                assert!(promised);
                messages.push(message.bytes);
            }
        }
        messages
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut_of_the_wire(
            sizes in prop::collection::vec(0usize..2_000, 0..20),
            piece in 1usize..5_000,
        ) {
            let sent: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(at, size)| vec![at as u8; *size]).collect();
            let mut wire = Vec::new();
            for message in &sent {
                frame(message, 0, &mut wire);
            }
            prop_assert_eq!(received(&wire, piece), sent);
        }
    }

    #[test]
    fn messages_of_sixteen_mebibytes_and_around_are_joined() {
        for size in [FULL - 1, FULL, FULL + 1, 2 * FULL, 2 * FULL + 5] {
            let sent = [vec![1; size], vec![2; 3]];
            let mut wire = Vec::new();
            assert_eq!(frame(&sent[0], 0, &mut wire) as usize, size / FULL + 1);
            frame(&sent[1], 0, &mut wire);
            assert_eq!(received(&wire, 1 << 20), sent, "{size}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_read() {
        let mut joiner = Joiner::default();
        joiner.buffer.extend_from_slice(&[0xff, 0xff, 0xff, 0]);
        assert!(joiner.take(1000, &|_| true).is_err());
    }

    #[test]
    fn a_message_that_is_not_wanted_is_counted_and_thrown_away() {
        let sent = [vec![1; 2 * FULL + 5], vec![2; 3]];
        let mut wire = Vec::new();
        frame(&sent[0], 0, &mut wire);
        frame(&sent[1], 0, &mut wire);
        let (mut joiner, mut messages) = (Joiner::default(), Vec::new());
        for part in wire.chunks(1 << 20) {
            joiner.make_room();
            joiner.buffer.extend_from_slice(part);
            while let Some((message, _)) = joiner.take(NO_LIMIT, &|_| false).expect("well formed") {
                messages.push(message);
            }
            assert!(joiner.joined.capacity() <= KEPT_BYTES);
        }
        let thrown_away = sent[0].len() - KEPT_BYTES;
        let first = Message { bytes: sent[0][..KEPT_BYTES].to_vec().into(), thrown_away };
        let second = Message { bytes: sent[1].clone().into(), thrown_away: 0 };
        assert_eq!(messages, [first, second]);
    }
}
