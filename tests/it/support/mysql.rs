//! A thin SQL client for tests. Knows nothing of Driftless.

use mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, Row, prelude::*};

/// One MySQL server, as root.
#[derive(Debug, Clone)]
pub struct Mysql {
    pool: Pool,
    host: String,
    port: u16,
}

impl Mysql {
    pub fn at(host: &str, port: u16) -> Self {
        Self { pool: Pool::new(options(host, port, "root", None)), host: host.to_owned(), port }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Runs one statement and throws its rows away.
    pub async fn exec(&self, sql: impl AsRef<str>) {
        let sql = sql.as_ref();
        self.try_exec(sql).await.unwrap_or_else(|error| panic!("{}: {error}", shortened(sql)));
    }

    pub async fn try_exec(&self, sql: &str) -> mysql_async::Result<()> {
        self.pool.get_conn().await?.query_drop(sql).await
    }

    /// The rows of one statement.
    pub async fn rows(&self, sql: impl AsRef<str>) -> Vec<Row> {
        let sql = sql.as_ref();
        let mut session = self.session().await;
        session.query(sql).await.unwrap_or_else(|error| panic!("{}: {error}", shortened(sql)))
    }

    /// The rows of one statement as tuples: `let rows: Vec<(u32, String)> = mysql.query("…").await`.
    pub async fn query<T: FromRow + Send + 'static>(&self, sql: impl AsRef<str>) -> Vec<T> {
        let sql = sql.as_ref();
        let mut session = self.session().await;
        session.query(sql).await.unwrap_or_else(|error| panic!("{}: {error}", shortened(sql)))
    }

    /// The single value of a statement that gives one.
    pub async fn value<T: FromValue + Send + 'static>(&self, sql: impl AsRef<str>) -> T {
        let rows = self.query::<(T,)>(sql.as_ref()).await;
        let (value,) = rows
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("{}: no row", shortened(sql.as_ref())));
        value
    }

    /// A session of its own, for transactions and session variables. It goes back to the pool, and is reset, when
    /// dropped.
    pub async fn session(&self) -> Conn {
        self.pool
            .get_conn()
            .await
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.address()))
    }

    /// The same of a server that may be away.
    pub async fn try_session(&self) -> mysql_async::Result<Conn> {
        self.pool.get_conn().await
    }

    /// A session of another user.
    pub async fn session_as(&self, user: &str, password: &str) -> Conn {
        let options = options(&self.host, self.port, user, Some(password));
        Conn::new(options).await.unwrap_or_else(|error| panic!("cannot connect as {user}: {error}"))
    }

    /// Makes an empty database that no other test has, and gives its name.
    pub async fn database(&self, prefix: &str) -> String {
        let name = super::unique(prefix);
        self.exec(format!("CREATE DATABASE `{name}`")).await;
        name
    }

    /// Makes a user with the privileges that Driftless asks for, and no others; gives name and password.
    pub async fn replication_user(&self) -> (String, String) {
        let (user, password) = (super::unique("cdc"), "Pa55-word".to_owned());
        self.exec(format!("CREATE USER `{user}`@'%' IDENTIFIED BY '{password}'")).await;
        self.exec(format!(
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO `{user}`@'%'"
        ))
        .await;
        (user, password)
    }
}

fn options(host: &str, port: u16, user: &str, password: Option<&str>) -> Opts {
    let constraints = PoolConstraints::new(0, 16).expect("0 is not above 16");
    OptsBuilder::default()
        .ip_or_hostname(host)
        .tcp_port(port)
        .user(Some(user))
        .pass(password)
        .prefer_socket(false)
        .pool_opts(PoolOpts::default().with_constraints(constraints))
        .into()
}

fn shortened(sql: &str) -> &str {
    &sql[..sql.floor_char_boundary(200.min(sql.len()))]
}
