//! Windows and dates against a calendar that is walked day by day.

use proptest::prelude::*;

use super::*;

/// The calendar from 1970-01-01 on, one day after the other, with the number of its weekday from Monday.
fn calendar() -> impl Iterator<Item = ((u64, u64, u64), usize)> {
    let next = |&((year, month, day), weekday): &((u64, u64, u64), usize)| {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let date = match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            _ if day == last => (year, month + 1, 1),
            _ => (year, month, day + 1),
        };
        Some((date, (weekday + 1) % 7))
    };
    std::iter::successors(Some(((1970, 1, 1), 3)), next)
}

/// Milliseconds of a text such as `2026-11-22 10:15`.
fn at(text: &str) -> u64 {
    let (date, time) = text.split_once(' ').unwrap();
    parse_date(date).unwrap() * DAY_MS + minute_of_day(time).unwrap() * MINUTE_MS
}

fn window(text: &str) -> Window {
    Window::parse(text).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn every_day_of_five_hundred_years() {
    for (days, (date, weekday)) in (0..183_000).zip(calendar()) {
        assert_eq!(days_from_civil(date), days, "{date:?}");
        assert_eq!(civil_from_days(days), date, "day {days}");
        let noon = window(&format!("{} 12:00-12:01", WEEKDAYS[weekday]));
        assert!(noon.contains(days * DAY_MS + DAY_MS / 2), "{date:?} is a {}", WEEKDAYS[weekday]);
    }
}

#[test]
fn days_that_are_known() {
    for (date, days) in
        [("1970-01-01", 0), ("1999-12-31", 10_956), ("2000-02-29", 11_016), ("9999-12-31", 2_932_896)]
    {
        assert_eq!(parse_date(date), Some(days), "{date}");
    }
    assert!(window("thu 00:00-24:00").contains(0), "the first day was a Thursday");
    assert!(window("sun 10:00-11:00").contains(at("2026-11-22 10:15")));
}

#[test]
fn an_occurrence_is_found() {
    let tuesdays = window("tue 10:00-11:00");
    let this = (at("2026-11-24 10:00"), at("2026-11-24 11:00"));
    for (now, expected) in [
        ("2026-11-22 10:15", this),
        ("2026-11-24 09:59", this),
        ("2026-11-24 10:00", this),
        ("2026-11-24 10:59", this),
        ("2026-11-24 11:00", (at("2026-12-01 10:00"), at("2026-12-01 11:00"))),
    ] {
        assert_eq!(tuesdays.next(at(now)), expected, "{now}");
        assert_eq!(tuesdays.contains(at(now)), expected.0 <= at(now), "{now}");
    }
    assert!(tuesdays.contains(this.1 - 1) && !tuesdays.contains(this.1), "the last moment is not in it");
}

#[test]
fn midnight_and_the_end_of_the_week_are_crossed() {
    let night = window("sun 23:00-01:00");
    let this = (at("2026-11-22 23:00"), at("2026-11-23 01:00"));
    for now in ["2026-11-22 23:00", "2026-11-22 23:59", "2026-11-23 00:00", "2026-11-23 00:59"] {
        assert!(night.contains(at(now)), "{now}");
        assert_eq!(night.next(at(now)), this, "{now}");
    }
    assert!(!night.contains(this.1));
    assert_eq!(window("wed 23:00-01:00").next(0), (0, 60 * MINUTE_MS), "time begins in the middle of it");
    for at_the_end in [u64::MAX, u64::MAX - DAY_MS] {
        let (start, end) = night.next(at_the_end);
        assert!(start <= end, "no time is too late to ask");
    }
}

#[test]
fn texts_and_what_is_shown_of_them() {
    for (text, shown) in [
        ("tue 10:00-11:00", "tue 10:00-11:00"),
        ("Fri 15:00-24:00", "fri 15:00-24:00"),
        ("fri 15:00-00:00", "fri 15:00-24:00"),
        ("sun 23:30-01:05", "sun 23:30-01:05"),
        ("mon 00:00-24:00", "mon 00:00-24:00"),
        ("mon 00:01-00:00", "mon 00:01-24:00"),
        ("2026-12-24..2026-12-27", "2026-12-24..2026-12-27"),
        ("2028-02-29", "2028-02-29"),
        ("2028-02-29..2028-02-29", "2028-02-29"),
    ] {
        assert_eq!(Blocked::parse(text).map(|read| read.to_string()).as_deref(), Some(shown), "{text}");
    }
    for wrong in [
        "",
        "tue",
        "tue 10:00",
        "tuesday 10:00-11:00",
        "tue  10:00-11:00",
        "tue 10:00-10:00",
        "tue 00:00-00:00",
        "tue 24:00-01:00",
        "tue 10:00-24:01",
        "tue 10:60-11:00",
        "tue 1:00-11:00",
        "tue +1:00-11:00",
        "2026-12-27..2026-12-24",
        "2026-02-29",
        "2100-02-29",
        "2026-13-01",
        "2026-00-01",
        "2026-01-00",
        "2026-04-31",
        "1969-12-31",
        "26-12-24",
        "2026-12-24..",
        "2026-12-24..2026-12-25..2026-12-26",
    ] {
        assert_eq!(Blocked::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn dates_are_whole_days_and_then_past() {
    let christmas = Blocked::parse("2026-12-24..2026-12-27").unwrap();
    let bounds = (at("2026-12-24 00:00"), at("2026-12-27 24:00"));
    assert_eq!(christmas.next(0), Some(bounds));
    for (now, is_in) in [(bounds.0 - 1, false), (bounds.0, true), (bounds.1 - 1, true), (bounds.1, false)] {
        assert_eq!(christmas.contains(now), is_in, "{now}");
    }
    assert_eq!((christmas.next(bounds.0), christmas.next(bounds.1)), (Some(bounds), None));
    let fridays = Blocked::parse("fri 15:00-24:00").unwrap();
    assert!(fridays.contains(at("2026-11-27 15:00")) && !fridays.contains(at("2026-11-28 00:00")));
}

proptest! {
    /// Minute by minute, by the calendar: the same.
    #[test]
    fn a_window_is_what_the_calendar_says(
        weekday in 0..7_usize,
        start in 0..DAY_MINUTES,
        length in 1..=DAY_MINUTES,
        days in 8..20_000_usize,
        minute in 0..DAY_MINUTES,
    ) {
        let end = (start + length - 1) % DAY_MINUTES + 1;
        let clock = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
        let text = format!("{} {}-{}", WEEKDAYS[weekday], clock(start), clock(end));
        // From midnight to midnight it is written in no other way than this; a whole day from noon cannot be written.
        prop_assume!(end != start);
        let window = Window::parse(&text).unwrap();
        prop_assert_eq!(Window::parse(&window.to_string()), Some(window));

        let now = days as u64 * DAY_MS + minute * MINUTE_MS;
        let starts = calendar().enumerate().take(days + 9).filter(|(_, (_, day))| *day == weekday);
        let found = starts
            .map(|(day, _)| day as u64 * DAY_MS + start * MINUTE_MS)
            .map(|start| (start, start + length * MINUTE_MS))
            .find(|(_, end)| now < *end)
            .unwrap();
        prop_assert_eq!(window.next(now), found);
        prop_assert_eq!(window.contains(now), found.0 <= now);
    }

    /// Dates are where the calendar has them.
    #[test]
    fn dates_are_what_the_calendar_says(first in 0..60_000_usize, more in 0..400_usize) {
        let mut days = calendar().skip(first).map(|((year, month, day), _)| format!("{year}-{month:02}-{day:02}"));
        let from = days.next().unwrap();
        let to = if more == 0 { from.clone() } else { days.nth(more - 1).unwrap() };
        let dates = Dates::parse(&format!("{from}..{to}")).unwrap();
        let shown = dates.to_string();
        prop_assert_eq!(Dates::parse(&shown), Some(dates), "{}", shown);
        prop_assert_eq!(dates.bounds(), (first as u64 * DAY_MS, (first + more + 1) as u64 * DAY_MS));
    }

    /// Whatever is written, nothing panics, and what is read shows itself so that it is read again.
    #[test]
    fn any_text(text in "(mon|sun|xyz)? ?[0-9:. -]{0,24}|\\PC{0,20}") {
        if let Some(read) = Blocked::parse(&text) {
            prop_assert_eq!(Blocked::parse(&read.to_string()), Some(read));
        }
    }
}
