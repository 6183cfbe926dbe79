//! Hands a parsed TOML document to `Deserialize`, and knows the place of every key and value when that fails. Serde's
//! own reader for TOML stops at the first fault; this one can leave out what was found to be wrong, so that
//! [`deserialize`] finds the next. Knows no key by name.

use std::fmt;

use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer as _,
};
use serde::de::{MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::text::{Env, Text};
use crate::error::{Error, Span, nearest};

/// A newtype of this name receives the start and end of a string literal instead of the string.
pub(super) const PLACE: &str = "driftless::config::Place";

/// Everything a document is read with.
pub(super) struct Source<'s> {
    pub text: &'s str,
    pub table: &'s Spanned<DeTable<'s>>,
    pub env: Env<'s>,
}

/// Reads the document as a `T`, and says everything that is wrong with it. What is wrong is left out of the `T`.
pub(super) fn deserialize<T: DeserializeOwned + Default>(source: &Source<'_>) -> (T, Vec<Error>) {
    let mut errors = Vec::new();
    let mut left_out: Vec<Path> = Vec::new();
    loop {
        let reader = Reader { source, left_out: &left_out };
        let root = Table { reader: &reader, table: source.table.get_ref(), path: Path::default() };
        let fault = match T::deserialize(root) {
            Ok(value) => return (value, errors),
            Err(fault) => fault,
        };
        let path = fault.path.clone().unwrap_or_default();
        errors.push(fault.into_error());
        // A fault without a place could come again for ever.
        if path.steps.is_empty() || left_out.contains(&path) {
            return (T::default(), errors);
        }
        left_out.push(path);
    }
}

/// The span of the value at `path` (`source.tls`, `sink.addresses.0`), for what is found to be wrong later.
pub(super) fn place(table: &Spanned<DeTable<'_>>, path: &str) -> Option<Span> {
    let mut names = path.split('.');
    let first = table.get_ref().get(names.next()?)?;
    let inner = |value: &'_ Spanned<DeValue<'_>>, name: &str| match value.get_ref() {
        DeValue::Table(table) => table.get(name).map(span_of),
        DeValue::Array(elements) => elements.get(name.parse::<usize>().ok()?).map(span_of),
        _ => None,
    };
    let rest: Vec<&str> = names.collect();
    let Some((last, between)) = rest.split_last() else { return Some(span_of(first)) };
    let mut value = first;
    for name in between {
        let DeValue::Table(table) = value.get_ref() else { return None };
        value = table.get(*name)?;
    }
    inner(value, last)
}

fn span_of<T>(spanned: &Spanned<T>) -> Span {
    Span::new(spanned.span().start, spanned.span().end)
}

struct Reader<'r> {
    source: &'r Source<'r>,
    left_out: &'r [Path],
}

/// The way to a key or an element: `source.tls.mode`, `links.#1.mapping`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Element(usize),
}

impl Step {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Element(_) => None,
        }
    }
}

impl Path {
    fn then(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps }
    }

    /// The last key on the way, without which no message can say what it speaks of.
    fn key(&self) -> &str {
        let keys = self.steps.iter().rev().filter_map(Step::key);
        keys.into_iter().next().unwrap_or("")
    }

    /// ` in [source.tls]`, ` in [[links]]`, or nothing at the top.
    fn section(&self) -> String {
        let last_key = self.steps.iter().rposition(|step| matches!(step, Step::Key(_)));
        let outer = &self.steps[..last_key.unwrap_or(0)];
        let is_array = outer.iter().any(|step| matches!(step, Step::Element(_)));
        let names: Vec<&str> = outer.iter().filter_map(Step::key).collect();
        match (names.is_empty(), is_array) {
            (true, _) => String::new(),
            (false, false) => format!(" in [{}]", names.join(".")),
            (false, true) => format!(" in [[{}]]", names.join(".")),
        }
    }
}

/// Why a value could not be taken.
#[derive(Debug)]
pub(super) struct Fault {
    what: What,
    span: Option<Span>,
    path: Option<Path>,
}

#[derive(Debug)]
enum What {
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    UnknownWord {
        word: String,
        known: &'static [&'static str],
    },
    WrongType {
        found: &'static str,
        expected: String,
    },
    WrongValue {
        reason: String,
    },
    /// It says everything itself. Boxed: serde hands faults around by value.
    Said(Box<Error>),
}

