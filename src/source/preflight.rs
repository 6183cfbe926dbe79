//! All that is wrong with a source for our purposes, in one list, each with the statement that mends it. Reads only.
//!
//! Privileges are not read off from grants: each is tried by a statement that needs it, so roles, partial revokes and
//! privileges of a whole schema count as they do later.

use std::collections::HashMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row};

use crate::error::{Result, nearest};
use crate::naive::{Rule, is_naive};
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
    check_replication(conn, &settings, &account, tables, &mut findings).await?;
    if !settings.has_gtids() {
        findings.extend(lacks_process(conn, &account).await?);
    }
    if is_replica(conn).await? {
        findings.extend(check_replica(&settings));
    }
    for (at, table) in tables.iter().enumerate() {
        if !tables[..at].contains(table) {
            check_table(conn, table, &account, &mut findings).await?;
        }
    }
    if findings.iter().any(|finding| finding.remedy.starts_with("GRANT")) {
        findings.extend(account.sleeping_roles(&settings));
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
                 'replica_preserve_commit_order', 'slave_preserve_commit_order', 'log_slave_updates', \
                 'expire_logs_days', 'gtid_strict_mode')",
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

    /// The one that is there of a setting with a new and an old name.
    fn either(&self, new: &str, old: &str) -> &str {
        match self.get(new) {
            "" => self.get(old),
            value => value,
        }
    }

    fn is_mariadb(&self) -> bool {
        self.get("version").contains("MariaDB")
    }

    /// Major and minor; 0 where they are not to be read.
    fn version(&self) -> (u32, u32) {
        let mut parts = self.get("version").split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// The server has names for transactions.
    fn has_gtids(&self) -> bool {
        self.is_mariadb() || self.is("gtid_mode", "ON")
    }

    /// The statement that changes a setting, now and for good.
    fn set(&self, name: &str, value: &str) -> String {
        let plain = value.trim_matches('\'');
        if !self.is_mariadb() && self.version().0 >= 8 {
            return format!("SET PERSIST {name} = {value}");
        }
        format!("SET GLOBAL {name} = {value}, and {name}={plain} in the server's configuration")
    }

    /// How long the log is kept, in seconds; 0 for ever.
    fn expiry_seconds(&self) -> u64 {
        const DAY_SECONDS: f64 = 86_400.0;
        let seconds = self.get("binlog_expire_logs_seconds").parse().unwrap_or(0);
        let days: f64 = self.get("expire_logs_days").parse().unwrap_or(0.0);
        if seconds > 0 { seconds } else { (days * DAY_SECONDS) as u64 }
    }
}

