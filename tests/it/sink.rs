//! The sinks of OpenSearch and Elasticsearch against real nodes. What is promised of every sink is in `contract`.

mod contract;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use driftless::document::Batch;
use driftless::error::ErrorKind;
use driftless::position::Version;
use driftless::sink::{self, Dynamic, Outcome, Sink, Target};
use serde_json::{Value, json};

use crate::support::proxy::{Fault, Proxy};
use crate::support::search::Product;
use crate::support::servers;

/// A node, a fresh index on it, and a sink that writes there.
struct Bench {
    product: Product,
    url: String,
    index: String,
    http: reqwest::Client,
    sink: Arc<dyn Sink>,
}

impl Bench {
    async fn new(product: Product, name: &str, description: Value) -> Self {
        let url = servers::search(product).url().to_owned();
        let sink = sink_at(product, &url, |_| {});
        let index = format!("sink-{name}-{}", std::process::id());
        let bench = Self { product, url, index, http: crate::support::http_client(), sink };
        bench.request("DELETE", "", Value::Null).await;
        bench.create(description).await;
        bench
    }

    /// Another sink with this index, at another address or with another configuration.
    fn sink_at(&self, url: &str, change: impl FnOnce(&mut sink::Config)) -> Arc<dyn Sink> {
        sink_at(self.product, url, change)
    }

    async fn create(&self, description: Value) {
        let description = self.product.description(description);
        let (status, answer) = self.request("PUT", "", description).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// A request under the index's own path.
    async fn request(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, format!("{}/{}{path}", self.url, self.index));
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the node answers");
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    }

    async fn version_of(&self, id: &str) -> Option<u64> {
        self.request("GET", &format!("/_doc/{id}"), Value::Null).await.1["_version"].as_u64()
    }

    async fn exists(&self, index: &str) -> bool {
        let response = self.http.head(format!("{}/{index}", self.url)).send().await;
        response.expect("the node answers").status() == 200
    }

    async fn prepare(&self) -> Target {
        self.sink.prepare(&self.index).await.expect("is prepared")
    }

    async fn write(&self, target: &Target, operations: &[Op<'_>]) -> Vec<Outcome> {
        self.sink.write(target, &batch(operations)).await.expect("is answered")
    }

    async fn end(self) {
        self.request("DELETE", "", Value::Null).await;
    }
}

/// `_id`, version, and the document or None for a delete.
type Op<'a> = (&'a str, u64, Option<&'a str>);

/// The keys stay 0: a sink does not look at them.
fn batch(operations: &[Op<'_>]) -> Batch {
    let mut batch = Batch::default();
    for (id, version, body) in operations {
        match body {
            Some(body) => batch.upsert(id, 0, Version(*version), body.as_bytes()),
            None => batch.delete(id, 0, Version(*version)),
        }
    }
    batch
}

fn sink_at(product: Product, url: &str, change: impl FnOnce(&mut sink::Config)) -> Arc<dyn Sink> {
    let mut config = sink::Config {
        kind: product.kind().to_owned(),
        addresses: vec![url.to_owned()],
        ..sink::Config::default()
    };
    change(&mut config);
    sink::build(&config).expect("a sink")
}

/// In the words of OpenSearch, which a node of the other product has translated.
fn mapping() -> Value {
    json!({"mappings": {"properties": {
        "t": {"type": "text"},
        "n": {"type": "integer"},
        "k": {"type": "keyword"},
        "v": {"type": "knn_vector", "dimension": 3},
        "o": {"properties": {"w": {"type": "knn_vector", "dimension": 2}}},
    }}})
}

fn is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused { .. })
}

fn is_blocked(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Blocked { .. })
}

/// Whether a vector of two numbers for a field of three is told as such, in the words of either product.
fn says_both_dimensions(told: &str) -> bool {
    told.contains("Expected: 3, Given: 2")
        || told.contains("number of dimensions [2] than defined in the mapping [3]")
}

/// Each test, once for each product.
macro_rules! on_both {
    ($($test:ident;)*) => {
        mod opensearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Product::OpenSearch).await;
            })*
        }

        mod elasticsearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Product::Elasticsearch).await;
            })*
        }
    };
}

