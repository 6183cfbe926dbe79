//! Brings a link up: checks what was asked for, looks its index and its table up, joins the stream, and runs the
//! worker. Wires only.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::link::copy::{Copier, Subject};
use crate::link::end::End;
use crate::link::lane::Route;
use crate::link::lanes::{Lanes, Layout};
use crate::link::pipeline_mode::{self, PipelineMode, Way};
use crate::link::status::{Live, State};
use crate::link::supervisor::Inner;
use crate::link::worker::{Setup, Worker};
use crate::link::{Rules, Spec, definition};
use crate::mapping;
use crate::naive::{Rule, is_naive};
use crate::sink::Target;
use crate::source::snapshot::chunk;
use crate::source::{control, preflight};
use crate::state::{CheckpointRecord, LinkRecord, RuleRecord, SchemaRecord, SnapshotRecord};
use crate::table::{TableDef, TableId};

/// Everything that can be wrong with a link before it runs; the mapping with its rules written out.
pub(super) async fn validate(
    inner: &Inner,
    spec: &Spec,
    table: &TableId,
) -> Result<mapping::Spec, Vec<Error>> {
    let one = |error: Error| vec![error];
    let mut conn = control::connect(&inner.parts.source).await.map_err(one)?;
    let findings =
        preflight::preflight(&mut conn, std::slice::from_ref(table)).await.map_err(one)?;
    let refused: Vec<_> = findings.into_iter().filter_map(refusal).collect();
    if !refused.is_empty() {
        return Err(refused);
    }
    let def = definition::read(&mut conn, table).await.map_err(one)?;
    let mapping = match &spec.rules {
        Rules::Map(mapping) => mapping.clone(),
        Rules::Table { index, columns, columns_span, .. } => {
            mapping::Spec::of_table(index, &def, columns.as_deref(), *columns_span)
        }
    };
    let mut errors = Vec::new();
    match mapping::compile(&mapping, &def) {
        Ok(plan) => errors.extend(key_refusal(&mut conn, &def, &plan).await.map_err(one)?),
        Err(found) => errors = found,
    }
    errors.extend(chunk::check_key(&def).err());
    if def.id != *table {
        // The log has the server's spelling; under another one no change would ever be found.
        let message = format!("the source spells the table {}, not {table}", def.id);
        errors.push(Error::input(message).with_advice(format!("write {}", def.id)));
    }
    match inner.sink.inspect(&mapping.index).await {
        Ok(target) => {
            let mode = spec.pipeline_mode.unwrap_or(inner.parts.link.pipeline_mode);
            errors.extend(settle(inner, mode, &mapping.index, &target).await.err());
        }
        Err(error) => errors.push(error),
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    // Last, because it changes the index, and a statement that is refused changes nothing.
    inner.sink.prepare(&mapping.index).await.map_err(one)?;
    Ok(mapping)
}

/// Rule 13: what makes the `_id` must be in every before image.
pub(super) async fn key_refusal(
    conn: &mut mysql_async::Conn,
    def: &TableDef,
    plan: &mapping::Plan,
) -> Result<Option<Error>> {
    let key: Vec<_> = plan.key_ordinals().collect();
    Ok(preflight::check_images(conn, def, &key).await?.and_then(refusal))
}

fn refusal(finding: preflight::Finding) -> Option<Error> {
    match finding.level {
        preflight::Level::Error => {
            Some(Error::new(ErrorKind::SourceRefused, finding.what).with_advice(finding.remedy))
        }
        preflight::Level::Warning => None,
    }
}

async fn settle(inner: &Inner, mode: PipelineMode, index: &str, target: &Target) -> Result<Way> {
    pipeline_mode::settle(mode, inner.sink.as_ref(), &inner.pipelines, index, target).await
}

fn mode_of(inner: &Inner, record: &LinkRecord) -> PipelineMode {
    PipelineMode::named(&record.pipeline_mode).unwrap_or(inner.parts.link.pipeline_mode)
}

/// Runs a link from its checkpoint, or from its beginning.
pub(super) async fn run(
    inner: &Arc<Inner>,
    record: &LinkRecord,
    live: &Arc<Live>,
    mut stop: watch::Receiver<bool>,
) -> End {
    let stopping = stop.clone();
    let setup = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return End::Stopped,
        setup = set_up_patiently(inner, record, live, stopping) => setup,
    };
    match setup {
        Ok(setup) => Worker::new(setup).run().await,
        Err(end) => end,
    }
}

