//! Everything that a query matches, with scores. Exact and in memory: 12 bytes a document.

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::index::SegmentReader;
use tantivy::query::{Bm25StatisticsProvider, Query};
use tantivy::{DocAddress, DocId, Score, Searcher};

/// One document that matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Match {
    pub address: DocAddress,
    pub score: Score,
}

pub(super) type Matches = Vec<Match>;

/// In the order of the documents on disk.
pub(super) fn all(
    searcher: &Searcher,
    query: &dyn Query,
    statistics: &dyn Bm25StatisticsProvider,
) -> tantivy::Result<Matches> {
    searcher.search_with_statistics_provider(query, &All, statistics)
}

struct All;

struct InSegment {
    segment: u32,
    matches: Matches,
}

impl Collector for All {
    type Fruit = Matches;
    type Child = InSegment;

    fn for_segment(&self, segment: u32, _: &SegmentReader) -> tantivy::Result<InSegment> {
        Ok(InSegment { segment, matches: Vec::new() })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, segments: Vec<Matches>) -> tantivy::Result<Matches> {
        Ok(segments.concat())
    }
}

impl SegmentCollector for InSegment {
    type Fruit = Matches;

    fn collect(&mut self, doc: DocId, score: Score) {
        // Boosts can make of a score what no JSON can say.
        let score = if score.is_nan() { 0.0 } else { score.clamp(Score::MIN, Score::MAX) };
        self.matches.push(Match { address: DocAddress::new(self.segment, doc), score });
    }

    fn harvest(self) -> Matches {
        self.matches
    }
}
