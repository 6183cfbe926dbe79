//! A search node that keeps no documents: it reads bulks, counts them, and holds of each document its version and a
//! checksum of its bytes. Speaks what the OpenSearch sink says and nothing else; knows nothing of MySQL.
//!
//! The checksum of all documents is a sum of one hash per document, so it does not depend on the order in which
//! requests come in, and one lost, doubled or changed document changes it.

use std::hash::BuildHasher as _;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

pub const INDEX: &str = "bench";

pub struct NullSink {
    state: Mutex<State>,
    port: u16,
}

/// What the documents are, whoever wrote them in whatever order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum {
    pub documents: u64,
    pub sum: u64,
}

impl Checksum {
    pub fn add(&mut self, id: u32, body: &[u8]) {
        self.add_hash(hash(id, body));
    }

    fn add_hash(&mut self, hash: u64) {
        self.documents += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    fn remove_hash(&mut self, hash: u64) {
        self.documents -= 1;
        self.sum = self.sum.wrapping_sub(hash);
    }
}

/// The documents by id. Ids are small numbers, so the index is an array.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub checksum: Checksum,
    pub operations: u64,
    pub bulks: u64,
    pub bytes: u64,
    /// When the last bulk's body was read.
    pub last_read: Option<Instant>,
    /// What came that was not understood; no figure is printed then.
    pub fault: Option<String>,
    documents: Vec<Document>,
    /// Arrivals are noted for ids from here on.
    watched_from: Option<u32>,
    arrivals: Vec<(u32, Instant)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Document {
    /// Stays when the document is deleted, as a tombstone.
    version: u64,
    /// 0: there is none.
    hash: u64,
}

struct Operation<'b> {
    id: u32,
    id_text: &'b str,
    version: u64,
    /// None deletes.
    hash: Option<u64>,
}

