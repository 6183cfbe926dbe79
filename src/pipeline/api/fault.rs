//! Errors in the shape that clients of the original know. Knows no request.

use serde_json::{Map, Value, json};

use super::Answer;
use crate::{
    connector::{Class, Failure},
    error::{Error, ErrorKind},
};

/// A refusal: status, type, reason, and what else the original says beside them.
#[derive(Debug)]
pub struct Fault {
    status: u16,
    kind: &'static str,
    reason: String,
    beside: Box<Beside>,
}

#[derive(Debug, Default)]
struct Beside {
    extra: Map<String, Value>,
    caused_by: Option<Value>,
}

impl Fault {
    pub fn new(status: u16, kind: &'static str, reason: impl Into<String>) -> Self {
        Self { status, kind, reason: reason.into(), beside: Box::default() }
    }

    pub fn argument(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    pub fn parse(reason: impl Into<String>) -> Self {
        Self::new(400, "parse_exception", reason)
    }

    pub fn not_found(reason: impl Into<String>) -> Self {
        Self::new(404, "status_exception", reason)
    }

    /// A body that is not JSON, with the place where it breaks.
    pub fn json(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        if error.is_eof() {
            return Self::new(
                400,
                "json_e_o_f_exception",
                format!("Unexpected end-of-input; line: {line}, column: {column}"),
            );
        }
        Self::new(
            400,
            "json_parse_exception",
            format!("Unexpected character; line: {line}, column: {column}"),
        )
    }

    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.beside.extra.insert(key.to_owned(), value);
        self
    }

    pub fn property(self, name: &str) -> Self {
        self.with("property_name", json!(name))
    }

    pub fn caused_by(mut self, cause: Value) -> Self {
        self.beside.caused_by = Some(cause);
        self
    }

    pub fn answer(self) -> Answer {
        let mut error = Map::from_iter([
            ("type".to_owned(), json!(self.kind)),
            ("reason".to_owned(), json!(self.reason)),
        ]);
        error.extend(self.beside.extra);
        let root = Value::from(error.clone());
        if let Some(cause) = self.beside.caused_by {
            error.insert("caused_by".to_owned(), cause);
        }
        error.shift_insert(0, "root_cause".to_owned(), json!([root]));
        Answer { status: self.status, body: json!({"error": error, "status": self.status}) }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Input | ErrorKind::Unsupported => Self::argument(error.report()),
            ErrorKind::NotFound => Self::not_found(error.report()),
            _ => Self::new(500, "status_exception", error.report()),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match (failure.class, failure.status, failure.remote) {
            (Class::Untrusted | Class::Payload, ..) => Self::argument(failure.message),
            (Class::Busy | Class::Refused, Some(status), Some(words)) => {
                // A redirect is not followed, and is no status that an error may have.
                let status = if status < 400 { 500 } else { status };
                Self::new(status, "status_exception", format!("Error from remote service: {words}"))
            }
            (Class::Busy, ..) => Self::new(
                500,
                "status_exception",
                format!("Error communicating with remote model: {}", failure.message),
            ),
            (Class::Answer | Class::Refused, ..) => {
                Self::new(500, "m_l_exception", "Fail to execute PREDICT in http connector")
                    .caused_by(
                        json!({"type": "illegal_argument_exception", "reason": failure.message}),
                    )
            }
        }
    }
}

pub fn no_handler(method: &str, uri: &str) -> Answer {
    Answer {
        status: 400,
        body: json!({"error": format!("no handler found for uri [{uri}] and method [{method}]")}),
    }
}

pub fn wrong_method(method: &str, uri: &str, allowed: &[&str]) -> Answer {
    let error = format!(
        "Incorrect HTTP method for uri [{uri}] and method [{method}], allowed: [{}]",
        allowed.join(", ")
    );
    Answer { status: 405, body: json!({"error": error, "status": 405}) }
}
