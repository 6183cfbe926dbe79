//! Who may write: one document in the cluster that is written to, which names the holder and holds the epoch. Must not know
//! what is written, nor what is copied beside it.
//!
//! *One at a time.* The document is changed only under the condition that it is as it was seen (`if_seq_no`), so of several
//! who want it one gets it. The holder counts its lease from the moment at which it *sent* the last renewal that was done, and
//! holds itself to nine tenths of it. Another one takes the lease when the document has not changed for the whole length
//! since it *saw* it as it is. It saw it after the renewal was sent; so, if clocks run about equally fast, the holder has
//! stopped sending by then, and the last request it sent has run out. No two clocks are compared. The clock is the one that
//! counts the time a machine sleeps.
//!
//! *What no clock can prevent.* A process can be stopped between the look at the clock and the request, and go on minutes
//! later. What it then writes was worked out under the same epoch and from the same log, so it carries the same versions
//! as what the new holder writes, and the index refuses it where it has newer ones. It looks at its clock before the next
//! request, and sends no other. Copies of the state are refused by their own versions, which begin with the term.
//!
//! *The epoch* is in the document before it is used, and so is the highest version that may be given out: each renewal
//! grants versions ahead of those that were given out. The next holder goes on in that epoch; where it must begin another
//! one, it begins above all that was granted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::link::status::unix_millis;
use crate::link::supervisor::lock;
use crate::naive::{Rule, is_naive};
use crate::sink::Permit;
use crate::sink::notes::{Notes, Place, When, Written};
use crate::state::{SourceRecord, State};

/// Versions that a renewal grants beyond those that were given out: 6 GiB of log, far more than is read between two
/// renewals.
const GRANTED_AHEAD: u64 = 3 << 32;

/// How long a lease is, and all that follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length(pub Duration);

impl Length {
    /// When a lease ends for its holder that was asked for at `sent_at`: earlier than for others, because clocks do not run
    /// equally fast.
    fn ends_at(self, sent_at: Duration) -> Duration {
        sent_at + self.0 * 9 / 10
    }

    /// What a request may take that is sent at `now`. One that would be cut off soon is better sent behind the next
    /// renewal.
    fn time_left(self, ends_at: Duration, now: Duration) -> Option<Duration> {
        let left = ends_at.saturating_sub(now);
        (left >= self.0 / 5).then_some(left)
    }

    pub fn renewed_every(self) -> Duration {
        self.0 / 3
    }

    /// How often those look who wait for it.
    pub fn looked_at_every(self) -> Duration {
        (self.0 / 20).min(Duration::from_secs(1))
    }

    /// No single request about the lease takes longer.
    pub fn request_timeout(self) -> Duration {
        self.0 / 5
    }
}

/// What somebody who waits has seen of the lease.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What it was when it was looked at last (None: not there), and when it was first seen so.
    last: Option<(Option<Place>, Duration)>,
}

impl Seen {
    pub fn see(&mut self, place: Option<Place>, now: Duration) {
        if self.last.is_none_or(|(last, _)| last != place) {
            self.last = Some((place, now));
        }
    }

    /// How long it must stay as it is until it has run out.
    pub fn runs_out_in(&self, length: Length, now: Duration) -> Duration {
        let since = self.last.map_or(now, |(_, since)| since);
        (since + length.0).saturating_sub(now)
    }
}

/// The time since the machine was started, also while it slept.
pub(super) fn uptime() -> Duration {
    // The kernel fills this file from CLOCK_BOOTTIME; the clock itself cannot be asked without unsafe code.
    let told = std::fs::read_to_string("/proc/uptime").ok();
    let seconds = told.as_deref().and_then(|told| told.split(' ').next()?.parse().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_else(awake)
}

/// Where there is no such file. It stands still while the machine sleeps.
fn awake() -> Duration {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// What stands in the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// The process, drawn when it was started.
    pub run: String,
    /// Its state directory.
    pub state: String,
    /// For people.
    pub host: String,
    /// Grows whenever it changes hands.
    pub term: u64,
    /// Given back, so nobody need wait.
    pub is_released: bool,
    /// The epoch, and the highest version that the holder may give out.
    pub epoch: Option<Epoch>,
}

/// [`SourceRecord`] as it stands in the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Epoch {
    pub server_uuid: String,
    pub epoch: u64,
    pub highest_version: u64,
}

