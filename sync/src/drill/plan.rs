//! What a drill would do, and the rules that it must keep before it begins. Pure: the same plan is shown by `daemun drill plan`
//! and carried out by `daemun drill run`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use daemun_fleet::config::{Check as Probe, DOOR_ROLE};
use daemun_fleet::drill::{Fault, Scenario, Target};
use daemun_fleet::view::{DatacenterView, State};
use daemun_fleet::{Config, FleetView};
use serde::{Deserialize, Serialize};

use super::report::Check;
use super::word::{Stage, Word};
use crate::core::drill::{ARMING, MARGIN};
use crate::core::{Core, LinkStatus, Moment};
use crate::orders::{About, Order, Verb};
use crate::store::replica::{Lag, Stage as Known};
use crate::store::request::Durability;
use crate::store::status::StoreStatus;

/// What a return takes beyond its steps: to be seen, to be told.
const RETURN_MARGIN: Duration = Duration::from_secs(30);
/// A return is waited for no longer.
const RECOVER_MS_MAX: u64 = 3_600_000;
/// A drill makes no more visits: each record is counted, and its numbers are held in memory.
const VISITS_MAX: u64 = 500_000;
/// No answer is later.
const DELAY_MS_MAX: u32 = 60_000;
/// Of a datacenter that leaves so much unanswered, or has so many of its users drained, nothing is expected.
const OUT_PERCENT: u8 = 50;
/// Before a drill a store is behind by less than this.
const LAG_MAX_MS: u64 = 3_000;

/// A drill that is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// All of it, the target filled in.
    pub scenario: Scenario,
    /// Who says so.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Refuse if the view's generation is another.
    #[serde(default)]
    pub expect_generation: Option<u64>,
    /// Say what it would do, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Override the rules.
    #[serde(default)]
    pub break_glass: bool,
}

/// What is wrong with what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Something in it cannot be.
    #[error("{0}")]
    Asked(String),
    /// The fleet is not as expected.
    #[error(
        "the view has generation {found}, not {expected} as expected: look again (`daemun status`), then decide"
    )]
    Changed {
        /// What was expected.
        expected: u64,
        /// What is.
        found: u64,
    },
}

/// What a drill would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The word that arms it.
    pub order: Order,
    /// The drill.
    pub word: Word,
    /// The view now.
    pub before: Arc<FleetView>,
    /// The view while the worst of it fails.
    pub after: FleetView,
    /// The rules that need nothing but facts.
    pub checks: Vec<Check>,
}

/// How a datacenter's agent is, before a drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// How its store is.
    pub store: Option<StoreStatus>,
    /// Why it has none.
    #[serde(default)]
    pub no_store: String,
    /// A drill that it still leads.
    pub leads: Option<String>,
}

/// Plans a drill.
///
/// # Errors
/// What is wrong with it; rules that do not hold are in the plan.
pub fn plan(core: &Core, asked: &Asked, moment: Moment) -> Result<Plan, Wrong> {
    let before = Arc::clone(core.view());
    if let Some(expected) = asked.expect_generation.filter(|expected| *expected != before.generation) {
        return Err(Wrong::Changed { expected, found: before.generation });
    }
    let wrong = |what: String| Err(Wrong::Asked(what));
    if asked.by.trim().is_empty() || asked.by.chars().count() > 100 || asked.reason.chars().count() > 500 {
        return wrong("it must be said who says so (`by`), in at most 100 characters, and why (`reason`) in at most 500".to_owned());
    }
    let scenario = &returning(core.config(), &asked.scenario);
    let Some(target) = scenario.target.clone() else {
        return wrong(format!("`{}` names no target: say --target DATACENTER", scenario.name));
    };
    fits(core.config(), scenario, &target)?;
    let Some(conductor) = conductor(core, &target) else {
        return wrong("a drill takes at least two datacenters: one of them leads it".to_owned());
    };
    let id = id(moment.unix_ms, &scenario.name, &target);
    let checks = Vec::new();
    let word = Word { id, scenario: scenario.clone(), target, conductor, checks, stage: Stage::Armed };
    let revision = core.timers().newest(&About::Drill).map_or(0, |order| order.revision) + 1;
    let bound = ARMING + MARGIN + Duration::from_millis(scenario.baseline_ms + scenario.fails_for_ms());
    let order = Order {
        about: About::Drill,
        revision,
        verb: Verb::Drill(Box::new(word.clone())),
        by: asked.by.trim().to_owned(),
        reason: asked.reason.trim().to_owned(),
        for_ms: u64::try_from(bound.as_millis()).ok(),
        told: core.me().to_owned(),
        at_unix_ms: moment.unix_ms,
        break_glass: asked.break_glass,
    };
    let after = worst(&before, &word);
    let checks = self::checks(core, &word, &before, &after);
    Ok(Plan { order, word, before, after, checks })
}

