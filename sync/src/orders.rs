//! The operator's words: what can be said, which of two holds, and when one is over.
//!
//! A word is a fact like any other, but it outlives its author: every agent that hears it writes it in its own log too.
//! Words about the same thing are told apart by their *revision*, one more than the highest that the agent knew which took
//! it; the higher holds. That one has expired is itself a word, written by whichever agent's timer is first.
//!
//! Time is told by [`Timers`], for each agent its own: a word travels with the time that is left of it, so that no two
//! clocks need to agree.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use daemun_fleet::view::{OrderView, State};
use serde::{Deserialize, Serialize};

use crate::drill::report::Ended;
use crate::drill::word::Word;

/// A drill's time, whatever its word says: four hours, and what comes before and after.
const DRILL_MAX: Duration = Duration::from_secs(5 * 3600);
/// A drain over some time goes in so many steps.
const DRAIN_STEPS: u32 = 10;

/// What a word is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// All of it.
    Fleet,
    /// One datacenter.
    Datacenter(String),
    /// The drill: there is one at a time.
    Drill,
}

/// What is to be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Verb {
    /// Move the datacenter's users away, over this time, milliseconds.
    Drain {
        /// 0: at once.
        over_ms: u64,
    },
    /// Let automation decide about the datacenter again, and let it back.
    Restore,
    /// Keep the datacenter in this state.
    Pin {
        /// The state.
        state: State,
    },
    /// The datacenter will not return: it has no say any more.
    Forget,
    /// Automation off: states stay as they are.
    Pause {
        /// The state of each datacenter.
        states: BTreeMap<String, State>,
        /// Addresses of servers that are down.
        down: Vec<(String, IpAddr)>,
    },
    /// Automation on.
    Resume,
    /// A failure on purpose, and how far it is.
    Drill(Box<Word>),
    /// The word before is over.
    Expired,
}

impl Verb {
    /// The word on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Drain { .. } => "drain",
            Verb::Restore => "restore",
            Verb::Pin { .. } => "pin",
            Verb::Forget => "forget",
            Verb::Pause { .. } => "pause",
            Verb::Resume => "resume",
            Verb::Drill(_) => "drill",
            Verb::Expired => "expired",
        }
    }

    /// It holds something that automation would else decide.
    pub fn binds(&self) -> bool {
        match self {
            Verb::Drill(word) => word.binds(),
            Verb::Restore | Verb::Resume | Verb::Expired => false,
            Verb::Drain { .. } | Verb::Pin { .. } | Verb::Forget | Verb::Pause { .. } => true,
        }
    }

    fn stage(&self) -> Option<(u32, Ended, &str)> {
        match self {
            Verb::Drill(word) => Some(word.stage.rank()),
            _ => None,
        }
    }
}

/// An operator's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What it is about.
    pub about: About,
    /// Of two about the same the higher holds.
    pub revision: u64,
    /// What is to be so.
    pub verb: Verb,
    /// Who said it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How long it holds, milliseconds; none: until taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// The datacenter whose agent was told.
    pub told: String,
    /// When, by its clock, milliseconds of Unix time: for people.
    pub at_unix_ms: u64,
    /// Safety rules were overridden.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
}

impl Order {
    /// Whether this one holds where both are known. Two operators who speak at once to two agents get the same answer
    /// everywhere; and a word is never lost to the end of the one before.
    pub fn holds_over(&self, other: &Order) -> bool {
        // The moment tells two apart that an agent took before and after it lost its disk.
        self.rank() > other.rank()
    }

