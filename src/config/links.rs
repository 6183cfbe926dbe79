//! `[[links]]`: each becomes the statement that would have made it, and is read as that, so that a link of the file and
//! one of the SQL door are the same. Errors are carried back to the place in the file. Knows no table.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use toml::de::DeValue;

use super::text::{Env, Text};
use super::value::{PLACE, Source};
use crate::admin::spec;
use crate::error::{Error, Result, Span};
use crate::link::{AddColumns, Beginning, OnGone, OnPurged, Origin, Overrides, PipelineMode, Spec};
use crate::mapping;
use crate::statement;

const FORMS: &str = "a link has either `mapping` and `key`, or `table` and `index`";

/// One `[[links]]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Entry {
    id: Option<Place>,
    mapping: Option<Place>,
    key: Option<Place>,
    table: Option<Place>,
    index: Option<Place>,
    columns: Option<Vec<Place>>,
    pipeline_mode: Option<PipelineMode>,
    types: mapping::Overrides,
    on_truncate: Option<Place>,
    on_drop: Option<Place>,
    add_columns: Option<Place>,
    on_purged: Option<Place>,
    verify_every_secs: Option<u64>,
    verify_repair: Option<bool>,
    from: Option<Place>,
}

/// Where a string's literal stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(Span);

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ends;
        impl<'de> Visitor<'de> for Ends {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ends: A) -> Result<Place, A::Error> {
                let start = ends.next_element()?.unwrap_or_default();
                let end = ends.next_element()?.unwrap_or(start);
                Ok(Place(Span::new(start, end)))
            }
        }
        deserializer.deserialize_newtype_struct(PLACE, Ends)
    }
}

/// The links that `entries` ask for; what is wrong with them goes to `errors`.
pub(super) fn specs(source: &Source<'_>, entries: &[Entry], errors: &mut Vec<Error>) -> Vec<Spec> {
    let mut specs: Vec<Spec> = Vec::new();
    let faults_before = errors.len();
    for (at, entry) in entries.iter().enumerate() {
        let header = header(source, at, entries.len());
        let next = self::header(source, at + 1, entries.len()).start;
        let is_mine = |error: &Error| {
            error.span().is_some_and(|span| {
                header.start <= span.start && (span.start < next || next <= header.start)
            })
        };
        // What is missing may be what was misspelt.
        if !entry.is_whole() && errors[..faults_before].iter().any(is_mine) {
            continue;
        }
        let made = spec_of(source, entry, header).and_then(|spec| {
            refuse_twice(&specs, &spec)
                .map_err(|error| error.at(entry.place().unwrap_or(header)))?;
            Ok(spec)
        });
        match made {
            Ok(spec) => specs.push(spec),
            Err(error) => errors.push(error),
        }
    }
    specs
}

/// The same refusals as the supervisor's, before anything starts.
fn refuse_twice(specs: &[Spec], spec: &Spec) -> Result<()> {
    for other in specs {
        if other.id == spec.id {
            let id = spec.id.as_deref().unwrap_or_default();
            return Err(Error::input(format!("two links have the id `{id}`")));
        }
        if other.rules.index() == spec.rules.index() {
            let message = format!("two links write the index `{}`", spec.rules.index());
            return Err(
                Error::input(message).with_advice("they would overwrite each other's documents")
            );
        }
    }
    Ok(())
}

fn header(source: &Source<'_>, at: usize, count: usize) -> Span {
    let links = source.table.get_ref().get("links");
    let element = match links.map(|links| links.get_ref()) {
        Some(DeValue::Array(elements)) if elements.len() == count => elements.get(at),
        _ if at >= count => None,
        _ => links,
    };
    element.map_or_else(Span::default, |found| Span::new(found.span().start, found.span().end))
}

fn spec_of(source: &Source<'_>, entry: &Entry, header: Span) -> Result<Spec> {
    let missing = |message: &str| Err(Error::input(message).with_advice(FORMS).at(header));
    let read = |place: &Place| read(source, *place);
    let mut call = Call::default();
    match (&entry.mapping, &entry.key, &entry.table, &entry.index) {
        (Some(mapping), Some(key), None, None) if entry.columns.is_none() => {
            call.plain("CALL dbms_etl.sync_by_map(\"search\", ");
            call.quoted(&read(mapping)?);
            call.plain(", ");
            call.quoted(&read(key)?);
            call.plain(", \"\", \"\")");
        }
        (None, None, Some(table), Some(index)) => {
            call.plain("CALL dbms_etl.sync_by_table(\"search\", ");
            call.quoted(&read(table)?);
            call.plain(", ");
            call.quoted(&read(index)?);
            call.plain(", ");
            let columns = entry.columns.iter().flatten().map(read).collect::<Result<Vec<_>>>()?;
            call.quoted_names(&columns);
            call.plain(")");
        }
        (Some(_), None, None, None) => return missing("the link has no `key`"),
        (None, Some(_), None, None) => return missing("the link has no `mapping`"),
        (None, None, Some(_), None) => return missing("the link has no `index`"),
        (None, None, None, Some(_)) => return missing("the link has no `table`"),
        (None, None, None, None) => return missing("the link says nothing of what to sync"),
        _ => return missing("the link mixes both ways to say what to sync"),
    }
    let id = entry.id.as_ref().map(read).transpose()?.map(|id| id.value);
    if id.as_deref().is_some_and(|id| id.trim().is_empty()) {
        return Err(Error::input("the link's id is empty").at(entry.id.map_or(header, |id| id.0)));
    }
    let statement = statement::parse(&call.text).map_err(|error| call.carry_back(error))?;
    let spec = spec::of(&statement, &call.text, Origin::Config);
    let mut spec = spec.expect("both calls make a link");
    spec.pipeline_mode = entry.pipeline_mode;
    spec.types = entry.types;
    spec.id = id.or_else(|| Some(spec.rules.index().to_owned()));
    spec.overrides = overrides(source, entry)?;
    let before = source.text.get(..header.start).unwrap_or_default();
    spec.line = Some(before.matches('\n').count() + 1);
    if let Some(place) = entry.from {
        spec.from = Beginning::parse(&read(&place)?.value).map_err(|error| error.at(place.0))?;
    }
    Ok(spec)
}

