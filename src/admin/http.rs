//! The HTTP door: statements, metrics, health, and the requests about models and pipelines that an OpenSearch node would
//! answer. Who may ask is [`super::access`]'s to say; a browser's page from elsewhere may not change anything through it.
//! Knows links by their [`Control`] alone.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, FromRef, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

pub use super::access::config::Config;
use super::access::{Access, Caller, Peer, Role, guard, role};
use super::tls::Tls;
use super::{answer, execute, page, socket, table::Table};
use crate::error::{Error, ErrorKind, Result};
use crate::link::standby::{Seat, Waiting};
use crate::link::{Control, Status};
use crate::statement;
use crate::telemetry::metrics::metrics;

/// No statement and no definition is longer.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What is read and thrown away of a longer body: who has not finished sending would not hear the answer.
const BODY_BYTES_IGNORED: usize = 16 << 20;
/// Between two parts of a body, and for all of it: somebody who sends a byte now and then keeps a place from others.
const BODY_PART_MAX: Duration = Duration::from_secs(20);
const BODY_MAX: Duration = Duration::from_secs(300);
/// For the rest of a body that nobody reads.
const REST_MAX: Duration = Duration::from_secs(5);

const WHAT_IS_HERE: &str = "Driftless answers at POST /_sql, GET /ui, /_links, /metrics, /healthz, /readyz, and at \
    /_cluster/settings, /_plugins/_ml/… and /_ingest/pipeline/… as an OpenSearch node does; searches and documents are \
    at the search node itself";

/// The open port, and who may come in by it.
pub struct Bound {
    listener: TcpListener,
    tls: Option<Tls>,
    access: Arc<Access>,
}

impl Bound {
    /// Where it listens: the port is known even where any free one was asked for.
    pub fn address(&self) -> Result<SocketAddr> {
        let unknown =
            |cause| Error::new(ErrorKind::Io, "the open port has no address").caused_by(cause);
        self.listener.local_addr().map_err(unknown)
    }

    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }
}

/// Opens the port, so that a taken one is known before anything starts. Reads the files of tokens and certificates.
pub async fn bind(config: &Config) -> Result<Bound> {
    let (tls, access) = (Tls::new(&config.tls)?, Arc::new(Access::new(config)?));
    let listener = TcpListener::bind(config.listen).await.map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot listen on {}", config.listen))
            .caused_by(cause)
            .with_advice("stop what listens there, or choose another `http.listen`")
    })?;
    Ok(Bound { listener, tls, access })
}

/// Answers until `stop` comes, and then finishes what was begun.
pub async fn serve(
    bound: Bound,
    seat: Seat,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let is_of_this_machine = bound.address()?.ip().to_canonical().is_loopback();
    let Bound { listener, tls, access } = bound;
    let has_to_say = access.is_required();
    let mut router = router(seat).layer(middleware::from_fn_with_state(access, guard::guard));
    if is_of_this_machine && !has_to_say {
        router = router.layer(middleware::from_fn(refuse_foreign_names));
    }
    socket::serve(listener, tls, router, stop).await;
    Ok(())
}

fn router(seat: Seat) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/ui", get(page::html))
        .route("/ui/page.css", get(page::css))
        .route("/ui/page.js", get(page::js))
        .route("/ui/mark.svg", get(page::mark))
        .route("/_sql", post(sql))
        .route("/_links", get(links))
        .route("/metrics", get(async || text(StatusCode::OK, metrics().render())))
        .route("/healthz", get(async || object(StatusCode::OK, &json!({ "status": "up" }))))
        .route("/readyz", get(readyz))
        .route("/_cluster/settings", any(search_api))
        .route("/_plugins/_ml/{*rest}", any(search_api))
        .route("/_ingest/pipeline", any(search_api))
        .route("/_ingest/pipeline/{*rest}", any(search_api))
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(refuse_foreign_pages))
        .with_state(seat)
}

/// Each request is for the one who runs the links when it comes.
impl FromRef<Seat> for Control {
    fn from_ref(seat: &Seat) -> Self {
        seat.control()
    }
}

