//! One connection: connect, encrypt, log in, ask. Knows nothing of logs.

use std::time::Duration;

use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::{Error, ErrorKind, Result};
use crate::net::tls;

use super::auth::{self, Plugin};
use super::errors::{self, ERR};
use super::handshake::Greeting;
use super::lenenc::Fields;
use super::packet::{Packets, Stream};
use super::public_key;

const COM_QUERY: u8 = 3;
const COM_PING: u8 = 14;
/// Largest packet of a login, and largest answer to one of our few questions.
const MAX_LOGIN_BYTES: usize = 64 << 10;
const MAX_ANSWER_BYTES: usize = 64 << 20;

const OK: u8 = 0;
const EOF: u8 = 0xfe;
const MORE: u8 = 1;

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct Options {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: SecretString,
    pub tls: tls::Config,
    /// For the whole way from the first packet to being logged in.
    pub connect_timeout: Duration,
}

/// A session that is logged in.
pub struct Connection {
    pub(super) packets: Packets,
    pub(super) user: String,
    server_version: String,
    connection_id: u32,
}

impl Connection {
    pub async fn connect(options: &Options) -> Result<Self> {
        let tried = format!("cannot connect to {}:{}", options.host, options.port);
        match tokio::time::timeout(options.connect_timeout, log_in(options)).await {
            Ok(connected) => connected.map_err(|error| error.context(tried)),
            Err(_) => {
                let message =
                    format!("{tried}: no answer within {} ms", options.connect_timeout.as_millis());
                Err(Error::new(ErrorKind::SourceUnreachable, message))
            }
        }
    }

    /// As the server writes it: `9.7.4`, `8.0.33-log`.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    pub fn is_mariadb(&self) -> bool {
        self.server_version.contains("MariaDB")
    }

    /// The server's number for this session, for KILL.
    pub fn connection_id(&self) -> u32 {
        self.connection_id
    }

    pub fn is_encrypted(&self) -> bool {
        self.packets.is_encrypted()
    }

    pub async fn ping(&mut self) -> Result<()> {
        self.packets.command(&[COM_PING]).await?;
        self.expect_ok("cannot ping the source").await
    }

    /// Asks by the text protocol: rows of columns, None for NULL. No rows for a statement without a result.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        let mut command = vec![COM_QUERY];
        command.extend_from_slice(sql.as_bytes());
        self.packets.command(&command).await?;
        self.read_rows()
            .await
            .map_err(|error| error.context(format!("cannot run `{}`", shortened(sql))))
    }

    async fn read_rows(&mut self) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        let head = self.read_answer().await?;
        if head.first() == Some(&OK) {
            return Ok(Vec::new());
        }
        let columns =
            Fields::new(&head).lenenc()?.ok_or_else(|| refused("it asks for a local file"))?;
        for _ in 0..columns {
            self.read_answer().await?;
        }
        if !is_eof(&self.read_answer().await?) {
            return Err(refused("its answer has no end of columns"));
        }
        let (mut rows, mut room) = (Vec::new(), MAX_ANSWER_BYTES);
        loop {
            let packet = self.read_answer().await?;
            if is_eof(&packet) {
                return Ok(rows);
            }
            room = room
                .checked_sub(packet.len() + 32)
                .ok_or_else(|| refused("its answer is too large"))?;
            let mut fields = Fields::new(&packet);
            let mut row = Vec::new();
            while !fields.is_empty() {
                row.push(fields.lenenc_bytes()?.map(<[u8]>::to_vec));
            }
            rows.push(row);
        }
    }

    async fn read_answer(&mut self) -> Result<bytes::Bytes> {
        let packet = self.packets.read(MAX_ANSWER_BYTES).await?;
        if packet.first() == Some(&ERR) {
            return Err(errors::from_packet(&packet, "the source says", &self.user));
        }
        Ok(packet)
    }

    pub(super) async fn expect_ok(&mut self, tried: &str) -> Result<()> {
        let packet = self.packets.read(MAX_LOGIN_BYTES).await?;
        match packet.first() {
            Some(&OK) => Ok(()),
            Some(&ERR) => Err(errors::from_packet(&packet, tried, &self.user)),
            _ => Err(refused("its answer is neither OK nor an error").context(tried)),
        }
    }
}

async fn log_in(options: &Options) -> Result<Connection> {
    let address = (options.host.as_str(), options.port);
    let socket = TcpStream::connect(address).await.map_err(|cause| {
        Error::new(ErrorKind::SourceUnreachable, "no connection").caused_by(cause)
    })?;
    // Our few small packets are questions that somebody waits for.
    socket
        .set_nodelay(true)
        .map_err(|cause| Error::new(ErrorKind::Io, "no connection").caused_by(cause))?;
    let mut packets = Packets::new(Stream::Plain(socket));
    let first = packets.read(MAX_LOGIN_BYTES).await?;
    if first.first() == Some(&ERR) {
        return Err(errors::from_packet(&first, "not let in", &options.user));
    }
    let greeting = Greeting::parse(&first)?;
    let mut packets = encrypt(packets, &greeting, options).await?;
    // What the server proposes may not be ours; then it will ask us to change to the account's plugin.
    let plugin = Plugin::named(&greeting.plugin).unwrap_or(Plugin::CachingSha2);
    let answer = plugin.answer(options.password.expose_secret(), &greeting.nonce);
    let encrypted = packets.is_encrypted();
    packets.write(&greeting.answer(&options.user, plugin.name(), &answer, encrypted)).await?;
    prove(&mut packets, plugin, greeting.nonce.to_vec(), options).await?;
    Ok(Connection {
        packets,
        user: options.user.clone(),
        server_version: greeting.server_version,
        connection_id: greeting.connection_id,
    })
}

