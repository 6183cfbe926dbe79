//! HTTP clients for what we call: the model's endpoint and the sink. Says which failures waiting can mend; knows
//! nothing of what is asked or answered.

use std::{
    sync::{Arc, Once},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, ClientBuilder, Response, StatusCode, dns::Resolve, header, redirect};

use crate::error::{Error, ErrorKind, Result};

/// An idle connection is dropped before common load balancers drop it (60 s) and a request would run into that.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// What a client is for; the wishes of its caller.
#[derive(Clone)]
pub struct Options {
    pub connect_timeout: Duration,
    /// From the first byte sent to the last byte read; a request may ask for another one.
    pub timeout: Duration,
    /// Idle connections kept per host.
    pub idle_connections: usize,
    /// Replaces the system's resolver, to look at addresses before they are called.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Replaces the platform's certificates and verifier.
    pub tls: Option<rustls::ClientConfig>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            idle_connections: 16,
            resolver: None,
            tls: None,
        }
    }
}

/// Whose failure an error is, which decides its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Model,
    Sink,
}

impl Side {
    /// The kind of what waiting can mend.
    pub fn busy(self) -> ErrorKind {
        match self {
            Self::Model => ErrorKind::ModelBusy,
            Self::Sink => ErrorKind::SinkBusy,
        }
    }
}

/// A client that follows no redirect and uses no proxy of the environment: both would lead a request, with its
/// credentials, to where nobody allowed it to go.
pub fn client(options: Options) -> Result<Client> {
    install_crypto();
    let build = |certificates: bool| {
        let mut builder: ClientBuilder = Client::builder()
            .user_agent(concat!("driftless/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(options.idle_connections)
            .tcp_nodelay(true);
        if let Some(resolver) = &options.resolver {
            builder = builder.dns_resolver(resolver.clone());
        }
        match &options.tls {
            Some(tls) => builder.tls_backend_preconfigured(tls.clone()),
            None if certificates => builder,
            None => builder.tls_certs_only([]),
        }
        .build()
    };
    // A bare machine has no certificates at all: plain HTTP must work there, and HTTPS fail when it is used.
    build(true).or_else(|error| {
        tracing::warn!(%error, "no certificates of this machine can be used; https calls will fail until ca-certificates is installed");
        build(false)
    })
    .map_err(|error| Error::new(ErrorKind::Io, "cannot build an HTTP client").caused_by(error))
}

/// Makes ring the process's cryptography, once; whoever was first wins, and all of ours ask for ring.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Statuses of which the same request may succeed later.
pub fn is_busy(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// A request that got no whole answer, in words without the URL (it may hold a secret).
pub fn reason(error: &reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() && !error.is_connect() {
        return format!("no answer within {} ms", timeout.as_millis());
    }
    let mut text =
        if error.is_connect() { "cannot connect" } else { "the connection broke off" }.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        // Only the innermost cause tells something; the ones between say "client error".
        if inner.source().is_none() {
            text.push_str(": ");
            text.push_str(&inner.to_string());
        }
        cause = inner.source();
    }
    text
}

/// The same as an error of `side` that is worth another try.
pub fn error(side: Side, tried: &str, error: &reqwest::Error, timeout: Duration) -> Error {
    Error::new(side.busy(), format!("{tried}: {}", reason(error, timeout)))
}

/// The patience that an answer asks for: `Retry-After` in seconds or as a date.
pub fn retry_after(headers: &header::HeaderMap, now: SystemTime) -> Option<Duration> {
    patience(headers.get(header::RETRY_AFTER)?.to_str().ok()?, now)
}

/// The same of the header's value alone.
pub fn patience(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = UNIX_EPOCH + Duration::from_secs(http_date(value)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// The whole body, if it is not longer than `limit` bytes; `Ok(None)` if it is.
pub async fn body(mut response: Response, limit: usize) -> reqwest::Result<Option<Bytes>> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if whole.len() + chunk.len() > limit {
            return Ok(None);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Some(whole.freeze()))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the form that servers must send (RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut parts = text.strip_suffix(" GMT")?.split_once(", ")?.1.split([' ', ':']);
    let day: u64 = parts.next()?.parse().ok()?;
    let month = parts.next().filter(|name| name.len() == 3)?;
    let month = MONTHS.find(month).filter(|at| at % 3 == 0)? as u64 / 3 + 1;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let [hour, minute, second] =
        [parts.next()?, parts.next()?, parts.next()?].map(|part| part.parse::<u64>().ok());
    // Days since 1970 by counting years from March, so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day.checked_sub(1)? - 719_468;
    Some(((days * 24 + hour?) * 60 + minute?) * 60 + second?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str, now_s: u64) -> Option<Duration> {
        let mut headers = header::HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().expect("a header value"));
        retry_after(&headers, UNIX_EPOCH + Duration::from_secs(now_s))
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        assert_eq!(asked("7", 0), Some(Duration::from_secs(7)));
        assert_eq!(
            asked("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            asked("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800 - 5),
            Some(Duration::from_secs(5))
        );
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", 900_000_000), Some(Duration::ZERO));
    }

    #[test]
    fn a_retry_after_that_means_nothing_is_ignored() {
        for value in [
            "",
            "soon",
            "-1",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "x, GMT",
        ] {
            assert_eq!(asked(value, 0), None, "{value}");
        }
    }

    #[test]
    fn only_patience_is_called_busy() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(is_busy(StatusCode::from_u16(status).expect("a status")), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 413, 422] {
            assert!(!is_busy(StatusCode::from_u16(status).expect("a status")), "{status}");
        }
    }
}
