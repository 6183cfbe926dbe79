//! Random tables of all types: a row's document is the same bytes whether its values came by the log or by a SELECT, and
//! each value is what the server itself says of it when asked over the text protocol.

mod kinds;

pub use kinds::numbers_below;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use driftless::change::{Change, ChangeKind, Value};
use driftless::error::Span;
use driftless::mapping::{self, Plan};
use driftless::mysql::{DumpFrom, Options};
use driftless::source::binlog::{Body, TableMap, rows};
use driftless::source::snapshot::scan;
use driftless::source::{self, control, schema};
use driftless::table::{TableDef, TableId};
use kinds::{Alphabet, Drawn};
use serde_json::value::RawValue;

use crate::decoder::Random;
use crate::replication::{dump, from_here, read_log, root_at, run};
use crate::support::mysql::Mysql;
use crate::support::servers::{self, Flavour};

/// Enough that each kind has over a thousand values.
const ROUNDS: u64 = 6;
const ROWS: u64 = 240;
const VALUES_MIN: u64 = 1_000;
const COLUMNS_PER_TABLE: usize = 14;
/// Chunks of the snapshot, so that a table has several.
const CHUNK_ROWS: u32 = 70;

struct Table {
    id: TableId,
    columns: Vec<Drawn>,
    def: TableDef,
    plan: Plan,
}

/// Documents by `_id`.
type Documents = BTreeMap<String, Vec<u8>>;

#[tokio::test]
async fn every_type_of_9_7_is_the_same_by_log_and_by_select_and_as_the_server_says() {
    all_seeds(Flavour::Mysql97, &servers::mysql(Flavour::Mysql97)).await;
}

#[tokio::test]
async fn every_type_of_8_0_is_the_same_by_log_and_by_select_and_as_the_server_says() {
    all_seeds(Flavour::Mysql80, &servers::mysql(Flavour::Mysql80)).await;
}

#[tokio::test]
async fn every_type_of_mariadb_11_8_is_the_same_by_log_and_by_select_and_as_the_server_says() {
    all_seeds(Flavour::Mariadb118, &servers::mysql(Flavour::Mariadb118)).await;
}

#[tokio::test]
async fn every_type_of_mariadb_10_11_is_the_same_by_log_and_by_select_and_as_the_server_says() {
    all_seeds(Flavour::Mariadb1011, &servers::mysql(Flavour::Mariadb1011)).await;
}

/// Rows and statements compressed one by one, all metadata in the log, and moments in MariaDB's first form.
#[tokio::test]
async fn every_type_of_mariadb_is_the_same_out_of_a_compressed_log_and_old_tables() {
    let options = [
        "--mysql56-temporal-format=OFF",
        "--log-bin-compress=ON",
        "--log-bin-compress-min-len=10",
        "--binlog-row-metadata=FULL",
        "--column-compression-zlib-wrap=ON",
    ];
    let server = servers::own_mysql(Flavour::Mariadb118, &options).await;
    all_seeds(Flavour::Mariadb118, &server.client()).await;
}

/// A table that keeps the past of its rows has documents of those alone that still are so.
#[tokio::test]
async fn rows_that_have_ended_are_no_documents() {
    for flavour in Flavour::MARIADB {
        let server = servers::mysql(flavour);
        let options = root_at(server.host(), server.port());
        let db = server.database("oracle_past").await;
        let mut writer = crate::replication::database(&options, &db).await;
        let from = from_here(&mut writer).await;
        let ends = "s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END INVISIBLE, \
            PERIOD FOR SYSTEM_TIME (s, e)";
        let mut tables = Vec::new();
        let mut reader = reader_of(&server).await;
        for (name, ends) in [("t0", ""), ("t1", ends)] {
            let comma = if ends.is_empty() { "" } else { ", " };
            for sql in [
                format!(
                    "CREATE TABLE {name} (id INT PRIMARY KEY, a INT{comma}{ends}) WITH SYSTEM VERSIONING"
                ),
                format!("INSERT INTO {name} (id, a) VALUES (1, 1), (2, 2), (3, 3), (4, 4)"),
                format!("UPDATE {name} SET a = a + 10 WHERE id < 3"),
                format!("UPDATE {name} SET id = 7 WHERE id = 1"),
                format!("DELETE FROM {name} WHERE id = 2"),
                format!("INSERT INTO {name} (id, a) VALUES (2, 20)"),
                format!("REPLACE INTO {name} (id, a) VALUES (3, 30)"),
                format!("INSERT INTO {name} (id, a) VALUES (3, 30) ON DUPLICATE KEY UPDATE a = 40"),
                format!("DELETE FROM {name} WHERE id = 4"),
                format!("DELETE HISTORY FROM {name}"),
                format!("UPDATE {name} SET a = 50 WHERE id = 7"),
            ] {
                run(&mut writer, &sql).await;
            }
            let id = TableId::new(&db, name);
            let def = schema::read_definition(&mut reader, &id).await;
            let def = def.unwrap_or_else(|error| panic!("{}", error.report())).expect("is there");
            assert_eq!(def.columns.len(), 4, "{def:?}");
            let spec = mapping::Spec::of_table("index", &def, None, Span::default());
            let plan = mapping::compile(&spec, &def).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert_eq!(plan.fields().count(), 3);
            tables.push(Table { id, columns: Vec::new(), def, plan });
        }
        run(&mut writer, "CREATE TABLE finished (id INT)").await;
        let streamed = stream(&options, &db, from, &tables).await;
        for (table, streamed) in tables.iter().zip(&streamed) {
            let copied = snapshot(&mut reader, table).await;
            assert_eq!(&copied, streamed, "{}", table.id);
            assert_eq!(copied.keys().collect::<Vec<_>>(), ["2", "3", "7"]);
        }
        run(&mut writer, &format!("DROP DATABASE {db}")).await;
    }
}

