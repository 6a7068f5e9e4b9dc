//! The tables of a page.

use daemun_fleet::drill::Scenario;

use super::super::report::Report;
use super::markup::Markup;
use super::page::{named, section};
use super::words;

/// A table in a box of its own, which scrolls where the screen is narrower.
fn table(page: &mut Markup, head: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) {
    let mut rows = rows.into_iter().peekable();
    // A heading stands as the cells below it do.
    let classes: Vec<&str> = rows.peek().into_iter().flatten().map(|cell| cell.class).collect();
    let label = format!("table: {}", head.join(", "));
    // A box that scrolls has to be reached by keyboard too.
    let attributes =
        [("class", "table"), ("tabindex", "0"), ("role", "group"), ("aria-label", label.as_str())];
    page.inside("div", &attributes, |page| {
        page.inside("table", &[], |page| {
            page.inside("thead", &[], |page| {
                page.inside("tr", &[], |page| {
                    for (name, class) in head.iter().zip(&classes) {
                        page.leaf("th", &[("scope", "col"), ("class", class)], name);
                    }
                });
            });
            page.inside("tbody", &[], |page| {
                for row in rows {
                    page.inside("tr", &[], |page| {
                        row.iter().for_each(|cell| page.leaf("td", &[("class", cell.class)], &cell.text));
                    });
                }
            });
        });
    });
}

/// A cell of a table.
struct Cell {
    class: &'static str,
    text: String,
}

fn plain(text: impl Into<String>) -> Cell {
    Cell { class: "", text: text.into() }
}

fn name(text: impl Into<String>) -> Cell {
    Cell { class: "name", text: text.into() }
}

fn number(text: impl Into<String>) -> Cell {
    Cell { class: "number", text: text.into() }
}

fn sign(is_good: bool, good: &str, bad: &str) -> Cell {
    match is_good {
        true => Cell { class: "good", text: format!("✓ {good}") },
        false => Cell { class: "bad", text: format!("✕ {bad}") },
    }
}

/// Rules that did not hold, above all else: they are why a drill did not begin.
pub(super) fn refused(page: &mut Markup, report: &Report) {
    let rules: Vec<_> = report.checks.iter().filter(|check| !check.holds).collect();
    if rules.is_empty() {
        return;
    }
    section(page, "Rules that did not hold", |page| {
        let rows = rules.iter().map(|check| vec![name(&check.rule), plain(&check.found)]);
        table(page, &["rule", "what was found"], rows);
    });
}

/// What it was to show, and what was measured.
pub(super) fn objectives(page: &mut Markup, report: &Report) {
    if report.verdict.objectives.is_empty() {
        return;
    }
    section(page, "Objectives", |page| {
        let rows = report.verdict.objectives.iter().map(|one| {
            let verdict = sign(one.is_met, "met", "not met");
            vec![name(words::objective(&one.name)), plain(&one.wanted), plain(&one.found), verdict]
        });
        table(page, &["objective", "wanted", "found", "verdict"], rows);
    });
}

/// How long each phase took, with bars of the same scale.
pub(super) fn phases(page: &mut Markup, report: &Report) {
    if report.phases.is_empty() {
        return;
    }
    let longest = report.phases.iter().filter_map(|phase| phase.ms).max().unwrap_or(0).max(1);
    section(page, "Phases", |page| {
        page.leaf(
            "p",
            &[],
            "From the first fault; those of the return, from its undoing. The bars have one scale.",
        );
        page.inside("dl", &[("class", "phases")], |page| {
            for phase in &report.phases {
                page.inside("div", &[], |page| {
                    page.leaf("dt", &[], &phase.name);
                    page.inside("dd", &[], |page| {
                        page.leaf("span", &[("class", "long")], &words::phase(phase.ms));
                        let share = phase.ms.unwrap_or(0) as f64 * 100.0 / longest as f64;
                        let style = format!("width:{share:.1}%");
                        page.inside("span", &[("class", "track")], |page| {
                            page.leaf("i", &[("style", &style)], "");
                        });
                    });
                });
            }
        });
    });
}

