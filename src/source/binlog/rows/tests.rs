//! Rows as bytes, built by hand: images of few columns, bits that mean nothing, bytes that end early.

use proptest::prelude::*;

use super::*;
use crate::source::binlog::{Body, FormatDescription};
use crate::table::{Column, ColumnType};

const WRITE: u8 = 30;
const UPDATE: u8 = 31;
const PARTIAL: u8 = 39;

fn event(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut event = vec![0; 4];
    event.push(kind);
    event.extend_from_slice(&[0; 4]);
    event.extend_from_slice(&(19 + data.len() as u32).to_le_bytes());
    event.extend_from_slice(&[0; 6]);
    event.extend_from_slice(data);
    event
}

/// Three columns: TINYINT, VARCHAR(20), SMALLINT UNSIGNED; with the names that the server gives, if it gives any.
fn layout(names: &[u8]) -> TableMap {
    let mut data = b"\x07\0\0\0\0\0\0\0\x02db\0\x01t\0\x03\x01\x0f\x02\x02\x50\0\x07".to_vec();
    data.extend_from_slice(&[1, 1, 0b0100_0000, 2, 3, 0xfc, 255, 0]);
    if !names.is_empty() {
        data.extend_from_slice(&[4, names.len() as u8]);
        data.extend_from_slice(names);
    }
    let bytes = event(19, &data);
    let read = FormatDescription::assumed().read_inner(&bytes).expect("well formed");
    let Body::TableMap(event) = read.body else { panic!("no layout") };
    let map = TableMap::parse(&event).expect("well formed");
    assert!(map.is_same(&event));
    map
}

fn definition() -> TableDef {
    let column =
        |name: &str, ty| Column { name: name.into(), ty, nullable: true, declared: name.into() };
    TableDef {
        id: TableId::new("db", "t"),
        columns: vec![
            column("a", ColumnType::TinyInt { unsigned: false }),
            column("b", ColumnType::Text),
            column("c", ColumnType::SmallInt { unsigned: true }),
        ],
        primary_key: vec![],
        unique_keys: vec![],
    }
}

fn plan(wanted: &[usize]) -> Plan {
    Plan::new(&definition(), wanted, &layout(b"")).expect("agrees")
}

/// What the reader makes of rows behind the head; the images of each row with their offsets.
fn read(kind: u8, rows: &[u8], plan: &Plan) -> Result<Vec<String>> {
    let mut data = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3];
    data.extend_from_slice(rows);
    let bytes = event(kind, &data);
    let event = FormatDescription::assumed().read_inner(&bytes)?;
    let Body::Rows(event) = event.body else { panic!("no rows") };
    assert!(event.ends_statement());
    let mut reader = Reader::new(&event, plan)?;
    let mut change = Change::reusable(ChangeKind::Delete);
    let mut seen = Vec::new();
    while reader.next(&mut change)? {
        let Change { kind, before, after } = &change;
        seen.push(match kind {
            ChangeKind::Insert => format!("{}: {:?}", after.offset, after.values),
            _ => format!(
                "{}: {:?} {}: {:?}",
                before.offset, before.values, after.offset, after.values
            ),
        });
    }
    Ok(seen)
}

#[test]
fn bits_behind_the_last_column_mean_nothing() {
    let rows = [0xff, 0xf8, 0xff, 1, b'x', 2, 1, 0xfa, 3, 0, 0];
    let seen = read(WRITE, &rows, &plan(&[2, 0])).expect("well formed");
    assert_eq!(seen, ["31: [UInt(258), Int(-1)]", "37: [UInt(0), Int(3)]"]);
}

#[test]
fn a_row_is_decoded_without_an_allocation() {
    let row = [0xf8, 0xff, 1, b'x', 2, 1];
    let mut data = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0xff];
    data.extend_from_slice(&row.repeat(3));
    let (bytes, plan) = (event(WRITE, &data), plan(&[2, 1, 0]));
    let event = FormatDescription::assumed().read_inner(&bytes).expect("well formed");
    let Body::Rows(event) = event.body else { panic!("no rows") };
    let mut reader = Reader::new(&event, &plan).expect("well formed");
    let mut change = Change::reusable(ChangeKind::Insert);
    // The buffer grows.
    assert!(reader.next(&mut change).expect("well formed"));
    let counted = allocation_counter::measure(|| {
        assert!(reader.next(&mut change).expect("well formed"));
        assert!(reader.next(&mut change).expect("well formed"));
    });
    assert_eq!(counted.count_total, 0);
    assert!(!reader.next(&mut change).expect("well formed"));
}

