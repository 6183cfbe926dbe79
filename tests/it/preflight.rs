//! Preflight, definitions and the control connection against real servers.

use driftless::error::ErrorKind;
use driftless::net::tls::Mode;
use driftless::source::preflight::{Finding, Level, preflight};
use driftless::source::{Config, control, schema};
use driftless::table::{Charset, ColumnType, TableDef, TableId};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::support::servers::{self, Flavour};

/// `host:port` of each server of the run.
fn shared_servers() -> [(String, u16); 2] {
    ["DRIFTLESS_TEST_MYSQL_97", "DRIFTLESS_TEST_MYSQL_80"].map(|variable| {
        let address = std::env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} must name a running MySQL, as host:port; `make test` starts one")
        });
        let (host, port) = address.rsplit_once(':').expect("host:port");
        (host.to_owned(), port.parse().expect("a port"))
    })
}

fn config(server: &(String, u16), user: &str) -> Config {
    Config { host: server.0.clone(), port: server.1, user: user.to_owned(), ..Config::default() }
}

/// A session that may write, which those of the daemon may not.
async fn root(server: &(String, u16)) -> Conn {
    let mut conn = control::connect(&config(server, "root")).await.expect("root logs in");
    conn.query_drop("SET SESSION TRANSACTION READ WRITE").await.expect("is set");
    conn
}

