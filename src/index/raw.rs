//! JSON of which one level is read at a time: what lies below keeps its bytes, and numbers keep their digits. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, each with its JSON. Of two with one name the last counts, at the place of the
/// first, as everywhere.
#[derive(Default)]
pub struct Members<'j> {
    all: Vec<(String, Cow<'j, str>)>,
    places: HashMap<String, usize>,
}

impl<'j> Members<'j> {
    pub fn parse(json: &'j [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|at| self.all[*at].1.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn insert(&mut self, name: String, value: impl Into<Cow<'j, str>>) {
        match self.places.get(&name) {
            Some(at) => self.all[*at].1 = value.into(),
            None => {
                self.places.insert(name.clone(), self.all.len());
                self.all.push((name, value.into()));
            }
        }
    }

    pub fn to_json(&self) -> String {
        let mut json = String::from("{");
        for (at, (name, value)) in self.iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            json.push_str(&serde_json::Value::from(name).to_string());
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        json
    }
}

impl<'de: 'j, 'j> Deserialize<'de> for Members<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            members.insert(name, value.get());
        }
        Ok(members)
    }
}

/// The elements of an array.
pub fn elements(json: &str) -> serde_json::Result<Vec<&str>> {
    let all: Vec<&RawValue> = serde_json::from_str(json)?;
    Ok(all.into_iter().map(RawValue::get).collect())
}

pub fn is_object(json: &str) -> bool {
    json.starts_with('{')
}

pub fn is_array(json: &str) -> bool {
    json.starts_with('[')
}

/// `part` merged into `old`, both objects: objects meet objects, everything else is replaced. Recurses as deep as `old`.
pub fn merge(old: &str, part: &str) -> serde_json::Result<String> {
    let mut merged = Members::parse(old.as_bytes())?;
    for (name, value) in Members::parse(part.as_bytes())?.all {
        let inner = merged.get(&name).filter(|old| is_object(old) && is_object(&value));
        let value = match inner {
            Some(old) => self::merge(old, &value)?,
            None => value.into_owned(),
        };
        merged.insert(name, value);
    }
    Ok(merged.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_leaves_the_digits_of_others_alone() {
        let old = r#"{"a": -12.50, "o": {"b": 18446744073709551616, "c": [1.0]}, "x": {"y": 1}}"#;
        let merged = merge(old, r#"{"o":{"c":2.00,"d":null},"x":3}"#).expect("is merged");
        let expected = r#"{"a":-12.50,"o":{"b":18446744073709551616,"c":2.00,"d":null},"x":3}"#;
        assert_eq!(merged, expected);
    }

    #[test]
    fn of_two_members_with_one_name_the_last_counts() {
        let members = Members::parse(br#"{"a":1,"b":2,"a":3}"#).expect("an object");
        assert_eq!(members.to_json(), r#"{"a":3,"b":2}"#);
        assert!(Members::parse(b"[1]").is_err());
    }
}
