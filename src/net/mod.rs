//! Outgoing connections: HTTP clients and whom we dare to call. Knows no stage.

pub mod http;
pub mod trust;
