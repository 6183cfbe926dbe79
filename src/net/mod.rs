//! Outgoing connections: TLS, HTTP clients, and which endpoints may be called. Knows nothing of who is called.

pub mod http;
pub mod tls;
pub mod trust;
