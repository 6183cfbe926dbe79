//! The doors' handle on all links: make one, drop one, show them. Starts and stops nothing by itself; that is the
//! supervisor's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result, nearest};
use crate::link::consequence::rule_records;
use crate::link::standby::Waiting;
use crate::link::status::{Live, State, Status, unix_seconds};
use crate::link::supervisor::{Entry, Inner, lock, set_overrides};
use crate::link::{Origin, PipelineMode, Rebuild, Rules, Spec, beginning, rebuild, start};
use crate::sink::Permit as _;
use crate::state::LinkRecord;
use crate::table::TableId;
use crate::telemetry::metrics::metrics;

/// The doors' handle on all links. Clones are the same handle.
#[derive(Clone)]
pub struct Control {
    pub(super) inner: Arc<Inner>,
}

impl Control {
    /// Makes a link and starts it. Everything that can be known to be wrong is said now, all at once.
    pub async fn create(&self, spec: Spec) -> Result<Status, Vec<Error>> {
        self.create_like(spec, None).await
    }

    /// The same, with the forms and the policy of another link.
    pub(super) async fn create_like(
        &self,
        spec: Spec,
        like: Option<&LinkRecord>,
    ) -> Result<Status, Vec<Error>> {
        let inner = &self.inner;
        let id = spec.id.clone().unwrap_or_else(|| spec.rules.index().to_owned());
        let table =
            spec.rules.table().cloned().ok_or_else(|| vec![Error::input("a link needs a rule")])?;
        rebuild::refuse_name(&id).map_err(|error| vec![error])?;
        inner.refuse_twice(&id, spec.rules.index()).map_err(|error| vec![error])?;
        let mapping = start::validate(inner, &spec, &table).await?;
        let begins_at =
            beginning::checkpoint(inner, &spec, &table).await.map_err(|error| vec![error])?;
        let now = unix_seconds();
        let mut record = LinkRecord {
            id: id.clone(),
            origin: spec.origin.as_str().to_owned(),
            statement: spec.statement,
            index: mapping.index.clone(),
            rules: rule_records(&mapping.rules),
            keys: rule_records(&mapping.keys),
            pipeline_mode: spec.pipeline_mode.map_or("", PipelineMode::as_str).to_owned(),
            types: spec.types.over(inner.parts.link.types).to_words(),
            all_columns: matches!(&spec.rules, Rules::Table { columns: None, .. }),
            state: State::Scheduled.as_str().to_owned(),
            reason: String::new(),
            restarts: 0,
            created_at: now,
            updated_at: now,
            ..LinkRecord::default()
        };
        set_overrides(&mut record, spec.overrides);
        if let Some(like) = like {
            record = LinkRecord {
                types: like.types.clone(),
                all_columns: like.all_columns,
                on_truncate: like.on_truncate.clone(),
                on_drop: like.on_drop.clone(),
                add_columns: like.add_columns.clone(),
                on_purged: like.on_purged.clone(),
                verify_every_secs: like.verify_every_secs,
                verify_repair: like.verify_repair,
                ..record
            };
        }
        inner.refuse_twice(&id, &record.index).map_err(|error| vec![error])?;
        // What a drop that was cut off, or a worker that outlived it, may have left would pass for this link's own.
        inner.parts.state.checkpoints().delete(&id).map_err(|error| vec![error])?;
        inner.parts.state.families().delete(&id).map_err(|error| vec![error])?;
        inner.parts.state.letters().delete_of(&id).map_err(|error| vec![error])?;
        if let Some(begins_at) = begins_at {
            let checkpoints = inner.parts.state.checkpoints();
            checkpoints.put(&id, &begins_at, true).map_err(|error| vec![error])?;
        }
        inner.parts.state.links().put(&record).map_err(|error| vec![error])?;
        inner.remember(record, State::Scheduled).map_err(|error| vec![error])?;
        inner.start_worker(&id).await;
        tracing::info!(link = id, table = %table, "link made");
        self.status(&id).map_err(|error| vec![error])
    }

