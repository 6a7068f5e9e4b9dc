//! What is true, and what each agent has published: all that a checker may look at. Never what is inside an agent.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::{Config, FleetView};
use daemun_sync::orders::Order;

use crate::drills::truth::Truth;

/// A value, and since when it has been so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since<T> {
    pub(crate) value: T,
    pub(crate) since: Duration,
    /// How often it has changed.
    pub(crate) changes: u32,
    /// What was under way before has come by then.
    pub(crate) settles_at: Duration,
}

impl<T: PartialEq> Since<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, since: Duration::ZERO, changes: 0, settles_at: Duration::ZERO }
    }

    pub(crate) fn set(&mut self, value: T, now: Duration) {
        if self.value != value {
            *self = Self { value, since: now, changes: self.changes + 1, settles_at: self.settles_at };
        }
    }

    /// Something is under way that comes late.
    pub(crate) fn settle(&mut self, at: Duration) {
        self.settles_at = self.settles_at.max(at);
    }

    /// How long it has been so, if it is one of these, and nothing late was under way; else zero.
    pub(crate) fn lasts(&self, now: Duration, is_so: impl FnOnce(&T) -> bool) -> Duration {
        if is_so(&self.value) { now.saturating_sub(self.since.max(self.settles_at)) } else { Duration::ZERO }
    }
}

/// A datacenter's front door, as users find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// It serves.
    Well,
    /// It refuses at once.
    Refuses,
    /// Nothing comes back: dead without a word, or cut off from all users.
    Silent,
}

/// A way from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) is_cut: bool,
    /// Messages lost, in thousandths: of a private link and its TCP those that must be sent again.
    pub(crate) loss: u32,
    /// One way, microseconds; up to a quarter more by jitter.
    pub(crate) delay_us: u64,
}

impl Way {
    /// The most that it takes, one way.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.delay_us + self.delay_us / 4)
    }
}

/// How one observer sees one datacenter's door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) way: Way,
    /// The observer says the contrary of what it sees.
    pub(crate) lies: bool,
    /// Outcomes come so much later, microseconds; none: never.
    pub(crate) slow_us: Option<u64>,
}

/// An operator's word that an agent has taken.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) at: Duration,
    /// The agent.
    pub(crate) agent: usize,
    pub(crate) order: Order,
}

/// An agent from outside.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// Counts its lives.
    pub(crate) life: u32,
    /// When this one began.
    pub(crate) begun_at: Duration,
    /// Counts its disks: one that is lost is replaced by an empty one.
    pub(crate) disk: u32,
    /// It runs: it has not crashed and is not stopped.
    pub(crate) runs: Since<bool>,
    /// What it has published; none: it does not live.
    pub(crate) view: Option<Arc<FleetView>>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) config: Arc<Config>,
    pub(crate) names: Vec<String>,
    pub(crate) now: Duration,
    pub(crate) doors: Vec<Since<Door>>,
    pub(crate) agents: Vec<Agent>,
    /// Private links, from asker to asked and back, by sender and receiver.
    pub(crate) links: Vec<Vec<Since<Way>>>,
    /// By observer and datacenter.
    pub(crate) sights: Vec<Vec<Since<Sight>>>,
    pub(crate) words: Vec<Word>,
    /// When each wall clock jumped last.
    pub(crate) jumped_at: Vec<Option<Duration>>,
    pub(crate) drills: Truth,
    /// Microseconds that the slowest way takes.
    pub(crate) slowest_us: u64,
}

/// Private links that lose no more than this let through what they are given within the bounds.
const LINK_LOSS_SMALL: u32 = 10;
/// Probe loss that nobody may be taken out by.
pub(crate) const PROBE_LOSS_MAX: u32 = 200;

