//! Outgoing connections. Knows nothing of who is called.

pub mod tls;
