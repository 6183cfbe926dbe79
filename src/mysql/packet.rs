//! Messages over a socket, encrypted or not. Knows nothing of what they say.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, ErrorKind, Result};

use super::joiner::{HEAD, Joiner, Message, Wanted, frame};

/// The socket, encrypted or not.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn read(&mut self, buffer: &mut BytesMut) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }
}

/// Messages over a socket.
pub struct Packets {
    stream: Stream,
    joiner: Joiner,
    /// Number of the next packet, ours or theirs.
    sequence: u8,
}

impl Packets {
    pub fn new(stream: Stream) -> Self {
        Self { stream, joiner: Joiner::default(), sequence: 0 }
    }

    /// The socket below, for the change to TLS. An error where the server has already sent more: nothing may be said
    /// between asking for encryption and having it.
    pub fn into_stream(self) -> Result<Stream> {
        if self.joiner.is_empty() {
            return Ok(self.stream);
        }
        Err(Error::new(
            ErrorKind::SourceRefused,
            "the source spoke before the connection was encrypted",
        ))
    }

    pub fn continue_over(stream: Stream, sequence: u8) -> Self {
        Self { stream, joiner: Joiner::default(), sequence }
    }

    pub fn sequence(&self) -> u8 {
        self.sequence
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The next message. Dropping the future loses nothing: what came is kept for the next call.
    pub async fn read(&mut self, max_bytes: usize) -> Result<Bytes> {
        Ok(self.read_wanted(max_bytes, &|_| true).await?.bytes)
    }

    /// The next message, whole only if it is wanted.
    pub async fn read_wanted(&mut self, max_bytes: usize, wanted: Wanted<'_>) -> Result<Message> {
        loop {
            if let Some(message) = self.read_buffered(max_bytes, wanted)? {
                return Ok(message);
            }
            self.joiner.make_room();
            let count = self.stream.read(self.joiner.buffer_mut()).await.map_err(broken)?;
            if count == 0 {
                return Err(Error::new(
                    ErrorKind::SourceUnreachable,
                    "the source closed the connection",
                ));
            }
        }
    }

    /// The next message, if it is there whole.
    pub fn read_buffered(
        &mut self,
        max_bytes: usize,
        wanted: Wanted<'_>,
    ) -> Result<Option<Message>> {
        let taken = self.joiner.take(max_bytes, wanted)?;
        let Some((message, sequence)) = taken else { return Ok(None) };
        self.sequence = sequence.wrapping_add(1);
        Ok(Some(message))
    }

    /// Whether a whole message can be had without asking the socket.
    pub fn buffered(&self) -> bool {
        self.joiner.has_message()
    }

    /// Sends one message as the next of the running exchange.
    pub async fn write(&mut self, message: &[u8]) -> Result<()> {
        let mut framed = Vec::with_capacity(message.len() + HEAD);
        self.sequence = frame(message, self.sequence, &mut framed);
        self.stream.write(&framed).await.map_err(broken)
    }

    /// Sends one message that begins an exchange.
    pub async fn command(&mut self, message: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.write(message).await
    }
}

fn broken(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::SourceUnreachable, "the connection to the source broke").caused_by(cause)
}