    fn rank(&self) -> impl PartialOrd + '_ {
        // Stages are of one drill: which it is comes first.
        let (is_word, stage) = (self.verb != Verb::Expired, self.verb.stage());
        (self.revision, is_word, self.told.as_str(), self.at_unix_ms, stage)
    }

    /// Both are about one and the same drill.
    pub(crate) fn is_same_drill(&self, other: &Order) -> bool {
        let which = |order: &Order| (order.revision, order.told.clone(), order.at_unix_ms);
        self.about == About::Drill && other.about == About::Drill && which(self) == which(other)
    }

    /// The word that it is over, if that comes by itself: the same from every agent, so that it does not matter who is first.
    fn ended(&self) -> Order {
        let (revision, verb) = match &self.verb {
            Verb::Drill(word) => (self.revision, Verb::Drill(Box::new(word.expired()))),
            _ => (self.revision + 1, Verb::Expired),
        };
        Order { revision, verb, for_ms: None, ..self.clone() }
    }

    /// For people.
    pub fn view(&self) -> OrderView {
        OrderView {
            verb: match &self.verb {
                Verb::Pin { state } => format!("pin {state}"),
                verb => verb.name().to_owned(),
            },
            by: self.by.clone(),
            reason: self.reason.clone(),
            for_ms: self.for_ms,
            at_unix_ms: self.at_unix_ms,
            break_glass: self.break_glass,
        }
    }
}

/// Time left of a word, on its way to another agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The word.
    pub about: About,
    /// Which.
    pub revision: u64,
    /// The datacenter whose agent was told: two may have been at once.
    pub told: String,
    /// Milliseconds.
    pub ms: u64,
}

#[derive(Clone, Debug)]
struct Known {
    order: Order,
    heard_at: Duration,
    /// How far a drain had gone when it was heard here, as time from its beginning.
    head_start: Duration,
    ends_at: Option<Duration>,
    /// By a wall clock, across a restart: what a peer says holds over it.
    is_guess: bool,
}

/// The words in force as one agent knows them, with its own timers.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    known: BTreeMap<About, Known>,
}

impl Timers {
    /// Takes in a word; true if it holds over the one known.
    pub fn hear(&mut self, order: &Order, now: Duration) -> bool {
        let is_news = self.known.get(&order.about).is_none_or(|known| order.holds_over(&known.order));
        if is_news {
            let ends_at =
                order.for_ms.filter(|_| order.verb.binds()).map(|ms| now + Duration::from_millis(ms));
            // No step of a drill makes its time longer, and none that could be planned is longer than this.
            let ends_at =
                ends_at.map(|at| if order.about == About::Drill { at.min(now + DRILL_MAX) } else { at });
            let armed = self.known.get(&order.about).filter(|known| known.order.is_same_drill(order));
            let armed = armed.and_then(|known| known.ends_at);
            let ends_at = ends_at.map(|at| armed.map_or(at, |armed| at.min(armed)));
            let head_start = Duration::ZERO;
            let known = Known { order: order.clone(), heard_at: now, head_start, ends_at, is_guess: false };
            self.known.insert(order.about.clone(), known);
        }
        is_news
    }

    /// Takes in how much time was left by our own wall clock, which may have jumped while we were down.
    pub fn resume_left(&mut self, left: &[Left], now: Duration) {
        self.hear_left(left, now);
        self.known.values_mut().for_each(|known| known.is_guess = true);
    }

    /// Takes in how much time others say is left: the least counts.
    pub fn hear_left(&mut self, left: &[Left], now: Duration) {
        for left in left {
            let Some(known) = self.known.get_mut(&left.about) else { continue };
            if known.order.revision == left.revision && known.order.told == left.told {
                let ends_at = now + Duration::from_millis(left.ms);
                let is_guess = std::mem::take(&mut known.is_guess);
                known.ends_at = known.ends_at.map(|at| if is_guess { ends_at } else { at.min(ends_at) });
            }
        }
    }

    /// How much time is left of each word that ends.
    pub fn left(&self, now: Duration) -> Vec<Left> {
        let left = |(about, known): (&About, &Known)| {
            let left = known.ends_at?.saturating_sub(now);
            let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            Some(Left {
                about: about.clone(),
                revision: known.order.revision,
                told: known.order.told.clone(),
                ms,
            })
        };
        self.known.iter().filter_map(left).collect()
    }

    /// How long a word still holds; none: it does not end, or there is none.
    pub fn left_of(&self, about: &About, now: Duration) -> Option<Duration> {
        Some(self.known.get(about)?.ends_at?.saturating_sub(now))
    }

