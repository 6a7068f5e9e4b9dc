//! The agents without their shells on a network that a test commands: steps of 50 ms, no loss. What is lost, late and
//! repeated is the simulator's.

mod drill;

use std::collections::{BTreeMap, BTreeSet};

use daemun_fleet::view::State;

use super::*;
use crate::facts::Body;
use crate::health::Verdict;
use crate::orders::{About, Order, Verb};
use crate::pull::{Ask, Greeting};
use crate::tests::{address, config, text};

const NAMES: [&str; 3] = ["seoul", "frankfurt", "virginia"];
const STEP: Duration = Duration::from_millis(50);

/// Agents, doors, and what is broken.
struct Rig {
    cores: BTreeMap<&'static str, Core>,
    now: Duration,
    config: Arc<Config>,
    /// Datacenters whose door does not answer.
    dead: BTreeSet<&'static str>,
    /// Who does not see whom.
    blind: BTreeSet<(&'static str, &'static str)>,
    /// Agents that do not run.
    stopped: BTreeSet<&'static str>,
    /// Pairs whose link is cut.
    cut: BTreeSet<(&'static str, &'static str)>,
    /// Questions under way: asker, peer, question, when it came.
    held: Vec<(&'static str, &'static str, Ask, Duration)>,
}

impl Rig {
    fn new(names: &[&'static str], extra: &str) -> Self {
        let text = text(names)
            + "[sync.return]\nhold_down = \"10s\"\nramp_step = \"5s\"\ncatch_up = \"2s\"\n"
            + extra;
        let config = Arc::new(Config::parse("daemun.toml", &text).expect("the config is right"));
        let moment = Moment { now: Duration::ZERO, unix_ms: EPOCH_UNIX_MS };
        let core = |me: &&'static str| (*me, Core::new(me, Arc::clone(&config), Kept::default(), moment));
        let mut rig = Self {
            cores: names.iter().map(core).collect(),
            now: Duration::ZERO,
            config,
            dead: BTreeSet::new(),
            blind: BTreeSet::new(),
            stopped: BTreeSet::new(),
            cut: BTreeSet::new(),
            held: Vec::new(),
        };
        rig.run(5);
        rig
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, unix_ms: EPOCH_UNIX_MS + self.now.as_millis() as u64 }
    }

