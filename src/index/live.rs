//! What ranking counts: the documents that are there, and neither tombstones nor rows that were replaced and are not merged
//! away yet. Scores do not depend on when a merge comes. Knows no queries.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use tantivy::query::Bm25StatisticsProvider;
use tantivy::schema::{Field as Column, IndexRecordOption};
use tantivy::{DocSet as _, Searcher, TERMINATED, Term};

pub(super) struct Live<'s> {
    searcher: &'s Searcher,
    live_term: Term,
    documents: OnceCell<u64>,
    words: RefCell<HashMap<Column, u64>>,
}

impl<'s> Live<'s> {
    pub fn new(searcher: &'s Searcher, live_term: Term) -> Self {
        Self { searcher, live_term, documents: OnceCell::new(), words: RefCell::default() }
    }

    /// How many rows have the term and were not replaced.
    fn rows(&self, term: &Term) -> tantivy::Result<u64> {
        let mut rows = 0;
        for segment in self.searcher.segment_readers() {
            let terms = segment.inverted_index(term.field())?;
            if !segment.has_deletes() {
                rows += u64::from(terms.doc_freq(term)?);
                continue;
            }
            let Some(mut postings) = terms.read_postings(term, IndexRecordOption::Basic)? else {
                continue;
            };
            while postings.doc() != TERMINATED {
                rows += u64::from(!segment.is_deleted(postings.doc()));
                postings.advance();
            }
        }
        Ok(rows)
    }
}

impl Bm25StatisticsProvider for Live<'_> {
    fn total_num_tokens(&self, column: Column) -> tantivy::Result<u64> {
        if let Some(words) = self.words.borrow().get(&column) {
            return Ok(*words);
        }
        let mut words = 0;
        for segment in self.searcher.segment_readers() {
            match segment.fieldnorms_readers().get_field(column)? {
                Some(lengths) => {
                    let lengths = segment.doc_ids_alive().map(|doc| lengths.fieldnorm(doc));
                    words += lengths.map(u64::from).sum::<u64>();
                }
                None => words += segment.inverted_index(column)?.total_num_tokens(),
            }
        }
        self.words.borrow_mut().insert(column, words);
        Ok(words)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        if let Some(documents) = self.documents.get() {
            return Ok(*documents);
        }
        let documents = self.rows(&self.live_term)?;
        Ok(*self.documents.get_or_init(|| documents))
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        // A tombstone has an `_id` too; there can be no more documents with a term than there are.
        Ok(self.rows(term)?.min(self.total_num_docs()?))
    }
}
