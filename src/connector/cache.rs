//! Vectors of texts that were asked for before, in memory, bounded in bytes; the least used go first. Knows neither
//! endpoint nor document.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use quick_cache::{Equivalent, Weighter, sync};

/// Numbers of one text: shared, never changed.
pub type Vector = Arc<[f32]>;

/// What an entry costs beside its text and numbers: keys, counters and slots, measured roughly.
const ENTRY_BYTES: usize = 160;

/// The whole text is part of the key: equal hashes never give a wrong vector.
#[derive(Debug)]
struct Key {
    model: Arc<str>,
    text: Box<str>,
}

#[derive(Debug)]
struct Asked<'a> {
    model: &'a str,
    text: &'a str,
}

impl Key {
    fn asked(&self) -> Asked<'_> {
        Asked { model: &self.model, text: &self.text }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asked().hash(state);
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.model.hash(state);
        self.text.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.asked().equivalent(other)
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.model == *key.model && *self.text == *key.text
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Vector> for Bytes {
    fn weight(&self, key: &Key, vector: &Vector) -> u64 {
        (key.text.len() + size_of_val(&**vector) + ENTRY_BYTES) as u64
    }
}

/// The cache of all models. A model's name in it includes the version of its connector, so that a changed definition
/// never meets old vectors.
#[derive(Debug)]
pub struct Cache {
    kept: Option<sync::Cache<Key, Vector, Bytes>>,
}

impl Cache {
    /// At most `limit_bytes` in memory; 0 switches the cache off.
    pub fn new(limit_bytes: usize) -> Self {
        // An estimate that only sizes the first tables: vectors of 1024 numbers with a text beside.
        let entries = (limit_bytes / 5000).clamp(16, 1 << 20);
        let kept = (limit_bytes > 0)
            .then(|| sync::Cache::with_weighter(entries, limit_bytes as u64, Bytes));
        Self { kept }
    }

    pub fn get(&self, model: &str, text: &str) -> Option<Vector> {
        self.kept.as_ref()?.get(&Asked { model, text })
    }

    pub fn put(&self, model: &Arc<str>, text: &str, vector: Vector) {
        if let Some(kept) = &self.kept {
            kept.insert(Key { model: model.clone(), text: text.into() }, vector);
        }
    }

    #[cfg(test)]
    pub fn size_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.weight() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_found_by_its_model_and_text_only() {
        let cache = Cache::new(1 << 20);
        let model: Arc<str> = "m@1".into();
        cache.put(&model, "a", [1.0, 2.0].into());
        assert_eq!(cache.get("m@1", "a").as_deref(), Some(&[1.0, 2.0][..]));
        assert!(cache.get("m@2", "a").is_none() && cache.get("m@1", "b").is_none());
    }

    #[test]
    fn the_cache_never_grows_over_its_limit() {
        let cache = Cache::new(100_000);
        let model: Arc<str> = "m@1".into();
        for number in 0..1000 {
            cache.put(&model, &format!("text {number}"), vec![0.0; 100].into());
        }
        let size = cache.size_bytes();
        assert!(size <= 100_000 && size > 10_000, "{size}");
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = Cache::new(0);
        cache.put(&"m".into(), "a", [1.0].into());
        assert!(cache.get("m", "a").is_none());
    }
}
