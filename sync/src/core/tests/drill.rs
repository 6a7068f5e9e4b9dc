//! How a drill goes from agent to agent. That it goes well whatever else goes wrong is the simulator's.

use daemun_fleet::drill::{DrillView, Fault, Objectives, Scenario, Step, Target, builtin};

use super::*;
use crate::core::drill::{ARMING, MARGIN};
use crate::drill::plan::{self, Asked};
use crate::drill::report::Ended;
use crate::drill::word::Stage;

fn scenario(target: &str, steps: &[(Fault, u64)]) -> Scenario {
    let usual = builtin("blackhole", Objectives { rto_ms: 5_000, rpo: 0 }).unwrap();
    let step = |(fault, seconds): &(Fault, u64)| Step { faults: vec![*fault], hold_ms: seconds * 1000 };
    Scenario {
        name: "test".to_owned(),
        target: Some(Target::Datacenter(target.to_owned())),
        steps: steps.iter().map(step).collect(),
        baseline_ms: 1_000,
        ..usual
    }
}

const DRAIN: Fault = Fault::Drain { share: 50 };
const DEAD: Fault = Fault::Blackhole { share: 100 };

impl Rig {
    /// Has a drill begun, whatever the rules say; its id.
    fn drill(&mut self, agent: &str, target: &str, steps: &[(Fault, u64)]) -> String {
        let asked = Asked {
            scenario: scenario(target, steps),
            by: "ann".to_owned(),
            reason: String::new(),
            expect_generation: None,
            dry_run: false,
            break_glass: true,
        };
        let moment = self.moment();
        let core = self.cores.get_mut(agent).unwrap();
        let plan = plan::plan(core, &asked, moment).unwrap();
        core.handle(moment, Input::Order(plan.arming()));
        plan.word.id
    }

    fn abort(&mut self, agent: &str, id: &str) {
        let moment = self.moment();
        let core = self.cores.get_mut(agent).unwrap();
        let order = core.drill_ended(id, Ended::Aborted, "ann has said so").unwrap();
        core.handle(moment, Input::Order(order));
    }

    fn shown(&self, by: &str) -> Option<&DrillView> {
        self.cores[by].view().drill.as_ref()
    }

    fn step_at(&self, by: &str) -> Option<u32> {
        self.shown(by)?.step
    }

    fn ended(&self, by: &str) -> Option<Ended> {
        Some(self.cores[by].drill()?.1.stage.outcome()?.ended)
    }

    fn all_have_ended(&self, how: Ended) -> bool {
        let running = self.cores.keys().filter(|by| !self.stopped.contains(*by));
        running.into_iter().all(|by| self.ended(by) == Some(how) && self.shown(by).is_none())
    }
}

#[test]
fn nothing_fails_before_all_have_armed_their_timers() {
    let mut rig = Rig::new(&NAMES, "");
    rig.cut.extend([("virginia", "seoul"), ("virginia", "frankfurt")]);
    rig.drill("seoul", "frankfurt", &[(DRAIN, 5)]);
    rig.run(1);
    assert!(rig.shown("frankfurt").is_some() && rig.shown("virginia").is_none());
    assert_eq!((rig.step_at("seoul"), rig.step_at("frankfurt")), (None, None));
    rig.cut.clear();
    let took = rig.run_until(|rig| rig.step_at("seoul") == Some(0));
    assert!(rig.shown("virginia").is_some() && took >= 1.0, "all is watched for a second: {took}");
}

#[test]
fn who_never_arms_its_timer_ends_the_drill() {
    let mut rig = Rig::new(&NAMES, "");
    rig.tell("seoul", datacenter("virginia"), Verb::Forget, None);
    rig.run(1);
    rig.stop("virginia");
    let id = rig.drill("seoul", "frankfurt", &[(DRAIN, 5)]);
    rig.tell("seoul", datacenter("virginia"), Verb::Restore, None);
    let took = rig.run_until(|rig| rig.all_have_ended(Ended::Aborted));
    assert!(took <= (ARMING + STEP * 2).as_secs_f64(), "{took}");
    assert_eq!(rig.cores["seoul"].drill_left_of(&id, rig.now), Duration::ZERO);
    assert!(
        rig.cores["seoul"].timers().newest(&datacenter("frankfurt")).is_none(),
        "nobody was made to fail"
    );
}

