//! The cluster settings that connectors obey: whom they may call. Knows no HTTP.

use serde_json::{Map, Value};

use super::{Catalog, Config, Kind};
use crate::{
    error::{Error, ErrorKind, Result},
    net::trust::Trust,
};

pub const TRUSTED_ENDPOINTS: &str = "plugins.ml_commons.trusted_connector_endpoints_regex";
pub const PRIVATE_IP: &str = "plugins.ml_commons.connector.private_ip_enabled";

/// Settings that instructions for the original ask for, and that have nothing to act on here: taken, shown, and without
/// effect. None of them promises protection.
pub const WITHOUT_EFFECT: [&str; 5] = [
    "plugins.ml_commons.only_run_on_ml_node",
    "plugins.ml_commons.native_memory_threshold",
    "plugins.ml_commons.jvm_heap_memory_threshold",
    "plugins.ml_commons.memory_feature_enabled",
    "plugins.ml_commons.rag_pipeline_feature_enabled",
];

/// How long a setting holds. A transient one wins, and is gone after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Persistent,
    Transient,
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Transient => "transient",
        }
    }
}

/// Settings by their whole, dotted name; values are texts or lists of texts, as the original shows them.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    persistent: Map<String, Value>,
    transient: Map<String, Value>,
}

impl Settings {
    pub fn load(catalog: &Catalog) -> Result<Self> {
        match catalog.get(Kind::Settings, Scope::Persistent.name())? {
            Some(Value::Object(persistent)) => Ok(Self { persistent, ..Self::default() }),
            _ => Ok(Self::default()),
        }
    }

    pub async fn store(&self, catalog: &Catalog) -> Result<()> {
        catalog.put(Kind::Settings, Scope::Persistent.name(), self.persistent.clone().into()).await
    }

    pub fn scope(&self, scope: Scope) -> &Map<String, Value> {
        match scope {
            Scope::Persistent => &self.persistent,
            Scope::Transient => &self.transient,
        }
    }

    /// Sets `key`, or forgets it where `value` is null; returns what is now shown for it.
    pub fn set(&mut self, scope: Scope, key: &str, value: &Value) -> Result<Option<Value>> {
        let shown = match key {
            _ if value.is_null() && is_known(key) => None,
            TRUSTED_ENDPOINTS => Some(texts(key, value)?),
            PRIVATE_IP => Some(flag(value)?),
            _ if WITHOUT_EFFECT.contains(&key) => Some(text(value).into()),
            _ => {
                return Err(Error::input(format!(
                    "{} setting [{key}], not recognized",
                    scope.name()
                )));
            }
        };
        let settings = match scope {
            Scope::Persistent => &mut self.persistent,
            Scope::Transient => &mut self.transient,
        };
        match &shown {
            Some(shown) => settings.insert(key.to_owned(), shown.clone()),
            None => settings.shift_remove(key),
        };
        Ok(shown)
    }

    /// What the settings, or else the configuration, say about whom connectors may call.
    pub fn trust(&self, config: &Config) -> Result<Trust> {
        let endpoints = match self.get(TRUSTED_ENDPOINTS) {
            None => config.trusted_endpoints.clone(),
            Some(Value::Array(list)) => list.iter().map(text).collect(),
            Some(one) => vec![text(one)],
        };
        let private_ip =
            self.get(PRIVATE_IP).map_or(config.private_ip_enabled, |value| value == "true");
        Trust::new(&endpoints, private_ip)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.transient.get(key).or_else(|| self.persistent.get(key))
    }
}

fn is_known(key: &str) -> bool {
    key == TRUSTED_ENDPOINTS || key == PRIVATE_IP || WITHOUT_EFFECT.contains(&key)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn texts(key: &str, value: &Value) -> Result<Value> {
    let texts = match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(list) if list.iter().all(Value::is_string) => list.iter().map(text).collect(),
        _ => return Err(Error::input(format!("[{key}] must be a list of regular expressions"))),
    };
    // Even one that another setting overrides for now must be usable when its turn comes.
    Trust::new(&texts, false)?;
    Ok(value.clone())
}

fn flag(value: &Value) -> Result<Value> {
    match text(value).as_str() {
        flag @ ("true" | "false") => Ok(flag.into()),
        other => Err(Error::new(
            ErrorKind::Input,
            format!("Failed to parse value [{other}] as only [true] or [false] are allowed."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transient_setting_wins_until_it_is_taken_back() {
        let mut settings = Settings::default();
        let config = Config::default();
        settings
            .set(Scope::Persistent, TRUSTED_ENDPOINTS, &json!(["^http://a/.*$"]))
            .expect("known");
        settings.set(Scope::Transient, TRUSTED_ENDPOINTS, &json!("^http://b/.*$")).expect("known");
        let trust = settings.trust(&config).expect("parses");
        assert!(trust.allows("http://b/x") && !trust.allows("http://a/x"));
        settings.set(Scope::Transient, TRUSTED_ENDPOINTS, &Value::Null).expect("known");
        assert!(settings.trust(&config).expect("parses").allows("http://a/x"));
        assert!(settings.scope(Scope::Transient).is_empty());
    }

    #[test]
    fn nothing_private_may_be_called_unless_somebody_says_so() {
        let mut settings = Settings::default();
        assert!(!settings.trust(&Config::default()).expect("parses").allows_private_ip());
        settings.set(Scope::Persistent, PRIVATE_IP, &json!(true)).expect("known");
        assert!(settings.trust(&Config::default()).expect("parses").allows_private_ip());
        assert_eq!(settings.scope(Scope::Persistent)[PRIVATE_IP], "true");
    }

    #[test]
    fn unknown_settings_and_values_are_refused_in_the_originals_words() {
        let mut settings = Settings::default();
        let error = settings.set(Scope::Transient, "foo.bar", &json!(1)).expect_err("unknown");
        assert_eq!(error.to_string(), "transient setting [foo.bar], not recognized");
        let error =
            settings.set(Scope::Persistent, PRIVATE_IP, &json!("maybe")).expect_err("no flag");
        assert_eq!(
            error.to_string(),
            "Failed to parse value [maybe] as only [true] or [false] are allowed."
        );
    }
}