impl NullSink {
    pub fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port of the loopback");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let sink = Arc::new(Self { state: Mutex::default(), port });
        let serving = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = serving.clone();
                std::thread::spawn(move || sink.serve(stream));
            }
        });
        sink
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes from now on when the documents from this id on arrive.
    pub fn watch(&self, first: u32) {
        let mut state = self.state();
        state.watched_from = Some(first);
        state.arrivals.clear();
    }

    pub fn arrivals(&self) -> Vec<(u32, Instant)> {
        self.state().arrivals.clone()
    }

    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).ok();
        let Ok(mut out) = stream.try_clone() else { return };
        let mut input = BufReader::with_capacity(64 << 10, stream);
        let (mut head, mut body, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        while let Ok(Some(request)) = read_request(&mut input, &mut head, &mut body) {
            let read_at = Instant::now();
            answer.clear();
            let status = self.answer(&request, &body, read_at, &mut answer);
            let head = format!(
                "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            let mut whole = head.into_bytes();
            whole.extend_from_slice(&answer);
            if out.write_all(&whole).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request, body: &[u8], at: Instant, out: &mut Vec<u8>) -> u16 {
        let path = request.path.split('?').next().unwrap_or_default();
        let alias = format!("{INDEX}.driftless");
        match (request.method.as_str(), path) {
            ("POST", path) if path == format!("/{alias}/_bulk") => match self.bulk(body, at, out) {
                Ok(()) => 200,
                Err(fault) => self.refuse(fault, out),
            },
            ("GET", path) if path == format!("/{INDEX}") => {
                let description = format!(
                    r#"{{"{INDEX}":{{"aliases":{{"{alias}":{{}}}},"mappings":{{}},"settings":{{"index.uuid":"null-sink"}}}}}}"#
                );
                out.extend_from_slice(description.as_bytes());
                200
            }
            ("GET", path) if path.starts_with(&format!("/{INDEX}/_settings")) => {
                let settings =
                    format!(r#"{{"{INDEX}":{{"settings":{{"index.uuid":"null-sink"}}}}}}"#);
                out.extend_from_slice(settings.as_bytes());
                200
            }
            ("GET", path) if path.starts_with(&format!("/{INDEX}/_mapping")) => {
                out.extend_from_slice(format!(r#"{{"{INDEX}":{{"mappings":{{}}}}}}"#).as_bytes());
                200
            }
            ("POST", "/_aliases") => {
                out.extend_from_slice(br#"{"acknowledged":true}"#);
                200
            }
            (method, path) => {
                self.refuse(format!("a request it does not know: {method} {path}"), out)
            }
        }
    }

    fn refuse(&self, fault: String, out: &mut Vec<u8>) -> u16 {
        out.extend_from_slice(br#"{"error":{"type":"illegal_argument_exception","reason":"-"}}"#);
        self.state().fault.get_or_insert(fault);
        400
    }

    fn bulk(&self, body: &[u8], read_at: Instant, out: &mut Vec<u8>) -> Result<(), String> {
        let operations = parse(body)?;
        let mut state = self.state();
        state.bulks += 1;
        state.bytes += body.len() as u64;
        state.last_read = state.last_read.max(Some(read_at));
        out.extend_from_slice(br#"{"items":["#);
        for (at, operation) in operations.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            state.apply(operation, read_at, out);
        }
        out.extend_from_slice(b"]}");
        Ok(())
    }
}

impl State {
    /// As with `external_gte`: an operation below the stored version is a conflict and changes nothing.
    fn apply(&mut self, operation: &Operation<'_>, read_at: Instant, out: &mut Vec<u8>) {
        self.operations += 1;
        let place = operation.id as usize;
        if self.documents.len() <= place {
            self.documents.resize((place + 1).next_power_of_two(), Document::default());
        }
        let Document { version, hash } = self.documents[place];
        let (id, action) =
            (operation.id_text, if operation.hash.is_some() { "index" } else { "delete" });
        if operation.version < version {
            let reason = format!(
                "[{id}]: version conflict, current version [{version}] is higher than the one provided [{}]",
                operation.version
            );
            let error = format!(
                r#"{{"{action}":{{"_index":"{INDEX}","_id":"{id}","status":409,"error":{{"type":"version_conflict_engine_exception","reason":"{reason}"}}}}}}"#
            );
            return out.extend_from_slice(error.as_bytes());
        }
        if hash != 0 {
            self.checksum.remove_hash(hash);
        }
        if let Some(new) = operation.hash {
            self.checksum.add_hash(new);
            if self.watched_from.is_some_and(|first| operation.id >= first) {
                self.arrivals.push((operation.id, read_at));
            }
        }
        self.documents[place] =
            Document { version: operation.version, hash: operation.hash.unwrap_or(0) };
        let status: &[u8] = match (operation.hash, hash) {
            (Some(_), 0) => b"201",
            (None, 0) => b"404",
            _ => b"200",
        };
        for part in [
            b"{\"",
            action.as_bytes(),
            b"\":{\"_index\":\"",
            INDEX.as_bytes(),
            b"\",\"_id\":\"",
            id.as_bytes(),
            b"\",\"status\":",
            status,
            b"}}",
        ] {
            out.extend_from_slice(part);
        }
    }
}

struct Request {
    method: String,
    path: String,
}

/// The next request, its body into `body`; None where the client hung up between two.
fn read_request(
    input: &mut BufReader<TcpStream>,
    head: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> std::io::Result<Option<Request>> {
    use std::io::BufRead as _;
    let (mut first, mut length) = (None, 0);
    loop {
        head.clear();
        if input.read_until(b'\n', head)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(head);
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_none() {
            first = Some(line.to_owned());
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    body.resize(length, 0);
    input.read_exact(body)?;
    let first = first.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(Some(Request { method, path }))
}

/// The operations of a bulk; an error where a line is not of the one form that the daemon writes for numeric ids.
fn parse(body: &[u8]) -> Result<Vec<Operation<'_>>, String> {
    if body.last() != Some(&b'\n') {
        return Err("a bulk does not end in a line break".to_owned());
    }
    let mut operations = Vec::with_capacity(body.len() / 256);
    let mut rest = body;
    while let Some((line, behind)) = cut_line(rest) {
        rest = behind;
        let unknown = || format!("an action it does not know: {}", String::from_utf8_lossy(line));
        let (is_delete, fields) = match line {
            [b'{', b'"', b'i', b'n', b'd', b'e', b'x', b'"', b':', fields @ ..] => (false, fields),
            [b'{', b'"', b'd', b'e', b'l', b'e', b't', b'e', b'"', b':', fields @ ..] => {
                (true, fields)
            }
            // Behind a bulk of deletes stands an update of nothing, against the creation of a missing index.
            _ if line.starts_with(br#"{"update":{"_id":"driftless-guard"}}"#) => {
                rest = cut_line(rest).ok_or_else(unknown)?.1;
                continue;
            }
            _ => return Err(unknown()),
        };
        let (id_text, version) = read_fields(fields).ok_or_else(unknown)?;
        let id = id_text.parse().map_err(|_| unknown())?;
        let mut hash_of_body = None;
        if !is_delete {
            let (document, behind) = cut_line(rest).ok_or_else(unknown)?;
            rest = behind;
            hash_of_body = Some(hash(id, document));
        }
        operations.push(Operation { id, id_text, version, hash: hash_of_body });
    }
    Ok(operations)
}

/// `{"_id":"7","version":12,"version_type":"external_gte"}}`
fn read_fields(fields: &[u8]) -> Option<(&str, u64)> {
    let fields = std::str::from_utf8(fields).ok()?;
    let (id, rest) = fields.strip_prefix(r#"{"_id":""#)?.split_once('"')?;
    let (version, rest) = rest.strip_prefix(r#","version":"#)?.split_once(',')?;
    (rest == r#""version_type":"external_gte"}}"#).then_some(())?;
    Some((id, version.parse().ok()?))
}

fn cut_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Never 0, which stands for no document.
fn hash(id: u32, body: &[u8]) -> u64 {
    foldhash::quality::FixedState::with_seed(97).hash_one((id, body)) | 1
}
