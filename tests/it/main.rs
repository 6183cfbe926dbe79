//! Tests against real servers.

mod decoder;
mod replication;