    /// Lets some seconds pass.
    fn run(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.now += STEP;
            self.step();
        }
    }

    /// Lets time pass until a condition holds, at most a minute; the seconds it took.
    fn run_until(&mut self, mut holds: impl FnMut(&Self) -> bool) -> f64 {
        let begun = self.now;
        while !holds(self) {
            assert!(self.now - begun < Duration::from_secs(60), "not within a minute");
            self.now += STEP;
            self.step();
        }
        (self.now - begun).as_secs_f64()
    }

    fn step(&mut self) {
        let moment = self.moment();
        let names: Vec<&'static str> = self.cores.keys().copied().collect();
        for &name in &names {
            if self.stopped.contains(name) {
                continue;
            }
            let core = self.cores.get_mut(name).unwrap();
            core.handle(moment, Input::Tick);
            for output in core.poll(moment) {
                match output {
                    Output::Probe { server, address } => {
                        let of = server.strip_prefix("door-").unwrap();
                        let fails = self.dead.contains(of) || self.blind.iter().any(|at| *at == (name, of));
                        let outcome = if fails { Err("refused".to_owned()) } else { Ok(()) };
                        core.handle(moment, Input::Probed { server, address, old: Duration::ZERO, outcome });
                    }
                    Output::Ask { peer, ask } => {
                        let peer = *names.iter().find(|known| **known == peer).unwrap();
                        self.held.push((name, peer, ask, self.now));
                    }
                }
            }
        }
        for (asker, peer, ask, at) in std::mem::take(&mut self.held) {
            let is_cut = self.cut.contains(&(asker, peer)) || self.cut.contains(&(peer, asker));
            if is_cut || self.stopped.contains(peer) || self.stopped.contains(asker) {
                continue;
            }
            let number = ask.number;
            let core = self.cores.get_mut(peer).unwrap();
            core.handle(moment, Input::Asked { peer: asker.to_owned(), after: ask.after.clone() });
            let found = core.answer(&ask.after);
            let found = if self.now >= at + ask.hold {
                found.or(Some(core.answer_anyway(&ask.after)))
            } else {
                found
            };
            let Some((batch, left)) = found else {
                self.held.push((asker, peer, ask, at));
                continue;
            };
            let greeting = Greeting {
                datacenter: peer.to_owned(),
                config_digest: core.config().digest.clone(),
                received_unix_ms: EPOCH_UNIX_MS + at.as_millis() as u64,
                sent_unix_ms: moment.unix_ms,
            };
            let input =
                Input::Answered { peer: peer.to_owned(), number, answer: Answer { greeting, batch, left } };
            self.cores.get_mut(asker).unwrap().handle(moment, input);
        }
    }

    /// Ends an agent's process; its door lives on.
    fn stop(&mut self, name: &'static str) {
        self.stopped.insert(name);
    }

    /// Starts it again, with or without its disk.
    fn start(&mut self, name: &'static str, with_disk: bool) {
        let kept = if with_disk { self.cores[name].kept(self.moment()) } else { Kept::default() };
        self.cores.insert(name, Core::new(name, Arc::clone(&self.config), kept, self.moment()));
        self.stopped.remove(name);
    }

    fn state(&self, by: &str, of: &str) -> State {
        self.cores[by].view().datacenters[of].state
    }

    fn all_say(&self, of: &str, state: State) -> bool {
        self.cores.keys().filter(|by| !self.stopped.contains(*by)).all(|by| self.state(by, of) == state)
    }

    /// Tells an agent an operator's word.
    fn tell(&mut self, agent: &str, about: About, verb: Verb, for_ms: Option<u64>) {
        let moment = self.moment();
        let core = self.cores.get_mut(agent).unwrap();
        let revision = core.timers().newest(&about).map_or(0, |order| order.revision) + 1;
        let order = Order {
            about,
            revision,
            verb,
            by: "ann".to_owned(),
            reason: String::new(),
            for_ms,
            told: agent.to_owned(),
            at_unix_ms: moment.unix_ms,
            break_glass: false,
        };
        core.handle(moment, Input::Order(order));
    }
}

fn datacenter(name: &str) -> About {
    About::Datacenter(name.to_owned())
}

#[test]
fn out_everywhere_in_seconds_and_back_by_calm_data_and_steps() {
    let mut rig = Rig::new(&NAMES, "");
    rig.dead.insert("frankfurt");
    let took = rig.run_until(|rig| rig.all_say("frankfurt", State::Down));
    assert!(took < 2.0, "{took}");
    rig.run(1);
    assert_eq!(rig.cores["seoul"].view(), rig.cores["frankfurt"].view(), "it is told, too");
    rig.dead.clear();
    rig.run(2);
    assert!(rig.all_say("frankfurt", State::CatchingUp));
    let mut steps = Vec::new();
    let begun = rig.now;
    let names = rig.run_until(|rig| {
        let state = rig.state("virginia", "frankfurt");
        if steps.last().is_none_or(|(_, last)| *last != state) {
            steps.push(((rig.now - begun).as_secs(), state));
        }
        state == State::Serving
    });
    let words: Vec<State> = steps.iter().map(|(_, state)| *state).collect();
    assert_eq!(
        words,
        [State::CatchingUp, State::Ramping(10), State::Ramping(25), State::Ramping(50), State::Serving],
        "{names}"
    );
    assert!((7..=9).contains(&steps[1].0) && (4..=6).contains(&(steps[2].0 - steps[1].0)), "{steps:?}");
    assert_eq!(rig.cores["seoul"].view(), rig.cores["virginia"].view());
}

