//! What an operator's word would do, and the rules that it must keep. Pure: a word is planned on the facts, and the same
//! word is then carried out.
//!
//! The rules bind what is voluntary: enough datacenters keep serving, one at a time, and who is left can bear the load.
//! `--break-glass` overrides them, and is written down with the word.

use std::sync::Arc;

use daemun_fleet::FleetView;
use daemun_fleet::placement::Load;
use daemun_fleet::view::State;
use serde::{Deserialize, Serialize};

use crate::core::{Core, Moment};
use crate::facts::Body;
use crate::orders::{About, Order, Verb};

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// What is to be done.
    pub what: What,
    /// About which datacenter; none for `pause` and `resume`.
    #[serde(default)]
    pub datacenter: Option<String>,
    /// Who says so.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// For how long, milliseconds; none: as is usual for it, see [`What::usual_ms`].
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Refuse if the view's generation is another.
    #[serde(default)]
    pub expect_generation: Option<u64>,
    /// Say what it would do, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Override the safety rules.
    #[serde(default)]
    pub break_glass: bool,
}

/// The verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Move a datacenter's users away over some time, milliseconds.
    Drain {
        /// 0: at once.
        over_ms: u64,
    },
    /// Let it back.
    Restore,
    /// Keep it as it is, or in another state.
    Pin {
        /// The state; none: as it is now.
        state: Option<State>,
    },
    /// It will not return.
    Forget,
    /// Automation off.
    Pause,
    /// Automation on.
    Resume,
}

impl What {
    /// How long it holds when nobody says: a pin for a day, a pause for an hour, so that neither is forgotten; a drain until
    /// it is taken back.
    pub fn usual_ms(self) -> Option<u64> {
        const HOUR_MS: u64 = 3_600_000;
        match self {
            What::Pin { .. } => Some(24 * HOUR_MS),
            What::Pause => Some(HOUR_MS),
            What::Drain { .. } | What::Restore | What::Forget | What::Resume => None,
        }
    }
}

/// What a word would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The word.
    pub order: Order,
    /// The view now.
    pub before: Arc<FleetView>,
    /// The view in the end.
    pub after: FleetView,
    /// Rules that it breaks, by what is known without loads: see [`overloads`].
    pub broken: Vec<String>,
}

/// What is wrong with a word itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// There is no such datacenter.
    #[error("there is no datacenter `{name}`; the datacenters are {all}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        all: String,
    },
    /// A datacenter is missing, or one too many.
    #[error("`{verb}` is {}", if *.wants { "about a datacenter: name it" } else { "about the whole fleet: it takes no datacenter" })]
    About {
        /// The verb.
        verb: &'static str,
        /// It should name one.
        wants: bool,
    },
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
    /// Who says so is not said.
    #[error(
        "it must be said who says so (`by`), in at most 100 characters, and why (`reason`) in at most 500"
    )]
    NotSigned,
}

/// Plans a word.
///
/// # Errors
/// What is wrong with it; rules that it breaks are in the plan.
pub fn plan(core: &Core, told: &Told, moment: Moment) -> Result<Plan, Wrong> {
    let before = Arc::clone(core.view());
    if let Some(expected) = told.expect_generation.filter(|expected| *expected != before.generation) {
        return Err(Wrong::Changed { expected, found: before.generation });
    }
    if told.by.trim().is_empty() || told.by.chars().count() > 100 || told.reason.chars().count() > 500 {
        return Err(Wrong::NotSigned);
    }
    let verb = verb(core, told, &before);
    let about = about(core, told, verb.name())?;
    let revision = core.timers().newest(&about).map_or(0, |order| order.revision) + 1;
    let order = Order {
        about,
        revision,
        verb,
        by: told.by.trim().to_owned(),
        reason: told.reason.trim().to_owned(),
        for_ms: told.for_ms.or(told.what.usual_ms()),
        told: core.me().to_owned(),
        at_unix_ms: moment.unix_ms,
        break_glass: told.break_glass,
    };
    let after = outcome(core, &order);
    let broken = broken(core, &order, &before, &after);
    Ok(Plan { order, before, after, broken })
}

fn about(core: &Core, told: &Told, verb: &'static str) -> Result<About, Wrong> {
    let wants = !matches!(told.what, What::Pause | What::Resume);
    match &told.datacenter {
        Some(name) if wants => {
            let fleet = &core.config().fleet;
            let all = || fleet.datacenters.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
            match fleet.datacenter(name) {
                Some(_) => Ok(About::Datacenter(name.clone())),
                None => Err(Wrong::Unknown { name: daemun_fleet::shorten(name), all: all() }),
            }
        }
        None if !wants => Ok(About::Fleet),
        Some(_) | None => Err(Wrong::About { verb, wants }),
    }
}

