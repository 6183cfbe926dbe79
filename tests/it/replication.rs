//! The replication connection against real servers: logging in by every path, resuming, large events, heartbeats,
//! damage. Beside its tests it holds what `decoder` needs too.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use driftless::change::{Change, ChangeKind, Value};
use driftless::error::{ErrorKind, Result};
use driftless::mysql::{
    Connection, Dump, DumpFrom, EventStream, Options, Session, prepare_session,
};
use driftless::net::tls;
use driftless::position::{GtidSet, Sid};
use driftless::source::binlog::payload::Inflater;
use driftless::source::binlog::{Body, Event, FormatDescription, TableMap, gtid_set, rows};
use driftless::table::{Column, ColumnType, TableDef, TableId};
use secrecy::SecretString;

pub const SERVERS: [&str; 2] = ["DRIFTLESS_TEST_MYSQL_97", "DRIFTLESS_TEST_MYSQL_80"];
const MAX_EVENT_BYTES: usize = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(30);

/// Root of the server whose address stands in the environment.
pub fn root(variable: &str) -> Options {
    let address = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} must be host:port of a MySQL server whose root has no password")
    });
    let (host, port) = address.rsplit_once(':').expect("host:port");
    root_at(host, port.parse().expect("a port"))
}

/// Root of the server at an address.
pub fn root_at(host: &str, port: u16) -> Options {
    Options {
        host: host.to_owned(),
        port,
        user: "root".to_owned(),
        password: SecretString::from(""),
        tls: tls::Config { mode: tls::Mode::Disabled, ..tls::Config::default() },
        connect_timeout: PATIENCE,
    }
}

/// A number that no other reader of the servers has.
fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
        | 0x4000_0000
}

/// A fresh database of its own and a session in it.
pub async fn database(options: &Options, name: &str) -> Connection {
    let mut root = Connection::connect(options).await.expect("the server answers");
    for sql in [
        format!("DROP DATABASE IF EXISTS {name}"),
        format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"),
        format!("USE {name}"),
        "SET time_zone = '+00:00', sql_mode = ''".to_owned(),
    ] {
        run(&mut root, &sql).await;
    }
    root
}

pub async fn run(connection: &mut Connection, sql: &str) -> Vec<Vec<Option<Vec<u8>>>> {
    connection.query(sql).await.unwrap_or_else(|error| panic!("{}", error.report()))
}

pub async fn text(connection: &mut Connection, sql: &str) -> String {
    let cell = run(connection, sql).await.swap_remove(0).swap_remove(0).expect("not NULL");
    String::from_utf8(cell).expect("UTF-8")
}

pub async fn executed(connection: &mut Connection) -> GtidSet {
    text(connection, "SELECT @@global.gtid_executed").await.parse().expect("a set")
}

/// Where the log ends.
pub async fn from_here(connection: &mut Connection) -> DumpFrom {
    if connection.is_mariadb() {
        return DumpFrom::Domains(text(connection, "SELECT @@global.gtid_binlog_pos").await);
    }
    DumpFrom::GtidSet(gtid_set::encode(&executed(connection).await))
}

pub async fn dump(options: &Options, from: DumpFrom, heartbeat: Duration) -> EventStream {
    let server_id = unique();
    let mut connection = Connection::connect(options).await.expect("the server answers");
    let session = Session {
        heartbeat,
        replica_uuid: format!("00000000-0000-0000-0000-0000{server_id:08x}"),
        net_write_timeout: Duration::from_secs(600),
    };
    prepare_session(&mut connection, &session).await.expect("the session can be set up");
    connection.register_replica(server_id, "driftless-test").await.expect("can be registered");
    connection.dump(Dump { server_id, from }).await.expect("can be asked for")
}

pub async fn next(stream: &mut EventStream) -> Result<Option<Bytes>> {
    tokio::time::timeout(PATIENCE, stream.next(&|_| true))
        .await
        .expect("something comes within the patience of the test")
}

