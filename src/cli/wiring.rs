//! From the arguments to the parts of the daemon: finds the file, loads it, opens the state. Starts nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::{self, Config, Loaded};
use crate::error::Result;
use crate::link::Parts;
use crate::state::{SealingKey, State};

const KEY_VARIABLE: &str = "DRIFTLESS_SECRET_KEY";
const FILES: [&str; 2] = ["./driftless.toml", "/etc/driftless/driftless.toml"];

#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// The configuration [default: ./driftless.toml, then /etc/driftless/driftless.toml]
    #[arg(long, value_name = "FILE", env = "DRIFTLESS_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    pub fn load(&self) -> Result<Loaded, Failure> {
        let Some(file) = self.find() else {
            return Err(Failure::Usage(format!(
                "there is no configuration at {}; name one with --config",
                FILES.join(" or ")
            )));
        };
        config::load(&file).map_err(|problems| Failure::Usage(problems.to_string()))
    }

    /// Where the configuration's daemon is found from this machine: `https://127.0.0.1:9220`.
    pub fn address(&self) -> Result<String, Failure> {
        let door = match self.find() {
            Some(file) => {
                config::door(&file).map_err(|problems| Failure::Usage(problems.to_string()))?
            }
            None => Config::default().http,
        };
        let scheme = if door.tls.cert_file.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", from_here(door.listen)))
    }

    /// The file's name for messages.
    pub fn shown(&self) -> String {
        self.find().map(|file| file.display().to_string()).unwrap_or_default()
    }

    fn find(&self) -> Option<PathBuf> {
        let found = || FILES.iter().map(PathBuf::from).find(|file| file.is_file());
        self.config.clone().or_else(found)
    }
}

/// Where a door that listens at `listen` is found from this machine: who listens everywhere is found here.
pub(super) fn from_here(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

/// Whether the environment has the key of the credentials.
pub(super) fn has_key_in_env() -> bool {
    std::env::var_os(KEY_VARIABLE).is_some()
}

/// Opens the state in `dir`, which is made if it is not there.
pub(super) fn open_state(config: &Config, dir: &Path) -> Result<State> {
    let from_env = std::env::var(KEY_VARIABLE).ok();
    let key = SealingKey::load(from_env.as_deref(), config.secrets.key_file.as_deref(), dir)?;
    State::open(dir, key)
}

/// The parts of a daemon; embedded indexes lie beside its state.
pub(super) fn parts(mut config: Config, state: State) -> Parts {
    config.sink.index_dir = config.state_dir().join("index");
    Parts {
        link: config.link,
        source: config.source,
        snapshot: config.snapshot,
        sink: config.sink,
        pipeline: config.pipeline,
        standby: config.standby,
        memory_limit_bytes: config.memory_limit_bytes,
        state,
    }
}
