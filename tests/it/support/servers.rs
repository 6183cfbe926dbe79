//! Real servers: the shared ones of the run, by address, and private ones for tests that kill, fill or hold a server.
//! Knows nothing of Driftless.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use super::mysql::Mysql;
use super::search::{Product, Search};

/// A kind of MySQL server, as `tests/servers/mysql-up` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Mysql97,
    Mysql80,
    Mariadb118,
    Mariadb1011,
    /// Of the old ones no run has one at hand: [`own_mysql`] starts one.
    Mariadb105,
    Mysql56,
}

impl Flavour {
    /// Of MySQL.
    pub const ALL: [Flavour; 2] = [Flavour::Mysql97, Flavour::Mysql80];
    /// All that a run has at hand.
    pub const EVERY: [Flavour; 4] =
        [Flavour::Mysql97, Flavour::Mysql80, Flavour::Mariadb118, Flavour::Mariadb1011];
    pub const MARIADB: [Flavour; 2] = [Flavour::Mariadb118, Flavour::Mariadb1011];

    pub fn is_mariadb(self) -> bool {
        matches!(self, Self::Mariadb118 | Self::Mariadb1011 | Self::Mariadb105)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Mysql97 => "mysql-9.7",
            Self::Mysql80 => "mysql-8.0",
            Self::Mariadb118 => "mariadb-11.8",
            Self::Mariadb1011 => "mariadb-10.11",
            Self::Mariadb105 => "mariadb-10.5",
            Self::Mysql56 => "mysql-5.6",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Mysql97 => "DRIFTLESS_TEST_MYSQL_97",
            Self::Mysql80 => "DRIFTLESS_TEST_MYSQL_80",
            Self::Mariadb118 => "DRIFTLESS_TEST_MARIADB_118",
            Self::Mariadb1011 => "DRIFTLESS_TEST_MARIADB_1011",
            Self::Mariadb105 => "DRIFTLESS_TEST_MARIADB_105",
            Self::Mysql56 => "DRIFTLESS_TEST_MYSQL_56",
        }
    }
}

/// The run's server of this flavour. All tests share it: take a database of your own, change no global setting.
pub fn mysql(flavour: Flavour) -> Mysql {
    let address = from_env(flavour.variable());
    let (host, port) = address.rsplit_once(':').expect("the address of a test server is host:port");
    Mysql::at(host, port.parse().expect("the port of a test server is a number"))
}

/// The run's OpenSearch node. All tests share it: take indexes of your own, change no cluster setting.
pub fn opensearch() -> Search {
    search(Product::OpenSearch)
}

/// The run's node of this product; the same holds.
pub fn search(product: Product) -> Search {
    let variable = match product {
        Product::OpenSearch => "DRIFTLESS_TEST_OPENSEARCH",
        Product::Elasticsearch => "DRIFTLESS_TEST_ELASTICSEARCH",
    };
    Search::of(product, &from_env(variable))
}

/// A MySQL server that belongs to one test; `options` are mysqld's (`--server-id=7`).
pub async fn own_mysql(flavour: Flavour, options: &[&str]) -> OwnMysql {
    let dir = data_dir();
    let options = options.iter().map(|&option| option.to_owned()).collect();
    let mut server = OwnMysql { flavour, options, dir, port: 0 };
    server.start().await;
    server
}

/// An OpenSearch node that belongs to one test: half a gigabyte and some ten seconds, so use it sparingly.
pub async fn own_opensearch() -> OwnOpensearch {
    let mut node = OwnOpensearch { dir: data_dir(), port: free_port_pair() };
    node.start().await;
    node
}

pub struct OwnMysql {
    flavour: Flavour,
    options: Vec<String>,
    dir: TempDir,
    port: u16,
}

impl OwnMysql {
    pub fn client(&self) -> Mysql {
        Mysql::at("127.0.0.1", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server, again on the port that it had before.
    pub async fn start(&mut self) {
        let mut arguments =
            vec!["start".to_owned(), self.flavour.name().to_owned(), self.port.to_string()];
        arguments.push(text(self.dir.path()));
        arguments.extend(self.options.iter().cloned());
        let printed = script("mysql-up", arguments).await;
        self.port = printed.trim().parse().expect("mysql-up start prints the port");
    }

    pub async fn stop(&mut self) {
        script("mysql-up", vec!["stop".to_owned(), text(self.dir.path())]).await;
    }

    /// kill -9, as in a crash; the data stay.
    pub async fn kill(&mut self) {
        script("mysql-up", vec!["stop".to_owned(), "-9".to_owned(), text(self.dir.path())]).await;
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for OwnMysql {
    fn drop(&mut self) {
        run("mysql-up", &["stop".to_owned(), "-9".to_owned(), text(self.dir.path())]).ok();
    }
}

pub struct OwnOpensearch {
    dir: TempDir,
    port: u16,
}

impl OwnOpensearch {
    pub fn client(&self) -> Search {
        Search::at(&format!("http://127.0.0.1:{}", self.port))
    }

    pub async fn start(&mut self) {
        script(
            "opensearch-up",
            vec!["start".to_owned(), self.port.to_string(), text(self.dir.path())],
        )
        .await;
    }

    pub async fn stop(&mut self) {
        script("opensearch-up", vec!["stop".to_owned(), text(self.dir.path())]).await;
    }

    /// kill -9, as in a crash; the data stay.
    pub async fn kill(&mut self) {
        script("opensearch-up", vec!["stop".to_owned(), "-9".to_owned(), text(self.dir.path())])
            .await;
    }
}

impl Drop for OwnOpensearch {
    fn drop(&mut self) {
        run("opensearch-up", &["stop".to_owned(), "-9".to_owned(), text(self.dir.path())]).ok();
    }
}

/// A port of the loopback address that nobody uses just now. It lies below the range from which the kernel takes the
/// ports of outgoing connections.
pub fn free_port() -> u16 {
    free_port_where(|_| true)
}

/// A node listens at `port + 100` too.
fn free_port_pair() -> u16 {
    free_port_where(|port| is_free(port + 100))
}

fn free_port_where(also: impl Fn(u16) -> bool) -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 11_900;
    static STEP: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = STEP.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        if is_free(port) && also(port) {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A folder for a server or a daemon, inside the run's own folder, so that the run can stop and remove what a test
/// left behind.
pub fn data_dir() -> TempDir {
    let parent =
        std::env::var_os("DRIFTLESS_TEST_RUN").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new()
        .prefix("own-")
        .tempdir_in(parent)
        .expect("a temporary folder can be made")
}

fn from_env(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run the tests by `make test`, or `tests/servers/with cargo test …`")
    })
}

/// Runs a script of `tests/servers` off the test's own thread, which may be serving a proxy meanwhile.
async fn script(name: &'static str, arguments: Vec<String>) -> String {
    tokio::task::spawn_blocking(move || run(name, &arguments))
        .await
        .expect("running a script does not panic")
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn run(name: &str, arguments: &[String]) -> Result<String, String> {
    let folder = std::env::var_os("DRIFTLESS_TEST_SERVERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers"), PathBuf::from);
    let output = Command::new(folder.join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary folders have names in UTF-8").to_owned()
}
