//! A document's JSON to values of fields: what its mapping takes, what it refuses, and which fields it does not have yet.
//! Knows no files.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::fault::{Answer, Fault};
use super::fields::{self, Dynamic, Field, Fields, Kind};
use super::raw::{self, Members};
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
            fields::check_depth(&path)?;
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

/// The values of a document, `source` as it was parsed, with the places of their fields.
pub(super) fn values(
    fields: &Fields,
    document: &Map<String, Value>,
    source: &[u8],
) -> Answer<Vec<(usize, Stored)>> {
    let mut reading = Reading::new(fields, source);
    reading.object(document, "")?;
    Ok(reading.values)
}

/// The values that fit, without those that do not.
pub(super) fn values_that_fit(
    fields: &Fields,
    document: &Map<String, Value>,
    source: &[u8],
) -> Vec<(usize, Stored)> {
    let mut reading = Reading { takes_what_fits: true, ..Reading::new(fields, source) };
    // Nothing is left to fail.
    let _ = reading.object(document, "");
    reading.values
}

/// A document on its way to values.
struct Reading<'d> {
    fields: &'d Fields,
    source: &'d [u8],
    values: Vec<(usize, Stored)>,
    takes_what_fits: bool,
    /// Read when the first is needed, which few documents do.
    digits: Option<Digits>,
}

impl<'d> Reading<'d> {
    fn new(fields: &'d Fields, source: &'d [u8]) -> Self {
        Self { fields, source, values: Vec::new(), takes_what_fits: false, digits: None }
    }

    fn object(&mut self, object: &Map<String, Value>, prefix: &str) -> Answer<()> {
        for (name, value) in object {
            let path = format!("{prefix}{name}");
            let places = self.fields.at(&path);
            for place in places {
                self.field(*place, value)?;
            }
            if !places.is_empty() {
                continue;
            }
            let mut inner = objects(value).peekable();
            if inner.peek().is_none() && self.fields.is_object(&path) && !is_empty(value) {
                self.judge(Err(Fault::mapping(format!(
                    "object mapping for [{path}] tried to parse field [{path}] as object, but found a concrete value"
                ))))?;
            }
            for object in inner {
                self.object(object, &format!("{path}."))?;
            }
        }
        Ok(())
    }

    fn judge(&self, result: Answer<()>) -> Answer<()> {
        if self.takes_what_fits { Ok(()) } else { result }
    }

    fn field(&mut self, place: usize, value: &Value) -> Answer<()> {
        let field = &self.fields.all[place];
        if let Kind::Vector { dimension, space } = field.kind {
            if !value.is_null() {
                match vector(field, value, dimension, space) {
                    Ok(vector) => self.values.push((place, Stored::Vector(vector))),
                    Err(fault) => self.judge(Err(fault))?,
                }
            }
            return Ok(());
        }
        match value {
            Value::Null => Ok(()),
            Value::Array(all) => all.iter().try_for_each(|value| self.field(place, value)),
            Value::Object(_) => self.judge(Err(does_not_fit(field))),
            scalar => self.scalar(field, place, scalar),
        }
    }

    fn scalar(&mut self, field: &Field, place: usize, value: &Value) -> Answer<()> {
        let is_text = matches!(field.kind, Kind::Text | Kind::Keyword { .. });
        let exact = match value {
            Value::Number(number) if is_text && number.is_f64() => {
                let digits =
                    self.digits.get_or_insert_with(|| Digits::of(self.fields, self.source));
                digits.next(place, &field.source).map(Value::String)
            }
            _ => None,
        };
        match scalar_of(field, exact.as_ref().unwrap_or(value)) {
            Ok(Some(stored)) => self.values.push((place, stored)),
            Ok(None) => {}
            Err(fault) => self.judge(Err(fault))?,
        }
        Ok(())
    }
}

