//! Not yet written.

pub mod binlog;
