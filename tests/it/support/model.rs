//! The embeddings endpoint of the tests: true HTTP on a port of this machine, OpenAI's request and answer, vectors that
//! follow from the text alone, and every way in which an endpoint misbehaves. Knows nothing of what is tested.
//!
//! A behaviour is set for all requests by [`Model::behave`], or for one connector by the beginning of its path:
//! `/s/<status>/…` `/dim/<n>/…` `/short/…` `/garbage/…` `/drop/…` `/empty/…` `/slow/<seconds>/…` `/flaky/<n>/<status>/…`.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the endpoint does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Behaviour {
    Fine,
    /// Answers well, after this time.
    Slow(Duration),
    /// Answers this status, with `Retry-After` in seconds where given.
    Status(u16, Option<u64>),
    /// Answers this status so many times, then well.
    Flaky(u32, u16),
    /// Closes the connection without an answer.
    Drop,
    /// One vector fewer than texts.
    TooFew,
    /// Vectors of this dimension, whatever was asked for.
    Dimension(usize),
    NotJson,
    Empty,
    /// Answers well but for requests that hold a text with these words: those get this status.
    Refuse(String, u16),
    /// Answers 401 and repeats the request's credentials and texts, as careless servers do.
    Echo,
    /// The vectors in the opposite order, each with its right index.
    Backwards,
    /// Does this with one request, and is fine from then on.
    Once(Box<Behaviour>),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
    /// The texts of `input`.
    pub inputs: Vec<String>,
}

/// The endpoint; it ends with its last handle.
pub struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    /// Failures already answered, by path, for the flaky ones.
    failures: Mutex<HashMap<String, u32>>,
    dimension: Mutex<usize>,
}

impl Drop for Model {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Model {
    /// Listens on a free port; vectors have 4 numbers unless the request says `dimensions`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Behaviour::Fine),
            seen: Mutex::default(),
            failures: Mutex::default(),
            dimension: Mutex::new(4),
        });
        let listening = tokio::spawn(listen(listener, shared.clone()));
        Self { address, shared, listening }
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Every text that was asked for, in order, as often as it was.
    pub fn texts(&self) -> Vec<String> {
        self.requests().into_iter().flat_map(|request| request.inputs).collect()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.shared.failures).clear();
        *lock(&self.shared.behaviour) = behaviour;
    }

    pub fn set_dimension(&self, dimension: usize) {
        *lock(&self.shared.dimension) = dimension;
    }

    /// All requests since the start or the last [`Self::forget`].
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    pub fn forget(&self) {
        lock(&self.shared.seen).clear();
    }

    /// Waits until so many requests were seen; the event to wait for instead of a time.
    pub async fn seen(&self, count: usize) {
        let enough = async {
            while lock(&self.shared.seen).len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), enough).await.expect("the requests come");
    }
}

