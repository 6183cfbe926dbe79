//! A request taken apart: path, parameters, body. A parameter that is not understood is refused. Knows no index.

use axum::http::Uri;
use bytes::Bytes;
use serde_json::Value;

use crate::index::{Answer, Fault, is_duration};

/// Parameters that every request may have, because they change nothing of what is answered here.
const EVERYWHERE: [&str; 3] = ["pretty", "human", "error_trace"];

pub struct Request<'r> {
    pub method: &'r str,
    pub path: &'r str,
    pub segments: Vec<String>,
    parameters: Vec<(String, String)>,
    pub body: Bytes,
}

impl<'r> Request<'r> {
    pub fn new(method: &'r str, uri: &'r Uri, body: Bytes) -> Self {
        let path = uri.path();
        let segments = path.trim_matches('/').split('/').map(decoded).collect();
        let query = uri.query().unwrap_or("").as_bytes();
        let parameters = url::form_urlencoded::parse(query).into_owned().collect();
        Self { method, path, segments, parameters, body }
    }

    /// Refuses parameters that are not among `known`, and values that they cannot have.
    pub fn only(&self, known: &[&str]) -> Answer<()> {
        let is_known = |name: &str| known.contains(&name) || EVERYWHERE.contains(&name);
        for (name, value) in &self.parameters {
            if !is_known(name) {
                return Err(Fault::request(format!(
                    "request [{}] contains unrecognized parameter: [{name}]; the embedded index does not know it",
                    self.path
                )));
            }
            check(name, value)?;
        }
        Ok(())
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
        serde_json::from_slice(&self.body).map_err(|error| {
            Fault::new(400, "parse_exception", format!("the body is not JSON: {error}"))
        })
    }
}

/// Parameters mean the same wherever they stand. Some are taken and change nothing here; they still must make sense.
fn check(name: &str, value: &str) -> Answer<()> {
    let is_truth = matches!(value, "" | "true" | "false");
    let (is_good, good) = match name {
        "require_alias" => (value == "false", "false: the embedded index has no aliases"),
        "refresh" => (is_truth || value == "wait_for", "true, false or wait_for"),
        "timeout" | "master_timeout" | "cluster_manager_timeout" => {
            (is_duration(value), "a time with its unit, as 10s")
        }
        "wait_for_active_shards" => {
            (matches!(value, "all" | "0" | "1"), "all, 0 or 1: there is one of each shard")
        }
        "search_type" => (
            matches!(value, "query_then_fetch" | "dfs_query_then_fetch"),
            "query_then_fetch or dfs_query_then_fetch",
        ),
        "track_total_hits" => (is_truth || value.parse::<u64>().is_ok(), "true, false or a number"),
        "wait_for_status" => (matches!(value, "green" | "yellow" | "red"), "green, yellow or red"),
        "ignore_unavailable" | "allow_no_indices" | "flat_settings" | "include_defaults"
        | "local" | "realtime" | "request_cache" | "typed_keys" => (is_truth, "true or false"),
        _ => (true, ""),
    };
    match is_good {
        true => Ok(()),
        false => Err(Fault::request(format!("the parameter [{name}] can only be {good}"))),
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
        let request = Request::new("PUT", &uri, Bytes::from_static(b" "));
        assert_eq!(request.segments, ["goods", "_doc", "a/b 中"]);
        assert!(request.flag("refresh"));
        assert_eq!(request.parameter("version"), Some("7"));
        assert_eq!(request.json(), Ok(Value::Null));
        assert!(request.only(&["refresh", "version"]).is_ok());
        assert!(request.only(&["refresh"]).expect_err("unknown").reason.contains("[version]"));
    }

    #[test]
    fn a_value_that_a_parameter_cannot_have_is_refused() {
        for (uri, told) in [
            ("/a/_doc/1?require_alias=true", "aliases"),
            ("/a/_doc/1?require_alias", "aliases"),
            ("/a/_doc/1?refresh=maybe", "wait_for"),
            ("/a/_search?timeout=soon", "10s"),
            ("/a/_doc/1?wait_for_active_shards=2", "all, 0 or 1"),
            ("/a/_search?ignore_unavailable=1", "true or false"),
        ] {
            let uri: Uri = uri.parse().expect("an address");
            let request = Request::new("PUT", &uri, Bytes::new());
            let names: Vec<&str> =
                request.parameters.iter().map(|(name, _)| name.as_str()).collect();
            assert!(request.only(&names).expect_err("refused").reason.contains(told), "{uri}");
        }
        let uri = Uri::from_static("/a/_doc/1?refresh&timeout=1m&require_alias=false");
        let request = Request::new("PUT", &uri, Bytes::new());
        assert_eq!(request.only(&["refresh", "timeout", "require_alias"]), Ok(()));
    }
}
