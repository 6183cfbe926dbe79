//! Statements of the log, as far as a link must understand them: where transactions begin and end, which tables a
//! statement can touch, and whether a definition changes so that rows must be read in another way. Pure; knows no
//! grammar beyond that, and never fails: what cannot be read counts as able to touch every table that it names.

mod alter;
pub mod apply;
mod column;
pub mod fate;
pub mod temporary;
pub mod text;
mod tokens;
mod words;

use self::alter::alter_table;
use self::tokens::{Cursor, Token};
use crate::table::TableId;

/// What a statement of the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Begin,
    Commit,
    Rollback,
    /// SAVEPOINT, RELEASE SAVEPOINT and ROLLBACK TO.
    Savepoint,
    /// XA START, with the text of its XID.
    XaStart(String),
    XaEnd,
    XaCommit,
    XaRollback,
    /// Rows changed by a statement instead of row events.
    Dml,
    /// A definition changed; without `changes_columns` rows and columns stay as they are.
    Ddl {
        changes_columns: bool,
    },
    /// A table that only its session sees is made, or dropped.
    Temporary {
        made: bool,
    },
    Other,
}

/// A statement of the log as far as a link must understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub kind: Kind,
    /// The tables that it can touch, as far as they are named; `db` is empty where nothing says which it is.
    pub tables: Vec<TableId>,
    /// A whole database goes.
    database: Option<String>,
    /// It can touch tables that it does not name: it calls a function.
    any_table: bool,
}

impl Read {
    /// Whether the statement can touch `table`; in doubt it can. Whether the server tells names apart by case is not
    /// known here, so they are compared without.
    pub fn names(&self, table: &TableId) -> bool {
        let in_database = self.database.as_ref().is_some_and(|name| same_name(name, &table.db));
        let is_named = |one: &TableId| {
            same_name(&one.name, &table.name)
                && (one.db.is_empty() || same_name(&one.db, &table.db))
        };
        self.any_table || in_database || self.tables.iter().any(is_named)
    }

    fn of(kind: Kind) -> Self {
        Self { kind, tables: Vec::new(), database: None, any_table: false }
    }

    fn ddl(changes_columns: bool, tables: Vec<TableId>) -> Self {
        Self { tables, ..Self::of(Kind::Ddl { changes_columns }) }
    }

    fn temporary(made: bool, tables: Vec<TableId>) -> Self {
        Self { tables, ..Self::of(Kind::Temporary { made }) }
    }

    fn dml(tables: Vec<TableId>) -> Self {
        Self { tables, ..Self::of(Kind::Dml) }
    }
}

/// Of [`Kind::Savepoint`], whether it is ROLLBACK TO.
pub fn is_rollback_to(statement: &str) -> bool {
    Cursor::new(statement, "").accept(&["ROLLBACK"])
}

fn same_name(one: &str, other: &str) -> bool {
    one == other || one.to_lowercase() == other.to_lowercase()
}

