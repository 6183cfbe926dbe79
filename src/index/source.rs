//! A document's JSON to values of fields: what its mapping takes, what it refuses, and which fields it does not have yet.
//! Knows no files.

use serde_json::{Map, Value};

use super::fault::{Answer, Fault};
use super::fields::{self, Dynamic, Field, Fields, Kind};
use super::moment;
use super::vector::Space;

/// A longer keyword can be no term of an index.
const KEYWORD_BYTES_MAX: usize = 32_766;

/// A value as the index holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stored {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Vector(Vec<f32>),
}

/// The object that a document must be.
pub(super) fn parse(source: &[u8]) -> Answer<Map<String, Value>> {
    match serde_json::from_slice(source) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Fault::mapping("failed to parse: the document is not an object")),
        // The message of the parser says where, and nothing of the document.
        Err(error) => {
            Err(Fault::mapping(format!("failed to parse: the document is not JSON ({error})")))
        }
    }
}

/// The fields that the document brings and the mapping has not, each with what it becomes. Fails where the mapping
/// refuses such.
pub(super) fn unknown(
    fields: &Fields,
    document: &Map<String, Value>,
) -> Answer<Vec<(String, Value)>> {
    let mut found = Vec::new();
    look_for_unknown(fields, document, "", &mut found)?;
    Ok(found)
}

fn look_for_unknown(
    fields: &Fields,
    object: &Map<String, Value>,
    prefix: &str,
    found: &mut Vec<(String, Value)>,
) -> Answer<()> {
    if fields.dynamic == Dynamic::Ignores {
        return Ok(());
    }
    for (name, value) in object {
        let path = format!("{prefix}{name}");
        let is_known = !fields.at(&path).is_empty();
        if is_known || value.is_null() {
            continue;
        }
        if fields.dynamic == Dynamic::Refuses && !fields.is_object(&path) {
            return Err(Fault::new(
                400,
                "strict_dynamic_mapping_exception",
                format!(
                    "mapping set to strict, dynamic introduction of [{path}] within [_doc] is not allowed"
                ),
            ));
        }
        let objects: Vec<_> = objects(value).collect();
        for inner in &objects {
            look_for_unknown(fields, inner, &format!("{path}."), found)?;
        }
        if objects.is_empty()
            && !fields.is_object(&path)
            && let Some(field) = fields::guess(value)
        {
            check_name(&path)?;
            found.push((path, field));
        }
    }
    Ok(())
}

fn check_name(path: &str) -> Answer<()> {
    let is_bad = path.starts_with('_') || path.split('.').any(|part| part.trim().is_empty());
    match is_bad {
        true => Err(Fault::mapping(format!("[{path}] cannot be the name of a field"))),
        false => Ok(()),
    }
}

/// The objects that a value is or holds.
fn objects(value: &Value) -> Box<dyn Iterator<Item = &Map<String, Value>> + '_> {
    match value {
        Value::Object(object) => Box::new(std::iter::once(object)),
        Value::Array(values) => Box::new(values.iter().flat_map(objects)),
        _ => Box::new(std::iter::empty()),
    }
}

/// The document's values with the places of their fields.
pub(super) fn values(
    fields: &Fields,
    document: &Map<String, Value>,
) -> Answer<Vec<(usize, Stored)>> {
    let mut values = Vec::new();
    collect(fields, document, "", &mut values, &mut |result| result)?;
    Ok(values)
}

/// The values that fit, without those that do not.
pub(super) fn values_that_fit(
    fields: &Fields,
    document: &Map<String, Value>,
) -> Vec<(usize, Stored)> {
    let mut values = Vec::new();
    // Nothing is left to fail.
    let _ = collect(fields, document, "", &mut values, &mut |_| Ok(()));
    values
}

fn collect(
    fields: &Fields,
    object: &Map<String, Value>,
    prefix: &str,
    values: &mut Vec<(usize, Stored)>,
    judge: &mut dyn FnMut(Answer<()>) -> Answer<()>,
) -> Answer<()> {
    for (name, value) in object {
        let path = format!("{prefix}{name}");
        let places = fields.at(&path);
        for place in places {
            judge(convert(&fields.all[*place], *place, value, values))?;
        }
        if !places.is_empty() {
            continue;
        }
        let mut inner = objects(value).peekable();
        if inner.peek().is_none() && fields.is_object(&path) && !is_empty(value) {
            judge(Err(Fault::mapping(format!(
                "object mapping for [{path}] tried to parse field [{path}] as object, but found a concrete value"
            ))))?;
        }
        for object in inner {
            collect(fields, object, &format!("{path}."), values, judge)?;
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().all(is_empty),
        _ => false,
    }
}

fn convert(
    field: &Field,
    place: usize,
    value: &Value,
    values: &mut Vec<(usize, Stored)>,
) -> Answer<()> {
    if let Kind::Vector { dimension, space } = field.kind {
        if !value.is_null() {
            values.push((place, Stored::Vector(vector(field, value, dimension, space)?)));
        }
        return Ok(());
    }
    match value {
        Value::Null => Ok(()),
        Value::Array(all) => all.iter().try_for_each(|value| convert(field, place, value, values)),
        Value::Object(_) => Err(does_not_fit(field)),
        scalar => {
            if let Some(stored) = scalar_of(field, scalar)? {
                values.push((place, stored));
            }
            Ok(())
        }
    }
}

/// None for a value that is left out.
fn scalar_of(field: &Field, value: &Value) -> Answer<Option<Stored>> {
    let stored = match field.kind {
        Kind::Text => text(value).map(Stored::Text),
        Kind::Keyword { ignore_above } => {
            let text = text(value).unwrap_or_default();
            if text.chars().count() > ignore_above {
                return Ok(None);
            }
            if text.len() > KEYWORD_BYTES_MAX {
                return Err(Fault::request(format!(
                    "Document contains at least one immense term in field=\"{}\": its UTF-8 is longer than {KEYWORD_BYTES_MAX} bytes",
                    field.path
                )));
            }
            Some(Stored::Text(text))
        }
        Kind::Integer { min, max, .. } => {
            integer(value).filter(|number| (min..=max).contains(number)).map(Stored::Integer)
        }
        Kind::Float => {
            let number = float(value).filter(|number| (*number as f32).is_finite());
            number.map(|number| Stored::Float(f64::from(number as f32)))
        }
        Kind::Double => float(value).filter(|number| number.is_finite()).map(Stored::Float),
        Kind::Boolean => boolean(value).map(Stored::Boolean),
        Kind::Date => moment::millis(value).map(Stored::Integer),
        Kind::Vector { .. } => None,
    };
    stored.map(Some).ok_or_else(|| does_not_fit(field))
}

/// The reason names the field and not the value.
fn does_not_fit(field: &Field) -> Fault {
    Fault::mapping(format!(
        "failed to parse field [{}] of type [{}]",
        field.path,
        field.kind.name()
    ))
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Whole numbers, also as text; a fraction is cut off, as a search node does.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(whole),
            None if number.is_u64() => None,
            None => whole_part(number.as_f64()?),
        },
        Value::String(text) => match text.parse() {
            Ok(whole) => Some(whole),
            Err(_) => whole_part(text.parse().ok()?),
        },
        _ => None,
    }
}

