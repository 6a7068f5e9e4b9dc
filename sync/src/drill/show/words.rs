//! The words, numbers and moments that text and page have in common.

use std::time::{Duration, UNIX_EPOCH};

use super::super::report::{Ended, Mark, Report, Visits, What};

/// The first second of the year 10000, of which the formatter has no form.
const YEARS_END_S: u64 = 253_402_300_800;

/// The verdict in one word.
pub(super) fn verdict(report: &Report) -> &'static str {
    match (report.outcome.ended, report.verdict.is_met) {
        (Ended::Skipped, _) => "SKIPPED",
        (Ended::Aborted, _) => "ABORTED",
        (_, true) => "MET",
        (_, false) => "NOT MET",
    }
}

/// The verdict in one sentence.
pub(super) fn sentence(report: &Report) -> String {
    let objectives = &report.verdict.objectives;
    let missed: Vec<&str> =
        objectives.iter().filter(|one| !one.is_met).map(|one| one.name.as_str()).collect();
    let measured = match (objectives.len(), missed.len()) {
        (0, _) => "No objective was measured.".to_owned(),
        (1, 0) => "The one objective was met.".to_owned(),
        (all, 0) => format!("All {all} objectives were met."),
        (all, some) => format!("{some} of {all} objectives not met: {}.", missed.join(", ")),
    };
    match report.outcome.ended {
        Ended::Skipped => "Nothing was made to fail: the drill did not begin.".to_owned(),
        Ended::Aborted => format!("The drill was ended before its time. {measured}"),
        Ended::Expired => format!("{measured} The agents' own timers ended the drill, as nobody else did."),
        Ended::Done => measured,
    }
}

/// What happened, in a few words.
pub(super) fn what(what: What) -> &'static str {
    match what {
        What::Armed => "armed",
        What::Injected => "injected",
        What::Suspected => "suspected",
        What::Voted => "voted down",
        What::Decided => "decided",
        What::NameServerChanged => "name server changed",
        What::NameServerSilent => "name server silent",
        What::NameServerBack => "name server back",
        What::FirstUserElsewhere => "first user elsewhere",
        What::Moved => "99% moved",
        What::Writable => "writable elsewhere",
        What::Undone => "undone",
        What::Restored => "first user back",
        What::Ramped => "all users back",
        What::Converged => "stores converged",
        What::Noted => "noted",
    }
}

/// Text of others, without what would move a cursor or turn the order of the letters around it.
pub(super) fn clean(text: &str) -> String {
    let turns = |letter: char| {
        letter == '\u{061c}'
            || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|letter| if letter.is_control() || turns(letter) { ' ' } else { letter }).collect()
}

/// A length of time: `1.24 s`, and `3 min 20 s` where hundredths say nothing.
pub(super) fn seconds(ms: u64) -> String {
    match ms / 1000 {
        0..120 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        s @ 120..7200 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// A length of time that may not have come to its end.
pub(super) fn phase(ms: Option<u64>) -> String {
    ms.map_or_else(|| "did not come".to_owned(), seconds)
}

/// By how much a phase took longer or less long than the time before.
pub(super) fn change(then: Option<u64>, now: Option<u64>) -> String {
    match (then, now) {
        (Some(then), Some(now)) if now > then => format!("{} slower", seconds(now - then)),
        (Some(then), Some(now)) if now < then => format!("{} faster", seconds(then - now)),
        (Some(_), Some(_)) => "the same".to_owned(),
        (Some(_), None) => "no longer came".to_owned(),
        (None, Some(_)) => "came this time".to_owned(),
        (None, None) => "neither time".to_owned(),
    }
}

/// By how many there are more or fewer than the time before.
pub(super) fn more(then: u64, now: u64) -> String {
    match now.cmp(&then) {
        std::cmp::Ordering::Greater => format!("{} more", count(now - then)),
        std::cmp::Ordering::Less => format!("{} fewer", count(then - now)),
        std::cmp::Ordering::Equal => "the same".to_owned(),
    }
}

/// A number with its thousands apart: `1,812`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A percentage: `0.4%`.
pub(super) fn percent(percent: f64) -> String {
    if percent.is_finite() { format!("{percent:.1}%") } else { "unknown".to_owned() }
}

/// How many of the visits failed, as a percentage. The smallest that is not nought stays distinct from it.
pub(super) fn failed_share(visits: &Visits) -> String {
    match (visits.all, visits.failed) {
        (0, _) => "no visits".to_owned(),
        (all, failed) if failed > 0 && (failed as f64) < all as f64 / 2000.0 => "under 0.1%".to_owned(),
        (all, failed) => percent(failed as f64 * 100.0 / all as f64),
    }
}

/// A moment in the form of RFC 3339, in UTC.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    if unix_ms / 1000 >= YEARS_END_S {
        return format!("{unix_ms} ms of Unix time");
    }
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// A moment for a page: `2026-11-22 10:15:00.000 UTC`.
pub(super) fn moment(unix_ms: u64) -> String {
    rfc3339(unix_ms).replacen('T', " ", 1).replacen('Z', " UTC", 1)
}

/// The moment from which others are counted: the first fault, else the arming.
pub(super) fn zero_unix_ms(report: &Report) -> u64 {
    report.injected_unix_ms.unwrap_or(report.begun_unix_ms)
}

/// What moments are counted from, in words.
pub(super) fn zero(report: &Report) -> &'static str {
    if report.injected_unix_ms.is_some() { "the first fault" } else { "the arming" }
}

/// A moment from another one: `+1.240 s`.
pub(super) fn relative(zero_unix_ms: u64, at_unix_ms: u64) -> String {
    let (sign, apart) = match at_unix_ms.checked_sub(zero_unix_ms) {
        Some(after) => ('+', after),
        None => ('-', zero_unix_ms - at_unix_ms),
    };
    format!("{sign}{}.{:03} s", apart / 1000, apart % 1000)
}

/// An objective's name, spelled out where it is a set phrase.
pub(super) fn objective(name: &str) -> String {
    match name {
        "rto" => "recovery time (rto)".to_owned(),
        "rpo" => "recovery point (rpo)".to_owned(),
        other => clean(other),
    }
}

/// The name of the scenario, as far as it is known.
pub(super) fn scenario(report: &Report) -> String {
    report.scenario.as_ref().map_or_else(|| "unknown scenario".to_owned(), |found| clean(&found.name))
}

/// From one moment to another, if both came.
pub(super) fn between(from_unix_ms: Option<u64>, to_unix_ms: Option<u64>) -> Option<u64> {
    Some(to_unix_ms?.saturating_sub(from_unix_ms?))
}

/// The ledger's counts, each with what it means.
pub(super) fn ledger(report: &Report) -> [(&'static str, u64, &'static str); 7] {
    let ledger = &report.ledger;
    [
        ("acknowledged", ledger.acknowledged, "records that a writer was promised"),
        ("present", ledger.present, "of them, in every survivor in the end"),
        ("late", ledger.late, "of the present, in no survivor when the faults ended"),
        ("lost", ledger.lost, "acknowledged, and not in every survivor in the end"),
        ("duplicated", ledger.duplicated, "written more than once, as a user without a reply does"),
        ("unacknowledged", ledger.unacknowledged, "there, though no writer was told so"),
        ("failed tries", ledger.failed, "writes refused or without a reply in time, each try counted"),
    ]
}

/// What is told of a mark, with how much earlier it may have been.
pub(super) fn said(mark: &Mark) -> String {
    match mark.within_ms {
        0 => mark.text.clone(),
        ms => format!("{} (or up to {ms} ms earlier)", mark.text),
    }
}
