//! Drills: failures made on purpose, as data. What a scenario is, what a process has to do of it, and until when.
//!
//! A drill undoes itself: a process takes part only in a drill that it has seen *armed*, before anything fails, and from that
//! moment a timer of its own runs. When the timer ends the process is well again, whoever else is dead. A process that starts
//! in the middle of a drill, armed or under way, takes no part in it: to start again is to undo.

mod builtin;
mod target;
mod window;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use builtin::{BUILTINS, builtin};
pub(crate) use builtin::{LOAD, limits};
pub use window::{Blocked, Dates, Window};

/// What is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// This percentage of the target's users is sent elsewhere, as an operator would.
    Drain {
        /// Percent.
        share: u8,
    },
    /// The target's front doors and name servers leave this percentage of what they are asked without an answer.
    Blackhole {
        /// Percent.
        share: u8,
    },
    /// The stores do not hear each other; users are served.
    Partition,
    /// The target's process is killed, and started again in the end, by the configured commands.
    Kill,
    /// Answers come later: of the target's doors and name servers, or over a link those of the stores.
    Slow {
        /// Milliseconds.
        delay_ms: u32,
    },
    /// The target's agent neither speaks nor decides; doors and name servers go on by what they knew.
    AgentDead,
}

impl Fault {
    /// The word in scenarios.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Drain { .. } => "drain",
            Fault::Blackhole { .. } => "blackhole",
            Fault::Partition => "partition",
            Fault::Kill => "kill",
            Fault::Slow { .. } => "slow",
            Fault::AgentDead => "agent-dead",
        }
    }

    /// Whether all of the target's users are meant to go elsewhere.
    pub fn moves_all_users(&self) -> bool {
        matches!(self, Fault::Kill | Fault::Drain { share: 100 } | Fault::Blackhole { share: 100 })
    }

    /// Whether the target's agent falls silent.
    pub fn silences_agent(&self) -> bool {
        matches!(self, Fault::Kill | Fault::AgentDead)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Drain { share } | Fault::Blackhole { share } => write!(f, "{} {share}%", self.name()),
            Fault::Slow { delay_ms } => write!(f, "slow by {delay_ms} ms"),
            Fault::Partition | Fault::Kill | Fault::AgentDead => f.write_str(self.name()),
        }
    }
}

/// Where it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A datacenter.
    Datacenter(String),
    /// The link between two.
    Link(String, String),
}

impl Target {
    /// `NAME`, or `NAME:NAME` for a link.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((one, other)) => Target::Link(one.to_owned(), other.to_owned()),
            None => Target::Datacenter(text.to_owned()),
        }
    }

    /// The datacenter, if it is one.
    pub fn datacenter(&self) -> Option<&str> {
        match self {
            Target::Datacenter(name) => Some(name),
            Target::Link(..) => None,
        }
    }

    /// Names of the datacenters that it names.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Target::Datacenter(name) => vec![name],
            Target::Link(one, other) => vec![one, other],
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Datacenter(name) => f.write_str(name),
            Target::Link(one, other) => write!(f, "{one}:{other}"),
        }
    }
}

/// One step of a scenario: what fails, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What fails, all of it at once.
    pub faults: Vec<Fault>,
    /// Milliseconds.
    pub hold_ms: u64,
}

/// The synthetic users of each datacenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Networks in the place of users, for each datacenter so many that are nearest to it.
    pub users: u32,
    /// Visits a second of each witness.
    pub visits_per_second: u32,
    /// How long a user waits for a page, milliseconds.
    pub patience_ms: u64,
}

/// What ends a drill before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Percentage of the visits of the last ten seconds that failed.
    pub errors_percent: u8,
    /// The slowest but one of a hundred visits that went well, of the last ten seconds, milliseconds.
    pub p99_ms: u64,
    /// How far the stores that are not cut off are behind each other, milliseconds.
    pub lag_ms: u64,
}

/// What a drill is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// The longest from the fault until 99 in 100 users are served elsewhere, milliseconds.
    pub rto_ms: u64,
    /// Acknowledged writes that may be lost.
    pub rpo: u64,
}

