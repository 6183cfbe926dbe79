//! The command line and the HTTP door of a daemon whose source does not answer: what they say, and with which exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::support::daemon::{Daemon, Setup, driftless};
use crate::support::mysql::Mysql;
use crate::support::search::Product;
use crate::support::servers::Flavour;
use crate::support::stage::Stage;
use crate::support::{SECONDS_10, servers, until};

fn said(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

/// The binary in an empty folder, without what this machine's environment would tell it.
fn quiet(folder: &Path) -> Command {
    let mut command = driftless();
    command.current_dir(folder).stdin(Stdio::null());
    for name in ["DRIFTLESS_CONFIG", "DRIFTLESS_ADDRESS", "DRIFTLESS_LOG", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    let folder = folder();
    quiet(folder.path()).args(arguments).output().expect("the binary runs")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn write(folder: &TempDir, text: &str) -> PathBuf {
    let file = folder.path().join("driftless.toml");
    std::fs::write(&file, text).expect("the configuration can be written");
    file
}

/// Nobody listens on port 1.
async fn daemon_without_source() -> Daemon {
    let daemon = Setup::new(&Mysql::at("127.0.0.1", 1), "http://127.0.0.1:1").spawn();
    until("the door answers", SECONDS_10, async || {
        let url = format!("{}/healthz", daemon.url());
        let answered = crate::support::http_client().get(&url).send().await;
        answered.map(|answer| answer.status().is_success()).unwrap_or(false)
    })
    .await;
    daemon
}

#[test]
fn help_names_every_subcommand() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let text = said(&help);
    for name in ["run", "sql", "status", "check", "demo"] {
        assert!(
            text.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))),
            "{name}\n{text}"
        );
        let own = run(&[name, "--help"]);
        assert!(
            own.status.success() && (said(&own).contains("--config") || name == "demo"),
            "{}",
            said(&own)
        );
    }
    assert!(said(&run(&["--version"])).starts_with("driftless "));
}

#[test]
fn wrong_usage_exits_64() {
    for arguments in [&["frobnicate"][..], &["sql"], &["run", "--colour"], &[]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", said(&output));
    }
    let output = run(&["sql", "--address", "http://", "CALL x()"]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
}

#[test]
fn a_bad_configuration_exits_64_with_line_and_column() {
    let folder = folder();
    let file = write(&folder, "[sink]\nadresses = [\"http://127.0.0.1:9200\"]\nlanes = 0\n");
    for command in ["run", "check"] {
        let output =
            quiet(folder.path()).args([command, "--config"]).arg(&file).output().expect("it runs");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(64), "{text}");
        assert!(
            text.contains(
                "driftless.toml:2:1: unknown key `adresses` in [sink]; did you mean `addresses`?"
            ),
            "{text}"
        );
        assert!(text.contains("driftless.toml:3:9: `sink.lanes` is 0"), "{text}");
    }
}

#[test]
fn check_says_when_the_sink_is_the_other_product() {
    for (kind, product) in
        [("opensearch", Product::Elasticsearch), ("elasticsearch", Product::OpenSearch)]
    {
        let folder = folder();
        let address = servers::search(product).url().to_owned();
        let text =
            format!("[source]\nport = 1\n[sink]\ntype = \"{kind}\"\naddresses = [\"{address}\"]\n");
        let file = write(&folder, &text);
        let output = quiet(folder.path())
            .env("TMPDIR", folder.path())
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .expect("it runs");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("and sink.type is `{kind}`")), "{text}");
        assert!(text.contains(&format!("write type = \"{}\" in [sink]", product.kind())), "{text}");
    }
}

