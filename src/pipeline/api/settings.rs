//! `_cluster/settings`: reads and sets whom connectors may call. Knows no connector.

use std::sync::PoisonError;

use serde_json::{Map, Value, json};

use super::{Answer, Api, Handled, Request, fault::Fault};
use crate::connector::{Scope, Settings, WITHOUT_EFFECT};

const SCOPES: [Scope; 2] = [Scope::Persistent, Scope::Transient];

impl Api {
    pub(super) fn get_settings(&self, request: &Request<'_>) -> Handled {
        let settings = self.settings();
        let flat = request.flag("flat_settings");
        let shown =
            SCOPES.map(|scope| (scope.name().to_owned(), shown(settings.scope(scope), flat)));
        Ok(Answer::ok(Map::from_iter(shown).into()))
    }

    pub(super) async fn put_settings(&self, request: &Request<'_>) -> Handled {
        let body = request.object(Fault::parse("request body is required"))?;
        let _turn = self.inner.changes.lock().await;
        let mut settings = self.settings();
        let mut answer = Map::from_iter([("acknowledged".to_owned(), json!(true))]);
        let mut changes = 0;
        for scope in SCOPES {
            let mut given = Vec::new();
            if let Some(Value::Object(object)) = body.get(scope.name()) {
                flatten("", object, &mut given);
            }
            changes += given.len();
            let mut now = Map::new();
            for (key, value) in given {
                if let Some(value) = settings.set(scope, &key, value)? {
                    if WITHOUT_EFFECT.contains(&key.as_str()) {
                        tracing::info!(setting = key, "the setting is kept and has no effect here");
                    }
                    now.insert(key, value);
                }
            }
            answer.insert(scope.name().to_owned(), shown(&now, request.flag("flat_settings")));
        }
        if changes == 0 {
            let reason = "Validation Failed: 1: no settings to update;";
            return Err(Fault::new(400, "action_request_validation_exception", reason));
        }
        // First what may be refused, then the disk, then what everybody sees.
        settings.trust(self.inner.models.config())?;
        settings.store(self.inner.models.catalog()).await?;
        self.inner.models.apply(&settings)?;
        *self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(Answer::ok(answer.into()))
    }

    fn settings(&self) -> Settings {
        self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Dotted and nested names are the same.
fn flatten<'v>(prefix: &str, object: &'v Map<String, Value>, out: &mut Vec<(String, &'v Value)>) {
    for (key, value) in object {
        let name = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => flatten(&format!("{name}."), inner, out),
            value => out.push((name, value)),
        }
    }
}

fn shown(settings: &Map<String, Value>, flat: bool) -> Value {
    if flat {
        return settings.clone().into();
    }
    let mut nested = json!({});
    for (name, value) in settings {
        let mut at = &mut nested;
        for segment in name.split('.') {
            at = &mut at[segment];
        }
        *at = value.clone();
    }
    nested
}
