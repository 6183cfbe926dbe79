//! What must not be lost, come back or stand in the way: depth, deletions, disks that fail, indexes that cannot be opened.

use std::path::Path;

use super::*;

/// Objects in each other, each depth with a name of its own.
fn nested(depth: usize) -> String {
    format!("{{\"n{depth}\":{}1{}", "{\"a\":".repeat(depth - 1), "}".repeat(depth))
}

#[test]
fn depth_is_refused_before_it_does_harm() {
    let mut bench = Bench::new(json!({}));
    let dotted = |parts: usize| format!("{{\"{}\":1}}", vec!["b"; parts].join("."));
    for (document, is_taken) in [
        (nested(20), true),
        (nested(21), false),
        (nested(63), false),
        (nested(120), false),
        (dotted(20), true),
        (dotted(21), false),
        (dotted(63), false),
        (dotted(50_000), false),
    ] {
        let written = bench.write(vec![put_text("1", &document)]).remove(0);
        let start: String = document.chars().take(40).collect();
        match written {
            Written::Refused(fault) => {
                assert!(!is_taken && fault.reason.contains("depth [20]"), "{start}: {fault}");
                assert!(fault.reason.len() < 300, "{start}");
            }
            _ => assert!(is_taken, "{start}"),
        }
    }
    for (depth, is_taken) in [(20, true), (21, false), (60, false)] {
        let mapped = block_on(bench.index().map(deep_mapping(depth)));
        assert_eq!(mapped.is_ok(), is_taken, "{depth}");
        let made =
            bench.indexes.create(&format!("m{depth}"), &json!({"mappings": deep_mapping(depth)}));
        assert_eq!(made.is_ok(), is_taken, "{depth}");
    }
    let meta: Value = serde_json::from_str(&nested(100)).expect("JSON");
    assert_eq!(block_on(bench.index().map(json!({"_meta": meta}))).expect_err("deep").status, 400);
    bench.again();
    assert_eq!(bench.indexes.broken(), Vec::<String>::new());
    assert_eq!(bench.index().count(&Value::Null).expect("is counted"), 1);
}

#[test]
fn a_deleted_index_does_not_come_back_with_a_write_that_waits() {
    let mut bench = Bench::new(json!({}));
    bench.put("1", json!({"n": 1}));
    let index = bench.index();
    let dir = index.dir();
    bench.indexes.delete("a").expect("is deleted");
    // As a batch that was queued before, and brings a field.
    let late = block_on(index.write(vec![put("2", Expect::Anything, json!({"new": 1}))]));
    assert_eq!(late.expect_err("is gone").kind(), ErrorKind::NotFound);
    assert_eq!(block_on(index.map(deep_mapping(2))).expect_err("is gone").status, 404);
    assert!(!dir.exists());
    bench.indexes.create("a", &Value::Null).expect("the name is free");
    bench.again();
    assert_eq!(bench.indexes.broken(), Vec::<String>::new());
    assert_eq!(bench.index().count(&Value::Null).expect("is counted"), 0);
}

#[test]
fn deleting_and_making_against_a_busy_writer_leaves_one_index() {
    let mut bench = Bench::new(json!({}));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    runtime.block_on(async {
        for round in 0..10 {
            let index = bench.index();
            let writes = (0..4).map(|n| {
                let index = index.clone();
                tokio::spawn(async move {
                    let document = json!({format!("f{round}_{n}"): n});
                    index.write(vec![put(&n.to_string(), Expect::Anything, document)]).await
                })
            });
            let writes: Vec<_> = writes.collect();
            let indexes = bench.indexes.clone();
            let again = tokio::task::spawn_blocking(move || {
                indexes.delete("a")?;
                indexes.create("a", &Value::Null).map(|_| ())
            });
            again.await.expect("ends").expect("is made anew");
            for write in writes {
                // Written before, or told so.
                if let Err(error) = write.await.expect("ends") {
                    assert!(
                        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::SinkBusy),
                        "{error}"
                    );
                }
            }
            assert_eq!(bench.index().count(&Value::Null).expect("is counted"), 0);
        }
    });
    let uuid = bench.index().description().uuid.clone();
    bench.again();
    assert_eq!((bench.indexes.broken(), bench.indexes.list().len()), (vec![], 1));
    assert_eq!(bench.index().description().uuid, uuid);
}

/// Puts a directory in the way of a file, so that nothing can be written there.
struct Obstacle {
    at: PathBuf,
    aside: PathBuf,
}

impl Obstacle {
    fn at(path: &Path) -> Self {
        let aside = path.with_extension("aside");
        if path.exists() {
            std::fs::rename(path, &aside).expect("is put aside");
        }
        std::fs::create_dir(path).expect("is made");
        Self { at: path.to_owned(), aside }
    }

    fn clear(self) {
        std::fs::remove_dir(&self.at).expect("is removed");
        if self.aside.exists() {
            std::fs::rename(&self.aside, &self.at).expect("is put back");
        }
    }
}

