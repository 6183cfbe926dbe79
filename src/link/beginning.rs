//! A link that begins at a place in the log, without a copy: finds the place when the link is made, and proves the table's
//! definition for it when the link is brought up.
//!
//! *The place* is found and stored before the statement that makes the link is answered, as a checkpoint of no epoch. So
//! whatever is committed behind that answer is delivered, also over a crash. Where the stream stands there, or has yet to
//! come there, the link joins it; where it is beyond, the stream begins again there for all links of the source, in a new
//! epoch. Either way the versions are above all that were given out before.
//!
//! *The definition* (rule 8) is read when the link is brought up, at a moment G. Then the log is read from the place to G. If no
//! statement on the table stands in there, the definition holds from the place on. If one does, nothing proves what the
//! rows before it mean, and the link is stopped with the place behind it.

use crate::error::{Error, ErrorKind, Result};
use crate::link::cascades::learning::concerns;
use crate::link::copy::Waiting;
use crate::link::end::End;
use crate::link::status::Live;
use crate::link::supervisor::Inner;
use crate::link::upstream::wait_or_fail;
use crate::link::{Spec, definition};
use crate::position::{Checkpoint, Epoch, GtidSet, Position};
use crate::source::ahead::{Ahead, Met};
use crate::source::beginning::Beginning;
use crate::source::ddl::fate::{Fate, Named, fate};
use crate::source::server::Server;
use crate::source::snapshot::watermark;
use crate::source::{self, control, foreign_keys, locate, schema};
use crate::state::{
    CheckpointRecord, FamilyRecord, History, LinkRecord, SchemaRecord, SnapshotRecord,
};
use crate::table::{Family, TableDef, TableId};

/// The checkpoint that a new link begins with; None where it begins with a copy.
pub(super) async fn checkpoint(
    inner: &Inner,
    spec: &Spec,
    table: &TableId,
) -> Result<Option<CheckpointRecord>> {
    if spec.from == Beginning::Snapshot {
        return Ok(None);
    }
    if inner.parts.source.files().is_some() {
        let what = format!("a link on log files begins at the first of them, not at {}", spec.from);
        return Err(Error::new(ErrorKind::Unsupported, what).with_advice("leave `from` out"));
    }
    let mut conn = control::connect(&inner.parts.source).await?;
    let server = inner.server_of(&mut conn).await?;
    let found = place(&inner.parts.source, &mut conn, &server, (spec, table)).await?;
    Ok(found.map(|gtids| CheckpointRecord {
        checkpoint: Checkpoint {
            epoch: NO_EPOCH,
            n: 0,
            position: Position { file: String::new(), offset: 0, gtids },
        },
        snapshot: Some(SnapshotRecord { done: true, ..SnapshotRecord::default() }),
        index_uuid: String::new(),
        prepared: Default::default(),
    }))
}

/// What stands in the log before the link's beginning; None where it begins with a copy.
pub(super) async fn place(
    source: &source::Config,
    conn: &mut mysql_async::Conn,
    server: &Server,
    (spec, table): (&Spec, &TableId),
) -> Result<Option<GtidSet>> {
    if spec.from == Beginning::Snapshot {
        return Ok(None);
    }
    refuse_keys(conn, table).await?;
    locate::locate(source, conn, server, &spec.from).await
}

/// Of a checkpoint that no stream has passed yet.
const NO_EPOCH: Epoch = Epoch(0);

/// Which rows refer to which is learnt from a copy.
async fn refuse_keys(conn: &mut mysql_async::Conn, table: &TableId) -> Result<()> {
    if foreign_keys::are_logged(conn).await? {
        return Ok(());
    }
    let family = foreign_keys::read(conn, table).await?;
    if family.keys.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{table} has foreign keys that change its rows without an event in the log; which rows, a copy has to learn"
    );
    Err(Error::new(ErrorKind::Unsupported, what).with_advice("write from = \"snapshot\""))
}

/// Proves the definition of a link that begins at a place in the log, unless that is done.
pub(super) async fn prove(
    inner: &Inner,
    record: &LinkRecord,
    live: &Live,
    table: &TableId,
) -> Result<(), End> {
    let state = &inner.parts.state;
    if inner.parts.source.files().is_some() || record.is_reset {
        return Ok(());
    }
    let Some(stored) = state.checkpoints().get(&record.id)? else { return Ok(()) };
    let is_new = stored.checkpoint.epoch == NO_EPOCH;
    if !is_new || state.schemas().get(&record.id, table)?.is_some() {
        return Ok(());
    }
    let passed = &stored.checkpoint.position.gtids;
    let (def, family, read_at) =
        look(inner, live, table, passed).await.map_err(wait_or_fail)?.ok_or_else(elsewhere)?;
    // Of the beginning of the log, as of the link: it holds whatever was passed.
    let family = FamilyRecord { family, behind: GtidSet::default(), read_at: read_at.clone() };
    state.families().put(&record.id, &family)?;
    let history = History::beginning(SchemaRecord {
        definition: Some(def),
        behind: GtidSet::default(),
        read_at,
        skipped: None,
        rules: Some((record.rules.clone(), record.keys.clone())),
        copy: Default::default(),
        reason: String::new(),
    });
    Ok(state.schemas().put(&record.id, table, &history)?)
}

fn elsewhere() -> End {
    let what = "the source's address leads to another server now";
    End::Wait(Error::new(ErrorKind::SourceUnreachable, what))
}

/// The table as it is now and was at `passed`.
async fn look(
    inner: &Inner,
    live: &Live,
    table: &TableId,
    passed: &GtidSet,
) -> Result<Option<(TableDef, Family, GtidSet)>> {
    let source = &inner.parts.source;
    let mut conn = control::connect(source).await?;
    let server = inner.server_of(&mut conn).await?;
    if !passed.covers(&watermark::purged(&mut conn, &server).await?) {
        let what = "the source has purged the log behind the place where the link begins";
        return Err(Error::new(ErrorKind::SourceLost, what)
            .with_advice("drop the link and create it again, from a place that the log has"));
    }
    let Some(mut ahead) = Ahead::open(source, &server, table, passed).await? else {
        return Ok(None);
    };
    let waiting = Waiting::of(live);
    waiting.tell(format!("the log is looked through for statements on {table}"));
    let family = foreign_keys::read(&mut conn, table).await?;
    let seen = schema::look(&mut conn, &server, table, passed, &|why| waiting.tell(why)).await?;
    let def = definition::there(seen.def, table)?;
    let mut met = Vec::new();
    ahead.read(&seen.read_at, (&mut conn, &server), &mut met).await?;
    match met.iter().rev().find(|met| is_change(met, table, &family)) {
        None => Ok(Some((def, family, seen.read_at))),
        Some(last) => Err(altered(last, table)),
    }
}

fn is_change(met: &Met, table: &TableId, family: &Family) -> bool {
    // Another table at worst, which costs a refusal.
    let named = Named { table: table.clone(), ignores_case: true };
    let fate = fate(&met.statement, &met.db, &named);
    let is_altered = !matches!(fate, Fate::Nothing | Fate::Emptied);
    is_altered || concerns(family, table, &met.statement, &met.db)
}

fn altered(met: &Met, table: &TableId) -> Error {
    let verb: Vec<_> = met.statement.split_whitespace().take(2).collect();
    let what = format!(
        "{table} was altered behind the place where the link begins, last by {} ({} …): what the rows before that mean \
         cannot be proven",
        met.gtid,
        verb.join(" ")
    );
    Error::new(ErrorKind::Unsupported, what).with_advice(
        "drop the link and create it again, from a place behind that statement or with a snapshot",
    )
}
