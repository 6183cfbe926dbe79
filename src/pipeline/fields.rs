//! `field_map`: which text becomes which vector. Knows no document.

use serde_json::Value;

/// Rules in the order in which they were given. A dotted source is the same as a nested map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldMap {
    pub rules: Vec<(String, Target)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Where the vector goes, as a path from the object that holds the text.
    Vector(Vec<String>),
    /// The rules for what is inside an object, or inside each object of a list.
    Inside(FieldMap),
}

impl FieldMap {
    /// `None` where a key or a value is empty or of the wrong type.
    pub fn parse(map: &serde_json::Map<String, Value>) -> Option<Self> {
        let mut fields = Self::default();
        for (source, target) in map {
            let target = match target {
                Value::String(path) => Target::Vector(segments(path)?),
                Value::Object(inner) => Target::Inside(Self::parse(inner)?),
                _ => return None,
            };
            fields.add(&segments(source)?, target);
        }
        (!fields.rules.is_empty()).then_some(fields)
    }

    fn add(&mut self, source: &[String], target: Target) {
        let Some((first, rest)) = source.split_first() else { return };
        let same = self
            .rules
            .iter()
            .position(|(name, known)| name == first && matches!(known, Target::Inside(_)));
        match (same, target) {
            (None, target) if rest.is_empty() => self.rules.push((first.clone(), target)),
            (None, target) => {
                let mut inner = Self::default();
                inner.add(rest, target);
                self.rules.push((first.clone(), Target::Inside(inner)));
            }
            (Some(_), target @ Target::Vector(_)) if rest.is_empty() => {
                self.rules.push((first.clone(), target))
            }
            (Some(at), target) => {
                let Target::Inside(inner) = &mut self.rules[at].1 else { return };
                match target {
                    Target::Inside(more) if rest.is_empty() => inner.rules.extend(more.rules),
                    target => inner.add(rest, target),
                }
            }
        }
    }
}

fn segments(path: &str) -> Option<Vec<String>> {
    let segments: Vec<String> = path.split('.').map(str::to_owned).collect();
    segments.iter().all(|segment| !segment.trim().is_empty()).then_some(segments)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(map: Value) -> Option<FieldMap> {
        FieldMap::parse(map.as_object().expect("an object"))
    }

    #[test]
    fn a_dotted_source_is_a_nested_map() {
        assert_eq!(
            parse(json!({"a.b": "v", "a.c": "w"})),
            parse(json!({"a": {"b": "v", "c": "w"}}))
        );
        assert_eq!(
            parse(json!({"a": {"b": "v"}, "a.c": "w"})),
            parse(json!({"a": {"b": "v", "c": "w"}}))
        );
    }

    #[test]
    fn empty_and_odd_keys_and_values_are_no_field_map() {
        for map in [
            json!({}),
            json!({"a": null}),
            json!({"a": 3}),
            json!({"a": ""}),
            json!({"": "b"}),
            json!({"a": {}}),
            json!({"a..b": "c"}),
        ] {
            assert_eq!(parse(map.clone()), None, "{map}");
        }
    }
}
