//! Brings a link up: checks what was asked for, looks its index and its table up, joins the stream, and runs the
//! worker. Wires only.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::flow::pressure::Pressure;
use crate::link::altering::{Holding, compiled};
use crate::link::cascades::learning;
use crate::link::cascades::watch::Cascades;
use crate::link::copy::Subject;
use crate::link::end::End;
use crate::link::lane::Route;
use crate::link::lanes::{Lanes, Layout};
use crate::link::pipeline_mode::{self, PipelineMode, Way};
use crate::link::policy::{AddColumns, OnGone, OnPurged, Overrides, Policy};
use crate::link::status::{Live, State};
use crate::link::supervisor::Inner;
use crate::link::upstream::{Joined, wait_or_fail};
use crate::link::worker::{Setup, Worker};
use crate::link::{Rules, Spec, beginning, consequence, definition};
use crate::mapping;
use crate::naive::{Rule, is_naive};
use crate::position::{Checkpoint, Epoch, GtidSet, Position};
use crate::sink::Target;
use crate::source::ddl::fate::Named;
use crate::source::snapshot::{self, chunk, watermark};
use crate::source::{control, files, foreign_keys, preflight, schema};
use crate::state::{
    CheckpointRecord, Copy, FamilyRecord, History, LinkRecord, SchemaRecord, SnapshotRecord,
};
use crate::table::{TableDef, TableId};

/// Everything that can be wrong with a link before it runs; the mapping with its rules written out.
pub(super) async fn validate(
    inner: &Inner,
    spec: &Spec,
    table: &TableId,
) -> Result<mapping::Spec, Vec<Error>> {
    let one = |error: Error| vec![error];
    if let Some(dir) = inner.parts.source.files() {
        let def = files::first_definition(dir, table).map_err(one)?;
        let (mapping, errors) = mapped(spec, &def);
        return validate_index(inner, spec, mapping, errors).await;
    }
    let mut conn = control::connect(&inner.parts.source).await.map_err(one)?;
    let findings =
        preflight::preflight(&mut conn, std::slice::from_ref(table)).await.map_err(one)?;
    let refused: Vec<_> = findings.into_iter().filter_map(refusal).collect();
    if !refused.is_empty() {
        return Err(refused);
    }
    let def = definition::read(&mut conn, table).await.map_err(one)?;
    let (mapping, mut errors) = mapped(spec, &def);
    if let Ok(plan) = mapping::compile(&mapping, &def) {
        errors.extend(key_refusal(&mut conn, &def, &plan).await.map_err(one)?);
    }
    errors.extend(chunk::check_key(&def).err());
    if def.id != *table {
        // The log has the server's spelling; under another one no change would ever be found.
        let message = format!("the source spells the table {}, not {table}", def.id);
        errors.push(Error::input(message).with_advice(format!("write {}", def.id)));
    }
    validate_index(inner, spec, mapping, errors).await
}

/// The rules written out, and what is wrong with them.
pub(super) fn mapped(spec: &Spec, def: &TableDef) -> (mapping::Spec, Vec<Error>) {
    let mapping = match &spec.rules {
        Rules::Map(mapping) => mapping.clone(),
        Rules::Table { index, columns, columns_span, .. } => {
            mapping::Spec::of_table(index, def, columns.as_deref(), *columns_span)
        }
    };
    let errors = mapping::compile(&mapping, def).err().unwrap_or_default();
    (mapping, errors)
}

