//! The one stream that all links of the source share: where it must begin, in which epoch, and how a link joins it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::queue;
use crate::link::alone::{Alone, Joining, WayBack};
use crate::link::end::End;
use crate::link::status::unix_seconds;
use crate::link::supervisor::{Inner, lock};
use crate::naive::{Rule, is_naive};
use crate::position::{Checkpoint, Epoch, Gtid, GtidSet, Position, Version};
use crate::source::places::Place;
use crate::source::server::{Naming, Server};
use crate::source::snapshot::watermark;
use crate::source::stream::{Began, Item};
use crate::source::tailer::{Durable, Report, Sharing, Subscription, Tailer};
use crate::source::torn::Ends;
use crate::source::{control, files};
use crate::state::SourceRecord;
use crate::table::TableId;
use crate::telemetry::metrics::metrics;

/// A link's part of a stream.
pub(super) struct Joined {
    pub began: Began,
    pub input: queue::Receiver<Vec<Item>>,
    pub server: Server,
    /// Taken where the stream leaves the link behind.
    pub place: Place,
    /// The stream is the link's own.
    pub alone: Option<Alone>,
}

/// A tailer that was just started.
struct Started {
    tailer: Tailer,
    server: Server,
    lost: BTreeMap<String, Lost>,
}

/// What decides where the stream can begin.
struct Look {
    server: Server,
    logged: GtidSet,
    purged: GtidSet,
    executed: GtidSet,
    /// Of MariaDB the last transaction of each server in each domain.
    newest: Vec<Gtid>,
    /// Where the files of its log end.
    ends: Ends,
    /// The epoch of those checkpoints that are places in this server's log.
    epoch: Option<u64>,
}

/// Why a link cannot go on from its checkpoint.
pub(super) struct Lost {
    reason: String,
    /// The source's transactions are not those that were applied.
    has_diverged: bool,
    /// Nor has it any of them: it is hardly the source that was meant.
    is_foreign: bool,
}

impl Lost {
    fn error(&self) -> Error {
        match self.is_foreign {
            true => Error::new(ErrorKind::SourceRefused, self.reason.clone()).with_advice(
                "check the source's address; if this is the server that is meant, RESET LINK copies its table",
            ),
            false => Error::new(ErrorKind::SourceLost, self.reason.clone())
                .with_advice("RESET LINK copies the table again"),
        }
    }
}

/// Events of a link that wait to be decoded. They are there to bridge the moments in which the link waits for a lane; a
/// tenth of a second of the fastest log is enough for that, and more would only be memory.
const EVENTS_BYTES_MAX: usize = 16 << 20;

impl Inner {
    /// Subscribes a link to the stream, which is started if it does not run. Where that is beyond the link's checkpoint
    /// the link gets a stream of its own.
    pub async fn join_stream(
        self: &Arc<Self>,
        link: &str,
        table: &TableId,
        others: &BTreeSet<TableId>,
        from: Option<Checkpoint>,
    ) -> Result<Joined, End> {
        let wanted = (link, table, others);
        let (subscriptions, server) = {
            let mut run = self.run.lock().await;
            if run.tailer.as_ref().is_none_or(Tailer::has_ended) {
                let started = self.start_tailer().await.map_err(wait_or_fail)?;
                run.tailer = Some(started.tailer);
                run.server = Some(started.server);
                run.lost = started.lost;
            }
            match (&from, run.lost.get(link)) {
                (Some(_), Some(lost)) => {
                    return Err(End::Failed(lost.error()));
                }
                (None, Some(_)) => drop(run.lost.remove(link)),
                (_, None) => {}
            }
            let tailer = run.tailer.as_ref().expect("it was just started");
            (tailer.subscriptions(), run.server.clone().expect("it came with the tailer"))
        };
        if let Some(joined) = self
            .subscribe(&subscriptions, wanted, from.clone(), (&server, self.places.place()))
            .await
        {
            return Ok(joined);
        }
        let has_ended = self.run.lock().await.tailer.as_ref().is_none_or(Tailer::has_ended);
        match from {
            // Files can be read again, as often as it takes.
            Some(from) if !has_ended || self.parts.source.files().is_some() => {
                self.join_alone(wanted, from, server).await
            }
            _ => {
                let what = "the source's tailer has ended";
                Err(End::Again(Error::new(ErrorKind::SourceUnreachable, what)))
            }
        }
    }

