//! Verifies links by themselves, one after the other: each so long after it was last looked at as a whole as it, or the
//! configuration, says.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Order;
use crate::link::control::Control;
use crate::link::status::{State, unix_seconds};

/// How often it is looked whether a link is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A verification that broke off is begun again so much later.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

impl Control {
    /// Goes on until it is dropped.
    pub(in crate::link) async fn verify_when_due(self) {
        if self.inner.parts.source.files().is_some() {
            return;
        }
        let mut broken_off: HashMap<String, Instant> = HashMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for link in self.inner.ids() {
                let rests = broken_off.get(&link).is_some_and(|at| at.elapsed() < AGAIN_AFTER);
                let Some(order) = self.due(&link).filter(|_| !rests) else { continue };
                match self.verify(&order).await {
                    Ok(_) => drop(broken_off.remove(&link)),
                    Err(error) => {
                        tracing::warn!(link, error = %error.report(), "the link could not be verified");
                        broken_off.insert(link, Instant::now());
                    }
                }
            }
        }
    }

    fn due(&self, link: &str) -> Option<Order> {
        let (record, live) = self.inner.record_of(link)?;
        let config = &self.inner.parts.link;
        let every = record.verify_every_secs.unwrap_or(config.verify_every_secs);
        let last = record.verified.map_or(record.created_at, |verified| verified.at);
        let is_due = every > 0 && unix_seconds().saturating_sub(last) >= every;
        let repair = record.verify_repair.unwrap_or(config.verify_repair);
        let order = || Order { link: link.to_owned(), repair, ..Order::default() };
        (is_due && live.phase() == State::Running).then(order)
    }
}
