//! Reads a table's definition from the server's dictionary. Must not know for which positions it is true.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error::{Error, ErrorKind, Result};
use crate::position::GtidSet;
use crate::source::column_type::{Declared, column_type, plain};
use crate::source::control;
use crate::source::server::Server;
use crate::source::snapshot::view::{self, Tell};
use crate::source::snapshot::watermark;
use crate::table::{Column, ColumnType, TableDef, TableId};

/// Generated and invisible columns are in the row image, so they are wanted here too. The hidden columns behind
/// functional indexes are in neither.
const COLUMNS: &str = "SELECT ordinal_position, column_name, data_type, column_type, is_nullable, \
    numeric_precision, numeric_scale, datetime_precision, character_set_name, character_octet_length \
    FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";

const UNIQUE_KEYS: &str = "SELECT index_name, column_name, sub_part, nullable \
    FROM information_schema.statistics \
    WHERE table_schema = ? AND table_name = ? AND non_unique = 0 \
    ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index";

/// What MariaDB makes sure of when a row is written. MySQL has no column of the table's name there.
const CHECKS: &str = "SELECT check_clause FROM information_schema.check_constraints \
    WHERE constraint_schema = ? AND table_name = ?";

/// The column that says until when a row is what it is, in a table that keeps the past.
const ROW_ENDS: &str = "SELECT column_name FROM information_schema.columns \
    WHERE table_schema = ? AND table_name = ? AND generation_expression = 'ROW END'";

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
    /// The server is MariaDB, whose JSON is a text.
    pub is_mariadb: bool,
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
    let def = read_table(conn, table).await?.and_then(Found::table);
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
    let is_mariadb = is_mariadb(conn).await.map_err(control::error)?;
    Ok(Seen { def, charset, has_generated: generated > 0, is_mariadb, read_at })
}

async fn is_mariadb(conn: &mut Conn) -> Result<bool, mysql_async::Error> {
    let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
    Ok(version.is_some_and(|version| version.contains("MariaDB")))
}

/// Whether the server takes names of tables that differ by case for the same.
pub async fn ignores_case(conn: &mut Conn) -> Result<bool> {
    let setting: Option<u64> = conn
        .query_first("SELECT @@global.lower_case_table_names")
        .await
        .map_err(|cause| control::error(cause).context("cannot read lower_case_table_names"))?;
    Ok(setting.unwrap_or(0) != 0)
}

/// What has a name.
enum Found {
    Table(TableDef),
    /// A view, or what else the server calls it.
    Other {
        id: TableId,
        kind: String,
    },
}

impl Found {
    fn table(self) -> Option<TableDef> {
        match self {
            Self::Table(def) => Some(def),
            Self::Other { .. } => None,
        }
    }
}

/// The definition as it is now, under the names as the server spells them; None where there is no such table, or none
/// that we may see. A view is refused.
pub async fn read_definition(conn: &mut Conn, table: &TableId) -> Result<Option<TableDef>> {
    match read_table(conn, table).await? {
        None => Ok(None),
        Some(Found::Table(def)) => Ok(Some(def)),
        Some(Found::Other { id, kind }) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{id} is no table but a {}, whose changes are not in the log",
                kind.to_lowercase()
            ),
        )
        .with_advice("map the table that the rows are stored in")),
    }
}

/// [`read_definition`] of a table that was one: a view that has its name now is not it.
pub async fn read_if_table(conn: &mut Conn, table: &TableId) -> Result<Option<TableDef>> {
    Ok(read_table(conn, table).await?.and_then(Found::table))
}

async fn read_table(conn: &mut Conn, table: &TableId) -> Result<Option<Found>> {
    let tried =
        |cause| control::error(cause).context(format!("cannot read the definition of {table}"));
    let named = (&table.db, &table.name);
    let mut asked_again = false;
    loop {
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
        let is_versioned = kind == "SYSTEM VERSIONED";
        if kind != "BASE TABLE" && !is_versioned {
            return Ok(Some(Found::Other { id, kind }));
        }
        let mut columns: Vec<ColumnRow> = conn.exec(COLUMNS, named).await.map_err(tried)?;
        if columns.is_empty() && !asked_again {
            // It may have been dropped between the two questions.
            asked_again = true;
            continue;
        }
        let keys: Vec<KeyRow> = conn.exec(UNIQUE_KEYS, named).await.map_err(tried)?;
        let checks = match is_mariadb(conn).await.map_err(tried)? {
            true => conn.exec(CHECKS, named).await.map_err(tried)?,
            false => Vec::new(),
        };
        let end = match is_versioned {
            true => {
                let named: Vec<String> = conn.exec(ROW_ENDS, named).await.map_err(tried)?;
                Some(row_end(&mut columns, named.into_iter().next()))
            }
            false => None,
        };
        let def = definition(id, columns, &keys, &checks, end.as_deref());
        return def.map(Found::Table).map(Some);
    }
}