/// A browser is shown the page; everybody else is told who is here, as by a search node.
async fn about(State(_control): State<Control>, headers: HeaderMap) -> Response {
    if page::is_wanted(&headers) {
        return page::elsewhere();
    }
    #[cfg(feature = "embedded")]
    if _control.indexes().is_some() {
        return object(StatusCode::OK, &super::search::about());
    }
    object(
        StatusCode::OK,
        &json!({
            "name": "driftless",
            "version": { "number": env!("CARGO_PKG_VERSION"), "distribution": "driftless" },
            "tagline": "an index that never drifts from its source",
        }),
    )
}

#[derive(Deserialize)]
struct Query {
    query: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    /// An object for each row, on a line of its own.
    Lines,
    Text,
}

async fn sql(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Body,
) -> Response {
    let format = match format_of(&uri) {
        Ok(format) => format,
        Err(error) => return refusal(Format::Json, &[error], ""),
    };
    let body = match read(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err((status, error)) => return refusal_as(status, format, &[error], ""),
    };
    let query = match serde_json::from_slice::<Query>(&body) {
        Ok(Query { query }) => query,
        Err(cause) => {
            let error = Error::input("the body is not {\"query\": \"…\"}").caused_by(cause);
            return refusal(format, &[error], "");
        }
    };
    if let Some((has, needs)) = lacks(caller, &query) {
        return guard::forbidden(&uri, has, needs);
    }
    // A link that was begun is to be finished although the caller has hung up.
    let text = query.clone();
    let running = tokio::spawn(async move { execute::execute(&control, &text).await });
    let _ends_with_us =
        execute::ends_with_its_caller(&query).then(|| AbortOnDrop(running.abort_handle()));
    match running.await {
        Ok(Ok(table)) => show(format, &table),
        Ok(Err(errors)) => refusal(format, &errors, &query),
        Err(cause) => {
            let error = Error::new(ErrorKind::Io, "the statement broke off").caused_by(cause);
            refusal(format, &[error], &query)
        }
    }
}

/// The role that the caller has and the one that the statement needs, if his is the lower. What is no statement needs none.
fn lacks(caller: Caller, text: &str) -> Option<(Role, Role)> {
    let needs = role::of_statement(&statement::parse(text).ok()?);
    // The guard has let nobody pass without one.
    let has = caller.role.unwrap_or(Role::Read);
    (has < needs).then_some((has, needs))
}

/// Ends a task when its caller has hung up.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn format_of(uri: &Uri) -> Result<Format> {
    let mut formats =
        uri.query().unwrap_or("").split('&').filter_map(|pair| pair.strip_prefix("format="));
    match formats.next_back() {
        None | Some("json") => Ok(Format::Json),
        Some("txt") => Ok(Format::Text),
        Some("jsonl") => Ok(Format::Lines),
        Some(_) => Err(Error::input("unknown format").with_advice("there are json, jsonl and txt")),
    }
}

fn show(format: Format, table: &Table) -> Response {
    match format {
        Format::Json => {
            object(StatusCode::OK, &json!({ "columns": table.columns, "rows": table.rows }))
        }
        Format::Lines => {
            let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
            (StatusCode::OK, kind, table.to_json_lines()).into_response()
        }
        Format::Text => text(StatusCode::OK, table.to_text()),
    }
}

fn refusal(format: Format, errors: &[Error], statement: &str) -> Response {
    refusal_as(status_of(answer::status(errors)), format, errors, statement)
}

/// A request that gets no further, with the format that it asks for.
pub(super) fn refused(status: StatusCode, uri: &Uri, error: Error) -> Response {
    refusal_as(status, format_of(uri).unwrap_or(Format::Json), &[error], "")
}

fn refusal_as(status: StatusCode, format: Format, errors: &[Error], statement: &str) -> Response {
    match format {
        Format::Json | Format::Lines => {
            object(status, &answer::json(status.as_u16(), errors, statement))
        }
        Format::Text => text(status, answer::text(errors, statement)),
    }
}