impl From<SourceRecord> for Epoch {
    fn from(SourceRecord { server_uuid, epoch, highest_version }: SourceRecord) -> Self {
        Self { server_uuid, epoch, highest_version }
    }
}

impl From<Epoch> for SourceRecord {
    fn from(Epoch { server_uuid, epoch, highest_version }: Epoch) -> Self {
        Self { server_uuid, epoch, highest_version }
    }
}

impl Holder {
    fn body(&self, name: &str) -> Value {
        let payload = serde_json::to_vec(self).expect("strings and numbers are JSON");
        json!({
            "name": name, "kind": "lease", "host": self.host, "term": self.term,
            "at": unix_millis(), "payload": BASE64.encode(payload),
        })
    }

    fn read(body: &Value) -> Result<Self> {
        let payload = body["payload"].as_str().and_then(|text| BASE64.decode(text).ok());
        payload.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(|| {
            Error::new(ErrorKind::SinkBlocked, "the lease in the index .driftless cannot be read")
                .with_advice("see that all daemons of this name are of one version")
        })
    }
}

pub(super) fn id_of(name: &str) -> String {
    format!("lease:{name}")
}

/// The document as it is now.
pub(super) async fn look(notes: &dyn Notes, name: &str) -> Result<Option<(Holder, Place)>> {
    let mut found = notes.read(&[id_of(name)]).await?;
    let Some(note) = found.pop().flatten() else { return Ok(None) };
    Ok(Some((Holder::read(&note.body)?, note.place)))
}

/// A lease that is held, or was.
pub(super) struct Lease {
    notes: Arc<dyn Notes>,
    name: String,
    length: Length,
    /// What only this term writes to.
    state: State,
    held: tokio::sync::Mutex<Held>,
    fence: Fence,
    /// Versions up to this one may be given out.
    granted: AtomicU64,
    /// Set when the lease is somebody else's.
    lost: watch::Sender<bool>,
    /// The index was made anew, so the copy is gone.
    pub has_lost_copy: AtomicBool,
    pub term: u64,
}

struct Held {
    holder: Holder,
    place: Place,
}

/// Lets requests through while the lease is held.
struct Fence {
    name: String,
    length: Length,
    ends_at: Mutex<Duration>,
}

impl Lease {
    /// Takes the lease that was `found`; None where somebody else was faster.
    pub async fn take(
        notes: Arc<dyn Notes>,
        (name, length): (&str, Length),
        state: State,
        holder: Holder,
        found: Option<Place>,
    ) -> Result<Option<Self>> {
        let sent_at = uptime();
        let when = found.map_or(When::Absent, When::At);
        let place = match notes.write(&id_of(name), &holder.body(name), when).await? {
            Written::Done(place) => place,
            Written::Conflict | Written::NoIndex => return Ok(None),
        };
        let granted = holder.epoch.as_ref().map_or(0, |epoch| epoch.highest_version);
        let term = holder.term;
        let fence =
            Fence { name: name.to_owned(), length, ends_at: Mutex::new(length.ends_at(sent_at)) };
        Ok(Some(Self {
            notes,
            name: name.to_owned(),
            length,
            state,
            held: tokio::sync::Mutex::new(Held { holder, place }),
            fence,
            granted: AtomicU64::new(granted),
            lost: watch::Sender::new(false),
            has_lost_copy: AtomicBool::new(false),
            term,
        }))
    }

