//! How the source is reached and read. Must not know what is done with what is read.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::error::Result;
use crate::mysql;
use crate::naive::{Rule, is_naive};
use crate::net::{secret, tls};

/// One MySQL server, or a replica set that is reached by one address.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The folder of a source of files.
    pub path: Option<PathBuf>,
    /// Of a source of files: where they end, all that they hold is written and the daemon ends.
    pub until_end: bool,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<SecretString>,
    pub password_file: Option<PathBuf>,
    pub tls: tls::Config,
    /// What we are among the source's replicas; one that nobody has is taken where none is given.
    pub server_id: Option<u32>,
    pub resume: Resume,
    pub connect_timeout_ms: u64,
    /// How often the source says that it is alive while it has nothing else to say.
    pub heartbeat_ms: u64,
    /// How long the source may be silent before the connection counts as dead; at least two heartbeats.
    pub read_timeout_ms: u64,
}

/// What is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A server.
    #[default]
    Mysql,
    /// A folder of its log files, for replays and tests.
    BinlogFiles,
}

/// By what the stream is taken up again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// By the set of transactions: also on another server that has them.
    #[default]
    Gtid,
    /// By file and offset: only on the server that wrote the file.
    File,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            path: None,
            until_end: false,
            host: "127.0.0.1".into(),
            port: 3306,
            user: "driftless".into(),
            password: None,
            password_file: None,
            tls: tls::Config::default(),
            server_id: None,
            resume: Resume::default(),
            connect_timeout_ms: 10_000,
            heartbeat_ms: 1_000,
            read_timeout_ms: 10_000,
        }
    }
}

impl Config {
    /// The folder of log files, if there is one in the place of a server.
    pub fn files(&self) -> Option<&Path> {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        (self.kind == Kind::BinlogFiles).then_some(path)
    }

    /// The password, from its file where it has one; empty for an account without.
    pub fn secret(&self) -> Result<SecretString> {
        let (given, file) = (self.password.as_ref(), self.password_file.as_deref());
        Ok(secret::load("the source's password", given, file)?.unwrap_or_default())
    }

    /// How the replication connection is made.
    pub fn replication_options(&self) -> Result<mysql::Options> {
        Ok(mysql::Options {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            password: self.secret()?,
            tls: self.tls.clone(),
            connect_timeout: self.connect_timeout(),
        })
    }

    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// The one that was given, else one of the upper half, drawn once for the life of the process: people number their
    /// servers from below.
    pub fn server_id(&self) -> u32 {
        static DRAWN: OnceLock<u32> = OnceLock::new();
        self.server_id.unwrap_or_else(|| *DRAWN.get_or_init(drawn_server_id))
    }

    /// The same for a second reader of the log, which the server must be able to tell from the first.
    pub fn with_server_id_of_its_own(&self) -> Self {
        let id = if is_naive(Rule::Tailers) { self.server_id() } else { drawn_server_id() };
        Self { server_id: Some(id), ..self.clone() }
    }

    pub fn read_timeout_ms(&self) -> u64 {
        self.read_timeout_ms.max(self.heartbeat_ms.saturating_mul(2)).max(1)
    }
}

/// One of the upper half, another one each time: for a reader beside the one that follows the log.
pub fn drawn_server_id() -> u32 {
    (uuid::Uuid::new_v4().as_u128() as u32) | 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn the_password_is_read_from_its_file_and_never_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("password");
        std::fs::write(&path, "sesame\r\n").expect("writes");
        let mut config = Config { password_file: Some(path), ..Config::default() };
        assert_eq!(config.secret().expect("reads").expose_secret(), "sesame");
        config.password = Some("other".into());
        assert_eq!(config.secret().expect("reads").expose_secret(), "other");
        assert!(!format!("{config:?}").contains("other"));
    }

    #[test]
    fn the_server_id_stays_the_same() {
        let config = Config::default();
        assert_eq!(config.server_id(), Config::default().server_id());
        assert!(config.server_id() >= 1 << 31);
        assert_eq!(Config { server_id: Some(7), ..config }.server_id(), 7);
    }
}
