//! A TCP proxy that misbehaves on order: cuts, delays, throttles, holds, damages what a server logs, and for HTTP holds,
//! refuses or loses single requests. Knows nothing of Driftless; in front of an index it watches `_bulk`, elsewhere
//! whatever path it is told.

mod bulk;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// A proxy in front of one upstream. Dropping it closes its connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

/// What is to happen to one watched request. Faults are taken from a queue, one a request, oldest first.
pub enum Fault {
    /// Forward it, read the answer, keep the answer until the [`Gate`] is opened.
    HoldAnswer(Gate),
    /// Keep the request itself until the gate is opened, then forward it, even if its sender is gone by then.
    HoldRequest(Gate),
    /// Answer this instead of forwarding.
    Answer { status: u16, retry_after_s: Option<u32>, body: String },
    /// Forward every other operation of a bulk, and answer this status for the rest.
    RefuseHalf(u16),
    /// Forward it, and close the connection instead of answering.
    LoseAnswer,
    /// Close the connection without forwarding.
    LoseRequest,
}

impl Fault {
    /// An error answer as an overloaded server gives it.
    pub fn status(status: u16) -> Self {
        Self::Answer {
            status,
            retry_after_s: None,
            body: format!("{{\"error\":\"told to say {status}\"}}"),
        }
    }
}

/// One request as it passed: what a fault's condition looks at.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// The body as text. A compressed body cannot be looked into, so asking for it is a mistake of the test's setup.
    pub fn text(&self) -> String {
        assert!(
            self.header("content-encoding").is_none(),
            "switch compression off to look into bodies"
        );
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// Holds something back, and says when it has come. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    arrived: Arc<watch::Sender<bool>>,
    opened: Arc<watch::Sender<bool>>,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            arrived: Arc::new(watch::Sender::new(false)),
            opened: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Waits until something is held at the gate.
    pub async fn arrived(&self) {
        let mut arrived = self.arrived.subscribe();
        let waiting = arrived.wait_for(|arrived| *arrived);
        let in_time = tokio::time::timeout(super::MINUTES_2, waiting).await;
        in_time.expect("nothing came to the gate in two minutes").expect("the gate is ours");
    }

    pub fn has_arrived(&self) -> bool {
        *self.arrived.borrow()
    }

    pub fn open(&self) {
        self.opened.send_replace(true);
    }

    async fn pass(&self) {
        self.arrived.send_replace(true);
        let mut opened = self.opened.subscribe();
        opened.wait_for(|opened| *opened).await.expect("the gate is ours");
    }
}

type Condition = Box<dyn Fn(&Request) -> bool + Send + Sync>;

/// What is done to one piece of a log on its way to who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// One bit is the other way round.
    Flip,
    /// Nothing comes behind the middle of it.
    Cut,
}

struct Shared {
    upstream: Mutex<String>,
    /// Requests whose path contains this are counted and may meet a fault.
    watched: String,
    faults: Mutex<VecDeque<(Condition, Fault)>>,
    passed: Mutex<Vec<Request>>,
    forwarded: AtomicU64,
    in_flight: AtomicU64,
    unanswered: AtomicU64,
    /// False: connections are closed as they come.
    mended: watch::Sender<bool>,
    /// Closes the connections of the moment.
    cut: Notify,
    delay: watch::Sender<Duration>,
    /// Bytes a second; 0: as many as come.
    pace: watch::Sender<usize>,
    /// False: connections stand, and nothing passes.
    flows: watch::Sender<bool>,
    /// For the next piece of a log that has these bytes.
    damages: Mutex<VecDeque<(Damage, Vec<u8>)>>,
    damaged: AtomicU64,
    keep_requests: bool,
}

impl Proxy {
    /// Passes bytes on: for MySQL.
    pub async fn tcp(upstream: &str) -> Self {
        Self::start(upstream, None, false).await
    }

    /// Passes HTTP on, request by request, and watches `_bulk`: for an index.
    pub async fn http(upstream: &str) -> Self {
        Self::start(upstream, Some("/_bulk"), false).await
    }

    /// Passes HTTP on, watches requests whose path contains `watched`, and keeps them for [`Proxy::requests`].
    pub async fn http_watching(upstream: &str, watched: &str) -> Self {
        Self::start(upstream, Some(watched), true).await
    }

