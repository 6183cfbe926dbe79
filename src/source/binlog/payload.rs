//! Transaction payloads: a whole transaction in one event, mostly compressed by zstd. Unpacked as a stream, so that
//! what is held is one inner event, not the transaction. Knows nothing of what the inner events say.

use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use crate::error::{Error, ErrorKind, Result};

use super::cursor::Cursor;
use super::header::HEADER_LEN;

/// What is asked of the decompressor at once.
const STEP_BYTES: usize = 128 << 10;
/// The buffer is given back before the next payload if one event made it larger than this.
const KEPT_BYTES: usize = 4 << 20;

const ZSTD: u64 = 0;
const NONE: u64 = 255;

/// A payload, still packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    compressed: bool,
    /// Bytes of all inner events together, as the event claims.
    pub unpacked_bytes: u64,
    bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Fields of type, length and value; 0 ends them, 1 is the payload's size, 2 the algorithm, 3 the size unpacked.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(data);
        let (mut size, mut algorithm, mut unpacked) = (None, ZSTD, None);
        loop {
            let field = cursor.lenenc()?;
            if field == 0 {
                break;
            }
            let mut value = Cursor::new(cursor.lenenc_bytes()?);
            match field {
                1 => size = Some(value.lenenc()?),
                2 => algorithm = value.lenenc()?,
                3 => unpacked = Some(value.lenenc()?),
                _ => (),
            }
        }
        let size = size.unwrap_or(cursor.rest().len() as u64);
        let bytes = cursor.bytes(usize::try_from(size).unwrap_or(usize::MAX))?;
        let compressed = match algorithm {
            ZSTD => true,
            NONE => false,
            other => {
                let message = format!(
                    "a transaction is compressed by an algorithm that is not known ({other})"
                );
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        Ok(Self { compressed, unpacked_bytes: unpacked.unwrap_or(size), bytes })
    }
}

/// Unpacks payloads, one after the other, keeping its decompressor and its buffer.
pub struct Inflater {
    decoder: Decoder<'static>,
    buffer: Vec<u8>,
    max_event_bytes: usize,
}

impl Inflater {
    /// An inner event larger than `max_event_bytes` is an error.
    pub fn new(max_event_bytes: usize) -> Result<Self> {
        let decoder = Decoder::new().map_err(broken)?;
        Ok(Self { decoder, buffer: Vec::new(), max_event_bytes })
    }

    /// Begins a payload; what was left of the one before is forgotten.
    pub fn open<'i, 'p>(&'i mut self, payload: &Payload<'p>) -> Result<InnerEvents<'i, 'p>> {
        self.decoder.reinit().map_err(broken)?;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        Ok(InnerEvents { inflater: self, payload: *payload, read: 0, at: 0, delivered: 0 })
    }
}

/// The events of one payload, lent one at a time.
pub struct InnerEvents<'i, 'p> {
    inflater: &'i mut Inflater,
    payload: Payload<'p>,
    /// Packed bytes taken so far.
    read: usize,
    /// Where the next event begins in the buffer.
    at: usize,
    /// Unpacked bytes given out so far.
    delivered: u64,
}

