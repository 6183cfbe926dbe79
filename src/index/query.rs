//! A query's JSON to what the index runs: match_all, match, term, terms, ids, range, bool, knn. What is not known, and
//! every parameter that is not, is refused. Knows no paging and no answers.

use std::ops::Bound;

use serde_json::{Map, Value};
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, EmptyQuery, Occur, Query, RangeQuery,
    TermQuery, TermSetQuery,
};
use tantivy::schema::IndexRecordOption;
use tantivy::{Searcher, Term};

use super::collect;
use super::disk::{Generation, column_name};
use super::fault::{Answer, Fault};
use super::fields::{Field, Kind};
use super::source;
use super::vector::{self, Nearest};
use super::{moment, words};

const KNOWN: &str = "match_all, match, term, terms, ids, range, bool, knn, and hybrid at the top";
/// As many as a search node allows.
const K_MAX: u64 = 10_000;
const TERMS_MAX: usize = 65_536;

pub(super) type Boxed = Box<dyn Query>;

/// Builds queries over one state of one index.
pub(super) struct Builder<'i> {
    pub generation: &'i Generation,
    pub searcher: &'i Searcher,
}

impl Builder<'_> {
    /// The query, among documents that are there; null is every document.
    pub fn build(&self, query: &Value) -> Answer<Boxed> {
        let inner = if query.is_null() { Box::new(AllQuery) } else { self.any(query)? };
        Ok(self.among_live(inner))
    }

    fn among_live(&self, query: Boxed) -> Boxed {
        let live = TermQuery::new(self.generation.live_term(), IndexRecordOption::Basic);
        Box::new(BooleanQuery::new(vec![
            (Occur::Must, query),
            (Occur::Must, without_score(Box::new(live))),
        ]))
    }

    fn any(&self, query: &Value) -> Answer<Boxed> {
        let (name, body) = only_entry(query, "query")?;
        match name {
            "match_all" => {
                let body = object(body, name)?;
                boosted(Box::new(AllQuery), body, &[], name)
            }
            "match" => self.match_words(body),
            "term" => self.term(body),
            "terms" => self.terms(body),
            "ids" => self.ids(body),
            "range" => self.range(body),
            "bool" => self.bool(body),
            "knn" => self.knn(body),
            "hybrid" => Err(Fault::parsing(
                "[hybrid] query must be a top level query and cannot be wrapped into other queries",
            )),
            other => Err(Fault::parsing(format!(
                "unknown query [{other}]: the embedded index answers {KNOWN}"
            ))),
        }
    }

    fn match_words(&self, body: &Value) -> Answer<Boxed> {
        let (path, body) = only_entry(body, "match")?;
        let body = in_long(body, "query");
        let text = body.get("query").ok_or_else(|| Fault::parsing("[match] needs [query]"))?;
        let query = match self.generation.fields.get(path) {
            None if path == "_id" => self.term_on(path, text)?,
            None => Box::new(EmptyQuery),
            Some((place, Field { kind: Kind::Text, .. })) => {
                let text = source::text(text)
                    .ok_or_else(|| Fault::parsing("[match] [query] is not a text"))?;
                let occur =
                    match body.get("operator").map(|operator| operator.as_str().unwrap_or("")) {
                        None | Some("or" | "OR") => Occur::Should,
                        Some("and" | "AND") => Occur::Must,
                        Some(_) => return Err(Fault::parsing("[match] [operator] is or, or and")),
                    };
                let column = self.generation.by_field[place];
                let clauses: Vec<(Occur, Boxed)> = words::words(&text)
                    .iter()
                    .map(|word| {
                        let term = Term::from_field_text(column, word);
                        (
                            occur,
                            Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Boxed,
                        )
                    })
                    .collect();
                // Without a word nothing matches.
                if clauses.is_empty() {
                    Box::new(EmptyQuery) as Boxed
                } else {
                    Box::new(BooleanQuery::new(clauses))
                }
            }
            Some(_) => self.term_on(path, text)?,
        };
        boosted(query, &body, &["query", "operator"], "match")
    }

    fn term(&self, body: &Value) -> Answer<Boxed> {
        let (path, body) = only_entry(body, "term")?;
        let body = in_long(body, "value");
        let value = body.get("value").ok_or_else(|| Fault::parsing("[term] needs [value]"))?;
        boosted(self.term_on(path, value)?, &body, &["value"], "term")
    }

    fn term_on(&self, path: &str, value: &Value) -> Answer<Boxed> {
        if value.is_null() || value.is_array() || value.is_object() {
            return Err(Fault::parsing(format!(
                "the value for [{path}] is not a text, number or truth value"
            )));
        }
        let Some(term) = self.term_of(path, value)? else { return Ok(Box::new(EmptyQuery)) };
        let is_text =
            matches!(self.generation.fields.get(path), Some((_, Field { kind: Kind::Text, .. })));
        if is_text {
            return Ok(Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)));
        }
        let query = TermQuery::new(term, IndexRecordOption::Basic);
        Ok(Box::new(ConstScoreQuery::new(Box::new(query), 1.0)))
    }

    /// The term of a value; none where there is no such field, or where no document can have the value.
    fn term_of(&self, path: &str, value: &Value) -> Answer<Option<Term>> {
        if path == "_id" {
            return Ok(source::text(value).map(|id| self.generation.id_term(&id)));
        }
        let Some((place, field)) = self.generation.fields.get(path) else { return Ok(None) };
        let column = self.generation.by_field[place];
        let wrong = || {
            Fault::request(format!(
                "failed to create query: a value is not of the type [{}] of [{path}]",
                field.kind.name()
            ))
        };
        let term = match field.kind {
            Kind::Text | Kind::Keyword { .. } => {
                Term::from_field_text(column, &source::text(value).ok_or_else(wrong)?)
            }
            Kind::Boolean => {
                Term::from_field_bool(column, source::boolean(value).ok_or_else(wrong)?)
            }
            Kind::Date => Term::from_field_i64(column, moment::millis(value).ok_or_else(wrong)?),
            Kind::Integer { .. } => match exact_integer(value).ok_or_else(wrong)? {
                Some(whole) => Term::from_field_i64(column, whole),
                None => return Ok(None),
            },
            Kind::Float => {
                let number = source::float(value).ok_or_else(wrong)?;
                Term::from_field_f64(column, f64::from(number as f32))
            }
            Kind::Double => Term::from_field_f64(column, source::float(value).ok_or_else(wrong)?),
            Kind::Vector { .. } => {
                return Err(Fault::request(format!("[{path}] is a vector: ask for it with knn")));
            }
        };
        Ok(Some(term))
    }

    fn terms(&self, body: &Value) -> Answer<Boxed> {
        let body = object(body, "terms")?;
        let mut fields = body.iter().filter(|(key, _)| *key != "boost");
        let (Some((path, values)), None) = (fields.next(), fields.next()) else {
            return Err(Fault::parsing("[terms] needs one field with a list of values"));
        };
        let values =
            values.as_array().filter(|values| values.len() <= TERMS_MAX).ok_or_else(|| {
                Fault::parsing(format!(
                    "[terms] needs a list of at most {TERMS_MAX} values for [{path}]"
                ))
            })?;
        let query = self.one_of(path, values)?;
        boosted(query, body, &[path], "terms")
    }

    fn ids(&self, body: &Value) -> Answer<Boxed> {
        let body = object(body, "ids")?;
        let ids = body.get("values").and_then(Value::as_array);
        let ids = ids.ok_or_else(|| Fault::parsing("[ids] needs a list of [values]"))?;
        boosted(self.one_of("_id", ids)?, body, &["values"], "ids")
    }

    fn one_of(&self, path: &str, values: &[Value]) -> Answer<Boxed> {
        let mut terms = Vec::with_capacity(values.len());
        for value in values {
            terms.extend(self.term_of(path, value)?);
        }
        Ok(Box::new(ConstScoreQuery::new(Box::new(TermSetQuery::new(terms)), 1.0)))
    }

    fn range(&self, body: &Value) -> Answer<Boxed> {
        let (path, body) = only_entry(body, "range")?;
        let body = object(body, "range")?;
        let known = ["gt", "gte", "lt", "lte"];
        let Some((place, field)) = self.generation.fields.get(path) else {
            return boosted(Box::new(EmptyQuery), body, &known, "range");
        };
        let bound = |open: &str, closed: &str| -> Answer<Option<(bool, &Value)>> {
            let given = |key: &str| body.get(key).filter(|value| !value.is_null());
            match (given(open), given(closed)) {
                (Some(_), Some(_)) => {
                    Err(Fault::parsing(format!("[range] has both [{open}] and [{closed}]")))
                }
                (Some(value), None) => Ok(Some((false, value))),
                (None, value) => Ok(value.map(|value| (true, value))),
            }
        };
        let column = self.generation.by_field[place];
        let (low, high) = (bound("gt", "gte")?, bound("lt", "lte")?);
        let wrong = || {
            Fault::request(format!(
                "a bound of the range is not of the type [{}] of [{path}]",
                field.kind.name()
            ))
        };
        let whole = |bound: Option<(bool, &Value)>, is_low: bool| match bound {
            None => Ok(Bound::Unbounded),
            Some((closed, value)) => whole_bound(value, closed, is_low).ok_or_else(wrong),
        };
        let other =
            |bound: Option<(bool, &Value)>, term: &dyn Fn(&Value) -> Option<Term>| match bound {
                None => Ok(Bound::Unbounded),
                Some((true, value)) => term(value).map(Bound::Included).ok_or_else(wrong),
                Some((false, value)) => term(value).map(Bound::Excluded).ok_or_else(wrong),
            };
        let integer = |number: i64| Term::from_field_i64(column, number);
        let date = |value: &Value| moment::millis(value).map(integer);
        let float = |value: &Value| {
            source::float(value).map(|n| Term::from_field_f64(column, f64::from(n as f32)))
        };
        let double = |value: &Value| source::float(value).map(|n| Term::from_field_f64(column, n));
        let text =
            |value: &Value| source::text(value).map(|text| Term::from_field_text(column, &text));
        let (low, high) = match field.kind {
            Kind::Integer { .. } => {
                (whole(low, true)?.map(integer), whole(high, false)?.map(integer))
            }
            Kind::Date => (other(low, &date)?, other(high, &date)?),
            Kind::Float => (other(low, &float)?, other(high, &float)?),
            Kind::Double => (other(low, &double)?, other(high, &double)?),
            Kind::Keyword { .. } => (other(low, &text)?, other(high, &text)?),
            Kind::Text | Kind::Boolean | Kind::Vector { .. } => {
                return Err(Fault::request(format!(
                    "the embedded index has no ranges over [{path}], which is of type [{}]",
                    field.kind.name()
                )));
            }
        };
        let query: Boxed = match (&low, &high) {
            // Without bounds: every document that has the field.
            (Bound::Unbounded, Bound::Unbounded) => {
                Box::new(tantivy::query::ExistsQuery::new(column_name(place), false))
            }
            _ => Box::new(RangeQuery::new(low, high)),
        };
        boosted(Box::new(ConstScoreQuery::new(query, 1.0)), body, &known, "range")
    }

    fn bool(&self, body: &Value) -> Answer<Boxed> {
        let body = object(body, "bool")?;
        let clauses = |key: &str| -> Answer<Vec<Boxed>> {
            match body.get(key) {
                None => Ok(Vec::new()),
                Some(Value::Array(all)) => all.iter().map(|query| self.any(query)).collect(),
                Some(one) => Ok(vec![self.any(one)?]),
            }
        };
        let (must, filter) = (clauses("must")?, clauses("filter")?);
        let (should, must_not) = (clauses("should")?, clauses("must_not")?);
        let default = usize::from(must.is_empty() && filter.is_empty() && !should.is_empty());
        let needed = match body.get("minimum_should_match") {
            None => default,
            Some(value) => whole_number(value)
                .ok_or_else(|| Fault::parsing("[minimum_should_match] is a number that is not negative, in the embedded index"))?,
        };
        let mut all: Vec<(Occur, Boxed)> = Vec::new();
        let has_positive = !must.is_empty() || !filter.is_empty() || needed > 0;
        if !has_positive {
            let everything: Boxed = Box::new(AllQuery);
            // An empty bool is match_all; one that only excludes scores nothing.
            let is_empty = should.is_empty() && must_not.is_empty();
            all.push((Occur::Must, if is_empty { everything } else { without_score(everything) }));
        }
        all.extend(must.into_iter().map(|query| (Occur::Must, query)));
        all.extend(filter.into_iter().map(|query| (Occur::Must, without_score(query))));
        all.extend(must_not.into_iter().map(|query| (Occur::MustNot, query)));
        if needed > should.len() {
            all.push((Occur::Must, Box::new(EmptyQuery)));
        } else if needed > 0 {
            let should = should.into_iter().map(|query| (Occur::Should, query)).collect();
            let enough = BooleanQuery::with_minimum_required_clauses(should, needed);
            all.push((Occur::Must, Box::new(enough)));
        } else {
            all.extend(should.into_iter().map(|query| (Occur::Should, query)));
        }
        let known = ["must", "filter", "should", "must_not", "minimum_should_match"];
        boosted(Box::new(BooleanQuery::new(all)), body, &known, "bool")
    }

    fn knn(&self, body: &Value) -> Answer<Boxed> {
        let (path, body) = only_entry(body, "knn")?;
        let body = object(body, "knn")?;
        let Some((place, &Field { kind: Kind::Vector { dimension, space }, .. })) =
            self.generation.fields.get(path)
        else {
            return Err(Fault::request(format!(
                "failed to create query: Field '{path}' is not knn_vector type."
            )));
        };
        let vector: Option<Vec<f32>> =
            body.get("vector").and_then(Value::as_array).and_then(|numbers| {
                numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
            });
        let vector = vector.ok_or_else(|| Fault::parsing("[knn] needs a [vector] of numbers"))?;
        vector::check(path, &vector, dimension, space)?;
        let k = body.get("k").and_then(Value::as_u64).filter(|k| (1..=K_MAX).contains(k));
        let k = k.ok_or_else(|| Fault::parsing(format!("[knn] needs [k] from 1 to {K_MAX}")))?;
        let among = self.build(body.get("filter").unwrap_or(&Value::Null))?;
        let among = collect::all(self.searcher, &among)?;
        let nearest = Nearest {
            column: &column_name(place),
            space,
            vector: &vector,
            k: usize::try_from(k).unwrap_or(usize::MAX),
        };
        let found = nearest.find(self.searcher, &among)?;
        // How a graph would be walked does not matter where every vector is compared.
        let known = ["vector", "k", "filter", "method_parameters"];
        boosted(Box::new(found), body, &known, "knn")
    }
}

