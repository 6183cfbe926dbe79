//! The index before it is written to: what it is, what it takes, and the alias that writes go through. Must not know
//! documents.

use std::collections::HashMap;

use opensearch::http::Method;
use opensearch::indices::{
    IndicesDeleteParts, IndicesGetParts, IndicesGetSettingsParts, IndicesUpdateAliasesParts,
};
use opensearch::ingest::IngestGetPipelineParts;
use serde_json::{Map, Value, json};

use super::Target;
use super::http::{Answer, Http};
use super::product::Product;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::Dynamic;

/// What is put behind the name of an index to name the alias that we write through.
pub(super) const ALIAS_SUFFIX: &str = ".driftless";

/// Looks at the index and puts the write alias on it, where it is not yet. The alias is hidden, so that a search over
/// `goods*` does not name it.
pub(super) async fn prepare(http: &Http, index: &str) -> Result<Target> {
    let (target, has_alias) = look(http, index).await?;
    if let Some(pipeline) = &target.final_pipeline {
        tracing::warn!(
            index = target.index,
            pipeline,
            "the index has a final_pipeline, which the cluster runs on every document we write"
        );
    }
    if !has_alias {
        // Not by PUT /index/_alias/name: there Elasticsearch takes `is_hidden` and forgets it (seen on 8.19.21).
        let add = json!({"index": target.index, "alias": target.alias, "is_hidden": true});
        let path = IndicesUpdateAliasesParts::None.url();
        let actions = json!({"actions": [{"add": add}]});
        let answer = http.control(Method::Post, &path, Some(&actions)).await?;
        if answer.status != 200 {
            return Err(answer.into_error(&format!("put the alias {} on", target.alias)));
        }
    }
    Ok(target)
}

/// Deletes the index that is written to, or takes the write alias away from it.
pub(super) async fn let_go(http: &Http, index: &str, with_index: bool) -> Result<()> {
    check_name(index)?;
    let path = IndicesGetParts::Index(&[index]).url();
    let answer = http.control(Method::Get, &path, None).await?;
    let found = match answer.status {
        200 => answer.json()?,
        404 => return Ok(()),
        _ => return Err(answer.into_error(&format!("look at the index {index}"))),
    };
    let (name, description) = write_index(index, &found)?;
    let alias = format!("{name}{ALIAS_SUFFIX}");
    let (answer, tried) = if with_index {
        let path = IndicesDeleteParts::Index(&[name]).url();
        (http.control(Method::Delete, &path, None).await?, format!("delete the index {name}"))
    } else if description["aliases"].get(&alias).is_some() {
        let actions = json!({"actions": [{"remove": {"index": name, "alias": alias}}]});
        let path = IndicesUpdateAliasesParts::None.url();
        let answer = http.control(Method::Post, &path, Some(&actions)).await?;
        (answer, format!("take the alias {alias} away"))
    } else {
        return Ok(());
    };
    match answer.status {
        200 | 404 => Ok(()),
        _ => Err(answer.into_error(&tried)),
    }
}

pub(super) async fn inspect(http: &Http, index: &str) -> Result<Target> {
    Ok(look(http, index).await?.0)
}

/// The first page of a search node names its version; anything else at the address is not one.
pub(super) async fn greet(http: &Http) -> Result<()> {
    let answer = http.control(Method::Get, "/", None).await?;
    let page = answer.json().unwrap_or_default();
    let version = page["version"]["number"].as_str();
    let seen = answer.product.or_else(|| Product::of_page(&page));
    if let Some(seen) = seen.filter(|seen| *seen != http.product) {
        return Err(http.product.is_not(seen, version));
    }
    match answer.status {
        200 if version.is_some() => Ok(()),
        200 => Err(Error::new(
            ErrorKind::SinkBlocked,
            "what answers at the sink's address is not a search node",
        )
        .with_advice("check sink.addresses")),
        // An account that may only write its indexes need not be allowed this.
        403 => Ok(()),
        // A node built without the page; the header has said who it is.
        405 if seen.is_some() => Ok(()),
        _ => Err(answer.into_error("ask the sink who it is")),
    }
}

