//! ALTER TABLE, clause by clause: does it leave rows and columns as they are? A clause that is not known does not. Knows
//! no other statement.

use super::Read;
use super::tokens::{Cursor, Token};
use crate::table::TableId;

/// Reads what stands behind `ALTER TABLE`; `None` if that is no table. With IGNORE, rows that a new key or type does not
/// allow are dropped.
pub(super) fn alter_table(cursor: &mut Cursor<'_>, ignores: bool) -> Option<Read> {
    let mut tables = vec![cursor.table()?];
    cursor.accept_wait();
    let mut changes_columns = ignores;
    while let Some(clause) = cursor.clause() {
        changes_columns |= !leaves_rows(&clause);
        if let Some(other) = cursor.table_of(other_table(&clause)) {
            // A name without database means that of the session or that of the table; servers differ.
            tables.push(TableId::new(tables[0].db.clone(), other.name.clone()));
            tables.push(other);
        }
    }
    Some(Read::ddl(changes_columns, tables))
}

/// Where the clause names a second table: RENAME TO it, EXCHANGE PARTITION … WITH TABLE it, and of MariaDB CONVERT
/// PARTITION … TO TABLE it, CONVERT TABLE it TO PARTITION.
fn other_table<'c, 's>(clause: &'c [Token<'s>]) -> &'c [Token<'s>] {
    let is =
        |at: usize, words: &[&str]| clause.get(at).is_some_and(|token| token.is_keyword(words));
    if is(0, &["RENAME"]) && !is(1, &["INDEX", "KEY", "COLUMN"]) {
        let skipped = is(1, &["TO", "AS"]) || clause.get(1).is_some_and(|token| token.is_sign('='));
        return clause.get(1 + usize::from(skipped)..).unwrap_or_default();
    }
    if !is(0, &["EXCHANGE", "CONVERT"]) {
        return &[];
    }
    let before_table = clause.windows(2).position(|pair| {
        pair[0].is_keyword(&["WITH", "TO", "CONVERT"]) && pair[1].is_keyword(&["TABLE"])
    });
    before_table.and_then(|at| clause.get(at + 2..)).unwrap_or_default()
}

/// Whether it is known of a clause of ALTER TABLE that rows and columns stay as they are.
pub(super) fn leaves_rows(clause: &[Token<'_>]) -> bool {
    let is =
        |at: usize, words: &[&str]| clause.get(at).is_some_and(|token| token.is_keyword(words));
    let is_primary = |at: usize| clause.get(at).is_some_and(|token| token.is_named("PRIMARY"));
    let Some(Token::Word(verb)) = clause.first() else { return clause.is_empty() };
    match verb.to_ascii_uppercase().as_str() {
        "ADD" if is(1, &["CONSTRAINT"]) => !is_primary(2) && !is_primary(3),
        "ADD" => is(1, &["INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK"]),
        "DROP" => {
            is(1, &["INDEX", "KEY", "CONSTRAINT", "CHECK", "FOREIGN"])
                && !is_primary(clause.len() - 1)
        }
        "RENAME" => is(1, &["INDEX", "KEY"]),
        "ALTER" if is(1, &["INDEX", "CHECK", "CONSTRAINT"]) => true,
        "ALTER" => {
            // A default is for rows to come, which carry it in their images.
            let column = if is(1, &["COLUMN"]) { 2 } else { 1 };
            is(column + 1, &["SET", "DROP"]) && is(column + 2, &["DEFAULT"])
        }
        "DISABLE" | "ENABLE" => is(1, &["KEYS"]),
        "WITH" | "WITHOUT" => is(1, &["VALIDATION"]),
        "FORCE" => clause.len() == 1,
        _ => options_leave_rows(clause),
    }
}

/// Table options that change neither rows nor columns.
pub(super) const HARMLESS: &[&str] = &[
    "COMMENT",
    "AUTO_INCREMENT",
    "ENGINE",
    "ALGORITHM",
    "LOCK",
    "STATS_PERSISTENT",
    "STATS_AUTO_RECALC",
    "STATS_SAMPLE_PAGES",
    "ROW_FORMAT",
    "KEY_BLOCK_SIZE",
    "AVG_ROW_LENGTH",
    "MAX_ROWS",
    "MIN_ROWS",
    "COMPRESSION",
];

/// Table options, `NAME [=] value …`: each must be known.
fn options_leave_rows(mut clause: &[Token<'_>]) -> bool {
    while let [name, behind @ ..] = clause {
        let value = match behind {
            [equals, value @ ..] if equals.is_sign('=') => value,
            value => value,
        };
        let [value, behind @ ..] = value else { return false };
        // The one engine that forgets all rows.
        if !name.is_keyword(HARMLESS) || value.is_named("BLACKHOLE") {
            return false;
        }
        clause = behind;
    }
    true
}