async fn encrypt(mut packets: Packets, greeting: &Greeting, options: &Options) -> Result<Packets> {
    match options.tls.mode {
        tls::Mode::Disabled => return Ok(packets),
        tls::Mode::Preferred if !greeting.offers_tls() => return Ok(packets),
        _ if !greeting.offers_tls() => {
            return Err(refused("it offers no TLS")
                .with_advice("set tls.mode to `disabled`, or mend the source's ssl_cert"));
        }
        _ => (),
    }
    let name = ServerName::try_from(options.host.clone()).map_err(|cause| {
        Error::input("the host is no name that a certificate can bear").caused_by(cause)
    })?;
    let settings = options.tls.clone();
    // Reads files, and the system's authorities are many.
    let config = tokio::task::spawn_blocking(move || tls::client_config(&settings))
        .await
        .map_err(|cause| {
            Error::new(ErrorKind::Stopped, "the TLS settings were not read").caused_by(cause)
        })??;
    packets.write(&greeting.tls_request()).await?;
    let sequence = packets.sequence();
    let Stream::Plain(socket) = packets.into_stream()? else {
        return Err(refused("it is encrypted already"));
    };
    let stream = TlsConnector::from(config).connect(name, socket).await.map_err(no_tls)?;
    Ok(Packets::continue_over(Stream::Tls(Box::new(stream)), sequence))
}

/// A certificate that is not trusted today will not be trusted in a second; everything else may pass.
fn no_tls(cause: std::io::Error) -> Error {
    let rustls = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let error = match rustls {
        Some(rustls::Error::InvalidCertificate(_)) => refused("its certificate is not trusted")
            .with_advice(
                "set tls.ca_file to the authority that signed it, or choose another tls.mode",
            ),
        Some(_) => refused("no encryption could be agreed on"),
        None => {
            Error::new(ErrorKind::SourceUnreachable, "the connection broke while it was encrypted")
        }
    };
    error.caused_by(cause)
}

/// Goes through the plugin's rounds until the server says OK.
async fn prove(
    packets: &mut Packets,
    mut plugin: Plugin,
    mut nonce: Vec<u8>,
    options: &Options,
) -> Result<()> {
    const FAST_PATH_DONE: u8 = 3;
    const FULL_PATH: u8 = 4;
    let password = options.password.expose_secret();
    // Each round is one packet of the server; an honest one needs at most four.
    for _ in 0..8 {
        let packet = packets.read(MAX_LOGIN_BYTES).await?;
        match packet.split_first() {
            Some((&OK, _)) => return Ok(()),
            Some((&ERR, _)) => {
                return Err(errors::from_packet(&packet, "not let in", &options.user));
            }
            Some((&EOF, request)) => {
                let mut fields = Fields::new(request);
                plugin = Plugin::named(&String::from_utf8_lossy(fields.until_zero()))?;
                nonce = plugin.nonce(fields.rest());
                packets.write(&plugin.answer(password, &nonce)).await?;
            }
            Some((&MORE, &[FAST_PATH_DONE])) if plugin == Plugin::CachingSha2 => (),
            Some((&MORE, &[FULL_PATH])) if plugin == Plugin::CachingSha2 => {
                tell_password(packets, password, &nonce).await?;
            }
            _ => return Err(refused("it does not keep to the rules of the login")),
        }
    }
    Err(refused("its login does not end"))
}

/// The full path: in clear where the connection is encrypted, else with the server's RSA key. Whoever can change what is
/// on the wire can put a key of his own in its place: only `verify_ca` and `verify_identity` keep him out.
async fn tell_password(packets: &mut Packets, password: &str, nonce: &[u8]) -> Result<()> {
    const ASK_FOR_KEY: u8 = 2;
    if packets.is_encrypted() {
        return packets.write(&auth::in_clear(password)).await;
    }
    packets.write(&[ASK_FOR_KEY]).await?;
    let packet = packets.read(MAX_LOGIN_BYTES).await?;
    match packet.split_first() {
        Some((&MORE, pem)) => {
            let secret = public_key::encrypt(&auth::hidden_by_nonce(password, nonce), pem)?;
            packets.write(&secret).await
        }
        _ => Err(refused("it gives no RSA key for the password")
            .with_advice("set tls.mode to `required` or stricter")),
    }
}

fn is_eof(packet: &[u8]) -> bool {
    packet.first() == Some(&EOF) && packet.len() < 9
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::SourceRefused, format!("the source cannot be used: {why}"))
}

fn shortened(sql: &str) -> &str {
    &sql[..sql.floor_char_boundary(80)]
}
