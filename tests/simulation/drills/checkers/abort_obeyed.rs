//! A word that ends a drill is obeyed by all who must know it ([`Knowledge`]), at the next look: unless the drill itself has
//! silenced or killed them.

use std::time::Duration;

use daemun_sync::orders::Verb;

use super::Checker;
use crate::checkers::knowledge::Knowledge;
use crate::drills::truth::LOOK;
use crate::scene::Scene;

/// A look takes no longer than this, with drift.
const SOON: Duration = Duration::from_millis(LOOK.as_millis() as u64 + 10);

/// Who must know which end.
#[derive(Default)]
pub(crate) struct AbortObeyed {
    knowledge: Knowledge,
}

impl Checker for AbortObeyed {
    fn name(&self) -> &'static str {
        "abort obeyed"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        self.knowledge.learn(scene, &scene.drills.aborts);
        for (at, process) in scene.drills.processes.iter().enumerate() {
            let Some(number) = process.fails.value.filter(|_| scene.runs_for(at) >= SOON) else { continue };
            let id = &scene.drills.begun[number].id;
            for (abort, since) in scene.drills.aborts.iter().zip(self.knowledge.of(at)) {
                let Verb::Drill(word) = &abort.order.verb else { continue };
                if word.id == *id && since.is_some_and(|since| since + SOON <= scene.now) {
                    return Err(format!(
                        "{} fails by {id}, whose end {} was told {:?} ago",
                        scene.names[at],
                        scene.names[abort.agent],
                        scene.now - abort.at
                    ));
                }
            }
        }
        Ok(())
    }
}
