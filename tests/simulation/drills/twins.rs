//! A broken twin for each checker of drills, which it must catch.

use daemun_fleet::Config;
use daemun_fleet::view::State;
use daemun_sync::facts::Facts;
use daemun_sync::judge::{Judgement, judge};

use super::checkers::abort_obeyed::AbortObeyed;
use super::checkers::all_back::AllBack;
use super::checkers::armed_first::ArmedFirst;
use super::checkers::on_time::OnTime;
use super::checkers::one_at_a_time::OneAtATime;
use super::story::{Kind, story};
use super::truth::Broken;
use crate::checkers::Checker;
use crate::world::World;

/// So many stories are enough to catch any of them.
const SEEDS_MAX: u64 = 100;

/// Whether a checker finds the twin of this kind in any story.
#[track_caller]
fn caught<C: Checker + 'static>(kind: Kind, checker: impl Fn() -> C) {
    let finds = |seed: &u64| {
        let (plan, long) = story(*seed, kind);
        let mut world = World::new(plan, vec![Box::new(checker())]);
        world.run(long);
        world.violation.inspect(|violation| println!("{}", violation.what)).is_some()
    };
    let seed = (0..SEEDS_MAX).find(finds);
    println!("caught by seed {seed:?}");
    assert!(seed.is_some(), "it is not caught within {SEEDS_MAX} stories");
}

fn broken(broken: Broken) -> Kind {
    Kind { broken, ..Kind::default() }
}

#[test]
fn a_process_ignores_its_own_timer() {
    caught(broken(Broken::Timer), || OnTime);
}

#[test]
fn a_killed_process_is_not_started_again() {
    caught(broken(Broken::Guard), || OnTime);
}

#[test]
fn a_drill_begins_before_all_have_a_timer() {
    caught(broken(Broken::Arming), ArmedFirst::default);
}

#[test]
fn two_drills_begin_at_once() {
    caught(broken(Broken::Arming), OneAtATime::default);
}

#[test]
fn a_process_ignores_the_end() {
    caught(broken(Broken::End), AbortObeyed::default);
}

#[test]
fn a_target_is_never_let_back() {
    /// Who was out once is not given all its users again.
    fn keeps_out(config: &Config, facts: &Facts) -> Judgement {
        let mut judgement = judge(config, facts);
        let returns = &judgement.returns;
        for (name, at) in judgement.view.datacenters.iter_mut().filter(|(_, at)| at.state == State::Serving) {
            if returns.get(name).is_some_and(|at| at.newest > 0) {
                at.state = State::CatchingUp;
            }
        }
        judgement
    }
    caught(Kind { fold: keeps_out, ..Kind::default() }, AllBack::default);
}
