//! Table definitions by link and table, each with the GTID set at which it was read. Must not know how a definition
//! is proven for a position.

use serde::{Deserialize, Serialize};

use super::{Durability, Family, State, joined_key};
use crate::error::{Error, ErrorKind, Result};
use crate::position::GtidSet;
use crate::table::{Charset, Column, ColumnType, TableDef, TableId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRecord {
    pub definition: TableDef,
    /// What the server had executed when the definition was read (rule 8).
    pub read_at: GtidSet,
}

/// The definitions of all links; every write is synced.
pub struct Schemas<'s> {
    pub(super) state: &'s State,
}

impl Schemas<'_> {
    /// Writes the definition under its own table's name.
    pub fn put(&self, link: &str, record: &SchemaRecord) -> Result<()> {
        let key = key(link, &record.definition.id);
        self.state.put(Family::Schemas, &key, &Stored::from(record), Durability::Synced)
    }

    pub fn get(&self, link: &str, table: &TableId) -> Result<Option<SchemaRecord>> {
        let stored: Option<Stored> = self.state.get(Family::Schemas, &key(link, table))?;
        stored.map(|stored| stored.into_record(table)).transpose()
    }

    pub fn delete(&self, link: &str, table: &TableId) -> Result<()> {
        self.state.delete(Family::Schemas, &key(link, table), Durability::Synced)
    }
}

fn key(link: &str, table: &TableId) -> Vec<u8> {
    joined_key(link, &[&table.db, &table.name])
}

#[derive(Serialize, Deserialize)]
struct Stored {
    columns: Vec<StoredColumn>,
    primary_key: Vec<usize>,
    unique_keys: Vec<Vec<usize>>,
    read_at: String,
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
    Float, Double, Date, Year, Text, Bytes, Json, Geometry, Vector;
    TinyInt { unsigned }, SmallInt { unsigned }, MediumInt { unsigned }, Int { unsigned },
    BigInt { unsigned }, Decimal { precision, scale }, Time { fsp }, DateTime { fsp },
    Timestamp { fsp }, Bit { length }, Binary { length }, Enum { labels }, Set { labels }, Unsupported { reason }
}

impl From<&SchemaRecord> for Stored {
    fn from(record: &SchemaRecord) -> Self {
        let definition = &record.definition;
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
            read_at: record.read_at.to_string(),
        }
    }
}

impl Stored {
    fn into_record(self, table: &TableId) -> Result<SchemaRecord> {
        let unreadable = || {
            Error::new(ErrorKind::State, format!("cannot read the stored definition of {table}"))
                .with_advice("the state directory is damaged: restore it, or make the link anew")
        };
        let read_at = self.read_at.parse().map_err(|cause: Error| unreadable().caused_by(cause))?;
        let count = self.columns.len();
        let mut ordinals = self.primary_key.iter().chain(self.unique_keys.iter().flatten());
        if ordinals.any(|&ordinal| ordinal >= count) {
            return Err(unreadable());
        }
        let column = |column: StoredColumn| Column {
            name: column.name,
            ty: column.ty.into(),
            nullable: column.nullable,
            declared: column.declared,
        };
        let definition = TableDef {
            id: table.clone(),
            columns: self.columns.into_iter().map(column).collect(),
            primary_key: self.primary_key,
            unique_keys: self.unique_keys,
        };
        Ok(SchemaRecord { definition, read_at })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;

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
        let read_at = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().expect("a set");
        let record = SchemaRecord { definition, read_at };

        let dir = tempfile::tempdir().expect("a directory");
        let state = open(dir.path());
        state.schemas().put("1", &record).expect("writes");
        let id = &record.definition.id;
        assert_eq!(state.schemas().get("1", id).expect("reads").as_ref(), Some(&record));
        assert_eq!(state.schemas().get("2", id).expect("reads"), None);
        state.schemas().delete("1", id).expect("deletes");
        assert_eq!(state.schemas().get("1", id).expect("reads"), None);
    }
}
