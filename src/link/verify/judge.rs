//! Judges suspects: which of them are differences that no change on its way explains, and what becomes of those. The
//! argument stands at the head of `verify`.

use std::time::Duration;

use hashbrown::HashMap;

use super::expected::{Expected, Maker};
use super::{Kind, Suspect, Verifier};
use crate::document::IdHasher;
use crate::error::{Remedy, Result};
use crate::link::inquiry::{Keys, Rewrite};
use crate::position::Version;
use crate::sink::Stored;
use crate::source::snapshot::{scan, view, watermark};
use crate::state::KeyPart;

/// Suspects that are judged at once: a round takes as long as the link is behind, however many there are.
const JUDGED_MAX: usize = 2_000;

/// Rounds after which a document that changes in each of them is given up.
const ROUNDS_MAX: u32 = 30;

/// How often a document is written anew before it is said that this does not help. Behind the first time the link takes
/// versions above the document's.
const REWRITTEN_MAX: u32 = 3;

/// Rows that are written anew at once; the stream stands still while they are read.
const REWRITTEN_AT_ONCE: usize = 256;

/// What a round says of one suspect.
enum Finding {
    Right,
    /// Also the version of the document that is there.
    Wrong(Kind, Vec<String>, Version),
    /// It was operated on meanwhile.
    Changing,
}

