//! The MySQL protocol, client side, as far as replication needs it: connect, log in, set the session up, become a stream
//! of log events. Knows nothing of what events mean; everything else is asked through `mysql_async`.
//!
//! No read here has a time limit of its own: between two events the source may be silent for as long as its heartbeat
//! says. The caller wraps [`EventStream::next`] in a time-out of a few heartbeats; that is safe, because a `next` that is
//! dropped half-way has lost nothing.

mod auth;
mod connection;
mod errors;
mod handshake;
mod lenenc;
mod packet;
mod public_key;
mod replication;
mod session;

pub use connection::{Connection, Options};
pub use packet::READ_BYTES;
pub use replication::{Dump, DumpFrom, EventStream, stream_ended};
pub use session::{Session, prepare_session};
