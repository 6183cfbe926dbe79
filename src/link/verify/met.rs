//! Which ids of an index were met in the table: rows and ids are read beside each other, in any order, and only an id that
//! no row has come for must be looked for. Bounded: what there is no room for is looked for, too.

use hashbrown::HashSet;

use crate::document::{IdHasher, Key, KeyHasher};
use crate::sink::PAGE_DOCUMENTS;

/// Rows of 16 bytes each, in a table that is half empty at worst.
const ROWS_MAX: usize = 400_000;

/// Ids have 512 bytes at most.
const UNMET_MAX: usize = 20 * PAGE_DOCUMENTS;

/// Rows that came before their ids, and ids that came before their rows.
#[derive(Default)]
pub(super) struct Met {
    rows: HashSet<Key, KeyHasher>,
    unmet: HashSet<String>,
}

impl Met {
    pub fn take_row(&mut self, id: &str) {
        if !self.unmet.remove(id) && self.rows.len() < ROWS_MAX {
            self.rows.insert(IdHasher.key(id));
        }
    }

    /// Gives those back that must be looked for now.
    pub fn take_ids(&mut self, mut ids: Vec<String>) -> Vec<String> {
        ids.retain(|id| !self.rows.remove(&IdHasher.key(id)));
        if self.unmet.len() + ids.len() > UNMET_MAX {
            return ids;
        }
        self.unmet.extend(ids);
        Vec::new()
    }

    /// When all rows were read: a page of ids for which none has come.
    pub fn unmet_page(&mut self) -> Option<Vec<String>> {
        let page: Vec<String> = self.unmet.iter().take(PAGE_DOCUMENTS).cloned().collect();
        page.iter().for_each(|id| drop(self.unmet.take(id)));
        (!page.is_empty()).then_some(page)
    }

    /// The ids are read once more from the first on.
    pub fn forget_unmet(&mut self) {
        self.unmet.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| number.to_string()).collect()
    }

    #[test]
    fn an_id_is_looked_for_only_where_no_row_came_before_or_behind_it() {
        let mut met = Met::default();
        met.take_row("1");
        assert!(met.take_ids(ids(1..4)).is_empty());
        met.take_row("2");
        assert_eq!(met.unmet_page(), Some(vec!["3".to_owned()]));
        assert_eq!(met.unmet_page(), None);
    }

    #[test]
    fn what_there_is_no_room_for_is_looked_for_at_once() {
        let mut met = Met::default();
        assert!(met.take_ids(ids(0..UNMET_MAX)).is_empty());
        let more = ids(UNMET_MAX..UNMET_MAX + 2);
        assert_eq!(met.take_ids(more.clone()), more);
        assert_eq!(met.unmet_page().map(|page| page.len()), Some(PAGE_DOCUMENTS));
        met.forget_unmet();
        assert_eq!(met.unmet_page(), None);
    }
}