#[test]
fn the_second_failure_in_an_hour_is_for_a_human() {
    let mut rig = Rig::new(&NAMES, "");
    for _ in 0..2 {
        rig.dead.insert("frankfurt");
        rig.run(5);
        rig.dead.clear();
        rig.run(50);
    }
    assert!(rig.all_say("frankfurt", State::CatchingUp));
    let why = &rig.cores["seoul"].view().datacenters["frankfurt"].why;
    assert!(why.contains("held for a human"), "{why}");
    rig.tell("frankfurt", datacenter("frankfurt"), Verb::Restore, None);
    rig.run(2);
    assert!(rig.all_say("frankfurt", State::Ramping(10)));
    rig.run(20);
    assert!(rig.all_say("frankfurt", State::Serving));
}

#[test]
fn a_cut_link_is_an_alarm_and_moves_nobody() {
    let mut rig = Rig::new(&NAMES, "");
    rig.cut.insert(("seoul", "frankfurt"));
    rig.run(10);
    assert!(NAMES.iter().all(|of| rig.all_say(of, State::Serving)));
    let view = rig.cores["virginia"].view();
    assert_eq!(view.datacenters["frankfurt"].cut_from, ["seoul"]);
    assert_eq!(view.datacenters["seoul"].cut_from, ["frankfurt"]);
    assert!(view.observers.values().all(|observer| observer.is_heard));
    rig.cut.clear();
    rig.run(5);
    assert!(rig.cores["virginia"].view().datacenters["frankfurt"].cut_from.is_empty());
}

/// Alone, one sees all others down; when the network is whole again nobody is held back for it.
#[test]
fn what_one_saw_alone_binds_nobody_afterwards() {
    let mut rig = Rig::new(&NAMES, "");
    rig.cut.extend([("seoul", "frankfurt"), ("seoul", "virginia")]);
    // Its own eyes see nobody either.
    rig.blind.extend([("seoul", "frankfurt"), ("seoul", "virginia")]);
    rig.run_until(|rig| rig.state("seoul", "virginia") == State::Down);
    rig.blind.clear();
    rig.cut.clear();
    rig.run_until(|rig| rig.cores["seoul"].view() == rig.cores["virginia"].view());
    for _ in 0..40 {
        rig.run(1);
        assert!(NAMES.iter().all(|of| rig.state("virginia", of) == State::Serving));
    }
    assert!(rig.all_say("virginia", State::Serving));
}

#[test]
fn a_word_holds_with_its_author_dead_and_ends_on_time() {
    let mut rig = Rig::new(&NAMES, "");
    rig.tell("seoul", datacenter("frankfurt"), Verb::Drain { over_ms: 0 }, Some(60_000));
    rig.run(1);
    rig.stop("seoul");
    rig.run(35);
    assert!(rig.all_say("frankfurt", State::Drained));
    rig.start("seoul", false);
    rig.run(20);
    assert!(rig.all_say("frankfurt", State::Drained), "an empty disk forgets nothing that others know");
    rig.run(6);
    assert!(rig.all_say("frankfurt", State::Ramping(10)), "planned: no calm is waited for");
    rig.run(16);
    assert!(rig.all_say("frankfurt", State::Serving));
}

#[test]
fn a_drain_over_time_goes_in_steps_and_back_from_where_it_was() {
    let mut rig = Rig::new(&NAMES, "");
    rig.tell("virginia", datacenter("seoul"), Verb::Drain { over_ms: 20_000 }, None);
    rig.run(1);
    assert!(rig.all_say("seoul", State::Draining(90)));
    rig.run(10);
    assert!(rig.all_say("seoul", State::Draining(40)));
    rig.tell("seoul", datacenter("seoul"), Verb::Restore, None);
    rig.run(1);
    assert!(rig.all_say("seoul", State::Ramping(40)));
    rig.run(5);
    assert!(rig.all_say("seoul", State::Ramping(50)));
}

