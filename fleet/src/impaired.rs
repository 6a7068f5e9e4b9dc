//! A part of the process that fails on purpose: what it leaves without an answer, and what it answers later.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::drill::Handicap;

/// What is to happen to something that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It is answered.
    None,
    /// It is answered so much later.
    For(Duration),
    /// It is not answered while the drill lasts.
    UntilWell,
}

/// How a door or a name server fails now. While all is well it costs one load for each request.
#[derive(Debug)]
pub struct Impaired {
    /// Percentage that gets no answer in the low byte, milliseconds of delay above it; 0: all is well.
    how: AtomicU32,
    count: AtomicU32,
    changes: watch::Sender<u32>,
}

impl Default for Impaired {
    fn default() -> Self {
        Self { how: AtomicU32::new(0), count: AtomicU32::new(0), changes: watch::Sender::new(0) }
    }
}

impl Impaired {
    /// From now on fails so; whoever waits for the end is told.
    pub fn set(&self, handicap: &Handicap) {
        let how = handicap.slow_ms.min(u32::MAX >> 8) << 8 | u32::from(handicap.dead_percent.min(100));
        self.how.store(how, Ordering::Relaxed);
        self.changes.send_replace(how);
    }

    /// What is to happen to the next that comes in.
    pub fn next(&self) -> Pause {
        let how = self.how.load(Ordering::Relaxed);
        if how == 0 {
            return Pause::None;
        }
        // Every so many-th, evenly: 37 and 100 have no common divisor.
        let turn = self.count.fetch_add(37, Ordering::Relaxed) % 100;
        match how >> 8 {
            _ if turn < how & 0xff => Pause::UntilWell,
            0 => Pause::None,
            ms => Pause::For(Duration::from_millis(ms.into())),
        }
    }

    /// Waits as long as it takes.
    pub async fn wait(&self, pause: Pause) {
        match pause {
            Pause::None => {}
            Pause::For(delay) => {
                // It ends with what made it late.
                let _ = timeout(delay, self.changes.subscribe().wait_for(|how| how >> 8 == 0)).await;
            }
            Pause::UntilWell => {
                // Its sender is ours: it does not end before.
                let _ = self.changes.subscribe().wait_for(|how| how & 0xff == 0).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(dead_percent: u8, slow_ms: u32) -> Handicap {
        Handicap { dead_percent, slow_ms, ..Handicap::default() }
    }

    #[test]
    fn as_many_go_unanswered_as_are_meant_to() {
        let impaired = Impaired::default();
        assert_eq!(impaired.next(), Pause::None);
        for percent in [0, 1, 10, 50, 99, 100] {
            impaired.set(&dead(percent, 20));
            let unanswered = (0..1000).filter(|_| impaired.next() == Pause::UntilWell).count();
            assert_eq!(unanswered, usize::from(percent) * 10);
        }
        impaired.set(&dead(0, 20));
        assert_eq!(impaired.next(), Pause::For(Duration::from_millis(20)));
        impaired.set(&dead(0, 0));
        assert_eq!(impaired.next(), Pause::None);
    }
}
