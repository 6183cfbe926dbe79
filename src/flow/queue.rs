//! A queue between two tasks that is bounded in bytes, not in items. Knows nothing of what it carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Makes a queue that holds at most `capacity_bytes`; one larger item alone is let through.
pub fn bounded<T>(capacity_bytes: usize) -> (Sender<T>, Receiver<T>) {
    // A semaphore's permit count is a u32 in `acquire_many`.
    let capacity = capacity_bytes.clamp(1, u32::MAX as usize / 2);
    #[allow(clippy::disallowed_methods, reason = "the permits of `room` bound it, in bytes")]
    let (sender, receiver) = mpsc::unbounded_channel();
    let gauge = Arc::new(AtomicUsize::new(0));
    let room = Arc::new(Semaphore::new(capacity));
    (
        Sender { items: sender, room, capacity, gauge: gauge.clone() },
        Receiver { items: receiver, held: None, gauge },
    )
}

/// The other end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

pub struct Sender<T> {
    items: mpsc::UnboundedSender<Item<T>>,
    room: Arc<Semaphore>,
    capacity: usize,
    gauge: Arc<AtomicUsize>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            items: self.items.clone(),
            room: self.room.clone(),
            capacity: self.capacity,
            gauge: self.gauge.clone(),
        }
    }
}

struct Item<T> {
    value: T,
    bytes: usize,
    /// Gives the room back when it is dropped.
    room: Option<OwnedSemaphorePermit>,
}

/// Room in a queue that is kept for one item.
pub struct Room {
    permit: OwnedSemaphorePermit,
    charged: usize,
}

impl<T> Sender<T> {
    /// Waits until `bytes` of room are free. Cancel safe: a cancelled send has sent nothing.
    pub async fn send(&self, value: T, bytes: usize) -> Result<(), Closed> {
        let room = self.reserve(bytes).await?;
        self.send_reserved(value, room)
    }

    /// Waits for room for `bytes`. Cancel safe.
    pub async fn reserve(&self, bytes: usize) -> Result<Room, Closed> {
        let charged = bytes.clamp(1, self.capacity);
        let acquired = tokio::select! {
            biased;
            acquired = self.room.clone().acquire_many_owned(charged as u32) => acquired,
            () = self.items.closed() => return Err(Closed),
        };
        let permit = acquired.map_err(|_| Closed)?;
        Ok(Room { permit, charged })
    }

    /// Room for `bytes`, if it is free now.
    pub fn try_reserve(&self, bytes: usize) -> Result<Option<Room>, Closed> {
        if self.items.is_closed() {
            return Err(Closed);
        }
        let charged = bytes.clamp(1, self.capacity);
        let permit = self.room.clone().try_acquire_many_owned(charged as u32).ok();
        Ok(permit.map(|permit| Room { permit, charged }))
    }

    pub fn send_reserved(&self, value: T, room: Room) -> Result<(), Closed> {
        self.gauge.fetch_add(room.charged, Ordering::Relaxed);
        let item = Item { value, bytes: room.charged, room: Some(room.permit) };
        self.items.send(item).map_err(|_| Closed)
    }

    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Bytes that wait, without those that are being worked at.
    pub fn bytes(&self) -> usize {
        self.gauge.load(Ordering::Relaxed)
    }
}

pub struct Receiver<T> {
    items: mpsc::UnboundedReceiver<Item<T>>,
    /// Of the item that is being worked at.
    held: Option<OwnedSemaphorePermit>,
    gauge: Arc<AtomicUsize>,
}

impl<T> Receiver<T> {
    /// The next item, or `None` when every sender is gone. Cancel safe.
    pub async fn recv(&mut self) -> Option<T> {
        let item = self.items.recv().await?;
        Some(self.take(item))
    }

    /// The next item, whose room is given back when the one behind it is asked for: what is being worked at is held too.
    /// Cancel safe.
    pub async fn recv_held(&mut self) -> Option<T> {
        self.held = None;
        let mut item = self.items.recv().await?;
        self.held = item.room.take();
        Some(self.take(item))
    }

    pub fn try_recv(&mut self) -> Option<T> {
        let item = self.items.try_recv().ok()?;
        Some(self.take(item))
    }

    /// Nothing will come beside what waits.
    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    pub fn bytes(&self) -> usize {
        self.gauge.load(Ordering::Relaxed)
    }

    fn take(&self, item: Item<T>) -> T {
        self.gauge.fetch_sub(item.bytes, Ordering::Relaxed);
        item.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_makes_the_sender_wait() {
        let (sender, mut receiver) = bounded(10);
        sender.send('a', 6).await.expect("open");
        let second = sender.send('b', 6);
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(receiver.recv().await, Some('a'));
        second.await.expect("open");
        assert_eq!(receiver.bytes(), 6);
    }

    #[tokio::test]
    async fn an_item_larger_than_the_queue_passes_alone() {
        let (sender, mut receiver) = bounded(10);
        sender.send('a', 1_000).await.expect("open");
        assert_eq!(receiver.recv().await, Some('a'));
        assert_eq!(receiver.bytes(), 0);
    }

    #[tokio::test]
    async fn what_is_worked_at_keeps_its_room() {
        let (sender, mut receiver) = bounded(10);
        sender.send('a', 1_000).await.expect("open");
        assert_eq!(receiver.recv_held().await, Some('a'));
        let second = sender.send('b', 1);
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        let (sent, received) = tokio::join!(second, receiver.recv_held());
        assert_eq!((sent, received), (Ok(()), Some('b')));
    }

    #[tokio::test]
    async fn a_waiting_sender_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = bounded(1);
        sender.send('a', 1).await.expect("open");
        let (sent, ()) = tokio::join!(sender.send('b', 1), async { drop(receiver) });
        assert_eq!(sent, Err(Closed));
    }
}
