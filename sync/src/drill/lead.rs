//! Leading a drill, the part that takes sockets: it fetches what the witnesses see, ends the drill when a limit does not hold,
//! waits for the return, has the records counted, and writes the report. When what begins is up to
//! [`core::drill`](crate::core::drill).

mod ask;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::view::State;
use tokio::time::sleep;

use super::drills::{Drills, Progress};
use super::observed::Observed;
use super::records;
use super::report::{self, Ended, Outcome, Report, What};
use super::samples::{Found, Samples};
use super::talk::{Asked, LONG_PATIENCE, PATIENCE, Peers};
use super::word::{Stage, Word};
use crate::orders::Order;
use crate::store::request::Durability;

/// Time between two rounds.
const ROUND: Duration = Duration::from_millis(100);
/// Samples are fetched every so many rounds.
const FETCH_ROUNDS: u64 = 3;
/// What the survivors have is counted, and it is looked whether all is back, every so many rounds; more seldom where there are
/// many records.
const COUNT_ROUNDS: u64 = 10;
/// So many records are counted in each round of waiting.
const RECORDS_A_ROUND: u64 = 1_000;
/// Visits under way are waited for so many rounds: longer than a page and a record take.
const ENDING_ROUNDS: u64 = 80;
/// A witness at a command line that was not heard of for so long has gone.
const GONE: Duration = Duration::from_secs(3);
/// When all is back but for some records, it is waited so long for these.
const LOST: Duration = Duration::from_secs(6);
/// What is younger than this may be on its way between two stores.
const QUIET_MS: u64 = 3_000;
/// Visits of this time are shown as now.
const NOW_MS: u64 = 10_000;
/// A drill that nobody sees ends after this.
const BLIND_MS: u64 = 10_000;
/// What the witness at a command line is called.
pub const COMMAND_LINE: &str = "command-line";

/// A drill as it is led.
struct Lead {
    drills: Arc<Drills>,
    peers: Peers,
    order: Order,
    word: Word,
    observed: Observed,
    /// By datacenter: whose samples were fetched, and how far.
    fetched: BTreeMap<String, (u64, u64)>,
    /// Events of our own history that were looked at.
    events: u64,
    recent: Vec<(u64, String, Option<String>)>,
    lines: u64,
    told: usize,
    /// Conflicts that each store had known when it began.
    conflicts: BTreeMap<String, u64>,
    /// When the witness at the command line was heard of last, if it has visits to come.
    elsewhere: Option<Duration>,
    records: (u64, u64),
}

impl Drills {
    /// Leads a drill to its report.
    pub(super) async fn lead(self: Arc<Self>, order: Order, word: Word) {
        let id = word.id.clone();
        tracing::warn!(drill = id, by = order.by, target = %word.target, "leading a drill");
        self.show(|progress| *progress = Progress { id: id.clone(), ..Progress::default() });
        let history = self.agent.history();
        let before = history.events.iter().take_while(|event| event.at_unix_ms < order.at_unix_ms).count();
        let mut lead = Lead {
            peers: Peers::of(&self.agent),
            observed: Observed::new(word.target.datacenter()),
            fetched: BTreeMap::new(),
            events: history.dropped + before as u64,
            recent: Vec::new(),
            lines: 0,
            told: 0,
            conflicts: BTreeMap::new(),
            elsewhere: None,
            records: (0, 0),
            drills: self,
            order,
            word,
        };
        lead.run().await;
    }
}

impl Lead {
    async fn run(&mut self) {
        for (name, view) in &self.drills.agent.view().datacenters {
            self.observed.state(self.order.at_unix_ms, name, &view.state.to_string());
        }
        if self.word.stage != Stage::Armed {
            let note = "its leader began again: what witnesses saw before is not in this report";
            self.observed.notes.push(note.to_owned());
        }
        self.conflicts = self.drills.conflicts().await;
        let Some(outcome) = self.while_it_fails().await else { return };
        self.until_all_is_back().await;
        self.until_all_have_ended().await;
        self.report(outcome).await;
        self.drills.agent.close_drill(&self.word.id);
        let id = self.word.id.clone();
        self.drills.show(|progress| {
            progress.stage = "reported".to_owned();
            progress.left_ms = None;
            progress.is_reported = true;
        });
        tracing::warn!(drill = id, "a drill is over");
    }

