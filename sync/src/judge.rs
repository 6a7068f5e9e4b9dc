//! From facts to the fleet view: the fold that every agent computes alike. It reads no clock and does not know who
//! computes it: same config, same facts, same view.
//!
//! Who decides about a datacenter: the others (it may not know how it looks from outside), less those that have
//! fallen silent (all who are left to hear them say so), less those that see most of their targets fail, for their own eyes
//! are more likely bad; if that leaves none, all that are left. A majority of these must say down, and one that says so alone
//! must be surer, by a longer burst. With two datacenters this is the survivor's own eyes.
//!
//! What is said of a datacenter's state, the first that there is:
//!
//! 1. an operator's pin, or that it is forgotten;
//! 2. what was so when automation was paused;
//! 3. down, by votes;
//! 4. draining or drained, by an operator or a drill;
//! 5. catching up or ramping, by the middle of the observers' admissions (see [`admission`](crate::admission));
//! 6. serving.
//!
//! That a private link is cut is *no* reason: users still get there. It is shown, and it makes lag unknown.

mod opinion;

use std::collections::BTreeMap;
use std::net::IpAddr;

use daemun_fleet::Config;
use daemun_fleet::config::DOOR_ROLE;
use daemun_fleet::drill::Fault;
use daemun_fleet::view::{DatacenterView, FleetView, ObserverView, State};

use crate::admission::{Admitted, Out};
use crate::drill::word::Word;
use crate::facts::{Body, Fact, Facts};
use crate::health::Verdict;
use crate::orders::{About, Order, Verb};
use opinion::{Opinion, Tally};

/// The view, and what the agents' own detectors go by beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The view.
    pub view: FleetView,
    /// How each datacenter's return stands, by name.
    pub returns: BTreeMap<String, Return>,
}

/// How a datacenter's return stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Whether it is out, and why.
    pub out: Out,
    /// The highest episode that anyone speaks of.
    pub newest: u64,
    /// The highest that is sure.
    pub newest_sure: u64,
    /// How far its users are let back: the middle of what the observers say; none: nobody has said.
    pub level: Option<u8>,
}

/// The view that these facts give.
pub fn judge(config: &Config, facts: &Facts) -> Judgement {
    let bench = Bench::new(config, facts);
    let mut datacenters = BTreeMap::new();
    let mut returns = BTreeMap::new();
    let mut servers = BTreeMap::new();
    let pause = bench.pause();
    for number in 0..bench.names.len() {
        for (name, view) in opinion::servers(&bench, number) {
            servers.insert(name, view);
        }
        let (view, its_return) = bench.datacenter(number);
        datacenters.insert(bench.names[number].to_owned(), view);
        returns.insert(bench.names[number].to_owned(), its_return);
    }
    if let Some(Order { verb: Verb::Pause { down, .. }, .. }) = pause {
        opinion::keep(config, &mut servers, down);
    }
    for (number, name) in bench.names.iter().enumerate() {
        if let Some(Verb::Pin { state: State::Serving | State::Ramping(_) }) =
            bench.order(name).map(|o| &o.verb)
        {
            opinion::use_all(config, number, &mut servers);
        }
    }
    let frontier = facts.frontier();
    let in_play = |view: &&DatacenterView| !view.is_forgotten;
    let view = FleetView {
        generation: frontier.generation(),
        frontier,
        config_digest: config.digest.clone(),
        fail_open: datacenters.values().filter(in_play).all(|datacenter| datacenter.state == State::Down),
        datacenters,
        servers,
        observers: bench.observers(),
        paused: pause.map(Order::view),
        drill: bench.drill().map(|(order, word)| word.view(&order.by, order.for_ms.unwrap_or(0))),
        requests: bench.sum(|body| match body {
            Body::Rates { requests, .. } => Some(requests),
            _ => None,
        }),
        queries: bench.sum(|body| match body {
            Body::Rates { queries, .. } => Some(queries),
            _ => None,
        }),
    };
    Judgement { view, returns }
}

/// Who is there to judge, found once for all datacenters.
struct Bench<'a> {
    config: &'a Config,
    facts: &'a Facts,
    names: Vec<&'a str>,
    orders: BTreeMap<About, &'a Order>,
    heard: Vec<bool>,
    /// Opinion of each datacenter's observer, by author, by subject.
    opinions: Vec<Vec<Option<Opinion<'a>>>>,
    /// Why an observer's eyes are doubted.
    doubted: Vec<Option<String>>,
    /// Whether an observer has no IPv4, no IPv6.
    blind: Vec<[bool; 2]>,
}

