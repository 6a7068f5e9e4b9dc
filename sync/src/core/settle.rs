//! Writing the difference between what an agent thinks and what its facts say.

use std::net::IpAddr;
use std::time::Duration;

use daemun_fleet::config::{Check, DOOR_ROLE};
use daemun_fleet::view::{Health, State};

use super::{Core, Moment};
use crate::admission::{self, Admission, Out};
use crate::facts::{Body, Facts};
use crate::gate::PeerLink;
use crate::health::Verdict;
use crate::orders::{About, Verb};
use crate::pull::Puller;

/// Facts follow from facts, for a few rounds.
const ROUNDS_MAX: usize = 4;

impl Core {
    /// True when anything was written.
    pub(super) fn settle(&mut self, moment: Moment) -> bool {
        let head = self.facts.head(&self.me);
        self.watches.forget(&self.config.sync.probe, moment.now);
        if !self.has_begun(moment) {
            return false;
        }
        self.settle_votes(moment.unix_ms);
        self.settle_links(moment.unix_ms);
        self.settle_orders(moment);
        if let Some(measured) = self.rates.settle(moment.now) {
            let (requests, queries) = (measured.requests, measured.queries);
            self.facts.state(&self.me, moment.unix_ms, Body::Rates { requests, queries });
        }
        let mut others = self.config.fleet.datacenters.iter().filter(|d| d.name != self.me);
        if others.any(|other| self.facts.is_called_silent_by(&self.me, &other.name)) {
            self.facts.append(&self.me, moment.unix_ms, Body::Here);
        }
        for _ in 0..ROUNDS_MAX {
            if self.facts_moved() {
                self.judgement = (self.fold)(&self.config, &self.facts);
            }
            if !self.settle_admissions(moment) {
                break;
            }
        }
        let wrote = self.facts.head(&self.me) != head;
        self.is_at_rest = !wrote && self.is_calm();
        wrote
    }

    /// Nothing is under way that goes on with time: no return, no word that ends or drains, no rates, no cut link. Then
    /// all that is written follows from facts and verdicts, and settling once more writes nothing.
    fn is_calm(&self) -> bool {
        let is_in = |name: &str| {
            let here = self
                .judgement
                .returns
                .get(name)
                .is_none_or(|at| at.out == Out::No && at.level.is_none_or(|level| level == 100));
            here && self.admissions.get(name).is_none_or(|admission| admission.said().percent == 100)
        };
        self.warming_up_until.is_none()
            && self.timers.are_idle()
            && self.rates.are_idle()
            && self.pullers.values().all(|puller| !puller.is_cut())
            && self.config.fleet.datacenters.iter().all(|datacenter| is_in(&datacenter.name))
    }

    /// Whether what may end a rest by itself has not: an observation that grew old, a link that fell silent.
    pub(super) fn stays_at_rest(&mut self, now: Duration) -> bool {
        let forgot = self.watches.forget(&self.config.sync.probe, now);
        self.is_at_rest = !forgot && self.pullers.values().all(|puller| !puller.is_cut());
        self.is_at_rest
    }

    /// Whether the judgement is of older facts than there are.
    pub(super) fn facts_moved(&self) -> bool {
        self.judgement.view.frontier != self.facts.frontier()
    }

    /// Begins a new life when it is time to.
    fn has_begun(&mut self, moment: Moment) -> bool {
        let Some(until) = self.warming_up_until else { return true };
        let has_looked = self.watches.all_fresh() && self.pullers.values().all(Puller::is_known);
        if moment.now < until && !has_looked {
            return false;
        }
        self.warming_up_until = None;
        // What we said of returns holds on; the rest is said anew from what is seen.
        self.resume_admissions(moment);
        let drained: Vec<Body> =
            self.facts.of(&self.me).map(|fact| &fact.body).filter(is_drained).cloned().collect();
        self.facts.begin_life(&self.me, self.next_birth(moment), moment.unix_ms);
        // Who has been drained so far is not given users again by a restart.
        for body in drained {
            self.facts.append(&self.me, moment.unix_ms, body);
        }
        let published = self.rates.published().clone();
        if !published.requests.is_empty() || !published.queries.is_empty() {
            let (requests, queries) = (published.requests, published.queries);
            self.facts.state(&self.me, moment.unix_ms, Body::Rates { requests, queries });
        }
        true
    }

