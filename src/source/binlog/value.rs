//! One column's bytes to one value: every layout of every type that is decoded. Knows nothing of rows.

use crate::change::Value;
use crate::error::{Error, ErrorKind, Result};

/// How the bytes of a wanted column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    TinyInt,
    TinyUint,
    SmallInt,
    SmallUint,
    MediumInt,
    MediumUint,
    Int,
    Uint,
    BigInt,
    BigUint,
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
    /// The forms of columns that were made before 5.6.
    OldTime,
    OldDateTime,
    OldTimestamp,
    /// The forms with digits behind the second that MariaDB had before MySQL's, and still has in old tables.
    HiresTime {
        fsp: u8,
    },
    HiresDateTime {
        fsp: u8,
    },
    HiresTimestamp {
        fsp: u8,
    },
    Year,
    Bit,
    Text,
    Encoded,
    Binary {
        length: u16,
    },
    Bytes,
    Enum,
    Set,
    Json,
    JsonText,
    Packed,
    Geometry,
    Vector,
}

impl Read {
    /// `bytes` are exactly the column's: without a length before them.
    #[inline]
    pub fn value(self, bytes: &[u8]) -> Result<Value<'_>> {
        Ok(match self {
            Self::TinyInt => Value::Int(i8::from_le_bytes(exactly(bytes)?).into()),
            Self::TinyUint => Value::UInt(u8::from_le_bytes(exactly(bytes)?).into()),
            Self::SmallInt => Value::Int(i16::from_le_bytes(exactly(bytes)?).into()),
            Self::SmallUint => Value::UInt(u16::from_le_bytes(exactly(bytes)?).into()),
            Self::MediumInt => {
                let [a, b, c] = exactly(bytes)?;
                // The sign is the highest bit of the third byte: shifted to the top and back it fills the fourth.
                Value::Int((i32::from_le_bytes([0, a, b, c]) >> 8).into())
            }
            Self::MediumUint => {
                let [a, b, c] = exactly(bytes)?;
                Value::UInt(u32::from_le_bytes([a, b, c, 0]).into())
            }
            Self::Int => Value::Int(i32::from_le_bytes(exactly(bytes)?).into()),
            Self::Uint => Value::UInt(u32::from_le_bytes(exactly(bytes)?).into()),
            Self::BigInt => Value::Int(i64::from_le_bytes(exactly(bytes)?)),
            Self::BigUint => Value::UInt(u64::from_le_bytes(exactly(bytes)?)),
            Self::Float => Value::Float(f32::from_le_bytes(exactly(bytes)?)),
            Self::Double => Value::Double(f64::from_le_bytes(exactly(bytes)?)),
            Self::Decimal { precision, scale } => Value::PackedDecimal { bytes, precision, scale },
            Self::Date => date(exactly(bytes)?),
            Self::Time { fsp } => time(bytes, fsp)?,
            Self::DateTime { fsp } => date_time(bytes, fsp)?,
            Self::Timestamp { fsp } => timestamp(bytes, fsp)?,
            Self::OldTime => old_time(exactly(bytes)?)?,
            Self::OldDateTime => old_date_time(exactly(bytes)?)?,
            Self::OldTimestamp => {
                Value::Timestamp { seconds: u32::from_le_bytes(exactly(bytes)?), micros: 0, fsp: 0 }
            }
            Self::HiresTime { fsp } => hires_time(bytes, fsp)?,
            Self::HiresDateTime { fsp } => hires_date_time(bytes, fsp)?,
            Self::HiresTimestamp { fsp } => hires_timestamp(bytes, fsp)?,
            Self::Year => {
                let [years] = exactly(bytes)?;
                // 0 is the year 0000, all others count from 1900.
                Value::Year(if years == 0 { 0 } else { 1900 + u16::from(years) })
            }
            Self::Bit => Value::UInt(uint_be(bytes)?),
            Self::Text => Value::Text(bytes),
            Self::Encoded => Value::Encoded(bytes),
            Self::Binary { length } if bytes.len() <= usize::from(length) => {
                Value::Binary { bytes, length }
            }
            Self::Binary { .. } => return Err(impossible()),
            Self::Bytes => Value::Bytes(bytes),
            Self::Enum => Value::Enum(match *bytes {
                [label] => label.into(),
                [low, high] => u16::from_le_bytes([low, high]),
                _ => return Err(impossible()),
            }),
            Self::Set => Value::Set(uint_le(bytes)?),
            Self::Json => Value::JsonBinary(bytes),
            Self::JsonText => Value::JsonText(bytes),
            Self::Packed => Value::Packed(bytes),
            Self::Geometry => Value::Geometry(bytes),
            Self::Vector => Value::Vector(bytes),
        })
    }
}

