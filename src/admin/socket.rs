//! The door's connections: accepted, encrypted, bounded in number and in time. Knows no request.
//!
//! axum's own server knows neither TLS nor deadlines, and takes as many connections as come: decision 0063.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::access::Peer;
use super::tls::{self, Tls};

/// More than a page, some dozen clients and a scraper have; each has at most [`BUFFER_BYTES_MAX`] of what it has sent
/// outside of a body.
const CONNECTIONS_MAX: usize = 512;
/// A request's head with all its headers.
const BUFFER_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// From the connection's beginning, or the answer before, to the end of the next head. Not 15 or 30 s, after which many
/// clients ask again on the same connection, and would find it just closed.
const HEAD_MAX: Duration = Duration::from_secs(25);
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How often the certificate's files are looked at.
const RENEWAL: Duration = Duration::from_secs(10);

/// Answers until `stop` comes, and then finishes what was begun.
pub async fn serve(
    mut listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    stop: impl Future<Output = ()> + Send,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (ending, is_ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut renewal = tokio::time::interval(RENEWAL);
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, accept(&mut listener).await)
        };
        let (place, stream) = tokio::select! {
            accepted = next => accepted,
            () = &mut stop => break,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            _ = renewal.tick() => {
                if let Some(tls) = &tls { tls.renew(); }
                continue;
            }
        };
        let settings = tls.as_ref().map(Tls::settings);
        let connection =
            Connection { router: router.clone(), is_ending: is_ending.clone(), _place: place };
        connections.spawn(connection.begin(stream, settings));
    }
    drop(listener);
    let _ = ending.send(true);
    while connections.join_next().await.is_some() {}
}

/// axum's way of accepting: it waits where there are too many open files, and takes no harm from who has gone already.
async fn accept(listener: &mut TcpListener) -> TcpStream {
    axum::serve::Listener::accept(listener).await.0
}

/// So long an answer may lie unread.
const UNREAD_MAX: Duration = Duration::from_secs(30);

struct Connection {
    router: Router,
    is_ending: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn begin(mut self, stream: TcpStream, settings: Option<Arc<rustls::ServerConfig>>) {
        let _ = stream.set_nodelay(true);
        // Who asks and does not read the answer gives the place back.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_MAX));
        let Some(settings) = settings else {
            return self.speak(stream, Peer::default()).await;
        };
        let handshake = TlsAcceptor::from(settings).accept(stream);
        let ended = self.is_ending.wait_for(|ends| *ends);
        let encrypted = tokio::select! {
            made = tokio::time::timeout(HANDSHAKE_MAX, handshake) => made,
            _ = ended => return,
        };
        match encrypted {
            Ok(Ok(stream)) => {
                let peer = tls::peer(stream.get_ref().1);
                self.speak(stream, peer).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake at the door failed"),
            Err(_) => tracing::debug!("a TLS handshake at the door took too long"),
        }
    }

    async fn speak(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        let service = TowerToHyperService::new(self.router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let answer = service.call(request);
            async move {
                Ok::<Response, Infallible>(answer.await.unwrap_or_else(|never| match never {}))
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_header_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = async { self.is_ending.wait_for(|ends| *ends).await.is_ok() };
        let done = tokio::select! {
            done = connection.as_mut() => done,
            _ = ended => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a connection at the door broke");
        }
    }
}
