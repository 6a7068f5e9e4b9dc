//! How much comes in, as facts: a detector over what the processes of one datacenter measured.
//!
//! The intuition: a fact is written only when something has changed, and a rate changes all the time. So it is published in
//! steps of 5%, again only when it has left a band of one and a half steps around the last, and no more often than every
//! ten seconds. The band is the hysteresis of all that follows from rates.

use std::collections::BTreeMap;
use std::time::Duration;

/// One step, and half of another.
const BAND: f64 = 0.075;
/// Time between two publications.
const PAUSE: Duration = Duration::from_secs(10);
/// What a process measured counts for so long: some measurements may be missing.
const FRESH: Duration = Duration::from_secs(20);

/// Rates a second, by ranking class.
pub type ByClass = BTreeMap<String, u32>;

/// What one process measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Measured {
    /// Requests at doors.
    pub requests: ByClass,
    /// Queries for steered names.
    pub queries: ByClass,
}

/// The detector of one datacenter.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    by_node: BTreeMap<String, (Duration, Measured)>,
    published: Measured,
    published_at: Option<Duration>,
}

impl Rates {
    /// Takes in what a process measured over the last seconds.
    pub fn take(&mut self, now: Duration, node: &str, measured: Measured) {
        self.by_node.insert(node.to_owned(), (now, measured));
    }

    /// What to publish, if it is time to.
    pub fn settle(&mut self, now: Duration) -> Option<Measured> {
        if self.published_at.is_some_and(|at| now.saturating_sub(at) < PAUSE) {
            return None;
        }
        self.by_node.retain(|_, (at, _)| now.saturating_sub(*at) < FRESH);
        let sum = |of: fn(&Measured) -> &ByClass| {
            let mut sums = ByClass::new();
            for (class, rate) in self.by_node.values().flat_map(|(_, measured)| of(measured)) {
                let sum = sums.entry(class.clone()).or_default();
                *sum = sum.saturating_add(*rate);
            }
            sums
        };
        let measured = Measured { requests: sum(|m| &m.requests), queries: sum(|m| &m.queries) };
        let next = Measured {
            requests: keep(&self.published.requests, &measured.requests),
            queries: keep(&self.published.queries, &measured.queries),
        };
        if next == self.published {
            return None;
        }
        self.published_at = Some(now);
        self.published = next.clone();
        Some(next)
    }

    /// Nothing is measured, and nothing is to be taken back.
    pub fn are_idle(&self) -> bool {
        self.by_node.is_empty() && self.published == Measured::default()
    }

    /// What was published last: for a new life, which has to say it again.
    pub fn published(&self) -> &Measured {
        &self.published
    }
}

/// The new rates; those within their band stay as they were.
fn keep(published: &ByClass, measured: &ByClass) -> ByClass {
    let one = |(class, &rate): (&String, &u32)| {
        let was = published.get(class).copied().unwrap_or(0);
        let is_near = f64::from(rate.abs_diff(was)) <= (f64::from(was) * BAND).max(1.0);
        (class.clone(), if is_near { was } else { quantise(rate) })
    };
    measured.iter().map(one).filter(|(_, rate)| *rate > 0).collect()
}

/// The nearest power of 1.05.
fn quantise(rate: u32) -> u32 {
    if rate == 0 {
        return 0;
    }
    // Only the author computes it: its last bit need not be the same on every machine.
    let steps = (f64::from(rate).ln() / 1.05f64.ln()).round();
    1.05f64.powf(steps).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rate: u32) -> Measured {
        Measured { requests: [("a>b".to_owned(), rate)].into(), queries: ByClass::new() }
    }

    #[test]
    fn only_what_has_left_its_band_is_said_again() {
        let mut rates = Rates::default();
        let mut say = |second: u64, rate| {
            let now = Duration::from_secs(second);
            rates.take(now, "node", measured(rate));
            rates.settle(now).map(|said| said.requests.get("a>b").copied().unwrap_or(0))
        };
        let first = say(0, 1000).unwrap();
        assert!(first.abs_diff(1000) <= 25, "{first}");
        assert_eq!(say(5, 5000), None, "too soon");
        assert_eq!(say(10, 1060), None);
        assert_eq!(say(20, 960), None);
        assert!(say(30, 1200).unwrap().abs_diff(1200) <= 30);
        assert_eq!(say(40, 0), Some(0));
    }

    #[test]
    fn what_a_silent_process_measured_is_forgotten() {
        let mut rates = Rates::default();
        rates.take(Duration::ZERO, "a", measured(100));
        rates.take(Duration::from_secs(30), "b", measured(50));
        let said = rates.settle(Duration::from_secs(30)).unwrap();
        assert!(said.requests["a>b"].abs_diff(50) <= 3);
    }
}
