//! The first packets of a connection: the server's greeting, our answer to it. Knows nothing of passwords.

use crate::error::{Error, ErrorKind, Result};

use super::lenenc::{Fields, put_lenenc_bytes};

/// What both sides say they can do.
pub mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
}
use capability as c;

const OURS: u32 = c::LONG_PASSWORD
    | c::LONG_FLAG
    | c::PROTOCOL_41
    | c::TRANSACTIONS
    | c::SECURE_CONNECTION
    | c::PLUGIN_AUTH
    | c::CONNECT_ATTRS
    | c::PLUGIN_AUTH_LENENC;
/// Without these we cannot speak with a server.
const NEEDED: u32 = c::PROTOCOL_41 | c::SECURE_CONNECTION | c::PLUGIN_AUTH;
/// utf8mb4_general_ci: every server since 5.5 knows it.
const COLLATION: u8 = 45;
const MAX_PACKET_BYTES: u32 = 1 << 30;
/// Bytes of the nonce of all plugins that we speak.
pub const NONCE_LEN: usize = 20;

/// The server's first packet.
#[derive(Debug, Clone)]
pub struct Greeting {
    pub server_version: String,
    pub connection_id: u32,
    pub nonce: [u8; NONCE_LEN],
    pub plugin: String,
    capabilities: u32,
}

impl Greeting {
    pub fn parse(packet: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(packet);
        let version = fields.uint(1)?;
        if version != 10 {
            let message = format!("the source greets with protocol version {version}, not 10");
            return Err(Error::new(ErrorKind::SourceRefused, message)
                .with_advice("see that host and port are those of a MySQL server"));
        }
        let server_version = String::from_utf8_lossy(fields.until_zero()).into_owned();
        let connection_id = fields.uint(4)? as u32;
        let first = fields.bytes(8)?;
        let _filler = fields.uint(1)?;
        let low = fields.uint(2)? as u32;
        let _collation_and_status = fields.uint(3)?;
        let high = fields.uint(2)? as u32;
        let _nonce_len = fields.uint(1)?;
        fields.bytes(10)?;
        let second = fields.bytes(12)?;
        let _zero = fields.uint(1)?;
        let plugin = String::from_utf8_lossy(fields.until_zero()).into_owned();
        let capabilities = low | (high << 16);
        if capabilities & NEEDED != NEEDED {
            return Err(Error::new(
                ErrorKind::SourceRefused,
                format!("server {server_version} is too old to log in to"),
            )
            .with_advice("MySQL 5.6 or later is needed"));
        }
        let mut nonce = [0; NONCE_LEN];
        let (left, right) = nonce.split_at_mut(first.len());
        left.copy_from_slice(first);
        right.copy_from_slice(second);
        Ok(Self { server_version, connection_id, nonce, plugin, capabilities })
    }

    pub fn offers_tls(&self) -> bool {
        self.capabilities & c::SSL != 0
    }

    fn agreed(&self) -> u32 {
        OURS & self.capabilities
    }

    /// The packet that asks for encryption; nothing else of ours may be said before it is there.
    pub fn tls_request(&self) -> Vec<u8> {
        fixed_part(self.agreed() | c::SSL)
    }

    /// Our answer: who we are, and the first answer of the plugin.
    pub fn answer(
        &self,
        user: &str,
        plugin: &str,
        first_answer: &[u8],
        encrypted: bool,
    ) -> Vec<u8> {
        let capabilities = self.agreed() | if encrypted { c::SSL } else { 0 };
        let mut packet = fixed_part(capabilities);
        packet.extend_from_slice(user.as_bytes());
        packet.push(0);
        // At most 255 bytes, where the two forms of the length are the same up to 250; our answers are shorter.
        put_lenenc_bytes(&mut packet, first_answer);
        packet.extend_from_slice(plugin.as_bytes());
        packet.push(0);
        if capabilities & c::CONNECT_ATTRS != 0 {
            let mut attributes = Vec::new();
            for (name, value) in
                [("program_name", "driftless"), ("_client_version", env!("CARGO_PKG_VERSION"))]
            {
                put_lenenc_bytes(&mut attributes, name.as_bytes());
                put_lenenc_bytes(&mut attributes, value.as_bytes());
            }
            put_lenenc_bytes(&mut packet, &attributes);
        }
        packet
    }
}

fn fixed_part(capabilities: u32) -> Vec<u8> {
    let mut packet = capabilities.to_le_bytes().to_vec();
    packet.extend_from_slice(&MAX_PACKET_BYTES.to_le_bytes());
    packet.push(COLLATION);
    packet.extend_from_slice(&[0; 23]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Vec<u8> {
        let mut packet = b"\x0a9.7.4\0\x07\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xff\x15".to_vec();
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"ijklmnopqrst\0caching_sha2_password\0");
        packet
    }

    #[test]
    fn a_greeting_is_read_and_any_cut_of_it_is_an_error_or_harmless() {
        let packet = greeting();
        let greeting = Greeting::parse(&packet).expect("well formed");
        assert_eq!(greeting.server_version, "9.7.4");
        assert_eq!(&greeting.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(greeting.plugin, "caching_sha2_password");
        assert!(greeting.offers_tls());
        for end in 0..packet.len() - 24 {
            assert!(Greeting::parse(&packet[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn the_answer_without_encryption_does_not_claim_it() {
        let greeting = Greeting::parse(&greeting()).expect("well formed");
        let flags = |packet: &[u8]| u32::from_le_bytes(*packet.first_chunk().expect("long enough"));
        assert_eq!(flags(&greeting.answer("u", "p", b"", false)) & c::SSL, 0);
        assert_ne!(flags(&greeting.tls_request()) & c::SSL, 0);
        assert_eq!(greeting.tls_request().len(), 32);
    }
}