/// A failure on purpose, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name: reports of the same name are compared.
    pub name: String,
    /// Where; none: it is said when it is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// One after the other.
    pub steps: Vec<Step>,
    /// The users.
    pub load: Load,
    /// The durability at which they write: `memory`, `local`, `remote:N`, `all`.
    pub durability: String,
    /// What ends it.
    pub limits: Limits,
    /// What it is to show.
    pub objectives: Objectives,
    /// How long all is watched before anything fails, milliseconds.
    pub baseline_ms: u64,
    /// How long it is waited for the return, at most, milliseconds.
    pub recover_ms: u64,
}

impl Scenario {
    /// Every fault of every step.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.steps.iter().flat_map(|step| &step.faults)
    }

    /// Whether at some time all of the target's users are to go elsewhere.
    pub fn moves_all_users(&self) -> bool {
        self.faults().any(Fault::moves_all_users)
    }

    /// How long something fails, milliseconds.
    pub fn fails_for_ms(&self) -> u64 {
        self.steps.iter().map(|step| step.hold_ms).sum()
    }
}

/// A drill in a fleet view: it is armed or under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillView {
    /// Which.
    pub id: String,
    /// Name of its scenario.
    pub scenario: String,
    /// Where.
    pub target: Target,
    /// The datacenter whose agent leads it.
    pub conductor: String,
    /// Number of its step, from 0; none: it is armed, and nothing fails yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// What fails now.
    pub faults: Vec<Fault>,
    /// Who began it, for people.
    pub by: String,
    /// When whoever has heard of it armed is well again by itself, milliseconds after it heard.
    pub for_ms: u64,
    /// How long something fails from the beginning of this step on, milliseconds.
    #[serde(default)]
    pub rest_ms: u64,
}

/// What fails in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handicap {
    /// Percentage of what doors and name servers are asked that gets no answer.
    pub dead_percent: u8,
    /// How much later doors and name servers answer, milliseconds.
    pub slow_ms: u32,
    /// Datacenters whose stores are not heard and hear nothing.
    pub cut: BTreeSet<String>,
    /// How much later these stores are told, milliseconds.
    pub slow_links: Vec<(String, u32)>,
    /// The agent neither speaks nor decides.
    pub is_mute: bool,
    /// The process is to be killed, and started again after so long, milliseconds.
    pub killed_for_ms: Option<u64>,
}

/// The part that one process has in drills: what it does is up to the view, until when is up to itself.
#[derive(Clone, Debug, Default)]
pub struct Part {
    has_looked: bool,
    armed: Option<Armed>,
    /// The newest drill of any view, and when its time is over for whoever looks here.
    seen: Option<(String, Duration)>,
}

#[derive(Clone, Debug)]
struct Armed {
    id: String,
    ends_at: Duration,
    /// Of a process that is to be killed: set once, as it would shrink with each look until the process is dead.
    killed_for_ms: Option<u64>,
}

/// No drill lasts longer, whatever its word says.
const BOUND_MAX: Duration = Duration::from_secs(5 * 3600);

impl Part {
    /// What fails here under a view, and until when at most. `left`: how long the agent here knows the drill to last.
    pub fn look(
        &mut self,
        me: &str,
        drill: Option<&DrillView>,
        left: Option<Duration>,
        now: Duration,
    ) -> (Handicap, Option<Duration>) {
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let Some(drill) = drill else {
            self.armed = None;
            return (Handicap::default(), None);
        };
        let bound = Duration::from_millis(drill.for_ms).min(BOUND_MAX);
        let own = now + bound.min(left.unwrap_or(Duration::MAX));
        let is_same = self.seen.as_ref().is_some_and(|(id, _)| *id == drill.id);
        let until = self.seen.as_ref().filter(|_| is_same).map_or(own, |(_, until)| (*until).min(own));
        self.seen = Some((drill.id.clone(), until));
        let known = self.armed.take().filter(|known| known.id == drill.id);
        // Who is killed and starts again may find on its disk that the drill is armed: it has had its part.
        let was_there = known.is_some() || (drill.step.is_none() && !is_first);
        let (ends_at, killed_for_ms) =
            known.map_or((own, None), |known| (known.ends_at.min(own), known.killed_for_ms));
        let ends_at = if was_there { ends_at } else { Duration::ZERO };
        let armed = self.armed.insert(Armed { id: drill.id.clone(), ends_at, killed_for_ms });
        if drill.step.is_none() || now >= ends_at {
            return (Handicap::default(), (now < ends_at).then_some(ends_at));
        }
        let mut handicap = handicap(me, drill);
        if let Some(rest_ms) = handicap.killed_for_ms {
            // A step that is heard of late ends no later for that.
            let left_ms = u64::try_from((ends_at - now).as_millis()).unwrap_or(u64::MAX);
            handicap.killed_for_ms = Some(*armed.killed_for_ms.get_or_insert(rest_ms.min(left_ms)));
        }
        (handicap, Some(ends_at))
    }
}

