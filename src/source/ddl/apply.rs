//! ALTER TABLE applied to a definition: what the columns are behind it, and which was which before. Pure. What is not
//! understood gives `None`; whether the result is true, the caller proves against the server's own definition.

use std::collections::HashMap;

pub use super::column::Defaults;
use super::column::{Defined, Place, charset_of, defined};
use super::same_name;
use super::tokens::{Cursor, Token};
use super::words::Words;
use crate::table::{Charset, Column, ColumnType, TableDef, TableId};

/// A definition behind a statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Altered {
    pub def: TableDef,
    /// For each column of `def`, which it was before; None: a new one.
    pub origins: Vec<Option<usize>>,
    /// Ordinals in `def` of columns that were there before, in which rows can have other values now.
    pub revalued: Vec<usize>,
    /// Ordinals in `def` of new columns in which rows that were there have a value.
    pub filled: Vec<usize>,
    /// Rows may have come or gone: a partition was dropped, truncated or exchanged.
    pub moves_rows: bool,
    /// Keys may be gone that the definition before had; those of `def` are the ones that are sure.
    pub drops_keys: bool,
}

/// Applies one statement.
pub fn apply(
    statement: &str,
    default_db: &str,
    def: &TableDef,
    defaults: Defaults<'_>,
) -> Option<Altered> {
    let cursor = &mut Cursor::new(statement, default_db);
    let charset = defaults.charset.map(str::to_owned);
    let mut change = Change { charset, is_mariadb: defaults.is_mariadb, ..Change::default() };
    match cursor.next()? {
        token if token.is_keyword(&["ALTER"]) => {
            while !cursor.accept(&["TABLE"]) {
                // Rows that do not fit what the statement makes of the table are dropped.
                change.moves_rows |= cursor.next()?.is_keyword(&["IGNORE"]);
            }
            cursor.accept_if_exists();
            let subject = cursor.table()?;
            cursor.accept_wait();
            if !is_table(&subject, &def.id) {
                return None;
            }
            let mut clauses = Vec::new();
            while let Some(clause) = cursor.clause() {
                clauses.push(clause);
            }
            for clause in &clauses {
                change.look_for_charset(clause);
            }
            for clause in &clauses {
                change.read(clause, def)?;
            }
        }
        token if token.is_keyword(&["CREATE"]) => {}
        token if token.is_keyword(&["DROP"]) => change.drops_keys = true,
        _ => return None,
    }
    change.apply_to(def)
}

/// The columns that an ALTER of the table calls otherwise, by their names before and behind it; as far as it is understood.
pub fn renames(statement: &str, default_db: &str, table: &TableId) -> Vec<(String, String)> {
    read_renames(statement, default_db, table).unwrap_or_default()
}

fn read_renames(
    statement: &str,
    default_db: &str,
    table: &TableId,
) -> Option<Vec<(String, String)>> {
    let cursor = &mut Cursor::new(statement, default_db);
    if !cursor.accept(&["ALTER"]) {
        return None;
    }
    while !cursor.accept(&["TABLE"]) {
        cursor.next()?;
    }
    cursor.accept_if_exists();
    if !is_table(&cursor.table()?, table) {
        return None;
    }
    cursor.accept_wait();
    let mut renames = Vec::new();
    while let Some(clause) = cursor.clause() {
        let words = &mut Words::new(&clause);
        let is_rename = words.accept_all(&["RENAME", "COLUMN"]);
        if !is_rename && !words.accept(&["CHANGE"]) {
            continue;
        }
        if !is_rename {
            words.accept(&["COLUMN"]);
        }
        words.accept_all(&["IF", "EXISTS"]);
        let before = words.name()?.to_owned();
        if is_rename {
            words.accept(&["TO"]);
        }
        renames.push((before, words.name()?.to_owned()));
    }
    Some(renames)
}

fn is_table(one: &TableId, other: &TableId) -> bool {
    same_name(&one.name, &other.name) && (one.db.is_empty() || same_name(&one.db, &other.db))
}

