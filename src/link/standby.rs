//! Several daemons of one name, of which one leads: it waits for the lease, takes up the state that it finds, runs the
//! links, and stops when the lease is somebody else's. Wires only: `lease` has the argument why one writes, `kept` why what
//! it goes on from is right.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::error::{Error, ErrorKind, Result};
use crate::link::Spec;
use crate::link::control::Control;
use crate::link::kept::{self, Keeper, Kept};
use crate::link::lease::{self, Holder, Lease, Length, Seen, uptime};
use crate::link::status::Status;
use crate::link::supervisor::{Parts, Supervisor, lock};
use crate::sink;
use crate::sink::notes::{Notes, Place};
use crate::state::{PairRecord, SourceRecord, State};
use crate::telemetry::metrics::metrics;

/// Which daemons stand in for each other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What they have in common; None: this daemon is alone.
    pub name: Option<String>,
    /// How long one that says nothing is waited for.
    pub lease_secs: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { name: None, lease_secs: 10 }
    }
}

/// What a daemon waits for that does not lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The host of the one that leads, as far as it is known.
    pub leader: Option<String>,
    /// Why it could not take over, if it could not.
    pub trouble: Option<String>,
}

/// Where the one sits who answers for the links: the control of now. Clones are the same seat.
#[derive(Clone)]
pub struct Seat {
    now: Arc<watch::Sender<Control>>,
    stop: Arc<watch::Sender<bool>>,
    keeping: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Seat {
    /// Takes up the links at once, or, where the daemon has a name, when it leads.
    pub fn take(parts: Parts, declared: Vec<Spec>) -> Result<Self> {
        let stop = Arc::new(watch::Sender::new(false));
        let Some(name) = parts.standby.name.clone() else {
            metrics().leader.set(1);
            let now = Arc::new(watch::Sender::new(Supervisor::start(parts, declared)?));
            return Ok(Self { now, stop, keeping: Arc::default() });
        };
        let length = Length(Duration::from_secs(parts.standby.lease_secs.max(1)));
        let notes = sink::notes(&parts.sink, length.request_timeout())?;
        let pair = parts.state.pair()?;
        let is_stranger =
            pair.as_ref().is_none_or(|pair| pair.name != name) && parts.state.is_in_use()?;
        let pair = pair.filter(|pair| pair.name == name).unwrap_or_else(|| PairRecord {
            name,
            id: uuid::Uuid::new_v4().to_string(),
            stamp: 0,
        });
        let control = Supervisor::stand_by(parts.clone())?;
        let now = Arc::new(watch::Sender::new(control));
        let member = Member {
            parts,
            declared,
            notes,
            length,
            pair,
            is_stranger,
            run: uuid::Uuid::new_v4().to_string(),
            host: host(),
            is_first: true,
            now: now.clone(),
            stop: stop.subscribe(),
        };
        let keeping = Arc::new(Mutex::new(Some(tokio::spawn(member.live()))));
        Ok(Self { now, stop, keeping })
    }

    pub fn control(&self) -> Control {
        self.now.borrow().clone()
    }

    /// Stops all links at a clean checkpoint, and gives the lease back.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let keeping = lock(&self.keeping).take();
        match keeping {
            Some(keeping) => drop(keeping.await),
            None => self.control().shutdown().await,
        }
    }
}

/// As people know this machine; a pod's name where it is one.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let told = told.trim();
    if told.is_empty() { "a host without a name".to_owned() } else { told.to_owned() }
}

/// One of the daemons of a name.
struct Member {
    parts: Parts,
    declared: Vec<Spec>,
    notes: Arc<dyn Notes>,
    length: Length,
    pair: PairRecord,
    /// The directory has a state that was never part of this name's.
    is_stranger: bool,
    run: String,
    host: String,
    /// It has not looked at the lease yet. Only one process has the directory, so whoever had it before is gone.
    is_first: bool,
    now: Arc<watch::Sender<Control>>,
    stop: watch::Receiver<bool>,
}

/// What was shown of the one that leads.
struct Shown {
    leader: String,
    at: Duration,
    /// Why its state could not be taken up.
    trouble: Option<String>,
}

