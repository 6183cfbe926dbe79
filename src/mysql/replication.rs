//! A connection that became a stream of log events. Knows nothing of what events mean.

use bytes::{Buf as _, Bytes};

use crate::error::{Error, ErrorKind, Result};

use super::Connection;
use super::errors::{self, ERR};
use super::joiner::{Message, Wanted};
use super::packet::Packets;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
/// Asks for heartbeats that can tell offsets over 4 GiB; servers before 8.0.26 do not look at it.
const HEARTBEAT_V2: u16 = 2;
/// The server lets no event be larger (`replica_max_allowed_packet`); the status byte is on top.
const MAX_EVENT_BYTES: usize = (1 << 30) + 1;

/// Behind the four bytes that a log file begins with.
const FIRST_OFFSET: u64 = 4;

const OK: u8 = 0;
const EOF: u8 = 0xfe;

/// What to ask the source for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// Differs from the source's and from that of every other reader of it.
    pub server_id: u32,
    pub from: DumpFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpFrom {
    /// All transactions that are not in this set, in the server's binary form (`source::binlog::gtid_set::encode`).
    GtidSet(Vec<u8>),
    /// All events of a file from an offset on, and of the files behind it. 4 is the first event's offset.
    File { file: String, offset: u64 },
    /// MariaDB: everything behind the last transactions of these domains, `0-1-5,7-1-3`. Empty: from the log's beginning.
    Domains(String),
}

impl Connection {
    /// Makes us known to `SHOW REPLICAS` under `name`. Reading the log does not need it.
    pub async fn register_replica(&mut self, server_id: u32, name: &str) -> Result<()> {
        let mut command = vec![COM_REGISTER_SLAVE];
        command.extend_from_slice(&server_id.to_le_bytes());
        let name = &name.as_bytes()[..name.len().min(60)];
        command.push(name.len() as u8);
        command.extend_from_slice(name);
        // No user and no password to show, no port, no rank, no source.
        command.extend_from_slice(&[0, 0]);
        command.extend_from_slice(&[0; 2 + 4 + 4]);
        self.packets.command(&command).await?;
        self.expect_ok("cannot register as a replica").await
    }

    /// Strict: a transaction that is not in the log is no place to begin at, even if later ones are.
    async fn tell_domains(&mut self, position: &str) -> Result<()> {
        let is_position =
            position.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b','));
        if !is_position {
            return Err(Error::input(format!("`{position}` is no position of MariaDB")));
        }
        let statement = format!(
            "SET @slave_connect_state = '{position}', @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
        );
        self.query(&statement).await.map(drop)
    }

    /// Asks for the log; the connection can do nothing else from then on. The source's refusal, if there is one, comes
    /// from the first [`EventStream::next`].
    pub async fn dump(mut self, dump: Dump) -> Result<EventStream> {
        // To MariaDB the same bit asks for the texts of statements.
        let flags = if self.is_mariadb() { 0 } else { HEARTBEAT_V2 };
        let command = match dump.from {
            DumpFrom::GtidSet(set) => gtid_command(dump.server_id, &set),
            DumpFrom::File { file, offset } => file_command(dump.server_id, &file, offset, flags)?,
            DumpFrom::Domains(position) => {
                self.tell_domains(&position).await?;
                file_command(dump.server_id, "", FIRST_OFFSET, flags)?
            }
        };
        self.packets.command(&command).await?;
        Ok(EventStream { packets: self.packets, user: self.user })
    }
}

/// The source has nothing more to send, which it says only to readers that asked not to wait.
pub fn stream_ended() -> Error {
    Error::new(ErrorKind::SourceUnreachable, "the source ended the stream")
}

fn gtid_command(server_id: u32, set: &[u8]) -> Vec<u8> {
    let mut command = vec![COM_BINLOG_DUMP_GTID];
    command.extend_from_slice(&HEARTBEAT_V2.to_le_bytes());
    command.extend_from_slice(&server_id.to_le_bytes());
    // No file name: the set alone says where to begin. 4 is what an offset must be at least.
    command.extend_from_slice(&0_u32.to_le_bytes());
    command.extend_from_slice(&4_u64.to_le_bytes());
    command.extend_from_slice(&(set.len() as u32).to_le_bytes());
    command.extend_from_slice(set);
    command
}

