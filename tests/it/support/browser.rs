//! A headless Chromium, driven over WebDriver: the few commands that a test of the page needs. Knows no page.
//!
//! The protocol is JSON over HTTP (<https://www.w3.org/TR/webdriver2/>), and Chromium's own commands come the same way.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SECONDS_30, daemon, servers, until};

pub const ENTER: char = '\u{E007}';
pub const ESCAPE: char = '\u{E00C}';
pub const UP: char = '\u{E013}';
pub const DOWN: char = '\u{E015}';

/// One browser with one window. Dropping it ends it.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    http: reqwest::Client,
    dir: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let (dir, port) = (servers::data_dir(), servers::free_port());
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is there: `tests/servers/install servers` gets it");
        let http = super::http_client();
        let mut browser = Self { driver, port, session: String::new(), http, dir };
        until("the driver is ready", SECONDS_30, async || {
            let asked = browser.request("GET", "/status", None).await;
            asked.is_ok_and(|(status, answer)| status == 200 && answer["value"]["ready"] == true)
        })
        .await;
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": browser.arguments()},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let (status, answer) =
            browser.request("POST", "/session", Some(wanted)).await.expect("the driver answers");
        assert_eq!(status, 200, "no session: {answer}");
        browser.session =
            answer["value"]["sessionId"].as_str().expect("a session has an id").to_owned();
        browser
    }

    fn arguments(&self) -> Vec<String> {
        let profile = self.dir.path().join("profile");
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".to_owned(),
            // Of a container's /dev/shm there is too little.
            "--disable-dev-shm-usage".to_owned(),
            "--window-size=1280,900".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        // Its sandbox does not work for root, and only for root it may be left out.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| {
            use std::os::unix::fs::MetadataExt as _;
            me.uid() == 0
        });
        arguments.extend(is_root.then(|| "--no-sandbox".to_owned()));
        arguments
    }

    pub async fn open(&self, url: &str) {
        self.command("url", json!({ "url": url })).await;
    }

    /// The value of a function's body: `return document.title`.
    pub async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", json!({"script": script, "args": []})).await
    }

    /// Presses and releases one key after the other, wherever the focus is.
    pub async fn press(&self, keys: impl IntoIterator<Item = char>) {
        let strokes = keys.into_iter().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let strokes: Vec<Value> = strokes.collect();
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.command("actions", keyboard).await;
    }

    /// What the system would say of colours and of motion.
    pub async fn prefer(&self, colours: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": colours},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.chromium("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The size of the page, which may be narrower than a window can be.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.chromium("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Errors and warnings of the console since the last look.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.command("se/log", json!({"type": "browser"})).await;
        let is_bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        log.as_array()
            .expect("a log is a list")
            .iter()
            .filter(is_bad)
            .map(ToString::to_string)
            .collect()
    }

    /// Saves what is to be seen, where a person can look at it after the test.
    pub async fn save_screenshot(&self, name: &str) -> PathBuf {
        let url = format!("/session/{}/screenshot", self.session);
        let (_, answer) = self.request("GET", &url, None).await.expect("the driver answers");
        let image = base64::engine::general_purpose::STANDARD
            .decode(answer["value"].as_str().expect("an image"))
            .expect("an image is base64");
        let folder = screenshots();
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        let file = folder.join(format!("{name}.png"));
        std::fs::write(&file, image).expect("the image can be written");
        file
    }

    async fn chromium(&self, command: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    async fn command(&self, name: &str, body: Value) -> Value {
        let path = format!("/session/{}/{name}", self.session);
        let (status, mut answer) =
            self.request("POST", &path, Some(body)).await.expect("the driver answers");
        assert_eq!(status, 200, "{name}: {answer}");
        answer["value"].take()
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<(u16, Value)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        daemon::request(&self.http, method, &url, body).await
    }
}

impl Drop for Browser {
    /// The driver ends its browser when the session is deleted, and not when it is killed itself.
    fn drop(&mut self) {
        let deleted = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut socket| {
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let path = format!("/session/{}", self.session);
            write!(
                socket,
                "DELETE {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
            )?;
            socket.read(&mut [0])
        });
        if let Err(error) = deleted {
            eprintln!("the browser was not ended: {error}");
        }
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}

/// Where screenshots go: the run's folder, or what `DRIFTLESS_TEST_SCREENSHOTS` says to keep them.
fn screenshots() -> PathBuf {
    let kept = std::env::var_os("DRIFTLESS_TEST_SCREENSHOTS").map(PathBuf::from);
    let run = std::env::var_os("DRIFTLESS_TEST_RUN").map(|run| Path::new(&run).join("screenshots"));
    kept.or(run).unwrap_or_else(|| std::env::temp_dir().join("driftless-screenshots"))
}