fn without_score(query: Boxed) -> Boxed {
    Box::new(ConstScoreQuery::new(query, 0.0))
}

/// The query times its `boost`; refuses parameters that are not known.
fn boosted(query: Boxed, body: &Map<String, Value>, known: &[&str], name: &str) -> Answer<Boxed> {
    let unknown = body.keys().find(|key| !known.contains(&key.as_str()) && *key != "boost");
    if let Some(key) = unknown {
        return Err(Fault::parsing(format!(
            "[{name}] query does not support [{key}] in the embedded index"
        )));
    }
    match body.get("boost") {
        None => Ok(query),
        Some(boost) => {
            match source::float(boost).filter(|boost| *boost >= 0.0 && boost.is_finite()) {
                Some(boost) => Ok(Box::new(BoostQuery::new(query, boost as f32))),
                None => Err(Fault::parsing(format!(
                    "[boost] of [{name}] is not a number that is not negative"
                ))),
            }
        }
    }
}

fn object<'v>(value: &'v Value, name: &str) -> Answer<&'v Map<String, Value>> {
    value.as_object().ok_or_else(|| Fault::parsing(format!("[{name}] is not an object")))
}

/// `{name: body}`
pub(super) fn only_entry<'v>(value: &'v Value, what: &str) -> Answer<(&'v str, &'v Value)> {
    let mut entries = object(value, what)?.iter();
    match (entries.next(), entries.next()) {
        (Some((name, body)), None) => Ok((name, body)),
        (None, _) => Err(Fault::parsing(format!("[{what}] is empty"))),
        (Some((first, _)), Some((second, _))) => Err(Fault::parsing(format!(
            "[{what}] malformed query, expected [END_OBJECT]: it has both [{first}] and [{second}]"
        ))),
    }
}

