//! The one JSON form of each column type; `docs/types.md` is its page, and a test holds both together.
//!
//! A value comes from the log or from a SELECT, which carry many types differently. Whatever is said of a form, its
//! digits or its labels is taken from the column's type and not from the value, so that both give the same bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::address::write_address;
use super::charset;
use super::escape::{check_utf8, quote_json, write_string};
use super::form::{Form, Zone};
use super::geometry::{write_geojson, write_wkt};
use super::json_binary::write_json_binary;
use super::json_text::{self, Found};
use super::moment::{Clock, Date, Moment, utc};
use super::packed_column;
use super::packed_decimal::write_packed_decimal;
use crate::change::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::table::ColumnType;

/// Writes a value in the form that was chosen for its column, behind what `out` holds.
#[inline]
pub(super) fn write_as(
    value: &Value<'_>,
    ty: &ColumnType,
    form: Form,
    out: &mut Vec<u8>,
) -> Result<()> {
    match form {
        Form::Usual => write(value, ty, out),
        _ if *value == Value::Null => write(value, ty, out),
        _ if let Value::Packed(bytes) = *value => {
            write_as(&plain(&packed_column::unpack(bytes)?, ty)?, ty, form, out)
        }
        Form::Bool => write_bool(value, ty, out),
        Form::Quoted => {
            out.push(b'"');
            write(value, ty, out)?;
            out.push(b'"');
            Ok(())
        }
        Form::Moment { zone, is_zero_text } => write_moment(value, ty, zone, is_zero_text, out),
        Form::Text
            if let Value::JsonText(text) = *value
                && *ty == ColumnType::JsonText =>
        {
            write_as_text(text, out)
        }
        Form::Text => {
            let start = out.len();
            write(value, ty, out)?;
            quote_json(start, out);
            Ok(())
        }
        Form::Hex => write_bytes(value, ty, write_hex, out),
        Form::Wkt => match *value {
            Value::Geometry(bytes) => write_wkt(bytes, out),
            _ => Err(foreign(ty)),
        },
    }
}

/// Writes the usual JSON form of `value`, a value of a column of type `ty`, behind what `out` holds.
pub fn write(value: &Value<'_>, ty: &ColumnType, out: &mut Vec<u8>) -> Result<()> {
    match (*value, ty) {
        (Value::Null, _) => out.extend_from_slice(b"null"),
        (Value::Int(number), ty) if is_integer(ty) => write_integer(number, out),
        (Value::UInt(number), ty) if is_integer(ty) => write_integer(number, out),
        (Value::Year(year), ColumnType::Year) => write_integer(year, out),
        (Value::Float(number), ColumnType::Float) => write_float(number, number.is_finite(), out)?,
        (Value::Double(number), ColumnType::Double) => {
            write_float(number, number.is_finite(), out)?;
        }
        (Value::PackedDecimal { bytes, precision, scale }, ColumnType::Decimal { .. }) => {
            write_packed_decimal(bytes, precision, scale, out)?;
        }
        (Value::DecimalText(digits), ColumnType::Decimal { .. }) => write_decimal(digits, out)?,
        (Value::Text(text), ColumnType::Text) => write_string(text, out)?,
        (Value::Encoded(text), ColumnType::TextIn { charset }) => {
            charset::write_string(text, *charset, out);
        }
        (
            Value::Bytes(bytes) | Value::Binary { bytes, .. },
            ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6,
        ) => write_address(bytes, ty, out)?,
        (Value::Binary { .. } | Value::Bytes(_), _) => write_bytes(value, ty, write_base64, out)?,
        (Value::Geometry(bytes), ColumnType::Geometry) => write_geojson(bytes, out)?,
        (Value::Vector(bytes), ColumnType::Vector) => write_vector(bytes, out)?,
        (Value::Enum(number), ColumnType::Enum { labels }) => write_label(number, labels, out)?,
        (Value::Label(label), ColumnType::Enum { .. }) => write_string(label, out)?,
        (Value::Set(bits), ColumnType::Set { labels }) => write_set(bits, labels, out)?,
        (Value::Labels(labels), ColumnType::Set { .. }) => {
            write_array(labels.split(|byte| *byte == b','), out)?;
        }
        (Value::JsonBinary(bytes), ColumnType::Json) => write_json_binary(bytes, out)?,
        (Value::JsonText(text), ColumnType::Json) => write_json_text(text, out)?,
        (Value::JsonText(text), ColumnType::JsonText) => write_stored_json(text, out)?,
        (Value::Text(text), ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6) => {
            write_string(text, out)?;
        }
        (Value::Packed(bytes), _) => {
            write(&plain(&packed_column::unpack(bytes)?, ty)?, ty, out)?;
        }
        _ => write_moment(value, ty, Zone::default(), false, out)?,
    }
    Ok(())
}

