//! One row's change as plain data: values borrow from the bytes they were read from. Knows nothing of where a change
//! came from or goes to.

/// One value, as the log or a SELECT of the binary protocol gives it. Where the two carry a type differently there is a
/// variant for each; `mapping::json` writes both as the same bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    /// The image leaves the column out, or has only differences of its value: it must be read from the table.
    LeftOut,
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    /// DECIMAL as the log packs it.
    PackedDecimal {
        bytes: &'a [u8],
        precision: u8,
        scale: u8,
    },
    /// DECIMAL as its digits, `-12.50`, with exactly `scale` digits behind the point.
    DecimalText(&'a [u8]),
    Date {
        year: u16,
        month: u8,
        day: u8,
    },
    Time {
        negative: bool,
        hours: u16,
        minutes: u8,
        seconds: u8,
        micros: u32,
        fsp: u8,
    },
    DateTime {
        year: u16,
        month: u8,
        day: u8,
        hours: u8,
        minutes: u8,
        seconds: u8,
        micros: u32,
        fsp: u8,
    },
    /// A moment: seconds since 1970 in UTC. 0 is MySQL's zero timestamp.
    Timestamp {
        seconds: u32,
        micros: u32,
        fsp: u8,
    },
    Year(u16),
    /// UTF-8, not yet checked.
    Text(&'a [u8]),
    /// Text in its column's own character set.
    Encoded(&'a [u8]),
    /// BINARY(`length`): the log cuts trailing zero bytes, the form has them all.
    Binary {
        bytes: &'a [u8],
        length: u16,
    },
    Bytes(&'a [u8]),
    /// ENUM by number: 1 is the first label, 0 the error value ''.
    Enum(u16),
    /// SET as the log has it: bit 0 is the first label.
    Set(u64),
    /// ENUM as a SELECT gives it.
    Label(&'a [u8]),
    /// SET as a SELECT gives it: labels joined by commas.
    Labels(&'a [u8]),
    /// JSON in the server's binary form.
    JsonBinary(&'a [u8]),
    /// JSON in the server's text form.
    JsonText(&'a [u8]),
    /// Text or bytes of a column that MariaDB stores compressed.
    Packed(&'a [u8]),
    /// A shape: its SRID in four bytes, then WKB.
    Geometry(&'a [u8]),
    /// Numbers of 32 bits each, little-endian.
    Vector(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Insert,
    Update,
    Delete,
}

/// One image of a row: the wanted columns' values in the order in which they were wanted.
#[derive(Debug, Default)]
pub struct Row<'a> {
    pub values: Vec<Value<'a>>,
    /// Where the image begins, in bytes from the start of its event.
    pub offset: u32,
}

/// One row's change. `before` means something for updates and deletes, `after` for inserts and updates.
#[derive(Debug)]
pub struct Change<'a> {
    pub kind: ChangeKind,
    pub before: Row<'a>,
    pub after: Row<'a>,
}

impl Change<'_> {
    /// An empty change whose buffers a reader fills again and again.
    pub fn reusable(kind: ChangeKind) -> Self {
        Self { kind, before: Row::default(), after: Row::default() }
    }
}