/// Servers that are not installed with the others run their part when they are asked for.
fn are_old_servers_wanted(flavour: Flavour) -> bool {
    let is_wanted = std::env::var_os("DRIFTLESS_TEST_OLD_SERVERS").is_some();
    if !is_wanted {
        eprintln!("{}: not run, DRIFTLESS_TEST_OLD_SERVERS is not set", flavour.name());
    }
    is_wanted
}

#[tokio::test]
async fn every_type_of_mariadb_10_5_is_the_same_by_log_and_by_select_and_as_the_server_says() {
    if are_old_servers_wanted(Flavour::Mariadb105) {
        let server = servers::own_mysql(Flavour::Mariadb105, &[]).await;
        all_seeds(Flavour::Mariadb105, &server.client()).await;
    }
}

#[tokio::test]
async fn every_type_of_5_6_is_the_same_by_log_and_by_select_and_as_the_server_says() {
    if are_old_servers_wanted(Flavour::Mysql56) {
        let options = ["--innodb-file-format=Barracuda", "--innodb-strict-mode=OFF"];
        let server = servers::own_mysql(Flavour::Mysql56, &options).await;
        all_seeds(Flavour::Mysql56, &server.client()).await;
    }
}

async fn all_seeds(flavour: Flavour, server: &Mysql) {
    let mut alphabet = kinds::alphabet(flavour, server).await;
    if flavour == Flavour::Mysql56 {
        // It takes bytes for characters that it refuses in a text.
        let strict = kinds::alphabet(Flavour::Mysql80, &servers::mysql(Flavour::Mysql80)).await;
        for (name, codes) in &mut alphabet {
            codes.retain(|code| strict[name].contains(code));
        }
    }
    for line in include_str!("oracle/seeds.txt").lines() {
        let Some(seed) = line.split_whitespace().next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        compare(flavour, server, &alphabet, seed).await;
    }
    let given = std::env::var("DRIFTLESS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let drawn = || {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970");
        now.as_nanos() as u64 | 1
    };
    let seed = given.unwrap_or_else(drawn);
    let counts = compare(flavour, server, &alphabet, seed).await;
    let lines: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    eprintln!("{}: values compared: {}", flavour.name(), lines.join(", "));
    let few: Vec<_> = counts.iter().filter(|(_, count)| **count < VALUES_MIN).collect();
    assert!(few.is_empty(), "too few values of {few:?}");
    let never: Vec<_> =
        types_of_the_page(flavour).into_iter().filter(|name| !counts.contains_key(*name)).collect();
    assert!(never.is_empty(), "never drawn: {never:?}");
}

/// The types that `docs/types.md` names.
fn types_of_the_page(flavour: Flavour) -> Vec<&'static str> {
    let page = include_str!("../../docs/types.md");
    let rows = page.lines().filter(|line| line.starts_with("| `") && !line.contains(" = "));
    let cells = rows.filter_map(|line| line.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names = names.map(|name| name.split('(').next().unwrap_or_default());
    let names: Vec<_> =
        names.filter(|name| *name != "any" && kinds::has_type(flavour, name)).collect();
    assert!(names.len() > 38, "{names:?}");
    names
}

