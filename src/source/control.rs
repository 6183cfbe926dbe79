//! Connections for questions to the source: options, session, and what its errors ask of us. Must not know the
//! questions.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{
    ClientIdentity, Conn, DriverError, Error as MysqlError, IoError, Opts, OptsBuilder, Row,
    SslOpts,
};
use secrecy::ExposeSecret as _;

use crate::error::{Error, ErrorKind, Result};
use crate::net::tls::{self, Mode};
use crate::source::config::Config;

/// What every session of ours is set to.
///
/// UTC, because the log has timestamps in it; no SQL mode, because modes change what a SELECT gives (padding of CHAR);
/// REPEATABLE READ, because a chunk is one statement on one snapshot; read only, because we never write.
const SESSION: [&str; 3] = [
    "SET SESSION time_zone = '+00:00', sql_mode = '', autocommit = 1, wait_timeout = 86400, net_write_timeout = 86400",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET SESSION TRANSACTION READ ONLY",
];

/// A new session. Passwords, privileges and certificates that do not do are `SourceRefused`; what time may mend is
/// `SourceUnreachable`.
pub async fn connect(config: &Config) -> Result<Conn> {
    if let Some(dir) = config.files() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "what follows in {} takes a server that can be asked for rows or definitions",
                dir.display()
            ),
        )
        .with_advice(
            "from files alone, the log must have binlog_row_image = FULL and no statement that \
             alters, renames or drops a mapped table",
        ));
    }
    let encrypted = options(config, config.tls.mode != Mode::Disabled)?;
    match open(config, encrypted).await {
        Err(MysqlError::Driver(DriverError::NoClientSslFlagFromServer))
            if config.tls.mode == Mode::Preferred =>
        {
            open(config, options(config, false)?).await
        }
        opened => opened,
    }
    .map_err(|cause| {
        let place = format!("cannot connect to {}:{}", config.host, config.port);
        error(cause).context(place)
    })
}

/// No question of ours that is not about rows takes the server so long: over this connection no answer will come.
pub const ANSWERED_IN: Duration = Duration::from_secs(60);

/// `asked`, if it is answered in time; else an error that time may mend. The connection that was asked over must not be
/// used again.
pub async fn in_time<T>(limit: Duration, asked: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answered) => answered,
        Err(_) => {
            let what = format!("the source gave no answer within {} s", limit.as_secs_f32());
            Err(Error::new(ErrorKind::SourceUnreachable, what))
        }
    }
}

async fn open(config: &Config, options: Opts) -> Result<Conn, MysqlError> {
    let timeout = config.connect_timeout();
    match tokio::time::timeout(timeout, Conn::new(options)).await {
        Ok(opened) => opened,
        Err(_) => {
            let text = format!("no answer within {} ms", timeout.as_millis());
            let cause = std::io::Error::new(std::io::ErrorKind::TimedOut, text);
            Err(MysqlError::Io(IoError::Io(cause)))
        }
    }
}

fn options(config: &Config, is_encrypted: bool) -> Result<Opts> {
    // Whoever comes first has installed it; it is the same one.
    rustls::crypto::ring::default_provider().install_default().ok();
    let password = config.secret()?;
    let options = OptsBuilder::default()
        .ip_or_hostname(config.host.clone())
        .tcp_port(config.port)
        .user(Some(config.user.clone()))
        .pass(Some(password.expose_secret().to_owned()))
        // A socket would go around TLS, and may lead to another server than the port does.
        .prefer_socket(false)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .setup(SESSION.to_vec())
        .ssl_opts(is_encrypted.then(|| encryption(&config.tls)));
    Ok(options.into())
}

/// The same meaning of each mode as on the replication connection.
fn encryption(config: &tls::Config) -> SslOpts {
    let mut options = SslOpts::default();
    if let Some(path) = &config.ca_file {
        options =
            options.with_root_certs(vec![path.clone().into()]).with_disable_built_in_roots(true);
    }
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        let identity = ClientIdentity::new(cert.clone().into(), key.clone().into());
        options = options.with_client_identity(Some(identity));
    }
    match config.mode {
        Mode::Disabled | Mode::Preferred | Mode::Required => {
            options.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
        }
        Mode::VerifyCa => options.with_danger_skip_domain_validation(true),
        Mode::VerifyIdentity => options,
    }
}

/// To a name that no account has, the server speaks of a plugin too, one that it draws, lest names be guessed.
const UNKNOWN_PLUGIN: &str = "see that the account exists and check `user`; one that exists must log in by caching_sha2_password: ALTER USER … IDENTIFIED WITH caching_sha2_password BY …";

/// How many threads of the server work just now, by its own count.
pub async fn threads_running(conn: &mut Conn) -> Result<u64> {
    let asked = "SHOW GLOBAL STATUS LIKE 'Threads_running'";
    let row: Option<(String, u64)> = conn.query_first(asked).await.map_err(error)?;
    Ok(row.map_or(0, |(_, count)| count))
}

