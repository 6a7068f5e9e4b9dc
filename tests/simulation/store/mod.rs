//! The stores in a made-up world, told to lose what they were given: each the very
//! [`Replica`](daemun_sync::store::replica::Replica) that `run` drives, on links that are cut and slow, with processes that
//! crash, disks that are full or lost, clocks that are off, jump and drift, and logs that go too early.
//!
//! ```text
//! cargo test --test simulation store                        250 stories, and all else
//! DAEMUN_SEEDS=20000 cargo test --test simulation store     more of them
//! DAEMUN_SEED=17 cargo test --test simulation -- one_store_story --nocapture    one, told
//! ```

mod checkers;
mod disk;
mod faults;
mod ledger;
mod net;
mod story;
mod stream;
#[cfg(test)]
mod twins;
mod world;
mod writers;

use story::story;
use world::World;

use crate::world::Violation;
use crate::{from_environment, play_all};

/// Plays the story of a seed; how many events it had, and how many writes were handed in.
fn play(seed: u64, is_told: bool) -> Result<(u64, u64), Violation> {
    let mut world = World::new(story(seed, None, is_told), checkers::all());
    world.run();
    let writes = world.ledger.asked.len() as u64;
    world.violation.map_or(Ok((world.events, writes)), Err)
}

/// How to see it again.
fn replay(seed: u64, violation: &Violation) -> String {
    format!(
        "seed {seed}: {} at {:.3} s: {}\n  DAEMUN_SEED={seed} cargo test --test simulation -- one_store_story --nocapture",
        violation.checker,
        violation.at.as_secs_f64(),
        violation.what
    )
}

#[test]
fn store_stories() {
    let seeds = from_environment("DAEMUN_SEEDS").unwrap_or(250);
    let played = play_all(0..seeds, "stories of the store", |seed| {
        play(seed, false).map_err(|violation| replay(seed, &violation))
    });
    let events: u64 = played.iter().map(|(_, (events, _))| events).sum();
    let writes: u64 = played.iter().map(|(_, (_, writes))| writes).sum();
    println!("{seeds} stories of the store, {events} events, {writes} writes");
}

/// The story of `DAEMUN_SEED`, or of the first, told.
#[test]
fn one_store_story() {
    let seed = from_environment("DAEMUN_SEED").unwrap_or(0);
    if let Err(violation) = play(seed, true) {
        panic!("{}", replay(seed, &violation));
    }
}

#[test]
fn the_same_seed_is_the_same_story_of_stores() {
    for seed in [1, 7, 23] {
        assert_eq!(play(seed, false).ok(), play(seed, false).ok());
    }
}