/// Found by the simulator: a restart gave a drained datacenter its users back, for as long as the drain took again.
#[test]
fn a_drain_does_not_go_back_when_who_leads_it_restarts() {
    let mut rig = Rig::new(&["seoul", "frankfurt"], "");
    rig.tell("frankfurt", datacenter("seoul"), Verb::Drain { over_ms: 20_000 }, None);
    rig.run(11);
    assert_eq!(rig.state("frankfurt", "seoul"), State::Draining(40));
    rig.stop("seoul");
    rig.stop("frankfurt");
    rig.start("frankfurt", true);
    rig.run(1);
    assert_eq!(rig.state("frankfurt", "seoul"), State::Draining(40));
}

/// Found by the simulator: the end of a drain let in at once who had died meanwhile, as if a human had said so.
#[test]
fn the_end_of_a_drain_does_not_let_the_dead_back() {
    let mut rig = Rig::new(&NAMES, "");
    rig.tell("seoul", datacenter("frankfurt"), Verb::Drain { over_ms: 20_000 }, Some(10_000));
    rig.run(4);
    rig.dead.insert("frankfurt");
    rig.run(10);
    assert!(
        rig.all_say("frankfurt", State::Down)
            && rig.cores["seoul"].view().datacenters["frankfurt"].order.is_none()
    );
    rig.dead.clear();
    rig.run(8);
    assert!(rig.all_say("frankfurt", State::CatchingUp));
}

/// Found by the simulator: an agent that had lost its disk spoke before it had looked, its votes were gone, and one
/// whose eyes were bad decided alone.
#[test]
fn who_lost_its_disk_looks_before_it_speaks() {
    let mut rig = Rig::new(&NAMES, "");
    for _ in 0..8 {
        let moment = rig.moment();
        let outcome = Err("bad eyes".to_owned());
        let input = Input::Probed {
            server: "door-seoul".to_owned(),
            address: address("seoul"),
            old: Duration::ZERO,
            outcome,
        };
        rig.cores.get_mut("virginia").unwrap().handle(moment, input);
    }
    rig.blind.insert(("virginia", "seoul"));
    rig.run(1);
    assert!(rig.all_say("seoul", State::Serving), "one of two");
    rig.stop("frankfurt");
    rig.start("frankfurt", false);
    for _ in 0..100 {
        rig.now += STEP;
        rig.step();
        assert!(["seoul", "virginia"].iter().all(|by| rig.state(by, "seoul") == State::Serving));
    }
}

#[test]
fn paused_nothing_moves_by_itself() {
    let mut rig = Rig::new(&NAMES, "");
    let states: BTreeMap<String, State> = NAMES.map(|name| (name.to_owned(), State::Serving)).into();
    rig.tell("seoul", About::Fleet, Verb::Pause { states, down: Vec::new() }, Some(20_000));
    rig.dead.insert("frankfurt");
    rig.run(15);
    assert!(rig.all_say("frankfurt", State::Serving));
    rig.run(7);
    assert!(rig.all_say("frankfurt", State::Down), "the pause is over");
}

#[test]
fn a_prober_that_stalls_is_unknown_not_up() {
    let mut rig = Rig::new(&["seoul", "frankfurt"], "");
    let moment = |rig: &Rig, ms: u64| Moment { now: rig.now + Duration::from_millis(ms), unix_ms: 0 };
    // Probes are sent, none ends.
    for ms in (0..4000).step_by(100) {
        let at = moment(&rig, ms);
        let seoul = rig.cores.get_mut("seoul").unwrap();
        seoul.handle(at, Input::Tick);
        seoul.poll(at);
    }
    let (said, _) = rig.cores["seoul"].facts().vote("seoul", "door-frankfurt", address("frankfurt")).unwrap();
    assert_eq!(said, Verdict::Unknown);
    assert_eq!(rig.state("seoul", "frankfurt"), State::Serving, "that is no reason to move users");
}

#[test]
fn clocks_are_compared() {
    let rig = Rig::new(&NAMES, "");
    let links = rig.cores["seoul"].links();
    assert!(
        links.iter().all(|link| link.clock_ahead_ms.is_some_and(|ms| ms.abs() <= 60) && !link.is_clock_off)
    );
    assert!(links.iter().all(|link| link.has_heard_us && link.is_up));
}