#[test]
fn steps_follow_each_other_and_the_target_is_let_back() {
    let mut rig = Rig::new(&NAMES, "");
    rig.drill("frankfurt", "frankfurt", &[(DRAIN, 3), (Fault::Drain { share: 100 }, 4)]);
    assert_eq!(rig.cores["frankfurt"].drill().unwrap().1.conductor, "seoul", "it is itself what fails");
    rig.run_until(|rig| rig.all_say("frankfurt", State::Draining(50)));
    let begun = rig.now;
    let took = rig.run_until(|rig| rig.step_at("virginia") == Some(1));
    assert!((2.9..=3.1).contains(&took), "{took}");
    rig.run(1);
    assert!(rig.all_say("frankfurt", State::Draining(0)));
    rig.run_until(|rig| rig.all_have_ended(Ended::Done));
    assert!((rig.now - begun).as_secs_f64() <= 7.2);
    let word = rig.cores["virginia"].timers().newest(&datacenter("frankfurt")).unwrap();
    assert_eq!((&word.verb, word.revision), (&Verb::Restore, 1));
    rig.run(20);
    assert!(rig.all_say("frankfurt", State::Serving), "no calm is waited for");
}

#[test]
fn a_leader_that_falls_silent_is_not_waited_for() {
    let mut rig = Rig::new(&NAMES, "");
    rig.drill("seoul", "frankfurt", &[(DRAIN, 60)]);
    rig.run_until(|rig| rig.step_at("frankfurt") == Some(0));
    rig.stop("seoul");
    let took = rig.run_until(|rig| rig.all_have_ended(Ended::Aborted));
    assert!(took < 6.0, "{took}");
    rig.start("seoul", true);
    rig.run(8);
    assert!(rig.all_have_ended(Ended::Aborted), "what it knew is over");
}

#[test]
fn a_leader_that_begins_again_in_the_middle_ends_it() {
    let mut rig = Rig::new(&NAMES, "");
    rig.drill("seoul", "frankfurt", &[(DRAIN, 60)]);
    rig.run_until(|rig| rig.step_at("seoul") == Some(0));
    rig.start("seoul", true);
    let took = rig.run_until(|rig| rig.all_have_ended(Ended::Aborted));
    assert!(took < 3.0, "{took}");
}

/// Each alone, all of them end it at the same time: when its time is over that was set before anything failed.
#[test]
fn it_expires_where_nobody_says_so() {
    let mut rig = Rig::new(&["seoul", "frankfurt"], "");
    let begun = rig.now;
    let id = rig.drill("seoul", "frankfurt", &[(Fault::AgentDead, 5)]);
    rig.run_until(|rig| rig.step_at("frankfurt") == Some(0));
    // As a drill silences it: its process goes on looking at its timer.
    rig.stop("frankfurt");
    rig.run_until(|rig| rig.ended("seoul") == Some(Ended::Done));
    let bound = ARMING + MARGIN + Duration::from_secs(6);
    let left = |rig: &Rig, at| rig.cores["frankfurt"].drill_left_of(&id, begun + at);
    assert!(left(&rig, bound - STEP) > Duration::ZERO, "it does not know");
    assert_eq!(left(&rig, bound + STEP), Duration::ZERO);
    assert_eq!(rig.cores["frankfurt"].drill_left_of("another", begun), Duration::ZERO);
}

#[test]
fn an_end_beats_a_step_that_is_under_way() {
    let mut rig = Rig::new(&NAMES, "");
    let id = rig.drill("seoul", "frankfurt", &[(DRAIN, 3), (DRAIN, 60)]);
    rig.run_until(|rig| rig.step_at("virginia") == Some(0));
    rig.cut.insert(("seoul", "virginia"));
    rig.cut.insert(("seoul", "frankfurt"));
    rig.abort("virginia", &id);
    rig.run(1);
    assert_eq!((rig.ended("frankfurt"), rig.ended("seoul")), (Some(Ended::Aborted), None));
    rig.run_until(|rig| rig.step_at("seoul") != Some(0));
    rig.cut.clear();
    rig.run_until(|rig| rig.all_have_ended(Ended::Aborted));
    let (_, word) = rig.cores["frankfurt"].drill().unwrap();
    assert!(matches!(&word.stage, Stage::Ended(_)));
}

