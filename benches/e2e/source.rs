//! The MySQL server of the benchmark: started, filled, changed, and read raw. Knows nothing of the daemon.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use driftless::source::schema;
use driftless::table::{TableDef, TableId};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Row};
use tempfile::TempDir;

use crate::rows::{COLUMNS, TABLE, Table};

const FLAVOUR: &str = "mysql-9.7";
/// Room for the whole table, so that the server's disk is not measured.
const OPTIONS: [&str; 2] = ["--innodb-buffer-pool-size=2G", "--max-binlog-size=1G"];

pub const CHANGES_PER_TRANSACTION: u32 = 10;

pub struct Source {
    dir: TempDir,
    pub port: u16,
}

impl Source {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let data = dir.path().join("data");
        let mut arguments = vec!["start", FLAVOUR, "0", text(&data)];
        arguments.extend(OPTIONS);
        let port = mysql_up(&arguments).trim().parse().expect("mysql-up start prints the port");
        Self { dir, port }
    }

    pub async fn connect(&self) -> Conn {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("root"))
            .prefer_socket(false);
        Conn::new(options).await.expect("root of a server of our own is let in")
    }

    /// Gives the name of the log file that holds the rows, and the statements that made room for them.
    pub async fn load(&self, table: &Table) -> String {
        let path = self.dir.path().join("rows.tsv");
        let file = std::fs::File::create(&path).expect("a file in a folder of ours");
        let mut file = std::io::BufWriter::new(file);
        let mut line = String::new();
        for row in table.rows() {
            line.clear();
            row.write_line(&mut line);
            file.write_all(line.as_bytes()).expect("the rows can be written");
        }
        file.into_inner().expect("the rows can be written");
        let mut conn = self.connect().await;
        for statement in ["CREATE DATABASE bench", "USE bench", TABLE] {
            conn.query_drop(statement).await.expect("the table can be made");
        }
        let file = self.new_file(&mut conn).await;
        let load =
            format!("LOAD DATA INFILE '{}' INTO TABLE goods CHARACTER SET utf8mb4", path.display());
        conn.query_drop(load).await.expect("the rows can be loaded");
        conn.query_drop("ANALYZE TABLE goods").await.expect("the table can be analysed");
        conn.query_drop("FLUSH BINARY LOGS").await.expect("root may");
        std::fs::remove_file(path).ok();
        file
    }

    /// Begins a file of the log, and gives its name.
    pub async fn new_file(&self, conn: &mut Conn) -> String {
        conn.query_drop("FLUSH BINARY LOGS").await.expect("root may");
        let status = conn.query_first("SHOW BINARY LOG STATUS").await.expect("it is a statement");
        status.and_then(|mut row: Row| row.take(0)).expect("the log is on")
    }

    pub async fn definition(&self, table: &TableId) -> TableDef {
        let mut conn = self.connect().await;
        let def = schema::read_definition(&mut conn, table).await.expect("it can be read");
        def.expect("the table is there")
    }

    /// The bytes of a file of the log.
    pub async fn read(&self, file: &str) -> Vec<u8> {
        let mut conn = self.connect().await;
        let name = conn.query_first("SELECT @@log_bin_basename").await.expect("it is a variable");
        let name: String = name.expect("the log is on");
        std::fs::read(Path::new(&name).with_file_name(file)).expect("the server is our own")
    }

    /// Makes `changes` changes, each transaction one statement that inserts six rows, one that updates three and one that
    /// deletes one, in any order; gives the name of the log file that holds them and nothing else.
    pub async fn change(&self, table: &mut Table, changes: u32) -> String {
        let mut conn = self.connect().await;
        conn.query_drop("USE bench").await.expect("the database is there");
        let file = self.new_file(&mut conn).await;
        for _ in 0..changes / CHANGES_PER_TRANSACTION {
            conn.query_drop(transaction(table)).await.expect("the changes are possible");
        }
        conn.query_drop("FLUSH BINARY LOGS").await.expect("root may");
        file
    }

    /// What a reader needs that asks for the whole table by one statement, over one connection and the library that copies
    /// use too, and throws each row away: the time.
    pub async fn select_all(&self, rows: u32) -> Duration {
        let mut conn = self.connect().await;
        let began = Instant::now();
        let mut answer =
            conn.exec_iter("SELECT * FROM bench.goods", ()).await.expect("the table is there");
        let mut count = 0;
        while answer.next().await.expect("the rows come").is_some() {
            count += 1;
        }
        assert_eq!(count, rows, "the table has its rows");
        began.elapsed()
    }

    /// What a reader needs that does nothing with what it reads: the time of `mysqlbinlog --raw`, without that of
    /// starting it, and the bytes.
    pub fn read_raw(&self, file: &str) -> (Duration, u64) {
        let to = self.dir.path().join("raw-");
        let port = self.port.to_string();
        let result = format!("--result-file={}", text(&to));
        let starting = Instant::now();
        mysql_up(&["binlog", FLAVOUR, "--version"]);
        let starting = starting.elapsed();
        let began = Instant::now();
        mysql_up(&[
            "binlog",
            FLAVOUR,
            "--read-from-remote-server",
            "--raw",
            "--host=127.0.0.1",
            "--port",
            &port,
            "--user=root",
            &result,
            file,
        ]);
        let took = began.elapsed().saturating_sub(starting);
        let copy = PathBuf::from(format!("{}{file}", text(&to)));
        let bytes = std::fs::metadata(&copy).expect("mysqlbinlog has written the log").len();
        std::fs::remove_file(copy).ok();
        (took, bytes)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ =
            Command::new(script()).args(["stop", "-9"]).arg(self.dir.path().join("data")).status();
    }
}

/// Six inserts, three updates and a delete, as statements of one request.
fn transaction(table: &mut Table) -> String {
    let mut kinds = [INSERT, UPDATE, DELETE];
    for at in (1..kinds.len()).rev() {
        kinds.swap(at, table.below(at as u32 + 1) as usize);
    }
    let mut statements = "BEGIN;".to_owned();
    for kind in kinds {
        kind(table, &mut statements);
    }
    statements.push_str("COMMIT");
    statements
}

type Statement = fn(&mut Table, &mut String);

const INSERT: Statement = |table, out| {
    out.push_str("INSERT INTO goods VALUES ");
    for at in 0..6 {
        out.push_str(if at == 0 { "(" } else { ",(" });
        table.insert().write_values(out);
        out.push(')');
    }
    out.push(';');
};

const UPDATE: Statement = |table, out| {
    let (names, set) = (COLUMNS.join(","), |name: &&str| format!("goods.{name}=new.{name}"));
    let set: Vec<_> = COLUMNS.iter().skip(1).map(set).collect();
    out.push_str("UPDATE goods JOIN (VALUES ");
    for (at, row) in table.update_three().iter().enumerate() {
        out.push_str(if at == 0 { "ROW(" } else { ",ROW(" });
        row.write_values(out);
        out.push(')');
    }
    out.push_str(&format!(") AS new({names}) ON goods.id=new.id SET {};", set.join(",")));
};

const DELETE: Statement = |table, out| {
    out.push_str(&format!("DELETE FROM goods WHERE id={};", table.delete()));
};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/mysql-up")
}

fn mysql_up(arguments: &[&str]) -> String {
    let output = Command::new(script())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("tests/servers/mysql-up can be run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mysql-up {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have names in UTF-8")
}
