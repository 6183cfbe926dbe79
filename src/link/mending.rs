//! The copy of a link whose place in the log is gone. Its documents are there, and most of them are right: it writes what
//! differs, and deletes what has no row. Everything else of it is as with any copy (`copying`).
//!
//! *Rows.* A chunk is read in a window, and then its documents, realtime. Take a row of it whose key was not recorded: the
//! SELECT showed it as of the place P at which the window was opened (`source::snapshot::window`). What the stream brought
//! of it up to P ends in this state, written or on its way. If the document was seen to be what the row makes it, then
//! nothing need be written: what was on its way to it by then ends in the same, and what follows P is recorded or follows in
//! the stream. If it was not, the row is written, as by any copy, with a version above all before P.
//!
//! *Documents without a row.* Behind the last chunk the documents are looked through whose versions are from before the
//! copy; younger ones are written by the stream or the copy, and the stream deletes what it must. Their keys are looked for
//! in the table. Those that are not found are suspects; at a boundary B they are read again by key, when the source has
//! executed everything up to B, and what is not there is deleted with a version below all that will come from behind B
//! (`inquiry` has the argument). Nothing is missed: a document that has had no row since the copy began is there when it is
//! looked for.
//!
//! *Killed in the middle*, the rows go on behind the last chunk whose differences are acknowledged; the ids begin anew.
//!
//! *Where rows and documents cannot be compared* (the index does not keep what is written to it; ids cannot be turned back
//! into keys) the whole table is copied, from its first row on, for documents that were left as they are have versions
//! from before the copy, and a sweep by versions would take them.

use crate::error::{Error, ErrorKind};
use crate::link::copy::Request;
use crate::link::copying::Copying;
use crate::link::end::End;
use crate::link::inquiry::Rewrite;
use crate::link::status::Verification;
use crate::link::verify::{Comparer, Counts, Sought, Wrong};
use crate::link::worker::Worker;
use crate::position::Version;

/// Rows that are read again at once; the stream stands still meanwhile.
const JUDGED_AT_ONCE: usize = 256;

impl Worker {
    /// For a copy that writes only what differs.
    pub(super) fn comparer(&mut self) -> Result<Option<Comparer>, End> {
        if !self.snapshot.compares {
            return Ok(None);
        }
        match Comparer::new(self.standing()) {
            Ok(comparer) => Ok(Some(comparer)),
            Err(error) => {
                self.give_comparing_up(&error);
                Ok(None)
            }
        }
    }

    /// Begins anew as a copy of all rows.
    pub(super) fn give_comparing_up(&mut self, why: &Error) {
        let why = why.report();
        tracing::warn!(link = self.setup.link, reason = why, "the whole table is copied");
        self.setup.live.set_note(format!(
            "the whole table is copied again: its rows and documents cannot be compared: {why}"
        ));
        self.copy_anew(None);
        self.snapshot.compares = false;
    }

    pub(super) fn note_compared(&mut self, wrong: &Wrong) {
        let metrics = &self.setup.live.metrics;
        metrics.verify_rows.inc_by(wrong.counts.rows);
        metrics.verify_repaired.inc_by(wrong.counts.differences());
        self.mended.merge(&wrong.counts);
    }

    /// Every row was compared: goes on with the documents that have none, or to the end.
    pub(super) async fn end_rows(&mut self) -> Result<(), End> {
        if self.snapshot.compares && self.snapshot.sweep_below.is_some() {
            return self.seek(None).await;
        }
        self.finish_snapshot().await
    }

    async fn seek(&mut self, after: Option<String>) -> Result<(), End> {
        if let (Some(copier), Some(below)) = (&self.setup.copier, self.snapshot.sweep_below) {
            copier.ask(Request::Extras { below: Version(below), after }).await?;
            self.copying = Copying::Seeking;
        }
        Ok(())
    }

    /// At a boundary: deletes those that have no row now.
    pub(super) async fn judge_sought(&mut self, mut sought: Sought) -> Result<(), End> {
        while !sought.documents.is_empty() {
            let later = sought.documents.split_off(sought.documents.len().min(JUDGED_AT_ONCE));
            let documents = sought.documents.clone();
            let count = documents.len() as u64;
            match self.rewrite(Rewrite { documents, may_delete: true }).await? {
                Ok(()) => {
                    self.mended.extra += count;
                    self.setup.live.metrics.verify_repaired.inc_by(count);
                    sought.documents = later;
                }
                Err(error) => {
                    // The table is another one by now, and the stream will bring the statement.
                    debug_assert_eq!(error.kind(), ErrorKind::Schema);
                    sought.documents.extend(later);
                    self.copying = Copying::Sought(sought);
                    return Ok(());
                }
            }
        }
        self.setup.live.metrics.verify_documents.inc_by(sought.looked_for);
        self.mended.documents += sought.looked_for;
        self.mended.foreign += sought.foreign;
        self.show_mended();
        self.setup.lanes.send_to_idle().await?;
        match sought.next {
            Some(next) => self.seek(Some(next)).await,
            None => self.finish_snapshot().await,
        }
    }

    pub(super) fn show_mended(&self) {
        self.setup.live.show_mending(Some(Verification {
            rows: self.snapshot.rows,
            documents: self.mended.documents,
            differences: self.mended.differences(),
            waits_for: String::new(),
        }));
    }

    /// The copy that compared is done.
    pub(super) fn tell_mended(&mut self) {
        let counts = std::mem::take(&mut self.mended);
        self.setup.live.show_mending(None);
        tracing::info!(
            link = self.setup.link,
            rows = counts.rows,
            missing = counts.missing,
            different = counts.different + counts.stale_vectors,
            extra = counts.extra,
            foreign = counts.foreign,
            "what differed from the table is mended"
        );
    }
}

impl Counts {
    fn merge(&mut self, other: &Counts) {
        let Counts { rows, missing, different, stale_vectors, .. } = *other;
        self.rows += rows;
        self.missing += missing;
        self.different += different;
        self.stale_vectors += stale_vectors;
    }
}