    /// Until nothing fails any more: how it ended. `None`: it is not ours.
    async fn while_it_fails(&mut self) -> Option<Outcome> {
        for round in 0u64.. {
            let (order, word) = self.drills.agent.drill()?;
            if word.id != self.word.id || !order.is_same_drill(&self.order) {
                tracing::warn!(drill = self.word.id, other = word.id, "another drill holds over this one");
                return None;
            }
            self.look(&word);
            if let Some(outcome) = word.stage.outcome() {
                let ended = self.now();
                self.observed.undone(ended, outcome);
                return Some(outcome.clone());
            }
            if round.is_multiple_of(FETCH_ROUNDS) {
                self.fetch().await;
                let now = self.now();
                let is_blind = self.observed.injected_at().is_some_and(|at| now >= at + BLIND_MS)
                    && self.observed.heard_since_injected() == 0;
                let blind = is_blind.then(|| "no witness says what users see".to_owned());
                if let Some(why) = blind.or_else(|| self.observed.breach(&self.word.scenario, now)) {
                    self.drills.agent.end_drill(&self.word.id, Ended::Aborted, &why);
                }
            }
            let seldom = COUNT_ROUNDS + self.records.0 / RECORDS_A_ROUND;
            if matches!(word.stage, Stage::Step(_)) && round.is_multiple_of(seldom) {
                self.count_meanwhile().await;
            }
            self.tell(&word);
            sleep(ROUND).await;
        }
        None
    }

    /// What has happened since it was last looked.
    fn look(&mut self, word: &Word) {
        let agent = Arc::clone(&self.drills.agent);
        if let Some(target) = self.word.target.datacenter() {
            let ahead = self.ahead();
            for (observer, at, why) in agent.votes_against(target) {
                let at =
                    at.saturating_add_signed(ahead.get(&observer).copied().unwrap_or(0).saturating_neg());
                if matches!(word.stage, Stage::Step(_)) && at >= self.order.at_unix_ms {
                    self.observed.voted(at, &observer, &why);
                }
            }
        }
        let history = agent.history();
        let skip = usize::try_from(self.events.saturating_sub(history.dropped)).unwrap_or(usize::MAX);
        let step = format!("{}, step ", self.word.id);
        for event in history.events.iter().skip(skip) {
            match (event.about.as_str(), event.to.as_str()) {
                ("drill", to) if to.starts_with(&step) => {
                    let number = to[step.len()..].parse::<usize>().unwrap_or(1) - 1;
                    let faults = self.word.scenario.steps.get(number).map_or(&[][..], |step| &step.faults);
                    self.observed.injected(event.at_unix_ms, number, faults);
                }
                ("drill", "none") => {
                    if let Some(outcome) = word.stage.outcome() {
                        self.observed.undone(event.at_unix_ms, outcome);
                    }
                }
                (about, to)
                    if self.word.scenario.target.is_some()
                        && agent.view().datacenters.contains_key(about) =>
                {
                    self.observed.state(event.at_unix_ms, about, to);
                }
                _ => {}
            }
        }
        self.events = history.dropped + history.events.len() as u64;
    }

    fn now(&self) -> u64 {
        (self.drills.agent.clock().unix_ms)()
    }

    /// How far the others' clocks are ahead of ours, milliseconds.
    fn ahead(&self) -> BTreeMap<String, i64> {
        let links = self.drills.agent.links().into_iter();
        links.map(|link| (link.peer, link.clock_ahead_ms.unwrap_or(0))).collect()
    }

    /// Fetches what the witnesses have seen.
    async fn fetch(&mut self) {
        self.fetch_from_all(false).await;
    }

    /// Lets the witnesses stop, and waits for what they have under way.
    async fn until_all_have_ended(&mut self) {
        self.drills.show(|progress| {
            progress.stage = "counting what was written".to_owned();
            progress.is_counting = true;
        });
        for _ in 0..ENDING_ROUNDS {
            if self.fetch_from_all(true).await == 0 {
                return;
            }
            sleep(ROUND).await;
        }
        self.observed.notes.push("some visits had not ended when all was counted".to_owned());
    }

    /// How many visits have not ended.
    async fn fetch_from_all(&mut self, is_last: bool) -> u64 {
        let id = self.word.id.clone();
        let at = |name: &str| self.fetched.get(name).copied().unwrap_or((0, 0));
        let asked = |name: &str| {
            let (life, from) = at(name);
            Some(Asked { id: id.clone(), life, from, is_last, ..Asked::default() })
        };
        let me = self.drills.agent.name().to_owned();
        let own = self.drills.samples(&id, at(&me).0, at(&me).1, is_last);
        let mut all: BTreeMap<String, Result<Samples, String>> =
            self.ask_all("/v1/drill/samples", asked, PATIENCE).await;
        all.extend(own.map(|own| (me, Ok(own))));
        let ahead = self.ahead();
        let now = (self.drills.agent.clock().monotonic)();
        for handed in self.drills.take_handed_in().into_iter().filter(|handed| handed.id == id) {
            let ahead_ms = handed.ahead_ms + ahead.get(&handed.by).copied().unwrap_or(0);
            self.see(COMMAND_LINE, &handed.samples);
            let has_ended = handed.samples.is_stopped && handed.samples.under_way == 0;
            self.elsewhere = (!has_ended).then_some(now);
            self.observed.take(COMMAND_LINE, handed.samples, ahead_ms);
        }
        // Who is silent has gone: it is not waited for.
        let is_there = self.elsewhere.is_some_and(|heard_at| now.saturating_sub(heard_at) < GONE);
        let mut under_way = u64::from(is_there);
        for (name, samples) in all {
            let Ok(samples) = samples else { continue };
            under_way += samples.under_way;
            self.fetched.insert(name.clone(), (samples.life, samples.next));
            self.see(&name, &samples);
            self.observed.take(&name, samples, ahead.get(&name).copied().unwrap_or(0));
        }
        let from = self.now().saturating_sub(NOW_MS);
        self.recent.retain(|(at, ..)| *at >= from);
        under_way
    }

