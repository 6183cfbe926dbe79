//! A mapping that grows: a new generation is filled from the one that is there, and put in its place. It counts from the
//! moment at which the description on disk names it; a crash before leaves everything as it was.

use serde_json::Value;
use tantivy::IndexWriter;

use super::desk::Writer;
use super::disk::{self, Generation};
use super::fault::Answer;
use super::fields::{self, Fields};
use super::{Shared, source};

/// Adds to the mapping what it does not have.
pub(super) fn map(shared: &Shared, writer: &mut Writer, mappings: &Value) -> Answer<()> {
    shared.settle()?;
    let old = shared.description().mappings;
    let merged = fields::merge(&old, mappings)?;
    let fields = Fields::parse(&merged)?;
    if merged == old {
        return Ok(());
    }
    new_generation(shared, writer, merged, fields)?;
    Ok(shared.settle()?)
}

pub(super) fn new_generation(
    shared: &Shared,
    writer: &mut Writer,
    mappings: Value,
    fields: Fields,
) -> Answer<()> {
    // The old generation takes no more writes.
    writer.close();
    let old = shared.generation();
    let new = Generation::create(&shared.dir, old.number + 1, fields)?;
    let mut new_writer = Writer::default();
    copy(&old, &new, new_writer.open(&new)?)?;
    let is_durable = shared.replace(new, mappings)?;
    *writer = new_writer;
    if is_durable {
        // Searches that are under way keep its files open. Else it might count again after a crash.
        let _ = std::fs::remove_dir_all(&old.dir);
    }
    Ok(())
}

fn copy(old: &Generation, new: &Generation, writer: &mut IndexWriter) -> Answer<()> {
    let searcher = old.reader.searcher();
    for (ordinal, segment) in (0_u32..).zip(searcher.segment_readers()) {
        for doc in segment.doc_ids_alive() {
            let place = old.place(&searcher, tantivy::DocAddress::new(ordinal, doc))?;
            let (id, bytes) = old.load(&searcher, place.address)?;
            if !place.is_live {
                writer.add_document(new.tombstone(&id, place.version))?;
                continue;
            }
            let document = source::parse(&bytes)?;
            // What was kept without being searchable may not fit the mapping that came later; it stays so.
            let values = source::values_that_fit(&new.fields, &document, &bytes);
            writer.add_document(new.row(&id, place.version, &bytes, values))?;
        }
    }
    writer.commit()?;
    disk::sync_dir(&new.dir)?;
    new.reader.reload()?;
    Ok(())
}
