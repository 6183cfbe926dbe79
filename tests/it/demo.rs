//! `driftless demo` and its page: a person who searches by keyboard finds the row that was just written, and whatever ends
//! the demo leaves nothing behind.

use std::fs::File;
use std::process::{Child, ExitStatus, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::browser::{Browser, DOWN, ENTER, ESCAPE, UP};
use crate::support::daemon::{Setup, driftless};
use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour};
use crate::support::{SECONDS_10, SECONDS_30, http_client, unique, until};

/// A demo as a process, with a temporary folder of its own.
struct Demo {
    child: Child,
    folder: TempDir,
    url: String,
}

impl Demo {
    /// Starts it and does not wait.
    fn spawn(mysql: &str) -> Self {
        Self::spawn_in(mysql, servers::data_dir(), servers::free_port())
    }

    fn spawn_in(mysql: &str, folder: TempDir, port: u16) -> Self {
        let tmp = folder.path().join("tmp");
        std::fs::create_dir_all(&tmp).expect("a folder can be made");
        let said = File::create(folder.path().join("said")).expect("a file can be made");
        let child = driftless()
            .args(["demo", "--mysql", mysql, "--listen", &format!("127.0.0.1:{port}")])
            .env("TMPDIR", tmp)
            .env_remove("DRIFTLESS_LOG")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file handle can be doubled"))
            .stderr(said)
            .spawn()
            .expect("the demo can be started");
        Self { child, folder, url: format!("http://127.0.0.1:{port}") }
    }

    /// Starts it and waits until the page is offered.
    async fn start(mysql: &str) -> Self {
        let mut demo = Self::spawn(mysql);
        demo.is_up().await;
        demo
    }