impl Scene {
    /// How many datacenters there are.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// The most that a good probe takes beside the waiting, and that a message takes.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_us)
    }

    /// The time it takes, at most, from when a door dies to the votes of those who look at it: it has just answered, the
    /// next probe is as late as it may be, and its failure and those of the whole burst take the whole time-out.
    pub(crate) fn detection(&self) -> Duration {
        self.detection_by(self.config.sync.probe.fall_alone)
    }

    /// The same for a burst of so many.
    pub(crate) fn detection_by(&self, fall: u32) -> Duration {
        let probe = &self.config.sync.probe;
        let late = |gap: Duration| gap + gap / 10;
        late(probe.interval) + probe.timeout + late(probe.burst_gap) * (fall - 1) + probe.timeout
    }

    /// The time it takes, at most, from when an agent writes something to when all connected agents know it: an answer
    /// has just left, the next question must come; by way of one other; one packet lost on each way is sent again.
    pub(crate) fn sharing(&self) -> Duration {
        (self.slowest() * 3 + Duration::from_millis(250)) * 2
    }

    /// The time it takes, at most, until one who fell silent is called so.
    pub(crate) fn silence(&self) -> Duration {
        // Three seconds, told by the end of a question: hold, grace and pause.
        Duration::from_millis(3000 + 2100) + self.sharing()
    }

    /// The time it takes, at most, until an agent that began or woke up has said what it sees.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(5) + self.detection() + self.sharing()
    }

    pub(crate) fn runs_for(&self, agent: usize) -> Duration {
        self.agents[agent].runs.lasts(self.now, |runs| *runs)
    }

    pub(crate) fn direct_for(&self, a: usize, b: usize) -> Duration {
        let slow_us = self.slowest_us;
        let good = |way: &Way| !way.is_cut && way.loss <= LINK_LOSS_SMALL && way.delay_us <= slow_us;
        let of = |a: usize, b: usize| self.links[a][b].lasts(self.now, good);
        of(a, b).min(of(b, a)).min(self.runs_for(a)).min(self.runs_for(b))
    }

    /// How long an agent and each other, both running, have been connected without a break, over the best way by others:
    /// the widest paths.
    pub(crate) fn connections(&self, from: usize) -> Vec<Duration> {
        let count = self.count();
        let mut best = vec![Duration::ZERO; count];
        best[from] = self.runs_for(from);
        let mut done = vec![false; count];
        for _ in 0..count {
            let next = (0..count).filter(|at| !done[*at]).max_by_key(|at| best[*at]);
            let Some(at) = next else { break };
            done[at] = true;
            for to in (0..count).filter(|to| *to != at) {
                let through = best[at].min(self.direct_for(at, to));
                best[to] = best[to].max(through);
            }
        }
        best
    }

    /// Whether an agent has been running and connected so long with more than half of the others of a datacenter (and
    /// itself, if it is one of those).
    pub(crate) fn is_with_most(&self, agent: usize, of: usize, long: Duration) -> bool {
        let connected = self.connections(agent);
        let others = |at: &usize| *at != of;
        let with = (0..self.count()).filter(others).filter(|at| connected[*at] >= long).count();
        with * 2 > self.count() - 1
    }

    /// For how long an observer's outcomes of probes of a datacenter have been what they should be: honest, prompt, not
    /// cut, losing no more than is borne, and there and back before the time-out: what takes longer looks dead.
    pub(crate) fn sees_well_for(&self, observer: usize, of: usize) -> Duration {
        let timeout = self.config.sync.probe.timeout;
        let good = |sight: &Sight| {
            let is_in_time = sight.way.slowest() * 2 < timeout && sight.slow_us == Some(0);
            !sight.way.is_cut && sight.way.loss <= PROBE_LOSS_MAX && !sight.lies && is_in_time
        };
        self.sights[observer][of].lasts(self.now, good).min(self.runs_for(observer))
    }

    /// The view of an agent that runs.
    pub(crate) fn view(&self, agent: usize) -> Option<&Arc<FleetView>> {
        self.agents[agent].view.as_ref().filter(|_| self.agents[agent].runs.value)
    }
}
