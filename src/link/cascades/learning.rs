//! Which foreign keys there are: read when the link begins, and again behind each statement that can have changed them or
//! the tables that they lead to.
//!
//! What is read is as of the moment of reading. Until the stream has covered that moment it is not proven, and a change of
//! a parent in between makes the table be copied again, once. The copy begins when all is proven.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::flow::backoff::Backoff;
use crate::link::altering::Holding;
use crate::link::copy::{Subject, Waiting};
use crate::link::end::End;
use crate::link::worker::Worker;
use crate::naive::{Rule, is_naive};
use crate::position::GtidSet;
use crate::source::ddl;
use crate::source::server::Server;
use crate::source::snapshot::{view, watermark};
use crate::source::stream::Ddl;
use crate::source::{control, foreign_keys};
use crate::state::FamilyRecord;
use crate::table::{Family, TableId};

/// Whether a statement can have changed the keys, or a table that they lead to.
pub(in crate::link) fn concerns(
    family: &Family,
    table: &TableId,
    statement: &str,
    db: &str,
) -> bool {
    let read = ddl::read(statement, db);
    if family.tables(table).iter().any(|parent| read.names(parent)) {
        return true;
    }
    read.names(table) && (!family.keys.is_empty() || speaks_of_keys(statement))
}

/// Whether the statement can have made or taken a foreign key; another table that takes the name brings its own.
fn speaks_of_keys(statement: &str) -> bool {
    names_keys(statement) || statement.to_ascii_uppercase().contains("RENAME")
}

fn names_keys(statement: &str) -> bool {
    let text = statement.to_ascii_uppercase();
    ["FOREIGN", "REFERENCES", "CONSTRAINT"].iter().any(|word| text.contains(word))
}

impl Worker {
    /// Reads the keys again behind a statement that concerns them.
    pub(in crate::link) async fn take_ddl_of_keys(&mut self, ddl: &Ddl) -> Result<(), End> {
        let own = self.setup.def.id.clone();
        // Files have no server that could be asked.
        let cannot_ask = self.setup.subject.source.files().is_some();
        if is_naive(Rule::Cascades)
            || cannot_ask
            || !concerns(&self.cascades.family, &own, &ddl.statement, &ddl.db)
        {
            return Ok(());
        }
        self.is_at_boundary = false;
        let (subject, behind) = (self.setup.subject.clone(), ddl.behind.clone());
        let reading = async move { read_patiently(&subject, &behind).await };
        let (family, read_at) = self.meanwhile(reading).await??;
        let mut alone = GtidSet::default();
        alone.insert(&ddl.gtid);
        let record = FamilyRecord { family, behind: alone, read_at };
        self.setup.state.families().put(&self.setup.link, &record)?;
        let FamilyRecord { family, read_at, .. } = record;
        let tables = family.tables(&own);
        if !tables.is_subset(&self.setup.followed) {
            let what = format!(
                "the foreign keys of {own} lead to {} now; the stream begins again with it",
                names(tables.difference(&self.setup.followed).cloned().collect())
            );
            return Err(End::Again(Error::new(ErrorKind::SourceUnreachable, what)));
        }
        let had = self.cascades.family.keys.clone();
        let is_new = family.of_child(&own).any(|(_, key)| !had.contains(key));
        if family.keys != had {
            tracing::info!(
                link = self.setup.link,
                keys = family.keys.len(),
                "the foreign keys have changed"
            );
        }
        if is_new {
            // Which rows refer by it is known to nobody yet.
            self.copy_for_keys();
        }
        let none = had.is_empty() && family.keys.is_empty();
        let is_in_doubt: fn(&str) -> bool = if none { names_keys } else { speaks_of_keys };
        if self.cascades.unproven.is_some() && is_in_doubt(&ddl.statement) {
            // What was read behind an earlier statement may be what this one made, or what it took away.
            self.meet_unknown("its foreign keys were changed more than once")?;
        }
        self.cascades.learn(family, read_at);
        self.bind_cascades();
        Ok(())
    }

