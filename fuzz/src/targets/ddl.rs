//! Statements of the log: which tables they touch, and what an ALTER makes of a definition, which must stay one.

use driftless::source::ddl::apply::{Defaults, apply, can_change, renames};
use driftless::source::ddl::fate::{Named, fate};
use driftless::source::ddl::{self, Kind};
use driftless::source::xid::Xid;
use driftless::table::{Column, ColumnType, TableDef, TableId};

const DB: &str = "d";

pub fn read(input: &[u8]) {
    let statement = String::from_utf8_lossy(input);
    let def = definition();
    let read = ddl::read(&statement, DB);
    let _ = read.names(&def.id);
    for ignores_case in [false, true] {
        let found = fate(&statement, DB, &Named { table: def.id.clone(), ignores_case });
        let is_ddl = matches!(read.kind, Kind::Ddl { .. });
        assert!(is_ddl || found == ddl::fate::Fate::Nothing, "{found:?} of {:?}", read.kind);
    }
    let _ = renames(&statement, DB, &def.id);
    let _ = Xid::of_statement(&statement);
    for (charset, is_mariadb) in [(None, false), (Some("latin1"), true)] {
        let defaults = Defaults { charset, is_mariadb };
        if let Some(altered) = apply(&statement, DB, &def, defaults) {
            assert_altered(&def, &altered);
        }
    }
}

fn assert_altered(before: &TableDef, altered: &ddl::apply::Altered) {
    let columns = altered.def.columns.len();
    assert_eq!(altered.origins.len(), columns);
    for (at, origin) in altered.origins.iter().enumerate() {
        let Some(origin) = origin else { continue };
        let _ = can_change(&before.columns[*origin], &altered.def.columns[at]);
    }
    let keys = altered.def.unique_keys.iter().flatten().chain(&altered.def.primary_key);
    let places = keys.chain(&altered.revalued).chain(&altered.filled);
    for place in places {
        assert!(*place < columns, "column {place} of {columns}");
    }
}

fn definition() -> TableDef {
    let column = |name: &str, ty, declared: &str| Column {
        name: name.into(),
        ty,
        nullable: name != "id",
        declared: declared.into(),
    };
    let labels = vec!["x".into(), "y".into()];
    TableDef {
        id: TableId::new(DB, "t"),
        columns: vec![
            column("id", ColumnType::Int { unsigned: true }, "int unsigned"),
            column("a", ColumnType::Text, "varchar(20)"),
            column("b", ColumnType::Enum { labels }, "enum('x','y')"),
            column("c", ColumnType::Decimal { precision: 10, scale: 2 }, "decimal(10,2)"),
            column("d", ColumnType::DateTime { fsp: 3 }, "datetime(3)"),
        ],
        primary_key: vec![0],
        unique_keys: vec![vec![0], vec![1, 2]],
    }
}
