//! The two clocks of a machine: both drift, one jumps.

use std::time::Duration;

use daemun_sync::core::Moment;

/// The first of November 2026.
const BEGIN_UNIX_MS: i64 = 1_793_491_200_000;

/// The clocks of one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineClock {
    /// What the monotonic one showed at the beginning, microseconds.
    pub(crate) boot_us: u64,
    /// By how much it is too fast, millionths.
    pub(crate) drift_ppm: i64,
    /// By how much the wall clock is ahead, milliseconds.
    pub(crate) ahead_ms: i64,
}

impl MachineClock {
    /// What they show at a true time, microseconds since the beginning.
    pub(crate) fn at(&self, now_us: u64) -> Moment {
        let passed = self.passed(now_us);
        let unix_ms = BEGIN_UNIX_MS + self.ahead_ms + passed as i64 / 1000;
        Moment { now: Duration::from_micros(self.boot_us + passed), unix_ms: unix_ms.max(0).unsigned_abs() }
    }

    fn passed(&self, now_us: u64) -> u64 {
        let drift = i128::from(now_us) * i128::from(self.drift_ppm) / 1_000_000;
        now_us.saturating_add_signed(drift as i64)
    }

    /// The true time at which the monotonic one shows this, or just after.
    pub(crate) fn true_us(&self, shown: Duration) -> u64 {
        let shown = u64::try_from(shown.as_micros()).unwrap_or(u64::MAX);
        let passed = u128::from(shown.saturating_sub(self.boot_us));
        let rate = u128::from(1_000_000u64.saturating_add_signed(self.drift_ppm));
        u64::try_from(passed * 1_000_000 / rate + 2).unwrap_or(u64::MAX)
    }
}
