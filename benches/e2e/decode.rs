//! `make bench-decode`: from the bytes of a log file to the bytes of bulks, on one core and with nothing else: our decoder
//! and mapping beside `mysql_common`, whose values are written as the same JSON. Both must give the same documents, to the
//! byte, or no figure is printed.

use std::fmt::Display;
use std::io::Write as _;

use driftless::change::{Change, ChangeKind};
use driftless::document::DocOp;
use driftless::position::Version;
use driftless::source::binlog::event::Body;
use driftless::source::binlog::{FormatDescription, TableMap, rows};
use driftless::table::{TableDef, TableId};
use driftless::{mapping, sink};
use mysql_common::binlog::BinlogFile;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::EventData;
use mysql_common::binlog::jsonb;
use mysql_common::binlog::row::BinlogRow;
use mysql_common::binlog::value::BinlogValue;
use mysql_common::value::Value;

use crate::null_sink::{Checksum, INDEX};
use crate::rows::{COLUMNS, Table};
use crate::source::Source;
use crate::{Runs, Size};

/// A file of the log begins with these.
const MAGIC: &[u8] = b"\xfebin";
/// What a bulk is full at.
const BULK_BYTES: usize = 5 << 20;

/// Takes the bytes of a bulk that is full.
type Full<'f> = &'f mut dyn FnMut(&mut Vec<u8>);

pub async fn run(size: &Size) {
    let source = Source::start();
    let mut table = Table::of(size.rows);
    eprintln!("loading {} rows", size.rows);
    let loaded = source.load(&table).await;
    let def = source.definition(&TableId::new("bench", "goods")).await;
    let loaded = (source.read(&loaded).await, table.checksum(), size.rows);
    eprintln!("making {} changes", size.changes);
    let changed = source.change(&mut table, size.changes).await;
    let changed = (source.read(&changed).await, size.changes);

    println!("| log | rows/s | MB/s | mysql_common, rows/s | ratio |\n|---|---|---|---|---|");
    let figures = measure(size, &def, &loaded.0, loaded.2, Some(loaded.1));
    print("rows, many in an event", &figures);
    let small = measure(size, &def, &changed.0, changed.1, None);
    print("changes, a few in an event", &small);
    println!(
        "{}",
        serde_json::json!({
            "rows_per_s": figures.rows_per_s.median().round(),
            "mb_per_s": figures.mb_per_s.median().round(),
            "ratio_to_mysql_common": (figures.ratio.median() * 100.0).round() / 100.0,
        })
    );
}

struct Figures {
    rows_per_s: Runs,
    mb_per_s: Runs,
    others_rows_per_s: Runs,
    ratio: Runs,
}

/// One after the other, run by run, so that what disturbs one disturbs both.
fn measure(
    size: &Size,
    def: &TableDef,
    log: &[u8],
    rows: u32,
    expected: Option<Checksum>,
) -> Figures {
    let ours = |full: Full<'_>| decode(def, log, full);
    let theirs = |full: Full<'_>| decode_with_mysql_common(log, full);
    let (found, others) = (documents(ours), documents(theirs));
    assert_eq!(found, others, "the two decoders give other documents");
    if let Some(expected) = expected {
        assert_eq!(found, expected, "rows were lost or changed");
    }
    let mut figures = Figures {
        rows_per_s: Runs::default(),
        mb_per_s: Runs::default(),
        others_rows_per_s: Runs::default(),
        ratio: Runs::default(),
    };
    for _ in 0..size.runs {
        let (ours, theirs) = (seconds(ours), seconds(theirs));
        figures.rows_per_s.0.push(f64::from(rows) / ours);
        figures.mb_per_s.0.push(log.len() as f64 / 1e6 / ours);
        figures.others_rows_per_s.0.push(f64::from(rows) / theirs);
        figures.ratio.0.push(theirs / ours);
    }
    figures
}

fn print(log: &str, figures: &Figures) {
    let one = |runs: &Runs| {
        let (low, high) = runs.range();
        format!("{:.0} ({low:.0} to {high:.0})", runs.median())
    };
    println!(
        "| {log} | {} | {} | {} | {:.2} |",
        one(&figures.rows_per_s),
        one(&figures.mb_per_s),
        one(&figures.others_rows_per_s),
        figures.ratio.median()
    );
}

/// Processor time of this thread, in seconds.
fn seconds(decode: impl Fn(Full<'_>)) -> f64 {
    let before = on_cpu_ns();
    decode(&mut |bulk| {
        std::hint::black_box(&bulk);
        bulk.clear();
    });
    (on_cpu_ns() - before) as f64 / 1e9
}

fn on_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("its first word is a number")
}

