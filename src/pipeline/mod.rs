//! The ingest pipeline, emulated: the processors of a `PUT _ingest/pipeline/NAME` run on document operations before they
//! are written. Knows nothing of sources and sinks.
//!
//! `api` speaks ml-commons' JSON and keeps the definitions; a [`Pipeline`] is one of them, ready to run; `batch` asks
//! the model for the texts of many documents at once; `text_embedding` and `fields` find the texts in a document and
//! put the vectors beside them.

mod api;
mod batch;
mod fields;
mod processors;
mod text_embedding;

use std::{collections::HashMap, sync::Arc};

pub use self::api::{Answer, Api};
pub use crate::connector::Config;
use crate::{
    connector::Models,
    document::{Batch, DocOp},
    error::Result,
};
use processors::Processor;

/// Says whether an operation is still to be written; once it says no, it stays with it.
pub type StillWanted<'w> = &'w (dyn Fn(&DocOp<'_>) -> bool + Send + Sync);

/// A pipeline as it was defined at the moment it was asked for.
pub struct Pipeline {
    name: String,
    models: Arc<Models>,
    processors: Vec<Processor>,
}

impl Pipeline {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs the batch's upserts through the processors; deletes pass untouched and the order is kept.
    ///
    /// A busy endpoint is asked again for ever, with back-off. Before each try and while it waits, `still_wanted` is
    /// asked about each operation that waits: one that is no longer wanted is left out of the result. `dimensions` are
    /// those of the index's vector fields, by their whole name.
    ///
    /// An error names the `_id` of a document and never its text; nothing of the batch is then to be written.
    pub async fn run(
        &self,
        batch: &Batch,
        dimensions: &HashMap<String, usize>,
        still_wanted: StillWanted<'_>,
    ) -> Result<Batch> {
        let mut done: Option<Batch> = None;
        for processor in &self.processors {
            let before = done.as_ref().unwrap_or(batch);
            done =
                Some(batch::run(&self.models, processor, before, dimensions, still_wanted).await?);
        }
        Ok(done.unwrap_or_else(|| batch.clone()))
    }
}
