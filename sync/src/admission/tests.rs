//! The detector on hand-made outs and returns.

use super::*;

fn rules() -> Comeback {
    Comeback {
        hold_down: Duration::from_secs(60),
        hold_down_max: Duration::from_secs(3600),
        ramp: vec![10, 25, 50],
        ramp_step: Duration::from_secs(60),
        per_hour: 1,
        catch_up: Duration::from_secs(5),
    }
}

const DOWN: Out = Out::Down { is_sure: true };

/// One observer alone with its second hand; what it says is what the fold makes of it.
struct Alone {
    admission: Admission,
    second: u64,
    rules: Comeback,
    restored: u64,
    jumped_ms: u64,
}

impl Alone {
    fn new() -> Self {
        let admission = Admission::new(None, None, Duration::ZERO, 0);
        Self { admission, second: 0, rules: rules(), restored: 0, jumped_ms: 0 }
    }

    /// Shows the same for some seconds; the seconds at which the percentage changed, and to what.
    fn show(&mut self, out: Out, seconds: u64) -> Vec<(u64, u8)> {
        let mut changes = Vec::new();
        for _ in 0..seconds {
            let before = self.admission.said().clone();
            let seen = Seen {
                out,
                newest: before.episode,
                newest_sure: if before.is_sure { before.episode } else { 0 },
                level: Some(before.percent),
                sees_it: out == Out::No,
                caught_up: Some((before.episode, true, "")),
                restored: self.restored,
                is_paused: false,
                is_kept_in: false,
                is_heard: true,
            };
            let now = Duration::from_secs(self.second);
            self.admission.settle(now, self.second * 1000 + self.jumped_ms, &self.rules, &seen);
            if self.admission.said().percent != before.percent {
                changes.push((self.second, self.admission.said().percent));
            }
            self.second += 1;
        }
        changes
    }
}

#[test]
fn out_at_once_back_by_calm_and_steps() {
    let mut alone = Alone::new();
    assert_eq!(alone.show(Out::No, 100), []);
    assert_eq!(alone.show(DOWN, 10), [(100, 0)]);
    let back = alone.show(Out::No, 400);
    assert_eq!(back, [(170, 10), (230, 25), (290, 50), (350, 100)]);
}

#[test]
fn down_again_while_ramping_doubles_the_wait() {
    let mut alone = Alone::new();
    alone.show(DOWN, 1);
    assert_eq!(alone.show(Out::No, 90), [(61, 10)]);
    assert_eq!(alone.show(DOWN, 1), [(91, 0)]);
    assert_eq!(alone.show(Out::No, 200), [(212, 10), (272, 25)]);
}

#[test]
fn the_second_return_in_an_hour_waits_for_a_human() {
    let mut alone = Alone::new();
    alone.show(DOWN, 1);
    assert_eq!(alone.show(Out::No, 300).last().unwrap().1, 100);
    alone.show(DOWN, 1);
    assert_eq!(alone.show(Out::No, 7200), [], "not even when the hour is over");
    assert!(alone.admission.said().why.contains("held for a human"), "{:?}", alone.admission.said());
}

#[test]
fn a_human_lets_it_back_at_once_but_in_steps() {
    let mut alone = Alone::new();
    alone.rules.per_hour = 0;
    alone.show(DOWN, 1);
    assert_eq!(alone.show(Out::No, 600), []);
    alone.restored = 7;
    assert_eq!(alone.show(Out::No, 100), [(601, 10), (661, 25)]);
}

#[test]
fn what_was_drained_half_goes_on_from_there() {
    let mut alone = Alone::new();
    alone.show(Out::No, 5);
    assert_eq!(alone.show(Out::Drained { percent: 40 }, 5), [(5, 40)]);
    assert_eq!(alone.show(Out::No, 130), [(69, 50), (129, 100)]);
    assert!(alone.admission.returned_ms.is_empty(), "nothing failed: it does not count");
}

/// Found by the simulator.
#[test]
fn who_dies_while_drained_waits_for_calm() {
    let mut alone = Alone::new();
    alone.show(Out::Drained { percent: 0 }, 5);
    alone.show(DOWN, 5);
    assert_eq!(alone.show(Out::No, 100), [(70, 10)]);
}

#[test]
fn a_flap_is_forgotten_after_calm() {
    let mut alone = Alone::new();
    alone.rules.per_hour = 100;
    for _ in 0..3 {
        alone.show(DOWN, 1);
        alone.show(Out::No, 1000);
    }
    assert_eq!(alone.admission.said().flaps, 3);
    alone.show(Out::No, 3 * 3600);
    alone.show(DOWN, 1);
    assert_eq!(alone.admission.said().flaps, 1);
}

#[test]
fn without_memory_it_is_as_cautious_as_the_others() {
    let mut held = Alone::new();
    held.rules.per_hour = 0;
    held.show(DOWN, 1);
    held.show(Out::No, 100);
    let others = held.admission.said();
    assert!(others.is_held);
    for own in [None, Some(Alone::new().admission.said().clone())] {
        let again = Admission::new(own.as_ref(), Some(others), Duration::ZERO, 0);
        assert_eq!((again.said().percent, again.said().is_held), (0, true));
    }
    let newer = Admitted { episode: 9, percent: 50, ..others.clone() };
    let again = Admission::new(Some(&newer), Some(others), Duration::ZERO, 0);
    assert_eq!(again.said().percent, 50, "it knows better");
}

#[test]
fn a_wall_clock_that_jumps_ends_no_hold() {
    let mut alone = Alone::new();
    alone.show(DOWN, 1);
    alone.show(Out::No, 300);
    alone.show(DOWN, 1);
    alone.jumped_ms = 3 * 3_600_000;
    assert_eq!(alone.show(Out::No, 600), []);
    assert!(alone.admission.said().is_held);
}

#[test]
fn whoever_never_saw_it_down_takes_part_only_if_it_is_sure() {
    let seen = |newest_sure, level| Seen {
        out: Out::No,
        newest: 1,
        newest_sure,
        level: Some(level),
        sees_it: true,
        caught_up: None,
        restored: 0,
        is_paused: false,
        is_kept_in: false,
        is_heard: true,
    };
    let mut admission = Admission::new(None, None, Duration::ZERO, 0);
    admission.settle(Duration::ZERO, 0, &rules(), &seen(0, 100));
    assert_eq!(admission.said().percent, 100);
    admission.settle(Duration::ZERO, 0, &rules(), &seen(1, 0));
    assert_eq!((admission.said().percent, admission.said().episode), (0, 1));
}

/// Found by the simulator: who had not seen it down itself took an old word for one about this return.
#[test]
fn a_word_from_before_the_failure_lets_nobody_back() {
    let seen = |newest_sure, restored| Seen {
        out: Out::No,
        newest: newest_sure,
        newest_sure,
        level: None,
        sees_it: true,
        caught_up: Some((1, true, "")),
        restored,
        is_paused: false,
        is_kept_in: false,
        is_heard: true,
    };
    let mut admission = Admission::new(None, None, Duration::ZERO, 0);
    let mut percent_after = |newest_sure, restored| {
        admission.settle(Duration::ZERO, 0, &rules(), &seen(newest_sure, restored));
        admission.said().percent
    };
    assert_eq!([percent_after(0, 3), percent_after(1, 3), percent_after(1, 3)], [100, 0, 0]);
    assert_eq!(percent_after(1, 4), 10, "one about this return does");
}
