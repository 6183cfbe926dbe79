//! The initial copy of a table in primary-key chunks, interleaved with the stream. Knows nothing of mappings: the link
//! tells it which rows changed.

mod active;
pub mod chunk;
mod consistent;
pub mod scan;
pub mod undecided;
pub mod view;
pub mod watermark;
pub mod window;

use std::time::Duration;

use serde::Deserialize;

/// How a table is copied.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A chunk never has more rows.
    pub chunk_rows: u32,
    /// A chunk is sized so that its SELECT takes about this long.
    pub chunk_target_ms: u64,
    /// A chunk is sized so that its rows take about this much memory.
    pub chunk_bytes: usize,
    /// Ids of rows that change while a chunk is read; more than this, and the chunk is read again, smaller.
    pub recorded_bytes: usize,
    /// So many rows are read in a second, at most; 0: as many as can be.
    pub rows_per_s: u32,
    /// No chunk is begun while the server's Threads_running is above; 0: whatever it is.
    pub max_threads_running: u32,
    /// So many tables are read at once.
    pub parallel: usize,
}

impl Config {
    /// When, after a chunk of `rows` rows was begun, the next one may.
    pub fn pause_behind(&self, rows: usize) -> Duration {
        match self.rows_per_s {
            0 => Duration::ZERO,
            rows_per_s => Duration::from_secs_f64(rows as f64 / f64::from(rows_per_s)),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            chunk_rows: 50_000,
            chunk_target_ms: 250,
            chunk_bytes: 8 << 20,
            recorded_bytes: 16 << 20,
            rows_per_s: 0,
            max_threads_running: 0,
            parallel: 4,
        }
    }
}
