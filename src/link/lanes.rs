//! A link's lanes as its worker sees them: a batch that is being filled for each, and what was sent. Nagle without
//! waiting: an idle lane is sent to at once, a busy one fills its batch.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::document::{Action, Batch, DocOp, Key, KeyHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::budget::{Budget, Loan};
use crate::flow::lane::Number;
use crate::flow::queue;
use crate::link::end::End;
use crate::link::lane::{self, Route, Sent, Shared};

/// How a link's lanes are laid out.
#[derive(Clone)]
pub(super) struct Layout {
    pub lanes: usize,
    pub in_flight_max: usize,
    /// With a loan.
    pub bulk_bytes: usize,
    pub bulk_documents: usize,
    pub budget: Arc<Budget>,
}

/// Batches smaller than this would cost more than they hold.
const SMALL_BYTES_MIN: usize = 8 << 10;

impl Layout {
    /// What a batch may hold without a loan. A lane holds one that is open, one in its queue and one ahead, and those in
    /// flight with their requests.
    fn small_bytes(&self) -> usize {
        let held = self.lanes.max(1) * (3 + 2 * self.in_flight_max.max(1));
        (self.budget.lanes_share() / held).max(SMALL_BYTES_MIN).min(self.bulk_bytes)
    }
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
    /// What `open` may hold now, and what was borrowed for that.
    open_max: usize,
    loan: Option<Loan>,
    sent: Number,
    queue: queue::Sender<Sent>,
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
                // A larger batch, of borrowed bytes, passes alone.
                let small_bytes = layout.small_bytes();
                let (queue, input) = queue::bounded(small_bytes);
                let (route, task_shared) = (route.clone(), shared.clone());
                let end_sender = end_sender.clone();
                tasks.spawn(async move {
                    if let Err(end) = lane::run(route, task_shared, input, small_bytes).await {
                        let _ = end_sender.send(end).await;
                    }
                });
                let (open, open_max, loan) = (Batch::default(), small_bytes, None);
                One { open, open_max, loan, sent: 0, queue, shared }
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
            if !lane.is_full(&self.layout) || lane.grows(&self.layout) {
                continue;
            }
            tokio::select! {
                biased;
                Some(end) = self.ends.recv() => return Err(end),
                sent = lane.send(&self.layout) => sent?,
            }
        }
        Ok(())
    }

    /// Sends what idle lanes have; nothing waits there, so the next acknowledgement is as near as can be.
    pub async fn send_to_idle(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            if !lane.open.is_empty() && lane.shared.is_idle() {
                lane.send(&self.layout).await?;
            }
        }
        Ok(())
    }

    /// Shows busy lanes what waits for them, where they have room to look ahead: a newer operation of a document
    /// cancels an older one that is stuck in an embedding or in retries.
    pub fn show_to_busy(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            if !lane.open.is_empty() {
                lane.try_send(&self.layout)?;
            }
        }
        Ok(())
    }

    pub async fn send_all(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            if !lane.open.is_empty() {
                lane.send(&self.layout).await?;
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
        self.open.size_bytes() >= self.open_max || self.open.len() >= layout.bulk_documents
    }

    /// Whether what is full need not be, because there is room for more in the budget of all.
    fn grows(&mut self, layout: &Layout) -> bool {
        if self.loan.is_some() || self.open.size_bytes() >= layout.bulk_bytes {
            return false;
        }
        if self.open.len() >= layout.bulk_documents {
            return false;
        }
        // With its request, in the end.
        self.loan = layout.budget.try_borrow(2 * (layout.bulk_bytes - self.open_max));
        if self.loan.is_some() {
            self.open_max = layout.bulk_bytes;
        }
        self.loan.is_some()
    }

    async fn send(&mut self, layout: &Layout) -> Result<()> {
        let room = self.queue.reserve(self.open.size_bytes()).await.map_err(has_ended)?;
        self.send_into(room, layout)
    }

    /// Sends if the lane's queue is empty.
    fn try_send(&mut self, layout: &Layout) -> Result<()> {
        let bytes = self.open.size_bytes();
        match self.queue.try_reserve(bytes).map_err(has_ended)? {
            Some(room) => self.send_into(room, layout),
            None => Ok(()),
        }
    }

    fn send_into(&mut self, room: queue::Room, layout: &Layout) -> Result<()> {
        self.sent += 1;
        self.open_max = layout.small_bytes();
        let (number, batch, loan) = (self.sent, self.take_open(), self.loan.take());
        self.queue.send_reserved(Sent { number, batch, loan }, room).map_err(has_ended)
    }

    fn take_open(&mut self) -> Batch {
        let next = Batch::with_room_of(&self.open);
        std::mem::replace(&mut self.open, next)
    }
}

fn has_ended(_: queue::Closed) -> Error {
    Error::new(ErrorKind::Stopped, "a lane has ended")
}
