//! Opens the stream of one source behind a checkpoint: session, identity, dump. Knows nothing of what events mean.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{Connection, Dump, DumpFrom, EventStream, Session, prepare_session};
use crate::position::Position;
use crate::source::binlog::gtid_set;
use crate::source::config::{Config, Resume, drawn_server_id};
use crate::source::control;
use crate::source::server::{Naming, Server};
use crate::source::torn;

/// Longer than any pause of ours: a link that waits for its sink must not have the source cut the connection.
const NET_WRITE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What was found at the source's address.
pub enum Opened {
    Stream(EventStream),
    /// Another server than before, with this identity: files, offsets and versions mean nothing there.
    Elsewhere(String),
}

/// Connects and asks for everything behind `at`, as the one that follows this source.
pub async fn open(config: &Config, server: &Server, at: &Position) -> Result<Opened> {
    let from = || resume(config.resume, server.naming, at);
    open_as((config.server_id(), Some(at)), config, server, from).await
}

/// The same beside the one that follows it.
pub async fn open_beside(config: &Config, server: &Server, at: &Position) -> Result<Opened> {
    let from = || resume(config.resume, server.naming, at);
    open_as((drawn_server_id(), None), config, server, from).await
}

/// Connects, beside the one that follows this source, and asks for a file of the log, from its head on.
pub async fn open_file(config: &Config, server: &Server, file: &str) -> Result<Opened> {
    let from = || Ok(DumpFrom::File { file: file.to_owned(), offset: 4 });
    open_as((drawn_server_id(), None), config, server, from).await
}

/// A server ends another reader with the same number: MySQL goes by a UUID, which is new each time, MariaDB by this alone.
/// `read` is how far this server's log was read before.
async fn open_as(
    (server_id, read): (u32, Option<&Position>),
    config: &Config,
    server: &Server,
    from: impl FnOnce() -> Result<DumpFrom>,
) -> Result<Opened> {
    let connection = Connection::connect(&config.replication_options()?).await?;
    let begun = begin(connection, (server_id, read), config, server, from);
    control::in_time(config.connect_timeout(), begun).await
}

async fn begin(
    mut connection: Connection,
    (server_id, read): (u32, Option<&Position>),
    config: &Config,
    server: &Server,
    from: impl FnOnce() -> Result<DumpFrom>,
) -> Result<Opened> {
    let session = Session {
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        replica_uuid: uuid::Uuid::new_v4().to_string(),
        net_write_timeout: NET_WRITE_TIMEOUT,
    };
    prepare_session(&mut connection, &session).await?;
    let found = Server::of_connection(&mut connection).await?.identity;
    if found != server.identity {
        return Ok(Opened::Elsewhere(found));
    }
    if let Some(read) = read
        && let Some(reason) = torn::by_connection(&mut connection, read).await?
    {
        return Err(Error::new(ErrorKind::SourceLost, reason));
    }
    Ok(Opened::Stream(connection.dump(Dump { server_id, from: from()? }).await?))
}

/// Resuming by transactions works on every server that has them; by file and offset only on the one that wrote the file. A
/// start that has no file yet goes by transactions in either case.
fn resume(by: Resume, naming: Naming, at: &Position) -> Result<DumpFrom> {
    let file = |file: String, offset: u64| DumpFrom::File { file, offset: offset.max(4) };
    match naming {
        Naming::Places => {
            let (name, offset) = at.gtids.reached().ok_or_else(|| {
                let what = "no place in the log is known to go on from";
                Error::new(ErrorKind::SourceLost, what)
                    .with_advice("drop the link and create it again")
            })?;
            Ok(file(name, offset))
        }
        Naming::Gtids | Naming::Domains if by == Resume::File && !at.file.is_empty() => {
            Ok(file(at.file.clone(), at.offset))
        }
        Naming::Gtids => Ok(DumpFrom::GtidSet(gtid_set::encode(&at.gtids))),
        Naming::Domains => Ok(DumpFrom::Domains(at.gtids.domains())),
    }
}
