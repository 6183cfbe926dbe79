//! Exact vector search: every vector of the index is compared, and the nearest become a query that carries their scores.
//! Scores are those that OpenSearch documents for its spaces. Knows no JSON.

use std::collections::HashMap;
use std::sync::Arc;

use tantivy::index::{SegmentId, SegmentReader};
use tantivy::query::{EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, Searcher, TERMINATED, TantivyError};

use super::collect::Matches;
use super::fault::{Answer, Fault};

/// How the distance of two vectors is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    L2,
    Cosine,
    InnerProduct,
}

impl Space {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "l2" => Some(Self::L2),
            "cosinesimil" => Some(Self::Cosine),
            "innerproduct" => Some(Self::InnerProduct),
            _ => None,
        }
    }

    /// The greater the nearer, and never below 0.
    fn score(self, query: &[f32], vector: impl Iterator<Item = f32>) -> Score {
        let (mut dot, mut square, mut distance) = (0.0_f64, 0.0_f64, 0.0_f64);
        let mut query_square = 0.0_f64;
        for (a, b) in query.iter().map(|a| f64::from(*a)).zip(vector.map(f64::from)) {
            dot += a * b;
            square += b * b;
            query_square += a * a;
            distance += (a - b) * (a - b);
        }
        let score = match self {
            Self::L2 => 1.0 / (1.0 + distance),
            Self::Cosine => (1.0 + dot / (square * query_square).sqrt()) / 2.0,
            Self::InnerProduct if dot > 0.0 => dot + 1.0,
            Self::InnerProduct => 1.0 / (1.0 - dot),
        };
        // An inner product can be beyond what a score can say.
        score.min(f64::from(Score::MAX)) as Score
    }

    /// Says what is wrong with a vector in this space.
    pub(super) fn check(self, vector: &[f32]) -> Result<(), String> {
        let is_zero = vector.iter().all(|number| *number == 0.0);
        match self {
            Self::Cosine if is_zero => {
                Err("zero vector is not supported when space type is [cosinesimil]".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// How a vector lies in its column.
pub(super) fn to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

/// What is near to what.
pub(super) struct Nearest<'q> {
    pub column: &'q str,
    pub space: Space,
    pub vector: &'q [f32],
    pub k: usize,
}

impl Nearest<'_> {
    /// The `k` nearest among the documents of `among`, which must all be alive.
    pub fn find(&self, searcher: &Searcher, among: &Matches) -> Answer<Scored> {
        let mut best: Vec<(Score, u32, DocId)> = Vec::new();
        for (ordinal, segment) in (0_u32..).zip(searcher.segment_readers()) {
            let Some(column) = segment.fast_fields().bytes(self.column)? else { continue };
            let mut scores = Vec::with_capacity(column.num_terms());
            let mut stream = column.dictionary().stream()?;
            while stream.advance() {
                scores.push(self.space.score(self.vector, numbers(stream.key())));
            }
            for found in among.iter().filter(|found| found.address.segment_ord == ordinal) {
                let doc = found.address.doc_id;
                let score =
                    column.ords().first(doc).and_then(|ord| scores.get(usize::try_from(ord).ok()?));
                best.extend(score.map(|score| (*score, ordinal, doc)));
            }
        }
        best.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        best.truncate(self.k);
        let mut segments: HashMap<SegmentId, Vec<(DocId, Score)>> = HashMap::new();
        for (score, ordinal, doc) in best {
            let id = searcher.segment_reader(ordinal).segment_id();
            segments.entry(id).or_default().push((doc, score));
        }
        segments.values_mut().for_each(|found| found.sort_by_key(|(doc, _)| *doc));
        Ok(Scored { segments: Arc::new(segments) })
    }
}

/// Says what is wrong with a query's vector.
pub(super) fn check(path: &str, vector: &[f32], dimension: usize, space: Space) -> Answer<()> {
    if vector.len() != dimension {
        return Err(Fault::request(format!(
            "Query vector has invalid dimension: {}. Dimension of [{path}] should be: {dimension}",
            vector.len()
        )));
    }
    space.check(vector).map_err(Fault::request)
}

/// A query that matches documents known by their places, each with its score.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    segments: Arc<HashMap<SegmentId, Vec<(DocId, Score)>>>,
}

impl Query for Scored {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Scored {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let found = self.segments.get(&segment.segment_id()).cloned().unwrap_or_default();
        Ok(Box::new(Cursor { found, at: 0, boost }))
    }

    fn explain(&self, _: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        Err(TantivyError::InvalidArgument(format!("document {doc} cannot be explained")))
    }
}

struct Cursor {
    found: Vec<(DocId, Score)>,
    at: usize,
    boost: Score,
}

impl DocSet for Cursor {
    fn advance(&mut self) -> DocId {
        self.at += 1;
        self.doc()
    }

    fn doc(&self) -> DocId {
        self.found.get(self.at).map_or(TERMINATED, |(doc, _)| *doc)
    }

    fn size_hint(&self) -> u32 {
        u32::try_from(self.found.len()).unwrap_or(u32::MAX)
    }
}

impl Scorer for Cursor {
    fn score(&mut self) -> Score {
        self.found.get(self.at).map_or(0.0, |(_, score)| score * self.boost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(space: Space, a: &[f32], b: &[f32]) -> Score {
        space.score(a, numbers(&to_bytes(b)))
    }

    #[test]
    fn scores_are_those_of_the_spaces() {
        assert_eq!(score(Space::L2, &[1.0, 2.0], &[1.0, 4.0]), 0.2);
        assert_eq!(score(Space::Cosine, &[1.0, 0.0], &[0.0, 3.0]), 0.5);
        assert_eq!(score(Space::Cosine, &[2.0, 0.0], &[3.0, 0.0]), 1.0);
        assert_eq!(score(Space::InnerProduct, &[2.0, 0.0], &[3.0, 0.0]), 7.0);
        assert_eq!(score(Space::InnerProduct, &[2.0, 0.0], &[-2.0, 0.0]), 0.2);
        assert_eq!(score(Space::InnerProduct, &[Score::MAX], &[Score::MAX]), Score::MAX);
        assert!(Space::Cosine.check(&[0.0, 0.0]).is_err());
    }
}