    /// None of them ends or goes on by itself.
    pub fn are_idle(&self) -> bool {
        let is_idle =
            |known: &Known| known.ends_at.is_none() && !matches!(known.order.verb, Verb::Drain { .. });
        self.known.values().all(is_idle)
    }

    /// All words known, whether or not they bind.
    pub fn all(&self) -> impl Iterator<Item = &Order> {
        self.known.values().map(|known| &known.order)
    }

    /// The newest word about something.
    pub fn newest(&self, about: &About) -> Option<&Order> {
        self.known.get(about).map(|known| &known.order)
    }

    /// The words to write because others are over.
    pub fn expired(&self, now: Duration) -> Vec<Order> {
        let over = self.known.values().filter(|known| known.ends_at.is_some_and(|at| at <= now));
        over.map(|known| known.order.ended()).collect()
    }

    /// Takes in how far a drain has gone, as far as anyone has said: whoever heard of it late, or began again, goes on from
    /// there and does not wait for steps that are done.
    pub fn hear_drained(
        &mut self,
        datacenter: &str,
        percent: Option<u8>,
        now: Duration,
        empty_after: Duration,
    ) {
        let Some(known) = self.known.get_mut(&About::Datacenter(datacenter.to_owned())) else { return };
        let Verb::Drain { over_ms } = known.order.verb else { return };
        let over = Duration::from_millis(over_ms);
        let gone = percent.map_or(over + empty_after, |percent| drained_since(percent, over));
        known.head_start = known.head_start.max(gone.saturating_sub(now.saturating_sub(known.heard_at)));
    }

    /// How far each drain has gone by now: datacenter, revision, percentage left or `None` when it is empty, which is
    /// `empty_after` the last step: when no answer is kept anywhere any more.
    pub fn drains(&self, now: Duration, empty_after: Duration) -> Vec<(String, u64, Option<u8>)> {
        let drain = |known: &Known| {
            let (About::Datacenter(name), Verb::Drain { over_ms }) = (&known.order.about, &known.order.verb)
            else {
                return None;
            };
            let passed = now.saturating_sub(known.heard_at) + known.head_start;
            let over = Duration::from_millis(*over_ms);
            let left = (passed < over + empty_after).then(|| drained_to(passed, over));
            Some((name.clone(), known.order.revision, left))
        };
        self.known.values().filter_map(drain).collect()
    }
}

/// The percentage left so long after the beginning of a drain over some time: the first step is at once.
pub fn drained_to(passed: Duration, over: Duration) -> u8 {
    if passed >= over {
        return 0;
    }
    let step = passed.as_millis() * u128::from(DRAIN_STEPS) / over.as_millis();
    let percent = 100 * (u128::from(DRAIN_STEPS) - 1 - step) / u128::from(DRAIN_STEPS);
    // Not empty before its time.
    u8::try_from(percent).unwrap_or(0).max(1)
}

