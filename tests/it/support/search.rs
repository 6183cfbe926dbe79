//! A thin client of OpenSearch and Elasticsearch for tests: what is in an index, by `_id`. Knows nothing of Driftless.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What a search node is. Tests describe indexes in the words of OpenSearch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    OpenSearch,
    Elasticsearch,
}

impl Product {
    /// As `sink.type` says it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::OpenSearch => "opensearch",
            Self::Elasticsearch => "elasticsearch",
        }
    }

    /// The body that makes an index, as this product takes it.
    pub fn description(self, mut body: Value) -> Value {
        if self == Self::Elasticsearch {
            translate(&mut body);
        }
        body
    }

    /// A search for the documents whose vector is nearest.
    pub fn nearest(self, field: &str, vector: &[f64], count: usize) -> Value {
        match self {
            Self::OpenSearch => {
                json!({"query": {"knn": {field: {"vector": vector, "k": count}}}, "size": count})
            }
            Self::Elasticsearch => json!({"knn": {"field": field, "query_vector": vector,
                "k": count, "num_candidates": 10 * count}, "size": count}),
        }
    }
}

/// `knn_vector` is `dense_vector` there, its dimension `dims`, and there is no switch for the whole index.
fn translate(value: &mut Value) {
    let Value::Object(object) = value else { return };
    object.remove("knn");
    if object.get("type").is_some_and(|kind| kind == "knn_vector") {
        let dimension = object["dimension"].take();
        *object = Map::from_iter([
            ("type".to_owned(), json!("dense_vector")),
            ("dims".to_owned(), dimension),
        ]);
    }
    object.values_mut().for_each(translate);
}

/// One search node.
#[derive(Debug, Clone)]
pub struct Search {
    product: Product,
    http: reqwest::Client,
    url: String,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Doc {
    pub version: u64,
    pub source: Value,
}

impl Search {
    /// An OpenSearch, or what answers as one.
    pub fn at(url: &str) -> Self {
        Self::of(Product::OpenSearch, url)
    }

    pub fn of(product: Product, url: &str) -> Self {
        Self { product, http: super::http_client(), url: url.trim_end_matches('/').to_owned() }
    }

    pub fn product(&self) -> Product {
        self.product
    }

    /// `http://host:port`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("test nodes speak plain http")
    }

    /// Makes an index with these field mappings, and gives its name, which no other test has.
    pub async fn index(&self, prefix: &str, body: Value) -> String {
        let name = super::unique(prefix);
        self.create_index(&name, body).await;
        name
    }

    pub async fn create_index(&self, name: &str, body: Value) {
        self.ok("PUT", &format!("/{name}"), Some(self.product.description(body))).await;
    }

    pub async fn delete_index(&self, name: &str) {
        self.ok("DELETE", &format!("/{name}"), None).await;
    }

    pub async fn refresh(&self, index: &str) {
        self.ok("POST", &format!("/{index}/_refresh"), None).await;
    }

    /// Every document of an index or alias, by `_id`, after a refresh.
    pub async fn docs(&self, index: &str) -> BTreeMap<String, Doc> {
        self.refresh(index).await;
        let first =
            json!({"size": 1000, "version": true, "sort": ["_doc"], "query": {"match_all": {}}});
        let mut page = self.ok("POST", &format!("/{index}/_search?scroll=1m"), Some(first)).await;
        let mut docs = BTreeMap::new();
        loop {
            let hits = page["hits"]["hits"].as_array().expect("a search answer has hits");
            let scroll = page["_scroll_id"].clone();
            if hits.is_empty() {
                self.request("DELETE", "/_search/scroll", Some(json!({"scroll_id": scroll}))).await;
                return docs;
            }
            for hit in hits {
                let id = hit["_id"].as_str().expect("a hit has an _id").to_owned();
                let version = hit["_version"].as_u64().expect("a hit has a _version");
                docs.insert(id, Doc { version, source: hit["_source"].clone() });
            }
            let next = json!({"scroll": "1m", "scroll_id": scroll});
            page = self.ok("POST", "/_search/scroll", Some(next)).await;
        }
    }

    /// One document, as it is now, refreshed or not.
    pub async fn doc(&self, index: &str, id: &str) -> Option<Doc> {
        let path = format!("/{index}/_doc/{}", encoded(id));
        let (status, answer) = self.request("GET", &path, None).await;
        match status {
            200 => {
                let version = answer["_version"].as_u64().expect("a document has a _version");
                Some(Doc { version, source: answer["_source"].clone() })
            }
            404 => None,
            _ => panic!("GET {path}: {status} {answer}"),
        }
    }

    pub async fn count(&self, index: &str) -> u64 {
        self.refresh(index).await;
        let answer = self.ok("GET", &format!("/{index}/_count"), None).await;
        answer["count"].as_u64().expect("a count is a number")
    }

    /// The hits of a search: `[{"_id", "_score", "_source"}]`.
    pub async fn search(&self, index: &str, body: Value) -> Vec<Value> {
        let mut answer = self.ok("POST", &format!("/{index}/_search"), Some(body)).await;
        match answer["hits"]["hits"].take() {
            Value::Array(hits) => hits,
            other => panic!("a search answer has hits, not {other}"),
        }
    }

    /// A request that must succeed.
    pub async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.request(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// The same of a node that may be away.
    pub async fn try_request(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<(u16, Value)> {
        super::daemon::request(&self.http, method, &format!("{}{path}", self.url), body).await
    }

    /// Any request; an answer that is not JSON comes back as a string.
    pub async fn request(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.try_request(method, path, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }
}

/// Percent-encodes an `_id` for a path.
pub fn encoded(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                (byte as char).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
