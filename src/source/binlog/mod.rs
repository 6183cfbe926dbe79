//! The binary log's events, decoded from bytes: pure, borrowed, bounded. Knows nothing of connections, links or what
//! is wanted of a row beyond the ordinals it is given.
//!
//! The way of an event: [`FormatDescription::read`] takes one whole event (as the connection splits it off), verifies
//! its checksum and gives an [`Event`] that borrows from it. A TABLE_MAP whose bytes equal the ones seen last
//! ([`TableMap::is_same`]) keeps its [`rows::Plan`]; a rows event of a wanted table is walked by a [`rows::Reader`]
//! that fills one reusable [`crate::change::Change`]. A TRANSACTION_PAYLOAD is unpacked event by event by an
//! [`payload::Inflater`], and its inner events are read with [`FormatDescription::read_inner`]. An event of MariaDB that
//! is compressed by itself is made the plain one that it stands for by [`packed::Packed::unpack`], and then read likewise.
//!
//! Every byte here comes from outside: no index panics, nothing is allocated by a length that was merely claimed.

pub mod checksum;
pub(in crate::source) mod collation;
mod cursor;
pub mod event;
pub mod gtid_set;
pub mod header;
pub mod packed;
pub mod payload;
pub mod rows;
pub mod table_map;
pub mod value;

pub use event::{Body, Event, FormatDescription};
pub use header::{Header, Kind};
pub use table_map::TableMap;