/// A schema of this test's own, empty.
async fn schema_named(conn: &mut Conn, name: &str) -> String {
    let name = format!("{name}_{}", std::process::id());
    run(conn, &format!("DROP DATABASE IF EXISTS {name}")).await;
    run(conn, &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await;
    name
}

async fn run(conn: &mut Conn, statement: &str) {
    conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

async fn definition(conn: &mut Conn, db: &str, table: &str) -> Option<TableDef> {
    schema::read_definition(conn, &TableId::new(db, table)).await.expect("is read")
}

/// What is found beside the recommendations, which depend on how the server was started.
async fn errors(conn: &mut Conn, tables: &[TableId]) -> Vec<Finding> {
    let findings = preflight(conn, tables).await.expect("looks");
    findings.into_iter().filter(|finding| finding.level == Level::Error).collect()
}

#[tokio::test]
async fn a_definition_has_every_column_in_the_order_of_the_row_image() {
    for server in shared_servers() {
        let mut conn = root(&server).await;
        let db = schema_named(&mut conn, "definition").await;
        run(
            &mut conn,
            &format!(
                r"CREATE TABLE {db}.types (
                id bigint unsigned NOT NULL, a int DEFAULT 1,
                g int GENERATED ALWAYS AS (a + 1) VIRTUAL, gs int GENERATED ALWAYS AS (a + 2) STORED,
                e enum('a','b''c','d,e','中','x\\y','') CHARACTER SET utf8mb4,
                s set('x','y') CHARACTER SET latin1, lost enum('😀') CHARACTER SET utf8mb4,
                l varchar(10) CHARACTER SET latin1, b varchar(10) CHARACTER SET binary,
                u varchar(5) CHARACTER SET utf8mb3, a7 char(3) CHARACTER SET ascii, tt longtext,
                bi binary(9), vb varbinary(300), bl longblob, d decimal(10,2) unsigned zerofill,
                d6 datetime(6) NOT NULL, ts timestamp(3) NULL, ti time(2), y year, j json, bt bit(3),
                pt point, f float(7,3), db double, m mediumint unsigned zerofill, bo bool,
                inv int NOT NULL DEFAULT 3 INVISIBLE, sm smallint, da date,
                PRIMARY KEY (id), UNIQUE KEY u_null (a), UNIQUE KEY u_expr ((a + 1)),
                UNIQUE KEY u_two (d6, id), UNIQUE KEY u_prefix (vb(10)),
                UNIQUE KEY u_invisible (inv) INVISIBLE, KEY no_unique (d6))"
            ),
        )
        .await;
        let def = definition(&mut conn, &db, "types").await.expect("is there");
        let types: Vec<(&str, &ColumnType)> =
            def.columns.iter().map(|column| (column.name.as_str(), &column.ty)).collect();
        let labels =
            |labels: &[&str]| labels.iter().map(|label| label.to_string()).collect::<Vec<_>>();
        let unsupported = |reason: &str| ColumnType::Unsupported { reason: reason.into() };
        let expected = [
            ("id", ColumnType::BigInt { unsigned: true }),
            ("a", ColumnType::Int { unsigned: false }),
            ("g", ColumnType::Int { unsigned: false }),
            ("gs", ColumnType::Int { unsigned: false }),
            ("e", ColumnType::Enum { labels: labels(&["a", "b'c", "d,e", "中", r"x\y", ""]) }),
            ("s", ColumnType::Set { labels: labels(&["x", "y"]) }),
            (
                "lost",
                unsupported(
                    "a label holds `?` or a character that the server's dictionary shows as `?`",
                ),
            ),
            ("l", ColumnType::TextIn { charset: Charset::Latin1 }),
            ("b", ColumnType::Bytes),
            ("u", ColumnType::Text),
            ("a7", ColumnType::Text),
            ("tt", ColumnType::Text),
            ("bi", ColumnType::Binary { length: 9 }),
            ("vb", ColumnType::Bytes),
            ("bl", ColumnType::Bytes),
            ("d", ColumnType::Decimal { precision: 10, scale: 2 }),
            ("d6", ColumnType::DateTime { fsp: 6 }),
            ("ts", ColumnType::Timestamp { fsp: 3 }),
            ("ti", ColumnType::Time { fsp: 2 }),
            ("y", ColumnType::Year),
            ("j", ColumnType::Json),
            ("bt", ColumnType::Bit { length: 3 }),
            ("pt", ColumnType::Geometry),
            ("f", ColumnType::Float),
            ("db", ColumnType::Double),
            ("m", ColumnType::MediumInt { unsigned: true }),
            ("bo", ColumnType::TinyInt { unsigned: false }),
            ("inv", ColumnType::Int { unsigned: false }),
            ("sm", ColumnType::SmallInt { unsigned: false }),
            ("da", ColumnType::Date),
        ];
        let expected: Vec<(&str, &ColumnType)> =
            expected.iter().map(|(name, ty)| (*name, ty)).collect();
        assert_eq!(types, expected);
        assert_eq!(def.primary_key, [0]);
        let (d6, inv) =
            (def.ordinal("d6").expect("is there"), def.ordinal("INV").expect("is there"));
        assert_eq!(def.unique_keys, [vec![0], vec![inv], vec![d6, 0]]);
        assert!(!def.columns[d6].nullable && def.columns[1].nullable);
        assert_eq!(def.columns[0].declared, "bigint unsigned");
        assert_eq!(def.id, TableId::new(&db, "types"));

        assert!(definition(&mut conn, &db, "nothing").await.is_none());
        run(&mut conn, &format!("CREATE VIEW {db}.seen AS SELECT id FROM {db}.types")).await;
        let view = schema::read_definition(&mut conn, &TableId::new(&db, "seen")).await;
        assert_eq!(view.expect_err("a view has no log").kind(), ErrorKind::Unsupported);
        run(&mut conn, &format!("DROP DATABASE {db}")).await;
    }
}

#[tokio::test]
async fn a_column_that_may_not_be_seen_is_never_jumped_over() {
    for server in shared_servers() {
        let mut conn = root(&server).await;
        let db = schema_named(&mut conn, "hidden").await;
        let user = format!("hidden_{}", std::process::id());
        run(&mut conn, &format!("CREATE TABLE {db}.t (id int PRIMARY KEY, a int, b int)")).await;
        run(&mut conn, &format!("CREATE USER {user}")).await;
        run(&mut conn, &format!("GRANT SELECT (id, b) ON {db}.t TO {user}")).await;
        let mut theirs = control::connect(&config(&server, &user)).await.expect("logs in");
        let table = TableId::new(&db, "t");
        let error = schema::read_definition(&mut theirs, &table).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::SourceRefused);
        run(&mut conn, &format!("DROP USER {user}")).await;
        run(&mut conn, &format!("DROP DATABASE {db}")).await;
    }
}

