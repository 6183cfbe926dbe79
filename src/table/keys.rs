//! Foreign keys that cascade: by them a change of one table changes rows of another. Data, and what follows from it.

use std::collections::BTreeSet;

use super::{TableDef, TableId};

/// What becomes of the rows that refer to a row that is deleted, or whose key is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// They are not touched: the change is refused while there are any.
    Restrict,
    Cascade,
    SetNull,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    pub name: String,
    pub child: TableId,
    pub columns: Vec<String>,
    pub parent: TableId,
    /// Those that `columns` refer to, in their order.
    pub parent_columns: Vec<String>,
    pub on_delete: Action,
    pub on_update: Action,
    /// The collations of the columns' text hold no two texts for equal that differ in more than case and trailing
    /// spaces, as long as both are of printable ASCII.
    pub is_plain: bool,
}

/// All foreign keys by which a table's rows can change without a change of their own in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// Of the table and of all its ancestors; only such as cascade.
    pub keys: Vec<ForeignKey>,
    /// The definitions of the tables that are referred to, as far as they may be read; that of the table itself is not
    /// among them.
    pub ancestors: Vec<TableDef>,
}

impl Family {
    /// The tables that are referred to, without `table` itself.
    pub fn tables(&self, table: &TableId) -> BTreeSet<TableId> {
        let parents = self.keys.iter().map(|key| &key.parent);
        parents.filter(|parent| *parent != table).cloned().collect()
    }

    pub fn ancestor(&self, table: &TableId) -> Option<&TableDef> {
        self.ancestors.iter().find(|def| def.id == *table)
    }

    /// The keys by which the rows of `table` change, with their places in `keys`.
    pub fn of_child<'f>(
        &'f self,
        table: &'f TableId,
    ) -> impl Iterator<Item = (usize, &'f ForeignKey)> {
        self.keys.iter().enumerate().filter(move |(_, key)| key.child == *table)
    }

    /// Whether the rows that `key` refers to can themselves be changed by another key, so that they lose what is referred
    /// to without a word in the log. A key of a table to itself counts only by what other tables do to it.
    pub fn is_deep(&self, key: &ForeignKey) -> bool {
        self.keys.iter().any(|above| {
            let changes_key = above.columns.iter().any(|column| {
                key.parent_columns.iter().any(|one| one.to_lowercase() == column.to_lowercase())
            });
            let is_own = above.child == key.child && above.parent == key.child;
            above.child == key.parent
                && !is_own
                && (above.on_delete == Action::Cascade || changes_key)
        })
    }
}
