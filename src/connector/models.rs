//! Models: a stored model joined with its connector, its limits and the cache of vectors; and the two things to be had
//! of one: vectors of texts, and a raw prediction. Knows no document, and does not retry. The built-in models are found
//! here as well, under their names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value};

use super::{
    Catalog, Class, Config, Connector, Failure, Hashing, Kind, Settings, Vector, cache::Cache,
    call::Caller, limits::Limits, presets::Before, template::Parameters,
};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::metrics::metrics;

/// A model as it is defined at this moment.
#[derive(Debug)]
pub struct Model {
    pub id: String,
    name: String,
    engine: Engine,
    pub limits: Limits,
}

/// What computes a model's vectors.
#[derive(Debug)]
enum Engine {
    Remote(Box<Remote>),
    Hashing(Hashing),
}

#[derive(Debug)]
struct Remote {
    connector_id: String,
    /// The connector and the time of its last change: the model's name in the cache.
    revision: Arc<str>,
    connector: Connector,
}

impl Model {
    /// How errors name it.
    pub fn describe(&self) -> String {
        match &self.engine {
            Engine::Remote(_) => format!("model `{}` ({})", self.name, self.id),
            Engine::Hashing(_) => format!("the built-in model `{}`", self.id),
        }
    }

    /// Whether it needs neither an endpoint nor anybody's money.
    pub fn is_built_in(&self) -> bool {
        matches!(self.engine, Engine::Hashing(_))
    }

    fn uses(&self, connector_id: &str) -> bool {
        matches!(&self.engine, Engine::Remote(remote) if remote.connector_id == connector_id)
    }
}

/// What `_predict` answers with.
#[derive(Debug)]
pub enum Prediction {
    Vectors(Vec<Vec<f32>>),
    /// The answer as it came: the connector names no post_process_function.
    Raw(Value),
}

/// All models, with what they share.
pub struct Models {
    catalog: Catalog,
    config: Config,
    caller: Caller,
    cache: Cache,
    /// Models as they were read last; a change of a definition takes out what it concerns.
    live: Mutex<HashMap<String, Arc<Model>>>,
}

