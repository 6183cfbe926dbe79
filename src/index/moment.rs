//! Dates as `strict_date_optional_time||epoch_millis` has them, to milliseconds since 1970. Pure.

use serde_json::Value;

/// The format that a date field has when its mapping names none, and the only one that is understood.
pub(super) const FORMAT: &str = "strict_date_optional_time||epoch_millis";

/// The milliseconds that a value of a document or a query stands for.
pub(super) fn millis(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text_millis(text),
        _ => None,
    }
}

fn text_millis(text: &str) -> Option<i64> {
    let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|b| b.is_ascii_digit());
    // Four digits are a year.
    if is_number && text.len() > 4 {
        return text.parse().ok();
    }
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
    match time {
        None | Some("") => Some(midnight),
        Some(time) => {
            let (clock, offset) = split_zone(time)?;
            Some(midnight + clock_millis(clock)? - offset)
        }
    }
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

fn clock_millis(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':');
    let hour = digits(parts.next()?, 2)?;
    let minute = parts.next().map_or(Some(0), |part| digits(part, 2))?;
    let (second, fraction) = match parts.next() {
        None => (0, 0),
        Some(part) => match part.split_once('.') {
            None => (digits(part, 2)?, 0),
            Some((second, fraction)) => (digits(second, 2)?, fraction_millis(fraction)?),
        },
    };
    let is_clock = parts.next().is_none() && hour < 24 && minute < 60 && second < 60;
    is_clock.then_some(((hour * 60 + minute) * 60 + second) * 1000 + fraction)
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
        ] {
            assert_eq!(millis(&json!(text)), Some(expected), "{text}");
        }
        assert_eq!(millis(&json!(17)), Some(17));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "now", "2026-13-01", "2025-02-29", "2026-03-04 05:06:07", "2026-3-4", "x"]
        {
            assert_eq!(millis(&json!(text)), None, "{text}");
        }
        assert_eq!(millis(&json!(1.5)), None);
        assert_eq!(millis(&json!(true)), None);
    }
}
