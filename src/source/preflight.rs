//! All that is wrong with a source for our purposes, in one list, each with the statement that mends it. Reads only.
//!
//! Privileges are not read off from grants: each is tried by a statement that needs it, so roles, partial revokes and
//! privileges of a whole schema count as they do later.

use std::collections::HashMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row};

use crate::error::{Result, nearest};
use crate::source::control::{self, quoted};
use crate::source::foreign_keys;
use crate::table::{TableDef, TableId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A link would not start, or would miss changes.
    Error,
    /// It works, with less.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub what: String,
    pub remedy: String,
}

impl Finding {
    fn error(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Error, what: what.into(), remedy: remedy.into() }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, what: what.into(), remedy: remedy.into() }
    }
}

/// A log that is kept for less may be gone before a copy or a pause is over.
const EXPIRY_SECONDS_MIN: u64 = 24 * 3600;

/// Looks at the server's settings, the account's privileges and each of `tables`. An error is only that the looking
/// itself failed.
pub async fn preflight(conn: &mut Conn, tables: &[TableId]) -> Result<Vec<Finding>> {
    let settings = Settings::read(conn).await?;
    let account = Account::read(conn).await?;
    let mut findings = check_settings(&settings);
    check_replication(conn, &account, tables, &mut findings).await?;
    if is_replica(conn).await? {
        findings.extend(check_replica(&settings));
    }
    for (at, table) in tables.iter().enumerate() {
        if !tables[..at].contains(table) {
            check_table(conn, table, &account, &mut findings).await?;
        }
    }
    if findings.iter().any(|finding| finding.remedy.starts_with("GRANT")) {
        findings.extend(account.sleeping_roles());
    }
    Ok(findings)
}

struct Settings(HashMap<String, String>);

impl Settings {
    async fn read(conn: &mut Conn) -> Result<Self> {
        let rows: Vec<(String, String)> = conn
            .query(
                "SHOW GLOBAL VARIABLES WHERE variable_name IN ('version', 'log_bin', 'binlog_format', \
                 'binlog_row_image', 'binlog_row_metadata', 'binlog_row_value_options', 'gtid_mode', \
                 'enforce_gtid_consistency', 'server_id', 'binlog_expire_logs_seconds', \
                 'binlog_expire_logs_auto_purge', 'log_replica_updates', \
                 'binlog_order_commits', 'replica_parallel_workers', 'slave_parallel_workers', \
                 'replica_preserve_commit_order', 'slave_preserve_commit_order')",
            )
            .await
            .map_err(|cause| control::error(cause).context("cannot read the source's settings"))?;
        let named = |(name, value): (String, String)| (name.to_lowercase(), value);
        Ok(Self(rows.into_iter().map(named).collect()))
    }

    /// Empty where the server does not know it.
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).eq_ignore_ascii_case(value)
    }
}

fn check_settings(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let version = settings.get("version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if version.contains("MariaDB") || major < 8 {
        findings.push(Finding::error(
            format!(
                "the source is version {version}, and this driftless reads MySQL 8.0 and later"
            ),
            "use a source with MySQL 8.0 or later",
        ));
    }
    if !settings.is("log_bin", "ON") {
        findings.push(Finding::error(
            "the source writes no binary log (log_bin is OFF)",
            "set log_bin=binlog in the server's configuration (and remove skip-log-bin), then restart the server",
        ));
    }
    if !settings.is("binlog_format", "ROW") {
        findings.push(Finding::error(
            format!(
                "binlog_format is {}: changes are logged as statements, which hold no rows",
                settings.get("binlog_format")
            ),
            "SET PERSIST binlog_format = 'ROW'; then let the application connect anew",
        ));
    }
    for (name, wanted) in [("binlog_row_image", "FULL"), ("binlog_row_value_options", "")] {
        if !settings.is(name, wanted) {
            findings.push(Finding::warning(
                format!(
                    "{name} is {}: the log leaves columns out, so rows are read again by their keys, which costs the source \
                     a SELECT for each batch of changes",
                    settings.get(name)
                ),
                format!("SET PERSIST {name} = '{wanted}'; then let the application connect anew"),
            ));
        }
    }
    if settings.is("server_id", "0") {
        findings.push(Finding::error(
            "server_id is 0: the source serves no replicas",
            "SET PERSIST server_id = 1",
        ));
    }
    check_gtids(settings, &mut findings);
    if settings.is("binlog_order_commits", "OFF") {
        findings.push(Finding::error(
            "binlog_order_commits is OFF: transactions are executed in another order than that of the log, so no copy \
             of a table has a safe beginning",
            "SET PERSIST binlog_order_commits = ON",
        ));
    }
    check_comfort(settings, &mut findings);
    findings
}

