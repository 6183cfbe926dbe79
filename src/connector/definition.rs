//! A connector's JSON, checked and made ready to use. Knows no network: whether its URL may be called is asked by the
//! caller.

use std::time::Duration;

use reqwest::header::HeaderName;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::{
    presets::{After, Before},
    template::{Form, Parameters, Secrets, Template},
};
use crate::error::{Error, ErrorKind, Result};

/// How one endpoint is called.
#[derive(Debug, Clone)]
pub struct Connector {
    pub(super) parameters: Parameters,
    pub(super) secrets: Secrets,
    pub(super) url: Template,
    pub(super) headers: Vec<(HeaderName, Template)>,
    pub(super) body: Template,
    pub(super) before: Before,
    /// Without it the answer is passed on as it is (`_predict` only).
    pub(super) after: Option<After>,
    pub(super) timeout: Option<Duration>,
    pub(super) concurrency_max: Option<usize>,
    pub(super) batch_texts: Option<usize>,
}

/// Takes the credentials out of a connector's JSON: the rest may be stored and shown.
pub fn split_credential(definition: &mut Map<String, Value>) -> Result<Option<Secrets>> {
    match definition.shift_remove("credential") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(credential)) => Ok(Some(
            credential
                .into_iter()
                .map(|(name, value)| (name, SecretString::from(text(value))))
                .collect(),
        )),
        Some(_) => Err(Error::input("Connector credential must be an object of names and values")),
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

impl Connector {
    /// The JSON as it is stored and shown: known keys in the original's order, `version` as text.
    pub fn normalised(given: &Map<String, Value>) -> Map<String, Value> {
        let mut shown = Map::new();
        for key in
            ["name", "version", "description", "protocol", "parameters", "actions", "client_config"]
        {
            let value = match (key, given.get(key)) {
                (_, None | Some(Value::Null)) => continue,
                ("version", Some(version)) => text(version.clone()).into(),
                ("actions", Some(Value::Array(actions))) => {
                    actions.iter().map(normalised_action).collect()
                }
                (_, Some(value)) => value.clone(),
            };
            shown.insert(key.to_owned(), value);
        }
        shown
    }

    pub fn parse(definition: &Map<String, Value>, secrets: Secrets) -> Result<Self> {
        for key in ["name", "version", "protocol"] {
            let present =
                definition.get(key).is_some_and(|value| !value.is_null() && *value != json!(""));
            if !present {
                return Err(Error::input(format!("Connector {key} is null")));
            }
        }
        match definition["protocol"].as_str().unwrap_or_default() {
            "http" => {}
            "aws_sigv4" => {
                return Err(unsupported(
                    "protocol aws_sigv4 is not there yet: this version has http",
                ));
            }
            other => return Err(Error::input(format!("Can't find class for type {other}"))),
        }
        let parameters = parameters(definition.get("parameters"))?;
        let action = predict_action(definition)?;
        let connector = Self {
            url: Template::parse(required(action, "url")?),
            headers: headers(action)?,
            body: Template::parse(required(action, "request_body")?),
            before: optional(action, "pre_process_function")?
                .map_or(Ok(Before::Input), Before::named)?,
            after: optional(action, "post_process_function")?.map(After::named).transpose()?,
            timeout: seconds(definition, "read_timeout")?,
            concurrency_max: client_config(definition, "max_connection")?
                .map(|count| count as usize),
            batch_texts: step_size(&parameters)?,
            parameters,
            secrets,
        };
        connector.check_credentials()?;
        Ok(connector)
    }

    /// The URL with its parameters filled in, and credentials left as placeholders: fit to be shown.
    pub fn shown_url(&self) -> String {
        self.url.fill(Form::Raw, &self.parameters, None).text
    }

    /// The URL as it is called.
    pub(super) fn called_url(&self, parameters: &Parameters) -> String {
        self.url.fill(Form::Raw, parameters, Some(&self.secrets)).text
    }

