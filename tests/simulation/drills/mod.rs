//! Stories of drills: failures made on purpose, among others that nobody meant, ended by operators, by agents that do not hear
//! each other, by time. Each process does what the very [`Part`](daemun_fleet::drill::Part) says that `run` drives.

mod checkers;
mod story;
pub(crate) mod truth;
#[cfg(test)]
mod twins;

use crate::world::{Violation, World};
use crate::{from_environment, play_all};
use story::{Kind, story};

/// How a drill story went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Went {
    events: u64,
    digest: u64,
    /// Drills that were begun, and processes that they handicapped at some time.
    drills: usize,
    handicaps: u32,
}

/// Plays the story of a seed.
fn play(seed: u64, kind: Kind) -> Result<Went, Violation> {
    let (plan, long) = story(seed, kind);
    let count = plan.config.fleet.datacenters.len();
    let mut world = World::new(plan, checkers::all(count));
    world.run(long);
    let drills = &world.scene.drills;
    let went = Went {
        events: world.events,
        digest: world.digest,
        drills: drills.begun.len(),
        handicaps: drills.processes.iter().map(|process| process.fails.changes.div_ceil(2)).sum(),
    };
    world.violation.map_or(Ok(went), Err)
}

/// How to see it again.
fn replay(seed: u64, violation: &Violation) -> String {
    format!(
        "seed {seed}: {} at {:.3} s: {}\n  DAEMUN_SEED={seed} cargo test --test simulation -- one_drill_story --nocapture",
        violation.checker,
        violation.at.as_secs_f64(),
        violation.what
    )
}

#[test]
fn drill_stories() {
    let seeds = from_environment("DAEMUN_SEEDS").unwrap_or(200);
    let played = play_all(0..seeds, "drill stories", |seed| {
        play(seed, Kind::default()).map_err(|violation| replay(seed, &violation))
    });
    let sum = |of: fn(&Went) -> u64| played.iter().map(|(_, went)| of(went)).sum::<u64>();
    println!(
        "{seeds} drill stories, {} events: {} drills begun, {} processes failed on purpose",
        sum(|went| went.events),
        sum(|went| went.drills as u64),
        sum(|went| went.handicaps.into())
    );
}

/// The story of `DAEMUN_SEED`, or of the first, told.
#[test]
fn one_drill_story() {
    let seed = from_environment("DAEMUN_SEED").unwrap_or(0);
    if let Err(violation) = play(seed, Kind { is_told: true, ..Kind::default() }) {
        panic!("{}", replay(seed, &violation));
    }
}

/// Stories that once went wrong, each with what it had found.
const FOUND: [(u64, &str); 4] = [
    (41, "a drill that ended as its target had died by itself let the dead back at once"),
    (100, "a process that was killed began with the armed word on its disk, and was killed again"),
    (306, "one who has just begun again still counts whom it has not yet called silent"),
    (320, "the end of a drill that had made nothing fail was a word to let its target back"),
];

#[test]
fn what_was_found_of_drills_stays_found() {
    for (seed, what) in FOUND {
        if let Err(violation) = play(seed, Kind::default()) {
            panic!("{what}: {}", replay(seed, &violation));
        }
    }
}

#[test]
fn the_same_seed_is_the_same_drill_story() {
    for seed in [1, 7, 23] {
        assert_eq!(play(seed, Kind::default()).ok(), play(seed, Kind::default()).ok());
    }
}
