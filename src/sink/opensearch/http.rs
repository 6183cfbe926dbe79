//! Requests to the nodes of one cluster: which node, with which credentials, and what its refusals mean. Must not know
//! what the requests are for.

use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use opensearch::http::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::Config;
use super::product::Product;
use crate::error::{Error, ErrorKind, Result};
use crate::net;
use crate::net::secret;

/// How long a node that did not answer is left out while others do.
const REST: Duration = Duration::from_secs(5);

/// An answer to a bulk is far smaller; one with documents is asked for again in halves.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The answer has more bytes than are read of one.
#[derive(Debug)]
pub(super) struct TooLarge;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer has more than {ANSWER_BYTES_MAX} bytes")
    }
}

impl std::error::Error for TooLarge {}

/// In which Elasticsearch names itself.
const PRODUCT: &str = "x-elastic-product";

pub(super) struct Http {
    /// What we were told to speak with.
    pub(super) product: Product,
    nodes: Vec<Node>,
    next: AtomicUsize,
    client: reqwest::Client,
    login: Login,
    /// Rests are counted in milliseconds from here.
    started: Instant,
}

struct Node {
    url: String,
    resting_until_ms: AtomicU64,
}

/// A node's whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Who answered, where the answer says so.
    pub(super) product: Option<Product>,
    retry_after: Option<String>,
    pub(super) body: Bytes,
}

impl Http {
    pub(super) fn new(config: &Config, product: Product) -> Result<Self> {
        // Whoever comes first has installed it; it is the same one.
        rustls::crypto::ring::default_provider().install_default().ok();
        if config.addresses.is_empty() {
            return Err(Error::input("the sink has no address")
                .with_advice("give `addresses`, for example [\"http://127.0.0.1:9200\"]"));
        }
        let login = Login::new(config)?;
        let nodes =
            config.addresses.iter().map(|address| Node::new(address)).collect::<Result<_>>()?;
        Ok(Self {
            product,
            nodes,
            next: AtomicUsize::new(0),
            client: client(config)?,
            login,
            started: Instant::now(),
        })
    }

    /// A request about an index, an alias, settings or a mapping. Each may be made twice, so where one address does not
    /// answer the others are asked.
    pub(super) async fn control(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut tried = 1;
        loop {
            let node = self.pick();
            let answer = self.through_client(node, method, path, body).await;
            // What has arrived may have been done; it is not for us to do it twice.
            let goes_on =
                answer.as_ref().err().is_some_and(never_arrived) && tried < self.nodes.len();
            match self.note(node, answer) {
                Err(_) if goes_on => tried += 1,
                answer => return answer,
            }
        }
    }

    /// A bulk request; `body` goes out as it is. It ends within `timeout`, or as any other.
    pub(super) async fn bulk(
        &self,
        path: &str,
        body: Vec<u8>,
        timeout: Option<Duration>,
    ) -> Result<Answer> {
        let node = self.pick();
        let mut request = self
            .client
            .post(format!("{}{path}", node.url))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(body);
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let answer = self.execute(request).await;
        self.note(node, answer)
    }

    /// A question about documents.
    pub(super) async fn fetch(&self, path: &str, body: &Value) -> Result<Answer> {
        self.control(Method::Post, path, Some(body)).await
    }

    async fn through_client(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let method = match method {
            Method::Get => reqwest::Method::GET,
            Method::Put => reqwest::Method::PUT,
            Method::Post => reqwest::Method::POST,
            Method::Delete => reqwest::Method::DELETE,
            Method::Head => reqwest::Method::HEAD,
        };
        let mut request = self.client.request(method, format!("{}{path}", node.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        self.execute(request).await
    }

    async fn execute(&self, request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
        let request = match &self.login {
            Login::Nobody => request,
            Login::Basic { user, password } => {
                request.basic_auth(user, password.as_ref().map(|password| password.expose_secret()))
            }
            Login::ApiKey(header) => request.header(AUTHORIZATION, header),
        };
        let mut response =
            request.send().await.map_err(|cause| Box::new(cause.without_url()) as Failure)?;
        let status = response.status().as_u16();
        let retry_after = text_of(response.headers().get(RETRY_AFTER));
        let product = product_of(response.headers().get(PRODUCT));
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|cause| cause.without_url())? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Box::new(TooLarge));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, product, retry_after, body: body.freeze() })
    }

    /// The next node that is not resting; the next one of all where every node is.
    fn pick(&self) -> &Node {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let now = self.now_ms();
        let node = |step: usize| &self.nodes[start.wrapping_add(step) % self.nodes.len()];
        (0..self.nodes.len())
            .map(node)
            .find(|node| node.resting_until_ms.load(Ordering::Relaxed) <= now)
            .unwrap_or_else(|| node(0))
    }

    fn note(&self, node: &Node, answer: Result<Answer, Failure>) -> Result<Answer> {
        let has_answered = answer.as_ref().map_or_else(|cause| cause.is::<TooLarge>(), |_| true);
        let resting_until = if has_answered { 0 } else { self.now_ms() + REST.as_millis() as u64 };
        node.resting_until_ms.store(resting_until, Ordering::Relaxed);
        answer.map_err(|cause| {
            let what = format!("cannot reach the sink at {}", node.url);
            let error = Error::new(ErrorKind::SinkBusy, what);
            let is_late = was_too_late(&cause);
            let error = error.caused_by(cause);
            if is_late { error.overloaded(None) } else { error }
        })
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// Whether there was no connection by which the request could have gone.
fn never_arrived(cause: &Failure) -> bool {
    cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
}

/// Whether the node has the request, and has not answered in time.
fn was_too_late(cause: &Failure) -> bool {
    let cause = cause.downcast_ref::<reqwest::Error>();
    cause.is_some_and(|cause| cause.is_timeout() && !cause.is_connect())
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Node {
    fn new(address: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::input(format!("an address of the sink {what}"))
                .with_advice("write it as http://host:port or https://host:port")
        };
        let url = url::Url::parse(address).map_err(|_| wrong("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("is neither http:// nor https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::input("an address of the sink holds a user or a password")
                .with_advice("give them as `user` and `password_file`"));
        }
        let url = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, resting_until_ms: AtomicU64::new(0) })
    }
}

