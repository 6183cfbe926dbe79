//! The index as those see it who use it: written to, searched, closed, opened again.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::registry::directories;
use super::*;

mod answers;
mod faults;

struct Bench {
    dir: TempDir,
    indexes: Indexes,
}

impl Bench {
    fn new(mappings: Value) -> Self {
        let dir = TempDir::new().expect("a directory");
        let indexes = Indexes::open(dir.path()).expect("opens");
        indexes.create("a", &json!({"mappings": mappings})).expect("is made");
        Self { dir, indexes }
    }

    fn index(&self) -> Arc<Index> {
        self.indexes.get("a").expect("is there")
    }

    fn write(&self, writes: Vec<Write>) -> Vec<Written> {
        block_on(self.index().write(writes)).expect("is written")
    }

    fn put(&self, id: &str, document: Value) -> Written {
        self.write(vec![put(id, Expect::Anything, document)]).remove(0)
    }

    /// The ids of the hits, in their order.
    fn ids(&self, search: Value) -> Vec<String> {
        self.found(search).hits.into_iter().map(|hit| hit.id).collect()
    }

    fn found(&self, search: Value) -> Found {
        let search = Search::parse(&search).expect("is understood");
        self.index().search(&search).expect("is answered")
    }

    fn fault(&self, query: Value) -> Fault {
        let search = Search::parse(&json!({"query": query})).expect("is understood");
        self.index().search(&search).expect_err("is refused")
    }