/// `{"field": "text"}` stands for `{"field": {"query": "text"}}`.
fn in_long(body: &Value, key: &str) -> Map<String, Value> {
    match body {
        Value::Object(body) => body.clone(),
        short => Map::from_iter([(key.to_owned(), short.clone())]),
    }
}

fn whole_number(value: &Value) -> Option<usize> {
    let number = match value {
        Value::String(text) => text.parse().ok()?,
        other => other.as_u64()?,
    };
    usize::try_from(number).ok()
}

/// None for what is no number; `Some(None)` for one that no integer field can hold.
fn exact_integer(value: &Value) -> Option<Option<i64>> {
    if let Some(whole) = source::text(value)?.parse::<i64>().ok().filter(|_| !value.is_boolean()) {
        return Some(Some(whole));
    }
    let number = source::float(value)?;
    let fits = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    Some(fits.then_some(number as i64))
}

/// The bound over whole numbers that a bound of any number means.
fn whole_bound(value: &Value, closed: bool, is_low: bool) -> Option<Bound<i64>> {
    if let Some(Some(whole)) = exact_integer(value) {
        return Some(if closed { Bound::Included(whole) } else { Bound::Excluded(whole) });
    }
    let number = source::float(value).filter(|number| !number.is_nan())?;
    // Casting stops at the ends of i64, beyond which there is nothing.
    let nearest = if is_low { number.ceil() } else { number.floor() };
    let beyond = number.abs() >= 9_223_372_036_854_775_808.0;
    let is_inside = if is_low { number < 0.0 } else { number > 0.0 };
    match beyond && !is_inside {
        true => Some(Bound::Excluded(nearest as i64)),
        false => Some(Bound::Included(nearest as i64)),
    }
}
