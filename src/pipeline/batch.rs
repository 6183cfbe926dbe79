//! One processor on one batch: the texts of all its documents go to the model in as few requests as its limits allow,
//! each text once. Knows no HTTP and no patience.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use super::{
    StillWanted,
    asking::{Ask, Asking, Wanted},
    processors::Processor,
    text_embedding::Plan,
};
use crate::{
    connector::{Models, Vector},
    document::{Action, Batch, DocOp},
    error::Result,
};

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
    let wanted = Wanted::new(batch, still_wanted);
    let plans = plans(processor, batch, &wanted).await?;
    let mut asks = Asks::collect(&plans, dimensions);
    if !asks.texts.is_empty() {
        answer(models, processor, &wanted, &mut asks).await?;
    }
    Ok(write(batch, &plans, &asks, &wanted).await)
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