#[test]
fn images_of_few_columns_have_null_bits_for_those_alone() {
    // Before: the first and the last column. After: the last alone.
    let rows = [0b101, 0b100, 0b10, 5, 0, 9, 0];
    let seen = read(UPDATE, &rows, &plan(&[2])).expect("well formed");
    assert_eq!(seen, ["32: [Null] 34: [UInt(9)]"]);
    // What the after image leaves out is as it was before; what both leave out is not known.
    let seen = read(UPDATE, &rows, &plan(&[2, 0, 1])).expect("well formed");
    assert_eq!(seen, ["32: [Null, Int(5), LeftOut] 34: [UInt(9), Int(5), LeftOut]"]);
}

/// The last moment of 32 bits with a sign, and an earlier one.
const CURRENT: [u8; 7] = [0x7f, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f];
const ENDED: [u8; 7] = [0x6b, 0x01, 0xbf, 0x84, 0x01, 0x92, 0xce];

/// A table of a TINYINT and the end of its rows: what becomes of rows behind these bitmaps.
fn history(kind: u8, bitmaps: &[u8], images: &[&[u8]]) -> Vec<(ChangeKind, usize)> {
    let map = event(19, b"\x07\0\0\0\0\0\0\0\x02db\0\x01t\0\x02\x01\x11\x01\x06\0");
    let map = FormatDescription::assumed().read_inner(&map).expect("well formed").body;
    let Body::TableMap(map) = map else { panic!("no layout") };
    let map = TableMap::parse(&map).expect("well formed");
    let mut def = definition();
    def.columns.truncate(2);
    def.columns[1].ty = ColumnType::RowEnd;
    let plan = Plan::new(&def, &[0], &map).expect("agrees");
    let bytes = event(kind, &[&[7, 0, 0, 0, 0, 0, 1, 0, 2], bitmaps, &images.concat()].concat());
    let event = FormatDescription::assumed().read_inner(&bytes).expect("well formed");
    let Body::Rows(event) = event.body else { panic!("no rows") };
    let mut reader = Reader::new(&event, &plan).expect("well formed");
    let mut change = Change::reusable(ChangeKind::Insert);
    let mut seen = Vec::new();
    while reader.next(&mut change).expect("well formed") {
        let row = if change.kind == ChangeKind::Delete { &change.before } else { &change.after };
        let Some(Value::Int(id)) = row.values.first() else { panic!("no value") };
        seen.push((change.kind, *id as usize));
    }
    seen
}

#[test]
fn an_image_of_a_row_that_has_ended_is_as_if_there_was_none() {
    use ChangeKind as K;
    const WRITE: u8 = 23;
    const UPDATE: u8 = 24;
    const DELETE: u8 = 25;
    let image = |id: u8, end: &[u8]| [&[0, id][..], end].concat();
    let (current, ended) = (|id| image(id, &CURRENT), |id| image(id, &ENDED));
    let seen = history(WRITE, &[3], &[&ended(1), &current(2), &ended(3)]);
    assert_eq!(seen, [(K::Insert, 2)]);
    assert_eq!(history(DELETE, &[3], &[&ended(1), &current(2)]), [(K::Delete, 2)]);
    let pairs =
        [current(1), current(2), current(3), ended(3), ended(4), current(4), ended(5), ended(5)];
    let pairs: Vec<&[u8]> = pairs.iter().map(Vec::as_slice).collect();
    let seen = history(UPDATE, &[3, 3], &pairs);
    assert_eq!(seen, [(K::Update, 2), (K::Delete, 3), (K::Insert, 4)]);
    // The image behind leaves the end out: it is the one before.
    let seen = history(UPDATE, &[3, 1], &[&current(1), &[0, 2], &ended(3), &[0, 4]]);
    assert_eq!(seen, [(K::Update, 2)]);
}

#[test]
fn rows_that_end_early_are_errors_at_every_cut() {
    let whole = [7, 0, 1, 3, b'a', b'b', b'c', 2, 1];
    assert_eq!(read(WRITE, &whole, &plan(&[1])).expect("well formed").len(), 1);
    for end in (0..whole.len()).filter(|&end| end != 1) {
        assert!(read(WRITE, &whole[..end], &plan(&[1])).is_err(), "cut at {end}");
    }
}

#[test]
fn images_without_any_column_do_not_go_on_for_ever() {
    assert!(read(WRITE, &[0, 1, 2, 3], &plan(&[])).is_err());
}

