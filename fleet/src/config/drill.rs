//! What the config says of drills: what they are to show, when they may begin, and the operator's own scenarios.

use crate::drill::{Blocked, Objectives, Scenario, Target, Window, builtin};

/// `[drill]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillConfig {
    /// What a drill is to show, where its scenario does not say otherwise.
    pub objectives: Objectives,
    /// The steered name that synthetic users ask for; none: there is none for the front door.
    pub name: Option<String>,
    /// When no drill begins.
    pub blocked: Vec<Blocked>,
    /// How the agent's process is killed and started again; none: it cannot be.
    pub commands: Option<DrillCommands>,
    /// Drills that begin by themselves.
    pub schedules: Vec<Schedule>,
    /// The operator's own, each with a name of its own.
    pub scenarios: Vec<Scenario>,
}

/// Commands of the fault `kill`, each a program with its absolute path, and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillCommands {
    /// Ends the agent's process at once.
    pub kill: Vec<String>,
    /// Starts it again.
    pub start: Vec<String>,
}

/// A drill that begins by itself, once in each of its windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Name of a scenario that there is.
    pub scenario: String,
    /// Its own target, else the scenario's.
    pub target: Target,
    /// When it begins.
    pub window: Window,
}

impl DrillConfig {
    /// The scenario of this name: the operator's own, else the built-in one.
    pub fn scenario(&self, name: &str) -> Option<Scenario> {
        let own = self.scenarios.iter().find(|scenario| scenario.name == name);
        own.cloned().or_else(|| builtin(name, self.objectives))
    }

    /// The blocked time that lies in a stretch of time or begins before its end, if there is one.
    pub fn blocked_between(&self, from_unix_ms: u64, to_unix_ms: u64) -> Option<&Blocked> {
        let begins =
            |blocked: &&Blocked| blocked.next(from_unix_ms).is_some_and(|(begin, _)| begin < to_unix_ms);
        self.blocked.iter().find(begins)
    }
}

#[cfg(test)]
mod tests;
