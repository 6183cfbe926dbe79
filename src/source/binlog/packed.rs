//! Events of MariaDB that are compressed one by one (`log_bin_compress`): the statement or the rows are packed by zlib,
//! all before them is plain. Knows nothing of what the events say.

use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

use crate::error::{Error, ErrorKind, Result};

use super::cursor::Cursor;
use super::header::{HEADER_LEN, Header, Kind};

/// Of the byte before what is packed: packed at all, by which algorithm, and how many bytes of length follow.
const IS_PACKED: u8 = 0x80;
const ALGORITHM: u8 = 0x70;
const LENGTH_BYTES: u8 = 0x07;

/// Where the header has the event's kind and its size.
const KIND_AT: usize = 4;
const SIZE_AT: usize = 9;

/// Room that is made before anything is unpacked; more is only made as bytes come.
const FIRST_ROOM_PER_BYTE: usize = 4;

/// An event, still packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed<'a> {
    /// What it is unpacked.
    kind: Kind,
    /// The event up to what is packed.
    head: &'a [u8],
    unpacked_bytes: usize,
    packed: &'a [u8],
}

impl<'a> Packed<'a> {
    /// `bytes` are a whole event with its header and without its checksum.
    pub(super) fn parse(header: &Header, bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes.get(HEADER_LEN..).unwrap_or_default());
        let kind = match header.kind {
            Kind::QUERY_COMPRESSED => {
                skip_query(&mut cursor)?;
                Kind::QUERY
            }
            rows => {
                let (kind, has_extra) = plain_rows(rows);
                skip_rows(&mut cursor, kind, has_extra)?;
                kind
            }
        };
        let head_len = bytes.len() - cursor.rest().len();
        let first = cursor.u8()?;
        if first & IS_PACKED == 0 || first & ALGORITHM != 0 {
            let what = format!("an event is packed in a way that is not known ({first:#04x})");
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let length = cursor.bytes(usize::from(first & LENGTH_BYTES))?;
        let unpacked = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        Ok(Self {
            kind,
            head: bytes.get(..head_len).unwrap_or_default(),
            unpacked_bytes: usize::try_from(unpacked).unwrap_or(usize::MAX),
            packed: cursor.rest(),
        })
    }

    /// A statement, not rows.
    pub fn is_statement(&self) -> bool {
        self.kind == Kind::QUERY
    }

    /// The plain event, for [`super::FormatDescription::read_inner`]. One larger than `max_event_bytes` is an error.
    pub fn unpack(&self, max_event_bytes: usize) -> Result<Vec<u8>> {
        let size = self.head.len().saturating_add(self.unpacked_bytes);
        if size > max_event_bytes {
            let what =
                format!("an event of {size} bytes is over the limit of {max_event_bytes} bytes");
            return Err(Error::new(ErrorKind::Undecodable, what));
        }
        let room = self.packed.len().saturating_mul(FIRST_ROOM_PER_BYTE).min(self.unpacked_bytes);
        let mut event = Vec::with_capacity(self.head.len() + room);
        event.extend_from_slice(self.head);
        // One byte more than it should be is enough to know that it lies.
        let mut unpacked = ZlibDecoder::new(self.packed).take(self.unpacked_bytes as u64 + 1);
        unpacked.read_to_end(&mut event).map_err(broken)?;
        if event.len() != size {
            return Err(other_length());
        }
        let size = u32::try_from(size).map_err(|_| other_length())?;
        if let Some(kind) = event.get_mut(KIND_AT) {
            *kind = self.kind.0;
        }
        if let Some(in_header) = event.get_mut(SIZE_AT..SIZE_AT + 4) {
            in_header.copy_from_slice(&size.to_le_bytes());
        }
        Ok(event)
    }
}

/// What the rows are unpacked, and whether they have extra data before their columns.
fn plain_rows(kind: Kind) -> (Kind, bool) {
    match kind {
        Kind::WRITE_ROWS_COMPRESSED_V1 => (Kind::WRITE_ROWS_V1, false),
        Kind::UPDATE_ROWS_COMPRESSED_V1 => (Kind::UPDATE_ROWS_V1, false),
        Kind::DELETE_ROWS_COMPRESSED_V1 => (Kind::DELETE_ROWS_V1, false),
        Kind::WRITE_ROWS_COMPRESSED => (Kind::WRITE_ROWS, true),
        Kind::UPDATE_ROWS_COMPRESSED => (Kind::UPDATE_ROWS, true),
        _ => (Kind::DELETE_ROWS, true),
    }
}

/// Thread, time, lengths, error, status variables, database.
fn skip_query(cursor: &mut Cursor<'_>) -> Result<()> {
    cursor.bytes(8)?;
    let db_len = usize::from(cursor.u8()?);
    cursor.bytes(2)?;
    let status_len = usize::from(cursor.u16()?);
    cursor.bytes(status_len)?;
    cursor.bytes(db_len + 1)?;
    Ok(())
}

