//! What a user would ask of the daemon, asked at its HTTP door: a pipeline, an index, a link, and how far it is. Knows no
//! MySQL.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::net::http::{self, Options, Side};

pub(super) const PIPELINE_SAID: &str = "PUT /_ingest/pipeline/shop: vectors of name and description, by the built-in model hashing-256";
pub(super) const INDEX_SAID: &str =
    "PUT /products: text, keyword, numbers, a date, vectors; default_pipeline shop";

pub(super) const STATEMENT: &str = r#"CALL dbms_etl.sync_by_map("search",
  "products.name(driftless_shop.products.name),
   products.description(driftless_shop.products.description),
   products.category(driftless_shop.products.category),
   products.price(driftless_shop.products.price),
   products.stock(driftless_shop.products.stock),
   products.updated_at(driftless_shop.products.updated_at)",
  "products.id=driftless_shop.products.id", "", "")"#;

/// For one request; making a link asks the source.
const PATIENCE: Duration = Duration::from_secs(30);
/// For the copy of all rows.
const COPY_MAX: Duration = Duration::from_secs(60);
const COPY_LOOK: Duration = Duration::from_millis(20);

pub(super) struct Door {
    client: Client,
    address: String,
}

impl Door {
    pub fn at(listen: SocketAddr) -> Result<Self> {
        let client = http::client(Options { timeout: PATIENCE, ..Options::default() })?;
        Ok(Self { client, address: format!("http://{listen}") })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub async fn make_pipeline(&self) -> Result<()> {
        let body = json!({
            "description": "Vectors of products, of their names and descriptions",
            "processors": [{"text_embedding": {
                "model_id": "hashing-256",
                "field_map": {"name": "name_vector", "description": "description_vector"},
            }}],
        });
        self.ask(Method::PUT, "/_ingest/pipeline/shop", Some(body)).await.map(|_| ())
    }

    pub async fn make_index(&self) -> Result<()> {
        let vector = json!({"type": "knn_vector", "dimension": 256,
            "method": {"name": "hnsw", "space_type": "cosinesimil"}});
        let body = json!({
            "settings": {"index": {"knn": true, "default_pipeline": "shop"}},
            "mappings": {"properties": {
                "name": {"type": "text"},
                "description": {"type": "text"},
                "category": {"type": "keyword"},
                "price": {"type": "double"},
                "stock": {"type": "integer"},
                "updated_at": {"type": "date"},
                "name_vector": vector,
                "description_vector": vector,
            }},
        });
        self.ask(Method::PUT, "/products", Some(body)).await.map(|_| ())
    }

    pub async fn make_link(&self) -> Result<()> {
        let body = json!({ "query": STATEMENT });
        self.ask(Method::POST, "/_sql", Some(body)).await.map(|_| ())
    }

    /// Waits until the link has copied so many rows and follows the log.
    pub async fn until_copied(&self, rows: u32) -> Result<()> {
        let began = Instant::now();
        loop {
            let link = self.ask(Method::GET, "/_links", None).await?["links"][0].take();
            let count = self.ask(Method::GET, "/products/_count", None).await?["count"].take();
            if link["state"] == "running" && count.as_u64() >= Some(u64::from(rows)) {
                return Ok(());
            }
            let is_too_long = began.elapsed() > COPY_MAX;
            if link["state"] == "failed" || is_too_long {
                let reason = link["errors"].as_str().filter(|reason| !reason.is_empty());
                let reason = reason.unwrap_or("it takes too long");
                let what =
                    format!("the link is {}: {reason}", link["state"].as_str().unwrap_or("away"));
                return Err(Error::new(ErrorKind::Io, what));
            }
            tokio::time::sleep(COPY_LOOK).await;
        }
    }

    /// One request; anything but success is an error with the door's own words.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let tried = format!("{method} {path}");
        let mut request = self.client.request(method, format!("{}{path}", self.address));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let failed = |cause| http::error(Side::Sink, &tried, &cause, PATIENCE);
        let answer = request.send().await.map_err(failed)?;
        let is_ok = answer.status().is_success();
        let text = answer.text().await.map_err(failed)?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if is_ok {
            return Ok(answer);
        }
        let reason = answer["error"]["reason"].as_str().unwrap_or(&text);
        let error = Error::input(format!("{tried}: {reason}"));
        Err(match answer["error"]["advice"].as_str() {
            Some(advice) => error.with_advice(advice),
            None => error,
        })
    }
}
