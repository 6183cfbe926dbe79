//! How a link's run can end. Decides nothing; the supervisor does.

use crate::error::{Error, Remedy};
use crate::position::Version;

#[derive(Debug)]
pub(super) enum End {
    /// Asked to stop; everything sent was acknowledged, or the time was up.
    Stopped,
    /// The source has an end, and everything up to it was acknowledged.
    Finished,
    /// The link must be stopped as `failed`.
    Failed(Error),
    /// Not brought up yet; trying again can help.
    Wait(Error),
    /// The link must begin again at its last checkpoint.
    Again(Error),
    /// The stream that all links share must begin again, behind the checkpoints of all.
    Rewind(Error),
    /// The source's next epoch must begin above this version.
    NewEpoch { above: Version, reason: String },
    /// The index was deleted and made anew: what was acknowledged is gone.
    Replaced,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error.remedy() {
            Remedy::Retry => End::Again(error),
            Remedy::Stop => End::Stopped,
            Remedy::Fail | Remedy::Refuse | Remedy::NewEpoch => End::Failed(error),
        }
    }
}
