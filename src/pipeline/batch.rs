//! One processor on one batch: the texts of all its documents go to the model in as few requests as its limits allow,
//! each text once. Knows no HTTP.
//!
//! A newer operation of a document cancels every waiting older one: before each try, after each wait and several times
//! a second while waiting we ask which operations are still wanted. A text that no wanted operation needs is not asked
//! for again, and a wait that serves nobody ends.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream};

use super::{StillWanted, processors::Processor, text_embedding::Plan};
use crate::{
    connector::{Class, Failure, Models, Vector},
    document::{Action, Batch, DocOp},
    error::{Error, Result},
    flow::backoff::Backoff,
    naive::{self, Rule},
};

/// How often those who wait ask whether they are still wanted; the contract says 250 ms at most.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// An answer that is not what was asked for may be a hiccup; after so many more tries it is not.
const ANSWER_TRIES_MAX: u32 = 3;
/// Documents are looked through in portions of so many bytes, so that other tasks get their turn.
const PORTION_BYTES: usize = 64 << 10;

/// Runs `processor` on `batch`; see [`super::Pipeline::run`].
pub async fn run(
    models: &Models,
    processor: &Processor,
    batch: &Batch,
    dimensions: &HashMap<String, usize>,
    still_wanted: StillWanted<'_>,
) -> Result<Batch> {
    let wanted = Wanted {
        batch,
        still_wanted,
        given_up: (0..batch.len()).map(|_| AtomicBool::new(false)).collect(),
    };
    let plans = plans(processor, batch, &wanted).await?;
    let mut asks = Asks::collect(&plans, dimensions);
    if !asks.texts.is_empty() {
        answer(models, processor, &wanted, &mut asks).await?;
    }
    Ok(write(batch, &plans, &asks, &wanted).await)
}

/// The operations of the batch that are still to be written.
struct Wanted<'r> {
    batch: &'r Batch,
    still_wanted: StillWanted<'r>,
    /// Operations that were told off once: they are not asked about again.
    given_up: Vec<AtomicBool>,
}

impl Wanted<'_> {
    fn is(&self, at: usize) -> bool {
        if naive::is_naive(Rule::LateOperations) {
            return true;
        }
        let given_up = &self.given_up[at];
        if !given_up.load(Ordering::Relaxed)
            && self.batch.get(at).is_some_and(|op| !(self.still_wanted)(&op))
        {
            given_up.store(true, Ordering::Relaxed);
        }
        !given_up.load(Ordering::Relaxed)
    }
}

/// What each upsert needs; `None` for what passes as it is.
async fn plans<'b>(
    processor: &Processor,
    batch: &'b Batch,
    wanted: &Wanted<'_>,
) -> Result<Vec<Option<Plan<'b>>>> {
    let mut plans = Vec::with_capacity(batch.len());
    let mut portion = Portion::default();
    for (at, op) in batch.iter().enumerate() {
        portion.add(op.body.len()).await;
        if op.action == Action::Delete || !wanted.is(at) {
            plans.push(None);
            continue;
        }
        match Plan::new(&processor.fields, op.body) {
            Ok(plan) => plans.push((!plan.is_empty()).then_some(plan)),
            Err(error) if processor.ignore_failure => {
                tracing::warn!(id = op.id, error = %error, "a document passes without its vector");
                plans.push(None);
            }
            Err(error) => return Err(error.context(format!("cannot embed document `{}`", op.id))),
        }
    }
    Ok(plans)
}

/// Yields to other tasks after each portion of work.
#[derive(Default)]
struct Portion {
    bytes: usize,
}

impl Portion {
    async fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= PORTION_BYTES {
            self.bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// The different texts of a batch, each with all that want its vector.
struct Asks<'p> {
    texts: Vec<Ask<'p>>,
    by_text: HashMap<&'p str, usize>,
}

struct Ask<'p> {
    text: &'p str,
    dimension: Option<usize>,
    /// Operations of the batch, by their place in it.
    operations: Vec<usize>,
    vector: Option<Vector>,
    /// Asked for in vain, and the processor ignores failures.
    failed: bool,
}

