//! The one integration binary: the real daemon against real servers. `make test` starts the servers and runs it.

mod support;

mod beginning;
mod cascades;
mod charsets;
mod cli;
mod config;
mod corners;
mod decoder;
mod delivery;
mod demo;
mod embedded;
mod files;
mod forms;
mod harness;
mod images;
mod kill;
mod life;
mod logs;
mod mariadb;
mod modes;
mod no_gtids;
mod oracle;
mod pipeline;
mod preflight;
mod replication;
mod rules;
mod schema;
mod sink;
mod snapshot;
mod state;
mod stops;
mod tidy;
mod tutorial;
mod window_model;
mod xa;
