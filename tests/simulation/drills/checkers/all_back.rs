//! When drills are over and all else has been well for long enough, every datacenter serves in every view.
//!
//! How long that may take: to be seen up, with the calm that a door asks for that was down again and again; to hear of the
//! drill's end; to catch up; the steps of the ramp. Where nothing but drills has gone wrong nobody waits for a hold-down, for
//! the end of a drill lets its target back; else the longest. Who came back too often is held for a human: but not by drills
//! alone.

use std::time::Duration;

use daemun_fleet::view::State;

use super::Checker;
use super::on_time::over_by;
use crate::checkers::knowledge::RETRY;
use crate::drills::truth::drift;
use crate::scene::{Door, Scene, Way};

/// Loss that is not felt.
const LOSS_SMALL: u32 = 10;

/// Since when all has been well, as far as looks tell.
#[derive(Default)]
pub(crate) struct AllBack {
    since: Option<Duration>,
}

impl Checker for AllBack {
    fn name(&self) -> &'static str {
        "all back"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        if !is_well(scene) {
            self.since = None;
            return Ok(());
        }
        let well_for = scene.now - *self.since.get_or_insert(scene.now);
        let bound = bound(scene);
        if well_for < bound {
            return Ok(());
        }
        let is_held = |why: &str| scene.has_incidents() && why.contains("held for a human");
        for agent in 0..scene.count() {
            let Some(view) = scene.view(agent) else { continue };
            let out = view.datacenters.iter().find(|(_, at)| at.state != State::Serving && !is_held(&at.why));
            if let Some((name, at)) = out {
                return Err(format!(
                    "{} has {name} {} ({}), all being well for {well_for:?}; the bound is {bound:?}",
                    scene.names[agent], at.state, at.why
                ));
            }
        }
        Ok(())
    }
}

impl Scene {
    /// Whether anything but drills has gone wrong, or an operator has said something.
    fn has_incidents(&self) -> bool {
        self.drills.incidents > 0 || !self.words.is_empty()
    }
}

fn is_well(scene: &Scene) -> bool {
    let count = scene.count();
    let is_way_well = |way: &Way| !way.is_cut && way.loss <= LOSS_SMALL && way.delay_us <= scene.slowest_us;
    let is_seen = |by: usize, of: usize| {
        let sight = &scene.sights[by][of].value;
        let is_in_time = sight.way.slowest() * 2 < scene.config.sync.probe.timeout;
        !sight.lies && sight.slow_us == Some(0) && is_way_well(&sight.way) && is_in_time
    };
    let mut pairs = (0..count).flat_map(|a| (0..count).filter(move |b| a != *b).map(move |b| (a, b)));
    let has_settled = |at: Duration| at <= scene.now;
    scene.doors.iter().all(|door| door.value == Door::Well)
        && scene.agents.iter().all(|agent| agent.runs.value)
        && scene.drills.processes.iter().all(|process| process.fails.value.is_none())
        && pairs.all(|(a, b)| {
            is_seen(a, b)
                && is_way_well(&scene.links[a][b].value)
                && has_settled(scene.links[a][b].settles_at)
                && has_settled(scene.sights[a][b].settles_at)
        })
        && (0..count).all(|agent| has_no_word(scene, agent))
}

/// Whether an agent's view is bound by no operator, and by no drill that may still be under way.
fn has_no_word(scene: &Scene, agent: usize) -> bool {
    let may_be_under_way =
        || scene.drills.begun.iter().any(|drill| scene.now <= over_by(scene, drill, agent) + scene.sharing());
    scene.view(agent).is_some_and(|view| {
        view.paused.is_none()
            && view.datacenters.values().all(|at| at.order.is_none())
            && (view.drill.is_none() || !may_be_under_way())
    })
}

fn bound(scene: &Scene) -> Duration {
    let (probe, rules) = (&scene.config.sync.probe, &scene.config.sync.comeback);
    let deaths = scene.doors.iter().map(|door| door.changes / 2).max().unwrap_or(0);
    let is_seen_to_flap = deaths >= 2 || scene.sights.iter().flatten().any(|sight| sight.changes > 0);
    let calm = if is_seen_to_flap { probe.flap_penalty_max } else { Duration::ZERO };
    let hold = if scene.has_incidents() { rules.hold_down_max } else { Duration::ZERO };
    let steps = u32::try_from(rules.ramp.len()).unwrap_or(u32::MAX);
    // An agent that began just now says nothing yet.
    let seen = scene.warm_up() + scene.silence() + calm + probe.interval * 2 * probe.rise;
    let back = hold + rules.catch_up + RETRY + rules.ramp_step * steps + scene.sharing() * (steps + 2);
    seen + back + drift(seen + back)
}