#[tokio::test]
async fn preflight_names_every_problem_of_a_table_at_once() {
    for server in shared_servers() {
        let mut conn = root(&server).await;
        let db = schema_named(&mut conn, "problems").await;
        for table in [
            "good (id int PRIMARY KEY)",
            "no_key (id int)",
            "mine (id int PRIMARY KEY) ENGINE = MyISAM",
            "child (id int PRIMARY KEY, p int, FOREIGN KEY fk (p) REFERENCES good (id) ON DELETE CASCADE)",
        ] {
            run(&mut conn, &format!("CREATE TABLE {db}.{table}")).await;
        }
        let good = TableId::new(&db, "good");
        assert_eq!(errors(&mut conn, std::slice::from_ref(&good)).await, []);

        let named = |name: &str| TableId::new(&db, name);
        let tables = [
            good.clone(),
            named("no_key"),
            named("mine"),
            named("child"),
            named("godo"),
            TableId::new("nowhere_at_all", "t"),
        ];
        let findings = preflight(&mut conn, &tables).await.expect("looks");
        let of = |part: &str| findings.iter().find(|finding| finding.what.contains(part));
        let found = |part: &str| of(part).unwrap_or_else(|| panic!("{part}: {findings:#?}"));
        assert!(found("no_key has no primary key").remedy.contains("ADD PRIMARY KEY"));
        let engine = found("mine is stored by MyISAM");
        assert_eq!(
            (engine.level, engine.remedy.as_str()),
            (Level::Warning, format!("ALTER TABLE `{db}`.`mine` ENGINE = InnoDB").as_str())
        );
        assert_eq!(found("there is no table").remedy, format!("did you mean {db}.good?"));
        assert_eq!(found("nowhere_at_all").level, Level::Error);
        assert_eq!(of("child"), None, "a foreign key is followed");
        run(&mut conn, &format!("DROP DATABASE {db}")).await;
    }
}

#[tokio::test]
async fn preflight_names_every_missing_privilege_and_the_grant_mends_it() {
    for server in shared_servers() {
        let mut conn = root(&server).await;
        let db = schema_named(&mut conn, "privileges").await;
        let (user, role) =
            (format!("cdc_{}", std::process::id()), format!("reader_{}", std::process::id()));
        run(&mut conn, &format!("CREATE TABLE {db}.t (id int PRIMARY KEY, a int)")).await;
        run(&mut conn, &format!("CREATE USER {user}")).await;
        let table = [TableId::new(&db, "t")];
        let mut theirs = control::connect(&config(&server, &user)).await.expect("logs in");
        let found = errors(&mut theirs, &table).await;
        assert_eq!(found.len(), 3, "{found:#?}");
        let mut statements: Vec<String> = found.into_iter().map(|finding| finding.remedy).collect();

        // Columns alone are not enough: the dictionary would hide the others.
        run(&mut conn, &format!("GRANT SELECT (id) ON {db}.t TO {user}")).await;
        assert_eq!(errors(&mut theirs, &table).await.len(), 3);

        // A privilege by a role counts when the role is active, and is told when it is not.
        run(&mut conn, &format!("CREATE ROLE {role}")).await;
        run(&mut conn, &format!("GRANT {role} TO {user}")).await;
        let by_role = statements.remove(0).replace(&format!("`{user}`"), &format!("`{role}`"));
        run(&mut conn, &by_role).await;
        let mut theirs = control::connect(&config(&server, &user)).await.expect("logs in");
        let findings = preflight(&mut theirs, &table).await.expect("looks");
        let asleep = findings.iter().find(|finding| finding.what.contains("none is active"));
        run(&mut conn, &asleep.expect("is told").remedy).await;
        let mut theirs = control::connect(&config(&server, &user)).await.expect("logs in");
        assert_eq!(errors(&mut theirs, &table).await.len(), 2);

        for statement in &statements {
            run(&mut conn, statement).await;
        }
        let mut theirs = control::connect(&config(&server, &user)).await.expect("logs in");
        assert_eq!(errors(&mut theirs, &table).await, []);
        run(&mut conn, &format!("DROP USER {user}")).await;
        run(&mut conn, &format!("DROP ROLE {role}")).await;
        run(&mut conn, &format!("DROP DATABASE {db}")).await;
    }
}

