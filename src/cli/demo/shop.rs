//! The demo's database: made, filled, changed, dropped; never one that the demo did not make. Knows no index.

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Params, Value};

use super::catalogue::{self, Product};
use crate::error::{Error, Result};
use crate::source::{Config, control};

pub(super) const DATABASE: &str = "driftless_shop";
pub(super) const TABLE: &str = "driftless_shop.products";

/// The comment of every table of ours, by which a later demo knows them.
const MARK: &str = "made by driftless demo";
/// The name of the lock that a running demo holds at the server.
const LOCK: &str = "driftless_demo";
/// The session of a demo that was killed ends within this.
const LOCK_WAIT_SECONDS: u32 = 5;
/// Rows of one INSERT.
const ROWS_AT_ONCE: usize = 250;

/// A session that changes the shop. While it lives no other demo uses the server.
pub(super) struct Shop {
    conn: Conn,
    config: Config,
}

impl Shop {
    pub async fn open(config: &Config) -> Result<Self> {
        let mut conn = control::connect(config).await?;
        let tried = |cause| control::error(cause).context("cannot prepare the demo's session");
        // The sessions of a link only read.
        conn.query_drop("SET SESSION TRANSACTION READ WRITE").await.map_err(tried)?;
        let locked: Option<Option<u8>> = conn
            .exec_first("SELECT GET_LOCK(?, ?)", (LOCK, LOCK_WAIT_SECONDS))
            .await
            .map_err(tried)?;
        if locked.flatten() != Some(1) {
            return Err(Error::input("another demo is running at this server")
                .with_advice("end that one first, or use another server"));
        }
        Ok(Self { conn, config: config.clone() })
    }

    /// The same session again, after it broke.
    pub async fn open_again(&mut self) -> Result<()> {
        *self = Self::open(&self.config.clone()).await?;
        Ok(())
    }

    pub fn version(&self) -> String {
        let (major, minor, patch) = self.conn.server_version();
        format!("{major}.{minor}.{patch}")
    }

    /// Refuses a database of our name that is not ours.
    pub async fn refuse_foreign(&mut self) -> Result<()> {
        match self.found().await? {
            Found::Nothing | Found::Ours => Ok(()),
            Found::Empty | Found::Foreign => Err(Error::input(format!(
                "there is a database {DATABASE} at the server, and the demo did not make it"
            ))
            .with_advice("drop or rename it, or use another server")),
        }
    }

