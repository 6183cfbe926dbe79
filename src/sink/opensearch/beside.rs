//! An index that is made like another, and names that move from the one to the other. Must not know documents, nor why.
//!
//! What a search finds changes at one moment: all names go in one request, which a cluster does as a whole or not at all.

use opensearch::http::Method;
use opensearch::indices::{
    IndicesCreateParts, IndicesGetParts, IndicesRefreshParts, IndicesUpdateAliasesParts,
};
use serde_json::{Map, Value, json};

use super::http::Http;
use super::index::{self, ALIAS_SUFFIX, check_name, missing, write_index};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::{Changes, Moved, Moving, Named};

/// Settings that a server gives to an index by itself, and takes from nobody; what ends in a dot begins their names.
const OF_THE_SERVER: [&str; 11] = [
    "index.blocks.",
    "index.creation_date",
    "index.creation_date_string",
    "index.history.",
    "index.provided_name",
    "index.resize.",
    "index.routing.allocation.initial_recovery.",
    "index.store.snapshot.",
    "index.uuid",
    "index.verified_before_close",
    "index.version.",
];

pub(super) async fn named(http: &Http, asked: &str) -> Result<Named> {
    let found = look(http, asked).await?;
    let (name, description) = write_index(asked, &found)?;
    Ok(Named {
        index: name.to_owned(),
        uuid: description["settings"]["index.uuid"].as_str().unwrap_or_default().to_owned(),
        is_alias: name != asked,
    })
}

pub(super) async fn make_like(
    http: &Http,
    present: &str,
    new: &str,
    changes: &Changes,
) -> Result<()> {
    check_name(new)?;
    let found = look(http, present).await?;
    let (_, description) = write_index(present, &found)?;
    let body = json!({
        "settings": settings(&description["settings"], changes),
        "mappings": mappings(description["mappings"].clone(), changes.mappings.as_ref()),
    });
    let path = IndicesCreateParts::Index(new).url();
    let answer = http.control(Method::Put, &path, Some(&body)).await?;
    match answer.status {
        200 => refuse_aliases(http, new).await,
        400 => {
            let why = answer.into_error(&format!("make the index {new}"));
            Err(Error::input(why.report()).with_advice(
                "what INDEX says is put over the settings and the mapping of the present index",
            ))
        }
        _ => Err(answer.into_error(&format!("make the index {new}"))),
    }
}

/// A template can give a new index the very alias that is to move: searches would find it half full.
async fn refuse_aliases(http: &Http, new: &str) -> Result<()> {
    let made = look(http, new).await?;
    let (_, description) = write_index(new, &made)?;
    let aliases = description["aliases"].as_object();
    let Some(alias) = aliases.and_then(|aliases| aliases.keys().next()) else { return Ok(()) };
    index::let_go(http, new, true).await?;
    let what = format!("an index template gives the new index {new} the alias {alias}");
    Err(Error::input(what).with_advice(
        "take the alias out of the template: REBUILD moves it when the new index is right",
    ))
}

pub(super) async fn refresh(http: &Http, index: &str) -> Result<()> {
    check_name(index)?;
    let path = IndicesRefreshParts::Index(&[index]).url();
    let answer = http.control(Method::Post, &path, None).await?;
    let failed = answer.json().ok().and_then(|json| json["_shards"]["failed"].as_u64());
    match (answer.status, failed) {
        (200, Some(0)) => Ok(()),
        (200, _) => {
            let what = format!("a shard of the index {index} was not refreshed");
            Err(Error::new(ErrorKind::SinkBusy, what))
        }
        _ => Err(answer.into_error(&format!("refresh the index {index}"))),
    }
}

pub(super) async fn move_names(http: &Http, moving: &Moving) -> Result<Moved> {
    let found = look(http, &moving.from).await?;
    let description = &found[&moving.from];
    let actions = actions(moving, &description["aliases"]);
    let path = IndicesUpdateAliasesParts::None.url();
    let answer = http.control(Method::Post, &path, Some(&json!({ "actions": actions }))).await?;
    let tried = format!("move the names of {} to {}", moving.from, moving.to);
    match answer.status {
        200 => Ok(Moved::Done),
        // What is not there any more may have moved already.
        404 | 408 | 429 | 500.. => Err(answer.into_error(&tried)),
        _ => Ok(Moved::Refused(answer.into_error(&tried))),
    }
}

/// What GET says of the index, or of those behind the alias.
async fn look(http: &Http, index: &str) -> Result<Value> {
    check_name(index)?;
    let path = IndicesGetParts::Index(&[index]).url();
    let answer = http.control(Method::Get, &format!("{path}?flat_settings=true"), None).await?;
    match answer.status {
        200 => answer.json(),
        404 => Err(missing(index)),
        _ => Err(answer.into_error(&format!("look at the index {index}"))),
    }
}

/// The write alias stays on its index, whoever leads to it.
fn actions(moving: &Moving, aliases: &Value) -> Vec<Value> {
    let Moving { from, to, replaces } = moving;
    let mut actions = Vec::new();
    if *replaces {
        actions.push(json!({"remove_index": {"index": from}}));
        actions.push(json!({"add": {"index": to, "alias": from}}));
    }
    let write_alias = format!("{from}{ALIAS_SUFFIX}");
    for (name, says) in aliases.as_object().into_iter().flatten() {
        if *name == write_alias {
            continue;
        }
        if !replaces {
            actions.push(json!({"remove": {"index": from, "alias": name}}));
        }
        // Its filter, its routing, and whether it is written through or hidden.
        let mut add = says.as_object().cloned().unwrap_or_default();
        add.insert("index".to_owned(), json!(to));
        add.insert("alias".to_owned(), json!(name));
        actions.push(json!({ "add": add }));
    }
    actions
}

