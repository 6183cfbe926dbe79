//! The one integration binary: the real daemon against real servers. `make test` starts the servers and runs it.

mod support;

mod decoder;
mod harness;
mod kill;
mod replication;
mod rules;
mod sink;
mod stops;
mod tidy;
mod tutorial;
mod window_model;
