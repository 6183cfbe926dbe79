//! Where definitions are kept: JSON by kind and id in the state directory, credentials sealed beside. Knows no meaning of
//! what it keeps.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

use super::template::Secrets;
use crate::{
    error::{Error, ErrorKind, Result},
    state::State,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connector,
    Model,
    ModelGroup,
    Pipeline,
    Settings,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Model => "model",
            Self::ModelGroup => "model_group",
            Self::Pipeline => "pipeline",
            Self::Settings => "settings",
        }
    }
}

/// Reads are answered from memory or a file's cache within microseconds; writes wait for the disk on a thread of their
/// own.
#[derive(Clone)]
pub struct Catalog {
    state: State,
}

impl From<State> for Catalog {
    fn from(state: State) -> Self {
        Self { state }
    }
}

impl Catalog {
    pub fn get(&self, kind: Kind, id: &str) -> Result<Option<Value>> {
        self.state.catalog().get(kind.name(), id)
    }

    /// All of a kind by their ids.
    pub fn list(&self, kind: Kind) -> Result<Vec<(String, Value)>> {
        self.state.catalog().list(kind.name())
    }

    pub async fn put(&self, kind: Kind, id: &str, value: Value) -> Result<()> {
        let id = id.to_owned();
        self.write(move |state| state.catalog().put(kind.name(), &id, &value)).await
    }

    pub async fn delete(&self, kind: Kind, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.write(move |state| state.catalog().delete(kind.name(), &id)).await
    }

    pub fn secrets(&self, connector: &str) -> Result<Secrets> {
        self.state.catalog().secrets(&owner(connector))
    }

    /// The secrets first: a definition never stands without the credentials it asks for.
    pub async fn put_connector(&self, id: &str, definition: Value, secrets: Secrets) -> Result<()> {
        let id = id.to_owned();
        self.write(move |state| {
            state.catalog().put_secrets(&owner(&id), &secrets)?;
            state.catalog().put(Kind::Connector.name(), &id, &definition)
        })
        .await
    }

    pub async fn delete_connector(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.write(move |state| {
            state.catalog().delete(Kind::Connector.name(), &id)?;
            state.catalog().delete_secrets(&owner(&id))
        })
        .await
    }

    async fn write(&self, work: impl FnOnce(&State) -> Result<()> + Send + 'static) -> Result<()> {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || work(&state)).await.map_err(|error| {
            Error::new(ErrorKind::State, "cannot write a definition").caused_by(error)
        })?
    }
}

fn owner(connector: &str) -> String {
    format!("connector/{connector}")
}

/// Twenty characters that nobody else has, in the alphabet of the originals.
pub fn new_id() -> String {
    let mut bytes = [0; 15];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The clock as definitions write it: milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_the_originals_and_differ() {
        let id = new_id();
        assert_eq!(id.len(), 20);
        assert!(
            id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        );
        assert_ne!(id, new_id());
    }
}
