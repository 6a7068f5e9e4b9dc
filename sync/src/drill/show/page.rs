//! A drill's report as one page of HTML: no script, no other file; the same from a mail, a disk or paper.

use super::super::report::{Ended, Report, What};
use super::axis::{Axis, steps};
use super::markup::Markup;
use super::{chart, sections, strip, words};

/// How it looks: on a screen, on a phone, in the dark, on paper.
const STYLE: &str = include_str!("page.css");

/// Nothing is loaded and nothing runs, should anything in a report ever get through the escapes.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The report as a page.
pub fn html(report: &Report) -> String {
    let mut page = Markup::page();
    let title = format!("{}: drill {}", words::verdict(report), report.id);
    page.inside("html", &[("lang", "en")], |page| {
        page.inside("head", &[], |page| {
            page.empty("meta", &[("charset", "utf-8")]);
            page.empty("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
            page.empty("meta", &[("name", "viewport"), ("content", "width=device-width,initial-scale=1")]);
            page.empty("meta", &[("name", "color-scheme"), ("content", "light dark")]);
            page.leaf("title", &[], &title);
            page.style(STYLE);
        });
        page.inside("body", &[], |page| {
            hatchings(page);
            page.inside("main", &[], |page| body(page, report));
        });
    });
    page.finish()
}

fn body(page: &mut Markup, report: &Report) {
    let axis = Axis::of(report);
    head(page, report);
    if report.outcome.ended != Ended::Skipped {
        cards(page, report);
    }
    sections::refused(page, report);
    sections::objectives(page, report);
    if !report.timeline.is_empty() {
        section(page, "What happened", |page| strip::timeline(page, report, &axis));
    }
    sections::phases(page, report);
    charts(page, report, &axis);
    if report.outcome.ended != Ended::Skipped {
        sections::ledger(page, report);
        sections::visits(page, report);
    }
    sections::previous(page, report);
    sections::checks(page, report);
    sections::notes(page, report);
    sections::scenario(page, report);
    sections::provenance(page, report);
}

fn head(page: &mut Markup, report: &Report) {
    let verdict = words::verdict(report);
    let (class, sign) = match verdict {
        "MET" => ("verdict met", "✓"),
        "NOT MET" => ("verdict missed", "✕"),
        "ABORTED" => ("verdict ended", "■"),
        _ => ("verdict skipped", "–"),
    };
    page.inside("header", &[], |page| {
        page.leaf("p", &[("class", "over")], &format!("Failover drill, fleet {}", named(&report.fleet)));
        page.inside("h1", &[], |page| {
            page.text(&words::scenario(report));
            page.leaf("span", &[("class", "on")], " on ");
            page.text(named(&report.target));
        });
        page.inside("div", &[("class", class)], |page| {
            page.leaf("span", &[("class", "sign"), ("aria-hidden", "true")], sign);
            page.inside("div", &[], |page| {
                page.leaf("strong", &[], verdict);
                page.leaf("p", &[], &words::sentence(report));
                if !report.outcome.why.is_empty() {
                    page.leaf(
                        "p",
                        &[],
                        &format!("How it ended: {}.", report.outcome.why.trim_end_matches('.')),
                    );
                }
            });
        });
        if report.break_glass {
            page.inside("p", &[("class", "warning")], |page| {
                page.leaf("strong", &[], "Break glass: ");
                page.text("the drill was begun against the rules, on the word of the person named here.");
            });
        }
        page.inside("dl", &[("class", "facts")], |page| {
            let begun = words::moment(report.begun_unix_ms);
            let facts = [("begun", begun.as_str()), ("by", named(&report.by)), ("why", named_reason(report))];
            for (name, value) in facts {
                page.inside("div", &[], |page| {
                    page.leaf("dt", &[], name);
                    page.leaf("dd", &[], value);
                });
            }
        });
    });
}

fn named_reason(report: &Report) -> &str {
    if report.reason.trim().is_empty() { "no reason was given" } else { &report.reason }
}

/// A name, or that there is none.
pub(super) fn named(name: &str) -> &str {
    if name.trim().is_empty() { "unknown" } else { name }
}

/// The four numbers that one looks for.
fn cards(page: &mut Markup, report: &Report) {
    page.inside("div", &[("class", "cards")], |page| {
        let (time, about) = recovery_time(report);
        card(page, "Recovery time", &time, &about);
        let (point, about) = recovery_point(report);
        card(page, "Recovery point", &point, &about);
        let visits = &report.visits;
        let about = match visits.all {
            0 => "nobody visited".to_owned(),
            all => {
                let (failed, all) = (words::count(visits.failed), words::count(all));
                let (worst, allowed) = (visits.worst_percent, visits.allowed_percent);
                let (worst, allowed) = (words::percent(worst), words::percent(allowed));
                format!("{failed} of {all}; {worst} in the worst ten seconds, {allowed} allowed")
            }
        };
        let share = if visits.all == 0 { "not measured".to_owned() } else { words::failed_share(visits) };
        card(page, "Visits failed", &share, &about);
        let failed = words::between(report.injected_unix_ms, report.undone_unix_ms);
        let all = words::seconds(report.ended_unix_ms.saturating_sub(report.begun_unix_ms));
        let (long, about) = match (failed, report.injected_unix_ms) {
            (Some(ms), _) => (words::seconds(ms), format!("of faults; the whole drill took {all}")),
            (None, Some(_)) => {
                ("unknown".to_owned(), format!("when the faults ended; the whole drill took {all}"))
            }
            (None, None) => ("none".to_owned(), "nothing was injected".to_owned()),
        };
        card(page, "Duration", &long, &about);
    });
}

fn card(page: &mut Markup, name: &str, value: &str, about: &str) {
    page.inside("div", &[("class", "card")], |page| {
        page.leaf("h2", &[], name);
        page.leaf("p", &[("class", "value")], value);
        page.leaf("p", &[("class", "about")], about);
    });
}

/// From the first fault until 99 in 100 users were served elsewhere.
fn recovery_time(report: &Report) -> (String, String) {
    let moved =
        words::between(report.injected_unix_ms, report.first(What::Moved).map(|mark| mark.at_unix_ms));
    let wanted = report.verdict.objectives.iter().find(|one| one.name == "rto");
    let wanted = wanted.map_or(String::new(), |one| format!("; wanted {}", one.wanted));
    let moves = report.scenario.as_ref().is_none_or(|scenario| scenario.moves_all_users());
    match moved {
        Some(ms) => {
            (words::seconds(ms), format!("from the fault until 99% of users were served elsewhere{wanted}"))
        }
        None if report.injected_unix_ms.is_none() => {
            ("not measured".to_owned(), "nothing was injected".to_owned())
        }
        None if !moves => ("none".to_owned(), "this failure moves no users, or not all of them".to_owned()),
        None => ("not reached".to_owned(), format!("99% of users were never seen elsewhere{wanted}")),
    }
}

fn recovery_point(report: &Report) -> (String, String) {
    let ledger = &report.ledger;
    if ledger.acknowledged == 0 {
        return ("not measured".to_owned(), "no write was acknowledged".to_owned());
    }
    let about = format!("of {} acknowledged writes, counted one by one", words::count(ledger.acknowledged));
    (format!("{} lost", words::count(ledger.lost)), about)
}

/// A section with its heading.
pub(super) fn section(page: &mut Markup, title: &str, fill: impl FnOnce(&mut Markup)) {
    page.inside("section", &[], |page| {
        page.leaf("h2", &[], title);
        fill(page);
    });
}

fn charts(page: &mut Markup, report: &Report, axis: &Axis) {
    let series = &report.series;
    let has_steps = steps(series) > 0;
    type Chart = fn(&mut Markup, &Report, &Axis);
    let charts: [(&str, bool, Chart); 4] = [
        ("Visits by witness", has_steps && !series.witnesses.is_empty(), chart::visits),
        ("Where users were sent", has_steps && !series.placed.is_empty(), chart::placed),
        ("Lag between stores", has_steps && !series.lags.is_empty(), chart::lags),
        ("States of datacenters", !series.states.is_empty(), chart::states),
    ];
    if charts.iter().all(|(_, is_there, _)| !is_there) {
        return;
    }
    section(page, "How it went over time", |page| {
        let text = format!("All charts have the same axis: time from {}.", words::zero(report));
        page.leaf("p", &[], &text);
        for (title, _, draw) in charts.into_iter().filter(|(_, is_there, _)| *is_there) {
            page.inside("figure", &[], |page| {
                page.leaf("h3", &[], title);
                draw(page, report, axis);
            });
        }
    });
}

/// Hatchings, so that no two states differ by colour alone. Here once for all charts.
fn hatchings(page: &mut Markup) {
    /// Name, and the lines of one tile of eight by eight.
    const TILES: [(&str, &str); 5] = [
        ("unknown", "M-1 9L9 -1M-1 1L1 -1M7 9L9 7"),
        ("down", "M0 0L8 8M8 0L0 8"),
        ("draining", "M-1 -1L9 9M-1 7L1 9M7 -1L9 1"),
        ("catching-up", "M0 4H8"),
        ("ramping", "M4 0V8"),
    ];
    page.inside("svg", &[("class", "hatchings"), ("aria-hidden", "true")], |page| {
        page.inside("defs", &[], |page| {
            for (name, lines) in TILES {
                let id = format!("hatch-{name}");
                let size = [("width", "8"), ("height", "8"), ("patternUnits", "userSpaceOnUse")];
                let attributes = [&[("id", id.as_str()), ("class", name)], &size[..]].concat();
                page.inside("pattern", &attributes, |page| {
                    page.empty("rect", &[("width", "8"), ("height", "8")]);
                    page.empty("path", &[("d", lines)]);
                });
            }
        });
    });
}
