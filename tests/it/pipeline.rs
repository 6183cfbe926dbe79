//! The emulated pipeline against an endpoint that speaks true HTTP: the tutorial's requests, the recorded answers, every
//! misbehaviour of an endpoint, and what becomes of a batch. Needs no server.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use driftless::{
    document::{Action, Batch, DocOp, IdHasher},
    error::{Error, ErrorKind},
    pipeline::{Answer, Api, Config},
    position::Version,
    state::{SealingKey, State},
};
use serde_json::{Value, json};

use crate::support::model::{self, Behaviour, Model};

/// An emulator on a state directory of its own, and the endpoint it may call.
struct Bench {
    api: Api,
    model: Model,
    dir: tempfile::TempDir,
}

const KEY: &str = "sk-very-secret-0815";

impl Bench {
    async fn new() -> Self {
        Self::with(config()).await
    }

    async fn with(config: Config) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let bench = Self { api: open(dir.path(), config), model: Model::start().await, dir };
        bench.ok("PUT", "/_cluster/settings", trust("^http://127\\.0\\.0\\.1:.*$", true)).await;
        bench
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.api.handle(method, path, query, body.as_bytes()).await;
        assert!(!answer.body.to_string().contains(KEY), "{}", answer.body);
        answer
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.body
    }

    /// Registers a model whose endpoint is the stand-in, under this beginning of its path.
    async fn register(&self, prefix: &str) -> String {
        let connector = connector(&format!("{}{prefix}/v1/embeddings", self.model.url()));
        let id =
            self.ok("POST", "/_plugins/_ml/connectors/_create", connector).await["connector_id"]
                .clone();
        let model = json!({"name": "stub", "function_name": "remote", "connector_id": id});
        let answer = self.ok("POST", "/_plugins/_ml/models/_register?deploy=true", model).await;
        answer["model_id"].as_str().expect("an id").to_owned()
    }

    /// Defines the pipeline `p` with these options beside the model.
    async fn pipeline(&self, model_id: &str, mut options: Value) {
        options["model_id"] = json!(model_id);
        self.ok("PUT", "/_ingest/pipeline/p", json!({"processors": [{"text_embedding": options}]}))
            .await;
    }

    /// A pipeline `t → v` of a fresh model.
    async fn simple(&self) -> String {
        let id = self.register("").await;
        self.pipeline(&id, json!({"field_map": {"t": "v"}})).await;
        id
    }

    async fn run(&self, batch: &Batch) -> Result<Batch, Error> {
        self.run_while(batch, |_| true).await
    }

    async fn run_while(
        &self,
        batch: &Batch,
        wanted: impl Fn(&DocOp<'_>) -> bool + Send + Sync,
    ) -> Result<Batch, Error> {
        let dimensions = HashMap::from([("v".to_owned(), 4)]);
        let pipeline = self.api.pipeline("p").expect("it is defined");
        let running = pipeline.run(batch, &dimensions, &wanted);
        tokio::time::timeout(Duration::from_secs(20), running).await.expect("the run ends")
    }
}

fn open(dir: &std::path::Path, config: Config) -> Api {
    let state = State::open(dir, SealingKey::from_bytes([7; 32])).expect("opens");
    Api::new(state, config).expect("the catalog is read")
}

fn config() -> Config {
    Config { retry_wait_ms: 10, retry_wait_max_ms: 40, timeout_ms: 5_000, ..Config::default() }
}

fn trust(pattern: &str, private_ip: bool) -> Value {
    json!({"persistent": {
        "plugins.ml_commons.trusted_connector_endpoints_regex": [pattern],
        "plugins.ml_commons.connector.private_ip_enabled": private_ip
    }})
}

fn connector(url: &str) -> Value {
    json!({
        "name": "stub", "description": "OpenAI-compatible embeddings", "version": 1, "protocol": "http",
        "parameters": {"model": "text-embedding-3-small"},
        "credential": {"openAI_key": KEY},
        "actions": [{
            "action_type": "predict", "method": "POST", "url": url,
            "headers": {"Authorization": "Bearer ${credential.openAI_key}"},
            "request_body": "{ \"input\": ${parameters.input}, \"model\": \"${parameters.model}\" }",
            "pre_process_function": "connector.pre_process.openai.embedding",
            "post_process_function": "connector.post_process.openai.embedding"
        }]
    })
}

fn batch<'d>(documents: impl IntoIterator<Item = (&'d str, Value)>) -> Batch {
    let hash = IdHasher;
    let mut batch = Batch::default();
    for (at, (id, body)) in documents.into_iter().enumerate() {
        batch.upsert(id, hash.key(id), Version(at as u64 + 1), body.to_string().as_bytes());
    }
    batch
}

fn documents(batch: &Batch) -> Vec<(String, Value)> {
    let read =
        |op: DocOp<'_>| (op.id.to_owned(), serde_json::from_slice(op.body).unwrap_or_default());
    batch.iter().map(read).collect()
}

fn numbered(count: usize) -> Vec<(String, Value)> {
    (0..count).map(|at| (at.to_string(), json!({"t": format!("text {at}")}))).collect()
}

fn numbered_batch(count: usize) -> Batch {
    batch(numbered(count).iter().map(|(id, body)| (id.as_str(), body.clone())))
}

fn reason(answer: &Answer) -> &str {
    answer.body["error"]["reason"].as_str().unwrap_or_default()
}

// The requests of PolarDB's tutorial.

