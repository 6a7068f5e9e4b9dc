//! The agent without its shell: outcomes of probes, answers of peers and operators' words go in; probes to send, questions
//! to ask, facts and the view come out. `run` drives it, and so does the simulator.
//!
//! It is driven by level, not by edge: after each input, `settle` compares what this agent now thinks with
//! what its own facts say, and writes the difference. So it does not matter what was lost, or which disk: whoever
//! comes back writes what is missing.

pub mod drill;
mod messages;
mod settle;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::config::DATACENTERS_MAX;
use daemun_fleet::view::Frontier;
use daemun_fleet::{Config, FleetView};

use crate::admission::Admission;
use crate::facts::{Batch, Body, Fact, Facts};
use crate::gate::{Gate, PeersReachable};
use crate::history::{Event, changes};
use crate::judge::{Judgement, judge};
use crate::orders::{Left, Timers};
use crate::pull::{Puller, SILENCE};
use crate::rates::Rates;
pub use messages::{Answer, Input, Kept, LinkStatus, Moment, Output};
use watch::Watches;

/// The most authors whose facts are kept: those of the config, and some that it does not know (yet, or any more).
const AUTHORS_MAX: usize = 2 * DATACENTERS_MAX;
/// After a restart an agent says nothing until its own eyes have seen every server and it knows of every peer whether it is
/// there, or this long: its last words may be old, and whatever it writes would make them count again.
const WARM_UP: Duration = Duration::from_secs(5);
/// What another process saw longer ago says nothing of now.
const GLIMPSE_MAX: Duration = Duration::from_secs(3);
/// Something is to be handed in at least this often, if only a [`Input::Tick`]: timers are looked at then.
pub const TICK: Duration = Duration::from_millis(100);
/// No author numbers so far within the life of the Earth's seas; a number above it was made up.
const NUMBER_MAX: u64 = 1 << 53;
/// The first of January 2026, milliseconds of Unix time: a life is numbered from the milliseconds since. An agent writes
/// far less than a fact a millisecond, so a later life begins above all numbers of the earlier ones.
const EPOCH_UNIX_MS: u64 = 1_767_225_600_000;
/// Where the clock has gone back, a life begins above all that is known by the milliseconds modulo this, a quarter of an
/// hour and more: what the life before wrote last may be on no disk, and be under way.
const BIRTHS_SPREAD: u64 = 1 << 20;

/// How facts become a view: [`judge`], but for tests of the tests.
pub type Fold = fn(&Config, &Facts) -> Judgement;

/// The agent's state.
#[derive(Debug)]
pub struct Core {
    me: String,
    config: Arc<Config>,
    fold: Fold,
    facts: Facts,
    watches: Watches,
    pullers: BTreeMap<String, Puller>,
    /// How far each peer has heard.
    heard_by: BTreeMap<String, Frontier>,
    admissions: BTreeMap<String, Admission>,
    timers: Timers,
    /// The drill that is under way, if any.
    leading: Option<drill::Leading>,
    gate: Box<dyn Gate>,
    /// The gate that was given; none: peers that can be reached are enough.
    has_gate: bool,
    rates: Rates,
    judgement: Judgement,
    view: Arc<FleetView>,
    events: Vec<Event>,
    /// Until when it says nothing; `None`: its new life has begun.
    warming_up_until: Option<Duration>,
    /// The highest number that anyone knows of our facts.
    others_know: u64,
    /// When what is thought was last compared with what is said.
    settled_at: Duration,
    /// Nothing is left to write, and time alone changes nothing.
    is_at_rest: bool,
    /// When the last input came: a long gap means that we slept (a stopped process, a suspended machine).
    last_input_at: Duration,
}

impl Core {
    /// An agent of datacenter `me` that goes on from what it had before it stopped.
    pub fn new(me: &str, config: Arc<Config>, kept: Kept, moment: Moment) -> Self {
        Self::with_fold(me, config, kept, moment, judge)
    }

