//! Back-pressure: what is between two stages, and what is still unacknowledged. Knows no stage.

pub mod acks;
pub mod backoff;
pub mod lane;
pub mod queue;