/// The vector of a text: numbers between -1 and 1 of at most six decimals, from the text's SHA-256.
pub fn vector(text: &str, dimension: usize) -> Vec<f64> {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let number = |at: usize| {
        let byte = i64::from(digest.as_ref()[at % 32]) - 128;
        // byte / 128 in millionths is byte * 7812.5; a half goes to the even neighbour.
        let twice = byte * 15_625;
        let floor = twice.div_euclid(2);
        let millionths = if twice.rem_euclid(2) == 1 && floor % 2 != 0 { floor + 1 } else { floor };
        millionths as f64 / 1e6
    };
    (0..dimension).map(number).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // A client that goes away in the middle is the client's own affair.
            let _ = serve(stream, &shared).await;
        });
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await? {
        lock(&shared.seen).push(request.clone());
        let Some(answer) = answer(shared, &request).await else { return Ok(()) };
        stream.write_all(&answer).await?;
    }
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk).await?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                break;
            }
        }
    } else {
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        body.resize(length.unwrap_or(0), 0);
        stream.read_exact(&mut body).await?;
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    let inputs = match &json["input"] {
        Value::String(text) => vec![text.clone()],
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(Some(Seen { path, headers, body, inputs }))
}

/// The behaviour that the path asks for, or else the one that was set.
fn behaviour(shared: &Shared, path: &str) -> Behaviour {
    let mut parts = path.trim_start_matches('/').split('/');
    let first = parts.next().unwrap_or_default();
    let mut number = || parts.next().and_then(|part| part.parse::<f64>().ok()).unwrap_or_default();
    match first {
        "s" => match number() as u16 {
            429 => Behaviour::Status(429, Some(1)),
            status => Behaviour::Status(status, None),
        },
        "dim" => Behaviour::Dimension(number() as usize),
        "slow" => Behaviour::Slow(Duration::from_secs_f64(number())),
        "flaky" => Behaviour::Flaky(number() as u32, number() as u16),
        "short" => Behaviour::TooFew,
        "garbage" => Behaviour::NotJson,
        "drop" => Behaviour::Drop,
        "empty" => Behaviour::Empty,
        _ => {
            let mut set = lock(&shared.behaviour);
            match set.clone() {
                Behaviour::Once(behaviour) => {
                    *set = Behaviour::Fine;
                    *behaviour
                }
                lasting => lasting,
            }
        }
    }
}

/// The whole answer; nothing where the connection is to be closed instead.
async fn answer(shared: &Shared, request: &Seen) -> Option<Vec<u8>> {
    let mut inputs = request.inputs.clone();
    let json: Value = serde_json::from_str(&request.body).unwrap_or_default();
    let asked = json["dimensions"].as_u64().map(|dimension| dimension as usize);
    let mut dimension = asked.unwrap_or(*lock(&shared.dimension));
    let mut backwards = false;
    match behaviour(shared, &request.path) {
        Behaviour::Fine | Behaviour::Once(_) => {}
        Behaviour::Slow(time) => tokio::time::sleep(time).await,
        Behaviour::Status(status, retry_after) => return Some(failure(status, retry_after)),
        Behaviour::Flaky(failures, status) => {
            let so_far = {
                let mut all = lock(&shared.failures);
                let count = all.entry(request.path.clone()).or_default();
                *count += 1;
                *count
            };
            if so_far <= failures {
                return Some(failure(status, None));
            }
        }
        Behaviour::Drop => return None,
        Behaviour::TooFew => {
            inputs.pop();
        }
        Behaviour::Dimension(fixed) => dimension = fixed,
        Behaviour::NotJson => {
            return Some(response(200, "text/html", "", b"<html>not json</html>"));
        }
        Behaviour::Empty => inputs.clear(),
        Behaviour::Refuse(words, status) => {
            if inputs.iter().any(|text| text.contains(&words)) {
                return Some(failure(status, None));
            }
        }
        Behaviour::Echo => {
            let credentials = request.headers.get("authorization").cloned().unwrap_or_default();
            let message = format!("'{credentials}' may not ask for {inputs:?}");
            return Some(error(401, "", &message));
        }
        Behaviour::Backwards => backwards = true,
    }
    if request.inputs.is_empty() {
        return Some(error(400, "", "'input' is invalid"));
    }
    let item = |(index, text): (usize, &String)| json!({"object": "embedding", "index": index, "embedding": vector(text, dimension)});
    let mut data: Vec<Value> = inputs.iter().enumerate().map(item).collect();
    if backwards {
        data.reverse();
    }
    let usage = json!({"prompt_tokens": 1, "total_tokens": 1});
    let body = json!({"object": "list", "data": data, "model": json["model"], "usage": usage});
    Some(response(200, "application/json", "", body.to_string().as_bytes()))
}

fn failure(status: u16, retry_after: Option<u64>) -> Vec<u8> {
    let header =
        retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
    error(status, &header, &format!("stub says {status}"))
}

fn error(status: u16, header: &str, message: &str) -> Vec<u8> {
    let error = json!({"message": message, "type": "stub_error", "param": null, "code": status.to_string()});
    response(status, "application/json", header, json!({"error": error}).to_string().as_bytes())
}

fn response(status: u16, kind: &str, header: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{header}\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn the_stand_ins_vectors_are_the_recorded_ones() {
    assert_eq!(vector("hello", 4), [-0.65625, 0.890625, -0.398438, 0.453125]);
    assert_eq!(vector("a", 4), [0.578125, 0.179688, 0.007812, -0.859375]);
    assert_eq!(vector("漢", 40)[..8], vector("漢", 40)[32..]);
}
