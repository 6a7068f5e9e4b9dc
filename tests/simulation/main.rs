//! The agents in a made-up world, told to fool them: many datacenters' agents, each the very
//! [`Core`](daemun_sync::core::Core) that `run` drives, on a network that loses, delays, repeats and is cut, with doors
//! that die, processes that stop, crash and forget, clocks that jump and drift, observers that lie, and operators who speak
//! at bad moments.
//!
//! All of it follows from a seed. [`checkers`] look at what is true and at what the agents publish; each has a broken
//! twin in [`twins`] that it must catch.
//!
//! ```text
//! cargo test --test simulation                        200 stories, and all else
//! DAEMUN_SEEDS=20000 cargo test --test simulation     more of them
//! DAEMUN_SEED=17 cargo test --test simulation -- one_story --nocapture    one, told
//! DAEMUN_SEED=17 cargo test --test simulation -- one_drill_story --nocapture    one of drills, told
//! DAEMUN_HOURS=10000 cargo test --test simulation     lost probes alone, for so many hours
//! ```

mod checkers;
mod clock;
mod drills;
mod faults;
mod fleet;
mod loss;
mod random;
mod scene;
mod store;
mod story;
#[cfg(test)]
mod twins;
mod world;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use story::{Kind, story};
use world::{Violation, World};

/// A number from the environment.
fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Plays the story of a seed; how many events it had, and a digest of what was published.
fn play(seed: u64, kind: Kind) -> Result<(u64, u64), Violation> {
    let (plan, long) = story(seed, kind);
    let count = plan.config.fleet.datacenters.len();
    let mut world = World::new(plan, checkers::all(count));
    world.run(long);
    world.violation.map_or(Ok((world.events, world.digest)), Err)
}

/// How to see it again.
fn replay(seed: u64, violation: &Violation) -> String {
    format!(
        "seed {seed}: {} at {:.3} s: {}\n  DAEMUN_SEED={seed} cargo test --test simulation -- one_story --nocapture",
        violation.checker,
        violation.at.as_secs_f64(),
        violation.what
    )
}

/// Plays all seeds of a range on both cores; what came of those that went well. What fails is told at once, and how far it is.
fn play_all<T: Send>(
    seeds: Range<u64>,
    what: &str,
    play: impl Fn(u64) -> Result<T, String> + Sync,
) -> Vec<(u64, T)> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let (mut went_well, mut failed) = (Vec::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.len() >= 20 {
                return (went_well, failed);
            }
            match play(seed) {
                Ok(found) => went_well.push((seed, found)),
                Err(how) => {
                    println!("{how}");
                    failed.push(how);
                }
            }
            let begun = seed - seeds.start + 1;
            if begun.is_multiple_of(1000) {
                println!("{begun} of {} {what} begun", seeds.end - seeds.start);
            }
        }
    };
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for thread in [scope.spawn(work), scope.spawn(work)] {
            let (went_well, of_thread) = thread.join().expect("no panic");
            all.extend(went_well);
            failed.extend(of_thread);
        }
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    all
}

#[test]
fn stories() {
    let seeds = from_environment("DAEMUN_SEEDS").unwrap_or(200);
    let played = play_all(0..seeds, "stories", |seed| {
        play(seed, Kind::default()).map_err(|violation| replay(seed, &violation))
    });
    let events: u64 = played.iter().map(|(_, (events, _))| events).sum();
    let digest = played.iter().fold(0, |all, (seed, (_, digest))| all ^ digest ^ seed);
    println!("{seeds} stories, {events} events, digest {digest:016x}");
}

/// The story of `DAEMUN_SEED`, or of the first, told.
#[test]
fn one_story() {
    let seed = from_environment("DAEMUN_SEED").unwrap_or(0);
    if let Err(violation) = play(seed, Kind { is_told: true, ..Kind::default() }) {
        panic!("{}", replay(seed, &violation));
    }
}

/// Stories that once went wrong, each with what it had found.
const FOUND: [(u64, &str); 15] = [
    (42, "a drain went back from its beginning when the agent that leads it restarted"),
    (222, "an agent's claim that another is silent, refuted at once, let bad eyes decide alone for a moment"),
    (331, "the same, by two who came back from a partition"),
    (423, "the same, when links were lost one after the other"),
    (303, "the end of a drain let in at once who had died meanwhile"),
    (388, "an agent that lost its disk spoke before it had looked, and bad eyes decided alone"),
    (838, "who died while it was drained came back without a hold-down"),
    (1204, "where a fifth of the probes is lost, an observer that had seen flaps never saw up again"),
    (2127, "a clock that jumped while its agent was down ended a word for all"),
    (2179, "an answer that lay in a buffer while the process was stopped brought back a word that was over"),
    (2592, "one that heard of a silent one by others only kept its last words in force"),
    (8686, "who heard of a drain late waited anew for steps that others had long done"),
    (16618, "an operator's word from before a failure let back at once, by one who had not seen it down"),
    (17756, "one who began again did not know yet that a third was silent, whose old vote let back the dead"),
    (19234, "after a clock that went back a crash made two lives use the same numbers"),
];

#[test]
fn what_was_found_stays_found() {
    for (seed, what) in FOUND {
        if let Err(violation) = play(seed, Kind::default()) {
            panic!("{what}: {}", replay(seed, &violation));
        }
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [1, 7, 23] {
        assert_eq!(play(seed, Kind::default()).ok(), play(seed, Kind::default()).ok());
    }
}

/// Fleets of 2, 3 and 5, an hour at a time each, until there have been as many hours as are asked for.
#[test]
fn lost_probes_take_nobody_out() {
    let hours = from_environment("DAEMUN_HOURS").unwrap_or(6);
    let first = from_environment("DAEMUN_SEED").unwrap_or(0);
    let played = play_all(first..first + hours, "hours", |seed| {
        let datacenters = [2, 3, 5][(seed % 3) as usize];
        loss::play(seed, datacenters, Duration::from_secs(3600)).map_err(|violation| {
            format!(
                "seed {seed}, {datacenters} datacenters: at {:.3} s: {}\n  DAEMUN_SEED={seed} DAEMUN_HOURS=1 cargo test --test simulation -- lost_probes",
                violation.at.as_secs_f64(),
                violation.what
            )
        })
    });
    println!("{hours} hours, {} events", played.iter().map(|(_, events)| events).sum::<u64>());
}