/// Reads a statement of a QUERY event; `default_db` is the event's database, empty if it has none.
pub fn read(statement: &str, default_db: &str) -> Read {
    if statement == "BEGIN" {
        // Every transaction has one.
        return Read::of(Kind::Begin);
    }
    let cursor = &mut Cursor::new(statement, default_db);
    let Some(Token::Word(verb)) = cursor.next() else {
        // `(SELECT …)` is in the log only if it calls a function that changes something.
        let is_query = statement.trim_start().starts_with('(');
        return Read {
            any_table: is_query,
            ..Read::of(if is_query { Kind::Dml } else { Kind::Other })
        };
    };
    let known = match verb.len() {
        0..=16 => verb.to_ascii_uppercase(),
        _ => String::new(),
    };
    let found = match known.as_str() {
        "BEGIN" => Some(Read::of(Kind::Begin)),
        "START" if cursor.accept(&["TRANSACTION"]) => Some(Read::of(Kind::Begin)),
        "COMMIT" => Some(Read::of(Kind::Commit)),
        "ROLLBACK" => {
            cursor.accept(&["WORK"]);
            let partly = cursor.accept(&["TO"]);
            Some(Read::of(if partly { Kind::Savepoint } else { Kind::Rollback }))
        }
        "SAVEPOINT" | "RELEASE" => Some(Read::of(Kind::Savepoint)),
        "XA" => Some(Read::of(xa(cursor))),
        "INSERT" | "REPLACE" => insert(cursor),
        "LOAD" => load(cursor),
        "UPDATE" => Some(update(cursor)),
        "DELETE" => Some(delete(cursor)),
        "WITH" => with(cursor),
        "SELECT" | "DO" | "CALL" | "TABLE" | "VALUES" => {
            Some(Read { any_table: true, ..Read::of(Kind::Dml) })
        }
        "CREATE" => create(cursor),
        "DROP" => drop(cursor),
        "ALTER" => alter(cursor),
        "RENAME" => rename(cursor),
        "TRUNCATE" => {
            cursor.accept(&["TABLE"]);
            cursor.tables().map(|tables| Read::ddl(true, tables))
        }
        "ANALYZE" | "OPTIMIZE" | "CHECK" | "REPAIR" => maintenance(cursor),
        _ => Some(Read::of(Kind::Other)),
    };
    found.unwrap_or_else(|| in_doubt(&known, statement, default_db))
}

/// A statement whose tables are not where they are looked for: it can touch all that it names.
fn in_doubt(verb: &str, statement: &str, default_db: &str) -> Read {
    let tables = Cursor::new(statement, default_db).all_names();
    match verb {
        "INSERT" | "REPLACE" | "LOAD" | "WITH" => Read::dml(tables),
        _ => Read::ddl(true, tables),
    }
}

fn xa(cursor: &mut Cursor<'_>) -> Kind {
    if cursor.accept(&["START", "BEGIN"]) {
        Kind::XaStart(cursor.rest().trim().to_owned())
    } else if cursor.accept(&["END"]) {
        Kind::XaEnd
    } else if cursor.accept(&["COMMIT"]) {
        Kind::XaCommit
    } else if cursor.accept(&["ROLLBACK"]) {
        Kind::XaRollback
    } else {
        Kind::Other
    }
}

fn insert(cursor: &mut Cursor<'_>) -> Option<Read> {
    while cursor.accept(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]) {}
    // What stands behind the first table is only read.
    cursor.table().map(|table| Read::dml(vec![table]))
}

fn load(cursor: &mut Cursor<'_>) -> Option<Read> {
    if !cursor.accept(&["DATA", "XML"]) {
        return Some(Read::of(Kind::Other));
    }
    while let Some(token) = cursor.next() {
        if token.is_keyword(&["INTO"]) && cursor.accept(&["TABLE"]) {
            return cursor.table().map(|table| Read::dml(vec![table]));
        }
    }
    None
}

fn update(cursor: &mut Cursor<'_>) -> Read {
    Read::dml(cursor.references(&["SET"]))
}

fn delete(cursor: &mut Cursor<'_>) -> Read {
    Read::dml(cursor.references(&["WHERE", "ORDER", "LIMIT", "RETURNING"]))
}

/// Goes to the verb behind the common table expressions, which stand in parentheses.
fn with(cursor: &mut Cursor<'_>) -> Option<Read> {
    let mut depth = 0i64;
    while let Some(token) = cursor.next() {
        depth += token.nesting();
        match token {
            _ if depth > 0 => (),
            token if token.is_keyword(&["UPDATE"]) => return Some(update(cursor)),
            token if token.is_keyword(&["DELETE"]) => return Some(delete(cursor)),
            token if token.is_keyword(&["INSERT", "REPLACE"]) => return insert(cursor),
            token if token.is_keyword(&["SELECT"]) => {
                return Some(Read { any_table: true, ..Read::of(Kind::Dml) });
            }
            _ => (),
        }
    }
    None
}

/// Things whose definition holds no rows.
const ROWLESS: &[&str] = &[
    "TRIGGER",
    "VIEW",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "USER",
    "ROLE",
    "SERVER",
    "TABLESPACE",
    "LOGFILE",
    "UNDO",
    "RESOURCE",
    "REFERENCE",
    "SEQUENCE",
    "PACKAGE",
    "LIBRARY",
    "INSTANCE",
];
const DATABASE: &[&str] = &["DATABASE", "SCHEMA"];