impl Plan {
    /// The word that arms it, with all the rules that were checked.
    pub fn arming(&self) -> Order {
        let word = Word { checks: self.checks.clone(), ..self.word.clone() };
        Order { verb: Verb::Drill(Box::new(word)), ..self.order.clone() }
    }
}

/// With time to wait for the return that the config of the fleet prescribes.
fn returning(config: &Config, scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    let stays = |fault: &Fault| matches!(fault, Fault::Partition | Fault::Slow { .. } | Fault::AgentDead);
    if !scenario.faults().all(stays) {
        let comeback = &config.sync.comeback;
        let steps = u32::try_from(comeback.ramp.len()).unwrap_or(u32::MAX).saturating_add(1);
        let needed = comeback.ramp_step.saturating_mul(steps) + comeback.catch_up + RETURN_MARGIN;
        let needed_ms = u64::try_from(needed.as_millis()).unwrap_or(u64::MAX).min(RECOVER_MS_MAX);
        scenario.recover_ms = scenario.recover_ms.max(needed_ms);
    }
    scenario
}

/// Whether nothing that the plan goes by has changed.
pub fn is_current(core: &Core, plan: &Plan) -> bool {
    let newest = core.timers().newest(&About::Drill).map_or(0, |order| order.revision);
    let states = |view: &FleetView| -> Vec<State> { view.datacenters.values().map(|d| d.state).collect() };
    newest < plan.order.revision && states(core.view()) == states(&plan.before)
}

/// Name of a drill: it sorts by time.
fn id(unix_ms: u64, scenario: &str, target: &Target) -> String {
    let at = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string();
    let at: String = at.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{at}-{scenario}-{}", target.names().join("-"))
}

/// The agent that leads: the one that was told, unless it is itself what fails.
fn conductor(core: &Core, target: &Target) -> Option<String> {
    let is_fit = |name: &&str| {
        let is_forgotten = core.view().datacenters.get(*name).is_some_and(|view| view.is_forgotten);
        target.datacenter() != Some(*name) && !is_forgotten
    };
    let all = core.config().fleet.datacenters.iter().map(|datacenter| datacenter.name.as_str());
    std::iter::once(core.me()).chain(all).find(is_fit).map(ToOwned::to_owned)
}

fn fits(config: &Config, scenario: &Scenario, target: &Target) -> Result<(), Wrong> {
    let wrong = |what: String| Err(Wrong::Asked(what));
    for name in target.names() {
        if config.fleet.datacenter(name).is_none() {
            let all: Vec<&str> = config.fleet.datacenters.iter().map(|d| d.name.as_str()).collect();
            let found = daemun_fleet::shorten(name);
            return wrong(format!(
                "there is no datacenter `{found}`; the datacenters are {}",
                all.join(", ")
            ));
        }
    }
    if let Target::Link(one, other) = target {
        if one == other {
            return wrong(format!("a link is between two datacenters, found `{target}`"));
        }
        if let Some(fault) = scenario.misfit(target) {
            return wrong(format!(
                "`{}` is about a datacenter, not about a link such as `{target}`",
                fault.name()
            ));
        }
    }
    fits_limits(scenario)?;
    if scenario.steps.is_empty()
        || scenario.steps.len() > 20
        || scenario.steps.iter().any(|s| s.faults.is_empty())
    {
        return wrong("a scenario has 1 to 20 steps, each with a fault".to_owned());
    }
    if scenario.fails_for_ms() > 4 * 3_600_000
        || scenario.baseline_ms > 600_000
        || scenario.recover_ms > 3_600_000
    {
        return wrong(
            "a drill fails for at most 4 hours, watches for at most 10 minutes before and an hour after"
                .to_owned(),
        );
    }
    let load = scenario.load;
    if !(1..=100).contains(&load.users)
        || !(1..=200).contains(&load.visits_per_second)
        || load.patience_ms == 0
    {
        return wrong(
            "a drill has 1 to 100 users for each datacenter and 1 to 200 visits a second".to_owned(),
        );
    }
    let lasts_ms = scenario.baseline_ms + scenario.fails_for_ms() + scenario.recover_ms;
    let witnesses = config.fleet.datacenters.len() as u64 + 1;
    let visits = u64::from(load.visits_per_second) * witnesses * (lasts_ms / 1000);
    if visits > VISITS_MAX {
        return wrong(format!(
            "{visits} visits in all are more than the {VISITS_MAX} that are counted: fewer `visits`, or shorter"
        ));
    }
    match scenario.durability.parse::<Durability>() {
        Ok(_) => Ok(()),
        Err(error) => wrong(error.to_string()),
    }
}

