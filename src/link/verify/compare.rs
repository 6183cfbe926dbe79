//! Whether a document is what its row makes it: JSON against JSON, by value. Pure; names fields and never shows a value.
//!
//! What was written comes back byte for byte from an index, so equal bytes are the usual case and are looked at first.
//! Where the bytes differ the meaning decides: the order of keys and the spelling of strings and numbers are nothing,
//! every digit of a number is something, and numbers of a vector are as equal as 32 bits can tell.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use crate::pipeline::VectorField;
use crate::pipeline::json::{Kind, entries, kind, list};

/// How two documents are compared.
#[derive(Clone, Copy)]
pub(super) struct Rules<'r> {
    /// Vector fields of the index, with their lengths.
    pub dimensions: &'r HashMap<String, usize>,
    /// Vectors that stand as `[]` in what is expected: any numbers will do.
    pub any: &'r [VectorField],
    /// Fields that are not expected may be there: somebody behind us adds them.
    pub others_are_added: bool,
}

/// The fields in which `found` is not `expected`, in order. None are named of inside a JSON value: its keys are data.
pub(super) fn differing(expected: &[u8], found: &[u8], rules: Rules<'_>) -> Vec<String> {
    if expected == found && rules.any.is_empty() {
        return Vec::new();
    }
    let (Ok(expected), Ok(found)) = (std::str::from_utf8(expected), std::str::from_utf8(found))
    else {
        return vec![WHOLE.to_owned()];
    };
    let (Ok(wanted), Ok(found)) = (entries(expected.trim()), entries(found.trim())) else {
        return vec![WHOLE.to_owned()];
    };
    let mut fields = BTreeSet::new();
    for (name, value) in &wanted {
        let comparing = Comparing { rules, path: name.to_string() };
        let is_right = match get(&found, name) {
            Some(other) => comparing.is_same(value, other),
            None => comparing.may_miss(),
        };
        if !is_right {
            fields.insert(name.to_string());
        }
    }
    if !rules.others_are_added {
        let others = found.iter().filter(|(name, _)| get(&wanted, name).is_none());
        fields.extend(others.map(|(name, _)| name.to_string()));
    }
    fields.into_iter().collect()
}

/// What is named where a document is no object.
const WHOLE: &str = "_source";

type Entries<'v> = Vec<(Cow<'v, str>, &'v str)>;

/// Of a key that is there twice the last one counts.
fn get<'v>(entries: &Entries<'v>, name: &str) -> Option<&'v str> {
    entries.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
}

/// Two values at one place.
struct Comparing<'r> {
    rules: Rules<'r>,
    path: String,
}

impl Comparing<'_> {
    fn any(&self) -> Option<&VectorField> {
        self.rules.any.iter().find(|vector| vector.path == self.path)
    }

    fn may_miss(&self) -> bool {
        self.any().is_some_and(|vector| vector.may_miss)
    }

    fn is_same(&self, expected: &str, found: &str) -> bool {
        if expected == "[]" && self.any().is_some() {
            return self.is_vector(found);
        }
        if expected == found && self.rules.any.is_empty() {
            return true;
        }
        match (kind(expected), kind(found)) {
            (Kind::Object, Kind::Object) => match (entries(expected), entries(found)) {
                (Ok(expected), Ok(found)) => self.are_same_entries(&expected, &found),
                _ => false,
            },
            (Kind::List, Kind::List) => match (list(expected), list(found)) {
                (Ok(expected), Ok(found)) => {
                    let mut pairs = expected.iter().zip(&found);
                    expected.len() == found.len()
                        && pairs.all(|(one, other)| self.is_same(one.get(), other.get()))
                }
                _ => false,
            },
            (Kind::Text, Kind::Text) => match (text(expected), text(found)) {
                (Some(expected), Some(found)) => expected == found,
                _ => expected == found,
            },
            (Kind::Other, Kind::Other) => expected == found || self.is_same_number(expected, found),
            _ => expected == found,
        }
    }

    fn are_same_entries(&self, expected: &Entries<'_>, found: &Entries<'_>) -> bool {
        let inside =
            |name: &str| Comparing { rules: self.rules, path: format!("{}.{name}", self.path) };
        let are_there = expected.iter().all(|(name, value)| match get(found, name) {
            Some(other) => inside(name).is_same(value, other),
            None => inside(name).may_miss(),
        });
        are_there && found.iter().all(|(name, _)| get(expected, name).is_some())
    }

    fn is_same_number(&self, expected: &str, found: &str) -> bool {
        if self.rules.dimensions.contains_key(&self.path) {
            let number = |text: &str| text.parse::<f32>().ok();
            return number(expected).is_some() && number(expected) == number(found);
        }
        match (Decimal::read(expected), Decimal::read(found)) {
            (Some(expected), Some(found)) => expected == found,
            _ => false,
        }
    }

    /// Numbers, as many as the index has room for.
    fn is_vector(&self, found: &str) -> bool {
        let Ok(numbers) = list(found) else { return false };
        let is_long_enough = match self.rules.dimensions.get(&self.path) {
            Some(dimension) => numbers.len() == *dimension,
            None => !numbers.is_empty(),
        };
        let is_number = |text: &str| text.parse::<f32>().is_ok_and(f32::is_finite);
        is_long_enough && numbers.iter().all(|number| is_number(number.get()))
    }
}

fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A number by its digits: nothing is rounded.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    /// Without zeros at either end; empty for zero.
    digits: Vec<u8>,
    /// The power of ten of the last digit.
    exponent: i64,
}

impl Decimal {
    /// None of what is no number of JSON.
    fn read(text: &str) -> Option<Self> {
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = match rest.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut exponent = power.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let zeros_behind = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        digits.truncate(digits.len() - zeros_behind);
        exponent = exponent.checked_add(i64::try_from(zeros_behind).ok()?)?;
        let zeros_before = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros_before);
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits, exponent: 0 });
        }
        Some(Self { is_negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(expected: &str, found: &str) -> String {
        let dimensions = HashMap::from([("v".to_owned(), 2)]);
        let rules = Rules { dimensions: &dimensions, any: &[], others_are_added: false };
        differing(expected.as_bytes(), found.as_bytes(), rules).join(" ")
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        for (expected, found) in [
            (r#"{"a":1,"b":"ä"}"#, r#"{ "b" : "\u00e4", "a" : 1.0 }"#),
            (r#"{"a":100}"#, r#"{"a":1e2}"#),
            (r#"{"a":-0.0}"#, r#"{"a":0}"#),
            (r#"{"a":1.10}"#, r#"{"a":11E-1}"#),
            (r#"{"a":12345678901234567890.50}"#, r#"{"a":12345678901234567890.5}"#),
            (r#"{"a":{"x":[1,{"y":null}]}}"#, r#"{"a":{"x":[1.0,{"y":null}]}}"#),
            (r#"{"v":[0.1,1]}"#, r#"{"v":[0.10000000149011612,1.0]}"#),
        ] {
            assert_eq!(fields(expected, found), "", "{expected} {found}");
        }
    }

    #[test]
    fn what_differs_is_named_by_its_field() {
        for (expected, found, named) in [
            (r#"{"a":1,"b":"x"}"#, r#"{"a":2,"b":"y"}"#, "a b"),
            (r#"{"a":1}"#, r#"{}"#, "a"),
            (r#"{"a":1}"#, r#"{"a":1,"z":1}"#, "z"),
            (r#"{"a":1}"#, r#"{"a":"1"}"#, "a"),
            (r#"{"a":true}"#, r#"{"a":false}"#, "a"),
            (r#"{"a":null}"#, r#"{"a":0}"#, "a"),
            (r#"{"a":12345678901234567890.51}"#, r#"{"a":12345678901234567890.5}"#, "a"),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#, "a"),
            (r#"{"a":0.1}"#, r#"{"a":0.10000000149011612}"#, "a"),
            (r#"{"a":1}"#, r#"{"a":-1}"#, "a"),
            (r#"{"a":{"secret":1}}"#, r#"{"a":{"secret":2}}"#, "a"),
            (r#"{"a":{"x":1}}"#, r#"{"a":{"x":1,"y":2}}"#, "a"),
            (r#"{"a":[1,2]}"#, r#"{"a":[1]}"#, "a"),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, "a"),
            (r#"{"v":[0.1,1]}"#, r#"{"v":[0.2,1]}"#, "v"),
            (r#"{"a":1}"#, r#"[1]"#, "_source"),
        ] {
            assert_eq!(fields(expected, found), named, "{expected} {found}");
        }
    }

    #[test]
    fn a_vector_that_is_not_computed_must_be_there_and_fit() {
        let dimensions = HashMap::from([("v".to_owned(), 2)]);
        let vector = |may_miss| [VectorField { path: "v".to_owned(), may_miss }];
        let fields = |found: &str, may_miss| {
            let any = vector(may_miss);
            let rules = Rules { dimensions: &dimensions, any: &any, others_are_added: false };
            differing(br#"{"t":"x","v":[]}"#, found.as_bytes(), rules).join(" ")
        };
        assert_eq!(fields(r#"{"t":"x","v":[1,2.5]}"#, false), "");
        for wrong in [r#"{"t":"x","v":[1]}"#, r#"{"t":"x","v":[]}"#, r#"{"t":"x","v":["a","b"]}"#] {
            assert_eq!(fields(wrong, false), "v", "{wrong}");
        }
        assert_eq!(
            (fields(r#"{"t":"x"}"#, false), fields(r#"{"t":"x"}"#, true)),
            ("v".into(), "".into())
        );
        assert_eq!(fields(r#"{"t":"y","v":[1,2]}"#, false), "t");
        let none = Rules { dimensions: &dimensions, any: &[], others_are_added: false };
        assert_eq!(differing(br#"{"t":" "}"#, br#"{"t":" ","v":[1,2]}"#, none), ["v"]);
        let added = Rules { others_are_added: true, ..none };
        assert!(differing(br#"{"t":" "}"#, br#"{"t":" ","v":[1,2]}"#, added).is_empty());
    }
}