impl Fault {
    fn of(what: What) -> Self {
        Self { what, span: None, path: None }
    }

    /// The innermost place wins.
    fn or_at(mut self, span: Span, path: &Path) -> Self {
        if self.path.is_none() {
            self.span = self.span.or(Some(span));
            self.path = Some(path.clone());
        }
        self
    }

    fn into_error(self) -> Error {
        let path = self.path.unwrap_or_default();
        let (key, section) = (path.key(), path.section());
        let error = match self.what {
            What::UnknownKey { key, known } => {
                let advice = match nearest(&key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", list(known)),
                };
                Error::input(format!("unknown key `{key}`{section}")).with_advice(advice)
            }
            What::UnknownWord { word, known } => {
                let advice = match nearest(&word, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`? There are {}", list(known)),
                    None => format!("there are {}", list(known)),
                };
                Error::input(format!("`{word}` is no value of `{key}`{section}"))
                    .with_advice(advice)
            }
            What::WrongType { found, expected } => {
                Error::input(format!("`{key}`{section} is {found}, expected {expected}"))
            }
            What::WrongValue { reason } => {
                Error::input(format!("wrong value for `{key}`{section}: {reason}"))
            }
            What::Said(error) => return *error,
        };
        match self.span {
            Some(span) => error.at(span),
            None => error,
        }
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let reason = match message.to_string() {
            // What `SocketAddr` says of itself.
            text if text == "invalid socket address syntax" => {
                "expected address:port, as \"127.0.0.1:9220\"".to_owned()
            }
            text => text,
        };
        Self::of(What::WrongValue { reason })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::of(What::UnknownKey { key: key.to_owned(), known })
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::of(What::UnknownWord { word: word.to_owned(), known })
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::of(What::WrongType {
            found: kind_of(&found),
            expected: in_words(&expected.to_string()),
        })
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::of(What::WrongValue {
            reason: format!("expected {}", in_words(&expected.to_string())),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Fault {}

/// Without the value itself: it may be a secret in the wrong place.
fn kind_of(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Str(_) => "a string",
        Unexpected::Seq => "an array",
        Unexpected::Map => "a table",
        _ => "something else",
    }
}

/// What Rust expects, in TOML's words.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "u8" => "an integer from 0 to 255",
        "u16" => "an integer from 0 to 65535",
        "u32" => "an integer from 0 to 4294967295",
        "u64" | "usize" => "an integer that is not negative",
        "i64" | "isize" => "an integer",
        "path string" | "string" | "a string" => "a string",
        "a sequence" => "an array",
        text if text.starts_with("struct ") => "a table",
        text => text,
    };
    words.to_owned()
}

/// A table on its way to a struct.
struct Table<'r> {
    reader: &'r Reader<'r>,
    table: &'r DeTable<'r>,
    path: Path,
}

impl<'de> Deserializer<'de> for Table<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries { entries: self.table.iter(), value: None, of: self })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries<'r> {
    entries: toml::map::Iter<'r, Spanned<std::borrow::Cow<'r, str>>, Spanned<DeValue<'r>>>,
    value: Option<Item<'r>>,
    of: Table<'r>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let reader = self.of.reader;
        for (key, value) in self.entries.by_ref() {
            let path = self.of.path.then(Step::Key(key.get_ref().to_string()));
            if reader.left_out.contains(&path) {
                continue;
            }
            let name: StrDeserializer<'_, Fault> = key.get_ref().as_ref().into_deserializer();
            let taken = seed.deserialize(name).map_err(|fault| fault.or_at(span_of(key), &path));
            self.value = Some(Item { reader, value, path });
            return taken.map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let item = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(item)
    }
}

struct Elements<'r> {
    reader: &'r Reader<'r>,
    elements: std::iter::Enumerate<std::slice::Iter<'r, Spanned<DeValue<'r>>>>,
    path: Path,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        for (at, value) in self.elements.by_ref() {
            let path = self.path.then(Step::Element(at));
            if !self.reader.left_out.contains(&path) {
                return seed.deserialize(Item { reader: self.reader, value, path }).map(Some);
            }
        }
        Ok(None)
    }
}

/// One value of the document.
struct Item<'r> {
    reader: &'r Reader<'r>,
    value: &'r Spanned<DeValue<'r>>,
    path: Path,
}

impl Item<'_> {
    fn span(&self) -> Span {
        span_of(self.value)
    }

    fn text(&self, meaning: &str) -> Result<String, Fault> {
        let source = self.reader.source;
        let said = |error| Fault::of(What::Said(Box::new(error))).or_at(self.span(), &self.path);
        Ok(Text::read(source.text, self.span(), meaning, source.env).map_err(said)?.value)
    }

    /// A string where a number is wanted: `"512MiB"` for sizes, and a number from the environment.
    fn number(&self) -> Result<Option<u64>, Fault> {
        let DeValue::String(meaning) = self.value.get_ref() else { return Ok(None) };
        let is_size = self.path.key().ends_with("_bytes");
        if !is_size && !meaning.contains("${") {
            return Ok(None);
        }
        let text = self.text(meaning)?;
        let number = if is_size { size(&text) } else { text.trim().parse().ok() };
        let reason = match is_size {
            true => "expected a size as 1048576, \"512KiB\", \"16MiB\" or \"1GiB\"",
            false => "expected a number in the environment",
        };
        let wrong = || Fault::of(What::WrongValue { reason: reason.to_owned() });
        number.map(Some).ok_or_else(wrong)
    }
}

/// `512MiB`, `64 KiB`, `1GB`, `1048576`.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number: u64 = text[..digits].replace('_', "").parse().ok()?;
    let factor: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let (span, path) = (self.span(), self.path.clone());
            let taken = match self.number() {
                Ok(Some(number)) => visitor.visit_u64(number),
                Ok(None) => self.deserialize_any(visitor),
                Err(fault) => Err(fault),
            };
            taken.map_err(|fault| fault.or_at(span, &path))
        })*
    };
}

impl<'de> Deserializer<'de> for Item<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let (span, path, reader) = (self.span(), self.path.clone(), self.reader);
        let taken = match self.value.get_ref() {
            DeValue::String(meaning) => {
                self.text(meaning).and_then(|text| visitor.visit_string(text))
            }
            DeValue::Integer(digits) => {
                match i64::from_str_radix(digits.as_str(), digits.radix()) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => Err(de::Error::custom("the number is too large")),
                }
            }
            DeValue::Float(digits) => match digits.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::custom("the number cannot be read")),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => {
                Err(de::Error::invalid_type(Unexpected::Other("a date"), &visitor))
            }
            DeValue::Array(elements) => visitor.visit_seq(Elements {
                reader,
                elements: elements.iter().enumerate(),
                path: self.path,
            }),
            DeValue::Table(table) => {
                Table { reader, table, path: self.path }.deserialize_any(visitor)
            }
        };
        taken.map_err(|fault| fault.or_at(span, &path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != PLACE {
            return visitor.visit_newtype_struct(self);
        }
        match self.value.get_ref() {
            DeValue::String(_) => {
                let span = self.span();
                visitor.visit_seq(SeqDeserializer::new([span.start, span.end].into_iter()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let DeValue::String(meaning) = self.value.get_ref() else {
            let expected = "a string";
            let found = de::Error::invalid_type(unexpected(self.value.get_ref()), &expected);
            return Err(Fault::or_at(found, self.span(), &self.path));
        };
        let text = self.text(meaning)?;
        let word: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
        visitor.visit_enum(word).map_err(|fault| fault.or_at(self.span(), &self.path))
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    forward_to_deserialize_any! {
        bool f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

fn unexpected<'v>(value: &'v DeValue<'_>) -> Unexpected<'v> {
    match value {
        DeValue::String(text) => Unexpected::Str(text),
        DeValue::Integer(_) => Unexpected::Signed(0),
        DeValue::Float(_) => Unexpected::Float(0.0),
        DeValue::Boolean(value) => Unexpected::Bool(*value),
        DeValue::Datetime(_) => Unexpected::Other("a date"),
        DeValue::Array(_) => Unexpected::Seq,
        DeValue::Table(_) => Unexpected::Map,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("512MiB"), Some(512 << 20));
        assert_eq!(size(" 64 KiB "), Some(64 << 10));
        assert_eq!(size("1_000"), Some(1000));
        assert_eq!(size("1GB"), Some(1_000_000_000));
        for wrong in ["", "MiB", "1mib", "-1", "1.5GiB", "99999999999GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
