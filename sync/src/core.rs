//! The agent without its shell: outcomes of probes and what peers said go in; facts and the view come out.
//!
//! It is driven by level, not by edge: after each input, `settle` compares what this agent now thinks with
//! what its own facts say, and writes the difference. So it does not matter what was lost, or which disk: whoever
//! comes back writes what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::config::{Check, DATACENTERS_MAX, Probe};
use daemun_fleet::{Config, FleetView};
use serde::{Deserialize, Serialize};

use crate::facts::{Batch, Body, Facts};
use crate::health::{Health, Outcome, Verdict};
use crate::judge::judge;

/// A link that failed for so long makes its peer count as silent: three long polls.
const SILENCE: Duration = Duration::from_secs(3);

/// The most authors whose facts are kept: those of the config, and some that it does not know (yet, or any more).
const AUTHORS_MAX: usize = 2 * DATACENTERS_MAX;
/// After a restart an agent says nothing until its own eyes have seen every server, or this long: its last words may be
/// old, and whatever it writes would make them count again.
const WARM_UP: Duration = Duration::from_secs(5);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A probe of a server ended.
    Probed {
        /// Name of the server.
        server: String,
        /// Its result.
        outcome: Outcome,
    },
    /// A peer answered.
    Pulled {
        /// The peer.
        peer: String,
        /// What it gave.
        batch: Batch,
        /// Digest of its config.
        config_digest: String,
    },
    /// A peer did not answer.
    PullFailed {
        /// The peer.
        peer: String,
        /// What went wrong.
        why: String,
    },
}

/// The private link to a peer.
#[derive(Clone, Debug)]
struct Link {
    heard_at: Duration,
    failure: Option<String>,
    is_down: bool,
    /// The peer has been called silent in this outage. Once is enough: if it refutes that by a way around, it is alive.
    is_called: bool,
    config_digest: Option<String>,
}

/// A link, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The peer.
    pub peer: String,
    /// It answers.
    pub is_up: bool,
    /// What the last failure said, while it fails.
    pub failure: Option<String>,
    /// Digest of the peer's config, once heard.
    pub config_digest: Option<String>,
}

/// The agent's state.
#[derive(Debug)]
pub struct Core {
    me: String,
    config: Arc<Config>,
    facts: Facts,
    health: BTreeMap<String, Health>,
    links: BTreeMap<String, Link>,
    view: Arc<FleetView>,
    /// Until when it says nothing; `None`: its new life has begun.
    warming_up_until: Option<Duration>,
    /// When the last input came: a long gap means that we slept (a stopped process, a suspended machine).
    last_input_at: Duration,
}

/// The first of January 2026, milliseconds of Unix time: a life is numbered from the milliseconds since. An agent writes
/// far less than a fact a millisecond, so a later life begins above all numbers of the earlier ones.
const EPOCH_UNIX_MS: u64 = 1_767_225_600_000;

impl Core {
    /// An agent of datacenter `me` that goes on from `facts`, which it had before it stopped.
    pub fn new(me: &str, config: Arc<Config>, facts: Facts, now: Duration) -> Self {
        let view = Arc::new(judge(&config, &facts));
        let has_last_words = facts.head(me) > 0;
        let mut core = Self {
            me: me.to_owned(),
            config: Arc::clone(&config),
            facts,
            health: BTreeMap::new(),
            links: BTreeMap::new(),
            view,
            warming_up_until: Some(if has_last_words { now + WARM_UP } else { now }),
            last_input_at: now,
        };
        core.set_config(config, now);
        core
    }

    /// Goes on under another config: what is known of servers and peers that stay is kept.
    pub fn set_config(&mut self, config: Arc<Config>, now: Duration) -> bool {
        let checked = config.fleet.servers.iter().filter(|server| server.check != Check::None);
        let resumed = |name: &str| {
            // What we said last is where we go on: a restart is no reason to doubt a server.
            Health::resume(self.facts.vote(&self.me, name).map(|(verdict, _)| verdict))
        };
        self.health = checked
            .map(|server| {
                let known = self.health.get(&server.name).cloned();
                (server.name.clone(), known.unwrap_or_else(|| resumed(&server.name)))
            })
            .collect();
        let new =
            || Link { heard_at: now, failure: None, is_down: false, is_called: false, config_digest: None };
        let peers = config.fleet.datacenters.iter().filter(|datacenter| datacenter.name != self.me);
        self.links = peers
            .map(|peer| (peer.name.clone(), self.links.get(&peer.name).cloned().unwrap_or_else(new)))
            .collect();
        self.config = config;
        self.publish()
    }