    /// Ends a link and forgets it; the index stays as it is, or is deleted.
    ///
    /// Says whether the configuration has it, which makes it anew with the next start.
    pub async fn drop_link(&self, id: &str, with_index: bool) -> Result<bool> {
        let inner = &self.inner;
        let _one_at_a_time = inner.moving.lock().await;
        let (record, _) = inner.record_of(id).ok_or_else(|| self.cannot_drop(id))?;
        inner.refuse_drop(&record)?;
        if let Some(of) = &record.shadow_of {
            // Else its end would be taken for one that was cut off, and the index deleted.
            inner.change_record(of, |record| {
                record.rebuild = record.rebuild.take().filter(|rebuild| rebuild.other != id);
            })?;
        }
        self.forget_link(id).await?;
        tracing::info!(link = id, with_index, "link dropped");
        let comes_back = record.origin == Origin::Config.as_str();
        match inner.sink.let_go(&record.index, with_index).await {
            Err(error) if with_index => {
                let what =
                    format!("the link is dropped, but its index {} is not deleted", record.index);
                Err(error.context(what))
            }
            Err(error) => {
                tracing::warn!(index = record.index, error = %error.report(), "the write alias stays");
                Ok(comes_back)
            }
            Ok(()) => Ok(comes_back),
        }
    }

    /// Ends a link, and takes it out of the state.
    pub(super) async fn forget_link(&self, id: &str) -> Result<()> {
        let inner = &self.inner;
        let (record, _) = inner.record_of(id).ok_or_else(|| self.unknown(id))?;
        let running = inner.run.lock().await.workers.remove(id);
        if let Some(running) = running {
            running.task.abort();
            let _ = running.task.await;
        }
        let state = &inner.parts.state;
        state.links().delete(id)?;
        state.checkpoints().delete(id)?;
        state.families().delete(id)?;
        if let Some(rule) = record.rules.first() {
            state.schemas().delete(id, &TableId::new(&rule.db, &rule.table))?;
        }
        lock(&inner.links).remove(id);
        inner.share_memory();
        metrics().forget_link(id);
        Ok(())
    }

