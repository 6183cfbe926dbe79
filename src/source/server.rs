//! Which server stands at the source's address, and how its log names transactions. Knows nothing of what they hold.

use std::collections::HashMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::Connection;
use crate::position::{Sid, parse_uuid};
use crate::source::control;

/// By what transactions are told apart, and a stream is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// MySQL with `gtid_mode=ON`: on every server that has the transactions.
    Gtids,
    /// MariaDB: by domains, on every server that has them.
    Domains,
    /// MySQL without GTIDs: by file and offset, on the server that wrote the file and on no other.
    Places,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `server_uuid`; MariaDB's `server_uid`, or, where it has none, its `server_id`. Files, offsets and versions mean
    /// nothing on a server with another one.
    pub identity: String,
    pub naming: Naming,
}

const QUESTION: &str = "SHOW GLOBAL VARIABLES WHERE variable_name IN \
    ('version', 'server_uuid', 'server_uid', 'server_id', 'gtid_mode')";

impl Server {
    /// The one that a session of SQL is at.
    pub async fn of(conn: &mut Conn) -> Result<Self> {
        let rows: Vec<(String, String)> = conn.query(QUESTION).await.map_err(|cause| {
            control::error(cause).context("cannot ask the source which server it is")
        })?;
        Self::named(&rows.into_iter().collect())
    }

    /// The one that a session for the log is at.
    pub async fn of_connection(connection: &mut Connection) -> Result<Self> {
        let text =
            |cell: Option<Vec<u8>>| String::from_utf8_lossy(&cell.unwrap_or_default()).into_owned();
        let rows = connection.query(QUESTION).await?.into_iter().filter_map(|row| {
            let mut cells = row.into_iter();
            Some((text(cells.next()?), text(cells.next()?)))
        });
        Self::named(&rows.collect())
    }

    fn named(variables: &HashMap<String, String>) -> Result<Self> {
        let get = |name: &str| variables.get(name).map_or("", String::as_str);
        let is_mariadb = get("version").contains("MariaDB");
        let identity = match (get("server_uuid"), get("server_uid")) {
            ("", "") if is_mariadb => format!("server_id {}", get("server_id")),
            ("", uid) => uid.to_owned(),
            (uuid, _) => uuid.to_owned(),
        };
        if identity.is_empty() {
            let what = "the source does not say which server it is (server_uuid)";
            return Err(Error::new(ErrorKind::SourceRefused, what));
        }
        let naming = match (is_mariadb, get("gtid_mode")) {
            (true, _) => Naming::Domains,
            (false, "ON") => Naming::Gtids,
            (false, _) => Naming::Places,
        };
        Ok(Self { identity, naming })
    }

    /// The log whose files are called like `file`, which is one of this server without GTIDs.
    pub fn log(&self, base: &str) -> Sid {
        Sid::Log { server: parse_uuid(&self.identity).unwrap_or_default(), base: base.into() }
    }

    /// Refuses a session that is at another server.
    pub async fn expect(&self, conn: &mut Conn) -> Result<()> {
        let found = Self::of(conn).await?.identity;
        if found == self.identity { Ok(()) } else { Err(self.not_here(&found)) }
    }

    /// What a session is told that met the server `found` in the place of this one.
    pub fn not_here(&self, found: &str) -> Error {
        let what = format!(
            "a connection reached server {found}, and the stream comes from {}",
            self.identity
        );
        Error::new(ErrorKind::SourceUnreachable, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Server {
        let owned = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Server::named(&owned.collect()).expect("is known")
    }

    #[test]
    fn each_kind_of_server_is_told_by_its_variables() {
        let mysql =
            |mode| found(&[("version", "8.0.33"), ("server_uuid", "u"), ("gtid_mode", mode)]);
        assert_eq!(mysql("ON"), Server { identity: "u".into(), naming: Naming::Gtids });
        assert_eq!(mysql("ON_PERMISSIVE").naming, Naming::Places);
        let maria = ("version", "10.11.18-MariaDB-log");
        let new = found(&[maria, ("server_uid", "x="), ("server_id", "7")]);
        assert_eq!(new, Server { identity: "x=".into(), naming: Naming::Domains });
        assert_eq!(found(&[maria, ("server_id", "7")]).identity, "server_id 7");
        assert!(Server::named(&HashMap::new()).is_err());
    }
}