    fn copy_for_keys(&mut self) {
        if !self.snapshot.again && self.snapshot.done {
            self.setup.live.set_note(format!(
                "{} is copied again, to learn which of its rows refer to which by its foreign keys",
                self.setup.def.id
            ));
        }
        self.snapshot.again = true;
    }

    /// Finds the columns again: the table's definition or its keys are others.
    pub(in crate::link) fn bind_cascades(&mut self) {
        let (def, plan) = (self.setup.def.clone(), self.setup.plan.clone());
        self.cascades.bind(&def, &plan);
        self.forget_decoding();
    }

    /// At a boundary: what was read of the keys may be proven now, and a copy that was put off may begin.
    pub(in crate::link) fn end_learning(&mut self) -> Result<(), End> {
        let unproven = self.cascades.unproven.as_ref();
        if unproven.is_some_and(|until| self.at.position.gtids.covers(until)) {
            self.cascades.unproven = None;
        }
        let is_due = self.snapshot.again
            && self.snapshot.done
            && self.cascades.unproven.is_none()
            && self.holding == Holding::Defined;
        if is_due {
            let sweeps = !self.setup.policy.keeps_documents();
            self.copy_anew(sweeps.then(|| self.at.version()));
            self.start_copier()?;
        }
        Ok(())
    }
}

fn names(tables: BTreeSet<TableId>) -> String {
    tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The keys as the server shows them when it has executed `behind`, and what can have shown in them.
async fn read(subject: &Subject, behind: &GtidSet) -> Result<(Family, GtidSet)> {
    let mut conn = control::connect(&subject.source).await?;
    if Server::of(&mut conn).await?.identity != subject.server.identity {
        let what = "the source's address leads to another server now";
        return Err(Error::new(ErrorKind::SourceLost, what));
    }
    let waiting = Waiting::of(&subject.live);
    view::wait(&mut conn, &subject.server, behind, &|why| waiting.tell(why)).await?;
    drop(waiting);
    let family = foreign_keys::read(&mut conn, &subject.def.id).await?;
    Ok((family, watermark::logged(&mut conn, &subject.server).await?))
}

async fn read_patiently(subject: &Subject, behind: &GtidSet) -> Result<(Family, GtidSet), End> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut had_trouble = false;
    loop {
        match read(subject, behind).await {
            Err(error) if error.remedy() == Remedy::Retry => {
                tracing::warn!(table = %subject.def.id, error = %error.report(), "cannot read the foreign keys yet");
                subject.live.wait_for(error.report());
                had_trouble = true;
                tokio::time::sleep(backoff.next(None)).await;
            }
            Err(error) if error.kind() == ErrorKind::SourceLost => {
                return Err(End::Again(Error::new(ErrorKind::SourceUnreachable, error.report())));
            }
            Err(error) => return Err(error.into()),
            Ok(found) => {
                if had_trouble {
                    subject.live.trouble_is_over();
                }
                return Ok(found);
            }
        }
    }
}

/// Where a link's keys stand when it is brought up.
pub(in crate::link) struct Known {
    pub family: Family,
    pub unproven: Option<GtidSet>,
    /// The index of the table's rows must be filled by a copy.
    pub must_copy: bool,
    /// The source logs what they do.
    pub are_logged: bool,
}

/// What is known of the keys at a checkpoint. A link that was made before they were looked at knows nothing.
pub(in crate::link) fn at_checkpoint(
    stored: Option<FamilyRecord>,
    today: Option<(Family, GtidSet)>,
    passed: &GtidSet,
    are_logged: bool,
) -> Known {
    match (stored, today) {
        (Some(record), _) => {
            let is_from_here = passed.covers(&record.behind);
            let is_proven =
                is_from_here && (record.behind.is_empty() || passed.covers(&record.read_at));
            Known {
                // The keys before the statement are not known any more.
                must_copy: !is_from_here && !record.family.keys.is_empty(),
                unproven: (!is_proven).then_some(record.read_at),
                family: record.family,
                are_logged,
            }
        }
        (None, Some((family, read_at))) => Known {
            must_copy: !family.keys.is_empty(),
            unproven: Some(read_at),
            family,
            are_logged,
        },
        (None, None) => {
            Known { family: Family::default(), unproven: None, must_copy: false, are_logged }
        }
    }
}
