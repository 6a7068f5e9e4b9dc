//! What a drill showed, as data: what is kept in the store, printed, drawn and compared.

use std::collections::BTreeMap;

use daemun_fleet::drill::Scenario;
use serde::{Deserialize, Serialize};

/// Version of this form.
pub const VERSION: u32 = 1;

/// The report of a drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of its form.
    pub v: u32,
    /// Which drill: `20261122T101500Z-blackhole-frankfurt`.
    pub id: String,
    /// The fleet.
    pub fleet: String,
    /// Version of the program that led it.
    pub program: String,
    /// Digest of the fleet's config.
    pub config_digest: String,
    /// Generation of the view that it began with.
    pub generation: u64,
    /// All of the scenario, its target filled in.
    pub scenario: Option<Scenario>,
    /// The target, for people.
    pub target: String,
    /// Who began it.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// The datacenter whose agent led it.
    pub conductor: String,
    /// Against the rules, on somebody's word.
    #[serde(default)]
    pub break_glass: bool,
    /// When it was armed, milliseconds of Unix time by the conductor's clock.
    pub begun_unix_ms: u64,
    /// When the first fault was injected; none: it never was.
    pub injected_unix_ms: Option<u64>,
    /// When it was undone.
    pub undone_unix_ms: Option<u64>,
    /// When this was written.
    pub ended_unix_ms: u64,
    /// The rules that were checked before.
    pub checks: Vec<Check>,
    /// How it ended.
    pub outcome: Outcome,
    /// What happened, in order.
    pub timeline: Vec<Mark>,
    /// How long each phase took.
    pub phases: Vec<Phase>,
    /// What became of the writes.
    pub ledger: Ledger,
    /// What became of the visits.
    pub visits: Visits,
    /// How all of it went over time.
    pub series: Series,
    /// Conflicts in the stores while it lasted.
    pub conflicts: u64,
    /// Against the drill of the same name and target before it.
    pub previous: Option<Difference>,
    /// Whether it showed what it was to show.
    pub verdict: Verdict,
    /// What a reader should know of how this was seen.
    pub notes: Vec<String>,
}

/// A rule, and whether it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which, in a few words.
    pub rule: String,
    /// It holds.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It did not begin: a rule refused it.
    #[default]
    Skipped,
    /// All steps were taken.
    Done,
    /// Every agent's own timer ended it, as nobody else did.
    Expired,
    /// A limit, an agent or a person ended it.
    Aborted,
}

impl Ended {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Skipped => "skipped",
            Ended::Done => "done",
            Ended::Expired => "expired",
            Ended::Aborted => "aborted",
        }
    }
}

/// How it ended, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How.
    pub ended: Ended,
    /// Why; empty where there is nothing to say.
    #[serde(default)]
    pub why: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Every agent had its timer.
    Armed,
    /// A step began.
    Injected,
    /// The first probe failed.
    Suspected,
    /// An observer voted down.
    Voted,
    /// An agent's view has the target out.
    Decided,
    /// A name server answers without the target, for the users whose home it is.
    NameServerChanged,
    /// A name server gives no answer.
    NameServerSilent,
    /// A name server answers again.
    NameServerBack,
    /// The first user whose home is the target was served elsewhere.
    FirstUserElsewhere,
    /// 99 of 100 of them are.
    Moved,
    /// One of them has a write acknowledged elsewhere.
    Writable,
    /// The faults ended.
    Undone,
    /// The target's first user is back.
    Restored,
    /// The target has all of its users.
    Ramped,
    /// The stores hold the same again, all that was acknowledged among it.
    Converged,
    /// Something else that a reader should know.
    Noted,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When, milliseconds of Unix time by the conductor's clock.
    pub at_unix_ms: u64,
    /// What.
    pub what: What,
    /// A datacenter, a name server, a witness; empty: the drill.
    #[serde(default)]
    pub who: String,
    /// For people.
    pub text: String,
    /// It may have been so much earlier, milliseconds: when it was last seen otherwise. 0: it is known.
    #[serde(default)]
    pub within_ms: u64,
}

