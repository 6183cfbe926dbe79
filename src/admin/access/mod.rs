//! Who asks at the door, and whether he may: tokens and certificates to roles. Knows no link.
//!
//! [`role`] is the table of who may do what; [`guard`] stands before every request; [`config`] is what the file says.

pub mod config;
pub mod guard;
pub mod role;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;

pub use role::Role;

use crate::error::{Error, ErrorKind, Result};
use crate::net::secret;

/// In the place of a name: whoever has a certificate of the authority.
const ANY_NAME: &str = "*";

/// A token that can be guessed is none: 16 characters of `openssl rand -hex` are 64 bits.
const TOKEN_CHARS_MIN: usize = 16;
/// Longer ones do not fit into what some clients can send.
const TOKEN_CHARS_MAX: usize = 4096;

/// All that the door knows of its callers. No token is in it: only what shows that one is right.
pub struct Access {
    /// Drawn at the start. Comparing signatures takes as long for a token that is nearly right as for any other.
    key: hmac::Key,
    tokens: Vec<(hmac::Tag, Role)>,
    clients: Vec<(String, Role)>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// None: he has not said who he is.
    pub role: Option<Role>,
    /// He has sent what no page of another site can make a browser send.
    pub has_token: bool,
}

/// What the connection says of the other side.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub is_encrypted: bool,
    /// The names in the certificate that it has shown; none without one.
    pub names: Option<std::sync::Arc<[String]>>,
}

impl Access {
    /// Reads the tokens' files.
    pub fn new(config: &config::Config) -> Result<Self> {
        let no_random = |_| Error::new(ErrorKind::Io, "the system gives no random bytes");
        let key =
            hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(no_random)?;
        let clients = &config.tls.clients;
        let clients = clients.iter().map(|client| (client.name.clone(), client.role)).collect();
        let mut access = Self { key, tokens: Vec::new(), clients };
        for (at, token) in config.tokens.iter().enumerate() {
            access
                .add(token)
                .map_err(|error| error.context(format!("http.tokens, no. {}", at + 1)))?;
        }
        Ok(access)
    }

    fn add(&mut self, token: &config::Token) -> Result<()> {
        let file = token.token_file.as_deref();
        if token.token.is_some() && file.is_some() {
            return Err(Error::input("`token_file` stands beside `token`")
                .with_advice("leave one of them out"));
        }
        let Some(text) = secret::load("the token", token.token.as_ref(), file)? else {
            return Err(
                Error::input("it has no token").with_advice("write `token_file` or `token`")
            );
        };
        let text = text.expose_secret();
        let is_text = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_text || !(TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&text.len()) {
            return Err(Error::input(format!(
                "a token has {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} letters, digits and signs of ASCII, and no blank"
            ))
            .with_advice("make one with `openssl rand -hex 32`"));
        }
        if self.role_of_token(text.as_bytes()).is_some() {
            return Err(Error::input("another entry has the same token")
                .with_advice("make one for each with `openssl rand -hex 32`"));
        }
        self.tokens.push((hmac::sign(&self.key, text.as_bytes()), token.role));
        Ok(())
    }

    /// Whether callers have to say who they are.
    pub fn is_required(&self) -> bool {
        !self.tokens.is_empty() || !self.clients.is_empty()
    }