#[test]
fn a_commit_that_fails_does_not_block_the_next() {
    for starts_again in [false, true] {
        let mut bench = Bench::new(json!({"properties": {"n": {"type": "long"}}}));
        bench.write(
            (0..5).map(|n| put(&n.to_string(), Expect::Anything, json!({"n": n}))).collect(),
        );
        let generation = bench.index().shared.generation().dir.clone();
        let obstacle = Obstacle::at(&generation.join("meta.json"));
        let index = bench.index();
        // The file of deletions is written before the commit fails.
        let failed = block_on(index.write(vec![put("1", Expect::Anything, json!({"n": 7}))]));
        assert_eq!(failed.expect_err("fails").kind(), ErrorKind::SinkBusy);
        drop(index);
        obstacle.clear();
        if starts_again {
            bench.again();
        }
        for n in 8..11 {
            bench.put("1", json!({"n": n}));
        }
        assert_eq!(bench.ids(json!({"query": {"term": {"n": 10}}})), ["1"]);
        assert_eq!(bench.ids(json!({"query": {"term": {"n": 7}}})), Vec::<String>::new());
        assert_eq!(bench.index().count(&Value::Null).expect("is counted"), 5);
    }
}

#[test]
fn a_description_that_cannot_be_written_leaves_the_old_one() {
    let mut bench = Bench::new(json!({}));
    bench.put("1", json!({"n": 1}));
    let obstacle = Obstacle::at(&bench.index().dir().join("description.new"));
    let index = bench.index();
    let failed = block_on(index.write(vec![put("2", Expect::Anything, json!({"x": 7}))]));
    assert_eq!(failed.expect_err("fails").kind(), ErrorKind::SinkBusy);
    assert!(index.description().mappings["properties"]["x"].is_null());
    bench.put("3", json!({"n": 3}));
    obstacle.clear();
    drop(index);
    for _ in 0..2 {
        bench.put("2", json!({"x": 7}));
        assert_eq!(bench.ids(json!({"query": {"term": {"x": 7}}})), ["2"]);
        assert_eq!(bench.index().count(&Value::Null).expect("is counted"), 3);
        bench.again();
    }
}

#[test]
fn nothing_is_acknowledged_before_the_description_is_durable() {
    let bench = Bench::new(json!({}));
    bench.put("1", json!({"n": 1}));
    let index = bench.index();
    // As a sync that failed after the rename leaves it; the next one fails too.
    index.shared.must_sync();
    let (dir, elsewhere) = (index.dir(), bench.dir.path().join("elsewhere"));
    std::fs::rename(&dir, &elsewhere).expect("is moved");
    let refused = block_on(index.write(vec![put("2", Expect::Anything, json!({"n": 2}))]));
    assert_eq!(refused.expect_err("not durable").kind(), ErrorKind::SinkBusy);
    std::fs::rename(&elsewhere, &dir).expect("is moved back");
    assert_eq!(bench.put("2", json!({"n": 2})), Written::Created(1));
}

#[test]
fn an_index_that_cannot_be_opened_stands_in_nobody_elses_way() {
    let mut bench = Bench::new(json!({}));
    for name in ["b", "c"] {
        bench.indexes.create(name, &Value::Null).expect("is made");
    }
    bench.put("1", json!({"n": 1}));
    let dir = |name: &str| bench.indexes.get(name).expect("is there").dir();
    let (b, c) = (dir("b"), dir("c"));
    std::fs::remove_dir_all(b.join("generation-0")).expect("is removed");
    let description = std::fs::read_to_string(c.join("description.json")).expect("is read");
    std::fs::write(
        c.join("description.json"),
        description.replace("\"format\": 1", "\"format\": 99"),
    )
    .expect("is written");
    bench.again();
    assert_eq!(bench.ids(json!({})), ["1"]);
    assert_eq!(bench.indexes.broken(), ["b", "c"]);
    assert!(bench.indexes.why_broken("c").expect("a reason").contains("format 99"));
    let taken = bench.indexes.create("b", &Value::Null).err().expect("is there");
    assert!(taken.reason.contains("cannot be opened"), "{taken}");
    assert!(b.exists() && c.exists(), "what may be mended is not swept");
    bench.indexes.delete("b").expect("is deleted");
    bench.indexes.create("b", &Value::Null).expect("is made anew");
    bench.again();
    assert_eq!(bench.indexes.broken(), ["c"]);
    assert!(bench.indexes.get("b").is_some());
}

#[test]
fn two_indexes_of_one_name_are_both_left_alone() {
    let mut bench = Bench::new(json!({}));
    let dir = bench.index().dir();
    let other = bench.dir.path().join("other");
    std::fs::create_dir(&other).expect("is made");
    for entry in std::fs::read_dir(&dir).expect("is read").flatten() {
        let to = other.join(entry.file_name());
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to).expect("is copied");
            continue;
        }
        std::fs::create_dir(&to).expect("is made");
        for inner in std::fs::read_dir(entry.path()).expect("is read").flatten() {
            std::fs::copy(inner.path(), to.join(inner.file_name())).expect("is copied");
        }
    }
    bench.again();
    assert!(bench.indexes.get("a").is_none());
    let reason = bench.indexes.why_broken("a").expect("a reason");
    assert!(reason.starts_with("2 directories"), "{reason}");
    bench.indexes.delete("a").expect("both are deleted");
    bench.indexes.create("a", &Value::Null).expect("is made");
}
