//! Dates and times as digits, on the stack. Knows neither JSON nor keys, which both need them.

/// The longest is a DATETIME of impossible numbers with fraction and zone: 34 bytes.
const LONGEST: usize = 40;

/// The text of a date, a time or both.
pub(super) struct Moment {
    bytes: [u8; LONGEST],
    len: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Date {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}

#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub hours: u16,
    pub minutes: u8,
    pub seconds: u8,
    pub micros: u32,
}

impl Date {
    /// MySQL's zero date and the dates without month or day are no days of any calendar.
    pub fn is_partial(self) -> bool {
        self.month == 0 || self.day == 0
    }
}

impl Moment {
    fn empty() -> Self {
        Self { bytes: [0; LONGEST], len: 0 }
    }

    pub fn of_date(date: Date) -> Self {
        let mut moment = Self::empty();
        moment.date(date);
        moment
    }

    pub fn of_time(negative: bool, clock: Clock, fsp: u8) -> Self {
        let mut moment = Self::empty();
        let is_zero = (clock.hours, clock.minutes, clock.seconds, clock.micros) == (0, 0, 0, 0);
        if negative && !is_zero {
            moment.push(b'-');
        }
        moment.clock(clock, fsp);
        moment
    }

    pub fn of_date_time(date: Date, clock: Clock, fsp: u8, utc: bool) -> Self {
        let mut moment = Self::of_date(date);
        moment.push(b'T');
        moment.clock(clock, fsp);
        if utc {
            moment.push(b'Z');
        }
        moment
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("digits and signs are ASCII")
    }

    fn date(&mut self, date: Date) {
        self.number(date.year.into(), 4);
        self.push(b'-');
        self.number(date.month.into(), 2);
        self.push(b'-');
        self.number(date.day.into(), 2);
    }

    fn clock(&mut self, clock: Clock, fsp: u8) {
        self.number(clock.hours.into(), 2);
        self.push(b':');
        self.number(clock.minutes.into(), 2);
        self.push(b':');
        self.number(clock.seconds.into(), 2);
        let digits = usize::from(fsp.min(6));
        if digits > 0 {
            self.push(b'.');
            let unit = 10u32.pow(6 - digits as u32);
            self.number(clock.micros.min(999_999) / unit, digits);
        }
    }

    /// At least `width` digits, filled with zeros.
    fn number(&mut self, mut number: u32, width: usize) {
        let mut digits = [b'0'; 10];
        let mut first = digits.len();
        while number > 0 {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        for digit in &digits[first.min(digits.len() - width)..] {
            self.push(*digit);
        }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}

/// Day and time of day in UTC of a number of seconds since 1970.
pub(super) fn utc(seconds: u32, micros: u32) -> (Date, Clock) {
    const DAYS_IN_400_YEARS: u32 = 146_097;
    // Counted from 1 March of the year 0, so that a leap day is the last day of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    let date = Date { year: year as u16, month: month as u8, day: day as u8 };
    let rest = seconds % 86_400;
    let (minutes, seconds) = ((rest / 60 % 60) as u8, (rest % 60) as u8);
    (date, Clock { hours: (rest / 3_600) as u16, minutes, seconds, micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(seconds: u32) -> String {
        let (date, clock) = utc(seconds, 0);
        Moment::of_date_time(date, clock, 0, true).as_str().to_owned()
    }

    #[test]
    fn seconds_become_days_of_the_calendar() {
        assert_eq!(text_of(1), "1970-01-01T00:00:01Z");
        assert_eq!(text_of(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(text_of(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text_of(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(text_of(2_147_483_647), "2038-01-19T03:14:07Z");
        assert_eq!(text_of(u32::MAX), "2106-02-07T06:28:15Z");
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let mut before = (1970, 1, 0);
        for day in 0..u32::MAX / 86_400 {
            let (Date { year, month, day }, _) = utc(day * 86_400, 0);
            let follows = match (year - before.0, month, day) {
                (0, m, d) if m == before.1 => d == before.2 + 1,
                (0, m, 1) => m == before.1 + 1 && before.2 >= 28,
                (1, 1, 1) => (before.1, before.2) == (12, 31),
                _ => false,
            };
            assert!(follows, "{before:?} then {year}-{month}-{day}");
            before = (year, month, day);
        }
    }

    #[test]
    fn impossible_numbers_fit_too() {
        let date = Date { year: u16::MAX, month: u8::MAX, day: u8::MAX };
        let clock = Clock { hours: u16::MAX, minutes: 255, seconds: 255, micros: u32::MAX };
        let moment = Moment::of_date_time(date, clock, 9, true);
        assert_eq!(moment.as_str(), "65535-255-255T65535:255:255.999999Z");
    }
}