impl Part {
    /// Whether the time of a view's drill is over, whatever the view says: then nobody is there to say so.
    pub fn is_over(&self, drill: &DrillView, now: Duration) -> bool {
        self.seen.as_ref().is_some_and(|(id, until)| *id == drill.id && now >= *until)
    }
}

fn handicap(me: &str, drill: &DrillView) -> Handicap {
    let mut handicap = Handicap::default();
    let is_here = drill.target.datacenter() == Some(me);
    for fault in &drill.faults {
        match (fault, &drill.target) {
            (Fault::Blackhole { share }, _) if is_here => handicap.dead_percent = *share,
            (Fault::Kill, _) if is_here => handicap.killed_for_ms = Some(drill.rest_ms),
            (Fault::AgentDead, _) if is_here => handicap.is_mute = true,
            (Fault::Slow { delay_ms }, Target::Datacenter(_)) if is_here => handicap.slow_ms = *delay_ms,
            (Fault::Slow { delay_ms }, Target::Link(..)) => {
                handicap.slow_links.extend(other(me, &drill.target).map(|other| (other, *delay_ms)));
            }
            (Fault::Partition, Target::Link(..)) => handicap.cut.extend(other(me, &drill.target)),
            // Both ends of each link refuse: who has a part in it, and who has not.
            (Fault::Partition, Target::Datacenter(name)) => {
                handicap.cut.insert(if is_here { EVERYONE.to_owned() } else { name.clone() });
            }
            _ => {}
        }
    }
    handicap
}

/// In the place of a name: all others.
pub const EVERYONE: &str = "*";