/// The whole body, if it is not longer than `bytes_max` and comes in time.
async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, (StatusCode, Error)> {
    let mut body = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    let end = Instant::now() + BODY_MAX;
    loop {
        let until = end.min(Instant::now() + BODY_PART_MAX);
        let part = match tokio::time::timeout_at(until, body.next()).await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(_) => {
                let error = Error::input("the body does not come to its end");
                return Err((StatusCode::REQUEST_TIMEOUT, error));
            }
        };
        let part = part.map_err(|cause| {
            (StatusCode::BAD_REQUEST, Error::input("the body broke off").caused_by(cause))
        })?;
        length += part.len();
        if length <= bytes_max {
            bytes.extend_from_slice(&part);
        }
        if length > bytes_max + BODY_BYTES_IGNORED {
            break;
        }
    }
    if length > bytes_max {
        let error = Error::input(format!("the body is longer than {} MiB", bytes_max >> 20));
        return Err((StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    Ok(bytes)
}

/// Reads what nobody wants: who has not finished sending would not hear the answer.
pub(super) async fn throw_away(body: Body) {
    let _ = tokio::time::timeout(REST_MAX, read(body, 0)).await;
}

async fn links(State(control): State<Control>) -> Response {
    let links: Vec<Value> = control.statuses().iter().map(link).collect();
    object(StatusCode::OK, &json!({ "links": links }))
}

fn link(status: &Status) -> Value {
    let snapshot = status.snapshot.as_ref().map(|progress| {
        json!({
            "rows": progress.rows,
            "rows_total_estimate": progress.rows_total_estimate,
            "rows_per_s": progress.rows_per_s,
            "eta_s": progress.eta_s,
            "held_at_threads_running": progress.held_at_threads_running,
        })
    });
    let verification = status.verification.as_ref().map(|verification| {
        json!({
            "rows": verification.rows,
            "documents": verification.documents,
            "differences": verification.differences,
            "waits_for": verification.waits_for,
        })
    });
    let verified = status.verified.map(|verified| {
        json!({
            "at": execute::utc(verified.at),
            "differences": verified.differences,
            "repaired": verified.repaired,
            "unjudged": verified.unjudged,
        })
    });
    let rebuild = status.rebuild.as_ref().map(|rebuild| {
        json!({
            "phase": rebuild.phase,
            "link": rebuild.link,
            "index": rebuild.index,
            "differences": rebuild.differences,
            "repaired": rebuild.repaired,
            "kept_until": rebuild.kept_until.map(execute::utc),
            "waits_for": rebuild.waits_for,
        })
    });
    json!({
        "id": status.id,
        "index": status.index,
        "table": status.table,
        "state": status.state.as_str(),
        "errors": status.errors,
        "latency_ms": status.latency_ms,
        "acked_after_ms": status.acked_after_ms,
        "dead_letters": status.dead_letters,
        "restarts": status.restarts,
        "created_at": execute::utc(status.created_at),
        "updated_at": execute::utc(status.updated_at),
        "snapshot": snapshot,
        "position": status.position,
        "verification": verification,
        "verified": verified,
        "rebuild": rebuild,
        "shadow_of": status.shadow_of,
        "pipeline": status.pipeline,
        "pipeline_mode": status.pipeline_mode,
        "statement": status.statement,
    })
}

/// The reasons are for those who may look.
async fn readyz(State(control): State<Control>, Extension(caller): Extension<Caller>) -> Response {
    let readiness = match control.waiting() {
        Some(Waiting { trouble: None, leader }) => {
            // It is as ready as it can be: who waits for it to be ready need not wait for the other one's end.
            return object(StatusCode::OK, &json!({ "status": "standby", "leader": leader }));
        }
        Some(Waiting { trouble: Some(trouble), .. }) => Err(vec![trouble]),
        None => control.readiness(),
    };
    match readiness {
        Ok(()) => object(StatusCode::OK, &json!({ "status": "ready" })),
        Err(_) if caller.role.is_none() => {
            object(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not ready" }))
        }
        Err(reasons) => object(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "not ready", "reasons": reasons }),
        ),
    }
}

/// Hands a request over to the pipelines' API as it came.
async fn search_api(
    State(control): State<Control>,
    method: Method,
    uri: Uri,
    body: Body,
) -> Response {
    let body = match read(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err((status, error)) => return refusal_as(status, Format::Json, &[error], ""),
    };
    if let Err(error) = control.leads() {
        return refusal(Format::Json, &[error], "");
    }
    let query = uri.query().unwrap_or("");
    let (status, value) = control.search_api(method.as_str(), uri.path(), query, &body).await;
    object(status_of(status), &value)
}

/// What has no route of its own: requests about indexes and documents, where the indexes are our own.
#[cfg(feature = "embedded")]
async fn elsewhere(State(control): State<Control>, request: Request) -> Response {
    use super::search;
    let (parts, body) = request.into_parts();
    let Some(indexes) = control.indexes() else { return not_here(&parts.uri) };
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        let error = Error::input("the body is compressed, which is not understood here");
        return refusal_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, Format::Json, &[error], "");
    }
    let room = match search::room_for_body(length(&parts.headers)).await {
        Ok(room) => room,
        Err(fault) => {
            let (status, text) = search::refusal(&fault);
            return json_text(status_of(status), text);
        }
    };
    let body = match read(body, search::BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err((status, error)) => return refusal_as(status, Format::Json, &[error], ""),
    };
    // What was begun is to be finished although the caller has hung up.
    let answering = tokio::spawn(async move {
        let _room: search::Room = room;
        search::handle(&control, &indexes, &parts.method, &parts.uri, body.into()).await
    });
    match answering.await {
        Ok((status, text)) => json_text(status_of(status), text),
        Err(cause) => {
            let error = Error::new(ErrorKind::Io, "the request broke off").caused_by(cause);
            refusal(Format::Json, &[error], "")
        }
    }
}

