//! What may go wrong, as data; and what comes of all that is wrong at a time.

use std::time::Duration;

use daemun_sync::drill::plan::Asked;
use daemun_sync::verbs::Told;

use crate::scene::{Door, Scene, Sight, Way};

/// What is wrong with a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    Cut,
    /// In thousandths.
    Loss(u32),
    /// So much longer, microseconds.
    Delay(u64),
}

/// Something that goes wrong, and is well again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Door {
        of: usize,
        door: Door,
    },
    /// The agent's process dies, and is started again in the end.
    Crash {
        agent: usize,
        loses_disk: bool,
    },
    /// The agent's process is stopped, and goes on in the end.
    Pause {
        agent: usize,
    },
    Link {
        from: usize,
        to: usize,
        harm: Harm,
    },
    Sight {
        by: usize,
        of: usize,
        harm: Harm,
    },
    /// Outcomes come later; none: never.
    Slow {
        by: usize,
        of: usize,
        late_us: Option<u64>,
    },
    Lies {
        by: usize,
        of: usize,
    },
}

/// Something that happens at a moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    Begin {
        number: usize,
        fault: Fault,
    },
    End {
        number: usize,
    },
    ClockJumps {
        agent: usize,
        by_ms: i64,
    },
    /// An operator speaks to an agent, or to the next that lives.
    Tell {
        agent: usize,
        told: Told,
    },
    /// The same, to have a drill begun.
    Drill {
        agent: usize,
        asked: Box<Asked>,
    },
    /// The same, to have the drill ended that is known there.
    Abort {
        agent: usize,
    },
}

/// How all is when nothing is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Calm {
    pub(crate) links: Vec<Vec<Way>>,
    pub(crate) sights: Vec<Vec<Way>>,
}

fn harmed(mut way: Way, harm: Harm) -> Way {
    match harm {
        Harm::Cut => way.is_cut = true,
        Harm::Loss(loss) => way.loss = way.loss.max(loss),
        Harm::Delay(us) => way.delay_us += us,
    }
    way
}

/// Makes the scene what it is under these faults; agents' processes are not its business.
pub(crate) fn apply<'a>(calm: &Calm, faults: impl Iterator<Item = &'a Fault> + Clone, scene: &mut Scene) {
    let now: Duration = scene.now;
    for from in 0..scene.count() {
        let door = faults.clone().find_map(|fault| match fault {
            Fault::Door { of, door } if *of == from => Some(*door),
            _ => None,
        });
        scene.doors[from].set(door.unwrap_or(Door::Well), now);
        for to in 0..scene.count() {
            let mut way = calm.links[from][to];
            let mut sight = Sight { way: calm.sights[from][to], lies: false, slow_us: Some(0) };
            for fault in faults.clone() {
                match fault {
                    Fault::Link { from: f, to: t, harm } if (*f, *t) == (from, to) => {
                        way = harmed(way, *harm)
                    }
                    Fault::Sight { by, of, harm } if (*by, *of) == (from, to) => {
                        sight.way = harmed(sight.way, *harm);
                    }
                    Fault::Slow { by, of, late_us } if (*by, *of) == (from, to) => sight.slow_us = *late_us,
                    Fault::Lies { by, of } if (*by, *of) == (from, to) => sight.lies = true,
                    _ => {}
                }
            }
            scene.links[from][to].set(way, now);
            scene.sights[from][to].set(sight, now);
        }
    }
}
