//! A verification's side of its talk with the link's worker: what the worker does, and answers to inquiries. A worker that
//! ends meanwhile is an error that waiting can help: another one follows, or the link has failed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Order;
use crate::error::{Error, ErrorKind, Result};
use crate::link::control::Control;
use crate::link::inquiry::{Inquiry, Keys, Rewrite, Standing};
use crate::link::pipeline_mode::Way;
use crate::link::status::{Live, State, Verification};
use crate::mapping;
use crate::pipeline::Pipeline;
use crate::position::{GtidSet, Version};

/// How often a link that does not run is asked whether it runs again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A wait for the worker that is longer is shown.
const WORTH_SAYING: Duration = Duration::from_secs(2);

pub(super) struct Asking {
    inquiries: mpsc::Sender<Inquiry>,
    pub standing: Standing,
}

impl Asking {
    /// The link's worker, when there is one.
    pub async fn begin(control: &Control, link: &str, live: &Live) -> Result<Self> {
        loop {
            control.inner.record_of(link).ok_or_else(|| control.unknown(link))?;
            if live.phase() == State::Paused {
                let what = format!("the link `{link}` is paused");
                return Err(Error::new(ErrorKind::Unsupported, what)
                    .with_advice(format!("let it go on: RESUME LINK `{link}`")));
            }
            if live.phase() == State::Failed {
                let what = format!("the link `{link}` has failed: {}", live.reason());
                return Err(Error::new(ErrorKind::Unsupported, what).with_advice(
                    "what is to be done is told there; verify it when it runs again",
                ));
            }
            if let Some(inquiries) = live.inquiries()
                && let Some(standing) = describe(&inquiries).await
            {
                return Ok(Self { inquiries, standing: standing? });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The worker that runs now, if it does the same as the one before.
    pub async fn again(&self, control: &Control, link: &str, live: &Live) -> Result<Self> {
        let now = Self::begin(control, link, live).await?;
        if is_same(&self.standing, &now.standing) { Ok(now) } else { Err(altered()) }
    }

    /// From now on it is noted which of these documents are operated on.
    pub async fn watch(&self, documents: Keys) -> Result<()> {
        self.ask(|told| Inquiry::Watch { documents, told }).await
    }

    pub async fn touched(&self) -> Result<Keys> {
        self.ask(Inquiry::Touched).await
    }

    /// Waits until everything in `covers` is acknowledged; a link that is behind is waited for.
    pub async fn settle(
        &self,
        covers: GtidSet,
        live: &Live,
        shown: &mut Verification,
    ) -> Result<()> {
        let asking = self.ask(|told| Inquiry::Settle { covers, told });
        tokio::pin!(asking);
        tokio::select! {
            biased;
            plan = &mut asking => return self.is_the_plan(plan?),
            () = tokio::time::sleep(WORTH_SAYING) => {}
        }
        shown.waits_for = "the link to have written what was changed by now".to_owned();
        live.show_verification(Some(shown.clone()));
        let plan = asking.await;
        shown.waits_for.clear();
        live.show_verification(Some(shown.clone()));
        self.is_the_plan(plan?)
    }

    /// Has rows written anew, and waits until that is acknowledged.
    pub async fn rewrite(&self, rows: Rewrite) -> Result<()> {
        let plan = self.ask(|told| Inquiry::Rewrite { rows, told }).await?;
        self.is_the_plan(plan)
    }

    /// Has the link begin again with versions above this one.
    pub async fn outgrow(&self, above: Version) -> Result<()> {
        self.inquiries.send(Inquiry::Outgrow { above }).await.map_err(|_| ended())?;
        self.inquiries.closed().await;
        Err(ended())
    }

    fn is_the_plan(&self, plan: Result<Arc<mapping::Plan>>) -> Result<()> {
        if Arc::ptr_eq(&plan?, &self.standing.plan) { Ok(()) } else { Err(altered()) }
    }

    async fn ask<T>(&self, inquiry: impl FnOnce(oneshot::Sender<T>) -> Inquiry) -> Result<T> {
        let (told, answer) = oneshot::channel();
        self.inquiries.send(inquiry(told)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    /// The pipeline that we run on the link's documents, as it is defined now.
    pub fn pipeline(&self) -> Result<Option<Arc<Pipeline>>> {
        let route = &self.standing.route;
        let Way::Emulated(name) = &route.way else { return Ok(None) };
        route.pipelines.pipeline(name).map(Some).ok_or_else(|| {
            let what = format!("the pipeline {name} is not registered at Driftless any more");
            Error::new(ErrorKind::Unsupported, what).with_advice("register it again")
        })
    }

    /// Whether the order has vectors computed again and compared.
    pub fn computes_vectors(&self, order: &Order) -> Result<bool> {
        match self.pipeline()? {
            Some(pipeline) => Ok(order.with_vectors || pipeline.is_free()?),
            None => Ok(false),
        }
    }
}

/// None where there is no worker any more.
async fn describe(inquiries: &mpsc::Sender<Inquiry>) -> Option<Result<Standing>> {
    let (told, answer) = oneshot::channel();
    inquiries.send(Inquiry::Describe(told)).await.ok()?;
    answer.await.ok()
}

fn is_same(one: &Standing, other: &Standing) -> bool {
    let fields = |standing: &Standing| -> Vec<_> {
        let named = standing.plan.fields();
        named.map(|(field, column)| (field.to_owned(), column.clone())).collect()
    };
    one.subject.def == other.subject.def
        && one.plan.wanted() == other.plan.wanted()
        && one.plan.key_ordinals().eq(other.plan.key_ordinals())
        && fields(one) == fields(other)
        && one.route.way == other.route.way
        && one.route.target.uuid == other.route.target.uuid
}

fn altered() -> Error {
    Error::new(ErrorKind::Schema, "the table or the index is another one now")
}

fn ended() -> Error {
    Error::new(ErrorKind::SourceUnreachable, "the link begins again")
}
