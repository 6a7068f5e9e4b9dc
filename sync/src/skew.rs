//! How far is a peer's clock from ours? A detector over the exchanges of the pull protocol, each with four timestamps
//! (as in RFC 5905 section 8): when the question left, when it arrived, when the answer left, when it arrived.
//!
//! The intuition: half of what both ways took, less what the peer held it, is how wrong the estimate can be; so of the last
//! exchanges the quickest is believed. Nothing is decided by it: it is shown, and it is an alarm when it is large.

use std::collections::VecDeque;
use std::time::Duration;

/// Exchanges that are looked back on: some seconds.
const EXCHANGES: usize = 8;

/// One exchange.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// When the question left, by our clock.
    pub asked_unix_ms: u64,
    /// When it arrived, by the peer's.
    pub received_unix_ms: u64,
    /// When the answer left, by the peer's.
    pub sent_unix_ms: u64,
    /// How long it was from the question's leaving to the answer's coming, by a clock that does not jump.
    pub took: Duration,
}

/// The peer's clock is ahead of ours by `ahead_ms`, give or take `error_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Milliseconds; negative: behind.
    pub ahead_ms: i64,
    /// Milliseconds.
    pub error_ms: u64,
}

/// The detector for one peer.
#[derive(Clone, Debug, Default)]
pub struct Skew {
    estimates: VecDeque<Estimate>,
}

impl Skew {
    /// Takes in an exchange.
    pub fn take(&mut self, exchange: Exchange) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let took_ms = signed(u64::try_from(exchange.took.as_millis()).unwrap_or(u64::MAX));
        let answered = signed(exchange.asked_unix_ms).saturating_add(took_ms);
        let there = signed(exchange.received_unix_ms).saturating_sub(signed(exchange.asked_unix_ms));
        let back = signed(exchange.sent_unix_ms).saturating_sub(answered);
        let held = signed(exchange.sent_unix_ms).saturating_sub(signed(exchange.received_unix_ms));
        // Milliseconds are cut off at four places: the error is at least two.
        let error_ms = took_ms.saturating_sub(held).max(0).unsigned_abs() / 2 + 2;
        if self.estimates.len() == EXCHANGES {
            self.estimates.pop_front();
        }
        self.estimates.push_back(Estimate { ahead_ms: there.saturating_add(back) / 2, error_ms });
    }

    /// The best estimate; none before the first exchange.
    pub fn estimate(&self) -> Option<Estimate> {
        self.estimates.iter().copied().min_by_key(|estimate| estimate.error_ms)
    }

    /// Whether it is surely more than this.
    pub fn is_over(&self, most: Duration) -> bool {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.estimate().is_some_and(|at| at.ahead_ms.unsigned_abs() > most.saturating_add(at.error_ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the ways take and however long it is held, the truth lies within the error.
        #[test]
        fn the_truth_is_within_the_error(
            ahead in -5000i64..5000, ways in prop::collection::vec((0u64..400, 0u64..400, 0u64..1500), 1..20)
        ) {
            let mut skew = Skew::default();
            let mut now = 1_000_000u64;
            for (there, back, held) in ways {
                let arrived = (now + there).checked_add_signed(ahead).unwrap();
                skew.take(Exchange {
                    asked_unix_ms: now,
                    received_unix_ms: arrived,
                    sent_unix_ms: arrived + held,
                    took: Duration::from_millis(there + held + back),
                });
                now += there + held + back + 10;
            }
            let found = skew.estimate().unwrap();
            prop_assert!(found.ahead_ms.abs_diff(ahead) <= found.error_ms, "{found:?}");
            prop_assert!(!skew.is_over(Duration::from_millis(ahead.unsigned_abs())));
        }
    }

    #[test]
    fn a_large_one_is_told() {
        let mut skew = Skew::default();
        assert!(!skew.is_over(Duration::ZERO));
        let took = Duration::from_millis(100);
        skew.take(Exchange { asked_unix_ms: 10_000, received_unix_ms: 12_050, sent_unix_ms: 12_050, took });
        assert!(skew.is_over(Duration::from_millis(500)));
        assert_eq!(skew.estimate(), Some(Estimate { ahead_ms: 2000, error_ms: 52 }));
    }
}
