//! XA transactions that were prepared before a link's stream began: the copy of a table must not begin while there is
//! one, for its rows stand in the log before the stream, and become visible behind the copy.
//!
//! XA RECOVER names every transaction that is prepared, and goes on to name it until its commit is done in the engine (seen
//! on 9.7 with commits that were held between log and engine). It is asked after the server has executed all that was
//! delivered when the stream began. So a transaction that was prepared before that is named, or has ended, and then every
//! later SELECT sees what it did.

use std::collections::BTreeSet;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error::Result;
use crate::source::control;
use crate::source::server::{Naming, Server};
use crate::source::xid::{Xid, bytes_of};

/// XAER_RMERR: what the server answers to an account without XA_RECOVER_ADMIN.
const NOT_ALLOWED: u16 = 1401;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Returns when every transaction that is prepared now has ended, or is `known` to the link, whose stream may be behind and
/// bring it later. `tell` is told what is waited for. Returns at once where the account may not know.
pub async fn wait_until_decided(
    conn: &mut Conn,
    server: &Server,
    known: impl Fn(&Xid) -> bool,
    tell: impl Fn(String),
) -> Result<()> {
    let Some(mut waited_for) = prepared(conn, server).await? else {
        tracing::info!(
            "XA RECOVER is not allowed: whether a transaction is prepared that began before the copy cannot be known; GRANT \
             XA_RECOVER_ADMIN lets a copy wait for it"
        );
        return Ok(());
    };
    waited_for.retain(|xid| !known(xid));
    while let Some(first) = waited_for.first() {
        tell(format!(
            "the copy waits for XA transactions that were prepared before it began, {} of them: XA COMMIT {first} or XA \
             ROLLBACK {first} on the source",
            waited_for.len()
        ));
        tokio::time::sleep(LOOK_EVERY).await;
        let still = prepared(conn, server).await?.unwrap_or_default();
        waited_for.retain(|xid| still.contains(xid) && !known(xid));
    }
    Ok(())
}

/// MariaDB writes XA COMMIT to its log before the engine is told, outside of the lock that a consistent snapshot takes: of
/// the transactions in `ended`, whose commits were delivered, some may not be visible yet. They are named by XA RECOVER
/// until they are. Returns when none is, and `ended` is empty then.
pub async fn wait_until_done(conn: &mut Conn, ended: &mut BTreeSet<Xid>) -> Result<()> {
    let server = Server { identity: String::new(), naming: Naming::Domains };
    while !ended.is_empty() {
        let still = prepared(conn, &server).await?.unwrap_or_default();
        ended.retain(|xid| still.contains(xid));
        if !ended.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// None where the account may not know.
async fn prepared(conn: &mut Conn, server: &Server) -> Result<Option<Vec<Xid>>> {
    let listed = match server.naming {
        Naming::Domains => prepared_of_mariadb(conn).await,
        Naming::Gtids | Naming::Places => {
            type Listed = (u32, usize, usize, String);
            let listed: Result<Vec<Listed>, _> = conn.query("XA RECOVER CONVERT XID").await;
            listed.map(|listed| listed.into_iter().filter_map(xid).collect())
        }
    };
    match listed {
        Ok(listed) => Ok(Some(listed)),
        // Before 5.7 there is no such form, and no XA transaction is in the log before it is committed.
        Err(cause) if matches!(control::code(&cause), Some(NOT_ALLOWED | control::SYNTAX)) => {
            Ok(None)
        }
        Err(cause) => Err(control::error(cause).context("cannot ask for prepared XA transactions")),
    }
}

async fn prepared_of_mariadb(conn: &mut Conn) -> Result<Vec<Xid>, mysql_async::Error> {
    type Listed = (u32, usize, usize, Vec<u8>);
    let listed: Vec<Listed> = conn.query("XA RECOVER").await?;
    Ok(listed
        .into_iter()
        .filter_map(|(format_id, gtrid, bqual, data)| of_parts(format_id, gtrid, bqual, &data))
        .collect())
}

/// The two parts stand behind each other in one hexadecimal number.
fn xid((format_id, gtrid_len, bqual_len, data): (u32, usize, usize, String)) -> Option<Xid> {
    of_parts(format_id, gtrid_len, bqual_len, &bytes_of(data.strip_prefix("0x").unwrap_or(&data))?)
}

fn of_parts(format_id: u32, gtrid_len: usize, bqual_len: usize, data: &[u8]) -> Option<Xid> {
    let (gtrid, bqual) = data.split_at_checked(gtrid_len)?;
    (bqual.len() == bqual_len).then(|| Xid::new(gtrid, bqual, format_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_transaction_has_the_name_that_the_log_gives_it() {
        let listed = (77, 2, 1, "0x6D2C00".to_owned());
        assert_eq!(xid(listed).expect("is read").as_str(), "X'6d2c',X'00',77");
        assert_eq!(xid((1, 3, 1, "0x6D2C00".to_owned())), None);
    }
}