    /// The recorded refusal where the templates ask for a credential; where none does, none is needed.
    fn check_credentials(&self) -> Result<()> {
        let templates =
            [&self.url, &self.body].into_iter().chain(self.headers.iter().map(|(_, value)| value));
        let missing = templates
            .flat_map(Template::credentials)
            .find(|name| !self.secrets.contains_key(*name));
        match missing {
            None => Ok(()),
            Some(_) if self.secrets.is_empty() => {
                Err(Error::input("Connector credential is null or empty list"))
            }
            Some(name) => Err(Error::input(format!(
                "Connector credential has no `{name}`, which ${{credential.{name}}} asks for"
            ))),
        }
    }
}

fn unsupported(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

fn normalised_action(action: &Value) -> Value {
    let mut action = action.clone();
    if let Some(Value::String(kind)) = action.get_mut("action_type") {
        *kind = kind.to_uppercase();
    }
    action
}

/// Parameters as texts; what is not a text is kept as its JSON.
fn parameters(given: Option<&Value>) -> Result<Parameters> {
    match given {
        None | Some(Value::Null) => Ok(Parameters::new()),
        Some(Value::Object(map)) if map.contains_key("response_filter") => Err(unsupported(
            "the parameter response_filter is not there yet: name a post_process_function",
        )),
        Some(Value::Object(map)) => {
            Ok(map.iter().map(|(name, value)| (name.clone(), text(value.clone()))).collect())
        }
        Some(_) => Err(Error::input("Connector parameters must be an object")),
    }
}

fn predict_action(definition: &Map<String, Value>) -> Result<&Map<String, Value>> {
    let actions =
        definition.get("actions").and_then(Value::as_array).filter(|actions| !actions.is_empty());
    let Some(actions) = actions else {
        return Err(Error::input("No actions configured for this connector"));
    };
    let is_predict = |action: &&Map<String, Value>| {
        optional(action, "action_type")
            .ok()
            .flatten()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("predict"))
    };
    let action = actions.iter().filter_map(Value::as_object).find(is_predict).ok_or_else(|| {
        Error::input("No predict action configured for this connector: one action needs the action_type predict")
    })?;
    match optional(action, "method")?.unwrap_or("POST") {
        method if method.eq_ignore_ascii_case("post") => Ok(action),
        method => Err(unsupported(&format!(
            "method {method} is not there: this version calls endpoints by POST"
        ))),
    }
}

fn optional<'a>(action: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>> {
    match action.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::input(format!("{key} of a connector's action must be a text"))),
    }
}

fn required<'a>(action: &'a Map<String, Value>, key: &str) -> Result<&'a str> {
    optional(action, key)?
        .ok_or_else(|| Error::input(format!("the predict action of this connector needs {key}")))
}

fn headers(action: &Map<String, Value>) -> Result<Vec<(HeaderName, Template)>> {
    let headers = match action.get("headers") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(headers)) => headers,
        Some(_) => {
            return Err(Error::input("headers of a connector's action must be an object of texts"));
        }
    };
    let parse = |(name, value): (&String, &Value)| {
        let known = HeaderName::try_from(name.as_str())
            .map_err(|_| Error::input(format!("`{name}` is not a header's name")))?;
        let value = value
            .as_str()
            .ok_or_else(|| Error::input(format!("the header {name} must be a text")))?;
        Ok((known, Template::parse(value)))
    };
    headers.iter().map(parse).collect()
}

fn client_config(definition: &Map<String, Value>, key: &str) -> Result<Option<u64>> {
    match definition.get("client_config").and_then(|config| config.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::input(format!("client_config.{key} must be a positive integer"))),
        },
    }
}

fn seconds(definition: &Map<String, Value>, key: &str) -> Result<Option<Duration>> {
    Ok(client_config(definition, key)?.map(Duration::from_secs))
}

