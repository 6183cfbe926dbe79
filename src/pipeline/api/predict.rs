//! `_predict`: shows what a model answers. Knows no pipeline; asks once, so that the caller sees every failure.

use serde_json::{Map, Value, json};

use super::{Answer, Api, Handled, Request, fault::Fault};
use crate::connector::{Class, Parameters, Prediction};

impl Api {
    /// `takes_texts`: whether the path is the one that takes `text_docs` beside `parameters`.
    pub(super) async fn predict(
        &self,
        id: &str,
        request: &Request<'_>,
        takes_texts: bool,
    ) -> Handled {
        let body = request.object(Fault::parse("request body is required"))?;
        self.deploy_if_needed(id).await?;
        let model = self.inner.models.model(id)?;
        let _turn = model.limits.turn().await;
        let prediction = match body.get("text_docs") {
            Some(Value::Array(texts)) if takes_texts => {
                let texts: Option<Vec<&str>> = texts.iter().map(Value::as_str).collect();
                let texts =
                    texts.ok_or_else(|| Fault::argument("text_docs must be a list of texts"))?;
                self.inner.models.predict_texts(&model, &texts).await?
            }
            _ => {
                let predict = |parameters| self.inner.models.predict(&model, parameters);
                match predict(parameters(&body, false)).await {
                    // Nothing was sent: the template has no quotes around its place.
                    Err(failure) if failure.class == Class::Payload && has_single_input(&body) => {
                        predict(parameters(&body, true)).await?
                    }
                    predicted => predicted?,
                }
            }
        };
        Ok(Answer::ok(shown(prediction)))
    }
}

/// The request's parameters; `as_list` takes a single text as `input` for a list of one.
fn parameters(body: &Map<String, Value>, as_list: bool) -> Parameters {
    let given = body.get("parameters").and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) if as_list && name == "input" => json!([text]).to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (name.clone(), text)
    };
    given.into_iter().flatten().map(text).collect()
}

fn has_single_input(body: &Map<String, Value>) -> bool {
    body.get("parameters")
        .and_then(|parameters| parameters.get("input"))
        .is_some_and(Value::is_string)
}

fn shown(prediction: Prediction) -> Value {
    let output: Vec<Value> = match prediction {
        Prediction::Vectors(vectors) => vectors.iter().map(|vector| tensor(vector)).collect(),
        Prediction::Raw(answer) => vec![json!({"name": "response", "dataAsMap": answer})],
    };
    let mut result = Map::new();
    if !output.is_empty() {
        result.insert("output".to_owned(), output.into());
    }
    result.insert("status_code".to_owned(), json!(200));
    json!({"inference_results": [result]})
}

fn tensor(vector: &[f32]) -> Value {
    json!({
        "name": "sentence_embedding", "data_type": "FLOAT32", "shape": [vector.len()],
        "data": vector.iter().map(|number| shortest(*number)).collect::<Vec<_>>()
    })
}

/// The number with the fewest digits that are the same 32 bits: 0.1 and not 0.10000000149011612.
fn shortest(number: f32) -> Value {
    zmij::Buffer::new().format(number).parse::<f64>().ok().map_or(Value::Null, Value::from)
}
