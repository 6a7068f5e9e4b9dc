//! A datacenter whose door is dead for users is out everywhere within the bound.
//!
//! When it must be so: an agent's view is bound when most of the observers that have a say are connected with it and see
//! well. Who has a say: those who run and are connected with it, and those who fell away so recently that they are not
//! yet called silent (their last word still counts) by all of those; one who has just begun again has not said so yet.
//! Without anyone who sees badly, all of them agree, and it does not matter whose eyes are doubted. With some, those who
//! see well must be more than they, and none of them may be doubted for what else is broken.
//!
//! Not when an operator's pin, pause or forgetting holds: those are [`orders`](super::orders)' business.

use std::time::Duration;

use daemun_fleet::FleetView;
use daemun_fleet::view::State;

use super::Checker;
use crate::scene::{Door, Scene};

/// It needs no memory: all that counts is since when what is so.
#[derive(Default)]
pub(crate) struct DeadLeaves;

impl Checker for DeadLeaves {
    fn name(&self) -> &'static str {
        "dead leaves"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        let probe = &scene.config.sync.probe;
        for of in 0..scene.count() {
            let dead_for = scene.doors[of].lasts(scene.now, |door| *door != Door::Well);
            if dead_for < scene.detection_by(probe.fall) + scene.sharing() {
                continue;
            }
            for agent in 0..scene.count() {
                let Some(view) = scene.view(agent) else { continue };
                let at = &view.datacenters[&scene.names[of]];
                if at.state == State::Down || is_ordered(view, of, scene) {
                    continue;
                }
                // One alone must be surer.
                let fall = match deciding(scene, view, agent, of) {
                    0 => continue,
                    1 => probe.fall_alone,
                    _ => probe.fall,
                };
                let bound = scene.detection_by(fall) + scene.sharing();
                if dead_for < bound {
                    continue;
                }
                return Err(format!(
                    "{} has {} {} ({}), {dead_for:?} after its door died; the bound is {bound:?}",
                    scene.names[agent], scene.names[of], at.state, at.why
                ));
            }
        }
        Ok(())
    }
}

fn is_ordered(view: &FleetView, of: usize, scene: &Scene) -> bool {
    let order = view.datacenters[&scene.names[of]].order.as_ref();
    view.paused.is_some()
        || order.is_some_and(|order| order.verb.starts_with("pin") || order.verb == "forget")
}

/// How many see well that it is dead, if those decide; else none.
fn deciding(scene: &Scene, view: &FleetView, agent: usize, of: usize) -> usize {
    let connected = scene.connections(agent);
    let in_play = |at: &usize| *at != of && !view.datacenters[&scene.names[*at]].is_forgotten;
    let is_new = |at: &usize| connected[*at] > Duration::ZERO && scene.runs_for(*at) < scene.warm_up();
    let someone_is_new = (0..scene.count()).any(|at| is_new(&at));
    let has_a_say =
        |at: &usize| connected[*at] > Duration::ZERO || someone_is_new || !is_surely_silent(scene, *at);
    let observers: Vec<usize> = (0..scene.count()).filter(in_play).filter(has_a_say).collect();
    let long = scene.detection() + scene.sharing();
    let (good, bad): (Vec<usize>, Vec<usize>) = observers.into_iter().partition(|at| {
        connected[*at] >= scene.silence()
            && scene.runs_for(*at) >= scene.warm_up()
            && sees_truly_for(scene, *at, of) >= long
    });
    let they_decide =
        bad.is_empty() || (good.len() > bad.len() && good.iter().all(|at| !may_be_doubted(scene, view, *at)));
    if they_decide { good.len() } else { 0 }
}

/// That a dead door is dead is seen through loss, and through a cut of one's own.
fn sees_truly_for(scene: &Scene, observer: usize, of: usize) -> Duration {
    scene.sights[observer][of].lasts(scene.now, |sight| !sight.lies && sight.slow_us == Some(0))
}

/// It has not run, or been connected with anyone, for so long that all call it silent.
fn is_surely_silent(scene: &Scene, at: usize) -> bool {
    let stopped_for = scene.agents[at].runs.lasts(scene.now, |runs| !runs);
    let cut_for = |other: usize| {
        let of = |a: usize, b: usize| scene.links[a][b].lasts(scene.now, |way| way.is_cut);
        of(at, other).max(of(other, at))
    };
    let others = (0..scene.count()).filter(|other| *other != at);
    stopped_for.max(others.map(cut_for).min().unwrap_or_default()) >= scene.silence() * 2
}

/// An observer may see most of the others fail.
fn may_be_doubted(scene: &Scene, view: &FleetView, observer: usize) -> bool {
    let in_play = |at: &usize| *at != observer && !view.datacenters[&scene.names[*at]].is_forgotten;
    let others: Vec<usize> = (0..scene.count()).filter(in_play).collect();
    let settled = scene.warm_up();
    let well = others.iter().filter(|of| {
        scene.sees_well_for(observer, **of) >= settled
            && scene.doors[**of].lasts(scene.now, |door| *door == Door::Well) >= settled
    });
    well.count() * 2 < others.len()
}
