//! What is true of drills: which were begun, whom they handicap, who has shown them, who was told to end them.

use std::time::Duration;

use daemun_fleet::FleetView;
use daemun_fleet::drill::{DrillView, Handicap, Part};

use crate::scene::{Scene, Since, Word};

/// What of drills is broken: to show that a checker finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    No,
    /// A process goes by the view alone: it has no timer, and does not mind whether it was there when the drill was armed.
    Timer,
    /// A process does not mind that the view no longer has the drill.
    End,
    /// What starts again a process that was killed does so a minute late.
    Guard,
    /// Drills begin at their first step and without rules, and processes do as under [`Broken::Timer`].
    Arming,
}

impl Broken {
    /// [`Part::look`], or what is in its place.
    pub(crate) fn look(
        self,
        part: &mut Part,
        me: &str,
        drill: Option<&DrillView>,
        left: Option<Duration>,
        now: Duration,
    ) -> Handicap {
        match (self, drill) {
            (Broken::Timer | Broken::Arming, Some(drill)) => {
                let armed = DrillView { step: None, faults: Vec::new(), ..drill.clone() };
                part.look(me, None, None, now);
                part.look(me, Some(&armed), None, now);
                part.look(me, Some(drill), None, now).0
            }
            _ => part.look(me, drill, left, now).0,
        }
    }
}

/// A drill that an agent has begun.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) id: String,
    pub(crate) at: Duration,
    /// The agent that was told.
    pub(crate) agent: usize,
    /// The longest that it may take until nothing fails any more.
    pub(crate) bound: Duration,
    /// The datacenter, if it is one.
    pub(crate) target: Option<usize>,
    /// Whether an agent has ever published a view that has it.
    pub(crate) shown_by: Vec<bool>,
    /// When one first had it at one of its steps.
    pub(crate) injected_at: Option<Duration>,
}

/// The process around an agent.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// It has not crashed and is not stopped; its agent may be silenced.
    pub(crate) lives: Since<bool>,
    /// The drill that handicaps it.
    pub(crate) fails: Since<Option<usize>>,
    /// That drill has killed it.
    pub(crate) is_killed: bool,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(crate) begun: Vec<Begun>,
    /// Words to end one.
    pub(crate) aborts: Vec<Word>,
    pub(crate) processes: Vec<Process>,
    /// How much has gone wrong so far that is no drill's doing.
    pub(crate) incidents: u32,
    /// When a process was stopped last.
    pub(crate) stopped_at: Option<Duration>,
}

impl Truth {
    pub(crate) fn new(count: usize) -> Self {
        let process = Process { lives: Since::new(false), fails: Since::new(None), is_killed: false };
        Self {
            begun: Vec::new(),
            aborts: Vec::new(),
            processes: vec![process; count],
            incidents: 0,
            stopped_at: None,
        }
    }

    /// The number of the drill of this id.
    pub(crate) fn number(&self, id: &str) -> Option<usize> {
        self.begun.iter().position(|begun| begun.id == id)
    }

    /// An agent has published a view.
    pub(crate) fn shown(&mut self, agent: usize, view: Option<&FleetView>, now: Duration) {
        let Some(drill) = view.and_then(|view| view.drill.as_ref()) else { return };
        if let Some(number) = self.number(&drill.id) {
            self.begun[number].shown_by[agent] = true;
            if drill.step.is_some() {
                self.begun[number].injected_at.get_or_insert(now);
            }
        }
    }
}

/// A process looks so often whether it is still to fail.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Clocks drift by a fifth of a thousandth each.
pub(crate) fn drift(long: Duration) -> Duration {
    long / 2000
}

impl Scene {
    /// Since when the time of a drill surely runs: from when it was said. Who was down while its clock jumped knows no better
    /// than that it has as much time as it had before, until another tells; where all are so, nobody does.
    pub(crate) fn runs_since(&self, drill: &Begun) -> Duration {
        let is_misled = |agent: &usize| {
            let began_again = self.agents[*agent].begun_at;
            let jumped_at = self.jumped_at[*agent];
            began_again > drill.at && jumped_at.is_some_and(|at| at > drill.at && at < began_again)
        };
        let misled = (0..self.count()).filter(is_misled).map(|agent| self.agents[agent].begun_at);
        misled.max().unwrap_or(drill.at).max(drill.at)
    }
}
