//! Proves the definition of a mapped table for a position of the stream. Knows nothing of mappings or sinks.
//!
//! A definition that is read now describes the table as of now, not as of the events that the stream delivers next. It
//! is proven like this: at a boundary B, wait until the server has executed all that was delivered up to B (a DDL in
//! there has taken effect), read the definition, and then the executed set G. Let the stream pass until it covers G. If
//! it carried no DDL on the table on that way, then there is none between the definition and the boundary that was
//! reached, in either direction, and the definition holds for every event from there to the next DDL. If it did, the
//! definition is read again. Rows that pass meanwhile need not be decoded: the snapshot begins behind them.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::flow::queue;
use crate::position::{Checkpoint, GtidSet};
use crate::source::snapshot::watermark;
use crate::source::stream::{Began, Item};
use crate::source::{self, control, schema};
use crate::table::{TableDef, TableId};

pub(super) struct Proven {
    pub def: TableDef,
    /// The definition was read when the server had executed this.
    pub read_at: GtidSet,
    /// It holds from here on.
    pub began: Began,
    /// What was taken out of the queue behind that boundary.
    pub first: Vec<Item>,
}

pub(super) async fn prove(
    source: &source::Config,
    table: &TableId,
    began: Began,
    input: &mut queue::Receiver<Vec<Item>>,
) -> Result<Proven> {
    let mut conn = control::connect(source).await?;
    let mut at = began.checkpoint;
    let mut first = Vec::new();
    loop {
        watermark::wait_until_executed(&mut conn, &at.position.gtids).await?;
        let def = read(&mut conn, table).await?;
        let read_at = watermark::executed(&mut conn).await?.gtids;
        let passed = pass(at, &read_at, first, input).await?;
        (at, first) = (passed.at, passed.rest);
        if !passed.met_ddl {
            let began = Began { checkpoint: at, is_exact: true };
            return Ok(Proven { def, read_at, began, first });
        }
        tracing::info!(table = %table, "a DDL passed while the definition was read; reading it again");
    }
}

pub(super) async fn read(conn: &mut mysql_async::Conn, table: &TableId) -> Result<TableDef> {
    schema::read_definition(conn, table).await?.ok_or_else(|| {
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

/// Lets the stream pass up to the first boundary that covers `until`.
async fn pass(
    mut at: Arc<Checkpoint>,
    until: &GtidSet,
    first: Vec<Item>,
    input: &mut queue::Receiver<Vec<Item>>,
) -> Result<Passed> {
    let mut met_ddl = false;
    let mut items = first.into_iter();
    while !at.position.gtids.covers(until) {
        let Some(item) = items.next() else {
            let more = input.recv().await;
            let ended = || Error::new(ErrorKind::SourceUnreachable, "the tailer has ended");
            items = more.ok_or_else(ended)?.into_iter();
            continue;
        };
        match item {
            Item::Boundary(boundary) => at = boundary,
            Item::Ddl(ddl) => met_ddl |= ddl.changes_columns,
            // What XA transactions did here is found as that of those from before the link began.
            Item::Rows(_) | Item::Prepared(..) | Item::Xa(_) | Item::Unfollowable(_) => {}
            Item::Broken(error) => {
                return Err(Error::new(error.kind(), error.report()));
            }
        }
    }
    Ok(Passed { at, met_ddl, rest: items.collect() })
}
