//! The name moves: from the index of a link to that of its shadow, and the links change their roles.
//!
//! 1. The link stops, at its checkpoint P. The shadow goes on until everything up to P is acknowledged to it, and stops too.
//!    Nothing writes to either index now. The shadow's is refreshed.
//! 2. It is stored that the name moves. 3. The name moves. 4. One write to the state gives each link the other's place, and the
//!    links go on from their checkpoints.
//!
//! *Killed before 2*, both links go on as they were, and the rebuild with them. *Killed behind 2*, neither starts before it is
//! known where the name leads: to the new index, then 4 follows; to the old one, then 3 is asked for again, for nothing was
//! written since 1. A request of which no answer came may be carried out any time later; because it is asked for until it is
//! seen, that is no matter. Only where the cluster refuses it, which is an answer, all is as before 2.
//!
//! Going back is the same with the roles exchanged: P is then the place of the new index, and the old one must have passed it.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::link::control::Control;
use crate::link::status::{State, Verification, unix_seconds};
use crate::link::supervisor::{Inner, lock};
use crate::link::verify::asking::Asking;
use crate::naive::{Rule, is_naive};
use crate::position::GtidSet;
use crate::sink::{Moved, Moving};
use crate::state::{CheckpointRecord, LinkRecord, RebuildPhase, RebuildRecord};
use crate::telemetry::metrics::metrics;

/// The link stands still for no longer than this while the shadow comes to its place.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// For so long it is asked at once, before the task of the rebuild goes on asking.
const ASKED_AT_ONCE: u32 = 3;