    /// Makes the database anew and fills it.
    pub async fn make(&mut self) -> Result<()> {
        let tried = |cause| {
            control::error(cause)
                .context(format!("cannot make the database {DATABASE}"))
                .with_advice(format!(
                    "GRANT ALL ON {DATABASE}.* TO the account, or use one that may make databases"
                ))
        };
        if matches!(self.found().await?, Found::Ours) {
            self.conn.query_drop(format!("DROP DATABASE {DATABASE}")).await.map_err(tried)?;
        }
        let create = format!(
            "CREATE TABLE {TABLE} (
               id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
               name VARCHAR(120) NOT NULL,
               description VARCHAR(1000) NOT NULL DEFAULT '',
               category VARCHAR(40) NOT NULL DEFAULT 'Other',
               price DECIMAL(8,2) NOT NULL DEFAULT 0,
               stock INT NOT NULL DEFAULT 0,
               updated_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)
             ) COMMENT = '{MARK}'"
        );
        for statement in [&format!("CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4"), &create] {
            self.conn.query_drop(statement).await.map_err(tried)?;
        }
        let ids: Vec<u32> = (1..=catalogue::ROWS).collect();
        for ids in ids.chunks(ROWS_AT_ONCE) {
            self.fill(ids).await.map_err(tried)?;
        }
        Ok(())
    }

    async fn fill(&mut self, ids: &[u32]) -> Result<(), mysql_async::Error> {
        let rows = vec!["(?, ?, ?, ?, ?, ?)"; ids.len()].join(", ");
        let statement = format!(
            "INSERT INTO {TABLE} (id, name, description, category, price, stock) VALUES {rows}"
        );
        let mut values: Vec<Value> = Vec::with_capacity(ids.len() * 6);
        for &id in ids {
            let Product { name, description, category, price, stock } =
                catalogue::product(u64::from(id));
            values.extend([
                id.into(),
                name.into(),
                description.into(),
                category.into(),
                price.into(),
                stock.into(),
            ]);
        }
        self.conn.exec_drop(statement, Params::Positional(values)).await
    }

    /// A new row; gives its id.
    pub async fn insert(&mut self, product: Product) -> Result<u32> {
        let statement = format!(
            "INSERT INTO {TABLE} (name, description, category, price, stock) VALUES (?, ?, ?, ?, ?)"
        );
        let Product { name, description, category, price, stock } = product;
        self.run(&statement, (name, description, category, price, stock)).await?;
        Ok(self.conn.last_insert_id().and_then(|id| u32::try_from(id).ok()).unwrap_or_default())
    }

    pub async fn change_price(&mut self, id: u32, factor: f64) -> Result<()> {
        let new = "LEAST(2000, GREATEST(4, ROUND(price * ?, 2)))";
        self.run(&format!("UPDATE {TABLE} SET price = {new} WHERE id = ?"), (factor, id)).await
    }

    pub async fn change_stock(&mut self, id: u32, by: i32) -> Result<()> {
        let new = "GREATEST(0, stock + ?)";
        self.run(&format!("UPDATE {TABLE} SET stock = {new} WHERE id = ?"), (by, id)).await
    }

    /// Puts another offer at the end of a description.
    pub async fn change_offer(&mut self, id: u32, offer: &str) -> Result<()> {
        let new = "CONCAT(SUBSTRING_INDEX(description, ' Now ', 1), ' Now ', ?)";
        self.run(&format!("UPDATE {TABLE} SET description = {new} WHERE id = ?"), (offer, id)).await
    }

    pub async fn delete(&mut self, id: u32) -> Result<()> {
        self.run(&format!("DELETE FROM {TABLE} WHERE id = ?"), (id,)).await
    }

    async fn run(&mut self, statement: &str, values: impl Into<Params> + Send) -> Result<()> {
        self.conn.exec_drop(statement, values).await.map_err(control::error)
    }

    async fn found(&mut self) -> Result<Found> {
        let tried = |cause| {
            control::error(cause).context(format!("cannot look for the database {DATABASE}"))
        };
        let databases: Option<u32> = self
            .conn
            .exec_first(
                "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?",
                (DATABASE,),
            )
            .await
            .map_err(tried)?;
        let comments: Vec<String> = self
            .conn
            .exec(
                "SELECT table_comment FROM information_schema.tables WHERE table_schema = ?",
                (DATABASE,),
            )
            .await
            .map_err(tried)?;
        Ok(match databases {
            None | Some(0) => Found::Nothing,
            Some(_) if comments.is_empty() => Found::Empty,
            Some(_) if comments.iter().all(|comment| comment == MARK) => Found::Ours,
            Some(_) => Found::Foreign,
        })
    }
}

/// What the server has under our name.
enum Found {
    Nothing,
    Empty,
    /// Every table bears our mark.
    Ours,
    Foreign,
}

/// Drops what this demo has made, over a session of its own: the one that made it may be in the middle of something,
/// and holds the lock until the server has ended it.
pub(super) async fn remove(config: &Config) -> Result<()> {
    let mut shop = Shop::open(config).await?;
    match shop.found().await? {
        Found::Nothing => Ok(()),
        // Empty: cut off between its making and its table.
        Found::Ours | Found::Empty => shop.run(&format!("DROP DATABASE {DATABASE}"), ()).await,
        Found::Foreign => Err(Error::input("it has tables that the demo did not make")),
    }
}
