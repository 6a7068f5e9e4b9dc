//! The fleet view: what is true of the fleet now, and why. Immutable, numbered, the one truth that the DNS answer,
//! the server list and the drill report share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::drill::DrillView;

/// The state of a datacenter.
///
/// ```text
///            drain                  empty
///  serving ────────▶ draining ───────────────▶ drained
///   ▲  │               │                          │
///   │  │               │ restore                  │ restore
///   │  └─── lost ─▶ down, from any state          │
///   │               │  │                          │
///   │          back │  │                          │
///   │               ▼  ▼                          │
///   └── ramping ◀── catching-up ◀─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Gets its users.
    Serving,
    /// Being emptied by an operator, and still given this percentage of its users.
    Draining(u8),
    /// Emptied by an operator.
    Drained,
    /// Users cannot get there.
    Down,
    /// Back, but its data is not yet what the others have.
    CatchingUp,
    /// Back, and given this percentage of its users.
    Ramping(u8),
}

impl State {
    /// The last rank: of what is down, or cannot serve for another reason.
    pub(crate) const RANK_DOWN: u8 = 4;

    /// How placement treats the state: lower ranks first; members of the first rank that has any are used.
    ///
    /// Only rank 0 is normal service. What follows is the order in which we would rather send a user somewhere
    /// than nowhere: a datacenter that is alive but told to rest before one that is behind, that before a dead one.
    pub(crate) fn rank(self) -> u8 {
        match self {
            State::Serving | State::Ramping(_) | State::Draining(1..) => 0,
            State::Draining(0) => 1,
            State::CatchingUp => 2,
            State::Drained => 3,
            State::Down => Self::RANK_DOWN,
        }
    }

    /// Which percentage of its users it is given, as far as its state goes.
    pub fn share(self) -> u8 {
        match self {
            State::Ramping(percent) | State::Draining(percent @ 1..) => percent.min(100),
            _ => 100,
        }
    }

    /// It is on its way to another state by itself.
    pub fn is_between(self) -> bool {
        matches!(self, State::Draining(_) | State::CatchingUp | State::Ramping(_))
    }

    /// The word alone, without a percentage: for metrics.
    pub fn word(self) -> &'static str {
        match self {
            State::Serving => "serving",
            State::Draining(_) => "draining",
            State::Drained => "drained",
            State::Down => "down",
            State::CatchingUp => "catching-up",
            State::Ramping(_) => "ramping",
        }
    }

    /// All words.
    pub const WORDS: [&str; 6] = ["serving", "draining", "drained", "down", "catching-up", "ramping"];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Draining(percent @ 1..) => write!(f, "draining {percent}%"),
            State::Ramping(percent) => write!(f, "ramping {percent}%"),
            state => f.write_str(state.word()),
        }
    }
}

/// The health of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The observers reach it.
    Up,
    /// They do not.
    Down,
    /// Nobody has said yet, or nobody checks it. Used like `Up`: absence of news is no reason to move users.
    Unknown,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Up => "up",
            Health::Down => "down",
            Health::Unknown => "unknown",
        })
    }
}

/// An operator's word that is in force, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// The verb, as on the command line.
    pub verb: String,
    /// Who gave it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How long it was given for, milliseconds; none: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// When, milliseconds of Unix time by the clock of the agent that was told.
    pub at_unix_ms: u64,
    /// Safety rules were overridden.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
}

/// How far an observer's word counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserverView {
    /// Its agent is heard by the others.
    pub is_heard: bool,
    /// Its own eyes are doubted, and why: others decide without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubted: Option<String>,
}

/// A datacenter in a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatacenterView {
    /// The state.
    pub state: State,
    /// Why, for people.
    pub why: String,
    /// Somebody says that it is down, but not enough of them: what is answered may change soon.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspected: bool,
    /// Since when, milliseconds of Unix time by the clock of the agent whose fact decided; 0: since the start.
    pub since_unix_ms: u64,
    /// The operator's word about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderView>,
    /// Datacenters whose private link to it is cut: there its data is of unknown age. No reason to move users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_from: Vec<String>,
    /// It is not to return: it has no say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_forgotten: bool,
}

impl DatacenterView {
    /// A state and its reason, nothing more.
    pub fn new(state: State, why: impl Into<String>) -> Self {
        Self {
            state,
            why: why.into(),
            suspected: false,
            since_unix_ms: 0,
            order: None,
            cut_from: Vec::new(),
            is_forgotten: false,
        }
    }
}

/// A server in a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// The health.
    pub health: Health,
    /// Why, for people.
    pub why: String,
    /// As for a datacenter.
    pub since_unix_ms: u64,
    /// Those of its addresses that are down while others are up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<IpAddr>,
}

impl ServerView {
    /// A health and its reason, nothing more.
    pub fn new(health: Health, why: impl Into<String>) -> Self {
        Self { health, why: why.into(), since_unix_ms: 0, down: Vec::new() }
    }
}

/// How far each author's log of facts has been heard: datacenter → number of its newest fact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Frontier(pub BTreeMap<String, u64>);

