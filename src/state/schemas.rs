//! The history of a link's table: its definitions, each with the transaction behind which it holds. Must not know how a
//! definition is proven for a position.
//!
//! A record is found by the GTID of the statement that made it, which is the same on every replay, after a new epoch and
//! on another server that has the transaction. So a start takes the last record whose transaction its checkpoint holds,
//! and a statement that is met again finds what was known of it.

use serde::{Deserialize, Serialize};

use super::links::RuleRecord;
use super::{Durability, Family, State, joined_key};
use crate::error::{Error, ErrorKind, Result};
use crate::position::{Gtid, GtidSet};
use crate::table::{Charset, Column, ColumnType, TableDef, TableId};

/// What holds behind one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRecord {
    /// The table's definition; None where no table has the name.
    pub definition: Option<TableDef>,
    /// The transaction, alone in a set, behind which the record holds; empty for the link's beginning.
    pub behind: GtidSet,
    /// What the server had executed when the definition was read (rule 8).
    pub read_at: GtidSet,
    /// Rows are not decoded before the stream has covered this: nothing proves what they mean.
    pub skipped: Option<GtidSet>,
    /// Rules and keys of the link as they are from there on; None: as the link was made.
    pub rules: Option<(Vec<RuleRecord>, Vec<RuleRecord>)>,
    pub copy: Copy,
    /// For status and log: the statement, and what it meant for the link.
    pub reason: String,
}

/// Whether the table is copied again from where a record begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copy {
    #[default]
    No,
    /// Every row is there as a document, perhaps with old values.
    Rows,
    /// And documents may be there whose rows are not.
    RowsAndSweep,
}

/// The records of one table of one link, in the order of the log; never empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub records: Vec<SchemaRecord>,
}

impl History {
    pub fn beginning(record: SchemaRecord) -> Self {
        Self { records: vec![record] }
    }

    /// The record that holds where `passed` was passed.
    pub fn at(&self, passed: &GtidSet) -> Option<&SchemaRecord> {
        self.records.iter().rev().find(|record| passed.covers(&record.behind))
    }

    /// The record that the transaction began.
    pub fn behind(&self, gtid: &Gtid) -> Option<&SchemaRecord> {
        self.records.iter().find(|record| record.behind.contains(gtid))
    }

    /// Takes what was found out of the log from `passed` on in the place of everything known beyond, and forgets what
    /// no checkpoint up to `checkpoint` needs.
    pub fn learn(&mut self, passed: &GtidSet, checkpoint: &GtidSet, found: Vec<SchemaRecord>) {
        self.records.retain(|record| passed.covers(&record.behind));
        self.records.extend(found);
        // Behind a table that went, the last definition tells whether the next one is like it.
        let needed = self
            .records
            .iter()
            .rposition(|record| checkpoint.covers(&record.behind) && record.definition.is_some());
        self.records.drain(..needed.unwrap_or(0));
    }
}

/// The histories of all links; every write is synced.
pub struct Schemas<'s> {
    pub(super) state: &'s State,
}

impl Schemas<'_> {
    pub fn put(&self, link: &str, table: &TableId, history: &History) -> Result<()> {
        let records = history.records.iter().map(StoredRecord::from).collect();
        let stored = Stored::History { records };
        self.state.put(Family::Schemas, &key(link, table), &stored, Durability::Synced)
    }

    pub fn get(&self, link: &str, table: &TableId) -> Result<Option<History>> {
        let stored: Option<Stored> = self.state.get(Family::Schemas, &key(link, table))?;
        stored.map(|stored| stored.into_history(table)).transpose()
    }

    pub fn delete(&self, link: &str, table: &TableId) -> Result<()> {
        self.state.delete(Family::Schemas, &key(link, table), Durability::Synced)
    }
}