impl Control {
    /// Moves the name to the shadow's index, if the rebuild is still where the caller thinks.
    pub(super) async fn move_roles(&self, link: &str, phase: RebuildPhase) -> Result<()> {
        let inner = &self.inner;
        let _one_at_a_time = inner.moving.lock().await;
        let (record, _) = inner.record_of(link).ok_or_else(|| self.unknown(link))?;
        let rebuild = record.rebuild.clone().filter(|rebuild| rebuild.phase == phase);
        let Some(rebuild) = rebuild else {
            let what = format!("the rebuild of the link `{link}` is not where it was");
            return Err(Error::new(ErrorKind::Unsupported, what)
                .with_advice("CALL dbms_etl.show_sync_link() says where it is"));
        };
        self.refuse_at_rest(&record, &rebuild)?;
        let held = Held::take(inner, [link, &rebuild.other]);
        let prepared = match self.bring_together(link, &rebuild).await {
            Ok(()) => inner.set_phase(link, RebuildPhase::Moving),
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            drop(held);
            self.start_both(link, &rebuild.other).await;
            return Err(error);
        }
        tracing::info!(link, from = rebuild.present, to = rebuild.index, "the name moves");
        // From here on it stays held until it is known where the name leads.
        held.keep();
        let mut tries = 0;
        loop {
            match self.carry_out(link).await {
                Err(error) if inner.is_moving(link) && tries < ASKED_AT_ONCE => {
                    tries += 1;
                    tracing::warn!(link, error = %error.report(), "the name may have moved or not");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                done => return done,
            }
        }
    }

    /// Ends a move that was begun, in this life or an earlier one.
    pub(super) async fn end_move(&self, link: &str) -> Result<()> {
        let _one_at_a_time = self.inner.moving.lock().await;
        self.carry_out(link).await
    }

    fn refuse_at_rest(&self, record: &LinkRecord, rebuild: &RebuildRecord) -> Result<()> {
        let refused = |id: &str, what: &str| {
            let what = format!("the link `{id}` {what}");
            Err(Error::new(ErrorKind::Unsupported, what)
                .with_advice(format!("let it go on: RESUME LINK `{id}`")))
        };
        let other = &rebuild.other;
        let (_, live) = self.inner.record_of(other).ok_or_else(|| self.unknown(other))?;
        if record.state == State::Paused.as_str() {
            return refused(&record.id, "is paused");
        }
        match live.phase() {
            State::Paused => refused(other, "is paused"),
            State::Failed => refused(other, &format!("has failed: {}", live.reason())),
            _ => Ok(()),
        }
    }

    /// Stops both links where the shadow has passed everything that the link has.
    async fn bring_together(&self, link: &str, rebuild: &RebuildRecord) -> Result<()> {
        let inner = &self.inner;
        let shadow = &rebuild.other;
        if !inner.stop_worker(link).await {
            // Nobody knows what of its last writes a search has found.
            let what = format!("the link `{link}` did not stop in time; the name moves later");
            return Err(Error::new(ErrorKind::SourceUnreachable, what));
        }
        let at = inner.checkpoint_of(link)?;
        if !is_naive(Rule::Rebuild) {
            // It may never have begun.
            let passed = at.map(|at| at.checkpoint.position.gtids).unwrap_or_default();
            self.until_passed(shadow, &passed).await?;
        }
        inner.stop_worker(shadow).await;
        let stands = inner.checkpoint_of(shadow)?.filter(|at| at.index_uuid == rebuild.index_uuid);
        if stands.is_none() {
            let what = format!("the link `{shadow}` has not filled the index {}", rebuild.index);
            return Err(Error::new(ErrorKind::SourceUnreachable, what));
        }
        if is_naive(Rule::Rebuild) {
            return Ok(());
        }
        inner.sink.refresh(&rebuild.index).await
    }

    async fn until_passed(&self, shadow: &str, passed: &GtidSet) -> Result<()> {
        let (_, live) = self.inner.record_of(shadow).ok_or_else(|| self.unknown(shadow))?;
        let settling = async {
            let asking = Asking::begin(self, shadow, &live).await?;
            asking.settle(passed.clone(), &live, &mut Verification::default()).await
        };
        let settled = tokio::time::timeout(SETTLES_WITHIN, settling).await;
        live.show_verification(None);
        settled.unwrap_or_else(|_| {
            let secs = SETTLES_WITHIN.as_secs();
            let what =
                format!("the link `{shadow}` is more than {secs} s behind; the name moves later");
            Err(Error::new(ErrorKind::SourceUnreachable, what))
        })
    }

    /// Asks where the name leads, and does what is left to do.
    async fn carry_out(&self, link: &str) -> Result<()> {
        let inner = &self.inner;
        let (record, _) = inner.record_of(link).ok_or_else(|| self.unknown(link))?;
        let Some(rebuild) =
            record.rebuild.clone().filter(|rebuild| rebuild.phase == RebuildPhase::Moving)
        else {
            return Ok(());
        };
        let leads_to = inner.sink.uuid(&record.index).await?;
        if leads_to.as_ref() == Some(&rebuild.index_uuid) {
            inner.change_roles(&record, &rebuild)?;
            self.let_go_of(link, &rebuild.other).await;
            tracing::info!(link, index = rebuild.index, "the name has moved");
            return Ok(());
        }
        if leads_to.as_ref() != Some(&rebuild.present_uuid) {
            let (name, present, new) = (&record.index, &rebuild.present, &rebuild.index);
            let what = format!("{name} leads neither to {present} nor to {new}");
            return Err(Error::new(ErrorKind::SinkBlocked, what).with_advice(format!(
                "let it lead to one of them; the link `{link}` goes on then"
            )));
        }
        if inner.sink.uuid(&rebuild.index).await?.as_ref() != Some(&rebuild.index_uuid) {
            inner.set_phase(link, rebuild.phase_before())?;
            self.let_go_of(link, &rebuild.other).await;
            let what =
                format!("the index {} is gone, to which the name was to move", rebuild.index);
            return Err(Error::new(ErrorKind::SinkBlocked, what)
                .with_advice(format!("REBUILD LINK `{link}` CANCEL, and begin another one")));
        }
        let moving = Moving {
            from: rebuild.present.clone(),
            to: rebuild.index.clone(),
            replaces: rebuild.replaces,
        };
        match inner.sink.move_names(&moving).await? {
            // It is asked once more where the name leads.
            Moved::Done => Box::pin(self.carry_out(link)).await,
            Moved::Refused(error) => {
                inner.set_phase(link, rebuild.phase_before())?;
                self.let_go_of(link, &rebuild.other).await;
                Err(error)
            }
        }
    }

    /// Both links may go on.
    async fn let_go_of(&self, link: &str, shadow: &str) {
        let kept = self.inner.rebuild_of(link).map(|rebuild| rebuild.other);
        let ids = [Some(link.to_owned()), Some(shadow.to_owned()), kept];
        lock(&self.inner.held).retain(|held| !ids.iter().flatten().any(|id| id == held));
        for id in ids.iter().flatten() {
            self.start_unless_at_rest(id).await;
        }
    }

    async fn start_both(&self, link: &str, shadow: &str) {
        self.start_unless_at_rest(link).await;
        self.start_unless_at_rest(shadow).await;
    }

    async fn start_unless_at_rest(&self, id: &str) {
        let Some((_, live)) = self.inner.record_of(id) else { return };
        if !live.phase().is_at_rest() {
            self.inner.start_worker(id).await;
        }
    }
}

impl RebuildRecord {
    fn phase_before(&self) -> RebuildPhase {
        match self.kept_until {
            Some(_) => RebuildPhase::Kept,
            None => RebuildPhase::Filling,
        }
    }
}

/// Links that nobody starts until this is dropped.
struct Held<'i> {
    inner: &'i Inner,
    ids: Vec<String>,
}

