//! Back-pressure: what is between two stages, and what is still unacknowledged. Knows no stage.

pub mod acks;
pub mod aimd;
pub mod backoff;
pub mod budget;
pub mod lane;
pub mod pressure;
pub mod pulse;
pub mod queue;