fn step_size(parameters: &Parameters) -> Result<Option<usize>> {
    let Some(given) = parameters.get("input_docs_processed_step_size") else { return Ok(None) };
    match given.parse::<usize>() {
        Ok(texts) if texts > 0 => Ok(Some(texts)),
        _ => Err(Error::input(
            "Invalid parameter: input_docs_processed_step_size. It must be positive integer.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(change: impl FnOnce(&mut Value)) -> Map<String, Value> {
        let mut definition = json!({
            "name": "n", "version": 1, "protocol": "http", "parameters": {"model": "m", "dimensions": 4},
            "actions": [{
                "action_type": "predict", "method": "POST", "url": "http://h/${parameters.model}?k=${credential.key}",
                "headers": {"Authorization": "Bearer ${credential.key}"},
                "request_body": "{ \"input\": ${parameters.input} }",
                "pre_process_function": "connector.pre_process.openai.embedding",
                "post_process_function": "connector.post_process.openai.embedding"
            }]
        });
        change(&mut definition);
        definition.as_object().expect("an object").clone()
    }

    fn parse(change: impl FnOnce(&mut Value)) -> Result<Connector> {
        let secrets = Secrets::from([("key".to_owned(), SecretString::from("sk"))]);
        Connector::parse(&definition(change), secrets)
    }

    #[test]
    fn a_connector_shows_its_url_without_credentials() {
        let connector = parse(|_| ()).expect("parses");
        assert_eq!(connector.shown_url(), "http://h/m?k=${credential.key}");
        assert_eq!(connector.called_url(&connector.parameters), "http://h/m?k=sk");
        assert!(!format!("{connector:?}").contains("sk\""));
    }

    #[test]
    fn each_fault_has_its_sentence() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 10] = [
            (|d| d["name"] = Value::Null, "Connector name is null"),
            (|d| d["protocol"] = json!("ftp"), "Can't find class for type ftp"),
            (|d| d["protocol"] = json!("aws_sigv4"), "protocol aws_sigv4 is not there yet"),
            (|d| d["actions"] = json!([]), "No actions configured for this connector"),
            (|d| d["actions"][0]["method"] = json!("FOO"), "method FOO is not there"),
            (|d| d["actions"][0]["url"] = Value::Null, "needs url"),
            (
                |d| d["actions"][0]["pre_process_function"] = json!("x"),
                "unknown pre_process_function",
            ),
            (|d| d["actions"][0]["headers"]["a b"] = json!("x"), "`a b` is not a header's name"),
            (|d| d["actions"][0]["headers"]["x"] = json!("${credential.other}"), "has no `other`"),
            (
                |d| d["parameters"]["input_docs_processed_step_size"] = json!(0),
                "It must be positive integer.",
            ),
        ];
        for (change, sentence) in cases {
            let error = parse(change).expect_err(sentence);
            assert!(error.to_string().contains(sentence), "{error} / {sentence}");
        }
    }

    #[test]
    fn a_credential_is_needed_only_where_a_template_asks_for_one() {
        let without = |d: &mut Value| {
            d["actions"][0]["headers"] = json!({});
            d["actions"][0]["url"] = json!("http://h/v1");
        };
        assert!(Connector::parse(&definition(without), Secrets::new()).is_ok());
        let error = Connector::parse(&definition(|_| ()), Secrets::new()).expect_err("refused");
        assert_eq!(error.to_string(), "Connector credential is null or empty list");
    }

    #[test]
    fn what_is_shown_has_no_credential_and_the_originals_order() {
        let mut given = definition(|d| d["credential"] = json!({"key": "sk-1", "number": 5}));
        given.insert("unknown".to_owned(), json!(1));
        let secrets = split_credential(&mut given).expect("an object").expect("there are some");
        assert_eq!(secrets.keys().collect::<Vec<_>>(), ["key", "number"]);
        let shown = Connector::normalised(&given);
        assert_eq!(
            shown.keys().collect::<Vec<_>>(),
            ["name", "version", "protocol", "parameters", "actions"]
        );
        assert_eq!(shown["version"], "1");
        assert_eq!(shown["actions"][0]["action_type"], "PREDICT");
    }
}
