//! What the file says of the door: where it is, who may come in, and what cannot be meant. Opens no port.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::{Access, Role};
use crate::admin::tls;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub listen: SocketAddr,
    /// Tokens may cross the network as they are: something else encrypts, or nobody listens.
    pub allow_plaintext: bool,
    pub tokens: Vec<Token>,
    pub tls: Tls,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9220)),
            allow_plaintext: false,
            tokens: Vec::new(),
            tls: Tls::default(),
        }
    }
}

/// Who has it may do what its role may.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub role: Role,
    pub token: Option<SecretString>,
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Authorities of clients' certificates.
    pub client_ca_file: Option<PathBuf>,
    pub clients: Vec<Client>,
}

/// Whose certificate bears the name may do what the role may.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    pub name: String,
    pub role: Role,
}

impl Config {
    /// All that is wrong, each with the key that it speaks of. Reads the files that are named.
    pub fn check(&self) -> Vec<(&'static str, Error)> {
        let mut wrong = Vec::new();
        if let Err(error) = Access::new(self) {
            wrong.push(("http.tokens", error));
        }
        match tls::Tls::new(&self.tls) {
            Err(error) => wrong.push(("http.tls", error)),
            Ok(None) if !self.tls.clients.is_empty() || self.tls.client_ca_file.is_some() => {
                let error = Error::input("certificates of clients are looked at only under TLS");
                wrong.push(("http.tls", error.with_advice("write `cert_file` and `key_file`")));
            }
            Ok(_) => (),
        }
        if self.tls.clients.is_empty() != self.tls.client_ca_file.is_none() {
            let error = Error::input(
                "one of `http.tls.client_ca_file` and `http.tls.clients` is missing",
            )
            .with_advice(
                "write both: who signs the certificates of clients, and which role each has",
            );
            wrong.push(("http.tls", error));
        }
        if let Err(error) = self.check_reach() {
            wrong.push(("http.listen", error));
        }
        wrong
    }

    /// Nobody reaches the door from elsewhere without saying who he is, nor says so for all to hear.
    fn check_reach(&self) -> Result<()> {
        let listen = self.listen;
        if listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let is_encrypted = self.tls.cert_file.is_some();
        if self.tokens.is_empty() && self.tls.clients.is_empty() {
            let also = if is_encrypted { "" } else { ", and nothing would be encrypted" };
            return Err(Error::input(format!(
                "`http.listen` {listen} can be reached from other machines, and anybody there could do everything{also}"
            ))
            .with_advice(
                "write [[http.tokens]] with `role` and `token_file` (and [http.tls] with `cert_file` and `key_file`), or listen on 127.0.0.1",
            ));
        }
        if !is_encrypted && !self.allow_plaintext {
            return Err(Error::input(format!(
                "`http.listen` {listen} can be reached from other machines, and tokens would cross the network for all to read: TLS is off"
            ))
            .with_advice(
                "write [http.tls] with `cert_file` and `key_file`; or `allow_plaintext = true` under [http], where a proxy encrypts or the network is a container's own",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(config: &Config) -> String {
        let said = config.check();
        said.iter().map(|(key, error)| format!("{key}: {}\n", error.report())).collect()
    }

    fn at(listen: &str) -> Config {
        Config { listen: listen.parse().expect("an address"), ..Config::default() }
    }

    fn with_token(config: Config) -> Config {
        let token = Some("0123456789abcdef".into());
        Config { tokens: vec![Token { role: Role::Admin, token, token_file: None }], ..config }
    }

    #[test]
    fn this_machine_alone_needs_nothing() {
        for listen in ["127.0.0.1:9220", "127.9.9.9:1", "[::1]:9220", "[::ffff:127.0.0.1]:9220"] {
            assert_eq!(wrong(&at(listen)), "", "{listen}");
        }
    }

    #[test]
    fn a_door_that_others_reach_has_tokens_and_is_encrypted() {
        for listen in ["0.0.0.0:9220", "[::]:9220", "10.0.0.1:9220", "[2001:db8::1]:9220"] {
            let open = wrong(&at(listen));
            assert!(open.contains("anybody there could do everything"), "{open}");
            assert!(open.contains("[[http.tokens]]"), "{open}");
            let plain = wrong(&with_token(at(listen)));
            assert!(plain.contains("allow_plaintext = true"), "{plain}");
            let allowed = Config { allow_plaintext: true, ..with_token(at(listen)) };
            assert_eq!(wrong(&allowed), "");
        }
        // To allow plain text is not to allow everybody.
        let open = wrong(&Config { allow_plaintext: true, ..at("0.0.0.0:9220") });
        assert!(open.contains("anybody there could do everything"), "{open}");
    }

    #[test]
    fn certificates_of_clients_need_authority_names_and_tls() {
        let mut config = Config::default();
        config.tls.clients = vec![Client { name: "*".to_owned(), role: Role::Read }];
        let said = wrong(&config);
        assert!(said.contains("only under TLS") && said.contains("client_ca_file"), "{said}");
    }
}