impl<'p> Asks<'p> {
    fn collect(plans: &'p [Option<Plan<'_>>], dimensions: &HashMap<String, usize>) -> Self {
        let mut asks = Self { texts: Vec::new(), by_text: HashMap::new() };
        for (operation, plan) in plans.iter().enumerate() {
            for text in plan.iter().flat_map(|plan| &plan.texts) {
                let dimension = dimensions.get(&text.field).copied();
                let at = *asks.by_text.entry(&text.text).or_insert_with(|| {
                    asks.texts.push(Ask {
                        text: &text.text,
                        dimension,
                        operations: Vec::new(),
                        vector: None,
                        failed: false,
                    });
                    asks.texts.len() - 1
                });
                let ask = &mut asks.texts[at];
                ask.dimension = ask.dimension.or(dimension);
                ask.operations.push(operation);
            }
        }
        asks
    }

    fn get(&self, text: &str) -> Option<&Ask<'p>> {
        self.texts.get(*self.by_text.get(text)?)
    }
}

/// Fills in the vectors: from the cache, and for the rest from the model, several requests at once.
async fn answer(
    models: &Models,
    processor: &Processor,
    wanted: &Wanted<'_>,
    asks: &mut Asks<'_>,
) -> Result<()> {
    let model = models.model(&processor.model_id)?;
    for ask in &mut asks.texts {
        let fits =
            |vector: &Vector| ask.dimension.is_none_or(|dimension| dimension == vector.len());
        ask.vector = models.cached(&model, ask.text).filter(fits);
    }
    let open: Vec<usize> =
        (0..asks.texts.len()).filter(|at| asks.texts[*at].vector.is_none()).collect();
    let size = processor.batch_texts.unwrap_or(model.limits.texts());
    let asking = Asking { models, processor, wanted, asks: &asks.texts };
    let mut answers = stream::iter(open.chunks(size).map(<[usize]>::to_vec).collect::<Vec<_>>())
        .map(|group| asking.group(group))
        .buffer_unordered(model.limits.concurrency());
    let mut all = Vec::new();
    while let Some(answered) = answers.next().await {
        all.extend(answered?);
    }
    drop(answers);
    for (at, vector) in all {
        asks.texts[at].failed = vector.is_none();
        asks.texts[at].vector = vector;
    }
    Ok(())
}

/// Everything a group of texts needs to be asked for.
struct Asking<'r, 'p> {
    models: &'r Models,
    processor: &'r Processor,
    wanted: &'r Wanted<'r>,
    asks: &'r [Ask<'p>],
}

/// The vector of each text of a group, or that there is none to be had. A text that nobody wants any more is left out.
type Answered = Vec<(usize, Option<Vector>)>;

impl Asking<'_, '_> {
    async fn group(&self, group: Vec<usize>) -> Result<Answered> {
        let mut answered = Vec::with_capacity(group.len());
        let mut groups = vec![group];
        while let Some(group) = groups.pop() {
            match self.patiently(&group).await? {
                None => {}
                Some((group, Ok(vectors))) => {
                    answered.extend(group.into_iter().zip(vectors.into_iter().map(Some)))
                }
                // One text may have spoilt the request for the others: halves find out which.
                Some((group, Err(failure))) if failure.may_be_one_text() && group.len() > 1 => {
                    let (first, second) = group.split_at(group.len() / 2);
                    groups.extend([second.to_vec(), first.to_vec()]);
                }
                Some((group, Err(failure))) if self.processor.ignore_failure => {
                    let error = self.error(&group, failure)?;
                    tracing::warn!(error = %error.report(), "documents pass without their vectors");
                    answered.extend(group.into_iter().map(|at| (at, None)));
                }
                Some((group, Err(failure))) => return Err(self.error(&group, failure)?),
            }
        }
        Ok(answered)
    }

