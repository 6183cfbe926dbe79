//! The door's locks from outside: tokens and roles, TLS and certificates, limits, and that no secret is ever shown. Real
//! daemons, real sockets; certificates are made here. `docs/security.md` is what this holds to its word.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftless::sink;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Client, Identity};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::browser::{Browser, ENTER};
use crate::support::daemon::{Daemon, Setup, driftless};
use crate::support::model::{Behaviour, Model};
use crate::support::proxy::Proxy;
use crate::support::servers::{self, Flavour};
use crate::support::{
    MINUTES_2, SECONDS_10, SECONDS_30, http_client, http_client_builder, unique, until,
};

const READ: &str = "read-planted-1a2b3c4d5e6f";
const OPERATE: &str = "operate-planted-1a2b3c4d5e6f";
const ADMIN: &str = "admin-planted-1a2b3c4d5e6f";

/// A token of each role, given in each way.
fn with_tokens(setup: Setup, folder: &TempDir) -> Setup {
    let file = folder.path().join("operate-token");
    std::fs::write(&file, format!("{OPERATE}\n")).expect("writes");
    let token = |role: &str, key: &str, value: &str| {
        let entry =
            [("role", role), (key, value)].map(|(key, value)| (key.to_owned(), value.into()));
        toml::Value::Table(entry.into_iter().collect())
    };
    setup.env("ADMIN_TOKEN", ADMIN).set(
        "http.tokens",
        vec![
            token("read", "token", READ),
            token("operate", "token_file", shown(&file)),
            token("admin", "token", "${ADMIN_TOKEN}"),
        ],
    )
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// One request: status, `WWW-Authenticate`, text.
async fn ask(
    client: &Client,
    login: Option<&str>,
    method: &str,
    url: &str,
    body: Option<Value>,
) -> reqwest::Result<(u16, Option<String>, String)> {
    let mut request = client.request(method.parse().expect("a method"), url);
    if let Some(login) = login {
        request = request.header("authorization", login);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await?;
    let challenge = answer.headers().get("www-authenticate");
    let challenge = challenge.map(|value| value.to_str().expect("a text").to_owned());
    Ok((answer.status().as_u16(), challenge, answer.text().await?))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn a_door_that_others_reach_is_not_opened_without_tokens_and_tls() {
    let folder = folder();
    let file = folder.path().join("driftless.toml");
    let said = |command: &str, http: &str| {
        let state = folder.path().join("state");
        let text = format!("state_dir = \"{}\"\n[http]\n{http}\n", state.display());
        std::fs::write(&file, text).expect("writes");
        let arguments = [command, "--config", shown(&file)];
        let output = driftless().args(arguments).stdin(Stdio::null()).output().expect("it runs");
        (output.status.code(), told(&output))
    };
    for command in ["check", "run"] {
        let (code, open) = said(command, "listen = \"0.0.0.0:0\"");
        assert_eq!(code, Some(64), "{command}: {open}");
        assert!(open.contains("anybody there could do everything"), "{open}");
        assert!(open.contains("[[http.tokens]]") && open.contains("driftless.toml:3:"), "{open}");
        let token = format!(
            "listen = \"0.0.0.0:0\"\n[[http.tokens]]\nrole = \"admin\"\ntoken = \"{ADMIN}\""
        );
        let (code, plain) = said(command, &token);
        assert_eq!(code, Some(64), "{command}: {plain}");
        assert!(plain.contains("TLS is off") && plain.contains("allow_plaintext"), "{plain}");
        assert!(!plain.contains(ADMIN), "{plain}");
    }
}

fn told(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

#[tokio::test]
async fn each_role_may_do_what_its_line_of_the_table_says() {
    let folder = folder();
    let daemon = with_tokens(Setup::alone(), &folder).start().await;
    let http = http_client();
    let url = |path: &str| format!("{}{path}", daemon.url());
    let sql = |text: &str| Some(json!({ "query": text }));
    // The least role for each; what then is wrong with the request is not the guard's affair.
    let requests = [
        ("GET", "/_links", None, 0),
        ("GET", "/metrics", None, 0),
        ("GET", "/", None, 0),
        ("POST", "/nowhere/_search", Some(json!({})), 0),
        ("GET", "/_cluster/settings", None, 0),
        ("POST", "/_sql", sql("CALL dbms_etl.show_sync_link()"), 0),
        ("POST", "/_sql", sql("SHOW DEAD LETTERS"), 0),
        ("POST", "/_sql", sql("this is no statement"), 0),
        ("POST", "/_sql", sql("PAUSE LINK nowhere"), 1),
        ("POST", "/_sql", sql("VERIFY LINK nowhere REPAIR"), 1),
        ("POST", "/_sql", sql("RESET LINK nowhere"), 1),
        ("POST", "/_refresh", None, 1),
        ("POST", "/_sql", sql("DROP LINK nowhere WITH INDEX"), 2),
        ("POST", "/_sql", sql("CALL dbms_etl.sync_by_table('search', 'a.b', 'c', '*')"), 2),
        ("PUT", "/_cluster/settings", Some(json!({"persistent": {}})), 2),
        ("PUT", "/made", Some(json!({})), 2),
        ("PUT", "/made/_doc/_search", Some(json!({"a": 1})), 2),
        ("POST", "/_plugins/_ml/connectors/_create", Some(json!({})), 2),
        ("GET", "/_plugins/_ml/connectors/c", None, 2),
    ];
    for (method, path, body, least) in requests {
        let what = format!("{method} {path} {}", body.clone().unwrap_or_default());
        for (rank, token) in [READ, OPERATE, ADMIN].into_iter().enumerate() {
            let login = bearer(token);
            let (status, _, text) =
                ask(&http, Some(&login), method, &url(path), body.clone()).await.expect("answers");
            assert_ne!(status, 401, "{what}: {text}");
            assert_eq!(status == 403, rank < least, "{what} with {token}: {status} {text}");
            if status == 403 {
                let needed = ["read", "operate", "admin"][least];
                assert!(text.contains(&format!("this needs the role `{needed}`")), "{text}");
            }
        }
        for login in [None, Some("Bearer not-one-of-ours-0123456789")] {
            let (status, challenge, text) =
                ask(&http, login, method, &url(path), body.clone()).await.expect("answers");
            assert_eq!(status, 401, "{what}: {text}");
            assert_eq!(challenge.as_deref(), Some("Bearer realm=\"driftless\""), "{what}");
            assert!(!text.contains("not-one-of-ours"), "{text}");
        }
    }
    for path in ["/healthz", "/readyz", "/ui", "/ui/page.js"] {
        let (status, _, text) = ask(&http, None, "GET", &url(path), None).await.expect("answers");
        assert_eq!(status, 200, "{path}: {text}");
    }
    let (_, _, metrics) =
        ask(&http, Some(&bearer(READ)), "GET", &url("/metrics"), None).await.expect("answers");
    for status in ["401", "403"] {
        let series = format!("driftless_http_refused_total{{status=\"{status}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series)).expect("is there");
        assert!(line.parse::<f64>().expect("a number") > 0.0, "{line}");
    }
}

#[tokio::test]
async fn search_clients_log_in_as_they_are_used_to() {
    let folder = folder();
    let daemon = with_tokens(Setup::alone(), &folder).start().await;
    let http = http_client();
    let encoded = |text: &str| STANDARD.encode(text);
    for (login, expected) in [
        (format!("Basic {}", encoded(&format!("anybody:{READ}"))), 200),
        (format!("ApiKey {}", encoded(&format!("id:{READ}"))), 200),
        (format!("ApiKey {READ}"), 200),
        (format!("Basic {}", encoded("anybody:wrong")), 401),
        (format!("Basic {}", encoded(READ)), 401),
    ] {
        let url = format!("{}/_links", daemon.url());
        let (status, _, text) = ask(&http, Some(&login), "GET", &url, None).await.expect("answers");
        assert_eq!(status, expected, "{login}: {text}");
    }
}

/// An authority of certificates, and the files of what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signs itself");
        let folder = folder();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("writes");
        Self { issuer, folder }
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Certificate and key in PEM.
    fn signed(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("good names");
        let certificate = params.signed_by(&key, &self.issuer).expect("is signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// The same as files.
    fn issue(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.signed(names);
        let at = |ending: &str| self.folder.path().join(format!("{file}.{ending}"));
        std::fs::write(at("key"), key).expect("writes");
        std::fs::write(at("pem"), certificate).expect("writes");
        (at("pem"), at("key"))
    }

    fn trusted(&self) -> reqwest::ClientBuilder {
        let authority = reqwest::Certificate::from_pem(self.issuer.pem().as_bytes());
        http_client_builder().tls_certs_only([authority.expect("a certificate")])
    }

    fn client(&self) -> Client {
        self.trusted().build().expect("a client")
    }

    /// A client that shows a certificate of `signer` for these names.
    fn client_as(&self, signer: &Self, names: &[&str]) -> Client {
        let (certificate, key) = signer.signed(names);
        let identity = Identity::from_pem(format!("{certificate}{key}").as_bytes());
        self.trusted().identity(identity.expect("an identity")).build().expect("a client")
    }
}

fn with_tls(setup: Setup, authority: &Authority) -> Setup {
    let (cert, key) = authority.issue("door", &["localhost", "127.0.0.1"]);
    setup.set("http.tls.cert_file", shown(&cert)).set("http.tls.key_file", shown(&key))
}

#[tokio::test]
async fn a_certificate_opens_the_door_as_far_as_its_name_goes() {
    let (folder, authority, other) = (folder(), Authority::new(), Authority::new());
    let client = |name: &str, role: &str| {
        let entry =
            [("name", name), ("role", role)].map(|(key, value)| (key.to_owned(), value.into()));
        toml::Value::Table(entry.into_iter().collect())
    };
    let setup = with_tls(with_tokens(Setup::alone(), &folder), &authority)
        .set("http.tls.client_ca_file", shown(&authority.ca_file()))
        .set("http.tls.clients", vec![client("ops.example", "operate"), client("*", "read")]);
    let daemon = setup.start().await;
    assert!(daemon.url().starts_with("https://"));
    let pause = json!({"query": "PAUSE LINK nowhere"});
    let drop = json!({"query": "DROP LINK nowhere"});
    let url = format!("{}/_sql", daemon.url());
    let status = async |client: &Client, login: Option<&str>, body: &Value| {
        ask(client, login, "POST", &url, Some(body.clone())).await.map(|(status, ..)| status).ok()
    };
    let ops = authority.client_as(&authority, &["x.example", "ops.example"]);
    assert_eq!(status(&ops, None, &pause).await, Some(404));
    assert_eq!(status(&ops, None, &drop).await, Some(403));
    let anybody = authority.client_as(&authority, &["y.example"]);
    assert_eq!(status(&anybody, None, &pause).await, Some(403));
    assert_eq!(status(&anybody, None, &json!({"query": "SHOW DEAD LETTERS"})).await, Some(200));
    // A token says more than the certificate, and a wrong one is not passed over.
    assert_eq!(status(&anybody, Some(&bearer(ADMIN)), &drop).await, Some(404));
    assert_eq!(status(&ops, Some(&bearer("wrong-0123456789abc")), &pause).await, Some(401));
    let nobody = authority.client();
    assert_eq!(status(&nobody, None, &pause).await, Some(401));
    assert_eq!(status(&nobody, Some(&bearer(OPERATE)), &pause).await, Some(404));
    // Of another authority: there is no connection at all, and neither for who trusts another one.
    let stranger = authority.client_as(&other, &["ops.example"]);
    assert_eq!(status(&stranger, None, &pause).await, None);
    assert_eq!(status(&other.client(), Some(&bearer(ADMIN)), &pause).await, None);
    let plain = daemon.url().replace("https://", "http://");
    assert!(ask(&http_client(), Some(&bearer(ADMIN)), "GET", &plain, None).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_without_a_restart() {
    let authority = Authority::new();
    let daemon = with_tls(Setup::alone(), &authority).start().await;
    let port = daemon.url().rsplit(':').next().expect("a port").to_owned();
    let answers = async |name: &str| {
        // A client of its own has no connection left from before.
        let url = format!("https://{name}:{port}/healthz");
        ask(&authority.client(), None, "GET", &url, None).await.is_ok()
    };
    assert!(answers("localhost").await);
    // What cannot be used is not taken up.
    std::fs::write(authority.folder.path().join("door.key"), "no key").expect("writes");
    until("the bad key is noticed", SECONDS_30, async || {
        daemon.log().contains("the renewed files cannot be used")
    })
    .await;
    assert!(answers("localhost").await);
    authority.issue("door", &["127.0.0.1"]);
    until("the new certificate is shown", SECONDS_30, async || !answers("localhost").await).await;
    assert!(answers("127.0.0.1").await);
}

#[tokio::test]
async fn the_command_line_shows_who_asks() {
    let (folder, authority) = (folder(), Authority::new());
    let daemon = with_tls(with_tokens(Setup::alone(), &folder), &authority).start().await;
    let token_file = folder.path().join("operate-token");
    let ca_file = authority.ca_file();
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = driftless();
        command.args(arguments).arg("--config").arg(daemon.config_path()).stdin(Stdio::null());
        command
            .env("ADMIN_TOKEN", ADMIN)
            .env_remove("DRIFTLESS_TOKEN")
            .env_remove("DRIFTLESS_ADDRESS");
        if let Some(token) = token {
            command.env("DRIFTLESS_TOKEN", token);
        }
        let output = command.output().expect("it runs");
        (output.status.code(), told(&output))
    };
    let ca = ["--ca-file", shown(&ca_file)];
    let with_file = ["--token-file", shown(&token_file)];
    let (code, text) = run(&[&["status"], &ca[..], &with_file[..]].concat(), None);
    assert_eq!((code, text.contains("no links")), (Some(0), true), "{text}");
    let (code, text) = run(&[&["status"], &ca[..]].concat(), Some(READ));
    assert_eq!((code, text.contains("no links")), (Some(0), true), "{text}");
    let (code, text) = run(&[&["sql", "DROP LINK a"], &ca[..], &with_file[..]].concat(), None);
    assert_eq!(
        (code, text.contains("needs the role `admin`; you have `operate`")),
        (Some(1), true),
        "{text}"
    );
    let (code, text) = run(&[&["verify", "a"], &ca[..]].concat(), None);
    assert_eq!((code, text.contains("--token-file")), (Some(1), true), "{text}");
    let (code, text) = run(&[&["status"], &ca[..]].concat(), Some("wrong-planted-0123456789"));
    assert_eq!(
        (code, text.contains("this token is none of this Driftless")),
        (Some(1), true),
        "{text}"
    );
    assert!(!text.contains("wrong-planted"), "{text}");
    let (code, text) = run(&["status"], Some(READ));
    assert_eq!((code, text.contains("--ca-file")), (Some(1), true), "{text}");
}

/// The page in a browser: it asks for a token, keeps it out of addresses, and shows the links.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_asks_for_a_token() {
    let folder = folder();
    let daemon = with_tokens(Setup::alone(), &folder).start().await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/ui", daemon.url())).await;
    let is_asked =
        async || browser.run("return !document.getElementById('login').hidden").await == true;
    until("the page asks", SECONDS_10, is_asked).await;
    browser.press("not-one-of-ours-0123".chars().chain([ENTER])).await;
    until("the page says no", SECONDS_10, async || {
        let said = browser.run("return document.getElementById('login-trouble').innerText").await;
        said.as_str().is_some_and(|said| said.contains("none of this Driftless"))
    })
    .await;
    browser.press(READ.chars().chain([ENTER])).await;
    until("the page shows what it is told", SECONDS_10, async || {
        browser.run("return document.getElementById('state').textContent").await == "no link"
    })
    .await;
    assert_eq!(browser.run("return document.getElementById('login').hidden").await, true);
    let address = browser.run("return location.href").await;
    assert!(!address.to_string().contains("planted"), "{address}");
    assert_eq!(browser.run("return document.cookie").await, "");
}

/// Everything that hides a secret, and everything that is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_a_log_an_answer_a_metric_or_a_file() {
    let (folder, authority) = (folder(), Authority::new());
    let mysql = servers::mysql(Flavour::Mysql97);
    let search = servers::opensearch();
    let model = Model::start().await;
    let user = unique("secrets");
    let source_password = "source-planted-9f8e7d6c";
    for sql in [
        format!("CREATE USER {user} IDENTIFIED BY '{source_password}'"),
        format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO {user}"),
    ] {
        mysql.exec(sql).await;
    }
    let db = mysql.database("secrets").await;
    mysql.exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, a VARCHAR(200))")).await;
    mysql.exec(format!("INSERT INTO {db}.t VALUES (1, 'one'), (2, 'two')")).await;
    let sealing_key = "5ea1ed00".repeat(8);
    let sealing_key = sealing_key.as_str();
    let setup = with_tls(with_tokens(Setup::new(&mysql, search.url()), &folder), &authority)
        .set("source.user", user.as_str())
        .set("source.password", "${SOURCE_PASSWORD}")
        .set("sink.user", "driftless")
        .set("sink.password", "sink-planted-9f8e7d6c")
        .env("SOURCE_PASSWORD", source_password)
        .env("DRIFTLESS_SECRET_KEY", sealing_key)
        .env("DRIFTLESS_LOG", "trace");
    let daemon = setup.start().await;
    let door_key =
        std::fs::read_to_string(authority.folder.path().join("door.key")).expect("reads");
    let door_key = door_key.lines().nth(1).expect("the key's first line").to_owned();
    let credential = "sk-planted-9f8e7d6c5b4a";
    let secrets = [
        source_password.to_owned(),
        "sink-planted-9f8e7d6c".to_owned(),
        STANDARD.encode("driftless:sink-planted-9f8e7d6c"),
        credential.to_owned(),
        READ.to_owned(),
        OPERATE.to_owned(),
        ADMIN.to_owned(),
        STANDARD.encode(format!("me:{READ}")),
        sealing_key.to_owned(),
        door_key,
        "wrong-planted".to_owned(),
    ];

    let http = authority.client();
    let mut seen = String::new();
    let admin = bearer(ADMIN);
    let mut asked = async |login: Option<&str>, method: &str, path: &str, body: Option<Value>| {
        let url = format!("{}{path}", daemon.url());
        let (status, _, text) = ask(&http, login, method, &url, body).await.expect("answers");
        seen.push_str(&text);
        (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let (status, said) = asked(
        Some(&admin),
        "PUT",
        "/_cluster/settings",
        Some(json!({"persistent": {
            "plugins.ml_commons.trusted_connector_endpoints_regex": ["^http://127\\.0\\.0\\.1:.*$"],
            "plugins.ml_commons.connector.private_ip_enabled": true}})),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    let connector = json!({
        "name": "stub", "version": 1, "protocol": "http", "parameters": {"model": "m"},
        "credential": {"key": credential},
        "actions": [{"action_type": "predict", "method": "POST",
            "url": format!("{}/v1/embeddings", model.url()),
            "headers": {"Authorization": "Bearer ${credential.key}"},
            "request_body": "{ \"input\": ${parameters.input} }",
            "pre_process_function": "connector.pre_process.openai.embedding",
            "post_process_function": "connector.post_process.openai.embedding"}],
    });
    let (_, said) =
        asked(Some(&admin), "POST", "/_plugins/_ml/connectors/_create", Some(connector)).await;
    let connector_id = said["connector_id"].as_str().expect("an id").to_owned();
    let definition =
        json!({"name": "stub", "function_name": "remote", "connector_id": connector_id});
    let (_, said) =
        asked(Some(&admin), "POST", "/_plugins/_ml/models/_register?deploy=true", Some(definition))
            .await;
    let model_id = said["model_id"].as_str().expect("an id").to_owned();
    let pipeline = unique("planted");
    let processors = json!({"processors": [{"text_embedding": {"model_id": model_id, "field_map": {"a": "v"}}}]});
    asked(Some(&admin), "PUT", &format!("/_ingest/pipeline/{pipeline}"), Some(processors)).await;
    let index = search
        .index(
            "secrets",
            json!({
                "settings": {"index": {"knn": true, "default_pipeline": pipeline}},
                "mappings": {"properties": {"a": {"type": "text"}, "v": {"type": "knn_vector", "dimension": 4}}},
            }),
        )
        .await;
    let statement = format!(
        "CALL dbms_etl.sync_by_map('search', '{index}.a({db}.t.a)', '{index}.id={db}.t.id', '', '')"
    );
    // The endpoint repeats what it was sent, and the link says why it waits; then it works.
    model.behave(Behaviour::Once(Box::new(Behaviour::Echo)));
    let predict = format!("/_plugins/_ml/models/{model_id}/_predict");
    let (status, said) =
        asked(Some(&admin), "POST", &predict, Some(json!({"parameters": {"input": ["a"]}}))).await;
    assert_eq!(status, 401, "{said}");
    let (status, said) =
        asked(Some(&admin), "POST", "/_sql", Some(json!({"query": statement}))).await;
    assert_eq!(status, 200, "{said}");
    until("both rows are documents", SECONDS_30, async || {
        search.refresh(&index).await;
        search.count(&index).await == 2
    })
    .await;
    let basic = format!("Basic {}", STANDARD.encode(format!("me:{READ}")));
    for (login, method, path, body) in [
        (Some(admin.as_str()), "GET", "/_links".to_owned(), None),
        (Some(&admin), "GET", "/metrics".to_owned(), None),
        (Some(&admin), "GET", "/readyz".to_owned(), None),
        (Some(&admin), "GET", format!("/_plugins/_ml/connectors/{connector_id}"), None),
        (Some(&admin), "GET", "/_ingest/pipeline".to_owned(), None),
        (Some(&admin), "GET", "/_cluster/settings".to_owned(), None),
        (
            Some(&admin),
            "POST",
            "/_sql".to_owned(),
            Some(json!({"query": "CALL dbms_etl.show_sync_link()"})),
        ),
        (Some(&admin), "POST", "/_sql".to_owned(), Some(json!({"query": "no statement"}))),
        (Some(&basic), "GET", "/_links".to_owned(), None),
        (Some("Bearer wrong-planted-0123456789"), "GET", "/_links".to_owned(), None),
        (Some("Basic d3JvbmctcGxhbnRlZA=="), "GET", "/_links".to_owned(), None),
        (None, "GET", "/_links".to_owned(), None),
    ] {
        asked(login, method, &path, body).await;
    }
    for arguments in [
        &["check"][..],
        &["status"],
        &["sql", "SHOW DEAD LETTERS"],
        &["status", "--address", "127.0.0.1:1"],
    ] {
        let output = driftless()
            .args(arguments)
            .arg("--config")
            .arg(daemon.config_path())
            .env("ADMIN_TOKEN", ADMIN)
            .env("SOURCE_PASSWORD", "wrong-planted-password")
            .env("DRIFTLESS_SECRET_KEY", sealing_key)
            .env("DRIFTLESS_TOKEN", READ)
            .env("DRIFTLESS_CA_FILE", authority.ca_file())
            .env("DRIFTLESS_LOG", "trace")
            .output()
            .expect("it runs");
        seen.push_str(&told(&output));
    }
    let log = daemon.log();
    assert!(log.contains("TRACE"), "the log is to say everything it knows");
    for secret in &secrets {
        let in_log = log.lines().find(|line| line.contains(secret));
        assert_eq!(in_log, None, "the log holds {secret}");
        assert!(!seen.contains(secret), "an answer holds {secret}: {seen}");
    }
    let mut files = 0;
    for file in files_below(&daemon.state_dir()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        files += 1;
        for secret in &secrets {
            let holds = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!holds, "{} holds {secret}", file.display());
        }
    }
    assert!(files > 3, "the state was looked at");
    mysql.exec(format!("DROP USER {user}")).await;
    search.delete_index(&index).await;
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
    let below = |path: PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

/// A configuration that is wrong beside its secrets: every line is shown but those that hold one.
#[test]
fn a_wrong_configuration_shows_no_secret() {
    let folder = folder();
    let file = folder.path().join("driftless.toml");
    for text in [
        "[source]\npassword = \"planted-1\" x\n",
        "[source]\npassword = \"planted-2\n",
        "[source]\npassword = [\"planted-3\"]\n",
        "[source]\npasswort = \"planted-4\"\n",
        "[[http.tokens]]\nrole = \"admin\"\ntoken = \"planted-5\"\n",
        "[[http.tokens]]\nrole = \"chief\"\ntoken = \"planted-6-0123456789\"\n",
        "[[http.tokens]]\nrole = \"read\"\ntoken = \"\"\"\nplanted-7-0123456789\n",
        "[[http.tokens]]\nrole = \"read\"\ntoken = \"planted-8-0123456789\"\ntoken_file = \"/dev/null\"\n",
        "http.tokens = [{ role = \"read\", token = \"planted-9\" }]\n",
        "[sink]\naddresses = [\"http://me:planted-10@127.0.0.1:9200\"]\n",
        "[sink]\napi_key = \"planted-11\"\nuser = \"me\"\n",
        "[secrets]\nkey_file = \"/dev/zero\"\nkey = \"planted-12\"\n",
    ] {
        std::fs::write(&file, text).expect("writes");
        let output = driftless()
            .args(["check", "--config", shown(&file)])
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let said = told(&output);
        assert_eq!(output.status.code(), Some(64), "{text}: {said}");
        assert!(!said.contains("planted"), "{text}: {said}");
    }
}

#[test]
fn a_configuration_without_end_is_refused() {
    let output = driftless().args(["check", "--config", "/dev/zero"]).output().expect("it runs");
    let said = told(&output);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("more than 4 MiB"), "{said}");
}

/// Answers every request with these bytes; counts the requests. Not to be confused with an endpoint.
struct Standing {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Standing {
    /// `head` is what comes first; `part` is then sent for ever, if it is not empty.
    async fn start(head: String, part: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (head, part, counted) = (head.clone(), part.clone(), counted.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    // One head; what else is sent stays where it is.
                    if !matches!(stream.read(&mut request).await, Ok(1..)) {
                        return;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    let mut sent = stream.write_all(head.as_bytes()).await;
                    while sent.is_ok() && !part.is_empty() {
                        sent = stream.write_all(&part).await;
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

const ENDLESS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
/// One chunk of 64 KiB of blanks.
fn chunk() -> Vec<u8> {
    format!("10000\r\n{}\r\n", " ".repeat(0x10000)).into_bytes()
}

/// A model at `url`, made at a daemon's open door.
async fn model_at(daemon: &Daemon, url: &str) -> String {
    let connector = json!({
        "name": "stub", "version": 1, "protocol": "http", "parameters": {"model": "m"},
        "credential": {"key": "k"},
        "actions": [{"action_type": "predict", "method": "POST", "url": url,
            "headers": {"Authorization": "Bearer ${credential.key}"},
            "request_body": "{ \"input\": ${parameters.input} }",
            "pre_process_function": "connector.pre_process.openai.embedding",
            "post_process_function": "connector.post_process.openai.embedding"}],
    });
    let (status, said) =
        daemon.request("POST", "/_plugins/_ml/connectors/_create", Some(connector)).await;
    assert_eq!(status, 200, "{said}");
    let definition =
        json!({"name": "stub", "function_name": "remote", "connector_id": said["connector_id"]});
    let (status, said) = daemon
        .request("POST", "/_plugins/_ml/models/_register?deploy=true", Some(definition))
        .await;
    assert_eq!(status, 200, "{said}");
    said["model_id"].as_str().expect("an id").to_owned()
}

async fn predict(daemon: &Daemon, model: &str) -> (u16, String) {
    let body = json!({"parameters": {"input": ["a"]}});
    let path = format!("/_plugins/_ml/models/{model}/_predict");
    let (status, said) = daemon.request("POST", &path, Some(body)).await;
    (status, said.to_string())
}

async fn settle(daemon: &Daemon, pattern: &str, private_ip: bool) {
    let settings = json!({"persistent": {
        "plugins.ml_commons.trusted_connector_endpoints_regex": [pattern],
        "plugins.ml_commons.connector.private_ip_enabled": private_ip}});
    let (status, said) = daemon.request("PUT", "/_cluster/settings", Some(settings)).await;
    assert_eq!(status, 200, "{said}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_by_anybody() {
    let daemon = Setup::alone().start().await;
    let inside =
        Standing::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(), Vec::new())
            .await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let head = format!(
            "HTTP/1.1 {status}\r\nlocation: http://{}/latest/meta-data\r\ncontent-length: 0\r\n\r\n",
            inside.address
        );
        let outside = Standing::start(head, Vec::new()).await;
        settle(&daemon, &format!("^http://{}/.*$", outside.address), true).await;
        let model = model_at(&daemon, &format!("http://{}/v1", outside.address)).await;
        let (answered, said) = predict(&daemon, &model).await;
        assert!(answered >= 300, "{status}: {said}");
        let config = sink::Config {
            addresses: vec![format!("http://{}", outside.address)],
            ..sink::Config::default()
        };
        let cluster = sink::build(&config).expect("a sink");
        assert!(cluster.inspect("index").await.is_err(), "{status}");
        assert!(outside.asked() >= 2, "{status}: both have asked");
    }
    assert_eq!(inside.asked(), 0, "a redirect led inside");
}

#[tokio::test]
async fn a_trusted_pattern_is_the_whole_url_and_a_private_address_needs_more() {
    let daemon = Setup::alone().start().await;
    let inside =
        Standing::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(), Vec::new())
            .await;
    let (_, port) = inside.address.split_once(':').expect("address and port");
    // Made while it is allowed; then the permission is taken away.
    let hosts = std::fs::read_to_string("/etc/hosts").expect("names of this machine");
    let is_name = |name: &&str| *name != "localhost" && !name.ends_with(".localhost");
    let own_names = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: std::net::IpAddr = words.next()?.parse().ok()?;
        driftless::net::trust::is_private(address).then(|| words.find(is_name)).flatten()
    });
    let mut hosts: Vec<String> = own_names.map(str::to_owned).collect();
    hosts.extend(
        ["127.0.0.1", "127.1", "2130706433", "localhost", "[::ffff:127.0.0.1]"].map(str::to_owned),
    );
    settle(&daemon, "^http://.*$", true).await;
    let mut models = Vec::new();
    for host in &hosts {
        models.push((host, model_at(&daemon, &format!("http://{host}:{port}/v1")).await));
    }
    settle(&daemon, "^http://.*$", false).await;
    for (host, model) in &models {
        let (_, said) = predict(&daemon, model).await;
        assert!(said.contains("has private ip address"), "{host}: {said}");
    }
    // A pattern that matches a part of the URL matches nothing.
    settle(&daemon, &format!("127.0.0.1:{port}"), true).await;
    for (host, model) in &models {
        let (_, said) = predict(&daemon, model).await;
        assert!(
            said.contains("is not matching the trusted connector endpoint regex"),
            "{host}: {said}"
        );
    }
    assert_eq!(inside.asked(), 0, "nobody was called");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let daemon = Setup::alone().start().await;
    let endless = Standing::start(ENDLESS.to_owned(), chunk()).await;
    settle(&daemon, "^http://127\\.0\\.0\\.1:.*$", true).await;
    let model = model_at(&daemon, &format!("http://{}/v1", endless.address)).await;
    let (_, said) = predict(&daemon, &model).await;
    assert!(said.contains("is longer than"), "{said}");
    assert!(daemon.most_resident_bytes() < 1e9, "{}", daemon.most_resident_bytes());
    let addresses = vec![format!("http://{}", endless.address)];
    let cluster =
        sink::build(&sink::Config { addresses, ..sink::Config::default() }).expect("a sink");
    let report = cluster.inspect("index").await.expect_err("refused").report();
    assert!(report.contains("the answer has more than"), "{report}");
}

#[tokio::test]
async fn what_comes_in_at_the_door_is_bounded() {
    let folder = folder();
    let daemon = with_tokens(Setup::alone(), &folder).start().await;
    let http = http_client();
    let url = format!("{}/_sql", daemon.url());
    let login = bearer(ADMIN);
    let long = json!({ "query": "x".repeat(2 << 20) });
    let (status, ..) =
        ask(&http, Some(&login), "POST", &url, Some(long.clone())).await.expect("answers");
    assert_eq!(status, 413);
    // Who may not come in is told so, however much he sends.
    let (status, ..) = ask(&http, None, "POST", &url, Some(long)).await.expect("answers");
    assert_eq!(status, 401);
    let address = daemon.url().strip_prefix("http://").expect("plain").to_owned();
    for (what, head) in [
        (
            "a long header",
            format!(
                "GET /healthz HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\nx: {}\r\n\r\n",
                "y".repeat(100_000)
            ),
        ),
        (
            "a long path",
            format!(
                "GET /{} HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\n\r\n",
                "y".repeat(100_000)
            ),
        ),
        (
            "many headers",
            format!(
                "GET /healthz HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\n{}\r\n",
                "x: y\r\n".repeat(100)
            ),
        ),
    ] {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let is_refused =
            ["HTTP/1.1 431", "HTTP/1.1 414"].iter().any(|line| answer.starts_with(line));
        assert!(is_refused, "{what}: {answer}");
    }
}

/// More connections than the door has places, none of which ever finishes its request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_give_their_places_back() {
    let daemon = Setup::alone().start().await;
    let address = daemon.url().strip_prefix("http://").expect("plain").to_owned();
    let mut idle = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").await.expect("is taken");
        idle.push(stream);
    }
    let began = Instant::now();
    let url = format!("{}/healthz", daemon.url());
    let (status, ..) = ask(&http_client(), None, "GET", &url, None).await.expect("answers");
    assert_eq!(status, 200);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(5), "there was room for all of them: {waited:?}");
    assert!(waited < MINUTES_2, "{waited:?}");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SECONDS_10, idle[0].read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the first of them is closed");
}

/// A proxy in front of the door sends what it wants to; a page of another site still cannot.
#[tokio::test]
async fn a_page_of_another_site_has_no_token_and_gets_no_further() {
    let folder = folder();
    let daemon = with_tokens(Setup::alone(), &folder).start().await;
    let http = http_client();
    let url = format!("{}/nowhere/_search", daemon.url());
    let asked = async |origin: &str, host: &str, login: Option<&str>| {
        let mut request =
            http.post(&url).header("origin", origin).header("host", host).json(&json!({}));
        if let Some(login) = login {
            request = request.header("authorization", login);
        }
        request.send().await.expect("answers").status().as_u16()
    };
    let login = bearer(READ);
    assert_eq!(asked("https://door.example", "door.example", Some(&login)).await, 404);
    assert_eq!(asked("https://evil.example", "door.example", Some(&login)).await, 403);
    assert_eq!(asked("https://evil.example", "evil.example", None).await, 401);
    let made = http.put(format!("{}/made", daemon.url())).header("origin", "https://door.example");
    let made =
        made.header("host", "door.example").bearer_auth(ADMIN).send().await.expect("answers");
    assert_eq!(made.status().as_u16(), 403);
}

/// The sink's key, in each form, goes to the cluster and nowhere else.
#[tokio::test]
async fn the_sinks_key_is_not_in_its_errors() {
    let refusing = Standing::start(
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned(),
        Vec::new(),
    )
    .await;
    let proxy = Proxy::http_watching(&refusing.address, "/").await;
    let config = sink::Config {
        addresses: vec![proxy.url()],
        api_key: Some("id:planted-key".into()),
        ..sink::Config::default()
    };
    let error = sink::build(&config).expect("a sink").inspect("index").await.expect_err("refused");
    let report = format!("{} {error:?} {config:?}", error.report());
    let sent = &proxy.requests()[0];
    assert_eq!(
        sent.header("authorization"),
        Some(format!("ApiKey {}", STANDARD.encode("id:planted-key")).as_str())
    );
    for secret in ["planted-key".to_owned(), STANDARD.encode("id:planted-key")] {
        assert!(!report.contains(&secret), "{report}");
    }
}