#[tokio::test]
async fn the_tutorials_requests_run_with_only_endpoint_scheme_and_key_changed() {
    let bench = Bench::with(config()).await;
    let endpoint = format!("127.0.0.1:{}", bench.model.port());
    let settings = json!({"persistent": {
        "plugins.ml_commons.trusted_connector_endpoints_regex": [format!("^http://{endpoint}.*$")]
    }});
    let answer = bench.ok("PUT", "_cluster/settings", settings).await;
    assert_eq!(answer["acknowledged"], true);

    let group =
        json!({"name": "test_model_group", "description": "Model group for text embedding"});
    let answer = bench.ok("POST", "_plugins/_ml/model_groups/_register", group).await;
    assert_eq!(answer["status"], "CREATED");
    assert_eq!(answer["model_group_id"].as_str().map(str::len), Some(20));

    let connector = json!({
        "name": "qwen embedding connector",
        "description": "The connector to qwen embedding model",
        "version": 1,
        "protocol": "http",
        "parameters": {"model": "text-embedding-v4", "endpoint": endpoint},
        "credential": {"api_key": KEY},
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
    let answer = bench.ok("POST", "_plugins/_ml/connectors/_create", connector).await;
    assert_eq!(answer.as_object().map(|answer| answer.len()), Some(1));

    let model = json!({
        "name": "qwen embedding model", "function_name": "remote", "description": "Embedding model",
        "connector_id": answer["connector_id"]
    });
    let answer = bench.ok("POST", "/_plugins/_ml/models/_register", model).await;
    assert_eq!(answer["status"], "CREATED");
    let model_id = answer["model_id"].as_str().expect("an id").to_owned();

    let answer =
        bench.ok("POST", &format!("_plugins/_ml/models/{model_id}/_deploy"), Value::Null).await;
    assert_eq!(
        (&answer["task_type"], &answer["status"]),
        (&json!("DEPLOY_MODEL"), &json!("COMPLETED"))
    );

    let expected = json!({"inference_results": [{"output": [{
        "name": "sentence_embedding", "data_type": "FLOAT32", "shape": [4], "data": model::vector("hello world", 4)
    }], "status_code": 200}]});
    for path in [
        format!("/models/{model_id}/_predict"),
        format!("/_predict/text_embedding/{model_id}/_predict"),
    ] {
        let body = json!({"parameters": {"input": ["hello world"]}});
        assert_eq!(bench.ok("POST", &format!("/_plugins/_ml{path}"), body).await, expected);
    }

    let pipeline = json!({
        "description": "A text embedding pipeline",
        "processors": [{"text_embedding": {"model_id": model_id, "field_map": {"my_text": "my_vector"}}}]
    });
    let answer = bench.ok("PUT", "/_ingest/pipeline/text_to_vec_pipeline", pipeline).await;
    assert_eq!(answer, json!({"acknowledged": true}));

    let rows = batch([
        ("1", json!({"my_text": "aaa", "id": 1})),
        ("2", json!({"my_text": null, "id": 2})),
    ]);
    let pipeline = bench.api.pipeline("text_to_vec_pipeline").expect("it is defined");
    let dimensions = HashMap::from([("my_vector".to_owned(), 4)]);
    let done = pipeline.run(&rows, &dimensions, &|_| true).await.expect("it runs");
    assert_eq!(
        documents(&done),
        [
            (
                "1".to_owned(),
                json!({"my_text": "aaa", "id": 1, "my_vector": model::vector("aaa", 4)})
            ),
            ("2".to_owned(), json!({"my_text": null, "id": 2})),
        ]
    );
    let seen = bench.model.requests();
    let last = seen.last().expect("it was asked");
    assert_eq!(last.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(last.headers["content-type"], "application/json");
    assert_eq!(last.body, r#"{ "model": "text-embedding-v4", "input": ["aaa"] }"#);
}

// Answers as they were recorded from a 2.19.1 node.

#[tokio::test]
async fn settings_are_answered_as_recorded() {
    let bench = Bench::new().await;
    let regex = "plugins.ml_commons.trusted_connector_endpoints_regex";
    let nested = json!({
        "persistent": {"plugins": {"ml_commons": {"connector": {"private_ip_enabled": "false"}}}},
        "transient": {regex: "^a$"}
    });
    let answer = bench.ok("PUT", "/_cluster/settings", nested).await;
    assert_eq!(
        answer,
        json!({
            "acknowledged": true,
            "persistent": {"plugins": {"ml_commons": {"connector": {"private_ip_enabled": "false"}}}},
            "transient": {"plugins": {"ml_commons": {"trusted_connector_endpoints_regex": "^a$"}}}
        })
    );
    let flat = bench.ok("GET", "/_cluster/settings?flat_settings=true", Value::Null).await;
    assert_eq!(flat["transient"], json!({regex: "^a$"}));
    let faults = [
        (
            json!({"persistent": {"plugins.ml_commons.foo": 1}}),
            "persistent setting [plugins.ml_commons.foo], not recognized",
        ),
        (json!({"transient": {"foo": {"bar": 1}}}), "transient setting [foo.bar], not recognized"),
        (json!({}), "Validation Failed: 1: no settings to update;"),
        (Value::Null, "request body is required"),
        (
            json!({"persistent": {"plugins.ml_commons.connector.private_ip_enabled": "maybe"}}),
            "Failed to parse value [maybe] as only [true] or [false] are allowed.",
        ),
    ];
    for (body, sentence) in faults {
        let answer = bench.call("PUT", "/_cluster/settings", body).await;
        assert_eq!((answer.status, reason(&answer)), (400, sentence));
    }
    let answer = bench.call("PUT", "/_cluster/settings", trust("([", true)).await;
    assert_eq!(answer.status, 400);
    let back = json!({"transient": {regex: null}});
    assert_eq!(bench.ok("PUT", "/_cluster/settings", back).await["transient"], json!({}));
}

#[tokio::test]
async fn faulty_connectors_are_refused_as_recorded() {
    let bench = Bench::new().await;
    let url = format!("{}/v1/embeddings", bench.model.url());
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 6] = [
        (|c| c["actions"] = Value::Null, "No actions configured for this connector"),
        (|c| c["name"] = Value::Null, "Connector name is null"),
        (|c| c["credential"] = Value::Null, "Connector credential is null or empty list"),
        (|c| c["protocol"] = json!("ftp"), "Can't find class for type ftp"),
        (
            |c| c["actions"][0]["url"] = json!("http://evil.example.com:80/v1/embeddings"),
            "Connector URL is not matching the trusted connector endpoint regex, URL is: http://evil.example.com:80/v1/embeddings",
        ),
        (
            |c| c["actions"][0]["url"] = json!("http://evil.example.com/${credential.openAI_key}"),
            "Connector URL is not matching the trusted connector endpoint regex, URL is: http://evil.example.com/${credential.openAI_key}",
        ),
    ];
    for (change, sentence) in cases {
        let mut body = connector(&url);
        change(&mut body);
        let answer = bench.call("POST", "/_plugins/_ml/connectors/_create", body).await;
        let error = json!({"type": "illegal_argument_exception", "reason": sentence});
        let expected = json!({"root_cause": [error], "type": error["type"], "reason": sentence});
        assert_eq!((answer.status, answer.body), (400, json!({"error": expected, "status": 400})));
    }
    let answer = bench.call("POST", "/_plugins/_ml/connectors/_create", Value::Null).await;
    assert_eq!((answer.status, reason(&answer)), (500, "Create Connector request has empty body"));
    let broken =
        bench.api.handle("POST", "/_plugins/_ml/connectors/_create", "", b"{\"name\":").await;
    assert_eq!(
        (broken.status, &broken.body["error"]["type"]),
        (400, &json!("json_e_o_f_exception"))
    );
    let answer = bench.call("GET", "/_plugins/_ml/connectors/nonesuch", Value::Null).await;
    let sentence = "Failed to find connector with the provided connector id: nonesuch";
    assert_eq!((answer.status, reason(&answer)), (404, sentence));
}

#[tokio::test]
async fn definitions_are_shown_as_recorded_and_without_credentials() {
    let bench = Bench::new().await;
    let group = bench
        .ok(
            "POST",
            "/_plugins/_ml/model_groups/_register",
            json!({"name": "g", "description": "d"}),
        )
        .await;
    let again =
        bench.call("POST", "/_plugins/_ml/model_groups/_register", json!({"name": "g"})).await;
    assert_eq!(again.status, 400);
    let group_id = group["model_group_id"].as_str().expect("an id");
    let url = format!("{}/v1/embeddings", bench.model.url());
    let made = bench.ok("POST", "/_plugins/_ml/connectors/_create", connector(&url)).await;
    let connector_id = made["connector_id"].as_str().expect("an id");
    let mut shown =
        bench.ok("GET", &format!("/_plugins/_ml/connectors/{connector_id}"), Value::Null).await;
    let times = [shown["created_time"].take(), shown["last_updated_time"].take()];
    assert!(times.iter().all(Value::is_u64));
    assert_eq!(
        shown.to_string(),
        json!({
            "name": "stub", "version": "1", "description": "OpenAI-compatible embeddings", "protocol": "http",
            "parameters": {"model": "text-embedding-3-small"},
            "actions": [{
                "action_type": "PREDICT", "method": "POST", "url": url,
                "headers": {"Authorization": "Bearer ${credential.openAI_key}"},
                "request_body": "{ \"input\": ${parameters.input}, \"model\": \"${parameters.model}\" }",
                "pre_process_function": "connector.pre_process.openai.embedding",
                "post_process_function": "connector.post_process.openai.embedding"
            }],
            "created_time": null, "last_updated_time": null
        })
        .to_string()
    );
    let model = json!({
        "name": "m-main", "function_name": "remote", "model_group_id": group_id, "description": "d",
        "connector_id": connector_id
    });
    let made = bench.ok("POST", "/_plugins/_ml/models/_register", model).await;
    let id = made["model_id"].as_str().expect("an id");
    let keys =
        |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>().join(" "));
    let path = format!("/_plugins/_ml/models/{id}");
    let registered = bench.ok("GET", &path, Value::Null).await;
    assert_eq!(registered["model_state"], "REGISTERED");
    assert_eq!(
        keys(&registered).as_deref(),
        Some(
            "name model_group_id algorithm model_version description model_state created_time last_updated_time is_hidden connector_id"
        )
    );
    bench.ok("POST", &format!("{path}/_deploy"), Value::Null).await;
    let deployed = bench.ok("GET", &path, Value::Null).await;
    assert_eq!(deployed["model_state"], "DEPLOYED");
    assert_eq!(
        keys(&deployed).as_deref(),
        Some(
            "name model_group_id algorithm model_version description model_state created_time last_updated_time \
             last_deployed_time auto_redeploy_retry_times planning_worker_node_count current_worker_node_count \
             planning_worker_nodes deploy_to_all_nodes is_hidden connector_id"
        )
    );
    let task = bench
        .ok(
            "GET",
            &format!("/_plugins/_ml/tasks/{}", made["task_id"].as_str().expect("an id")),
            Value::Null,
        )
        .await;
    assert_eq!(
        (&task["state"], &task["task_type"]),
        (&json!("COMPLETED"), &json!("REGISTER_MODEL"))
    );

    let answer = bench
        .call("DELETE", &format!("/_plugins/_ml/connectors/{connector_id}"), Value::Null)
        .await;
    let sentence = format!(
        "1 models are still using this connector, please delete or update the models first: [{id}]"
    );
    assert_eq!((answer.status, reason(&answer)), (409, sentence.as_str()));
    let answer = bench.call("DELETE", &path, Value::Null).await;
    let sentence = "Model cannot be deleted in deploying or deployed state. Try undeploy model first then delete";
    assert_eq!((answer.status, reason(&answer)), (400, sentence));
    bench.ok("POST", &format!("{path}/_undeploy"), Value::Null).await;
    assert_eq!(bench.ok("DELETE", &path, Value::Null).await["result"], "deleted");
    assert_eq!(bench.call("DELETE", &path, Value::Null).await.status, 404);
    bench.ok("DELETE", &format!("/_plugins/_ml/connectors/{connector_id}"), Value::Null).await;
}

#[tokio::test]
async fn faulty_models_are_refused_as_recorded() {
    let bench = Bench::new().await;
    let cases = [
        (
            json!({"name": "x", "function_name": "remote", "connector_id": "nonesuch"}),
            404,
            "Failed to find connector:nonesuch",
        ),
        (
            json!({"name": "x", "function_name": "remote", "connector_id": "c", "model_group_id": "nonesuch"}),
            500,
            "Model Group Response is empty for nonesuch",
        ),
        (
            json!({"name": "x", "function_name": "remote"}),
            400,
            "You must provide connector content when creating a remote model without connector id!",
        ),
        (json!({"function_name": "remote", "connector_id": "c"}), 400, "model name is null"),
    ];
    for (body, status, sentence) in cases {
        let answer = bench.call("POST", "/_plugins/_ml/models/_register", body).await;
        assert_eq!((answer.status, reason(&answer)), (status, sentence));
    }
    for (method, path, sentence) in [
        ("POST", "models/nonesuch/_deploy", "Failed to find model"),
        ("GET", "models/nonesuch", "Failed to find model with the provided model id: nonesuch"),
        ("GET", "tasks/nonesuch", "Failed to find task"),
        ("POST", "models/nonesuch/_predict", "Failed to find model"),
    ] {
        let body =
            if method == "POST" { json!({"parameters": {"input": ["a"]}}) } else { Value::Null };
        let answer = bench.call(method, &format!("/_plugins/_ml/{path}"), body).await;
        assert_eq!((answer.status, reason(&answer)), (404, sentence), "{path}");
    }
    let answer = bench.call("GET", "/_plugins/_ml/connectors/_create", Value::Null).await;
    let sentence = "Incorrect HTTP method for uri [/_plugins/_ml/connectors/_create] and method [GET], allowed: [POST]";
    assert_eq!((answer.status, answer.body), (405, json!({"error": sentence, "status": 405})));
    let answer = bench.call("POST", "/_plugins/_ml/nonsense", json!({})).await;
    let sentence = "no handler found for uri [/_plugins/_ml/nonsense] and method [POST]";
    assert_eq!((answer.status, answer.body), (400, json!({"error": sentence})));
}

#[tokio::test]
async fn pipelines_are_defined_and_refused_as_recorded() {
    let bench = Bench::new().await;
    let processor = |options: Value| json!({"processors": [{"text_embedding": options}]});
    let good = json!({"description": "d", "processors": [{"text_embedding": {"model_id": "nonesuch", "field_map": {"title": "v"}}}]});
    assert_eq!(
        bench.ok("PUT", "/_ingest/pipeline/p-text", good.clone()).await,
        json!({"acknowledged": true})
    );
    assert_eq!(
        bench.ok("GET", "/_ingest/pipeline/p-text", Value::Null).await,
        json!({"p-text": good})
    );
    assert_eq!(bench.ok("GET", "/_ingest/pipeline/p*", Value::Null).await, json!({"p-text": good}));
    let unknown = bench.call("GET", "/_ingest/pipeline/nonesuch", Value::Null).await;
    assert_eq!((unknown.status, unknown.body), (404, json!({})));
    let bad_map = "java.lang.IllegalArgumentException: Unable to create the processor as field_map has invalid key or value";
    let cases = [
        (
            processor(json!({"field_map": {"a": "b"}})),
            400,
            "[model_id] required property is missing",
        ),
        (processor(json!({"model_id": "m"})), 400, "[field_map] required property is missing"),
        (processor(json!({"model_id": "m", "field_map": {}})), 500, bad_map),
        (processor(json!({"model_id": "m", "field_map": {"a": null}})), 500, bad_map),
        (
            processor(json!({"model_id": "m", "field_map": "abc"})),
            400,
            "[field_map] property isn't a map, but of type [java.lang.String]",
        ),
        (
            processor(json!({"model_id": "m", "field_map": {"a": "b"}, "foo": 1})),
            400,
            "processor [text_embedding] doesn't support one or more provided configuration parameters [foo]",
        ),
        (
            processor(json!({"model_id": "m", "field_map": {"a": "b"}, "batch_size": 0})),
            400,
            "[batch_size] batch size must be a positive integer",
        ),
        (json!({"description": "x"}), 400, "[processors] required property is missing"),
        (
            json!({"processors": [], "foo": 1}),
            400,
            "pipeline [x] doesn't support one or more provided configuration parameters [foo]",
        ),
        (Value::Null, 400, "request body or source parameter is required"),
    ];
    for (body, status, sentence) in cases {
        let answer = bench.call("PUT", "/_ingest/pipeline/x", body).await;
        assert_eq!((answer.status, reason(&answer)), (status, sentence));
    }
    let answer =
        bench.call("PUT", "/_ingest/pipeline/x", json!({"processors": [{"nonesuch": {}}]})).await;
    assert_eq!((answer.status, &answer.body["error"]["processor_type"]), (400, &json!("nonesuch")));
    assert!(reason(&answer).starts_with("No processor type exists with name [nonesuch]"));
    assert!(reason(&answer).contains("[text_embedding]"));
    assert_eq!(
        bench.ok("DELETE", "/_ingest/pipeline/p-text", Value::Null).await,
        json!({"acknowledged": true})
    );
    let answer = bench.call("DELETE", "/_ingest/pipeline/p-text", Value::Null).await;
    assert_eq!((answer.status, reason(&answer)), (404, "pipeline [p-text] is missing"));
    assert!(bench.api.pipeline("p-text").is_none());
}

#[tokio::test]
async fn predictions_of_misbehaving_endpoints_are_answered_as_recorded() {
    let bench = Bench::new().await;
    let input = json!({"parameters": {"input": ["hello", "world"]}});
    let tensor = |text: &str, dimension: usize| json!({"name": "sentence_embedding", "data_type": "FLOAT32", "shape": [dimension], "data": model::vector(text, dimension)});
    let good =
        |output: Value| json!({"inference_results": [{"output": output, "status_code": 200}]});
    let remote = |status: u16| {
        format!(
            "Error from remote service: {}",
            json!({"error": {
                "message": format!("stub says {status}"), "type": "stub_error", "param": null, "code": status.to_string()
            }})
        )
    };
    for status in [429, 500, 503, 401, 400] {
        let id = bench.register(&format!("/s/{status}")).await;
        let answer =
            bench.call("POST", &format!("/_plugins/_ml/models/{id}/_predict"), input.clone()).await;
        assert_eq!((answer.status, reason(&answer)), (status, remote(status).as_str()));
    }
    for (prefix, expected) in [
        ("", good(json!([tensor("hello", 4), tensor("world", 4)]))),
        ("/short", good(json!([tensor("hello", 4)]))),
        ("/dim/8", good(json!([tensor("hello", 8), tensor("world", 8)]))),
        ("/empty", json!({"inference_results": [{"status_code": 200}]})),
    ] {
        let id = bench.register(prefix).await;
        assert_eq!(
            bench.ok("POST", &format!("/_plugins/_ml/models/{id}/_predict"), input.clone()).await,
            expected
        );
    }
    let id = bench.register("/garbage").await;
    let answer =
        bench.call("POST", &format!("/_plugins/_ml/models/{id}/_predict"), input.clone()).await;
    assert_eq!((answer.status, &answer.body["error"]["type"]), (500, &json!("m_l_exception")));
    let id = bench.register("/drop").await;
    let answer =
        bench.call("POST", &format!("/_plugins/_ml/models/{id}/_predict"), input.clone()).await;
    assert_eq!(answer.status, 500);
    assert!(
        reason(&answer).starts_with("Error communicating with remote model: "),
        "{}",
        reason(&answer)
    );

    let id = bench.register("").await;
    let texts = json!({"text_docs": ["hello", "world"], "return_number": true, "target_response": ["sentence_embedding"]});
    let answer =
        bench.ok("POST", &format!("/_plugins/_ml/_predict/text_embedding/{id}"), texts).await;
    assert_eq!(answer, good(json!([tensor("hello", 4), tensor("world", 4)])));
    let unfilled = "Invalid payload: { \"input\": ${parameters.input}, \"model\": \"text-embedding-3-small\" }";
    for body in [json!({"parameters": {}}), json!({"text_docs": ["hello"]})] {
        let answer = bench.call("POST", &format!("/_plugins/_ml/models/{id}/_predict"), body).await;
        assert_eq!((answer.status, reason(&answer)), (400, unfilled));
    }
    let answer =
        bench.call("POST", &format!("/_plugins/_ml/models/{id}/_predict"), Value::Null).await;
    assert_eq!((answer.status, reason(&answer)), (400, "request body is required"));
}

#[tokio::test]
async fn a_single_text_as_input_fits_quoted_and_unquoted_templates() {
    let bench = Bench::new().await;
    for template in ["{ \"input\": \"${parameters.input}\" }", "{ \"input\": ${parameters.input} }"]
    {
        let mut definition = connector(&format!("{}/v1/embeddings", bench.model.url()));
        definition["actions"][0]["request_body"] = json!(template);
        let inline = json!({"name": "m", "function_name": "remote", "connector": definition});
        let made = bench.ok("POST", "/_plugins/_ml/models/_register", inline).await;
        let path =
            format!("/_plugins/_ml/models/{}/_predict", made["model_id"].as_str().expect("an id"));
        let answer =
            bench.ok("POST", &path, json!({"parameters": {"input": "say \"hello\""}})).await;
        let data = &answer["inference_results"][0]["output"][0]["data"];
        assert_eq!(*data, json!(model::vector("say \"hello\"", 4)), "{template}");
    }
}

// Whom we call.

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    let bench = Bench::new().await;
    let id = bench.simple().await;
    let forbid = json!({"persistent": {"plugins.ml_commons.connector.private_ip_enabled": null}});
    bench.ok("PUT", "/_cluster/settings", forbid).await;
    let path = format!("/_plugins/_ml/models/{id}/_predict");
    let answer = bench.call("POST", &path, json!({"parameters": {"input": ["a"]}})).await;
    assert_eq!(
        (answer.status, reason(&answer)),
        (400, "Remote inference host name has private ip address: 127.0.0.1")
    );
    let error = bench.run(&numbered_batch(1)).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ModelRefused);
    assert!(error.report().contains("private_ip_enabled"), "{}", error.report());
    assert!(bench.model.requests().is_empty());
}