impl Frontier {
    /// The number of `author`'s newest fact; 0 when none was heard.
    pub fn of(&self, author: &str) -> u64 {
        self.0.get(author).copied().unwrap_or(0)
    }

    /// True when everything `other` has heard has been heard here.
    pub fn covers(&self, other: &Frontier) -> bool {
        other.0.iter().all(|(author, &number)| self.of(author) >= number)
    }

    /// The generation of a view at this frontier: the sum of its numbers, so that any newly heard fact raises it.
    pub fn generation(&self) -> u64 {
        self.0.values().fold(0, |sum, number| sum.saturating_add(*number))
    }
}

/// What is true of the fleet now. A pure function of (config, frontier of facts).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetView {
    /// Rises with every fact heard.
    pub generation: u64,
    /// The facts it was made from.
    pub frontier: Frontier,
    /// Digest of the config it was made under.
    pub config_digest: String,
    /// State of each datacenter, by name.
    pub datacenters: BTreeMap<String, DatacenterView>,
    /// Health of each server, by name.
    pub servers: BTreeMap<String, ServerView>,
    /// Everything looks down: more likely our own eyes, so all are used.
    pub fail_open: bool,
    /// How far each datacenter's word counts, by name.
    #[serde(default)]
    pub observers: BTreeMap<String, ObserverView>,
    /// Automation is off: states stay as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<OrderView>,
    /// A failure on purpose that is armed or under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillView>,
    /// Requests per second at all doors together, by ranking class (see [`Steering::class_name`](crate::Steering)).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u32>,
    /// DNS queries per second for steered names at all name servers together, by ranking class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queries: BTreeMap<String, u32>,
}

impl FleetView {
    /// The view before anything is known: all serve, nobody has said so.
    pub fn unobserved(config: &crate::config::Config) -> Self {
        const WHY: &str = "not observed yet";
        let datacenter = || DatacenterView::new(State::Serving, WHY);
        let server = || ServerView::new(Health::Unknown, WHY);
        Self {
            generation: 0,
            frontier: Frontier::default(),
            config_digest: config.digest.clone(),
            datacenters: config.fleet.datacenters.iter().map(|d| (d.name.clone(), datacenter())).collect(),
            servers: config.fleet.servers.iter().map(|s| (s.name.clone(), server())).collect(),
            fail_open: false,
            observers: BTreeMap::new(),
            paused: None,
            drill: None,
            requests: BTreeMap::new(),
            queries: BTreeMap::new(),
        }
    }

    /// Whether to take `next` in the place of this view: not when its frontier is dominated. At an equal frontier
    /// only another config makes it news.
    pub fn is_superseded_by(&self, next: &FleetView) -> bool {
        let heard_all = self.frontier.covers(&next.frontier);
        !heard_all || (next.frontier.covers(&self.frontier) && next.config_digest != self.config_digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontier(pairs: &[(&str, u64)]) -> Frontier {
        Frontier(pairs.iter().map(|&(author, number)| (author.to_owned(), number)).collect())
    }

    #[test]
    fn frontiers_cover_or_not() {
        let (a, b) = (frontier(&[("seoul", 3), ("frankfurt", 1)]), frontier(&[("seoul", 2)]));
        assert!(a.covers(&b) && !b.covers(&a) && a.covers(&a));
        let c = frontier(&[("virginia", 4)]);
        assert!(!a.covers(&c) && !c.covers(&a));
        assert_eq!((a.generation(), c.generation(), Frontier::default().generation()), (4, 4, 0));
    }

    #[test]
    fn a_dominated_view_is_refused_whatever_its_config() {
        let view = |pairs: &[(&str, u64)], digest: &str| FleetView {
            generation: 0,
            frontier: frontier(pairs),
            config_digest: digest.to_owned(),
            datacenters: BTreeMap::new(),
            servers: BTreeMap::new(),
            fail_open: false,
            observers: BTreeMap::new(),
            paused: None,
            drill: None,
            requests: BTreeMap::new(),
            queries: BTreeMap::new(),
        };
        let now = view(&[("seoul", 5), ("frankfurt", 3)], "a");
        assert!(!now.is_superseded_by(&view(&[("seoul", 5), ("frankfurt", 2)], "a")), "less");
        assert!(!now.is_superseded_by(&view(&[("seoul", 5)], "b")), "less, of another config");
        assert!(!now.is_superseded_by(&now), "the same");
        assert!(now.is_superseded_by(&view(&[("seoul", 5), ("frankfurt", 3)], "b")), "another config");
        assert!(now.is_superseded_by(&view(&[("seoul", 6), ("frankfurt", 3)], "a")), "more");
        assert!(now.is_superseded_by(&view(&[("seoul", 4), ("frankfurt", 4)], "a")), "neither");
    }

    #[test]
    fn states_read_well_on_the_wire() {
        assert_eq!(serde_json::to_string(&State::CatchingUp).unwrap(), r#""catching-up""#);
        assert_eq!(serde_json::to_string(&State::Ramping(25)).unwrap(), r#"{"ramping":25}"#);
    }
}
