//! XA transactions in the log: which rows are only prepared, and where they are committed or rolled back.
//!
//! A prepared transaction is two groups of the log. The first holds its rows between XA START and XA PREPARE, under a
//! GTID of its own that is executed at once, though nobody can see the rows. The second, any time later, is one
//! statement: XA COMMIT or XA ROLLBACK. `XA COMMIT … ONE PHASE` is one group, but that shows at its end only, so its rows
//! are handed over as prepared ones too.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::naive::{Rule, is_naive};
use crate::source::binlog::event::XaPrepare;
use crate::source::stream::{Commit, Item, Xa};
use crate::source::xid::Xid;
use crate::table::TableId;

use super::{Follower, Group, START_AGAIN};

impl Group {
    pub(super) fn begin_xa(&mut self) {
        self.has_begun = true;
        if !is_naive(Rule::Prepared) {
            self.xa = self.gtid.as_ref().map(|gtid| Arc::from(gtid.to_string()));
        }
    }

    fn commit_at(&self, n: u64) -> Commit {
        Commit { n, committed_at_us: self.committed_at_us, gtid: self.gtid.clone() }
    }
}

impl Follower {
    /// The end of a group that XA START began; `self.n` is still before the event.
    pub(super) fn follow_xa_prepare(&mut self, event: &XaPrepare<'_>) {
        let n = self.n;
        let Some(group) = &self.group else { return };
        let Some(gtid) = group.xa.clone() else { return };
        let at = group.commit_at(n);
        let step = match event.one_phase {
            true => Xa::CommittedAtOnce { group: gtid, at },
            false => Xa::Prepared { xid: Xid::of_event(event), group: gtid },
        };
        self.tell_of_xa(&step, n);
    }

    /// XA COMMIT or XA ROLLBACK, whose event `n` counted bytes precede. It ends its group.
    pub(super) fn follow_xa_end(&mut self, statement: &str, commits: bool, n: u64) {
        let Some(group) = &self.group else { return };
        let at = group.commit_at(n);
        let step = match (Xid::of_statement(statement), commits, group.xa.clone()) {
            (None, ..) => None,
            (Some(xid), false, _) => Some(Xa::RolledBack { xid }),
            (Some(xid), true, None) => Some(Xa::Committed { xid, at }),
            (Some(_), true, Some(group)) => Some(Xa::CommittedAtOnce { group, at }),
        };
        match step {
            Some(step) => self.tell_of_xa(&step, n),
            None => self.tell_all(n, |table| unreadable(table, statement)),
        }
        self.end_group();
    }

    fn tell_of_xa(&mut self, step: &Xa, n: u64) {
        if is_naive(Rule::Prepared) {
            return;
        }
        let gtid = self.group.as_ref().and_then(|group| group.gtid.as_ref());
        for subscriber in self.subscribers.iter_mut().filter(|s| s.wants(gtid)) {
            subscriber.push(Item::Xa { step: step.clone(), n });
        }
    }
}

fn unreadable(table: &TableId, statement: &str) -> Error {
    let what = format!(
        "which XA transaction ends is not to be read from `{statement}`, and it may have changed {table}"
    );
    Error::new(ErrorKind::Unsupported, what).with_advice(START_AGAIN)
}