on_both! {
    a_target_says_what_the_index_is;
    rule_15_an_index_that_forgets_is_refused_with_the_statement_that_mends_it;
    a_document_that_never_fits_is_refused_and_its_neighbours_are_written;
    rule_14_a_write_block_and_a_missing_pipeline_are_nobodys_document;
    what_a_cluster_has_embedded_is_not_sent_again_for_a_later_requests_sake;
    rule_14_a_deleted_index_is_not_created_again;
    a_bulk_is_cut_by_bytes_and_documents;
    a_bulk_that_is_too_large_for_the_server_is_halved;
    a_refusal_of_the_whole_request_says_whether_waiting_helps;
    a_dead_address_is_left_out;
    control_requests_work_beside_a_certificate_of_our_own;
    the_other_product_is_told_with_the_line_to_write;
    the_login_goes_with_every_request;
    patterns_do_not_find_the_write_alias;
    rule_14_an_index_with_too_many_fields_is_nobodys_document;
    a_pipeline_of_the_cluster_is_found_and_run;
}

async fn a_target_says_what_the_index_is(product: Product) {
    let mut description = mapping();
    description["mappings"]["dynamic"] = json!("strict");
    description["settings"] =
        json!({"index.default_pipeline": "p", "index.final_pipeline": "_none"});
    let bench = Bench::new(product, "target", description).await;
    let target = bench.prepare().await;
    assert_eq!(target.index, bench.index);
    assert_eq!(target.alias, format!("{}.driftless", bench.index));
    assert_eq!(target.default_pipeline.as_deref(), Some("p"));
    assert_eq!(target.final_pipeline, None);
    assert_eq!(target.dynamic, Dynamic::Refuses);
    assert_eq!(target.fields["n"], "integer");
    assert_eq!((target.dimensions["v"], target.dimensions["o.w"]), (3, 2));
    let uuid = bench.sink.uuid(&bench.index).await.expect("is answered");
    assert_eq!(uuid.as_deref(), Some(target.uuid.as_str()));
    assert_eq!(bench.prepare().await, target, "preparing again changes nothing");

    let by_alias = bench.sink.prepare(&target.alias).await;
    // A name with a point inside is a name like another.
    assert_eq!(by_alias.expect("an alias leads to its index"), target);
    bench.end().await;
}

async fn rule_15_an_index_that_forgets_is_refused_with_the_statement_that_mends_it(
    product: Product,
) {
    let settings = json!({"settings": {"index.translog.durability": "async"}});
    let bench = Bench::new(product, "async", settings).await;
    let error = bench.sink.prepare(&bench.index).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::SinkBlocked);
    let statement = error.advice().expect("advice");
    let (request, body) =
        statement.split_once(' ').expect("a request").1.split_once(' ').expect("a body");
    let path = request.strip_prefix(&format!("/{}", bench.index)).expect("its path");
    let body = serde_json::from_str(body).expect("JSON");
    assert_eq!(bench.request("PUT", path, body).await.0, 200);
    bench.prepare().await;
    bench.end().await;
}

