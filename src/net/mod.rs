//! Outgoing connections: TLS, HTTP clients, the secrets that they need, and which endpoints may be called. Knows nothing
//! of who is called.

pub mod http;
pub mod secret;
pub mod tls;
pub mod trust;