async fn set_up_patiently(
    inner: &Arc<Inner>,
    record: &LinkRecord,
    live: &Arc<Live>,
    stop: watch::Receiver<bool>,
) -> Result<Setup, End> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match set_up(inner, record, live, stop.clone()).await {
            Ok(setup) => {
                live.trouble_is_over();
                return Ok(setup);
            }
            Err(End::Wait(error)) => {
                tracing::warn!(link = record.id, error = %error.report(), "the link waits");
                live.wait_for(error.report());
                // An index that does not exist can be made, a source can come back.
                tokio::time::sleep(backoff.next(None)).await;
            }
            Err(end) => return Err(end),
        }
    }
}

async fn set_up(
    inner: &Arc<Inner>,
    record: &LinkRecord,
    live: &Arc<Live>,
    stop: watch::Receiver<bool>,
) -> Result<Setup, End> {
    let spec = spec_of(record);
    let table = spec.rules.first().map(|rule| rule.table.clone());
    let table =
        table.ok_or_else(|| Error::new(ErrorKind::State, "the stored link has no rules"))?;
    let mut target = match inner.sink.prepare(&record.index).await {
        Ok(target) => target,
        // The index may be made any moment; its absence alone is no reason to give the link up.
        Err(error) if matches!(error.remedy(), Remedy::Retry | Remedy::Refuse) => {
            return Err(End::Wait(error));
        }
        Err(error) => return Err(error.into()),
    };
    let mode = mode_of(inner, record);
    let way = match settle(inner, mode, &record.index, &target).await {
        Ok(way) => way,
        Err(error) if error.remedy() == Remedy::Retry => return Err(End::Wait(error)),
        Err(error) => return Err(error.into()),
    };
    target.runs_pipeline = matches!(way, Way::Delegated(_));
    live.set_way(way.clone());
    let state = &inner.parts.state;
    let stored = state.checkpoints().get(&record.id)?;
    if stored
        .as_ref()
        .is_some_and(|stored| stored.index_uuid != target.uuid && !stored.index_uuid.is_empty())
    {
        return Err(End::Replaced);
    }
    let from = stored.as_ref().map(|stored| stored.checkpoint.clone());
    let (began, mut input, server_uuid) = inner.join_stream(&record.id, &table, from).await?;
    let proven = match &stored {
        Some(_) => definition::Proven {
            def: stored_definition(inner, record, &table).await?,
            read_at: Default::default(),
            began,
            first: Vec::new(),
        },
        None => {
            let proven = definition::prove(&inner.parts.source, &table, began, &mut input).await?;
            let schema =
                SchemaRecord { definition: proven.def.clone(), read_at: proven.read_at.clone() };
            state.schemas().put(&record.id, &schema)?;
            proven
        }
    };
    let def = Arc::new(proven.def);
    let plan = mapping::compile(&spec, &def).map(Arc::new).map_err(|errors| {
        let reasons: Vec<_> = errors.iter().map(Error::report).collect();
        Error::new(ErrorKind::Schema, reasons.join("; "))
    })?;
    let is_key = |ordinal: &usize| plan.keys().any(|key| key.name == def.columns[*ordinal].name);
    let id_is_primary_key = def.primary_key.iter().all(is_key);
    let stored = stored.unwrap_or_default();
    let (prepared, snapshot) = (stored.prepared, stored.snapshot.unwrap_or_else(beginning));
    let is_named = |group: &str| prepared.values().flatten().any(|named| named == group);
    state.prepared().retain(&record.id, is_named)?;
    if proven.began.is_exact {
        // The position is stored before the first row is read.
        let checkpoint = (*proven.began.checkpoint).clone();
        let record_now = CheckpointRecord {
            checkpoint,
            snapshot: Some(snapshot.clone()),
            index_uuid: target.uuid.clone(),
            prepared: prepared.clone(),
        };
        state.checkpoints().put(&record.id, &record_now, true)?;
    }
    live.set_phase(if snapshot.done { State::CatchingUp } else { State::Snapshotting });
    let subject = Arc::new(Subject {
        source: inner.parts.source.clone(),
        server_uuid,
        def: def.clone(),
        wanted: plan.wanted().to_vec(),
        chunk_bytes_max: inner.parts.snapshot.chunk_bytes.saturating_mul(2).max(1),
        live: live.clone(),
        prepared: Mutex::new(prepared.clone()),
    });
    let copier = if snapshot.done {
        None
    } else {
        live.set_snapshot(snapshot.rows, snapshot.rows_total);
        Some(Copier::start(subject.clone())?)
    };
    let index_uuid = target.uuid.clone();
    let lanes = Lanes::start(route(inner, record, live, (target, way, mode)), layout(inner));
    Ok(Setup {
        link: record.id.clone(),
        def,
        plan,
        began: proven.began,
        first: proven.first,
        snapshot,
        prepared,
        index_uuid,
        state: state.clone(),
        live: live.clone(),
        input,
        lanes,
        copier,
        subject,
        id_is_primary_key,
        snapshot_config: inner.parts.snapshot.clone(),
        checkpoint_interval: Duration::from_millis(inner.parts.link.checkpoint_interval_ms.max(1)),
        stop,
    })
}

