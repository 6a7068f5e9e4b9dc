//! Leading a drill, and ending it. One agent leads: it injects nothing before every agent has written the armed word in its own
//! log, for then each has a timer of its own; it takes the steps one after the other; it ends the drill when something happens
//! that the drill did not mean. Every other agent ends it when the leader falls silent. Whoever hears of the end lets the
//! target back.

use std::time::Duration;

use daemun_fleet::FleetView;
use daemun_fleet::drill::Fault;
use daemun_fleet::view::State;

use super::{Core, Moment};
use crate::drill::report::{Ended, Outcome};
use crate::drill::word::{Stage, Word};
use crate::facts::Body;
use crate::orders::{About, Order, Verb};

/// How long it is waited until all have armed their timers.
pub const ARMING: Duration = Duration::from_secs(10);
/// Why a target is let back, the first time and the last.
const OVER: &str = "the drill is over";
const OVER_AGAIN: &str = "the drill is over, and what was left of it too";
/// What the timers have beyond the steps: a leader that is well ends the drill before they do.
pub const MARGIN: Duration = Duration::from_secs(3);

/// A drill that this agent leads, or watches being led.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    /// The newest word about it.
    order: Order,
    word: Word,
    /// When this agent took the last step, or first heard of it.
    since: Duration,
    /// When all had armed their timers.
    armed_at: Option<Duration>,
    /// A step was taken, as far as is known here: there is something to undo.
    is_injected: bool,
    /// Revision of the newest word about the target when the drill was first heard of: a later one is somebody's who knew
    /// better. No two clocks need to agree on that.
    revision: u64,
    /// What was not well when it was armed against the rules: that is no reason to end it.
    excused: Option<String>,
}

impl Leading {
    fn hear(&mut self, order: &Order, word: &Word) {
        self.is_injected |= matches!(word.stage, Stage::Step(_));
        (self.order, self.word) = (order.clone(), word.clone());
    }
}

impl Core {
    /// The newest word about a drill, over or not.
    pub fn drill(&self) -> Option<(&Order, &Word)> {
        let order = self.timers.newest(&About::Drill)?;
        match &order.verb {
            Verb::Drill(word) => Some((order, word)),
            _ => None,
        }
    }

    /// How long the drill that is armed or under way still has.
    pub fn drill_left(&self, now: Duration) -> Option<Duration> {
        self.timers.left_of(&About::Drill, now)
    }

    /// The same for the process around this agent, of the drill of this id: no time where it has ended or is not known.
    pub fn drill_left_of(&self, id: &str, now: Duration) -> Duration {
        // A silenced agent publishes no view: what it has heard of the end is in its words.
        let is_under_way = self.drill().is_some_and(|(_, word)| word.id == id && word.binds());
        self.drill_left(now).filter(|_| is_under_way).unwrap_or_default()
    }

    /// The word that ends the drill of this id; none: there is none such, or it has ended.
    pub fn drill_ended(&self, id: &str, how: Ended, why: &str) -> Option<Order> {
        let (order, word) = self.drill().filter(|(_, word)| word.id == id && word.binds())?;
        Some(at_stage(order, word, Stage::Ended(Outcome { ended: how, why: why.to_owned() })))
    }

    /// The word that a drill that has ended is over for good.
    pub fn drill_closed(&self, id: &str) -> Option<Order> {
        let (order, word) = self.drill().filter(|(_, word)| word.id == id)?;
        let Stage::Ended(outcome) = &word.stage else { return None };
        Some(at_stage(order, word, Stage::Closed(outcome.clone())))
    }

