//! The source's epoch: which server numbers the log, and the highest version that was ever assigned or seen. Must not
//! know how versions are made.

use serde::{Deserialize, Serialize};

use super::{Durability, Family, State};
use crate::error::Result;

/// There is one source; a second one would get a key of its own.
pub(super) const KEY: &[u8] = b"source";

/// What all links of the source share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    pub server_uuid: String,
    pub epoch: u64,
    /// At or above every version that was assigned or met in an answer.
    pub highest_version: u64,
}

pub struct Source<'s> {
    pub(super) state: &'s State,
}

impl Source<'_> {
    pub fn get(&self) -> Result<Option<SourceRecord>> {
        self.state.get(Family::Source, KEY)
    }

    /// An epoch must be written with `sync` before its first use (rule 4).
    pub fn put(&self, record: &SourceRecord, sync: bool) -> Result<()> {
        self.state.put(Family::Source, KEY, record, Durability::synced_if(sync))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;

    #[test]
    fn the_epoch_is_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let record =
            SourceRecord { server_uuid: "u".into(), epoch: 1 << 62, highest_version: u64::MAX };
        let state = open(dir.path());
        assert_eq!(state.source().get().expect("reads"), None);
        state.source().put(&record, true).expect("writes");
        drop(state);
        assert_eq!(open(dir.path()).source().get().expect("reads"), Some(record));
    }
}
