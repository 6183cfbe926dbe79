//! Which of the two products answers, and what the one says otherwise than the other. Bulks, answers, aliases, settings and
//! versions are the same in both. Pure; must not know HTTP.

use serde_json::Value;

use crate::error::{Error, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink) enum Product {
    OpenSearch,
    Elasticsearch,
}

impl Product {
    fn name(self) -> &'static str {
        match self {
            Self::OpenSearch => "OpenSearch",
            Self::Elasticsearch => "Elasticsearch",
        }
    }

    /// Its `sink.type`.
    fn kind(self) -> &'static str {
        match self {
            Self::OpenSearch => "opensearch",
            Self::Elasticsearch => "elasticsearch",
        }
    }

    /// Elasticsearch names itself in a header of every answer, refusals included (since 7.14); OpenSearch does not.
    pub(super) fn of_header(value: &str) -> Option<Self> {
        (value == Self::Elasticsearch.name()).then_some(Self::Elasticsearch)
    }

    /// Whose first page this is. OpenSearch can be told to show the version of an old Elasticsearch, but its motto stays.
    pub(super) fn of_page(page: &Value) -> Option<Self> {
        let motto = page["tagline"].as_str().unwrap_or_default();
        let distribution = page["version"]["distribution"].as_str().unwrap_or_default();
        if distribution == "opensearch" || motto.contains("OpenSearch") {
            return Some(Self::OpenSearch);
        }
        (motto == "You Know, for Search").then_some(Self::Elasticsearch)
    }

    /// The length of the vectors that this field of a mapping takes, where it says so.
    pub(super) fn dimension(self, field: &Value) -> Option<usize> {
        let said = match self {
            Self::OpenSearch => &field["dimension"],
            // Without it the first document will settle it.
            Self::Elasticsearch => &field["dims"],
        };
        said.as_u64().and_then(|dimension| usize::try_from(dimension).ok())
    }

    /// What is to be said where `seen` answers in the place of `self`.
    pub(super) fn is_not(self, seen: Self, version: Option<&str>) -> Error {
        let mut who = seen.name().to_owned();
        if let Some(version) = version {
            who.push(' ');
            who.push_str(version);
        }
        let message = format!(
            "what answers at the sink's address is {who}, and sink.type is `{}`",
            self.kind()
        );
        Error::new(ErrorKind::SinkBlocked, message).with_advice(format!(
            "write type = \"{}\" in [sink], or correct sink.addresses",
            seen.kind()
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_first_page_tells_the_product() {
        let opensearch = json!({"version": {"distribution": "opensearch", "number": "2.19.1"},
            "tagline": "The OpenSearch Project: https://opensearch.org/"});
        let disguised = json!({"version": {"number": "7.10.2"},
            "tagline": "The OpenSearch Project: https://opensearch.org/"});
        let elasticsearch = json!({"version": {"number": "7.10.2", "build_flavor": "oss"},
            "tagline": "You Know, for Search"});
        assert_eq!(Product::of_page(&opensearch), Some(Product::OpenSearch));
        assert_eq!(Product::of_page(&disguised), Some(Product::OpenSearch));
        assert_eq!(Product::of_page(&elasticsearch), Some(Product::Elasticsearch));
        assert_eq!(Product::of_page(&json!({"hello": 1})), None);
        assert_eq!(Product::of_header("Elasticsearch"), Some(Product::Elasticsearch));
        assert_eq!(Product::of_header("nginx"), None);
    }

    #[test]
    fn a_vector_field_is_as_long_as_its_product_says() {
        let knn = json!({"type": "knn_vector", "dimension": 3});
        let dense = json!({"type": "dense_vector", "dims": 4});
        assert_eq!(Product::OpenSearch.dimension(&knn), Some(3));
        assert_eq!(Product::Elasticsearch.dimension(&dense), Some(4));
        assert_eq!(Product::Elasticsearch.dimension(&json!({"type": "dense_vector"})), None);
    }

    #[test]
    fn the_other_product_is_told_by_name_with_the_line_to_write() {
        let error = Product::OpenSearch.is_not(Product::Elasticsearch, Some("8.19.21"));
        assert_eq!(
            error.report(),
            "what answers at the sink's address is Elasticsearch 8.19.21, and sink.type is `opensearch`; write type = \"elasticsearch\" in [sink], or correct sink.addresses"
        );
    }
}