    /// Moves the drill on, as far as it is this agent's to do so.
    pub(super) fn settle_drill(&mut self, moment: Moment) {
        let Some((order, word)) = self.drill().map(|(order, word)| (order.clone(), word.clone())) else {
            return self.leading = None;
        };
        let is_new = self.hear_drill(&order, &word, moment.now);
        if !word.binds() {
            return self.let_target_back(moment.now);
        }
        let next = match word.conductor == self.me {
            // It began again in the middle, and does not know how long the step has lasted.
            true if is_new && word.stage != Stage::Armed => Some(aborted("its leader began again")),
            true => self.next_stage(&order, &word, moment.now),
            false => self.leader_is_lost(&word),
        };
        let Some(next) = next else { return };
        let order = at_stage(&order, &word, next.clone());
        self.timers.hear(&order, moment.now);
        if let Some(leading) = &mut self.leading {
            leading.hear(&order, &word.at(next));
            leading.since = moment.now;
        }
        self.let_target_back(moment.now);
    }

    /// Takes in the newest word; true if it is of another drill than the one before, whose target nobody else will let back.
    fn hear_drill(&mut self, order: &Order, word: &Word, now: Duration) -> bool {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.order.is_same_drill(order)) {
            leading.hear(order, word);
            return false;
        }
        if let Some(leading) = &mut self.leading {
            leading.word = leading.word.expired();
            self.let_target_back(now);
        }
        let about = word.target.datacenter().map(|target| About::Datacenter(target.to_owned()));
        let revision = about.and_then(|about| self.timers.newest(&about)).map_or(0, |newest| newest.revision);
        let is_injected = matches!(word.stage, Stage::Step(_));
        let (order, word) = (order.clone(), word.clone());
        let excused = unmeant(&self.judgement.view, &word).filter(|_| order.break_glass);
        let armed_at = None;
        self.leading = Some(Leading { order, word, since: now, armed_at, is_injected, revision, excused });
        true
    }

    fn next_stage(&mut self, order: &Order, word: &Word, now: Duration) -> Option<Stage> {
        let excused = self.leading.as_ref().and_then(|leading| leading.excused.as_ref());
        if let Some(why) = unmeant(&self.judgement.view, word).filter(|why| Some(why) != excused) {
            return Some(aborted(&why));
        }
        let missing: Vec<String> = self.not_armed(order);
        let leading = self.leading.as_mut()?;
        let lasted = now.saturating_sub(leading.since);
        match word.stage {
            Stage::Armed => {
                if missing.is_empty() {
                    leading.armed_at.get_or_insert(now);
                }
                let baseline = Duration::from_millis(word.scenario.baseline_ms);
                match leading.armed_at {
                    Some(at) if now.saturating_sub(at) >= baseline => Some(Stage::Step(0)),
                    None if lasted >= ARMING => {
                        Some(aborted(&format!("no timer was armed in {}", missing.join(", "))))
                    }
                    Some(_) | None => None,
                }
            }
            Stage::Step(step) => {
                let at = usize::try_from(step).unwrap_or(usize::MAX);
                let hold = word.scenario.steps.get(at).map_or(0, |step| step.hold_ms);
                if lasted < Duration::from_millis(hold) {
                    return None;
                }
                Some(match word.scenario.steps.get(at + 1) {
                    Some(_) => Stage::Step(step + 1),
                    None => Stage::Ended(Outcome { ended: Ended::Done, why: String::new() }),
                })
            }
            Stage::Ended(_) | Stage::Closed(_) => None,
        }
    }

    /// The datacenters whose agents have not written that their timers run.
    fn not_armed(&self, order: &Order) -> Vec<String> {
        let has = |name: &str| {
            let said = self.facts.order(name, &About::Drill);
            name == self.me || said.is_some_and(|said| said.is_same_drill(order))
        };
        let is_forgotten = |name: &str| {
            self.judgement.view.datacenters.get(name).is_some_and(|datacenter| datacenter.is_forgotten)
        };
        let names = self.config.fleet.datacenters.iter().map(|datacenter| &datacenter.name);
        names.filter(|name| !has(name) && !is_forgotten(name)).cloned().collect()
    }

    /// An agent that does not lead ends the drill when the one that does is not heard.
    fn leader_is_lost(&self, word: &Word) -> Option<Stage> {
        let leader = self.judgement.view.observers.get(&word.conductor);
        let is_heard = leader.is_some_and(|leader| leader.is_heard);
        (!is_heard).then(|| aborted(&format!("its leader, the agent of {}, is not heard", word.conductor)))
    }

    /// A drill's end is a word to let the target back, as an operator would give it: no calm is waited for, its data is.
    /// Where nothing was made to fail there is nobody to let back: who is down is so for a reason of its own.
    fn let_target_back(&mut self, now: Duration) {
        let Some(leading) = &self.leading else { return };
        let Leading { order, word, is_injected, revision, .. } = leading;
        let Some(target) = word.target.datacenter().filter(|_| *is_injected && !word.binds()) else { return };
        let moves_users =
            |fault: &Fault| !matches!(fault, Fault::Partition | Fault::AgentDead | Fault::Slow { .. });
        if !word.scenario.faults().any(moves_users) {
            return;
        }
        let about = About::Datacenter(target.to_owned());
        let by = format!("drill {}", word.id);
        let newest = self.timers.newest(&about);
        // Said already, or somebody has said something else since. A target that is found down only after that, as the last
        // probes of the fault end, has used up the word before it had a use for it: it is said once more.
        let is_ours = newest.is_some_and(|newest| newest.by == by);
        let is_down = self.judgement.view.datacenters.get(target).is_some_and(|at| at.state == State::Down);
        let is_again = is_ours && is_down && newest.is_some_and(|newest| newest.reason == OVER);
        let is_said =
            is_ours || newest.is_some_and(|newest| newest.verb.binds() || newest.revision > *revision);
        if is_said && !is_again {
            return;
        }
        let restore = Order {
            revision: newest.map_or(0, |newest| newest.revision) + 1,
            about,
            verb: Verb::Restore,
            by,
            reason: if is_again { OVER_AGAIN } else { OVER }.to_owned(),
            for_ms: None,
            told: order.told.clone(),
            at_unix_ms: order.at_unix_ms,
            break_glass: false,
        };
        let at_unix_ms = order.at_unix_ms;
        self.timers.hear(&restore, now);
        self.facts.state(&self.me, at_unix_ms, Body::Order(restore));
    }
}

