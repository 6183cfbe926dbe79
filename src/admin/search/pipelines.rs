//! Whole documents on their way through the pipeline of their index. Knows no writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::documents::Item;
use crate::document::{Batch, IdHasher};
use crate::index::{Answer, Fault, Index, Indexes, Kind};
use crate::link::Control;
use crate::position::Version;

/// How long a request waits for its vectors; then its client asks again.
const PIPELINE_MAX: Duration = Duration::from_secs(60);

/// Runs whole documents through the pipelines that they are meant for.
pub async fn run(control: &Control, indexes: &Indexes, items: &mut [Item]) {
    let mut groups: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        if item.whole().is_none() {
            continue;
        }
        let Some(index) = indexes.get(&item.index) else { continue };
        let description = index.description();
        let default = description.pipeline("index.default_pipeline");
        match item.pipeline.as_deref().or(default) {
            None | Some("_none") => {}
            Some(name) => {
                groups.entry((item.index.clone(), name.to_owned())).or_default().push(at);
            }
        }
    }
    let deadline = Instant::now() + PIPELINE_MAX;
    for ((index, pipeline), places) in groups {
        let Some(index) = indexes.get(&index) else { continue };
        let run = Run { control, pipeline: &pipeline, dimensions: dimensions(&index), deadline };
        run.on(items, places).await;
    }
}

struct Run<'r> {
    control: &'r Control,
    pipeline: &'r str,
    dimensions: HashMap<String, usize>,
    deadline: Instant,
}

impl Run<'_> {
    async fn on(&self, items: &mut [Item], places: Vec<usize>) {
        let (objects, others): (Vec<usize>, Vec<usize>) =
            places.into_iter().partition(|at| is_object(&items[*at]));
        for at in others {
            items[at].done =
                Some(Err(Fault::mapping("failed to parse: the document is not a JSON object")));
        }
        if self.together(items, &objects).await.is_ok() {
            return;
        }
        // One document that the pipeline cannot take must not hold the others back.
        for at in objects {
            if let Err(fault) = self.together(items, &[at]).await {
                items[at].done = Some(Err(fault));
            }
        }
    }

    async fn together(&self, items: &mut [Item], places: &[usize]) -> Answer<()> {
        let mut batch = Batch::default();
        for at in places {
            let item = &items[*at];
            let (id, Some(source)) = (&item.id, item.whole()) else { continue };
            // The place stands where a version would: what comes back is matched by it.
            batch.upsert(id, IdHasher.key(&format!("{at} {id}")), Version(*at as u64), source);
        }
        let done =
            self.control.embed(self.pipeline, &batch, &self.dimensions, self.deadline).await?;
        let mut late: BTreeSet<usize> = places.iter().copied().collect();
        for op in done.iter() {
            let Ok(at) = usize::try_from(op.version.0) else { continue };
            if late.remove(&at) {
                items[at].set_whole(op.body.to_vec());
            }
        }
        for at in late {
            let reason = "the model did not answer in time; ask again";
            items[at].done = Some(Err(Fault::new(429, "rejected_execution_exception", reason)));
        }
        Ok(())
    }
}

fn is_object(item: &Item) -> bool {
    let json = item.whole().map(serde_json::from_slice::<&RawValue>);
    matches!(json, Some(Ok(json)) if json.get().starts_with('{'))
}

fn dimensions(index: &Index) -> HashMap<String, usize> {
    let fields = index.fields();
    let vectors = fields.all.iter().filter_map(|field| match field.kind {
        Kind::Vector { dimension, .. } => Some((field.path.clone(), dimension)),
        _ => None,
    });
    vectors.collect()
}