    /// Who asks. An error for somebody who says that he is somebody and is not.
    pub fn caller(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller> {
        if !self.is_required() {
            return Ok(Caller { role: Some(Role::Admin), has_token: false });
        }
        let Some(login) = headers.get(header::AUTHORIZATION) else {
            return Ok(Caller { role: self.role_of_certificate(peer), has_token: false });
        };
        let tokens = login.to_str().map(tokens_in).unwrap_or_default();
        let roles = tokens.iter().filter_map(|token| self.role_of_token(token));
        match roles.max() {
            Some(role) => Ok(Caller { role: Some(role), has_token: true }),
            None => Err(Error::input("this token is none of this Driftless")
                .with_advice("http.tokens of its configuration names them")),
        }
    }

    /// Compares with every token there is, so that the time tells nothing.
    fn role_of_token(&self, token: &[u8]) -> Option<Role> {
        let is_right = |known: &hmac::Tag| hmac::verify(&self.key, token, known.as_ref()).is_ok();
        let found: Vec<Option<Role>> =
            self.tokens.iter().map(|(known, role)| is_right(known).then_some(*role)).collect();
        found.into_iter().flatten().max()
    }

    fn role_of_certificate(&self, peer: &Peer) -> Option<Role> {
        let names = peer.names.as_deref()?;
        let is_of = |name: &String| name == ANY_NAME || names.contains(name);
        self.clients.iter().filter(|(name, _)| is_of(name)).map(|(_, role)| *role).max()
    }
}

/// What may be the token in `Bearer TOKEN`, `ApiKey TOKEN`, `ApiKey base64(id:TOKEN)` or `Basic base64(user:TOKEN)`.
fn tokens_in(login: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let Some((scheme, value)) = login.trim().split_once(' ') else { return Vec::new() };
    let value = value.trim();
    let whole = || Zeroizing::new(value.as_bytes().to_vec());
    let behind_colon = || {
        let decoded = Zeroizing::new(from_base64(value)?);
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        Some(Zeroizing::new(decoded[colon + 1..].to_vec()))
    };
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => vec![whole()],
        "apikey" => std::iter::once(whole()).chain(behind_colon()).collect(),
        "basic" => behind_colon().into_iter().collect(),
        _ => Vec::new(),
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let engines = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    engines.iter().find_map(|engine| engine.decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::config::{Client, Config, Token};
    use super::*;

    const READER: &str = "reader-0123456789";
    const ADMIN: &str = "admin-0123456789:x";

    fn token(role: Role, text: &str) -> Token {
        Token { role, token: Some(text.into()), token_file: None }
    }

    fn access() -> Access {
        let tokens = vec![token(Role::Read, READER), token(Role::Admin, ADMIN)];
        let mut config = Config { tokens, ..Config::default() };
        config.tls.clients = vec![Client { name: "ops.example".to_owned(), role: Role::Operate }];
        Access::new(&config).expect("good tokens")
    }

    fn role(access: &Access, login: &str) -> Option<Role> {
        let login = login.parse().expect("a header");
        let headers = [(header::AUTHORIZATION, login)].into_iter().collect();
        access.caller(&headers, &Peer::default()).ok().and_then(|caller| caller.role)
    }

    #[test]
    fn a_token_is_read_in_every_form_that_clients_send() {
        let access = access();
        let encoded = |text: String| STANDARD.encode(text);
        for (login, expected) in [
            (format!("Bearer {READER}"), Role::Read),
            (format!("bearer  {ADMIN}"), Role::Admin),
            (format!("ApiKey {ADMIN}"), Role::Admin),
            (format!("ApiKey {}", encoded(format!("id:{READER}"))), Role::Read),
            (format!("Basic {}", encoded(format!("anybody:{ADMIN}"))), Role::Admin),
            (format!("Basic {}", encoded(format!(":{READER}"))), Role::Read),
        ] {
            assert_eq!(role(&access, &login), Some(expected), "{login}");
        }
    }

    #[test]
    fn what_is_nearly_a_token_is_none() {
        let access = access();
        for login in [
            "Bearer",
            "Bearer ",
            &format!("Bearer {READER}x"),
            &format!("Bearer {}", &READER[1..]),
            &format!("Bearer {}", READER.to_uppercase()),
            &format!("Digest {READER}"),
            READER,
            &format!("Basic {READER}"),
            &format!("Basic {}", STANDARD.encode(READER)),
        ] {
            assert_eq!(role(&access, login), None, "{login}");
        }
        let nobody = access.caller(&HeaderMap::new(), &Peer::default()).expect("says nothing");
        assert_eq!(nobody, Caller { role: None, has_token: false });
    }

    #[test]
    fn a_certificate_has_the_role_of_its_name() {
        let peer = |names: &[&str]| Peer {
            is_encrypted: true,
            names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        };
        let role = |access: &Access, names: &[&str]| {
            access.caller(&HeaderMap::new(), &peer(names)).expect("says nothing wrong").role
        };
        let mut access = access();
        assert_eq!(role(&access, &["x.example", "ops.example"]), Some(Role::Operate));
        assert_eq!(role(&access, &["x.example"]), None);
        assert_eq!(role(&access, &["*.example"]), None);
        access.clients.push((ANY_NAME.to_owned(), Role::Read));
        assert_eq!(role(&access, &[]), Some(Role::Read));
        assert_eq!(role(&access, &["ops.example"]), Some(Role::Operate));
        let nobody = access.caller(&HeaderMap::new(), &Peer::default()).expect("says nothing");
        assert_eq!(nobody.role, None);
    }

    #[test]
    fn a_token_that_protects_nothing_is_refused_and_not_shown() {
        for (tokens, told) in [
            (vec![token(Role::Read, "short")], "openssl rand"),
            (vec![token(Role::Read, "with a blank 0123456789")], "openssl rand"),
            (vec![token(Role::Read, READER), token(Role::Admin, READER)], "same token"),
            (vec![Token { role: Role::Read, token: None, token_file: None }], "token_file"),
        ] {
            let config = Config { tokens, ..Config::default() };
            let report = Access::new(&config).err().expect("refused").report();
            assert!(report.contains(told), "{report}");
            assert!(!report.contains("0123456789") && !report.contains("short"), "{report}");
        }
    }
}