/// Whether every image has the columns of the `_id`. MINIMAL has the primary key's alone of what was there before, and of
/// a new row only what the statement named. `key` are ordinals.
pub async fn check_images(
    conn: &mut Conn,
    def: &TableDef,
    key: &[usize],
) -> Result<Option<Finding>> {
    let tried = |cause| control::error(cause).context("cannot read the source's settings");
    let image: Option<String> =
        conn.query_first("SELECT @@global.binlog_row_image").await.map_err(tried)?;
    if !image.is_some_and(|image| image.eq_ignore_ascii_case("MINIMAL")) {
        return Ok(None);
    }
    let full =
        "SET PERSIST binlog_row_image = 'FULL' (or 'NOBLOB') and let the application connect anew";
    let left_out = key.iter().find(|ordinal| !def.primary_key.contains(ordinal));
    if let Some(column) = left_out.and_then(|at| def.columns.get(*at)) {
        let what = format!(
            "binlog_row_image is MINIMAL: of a changed or deleted row of {} the log has the primary key only, and the _id \
             is made of `{}`",
            def.id, column.name
        );
        return Ok(Some(Finding::error(
            what,
            format!("make the _id of the primary key, or {full}"),
        )));
    }
    let defaults: Vec<String> = conn
        .exec(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ? \
             AND column_default IS NOT NULL AND extra NOT LIKE '%DEFAULT_GENERATED%'",
            (&def.id.db, &def.id.name),
        )
        .await
        .map_err(tried)?;
    let is_key = |name: &&String| def.ordinal(name).is_some_and(|at| key.contains(&at));
    Ok(defaults.iter().find(is_key).map(|column| {
        let what = format!(
            "binlog_row_image is MINIMAL: of a new row of {} the log has what the statement named, and `{column}`, of \
             which the _id is made, has a default",
            def.id
        );
        Finding::error(what, format!("drop the default of `{column}`, or {full}"))
    }))
}

fn check_gtids(settings: &Settings, findings: &mut Vec<Finding>) {
    if !settings.is("enforce_gtid_consistency", "ON") {
        let value = settings.get("enforce_gtid_consistency");
        findings.push(Finding::error(
            format!("enforce_gtid_consistency is {value}"),
            "SET PERSIST enforce_gtid_consistency = WARN; look at the error log for a while; \
             SET PERSIST enforce_gtid_consistency = ON",
        ));
    }
    if !settings.is("gtid_mode", "ON") {
        // The server takes one step at a time.
        let steps = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
        let now = steps.iter().position(|step| settings.is("gtid_mode", step)).unwrap_or(0);
        let statements: Vec<String> = steps[now + 1..]
            .iter()
            .map(|step| match *step {
                "ON" => "when SHOW STATUS LIKE 'ONGOING_ANONYMOUS_TRANSACTION_COUNT' is 0: \
                         SET PERSIST gtid_mode = ON"
                    .to_owned(),
                step => format!("SET PERSIST gtid_mode = {step}"),
            })
            .collect();
        findings.push(Finding::error(
            format!("gtid_mode is {}: transactions have no names", settings.get("gtid_mode")),
            statements.join("; "),
        ));
    }
}

fn check_comfort(settings: &Settings, findings: &mut Vec<Finding>) {
    let expiry: u64 = settings.get("binlog_expire_logs_seconds").parse().unwrap_or(0);
    let is_purged = expiry > 0 && !settings.is("binlog_expire_logs_auto_purge", "OFF");
    if is_purged && expiry < EXPIRY_SECONDS_MIN {
        findings.push(Finding::warning(
            format!(
                "the log is kept for {expiry} s only: a longer pause or copy would lose its place"
            ),
            "SET PERSIST binlog_expire_logs_seconds = 604800",
        ));
    }
    if !settings.is("binlog_row_metadata", "FULL") {
        findings.push(Finding::warning(
            "binlog_row_metadata is not FULL: the log does not name the columns of its rows",
            "SET PERSIST binlog_row_metadata = 'FULL'",
        ));
    }
    if settings.is("log_replica_updates", "OFF") {
        findings.push(Finding::warning(
            "log_replica_updates is OFF: what this server replicates from another is not in its log",
            "if it is a replica, set log_replica_updates=ON in its configuration and restart it",
        ));
    }
}

