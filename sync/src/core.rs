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

    /// Whether a server is being found out about, and the time from one probe to the next.
    pub fn pace(&self, server: &str, probe: &Probe) -> (bool, Duration) {
        self.health
            .get(server)
            .map_or((false, probe.interval), |health| (health.is_suspected(), health.gap(probe)))
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
mod tests {
    use daemun_fleet::view::{Frontier, State};

    use super::*;
    use crate::tests::config;

    const NAMES: [&str; 3] = ["seoul", "frankfurt", "virginia"];

    fn cores() -> BTreeMap<&'static str, Core> {
        let config = Arc::new(config(&NAMES));
        NAMES.map(|me| (me, Core::new(me, Arc::clone(&config), Facts::default(), Duration::ZERO))).into()
    }

    fn probe(core: &mut Core, of: &str, outcome: Outcome, times: u32) {
        for _ in 0..times {
            core.handle(
                Duration::ZERO,
                0,
                Input::Probed { server: format!("door-{of}"), outcome: outcome.clone() },
            );
        }
    }

    fn pull(cores: &mut BTreeMap<&'static str, Core>, to: &str, from: &str, now: Duration) {
        let asked = cores[to].facts().frontier();
        let batch = cores[from].facts().after(&asked);
        let config_digest = cores[from].config().digest.clone();
        let input = Input::Pulled { peer: from.to_owned(), batch, config_digest };
        cores.get_mut(to).unwrap().handle(now, 0, input);
    }

    fn state(core: &Core, of: &str) -> State {
        core.view().datacenters[of].state
    }

    #[test]
    fn two_that_see_it_down_take_it_out_everywhere() {
        let mut cores = cores();
        for core in cores.values_mut() {
            NAMES.iter().for_each(|of| probe(core, of, Ok(()), 3));
        }
        for (to, from) in [("seoul", "virginia"), ("virginia", "seoul"), ("frankfurt", "seoul")] {
            pull(&mut cores, to, from, Duration::ZERO);
        }
        probe(cores.get_mut("seoul").unwrap(), "frankfurt", Err("refused".into()), 8);
        probe(cores.get_mut("virginia").unwrap(), "frankfurt", Err("refused".into()), 8);
        assert_eq!(state(&cores["seoul"], "frankfurt"), State::Serving, "not yet heard from virginia");
        pull(&mut cores, "seoul", "virginia", Duration::ZERO);
        pull(&mut cores, "virginia", "seoul", Duration::ZERO);
        assert_eq!(state(&cores["seoul"], "frankfurt"), State::Down);
        assert_eq!(cores["seoul"].view(), cores["virginia"].view());
        pull(&mut cores, "frankfurt", "virginia", Duration::ZERO);
        assert_eq!(state(&cores["frankfurt"], "frankfurt"), State::Down, "it is told");
        probe(cores.get_mut("seoul").unwrap(), "frankfurt", Ok(()), 3);
        assert_eq!(state(&cores["seoul"], "frankfurt"), State::Serving, "no majority is left");
    }

    #[test]
    fn a_dead_link_calls_its_peer_silent_once_and_the_peer_refutes() {
        let mut cores = cores();
        pull(&mut cores, "seoul", "virginia", Duration::ZERO);
        let failed = Input::PullFailed { peer: "virginia".into(), why: "timed out".into() };
        let seoul = cores.get_mut("seoul").unwrap();
        assert!(!seoul.handle(Duration::from_secs(2), 0, failed.clone()));
        assert!(seoul.handle(Duration::from_secs(4), 0, failed.clone()));
        assert!(seoul.facts().is_called_silent("virginia"));
        // Virginia hears of it by way of Frankfurt and speaks up.
        pull(&mut cores, "frankfurt", "seoul", Duration::ZERO);
        pull(&mut cores, "virginia", "frankfurt", Duration::ZERO);
        pull(&mut cores, "frankfurt", "virginia", Duration::ZERO);
        pull(&mut cores, "seoul", "frankfurt", Duration::ZERO);
        let seoul = cores.get_mut("seoul").unwrap();
        assert!(!seoul.facts().is_called_silent("virginia"));
        assert!(!seoul.handle(Duration::from_secs(60), 0, failed), "it does not start over");
    }

    /// Seoul's disk is lost and nobody can be asked; later all have the same facts and the same view.
    #[test]
    fn a_lost_disk_splits_nothing() {
        let mut cores = cores();
        for core in cores.values_mut() {
            NAMES.iter().for_each(|of| probe(core, of, Ok(()), 3));
        }
        pull(&mut cores, "frankfurt", "seoul", Duration::ZERO);
        pull(&mut cores, "frankfurt", "virginia", Duration::ZERO);
        let config = Arc::clone(cores["seoul"].config());
        let mut again = Core::new("seoul", config, Facts::default(), Duration::ZERO);
        for of in ["seoul", "frankfurt", "virginia"] {
            let server = format!("door-{of}");
            let outcome = if of == "virginia" { Err("refused".to_owned()) } else { Ok(()) };
            for _ in 0..8 {
                let input = Input::Probed { server: server.clone(), outcome: outcome.clone() };
                again.handle(Duration::ZERO, EPOCH_UNIX_MS + 1000, input);
            }
        }
        cores.insert("seoul", again);
        pull(&mut cores, "frankfurt", "seoul", Duration::ZERO);
        pull(&mut cores, "seoul", "frankfurt", Duration::ZERO);
        assert_eq!(cores["seoul"].facts(), cores["frankfurt"].facts());
        assert_eq!(cores["seoul"].view(), cores["frankfurt"].view());
        let (said, _) = cores["frankfurt"].facts().vote("seoul", "door-virginia").unwrap();
        assert_eq!(said, Verdict::Down);
    }

    #[test]
    fn a_clock_that_went_back_is_made_good_by_what_a_peer_knows() {
        let mut cores = cores();
        let mut known = Facts::default();
        known.begin_life("seoul", 5000, 0);
        let seoul = cores.get_mut("seoul").unwrap();
        probe(seoul, "virginia", Ok(()), 3);
        assert!(seoul.facts().head("seoul") < 5000);
        let batch = known.after(&Frontier::default());
        let input = Input::Pulled { peer: "virginia".into(), batch, config_digest: String::new() };
        seoul.handle(Duration::ZERO, 0, input);
        assert_eq!(seoul.facts().head("seoul"), 5002, "it is here, and says again what it has to say");
    }

    #[test]
    fn after_a_restart_old_words_do_not_count_until_it_has_seen() {
        let config = Arc::new(config(&["seoul", "frankfurt"]));
        let mut facts = Facts::default();
        let body =
            |server: &str, verdict| Body::Vote { server: server.to_owned(), verdict, why: String::new() };
        facts.append("frankfurt", 0, body("door-seoul", Verdict::Down));
        facts.append("seoul", 0, body("door-seoul", Verdict::Up));
        facts.append("seoul", 0, Body::Silent { author: "frankfurt".into(), number: 1, why: String::new() });
        let mut frankfurt = Core::new("frankfurt", config, facts, Duration::ZERO);
        assert_eq!(
            state(&frankfurt, "seoul"),
            State::Serving,
            "it is called silent: its word does not count"
        );
        probe(&mut frankfurt, "frankfurt", Ok(()), 3);
        assert_eq!(frankfurt.facts().head("frankfurt"), 1, "it has not yet seen seoul");
        probe(&mut frankfurt, "seoul", Ok(()), 3);
        assert!(frankfurt.facts().head("frankfurt") > 1 && !frankfurt.facts().is_called_silent("frankfurt"));
        assert_eq!(state(&frankfurt, "seoul"), State::Serving);
    }

    /// Two agents under two configs must be done telling each other; who is not in mine has no say in my view.
    #[test]
    fn strangers_are_kept_but_have_no_say() {
        let mut cores = cores();
        let mut facts = Facts::default();
        facts.append("busan", 0, Body::Silent { author: "virginia".into(), number: 99, why: String::new() });
        let vote = Body::Vote { server: "door-virginia".into(), verdict: Verdict::Down, why: String::new() };
        facts.append("busan", 0, vote);
        let batch = facts.after(&Frontier::default());
        let seoul = cores.get_mut("seoul").unwrap();
        let input =
            Input::Pulled { peer: "virginia".into(), batch: batch.clone(), config_digest: String::new() };
        seoul.handle(Duration::ZERO, 0, input);
        assert!(seoul.facts().frontier().covers(&batch.frontier));
        assert_eq!(state(seoul, "virginia"), State::Serving);
        assert!(!seoul.view().datacenters.contains_key("busan"));
        let many: Vec<String> = (0..1000).map(|number| format!("x{number}")).collect();
        let mut facts = Facts::default();
        many.iter().for_each(|author| facts.append(author, 0, Body::Here));
        let batch = facts.after(&Frontier::default());
        let input = Input::Pulled { peer: "virginia".into(), batch, config_digest: String::new() };
        seoul.handle(Duration::ZERO, 0, input);
        assert_eq!(seoul.facts().frontier().0.len(), AUTHORS_MAX);
    }

    /// Found by a reviewer: a stopped process that goes on must not count its old votes, nor call the others silent.
    #[test]
    fn after_a_sleep_it_looks_again_before_it_speaks() {
        let mut cores = cores();
        let seoul = cores.get_mut("seoul").unwrap();
        NAMES.iter().for_each(|of| probe(seoul, of, Ok(()), 3));
        let before = seoul.facts().head("seoul");
        let woken = Duration::from_secs(600);
        let failed = |peer: &str| Input::PullFailed { peer: peer.to_owned(), why: "timed out".to_owned() };
        for peer in ["frankfurt", "virginia"] {
            seoul.handle(woken, 0, failed(peer));
        }
        assert!(!seoul.facts().is_called_silent("frankfurt"), "we slept, not they");
        assert_eq!(seoul.facts().head("seoul"), before);
        for of in NAMES {
            for _ in 0..3 {
                let input = Input::Probed { server: format!("door-{of}"), outcome: Ok(()) };
                seoul.handle(woken, 0, input);
            }
        }
        assert!(seoul.facts().head("seoul") > before, "a new life, with what it sees now");
    }

    /// Found by a reviewer: a peer behind a broken link, once refuted by way of a third, must be called silent again when
    /// the third is lost too.
    #[test]
    fn with_each_way_that_is_lost_silence_is_claimed_again() {
        let mut cores = cores();
        pull(&mut cores, "seoul", "virginia", Duration::ZERO);
        let seoul = cores.get_mut("seoul").unwrap();
        let fail = |core: &mut Core, peer: &str, second: u64| {
            let input = Input::PullFailed { peer: peer.to_owned(), why: "timed out".to_owned() };
            core.handle(Duration::from_secs(second), 0, input);
        };
        let hear = |core: &mut Core, facts: &Facts, second: u64| {
            let batch = facts.after(&core.facts().frontier());
            let input = Input::Pulled { peer: "frankfurt".into(), batch, config_digest: String::new() };
            core.handle(Duration::from_secs(second), 0, input);
        };
        let mut relay = Facts::default();
        hear(seoul, &relay, 1);
        hear(seoul, &relay, 2);
        fail(seoul, "virginia", 3);
        fail(seoul, "virginia", 4);
        assert!(seoul.facts().is_called_silent("virginia"));
        relay.begin_life("virginia", 50, 0);
        hear(seoul, &relay, 5);
        assert!(!seoul.facts().is_called_silent("virginia"), "refuted by way of frankfurt");
        for second in 6..10 {
            fail(seoul, "virginia", second);
            fail(seoul, "frankfurt", second);
        }
        assert!(seoul.facts().is_called_silent("frankfurt") && seoul.facts().is_called_silent("virginia"));
    }

    #[test]
    fn a_new_config_keeps_what_is_known() {
        let mut cores = cores();
        let seoul = cores.get_mut("seoul").unwrap();
        probe(seoul, "virginia", Ok(()), 3);
        let fewer = Arc::new(config(&["seoul", "virginia"]));
        assert!(seoul.set_config(fewer, Duration::ZERO));
        assert_eq!(seoul.view().datacenters.len(), 2);
        assert_eq!(seoul.view().generation, 2, "it is here, and one vote");
        assert_eq!(seoul.links().len(), 1);
    }
}
