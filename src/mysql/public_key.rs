//! The server's RSA key, with which a password crosses an unencrypted connection. The key comes from outside: it is
//! parsed here, strictly; the arithmetic is `mysql_common`'s. Knows nothing of packets.

use base64::Engine as _;
use mysql_common::crypto::der;
use mysql_common::crypto::rsa::{GetRandom, Pkcs1OaepPadding, PublicKey};

use crate::error::{Error, ErrorKind, Result};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
/// Bytes of a modulus that we accept: 1024 to 16384 bits.
const MODULUS_LEN: std::ops::RangeInclusive<usize> = 128..=2048;
/// What OAEP with SHA-1 takes of a block.
const PADDING_LEN: usize = 42;

/// `secret` encrypted so that only the holder of the key reads it.
pub fn encrypt(secret: &[u8], pem: &[u8]) -> Result<Vec<u8>> {
    let der = pem_to_der(pem).ok_or_else(unreadable)?;
    let (modulus, exponent) = key_of(&der).ok_or_else(unreadable)?;
    if !MODULUS_LEN.contains(&modulus.len()) || exponent.is_empty() || exponent.len() > 8 {
        return Err(unreadable());
    }
    if secret.len() + PADDING_LEN > modulus.len() {
        return Err(Error::new(
            ErrorKind::SourceRefused,
            "the password is too long for the source's RSA key",
        )
        .with_advice("set tls.mode to `required` or stricter"));
    }
    let (modulus, exponent) = (integer(modulus), integer(exponent));
    let key = PublicKey::new(der::parse_uint(&modulus).0, der::parse_uint(&exponent).0);
    Ok(key.encrypt_block(secret, Pkcs1OaepPadding::new(GetRandom)))
}

fn pem_to_der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(pem).ok()?;
    let (_, body) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = body.split_once("-----END PUBLIC KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

/// Modulus and exponent, without leading zeros, of `SEQUENCE { algorithm, BIT STRING { SEQUENCE { n, e } } }`.
fn key_of(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, _) = element(der, SEQUENCE)?;
    let (_algorithm, rest) = element(info, SEQUENCE)?;
    let (bits, _) = element(rest, BIT_STRING)?;
    let (&unused, key) = bits.split_first()?;
    let (key, _) = element(key, SEQUENCE).filter(|_| unused == 0)?;
    let (modulus, rest) = element(key, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;
    Some((without_zeros(modulus), without_zeros(exponent)))
}

/// The contents of the element that `der` begins with, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// An INTEGER element that is surely well formed.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let [high, low] = (bytes.len() as u16).to_be_bytes();
    let mut der = vec![INTEGER, 0x82, high, low];
    der.extend_from_slice(bytes);
    der
}

fn unreadable() -> Error {
    Error::new(ErrorKind::SourceRefused, "the source's RSA public key cannot be read")
        .with_advice("set tls.mode to `required` or stricter")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key with a modulus of `bits` that ends in an odd byte, and exponent 65537.
    fn pem(modulus_len: usize) -> Vec<u8> {
        let mut modulus = vec![0xc5; modulus_len];
        modulus.insert(0, 0);
        let element = |tag: u8, contents: &[u8]| {
            let [high, low] = (contents.len() as u16).to_be_bytes();
            [&[tag, 0x82, high, low], contents].concat()
        };
        let key =
            element(SEQUENCE, &[element(INTEGER, &modulus), element(INTEGER, &[1, 0, 1])].concat());
        let bits = element(BIT_STRING, &[&[0][..], &key].concat());
        let der = element(SEQUENCE, &[element(SEQUENCE, b""), bits].concat());
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n").into_bytes()
    }

    #[test]
    fn a_block_is_as_long_as_the_key() {
        let pem = pem(256);
        assert_eq!(encrypt(b"secret\0", &pem).expect("a usable key").len(), 256);
        let theirs = PublicKey::from_pem(&pem);
        assert_eq!(theirs.num_octets(), 256);
    }

    #[test]
    fn every_cut_or_damaged_key_is_an_error_and_no_panic() {
        let pem = pem(256);
        for end in 0..pem.len() - 30 {
            assert!(encrypt(b"secret", &pem[..end]).is_err());
        }
        for at in 0..pem.len() {
            let mut damaged = pem.clone();
            damaged[at] = b'A';
            let _ = encrypt(b"secret", &damaged);
        }
        assert!(encrypt(&[1; 250], &pem).is_err());
    }
}
