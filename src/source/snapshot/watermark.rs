//! What the server has executed, what its log holds, and what it no longer holds, as sets of transactions.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::error::{Error, ErrorKind, Result};
use crate::position::{Gtid, GtidSet, gtid_of_mariadb, log_file, place};
use crate::source::control;
use crate::source::server::{Naming, Server};

/// Everything that a SELECT before this can have shown: executed, or, where the server cannot tell that, in its log. On a
/// server with GTIDs nothing else; only there it is a set to wait for.
pub async fn executed(conn: &mut Conn, server: &Server) -> Result<GtidSet> {
    match server.naming {
        Naming::Gtids => {
            // Both in one statement.
            let asked = "SELECT @@global.gtid_executed, @@global.server_uuid";
            let (gtids, uuid): (String, String) = one(conn, asked).await?;
            if uuid != server.identity {
                return Err(server.not_here(&uuid));
            }
            gtids.parse()
        }
        Naming::Domains | Naming::Places => logged(conn, server).await,
    }
}

/// Executed or about to be: everything in the log. What was not yet committed by the engine is among it; the stream may
/// have brought it already.
pub async fn logged(conn: &mut Conn, server: &Server) -> Result<GtidSet> {
    match server.naming {
        Naming::Gtids => {
            // Owned first, for a transaction goes from the one to the other.
            let asked = "SELECT @@global.gtid_owned, @@global.gtid_executed";
            let (owned, executed): (String, String) = one(conn, asked).await?;
            let mut logged: GtidSet = executed.parse()?;
            logged.union(&without_owners(&owned).parse()?);
            Ok(logged)
        }
        Naming::Domains => {
            let (position,): (String,) = one(conn, "SELECT @@global.gtid_binlog_pos").await?;
            position.parse()
        }
        Naming::Places => {
            let (file, offset) = end_of_log(conn).await?;
            up_to(server, &file, offset)
        }
    }
}

/// What the log no longer holds.
pub async fn purged(conn: &mut Conn, server: &Server) -> Result<GtidSet> {
    match server.naming {
        Naming::Gtids => {
            let (purged,): (String,) = one(conn, "SELECT @@global.gtid_purged").await?;
            purged.parse()
        }
        Naming::Domains => {
            let file = first_file(conn).await?;
            before_file(conn, &file).await
        }
        Naming::Places => {
            let file = first_file(conn).await?;
            up_to(server, &file, FIRST_OFFSET)
        }
    }
}

/// Of MariaDB the last transaction of each server in each domain of its log; nothing of other servers.
pub async fn newest_of_each_server(conn: &mut Conn, server: &Server) -> Result<Vec<Gtid>> {
    if server.naming != Naming::Domains {
        return Ok(Vec::new());
    }
    let (state,): (String,) = one(conn, "SELECT @@global.gtid_binlog_state").await?;
    Ok(state.split(',').filter_map(gtid_of_mariadb).collect())
}

/// Of MariaDB: what is before a file of the log.
pub async fn before_file(conn: &mut Conn, file: &str) -> Result<GtidSet> {
    let asked = "SELECT BINLOG_GTID_POS(?, 4)";
    let position: Option<Option<String>> = conn.exec_first(asked, (file,)).await.map_err(unread)?;
    let unknown = || unknown_state(format!("BINLOG_GTID_POS knows nothing of {file}"));
    position.flatten().ok_or_else(unknown)?.parse()
}

/// Behind the four bytes that a log file begins with.
const FIRST_OFFSET: u64 = 4;

/// The end of the log: file and offset.
pub async fn end_of_log(conn: &mut Conn) -> Result<(String, u64)> {
    let row = control::log_status(conn).await.map_err(unread)?;
    let place = row.and_then(|row| {
        let file = row.get_opt::<String, _>(0)?.ok()?;
        Some((file, row.get_opt::<u64, _>(1)?.ok()?))
    });
    place.ok_or_else(|| unknown_state("the source writes no binary log".to_owned()))
}

async fn first_file(conn: &mut Conn) -> Result<String> {
    let row: Option<Row> = conn.query_first("SHOW BINARY LOGS").await.map_err(unread)?;
    let name = row.and_then(|row| row.get_opt::<String, _>(0)?.ok());
    name.ok_or_else(|| unknown_state("the source has no file of its log".to_owned()))
}

fn up_to(server: &Server, file: &str, offset: u64) -> Result<GtidSet> {
    let mut all = GtidSet::default();
    let placed = log_file(file).and_then(|(base, number)| Some((base, place(number, offset)?)));
    let (base, place) = placed
        .ok_or_else(|| unknown_state(format!("offset {offset} of {file} is no place of a log")))?;
    all.reach(&server.log(base), place);
    Ok(all)
}

async fn one<T>(conn: &mut Conn, asked: &str) -> Result<T>
where
    T: mysql_async::prelude::FromRow + Send + 'static,
{
    let row: Option<T> = conn.query_first(asked).await.map_err(unread)?;
    row.ok_or_else(|| unknown_state(format!("no answer to {asked}")))
}

fn unread(cause: mysql_async::Error) -> Error {
    control::error(cause).context("cannot read how far the source's log goes")
}

fn unknown_state(what: String) -> Error {
    Error::new(ErrorKind::SourceRefused, what)
        .with_advice("run `driftless check`: it names what the source lacks")
}

/// `uuid:5#12:6#13,uuid:7#14` without the sessions behind `#`.
fn without_owners(owned: &str) -> String {
    let mut text = String::new();
    let mut is_owner = false;
    for c in owned.chars() {
        is_owner = c == '#' || (is_owner && c.is_ascii_digit());
        if !is_owner {
            text.push(c);
        }
    }
    text
}

/// How often it is asked which transactions that were about to be committed still are: one that is rolled back instead
/// never comes.
pub const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long a look at commits that hang waits for the next one.
const SETTLE_EVERY: Duration = Duration::from_millis(5);

/// Everything that can be seen by now, or stands in the log by now, of which a link that streams may have written it.
///
/// Where the server tells what it has executed, this returns when it has executed all of that. There a change can be seen
/// before it counts as executed, and stands in the log before it can be seen; all that time its transaction is owned. One
/// that was owned and is rolled back drops out. On the others it is what the log holds, for nothing is seen before it
/// stands there; that all of it can be seen is `view`'s to wait for.
pub async fn settled(conn: &mut Conn, server: &Server) -> Result<GtidSet> {
    let mut known = logged(conn, server).await?;
    while server.naming == Naming::Gtids && !executed(conn, server).await?.covers(&known) {
        tokio::time::sleep(SETTLE_EVERY).await;
        known = known.intersection(&logged(conn, server).await?);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_transactions_are_a_set() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let owned = format!("{uuid}:5#12:6#13#14,\n{uuid}:tag:1#9");
        let set: GtidSet = without_owners(&owned).parse().expect("is a set");
        assert_eq!(set, format!("{uuid}:5-6,{uuid}:tag:1").parse().expect("is a set"));
    }
}
