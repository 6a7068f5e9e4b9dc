//! Is this address of a server there? A detector over the outcomes of probes.
//!
//! The intuition: one lost packet is no news, and waiting for three slow probes is too late. So the first failure
//! starts a *burst* of probes that overlap, and the server counts as down only when a whole burst has failed. At
//! 20% loss a burst of eight fails by chance once in 390,000; a dead door fails it in about two seconds. The burst goes on
//! to fourteen: then one observer may decide alone.
//!
//! ```text
//!              rise successes                     first failure
//!   unknown ──────────────────▶ up ◀────────────────────────────▶ suspected
//!     ▲│                        ▲            any success              │
//!     ││ fall failures          │ rise successes, then the calm       │ fall failures
//!     │└──────────────────────▶ down ◀────────────────────────────────┘
//!     └── no outcome for long ── from any state
//! ```
//!
//! What was down again and again must also be calm for a while, with no half a burst failing: the first time not at all,
//! then five seconds by default, and twice as long with each further time; what was added is halved by five minutes of
//! calm. An observation has an age: when no
//! outcome comes any more, whatever stalled, what is known is *unknown*, not *up*.
//!
//! What it does not do: read a clock or send a probe. It says when the next one is due.

use std::time::Duration;

use daemun_fleet::config::Probe;
use serde::{Deserialize, Serialize};

/// More doublings than this say nothing more.
const FLAPS_MAX: u32 = 8;

/// What an observer says of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// It has not been looked at, or not for too long.
    #[default]
    Unknown,
}

/// The result of one probe: `Err` says what went wrong.
pub type Outcome = Result<(), String>;

/// The detector for one address of a server.
#[derive(Clone, Debug, Default)]
pub struct Health {
    verdict: Verdict,
    /// The verdict was reached by probes, not taken over from before a restart.
    is_fresh: bool,
    is_sure: bool,
    failures_in_a_row: u32,
    successes_in_a_row: u32,
    /// When the first of the failures in a row came.
    failing_since: Duration,
    /// When the first success came after it was down, or after half a burst failed.
    calm_since: Duration,
    down_since: Duration,
    flaps: u32,
    up_since: Duration,
    last_failure: String,
    last_at: Duration,
}

impl Health {
    /// Takes in one outcome that is `old`; a change of verdict is returned.
    pub fn observe(
        &mut self,
        probe: &Probe,
        now: Duration,
        old: Duration,
        outcome: Outcome,
    ) -> Option<Verdict> {
        let is_overtaken =
            outcome.is_ok() && self.is_failing() && now.saturating_sub(old) < self.failing_since;
        if is_overtaken {
            return None; // from before the failures, by way of another observer
        }
        self.last_at = now;
        let next = match outcome {
            Ok(()) => {
                // A lost probe is no news here either: where many are lost, calm would else never come.
                if self.failures_in_a_row >= probe.fall.div_ceil(2) || self.calm_since < self.down_since {
                    self.calm_since = now;
                }
                self.failures_in_a_row = 0;
                self.successes_in_a_row = self.successes_in_a_row.saturating_add(1);
                let is_calm = self.verdict != Verdict::Down
                    || now.saturating_sub(self.calm_since) >= self.penalty(probe);
                (self.successes_in_a_row >= probe.rise && is_calm).then_some(Verdict::Up)
            }
            Err(why) => {
                if !self.is_failing() {
                    self.failing_since = now;
                }
                self.successes_in_a_row = 0;
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                self.last_failure = why;
                (self.failures_in_a_row >= probe.fall).then_some(Verdict::Down)
            }
        };
        let changed = next.filter(|next| *next != self.verdict);
        self.verdict = changed.unwrap_or(self.verdict);
        self.is_sure =
            self.verdict == Verdict::Down && (self.is_sure || self.failures_in_a_row >= probe.fall_alone);
        self.is_fresh |= next == Some(Verdict::Up) || self.is_sure;
        let changed = changed?;
        match changed {
            Verdict::Down => {
                self.down_since = now;
                let calm = now.saturating_sub(self.up_since).as_millis();
                let halvings = calm.checked_div(probe.flap_penalty_max.as_millis()).unwrap_or(u128::MAX);
                let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
                self.flaps = self.flaps.checked_shr(halvings).unwrap_or(0).min(FLAPS_MAX) + 1;
            }
            Verdict::Up | Verdict::Unknown => self.up_since = now,
        }
        Some(changed)
    }