    fn again(&mut self) {
        self.indexes = Indexes::open(self.dir.path()).expect("opens again");
        self.indexes.sweep().expect("is swept");
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn put(id: &str, expect: Expect, document: Value) -> Write {
    Write { id: id.to_owned(), what: What::Put(document.to_string().into_bytes()), expect }
}

fn delete(id: &str, expect: Expect) -> Write {
    Write { id: id.to_owned(), what: What::Delete, expect }
}

fn put_text(id: &str, document: &str) -> Write {
    Write { id: id.to_owned(), what: What::Put(document.into()), expect: Expect::Anything }
}

/// A mapping of one field, `depth` names deep.
fn deep_mapping(depth: usize) -> Value {
    let mut field = json!({"type": "long"});
    for _ in 1..depth {
        field = json!({"properties": {"a": field}});
    }
    json!({"properties": {"a": field}})
}

fn is_conflict(written: &Written, with: u64) -> bool {
    matches!(written, Written::Conflict { current, .. } if *current == with)
}

fn goods() -> Bench {
    let bench = Bench::new(json!({"properties": {
        "name": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
        "price": {"type": "double"}, "stock": {"type": "integer"}, "made": {"type": "date"},
        "new": {"type": "boolean"}, "tags": {"type": "keyword"},
        "v": {"type": "knn_vector", "dimension": 2},
    }}));
    bench.write(vec![
        put("1", Expect::Anything, json!({"name": "red shoes", "price": 10.5, "stock": 3, "made": "2026-01-01", "new": true, "tags": ["a", "b"], "v": [0, 0]})),
        put("2", Expect::Anything, json!({"name": "blue shoes for running shoes", "price": 20, "stock": 0, "made": "2026-02-01", "new": false, "tags": "b", "v": [1, 0]})),
        put("3", Expect::Anything, json!({"name": "red hat", "price": -1, "stock": 7, "v": [5, 5]})),
        put("4", Expect::Anything, json!({"name": "数据库", "tags": ["c"]})),
    ]);
    bench
}

#[test]
fn versions_are_external_and_tombstones_count() {
    let mut bench = Bench::new(json!({}));
    let at = Expect::NotAbove;
    assert_eq!(bench.write(vec![put("a", at(7), json!({"n": 1}))]), [Written::Created(7)]);
    assert_eq!(bench.write(vec![put("a", at(7), json!({"n": 1}))]), [Written::Updated(7)]);
    assert!(is_conflict(&bench.write(vec![put("a", at(6), json!({}))])[0], 7));
    assert!(is_conflict(&bench.write(vec![put("a", Expect::Below(7), json!({}))])[0], 7));
    assert_eq!(bench.write(vec![delete("a", at(9))]), [Written::Deleted(9)]);
    assert_eq!(bench.write(vec![delete("b", at(9))]), [Written::NotFound(9)]);
    for _ in 0..2 {
        assert!(is_conflict(&bench.write(vec![put("a", at(8), json!({}))])[0], 9), "deleted at 9");
        assert!(is_conflict(&bench.write(vec![put("b", at(8), json!({}))])[0], 9), "deleted at 9");
        assert_eq!(bench.index().get("a").expect("is answered"), None);
        assert_eq!(bench.index().count(&Value::Null).expect("is counted"), 0);
        // The tombstones are on disk.
        bench.again();
    }
    assert_eq!(bench.write(vec![put("a", at(10), json!({}))]), [Written::Created(10)]);
}

#[test]
fn writes_of_one_group_see_each_other() {
    let bench = Bench::new(json!({}));
    let part = json!({"o": {"b": 2}}).to_string().into_bytes();
    let merge = What::Merge { part, otherwise: None };
    let written = bench.write(vec![
        put("a", Expect::Absent, json!({"o": {"a": 1}})),
        put("a", Expect::Absent, json!({})),
        Write { id: "a".into(), what: merge.clone(), expect: Expect::Anything },
        Write { id: "b".into(), what: merge, expect: Expect::Anything },
        delete("a", Expect::Anything),
        put("a", Expect::Absent, json!({"n": 3})),
    ]);
    assert_eq!(written[0], Written::Created(1));
    assert!(is_conflict(&written[1], 1));
    assert_eq!(written[2], Written::Updated(2));
    assert!(matches!(&written[3], Written::Refused(fault) if fault.status == 404));
    assert_eq!(written[4..], [Written::Deleted(3), Written::Created(4)]);
    let (version, source) = bench.index().get("a").expect("is answered").expect("is there");
    assert_eq!((version, source.as_slice()), (4, br#"{"n":3}"#.as_slice()));
}

#[test]
fn a_refused_document_leaves_its_neighbours_alone() {
    let bench = Bench::new(json!({"dynamic": "strict", "properties": {"n": {"type": "integer"}}}));
    let written = bench.write(vec![
        put("1", Expect::Anything, json!({"n": "sesame"})),
        put("2", Expect::Anything, json!({"n": 2})),
        put("3", Expect::Anything, json!({"x": 2})),
        put(&"i".repeat(513), Expect::Anything, json!({})),
        Write { id: "5".into(), what: What::Put(b"{\"n\":".to_vec()), expect: Expect::Anything },
    ]);
    let refused: Vec<bool> = written.iter().map(|w| matches!(w, Written::Refused(_))).collect();
    assert_eq!(refused, [true, false, true, true, true], "{written:?}");
    assert!(!format!("{written:?}").contains("sesame"));
    assert_eq!(bench.ids(json!({})), ["2"]);
}

#[test]
fn queries_find_what_they_say() {
    let bench = goods();
    for (query, expected) in [
        (json!({"match_all": {}}), vec!["1", "2", "3", "4"]),
        (json!({"match": {"name": "SHOES"}}), vec!["1", "2"]),
        (json!({"match": {"name": {"query": "red shoes", "operator": "and"}}}), vec!["1"]),
        (json!({"match": {"name": "据"}}), vec!["4"]),
        (json!({"match": {"name": "…"}}), vec![]),
        (json!({"match": {"stock": "7"}}), vec!["3"]),
        (json!({"term": {"name.keyword": "red hat"}}), vec!["3"]),
        (json!({"term": {"name": "Red"}}), vec![]),
        (json!({"term": {"tags": {"value": "b"}}}), vec!["1", "2"]),
        (json!({"term": {"new": false}}), vec!["2"]),
        (json!({"term": {"price": 20.0}}), vec!["2"]),
        (json!({"term": {"stock": 3.5}}), vec![]),
        (json!({"term": {"made": "2026-02-01T00:00:00Z"}}), vec!["2"]),
        (json!({"term": {"nothing": 1}}), vec![]),
        (json!({"terms": {"tags": ["a", "c"]}}), vec!["1", "4"]),
        (json!({"ids": {"values": ["4", "x", 1]}}), vec!["1", "4"]),
        (json!({"range": {"stock": {"gt": 0, "lte": 3}}}), vec!["1"]),
        (json!({"range": {"stock": {"gte": 0.5}}}), vec!["1", "3"]),
        (json!({"range": {"stock": {"lt": 2.5, "gt": -1e30}}}), vec!["2"]),
        (json!({"range": {"stock": {"gt": 1e30}}}), vec![]),
        (json!({"range": {"stock": {"lt": -1e30}}}), vec![]),
        (json!({"range": {"stock": {}}}), vec!["1", "2", "3"]),
        (json!({"range": {"price": {"lt": 10.5}}}), vec!["3"]),
        (json!({"range": {"made": {"gte": "2026-01-15"}}}), vec!["2"]),
        (json!({"range": {"tags": {"gte": "b", "lt": "c"}}}), vec!["1", "2"]),
        (
            json!({"bool": {"must": {"match": {"name": "red"}}, "must_not": [{"term": {"stock": 7}}]}}),
            vec!["1"],
        ),
        (json!({"bool": {"must_not": {"match": {"name": "red shoes"}}}}), vec!["4"]),
        (
            json!({"bool": {"filter": [{"range": {"stock": {"gte": 0}}}], "should": [{"term": {"tags": "a"}}]}}),
            vec!["1", "2", "3"],
        ),
        (
            json!({"bool": {"should": [{"term": {"tags": "a"}}, {"term": {"tags": "b"}}], "minimum_should_match": 2}}),
            vec!["1"],
        ),
        (json!({"bool": {}}), vec!["1", "2", "3", "4"]),
    ] {
        let mut found = bench.ids(json!({"query": query}));
        found.sort();
        assert_eq!(found, expected, "{query}");
        assert_eq!(bench.index().count(&query).expect("is counted"), expected.len(), "{query}");
    }
}

#[test]
fn scores_order_the_hits() {
    let bench = goods();
    let found = bench.found(json!({"query": {"match": {"name": "red shoes"}}}));
    assert_eq!((found.total, found.hits[0].id.as_str()), (3, "1"));
    assert_eq!(found.max_score, found.hits[0].score);
    let boosted = json!({"bool": {"should": [{"term": {"tags": {"value": "c", "boost": 9}}}, {"match": {"name": "red"}}]}});
    assert_eq!(bench.ids(json!({"query": boosted}))[0], "4");
    let filtered = bench.found(json!({"query": {"bool": {"filter": {"term": {"tags": "a"}}}}}));
    assert_eq!(filtered.hits[0].score, Some(0.0));
}

#[test]
fn vectors_are_searched_exactly() {
    let bench = goods();
    let knn = |k: usize| json!({"knn": {"v": {"vector": [0.9, 0], "k": k}}});
    let found = bench.found(json!({"query": knn(2)}));
    let ids: Vec<_> = found.hits.iter().map(|hit| hit.id.as_str()).collect();
    assert_eq!((found.total, ids), (2, vec!["2", "1"]));
    let score = found.hits[0].score.expect("a score");
    assert!((score - 1.0 / 1.01).abs() < 1e-6, "{score}");
    let filter =
        json!({"knn": {"v": {"vector": [0.9, 0], "k": 1, "filter": {"term": {"tags": "a"}}}}});
    assert_eq!(bench.ids(json!({"query": filter})), ["1"], "the filter comes before the k");
    let both = json!({"bool": {"must": [knn(3)], "filter": {"match": {"name": "red"}}}});
    assert_eq!(bench.ids(json!({"query": both})), ["1", "3"]);
    bench.put("2", json!({"v": [9, 9]}));
    assert_eq!(bench.ids(json!({"query": knn(1)})), ["1"], "an old vector is gone");
    bench.write(vec![delete("1", Expect::Anything)]);
    assert_eq!(bench.ids(json!({"query": knn(1)})), ["3"], "a deleted document is not near");
    assert!(
        bench
            .fault(json!({"knn": {"v": {"vector": [1], "k": 1}}}))
            .reason
            .contains("invalid dimension: 1")
    );
    assert!(
        bench
            .fault(json!({"knn": {"name": {"vector": [1], "k": 1}}}))
            .reason
            .contains("not knn_vector")
    );
}

#[test]
fn a_large_vector_comes_back_as_it_was() {
    let bench =
        Bench::new(json!({"properties": {"v": {"type": "knn_vector", "dimension": 16_000}}}));
    let vector = |last: f32| {
        let mut vector = vec![0.25_f32; 16_000];
        vector[15_999] = last;
        json!(vector)
    };
    for (id, last) in [("a", 1.0), ("b", 2.0)] {
        assert_eq!(bench.put(id, json!({"v": vector(last)})), Written::Created(1));
    }
    let found = bench.found(json!({"query": {"knn": {"v": {"vector": vector(2.0), "k": 1}}}}));
    assert_eq!((found.hits[0].id.as_str(), found.hits[0].score), ("b", Some(1.0)));
}

#[test]
fn a_hybrid_adds_up_what_its_queries_find() {
    let bench = goods();
    let queries = json!([{"match": {"name": "red"}}, {"knn": {"v": {"vector": [5, 5], "k": 2}}}]);
    let found = bench.found(json!({"query": {"hybrid": {"queries": queries}}}));
    assert_eq!(found.hits[0].id, "3");
    assert_eq!((found.total, found.max_score), (3, Some(1.0)));
    assert_eq!(bench.fault(json!({"bool": {"must": {"hybrid": {"queries": []}}}})).status, 400);
}

#[test]
fn hits_are_sorted_and_paged() {
    let bench = goods();
    let sorted = |sort: Value| bench.ids(json!({"sort": sort}));
    assert_eq!(sorted(json!([{"price": "desc"}])), ["2", "1", "3", "4"]);
    assert_eq!(
        sorted(json!([{"stock": {"order": "asc", "missing": "_first"}}])),
        ["4", "2", "1", "3"]
    );
    assert_eq!(sorted(json!(["tags", {"price": "asc"}])), ["1", "2", "4", "3"]);
    assert_eq!(sorted(json!({"name.keyword": {"order": "asc"}})), ["2", "3", "1", "4"]);
    let found = bench.found(json!({"sort": ["made"], "from": 1, "size": 1}));
    assert_eq!((found.total, found.hits[0].id.as_str(), found.max_score), (4, "2", None));
    assert_eq!(found.hits[0].sort, Some(vec![json!(1_769_904_000_000_i64)]));
    assert_eq!(bench.ids(json!({"from": 3})), ["4"]);
    assert_eq!(bench.ids(json!({"from": 9_990, "size": 10})), Vec::<String>::new());
    let too_far = Search::parse(&json!({"from": 9_991, "size": 10})).expect("is understood");
    assert!(bench.index().search(&too_far).expect_err("too far").reason.contains("Result window"));
    let by_text = Search::parse(&json!({"sort": ["name"]})).expect("is understood");
    assert!(bench.index().search(&by_text).expect_err("a text").reason.contains("keyword"));
}

#[test]
fn what_is_not_there_is_refused_with_a_sentence() {
    let bench = goods();
    for (query, told) in [
        (json!({"geo_distance": {}}), "unknown query [geo_distance]"),
        (json!({"match": {"name": {"query": "x", "fuzziness": 1}}}), "[fuzziness]"),
        (json!({"match": {"name": "a"}, "term": {}}), "[term]"),
        (json!({"term": {"stock": "many"}}), "[integer]"),
        (json!({"range": {"made": {"gte": "now-1d"}}}), "[date]"),
        (json!({"range": {"made": {"gte": "2026-01-01", "time_zone": "+01:00"}}}), "[time_zone]"),
        (json!({"range": {"name": {"gte": "a"}}}), "[text]"),
        (json!({"bool": {"minimum_should_match": "75%"}}), "minimum_should_match"),
        (json!({"term": {"v": 1}}), "knn"),
        (json!({"knn": {"v": {"vector": [1, 2], "min_score": 0.5, "k": 1}}}), "[min_score]"),
    ] {
        let fault = bench.fault(query.clone());
        assert_eq!(fault.status, 400, "{query}");
        assert!(fault.reason.contains(told), "{query}: {}", fault.reason);
    }
}

#[test]
fn a_mapping_grows_and_nothing_is_lost() {
    let mut bench = Bench::new(json!({"properties": {"a": {"type": "text"}}}));
    bench.write(vec![
        put("1", Expect::NotAbove(5), json!({"a": "x"})),
        put("2", Expect::NotAbove(5), json!({"a": "y"})),
    ]);
    bench.write(vec![delete("2", Expect::NotAbove(6))]);
    bench.put("3", json!({"b": {"c": 7}, "d": "some words"}));
    let more = json!({"properties": {"b": {"properties": {"e": {"type": "date"}}}}});
    block_on(bench.index().map(more)).expect("is mapped");
    let change = block_on(bench.index().map(json!({"properties": {"a": {"type": "long"}}})));
    assert_eq!(change.expect_err("changes").status, 400);
    for _ in 0..2 {
        assert_eq!(bench.ids(json!({"query": {"match": {"a": "x"}}})), ["1"]);
        assert_eq!(bench.ids(json!({"query": {"term": {"b.c": 7}}})), ["3"]);
        assert_eq!(bench.ids(json!({"query": {"term": {"d.keyword": "some words"}}})), ["3"]);
        assert!(is_conflict(&bench.write(vec![put("2", Expect::NotAbove(5), json!({}))])[0], 6));
        let index = bench.index();
        let description = index.description();
        assert_eq!(description.mappings["properties"]["b"]["properties"]["c"]["type"], "long");
        assert_eq!(description.mappings["properties"]["b"]["properties"]["e"]["type"], "date");
        let generations = directories(&index.shared.dir).expect("is read");
        assert_eq!(generations.len(), 1, "{generations:?}");
        bench.again();
    }
}

#[test]
fn what_is_acknowledged_survives_without_a_close() {
    let bench = Bench::new(json!({}));
    let written = bench
        .write((0..500).map(|n| put(&n.to_string(), Expect::Anything, json!({"n": n}))).collect());
    assert!(written.iter().all(|written| *written == Written::Created(1)));
    // As a crash leaves it: the first one still holds its writer.
    let other = Indexes::open(bench.dir.path()).expect("opens");
    let index = other.get("a").expect("is there");
    assert_eq!(index.count(&json!({"range": {"n": {"gte": 100}}})).expect("is counted"), 400);
}

#[test]
fn writers_that_wait_share_a_commit() {
    let bench = Bench::new(json!({}));
    let index = bench.index();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    runtime.block_on(async {
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                let index = index.clone();
                tokio::spawn(async move {
                    index.write(vec![put(&n.to_string(), Expect::Anything, json!({"n": n}))]).await
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.expect("ends").expect("is written"), [Written::Created(1)]);
        }
    });
    assert_eq!(index.count(&Value::Null).expect("is counted"), 100);
}

#[test]
fn a_deleted_index_is_gone_and_its_name_is_free() {
    let mut bench = Bench::new(json!({}));
    bench.put("1", json!({"n": 1}));
    let old = bench.index().description().uuid.clone();
    bench.indexes.delete("a").expect("is deleted");
    assert_eq!(bench.indexes.delete("a").expect_err("is gone").status, 404);
    bench.again();
    assert!(bench.indexes.get("a").is_none());
    bench.indexes.create("a", &Value::Null).expect("is made");
    assert_eq!(
        bench.indexes.create("a", &Value::Null).err().expect("exists").kind,
        "resource_already_exists_exception"
    );
    assert_ne!(bench.index().description().uuid, old);
    assert_eq!(bench.index().count(&Value::Null).expect("is counted"), 0);
}

#[test]
fn what_a_crash_left_behind_is_swept() {
    let mut bench = Bench::new(json!({}));
    bench.put("1", json!({"n": 1}));
    let half_made = bench.dir.path().join("half-made");
    std::fs::create_dir_all(half_made.join("generation-0")).expect("is made");
    let half_copied = bench.index().shared.dir.join("generation-77");
    std::fs::create_dir_all(&half_copied).expect("is made");
    bench.again();
    assert!(!half_made.exists() && !half_copied.exists());
    assert_eq!(bench.ids(json!({})), ["1"]);
}