fn aborted(why: &str) -> Stage {
    Stage::Ended(Outcome { ended: Ended::Aborted, why: why.to_owned() })
}

fn at_stage(order: &Order, word: &Word, stage: Stage) -> Order {
    Order { verb: Verb::Drill(Box::new(word.at(stage))), ..order.clone() }
}

/// What is so in a view and was not meant by a drill.
fn unmeant(view: &FleetView, word: &Word) -> Option<String> {
    let target = word.target.datacenter();
    if view.fail_open {
        return Some("everything looks down".to_owned());
    }
    if view.paused.is_some() {
        return Some("somebody has paused automation".to_owned());
    }
    for (name, datacenter) in view.datacenters.iter().filter(|(_, datacenter)| !datacenter.is_forgotten) {
        let is_meant = Some(name.as_str()) == target && word.stage != Stage::Armed;
        if !is_meant && !matches!(datacenter.state, State::Serving | State::Ramping(_)) {
            return Some(format!("{name} is {}: {}", datacenter.state, datacenter.why));
        }
        if let Some(order) = &datacenter.order {
            return Some(format!("{} has said something else about {name}: {}", order.by, order.verb));
        }
    }
    let silences = word.scenario.faults().any(Fault::silences_agent);
    let lost = view.observers.iter().find(|(name, observer)| {
        let is_forgotten = view.datacenters.get(*name).is_some_and(|datacenter| datacenter.is_forgotten);
        let is_meant = silences && Some(name.as_str()) == target;
        !(observer.is_heard || is_forgotten || is_meant)
    });
    lost.map(|(name, _)| format!("the agent of {name} is not heard"))
}
