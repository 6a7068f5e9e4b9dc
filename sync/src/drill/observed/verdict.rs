//! What follows from what was seen: phases, objectives, the difference to an earlier drill.

use daemun_fleet::drill::Scenario;

use super::super::report::{Difference, Ended, Objective, Outcome, Phase, Report, Verdict, What};
use super::Observed;

impl Observed {
    /// The phases, by what is known.
    pub(super) fn phases(&self, moves_all: bool) -> Vec<Phase> {
        let from = |at: Option<u64>, zero: Option<u64>| Some(at?.saturating_sub(zero?));
        let first =
            |what: What| self.marks.iter().filter(|mark| mark.what == what).map(|mark| mark.at_unix_ms).min();
        let undone = self.undone.unwrap_or(u64::MAX);
        let last = |what: What| {
            let of_kind = self.marks.iter().filter(|mark| mark.what == what && mark.at_unix_ms <= undone);
            of_kind.map(|mark| mark.at_unix_ms).max()
        };
        let phase = |name: &str, ms: Option<u64>| Phase { name: name.to_owned(), ms };
        let mut phases = Vec::new();
        if moves_all {
            phases.push(phase("first suspicion", from(first(What::Suspected), self.zero())));
            phases.push(phase("decided", from(first(What::Decided), self.zero())));
            phases.push(phase("name servers changed", from(last(What::NameServerChanged), self.zero())));
            phases.push(phase("first user elsewhere", from(first(What::FirstUserElsewhere), self.zero())));
            phases.push(phase("99% moved", from(first(What::Moved), self.zero())));
            phases.push(phase("writable", from(first(What::Writable), self.zero())));
            phases.push(phase("restored", from(first(What::Restored), self.undone)));
            phases.push(phase("ramped", from(first(What::Ramped), self.undone)));
        }
        phases.push(phase("converged", from(first(What::Converged), self.undone)));
        phases
    }
}

/// Against the drill of the same name before.
pub(super) fn difference(now: &Report, then: &Report) -> Difference {
    let phases = now.phases.iter().map(|phase| (phase.name.clone(), then.phase(&phase.name), phase.ms));
    Difference {
        id: then.id.clone(),
        phases: phases.collect(),
        lost: (then.ledger.lost, now.ledger.lost),
        failed: (then.visits.failed, now.visits.failed),
    }
}

fn seconds(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}

/// Whether the objectives hold, one by one.
pub(super) fn verdict(report: &Report, scenario: &Scenario) -> Verdict {
    let mut objectives = Vec::new();
    let mut add = |name: &str, wanted: String, found: String, is_met: bool| {
        objectives.push(Objective { name: name.to_owned(), wanted, found, is_met });
    };
    let Outcome { ended, why } = &report.outcome;
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    add("completed", "done".to_owned(), format!("{}{why}", ended.name()), *ended == Ended::Done);
    if scenario.moves_all_users() {
        let moved = report.phase("99% moved");
        let found = moved.map_or_else(|| "never".to_owned(), seconds);
        let is_met = moved.is_some_and(|ms| ms <= scenario.objectives.rto_ms);
        add("rto", format!("99% elsewhere within {}", seconds(scenario.objectives.rto_ms)), found, is_met);
        let restored = report.phase("ramped");
        let found = restored.map_or_else(|| "not yet".to_owned(), |ms| format!("after {}", seconds(ms)));
        add("return", "it has all of its users again".to_owned(), found, restored.is_some());
    }
    let ledger = &report.ledger;
    let wanted = format!("at most {} writes lost", scenario.objectives.rpo);
    let found = format!("{} of {} lost", ledger.lost, ledger.acknowledged);
    let found = match ledger.uncounted.as_slice() {
        [] => found,
        names => format!("{found}; not counted: {}", names.join(", ")),
    };
    let is_met = ledger.acknowledged > 0 && ledger.uncounted.is_empty();
    add("rpo", wanted, found, is_met && ledger.lost <= scenario.objectives.rpo);
    let visits = &report.visits;
    let wanted = format!("at most {}% in ten seconds", visits.allowed_percent);
    let is_met = visits.all > 0 && visits.worst_percent <= visits.allowed_percent;
    add(
        "errors",
        wanted,
        format!("{}%, {} of {} in all", visits.worst_percent, visits.failed, visits.all),
        is_met,
    );
    let converged = report.phase("converged");
    let found = converged.map_or_else(|| "not yet".to_owned(), |ms| format!("after {}", seconds(ms)));
    add("convergence", "all stores hold the same".to_owned(), found, converged.is_some());
    Verdict { is_met: objectives.iter().all(|objective| objective.is_met), objectives }
}

/// Makes a report smaller: half as many steps of its series, half as many examples.
pub fn coarser(report: &mut Report) {
    let series = &mut report.series;
    series.step_ms *= 2;
    for steps in series.witnesses.values_mut() {
        *steps = steps
            .chunks(2)
            .map(|pair| (pair.iter().map(|p| p.0).sum(), pair.iter().map(|p| p.1).sum()))
            .collect();
    }
    for steps in series.placed.values_mut() {
        *steps = steps.chunks(2).map(|pair| pair.iter().sum()).collect();
    }
    for steps in series.lags.values_mut() {
        let worse = |pair: &[Option<u32>]| {
            if pair.contains(&None) { None } else { pair.iter().copied().max().flatten() }
        };
        *steps = steps.chunks(2).map(worse).collect();
    }
    report.visits.examples.truncate(report.visits.examples.len() / 2);
    report.timeline.truncate(2000);
}

/// The slowest but one of a hundred.
pub(super) fn p99(times: impl Iterator<Item = u64>) -> Option<u64> {
    let mut times: Vec<u64> = times.collect();
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}
