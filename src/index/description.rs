//! What an index is: name, settings, mapping; read from the request that makes it, kept in a file. Knows no documents.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::disk::{broken, sync_dir};
use super::fault::{Answer, Fault};
use super::fields::Fields;
use crate::error::{Error, ErrorKind, Result};

const FILE: &str = "description.json";
/// Grows when what is on disk changes its meaning.
const FORMAT: u32 = 1;
const NAME_BYTES_MAX: usize = 255;
/// As a search node has it when nobody says otherwise.
const RESULT_WINDOW: usize = 10_000;

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Description {
    pub(super) format: u32,
    pub name: String,
    /// Another index of the same name has another one.
    pub uuid: String,
    pub created_at_ms: u64,
    /// By their full names, `index.default_pipeline`, each as text.
    pub settings: Map<String, Value>,
    pub mappings: Value,
    /// The generation on disk that counts.
    pub(super) generation: u64,
}

impl Description {
    /// Reads the body of the request that makes an index.
    pub(super) fn new(name: &str, body: &Value) -> Answer<(Self, Fields)> {
        check_name(name)?;
        let empty = Map::new();
        let body = match body {
            Value::Null => &empty,
            Value::Object(body) => body,
            _ => return Err(Fault::parsing("the body is not an object")),
        };
        let known = ["settings", "mappings"];
        if let Some(other) = body.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Fault::parsing(format!(
                "unknown key [{other}] for create index: the embedded index takes settings and mappings"
            )));
        }
        let mappings = body.get("mappings").cloned().unwrap_or_else(|| json!({}));
        let fields = Fields::parse(&mappings)?;
        let mut settings = Map::new();
        if let Some(given) = body.get("settings") {
            flatten(given, "", &mut settings)?;
        }
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let description = Self {
            format: FORMAT,
            name: name.to_owned(),
            uuid: uuid::Uuid::new_v4().simple().to_string(),
            created_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            settings,
            mappings,
            generation: 0,
        };
        Ok((description, fields))
    }

    /// The pipeline that documents run through, if the settings name one.
    pub fn pipeline(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting)?.as_str().filter(|name| *name != "_none")
    }

    /// How far a search may page.
    pub fn result_window(&self) -> usize {
        let setting = self.settings.get("index.max_result_window").and_then(Value::as_str);
        setting.and_then(|number| number.parse().ok()).unwrap_or(RESULT_WINDOW)
    }

    /// None where `dir` holds no index that counts.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let bytes = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(broken(dir, "read", cause)),
        };
        let description: Self =
            serde_json::from_slice(&bytes).map_err(|cause| broken(dir, "read", cause))?;
        match description.format {
            FORMAT => Ok(Some(description)),
            other => Err(Error::new(
                ErrorKind::State,
                format!(
                    "the index in {} has format {other}; this version reads {FORMAT}",
                    dir.display()
                ),
            )
            .with_advice("start the version that wrote it")),
        }
    }

    /// The name that the description in `dir` has, also where the rest is not understood; else the directory's own.
    pub(super) fn name_in(dir: &Path) -> String {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let named = std::fs::read(dir.join(FILE)).ok();
        let named = named.and_then(|bytes| serde_json::from_slice::<Named>(&bytes).ok());
        let dir_name = || dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        named.map_or_else(dir_name, |named| named.name)
    }

    /// Puts this description in the place of the old one, at once. The inner result says whether that is durable; with
    /// the outer one failed, the old one counts.
    pub(super) fn store(&self, dir: &Path) -> Result<Result<()>> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|cause| broken(dir, "describe", cause))?;
        // What could not be read again would be lost at the next start.
        serde_json::from_slice::<Self>(&text).map_err(|cause| broken(dir, "describe", cause))?;
        let new = dir.join("description.new");
        let written = File::create(&new)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&new, dir.join(FILE)));
        written.map_err(|cause| broken(dir, "describe", cause))?;
        Ok(sync_dir(dir))
    }

    /// From now on the directory holds no index. The inner result says whether that is durable.
    pub(super) fn remove(dir: &Path) -> Result<Result<()>> {
        match std::fs::remove_file(dir.join(FILE)) {
            Ok(()) => Ok(sync_dir(dir)),
            // It was removed before, as far as that went.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ok(())),
            Err(cause) => Err(broken(dir, "delete", cause)),
        }
    }
}

