//! TABLE_MAP: a layout and the definition out of it must agree.

use driftless::source::binlog::{Body, FormatDescription, TableMap};

use super::rows;

const KIND: u8 = 19;

pub fn read(input: &[u8]) {
    let event = super::log::event(KIND, input);
    let Ok(read) = FormatDescription::assumed().read_inner(&event) else { return };
    let Body::TableMap(event) = read.body else { panic!("another kind: {:?}", read.body) };
    let Ok(map) = TableMap::parse(&event) else { return };
    assert!(map.is_same(&event));
    for part in &map.primary_key {
        assert!(part.ordinal < map.columns.len());
    }
    rows::assert_agreement(&map);
}
