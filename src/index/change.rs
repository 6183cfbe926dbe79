//! What a group of writes makes of an index: which are made, with which version, which rows that leaves, and what the
//! mapping must have for them. Decides and writes nothing.
//!
//! Versions come first: a change that conflicts, or a document that does not fit, leaves the mapping as it was.

use std::collections::HashMap;

use serde_json::{Map, Value};
use tantivy::{IndexWriter, Searcher};

use super::disk::Generation;
use super::fault::{Answer, Fault};
use super::fields::{self, Fields};
use super::source::{self, Stored};
use super::write::{ID_BYTES_MAX, What, Write, Written};
use super::{Description, raw};

/// The changes of a group, over the last commit of a generation.
pub(super) struct Changes<'g> {
    generation: &'g Generation,
    searcher: Searcher,
    mappings: Value,
    fields: Fields,
    grew: bool,
    /// One for each document that is written; the last change of it counts.
    rows: Vec<(String, Row)>,
    /// Where the row of an `_id` is.
    places: HashMap<String, usize>,
}

/// A document, or with None its tombstone.
struct Row {
    version: u64,
    document: Option<Document>,
}

struct Document {
    source: Vec<u8>,
    /// As the mapping was when it came; a mapping that grows later in the group needs them anew.
    values: Vec<(usize, Stored)>,
}

impl<'g> Changes<'g> {
    pub fn over(description: &Description, generation: &'g Generation) -> Self {
        Self {
            generation,
            searcher: generation.reader.searcher(),
            mappings: description.mappings.clone(),
            fields: generation.fields.clone(),
            grew: false,
            rows: Vec::new(),
            places: HashMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The mapping that the documents need, if it is not the one that is there.
    pub fn mapping(&self) -> Option<(Value, Fields)> {
        self.grew.then(|| (self.mappings.clone(), self.fields.clone()))
    }

    fn row(&self, id: &str) -> Option<&Row> {
        self.places.get(id).map(|at| &self.rows[*at].1)
    }

    fn keep(&mut self, id: String, row: Row) {
        match self.places.get(&id) {
            Some(at) => self.rows[*at].1 = row,
            None => {
                self.places.insert(id.clone(), self.rows.len());
                self.rows.push((id, row));
            }
        }
    }

    /// Decides about one change. The outer Err is the disk's.
    pub fn make(&mut self, write: Write) -> Answer<Written> {
        if write.id.is_empty() || write.id.len() > ID_BYTES_MAX {
            let length = write.id.len();
            return Ok(Written::Refused(Fault::request(format!(
                "an _id has 1 to {ID_BYTES_MAX} bytes; this one has {length}"
            ))));
        }
        let (version, is_live) = match self.row(&write.id) {
            Some(row) => (Some(row.version), row.document.is_some()),
            None => {
                let place = self.generation.find(&self.searcher, &write.id)?;
                (place.map(|place| place.version), place.is_some_and(|place| place.is_live))
            }
        };
        let next = match write.next_version(version, is_live) {
            Ok(next) => next,
            Err(fault) => return Ok(Written::Conflict { current: version.unwrap_or(0), fault }),
        };
        let source = match write.what {
            What::Delete => {
                self.keep(write.id, Row { version: next, document: None });
                let written =
                    if is_live { Written::Deleted(next) } else { Written::NotFound(next) };
                return Ok(written);
            }
            What::Put(source) => source,
            What::Merge { part, otherwise } => {
                match self.merged(&write.id, is_live, &part, otherwise)? {
                    Ok(source) => source,
                    Err(fault) => return Ok(Written::Refused(fault)),
                }
            }
        };
        let document = match self.document(source) {
            Ok(document) => document,
            Err(fault) => return Ok(Written::Refused(fault)),
        };
        self.keep(write.id, Row { version: next, document: Some(document) });
        Ok(if is_live { Written::Updated(next) } else { Written::Created(next) })
    }

    /// The document with `part` merged into it, or `otherwise`. What of it is not touched keeps its bytes.
    fn merged(
        &self,
        id: &str,
        is_live: bool,
        part: &[u8],
        otherwise: Option<Vec<u8>>,
    ) -> Answer<Answer<Vec<u8>>> {
        if !is_live {
            return Ok(otherwise.ok_or_else(|| {
                Fault::new(404, "document_missing_exception", format!("[{id}]: document missing"))
            }));
        }
        let stored;
        let old = match self.row(id).and_then(|row| row.document.as_ref()) {
            Some(document) => &document.source,
            None => {
                stored = match self.generation.find(&self.searcher, id)? {
                    Some(place) => self.generation.load(&self.searcher, place.address)?.1,
                    None => Vec::new(),
                };
                &stored
            }
        };
        // Both must be documents by themselves, before they are taken to pieces.
        let both = source::parse(old).and_then(|_| source::parse(part));
        let texts = both.and_then(|_| Ok((utf8(old)?, utf8(part)?)));
        Ok(texts.and_then(|(old, part)| {
            let merged = raw::merge(old, part);
            merged.map(String::into_bytes).map_err(|_| Fault::mapping("the documents do not merge"))
        }))
    }

    /// The document with its values, after the mapping took what it did not have.
    fn document(&mut self, source: Vec<u8>) -> Answer<Document> {
        let parsed = source::parse(&source)?;
        let unknown = source::unknown(&self.fields, &parsed)?;
        let values = match unknown.is_empty() {
            true => source::values(&self.fields, &parsed, &source)?,
            false => self.grow(unknown, &parsed, &source)?,
        };
        Ok(Document { source, values })
    }

    /// Adds fields to the mapping; a document that does not fit leaves it as it was.
    fn grow(
        &mut self,
        unknown: Vec<(String, Value)>,
        document: &Map<String, Value>,
        source: &[u8],
    ) -> Answer<Vec<(usize, Stored)>> {
        let mut larger = self.mappings.clone();
        if larger["properties"].is_null() {
            larger["properties"] = Value::Object(Map::new());
        }
        for (path, field) in unknown {
            fields::insert(&mut larger["properties"], &path, field);
        }
        let larger_fields = Fields::parse(&larger)?;
        let values = source::values(&larger_fields, document, source)?;
        (self.mappings, self.fields, self.grew) = (larger, larger_fields, true);
        Ok(values)
    }

    /// Hands the rows to the writer of `generation`, which has the mapping that they need.
    pub fn put(self, generation: &Generation, writer: &IndexWriter) -> Answer<()> {
        for (id, row) in self.rows {
            writer.delete_term(generation.id_term(&id));
            writer.add_document(match row.document {
                None => generation.tombstone(&id, row.version),
                Some(Document { source, values }) => {
                    // A field that a later document of the group brought may stand in this one, and need not fit.
                    let values = match self.grew {
                        false => values,
                        true => {
                            let parsed = source::parse(&source)?;
                            source::values_that_fit(&generation.fields, &parsed, &source)
                        }
                    };
                    generation.row(&id, row.version, &source, values)
                }
            })?;
        }
        Ok(())
    }
}

fn utf8(json: &[u8]) -> Answer<&str> {
    std::str::from_utf8(json).map_err(|_| Fault::mapping("failed to parse: it is not UTF-8"))
}
