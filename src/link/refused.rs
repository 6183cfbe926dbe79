//! Rows that cannot be made documents: an `_id` that is too long, a value that does not agree with its column's character
//! set. Each becomes a dead letter, and what can be done without it is done.

use crate::change::{Change, ChangeKind, Row, Value};
use crate::document::{Action, DocOp, IdHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::link::end::End;
use crate::link::left_out::key_of_values;
use crate::link::letters::Refusal;
use crate::link::worker::Worker;
use crate::mapping;
use crate::position::Version;
use crate::state::KeyPart;

impl Worker {
    /// Takes in a change of which the mapping could not make operations: those of its two images that can be made.
    pub(super) fn take_refused(
        &mut self,
        change: &Change<'_>,
        n: u64,
        why: Error,
    ) -> Result<(), End> {
        if why.kind() != ErrorKind::DocumentRefused {
            return Err(why.into());
        }
        let (plan, epoch) = (self.setup.plan.clone(), self.at.epoch);
        let version = |row: &Row<'_>| epoch.version(n, row.offset);
        let before = (change.kind != ChangeKind::Insert).then(|| id_of(&plan, &change.before));
        let after = (change.kind != ChangeKind::Delete).then(|| id_of(&plan, &change.after));
        match before {
            // It never was a document.
            Some(Err(_)) => {
                let document = stand_in(&plan, &change.before.values)?;
                self.setup.route.letters.forget(&document, version(&change.before))?;
            }
            Some(Ok(id)) if !matches!(&after, Some(Ok(other)) if *other == id) => {
                self.put_one(Action::Delete, &id, version(&change.before), &[]);
            }
            Some(Ok(_)) | None => {}
        }
        let version = version(&change.after);
        match after {
            None => Ok(()),
            Some(Err(error)) => {
                let document = stand_in(&plan, &change.after.values)?;
                self.refuse(&document, version, &error)
            }
            Some(Ok(id)) => {
                let mut body = Vec::new();
                match plan.body(&change.after.values, &mut body) {
                    Ok(()) => self.put_one(Action::Upsert, &id, version, &body),
                    Err(error) => self.refuse(&id, version, &error)?,
                }
                Ok(())
            }
        }
    }

    fn put_one(&mut self, action: Action, id: &str, version: Version, body: &[u8]) {
        self.left_out.supersede(id);
        self.setup.lanes.put(DocOp { action, id, key: IdHasher.key(id), version, body });
    }

    /// Keeps the row of this document as a dead letter, if it is the row's fault.
    pub(super) fn refuse(
        &mut self,
        document: &str,
        version: Version,
        why: &Error,
    ) -> Result<(), End> {
        let copy = || {
            let error = Error::new(why.kind(), why.to_string());
            why.advice().into_iter().fold(error, |error, advice| error.with_advice(advice))
        };
        if why.kind() != ErrorKind::DocumentRefused {
            return Err(copy().into());
        }
        let route = self.setup.route.clone();
        let refusal = Refusal {
            stage: "row",
            action: Action::Upsert,
            document,
            key: IdHasher.key(document),
            version,
            reason: &why.report(),
            table: &route.table,
            behind: self.setup.live.position(),
            body: &[],
        };
        route.live.metrics.documents_refused.inc();
        match route.letters.keep(&refusal)? {
            true => Ok(()),
            false => Err(End::Failed(route.letters.too_many(copy()))),
        }
    }
}

fn id_of(plan: &mapping::Plan, row: &Row<'_>) -> Result<String> {
    let mut id = String::new();
    plan.id(&row.values, &mut id).map(|()| id)
}

/// What names a row in the place of an `_id` that it cannot have: its key.
pub(super) fn stand_in(plan: &mapping::Plan, values: &[Value<'_>]) -> Result<String> {
    let part = |part: &KeyPart| match part {
        KeyPart::Int(number) => number.to_string(),
        KeyPart::UInt(number) => number.to_string(),
        KeyPart::Text(text) => text.clone(),
        KeyPart::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    };
    let parts = key_of_values(plan, values)?;
    Ok(parts.iter().map(part).collect::<Vec<_>>().join("|"))
}