fn other(me: &str, target: &Target) -> Option<String> {
    match target {
        Target::Link(one, other) if one == me => Some(other.clone()),
        Target::Link(one, other) if other == me => Some(one.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(step: Option<u32>, target: Target, faults: &[Fault]) -> DrillView {
        DrillView {
            id: "one".to_owned(),
            scenario: "test".to_owned(),
            target,
            conductor: "seoul".to_owned(),
            step,
            faults: faults.to_vec(),
            by: "ann".to_owned(),
            for_ms: 10_000,
            rest_ms: 5_000,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// The part of a process that began when there was no drill.
    fn began() -> Part {
        let mut part = Part::default();
        part.look("frankfurt", None, None, Duration::ZERO);
        part
    }

    #[test]
    fn it_ends_by_its_own_timer_whatever_the_view_says() {
        let target = || Target::Datacenter("frankfurt".to_owned());
        let fault = [Fault::Blackhole { share: 100 }];
        let mut part = began();
        let armed = drill(None, target(), &[]);
        assert_eq!(
            part.look("frankfurt", Some(&armed), None, SECOND),
            (Handicap::default(), Some(11 * SECOND))
        );
        let under_way = drill(Some(0), target(), &fault);
        let (handicap, ends_at) = part.look("frankfurt", Some(&under_way), None, 3 * SECOND);
        assert_eq!((handicap.dead_percent, ends_at), (100, Some(11 * SECOND)));
        let (handicap, _) = part.look("frankfurt", Some(&under_way), None, 11 * SECOND);
        assert_eq!(handicap, Handicap::default(), "its time is over");
        let (handicap, _) = part.look("frankfurt", Some(&under_way), Some(5 * SECOND), 12 * SECOND);
        assert_eq!(handicap, Handicap::default(), "and stays over");
    }

    #[test]
    fn the_agents_timer_counts_if_it_is_shorter() {
        let target = Target::Datacenter("frankfurt".to_owned());
        let mut part = began();
        part.look("frankfurt", Some(&drill(None, target.clone(), &[])), Some(2 * SECOND), SECOND);
        let under_way = drill(Some(0), target, &[Fault::AgentDead]);
        assert!(part.look("frankfurt", Some(&under_way), None, 2 * SECOND).0.is_mute);
        assert!(!part.look("frankfurt", Some(&under_way), None, 3 * SECOND).0.is_mute);
    }

    #[test]
    fn who_was_not_there_when_it_was_armed_takes_no_part() {
        let target = Target::Datacenter("frankfurt".to_owned());
        let under_way = drill(Some(1), target, &[Fault::Kill]);
        assert_eq!(
            Part::default().look("frankfurt", Some(&under_way), None, SECOND),
            (Handicap::default(), None)
        );
    }

    /// Found by the simulator: a process that was killed at once began again with the armed word on its disk, and was killed
    /// a second time.
    #[test]
    fn who_begins_while_it_is_armed_takes_no_part() {
        let target = || Target::Datacenter("frankfurt".to_owned());
        let mut part = Part::default();
        part.look("frankfurt", Some(&drill(None, target(), &[])), None, SECOND);
        let under_way = drill(Some(0), target(), &[Fault::Kill]);
        assert_eq!(part.look("frankfurt", Some(&under_way), None, 2 * SECOND), (Handicap::default(), None));
        part.look("frankfurt", None, None, 3 * SECOND);
        let next = DrillView { id: "two".to_owned(), ..drill(None, target(), &[]) };
        part.look("frankfurt", Some(&next), None, 4 * SECOND);
        let next = DrillView { id: "two".to_owned(), ..under_way };
        assert_eq!(part.look("frankfurt", Some(&next), None, 5 * SECOND).0.killed_for_ms, Some(5_000));
    }

    #[test]
    fn who_is_killed_late_begins_again_no_later() {
        let target = || Target::Datacenter("frankfurt".to_owned());
        let mut part = began();
        part.look("frankfurt", Some(&drill(None, target(), &[])), None, SECOND);
        let under_way = drill(Some(0), target(), &[Fault::Kill]);
        let mut killed = |at| part.look("frankfurt", Some(&under_way), None, at).0.killed_for_ms;
        assert_eq!(killed(8 * SECOND), Some(3_000), "what is left of ten seconds");
        assert_eq!(killed(9 * SECOND), Some(3_000), "it is said once");
    }

    /// A drain is made by the view, for all: where no agent is left to end it, it ends by the time of whoever goes by it.
    #[test]
    fn its_time_is_over_for_those_without_a_part_too() {
        let target = Target::Datacenter("seoul".to_owned());
        let under_way = drill(Some(0), target, &[Fault::Drain { share: 100 }]);
        let mut part = Part::default();
        part.look("frankfurt", Some(&under_way), None, SECOND);
        assert!(!part.is_over(&under_way, 10 * SECOND) && part.is_over(&under_way, 11 * SECOND));
        part.look("frankfurt", Some(&under_way), Some(Duration::ZERO), 2 * SECOND);
        assert!(part.is_over(&under_way, 2 * SECOND), "the agent knows better");
    }

    #[test]
    fn each_end_of_a_link_has_its_part() {
        let link = Target::Link("seoul".to_owned(), "virginia".to_owned());
        let faults = [Fault::Partition, Fault::Slow { delay_ms: 5 }];
        let of = |me: &str, target: &Target| handicap(me, &drill(Some(0), target.clone(), &faults));
        assert_eq!(of("seoul", &link).cut, ["virginia".to_owned()].into());
        assert_eq!(of("virginia", &link).slow_links, [("seoul".to_owned(), 5)]);
        assert_eq!(of("frankfurt", &link), Handicap::default());
        let whole = Target::Datacenter("seoul".to_owned());
        assert_eq!(of("seoul", &whole).cut, [EVERYONE.to_owned()].into());
        assert_eq!(of("frankfurt", &whole).cut, ["seoul".to_owned()].into());
        assert_eq!((of("seoul", &whole).slow_ms, of("frankfurt", &whole).slow_ms), (5, 0));
    }
}
