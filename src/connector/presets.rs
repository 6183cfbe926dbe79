//! The named functions that turn texts into a request's parameters and an answer into vectors. Knows no network.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::template::Parameters;
use crate::error::{Error, ErrorKind, Result};

/// How texts become parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// `input` is the list of texts.
    Input,
    /// `texts` is the list of texts.
    Texts,
}

/// Where an answer keeps its vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// `{"data": [{"index": 0, "embedding": […]}, …]}`
    OpenAi,
    /// `{"embeddings": [[…], …]}`
    Cohere,
    /// `[[…], …]`
    Plain,
}

impl Before {
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "connector.pre_process.openai.embedding"
            | "connector.pre_process.default.embedding" => Ok(Self::Input),
            "connector.pre_process.cohere.embedding" => Ok(Self::Texts),
            _ => Err(unknown("pre_process")),
        }
    }

    pub fn apply(self, texts: &[&str], parameters: &mut Parameters) {
        let name = match self {
            Self::Input => "input",
            Self::Texts => "texts",
        };
        let list = Value::Array(texts.iter().map(|text| Value::from(*text)).collect());
        parameters.insert(name.to_owned(), list.to_string());
    }
}

fn unknown(which: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "unknown {which}_function: this version has connector.{which}.{{openai,cohere,default}}.embedding"
        ),
    )
}

impl After {
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "connector.post_process.openai.embedding" => Ok(Self::OpenAi),
            "connector.post_process.cohere.embedding" => Ok(Self::Cohere),
            "connector.post_process.default.embedding" => Ok(Self::Plain),
            _ => Err(unknown("post_process")),
        }
    }

    /// The vectors of an answer in the order of the texts, or what is wrong with it (without its content).
    pub fn vectors(self, body: &[u8]) -> std::result::Result<Vec<Vec<f32>>, String> {
        match self {
            Self::OpenAi => {
                let OpenAi { data } = parse(body, "an object with `data`")?;
                let numbers: Vec<Option<usize>> = data.iter().map(|item| item.index()).collect();
                let vectors = data.into_iter().map(|item| item.embedding).collect();
                Ok(by_index(vectors, &numbers))
            }
            Self::Cohere => Ok(parse::<Cohere>(body, "an object with `embeddings`")?.embeddings),
            Self::Plain => parse(body, "a list of vectors"),
        }
    }
}

#[derive(Deserialize)]
struct OpenAi {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    /// Kept as written: an endpoint that puts something else there still has its vectors in order.
    #[serde(default)]
    index: Option<Box<RawValue>>,
    embedding: Vec<f32>,
}

impl Item {
    fn index(&self) -> Option<usize> {
        self.index.as_ref()?.get().parse().ok()
    }
}

#[derive(Deserialize)]
struct Cohere {
    embeddings: Vec<Vec<f32>>,
}

fn parse<'b, T: Deserialize<'b>>(body: &'b [u8], expected: &str) -> std::result::Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let what: Cow<'_, str> = match error.classify() {
            serde_json::error::Category::Data => format!("JSON that is not {expected}").into(),
            _ if body.is_empty() => "nothing".into(),
            _ => format!("no JSON (it breaks at byte {} of line {})", error.column(), error.line())
                .into(),
        };
        format!("expected {expected}, got {what}")
    })
}

/// Puts each vector at its `index` when every one has its own valid one; else the list's order counts.
fn by_index(vectors: Vec<Vec<f32>>, numbers: &[Option<usize>]) -> Vec<Vec<f32>> {
    let count = vectors.len();
    let mut seen = vec![false; count];
    let all_valid = numbers.iter().all(|number| match number.and_then(|at| seen.get_mut(at)) {
        Some(seen) => !std::mem::replace(seen, true),
        None => false,
    });
    if !all_valid {
        return vectors;
    }
    let mut sorted = vec![Vec::new(); count];
    for (vector, at) in vectors.into_iter().zip(numbers.iter().flatten()) {
        sorted[*at] = vector;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai(body: &str) -> std::result::Result<Vec<Vec<f32>>, String> {
        After::OpenAi.vectors(body.as_bytes())
    }

    #[test]
    fn an_answer_is_put_into_the_order_of_its_indexes() {
        let body = r#"{"data":[{"index":1,"embedding":[1]},{"index":0,"embedding":[0.5]}]}"#;
        assert_eq!(openai(body), Ok(vec![vec![0.5], vec![1.0]]));
    }

    #[test]
    fn indexes_that_make_no_order_leave_the_order_of_the_list() {
        for second in ["0", "2", "-1", "\"a\"", "null"] {
            let body = format!(
                r#"{{"data":[{{"index":0,"embedding":[1]}},{{"index":{second},"embedding":[2]}}]}}"#
            );
            assert_eq!(openai(&body), Ok(vec![vec![1.0], vec![2.0]]), "{second}");
        }
        assert_eq!(openai(r#"{"data":[{"embedding":[1]}]}"#), Ok(vec![vec![1.0]]));
    }

    #[test]
    fn other_shapes_are_told_without_their_content() {
        for body in [
            "<html>secret",
            "",
            "[]",
            r#"{"data":[{"embedding":[null]}]}"#,
            r#"{"data":[{"embedding":"secret"}]}"#,
        ] {
            let error = openai(body).expect_err(body);
            assert!(
                error.starts_with("expected an object with `data`, got ")
                    && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn cohere_and_plain_answers_are_read() {
        assert_eq!(
            After::Cohere.vectors(br#"{"id":"x","embeddings":[[1,2]]}"#),
            Ok(vec![vec![1.0, 2.0]])
        );
        assert_eq!(After::Plain.vectors(b"[[1],[2]]"), Ok(vec![vec![1.0], vec![2.0]]));
    }

    #[test]
    fn texts_become_one_json_list() {
        let mut parameters = Parameters::new();
        Before::Texts.apply(&["a\"", "漢"], &mut parameters);
        assert_eq!(parameters["texts"], r#"["a\"","漢"]"#);
    }
}