/// What a compressed column of this type holds.
fn plain<'v>(bytes: &'v [u8], ty: &ColumnType) -> Result<Value<'v>> {
    Ok(match ty {
        ColumnType::Text => Value::Text(bytes),
        ColumnType::TextIn { .. } => Value::Encoded(bytes),
        ColumnType::Bytes => Value::Bytes(bytes),
        ColumnType::JsonText => Value::JsonText(bytes),
        _ => return Err(foreign(ty)),
    })
}

fn is_integer(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::TinyInt { .. }
            | ColumnType::SmallInt { .. }
            | ColumnType::MediumInt { .. }
            | ColumnType::Int { .. }
            | ColumnType::BigInt { .. }
            | ColumnType::Year
            | ColumnType::Bit { .. }
    )
}

/// A value that its column's type cannot have: the definition is not that of the row.
fn foreign(ty: &ColumnType) -> Error {
    let message = format!("its value is none of type {}", kind_of(ty));
    Error::new(ErrorKind::Schema, message)
}

/// The type without its labels, which may be anything.
fn kind_of(ty: &ColumnType) -> String {
    let text = format!("{ty:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

fn write_integer(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_float(number: impl zmij::Float, is_finite: bool, out: &mut Vec<u8>) -> Result<()> {
    if !is_finite {
        // No column of MySQL can hold one, so the bytes were not a number of this type.
        return Err(Error::new(ErrorKind::Undecodable, "its number is not finite"));
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    Ok(())
}

/// Digits as a SELECT gives them; ZEROFILL's zeros in front are no JSON.
fn write_decimal(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (&b"-"[..], digits),
        digits => (&b""[..], digits),
    };
    let point = memchr::memchr(b'.', digits);
    let (whole, fraction) = digits.split_at(point.unwrap_or(digits.len()));
    let are_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let fraction_is_right = fraction.is_empty() || fraction.len() > 1 && are_digits(&fraction[1..]);
    if digits.is_empty() || !are_digits(whole) || !fraction_is_right {
        return Err(Error::new(ErrorKind::Undecodable, "its digits are not a decimal number"));
    }
    let zeros = whole.iter().take_while(|digit| **digit == b'0').count();
    let whole = &whole[zeros..];
    out.extend_from_slice(sign);
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    out.extend_from_slice(fraction);
    Ok(())
}

fn write_bool(value: &Value<'_>, ty: &ColumnType, out: &mut Vec<u8>) -> Result<()> {
    let is_true = match *value {
        Value::Int(number) if is_integer(ty) => number != 0,
        Value::UInt(number) if is_integer(ty) => number != 0,
        _ => return Err(foreign(ty)),
    };
    out.extend_from_slice(if is_true { b"true" } else { b"false" });
    Ok(())
}

/// Shortest numbers of 32 bits, as a FLOAT has.
fn write_vector(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Error::new(ErrorKind::Undecodable, "its bytes are no vector"));
    }
    out.push(b'[');
    for (at, number) in numbers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let number = f32::from_le_bytes(*number);
        write_float(number, number.is_finite(), out)?;
    }
    out.push(b']');
    Ok(())
}

fn write_moment(
    value: &Value<'_>,
    ty: &ColumnType,
    zone: Zone,
    is_zero_text: bool,
    out: &mut Vec<u8>,
) -> Result<()> {
    let moment = match moment(value, ty)? {
        Some((moment, is_day)) if is_day || is_zero_text => moment,
        Some(_) => {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        None => return Err(foreign(ty)),
    };
    out.push(b'"');
    out.extend_from_slice(moment.as_str().as_bytes());
    out.extend_from_slice(zone.as_str().as_bytes());
    out.push(b'"');
    Ok(())
}

/// The digits of a date or time, and whether it is one that the calendar has; `None` if the type is none of a moment.
pub(super) fn moment(value: &Value<'_>, ty: &ColumnType) -> Result<Option<(Moment, bool)>> {
    let ty = if *ty == ColumnType::RowEnd { &ColumnType::Timestamp { fsp: 6 } } else { ty };
    let found = match (*value, ty) {
        (Value::Date { year, month, day }, ColumnType::Date) => {
            let date = Date { year, month, day };
            (Moment::of_date(date), !date.is_partial())
        }
        (
            Value::Time { negative, hours, minutes, seconds, micros, .. },
            ColumnType::Time { fsp },
        ) => {
            let clock = Clock { hours, minutes, seconds, micros };
            (Moment::of_time(negative, clock, *fsp), true)
        }
        (
            Value::DateTime { year, month, day, hours, minutes, seconds, micros, .. },
            ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp },
        ) => {
            let date = Date { year, month, day };
            let clock = Clock { hours: hours.into(), minutes, seconds, micros };
            let utc = matches!(ty, ColumnType::Timestamp { .. });
            (Moment::of_date_time(date, clock, *fsp, utc), !date.is_partial())
        }
        (Value::Timestamp { seconds: 0, micros: 0, .. }, ColumnType::Timestamp { fsp }) => {
            let date = Date { year: 0, month: 0, day: 0 };
            let clock = Clock { hours: 0, minutes: 0, seconds: 0, micros: 0 };
            (Moment::of_date_time(date, clock, *fsp, true), false)
        }
        (Value::Timestamp { seconds, micros, .. }, ColumnType::Timestamp { fsp }) => {
            let (date, clock) = utc(seconds, micros);
            (Moment::of_date_time(date, clock, *fsp, true), true)
        }
        _ => return Ok(None),
    };
    Ok(Some(found))
}