    /// The same, with another fold: to show that a checker finds a wrong one.
    pub fn with_fold(me: &str, config: Arc<Config>, kept: Kept, moment: Moment, fold: Fold) -> Self {
        let mut facts = Facts::default();
        facts.merge(&kept.batch);
        let judgement = fold(&config, &facts);
        let mut core = Self {
            me: me.to_owned(),
            fold,
            watches: Watches::default(),
            pullers: BTreeMap::new(),
            heard_by: BTreeMap::new(),
            admissions: BTreeMap::new(),
            timers: Timers::default(),
            leading: None,
            gate: Box::new(PeersReachable { needed: config.sync.comeback.catch_up }),
            has_gate: false,
            rates: Rates::default(),
            view: Arc::new(judgement.view.clone()),
            judgement,
            events: Vec::new(),
            // Without last words of its own too: the peers have them, and they count until it speaks.
            warming_up_until: Some(moment.now + WARM_UP),
            others_know: 0,
            settled_at: moment.now,
            is_at_rest: false,
            last_input_at: moment.now,
            config: Arc::clone(&config),
            facts,
        };
        core.hear_orders(moment.now);
        let away = moment.unix_ms.saturating_sub(kept.at_unix_ms);
        let left = kept.left.into_iter().map(|left| Left { ms: left.ms.saturating_sub(away), ..left });
        core.timers.resume_left(&left.collect::<Vec<_>>(), moment.now);
        core.set_config(config, moment);
        core
    }

    /// Goes on under another config: what is known of servers and peers that stay is kept, probes of those that are gone
    /// stop.
    pub fn set_config(&mut self, config: Arc<Config>, moment: Moment) -> bool {
        let resumed = |server: &str, address: IpAddr| {
            // What we said last is where we go on: a restart is no reason to doubt a server.
            self.facts.vote(&self.me, server, address).map(|(verdict, _)| verdict).unwrap_or_default()
        };
        self.watches.set_config(&self.me, &config, moment.now, resumed);
        let is_gone = |fact: &Fact| match &fact.body {
            Body::Vote { server, address, .. } => !self.watches.has(server, *address),
            _ => false,
        };
        if self.warming_up_until.is_none() && self.facts.of(&self.me).any(is_gone) {
            // What was said of servers that are gone is taken back by a new life.
            self.warming_up_until = Some(moment.now);
        }
        let peers = config.fleet.datacenters.iter().filter(|datacenter| datacenter.name != self.me);
        let puller = |name: &str| self.pullers.get(name).cloned().unwrap_or_else(|| Puller::new(moment.now));
        self.pullers = peers.map(|peer| (peer.name.clone(), puller(&peer.name))).collect();
        self.admissions.retain(|name, _| config.fleet.datacenter(name).is_some());
        if !self.has_gate {
            self.gate = Box::new(PeersReachable { needed: config.sync.comeback.catch_up });
        }
        self.config = config;
        self.is_at_rest = false;
        self.judgement = (self.fold)(&self.config, &self.facts);
        self.publish(moment)
    }

    /// What decides whether this datacenter has the data.
    pub fn set_gate(&mut self, gate: Box<dyn Gate>) {
        self.gate = gate;
        self.has_gate = true;
    }

    /// Takes in what happened; true when the view has changed.
    pub fn handle(&mut self, moment: Moment, input: Input) -> bool {
        let probe = &self.config.sync.probe;
        let sleep = SILENCE.max(probe.interval * 2 + probe.timeout); // inputs come at least as often as ticks
        if moment.now.saturating_sub(self.last_input_at) >= sleep {
            self.wake_up(moment.now);
        }
        self.last_input_at = moment.now;
        let (is_news, mut facts_moved) = self.take(moment, input);
        self.is_at_rest &= !is_news && !facts_moved;
        // Most inputs change nothing, and then there is nothing to compare.
        if self.is_at_rest && self.stays_at_rest(moment.now) {
            return false;
        }
        // What only time moves is looked at as often as there are ticks, however much else comes in.
        if !is_news && !facts_moved && moment.now.saturating_sub(self.settled_at) < TICK {
            return false;
        }
        self.settled_at = moment.now;
        facts_moved |= self.settle(moment);
        facts_moved && self.publish(moment)
    }

