//! How much of a model is used at once: requests under way, and texts in a request. Knows neither.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug, Clone)]
pub struct Limits {
    permits: Arc<Semaphore>,
    texts: usize,
    concurrency: usize,
}

impl Limits {
    pub fn new(concurrency: usize, texts: usize) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(concurrency)), texts: texts.max(1), concurrency }
    }

    /// Texts in one request.
    pub fn texts(&self) -> usize {
        self.texts
    }

    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Waits for its turn; the turn ends when the permit is dropped.
    pub async fn turn(&self) -> OwnedSemaphorePermit {
        self.permits.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}