    /// None where the stream cannot serve the link from there.
    async fn subscribe(
        &self,
        subscriptions: &mpsc::Sender<Subscription>,
        (link, table, others): (&str, &TableId, &BTreeSet<TableId>),
        from: Option<Checkpoint>,
        (server, place): (&Server, Place),
    ) -> Option<Joined> {
        let room = self.budget.events_share().min(EVENTS_BYTES_MAX);
        let (queue, input) = queue::bounded(room);
        let (began_sender, began) = oneshot::channel();
        let subscription = Subscription {
            link: link.to_owned(),
            table: table.clone(),
            others: others.iter().cloned().collect(),
            from,
            queue,
            began: began_sender,
            place: place.clone(),
        };
        let _waits = self.places.wait();
        subscriptions.send(subscription).await.ok()?;
        let began = began.await.ok()?;
        Some(Joined { began, input, server: server.clone(), place, alone: None })
    }

    /// Joins the shared stream at the place where it is, if `at` is near that.
    pub async fn join_if_near(
        &self,
        wanted: (&str, &TableId, &BTreeSet<TableId>),
        at: u64,
        near: u64,
    ) -> Option<Joined> {
        let (subscriptions, server) = {
            let run = self.run.lock().await;
            let tailer = run.tailer.as_ref().filter(|tailer| !tailer.has_ended())?;
            let is_near = tailer.reached().abs_diff(at) <= near;
            (is_near.then(|| tailer.subscriptions())?, run.server.clone()?)
        };
        self.subscribe(&subscriptions, wanted, None, (&server, self.places.place())).await
    }

    /// Starts a stream at the link's checkpoint, for it alone.
    async fn join_alone(
        self: &Arc<Self>,
        wanted: (&str, &TableId, &BTreeSet<TableId>),
        from: Checkpoint,
        server: Server,
    ) -> Result<Joined, End> {
        let (link, table, others) = wanted;
        let look = self.look_at_source().await.map_err(wait_or_fail)?;
        if let Some(lost) = why_lost(&look, &from) {
            return Err(End::Failed(lost.error()));
        }
        let epoch = self.parts.state.source().get()?.map(|record| record.epoch);
        if epoch != Some(from.epoch.0) || look.server.identity != server.identity {
            let what = "the stream is ahead of this link's checkpoint, which is of another epoch";
            return Err(End::Rewind(Error::new(ErrorKind::SourceUnreachable, what)));
        }
        let place = self.places.place();
        place.take();
        if !self.places.has_turns()
            && let Some((_, live)) = self.record_of(link)
        {
            live.wait_for(
                "waits for its turn to follow the log by itself, for others do".to_owned(),
            );
        }
        let turn = self.places.turn().await;
        tracing::info!(link, position = %from.position, "the link follows the log by itself until it has caught up");
        let report = {
            let (inner, link) = (Arc::downgrade(self), link.to_owned());
            Box::new(move |trouble: Option<String>| {
                let live = inner.upgrade().and_then(|inner| inner.record_of(&link));
                match (live, trouble) {
                    (Some((_, live)), Some(trouble)) => live.wait_for(trouble),
                    (Some((_, live)), None) => live.trouble_is_over(),
                    (None, _) => {}
                }
            })
        };
        let durable = self.durable(&server, from.epoch);
        let config = self.parts.source.with_server_id_of_its_own();
        let sharing = (Sharing::One(turn), report as Report);
        let tailer = Tailer::start(config, server.clone(), from.clone(), durable, sharing);
        let way_back = WayBack {
            inner: Arc::downgrade(self),
            link: link.to_owned(),
            table: table.clone(),
            others: others.clone(),
            joining: Joining::Far,
        };
        let subscriptions = tailer.subscriptions();
        let alone = Alone { tailer, way_back };
        let joined = self.subscribe(&subscriptions, wanted, Some(from), (&server, place)).await;
        let ended = || {
            let what = "the link's own stream has ended";
            End::Again(Error::new(ErrorKind::SourceUnreachable, what))
        };
        joined.map(|joined| Joined { alone: Some(alone), ..joined }).ok_or_else(ended)
    }

