//! No process fails by a drill after the drill's time, whatever becomes of anyone else.
//!
//! The time of a drill is in its word, and runs from when the word was said: the agent that was told has exactly that, by its
//! own clock, which drifts. To another the word comes in an answer that says how much time is left, as it was when the answer
//! was written; so its timer is late by as long as the answer was under way, and by what it was late before it was written: of
//! its author's timer, and of that one's last look at the clock, which is a tick. An answer that took longer than the asker
//! waits, hold and grace, is not used; it looks once a tick; and after a stop, unless that was so long that it counts as a
//! sleep. The word comes by way of at most all others, and who begins again hears anew. Of several answers the one that leaves
//! the least time counts, so who is connected with the one that was told is late by what one message takes.
//!
//! A process looks at its timer ten times a second; while it is stopped it cannot, and looks when it goes on. One that was
//! killed is started by another, whose time was set before.

use std::time::Duration;

use daemun_sync::core::TICK;
use daemun_sync::pull::{GRACE, HOLD, SILENCE};

use crate::checkers::Checker;
use crate::checkers::knowledge::RETRY;
use crate::drills::truth::{Begun, LOOK, drift};
use crate::scene::Scene;

/// Times are cut to milliseconds, again and again.
const ROUNDING: Duration = Duration::from_millis(20);

/// It needs no memory.
pub(crate) struct OnTime;

impl Checker for OnTime {
    fn name(&self) -> &'static str {
        "on time"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        for (at, process) in scene.drills.processes.iter().enumerate() {
            let Some(number) = process.fails.value else { continue };
            if !process.lives.value && !process.is_killed {
                continue;
            }
            let drill = &scene.drills.begun[number];
            let bound = over_by(scene, drill, at);
            if scene.now > bound && (process.is_killed || scene.now > process.lives.since + LOOK + ROUNDING) {
                return Err(format!(
                    "{} still fails by {}, begun {:?} ago; its time is {:?}, over {:?} ago",
                    scene.names[at],
                    drill.id,
                    scene.now - drill.at,
                    drill.bound,
                    scene.now - bound
                ));
            }
        }
        Ok(())
    }
}

/// When a process surely does not fail by a drill any more.
pub(crate) fn over_by(scene: &Scene, drill: &Begun, at: usize) -> Duration {
    scene.runs_since(drill) + drill.bound + drift(drill.bound) + late(scene, drill, at) + LOOK + ROUNDING
}

/// How late a process's timer may be.
fn late(scene: &Scene, drill: &Begun, at: usize) -> Duration {
    let count = scene.count();
    let begun_since = |agent: &usize| scene.agents[*agent].begun_at > drill.at;
    let births = (0..count).filter(begun_since).count();
    if at == drill.agent && births == 0 {
        return Duration::ZERO;
    }
    let is_connected = scene.connections(at)[drill.agent] >= RETRY + scene.sharing();
    let mut age = if is_connected && births == 0 { scene.slowest() } else { HOLD + GRACE + TICK };
    // What lay in a buffer.
    if scene.drills.stopped_at.is_some_and(|stopped| stopped + SILENCE >= drill.at) {
        age += SILENCE;
    }
    (age + TICK) * u32::try_from(count - 1 + births).unwrap_or(u32::MAX)
}
