//! A search from its JSON to its hits: paging, order, what of a document is shown, and hybrids of several queries. Exact:
//! everything that matches is looked at. Knows no HTTP.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tantivy::{DocAddress, Searcher};

use super::collect::{self, Match, Matches};
use super::disk::{Generation, column_name};
use super::fault::{Answer, Fault};
use super::fields::Kind;
use super::query::{Builder, only_entry};

/// A search that was understood.
#[derive(Debug, Clone)]
pub struct Search {
    query: Value,
    from: usize,
    size: usize,
    sort: Vec<Order>,
    source: SourceFilter,
    /// Whether hits say their version.
    pub version: bool,
    track_scores: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Order {
    by: String,
    descending: bool,
    missing_first: bool,
}

/// Which of the source's fields are shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SourceFilter {
    pub none: bool,
    pub includes: Vec<String>,
    pub excludes: Vec<String>,
}

#[derive(Debug)]
pub struct Found {
    pub total: usize,
    pub max_score: Option<f32>,
    pub hits: Vec<Hit>,
}

#[derive(Debug)]
pub struct Hit {
    pub id: String,
    pub version: u64,
    pub score: Option<f32>,
    /// Byte for byte what was written, where nothing is left out of it.
    pub source: Option<Box<RawValue>>,
    pub sort: Option<Vec<Value>>,
}

impl Search {
    /// Reads a search's body; null is a search for everything.
    pub fn parse(body: &Value) -> Answer<Self> {
        let mut search = Self {
            query: Value::Null,
            from: 0,
            size: 10,
            sort: Vec::new(),
            source: SourceFilter::default(),
            version: false,
            track_scores: false,
        };
        let empty = Map::new();
        let body = match body {
            Value::Null => &empty,
            Value::Object(body) => body,
            _ => return Err(Fault::parsing("the body of a search is not an object")),
        };
        for (key, value) in body {
            search.set(key, value)?;
        }
        Ok(search)
    }