/// Table, flags, number of columns and which of them the images have.
fn skip_rows(cursor: &mut Cursor<'_>, kind: Kind, has_extra: bool) -> Result<()> {
    cursor.bytes(8)?;
    if has_extra {
        // The length counts its own two bytes.
        let length = usize::from(cursor.u16()?);
        cursor.bytes(length.saturating_sub(2))?;
    }
    let columns = usize::try_from(cursor.lenenc()?).unwrap_or(usize::MAX);
    let has_two = matches!(kind, Kind::UPDATE_ROWS | Kind::UPDATE_ROWS_V1);
    for _ in 0..1 + usize::from(has_two) {
        cursor.bytes(columns.div_ceil(8))?;
    }
    Ok(())
}

fn broken(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Undecodable, "cannot unpack a compressed event").caused_by(cause)
}

#[cold]
fn other_length() -> Error {
    Error::new(ErrorKind::Undecodable, "a compressed event has another length than it says")
}

#[cfg(test)]
mod tests {
    use super::super::{Body, FormatDescription};
    use super::*;

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let level = flate2::Compression::default();
        flate2::bufread::ZlibEncoder::new(plain, level).read_to_end(&mut packed).expect("packs");
        packed
    }

    fn event(kind: Kind, head: &[u8], first: u8, length: &[u8], packed: &[u8]) -> Vec<u8> {
        let size = (HEADER_LEN + head.len() + 1 + length.len() + packed.len()) as u32;
        let mut event = 7_u32.to_le_bytes().to_vec();
        event.push(kind.0);
        event.extend_from_slice(&1_u32.to_le_bytes());
        event.extend_from_slice(&size.to_le_bytes());
        event.extend_from_slice(&[99, 0, 0, 0, 0, 0]);
        event.extend_from_slice(head);
        event.push(first);
        event.extend_from_slice(length);
        event.extend_from_slice(packed);
        event
    }

    const QUERY_HEAD: &[u8] = b"\x09\0\0\0\0\0\0\0\x02\0\0\x03\0\x01\x02\x03db\0";
    /// Table 7, no flags, three columns, both images whole.
    const UPDATE_HEAD: &[u8] = b"\x07\0\0\0\0\0\0\0\x03\x07\x07";

    fn unpacked(bytes: &[u8], max: usize) -> Result<Vec<u8>> {
        let read = FormatDescription::assumed().read_inner(bytes)?;
        let Body::Packed(packed) = read.body else { panic!("it is not packed") };
        packed.unpack(max)
    }

    #[test]
    fn a_statement_and_rows_are_read_as_if_they_had_never_been_packed() {
        let statement = b"INSERT INTO t VALUES ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')";
        let packed = zlib(statement);
        let bytes = event(
            Kind::QUERY_COMPRESSED,
            QUERY_HEAD,
            0x82,
            &(statement.len() as u16).to_be_bytes(),
            &packed,
        );
        let plain = unpacked(&bytes, 1 << 20).expect("unpacks");
        let format = FormatDescription::assumed();
        let Body::Query(query) = format.read_inner(&plain).expect("reads").body else {
            panic!("no statement")
        };
        assert_eq!((query.db, query.statement), (&b"db"[..], &statement[..]));

        let rows = [0, 1, 2, 3, 4].repeat(100);
        let bytes =
            event(Kind::UPDATE_ROWS_COMPRESSED_V1, UPDATE_HEAD, 0x83, &[0, 1, 0xf4], &zlib(&rows));
        let plain = unpacked(&bytes, 1 << 20).expect("unpacks");
        let Body::Rows(event) = format.read_inner(&plain).expect("reads").body else {
            panic!("no rows")
        };
        assert_eq!((event.table_id, event.column_count), (7, 3));
        assert!(plain.ends_with(&rows));
    }

    #[test]
    fn a_length_that_lies_is_an_error_and_takes_no_memory() {
        let packed = zlib(&[7; 1_000]);
        let with = |first: u8, length: &[u8], packed: &[u8]| {
            unpacked(&event(Kind::QUERY_COMPRESSED, QUERY_HEAD, first, length, packed), 1 << 30)
        };
        assert_eq!(with(0x82, &[3, 0xe8], &packed).expect("unpacks").len(), 19 + 19 + 1_000);
        for (first, length) in [
            (0x82, &[3, 0xe7][..]),
            (0x82, &[3, 0xe9]),
            (0x80, &[]),
            (0x84, &[0x3f, 0xff, 0xff, 0xff]),
            (0x87, &[0xff; 7]),
            (0x02, &[3, 0xe8]),
            (0x92, &[3, 0xe8]),
        ] {
            assert!(with(first, length, &packed).is_err(), "{first:#x} {length:?}");
        }
        for end in 0..packed.len() - 4 {
            assert!(with(0x82, &[3, 0xe8], &packed[..end]).is_err(), "cut at {end}");
        }
        let info = allocation_counter::measure(|| {
            assert!(with(0x84, &[0x3f, 0xff, 0xff, 0xff], &packed).is_err());
        });
        assert!(info.bytes_max < 100_000, "{} bytes", info.bytes_max);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let format = FormatDescription::assumed();
        for kind in 165..=171 {
            for length in 0..60 {
                for fill in [0x00, 0x01, 0x7f, 0x81, 0x87, 0xfc, 0xfe, 0xff] {
                    let bytes = event(Kind(kind), &vec![fill; length], fill, &[fill; 3], &[]);
                    if let Ok(read) = format.read_inner(&bytes)
                        && let Body::Packed(packed) = read.body
                    {
                        let _ = packed.unpack(1 << 20);
                    }
                }
            }
        }
    }
}