    async fn start(upstream: &str, watched: Option<&str>, keep_requests: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(address_of(upstream)),
            watched: watched.unwrap_or_default().to_owned(),
            faults: Mutex::default(),
            passed: Mutex::default(),
            forwarded: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            mended: watch::Sender::new(true),
            cut: Notify::new(),
            delay: watch::Sender::new(Duration::ZERO),
            pace: watch::Sender::new(0),
            flows: watch::Sender::new(true),
            damages: Mutex::default(),
            damaged: AtomicU64::new(0),
            keep_requests,
        });
        let acceptor = tokio::spawn(accept(listener, shared.clone(), watched.is_some()));
        Self { port, shared, acceptor }
    }

    /// From here on new connections go to another upstream.
    pub fn lead_to(&self, upstream: &str) {
        *self.shared.upstream.lock().expect("nobody panicked") = address_of(upstream);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Closes all connections, and new ones as they come, until [`Proxy::mend`].
    pub fn cut(&self) {
        self.shared.mended.send_replace(false);
        self.shared.cut.notify_waiters();
    }

    pub fn mend(&self) {
        self.shared.mended.send_replace(true);
    }

    /// Closes the connections of the moment; new ones are served.
    pub fn drop_connections(&self) {
        self.shared.cut.notify_waiters();
    }

    /// Every piece of data, in both directions, comes this much later.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay.send_replace(delay);
    }

    /// So many bytes a second pass on each connection, in each direction; 0: as many as come.
    pub fn throttle(&self, bytes_per_s: usize) {
        self.shared.pace.send_replace(bytes_per_s);
    }

    /// Connections stand and new ones are taken, but nothing passes, until [`Proxy::release`].
    pub fn hold(&self) {
        self.shared.flows.send_replace(false);
    }

    pub fn release(&self) {
        self.shared.flows.send_replace(true);
    }

    /// Flips a bit amid these bytes, the next time that they pass in a server's log. Of MySQL in the clear only; any bytes
    /// where none are given.
    pub fn flip_in_log(&self, bytes: &str) {
        self.shared.damage(Damage::Flip, bytes);
    }

    /// Closes the connection amid these bytes, the next time that they pass in a server's log.
    pub fn cut_in_log(&self, bytes: &str) {
        self.shared.damage(Damage::Cut, bytes);
    }

    /// How often a log was damaged so far.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::SeqCst)
    }

    /// What was ordered and has not happened will not.
    pub fn forget_faults(&self) {
        self.shared.faults.lock().expect("nobody panics with it").clear();
        self.shared.damages.lock().expect("nobody panics with it").clear();
    }

    /// The next watched request meets this fault.
    pub fn inject(&self, fault: Fault) {
        self.inject_when(|_| true, fault);
    }

    /// The next watched request that fulfils the condition meets this fault.
    pub fn inject_when(
        &self,
        when: impl Fn(&Request) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) {
        self.shared
            .faults
            .lock()
            .expect("nobody panics with it")
            .push_back((Box::new(when), fault));
    }

    /// Holds the answer of the next watched request.
    pub fn hold_next_answer(&self) -> Gate {
        let gate = Gate::new();
        self.inject(Fault::HoldAnswer(gate.clone()));
        gate
    }

    /// Holds the next watched request itself.
    pub fn hold_next_request(&self) -> Gate {
        let gate = Gate::new();
        self.inject(Fault::HoldRequest(gate.clone()));
        gate
    }

    /// Watched requests given to the upstream so far.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::SeqCst)
    }

    /// Watched requests given to the upstream whose answer has not yet been handed back. Looked at right after a
    /// kill -9 it says whether the kill fell between a bulk and its acknowledgement.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// Watched requests given to the upstream whose answer was never handed back, because the sender or the
    /// connection was gone.
    pub fn unanswered(&self) -> u64 {
        self.shared.unanswered.load(Ordering::SeqCst)
    }

    /// The watched requests so far, of a proxy made by [`Proxy::http_watching`].
    pub fn requests(&self) -> Vec<Request> {
        self.shared.passed.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, is_http: bool) {
    while let Ok((client, _)) = listener.accept().await {
        if !*shared.mended.borrow() {
            continue;
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            // An error is a connection that ended, which is what both sides then see.
            let _ = tokio::select! {
                ended = serve(client, &shared, is_http) => ended,
                () = shared.cut.notified() => Ok(()),
            };
        });
    }
}

