//! JSON that is stored as it was written, in a text column of MariaDB: proven to be JSON, without white space, each key
//! of an object once. Knows no columns.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::escape::write_string;
use super::json::write_json_text;
use crate::error::{Error, ErrorKind, Result as Outcome};

/// Whether the text is one JSON value, no object of which has a key twice.
pub(super) fn look(text: &str) -> Found {
    match serde_json::from_str::<Walk>(text) {
        Ok(Walk { is_repeated: false }) => Found::Json,
        Ok(Walk { is_repeated: true }) => Found::Repeated,
        Err(_) => Found::Other,
    }
}

/// Writes JSON with each key of an object once, with its first value, which is the one that the server's functions see.
pub(super) fn write_once(text: &[u8], out: &mut Vec<u8>) -> Outcome<()> {
    let broken = |cause: serde_json::Error| {
        Error::new(ErrorKind::DocumentRefused, "its text is no JSON").caused_by(cause)
    };
    match text.trim_ascii_start().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_slice(text).map_err(broken)?;
            out.push(b'{');
            for (at, (Key(key), value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(key.as_bytes(), out)?;
                out.push(b':');
                write_once(value.get().as_bytes(), out)?;
            }
            out.push(b'}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_slice(text).map_err(broken)?;
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_once(item.get().as_bytes(), out)?;
            }
            out.push(b']');
        }
        _ => write_json_text(text, out)?,
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Json,
    /// JSON in which an object has a key twice, which an index does not take.
    Repeated,
    Other,
}

/// A value that was walked through.
struct Walk {
    is_repeated: bool,
}

impl<'de> Deserialize<'de> for Walk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walker)
    }
}

struct Walker;

const LEAF: Walk = Walk { is_repeated: false };

impl<'de> Visitor<'de> for Walker {
    type Value = Walk;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Walk, E> {
        Ok(LEAF)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Walk, E> {
        Ok(LEAF)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Walk, E> {
        Ok(LEAF)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Walk, E> {
        Ok(LEAF)
    }

    fn visit_str<E>(self, _: &str) -> Result<Walk, E> {
        Ok(LEAF)
    }

    fn visit_unit<E>(self) -> Result<Walk, E> {
        Ok(LEAF)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Walk, A::Error> {
        let mut is_repeated = false;
        while let Some(item) = seq.next_element::<Walk>()? {
            is_repeated |= item.is_repeated;
        }
        Ok(Walk { is_repeated })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Walk, A::Error> {
        let mut keys = std::collections::HashSet::new();
        let mut is_repeated = false;
        while let Some(Key(key)) = map.next_key()? {
            if !keys.insert(key) {
                map.next_value::<IgnoredAny>()?;
                is_repeated = true;
                continue;
            }
            is_repeated |= map.next_value::<Walk>()?.is_repeated;
        }
        Ok(Walk { is_repeated })
    }
}

/// Borrowed where it has no escapes.
#[derive(Clone, PartialEq, Eq, Hash, serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object, each key once, as they stand in the text.
struct Members<'a>(Vec<(Key<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let (mut seen, mut members) = (std::collections::HashSet::new(), Vec::new());
                while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    if seen.insert(key.clone()) {
                        members.push((key, value));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_or_has_a_key_twice_is_found() {
        for text in [
            "{}",
            " [1, -0.5e3, \"\\u00e9\", null, {\"a\": {\"a\": true}}]",
            "18446744073709551616",
        ] {
            assert_eq!(look(text), Found::Json, "{text}");
        }
        for text in ["{\"a\":1,\"a\":2}", "[{\"b\":[{\"\\u0061\":1,\"a\":2}]}]"] {
            assert_eq!(look(text), Found::Repeated, "{text}");
        }
        let deep = "[".repeat(100_000);
        for text in
            ["", "1.", "01", "{\"a\":1,}", "\"\\x\"", "\"a\tb\"", "NaN", "1 2", deep.as_str()]
        {
            assert_eq!(look(text), Found::Other, "{text}");
        }
    }

    #[test]
    fn the_first_of_equal_keys_stays() {
        let mut out = Vec::new();
        let text = " {\"a\": [1.50, {\"b\":1, \"b\":2}], \"\\u0061\": 3, \"c\\n\": \"x  y\"}";
        write_once(text.as_bytes(), &mut out).expect("is JSON");
        let expected = "{\"a\":[1.50,{\"b\":1}],\"c\\n\":\"x  y\"}";
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
