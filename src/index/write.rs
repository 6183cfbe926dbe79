//! One change of one document, what must be true for it to be made, and what became of it. Knows no files.

use super::fault::Fault;

/// The longest `_id`, in bytes of UTF-8.
pub(super) const ID_BYTES_MAX: usize = 512;

/// What a change takes beside its bytes; it counts where a change is little more.
const OVERHEAD_BYTES: usize = 256;

/// One change of one document.
#[derive(Debug, Clone)]
pub struct Write {
    pub id: String,
    pub what: What,
    pub expect: Expect,
}

/// Documents are JSON, as bytes.
#[derive(Debug, Clone)]
pub enum What {
    /// The whole document.
    Put(Vec<u8>),
    Delete,
    /// `part` is merged into the document that is there; `otherwise` is written where there is none.
    Merge {
        part: Vec<u8>,
        otherwise: Option<Vec<u8>>,
    },
}

/// What must be true of the document for the change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing; the version grows by one.
    Anything,
    Absent,
    /// The stored version is below this one, which then is stored.
    Below(u64),
    /// It is not above this one.
    NotAbove(u64),
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Created(u64),
    Updated(u64),
    Deleted(u64),
    /// There was nothing to delete; remembered all the same.
    NotFound(u64),
    Conflict {
        current: u64,
        fault: Fault,
    },
    Refused(Fault),
}

impl Write {
    pub(super) fn size_bytes(&self) -> usize {
        let body = match &self.what {
            What::Put(source) => source.len(),
            What::Delete => 0,
            What::Merge { part, otherwise } => part.len() + otherwise.as_ref().map_or(0, Vec::len),
        };
        OVERHEAD_BYTES + self.id.len() + body
    }

    /// The version that the change stores, or why it is not made.
    pub(super) fn next_version(&self, current: Option<u64>, is_live: bool) -> Result<u64, Fault> {
        let conflict = |reason: String| {
            Err(Fault::new(
                409,
                "version_conflict_engine_exception",
                format!("[{}]: version conflict, {reason}", self.id),
            ))
        };
        let stored = current.unwrap_or(0);
        match self.expect {
            Expect::Absent if is_live => {
                conflict(format!("document already exists (current version [{stored}])"))
            }
            Expect::Anything | Expect::Absent => Ok(stored + 1),
            Expect::NotAbove(version) if current.is_none_or(|current| current <= version) => {
                Ok(version)
            }
            Expect::Below(version) if current.is_none_or(|current| current < version) => {
                Ok(version)
            }
            Expect::NotAbove(version) => conflict(format!(
                "current version [{stored}] is higher than the one provided [{version}]"
            )),
            Expect::Below(version) => conflict(format!(
                "current version [{stored}] is higher or equal to the one provided [{version}]"
            )),
        }
    }
}