fn check_name(name: &str) -> Answer<()> {
    let reason = if name.is_empty() || matches!(name, "." | "..") {
        "must be a name"
    } else if name.len() > NAME_BYTES_MAX {
        "is too long"
    } else if name.chars().any(char::is_uppercase) {
        "must be lowercase"
    } else if name.starts_with(['_', '-', '+']) {
        "must not start with '_', '-', or '+'"
    } else if name.contains(['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':'])
        || name.chars().any(char::is_control)
    {
        "must not contain \\, /, *, ?, \", <, >, |, space, comma, # or :"
    } else {
        return Ok(());
    };
    Err(Fault::new(
        400,
        "invalid_index_name_exception",
        format!("Invalid index name [{name}], {reason}"),
    ))
}

/// Settings that are kept. What only a cluster has is accepted, because a page that was written for one sets it; what
/// would change the documents or the answers is refused.
fn flatten(value: &Value, prefix: &str, settings: &mut Map<String, Value>) -> Answer<()> {
    let object = value.as_object().ok_or_else(|| Fault::request("[settings] is not an object"))?;
    for (key, value) in object {
        let name = format!("{prefix}{key}");
        if value.is_object() {
            flatten(value, &format!("{name}."), settings)?;
            continue;
        }
        let name = if name.starts_with("index.") { name } else { format!("index.{name}") };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        check_setting(&name, &text)?;
        settings.insert(name, Value::String(text));
    }
    Ok(())
}

fn check_setting(name: &str, value: &str) -> Answer<()> {
    let is_good = match name {
        "index.knn" => matches!(value, "true" | "false"),
        "index.default_pipeline" => !value.is_empty(),
        "index.max_result_window" => value.parse::<usize>().is_ok_and(|number| number > 0),
        "index.translog.durability" => value == "request",
        "index.knn.space_type" => value == "l2",
        "index.number_of_shards"
        | "index.number_of_replicas"
        | "index.auto_expand_replicas"
        | "index.refresh_interval"
        | "index.knn.algo_param.ef_search"
        | "index.knn.algo_param.ef_construction"
        | "index.knn.algo_param.m" => true,
        _ => {
            return Err(Fault::request(format!(
                "the setting [{name}] is not supported by the embedded index"
            )));
        }
    };
    match is_good {
        true => Ok(()),
        false => Err(Fault::request(format!(
            "the setting [{name}] cannot be [{value}] in the embedded index"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_by_their_full_names() {
        let body = json!({"settings": {"index": {"knn": true, "default_pipeline": "p"}, "number_of_shards": 1}});
        let (description, _) = Description::new("a", &body).expect("is understood");
        assert_eq!(description.settings["index.knn"], "true");
        assert_eq!(description.pipeline("index.default_pipeline"), Some("p"));
        assert_eq!(description.settings["index.number_of_shards"], "1");
    }

    #[test]
    fn what_would_change_the_answers_is_refused() {
        for body in [
            json!({"settings": {"index.translog.durability": "async"}}),
            json!({"settings": {"analysis": {"analyzer": {"a": 1}}}}),
            json!({"settings": {"index.final_pipeline": "p"}}),
            json!({"aliases": {"b": {}}}),
        ] {
            assert_eq!(Description::new("a", &body).expect_err("refused").status, 400, "{body}");
        }
        for name in ["", "A", "_a", "a b", "a/b", "..", "a*"] {
            assert!(Description::new(name, &Value::Null).is_err(), "{name}");
        }
    }
}
