//! Reads a table's definition from the server's dictionary. Must not know for which positions it is true.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error::{Error, ErrorKind, Result};
use crate::position::GtidSet;
use crate::source::column_type::{Declared, column_type};
use crate::source::control;
use crate::source::server::Server;
use crate::source::snapshot::view::{self, Tell};
use crate::source::snapshot::watermark;
use crate::table::{Column, TableDef, TableId};

/// Generated and invisible columns are in the row image, so they are wanted here too. The hidden columns behind
/// functional indexes are in neither.
const COLUMNS: &str = "SELECT ordinal_position, column_name, data_type, column_type, is_nullable, \
    numeric_precision, numeric_scale, datetime_precision, character_set_name, character_octet_length \
    FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";

const UNIQUE_KEYS: &str = "SELECT index_name, column_name, sub_part, nullable \
    FROM information_schema.statistics \
    WHERE table_schema = ? AND table_name = ? AND non_unique = 0 \
    ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index";

type ColumnRow = (
    u64,
    String,
    String,
    String,
    String,
    Option<u64>,
    Option<u64>,
    Option<u64>,
    Option<String>,
    Option<u64>,
);

type KeyRow = (String, Option<String>, Option<u64>, Option<String>);

/// A table as the server shows it, and a bound of when that was.
pub struct Seen {
    /// None where no table has the name.
    pub def: Option<TableDef>,
    /// The character set of columns that are added without naming one.
    pub charset: Option<String>,
    /// There are columns that are computed from others.
    pub has_generated: bool,
    /// Every transaction that can have shown in what was read is among these.
    pub read_at: GtidSet,
}

/// Reads the table when the server has executed `behind`, and then what it has executed.
///
/// A definition can be seen before its transaction counts as executed, so those that are about to commit, which are
/// *owned*, are taken too; owned is asked first, for a transaction goes from the one to the other. If the log from
/// `behind` to `read_at` has no statement on the table, then what was read is the definition behind `behind`, and all
/// parts of it are of one moment.
pub async fn look(
    conn: &mut Conn,
    server: &Server,
    table: &TableId,
    behind: &GtidSet,
    tell: Tell<'_>,
) -> Result<Seen> {
    view::wait(conn, server, behind, tell).await?;
    let def = read_definition(conn, table).await?;
    let around: Option<(Option<String>, i64)> = conn
        .exec_first(
            "SELECT table_collation, (SELECT COUNT(*) FROM information_schema.columns c \
             WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name \
             AND (c.extra LIKE '%VIRTUAL GENERATED%' OR c.extra LIKE '%STORED GENERATED%')) \
             FROM information_schema.tables t WHERE table_schema = ? AND table_name = ?",
            (&table.db, &table.name),
        )
        .await
        .map_err(control::error)?;
    let (collation, generated) = around.unwrap_or_default();
    let charset = collation.and_then(|collation| collation.split('_').next().map(str::to_owned));
    let read_at = watermark::logged(conn, server).await?;
    Ok(Seen { def, charset, has_generated: generated > 0, read_at })
}

/// Whether the server takes names of tables that differ by case for the same.
pub async fn ignores_case(conn: &mut Conn) -> Result<bool> {
    let setting: Option<u64> = conn
        .query_first("SELECT @@global.lower_case_table_names")
        .await
        .map_err(|cause| control::error(cause).context("cannot read lower_case_table_names"))?;
    Ok(setting.unwrap_or(0) != 0)
}

