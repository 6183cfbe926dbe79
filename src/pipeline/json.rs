//! JSON looked at where it lies: what a value is, and where its parts are. Knows no processor.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Object,
    List,
    Null,
    /// A number or a truth value.
    Other,
}

/// What a JSON value is, by its first character: raw values carry no white space around.
pub fn kind(value: &str) -> Kind {
    match value.as_bytes().first() {
        Some(b'"') => Kind::Text,
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::List,
        Some(b'n') => Kind::Null,
        _ => Kind::Other,
    }
}

/// The elements of a list.
pub fn list(value: &str) -> serde_json::Result<Vec<&RawValue>> {
    serde_json::from_str(value)
}

/// The keys and values of an object, in their order.
pub fn entries(value: &str) -> serde_json::Result<Vec<(Cow<'_, str>, &str)>> {
    serde_json::from_str::<Entries<'_>>(value).map(|Entries(entries)| entries)
}

/// An object's keys and raw values, in their order.
struct Entries<'b>(Vec<(Cow<'b, str>, &'b str)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    entries.push((key, value.get()));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[derive(Deserialize)]
struct Key<'b>(#[serde(borrow)] Cow<'b, str>);