fn whole_part(number: f64) -> Option<i64> {
    // 2^63 is the first that does not fit.
    let bound = 9_223_372_036_854_775_808.0;
    (number > -bound && number < bound).then(|| number.trunc() as i64)
}

pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text == "true" => Some(true),
        Value::String(text) if text == "false" || text.is_empty() => Some(false),
        _ => None,
    }
}

fn vector(field: &Field, value: &Value, dimension: usize, space: Space) -> Answer<Vec<f32>> {
    let numbers = value.as_array().ok_or_else(|| does_not_fit(field))?;
    if numbers.len() != dimension {
        return Err(Fault::mapping(format!(
            "failed to parse field [{}] of type [knn_vector]: Vector dimension mismatch. Expected: {dimension}, Given: {}",
            field.path,
            numbers.len()
        )));
    }
    let vector: Option<Vec<f32>> = numbers
        .iter()
        .map(|number| number.as_f64().map(|number| number as f32).filter(|n| n.is_finite()))
        .collect();
    let vector = vector.ok_or_else(|| does_not_fit(field))?;
    space.check(&vector).map_err(|reason| {
        Fault::mapping(format!("failed to parse field [{}]: {reason}", field.path))
    })?;
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(dynamic: &str) -> Fields {
        Fields::parse(&json!({"dynamic": dynamic, "properties": {
            "i": {"type": "byte"}, "k": {"type": "keyword", "ignore_above": 3}, "t": {"type": "text"},
            "d": {"type": "date"}, "f": {"type": "float"}, "b": {"type": "boolean"},
            "v": {"type": "knn_vector", "dimension": 2}, "o": {"properties": {"n": {"type": "long"}}},
        }}))
        .expect("a mapping")
    }

    fn all(document: Value) -> Answer<Vec<(usize, Stored)>> {
        values(&fields("true"), document.as_object().expect("an object"))
    }

    #[test]
    fn values_are_converted_as_a_search_node_does() {
        let found = all(json!({
            "i": ["7", 8.9, null], "k": ["abc", "abcd"], "t": 5, "d": "1970-01-01T00:00:01", "f": 0.1, "b": "true",
            "v": [1, 2.5], "o": [{"n": 1}, {"n": [2]}], "o.n": 3,
        }))
        .expect("fits");
        let expected = [
            (0, Stored::Integer(7)),
            (0, Stored::Integer(8)),
            (1, Stored::Text("abc".into())),
            (2, Stored::Text("5".into())),
            (3, Stored::Integer(1_000)),
            (4, Stored::Float(f64::from(0.1_f32))),
            (5, Stored::Boolean(true)),
            (6, Stored::Vector(vec![1.0, 2.5])),
            (7, Stored::Integer(1)),
            (7, Stored::Integer(2)),
            (7, Stored::Integer(3)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_does_not_fit_is_refused_without_its_value() {
        for document in [
            json!({"i": 128}),
            json!({"i": "sesame"}),
            json!({"i": u64::MAX}),
            json!({"t": {"a": "sesame"}}),
            json!({"d": "sesame"}),
            json!({"b": 1}),
            json!({"f": 1e300}),
            json!({"v": [1]}),
            json!({"v": ["sesame", 1]}),
            json!({"o": "sesame"}),
        ] {
            let fault = all(document.clone()).expect_err("does not fit");
            assert_eq!(fault.status, 400, "{document}");
            assert!(!fault.reason.contains("sesame"), "{}", fault.reason);
        }
    }

    #[test]
    fn unknown_fields_are_added_ignored_or_refused() {
        let document = json!({"x": 1, "o": {"y": ["a"]}, "z": null, "e": {}});
        let document = document.as_object().expect("an object");
        let added = unknown(&fields("true"), document).expect("are added");
        let paths: Vec<_> = added.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["x", "o.y"]);
        assert_eq!(unknown(&fields("false"), document).expect("are ignored"), []);
        assert!(unknown(&fields("strict"), document).expect_err("refused").reason.contains("[x]"));
    }
}