/// Seoul's disk is lost and nobody can be asked; later all have the same facts and the same view.
#[test]
fn a_lost_disk_splits_nothing() {
    let mut rig = Rig::new(&NAMES, "");
    rig.stop("seoul");
    rig.run(5);
    rig.cut.extend([("seoul", "frankfurt"), ("seoul", "virginia")]);
    rig.start("seoul", false);
    rig.run(10);
    rig.cut.clear();
    rig.run(5);
    assert_eq!(rig.cores["seoul"].facts(), rig.cores["frankfurt"].facts());
    assert_eq!(rig.cores["seoul"].view(), rig.cores["virginia"].view());
    assert!(NAMES.iter().all(|of| rig.all_say(of, State::Serving)));
}

#[test]
fn all_agents_at_once_begin_from_the_last_good_view() {
    let mut rig = Rig::new(&NAMES, "");
    rig.dead.insert("frankfurt");
    rig.run(5);
    NAMES.iter().for_each(|name| rig.stop(name));
    rig.run(60);
    NAMES.iter().for_each(|name| rig.start(name, true));
    for _ in 0..400 {
        let states = NAMES.map(|of| rig.state("seoul", of));
        assert_eq!(states, [State::Serving, State::Down, State::Serving]);
        rig.now += STEP;
        rig.step();
    }
}

#[test]
fn a_clock_that_went_back_is_made_good_by_what_a_peer_knows() {
    let mut rig = Rig::new(&NAMES, "");
    let head = rig.cores["seoul"].facts().head("seoul");
    rig.stop("seoul");
    let long_ago = Moment { now: rig.now, unix_ms: EPOCH_UNIX_MS };
    let core = Core::new("seoul", Arc::clone(&rig.config), Kept::default(), long_ago);
    rig.cores.insert("seoul", core);
    rig.stopped.clear();
    rig.run(5);
    assert!(rig.cores["seoul"].facts().head("seoul") > head);
    assert_eq!(rig.cores["seoul"].facts(), rig.cores["virginia"].facts());
}

/// Found by the simulator: the clock had gone back, the agent crashed before its new life was on its disk, and the next one
/// used the same numbers.
#[test]
fn after_a_clock_that_went_back_two_lives_differ_whatever_the_disk_knows() {
    let config = Arc::new(config(&["seoul"]));
    let mut facts = Facts::default();
    facts.begin_life("seoul", 1_000_000, 0);
    let kept = Kept { batch: facts.after(&Frontier::default()), ..Kept::default() };
    let [first, second] = [0, 700].map(|ms| {
        let at = |now: u64| Moment { now: Duration::from_millis(now), unix_ms: EPOCH_UNIX_MS + ms };
        let mut core = Core::new("seoul", Arc::clone(&config), kept.clone(), at(0));
        core.handle(at(5000), Input::Tick);
        core.facts().head("seoul")
    });
    assert!(facts.head("seoul") < first && first < second, "{first} {second}");
}

/// Two agents under two configs must be done telling each other; who is not in mine has no say in my view.
#[test]
fn strangers_are_kept_but_have_no_say() {
    let mut rig = Rig::new(&NAMES, "");
    let hear = |rig: &mut Rig, facts: &Facts| {
        rig.run(1);
        let moment = rig.moment();
        let asked = rig.held.iter().rfind(|(asker, peer, ..)| (*asker, *peer) == ("seoul", "virginia"));
        let number = asked.map_or(0, |(_, _, ask, _)| ask.number);
        let greeting = Greeting {
            datacenter: "virginia".to_owned(),
            config_digest: String::new(),
            received_unix_ms: 0,
            sent_unix_ms: 0,
        };
        let batch = facts.after(&Frontier::default());
        let answer = Answer { greeting, batch, left: Vec::new() };
        let seoul = rig.cores.get_mut("seoul").unwrap();
        seoul.handle(moment, Input::Answered { peer: "virginia".to_owned(), number, answer });
    };
    let mut facts = Facts::default();
    let (peer, why) = ("virginia".to_owned(), String::new());
    facts.append("busan", 0, Body::Link { peer, is_up: false, heard: u64::MAX, why });
    let (server, why) = ("door-virginia".to_owned(), String::new());
    let vote =
        Body::Vote { server, address: address("virginia"), verdict: Verdict::Down, is_sure: true, why };
    facts.append("busan", 0, vote);
    hear(&mut rig, &facts);
    let seoul = &rig.cores["seoul"];
    assert!(seoul.facts().frontier().covers(&facts.frontier()));
    assert_eq!(rig.state("seoul", "virginia"), State::Serving);
    assert!(!seoul.view().datacenters.contains_key("busan"));
    let mut facts = Facts::default();
    (0..1000).for_each(|number| facts.append(&format!("x{number}"), 0, Body::Here));
    hear(&mut rig, &facts);
    assert_eq!(rig.cores["seoul"].facts().frontier().0.len(), AUTHORS_MAX);
}