    /// Sets one of the body's keys.
    pub fn set(&mut self, key: &str, value: &Value) -> Answer<()> {
        let truth =
            || value.as_bool().ok_or_else(|| Fault::parsing(format!("[{key}] is true or false")));
        let number = || {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
            number
                .ok_or_else(|| Fault::parsing(format!("[{key}] is a number that is not negative")))
        };
        match key {
            "query" => self.query = value.clone(),
            "from" => self.from = number()?,
            "size" => self.size = number()?,
            "sort" => self.sort = orders(value)?,
            "_source" => self.source = SourceFilter::parse(value)?,
            "version" => self.version = truth()?,
            "track_scores" => self.track_scores = truth()?,
            // The total is always exact.
            "track_total_hits" if value.is_boolean() || value.is_u64() => {}
            "timeout" if value.is_string() => {}
            other => {
                return Err(Fault::parsing(format!(
                    "unknown key [{other}] in a search: the embedded index takes query, from, size, sort, _source, version, track_scores and track_total_hits"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn run(&self, generation: &Generation, window: usize) -> Answer<Found> {
        let end = self.from.saturating_add(self.size);
        if end > window {
            return Err(Fault::request(format!(
                "Result window is too large, from + size must be less than or equal to: [{window}] but was [{end}]"
            )));
        }
        let searcher = generation.reader.searcher();
        let builder = Builder { generation, searcher: &searcher };
        let matches = matches(&builder, &self.query)?;
        let total = matches.len();
        let by_score = self.sort.is_empty() || self.sort.iter().any(|order| order.by == "_score");
        let scored = by_score || self.track_scores;
        let max_score = matches.iter().map(|found| found.score).max_by(f32::total_cmp);
        let page = self.page(generation, &searcher, matches, end)?;
        let mut hits = Vec::with_capacity(page.len());
        for (found, sort) in page {
            let (id, source) = generation.load(&searcher, found.address)?;
            let place = generation.place(&searcher, found.address)?;
            hits.push(Hit {
                id,
                version: place.version,
                score: scored.then_some(found.score),
                source: self.source.apply(&source)?,
                sort,
            });
        }
        Ok(Found { total, max_score: max_score.filter(|_| scored), hits })
    }

    /// The hits from `from` to `end`, each with its sort values if it was sorted.
    fn page(
        &self,
        generation: &Generation,
        searcher: &Searcher,
        mut matches: Matches,
        end: usize,
    ) -> Answer<Vec<(Match, Option<Vec<Value>>)>> {
        if self.sort.is_empty() {
            first_sorted(&mut matches, end, |a, b| {
                b.score.total_cmp(&a.score).then(a.address.cmp(&b.address))
            });
            return Ok(matches.into_iter().skip(self.from).map(|found| (found, None)).collect());
        }
        let keys = self.sort.iter().map(|order| keys(order, generation, searcher, &matches));
        let keys: Vec<Vec<Option<SortKey>>> = keys.collect::<Answer<_>>()?;
        let mut places: Vec<usize> = (0..matches.len()).collect();
        first_sorted(&mut places, end, |a, b| {
            let mut compared = self
                .sort
                .iter()
                .zip(&keys)
                .map(|(order, keys)| order.compare(&keys[*a], &keys[*b]));
            compared.find(|ordering| ordering.is_ne()).unwrap_or_else(|| a.cmp(b))
        });
        let value = |place: usize| {
            keys.iter().map(move |keys| keys[place].as_ref().map_or(Value::Null, SortKey::json))
        };
        Ok(places
            .into_iter()
            .skip(self.from)
            .map(|place| (matches[place], Some(value(place).collect())))
            .collect())
    }
}

/// Keeps the first `count` in order, without sorting the others.
fn first_sorted<T>(all: &mut Vec<T>, count: usize, compare: impl Fn(&T, &T) -> Ordering) {
    if count < all.len() {
        if count > 0 {
            all.select_nth_unstable_by(count - 1, &compare);
        }
        all.truncate(count);
    }
    all.sort_unstable_by(compare);
}

pub(super) fn count(generation: &Generation, query: &Value) -> Answer<usize> {
    let searcher = generation.reader.searcher();
    let query = Builder { generation, searcher: &searcher }.build(query)?;
    Ok(query.count(&searcher)?)
}

fn matches(builder: &Builder<'_>, query: &Value) -> Answer<Matches> {
    match query.get("hybrid") {
        None => Ok(collect::all(builder.searcher, &builder.build(query)?)?),
        Some(_) => hybrid(builder, only_entry(query, "query")?.1),
    }
}

/// Several queries beside each other: the scores of each are brought to 0 … 1 (min_max), and a document's score is the
/// arithmetic mean over all queries. A query that does not match counts 0.
fn hybrid(builder: &Builder<'_>, body: &Value) -> Answer<Matches> {
    let queries = only_entry(body, "hybrid")?;
    let queries = match queries {
        ("queries", Value::Array(queries)) if (1..=5).contains(&queries.len()) => queries,
        _ => return Err(Fault::parsing("[hybrid] takes [queries], a list of one to five")),
    };
    let mut sums: HashMap<DocAddress, f32> = HashMap::new();
    for query in queries {
        let found = collect::all(builder.searcher, &builder.build(query)?)?;
        let least = found.iter().map(|found| found.score).fold(f32::INFINITY, f32::min);
        let greatest = found.iter().map(|found| found.score).fold(f32::NEG_INFINITY, f32::max);
        for Match { address, score } in found {
            let normal = match greatest > least {
                // The least is not nothing: it matched.
                true => ((score - least) / (greatest - least)).max(0.001),
                false => 1.0,
            };
            *sums.entry(address).or_default() += normal;
        }
    }
    let count = queries.len() as f32;
    let mut matches: Matches =
        sums.into_iter().map(|(address, sum)| Match { address, score: sum / count }).collect();
    matches.sort_by_key(|found| found.address);
    Ok(matches)
}

#[derive(Debug, Clone, PartialEq)]
enum SortKey {
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Text(String),
}

impl SortKey {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            // All keys of an order come from one column.
            _ => Ordering::Equal,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Integer(number) => json!(number),
            Self::Float(number) => json!(number),
            Self::Boolean(truth) => json!(truth),
            Self::Text(text) => json!(text),
        }
    }
}

impl Order {
    fn compare(&self, a: &Option<SortKey>, b: &Option<SortKey>) -> Ordering {
        let missing = if self.missing_first { Ordering::Less } else { Ordering::Greater };
        match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => missing,
            (Some(_), None) => missing.reverse(),
            (Some(a), Some(b)) if self.descending => b.compare(a),
            (Some(a), Some(b)) => a.compare(b),
        }
    }
}

/// The key of each match; of several values the least when ascending, the greatest when descending.
fn keys(
    order: &Order,
    generation: &Generation,
    searcher: &Searcher,
    matches: &Matches,
) -> Answer<Vec<Option<SortKey>>> {
    match order.by.as_str() {
        "_score" => {
            return Ok(matches.iter().map(|m| Some(SortKey::Float(m.score.into()))).collect());
        }
        "_doc" => {
            let number =
                |m: &Match| (i64::from(m.address.segment_ord) << 32) | i64::from(m.address.doc_id);
            return Ok(matches.iter().map(|m| Some(SortKey::Integer(number(m)))).collect());
        }
        _ => {}
    }
    let Some((place, field)) = generation.fields.get(&order.by) else {
        return Err(Fault::new(
            400,
            "query_shard_exception",
            format!("No mapping found for [{}] in order to sort on", order.by),
        ));
    };
    let name = column_name(place);
    let mut found = Vec::with_capacity(matches.len());
    let mut rest = matches.as_slice();
    while let Some(first) = rest.first() {
        let segment = first.address.segment_ord;
        let length = rest.iter().take_while(|m| m.address.segment_ord == segment).count();
        let (here, after) = rest.split_at(length);
        rest = after;
        let columns = searcher.segment_reader(segment).fast_fields();
        let docs = here.iter().map(|m| m.address.doc_id);
        match field.kind {
            Kind::Integer { .. } | Kind::Date => {
                let column = columns.column_opt::<i64>(&name)?;
                found.extend(docs.map(|doc| {
                    let values = column.iter().flat_map(|column| column.values_for_doc(doc));
                    chosen(values.map(SortKey::Integer), order)
                }));
            }
            Kind::Float | Kind::Double => {
                let column = columns.column_opt::<f64>(&name)?;
                found.extend(docs.map(|doc| {
                    let values = column.iter().flat_map(|column| column.values_for_doc(doc));
                    chosen(values.map(SortKey::Float), order)
                }));
            }
            Kind::Boolean => {
                let column = columns.column_opt::<bool>(&name)?;
                found.extend(docs.map(|doc| {
                    let values = column.iter().flat_map(|column| column.values_for_doc(doc));
                    chosen(values.map(SortKey::Boolean), order)
                }));
            }
            Kind::Keyword { .. } => {
                let column = columns.str(&name)?;
                for doc in docs {
                    let ords = column.iter().flat_map(|column| column.term_ords(doc));
                    // Ordinals are in the order of the texts.
                    let ord = if order.descending { ords.max() } else { ords.min() };
                    found.push(match (&column, ord) {
                        (Some(column), Some(ord)) => {
                            let mut text = String::new();
                            column.ord_to_str(ord, &mut text)?;
                            Some(SortKey::Text(text))
                        }
                        _ => None,
                    });
                }
            }
            Kind::Text | Kind::Vector { .. } => {
                return Err(Fault::request(format!(
                    "[{}] is of type [{}], which cannot be sorted by; use a keyword field",
                    order.by,
                    field.kind.name()
                )));
            }
        }
    }
    Ok(found)
}

fn chosen(values: impl Iterator<Item = SortKey>, order: &Order) -> Option<SortKey> {
    if order.descending { values.max_by(SortKey::compare) } else { values.min_by(SortKey::compare) }
}

fn orders(value: &Value) -> Answer<Vec<Order>> {
    match value {
        Value::Array(all) => all.iter().map(order).collect(),
        one => Ok(vec![order(one)?]),
    }
}

/// `"field"`, `{"field": "desc"}` or `{"field": {"order": "desc", "missing": "_first"}}`.
fn order(value: &Value) -> Answer<Order> {
    if let Some(by) = value.as_str() {
        let (by, direction) = match by.rsplit_once(':') {
            Some((by, direction)) => (by, Some(direction)),
            None => (by, None),
        };
        let descending = direction.map_or(Ok(by == "_score"), is_descending)?;
        return Ok(Order { by: by.to_owned(), descending, missing_first: false });
    }
    let (by, body) = only_entry(value, "sort")?;
    let mut order = Order { by: by.to_owned(), descending: by == "_score", missing_first: false };
    match body {
        Value::String(direction) => order.descending = is_descending(direction)?,
        Value::Object(body) => {
            for (key, value) in body {
                match (key.as_str(), value.as_str()) {
                    ("order", Some(direction)) => order.descending = is_descending(direction)?,
                    ("missing", Some("_first")) => order.missing_first = true,
                    ("missing", Some("_last")) => order.missing_first = false,
                    _ => {
                        return Err(Fault::parsing(format!(
                            "[{key}] of the sort by [{by}] is not supported by the embedded index; it takes order, and missing as _first or _last"
                        )));
                    }
                }
            }
        }
        _ => return Err(Fault::parsing(format!("the sort by [{by}] is not understood"))),
    }
    Ok(order)
}

fn is_descending(direction: &str) -> Answer<bool> {
    match direction {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(Fault::parsing("a sort's order is asc or desc")),
    }
}

impl SourceFilter {
    pub fn parse(value: &Value) -> Answer<Self> {
        let list = |value: &Value| -> Answer<Vec<String>> {
            let wrong =
                || Fault::parsing("[_source] takes true, false, names, or includes and excludes");
            match value {
                Value::String(one) => Ok(vec![one.clone()]),
                Value::Array(all) => all
                    .iter()
                    .map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong))
                    .collect(),
                _ => Err(wrong()),
            }
        };
        let mut filter = Self::default();
        match value {
            Value::Bool(shown) => filter.none = !shown,
            Value::Object(body) => {
                for (key, value) in body {
                    match key.as_str() {
                        "includes" | "include" => filter.includes = list(value)?,
                        "excludes" | "exclude" => filter.excludes = list(value)?,
                        other => {
                            return Err(Fault::parsing(format!(
                                "unknown key [{other}] in [_source]"
                            )));
                        }
                    }
                }
            }
            other => filter.includes = list(other)?,
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
        let document: Map<String, Value> = serde_json::from_slice(source).map_err(broken)?;
        let shown = Value::Object(self.shown(&document, ""));
        serde_json::value::to_raw_value(&shown).map(Some).map_err(broken)
    }

    fn shown(&self, object: &Map<String, Value>, prefix: &str) -> Map<String, Value> {
        let mut shown = Map::new();
        for (name, value) in object {
            let path = format!("{prefix}{name}");
            if self.excludes.iter().any(|pattern| covers(pattern, &path)) {
                continue;
            }
            let is_included = self.includes.is_empty()
                || self.includes.iter().any(|pattern| covers(pattern, &path));
            let inside = |object: &Map<String, Value>| {
                let filter = if is_included {
                    Self { includes: Vec::new(), ..self.clone() }
                } else {
                    self.clone()
                };
                filter.shown(object, &format!("{path}."))
            };
            match value {
                Value::Object(inner) => {
                    let inner = inside(inner);
                    if is_included || !inner.is_empty() {
                        shown.insert(name.clone(), Value::Object(inner));
                    }
                }
                Value::Array(all) if all.iter().any(Value::is_object) => {
                    let inner: Vec<Value> = all
                        .iter()
                        .map(|one| {
                            one.as_object().map_or(one.clone(), |one| Value::Object(inside(one)))
                        })
                        .filter(|one| {
                            is_included || one.as_object().is_some_and(|one| !one.is_empty())
                        })
                        .collect();
                    if is_included || !inner.is_empty() {
                        shown.insert(name.clone(), Value::Array(inner));
                    }
                }
                _ if is_included => {
                    shown.insert(name.clone(), value.clone());
                }
                _ => {}
            }
        }
        shown
    }
}

/// Whether a pattern with `*` names this path, or what is around it.
fn covers(pattern: &str, path: &str) -> bool {
    let around = path.match_indices('.').map(|(at, _)| &path[..at]);
    around.chain([path]).any(|path| matches_pattern(pattern.as_bytes(), path.as_bytes()))
}

fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_pattern(rest, text)
                || text.split_first().is_some_and(|(_, after)| matches_pattern(pattern, after))
        }
        (Some((a, pattern)), Some((b, text))) if a == b => matches_pattern(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_source_keeps_its_bytes() {
        let bytes = br#"{"n": 1.50, "big": 18446744073709551616}"#;
        let shown = SourceFilter::default().apply(bytes).expect("is shown").expect("whole");
        assert_eq!(shown.get().as_bytes(), bytes);
    }

    #[test]
    fn what_a_search_does_not_know_is_refused() {
        for body in [
            json!({"aggs": {}}),
            json!({"size": -1}),
            json!({"sort": [{"a": {"mode": "min"}}]}),
            json!([]),
        ] {
            assert_eq!(Search::parse(&body).expect_err("refused").status, 400, "{body}");
        }
    }
}