/// An error of the client library by what it asks of us.
pub fn error(cause: MysqlError) -> Error {
    let text = without_full_stop(match &cause {
        MysqlError::Server(refusal) => format!("error {}: {}", refusal.code, refusal.message),
        MysqlError::Io(IoError::Io(broken)) => broken.to_string(),
        other => other.to_string(),
    });
    let (kind, advice) = match &cause {
        MysqlError::Server(refusal) => class(refusal.code),
        MysqlError::Io(IoError::Tls(_)) if is_about_certificates(&text) => (
            ErrorKind::SourceRefused,
            Some("check `tls.mode` and `tls.ca_file` against the server's certificate"),
        ),
        // The library hands a failed handshake on as a broken stream.
        MysqlError::Io(IoError::Io(_)) if is_about_certificates(&text) => (
            ErrorKind::SourceRefused,
            Some("check `tls.mode` and `tls.ca_file` against the server's certificate"),
        ),
        MysqlError::Driver(DriverError::NoClientSslFlagFromServer) => (
            ErrorKind::SourceRefused,
            Some("the server has no TLS: give it certificates, or set `tls.mode` to `preferred`"),
        ),
        MysqlError::Driver(DriverError::UnknownAuthPlugin { .. })
        | MysqlError::Driver(DriverError::MysqlOldPasswordDisabled)
        | MysqlError::Driver(DriverError::CleartextPluginDisabled) => {
            (ErrorKind::SourceRefused, Some(UNKNOWN_PLUGIN))
        }
        MysqlError::Driver(_) | MysqlError::Io(_) | MysqlError::Other(_) => {
            (ErrorKind::SourceUnreachable, None)
        }
        MysqlError::Url(_) => (ErrorKind::Input, None),
    };
    let error = Error::new(kind, text);
    match advice {
        Some(advice) => error.with_advice(advice),
        None => error,
    }
}

/// The number of a refusal by the server; None for anything else.
pub(super) fn code(cause: &MysqlError) -> Option<u16> {
    match cause {
        MysqlError::Server(refusal) => Some(refusal.code),
        _ => None,
    }
}

fn class(code: u16) -> (ErrorKind, Option<&'static str>) {
    match code {
        1045 | 1698 => {
            (ErrorKind::SourceRefused, Some("check `user` and `password` of the source"))
        }
        1044 | 1142 | 1143 | 1227 => (
            ErrorKind::SourceRefused,
            Some("run `driftless check`: it names the privilege and the GRANT that gives it"),
        ),
        1130 => (
            ErrorKind::SourceRefused,
            Some("create the account for the host that driftless runs on"),
        ),
        1820 | 1862 => {
            (ErrorKind::SourceRefused, Some("ALTER USER … IDENTIFIED BY … for the account"))
        }
        3118 => (ErrorKind::SourceRefused, Some("ALTER USER … ACCOUNT UNLOCK for the account")),
        3159 => (ErrorKind::SourceRefused, Some("set `tls.mode` to `required` or stricter")),
        // No such database, table or column: the definition that the question was made from is no longer true.
        // Or its tablespace is discarded, until another is imported.
        1049 | 1051 | 1054 | 1146 | 1812 | 1814 => (ErrorKind::Schema, None),
        // Full, going down, broken off, timed out, deadlocked, killed, redefined under our hands.
        1040
        | 1053
        | 1077..=1080
        | 1129
        | 1135
        | 1152..=1161
        | 1184
        | 1203
        | 1205
        | 1213
        | 1226
        | 1317
        | 1412
        | 1836
        | 1927
        | 3024
        | 3032
        | 3168
        | 3169
        | 4031 => (ErrorKind::SourceUnreachable, None),
        _ => (ErrorKind::SourceRefused, None),
    }
}

fn is_about_certificates(text: &str) -> bool {
    text.contains("certificate") || text.contains("Certificate")
}

fn without_full_stop(text: String) -> String {
    text.trim_end_matches('.').to_owned()
}

/// The end of the log and what is left out of it; the statement has two names.
pub(super) async fn log_status(conn: &mut Conn) -> Result<Option<Row>, MysqlError> {
    match conn.query_first("SHOW MASTER STATUS").await {
        Err(cause) if code(&cause) == Some(SYNTAX) => {
            conn.query_first("SHOW BINARY LOG STATUS").await
        }
        answered => answered,
    }
}

/// ER_PARSE_ERROR: the server does not know the statement.
pub(super) const SYNTAX: u16 = 1064;

/// A name as it stands in a statement.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_async::ServerError;

    fn refusal(code: u16) -> MysqlError {
        MysqlError::Server(ServerError { code, message: "Because.".into(), state: "HY000".into() })
    }

    #[test]
    fn a_refusal_is_classed_by_its_number() {
        assert_eq!(error(refusal(1045)).kind(), ErrorKind::SourceRefused);
        assert_eq!(error(refusal(1040)).kind(), ErrorKind::SourceUnreachable);
        assert_eq!(error(refusal(1146)).kind(), ErrorKind::Schema);
        assert_eq!(error(refusal(1064)).kind(), ErrorKind::SourceRefused);
        assert_eq!(error(refusal(1064)).to_string(), "error 1064: Because");
    }

    #[test]
    fn a_broken_connection_is_tried_again() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let kind = error(MysqlError::Io(IoError::Io(broken))).kind();
        assert_eq!(kind, ErrorKind::SourceUnreachable);
        assert_eq!(
            error(DriverError::ConnectionClosed.into()).kind(),
            ErrorKind::SourceUnreachable
        );
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(quoted("a`; DROP"), "`a``; DROP`");
    }
}