/// Refuses the other product. One that does not say in its header that it is Elasticsearch is asked.
async fn recognise(http: &Http, answer: &Answer) -> Result<()> {
    match (http.product, answer.product) {
        (expected, Some(seen)) if seen != expected => Err(expected.is_not(seen, None)),
        (Product::Elasticsearch, None) => greet(http).await,
        _ => Ok(()),
    }
}

pub(super) async fn uuid(http: &Http, index: &str) -> Result<Option<String>> {
    check_name(index)?;
    let path = IndicesGetSettingsParts::IndexName(&[index], &["index.uuid"]).url();
    let answer = http.control(Method::Get, &format!("{path}?flat_settings=true"), None).await?;
    match answer.status {
        200 => {}
        404 => return Ok(None),
        _ => return Err(answer.into_error("read the settings of an index")),
    }
    let found = answer.json()?;
    let only = found.as_object().filter(|found| found.len() == 1).and_then(|f| f.values().next());
    let uuid = only.and_then(|index| index["settings"]["index.uuid"].as_str());
    match uuid {
        Some(uuid) => Ok(Some(uuid.to_owned())),
        // An alias of several indices: the one that is written to counts.
        None => Ok(Some(look(http, index).await?.0.uuid)),
    }
}

pub(super) async fn has_pipeline(http: &Http, name: &str) -> Result<bool> {
    // A pattern would find others.
    if name.contains(['*', ',']) {
        return Ok(false);
    }
    let path = IngestGetPipelineParts::Id(name).url();
    let answer = http.control(Method::Get, &format!("{path}?filter_path=*.version"), None).await?;
    match answer.status {
        // An account that may only write need not be allowed to look.
        200 | 403 => Ok(true),
        404 => Ok(false),
        _ => Err(answer.into_error("look for an ingest pipeline")),
    }
}

/// The target, and whether its write alias is there.
async fn look(http: &Http, index: &str) -> Result<(Target, bool)> {
    check_name(index)?;
    let path = IndicesGetParts::Index(&[index]).url();
    let answer = http.control(Method::Get, &format!("{path}?flat_settings=true"), None).await?;
    match answer.status {
        200 | 404 => recognise(http, &answer).await?,
        _ => return Err(answer.into_error(&format!("look at the index {index}"))),
    }
    if answer.status == 404 {
        return Err(missing(index));
    }
    let found = answer.json()?;
    let (name, description) = write_index(index, &found)?;
    let setting = |key: &str| description["settings"][key].as_str();
    if setting("index.translog.durability") == Some("async") {
        return Err(loses_acknowledged_writes(name));
    }
    let pipeline = |key| setting(key).filter(|name| *name != "_none").map(str::to_owned);
    let alias = format!("{name}{ALIAS_SUFFIX}");
    let has_alias = description["aliases"].get(&alias).is_some();
    let mut target = Target {
        index: name.to_owned(),
        alias,
        uuid: setting("index.uuid").unwrap_or_default().to_owned(),
        default_pipeline: pipeline("index.default_pipeline"),
        final_pipeline: pipeline("index.final_pipeline"),
        dynamic: dynamic(&description["mappings"]["dynamic"]),
        fields: HashMap::new(),
        dimensions: HashMap::new(),
        runs_pipeline: false,
    };
    if let Some(properties) = description["mappings"]["properties"].as_object() {
        collect_fields(http.product, properties, "", &mut target);
    }
    Ok((target, has_alias))
}

/// The one index that a write to `asked` would reach.
pub(super) fn write_index<'v>(asked: &str, found: &'v Value) -> Result<(&'v str, &'v Value)> {
    let indices: Vec<(&str, &Value)> = found
        .as_object()
        .map(|indices| indices.iter().map(|(name, index)| (name.as_str(), index)).collect())
        .unwrap_or_default();
    if let [only] = indices.as_slice() {
        return Ok(*only);
    }
    let is_written = |index: &&(&str, &Value)| index.1["aliases"][asked]["is_write_index"] == true;
    if let Some(written) = indices.iter().find(is_written) {
        return Ok(*written);
    }
    let names = indices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    Err(Error::new(
        ErrorKind::NotFound,
        format!("the alias {asked} leads to {names}, and to none of them for writing"),
    )
    .with_advice("name one of them, or set is_write_index on one"))
}

