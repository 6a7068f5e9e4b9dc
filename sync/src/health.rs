//! Is this server there? A detector over the outcomes of probes.
//!
//! The intuition: one lost packet is no news, and waiting for three slow probes is too late. So the first failure
//! starts a *burst* of probes that overlap, and the server counts as down only when a whole burst has failed. At
//! 20% loss a burst of eight fails by chance once in 390,000; a dead door fails it in about two seconds.
//!
//! ```text
//!              rise successes                     first failure
//!   unknown ──────────────────▶ up ◀────────────────────────────▶ suspected
//!      │                        ▲            any success              │
//!      │ fall failures          │ rise successes                      │ fall failures
//!      └───────────────────────▶ down ◀───────────────────────────────┘
//! ```
//!
//! What it does not do: read a clock or send a probe. It says when the next one is due.

use std::time::Duration;

use daemun_fleet::config::Probe;
use serde::{Deserialize, Serialize};

/// What an observer says of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// The result of one probe: `Err` says what went wrong.
pub type Outcome = Result<(), String>;

/// The detector for one server.
#[derive(Clone, Debug, Default)]
pub struct Health {
    verdict: Option<Verdict>,
    /// The verdict was reached by probes, not taken over from before a restart.
    is_fresh: bool,
    failures_in_a_row: u32,
    successes_in_a_row: u32,
    last_failure: String,
}

impl Health {
    /// Takes in one outcome; a change of verdict is returned.
    pub fn observe(&mut self, probe: &Probe, outcome: Outcome) -> Option<Verdict> {
        let next = match outcome {
            Ok(()) => {
                self.failures_in_a_row = 0;
                self.successes_in_a_row = self.successes_in_a_row.saturating_add(1);
                (self.successes_in_a_row >= probe.rise).then_some(Verdict::Up)
            }
            Err(why) => {
                self.successes_in_a_row = 0;
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                self.last_failure = why;
                (self.failures_in_a_row >= probe.fall).then_some(Verdict::Down)
            }
        };
        self.is_fresh |= next.is_some();
        let changed = next.filter(|_| next != self.verdict);
        self.verdict = changed.or(self.verdict);
        changed
    }

    /// The verdict; none before the first.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// A verdict that was reached before a restart, to go on from.
    pub fn resume(verdict: Option<Verdict>) -> Self {
        Self { verdict, ..Self::default() }
    }

    /// Whether the verdict was reached by probes since the start.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// What the last failed probe said.
    pub fn last_failure(&self) -> &str {
        &self.last_failure
    }

    /// It failed, and whether it is down is being found out.
    pub fn is_suspected(&self) -> bool {
        self.failures_in_a_row > 0 && self.verdict != Some(Verdict::Down)
    }

    /// Whether the outcome just observed begins a burst: then the next probe is due now, whenever it would have been.
    pub fn begins_burst(&self) -> bool {
        self.is_suspected() && self.failures_in_a_row == 1
    }

    /// Time from the start of one probe to the start of the next.
    pub fn gap(&self, probe: &Probe) -> Duration {
        // A server that comes back, or is seen for the first time, is not kept waiting either.
        let is_rising = self.successes_in_a_row > 0 && (self.verdict != Some(Verdict::Up) || !self.is_fresh);
        if self.is_suspected() || is_rising { probe.burst_gap.min(probe.interval) } else { probe.interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Probe = Probe {
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(800),
        fall: 8,
        burst_gap: Duration::from_millis(150),
        rise: 3,
    };

    fn fail() -> Outcome {
        Err("connection refused".to_owned())
    }

    /// Feeds outcomes, `.` a success and `x` a failure; the changes with their positions.
    fn feed(health: &mut Health, outcomes: &str) -> Vec<(usize, Verdict)> {
        let outcome = |mark| if mark == '.' { Ok(()) } else { fail() };
        let changes = outcomes.chars().enumerate();
        changes.filter_map(|(at, mark)| Some((at, health.observe(&PROBE, outcome(mark))?))).collect()
    }

    #[test]
    fn down_by_a_whole_burst_up_by_three() {
        let mut health = Health::default();
        assert_eq!(feed(&mut health, "..."), [(2, Verdict::Up)]);
        assert_eq!(feed(&mut health, "xxxxxxxx"), [(7, Verdict::Down)]);
        assert_eq!(feed(&mut health, "xxxx"), []);
        assert_eq!(feed(&mut health, "..x..."), [(5, Verdict::Up)]);
    }

    #[test]
    fn one_success_ends_the_suspicion() {
        let mut health = Health::default();
        feed(&mut health, "...");
        assert_eq!(feed(&mut health, "xxxxxxx.xxxxxxx.x"), []);
        assert!(health.is_suspected());
        assert_eq!(health.gap(&PROBE), PROBE.burst_gap);
        assert_eq!(feed(&mut health, "."), []);
        assert_eq!(health.gap(&PROBE), PROBE.interval);
    }

    #[test]
    fn the_first_failure_begins_the_burst_and_no_other_does() {
        let mut health = Health::default();
        feed(&mut health, "...");
        assert!(!health.begins_burst());
        feed(&mut health, "x");
        assert!(health.begins_burst());
        feed(&mut health, "x");
        assert!(!health.begins_burst(), "it goes on");
        feed(&mut health, "xxxxxx.x");
        assert!(!health.begins_burst(), "down: there is nothing to find out in haste");
    }

    #[test]
    fn a_dead_server_is_probed_at_leisure_and_a_rising_one_at_once() {
        let mut health = Health::resume(Some(Verdict::Down));
        assert_eq!(feed(&mut health, "xx"), []);
        assert_eq!((health.gap(&PROBE), health.is_suspected()), (PROBE.interval, false));
        feed(&mut health, ".");
        assert_eq!(health.gap(&PROBE), PROBE.burst_gap);
    }

    #[test]
    fn unseen_is_neither() {
        let mut health = Health::default();
        assert_eq!(health.verdict(), None);
        assert_eq!(feed(&mut health, "xxxxxxxx"), [(7, Verdict::Down)]);
        assert_eq!(health.last_failure(), "connection refused");
    }
}