#[tokio::test]
async fn a_narrowed_regex_stops_the_next_request() {
    let bench = Bench::new().await;
    bench.simple().await;
    bench.run(&numbered_batch(1)).await.expect("allowed");
    bench.ok("PUT", "/_cluster/settings", trust("^https://elsewhere/.*$", true)).await;
    let error = bench.run(&numbered_batch(2)).await.expect_err("refused");
    assert!(error.report().contains("trusted"), "{}", error.report());
    assert_eq!(bench.model.requests().len(), 1);
}

// What becomes of a batch.

#[tokio::test]
async fn texts_of_many_rows_share_requests_and_the_order_is_kept() {
    let bench = Bench::new().await;
    bench.simple().await;
    let hash = IdHasher;
    let mut rows = numbered_batch(70);
    rows.delete("gone", hash.key("gone"), Version(1000));
    bench.model.behave(Behaviour::Backwards);
    let done = bench.run(&rows).await.expect("it runs");
    assert_eq!(bench.model.requests().iter().map(|seen| seen.inputs.len()).sum::<usize>(), 70);
    assert_eq!(bench.model.requests().len(), 3);
    assert_eq!(done.len(), 71);
    for (before, after) in rows.iter().zip(done.iter()) {
        assert_eq!(
            (before.id, before.key, before.version, before.action),
            (after.id, after.key, after.version, after.action)
        );
        if after.action == Action::Upsert {
            let text = format!("text {}", after.id);
            let body: Value = serde_json::from_slice(after.body).expect("JSON");
            assert_eq!(body, json!({"t": text, "v": model::vector(&text, 4)}));
        }
    }
}