/// What is shown of the leader's links is no older.
const SHOWN_FOR: Duration = Duration::from_secs(10);

/// The lease was taken.
struct Taken {
    lease: Arc<Lease>,
    /// The epoch that stands in it.
    source: Option<SourceRecord>,
    /// To be put in the place of the disk's state.
    kept: Option<Kept>,
}

impl Member {
    async fn live(mut self) {
        loop {
            metrics().leader.set(0);
            metrics().copy_age_ms.set(-1);
            let taken = tokio::select! {
                biased;
                () = asked(self.stop.clone()) => return,
                taken = self.stand_by() => taken,
            };
            let lease = taken.lease.clone();
            // It ends with this turn, however that ends.
            let mut keeping = JoinSet::new();
            keeping.spawn({
                let lease = lease.clone();
                async move { lease.keep().await }
            });
            let led = self.lead(taken).await;
            keeping.shutdown().await;
            if let Err(error) = &led {
                tracing::error!(error = %error.report(), "cannot lead");
                self.show(Waiting { leader: None, trouble: Some(error.report()) });
                // Another one may be able to. This one tries again, but does not stand in the others' way.
                let _ = lease.release().await;
                tokio::select! {
                    () = asked(self.stop.clone()) => return,
                    () = tokio::time::sleep(self.length.0) => {}
                }
            }
            if *self.stop.borrow() {
                return;
            }
        }
    }

    /// Waits until the lease is ours.
    async fn stand_by(&mut self) -> Taken {
        match Supervisor::stand_by(self.parts.clone()) {
            Ok(control) => drop(self.now.send_replace(control)),
            Err(error) => tracing::error!(error = %error.report(), "cannot show that it stands by"),
        }
        tracing::info!(name = self.pair.name, host = self.host, "stands by");
        let (mut seen, mut is_index_there) = (Seen::default(), false);
        let mut shown = None;
        loop {
            let mut pause = self.length.looked_at_every();
            match self.look(&mut seen, &mut is_index_there, &mut shown).await {
                Ok(Some(taken)) => return taken,
                Ok(None) => pause = pause.min(seen.runs_out_in(self.length, uptime())),
                Err(error) => self.show(Waiting { leader: None, trouble: Some(error.report()) }),
            }
            tokio::time::sleep(pause.max(Duration::from_millis(50))).await;
        }
    }

    /// Looks at the lease, and takes it if it is to be had.
    async fn look(
        &mut self,
        seen: &mut Seen,
        is_index_there: &mut bool,
        shown: &mut Option<Shown>,
    ) -> Result<Option<Taken>> {
        if !*is_index_there {
            self.notes.prepare().await?;
            *is_index_there = true;
        }
        let found = lease::look(self.notes.as_ref(), &self.pair.name).await?;
        seen.see(found.as_ref().map(|(_, place)| *place), uptime());
        let is_first = std::mem::replace(&mut self.is_first, false);
        let is_free = match &found {
            None => {
                // Deleted, or never made.
                *is_index_there = false;
                false
            }
            Some((holder, _)) => {
                let is_own = holder.run == self.run || (is_first && holder.state == self.pair.id);
                holder.is_released || is_own
            }
        };
        let waits = !is_free && seen.runs_out_in(self.length, uptime()) > Duration::ZERO;
        if let Some((holder, _)) = &found {
            self.refuse_stranger(holder)?;
            let is_current =
                |shown: &Shown| shown.leader == holder.host && uptime() < shown.at + SHOWN_FOR;
            if !shown.as_ref().is_some_and(is_current) {
                let trouble = self.show_links(&holder.host).await.err();
                let trouble = trouble.map(|error| error.report());
                *shown = Some(Shown { leader: holder.host.clone(), at: uptime(), trouble });
            }
            // Else what keeps it from leading stays to be seen until it leads.
            if waits {
                let trouble = shown.as_ref().and_then(|shown| shown.trouble.clone());
                self.show(Waiting { leader: Some(holder.host.clone()), trouble });
            }
        }
        if waits {
            return Ok(None);
        }
        self.take(found).await
    }