    /// Renews until the lease is somebody else's.
    pub async fn keep(&self) {
        let mut wait = Duration::ZERO;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.renew(None).await {
                Ok(()) => self.length.renewed_every(),
                Err(error) if error.kind() == ErrorKind::Stopped => {
                    tracing::warn!(name = self.name, reason = %error.report(), "leads no longer");
                    self.lost.send_replace(true);
                    return;
                }
                Err(error) => {
                    tracing::warn!(name = self.name, error = %error.report(), "cannot renew the lease yet");
                    self.length.looked_at_every()
                }
            };
        }
    }

    /// Resolves when the lease is somebody else's.
    pub async fn is_lost(&self) {
        // The sender is ours.
        let _ = self.lost.subscribe().wait_for(|lost| *lost).await;
    }

    /// Puts a new epoch into the lease; it may be used when this returns.
    pub async fn begin_epoch(&self, epoch: &SourceRecord) -> Result<()> {
        self.renew(Some(epoch.clone().into())).await
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn granted(&self) -> u64 {
        self.granted.load(Ordering::Acquire)
    }

    async fn renew(&self, begins: Option<Epoch>) -> Result<()> {
        let mut held = self.held.lock().await;
        let mut next = held.holder.clone();
        next.epoch = begins.or(next.epoch);
        if let Some(epoch) = &mut next.epoch {
            let given = self.state.source().get()?.map_or(0, |record| record.highest_version);
            let given = given.max(epoch.epoch);
            epoch.highest_version = epoch.highest_version.max(given + GRANTED_AHEAD);
        }
        // Twice, because a renewal whose answer was lost may have been done.
        for _ in 0..2 {
            let sent_at = uptime();
            let body = next.body(&self.name);
            match self.notes.write(&id_of(&self.name), &body, When::At(held.place)).await? {
                Written::Done(place) => {
                    self.take_in(&mut held, next, place, sent_at);
                    return Ok(());
                }
                Written::NoIndex => return self.begin_anew(&mut held, next).await,
                Written::Conflict => match look(self.notes.as_ref(), &self.name).await? {
                    Some((holder, place)) if holder.run == held.holder.run => held.place = place,
                    Some((holder, _)) => return Err(taken(&self.name, &holder.host)),
                    None => return self.begin_anew(&mut held, next).await,
                },
            }
        }
        Err(Error::new(ErrorKind::SinkBusy, "the lease changes while it is renewed"))
    }

    /// Somebody has deleted the index. While the lease lasts nobody else has one, so it may be made again.
    async fn begin_anew(&self, held: &mut Held, next: Holder) -> Result<()> {
        if self.fence.ends_at() <= uptime() {
            return Err(taken(&self.name, "nobody that is known: the index was deleted"));
        }
        tracing::warn!(name = self.name, "the index .driftless was deleted; it is made again");
        self.notes.prepare().await?;
        let sent_at = uptime();
        match self.notes.write(&id_of(&self.name), &next.body(&self.name), When::Absent).await? {
            Written::Done(place) => {
                self.has_lost_copy.store(true, Ordering::Release);
                self.take_in(held, next, place, sent_at);
                Ok(())
            }
            // The next renewal finds out whose it is.
            Written::Conflict | Written::NoIndex => {
                Err(Error::new(ErrorKind::SinkBusy, "the index .driftless is being made"))
            }
        }
    }

    fn take_in(&self, held: &mut Held, holder: Holder, place: Place, sent_at: Duration) {
        if let Some(epoch) = &holder.epoch {
            self.granted.fetch_max(epoch.highest_version, Ordering::AcqRel);
        }
        *held = Held { holder, place };
        *lock(&self.fence.ends_at) = self.length.ends_at(sent_at);
    }

    /// Gives the lease back. Nothing may be written any more.
    pub async fn release(&self) -> Result<()> {
        let mut held = self.held.lock().await;
        *lock(&self.fence.ends_at) = Duration::ZERO;
        held.holder.is_released = true;
        let body = held.holder.body(&self.name);
        self.notes.write(&id_of(&self.name), &body, When::At(held.place)).await.map(|_| ())
    }
}