impl Models {
    pub fn open(catalog: Catalog, config: Config, settings: &Settings) -> Result<Self> {
        let caller = Caller::new(&config, settings.trust(&config)?)?;
        let cache = Cache::new(config.cache_bytes);
        Ok(Self { catalog, config, caller, cache, live: Mutex::default() })
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Settings that hold from the next request on.
    pub fn apply(&self, settings: &Settings) -> Result<()> {
        self.caller.set_trust(settings.trust(&self.config)?);
        Ok(())
    }

    /// Whether the connector's URL may be called.
    pub fn check_url(&self, connector: &Connector) -> std::result::Result<(), Failure> {
        self.caller.check_url(connector)
    }

    /// The model as it is defined now.
    pub fn model(&self, id: &str) -> Result<Arc<Model>> {
        // The lock is held while the definition is read, so that a change that comes meanwhile takes it out again.
        let mut live = self.live();
        if let Some(model) = live.get(id) {
            return Ok(model.clone());
        }
        let model = Arc::new(self.read(id)?);
        live.insert(id.to_owned(), model.clone());
        Ok(model)
    }

    fn read(&self, id: &str) -> Result<Model> {
        if let Some(hashing) = Hashing::named(id) {
            return Ok(Model {
                id: id.to_owned(),
                name: id.to_owned(),
                engine: Engine::Hashing(hashing?),
                limits: Limits::new(self.config.concurrency, self.config.batch_texts),
            });
        }
        let stored = self.catalog.get(Kind::Model, id)?.ok_or_else(|| unknown(id))?;
        let text =
            |key: &str| stored.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let connector_id = text("connector_id");
        let (connector, changed) = self.connector(&connector_id)?.ok_or_else(|| {
            Error::new(
                ErrorKind::ModelRefused,
                format!("model {id} has lost its connector {connector_id}"),
            )
            .with_advice("create the connector and register the model again")
        })?;
        let concurrency =
            connector.concurrency_max.unwrap_or(usize::MAX).min(self.config.concurrency);
        let texts = connector.batch_texts.unwrap_or(self.config.batch_texts);
        Ok(Model {
            id: id.to_owned(),
            name: text("name"),
            limits: Limits::new(concurrency, texts),
            engine: Engine::Remote(Box::new(Remote {
                revision: format!("{connector_id}@{changed}").into(),
                connector_id,
                connector,
            })),
        })
    }

    fn connector(&self, id: &str) -> Result<Option<(Connector, u64)>> {
        let Some(Value::Object(stored)) = self.catalog.get(Kind::Connector, id)? else {
            return Ok(None);
        };
        let connector = Connector::parse(&stored, self.catalog.secrets(id)?)
            .map_err(|error| error.context(format!("cannot use connector {id}")))?;
        Ok(Some((connector, changed(&stored))))
    }

    pub fn forget_model(&self, id: &str) {
        self.live().remove(id);
    }

    pub fn forget_connector(&self, id: &str) {
        self.live().retain(|_, model| !model.uses(id));
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Arc<Model>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn cached(&self, model: &Model, text: &str) -> Option<Vector> {
        // What is hashed is computed faster than it is looked up.
        let Engine::Remote(remote) = &model.engine else { return None };
        let cached = self.cache.get(&remote.revision, text);
        let counter = match cached {
            Some(_) => &metrics().embedding_cache_hits,
            None => &metrics().embedding_cache_misses,
        };
        counter.inc();
        cached
    }

    /// Asks once for the vectors of `texts`, in their order; `dimensions` are what the index expects of each. The
    /// answer is checked, and kept for the next time.
    pub async fn embed(
        &self,
        model: &Model,
        texts: &[&str],
        dimensions: &[Option<usize>],
    ) -> std::result::Result<Vec<Vector>, Failure> {
        let remote = match &model.engine {
            Engine::Remote(remote) => remote,
            Engine::Hashing(hashing) => return hashed(*hashing, texts, dimensions).await,
        };
        let Some(after) = remote.connector.after else {
            let message = "its connector names no post_process_function, so no vector can be found in an answer";
            return Err(Failure::new(Class::Refused, message));
        };
        let mut parameters = remote.connector.parameters.clone();
        remote.connector.before.apply(texts, &mut parameters);
        let body = self.caller.call(&remote.connector, &parameters, texts).await?;
        let vectors = after
            .vectors(&body)
            .and_then(|vectors| checked(vectors, dimensions))
            .map_err(|message| Failure::new(Class::Answer, message))?;
        for (text, vector) in texts.iter().zip(&vectors) {
            self.cache.put(&remote.revision, text, vector.clone());
        }
        Ok(vectors)
    }

    /// One request with `given` in the place of the connector's own parameters.
    pub async fn predict(
        &self,
        model: &Model,
        given: Parameters,
    ) -> std::result::Result<Prediction, Failure> {
        let connector = match &model.engine {
            Engine::Remote(remote) => &remote.connector,
            Engine::Hashing(hashing) => {
                let texts = input(&given)?;
                return Ok(Prediction::Vectors(hashes(*hashing, texts).await?));
            }
        };
        let mut parameters = connector.parameters.clone();
        parameters.extend(given);
        let body = self.caller.call(connector, &parameters, &[]).await?;
        let read = match connector.after {
            Some(after) => after.vectors(&body).map(Prediction::Vectors),
            None => serde_json::from_slice(&body)
                .map(Prediction::Raw)
                .map_err(|_| "expected a JSON answer".to_owned()),
        };
        read.map_err(|message| Failure::new(Class::Answer, message))
    }

    /// One request for texts, as `_predict` makes it: the answer is not compared with what was asked.
    pub async fn predict_texts(
        &self,
        model: &Model,
        texts: &[&str],
    ) -> std::result::Result<Prediction, Failure> {
        let mut parameters = Parameters::new();
        let before = match &model.engine {
            Engine::Remote(remote) => remote.connector.before,
            Engine::Hashing(_) => Before::Input,
        };
        before.apply(texts, &mut parameters);
        self.predict(model, parameters).await
    }
}

/// The time of a definition's last change.
pub fn changed(definition: &Map<String, Value>) -> u64 {
    definition.get("last_updated_time").and_then(Value::as_u64).unwrap_or_default()
}

fn unknown(id: &str) -> Error {
    Error::new(ErrorKind::ModelRefused, format!("there is no model {id}")).with_advice(
        "register one (POST /_plugins/_ml/models/_register) and name its model_id in the pipeline (PUT /_ingest/pipeline/NAME), or name `hashing`, which is built in",
    )
}

/// Vectors of the built-in model. Another dimension than the index's will not change by asking again.
async fn hashed(
    hashing: Hashing,
    texts: &[&str],
    dimensions: &[Option<usize>],
) -> std::result::Result<Vec<Vector>, Failure> {
    let is_other = |expected: &&usize| **expected != hashing.dimension();
    if let Some(expected) = dimensions.iter().flatten().find(is_other) {
        let other = match Hashing::id_of_dimension(*expected) {
            Some(id) => format!("write model_id {id} in the pipeline"),
            None => "it has no other that fits".to_owned(),
        };
        let message = format!(
            "the index's mapping expects vectors of dimension {expected}, and these have {}: {other}",
            hashing.dimension()
        );
        return Err(Failure::new(Class::Refused, message));
    }
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    Ok(hashes(hashing, texts).await?.into_iter().map(Vector::from).collect())
}

/// On a thread of its own: a long text takes milliseconds.
async fn hashes(
    hashing: Hashing,
    texts: Vec<String>,
) -> std::result::Result<Vec<Vec<f32>>, Failure> {
    let blank = || Failure::new(Class::Payload, "a blank text has no vector");
    let work = move || texts.iter().map(|text| hashing.vector(text).ok_or_else(blank)).collect();
    let broken = |_| Failure::new(Class::Busy, "the hashing was broken off");
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

/// The texts of `input`: a list, or a single one.
fn input(given: &Parameters) -> std::result::Result<Vec<String>, Failure> {
    let input = given.get("input").ok_or_else(|| {
        Failure::new(Class::Payload, "Some parameter placeholder not filled in payload: input")
    })?;
    match serde_json::from_str::<Value>(input) {
        Ok(Value::Array(_)) => serde_json::from_str(input)
            .map_err(|_| Failure::new(Class::Payload, "input must be a text, or a list of texts")),
        _ => Ok(vec![input.clone()]),
    }
}

/// One vector for each text, of the right dimension, of real numbers.
fn checked(
    vectors: Vec<Vec<f32>>,
    dimensions: &[Option<usize>],
) -> std::result::Result<Vec<Vector>, String> {
    if vectors.len() != dimensions.len() {
        return Err(format!("expected {} vectors, got {}", dimensions.len(), vectors.len()));
    }
    let check = |(vector, dimension): (Vec<f32>, &Option<usize>)| match dimension {
        _ if vector.is_empty() => Err("expected a vector, got one without numbers".to_owned()),
        Some(expected) if *expected != vector.len() => Err(format!(
            "expected vectors of dimension {expected} (the index's mapping says so), got {}",
            vector.len()
        )),
        _ if vector.iter().any(|number| !number.is_finite()) => {
            Err("expected numbers that fit 32 bits, got one that does not".to_owned())
        }
        _ => Ok(Vector::from(vector)),
    };
    vectors.into_iter().zip(dimensions).map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_only_when_it_is_what_was_asked_for() {
        let four = [Some(2), None];
        assert!(checked(vec![vec![1.0, 2.0], vec![3.0]], &four).is_ok());
        let wrong = [
            (vec![vec![1.0, 2.0]], "expected 2 vectors, got 1"),
            (vec![vec![1.0], vec![3.0]], "expected vectors of dimension 2"),
            (vec![vec![1.0, 2.0], vec![]], "without numbers"),
            (vec![vec![1.0, f32::INFINITY], vec![1.0]], "fit 32 bits"),
        ];
        for (vectors, sentence) in wrong {
            let error = checked(vectors, &four).expect_err(sentence);
            assert!(error.contains(sentence), "{error}");
        }
    }
}