    /// Stops a link at a clean checkpoint, also for the next starts of the daemon.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let _one_at_a_time = self.inner.moving.lock().await;
        self.inner.refuse_moving(id)?;
        let (_, live) = self.inner.record_of(id).ok_or_else(|| self.unknown(id))?;
        // Before its task ends: a restart of the stream that comes meanwhile must not take the link along.
        live.begin_again(State::Paused);
        self.inner.stop_worker(id).await;
        live.begin_again(State::Paused);
        self.inner.store_record(id, |record| record.state = State::Paused.as_str().to_owned());
        tracing::info!(link = id, "link paused");
        Ok(())
    }

    /// Lets a link that was paused, or has failed, go on from its checkpoint.
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.inner.refuse_moving(id)?;
        let Some((_, live)) = self.inner.record_of(id) else {
            let is_unmade = lock(&self.inner.unmade).contains_key(id);
            self.inner.resumed.notify_waiters();
            return if is_unmade { Ok(()) } else { Err(self.unknown(id)) };
        };
        if !live.phase().is_at_rest() {
            let what =
                format!("the link `{id}` is {}, so it goes on anyway", live.phase().as_str());
            return Err(Error::input(what));
        }
        self.go_on(id, &live).await;
        Ok(())
    }

    /// Has a link copy its table again, and delete the documents that have no row then.
    pub async fn reset(&self, id: &str) -> Result<()> {
        let _one_at_a_time = self.inner.moving.lock().await;
        self.inner.refuse_moving(id)?;
        let (_, live) = self.inner.record_of(id).ok_or_else(|| self.unknown(id))?;
        if self.inner.parts.source.files().is_some() {
            let what = "the source is a folder of log files, from which no table can be copied";
            let advice =
                "drop the link and create it again: it then reads the files from the first on";
            return Err(Error::new(ErrorKind::Unsupported, what).with_advice(advice));
        }
        live.begin_again(State::Paused);
        self.inner.stop_worker(id).await;
        self.inner.store_record(id, |record| {
            record.is_reset = true;
            record.state = State::Scheduled.as_str().to_owned();
            record.reason = String::new();
        });
        live.forget_snapshot();
        live.begin_again(State::Scheduled);
        // What somebody else has written may have a version above those of the place where the stream is.
        self.inner.ask_new_epoch(id, &live);
        Ok(())
    }

    async fn go_on(&self, id: &str, live: &Live) {
        live.begin_again(State::Scheduled);
        self.inner.store_record(id, |record| {
            record.state = State::Scheduled.as_str().to_owned();
            record.reason = String::new();
        });
        self.inner.start_worker(id).await;
        tracing::info!(link = id, "link goes on");
    }

    /// All links by their ids, also those of the configuration that could not be made.
    pub fn statuses(&self) -> Vec<Status> {
        let mut all = lock(&self.inner.unmade).clone();
        all.extend(lock(&self.inner.links).iter().map(|(id, entry)| (id.clone(), show(entry))));
        // Nobody leads, perhaps: what the copy says of a leader is not all there is to say.
        if let Some(Waiting { trouble: Some(trouble), .. }) = self.waiting() {
            all.values_mut().for_each(|status| status.errors.clone_from(&trouble));
        }
        all.into_values().collect()
    }

    pub fn status(&self, id: &str) -> Result<Status> {
        // The lock is given back before `unknown` takes it again.
        let found = lock(&self.inner.links).get(id).map(show);
        let found = found.or_else(|| lock(&self.inner.unmade).get(id).cloned());
        found.ok_or_else(|| self.unknown(id))
    }

    fn cannot_drop(&self, id: &str) -> Error {
        if lock(&self.inner.unmade).contains_key(id) {
            return Error::new(ErrorKind::NotFound, format!("the link `{id}` is not made yet"))
                .with_advice("take it out of the configuration and restart Driftless");
        }
        self.unknown(id)
    }

    pub(super) fn unknown(&self, id: &str) -> Error {
        let ids = self.inner.ids();
        let near = nearest(id, ids.iter().map(String::as_str));
        let advice = near.map(|near| format!("did you mean `{near}`?"));
        let known = if ids.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are {}", ids.join(", "))
        };
        let error = Error::new(ErrorKind::NotFound, format!("unknown link `{id}`; {known}"));
        match advice {
            Some(advice) => error.with_advice(advice),
            None => error,
        }
    }

    /// Answers a request of the search node's API that concerns models and pipelines.
    pub async fn search_api(
        &self,
        method: &str,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> (u16, serde_json::Value) {
        let answer = self.inner.pipelines.handle(method, path, query, body).await;
        (answer.status, answer.body)
    }

    /// The indexes that we keep ourselves, if the sink is the embedded one.
    #[cfg(feature = "embedded")]
    pub fn indexes(&self) -> Option<crate::index::Indexes> {
        self.inner.sink.indexes().cloned()
    }

    /// Runs documents through the pipeline of this name; `dimensions` are those of the index's vector fields. Operations
    /// whose vector did not come before `deadline` are left out.
    #[cfg(feature = "embedded")]
    pub async fn embed(
        &self,
        pipeline: &str,
        batch: &crate::document::Batch,
        dimensions: &std::collections::HashMap<String, usize>,
        deadline: std::time::Instant,
    ) -> Result<crate::document::Batch> {
        let found = self.inner.pipelines.pipeline(pipeline).ok_or_else(|| {
            Error::input(format!("pipeline with id [{pipeline}] does not exist"))
                .with_advice(format!("register it: PUT _ingest/pipeline/{pipeline}"))
        })?;
        found.run(batch, dimensions, &|_| std::time::Instant::now() < deadline).await
    }

    /// Whether every link that has not failed does its work; else what is waited for.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        let waiting: Vec<_> = self
            .statuses()
            .into_iter()
            .filter(|status| matches!(status.state, State::Recovering | State::Scheduled))
            .map(|status| format!("{}: {} {}", status.id, status.state.as_str(), status.errors))
            .collect();
        let lease = self.inner.lease.as_ref().and_then(|lease| lease.time_left().err());
        let mut reasons = waiting;
        reasons.extend(lease.map(|error| error.report()));
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Resolves when the source has ended and all of it was written, which only a source of files does: an error where a
    /// link has failed or could not be made.
    pub async fn finished(&self) -> Result<()> {
        let mut finished = self.inner.finished.subscribe();
        loop {
            if let Some(end) = self.ending(&finished.borrow_and_update().clone()) {
                return end;
            }
            // The sender is ours: it lives as long as we do.
            let _ = finished.changed().await;
        }
    }

    fn ending(&self, finished: &BTreeSet<String>) -> Option<Result<()>> {
        let failed = |what: String| Some(Err(Error::new(ErrorKind::SourceRefused, what)));
        let unmade = lock(&self.inner.unmade);
        if let Some(status) = unmade.values().find(|status| status.state == State::Failed) {
            return failed(format!("link `{}` cannot be made: {}", status.id, status.errors));
        }
        let links = lock(&self.inner.links);
        let is_open = |(id, entry): &(&String, &Entry)| {
            entry.live.phase() != State::Failed && !finished.contains(*id)
        };
        let made = self.inner.declared.load(Ordering::Acquire);
        if links.is_empty() || links.len() < made || links.iter().any(|link| is_open(&link)) {
            return None;
        }
        match links.iter().find(|(_, entry)| entry.live.phase() == State::Failed) {
            Some((id, entry)) => failed(format!("link `{id}` has failed: {}", entry.record.reason)),
            None => Some(Ok(())),
        }
    }

    /// Stops all links at a clean checkpoint, in bounded time.
    pub async fn shutdown(&self) {
        self.inner.ending.send_replace(true);
        if let Some(keeper) = lock(&self.inner.keeper).take() {
            keeper.abort();
        }
        self.inner.stop_all(true).await;
    }

    /// Ends all links at once: another daemon leads, and nothing that they have on their way counts any more.
    pub(super) async fn abandon(&self) {
        self.inner.ending.send_replace(true);
        let keeper = lock(&self.inner.keeper).take();
        if let Some(keeper) = keeper {
            keeper.abort();
            let _ = keeper.await;
        }
        self.inner.stop_all_within(true, Duration::ZERO).await;
        for id in self.inner.ids() {
            metrics().forget_link(&id);
        }
    }

    /// What this daemon waits for, if another one runs the links.
    pub fn waiting(&self) -> Option<Waiting> {
        lock(&self.inner.waiting).clone()
    }

    pub(super) fn show_waiting(&self, waiting: Waiting) {
        *lock(&self.inner.waiting) = Some(waiting);
    }

    /// Shows the links that another daemon runs.
    pub(super) fn show_elsewhere(&self, statuses: Vec<Status>) {
        let statuses = statuses.into_iter().map(|status| (status.id.clone(), status));
        *lock(&self.inner.unmade) = statuses.collect();
    }

    /// Refuses what only the daemon can do that runs the links.
    pub fn leads(&self) -> Result<()> {
        let Some(waiting) = self.waiting() else { return Ok(()) };
        let what = "this daemon stands by, and changes nothing";
        let advice = match waiting.leader {
            Some(leader) => format!("ask the daemon on {leader}, which leads"),
            None => "ask again when it leads; GET /readyz says what it waits for".to_owned(),
        };
        Err(Error::new(ErrorKind::Stopped, what).with_advice(advice))
    }
}

