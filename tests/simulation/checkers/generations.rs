//! In one life of an agent, what it publishes only rises: no view is dominated by an earlier one, and none with other
//! content has the generation of the one before.

use std::sync::Arc;

use daemun_fleet::FleetView;

use super::Checker;
use crate::scene::Scene;

/// The last view of each agent, and of which life it is.
#[derive(Default)]
pub(crate) struct Generations {
    last: Vec<Option<(u32, Arc<FleetView>)>>,
}

impl Checker for Generations {
    fn name(&self) -> &'static str {
        "generations"
    }

    fn look(&mut self, scene: &Scene, changed: Option<usize>) -> Result<(), String> {
        self.last.resize(scene.count(), None);
        let Some(agent) = changed else { return Ok(()) };
        let at = &scene.agents[agent];
        let Some(view) = &at.view else { return Ok(()) };
        let last = self.last[agent].replace((at.life, Arc::clone(view)));
        let Some((_, last)) = last.filter(|(life, last)| *life == at.life && last != view) else {
            return Ok(());
        };
        let name = &scene.names[agent];
        if !last.is_superseded_by(view) || !view.frontier.covers(&last.frontier) {
            return Err(format!("{name} published {:?} after {:?}", view.frontier, last.frontier));
        }
        if view.generation <= last.generation {
            return Err(format!("{name} published generation {} after {}", view.generation, last.generation));
        }
        Ok(())
    }
}