fn address_of(upstream: &str) -> String {
    upstream.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

async fn serve(client: TcpStream, shared: &Shared, is_http: bool) -> io::Result<()> {
    client.set_nodelay(true)?;
    if is_http { serve_http(client, shared).await } else { serve_tcp(client, shared).await }
}

async fn serve_tcp(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let server = connect(shared).await?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let is_log = AtomicBool::new(false);
    tokio::select! {
        ended = copy_commands(client_read, server_write, shared, &is_log) => ended,
        ended = copy_answers(server_read, client_write, shared, &is_log) => ended,
    }
}

/// Passes on what a client says, and sees when it asks for the log.
async fn copy_commands(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    is_log: &AtomicBool,
) -> io::Result<()> {
    const ASK_FOR_LOG: [u8; 2] = [0x12, 0x1e];
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        // Behind three bytes of length, the first packet of a command.
        if let [_, _, _, 0, command, ..] = &buffer[..read]
            && ASK_FOR_LOG.contains(command)
        {
            is_log.store(true, Ordering::SeqCst);
        }
        lag(shared, read).await;
        to.write_all(&buffer[..read]).await?;
    }
}

async fn copy_answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    is_log: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        lag(shared, read).await;
        let damage = is_log.load(Ordering::SeqCst).then(|| shared.damage_for(&buffer[..read]));
        match damage.flatten() {
            Some((Damage::Flip, at)) => buffer[at] ^= 0x10,
            Some((Damage::Cut, at)) => return to.write_all(&buffer[..at]).await,
            None => {}
        }
        to.write_all(&buffer[..read]).await?;
    }
}

