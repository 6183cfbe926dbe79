//! A time in which a SELECT shows everything that the stream has delivered: opened before rows or definitions are read,
//! closed behind. The rest of the argument why a copy is right stands in `window`.
//!
//! The stream delivers a transaction when it is in the log, and the storage engine commits it later. What is certain in
//! between differs by server:
//!
//! - *MySQL with GTIDs.* `gtid_executed` takes a transaction in behind the engine's commit. So what was delivered is waited
//!   for there, and then every later SELECT shows it.
//! - *MariaDB* has nothing of that kind, but a transaction that knows its place: see `consistent`.
//! - *MySQL without GTIDs* has neither. The transactions that are active when something was delivered are waited for: see
//!   `active`.
//!
//! Tables without transactions (MyISAM, Aria) are changed before the change is logged. So what was delivered can always be
//! seen, and what is seen may be delivered later, which the window allows for.

use std::time::Duration;

use futures_util::TryFutureExt as _;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{Error, ErrorKind, Result};
use crate::naive::{Rule, is_naive};
use crate::position::GtidSet;
use crate::source::control;
use crate::source::server::{Naming, Server};
use crate::source::snapshot::{active, consistent, watermark};

/// Told what is waited for where that takes long.
pub type Tell<'a> = &'a (dyn Fn(String) + Send + Sync);

/// Returns when every later SELECT, up to [`close`], shows all of `delivered`. Commits that hang between log and engine are
/// waited for, for as long as they hang.
pub async fn open(
    conn: &mut Conn,
    server: &Server,
    delivered: &GtidSet,
    tell: Tell<'_>,
) -> Result<()> {
    if server.naming == Naming::Domains {
        return consistent::open(conn, tell).await;
    }
    if delivered.is_empty() || is_naive(Rule::Window) {
        return Ok(());
    }
    match server.naming {
        Naming::Gtids => wait_until_executed(conn, delivered).await,
        Naming::Places => active::wait(conn, tell).await,
        Naming::Domains => Ok(()),
    }
}

/// The same, with a transaction begun in which rows are read.
pub async fn open_transaction(
    conn: &mut Conn,
    server: &Server,
    delivered: &GtidSet,
    tell: Tell<'_>,
) -> Result<()> {
    open(conn, server, delivered, tell).await?;
    match server.naming {
        Naming::Domains => Ok(()),
        Naming::Gtids | Naming::Places => {
            let begun = conn.query_drop("START TRANSACTION READ ONLY").map_err(control::error);
            control::in_time(control::ANSWERED_IN, begun).await
        }
    }
}

/// Ends it. Gives a set of transactions in which all are that a SELECT can have shown.
pub async fn close(conn: &mut Conn, server: &Server) -> Result<GtidSet> {
    control::in_time(control::ANSWERED_IN, async {
        conn.query_drop("COMMIT").await.map_err(control::error)?;
        watermark::executed(conn, server).await
    })
    .await
}

/// Returns when all of `delivered` can be seen, and goes on to be.
pub async fn wait(
    conn: &mut Conn,
    server: &Server,
    delivered: &GtidSet,
    tell: Tell<'_>,
) -> Result<()> {
    open(conn, server, delivered, tell).await?;
    conn.query_drop("COMMIT").await.map_err(control::error)
}

/// How long the server may sleep on our behalf before we look again whether we should stop.
const WAIT_SECONDS: u32 = 1;

async fn wait_until_executed(conn: &mut Conn, gtids: &GtidSet) -> Result<()> {
    let text = gtids.to_string();
    loop {
        let asked =
            conn.exec_first("SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)", (&text, WAIT_SECONDS));
        let asked = asked.map_err(|error| {
            control::error(error).context("cannot wait for executed transactions")
        });
        let timed_out: Option<Option<i64>> = control::in_time(control::ANSWERED_IN, asked).await?;
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
