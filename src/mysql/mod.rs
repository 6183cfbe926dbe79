//! The MySQL protocol, client side, as far as replication needs it: connect, log in, set the session up, become a stream
//! of log events. Knows nothing of what events mean; everything else is asked through `mysql_async`.
//!
//! No read here has a time limit of its own: between two events the source may be silent for as long as its heartbeat
//! says. The caller wraps [`EventStream::next`] in a time-out of a few heartbeats; that is safe, because a `next` that is
//! dropped half-way has lost nothing.

#[cfg(feature = "daemon")]
mod auth;
#[cfg(feature = "daemon")]
mod connection;
pub mod errors;
pub mod handshake;
pub mod joiner;
pub mod lenenc;
#[cfg(feature = "daemon")]
mod packet;
#[cfg(feature = "daemon")]
mod public_key;
#[cfg(feature = "daemon")]
mod replication;
#[cfg(feature = "daemon")]
mod session;

#[cfg(feature = "daemon")]
pub use connection::{Connection, Options};
pub use joiner::READ_BYTES;
#[cfg(feature = "daemon")]
pub use replication::{Dump, DumpFrom, EventStream, stream_ended};
#[cfg(feature = "daemon")]
pub use session::{Session, prepare_session};
