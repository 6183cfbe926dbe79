//! MySQL without GTIDs: waits until everything that the stream has delivered can be seen, by the list of active
//! transactions. Takes no locks.
//!
//! A transaction writes its events to the log while it commits, and the engine commits it behind that. From its first
//! change until the engine's commit it is in InnoDB's list of active transactions that changed something, under an id that
//! is never used again. The engine takes it off that list and off the ids that new snapshots overlook under one mutex
//! (`trx_sys`), and `information_schema.innodb_trx` reads the list under the same mutex. So a transaction that is not listed
//! is one that every later SELECT sees. Hence:
//!
//! 1. Read the list, when something was delivered. A transaction that was delivered and cannot be seen is on it.
//! 2. Wait until none of *these* ids is listed any more.
//!
//! *The list may be old.* The server keeps what `innodb_trx` shows for as long as it is asked again within 100 ms, by
//! anybody. Such an answer may be from before the delivery and proves nothing. So the question is asked within a transaction
//! of our own, which is listed with the text of its statement, and the statement has a number in it. Only a list with our
//! own number on it counts: it was made while we asked. For the same reason all links of the process share one list: each would
//! keep the server from making a new one for the others. A list serves everybody who wanted one before it was asked for.
//!
//! *A transaction that idles* is on the list for as long as its session leaves it open. But a session that waits for its
//! client is not within COMMIT. It was listed when what we wait for had been delivered already, so the commit that wrote
//! that had begun, and if the session idles later, has ended. So sessions that idle, as of a moment behind the reading of
//! the list, need not be waited for. Transactions without a session (prepared XA transactions) are waited for.
//!
//! *A list that is cut.* InnoDB stops the list at 16 MiB. One that comes near that is not believed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::source::control;
use crate::source::snapshot::view::Tell;

/// The server makes the list anew when nobody has asked for longer than 100 ms.
const LIST_IS_OLD: Duration = Duration::from_millis(120);
const LOOK_EVERY: Duration = Duration::from_millis(120);
/// From here on it is told what is waited for.
const LONG: Duration = Duration::from_secs(2);
/// A row of the list takes about 1.4 KiB of its 16 MiB at most.
const LISTED_MAX: usize = 8_000;

/// A transaction that may have been delivered and may not be visible.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Active {
    id: u64,
    session: u64,
    started: String,
}

/// Returns when every later SELECT shows all that was delivered before the call.
pub async fn wait(conn: &mut Conn, tell: Tell<'_>) -> Result<()> {
    let started = Instant::now();
    let mut waited_for = list_after(conn, started, tell).await?;
    loop {
        if !waited_for.is_empty() {
            let idle = idle_sessions(conn).await?;
            waited_for.retain(|active| !idle.contains(&active.session));
        }
        let Some(first) = waited_for.first() else { return Ok(()) };
        if started.elapsed() >= LONG {
            let who = match first.session {
                0 => "it has no session: see XA RECOVER".to_owned(),
                session => format!("session {session}: see SHOW PROCESSLIST"),
            };
            tell(format!(
                "rows are read when {} transactions have ended that were active before, the first since {} ({who})",
                waited_for.len(),
                first.started
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let listed = list_after(conn, Instant::now(), tell).await?;
        waited_for.retain(|active| listed.iter().any(|still| still.id == active.id));
    }
}

/// The last list, and when it was asked for and answered.
struct Shared {
    asked: Instant,
    answered: Instant,
    list: Vec<Active>,
}

/// Transactions that are active at some moment behind `since`.
async fn list_after(conn: &mut Conn, since: Instant, tell: Tell<'_>) -> Result<Vec<Active>> {
    static SHARED: Mutex<Option<Shared>> = Mutex::const_new(None);
    let mut shared = SHARED.lock().await;
    if let Some(last) = &*shared {
        if last.asked >= since {
            return Ok(last.list.clone());
        }
        tokio::time::sleep(LIST_IS_OLD.saturating_sub(last.answered.elapsed())).await;
    }
    let asked = Instant::now();
    let list = list(conn, tell).await?;
    *shared = Some(Shared { asked, answered: Instant::now(), list: list.clone() });
    Ok(list)
}

/// The transactions that are active while this is called.
async fn list(conn: &mut Conn, tell: Tell<'_>) -> Result<Vec<Active>> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let life = uuid::Uuid::new_v4().simple().to_string();
    let started = Instant::now();
    loop {
        let mark = format!("/* driftless {life} {} */", NUMBER.fetch_add(1, Ordering::Relaxed));
        // Ids from 2⁴⁸ on are made up for transactions that have changed nothing.
        let question = format!(
            "SELECT {mark} trx_id, trx_mysql_thread_id, CAST(trx_started AS CHAR), COALESCE(trx_query, '') LIKE \
             'SELECT {mark}%' FROM information_schema.innodb_trx ORDER BY trx_started"
        );
        let asked = async {
            conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.map_err(tried)?;
            let rows: Vec<(u64, u64, String, bool)> = conn.query(question).await.map_err(tried)?;
            conn.query_drop("COMMIT").await.map_err(tried)?;
            Ok(rows)
        };
        let rows = control::in_time(control::ANSWERED_IN, asked).await?;
        let is_ours = rows.iter().any(|row| row.3);
        if is_ours && rows.len() < LISTED_MAX {
            let others = rows.into_iter().filter(|row| !row.3 && row.0 < 1 << 48);
            return Ok(others
                .map(|(id, session, started, _)| Active { id, session, started })
                .collect());
        }
        if started.elapsed() >= LONG {
            let why = match is_ours {
                true => format!("{} transactions are active, and the server's list is cut", rows.len()),
                false => "somebody asks for information_schema.innodb_trx all the time, so the server shows an old list"
                    .to_owned(),
            };
            tell(format!("which transactions are active cannot be known: {why}"));
        }
        tokio::time::sleep(LIST_IS_OLD).await;
    }
}

/// Sessions that wait for their client.
async fn idle_sessions(conn: &mut Conn) -> Result<Vec<u64>> {
    conn.query("SELECT id FROM information_schema.processlist WHERE command = 'Sleep'")
        .await
        .map_err(tried)
}

fn tried(cause: mysql_async::Error) -> Error {
    let error = control::error(cause).context("cannot ask for active transactions");
    error.with_advice("GRANT PROCESS ON *.* TO the source's user")
}
