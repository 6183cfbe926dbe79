//! Asks a model for the vectors of a group of texts, with the patience that this takes. Knows no document.
//!
//! A newer operation of a document cancels every waiting older one: before each try, after each wait and several times
//! a second while waiting we ask which operations are still wanted. A text that no wanted operation needs is not asked
//! for again, and a wait that serves nobody ends.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{StillWanted, processors::Processor};
use crate::{
    connector::{Class, Failure, Models, Vector},
    document::Batch,
    error::{Error, Result},
    flow::backoff::Backoff,
    naive::{self, Rule},
    telemetry::metrics::metrics,
};

/// How often those who wait ask whether they are still wanted; the contract says 250 ms at most.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// An answer that is not what was asked for may be a hiccup; after so many more tries it is not.
const ANSWER_TRIES_MAX: u32 = 3;
/// Everything a group of texts needs to be asked for.
pub struct Asking<'r, 'p> {
    pub models: &'r Models,
    pub processor: &'r Processor,
    pub wanted: &'r Wanted<'r>,
    pub asks: &'r [Ask<'p>],
    /// The model has taken a text.
    pub has_answered: AtomicBool,
}

/// What became of each text of a group. A text that nobody wants any more is left out.
pub type Answered = Vec<(usize, Found)>;

/// What became of a text.
pub enum Found {
    Vector(Vector),
    /// Asked for in vain, and the processor ignores failures.
    Nothing,
    /// The model refuses this text, and takes others.
    Refused(Failure),
}

/// A text that every model takes. One that refuses this too has not refused another text for what it says.
const HARMLESS: &str = "driftless";

impl Asking<'_, '_> {
    pub async fn group(&self, group: Vec<usize>) -> Result<Answered> {
        let mut answered = Vec::with_capacity(group.len());
        let mut groups = vec![group];
        while let Some(group) = groups.pop() {
            match self.patiently(&group).await? {
                None => {}
                Some((group, Ok(vectors))) => {
                    answered.extend(group.into_iter().zip(vectors.into_iter().map(Found::Vector)))
                }
                // One text may have spoilt the request for the others: halves find out which.
                Some((group, Err(failure))) if failure.may_be_one_text() && group.len() > 1 => {
                    let (first, second) = group.split_at(group.len() / 2);
                    groups.extend([second.to_vec(), first.to_vec()]);
                }
                Some((group, Err(failure))) if self.processor.ignore_failure => {
                    let error = self.error(&group, failure)?;
                    tracing::warn!(error = %error.report(), "documents pass without their vectors");
                    answered.extend(group.into_iter().map(|at| (at, Found::Nothing)));
                }
                Some((group, Err(failure))) if failure.may_be_one_text() => {
                    match self.takes_others(&group).await? {
                        None => {}
                        Some(true) => {
                            let refused = |at| (at, Found::Refused(failure.clone()));
                            answered.extend(group.into_iter().map(refused));
                        }
                        Some(false) => return Err(self.error(&group, failure)?),
                    }
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
                metrics().model_requests_failed.inc();
                return Ok(Some((needed, Err(failure))));
            }
            metrics().model_requests_retried.inc();
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

    /// Whether the model takes another text than the one of `group`, which it has refused: else its definition is at
    /// fault, or the index's. `None` when nobody wants to know any more.
    async fn takes_others(&self, group: &[usize]) -> Result<Option<bool>> {
        if self.has_answered.load(Ordering::Relaxed) {
            return Ok(Some(true));
        }
        let config = self.models.config();
        let mut backoff = Backoff::new(
            Duration::from_millis(config.retry_wait_ms),
            Duration::from_millis(config.retry_wait_max_ms),
        );
        loop {
            let model = self.models.model(&self.processor.model_id)?;
            let asked = async {
                let _turn = model.limits.turn().await;
                metrics().model_texts.inc();
                self.models.embed(&model, &[HARMLESS], &[None]).await
            };
            let Some(answer) = self.while_needed(group, asked).await else { return Ok(None) };
            let failure = match answer {
                Ok(_) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return Ok(Some(true));
                }
                Err(failure) => failure,
            };
            if failure.class != Class::Busy {
                return Ok(Some(false));
            }
            metrics().model_requests_retried.inc();
            let wait = tokio::time::sleep(backoff.next(failure.retry_after));
            if self.while_needed(group, wait).await.is_none() {
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
        metrics().model_texts.inc_by(texts.len() as u64);
        let answer = self.models.embed(&model, &texts, &dimensions).await;
        if answer.is_ok() {
            self.has_answered.store(true, Ordering::Relaxed);
            metrics().model_requests_ok.inc();
        }
        Ok(answer)
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

/// The operations of the batch that are still to be written.
pub struct Wanted<'r> {
    batch: &'r Batch,
    still_wanted: StillWanted<'r>,
    /// Operations that were told off once: they are not asked about again.
    given_up: Vec<AtomicBool>,
}

impl<'r> Wanted<'r> {
    pub fn new(batch: &'r Batch, still_wanted: StillWanted<'r>) -> Self {
        let given_up = (0..batch.len()).map(|_| AtomicBool::new(false)).collect();
        Self { batch, still_wanted, given_up }
    }

    pub fn is(&self, at: usize) -> bool {
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

/// A text, and all that want its vector.
pub struct Ask<'p> {
    pub text: &'p str,
    pub dimension: Option<usize>,
    /// Operations of the batch, by their place in it.
    pub operations: Vec<usize>,
    pub vector: Option<Vector>,
    /// Asked for in vain, and the processor ignores failures.
    pub failed: bool,
    /// Why the model refuses it.
    pub refused: Option<Failure>,
}
