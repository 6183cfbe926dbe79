//! A request taken apart: path, parameters, body. A parameter that is not understood is refused. Knows no index.

use axum::http::Uri;
use serde_json::Value;

use crate::index::{Answer, Fault};

/// Parameters that every request may have, because they change nothing of what is answered here.
const EVERYWHERE: [&str; 3] = ["pretty", "human", "error_trace"];

pub struct Request<'r> {
    pub method: &'r str,
    pub path: &'r str,
    pub segments: Vec<String>,
    parameters: Vec<(String, String)>,
    pub body: &'r [u8],
}

impl<'r> Request<'r> {
    pub fn new(method: &'r str, uri: &'r Uri, body: &'r [u8]) -> Self {
        let path = uri.path();
        let segments = path.trim_matches('/').split('/').map(decoded).collect();
        let query = uri.query().unwrap_or("").as_bytes();
        let parameters = url::form_urlencoded::parse(query).into_owned().collect();
        Self { method, path, segments, parameters, body }
    }

    /// Refuses parameters that are not among `known`.
    pub fn only(&self, known: &[&str]) -> Answer<()> {
        let is_known = |name: &str| known.contains(&name) || EVERYWHERE.contains(&name);
        match self.parameters.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(()),
            Some((name, _)) => Err(Fault::request(format!(
                "request [{}] contains unrecognized parameter: [{name}]; the embedded index does not know it",
                self.path
            ))),
        }
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("" | "true"))
    }

    /// The body as JSON; null if there is none.
    pub fn json(&self) -> Answer<Value> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(self.body).map_err(|error| {
            Fault::new(400, "parse_exception", format!("the body is not JSON: {error}"))
        })
    }
}

/// A path's segment with its `%xx` read.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_apart() {
        let uri = Uri::from_static("/goods/_doc/a%2Fb%20%E4%B8%AD?refresh&version=7&pretty");
        let request = Request::new("PUT", &uri, b" ");
        assert_eq!(request.segments, ["goods", "_doc", "a/b 中"]);
        assert!(request.flag("refresh"));
        assert_eq!(request.parameter("version"), Some("7"));
        assert_eq!(request.json(), Ok(Value::Null));
        assert!(request.only(&["refresh", "version"]).is_ok());
        assert!(request.only(&["refresh"]).expect_err("unknown").reason.contains("[version]"));
    }
}
