//! The one who keeps changing rows while people look: small commits, several a second, only of rows that the demo made.
//! Knows no index.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::catalogue::{self, draw, product};
use super::shop::Shop;
use crate::error::Result;

/// Between two commits.
const PAUSE_MS: [u64; 4] = [120, 200, 280, 400];
/// After a commit failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A commit that takes longer when all is to end is left alone.
const STOP_MAX: Duration = Duration::from_secs(3);

const FACTORS: [f64; 6] = [0.80, 0.90, 0.95, 1.05, 1.10, 1.25];
const ORDERS: [i32; 5] = [-1, -1, -2, -5, 24];
const OFFERS: [&str; 8] = [
    "with free returns.",
    "with two years of warranty.",
    "with a spare part in the box.",
    "packed without plastic.",
    "ready to collect in the shop.",
    "with free engraving.",
    "in the last boxes of the season.",
    "with a repair guide in print.",
];

pub(super) struct Writer {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Writer {
    pub fn start(shop: Shop) -> Self {
        let (stop, stopped) = watch::channel(false);
        let ids = (1..=catalogue::ROWS).collect();
        let changes = Changes { shop, ids, number: 0, is_well: true };
        Self { stop, task: tokio::spawn(changes.run(stopped)) }
    }

    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(STOP_MAX, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
    }
}

struct Changes {
    shop: Shop,
    /// The rows that the demo made and that are there.
    ids: Vec<u32>,
    /// Of the next change; it decides everything about it.
    number: u64,
    is_well: bool,
}

impl Changes {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let pause = match self.is_well {
                true => Duration::from_millis(*draw(&PAUSE_MS, self.number, "pause")),
                false => PAUSE_AFTER_FAILURE,
            };
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
            let changed = match self.is_well {
                true => self.change().await,
                false => self.shop.open_again().await,
            };
            if let Err(error) = &changed
                && self.is_well
            {
                tracing::warn!(error = %error.report(), "the demo cannot change its rows just now");
            }
            self.is_well = changed.is_ok();
        }
    }

    async fn change(&mut self) -> Result<()> {
        let number = self.number;
        self.number += 1;
        let is_full = self.ids.len() > catalogue::ROWS as usize;
        let at = catalogue::hash(number, "row") as usize % self.ids.len().max(1);
        let Some(&id) = self.ids.get(at) else { return self.insert(number).await };
        match catalogue::hash(number, "kind") % 12 {
            0..=3 => self.shop.change_price(id, *draw(&FACTORS, number, "price")).await,
            4..=6 => self.shop.change_stock(id, *draw(&ORDERS, number, "stock")).await,
            7..=8 => self.shop.change_offer(id, draw::<&str>(&OFFERS, number, "offer")).await,
            9..=10 if is_full => {
                self.shop.delete(id).await?;
                self.ids.swap_remove(at);
                Ok(())
            }
            _ => self.insert(number).await,
        }
    }

    async fn insert(&mut self, number: u64) -> Result<()> {
        let id = self.shop.insert(product(u64::from(catalogue::ROWS) + 1 + number)).await?;
        self.ids.push(id);
        Ok(())
    }
}