impl InnerEvents<'_, '_> {
    /// The next inner event, for [`super::FormatDescription::read_inner`]; it is gone with the next call.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend from itself")]
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        if !self.fill(HEADER_LEN)? {
            let whole = self.inflater.buffer.len() == self.at
                && self.delivered == self.payload.unpacked_bytes;
            return if whole { Ok(None) } else { Err(cut_off()) };
        }
        let mut size = Cursor::new(self.inflater.buffer.get(self.at + 9..).unwrap_or_default());
        let size = size.u32()? as usize;
        if size < HEADER_LEN {
            return Err(cut_off());
        }
        if size > self.inflater.max_event_bytes {
            let limit = self.inflater.max_event_bytes;
            let message = format!("an event of {size} bytes is over the limit of {limit} bytes");
            return Err(Error::new(ErrorKind::Undecodable, message));
        }
        if !self.fill(size)? {
            return Err(cut_off());
        }
        let event = self.at..self.at + size;
        self.at = event.end;
        self.delivered += size as u64;
        self.inflater.buffer.get(event).ok_or_else(cut_off).map(Some)
    }

    /// Unpacks until `wanted` bytes stand behind `at`; false where the payload ends before that.
    fn fill(&mut self, wanted: usize) -> Result<bool> {
        while self.inflater.buffer.len() - self.at < wanted {
            if self.read == self.payload.bytes.len() && !self.step()? {
                return Ok(false);
            }
            if self.read < self.payload.bytes.len() {
                self.step()?;
            }
        }
        Ok(true)
    }

    /// One step of the decompressor; whether anything came out of it.
    fn step(&mut self) -> Result<bool> {
        let Inflater { decoder, buffer, .. } = &mut *self.inflater;
        buffer.drain(..self.at);
        self.at = 0;
        let rest = self.payload.bytes.get(self.read..).unwrap_or_default();
        if !self.payload.compressed {
            let taken = &rest[..rest.len().min(STEP_BYTES)];
            buffer.extend_from_slice(taken);
            self.read += taken.len();
            return Ok(!taken.is_empty());
        }
        let before = buffer.len();
        buffer.reserve(STEP_BYTES);
        let mut input = InBuffer::around(rest);
        let mut output = OutBuffer::around_pos(buffer, before);
        decoder.run(&mut input, &mut output).map_err(broken)?;
        let (taken, produced) = (input.pos, output.pos() - before);
        self.read += taken;
        if taken == 0 && produced == 0 && !rest.is_empty() {
            return Err(cut_off());
        }
        Ok(produced > 0)
    }
}

fn broken(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Undecodable, "cannot unpack a compressed transaction").caused_by(cause)
}

fn cut_off() -> Error {
    Error::new(
        ErrorKind::Undecodable,
        "a packed transaction does not hold the events that it says it has",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something with a header's length field, filled up to `size`.
    fn event(size: usize, fill: u8) -> Vec<u8> {
        let mut event = vec![fill; size];
        event[9..13].copy_from_slice(&(size as u32).to_le_bytes());
        event
    }

    fn packed(events: &[Vec<u8>]) -> (Vec<u8>, u64) {
        let plain = events.concat();
        (zstd::bulk::compress(&plain, 3).expect("compresses"), plain.len() as u64)
    }

    fn unpack(inflater: &mut Inflater, payload: &Payload<'_>) -> Result<Vec<Vec<u8>>> {
        let mut events = Vec::new();
        let mut inner = inflater.open(payload)?;
        while let Some(event) = inner.next()? {
            events.push(event.to_vec());
        }
        Ok(events)
    }

    #[test]
    fn events_of_any_size_come_out_as_they_went_in() {
        let events = vec![event(19, 1), event(500_000, 2), event(40, 3), event(131_072, 4)];
        let (bytes, unpacked_bytes) = packed(&events);
        let mut inflater = Inflater::new(1 << 20).expect("starts");
        for _ in 0..2 {
            let payload = Payload { compressed: true, unpacked_bytes, bytes: &bytes };
            assert_eq!(unpack(&mut inflater, &payload).expect("unpacks"), events);
        }
        let plain = events.concat();
        let payload = Payload { compressed: false, unpacked_bytes, bytes: &plain };
        assert_eq!(unpack(&mut inflater, &payload).expect("unpacks"), events);
    }

    #[test]
    fn a_payload_that_is_cut_or_damaged_is_an_error_and_never_an_empty_transaction() {
        let (bytes, unpacked_bytes) = packed(&[event(19, 1), event(5_000, 2)]);
        let mut inflater = Inflater::new(1 << 20).expect("starts");
        for end in 0..bytes.len() {
            let payload = Payload { compressed: true, unpacked_bytes, bytes: &bytes[..end] };
            assert!(unpack(&mut inflater, &payload).is_err(), "cut at {end}");
        }
        let payload =
            Payload { compressed: true, unpacked_bytes: unpacked_bytes + 1, bytes: &bytes };
        assert!(unpack(&mut inflater, &payload).is_err());
    }

    #[test]
    fn an_event_over_the_limit_is_refused() {
        let (bytes, unpacked_bytes) = packed(&[event(5_000, 2)]);
        let mut inflater = Inflater::new(4_999).expect("starts");
        let payload = Payload { compressed: true, unpacked_bytes, bytes: &bytes };
        assert!(unpack(&mut inflater, &payload).is_err());
    }
}
