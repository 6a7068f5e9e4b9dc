//! What fails on purpose at one moment fails by one drill: whoever begins another does so only when all have heard that it
//! holds over the one before. Who was forgotten may not have heard; who is stopped does nothing.

use super::Checker;
use super::armed_first::forget;
use crate::scene::Scene;

/// Who was forgotten at some time, as any view had it.
#[derive(Default)]
pub(crate) struct OneAtATime {
    forgotten: Vec<bool>,
}

impl Checker for OneAtATime {
    fn name(&self) -> &'static str {
        "one at a time"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        forget(&mut self.forgotten, scene);
        let mut failing = (0..scene.count()).filter(|at| !self.forgotten[*at]).filter_map(|at| {
            let process = &scene.drills.processes[at];
            let is_there = process.lives.value || process.is_killed;
            process.fails.value.filter(|_| is_there).map(|number| (at, number))
        });
        let Some((first, number)) = failing.next() else { return Ok(()) };
        match failing.find(|(_, other)| *other != number) {
            None => Ok(()),
            Some((at, other)) => Err(format!(
                "{} fails by {}, and {} by {}",
                scene.names[first],
                scene.drills.begun[number].id,
                scene.names[at],
                scene.drills.begun[other].id
            )),
        }
    }
}