    async fn start_tailer(self: &Arc<Self>) -> Result<Started> {
        // Before the source is looked at: a link that reads by itself may write one meanwhile, beyond what was seen.
        let ours = self.checkpoints()?;
        let look = self.look_at_source().await?;
        let (server, executed) = (look.server.clone(), look.executed.clone());
        let record = self.parts.state.source().get()?;
        let mut lost = BTreeMap::new();
        let mut checkpoints = Vec::new();
        self.note_torn(&look)?;
        for (id, checkpoint) in ours {
            match why_lost(&look, &checkpoint) {
                Some(why) => {
                    lost.insert(id, why);
                }
                None => checkpoints.push(checkpoint),
            }
        }
        let known = record.as_ref().filter(|record| record.server_uuid == server.identity);
        // Versions of transactions that are no more say nothing beside those of the others.
        let known = known.filter(|_| !lost.values().any(|lost| lost.has_diverged));
        let start = match known.and_then(|record| earliest(&checkpoints, Epoch(record.epoch))) {
            Some(start) => start,
            None => self.begin_epoch(&server, executed, record.as_ref(), &checkpoints).await?,
        };
        let epoch = start.epoch;
        metrics().source_epoch.set(epoch.0 as i64);
        let inner = Arc::downgrade(self);
        let report = Box::new(move |trouble: Option<String>| {
            let Some(inner) = inner.upgrade() else { return };
            for entry in lock(&inner.links).values() {
                match &trouble {
                    Some(trouble) => entry.live.wait_for(trouble.clone()),
                    None => entry.live.trouble_is_over(),
                }
            }
        });
        let durable = self.durable(&server, epoch);
        let config = self.parts.source.clone();
        let places = self.places.clone();
        let expected = checkpoints.iter().filter(|one| can_join(one, &start)).count();
        let sharing = (Sharing::All { places, expected }, report as Report);
        let tailer = Tailer::start(config, server.clone(), start, durable, sharing);
        Ok(Started { tailer, server, lost })
    }

    /// How a stream of this epoch reserves its versions.
    fn durable(&self, server: &Server, epoch: Epoch) -> Durable {
        let reserved = Version(self.highest_version.load(Ordering::Acquire));
        let (state, highest) = (self.parts.state.clone(), self.highest_version.clone());
        let (uuid, reserving) = (server.identity.clone(), self.reserving.clone());
        let lease = self.lease.clone();
        let reserve = Box::new(move |wanted: Version| {
            let _one_after_the_other = lock(&reserving);
            // Another stream may have reserved more by now, or begun another epoch.
            let before = highest.load(Ordering::Acquire);
            if state.source().get()?.is_some_and(|record| record.epoch != epoch.0) {
                let what = "another epoch has begun";
                return Err(Error::new(ErrorKind::SourceUnreachable, what));
            }
            let reserved = Version((wanted.0 + RESERVED_AHEAD).max(before));
            if lease.as_ref().is_some_and(|lease| reserved.0 > lease.granted()) {
                let what = "the versions that the lease grants are used up until it is renewed";
                return Err(Error::new(ErrorKind::SourceUnreachable, what));
            }
            let record = SourceRecord {
                server_uuid: uuid.clone(),
                epoch: epoch.0,
                highest_version: reserved.0,
            };
            state.source().put(&record, true)?;
            highest.fetch_max(reserved.0, Ordering::AcqRel);
            Ok(reserved)
        });
        Durable { reserved, reserve, dir: self.parts.state.dir() }
    }

    /// Whether the link's place in the log is gone, as far as that can be known now.
    pub async fn is_lost(&self, link: &str) -> bool {
        let look = async {
            let Some(stored) = self.parts.state.checkpoints().get(link)? else { return Ok(false) };
            let source = self.look_at_source().await?;
            Ok::<_, Error>(why_lost(&source, &stored.checkpoint).is_some())
        };
        look.await.unwrap_or(false)
    }

