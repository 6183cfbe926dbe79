//! Random tables of all types: a row's document is the same bytes whether its values came by the log or by a SELECT, and
//! each value is what the server itself says of it when asked over the text protocol.

mod kinds;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use driftless::change::{Change, ChangeKind, Value};
use driftless::error::Span;
use driftless::mapping::{self, Plan};
use driftless::mysql::DumpFrom;
use driftless::source::binlog::{Body, TableMap, gtid_set, rows};
use driftless::source::snapshot::scan;
use driftless::source::{self, control, schema};
use driftless::table::{TableDef, TableId};
use kinds::{Alphabet, Drawn};
use serde_json::value::RawValue;

use crate::decoder::Random;
use crate::replication::{dump, executed, read_log, root, run};
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
    all_seeds(Flavour::Mysql97, "DRIFTLESS_TEST_MYSQL_97").await;
}

#[tokio::test]
async fn every_type_of_8_0_is_the_same_by_log_and_by_select_and_as_the_server_says() {
    all_seeds(Flavour::Mysql80, "DRIFTLESS_TEST_MYSQL_80").await;
}

async fn all_seeds(flavour: Flavour, variable: &str) {
    let server = servers::mysql(flavour);
    let alphabet = kinds::alphabet(&server).await;
    for line in include_str!("oracle/seeds.txt").lines() {
        let Some(seed) = line.split_whitespace().next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        compare(flavour, &server, variable, &alphabet, seed).await;
    }
    let given = std::env::var("DRIFTLESS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let drawn = || {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970");
        now.as_nanos() as u64 | 1
    };
    let seed = given.unwrap_or_else(drawn);
    let counts = compare(flavour, &server, variable, &alphabet, seed).await;
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
    let has = |name: &str| name != "VECTOR" || flavour == Flavour::Mysql97;
    let names: Vec<_> = names.filter(|name| *name != "any" && has(name)).collect();
    assert!(names.len() > 40, "{names:?}");
    names
}

/// Makes the tables that `seed` means, and compares all three ways; how many values of each kind there were.
async fn compare(
    flavour: Flavour,
    server: &Mysql,
    variable: &str,
    alphabet: &Alphabet,
    seed: u64,
) -> BTreeMap<String, u64> {
    eprintln!("{}: DRIFTLESS_TEST_SEED={seed}", flavour.name());
    let started = Instant::now();
    let mut random = Random(seed);
    let options = root(variable);
    let db = server.database("oracle").await;
    let mut writer = crate::replication::database(&options, &db).await;
    let from = DumpFrom::GtidSet(gtid_set::encode(&executed(&mut writer).await));
    let config = source::Config {
        host: server.host().to_owned(),
        port: server.port(),
        user: "root".to_owned(),
        ..source::Config::default()
    };
    let mut reader = control::connect(&config).await.expect("connects");
    let mut tables = Vec::new();
    for _ in 0..ROUNDS {
        let mut deck = kinds::draw(&mut random, alphabet, flavour == Flavour::Mysql97);
        shuffle(&mut deck, &mut random);
        while !deck.is_empty() {
            let columns = deck.split_off(deck.len().saturating_sub(COLUMNS_PER_TABLE));
            let zone = random.below(24) as i64 - 11;
            run(&mut writer, &format!("SET time_zone = '{zone:+03}:30'")).await;
            let id = TableId::new(&db, format!("t{}", tables.len()));
            make(&mut writer, &id, &columns, &mut random).await;
            let def = schema::read_definition(&mut reader, &id).await;
            let def = def.unwrap_or_else(|error| panic!("{}", error.report())).expect("is there");
            let spec = mapping::Spec::of_table("index", &def, None, Span::default());
            let plan = mapping::compile(&spec, &def).unwrap_or_else(|errors| panic!("{errors:?}"));
            tables.push(Table { id, columns, def, plan });
        }
    }
    run(&mut writer, "CREATE TABLE finished (id INT)").await;
    let written = started.elapsed();
    let streamed = stream(variable, &db, from, &tables).await;
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
    let key = match random.below(4) {
        0 => "k VARCHAR(8) CHARACTER SET latin1 NOT NULL, PRIMARY KEY (k, id)",
        1 => "k CHAR(8) CHARACTER SET gbk NOT NULL, PRIMARY KEY (k, id)",
        2 => "k BIT(3) NOT NULL, PRIMARY KEY (k, id)",
        _ => "k BINARY(4) NOT NULL, PRIMARY KEY (id, k)",
    };
    run(
        writer,
        &format!("CREATE TABLE {} ({}, {key}) CHARACTER SET utf8mb4", id.name, declared.join(", ")),
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
    if key.contains("BIT") {
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
async fn stream(variable: &str, db: &str, from: DumpFrom, tables: &[Table]) -> Vec<Documents> {
    let by_name: HashMap<&str, usize> =
        tables.iter().enumerate().map(|(at, table)| (table.id.name.as_str(), at)).collect();
    let mut documents = vec![Documents::new(); tables.len()];
    let mut current: Option<(usize, TableMap, rows::Plan)> = None;
    let mut log = dump(&root(variable), from, Duration::from_secs(20)).await;
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