    /// A state that has grown elsewhere is not to be lost because somebody has written the wrong name.
    fn refuse_stranger(&self, holder: &Holder) -> Result<()> {
        if !self.is_stranger || holder.state == self.pair.id {
            return Ok(());
        }
        let what = format!(
            "the state directory has links of its own, and `{}` is another daemon's, led last on {}",
            self.pair.name, holder.host
        );
        Err(Error::new(ErrorKind::State, what).with_advice(
            "give this daemon an empty state directory to have it stand by, or another standby.name",
        ))
    }

    /// Another daemon has led, and its copy was never whole: who began with nothing would lose what that one knows.
    fn refuse_without_copy(&self, holder: Option<&Holder>) -> Result<()> {
        let is_elsewhere =
            |holder: &&Holder| holder.state != self.pair.id && holder.epoch.is_some();
        let Some(holder) = holder.filter(is_elsewhere).filter(|_| self.pair.stamp == 0) else {
            return Ok(());
        };
        let (name, host) = (&self.pair.name, &holder.host);
        let what = format!(
            "`{name}` was led on {host}, and nothing of its state is in the index .driftless"
        );
        Err(Error::new(ErrorKind::State, what).with_advice(format!(
            "start the daemon on {host} again; or, if that is lost, delete the index .driftless, and the links begin anew"
        )))
    }

    async fn take(&mut self, found: Option<(Holder, Place)>) -> Result<Option<Taken>> {
        let kept = kept::read(self.notes.as_ref(), &self.pair.name).await?;
        if kept.is_none() {
            self.refuse_without_copy(found.as_ref().map(|(holder, _)| holder))?;
        }
        let newest_term = kept.as_ref().map_or(0, |kept| kept.stamp >> 32);
        let is_last = found.as_ref().is_none_or(|(holder, _)| holder.state == self.pair.id);
        let kept = kept.filter(|kept| !(is_last && self.pair.stamp >= kept.stamp));
        if let Some(kept) = &kept {
            if self.is_stranger {
                let what = format!(
                    "the state directory has links of its own, and the index .driftless has other links of `{}`",
                    self.pair.name
                );
                return Err(Error::new(ErrorKind::State, what).with_advice(
                    "give this daemon an empty state directory to have it go on with those, or another standby.name",
                ));
            }
            self.parts.state.check_seals(&kept.pages.shared)?;
        }
        let place = found.as_ref().map(|(_, place)| *place);
        let before = found.map(|(holder, _)| holder);
        let source = source_of(&self.parts.state, before.as_ref(), kept.is_some())?;
        let holder = Holder {
            run: self.run.clone(),
            state: self.pair.id.clone(),
            host: self.host.clone(),
            term: before.map_or(0, |holder| holder.term).max(newest_term) + 1,
            is_released: false,
            epoch: source.clone().map(Into::into),
        };
        let state = self.parts.state.new_term();
        let name = (self.pair.name.as_str(), self.length);
        let lease = Lease::take(self.notes.clone(), name, state, holder, place).await?;
        Ok(lease.map(|lease| Taken { lease: Arc::new(lease), source, kept }))
    }