/// What became of the writes.
pub(super) fn ledger(page: &mut Markup, report: &Report) {
    let ledger = &report.ledger;
    section(page, "Recovery point: what became of the writes", |page| {
        let durability = if ledger.durability.is_empty() { "unknown" } else { &ledger.durability };
        page.leaf(
            "p",
            &[],
            &format!(
                "Written at durability {durability}. Every record was looked up, one by one; none is estimated."
            ),
        );
        let rows = words::ledger(report)
            .map(|(what, value, meaning)| vec![name(what), number(words::count(value)), plain(meaning)]);
        let conflicts = vec![
            name("conflicts"),
            number(words::count(report.conflicts)),
            plain("of writes to the same record in two stores, while it lasted"),
        ];
        let counted = ledger.counted.iter().map(|(datacenter, found)| {
            let what = format!("counted in {datacenter}");
            vec![name(what), number(words::count(*found)), plain("records found there in the end")]
        });
        let uncounted = ledger.uncounted.iter().map(|datacenter| {
            vec![
                name(format!("NOT COUNTED in {datacenter}")),
                plain("-"),
                plain("it could not be asked in the end"),
            ]
        });
        let rows = rows.into_iter().chain([conflicts]).chain(counted).chain(uncounted);
        table(page, &["records", "number", "meaning"], rows);
        if !ledger.lost_records.is_empty() {
            page.leaf("h3", &[], "Lost records");
            let listed = ledger.lost_records.len() as u64;
            let text =
                format!("{} of {} are listed.", words::count(listed), words::count(ledger.lost.max(listed)));
            page.leaf("p", &[], &text);
            page.leaf("p", &[("class", "records")], &ledger.lost_records.join(", "));
        }
    });
}

/// What became of the visits, and some that failed.
pub(super) fn visits(page: &mut Markup, report: &Report) {
    let visits = &report.visits;
    section(page, "Visits", |page| {
        let (worst, allowed) = (words::percent(visits.worst_percent), words::percent(visits.allowed_percent));
        let failed = match visits.all {
            0 => "there were no visits".to_owned(),
            _ => format!("{} of all", words::failed_share(visits)),
        };
        let rows = [
            ("all", words::count(visits.all), "from the first fault to the end".to_owned()),
            ("failed", words::count(visits.failed), failed),
            ("worst ten seconds", worst, format!("of them failed; {allowed} was allowed")),
            (
                "99th percentile",
                format!("{} ms", words::count(visits.p99_ms)),
                "the slowest but one of a hundred that went well".to_owned(),
            ),
        ];
        let rows = rows.map(|(what, value, meaning)| vec![name(what), number(value), plain(meaning)]);
        table(page, &["visits", "number", "meaning"], rows);
        if visits.examples.is_empty() {
            return;
        }
        page.leaf("h3", &[], "Examples of those that failed");
        let zero = words::zero_unix_ms(report);
        let rows = visits.examples.iter().map(|one| {
            let at = number(words::relative(zero, one.at_unix_ms));
            vec![at, name(&one.witness), plain(&one.user), plain(&one.what)]
        });
        table(page, &["time", "witness", "user's network", "what went wrong"], rows);
    });
}

/// Against the drill before it.
pub(super) fn previous(page: &mut Markup, report: &Report) {
    let Some(previous) = &report.previous else { return };
    section(page, "Against the drill before it", |page| {
        page.inside("p", &[], |page| {
            page.text("The last drill of this name and target was ");
            page.leaf("code", &[], &previous.id);
            page.text(".");
        });
        let phases = previous.phases.iter().map(|(phase, then, now)| {
            let change = words::change(*then, *now);
            vec![name(phase), number(words::phase(*then)), number(words::phase(*now)), plain(change)]
        });
        let counts = [("writes lost", previous.lost), ("visits failed", previous.failed)];
        let counts = counts.into_iter().map(|(what, (then, now))| {
            let change = words::more(then, now);
            vec![name(what), number(words::count(then)), number(words::count(now)), plain(change)]
        });
        table(page, &["", "then", "now", "change"], phases.chain(counts));
    });
}

