//! Tables as the source defines them: names, columns, types, keys. Knows nothing of rows or logs.

mod charset;
mod keys;

use std::fmt;

pub use charset::Charset;
pub use keys::{Action, Family, ForeignKey};

/// A table by schema and name, as the server spells them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    pub db: String,
    pub name: String,
}

impl TableId {
    pub fn new(db: impl Into<String>, name: impl Into<String>) -> Self {
        Self { db: db.into(), name: name.into() }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.name)
    }
}

/// A table's definition as of one moment of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDef {
    pub id: TableId,
    /// In the order of the row image; generated and invisible columns are there too.
    pub columns: Vec<Column>,
    /// Ordinals (into `columns`) of the primary key, in key order; empty where there is none.
    pub primary_key: Vec<usize>,
    /// Ordinals of every unique key without nullable columns and without prefix or expression parts, the primary one
    /// included.
    pub unique_keys: Vec<Vec<usize>>,
}

impl TableDef {
    pub fn ordinal(&self, column: &str) -> Option<usize> {
        // MySQL compares column names without regard to case.
        self.columns.iter().position(|c| c.name.to_lowercase() == column.to_lowercase())
    }

    /// `id, t1, t2`, for messages.
    pub fn column_names(&self) -> String {
        self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub ty: ColumnType,
    pub nullable: bool,
    /// The type as the server writes it (`mediumint unsigned`), for messages.
    pub declared: String,
}

/// What a value of the column means. `fsp` is the number of fractional digits, 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    TinyInt {
        unsigned: bool,
    },
    SmallInt {
        unsigned: bool,
    },
    MediumInt {
        unsigned: bool,
    },
    Int {
        unsigned: bool,
    },
    BigInt {
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date,
    Time {
        fsp: u8,
    },
    DateTime {
        fsp: u8,
    },
    Timestamp {
        fsp: u8,
    },
    /// A TIMESTAMP(6) of MariaDB: until when the row was what it says, which of rows that still are so is the last moment
    /// that there is. A table has one at most; all other rows of it are no rows to us.
    RowEnd,
    Year,
    /// BIT(`length`), 1 to 64.
    Bit {
        length: u8,
    },
    /// CHAR, VARCHAR and the TEXTs, in utf8mb4 or a character set that is a part of it.
    Text,
    /// The same in another character set.
    TextIn {
        charset: Charset,
    },
    /// BINARY(n): values are padded with zero bytes to `length`.
    Binary {
        length: u16,
    },
    /// VARBINARY and the BLOBs.
    Bytes,
    Enum {
        labels: Vec<String>,
    },
    Set {
        labels: Vec<String>,
    },
    Json,
    /// JSON as the text that it was written with: MariaDB's, a LONGTEXT whose rows are only checked when they are written.
    JsonText,
    /// UUID, INET4 and INET6 of MariaDB.
    Uuid,
    Inet4,
    Inet6,
    /// GEOMETRY and the types of single shapes.
    Geometry,
    /// Numbers of 32 bits.
    Vector,
    /// Any other; the reason is for the message that names the column.
    Unsupported {
        reason: String,
    },
}