    async fn is_up(&mut self) {
        until("the demo offers its page", SECONDS_30, async || {
            let said = self.said();
            assert!(matches!(self.child.try_wait(), Ok(None)), "the demo has ended:\n{said}");
            if said.contains("/ui\n") { Ok(()) } else { Err(said) }
        })
        .await;
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    async fn end(&mut self, signal: &str) -> ExitStatus {
        let kill = format!("kill -{signal} {}", self.child.id());
        let sent = std::process::Command::new("sh")
            .args(["-c", &kill])
            .status()
            .expect("a shell is there");
        assert!(sent.success(), "SIG{signal} could not be sent");
        self.ended().await
    }

    async fn ended(&mut self) -> ExitStatus {
        until("the demo has ended", SECONDS_30, async || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .await
    }

    /// What is left in its temporary folder.
    fn left_behind(&self) -> Vec<String> {
        let entries =
            std::fs::read_dir(self.folder.path().join("tmp")).expect("the folder is there");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("the demo said:\n{}", self.said());
        }
    }
}

fn address(mysql: &Mysql) -> String {
    format!("mysql://root@{}", mysql.address())
}

async fn has_shop(mysql: &Mysql) -> bool {
    let shops =
        "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'driftless_shop'";
    mysql.value::<u32>(shops).await == 1
}

/// Every text that can be seen and has less contrast than 4.5, as WCAG computes it.
const FAINT: &str = r#"
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  let seen = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!isText || !element.checkVisibility() || element.closest("noscript")) continue;
    seen += 1;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${element.className || element.tagName} ${element.textContent.slice(0, 20)}: ${contrast.toFixed(2)}`);
  }
  return { seen, found, ground: ground(document.body).slice(0, 3) };
"#;

async fn assert_readable(browser: &Browser, colours: &str, is_dark: bool) {
    browser.prefer(colours).await;
    let seen = browser.run(FAINT).await;
    assert_eq!(seen["found"], json!([]), "{colours}: too faint");
    assert!(seen["seen"].as_u64() > Some(40), "{colours}: {seen}");
    let ground = seen["ground"][0].as_f64().expect("a colour");
    assert_eq!(ground < 128.0, is_dark, "{colours}: the ground is {}", seen["ground"]);
}

async fn text_of(browser: &Browser, selector: &str) -> String {
    let found =
        browser.run(&format!("return document.querySelector('{selector}')?.innerText ?? ''")).await;
    found.as_str().unwrap_or_default().to_owned()
}

/// `1,234 ms old` as a number.
fn milliseconds(age: &str) -> Option<u64> {
    age.strip_suffix(" ms old")?.replace(',', "").parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_finds_the_row_just_written_by_keyboard_alone() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mysql = server.client();
    let demo = Demo::start(&address(&mysql)).await;
    let browser = Browser::start().await;
    browser.prefer("light").await;
    browser.open(&demo.url).await;
    until("the latest changes are shown", SECONDS_10, async || {
        browser.run("return document.querySelectorAll('.hit').length").await == 12
    })
    .await;
    assert_eq!(browser.run("return location.pathname").await, "/ui");
    assert_eq!(browser.run("return document.activeElement.id").await, "query");

    mysql
        .exec(
            "INSERT INTO driftless_shop.products (name, description, category, price, stock) VALUES \
             ('Zanzimat compass', 'Points north on every hill.', 'Travel', 12.5, 7)",
        )
        .await;
    browser.press("zanzimat".chars().chain([ENTER])).await;
    until("the row is the first result", SECONDS_10, async || {
        let (title, age) =
            (text_of(&browser, ".hit .title").await, text_of(&browser, ".hit .age").await);
        if title != "Zanzimat compass" {
            return Err(title);
        }
        milliseconds(&age).filter(|age| *age < 10_000).map(|_| ()).ok_or(age)
    })
    .await;
    let fields = text_of(&browser, ".hit .fields").await.replace('\n', " ");
    assert!(fields.contains("price 12.50") && fields.contains("stock 7"), "{fields}");
    assert!(fields.contains("score 0."), "{fields}");
    assert!(text_of(&browser, "#summary").await.contains("“zanzimat”, by words and by vectors"));

    // A change shows by itself, without another search.
    mysql
        .exec("UPDATE driftless_shop.products SET price = 99.25 WHERE name = 'Zanzimat compass'")
        .await;
    until("the new price is shown", SECONDS_10, async || {
        text_of(&browser, ".hit .fields").await.contains("99.25")
    })
    .await;

    // Beside it, the statement and the lag.
    let statement = text_of(&browser, "#statement").await;
    assert!(statement.starts_with("CALL dbms_etl.sync_by_map(\"search\""), "{statement}");
    until("the line of the lag has points", SECONDS_10, async || {
        let points = browser.run("return document.getElementById('curve').points.length").await;
        points.as_u64() > Some(3)
    })
    .await;
    let lag = text_of(&browser, "#lag").await.replace(char::is_whitespace, "");
    assert!(
        lag.strip_suffix("ms").is_some_and(|ms| ms.replace(',', "").parse::<u64>().is_ok()),
        "{lag}"
    );
    assert_eq!(text_of(&browser, "#state").await, "running");
    assert!(text_of(&browser, "#model").await.contains("likeness of words, not meaning"));

    walk_by_keyboard(&browser).await;
    look_at_it(&browser).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

async fn walk_by_keyboard(browser: &Browser) {
    let focused = async || {
        let place = "const all = [...document.querySelectorAll('.hit')]; \
            return all.indexOf(document.activeElement)";
        browser.run(place).await.as_i64().expect("a number")
    };
    browser.press([DOWN]).await;
    assert_eq!(focused().await, 0);
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.run(outline).await, "solid", "the focus cannot be seen");
    browser.press([DOWN]).await;
    assert_eq!(focused().await, 1);
    browser.press([UP, UP]).await;
    assert_eq!(browser.run("return document.activeElement.id").await, "query");
    browser.press([DOWN, '/']).await;
    assert_eq!(browser.run("return document.activeElement.id").await, "query");
    browser.press([ESCAPE]).await;
    assert_eq!(browser.run("return document.getElementById('query').value").await, "");
    until("the latest changes are shown again", SECONDS_10, async || {
        text_of(browser, "#summary").await == "The latest changes"
    })
    .await;
}

/// Light and dark, wide and narrow.
async fn look_at_it(browser: &Browser) {
    assert_readable(browser, "light", false).await;
    browser.save_screenshot("light").await;
    assert_readable(browser, "dark", true).await;
    browser.save_screenshot("dark").await;
    browser.press("waterproof tent".chars()).await;
    until("there are results", SECONDS_10, async || {
        text_of(browser, "#summary").await.contains("waterproof tent")
    })
    .await;
    assert_readable(browser, "dark", true).await;
    browser.save_screenshot("dark-search").await;
    assert_readable(browser, "light", false).await;
    browser.save_screenshot("light-search").await;
    browser.resize(360, 780).await;
    let widths = "const root = document.documentElement; \
        return [innerWidth, root.scrollWidth - root.clientWidth]";
    assert_eq!(browser.run(widths).await, json!([360, 0]), "the page is wider than a telephone");
    browser.save_screenshot("narrow").await;
    assert_readable(browser, "dark", true).await;
    browser.run("document.querySelector('aside').scrollIntoView()").await;
    browser.save_screenshot("narrow-dark-link").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_cluster_the_page_shows_the_link_and_says_where_to_search() {
    let (mysql, search) = (servers::mysql(Flavour::Mysql97), servers::opensearch());
    let daemon = Setup::new(&mysql, search.url()).start().await;
    let db = mysql.database("page").await;
    mysql.exec(format!("CREATE TABLE {db}.goods (id INT PRIMARY KEY, name TEXT)")).await;
    let index = search.index("page", json!({})).await;
    let statement = format!("CALL dbms_etl.sync_by_table('search', '{db}.goods', '{index}', '')");
    daemon.sql(&statement).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/ui", daemon.url())).await;
    until("the page says where to search", SECONDS_10, async || {
        let text = text_of(&browser, "main").await;
        let has_all = [&statement, &index, "running", "of the search cluster"]
            .iter()
            .all(|part| text.contains(*part));
        if has_all { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(
        browser.run("return document.getElementById('form').checkVisibility()").await,
        false
    );
    browser.save_screenshot("cluster").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_for_browsers_and_may_only_ask() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let demo = Demo::start(&address(&server.client())).await;
    let http = http_client();
    let page = http.get(format!("{}/ui", demo.url)).send().await.expect("answers");
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = page.text().await.expect("text");
    assert!(!html.contains("://"), "the page names another place");
    // A client of the search API is answered as by a node; a browser is shown the page.
    let about = http.get(&demo.url).send().await.expect("answers").text().await.expect("text");
    assert!(about.contains("\"distribution\":\"opensearch\""), "{about}");
    let browser = http.get(&demo.url).header("accept", "text/html,*/*;q=0.8").send().await;
    assert!(browser.expect("answers").url().path() == "/ui");

    let search = async |origin: &str, path: &str| {
        let body = json!({"query": {"match_all": {}}}).to_string();
        let request = http.post(format!("{}{path}", demo.url)).header("origin", origin).body(body);
        request.send().await.expect("answers").status().as_u16()
    };
    assert_eq!(search(&demo.url, "/products/_search").await, 200);
    assert_eq!(search("http://elsewhere.example", "/products/_search").await, 403);
    assert_eq!(search(&demo.url, "/_sql").await, 403);
    assert_eq!(search(&demo.url, "/products/_doc/1").await, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_leaves_nothing_behind_and_a_second_demo_starts() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mysql = server.client();
    for signal in ["INT", "TERM"] {
        let mut demo = Demo::start(&address(&mysql)).await;
        assert!(has_shop(&mysql).await);
        assert_eq!(demo.left_behind().len(), 1);
        let counted = "SELECT COUNT(*) FROM driftless_shop.products WHERE updated_at > NOW(3) - INTERVAL 1 SECOND";
        until("the shop is full and rows change", SECONDS_10, async || {
            let all: u32 = mysql.value("SELECT COUNT(*) FROM driftless_shop.products").await;
            let changed: u32 = mysql.value(counted).await;
            all >= 1_400 && (1..1_000).contains(&changed)
        })
        .await;
        assert!(demo.end(signal).await.success(), "{}", demo.said());
        assert!(!has_shop(&mysql).await, "SIG{signal}: {}", demo.said());
        assert_eq!(demo.left_behind(), Vec::<String>::new());
        assert!(http_client().get(&demo.url).send().await.is_err(), "somebody still listens");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_while_it_starts_leaves_nothing_behind_either() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mysql = server.client();
    let mut demo = Demo::spawn(&address(&mysql));
    until("it has begun", SECONDS_30, async || has_shop(&mysql).await).await;
    demo.end("INT").await;
    assert!(!has_shop(&mysql).await, "{}", demo.said());
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_demo_left_goes_with_the_next() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mysql = server.client();
    let mut killed = Demo::start(&address(&mysql)).await;
    killed.end("KILL").await;
    assert!(has_shop(&mysql).await);
    assert_eq!(killed.left_behind().len(), 1);
    let folder = std::mem::replace(&mut killed.folder, servers::data_dir());
    let mut next = Demo::spawn_in(&address(&mysql), folder, servers::free_port());
    next.is_up().await;
    assert_eq!(next.left_behind().len(), 1, "its own, and not the dead one's");
    assert!(next.end("INT").await.success(), "{}", next.said());
    assert!(!has_shop(&mysql).await);
    assert_eq!(next.left_behind(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_of_somebody_else_and_a_demo_that_runs_are_left_alone() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mysql = server.client();
    mysql.exec("CREATE DATABASE driftless_shop").await;
    mysql.exec("CREATE TABLE driftless_shop.mine (id INT PRIMARY KEY)").await;
    let mut demo = Demo::spawn(&address(&mysql));
    assert_eq!(demo.ended().await.code(), Some(1));
    let said = demo.said();
    assert!(said.contains("driftless_shop at the server, and the demo did not make it"), "{said}");
    mysql.exec("SELECT * FROM driftless_shop.mine").await;
    assert_eq!(demo.left_behind(), Vec::<String>::new());

    mysql.exec("DROP DATABASE driftless_shop").await;
    let mut first = Demo::start(&address(&mysql)).await;
    let mut second = Demo::spawn(&address(&mysql));
    assert_eq!(second.ended().await.code(), Some(1));
    assert!(second.said().contains("another demo is running at this server"), "{}", second.said());
    assert!(matches!(first.child.try_wait(), Ok(None)) && has_shop(&mysql).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_its_remedy_before_anything_is_made() {
    let off = ["--binlog-format=MIXED"];
    let server = servers::own_mysql(Flavour::Mysql97, &off).await;
    let mysql = server.client();
    let refused = async |address: &str, code: i32, words: &[&str]| {
        let mut demo = Demo::spawn(address);
        let ended = demo.ended().await;
        let said = demo.said();
        assert_eq!(ended.code(), Some(code), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}\n{said}");
        assert!(!said.contains("s3cret"), "{said}");
        assert_eq!(demo.left_behind(), Vec::<String>::new());
    };
    let place = mysql.address();
    refused(&address(&mysql), 1, &["binlog_format is MIXED", "remedy: SET PERSIST"]).await;
    refused(&format!("mysql://root:s3cret@{place}"), 1, &["Access denied", "remedy: "]).await;
    refused("mysql://root@127.0.0.1:1", 1, &["cannot connect to 127.0.0.1:1", "make demo MYSQL="])
        .await;
    refused("127.0.0.1:3306", 64, &["--mysql: ", "mysql://user:password@host:port"]).await;

    let shared = servers::mysql(Flavour::Mysql97);
    let (user, password) = shared.replication_user().await;
    let address = format!("mysql://{user}:{password}@{}", shared.address());
    refused(
        &address,
        1,
        &["cannot make the database driftless_shop", "GRANT ALL ON driftless_shop.*"],
    )
    .await;
    assert!(!has_shop(&mysql).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it listens").port();
    let mysql = servers::mysql(Flavour::Mysql97);
    let mut demo = Demo::spawn_in(&address(&mysql), servers::data_dir(), port);
    assert_eq!(demo.ended().await.code(), Some(1));
    let said = demo.said();
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
    assert!(said.contains("--listen 127.0.0.1:PORT"), "{said}");
}

/// The requests of the demo are those of the documents: the index says what it was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_shop_are_the_documents_of_the_index() {
    let server = servers::own_mysql(Flavour::Mysql97, &[]).await;
    let mysql = server.client();
    let demo = Demo::start(&address(&mysql)).await;
    let word = unique("kompass");
    mysql
        .exec(format!("INSERT INTO driftless_shop.products (name, price) VALUES ('{word}', 3.5)"))
        .await;
    let id: u32 =
        mysql.value(format!("SELECT id FROM driftless_shop.products WHERE name = '{word}'")).await;
    let url = format!("{}/products/_doc/{id}", demo.url);
    let document = until("the row is a document", SECONDS_10, async || {
        let text = http_client().get(&url).send().await.ok()?.text().await.ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        (answer["found"] == true).then(|| answer["_source"].clone())
    })
    .await;
    assert_eq!((&document["name"], document["price"].as_f64()), (&json!(word), Some(3.5)));
    assert_eq!(document["category"], "Other");
}
