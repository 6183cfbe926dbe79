//! One HTTP request to a model's endpoint, and the class of its failure: wait, give up, or ask again. Knows no document
//! and no retry.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use reqwest::{Client, header, header::HeaderMap, header::HeaderValue};
use secrecy::ExposeSecret;
use serde_json::{Value, value::RawValue};
use url::Url;

use super::{
    Config, Connector,
    template::{Form, Parameters, Secrets},
};
use crate::{
    error::{Error, ErrorKind, Result},
    net::{
        http::{self, Options},
        trust::{self, PublicOnly, Trust},
    },
};

/// 2,048 texts of 3,072 numbers of 20 digits are 126 MB; more is no answer of an embedding model.
const ANSWER_BYTES_MAX: usize = 160 << 20;
/// Of an error's answer, this much is read, and this much shown.
const ERROR_BYTES_MAX: usize = 64 << 10;
const ERROR_CHARS_MAX: usize = 300;

/// What can be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Patience helps: 429, 408, 5xx, time-out, broken connection.
    Busy,
    /// The endpoint says no, and will say no again.
    Refused,
    /// It answered, but not with what was asked for.
    Answer,
    /// We do not call there.
    Untrusted,
    /// The template cannot be filled so that it is a request.
    Payload,
}

/// Why a request brought no vectors. Holds neither a secret nor a text.
#[derive(Debug, Clone)]
pub struct Failure {
    pub class: Class,
    pub message: String,
    /// The endpoint's status, when it answered with an error.
    pub status: Option<u16>,
    /// The endpoint's own words, for the answer of `_predict`.
    pub remote: Option<String>,
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), status: None, remote: None, retry_after: None }
    }

    /// Whether the request may have been refused for one of its texts, so that the others may pass without it.
    pub fn may_be_one_text(&self) -> bool {
        self.class == Class::Refused && matches!(self.status, Some(400 | 413 | 422))
    }

    /// The same as an error about `model`.
    pub fn into_error(self, model: &str) -> Error {
        let kind = match self.class {
            Class::Busy => ErrorKind::ModelBusy,
            Class::Answer => ErrorKind::ModelAnswer,
            Class::Refused | Class::Untrusted | Class::Payload => ErrorKind::ModelRefused,
        };
        let error = Error::new(kind, format!("{model}: {}", self.message));
        match (self.class, self.status) {
            (Class::Untrusted, _) => error.with_advice(
                "allow it by PUT _cluster/settings: plugins.ml_commons.trusted_connector_endpoints_regex, and \
                 plugins.ml_commons.connector.private_ip_enabled for a private address",
            ),
            (_, Some(401 | 403)) => error.with_advice("check the connector's credential (PUT /_plugins/_ml/connectors/ID)"),
            (_, Some(404)) => error.with_advice("check the connector's url and model"),
            _ => error,
        }
    }
}

/// The HTTP clients of all models, and whom they may call.
#[derive(Debug)]
pub struct Caller {
    /// Refuses names that lead to private addresses. A client of its own, so that no pooled connection to such an
    /// address outlives the permission.
    public: Client,
    open: Client,
    trust: RwLock<Arc<Trust>>,
    timeout: Duration,
}

impl Caller {
    pub fn new(config: &Config, trust: Trust) -> Result<Self> {
        let options = |resolver| Options {
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            timeout: Duration::from_millis(config.timeout_ms),
            resolver,
            ..Options::default()
        };
        Ok(Self {
            public: http::client(options(Some(PublicOnly::resolver())))?,
            open: http::client(options(None))?,
            trust: RwLock::new(Arc::new(trust)),
            timeout: Duration::from_millis(config.timeout_ms),
        })
    }

    pub fn trust(&self) -> Arc<Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_trust(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }

    /// The sentence for a connector whose URL may not be called; its URL is shown without credentials.
    pub fn check_url(&self, connector: &Connector) -> std::result::Result<(), Failure> {
        let called = connector.called_url(&connector.parameters);
        self.trusted(&called, || connector.shown_url()).map(|_| ())
    }

