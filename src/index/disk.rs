//! One generation of an index on disk: the columns that its mapping makes, and documents by `_id`. A generation's mapping
//! never changes; another mapping is another generation. Knows no requests.

use std::fs::File;
use std::path::{Path, PathBuf};

use tantivy::schema::{
    FAST, Field as Column, INDEXED, IndexRecordOption, NumericOptions, STORED, STRING, Schema,
    TextFieldIndexing, TextOptions, Value as _,
};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{
    DocAddress, Index, IndexReader, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term,
};

use super::fields::{Fields, Kind};
use super::source::Stored;
use super::vector;
use super::words::{WORDS, Words};
use crate::error::{Error, ErrorKind, Result};

/// The columns that every index has beside those of its mapping.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub id: Column,
    pub source: Column,
    pub version: Column,
    /// False for a tombstone: what is left of a deleted document is its version.
    pub live: Column,
}

pub(super) const VERSION: &str = "_version";
pub(super) const LIVE: &str = "_live";

/// A generation that is open for searches.
pub(super) struct Generation {
    pub number: u64,
    pub dir: PathBuf,
    pub fields: Fields,
    pub columns: Columns,
    /// One for each of `fields.all`.
    pub by_field: Vec<Column>,
    pub index: Index,
    pub reader: IndexReader,
}

/// A document or its tombstone, as last committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub version: u64,
    pub is_live: bool,
    pub address: DocAddress,
}

/// The name of a field's column: its place in the mapping, because a path may hold any character.
pub(super) fn column_name(place: usize) -> String {
    format!("f{place}")
}

pub(super) fn dir_of(index_dir: &Path, number: u64) -> PathBuf {
    index_dir.join(format!("generation-{number}"))
}

impl Generation {
    pub fn create(index_dir: &Path, number: u64, fields: Fields) -> Result<Self> {
        let dir = dir_of(index_dir, number);
        // What is there was begun and never came to count.
        let _ = std::fs::remove_dir_all(&dir);
        // Not what is around it: that is gone where the index was deleted meanwhile.
        std::fs::create_dir(&dir).map_err(|cause| broken(&dir, "make", cause))?;
        let (schema, columns, by_field) = schema(&fields);
        let index =
            Index::create_in_dir(&dir, schema).map_err(|cause| broken(&dir, "make", cause))?;
        sync_dir(&dir)?;
        Self::over(index, dir, number, fields, columns, by_field)
    }

    pub fn open(index_dir: &Path, number: u64, fields: Fields) -> Result<Self> {
        let dir = dir_of(index_dir, number);
        let (schema, columns, by_field) = schema(&fields);
        let index = Index::open_in_dir(&dir).map_err(|cause| broken(&dir, "open", cause))?;
        if index.schema() != schema {
            return Err(Error::new(
                ErrorKind::State,
                format!("the index in {} does not have the columns of its mapping", dir.display()),
            )
            .with_advice("delete the index and make it again: its links fill it"));
        }
        Self::over(index, dir, number, fields, columns, by_field)
    }

    fn over(
        index: Index,
        dir: PathBuf,
        number: u64,
        fields: Fields,
        columns: Columns,
        by_field: Vec<Column>,
    ) -> Result<Self> {
        index.tokenizers().register(WORDS, TextAnalyzer::from(Words));
        // The writer says when there is something new: after each commit, before it is acknowledged.
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()
            .map_err(|cause: TantivyError| broken(&dir, "open", cause))?;
        Ok(Self { number, dir, fields, columns, by_field, index, reader })
    }

    /// The row of a document.
    pub fn row(
        &self,
        id: &str,
        version: u64,
        source: &[u8],
        values: Vec<(usize, Stored)>,
    ) -> TantivyDocument {
        let mut row = self.tombstone(id, version);
        row.add_bool(self.columns.live, true);
        row.add_bytes(self.columns.source, source);
        for (place, value) in values {
            let column = self.by_field[place];
            match value {
                Stored::Text(text) => row.add_text(column, text),
                Stored::Integer(number) => row.add_i64(column, number),
                Stored::Float(number) => row.add_f64(column, number),
                Stored::Boolean(truth) => row.add_bool(column, truth),
                Stored::Vector(vector) => row.add_bytes(column, &vector::to_bytes(&vector)),
            }
        }
        row
    }

    /// What is left of a deleted document.
    pub fn tombstone(&self, id: &str, version: u64) -> TantivyDocument {
        let mut row = TantivyDocument::default();
        row.add_text(self.columns.id, id);
        row.add_u64(self.columns.version, version);
        row
    }

    pub fn id_term(&self, id: &str) -> Term {
        Term::from_field_text(self.columns.id, id)
    }

    pub fn live_term(&self) -> Term {
        Term::from_field_bool(self.columns.live, true)
    }