/// What can be wrong with the index, beside `errors`.
async fn validate_index(
    inner: &Inner,
    spec: &Spec,
    mapping: mapping::Spec,
    mut errors: Vec<Error>,
) -> Result<mapping::Spec, Vec<Error>> {
    let one = |error: Error| vec![error];
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
        Ok(setup) => {
            let copies = inner.parts.source.files().is_none()
                && policy_of(inner, record).goes_on_if_purged();
            match Worker::new(setup).run().await {
                // The next start finds the same, and copies.
                End::Failed(error)
                    if copies
                        && error.kind() == ErrorKind::SourceLost
                        && inner.is_lost(&record.id).await =>
                {
                    End::Again(error)
                }
                end => end,
            }
        }
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
                tokio::time::sleep(backoff.next(error.retry_after())).await;
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
    let as_made = consequence::spec_of(&record.index, &record.rules, &record.keys);
    let table = as_made.rules.first().map(|rule| rule.table.clone());
    let table =
        table.ok_or_else(|| Error::new(ErrorKind::State, "the stored link has no rules"))?;
    let ignores_case = names_ignore_case(inner).await.map_err(wait_or_fail)?;
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
    begin_in_files(inner, record, &table, &target)?;
    beginning::prove(inner, record, live, &table).await?;
    let mut stored = state.checkpoints().get(&record.id)?;
    if stored
        .as_ref()
        .is_some_and(|stored| stored.index_uuid != target.uuid && !stored.index_uuid.is_empty())
    {
        return Err(End::Replaced);
    }
    let from = stored.as_ref().map(|stored| stored.checkpoint.clone());
    let mut keys = keys_at(inner, record, &table, stored.as_ref()).await?;
    let (mut as_made, mut why_anew) = (as_made, why_anew(inner, record)?);
    let mut joined = None;
    if why_anew.is_none() {
        let followed = keys.family.tables(&table);
        match inner.join_stream(&record.id, &table, &followed, from).await {
            Err(End::Failed(error)) if is_to_copy(inner, record, &error) => {
                why_anew = Some(error.report());
            }
            found => joined = Some(found?),
        }
    }
    let Joined { began, mut input, server, place, alone } = match joined {
        Some(joined) => joined,
        None => {
            as_made = last_rules(inner, record, &table, as_made)?;
            stored = None;
            keys = keys_at(inner, record, &table, None).await?;
            inner.join_stream(&record.id, &table, &keys.family.tables(&table), None).await?
        }
    };
    let followed = keys.family.tables(&table);
    let (proven, history) = match &stored {
        Some(stored) => {
            let history = stored_history(inner, record, &table).await?;
            let proven = definition::Proven {
                def: last_definition(&history, stored, &table)?,
                family: keys.family.clone(),
                read_at: Default::default(),
                began,
                first: Vec::new(),
            };
            (proven, history)
        }
        None => {
            let source = &inner.parts.source;
            let proven =
                definition::prove(source, &server, live, &table, began, &mut input).await?;
            let history = History::beginning(SchemaRecord {
                definition: Some(proven.def.clone()),
                behind: Default::default(),
                read_at: proven.read_at.clone(),
                skipped: None,
                rules: Some((
                    consequence::rule_records(&as_made.rules),
                    consequence::rule_records(&as_made.keys),
                )),
                copy: Default::default(),
                reason: String::new(),
            });
            state.schemas().put(&record.id, &table, &history)?;
            let read_at = proven.read_at.clone();
            let family = proven.family.clone();
            if !family.tables(&table).is_subset(&followed) {
                let what = format!("the foreign keys of {table} were changed just now");
                return Err(End::Wait(Error::new(ErrorKind::SourceUnreachable, what)));
            }
            let record_now = FamilyRecord { family, behind: Default::default(), read_at };
            state.families().put(&record.id, &record_now)?;
            (proven, history)
        }
    };
    let is_new = stored.is_none();
    let passed = stored.as_ref().map(|stored| &stored.checkpoint.position.gtids);
    let holds = passed.and_then(|passed| history.at(passed)).or(history.records.first());
    let (spec, holding) = match holds {
        Some(holds) => (spec_behind(&as_made, &history, holds), holding(holds, passed)),
        None => (as_made, Holding::Defined),
    };
    let note = holds.map(|holds| holds.reason.clone()).unwrap_or_default();
    let compares = !record.is_reset && policy_of(inner, record).on_purged == OnPurged::Verify;
    if let Some(why) = &why_anew {
        tracing::warn!(link = record.id, reason = %why, "the table is copied again, or compared");
    }
    live.set_note(match &why_anew {
        Some(why) if compares => {
            format!("the table is compared with its documents, and what differs is mended: {why}")
        }
        Some(why) => format!("the table is copied again: {why}"),
        None => note,
    });
    let sweeps = why_anew.is_some()
        && !policy_of(inner, record).keeps_documents()
        && !(compares && is_shared(inner, &record.id, &target).await.map_err(wait_or_fail)?);
    let def = Arc::new(proven.def);
    let forms = mapping::Forms::from_words(&record.types)?;
    let plan = compiled(&spec, &def, &forms)?;
    let stored = stored.unwrap_or_else(|| CheckpointRecord {
        // Raised to the version at which the copy begins.
        snapshot: why_anew.is_some().then(|| SnapshotRecord {
            sweep_below: sweeps.then_some(0),
            compares,
            ..SnapshotRecord::default()
        }),
        ..CheckpointRecord::default()
    });
    let (prepared, mut snapshot) = (stored.prepared, stored.snapshot.unwrap_or_default());
    snapshot.again |= keys.must_copy && !is_new;
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
        if record.is_reset || record.is_incomplete.is_some() {
            inner.store_record(&record.id, |record| {
                record.is_reset = false;
                record.is_incomplete = None;
            });
        }
    }
    let unproven = if is_new { None } else { keys.unproven };
    let mut cascades = Cascades::new(proven.family.clone(), unproven);
    cascades.bind(&def, &plan);
    let is_whole = !snapshot.done && !snapshot.compares;
    live.set_position(proven.began.checkpoint.position.to_string());
    live.set_phase(if is_whole { State::Snapshotting } else { State::CatchingUp });
    let subject = Arc::new(Subject {
        source: inner.parts.source.clone(),
        server,
        ended: Mutex::default(),
        def: def.clone(),
        wanted: cascades.wanted.clone(),
        chunk_bytes_max: snapshot_config(inner).chunk_bytes.saturating_mul(2).max(1),
        watchdog: inner.parts.link.watchdog(),
        turns: inner.copy_turns.clone(),
        live: live.clone(),
        prepared: Mutex::new(prepared.clone()),
    });
    let index_uuid = target.uuid.clone();
    let route = route(inner, record, live, (target, way, mode))?;
    let lanes = Lanes::start(route.clone(), layout(inner));
    Ok(Setup {
        link: record.id.clone(),
        def,
        plan,
        forms,
        began: proven.began,
        first: proven.first,
        snapshot,
        prepared,
        index_uuid,
        state: state.clone(),
        live: live.clone(),
        input,
        place,
        alone,
        lanes,
        copier: None,
        subject,
        spec,
        named: Named { table, ignores_case },
        history,
        holding,
        cascades,
        logs_cascades: keys.are_logged,
        followed,
        policy: policy_of(inner, record),
        all_columns: record.all_columns,
        route,
        snapshot_config: snapshot_config(inner),
        checkpoint_interval: Duration::from_millis(inner.parts.link.checkpoint_interval_ms.max(1)),
        stop,
    })
}

