//! The two ways of a verification that find suspects: rows in chunks along the primary key against their documents, and
//! ids of the index in pages against the table. Rows and ids are read, and documents compared, beside each other.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use mysql_async::Conn;
use tokio::task::JoinSet;

use super::expected::Maker;
use super::{Kind, SUSPECTS_MAX, Suspect, Verifier, keys};
use crate::change::Row;
use crate::document::IdHasher;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::link::inquiry::Standing;
use crate::link::left_out;
use crate::naive::{Rule, is_naive};
use crate::position::Version;
use crate::sink::Older;
use crate::source::snapshot::scan::Chunk;
use crate::source::snapshot::{chunk, scan};
use crate::state::KeyPart;

/// Rows of a piece, whose documents are asked for together.
const PIECE_ROWS: usize = 500;
const PIECE_BYTES: usize = 2 << 20;

/// Pieces that are compared at once.
pub(super) const PIECES_MAX: usize = 4;

/// A row as the mapping makes a document of it.
pub(super) struct Mapped {
    id: String,
    key: Vec<KeyPart>,
    body: Vec<u8>,
}

/// What was found at one look.
pub(super) struct Seen {
    pub rows: usize,
    pub suspects: Vec<(Suspect, Kind, Vec<String>)>,
}

type Compared = (Arc<Vec<Mapped>>, Result<Seen>);

/// A chunk of rows, and the connection that it came by.
struct Read {
    conn: Option<Conn>,
    chunk: Result<Chunk>,
}

/// What is next of the index's ids.
enum Next {
    First,
    After(String),
    Nothing,
}

/// A page of ids that was looked up, and the page behind it, which was asked for meanwhile.
struct Stepped {
    conn: Option<Conn>,
    looked: Result<Looked>,
    page: Option<Result<Older>>,
}

/// What was found of a page's ids.
pub(super) struct Looked {
    pub documents: usize,
    pub without_rows: Vec<Suspect>,
}