impl<'a> Bench<'a> {
    fn new(config: &'a Config, facts: &'a Facts) -> Self {
        // What the config does not know has no say, not even about others.
        let names: Vec<&str> = config.fleet.datacenters.iter().map(|d| d.name.as_str()).collect();
        let mut bench = Self {
            config,
            facts,
            orders: orders(&names, facts),
            heard: Vec::new(),
            opinions: Vec::new(),
            doubted: Vec::new(),
            blind: Vec::new(),
            names,
        };
        bench.heard = bench.heard();
        let of = |author: &&str| -> Vec<Option<Opinion<'a>>> {
            (0..bench.names.len()).map(|subject| opinion::opinion(config, facts, author, subject)).collect()
        };
        bench.opinions = bench.names.iter().map(of).collect();
        bench.blind = (0..bench.names.len()).map(|author| bench.blind(author)).collect();
        bench.doubted = (0..bench.names.len()).map(|author| bench.doubt(author)).collect();
        bench
    }

    /// Who is heard. A claim that one is silent is not enough while a third still hears it, if the claimer does hear the
    /// third, or the third was heard since: it is then the link between these two that is cut.
    fn heard(&self) -> Vec<bool> {
        let all = || 0..self.names.len();
        let in_play: Vec<bool> = self.names.iter().map(|name| !self.is_forgotten(name)).collect();
        let claim = |by: usize, of: usize| {
            by != of && in_play[by] && self.facts.is_called_silent_by(self.names[of], self.names[by])
        };
        let is_cut = |by: usize, of: usize| {
            self.facts.link(self.names[by], self.names[of]).is_some_and(|(is_up, _)| !is_up)
        };
        let claims: Vec<Vec<bool>> = all().map(|by| all().map(|of| claim(by, of)).collect()).collect();
        let is_silent = |of: usize| {
            let agrees = |by: usize, third: usize| {
                third == of || third == by || !in_play[third] || is_cut(third, of) || claims[by][third]
            };
            all().any(|by| claims[by][of] && all().all(|third| agrees(by, third)))
        };
        all().map(|of| in_play[of] && !is_silent(of)).collect()
    }

    fn order(&self, name: &str) -> Option<&'a Order> {
        let order = self.orders.get(&About::Datacenter(name.to_owned())).copied();
        order.filter(|order| order.verb.binds())
    }

    fn is_forgotten(&self, name: &str) -> bool {
        self.order(name).is_some_and(|order| order.verb == Verb::Forget)
    }

    fn pause(&self) -> Option<&'a Order> {
        self.orders.get(&About::Fleet).copied().filter(|order| order.verb.binds())
    }

    /// The drill that is armed or under way.
    fn drill(&self) -> Option<(&'a Order, &'a Word)> {
        let order = self.orders.get(&About::Drill).copied()?;
        match &order.verb {
            Verb::Drill(word) if word.binds() => Some((order, word)),
            _ => None,
        }
    }

    /// The percentage of its users that a drill leaves to a datacenter, and the word that says so.
    fn drained_by_drill(&self, name: &str) -> Option<(u8, &'a Order)> {
        let (order, word) = self.drill().filter(|(_, word)| word.target.datacenter() == Some(name))?;
        let share = word.faults().iter().find_map(|fault| match fault {
            Fault::Drain { share } => Some(*share),
            _ => None,
        });
        Some((100u8.saturating_sub(share?), order))
    }

    /// Why an observer's own eyes are more likely bad than what it looks at (as in Lifeguard, Dadgar et al. 2018): it sees
    /// most of the others fail.
    fn doubt(&self, author: usize) -> Option<String> {
        let others = (0..self.names.len())
            .filter(|&subject| subject != author && !self.is_forgotten(self.names[subject]))
            .filter_map(|subject| self.opinions[author][subject].as_ref());
        let (mut down, mut all) = (0, 0);
        for opinion in others {
            all += 1;
            down += usize::from(opinion.verdict == Verdict::Down);
        }
        (down * 2 > all).then(|| format!("it sees {down} of {all} others down"))
    }

    /// Whether an observer sees most doors of an address's family fail, its own included: then its network has no such
    /// family, and it says nothing of addresses of it.
    fn is_blind(&self, author: usize, address: &IpAddr) -> bool {
        self.blind[author][usize::from(address.is_ipv6())]
    }

    fn blind(&self, author: usize) -> [bool; 2] {
        let mut counts = [(0, 0); 2];
        for server in self.config.fleet.servers.iter().filter(|server| server.role == DOOR_ROLE) {
            for address in &server.addresses {
                let (down, all) = &mut counts[usize::from(address.is_ipv6())];
                match self.facts.vote(self.names[author], &server.name, *address) {
                    Some((Verdict::Down, _)) => (*down, *all) = (*down + 1, *all + 1),
                    Some((Verdict::Up, _)) => *all += 1,
                    Some((Verdict::Unknown, _)) | None => {}
                }
            }
        }
        // Where the other family fails as well it is not the family.
        let fails = counts.map(|(down, all)| down * 2 > all);
        [fails[0] && !fails[1] && counts[1].1 > 0, fails[1] && !fails[0] && counts[0].1 > 0]
    }

    /// The observers that decide about a datacenter.
    fn deciding(&self, subject: usize) -> Vec<usize> {
        let is_alone = self.names.len() == 1;
        let others: Vec<usize> = (0..self.names.len())
            .filter(|&author| self.heard[author] && (is_alone || author != subject))
            .collect();
        let seeing: Vec<usize> =
            others.iter().copied().filter(|&author| self.doubted[author].is_none()).collect();
        if seeing.is_empty() { others } else { seeing }
    }

    fn observers(&self) -> BTreeMap<String, ObserverView> {
        // Where nobody is left without a doubt, the doubted decide.
        let is_one_left = (0..self.names.len()).any(|at| self.heard[at] && self.doubted[at].is_none());
        let view = |author: usize| ObserverView {
            is_heard: self.heard[author],
            doubted: self.doubted[author].clone().filter(|_| is_one_left),
        };
        (0..self.names.len()).map(|author| (self.names[author].to_owned(), view(author))).collect()
    }

    /// State of one datacenter, and how its return stands.
    fn datacenter(&self, subject: usize) -> (DatacenterView, Return) {
        let name = self.names[subject];
        let deciding = self.deciding(subject);
        let opinions: Vec<&Opinion<'a>> =
            deciding.iter().filter_map(|&author| self.opinions[author][subject].as_ref()).collect();
        let tally =
            Tally::of(opinions.iter().map(|opinion| (opinion.verdict, opinion.is_sure, opinion.fact)));
        let unforgotten = self.names.iter().filter(|other| !self.is_forgotten(other)).count();
        let all_others = if self.names.len() == 1 { 1 } else { unforgotten.saturating_sub(1) };
        let is_sure = tally.is_down && tally.down * 2 > all_others;
        let admissions = self.admissions(subject);
        let newest = admissions.iter().map(|(_, admitted, _)| admitted.episode).max().unwrap_or(0);
        let sure = admissions.iter().filter(|(_, admitted, _)| admitted.is_sure);
        let newest_sure = sure.map(|(_, admitted, _)| admitted.episode).max().unwrap_or(0);
        let level = level(&admissions, &deciding, newest_sure);
        let order = self.order(name);
        let drained = order.and_then(|order| match order.verb {
            Verb::Drain { over_ms } => Some(match self.facts.drained(name, order.revision) {
                Some((percent, fact)) => (percent, fact.at_unix_ms),
                None => (Some(if over_ms == 0 { 0 } else { 100 }), order.at_unix_ms),
            }),
            _ => None,
        });
        let by_drill = self.drained_by_drill(name).filter(|_| order.is_none());
        let drained = by_drill.map_or(drained, |(percent, order)| Some((Some(percent), order.at_unix_ms)));
        let out = match (tally.is_down, drained) {
            (true, _) => Out::Down { is_sure },
            (false, Some((percent, _))) => Out::Drained { percent: percent.unwrap_or(0) },
            (false, None) => match order.map(|order| &order.verb) {
                Some(Verb::Pin { state }) if state.share() < 100 || !matches!(state, State::Serving) => {
                    Out::Drained { percent: if state.is_between() { state.share() % 100 } else { 0 } }
                }
                Some(Verb::Forget) => Out::Drained { percent: 0 },
                _ => Out::No,
            },
        };
        let word = order.or(by_drill.map(|(_, order)| order));
        let mut view = self.state(name, &tally, word, drained, level);
        view.suspected = view.state != State::Down && opinion::is_suspected(self, subject, &deciding);
        view.order = order.map(Order::view);
        view.cut_from = self.cut_from(name);
        view.is_forgotten = self.is_forgotten(name);
        (view, Return { out, newest, newest_sure, level: level.map(|level| level.percent) })
    }

    /// The state, by the first of the rules that says one.
    fn state(
        &self,
        name: &str,
        tally: &Tally,
        order: Option<&Order>,
        drained: Option<(Option<u8>, u64)>,
        level: Option<Level<'_>>,
    ) -> DatacenterView {
        let at = |state, why: String, since_unix_ms| DatacenterView {
            since_unix_ms,
            ..DatacenterView::new(state, why)
        };
        let said = |order: &Order, what: &str| {
            let reason = if order.reason.is_empty() { String::new() } else { format!(": {}", order.reason) };
            format!("{what} by {}{reason}", order.by)
        };
        match order {
            Some(order) if order.verb == Verb::Forget => {
                return at(State::Drained, said(order, "forgotten"), order.at_unix_ms);
            }
            Some(order) => {
                if let Verb::Pin { state } = order.verb {
                    return at(state, said(order, "pinned"), order.at_unix_ms);
                }
            }
            None => {}
        }
        if let Some(pause) = self.pause()
            && let Verb::Pause { states, .. } = &pause.verb
            && let Some(state) = states.get(name).filter(|_| drained.is_none())
        {
            return at(*state, said(pause, "automation is paused"), pause.at_unix_ms);
        }
        if tally.is_down {
            return at(State::Down, tally.why.clone(), tally.since);
        }
        if let (Some((percent, since)), Some(order)) = (drained, order) {
            let state = percent.map_or(State::Drained, State::Draining);
            let what = if order.about == About::Drill { "drained for a drill" } else { "drained" };
            return at(state, said(order, what), since);
        }
        match level.filter(|level| level.percent < 100) {
            Some(Level { percent: 0, admitted, fact }) => {
                let why = if admitted.why.is_empty() { "was down".to_owned() } else { admitted.why.clone() };
                at(State::CatchingUp, why, fact.at_unix_ms)
            }
            Some(Level { percent, admitted, fact }) => {
                let why = if admitted.why.is_empty() { "its users come back" } else { &admitted.why };
                at(State::Ramping(percent), why.to_owned(), fact.at_unix_ms)
            }
            None => {
                let since = level.map_or(tally.since, |level| level.fact.at_unix_ms.max(tally.since));
                at(State::Serving, tally.why.clone(), since)
            }
        }
    }

    /// What each author says of a datacenter's return.
    fn admissions(&self, subject: usize) -> Vec<(usize, &'a Admitted, &'a Fact)> {
        let of = |author: usize| {
            let (admitted, fact) = self.facts.admission(self.names[author], self.names[subject])?;
            Some((author, admitted, fact))
        };
        (0..self.names.len())
            .filter(|&author| !self.is_forgotten(self.names[author]))
            .filter_map(of)
            .collect()
    }

    /// Those whose private link to a datacenter is cut.
    fn cut_from(&self, name: &str) -> Vec<String> {
        let is_cut = |author: &&&str| {
            !self.is_forgotten(author) && self.facts.link(author, name).is_some_and(|(is_up, _)| !is_up)
        };
        self.names.iter().filter(is_cut).map(|author| (*author).to_owned()).collect()
    }

    /// The sum of what the datacenters measured.
    fn sum(&self, of: impl Fn(&Body) -> Option<&BTreeMap<String, u32>>) -> BTreeMap<String, u32> {
        let mut sums: BTreeMap<String, u32> = BTreeMap::new();
        let heard = (0..self.names.len()).filter(|&author| self.heard[author]);
        for fact in heard.flat_map(|author| self.facts.of(self.names[author])) {
            for (class, rate) in of(&fact.body).into_iter().flatten() {
                let sum = sums.entry(class.clone()).or_default();
                *sum = sum.saturating_add(*rate);
            }
        }
        sums
    }
}

