use std::time::Duration;

use proptest::prelude::*;

use super::{Breaker, Outcome, Phase};
use Outcome::{Failure, Success};

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn observe(breaker: &mut Breaker, now: u64, outcomes: &[Outcome]) {
    for outcome in outcomes {
        assert!(breaker.may_ask(at(now)));
        breaker.observe(at(now), *outcome);
    }
}

/// One that has just opened, at 0.
fn open() -> Breaker {
    let mut breaker = Breaker::new(1);
    observe(&mut breaker, 0, &[Failure; 5]);
    assert_eq!(breaker.phase(), Phase::Open);
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_however_rare() {
    let mut breaker = Breaker::new(1);
    for hour in 0..4 {
        observe(&mut breaker, hour * 3_600_000, &[Failure]);
    }
    assert_eq!(breaker.phase(), Phase::Closed);
    observe(&mut breaker, 5 * 3_600_000, &[Failure]);
    assert_eq!(breaker.phase(), Phase::Open);
    let mut breaker = Breaker::new(1);
    observe(&mut breaker, 0, &[Failure, Failure, Failure, Failure, Success, Failure]);
    assert_eq!(breaker.phase(), Phase::Closed, "a success between");
}

#[test]
fn half_of_twenty_within_ten_seconds_open_it() {
    let pair = [Success, Failure];
    let mut breaker = Breaker::new(1);
    observe(&mut breaker, 0, &pair.repeat(9));
    observe(&mut breaker, 9_999, &[Failure]);
    assert_eq!(breaker.phase(), Phase::Closed, "10 of 19");
    observe(&mut breaker, 9_999, &[Success]);
    assert_eq!(breaker.phase(), Phase::Open);

    let mut breaker = Breaker::new(1);
    observe(&mut breaker, 0, &pair.repeat(9));
    observe(&mut breaker, 10_000, &pair.repeat(9));
    assert_eq!(breaker.phase(), Phase::Closed, "the first are forgotten");
    observe(&mut breaker, 11_000, &pair);
    assert_eq!(breaker.phase(), Phase::Open);

    let mut breaker = Breaker::new(1);
    observe(&mut breaker, 0, &[Success, Success, Success, Failure, Failure].repeat(100));
    assert_eq!(breaker.phase(), Phase::Closed, "two in five");
}

#[test]
fn one_probe_after_a_pause() {
    let mut breaker = open();
    let until = breaker.opens_at(at(0));
    assert!((at(1_000)..=at(1_200)).contains(&until), "{until:?}");
    assert!(!breaker.may_ask(until - at(1)));
    assert!(breaker.may_ask(until));
    assert_eq!(breaker.phase(), Phase::HalfOpen);
    assert!(!breaker.may_ask(until), "one");
    assert!(!breaker.may_ask(until + at(59_999)));
    breaker.observe(until, Success);
    assert_eq!(breaker.phase(), Phase::Closed);
    assert!(breaker.may_ask(until) && breaker.may_ask(until));
    observe(&mut breaker, 2_000, &[Failure; 4]);
    assert_eq!(breaker.phase(), Phase::Closed, "what was before is forgotten");
}

#[test]
fn a_lost_probe_does_not_hold_it_open() {
    let mut breaker = open();
    assert!(breaker.may_ask(at(2_000)));
    assert!(!breaker.may_ask(at(61_999)));
    assert!(breaker.may_ask(at(62_000)));
}

#[test]
fn pauses_double_up_to_half_a_minute_and_begin_anew() {
    let mut breaker = open();
    let (mut now, mut pauses) = (at(0), Vec::new());
    for _ in 0..8 {
        pauses.push((breaker.opens_at(now) - now).as_millis());
        now = breaker.opens_at(now);
        assert!(breaker.may_ask(now));
        breaker.observe(now, Failure);
    }
    for (pause, least) in pauses.iter().zip([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]) {
        assert!((least..=least * 6 / 5).contains(pause), "{pauses:?}");
    }
    now = breaker.opens_at(now);
    assert!(breaker.may_ask(now));
    breaker.observe(now, Success);
    for _ in 0..5 {
        breaker.observe(now, Failure);
    }
    assert!(breaker.opens_at(now) - now <= at(1_200), "after a success the first pause is short again");
}

#[test]
fn pauses_differ_by_seed() {
    let pause = |seed| {
        let mut breaker = Breaker::new(seed);
        observe(&mut breaker, 0, &[Failure; 5]);
        breaker.opens_at(at(0))
    };
    let pauses: std::collections::BTreeSet<_> = (0..20).map(pause).collect();
    assert!(pauses.len() > 10, "{pauses:?}");
    assert_eq!(pause(3), pause(3));
}

#[test]
fn what_was_asked_before_does_not_end_a_pause() {
    let mut breaker = open();
    let until = breaker.opens_at(at(0));
    breaker.observe(at(10), Success);
    breaker.observe(at(20), Failure);
    assert_eq!((breaker.phase(), breaker.opens_at(at(20))), (Phase::Open, until));
}

proptest! {
    /// A dead origin is asked so often that it opens, and then once in each pause.
    #[test]
    fn a_dead_origin_is_left_alone(seed in any::<u64>(), steps in prop::collection::vec(0u64..3_000, 1..200)) {
        let mut breaker = Breaker::new(seed);
        let (mut now, mut asked) = (at(0), Vec::new());
        for step in steps {
            now += at(step);
            if breaker.may_ask(now) {
                asked.push(now);
                breaker.observe(now, Failure);
            }
        }
        let mut pause = 1_000;
        for pair in asked.get(4..).unwrap_or_default().windows(2) {
            prop_assert!(pair[1] - pair[0] >= at(pause), "{asked:?}");
            pause = (pause * 2).min(30_000);
        }
    }

    /// Whatever happens, some time later one may ask.
    #[test]
    fn it_never_stays_shut(seed in any::<u64>(), steps in prop::collection::vec((0u64..40_000, any::<bool>(), any::<bool>()), 0..100)) {
        let mut breaker = Breaker::new(seed);
        let mut now = at(0);
        for (step, answers, succeeds) in steps {
            now += at(step);
            if breaker.may_ask(now) && answers {
                breaker.observe(now, if succeeds { Success } else { Failure });
            }
            prop_assert!(breaker.opens_at(now) <= now + at(60_000));
        }
        let then = breaker.opens_at(now).max(now);
        prop_assert!(breaker.may_ask(then));
    }
}
