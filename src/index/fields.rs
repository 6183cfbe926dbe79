//! Mappings: from their JSON to typed fields, what may be added to them, and what an unknown field becomes. What is not
//! understood is refused, never ignored. Knows no files and no documents.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::fault::{Answer, Fault};
use super::moment::Format;
use super::vector::Space;

/// No mapping has more fields: a document with thousands of keys is not meant to make thousands of fields.
const FIELDS_MAX: usize = 1_000;
/// Parts of a field's path: as many as a search node allows, and far below what a parser of JSON refuses.
const DEPTH_MAX: usize = 20;
/// Of a vector.
const DIMENSION_MAX: u64 = 16_000;
/// Of the `keyword` beside a guessed `text`.
const GUESSED_IGNORE_ABOVE: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    /// Longer values (in characters) are left out.
    Keyword {
        ignore_above: usize,
    },
    /// With its name and its bounds.
    Integer {
        name: &'static str,
        min: i64,
        max: i64,
    },
    Float,
    Double,
    Boolean,
    Date(Format),
    Vector {
        dimension: usize,
        space: Space,
    },
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Keyword { .. } => "keyword",
            Self::Integer { name, .. } => name,
            Self::Float => "float",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Date(_) => "date",
            Self::Vector { .. } => "knn_vector",
        }
    }
}

/// One thing that can be searched: a property, or one of its `fields`.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As a query names it: `o.name.keyword`.
    pub path: String,
    /// Where its value stands in a document: `o.name`.
    pub source: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dynamic {
    Adds,
    Ignores,
    Refuses,
}

/// A mapping that was understood.
#[derive(Debug, Clone)]
pub struct Fields {
    /// In the order of the mapping, which is the order on disk.
    pub all: Vec<Field>,
    by_path: BTreeMap<String, usize>,
    by_source: BTreeMap<String, Vec<usize>>,
    objects: BTreeSet<String>,
    pub dynamic: Dynamic,
}

impl Fields {
    /// Reads `{"dynamic": …, "properties": {…}}`.
    pub fn parse(mappings: &Value) -> Answer<Self> {
        let mut fields = Self {
            all: Vec::new(),
            by_path: BTreeMap::new(),
            by_source: BTreeMap::new(),
            objects: BTreeSet::new(),
            dynamic: Dynamic::Adds,
        };
        for (key, value) in object(mappings, "mappings")? {
            match key.as_str() {
                "properties" => fields.properties(object(value, "properties")?, "")?,
                "dynamic" => fields.dynamic = dynamic(value)?,
                "_meta" => check_meta(value)?,
                other => {
                    return Err(Fault::mapping(format!(
                        "the mapping parameter [{other}] is not supported by the embedded index; it has properties and dynamic"
                    )));
                }
            }
        }
        if fields.all.len() > FIELDS_MAX {
            return Err(Fault::request(format!(
                "Limit of total fields [{FIELDS_MAX}] has been exceeded"
            )));
        }
        Ok(fields)
    }

    pub fn get(&self, path: &str) -> Option<(usize, &Field)> {
        let at = *self.by_path.get(path)?;
        Some((at, &self.all[at]))
    }

    /// The fields that a value at this place of a document fills.
    pub fn at(&self, source: &str) -> &[usize] {
        self.by_source.get(source).map_or(&[], Vec::as_slice)
    }