#[test]
fn differences_of_json_are_left_out_and_stepped_over() {
    // TINYINT, JSON, JSON.
    let mut data = b"\x07\0\0\0\0\0\0\0\x02db\0\x01t\0\x03\x01\xf5\xf5\x02\x04\x04\x07".to_vec();
    data.extend_from_slice(&[1, 1, 0]);
    let bytes = event(19, &data);
    let read_map = FormatDescription::assumed().read_inner(&bytes).expect("well formed");
    let Body::TableMap(map) = read_map.body else { panic!("no layout") };
    let map = TableMap::parse(&map).expect("well formed");
    let mut def = definition();
    def.columns[1].ty = ColumnType::Json;
    def.columns[2].ty = ColumnType::Json;
    let plan = Plan::new(&def, &[0, 1, 2], &map).expect("agrees");
    let before = [0, 5, 1, 0, 0, 0, 4, 1, 0, 0, 0, 4];
    let whole_row = [0, 0, 6, 1, 0, 0, 0, 4, 1, 0, 0, 0, 4];
    // The second JSON column has differences.
    let partial_row = [1, 0b10, 0, 7, 1, 0, 0, 0, 4, 2, 0, 0, 0, 9, 9];
    let rows = [&[7, 7][..], &before, &whole_row, &before, &partial_row].concat();
    let seen = read(PARTIAL, &rows, &plan).expect("well formed");
    assert!(seen[0].ends_with("[Int(6), JsonBinary([4]), JsonBinary([4])]"), "{seen:?}");
    assert!(seen[1].ends_with("[Int(7), JsonBinary([4]), LeftOut]"), "{seen:?}");
    assert_eq!(seen.len(), 2);
}

#[test]
fn columns_that_changed_places_are_noticed_where_the_log_names_them() {
    Plan::new(&definition(), &[0], &layout(b"\x01a\x01B\x01c")).expect("agrees but for upper case");
    let error = Plan::new(&definition(), &[0], &layout(b"\x01a\x01c\x01b"))
        .expect_err("they changed places");
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert_eq!(error.to_string(), "column `b` of db.t is called `c` in the log");
}

#[test]
fn a_column_is_wanted_once_and_must_be_there() {
    assert!(Plan::new(&definition(), &[1, 1], &layout(b"")).is_err());
    assert!(Plan::new(&definition(), &[3], &layout(b"")).is_err());
}

proptest! {
    /// Whatever a layout and its rows are made of, there is an end and no panic.
    #[test]
    fn no_layout_and_no_rows_make_it_panic(
        columns in prop::collection::vec(any::<u8>(), 0..80),
        rows in prop::collection::vec(any::<u8>(), 0..120),
        kinds in prop::collection::vec(prop::sample::select(vec![1, 3, 9, 13, 15, 17, 18, 19, 245, 246, 252]), 0..9),
        well_formed in any::<bool>(),
        kind in 23_u8..40,
    ) {
        let mut data = vec![7, 0, 0, 0, 0, 0, 0, 0, 2, b'd', b'b', 0, 1, b't', 0];
        if well_formed {
            data.push(kinds.len() as u8);
            data.extend_from_slice(&kinds);
            data.push(columns.len() as u8);
        }
        data.extend_from_slice(&columns);
        data.extend_from_slice(&rows);
        let bytes = event(19, &data);
        let read = FormatDescription::assumed().read_inner(&bytes).expect("its head is well formed");
        let Body::TableMap(head) = read.body else { panic!("no layout") };
        let Ok(map) = TableMap::parse(&head) else { return Ok(()) };
        let def = TableDef {
            columns: map.columns.iter().map(|_| Column {
                name: "x".into(),
                ty: ColumnType::Unsupported { reason: String::new() },
                nullable: true,
                declared: String::new(),
            }).collect(),
            ..definition()
        };
        let Ok(plan) = Plan::new(&def, &[], &map) else { return Ok(()) };
        let mut data = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, map.columns.len() as u8];
        data.extend_from_slice(&rows);
        let bytes = event(kind, &data);
        let Ok(read) = FormatDescription::assumed().read_inner(&bytes) else { return Ok(()) };
        let Body::Rows(head) = read.body else { return Ok(()) };
        let Ok(mut reader) = Reader::new(&head, &plan) else { return Ok(()) };
        let mut change = Change::reusable(ChangeKind::Insert);
        while reader.next(&mut change).unwrap_or(false) {}
    }
}
