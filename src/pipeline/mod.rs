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

/// What became of a batch.
pub struct Ran {
    /// What is to be written, in its order.
    pub batch: Batch,
    /// What never can be, as it is.
    pub refused: Vec<Refused>,
}

/// An operation whose document, or a text of it, is refused while others are taken.
pub struct Refused {
    /// Its place in the batch that was given.
    pub at: usize,
    /// Names the `_id` and not the text. `DocumentRefused` where a processor, `ModelRefused` where a model says no.
    pub why: Error,
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
    /// An error names the `_id` of a document and never its text; nothing of the batch is then to be written. What a
    /// processor or a model holds against single documents is one too.
    pub async fn run(
        &self,
        batch: &Batch,
        dimensions: &HashMap<String, usize>,
        still_wanted: StillWanted<'_>,
    ) -> Result<Batch> {
        let mut ran = self.run_apart(batch, dimensions, still_wanted).await?;
        match ran.refused.is_empty() {
            true => Ok(ran.batch),
            false => Err(ran.refused.swap_remove(0).why),
        }
    }

    /// The same with those documents apart from the others. An error is then the model's, or that of its definition: it
    /// refuses every text.
    pub async fn run_apart(
        &self,
        batch: &Batch,
        dimensions: &HashMap<String, usize>,
        still_wanted: StillWanted<'_>,
    ) -> Result<Ran> {
        let mut done: Option<Batch> = None;
        let mut refused = Vec::new();
        for processor in &self.processors {
            let before = done.as_ref().unwrap_or(batch);
            let ran = batch::run(&self.models, processor, before, dimensions, still_wanted).await?;
            // A place in what another processor has left over is not one in what was given.
            let place = |at: usize| {
                let key = before.get(at).map(|op| op.key);
                batch.iter().position(|op| Some(op.key) == key).unwrap_or(at)
            };
            let is_first = done.is_none();
            refused.extend(ran.refused.into_iter().map(|one| Refused {
                at: if is_first { one.at } else { place(one.at) },
                why: one.why,
            }));
            done = Some(ran.batch);
        }
        Ok(Ran { batch: done.unwrap_or_else(|| batch.clone()), refused })
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
            let ran = batch::run(&self.models, processor, &batch, dimensions, &in_time).await?;
            if let Some(refused) = ran.refused.into_iter().next() {
                return Err(refused.why);
            }
            if ran.batch.is_empty() {
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