impl Inner {
    /// Two links must never write the same documents.
    fn refuse_twice(&self, id: &str, index: &str) -> Result<()> {
        let links = lock(&self.links);
        if links.contains_key(id) {
            return Err(Error::input(format!("a link with the id `{id}` exists already"))
                .with_advice(format!(
                    "drop it first: CALL dbms_etl.drop_sync_link_by_id('{id}')"
                )));
        }
        match links.values().find(|entry| entry.record.index == index) {
            None => Ok(()),
            Some(other) => Err(Error::input(format!(
                "the link `{}` writes index {index} already, and two links would overwrite each other's documents",
                other.record.id
            ))
            .with_advice("choose another index, or drop that link")),
        }
    }
}

fn show(entry: &Entry) -> Status {
    let record = &entry.record;
    let table = record.rules.first().map(|rule| format!("{}.{}", rule.db, rule.table));
    let mut status = Status {
        id: record.id.clone(),
        index: record.index.clone(),
        table: table.unwrap_or_default(),
        state: State::Scheduled,
        errors: String::new(),
        latency_ms: -1,
        acked_after_ms: -1,
        restarts: record.restarts,
        dead_letters: entry.letters.count() as u64,
        created_at: record.created_at,
        updated_at: record.updated_at,
        snapshot: None,
        position: String::new(),
        pipeline_mode: "",
        pipeline: String::new(),
        note: String::new(),
        verification: None,
        verified: record.verified,
        rebuild: record
            .rebuild
            .as_ref()
            .map(|rebuild| Rebuild::shown(rebuild, entry.live.rebuild())),
        shadow_of: record.shadow_of.clone().unwrap_or_default(),
        statement: record.statement.clone(),
    };
    entry.live.show(&mut status);
    status.updated_at = status.updated_at.max(record.updated_at);
    status
}
