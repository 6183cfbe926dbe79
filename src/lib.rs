//! Driftless keeps search indexes true to MySQL.
//!
//! The modules stand in reading order, and the order is the law: a module may name only modules that stand above it
//! (`tests/it/tidy.rs` holds the whole table of arrows). Read from top to bottom and you follow a row from the
//! source's log to the index.

// Words: data only, no I/O, no async.
pub mod error; // what can go wrong, and what is then to be done
pub mod naive; // mutation switch of the rule tests
pub mod telemetry; // every metric, and the log
pub mod position; // GTID sets, positions, versions, checkpoints
pub mod table; // tables as the source defines them
pub mod change; // one row's change, values borrowed
pub mod document; // operations on documents, and the batch that carries them

// Ground: used by several stages, knows none of them.
#[cfg(feature = "daemon")]
pub mod flow; // back-pressure: bounded queues, lanes, acknowledgements
#[cfg(feature = "daemon")]
pub mod net; // outgoing connections: TLS, HTTP, trust
pub mod mysql; // the MySQL protocol, client side
#[cfg(feature = "daemon")]
pub mod state; // RocksDB: links, checkpoints, definitions, catalog

// Stages: the data's way.
pub mod source; // binlog and SELECT to changes
pub mod mapping; // changes to document operations
#[cfg(feature = "daemon")]
pub mod connector; // how an embedding endpoint is called
#[cfg(feature = "daemon")]
pub mod pipeline; // the ingest pipeline, emulated
#[cfg(feature = "embedded")]
pub mod index; // a search index of our own, on disk
pub mod sink; // document operations to an index

// Wiring: the only place that knows all stages.
#[cfg(feature = "daemon")]
pub mod link; // one sync link and the supervisor of all

// Doors.
pub mod statement; // text to statement, pure
#[cfg(feature = "daemon")]
pub mod admin; // HTTP: SQL, metrics, health, the ml-commons requests
#[cfg(feature = "daemon")]
pub mod config; // the TOML file
#[cfg(feature = "daemon")]
pub mod cli; // the subcommands
