//! Temporary tables of sessions whose statements are in the log: what such a session then says of the name does not
//! concern the table that others know by it. Pure.

use std::collections::HashSet;

use super::fate::{Fate, Named, fate};
use super::{Kind, Read};
use crate::table::TableId;

/// Which sessions have which temporary tables, as far as the log has told since it is read.
#[derive(Debug, Default)]
pub struct Temporaries {
    tables: HashSet<(u32, TableId)>,
}

/// Sessions end without a word where the server crashes.
const TABLES_MAX: usize = 10_000;

impl Temporaries {
    /// Takes in a statement of the session `thread`.
    pub fn note(&mut self, thread: u32, read: &Read, statement: &str, db: &str) {
        match read.kind {
            Kind::Temporary { made: true } => {
                if self.tables.len() >= TABLES_MAX {
                    self.tables.clear();
                }
                self.tables.extend(read.tables.iter().map(|table| (thread, key(table, db))));
            }
            Kind::Temporary { made: false } => {
                for table in &read.tables {
                    self.tables.remove(&(thread, key(table, db)));
                }
            }
            Kind::Ddl { .. } if !self.tables.is_empty() => self.rename(thread, statement, db),
            _ => {}
        }
    }

    /// ALTER can give a temporary table another name.
    fn rename(&mut self, thread: u32, statement: &str, db: &str) {
        let of_thread = self.tables.iter().filter(|(of, _)| *of == thread);
        let renamed = of_thread.into_iter().find_map(|(_, table)| {
            let named = Named { table: table.clone(), ignores_case: true };
            match fate(statement, db, &named) {
                Fate::Gone { to: Some(to) } => Some((table.clone(), key(&to, db))),
                _ => None,
            }
        });
        if let Some((from, to)) = renamed {
            self.tables.remove(&(thread, from));
            self.tables.insert((thread, to));
        }
    }

    /// Whether the session means a temporary table where it says `table`.
    pub fn hides(&self, thread: u32, table: &TableId) -> bool {
        !self.tables.is_empty() && self.tables.contains(&(thread, key(table, "")))
    }
}

fn key(table: &TableId, default_db: &str) -> TableId {
    let db = if table.db.is_empty() { default_db } else { &table.db };
    TableId::new(db.to_lowercase(), table.name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ddl::read;

    #[test]
    fn a_name_is_hidden_from_its_own_session_for_as_long_as_the_table_is_there() {
        let mut temporaries = Temporaries::default();
        let mut say = |thread, statement: &str| {
            temporaries.note(thread, &read(statement, "d"), statement, "d");
            let hides = |name: &str| temporaries.hides(thread, &TableId::new("d", name));
            (hides("t"), hides("u"))
        };
        assert_eq!(say(1, "TRUNCATE t"), (false, false));
        assert_eq!(say(1, "CREATE TEMPORARY TABLE IF NOT EXISTS T (id INT)"), (true, false));
        assert_eq!(say(2, "ALTER TABLE t RENAME TO u"), (false, false));
        assert_eq!(say(1, "ALTER TABLE t RENAME TO u"), (false, true));
        assert_eq!(say(1, "DROP TEMPORARY TABLE IF EXISTS `d`.`u`, x"), (false, false));
    }
}
