//! The real `driftless` binary as a process: configured, started, asked, killed. Knows it only from outside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;
use toml::{Table, Value};

use super::{SECONDS_30, mysql::Mysql, servers, until};

/// Configuration and environment of a daemon to be.
#[derive(Debug, Clone)]
pub struct Setup {
    config: Table,
    env: Vec<(String, String)>,
}

impl Setup {
    /// A daemon that reads from `source` as root and writes to the OpenSearch at `sink_url`.
    pub fn new(source: &Mysql, sink_url: &str) -> Self {
        Self {
            config: Table::new(),
            env: vec![("DRIFTLESS_LOG".to_owned(), "info,driftless=debug".to_owned())],
        }
        .set("source.host", source.host())
        .set("source.port", i64::from(source.port()))
        .set("source.user", "root")
        .set("source.password", "")
        .set("sink.type", "opensearch")
        .set("sink.addresses", vec![sink_url.to_owned()])
    }

    /// Sets one key of the configuration, `snapshot.chunk_rows`.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let (tables, last) =
            key.rsplit_once('.').map_or((None, key), |(tables, last)| (Some(tables), last));
        let mut table = &mut self.config;
        for name in tables.into_iter().flat_map(|tables| tables.split('.')) {
            let entry = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            table = entry
                .as_table_mut()
                .unwrap_or_else(|| panic!("`{name}` of `{key}` is not a table"));
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    /// Declares a link in the configuration file.
    pub fn link(mut self, id: &str, mapping: &str, key: &str) -> Self {
        let link = Table::from_iter(
            [("id", id), ("mapping", mapping), ("key", key)]
                .map(|(name, value)| (name.to_owned(), Value::from(value))),
        );
        let links = self.config.entry("links").or_insert_with(|| Value::Array(Vec::new()));
        links.as_array_mut().expect("links are an array").push(Value::Table(link));
        self
    }

    /// Sets a variable in the daemon's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts the naive reading of these rules in the place of the right one: `rule1,rule5`.
    pub fn naive(self, rules: &str) -> Self {
        self.env("DRIFTLESS_NAIVE", rules)
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn start(self) -> Daemon {
        let daemon = self.spawn();
        daemon.ready().await;
        daemon
    }

    /// Starts the daemon and does not wait.
    pub fn spawn(self) -> Daemon {
        let dir = servers::data_dir();
        let port = servers::free_port();
        let setup = self
            .set("state_dir", dir.path().join("state").to_str().expect("a path in UTF-8"))
            .set("http.listen", format!("127.0.0.1:{port}"));
        let url = format!("http://127.0.0.1:{port}");
        let mut daemon = Daemon { setup, dir, url, http: super::http_client(), child: None };
        daemon.write_config();
        daemon.launch();
        daemon
    }
}

/// A running (or killed) daemon with its state directory and log. Dropping it kills the process.
pub struct Daemon {
    setup: Setup,
    dir: TempDir,
    url: String,
    http: reqwest::Client,
    child: Option<Child>,
}

/// A statement's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Json>>,
}

impl Answer {
    /// The cell of this row under this column, as text: a JSON string without its quotes, anything else as it is.
    pub fn cell(&self, row: usize, column: &str) -> String {
        let at = self.columns.iter().position(|name| name.eq_ignore_ascii_case(column));
        let at = at.unwrap_or_else(|| panic!("no column `{column}`; there are {:?}", self.columns));
        match &self.rows[row][at] {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl Daemon {
    /// `http://127.0.0.1:port` of its HTTP door.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("driftless.toml")
    }

    /// The log of all its lives so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `/readyz` says yes; a daemon that has ended meanwhile fails at once.
    pub async fn ready(&self) {
        until("the daemon is ready", SECONDS_30, async || {
            self.assert_running();
            match request(&self.http, "GET", &format!("{}/readyz", self.url), None).await {
                Ok((200, _)) => Ok(()),
                Ok((status, answer)) => Err(format!("{status} {answer}")),
                Err(error) => Err(format!("{error:?}")),
            }
        })
        .await;
    }

    /// Waits until the door answers, whatever it says of the links.
    pub async fn answers(&self) {
        until("the daemon answers", SECONDS_30, async || {
            self.assert_running();
            request(&self.http, "GET", &format!("{}/healthz", self.url), None).await.is_ok()
        })
        .await;
    }

    /// Changes one key; it counts from the next start.
    pub fn reconfigure(&mut self, key: &str, value: impl Into<Value>) {
        self.setup = self.setup.clone().set(key, value);
        self.write_config();
    }

    /// Changes the environment; it counts from the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.setup.env.push((name.to_owned(), value.to_owned()));
    }

    /// kill -9, and waits until the process is gone. State, configuration and port stay for [`Daemon::start_again`].
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours can be killed");
            child.wait().expect("a killed child can be waited for");
        }
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        let child = self.child.as_ref().expect("only a running daemon can be stopped");
        // std has no signals but SIGKILL; the shell's own `kill` is there on every system.
        let signal = format!("kill -TERM {}", child.id());
        let sent = Command::new("sh").args(["-c", &signal]).status().expect("there is a shell");
        assert!(sent.success(), "SIGTERM could not be sent");
        self.exited(SECONDS_30).await
    }

