//! What the daemon says about itself: every metric, and the log. Knows no other module, so that every one may use it.

#[cfg(feature = "daemon")]
pub mod log;
#[cfg(feature = "daemon")]
pub mod metrics;