fn create(cursor: &mut Cursor<'_>) -> Option<Read> {
    // Between verb and thing stand OR REPLACE, DEFINER, ALGORITHM, UNIQUE and the like.
    while let Some(token) = cursor.next() {
        if token.is_keyword(&["TEMPORARY"]) {
            cursor.accept(&["TABLE"]);
            cursor.accept_if_exists();
            return Some(Read::temporary(true, cursor.table().into_iter().collect()));
        } else if token.is_keyword(&["TABLE"]) {
            // A table that is there already stays as it is. Tables that it is made LIKE or FROM are only read.
            let keeps = cursor.accept_if_exists();
            return cursor.table().map(|table| Read::ddl(!keeps, vec![table]));
        } else if token.is_keyword(&["INDEX"]) {
            return index(cursor);
        } else if token.is_keyword(ROWLESS) || token.is_keyword(DATABASE) {
            return Some(Read::ddl(false, Vec::new()));
        }
    }
    Some(Read::of(Kind::Other))
}

fn drop(cursor: &mut Cursor<'_>) -> Option<Read> {
    while let Some(token) = cursor.next() {
        if token.is_keyword(&["TEMPORARY"]) {
            cursor.accept(&["TABLE", "TABLES"]);
            cursor.accept_if_exists();
            return Some(Read::temporary(false, cursor.tables().unwrap_or_default()));
        } else if token.is_keyword(&["PREPARE"]) {
            return Some(Read::of(Kind::Other));
        } else if token.is_keyword(&["TABLE", "TABLES"]) {
            cursor.accept_if_exists();
            return cursor.tables().map(|tables| Read::ddl(true, tables));
        } else if token.is_keyword(&["INDEX"]) {
            return index(cursor);
        } else if token.is_keyword(DATABASE) {
            cursor.accept_if_exists();
            let database = cursor.name();
            return Some(Read { database, ..Read::ddl(true, Vec::new()) });
        } else if token.is_keyword(ROWLESS) {
            return Some(Read::ddl(false, Vec::new()));
        }
    }
    Some(Read::of(Kind::Other))
}

/// `CREATE|DROP INDEX name … ON table`.
fn index(cursor: &mut Cursor<'_>) -> Option<Read> {
    cursor.accept_if_exists();
    let is_primary = cursor.name()?.eq_ignore_ascii_case("PRIMARY");
    while let Some(token) = cursor.next() {
        if token.is_keyword(&["ON"]) {
            return cursor.table().map(|table| Read::ddl(is_primary, vec![table]));
        }
    }
    None
}

fn rename(cursor: &mut Cursor<'_>) -> Option<Read> {
    if !cursor.accept(&["TABLE", "TABLES"]) {
        return Some(Read::of(Kind::Other));
    }
    cursor.accept_if_exists();
    let mut tables = Vec::new();
    loop {
        tables.push(cursor.table()?);
        cursor.accept_wait();
        let goes_on = cursor.accept(&["TO"]) || cursor.accept_sign(',');
        if !goes_on {
            return Some(Read::ddl(true, tables));
        }
    }
}

fn maintenance(cursor: &mut Cursor<'_>) -> Option<Read> {
    cursor.accept(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
    if !cursor.accept(&["TABLE", "TABLES"]) {
        return Some(Read::of(Kind::Other));
    }
    cursor.tables().map(|tables| Read::ddl(false, tables))
}

fn alter(cursor: &mut Cursor<'_>) -> Option<Read> {
    let mut ignores = false;
    while let Some(token) = cursor.next() {
        ignores |= token.is_keyword(&["IGNORE"]);
        if token.is_keyword(&["TABLE"]) {
            cursor.accept_if_exists();
            return alter_table(cursor, ignores);
        }
        if token.is_keyword(ROWLESS) || token.is_keyword(DATABASE) {
            return Some(Read::ddl(false, Vec::new()));
        }
    }
    Some(Read::of(Kind::Other))
}

#[cfg(test)]
mod tests;
