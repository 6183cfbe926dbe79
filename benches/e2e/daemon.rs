//! The real daemon as a process of its own, and what the kernel counts of it. Knows it only from outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::null_sink::{Checksum, INDEX, NullSink};

/// Longer than any run takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub struct Daemon {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    began: Instant,
}

/// What a phase took: of time from the daemon's start to the last bulk, of the daemon's processor time and memory.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub elapsed: Duration,
    pub cpu: Duration,
    pub peak_rss_bytes: u64,
}

impl Daemon {
    /// A daemon with one link over the whole table, all else as it is by default.
    pub fn new(source_port: u16, sink: &NullSink) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port of the loopback");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let state = dir.path().join("state");
        let config = format!(
            "state_dir = {state:?}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[log]\nlevel = \"warn\"\n\
             [source]\nport = {source_port}\nuser = \"root\"\n[sink]\naddresses = [\"{}\"]\n\
             [[links]]\ntable = \"bench.goods\"\nindex = \"{INDEX}\"\n",
            sink.url()
        );
        fs::write(dir.path().join("driftless.toml"), config).expect("a file in a folder of ours");
        Self { dir, port, child: None, began: Instant::now() }
    }

    pub fn start(&mut self) {
        // Another build can be measured against this one.
        let binary = std::env::var_os("BENCH_DAEMON")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_driftless")), PathBuf::from);
        self.began = Instant::now();
        let child = Command::new(binary)
            .arg("run")
            .arg("--config")
            .arg(self.dir.path().join("driftless.toml"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the daemon can be started");
        self.child = Some(child);
    }

    /// Waits until the sink holds what it should, and says what that took.
    pub async fn until_written(&mut self, sink: &NullSink, expected: Checksum) -> Cost {
        let (mut pause, began) = (tokio::time::interval(LOOK_EVERY), self.began);
        loop {
            pause.tick().await;
            let (found, last_read, fault) = {
                let state = sink.state();
                (state.checksum, state.last_read, state.fault.clone())
            };
            assert!(fault.is_none(), "the sink was sent {}", fault.unwrap_or_default());
            if found == expected {
                let elapsed = last_read.map_or(began.elapsed(), |at| at.duration_since(began));
                return Cost { elapsed, cpu: self.cpu(), peak_rss_bytes: self.peak_rss_bytes() };
            }
            assert!(self.is_running(), "the daemon has ended");
            assert!(
                began.elapsed() < PATIENCE,
                "the sink holds {found:?}, not {expected:?}: rows were lost or changed"
            );
        }
    }

    /// Waits until `/metrics` says that the link has caught up.
    pub async fn until_caught_up(&self) {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        let line = format!("driftless_link_state{{link=\"{INDEX}\",state=\"running\"}} 1");
        while !self.metrics().unwrap_or_default().contains(&line) {
            assert!(self.began.elapsed() < PATIENCE, "the link did not catch up");
            pause.tick().await;
        }
    }

    fn metrics(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // std has no signals but SIGKILL; the shell's own `kill` is there on every system.
        let signal = format!("kill -TERM {}", child.id());
        Command::new("sh").args(["-c", &signal]).status().expect("there is a shell");
        let mut pause = tokio::time::interval(LOOK_EVERY);
        while child.try_wait().expect("a child of ours can be waited for").is_none() {
            pause.tick().await;
        }
    }

    /// Puts the state directory as it is aside.
    pub fn save_state(&self) {
        copy(&self.dir.path().join("state"), &self.dir.path().join("saved"));
    }

    /// Puts the state back that was saved.
    pub fn restore_state(&self) {
        self.forget_state();
        copy(&self.dir.path().join("saved"), &self.dir.path().join("state"));
    }

    pub fn forget_state(&self) {
        fs::remove_dir_all(self.dir.path().join("state")).ok();
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn proc(&self, file: &str) -> String {
        let id = self.child.as_ref().expect("only a running daemon can be looked at").id();
        fs::read_to_string(format!("/proc/{id}/{file}")).expect("/proc tells about a child of ours")
    }

    /// User and system time of all its threads since it was started.
    fn cpu(&self) -> Duration {
        /// `USER_HZ`, which is 100 on every Linux.
        const TICK: Duration = Duration::from_millis(10);
        let stat = self.proc("stat");
        // The second field is a name and may hold anything up to the last parenthesis.
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let field = |at| behind_name.split(' ').nth(at).and_then(|n: &str| n.parse::<u32>().ok());
        let ticks = field(11).zip(field(12)).map(|(user, system)| user + system);
        TICK * ticks.expect("/proc/…/stat has its form")
    }

    fn peak_rss_bytes(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("/proc/…/status has its form") * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder in a folder of ours");
    for entry in fs::read_dir(from).expect("the state directory is there") {
        let entry = entry.expect("the state directory can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file of the state can be copied");
        }
    }
}