/// A phase of the recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name: `detected`, `decided`, `name servers changed`, …
    pub name: String,
    /// From the first fault (from the undoing, for what follows it), milliseconds; none: it did not come.
    pub ms: Option<u64>,
}

/// What became of the writes, counted one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The durability at which they were written.
    pub durability: String,
    /// Records that somebody was promised.
    pub acknowledged: u64,
    /// Of them those that every survivor has in the end.
    pub present: u64,
    /// Of the present ones those that no survivor had when the faults ended, before the target was back.
    pub late: u64,
    /// Acknowledged, and not in every survivor in the end.
    pub lost: u64,
    /// Written more than once, as a user who got no reply does.
    pub duplicated: u64,
    /// There, though nobody was told so.
    pub unacknowledged: u64,
    /// Writes that were refused or got no reply in time, each try counted.
    pub failed: u64,
    /// Which are lost: `witness/number`, the first thousand.
    pub lost_records: Vec<String>,
    /// Records found in each datacenter that was counted.
    pub counted: BTreeMap<String, u64>,
    /// Datacenters that could not be counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncounted: Vec<String>,
}

/// What became of the visits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Visits {
    /// All from the first fault to the end.
    pub all: u64,
    /// Of them those that failed.
    pub failed: u64,
    /// The largest percentage of failures in ten seconds.
    pub worst_percent: f64,
    /// The percentage that was allowed.
    pub allowed_percent: f64,
    /// The slowest but one of a hundred that went well, milliseconds.
    pub p99_ms: u64,
    /// Some that failed.
    pub examples: Vec<Example>,
}

/// A visit that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// When, milliseconds of Unix time.
    pub at_unix_ms: u64,
    /// Whose.
    pub witness: String,
    /// The user's network.
    pub user: String,
    /// At which step, and what went wrong.
    pub what: String,
}

/// How all of it went over time, in steps of the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Beginning of the first step, milliseconds of Unix time.
    pub from_unix_ms: u64,
    /// Length of a step, milliseconds.
    pub step_ms: u64,
    /// Of each witness, by step: visits that went well, and that failed.
    pub witnesses: BTreeMap<String, Vec<(u32, u32)>>,
    /// To each datacenter, by step: visits that name servers sent there.
    pub placed: BTreeMap<String, Vec<u32>>,
    /// Between two stores (`frankfurt behind seoul`), by step: milliseconds, none where it was not known.
    pub lags: BTreeMap<String, Vec<Option<u32>>>,
    /// Of each datacenter: from when on it was in which state, as the conductor had it.
    pub states: BTreeMap<String, Vec<(u64, String)>>,
}

/// Against an earlier drill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which.
    pub id: String,
    /// Phase by phase: name, then, now, milliseconds.
    pub phases: Vec<(String, Option<u64>, Option<u64>)>,
    /// Writes lost then, and now.
    pub lost: (u64, u64),
    /// Visits failed then, and now.
    pub failed: (u64, u64),
}

/// Whether a drill showed what it was to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// It did.
    pub is_met: bool,
    /// Objective by objective.
    pub objectives: Vec<Objective>,
}

/// One objective, and what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// Its name: `rto`, `rpo`, …
    pub name: String,
    /// What was to be.
    pub wanted: String,
    /// What was.
    pub found: String,
    /// It is met.
    pub is_met: bool,
}

impl Report {
    /// The first mark of a kind.
    pub fn first(&self, what: What) -> Option<&Mark> {
        self.timeline.iter().find(|mark| mark.what == what)
    }

    /// How long a phase took, milliseconds.
    pub fn phase(&self, name: &str) -> Option<u64> {
        self.phases.iter().find(|phase| phase.name == name)?.ms
    }
}