/// Whether documents of another link may be among those that have no row.
async fn is_shared(inner: &Inner, link: &str, target: &Target) -> Result<bool> {
    let other = inner.shares_index(link, &target.uuid).await?;
    if let Some(other) = &other {
        tracing::warn!(
            link,
            other,
            "another link writes to the same index: documents without a row are not deleted"
        );
    }
    Ok(other.is_some())
}

/// A link on files begins at their first event, with nothing to copy. Its checkpoint is of no epoch, so that the stream
/// begins one, there.
fn begin_in_files(
    inner: &Inner,
    record: &LinkRecord,
    table: &TableId,
    target: &Target,
) -> Result<()> {
    let state = &inner.parts.state;
    let Some(dir) = inner.parts.source.files() else { return Ok(()) };
    if state.checkpoints().get(&record.id)?.is_some() {
        return Ok(());
    }
    let before = files::gtids_before_first(dir)?;
    let history = History::beginning(SchemaRecord {
        definition: Some(files::first_definition(dir, table)?),
        behind: Default::default(),
        read_at: before.clone(),
        skipped: None,
        rules: Some((record.rules.clone(), record.keys.clone())),
        copy: Default::default(),
        reason: String::new(),
    });
    state.schemas().put(&record.id, table, &history)?;
    let position = Position { file: String::new(), offset: 0, gtids: before };
    let beginning = CheckpointRecord {
        checkpoint: Checkpoint { epoch: Epoch(0), n: 0, position },
        snapshot: Some(SnapshotRecord { done: true, ..SnapshotRecord::default() }),
        index_uuid: target.uuid.clone(),
        prepared: Default::default(),
    };
    state.checkpoints().put(&record.id, &beginning, true)
}

