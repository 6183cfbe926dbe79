//! Opens the stream of one source behind a checkpoint: session, identity, dump. Knows nothing of what events mean.

use std::time::Duration;

use crate::error::Result;
use crate::mysql::{Connection, Dump, DumpFrom, EventStream, Session, prepare_session};
use crate::position::Checkpoint;
use crate::source::binlog::gtid_set;
use crate::source::config::{Config, Resume};

/// Longer than any pause of ours: a link that waits for its sink must not have the source cut the connection.
const NET_WRITE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What was found at the source's address.
pub enum Opened {
    Stream(EventStream),
    /// Another server than before, with this `server_uuid`: files, offsets and versions mean nothing there.
    Elsewhere(String),
}

/// Connects and asks for everything behind `at`.
///
/// Resuming by GTID set works on every server that has the transactions; by file and offset only on the one that wrote
/// the file. A start that has no file yet goes by GTID set in either case.
pub async fn open(config: &Config, server_uuid: &str, at: &Checkpoint) -> Result<Opened> {
    let mut connection = Connection::connect(&config.replication_options()?).await?;
    let session = Session {
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        replica_uuid: uuid::Uuid::new_v4().to_string(),
        net_write_timeout: NET_WRITE_TIMEOUT,
    };
    prepare_session(&mut connection, &session).await?;
    let found = uuid_of(&mut connection).await?;
    if found != server_uuid {
        return Ok(Opened::Elsewhere(found));
    }
    let by_file = config.resume == Resume::File && !at.position.file.is_empty();
    let from = if by_file {
        DumpFrom::File { file: at.position.file.clone(), offset: at.position.offset.max(4) }
    } else {
        DumpFrom::GtidSet(gtid_set::encode(&at.position.gtids))
    };
    Ok(Opened::Stream(connection.dump(Dump { server_id: config.server_id(), from }).await?))
}

async fn uuid_of(connection: &mut Connection) -> Result<String> {
    let rows = connection.query("SELECT @@global.server_uuid").await?;
    let cell = rows.into_iter().flatten().next().flatten().unwrap_or_default();
    Ok(String::from_utf8_lossy(&cell).into_owned())
}
