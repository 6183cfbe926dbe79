//! The set of executed transactions: asks for it, and waits until it holds what the stream delivered.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{Error, ErrorKind, Result};
use crate::naive::{Rule, is_naive};
use crate::position::GtidSet;
use crate::source::control;

/// What the server has executed, and which server it is.
pub struct Executed {
    pub gtids: GtidSet,
    pub server_uuid: String,
}

/// What decides whether a checkpoint can be followed from.
pub struct Followable {
    /// Executed, or about to be: what stands in the log and has not yet been committed by the engine is owned. The
    /// stream may have brought it already.
    pub known: GtidSet,
    /// No longer in the log.
    pub purged: GtidSet,
}

/// Owned is read before executed, and a transaction goes from the one to the other.
pub async fn followable(conn: &mut Conn) -> Result<Followable> {
    let row: Option<(String, String, String)> = conn
        .query_first("SELECT @@global.gtid_owned, @@global.gtid_executed, @@global.gtid_purged")
        .await
        .map_err(|error| control::error(error).context("cannot read gtid_executed"))?;
    let (owned, executed, purged) =
        row.ok_or_else(|| Error::new(ErrorKind::SourceRefused, "the source has no gtid_executed"))?;
    let mut known: GtidSet = executed.parse()?;
    known.union(&without_owners(&owned).parse()?);
    Ok(Followable { known, purged: purged.parse()? })
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

/// Reads both in one statement.
pub async fn executed(conn: &mut Conn) -> Result<Executed> {
    let row: Option<(String, String)> = conn
        .query_first("SELECT @@global.gtid_executed, @@global.server_uuid")
        .await
        .map_err(|error| control::error(error).context("cannot read gtid_executed"))?;
    let (gtids, server_uuid) =
        row.ok_or_else(|| Error::new(ErrorKind::SourceRefused, "the source has no gtid_executed"))?;
    Ok(Executed { gtids: gtids.parse()?, server_uuid })
}

/// How often it is asked which transactions that were about to be committed still are: one that is rolled back instead
/// never comes.
pub const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long the server may sleep on our behalf before we look again whether we should stop.
const WAIT_SECONDS: u32 = 1;

/// Returns when the server has executed all of `gtids`. Commits that hang between log and engine are waited for, for
/// as long as they hang.
pub async fn wait_until_executed(conn: &mut Conn, gtids: &GtidSet) -> Result<()> {
    if gtids.is_empty() || is_naive(Rule::Window) {
        return Ok(());
    }
    let text = gtids.to_string();
    loop {
        let timed_out: Option<Option<i64>> = conn
            .exec_first("SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)", (&text, WAIT_SECONDS))
            .await
            .map_err(|error| {
                control::error(error).context("cannot wait for executed transactions")
            })?;
        match timed_out.flatten() {
            Some(0) => return Ok(()),
            Some(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            None => {
                return Err(Error::new(
                    ErrorKind::SourceRefused,
                    "WAIT_FOR_EXECUTED_GTID_SET gave no answer",
                )
                .with_advice("set gtid_mode=ON on the source"));
            }
        }
    }
}

/// How long a look at commits that hang waits for the next one.
const SETTLE_EVERY: Duration = Duration::from_millis(5);

/// Everything that can be seen by now, or stands in the log by now, of which a link that streams may have written it: and
/// returns when the server has executed it. A change can be seen before it counts as executed, and stands in the log
/// before it can be seen; all that time its transaction is owned. One that was owned and is rolled back drops out.
pub async fn settled(conn: &mut Conn) -> Result<GtidSet> {
    let mut known = followable(conn).await?.known;
    loop {
        let executed = executed(conn).await?.gtids;
        if executed.covers(&known) {
            return Ok(known);
        }
        tokio::time::sleep(SETTLE_EVERY).await;
        known = known.intersection(&followable(conn).await?.known);
    }
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
