//! The task of each rebuild: waits for the copy, has it verified, has the name moved, and drops what is kept when its time
//! is over. Takes rebuilds of an earlier life on where they were.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::task::{Id, JoinSet};

use crate::error::{Error, ErrorKind, Result};
use crate::flow::backoff::Backoff;
use crate::link::control::Control;
use crate::link::rebuild::{COPYING, VERIFYING};
use crate::link::status::{State, unix_seconds};
use crate::link::verify::{Kind, Order, Verdict};
use crate::naive::{Rule, is_naive};
use crate::state::{RebuildPhase, RebuildRecord};

/// How often is looked whether something is to be done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Verifications of a new index, one behind the other, before somebody must look.
const ROUNDS_MAX: u32 = 4;

/// And when it is looked at again, for the cause may be gone.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Control {
    /// Goes on until it is dropped.
    pub(in crate::link) async fn rebuild_when_asked(self) {
        let mut tasks = JoinSet::new();
        let mut driven: HashMap<Id, String> = HashMap::new();
        loop {
            let running: HashSet<&String> = driven.values().collect();
            let wanted: Vec<String> = self
                .inner
                .ids()
                .into_iter()
                .filter(|id| !running.contains(id) && self.inner.rebuild_of(id).is_some())
                .collect();
            for link in wanted {
                let (control, id) = (self.clone(), link.clone());
                let task = tasks.spawn(async move { control.drive(&id).await });
                driven.insert(task.id(), link);
            }
            tokio::select! {
                Some(ended) = tasks.join_next_with_id() => {
                    let id = ended.map_or_else(|panicked| panicked.id(), |(id, ())| id);
                    driven.remove(&id);
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Until the link has no rebuild any more.
    async fn drive(&self, link: &str) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        while let Some(rebuild) = self.inner.rebuild_of(link) {
            let step = match rebuild.phase {
                RebuildPhase::Filling => self.fill(link, &rebuild).await,
                RebuildPhase::Moving => self.end_move(link).await,
                RebuildPhase::Kept => self.keep(link, &rebuild).await,
            };
            match step {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let reason = error.report();
                    tracing::warn!(link, reason, "the rebuild waits");
                    self.say(link, "", reason);
                    tokio::time::sleep(backoff.next(None)).await;
                }
            }
        }
    }

    /// Shows what is done; without a word for it, that of before.
    fn say(&self, link: &str, doing: &'static str, waits_for: String) {
        if let Some((_, live)) = self.inner.record_of(link) {
            live.set_rebuild(doing, waits_for);
        }
    }

    async fn fill(&self, link: &str, rebuild: &RebuildRecord) -> Result<()> {
        let shadow = &rebuild.other;
        let Some((_, live)) = self.inner.record_of(shadow) else {
            // The end of it was cut off.
            let _one_at_a_time = self.inner.moving.lock().await;
            return self.end_rebuild(link, rebuild).await;
        };
        let phase = live.phase();
        if !matches!(phase, State::Running | State::CatchingUp) {
            let waits_for = match phase {
                State::Failed => format!("the link `{shadow}` has failed: {}", live.reason()),
                State::Paused => format!("the link `{shadow}` is paused: RESUME LINK `{shadow}`"),
                _ => String::new(),
            };
            self.say(link, COPYING, waits_for);
            tokio::time::sleep(LOOK_EVERY).await;
            return Ok(());
        }
        if !is_naive(Rule::Rebuild) {
            self.say(link, VERIFYING, String::new());
            if !self.is_right(link, rebuild).await? {
                return Ok(());
            }
        }
        self.move_when_possible(link, rebuild).await
    }

    /// What was right stays right, for the shadow streams on; so nothing but another table has it verified again.
    async fn move_when_possible(&self, link: &str, rebuild: &RebuildRecord) -> Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let Err(error) = self.move_roles(link, RebuildPhase::Filling).await else {
                return Ok(());
            };
            let is_same = self.inner.rebuild_of(link).is_some_and(|now| {
                now.other == rebuild.other && now.phase == RebuildPhase::Filling
            });
            if !is_same || error.kind() == ErrorKind::Schema {
                return Err(error);
            }
            tracing::warn!(link, reason = %error.report(), "the name does not move yet");
            self.say(link, "", error.report());
            tokio::time::sleep(backoff.next(None)).await;
        }
    }

    /// Whether the new index is what the table makes it, after some repairs at most.
    async fn is_right(&self, link: &str, rebuild: &RebuildRecord) -> Result<bool> {
        let shadow = &rebuild.other;
        let order = Order { link: shadow.clone(), repair: true, ..Order::default() };
        let mut left = 0;
        for _ in 0..ROUNDS_MAX {
            let verdict = self.verify(&order).await?;
            let counts = verdict.counts;
            self.note_found(link, shadow, counts.differences(), counts.repaired)?;
            left = counts.differences() - self.known_to_both(link, shadow, &verdict);
            if left == 0 {
                return Ok(true);
            }
        }
        let waits_for = format!(
            "{left} documents of the new index differ from the table, and a repair does not mend them: see VERIFY LINK `{shadow}`, and SHOW DEAD LETTERS OF LINK `{shadow}`"
        );
        tracing::error!(link, shadow, left, "the new index is not right");
        self.say(link, VERIFYING, waits_for);
        tokio::time::sleep(AGAIN_AFTER).await;
        Ok(false)
    }

    /// Differences by what both links' indexes have refused: the present index is no better.
    fn known_to_both(&self, link: &str, shadow: &str, verdict: &Verdict) -> u64 {
        let of = |id: &str| self.inner.letters_of(id);
        let (Some(ours), Some(its)) = (of(link), of(shadow)) else { return 0 };
        let is_known = |id: &str| ours.holds(id) && its.holds(id);
        let refused = verdict.differences.iter().filter(|difference| {
            !difference.is_repaired
                && matches!(difference.kind, Kind::Missing | Kind::Different)
                && is_known(&difference.id)
        });
        refused.count() as u64
    }

    fn note_found(&self, link: &str, shadow: &str, found: u64, repaired: u64) -> Result<()> {
        self.inner.change_record(link, |record| {
            if let Some(rebuild) = record.rebuild.as_mut().filter(|one| one.other == shadow) {
                rebuild.differences += found;
                rebuild.repaired += repaired;
            }
        })
    }

    /// The old index streams on until its time is over.
    async fn keep(&self, link: &str, rebuild: &RebuildRecord) -> Result<()> {
        let left_secs = rebuild.kept_until.unwrap_or(0).saturating_sub(unix_seconds());
        if left_secs > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            return Ok(());
        }
        let _one_at_a_time = self.inner.moving.lock().await;
        let is_same = self.inner.rebuild_of(link).is_some_and(|now| now == *rebuild);
        if !is_same {
            return Ok(());
        }
        let (record, _) = self.inner.record_of(link).ok_or_else(|| self.unknown(link))?;
        let named = self.inner.sink.uuid(&record.index).await?;
        if named.is_some_and(|uuid| uuid == rebuild.index_uuid) {
            let (name, index) = (&record.index, &rebuild.index);
            let what = format!("{name} leads to {index} again, which is to be deleted");
            return Err(Error::new(ErrorKind::Unsupported, what).with_advice(format!(
                "REBUILD LINK `{link}` ROLLBACK lets the link follow; or let {name} lead to {} again",
                rebuild.present
            )));
        }
        self.end_rebuild(link, rebuild).await?;
        tracing::info!(link, index = rebuild.index, "the old index is not kept any longer");
        Ok(())
    }

    /// Drops the shadow with its index, and forgets the rebuild.
    pub(super) async fn end_rebuild(&self, link: &str, rebuild: &RebuildRecord) -> Result<()> {
        if self.inner.record_of(&rebuild.other).is_some() {
            self.forget_link(&rebuild.other).await?;
        }
        // One that has the name now and is not ours stays.
        let sink = &self.inner.sink;
        if sink.uuid(&rebuild.index).await?.is_some_and(|uuid| uuid == rebuild.index_uuid) {
            sink.let_go(&rebuild.index, true).await?;
        }
        self.inner.change_record(link, |record| record.rebuild = None)?;
        self.say(link, "", String::new());
        Ok(())
    }
}