impl<'i> Held<'i> {
    fn take(inner: &'i Inner, ids: [&str; 2]) -> Self {
        let ids: Vec<_> = ids.map(str::to_owned).into();
        lock(&inner.held).extend(ids.iter().cloned());
        Self { inner, ids }
    }

    /// They stay held.
    fn keep(mut self) {
        self.ids.clear();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        lock(&self.inner.held).retain(|held| !self.ids.contains(held));
    }
}

impl Inner {
    /// Links whose names were moving when an earlier life ended.
    pub(in crate::link) fn hold_moving(&self) {
        let links = lock(&self.links);
        let moving = links.values().filter_map(|entry| {
            let rebuild = entry.record.rebuild.as_ref()?;
            (rebuild.phase == RebuildPhase::Moving)
                .then(|| [entry.record.id.clone(), rebuild.other.clone()])
        });
        lock(&self.held).extend(moving.flatten());
    }

    fn is_moving(&self, link: &str) -> bool {
        self.rebuild_of(link).is_some_and(|rebuild| rebuild.phase == RebuildPhase::Moving)
    }

    fn checkpoint_of(&self, link: &str) -> Result<Option<CheckpointRecord>> {
        self.parts.state.checkpoints().get(link)
    }

    fn set_phase(&self, link: &str, phase: RebuildPhase) -> Result<()> {
        self.change_record(link, |record| {
            if let Some(rebuild) = &mut record.rebuild {
                rebuild.phase = phase;
            }
        })
    }

    /// The link goes on with what the shadow has, and the other way round.
    fn change_roles(&self, link: &LinkRecord, rebuild: &RebuildRecord) -> Result<()> {
        let other = &rebuild.other;
        let (shadow, _) = self
            .record_of(other)
            .ok_or_else(|| Error::new(ErrorKind::State, format!("there is no link `{other}`")))?;
        let kept_id = format!("{}~{}", link.id, link.generation.max(1));
        let now = unix_seconds();
        let kept = LinkRecord {
            id: kept_id.clone(),
            origin: shadow.origin.clone(),
            index: rebuild.present.clone(),
            verify_every_secs: Some(0),
            rebuild: None,
            shadow_of: Some(link.id.clone()),
            updated_at: now,
            ..link.clone()
        };
        let kept = (!rebuild.replaces).then_some(kept);
        let turned = RebuildRecord {
            phase: RebuildPhase::Kept,
            other: kept_id,
            index: rebuild.present.clone(),
            index_uuid: rebuild.present_uuid.clone(),
            present: rebuild.index.clone(),
            present_uuid: rebuild.index_uuid.clone(),
            kept_until: rebuild.kept_until.or(Some(now.saturating_add(rebuild.keep_old_secs))),
            ..rebuild.clone()
        };
        let gone_on = LinkRecord {
            id: link.id.clone(),
            origin: link.origin.clone(),
            index: link.index.clone(),
            created_at: link.created_at,
            updated_at: now,
            verify_every_secs: link.verify_every_secs,
            verify_repair: link.verify_repair,
            rebuild: kept.is_some().then_some(turned),
            shadow_of: None,
            ..shadow
        };
        self.parts.state.links().exchange(&gone_on, other, kept.as_ref())?;
        self.remember_exchanged(gone_on, other, kept)
    }

    fn remember_exchanged(
        &self,
        link: LinkRecord,
        shadow: &str,
        kept: Option<LinkRecord>,
    ) -> Result<()> {
        // Who still asks them shall not wait for their workers.
        for id in [link.id.as_str(), shadow] {
            if let Some((_, live)) = self.record_of(id) {
                live.fail("its index was rebuilt just now; ask again".to_owned());
            }
        }
        for record in [Some(link), kept].into_iter().flatten() {
            let phase =
                [State::Paused, State::Failed].into_iter().find(|p| p.as_str() == record.state);
            let (id, reason) = (record.id.clone(), record.reason.clone());
            // Not scheduled, for a probe would take the daemon for one that is not ready.
            self.remember(record, phase.unwrap_or(State::CatchingUp))?;
            if phase == Some(State::Failed)
                && let Some((_, live)) = self.record_of(&id)
            {
                live.fail(reason);
            }
        }
        lock(&self.links).remove(shadow);
        metrics().forget_link(shadow);
        Ok(())
    }
}
