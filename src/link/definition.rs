//! Proves the definition of a mapped table for a position of the stream. Knows nothing of mappings or sinks.
//!
//! A definition that is read now describes the table as of now, not as of the events that the stream delivers next. It
//! is proven like this: at a boundary B, wait until the server has executed all that was delivered up to B (a DDL in
//! there has taken effect), read the definition, and then the executed set G. Let the stream pass until it covers G. If
//! it carried no DDL on the table on that way, then there is none between the definition and the boundary that was
//! reached, in either direction, and the definition holds for every event from there to the next DDL. If it did, the
//! definition is read again. Rows that pass meanwhile need not be decoded: the snapshot begins behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::flow::queue;
use crate::link::cascades::learning::concerns;
use crate::link::copy::{Subject, Waiting};
use crate::link::status::Live;
use crate::position::{Checkpoint, GtidSet};
use crate::source::ahead::{Ahead, Met};
use crate::source::ddl::fate::{Fate, Named, fate};
use crate::source::schema::Seen;
use crate::source::server::Server;
use crate::source::snapshot::view::{self, Tell};
use crate::source::snapshot::watermark;
use crate::source::stream::{Began, Item};
use crate::source::{self, control, foreign_keys, schema};
use crate::table::{Family, TableDef, TableId};

pub(super) struct Proven {
    pub def: TableDef,
    /// The foreign keys that cascade into it, read at the same time.
    pub family: Family,
    /// The definition was read when the server had executed this.
    pub read_at: GtidSet,
    /// It holds from here on.
    pub began: Began,
    /// What was taken out of the queue behind that boundary.
    pub first: Vec<Item>,
}

pub(super) async fn prove(
    source: &source::Config,
    server: &Server,
    live: &Live,
    table: &TableId,
    began: Began,
    input: &mut queue::Receiver<Vec<Item>>,
) -> Result<Proven> {
    let mut conn = control::connect(source).await?;
    let mut at = began.checkpoint;
    let mut first = Vec::new();
    loop {
        let waiting = Waiting::of(live);
        let tell = |why| waiting.tell(why);
        // Both are read when it is executed; what comes in between is met in the log.
        view::wait(&mut conn, server, &at.position.gtids, &tell).await?;
        let family = foreign_keys::read(&mut conn, table).await?;
        let seen = schema::look(&mut conn, server, table, &at.position.gtids, &tell).await?;
        drop(waiting);
        let (def, read_at) = (there(seen.def, table)?, seen.read_at);
        let of = (table, &family);
        let passed = pass(of, (&mut conn, server), at, &read_at, (first, input)).await?;
        (at, first) = (passed.at, passed.rest);
        if !passed.met_ddl {
            let began = Began { checkpoint: at, is_exact: true };
            return Ok(Proven { def, family, read_at, began, first });
        }
        tracing::info!(table = %table, "a DDL passed while the definition was read; reading it again");
    }
}

/// The table as the server shows it, when it has executed `behind`, and the statements on it in the log from `first`,
/// behind which that is, to that moment: none of them is behind what was seen. None where another server is at the address now.
///
/// The parts of a definition are read one after the other, so a statement may come between them. Therefore the table is
/// read again, when all that was found is executed, until no statement has come since the read before.
async fn look_ahead(
    subject: &Subject,
    first: &Met,
    behind: &GtidSet,
    tell: Tell<'_>,
) -> Result<Option<(Seen, Vec<Met>)>> {
    let Subject { source, server, def, .. } = subject;
    let table = &def.id;
    let mut conn = control::connect(source).await?;
    if Server::of(&mut conn).await?.identity != server.identity {
        return Ok(None);
    }
    let mut seen = schema::look(&mut conn, server, table, behind, tell).await?;
    if behind.covers(&seen.read_at) {
        return Ok(Some((seen, vec![first.clone()])));
    }
    let Some(mut ahead) = Ahead::open(source, server, table, behind).await? else {
        return Ok(None);
    };
    let mut met = vec![first.clone()];
    loop {
        let known = met.len();
        ahead.read(&seen.read_at, (&mut conn, server), &mut met).await?;
        if met.len() == known {
            return Ok(Some((seen, met)));
        }
        // A statement stands in the log before its definition can be seen.
        seen = schema::look(&mut conn, server, table, ahead.passed(), tell).await?;
    }
}

