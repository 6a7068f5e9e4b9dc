//! From what witnesses saw to a report. Pure: the same samples, the same report.

mod verdict;

use std::collections::{BTreeMap, VecDeque};

use daemun_fleet::drill::{Fault, Scenario};

use super::ledger::Ledger;
use super::report::{Example, Mark, Outcome, Report, Series, Visits, What};
use super::samples::{Behind, Named, Samples, Visit};

pub use verdict::coarser;

/// What is said of a server whose probes fail.
pub const SUSPECTED: &str = "suspected";
/// Failed visits that a report tells.
const EXAMPLES_MAX: usize = 20;
/// Over so long limits are judged.
const WINDOW_MS: u64 = 10_000;
/// Fewer visits than this do not show that users have moved.
const MOVED_MIN: usize = 3;
/// A lag that was noted holds for so long: it is noted more often.
const NOTED_MS: u64 = 1_000;
/// Who has moved is served elsewhere for so long.
const SETTLED_MS: u64 = 3_000;
/// Of so few visits nothing is said.
const VISITS_MIN: usize = 20;
/// Steps of the series, at most and at least so long.
const STEPS_MAX: u64 = 480;
const STEP_MS_MIN: u64 = 250;

/// A visit, as far as a report needs it.
#[derive(Clone, Debug)]
struct Seen {
    at: u64,
    ms: u64,
    witness: usize,
    is_of_target: bool,
    placed: Option<usize>,
    served: Option<usize>,
}

/// All that was seen of a drill, times by the clock of the one who leads it.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    target: Option<String>,
    names: Vec<String>,
    visits: Vec<Seen>,
    recent: VecDeque<Seen>,
    examples: Vec<Example>,
    marks: Vec<Mark>,
    /// By name server and witness: where it sent the target's users last.
    named: BTreeMap<(String, String), Option<String>>,
    /// By name server, what of it is told already.
    told: BTreeMap<String, What>,
    lags: BTreeMap<String, Vec<(u64, Behind)>>,
    states: BTreeMap<String, Vec<(u64, String)>>,
    writable: Option<(u64, String)>,
    /// The records.
    pub ledger: Ledger,
    /// When the first fault began.
    injected: Option<u64>,
    /// When the first began by which all of the target's users are to go.
    moving: Option<(u64, usize)>,
    undone: Option<u64>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

impl Observed {
    /// Nothing yet, of a drill of this target.
    pub fn new(target: Option<&str>) -> Self {
        Self { target: target.map(ToOwned::to_owned), ..Self::default() }
    }

