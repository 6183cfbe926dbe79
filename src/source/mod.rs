//! Not yet written.

pub mod ddl;
