//! The word by which a drill is led: an operator's word like any other, so that every agent hears it, keeps it, and ends it by
//! a timer of its own.
//!
//! ```text
//!  armed ──▶ step 0 ──▶ step 1 ──▶ … ──▶ ended ──▶ closed
//!    └──────────┴──────────┴── aborted, expired ──▶ ended
//! ```
//!
//! Stages only rise: of two about the same drill the later holds, so an end that anyone has said is never taken back by a step
//! that is still on its way.

use daemun_fleet::drill::{DrillView, Fault, Scenario, Target};
use serde::{Deserialize, Serialize};

use super::report::{Check, Ended, Outcome};

/// How far a drill has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Every agent is to start its timer; nothing fails.
    Armed,
    /// The faults of this step are in force.
    Step(u32),
    /// Nothing fails any more; it is watched how all comes back.
    Ended(Outcome),
    /// It is over.
    Closed(Outcome),
}

impl Stage {
    /// Of two stages of one drill the higher holds.
    pub(crate) fn rank(&self) -> (u32, Ended, &str) {
        match self {
            Stage::Armed => (0, Ended::Skipped, ""),
            Stage::Step(step) => (step.saturating_add(1).min(u32::MAX - 2), Ended::Skipped, ""),
            Stage::Ended(outcome) => (u32::MAX - 1, outcome.ended, &outcome.why),
            Stage::Closed(outcome) => (u32::MAX, outcome.ended, &outcome.why),
        }
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Stage::Ended(outcome) | Stage::Closed(outcome) => Some(outcome),
            Stage::Armed | Stage::Step(_) => None,
        }
    }
}

/// A drill as its agents tell each other of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Which.
    pub id: String,
    /// All of it, the target filled in.
    pub scenario: Scenario,
    /// Where.
    pub target: Target,
    /// The datacenter whose agent leads it.
    pub conductor: String,
    /// The rules that were checked before.
    pub checks: Vec<Check>,
    /// How far it is.
    pub stage: Stage,
}

impl Word {
    /// The same at another stage.
    pub fn at(&self, stage: Stage) -> Self {
        Self { stage, ..self.clone() }
    }

    /// The end that comes by itself.
    pub(crate) fn expired(&self) -> Self {
        let why = "its time was over, and nobody had ended it".to_owned();
        self.at(Stage::Ended(Outcome { ended: Ended::Expired, why }))
    }

    /// Something may fail by it, now or soon.
    pub fn binds(&self) -> bool {
        self.stage.outcome().is_none()
    }

    /// What fails now.
    pub fn faults(&self) -> &[Fault] {
        match self.stage {
            Stage::Step(step) => self
                .scenario
                .steps
                .get(usize::try_from(step).unwrap_or(usize::MAX))
                .map_or(&[], |step| &step.faults),
            _ => &[],
        }
    }

    fn rest_ms(&self, step: u32) -> u64 {
        let first = usize::try_from(step).unwrap_or(usize::MAX);
        self.scenario.steps.iter().skip(first).map(|step| step.hold_ms).sum()
    }

    /// As it stands in a view.
    pub(crate) fn view(&self, by: &str, for_ms: u64) -> DrillView {
        DrillView {
            id: self.id.clone(),
            scenario: self.scenario.name.clone(),
            target: self.target.clone(),
            conductor: self.conductor.clone(),
            step: match self.stage {
                Stage::Step(step) => Some(step),
                _ => None,
            },
            faults: self.faults().to_vec(),
            by: by.to_owned(),
            for_ms,
            rest_ms: match self.stage {
                Stage::Step(step) => self.rest_ms(step),
                _ => 0,
            },
        }
    }
}