/// How long after the beginning of a drain over some time this percentage is left, at the earliest.
fn drained_since(percent: u8, over: Duration) -> Duration {
    let steps = DRAIN_STEPS.saturating_sub(1).saturating_sub(u32::from(percent) * DRAIN_STEPS / 100);
    if percent == 0 { over } else { over * steps / DRAIN_STEPS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(revision: u64, verb: Verb, told: &str) -> Order {
        Order {
            about: About::Datacenter("seoul".to_owned()),
            revision,
            verb,
            by: "ann".to_owned(),
            reason: String::new(),
            for_ms: Some(1000),
            told: told.to_owned(),
            at_unix_ms: 0,
            break_glass: false,
        }
    }

    #[test]
    fn of_two_words_all_take_the_same() {
        let words = [
            order(1, Verb::Drain { over_ms: 0 }, "a"),
            order(2, Verb::Expired, "z"),
            order(2, Verb::Pin { state: State::Serving }, "a"),
            order(2, Verb::Forget, "b"),
            order(3, Verb::Restore, "a"),
        ];
        for (at, word) in words.iter().enumerate() {
            assert!(words[..at].iter().all(|earlier| word.holds_over(earlier) && !earlier.holds_over(word)));
        }
        assert!(!words[0].holds_over(&words[0]));
    }

    #[test]
    fn a_word_ends_by_the_timer_of_who_heard_it_first() {
        let second = Duration::from_secs(1);
        let mut late = Timers::default();
        assert!(late.hear(&order(1, Verb::Drain { over_ms: 0 }, "a"), 10 * second));
        assert!(late.expired(10 * second + second / 2).is_empty());
        late.hear_left(
            &[Left {
                about: About::Datacenter("seoul".to_owned()),
                revision: 1,
                told: "a".to_owned(),
                ms: 400,
            }],
            10 * second,
        );
        let ends = late.expired(10 * second + second / 2);
        assert_eq!((ends[0].revision, &ends[0].verb), (2, &Verb::Expired));
        assert!(late.hear(&ends[0], 11 * second));
        assert!(late.expired(100 * second).is_empty(), "the end does not end");
    }

    /// Found by the simulator: one clock that jumped while its agent was down ended a word for all.
    #[test]
    fn after_a_restart_a_peer_knows_better_than_the_wall_clock() {
        let second = Duration::from_secs(1);
        let left = |ms| {
            [Left { about: About::Datacenter("seoul".to_owned()), revision: 1, told: "a".to_owned(), ms }]
        };
        let mut timers = Timers::default();
        timers.hear(&order(1, Verb::Drain { over_ms: 0 }, "a"), 10 * second);
        timers.resume_left(&left(0), 10 * second);
        timers.hear_left(&left(700), 10 * second);
        assert!(timers.expired(10 * second + second / 2).is_empty());
        timers.hear_left(&left(400), 10 * second);
        assert!(!timers.expired(10 * second + second / 2).is_empty(), "of peers the least counts");
    }

    #[test]
    fn a_drain_goes_in_steps_and_is_empty_only_at_its_end() {
        let second = Duration::from_secs(1);
        let steps: Vec<u8> = (0..=10).map(|at| drained_to(at * second, 10 * second)).collect();
        assert_eq!(steps, [90, 80, 70, 60, 50, 40, 30, 20, 10, 1, 0]);
        assert_eq!(drained_to(Duration::ZERO, Duration::ZERO), 0);
        let mut timers = Timers::default();
        timers.hear(&order(4, Verb::Drain { over_ms: 10_000 }, "a"), Duration::ZERO);
        let at = |at| timers.drains(at * second, 5 * second)[0].2;
        assert_eq!((at(0), at(5), at(10), at(14), at(15)), (Some(90), Some(40), Some(0), Some(0), None));
    }

    /// Found by the simulator: who heard of a drain late began it anew, whatever the others had done of it.
    #[test]
    fn a_drain_that_is_heard_late_goes_on_from_where_it_is() {
        let second = Duration::from_secs(1);
        let (over, ttl) = (10 * second, 5 * second);
        let mut timers = Timers::default();
        timers.hear(&order(4, Verb::Drain { over_ms: 10_000 }, "a"), 100 * second);
        timers.hear_drained("seoul", Some(30), 101 * second, ttl);
        let at = |timers: &Timers, at| timers.drains(at * second, ttl)[0].2;
        assert_eq!([101, 102, 104, 105, 109].map(|now| at(&timers, now)), [30, 20, 1, 0, 0].map(Some));
        assert_eq!(at(&timers, 110), None, "empty only when no answer is kept any more");
        timers.hear_drained("seoul", Some(90), 106 * second, ttl);
        assert_eq!(at(&timers, 106), Some(0), "it never goes back");
        timers.hear_drained("seoul", None, 106 * second, ttl);
        assert_eq!(at(&timers, 106), None);
        for percent in [90, 80, 50, 10, 1, 0] {
            assert_eq!(drained_to(drained_since(percent, over), over), percent);
        }
    }
}