    /// Whether an input was news, of whatever kind, and whether it brought facts.
    fn take(&mut self, moment: Moment, input: Input) -> (bool, bool) {
        match input {
            Input::Tick => (false, false),
            // By another's eyes that failed we look ourselves: this agent alone decides.
            Input::Glimpsed { server, address, old, outcome: Err(_) } => {
                if old <= GLIMPSE_MAX {
                    self.watches.hasten(&server, address, moment.now);
                }
                (false, false)
            }
            Input::Glimpsed { old, .. } if old > GLIMPSE_MAX => (false, false),
            Input::Probed { server, address, old, outcome }
            | Input::Glimpsed { server, address, old, outcome } => {
                let probe = &self.config.sync.probe;
                (self.watches.observe(probe, &server, address, moment.now, old, outcome), false)
            }
            Input::Eye { node } => {
                self.watches.see_eye(&node, moment.now);
                (false, false)
            }
            Input::Measured { node, measured } => {
                self.rates.take(moment.now, &node, measured);
                (true, false)
            }
            Input::Answered { peer, number, answer } => {
                let puller = self.pullers.get_mut(&peer);
                // What lay in a buffer while we slept may speak of words that are over: the next answer is as good.
                if !puller.is_some_and(|puller| puller.answered(moment.now, number, &answer.greeting)) {
                    return (false, false);
                }
                let has_left = !answer.left.is_empty();
                (has_left, self.learn(moment, answer))
            }
            Input::Failed { peer, number, why } => {
                if let Some(puller) = self.pullers.get_mut(&peer) {
                    puller.failed(moment.now, number, why);
                }
                (false, false)
            }
            Input::Asked { peer, after } => {
                if self.pullers.contains_key(&peer) {
                    self.others_know = self.others_know.max(after.of(&self.me).min(NUMBER_MAX));
                    self.heard_by.insert(peer, after);
                }
                (false, false)
            }
            Input::Order(order) => (self.timers.hear(&order, moment.now), false),
        }
    }

    /// True when there were facts that were not known.
    fn learn(&mut self, moment: Moment, answer: Answer) -> bool {
        let known_of_us = answer.batch.frontier.of(&self.me).min(NUMBER_MAX);
        self.others_know = self.others_know.max(known_of_us);
        let begins_again = self.warming_up_until.is_none() && known_of_us > self.facts.head(&self.me);
        if begins_again {
            // From a life whose clock was ahead of ours: begin again above it.
            self.facts.begin_life(&self.me, self.next_birth(moment), moment.unix_ms);
        }
        let batch = self.acceptable(answer.batch);
        let is_news = self.facts.merge(&batch);
        if is_news {
            self.hear_orders(moment.now);
        }
        self.timers.hear_left(&answer.left, moment.now);
        begins_again || is_news
    }

    /// The number at which a new life is to begin. Two lives that know the same of the earlier ones begin at different
    /// numbers, as time has passed between them.
    fn next_birth(&self, moment: Moment) -> u64 {
        let clock = moment.unix_ms.saturating_sub(EPOCH_UNIX_MS);
        let known = self.facts.head(&self.me).max(self.others_know);
        if clock > known { clock } else { known.saturating_add(1 + clock % BIRTHS_SPREAD) }
    }

    /// Takes the operators' words from the facts of the fleet's datacenters.
    fn hear_orders(&mut self, now: Duration) {
        for datacenter in &self.config.fleet.datacenters {
            for fact in self.facts.of(&datacenter.name) {
                if let Body::Order(order) = &fact.body {
                    self.timers.hear(order, now);
                }
            }
        }
    }

    /// What is to be done now.
    pub fn poll(&mut self, moment: Moment) -> Vec<Output> {
        let mut outputs: Vec<Output> = self
            .watches
            .due(&self.config.sync.probe, moment.now)
            .into_iter()
            .map(|(server, address)| Output::Probe { server, address })
            .collect();
        for (peer, puller) in &mut self.pullers {
            if let Some(ask) = puller.poll(moment.now, moment.unix_ms, || self.facts.frontier()) {
                outputs.push(Output::Ask { peer: peer.clone(), ask });
            }
        }
        outputs
    }

    /// When [`poll`](Self::poll) next has something, at the latest.
    pub fn wake_at(&self) -> Duration {
        let pulls = self.pullers.values().map(Puller::wake_at);
        pulls.chain(self.watches.due_at()).min().unwrap_or(Duration::MAX)
    }

    /// The answer to a peer's question, if there is news for it: sent now, to a question that came at `received_unix_ms`.
    /// `None`: it may be held.
    pub fn answer(&self, after: &Frontier) -> Option<(Batch, Vec<Left>)> {
        (!after.covers(&self.facts.frontier())).then(|| self.answer_anyway(after))
    }

