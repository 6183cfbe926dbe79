//! `driftless run`: the daemon. Configuration, state, port, links, in this order; and back in bounded time when it is told
//! to stop.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Failure, wiring};
use crate::admin::http;
use crate::config::Loaded;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Supervisor;
use crate::net;
use crate::telemetry::log;

/// From the signal to the end; service managers kill after 10 to 90 s.
const STOP_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: wiring::ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let loaded = arguments.config.load()?;
    log::start(&loaded.config.log).map_err(|error| Failure::Usage(error.report()))?;
    net::http::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("driftless")
        .build()
        .map_err(|cause| Failure::Failed(format!("cannot start: {cause}")))?;
    let ended = runtime.block_on(serve(loaded));
    // What still blocks a thread now would do so for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended.map_err(|error| {
        tracing::error!(error = %error.report(), "stopped");
        Failure::Failed(String::new())
    })
}

async fn serve(loaded: Loaded) -> Result<()> {
    let Loaded { config, links } = loaded;
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let state_dir = config.state_dir();
    let state = wiring::open_state(&config, &state_dir)?;
    let listener = http::bind(&config.http).await?;
    let listen = listener.local_addr().unwrap_or(config.http.listen);
    if !listen.ip().is_loopback() {
        tracing::warn!(address = %listen, "the HTTP door has no authentication and can be reached from other machines");
    }
    let control = Supervisor::start(wiring::parts(config, state), links)?;
    tracing::info!(
        address = %listen,
        state_dir = %state_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    let (stop, mut stopped) = watch::channel(false);
    let until_stopped = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let mut door = tokio::spawn(http::serve(listener, control.clone(), until_stopped));
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        ended = &mut door => return door_ended(ended),
    };
    tracing::info!(signal, "stopping");
    let _ = stop.send(true);
    let all = async {
        control.shutdown().await;
        let _ = (&mut door).await;
    };
    tokio::select! {
        done = tokio::time::timeout(STOP_MAX, all) => match done {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped before all was finished; the rest follows at the next start"),
        },
        _ = terminate.recv() => tracing::warn!("stopped at the second signal"),
        _ = interrupt.recv() => tracing::warn!("stopped at the second signal"),
    }
    door.abort();
    Ok(())
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    signal(kind)
        .map_err(|cause| Error::new(ErrorKind::Io, "cannot listen for signals").caused_by(cause))
}

/// The door ends before the signal only when it breaks.
fn door_ended(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    let broke = |cause| Error::new(ErrorKind::Io, "the HTTP door broke").caused_by(cause);
    ended.map_err(broke)??;
    Err(Error::new(ErrorKind::Io, "the HTTP door ended"))
}