fn fits_limits(scenario: &Scenario) -> Result<(), Wrong> {
    let wrong = |what: String| Err(Wrong::Asked(what));
    for fault in scenario.faults() {
        match fault {
            Fault::Drain { share } | Fault::Blackhole { share } if !(1..=100).contains(share) => {
                return wrong(format!("a share is 1 to 100%, found {share}"));
            }
            Fault::Slow { delay_ms } if !(1..=DELAY_MS_MAX).contains(delay_ms) => {
                return wrong(format!("a delay is 1 to {DELAY_MS_MAX} ms, found {delay_ms}"));
            }
            _ => {}
        }
    }
    if !daemun_fleet::config::is_name(&scenario.name) {
        let found = daemun_fleet::shorten(&scenario.name);
        return wrong(format!(
            "a scenario's name is of lower-case letters, digits and hyphens, found `{found}`"
        ));
    }
    Ok(())
}

/// The view while the worst of a drill fails.
fn worst(before: &FleetView, word: &Word) -> FleetView {
    let mut after = before.clone();
    let Some(view) = word.target.datacenter().and_then(|name| after.datacenters.get_mut(name)) else {
        return after;
    };
    for fault in word.scenario.faults() {
        let why = format!("{fault}, by a drill");
        match fault {
            Fault::Kill | Fault::Blackhole { share: OUT_PERCENT.. } => {
                *view = DatacenterView::new(State::Down, why);
            }
            Fault::Drain { share } if view.state != State::Down => {
                *view = DatacenterView::new(State::Draining(100u8.saturating_sub(*share)), why);
            }
            _ => {}
        }
    }
    after
}

/// Whether the target is as good as out at some time.
fn takes_out(scenario: &Scenario) -> bool {
    scenario.faults().any(|fault| match fault {
        Fault::Kill => true,
        Fault::Drain { share } | Fault::Blackhole { share } => *share >= OUT_PERCENT,
        Fault::Partition | Fault::Slow { .. } | Fault::AgentDead => false,
    })
}

fn check(rule: &str, broken: Vec<String>, holds: impl Into<String>) -> Check {
    let is_kept = broken.is_empty();
    let found = if is_kept { holds.into() } else { broken.join("; ") };
    Check { rule: rule.to_owned(), holds: is_kept, found }
}

fn checks(core: &Core, word: &Word, before: &FleetView, after: &FleetView) -> Vec<Check> {
    let serves = |view: &DatacenterView| view.state == State::Serving && !view.is_forgotten;
    let count = |view: &FleetView| view.datacenters.values().filter(|view| serves(view)).count();
    let (left, minimum) = (count(after), core.config().sync.minimum_serving);
    let all = before.datacenters.len();
    let mut few = Vec::new();
    if takes_out(&word.scenario) && left < minimum {
        few.push(format!("{left} of {all} would be left serving; `sync.minimum_serving` is {minimum}"));
    }
    let mut drills = Vec::new();
    if let Some(drill) = &before.drill {
        drills.push(format!("{} is under way, begun by {}", drill.id, drill.by));
    }
    vec![
        check("no other drill", drills, "none is under way"),
        check(
            "no open incident",
            incidents(before),
            "all datacenters serve, all agents are heard and believed",
        ),
        check("enough datacenters", few, format!("{left} of {all} stay serving, at least {minimum} must")),
        check("agents", links(core), "all answer, with the same config and clocks"),
        check("the fault can be made", makeable(core.config(), word), "everything that it needs is there"),
    ]
}

fn incidents(view: &FleetView) -> Vec<String> {
    let mut open = Vec::new();
    if view.fail_open {
        open.push("everything looks down".to_owned());
    }
    if let Some(paused) = &view.paused {
        open.push(format!("automation is paused by {}", paused.by));
    }
    for (name, datacenter) in view.datacenters.iter().filter(|(_, datacenter)| !datacenter.is_forgotten) {
        if datacenter.state != State::Serving {
            open.push(format!("{name} is {}: {}", datacenter.state, datacenter.why));
        } else if datacenter.suspected {
            open.push(format!("{name} is suspected: {}", datacenter.why));
        }
        if let Some(order) = &datacenter.order {
            open.push(format!("{} holds {name}: {}", order.by, order.verb));
        }
        if !datacenter.cut_from.is_empty() {
            open.push(format!("{name} is cut from {}", datacenter.cut_from.join(", ")));
        }
    }
    for (name, observer) in &view.observers {
        if view.datacenters.get(name).is_some_and(|datacenter| datacenter.is_forgotten) {
            continue;
        }
        if !observer.is_heard {
            open.push(format!("the agent of {name} is not heard"));
        }
        open.extend(observer.doubted.iter().map(|why| format!("the eyes of {name} are doubted: {why}")));
    }
    open
}

