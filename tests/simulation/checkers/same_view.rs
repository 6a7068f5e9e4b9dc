//! Same config, same frontier, same view, whoever made it and when. And agents that are connected know soon what the
//! others know.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::FleetView;
use daemun_fleet::view::Frontier;

use super::Checker;
use super::knowledge::RETRY;
use crate::scene::Scene;

/// So many views are remembered.
const VIEWS_MAX: usize = 2000;

/// What was published.
#[derive(Default)]
pub(crate) struct SameView {
    views: VecDeque<Arc<FleetView>>,
    /// What each agent knew, and when.
    known: Vec<VecDeque<(Duration, Frontier)>>,
}

impl Checker for SameView {
    fn name(&self) -> &'static str {
        "same view"
    }

    fn look(&mut self, scene: &Scene, changed: Option<usize>) -> Result<(), String> {
        if let Some(view) = changed.and_then(|agent| scene.agents[agent].view.as_ref()) {
            let twin = self
                .views
                .iter()
                .find(|known| known.frontier == view.frontier && known.config_digest == view.config_digest);
            match twin {
                Some(twin) if twin != view => {
                    return Err(format!("two views of one frontier:\n{twin:?}\n{view:?}"));
                }
                Some(_) => {}
                None => {
                    self.views.push_front(Arc::clone(view));
                    self.views.truncate(VIEWS_MAX);
                }
            }
        }
        self.converges(scene, changed)
    }
}

impl SameView {
    fn converges(&mut self, scene: &Scene, changed: Option<usize>) -> Result<(), String> {
        self.known.resize(scene.count(), VecDeque::new());
        let soon = scene.sharing();
        if let Some((agent, view)) = changed.and_then(|agent| Some((agent, scene.view(agent)?))) {
            self.known[agent].push_back((scene.now, view.frontier.clone()));
        }
        for agent in 0..scene.count() {
            let known = &mut self.known[agent];
            while known.get(1).is_some_and(|(at, _)| *at + soon <= scene.now) {
                known.pop_front();
            }
            if scene.runs_for(agent) < soon {
                known.retain(|(at, _)| *at >= scene.agents[agent].runs.since);
            }
            // What it knew so long ago, everyone who was connected with it ever since knows too.
            let Some((_, then)) = known.front().filter(|(at, _)| *at + soon <= scene.now) else { continue };
            let connected = scene.connections(agent);
            for other in (0..scene.count()).filter(|other| connected[*other] >= soon * 2 + RETRY) {
                let Some(view) = scene.view(other) else { continue };
                let mut then = then.clone();
                if scene.runs_for(other) < scene.warm_up() {
                    // While it warms up it does not take its own old words back from others.
                    then.0.remove(&scene.names[other]);
                }
                if view.frontier.covers(&then) {
                    continue;
                }
                return Err(format!(
                    "{} does not know what {} knew {soon:?} ago: {:?}, {then:?}",
                    scene.names[other], scene.names[agent], view.frontier
                ));
            }
        }
        Ok(())
    }
}