/// Bytes of a fraction with `fsp` digits.
pub const fn fraction_len(fsp: u8) -> u16 {
    (fsp as u16).div_ceil(2)
}

fn date(bytes: [u8; 3]) -> Value<'static> {
    let [a, b, c] = bytes;
    let packed = u32::from_le_bytes([a, b, c, 0]);
    Value::Date {
        year: (packed >> 9) as u16,
        month: (packed >> 5 & 15) as u8,
        day: (packed & 31) as u8,
    }
}

/// Three bytes of hours, minutes and seconds and the fraction are one signed number, biased so that bytes sort.
fn time(bytes: &[u8], fsp: u8) -> Result<Value<'static>> {
    let (whole, fraction) = bytes.split_first_chunk::<3>().ok_or_else(impossible)?;
    if fraction.len() > 3 {
        return Err(impossible());
    }
    let bits = 8 * fraction.len() as u32;
    let biased = uint_be(whole)? << bits | uint_be(fraction)?;
    let signed = biased as i64 - (0x80_0000_i64 << bits);
    let magnitude = signed.unsigned_abs();
    let (hms, fraction) = (magnitude >> bits, magnitude & ((1 << bits) - 1));
    let value = Value::Time {
        negative: signed < 0,
        hours: (hms >> 12 & 0x3ff) as u16,
        minutes: (hms >> 6 & 63) as u8,
        seconds: (hms & 63) as u8,
        micros: micros(fraction, bits)?,
        fsp,
    };
    Ok(value)
}

fn date_time(bytes: &[u8], fsp: u8) -> Result<Value<'static>> {
    let (whole, fraction) = bytes.split_first_chunk::<5>().ok_or_else(impossible)?;
    let packed = uint_be(whole)?.checked_sub(0x80_0000_0000).ok_or_else(impossible)?;
    let (ymd, hms) = (packed >> 17, packed & 0x1_ffff);
    let months = ymd >> 5;
    let value = Value::DateTime {
        year: (months / 13) as u16,
        month: (months % 13) as u8,
        day: (ymd & 31) as u8,
        hours: (hms >> 12) as u8,
        minutes: (hms >> 6 & 63) as u8,
        seconds: (hms & 63) as u8,
        micros: micros(uint_be(fraction)?, 8 * fraction.len() as u32)?,
        fsp,
    };
    Ok(value)
}

fn timestamp(bytes: &[u8], fsp: u8) -> Result<Value<'static>> {
    let (whole, fraction) = bytes.split_first_chunk::<4>().ok_or_else(impossible)?;
    let micros = micros(uint_be(fraction)?, 8 * fraction.len() as u32)?;
    Ok(Value::Timestamp { seconds: u32::from_be_bytes(*whole), micros, fsp })
}

/// A fraction of 1, 2 or 3 bytes counts hundredths, ten-thousandths or millionths.
fn micros(fraction: u64, bits: u32) -> Result<u32> {
    let micros = match bits {
        0 => 0,
        8 => fraction * 10_000,
        16 => fraction * 100,
        24 => fraction,
        _ => return Err(impossible()),
    };
    if micros < 1_000_000 { Ok(micros as u32) } else { Err(impossible()) }
}

/// `HHMMSS` as a decimal number.
fn old_time(bytes: [u8; 3]) -> Result<Value<'static>> {
    let [a, b, c] = bytes;
    let signed = i32::from_le_bytes([0, a, b, c]) >> 8;
    let digits = signed.unsigned_abs();
    let (hours, minutes, seconds) = (digits / 10_000, digits / 100 % 100, digits % 100);
    Ok(Value::Time {
        negative: signed < 0,
        hours: u16::try_from(hours).map_err(|_| impossible())?,
        minutes: minutes as u8,
        seconds: seconds as u8,
        micros: 0,
        fsp: 0,
    })
}

/// `YYYYMMDDHHMMSS` as a decimal number.
fn old_date_time(bytes: [u8; 8]) -> Result<Value<'static>> {
    let digits = u64::from_le_bytes(bytes);
    let pair = |power: u64| (digits / power % 100) as u8;
    Ok(Value::DateTime {
        year: u16::try_from(digits / 10_000_000_000).map_err(|_| impossible())?,
        month: pair(100_000_000),
        day: pair(1_000_000),
        hours: pair(10_000),
        minutes: pair(100),
        seconds: pair(1),
        micros: 0,
        fsp: 0,
    })
}