/// What all bulks say of documents, deletes among them.
fn documents(decode: impl Fn(Full<'_>)) -> Checksum {
    let mut checksum = Checksum::default();
    decode(&mut |bulk| {
        let mut lines = bulk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        while let Some(action) = lines.next() {
            let action: serde_json::Value = serde_json::from_slice(action).expect("it is JSON");
            let (verb, of) = action.as_object().and_then(|all| all.iter().next()).expect("a verb");
            let id = of["_id"].as_str().and_then(|id| id.parse().ok()).expect("ids are numbers");
            let body =
                if verb == "delete" { b"deleted" } else { lines.next().expect("a document") };
            checksum.add(id, body);
        }
        bulk.clear();
    });
    checksum
}

fn decode(def: &TableDef, log: &[u8], full: Full<'_>) {
    let spec = mapping::Spec::of_table(INDEX, def, None, Default::default());
    let plan = must(mapping::compile(&spec, def).map_err(|errors| format!("{errors:?}")));
    let (mut format, mut rest) = (FormatDescription::assumed(), &log[MAGIC.len()..]);
    let (mut tables, mut out) = (Vec::<(u64, TableMap, rows::Plan)>::new(), Vec::new());
    let (mut scratch, mut n) = (mapping::Scratch::default(), 0);
    while let Some(length) = rest.get(9..13) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        let (event, behind) = rest.split_at(length as usize);
        rest = behind;
        let event = must(format.read(event));
        match event.body {
            Body::FormatDescription(found) => format = *found,
            Body::TableMap(map) => {
                let is_same = |(_, known, _): &(u64, TableMap, rows::Plan)| known.is_same(&map);
                if map.table == def.id.name && !tables.iter().any(is_same) {
                    let parsed = must(TableMap::parse(&map));
                    let walked = must(rows::Plan::new(def, plan.wanted(), &parsed));
                    tables.clear();
                    tables.push((map.table_id, parsed, walked));
                }
            }
            Body::Rows(found) => {
                let Some((.., walked)) = tables.iter().find(|(id, ..)| *id == found.table_id)
                else {
                    continue;
                };
                let mut reader = must(rows::Reader::new(&found, walked));
                let mut change = Change::reusable(ChangeKind::Insert);
                while must(reader.next(&mut change)) {
                    let version = |offset| Version(2 * (n + u64::from(offset)));
                    let mut put = |op: DocOp<'_>| sink::write_operation(&op, &mut out);
                    must(plan.apply(&change, version, &mut scratch, &mut put));
                    if out.len() >= BULK_BYTES {
                        full(&mut out);
                    }
                }
            }
            _ => {}
        }
        n += event.bytes.len() as u64;
    }
    full(&mut out);
}

fn decode_with_mysql_common(log: &[u8], full: Full<'_>) {
    let mut file = must(BinlogFile::new(BinlogVersion::Version4, log));
    let mut out = Vec::new();
    while let Some(event) = file.next() {
        let event = must(event);
        let Some(EventData::RowsEvent(data)) = must(event.read_data()) else { continue };
        let Some(map) = file.reader().get_tme(data.table_id()) else { continue };
        let version = u64::from(event.header().log_pos());
        for row in data.rows(map) {
            let (before, after) = must(row);
            match after {
                Some(row) => write_row(row, version, &mut out),
                None => write_delete(before, version, &mut out),
            }
            if out.len() >= BULK_BYTES {
                full(&mut out);
            }
        }
    }
    full(&mut out);
}

fn write_row(row: BinlogRow, version: u64, out: &mut Vec<u8>) {
    let values = row.unwrap();
    write_action("index", &values[0], version, out);
    for (at, (name, value)) in COLUMNS.iter().zip(&values).enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        write_value(*name == "price", value, out);
    }
    out.extend_from_slice(b"}\n");
}

fn write_delete(row: Option<BinlogRow>, version: u64, out: &mut Vec<u8>) {
    let values = row.expect("a delete has a row").unwrap();
    write_action("delete", &values[0], version, out);
}

fn write_action(verb: &str, id: &BinlogValue<'_>, version: u64, out: &mut Vec<u8>) {
    must(write!(out, "{{\"{verb}\":{{\"_id\":\""));
    write_value(false, id, out);
    must(writeln!(out, "\",\"version\":{version},\"version_type\":\"external_gte\"}}}}"));
}

fn write_value(is_number: bool, value: &BinlogValue<'_>, out: &mut Vec<u8>) {
    match value {
        BinlogValue::Value(Value::Int(number)) => must(write!(out, "{number}")),
        BinlogValue::Value(Value::Bytes(text)) if is_number => out.extend_from_slice(text),
        BinlogValue::Value(Value::Bytes(text)) => {
            must(serde_json::to_writer(out, must(std::str::from_utf8(text))));
        }
        BinlogValue::Value(Value::Date(year, month, day, hours, minutes, seconds, micros)) => {
            must(write!(
                out,
                "\"{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{micros:06}\""
            ));
        }
        BinlogValue::Jsonb(value) => write_json(value, out),
        other => panic!("the table has no {other:?}"),
    }
}

/// In the order in which the server stores it, as the other side does.
fn write_json(value: &jsonb::Value<'_>, out: &mut Vec<u8>) {
    match value {
        jsonb::Value::I16(number) => must(write!(out, "{number}")),
        jsonb::Value::String(text) => {
            must(serde_json::to_writer(out, must(std::str::from_utf8(text.str_raw()))));
        }
        jsonb::Value::SmallObject(object) => {
            for (at, entry) in object.iter().enumerate() {
                let (key, value) = must(entry);
                out.push(if at == 0 { b'{' } else { b',' });
                must(serde_json::to_writer(&mut *out, &key.value()));
                out.push(b':');
                write_json(&value, out);
            }
            out.push(b'}');
        }
        other => panic!("the table has no {other:?}"),
    }
}

fn must<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