impl Verifier<'_> {
    /// Both ways at once: the one waits for the index most of the time, the other for the table.
    pub(super) async fn walk(&mut self) -> Result<()> {
        let until = self.last_key().await?;
        self.refresh().await?;
        let mut after = None;
        let mut size = chunk::Size::new(&self.link.standing.snapshot);
        let (mut comparing, mut paging) = (JoinSet::new(), JoinSet::new());
        let (mut reading, mut conn) = (JoinSet::new(), None);
        let mut pieces = VecDeque::new();
        let mut is_last = until.is_none();
        if self.order.condition.is_none() {
            self.verdict.has_looked_for_extras = true;
            self.step(&mut paging, None, Vec::new(), Next::First);
        }
        loop {
            while comparing.len() < PIECES_MAX
                && let Some(piece) = pieces.pop_front()
            {
                self.compare_in_a_task(&mut comparing, piece)?;
            }
            // The next chunk is read while the pieces of this one are compared.
            let reads = !is_last && pieces.len() < PIECES_MAX && reading.is_empty();
            if let Some(until) = until.as_ref().filter(|_| reads) {
                let place = (after.clone(), until.clone(), size.rows());
                self.read_in_a_task(&mut reading, conn.take(), place);
            }
            tokio::select! {
                Some(read) = reading.join_next() => {
                    let read: Read = read.map_err(broke_off)?;
                    let chunk = match read.chunk {
                        Err(error) if error.remedy() == Remedy::Retry => {
                            self.recover(error).await?;
                            continue;
                        }
                        chunk => chunk?,
                    };
                    conn = read.conn;
                    size.learn(chunk.walked, chunk.elapsed, chunk.bytes);
                    is_last = chunk.is_last;
                    pieces.extend(cut(&self.link.standing, &chunk)?);
                    after = chunk.last_key.or(after);
                }
                Some(compared) = comparing.join_next() => {
                    pieces.extend(self.take_compared(compared.map_err(broke_off)?).await?);
                }
                Some(stepped) = paging.join_next() => {
                    self.take_step(&mut paging, stepped.map_err(broke_off)?).await?;
                }
                else => match self.met.unmet_page() {
                    Some(ids) => self.step(&mut paging, None, ids, Next::Nothing),
                    None => return Ok(()),
                },
            }
            if self.suspects.len() >= SUSPECTS_MAX {
                self.judge(SUSPECTS_MAX / 2).await?;
            }
        }
    }

    /// Looks a page of ids up, and asks for the next one meanwhile.
    fn step(
        &self,
        paging: &mut JoinSet<Stepped>,
        mut conn: Option<Conn>,
        ids: Vec<String>,
        next: Next,
    ) {
        let (standing, ppm) = (self.link.standing.clone(), self.order.sample_ppm);
        let seed = self.seed;
        paging.spawn(async move {
            let after = match next {
                Next::First => Some(None),
                Next::After(place) => Some(Some(place)),
                Next::Nothing => None,
            };
            let route = &standing.route;
            let asking = async {
                let after = after?;
                // Below a version that none has.
                let highest = Version(u64::MAX);
                Some(route.sink.older(&route.target, highest, after.as_deref()).await)
            };
            let drawn = |id: &String| is_drawn(id, ppm, seed);
            let (looked, page) = tokio::join!(look_up(&standing, &mut conn, ids, drawn), asking);
            Stepped { conn, looked, page }
        });
    }

    async fn take_step(&mut self, paging: &mut JoinSet<Stepped>, stepped: Stepped) -> Result<()> {
        let Stepped { conn, looked, page } = stepped;
        let both = looked.and_then(|looked| Ok((looked, page.transpose()?)));
        let (looked, page) = match both {
            Ok(both) => both,
            Err(error) if error.remedy() == Remedy::Retry => {
                // Where the index has lost the place, its ids are read from the beginning.
                self.recover(error).await?;
                self.verdict.counts.documents = 0;
                self.met.forget_unmet();
                self.step(paging, None, Vec::new(), Next::First);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(page) = page {
            self.verdict.counts.documents += page.ids.len() as u64;
            self.live.metrics.verify_documents.inc_by(page.ids.len() as u64);
            let next = page.next.map_or(Next::Nothing, Next::After);
            let ids = self.met.take_ids(page.ids);
            self.step(paging, conn, ids, next);
        }
        let is_new = |suspect: &Suspect| !self.recorded.contains(&IdHasher.key(&suspect.id));
        let named = |suspect: Suspect| {
            let kind = if suspect.key.is_some() { Kind::Extra } else { Kind::Foreign };
            (suspect, kind, Vec::new())
        };
        let new: Vec<_> = looked.without_rows.into_iter().filter(is_new).map(named).collect();
        self.take_suspects(new)?;
        self.show();
        Ok(())
    }

    fn compare_in_a_task(
        &self,
        comparing: &mut JoinSet<Compared>,
        piece: Arc<Vec<Mapped>>,
    ) -> Result<()> {
        let standing = self.link.standing.clone();
        let maker = Maker::new(standing, self.order, self.link.pipeline()?)?;
        comparing.spawn(async move {
            let seen = compare(&maker, &piece, Look::Cheap).await;
            (piece, seen)
        });
        Ok(())
    }

    /// Gives the piece back where it must be compared once more.
    async fn take_compared(&mut self, (piece, seen): Compared) -> Result<Option<Arc<Vec<Mapped>>>> {
        match seen {
            Ok(seen) => {
                self.verdict.counts.rows += seen.rows as u64;
                piece.iter().for_each(|row| self.met.take_row(&row.id));
                self.live.metrics.verify_rows.inc_by(seen.rows as u64);
                self.take_suspects(seen.suspects)?;
                self.show();
                Ok(None)
            }
            Err(error) if error.remedy() == Remedy::Retry => {
                self.recover(error).await?;
                Ok(Some(piece))
            }
            Err(error) => Err(error),
        }
    }

    /// The naive reading believes what it sees.
    fn take_suspects(&mut self, suspects: Vec<(Suspect, Kind, Vec<String>)>) -> Result<()> {
        for (suspect, kind, fields) in suspects {
            if is_naive(Rule::Verification) {
                self.record(kind, suspect.id, fields, false)?;
            } else {
                self.suspects.push(suspect);
            }
        }
        Ok(())
    }

    /// What is wrong at the beginning is seen by the cheap look, too.
    async fn refresh(&mut self) -> Result<()> {
        loop {
            let route = &self.link.standing.route;
            match route.sink.refresh(&route.target.index).await {
                Err(error) if error.remedy() == Remedy::Retry => self.recover(error).await?,
                refreshed => return refreshed,
            }
        }
    }

    async fn last_key(&mut self) -> Result<Option<Vec<KeyPart>>> {
        let def = self.link.standing.subject.def.clone();
        loop {
            let read = match self.conn().await {
                Ok(conn) => scan::last_key(conn, &def).await,
                Err(error) => Err(error),
            };
            match read {
                Err(error) if error.remedy() == Remedy::Retry => self.recover(error).await?,
                read => return read,
            }
        }
    }

    /// Reads the rows behind a key up to another one, so many at most.
    fn read_in_a_task(
        &self,
        reading: &mut JoinSet<Read>,
        mut conn: Option<Conn>,
        (after, until, rows_max): (Option<Vec<KeyPart>>, Vec<KeyPart>, u32),
    ) {
        let (subject, condition) = (self.link.standing.subject.clone(), self.condition());
        reading.spawn(async move {
            let asking = async {
                let conn = match &mut conn {
                    Some(conn) => conn,
                    None => conn.insert(subject.connect().await?),
                };
                let (def, wanted) = (&subject.def, &subject.wanted);
                let keys = (after.as_deref(), until.as_slice());
                let most = (rows_max, subject.chunk_bytes_max);
                scan::read_chunk_where(conn, def, wanted, keys, most, condition.as_deref()).await
            };
            let chunk = asking.await;
            Read { conn, chunk }
        });
    }

    /// The order's condition and its lot, which the server draws.
    fn condition(&self) -> Option<String> {
        let lot = self.order.sample_ppm.map(|ppm| format!("RAND() < {ppm} / 1000000"));
        match (&self.order.condition, lot) {
            (Some(condition), Some(lot)) => Some(format!("({condition}\n) AND {lot}")),
            (condition, lot) => condition.clone().or(lot),
        }
    }
}

fn is_drawn(id: &str, ppm: Option<u32>, seed: i64) -> bool {
    let ppm = ppm.unwrap_or(1_000_000);
    ppm >= 1_000_000 || IdHasher.key(&format!("{seed} {id}")) % 1_000_000 < u128::from(ppm)
}

/// Finds the ids that have no row, among those that are drawn.
pub(super) async fn look_up(
    standing: &Standing,
    conn: &mut Option<Conn>,
    mut ids: Vec<String>,
    drawn: impl Fn(&String) -> bool,
) -> Result<Looked> {
    let documents = ids.len();
    ids.retain(drawn);
    let mut keyed: HashMap<String, Vec<KeyPart>> = HashMap::with_capacity(ids.len());
    let mut foreign = Vec::new();
    for id in ids {
        match keys::key_of(&standing.plan, &id) {
            Some(key) => {
                keyed.insert(id, key);
            }
            None => foreign.push(id),
        }
    }
    if !keyed.is_empty() {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(standing.subject.connect().await?),
        };
        without_rows(conn, standing, &mut keyed, &mut foreign).await?;
    }
    let extra = keyed.into_iter().map(|(id, key)| Suspect::new(id, Some(key)));
    let foreign = foreign.into_iter().map(|id| Suspect::new(id, None));
    Ok(Looked { documents, without_rows: extra.chain(foreign).collect() })
}

