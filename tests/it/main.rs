//! The one integration binary.

mod sink;
//! The one integration binary: the real daemon against real servers. `make test` starts the servers and runs it.

mod support;

mod harness;
mod tidy;
mod window_model;
//! Tests against real servers.

mod decoder;
mod replication;