    fn trusted(&self, url: &str, shown: impl Fn() -> String) -> std::result::Result<Url, Failure> {
        let refuse = || {
            let message = format!(
                "Connector URL is not matching the trusted connector endpoint regex, URL is: {}",
                shown()
            );
            Failure::new(Class::Untrusted, message)
        };
        // A URL whose text reads otherwise than its parts (a user before the host, a backslash, a tab) is never
        // trusted: the regex has seen the text, the connection goes to the parts.
        let odd = url.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control());
        if odd || !self.trust().allows(url) {
            return Err(refuse());
        }
        match Url::parse(url) {
            Ok(url)
                if matches!(url.scheme(), "http" | "https")
                    && url.username().is_empty()
                    && url.password().is_none() =>
            {
                Ok(url)
            }
            _ => Err(refuse()),
        }
    }

    /// Fills the connector's templates, sends the request, and returns the body of a good answer. `quoted` are texts
    /// that must not be seen in a failure.
    pub async fn call(
        &self,
        connector: &Connector,
        parameters: &Parameters,
        quoted: &[&str],
    ) -> std::result::Result<Bytes, Failure> {
        let url = self.trusted(&connector.called_url(parameters), || connector.shown_url())?;
        let trust = self.trust();
        if let Some(host) = trust.private_host(&url) {
            return Err(private(&host));
        }
        let timeout = connector.timeout.unwrap_or(self.timeout);
        let client = if trust.allows_private_ip() { &self.open } else { &self.public };
        let request = client
            .post(url)
            .headers(headers(connector, parameters)?)
            .timeout(timeout)
            .body(payload(connector, parameters)?);
        let unanswered = |error: reqwest::Error| match trust::refused_name(&error) {
            Some(host) => private(&host),
            None if error.is_builder() => {
                Failure::new(Class::Payload, "the connector's templates make no valid request")
            }
            None => Failure::new(Class::Busy, http::reason(&error, timeout)),
        };
        let response = request.send().await.map_err(unanswered)?;
        let status = response.status();
        if status.is_success() {
            return match http::body(response, ANSWER_BYTES_MAX).await.map_err(unanswered)? {
                Some(body) => Ok(body),
                None => Err(Failure::new(
                    Class::Answer,
                    format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"),
                )),
            };
        }
        let retry_after = http::retry_after(response.headers(), SystemTime::now());
        let body = http::body(response, ERROR_BYTES_MAX).await.ok().flatten().unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let words = redact(message_of(&body), &connector.secrets, quoted);
        let words: String = words.chars().take(ERROR_CHARS_MAX).collect();
        let separator = if words.is_empty() { "" } else { ": " };
        Err(Failure {
            class: if http::is_busy(status) { Class::Busy } else { Class::Refused },
            message: format!("the endpoint answered {}{separator}{words}", status.as_u16()),
            status: Some(status.as_u16()),
            remote: Some(redact(body.into_owned(), &connector.secrets, &[])),
            retry_after,
        })
    }
}

fn private(host: &str) -> Failure {
    Failure::new(
        Class::Untrusted,
        format!("Remote inference host name has private ip address: {host}"),
    )
}

fn headers(
    connector: &Connector,
    parameters: &Parameters,
) -> std::result::Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    for (name, template) in &connector.headers {
        let value = template.fill(Form::Raw, parameters, Some(&connector.secrets)).text;
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            Failure::new(
                Class::Payload,
                format!("the value of the header {name} is not one line of text"),
            )
        })?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    map.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Ok(map)
}

/// The request's body, which must be JSON with every placeholder filled.
fn payload(connector: &Connector, parameters: &Parameters) -> std::result::Result<String, Failure> {
    let filled = connector.body.fill(Form::Json, parameters, Some(&connector.secrets));
    if serde_json::from_str::<&RawValue>(&filled.text).is_err() {
        // Shown with the connector's own parameters only: the others may hold documents.
        let shown = connector.body.fill(Form::Json, &connector.parameters, None).text;
        return Err(Failure::new(Class::Payload, format!("Invalid payload: {shown}")));
    }
    match filled.missing.first() {
        Some(name) => Err(Failure::new(
            Class::Payload,
            format!("Some parameter placeholder not filled in payload: {name}"),
        )),
        None => Ok(filled.text),
    }
}

/// The sentence in an error's body: `error.message`, `error`, `message`, `detail`, or the body as it is.
fn message_of(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let places = ["/error/message", "/error", "/message", "/detail"];
    let words = places.iter().find_map(|place| json.pointer(place)?.as_str()).unwrap_or(body);
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Takes out secrets, and texts of documents, as they are and as JSON writes them.
fn redact(mut text: String, secrets: &Secrets, quoted: &[&str]) -> String {
    let mut replace = |needle: &str, with: &str| {
        // A text of one or two letters gives nothing away, and would tear any sentence apart.
        if needle.len() > 2 {
            let escaped = Value::from(needle).to_string();
            text = text.replace(needle, with).replace(&escaped[1..escaped.len() - 1], with);
        }
    };
    secrets.values().for_each(|secret| replace(secret.expose_secret(), "***"));
    for quoted in quoted {
        replace(quoted, "…");
        replace(&quoted.split_whitespace().collect::<Vec<_>>().join(" "), "…");
    }
    text
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn an_endpoints_words_are_kept_without_secrets_and_texts() {
        let body =
            r#"{"error": {"message": "key sk-\"1 is wrong\n for 'some text'", "type": "x"}}"#;
        let secrets = Secrets::from([("k".to_owned(), SecretString::from("sk-\"1"))]);
        assert_eq!(redact(message_of(body), &secrets, &["some  text"]), "key *** is wrong for '…'");
        assert_eq!(redact(body.to_owned(), &secrets, &[]).matches("***").count(), 1);
        assert_eq!(message_of("<html> a\n b"), "<html> a b");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let failure = Failure {
            status: Some(401),
            ..Failure::new(Class::Refused, "the endpoint answered 401")
        };
        let error = failure.into_error("model `m`");
        assert_eq!(error.kind(), ErrorKind::ModelRefused);
        assert!(error.report().contains("credential"));
        assert_eq!(Failure::new(Class::Busy, "x").into_error("m").kind(), ErrorKind::ModelBusy);
    }

    #[test]
    fn urls_whose_text_and_parts_differ_are_not_trusted() {
        let trust = Trust::new(&["^https://good.*$".to_owned()], true).expect("parses");
        let caller = Caller::new(&Config::default(), trust).expect("a caller");
        let trusted = |url: &str| caller.trusted(url, String::new).is_ok();
        assert!(trusted("https://good/v1"));
        for url in [
            "https://good@evil/",
            "https://good\\@evil/",
            "https://go\tod/",
            "https://good:x@evil/",
            "ftp://good/",
        ] {
            assert!(!trusted(url), "{url}");
        }
    }
}