/// Bytes of a TIME of MariaDB 5.3 with `fsp` digits; by digits, because nothing else tells.
pub const fn hires_time_len(fsp: u8) -> u16 {
    match fsp {
        0 => 3,
        1 | 2 => 4,
        3..=5 => 5,
        _ => 6,
    }
}

/// The same of a DATETIME.
pub const fn hires_date_time_len(fsp: u8) -> u16 {
    match fsp {
        0 => 8,
        1 | 2 => 6,
        3..=5 => 7,
        _ => 8,
    }
}

/// The same of a TIMESTAMP.
pub const fn hires_timestamp_len(fsp: u8) -> u16 {
    4 + fraction_len(fsp)
}

/// Units of the last of `fsp` digits in a second.
const fn units(fsp: u8) -> u64 {
    10_u64.pow(if fsp < 6 { fsp as u32 } else { 6 })
}

/// Splits a count of units into whole seconds and microseconds.
fn seconds_and_micros(count: u64, fsp: u8) -> (u64, u32) {
    let units = units(fsp);
    (count / units, (count % units * (1_000_000 / units)) as u32)
}

/// A count of units from the least TIME on, which is -838:59:59.999999.
fn hires_time(bytes: &[u8], fsp: u8) -> Result<Value<'static>> {
    const SECONDS_MAX: u64 = 838 * 3_600 + 59 * 60 + 59;
    let zero = (SECONDS_MAX + 1) * units(fsp);
    let count = i64::try_from(uint_be(bytes)?).map_err(|_| impossible())?;
    let signed = count - zero as i64;
    let (seconds, micros) = seconds_and_micros(signed.unsigned_abs(), fsp);
    let (negative, hours) = (signed < 0, seconds / 3_600);
    Ok(Value::Time {
        negative,
        hours: u16::try_from(hours).map_err(|_| impossible())?,
        minutes: (seconds / 60 % 60) as u8,
        seconds: (seconds % 60) as u8,
        micros,
        fsp,
    })
}

/// A count of units in a calendar of 13 months (0 is one of them) of 32 days.
fn hires_date_time(bytes: &[u8], fsp: u8) -> Result<Value<'static>> {
    let (seconds, micros) = seconds_and_micros(uint_be(bytes)?, fsp);
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    let days = hours / 24;
    let months = days / 32;
    Ok(Value::DateTime {
        year: u16::try_from(months / 13).map_err(|_| impossible())?,
        month: (months % 13) as u8,
        day: (days % 32) as u8,
        hours: (hours % 24) as u8,
        minutes: (minutes % 60) as u8,
        seconds: (seconds % 60) as u8,
        micros,
        fsp,
    })
}

/// Seconds since 1970 and units, the highest byte first.
fn hires_timestamp(bytes: &[u8], fsp: u8) -> Result<Value<'static>> {
    let (whole, fraction) = bytes.split_first_chunk::<4>().ok_or_else(impossible)?;
    let (more, micros) = seconds_and_micros(uint_be(fraction)?, fsp);
    if more > 0 {
        return Err(impossible());
    }
    Ok(Value::Timestamp { seconds: u32::from_be_bytes(*whole), micros, fsp })
}

#[inline]
fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| impossible())
}

