use daemun_fleet::drill::{Limits, Load, Objectives, Step, Target};

use super::*;
use crate::drill::report::Ended;
use crate::drill::samples::Recorded;

const BLACKHOLE: Fault = Fault::Blackhole { share: 100 };

fn scenario(faults: &[Fault]) -> Scenario {
    Scenario {
        name: "test".to_owned(),
        target: Some(Target::Datacenter("frankfurt".to_owned())),
        steps: faults.iter().map(|fault| Step { faults: vec![*fault], hold_ms: 10_000 }).collect(),
        load: Load { users: 1, visits_per_second: 10, patience_ms: 1_000 },
        durability: "remote:1".to_owned(),
        limits: Limits { errors_percent: 50, p99_ms: 500, lag_ms: 3_000 },
        objectives: Objectives { rto_ms: 3_000, rpo: 0 },
        baseline_ms: 1_000,
        recover_ms: 10_000,
    }
}

fn visit(at: u64, home: &str, served: Option<&str>, number: u64) -> Visit {
    Visit {
        at_unix_ms: at,
        ms: 20,
        user: "192.0.2.0/24".to_owned(),
        home: home.to_owned(),
        placed: Some(served.unwrap_or("frankfurt").to_owned()),
        served: served.map(ToOwned::to_owned),
        failure: served.is_none().then(|| "no answer in time".to_owned()),
        record: served.map(|by| Recorded {
            number,
            acknowledged: Some(by.to_owned()),
            at_unix_ms: at + 30,
            tries: 1,
            failures: Vec::new(),
        }),
    }
}

/// Frankfurt fails from 10,000 to 20,000; its users fail until 12,000, are in Virginia until 22,000, and then back.
fn played() -> Observed {
    let mut observed = Observed::new(Some("frankfurt"));
    let mut visits = Vec::new();
    for (number, at) in (5_000..25_000).step_by(100).enumerate() {
        let by = match at {
            10_000..12_000 => None,
            12_000..22_000 => Some("virginia"),
            _ => Some("frankfurt"),
        };
        visits.push(visit(at, "frankfurt", by, 2 * number as u64));
        visits.push(visit(at + 1, "seoul", Some("seoul"), 2 * number as u64 + 1));
    }
    observed.injected(10_000, 0, &[BLACKHOLE]);
    observed.undone(20_000, &Outcome { ended: Ended::Done, why: String::new() });
    // Its clock is a second ahead.
    visits.iter_mut().for_each(|visit| {
        visit.at_unix_ms += 1_000;
        visit.record.iter_mut().for_each(|record| record.at_unix_ms += 1_000);
    });
    observed.take("seoul", Samples { visits, ..Samples::default() }, 1_000);
    observed
}

fn report(observed: &mut Observed, scenario: &Scenario) -> Report {
    let base = Report {
        begun_unix_ms: 4_000,
        ended_unix_ms: 25_000,
        target: "frankfurt".to_owned(),
        outcome: Outcome { ended: Ended::Done, why: String::new() },
        ..Report::default()
    };
    observed.report(base, scenario, None)
}

#[test]
fn times_are_of_what_users_saw_by_the_leaders_clock() {
    let scenario = scenario(&[BLACKHOLE]);
    let report = report(&mut played(), &scenario);
    assert_eq!(report.phase("first user elsewhere"), Some(2_020));
    assert_eq!(report.first(What::FirstUserElsewhere).map(|mark| mark.within_ms), Some(120));
    assert_eq!(report.phase("99% moved"), Some(2_020));
    assert_eq!(report.phase("writable"), Some(2_030));
    assert_eq!(report.phase("restored"), Some(2_020), "from the undoing");
    assert_eq!((report.visits.all, report.visits.failed), (300, 20));
    // Twenty of the 139 in the seven seconds up to the last of them.
    assert_eq!(report.visits.worst_percent, 14.4);
    assert_eq!(report.series.witnesses["seoul"].iter().map(|(_, failed)| failed).sum::<u32>(), 20);
    let moved: u32 = report.series.placed["virginia"].iter().sum();
    assert_eq!(moved, 100);
}

#[test]
fn the_verdict_is_by_each_objective() {
    let scenario = scenario(&[BLACKHOLE]);
    let not_met = |report: &Report| -> Vec<String> {
        let missed = report.verdict.objectives.iter().filter(|objective| !objective.is_met);
        missed.map(|objective| objective.name.clone()).collect()
    };
    let mut observed = played();
    // Nobody counted, nobody saw the end of the return, nobody compared the stores.
    assert_eq!(not_met(&report(&mut observed, &scenario)), ["return", "rpo", "convergence"]);
    let mut observed = played();
    observed.mark(22_500, What::Ramped, "frankfurt", "");
    observed.mark(21_000, What::Converged, "", "");
    let all = (0..400).filter(|number| !(100..140).contains(number) || number % 2 == 1);
    let found =
        all.map(|number| super::super::samples::Found { witness: "seoul".to_owned(), number, attempt: 1 });
    observed.ledger.count_in_the_end("virginia", found.collect());
    let met = report(&mut observed, &scenario);
    assert_eq!((not_met(&met), met.ledger.lost), (Vec::new(), 0));
    assert!(met.verdict.is_met);
    let strict = Scenario { objectives: Objectives { rto_ms: 2_000, rpo: 0 }, ..scenario };
    assert_eq!(not_met(&report(&mut observed, &strict)), ["rto"]);
}