/// [`look_ahead`], again and again for as long as waiting can help.
pub(super) async fn look_ahead_patiently(
    subject: &Subject,
    first: &Met,
    behind: &GtidSet,
) -> Result<Option<(Seen, Vec<Met>)>> {
    let Subject { live, def, .. } = subject;
    let table = &def.id;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut had_trouble = false;
    loop {
        let waiting = Waiting::of(live);
        let looked = look_ahead(subject, first, behind, &|why| waiting.tell(why)).await;
        drop(waiting);
        match looked {
            Err(error) if error.remedy() == Remedy::Retry => {
                tracing::warn!(table = %table, error = %error.report(), "cannot look at the table yet");
                live.wait_for(error.report());
                had_trouble = true;
                tokio::time::sleep(backoff.next(None)).await;
            }
            looked => {
                if had_trouble {
                    live.trouble_is_over();
                }
                return looked;
            }
        }
    }
}

pub(super) async fn read(conn: &mut mysql_async::Conn, table: &TableId) -> Result<TableDef> {
    there(schema::read_definition(conn, table).await?, table)
}

pub(super) fn there(def: Option<TableDef>, table: &TableId) -> Result<TableDef> {
    def.ok_or_else(|| {
        Error::new(
            ErrorKind::SourceRefused,
            format!("table {table} does not exist, or may not be read"),
        )
        .with_advice(format!("check the name, or GRANT SELECT ON {table} TO the source's user"))
    })
}

struct Passed {
    at: Arc<Checkpoint>,
    met_ddl: bool,
    rest: Vec<Item>,
}

/// Lets the stream pass up to the first boundary that covers `until`, but for what was rolled back meanwhile.
async fn pass(
    (table, family): (&TableId, &Family),
    (conn, server): (&mut mysql_async::Conn, &Server),
    mut at: Arc<Checkpoint>,
    until: &GtidSet,
    (first, input): (Vec<Item>, &mut queue::Receiver<Vec<Item>>),
) -> Result<Passed> {
    let mut met_ddl = false;
    let mut items = first.into_iter();
    let (mut until, mut asked) = (until.clone(), Instant::now());
    while !at.position.gtids.covers(&until) {
        let Some(item) = items.next() else {
            if asked.elapsed() >= watermark::ASK_EVERY {
                asked = Instant::now();
                until = until.intersection(&watermark::logged(conn, server).await?);
            }
            let waiting = tokio::time::timeout(watermark::ASK_EVERY, input.recv());
            let Ok(more) = waiting.await else { continue };
            let ended = || Error::new(ErrorKind::SourceUnreachable, "the tailer has ended");
            items = more.ok_or_else(ended)?.into_iter();
            continue;
        };
        match item {
            Item::Boundary(boundary) => at = boundary,
            Item::Ddl(ddl) => {
                // Another table at worst, which costs a second read.
                let named = Named { table: table.clone(), ignores_case: true };
                let fate = fate(&ddl.statement, &ddl.db, &named);
                met_ddl |= !matches!(fate, Fate::Nothing | Fate::Emptied)
                    || concerns(family, table, &ddl.statement, &ddl.db);
            }
            // What XA transactions did here is found as that of those from before the link began.
            Item::Rows(_) | Item::Prepared(..) | Item::Xa { .. } | Item::Unfollowable { .. } => {}
            Item::Ended => {
                return Err(Error::new(ErrorKind::SourceUnreachable, "the tailer has ended"));
            }
            Item::Broken(error) => {
                return Err(Error::new(error.kind(), error.report()));
            }
        }
    }
    Ok(Passed { at, met_ddl, rest: items.collect() })
}
