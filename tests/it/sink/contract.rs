//! What `Sink` promises, held against every sink that there is: OpenSearch and Elasticsearch on real nodes, and the embedded
//! index.

use std::sync::Arc;

use driftless::error::ErrorKind;
use driftless::position::Version;
use driftless::sink::{self, Dynamic, Outcome, Sink, Target};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Op, batch, is_blocked, is_refused, mapping, says_both_dimensions, sink_at};
use crate::support::search::Product;
use crate::support::{servers, unique};

/// A sink with one index, and another way to look into that index.
struct Subject {
    sink: Arc<dyn Sink>,
    index: String,
    behind: Behind,
}

enum Behind {
    Node(crate::support::search::Search),
    Directory(TempDir),
}

impl Subject {
    async fn on_node(product: Product, description: Value) -> Self {
        let node = servers::search(product);
        let sink = sink_at(product, node.url(), |_| {});
        let subject = Self { sink, index: unique("contract"), behind: Behind::Node(node) };
        subject.create(description).await;
        subject
    }

    async fn embedded(description: Value) -> Self {
        let dir = TempDir::new().expect("a directory");
        let sink = embedded_in(&dir);
        let subject = Self { sink, index: unique("contract"), behind: Behind::Directory(dir) };
        subject.create(description).await;
        subject
    }

    async fn create(&self, description: Value) {
        match &self.behind {
            Behind::Node(node) => node.create_index(&self.index, description).await,
            Behind::Directory(_) => {
                let indexes = self.sink.indexes().expect("has indexes of its own");
                indexes.create(&self.index, &description).expect("is made");
            }
        }
    }

    async fn delete(&self) {
        match &self.behind {
            Behind::Node(node) => node.delete_index(&self.index).await,
            Behind::Directory(_) => {
                let indexes = self.sink.indexes().expect("has indexes of its own");
                indexes.delete(&self.index).expect("is deleted");
            }
        }
    }

    async fn delete_if_there(&self) {
        if self.exists(&self.index).await {
            self.delete().await;
        }
    }

    async fn exists(&self, index: &str) -> bool {
        match &self.behind {
            Behind::Node(node) => node.request("HEAD", &format!("/{index}"), None).await.0 == 200,
            Behind::Directory(dir) => {
                let found = embedded_in(dir);
                found.indexes().expect("has indexes of its own").get(index).is_some()
            }
        }
    }

    /// Version and source, as somebody sees them who did not write them.
    async fn stored(&self, id: &str) -> Option<(u64, Value)> {
        match &self.behind {
            Behind::Node(node) => {
                node.doc(&self.index, id).await.map(|doc| (doc.version, doc.source))
            }
            Behind::Directory(dir) => {
                let other = embedded_in(dir);
                let index =
                    other.indexes().expect("has indexes").get(&self.index).expect("is there");
                let (version, source) = index.get(id).expect("is answered")?;
                Some((version, serde_json::from_slice(&source).expect("JSON")))
            }
        }
    }

    async fn prepare(&self) -> Target {
        self.sink.prepare(&self.index).await.expect("is prepared")
    }

    async fn write(&self, target: &Target, operations: &[Op<'_>]) -> Vec<Outcome> {
        self.sink.write(target, &batch(operations)).await.expect("is answered")
    }
}

/// Another opening of the same directory, as another process would have it.
fn embedded_in(dir: &TempDir) -> Arc<dyn Sink> {
    let config = sink::Config {
        kind: "embedded".into(),
        index_dir: dir.path().to_owned(),
        ..sink::Config::default()
    };
    sink::build(&config).expect("a sink")
}

fn described() -> Value {
    let mut description = mapping();
    description["mappings"]["dynamic"] = json!("strict");
    description["settings"] = json!({"index": {"default_pipeline": "p"}});
    description
}

/// Each promise, once for each sink.
macro_rules! promises {
    ($($promise:ident: $description:expr;)*) => {
        mod opensearch {
            $(#[tokio::test]
            async fn $promise() {
                let product = super::Product::OpenSearch;
                let subject = super::Subject::on_node(product, $description).await;
                super::$promise(&subject).await;
                subject.delete_if_there().await;
            })*
        }

        mod elasticsearch {
            $(#[tokio::test]
            async fn $promise() {
                let product = super::Product::Elasticsearch;
                let subject = super::Subject::on_node(product, $description).await;
                super::$promise(&subject).await;
                subject.delete_if_there().await;
            })*
        }

        mod embedded {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&super::Subject::embedded($description).await).await;
            })*
        }
    };
}