    /// Waits until the process has ended by itself.
    pub async fn exited(&mut self, deadline: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("only a started daemon can end");
        let status = until("the daemon has ended", deadline, async || {
            child.try_wait().expect("a child of ours can be waited for")
        })
        .await;
        self.child = None;
        status
    }

    /// Starts it again on the same state, configuration and port, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Starts it again, and does not wait: something is expected to be in its way.
    pub fn start_again_unready(&mut self) {
        self.launch();
    }

    /// What it has had of memory at most since it was started.
    pub fn most_resident_bytes(&self) -> f64 {
        let process = self.child.as_ref().expect("it runs").id();
        let status =
            std::fs::read_to_string(format!("/proc/{process}/status")).expect("it is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("is told");
        let kib = line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number");
        kib * 1024.0
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Runs a statement at the HTTP door; it must succeed.
    pub async fn sql(&self, statement: &str) -> Answer {
        self.try_sql(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// Runs a statement at the HTTP door; a refusal comes back as `status body`.
    pub async fn try_sql(&self, statement: &str) -> Result<Answer, String> {
        let body = serde_json::json!({ "query": statement });
        let (status, answer) = self.request("POST", "/_sql", Some(body)).await;
        if status != 200 {
            return Err(format!("{status} {answer}"));
        }
        let columns = serde_json::from_value(answer["columns"].clone());
        let rows = serde_json::from_value(answer["rows"].clone());
        match (columns, rows) {
            (Ok(columns), Ok(rows)) => Ok(Answer { columns, rows }),
            _ => Err(format!("not an answer of columns and rows: {answer}")),
        }
    }

    /// Any request to the HTTP door; an answer that is not JSON comes back as a string.
    pub async fn request(&self, method: &str, path: &str, body: Option<Json>) -> (u16, Json) {
        request(&self.http, method, &format!("{}{path}", self.url), body).await.unwrap_or_else(
            |error| {
                panic!(
                    "{method} {path} at the daemon: {error:?}\nits log ends:\n{}",
                    self.log_end(40)
                )
            },
        )
    }

    /// The value of one series of `/metrics`, by its full name with labels: `driftless_lag_ms{link="a"}`.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let (status, text) = self.request("GET", "/metrics", None).await;
        assert_eq!(status, 200, "/metrics: {text}");
        let text = text.as_str().unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }

    /// Runs another command of the binary on this daemon's configuration: `["check"]`.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        driftless()
            .args(arguments)
            .arg("--config")
            .arg(self.config_path())
            .output()
            .expect("the binary can be run")
    }

    fn assert_running(&self) {
        let Some(child) = &self.child else { panic!("the daemon was not started") };
        // A zombie has no executable any more; `try_wait` would need `&mut self`.
        let ended = std::fs::read_link(format!("/proc/{}/exe", child.id())).is_err();
        assert!(!ended, "the daemon has ended; its log:\n{}", self.log_end(60));
    }

    fn write_config(&self) {
        let text = toml::to_string(&self.setup.config).expect("a table can be written as TOML");
        std::fs::write(self.config_path(), text).expect("the configuration can be written");
    }

    fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log = append_to(&self.dir.path().join("log"));
        let child = driftless()
            .arg("run")
            .arg("--config")
            .arg(self.config_path())
            .envs(self.setup.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log)
            .spawn()
            .expect("the daemon can be started");
        self.child = Some(child);
    }

    fn log_end(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log ends:\n{}", self.log_end(60));
        }
    }
}

/// The binary under test, without what the tests' own environment would tell it.
pub fn driftless() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env_remove("DRIFTLESS_NAIVE");
    command
}

fn append_to(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("the log can be opened")
}

/// One HTTP request; an answer that is not JSON comes back as a string.
pub(super) async fn request(
    http: &reqwest::Client,
    method: &str,
    url: &str,
    body: Option<Json>,
) -> reqwest::Result<(u16, Json)> {
    let method = method.parse().expect("tests use known methods");
    let mut request = http.request(method, url);
    if let Some(body) = &body {
        request = request.json(body);
    }
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let text = answer.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Json::String(text))))
}
