//! Nobody fails by a drill before every agent has shown that it knows of it: then each has a timer of its own. One that an
//! operator has said to be forgotten is not waited for. And a process that begins when the first step has been taken takes no
//! part: to start again is to undo.

use super::Checker;
use crate::scene::Scene;

/// Who was forgotten at some time, as any view had it.
#[derive(Default)]
pub(crate) struct ArmedFirst {
    forgotten: Vec<bool>,
}

impl Checker for ArmedFirst {
    fn name(&self) -> &'static str {
        "armed first"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        forget(&mut self.forgotten, scene);
        for (at, process) in scene.drills.processes.iter().enumerate() {
            let Some(number) = process.fails.value else { continue };
            let drill = &scene.drills.begun[number];
            let began_at = scene.agents[at].begun_at;
            if drill.injected_at.is_some_and(|injected_at| began_at > injected_at) {
                return Err(format!(
                    "{} began in the middle of {}, and fails by it",
                    scene.names[at], drill.id
                ));
            }
            let missing = |other: &usize| !drill.shown_by[*other] && !self.forgotten[*other];
            if let Some(missing) = (0..scene.count()).find(missing) {
                let (at, missing) = (&scene.names[at], &scene.names[missing]);
                return Err(format!("{at} fails by {}, of which {missing} has never heard", drill.id));
            }
        }
        Ok(())
    }
}

/// Notes whom any view has forgotten.
pub(super) fn forget(forgotten: &mut Vec<bool>, scene: &Scene) {
    forgotten.resize(scene.count(), false);
    for (name, forgotten) in scene.names.iter().zip(forgotten) {
        let views = scene.agents.iter().filter_map(|agent| agent.view.as_ref());
        *forgotten |= views.into_iter().any(|view| view.datacenters[name].is_forgotten);
    }
}
