//! Passwords: what each plugin answers to the server's nonce. Knows nothing of sockets.

use mysql_common::scramble::{create_response_for_ed25519, scramble_native, scramble_sha256};

use crate::error::{Error, ErrorKind, Result};

/// The plugins that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    CachingSha2,
    Native,
    /// MariaDB's.
    Ed25519,
}

/// Bytes of the nonce that an account of `ed25519` is asked with; one that the greeting has is shorter.
const ED25519_NONCE_LEN: usize = 32;

impl Plugin {
    /// `mysql_native_password` for accounts of old; everything else that is not `caching_sha2_password` is refused.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "caching_sha2_password" => Ok(Self::CachingSha2),
            "mysql_native_password" => Ok(Self::Native),
            "client_ed25519" => Ok(Self::Ed25519),
            other => {
                let message = format!("the account logs in by `{other}`, which is not spoken here");
                Err(Error::new(ErrorKind::SourceRefused, message)
                    .with_advice("see that the account exists; if so: ALTER USER … IDENTIFIED WITH caching_sha2_password BY …, or on MariaDB IDENTIFIED VIA ed25519 USING PASSWORD(…)"))
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::CachingSha2 => "caching_sha2_password",
            Self::Native => "mysql_native_password",
            Self::Ed25519 => "client_ed25519",
        }
    }

    /// What the server asks with, of the bytes behind the plugin's name. The others end theirs with a zero byte.
    pub fn nonce(self, asked: &[u8]) -> Vec<u8> {
        match self {
            Self::CachingSha2 | Self::Native => asked.strip_suffix(&[0]).unwrap_or(asked).to_vec(),
            Self::Ed25519 => asked.iter().copied().take(ED25519_NONCE_LEN).collect(),
        }
    }

    /// The answer that proves that we know the password without telling it; empty for an empty password.
    pub fn answer(self, password: &str, nonce: &[u8]) -> Vec<u8> {
        let password = password.as_bytes();
        match self {
            Self::CachingSha2 => scramble_sha256(nonce, password).map_or_else(Vec::new, Into::into),
            Self::Native => scramble_native(nonce, password).map_or_else(Vec::new, Into::into),
            Self::Ed25519 => create_response_for_ed25519(password, nonce).into(),
        }
    }
}

/// The password as the full path of `caching_sha2_password` takes it where the connection is encrypted.
pub fn in_clear(password: &str) -> Vec<u8> {
    let mut bytes = password.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The same, hidden by the nonce, as it is encrypted with the server's RSA key.
pub fn hidden_by_nonce(password: &str, nonce: &[u8]) -> Vec<u8> {
    let mut bytes = in_clear(password);
    for (byte, mask) in bytes.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mask;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_password_has_an_empty_answer() {
        for plugin in [Plugin::CachingSha2, Plugin::Native] {
            assert!(plugin.answer("", &[1; 20]).is_empty());
            assert_eq!(Plugin::named(plugin.name()).expect("known"), plugin);
        }
        assert_eq!(Plugin::CachingSha2.answer("x", &[1; 20]).len(), 32);
        assert_eq!(Plugin::Native.answer("x", &[1; 20]).len(), 20);
        assert_eq!(Plugin::Ed25519.answer("x", &[1; 32]).len(), 64);
        assert_eq!(Plugin::Ed25519.nonce(&[0; 32]).len(), 32);
        assert_eq!(Plugin::Native.nonce(&[0; 21]).len(), 20);
    }

    #[test]
    fn an_unknown_plugin_is_refused_by_name() {
        let error = Plugin::named("authentication_windows").expect_err("not spoken");
        assert!(error.to_string().contains("authentication_windows"));
        assert_eq!(error.kind(), ErrorKind::SourceRefused);
    }

    #[test]
    fn hiding_twice_shows_the_password() {
        let nonce: Vec<u8> = (1..=20).collect();
        let hidden = hidden_by_nonce("a password of more than twenty bytes", &nonce);
        let shown: Vec<u8> = hidden.iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(shown, in_clear("a password of more than twenty bytes"));
    }
}