fn route(
    inner: &Inner,
    record: &LinkRecord,
    live: &Arc<Live>,
    (target, way, mode): (Target, Way, PipelineMode),
) -> Result<Arc<Route>, End> {
    // A link that was dropped meanwhile has none.
    let letters = inner.letters_of(&record.id).ok_or(End::Stopped)?;
    let table = record.rules.first().map(|rule| format!("{}.{}", rule.db, rule.table));
    let Layout { lanes, in_flight_max, bulk_bytes, .. } = layout(inner);
    let route = Route {
        letters,
        park_after: Duration::from_secs(inner.parts.link.park_after_secs),
        watchdog: inner.parts.link.watchdog(),
        sink_timeout: Duration::from_millis(inner.parts.sink.timeout_ms),
        began: Instant::now(),
        passed_at_ms: AtomicU64::new(0),
        pressure: Pressure::new(lanes.max(1) * in_flight_max.max(1), bulk_bytes),
        table: table.unwrap_or_default(),
        sink: inner.sink.clone(),
        target,
        way,
        mode,
        index: record.index.clone(),
        pipelines: inner.pipelines.clone(),
        live: live.clone(),
        highest_version: inner.highest_version.clone(),
    };
    route.show_pressure();
    Ok(Arc::new(route))
}

fn layout(inner: &Inner) -> Layout {
    let sink = &inner.parts.sink;
    // A lane holds about seven batches: one open, one in its queue, one ahead, and those in flight with their requests.
    // A single link may have half of the limit for them; several share that.
    let most = inner.parts.memory_limit_bytes / (sink.lanes.max(1) * 16);
    Layout {
        lanes: sink.lanes,
        in_flight_max: sink.inflight,
        bulk_bytes: sink.bulk_bytes.min(most).max(1),
        bulk_documents: sink.bulk_documents,
        budget: inner.budget.clone(),
    }
}

/// How the link's table is copied: a chunk takes no more than the link's share.
fn snapshot_config(inner: &Inner) -> snapshot::Config {
    let mut config = inner.parts.snapshot.clone();
    config.chunk_bytes = config.chunk_bytes.min(inner.budget.copy_share() / 2).max(1);
    config
}

/// The foreign keys as they are known at the link's checkpoint, or as they are now.
async fn keys_at(
    inner: &Inner,
    record: &LinkRecord,
    table: &TableId,
    stored: Option<&CheckpointRecord>,
) -> Result<learning::Known, End> {
    if inner.parts.source.files().is_some() {
        // There is no server that could be asked for them, or for rows.
        return Ok(learning::at_checkpoint(None, None, &GtidSet::default(), true));
    }
    let kept = match stored {
        Some(_) => inner.parts.state.families().get(&record.id)?,
        None => None,
    };
    let asked = control::in_time(control::ANSWERED_IN, async {
        let mut conn = control::connect(&inner.parts.source).await?;
        let are_logged = foreign_keys::are_logged(&mut conn).await?;
        if kept.is_some() {
            return Ok((are_logged, None));
        }
        let family = foreign_keys::read(&mut conn, table).await?;
        let server = inner.server_of(&mut conn).await?;
        let read_at = watermark::logged(&mut conn, &server).await?;
        Ok((are_logged, Some((family, read_at))))
    });
    let (are_logged, today) = asked.await.map_err(wait_or_fail)?;
    if let (Some((family, read_at)), Some(_)) = (&today, stored) {
        // A link that was made before the keys were looked at.
        let (family, read_at) = (family.clone(), read_at.clone());
        let found = FamilyRecord { family, behind: read_at.clone(), read_at };
        inner.parts.state.families().put(&record.id, &found)?;
    }
    let passed = stored.map(|stored| stored.checkpoint.position.gtids.clone());
    Ok(learning::at_checkpoint(kept, today, &passed.unwrap_or_default(), are_logged))
}

async fn names_ignore_case(inner: &Inner) -> Result<bool> {
    // The log has the names as its server stores them.
    if inner.parts.source.files().is_some() {
        return Ok(false);
    }
    control::in_time(control::ANSWERED_IN, async {
        let mut conn = control::connect(&inner.parts.source).await?;
        schema::ignores_case(&mut conn).await
    })
    .await
}