    /// Where the document or its tombstone is.
    pub fn find(&self, searcher: &Searcher, id: &str) -> tantivy::Result<Option<Place>> {
        use tantivy::DocSet as _;
        let term = self.id_term(id);
        for (ordinal, segment) in (0_u32..).zip(searcher.segment_readers()) {
            let terms = segment.inverted_index(self.columns.id)?;
            let Some(mut postings) = terms.read_postings(&term, IndexRecordOption::Basic)? else {
                continue;
            };
            while postings.doc() != tantivy::TERMINATED {
                let doc = postings.doc();
                if !segment.is_deleted(doc) {
                    let address = DocAddress::new(ordinal, doc);
                    return self.place(searcher, address).map(Some);
                }
                postings.advance();
            }
        }
        Ok(None)
    }

    /// Ids of documents below a version, in the order of their bytes, behind `after`.
    pub fn older(
        &self,
        searcher: &Searcher,
        below: u64,
        after: &str,
        count_max: usize,
    ) -> tantivy::Result<Vec<String>> {
        use tantivy::DocSet as _;
        let mut found = Vec::new();
        for (ordinal, segment) in (0_u32..).zip(searcher.segment_readers()) {
            let inverted = segment.inverted_index(self.columns.id)?;
            let mut terms = inverted.terms().range().gt(after.as_bytes()).into_stream()?;
            let mut of_segment = 0;
            while of_segment < count_max && terms.advance() {
                let mut postings = inverted
                    .read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?;
                while postings.doc() != tantivy::TERMINATED {
                    let doc = postings.doc();
                    postings.advance();
                    if segment.is_deleted(doc) {
                        continue;
                    }
                    let place = self.place(searcher, DocAddress::new(ordinal, doc))?;
                    if place.is_live && place.version < below {
                        found.push(String::from_utf8_lossy(terms.key()).into_owned());
                        of_segment += 1;
                    }
                }
            }
        }
        found.sort_unstable();
        found.truncate(count_max);
        Ok(found)
    }

    /// Version and life of the row at an address.
    pub fn place(&self, searcher: &Searcher, address: DocAddress) -> tantivy::Result<Place> {
        let columns = searcher.segment_reader(address.segment_ord).fast_fields();
        let version = columns.u64(VERSION)?.first(address.doc_id);
        let live = columns.column_opt::<bool>(LIVE)?.and_then(|live| live.first(address.doc_id));
        let lost = || TantivyError::InternalError("a row has no version".to_owned());
        Ok(Place { version: version.ok_or_else(lost)?, is_live: live == Some(true), address })
    }

    /// `_id` and source of the row at an address.
    pub fn load(
        &self,
        searcher: &Searcher,
        address: DocAddress,
    ) -> tantivy::Result<(String, Vec<u8>)> {
        let row: TantivyDocument = searcher.doc(address)?;
        let id = row.get_first(self.columns.id).and_then(|id| id.as_str()).unwrap_or_default();
        let source = row.get_first(self.columns.source).and_then(|source| source.as_bytes());
        Ok((id.to_owned(), source.unwrap_or_default().to_vec()))
    }
}

fn schema(fields: &Fields) -> (Schema, Columns, Vec<Column>) {
    let mut schema = Schema::builder();
    let columns = Columns {
        id: schema.add_text_field("_id", STRING | STORED),
        source: schema.add_bytes_field("_source", STORED),
        version: schema.add_u64_field(VERSION, FAST),
        live: schema.add_bool_field(LIVE, INDEXED | FAST),
    };
    let by_field = fields.all.iter().enumerate().map(|(place, field)| {
        let name = column_name(place);
        let numeric = || NumericOptions::default().set_indexed().set_fast();
        match field.kind {
            Kind::Text => schema.add_text_field(&name, text()),
            Kind::Keyword { .. } => schema.add_text_field(&name, keyword()),
            Kind::Integer { .. } | Kind::Date(_) => schema.add_i64_field(&name, numeric()),
            Kind::Float | Kind::Double => schema.add_f64_field(&name, numeric()),
            Kind::Boolean => schema.add_bool_field(&name, numeric()),
            Kind::Vector { .. } => schema.add_bytes_field(&name, FAST),
        }
    });
    let by_field = by_field.collect();
    (schema.build(), columns, by_field)
}

fn text() -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(WORDS)
        .set_index_option(IndexRecordOption::WithFreqs);
    TextOptions::default().set_indexing_options(indexing)
}

fn keyword() -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    TextOptions::default().set_indexing_options(indexing).set_fast("raw")
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|cause| broken(dir, "sync", cause))
}

pub(super) fn broken(
    dir: &Path,
    what: &str,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(ErrorKind::State, format!("cannot {what} the index in {}", dir.display()))
        .caused_by(cause)
}
