//! Chunks of a table along its primary key: the SELECT that reads one, and how many rows the next one has. Pure.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::source::snapshot::Config;
use crate::table::{Column, ColumnType, TableDef};

/// The SELECT of one chunk: wanted columns first, then the primary key's. Its parameters are, in this order, the key
/// after which it begins (if any), the key at which it ends, and the number of rows.
///
/// Keyset pagination: the server compares in the columns' own collations, we never do.
pub fn select(def: &TableDef, wanted: &[usize], has_after: bool) -> String {
    select_where(def, wanted, has_after, None)
}

/// The same for those rows of the chunk alone for which `condition` is true, which is SQL.
pub fn select_where(
    def: &TableDef,
    wanted: &[usize],
    has_after: bool,
    condition: Option<&str>,
) -> String {
    let name = |ordinal: &usize| quoted(&def.columns[*ordinal].name);
    let values = wanted.iter().map(|ordinal| value(&def.columns[*ordinal]));
    let keys = def.primary_key.iter().map(|ordinal| key_part(&def.columns[*ordinal]));
    let columns: Vec<_> = values.chain(keys).collect();
    let order: Vec<_> = def.primary_key.iter().map(name).collect();
    let key: Vec<_> = def.primary_key.iter().map(|ordinal| &def.columns[*ordinal]).collect();
    let after = if has_after { format!("{} AND ", compare(&key, ">", ">")) } else { String::new() };
    // On a line of its own, so that a comment in it ends with it.
    let condition = condition.map_or_else(String::new, |sql| format!(" AND ({sql}\n)"));
    format!(
        "SELECT {} FROM {}.{} WHERE {after}{}{condition} ORDER BY {} LIMIT ?",
        columns.join(", "),
        quoted(&def.id.db),
        quoted(&def.id.name),
        compare(&key, "<", "<="),
        order.join(", "),
    )
}

/// The SELECT of the key so many rows further on, with the parameters of [`select`], the last of which is how many rows
/// lie between.
pub fn select_step(def: &TableDef, has_after: bool) -> String {
    let whole = select(def, &[], has_after);
    format!("{}LIMIT ?, 1", whole.strip_suffix("LIMIT ?").unwrap_or(&whole))
}

/// The SELECT of the rows with these keys, `count` of them, whose parameters are the parts of each key: wanted columns
/// first, then the primary key's.
pub fn select_keys(def: &TableDef, wanted: &[usize], key: &[usize], count: usize) -> String {
    let name = |ordinal: &usize| quoted(&def.columns[*ordinal].name);
    let values = wanted.iter().map(|ordinal| value(&def.columns[*ordinal]));
    let columns: Vec<_> = values.chain(def.primary_key.iter().map(name)).collect();
    let places: Vec<_> = key.iter().map(|at| placeholder(&def.columns[*at])).collect();
    let (names, place) = match key {
        [one] => (name(one), places.join("")),
        several => (
            format!("({})", several.iter().map(name).collect::<Vec<_>>().join(", ")),
            format!("({})", places.join(", ")),
        ),
    };
    format!(
        "SELECT {} FROM {}.{} WHERE {names} IN ({})",
        columns.join(", "),
        quoted(&def.id.db),
        quoted(&def.id.name),
        vec![place; count].join(", "),
    )
}

/// Parameters that one comparison of [`select`] takes for a key of `parts` columns: 1, 3, 6, …
pub fn bound_parts<T: Clone>(key: &[T]) -> Vec<T> {
    (0..key.len()).flat_map(|last| key[..=last].iter().cloned()).collect()
}

/// A SELECT of no row, to see whether the condition is one.
pub fn select_nothing(def: &TableDef, condition: &str) -> String {
    let (db, name) = (quoted(&def.id.db), quoted(&def.id.name));
    format!("SELECT 1 FROM {db}.{name} WHERE ({condition}\n) LIMIT 0")
}

/// The SELECT of the greatest key, which bounds the snapshot: rows beyond it come by the stream.
pub fn select_last_key(def: &TableDef) -> String {
    let key = || def.primary_key.iter().map(|ordinal| &def.columns[*ordinal]);
    let parts: Vec<_> = key().map(key_part).collect();
    let order: Vec<_> = key().map(|column| format!("{} DESC", quoted(&column.name))).collect();
    format!(
        "SELECT {} FROM {}.{} ORDER BY {} LIMIT 1",
        parts.join(", "),
        quoted(&def.id.db),
        quoted(&def.id.name),
        order.join(", ")
    )
}

/// Text of other character sets comes as it is stored, as the log has it.
fn value(column: &Column) -> String {
    let name = quoted(&column.name);
    match column.ty {
        ColumnType::TextIn { .. } => format!("CAST({name} AS BINARY)"),
        _ => name,
    }
}

/// A part of the key that the next chunk begins after. Text comes in UTF-8, and so it goes back. Where the server would
/// make other bytes of it, the place would be lost: NULL, which no key is.
fn key_part(column: &Column) -> String {
    let name = quoted(&column.name);
    match column.ty {
        ColumnType::TextIn { charset } => format!(
            "IF(CAST(CONVERT(CONVERT({name} USING utf8mb4) USING {}) AS BINARY) = CAST({name} AS BINARY), {name}, NULL)",
            charset.name()
        ),
        _ => name,
    }
}

