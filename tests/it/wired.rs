//! Temporary.
use driftless::link::{Config, Origin, Parts, Rules, Spec, Supervisor};
use driftless::mapping::{self, Rule};
use driftless::state::{SealingKey, State};
use driftless::table::TableId;
use crate::support::servers::{self, Flavour};
use crate::support::stage::index_body;
use crate::support::{SECONDS_30, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wired() {
    let _ = tracing_subscriber::fmt().with_env_filter("debug,hyper=info,reqwest=info,h2=info").try_init();
    let _ = crate::support::http_client();
    let mysql = servers::mysql(Flavour::Mysql97);
    let search = servers::opensearch();
    let db = mysql.database("wired").await;
    mysql.exec(format!("CREATE TABLE {db}.t (id BIGINT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200)) CHARSET utf8mb4")).await;
    mysql.exec(format!("INSERT INTO {db}.t VALUES (1,'a','b'),(2,'c','d')")).await;
    let index = search.index("wired", index_body()).await;
    let dir = tempfile::tempdir().expect("dir");
    let state = State::open(dir.path(), SealingKey::load(None, None, dir.path()).expect("key")).expect("state");
    let mut source = driftless::source::Config::default();
    source.host = mysql.host().to_owned(); source.port = mysql.port(); source.user = "root".into(); source.password = Some("".to_owned().into());
    let mut sink = driftless::sink::Config::default();
    sink.addresses = vec![search.url().to_owned()];
    let parts = Parts { link: Config::default(), source, snapshot: Default::default(), sink, pipeline: Default::default(), memory_limit_bytes: 512 << 20, state };
    let control = Supervisor::start(parts, vec![]).expect("starts");
    let table = TableId::new(&db, "t");
    let rule = |c: &str| Rule { field: c.into(), table: table.clone(), column: c.into(), span: Default::default(), field_span: Default::default() };
    let spec = mapping::Spec { index: index.clone(), rules: vec![rule("id"), rule("a"), rule("b")], keys: vec![rule("id")] };
    let made = control.create(Spec { id: None, origin: Origin::Sql, statement: String::new(), rules: Rules::Map(spec) }).await;
    eprintln!("{made:?}");
    until("2 docs", SECONDS_30, async || { let n = search.docs(&index).await.len(); if n == 2 {Ok(())} else {Err(format!("{n} {:?}", control.statuses()))} }).await;
    mysql.exec(format!("INSERT INTO {db}.t VALUES (3,'a','b'),(4,'c','d')")).await;
    mysql.exec(format!("UPDATE {db}.t SET id = id + 10 ORDER BY id DESC")).await;
    mysql.exec(format!("DELETE FROM {db}.t WHERE id = 11")).await;
    until("docs", SECONDS_30, async || { let d: Vec<_> = search.docs(&index).await.into_keys().collect(); if d == ["12","13","14"] {Ok(())} else {Err(format!("{d:?} {:?}", control.statuses()))} }).await;
    until("running", SECONDS_30, async || control.statuses()[0].state == driftless::link::State::Running).await;
    eprintln!("{:?}", control.statuses());
    control.shutdown().await;
}