fn key(link: &str, table: &TableId) -> Vec<u8> {
    joined_key(link, &[&table.db, &table.name])
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    History {
        records: Vec<StoredRecord>,
    },
    /// Record version 1: one definition, which held from the link's beginning on.
    Single {
        #[serde(flatten)]
        definition: StoredDefinition,
        read_at: String,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredRecord {
    definition: Option<StoredDefinition>,
    behind: String,
    read_at: String,
    skipped: Option<String>,
    rules: Option<(Vec<RuleRecord>, Vec<RuleRecord>)>,
    copy: Copy,
    reason: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredDefinition {
    columns: Vec<StoredColumn>,
    primary_key: Vec<usize>,
    unique_keys: Vec<Vec<usize>>,
}

#[derive(Serialize, Deserialize)]
struct StoredColumn {
    name: String,
    #[serde(rename = "type")]
    ty: StoredType,
    nullable: bool,
    declared: String,
}

/// The same as [`ColumnType`]: words do not know how they are stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredType {
    TinyInt { unsigned: bool },
    SmallInt { unsigned: bool },
    MediumInt { unsigned: bool },
    Int { unsigned: bool },
    BigInt { unsigned: bool },
    Float,
    Double,
    Decimal { precision: u8, scale: u8 },
    Date,
    Time { fsp: u8 },
    DateTime { fsp: u8 },
    Timestamp { fsp: u8 },
    Year,
    Text,
    Binary { length: u16 },
    Bytes,
    Enum { labels: Vec<String> },
    Set { labels: Vec<String> },
    Json,
    JsonText,
    Uuid,
    Inet4,
    Inet6,
    RowEnd,
    Bit { length: u8 },
    TextIn { charset: StoredCharset },
    Geometry,
    Vector,
    Unsupported { reason: String },
}

/// By the source's own name. One that a later version knew is not misread as another: it is an error.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct StoredCharset(Charset);

impl From<StoredCharset> for String {
    fn from(stored: StoredCharset) -> Self {
        stored.0.name().to_owned()
    }
}

impl TryFrom<String> for StoredCharset {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let unknown = || format!("unknown character set {name}");
        Charset::from_name(&name).map(Self).ok_or_else(unknown)
    }
}

/// Both directions of the same list, so that neither can forget a type.
macro_rules! same_types {
    ($($unit:ident),* ; $($name:ident { $($field:ident),* }),*) => {
        impl From<&ColumnType> for StoredType {
            fn from(ty: &ColumnType) -> Self {
                match ty {
                    $(ColumnType::$unit => Self::$unit,)*
                    $(ColumnType::$name { $($field),* } => Self::$name { $($field: $field.clone()),* },)*
                    ColumnType::TextIn { charset } => {
                        Self::TextIn { charset: StoredCharset(*charset) }
                    }
                }
            }
        }

        impl From<StoredType> for ColumnType {
            fn from(ty: StoredType) -> Self {
                match ty {
                    $(StoredType::$unit => Self::$unit,)*
                    $(StoredType::$name { $($field),* } => Self::$name { $($field),* },)*
                    StoredType::TextIn { charset } => Self::TextIn { charset: charset.0 },
                }
            }
        }
    };
}

same_types! {
    Float, Double, Date, Year, Text, Bytes, Json, JsonText, Uuid, Inet4, Inet6, RowEnd, Geometry, Vector;
    TinyInt { unsigned }, SmallInt { unsigned }, MediumInt { unsigned }, Int { unsigned },
    BigInt { unsigned }, Decimal { precision, scale }, Time { fsp }, DateTime { fsp },
    Timestamp { fsp }, Bit { length }, Binary { length }, Enum { labels }, Set { labels }, Unsupported { reason }
}

impl From<&SchemaRecord> for StoredRecord {
    fn from(record: &SchemaRecord) -> Self {
        Self {
            definition: record.definition.as_ref().map(StoredDefinition::from),
            behind: record.behind.stored(),
            read_at: record.read_at.stored(),
            skipped: record.skipped.as_ref().map(GtidSet::stored),
            rules: record.rules.clone(),
            copy: record.copy.clone(),
            reason: record.reason.clone(),
        }
    }
}

impl From<&TableDef> for StoredDefinition {
    fn from(definition: &TableDef) -> Self {
        let stored_column = |column: &Column| StoredColumn {
            name: column.name.clone(),
            ty: (&column.ty).into(),
            nullable: column.nullable,
            declared: column.declared.clone(),
        };
        Self {
            columns: definition.columns.iter().map(stored_column).collect(),
            primary_key: definition.primary_key.clone(),
            unique_keys: definition.unique_keys.clone(),
        }
    }
}

impl Stored {
    fn into_history(self, table: &TableId) -> Result<History> {
        let records = match self {
            Self::History { records } => records,
            Self::Single { definition, read_at } => vec![StoredRecord {
                definition: Some(definition),
                behind: String::new(),
                read_at,
                skipped: None,
                rules: None,
                copy: Copy::No,
                reason: String::new(),
            }],
        };
        let records: Vec<_> =
            records.into_iter().map(|record| record.into_record(table)).collect::<Result<_>>()?;
        if records.is_empty() {
            return Err(unreadable(table));
        }
        Ok(History { records })
    }
}

fn unreadable(table: &TableId) -> Error {
    Error::new(ErrorKind::State, format!("cannot read the stored definition of {table}"))
        .with_advice("the state directory is damaged: restore it, or make the link anew")
}

impl StoredRecord {
    fn into_record(self, table: &TableId) -> Result<SchemaRecord> {
        let set = |text: &str| -> Result<GtidSet> {
            text.parse().map_err(|cause: Error| unreadable(table).caused_by(cause))
        };
        Ok(SchemaRecord {
            definition: self.definition.map(|found| found.into_definition(table)).transpose()?,
            behind: set(&self.behind)?,
            read_at: set(&self.read_at)?,
            skipped: self.skipped.as_deref().map(set).transpose()?,
            rules: self.rules,
            copy: self.copy,
            reason: self.reason,
        })
    }
}

impl StoredDefinition {
    pub(super) fn into_definition(self, table: &TableId) -> Result<TableDef> {
        let count = self.columns.len();
        let mut ordinals = self.primary_key.iter().chain(self.unique_keys.iter().flatten());
        if ordinals.any(|&ordinal| ordinal >= count) {
            return Err(unreadable(table));
        }
        let column = |column: StoredColumn| Column {
            name: column.name,
            ty: column.ty.into(),
            nullable: column.nullable,
            declared: column.declared,
        };
        Ok(TableDef {
            id: table.clone(),
            columns: self.columns.into_iter().map(column).collect(),
            primary_key: self.primary_key,
            unique_keys: self.unique_keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;

    /// Transactions of one server.
    fn set(numbers: &str) -> GtidSet {
        match numbers {
            "" => GtidSet::default(),
            numbers => {
                format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{numbers}").parse().expect("a set")
            }
        }
    }

    fn record(behind: &str, definition: Option<TableDef>) -> SchemaRecord {
        SchemaRecord {
            definition,
            behind: set(behind),
            read_at: set("1-5"),
            skipped: None,
            rules: None,
            copy: Copy::No,
            reason: String::new(),
        }
    }

    fn nothing() -> TableDef {
        let id = TableId::new("shop", "goods");
        TableDef { id, columns: vec![], primary_key: vec![], unique_keys: vec![] }
    }

    #[test]
    fn a_start_finds_the_record_of_its_checkpoint() {
        let mut history = History {
            records: ["", "5", "9"].map(|behind| record(behind, Some(nothing()))).into(),
        };
        let at = |history: &History, passed: &str| {
            history.at(&set(passed)).map(|record| record.behind.to_string())
        };
        assert_eq!(at(&history, "1-4"), Some(String::new()));
        assert_eq!(at(&history, "1-8"), Some(set("5").to_string()));
        assert_eq!(at(&history, "1-20"), Some(set("9").to_string()));
        // What was known beyond 8 is known better now, and nothing goes back before 6.
        history.learn(&set("1-8"), &set("1-6"), vec![record("10", None), record("12", None)]);
        let left: Vec<_> = history.records.iter().map(|r| r.behind.to_string()).collect();
        assert_eq!(left, ["5", "10", "12"].map(|n| set(n).to_string()));
    }

    #[test]
    fn a_record_of_version_1_is_a_history_of_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        let id = TableId::new("shop", "goods");
        let old = br#"{"v":1,"value":{"columns":[{"name":"id","type":{"int":{"unsigned":false}},"nullable":false,"declared":"int"}],"primary_key":[0],"unique_keys":[[0]],"read_at":""}}"#;
        state.inner.db.put_cf(state.family(Family::Schemas), key("1", &id), old).expect("writes");
        let history = state.schemas().get("1", &id).expect("reads").expect("is there");
        let [only] = history.records.as_slice() else { panic!("{history:?}") };
        assert!(only.behind.is_empty() && only.rules.is_none());
        assert_eq!(only.definition.as_ref().expect("a table").columns[0].name, "id");
    }

    #[test]
    fn a_definition_is_found_again_with_every_type() {
        let types = [
            ColumnType::TinyInt { unsigned: true },
            ColumnType::Decimal { precision: 65, scale: 30 },
            ColumnType::Float,
            ColumnType::Time { fsp: 6 },
            ColumnType::Binary { length: 255 },
            ColumnType::Enum { labels: vec!["a'b".into(), "中".into()] },
            ColumnType::Json,
            ColumnType::Bit { length: 64 },
            ColumnType::TextIn { charset: Charset::Gb18030 },
            ColumnType::Geometry,
            ColumnType::Vector,
            ColumnType::JsonText,
            ColumnType::Uuid,
            ColumnType::Inet4,
            ColumnType::Inet6,
            ColumnType::RowEnd,
            ColumnType::Unsupported { reason: "of another server".into() },
        ];
        let column = |(at, ty): (usize, ColumnType)| Column {
            name: format!("c{at}"),
            ty,
            nullable: at % 2 == 0,
            declared: "int".into(),
        };
        let definition = TableDef {
            id: TableId::new("shop", "goods"),
            columns: types.into_iter().enumerate().map(column).collect(),
            primary_key: vec![1, 0],
            unique_keys: vec![vec![1, 0], vec![2]],
        };
        let id = &definition.id.clone();
        let rule = RuleRecord { field: "f".into(), ..RuleRecord::default() };
        let history = History {
            records: vec![
                record("", Some(definition)),
                SchemaRecord {
                    skipped: Some(set("1-9")),
                    rules: Some((vec![rule], Vec::new())),
                    copy: Copy::RowsAndSweep,
                    ..record("7", None)
                },
            ],
        };

        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        state.schemas().put("1", id, &history).expect("writes");
        assert_eq!(state.schemas().get("1", id).expect("reads").as_ref(), Some(&history));
        assert_eq!(state.schemas().get("2", id).expect("reads"), None);
        state.schemas().delete("1", id).expect("deletes");
        assert_eq!(state.schemas().get("1", id).expect("reads"), None);
    }
}
