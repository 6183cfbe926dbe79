//! Parked documents (rule 14): what could not be written for long while others could leaves its lane, so that the checkpoint
//! can move, and is tried again by itself, at growing intervals, for ever. To try is to read its row anew, as of a dead letter.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::error::Result;
use crate::link::control::Control;
use crate::link::inquiry::Rewrite;
use crate::link::letters::RETRIED_AT_ONCE;
use crate::link::verify::{asking::Asking, keys};

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Control {
    /// Tries what is parked, each when it is due. One link's tries do not wait for another's.
    pub(super) async fn retry_parked(self) {
        let mut tries = JoinSet::new();
        let mut tried: BTreeMap<String, tokio::task::Id> = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            while let Some(ended) = tries.try_join_next_with_id() {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                tried.retain(|_, running| *running != id);
            }
            for link in self.inner.ids() {
                let parked = self.inner.letters_of(&link).map_or(0, |letters| letters.parked());
                if parked == 0 || tried.contains_key(&link) {
                    continue;
                }
                let (control, of) = (self.clone(), link.clone());
                let task = tries.spawn(async move {
                    if let Err(error) = control.retry_parked_of(&of).await {
                        tracing::debug!(link = of, reason = %error.report(), "what is parked was not tried");
                    }
                });
                tried.insert(link, task.id());
            }
        }
    }

    async fn retry_parked_of(&self, link: &str) -> Result<()> {
        let (_, live) = self.inner.record_of(link).ok_or_else(|| self.unknown(link))?;
        let letters = self.inner.letters_of(link).ok_or_else(|| self.unknown(link))?;
        if live.phase().is_at_rest() {
            return Ok(());
        }
        let due = letters.take_due()?;
        if due.is_empty() {
            return Ok(());
        }
        tracing::info!(link, documents = due.len(), "what is parked is tried again");
        let asking = Asking::begin(self, link, &live).await?;
        let plan = asking.standing.plan.clone();
        for page in due.chunks(RETRIED_AT_ONCE) {
            let keyed = |id: &String| keys::key_of(&plan, id).map(|key| (id.clone(), key));
            let documents: Vec<_> = page.iter().filter_map(keyed).collect();
            if !documents.is_empty() {
                asking.rewrite(Rewrite { documents, may_delete: true }).await?;
            }
        }
        Ok(())
    }
}
