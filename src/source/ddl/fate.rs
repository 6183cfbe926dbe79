//! What a statement makes of the table that has a name: altered, emptied, gone, or another one. A name is all that a
//! link is bound to. Pure; knows no columns.

use std::collections::HashMap;

use super::tokens::{Cursor, Token};
use super::words::Words;
use super::{Kind, same_name};
use crate::table::TableId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Rows, columns, keys and name stay.
    Nothing,
    /// Columns, keys or rows may be others.
    Altered,
    /// All rows are gone.
    Emptied,
    /// No table has the name from here on; it was dropped, or renamed to `to`.
    Gone { to: Option<TableId> },
    /// A new table has the name; only if there was none, where `if_absent` says so.
    Made { if_absent: bool },
    /// Another table has the name from here on, which was called `by`.
    Taken { by: TableId },
}

/// A table by its name, and what counts as the same name on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub table: TableId,
    /// Names that differ by case are the same (`lower_case_table_names` is not 0).
    pub ignores_case: bool,
}

impl Named {
    fn is(&self, one: &TableId, default_db: &str) -> bool {
        let db = if one.db.is_empty() { default_db } else { &one.db };
        self.same(&one.name, &self.table.name) && (db.is_empty() || self.same(db, &self.table.db))
    }

    fn same(&self, one: &str, other: &str) -> bool {
        one == other || (self.ignores_case && same_name(one, other))
    }

    fn key(&self, id: &TableId) -> (String, String) {
        match self.ignores_case {
            true => (id.db.to_lowercase(), id.name.to_lowercase()),
            false => (id.db.clone(), id.name.clone()),
        }
    }
}

/// `default_db` is the statement's database. A statement that is not understood and names the table has altered it.
pub fn fate(statement: &str, default_db: &str, named: &Named) -> Fate {
    let read = super::read(statement, default_db);
    let Kind::Ddl { .. } = read.kind else { return Fate::Nothing };
    let in_database = read.database.as_ref().is_some_and(|db| named.same(db, &named.table.db));
    let is_named = in_database || read.tables.iter().any(|one| named.is(one, default_db));
    if !is_named {
        return Fate::Nothing;
    }
    known(statement, default_db, named).unwrap_or(Fate::Altered)
}

fn known(statement: &str, default_db: &str, table: &Named) -> Option<Fate> {
    let cursor = &mut Cursor::new(statement, default_db);
    let Token::Word(verb) = cursor.next()? else { return None };
    match verb.to_ascii_uppercase().as_str() {
        "TRUNCATE" => Some(Fate::Emptied),
        "DROP" => dropped(cursor),
        "CREATE" => made(cursor, default_db, table),
        "RENAME" => renamed(cursor, table),
        "ALTER" => altered(cursor, default_db, table),
        "ANALYZE" | "OPTIMIZE" | "CHECK" | "REPAIR" => Some(Fate::Nothing),
        _ => None,
    }
}

fn dropped(cursor: &mut Cursor<'_>) -> Option<Fate> {
    while let Some(token) = cursor.next() {
        if token.is_keyword(&["TABLE", "TABLES", "DATABASE", "SCHEMA"]) {
            return Some(Fate::Gone { to: None });
        }
        if token.is_keyword(&["INDEX"]) {
            return Some(Fate::Altered);
        }
    }
    None
}

fn made(cursor: &mut Cursor<'_>, default_db: &str, table: &Named) -> Option<Fate> {
    while let Some(token) = cursor.next() {
        if token.is_keyword(&["TABLE"]) {
            let if_absent = cursor.accept_if_exists();
            let made = cursor.table()?;
            return Some(if table.is(&made, default_db) {
                Fate::Made { if_absent }
            } else {
                Fate::Nothing
            });
        }
        if token.is_keyword(&["INDEX"]) {
            return Some(Fate::Altered);
        }
    }
    None
}

/// `RENAME TABLE a TO b, c TO a`: one after the other, so that a name can be a stage of another.
fn renamed(cursor: &mut Cursor<'_>, table: &Named) -> Option<Fate> {
    if !cursor.accept(&["TABLE", "TABLES"]) {
        return None;
    }
    cursor.accept_if_exists();
    let key = |id: &TableId| table.key(id);
    let ours = key(&table.table);
    // By name, the table that has it meanwhile, by the name that it had before the statement.
    let mut holders: HashMap<(String, String), Option<TableId>> = HashMap::new();
    let mut went_to = None;
    loop {
        let from = cursor.table()?;
        cursor.accept_wait();
        if !cursor.accept(&["TO", "AS"]) {
            return None;
        }
        let to = cursor.table()?;
        let moved = holders.insert(key(&from), None).unwrap_or(Some(from))?;
        if key(&moved) == ours {
            went_to = Some(to.clone());
        }
        holders.insert(key(&to), Some(moved));
        if !cursor.accept_sign(',') {
            break;
        }
    }
    Some(match holders.remove(&ours) {
        None => Fate::Nothing,
        Some(None) => Fate::Gone { to: went_to },
        Some(Some(by)) if key(&by) == ours => Fate::Nothing,
        Some(Some(by)) => Fate::Taken { by },
    })
}

