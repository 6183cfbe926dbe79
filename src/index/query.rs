//! A query's JSON to what the index runs: match_all, match, term, terms, ids, range, bool, knn. What is not known, and
//! every parameter that is not, is refused. Knows no paging and no answers.

use std::cell::Cell;
use std::ops::Bound;

use serde_json::{Map, Value};
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, EmptyQuery, ExistsQuery, Occur, Query,
    RangeQuery, TermQuery, TermSetQuery,
};
use tantivy::schema::IndexRecordOption;
use tantivy::{Searcher, Term};

use super::collect::{self, Matches};
use super::disk::{Generation, column_name};
use super::fault::{Answer, Fault};
use super::fields::{Field, Kind};
use super::live::Live;
use super::terms::{self, End, Wanted};
use super::vector::{self, Nearest};
use super::{source, words};

const KNOWN: &str = "match_all, match, term, terms, ids, range, bool, knn, and hybrid at the top";
/// As many as a search node allows.
const K_MAX: u64 = 10_000;
const TERMS_MAX: usize = 65_536;
/// Queries and words in one search, as many as a search node allows.
const CLAUSES_MAX: usize = 1_024;

pub(super) type Boxed = Box<dyn Query>;

/// Builds queries over one state of one index.
pub(super) struct Builder<'i> {
    pub generation: &'i Generation,
    pub searcher: &'i Searcher,
    /// Those of all queries that were built here.
    clauses: Cell<usize>,
}

impl<'i> Builder<'i> {
    pub fn new(generation: &'i Generation, searcher: &'i Searcher) -> Self {
        Self { generation, searcher, clauses: Cell::new(0) }
    }

    /// The query, among documents that are there; null is every document.
    pub fn build(&self, query: &Value) -> Answer<Boxed> {
        if query.is_null() { Ok(self.among_live(Box::new(AllQuery))) } else { self.inner(query) }
    }

    /// A query that stands in another one, where null is none.
    pub fn inner(&self, query: &Value) -> Answer<Boxed> {
        Ok(self.among_live(self.any(query)?))
    }