/// Whether the server applies another one's log. Without the privilege to know, no: the privilege is named already.
async fn is_replica(conn: &mut Conn) -> Result<bool> {
    let mut status: Result<Option<Row>, _> = conn.query_first("SHOW REPLICA STATUS").await;
    if matches!(&status, Err(cause) if control::code(cause) == Some(1064)) {
        status = conn.query_first("SHOW SLAVE STATUS").await;
    }
    match status {
        Ok(row) => Ok(row.is_some()),
        Err(cause) if control::code(&cause) == Some(1227) => Ok(false),
        Err(cause) => {
            Err(control::error(cause).context("cannot ask whether the source is a replica"))
        }
    }
}

/// What a source must do with the log that it gets from its own source.
fn check_replica(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let either = |new: &str, old: &str| match settings.get(new) {
        "" => settings.get(old).to_owned(),
        value => value.to_owned(),
    };
    let workers = either("replica_parallel_workers", "slave_parallel_workers");
    let order = either("replica_preserve_commit_order", "slave_preserve_commit_order");
    let is_parallel = workers.parse::<u64>().is_ok_and(|workers| workers > 1);
    if is_parallel && !order.eq_ignore_ascii_case("ON") {
        findings.push(Finding::error(
            format!(
                "the source is a replica with {workers} workers and replica_preserve_commit_order is OFF: transactions \
                 are executed in another order than that of the log, so no copy of a table has a safe beginning"
            ),
            "STOP REPLICA SQL_THREAD; SET PERSIST replica_preserve_commit_order = ON; START REPLICA SQL_THREAD",
        ));
    }
    if settings.is("log_replica_updates", "OFF") {
        findings.push(Finding::error(
            "the source is a replica and log_replica_updates is OFF: what it replicates is not in its log",
            "set log_replica_updates=ON in its configuration and restart it",
        ));
    }
    findings
}

struct Account {
    /// Quoted, as a GRANT wants it.
    name: String,
    has_active_roles: bool,
    has_roles: bool,
}

impl Account {
    async fn read(conn: &mut Conn) -> Result<Self> {
        let tried = |cause| control::error(cause).context("cannot read the account's name");
        let row: Option<(String, String)> =
            conn.query_first("SELECT CURRENT_USER(), CURRENT_ROLE()").await.map_err(tried)?;
        let (account, roles) = row.unwrap_or_default();
        let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
        let granted: Option<u64> = conn
            .query_first("SELECT COUNT(*) FROM information_schema.applicable_roles")
            .await
            .unwrap_or_default();
        Ok(Self {
            name: format!("{}@{}", quoted(user), quoted(host)),
            has_active_roles: roles != "NONE",
            has_roles: granted.unwrap_or(0) > 0,
        })
    }

    /// The usual reason why a privilege that was granted is not there.
    fn sleeping_roles(&self) -> Option<Finding> {
        let is_asleep = self.has_roles && !self.has_active_roles;
        is_asleep.then(|| {
            Finding::warning(
                format!("roles are granted to {}, but none is active", self.name),
                format!("SET DEFAULT ROLE ALL TO {}", self.name),
            )
        })
    }
}

/// Tries what needs REPLICATION SLAVE and REPLICATION CLIENT, and reads what the log leaves out.
async fn check_replication(
    conn: &mut Conn,
    account: &Account,
    tables: &[TableId],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let missing = |privilege: &str| {
        Finding::error(
            format!("the account {} lacks the privilege {privilege}", account.name),
            format!("GRANT {privilege} ON *.* TO {}", account.name),
        )
    };
    match conn.query_drop("SHOW REPLICAS").await {
        Err(cause) if control::code(&cause) == Some(1227) => {
            findings.push(missing("REPLICATION SLAVE"));
        }
        // Before 8.0.22 it had another name; the dump will tell.
        Err(cause) if control::code(&cause) == Some(1064) => {}
        other => other.map_err(|cause| control::error(cause).context("cannot ask for replicas"))?,
    }
    let mut status: Result<Option<Row>, _> = conn.query_first("SHOW BINARY LOG STATUS").await;
    if matches!(&status, Err(cause) if control::code(cause) == Some(1064)) {
        status = conn.query_first("SHOW MASTER STATUS").await;
    }
    match status {
        Err(cause) if control::code(&cause) == Some(1227) => {
            findings.push(missing("REPLICATION CLIENT"));
        }
        Err(cause) => {
            return Err(control::error(cause).context("cannot ask for the state of the log"));
        }
        Ok(None) => {}
        Ok(Some(row)) => {
            let listed = |at| row.get_opt::<String, _>(at).and_then(Result::ok).unwrap_or_default();
            findings.extend(unlogged(tables, &listed(2), &listed(3)));
        }
    }
    Ok(())
}