/// The rows of a chunk as documents, in pieces.
pub(super) fn cut(standing: &Standing, chunk: &Chunk) -> Result<VecDeque<Arc<Vec<Mapped>>>> {
    let (plan, def) = (&standing.plan, &standing.subject.def);
    let types: Vec<_> = plan.wanted().iter().map(|at| &def.columns[*at].ty).collect();
    let mut pieces = VecDeque::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for row in 0..chunk.len() {
        let mapped = chunk.with_row(row, &types, |values| {
            let (mut id, mut body) = (String::new(), Vec::new());
            plan.id(values, &mut id)?;
            plan.body(values, &mut body)?;
            let row = Row { values: values.to_vec(), offset: 0 };
            Ok(Mapped { id, key: left_out::key_of(plan, &row)?, body })
        })?;
        bytes += mapped.body.len();
        piece.push(mapped);
        if piece.len() >= PIECE_ROWS || bytes >= PIECE_BYTES {
            pieces.push_back(Arc::new(std::mem::take(&mut piece)));
            bytes = 0;
        }
    }
    if !piece.is_empty() {
        pieces.push_back(Arc::new(piece));
    }
    Ok(pieces)
}

/// How documents are looked at.
#[derive(Clone, Copy)]
pub(super) enum Look {
    /// As they are now: what is found is acted upon.
    Now,
    /// As a search sees them: what is found is looked at again.
    Cheap,
}

