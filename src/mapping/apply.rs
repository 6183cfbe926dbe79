//! Not yet written.

/// Buffers that [`super::Plan::apply`] uses again and again; one per thread of work.
#[derive(Debug, Default)]
pub struct Scratch {
    id: String,
}