/// Of our own, not the crate's: that one follows redirects, with what it has to say and to wherever they lead, and reads
/// an answer to its end however long it is. Decision 0064.
fn client(config: &Config) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .timeout(Duration::from_millis(config.timeout_ms));
    if let Some(path) = &config.ca_file {
        let unreadable = |cause: Failure| {
            Error::input(format!("cannot read the certificates in {}", path.display()))
                .caused_by(cause)
                .with_advice("`ca_file` names a file of certificates in PEM")
        };
        let pem = fs::read(path).map_err(|cause| unreadable(cause.into()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|cause| unreadable(cause.into()))?;
        if certificates.is_empty() {
            return Err(unreadable("it holds no certificate".into()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(unusable)
}

/// As whom we come.
enum Login {
    Nobody,
    Basic {
        user: String,
        password: Option<SecretString>,
    },
    /// The whole header, marked as not to be shown.
    ApiKey(HeaderValue),
}

impl Login {
    fn new(config: &Config) -> Result<Self> {
        let (given, file) = (config.api_key.as_ref(), config.api_key_file.as_deref());
        if let Some(key) = secret::load("the sink's API key", given, file)? {
            return api_key(key.expose_secret()).map(Self::ApiKey);
        }
        let (given, file) = (config.password.as_ref(), config.password_file.as_deref());
        let password = secret::load("the sink's password", given, file)?;
        Ok(match config.user.clone() {
            Some(user) => Self::Basic { user, password },
            None => Self::Nobody,
        })
    }
}

/// `id:key` is put in base64, in which there is no colon; what has none is in base64 already.
fn api_key(key: &str) -> Result<HeaderValue> {
    let key = match key.contains(':') {
        true => STANDARD.encode(key),
        false => key.to_owned(),
    };
    let mut header = HeaderValue::try_from(format!("ApiKey {key}")).map_err(|_| {
        Error::input("the sink's API key has characters that no header can hold")
            .with_advice("write it as id:key, or as the `encoded` of the answer that made it")
    })?;
    header.set_sensitive(true);
    Ok(header)
}

fn unusable(cause: impl Into<Failure>) -> Error {
    Error::new(ErrorKind::Io, "cannot make an HTTP client for the sink").caused_by(cause)
}

fn product_of(header: Option<&HeaderValue>) -> Option<Product> {
    header.and_then(|value| value.to_str().ok()).and_then(Product::of_header)
}

fn text_of(header: Option<&HeaderValue>) -> Option<String> {
    header.and_then(|value| value.to_str().ok()).map(str::to_owned)
}

impl Answer {
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|cause| {
            Error::new(ErrorKind::SinkBusy, "the sink's answer is not JSON").caused_by(cause)
        })
    }

    /// What a status that is not 200 means for a request as a whole, where no document can be to blame.
    pub(super) fn into_error(self, tried: &str) -> Error {
        let kind = match self.status {
            408 | 429 | 500.. => ErrorKind::SinkBusy,
            _ => ErrorKind::SinkBlocked,
        };
        let mut message = format!("cannot {tried}: the sink answered {}", self.status);
        if let Some(reason) = self.reason() {
            message.push(' ');
            message.push_str(&reason);
        }
        if let Some(wait) = &self.retry_after {
            message.push_str(" and asks to come again after ");
            message.push_str(wait);
            message.push_str(if wait.bytes().all(|b| b.is_ascii_digit()) { " s" } else { "" });
        }
        let advice = match self.status {
            401 => Some("check `user` and `password`, or `api_key`, of the sink"),
            403 => {
                Some("give the sink's user the right to read and write the index and its aliases")
            }
            _ => None,
        };
        let mut error = Error::new(kind, message);
        if matches!(self.status, 429 | 503) {
            let wish = self.retry_after.as_deref();
            error = error
                .overloaded(wish.and_then(|wish| net::http::patience(wish, SystemTime::now())));
        }
        match advice {
            Some(advice) => error.with_advice(advice),
            None => error,
        }
    }

    fn reason(&self) -> Option<String> {
        const REASON_CHARS_MAX: usize = 300;
        let answer: Value = serde_json::from_slice(&self.body).ok()?;
        let error = &answer["error"];
        let kind = error["type"].as_str().or_else(|| error.as_str())?;
        let reason = error["reason"].as_str().unwrap_or_default();
        Some(format!("{kind}: {reason}").chars().take(REASON_CHARS_MAX).collect())
    }
}