#[tokio::test]
async fn a_session_is_in_utc_and_cannot_write() {
    for server in shared_servers() {
        let mut conn = control::connect(&config(&server, "root")).await.expect("logs in");
        let row: Option<(String, String, String)> = conn
            .query_first("SELECT @@time_zone, @@transaction_isolation, @@sql_mode")
            .await
            .expect("is asked");
        let expected = ("+00:00".to_owned(), "REPEATABLE-READ".to_owned(), String::new());
        assert_eq!(row, Some(expected));
        assert!(conn.query_drop("CREATE DATABASE never").await.is_err());
    }
}

#[tokio::test]
async fn a_connection_is_as_private_as_was_asked() {
    for server in shared_servers() {
        let cipher = async |mode| {
            let mut config = config(&server, "root");
            config.tls.mode = mode;
            let mut conn = control::connect(&config).await?;
            let row: Option<(String, String)> =
                conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.expect("is asked");
            Ok::<_, driftless::error::Error>(row.expect("is known").1)
        };
        assert_eq!(cipher(Mode::Disabled).await.expect("logs in"), "");
        assert_ne!(cipher(Mode::Preferred).await.expect("logs in"), "");
        assert_ne!(cipher(Mode::Required).await.expect("logs in"), "");
        // The server's certificate is its own.
        let error = cipher(Mode::VerifyCa).await.expect_err("is not trusted");
        assert_eq!(error.kind(), ErrorKind::SourceRefused, "{}", error.report());
        assert!(error.report().contains("tls.ca_file"), "{}", error.report());
    }
}

#[tokio::test]
async fn a_refusal_and_a_silence_are_told_apart() {
    let [server, _] = shared_servers();
    let error =
        control::connect(&config(&server, "nobody_of_that_name")).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::SourceRefused);
    assert!(error.report().starts_with(&format!("cannot connect to {}:{}", server.0, server.1)));

    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address");
    let mut config = config(&("127.0.0.1".into(), address.port()), "root");
    config.connect_timeout_ms = 200;
    let error = control::connect(&config).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::SourceUnreachable);
    drop(silent);
    let error = control::connect(&config).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::SourceUnreachable);
}

#[tokio::test]
async fn a_server_that_commits_out_of_order_is_refused() {
    let server = servers::own_mysql(Flavour::Mysql97, &["--binlog-order-commits=OFF"]).await;
    let mut conn = root(&("127.0.0.1".to_owned(), server.port())).await;
    let found = errors(&mut conn, &[]).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].remedy, "SET PERSIST binlog_order_commits = ON");
    run(&mut conn, &found[0].remedy).await;
    assert_eq!(errors(&mut conn, &[]).await, []);
    // A replica, though of nobody: its applier would run in parallel.
    for statement in [
        "SET GLOBAL replica_preserve_commit_order = OFF",
        "SET GLOBAL replica_parallel_workers = 4",
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1",
    ] {
        run(&mut conn, statement).await;
    }
    let found = errors(&mut conn, &[]).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].what.contains("replica_preserve_commit_order is OFF"), "{found:#?}");
    run(&mut conn, "SET GLOBAL replica_preserve_commit_order = ON").await;
    assert_eq!(errors(&mut conn, &[]).await, []);
}
