//! When drills may begin and when they may not: windows that come back every week, and dates, all in UTC.
//!
//! Times are milliseconds since 1970-01-01T00:00:00Z and come in as arguments. UTC alone, since the datacenters are in
//! many zones and one config is for all: an hour that summer time skips or repeats would make two agents disagree.

use std::fmt;

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;
/// Minutes of a day.
const DAY_MINUTES: u64 = 24 * 60;
/// Milliseconds of a day.
const DAY_MS: u64 = DAY_MINUTES * MINUTE_MS;
/// Milliseconds of a week.
const WEEK_MS: u64 = 7 * DAY_MS;
/// 1970-01-01 was a Thursday: so much of its week was over.
const EPOCH_IN_WEEK_MS: u64 = 3 * DAY_MS;
/// As they are written; weeks begin with Monday.
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A time of the week, at most a day long, that begins on a certain day: `tue 10:00-11:00`. It may cross midnight and
/// the end of the week: `sun 23:00-01:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Since Monday, 00:00.
    start_minute: u64,
    /// From 1 to those of a day.
    length_minutes: u64,
}

impl Window {
    /// `DAY HH:MM-HH:MM`, the second up to `24:00`; if it is before the first it is on the next day. None: it is not that,
    /// or the window is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let (day, times) = text.split_once(' ')?;
        let day = WEEKDAYS.iter().position(|weekday| day.eq_ignore_ascii_case(weekday))?;
        let (start, end) = times.split_once('-')?;
        let start = minute_of_day(start).filter(|&start| start < DAY_MINUTES)?;
        let end = minute_of_day(end)?;
        let length_minutes = if end < start { end + DAY_MINUTES - start } else { end - start };
        let start_minute = u64::try_from(day).ok()? * DAY_MINUTES + start;
        (length_minutes > 0).then_some(Self { start_minute, length_minutes })
    }

    /// Whether this moment is in it. The first belongs to it, the last does not.
    pub fn contains(&self, unix_ms: u64) -> bool {
        self.since_start_ms(unix_ms) < self.length_ms()
    }

    /// Start and end of the occurrence that contains this moment, or of the next one. What began before 1970 starts at 0.
    pub fn next(&self, unix_ms: u64) -> (u64, u64) {
        let since = self.since_start_ms(unix_ms);
        if since < self.length_ms() {
            let end = unix_ms.saturating_add(self.length_ms() - since);
            return (unix_ms.saturating_sub(since), end);
        }
        let start = unix_ms.saturating_add(WEEK_MS - since);
        (start, start.saturating_add(self.length_ms()))
    }

    fn length_ms(&self) -> u64 {
        self.length_minutes * MINUTE_MS
    }

    /// Since the last time that it began.
    fn since_start_ms(&self, unix_ms: u64) -> u64 {
        (unix_ms % WEEK_MS + EPOCH_IN_WEEK_MS + WEEK_MS - self.start_minute * MINUTE_MS) % WEEK_MS
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, start) = (self.start_minute / DAY_MINUTES, self.start_minute % DAY_MINUTES);
        let weekday = usize::try_from(days).ok().and_then(|day| WEEKDAYS.get(day)).unwrap_or(&"");
        let end = start + self.length_minutes;
        // The end of a day is `24:00`: `00:00` would be its beginning.
        let end = if end > DAY_MINUTES { end - DAY_MINUTES } else { end };
        write!(f, "{weekday} {:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60)
    }
}

/// `HH:MM`, up to `24:00`.
fn minute_of_day(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2).filter(|&minutes| minutes < 60)?);
    Some(hours * 60 + minutes).filter(|&minute| minute <= DAY_MINUTES)
}

/// A number of exactly so many digits: no sign, no space.
fn digits(text: &str, count: usize) -> Option<u64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Whole days, both ends among them: `2026-12-24..2026-12-27`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dates {
    /// Days since 1970-01-01.
    first_day: u64,
    /// The last of them.
    last_day: u64,
}

impl Dates {
    /// `YYYY-MM-DD..YYYY-MM-DD`, or one date alone, in the years 1970 to 9999. None: it is not that, there is no such date, or
    /// the last is before the first.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let (first_day, last_day) = (parse_date(first)?, parse_date(last)?);
        (first_day <= last_day).then_some(Self { first_day, last_day })
    }

    /// Start of the first day, and end of the last.
    pub fn bounds(&self) -> (u64, u64) {
        (self.first_day * DAY_MS, (self.last_day + 1) * DAY_MS)
    }
}

impl fmt::Display for Dates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_date(f, self.first_day)?;
        if self.last_day > self.first_day {
            f.write_str("..")?;
            write_date(f, self.last_day)?;
        }
        Ok(())
    }
}

fn write_date(f: &mut fmt::Formatter<'_>, day: u64) -> fmt::Result {
    let (year, month, day) = civil_from_days(day);
    write!(f, "{year:04}-{month:02}-{day:02}")
}

/// Days since 1970-01-01 of a date that there is.
fn parse_date(text: &str) -> Option<u64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let date = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    if date.0 < 1970 || !(1..=12).contains(&date.1) || !(1..=31).contains(&date.2) {
        return None;
    }
    let days = days_from_civil(date);
    // The 30th of February comes back as the 1st or 2nd of March.
    (civil_from_days(days) == date).then_some(days)
}

/// Days of 400 years, after which the calendar repeats itself.
const ERA_DAYS: u64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// Days since 1970-01-01 of year, month from 1, day from 1; from 1970 on. (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms": a year that begins in March has its leap day at its end.)
fn days_from_civil((year, month, day): (u64, u64, u64)) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

/// The other way round.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// A time in which no drill begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blocked {
    /// Every week.
    Weekly(Window),
    /// Once.
    Dates(Dates),
}

impl Blocked {
    /// As either is written. None: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let weekly = Window::parse(text).map(Blocked::Weekly);
        weekly.or_else(|| Dates::parse(text).map(Blocked::Dates))
    }

    /// Whether this moment is in it.
    pub fn contains(&self, unix_ms: u64) -> bool {
        self.next(unix_ms).is_some_and(|(start, end)| (start..end).contains(&unix_ms))
    }

    /// Start and end of the occurrence that contains this moment, or of the next one. None: it is past.
    pub fn next(&self, unix_ms: u64) -> Option<(u64, u64)> {
        match self {
            Blocked::Weekly(window) => Some(window.next(unix_ms)),
            Blocked::Dates(dates) => Some(dates.bounds()).filter(|&(_, end)| unix_ms < end),
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::Weekly(window) => window.fmt(f),
            Blocked::Dates(dates) => dates.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