    pub fn is_object(&self, path: &str) -> bool {
        self.objects.contains(path)
    }

    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().map(String::as_str)
    }

    fn properties(&mut self, properties: &Map<String, Value>, prefix: &str) -> Answer<()> {
        for (name, field) in properties {
            if name.is_empty() || name.starts_with('_') || name.split('.').any(str::is_empty) {
                return Err(Fault::mapping(format!("[{name}] cannot be the name of a field")));
            }
            let path = format!("{prefix}{name}");
            check_depth(&path)?;
            let field = object(field, &path)?;
            let kind = field.get("type").map_or(Some("object"), Value::as_str);
            match (kind, field.get("properties")) {
                (Some("object"), inner) => {
                    only(field, &["type", "properties"], &path, "object")?;
                    self.object(&path);
                    if let Some(inner) = inner {
                        self.properties(object(inner, &path)?, &format!("{path}."))?;
                    }
                }
                (Some(_), _) => self.leaf(&path, field)?,
                (None, _) => {
                    return Err(Fault::mapping(format!("the type of [{path}] is not a text")));
                }
            }
        }
        Ok(())
    }

    /// Notes an object and those around it; a property may be written `a.b`.
    fn object(&mut self, path: &str) {
        for (at, _) in path.match_indices('.') {
            self.objects.insert(path[..at].to_owned());
        }
        self.objects.insert(path.to_owned());
    }

    fn leaf(&mut self, path: &str, field: &Map<String, Value>) -> Answer<()> {
        if let Some((around, _)) = path.rsplit_once('.') {
            self.object(around);
        }
        self.push(path.to_owned(), path, kind(path, field)?)?;
        let Some(inner) = field.get("fields") else { return Ok(()) };
        for (name, field) in object(inner, path)? {
            let inner_path = format!("{path}.{name}");
            let field = object(field, &inner_path)?;
            if field.contains_key("fields") || field.contains_key("properties") {
                return Err(Fault::mapping(format!(
                    "[{inner_path}] cannot have fields of its own"
                )));
            }
            self.push(inner_path.clone(), path, kind(&inner_path, field)?)?;
        }
        Ok(())
    }

    fn push(&mut self, path: String, source: &str, kind: Kind) -> Answer<()> {
        if self.by_path.insert(path.clone(), self.all.len()).is_some() {
            return Err(Fault::mapping(format!("the field [{path}] stands twice in the mapping")));
        }
        self.by_source.entry(source.to_owned()).or_default().push(self.all.len());
        self.all.push(Field { path, source: source.to_owned(), kind });
        Ok(())
    }
}

/// Refuses a path that is too deep, before anything recurs over it.
pub(super) fn check_depth(path: &str) -> Answer<()> {
    match path.bytes().filter(|byte| *byte == b'.').count() < DEPTH_MAX {
        true => Ok(()),
        false => {
            let start: String = path.chars().take(64).collect();
            Err(Fault::request(format!(
                "Limit of mapping depth [{DEPTH_MAX}] has been exceeded due to the field [{start}…]"
            )))
        }
    }
}

/// What a mapping says of itself is kept and shown. It must be readable again from within a description.
fn check_meta(value: &Value) -> Answer<()> {
    fn depth(value: &Value) -> usize {
        let inner = match value {
            Value::Object(object) => object.values().map(depth).max(),
            Value::Array(all) => all.iter().map(depth).max(),
            _ => return 0,
        };
        inner.unwrap_or(0) + 1
    }
    match depth(value) <= DEPTH_MAX {
        true => Ok(()),
        false => Err(Fault::request(format!("[_meta] is deeper than [{DEPTH_MAX}]"))),
    }
}

fn kind(path: &str, field: &Map<String, Value>) -> Answer<Kind> {
    let name = field.get("type").and_then(Value::as_str).unwrap_or("object");
    let kind = match name {
        "text" => Kind::Text,
        "keyword" => Kind::Keyword { ignore_above: ignore_above(path, field)? },
        "long" => Kind::Integer { name: "long", min: i64::MIN, max: i64::MAX },
        "integer" => Kind::Integer { name: "integer", min: i32::MIN.into(), max: i32::MAX.into() },
        "short" => Kind::Integer { name: "short", min: i16::MIN.into(), max: i16::MAX.into() },
        "byte" => Kind::Integer { name: "byte", min: i8::MIN.into(), max: i8::MAX.into() },
        "float" => Kind::Float,
        "double" => Kind::Double,
        "boolean" => Kind::Boolean,
        "date" => Kind::Date(format(path, field)?),
        "knn_vector" => vector(path, field)?,
        other => {
            return Err(Fault::mapping(format!(
                "the type [{other}] of field [{path}] is not supported by the embedded index; it has text, keyword, long, integer, short, byte, double, float, boolean, date, knn_vector and object"
            )));
        }
    };
    match kind {
        Kind::Text => only(field, &["type", "fields", "analyzer"], path, name)?,
        Kind::Keyword { .. } => only(field, &["type", "fields", "ignore_above"], path, name)?,
        Kind::Date(_) => only(field, &["type", "fields", "format"], path, name)?,
        Kind::Vector { .. } => {
            only(field, &["type", "dimension", "method", "space_type", "data_type"], path, name)?
        }
        _ => only(field, &["type", "fields"], path, name)?,
    }
    expect(path, field, "analyzer", &["standard"])?;
    expect(path, field, "data_type", &["float"])?;
    Ok(kind)
}

fn format(path: &str, field: &Map<String, Value>) -> Answer<Format> {
    expect(path, field, "format", &Format::NAMES)?;
    let name = field.get("format").and_then(Value::as_str);
    Ok(name.and_then(Format::parse).unwrap_or_default())
}

