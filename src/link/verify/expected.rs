//! The documents that the link makes of rows: the mapping's, and then the pipeline's. Vectors that cost money stay open
//! unless they are asked for.

use std::collections::HashSet;
use std::sync::Arc;

use super::compare::{Rules, differing};
use super::{Kind, Order};
use crate::document::{Batch, DocOp, IdHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::link::inquiry::Standing;
use crate::link::pipeline_mode::Way;
use crate::pipeline::{Pipeline, VectorField};
use crate::sink::Stored;

/// What a document should be.
pub(super) struct Expected {
    body: Vec<u8>,
    /// Vectors that are `[]` in `body`.
    any: Vec<VectorField>,
}

/// Makes and compares documents; clones are cheap enough for a task each.
#[derive(Clone)]
pub(super) struct Maker {
    pub standing: Standing,
    pipeline: Option<Arc<Pipeline>>,
    computes_vectors: bool,
}

impl Maker {
    /// `pipeline` is the one that we run on the link's documents.
    pub fn new(standing: Standing, order: &Order, pipeline: Option<Arc<Pipeline>>) -> Result<Self> {
        let is_free = pipeline.as_ref().map_or(Ok(false), |pipeline| pipeline.is_free())?;
        Ok(Self { standing, pipeline, computes_vectors: order.with_vectors || is_free })
    }

    /// In the order of `bodies`, which the mapping has made.
    pub async fn make(&self, bodies: Vec<(&str, Vec<u8>)>) -> Result<Vec<Expected>> {
        let Some(pipeline) = &self.pipeline else {
            let as_it_is = |(_, body)| Expected { body, any: Vec::new() };
            return Ok(bodies.into_iter().map(as_it_is).collect());
        };
        let shape = |(id, body): (&str, Vec<u8>)| match pipeline.shape(&body) {
            Ok(shape) => Ok(Expected { body: shape.body, any: shape.vectors }),
            // It is a dead letter, and its document is not what its row says.
            Err(error) if error.kind() == ErrorKind::DocumentRefused => {
                Ok(Expected { body, any: Vec::new() })
            }
            Err(error) => Err(error.context(format!("cannot embed document `{id}`"))),
        };
        if !self.computes_vectors {
            return bodies.into_iter().map(shape).collect();
        }
        let mut batch = Batch::default();
        for (id, body) in &bodies {
            batch.upsert(id, IdHasher.key(id), Default::default(), body);
        }
        let dimensions = &self.standing.route.target.dimensions;
        let ran = pipeline.run_apart(&batch, dimensions, &|_| true).await?;
        let made = |op: DocOp<'_>| Expected { body: op.body.to_vec(), any: Vec::new() };
        let mut embedded = ran.batch.iter().map(made);
        let is_refused = |at: usize| ran.refused.iter().any(|refused| refused.at == at);
        let expected =
            bodies.into_iter().enumerate().map(|(at, (id, body))| match is_refused(at) {
                true => shape((id, body)),
                false => embedded.next().ok_or_else(|| {
                    Error::new(ErrorKind::ModelAnswer, format!("document `{id}` was not embedded"))
                }),
            });
        expected.collect()
    }

    /// What is wrong with the document, if anything is.
    pub fn judge(
        &self,
        expected: Option<&Expected>,
        found: Option<&Stored>,
        can_have_row: bool,
    ) -> Option<(Kind, Vec<String>)> {
        match (expected, found) {
            (None, None) => None,
            (Some(_), None) => Some((Kind::Missing, Vec::new())),
            (None, Some(_)) if can_have_row => Some((Kind::Extra, Vec::new())),
            (None, Some(_)) => Some((Kind::Foreign, Vec::new())),
            (Some(expected), Some(found)) => {
                let fields = self.differing(expected, found);
                let kind = match self.are_vectors(expected, &fields) {
                    true => Kind::StaleVector,
                    false => Kind::Different,
                };
                (!fields.is_empty()).then_some((kind, fields))
            }
        }
    }

    fn differing(&self, expected: &Expected, found: &Stored) -> Vec<String> {
        let target = &self.standing.route.target;
        let is_delegated = matches!(self.standing.route.way, Way::Delegated(_));
        let rules = Rules {
            dimensions: &target.dimensions,
            any: &expected.any,
            others_are_added: is_delegated || target.final_pipeline.is_some(),
        };
        differing(&expected.body, &found.source, rules)
    }

    /// Whether these are fields that the pipeline alone writes.
    fn are_vectors(&self, expected: &Expected, fields: &[String]) -> bool {
        let Some(pipeline) = self.pipeline.as_ref().filter(|_| !fields.is_empty()) else {
            return false;
        };
        let Ok(shape) = pipeline.shape(&expected.body) else { return false };
        let mapped: HashSet<&str> = self.standing.plan.fields().map(|(field, _)| field).collect();
        let is_vector = |field: &String| {
            let inside = format!("{field}.");
            let written = |path: &str| path == field || path.starts_with(&inside);
            !mapped.contains(field.as_str())
                && shape.vectors.iter().any(|vector| written(&vector.path))
        };
        fields.iter().all(is_vector)
    }
}