    /// For who watches.
    fn see(&mut self, witness: &str, samples: &Samples) {
        for visit in &samples.visits {
            let served = visit.served.clone().filter(|_| visit.failure.is_none());
            self.recent.push((visit.at_unix_ms, witness.to_owned(), served));
            if let Some(record) = &visit.record {
                self.records.0 += u64::from(record.acknowledged.is_some());
                self.records.1 += record.failures.len() as u64;
            }
        }
    }

    /// Counts what the survivors have while it fails.
    async fn count_meanwhile(&mut self) {
        let counted_at = self.now();
        // The target is not asked: it may be dead, and it is not waited for.
        let found = self.found(self.word.target.datacenter(), PATIENCE).await;
        let all: Vec<Found> = found.into_values().filter_map(Result::ok).flatten().collect();
        self.observed.ledger.count_meanwhile(counted_at, &all);
    }

    /// Waits until the target has its users and all stores have everything, or the time for that is over.
    async fn until_all_is_back(&mut self) {
        let clock = self.drills.agent.clock();
        let until = (clock.monotonic)() + Duration::from_millis(self.word.scenario.recover_ms);
        let (mut has_converged, mut waits_since) = (false, None);
        for round in 1u64.. {
            sleep(ROUND).await;
            let now = (clock.monotonic)();
            if round.is_multiple_of(FETCH_ROUNDS) {
                self.fetch().await;
            }
            let Some((_, word)) = self.drills.agent.drill() else { return };
            self.look(&word);
            self.tell(&word);
            if word.id != self.word.id {
                self.observed.notes.push("another drill began before all was back".to_owned());
                return;
            }
            if now >= until {
                return self.observed.notes.push("it was not waited longer for the return".to_owned());
            }
            let seldom = COUNT_ROUNDS + self.records.0 / RECORDS_A_ROUND;
            if !round.is_multiple_of(seldom) {
                continue;
            }
            if !has_converged && self.has_converged().await {
                has_converged = true;
                let at = self.now();
                self.observed.mark(at, What::Converged, "", "all stores hold the same");
            }
            if !self.is_back() || !has_converged {
                waits_since = None;
                continue;
            }
            // Lost records never come: it is not waited for them for long.
            let since = *waits_since.get_or_insert(now);
            if self.count_in_the_end().await == 0 || now.saturating_sub(since) >= LOST {
                return;
            }
        }
    }

    /// The target serves, and one of its users was there.
    fn is_back(&self) -> bool {
        let view = self.drills.agent.view();
        let serves = view
            .datacenters
            .values()
            .all(|datacenter| datacenter.is_forgotten || datacenter.state == State::Serving);
        serves && (!self.word.scenario.moves_all_users() || self.observed.is_restored())
    }

    /// Counts in every datacenter; how many records are missing, of the one that lacks most.
    async fn count_in_the_end(&mut self) -> u64 {
        let mut missing = 0;
        self.observed.ledger.uncounted.clear();
        for (name, found) in self.found(None, LONG_PATIENCE).await {
            match found {
                Ok(found) => {
                    self.observed.ledger.count_in_the_end(&name, found);
                    missing = missing.max(self.observed.ledger.lacks(&name));
                }
                Err(why) => {
                    let note = format!("the records in {name} could not be counted: {why}");
                    if !self.observed.notes.contains(&note) {
                        self.observed.notes.push(note);
                    }
                    self.observed.ledger.forget(&name);
                    self.observed.ledger.uncounted.push(name);
                    missing = missing.max(1);
                }
            }
        }
        missing
    }

