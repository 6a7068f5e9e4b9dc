//! Plans, scenarios and past drills as text.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use daemun_sync::drill::report::{Ended, Report};

use crate::admin::drills::{Listed, Planned};
use crate::status::table;
use crate::verbs::{loads, moves};

fn span(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

/// A moment of Unix time, to the second.
fn when(unix_ms: u64) -> String {
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string();
    text.replace('T', " ").trim_end_matches('Z').to_owned()
}

/// What a drill would do.
pub(super) fn plan(planned: &Planned) -> String {
    let word = &planned.word;
    let scenario = &word.scenario;
    let mut text = format!("drill {} of {}, led by {}\n", scenario.name, word.target, word.conductor);
    let _ = writeln!(text, "  before  all is watched for {}", span(scenario.baseline_ms));
    for (number, step) in scenario.steps.iter().enumerate() {
        let faults: Vec<String> = step.faults.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  step {}  {} for {}", number + 1, faults.join(" and "), span(step.hold_ms));
    }
    let _ = writeln!(
        text,
        "  undo    armed in every agent first: all is well again {} after that, whoever is dead",
        span(planned.bound_ms)
    );
    let _ = writeln!(text, "  after   the return is waited for, {} at most", span(scenario.recover_ms));
    for act in &planned.acts {
        let _ = writeln!(text, "  fault   {act}");
    }
    let limits = scenario.limits;
    let _ = writeln!(
        text,
        "  aborts  over {}% of failed visits, p99 over {}, a lag over {}, a lost vote, a datacenter down that is not meant",
        limits.errors_percent,
        span(limits.p99_ms),
        span(limits.lag_ms)
    );
    let _ = writeln!(
        text,
        "  users   {} networks for each datacenter, {} visits a second of each witness, records at {}",
        scenario.load.users, scenario.load.visits_per_second, scenario.durability
    );
    let _ = writeln!(
        text,
        "  shows   99% of its users elsewhere within {}, at most {} acknowledged writes lost",
        span(scenario.objectives.rto_ms),
        scenario.objectives.rpo
    );
    let _ = writeln!(text, "  view    generation {}", planned.generation);
    if planned.blast.moves.is_empty() {
        text.push_str("  moves   nobody\n");
    } else {
        text.push_str("  moves\n");
        moves(&mut text, &planned.blast.moves);
    }
    loads(&mut text, &planned.loads_before, &planned.blast.loads);
    for check in &planned.checks {
        let word = if check.holds { "rule   " } else { "AGAINST" };
        let _ = writeln!(text, "  {word} {}: {}", check.rule, check.found);
    }
    text
}

/// The scenarios that there are.
pub(super) fn scenarios(listed: &Listed) -> String {
    let head = ["SCENARIO", "WHAT IT DOES"].map(ToOwned::to_owned);
    let rows = listed.scenarios.iter().map(|(name, what)| [name.clone(), what.clone()]);
    let mut text = String::new();
    table(&mut text, &std::iter::once(head).chain(rows).collect::<Vec<_>>());
    text.push_str("\n`daemun drill plan SCENARIO --target DATACENTER` shows all of one; own ones are `[[drill.scenarios]]` or a TOML file\n");
    text
}

/// The drills that begin by themselves.
pub(super) fn schedules(listed: &Listed) -> String {
    if listed.schedules.is_empty() {
        return "no drill begins by itself: `[[drill.schedules]]` of the config has them\n".to_owned();
    }
    let head = ["SCENARIO", "TARGET", "WINDOW (UTC)", "NEXT", "LAST"].map(ToOwned::to_owned);
    let row = |(scenario, target, window, next): &(String, String, String, u64)| {
        let last = listed.reports.iter().rev().find(|report| {
            report.target == *target && report.scenario.as_ref().is_some_and(|found| found.name == *scenario)
        });
        let last = last.map_or_else(
            || "never".to_owned(),
            |report| format!("{}: {}", when(report.begun_unix_ms), how(report)),
        );
        [scenario.clone(), target.clone(), window.clone(), when(*next), last]
    };
    let mut text = String::new();
    table(&mut text, &std::iter::once(head).chain(listed.schedules.iter().map(row)).collect::<Vec<_>>());
    text
}

fn how(report: &Report) -> String {
    let why = if report.outcome.why.is_empty() { String::new() } else { format!(": {}", report.outcome.why) };
    match report.outcome.ended {
        Ended::Done if report.verdict.is_met => "met".to_owned(),
        Ended::Done => "NOT MET".to_owned(),
        ended => format!("{}{why}", ended.name()),
    }
}

/// The drills that were run.
pub(super) fn history(reports: &[Report]) -> String {
    if reports.is_empty() {
        return "no drill was run yet\n".to_owned();
    }
    let head = ["WHEN (UTC)", "SCENARIO", "TARGET", "MOVED", "LOST", "FAILED VISITS", "HOW", "ID"]
        .map(ToOwned::to_owned);
    let row = |report: &Report| {
        let moved = report
            .phase("99% moved")
            .map_or_else(|| "-".to_owned(), |ms| format!("{:.2} s", ms as f64 / 1000.0));
        let name = report.scenario.as_ref().map_or("", |scenario| &scenario.name);
        let (ledger, visits) = (&report.ledger, &report.visits);
        [
            when(report.begun_unix_ms),
            name.to_owned(),
            report.target.clone(),
            moved,
            format!("{} of {}", ledger.lost, ledger.acknowledged),
            format!("{} of {}", visits.failed, visits.all),
            how(report),
            report.id.clone(),
        ]
    };
    let mut text = String::new();
    table(&mut text, &std::iter::once(head).chain(reports.iter().map(row)).collect::<Vec<_>>());
    text
}