fn collect_fields(
    product: Product,
    properties: &Map<String, Value>,
    prefix: &str,
    target: &mut Target,
) {
    for (name, field) in properties {
        let path = format!("{prefix}{name}");
        if let Some(dimension) = product.dimension(field) {
            target.dimensions.insert(path.clone(), dimension);
        }
        if let Some(inner) = field["properties"].as_object() {
            collect_fields(product, inner, &format!("{path}."), target);
        }
        let kind = field["type"].as_str().unwrap_or("object");
        target.fields.insert(path, kind.to_owned());
    }
}

fn dynamic(setting: &Value) -> Dynamic {
    // The server gives back what it was given, a text or a truth value.
    match setting {
        Value::String(text) if text == "strict" => Dynamic::Refuses,
        Value::String(text) if text == "false" => Dynamic::Ignores,
        Value::Bool(false) => Dynamic::Ignores,
        _ => Dynamic::Adds,
    }
}

/// A name that stands for one index: the server would take a pattern for many, and we would write to the first.
pub(super) fn check_name(index: &str) -> Result<()> {
    let is_one_name = !index.is_empty()
        && !index.starts_with(['_', '-', '+', '.', '<'])
        && !index.contains(['*', '?', ',', '/', '\\', '"', '<', '>', '|', ' ', '#', ':']);
    if is_one_name {
        return Ok(());
    }
    Err(Error::input(format!("`{index}` is not the name of an index"))
        .with_advice("name one index or alias, in lower case and without patterns"))
}

pub(super) fn missing(index: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the index {index} does not exist")).with_advice(format!(
        "create it with the mapping you want: PUT /{index} {{\"mappings\": {{\"properties\": {{…}}}}}}"
    ))
}

fn loses_acknowledged_writes(index: &str) -> Error {
    Error::new(
        ErrorKind::SinkBlocked,
        format!("the index {index} acknowledges writes before they are durable (index.translog.durability is async), so a crash of a node would lose them"),
    )
    .with_advice(format!(
        "PUT /{index}/_settings {{\"index.translog.durability\": \"request\"}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_by_their_paths() {
        let properties = json!({
            "t": {"type": "text"},
            "o": {"properties": {"v": {"type": "knn_vector", "dimension": 3}}},
            "l": {"type": "nested", "properties": {"k": {"type": "keyword"}}},
        });
        let mut target = Target::default();
        let properties = properties.as_object().expect("an object");
        collect_fields(Product::OpenSearch, properties, "", &mut target);
        let mut fields: Vec<_> = target.fields.iter().map(|(f, t)| format!("{f}:{t}")).collect();
        fields.sort();
        assert_eq!(fields, ["l.k:keyword", "l:nested", "o.v:knn_vector", "o:object", "t:text"]);
        assert_eq!(target.dimensions, HashMap::from([("o.v".to_owned(), 3)]));
    }

    #[test]
    fn an_alias_leads_to_its_write_index() {
        let found = json!({
            "g-1": {"aliases": {"g": {}}},
            "g-2": {"aliases": {"g": {"is_write_index": true}}},
        });
        assert_eq!(write_index("g", &found).expect("one").0, "g-2");
        let found = json!({"g-1": {"aliases": {"g": {}}}, "g-2": {"aliases": {"g": {}}}});
        assert!(write_index("g", &found).expect_err("none").report().contains("g-1, g-2"));
    }

    #[test]
    fn a_pattern_is_not_a_name() {
        for name in ["", "a*", "_all", "a,b", "<a-{now}>", "a/b", "-a"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("goods-v1_中").is_ok());
    }
}
