//! Request templates: `${parameters.x}`, `${parameters.x:-default}` and `${credential.x}` in a connector's URL, headers
//! and body. Knows no endpoint and no text.
//!
//! Only the template is looked through for placeholders, never what is put in their place: a document that holds
//! `${parameters.model}` is sent as it stands, and none can make a credential appear.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

pub type Parameters = BTreeMap<String, String>;
pub type Secrets = BTreeMap<String, SecretString>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Slot {
        from: From,
        name: String,
        default: Option<String>,
    },
    /// `"${parameters.x:-null}"` with its quotes: the value as a string, or a bare `null`.
    OrNull {
        name: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Parameters,
    Credential,
}

/// What becomes of a value that is put into a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is: URLs and headers.
    Raw,
    /// Into a JSON text: a value that is JSON stays as it is, any other is escaped.
    Json,
}

/// A filled template; a placeholder without a value stays where it was, and its name is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Filled {
    pub text: String,
    pub missing: Vec<String>,
}

impl Template {
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut plain = String::new();
        while let Some(at) = rest.find("${") {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some((slot, length)) = slot(rest) else {
                plain.push_str("${");
                rest = &rest[2..];
                continue;
            };
            rest = &rest[length..];
            let part = match slot {
                Part::Slot { from: From::Parameters, name, default: Some(default) }
                    if default == "null" && plain.ends_with('"') && rest.starts_with('"') =>
                {
                    plain.pop();
                    rest = &rest[1..];
                    Part::OrNull { name }
                }
                slot => slot,
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self { parts }
    }

    /// The names of the credentials that the template asks for.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Slot { from: From::Credential, name, default: None } => Some(name.as_str()),
            _ => None,
        })
    }

    /// Puts the values in place. Without `secrets` the credentials' placeholders stay, which is how a filled template
    /// may be shown.
    pub fn fill(&self, form: Form, parameters: &Parameters, secrets: Option<&Secrets>) -> Filled {
        let mut filled = Filled { text: String::new(), missing: Vec::new() };
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.text.push_str(text),
                Part::OrNull { name } => match parameters.get(name) {
                    Some(value) => {
                        filled.text.push('"');
                        put(form, value, &mut filled.text);
                        filled.text.push('"');
                    }
                    None => filled.text.push_str("null"),
                },
                Part::Slot { from: From::Parameters, name, default } => {
                    match parameters.get(name).or(default.as_ref()) {
                        Some(value) => put(form, value, &mut filled.text),
                        None => filled.miss("parameters", name),
                    }
                }
                Part::Slot { from: From::Credential, name, default } => {
                    let value = secrets
                        .and_then(|secrets| secrets.get(name))
                        .map(|secret| secret.expose_secret());
                    match value.or(default.as_deref()) {
                        Some(value) if form == Form::Json => escape(value, &mut filled.text),
                        Some(value) => filled.text.push_str(value),
                        None => filled.miss("credential", name),
                    }
                }
            }
        }
        filled
    }
}

impl Filled {
    fn miss(&mut self, from: &str, name: &str) {
        self.text.push_str(&format!("${{{from}.{name}}}"));
        self.missing.push(name.to_owned());
    }
}

/// The placeholder at the beginning of `text` and its length, if there is one that we know.
fn slot(text: &str) -> Option<(Part, usize)> {
    let end = text.find('}')?;
    let (from, inner) = match &text[2..end] {
        inner if inner.starts_with("parameters.") => {
            (From::Parameters, &inner["parameters.".len()..])
        }
        inner if inner.starts_with("credential.") => {
            (From::Credential, &inner["credential.".len()..])
        }
        _ => return None,
    };
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (inner, None),
    };
    (!name.is_empty()).then(|| (Part::Slot { from, name: name.to_owned(), default }, end + 1))
}

fn put(form: Form, value: &str, out: &mut String) {
    let as_it_is =
        form == Form::Raw || serde_json::from_str::<&serde_json::value::RawValue>(value).is_ok();
    if as_it_is {
        out.push_str(value);
    } else {
        escape(value, out);
    }
}

/// JSON's escapes, without the quotes around.
fn escape(value: &str, out: &mut String) {
    let quoted = serde_json::Value::from(value).to_string();
    out.push_str(&quoted[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, form: Form, parameters: &[(&str, &str)]) -> String {
        let parameters =
            parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let secrets = Secrets::from([("key".to_owned(), SecretString::from("s\"k"))]);
        Template::parse(template).fill(form, &parameters, Some(&secrets)).text
    }

    #[test]
    fn values_that_are_json_go_in_as_they_are_and_others_are_escaped() {
        let template = r#"{ "model": "${parameters.model}", "input": ${parameters.input}, "k": "${credential.key}" }"#;
        let body = filled(
            template,
            Form::Json,
            &[("model", "a \"b\"\n"), ("input", r#"["x","${parameters.model}"]"#)],
        );
        assert_eq!(
            body,
            r#"{ "model": "a \"b\"\n", "input": ["x","${parameters.model}"], "k": "s\"k" }"#
        );
    }

    #[test]
    fn urls_and_headers_take_values_as_they_are() {
        let url = "https://${parameters.endpoint}/v1?k=${credential.key}";
        assert_eq!(filled(url, Form::Raw, &[("endpoint", "a.b/c")]), "https://a.b/c/v1?k=s\"k");
    }

    #[test]
    fn defaults_stand_in_for_what_is_missing() {
        assert_eq!(filled("${parameters.x:-5}/${parameters.y:-}", Form::Raw, &[]), "5/");
        assert_eq!(filled("${parameters.x:-5}", Form::Raw, &[("x", "7")]), "7");
        assert_eq!(filled(r#"{"u":"${parameters.u:-null}"}"#, Form::Json, &[]), r#"{"u":null}"#);
        assert_eq!(
            filled(r#"{"u":"${parameters.u:-null}"}"#, Form::Json, &[("u", "me")]),
            r#"{"u":"me"}"#
        );
    }

    #[test]
    fn what_has_no_value_stays_and_is_told() {
        let filled = Template::parse("${parameters.a} ${credential.b} ${other.c} ${").fill(
            Form::Raw,
            &Parameters::new(),
            Some(&Secrets::new()),
        );
        assert_eq!(filled.text, "${parameters.a} ${credential.b} ${other.c} ${");
        assert_eq!(filled.missing, ["a", "b"]);
    }

    #[test]
    fn without_secrets_a_template_can_be_shown() {
        let template = Template::parse("Bearer ${credential.key}");
        assert_eq!(
            template.fill(Form::Raw, &Parameters::new(), None).text,
            "Bearer ${credential.key}"
        );
        assert_eq!(template.credentials().collect::<Vec<_>>(), ["key"]);
    }
}
