//! Whether an origin may be asked. One that fails is left alone: for itself, and for those who would wait for it.
//!
//! ```text
//!            most of the last answers failed
//!  closed ────────────────────────────────────▶ open ◀───┐
//!    ▲                                     pause │        │ failure: the
//!    │            success                   over ▼        │ pause doubles
//!    └─────────────────────────────────── half-open ──────┘
//!                                     (one may ask)
//! ```

use std::time::Duration;

/// Failures count for so long.
const WINDOW_SECONDS: u64 = 10;
/// Fewer answers in the window say little.
const SAMPLES_MIN: u32 = 20;
/// One failed answer in so many is too many.
const FAILED_PART: u32 = 2;
/// For an origin that is asked rarely.
const FAILURES_IN_A_ROW: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A pause is longer by up to a fifth: those who saw the same failure do not come back together.
const JITTER_PARTS: u32 = 5;
/// A probe of which nothing was heard for so long was lost.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(60);

/// What an answer says about its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers; with a refusal too.
    Success,
    /// No connection, no answer in time, or a 5xx.
    Failure,
}

/// How an origin is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is asked.
    Closed,
    /// It is left alone.
    Open,
    /// It is tried with one request.
    HalfOpen,
}

/// The answers of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    second: u64,
    samples: u32,
    failures: u32,
}

/// One for each origin.
#[derive(Clone, Debug)]
pub struct Breaker {
    phase: Phase,
    seconds: [Second; WINDOW_SECONDS as usize],
    failures_in_a_row: u32,
    /// Pauses since it was closed.
    pauses: u32,
    /// Open: when the pause is over. Half-open: when the probe is taken for lost.
    until: Duration,
    /// The newest number of the jitter.
    number: u64,
}

impl Breaker {
    /// A closed one. Others with the same seed pause for as long.
    pub fn new(seed: u64) -> Self {
        Self {
            phase: Phase::Closed,
            seconds: Default::default(),
            failures_in_a_row: 0,
            pauses: 0,
            until: Duration::ZERO,
            number: mix(seed),
        }
    }

    /// Whether the origin may be asked now. Who hears yes asks, and tells how it went: it may be the one that is let through.
    pub fn may_ask(&mut self, now: Duration) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Open | Phase::HalfOpen if now >= self.until => {
                self.phase = Phase::HalfOpen;
                self.until = now + PROBE_LOST_AFTER;
                true
            }
            Phase::Open | Phase::HalfOpen => false,
        }
    }

    /// How asking went. While it is open, answers to what was asked before say nothing new.
    pub fn observe(&mut self, now: Duration, outcome: Outcome) {
        match (self.phase, outcome) {
            (Phase::Open, _) => {}
            (Phase::HalfOpen, Outcome::Success) => {
                *self = Self { number: self.number, ..Self::new(0) };
            }
            (Phase::HalfOpen, Outcome::Failure) => self.open(now),
            (Phase::Closed, outcome) => {
                self.count(now, outcome);
                if self.is_failing(now) {
                    self.open(now);
                }
            }
        }
    }

    /// How the origin is seen.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// From when on it may be asked, if no answer comes before.
    pub fn opens_at(&self, now: Duration) -> Duration {
        match self.phase {
            Phase::Closed => now,
            Phase::Open | Phase::HalfOpen => self.until,
        }
    }

    fn count(&mut self, now: Duration, outcome: Outcome) {
        let second = now.as_secs();
        let is_failure = outcome == Outcome::Failure;
        self.failures_in_a_row = if is_failure { self.failures_in_a_row.saturating_add(1) } else { 0 };
        let at = (second % WINDOW_SECONDS) as usize;
        if let Some(slot) = self.seconds.get_mut(at) {
            if slot.second != second {
                *slot = Second { second, ..Second::default() };
            }
            slot.samples = slot.samples.saturating_add(1);
            slot.failures = slot.failures.saturating_add(is_failure.into());
        }
    }

    fn is_failing(&self, now: Duration) -> bool {
        let is_recent = |slot: &&Second| slot.second + WINDOW_SECONDS > now.as_secs();
        let (mut samples, mut failures) = (0u32, 0u32);
        for slot in self.seconds.iter().filter(is_recent) {
            samples = samples.saturating_add(slot.samples);
            failures = failures.saturating_add(slot.failures);
        }
        let is_most = samples >= SAMPLES_MIN && failures.saturating_mul(FAILED_PART) >= samples;
        is_most || self.failures_in_a_row >= FAILURES_IN_A_ROW
    }

    fn open(&mut self, now: Duration) {
        let pause = PAUSE.saturating_mul(1 << self.pauses.min(16)).min(PAUSE_MAX);
        self.number = mix(self.number.wrapping_add(1));
        let jitter = pause / JITTER_PARTS * (self.number % 1024) as u32 / 1024;
        self.phase = Phase::Open;
        self.pauses = self.pauses.saturating_add(1);
        self.until = now + pause + jitter;
    }
}

/// A number well mixed (the finaliser of SplitMix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests;
