//! The ingest pipeline, emulated: the processors of a `PUT _ingest/pipeline/NAME` run on document operations before they
//! are written. Knows nothing of sources and sinks.
//!
//! `api` speaks ml-commons' JSON and keeps the definitions; a [`Pipeline`] is one of them, ready to run; `batch` and
//! `asking` get the vectors for the texts of many documents at once; `text_embedding`, `fields` and `json` find the
//! texts in a document and put the vectors beside them.

mod api;
mod asking;
mod batch;
mod fields;
pub mod json;
mod processors;
mod text_embedding;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::api::{Answer, Api};
pub use crate::connector::Config;
use crate::{
    connector::Models,
    document::{Batch, DocOp},
    error::{Error, ErrorKind, Result},
};
use fields::{FieldMap, Target};
use processors::Processor;
use text_embedding::Plan;

/// Says whether an operation is still to be written; once it says no, it stays with it.
pub type StillWanted<'w> = &'w (dyn Fn(&DocOp<'_>) -> bool + Send + Sync);

/// A pipeline as it was defined at the moment it was asked for.
pub struct Pipeline {
    name: String,
    models: Arc<Models>,
    processors: Vec<Processor>,
}

/// A document without the numbers of its vectors.
pub struct Shape {
    pub body: Vec<u8>,
    pub vectors: Vec<VectorField>,
}

/// Where a vector is, by the whole name of its field; several where a list has several texts.
pub struct VectorField {
    pub path: String,
    /// A document passes without it where the model refuses.
    pub may_miss: bool,
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

    /// Whether its vectors can be computed without asking anybody for them.
    pub fn is_free(&self) -> Result<bool> {
        for processor in &self.processors {
            if !self.models.model(&processor.model_id)?.is_built_in() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The document as it leaves the pipeline, with `[]` in the place of each vector. Asks no endpoint.
    pub fn shape(&self, body: &[u8]) -> Result<Shape> {
        let mut shape = Shape { body: body.to_vec(), vectors: Vec::new() };
        for processor in &self.processors {
            let plan = match Plan::new(&processor.fields, &shape.body) {
                Ok(plan) => plan,
                Err(_) if processor.ignore_failure => continue,
                Err(error) => return Err(error),
            };
            for text in &plan.texts {
                let may_miss = processor.ignore_failure;
                shape.vectors.push(VectorField { path: text.field.clone(), may_miss });
            }
            let mut body = Vec::new();
            plan.write(&shape.body, |_| &[], &mut body);
            shape.body = body;
        }
        Ok(shape)
    }

    /// Whether all models that the pipeline names are registered. Asks no endpoint.
    pub fn check_models(&self) -> Result<()> {
        self.processors
            .iter()
            .try_for_each(|processor| self.models.model(&processor.model_id).map(drop))
    }

    /// Embeds a word for every field, to see whether the models answer with the index's dimensions.
    pub async fn check(&self, dimensions: &HashMap<String, usize>) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        for processor in &self.processors {
            let mut batch = Batch::default();
            let probe = probe(&processor.fields).to_string();
            batch.upsert("driftless-check", 0, Default::default(), probe.as_bytes());
            let began = Instant::now();
            let in_time = |_: &DocOp<'_>| began.elapsed() < PATIENCE;
            if batch::run(&self.models, processor, &batch, dimensions, &in_time).await?.is_empty() {
                let what = format!(
                    "model {} gave no answer in {} s",
                    processor.model_id,
                    PATIENCE.as_secs()
                );
                return Err(
                    Error::new(ErrorKind::ModelBusy, what).with_advice("look at its endpoint")
                );
            }
        }
        Ok(())
    }
}

/// A document with a text wherever the map wants one.
fn probe(fields: &FieldMap) -> serde_json::Value {
    let value = |target: &Target| match target {
        Target::Vector(_) => serde_json::Value::from("driftless"),
        Target::Inside(inner) => probe(inner),
    };
    fields.rules.iter().map(|(name, target)| (name.clone(), value(target))).collect()
}
