//! One processor on one batch: the texts of all its documents go to the model in as few requests as its limits allow,
//! each text once. Knows no HTTP and no patience.

use std::{collections::HashMap, sync::atomic::AtomicBool};

use futures_util::{StreamExt, stream};

use super::{
    Ran, Refused, StillWanted,
    asking::{Ask, Asking, Found, Wanted},
    processors::Processor,
    text_embedding::Plan,
};
use crate::{
    connector::{Failure, Models, Vector},
    document::{Action, Batch, DocOp},
    error::{Error, Result},
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
) -> Result<Ran> {
    let wanted = Wanted::new(batch, still_wanted);
    let mut refused = Vec::new();
    let plans = plans(processor, batch, &wanted, &mut refused).await;
    let mut asks = Asks::collect(&plans, dimensions);
    if !asks.texts.is_empty() {
        answer(models, processor, &wanted, &mut asks).await?;
    }
    let model = match asks.texts.iter().any(|ask| ask.refused.is_some()) {
        true => models.model(&processor.model_id)?.describe(),
        false => String::new(),
    };
    let batch = write(batch, &plans, &asks, &wanted, (&model, &mut refused)).await;
    refused.sort_by_key(|refused| refused.at);
    Ok(Ran { batch, refused })
}

/// What is to be done with one operation.
enum Planned<'b> {
    AsItIs,
    Embed(Plan<'b>),
    /// It was refused.
    Left,
}

/// What each operation needs.
async fn plans<'b>(
    processor: &Processor,
    batch: &'b Batch,
    wanted: &Wanted<'_>,
    refused: &mut Vec<Refused>,
) -> Vec<Planned<'b>> {
    let mut plans = Vec::with_capacity(batch.len());
    let mut portion = Portion::default();
    for (at, op) in batch.iter().enumerate() {
        portion.add(op.body.len()).await;
        if op.action == Action::Delete || !wanted.is(at) {
            plans.push(Planned::AsItIs);
            continue;
        }
        match Plan::new(&processor.fields, op.body) {
            Ok(plan) if plan.is_empty() => plans.push(Planned::AsItIs),
            Ok(plan) => plans.push(Planned::Embed(plan)),
            Err(error) if processor.ignore_failure => {
                tracing::warn!(id = op.id, error = %error, "a document passes without its vector");
                plans.push(Planned::AsItIs);
            }
            Err(error) => {
                refused.push(Refused { at, why: named(error, &op) });
                plans.push(Planned::Left);
            }
        }
    }
    plans
}

fn named(error: Error, op: &DocOp<'_>) -> Error {
    error.context(format!("cannot embed document `{}`", op.id))
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
    fn collect(plans: &'p [Planned<'_>], dimensions: &HashMap<String, usize>) -> Self {
        let mut asks = Self { texts: Vec::new(), by_text: HashMap::new() };
        for (operation, plan) in plans.iter().enumerate() {
            let Planned::Embed(plan) = plan else { continue };
            for text in &plan.texts {
                let dimension = dimensions.get(&text.field).copied();
                let at = *asks.by_text.entry(&text.text).or_insert_with(|| {
                    asks.texts.push(Ask {
                        text: &text.text,
                        dimension,
                        operations: Vec::new(),
                        vector: None,
                        failed: false,
                        refused: None,
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
    let has_answered = AtomicBool::new(false);
    let asking = Asking { models, processor, wanted, asks: &asks.texts, has_answered };
    let mut answers = stream::iter(open.chunks(size).map(<[usize]>::to_vec).collect::<Vec<_>>())
        .map(|group| asking.group(group))
        .buffer_unordered(model.limits.concurrency());
    let mut all = Vec::new();
    while let Some(answered) = answers.next().await {
        all.extend(answered?);
    }
    drop(answers);
    for (at, found) in all {
        match found {
            Found::Vector(vector) => asks.texts[at].vector = Some(vector),
            Found::Nothing => asks.texts[at].failed = true,
            Found::Refused(failure) => asks.texts[at].refused = Some(failure),
        }
    }
    Ok(())
}

/// The batch with its vectors, without what is no longer wanted and what is refused.
async fn write(
    batch: &Batch,
    plans: &[Planned<'_>],
    asks: &Asks<'_>,
    wanted: &Wanted<'_>,
    (model, refused): (&str, &mut Vec<Refused>),
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
        match embedded(&op, plan, asks, &mut body) {
            Ok(true) => done.upsert(op.id, op.key, op.version, &body),
            Ok(false) => {}
            Err(failure) => {
                let why = named(failure.clone().into_error(model), &op);
                refused.push(Refused { at, why });
            }
        }
        portion.add(body.len()).await;
    }
    done
}

/// Writes the document with its vectors, or as it was where a failure is ignored; `false` where a vector was given up
/// because nobody wanted the document, or where it was refused already; the failure where the model refuses a text of it.
fn embedded<'a>(
    op: &DocOp<'_>,
    plan: &Planned<'_>,
    asks: &'a Asks<'_>,
    body: &mut Vec<u8>,
) -> std::result::Result<bool, &'a Failure> {
    let plan = match plan {
        Planned::Embed(plan) => plan,
        Planned::Left => return Ok(false),
        Planned::AsItIs => {
            body.extend_from_slice(op.body);
            return Ok(true);
        }
    };
    let found: Vec<&Ask<'_>> = plan.texts.iter().filter_map(|text| asks.get(&text.text)).collect();
    if let Some(failure) = found.iter().find_map(|ask| ask.refused.as_ref()) {
        return Err(failure);
    }
    if found.iter().any(|ask| ask.failed) {
        body.extend_from_slice(op.body);
        return Ok(true);
    }
    let vectors: Vec<&[f32]> = found.iter().filter_map(|ask| ask.vector.as_deref()).collect();
    let complete = vectors.len() == plan.texts.len();
    if complete {
        plan.write(op.body, |at| vectors[at], body);
    }
    Ok(complete)
}