/// `(a > ?) OR (a = ? AND b > ?)`: unlike a row comparison, the optimizer reads it as a range of the key.
fn compare(key: &[&Column], strict: &str, last: &str) -> String {
    let alternatives: Vec<_> = (0..key.len())
        .map(|at| {
            let mut terms: Vec<_> = key[..at]
                .iter()
                .map(|column| format!("{} = {}", quoted(&column.name), placeholder(column)))
                .collect();
            let operator = if at + 1 == key.len() { last } else { strict };
            let column = key[at];
            terms.push(format!("{} {operator} {}", quoted(&column.name), placeholder(column)));
            format!("({})", terms.join(" AND "))
        })
        .collect();
    format!("({})", alternatives.join(" OR "))
}

/// A DECIMAL compared with a string is compared as DOUBLE, which loses digits.
fn placeholder(column: &Column) -> String {
    match column.ty {
        ColumnType::Decimal { precision, scale } => {
            format!("CAST(? AS DECIMAL({precision},{scale}))")
        }
        _ => "?".to_owned(),
    }
}

pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Refuses a table whose primary key cannot be walked in chunks, with the reason.
pub fn check_key(def: &TableDef) -> Result<()> {
    if def.primary_key.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} has no primary key, so it cannot be read in chunks", def.id),
        )
        .with_advice("add one: ALTER TABLE … ADD PRIMARY KEY (…)"));
    }
    for ordinal in &def.primary_key {
        let column = &def.columns[*ordinal];
        let reason = match &column.ty {
            ColumnType::Enum { .. } | ColumnType::Set { .. } => {
                "it sorts by number and compares by label"
            }
            ColumnType::Float | ColumnType::Double => "its values cannot be compared exactly",
            ColumnType::Json | ColumnType::JsonText => "JSON has no order to walk along",
            ColumnType::Unsupported { reason } => reason,
            _ => continue,
        };
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "column `{}` ({}) is in the primary key of {}: {reason}",
                column.name, column.declared, def.id
            ),
        ));
    }
    Ok(())
}

/// How many rows the next chunk has: chases the time and the memory that a chunk may take.
#[derive(Debug)]
pub struct Size {
    rows: u32,
    rows_max: u32,
    target: Duration,
    bytes_max: usize,
}

/// Few enough that a first chunk of wide rows does no harm.
const FIRST_ROWS: u32 = 500;
const GROWTH_MAX: f64 = 4.0;

impl Size {
    pub fn new(config: &Config) -> Self {
        // A chunk that is a second's share at most, so that a slow pace is an even one.
        let share = if config.rows_per_s == 0 { u32::MAX } else { config.rows_per_s };
        let rows_max = config.chunk_rows.min(share).max(1);
        Self {
            rows: FIRST_ROWS.min(rows_max),
            rows_max,
            target: Duration::from_millis(config.chunk_target_ms.max(1)),
            bytes_max: config.chunk_bytes.max(1),
        }
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Learns from a chunk of `rows` rows that took `elapsed` and `bytes`.
    pub fn learn(&mut self, rows: usize, elapsed: Duration, bytes: usize) {
        if rows == 0 {
            return;
        }
        let by_time = self.target.as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
        let by_bytes = self.bytes_max as f64 / bytes.max(1) as f64;
        let factor = by_time.min(by_bytes).min(GROWTH_MAX);
        self.rows = ((rows as f64 * factor) as u32).clamp(1, self.rows_max);
    }

    /// Too much changed while the chunk was read.
    pub fn halve(&mut self) {
        self.rows = (self.rows / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableId;

    fn table() -> TableDef {
        let column = |name: &str, ty| Column {
            name: name.into(),
            ty,
            nullable: false,
            declared: String::new(),
        };
        TableDef {
            id: TableId::new("d", "a`b"),
            columns: vec![
                column("v", ColumnType::Text),
                column("x", ColumnType::Decimal { precision: 5, scale: 2 }),
                column("y", ColumnType::Int { unsigned: false }),
            ],
            primary_key: vec![1, 2],
            unique_keys: vec![vec![1, 2]],
        }
    }

    #[test]
    fn a_composite_key_is_walked_by_alternatives() {
        insta::assert_snapshot!(select(&table(), &[0], true), @"SELECT `v`, `x`, `y` FROM `d`.`a``b` WHERE ((`x` > CAST(? AS DECIMAL(5,2))) OR (`x` = CAST(? AS DECIMAL(5,2)) AND `y` > ?)) AND ((`x` < CAST(? AS DECIMAL(5,2))) OR (`x` = CAST(? AS DECIMAL(5,2)) AND `y` <= ?)) ORDER BY `x`, `y` LIMIT ?");
        assert_eq!(bound_parts(&['x', 'y']), ['x', 'x', 'y']);
        let step = select_step(&table(), true);
        assert!(
            step.starts_with("SELECT `x`, `y` FROM") && step.ends_with(" LIMIT ?, 1"),
            "{step}"
        );
    }

    #[test]
    fn rows_are_asked_for_by_key() {
        insta::assert_snapshot!(select_keys(&table(), &[0], &[1, 2], 2), @"SELECT `v`, `x`, `y` FROM `d`.`a``b` WHERE (`x`, `y`) IN ((CAST(? AS DECIMAL(5,2)), ?), (CAST(? AS DECIMAL(5,2)), ?))");
        insta::assert_snapshot!(select_keys(&table(), &[0], &[2], 2), @"SELECT `v`, `x`, `y` FROM `d`.`a``b` WHERE `y` IN (?, ?)");
    }

    #[test]
    fn the_size_follows_time_and_memory() {
        let mut size = Size::new(&Config::default());
        size.learn(500, Duration::from_millis(10), 1_000);
        assert_eq!(size.rows(), 2_000, "grows, but not at once");
        size.learn(2_000, Duration::from_millis(500), 1_000);
        assert_eq!(size.rows(), 1_000);
        size.learn(1_000, Duration::from_millis(1), 80 << 20);
        assert_eq!(size.rows(), 100);
    }
}
