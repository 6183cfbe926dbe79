//! Rows by a layout, to values, to documents: what is read in part must be what is read in whole, and what is written
//! must be JSON. Input: a byte for the forms, the kind of rows event, two bytes of length, a TABLE_MAP's data, the rows
//! event's data.

use driftless::change::{Change, ChangeKind, Value};
use driftless::document::{Action, DocOp};
use driftless::error::Span;
use driftless::mapping::{self, Forms, Scratch, Spec};
use driftless::position::Version;
use driftless::source::binlog::event::RowsEvent;
use driftless::source::binlog::rows::{Plan, Reader};
use driftless::source::binlog::{Body, FormatDescription, TableMap};
use driftless::source::from_table_map::definition;
use driftless::table::{Column, ColumnType, TableDef};

use super::log::event;

const TABLE_MAP: u8 = 19;
/// utf8mb4_general_ci, where the layout does not say.
const COLLATION: u64 = 45;
/// Rows of one event that are looked at.
const ROWS_MAX: usize = 256;

pub fn read(input: &[u8]) {
    let Some((&[forms, kind, low, high], rest)) = input.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes([low, high]));
    let Some((layout, rows)) = rest.split_at_checked(length) else { return };
    let format = FormatDescription::assumed();
    let layout = event(TABLE_MAP, layout);
    let Ok(Body::TableMap(announced)) = format.read_inner(&layout).map(|read| read.body) else {
        return;
    };
    let Ok(map) = TableMap::parse(&announced) else { return };
    let rows = event(kind, rows);
    let Ok(Body::Rows(rows)) = format.read_inner(&rows).map(|read| read.body) else { return };
    walk_in_forms(&map, &rows, forms);
}

pub fn walk(map: &TableMap, rows: &RowsEvent<'_>) {
    walk_in_forms(map, rows, 0);
}

fn walk_in_forms(map: &TableMap, rows: &RowsEvent<'_>, forms: u8) {
    let def = assert_agreement(map);
    let readable = |(at, column): (usize, &Column)| {
        (!matches!(column.ty, ColumnType::Unsupported { .. })).then_some(at)
    };
    let all: Vec<usize> = def.columns.iter().enumerate().filter_map(readable).collect();
    read_in_part(map, rows, &def, &all);
    write_documents(map, rows, &def, forms);
}

/// Reads all columns, and every second one: both must say the same.
fn read_in_part(map: &TableMap, rows: &RowsEvent<'_>, def: &TableDef, all: &[usize]) {
    let some: Vec<usize> = all.iter().copied().step_by(2).collect();
    let (all_plan, some_plan) = (plan(def, all, map), plan(def, &some, map));
    let (Ok(mut whole), Ok(mut part)) =
        (Reader::new(rows, &all_plan), Reader::new(rows, &some_plan))
    else {
        return;
    };
    let mut change = Change::reusable(ChangeKind::Insert);
    let mut partly = Change::reusable(ChangeKind::Insert);
    for _ in 0..ROWS_MAX {
        let Ok(true) = whole.next(&mut change) else { return };
        assert!(part.next(&mut partly).expect("less is wanted"), "a row is missing");
        let images = [(&change.before, &partly.before), (&change.after, &partly.after)];
        let has = match change.kind {
            ChangeKind::Insert => &images[1..],
            ChangeKind::Delete => &images[..1],
            ChangeKind::Update => &images[..],
        };
        for (image, in_part) in has {
            assert_eq!(image.offset, in_part.offset);
            assert_eq!(image.values.len(), all.len());
            assert!(!whole.is_whole() || !image.values.contains(&Value::LeftOut));
            for (value, again) in image.values.iter().step_by(2).zip(&in_part.values) {
                // As text, because of numbers that are none.
                assert_eq!(format!("{value:?}"), format!("{again:?}"));
            }
            for (value, at) in image.values.iter().zip(all) {
                write_value(value, &def.columns[*at].ty);
            }
        }
    }
}

fn write_value(value: &Value<'_>, ty: &ColumnType) {
    let mut out = Vec::new();
    if mapping::json::write(value, ty, &mut out).is_ok() {
        super::assert_json(&out);
    }
}

/// The documents of the rows, as a link makes them.
fn write_documents(map: &TableMap, rows: &RowsEvent<'_>, def: &TableDef, forms: u8) {
    let mut def = def.clone();
    def.columns.retain(|column| !matches!(column.ty, ColumnType::Unsupported { .. }));
    if def.columns.is_empty() || def.columns.len() != map.columns.len() {
        // Its ordinals are others now.
        return;
    }
    if def.primary_key.is_empty() {
        def.primary_key = vec![0];
    }
    for at in def.primary_key.clone() {
        def.columns[at].nullable = false;
    }
    def.unique_keys = vec![def.primary_key.clone()];
    let spec = Spec::of_table("index", &def, None, Span::new(0, 0));
    let Ok(mapping) = mapping::compile(&spec, &def) else { return };
    let mapping = mapping.in_forms(&chosen(forms));
    let plan = plan(&def, mapping.wanted(), map);
    let Ok(mut reader) = Reader::new(rows, &plan) else { return };
    let mut change = Change::reusable(ChangeKind::Insert);
    let mut scratch = Scratch::default();
    for _ in 0..ROWS_MAX {
        let Ok(true) = reader.next(&mut change) else { return };
        let mut operations = 0;
        let version = |offset: u32| Version(u64::from(offset));
        let applied = mapping.apply(&change, version, &mut scratch, &mut |operation| {
            operations += 1;
            assert_operation(&operation);
        });
        assert!(applied.is_ok() == (operations > 0), "{operations} operations");
    }
}

fn assert_operation(operation: &DocOp<'_>) {
    assert!((1..=512).contains(&operation.id.len()));
    match operation.action {
        Action::Upsert => {
            assert!(operation.body.starts_with(b"{"));
            super::assert_json(operation.body);
        }
        Action::Delete => assert!(operation.body.is_empty()),
    }
}

/// A bit for each option's other choice.
fn chosen(bits: u8) -> Forms {
    let options = [
        ("tinyint1", "bool"),
        ("bit1", "bool"),
        ("decimal", "string"),
        ("datetime_zone", "+08:00"),
        ("zero_date", "string"),
        ("json", "string"),
        ("binary", "hex"),
        ("spatial", "wkt"),
    ];
    let taken = options.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
    let words = taken.map(|(_, (name, word))| ((*name).to_owned(), (*word).to_owned())).collect();
    Forms::from_words(&words).expect("the words of the configuration")
}

/// The definition out of a layout, which must agree with it; what the layout does not say is filled in.
pub fn assert_agreement(map: &TableMap) -> TableDef {
    let mut filled = map.clone();
    for (at, column) in filled.columns.iter_mut().enumerate() {
        column.name.get_or_insert_with(|| format!("c{at}"));
        column.unsigned.get_or_insert(false);
        column.collation.get_or_insert(COLLATION);
        column.labels.get_or_insert_with(|| vec![b"a".to_vec(), b"b".to_vec()]);
    }
    let def = definition(&filled).expect("all is there");
    plan(&def, &[], map);
    if let Ok(announced) = definition(map) {
        plan(&announced, &[], map);
    }
    def
}

fn plan(def: &TableDef, wanted: &[usize], map: &TableMap) -> Plan {
    Plan::new(def, wanted, map).expect("a definition agrees with the layout that it is made of")
}