    fn number(&mut self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Notes something that happened.
    pub fn mark(&mut self, at_unix_ms: u64, what: What, who: &str, text: impl Into<String>) {
        self.mark_within(at_unix_ms, 0, what, who, text);
    }

    /// The same of something that may have happened so much earlier.
    fn mark_within(
        &mut self,
        at_unix_ms: u64,
        within_ms: u64,
        what: What,
        who: &str,
        text: impl Into<String>,
    ) {
        self.marks.push(Mark { at_unix_ms, what, who: who.to_owned(), text: text.into(), within_ms });
    }

    /// The moment from which phases are counted: when all users were to go, else when anything failed.
    fn zero(&self) -> Option<u64> {
        self.moving.map(|(at, _)| at).or(self.injected)
    }

    /// Notes that a step began.
    pub fn injected(&mut self, at_unix_ms: u64, step: usize, faults: &[Fault]) {
        self.injected.get_or_insert(at_unix_ms);
        if self.moving.is_none() && faults.iter().any(Fault::moves_all_users) {
            self.moving = Some((at_unix_ms, step));
            self.writable = None;
        }
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        self.mark(at_unix_ms, What::Injected, "", format!("step {}: {}", step + 1, faults.join(", ")));
    }

    /// Notes that nothing fails any more.
    pub fn undone(&mut self, at_unix_ms: u64, outcome: &Outcome) {
        if self.undone.is_none() {
            self.undone = Some(at_unix_ms);
            let why = if outcome.why.is_empty() { String::new() } else { format!(": {}", outcome.why) };
            self.mark(at_unix_ms, What::Undone, "", format!("{}{why}", outcome.ended.name()));
        }
    }

    /// Notes a vote against the target.
    pub fn voted(&mut self, at_unix_ms: u64, observer: &str, why: &str) {
        if self.marks.iter().any(|mark| mark.what == What::Voted && mark.who == observer) {
            return;
        }
        self.mark(at_unix_ms, What::Voted, observer, format!("says down: {why}"));
    }

    /// Notes that a probe of a door of the target failed; the first counts.
    fn suspected(&mut self, at_unix_ms: u64, observer: &str, door: &str) {
        if self.injected.is_none_or(|injected| at_unix_ms < injected)
            || self.undone.is_some_and(|at| at_unix_ms > at)
        {
            return;
        }
        match self.marks.iter_mut().find(|mark| mark.what == What::Suspected) {
            Some(known) if known.at_unix_ms <= at_unix_ms => {}
            Some(known) => (known.at_unix_ms, known.who) = (at_unix_ms, observer.to_owned()),
            None => self.mark(
                at_unix_ms,
                What::Suspected,
                observer,
                format!("a probe of {door} has failed, the first"),
            ),
        }
    }

    /// Takes in what a witness saw; its clock is so far ahead of ours.
    pub fn take(&mut self, witness: &str, mut samples: Samples, ahead_ms: i64) {
        let ours = |at: u64| at.saturating_add_signed(ahead_ms.saturating_neg());
        if samples.dropped > 0 {
            let note = format!("{} samples of the witness in {witness} were let go", samples.dropped);
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        samples.visits.iter_mut().for_each(|visit| visit.at_unix_ms = ours(visit.at_unix_ms));
        for visit in &samples.visits {
            self.take_visit(witness, visit, ahead_ms);
        }
        for named in &samples.named {
            self.take_named(witness, ours(named.at_unix_ms), named);
        }
        for (at, lags) in &samples.lags {
            for (of, behind) in lags {
                self.lags.entry(format!("{witness} behind {of}")).or_default().push((ours(*at), *behind));
            }
        }
        for (at, about, to) in &samples.events {
            if to == SUSPECTED {
                self.suspected(ours(*at), witness, about);
            }
            let is_out =
                !to.starts_with("serving") && !to.starts_with("ramping") && !to.starts_with("catching");
            if Some(about) == self.target.as_ref()
                && self.injected.is_some()
                && self.undone.is_none()
                && is_out
            {
                self.mark(ours(*at), What::Decided, witness, format!("has {about} {to}"));
            }
        }
    }

    /// Notes a state of a datacenter, as the one who leads has it.
    pub fn state(&mut self, at_unix_ms: u64, datacenter: &str, state: &str) {
        let states = self.states.entry(datacenter.to_owned()).or_default();
        if states.last().is_none_or(|(_, last)| last != state) {
            states.push((at_unix_ms, state.to_owned()));
        }
    }

    fn take_visit(&mut self, witness: &str, visit: &Visit, ahead_ms: i64) {
        let is_of_target = Some(&visit.home) == self.target.as_ref();
        let seen = Seen {
            at: visit.at_unix_ms,
            ms: visit.ms,
            witness: self.number(witness),
            is_of_target,
            placed: visit.placed.as_ref().map(|name| self.number(name)),
            served: visit.served.as_ref().filter(|_| visit.failure.is_none()).map(|name| self.number(name)),
        };
        if let Some(why) = &visit.failure
            && self.examples.len() < EXAMPLES_MAX
            && self.injected.is_some_and(|at| visit.at_unix_ms >= at)
        {
            let (witness, user) = (witness.to_owned(), visit.user.clone());
            self.examples.push(Example { at_unix_ms: visit.at_unix_ms, witness, user, what: why.clone() });
        }
        if let Some(record) = &visit.record {
            let at = record.at_unix_ms.saturating_add_signed(ahead_ms.saturating_neg());
            self.ledger.note(witness, record, at);
            if let Some(datacenter) = &record.acknowledged
                && is_of_target
                && Some(datacenter) != self.target.as_ref()
                && self.zero().is_some_and(|zero| at >= zero)
                && self.writable.as_ref().is_none_or(|(first, _)| at < *first)
            {
                self.writable = Some((at, datacenter.clone()));
            }
        }
        self.recent.push_back(seen.clone());
        self.visits.push(seen);
    }

    fn take_named(&mut self, witness: &str, at: u64, named: &Named) {
        let Named { name_server: server, sends_to, within_ms, .. } = named;
        let server = server.as_str();
        let was = self.named.insert((server.to_owned(), witness.to_owned()), sends_to.clone());
        // A witness that began again sees nothing new.
        let Some(was) = was.filter(|was| self.injected.is_some() && was != sends_to) else { return };
        let told = self.told.get(server).copied();
        let (what, text) = match (&was, sends_to) {
            (_, None) => (What::NameServerSilent, "gives no answer".to_owned()),
            (None, Some(to)) => (What::NameServerBack, format!("answers again, with {to}")),
            (Some(_), Some(to)) if Some(to) == self.target.as_ref() => {
                (What::NameServerBack, format!("answers with {to} again"))
            }
            (Some(_), Some(to)) => (What::NameServerChanged, format!("sends the target's users to {to}")),
        };
        // Each witness sees it; the first to do so tells, the earliest counts.
        if told == Some(what) {
            let known = self.marks.iter_mut().rev().find(|mark| mark.what == what && mark.who == server);
            if let Some(known) = known.filter(|known| at < known.at_unix_ms) {
                (known.at_unix_ms, known.within_ms) = (at, *within_ms);
            }
            return;
        }
        self.told.insert(server.to_owned(), what);
        self.mark_within(at, *within_ms, what, server, text);
    }

    /// How many visits were heard of since the first fault.
    pub fn heard_since_injected(&self) -> usize {
        let injected = self.injected.unwrap_or(u64::MAX);
        self.visits.iter().rev().take_while(|seen| seen.at >= injected).count()
    }

    /// What has happened so far, in the order in which it was heard of.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// When the first fault began.
    pub fn injected_at(&self) -> Option<u64> {
        self.injected
    }

    /// When the faults ended.
    pub fn undone_at(&self) -> Option<u64> {
        self.undone
    }

    /// Which limit does not hold now.
    pub fn breach(&mut self, scenario: &Scenario, now_unix_ms: u64) -> Option<String> {
        let from = now_unix_ms.saturating_sub(WINDOW_MS);
        self.recent.retain(|seen| seen.at >= from);
        let limits = scenario.limits;
        self.injected?;
        let since: Vec<&Seen> = self.recent.iter().collect();
        if since.len() >= VISITS_MIN {
            let failed = since.iter().filter(|seen| seen.served.is_none()).count();
            if failed * 100 > since.len() * usize::from(limits.errors_percent) {
                let percent = failed * 100 / since.len();
                return Some(format!(
                    "{percent}% of the visits of the last ten seconds failed, {}% are allowed",
                    limits.errors_percent
                ));
            }
            let p99 = verdict::p99(since.iter().filter(|seen| seen.served.is_some()).map(|seen| seen.ms));
            if let Some(p99) = p99.filter(|p99| *p99 > limits.p99_ms) {
                return Some(format!("p99 of visits is {p99} ms, {} are allowed", limits.p99_ms));
            }
        }
        self.late(scenario, from)
    }

    /// A store that nobody cut off and that is behind.
    fn late(&self, scenario: &Scenario, from: u64) -> Option<String> {
        let is_cut = |pair: &str| {
            let fault = scenario
                .faults()
                .any(|fault| matches!(fault, Fault::Partition | Fault::Kill | Fault::AgentDead));
            let target = scenario.target.as_ref();
            let names = target.map(|target| target.names()).unwrap_or_default();
            let ends: Vec<&str> = pair.split(" behind ").collect();
            fault
                && match names.as_slice() {
                    [one] => ends.contains(one),
                    names => names.iter().all(|name| ends.contains(name)),
                }
        };
        for (pair, lags) in self.lags.iter().filter(|(pair, _)| !is_cut(pair)) {
            let worst =
                lags.iter().rev().take_while(|(at, _)| *at >= from).filter_map(|(_, behind)| behind.ms).max();
            if let Some(worst) = worst.filter(|worst| *worst > scenario.limits.lag_ms) {
                return Some(format!("{pair} by {worst} ms, {} are allowed", scenario.limits.lag_ms));
            }
        }
        None
    }

    /// Whether the target's users are served there again, as far as any came since the end.
    pub fn is_restored(&self) -> bool {
        self.restored().is_some()
    }

    fn restored(&self) -> Option<u64> {
        let undone = self.undone?;
        let target = self.names.iter().position(|name| Some(name) == self.target.as_ref())?;
        let back = self
            .visits
            .iter()
            .filter(|seen| seen.is_of_target && seen.at >= undone && seen.served == Some(target));
        back.map(|seen| seen.at + seen.ms).min()
    }

    /// When the first user was served elsewhere, how long before that one had come who was not, and by whom.
    fn first_elsewhere(&self) -> Option<(u64, u64, String)> {
        let (injected, undone) = (self.zero()?, self.undone.unwrap_or(u64::MAX));
        let is_there = |by: usize| Some(&self.names[by]) == self.target.as_ref();
        let (elsewhere, others): (Vec<&Seen>, Vec<&Seen>) = self
            .visits
            .iter()
            .filter(|seen| seen.is_of_target && (injected..undone).contains(&seen.at))
            .partition(|seen| seen.served.is_some_and(|by| !is_there(by)));
        let first = elsewhere.into_iter().min_by_key(|seen| seen.at + seen.ms)?;
        let served_at = first.at + first.ms;
        let before = others.iter().map(|seen| seen.at).filter(|at| *at < served_at).max();
        Some((served_at, served_at - before.unwrap_or(injected), self.names[first.served?].clone()))
    }

    /// When the first was served from whom on 99 of 100 of the target's users were served elsewhere, for a while or until the
    /// faults ended. What fails later again is not a matter of moving.
    fn moved(&self) -> Option<u64> {
        let (injected, undone) = (self.zero()?, self.undone.unwrap_or(u64::MAX));
        let mut all: Vec<(u64, u64, bool)> = self
            .visits
            .iter()
            .filter(|seen| seen.is_of_target && (injected..undone).contains(&seen.at))
            .map(|seen| {
                let is_elsewhere =
                    seen.served.is_some_and(|by| Some(&self.names[by]) != self.target.as_ref());
                (seen.at, seen.at + seen.ms, is_elsewhere)
            })
            .collect();
        all.sort_unstable();
        let (mut well, mut last, mut from) = (0usize, all.len(), None);
        for (first, (at, served_at, is_elsewhere)) in all.iter().enumerate().rev() {
            well += usize::from(*is_elsewhere);
            while all[last - 1].0 >= at + SETTLED_MS {
                last -= 1;
                well -= usize::from(all[last].2);
            }
            if *is_elsewhere && last - first >= MOVED_MIN && well * 100 >= (last - first) * 99 {
                from = Some(*served_at);
            }
        }
        from
    }

    /// The largest percentage of failed visits in ten seconds that end after the first fault.
    fn worst_percent(&self, from: u64) -> f64 {
        let visits = self.visits.iter().map(|seen| (seen.at, seen.served.is_none()));
        let mut visits: Vec<(u64, bool)> = visits.collect();
        visits.sort_unstable();
        let (mut first, mut failed, mut worst) = (0, 0usize, 0.0f64);
        for (last, (at, is_failed)) in visits.iter().enumerate() {
            failed += usize::from(*is_failed);
            while visits[first].0 + WINDOW_MS <= *at {
                failed -= usize::from(visits[first].1);
                first += 1;
            }
            let count = last + 1 - first;
            if count >= VISITS_MIN && *at >= from {
                worst = worst.max(100.0 * failed as f64 / count as f64);
            }
        }
        worst
    }

    fn visits(&self, scenario: &Scenario) -> Visits {
        let from = self.injected.unwrap_or(u64::MAX);
        let since: Vec<&Seen> = self.visits.iter().filter(|seen| seen.at >= from).collect();
        Visits {
            all: since.len() as u64,
            failed: since.iter().filter(|seen| seen.served.is_none()).count() as u64,
            worst_percent: (self.worst_percent(from) * 10.0).round() / 10.0,
            allowed_percent: scenario.limits.errors_percent.into(),
            p99_ms: verdict::p99(since.iter().filter(|seen| seen.served.is_some()).map(|seen| seen.ms))
                .unwrap_or(0),
            examples: self.examples.clone(),
        }
    }

    fn series(&self, begun: u64, ended: u64) -> Series {
        let step_ms =
            (ended.saturating_sub(begun) / STEPS_MAX).max(STEP_MS_MIN).next_multiple_of(STEP_MS_MIN);
        let steps = usize::try_from(ended.saturating_sub(begun) / step_ms + 1).unwrap_or(0);
        let step = |at: u64| {
            let step = usize::try_from(at.checked_sub(begun)? / step_ms).ok()?;
            (step < steps).then_some(step)
        };
        let mut series =
            Series { from_unix_ms: begun, step_ms, states: self.states.clone(), ..Series::default() };
        for seen in &self.visits {
            let Some(at) = step(seen.at) else { continue };
            let witness = self.names[seen.witness].clone();
            let counts = &mut series.witnesses.entry(witness).or_insert_with(|| vec![(0, 0); steps])[at];
            if seen.served.is_some() {
                counts.0 += 1
            } else {
                counts.1 += 1
            }
            if let Some(placed) = seen.placed {
                series.placed.entry(self.names[placed].clone()).or_insert_with(|| vec![0; steps])[at] += 1;
            }
        }
        for (pair, lags) in &self.lags {
            let mut steps = vec![None; steps];
            let mut notes = lags.iter().peekable();
            let (mut noted_at, mut behind) = (0, None);
            for (number, step) in steps.iter_mut().enumerate() {
                let end = begun + step_ms * (number as u64 + 1);
                while let Some((at, found)) = notes.next_if(|(at, _)| *at < end) {
                    (noted_at, behind) = (*at, found.known().map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)));
                }
                *step = behind.filter(|_| end.saturating_sub(noted_at) <= step_ms + NOTED_MS);
            }
            series.lags.insert(pair.clone(), steps);
        }
        series
    }