#[cfg(feature = "embedded")]
fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(not(feature = "embedded"))]
async fn elsewhere(uri: Uri) -> Response {
    not_here(&uri)
}

fn not_here(uri: &Uri) -> Response {
    let error = Error::new(ErrorKind::NotFound, format!("there is nothing at {}", uri.path()));
    refusal(Format::Json, &[error.with_advice(WHAT_IS_HERE)], "")
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let error = Error::input(format!("{} is not answered to {method}", uri.path()));
    let error = error.with_advice(WHAT_IS_HERE);
    refusal_as(StatusCode::METHOD_NOT_ALLOWED, Format::Json, &[error], "")
}

/// A page of another site can make a browser on this machine send requests here; it cannot hide their `Origin`. Our own
/// page may ask, and not change: decision 0014.
async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let is_of_a_page = request.headers().contains_key(header::ORIGIN);
    // No page of another site has a token, or a certificate for a name that it made lead here.
    let has_token = request.extensions().get::<Caller>().is_some_and(|caller| caller.has_token);
    let is_encrypted = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_encrypted);
    let names_count = has_token || is_encrypted;
    let (path, headers) = (request.uri().path(), request.headers());
    if changes && is_of_a_page && !page::may_ask(path, headers, names_count) {
        let error = Error::input("a page in a browser may not change anything here");
        return refusal_as(StatusCode::FORBIDDEN, Format::Json, &[error], "");
    }
    next.run(request).await
}

/// A page of another site can give its own name this machine's address, and then read what it asks for; it cannot hide the
/// name. Who listens on this machine alone has no other names than its own.
async fn refuse_foreign_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    if host.is_some_and(|host| !host.to_str().is_ok_and(super::host::is_this_machine)) {
        let error = Error::input("this is not the name of what listens here")
            .with_advice("ask for localhost, 127.0.0.1 or [::1]; a proxy on this machine has to set the header Host so");
        return refusal_as(StatusCode::MISDIRECTED_REQUEST, Format::Json, &[error], "");
    }
    next.run(request).await
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn object(status: StatusCode, value: &Value) -> Response {
    json_text(status, value.to_string())
}

fn json_text(status: StatusCode, text: String) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json; charset=UTF-8"),
    );
    (status, headers, text).into_response()
}

fn text(status: StatusCode, text: String) -> Response {
    (status, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_asked_for_in_the_query() {
        let format = |uri: &'static str| format_of(&Uri::from_static(uri));
        assert!(matches!(format("/_sql"), Ok(Format::Json)));
        assert!(matches!(format("/_sql?pretty&format=txt"), Ok(Format::Text)));
        assert!(format("/_sql?format=xml").is_err());
    }
}
