//! Dates as `strict_date_optional_time` and `epoch_millis` have them, to milliseconds since 1970. A date without its time is
//! a span: a bound that includes its end means all of it. Pure.

use serde_json::Value;

/// What a date may look like; the year-and-month form is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    has_dates: bool,
    has_millis: bool,
}

/// The milliseconds from the first to the last that a text leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub first: i64,
    pub last: i64,
}

impl Default for Format {
    fn default() -> Self {
        Self { has_dates: true, has_millis: true }
    }
}

impl Format {
    /// The first is what a field has whose mapping names none.
    pub(super) const NAMES: [&'static str; 4] = [
        "strict_date_optional_time||epoch_millis",
        "strict_date_optional_time",
        "epoch_millis",
        "date_optional_time",
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        let has_dates = name != "epoch_millis";
        let has_millis = name.contains("epoch_millis");
        Self::NAMES.contains(&name).then_some(Self { has_dates, has_millis })
    }

    /// What a value of a document or a query stands for. A number is read as its text: 2026 is a year.
    pub(super) fn span(self, value: &Value) -> Option<Span> {
        let number;
        let text = match value {
            Value::Number(value) => {
                number = value.to_string();
                &number
            }
            Value::String(text) => text,
            _ => return None,
        };
        let date = if self.has_dates { date(text) } else { None };
        date.or_else(|| if self.has_millis { millis(text) } else { None })
    }
}

/// Whole milliseconds; what stands behind a point is cut off.
fn millis(text: &str) -> Option<Span> {
    let whole = match text.split_once('.') {
        Some((whole, rest)) if is_digits(whole) && is_digits(rest) => whole,
        Some(_) => return None,
        None => text,
    };
    let at = is_digits(whole.strip_prefix('-').unwrap_or(whole)).then(|| whole.parse().ok())??;
    Some(Span { first: at, last: at })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A month or a day that is left out is the first, and an hour any of the day, as in a search node.
fn date(text: &str) -> Option<Span> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts.next().map_or(Some(1), |part| digits(part, 2))?;
    let day = parts.next().map_or(Some(1), |part| digits(part, 2))?;
    let is_date = parts.next().is_none()
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day);
    if !is_date {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * 86_400_000;
    let (clock, offset) = match time {
        None | Some("") => (Span { first: 0, last: 86_399_999 }, 0),
        Some(time) => {
            let (clock, offset) = split_zone(time)?;
            (clock_millis(clock)?, offset)
        }
    };
    Some(Span { first: midnight + clock.first - offset, last: midnight + clock.last - offset })
}

/// The clock, and the zone's offset in milliseconds.
fn split_zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = time.find(['+', '-']) else { return Some((time, 0)) };
    let (clock, zone) = time.split_at(at);
    let (sign, zone) = zone.split_at(1);
    let (hours, minutes) = match zone.split_once(':') {
        Some(both) => both,
        None if zone.len() == 4 && zone.is_ascii() => zone.split_at(2),
        None => (zone, "00"),
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 18 || minutes > 59 {
        return None;
    }
    let offset = (hours * 60 + minutes) * 60_000;
    Some((clock, if sign == "-" { -offset } else { offset }))
}

fn clock_millis(clock: &str) -> Option<Span> {
    let mut parts = clock.split(':');
    let hour = digits(parts.next()?, 2)?;
    let minute = parts.next().map_or(Some(None), |part| digits(part, 2).map(Some))?;
    let (second, fraction) = match parts.next() {
        None => (None, None),
        Some(part) => match part.split_once('.') {
            None => (Some(digits(part, 2)?), None),
            Some((second, fraction)) => {
                (Some(digits(second, 2)?), Some(fraction_millis(fraction)?))
            }
        },
    };
    let at = |minute: i64, second: i64, fraction: i64| {
        let is_clock = hour < 24 && minute < 60 && second < 60;
        is_clock.then_some(((hour * 60 + minute) * 60 + second) * 1000 + fraction)
    };
    if parts.next().is_some() {
        return None;
    }
    let or = |part: Option<i64>, otherwise| part.unwrap_or(otherwise);
    Some(Span {
        first: at(or(minute, 0), or(second, 0), or(fraction, 0))?,
        last: at(or(minute, 59), or(second, 59), or(fraction, 999))?,
    })
}

fn fraction_millis(fraction: &str) -> Option<i64> {
    let is_fraction =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    is_fraction.then(|| digits.parse().ok())?
}

fn digits(text: &str, length: usize) -> Option<i64> {
    let all = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok())?
}

fn days_in(year: i64, month: i64) -> i64 {
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day is their last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn first(value: Value) -> Option<i64> {
        Format::default().span(&value).map(|span| span.first)
    }

    #[test]
    fn dates_are_read_with_and_without_time_and_zone() {
        for (text, expected) in [
            ("1970-01-01", 0),
            ("2026-03-04", 1_772_582_400_000),
            ("2026-03-04T05:06:07.123", 1_772_600_767_123),
            ("2026-03-04T05:06:07.123456Z", 1_772_600_767_123),
            ("2026-03-04T05:06:07+08:00", 1_772_571_967_000),
            ("1969-12-31T23:59:59Z", -1_000),
            ("2024-02-29", 1_709_164_800_000),
            ("2026", 1_767_225_600_000),
            ("1772582400000", 1_772_582_400_000),
            ("-5", -5),
        ] {
            assert_eq!(first(json!(text)), Some(expected), "{text}");
        }
        assert_eq!(first(json!(17)), Some(17));
        assert_eq!(first(json!(1.5)), Some(1));
    }

    #[test]
    fn what_is_left_out_is_a_span() {
        let day = 86_400_000;
        for (text, expected) in [
            ("1970-01-02", (day, 2 * day - 1)),
            // As a search node: a month that is left out is January, and a day the first.
            ("1970", (0, day - 1)),
            ("1970-02", (31 * day, 32 * day - 1)),
            ("1970-01-01T01", (3_600_000, 7_199_999)),
            ("1970-01-01T00:01", (60_000, 119_999)),
            ("1970-01-01T00:00:01", (1_000, 1_999)),
            ("1970-01-01T00:00:01.5Z", (1_500, 1_500)),
            ("1970-01-01T00+01:00", (-3_600_000, -1)),
            ("12345", (12_345, 12_345)),
        ] {
            let span = Format::default().span(&json!(text)).expect("a date");
            assert_eq!((span.first, span.last), expected, "{text}");
        }
    }

    #[test]
    fn a_number_is_read_by_the_format() {
        assert_eq!(first(json!(2026)), Some(1_767_225_600_000));
        let millis = Format::parse("epoch_millis").expect("is known");
        assert_eq!(millis.span(&json!(2026)), Some(Span { first: 2026, last: 2026 }));
        assert_eq!(millis.span(&json!("2026-01-01")), None);
        let dates = Format::parse("strict_date_optional_time").expect("is known");
        assert_eq!(dates.span(&json!(17)), None);
        assert_eq!(Format::parse("basic_date"), None);
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "-",
            "now",
            "2026-13-01",
            "2025-02-29",
            "2026-03-04 05:06:07",
            "2026-3-4",
            "x",
            "1.",
            "-1.5",
        ] {
            assert_eq!(first(json!(text)), None, "{text}");
        }
        assert_eq!(first(json!(1e300)), None);
        assert_eq!(first(json!(true)), None);
    }
}