/// The definition as it is now, under the names as the server spells them; None where there is no such table, or none
/// that we may see.
pub async fn read_definition(conn: &mut Conn, table: &TableId) -> Result<Option<TableDef>> {
    let tried =
        |cause| control::error(cause).context(format!("cannot read the definition of {table}"));
    let named = (&table.db, &table.name);
    let found: Option<(String, String, String)> = conn
        .exec_first(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables \
             WHERE table_schema = ? AND table_name = ?",
            named,
        )
        .await
        .map_err(tried)?;
    let Some((db, name, kind)) = found else { return Ok(None) };
    let id = TableId { db, name };
    if kind != "BASE TABLE" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{id} is no table but a {}, whose changes are not in the log",
                kind.to_lowercase()
            ),
        )
        .with_advice("map the table that the rows are stored in"));
    }
    let columns: Vec<ColumnRow> = conn.exec(COLUMNS, named).await.map_err(tried)?;
    let keys: Vec<KeyRow> = conn.exec(UNIQUE_KEYS, named).await.map_err(tried)?;
    definition(id, columns, &keys).map(Some)
}

fn definition(id: TableId, rows: Vec<ColumnRow>, keys: &[KeyRow]) -> Result<TableDef> {
    // Columns that we may not see are left out, and every one behind them would be taken for its neighbour.
    let has_gap = rows.iter().enumerate().any(|(at, row)| row.0 != at as u64 + 1);
    if has_gap || rows.is_empty() {
        return Err(Error::new(
            ErrorKind::SourceRefused,
            format!("not all columns of {id} may be seen"),
        )
        .with_advice(format!(
            "GRANT SELECT ON {}.{} to the account, not on single columns",
            control::quoted(&id.db),
            control::quoted(&id.name)
        )));
    }
    let columns: Vec<Column> = rows.into_iter().map(column).collect();
    let mut def = TableDef { id, columns, primary_key: Vec::new(), unique_keys: Vec::new() };
    for key in keys.chunk_by(|one, next| one.0 == next.0) {
        let parts: Option<Vec<usize>> =
            key.iter().map(|part| def.ordinal(part.1.as_deref()?)).collect();
        let Some(parts) = parts else { continue };
        let is_primary = key.iter().all(|part| part.0 == "PRIMARY");
        let is_whole = key.iter().all(|part| part.2.is_none());
        let is_nullable = key.iter().any(|part| part.3.as_deref() == Some("YES"));
        if is_primary {
            def.primary_key.clone_from(&parts);
        }
        if is_whole && !is_nullable {
            def.unique_keys.push(parts);
        }
    }
    Ok(def)
}

fn column(row: ColumnRow) -> Column {
    let (_, name, data_type, declared, nullable, precision, scale, fsp, charset, octets) = row;
    let ty = column_type(&Declared {
        data_type: &data_type,
        text: &declared,
        precision,
        scale,
        fsp,
        charset: charset.as_deref(),
        octets,
    });
    Column { name, ty, nullable: nullable == "YES", declared }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(at: u64, name: &str) -> ColumnRow {
        let text = |text: &str| text.to_owned();
        (at, text(name), text("int"), text("int"), text("NO"), Some(10), Some(0), None, None, None)
    }

    fn part(key: &str, column: Option<&str>, sub_part: Option<u64>, nullable: &str) -> KeyRow {
        (key.into(), column.map(Into::into), sub_part, Some(nullable.into()))
    }

    #[test]
    fn keys_with_null_or_prefix_or_expression_are_left_out() {
        let columns = vec![int(1, "a"), int(2, "B"), int(3, "c")];
        let keys = [
            part("PRIMARY", Some("b"), None, ""),
            part("PRIMARY", Some("a"), None, ""),
            part("nullable", Some("a"), None, ""),
            part("nullable", Some("c"), None, "YES"),
            part("of_prefix", Some("c"), Some(10), ""),
            part("of_expression", None, None, ""),
            part("whole", Some("c"), None, ""),
        ];
        let def = definition(TableId::new("d", "t"), columns, &keys).expect("is one");
        assert_eq!(def.primary_key, [1, 0]);
        assert_eq!(def.unique_keys, [vec![1, 0], vec![2]]);
    }

    #[test]
    fn a_hidden_column_is_never_jumped_over() {
        let columns = vec![int(1, "a"), int(3, "c")];
        let error = definition(TableId::new("d", "t"), columns, &[]).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::SourceRefused);
    }
}