#[tokio::test]
async fn a_request_holds_as_many_texts_as_connector_or_processor_say() {
    let bench = Bench::new().await;
    let mut definition = connector(&format!("{}/v1/embeddings", bench.model.url()));
    definition["parameters"]["input_docs_processed_step_size"] = json!(5);
    let inline = json!({"name": "m", "function_name": "remote", "connector": definition});
    let made = bench.ok("POST", "/_plugins/_ml/models/_register", inline).await;
    let id = made["model_id"].as_str().expect("an id");
    for (options, largest) in [
        (json!({"field_map": {"t": "v"}}), 5),
        (json!({"field_map": {"t": "v"}, "batch_size": 3}), 3),
    ] {
        bench.pipeline(id, options).await;
        bench.model.forget();
        let offset = largest * 100;
        let rows =
            (0..10).map(|at| (at.to_string(), json!({"t": format!("text {}", at + offset)})));
        let rows: Vec<_> = rows.collect();
        bench
            .run(&batch(rows.iter().map(|(id, body)| (id.as_str(), body.clone()))))
            .await
            .expect("it runs");
        assert_eq!(
            bench.model.requests().iter().map(|seen| seen.inputs.len()).max(),
            Some(largest)
        );
    }
}

#[tokio::test]
async fn equal_texts_are_asked_for_once() {
    let bench = Bench::new().await;
    bench.simple().await;
    let rows = batch([
        ("1", json!({"t": "same"})),
        ("2", json!({"t": "same"})),
        ("3", json!({"t": "other"})),
    ]);
    let first = bench.run(&rows).await.expect("it runs");
    assert_eq!(
        bench.model.requests().iter().flat_map(|seen| seen.inputs.clone()).collect::<Vec<_>>(),
        ["same", "other"]
    );
    let second = bench.run(&rows).await.expect("it runs");
    assert_eq!(documents(&first), documents(&second));
    assert_eq!(bench.model.requests().len(), 1);
}