promises! {
    a_target_says_what_the_index_is: super::described();
    a_missing_index_is_told_with_the_request_that_makes_it: super::mapping();
    versions_are_external_and_a_conflict_tells_the_current_one: super::mapping();
    a_document_that_never_fits_is_refused_and_its_neighbours_are_written: super::described();
    rule_14_a_deleted_index_is_not_created_again: super::mapping();
    a_batch_may_be_written_again: super::mapping();
    documents_below_a_version_are_found_page_by_page: super::mapping();
}

async fn documents_below_a_version_are_found_page_by_page(subject: &Subject) {
    let target = subject.prepare().await;
    let ids: Vec<String> = (0..2_500).map(|number| format!("old {number}")).collect();
    let old: Vec<Op<'_>> = ids.iter().map(|id| (id.as_str(), 10, Some("{}"))).collect();
    let others = [("at", 20, Some("{}")), ("above", 21, Some("{}")), ("old 7", 15, None)];
    for part in [&old[..], &others] {
        let outcomes = subject.write(&target, part).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    }
    let mut found = std::collections::BTreeSet::new();
    let mut after = None;
    loop {
        let page = subject
            .sink
            .older(&target, Version(20), after.as_deref())
            .await
            .expect("is looked through");
        assert!(page.ids.len() <= sink::PAGE_DOCUMENTS);
        // What is deleted between two pages must not make the next one jump over others.
        let gone: Vec<Op<'_>> = page.ids.iter().map(|id| (id.as_str(), 20, None)).collect();
        if !gone.is_empty() {
            subject.write(&target, &gone).await;
        }
        found.extend(page.ids);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: std::collections::BTreeSet<_> =
        ids.iter().filter(|id| *id != "old 7").cloned().collect();
    assert_eq!(found, expected);
    let page = subject.sink.older(&target, Version(20), None).await.expect("is looked through");
    assert_eq!(page, Default::default(), "nothing old is left");
    assert_eq!(subject.stored("at").await, Some((20, json!({}))));
}

async fn a_target_says_what_the_index_is(subject: &Subject) {
    let target = subject.prepare().await;
    assert_eq!(target.index, subject.index);
    assert_eq!(target.default_pipeline.as_deref(), Some("p"));
    assert_eq!(target.final_pipeline, None);
    assert_eq!(target.dynamic, Dynamic::Refuses);
    assert_eq!((target.fields["n"].as_str(), target.fields["o"].as_str()), ("integer", "object"));
    assert_eq!((target.dimensions["v"], target.dimensions["o.w"]), (3, 2));
    let uuid = subject.sink.uuid(&subject.index).await.expect("is answered");
    assert_eq!(uuid.as_deref(), Some(target.uuid.as_str()));
    assert_eq!(subject.prepare().await, target, "preparing again changes nothing");
    assert_eq!(subject.sink.inspect(&subject.index).await.expect("is looked at"), target);
}

async fn a_missing_index_is_told_with_the_request_that_makes_it(subject: &Subject) {
    subject.delete().await;
    let error = subject.sink.prepare(&subject.index).await.expect_err("is not there");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains(&format!("PUT /{}", subject.index)), "{}", error.report());
    assert_eq!(subject.sink.uuid(&subject.index).await.expect("is answered"), None);
    assert!(!subject.exists(&subject.index).await);
}