/// The schemas whose changes the server is told not to log.
fn unlogged(tables: &[TableId], only: &str, ignored: &str) -> Vec<Finding> {
    let lists = |list: &str, db: &str| list.split(',').any(|listed| listed == db);
    let mut dbs: Vec<&str> = tables.iter().map(|table| table.db.as_str()).collect();
    dbs.sort_unstable();
    dbs.dedup();
    dbs.retain(|db| lists(ignored, db) || (!only.is_empty() && !lists(only, db)));
    dbs.into_iter()
        .map(|db| {
            Finding::error(
                format!("the source does not log changes of the schema {db} (binlog-do-db, binlog-ignore-db)"),
                "remove binlog-do-db and binlog-ignore-db from the server's configuration, then restart the server",
            )
        })
        .collect()
}

async fn check_table(
    conn: &mut Conn,
    table: &TableId,
    account: &Account,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let tried = |cause| control::error(cause).context(format!("cannot look at {table}"));
    let name = format!("{}.{}", quoted(&table.db), quoted(&table.name));
    // All columns: with some of them only, the dictionary would hide the others, and the order would be lost.
    match conn.query_drop(format!("SELECT * FROM {name} LIMIT 0")).await {
        Ok(()) => {}
        Err(cause) => match control::code(&cause) {
            Some(1044 | 1142 | 1143) => {
                findings.push(Finding::error(
                    format!(
                        "the account {} may not read all of {table}, if there is such a table",
                        account.name
                    ),
                    format!("GRANT SELECT ON {name} TO {}", account.name),
                ));
                return Ok(());
            }
            Some(1049 | 1146) => {
                findings.push(missing_table(conn, table).await.map_err(tried)?);
                return Ok(());
            }
            _ => return Err(tried(cause)),
        },
    }
    let found: Option<(String, Option<String>)> = conn
        .exec_first(
            "SELECT table_type, engine FROM information_schema.tables \
             WHERE table_schema = ? AND table_name = ?",
            (&table.db, &table.name),
        )
        .await
        .map_err(tried)?;
    let Some((kind, engine)) = found else { return Ok(()) };
    if kind != "BASE TABLE" {
        findings.push(Finding::error(
            format!(
                "{table} is no table but a {}, whose changes are not in the log",
                kind.to_lowercase()
            ),
            "map the table that the rows are stored in",
        ));
        return Ok(());
    }
    let engine = engine.unwrap_or_default();
    if !engine.eq_ignore_ascii_case("InnoDB") {
        findings.push(Finding::warning(
            format!("{table} is stored by {engine}, whose changes are not part of a transaction"),
            format!("ALTER TABLE {name} ENGINE = InnoDB"),
        ));
    }
    let has_key: Option<u64> = conn
        .exec_first(
            "SELECT COUNT(*) FROM information_schema.statistics \
             WHERE table_schema = ? AND table_name = ? AND index_name = 'PRIMARY'",
            (&table.db, &table.name),
        )
        .await
        .map_err(tried)?;
    if has_key.unwrap_or(0) == 0 {
        findings.push(Finding::error(
            format!("{table} has no primary key: its rows cannot be copied in parts"),
            format!("ALTER TABLE {name} ADD PRIMARY KEY (…), or ADD COLUMN id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY"),
        ));
    }
    findings.extend(unreadable_parents(conn, table, account).await?);
    Ok(())
}

async fn missing_table(conn: &mut Conn, table: &TableId) -> Result<Finding, mysql_async::Error> {
    let names: Vec<String> = conn
        .exec(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = ?",
            (&table.db,),
        )
        .await?;
    if names.is_empty() {
        let schemas: Vec<String> =
            conn.query("SELECT schema_name FROM information_schema.schemata").await?;
        let remedy = match nearest(&table.db, schemas.iter().map(String::as_str)) {
            Some(near) => format!("did you mean the schema {near}?"),
            None => format!("the account sees the schemas {}", schemas.join(", ")),
        };
        return Ok(Finding::error(
            format!("there is no table {table}: no table of a schema {} is to be seen", table.db),
            remedy,
        ));
    }
    let remedy = match nearest(&table.name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {}.{near}?", table.db),
        None => format!("{} has {}", table.db, shortened(&names)),
    };
    Ok(Finding::error(format!("there is no table {table}"), remedy))
}