    fn settle_votes(&mut self, unix_ms: u64) {
        for (server, address, health) in self.watches.all() {
            let said = self.facts.vote(&self.me, server, address);
            let said = said.map(|(verdict, fact)| (verdict, Facts::is_sure(fact))).unwrap_or_default();
            let (verdict, is_sure) = (health.verdict(), health.is_sure());
            if said == (verdict, is_sure) {
                continue;
            }
            let why = match verdict {
                Verdict::Up => "answers".to_owned(),
                Verdict::Down => health.last_failure().to_owned(),
                Verdict::Unknown => "no probe has ended for too long".to_owned(),
            };
            self.facts.append(
                &self.me,
                unix_ms,
                Body::Vote { server: server.to_owned(), address, verdict, is_sure, why },
            );
        }
    }

    fn settle_links(&mut self, unix_ms: u64) {
        let cut: Vec<(&String, bool)> =
            self.pullers.iter().map(|(peer, puller)| (peer, puller.is_cut())).collect();
        for (peer, is_cut) in &cut {
            let said = self.facts.link(&self.me, peer);
            let is_said = said.is_some_and(|(is_up, _)| !is_up);
            if *is_cut == is_said {
                continue;
            }
            let why =
                self.pullers.get(*peer).and_then(|puller| puller.failure()).unwrap_or_default().to_owned();
            let heard = self.facts.head(peer);
            let body = Body::Link { peer: (*peer).clone(), is_up: !is_cut, heard, why };
            self.facts.append(&self.me, unix_ms, body);
            if *is_cut {
                // Whoever refuted being silent did so by way of another: with each way that is lost, ask again.
                for (other, _) in cut.iter().filter(|(other, other_is_cut)| *other_is_cut && other != peer) {
                    let why =
                        self.pullers.get(*other).and_then(|puller| puller.failure()).unwrap_or_default();
                    let body = Body::Link {
                        peer: (*other).clone(),
                        is_up: false,
                        heard: self.facts.head(other),
                        why: why.to_owned(),
                    };
                    self.facts.append(&self.me, unix_ms, body);
                }
            }
        }
    }

    fn settle_orders(&mut self, moment: Moment) {
        for end in self.timers.expired(moment.now) {
            self.timers.hear(&end, moment.now);
        }
        self.settle_drill(moment);
        let known: Vec<_> = self.timers.all().cloned().collect();
        for order in known {
            self.facts.state(&self.me, moment.unix_ms, Body::Order(order));
        }
        let longest = self.config.dns.names.iter().map(|name| name.ttl_seconds).max().unwrap_or(0);
        let empty_after = Duration::from_secs(longest.into());
        for (datacenter, revision, percent) in self.timers.drains(moment.now, empty_after) {
            // As far as anyone has come: whoever heard of it late does not go back.
            let said = self.facts.drained(&datacenter, revision).map(|(percent, _)| percent);
            if let Some(said) = said {
                self.timers.hear_drained(&datacenter, said, moment.now, empty_after);
            }
            let percent = said.map_or(percent, |said| said.min(percent));
            self.facts.state(&self.me, moment.unix_ms, Body::Drained { datacenter, revision, percent });
        }
    }

    fn resume_admissions(&mut self, moment: Moment) {
        for name in self.others() {
            self.admission(&name, moment);
        }
    }

    /// The datacenters of whose return this agent has a say: all others. The only one of a fleet never goes out.
    fn others(&self) -> Vec<String> {
        let datacenters = self.config.fleet.datacenters.iter();
        datacenters.map(|d| d.name.clone()).filter(|name| *name != self.me).collect()
    }

    /// Revision of the newest word about a datacenter, if it is to let it back. That another word is over is not that.
    fn restored(&self, datacenter: &str) -> u64 {
        let newest = self.timers.newest(&About::Datacenter(datacenter.to_owned()));
        newest.filter(|order| order.verb == Verb::Restore).map_or(0, |order| order.revision)
    }

    /// Whether an operator keeps a datacenter in service.
    fn is_kept_in(&self, datacenter: &str) -> bool {
        let newest = self.timers.newest(&About::Datacenter(datacenter.to_owned()));
        newest.is_some_and(|order| order.verb == Verb::Pin { state: State::Serving })
    }

    fn admission(&mut self, name: &str, moment: Moment) {
        if !self.admissions.contains_key(name) {
            let own = self.facts.admission(&self.me, name).map(|(admitted, _)| admitted);
            let authors = self.config.fleet.datacenters.iter().filter(|d| d.name != self.me);
            let others = authors.filter_map(|author| self.facts.admission(&author.name, name));
            let cautious = others.map(|(admitted, _)| admitted).min_by_key(|admitted| {
                (std::cmp::Reverse(admitted.episode), admitted.percent, !admitted.is_held)
            });
            let admission = Admission::new(own, cautious, moment.now, moment.unix_ms);
            self.admissions.insert(name.to_owned(), admission);
        }
    }