    /// Files are as good as executed: all that is applied came from them.
    async fn look_at_source(&self) -> Result<Look> {
        let stored = self.checkpoints()?;
        if let Some(dir) = self.parts.source.files() {
            let before = files::gtids_before_first(dir)?;
            let mut logged = before.clone();
            for (_, checkpoint) in &stored {
                logged.union(&checkpoint.position.gtids);
            }
            let server = Server { identity: files::identity(dir)?, naming: Naming::Gtids };
            let (purged, executed) = (before.clone(), before);
            let (newest, ends, epoch) = (Vec::new(), Ends::default(), None);
            return Ok(Look { server, logged, purged, executed, newest, ends, epoch });
        }
        // It is looked with the run's lock held: were it waited for without end, nothing would ever start again.
        control::in_time(control::ANSWERED_IN, async {
            let mut conn = control::connect(&self.parts.source).await?;
            let server = self.server_of(&mut conn).await?;
            let logged = watermark::logged(&mut conn, &server).await?;
            let purged = watermark::purged(&mut conn, &server).await?;
            let executed = watermark::executed(&mut conn, &server).await?;
            let newest = watermark::newest_of_each_server(&mut conn, &server).await?;
            let ends = Ends::of(&mut conn).await;
            let record = self.parts.state.source().get()?;
            let is_same = |record: &SourceRecord| record.server_uuid == server.identity;
            let epoch = record.filter(is_same).map(|record| record.epoch);
            Ok(Look { server, logged, purged, executed, newest, ends, epoch })
        })
        .await
    }

    /// The source's server. Where links are known by place, they stay so, even if GTIDs were switched on since.
    pub async fn server_of(&self, conn: &mut mysql_async::Conn) -> Result<Server> {
        let mut server = Server::of(conn).await?;
        if server.naming == Naming::Gtids {
            let stored = self.checkpoints()?;
            if stored.iter().any(|(_, stored)| stored.position.gtids.is_of_places()) {
                server.naming = Naming::Places;
            }
        }
        Ok(server)
    }

    /// The checkpoints of the links that run or are about to.
    fn checkpoints(&self) -> Result<Vec<(String, Checkpoint)>> {
        let mut checkpoints = Vec::new();
        for id in self.ids() {
            if self.record_of(&id).is_none_or(|(_, live)| live.phase().is_at_rest()) {
                continue;
            }
            if let Some(record) = self.parts.state.checkpoints().get(&id)? {
                checkpoints.push((id, record.checkpoint));
            }
        }
        Ok(checkpoints)
    }

    /// Links at rest that have read what the log has lost: when they go on the numbers of it will belong to others, and the epoch
    /// will be another one, so it is written down now.
    fn note_torn(&self, look: &Look) -> Result<()> {
        for id in self.ids() {
            let rests = self.record_of(&id).is_some_and(|(_, live)| live.phase().is_at_rest());
            let Some(stored) = self.parts.state.checkpoints().get(&id)?.filter(|_| rests) else {
                continue;
            };
            let is_of_this_log = look.epoch == Some(stored.checkpoint.epoch.0);
            let torn = look.ends.why_torn(&stored.checkpoint.position).filter(|_| is_of_this_log);
            if let Some(reason) = torn {
                self.store_record(&id, |record| record.is_incomplete = Some(reason));
            }
        }
        Ok(())
    }

