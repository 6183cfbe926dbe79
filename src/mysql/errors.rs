//! The server's errors, by what they ask of us. Knows nothing of when they came.

use crate::error::{Error, ErrorKind, Result};

use super::lenenc::Fields;

/// First byte of an error packet.
pub const ERR: u8 = 0xff;

/// The error that a packet beginning with [`ERR`] tells. `tried` says on what; `user` is for the advice.
pub fn from_packet(packet: &[u8], tried: &str, user: &str) -> Error {
    match parse(packet) {
        Ok((code, text)) => from_code(code, &text, tried, user),
        Err(error) => error.context(tried),
    }
}

fn parse(packet: &[u8]) -> Result<(u16, String)> {
    let mut fields = Fields::new(packet);
    let _err = fields.uint(1)?;
    let code = fields.uint(2)? as u16;
    // The state is missing in errors that come before the handshake.
    let text = match fields.rest() {
        [b'#', _, _, _, _, _, text @ ..] => text,
        text => text,
    };
    Ok((code, String::from_utf8_lossy(text).into_owned()))
}

fn from_code(code: u16, text: &str, tried: &str, user: &str) -> Error {
    let (kind, advice) = class(code, text, user);
    // Like ours, the message has no full stop.
    let text = text.trim_end_matches('.');
    let error = Error::new(kind, format!("{tried}: error {code}: {text}"));
    match advice {
        Some(advice) => error.with_advice(advice),
        None => error,
    }
}

const OWN_SERVER_ID: &str = "give every reader of this source a server_id of its own";

fn class(code: u16, text: &str, user: &str) -> (ErrorKind, Option<String>) {
    let replication = format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `{user}`@…");
    match code {
        1045 | 1698 => {
            let advice = format!(
                "check user and password; ALTER USER `{user}`@… IDENTIFIED BY …, then {replication}"
            );
            (ErrorKind::SourceRefused, Some(advice))
        }
        1227 => (ErrorKind::SourceRefused, Some(replication)),
        1044 | 1142 | 1143 => (
            ErrorKind::SourceRefused,
            Some(format!("GRANT SELECT ON the mapped tables TO `{user}`@…")),
        ),
        1130 => (
            ErrorKind::SourceRefused,
            Some(format!("create the account for our host: CREATE USER `{user}`@…")),
        ),
        1129 => (
            ErrorKind::SourceRefused,
            Some("TRUNCATE TABLE performance_schema.host_cache".to_owned()),
        ),
        1820 | 1862 => {
            (ErrorKind::SourceRefused, Some(format!("ALTER USER `{user}`@… IDENTIFIED BY …")))
        }
        3118 => (ErrorKind::SourceRefused, Some(format!("ALTER USER `{user}`@… ACCOUNT UNLOCK"))),
        3159 => {
            (ErrorKind::SourceRefused, Some("set tls.mode to `required` or stricter".to_owned()))
        }
        // MariaDB's ER_SLAVE_SAME_ID.
        4052 => (ErrorKind::SourceRefused, Some(OWN_SERVER_ID.to_owned())),
        1236 if text.contains("same server_uuid/server_id") => {
            (ErrorKind::SourceRefused, Some(OWN_SERVER_ID.to_owned()))
        }
        1236 if text.contains("anonymous transaction when @@GLOBAL.GTID_MODE = ON") => {
            let advice = "GTIDs were switched on before what stands in the log without them was read: SET GLOBAL gtid_mode = \
                          ON_PERMISSIVE on the source, restart Driftless, and when the links are running SET GLOBAL gtid_mode = ON"
                .to_owned();
            (ErrorKind::SourceRefused, Some(advice))
        }
        1236 => {
            let advice = "the source no longer has, or never had, the log that follows our checkpoint: \
                          make the link anew to copy the tables again";
            (ErrorKind::SourceLost, Some(advice.to_owned()))
        }
        // Too many connections, shutting down, network trouble, killed, idle, off line.
        1040
        | 1203
        | 1226
        | 1053
        | 1077..=1079
        | 1152..=1161
        | 1184
        | 1317
        | 1836
        | 1927
        | 3032
        | 3168
        | 3169
        | 4031 => (ErrorKind::SourceUnreachable, None),
        _ => (ErrorKind::SourceRefused, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_log_is_never_tried_again() {
        let error = from_packet(
            b"\xff\xd4\x04#HY000Could not find first log file.",
            "cannot read the log",
            "cdc",
        );
        assert_eq!(error.kind(), ErrorKind::SourceLost);
        assert_eq!(
            error.to_string(),
            "cannot read the log: error 1236: Could not find first log file"
        );
    }

    #[test]
    fn a_missing_privilege_comes_with_its_grant() {
        let error = from_packet(b"\xff\xcb\x04#42000Access denied", "cannot read the log", "cdc");
        assert_eq!(error.kind(), ErrorKind::SourceRefused);
        assert!(error.report().contains("GRANT REPLICATION SLAVE"), "{}", error.report());
    }

    #[test]
    fn a_server_that_is_full_or_stops_is_tried_again() {
        for code in [1040_u16, 1053] {
            let mut packet = vec![ERR];
            packet.extend_from_slice(&code.to_le_bytes());
            packet.extend_from_slice(b"Too many connections");
            assert_eq!(
                from_packet(&packet, "cannot connect", "cdc").kind(),
                ErrorKind::SourceUnreachable
            );
        }
        assert!(
            from_packet(&[ERR, 1], "cannot connect", "cdc")
                .to_string()
                .starts_with("cannot connect")
        );
    }
}
