//! A story of drills from a seed: fewer things go wrong than in other stories, so that some drills run to their end.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::drill::{Fault, Objectives, Scenario, Step, Target, builtin};
use daemun_sync::core::{Fold, TICK};
use daemun_sync::drill::plan::Asked;
use daemun_sync::judge::judge;

use super::truth::Broken;
use crate::faults::{Act, Fault as Incident};
use crate::fleet::{Fleet, PLACES};
use crate::random::Random;
use crate::scene::Door;
use crate::story::Writer;
use crate::world::Plan;

/// What differs between stories, beside the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) fold: Fold,
    pub(crate) broken: Broken,
    pub(crate) is_told: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self { fold: judge, broken: Broken::No, is_told: false }
    }
}

/// A story, and how long it is.
pub(crate) fn story(seed: u64, kind: Kind) -> (Plan, Duration) {
    let mut random = Random::new(seed);
    let datacenters = random.pick(&[2, 3, 3, 5]);
    let fleet = Fleet {
        datacenters,
        check: "http = \"http://door.test/\"",
        // What may come back at once is told from what may not.
        hold_down: Some(random.pick(&[4, 8, 40])),
        ramp_step: random.between(1, 3),
        returns_per_hour: random.pick(&[1, 1000, 1000]),
    };
    let config = Arc::new(fleet.config());
    let busy = Duration::from_secs(random.between(20, 90));
    let mut writer = Writer::new(random, datacenters, busy);
    let calm = writer.calm();
    // Where the clocks are off, only those drills begin that are told to.
    let most_ms = writer.random.pick(&[20, 20, 20, 86_400_000]);
    let clocks = (0..datacenters).map(|_| writer.clock_within(most_ms)).collect();
    for _ in 0..writer.random.pick(&[0, 0, 0, 1, 2, 4]) {
        writer.incident();
    }
    for _ in 0..writer.random.between(1, 4) {
        writer.drill();
    }
    // Whoever was out comes back.
    let tail = Duration::from_secs(writer.random.pick(&[30, 45, 120]));
    let Writer { mut random, mut acts, .. } = writer;
    acts.sort_by_key(|(at, _)| *at);
    let plan = Plan {
        config,
        calm,
        clocks,
        acts,
        duplication: random.pick(&[0, 0, 50, 300]),
        fold: kind.fold,
        tamper: None,
        broken: kind.broken,
        tick: TICK,
        beats: true,
        random,
        is_told: kind.is_told,
    };
    (plan, busy + tail)
}

impl Writer {
    fn drill(&mut self) {
        let (at, agent) = (self.moment(), self.one());
        let scenario = self.scenario();
        let long = Duration::from_millis(13_000 + scenario.baseline_ms + scenario.fails_for_ms());
        self.ask(at, agent, scenario);
        if self.random.chance(250) {
            // Somebody else has the same idea.
            let near = Duration::from_millis(self.random.pick(&[0, 0, 50, 400]));
            let (agent, scenario) = (self.one(), self.scenario());
            self.ask(at + near, agent, scenario);
        }
        if self.random.chance(350) {
            let after = self.random.below(long.as_millis() as u64);
            self.abort(at + Duration::from_millis(after));
        }
        if self.random.chance(300) {
            let after = Duration::from_millis(self.random.below(long.as_millis() as u64));
            self.nearby(at + after);
        }
    }

    /// Something that a drill minds.
    fn nearby(&mut self, at: Duration) {
        let long = Duration::from_millis(self.random.between(200, 20_000));
        match self.random.below(4) {
            0 => self.link(at, long),
            1 => self.alone(at, long),
            2 => self.process(at, long),
            _ => {
                let of = self.one();
                self.fault(at, long, Incident::Door { of, door: Door::Silent });
            }
        }
    }

    fn ask(&mut self, at: Duration, agent: usize, scenario: Scenario) {
        let asked = Box::new(Asked {
            scenario,
            by: "ann".to_owned(),
            reason: String::new(),
            expect_generation: None,
            dry_run: false,
            break_glass: self.random.chance(500),
        });
        self.acts.push((at, Act::Drill { agent, asked }));
    }

    fn abort(&mut self, at: Duration) {
        let agent = self.one();
        self.acts.push((at, Act::Abort { agent }));
        if self.random.chance(400) {
            let (after, long) = (self.random.below(1_500), self.span());
            let loses_disk = self.random.chance(400);
            self.fault(at + Duration::from_millis(after), long, Incident::Crash { agent, loses_disk });
        }
    }

    fn scenario(&mut self) -> Scenario {
        let is_link = self.random.chance(100);
        let target = if is_link {
            let (one, other) = self.two();
            Target::Link(PLACES[one].0.to_owned(), PLACES[other].0.to_owned())
        } else {
            Target::Datacenter(PLACES[self.one()].0.to_owned())
        };
        let steps = (0..self.random.between(1, 3)).map(|_| self.step(is_link)).collect();
        let usual = builtin("blackhole", Objectives { rto_ms: 5_000, rpo: 0 });
        Scenario {
            // Two of one name at one moment would have one id.
            name: format!("made-up-{}", self.acts.len()),
            target: Some(target),
            steps,
            baseline_ms: self.random.between(1_000, 3_000),
            ..usual.expect("it is built in")
        }
    }

    fn step(&mut self, is_link: bool) -> Step {
        let mut faults = vec![if is_link { Fault::Partition } else { self.on_purpose() }];
        if !is_link && self.random.chance(200) {
            faults.push(self.on_purpose());
        }
        Step { faults, hold_ms: self.random.between(1_000, 15_000) }
    }

    fn on_purpose(&mut self) -> Fault {
        match self.random.below(8) {
            0 | 1 => Fault::Blackhole { share: 100 },
            2 => Fault::Blackhole { share: self.random.pick(&[20, 50, 90]) },
            3 => Fault::Drain { share: self.random.pick(&[10, 50, 100]) },
            4 | 5 => Fault::AgentDead,
            6 => Fault::Kill,
            _ => Fault::Partition,
        }
    }
}
