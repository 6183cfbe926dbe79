//! MariaDB: a transaction that shows everything that was in the log when it was asked for.
//!
//! `START TRANSACTION WITH CONSISTENT SNAPSHOT` takes the lock under which a group of commits goes from the log into the
//! engine, so its snapshot is the state of the engine at one place of the log, and the server tells the place:
//! `binlog_snapshot_file` and `binlog_snapshot_position`. A transaction that is in the log and not yet committed by the
//! engine is behind that place. So:
//!
//! 1. Read the end of the log, E, and `gtid_binlog_pos`. Whatever the stream has delivered is before E.
//! 2. Begin such a transaction. Where its place is E or behind it, it shows all that was delivered. Where the place is
//!    before E, a commit hangs in between, and it is given up and begun again; or only events that are no transactions
//!    stand between the two, which `BINLOG_GTID_POS` of the place tells.
//!
//! Two things are not as they look. Under READ COMMITTED the engine takes no snapshot, without a word, and the place means
//! nothing for what is read behind it: our sessions are REPEATABLE READ (`control`). And XA COMMIT is written to the log before the engine is
//! told, outside of that lock, so the place says nothing of it: `undecided` has the wait for that.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{Error, ErrorKind, Result};
use crate::naive::{Rule, is_naive};
use crate::position::{GtidSet, log_file};
use crate::source::control;
use crate::source::server::{Naming, Server};
use crate::source::snapshot::view::Tell;
use crate::source::snapshot::watermark;

/// A commit takes this long at most unless something holds it; then the expensive question is asked.
const SHORT: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// From here on it is told what is waited for.
const LONG: Duration = Duration::from_secs(2);

/// Returns within a transaction that shows everything that is in the log now.
pub async fn open(conn: &mut Conn, tell: Tell<'_>) -> Result<()> {
    let (logged, end) = control::in_time(control::ANSWERED_IN, end(conn)).await?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let place = control::in_time(control::ANSWERED_IN, begin(conn)).await?;
        if is_behind(&place, &end)? || is_naive(Rule::Snapshot) {
            return Ok(());
        }
        let waited = started.elapsed();
        if waited >= SHORT && covers(conn, &place, &logged).await? {
            return Ok(());
        }
        if waited >= LONG {
            tell(format!(
                "commits on the source hang between its log and its storage engine ({}:{} of {}:{})",
                place.0, place.1, end.0, end.1
            ));
        }
        conn.query_drop("ROLLBACK").await.map_err(tried)?;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn end(conn: &mut Conn) -> Result<(GtidSet, (String, u64))> {
    // Only the naming counts for this question.
    let server = Server { identity: String::new(), naming: Naming::Domains };
    let logged = watermark::logged(conn, &server).await?;
    Ok((logged, watermark::end_of_log(conn).await?))
}

/// Begins a transaction, and gives the place of its snapshot.
async fn begin(conn: &mut Conn) -> Result<(String, u64)> {
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.map_err(tried)?;
    let told: Vec<(String, String)> = conn
        .query("SHOW STATUS WHERE variable_name LIKE 'binlog\\_snapshot\\_%'")
        .await
        .map_err(tried)?;
    let get = |name: &str| {
        told.iter()
            .find(|(told, _)| told.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
    };
    let offset = get("binlog_snapshot_position").and_then(|offset| offset.parse().ok());
    get("binlog_snapshot_file").zip(offset).ok_or_else(|| {
        let what = "the source does not tell the place of a snapshot (binlog_snapshot_position)";
        Error::new(ErrorKind::SourceRefused, what)
    })
}

fn is_behind(place: &(String, u64), end: &(String, u64)) -> Result<bool> {
    let number = |file: &str| {
        log_file(file).map(|(_, number)| number).ok_or_else(|| {
            let what = format!("{file} is no name of a log file");
            Error::new(ErrorKind::SourceRefused, what)
        })
    };
    Ok((number(&place.0)?, place.1) >= (number(&end.0)?, end.1))
}

/// Whether every transaction of `logged` is before the place. The server reads the file up to there.
async fn covers(conn: &mut Conn, place: &(String, u64), logged: &GtidSet) -> Result<bool> {
    let position: Option<Option<String>> = conn
        .exec_first("SELECT BINLOG_GTID_POS(?, ?)", (&place.0, place.1))
        .await
        .map_err(tried)?;
    match position.flatten() {
        Some(position) => Ok(position.parse::<GtidSet>()?.covers(logged)),
        None => Ok(false),
    }
}

fn tried(cause: mysql_async::Error) -> Error {
    control::error(cause).context("cannot begin a consistent snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_compared_by_file_and_then_by_offset() {
        let at = |file: &str, offset| (file.to_owned(), offset);
        assert!(is_behind(&at("b.000010", 4), &at("b.000009", 900)).expect("are places"));
        assert!(!is_behind(&at("b.000009", 899), &at("b.000009", 900)).expect("are places"));
        assert!(is_behind(&at("b", 1), &at("b.000001", 4)).is_err());
    }
}
