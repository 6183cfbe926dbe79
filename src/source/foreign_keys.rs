//! Reads the foreign keys that cascade into a table, with those into the tables that they lead to. Must not know for which
//! positions they are true.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error::{ErrorKind, Result};
use crate::source::{control, schema};
use crate::table::{Action, Family, ForeignKey, TableId};

/// One row for each column of a key.
const KEYS: &str = "SELECT k.constraint_name, k.column_name, k.referenced_table_schema, k.referenced_table_name, \
    k.referenced_column_name, r.delete_rule, r.update_rule, c.collation_name \
    FROM information_schema.key_column_usage k \
    JOIN information_schema.referential_constraints r ON r.constraint_schema = k.constraint_schema \
    AND r.constraint_name = k.constraint_name AND r.table_name = k.table_name \
    JOIN information_schema.columns c ON c.table_schema = k.table_schema AND c.table_name = k.table_name \
    AND c.column_name = k.column_name \
    WHERE k.table_schema = ? AND k.table_name = ? AND k.referenced_table_name IS NOT NULL \
    ORDER BY k.constraint_name, k.ordinal_position";

type KeyRow = (String, String, String, String, String, String, String, Option<String>);

/// Whether the server logs what foreign keys do to other rows: MySQL from 9.6 on, unless it is told otherwise. MySQL before
/// that and MariaDB have no such setting, and never do.
pub async fn are_logged(conn: &mut Conn) -> Result<bool> {
    let found: Option<(String, String)> = conn
        .query_first("SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'")
        .await
        .map_err(|cause| control::error(cause).context("cannot read innodb_native_foreign_keys"))?;
    Ok(found.is_some_and(|(_, value)| value.eq_ignore_ascii_case("OFF")))
}

/// The keys as they are now.
pub async fn read(conn: &mut Conn, table: &TableId) -> Result<Family> {
    let mut family = Family::default();
    let mut tables = vec![table.clone()];
    let mut at = 0;
    while let Some(child) = tables.get(at).cloned() {
        at += 1;
        for key in keys_of(conn, &child).await? {
            if !tables.contains(&key.parent) {
                tables.push(key.parent.clone());
            }
            family.keys.push(key);
        }
    }
    for parent in family.tables(table) {
        match schema::read_definition(conn, &parent).await {
            Ok(def) => family.ancestors.extend(def),
            // Its columns may not be seen.
            Err(error) if error.kind() == ErrorKind::SourceRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(family)
}

async fn keys_of(conn: &mut Conn, child: &TableId) -> Result<Vec<ForeignKey>> {
    let rows: Vec<KeyRow> = conn.exec(KEYS, (&child.db, &child.name)).await.map_err(|cause| {
        control::error(cause).context(format!("cannot read the foreign keys of {child}"))
    })?;
    let of = |rows: &[KeyRow]| {
        let (name, _, db, table, _, on_delete, on_update, _) = rows.first()?.clone();
        let key = ForeignKey {
            name,
            child: child.clone(),
            columns: rows.iter().map(|row| row.1.clone()).collect(),
            parent: TableId::new(db, table),
            parent_columns: rows.iter().map(|row| row.4.clone()).collect(),
            on_delete: action(&on_delete),
            on_update: action(&on_update),
            is_plain: rows.iter().all(|row| row.7.as_deref().is_none_or(is_plain)),
        };
        let cascades = key.on_delete != Action::Restrict || key.on_update != Action::Restrict;
        cascades.then_some(key)
    };
    Ok(rows.chunk_by(|one, next| one.0 == next.0).filter_map(of).collect())
}

fn action(rule: &str) -> Action {
    match rule {
        "CASCADE" => Action::Cascade,
        // InnoDB refuses SET DEFAULT.
        "SET NULL" | "SET DEFAULT" => Action::SetNull,
        _ => Action::Restrict,
    }
}

/// Collations of no language. Those of a language hold `ccs` and `cscs` for equal, or `i` and `y`.
fn is_plain(collation: &str) -> bool {
    // Of MariaDB: without padding, which makes less equal.
    let collation = collation.replace("nopad_", "");
    let Some((charset, rest)) = collation.split_once('_') else { return collation == "binary" };
    let is_known = matches!(charset, "utf8mb4" | "utf8mb3" | "utf8" | "latin1" | "ascii");
    let is_plain = matches!(
        rest,
        "bin"
            | "general_ci"
            | "swedish_ci"
            | "unicode_ci"
            | "unicode_520_ci"
            | "0900_ai_ci"
            | "0900_as_ci"
            | "0900_as_cs"
            | "0900_bin"
            | "uca1400_ai_ci"
            | "uca1400_as_ci"
            | "uca1400_ai_cs"
            | "uca1400_as_cs"
    );
    is_known && is_plain && !(rest == "swedish_ci" && charset != "latin1")
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn collations_of_a_language_are_not_plain() {
        for collation in [
            "binary",
            "utf8mb4_0900_ai_ci",
            "latin1_swedish_ci",
            "ascii_general_ci",
            "utf8mb4_uca1400_nopad_as_ci",
            "latin1_nopad_bin",
        ] {
            assert!(is_plain(collation), "{collation}");
        }
        for collation in [
            "utf8mb4_hu_0900_ai_ci",
            "utf8mb4_swedish_ci",
            "utf8mb4_roman_ci",
            "utf8mb4_uca1400_danish_ai_ci",
            "x",
        ] {
            assert!(!is_plain(collation), "{collation}");
        }
    }
}