/// The word that holds about each thing, whoever has it in its log, heard or not.
fn orders<'a>(names: &[&str], facts: &'a Facts) -> BTreeMap<About, &'a Order> {
    let mut orders: BTreeMap<About, &Order> = BTreeMap::new();
    for fact in names.iter().flat_map(|name| facts.of(name)) {
        let Body::Order(order) = &fact.body else { continue };
        if orders.get(&order.about).is_none_or(|known| order.holds_over(known)) {
            orders.insert(order.about.clone(), order);
        }
    }
    orders
}

/// How far users are let back, and the fact that says so.
#[derive(Clone, Copy)]
struct Level<'a> {
    percent: u8,
    admitted: &'a Admitted,
    fact: &'a Fact,
}

/// The middle of what the observers say, so that to hold users back takes a majority, as taking them away does. Who has
/// not yet heard of a sure return has no say in it.
fn level<'a>(
    admissions: &[(usize, &'a Admitted, &'a Fact)],
    deciding: &[usize],
    newest_sure: u64,
) -> Option<Level<'a>> {
    let of_return = || admissions.iter().filter(|(_, admitted, _)| admitted.episode >= newest_sure);
    let mut said: Vec<_> = of_return().filter(|(author, ..)| deciding.contains(author)).collect();
    if said.is_empty() {
        said = of_return().collect();
    }
    said.sort_by_key(|(author, admitted, _)| (std::cmp::Reverse(admitted.percent), *author));
    let (_, admitted, fact) = said.get(said.len().checked_sub(1)? / 2)?;
    Some(Level { percent: admitted.percent, admitted, fact })
}

#[cfg(test)]
mod tests;