#[test]
fn limits_are_of_the_last_ten_seconds_and_of_what_is_not_meant() {
    let scenario = scenario(&[BLACKHOLE]);
    let mut observed = Observed::new(Some("frankfurt"));
    let visits = |count: u64, well: bool| {
        let visits = (0..count).map(|number| visit(1_000 + number, "seoul", well.then_some("seoul"), number));
        Samples { visits: visits.collect(), ..Samples::default() }
    };
    observed.take("seoul", visits(100, false), 0);
    assert_eq!(observed.breach(&scenario, 2_000), None, "nothing was injected");
    observed.injected(500, 0, &[BLACKHOLE]);
    assert!(observed.breach(&scenario, 2_000).unwrap().contains("100% of the visits"));
    observed.take("seoul", visits(100, true), 0);
    assert_eq!(observed.breach(&scenario, 2_000), None, "half is allowed");
    assert_eq!(observed.breach(&scenario, 20_000), None, "they are long ago");
    let slow = |at: u64| Visit { ms: 600, ..visit(at, "seoul", Some("seoul"), at) };
    observed.take("seoul", Samples { visits: (20_000..20_030).map(slow).collect(), ..Samples::default() }, 0);
    assert!(observed.breach(&scenario, 21_000).unwrap().contains("p99 of visits is 600 ms"));
    let behind = |of: &str, ms: u64| Samples {
        // Behind by more than the silence after which it is not known any more.
        lags: vec![(40_000, [(of.to_owned(), Behind { ms: Some(ms), is_known: false })].into())],
        ..Samples::default()
    };
    observed.take("seoul", behind("virginia", 9_000), 0);
    assert!(observed.breach(&scenario, 41_000).unwrap().contains("seoul behind virginia by 9000 ms"));
    let cut = Scenario { steps: vec![Step { faults: vec![Fault::Partition], hold_ms: 1 }], ..scenario };
    let mut observed = Observed::new(Some("frankfurt"));
    observed.injected(500, 0, &[Fault::Partition]);
    observed.take("seoul", behind("frankfurt", 9_000), 0);
    assert_eq!(observed.breach(&cut, 41_000), None, "that link is meant to be cut");
}

#[test]
fn a_name_server_is_told_once_by_who_saw_it_first() {
    let mut observed = Observed::new(Some("frankfurt"));
    observed.injected(10_000, 0, &[BLACKHOLE]);
    let named = |at: u64, to: Option<&str>| Samples {
        named: vec![Named {
            at_unix_ms: at,
            name_server: "seoul".to_owned(),
            sends_to: to.map(ToOwned::to_owned),
            within_ms: 50,
        }],
        ..Samples::default()
    };
    for witness in ["seoul", "virginia"] {
        observed.take(witness, named(9_000, Some("frankfurt")), 0);
    }
    observed.take("virginia", named(12_040, Some("virginia")), 0);
    observed.take("seoul", named(12_010, Some("virginia")), 0);
    let changed: Vec<_> =
        observed.marks().iter().filter(|mark| mark.what == What::NameServerChanged).collect();
    assert_eq!((changed.len(), changed[0].at_unix_ms, changed[0].within_ms), (1, 12_010, 50));
    observed.take("seoul", named(13_000, None), 0);
    observed.take("seoul", named(14_000, Some("frankfurt")), 0);
    let kinds: Vec<What> = observed.marks().iter().map(|mark| mark.what).collect();
    assert_eq!(kinds[2..], [What::NameServerSilent, What::NameServerBack]);
}

#[test]
fn a_lag_that_nobody_noted_is_not_known() {
    let mut observed = Observed::new(Some("frankfurt"));
    let lags = [(4_100, 20, true), (4_600, 30, true), (9_000, 3_500, false), (9_500, 2_000, true)];
    let behind = |ms, is_known| Behind { ms: Some(ms), is_known };
    let lags = lags.map(|(at, ms, is_known)| (at, [("frankfurt".to_owned(), behind(ms, is_known))].into()));
    observed.take("seoul", Samples { lags: lags.to_vec(), ..Samples::default() }, 0);
    let lags =
        report(&mut observed, &scenario(&[Fault::Partition])).series.lags["seoul behind frankfurt"].clone();
    let at = |ms: usize| lags[(ms - 4_000) / 250];
    assert_eq!(
        (at(4_300), at(4_700), at(8_000), at(9_100), at(9_600)),
        (Some(20), Some(30), None, None, Some(2_000))
    );
}

#[test]
fn a_report_is_made_smaller_without_hiding_what_is_unknown() {
    let mut one = report(&mut played(), &scenario(&[BLACKHOLE]));
    one.series.lags.insert("a behind b".to_owned(), vec![Some(1), None, Some(3), Some(4), Some(5)]);
    let before: u32 = one.series.witnesses["seoul"].iter().map(|(well, _)| well).sum();
    coarser(&mut one);
    assert_eq!(one.series.lags["a behind b"], [None, Some(4), Some(5)]);
    assert_eq!(one.series.witnesses["seoul"].iter().map(|(well, _)| well).sum::<u32>(), before);
}
