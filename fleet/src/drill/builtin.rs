//! The scenarios that everyone has: one for each fault, with what holds where a scenario of the operator's own is silent.

use super::{Fault, Limits, Load, Objectives, Scenario, Step};
use crate::config::defaults;

/// Names of the built-in scenarios, and what each does.
pub const BUILTINS: [(&str, &str); 6] = [
    ("drain", "sends 10, 50, then 100% of the target's users elsewhere, as an operator would"),
    ("blackhole", "front doors and name servers of the target leave what they are asked without an answer"),
    ("partition", "the target's stores and those of the others do not hear each other"),
    ("kill", "the target's process is killed, and started again in the end"),
    ("slow", "front doors and name servers of the target, or the stores of a link, answer 200 ms later"),
    ("agent-dead", "the target's agent neither speaks nor decides"),
];

/// The built-in scenario of this name.
pub fn builtin(name: &str, objectives: Objectives) -> Option<Scenario> {
    let step = |fault| Step { faults: vec![fault], hold_ms: defaults::HOLD_MS };
    let steps = match name {
        "drain" => {
            let drain = |share| Step { hold_ms: defaults::DRAIN_HOLD_MS, ..step(Fault::Drain { share }) };
            defaults::DRAIN_SHARES.map(drain).to_vec()
        }
        "blackhole" => vec![step(Fault::Blackhole { share: defaults::SHARE })],
        "partition" => vec![step(Fault::Partition)],
        "kill" => vec![step(Fault::Kill)],
        "slow" => vec![step(Fault::Slow { delay_ms: defaults::DELAY_MS })],
        "agent-dead" => vec![step(Fault::AgentDead)],
        _ => return None,
    };
    let limits = limits(&steps);
    Some(Scenario {
        name: name.to_owned(),
        target: None,
        steps,
        load: LOAD,
        durability: defaults::DURABILITY.to_owned(),
        limits,
        objectives,
        baseline_ms: defaults::BASELINE_MS,
        recover_ms: defaults::RECOVER_MS,
    })
}

/// The users where a scenario says nothing of them.
pub(crate) const LOAD: Load = Load {
    users: defaults::USERS,
    visits_per_second: defaults::VISITS_PER_SECOND,
    patience_ms: defaults::PATIENCE_MS,
};

/// The limits where a scenario says nothing of them: where users fail until the fault is noticed, that alone must not end
/// it.
pub(crate) fn limits(steps: &[Step]) -> Limits {
    let fails_users = |fault: &Fault| matches!(fault, Fault::Kill | Fault::Blackhole { .. });
    let is_felt = steps.iter().flat_map(|step| &step.faults).any(fails_users);
    let errors_percent = if is_felt { defaults::ERRORS_PERCENT_FELT } else { defaults::ERRORS_PERCENT };
    Limits { errors_percent, p99_ms: defaults::P99_MS, lag_ms: defaults::LAG_MS }
}
