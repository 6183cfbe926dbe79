//! Answers that must be those of a search node, or a refusal.

use super::*;

#[test]
fn a_date_without_its_time_is_all_of_the_day() {
    let bench = Bench::new(json!({"properties": {
        "d": {"type": "date"}, "ms": {"type": "date", "format": "epoch_millis"}}}));
    bench.write(vec![
        put("noon", Expect::Anything, json!({"d": "2026-01-31T12:00"})),
        put("year", Expect::Anything, json!({"d": 2026})),
        put("ms", Expect::Anything, json!({"ms": 2026})),
    ]);
    // As OpenSearch 2.19 answers.
    for (query, expected) in [
        (json!({"range": {"d": {"lte": "2026-01-31"}}}), vec!["noon", "year"]),
        (json!({"range": {"d": {"lt": "2026-01-31"}}}), vec!["year"]),
        (json!({"range": {"d": {"gt": "2026-01-31"}}}), vec![]),
        (json!({"range": {"d": {"gte": "2026-01-31"}}}), vec!["noon"]),
        (json!({"range": {"d": {"lte": "2026-01"}}}), vec!["year"]),
        (json!({"range": {"d": {"gte": "2026-01-02", "lte": "2026"}}}), vec![]),
        (
            json!({"range": {"d": {"gte": "2026-01-31T12:00", "lte": "2026-01-31T12"}}}),
            vec!["noon"],
        ),
        (json!({"term": {"d": "2026-01-31"}}), vec!["noon"]),
        (json!({"match": {"d": "2026-01-31"}}), vec!["noon"]),
        (json!({"terms": {"d": ["2026-01-31", "2026-01-31T12:00:00.000Z"]}}), vec!["noon"]),
        (json!({"term": {"d": "2026-01"}}), vec!["year"]),
        (json!({"term": {"d": 2026}}), vec!["year"]),
        (json!({"term": {"ms": 2026}}), vec!["ms"]),
    ] {
        let mut found = bench.ids(json!({"query": query}));
        found.sort();
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn a_number_in_a_keyword_is_found_by_its_digits() {
    let bench = Bench::new(json!({"properties": {
        "k": {"type": "keyword"}, "t": {"type": "text"}, "n": {"type": "double"}}}));
    bench.write(vec![put_text("1", r#"{"k": -12.50, "t": 1.0, "n": 2.50}"#)]);
    assert_eq!(bench.ids(json!({"query": {"term": {"k": "-12.50"}}})), ["1"]);
    assert_eq!(bench.ids(json!({"query": {"match": {"t": "1.0"}}})), ["1"]);
    let part = br#"{"x": 1}"#.to_vec();
    let what = What::Merge { part, otherwise: None };
    bench.write(vec![Write { id: "1".into(), what, expect: Expect::Anything }]);
    let (_, source) = bench.index().get("1").expect("is answered").expect("is there");
    assert_eq!(source, br#"{"k":-12.50,"t":1.0,"n":2.50,"x":1}"#);
    assert_eq!(bench.ids(json!({"query": {"term": {"k": "-12.50"}}})), ["1"]);
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let bench = goods();
    for query in [
        json!({"range": {"price": {"gt": "NaN"}}}),
        json!({"range": {"price": {"lt": "inf"}}}),
        json!({"term": {"price": "nan"}}),
        json!({"term": {"stock": "inf"}}),
        json!({"knn": {"v": {"vector": [1e39, 0], "k": 1}}}),
        json!({"match_all": {"boost": 1e39}}),
        json!({"match_all": {"boost": "inf"}}),
    ] {
        assert_eq!(bench.fault(query.clone()).status, 400, "{query}");
    }
    let much = json!({"bool": {"boost": 3e38, "must": [{"match_all": {"boost": 3e38}}]}});
    for hit in bench.found(json!({"query": much})).hits {
        assert_eq!(hit.score, Some(f32::MAX));
    }
}

#[test]
fn what_a_query_leaves_out_is_not_guessed() {
    let bench = goods();
    for (query, told) in [
        (json!({"ids": {"values": [null]}}), "[_id]"),
        (json!({"ids": {"values": [{}]}}), "[_id]"),
        (json!({"terms": {"nothing": [null]}}), "[nothing]"),
        (json!({"hybrid": {"queries": [null]}}), "[query]"),
        (json!({"knn": {"v": {"vector": [1, 2], "k": 1, "filter": null}}}), "[query]"),
        (json!({"range": {"_id": {"gt": "1"}}}), "[_id]"),
        (json!({"term": {"_index": "a"}}), "[_index]"),
        (json!({"match": {"_routing": "a"}}), "[_routing]"),
    ] {
        let fault = bench.fault(query.clone());
        assert!(fault.status == 400 && fault.reason.contains(told), "{query}: {fault}");
    }
    assert!(Search::parse(&json!({"query": null})).is_err());
    assert!(Search::parse(&json!({"timeout": "soon"})).is_err());
    assert!(Search::parse(&json!({"timeout": "10s"})).is_ok());
    // One of them must match where nothing else is asked for, as in OpenSearch.
    let should = json!({"bool": {"should": [{"term": {"stock": 7}}], "minimum_should_match": 0}});
    assert_eq!(bench.ids(json!({"query": should})), ["3"]);
    let large = Bench::new(json!({"properties": {"l": {"type": "long"}}}));
    large.put("1", json!({"l": 1e17}));
    assert_eq!(large.ids(json!({"query": {"term": {"l": 1e17}}})), ["1"]);
    assert_eq!(large.ids(json!({"query": {"term": {"l": 100_000_000_000_000_000_i64}}})), ["1"]);
    let changes = json!({"properties": {"o": {"properties": {"p": {"type": "long"}}}}});
    block_on(large.index().map(changes)).expect("is mapped");
    let dynamic = json!({"properties": {"o": {"dynamic": "strict", "properties": {}}}});
    assert!(
        block_on(large.index().map(dynamic)).expect_err("refused").reason.contains("[dynamic]")
    );
}

#[test]
fn a_query_has_only_so_many_clauses() {
    let bench = goods();
    let words = |count: usize| vec!["red"; count].join(" ");
    let query = json!({"match": {"name": words(1_024)}});
    assert!(bench.fault(query).reason.contains("1024"));
    assert_eq!(bench.ids(json!({"query": {"match": {"name": words(1_000)}}})), ["1", "3"]);
    let many = vec![json!({"term": {"stock": 7}}); 1_100];
    assert_eq!(bench.fault(json!({"bool": {"should": many}})).kind, "too_many_clauses");
}

#[test]
fn scores_do_not_count_what_is_not_there() {
    let mapping = json!({"properties": {"t": {"type": "text"}}});
    let (plain, worn) = (Bench::new(mapping.clone()), Bench::new(mapping));
    for round in 0..5 {
        worn.put("1", json!({"t": format!("red words that are gone {round}")}));
        worn.put("2", json!({"t": "red red red"}));
    }
    worn.write((100..200).map(|n| delete(&n.to_string(), Expect::Anything)).collect());
    for bench in [&plain, &worn] {
        bench.put("1", json!({"t": "red hat"}));
        bench.put("2", json!({"t": "blue shoes for running"}));
        bench.put("3", json!({"t": "red"}));
    }
    let scores = |bench: &Bench| -> Vec<(String, Option<f32>)> {
        let found = bench.found(json!({"query": {"match": {"t": "red hat"}}}));
        found.hits.into_iter().map(|hit| (hit.id, hit.score)).collect()
    };
    assert_eq!(scores(&plain), scores(&worn));
    worn.write(["1", "2", "3"].map(|id| delete(id, Expect::Anything)).into());
    assert_eq!(worn.ids(json!({"query": {"term": {"_id": "1"}}})), Vec::<String>::new());
}

#[test]
fn a_change_that_is_not_made_leaves_the_mapping_alone() {
    let bench = Bench::new(json!({}));
    bench.write(vec![put("1", Expect::NotAbove(5), json!({"n": 1}))]);
    let merge = |id: &str, part: Value, otherwise: Option<Value>| {
        let bytes = |value: Value| value.to_string().into_bytes();
        let what = What::Merge { part: bytes(part), otherwise: otherwise.map(bytes) };
        Write { id: id.into(), what, expect: Expect::Anything }
    };
    let written = bench.write(vec![
        put("1", Expect::NotAbove(4), json!({"stale": 1})),
        put("1", Expect::Absent, json!({"exists": 1})),
        merge("2", json!({"missing": 1}), None),
        put("3", Expect::Anything, json!({"n": "many", "unfit": 1})),
        merge("4", json!({"unused": 1}), Some(json!({"used": 1}))),
    ]);
    assert!(is_conflict(&written[0], 5) && is_conflict(&written[1], 5));
    assert_eq!(written[4], Written::Created(1));
    let mappings = bench.index().description().mappings.clone();
    let names: Vec<&String> = mappings["properties"].as_object().expect("fields").keys().collect();
    assert_eq!(names, ["n", "used"]);
}