    /// Forgets what is too old to be known; true if that was something.
    pub fn forget(&mut self, now: Duration, oldest: Duration) -> bool {
        let is_old = self.verdict != Verdict::Unknown && now.saturating_sub(self.last_at) > oldest;
        if is_old {
            self.verdict = Verdict::Unknown;
            (self.is_fresh, self.is_sure) = (false, false);
            (self.failures_in_a_row, self.successes_in_a_row) = (0, 0);
        }
        is_old
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// A verdict that was reached before a restart, to go on from.
    pub fn resume(verdict: Verdict, now: Duration) -> Self {
        Self { verdict, last_at: now, up_since: now, ..Self::default() }
    }

    /// Whether the verdict was reached by probes since the start.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// What the last failed probe said.
    pub fn last_failure(&self) -> &str {
        &self.last_failure
    }

    fn is_failing(&self) -> bool {
        self.failures_in_a_row > 0
    }

    /// It is down by so many failures that one observer may decide alone.
    pub fn is_sure(&self) -> bool {
        self.is_sure
    }

    /// It failed, and whether it is down is being found out.
    pub fn is_suspected(&self) -> bool {
        self.is_failing() && self.verdict != Verdict::Down
    }

    /// Whether the outcome just observed begins a burst: then the next probe is due now, whenever it would have been.
    pub fn begins_burst(&self) -> bool {
        self.is_suspected() && self.failures_in_a_row == 1
    }

    /// Time from the start of one probe to the start of the next; `calm`: while there is nothing to find out in haste.
    pub fn gap(&self, probe: &Probe, calm: Duration) -> Duration {
        // A server that comes back, or is seen for the first time, is not kept waiting either.
        let is_coming_back =
            (1..=probe.rise).contains(&self.successes_in_a_row) && self.verdict != Verdict::Up;
        let is_rising = self.failures_in_a_row == 0 && (!self.is_fresh || is_coming_back);
        // Down by a burst that is enough for several observers, but not for one alone.
        let is_unsure = self.is_failing() && self.verdict == Verdict::Down && !self.is_sure;
        if self.is_suspected() || is_unsure || is_rising { probe.burst_gap.min(calm) } else { calm }
    }

    fn penalty(&self, probe: &Probe) -> Duration {
        match self.flaps {
            0 | 1 => Duration::ZERO,
            flaps => {
                let doubled = probe.flap_penalty.saturating_mul(1 << (flaps - 2).min(FLAPS_MAX));
                doubled.min(probe.flap_penalty_max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Probe = Probe {
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(800),
        fall: 8,
        fall_alone: 14,
        burst_gap: Duration::from_millis(150),
        rise: 3,
        budget: 200,
        flap_penalty: Duration::from_secs(5),
        flap_penalty_max: Duration::from_secs(300),
    };

    fn fail() -> Outcome {
        Err("connection refused".to_owned())
    }

    /// Feeds outcomes, `.` a success and `x` a failure; the changes with their positions.
    fn feed(health: &mut Health, outcomes: &str) -> Vec<(usize, Verdict)> {
        let outcome = |mark| if mark == '.' { Ok(()) } else { fail() };
        let changes = outcomes.chars().enumerate();
        let begun = health.last_at + PROBE.burst_gap;
        let now = |at: usize| begun + PROBE.burst_gap * at as u32;
        changes
            .filter_map(|(at, mark)| {
                Some((at, health.observe(&PROBE, now(at), Duration::ZERO, outcome(mark))?))
            })
            .collect()
    }

    fn gap(health: &Health) -> Duration {
        health.gap(&PROBE, PROBE.interval)
    }

    #[test]
    fn down_by_a_whole_burst_up_by_three() {
        let mut health = Health::default();
        assert_eq!(feed(&mut health, "..."), [(2, Verdict::Up)]);
        assert_eq!(feed(&mut health, "xxxxxxxx"), [(7, Verdict::Down)]);
        assert!(!health.is_sure(), "not by enough for one alone");
        assert_eq!(feed(&mut health, "xxxxx"), []);
        assert!(!health.is_sure());
        assert_eq!(feed(&mut health, "x"), []);
        assert!(health.is_sure());
        assert_eq!(feed(&mut health, "..x..."), [(5, Verdict::Up)]);
        assert!(!health.is_sure());
    }

    #[test]
    fn one_success_ends_the_suspicion() {
        let mut health = Health::default();
        feed(&mut health, "...");
        assert_eq!(feed(&mut health, "xxxxxxx.xxxxxxx.x"), []);
        assert!(health.is_suspected());
        assert_eq!(gap(&health), PROBE.burst_gap);
        assert_eq!(feed(&mut health, "."), []);
        assert_eq!(gap(&health), PROBE.interval);
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
        let mut health = Health::resume(Verdict::Down, Duration::ZERO);
        assert_eq!(feed(&mut health, "xx"), []);
        assert_eq!((gap(&health), health.is_suspected()), (PROBE.burst_gap, false), "is it still?");
        assert_eq!(feed(&mut health, "xxxxxxxxxxxx"), []);
        assert_eq!((gap(&health), health.is_sure()), (PROBE.interval, true));
        feed(&mut health, ".");
        assert_eq!(gap(&health), PROBE.burst_gap);
    }

    #[test]
    fn unseen_is_neither() {
        let mut health = Health::default();
        assert_eq!(health.verdict(), Verdict::Unknown);
        assert_eq!(feed(&mut health, "xxxxxxxx"), [(7, Verdict::Down)]);
        assert_eq!(health.last_failure(), "connection refused");
    }

    #[test]
    fn what_flaps_must_be_calm_for_longer_each_time() {
        let mut health = Health::default();
        let mut now = Duration::ZERO;
        let mut calm_needed = |gap_before: u64| {
            now += Duration::from_secs(gap_before);
            for _ in 0..8 {
                health.observe(&PROBE, now, Duration::ZERO, fail());
            }
            let begun = now;
            loop {
                now += Duration::from_millis(500);
                if health.observe(&PROBE, now, Duration::ZERO, Ok(())) == Some(Verdict::Up) {
                    return (now - begun).as_secs();
                }
            }
        };
        assert_eq!([0, 0, 0, 0].map(&mut calm_needed), [1, 5, 10, 20]);
        assert_eq!(calm_needed(310), 10, "four flaps, halved by five minutes, and one more");
        assert_eq!(calm_needed(3600), 1);
    }

    /// Found by the simulator: where a fifth of the probes is lost, twenty seconds without a loss never come.
    #[test]
    fn lost_probes_do_not_keep_it_down() {
        let mut health = Health::default();
        let mut at = 0;
        let mut observe = |outcome: Outcome| {
            at += 1;
            health.observe(&PROBE, Duration::from_millis(500 * at), Duration::ZERO, outcome)
        };
        for _ in 0..3 {
            (0..8).for_each(|_| _ = observe(fail()));
            (0..40).for_each(|_| _ = observe(Ok(())));
        }
        (0..8).for_each(|_| _ = observe(fail()));
        let back = (0..60)
            .position(|probe| observe(if probe % 5 == 4 { fail() } else { Ok(()) }) == Some(Verdict::Up));
        assert_eq!(back, Some(42), "twenty seconds, and the next three in a row");
    }

    #[test]
    fn a_success_from_before_the_failures_ends_no_suspicion() {
        let mut health = Health::default();
        feed(&mut health, "...");
        let second = Duration::from_secs(1);
        health.observe(&PROBE, 10 * second, Duration::ZERO, fail());
        health.observe(&PROBE, 11 * second, 2 * second, Ok(()));
        assert!(health.is_suspected());
        health.observe(&PROBE, 11 * second, second / 2, Ok(()));
        assert!(!health.is_suspected());
    }

    #[test]
    fn an_old_observation_is_unknown_not_up() {
        let mut health = Health::default();
        feed(&mut health, "...");
        let oldest = Duration::from_secs(3);
        assert!(!health.forget(Duration::from_secs(3), oldest));
        assert!(health.forget(Duration::from_secs(4), oldest));
        assert_eq!(health.verdict(), Verdict::Unknown);
        assert!(!health.forget(Duration::from_secs(5), oldest), "once");
    }
}