    async fn report(&mut self, outcome: Outcome) {
        // What was acknowledged last is on its way for as long as it takes to be durable elsewhere.
        for _ in 0..5 {
            if self.count_in_the_end().await == 0 {
                break;
            }
            sleep(5 * ROUND).await;
        }
        let agent = Arc::clone(&self.drills.agent);
        let config = agent.config();
        for name in self.peers.names().filter(|name| !self.fetched.contains_key(*name)) {
            self.observed.notes.push(format!("nothing was heard of the witness in {name}"));
        }
        if let (Some(target), Some(undone)) = (self.word.target.datacenter(), self.observed.undone_at()) {
            let history = agent.history();
            let serving = history.events.iter().rev().find(|event| event.about == target);
            let is_back =
                serving.filter(|event| event.to == State::Serving.to_string() && event.at_unix_ms >= undone);
            if let Some(event) = is_back {
                self.observed.mark(event.at_unix_ms, What::Ramped, target, "has all of its users again");
            }
        }
        let scenario = self.word.scenario.clone();
        let base = Report {
            v: report::VERSION,
            id: self.word.id.clone(),
            fleet: config.fleet.name.clone(),
            program: format!("daemun {}", env!("CARGO_PKG_VERSION")),
            config_digest: config.digest.clone(),
            generation: agent.view().generation,
            scenario: Some(scenario.clone()),
            target: self.word.target.to_string(),
            by: self.order.by.clone(),
            reason: self.order.reason.clone(),
            conductor: agent.name().to_owned(),
            break_glass: self.order.break_glass,
            begun_unix_ms: self.order.at_unix_ms,
            ended_unix_ms: self.now(),
            checks: self.word.checks.clone(),
            outcome,
            conflicts: self.new_conflicts().await,
            notes: notes(),
            ..Report::default()
        };
        let Some(store) = agent.store().cloned() else { return };
        let previous = self.previous().await;
        let report = self.observed.report(base, &scenario, previous.as_ref());
        let mut kept = records::keep(&store, &report, Durability::Remote(1)).await;
        if kept.is_err() {
            kept = records::keep(&store, &report, Durability::Local).await;
        }
        match kept {
            Ok(()) => tracing::warn!(drill = report.id, met = report.verdict.is_met, "a drill's report"),
            Err(why) => tracing::error!(drill = report.id, why, "a drill's report is not kept"),
        }
    }

    /// Conflicts since it began. Each store counts the same ones: the most that any of them knows.
    async fn new_conflicts(&self) -> u64 {
        let now = self.drills.conflicts().await;
        let of = |(name, count): (String, u64)| {
            // Who was not heard at the beginning says nothing of what is new; a store that began again counts anew.
            let before = *self.conflicts.get(&name)?;
            Some(if before <= count { count - before } else { count })
        };
        now.into_iter().filter_map(of).max().unwrap_or(0)
    }

    /// Shows how it goes.
    fn tell(&mut self, word: &Word) {
        let lines: Vec<(u64, u64, String)> = self.observed.marks()[self.told..]
            .iter()
            .map(|mark| {
                self.lines += 1;
                let who = if mark.who.is_empty() { String::new() } else { format!("{} ", mark.who) };
                (self.lines, mark.at_unix_ms, format!("{who}{}", mark.text))
            })
            .collect();
        self.told = self.observed.marks().len();
        let mut witnesses: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut served: BTreeMap<String, u64> = BTreeMap::new();
        for (_, witness, by) in &self.recent {
            let counts = witnesses.entry(witness.clone()).or_default();
            match by {
                Some(by) => {
                    counts.0 += 1;
                    *served.entry(by.clone()).or_default() += 1;
                }
                None => counts.1 += 1,
            }
        }
        let view = self.drills.agent.view();
        let left = self.drills.agent.drill_left();
        let stage = match &word.stage {
            Stage::Armed => "armed: watching before anything fails".to_owned(),
            Stage::Step(step) => {
                let faults: Vec<String> = word.faults().iter().map(ToString::to_string).collect();
                format!("step {} of {}: {}", step + 1, word.scenario.steps.len(), faults.join(", "))
            }
            Stage::Ended(outcome) | Stage::Closed(outcome) => {
                format!("{}: waiting until all is back", outcome.ended.name())
            }
        };
        let records = self.records;
        self.drills.show(|progress| {
            progress.stage = stage;
            progress.left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            progress.lines.extend(lines);
            progress.witnesses = witnesses;
            progress.served = served;
            progress.states =
                view.datacenters.iter().map(|(name, view)| (name.clone(), view.state.to_string())).collect();
            progress.records = records;
        });
    }
}

/// What every reader should know.
fn notes() -> Vec<String> {
    vec![
        "Each visit is of somebody who comes anew. Who has an answer already may keep it for its TTL longer.".to_owned(),
        "Times are by the clock of the agent that led it; those of others are corrected by the measured difference."
            .to_owned(),
    ]
}