fn file_command(server_id: u32, file: &str, offset: u64, flags: u16) -> Result<Vec<u8>> {
    let offset = u32::try_from(offset).map_err(|_| {
        let message =
            format!("offset {offset} of {file} is over 4 GiB, which the protocol cannot ask for");
        Error::new(ErrorKind::Unsupported, message)
            .with_advice("resume by GTID: set gtid_mode = ON on the source")
    })?;
    let mut command = vec![COM_BINLOG_DUMP];
    command.extend_from_slice(&offset.to_le_bytes());
    command.extend_from_slice(&flags.to_le_bytes());
    command.extend_from_slice(&server_id.to_le_bytes());
    command.extend_from_slice(file.as_bytes());
    Ok(command)
}

/// The log as it is written.
pub struct EventStream {
    packets: Packets,
    user: String,
}

impl EventStream {
    /// The next whole event, from its header to its checksum, without a copy unless it is over 16 MiB. None where the
    /// source has nothing more to send.
    ///
    /// It waits for as long as the source is silent: put it into a time-out of a few heartbeats. A call that is dropped
    /// has lost nothing.
    ///
    /// Of an event over 16 MiB that is not wanted only the beginning is given.
    pub async fn next(&mut self, wanted: Wanted<'_>) -> Result<Option<Bytes>> {
        let message = self.packets.read_wanted(MAX_EVENT_BYTES, &|m| is_wanted(m, wanted)).await?;
        self.event(message)
    }

    /// The next whole event as [`Self::next`] gives it, if it can be had without a read from the socket. While the log
    /// comes in large pieces, this spares a time-out for each event.
    pub fn next_buffered(&mut self, wanted: Wanted<'_>) -> Result<Option<Bytes>> {
        let wanted = |message: &[u8]| is_wanted(message, wanted);
        let Some(message) = self.packets.read_buffered(MAX_EVENT_BYTES, &wanted)? else {
            return Ok(None);
        };
        let event = self.event(message)?;
        event.map(Some).ok_or_else(stream_ended)
    }

    fn event(&self, message: Message) -> Result<Option<Bytes>> {
        let Message { bytes: mut packet, thrown_away } = message;
        match packet.first() {
            Some(&OK) => {
                packet.advance(1);
                check_size(&packet, thrown_away)?;
                Ok(Some(packet))
            }
            Some(&ERR) => {
                Err(errors::from_packet(&packet, "cannot read the source's log", &self.user))
            }
            Some(&EOF) => Ok(None),
            _ => Err(Error::new(
                ErrorKind::Undecodable,
                "the source sent something that is no event",
            )),
        }
    }

    /// Whether another whole event can be had without a read from the socket.
    pub fn buffered(&self) -> bool {
        self.packets.buffered()
    }
}

/// Asks about the event behind the status byte.
fn is_wanted(message: &[u8], wanted: Wanted<'_>) -> bool {
    match message.split_first() {
        Some((&OK, event)) => wanted(event),
        _ => true,
    }
}

/// What was thrown away is counted by what the event's header says, so that must be what came.
fn check_size(beginning: &[u8], thrown_away: usize) -> Result<()> {
    /// Where an event's header has its size.
    const SIZE_AT: usize = 9;
    if thrown_away == 0 {
        return Ok(());
    }
    let size = beginning.get(SIZE_AT..).and_then(|rest| rest.first_chunk::<4>());
    if size.map(|size| u32::from_le_bytes(*size) as usize) == Some(beginning.len() + thrown_away) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Undecodable, "an event has another size than its header says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_over_four_gibibytes_is_refused() {
        let error = file_command(1, "binlog.000001", 1 << 32, 0)
            .expect_err("the protocol has no room for it");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn the_set_stands_behind_its_length() {
        let command = gtid_command(7, &[1, 2, 3]);
        assert_eq!(command.len(), 1 + 2 + 4 + 4 + 8 + 4 + 3);
        assert_eq!(command[19..23], 3_u32.to_le_bytes());
    }
}
