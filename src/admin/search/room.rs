//! How much may be under way at once: bytes of bodies with what becomes of them, and searches. Who comes when there is no
//! room waits, and is told to come again when that takes long. Knows no requests.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::BODY_BYTES_MAX;
use crate::index::{Answer, Fault};

/// All bodies that are being read or answered.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// Each looks at everything that matches, on a thread of its own.
const SEARCHES_MAX: usize = 4;
const WAITING_MAX: Duration = Duration::from_secs(30);

static BODIES: Semaphore = Semaphore::const_new(BODIES_BYTES_MAX);
static SEARCHES: Semaphore = Semaphore::const_new(SEARCHES_MAX);

/// Given back when it is dropped.
pub type Room = SemaphorePermit<'static>;

/// Room for a body of this length; for one that does not say it, as much as it may have.
pub async fn room_for_body(length: Option<usize>) -> Answer<Room> {
    room(&BODIES, length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX)).await
}

pub async fn room_for_search() -> Answer<Room> {
    room(&SEARCHES, 1).await
}

async fn room(all: &'static Semaphore, wanted: usize) -> Answer<Room> {
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    match tokio::time::timeout(WAITING_MAX, all.acquire_many(wanted)).await {
        Ok(Ok(room)) => Ok(room),
        _ => Err(Fault::new(
            429,
            "rejected_execution_exception",
            "too much is under way already; ask again",
        )),
    }
}
