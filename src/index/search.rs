//! A search from its JSON to its hits: paging, order, what of a document is shown, and hybrids of several queries. Exact:
//! everything that matches is looked at. Knows no HTTP.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tantivy::{DocAddress, Searcher};

use super::collect::{Match, Matches};
use super::disk::{Generation, column_name};
use super::fault::{Answer, Fault};
use super::fields::Kind;
use super::query::{Builder, only_entry};
use super::shown::SourceFilter;

/// Matches whose sort keys are read together; only those on the page keep theirs.
const SORTED_AT_ONCE: usize = 16_384;

/// A match with its keys.
type Sorted = (Match, Vec<Option<SortKey>>);

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
            "query" if value.is_null() => {
                return Err(Fault::parsing("Unknown key for a VALUE_NULL in [query]."));
            }
            "query" => self.query = value.clone(),
            "from" => self.from = number()?,
            "size" => self.size = number()?,
            "sort" => self.sort = orders(value)?,
            "_source" => self.source = SourceFilter::parse(value)?,
            "version" => self.version = truth()?,
            "track_scores" => self.track_scores = truth()?,
            // The total is always exact.
            "track_total_hits" if value.is_boolean() || value.is_u64() => {}
            // Every search is answered in full; there is none that would be cut short.
            "timeout" if value.as_str().is_some_and(is_duration) => {}
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
        let builder = Builder::new(generation, &searcher);
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
        let mut best: Vec<Sorted> = Vec::new();
        for some in matches.chunks(SORTED_AT_ONCE) {
            let keys = self.sort.iter().map(|order| keys(order, generation, searcher, some));
            let keys: Vec<Vec<Option<SortKey>>> = keys.collect::<Answer<_>>()?;
            let mut columns: Vec<_> = keys.into_iter().map(Vec::into_iter).collect();
            best.extend(some.iter().map(|found| {
                let keys = columns.iter_mut().map(|column| column.next().flatten()).collect();
                (*found, keys)
            }));
            first_sorted(&mut best, end, |a, b| self.compare(a, b));
        }
        let shown = |key: Option<SortKey>| key.map_or(Value::Null, |key| key.json());
        Ok(best
            .into_iter()
            .skip(self.from)
            .map(|(found, keys)| (found, Some(keys.into_iter().map(shown).collect())))
            .collect())
    }

    fn compare(&self, a: &Sorted, b: &Sorted) -> Ordering {
        let mut compared =
            self.sort.iter().zip(a.1.iter().zip(&b.1)).map(|(order, (a, b))| order.compare(a, b));
        let unequal = compared.find(|ordering| ordering.is_ne());
        unequal.unwrap_or_else(|| a.0.address.cmp(&b.0.address))
    }
}

/// `10s`, `500ms`, `-1`, as everywhere in a search node.
pub fn is_duration(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let unit = &text[number.len()..];
    let is_unit = matches!(unit, "d" | "h" | "m" | "s" | "ms" | "micros" | "nanos");
    text == "-1" || text == "0" || (is_number && is_unit)
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
    let query = Builder::new(generation, &searcher).build(query)?;
    Ok(query.count(&searcher)?)
}

/// How many documents are there, as this searcher sees it.
pub(super) fn live(generation: &Generation, searcher: &Searcher) -> Answer<usize> {
    let query = Builder::new(generation, searcher).build(&Value::Null)?;
    Ok(query.count(searcher)?)
}

fn matches(builder: &Builder<'_>, query: &Value) -> Answer<Matches> {
    match query.get("hybrid") {
        None => builder.matches(&builder.build(query)?),
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
        let found = builder.matches(&builder.inner(query)?)?;
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
    matches: &[Match],
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
    let mut rest = matches;
    while let Some(first) = rest.first() {
        let segment = first.address.segment_ord;
        let length = rest.iter().take_while(|m| m.address.segment_ord == segment).count();
        let (here, after) = rest.split_at(length);
        rest = after;
        let columns = searcher.segment_reader(segment).fast_fields();
        let docs = here.iter().map(|m| m.address.doc_id);
        match field.kind {
            Kind::Integer { .. } | Kind::Date(_) => {
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

#[cfg(test)]
mod tests {
    use super::*;

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