    /// Everything that matches, with scores.
    pub fn matches(&self, query: &dyn Query) -> Answer<Matches> {
        let live = Live::new(self.searcher, self.generation.live_term());
        Ok(collect::all(self.searcher, query, &live)?)
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
        self.spend(1)?;
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
        let field = if path == "_id" { None } else { self.field(path)? };
        let query = match field {
            None => self.term_on(path, text)?,
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
                let words = words::words(&text);
                self.spend(words.len())?;
                let clauses: Vec<(Occur, Boxed)> = words
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
        let is_text =
            matches!(self.generation.fields.get(path), Some((_, Field { kind: Kind::Text, .. })));
        match self.wanted(path, value)? {
            Wanted::Term(term) if is_text => {
                Ok(Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)))
            }
            wanted => Ok(constant(one(wanted))),
        }
    }

    /// What a value asks for of a field.
    fn wanted(&self, path: &str, value: &Value) -> Answer<Wanted> {
        let text = source::text(value).ok_or_else(|| {
            Fault::parsing(format!("the value for [{path}] is not a text, number or truth value"))
        })?;
        if path == "_id" {
            return Ok(Wanted::Term(self.generation.id_term(&text)));
        }
        match self.field(path)? {
            None => Ok(Wanted::Nothing),
            Some((place, field)) => terms::wanted(self.generation.by_field[place], field, value),
        }
    }

    /// None where the mapping has no such field, which then no document has.
    fn field(&self, path: &str) -> Answer<Option<(usize, &Field)>> {
        match path.starts_with('_') {
            false => Ok(self.generation.fields.get(path)),
            true => Err(Fault::request(format!(
                "the embedded index cannot be asked for [{path}] in this query; of the fields that a mapping does not name it has _id, for term, terms, match and ids"
            ))),
        }
    }

    /// Takes note of clauses, of which a query may have only so many.
    fn spend(&self, clauses: usize) -> Answer<()> {
        self.clauses.set(self.clauses.get() + clauses);
        match self.clauses.get() <= CLAUSES_MAX {
            true => Ok(()),
            false => Err(Fault::new(
                400,
                "too_many_clauses",
                format!("maxClauseCount is set to {CLAUSES_MAX}; use terms or ids for many values"),
            )),
        }
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
        let (mut exact, mut others) = (Vec::with_capacity(values.len()), Vec::new());
        for value in values {
            match self.wanted(path, value)? {
                Wanted::Term(term) => exact.push(term),
                Wanted::Nothing => {}
                between => others.push((Occur::Should, one(between))),
            }
        }
        self.spend(others.len())?;
        let exact: Boxed = Box::new(TermSetQuery::new(exact));
        if others.is_empty() {
            return Ok(constant(exact));
        }
        others.push((Occur::Should, exact));
        Ok(constant(Box::new(BooleanQuery::new(others))))
    }

    fn range(&self, body: &Value) -> Answer<Boxed> {
        let (path, body) = only_entry(body, "range")?;
        let body = object(body, "range")?;
        let known = ["gt", "gte", "lt", "lte"];
        let end = |open: &str, closed: &str| -> Answer<End<'_>> {
            let given = |key: &str| body.get(key).filter(|value| !value.is_null());
            match (given(open), given(closed)) {
                (Some(_), Some(_)) => {
                    Err(Fault::parsing(format!("[range] has both [{open}] and [{closed}]")))
                }
                (Some(value), None) => Ok(Some((false, value))),
                (None, value) => Ok(value.map(|value| (true, value))),
            }
        };
        let (low, high) = (end("gt", "gte")?, end("lt", "lte")?);
        let Some((place, field)) = self.field(path)? else {
            return boosted(Box::new(EmptyQuery), body, &known, "range");
        };
        let (low, high) = terms::range(self.generation.by_field[place], field, low, high)?;
        let query: Boxed = match (&low, &high) {
            // Without bounds: every document that has the field.
            (Bound::Unbounded, Bound::Unbounded) => {
                Box::new(ExistsQuery::new(column_name(place), false))
            }
            _ => Box::new(RangeQuery::new(low, high)),
        };
        boosted(constant(query), body, &known, "range")
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
        // Where nothing else is asked for, one of them must match, even if none is said to be needed.
        let least = usize::from(must.is_empty() && filter.is_empty() && !should.is_empty());
        let needed = match body.get("minimum_should_match") {
            None => least,
            Some(value) => whole_number(value)
                .ok_or_else(|| Fault::parsing("[minimum_should_match] is a number that is not negative, in the embedded index"))?
                .max(least),
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
        let vector: Option<Vec<f32>> = body
            .get("vector")
            .and_then(Value::as_array)
            .and_then(|numbers| numbers.iter().map(finite).collect());
        let vector =
            vector.ok_or_else(|| Fault::parsing("[knn] needs a [vector] of finite numbers"))?;
        vector::check(path, &vector, dimension, space)?;
        let k = body.get("k").and_then(Value::as_u64).filter(|k| (1..=K_MAX).contains(k));
        let k = k.ok_or_else(|| Fault::parsing(format!("[knn] needs [k] from 1 to {K_MAX}")))?;
        let among = match body.get("filter") {
            None => self.among_live(Box::new(AllQuery)),
            Some(filter) => self.inner(filter)?,
        };
        let among = self.matches(&among)?;
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

fn one(wanted: Wanted) -> Boxed {
    match wanted {
        Wanted::Nothing => Box::new(EmptyQuery),
        Wanted::Term(term) => Box::new(TermQuery::new(term, IndexRecordOption::Basic)),
        Wanted::Between(first, last) => {
            Box::new(RangeQuery::new(Bound::Included(first), Bound::Included(last)))
        }
    }
}

/// Every match scores 1.
fn constant(query: Boxed) -> Boxed {
    Box::new(ConstScoreQuery::new(query, 1.0))
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
        Some(boost) => match source::single(boost).filter(|boost| *boost >= 0.0) {
            Some(boost) => Ok(Box::new(BoostQuery::new(query, boost as f32))),
            None => Err(Fault::parsing(format!(
                "[boost] of [{name}] is not a finite number that is not negative"
            ))),
        },
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

/// As a vector holds it.
fn finite(number: &Value) -> Option<f32> {
    number.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
}

fn whole_number(value: &Value) -> Option<usize> {
    let number = match value {
        Value::String(text) => text.parse().ok()?,
        other => other.as_u64()?,
    };
    usize::try_from(number).ok()
}
