//! The source: one MySQL or MariaDB server whose log is tailed and whose tables are copied. Knows nothing of mappings or sinks.
//!
//! [`tailer`] reads events over a replication connection and sorts them for the links; [`stream`] is what a link
//! receives; [`binlog`] turns bytes into events and rows, [`ddl`] statements into what they touch. [`snapshot`] copies a
//! table in windows beside the stream. [`control`] is the connection for SQL, [`schema`] reads definitions (and
//! [`from_table_map`] those that the log itself announces), [`foreign_keys`] the keys between tables, [`preflight`] says
//! what is wrong with a server. [`xid`] names XA transactions.
//! [`from_table_map`] those that the log itself announces),
//! [`files`] is a folder of log files in the place of a server. [`preflight`] says what is wrong with a server. [`xid`] names XA transactions.
//! [`torn`] notices that a log has lost its end.

#[cfg(feature = "daemon")]
pub mod ahead;
pub mod beginning;
pub mod binlog;
mod column_type;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod control;
pub mod ddl;
#[cfg(feature = "daemon")]
pub mod files;
#[cfg(feature = "daemon")]
mod follower;
#[cfg(feature = "daemon")]
pub mod foreign_keys;
pub mod from_table_map;
#[cfg(feature = "daemon")]
pub mod places;
#[cfg(feature = "daemon")]
pub mod locate;
#[cfg(feature = "daemon")]
pub mod preflight;
#[cfg(feature = "daemon")]
mod numbering;
#[cfg(feature = "daemon")]
mod replication;
#[cfg(feature = "daemon")]
pub mod schema;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
pub mod snapshot;
#[cfg(feature = "daemon")]
pub mod stream;
#[cfg(feature = "daemon")]
pub mod tailer;
#[cfg(feature = "daemon")]
pub mod torn;
pub mod xid;

#[cfg(feature = "daemon")]
pub use config::Config;