    async fn begin_epoch(
        &self,
        server: &Server,
        executed: GtidSet,
        record: Option<&SourceRecord>,
        checkpoints: &[Checkpoint],
    ) -> Result<Checkpoint> {
        let assigned =
            checkpoints.iter().map(|checkpoint| checkpoint.version().0).max().unwrap_or(0);
        let highest = record.map_or(0, |record| record.highest_version).max(assigned);
        let epoch = Epoch::begin(unix_seconds(), Version(highest));
        let new = SourceRecord {
            server_uuid: server.identity.clone(),
            epoch: epoch.0,
            highest_version: epoch.0 + RESERVED_AHEAD,
        };
        if let Some(lease) = &self.lease {
            lease.begin_epoch(&new).await?;
        }
        self.parts.state.source().put(&new, true)?;
        self.highest_version.store(new.highest_version, Ordering::Release);
        let gtids = match checkpoints.split_first() {
            None => executed,
            Some((first, rest)) => {
                let both = |set: GtidSet, next: &Checkpoint| set.intersection(&next.position.gtids);
                rest.iter().fold(first.position.gtids.clone(), both)
            }
        };
        tracing::info!(epoch = epoch.0, gtids = %gtids, "a new epoch begins");
        let position = Position { file: String::new(), offset: 0, gtids };
        Ok(Checkpoint { epoch, n: 0, position })
    }
}

pub(super) fn wait_or_fail(error: Error) -> End {
    if error.remedy() == Remedy::Retry { End::Wait(error) } else { error.into() }
}

/// Versions are reserved this far ahead: 2 GiB of log for one fsync.
const RESERVED_AHEAD: u64 = 1 << 32;

/// Links whose checkpoints are farther behind the last one than this, in counted bytes of log, do not keep the others
/// waiting when the stream begins.
const FAR_BYTES: u64 = 64 << 20;

/// The checkpoint at which the shared stream must begin, if they all belong to `epoch`.
fn earliest(checkpoints: &[Checkpoint], epoch: Epoch) -> Option<Checkpoint> {
    let all_belong = checkpoints.iter().all(|checkpoint| checkpoint.epoch == epoch);
    if !all_belong {
        return None;
    }
    let last = checkpoints.iter().map(|checkpoint| checkpoint.n).max()?;
    let is_near = |checkpoint: &&Checkpoint| last - checkpoint.n <= FAR_BYTES;
    checkpoints.iter().filter(is_near).min_by_key(|checkpoint| checkpoint.n).cloned()
}

/// Whether the link of this checkpoint can join a stream that begins there.
fn can_join(checkpoint: &Checkpoint, start: &Checkpoint) -> bool {
    checkpoint.position.gtids.covers(&start.position.gtids)
}

/// Why the source cannot be followed from `ours`, if it cannot.
fn why_lost(look: &Look, checkpoint: &Checkpoint) -> Option<Lost> {
    let (logged, ours) = (&look.logged, &checkpoint.position.gtids);
    if !logged.covers(ours) && !is_naive(Rule::LostTransactions) {
        let reason = match look.server.naming {
            Naming::Places => format!(
                "the source's log ({logged}) does not reach the checkpoint ({ours}), or another server wrote it: it was \
                 restored, its log was reset, or the address leads elsewhere now, and a place in the log means nothing there"
            ),
            Naming::Gtids | Naming::Domains => format!(
                "the source has not executed all transactions that were applied ({ours}): it was restored, or lost a \
                 fail-over"
            ),
        };
        let is_foreign = logged.intersection(ours).is_empty();
        return Some(Lost { reason, has_diverged: true, is_foreign });
    }
    // A domain has one row of numbers for all servers: one that is ahead need not have what another one gave.
    let is_missing = |last: &Gtid| {
        let same = |one: &&Gtid| one.sid == last.sid && one.origin == last.origin;
        look.newest.iter().find(same).is_none_or(|newest| newest.gno < last.gno)
    };
    if look.server.naming == Naming::Domains
        && let Some(missing) = ours.last_of_domains().find(is_missing)
    {
        let reason = format!(
            "the source has not executed transaction {missing} that was applied ({ours}), and has others of that number \
             or above: it was restored, or lost a fail-over"
        );
        return Some(Lost { reason, has_diverged: true, is_foreign: false });
    }
    let is_of_this_log = look.epoch == Some(checkpoint.epoch.0);
    if is_of_this_log && let Some(reason) = look.ends.why_torn(&checkpoint.position) {
        return Some(Lost { reason, has_diverged: true, is_foreign: false });
    }
    let reason = || format!("the source has purged the log that follows the checkpoint ({ours})");
    let has_all = ours.covers(&look.purged);
    (!has_all).then(|| Lost { reason: reason(), has_diverged: false, is_foreign: false })
}