fn shortened(names: &[String]) -> String {
    const SHOWN_MAX: usize = 20;
    let shown = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX { format!("{shown}, …") } else { shown }
}

/// Tables whose changes reach into this one by foreign keys: what they are must be known too (rule 12).
async fn unreadable_parents(
    conn: &mut Conn,
    table: &TableId,
    account: &Account,
) -> Result<Vec<Finding>> {
    if foreign_keys::are_logged(conn).await? {
        return Ok(Vec::new());
    }
    let family = foreign_keys::read(conn, table).await?;
    let parents = family.tables(table).into_iter();
    let unreadable = parents.filter(|parent| family.ancestor(parent).is_none());
    let finding = |parent: TableId| {
        let name = format!("{}.{}", quoted(&parent.db), quoted(&parent.name));
        let what = format!(
            "the account {} may not read {parent}, whose changes change rows of {table} by foreign keys, without a word in \
             the log",
            account.name
        );
        Finding::error(what, format!("GRANT SELECT ON {name} TO {}", account.name))
    };
    Ok(unreadable.map(finding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changed: &[(&str, &str)]) -> Settings {
        let good = [
            ("version", "8.0.33"),
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
            ("binlog_row_value_options", ""),
            ("gtid_mode", "ON"),
            ("enforce_gtid_consistency", "ON"),
            ("server_id", "1"),
            ("binlog_expire_logs_seconds", "2592000"),
            ("log_replica_updates", "ON"),
        ];
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Settings(good.iter().chain(changed).map(owned).collect())
    }

    #[test]
    fn a_good_server_has_no_findings() {
        assert_eq!(check_settings(&settings(&[])), []);
    }

    #[test]
    fn every_setting_is_told_at_once_with_its_remedy() {
        let findings = check_settings(&settings(&[
            ("version", "5.7.44"),
            ("log_bin", "OFF"),
            ("binlog_format", "MIXED"),
            ("binlog_row_image", "MINIMAL"),
            ("binlog_row_value_options", "PARTIAL_JSON"),
            ("server_id", "0"),
            ("enforce_gtid_consistency", "OFF"),
            ("gtid_mode", "OFF_PERMISSIVE"),
            ("binlog_expire_logs_seconds", "3600"),
            ("binlog_row_metadata", "MINIMAL"),
            ("log_replica_updates", "OFF"),
        ]));
        let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
        assert_eq!((findings.len(), errors), (11, 6));
        let gtids = findings.iter().find(|f| f.what.starts_with("gtid_mode")).expect("is told");
        assert!(
            gtids.remedy.starts_with("SET PERSIST gtid_mode = ON_PERMISSIVE; when"),
            "{gtids:?}"
        );
    }

    #[test]
    fn commits_out_of_order_are_refused_of_a_server_and_of_a_parallel_replica() {
        let told = |changed: &[(&str, &str)]| {
            let settings = settings(changed);
            let found = check_settings(&settings).into_iter().chain(check_replica(&settings));
            found.filter(|finding| finding.level == Level::Error).count()
        };
        assert_eq!(told(&[("binlog_order_commits", "OFF")]), 1);
        assert_eq!(told(&[("binlog_order_commits", "ON")]), 0);
        let (workers, order) = ("replica_parallel_workers", "replica_preserve_commit_order");
        assert_eq!(told(&[(workers, "4"), (order, "OFF")]), 1);
        assert_eq!(told(&[(workers, "4"), (order, "ON")]), 0);
        assert_eq!(told(&[(workers, "0"), (order, "OFF")]), 0);
        assert_eq!(
            told(&[("slave_parallel_workers", "8"), ("slave_preserve_commit_order", "OFF")]),
            1
        );
        assert_eq!(told(&[("log_replica_updates", "OFF")]), 1);
    }

    #[test]
    fn schemas_that_are_not_logged_are_told() {
        let tables = [TableId::new("a", "1"), TableId::new("b", "2"), TableId::new("a", "3")];
        let told = |only, ignored| unlogged(&tables, only, ignored).len();
        assert_eq!((told("", ""), told("a", ""), told("c", ""), told("", "b,c")), (0, 1, 2, 1));
    }
}