/// The rules that were checked before anything failed.
pub(super) fn checks(page: &mut Markup, report: &Report) {
    if report.checks.is_empty() {
        return;
    }
    section(page, "Checked before anything failed", |page| {
        let rows = report.checks.iter().map(|check| {
            vec![name(&check.rule), plain(&check.found), sign(check.holds, "holds", "does not hold")]
        });
        table(page, &["rule", "what was found", "verdict"], rows);
    });
}

/// What a reader should know.
pub(super) fn notes(page: &mut Markup, report: &Report) {
    if report.notes.is_empty() {
        return;
    }
    section(page, "Notes on how this was seen", |page| {
        page.inside("ul", &[], |page| report.notes.iter().for_each(|note| page.leaf("li", &[], note)));
    });
}

/// All of the scenario.
pub(super) fn scenario(page: &mut Markup, report: &Report) {
    let Some(scenario) = &report.scenario else { return };
    section(page, "The scenario in full", |page| {
        pairs(page, &said(scenario));
    });
}

fn said(scenario: &Scenario) -> Vec<(String, String)> {
    let Scenario { name, target, steps, load, durability, limits, objectives, baseline_ms, recover_ms } =
        scenario;
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let target = target.as_ref().map_or("said when it is run".to_owned(), ToString::to_string);
    let mut all = vec![pair("name", name.clone()), pair("target", target)];
    all.push(pair("watched before", words::seconds(*baseline_ms)));
    for (at, step) in steps.iter().enumerate() {
        let faults: Vec<String> = step.faults.iter().map(ToString::to_string).collect();
        let faults = if faults.is_empty() { "nothing".to_owned() } else { faults.join(" and ") };
        all.push((format!("step {}", at + 1), format!("{faults}, for {}", words::seconds(step.hold_ms))));
    }
    all.extend([
        pair("return awaited", format!("at most {}", words::seconds(*recover_ms))),
        pair("users", format!("{} networks for each datacenter, those nearest to it", load.users)),
        pair("visits", format!("{} a second by each witness", load.visits_per_second)),
        pair("patience", format!("{} for a page", words::seconds(load.patience_ms))),
        pair("durability", durability.clone()),
        pair("limit: errors", format!("{}% of the visits of ten seconds", limits.errors_percent)),
        pair(
            "limit: slowness",
            format!("{} ms, 99th percentile of ten seconds", words::count(limits.p99_ms)),
        ),
        pair("limit: lag", format!("{} between stores that are not cut off", words::seconds(limits.lag_ms))),
        pair("objective: recovery time", format!("at most {}", words::seconds(objectives.rto_ms))),
        pair("objective: recovery point", format!("at most {} lost", words::count(objectives.rpo))),
    ]);
    all
}

fn pairs(page: &mut Markup, pairs: &[(String, String)]) {
    page.inside("dl", &[("class", "pairs")], |page| {
        for (name, value) in pairs {
            page.inside("div", &[], |page| {
                page.leaf("dt", &[], name);
                page.leaf("dd", &[], value);
            });
        }
    });
}

/// Where it comes from.
pub(super) fn provenance(page: &mut Markup, report: &Report) {
    let or_never = |at: Option<u64>| at.map_or("never".to_owned(), words::moment);
    page.inside("footer", &[], |page| {
        page.leaf("h2", &[], "Where this comes from");
        let said = [
            ("drill", report.id.clone()),
            ("fleet", report.fleet.clone()),
            ("program", format!("daemun {}", named(&report.program))),
            ("config", report.config_digest.clone()),
            ("generation", report.generation.to_string()),
            ("led by", format!("the agent of {}", named(&report.conductor))),
            ("begun by", report.by.clone()),
            ("armed", words::moment(report.begun_unix_ms)),
            ("injected", or_never(report.injected_unix_ms)),
            ("undone", or_never(report.undone_unix_ms)),
            ("written", words::moment(report.ended_unix_ms)),
            ("ended", report.outcome.ended.name().to_owned()),
            ("form", format!("version {}", report.v)),
        ];
        pairs(page, &said.map(|(name, value)| (name.to_owned(), named(&value).to_owned())));
        page.leaf("p", &[], "All times are by the clock of the agent that led the drill, in UTC.");
    });
}