/// Reads the documents of rows that were read, and compares.
pub(super) async fn compare(maker: &Maker, piece: &[Mapped], look: Look) -> Result<Seen> {
    let ids: Vec<&str> = piece.iter().map(|row| row.id.as_str()).collect();
    let bodies = piece.iter().map(|row| (row.id.as_str(), row.body.clone())).collect();
    let route = &maker.standing.route;
    let found = match look {
        Look::Now => route.sink.read(&route.target, &ids),
        Look::Cheap => route.sink.look_up(&route.target, &ids),
    };
    let (expected, found) = tokio::try_join!(maker.make(bodies), found)?;
    let mut suspects = Vec::new();
    for ((row, expected), found) in piece.iter().zip(&expected).zip(&found) {
        if let Some((kind, fields)) = maker.judge(Some(expected), found.as_ref(), true) {
            suspects.push((Suspect::new(row.id.clone(), Some(row.key.clone())), kind, fields));
        }
    }
    Ok(Seen { rows: piece.len(), suspects })
}

/// Takes out of `keyed` what has a row. What the server refuses to compare with is no key, and goes over to `foreign`.
async fn without_rows(
    conn: &mut Conn,
    standing: &Standing,
    keyed: &mut HashMap<String, Vec<KeyPart>>,
    foreign: &mut Vec<String>,
) -> Result<()> {
    let all: Vec<Vec<KeyPart>> = keyed.values().cloned().collect();
    match ids_of(conn, standing, &all).await {
        Ok(found) => {
            found.iter().for_each(|id| drop(keyed.remove(id)));
            return Ok(());
        }
        Err(error) if is_about_a_value(&error) => {}
        Err(error) => return Err(error),
    }
    let each: Vec<(String, Vec<KeyPart>)> =
        keyed.iter().map(|(id, key)| (id.clone(), key.clone())).collect();
    for (id, key) in each {
        match ids_of(conn, standing, std::slice::from_ref(&key)).await {
            Ok(found) => found.iter().for_each(|id| drop(keyed.remove(id))),
            Err(error) if is_about_a_value(&error) => {
                keyed.remove(&id);
                foreign.push(id);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn broke_off(cause: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Io, "a part of the verification broke off").caused_by(cause)
}

fn is_about_a_value(error: &Error) -> bool {
    error.kind() == ErrorKind::SourceRefused
}

/// The ids of the rows that these keys find.
async fn ids_of(
    conn: &mut Conn,
    standing: &Standing,
    keys: &[Vec<KeyPart>],
) -> Result<Vec<String>> {
    let (plan, def) = (&standing.plan, &standing.subject.def);
    let key: Vec<usize> = plan.key_ordinals().collect();
    let found = scan::find(conn, def, &key, &key, keys).await?;
    let types: Vec<_> = key.iter().map(|at| &def.columns[*at].ty).collect();
    let id_of = |row| {
        found.with_row(row, &types, |values| {
            let mut id = String::new();
            plan.id_of_key(values, &mut id).map(|()| id)
        })
    };
    (0..found.len()).map(id_of).collect()
}
