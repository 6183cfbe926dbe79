//! The page for people: its files as they are, what a browser may do with them, and what the page may ask of the door.
//! Knows no link and no index; the page asks for them itself.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Requests with a body that only ask. Each is the end of a path.
const QUESTIONS: [&str; 2] = ["/_search", "/_predict"];

pub(super) async fn html() -> Response {
    file("text/html; charset=utf-8", include_str!("page.html"))
}

pub(super) async fn css() -> Response {
    file("text/css; charset=utf-8", include_str!("page.css"))
}

pub(super) async fn js() -> Response {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

pub(super) async fn mark() -> Response {
    file("image/svg+xml", include_str!("mark.svg"))
}

/// Whether a browser asks, which is shown the page.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/html"))
}

/// Sends a browser to the page.
pub(super) fn elsewhere() -> Response {
    (StatusCode::FOUND, [(header::LOCATION, "ui"), (header::VARY, "Accept")]).into_response()
}

/// Whether a request that a page sends is a question of our own page. The page of another site has another `Origin`
/// than the `Host` it sends to; one whose name was made to lead here has the same, which is why a name counts only where
/// something else tells that the page is ours.
pub(super) fn may_ask(path: &str, headers: &HeaderMap, names_count: bool) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else {
        return false;
    };
    let is_ours = origin.split_once("://").is_some_and(|(_, place)| place == host);
    is_ours
        && (names_count || is_no_name(host))
        && QUESTIONS.iter().any(|question| path.ends_with(question))
}

/// Whether `host:port` is an address, or this machine's own name.
fn is_no_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version may answer at this address tomorrow.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(path: &str, origin: &'static str, host: &'static str) -> bool {
        let value = axum::http::HeaderValue::from_static;
        let headers = [(header::ORIGIN, value(origin)), (header::HOST, value(host))];
        may_ask(path, &headers.into_iter().collect(), false)
    }

    #[test]
    fn a_name_counts_where_a_token_shows_whose_page_it_is() {
        let value = axum::http::HeaderValue::from_static;
        let (origin, host) = (value("https://door.example"), value("door.example"));
        let ours: HeaderMap =
            [(header::ORIGIN, origin), (header::HOST, host)].into_iter().collect();
        assert!(may_ask("/products/_search", &ours, true));
        assert!(!may_ask("/products/_search", &ours, false));
        assert!(!may_ask("/_sql", &ours, true));
    }

    #[test]
    fn our_own_page_may_ask_and_nothing_else() {
        for host in ["127.0.0.1:9220", "[::1]:9220", "localhost:9220", "10.1.2.3"] {
            let origin: &'static str = format!("http://{host}").leak();
            assert!(may("/products/_search", origin, host), "{host}");
            assert!(may("/_plugins/_ml/models/hashing/_predict", origin, host), "{host}");
            assert!(!may("/_sql", origin, host), "{host}");
            assert!(!may("/products/_doc/1", origin, host), "{host}");
        }
    }

    #[test]
    fn a_page_from_elsewhere_may_not_even_ask() {
        assert!(!may("/products/_search", "http://evil.example", "127.0.0.1:9220"));
        assert!(!may("/products/_search", "http://127.0.0.1:8000", "127.0.0.1:9220"));
        assert!(!may("/products/_search", "null", "127.0.0.1:9220"));
        // A name that was made to lead to this machine.
        assert!(!may("/products/_search", "http://evil.example:9220", "evil.example:9220"));
        assert!(!may("/products/_search", "http://1.evil.example:9220", "1.evil.example:9220"));
    }
}