/// A session as Driftless has one.
async fn reader_of(server: &Mysql) -> mysql_async::Conn {
    let config = source::Config {
        host: server.host().to_owned(),
        port: server.port(),
        user: "root".to_owned(),
        ..source::Config::default()
    };
    control::connect(&config).await.expect("connects")
}

/// Makes the tables that `seed` means, and compares all three ways; how many values of each kind there were.
async fn compare(
    flavour: Flavour,
    server: &Mysql,
    alphabet: &Alphabet,
    seed: u64,
) -> BTreeMap<String, u64> {
    eprintln!("{}: DRIFTLESS_TEST_SEED={seed}", flavour.name());
    let started = Instant::now();
    let mut random = Random(seed);
    let options = root_at(server.host(), server.port());
    let db = server.database("oracle").await;
    let mut writer = crate::replication::database(&options, &db).await;
    let from = from_here(&mut writer).await;
    let mut reader = reader_of(server).await;
    let mut tables = Vec::new();
    for _ in 0..ROUNDS {
        let mut deck = kinds::draw(&mut random, alphabet, flavour);
        shuffle(&mut deck, &mut random);
        while !deck.is_empty() {
            let columns = deck.split_off(deck.len().saturating_sub(COLUMNS_PER_TABLE));
            let zone = random.below(24) as i64 - 11;
            run(&mut writer, &format!("SET time_zone = '{zone:+03}:30'")).await;
            let id = TableId::new(&db, format!("t{}", tables.len()));
            make(flavour, &mut writer, &id, &columns, &mut random).await;
            let def = schema::read_definition(&mut reader, &id).await;
            let def = def.unwrap_or_else(|error| panic!("{}", error.report())).expect("is there");
            let spec = mapping::Spec::of_table("index", &def, None, Span::default());
            let plan = mapping::compile(&spec, &def).unwrap_or_else(|errors| panic!("{errors:?}"));
            tables.push(Table { id, columns, def, plan });
        }
    }
    run(&mut writer, "CREATE TABLE finished (id INT)").await;
    let written = started.elapsed();
    let streamed = stream(&options, &db, from, &tables).await;
    let read = started.elapsed() - written;
    let mut counts = BTreeMap::new();
    run(&mut writer, "SET time_zone = '+00:00'").await;
    for (table, streamed) in tables.iter().zip(&streamed) {
        let copied = snapshot(&mut reader, table).await;
        assert_eq!(copied.len(), streamed.len(), "{} rows", table.id);
        for (id, document) in &copied {
            let other = streamed
                .get(id)
                .unwrap_or_else(|| panic!("{id} of {} is not in the log", table.id));
            assert!(document == other, "{} {id}: {}", table.id, difference(table, document, other));
        }
        ask(&mut writer, table, &copied, &mut counts).await;
    }
    run(&mut writer, &format!("DROP DATABASE {db}")).await;
    let all = started.elapsed();
    eprintln!(
        "{}: {} tables, written in {written:?}, streamed in {read:?}, all in {all:?}",
        flavour.name(),
        tables.len()
    );
    counts
}

/// The fields that differ, with how their columns are declared.
fn difference(table: &Table, selected: &[u8], logged: &[u8]) -> String {
    let fields = |document: &[u8]| -> BTreeMap<String, Box<RawValue>> {
        serde_json::from_slice(document).expect("a document is JSON")
    };
    let (selected, logged) = (fields(selected), fields(logged));
    let mut differ = Vec::new();
    for (name, value) in selected.iter().filter(|(name, value)| logged[*name].get() != value.get())
    {
        let ordinal = table.def.ordinal(name).expect("fields are called as columns");
        let declared = &table.def.columns[ordinal].declared;
        differ.push(format!("{declared} by SELECT {value}, by log {}", logged[name]));
    }
    differ.join("; ")
}

fn shown(document: &[u8]) -> String {
    String::from_utf8_lossy(document).into_owned()
}

fn shuffle(deck: &mut [Drawn], random: &mut Random) {
    for at in (1..deck.len()).rev() {
        deck.swap(at, random.below(at as u64 + 1) as usize);
    }
}