impl Verifier<'_> {
    /// Until no more suspects than these are left. Those that are changing are judged again with the next ones.
    pub(super) async fn judge(&mut self, left_max: usize) -> Result<()> {
        while self.suspects.len() > left_max {
            let rest = self.suspects.split_off(self.suspects.len().min(JUDGED_MAX));
            let batch = std::mem::replace(&mut self.suspects, rest);
            match self.round(&batch).await {
                Ok(findings) => self.take_findings(batch, findings).await?,
                Err(error) if error.remedy() == Remedy::Retry => {
                    self.suspects.extend(batch);
                    self.recover(error).await?;
                }
                Err(error) => return Err(error),
            }
            self.show();
        }
        Ok(())
    }

    async fn round(&mut self, batch: &[Suspect]) -> Result<Vec<Finding>> {
        let documents: Keys = batch.iter().map(|suspect| IdHasher.key(&suspect.id)).collect();
        self.link.watch(documents).await?;
        let standing = self.link.standing.clone();
        let server = &standing.subject.server;
        let logged = watermark::settled(self.conn().await?, server).await?;
        standing.subject.open(self.conn().await?, &logged).await?;
        let bodies = self.rows_of(batch).await?;
        let conn = self.conn().await?;
        view::close(conn, server).await?;
        let covers = watermark::settled(conn, server).await?;
        let maker = Maker::new(standing, self.order, self.link.pipeline()?)?;
        let (ids, bodies): (Vec<String>, Vec<Vec<u8>>) = bodies.into_iter().unzip();
        let named = ids.iter().map(String::as_str).zip(bodies).collect();
        let (live, link) = (&self.live, &self.link);
        let settling = link.settle(covers, live, &mut self.shown);
        let ((), expected) = tokio::try_join!(settling, maker.make(named))?;
        let expected: HashMap<&str, &Expected> =
            ids.iter().map(String::as_str).zip(&expected).collect();
        let all: Vec<&str> = batch.iter().map(|suspect| suspect.id.as_str()).collect();
        let route = &maker.standing.route;
        let found = route.sink.read(&route.target, &all).await?;
        let touched = self.link.touched().await?;
        let finding = |(suspect, found): (&Suspect, &Option<Stored>)| {
            let id = suspect.id.as_str();
            let expected = expected.get(id).copied();
            match maker.judge(expected, found.as_ref(), suspect.key.is_some()) {
                None => Finding::Right,
                Some(_) if touched.contains(&IdHasher.key(id)) => Finding::Changing,
                Some((kind, fields)) => {
                    let version = found.as_ref().map(|found| found.version);
                    Finding::Wrong(kind, fields, version.unwrap_or_default())
                }
            }
        };
        Ok(batch.iter().zip(&found).map(finding).collect())
    }

    /// The documents that the mapping makes of the suspects' rows, as far as there are any.
    async fn rows_of(&mut self, batch: &[Suspect]) -> Result<HashMap<String, Vec<u8>>> {
        let keys: Vec<Vec<KeyPart>> =
            batch.iter().filter_map(|suspect| suspect.key.clone()).collect();
        let mut bodies = HashMap::new();
        if keys.is_empty() {
            return Ok(bodies);
        }
        let (plan, subject) = (self.link.standing.plan.clone(), self.link.standing.subject.clone());
        let key: Vec<usize> = plan.key_ordinals().collect();
        let (def, wanted) = (&subject.def, &subject.wanted);
        let rows = scan::find(self.conn().await?, def, wanted, &key, &keys).await?;
        let types: Vec<_> = wanted.iter().map(|at| &def.columns[*at].ty).collect();
        for row in 0..rows.len() {
            let (id, body) = rows.with_row(row, &types, |values| {
                let (mut id, mut body) = (String::new(), Vec::new());
                plan.id(values, &mut id)?;
                plan.body(values, &mut body)?;
                Ok((id, body))
            })?;
            bodies.insert(id, body);
        }
        Ok(bodies)
    }

    async fn take_findings(&mut self, batch: Vec<Suspect>, findings: Vec<Finding>) -> Result<()> {
        let (mut again, mut wrong) = (Vec::new(), Vec::new());
        let mut above = None;
        for (mut suspect, finding) in batch.into_iter().zip(findings) {
            match (finding, suspect.found.take()) {
                (Finding::Right, None) => {}
                (Finding::Right, Some((kind, fields))) => {
                    self.record(kind, suspect.id, fields, true)?;
                }
                (Finding::Changing, found) if suspect.rounds + 1 < ROUNDS_MAX => {
                    suspect.rounds += 1;
                    suspect.found = found;
                    again.push(suspect);
                }
                // A change has written it since it was found.
                (Finding::Changing, Some((kind, fields))) => {
                    self.record(kind, suspect.id, fields, true)?;
                }
                (Finding::Changing, None) => {
                    self.record(Kind::Unjudged, suspect.id, Vec::new(), false)?;
                }
                (Finding::Wrong(kind, fields, version), found) => {
                    if suspect.rewritten > 0 && !self.is_refused(&suspect.id) {
                        above = above.max(Some(version));
                    }
                    suspect.found = Some(found.unwrap_or((kind, fields)));
                    wrong.push(suspect);
                }
            }
        }
        if let Some(above) = above.filter(|_| !std::mem::replace(&mut self.has_outgrown, true))
            && let Err(error) = self.link.outgrow(above).await
        {
            self.recover(error).await?;
        }
        let wrong = self.rewrite(wrong).await?;
        for suspect in wrong {
            if let Some((kind, fields)) = suspect.found {
                self.record(kind, suspect.id, fields, false)?;
            }
        }
        if let Some(rounds) = again.iter().map(|suspect| suspect.rounds).max() {
            tokio::time::sleep(Duration::from_millis(10 << rounds.min(5))).await;
            self.suspects.extend(again);
        }
        Ok(())
    }

    /// Has those written anew that shall be and can be, and makes them suspects again; gives the others back.
    async fn rewrite(&mut self, wrong: Vec<Suspect>) -> Result<Vec<Suspect>> {
        let may_delete = self.why_kept.is_none();
        let is_to_do = |suspect: &Suspect| {
            let is_kept = |(kind, _): &(Kind, _)| match kind {
                Kind::Extra => !may_delete,
                Kind::Foreign | Kind::Unjudged => true,
                Kind::Missing | Kind::Different | Kind::StaleVector => false,
            };
            let is_refused = suspect.rewritten > 0 && self.is_refused(&suspect.id);
            self.order.repair
                && suspect.rewritten < REWRITTEN_MAX
                && !is_refused
                && !suspect.found.as_ref().is_some_and(is_kept)
        };
        let (mut to_do, rest): (Vec<_>, Vec<_>) = wrong.into_iter().partition(is_to_do);
        while !to_do.is_empty() {
            let later = to_do.split_off(to_do.len().min(REWRITTEN_AT_ONCE));
            let mut part = std::mem::replace(&mut to_do, later);
            let keyed = |suspect: &Suspect| Some((suspect.id.clone(), suspect.key.clone()?));
            let documents = part.iter().filter_map(keyed).collect();
            match self.link.rewrite(Rewrite { documents, may_delete }).await {
                Ok(()) => part.iter_mut().for_each(|suspect| suspect.rewritten += 1),
                // The link begins again, perhaps for what was to be written. They are looked at once more.
                Err(error) if error.remedy() == Remedy::Retry => self.recover(error).await?,
                Err(error) => return Err(error),
            }
            self.suspects.extend(part);
        }
        Ok(rest)
    }
}