fn beginning() -> SnapshotRecord {
    SnapshotRecord { done: false, after: None, until: None, rows: 0, rows_total: 0 }
}

fn route(
    inner: &Inner,
    record: &LinkRecord,
    live: &Arc<Live>,
    (target, way, mode): (Target, Way, PipelineMode),
) -> Arc<Route> {
    Arc::new(Route {
        sink: inner.sink.clone(),
        target,
        way,
        mode,
        index: record.index.clone(),
        pipelines: inner.pipelines.clone(),
        live: live.clone(),
        highest_version: inner.highest_version.clone(),
    })
}

fn layout(inner: &Inner) -> Layout {
    let sink = &inner.parts.sink;
    // A lane holds about seven batches: one open, one in its queue, one ahead, and those in flight with their requests.
    // Half of the limit is theirs; an eighth is the queue's before them.
    let share = inner.parts.memory_limit_bytes / (sink.lanes.max(1) * 16);
    Layout {
        lanes: sink.lanes,
        in_flight_max: sink.inflight,
        bulk_bytes: sink.bulk_bytes.min(share).max(1),
        bulk_documents: sink.bulk_documents,
    }
}

/// The definition that holds at the checkpoint. It was proven when the link was made, and every DDL behind that would
/// have stopped the link.
async fn stored_definition(
    inner: &Inner,
    record: &LinkRecord,
    table: &TableId,
) -> Result<TableDef> {
    if is_naive(Rule::Definitions) {
        let mut conn = control::connect(&inner.parts.source).await?;
        return definition::read(&mut conn, table).await;
    }
    let stored = inner.parts.state.schemas().get(&record.id, table)?;
    stored.map(|schema| schema.definition).ok_or_else(|| {
        Error::new(
            ErrorKind::State,
            format!("the definition of {table} is missing in the state directory"),
        )
        .with_advice("drop the link and create it again")
    })
}

/// Forgets what the snapshot had copied; the stream goes on where it was.
pub(super) fn forget_snapshot(inner: &Inner, link: &str) -> Result<()> {
    let checkpoints = inner.parts.state.checkpoints();
    let Some(mut stored) = checkpoints.get(link)? else { return Ok(()) };
    stored.snapshot = None;
    stored.index_uuid = String::new();
    checkpoints.put(link, &stored, true)
}

fn spec_of(record: &LinkRecord) -> mapping::Spec {
    let rule = |rule: &RuleRecord| mapping::Rule {
        field: rule.field.clone(),
        table: TableId::new(&rule.db, &rule.table),
        column: rule.column.clone(),
        span: Default::default(),
        field_span: Default::default(),
    };
    mapping::Spec {
        index: record.index.clone(),
        rules: record.rules.iter().map(rule).collect(),
        keys: record.keys.iter().map(rule).collect(),
    }
}
