//! Deletes the documents that have no row, found by their versions, while the stream stands still.
//!
//! Why that is right. *Before*, everything that the link has put into its lanes is acknowledged, and the index is
//! refreshed, so the search sees the newest version of every document. *Meanwhile* nothing is taken from the stream, so
//! a document that is found below the bound has no newer operation in any lane, and its delete, which is put behind
//! everything before and ahead of everything that follows, carries a version between theirs. *After a crash* the
//! replay comes here again: what was written by then from further on in the stream has a higher version, and the delete
//! conflicts with it, as it must.
//!
//! For TRUNCATE and DROP the bound is the statement's version: every document before it. After a copy the bound is the
//! version at which the copy began: each row that is there has been written since, by the copy or by the stream, so a
//! document below has no row. Not the version of the statement that asked for the copy: where rows behind it are not
//! decoded, an earlier life of the link may have got beyond them and written documents whose deletes are now stepped over.

use std::time::Duration;

use crate::document::{Action, DocOp, IdHasher};
use crate::error::Remedy;
use crate::flow::backoff::Backoff;
use crate::link::end::End;
use crate::link::worker::Worker;
use crate::naive::{Rule, is_naive};
use crate::position::Version;

impl Worker {
    /// Puts the delete of every document below `below` into the lanes, under `version`; gives their number.
    pub(super) async fn purge(&mut self, below: Version, version: Version) -> Result<u64, End> {
        if !is_naive(Rule::Destructive) {
            self.acknowledged().await?;
        }
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let (mut count, mut after) = (0, None::<String>);
        let mut had_trouble = false;
        loop {
            let (route, from) = (self.setup.route.clone(), after.clone());
            let asking =
                async move { route.sink.older(&route.target, below, from.as_deref()).await };
            let page = match self.meanwhile(asking).await? {
                Ok(page) => page,
                Err(error) if error.remedy() == Remedy::Retry => {
                    tracing::warn!(link = self.setup.link, error = %error.report(), "cannot look through the index yet");
                    self.setup.live.wait_for(error.report());
                    had_trouble = true;
                    // From the beginning: what was found again is deleted again under the same version.
                    after = None;
                    self.meanwhile(tokio::time::sleep(backoff.next(None))).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            count += page.ids.len() as u64;
            for id in &page.ids {
                let key = IdHasher.key(id);
                let op = DocOp { action: Action::Delete, id, key, version, body: &[] };
                self.setup.lanes.put(op);
                if self.setup.lanes.any_is_full() {
                    self.send_full().await?;
                }
            }
            self.setup.lanes.send_to_idle().await?;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if had_trouble {
            self.setup.live.trouble_is_over();
        }
        self.setup.route.letters.forget_below(below)?;
        Ok(count)
    }
}