/// Refuses a parameter that is not among `known`: ignoring it would promise what is not done.
fn only(field: &Map<String, Value>, known: &[&str], path: &str, kind: &str) -> Answer<()> {
    match field.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Fault::mapping(format!(
            "the parameter [{key}] of field [{path}] of type [{kind}] is not supported by the embedded index"
        ))),
    }
}

fn expect(path: &str, field: &Map<String, Value>, key: &str, known: &[&str]) -> Answer<()> {
    match field.get(key) {
        None => Ok(()),
        Some(Value::String(value)) if known.contains(&value.as_str()) => Ok(()),
        Some(_) => Err(Fault::mapping(format!(
            "[{key}] of field [{path}] can only be [{}] in the embedded index",
            known.join(", ")
        ))),
    }
}

fn ignore_above(path: &str, field: &Map<String, Value>) -> Answer<usize> {
    let Some(value) = field.get("ignore_above") else { return Ok(usize::MAX) };
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number
        .ok_or_else(|| Fault::mapping(format!("[ignore_above] of field [{path}] is not a number")))
}

fn vector(path: &str, field: &Map<String, Value>) -> Answer<Kind> {
    let dimension = field.get("dimension").and_then(Value::as_u64);
    let Some(dimension) = dimension.filter(|number| (1..=DIMENSION_MAX).contains(number)) else {
        return Err(Fault::mapping(format!(
            "the vector field [{path}] needs a dimension from 1 to {DIMENSION_MAX}"
        )));
    };
    let mut spaces: Vec<&Value> = field.get("space_type").into_iter().collect();
    if let Some(method) = field.get("method") {
        let method = object(method, path)?;
        // Search is exact here, so it does not matter which graph another engine would build.
        only(method, &["name", "engine", "space_type", "parameters"], path, "method")?;
        expect(path, method, "name", &["hnsw", "ivf", "flat"])?;
        expect(path, method, "engine", &["faiss", "lucene", "nmslib"])?;
        spaces.extend(method.get("space_type"));
    }
    let space = match spaces.as_slice() {
        [] => Space::L2,
        [first, rest @ ..] if rest.iter().all(|other| other == first) => {
            first.as_str().and_then(Space::parse).ok_or_else(|| {
                Fault::mapping(format!(
                    "the space_type of field [{path}] can only be l2, cosinesimil or innerproduct in the embedded index"
                ))
            })?
        }
        _ => return Err(Fault::mapping(format!("field [{path}] has two different space_types"))),
    };
    let dimension = usize::try_from(dimension).unwrap_or(usize::MAX);
    Ok(Kind::Vector { dimension, space })
}

fn dynamic(value: &Value) -> Answer<Dynamic> {
    match value {
        Value::Bool(true) => Ok(Dynamic::Adds),
        Value::Bool(false) => Ok(Dynamic::Ignores),
        Value::String(text) if text == "true" => Ok(Dynamic::Adds),
        Value::String(text) if text == "false" => Ok(Dynamic::Ignores),
        Value::String(text) if text == "strict" => Ok(Dynamic::Refuses),
        _ => Err(Fault::mapping("[dynamic] can only be true, false or strict")),
    }
}

fn object<'v>(value: &'v Value, what: &str) -> Answer<&'v Map<String, Value>> {
    value.as_object().ok_or_else(|| Fault::mapping(format!("[{what}] is not an object")))
}

/// `old` with what `new` adds. A property that is there already may be said again, and not otherwise.
pub fn merge(old: &Value, new: &Value) -> Answer<Value> {
    let mut merged = old.clone();
    for (key, value) in object(new, "mappings")? {
        if key == "properties" {
            let into = &mut merged[key];
            if into.is_null() {
                *into = json!({});
            }
            merge_properties(into, object(value, "properties")?, "")?;
        } else {
            merged[key] = value.clone();
        }
    }
    Ok(merged)
}

fn merge_properties(into: &mut Value, new: &Map<String, Value>, prefix: &str) -> Answer<()> {
    for (name, field) in new {
        let old = &mut into[name];
        let is_object = |field: &Value| field.get("type").is_none_or(|kind| kind == "object");
        match (old.is_null(), is_object(old) && is_object(field)) {
            (true, _) => *old = field.clone(),
            (false, true) => {
                let path = format!("{prefix}{name}");
                only(object(field, &path)?, &["type", "properties"], &path, "object")?;
                if let Some(inner) = field.get("properties") {
                    let inner = object(inner, &path)?;
                    if old["properties"].is_null() {
                        old["properties"] = json!({});
                    }
                    merge_properties(&mut old["properties"], inner, &format!("{path}."))?;
                }
            }
            (false, false) if old == field => {}
            (false, false) => {
                return Err(Fault::request(format!(
                    "mapper [{prefix}{name}] cannot be changed: a field stays as it was made"
                )));
            }
        }
    }
    Ok(())
}