async fn a_document_that_never_fits_is_refused_and_its_neighbours_are_written(product: Product) {
    let mut description = mapping();
    description["mappings"]["dynamic"] = json!("strict");
    let bench = Bench::new(product, "refused", description).await;
    let target = bench.prepare().await;
    let immense = format!("{{\"k\":\"{}\"}}", "y".repeat(40_000));
    let long_id = "i".repeat(513);
    let outcomes = bench
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
                ("9", 1, Some("{\n}")),
                // What Elasticsearch quotes elsewhere: an element of a vector, a document that does not end where it should.
                ("10", 1, Some(r#"{"v":["sesame",1,2]}"#)),
                ("11", 1, Some(r#"{"n":1,"t":"sesame"}}"#)),
            ],
        )
        .await;
    let refused: Vec<bool> = outcomes.iter().map(is_refused).collect();
    let expected = [true, false, true, true, true, true, true, false, true, true, true];
    assert_eq!(refused, expected, "{outcomes:?}");
    assert_eq!((&outcomes[1], &outcomes[7]), (&Outcome::Done, &Outcome::Done));
    let told = format!("{outcomes:?}");
    assert!(!told.contains("sesame") && !told.contains("121, 121"), "{told}");
    assert!(says_both_dimensions(&told), "{told}");
    assert_eq!(bench.version_of("2").await, Some(1));
    bench.end().await;
}

async fn rule_14_a_write_block_and_a_missing_pipeline_are_nobodys_document(product: Product) {
    let bench = Bench::new(product, "blocked", mapping()).await;
    let target = bench.prepare().await;
    let operations = [("1", 1, Some("{}")), ("2", 1, None)];
    bench.request("PUT", "/_settings", json!({"index.blocks.write": true})).await;
    let outcomes = bench.write(&target, &operations).await;
    assert!(outcomes.iter().all(is_blocked), "{outcomes:?}");

    let settings = json!({"index.blocks.write": null, "index.final_pipeline": "not-there"});
    bench.request("PUT", "/_settings", settings).await;
    let outcomes = bench.write(&target, &operations).await;
    assert!(is_blocked(&outcomes[0]), "{outcomes:?}");

    // The default pipeline is not to be run but where the writer says so.
    let settings = json!({"index.final_pipeline": null, "index.default_pipeline": "not-there"});
    bench.request("PUT", "/_settings", settings).await;
    assert_eq!(bench.write(&target, &operations).await, [Outcome::Done, Outcome::Done]);
    let delegating = Target { runs_pipeline: true, ..target };
    let outcomes = bench.write(&delegating, &operations).await;
    assert!(is_blocked(&outcomes[0]) && outcomes[1] == Outcome::Done, "{outcomes:?}");
    assert!(!bench.sink.has_pipeline("not-there").await.expect("answers"));
    bench.end().await;
}

async fn what_a_cluster_has_embedded_is_not_sent_again_for_a_later_requests_sake(product: Product) {
    let bench = Bench::new(product, "begun", mapping()).await;
    let address = bench.url.strip_prefix("http://").expect("test nodes speak plain http");
    let proxy = Proxy::http_watching(address, "_bulk").await;
    let sink = bench.sink_at(&proxy.url(), |_| {});
    let target = Target { runs_pipeline: true, ..bench.prepare().await };
    let ids: Vec<String> = (0..250).map(|id| id.to_string()).collect();
    let operations: Vec<Op<'_>> = ids.iter().map(|id| (id.as_str(), 1, Some("{}"))).collect();
    proxy.inject_when(|request| request.text().contains("\"_id\":\"100\""), Fault::status(503));
    let outcomes = sink.write(&target, &batch(&operations)).await.expect("is answered");
    assert!(outcomes[..100].iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    let is_retry = |outcome: &Outcome| matches!(outcome, Outcome::Overloaded { .. });
    assert!(outcomes[100..].iter().all(is_retry), "{outcomes:?}");
    assert_eq!(proxy.requests().len(), 2);

    proxy.inject(Fault::status(503));
    let error = sink.write(&target, &batch(&operations)).await.expect_err("nothing was written");
    assert_eq!(error.kind(), ErrorKind::SinkBusy);
    bench.end().await;
}

async fn rule_14_a_deleted_index_is_not_created_again(product: Product) {
    let bench = Bench::new(product, "deleted", mapping()).await;
    let target = bench.prepare().await;
    bench.request("DELETE", "", Value::Null).await;
    for operations in [
        &[("1", 1, Some("{}"))][..],
        &[("1", 1, None)],
        &[("1", 1, None), ("2", 1, Some("{}")), ("3", 1, None)],
    ] {
        let outcomes = bench.write(&target, operations).await;
        assert!(outcomes.iter().all(is_blocked), "{outcomes:?}");
        assert!(!bench.exists(&target.index).await && !bench.exists(&target.alias).await);
    }

    bench.create(mapping()).await;
    let outcomes = bench.write(&target, &[("1", 1, Some("{}"))]).await;
    assert!(outcomes.iter().all(is_blocked), "another index of the name has no alias of ours");
    let uuid = bench.sink.uuid(&bench.index).await.expect("is answered");
    assert_ne!(uuid.as_deref(), Some(target.uuid.as_str()));
    assert_ne!(bench.prepare().await.uuid, target.uuid);
    bench.end().await;
}

async fn a_bulk_is_cut_by_bytes_and_documents(product: Product) {
    let bench = Bench::new(product, "cut", mapping()).await;
    let target = bench.prepare().await;
    let (proxy, requests) = proxy(&bench.url, |_| None);
    let sink = bench.sink_at(&proxy, |config| {
        config.bulk_bytes = 2_000;
        config.bulk_documents = 4;
    });
    let big = format!("{{\"t\":\"{}\"}}", "x".repeat(3_000));
    let ids: Vec<String> = (0..10).map(|id| id.to_string()).collect();
    let mut operations: Vec<Op<'_>> = ids.iter().map(|id| (id.as_str(), 3, Some("{}"))).collect();
    operations[5].2 = Some(&big);
    let outcomes = sink.write(&target, &batch(&operations)).await.expect("is answered");
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    // 4 + 1 before the large one, which goes alone, and 4 behind it.
    assert_eq!(requests.load(Ordering::SeqCst), 4);
    bench.end().await;
}

async fn a_bulk_that_is_too_large_for_the_server_is_halved(product: Product) {
    let bench = Bench::new(product, "halved", mapping()).await;
    let target = bench.prepare().await;
    let refuse = |body: &[u8]| (body.len() > 1_000).then(|| status_line(413, "", ""));
    let (proxy, _) = proxy(&bench.url, refuse);
    let sink = bench.sink_at(&proxy, |_| {});
    let big = format!("{{\"t\":\"{}\"}}", "x".repeat(3_000));
    let ids: Vec<String> = (0..40).map(|id| id.to_string()).collect();
    let mut operations: Vec<Op<'_>> = ids.iter().map(|id| (id.as_str(), 3, Some("{}"))).collect();
    operations[17].2 = Some(&big);
    let outcomes = sink.write(&target, &batch(&operations)).await.expect("is answered");
    for (at, outcome) in outcomes.iter().enumerate() {
        assert_eq!(is_refused(outcome), at == 17, "{at}: {outcome:?}");
    }
    assert_eq!(bench.version_of("39").await, Some(3));
    assert_eq!(bench.version_of("17").await, None);
    bench.end().await;
}

async fn a_refusal_of_the_whole_request_says_whether_waiting_helps(product: Product) {
    let cases = [
        (429, "retry-after: 7\r\n", ErrorKind::SinkBusy, "come again after 7 s"),
        (503, "", ErrorKind::SinkBusy, "503"),
        (401, "", ErrorKind::SinkBlocked, "password"),
        (403, "", ErrorKind::SinkBlocked, "403"),
        (404, "", ErrorKind::SinkBlocked, "404"),
        (400, "", ErrorKind::SinkBlocked, "some_exception: why"),
    ];
    let bench = Bench::new(product, "whole", mapping()).await;
    let target = bench.prepare().await;
    for (status, header, kind, told) in cases {
        let body = r#"{"error":{"type":"some_exception","reason":"why"},"status":0}"#;
        let (proxy, _) = proxy(&bench.url, move |_| Some(status_line(status, header, body)));
        let sink = bench.sink_at(&proxy, |_| {});
        let operations = batch(&[("1", 1, Some("{}"))]);
        let error = sink.write(&target, &operations).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{status}");
        assert!(error.report().contains(told), "{}", error.report());
        let error = sink.prepare(&bench.index).await.expect_err("refused");
        let is_missing = status == 404 && error.kind() == ErrorKind::NotFound;
        assert!(is_missing || error.kind() == kind, "{status}: {}", error.report());
    }
    bench.end().await;
}

async fn a_dead_address_is_left_out(product: Product) {
    let bench = Bench::new(product, "addresses", mapping()).await;
    let target = bench.prepare().await;
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let url = bench.url.clone();
    let sink = bench.sink_at(&url, |config| config.addresses.insert(0, format!("http://{dead}")));
    let operations = batch(&[("1", 1, Some("{}"))]);
    let error = sink.write(&target, &operations).await.expect_err("the first address is dead");
    assert_eq!(error.kind(), ErrorKind::SinkBusy);
    for _ in 0..4 {
        sink.write(&target, &operations).await.expect("the other address answers");
    }
    bench.end().await;
}

#[tokio::test]
async fn a_node_that_stays_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let sink = sink_at(Product::OpenSearch, &url, |config| config.timeout_ms = 200);
    let error = sink.uuid("x").await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::SinkBusy);
    let target = Target { index: "x".into(), alias: "x.driftless".into(), ..Target::default() };
    let error = sink.write(&target, &batch(&[("1", 1, None)])).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::SinkBusy);
}

