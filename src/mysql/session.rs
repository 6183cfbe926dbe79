//! What a session says before it asks for the log. Knows nothing of events.

use std::time::Duration;

use crate::error::{Error, Result};

use super::Connection;

/// Settings of a session that will read the log.
#[derive(Debug, Clone)]
pub struct Session {
    /// How long the source may be silent; then it sends a heartbeat.
    pub heartbeat: Duration,
    /// A UUID that no other reader of this source has: the server ends an older session with the same one.
    pub replica_uuid: String,
    /// How long the source waits for us when we do not read, before it cuts the connection. A stall longer than this
    /// sends a transaction from its start again, so it is large.
    pub net_write_timeout: Duration,
}

/// Sets the session up for [`Connection::dump`]: heartbeat, checksums, our identity, patience. Each setting is given by
/// its new and its old name, because servers look at one or the other.
pub async fn prepare_session(connection: &mut Connection, session: &Session) -> Result<()> {
    let uuid = &session.replica_uuid;
    if uuid.is_empty() || !uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(Error::input("the replica's UUID is not a UUID"));
    }
    connection.query(&statement(session)).await?;
    if connection.is_mariadb() {
        // 4: MariaDB's own GTID events, not what they replace.
        connection.query("SET @mariadb_slave_capability = 4").await?;
    }
    Ok(())
}

fn statement(session: &Session) -> String {
    let nanos = session.heartbeat.as_nanos();
    let uuid = &session.replica_uuid;
    let patience_s = session.net_write_timeout.as_secs().max(1);
    // CRC32 says that we can read checksums; whether there are any is the log's own affair.
    format!(
        "SET @source_heartbeat_period = {nanos}, @master_heartbeat_period = {nanos}, \
         @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32', \
         @replica_uuid = '{uuid}', @slave_uuid = '{uuid}', \
         SESSION net_write_timeout = {patience_s}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_told_in_nanoseconds_by_both_names() {
        let session = Session {
            heartbeat: Duration::from_millis(1500),
            replica_uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562".to_owned(),
            net_write_timeout: Duration::from_secs(3600),
        };
        let statement = statement(&session);
        assert!(statement.contains("@source_heartbeat_period = 1500000000,"));
        assert!(statement.contains("@master_heartbeat_period = 1500000000,"));
        assert!(statement.ends_with("net_write_timeout = 3600"));
    }
}
