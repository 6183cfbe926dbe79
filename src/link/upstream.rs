//! The one stream that all links of the source share: where it must begin, in which epoch, and how a link joins it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::queue;
use crate::link::end::End;
use crate::link::status::{State, unix_seconds};
use crate::link::supervisor::{Inner, lock};
use crate::position::{Checkpoint, Epoch, GtidSet, Position, Version};
use crate::source::control;
use crate::source::server::{Naming, Server};
use crate::source::snapshot::watermark;
use crate::source::stream::{Began, Item};
use crate::source::tailer::{Durable, Subscription, Tailer};
use crate::state::SourceRecord;
use crate::table::TableId;
use crate::telemetry::metrics::metrics;

/// A tailer that was just started.
struct Started {
    tailer: Tailer,
    server: Server,
    lost: BTreeMap<String, String>,
}

/// Events of a link that wait to be decoded. They are there to bridge the moments in which the link waits for a lane; a
/// tenth of a second of the fastest log is enough for that, and more would only be memory.
const EVENTS_BYTES_MAX: usize = 16 << 20;

impl Inner {
    /// Subscribes a link to the stream, which is started if it does not run.
    pub async fn join_stream(
        self: &Arc<Self>,
        link: &str,
        table: &TableId,
        from: Option<Checkpoint>,
    ) -> Result<(Began, queue::Receiver<Vec<Item>>, Server), End> {
        let room = (self.parts.memory_limit_bytes / 8).min(EVENTS_BYTES_MAX);
        let (queue, input) = queue::bounded(room);
        let (began_sender, began) = oneshot::channel();
        let server = {
            let mut run = self.run.lock().await;
            if run.tailer.as_ref().is_none_or(Tailer::has_ended) {
                let started = self.start_tailer().await.map_err(wait_or_fail)?;
                run.tailer = Some(started.tailer);
                run.server = Some(started.server);
                run.lost = started.lost;
            }
            if let (Some(_), Some(reason)) = (&from, run.lost.get(link)) {
                let error = Error::new(ErrorKind::SourceLost, reason.clone());
                return Err(End::Failed(error.with_advice("drop the link and create it again")));
            }
            let tailer = run.tailer.as_ref().expect("it was just started");
            tailer
                .subscribe(Subscription {
                    link: link.to_owned(),
                    table: table.clone(),
                    from,
                    queue,
                    began: began_sender,
                })
                .await?;
            run.server.clone().expect("it came with the tailer")
        };
        let ahead = |_| {
            let what = "the stream is ahead of this link's checkpoint";
            End::Again(Error::new(ErrorKind::SourceUnreachable, what))
        };
        Ok((began.await.map_err(ahead)?, input, server))
    }

    async fn start_tailer(self: &Arc<Self>) -> Result<Started> {
        let mut conn = control::connect(&self.parts.source).await?;
        let mut server = Server::of(&mut conn).await?;
        let stored = self.checkpoints()?;
        if stored.iter().any(|(_, checkpoint)| checkpoint.position.gtids.is_of_places())
            && server.naming == Naming::Gtids
        {
            // GTIDs were switched on since. Where these links are is known by place, and stays so.
            server.naming = Naming::Places;
        }
        let logged = watermark::logged(&mut conn, &server).await?;
        let purged = watermark::purged(&mut conn, &server).await?;
        let executed = watermark::executed(&mut conn, &server).await?;
        let record = self.parts.state.source().get()?;
        let mut lost = BTreeMap::new();
        let mut checkpoints = Vec::new();
        for (id, checkpoint) in stored {
            match why_lost(&server, &logged, &purged, &checkpoint.position.gtids) {
                Some(reason) => {
                    lost.insert(id, reason);
                }
                None => checkpoints.push(checkpoint),
            }
        }
        let known = record.as_ref().filter(|record| record.server_uuid == server.identity);
        let start = match known.and_then(|record| earliest(&checkpoints, Epoch(record.epoch))) {
            Some(start) => start,
            None => self.begin_epoch(&server, executed, record.as_ref(), &checkpoints)?,
        };
        let epoch = start.epoch;
        metrics().source_epoch.set(epoch.0 as i64);
        let reserved = Version(self.highest_version.load(Ordering::Acquire));
        let (state, highest) = (self.parts.state.clone(), self.highest_version.clone());
        let uuid = server.identity.clone();
        let reserve = Box::new(move |wanted: Version| {
            let reserved = Version(wanted.0 + RESERVED_AHEAD);
            let record = SourceRecord {
                server_uuid: uuid.clone(),
                epoch: epoch.0,
                highest_version: reserved.0,
            };
            state.source().put(&record, true)?;
            highest.store(reserved.0, Ordering::Release);
            Ok(reserved)
        });
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
        let durable = Durable { reserved, reserve, dir: self.parts.state.dir() };
        let config = self.parts.source.clone();
        let tailer = Tailer::start(config, server.clone(), start, durable, report);
        Ok(Started { tailer, server, lost })
    }

    /// The checkpoints of the links that run or are about to.
    fn checkpoints(&self) -> Result<Vec<(String, Checkpoint)>> {
        let mut checkpoints = Vec::new();
        for id in self.ids() {
            let is_failed =
                self.record_of(&id).is_none_or(|(_, live)| live.phase() == State::Failed);
            if is_failed {
                continue;
            }
            if let Some(record) = self.parts.state.checkpoints().get(&id)? {
                checkpoints.push((id, record.checkpoint));
            }
        }
        Ok(checkpoints)
    }

    fn begin_epoch(
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

/// The checkpoint at which the stream must begin for all, if they all belong to `epoch`.
fn earliest(checkpoints: &[Checkpoint], epoch: Epoch) -> Option<Checkpoint> {
    let all_belong = checkpoints.iter().all(|checkpoint| checkpoint.epoch == epoch);
    if !all_belong {
        return None;
    }
    checkpoints.iter().min_by_key(|checkpoint| checkpoint.n).cloned()
}

/// Why the source cannot be followed from `ours`, if it cannot.
fn why_lost(server: &Server, logged: &GtidSet, purged: &GtidSet, ours: &GtidSet) -> Option<String> {
    if !logged.covers(ours) && server.naming == Naming::Places {
        return Some(format!(
            "the source's log ({logged}) does not reach the checkpoint ({ours}), or another server wrote it: it was restored, \
             its log was reset, or the address leads elsewhere now, and a place in the log means nothing there"
        ));
    }
    if !logged.covers(ours) {
        return Some(format!(
            "the source has not executed all transactions that were applied ({ours}): it was restored, or lost a \
             fail-over"
        ));
    }
    let has_all = ours.covers(purged);
    (!has_all)
        .then(|| format!("the source has purged the log that follows the checkpoint ({ours})"))
}