/// Of nobody; valid until 2126.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBnjCCAUOgAwIBAgIUDpzqivDZkj9G0R9L+OhF4wYUrRUwCgYIKoZIzj0EAwIw\n\
IzEhMB8GA1UEAwwYZHJpZnRsZXNzIHRlc3QgYXV0aG9yaXR5MCAXDTI2MTEyMTEw\n\
MjEyOFoYDzIxMjYxMDI4MTAyMTI4WjAjMSEwHwYDVQQDDBhkcmlmdGxlc3MgdGVz\n\
dCBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAR1tZv1O1KUTTE3\n\
yYglsaVYuc3GZNUj8AnB9D3QozRJcaZpCDLfPclyDKMFubb/PwSu4Sume1xyohDw\n\
efuZqySdo1MwUTAdBgNVHQ4EFgQUzeDaKSFZq14q5OOsrGv9VI5JXhYwHwYDVR0j\n\
BBgwFoAUzeDaKSFZq14q5OOsrGv9VI5JXhYwDwYDVR0TAQH/BAUwAwEB/zAKBggq\n\
hkjOPQQDAgNJADBGAiEA7Zp5sPg4zq+YPZBBwWj81AbU55wsGfIQ6tVI9Mbz9L0C\n\
IQCFMOfZtpLVXy0EircfepV9UcrHQPH2r0JI6ZLg4CGLsg==\n\
-----END CERTIFICATE-----";

