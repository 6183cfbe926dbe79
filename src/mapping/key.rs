//! The text of a key column inside an `_id`. Equal keys have equal texts and different keys different ones; a text is
//! written as it is, without JSON's escapes. Knows nothing of how parts are joined.

use super::charset;
use super::escape::check_utf8;
use super::json::{moment, write};
use crate::change::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::table::{Column, ColumnType};

/// Why a column cannot be part of an `_id`, if it cannot.
pub(super) fn refusal(column: &Column) -> Option<&'static str> {
    match &column.ty {
        ColumnType::Enum { .. } => {
            Some("the log names its values by number, and numbers move when labels change")
        }
        ColumnType::Set { .. } => {
            Some("the log names its values by bits, and bits move when labels change")
        }
        ColumnType::Json | ColumnType::JsonText => {
            Some("equal JSON values can be written in several ways")
        }
        ColumnType::Geometry => Some("equal shapes can be written in several ways"),
        ColumnType::Vector => Some("its values are longer than an _id may be"),
        ColumnType::Float | ColumnType::Double => Some("its values are not exact"),
        ColumnType::Bytes if column.declared.to_lowercase().contains("blob") => {
            Some("its values are longer than an _id may be")
        }
        _ => None,
    }
}

/// Writes the text of one key column behind what `out` holds; `escaped` puts `\` before `\` and `|`.
pub(super) fn write_part(
    value: &Value<'_>,
    ty: &ColumnType,
    escaped: bool,
    spare: &mut Vec<u8>,
    out: &mut String,
) -> Result<()> {
    match *value {
        Value::Null => return Err(Error::new(ErrorKind::Schema, "it is NULL")),
        Value::LeftOut => {
            return Err(Error::new(ErrorKind::Unsupported, "the row's image in the log leaves it out")
                .with_advice("SET PERSIST binlog_row_image = FULL and start the sessions that write anew; then drop the link and create it again"));
        }
        Value::Int(number) => out.push_str(itoa::Buffer::new().format(number)),
        Value::UInt(number) => out.push_str(itoa::Buffer::new().format(number)),
        Value::Text(text) if escaped => push_escaped(check_utf8(text)?, out),
        Value::Text(text) => out.push_str(check_utf8(text)?),
        Value::Encoded(text) => {
            let ColumnType::TextIn { charset } = ty else {
                return Err(Error::new(ErrorKind::Schema, "its text is in no character set"));
            };
            spare.clear();
            charset::write_key(text, *charset, spare)?;
            let text = check_utf8(spare)?;
            if escaped { push_escaped(text, out) } else { out.push_str(text) }
        }
        _ => match moment(value, ty)? {
            // Zero and partial dates too: as keys they are different rows, though they are null in the document.
            Some((moment, _)) => out.push_str(moment.as_str()),
            None => {
                spare.clear();
                write(value, ty, spare)?;
                out.push_str(check_utf8(spare)?.trim_matches('"'));
            }
        },
    }
    Ok(())
}

/// The text of one key column by itself.
pub fn key_text(value: &Value<'_>, ty: &ColumnType) -> Result<String> {
    let mut text = String::new();
    write_part(value, ty, false, &mut Vec::new(), &mut text)?;
    Ok(text)
}

/// The texts that `_id` was joined of; `None` where it cannot have been joined of so many.
pub(super) fn split(id: &str, count: usize) -> Option<Vec<String>> {
    if count < 2 {
        return Some(vec![id.to_owned()]);
    }
    let mut parts = vec![String::new()];
    let mut chars = id.chars();
    while let Some(c) = chars.next() {
        let last = parts.last_mut()?;
        match c {
            '|' => parts.push(String::new()),
            '\\' => last.push(chars.next().filter(|c| matches!(c, '\\' | '|'))?),
            c => last.push(c),
        }
    }
    (parts.len() == count).then_some(parts)
}

fn push_escaped(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\\', b'|', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        out.push('\\');
        out.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}
