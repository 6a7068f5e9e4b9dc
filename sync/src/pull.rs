//! The pull protocol without its network: how one agent follows the log of another, and what it learns from that about the
//! link between them. Facts are few, and each question is answered whole; logs of operations are [streams](crate::store::feed).
//!
//! One question is under way at a time: "what do you have after this frontier?", held by the other for a while if there
//! is nothing. Asking for what comes after N says that all up to N has arrived.
//!
//! ```text
//!             due                 answer
//!   resting ──────▶ asked ──────────────────▶ resting, heard
//!      ▲              │ no answer in time, or an error
//!      └── retry ─────┘                  link: cut after three seconds unheard
//! ```

use std::time::Duration;

use daemun_fleet::view::Frontier;
use serde::{Deserialize, Serialize};

use crate::skew::{Exchange, Skew};

/// How long the other may hold a question: a silent link shows soon after.
pub const HOLD: Duration = Duration::from_secs(1);
/// An answer that has not come so long after the hold has failed.
pub const GRACE: Duration = Duration::from_millis(800);
/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(300);
/// Pause after an answer, so that a peer with much news does not keep a core busy.
const REST: Duration = Duration::from_millis(10);
/// A link that was not heard for so long is cut: three holds.
pub const SILENCE: Duration = Duration::from_secs(3);

/// A question to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Tells the answer to this question from a late one.
    pub number: u64,
    /// What we know.
    pub after: Frontier,
    /// How long it may be held.
    pub hold: Duration,
}

/// What a peer says of itself beside its batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Its datacenter.
    pub datacenter: String,
    /// Digest of its config.
    pub config_digest: String,
    /// When the question reached it, milliseconds of Unix time by its clock.
    pub received_unix_ms: u64,
    /// When the answer left it.
    pub sent_unix_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resting { until: Duration },
    Asked { at: Duration, unix_ms: u64 },
}

/// Following one peer.
#[derive(Clone, Debug)]
pub struct Puller {
    phase: Phase,
    number: u64,
    heard_at: Duration,
    /// It has answered since we began or woke up.
    is_heard: bool,
    up_since: Option<Duration>,
    failure: Option<String>,
    is_cut: bool,
    config_digest: Option<String>,
    skew: Skew,
}

impl Puller {
    /// Begins to follow; the link counts as heard now, so that nobody is called silent who was never asked.
    pub fn new(now: Duration) -> Self {
        Self {
            phase: Phase::Resting { until: now },
            number: 0,
            heard_at: now,
            is_heard: false,
            up_since: None,
            failure: None,
            is_cut: false,
            config_digest: None,
            skew: Skew::default(),
        }
    }

    /// The question to send now, if one is due.
    pub fn poll(&mut self, now: Duration, unix_ms: u64, known: impl FnOnce() -> Frontier) -> Option<Ask> {
        if let Phase::Asked { at, .. } = self.phase
            && now.saturating_sub(at) >= HOLD + GRACE
        {
            self.fail(now, "no answer in time".to_owned());
        }
        match self.phase {
            Phase::Resting { until } if until <= now => {
                self.number += 1;
                self.phase = Phase::Asked { at: now, unix_ms };
                Some(Ask { number: self.number, after: known(), hold: HOLD })
            }
            _ => None,
        }
    }

    /// When it next has something to do by itself.
    pub fn wake_at(&self) -> Duration {
        match self.phase {
            Phase::Resting { until } => until,
            Phase::Asked { at, .. } => at + HOLD + GRACE,
        }
    }

    /// An answer came. Whatever it holds, the link is there; an answer that came too late is told from its number. False:
    /// it did, or a second time, and is not to be used.
    pub fn answered(&mut self, now: Duration, number: u64, greeting: &Greeting) -> bool {
        let Phase::Asked { at, unix_ms } = self.phase else { return false };
        if number != self.number {
            return false;
        }
        self.skew.take(Exchange {
            asked_unix_ms: unix_ms,
            received_unix_ms: greeting.received_unix_ms,
            sent_unix_ms: greeting.sent_unix_ms,
            took: now.saturating_sub(at),
        });
        self.phase = Phase::Resting { until: now + REST };
        self.heard_at = now;
        self.is_heard = true;
        self.up_since.get_or_insert(now);
        self.failure = None;
        self.is_cut = false;
        self.config_digest = Some(greeting.config_digest.clone());
        true
    }

    /// A question ended without an answer.
    pub fn failed(&mut self, now: Duration, number: u64, why: String) {
        if number == self.number && matches!(self.phase, Phase::Asked { .. }) {
            self.fail(now, why);
        }
    }

    fn fail(&mut self, now: Duration, why: String) {
        self.phase = Phase::Resting { until: now + RETRY };
        self.failure = Some(why);
        self.up_since = None;
        self.is_cut |= now.saturating_sub(self.heard_at) >= SILENCE;
    }

    /// After a sleep of our own: that nobody was heard says nothing of them.
    pub fn wake_up(&mut self, now: Duration) {
        if !self.is_cut {
            self.heard_at = now;
        }
        self.is_heard = false;
        self.up_since = None;
        self.phase = Phase::Resting { until: now };
        self.skew = Skew::default();
    }

    /// Nothing was heard for too long.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Since when every question was answered; none: the last was not.
    pub fn up_since(&self) -> Option<Duration> {
        self.up_since
    }

    /// Whether the peer is there is known: it has answered since we began or woke up, or the link is cut.
    pub fn is_known(&self) -> bool {
        self.is_heard || self.is_cut
    }

    /// What the last failure said, while it fails.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Digest of the peer's config, once heard.
    pub fn config_digest(&self) -> Option<&str> {
        self.config_digest.as_deref()
    }

    /// How far the peer's clock is from ours.
    pub fn skew(&self) -> &Skew {
        &self.skew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        let (datacenter, config_digest) = ("seoul".to_owned(), "d".to_owned());
        Greeting { datacenter, config_digest, received_unix_ms: 0, sent_unix_ms: 0 }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_question_at_a_time_and_late_answers_are_nothing() {
        let mut puller = Puller::new(ms(0));
        let ask = puller.poll(ms(0), 0, Frontier::default).unwrap();
        assert_eq!(puller.poll(ms(500), 0, Frontier::default), None, "one is under way");
        let again = (0..).step_by(50).find_map(|at| puller.poll(ms(at), 0, Frontier::default));
        let again = again.unwrap();
        assert!(again.number > ask.number);
        assert!(!puller.answered(ms(2200), ask.number, &greeting()));
        assert!(puller.failure().is_some(), "the answer to a question given up on");
        assert!(puller.answered(ms(2200), again.number, &greeting()));
        assert!(puller.failure().is_none() && !puller.is_cut());
    }

    #[test]
    fn a_link_is_cut_when_nothing_was_heard_for_long_and_not_by_one_failure() {
        let mut puller = Puller::new(ms(0));
        let mut cut_at = None;
        for at in (0..6000).step_by(10) {
            if let Some(ask) = puller.poll(ms(at), 0, Frontier::default) {
                puller.failed(ms(at), ask.number, "refused".to_owned());
            }
            if puller.is_cut() {
                cut_at.get_or_insert(at);
            }
        }
        assert_eq!(cut_at, Some(3000));
        puller.wake_up(ms(6000));
        assert!(puller.is_cut(), "a sleep does not mend it");
        let ask = puller.poll(ms(6000), 0, Frontier::default).unwrap();
        puller.answered(ms(6010), ask.number, &greeting());
        assert!(!puller.is_cut());
    }
}
