//! What a copy asks that writes only what differs: which rows of a chunk have documents that are not theirs, and which ids
//! of the index have no row. Why its answers may be believed stands in `link::mending`.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mysql_async::Conn;

use super::asking::pipeline_of;
use super::expected::Maker;
use super::walk::{Look, PIECES_MAX, compare, cut, look_up};
use super::{Counts, Kind, Order, keys};
use crate::document::{IdHasher, Key, KeyHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::link::inquiry::Standing;
use crate::position::Version;
use crate::source::snapshot::scan::Chunk;
use crate::state::KeyPart;

/// Compares the rows of a link with its documents.
pub(in crate::link) struct Comparer {
    maker: Maker,
}

/// The documents of a chunk that are not what its rows make them.
#[derive(Default)]
pub(in crate::link) struct Wrong {
    documents: HashSet<Key, KeyHasher>,
    pub counts: Counts,
}

impl Wrong {
    pub fn contains(&self, id: &str) -> bool {
        self.documents.contains(&IdHasher.key(id))
    }
}

/// A page of the index's ids, as far as they have no row.
pub(in crate::link) struct Sought {
    pub documents: Vec<(String, Vec<KeyPart>)>,
    /// How many were looked for, and how many no row can have.
    pub looked_for: u64,
    pub foreign: u64,
    /// Where the next page begins; None behind the last one.
    pub next: Option<String>,
}

impl Comparer {
    /// An error says why rows and documents of this link cannot be compared.
    pub fn new(standing: Standing) -> Result<Self> {
        if let Some(column) = standing.plan.keys().find(|column| !keys::is_readable(&column.ty)) {
            let what = format!(
                "an `_id` cannot be turned back into the key it was made of: column `{}` ({})",
                column.name, column.declared
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let pipeline = pipeline_of(&standing.route)?;
        // Vectors that cost money are not computed to be compared.
        Ok(Self { maker: Maker::new(standing, &Order::default(), pipeline)? })
    }

    pub async fn wrong(&self, chunk: &Chunk) -> Result<Wrong> {
        let pieces = cut(&self.maker.standing, chunk)?;
        let comparing: Vec<_> =
            pieces.iter().map(|piece| compare(&self.maker, piece, Look::Now)).collect();
        let all: Vec<_> = stream::iter(comparing).buffered(PIECES_MAX).try_collect().await?;
        let mut wrong = Wrong::default();
        for seen in all {
            wrong.counts.rows += seen.rows as u64;
            for (suspect, kind, _) in seen.suspects {
                wrong.documents.insert(IdHasher.key(&suspect.id));
                wrong.counts.add(kind);
            }
        }
        Ok(wrong)
    }

    /// Looks through the documents whose version is below `below`.
    pub async fn without_rows(
        &self,
        conn: &mut Option<Conn>,
        below: Version,
        after: Option<&str>,
    ) -> Result<Sought> {
        let standing = &self.maker.standing;
        let route = &standing.route;
        let page = route.sink.older(&route.target, below, after).await?;
        let looked = look_up(standing, conn, page.ids, |_| true).await?;
        let (mut documents, mut foreign) = (Vec::new(), 0);
        for suspect in looked.without_rows {
            match suspect.key {
                Some(key) => documents.push((suspect.id, key)),
                None => foreign += 1,
            }
        }
        Ok(Sought { documents, looked_for: looked.documents as u64, foreign, next: page.next })
    }
}

impl Counts {
    /// Counts a difference of this kind.
    pub(super) fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Missing => self.missing += 1,
            Kind::Different => self.different += 1,
            Kind::StaleVector => self.stale_vectors += 1,
            Kind::Extra => self.extra += 1,
            Kind::Foreign => self.foreign += 1,
            Kind::Unjudged => self.unjudged += 1,
        }
    }
}