/// What a field becomes that a document brings and the mapping does not have. Texts are never taken for dates.
pub fn guess(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Bool(_) => Some(json!({"type": "boolean"})),
        Value::Number(number) if number.is_f64() => Some(json!({"type": "float"})),
        Value::Number(_) => Some(json!({"type": "long"})),
        Value::String(_) => Some(json!({"type": "text", "fields": {
            "keyword": {"type": "keyword", "ignore_above": GUESSED_IGNORE_ABOVE}
        }})),
        Value::Array(values) => values.iter().find_map(guess),
    }
}

/// Puts a guessed field at its path into `properties`.
pub fn insert(properties: &mut Value, path: &str, field: Value) {
    match path.split_once('.') {
        None => properties[path] = field,
        Some((first, rest)) => {
            let inner = &mut properties[first]["properties"];
            if inner.is_null() {
                *inner = json!({});
            }
            insert(inner, rest, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(properties: Value) -> String {
        Fields::parse(&json!({"properties": properties})).expect_err("is refused").reason
    }

    #[test]
    fn a_mapping_becomes_fields_by_path() {
        let fields = Fields::parse(&json!({"dynamic": "strict", "properties": {
            "t": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
            "o": {"properties": {"v": {"type": "knn_vector", "dimension": 3,
                "method": {"engine": "faiss", "name": "hnsw", "space_type": "cosinesimil"}}}},
        }}))
        .expect("is understood");
        let all: Vec<_> = fields.all.iter().map(|f| (f.path.as_str(), f.source.as_str())).collect();
        assert_eq!(all, [("t", "t"), ("t.keyword", "t"), ("o.v", "o.v")]);
        assert_eq!(fields.at("t"), [0, 1]);
        assert!(fields.is_object("o") && !fields.is_object("t"));
        assert_eq!(fields.dynamic, Dynamic::Refuses);
        assert_eq!(fields.all[2].kind, Kind::Vector { dimension: 3, space: Space::Cosine });
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_sentence() {
        assert!(refused(json!({"a": {"type": "geo_point"}})).contains("[geo_point]"));
        assert!(refused(json!({"a": {"type": "nested"}})).contains("[nested]"));
        assert!(refused(json!({"a": {"type": "long", "null_value": 1}})).contains("[null_value]"));
        assert!(
            refused(json!({"a": {"type": "text", "analyzer": "ik_smart"}})).contains("standard")
        );
        assert!(refused(json!({"a": {"type": "knn_vector"}})).contains("dimension"));
        let hamming = json!({"a": {"type": "knn_vector", "dimension": 8, "space_type": "hamming"}});
        assert!(refused(hamming).contains("cosinesimil"));
        assert!(refused(json!({"a": {"type": "date", "format": "yyyy"}})).contains("epoch_millis"));
    }

    #[test]
    fn a_field_can_be_added_and_not_changed() {
        let old = json!({"properties": {"a": {"type": "long"}, "o": {"properties": {"b": {"type": "text"}}}}});
        let new = json!({"properties": {"a": {"type": "long"}, "o": {"properties": {"c": {"type": "date"}}}}});
        let merged = merge(&old, &new).expect("it fits");
        assert_eq!(Fields::parse(&merged).expect("is understood").all.len(), 3);
        let other = json!({"properties": {"o": {"properties": {"b": {"type": "long"}}}}});
        assert!(merge(&old, &other).expect_err("changes").reason.contains("[o.b]"));
    }

    #[test]
    fn an_unknown_field_is_guessed_from_its_value() {
        assert_eq!(guess(&json!([null, 1])).expect("a number")["type"], "long");
        assert_eq!(guess(&json!(1.5)).expect("a number")["type"], "float");
        assert_eq!(guess(&json!("2026-01-01")).expect("a text")["type"], "text");
        assert_eq!(guess(&json!([])), None);
        let mut properties = json!({});
        insert(&mut properties, "o.p.q", json!({"type": "long"}));
        assert_eq!(properties["o"]["properties"]["p"]["properties"]["q"]["type"], "long");
    }
}