/// Makes a table and fills it: rows come, change and go.
async fn make(
    flavour: Flavour,
    writer: &mut driftless::mysql::Connection,
    id: &TableId,
    columns: &[Drawn],
    random: &mut Random,
) {
    let mut nullable = Vec::new();
    let mut declared: Vec<String> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let is_nullable = column.may_be_null && (column.is_generated || random.below(4) > 0);
        let null = if column.is_generated {
            ""
        } else if is_nullable {
            "NULL"
        } else {
            "NOT NULL"
        };
        nullable.push(is_nullable);
        // SRID and INVISIBLE may stand before it.
        declared.push(format!("c{at} {} {null}", column.declared));
    }
    declared.insert(random.below(declared.len() as u64 + 1) as usize, "id INT NOT NULL".to_owned());
    let key = match random.below(if kinds::has_type(flavour, "UUID") { 6 } else { 4 }) {
        0 => "k VARCHAR(8) CHARACTER SET latin1 NOT NULL, PRIMARY KEY (k, id)",
        1 => "k CHAR(8) CHARACTER SET gbk NOT NULL, PRIMARY KEY (k, id)",
        2 => "k BIT(3) NOT NULL, PRIMARY KEY (k, id)",
        3 => "k BINARY(4) NOT NULL, PRIMARY KEY (id, k)",
        4 => "k UUID NOT NULL, PRIMARY KEY (k, id)",
        _ => "k INET6 NOT NULL, PRIMARY KEY (k, id)",
    };
    run(
        writer,
        &format!(
            "CREATE TABLE {} ({}, {key}) CHARACTER SET utf8mb4 {}",
            id.name,
            declared.join(", "),
            // The form of rows that is usual elsewhere: long values stand beside the row.
            if flavour == Flavour::Mysql56 { "ROW_FORMAT=DYNAMIC" } else { "" }
        ),
    )
    .await;
    let names: Vec<String> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| !column.is_generated)
        .map(|(at, _)| format!("c{at}"))
        .collect();
    let value = |random: &mut Random, at: usize| {
        let is_null = nullable[at] && random.below(10) == 0;
        if is_null { "NULL".to_owned() } else { (columns[at].value)(random) }
    };
    let settable: Vec<usize> = (0..columns.len()).filter(|at| !columns[*at].is_generated).collect();
    const BATCH: u64 = 60;
    for first in (0..ROWS).step_by(BATCH as usize) {
        let mut list = Vec::new();
        for row in first..ROWS.min(first + BATCH) {
            let mut values = vec![row.to_string(), key_value(random, key)];
            values.extend(settable.iter().map(|at| value(random, *at)));
            list.push(format!("({})", values.join(", ")));
        }
        let names: String = names.iter().map(|name| format!(", {name}")).collect();
        run(writer, &format!("INSERT INTO {} (id, k{names}) VALUES {}", id.name, list.join(", ")))
            .await;
    }
    for _ in 0..12 {
        let row = random.below(ROWS);
        let key = format!("k = {}", key_value(random, key));
        let sets: Vec<String> = settable
            .iter()
            .filter(|_| row.is_multiple_of(3) || row % 5 == 1)
            .map(|at| format!("c{at} = {}", value(random, *at)))
            .chain([key])
            .collect();
        run(writer, &format!("UPDATE {} SET {} WHERE id = {row}", id.name, sets.join(", "))).await;
    }
    run(writer, &format!("DELETE FROM {} WHERE id % 29 = {}", id.name, random.below(29))).await;
}

fn key_value(random: &mut Random, key: &str) -> String {
    let pick = random.below(8) as usize;
    if key.contains("UUID") {
        kinds::uuid(random)
    } else if key.contains("INET6") {
        kinds::inet6(random)
    } else if key.contains("BIT") {
        pick.to_string()
    } else if key.contains("BINARY") {
        ["''", "'a'", "X'00'", "X'ff00'", "'b  '", "'A'", "'|'", "'\\\\'"][pick].to_owned()
    } else if key.contains("gbk") {
        ["'中'", "'文'", "'a'", "'b '", "'A'", "'?'", "'国国'", "'龥'"][pick].to_owned()
    } else {
        ["'é'", "'ß'", "'a'", "'b '", "'A'", "'?'", "'€'", "'|'"][pick].to_owned()
    }
}

/// The documents of each table as the log leaves them.
async fn stream(options: &Options, db: &str, from: DumpFrom, tables: &[Table]) -> Vec<Documents> {
    let by_name: HashMap<&str, usize> =
        tables.iter().enumerate().map(|(at, table)| (table.id.name.as_str(), at)).collect();
    let mut documents = vec![Documents::new(); tables.len()];
    let mut current: Option<(usize, TableMap, rows::Plan)> = None;
    let mut log = dump(options, from, Duration::from_secs(20)).await;
    read_log(&mut log, |event| {
        match &event.body {
            Body::Query(query) => {
                return query.db == db.as_bytes()
                    && query.statement.starts_with(b"CREATE TABLE fin");
            }
            Body::TableMap(event) => {
                let at = by_name.get(event.table).filter(|_| event.db == db);
                current = at.map(|at| {
                    let (map, table) = (TableMap::parse(event).expect("well formed"), &tables[*at]);
                    let plan = rows::Plan::new(&table.def, table.plan.wanted(), &map);
                    (*at, map, plan.unwrap_or_else(|error| panic!("{}", error.report())))
                });
            }
            Body::Rows(event) => {
                let Some((at, _, plan)) = &current else { return false };
                let mut reader = rows::Reader::new(event, plan).expect("well formed");
                let mut change = Change::reusable(ChangeKind::Insert);
                while reader.next(&mut change).unwrap_or_else(|error| panic!("{}", error.report()))
                {
                    apply(&tables[*at], &change, &mut documents[*at]);
                }
            }
            _ => (),
        }
        false
    })
    .await;
    documents
}