    /// The report, but for what only the one who leads knows.
    pub fn report(&mut self, mut report: Report, scenario: &Scenario, previous: Option<&Report>) -> Report {
        let moves_all = scenario.moves_all_users();
        if moves_all {
            if let Some((at, within_ms, by)) = self.first_elsewhere() {
                self.mark_within(
                    at,
                    within_ms,
                    What::FirstUserElsewhere,
                    &by,
                    format!("serves the first user whose home is {}", report.target),
                );
            }
            if let Some(at) = self.moved() {
                self.mark(at, What::Moved, "", "99 of 100 of its users are served elsewhere");
            }
            if let Some((at, by)) = self.writable.clone() {
                self.mark(at, What::Writable, &by, "acknowledges the first write of one of its users");
            }
            if let Some(at) = self.restored() {
                self.mark(at, What::Restored, &report.target, "serves one of its users again");
            }
        }
        self.marks.sort_by_key(|mark| (mark.at_unix_ms, mark.what));
        report.injected_unix_ms = self.injected;
        report.undone_unix_ms = self.undone;
        report.phases = self.phases(moves_all);
        report.ledger = self.ledger.sum(&scenario.durability);
        report.visits = self.visits(scenario);
        report.series = self.series(report.begun_unix_ms, report.ended_unix_ms);
        report.timeline.clone_from(&self.marks);
        if let Some((_, step)) = self.moving.filter(|(_, step)| *step > 0) {
            let note = format!("phases are counted from step {}, by which all users were to go", step + 1);
            self.notes.push(note);
        }
        report.notes.extend(self.notes.iter().cloned());
        report.previous = previous.map(|previous| verdict::difference(&report, previous));
        report.verdict = verdict::verdict(&report, scenario);
        report
    }
}

#[cfg(test)]
mod tests;