fn overrides(source: &Source<'_>, entry: &Entry) -> Result<Overrides> {
    Ok(Overrides {
        on_truncate: one_of(source, entry.on_truncate, OnGone::parse, OnGone::WORDS)?,
        on_drop: one_of(source, entry.on_drop, OnGone::parse, OnGone::WORDS)?,
        add_columns: one_of(source, entry.add_columns, AddColumns::parse, AddColumns::WORDS)?,
        on_purged: one_of(source, entry.on_purged, OnPurged::parse, OnPurged::WORDS)?,
        verify_every_secs: entry.verify_every_secs,
        verify_repair: entry.verify_repair,
    })
}

/// The word at `place`, which must be one of those that `parse` knows.
fn one_of<T>(
    source: &Source<'_>,
    place: Option<Place>,
    parse: impl Fn(&str) -> Option<T>,
    words: &str,
) -> Result<Option<T>> {
    let Some(place) = place else { return Ok(None) };
    let word = read(source, place)?.value;
    match parse(&word) {
        Some(found) => Ok(Some(found)),
        None => {
            let what = format!("`{word}` is none of the values here");
            Err(Error::input(what).with_advice(format!("write {words}")).at(place.0))
        }
    }
}

impl Entry {
    fn is_whole(&self) -> bool {
        let by_map = self.mapping.is_some() && self.key.is_some();
        by_map || (self.table.is_some() && self.index.is_some())
    }

    /// Where the link begins to say what it is.
    fn place(&self) -> Option<Span> {
        self.id.or(self.mapping).or(self.index).map(|place| place.0)
    }
}

fn read(source: &Source<'_>, place: Place) -> Result<Text> {
    let literal = source.text.get(place.0.start..place.0.end).unwrap_or_default();
    let parsed = DeValue::parse(literal).ok();
    let meaning = parsed.as_ref().and_then(|value| value.get_ref().as_str()).unwrap_or_default();
    let env: Env<'_> = source.env;
    Text::read(source.text, place.0, meaning, env)
}

/// A statement that is put together, with the place in the file that each byte of it comes from.
#[derive(Default)]
struct Call {
    text: String,
    origins: Vec<Option<usize>>,
}

impl Call {
    fn push(&mut self, text: &str, origin: Option<usize>) {
        self.text.push_str(text);
        self.origins.resize(self.text.len(), origin);
    }

    fn plain(&mut self, text: &str) {
        self.push(text, None);
    }

    fn quoted(&mut self, text: &Text) {
        self.push("\"", Some(text.origin(0)));
        self.inside(text);
        // An error at the end of the text is an error at its closing quote.
        self.push("\"", Some(text.origin(text.value.len())));
    }

    fn inside(&mut self, text: &Text) {
        for (at, c) in text.value.char_indices() {
            if matches!(c, '"' | '\\') {
                self.push("\\", Some(text.origin(at)));
            }
            self.push(c.encode_utf8(&mut [0; 4]), Some(text.origin(at)));
        }
    }

    /// Names in back-ticks, so that each is taken as it is.
    fn quoted_names(&mut self, names: &[Text]) {
        self.plain("\"");
        for (at, name) in names.iter().enumerate() {
            self.plain(if at == 0 { "" } else { ", " });
            self.push("`", Some(name.origin(0)));
            for (at, c) in name.value.char_indices() {
                if matches!(c, '`' | '"' | '\\') {
                    self.push(if c == '`' { "`" } else { "\\" }, Some(name.origin(at)));
                }
                self.push(c.encode_utf8(&mut [0; 4]), Some(name.origin(at)));
            }
            self.push("`", Some(name.origin(name.value.len())));
        }
        self.plain("\"");
    }

    /// The error of the statement, at its place in the file.
    fn carry_back(&self, error: Error) -> Error {
        let Some(span) = error.span() else { return error };
        let of = |at: usize| self.origins.get(at).copied().flatten();
        let inside = span.start..span.end.max(span.start + 1);
        let start = inside.clone().find_map(of);
        let end = inside.rev().find_map(of).map(|last| last + 1);
        match (start, end) {
            (Some(start), Some(end)) => error.at(Span::new(start, end.max(start))),
            _ => error,
        }
    }
}