fn apply(table: &Table, change: &Change<'_>, documents: &mut Documents) {
    if change.kind != ChangeKind::Insert {
        let (id, document) = document(table, &change.before.values);
        let known = documents.remove(&id);
        assert!(
            known.as_ref() == Some(&document),
            "{} {id}: before the change {}",
            table.id,
            shown(&document)
        );
    }
    if change.kind != ChangeKind::Delete {
        let (id, document) = document(table, &change.after.values);
        let known = documents.insert(id, document);
        assert!(known.is_none(), "two rows have one _id");
    }
}

fn document(table: &Table, values: &[Value<'_>]) -> (String, Vec<u8>) {
    let (mut id, mut body) = (String::new(), Vec::new());
    let written = table.plan.id(values, &mut id).and_then(|()| table.plan.body(values, &mut body));
    written.unwrap_or_else(|error| panic!("{}", error.report()));
    (id, body)
}

/// The documents of a table as a snapshot reads it, in several chunks.
async fn snapshot(reader: &mut mysql_async::Conn, table: &Table) -> Documents {
    let said = |error: driftless::error::Error| -> ! { panic!("{}", error.report()) };
    let mut documents = Documents::new();
    let until = scan::last_key(reader, &table.def).await.unwrap_or_else(|error| said(error));
    let until = until.expect("the table has rows");
    let types: Vec<_> = table.plan.wanted().iter().map(|at| &table.def.columns[*at].ty).collect();
    let mut after = None;
    loop {
        let chunk = scan::read_chunk(
            reader,
            &table.def,
            table.plan.wanted(),
            after.as_deref(),
            &until,
            (CHUNK_ROWS, 64 << 20),
        )
        .await
        .unwrap_or_else(|error| said(error));
        for row in 0..chunk.len() {
            let (id, body) = chunk
                .with_row(row, &types, |values| Ok(document(table, values)))
                .unwrap_or_else(|error| said(error));
            assert!(documents.insert(id, body).is_none(), "{}: a row came twice", table.id);
        }
        if chunk.is_last {
            return documents;
        }
        after = chunk.last_key;
    }
}

/// Asks the server for each value, and compares it with the one in the document.
async fn ask(
    session: &mut driftless::mysql::Connection,
    table: &Table,
    documents: &Documents,
    counts: &mut BTreeMap<String, u64>,
) {
    let asked: Vec<String> = (0..table.columns.len())
        .map(|at| table.columns[at].select.replace("{}", &format!("c{at}")))
        .collect();
    let sql = format!("SELECT id, {} FROM {}", asked.join(", "), table.id.name);
    let answer = run(session, &sql).await;
    assert_eq!(answer.len(), documents.len(), "{}", table.id);
    let mut by_row: HashMap<String, BTreeMap<String, Box<RawValue>>> = HashMap::new();
    for document in documents.values() {
        let fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(document).expect("a document is JSON");
        by_row.insert(fields["id"].get().to_owned(), fields);
    }
    for mut row in answer {
        let values = row.split_off(1);
        let id = String::from_utf8(row.swap_remove(0).expect("a key")).expect("digits");
        let fields = &by_row[&id];
        for (at, (column, value)) in table.columns.iter().zip(values).enumerate() {
            let ours = fields[&format!("c{at}")].get();
            let Some(value) = value else {
                assert_eq!(ours, "null", "{} row {id}: {}", table.id, column.declared);
                continue;
            };
            let value = String::from_utf8(value).expect("the server answers in UTF-8");
            assert!(
                (column.agrees)(ours, &value),
                "{} row {id}: {} is {ours}, the server says {value}",
                table.id,
                column.declared
            );
            *counts.entry(column.kind.clone()).or_default() += 1;
            let name = column.declared.split([' ', '(']).next().unwrap_or_default();
            if name != column.kind && !column.kind.starts_with(name) {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
}