    /// The same when it may be held no longer.
    pub fn answer_anyway(&self, after: &Frontier) -> (Batch, Vec<Left>) {
        (self.facts.after(after), self.timers.left(self.last_input_at))
    }

    /// What to keep on disk.
    pub fn kept(&self, moment: Moment) -> Kept {
        let (batch, left) = (self.facts.after(&Frontier::default()), self.timers.left(moment.now));
        Kept { batch, left, at_unix_ms: moment.unix_ms }
    }

    /// After a sleep of our own: what we last saw is old, and that nobody was heard says nothing of them.
    fn wake_up(&mut self, now: Duration) {
        for puller in self.pullers.values_mut() {
            puller.wake_up(now);
        }
        self.watches.wake_up(now);
        if self.warming_up_until.is_none() && self.facts.head(&self.me) > 0 {
            self.warming_up_until = Some(now + WARM_UP);
        }
    }

    /// What others say of others: nobody tells us what we said. Authors that the config does not know are kept, or
    /// agents of two configs would never be done telling each other; the fold does not listen to them.
    fn acceptable(&self, mut batch: Batch) -> Batch {
        let is_silent = self.warming_up_until.is_some();
        let mut room = AUTHORS_MAX.saturating_sub(self.facts.authors().count());
        let mut is_kept = |author: &str| {
            let is_known = self.facts.head(author) > 0 || self.config.fleet.datacenter(author).is_some();
            let is_new = !is_known && room > 0;
            room -= usize::from(is_new);
            // Nobody tells us what we said; but before we speak again, others may know our last words better than our disk.
            (author != self.me || is_silent) && (is_known || is_new)
        };
        batch.frontier.0.retain(|author, number| *number <= NUMBER_MAX && is_kept(author));
        let Batch { frontier, facts, .. } = &mut batch;
        let is_possible = |fact: &Fact| match &fact.body {
            // Who could not have heard that much would silence the other for good.
            Body::Link { peer, heard, .. } => *heard <= frontier.of(peer).max(self.facts.head(peer)),
            _ => true,
        };
        facts.retain(|fact| frontier.0.contains_key(&fact.author) && is_possible(fact));
        batch
    }

    fn publish(&mut self, moment: Moment) -> bool {
        if self.facts_moved() {
            self.judgement = (self.fold)(&self.config, &self.facts);
        }
        let changed = self.judgement.view != *self.view;
        if changed {
            let view = Arc::new(self.judgement.view.clone());
            self.events.extend(changes(&self.view, &view, moment.unix_ms));
            self.view = view;
        }
        changed
    }

    /// The newest view.
    pub fn view(&self) -> &Arc<FleetView> {
        &self.view
    }

    /// What changed in the view since this was last asked.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// All facts heard.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether an address of a server is looked at.
    pub fn looks_at(&self, server: &str, address: IpAddr) -> bool {
        self.watches.has(server, address)
    }

    /// The fold in use.
    pub fn fold(&self) -> Fold {
        self.fold
    }

    /// The operators' words known.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The config in force.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Name of the datacenter.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// How many processes of this datacenter look, this one included: a name server that looks too takes its share of the
    /// probes, it does not add to them.
    pub fn eyes(&self) -> u32 {
        self.watches.eyes()
    }

    /// The links to the peers.
    pub fn links(&self) -> Vec<LinkStatus> {
        let status = |(peer, puller): (&String, &Puller)| {
            let estimate = puller.skew().estimate();
            let heard = self.heard_by.get(peer).map_or(0, |frontier| frontier.of(&self.me));
            LinkStatus {
                peer: peer.clone(),
                is_up: puller.failure().is_none() && puller.config_digest().is_some(),
                failure: puller.failure().map(ToOwned::to_owned),
                config_digest: puller.config_digest().map(ToOwned::to_owned),
                clock_ahead_ms: estimate.map(|estimate| estimate.ahead_ms),
                clock_error_ms: estimate.map(|estimate| estimate.error_ms),
                is_clock_off: puller.skew().is_over(self.config.sync.clock_skew_max),
                has_heard_us: heard >= self.facts.head(&self.me),
            }
        };
        self.pullers.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests;