fn uint_be(bytes: &[u8]) -> Result<u64> {
    if bytes.len() > 8 {
        return Err(impossible());
    }
    Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn uint_le(bytes: &[u8]) -> Result<u64> {
    if bytes.len() > 8 {
        return Err(impossible());
    }
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cold]
fn impossible() -> Error {
    Error::new(ErrorKind::Undecodable, "its bytes are no value of its type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(how: Read, bytes: &[u8]) -> Value<'_> {
        how.value(bytes).expect("a value")
    }

    #[test]
    fn a_negative_mediumint_keeps_its_sign() {
        assert_eq!(read(Read::MediumInt, &[0xff, 0xff, 0xff]), Value::Int(-1));
        assert_eq!(read(Read::MediumInt, &[0, 0, 0x80]), Value::Int(-8_388_608));
        assert_eq!(read(Read::MediumInt, &[0xff, 0xff, 0x7f]), Value::Int(8_388_607));
        assert_eq!(read(Read::MediumUint, &[0xff, 0xff, 0xff]), Value::UInt(16_777_215));
    }

    #[test]
    fn the_year_zero_is_not_1900() {
        assert_eq!(read(Read::Year, &[0]), Value::Year(0));
        assert_eq!(read(Read::Year, &[1]), Value::Year(1901));
        assert_eq!(read(Read::Year, &[255]), Value::Year(2155));
    }

    #[test]
    fn negative_times_keep_their_fraction() {
        let time = |negative, hours, minutes, seconds, micros, fsp| Value::Time {
            negative,
            hours,
            minutes,
            seconds,
            micros,
            fsp,
        };
        assert_eq!(read(Read::Time { fsp: 0 }, &[0x80, 0, 0]), time(false, 0, 0, 0, 0, 0));
        assert_eq!(read(Read::Time { fsp: 0 }, &[0x7f, 0xff, 0xff]), time(true, 0, 0, 1, 0, 0));
        assert_eq!(
            read(Read::Time { fsp: 2 }, &[0x7f, 0xff, 0xff, 0xff]),
            time(true, 0, 0, 0, 10_000, 2)
        );
        assert_eq!(
            read(Read::Time { fsp: 6 }, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]),
            time(true, 0, 0, 0, 1, 6)
        );
    }

    #[test]
    fn impossible_bytes_are_errors() {
        assert!(Read::Int.value(&[1, 2, 3]).is_err());
        assert!(Read::DateTime { fsp: 0 }.value(&[0; 5]).is_err());
        assert!(Read::DateTime { fsp: 2 }.value(&[0x80, 0, 0, 0, 0, 100]).is_err());
        assert!(Read::Binary { length: 2 }.value(&[1, 2, 3]).is_err());
        assert!(Read::Set.value(&[0; 9]).is_err());
        for length in 0..20 {
            for byte in [0x00, 0x7f, 0x80, 0xff] {
                let bytes = vec![byte; length];
                for how in
                    [Read::Time { fsp: 6 }, Read::DateTime { fsp: 6 }, Read::Timestamp { fsp: 6 }]
                {
                    let _ = how.value(&bytes);
                }
            }
        }
    }

    #[test]
    fn forms_of_columns_made_before_5_6_are_read() {
        let number = 20_231_231_235_958_u64.to_le_bytes();
        let Value::DateTime { year, month, day, hours, minutes, seconds, .. } =
            read(Read::OldDateTime, &number)
        else {
            panic!("not a DATETIME")
        };
        assert_eq!((year, month, day, hours, minutes, seconds), (2023, 12, 31, 23, 59, 58));
        let negative = (-8_385_959_i32).to_le_bytes();
        let Value::Time { negative, hours, minutes, seconds, .. } =
            read(Read::OldTime, &negative[..3])
        else {
            panic!("not a TIME")
        };
        assert_eq!((negative, hours, minutes, seconds), (true, 838, 59, 59));
    }

    /// Bytes of MariaDB 11.8 with `mysql56_temporal_format = OFF`.
    #[test]
    fn moments_with_digits_in_mariadbs_first_form_are_read() {
        let time = |bytes: &[u8], fsp| match read(Read::HiresTime { fsp }, bytes) {
            Value::Time { negative, hours, minutes, seconds, micros, .. } => {
                (negative, hours, minutes, seconds, micros)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(time(&[0, 0xb1, 0x54, 0x78, 0xeb], 3), (true, 12, 34, 56, 789_000));
        let longest = [5, 0x7e, 0x7b, 0xbc, 0xf7, 0xff];
        assert_eq!(time(&longest, 6), (false, 838, 59, 59, 999_999));
        let Value::DateTime { year, month, day, hours, minutes, seconds, micros, .. } =
            read(Read::HiresDateTime { fsp: 1 }, &[0, 0xa9, 0x8d, 0x71, 0xad, 0x78])
        else {
            panic!("not a DATETIME")
        };
        assert_eq!((year, month, day), (2026, 1, 2));
        assert_eq!((hours, minutes, seconds, micros), (3, 4, 5, 600_000));
        let stamp = read(Read::HiresTimestamp { fsp: 4 }, &[0x69, 0x57, 0x35, 0xa5, 0x1a, 0x85]);
        assert_eq!(stamp, Value::Timestamp { seconds: 1_767_323_045, micros: 678_900, fsp: 4 });
        for length in 0..10 {
            for byte in [0x00, 0x7f, 0xff] {
                for fsp in 0..=9 {
                    let bytes = vec![byte; length];
                    let _ = Read::HiresTime { fsp }.value(&bytes);
                    let _ = Read::HiresDateTime { fsp }.value(&bytes);
                    let _ = Read::HiresTimestamp { fsp }.value(&bytes);
                }
            }
        }
    }
}
