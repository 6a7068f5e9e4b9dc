//! No datacenter that is well and reachable by users is taken out by lost probes, nor by a minority that sees badly or
//! lies.
//!
//! When it must be so: the datacenter's door has been well for a while, and of the observers with a say at least half
//! are connected with the agent and see well (honest, prompt, losing at most a fifth of the probes). It takes a majority
//! to say down. A door, or a way to it, that was broken before is well again only after the longest calm that an observer
//! may ask for.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::FleetView;
use daemun_fleet::view::State;

use super::Checker;
use crate::scene::{Door, Scene};

/// The last view of each agent.
#[derive(Default)]
pub(crate) struct HealthyStays {
    last: Vec<Option<Arc<FleetView>>>,
}

impl Checker for HealthyStays {
    fn name(&self) -> &'static str {
        "healthy stays"
    }

    fn look(&mut self, scene: &Scene, changed: Option<usize>) -> Result<(), String> {
        self.last.resize(scene.count(), None);
        let Some((agent, view)) = changed.and_then(|agent| Some((agent, scene.view(agent)?))) else {
            return Ok(());
        };
        let last = self.last[agent].replace(Arc::clone(view));
        for of in 0..scene.count() {
            let name = &scene.names[of];
            let was = last.as_ref().map_or(State::Serving, |last| last.datacenters[name].state);
            let at = &view.datacenters[name];
            if at.state != State::Down || was == State::Down || at.order.is_some() || view.paused.is_some() {
                continue;
            }
            if last
                .as_ref()
                .is_some_and(|last| last.paused.is_some() || last.datacenters[name].order.is_some())
            {
                // The end of a word shows what was so before it.
                continue;
            }
            if is_in_doubt(scene, view, agent, of) {
                continue;
            }
            return Err(format!(
                "{} has {name} {} ({}), which is well",
                scene.names[agent], at.state, at.why
            ));
        }
        Ok(())
    }
}

/// Whether an agent may have a datacenter down.
fn is_in_doubt(scene: &Scene, view: &FleetView, agent: usize, of: usize) -> bool {
    let long = scene.detection() + scene.silence() + scene.warm_up();
    if !is_well_for(scene, of, long) {
        return true;
    }
    let connected = scene.connections(agent);
    let in_play = |at: &usize| *at != of && !view.datacenters[&scene.names[*at]].is_forgotten;
    let (good, bad): (Vec<usize>, Vec<usize>) = (0..scene.count()).filter(in_play).partition(|at| {
        connected[*at] >= long
            && sees_well_for(scene, *at, of, long)
            && !may_be_doubted(scene, view, *at, long)
    });
    good.is_empty() || good.len() < bad.len()
}

/// Most of what an observer looks at may fail for it: then the others decide without it.
fn may_be_doubted(scene: &Scene, view: &FleetView, observer: usize, long: Duration) -> bool {
    let in_play = |at: &usize| *at != observer && !view.datacenters[&scene.names[*at]].is_forgotten;
    let others: Vec<usize> = (0..scene.count()).filter(in_play).collect();
    let is_well = |of: &&usize| sees_well_for(scene, observer, **of, long) && is_well_for(scene, **of, long);
    others.iter().filter(is_well).count() * 2 < others.len()
}

/// A door that died again and again must be calm for longer: each observer doubles what it asks for, from the second time
/// on.
fn is_well_for(scene: &Scene, of: usize, long: Duration) -> bool {
    let door = &scene.doors[of];
    let probe = &scene.config.sync.probe;
    let deaths = door.changes / 2;
    let penalty = if deaths < 2 { Duration::ZERO } else { probe.flap_penalty * (1 << (deaths - 2).min(8)) };
    door.lasts(scene.now, |door| *door == Door::Well) >= long + penalty.min(probe.flap_penalty_max)
}

/// The same for one's own eyes; who loses most probes may have seen a door die many times.
fn sees_well_for(scene: &Scene, observer: usize, of: usize, long: Duration) -> bool {
    let longest = scene.config.sync.probe.flap_penalty_max;
    let penalty = if scene.sights[observer][of].changes == 0 { Duration::ZERO } else { longest };
    scene.sees_well_for(observer, of) >= long + penalty
}