/// What is known of the table's definitions. The naive reading knows that of today.
async fn stored_history(inner: &Inner, record: &LinkRecord, table: &TableId) -> Result<History> {
    let stored = inner.parts.state.schemas().get(&record.id, table)?;
    let mut history = stored.ok_or_else(|| no_definition(table))?;
    if is_naive(Rule::Definitions) {
        let mut conn = control::connect(&inner.parts.source).await?;
        let today = definition::read(&mut conn, table).await?;
        for record in &mut history.records {
            record.definition = Some(today.clone());
        }
    }
    Ok(history)
}

fn no_definition(table: &TableId) -> Error {
    Error::new(
        ErrorKind::State,
        format!("the definition of {table} is missing in the state directory"),
    )
    .with_advice("drop the link and create it again")
}

/// The definition that holds at the checkpoint, or, where the table is gone there, that held last.
fn last_definition(
    history: &History,
    stored: &CheckpointRecord,
    table: &TableId,
) -> Result<TableDef> {
    let passed = &stored.checkpoint.position.gtids;
    let mut before = history.records.iter().rev().filter(|record| passed.covers(&record.behind));
    let found = before.find_map(|record| record.definition.clone());
    found.ok_or_else(|| no_definition(table))
}

/// The rules as they are where `holds` holds.
fn spec_behind(as_made: &mapping::Spec, history: &History, holds: &SchemaRecord) -> mapping::Spec {
    let up_to = history.records.iter().take_while(|record| *record != holds).chain([holds]);
    match up_to.filter_map(|record| record.rules.as_ref()).last() {
        Some((rules, keys)) => consequence::spec_of(&as_made.index, rules, keys),
        None => as_made.clone(),
    }
}

fn holding(holds: &SchemaRecord, passed: Option<&GtidSet>) -> Holding {
    match (&holds.definition, &holds.skipped, passed) {
        (None, _, _) => Holding::Gone { early: holds.copy != Copy::No },
        (Some(_), Some(until), Some(passed)) if !passed.covers(until) => {
            Holding::Skipping(until.clone())
        }
        (Some(_), _, _) => Holding::Defined,
    }
}

/// The rules by the columns' names of now, as far as the link knows them.
pub(super) fn last_rules(
    inner: &Inner,
    record: &LinkRecord,
    table: &TableId,
    as_made: mapping::Spec,
) -> Result<mapping::Spec> {
    let Some(history) = inner.parts.state.schemas().get(&record.id, table)? else {
        return Ok(as_made);
    };
    let last = history.records.last();
    Ok(last.map_or(as_made.clone(), |last| spec_behind(&as_made, &history, last)))
}

/// Why the link is to begin anew, whatever its checkpoint says.
fn why_anew(inner: &Inner, record: &LinkRecord) -> Result<Option<String>> {
    match &record.is_incomplete {
        _ if record.is_reset => Ok(Some("RESET LINK".to_owned())),
        Some(why) if policy_of(inner, record).goes_on_if_purged() => Ok(Some(why.clone())),
        Some(why) => Err(Error::new(ErrorKind::SourceLost, why.clone())
            .with_advice("RESET LINK copies the table again")),
        None => Ok(None),
    }
}

/// The place in the log is gone, and the link is to begin anew, with its documents.
fn is_to_copy(inner: &Inner, record: &LinkRecord, error: &Error) -> bool {
    error.kind() == ErrorKind::SourceLost
        && inner.parts.source.files().is_none()
        && policy_of(inner, record).goes_on_if_purged()
}

fn policy_of(inner: &Inner, record: &LinkRecord) -> Policy {
    let on_gone = |text: &Option<String>| text.as_deref().and_then(OnGone::parse);
    inner.parts.link.policy().with(Overrides {
        on_truncate: on_gone(&record.on_truncate),
        on_drop: on_gone(&record.on_drop),
        add_columns: record.add_columns.as_deref().and_then(AddColumns::parse),
        on_purged: record.on_purged.as_deref().and_then(OnPurged::parse),
        ..Overrides::default()
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