fn verb(core: &Core, told: &Told, before: &FleetView) -> Verb {
    let now = || {
        let view = told.datacenter.as_ref().and_then(|name| before.datacenters.get(name));
        view.map_or(State::Serving, |view| view.state)
    };
    match told.what {
        What::Drain { over_ms } => Verb::Drain { over_ms },
        What::Restore => Verb::Restore,
        What::Pin { state } => Verb::Pin { state: state.unwrap_or_else(now) },
        What::Forget => Verb::Forget,
        What::Pause => Verb::Pause {
            states: before.datacenters.iter().map(|(name, view)| (name.clone(), view.state)).collect(),
            down: core.addresses_down(),
        },
        What::Resume => Verb::Resume,
    }
}

/// The view when all that follows from a word has come about.
fn outcome(core: &Core, order: &Order) -> FleetView {
    let mut facts = core.facts().clone();
    facts.append(core.me(), order.at_unix_ms, Body::Order(order.clone()));
    if let (About::Datacenter(datacenter), Verb::Drain { .. }) = (&order.about, &order.verb) {
        let (datacenter, revision) = (datacenter.clone(), order.revision);
        facts.append(core.me(), order.at_unix_ms, Body::Drained { datacenter, revision, percent: None });
    }
    let mut after = (core.fold())(core.config(), &facts).view;
    if let (About::Datacenter(name), Verb::Restore) = (&order.about, &order.verb)
        && let Some(view) = after.datacenters.get_mut(name)
        && view.state != State::Down
    {
        view.state = State::Serving;
    }
    after
}

/// Which rules a word breaks, but for those that need loads.
fn broken(core: &Core, order: &Order, before: &FleetView, after: &FleetView) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(drill) = &before.drill {
        broken
            .push(format!("the drill {} is under way: wait for its end, or `daemun drill abort`", drill.id));
    }
    let About::Datacenter(name) = &order.about else { return broken };
    let state = |view: &FleetView, name: &str| view.datacenters.get(name).map_or(State::Serving, |d| d.state);
    let (was, is) = (state(before, name), state(after, name));
    let serves = |state: State| matches!(state, State::Serving);
    let has_users = |state: State| matches!(state, State::Serving | State::Ramping(_) | State::Draining(1..));
    if order.verb == Verb::Restore && before.paused.is_some() {
        broken.push("automation is off, and nothing comes back by itself: `daemun resume` first".to_owned());
    }
    if has_users(was) && !has_users(is) {
        let serving = after.datacenters.values().filter(|view| serves(view.state)).count();
        let minimum = core.config().sync.minimum_serving;
        if serving < minimum {
            let left = format!("{serving} of {} would be left serving", after.datacenters.len());
            broken.push(format!("{left}; `sync.minimum_serving` is {minimum}"));
        }
        let others = before.datacenters.iter().filter(|(other, view)| *other != name && !serves(view.state));
        let others: Vec<String> = others
            .filter(|(_, view)| !view.is_forgotten)
            .map(|(other, view)| format!("{other} is {}", view.state))
            .collect();
        if !others.is_empty() {
            broken.push(format!("one at a time: {}", others.join(", ")));
        }
    }
    if let Verb::Pin { state: State::Serving | State::Ramping(_) } = order.verb
        && was == State::Down
    {
        let why = before.datacenters.get(name).map_or("", |view| view.why.as_str());
        broken.push(format!("{name} would get users while it is down: {why}"));
    }
    if order.verb == Verb::Forget && !matches!(was, State::Down | State::Drained) {
        broken.push(format!("{name} is {was}: only what is down or drained can be forgotten"));
    }
    broken
}

/// Which datacenters a word would give more than they can serve, and more than they have now.
pub fn overloads(before: &[Load], after: &[Load]) -> Vec<String> {
    let over = |(before, after): (&Load, &Load)| {
        let capacity = after.capacity_rps?;
        let load = after.asked_rps;
        (load > capacity && load > before.asked_rps).then(|| {
            format!(
                "{} would be asked for {load} requests a second and can serve {capacity}",
                after.datacenter
            )
        })
    };
    before.iter().zip(after).filter_map(over).collect()
}

