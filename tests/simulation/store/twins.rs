//! A broken twin for each checker, which it must catch: a checker that catches nothing checks nothing.

use super::checkers::{Bounded, Checker, Conditions, Converged, Frontiers, Gone, HonestLag, Kept};
use super::story::{Sabotage, story};
use super::world::World;

/// So many stories are enough to catch any of them.
const SEEDS_MAX: u64 = 60;

#[track_caller]
fn caught<C: Checker + 'static>(sabotage: Sabotage, checker: impl Fn() -> C) {
    let finds = |seed: &u64| {
        let mut world = World::new(story(*seed, Some(sabotage), false), vec![Box::new(checker())]);
        world.run();
        world.violation.is_some()
    };
    let seed = (0..SEEDS_MAX).find(finds);
    println!("caught by seed {seed:?}");
    assert!(seed.is_some(), "it is not caught within {SEEDS_MAX} stories");
}

#[test]
fn a_store_loses_a_key() {
    caught(Sabotage::LosesAKey, || Converged);
}

#[test]
fn a_journal_forgets_to_write() {
    caught(Sabotage::ForgetsToWrite, || Kept);
    caught(Sabotage::ForgetsToWrite, Frontiers::default);
}

#[test]
fn the_past_is_forgotten_at_once() {
    caught(Sabotage::ForgetsAtOnce, Gone::default);
}

#[test]
fn nothing_is_let_go() {
    caught(Sabotage::NeverTidies, || Bounded);
}

#[test]
fn conditions_are_not_weighed() {
    caught(Sabotage::IgnoresConditions, Conditions::default);
}

#[test]
fn lag_is_made_up() {
    caught(Sabotage::LagIsZero, || HonestLag);
    caught(Sabotage::LagIsHuge, || HonestLag);
    caught(Sabotage::OperationsAreFew, || HonestLag);
}
