//! Seals secrets at rest with AES-256-GCM, and finds the key to do it. Must not know whose secrets they are.

use std::fs;
use std::io::{ErrorKind as IoKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::open::make_private;
use crate::error::{Error, ErrorKind, Result};

const KEY_BYTES: usize = 32;
/// More than any form of a key has.
const KEY_FILE_BYTES_MAX: u64 = 1024;
const ENV: &str = "DRIFTLESS_SECRET_KEY";
/// The key that is made where none is given, inside the state directory.
const OWN_KEY_FILE: &str = "secret.key";

/// The key that seals secrets. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SealingKey {
    bytes: [u8; KEY_BYTES],
}

/// A sealed text as it is stored. `key` tells a wrong key from damage without helping to guess it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) key: String,
    nonce: String,
    sealed: String,
}

impl SealingKey {
    /// The key from the value of `DRIFTLESS_SECRET_KEY`, else from `key_file`, else from `secret.key` of the state
    /// directory, which is made on first use.
    pub fn load(env: Option<&str>, key_file: Option<&Path>, state_dir: &Path) -> Result<Self> {
        if let Some(text) = env {
            return Self::parse(text.as_bytes()).ok_or_else(|| malformed(ENV));
        }
        if let Some(path) = key_file {
            return Self::read(path);
        }
        make_private(state_dir)?;
        let path = state_dir.join(OWN_KEY_FILE);
        if !path.exists() {
            make_key_file(state_dir, &path)?;
        }
        Self::read(&path)
    }

    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self { bytes }
    }

    fn read(path: &Path) -> Result<Self> {
        let failed = |cause| cannot("read", path).caused_by(cause);
        let mut bytes = Vec::with_capacity(KEY_FILE_BYTES_MAX as usize);
        let file = fs::File::open(path).map_err(failed)?;
        file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(
                file = %path.display(),
                mode = format!("{:o}", mode & 0o777),
                "other accounts can read the key that seals secrets; chmod 600 mends it"
            );
        }
        Self::parse(&bytes).ok_or_else(|| malformed(&path.display().to_string()))
    }

    /// 32 bytes as hex or base64 text, or as they are.
    fn parse(given: &[u8]) -> Option<Self> {
        if let Ok(text) = std::str::from_utf8(given) {
            let text = text.trim();
            let decoded = from_hex(text).or_else(|| {
                [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
                    .iter()
                    .find_map(|engine| engine.decode(text).ok())
            });
            if let Some(bytes) = decoded.and_then(|bytes| bytes.try_into().ok()) {
                return Some(Self { bytes });
            }
        }
        given.try_into().ok().map(|bytes| Self { bytes })
    }

    /// Seals `plain` for `owner`, who is bound to it as associated data.
    pub(super) fn seal(&self, owner: &str, plain: Vec<u8>) -> Result<Sealed> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| no_random())?;
        let mut bytes = plain;
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(owner.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| {
                Error::new(ErrorKind::State, format!("cannot seal the secrets of {owner}"))
            })?;
        Ok(Sealed {
            key: self.fingerprint(),
            nonce: STANDARD.encode(nonce),
            sealed: STANDARD.encode(bytes),
        })
    }

    pub(super) fn open(&self, owner: &str, sealed: Sealed) -> Result<Vec<u8>> {
        if sealed.key != self.fingerprint() {
            return Err(Error::new(
                ErrorKind::State,
                format!("the secrets of {owner} are sealed with another key"),
            )
            .with_advice(format!(
                "start with the key that sealed them ({ENV}, `secret_key_file`, or {OWN_KEY_FILE} of the state directory), or give the credentials again"
            )));
        }
        let damaged = || {
            Error::new(ErrorKind::State, format!("the sealed secrets of {owner} are damaged"))
                .with_advice("give its credentials again")
        };
        let nonce = STANDARD.decode(&sealed.nonce).map_err(|_| damaged())?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| damaged())?;
        let mut bytes = STANDARD.decode(&sealed.sealed).map_err(|_| damaged())?;
        let plain = self
            .cipher()
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut bytes)
            .map_err(|_| damaged())?
            .len();
        bytes.truncate(plain);
        Ok(bytes)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.bytes).expect("the key has 32 bytes");
        LessSafeKey::new(key)
    }

    pub(super) fn fingerprint(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
        let tag = hmac::sign(&key, b"driftless: which key sealed this");
        STANDARD_NO_PAD.encode(&tag.as_ref()[..9])
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..KEY_BYTES).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

