//! Where a link begins: `snapshot`, `now`, or a place in the log, as somebody writes it. Text and data only; where in the
//! log that is, `locate` finds out.

use std::fmt;

use crate::error::{Error, Result};
use crate::position::{GtidSet, log_file};

/// Where a link begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Beginning {
    /// With a copy of the table, beside the stream.
    #[default]
    Snapshot,
    /// With what is committed from here on.
    Now,
    /// Behind these transactions.
    Gtids(GtidSet),
    /// At a place in a file of the log.
    Place { file: String, offset: u64 },
    /// With the first transaction that the log says was committed at this moment or later, in microseconds since 1970.
    Moment(u64),
}

impl Beginning {
    pub const FORMS: &str = "`snapshot`, `now`, `gtid:<set>`, `file:<name>:<offset>` or `timestamp:2026-11-01T00:00:00Z`";

    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let form = |error: Error| error.with_advice(format!("write {}", Self::FORMS));
        match text {
            "snapshot" => return Ok(Self::Snapshot),
            "now" => return Ok(Self::Now),
            _ => {}
        }
        if let Some(set) = text.strip_prefix("gtid:") {
            return set.parse().map(Self::Gtids).map_err(form);
        }
        if let Some(moment) = text.strip_prefix("timestamp:") {
            let micros = micros(moment.trim())
                .ok_or_else(|| Error::input(format!("`{moment}` is no moment with its zone")));
            return micros.map(Self::Moment).map_err(form);
        }
        // Without the word too: nothing else looks like it.
        let place = text.strip_prefix("file:").unwrap_or(text);
        place_of(place)
            .ok_or_else(|| Error::input(format!("`{text}` is no beginning of a link")))
            .map_err(form)
    }
}

impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot => f.write_str("snapshot"),
            Self::Now => f.write_str("now"),
            Self::Gtids(set) => write!(f, "gtid:{set}"),
            Self::Place { file, offset } => write!(f, "file:{file}:{offset}"),
            Self::Moment(micros) => write!(f, "timestamp:{}", moment(*micros)),
        }
    }
}

/// `mysql-bin.000003:4`
fn place_of(text: &str) -> Option<Beginning> {
    let (file, offset) = text.rsplit_once(':')?;
    log_file(file)?;
    Some(Beginning::Place { file: file.to_owned(), offset: offset.parse().ok()? })
}

/// `2026-11-01T00:00:00.25+08:00` (RFC 3339) in microseconds since 1970, none of which is before.
fn micros(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { digits.parse().ok() } else { None }
    };
    let is = |at: usize, signs: &[u8]| text.as_bytes().get(at).is_some_and(|c| signs.contains(c));
    let has_form = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let is_date = (1970..=9999).contains(&year) && (1..=days_of(year, month)).contains(&day);
    if !has_form || !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut fraction = 0;
    if let Some(behind) = rest.strip_prefix('.') {
        let length = behind.bytes().take_while(u8::is_ascii_digit).count();
        fraction = (0..6).fold(0, |micros, at| {
            let digit = behind.as_bytes().get(at).filter(|_| at < length);
            micros * 10 + digit.map_or(0, |digit| i64::from(digit - b'0'))
        });
        rest = behind.get(length..).filter(|_| length > 0)?;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    u64::try_from((seconds - zone_seconds(rest)?) * 1_000_000 + fraction).ok()
}

/// `Z`, `+08:00`
fn zone_seconds(text: &str) -> Option<i64> {
    if text == "Z" || text == "z" {
        return Some(0);
    }
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number = |text: &str, max| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| is_number && *number <= max)
    };
    let seconds = number(hours, 23)? * 3_600 + number(minutes, 59)? * 60;
    match text.as_bytes().first()? {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// 0 for what is no month.
fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let years: i64 = (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum();
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    years + months + day - 1
}

/// A moment as [`Beginning::parse`] reads it, in UTC.
pub fn moment(micros: u64) -> String {
    let (seconds, fraction) = ((micros / 1_000_000) as i64, micros % 1_000_000);
    let (mut days, mut year, mut month) = (seconds / 86_400, 1970, 1);
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    while days >= days_of(year, month) {
        days -= days_of(year, month);
        month += 1;
    }
    let (hours, minutes, seconds) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hours:02}:{minutes:02}:{seconds:02}");
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    format!("{year:04}-{month:02}-{:02}T{clock}{fraction}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written() {
        for text in [
            "snapshot",
            "now",
            "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5",
            "gtid:0-1-5,7-2-9",
            "file:mysql-bin.000003:4",
            "timestamp:2026-11-01T00:00:00Z",
            "timestamp:2024-02-29T23:59:59.000250Z",
        ] {
            assert_eq!(Beginning::parse(text).expect("is one").to_string(), text);
        }
        let place = Beginning::parse("my.bin.000003:157").expect("is one");
        assert_eq!(place, Beginning::Place { file: "my.bin.000003".into(), offset: 157 });
        let east = Beginning::parse("timestamp: 2026-11-01T08:00:00.5+08:00").expect("is one");
        assert_eq!(east.to_string(), "timestamp:2026-11-01T00:00:00.500000Z");
    }

    #[test]
    fn what_is_none_is_refused_with_the_forms() {
        for text in [
            "",
            "today",
            "gtid:x",
            "file:mysql-bin.000003",
            "mysql-bin:4",
            "file:mysql-bin.000003:-4",
            "timestamp:2026-11-01",
            "timestamp:2026-11-01T00:00:00",
            "timestamp:2026-02-29T00:00:00Z",
            "timestamp:2026-11-01T24:00:00Z",
            "timestamp:2026-11-01T00:00:00.Z",
            "timestamp:2026-11-01T00:00:00+8:00",
            "timestamp:1969-12-31T00:00:00Z",
            "timestamp:2026-13-01T00:00:00Z",
            "timestamp:２026-01-01T00:00:00Z",
        ] {
            let refused = Beginning::parse(text).expect_err(text);
            assert!(refused.advice().is_some_and(|advice| advice.contains("timestamp:")), "{text}");
        }
    }
}
