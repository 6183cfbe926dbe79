//! The requests of the AutoETL tutorial, with nothing changed but endpoint, scheme and key, sent to whoever speaks the
//! search node's API: Driftless, or a real node with ml-commons.

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::search::Search;

/// Who is asked.
pub enum Door<'a> {
    Driftless(&'a Daemon),
    Node(&'a Search),
}

impl Door<'_> {
    /// A node that makes its own indexes at this moment, for another test, is asked again.
    async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        super::until(&format!("{method} {path} is answered"), super::SECONDS_30, async || {
            let (status, answer) = match self {
                Door::Driftless(daemon) => daemon.request(method, path, body.clone()).await,
                Door::Node(search) => search.request(method, path, body.clone()).await,
            };
            let is_beginning = status == 500 && answer.to_string().contains("all shards failed");
            assert!(status < 300 || is_beginning, "{method} {path}: {status} {answer}");
            if is_beginning { Err(answer.to_string()) } else { Ok(answer) }
        })
        .await
    }

    /// Steps 2 to 3d of the page; gives the model's id. `endpoint` is `host:port` of an OpenAI-compatible server.
    pub async fn deploy_model(&self, endpoint: &str) -> String {
        let settings = json!({"persistent": {"plugins.ml_commons.trusted_connector_endpoints_regex":
            ["^http://127\\.0\\.0\\.1:.*$"], "plugins.ml_commons.connector.private_ip_enabled": true}});
        self.ok("PUT", "/_cluster/settings", Some(settings)).await;
        let group = json!({"name": super::unique("test_model_group"), "description": "Model group for text embedding"});
        let group = self.ok("POST", "/_plugins/_ml/model_groups/_register", Some(group)).await;
        assert_eq!(group["status"], "CREATED");
        let connector = json!({
            "name": "qwen embedding connector",
            "description": "The connector to qwen embedding model",
            "version": 1,
            "protocol": "http",
            "parameters": {"model": "text-embedding-v4", "endpoint": endpoint},
            "credential": {"api_key": "sk-planted-secret"},
            "actions": [{
                "action_type": "predict",
                "method": "POST",
                "headers": {"Authorization": "Bearer ${credential.api_key}", "content-type": "application/json"},
                "url": "http://${parameters.endpoint}/v1/embeddings",
                "request_body": "{ \"model\": \"${parameters.model}\", \"input\": ${parameters.input} }",
                "pre_process_function": "connector.pre_process.openai.embedding",
                "post_process_function": "connector.post_process.openai.embedding"
            }]
        });
        let connector = self.ok("POST", "/_plugins/_ml/connectors/_create", Some(connector)).await;
        // The node counts models of one name in one document, and refuses two tests that do so at once.
        let model = json!({
            "name": super::unique("qwen embedding model"),
            "function_name": "remote",
            "description": "Embedding model",
            "connector_id": connector["connector_id"]
        });
        let model = self.ok("POST", "/_plugins/_ml/models/_register", Some(model)).await;
        let model_id = model["model_id"].as_str().expect("a model id").to_owned();
        let deployed =
            self.ok("POST", &format!("/_plugins/_ml/models/{model_id}/_deploy"), None).await;
        assert_eq!(deployed["status"], "COMPLETED");
        model_id
    }

    /// Step 3e.
    pub async fn predict(&self, model_id: &str, text: &str) -> Value {
        let body = json!({"parameters": {"input": [text]}});
        self.ok("POST", &format!("/_plugins/_ml/models/{model_id}/_predict"), Some(body)).await
    }

    /// Step 4a: a pipeline that embeds `my_text` as `my_vector`.
    pub async fn make_pipeline(&self, name: &str, model_id: &str) {
        let body = json!({
            "description": "A text embedding pipeline",
            "processors": [{"text_embedding": {"model_id": model_id, "field_map": {"my_text": "my_vector"}}}]
        });
        self.ok("PUT", &format!("/_ingest/pipeline/{name}"), Some(body)).await;
    }
}

/// Step 4c: the index's body. The page's engine is faiss, whose native code a test node lacks; only that differs, and
/// the dimension is the stand-in's.
pub fn index_body(pipeline: &str) -> Value {
    json!({
        "settings": {"index": {"knn": true, "default_pipeline": pipeline}},
        "mappings": {"properties": {
            "id": {"type": "integer"},
            "my_text": {"type": "text"},
            "my_vector": {"type": "knn_vector", "dimension": 4, "method": {"engine": "lucene", "name": "hnsw"}}
        }}
    })
}

/// Step 4d: the statement.
pub fn sync_by_map(index: &str, db: &str) -> String {
    format!(
        "call dbms_etl.sync_by_map(\n  \"search\",\n  \
         \"{index}.my_text({db}.test_table.t2),{index}.id({db}.test_table.id)\",\n  \
         \"{index}.id={db}.test_table.id\",\n  \"\",\n  \"\"\n);"
    )
}