    /// Asks until there is an answer that waiting cannot better; `None` when nobody wants it any more. What is returned
    /// beside the answer are the texts it is for.
    #[allow(clippy::type_complexity)]
    async fn patiently(
        &self,
        group: &[usize],
    ) -> Result<Option<(Vec<usize>, std::result::Result<Vec<Vector>, Failure>)>> {
        let config = self.models.config();
        let mut backoff = Backoff::new(
            Duration::from_millis(config.retry_wait_ms),
            Duration::from_millis(config.retry_wait_max_ms),
        );
        let mut odd_answers = 0;
        loop {
            let needed = self.needed(group);
            let Some(result) = self.while_needed(&needed, self.once(&needed)).await else {
                return Ok(None);
            };
            let failure = match result? {
                Err(failure) if self.needed(&needed).is_empty() => {
                    tracing::debug!(reason = failure.message, "nobody wants what failed");
                    return Ok(None);
                }
                Err(failure) => failure,
                done => return Ok(Some((needed, done))),
            };
            odd_answers += u32::from(failure.class == Class::Answer);
            let waiting_helps = failure.class == Class::Busy
                || (failure.class == Class::Answer && odd_answers <= ANSWER_TRIES_MAX);
            if !waiting_helps {
                return Ok(Some((needed, Err(failure))));
            }
            let wait = backoff.next(failure.retry_after);
            tracing::warn!(
                model = self.processor.model_id,
                reason = failure.message,
                wait_ms = wait.as_millis() as u64,
                tries = backoff.tries(),
                "the model is asked again after a wait"
            );
            if self.while_needed(&needed, tokio::time::sleep(wait)).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// One request, when it is the model's turn. The model is looked up each time: a credential or an endpoint that was
    /// mended meanwhile is used at once.
    async fn once(&self, group: &[usize]) -> Result<std::result::Result<Vec<Vector>, Failure>> {
        let model = self.models.model(&self.processor.model_id)?;
        let texts: Vec<&str> = group.iter().map(|at| self.asks[*at].text).collect();
        let dimensions: Vec<_> = group.iter().map(|at| self.asks[*at].dimension).collect();
        let _turn = model.limits.turn().await;
        Ok(self.models.embed(&model, &texts, &dimensions).await)
    }

    /// The texts of a group that a wanted operation needs.
    fn needed(&self, group: &[usize]) -> Vec<usize> {
        let is_needed = |at: &usize| {
            self.asks[*at].operations.iter().any(|operation| self.wanted.is(*operation))
        };
        group.iter().copied().filter(is_needed).collect()
    }

    /// Waits for `work` as long as any text of the group is needed.
    async fn while_needed<T>(&self, group: &[usize], work: impl Future<Output = T>) -> Option<T> {
        if self.needed(group).is_empty() {
            return None;
        }
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = tokio::time::sleep(ASK_AGAIN) => if self.needed(group).is_empty() { return None },
            }
        }
    }

    /// The failure of a group as an error that names a document of it.
    fn error(&self, group: &[usize], failure: Failure) -> Result<Error> {
        let model = self.models.model(&self.processor.model_id)?;
        let operations = || group.iter().flat_map(|at| &self.asks[*at].operations);
        let wanted = operations().find(|operation| self.wanted.is(**operation)).copied();
        let id = wanted.and_then(|at| self.wanted.batch.get(at)).map_or("", |op| op.id);
        let others = if operations().any(|operation| Some(*operation) != wanted) {
            " and others"
        } else {
            ""
        };
        Ok(failure
            .into_error(&model.describe())
            .context(format!("cannot embed document `{id}`{others}")))
    }
}

/// The batch with its vectors, without what is no longer wanted.
async fn write(
    batch: &Batch,
    plans: &[Option<Plan<'_>>],
    asks: &Asks<'_>,
    wanted: &Wanted<'_>,
) -> Batch {
    let mut done = Batch::default();
    let mut body = Vec::new();
    let mut portion = Portion::default();
    for ((at, op), plan) in batch.iter().enumerate().zip(plans) {
        if op.action == Action::Delete {
            done.delete(op.id, op.key, op.version);
            continue;
        }
        if !wanted.is(at) {
            continue;
        }
        body.clear();
        if embedded(&op, plan.as_ref(), asks, &mut body) {
            done.upsert(op.id, op.key, op.version, &body);
        }
        portion.add(body.len()).await;
    }
    done
}

/// Writes the document with its vectors, or as it was where a failure is ignored; `false` where a vector was given up
/// because nobody wanted the document.
fn embedded(op: &DocOp<'_>, plan: Option<&Plan<'_>>, asks: &Asks<'_>, body: &mut Vec<u8>) -> bool {
    let Some(plan) = plan else {
        body.extend_from_slice(op.body);
        return true;
    };
    let found: Vec<&Ask<'_>> = plan.texts.iter().filter_map(|text| asks.get(&text.text)).collect();
    if found.iter().any(|ask| ask.failed) {
        body.extend_from_slice(op.body);
        return true;
    }
    let vectors: Vec<&[f32]> = found.iter().filter_map(|ask| ask.vector.as_deref()).collect();
    let complete = vectors.len() == plan.texts.len();
    if complete {
        plan.write(op.body, |at| vectors[at], body);
    }
    complete
}
