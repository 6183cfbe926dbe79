//! A link's lanes as its worker sees them: a batch that is being filled for each, and what was sent. Nagle without
//! waiting: an idle lane is sent to at once, a busy one fills its batch.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::document::{Action, Batch, DocOp, Key, KeyHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::lane::Number;
use crate::flow::queue;
use crate::link::end::End;
use crate::link::lane::{self, Route, Shared};

/// How a link's lanes are laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub lanes: usize,
    pub in_flight_max: usize,
    pub bulk_bytes: usize,
    pub bulk_documents: usize,
}

/// Far longer than it takes a task to end.
const END_FOLLOWS_IN: Duration = Duration::from_secs(5);

pub(super) struct Lanes {
    lanes: Vec<One>,
    tasks: JoinSet<()>,
    ends: mpsc::Receiver<End>,
    progress: Arc<Notify>,
    layout: Layout,
    watch: Option<Watch>,
}

/// Documents of which somebody wants to know whether anything is done to them.
struct Watch {
    documents: HashSet<Key, KeyHasher>,
    touched: HashSet<Key, KeyHasher>,
}

struct One {
    open: Batch,
    sent: Number,
    queue: queue::Sender<(Number, Batch)>,
    shared: Arc<Shared>,
}

impl Lanes {
    pub fn start(route: Arc<Route>, layout: Layout) -> Self {
        let progress = Arc::new(Notify::new());
        let (end_sender, ends) = mpsc::channel(layout.lanes.max(1));
        let mut tasks = JoinSet::new();
        let lanes = (0..layout.lanes.max(1))
            .map(|_| {
                let shared = Arc::new(Shared::new(layout.in_flight_max, progress.clone()));
                let (queue, input) = queue::bounded(layout.bulk_bytes);
                let (route, task_shared) = (route.clone(), shared.clone());
                let end_sender = end_sender.clone();
                tasks.spawn(async move {
                    if let Err(end) = lane::run(route, task_shared, input, layout.bulk_bytes).await
                    {
                        let _ = end_sender.send(end).await;
                    }
                });
                One { open: Batch::default(), sent: 0, queue, shared }
            })
            .collect();
        Self { lanes, tasks, ends, progress, layout, watch: None }
    }

    /// Puts an operation into the batch of its document's lane. Call [`Self::send_full`] soon after.
    pub fn put(&mut self, op: DocOp<'_>) {
        if let Some(watch) = &mut self.watch
            && watch.documents.contains(&op.key)
        {
            watch.touched.insert(op.key);
        }
        let count = self.lanes.len();
        let lane = &mut self.lanes[(op.key as usize) % count];
        match op.action {
            Action::Upsert => lane.open.upsert(op.id, op.key, op.version, op.body),
            Action::Delete => lane.open.delete(op.id, op.key, op.version),
        }
    }

    /// Begins to note which of these documents an operation is put in for; of none where there are none.
    pub fn watch(&mut self, documents: HashSet<Key, KeyHasher>) {
        let watch = Watch { documents, touched: HashSet::default() };
        self.watch = (!watch.documents.is_empty()).then_some(watch);
    }

    /// Those for which one was put in since [`Self::watch`].
    pub fn touched(&self) -> HashSet<Key, KeyHasher> {
        self.watch.as_ref().map(|watch| watch.touched.clone()).unwrap_or_default()
    }

    pub fn any_is_full(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_full(&self.layout))
    }

    /// Sends the batches that are full; waits where a lane cannot take more, and fails with the end of a lane that
    /// failed meanwhile. Cancel safe: a cancelled wait has sent nothing.
    pub async fn send_full(&mut self) -> Result<(), End> {
        for lane in &mut self.lanes {
            if !lane.is_full(&self.layout) {
                continue;
            }
            tokio::select! {
                biased;
                Some(end) = self.ends.recv() => return Err(end),
                sent = lane.send() => sent?,
            }
        }
        Ok(())
    }

    /// Sends what idle lanes have; nothing waits there, so the next acknowledgement is as near as can be.
    pub async fn send_to_idle(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            if !lane.open.is_empty() && lane.shared.is_idle() {
                lane.send().await?;
            }
        }
        Ok(())
    }

    /// Shows busy lanes what waits for them, where they have room to look ahead: a newer operation of a document
    /// cancels an older one that is stuck in an embedding or in retries.
    pub fn show_to_busy(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            if !lane.open.is_empty() {
                lane.try_send()?;
            }
        }
        Ok(())
    }

    pub async fn send_all(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            if !lane.open.is_empty() {
                lane.send().await?;
            }
        }
        Ok(())
    }

    /// For each lane the number of the batch that holds its last operation.
    pub fn reached(&self) -> Vec<Number> {
        self.lanes.iter().map(|lane| lane.sent + u64::from(!lane.open.is_empty())).collect()
    }

    pub fn done(&self) -> Vec<Number> {
        self.lanes.iter().map(|lane| lane.shared.done()).collect()
    }

    /// What waits to be sent, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.open.size_bytes() + lane.shared.queued_bytes()).sum()
    }

    /// Why a lane no longer takes batches: its end follows its closing at once.
    pub async fn why_closed(&mut self) -> End {
        match tokio::time::timeout(END_FOLLOWS_IN, self.ends.recv()).await {
            Ok(Some(end)) => end,
            Ok(None) | Err(_) => {
                End::Again(Error::new(ErrorKind::SinkBusy, "a lane has ended without a reason"))
            }
        }
    }

    /// Resolves when something was acknowledged, or fails with the end of a lane that failed. Cancel safe.
    pub async fn progress(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            Some(end) = self.ends.recv() => Err(end),
            () = self.progress.notified() => Ok(()),
        }
    }

    /// Sends everything and waits until it is acknowledged.
    pub async fn drain(&mut self) -> Result<(), End> {
        self.send_all().await?;
        let reached = self.reached();
        loop {
            if self.done().iter().zip(&reached).all(|(done, reached)| done >= reached) {
                return Ok(());
            }
            self.progress().await?;
        }
    }

    /// Ends the tasks at once; what is in flight is replayed by the next life.
    pub async fn abort(mut self) {
        self.tasks.shutdown().await;
    }
}

impl One {
    fn is_full(&self, layout: &Layout) -> bool {
        self.open.size_bytes() >= layout.bulk_bytes || self.open.len() >= layout.bulk_documents
    }

    async fn send(&mut self) -> Result<()> {
        let room = self.queue.reserve(self.open.size_bytes()).await.map_err(has_ended)?;
        self.send_into(room)
    }

    /// Sends if the lane's queue is empty.
    fn try_send(&mut self) -> Result<()> {
        let bytes = self.open.size_bytes();
        match self.queue.try_reserve(bytes).map_err(has_ended)? {
            Some(room) => self.send_into(room),
            None => Ok(()),
        }
    }

    fn send_into(&mut self, room: queue::Room) -> Result<()> {
        self.sent += 1;
        let batch = self.take_open();
        self.queue.send_reserved((self.sent, batch), room).map_err(has_ended)
    }

    fn take_open(&mut self) -> Batch {
        let next = Batch::with_room_of(&self.open);
        std::mem::replace(&mut self.open, next)
    }
}

fn has_ended(_: queue::Closed) -> Error {
    Error::new(ErrorKind::Stopped, "a lane has ended")
}
