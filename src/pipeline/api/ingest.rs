//! Ingest pipelines by HTTP: define, show, delete. Knows no document.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use serde_json::{Map, Value};

use super::{Answer, Api, Handled, Request, fault::Fault};
use crate::{
    connector::{Kind, Models},
    error::{Error, ErrorKind, Result},
    pipeline::{Pipeline, processors},
};

/// All pipelines of the catalog, ready to run.
pub(super) fn load(models: &Arc<Models>) -> Result<HashMap<String, Arc<Pipeline>>> {
    let stored = models.catalog().list(Kind::Pipeline)?;
    let ready = |(name, definition): (String, Value)| {
        let parsed =
            definition.as_object().and_then(|definition| processors::parse(&name, definition).ok());
        let processors = parsed.ok_or_else(|| {
            Error::new(
                ErrorKind::State,
                format!("the stored pipeline {name} makes no sense to this version"),
            )
            .with_advice("start the version that stored it, or define the pipeline again there")
        })?;
        Ok((name.clone(), Arc::new(Pipeline { name, models: models.clone(), processors })))
    };
    stored.into_iter().map(ready).collect()
}

impl Api {
    pub(super) async fn put_pipeline(&self, name: &str, request: &Request<'_>) -> Handled {
        let definition =
            request.object(Fault::parse("request body or source parameter is required"))?;
        let processors = processors::parse(name, &definition)?;
        let _turn = self.inner.changes.lock().await;
        self.inner.models.catalog().put(Kind::Pipeline, name, definition.into()).await?;
        let pipeline =
            Pipeline { name: name.to_owned(), models: self.inner.models.clone(), processors };
        let mut pipelines = self.inner.pipelines.write().unwrap_or_else(PoisonError::into_inner);
        pipelines.insert(name.to_owned(), Arc::new(pipeline));
        Ok(Answer::acknowledged())
    }

    pub(super) fn get_pipelines(&self, names: &str) -> Handled {
        let all = self.inner.models.catalog().list(Kind::Pipeline)?;
        let found: Map<String, Value> =
            all.into_iter().filter(|(name, _)| is_named(names, name)).collect();
        let status = if found.is_empty() { 404 } else { 200 };
        Ok(Answer { status, body: found.into() })
    }

    pub(super) async fn delete_pipelines(&self, names: &str) -> Handled {
        let _turn = self.inner.changes.lock().await;
        let all = self.inner.models.catalog().list(Kind::Pipeline)?;
        let found: Vec<String> =
            all.into_iter().map(|(name, _)| name).filter(|name| is_named(names, name)).collect();
        if found.is_empty() && names != "*" {
            return Err(Fault::new(
                404,
                "resource_not_found_exception",
                format!("pipeline [{names}] is missing"),
            ));
        }
        for name in found {
            self.inner.models.catalog().delete(Kind::Pipeline, &name).await?;
            self.inner.pipelines.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
        Ok(Answer::acknowledged())
    }
}

/// Whether a list such as `a,b*` names a pipeline.
fn is_named(names: &str, name: &str) -> bool {
    names.split(',').any(|pattern| {
        let pattern = regex::escape(pattern).replace("\\*", ".*");
        regex::Regex::new(&format!("^(?s:{pattern})$")).is_ok_and(|pattern| pattern.is_match(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        assert!(
            is_named("a,b*", "bc")
                && is_named("*", "x")
                && is_named("a*c", "abc")
                && is_named("a", "a")
        );
        assert!(!is_named("a,b*", "ab") && !is_named("a*c", "ab") && !is_named("a", "aa"));
    }
}
