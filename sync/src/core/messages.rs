//! What goes into an agent and what comes out.

use std::net::IpAddr;
use std::time::Duration;

use daemun_fleet::view::Frontier;
use serde::{Deserialize, Serialize};

use crate::facts::Batch;
use crate::health::Outcome;
use crate::orders::{Left, Order};
use crate::pull::{Ask, Greeting};
use crate::rates::Measured;

/// One moment by both of an agent's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the one that never goes back: for decisions.
    pub now: Duration,
    /// Milliseconds of Unix time, which may jump: for people, and to number lives.
    pub unix_ms: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing; time has passed.
    Tick,
    /// A probe of another process of this datacenter ended.
    Glimpsed {
        /// Name of the server.
        server: String,
        /// Which of its addresses.
        address: IpAddr,
        /// How long ago it ended.
        old: Duration,
        /// The result.
        outcome: Outcome,
    },
    /// A probe of the agent's own ended.
    Probed {
        /// Name of the server.
        server: String,
        /// Which of its addresses.
        address: IpAddr,
        /// How long ago it ended.
        old: Duration,
        /// The result.
        outcome: Outcome,
    },
    /// Another process of this datacenter looks too.
    Eye {
        /// Its name.
        node: String,
    },
    /// A process of this datacenter measured.
    Measured {
        /// Its name.
        node: String,
        /// What.
        measured: Measured,
    },
    /// A peer answered a question.
    Answered {
        /// The peer.
        peer: String,
        /// Number of the question.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// A peer did not answer.
    Failed {
        /// The peer.
        peer: String,
        /// Number of the question.
        number: u64,
        /// What went wrong.
        why: String,
    },
    /// A peer asks for what comes after its frontier: all up to there has reached it.
    Asked {
        /// The peer.
        peer: String,
        /// Its frontier.
        after: Frontier,
    },
    /// An operator's word, checked.
    Order(Order),
}

/// A peer's answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Who answers, and when.
    #[serde(flatten)]
    pub greeting: Greeting,
    /// What the asker lacks.
    pub batch: Batch,
    /// Time left of operators' words.
    #[serde(default)]
    pub left: Vec<Left>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a probe.
    Probe {
        /// Name of the server.
        server: String,
        /// Which of its addresses.
        address: IpAddr,
    },
    /// Ask a peer.
    Ask {
        /// The peer.
        peer: String,
        /// The question.
        ask: Ask,
    },
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
    /// How far the peer's clock is ahead of ours, milliseconds; none: not known yet.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// How wrong that may be, milliseconds.
    #[serde(default)]
    pub clock_error_ms: Option<u64>,
    /// It is surely more than the config's bound.
    #[serde(default)]
    pub is_clock_off: bool,
    /// It has asked for what comes after our newest fact: it has heard all that we know of ourselves.
    #[serde(default)]
    pub has_heard_us: bool,
}

/// What an agent keeps on disk: where it goes on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// All facts in force.
    pub batch: Batch,
    /// Time left of operators' words when this was written.
    #[serde(default)]
    pub left: Vec<Left>,
    /// When, milliseconds of Unix time.
    #[serde(default)]
    pub at_unix_ms: u64,
}
