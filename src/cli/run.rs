//! `driftless run`: the daemon. Configuration, state, port, links, in this order, until it is told to stop.

use super::daemon::{Daemon, Signals, block_on};
use super::{Failure, wiring};
use crate::admin::http;
use crate::config::Loaded;
use crate::error::Result;
use crate::net;
use crate::telemetry::log;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: wiring::ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let loaded = arguments.config.load()?;
    log::start(&loaded.config.log).map_err(|error| Failure::Usage(error.report()))?;
    net::http::install_crypto();
    block_on(serve(loaded))?.map_err(|error| {
        tracing::error!(error = %error.report(), "stopped");
        Failure::Failed(String::new())
    })
}

async fn serve(loaded: Loaded) -> Result<()> {
    let Loaded { config, links } = loaded;
    let mut signals = Signals::listen()?;
    let state_dir = config.state_dir();
    let state = wiring::open_state(&config, &state_dir)?;
    let bound = http::bind(&config.http).await?;
    let has_end = config.source.files().is_some() && config.source.until_end;
    let mut daemon = Daemon::start(config, state, bound, links)?;
    tracing::info!(
        address = %daemon.listen(),
        state_dir = %state_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    let finished = daemon.finished();
    let signal = tokio::select! {
        ended = finished, if has_end => {
            daemon.stop(&mut signals).await;
            return ended;
        }
        signal = signals.next() => signal,
        broken = daemon.broken() => return Err(broken),
    };
    tracing::info!(signal, "stopping");
    daemon.stop(&mut signals).await;
    Ok(())
}