fn links(core: &Core) -> Vec<String> {
    let is_forgotten =
        |name: &str| core.view().datacenters.get(name).is_some_and(|datacenter| datacenter.is_forgotten);
    let digest = &core.config().digest;
    let bad = |link: LinkStatus| {
        let failure = link.failure.as_ref().map(|why| format!("{} does not answer: {why}", link.peer));
        let drift = link.config_digest.as_ref().filter(|theirs| *theirs != digest);
        let drift = drift.map(|_| format!("{} has another config", link.peer));
        let clock = link.is_clock_off.then(|| format!("the clock of {} is off", link.peer));
        let unknown = link.config_digest.is_none().then(|| format!("{} was not heard yet", link.peer));
        failure.or(unknown).or(drift).or(clock)
    };
    core.links().into_iter().filter(|link| !is_forgotten(&link.peer)).filter_map(bad).collect()
}

/// What the faults need and is not there.
fn makeable(config: &Config, word: &Word) -> Vec<String> {
    let mut missing = Vec::new();
    let Some(target) = word.target.datacenter() else { return missing };
    let number = config.fleet.datacenter(target).unwrap_or(usize::MAX);
    let doors: Vec<_> = config.fleet.servers_of(number, DOOR_ROLE).collect();
    if word.scenario.faults().any(|fault| matches!(fault, Fault::Blackhole { share: 100 })) {
        let is_seen = |check: &Probe| matches!(check, Probe::Http(_) | Probe::Grpc(_));
        // The system goes on taking connections for a door that does not answer.
        if !doors.iter().any(|door| is_seen(&door.check)) {
            missing
                .push(format!("no check of a front door of {target} would see it: it takes an HTTP check"));
        }
    }
    missing
}

/// The rules about how the stores are, by what each agent says of itself.
pub fn stores(config: &Config, word: &Word, ready: &BTreeMap<String, Result<Ready, String>>) -> Vec<Check> {
    let (mut closed, mut behind, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for (name, said) in ready {
        let ready = match said {
            Ok(ready) => ready,
            Err(why) => {
                closed.push(format!("{name}: {why}"));
                continue;
            }
        };
        busy.extend(ready.leads.iter().map(|id| format!("{name} still leads {id}")));
        let Some(store) = &ready.store else {
            closed.push(format!("{name} has no store: {}", ready.no_store));
            continue;
        };
        if let Some(why) = store.failure.clone().or((!store.is_open).then(|| "it is not open yet".to_owned()))
        {
            closed.push(format!("{name}: {why}"));
        }
        behind.extend(store.waits_for.iter().map(|why| format!("{name}: {why}")));
        behind.extend(store.lags.iter().filter_map(|lag| late(name, lag)));
    }
    let others = config.fleet.datacenters.len().saturating_sub(1);
    let mut durability = Vec::new();
    let cuts = |fault: &Fault| matches!(fault, Fault::Partition | Fault::Kill | Fault::AgentDead);
    let is_cut = word.scenario.faults().any(cuts);
    let reachable = others.saturating_sub(usize::from(is_cut));
    match word.scenario.durability.parse::<Durability>() {
        Ok(Durability::Remote(count)) if usize::try_from(count).unwrap_or(usize::MAX) > reachable => {
            durability.push(format!("remote:{count} cannot be while it fails: {reachable} others are left"));
        }
        Ok(Durability::All) if is_cut => {
            durability.push("`all` cannot be while a datacenter is cut off".to_owned());
        }
        _ => {}
    }
    vec![
        check("no drill is still being led", busy, "none"),
        check("the stores take writes", closed, "all are open"),
        check(
            "lag is known and small",
            behind,
            format!("every store is less than {LAG_MAX_MS} ms behind every other"),
        ),
        check("durability", durability, format!("records are written at {}", word.scenario.durability)),
    ]
}

fn late(name: &str, lag: &Lag) -> Option<String> {
    let of = &lag.datacenter;
    match (lag.stage, lag.behind_ms) {
        (Known::Known, Some(ms)) if ms < LAG_MAX_MS => None,
        (Known::Known, Some(ms)) => Some(format!("{name} is {ms} ms behind {of}")),
        (Known::Held, _) => Some(format!("operations of {of} are from the future for {name}")),
        (Known::Known | Known::Unknown, _) => Some(format!("how far {name} is behind {of} is not known")),
    }
}

/// The rule that those who are left can bear the load.
pub fn capacity(overloads: Vec<String>, is_measured: bool) -> Check {
    let holds = if is_measured { "by the measured rates" } else { "nothing has been measured" };
    check("who is left can bear the load (N-1)", overloads, holds)
}

/// The rule that the stores hold the same.
pub fn converged(found: Result<String, Vec<String>>) -> Check {
    match found {
        Ok(found) => check("the stores hold the same", Vec::new(), found),
        Err(broken) => check("the stores hold the same", broken, ""),
    }
}

#[cfg(test)]
mod tests;
