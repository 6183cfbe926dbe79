//! Who runs an index's default pipeline: we, or the cluster. It is settled each time a link begins to run; what is
//! settled is shown in the link's status. Runs no pipeline itself.
//!
//! Whoever it is, nobody else does: what we have embedded is written with `pipeline=_none`, and what the cluster is to
//! embed is written without any vector of ours. In both ways every write is a whole document, because a cluster does not
//! run the pipeline for a bulk's `update`, and an old vector would stay beside a new text.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use crate::sink::{Sink, Target};

/// Who shall run an index's default pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PipelineMode {
    /// We do. It must be registered at Driftless.
    Emulate,
    /// The cluster does. It must be registered there.
    Delegate,
    /// We do if it is registered at Driftless, else the cluster if it is registered there.
    #[default]
    Auto,
}

impl PipelineMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emulate => "emulate",
            Self::Delegate => "delegate",
            Self::Auto => "auto",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Emulate, Self::Delegate, Self::Auto].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// What was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// The index has no default pipeline, and one that it gets later is not run before the link begins again.
    Plain,
    /// We run the pipeline of this name.
    Emulated(String),
    /// The cluster runs whatever default pipeline the index has when a document is written; this one for now.
    Delegated(Option<String>),
}

impl Way {
    /// The mode and the pipeline, as they are shown.
    pub fn shown(&self) -> (&'static str, &str) {
        match self {
            Self::Plain => ("", ""),
            Self::Emulated(name) => (PipelineMode::Emulate.as_str(), name),
            Self::Delegated(name) => {
                (PipelineMode::Delegate.as_str(), name.as_deref().unwrap_or_default())
            }
        }
    }
}

/// Settles who runs the default pipeline of `index`. Asks no model.
pub(super) async fn settle(
    mode: PipelineMode,
    sink: &dyn Sink,
    pipelines: &pipeline::Api,
    index: &str,
    target: &Target,
) -> Result<Way> {
    if mode == PipelineMode::Delegate && !sink.runs_pipelines() {
        return Err(nobody_to_delegate_to());
    }
    let Some(name) = &target.default_pipeline else {
        return Ok(match mode {
            PipelineMode::Delegate => Way::Delegated(None),
            PipelineMode::Emulate | PipelineMode::Auto => Way::Plain,
        });
    };
    let ours = pipelines.pipeline(name).filter(|_| mode != PipelineMode::Delegate);
    if let Some(ours) = ours {
        ours.check_models()?;
        return Ok(Way::Emulated(name.clone()));
    }
    if mode == PipelineMode::Emulate {
        return Err(not_here(index, name));
    }
    if sink.runs_pipelines() && sink.has_pipeline(name).await? {
        return Ok(Way::Delegated(Some(name.clone())));
    }
    Err(match mode {
        PipelineMode::Delegate => not_there(index, name),
        PipelineMode::Emulate | PipelineMode::Auto => nowhere(sink, index, name),
    })
}

/// What is to be said of `delegate` where the index is one of ours.
pub fn nobody_to_delegate_to() -> Error {
    let message = "pipeline_mode is `delegate`, and the embedded sink has no cluster that could run a pipeline";
    Error::new(ErrorKind::Unsupported, message).with_advice(
        "write `auto` or `emulate`: the pipelines registered at Driftless are run either way",
    )
}

pub(super) fn not_here(index: &str, name: &str) -> Error {
    unsupported(format!(
        "index {index} has the default pipeline `{name}`, which is not registered at Driftless"
    ))
    .with_advice(register_here(name))
}

fn not_there(index: &str, name: &str) -> Error {
    unsupported(format!(
        "index {index} has the default pipeline `{name}`, which the cluster does not have"
    ))
    .with_advice(format!(
        "register it there (PUT _ingest/pipeline/{name}), or let Driftless run it (pipeline_mode `emulate`)"
    ))
}

fn nowhere(sink: &dyn Sink, index: &str, name: &str) -> Error {
    if !sink.runs_pipelines() {
        return not_here(index, name);
    }
    unsupported(format!(
        "index {index} has the default pipeline `{name}`, which is registered neither at Driftless nor in the cluster"
    ))
    .with_advice(format!(
        "{}, and Driftless computes the vectors; or at the cluster's, and the cluster does",
        register_here(name)
    ))
}

fn register_here(name: &str) -> String {
    format!("register it: PUT _ingest/pipeline/{name} at Driftless' own address")
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}
