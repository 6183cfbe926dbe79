//! What of a document's source is shown: whole, in part by names with `*`, or not at all. What is shown keeps its bytes.
//! Pure.

use serde_json::Value;
use serde_json::value::RawValue;

use super::fault::{Answer, Fault};
use super::raw::{self, Members};

/// Which of the source's fields are shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SourceFilter {
    pub none: bool,
    pub includes: Vec<String>,
    pub excludes: Vec<String>,
}

impl SourceFilter {
    pub fn parse(value: &Value) -> Answer<Self> {
        let mut filter = Self::default();
        match value {
            Value::Bool(shown) => filter.none = !shown,
            Value::Object(body) => {
                for (key, value) in body {
                    match key.as_str() {
                        "includes" | "include" => filter.includes = names(value)?,
                        "excludes" | "exclude" => filter.excludes = names(value)?,
                        other => {
                            return Err(Fault::parsing(format!(
                                "unknown key [{other}] in [_source]"
                            )));
                        }
                    }
                }
            }
            other => filter.includes = names(other)?,
        }
        Ok(filter)
    }

    /// What is shown of a source.
    pub fn apply(&self, source: &[u8]) -> Answer<Option<Box<RawValue>>> {
        if self.none {
            return Ok(None);
        }
        let broken = |_| Fault::new(500, "exception", "a stored document is not JSON");
        if self.includes.is_empty() && self.excludes.is_empty() {
            return serde_json::from_slice(source).map(Some).map_err(broken);
        }
        let members = Members::parse(source).map_err(broken)?;
        let shown = self.object(&members, "", self.includes.is_empty()).map_err(broken)?;
        RawValue::from_string(shown.to_json()).map(Some).map_err(broken)
    }

    /// What is left of an object; `is_included` if all of it is, but for what is excluded.
    fn object<'j>(
        &self,
        members: &Members<'_>,
        prefix: &str,
        is_included: bool,
    ) -> serde_json::Result<Members<'j>> {
        let mut shown = Members::default();
        for (name, value) in members.iter() {
            let path = format!("{prefix}{name}");
            let covers = |pattern: &String| covers(pattern, &path);
            if self.excludes.iter().any(covers) {
                continue;
            }
            let is_included = is_included || self.includes.iter().any(covers);
            if let Some(value) = self.value(value, &path, is_included)? {
                shown.insert(name.to_owned(), value);
            }
        }
        Ok(shown)
    }

    /// None where nothing is left of what was not asked for itself.
    fn value(
        &self,
        value: &str,
        path: &str,
        is_included: bool,
    ) -> serde_json::Result<Option<String>> {
        if raw::is_object(value) {
            let members = Members::parse(value.as_bytes())?;
            let inner = self.object(&members, &format!("{path}."), is_included)?;
            return Ok((is_included || !inner.is_empty()).then(|| inner.to_json()));
        }
        if !raw::is_array(value) {
            return Ok(is_included.then(|| value.to_owned()));
        }
        // A list without objects, such as a vector, has nothing inside that could be named.
        if !value.contains('{') {
            return Ok(is_included.then(|| value.to_owned()));
        }
        let mut inner = Vec::new();
        for element in raw::elements(value)? {
            inner.extend(self.value(element, path, is_included)?);
        }
        Ok((is_included || !inner.is_empty()).then(|| format!("[{}]", inner.join(","))))
    }
}

fn names(value: &Value) -> Answer<Vec<String>> {
    let wrong = || Fault::parsing("[_source] takes true, false, names, or includes and excludes");
    match value {
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(all) => {
            all.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// Whether a pattern with `*` names this path, or what is around it.
fn covers(pattern: &str, path: &str) -> bool {
    let around = path.match_indices('.').map(|(at, _)| &path[..at]);
    around.chain([path]).any(|path| matches_pattern(pattern.as_bytes(), path.as_bytes()))
}

/// Goes back to the last `*` only: what earlier ones took need not change.
fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and where in the text what follows it is tried.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                None => return false,
                Some((at, tried)) => {
                    *tried += 1;
                    (p, t) = (*at + 1, *tried);
                }
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filtered(filter: Value, source: Value) -> Value {
        let filter = SourceFilter::parse(&filter).expect("a filter");
        let shown = filter.apply(source.to_string().as_bytes()).expect("is shown");
        shown.map_or(Value::Null, |shown| serde_json::from_str(shown.get()).expect("JSON"))
    }

    #[test]
    fn a_source_is_shown_whole_in_part_or_not_at_all() {
        let source =
            json!({"a": 1, "my_vector": [1], "o": {"b": 2, "c": 3}, "l": [{"b": 4, "c": 5}]});
        assert_eq!(filtered(json!(true), source.clone()), source);
        assert_eq!(filtered(json!(false), source.clone()), Value::Null);
        assert_eq!(filtered(json!("a"), source.clone()), json!({"a": 1}));
        assert_eq!(filtered(json!(["o"]), source.clone()), json!({"o": {"b": 2, "c": 3}}));
        assert_eq!(
            filtered(json!(["*.b"]), source.clone()),
            json!({"o": {"b": 2}, "l": [{"b": 4}]})
        );
        let without = json!({"excludes": ["*_vector", "o.c", "l"]});
        assert_eq!(filtered(without, source), json!({"a": 1, "o": {"b": 2}}));
    }

    #[test]
    fn what_is_excluded_is_not_shown_in_lists_of_lists() {
        let source = json!({"l": [[{"b": 4, "c": 5}, 6], [[{"c": 7}]]], "s": "x{"});
        let without = json!({"excludes": ["l.c"]});
        assert_eq!(
            filtered(without, source.clone()),
            json!({"l": [[{"b": 4}, 6], [[{}]]], "s": "x{"})
        );
        assert_eq!(filtered(json!("l.c"), source), json!({"l": [[{"c": 5}], [[{"c": 7}]]]}));
    }

    #[test]
    fn a_source_keeps_its_bytes() {
        let bytes = br#"{"n": 1.50, "big": 18446744073709551616}"#;
        let shown = SourceFilter::default().apply(bytes).expect("is shown").expect("whole");
        assert_eq!(shown.get().as_bytes(), bytes);
        let without = SourceFilter { excludes: vec!["x".into()], ..SourceFilter::default() };
        let shown = without.apply(bytes).expect("is shown").expect("whole");
        assert_eq!(shown.get(), r#"{"n":1.50,"big":18446744073709551616}"#);
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_at_once() {
        let text = "a".repeat(200);
        let pattern = format!("{}b", "a*".repeat(50));
        assert!(!matches_pattern(pattern.as_bytes(), text.as_bytes()));
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "a", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdef", false),
            ("*ab", "aab", true),
            ("a**", "a", true),
        ] {
            assert_eq!(matches_pattern(pattern.as_bytes(), text.as_bytes()), expected, "{pattern}");
        }
    }
}