/// Whether the fleet is still as it was when a word was planned.
pub fn is_current(core: &Core, plan: &Plan) -> bool {
    let (now, then) = (core.view(), &plan.before);
    let newest = core.timers().newest(&plan.order.about).map_or(0, |order| order.revision);
    let states = |view: &FleetView| -> Vec<State> { view.datacenters.values().map(|d| d.state).collect() };
    newest < plan.order.revision && states(now) == states(then)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use daemun_fleet::Config;

    use super::*;
    use crate::core::{Input, Kept};

    const START: Moment = Moment { now: Duration::ZERO, unix_ms: 5 };
    /// It has looked for long enough to speak.
    const MOMENT: Moment = Moment { now: Duration::from_secs(6), unix_ms: 6005 };

    fn core(names: &[&str]) -> Core {
        let config = Config::parse("daemun.toml", &crate::tests::text(names)).expect("the config is right");
        let mut core = Core::new(names[0], Arc::new(config), Kept::default(), START);
        core.handle(MOMENT, Input::Tick);
        core
    }

    fn told(what: What, datacenter: Option<&str>) -> Told {
        Told {
            what,
            datacenter: datacenter.map(ToOwned::to_owned),
            by: "ann".to_owned(),
            reason: String::new(),
            for_ms: None,
            expect_generation: None,
            dry_run: false,
            break_glass: false,
        }
    }

    fn carry_out(core: &mut Core, told: &Told) -> Plan {
        let plan = plan(core, told, MOMENT).expect("it is right");
        core.handle(MOMENT, Input::Order(plan.order.clone()));
        plan
    }

    const DRAIN: What = What::Drain { over_ms: 0 };

    #[test]
    fn a_drain_leaves_enough_and_is_one_at_a_time() {
        let mut core = core(&["seoul", "frankfurt", "virginia"]);
        let first = carry_out(&mut core, &told(DRAIN, Some("frankfurt")));
        assert!(first.broken.is_empty(), "{:?}", first.broken);
        assert_eq!(first.after.datacenters["frankfurt"].state, State::Drained);
        assert_eq!(core.view().datacenters["frankfurt"].state, State::Drained, "no answers are kept");
        let second = plan(&core, &told(DRAIN, Some("virginia")), MOMENT).unwrap();
        assert!(
            second.broken[0].contains("1 of 3 would be left") && second.broken[1].contains("one at a time")
        );
        let back = carry_out(&mut core, &told(What::Restore, Some("frankfurt")));
        assert_eq!((back.order.revision, back.broken.len()), (2, 0));
        assert_eq!(back.after.datacenters["frankfurt"].state, State::Serving);
    }

    #[test]
    fn of_two_one_can_be_drained_and_of_one_none() {
        let two = core(&["seoul", "frankfurt"]);
        assert!(plan(&two, &told(DRAIN, Some("seoul")), MOMENT).unwrap().broken.is_empty());
        let one = core(&["seoul"]);
        assert!(!plan(&one, &told(DRAIN, Some("seoul")), MOMENT).unwrap().broken.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_done() {
        let core = core(&["seoul", "frankfurt"]);
        let wrong = |told: &Told| plan(&core, told, MOMENT).unwrap_err().to_string();
        let unknown = wrong(&told(DRAIN, Some("busan")));
        assert_eq!(unknown, "there is no datacenter `busan`; the datacenters are seoul, frankfurt");
        assert!(wrong(&told(DRAIN, None)).contains("name it"));
        assert!(wrong(&told(What::Pause, Some("seoul"))).contains("takes no datacenter"));
        let changed = Told { expect_generation: Some(7), ..told(DRAIN, Some("seoul")) };
        assert!(wrong(&changed).contains("not 7 as expected"));
        assert!(wrong(&Told { by: " ".to_owned(), ..told(DRAIN, Some("seoul")) }).contains("who says so"));
    }

    #[test]
    fn a_plan_that_was_overtaken_is_not_carried_out() {
        let mut core = core(&["seoul", "frankfurt", "virginia"]);
        let early = plan(&core, &told(DRAIN, Some("frankfurt")), MOMENT).unwrap();
        assert!(is_current(&core, &early));
        carry_out(&mut core, &told(DRAIN, Some("virginia")));
        assert!(!is_current(&core, &early));
    }

    #[test]
    fn only_what_is_out_can_be_forgotten_and_what_is_down_gets_no_users_by_a_pin() {
        let mut core = core(&["seoul", "frankfurt"]);
        let forget = told(What::Forget, Some("frankfurt"));
        assert!(plan(&core, &forget, MOMENT).unwrap().broken[0].contains("only what is down or drained"));
        carry_out(&mut core, &told(What::Pin { state: Some(State::Down) }, Some("frankfurt")));
        assert!(plan(&core, &forget, MOMENT).unwrap().broken.is_empty());
        let pin = told(What::Pin { state: Some(State::Serving) }, Some("frankfurt"));
        assert!(plan(&core, &pin, MOMENT).unwrap().broken[0].contains("while it is down"));
        let usual = plan(&core, &told(What::Pause, None), MOMENT).unwrap();
        assert_eq!(usual.order.for_ms, Some(3_600_000));
    }

    #[test]
    fn overloads_are_those_that_the_word_makes() {
        let load = |asked_rps| Load {
            datacenter: "seoul".to_owned(),
            asked_rps,
            expected_rps: 0,
            capacity_rps: Some(100),
            kept_percent: 100,
        };
        assert_eq!(overloads(&[load(90)], &[load(130)]).len(), 1);
        assert!(overloads(&[load(130)], &[load(130)]).is_empty(), "it was so before");
        assert!(overloads(&[load(10)], &[load(100)]).is_empty());
    }
}
