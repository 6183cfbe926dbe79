//! `REBUILD LINK`: an index is made anew while it is searched. A shadow link fills another index; when that is right, the
//! name that searches use moves to it, and the links change their roles: the link goes on with the new index, the shadow
//! keeps the old one streaming until it is not wanted any more (rule 20).
//!
//! *Why a shadow link.* It has a checkpoint, letters and definitions of its own, so neither index waits for the other, and what
//! is true of a link is true of it: it copies beside the stream, is found again after a crash, and can be verified.
//!
//! *When the name moves* (`moving`). A verification of the shadow has found nothing, or mended what it found until nothing
//! was left. Then the link stops, at its checkpoint P; the shadow goes on until all up to P is acknowledged to it, and stops
//! too; its index is refreshed. Whoever searches by the name has seen nothing beyond P, and sees no less now.
//!
//! *Killed at any moment* (`moving`): before the name moves it is stored that it will. From then on the only way is
//! forward, and the index that the name leads to says how much of it is done: the move is asked for again, until it is
//! seen to be there, and then the state is changed by one write.

mod drive;
mod moving;
mod order;

use crate::error::{Error, ErrorKind, Result, Span};
use crate::link::supervisor::{Inner, lock};
use crate::mapping;
use crate::state::{LinkRecord, RebuildPhase, RebuildRecord};

/// What a rebuild shall make different; with the places in the statement that say so.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub settings: Option<serde_json::Value>,
    pub mappings: Option<serde_json::Value>,
    pub pipeline: Option<(String, Span)>,
    pub rules: Option<NewRules>,
    pub keep_old_secs: Option<(u64, Span)>,
    pub statement: String,
}

/// Rules in the place of a link's own.
#[derive(Debug, Clone)]
pub struct NewRules {
    /// The index that they name, which is the link's.
    pub index: (String, Span),
    pub rules: Vec<mapping::Rule>,
}

/// A rebuild that has begun.
#[derive(Debug, Clone)]
pub struct Begun {
    pub shadow: String,
    pub index: String,
}

/// A rebuild as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuild {
    /// `copying`, `verifying`, `moving` or `kept`.
    pub phase: &'static str,
    /// The shadow, and its index.
    pub link: String,
    pub index: String,
    /// What the new index had of them, and how many were mended.
    pub differences: u64,
    pub repaired: u64,
    /// Unix seconds.
    pub kept_until: Option<u64>,
    /// What it waits for, or why it does not go on.
    pub waits_for: String,
}

impl Rebuild {
    /// `doing` is what the task does now, and what it waits for.
    pub(super) fn shown(record: &RebuildRecord, doing: (&'static str, String)) -> Self {
        let phase = match record.phase {
            RebuildPhase::Filling if doing.0.is_empty() => COPYING,
            RebuildPhase::Filling => doing.0,
            RebuildPhase::Moving => "moving",
            RebuildPhase::Kept => "kept",
        };
        Self {
            phase,
            link: record.other.clone(),
            index: record.index.clone(),
            differences: record.differences,
            repaired: record.repaired,
            kept_until: record.kept_until,
            waits_for: doing.1,
        }
    }
}

const COPYING: &str = "copying";
const VERIFYING: &str = "verifying";

/// Ids of shadows are ours: `products~2`.
fn is_of_a_shadow(id: &str) -> bool {
    let number = id.rsplit_once('~').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn refuse_name(id: &str) -> Result<()> {
    if !is_of_a_shadow(id) {
        return Ok(());
    }
    Err(Error::input(format!(
        "`{id}` is the id of a shadow, as rebuilds make them, and no other link can have it"
    ))
    .with_advice("choose an id that does not end in ~ and a number"))
}

impl Inner {
    /// What a person may do with the link must wait, or is another statement's.
    pub fn refuse_moving(&self, id: &str) -> Result<()> {
        if !lock(&self.held).contains(id) {
            return Ok(());
        }
        let what =
            format!("the name of an index moves to another one just now, and `{id}` with it");
        Err(Error::new(ErrorKind::Unsupported, what).with_advice("ask again in a moment"))
    }

    /// Dropping one of two links that belong together leaves the other one in the air.
    pub fn refuse_drop(&self, record: &LinkRecord) -> Result<()> {
        let id = &record.id;
        self.refuse_moving(id)?;
        let refused = |what: String, advice: String| {
            Err(Error::new(ErrorKind::Unsupported, what).with_advice(advice))
        };
        if let Some(rebuild) = &record.rebuild {
            let other = &rebuild.other;
            return match rebuild.phase {
                RebuildPhase::Kept => refused(
                    format!(
                        "the index that `{id}` had before is still kept, by the link `{other}`"
                    ),
                    format!(
                        "first DROP LINK `{other}` WITH INDEX, or without it to leave that index as it is"
                    ),
                ),
                RebuildPhase::Filling | RebuildPhase::Moving => refused(
                    format!("the index of the link `{id}` is being rebuilt"),
                    format!("first REBUILD LINK `{id}` CANCEL"),
                ),
            };
        }
        let Some(of) = &record.shadow_of else { return Ok(()) };
        let is_kept = self
            .rebuild_of(of)
            .is_none_or(|rebuild| rebuild.phase == RebuildPhase::Kept || rebuild.other != *id);
        if is_kept {
            return Ok(());
        }
        refused(
            format!("`{id}` fills the new index of the link `{of}`"),
            format!("REBUILD LINK `{of}` CANCEL forgets it, and deletes that index"),
        )
    }

    fn rebuild_of(&self, link: &str) -> Option<RebuildRecord> {
        self.record_of(link)?.0.rebuild
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_shadows_are_known() {
        for id in ["products~2", "a~b~10"] {
            assert!(refuse_name(id).is_err(), "{id}");
        }
        for id in ["products", "products~", "~a", "products~2b", "a2"] {
            assert!(refuse_name(id).is_ok(), "{id}");
        }
    }
}
