//! The server of the demo, from the address that was given. Opens no connection.

use crate::error::{Error, ErrorKind, Result};
use crate::source::Config;

/// Reads `mysql://user:password@host:port`; a database or parameters behind it are refused.
pub(super) fn config(address: &str) -> Result<Config> {
    // The address itself is not repeated: a password may stand in it.
    let wrong = |what: &str| {
        Error::new(ErrorKind::Input, what.to_owned()).with_advice(
            "write mysql://user:password@host:port; what is special in a password as %40 for @",
        )
    };
    let options = mysql_async::Opts::from_url(address)
        .map_err(|_| wrong("this is no address of a MySQL server"))?;
    if options.db_name().is_some_and(|name| !name.is_empty()) || address.contains('?') {
        return Err(wrong("the demo makes a database of its own, and takes no parameters"));
    }
    let mut config = Config {
        host: options.ip_or_hostname().to_owned(),
        port: options.tcp_port(),
        ..Config::default()
    };
    config.user = options.user().unwrap_or("root").to_owned();
    config.password = options.pass().map(Into::into);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn an_address_is_taken_apart() {
        let config = config("mysql://me:p%40ss@db.example:3307").expect("an address");
        assert_eq!(
            (config.host.as_str(), config.port, config.user.as_str()),
            ("db.example", 3307, "me")
        );
        assert_eq!(config.password.expect("a password").expose_secret(), "p@ss");
        let config = super::config("mysql://root@127.0.0.1").expect("an address");
        assert_eq!((config.port, config.password.is_none()), (3306, true));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for address in [
            "db:3306",
            "http://me:secret@db",
            "mysql://me:secret@db/shop",
            "mysql://me:secret@db?x=1",
        ] {
            let said = config(address).expect_err("is none").report();
            assert!(said.contains("mysql://user:password@host:port"), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