fn settings(present: &Value, changes: &Changes) -> Value {
    let mut settings = present.as_object().cloned().unwrap_or_default();
    settings.retain(|name, _| {
        !OF_THE_SERVER.iter().any(|of| name == of || of.ends_with('.') && name.starts_with(of))
    });
    if let Some(changed) = &changes.settings {
        let mut flat = Map::new();
        flatten("", changed, &mut flat);
        for (name, value) in flat {
            let name = match name.starts_with("index.") {
                true => name,
                false => format!("index.{name}"),
            };
            match value {
                Value::Null => drop(settings.remove(&name)),
                value => drop(settings.insert(name, value)),
            }
        }
    }
    if let Some(pipeline) = &changes.default_pipeline {
        settings.insert("index.default_pipeline".to_owned(), json!(pipeline));
    }
    Value::Object(settings)
}

/// `{"index": {"knn": true}}` is `index.knn`.
fn flatten(prefix: &str, value: &Value, flat: &mut Map<String, Value>) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{name}"), value, flat);
            }
        }
        value => drop(flat.insert(prefix.to_owned(), value.clone())),
    }
}

/// Objects are put over objects, name by name, and null takes a name away. A field that is given another type is taken as
/// it is given, for what was said beside the old type hardly fits the new one.
fn mappings(present: Value, changed: Option<&Value>) -> Value {
    let (Value::Object(mut all), Some(Value::Object(changed))) = (present.clone(), changed) else {
        return changed.cloned().unwrap_or(present);
    };
    let has_another_type =
        changed.get("type").is_some_and(|kind| kind.is_string() && all.get("type") != Some(kind));
    if has_another_type {
        return Value::Object(changed.clone());
    }
    for (name, value) in changed {
        match value {
            Value::Null => drop(all.remove(name)),
            value => {
                let before = all.remove(name).unwrap_or_default();
                all.insert(name.clone(), mappings(before, Some(value)));
            }
        }
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_present_index_but_for_what_a_server_gives() {
        let present = json!({
            "index.uuid": "u", "index.version.created": "1", "index.creation_date": "2",
            "index.provided_name": "g", "index.knn": "true", "index.refresh_interval": "1s",
            "index.default_pipeline": "old", "index.number_of_shards": "1",
        });
        let changes = Changes {
            settings: Some(json!({
                "index": {"number_of_shards": 3}, "refresh_interval": null, "index.codec": "best_compression"
            })),
            mappings: None,
            default_pipeline: Some("new".into()),
        };
        let made = json!({
            "index.knn": "true", "index.default_pipeline": "new", "index.number_of_shards": 3,
            "index.codec": "best_compression",
        });
        assert_eq!(settings(&present, &changes), made);
    }

    #[test]
    fn a_mapping_is_put_over_the_present_one() {
        let present = json!({"dynamic": "strict", "properties": {
            "a": {"type": "keyword", "ignore_above": 9}, "b": {"type": "text", "analyzer": "x"},
            "v": {"type": "knn_vector", "dimension": 8, "method": {"name": "hnsw"}}, "d": {"type": "long"},
        }});
        let changed = json!({"dynamic": false, "properties": {
            "a": {"type": "text"}, "b": {"analyzer": "y"}, "v": {"dimension": 16},
            "c": {"type": "date"}, "d": null,
        }});
        let made = json!({"dynamic": false, "properties": {
            "a": {"type": "text"}, "b": {"type": "text", "analyzer": "y"}, "c": {"type": "date"},
            "v": {"type": "knn_vector", "dimension": 16, "method": {"name": "hnsw"}},
        }});
        assert_eq!(mappings(present.clone(), Some(&changed)), made);
        assert_eq!(mappings(present.clone(), None), present);
    }

    #[test]
    fn all_names_but_the_write_alias_move_with_what_they_say() {
        let aliases = json!({
            "g": {"is_write_index": true, "filter": {"term": {"a": 1}}, "index_routing": "r"},
            "g_v1.driftless": {"is_hidden": true}, "all": {},
        });
        let mut moving = Moving { from: "g_v1".into(), to: "g_v2".into(), replaces: false };
        assert_eq!(
            actions(&moving, &aliases),
            [
                json!({"remove": {"index": "g_v1", "alias": "g"}}),
                json!({"add": {"index": "g_v2", "alias": "g", "is_write_index": true,
                    "filter": {"term": {"a": 1}}, "index_routing": "r"}}),
                json!({"remove": {"index": "g_v1", "alias": "all"}}),
                json!({"add": {"index": "g_v2", "alias": "all"}}),
            ]
        );
        moving = Moving { from: "g".into(), to: "g_v2".into(), replaces: true };
        assert_eq!(
            actions(&moving, &json!({"g.driftless": {}, "all": {}})),
            [
                json!({"remove_index": {"index": "g"}}),
                json!({"add": {"index": "g_v2", "alias": "g"}}),
                json!({"add": {"index": "g_v2", "alias": "all"}}),
            ]
        );
    }
}