impl Permit for Lease {
    fn time_left(&self) -> Result<Duration> {
        self.fence.time_left(uptime())
    }
}

impl Fence {
    fn ends_at(&self) -> Duration {
        *lock(&self.ends_at)
    }

    fn time_left(&self, now: Duration) -> Result<Duration> {
        if is_naive(Rule::Lease) {
            return Ok(Duration::from_secs(3_600));
        }
        self.length.time_left(self.ends_at(), now).ok_or_else(|| {
            let what = format!(
                "the lease of `{}` has run out, so nothing is written until it is renewed",
                self.name
            );
            Error::new(ErrorKind::SinkBusy, what)
        })
    }
}

fn taken(name: &str, by: &str) -> Error {
    Error::new(ErrorKind::Stopped, format!("the lease of `{name}` is held by {by}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Length = Length(Duration::from_secs(10));

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn place(seq_no: u64) -> Option<Place> {
        Some(Place { seq_no, primary_term: 1 })
    }

    #[test]
    fn a_request_ends_before_the_lease_does_as_others_count_it() {
        // Sent at 100, seen by the other at 100.0 at the earliest, taken at 110 at the earliest.
        let ends_at = LENGTH.ends_at(at(100.0));
        let mut seen = Seen::default();
        seen.see(place(1), at(100.0));
        for tenth in 0..200 {
            let now = at(100.0 + f64::from(tenth) / 10.0);
            let Some(left) = LENGTH.time_left(ends_at, now) else {
                assert!(now >= at(107.0), "a request is refused at {now:?}");
                continue;
            };
            assert!(left >= at(2.0), "{left:?}");
            assert!(now + left < now + seen.runs_out_in(LENGTH, now), "sent at {now:?}");
        }
        assert_eq!(LENGTH.time_left(ends_at, at(107.1)), None);
        assert_eq!(LENGTH.time_left(ends_at, at(5_000.0)), None);
    }

    #[test]
    fn a_lease_runs_out_only_while_it_does_not_change() {
        let mut seen = Seen::default();
        assert_eq!(seen.runs_out_in(LENGTH, at(7.0)), at(10.0));
        seen.see(place(1), at(7.0));
        seen.see(place(1), at(16.0));
        assert_eq!(seen.runs_out_in(LENGTH, at(16.0)), at(1.0));
        seen.see(place(2), at(16.5));
        assert_eq!(seen.runs_out_in(LENGTH, at(16.5)), at(10.0));
        seen.see(None, at(20.0));
        assert_eq!(seen.runs_out_in(LENGTH, at(20.0)), at(10.0));
        seen.see(None, at(31.0));
        assert_eq!(seen.runs_out_in(LENGTH, at(31.0)), Duration::ZERO);
    }

    #[test]
    fn three_renewals_fit_into_a_lease_and_each_is_answered_before_the_next() {
        assert!(LENGTH.renewed_every() * 2 + LENGTH.request_timeout() < LENGTH.ends_at(at(0.0)));
        assert!(LENGTH.request_timeout() < LENGTH.renewed_every());
    }

    #[test]
    fn the_clock_goes_on() {
        let before = uptime();
        assert!(before > Duration::ZERO && uptime() >= before);
    }

    #[test]
    fn a_holder_is_read_as_it_was_written() {
        let epoch = Epoch { server_uuid: "u".into(), epoch: 1 << 62, highest_version: 1 << 62 };
        let holder = Holder {
            run: "r".into(),
            state: "s".into(),
            host: "h".into(),
            term: 3,
            is_released: false,
            epoch: Some(epoch),
        };
        assert_eq!(Holder::read(&holder.body("n")).expect("reads"), holder);
        assert!(Holder::read(&json!({"payload": "x"})).is_err());
    }
}