async fn versions_are_external_and_a_conflict_tells_the_current_one(subject: &Subject) {
    let target = subject.prepare().await;
    let above = (1 << 62) + 7;
    let written = subject.write(&target, &[("a\"\\/中", above, Some("{\"t\":\"x\"}"))]).await;
    assert_eq!(written, [Outcome::Done]);
    let again = subject.write(&target, &[("a\"\\/中", above, Some("{\"t\":\"x\"}"))]).await;
    assert_eq!(again, [Outcome::Done], "the same version is a replay");
    let older = [("a\"\\/中", above - 1, None), ("b", 5, None), ("c", 6, Some("{}"))];
    let outcomes = subject.write(&target, &older).await;
    let conflict = Outcome::Conflict { current: Version(above) };
    assert_eq!(outcomes, [conflict, Outcome::Done, Outcome::Done]);
    let late = subject.write(&target, &[("b", 4, Some("{}"))]).await;
    assert_eq!(late, [Outcome::Conflict { current: Version(5) }], "a delete is remembered");
    assert_eq!(subject.stored("c").await, Some((6, json!({}))));
    assert_eq!(subject.stored("b").await, None);
    let beyond = subject.write(&target, &[("d", u64::MAX, Some("{}"))]).await;
    assert!(is_blocked(&beyond[0]), "{beyond:?}");
}

async fn a_document_that_never_fits_is_refused_and_its_neighbours_are_written(subject: &Subject) {
    let target = subject.prepare().await;
    let immense = format!("{{\"k\":\"{}\"}}", "y".repeat(40_000));
    let long_id = "i".repeat(513);
    let outcomes = subject
        .write(
            &target,
            &[
                ("1", 1, Some(r#"{"n":"sesame"}"#)),
                ("2", 1, Some(r#"{"n":2}"#)),
                ("3", 1, Some(r#"{"unknown":2}"#)),
                ("4", 1, Some(r#"{"v":[1,2]}"#)),
                ("5", 1, Some(&immense)),
                (&long_id, 1, Some("{}")),
                ("7", 1, Some("{\"n\":")),
                ("8", 1, None),
            ],
        )
        .await;
    let refused: Vec<bool> = outcomes.iter().map(is_refused).collect();
    assert_eq!(refused, [true, false, true, true, true, true, true, false], "{outcomes:?}");
    assert_eq!((&outcomes[1], &outcomes[7]), (&Outcome::Done, &Outcome::Done));
    let told = format!("{outcomes:?}");
    assert!(
        !told.contains("sesame") && !told.contains("121, 121") && !told.contains("yyyy"),
        "{told}"
    );
    assert!(says_both_dimensions(&told), "{told}");
    assert_eq!(subject.stored("2").await, Some((1, json!({"n": 2}))));
}

async fn rule_14_a_deleted_index_is_not_created_again(subject: &Subject) {
    let target = subject.prepare().await;
    subject.delete().await;
    for operations in [&[("1", 1, Some("{}"))][..], &[("1", 1, None)]] {
        let outcomes = subject.write(&target, operations).await;
        assert!(outcomes.iter().all(is_blocked), "{outcomes:?}");
        assert!(!subject.exists(&target.index).await && !subject.exists(&target.alias).await);
    }
    subject.create(mapping()).await;
    let outcomes = subject.write(&target, &[("1", 1, Some("{}"))]).await;
    assert!(outcomes.iter().all(is_blocked), "another index of the name holds nothing of ours");
    assert_ne!(subject.prepare().await.uuid, target.uuid);
}

async fn a_batch_may_be_written_again(subject: &Subject) {
    let target = subject.prepare().await;
    let operations = [("1", 3, Some(r#"{"n":1}"#)), ("2", 5, None), ("3", 7, Some(r#"{"n":3}"#))];
    for _ in 0..2 {
        let outcomes = subject.write(&target, &operations).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    }
    assert_eq!(subject.stored("1").await, Some((3, json!({"n": 1}))));
    assert_eq!(subject.stored("2").await, None);
}
