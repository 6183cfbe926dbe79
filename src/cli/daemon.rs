//! The daemon in this process, and the signals that end it: started from its parts, and back in bounded time. Reads no
//! arguments and no files.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Failure, wiring};
use crate::admin::http;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Spec;
use crate::link::standby::Seat;
use crate::state::State;

/// From the signal to the end; service managers kill after 10 to 90 s.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Runs `task` on a runtime of its own, which ends with it.
pub(super) fn block_on<T>(task: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("driftless")
        .build()
        .map_err(|cause| Failure::Failed(format!("cannot start: {cause}")))?;
    let done = runtime.block_on(task);
    // What still blocks a thread now would do so for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(done)
}

/// Links that run, and the HTTP door in front of them.
pub(super) struct Daemon {
    seat: Seat,
    door: JoinHandle<Result<()>>,
    stop: watch::Sender<bool>,
    listen: SocketAddr,
}

impl Daemon {
    /// Takes up the links of the state and makes those of the configuration; answers at once.
    pub fn start(
        config: Config,
        state: State,
        bound: http::Bound,
        links: Vec<Spec>,
    ) -> Result<Self> {
        let listen = bound.address()?;
        if !listen.ip().to_canonical().is_loopback() && !bound.is_encrypted() {
            tracing::warn!(address = %listen, "the HTTP door can be reached from other machines and does not encrypt: tokens cross the network as they are");
        }
        let seat = Seat::take(wiring::parts(config, state), links)?;
        let (stop, mut stopped) = watch::channel(false);
        let until_stopped = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let door = tokio::spawn(http::serve(bound, seat.clone(), until_stopped));
        Ok(Self { seat, door, stop, listen })
    }

    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Resolves when the source has ended and all of it is written.
    pub fn finished(&self) -> impl Future<Output = Result<()>> + use<> {
        let control = self.seat.control();
        async move { control.finished().await }
    }

    /// Resolves when the door has ended by itself, which it does only when it breaks.
    pub async fn broken(&mut self) -> Error {
        let broke = |cause| Error::new(ErrorKind::Io, "the HTTP door broke").caused_by(cause);
        match (&mut self.door).await {
            Ok(Ok(())) => Error::new(ErrorKind::Io, "the HTTP door ended"),
            Ok(Err(error)) => error,
            Err(cause) => broke(cause),
        }
    }

    /// Stops everything at a clean checkpoint; at once at a second signal.
    pub async fn stop(mut self, signals: &mut Signals) {
        let _ = self.stop.send(true);
        let all = async {
            self.seat.shutdown().await;
            let _ = (&mut self.door).await;
        };
        tokio::select! {
            done = tokio::time::timeout(STOP_MAX, all) => match done {
                Ok(()) => tracing::info!("stopped"),
                Err(_) => tracing::warn!("stopped before all was finished; the rest follows at the next start"),
            },
            _ = signals.next() => tracing::warn!("stopped at the second signal"),
        }
        self.door.abort();
    }
}

/// What asks a process to end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> Result<Self> {
        Ok(Self {
            terminate: listen_for(SignalKind::terminate())?,
            interrupt: listen_for(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal> {
    signal(kind)
        .map_err(|cause| Error::new(ErrorKind::Io, "cannot listen for signals").caused_by(cause))
}