#[tokio::test]
async fn a_changed_connector_never_meets_old_vectors() {
    let bench = Bench::new().await;
    let id = bench.simple().await;
    bench.run(&numbered_batch(1)).await.expect("it runs");
    let model = bench.ok("GET", &format!("/_plugins/_ml/models/{id}"), Value::Null).await;
    let path =
        format!("/_plugins/_ml/connectors/{}", model["connector_id"].as_str().expect("an id"));
    let answer = bench
        .ok(
            "PUT",
            &path,
            json!({"parameters": {"model": "another"}, "credential": {"openAI_key": "sk-new"}}),
        )
        .await;
    assert_eq!(answer["result"], "updated");
    bench.run(&numbered_batch(1)).await.expect("it runs");
    let seen = bench.model.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].headers["authorization"], "Bearer sk-new");
    assert!(seen[1].body.contains("another"));
}

#[tokio::test]
async fn placeholders_inside_documents_are_only_text() {
    let bench = Bench::new().await;
    bench.simple().await;
    let text = "a ${parameters.model} ${parameters.foo} ${credential.openAI_key} <b>&'=</b> \u{1} \\ \" 漢 😀";
    let done = bench.run(&batch([("1", json!({"t": text}))])).await.expect("it runs");
    assert_eq!(bench.model.requests()[0].inputs, [text]);
    assert_eq!(documents(&done)[0].1["v"], json!(model::vector(text, 4)));
}