/// Writes a new key beside its place and links it there: the file is whole or not there, and of two processes that do
/// this at once both end with the same key.
fn make_key_file(state_dir: &Path, path: &Path) -> Result<()> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| no_random())?;
    let draft = state_dir.join(format!("{OWN_KEY_FILE}.{}", std::process::id()));
    let made = write_draft(&draft, &bytes).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft).ok();
    match made {
        Err(cause) if cause.kind() != IoKind::AlreadyExists => {
            return Err(cannot("make", path).caused_by(cause));
        }
        Err(_) => return Ok(()),
        Ok(()) => {}
    }
    fs::File::open(state_dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|cause| cannot("make", path).caused_by(cause))?;
    tracing::info!(
        file = %path.display(),
        "made a key that seals secrets; keep a copy of it apart from the state, or give one by {ENV}"
    );
    Ok(())
}

fn write_draft(draft: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    writeln!(file, "{}", STANDARD.encode(bytes))?;
    file.sync_all()
}

fn cannot(tried: &str, path: &Path) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("cannot {tried} the key that seals secrets, {}", path.display()),
    )
    .with_advice("name a file that this account can read as `secret_key_file`")
}

fn malformed(place: &str) -> Error {
    Error::input(format!("the key that seals secrets in {place} is not 32 bytes in hex or base64"))
        .with_advice("make one with `openssl rand -base64 32`")
}

fn no_random() -> Error {
    Error::new(ErrorKind::Io, "the system gives no random bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_every_form() {
        let bytes: [u8; 32] = std::array::from_fn(|at| (at * 7 + 130) as u8);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let dir = tempfile::tempdir().expect("a directory");
        for text in [hex, format!("{}\n", STANDARD.encode(bytes)), URL_SAFE_NO_PAD.encode(bytes)] {
            let key = SealingKey::load(Some(&text), None, dir.path()).expect("reads");
            assert_eq!(key.bytes, bytes);
        }
        let file = dir.path().join("raw");
        fs::write(&file, bytes).expect("writes");
        assert_eq!(SealingKey::load(None, Some(&file), dir.path()).expect("reads").bytes, bytes);
        assert!(!dir.path().join(OWN_KEY_FILE).exists());
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_not_shown() {
        let error =
            SealingKey::load(Some("c2hvcnQ="), None, Path::new("/nowhere")).expect_err("no");
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.report().contains(ENV) && !error.report().contains("c2hvcnQ"));
    }

    #[test]
    fn without_a_key_one_is_made_for_the_owner_only_and_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let state_dir = dir.path().join("deep/state");
        let made = SealingKey::load(None, None, &state_dir).expect("makes");
        let again = SealingKey::load(None, None, &state_dir).expect("reads");
        assert_eq!(made.bytes, again.bytes);
        let file = fs::metadata(state_dir.join(OWN_KEY_FILE)).expect("is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state_dir).expect("reads").count(), 1, "no draft is left");
    }

    #[test]
    fn damage_is_not_taken_for_another_key() {
        let key = SealingKey::from_bytes([1; 32]);
        let mut sealed = key.seal("me", b"text".to_vec()).expect("seals");
        sealed.nonce = STANDARD.encode([0; NONCE_LEN]);
        let report = key.open("me", sealed).expect_err("refused").report();
        assert!(report.contains("damaged"), "{report}");
    }
}