/// A stopped process that goes on must not count its old votes, nor call the others silent.
#[test]
fn after_a_sleep_it_looks_again_before_it_speaks() {
    let mut rig = Rig::new(&NAMES, "");
    let before = rig.cores["seoul"].facts().head("seoul");
    let at = |ms: u64| Moment {
        now: Duration::from_secs(600) + Duration::from_millis(ms),
        unix_ms: EPOCH_UNIX_MS,
    };
    let seoul = rig.cores.get_mut("seoul").unwrap();
    for peer in ["frankfurt", "virginia"] {
        let why = "timed out".to_owned();
        seoul.handle(at(0), Input::Failed { peer: peer.to_owned(), number: 0, why });
    }
    assert!(!seoul.facts().is_called_silent("frankfurt"), "we slept, not they");
    assert_eq!(seoul.facts().head("seoul"), before);
    for ms in 0..3 {
        for of in NAMES {
            let (server, address) = (format!("door-{of}"), address(of));
            seoul.handle(at(ms), Input::Probed { server, address, old: Duration::ZERO, outcome: Ok(()) });
        }
    }
    assert_eq!(seoul.facts().head("seoul"), before, "whether the others are there is not known yet");
    for output in seoul.poll(at(3)) {
        let Output::Ask { peer, ask } = output else { continue };
        let greeting = Greeting {
            datacenter: peer.clone(),
            config_digest: String::new(),
            received_unix_ms: 0,
            sent_unix_ms: 0,
        };
        let answer = Answer { greeting, batch: Batch::default(), left: Vec::new() };
        seoul.handle(at(3), Input::Answered { peer, number: ask.number, answer });
    }
    seoul.handle(at(200), Input::Tick);
    assert!(seoul.facts().head("seoul") > before, "a new life, with what it sees now");
}

/// Found by the simulator: an agent that began again did not know yet that a third was silent, and until it did the old
/// votes of the third let back who was dead.
#[test]
fn who_begins_again_gives_no_silent_one_a_say() {
    let mut rig = Rig::new(&NAMES, "");
    rig.dead.extend(["frankfurt", "virginia"]);
    rig.stop("virginia");
    rig.run(8);
    assert!(rig.all_say("frankfurt", State::Down));
    rig.stop("frankfurt");
    rig.start("frankfurt", false);
    for _ in 0..200 {
        rig.now += STEP;
        rig.step();
        assert_eq!(rig.state("seoul", "frankfurt"), State::Down, "{:?}", rig.now);
    }
}

/// Found by the simulator: an answer that lay in a buffer while the process was stopped brought back a word that was over,
/// when nobody else knew of its end any more.
#[test]
fn what_was_answered_long_ago_is_not_heard() {
    let mut rig = Rig::new(&["seoul", "frankfurt"], "");
    let (_, _, ask, _) = rig.held.iter().find(|(asker, ..)| *asker == "seoul").cloned().unwrap();
    rig.tell("frankfurt", datacenter("seoul"), Verb::Drain { over_ms: 0 }, Some(1000));
    let frankfurt = &rig.cores["frankfurt"];
    let (batch, left) = frankfurt.answer_anyway(&ask.after);
    let greeting = Greeting {
        datacenter: "frankfurt".to_owned(),
        config_digest: String::new(),
        received_unix_ms: 0,
        sent_unix_ms: 0,
    };
    let answer = Answer { greeting, batch, left };
    let later = Moment { now: rig.now + Duration::from_secs(100), unix_ms: EPOCH_UNIX_MS };
    let input = Input::Answered { peer: "frankfurt".to_owned(), number: ask.number, answer };
    let seoul = rig.cores.get_mut("seoul").unwrap();
    seoul.handle(later, input);
    assert!(seoul.view().datacenters["seoul"].order.is_none());
}