/// Shows every event, those inside payloads too, until `visit` says that it has seen enough.
pub async fn read_log(stream: &mut EventStream, mut visit: impl FnMut(&Event<'_>) -> bool) {
    let mut format = FormatDescription::assumed();
    let mut inflater = Inflater::new(MAX_EVENT_BYTES).expect("starts");
    loop {
        let bytes = next(stream)
            .await
            .unwrap_or_else(|error| panic!("{}", error.report()))
            .expect("the log goes on");
        let event = format.read(&bytes).unwrap_or_else(|error| panic!("{}", error.report()));
        let mut enough = visit(&event);
        match event.body {
            Body::FormatDescription(next) => format = *next,
            Body::Payload(payload) => {
                let mut inner = inflater.open(&payload).expect("opens");
                while let Some(bytes) = inner.next().expect("unpacks") {
                    enough |= visit(&format.read_inner(bytes).expect("well formed"));
                }
            }
            Body::Packed(packed) => {
                let plain = packed.unpack(MAX_EVENT_BYTES).expect("unpacks");
                enough |= visit(&format.read_inner(&plain).expect("well formed"));
            }
            _ => (),
        }
        if enough {
            return;
        }
    }
}

/// `id` and `data` of a table of an INT and a LONGBLOB.
fn small_table(db: &str) -> TableDef {
    let column = |name: &str, ty, declared: &str| Column {
        name: name.to_owned(),
        ty,
        nullable: true,
        declared: declared.to_owned(),
    };
    TableDef {
        id: TableId::new(db, "t"),
        columns: vec![
            column("id", ColumnType::Int { unsigned: false }, "int"),
            column("data", ColumnType::Bytes, "longblob"),
        ],
        primary_key: vec![0],
        unique_keys: vec![vec![0]],
    }
}

const CREATE_SMALL: &str = "CREATE TABLE t (id INT PRIMARY KEY, data LONGBLOB)";

/// Inserted ids, with the length of their data, until one is `last`.
async fn inserted(stream: &mut EventStream, db: &str, last: i64) -> Vec<(i64, usize)> {
    let def = small_table(db);
    let (mut seen, mut map) = (Vec::new(), None::<TableMap>);
    read_log(stream, |event| {
        match &event.body {
            Body::TableMap(event) if event.db == db => {
                map = Some(TableMap::parse(event).expect("well formed"))
            }
            Body::TableMap(_) => map = None,
            Body::Rows(event) => {
                let Some(map) = &map else { return false };
                let plan = rows::Plan::new(&def, &[0, 1], map).expect("agrees");
                let mut reader = rows::Reader::new(event, &plan).expect("well formed");
                let mut change = Change::reusable(ChangeKind::Insert);
                while reader.next(&mut change).expect("well formed") {
                    let [Value::Int(id), data] = change.after.values[..] else {
                        panic!("not an id")
                    };
                    let length = if let Value::Bytes(bytes) = data { bytes.len() } else { 0 };
                    seen.push((id, length));
                }
            }
            _ => (),
        }
        seen.last().is_some_and(|(id, _)| *id == last)
    })
    .await;
    seen
}

/// An account that nobody has used yet, so that the server has not cached its password.
async fn account(root: &mut Connection, name: &str, with: &str, grants: &str) {
    run(root, &format!("DROP USER IF EXISTS {name}@'%'")).await;
    run(root, &format!("CREATE USER {name}@'%' IDENTIFIED {with} BY 'päss wörd'")).await;
    if !grants.is_empty() {
        run(root, &format!("GRANT {grants} ON *.* TO {name}@'%'")).await;
    }
}

fn as_user(options: &Options, user: &str, password: &str, mode: tls::Mode) -> Options {
    Options {
        user: user.to_owned(),
        password: SecretString::from(password),
        tls: tls::Config { mode, ..tls::Config::default() },
        ..options.clone()
    }
}

#[tokio::test]
async fn a_password_is_proved_over_tls_over_rsa_and_from_the_servers_cache() {
    for server in SERVERS {
        let options = root(server);
        let mut root = Connection::connect(&options).await.expect("the server answers");
        for (name, mode) in [("wire_tls", tls::Mode::Required), ("wire_rsa", tls::Mode::Disabled)] {
            account(&mut root, name, "WITH caching_sha2_password", "").await;
            // The first login takes the full path, the second the fast one.
            for path in ["full", "fast"] {
                let login = as_user(&options, name, "päss wörd", mode);
                let mut connection = Connection::connect(&login)
                    .await
                    .unwrap_or_else(|error| panic!("{server} {name} {path}: {}", error.report()));
                assert_eq!(connection.is_encrypted(), mode == tls::Mode::Required);
                assert!(text(&mut connection, "SELECT CURRENT_USER()").await.starts_with(name));
                connection.ping().await.expect("answers");
            }
            run(&mut root, &format!("DROP USER {name}@'%'")).await;
        }
    }
}

#[tokio::test]
async fn an_account_of_old_logs_in_after_a_change_of_plugin() {
    let options = root("DRIFTLESS_TEST_MYSQL_80");
    let mut root = Connection::connect(&options).await.expect("the server answers");
    account(&mut root, "wire_native", "WITH mysql_native_password", "").await;
    for mode in [tls::Mode::Disabled, tls::Mode::Preferred] {
        Connection::connect(&as_user(&options, "wire_native", "päss wörd", mode))
            .await
            .expect("logs in");
    }
    run(&mut root, "DROP USER wire_native@'%'").await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_without_being_told() {
    for server in SERVERS {
        let options = root(server);
        let mut root = Connection::connect(&options).await.expect("the server answers");
        account(&mut root, "wire_wrong", "WITH caching_sha2_password", "").await;
        for mode in [tls::Mode::Disabled, tls::Mode::Required] {
            let login = as_user(&options, "wire_wrong", "another secret", mode);
            let error = Connection::connect(&login).await.err().expect("it is wrong");
            assert_eq!(error.kind(), ErrorKind::SourceRefused);
            let report = error.report();
            assert!(report.contains("error 1045: Access denied for user 'wire_wrong'"), "{report}");
            assert!(report.contains("GRANT REPLICATION SLAVE"), "{report}");
            assert!(
                !report.contains("secret") && !format!("{login:?}").contains("secret"),
                "{report}"
            );
        }
        run(&mut root, "DROP USER wire_wrong@'%'").await;
    }
}

#[tokio::test]
async fn certificates_are_verified_as_far_as_was_asked() {
    for server in SERVERS {
        let mut options = root(server);
        let mut root = Connection::connect(&options).await.expect("the server answers");
        let datadir = text(&mut root, "SELECT @@datadir").await;
        let ca_file = Some(format!("{datadir}/ca.pem").into());
        options.tls = tls::Config {
            mode: tls::Mode::VerifyCa,
            ca_file: ca_file.clone(),
            ..tls::Config::default()
        };
        let connection = Connection::connect(&options)
            .await
            .unwrap_or_else(|error| panic!("{}", error.report()));
        assert!(connection.is_encrypted());
        for config in [
            tls::Config { mode: tls::Mode::VerifyIdentity, ca_file, ..tls::Config::default() },
            tls::Config { mode: tls::Mode::VerifyCa, ..tls::Config::default() },
        ] {
            options.tls = config;
            let error = Connection::connect(&options).await.err().expect("not trusted");
            assert_eq!(error.kind(), ErrorKind::SourceRefused, "{}", error.report());
            assert!(
                error.report().contains("its certificate is not trusted"),
                "{}",
                error.report()
            );
        }
    }
}

#[tokio::test]
async fn nobody_there_and_no_answer_can_be_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let mut options = root(SERVERS[0]);
    options.port = port;
    options.connect_timeout = Duration::from_millis(200);
    let silent = Connection::connect(&options).await.err().expect("nobody speaks");
    drop(listener);
    let closed = Connection::connect(&options).await.err().expect("nobody is there");
    for error in [silent, closed] {
        assert_eq!(error.kind(), ErrorKind::SourceUnreachable, "{}", error.report());
        assert!(
            error.to_string().starts_with(&format!("cannot connect to 127.0.0.1:{port}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_missing_privilege_is_told_with_its_grant() {
    for server in SERVERS {
        let options = root(server);
        let mut root = Connection::connect(&options).await.expect("the server answers");
        account(&mut root, "wire_poor", "WITH caching_sha2_password", "").await;
        let login = as_user(&options, "wire_poor", "päss wörd", tls::Mode::Preferred);
        let connection = Connection::connect(&login).await.expect("logs in");
        let dump = Dump {
            server_id: unique(),
            from: DumpFrom::GtidSet(gtid_set::encode(&GtidSet::default())),
        };
        let mut stream = connection.dump(dump).await.expect("can be asked for");
        let error = next(&mut stream).await.expect_err("not allowed");
        assert_eq!(error.kind(), ErrorKind::SourceRefused, "{}", error.report());
        assert!(error.report().contains("GRANT REPLICATION SLAVE"), "{}", error.report());
        run(&mut root, "DROP USER wire_poor@'%'").await;
    }
}

#[tokio::test]
async fn a_log_that_is_not_there_is_lost_for_good() {
    for server in SERVERS {
        let options = root(server);
        let from = DumpFrom::File { file: "binlog.999999".to_owned(), offset: 4 };
        let mut stream = dump(&options, from, PATIENCE).await;
        let error = loop {
            match next(&mut stream).await {
                Ok(event) => assert!(event.is_some(), "the stream ends without an error"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::SourceLost, "{}", error.report());
    }
}

#[tokio::test]
async fn an_event_over_sixteen_mebibytes_comes_whole() {
    const MIB: usize = 1 << 20;
    // Around one and two full packets, the event's own bytes being about 100.
    let sizes = [16 * MIB - 200, 16 * MIB - 40, 20 * MIB, 33 * MIB];
    for server in SERVERS {
        let options = root(server);
        let mut root = database(&options, "wire_large").await;
        run(&mut root, CREATE_SMALL).await;
        let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut root).await));
        for (id, size) in sizes.iter().enumerate() {
            run(&mut root, &format!("INSERT INTO t VALUES ({id}, REPEAT('x', {size}))")).await;
        }
        let mut stream = dump(&options, from, PATIENCE).await;
        let seen = inserted(&mut stream, "wire_large", sizes.len() as i64 - 1).await;
        assert_eq!(seen.iter().map(|(_, length)| *length).collect::<Vec<_>>(), sizes);
        run(&mut root, "DROP DATABASE wire_large").await;
    }
}

#[tokio::test]
async fn reading_goes_on_from_a_gtid_set_and_from_an_offset() {
    for server in SERVERS {
        let options = root(server);
        let mut root = database(&options, "wire_resume").await;
        run(&mut root, CREATE_SMALL).await;
        let before = executed(&mut root).await;
        run(&mut root, "INSERT INTO t VALUES (1, NULL)").await;
        run(&mut root, "INSERT INTO t VALUES (2, NULL)").await;
        let after_two = executed(&mut root).await;
        run(&mut root, "FLUSH BINARY LOGS").await;
        run(&mut root, "INSERT INTO t VALUES (3, NULL)").await;
        run(&mut root, "INSERT INTO t VALUES (4, NULL)").await;

        let mut stream =
            dump(&options, DumpFrom::GtidSet(gtid_set::encode(&after_two)), PATIENCE).await;
        assert_eq!(inserted(&mut stream, "wire_resume", 4).await, [(3, 0), (4, 0)]);

        // The whole way, noting where each transaction of ours ends.
        let mut stream =
            dump(&options, DumpFrom::GtidSet(gtid_set::encode(&before)), PATIENCE).await;
        let (mut file, mut ours, mut ends) = (String::new(), false, Vec::new());
        let mut gtids = before.clone();
        read_log(&mut stream, |event| {
            match &event.body {
                Body::Rotate(rotate) => file = rotate.file.to_owned(),
                Body::GroupStart(start) => {
                    let gtid = start.gtid.as_ref().expect("the server has GTIDs");
                    assert!(!before.contains(gtid));
                    assert!(start.commit_micros > 1_600_000_000_000_000);
                    gtids.insert(gtid);
                }
                Body::TableMap(map) => ours = map.db == "wire_resume",
                Body::Xid(_) if ours => {
                    ends.push((file.clone(), u64::from(event.header.next_offset)))
                }
                _ => (),
            }
            ends.len() == 4
        })
        .await;
        assert!(gtids.covers(&after_two));
        assert_ne!(ends[1].0, ends[2].0);
        let (file, offset) = ends[1].clone();
        let mut stream = dump(&options, DumpFrom::File { file, offset }, PATIENCE).await;
        assert_eq!(inserted(&mut stream, "wire_resume", 4).await, [(3, 0), (4, 0)]);
        let (file, offset) = ends[2].clone();
        let mut stream = dump(&options, DumpFrom::File { file, offset }, PATIENCE).await;
        assert_eq!(inserted(&mut stream, "wire_resume", 4).await, [(4, 0)]);
        run(&mut root, "DROP DATABASE wire_resume").await;
    }
}

#[tokio::test]
async fn tagged_gtids_are_read_and_resumed_from() {
    let options = root("DRIFTLESS_TEST_MYSQL_97");
    let mut root = database(&options, "wire_tagged").await;
    run(&mut root, CREATE_SMALL).await;
    let before = executed(&mut root).await;
    run(&mut root, "SET gtid_next = 'AUTOMATIC:wire_tag'").await;
    run(&mut root, "INSERT INTO t VALUES (1, NULL)").await;
    let after_one = executed(&mut root).await;
    run(&mut root, "INSERT INTO t VALUES (2, NULL)").await;
    let after = executed(&mut root).await;

    let mut stream = dump(&options, DumpFrom::GtidSet(gtid_set::encode(&before)), PATIENCE).await;
    let (mut tagged, mut seen) = (GtidSet::default(), 0);
    read_log(&mut stream, |event| {
        match &event.body {
            Body::GroupStart(start) => {
                let gtid = start.gtid.as_ref().expect("the server has GTIDs");
                if matches!(&gtid.sid, Sid::Server { tag, .. } if &**tag == "wire_tag") {
                    assert!(start.commit_micros > 1_600_000_000_000_000, "{start:?}");
                    assert!((200..1000).contains(&start.transaction_bytes), "{start:?}");
                    assert!(after.contains(gtid) && !before.contains(gtid), "{gtid}");
                    tagged.insert(gtid);
                }
            }
            Body::TableMap(map) if map.db == "wire_tagged" => seen += 1,
            _ => (),
        }
        seen == 2
    })
    .await;
    assert_eq!(tagged.iter().map(|(_, ranges)| ranges[0].1 - ranges[0].0).sum::<u64>(), 1);

    let mut stream =
        dump(&options, DumpFrom::GtidSet(gtid_set::encode(&after_one)), PATIENCE).await;
    assert_eq!(inserted(&mut stream, "wire_tagged", 2).await, [(2, 0)]);
    // A file that begins now tells of tagged transactions before it.
    run(&mut root, "SET gtid_next = 'AUTOMATIC'").await;
    run(&mut root, "FLUSH BINARY LOGS").await;
    run(&mut root, "INSERT INTO t VALUES (3, NULL)").await;
    let file = text(&mut root, "SHOW BINARY LOG STATUS").await;
    let mut stream = dump(&options, DumpFrom::File { file, offset: 4 }, PATIENCE).await;
    let mut previous = None;
    read_log(&mut stream, |event| {
        if let Body::PreviousGtids(set) = &event.body {
            previous = Some(set.clone());
        }
        previous.is_some()
    })
    .await;
    assert!(previous.expect("read").covers(&after));
    run(&mut root, "DROP DATABASE wire_tagged").await;
}

async fn end_of_log(connection: &mut Connection, status: &str) -> (String, u64) {
    let row = run(connection, status).await.swap_remove(0);
    let cell = |at: usize| str::from_utf8(row[at].as_deref().expect("not NULL")).expect("UTF-8");
    (cell(0).to_owned(), cell(1).parse().expect("a number"))
}

#[tokio::test]
async fn a_silent_source_sends_heartbeats() {
    for server in SERVERS {
        let options = root(server);
        let mut root = Connection::connect(&options).await.expect("the server answers");
        let status =
            if server.ends_with("80") { "SHOW MASTER STATUS" } else { "SHOW BINARY LOG STATUS" };
        let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut root).await));
        let mut stream = dump(&options, from, Duration::from_millis(20)).await;
        let mut heartbeat = None;
        read_log(&mut stream, |event| {
            if let Body::Heartbeat(body) = &event.body {
                heartbeat = Some((String::from_utf8_lossy(body.file).into_owned(), body.offset));
            }
            heartbeat.is_some()
        })
        .await;
        let after = end_of_log(&mut root, status).await;
        let heartbeat = heartbeat.expect("one came");
        // Other tests write meanwhile, so the server may still be on its way through the log.
        assert!(!heartbeat.0.is_empty() && heartbeat <= after, "{heartbeat:?} {after:?}");
    }
}

#[tokio::test]
async fn a_time_out_in_the_middle_of_an_event_loses_nothing() {
    let options = root(SERVERS[0]);
    let mut root = database(&options, "wire_cancel").await;
    run(&mut root, CREATE_SMALL).await;
    let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut root).await));
    run(&mut root, &format!("INSERT INTO t VALUES (1, REPEAT('x', {}))", 40 << 20)).await;
    let mut stream = dump(&options, from, PATIENCE).await;
    let (mut given_up, mut largest) = (0, 0);
    let mut format = FormatDescription::assumed();
    while largest < 40 << 20 {
        match tokio::time::timeout(Duration::from_micros(100), stream.next(&|_| true)).await {
            Err(_) => given_up += 1,
            Ok(event) => {
                let bytes = event.expect("no error").expect("the log goes on");
                let event = format.read(&bytes).expect("its checksum is right");
                largest = largest.max(bytes.len());
                if let Body::FormatDescription(next) = event.body {
                    format = *next;
                }
            }
        }
    }
    assert!(given_up > 0);
    run(&mut root, "DROP DATABASE wire_cancel").await;
}

