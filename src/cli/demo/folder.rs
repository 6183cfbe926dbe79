//! The demo's temporary folder: made, removed when dropped; and those of demos that were killed go with the next one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

const PREFIX: &str = "driftless-demo-";

pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new folder, whose name says which process it belongs to.
    pub fn make() -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let name = format!("{PREFIX}{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let path = parent.join(name);
        fs::create_dir(&path).map_err(|cause| {
            Error::new(ErrorKind::Io, format!("cannot make the folder {}", path.display()))
                .caused_by(cause)
                .with_advice("TMPDIR names a folder that can be written to")
        })?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "cannot remove the demo's folder");
        }
    }
}

/// Removes what belongs to no process any more. Only where the system says which processes there are.
fn sweep(parent: &Path) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            // Somebody else's, then; he clears it himself.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process that a folder of this name belongs to.
fn owner(name: &str) -> Option<&str> {
    let (owner, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    owner.bytes().all(|byte| byte.is_ascii_digit()).then_some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_process_is_gone_is_swept_and_others_stay() {
        let parent = tempfile::tempdir().expect("a folder");
        // No process has this number: it is above the kernel's highest.
        let dead = parent.path().join(format!("{PREFIX}4999999-x"));
        let alive = parent.path().join(format!("{PREFIX}{}-x", std::process::id()));
        let foreign = parent.path().join(format!("{PREFIX}notes"));
        for folder in [&dead, &alive, &foreign] {
            fs::create_dir(folder).expect("is made");
        }
        sweep(parent.path());
        assert_eq!((dead.exists(), alive.exists(), foreign.exists()), (false, true, true));
    }
}
