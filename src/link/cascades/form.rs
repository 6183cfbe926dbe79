//! The form of what a foreign key refers to. Values that the server holds for equal have one form; values of one form need
//! not be equal, which costs a row that is read in vain. Pure.

use crate::change::Value;
use crate::mapping;
use crate::state::KeyPart;
use crate::table::ColumnType;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::link) enum Form {
    /// A column is NULL, so nothing is referred to.
    Nothing,
    Of(String),
    /// Nothing is known of what the server holds for equal.
    Odd,
}

/// The form under which rows stand whose own form is odd.
pub(in crate::link) const ODD: &str = "?";

/// The form of these values. `is_plain` says that printable ASCII is compared without case and trailing spaces at most.
pub(in crate::link) fn form<'v>(
    values: impl Iterator<Item = (&'v Value<'v>, &'v ColumnType)>,
    is_plain: bool,
) -> Form {
    let (mut text, mut is_odd) = (String::from("="), false);
    for (value, ty) in values {
        match part(value, ty, is_plain) {
            _ if *value == Value::Null => return Form::Nothing,
            Some(part) => push(&part, &mut text),
            None => is_odd = true,
        }
    }
    if is_odd { Form::Odd } else { Form::Of(text) }
}

/// The form of a key that was read from such values.
pub(in crate::link) fn form_of_key(key: &[KeyPart], is_plain: bool) -> Form {
    let mut text = String::from("=");
    for one in key {
        let part = match one {
            KeyPart::Int(number) => Some(number.to_string()),
            KeyPart::UInt(number) => Some(number.to_string()),
            KeyPart::Bytes(bytes) => Some(hex(bytes)),
            KeyPart::Text(text) => folded(text.as_bytes(), is_plain),
        };
        match part {
            Some(part) => push(&part, &mut text),
            None => return Form::Odd,
        }
    }
    Form::Of(text)
}

fn push(part: &str, text: &mut String) {
    if text.len() > 1 {
        text.push('\u{1}');
    }
    text.push_str(part);
}

fn part(value: &Value<'_>, ty: &ColumnType, is_plain: bool) -> Option<String> {
    match *value {
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::Year(year) => Some(year.to_string()),
        Value::Text(text) | Value::Encoded(text) => folded(text, is_plain),
        Value::Bytes(bytes) | Value::Binary { bytes, .. } => Some(hex(bytes)),
        Value::PackedDecimal { .. } | Value::DecimalText(_) | Value::Date { .. } => {
            mapping::key_text(value, ty).ok()
        }
        _ => None,
    }
}

fn folded(text: &[u8], is_plain: bool) -> Option<String> {
    let is_printable = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let text = std::str::from_utf8(text).ok().filter(|_| is_plain && is_printable)?;
    Some(text.trim_end_matches(' ').to_ascii_lowercase())
}

/// Without trailing zero bytes: the log cuts those of BINARY.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..length].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[Value<'_>], is_plain: bool) -> Form {
        form(values.iter().map(|value| (value, &ColumnType::Text)), is_plain)
    }

    #[test]
    fn equal_keys_have_one_form() {
        let is = |text: &str| Form::Of(text.into());
        assert_eq!(of(&[Value::Int(-5)], true), is("=-5"));
        assert_eq!(of(&[Value::Text(b"Ab-1 ")], true), of(&[Value::Encoded(b"aB-1")], true));
        assert_eq!(of(&[Value::UInt(1), Value::Text(b"x")], true), is("=1\u{1}x"));
        assert_eq!(of(&[Value::UInt(1), Value::Null], true), Form::Nothing);
        assert_eq!(of(&[Value::Text("é".as_bytes()), Value::Null], true), Form::Nothing);
        assert_eq!(of(&[Value::Text("é".as_bytes())], true), Form::Odd);
        assert_eq!(of(&[Value::Text(b"soft\xc2\xadhyphen")], true), Form::Odd);
        assert_eq!(of(&[Value::Text(b"ccs")], false), Form::Odd);
        let padded = Value::Binary { bytes: b"a\0", length: 3 };
        assert_eq!(of(&[padded], false), of(&[Value::Bytes(b"a\0\0")], false));
        assert_eq!(of(&[Value::LeftOut], true), Form::Odd);
    }

    #[test]
    fn a_key_that_was_read_has_the_form_of_its_values() {
        let key = [KeyPart::UInt(1), KeyPart::Text("Ab".into()), KeyPart::Bytes(vec![10, 0])];
        let values = [Value::UInt(1), Value::Text(b"ab"), Value::Bytes(&[10])];
        assert_eq!(form_of_key(&key, true), of(&values, true));
        assert_eq!(form_of_key(&key[1..2], false), Form::Odd);
    }
}
