//! The one place that reads the clocks.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemun_fleet::Clock;

static START: LazyLock<Instant> = LazyLock::new(now);

#[expect(clippy::disallowed_methods, reason = "this file owns the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Time since the first call.
pub(crate) fn monotonic() -> Duration {
    now().saturating_duration_since(*START)
}

/// Milliseconds of Unix time.
#[expect(clippy::disallowed_methods, reason = "this file owns the clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The machine's clocks.
pub(crate) fn machine() -> Clock {
    Clock { monotonic, unix_ms }
}
