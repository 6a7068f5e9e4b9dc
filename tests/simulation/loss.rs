//! Lost probes and nothing else, for many hours: nobody is ever taken out by them.
//!
//! All doors are well, and of all probes one in five is lost. Any state but serving, in any agent's view, is a fault. The
//! private links lose one packet in twenty, which TCP sends again.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::view::State;
use daemun_sync::judge::judge;

use crate::checkers::Checker;
use crate::clock::MachineClock;
use crate::drills::truth::Broken;
use crate::faults::Calm;
use crate::fleet::Fleet;
use crate::random::Random;
use crate::scene::{PROBE_LOSS_MAX, Scene, Way};
use crate::world::{Plan, Violation, World};

const LINK_LOSS: u32 = 50;
/// Probes come often enough to look at the timers; a longer gap would pass for a sleep.
const TICK: Duration = Duration::from_millis(900);

/// Nobody is anything but serving.
struct AllServe;

impl Checker for AllServe {
    fn name(&self) -> &'static str {
        "all serve"
    }

    fn look(&mut self, scene: &Scene, changed: Option<usize>) -> Result<(), String> {
        let Some(view) = changed.and_then(|agent| scene.view(agent)) else { return Ok(()) };
        let out = view.datacenters.iter().find(|(_, at)| at.state != State::Serving);
        out.map_or(Ok(()), |(name, at)| Err(format!("{name} is {}: {}", at.state, at.why)))
    }
}

/// Plays a fleet of so many for some time; how many events it had.
pub(crate) fn play(seed: u64, datacenters: usize, long: Duration) -> Result<u64, Violation> {
    let mut random = Random::new(seed);
    let mut row = |loss: u32| -> Vec<Vec<Way>> {
        let mut way = || Way { is_cut: false, loss, delay_us: random.between(2_000, 90_000) };
        (0..datacenters).map(|_| (0..datacenters).map(|_| way()).collect()).collect()
    };
    let calm = Calm { links: row(LINK_LOSS), sights: row(PROBE_LOSS_MAX) };
    let mut clock = || MachineClock {
        boot_us: random.below(1 << 40),
        drift_ppm: random.between(0, 400) as i64 - 200,
        ahead_ms: random.between(0, 1000) as i64 - 500,
    };
    let clocks = (0..datacenters).map(|_| clock()).collect();
    let plan = Plan {
        config: Arc::new(Fleet::usual(datacenters).config()),
        calm,
        clocks,
        acts: Vec::new(),
        duplication: 0,
        fold: judge,
        tamper: None,
        broken: Broken::No,
        tick: TICK,
        beats: false,
        random,
        is_told: false,
    };
    let mut world = World::new(plan, vec![Box::new(AllServe)]);
    world.run(long);
    world.violation.map_or(Ok(world.events), Err)
}