#[tokio::test]
async fn damage_to_an_event_of_a_real_log_is_an_error() {
    for server in SERVERS {
        let options = root(server);
        let mut root = database(&options, "wire_damage").await;
        run(&mut root, CREATE_SMALL).await;
        let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut root).await));
        run(&mut root, "INSERT INTO t VALUES (1, 'some bytes')").await;
        let mut stream = dump(&options, from, PATIENCE).await;
        let mut format = FormatDescription::assumed();
        let mut damaged_kinds = Vec::new();
        while damaged_kinds.len() < 6 {
            let good = next(&mut stream).await.expect("no error").expect("the log goes on");
            let event = format.read(&good).expect("its checksum is right");
            for at in 0..good.len() {
                let mut damaged = good.to_vec();
                damaged[at] ^= 4;
                let error = format.read(&damaged).expect_err("it is damaged");
                // The format description says itself whether it has a checksum: damage there may look like a new format.
                let kinds = [ErrorKind::Undecodable, ErrorKind::Unsupported];
                assert!(kinds.contains(&error.kind()), "byte {at} of {:?}", event.header);
            }
            damaged_kinds.push(event.header.kind);
            if let Body::FormatDescription(next) = event.body {
                format = *next;
            }
        }
        run(&mut root, "DROP DATABASE wire_damage").await;
    }
}