    /// Runs the links until the lease is lost, or everything is to end.
    async fn lead(&mut self, taken: Taken) -> Result<()> {
        let Taken { lease, source, kept } = taken;
        let from_copy = kept.is_some();
        tracing::info!(
            name = self.pair.name,
            host = self.host,
            term = lease.term,
            from_copy,
            "leads"
        );
        let state = lease.state().clone();
        take_up(state.clone(), source, kept).await?;
        self.is_stranger = false;
        state.put_pair(&self.pair)?;
        let parts = Parts { state: state.clone(), ..self.parts.clone() };
        let control = Supervisor::lead(parts, self.declared.clone(), lease.clone())?;
        self.now.send_replace(control.clone());
        metrics().leader.set(1);
        let (notes, pair) = (self.notes.clone(), self.pair.clone());
        let mut keeper = Keeper::new(notes, lease.clone(), state.clone(), pair, self.host.clone());
        let is_stopped = tokio::select! {
            biased;
            () = asked(self.stop.clone()) => true,
            () = lease.is_lost() => false,
            () = keep_copy(&mut keeper) => false,
        };
        if is_stopped {
            control.shutdown().await;
            // What was written since the last round; a round that was broken off is made again.
            let last = async {
                keeper.copy().await?;
                lease.release().await
            };
            let in_time = tokio::time::timeout(self.length.request_timeout(), last).await;
            if !matches!(in_time, Ok(Ok(()))) {
                tracing::warn!("the lease is not given back; others wait until it has run out");
            }
            return Ok(());
        }
        state.end_term();
        metrics().leader.set(0);
        control.abandon().await;
        self.pair = self.parts.state.pair()?.unwrap_or_else(|| self.pair.clone());
        Ok(())
    }

    fn show(&self, waiting: Waiting) {
        let control = self.now.borrow().clone();
        let before = control.waiting();
        if before.as_ref() == Some(&waiting) {
            return;
        }
        match &waiting {
            Waiting { trouble: Some(trouble), .. } => {
                tracing::warn!(name = self.pair.name, reason = trouble, "cannot stand in");
            }
            Waiting { leader: Some(leader), .. } => {
                tracing::info!(name = self.pair.name, leader, "another daemon leads");
            }
            Waiting { .. } => {}
        }
        control.show_waiting(waiting);
    }

    /// What the leader has, as of the copy; a copy that could not be taken up is known before it is needed.
    async fn show_links(&self, leader: &str) -> Result<()> {
        let Some(kept) = kept::read(self.notes.as_ref(), &self.pair.name).await? else {
            return Ok(());
        };
        let mut statuses = Vec::new();
        for page in kept.pages.links.values() {
            if let Some(record) = page.link()? {
                statuses.push(Status::standing_by(&record, leader));
            }
        }
        self.now.borrow().show_elsewhere(statuses);
        self.parts.state.check_seals(&kept.pages.shared)
    }
}

async fn asked(mut stop: watch::Receiver<bool>) {
    // An error says that nobody is left to ask for it, which means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn keep_copy(keeper: &mut Keeper) {
    let mut is_behind = false;
    loop {
        match keeper.copy().await {
            Ok(()) if std::mem::take(&mut is_behind) => {
                tracing::info!("the copy of the state is up to date again");
            }
            Ok(()) => {}
            Err(error) if is_behind => {
                tracing::debug!(error = %error.report(), "the copy of the state is behind");
            }
            Err(error) => {
                tracing::warn!(error = %error.report(), "the copy of the state is behind");
                is_behind = true;
            }
        }
        tokio::time::sleep(kept::EVERY).await;
    }
}

/// The epoch to go on in: that of the lease where the links come from the copy, else the disk's; and in both cases nothing
/// below what was granted.
fn source_of(
    state: &State,
    before: Option<&Holder>,
    from_copy: bool,
) -> Result<Option<SourceRecord>> {
    let leased = before.and_then(|holder| holder.epoch.clone()).map(SourceRecord::from);
    let own = state.source().get()?;
    let granted = leased.as_ref().map_or(0, |leased| leased.highest_version);
    let own_highest = own.as_ref().map_or(0, |own| own.highest_version);
    let base = if from_copy { leased } else { own.or(leased) };
    Ok(base.map(|base| SourceRecord {
        highest_version: base.highest_version.max(granted).max(own_highest),
        ..base
    }))
}

/// Makes the state what the links go on from.
async fn take_up(state: State, source: Option<SourceRecord>, kept: Option<Kept>) -> Result<()> {
    let taking = tokio::task::spawn_blocking(move || match (kept, source) {
        (Some(kept), source) => state.replace(&kept.pages, source.as_ref()),
        (None, Some(source)) => state.source().put(&source, true),
        (None, None) => Ok(()),
    });
    taking.await.map_err(|cause| {
        Error::new(ErrorKind::Stopped, "the state is not taken up any more").caused_by(cause)
    })?
}