/// Bytes as the column has them: those of BINARY with the zeros that the log cuts.
fn write_bytes(
    value: &Value<'_>,
    ty: &ColumnType,
    write: fn(&[u8], &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> Result<()> {
    let (bytes, length) = match (*value, ty) {
        (Value::Binary { bytes, .. } | Value::Bytes(bytes), ColumnType::Binary { length }) => {
            (bytes, usize::from(*length))
        }
        (Value::Bytes(bytes), ColumnType::Bytes) => (bytes, 0),
        _ => return Err(foreign(ty)),
    };
    // A BINARY column has at most 255 bytes, so the padded value fits on the stack.
    let mut padded = [0u8; 255];
    match padded.get_mut(..length) {
        Some(padded) if bytes.len() < length => {
            padded[..bytes.len()].copy_from_slice(bytes);
            write(padded, out);
        }
        None if bytes.len() < length => return Err(foreign(ty)),
        _ => write(bytes, out),
    }
    Ok(())
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * bytes.len() + 2);
    out.push(b'"');
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'"');
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len() + 1;
    out.push(b'"');
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    BASE64.encode_slice(bytes, &mut out[start..]).expect("there is room for each three bytes");
    out.push(b'"');
}

fn write_label(number: u16, labels: &[String], out: &mut Vec<u8>) -> Result<()> {
    let label = match number.checked_sub(1) {
        // The error value, which MySQL shows as the empty string.
        None => "",
        Some(at) => labels.get(usize::from(at)).ok_or_else(|| {
            let message = format!("its label has number {number} of {}", labels.len());
            Error::new(ErrorKind::Schema, message)
        })?,
    };
    write_string(label.as_bytes(), out)
}

fn write_set(bits: u64, labels: &[String], out: &mut Vec<u8>) -> Result<()> {
    if labels.len() < 64 && bits >> labels.len() != 0 {
        let message = format!("it has a label behind the last of {}", labels.len());
        return Err(Error::new(ErrorKind::Schema, message));
    }
    let named = labels.iter().take(64).enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    write_array(named.map(|(_, label)| label.as_bytes()), out)
}

/// Empty labels are left out: the text of a SELECT cannot tell a set of one empty label from a set of none.
fn write_array<'l>(labels: impl Iterator<Item = &'l [u8]>, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'[');
    for (at, label) in labels.filter(|label| !label.is_empty()).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(label, out)?;
    }
    out.push(b']');
    Ok(())
}

/// The server's text is JSON already; only the white space outside of its strings goes.
pub(super) fn write_json_text(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut rest = check_utf8(text)?.as_bytes();
    let start = out.len();
    out.reserve(rest.len());
    while !rest.is_empty() {
        let quote = memchr::memchr(b'"', rest).unwrap_or(rest.len());
        let (outside, string) = rest.split_at(quote);
        out.extend(outside.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')));
        let (string, behind) = string.split_at(string_length(string));
        out.extend_from_slice(string);
        rest = behind;
    }
    if out.len() == start {
        // A JSON column that was added NOT NULL to a filled table holds no bytes; the server reads them as null.
        out.extend_from_slice(b"null");
    }
    Ok(())
}

/// JSON as it was written: the server has looked at it then, but need not have been told to.
fn write_stored_json(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    if text.is_empty() {
        return write_json_text(text, out);
    }
    match json_text::look(check_utf8(text)?) {
        Found::Json => write_json_text(text, out),
        Found::Repeated => json_text::write_once(text, out),
        Found::Other => Err(Error::new(ErrorKind::DocumentRefused, "its text is no JSON")
            .with_advice(
                "mend the row, or make the link with json = \"string\", which takes any text",
            )),
    }
}

/// The same as a string, and any other text as it is.
fn write_as_text(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    match json_text::look(check_utf8(text)?) {
        Found::Other => return write_string(text, out),
        Found::Json => write_json_text(text, out)?,
        Found::Repeated => json_text::write_once(text, out)?,
    }
    quote_json(start, out);
    Ok(())
}

/// How many bytes the JSON string has that `text` begins with; all of them if it is not closed.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}