#[tokio::test]
async fn the_rest_of_a_document_keeps_its_bytes() {
    let bench = Bench::new().await;
    bench.simple().await;
    let body = br#"{"n":1.10,"big":12345678901234567890.5000,"t":"x","j":{"a":[1, 2.0]}}"#;
    let mut rows = Batch::default();
    rows.upsert("1", 1, Version(1), body);
    rows.upsert("2", 2, Version(2), br#"{"t":"  ","n":2.50}"#);
    let done = bench.run(&rows).await.expect("it runs");
    let bodies: Vec<&str> =
        done.iter().map(|op| std::str::from_utf8(op.body).expect("UTF-8")).collect();
    let start = std::str::from_utf8(&body[..body.len() - 1]).expect("UTF-8");
    assert!(
        bodies[0].starts_with(start) && bodies[0][start.len()..].starts_with(",\"v\":["),
        "{}",
        bodies[0]
    );
    assert_eq!(bodies[1], r#"{"t":"  ","n":2.50}"#);
}

#[tokio::test]
async fn a_document_that_cannot_be_embedded_is_named_and_its_text_is_not() {
    let bench = Bench::new().await;
    bench.simple().await;
    let error = bench
        .run(&batch([("1", json!({"t": "fine"})), ("seven", json!({"t": 4711}))]))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::DocumentRefused);
    let report = error.report();
    assert!(
        report.contains("`seven`")
            && report.contains(
                "map type field [t] is neither string nor nested type, cannot process it"
            )
    );
    assert!(!report.contains("4711"), "{report}");
}

#[tokio::test]
async fn an_unknown_model_is_named_with_the_way_to_register_one() {
    let bench = Bench::new().await;
    bench.pipeline("nonesuch", json!({"field_map": {"t": "v"}})).await;
    let error = bench.run(&numbered_batch(1)).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ModelRefused);
    assert!(
        error.report().contains("nonesuch") && error.report().contains("models/_register"),
        "{}",
        error.report()
    );
    // Documents without a text need no model.
    assert_eq!(bench.run(&batch([("1", json!({"x": 1}))])).await.expect("it runs").len(), 1);
}

// Endpoints that misbehave.

#[tokio::test]
async fn busy_endpoints_are_asked_again_until_they_answer() {
    for (behaviour, tries) in [
        (Behaviour::Flaky(5, 500), 6),
        (Behaviour::Flaky(3, 503), 4),
        (Behaviour::Flaky(2, 429), 3),
        (Behaviour::Flaky(1, 408), 2),
    ] {
        let bench = Bench::new().await;
        bench.simple().await;
        bench.model.behave(behaviour.clone());
        let done = bench.run(&numbered_batch(2)).await.expect("it runs in the end");
        assert_eq!(documents(&done)[1].1["v"], json!(model::vector("text 1", 4)), "{behaviour:?}");
        assert_eq!(bench.model.requests().len(), tries, "{behaviour:?}");
    }
}

#[tokio::test]
async fn broken_connections_and_time_outs_are_asked_again() {
    for behaviour in [Behaviour::Drop, Behaviour::Slow(Duration::from_secs(5))] {
        let bench = Bench::with(Config { timeout_ms: 200, ..config() }).await;
        bench.simple().await;
        bench.model.behave(behaviour);
        let rows = numbered_batch(1);
        let mended = async {
            bench.model.seen(3).await;
            bench.model.behave(Behaviour::Fine);
        };
        let (done, ()) = tokio::join!(bench.run(&rows), mended);
        assert_eq!(done.expect("it runs in the end").len(), 1);
    }
}

#[tokio::test]
async fn the_patience_that_an_endpoint_asks_for_is_kept() {
    let bench = Bench::new().await;
    bench.simple().await;
    bench.model.behave(Behaviour::Status(429, Some(1)));
    let start = Instant::now();
    let rows = numbered_batch(1);
    let mended = async {
        bench.model.seen(1).await;
        bench.model.behave(Behaviour::Fine);
    };
    let (done, ()) = tokio::join!(bench.run(&rows), mended);
    done.expect("it runs in the end");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(bench.model.requests().len(), 2);
}

