//! The independent check of an index against its table: `checker.py`, a program in another language with public clients.
//! Knows nothing of Driftless.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde::Deserialize;
use serde_json::{Value, json};

const PROGRAM: &str = include_str!("checker.py");
const CLIENTS: [&str; 2] = ["opensearch-py==3.2.0", "PyMySQL==1.2.4"];

/// Differences by the ids of documents, in order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    pub rows: u64,
    pub documents: u64,
    pub missing: Vec<String>,
    pub extra: Vec<String>,
    pub different: Vec<String>,
    pub stale: Vec<String>,
}

impl Found {
    pub fn is_clean(&self) -> bool {
        let Self { missing, extra, different, stale, .. } = self;
        [missing, extra, different, stale].iter().all(|ids| ids.is_empty())
    }
}

/// What is to be compared.
#[derive(Debug, Clone)]
pub struct Checker {
    pub mysql: String,
    pub node: String,
    pub table: String,
    pub index: String,
    pub key: Vec<&'static str>,
    /// Field → column.
    pub fields: Value,
    /// Vector field → column of its text.
    pub vectors: Value,
    /// Whether the node has scrolls.
    pub scrolls: bool,
}

impl Checker {
    pub async fn run(&self) -> Found {
        let asked = json!({
            "mysql": self.mysql, "node": self.node, "table": self.table, "index": self.index,
            "key": self.key, "fields": self.fields, "vectors": self.vectors, "scrolls": self.scrolls,
        });
        let checked = tokio::task::spawn_blocking(move || check(&asked.to_string()));
        checked.await.expect("the checker does not panic")
    }
}

fn check(asked: &str) -> Found {
    let mut child = Command::new(python())
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = child.stdin.take().expect("it reads");
    input.write_all(asked.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("python ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).expect("the checker answers in JSON")
}

/// A Python with the clients, made once in the target directory.
fn python() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(CLIENTS.join("-"));
    let python = venv.join("bin/python");
    let imports = || {
        let import = Command::new(&python).args(["-c", "import opensearchpy, pymysql"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    if imports() {
        return python;
    }
    let run = |command: &mut Command| {
        let output =
            command.output().expect("python3 is there; `tests/servers/install servers` gets it");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(CLIENTS));
    python
}