    /// True when anything was written.
    fn settle_admissions(&mut self, moment: Moment) -> bool {
        let mut wrote = false;
        let is_paused = self.judgement.view.paused.is_some();
        for name in self.others() {
            self.admission(&name, moment);
            let Some(at) = self.judgement.returns.get(&name) else { continue };
            let seen = admission::Seen {
                out: at.out,
                newest: at.newest,
                newest_sure: at.newest_sure,
                level: at.level,
                sees_it: self.sees(&name),
                caught_up: self.facts.caught_up(&name),
                restored: self.restored(&name),
                is_paused,
                is_kept_in: self.is_kept_in(&name),
                is_heard: self.judgement.view.observers.get(&name).is_some_and(|observer| observer.is_heard),
            };
            let Some(admission) = self.admissions.get_mut(&name) else { continue };
            admission.settle(moment.now, moment.unix_ms, &self.config.sync.comeback, &seen);
            let admitted = admission.said().clone();
            let body = Body::Admission { datacenter: name, admitted };
            wrote |= self.facts.state(&self.me, moment.unix_ms, body);
        }
        wrote | self.settle_caught_up(moment)
    }

    fn has_checked_door(&self, name: &str) -> bool {
        let fleet = &self.config.fleet;
        let number = fleet.datacenter(name);
        let mut doors = number.into_iter().flat_map(|number| fleet.servers_of(number, DOOR_ROLE));
        doors.any(|server| server.check != Check::None)
    }

    /// Whether this agent's own eyes see a datacenter up. What has no front door that is checked is not in doubt.
    fn sees(&self, name: &str) -> bool {
        let Some(number) = self.config.fleet.datacenter(name) else { return false };
        let mut doors = self
            .config
            .fleet
            .servers_of(number, DOOR_ROLE)
            .filter(|server| server.check != Check::None)
            .flat_map(|server| server.addresses.iter().map(|address| (server.name.as_str(), *address)))
            .peekable();
        let is_up = |(server, address): (&str, std::net::IpAddr)| {
            self.facts.vote(&self.me, server, address).is_some_and(|(verdict, _)| verdict == Verdict::Up)
        };
        doors.peek().is_none() || doors.any(is_up)
    }

    /// What we say of our own data while our return is under way.
    fn settle_caught_up(&mut self, moment: Moment) -> bool {
        let Some(at) = self.judgement.returns.get(&self.me) else { return false };
        // Asked until the first users are back: while it waits, a link may go.
        if at.level.is_none_or(|level| level > 0) && !matches!(at.out, Out::Down { .. }) {
            return false;
        }
        let judgement = &self.judgement;
        let is_down = |peer: &str| {
            let is_dead = judgement.returns.get(peer).is_some_and(|at| matches!(at.out, Out::Down { .. }));
            let is_forgotten = judgement.view.datacenters.get(peer).is_some_and(|view| view.is_forgotten);
            // Whose door nobody looks at is down when its agent is heard by nobody.
            let is_unseen = !self.has_checked_door(peer)
                && judgement.view.observers.get(peer).is_some_and(|observer| !observer.is_heard);
            is_dead || is_forgotten || is_unseen
        };
        let peers: Vec<PeerLink<'_>> = self
            .pullers
            .iter()
            .map(|(peer, puller)| PeerLink { peer, up_since: puller.up_since(), is_down: is_down(peer) })
            .collect();
        let result = match at.out {
            Out::Down { .. } => Err("it is down".to_owned()),
            Out::No | Out::Drained { .. } => self.gate.caught_up(moment.now, &peers),
        };
        let (is_so, why) = (result.is_ok(), result.err().unwrap_or_default());
        let body = Body::CaughtUp { episode: at.newest, is_so, why };
        self.facts.state(&self.me, moment.unix_ms, body)
    }

    /// Addresses of servers that the view has down: for a pause, which keeps them so.
    pub fn addresses_down(&self) -> Vec<(String, IpAddr)> {
        let mut down = Vec::new();
        for server in &self.config.fleet.servers {
            let Some(view) = self.judgement.view.servers.get(&server.name) else { continue };
            let is_down = |address: &&IpAddr| view.health == Health::Down || view.down.contains(address);
            down.extend(
                server.addresses.iter().filter(is_down).map(|address| (server.name.clone(), *address)),
            );
        }
        down
    }
}

fn is_drained(body: &&Body) -> bool {
    matches!(body, Body::Drained { .. })
}