#[tokio::test]
async fn answers_that_are_not_what_was_asked_for_are_errors_after_some_tries() {
    for (behaviour, sentence) in [
        (Behaviour::TooFew, "expected 2 vectors, got 1"),
        (Behaviour::Empty, "expected 2 vectors, got 0"),
        (
            Behaviour::Dimension(8),
            "expected vectors of dimension 4 (the index's mapping says so), got 8",
        ),
        (Behaviour::NotJson, "expected an object with `data`, got no JSON"),
    ] {
        let bench = Bench::new().await;
        let id = bench.simple().await;
        bench.model.behave(behaviour);
        let error = bench.run(&numbered_batch(2)).await.expect_err(sentence);
        assert_eq!(error.kind(), ErrorKind::ModelAnswer);
        let report = error.report();
        for part in [sentence, id.as_str(), "`stub`", "document `0`"] {
            assert!(report.contains(part), "{report} lacks {part}");
        }
        assert_eq!(bench.model.requests().len(), 4);
    }
}

#[tokio::test]
async fn a_hiccup_of_an_answer_is_forgiven() {
    let bench = Bench::new().await;
    bench.simple().await;
    bench.model.behave(Behaviour::Once(Box::new(Behaviour::TooFew)));
    assert_eq!(bench.run(&numbered_batch(2)).await.expect("it runs in the end").len(), 2);
    assert_eq!(bench.model.requests().len(), 2);
}

#[tokio::test]
async fn the_one_text_that_a_model_refuses_is_found_among_many() {
    let bench = Bench::new().await;
    let id = bench.register("").await;
    bench.model.behave(Behaviour::Refuse("text 11".to_owned(), 400));
    bench.pipeline(&id, json!({"field_map": {"t": "v"}})).await;
    let error = bench.run(&numbered_batch(20)).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ModelRefused);
    assert!(error.report().contains("document `11`:"), "{}", error.report());
    assert!(
        error.report().contains("the endpoint answered 400: stub says 400"),
        "{}",
        error.report()
    );
    assert!(!error.report().contains("text 11"), "{}", error.report());

    bench.pipeline(&id, json!({"field_map": {"t": "v"}, "ignore_failure": true})).await;
    let done = documents(&bench.run(&numbered_batch(20)).await.expect("it runs"));
    assert_eq!(done.len(), 20);
    let without: Vec<&str> = done
        .iter()
        .filter(|(_, body)| body.get("v").is_none())
        .map(|(id, _)| id.as_str())
        .collect();
    assert_eq!(without, ["11"]);
}

#[tokio::test]
async fn secrets_and_texts_are_in_no_error() {
    let bench = Bench::new().await;
    let id = bench.simple().await;
    bench.model.behave(Behaviour::Echo);
    let error =
        bench.run(&batch([("1", json!({"t": "words of a row"}))])).await.expect_err("refused");
    let report = format!("{} {error:?}", error.report());
    assert!(report.contains("401") && report.contains("credential"), "{report}");
    assert!(!report.contains(KEY) && !report.contains("words of a row"), "{report}");
    // `call` looks for the key in every answer.
    let answer = bench
        .call(
            "POST",
            &format!("/_plugins/_ml/models/{id}/_predict"),
            json!({"parameters": {"input": ["a"]}}),
        )
        .await;
    assert_eq!(answer.status, 401);
    assert!(reason(&answer).contains("Bearer ***"), "{}", reason(&answer));
}

// Rule 6: a newer operation of a document cancels every waiting older one.

#[tokio::test]
async fn rule_6_a_newer_operation_cancels_one_that_waits_for_the_model() {
    for behaviour in [
        Behaviour::Status(503, None),
        Behaviour::Status(429, Some(600)),
        Behaviour::Slow(Duration::from_secs(60)),
        Behaviour::Drop,
    ] {
        let bench =
            Bench::with(Config { timeout_ms: 120_000, retry_wait_max_ms: 60_000, ..config() })
                .await;
        bench.simple().await;
        bench.model.behave(behaviour.clone());
        let hash = IdHasher;
        let mut rows = numbered_batch(3);
        rows.delete("gone", hash.key("gone"), Version(9));
        let superseded = AtomicBool::new(false);
        let cancelled = async {
            bench.model.seen(1).await;
            superseded.store(true, Ordering::SeqCst);
            Instant::now()
        };
        let wanted = |_: &DocOp<'_>| !superseded.load(Ordering::SeqCst);
        let (done, since) = tokio::join!(bench.run_while(&rows, wanted), cancelled);
        assert!(
            since.elapsed() < Duration::from_millis(250),
            "{behaviour:?} took {:?}",
            since.elapsed()
        );
        let left: Vec<String> =
            documents(&done.expect("it runs")).into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, ["gone"], "{behaviour:?}");
    }
}

#[tokio::test]
async fn rule_6_a_cancelled_operation_is_not_asked_for_again() {
    let bench = Bench::new().await;
    bench.simple().await;
    bench.model.behave(Behaviour::Flaky(1, 503));
    // Document 0 is overtaken while the first try is under way, which the endpoint fails.
    let wanted = |op: &DocOp<'_>| op.id != "0" || bench.model.requests().is_empty();
    let done = bench.run_while(&numbered_batch(3), wanted).await.expect("it runs");
    let left: Vec<String> = documents(&done).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, ["1", "2"]);
    let asked: Vec<_> = bench.model.requests().into_iter().map(|seen| seen.inputs).collect();
    assert_eq!(asked, [vec!["text 0", "text 1", "text 2"], vec!["text 1", "text 2"]]);
}

#[tokio::test]
async fn rule_6_the_failure_of_a_cancelled_operation_hurts_nobody() {
    let bench = Bench::new().await;
    bench.simple().await;
    bench.model.behave(Behaviour::Refuse("text 1".to_owned(), 400));
    let asked = AtomicBool::new(false);
    let wanted = |op: &DocOp<'_>| {
        // Document 1 is overtaken as soon as its text was sent.
        asked.fetch_or(!bench.model.requests().is_empty(), Ordering::SeqCst);
        !(op.id == "1" && asked.load(Ordering::SeqCst))
    };
    let done = bench.run_while(&numbered_batch(4), wanted).await.expect("it runs");
    let left: Vec<String> = documents(&done).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, ["0", "2", "3"]);
}

