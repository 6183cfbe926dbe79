//! An `_id` read back as the key that the source can be asked for: the way back from `mapping`'s texts of keys. An id that
//! no row can have has none. What passes here and is no key all the same finds no row.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::mapping;
use crate::state::KeyPart;
use crate::table::ColumnType;

/// The key columns' values of the row with this `_id`.
pub(super) fn key_of(plan: &mapping::Plan, id: &str) -> Option<Vec<KeyPart>> {
    let texts = plan.key_texts(id)?;
    texts.into_iter().zip(plan.keys()).map(|(text, column)| part(text, &column.ty)).collect()
}

fn part(text: String, ty: &ColumnType) -> Option<KeyPart> {
    use ColumnType as T;
    match ty {
        T::TinyInt { unsigned }
        | T::SmallInt { unsigned }
        | T::MediumInt { unsigned }
        | T::Int { unsigned }
        | T::BigInt { unsigned } => match unsigned {
            true => unsigned_number(&text),
            false => text.parse().ok().filter(|n: &i64| n.to_string() == text).map(KeyPart::Int),
        },
        T::Year | T::Bit { .. } => unsigned_number(&text),
        T::Decimal { .. } => is_like(&text, "-.", 1..=66).then_some(KeyPart::Text(text)),
        T::Date => is_like(&text, "-", 10..=10).then_some(KeyPart::Text(text)),
        T::Time { .. } => is_like(&text, "-:.", 8..=17).then_some(KeyPart::Text(text)),
        T::DateTime { .. } | T::Timestamp { .. } => {
            // Sessions of ours are in UTC, and the server reads no `Z`.
            let text = text.trim_end_matches('Z').replacen('T', " ", 1);
            is_like(&text, "-: .", 19..=26).then_some(KeyPart::Text(text))
        }
        T::Text | T::TextIn { .. } | T::Uuid | T::Inet4 | T::Inet6 => Some(KeyPart::Text(text)),
        T::Binary { length } => {
            BASE64.decode(text).ok().filter(|b| b.len() == usize::from(*length)).map(KeyPart::Bytes)
        }
        T::Bytes => BASE64.decode(text).ok().map(KeyPart::Bytes),
        T::Float
        | T::Double
        | T::Enum { .. }
        | T::Set { .. }
        | T::Json
        | T::JsonText
        | T::Geometry
        | T::RowEnd
        | T::Vector
        | T::Unsupported { .. } => None,
    }
}

fn unsigned_number(text: &str) -> Option<KeyPart> {
    text.parse().ok().filter(|n: &u64| n.to_string() == text).map(KeyPart::UInt)
}

/// Digits and these signs, so many altogether.
fn is_like(text: &str, signs: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit() || signs.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_row_can_have_as_its_id_has_no_key() {
        let int = ColumnType::Int { unsigned: false };
        let read = |text: &str, ty: &ColumnType| part(text.to_owned(), ty);
        assert_eq!(read("-7", &int), Some(KeyPart::Int(-7)));
        for wrong in ["", "07", "+7", "7.0", "x", "9223372036854775808"] {
            assert_eq!(read(wrong, &int), None, "{wrong}");
        }
        let unsigned = ColumnType::BigInt { unsigned: true };
        assert_eq!(read("18446744073709551615", &unsigned), Some(KeyPart::UInt(u64::MAX)));
        assert_eq!(read("-1", &unsigned), None);
        let stamp = ColumnType::Timestamp { fsp: 6 };
        let moment = KeyPart::Text("2026-03-04 05:06:07.000001".to_owned());
        assert_eq!(read("2026-03-04T05:06:07.000001Z", &stamp), Some(moment));
        assert_eq!(read("yesterday", &stamp), None);
        let binary = ColumnType::Binary { length: 2 };
        assert_eq!(read("AAE=", &binary), Some(KeyPart::Bytes(vec![0, 1])));
        assert_eq!((read("AAE", &binary), read("AA==", &binary)), (None, None));
    }
}
