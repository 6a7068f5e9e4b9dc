//! Time as an argument: two functions, given by whoever starts the process, or made by hand in a test.

use std::time::Duration;

/// Where a shell gets its time from.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Time since some moment that does not change while the process lives; never goes back.
    pub monotonic: fn() -> Duration,
    /// Milliseconds of Unix time, which may jump: for people, not for decisions.
    pub unix_ms: fn() -> u64,
}