    /// Takes in what happened at `now`; true when the facts, and with them the view, have changed.
    pub fn handle(&mut self, now: Duration, unix_ms: u64, input: Input) -> bool {
        let before = self.facts.frontier();
        let probe = &self.config.sync.probe;
        let sleep = SILENCE.max(probe.interval * 2 + probe.timeout); // inputs come at least as often as probes end
        if now.saturating_sub(self.last_input_at) >= sleep {
            self.wake_up(now);
        }
        self.last_input_at = now;
        match input {
            Input::Probed { server, outcome } => {
                if let Some(health) = self.health.get_mut(&server) {
                    health.observe(&self.config.sync.probe, outcome);
                }
            }
            Input::Pulled { peer, batch, config_digest } => {
                if let Some(link) = self.links.get_mut(&peer) {
                    *link = Link {
                        heard_at: now,
                        failure: None,
                        is_down: false,
                        is_called: false,
                        config_digest: Some(config_digest),
                    };
                }
                let known_of_us = batch.frontier.of(&self.me);
                if known_of_us > self.facts.head(&self.me) {
                    // From a life whose clock was ahead of ours: begin again above it.
                    self.facts.begin_life(&self.me, known_of_us + 1, unix_ms);
                }
                self.facts.merge(&self.acceptable(batch));
            }
            Input::PullFailed { peer, why } => {
                self.pull_failed(&peer, why, now);
            }
        }
        self.settle(now, unix_ms);
        self.facts.frontier() != before && self.publish()
    }

    fn pull_failed(&mut self, peer: &str, why: String, now: Duration) {
        let Some(link) = self.links.get_mut(peer) else { return };
        link.failure = Some(why);
        if !link.is_down && now.saturating_sub(link.heard_at) >= SILENCE {
            link.is_down = true;
            // Whoever refuted being silent did so by way of another: with each way that is lost, ask again.
            for link in self.links.values_mut().filter(|link| link.is_down) {
                link.is_called = false;
            }
        }
    }

    /// After a sleep of our own: what we last saw is old, and that nobody was heard says nothing of them.
    fn wake_up(&mut self, now: Duration) {
        for link in self.links.values_mut().filter(|link| !link.is_down) {
            link.heard_at = now;
        }
        for health in self.health.values_mut() {
            *health = Health::resume(health.verdict());
        }
        if self.warming_up_until.is_none() && self.facts.head(&self.me) > 0 {
            self.warming_up_until = Some(now + WARM_UP);
        }
    }

    /// What others say of others: nobody tells us what we said. Authors that the config does not know are kept, or
    /// agents of two configs would never be done telling each other; the fold does not listen to them.
    fn acceptable(&self, mut batch: Batch) -> Batch {
        let mut room = AUTHORS_MAX.saturating_sub(self.facts.frontier().0.len());
        let mut is_kept = |author: &str| {
            let is_known = self.facts.head(author) > 0 || self.config.fleet.datacenter(author).is_some();
            let is_new = !is_known && room > 0;
            room -= usize::from(is_new);
            author != self.me && (is_known || is_new)
        };
        batch.frontier.0.retain(|author, _| is_kept(author));
        let Batch { frontier, facts, .. } = &mut batch;
        facts.retain(|fact| frontier.0.contains_key(&fact.author));
        batch
    }

    /// Writes the difference between what we think and what our facts say.
    fn settle(&mut self, now: Duration, unix_ms: u64) {
        if let Some(until) = self.warming_up_until {
            if now < until && !self.health.values().all(Health::is_fresh) {
                return;
            }
            self.warming_up_until = None;
            let clock = unix_ms.saturating_sub(EPOCH_UNIX_MS);
            self.facts.begin_life(&self.me, clock, unix_ms);
        }
        for (server, health) in &self.health {
            let Some(verdict) = health.verdict() else { continue };
            if self.facts.vote(&self.me, server).is_none_or(|(said, _)| said != verdict) {
                let why = match verdict {
                    Verdict::Up => "answers".to_owned(),
                    Verdict::Down => health.last_failure().to_owned(),
                };
                self.facts.append(&self.me, unix_ms, Body::Vote { server: server.clone(), verdict, why });
            }
        }
        for (peer, link) in &mut self.links {
            if link.is_down && !link.is_called {
                link.is_called = true;
                let number = self.facts.head(peer);
                let why = link.failure.clone().unwrap_or_default();
                self.facts.append(&self.me, unix_ms, Body::Silent { author: peer.clone(), number, why });
            }
        }
        if self.facts.is_called_silent(&self.me) {
            self.facts.append(&self.me, unix_ms, Body::Here);
        }
    }

    fn publish(&mut self) -> bool {
        let view = judge(&self.config, &self.facts);
        let changed = view != *self.view;
        self.view = Arc::new(view);
        changed
    }

    /// The newest view.
    pub fn view(&self) -> &Arc<FleetView> {
        &self.view
    }

    /// All facts heard.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The config in force.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Time from the start of one probe of a server to the start of the next.
    pub fn probe_gap(&self, server: &str, probe: &Probe) -> Duration {
        self.health.get(server).map_or(probe.interval, |health| health.gap(probe))
    }

    /// Whether the last outcome makes the next probe of a server due now.
    pub fn begins_burst(&self, server: &str) -> bool {
        self.health.get(server).is_some_and(Health::begins_burst)
    }

    /// The links to the peers.
    pub fn links(&self) -> Vec<LinkStatus> {
        let status = |(peer, link): (&String, &Link)| LinkStatus {
            peer: peer.clone(),
            is_up: link.failure.is_none() && link.config_digest.is_some(),
            failure: link.failure.clone(),
            config_digest: link.config_digest.clone(),
        };
        self.links.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests;