#[test]
fn the_configuration_is_looked_for_where_the_help_says() {
    let elsewhere = folder();
    let file = write(&elsewhere, "nope = 1\n");
    // Beside the process,
    let output = quiet(elsewhere.path()).arg("run").output().expect("it runs");
    assert!(
        said(&output).contains("./driftless.toml:1:1: unknown key `nope`"),
        "{}",
        said(&output)
    );
    // and where the environment says.
    let output =
        quiet(folder().path()).arg("run").env("DRIFTLESS_CONFIG", &file).output().expect("it runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("unknown key `nope`"), "{}", said(&output));
    let output = run(&["run", "--config", "missing.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        said(&output).starts_with("missing.toml: cannot read the configuration"),
        "{}",
        said(&output)
    );
}

#[test]
fn without_a_daemon_a_question_fails_and_says_what_to_do() {
    for arguments in [
        &["status", "--address", "127.0.0.1:1"][..],
        &["sql", "--address", "http://127.0.0.1:1", "x"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("is it running?"), "{}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_answers_while_the_source_is_away() {
    let mut daemon = daemon_without_source().await;
    let (status, about) = daemon.request("GET", "/", None).await;
    assert_eq!((status, about["name"].as_str()), (200, Some("driftless")));
    let (status, metrics) = daemon.request("GET", "/metrics", None).await;
    assert!(
        status == 200
            && metrics.as_str().is_some_and(|text| text.contains("driftless_source_connected 0"))
    );
    let (status, answer) = daemon.request("GET", "/products/_search", None).await;
    assert_eq!((status, answer["error"]["type"].as_str()), (404, Some("not_found")));
    let (status, _) = daemon.request("GET", "/_sql", None).await;
    assert_eq!(status, 405);
    let (status, answer) = daemon.request("GET", "/_ingest/pipeline", None).await;
    // What a search node without pipelines answers, and not our own 404.
    assert_eq!((status, answer), (404, json!({})));
    let (status, answer) = daemon.request("GET", "/_links", None).await;
    assert_eq!((status, answer), (200, json!({ "links": [] })));
    assert!(daemon.sql("CALL dbms_etl.show_sync_link()").await.rows.is_empty());

    let statement = "CALL dbms_etl.show_sync_link_by_id('nobody')";
    let (status, answer) =
        daemon.request("POST", "/_sql", Some(json!({ "query": statement }))).await;
    assert_eq!((status, answer["status"].as_u64()), (404, Some(404)), "{answer}");
    let (status, answer) =
        daemon.request("POST", "/_sql", Some(json!({ "query": "CALL\n  nothing()" }))).await;
    assert_eq!((status, answer["error"]["type"].as_str()), (400, Some("input")));
    assert_eq!(
        (answer["error"]["line"].as_u64(), answer["error"]["column"].as_u64()),
        (Some(2), Some(3))
    );
    let (status, answer) = daemon
        .request("POST", "/_sql?format=txt", Some(json!({ "query": "CALL\n  nothing()" })))
        .await;
    let text = answer.as_str().expect("text is not JSON");
    assert!(status == 400 && text.contains("line 2, column 3") && text.contains("^^^"), "{text}");
    let (status, answer) = daemon.request("POST", "/_sql", Some(json!({ "statement": "x" }))).await;
    assert_eq!(status, 400, "{answer}");
    let too_long = json!({ "query": "x".repeat(1 << 20) });
    assert_eq!(daemon.request("POST", "/_sql", Some(too_long)).await.0, 413);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_the_configuration_that_cannot_be_made_is_shown() {
    let setup = Setup::new(&Mysql::at("127.0.0.1", 1), "http://127.0.0.1:1");
    let mut daemon = setup.link("goods", "i.a(d.t.a)", "i.a=d.t.a").spawn();
    until("the link is shown to wait", SECONDS_10, async || {
        let url = format!("{}/_links", daemon.url());
        let Ok(answer) = crate::support::http_client().get(&url).send().await else { return false };
        let text = answer.text().await.unwrap_or_default();
        text.contains("\"recovering\"") && text.contains("cannot connect to 127.0.0.1:1")
    })
    .await;
    assert_eq!(daemon.request("GET", "/readyz", None).await.0, 503);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_a_browser_changes_nothing() {
    let daemon = daemon_without_source().await;
    let answer = crate::support::http_client()
        .post(format!("{}/_sql", daemon.url()))
        .header("origin", "http://elsewhere.example")
        .body("{\"query\": \"CALL dbms_etl.show_sync_link()\"}")
        .send()
        .await
        .expect("the door answers");
    assert_eq!(answer.status(), 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_this_machines_is_not_answered() {
    let daemon = daemon_without_source().await;
    let port = daemon.url().rsplit_once(':').expect("an address with a port").1.to_owned();
    for (host, status) in [
        (format!("elsewhere.example:{port}"), 421),
        ("elsewhere.example".to_owned(), 421),
        (format!("localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("127.0.0.1".to_owned(), 200),
    ] {
        let request = crate::support::http_client().get(format!("{}/_links", daemon.url()));
        let answer = request.header("host", &host).send().await.expect("the door answers");
        assert_eq!(answer.status(), status, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_asks_the_daemon_of_its_configuration() {
    let daemon = daemon_without_source().await;
    let output = daemon.run(&["status"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).starts_with("no links"), "{}", said(&output));
    let output = daemon.run(&["sql", "CALL dbms_etl.show_sync_link()"]);
    assert!(
        output.status.success() && said(&output).contains("| View Name | Type |"),
        "{}",
        said(&output)
    );
    let output = daemon.run(&["sql", "--format", "json", "CALL dbms_etl.show_sync_link()"]);
    assert!(
        output.status.success() && said(&output).starts_with("{\"columns\":[\"View Name\""),
        "{}",
        said(&output)
    );
    let output = daemon.run(&["sql", "CALL dbms_etl.shov_sync_link()"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("did you mean show_sync_link?"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_all_at_once_and_touches_nothing() {
    let folder = folder();
    let file = write(
        &folder,
        "state_dir = \"state\"\n[source]\nport = 1\n[sink]\naddresses = [\"http://127.0.0.1:1\"]\n\
         [[links]]\ntable = \"d.t\"\nindex = \"i\"\n",
    );
    let output =
        quiet(folder.path()).args(["check", "--config"]).arg(&file).output().expect("it runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let errors = text.lines().filter(|line| line.starts_with("error: ")).count();
    assert!(text.contains("127.0.0.1:1") && errors >= 2, "{text}");
    assert_eq!(errors, text.matches("\n  remedy: ").count(), "{text}");
    assert!(!folder.path().join("state").exists());

    let file = write(&folder, "[source]\nport = 1\n[sink]\naddresses = [\"http://127.0.0.1:2\"]\n");
    let output =
        quiet(folder.path()).args(["check", "--config"]).arg(&file).output().expect("it runs");
    let text = said(&output);
    assert!(text.contains("cannot reach the sink at http://127.0.0.1:2"), "{text}");
}

/// Each fault is said once, with the line of its link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_the_link_of_the_file_that_servers_know_nothing_of() {
    let stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    let (db, index) = (&stage.db, &stage.index);
    let (folder, port) = (folder(), stage.mysql.port());
    let sink = stage.search.address();
    let file = write(
        &folder,
        &format!(
            "state_dir = \"state\"\n[source]\nport = {port}\nuser = \"root\"\n[sink]\naddresses = [\"http://{sink}\"]\n\
             [[links]]\ntable = \"{db}.t\"\nindex = \"{index}\"\n\
             [[links]]\nid = \"late\"\ntable = \"{db}.t\"\nindex = \"{index}-x\"\nfrom = \"file:gone.000001:4\"\n\
             [[links]]\ntable = \"{db}.none\"\nindex = \"{index}-y\"\n",
        ),
    );
    let output =
        quiet(folder.path()).args(["check", "--config"]).arg(&file).output().expect("it runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let file = file.display();
    for expected in [
        format!("error: {file}:10: link `late`: "),
        format!("error: {file}:10: link `late`: the index {index}-x does not exist"),
        format!("error: {file}:15: link `{index}-y`: the index {index}-y does not exist"),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    assert!(text.contains("gone.000001"), "{text}");
    assert!(!text.contains(&format!("{file}:7: ")), "that link is well: {text}");
    assert_eq!(text.matches(&format!("{db}.none")).count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_said_before_anything_starts() {
    let mut first = daemon_without_source().await;
    let port = first.url().rsplit(':').next().expect("a port").to_owned();
    let folder = folder();
    let file =
        write(&folder, &format!("state_dir = \"state\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n"));
    let output =
        quiet(folder.path()).args(["run", "--config"]).arg(&file).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{}",
        said(&output)
    );
    assert!(first.is_running());
}
