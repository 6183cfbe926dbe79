//! Stands before every request at the door: finds out who asks and lets nobody pass who may not. Knows the table, and no
//! handler.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{Access, Caller, Peer, Role, role};
use crate::admin::{http, page};
use crate::error::Error;
use crate::telemetry::metrics::metrics;

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"driftless\"");

/// Handlers find the [`Caller`] among the request's extensions.
pub async fn guard(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let needed = needed(&request);
    let caller = match (access.caller(request.headers(), &peer), needed) {
        (Ok(caller), _) => caller,
        // Who may ask anyway is not asked who he is.
        (Err(_), None) => Caller { role: None, has_token: false },
        (Err(error), Some(_)) => return unknown(request, error).await,
    };
    match (caller.role, needed) {
        (None, Some(_)) => {
            let error = Error::input("no token was sent").with_advice(
                "send the header Authorization: Bearer TOKEN; for the driftless command: --token-file FILE, or $DRIFTLESS_TOKEN",
            );
            unknown(request, error).await
        }
        (Some(role), Some(needed)) if role < needed => {
            let uri = request.uri().clone();
            http::throw_away(request.into_body()).await;
            forbidden(&uri, role, needed)
        }
        _ => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    }
}

fn needed(request: &Request) -> Option<Role> {
    let is_browser_at_top = request.uri().path() == "/" && page::is_wanted(request.headers());
    match is_browser_at_top {
        true => None,
        false => role::of_request(request.method(), request.uri().path()),
    }
}

/// Nobody knows who asks.
async fn unknown(request: Request, error: Error) -> Response {
    let uri = request.uri().clone();
    http::throw_away(request.into_body()).await;
    metrics().http_unknown.inc();
    let mut response = http::refused(StatusCode::UNAUTHORIZED, &uri, error);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
    response
}

/// The one who asks is known, and may not.
pub fn forbidden(uri: &Uri, has: Role, needs: Role) -> Response {
    metrics().http_forbidden.inc();
    let (has, needs) = (has.as_str(), needs.as_str());
    let error = Error::input(format!("this needs the role `{needs}`; you have `{has}`"))
        .with_advice(format!("ask with a token whose role is `{needs}`"));
    http::refused(StatusCode::FORBIDDEN, uri, error)
}