// State.

#[tokio::test]
async fn definitions_outlive_a_restart_and_credentials_lie_nowhere_in_the_clear() {
    let bench = Bench::new().await;
    bench.simple().await;
    let Bench { api, model, dir } = bench;
    drop(api);
    let bench = Bench { api: open(dir.path(), config()), model, dir };
    let done = bench.run(&numbered_batch(1)).await.expect("it runs");
    assert_eq!(documents(&done)[0].1["v"], json!(model::vector("text 0", 4)));
    assert_eq!(bench.model.requests()[0].headers["authorization"], format!("Bearer {KEY}"));
    let mut directories = vec![bench.dir.path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("reads").flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            assert!(
                !bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()),
                "{:?}",
                entry.path()
            );
        }
    }
}

#[tokio::test]
async fn a_later_definition_is_picked_up_by_the_next_call() {
    let bench = Bench::new().await;
    let id = bench.simple().await;
    let before = bench.api.pipeline("p").expect("it is defined");
    bench.pipeline(&id, json!({"field_map": {"t": "w"}})).await;
    let after = bench.api.pipeline("p").expect("it is defined");
    let rows = numbered_batch(1);
    let key_of = async |pipeline: &driftless::pipeline::Pipeline| {
        let done = pipeline.run(&rows, &HashMap::new(), &|_| true).await.expect("it runs");
        documents(&done)[0].1.as_object().expect("an object").keys().next_back().cloned()
    };
    assert_eq!(key_of(&before).await.as_deref(), Some("v"));
    assert_eq!(key_of(&after).await.as_deref(), Some("w"));
}

#[tokio::test]
async fn the_built_in_model_needs_no_registration_and_no_endpoint() {
    let bench = Bench::new().await;
    bench.pipeline("hashing-16", json!({"field_map": {"t": "v"}})).await;
    let texts = ["red shirt", "rot shirt", "数据库同步", " ", "x"];
    let ids: Vec<String> = (0..texts.len()).map(|at| at.to_string()).collect();
    let documents_in = || {
        let body = |text: &&str| json!({"t": text});
        batch(ids.iter().map(String::as_str).zip(texts.iter().map(body)))
    };
    let pipeline = bench.api.pipeline("p").expect("it is defined");
    pipeline.check_models().expect("the model is there");
    let dimensions = HashMap::from([("v".to_owned(), 16)]);
    let done = pipeline.run(&documents_in(), &dimensions, &|_| true).await.expect("runs");
    let done = documents(&done);
    let asked = json!({"parameters": {"input": ["red shirt", "rot shirt"]}});
    let path = "/_plugins/_ml/models/hashing-16/_predict";
    let answer = bench.ok("POST", path, asked).await;
    let output = answer["inference_results"][0]["output"].as_array().expect("a list").clone();
    for (at, tensor) in output.iter().enumerate() {
        assert_eq!(tensor["name"], "sentence_embedding");
        assert_eq!((&tensor["data_type"], &tensor["shape"]), (&json!("FLOAT32"), &json!([16])));
        assert_eq!(tensor["data"], done[at].1["v"]);
    }
    assert_eq!((output.len(), &answer["inference_results"][0]["status_code"]), (2, &json!(200)));
    assert!(done[3].1.get("v").is_none() && done[4].1["v"].is_array(), "{done:?}");
    let single = bench.ok("POST", path, json!({"parameters": {"input": "red shirt"}})).await;
    assert_eq!(single["inference_results"][0]["output"][0], output[0]);
    let path = "/_plugins/_ml/_predict/text_embedding/hashing-16";
    let texts = bench.ok("POST", path, json!({"text_docs": ["rot shirt"]})).await;
    assert_eq!(texts["inference_results"][0]["output"][0], output[1]);

    let wrong = HashMap::from([("v".to_owned(), 32)]);
    let error = pipeline.run(&documents_in(), &wrong, &|_| true).await.expect_err("refused");
    assert!(error.report().contains("write model_id hashing-32"), "{}", error.report());
    assert!(bench.model.requests().is_empty(), "no endpoint is asked");
}

#[tokio::test]
async fn the_built_in_model_is_shown_and_can_be_neither_removed_nor_replaced() {
    let bench = Bench::new().await;
    let models = "/_plugins/_ml/models";
    let shown = bench.ok("GET", &format!("{models}/hashing"), Value::Null).await;
    assert_eq!((&shown["name"], &shown["model_state"]), (&json!("hashing"), &json!("DEPLOYED")));
    assert_eq!(shown["model_config"]["embedding_dimension"], 384);
    let deployed = bench.ok("POST", &format!("{models}/hashing-64/_deploy"), Value::Null).await;
    assert_eq!(deployed["status"], "COMPLETED");
    let task = format!("/_plugins/_ml/tasks/{}", deployed["task_id"].as_str().expect("an id"));
    assert_eq!(bench.ok("GET", &task, Value::Null).await["model_id"], "hashing-64");
    let named = json!({"name": "hashing-64", "function_name": "remote", "connector_id": "x"});
    let blank = json!({"parameters": {"input": ["a", " "]}});
    for (method, path, body, sentence) in [
        ("DELETE", "hashing", Value::Null, "is built in"),
        ("POST", "hashing-64/_undeploy", Value::Null, "is built in"),
        ("POST", "_register", named, "needs no registration"),
        ("GET", "hashing-8", Value::Null, "a dimension N from 16 to 4096"),
        ("POST", "hashing-9999/_deploy", Value::Null, "a dimension N from 16 to 4096"),
        ("POST", "hashing/_predict", blank, "a blank text has no vector"),
        ("POST", "hashing/_predict", json!({"parameters": {"input": [1]}}), "a list of texts"),
        ("POST", "hashing/_predict", json!({"parameters": {}}), "not filled in payload: input"),
    ] {
        let answer = bench.call(method, &format!("{models}/{path}"), body).await;
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.body);
        assert!(reason(&answer).contains(sentence), "{}", answer.body);
    }
    bench.pipeline("hashing-8", json!({"field_map": {"t": "v"}})).await;
    let error = bench.api.pipeline("p").expect("defined").check_models().expect_err("refused");
    assert!(error.report().contains("from 16 to 4096"), "{}", error.report());
}