fn altered(cursor: &mut Cursor<'_>, default_db: &str, table: &Named) -> Option<Fate> {
    while !cursor.accept(&["TABLE"]) {
        cursor.next()?;
    }
    cursor.accept_if_exists();
    let subject = cursor.table()?;
    cursor.accept_wait();
    let is_subject = table.is(&subject, default_db);
    while let Some(clause) = cursor.clause() {
        let mut words = Words::new(&clause);
        if !words.accept(&["RENAME"]) || words.is(&["COLUMN", "INDEX", "KEY"]) {
            continue;
        }
        let _ = words.accept(&["TO", "AS"]) || words.accept_sign('=');
        let to = cursor.table_of(words.rest())?;
        return Some(match (is_subject, table.is(&to, default_db)) {
            (true, true) => Fate::Altered,
            (true, false) => Fate::Gone { to: Some(to) },
            (false, true) => Fate::Taken { by: subject },
            (false, false) => Fate::Nothing,
        });
    }
    // The other table of EXCHANGE PARTITION and CONVERT is altered too.
    Some(Fate::Altered)
}

/// Whether `name` is what gh-ost or pt-online-schema-change call the copy that takes the place of `table`: `_t_gho`, or
/// `_t_new` with any number of underscores before it.
pub fn is_online_copy(name: &TableId, table: &TableId) -> bool {
    let stem = name.name.trim_start_matches('_');
    let original = table.name.trim_start_matches('_');
    let is_longer = name.name.len() - stem.len() > table.name.len() - original.len();
    let suffix = stem.strip_prefix(original);
    same_name(&name.db, &table.db) && is_longer && matches!(suffix, Some("_gho" | "_new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(statement: &str) -> String {
        told_on(statement, true)
    }

    fn told_on(statement: &str, ignores_case: bool) -> String {
        let named = Named { table: TableId::new("d", "t"), ignores_case };
        match fate(statement, "d", &named) {
            Fate::Nothing => "nothing".into(),
            Fate::Altered => "altered".into(),
            Fate::Emptied => "emptied".into(),
            Fate::Gone { to: None } => "dropped".into(),
            Fate::Gone { to: Some(to) } => format!("went to {to}"),
            Fate::Made { if_absent: false } => "made".into(),
            Fate::Made { if_absent: true } => "made if absent".into(),
            Fate::Taken { by } => format!("taken by {by}"),
        }
    }

    #[test]
    fn a_name_is_followed_through_every_statement() {
        for (statement, expected) in [
            ("TRUNCATE t", "emptied"),
            ("TRUNCATE TABLE `e`.`t`", "nothing"),
            ("DROP TABLE a, d.t", "dropped"),
            ("DROP TABLE IF EXISTS `T` /* generated by server */", "dropped"),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`", "nothing"),
            ("DROP TEMPORARY TABLE t", "nothing"),
            ("DROP DATABASE d", "dropped"),
            ("DROP DATABASE e", "nothing"),
            ("DROP INDEX i ON t", "altered"),
            ("CREATE UNIQUE INDEX i ON t (a)", "altered"),
            ("CREATE TABLE t (id INT)", "made"),
            ("CREATE TABLE IF NOT EXISTS t LIKE u", "made if absent"),
            ("CREATE TABLE u LIKE t", "nothing"),
            ("CREATE TEMPORARY TABLE t (id INT)", "nothing"),
            ("ALTER TABLE t ADD a INT", "altered"),
            ("ALTER TABLE t RENAME COLUMN a TO t", "altered"),
            ("ALTER TABLE t ADD a INT, RENAME u", "went to d.u"),
            ("ALTER TABLE `t` RENAME `e`.`t`", "went to e.t"),
            ("ALTER TABLE _t_gho RENAME TO t", "taken by d._t_gho"),
            ("ALTER TABLE u EXCHANGE PARTITION p WITH TABLE t", "altered"),
            ("ALTER TABLE u CONVERT PARTITION p TO TABLE t", "altered"),
            ("ALTER TABLE t WAIT 5 RENAME u", "went to d.u"),
            ("RENAME TABLE t NOWAIT TO u, _t_gho WAIT 2 TO t", "taken by d._t_gho"),
            ("ALTER TABLE u ADD FOREIGN KEY (a) REFERENCES t (id)", "nothing"),
            ("RENAME TABLE t TO u", "went to d.u"),
            ("RENAME TABLE u TO t", "taken by d.u"),
            ("RENAME TABLE `d`.`t` TO `d`.`_t_del`, `d`.`_t_gho` TO `d`.`t`", "taken by d._t_gho"),
            ("RENAME TABLE t TO x, u TO t, x TO u", "taken by d.u"),
            ("RENAME TABLE t TO x, x TO t", "nothing"),
            ("RENAME TABLE a TO b, t TO a, a TO c", "went to d.c"),
            ("OPTIMIZE TABLE t", "nothing"),
            ("ALTER SOMETHING t STRANGE", "nothing"),
            ("INSERT INTO t VALUES (1)", "nothing"),
        ] {
            assert_eq!(told(statement), expected, "{statement}");
        }
    }

    #[test]
    fn another_table_is_another_where_case_counts() {
        for statement in
            ["TRUNCATE T", "DROP TABLE D.t", "RENAME TABLE T TO u", "CREATE TABLE T (a INT)"]
        {
            assert_eq!(told_on(statement, false), "nothing", "{statement}");
            assert_ne!(told_on(statement, true), "nothing", "{statement}");
        }
        assert_eq!(told_on("DROP DATABASE D", false), "nothing");
    }

    #[test]
    fn copies_of_online_tools_are_known_by_their_names() {
        let is = |name: &str| is_online_copy(&TableId::new("d", name), &TableId::new("d", "t"));
        assert!(is("_t_gho") && is("_t_new") && is("___t_new"));
        assert!(!is("t_new") && !is("_t_old") && !is("_tt_gho") && !is("u"));
        let of_other = TableId::new("e", "_t_gho");
        assert!(!is_online_copy(&of_other, &TableId::new("d", "t")));
    }
}