#[test]
fn of_two_drills_at_once_all_take_the_same() {
    let mut rig = Rig::new(&NAMES, "");
    rig.drill("seoul", "frankfurt", &[(DRAIN, 4)]);
    let id = rig.drill("virginia", "seoul", &[(DRAIN, 4)]);
    rig.run(1);
    for name in NAMES {
        assert_eq!(rig.shown(name).unwrap().id, id);
    }
    rig.run_until(|rig| rig.all_say("seoul", State::Draining(50)));
    rig.run_until(|rig| rig.all_have_ended(Ended::Done));
    assert!(rig.all_say("frankfurt", State::Serving));
    assert!(
        rig.cores["seoul"].timers().newest(&datacenter("frankfurt")).is_none(),
        "it never was made to fail"
    );
}

/// Nobody let the target of the earlier drill back, as the newest word alone was looked at.
#[test]
fn a_drill_that_another_holds_over_lets_its_target_back() {
    let mut rig = Rig::new(&NAMES, "");
    rig.drill("seoul", "frankfurt", &[(DEAD, 60)]);
    rig.run_until(|rig| rig.step_at("seoul") == Some(0));
    rig.dead.insert("frankfurt");
    rig.run_until(|rig| rig.all_say("frankfurt", State::Down));
    rig.dead.clear();
    rig.drill("seoul", "virginia", &[(DRAIN, 4)]);
    rig.run(1);
    let word = rig.cores["virginia"].timers().newest(&datacenter("frankfurt")).unwrap();
    assert_eq!(word.verb, Verb::Restore);
    rig.run(4);
    assert!(rig.all_say("frankfurt", State::Ramping(10)), "no calm is waited for");
}

/// Found by the simulator: a drill that ended because its target had died by itself let the dead back at once.
#[test]
fn who_dies_before_anything_was_made_to_fail_waits_for_calm() {
    let mut rig = Rig::new(&NAMES, "");
    rig.dead.insert("frankfurt");
    rig.run(1);
    rig.drill("seoul", "frankfurt", &[(DEAD, 60)]);
    rig.run_until(|rig| rig.all_have_ended(Ended::Aborted));
    assert!(rig.all_say("frankfurt", State::Down));
    rig.dead.clear();
    rig.run(6);
    assert!(rig.all_say("frankfurt", State::CatchingUp));
}

/// Wall clocks differ: what was said after the drill began is told by its revision.
#[test]
fn an_operators_word_from_before_is_no_reason_to_keep_the_target_out() {
    let mut rig = Rig::new(&NAMES, "");
    let moment = rig.moment();
    let ahead = Moment { unix_ms: moment.unix_ms + 86_400_000, ..moment };
    let order = Order {
        about: datacenter("frankfurt"),
        revision: 1,
        verb: Verb::Restore,
        by: "ann".to_owned(),
        reason: String::new(),
        for_ms: None,
        told: "virginia".to_owned(),
        at_unix_ms: ahead.unix_ms,
        break_glass: false,
    };
    rig.cores.get_mut("virginia").unwrap().handle(moment, Input::Order(order));
    rig.run(1);
    let id = rig.drill("seoul", "frankfurt", &[(DEAD, 60)]);
    rig.run_until(|rig| rig.step_at("virginia") == Some(0));
    rig.abort("seoul", &id);
    rig.run(1);
    let word = |rig: &Rig| rig.cores["virginia"].timers().newest(&datacenter("frankfurt")).unwrap().clone();
    assert_eq!((word(&rig).revision, word(&rig).by), (2, format!("drill {id}")));
    rig.tell("seoul", datacenter("frankfurt"), Verb::Drain { over_ms: 0 }, Some(1_000));
    rig.run(3);
    assert_eq!(
        (word(&rig).revision, word(&rig).verb),
        (4, Verb::Expired),
        "somebody has said something else since"
    );
}