/// The name of the column that says until when a row is what it is. Where the table was made without such columns it has
/// two that the dictionary does not show, behind all others.
fn row_end(columns: &mut Vec<ColumnRow>, named: Option<String>) -> String {
    if let Some(name) = named {
        return name;
    }
    for name in ["row_start", "row_end"] {
        let at = columns.len() as u64 + 1;
        let (ty, declared) = ("timestamp".to_owned(), "timestamp(6)".to_owned());
        let no = "NO".to_owned();
        columns.push((at, name.to_owned(), ty, declared, no, None, None, Some(6), None, None));
    }
    "row_end".to_owned()
}

/// `json_valid(`a`)`, which is all that makes a LONGTEXT of MariaDB a JSON.
fn json_column(check: &str) -> Option<String> {
    let name = check.strip_prefix("json_valid(`")?.strip_suffix("`)")?;
    Some(name.replace("``", "`"))
}

fn definition(
    id: TableId,
    rows: Vec<ColumnRow>,
    keys: &[KeyRow],
    checks: &[String],
    row_end: Option<&str>,
) -> Result<TableDef> {
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
    let json: Vec<String> = checks.iter().filter_map(|check| json_column(check)).collect();
    let mut columns: Vec<Column> = rows.into_iter().map(|row| column(row, &json)).collect();
    if let Some(end) = columns.iter_mut().find(|column| Some(column.name.as_str()) == row_end) {
        if end.ty != (ColumnType::Timestamp { fsp: 6 }) {
            return Err(by_transaction(&id));
        }
        end.ty = ColumnType::RowEnd;
    }
    let mut def = TableDef { id, columns, primary_key: Vec::new(), unique_keys: Vec::new() };
    for key in keys.chunk_by(|one, next| one.0 == next.0) {
        let parts: Option<Vec<usize>> =
            key.iter().map(|part| def.ordinal(part.1.as_deref()?)).collect();
        let Some(mut parts) = parts else { continue };
        // Of rows that have not ended all have the same.
        parts.retain(|ordinal| def.columns[*ordinal].ty != ColumnType::RowEnd);
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

fn by_transaction(id: &TableId) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{id} keeps the past of its rows by transaction (ROW START and ROW END are BIGINTs), and the server logs its \
             changes as statements"
        ),
    )
    .with_advice("map a table whose ROW START and ROW END are TIMESTAMP(6)")
}

/// `json` are the columns of which the server checks that they hold JSON.
fn column(row: ColumnRow, json: &[String]) -> Column {
    let (_, name, data_type, declared, nullable, precision, scale, fsp, charset, octets) = row;
    // What `JSON` makes there; other texts with the same check were meant to be texts.
    let is_json_text =
        data_type == "longtext" && charset.as_deref() == Some("utf8mb4") && json.contains(&name);
    let ty = column_type(&Declared {
        data_type: &data_type,
        text: &declared,
        precision,
        scale,
        fsp,
        charset: charset.as_deref(),
        octets,
        is_json_text,
    });
    let declared = plain(&declared, is_json_text);
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
        let def = definition(TableId::new("d", "t"), columns, &keys, &[], None).expect("is one");
        assert_eq!(def.primary_key, [1, 0]);
        assert_eq!(def.unique_keys, [vec![1, 0], vec![2]]);
    }

    #[test]
    fn a_longtext_that_is_checked_to_be_json_is_json() {
        let text = |at: u64, name: &str, ty: &str| {
            let text = |text: &str| text.to_owned();
            let charset = Some(text("utf8mb4"));
            (at, text(name), text(ty), text(ty), text("YES"), None, None, None, charset, None)
        };
        let columns =
            vec![text(1, "a`b", "longtext"), text(2, "t", "text"), text(3, "l", "longtext")];
        let checks = ["json_valid(`a``b`)", "json_valid(`t`)", "`l` is null or json_valid(`l`)"];
        let checks = checks.map(str::to_owned);
        let def = definition(TableId::new("d", "t"), columns, &[], &checks, None).expect("is one");
        let found: Vec<_> = def.columns.iter().map(|c| (&c.ty, c.declared.as_str())).collect();
        let (json, text) = (ColumnType::JsonText, ColumnType::Text);
        assert_eq!(found, [(&json, "json"), (&text, "text"), (&text, "longtext")]);
    }

    #[test]
    fn the_end_of_a_row_is_no_part_of_its_keys() {
        let mut columns = vec![int(1, "a")];
        let end = row_end(&mut columns, None);
        let keys =
            [part("PRIMARY", Some("a"), None, ""), part("PRIMARY", Some("row_end"), None, "")];
        let def = definition(TableId::new("d", "t"), columns, &keys, &[], Some(&end));
        let def = def.expect("is one");
        assert_eq!(
            (def.column_names().as_str(), &def.primary_key[..]),
            ("a, row_start, row_end", &[0][..])
        );
        assert_eq!(def.columns[2].ty, ColumnType::RowEnd);
        let by_number = definition(TableId::new("d", "t"), vec![int(1, "e")], &[], &[], Some("e"));
        assert_eq!(by_number.expect_err("refused").kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_hidden_column_is_never_jumped_over() {
        let columns = vec![int(1, "a"), int(3, "c")];
        let error =
            definition(TableId::new("d", "t"), columns, &[], &[], None).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::SourceRefused);
    }
}