/// What the clauses of one statement ask for together.
#[derive(Default)]
struct Change {
    dropped: Vec<usize>,
    /// By ordinal before: what the column becomes.
    changed: HashMap<usize, Defined>,
    renamed: HashMap<usize, String>,
    /// Columns that are put somewhere, in the order of the clauses: new ones, and changed ones with a place.
    placed: Vec<Placed>,
    primary: Option<Vec<String>>,
    drops_primary: bool,
    drops_keys: bool,
    moves_rows: bool,
    /// CONVERT TO CHARACTER SET.
    converted: Option<String>,
    /// The table's default.
    charset: Option<String>,
    is_mariadb: bool,
}

enum Placed {
    New(Defined),
    Moved(usize),
}

impl Change {
    fn defaults(&self) -> Defaults<'_> {
        Defaults { charset: self.charset.as_deref(), is_mariadb: self.is_mariadb }
    }

    /// A default character set counts for columns of the same statement, wherever it stands.
    fn look_for_charset(&mut self, clause: &[Token<'_>]) {
        let mut words = Words::new(clause);
        while !words.is_empty() {
            let (set, collate) = (
                words.accept_all(&["CHARACTER", "SET"]) || words.accept(&["CHARSET"]),
                words.is(&["COLLATE"]),
            );
            let is_of_table =
                !clause[0].is_keyword(&["ADD", "MODIFY", "CHANGE", "CONVERT", "ALTER"]);
            if (set || collate) && is_of_table {
                if collate {
                    words.next();
                }
                words.accept_sign('=');
                let name = match words.peek() {
                    Some(Token::Text(text)) => Some(text.to_string()),
                    token => token.and_then(|token| token.name()).map(str::to_owned),
                };
                self.charset = name.map(|name| charset_of(&name.to_ascii_lowercase()).to_owned());
            } else if !set {
                words.next();
            }
        }
    }

    fn read(&mut self, clause: &[Token<'_>], def: &TableDef) -> Option<()> {
        if super::alter::leaves_rows(clause) {
            self.note_keys(clause);
            return Some(());
        }
        let words = &mut Words::new(clause);
        if words.accept(&["ADD"]) {
            return self.read_add(words, def);
        }
        if words.accept(&["DROP"]) {
            return self.read_drop(words, def);
        }
        if words.accept(&["MODIFY"]) {
            words.accept(&["COLUMN"]);
            let may_lack = words.accept_all(&["IF", "EXISTS"]);
            return match def.ordinal(Words::new(words.rest()).name()?) {
                Some(ordinal) => self.read_change(ordinal, words.rest()),
                None => may_lack.then_some(()),
            };
        }
        if words.accept(&["CHANGE"]) {
            words.accept(&["COLUMN"]);
            let may_lack = words.accept_all(&["IF", "EXISTS"]);
            return match def.ordinal(words.name()?) {
                Some(ordinal) => self.read_change(ordinal, words.rest()),
                None => may_lack.then_some(()),
            };
        }
        if words.accept_all(&["RENAME", "COLUMN"]) {
            let may_lack = words.accept_all(&["IF", "EXISTS"]);
            let Some(ordinal) = def.ordinal(words.name()?) else {
                return may_lack.then_some(());
            };
            words.accept(&["TO"]).then_some(())?;
            self.renamed.insert(ordinal, words.name()?.to_owned());
            return words.is_empty().then_some(());
        }
        if words.accept(&["ALTER"]) {
            // A default, or who sees the column: neither is in an image.
            words.accept(&["COLUMN"]);
            words.name()?;
            let known = words.accept(&["DROP"])
                || (words.accept(&["SET"]) && words.is(&["DEFAULT", "VISIBLE", "INVISIBLE"]));
            return known.then_some(());
        }
        if words.accept_all(&["CONVERT", "TO"]) {
            let is_set = words.accept_all(&["CHARACTER", "SET"]) || words.accept(&["CHARSET"]);
            is_set.then_some(())?;
            let charset = words.name()?.to_ascii_lowercase();
            self.converted = Some(charset.clone());
            self.charset = Some(charset);
            return Some(());
        }
        self.read_partition(clause)
    }

    fn read_add(&mut self, words: &mut Words<'_, '_>, def: &TableDef) -> Option<()> {
        if words.is(&["PARTITION"]) {
            return Some(());
        }
        let is_constraint = words.accept(&["CONSTRAINT"]);
        if is_constraint && !words.is(&["PRIMARY"]) {
            words.name()?;
        }
        if words.accept_all(&["PRIMARY", "KEY"]) {
            while words.peek()?.name().is_some() {
                words.next();
            }
            let part = |part: &[Token<'_>]| Words::new(part).name().map(str::to_owned);
            self.primary =
                Some(Words::split(words.group()?).into_iter().map(part).collect::<Option<_>>()?);
            return Some(());
        }
        if is_constraint {
            return None;
        }
        words.accept(&["COLUMN"]);
        if words.accept_all(&["IF", "NOT", "EXISTS"])
            && def.ordinal(Words::new(words.rest()).name()?).is_some()
        {
            return Some(());
        }
        if words.peek()?.is_sign('(') {
            let inside = words.group()?;
            for part in Words::split(inside) {
                const OTHERS: &[&str] = &[
                    "INDEX",
                    "KEY",
                    "UNIQUE",
                    "FULLTEXT",
                    "SPATIAL",
                    "FOREIGN",
                    "CHECK",
                    "CONSTRAINT",
                    "PRIMARY",
                ];
                if part.first()?.is_keyword(OTHERS) {
                    return None;
                }
                self.add(defined(part, self.defaults())?);
            }
            return words.is_empty().then_some(());
        }
        self.add(defined(words.rest(), self.defaults())?);
        Some(())
    }

    fn add(&mut self, defined: Defined) {
        if defined.is_primary {
            self.primary = Some(vec![defined.column.name.clone()]);
        }
        self.placed.push(Placed::New(defined));
    }

    fn read_drop(&mut self, words: &mut Words<'_, '_>, def: &TableDef) -> Option<()> {
        if words.accept_all(&["PRIMARY", "KEY"]) {
            self.drops_primary = true;
            self.drops_keys = true;
            return Some(());
        }
        if words.accept(&["INDEX", "KEY"]) && words.peek()?.is_named("PRIMARY") {
            self.drops_primary = true;
            self.drops_keys = true;
            return Some(());
        }
        if words.is(&["PARTITION"]) {
            self.moves_rows = true;
            return Some(());
        }
        words.accept(&["COLUMN"]);
        let may_lack = words.accept_all(&["IF", "EXISTS"]);
        match def.ordinal(words.name()?) {
            Some(ordinal) => self.dropped.push(ordinal),
            None => may_lack.then_some(())?,
        }
        let _ = words.accept(&["RESTRICT", "CASCADE"]);
        words.is_empty().then_some(())
    }

    fn read_change(&mut self, ordinal: usize, tokens: &[Token<'_>]) -> Option<()> {
        let defined = defined(tokens, self.defaults())?;
        if defined.is_primary {
            self.primary = Some(vec![defined.column.name.clone()]);
        }
        if defined.place != Place::Unsaid {
            self.placed.push(Placed::Moved(ordinal));
        }
        self.changed.insert(ordinal, defined);
        Some(())
    }

    /// Table options are one clause, and partitions may end it.
    fn read_partition(&mut self, clause: &[Token<'_>]) -> Option<()> {
        let words = &mut Words::new(clause);
        if words.accept(&["TRUNCATE", "EXCHANGE", "DISCARD", "IMPORT"]) {
            self.moves_rows = true;
            return Some(());
        }
        let is_kept = words.accept(&[
            "COALESCE",
            "REORGANIZE",
            "REBUILD",
            "OPTIMIZE",
            "ANALYZE",
            "CHECK",
            "REPAIR",
        ]) && words.is(&["PARTITION"]);
        if is_kept
            || words.accept_all(&["REMOVE", "PARTITIONING"])
            || words.accept_all(&["PARTITION", "BY"])
            || words.accept_all(&["ORDER", "BY"])
        {
            return Some(());
        }
        if words.accept(&["RENAME"]) {
            return Some(());
        }
        read_options(words)
    }

    fn note_keys(&mut self, clause: &[Token<'_>]) {
        let drops_key = clause.first().is_some_and(|verb| verb.is_keyword(&["DROP"]))
            && clause.get(1).is_some_and(|what| what.is_keyword(&["INDEX", "KEY", "CONSTRAINT"]));
        self.drops_keys |= drops_key;
    }

    fn apply_to(self, def: &TableDef) -> Option<Altered> {
        let mut made = Vec::new();
        for (at, column) in def.columns.iter().enumerate() {
            let is_moved = self.placed.iter().any(|p| matches!(p, Placed::Moved(o) if *o == at));
            if self.dropped.contains(&at) || is_moved {
                continue;
            }
            made.push(Made { column: self.kept(at, column)?, origin: Some(at), fills: false });
        }
        for placed in &self.placed {
            let (one, place) = match placed {
                Placed::New(defined) => {
                    let column = defined.column.clone();
                    (Made { column, origin: None, fills: defined.fills }, &defined.place)
                }
                Placed::Moved(at) => {
                    let place = &self.changed.get(at)?.place;
                    let column = self.kept(*at, &def.columns[*at])?;
                    (Made { column, origin: Some(*at), fills: false }, place)
                }
            };
            let at = match place {
                Place::Unsaid => made.len(),
                Place::First => 0,
                Place::After(name) => {
                    made.iter().position(|made| same_name(&made.column.name, name))? + 1
                }
            };
            made.insert(at, one);
        }
        self.finish(def, made)
    }

    /// The column at `at` as it is behind the statement.
    fn kept(&self, at: usize, column: &Column) -> Option<Column> {
        if let Some(defined) = self.changed.get(&at) {
            return Some(defined.column.clone());
        }
        let mut column = column.clone();
        if let Some(name) = self.renamed.get(&at) {
            column.name.clone_from(name);
        }
        if let Some(charset) = &self.converted {
            convert(&mut column, charset)?;
        }
        Some(column)
    }

    fn finish(self, def: &TableDef, made: Vec<Made>) -> Option<Altered> {
        let origins: Vec<_> = made.iter().map(|made| made.origin).collect();
        let now = |before: &usize| origins.iter().position(|origin| *origin == Some(*before));
        let key = |key: &Vec<usize>| key.iter().map(now).collect::<Option<Vec<usize>>>();
        let mut altered = TableDef {
            id: def.id.clone(),
            columns: made.iter().map(|made| made.column.clone()).collect(),
            primary_key: Vec::new(),
            unique_keys: Vec::new(),
        };
        let mut drops_keys = self.drops_keys;
        match (&self.primary, self.drops_primary) {
            (Some(names), _) => {
                let parts: Option<Vec<_>> =
                    names.iter().map(|name| altered.ordinal(name)).collect();
                altered.primary_key = parts?;
                for at in &altered.primary_key {
                    altered.columns[*at].nullable = false;
                }
            }
            (None, true) => {}
            (None, false) => match key(&def.primary_key) {
                Some(parts) => altered.primary_key = parts,
                None => drops_keys = true,
            },
        }
        for at in &altered.primary_key {
            altered.columns[*at].nullable = false;
        }
        if !altered.primary_key.is_empty() {
            altered.unique_keys.push(altered.primary_key.clone());
        }
        for unique in def.unique_keys.iter().filter(|unique| **unique != def.primary_key) {
            let parts = key(unique).filter(|_| !self.drops_keys);
            let is_sure =
                |parts: &Vec<usize>| parts.iter().all(|at| !altered.columns[*at].nullable);
            match parts.filter(is_sure) {
                Some(parts) => altered.unique_keys.push(parts),
                None => drops_keys = true,
            }
        }
        let revalued = self.revalued(def, &made);
        let filled = made.iter().enumerate().filter(|(_, made)| made.fills).map(|(at, _)| at);
        Some(Altered {
            filled: filled.collect(),
            revalued,
            def: altered,
            origins,
            moves_rows: self.moves_rows,
            drops_keys,
        })
    }

    fn revalued(&self, def: &TableDef, made: &[Made]) -> Vec<usize> {
        let is = |made: &Made| {
            let Some(before) = made.origin else { return false };
            let old = &def.columns[before];
            match self.changed.get(&before) {
                Some(defined) => {
                    let narrows =
                        is_text(&made.column.ty) && defined.charset.as_deref() != Some("utf8mb4");
                    defined.is_generated || narrows || can_change(old, &made.column)
                }
                None => match &self.converted {
                    Some(charset) => {
                        is_text(&old.ty) && charset != "utf8mb4" || can_change(old, &made.column)
                    }
                    None => false,
                },
            }
        };
        made.iter().enumerate().filter(|(_, made)| is(made)).map(|(at, _)| at).collect()
    }
}

struct Made {
    column: Column,
    origin: Option<usize>,
    fills: bool,
}

/// CONVERT TO leaves bytes and numbers as they are; the texts of other sets become longer, and perhaps of another type,
/// which the definition that the server shows then tells.
fn convert(column: &mut Column, charset: &str) -> Option<()> {
    if is_text(&column.ty) {
        column.ty = match charset {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => ColumnType::Text,
            other => ColumnType::TextIn { charset: Charset::from_name(other)? },
        };
    }
    Some(())
}

/// Text of any character set; what `binary` holds are bytes.
fn is_text(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Text | ColumnType::TextIn { .. })
}

/// Whether the JSON of a value can be another when the column changes its type. Only what is known to keep every value
/// as it is written says no.
pub fn can_change(old: &Column, new: &Column) -> bool {
    use ColumnType as C;
    let becomes_not_null = old.nullable && !new.nullable;
    let name = |column: &Column| column.declared.split(['(', ' ']).next().map(str::to_owned);
    let keeps = match (&old.ty, &new.ty) {
        (one, other) if one == other => match one {
            // CHAR loses trailing spaces, VARCHAR and the TEXTs do not; a shorter one cuts.
            C::Text | C::TextIn { .. } => {
                name(old) != Some("char".into()) || old.declared == new.declared
            }
            C::Bytes => true,
            // FLOAT(7,2) rounds, and UNSIGNED has no negative ones.
            C::Float | C::Double | C::Decimal { .. } => old.declared == new.declared,
            _ => old.declared == new.declared || !matches!(one, C::Unsupported { .. }),
        },
        (one, other) if rank(one).is_some() && rank(other).is_some() => widens(one, other),
        (C::Decimal { precision: p, scale: s }, C::Decimal { precision, scale }) => {
            s == scale && precision >= p
        }
        (C::Enum { labels: old }, C::Enum { labels })
        | (C::Set { labels: old }, C::Set { labels }) => labels.starts_with(old),
        _ => false,
    };
    let keeps = keeps
        && (!matches!(new.ty, C::Text | C::TextIn { .. } | C::Bytes) || is_no_shorter(old, new));
    becomes_not_null || !keeps
}

/// Bytes and sign of an integer.
fn rank(ty: &ColumnType) -> Option<(u8, bool)> {
    use ColumnType as C;
    match ty {
        C::TinyInt { unsigned } => Some((1, *unsigned)),
        C::SmallInt { unsigned } => Some((2, *unsigned)),
        C::MediumInt { unsigned } => Some((3, *unsigned)),
        C::Int { unsigned } => Some((4, *unsigned)),
        C::BigInt { unsigned } => Some((8, *unsigned)),
        _ => None,
    }
}

fn widens(old: &ColumnType, new: &ColumnType) -> bool {
    match (rank(old), rank(new)) {
        (Some((old, old_unsigned)), Some((new, new_unsigned))) => {
            match (old_unsigned, new_unsigned) {
                (true, true) | (false, false) => new >= old,
                (true, false) => new > old,
                (false, true) => false,
            }
        }
        _ => false,
    }
}

/// Whether every text of `old` fits into `new` without being cut, as far as the declarations tell.
fn is_no_shorter(old: &Column, new: &Column) -> bool {
    let size = |column: &Column| -> Option<u64> {
        let (name, rest) = column.declared.split_once('(').unwrap_or((&column.declared, ""));
        match name {
            "char" | "varchar" | "binary" | "varbinary" => rest.trim_end_matches(')').parse().ok(),
            "tinytext" | "tinyblob" => Some(255),
            "text" | "blob" => Some(65_535),
            "mediumtext" | "mediumblob" => Some((1 << 24) - 1),
            "longtext" | "longblob" => Some((1 << 32) - 1),
            _ => None,
        }
    };
    let is_sized = |column: &Column| column.declared.contains('(');
    if is_sized(old) && !is_sized(new) {
        // A length counts characters, of four bytes at most; a text's bound counts bytes.
        return matches!((size(old), size(new)), (Some(old), Some(new)) if old * 4 <= new);
    }
    let becomes_char = new.declared.starts_with("char(") && !old.declared.starts_with("char(");
    !becomes_char && matches!((size(old), size(new)), (Some(old), Some(new)) if old <= new)
}

/// `NAME [=] value …`, and PARTITION BY at the end: each must be known.
fn read_options(words: &mut Words<'_, '_>) -> Option<()> {
    while !words.is_empty() {
        if words.accept_all(&["PARTITION", "BY"]) || words.accept_all(&["REMOVE", "PARTITIONING"]) {
            return Some(());
        }
        words.accept(&["DEFAULT"]);
        if words.accept_all(&["CHARACTER", "SET"]) || words.accept(&["CHARSET", "COLLATE"]) {
            words.accept_sign('=');
            words.next()?;
            continue;
        }
        let name = words.next()?;
        words.accept_sign('=');
        let value = words.next()?;
        if !name.is_keyword(super::alter::HARMLESS) || value.is_named("BLACKHOLE") {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, declared: &str, ty: ColumnType, nullable: bool) -> Column {
        Column { name: name.into(), ty, nullable, declared: declared.into() }
    }

    /// `t (id int not null primary key, a varchar(9), b varchar(9), n int)`
    fn table() -> TableDef {
        let int = ColumnType::Int { unsigned: false };
        TableDef {
            id: TableId::new("d", "t"),
            columns: vec![
                column("id", "int", int.clone(), false),
                column("a", "varchar(9)", ColumnType::Text, true),
                column("b", "varchar(9)", ColumnType::Text, true),
                column("n", "int", int, true),
            ],
            primary_key: vec![0],
            unique_keys: vec![vec![0]],
        }
    }

    /// `name<origin` for each column, then what else happened.
    fn told(statement: &str) -> String {
        let Some(altered) = apply(statement, "d", &table(), of_utf8mb4(false)) else {
            return "?".into();
        };
        let before = table();
        let mut parts: Vec<_> = altered
            .def
            .columns
            .iter()
            .zip(&altered.origins)
            .map(|(column, origin)| match origin.map(|at| &before.columns[at].name) {
                Some(name) if *name == column.name => name.clone(),
                Some(name) => format!("{}<{name}", column.name),
                None => format!("+{} {}", column.name, column.declared),
            })
            .collect();
        let named = |list: &[usize]| {
            list.iter()
                .map(|at| altered.def.columns[*at].name.as_str())
                .collect::<Vec<_>>()
                .join(",")
        };
        if !altered.revalued.is_empty() {
            parts.push(format!("revalued {}", named(&altered.revalued)));
        }
        if !altered.filled.is_empty() {
            parts.push(format!("filled {}", named(&altered.filled)));
        }
        if altered.moves_rows {
            parts.push("moves rows".into());
        }
        if altered.def.primary_key != [0] {
            parts.push(format!("key {}", named(&altered.def.primary_key)));
        }
        parts.join(" ")
    }

    #[test]
    fn columns_are_followed_through_every_clause() {
        for (statement, expected) in [
            ("ALTER TABLE t ADD c INT", "id a b n +c int"),
            ("ALTER TABLE t ADD COLUMN c INT DEFAULT 7 FIRST", "+c int id a b n filled c key id"),
            ("ALTER TABLE t ADD (c INT, e DATE), DROP a", "id b n +c int +e date"),
            ("ALTER TABLE t ADD c INT AFTER a, ADD e INT AFTER c", "id a +c int +e int b n"),
            ("ALTER TABLE d.t RENAME COLUMN a TO b, RENAME COLUMN b TO a", "id b<a a<b n"),
            ("ALTER TABLE t CHANGE a b VARCHAR(9), CHANGE b a VARCHAR(9)", "id b<a a<b n"),
            ("ALTER TABLE t DROP a, ADD a VARCHAR(9) AFTER id", "id +a varchar(9) b n"),
            ("ALTER TABLE t MODIFY n INT FIRST", "n id a b key id"),
            ("ALTER TABLE t MODIFY a VARCHAR(9) AFTER b, MODIFY n BIGINT", "id b a n"),
            ("ALTER TABLE t MODIFY n BIGINT UNSIGNED", "id a b n revalued n"),
            ("ALTER TABLE t MODIFY n INT NOT NULL", "id a b n revalued n"),
            ("ALTER TABLE t MODIFY a VARCHAR(200), MODIFY b TEXT", "id a b n"),
            ("ALTER TABLE t MODIFY a VARCHAR(3)", "id a b n revalued a"),
            ("ALTER TABLE t MODIFY a VARCHAR(9) CHARACTER SET latin1", "id a b n revalued a"),
            ("ALTER TABLE t MODIFY n INT AS (id + 1) STORED", "id a b n revalued n"),
            ("ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4", "id a b n"),
            ("ALTER TABLE t CONVERT TO CHARACTER SET utf8mb3", "id a b n revalued a,b"),
            ("ALTER TABLE t ADD INDEX (a), DROP COLUMN n, ALGORITHM=INPLACE", "id a b"),
            ("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (n)", "id a b n key n"),
            ("ALTER TABLE t ALTER a SET DEFAULT 'x', ALTER COLUMN b SET INVISIBLE", "id a b n"),
            ("ALTER TABLE t DROP PARTITION p0", "id a b n moves rows"),
            ("ALTER IGNORE TABLE t ADD UNIQUE (a)", "id a b n moves rows"),
            ("ALTER TABLE t WAIT 5 ADD c INT", "id a b n +c int"),
            ("ALTER TABLE t NOWAIT DROP a", "id b n"),
            (
                "ALTER TABLE t ADD COLUMN IF NOT EXISTS c INT, ADD IF NOT EXISTS a INT",
                "id a b n +c int",
            ),
            ("ALTER TABLE t DROP IF EXISTS a, DROP COLUMN IF EXISTS x", "id b n"),
            ("ALTER TABLE t MODIFY IF EXISTS n BIGINT, MODIFY COLUMN IF EXISTS x INT", "id a b n"),
            (
                "ALTER TABLE t RENAME COLUMN IF EXISTS a TO c, CHANGE IF EXISTS x y INT",
                "id c<a b n",
            ),
            ("ALTER TABLE t ADD PARTITION (PARTITION p1 VALUES LESS THAN (5))", "id a b n"),
            ("ALTER TABLE t ADD c INT PARTITION BY HASH (id) PARTITIONS 4", "id a b n +c int"),
            ("ALTER TABLE t DEFAULT CHARSET latin1, ENGINE=InnoDB COMMENT 'x'", "id a b n"),
            ("CREATE INDEX i ON t (a)", "id a b n"),
            ("DROP INDEX i ON t", "id a b n"),
            ("ALTER TABLE t ADD c STRANGE", "?"),
            ("ALTER TABLE t STRANGE", "?"),
            ("ALTER TABLE t ENGINE=BLACKHOLE", "?"),
            ("ALTER TABLE u ADD c INT", "?"),
            ("ALTER TABLE t DROP x", "?"),
        ] {
            assert_eq!(told(statement), expected, "{statement}");
        }
    }

    fn of_utf8mb4(is_mariadb: bool) -> Defaults<'static> {
        Defaults { charset: Some("utf8mb4"), is_mariadb }
    }

    #[test]
    fn json_is_a_text_where_the_server_is_mariadb() {
        for (is_mariadb, expected) in [(false, ColumnType::Json), (true, ColumnType::JsonText)] {
            let altered = apply("ALTER TABLE t ADD c JSON", "d", &table(), of_utf8mb4(is_mariadb));
            let def = altered.expect("is read").def;
            let added = def.columns.last().expect("a column");
            assert_eq!((&added.ty, added.declared.as_str()), (&expected, "json"));
        }
    }

    #[test]
    fn renames_are_read_without_a_definition() {
        let of = |statement: &str| renames(statement, "d", &TableId::new("d", "t"));
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        let swap = "ALTER TABLE t RENAME COLUMN a TO b, STRANGE x, CHANGE COLUMN `b` a INT";
        assert_eq!(of(swap), [pair("a", "b"), pair("b", "a")]);
        assert_eq!(of("ALTER TABLE u RENAME COLUMN a TO b"), []);
        assert_eq!(of("ALTER TABLE t RENAME TO u"), []);
    }

    #[test]
    fn a_default_character_set_of_the_statement_counts_for_its_columns() {
        let altered = apply(
            "ALTER TABLE t ADD c VARCHAR(9), CHARACTER SET = latin1",
            "d",
            &table(),
            Defaults::default(),
        );
        let ty = altered.expect("is read").def.columns[4].ty.clone();
        assert_eq!(ty, ColumnType::TextIn { charset: Charset::Latin1 });
    }
}
