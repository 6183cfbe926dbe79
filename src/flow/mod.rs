//! Back-pressure and patience: what several stages need to wait well. Knows none of them.

pub mod backoff;