async fn control_requests_work_beside_a_certificate_of_our_own(product: Product) {
    let bench = Bench::new(product, "certificate", mapping()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, CERTIFICATE).expect("writes");
    let sink = bench.sink_at(&bench.url, |config| config.ca_file = Some(ca_file.clone()));
    let target = sink.prepare(&bench.index).await.expect("is prepared");
    assert_eq!(sink.inspect(&bench.index).await.expect("is looked at"), target);
    let outcomes = sink.write(&target, &batch(&[("1", 1, Some("{}"))])).await.expect("is answered");
    assert_eq!(outcomes, [Outcome::Done]);

    std::fs::write(&ca_file, "no certificate").expect("writes");
    let config = sink::Config { ca_file: Some(ca_file), ..sink::Config::default() };
    assert_eq!(sink::build(&config).err().expect("refused").kind(), ErrorKind::Input);
    bench.end().await;
}

async fn the_other_product_is_told_with_the_line_to_write(product: Product) {
    let bench = Bench::new(product, "other", mapping()).await;
    bench.sink.greet().await.expect("is who it shall be");
    let (other, name) = match product {
        Product::OpenSearch => (Product::Elasticsearch, "OpenSearch 2."),
        Product::Elasticsearch => (Product::OpenSearch, "Elasticsearch"),
    };
    let sink = sink_at(other, &bench.url, |_| {});
    let line = format!("write type = \"{}\"", product.kind());
    for error in [
        sink.greet().await.expect_err("the other one"),
        sink.inspect(&bench.index).await.expect_err("the other one"),
        sink.prepare(&bench.index).await.expect_err("the other one"),
        sink.prepare("not-there").await.expect_err("the other one"),
    ] {
        assert_eq!(error.kind(), ErrorKind::SinkBlocked);
        assert!(error.report().contains(name), "{}", error.report());
        assert!(error.advice().is_some_and(|advice| advice.contains(&line)), "{}", error.report());
    }
    let (_, aliases) = bench.request("GET", "/_alias", Value::Null).await;
    assert_eq!(aliases[&bench.index]["aliases"], json!({}), "nothing was put on it");
    bench.end().await;
}

async fn the_login_goes_with_every_request(product: Product) {
    let bench = Bench::new(product, "key", mapping()).await;
    let address = bench.url.strip_prefix("http://").expect("test nodes speak plain http");
    let proxy = Proxy::http_watching(address, "/").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    std::fs::write(&file, "aWQ6c2VzYW1l\n").expect("writes");
    let with_halves = bench.sink_at(&proxy.url(), |config| {
        config.api_key = Some("id:sesame".to_owned().into());
    });
    let with_file = bench.sink_at(&proxy.url(), |config| config.api_key_file = Some(file));
    let with_password = bench.sink_at(&proxy.url(), |config| {
        config.user = Some("me".to_owned());
        config.password = Some("sesame".to_owned().into());
    });
    let operations = batch(&[("1", 1, Some("{}"))]);
    let (key, password) = ("ApiKey aWQ6c2VzYW1l", "Basic bWU6c2VzYW1l");
    let mut seen = 0;
    for (sink, login) in [(with_halves, key), (with_file, key), (with_password, password)] {
        sink.greet().await.expect("is who it shall be");
        let target = sink.prepare(&bench.index).await.expect("is prepared");
        let outcomes = sink.write(&target, &operations).await.expect("is answered");
        assert_eq!(outcomes, [Outcome::Done]);
        let requests = proxy.requests().split_off(seen);
        assert!(requests.len() >= 3, "{}", requests.len());
        for request in &requests {
            assert_eq!(request.header("authorization"), Some(login));
        }
        seen += requests.len();
    }
    bench.end().await;
}