#[tokio::test]
async fn statements_and_prepared_transactions_are_told_apart() {
    for server in SERVERS {
        let options = root(server);
        let mut root = database(&options, "wire_words").await;
        run(&mut root, CREATE_SMALL).await;
        let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut root).await));
        for sql in [
            "SET SESSION binlog_rows_query_log_events = ON",
            "INSERT INTO t VALUES (1, 'as rows')",
            "SET SESSION binlog_format = STATEMENT",
            "INSERT INTO t VALUES (2, 'as a statement')",
            "SET SESSION binlog_format = ROW",
            "XA START 'wire global', 'wire branch', 77",
            "INSERT INTO t VALUES (3, 'prepared')",
            "XA END 'wire global', 'wire branch', 77",
            "XA PREPARE 'wire global', 'wire branch', 77",
            "XA COMMIT 'wire global', 'wire branch', 77",
            "DROP TABLE t",
        ] {
            run(&mut root, sql).await;
        }
        let mut stream = dump(&options, from, PATIENCE).await;
        let mut words = Vec::new();
        let mut ours = false;
        read_log(&mut stream, |event| {
            match &event.body {
                Body::RowsQuery(text) if text.starts_with(b"INSERT INTO t VALUES (") => {
                    words.push(String::from_utf8_lossy(text).into_owned());
                }
                Body::TableMap(map) => ours = map.db == "wire_words",
                Body::Rows(rows) if ours => words.push(format!("{:?}", rows.kind)),
                Body::XaPrepare(xa) if xa.gtrid == b"wire global" => {
                    words.push(format!(
                        "prepared {} {}",
                        String::from_utf8_lossy(xa.bqual),
                        xa.format_id
                    ));
                    assert!(!xa.one_phase);
                }
                Body::Query(query)
                    if query.db == b"wire_words" || query.statement.starts_with(b"XA C") =>
                {
                    assert_eq!(query.error_code, 0);
                    words.push(String::from_utf8_lossy(query.statement).into_owned());
                }
                _ => (),
            }
            words.last().is_some_and(|last| last.starts_with("DROP"))
        })
        .await;
        let rows = "Whole(Insert)";
        let xid = "X'7769726520676c6f62616c',X'77697265206272616e6368',77";
        let all = [
            "BEGIN",
            "INSERT INTO t VALUES (1, 'as rows')",
            rows,
            "BEGIN",
            "INSERT INTO t VALUES (2, 'as a statement')",
            &format!("XA START {xid}"),
            "INSERT INTO t VALUES (3, 'prepared')",
            rows,
            &format!("XA END {xid}"),
            "prepared wire branch 77",
            &format!("XA COMMIT {xid}"),
        ];
        assert_eq!(words[..all.len()], all, "{server}");
        assert_eq!(words.len(), all.len() + 1);
        run(&mut root, "DROP DATABASE wire_words").await;
    }
}