async fn connect(shared: &Shared) -> io::Result<TcpStream> {
    let upstream = shared.upstream.lock().expect("nobody panicked").clone();
    let server = TcpStream::connect(&upstream).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

/// Before so many bytes are passed on.
async fn lag(shared: &Shared, bytes: usize) {
    let mut flows = shared.flows.subscribe();
    flows.wait_for(|flows| *flows).await.expect("it is ours");
    let pace = *shared.pace.borrow();
    let paced = match pace {
        0 => Duration::ZERO,
        _ => Duration::from_secs_f64(bytes as f64 / pace as f64),
    };
    let delay = *shared.delay.borrow() + paced;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

async fn serve_http(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    let mut server = None;
    while let Some(message) = Message::read(&mut client, &mut from_client, Expect::Request).await? {
        let request = message.request();
        let fault = shared.watches(&request).then(|| shared.fault_for(&request)).flatten();
        match fault {
            Some(Fault::LoseRequest) => return Ok(()),
            Some(Fault::Answer { status, retry_after_s, body }) => {
                client.write_all(&error_answer(status, retry_after_s, &body)).await?;
            }
            fault => {
                if let Some(Fault::HoldRequest(gate)) = &fault {
                    gate.pass().await;
                }
                let mut flight = shared.watches(&request).then(|| Flight::begin(shared));
                lag(shared, message.bytes.len()).await;
                let expect = Expect::answer_to(&request.method);
                let halved = match &fault {
                    Some(Fault::RefuseHalf(status)) => Some(bulk::Half::of(&request, *status)),
                    _ => None,
                };
                let sent = halved.as_ref().map_or(&message, |half| &half.kept);
                let mut answer =
                    forward(&mut server, &mut from_server, sent, expect, shared).await?;
                if let Some(half) = &halved {
                    answer.bytes = half.answer(&answer.body);
                }
                match fault {
                    Some(Fault::LoseAnswer) => return Ok(()),
                    Some(Fault::HoldAnswer(gate)) => gate.pass().await,
                    _ => lag(shared, answer.bytes.len()).await,
                }
                // A client that died while its answer was held is seen by the end of its stream.
                if is_gone(&client) || !*shared.mended.borrow() {
                    return Ok(());
                }
                client.write_all(&answer.bytes).await?;
                if let Some(flight) = &mut flight {
                    flight.answered = true;
                }
            }
        }
    }
    Ok(())
}

/// Sends the request to the upstream and reads its answer; a connection that went stale meanwhile is made anew once.
async fn forward(
    server: &mut Option<TcpStream>,
    buffer: &mut Vec<u8>,
    message: &Message,
    expect: Expect,
    shared: &Shared,
) -> io::Result<Message> {
    if server.as_ref().is_none_or(is_gone) {
        buffer.clear();
        *server = Some(connect(shared).await?);
    }
    let stream = server.as_mut().expect("it was set just now");
    stream.write_all(&message.bytes).await?;
    Message::read(stream, buffer, expect).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Whether the other side has closed the connection. Bytes that wait to be read are left alone.
fn is_gone(stream: &TcpStream) -> bool {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    let mut byte = [0];
    let peek = pin!(stream.peek(&mut byte));
    match peek.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(read)) => read == 0,
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// One watched request on its way, counted until it is answered or lost.
struct Flight<'s> {
    shared: &'s Shared,
    answered: bool,
}

impl<'s> Flight<'s> {
    fn begin(shared: &'s Shared) -> Self {
        shared.forwarded.fetch_add(1, Ordering::SeqCst);
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
        Self { shared, answered: false }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !self.answered {
            self.shared.unanswered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Shared {
    fn damage(&self, damage: Damage, bytes: &str) {
        let mut damages = self.damages.lock().expect("nobody panics with it");
        damages.push_back((damage, bytes.as_bytes().to_vec()));
    }

    /// What is to be done to this piece of a log, and at which byte.
    fn damage_for(&self, piece: &[u8]) -> Option<(Damage, usize)> {
        let mut damages = self.damages.lock().expect("nobody panics with it");
        let (damage, bytes) = damages.front()?;
        let at = match bytes.len() {
            // Not the answer to the request itself.
            0 if piece.len() < 200 => return None,
            0 => piece.len() / 2,
            length => piece.windows(length).position(|window| window == bytes)? + length / 2,
        };
        let damage = *damage;
        damages.pop_front();
        self.damaged.fetch_add(1, Ordering::SeqCst);
        Some((damage, at))
    }

    fn watches(&self, request: &Request) -> bool {
        request.path.contains(&self.watched)
    }

    /// The oldest fault whose condition the request fulfils.
    fn fault_for(&self, request: &Request) -> Option<Fault> {
        if self.keep_requests {
            self.passed.lock().expect("nobody panics with it").push(request.clone());
        }
        let mut faults = self.faults.lock().expect("nobody panics with it");
        let at = faults.iter().position(|(condition, _)| condition(request))?;
        faults.remove(at).map(|(_, fault)| fault)
    }
}

fn error_answer(status: u16, retry_after_s: Option<u32>, body: &str) -> Vec<u8> {
    let retry_after =
        retry_after_s.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n{retry_after}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Request,
    Answer,
    /// The answer to HEAD: its Content-Length speaks of a body that is not sent.
    AnswerWithoutBody,
}

impl Expect {
    fn answer_to(method: &str) -> Self {
        if method == "HEAD" { Self::AnswerWithoutBody } else { Self::Answer }
    }
}

/// One HTTP/1.1 message, kept as the bytes that came.
struct Message {
    bytes: Vec<u8>,
    head_len: usize,
    /// The body without chunk framing.
    body: Vec<u8>,
}

impl Message {
    /// Reads one message; what came behind it stays in `buffer`. `None` is a connection that ended between messages.
    async fn read(
        stream: &mut TcpStream,
        buffer: &mut Vec<u8>,
        expect: Expect,
    ) -> io::Result<Option<Self>> {
        let head_len = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if more(stream, buffer).await? == 0 {
                return if buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_len]).into_owned();
        let is_chunked = header(&head, "transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = header(&head, "content-length").and_then(|value| value.parse::<usize>().ok());
        let no_body =
            expect == Expect::AnswerWithoutBody || head.contains(" 204 ") || head.contains(" 304 ");
        let (end, body) = if no_body {
            (head_len, Vec::new())
        } else if is_chunked {
            read_chunks(stream, buffer, head_len).await?
        } else {
            let end = head_len + length.unwrap_or(0);
            fill(stream, buffer, end).await?;
            (end, buffer[head_len..end].to_vec())
        };
        let rest = buffer.split_off(end);
        let bytes = std::mem::replace(buffer, rest);
        Ok(Some(Self { bytes, head_len, body }))
    }

    fn request(&self) -> Request {
        let head = String::from_utf8_lossy(&self.bytes[..self.head_len]).into_owned();
        let mut words = head.lines().next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Request { method, path, head, body: self.body.clone() }
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>, len: usize) -> io::Result<()> {
    while buffer.len() < len {
        if more(stream, buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Reads what is there, in large pieces: bulks have megabytes.
async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.reserve(64 * 1024);
    stream.read_buf(buffer).await
}

/// Reads a chunked body that begins at `at`; gives where it ends, and the body.
async fn read_chunks(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    mut at: usize,
) -> io::Result<(usize, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(found) = buffer[at..].windows(2).position(|window| window == b"\r\n") {
                break at + found;
            }
            let wanted = buffer.len() + 1;
            fill(stream, buffer, wanted).await?;
        };
        let size = std::str::from_utf8(&buffer[at..line_end])
            .ok()
            .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        let data = line_end + 2;
        // Each chunk ends in an empty line of its own; so does the last one, which has no data.
        fill(stream, buffer, data + size + 2).await?;
        body.extend_from_slice(&buffer[data..data + size]);
        at = data + size + 2;
        if size == 0 {
            return Ok((at, body));
        }
    }
}

/// The value of a header, by its name in any case.
fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