/// A peer behind a broken link, once refuted by way of a third, must be called silent again when the third is lost too.
#[test]
fn with_each_way_that_is_lost_silence_is_claimed_again() {
    let mut rig = Rig::new(&NAMES, "");
    rig.cut.insert(("seoul", "virginia"));
    rig.run(6);
    assert!(!rig.cores["seoul"].facts().is_called_silent("virginia"), "refuted by way of frankfurt");
    rig.cut.insert(("seoul", "frankfurt"));
    rig.run(6);
    let facts = rig.cores["seoul"].facts();
    assert!(facts.is_called_silent("frankfurt") && facts.is_called_silent("virginia"));
}

#[test]
fn a_new_config_keeps_what_is_known() {
    let mut rig = Rig::new(&NAMES, "");
    let moment = rig.moment();
    let seoul = rig.cores.get_mut("seoul").unwrap();
    let fewer = Arc::new(config(&["seoul", "virginia"]));
    assert!(seoul.set_config(fewer, moment));
    assert_eq!(seoul.view().datacenters.len(), 2);
    assert!(seoul.view().servers["door-virginia"].why.starts_with("seen by"));
    assert_eq!(seoul.links().len(), 1);
}

/// What was found: an agent that had lost its disk let in at once who had just been out, as nobody else remembered.
#[test]
fn who_lost_its_disk_is_told_by_the_others_whom_it_held_back() {
    let mut rig = Rig::new(&["seoul", "frankfurt"], "");
    rig.dead.insert("frankfurt");
    rig.run(6);
    rig.dead.clear();
    rig.run(2);
    assert!(rig.all_say("frankfurt", State::CatchingUp));
    rig.stop("seoul");
    rig.run(1);
    rig.start("seoul", false);
    for _ in 0..160 {
        rig.now += STEP;
        rig.step();
        assert_ne!(rig.state("frankfurt", "frankfurt"), State::Serving, "{:?}", rig.now);
    }
    rig.run(30);
    assert!(rig.all_say("frankfurt", State::Serving));
}

/// What was found: an old memory of "never was out" outvoted who was just coming back.
#[test]
fn an_old_memory_lifts_nobodys_hold() {
    let mut rig = Rig::new(&NAMES, "");
    rig.stop("virginia");
    rig.run(6);
    rig.dead.insert("frankfurt");
    rig.run(6);
    rig.dead.clear();
    rig.run(2);
    assert_eq!(rig.state("seoul", "frankfurt"), State::CatchingUp);
    rig.start("virginia", true);
    for _ in 0..120 {
        rig.now += STEP;
        rig.step();
        assert_ne!(rig.state("seoul", "frankfurt"), State::Serving, "{:?}", rig.now);
    }
    rig.run(40);
    assert!(rig.all_say("frankfurt", State::Serving));
}

/// What was found: when a pin to service ended, users who were well served were taken away.
#[test]
fn the_end_of_a_pin_to_service_moves_nobody() {
    let mut rig = Rig::new(&NAMES, "");
    rig.dead.insert("frankfurt");
    rig.run(4);
    rig.dead.clear();
    rig.run(1);
    rig.tell("seoul", datacenter("frankfurt"), Verb::Pin { state: State::Serving }, Some(3000));
    rig.run(1);
    for _ in 0..120 {
        rig.now += STEP;
        rig.step();
        assert!(rig.all_say("frankfurt", State::Serving), "{:?}", rig.now);
    }
}
