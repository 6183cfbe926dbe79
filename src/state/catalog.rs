//! The catalog of the ml-commons emulation: connectors, models, pipelines, settings as JSON by kind and id, and the
//! sealed secrets of their owners. Must not know what the JSON means.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::sealing::Sealed;
use super::{Durability, Family, State, joined_key};
use crate::error::{Error, ErrorKind, Result};

/// Every write is synced.
pub struct Catalog<'s> {
    pub(super) state: &'s State,
}

impl Catalog<'_> {
    /// `value` lies in the clear: secrets go through [`Catalog::put_secrets`].
    pub fn put(&self, kind: &str, id: &str, value: &Value) -> Result<()> {
        self.state.put(Family::Catalog, &joined_key(kind, &[id]), value, Durability::Synced)
    }

    pub fn get(&self, kind: &str, id: &str) -> Result<Option<Value>> {
        self.state.get(Family::Catalog, &joined_key(kind, &[id]))
    }

    /// Everything of a kind as (id, value), in the order of the ids.
    pub fn list(&self, kind: &str) -> Result<Vec<(String, Value)>> {
        let entries = self.state.list(Family::Catalog, &joined_key(kind, &[""]))?;
        Ok(entries
            .into_iter()
            .map(|(id, value)| (String::from_utf8_lossy(&id).into_owned(), value))
            .collect())
    }

    pub fn delete(&self, kind: &str, id: &str) -> Result<()> {
        self.state.delete(Family::Catalog, &joined_key(kind, &[id]), Durability::Synced)
    }

    /// Seals all secrets of `owner` in the place of those it had. They open only with the same key and for the same
    /// owner.
    pub fn put_secrets(&self, owner: &str, secrets: &BTreeMap<String, SecretString>) -> Result<()> {
        let exposed: BTreeMap<&str, &str> =
            secrets.iter().map(|(name, secret)| (name.as_str(), secret.expose_secret())).collect();
        let plain = serde_json::to_vec(&exposed).map_err(|_| unreadable(owner))?;
        let sealed = self.state.sealing_key().seal(owner, plain)?;
        self.state.put(Family::Secrets, owner.as_bytes(), &sealed, Durability::Synced)
    }

    /// The secrets of `owner`; empty where it has none.
    pub fn secrets(&self, owner: &str) -> Result<BTreeMap<String, SecretString>> {
        let sealed: Option<Sealed> = self.state.get(Family::Secrets, owner.as_bytes())?;
        let Some(sealed) = sealed else { return Ok(BTreeMap::new()) };
        let plain = self.state.sealing_key().open(owner, sealed)?;
        // The cause is left out: it could quote the plain text.
        serde_json::from_slice(&plain).map_err(|_| unreadable(owner))
    }

    pub fn delete_secrets(&self, owner: &str) -> Result<()> {
        self.state.delete(Family::Secrets, owner.as_bytes(), Durability::Synced)
    }
}

fn unreadable(owner: &str) -> Error {
    Error::new(ErrorKind::State, format!("the secrets of {owner} are not a map of names to texts"))
        .with_advice("give its credentials again")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::SealingKey;
    use super::super::tests::open;
    use super::*;

    fn secrets() -> BTreeMap<String, SecretString> {
        BTreeMap::from([("key".to_owned(), SecretString::from("sesame-open"))])
    }

    #[test]
    fn entries_are_listed_by_kind() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let catalog = state.catalog();
        let value = serde_json::json!({"b": 1, "a": [null, 2.50]});
        catalog.put("model", "m1", &value).expect("writes");
        catalog.put("model_group", "g1", &value).expect("writes");
        assert_eq!(catalog.list("model").expect("lists"), [("m1".to_owned(), value.clone())]);
        assert_eq!(catalog.get("model_group", "g1").expect("reads"), Some(value));
        catalog.delete("model", "m1").expect("deletes");
        assert_eq!(catalog.get("model", "m1").expect("reads"), None);
    }

    #[test]
    fn secrets_open_again_and_lie_nowhere_in_the_clear() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        assert!(state.catalog().secrets("c1").expect("reads").is_empty());
        state.catalog().put_secrets("c1", &secrets()).expect("writes");
        drop(state);
        let opened = open(dir.path()).catalog().secrets("c1").expect("reads");
        assert_eq!(opened["key"].expose_secret(), "sesame-open");
        assert!(!any_file_holds(&dir.path().join("db"), b"sesame"));
    }

    #[test]
    fn another_key_is_told_as_such() {
        let dir = tempfile::tempdir().expect("a directory");
        open(dir.path()).catalog().put_secrets("c1", &secrets()).expect("writes");
        let state = State::open(dir.path(), SealingKey::from_bytes([8; 32])).expect("opens");
        let error = state.catalog().secrets("c1").expect_err("refused");
        assert!(error.report().contains("sealed with another key"), "{}", error.report());
    }

    #[test]
    fn secrets_do_not_open_for_another_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        state.catalog().put_secrets("c1", &secrets()).expect("writes");
        let stolen = state
            .inner
            .db
            .get_cf(state.family(Family::Secrets), "c1")
            .expect("reads")
            .expect("is there");
        state.inner.db.put_cf(state.family(Family::Secrets), "c2", stolen).expect("writes");
        assert!(state.catalog().secrets("c2").is_err());
    }

    fn any_file_holds(path: &Path, needle: &[u8]) -> bool {
        std::fs::read_dir(path).expect("reads").flatten().any(|entry| {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            memchr::memmem::find(&bytes, needle).is_some()
        })
    }
}
