//! What comes in, a second: from the counters of ranking classes, over some seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::Steering;
use daemun_fleet::meter::Counted;
use daemun_sync::last_sent;
use daemun_sync::rates::{ByClass, Measured};
use tokio::sync::watch;

use crate::clock;
use crate::world::World;

/// A rate is over at least so long: shorter is noise.
pub(crate) const WINDOW: Duration = Duration::from_secs(5);

/// Counters at the beginning of the window, and the rates of the one before.
#[derive(Debug)]
pub(crate) struct Sampler {
    worlds: watch::Sender<Arc<World>>,
    begun: Duration,
    steering: Arc<Steering>,
    counts: [BTreeMap<String, u64>; 2],
    measured: Measured,
}

impl Sampler {
    /// Begins a window.
    pub(crate) fn new(worlds: watch::Sender<Arc<World>>) -> Self {
        let steering = Arc::clone(&last_sent(&worlds).steering);
        let counts = counts(&steering);
        Self { worlds, begun: clock::monotonic(), steering, counts, measured: Measured::default() }
    }

    /// The rates of the last whole window.
    pub(crate) fn measure(&mut self) -> Measured {
        let passed = clock::monotonic().saturating_sub(self.begun);
        if passed < WINDOW {
            return self.measured.clone();
        }
        let steering = Arc::clone(&last_sent(&self.worlds).steering);
        if !Arc::ptr_eq(&steering, &self.steering) {
            // Files were read again, and counting began anew.
            self.counts = [BTreeMap::new(), BTreeMap::new()];
            self.steering = steering;
        }
        let now = counts(&self.steering);
        let rates = |at: usize| -> ByClass {
            let rate = |(class, count): (&String, &u64)| {
                let counted = count.saturating_sub(self.counts[at].get(class).copied().unwrap_or(0));
                (class.clone(), (counted as f64 / passed.as_secs_f64()).round() as u32)
            };
            now[at].iter().map(rate).filter(|(_, rate)| *rate > 0).collect()
        };
        self.measured = Measured { requests: rates(0), queries: rates(1) };
        self.counts = now;
        self.begun = clock::monotonic();
        self.measured.clone()
    }
}

fn counts(steering: &Steering) -> [BTreeMap<String, u64>; 2] {
    [steering.counted(Counted::Request), steering.counted(Counted::Query)]
}