/// The numbers in text and keyword fields as they are written, where a parsed number does not say it: `-12.50`. In the
/// order in which [`Reading`] comes by them.
#[derive(Default)]
struct Digits {
    by_source: HashMap<String, Vec<String>>,
    /// How many of them a field has taken.
    taken: HashMap<usize, usize>,
}

impl Digits {
    fn of(fields: &Fields, source: &[u8]) -> Self {
        let mut digits = Self::default();
        // It was parsed before; a number that is not found is taken as it was parsed.
        if let Ok(members) = Members::parse(source) {
            let _ = digits.look(fields, &members, "");
        }
        digits
    }

    fn next(&mut self, place: usize, source: &str) -> Option<String> {
        let taken = self.taken.entry(place).or_default();
        *taken += 1;
        self.by_source.get(source)?.get(*taken - 1).cloned()
    }

    fn look(
        &mut self,
        fields: &Fields,
        object: &Members<'_>,
        prefix: &str,
    ) -> serde_json::Result<()> {
        for (name, value) in object.iter() {
            let path = format!("{prefix}{name}");
            let is_text = |place: &usize| {
                matches!(fields.all[*place].kind, Kind::Text | Kind::Keyword { .. })
            };
            match fields.at(&path) {
                [] => self.look_inside(fields, value, &format!("{path}."))?,
                places if places.iter().any(is_text) => self.note(&path, value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn look_inside(
        &mut self,
        fields: &Fields,
        value: &str,
        prefix: &str,
    ) -> serde_json::Result<()> {
        if raw::is_object(value) {
            return self.look(fields, &Members::parse(value.as_bytes())?, prefix);
        }
        if raw::is_array(value) && value.contains('{') {
            for element in raw::elements(value)? {
                self.look_inside(fields, element, prefix)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &str, value: &str) -> serde_json::Result<()> {
        if raw::is_array(value) {
            return raw::elements(value)?.into_iter().try_for_each(|one| self.note(path, one));
        }
        if serde_json::from_str::<Number>(value).is_ok_and(|number| number.is_f64()) {
            self.by_source.entry(path.to_owned()).or_default().push(value.to_owned());
        }
        Ok(())
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().all(is_empty),
        _ => false,
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
        Kind::Float => single(value).map(Stored::Float),
        Kind::Double => float(value).map(Stored::Float),
        Kind::Boolean => boolean(value).map(Stored::Boolean),
        Kind::Date(format) => format.span(value).map(|span| Stored::Integer(span.first)),
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

/// Only what is finite: no field holds anything else, and no bound may be.
pub(super) fn float(value: &Value) -> Option<f64> {
    let number: Option<f64> = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// As a `float` field holds it.
pub(super) fn single(value: &Value) -> Option<f64> {
    let number = float(value)? as f32;
    number.is_finite().then_some(f64::from(number))
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
        let source = document.to_string();
        values(&fields("true"), document.as_object().expect("an object"), source.as_bytes())
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
    fn a_number_in_a_text_keeps_its_digits() {
        let fields = Fields::parse(&json!({"properties": {
            "k": {"type": "keyword", "fields": {"t": {"type": "text"}}}, "n": {"type": "double"},
            "o": {"properties": {"k": {"type": "keyword"}}},
        }}));
        let source =
            br#"{"n": 1.50, "k": [-12.50, "x", [2.0, 7]], "o": [{"k": 1e2}, [{"k": 0.10}]]}"#;
        let document = parse(source).expect("a document");
        let found = values(&fields.expect("a mapping"), &document, source).expect("fits");
        let texts = |wanted: usize| -> Vec<String> {
            let texts = found.iter().filter(|(place, _)| *place == wanted);
            texts
                .map(|(_, stored)| match stored {
                    Stored::Text(text) => text.clone(),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(texts(0), ["-12.50", "x", "2.0", "7"]);
        assert_eq!(texts(1), ["-12.50", "x", "2.0", "7"]);
        assert_eq!(texts(3), ["1e2", "0.10"]);
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