fn check_settings(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(check_version(settings));
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
            format!(
                "{}; then let the application connect anew",
                settings.set("binlog_format", "'ROW'")
            ),
        ));
    }
    let slowly = match settings.has_gtids() {
        true => "",
        false => {
            ", and without GTIDs a wait of a tenth of a second before each: a link falls behind under many changes"
        }
    };
    for (name, wanted) in [("binlog_row_image", "FULL"), ("binlog_row_value_options", "")] {
        if !settings.is(name, wanted) {
            findings.push(Finding::warning(
                format!(
                    "{name} is {}: the log leaves columns out, so rows are read again by their keys, which costs the source \
                     a SELECT for each batch of changes{slowly}",
                    settings.get(name)
                ),
                format!(
                    "{}; then let the application connect anew",
                    settings.set(name, &format!("'{wanted}'"))
                ),
            ));
        }
    }
    if settings.is("server_id", "0") {
        findings.push(Finding::error(
            "server_id is 0: the source serves no replicas",
            settings.set("server_id", "1"),
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
    if !image.is_some_and(|image| image.eq_ignore_ascii_case("MINIMAL")) || is_naive(Rule::Images) {
        return Ok(None);
    }
    let full = "set binlog_row_image to 'FULL' (or 'NOBLOB') and let the application connect anew";
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
             AND column_default IS NOT NULL AND column_default <> 'NULL' AND extra NOT LIKE '%DEFAULT_GENERATED%'",
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

fn check_version(settings: &Settings) -> Option<Finding> {
    let (least, name) = match settings.is_mariadb() {
        true => ((10, 5), "MariaDB 10.5"),
        false => ((8, 0), "MySQL 8.0"),
    };
    let version = settings.get("version");
    match settings.version() {
        version if version >= least => None,
        (5, 6 | 7) if !settings.is_mariadb() => Some(Finding::warning(
            format!(
                "the source is version {version}, which is older than what driftless is tested with"
            ),
            "use a source with MySQL 8.0 or later, and compare the index with the table now and then",
        )),
        _ => Some(Finding::error(
            format!("the source is version {version}, and this driftless reads {name} and later"),
            format!("use a source with {name} or later"),
        )),
    }
}

fn check_gtids(settings: &Settings, findings: &mut Vec<Finding>) {
    if settings.is_mariadb() {
        if !settings.is("gtid_strict_mode", "ON") {
            findings.push(Finding::warning(
                "gtid_strict_mode is OFF: after a fail-over the numbers of transactions may go backwards, and a link that \
                 meets that must be made anew",
                settings.set("gtid_strict_mode", "ON"),
            ));
        }
        return;
    }
    if settings.has_gtids() && !settings.is("enforce_gtid_consistency", "ON") {
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
                "OFF_PERMISSIVE" if !settings.is("enforce_gtid_consistency", "ON") => {
                    "SET PERSIST enforce_gtid_consistency = WARN; look at the error log for a while; SET PERSIST \
                     enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE"
                        .to_owned()
                }
                step => format!("SET PERSIST gtid_mode = {step}"),
            })
            .collect();
        let remedy = match settings.version() < (5, 7) {
            true => "set gtid_mode=ON, enforce_gtid_consistency=ON and log_slave_updates=ON in the server's configuration, then \
                     restart it"
                .to_owned(),
            false => statements.join("; "),
        };
        findings.push(Finding::warning(
            format!(
                "gtid_mode is {}: transactions have no names, so the source is followed by places in its log. That ends with \
                 a fail-over or a log that is reset, and copies of tables wait for transactions that are active",
                settings.get("gtid_mode")
            ),
            remedy,
        ));
    }
}

fn check_comfort(settings: &Settings, findings: &mut Vec<Finding>) {
    let expiry = settings.expiry_seconds();
    let is_purged = expiry > 0 && !settings.is("binlog_expire_logs_auto_purge", "OFF");
    if is_purged && expiry < EXPIRY_SECONDS_MIN {
        findings.push(Finding::warning(
            format!(
                "the log is kept for {expiry} s only: a longer pause or copy would lose its place"
            ),
            match settings.get("binlog_expire_logs_seconds") {
                "" => settings.set("expire_logs_days", "7"),
                _ => settings.set("binlog_expire_logs_seconds", "604800"),
            },
        ));
    }
    // Before 8.0, and before MariaDB 10.5, there is none.
    if !matches!(settings.get("binlog_row_metadata").to_uppercase().as_str(), "FULL" | "") {
        findings.push(Finding::warning(
            "binlog_row_metadata is not FULL: the log does not name the columns of its rows",
            settings.set("binlog_row_metadata", "'FULL'"),
        ));
    }
    if settings.either("log_replica_updates", "log_slave_updates").eq_ignore_ascii_case("OFF") {
        findings.push(Finding::warning(
            "log_replica_updates is OFF: what this server replicates from another is not in its log",
            "if it is a replica, set log_replica_updates=ON (log_slave_updates=ON before MySQL 8.0.26 and on MariaDB) in its \
             configuration and restart it",
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
    let workers = settings.either("replica_parallel_workers", "slave_parallel_workers");
    let order = settings.either("replica_preserve_commit_order", "slave_preserve_commit_order");
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
    if settings.either("log_replica_updates", "log_slave_updates").eq_ignore_ascii_case("OFF") {
        findings.push(Finding::error(
            "the source is a replica and log_replica_updates is OFF: what it replicates is not in its log",
            "set log_replica_updates=ON (log_slave_updates=ON before MySQL 8.0.26 and on MariaDB) in its configuration and \
             restart it",
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
        let account: Option<String> =
            conn.query_first("SELECT CURRENT_USER()").await.map_err(tried)?;
        let account = account.unwrap_or_default();
        // MySQL before 8.0 has no roles. MariaDB has NULL for none.
        let active: Option<Option<String>> =
            conn.query_first("SELECT CURRENT_ROLE()").await.unwrap_or_default();
        let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
        let granted: Option<u64> = conn
            .query_first("SELECT COUNT(*) FROM information_schema.applicable_roles")
            .await
            .unwrap_or_default();
        Ok(Self {
            name: format!("{}@{}", quoted(user), quoted(host)),
            has_active_roles: active.flatten().is_some_and(|roles| roles != "NONE"),
            has_roles: granted.unwrap_or(0) > 0,
        })
    }

    fn lacks(&self, privilege: &str) -> Finding {
        Finding::error(
            format!("the account {} lacks the privilege {privilege}", self.name),
            format!("GRANT {privilege} ON *.* TO {}", self.name),
        )
    }

    /// The usual reason why a privilege that was granted is not there.
    fn sleeping_roles(&self, settings: &Settings) -> Option<Finding> {
        let is_asleep = self.has_roles && !self.has_active_roles;
        let remedy = match settings.is_mariadb() {
            true => format!("SET DEFAULT ROLE … FOR {}, with the name of the role", self.name),
            false => format!("SET DEFAULT ROLE ALL TO {}", self.name),
        };
        is_asleep.then(|| {
            let what = format!("roles are granted to {}, but none is active", self.name);
            Finding::warning(what, remedy)
        })
    }
}

/// Tries what needs REPLICATION SLAVE and REPLICATION CLIENT, and reads what the log leaves out.
async fn check_replication(
    conn: &mut Conn,
    settings: &Settings,
    account: &Account,
    tables: &[TableId],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    if !may_read_log(conn, settings).await? {
        findings.push(account.lacks("REPLICATION SLAVE"));
    }
    match control::log_status(conn).await {
        Err(cause) if control::code(&cause) == Some(1227) => {
            let privilege = match settings.is_mariadb() {
                true => "BINLOG MONITOR",
                false => "REPLICATION CLIENT",
            };
            findings.push(account.lacks(privilege));
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

async fn may_read_log(conn: &mut Conn, settings: &Settings) -> Result<bool> {
    if settings.is_mariadb() {
        // It has no statement that needs this privilege and does nothing. What an active role grants is among these.
        let tried = |cause| control::error(cause).context("cannot read the account's privileges");
        let grants: Vec<String> = conn.query("SHOW GRANTS").await.map_err(tried)?;
        return Ok(grants.iter().any(|grant| grants_log(grant)));
    }
    match conn.query_drop("SHOW REPLICAS").await {
        Ok(()) => Ok(true),
        Err(cause) if control::code(&cause) == Some(1227) => Ok(false),
        // Before 8.0.22 it had another name; the dump will tell.
        Err(cause) if control::code(&cause) == Some(control::SYNTAX) => Ok(true),
        Err(cause) => Err(control::error(cause).context("cannot ask for replicas")),
    }
}

/// `GRANT SELECT, REPLICATION SLAVE ON *.* TO …`
fn grants_log(grant: &str) -> bool {
    let everywhere = grant.split_once(" ON *.* TO ").map(|(privileges, _)| privileges);
    let privileges = everywhere.and_then(|privileges| privileges.strip_prefix("GRANT "));
    privileges.is_some_and(|privileges| {
        privileges.split(", ").any(|one| matches!(one, "ALL PRIVILEGES" | "REPLICATION SLAVE"))
    })
}

/// Without GTIDs a copy waits for transactions that are active, which only this privilege shows.
async fn lacks_process(conn: &mut Conn, account: &Account) -> Result<Option<Finding>> {
    match conn.query_drop("SELECT 1 FROM information_schema.innodb_trx LIMIT 1").await {
        Ok(()) => Ok(None),
        Err(cause) if control::code(&cause) == Some(1227) => Ok(Some(account.lacks("PROCESS"))),
        Err(cause) => Err(control::error(cause).context("cannot ask for active transactions")),
    }
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
    if !matches!(kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED") {
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
        assert_eq!((findings.len(), errors), (10, 3));
        let told = |part: &str| findings.iter().find(|f| f.what.contains(part)).expect("is told");
        assert!(told("5.7.44").remedy.starts_with("use a source"));
        assert!(
            told("binlog_format")
                .remedy
                .starts_with("SET GLOBAL binlog_format = 'ROW', and binlog_format=ROW in")
        );
        let gtids = findings.iter().find(|f| f.what.starts_with("gtid_mode")).expect("is told");
        assert!(
            gtids.remedy.starts_with("SET PERSIST gtid_mode = ON_PERMISSIVE; when"),
            "{gtids:?}"
        );
    }

    #[test]
    fn a_good_mariadb_has_no_findings_and_a_bad_one_is_told_in_its_own_words() {
        let gone = [
            ("gtid_mode", ""),
            ("enforce_gtid_consistency", ""),
            ("log_replica_updates", ""),
            ("binlog_row_value_options", ""),
        ];
        let good = [
            ("version", "10.11.18-MariaDB-log"),
            ("gtid_strict_mode", "ON"),
            ("log_slave_updates", "ON"),
        ];
        let with =
            |bad: &[(&str, &str)]| check_settings(&settings(&[&gone[..], &good[..], bad].concat()));
        assert_eq!(with(&[]), []);
        let bad = with(&[
            ("version", "10.4.34-MariaDB"),
            ("gtid_strict_mode", "OFF"),
            ("binlog_expire_logs_seconds", ""),
            ("expire_logs_days", "0.5"),
            ("log_slave_updates", "OFF"),
        ]);
        assert_eq!(bad.len(), 4, "{bad:#?}");
        assert!(bad.iter().all(|finding| !finding.remedy.contains("PERSIST")), "{bad:#?}");
    }

    #[test]
    fn a_privilege_on_everything_is_read_off_a_grant() {
        assert!(grants_log("GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `c`@`%`"));
        assert!(grants_log("GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"));
        assert!(!grants_log("GRANT REPLICATION SLAVE ADMIN ON *.* TO `c`@`%`"));
        assert!(!grants_log("GRANT ALL PRIVILEGES ON `d`.* TO `c`@`%`"));
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