async fn patterns_do_not_find_the_write_alias(product: Product) {
    let bench = Bench::new(product, "hidden", mapping()).await;
    let target = bench.prepare().await;
    let written = bench.write(&target, &[("1", 1, Some("{}"))]).await;
    assert_eq!(written, [Outcome::Done]);
    bench.request("POST", "/_refresh", Value::Null).await;
    let shards = async |path: &str| {
        let (_, counted) = bench.request("GET", path, Value::Null).await;
        counted["_shards"]["total"].as_u64().expect("is counted")
    };
    assert_eq!(shards(".driftless/_count").await, 1, "by its name it is found");
    assert_eq!(shards(".drift*/_count").await, 0);
    bench.end().await;
}

async fn rule_14_an_index_with_too_many_fields_is_nobodys_document(product: Product) {
    let mut description = mapping();
    description["settings"] = json!({"index.mapping.total_fields.limit": 7});
    let bench = Bench::new(product, "full", description).await;
    let target = bench.prepare().await;
    let operations = [("1", 1, Some(r#"{"a":1,"b":2,"c":3}"#)), ("2", 1, Some(r#"{"n":2}"#))];
    let outcomes = bench.write(&target, &operations).await;
    assert!(is_blocked(&outcomes[0]) && outcomes[1] == Outcome::Done, "{outcomes:?}");
    assert!(format!("{outcomes:?}").contains("Limit of total fields [7]"), "{outcomes:?}");
    let settings = json!({"index.mapping.total_fields.limit": 20});
    assert_eq!(bench.request("PUT", "/_settings", settings).await.0, 200);
    assert_eq!(bench.write(&target, &operations).await, [Outcome::Done, Outcome::Done]);
    bench.end().await;
}

/// One without processors, which is all that every test node can run.
async fn a_pipeline_of_the_cluster_is_found_and_run(product: Product) {
    let bench = Bench::new(product, "pipeline", mapping()).await;
    let name = crate::support::unique("empty");
    let node = servers::search(product);
    let path = format!("/_ingest/pipeline/{name}");
    assert!(!bench.sink.has_pipeline(&name).await.expect("answers"));
    node.ok("PUT", &path, Some(json!({"processors": []}))).await;
    assert!(bench.sink.runs_pipelines() && bench.sink.has_pipeline(&name).await.expect("answers"));
    let settings = json!({"index.default_pipeline": name});
    assert_eq!(bench.request("PUT", "/_settings", settings).await.0, 200);
    let target = Target { runs_pipeline: true, ..bench.prepare().await };
    assert_eq!(target.default_pipeline.as_deref(), Some(name.as_str()));
    let outcomes = bench.write(&target, &[("1", 1, Some("{}")), ("2", 1, None)]).await;
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);
    bench.end().await;
    node.ok("DELETE", &path, None).await;
}

fn status_line(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Because\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// A server before the node: `answer` looks at each body and may answer itself. Counts the requests that went through.
fn proxy(
    url: &str,
    answer: impl Fn(&[u8]) -> Option<String> + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let node =
        url.strip_prefix("http://").expect("a plain address").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let passed = Arc::new(AtomicUsize::new(0));
    let (counter, answer) = (passed.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (node, counter, answer) = (node.clone(), counter.clone(), answer.clone());
            std::thread::spawn(move || {
                while let Some((head, body)) = read_message(&client) {
                    let reply = answer(&body).map(String::into_bytes).unwrap_or_else(|| {
                        counter.fetch_add(1, Ordering::SeqCst);
                        forward(&node, &head, &body)
                    });
                    (&client).write_all(&reply).expect("the client reads");
                }
            });
        }
    });
    (address, passed)
}

fn forward(node: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let mut server = TcpStream::connect(node).expect("the node listens");
    server.set_read_timeout(Some(Duration::from_secs(30))).expect("is set");
    server.write_all(head.as_bytes()).and_then(|()| server.write_all(body)).expect("is sent");
    let (head, body) = read_message(&server).expect("the node answers");
    [head.as_bytes(), &body].concat()
}

/// Head and body of a message with a content-length, or in chunks, which are left as they are; None at the end.
fn read_message(mut stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).expect("text");
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        while !body.ends_with(b"\r\n0\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            body.push(byte[0]);
        }
    }
    Some((head, body))
}
