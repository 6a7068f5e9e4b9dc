//! Reports to test with: one as a drill makes it, and some that are as large or as empty as one can be.

use std::collections::BTreeMap;

use daemun_fleet::drill::{Fault, Limits, Load, Objectives, Scenario, Step, Target};

use super::super::report::{
    Check, Difference, Ended, Example, Ledger, Mark, Objective, Outcome, Phase, Report, Series, VERSION,
    Verdict, Visits, What,
};

/// 2026-11-22, 10:15 UTC.
const BEGUN_UNIX_MS: u64 = 1_795_342_500_000;

/// When the blackhole begins.
const INJECTED_UNIX_MS: u64 = BEGUN_UNIX_MS + 10_000;

/// Length of a step of the series.
const STEP_MS: u64 = 500;

/// Steps: from ten seconds before the fault to thirty-six after it.
const STEPS: u64 = 92;

const DATACENTERS: [&str; 3] = ["frankfurt", "seoul", "virginia"];

/// Frankfurt does not answer for twenty seconds, and everything goes as it should.
pub(super) fn blackhole() -> Report {
    Report {
        v: VERSION,
        id: "20261122T101500Z-blackhole-frankfurt".to_owned(),
        fleet: "shop".to_owned(),
        program: "0.1.0".to_owned(),
        config_digest: "9b1f0c6a77d2e4583fd1c09ab2764e11".to_owned(),
        generation: 412,
        scenario: Some(scenario()),
        target: "frankfurt".to_owned(),
        by: "ann.kim".to_owned(),
        reason: "quarterly drill, change 4711".to_owned(),
        conductor: "seoul".to_owned(),
        break_glass: false,
        begun_unix_ms: BEGUN_UNIX_MS,
        injected_unix_ms: Some(INJECTED_UNIX_MS),
        undone_unix_ms: Some(INJECTED_UNIX_MS + 20_000),
        ended_unix_ms: INJECTED_UNIX_MS + 38_420,
        checks: checks(),
        outcome: Outcome { ended: Ended::Done, why: String::new() },
        timeline: timeline(),
        phases: phases(),
        ledger: ledger(),
        visits: visits(&series()),
        series: series(),
        conflicts: 0,
        previous: Some(previous()),
        verdict: verdict(),
        notes: vec![
            "Times of datacenters other than seoul were corrected by the measured clock skew, at most 3 ms."
                .to_owned(),
            "Name servers were asked every 100 ms: a change is seen up to 100 ms after it.".to_owned(),
        ],
    }
}

/// A rule refused it.
pub(super) fn skipped() -> Report {
    let whole = blackhole();
    let mut checks = checks();
    checks[1].holds = false;
    checks[1].found =
        "virginia is catching-up; two datacenters have to be serving besides the target".to_owned();
    Report {
        checks,
        outcome: Outcome { ended: Ended::Skipped, why: "a rule did not hold".to_owned() },
        ended_unix_ms: BEGUN_UNIX_MS + 210,
        id: whole.id,
        fleet: whole.fleet,
        scenario: whole.scenario,
        target: whole.target,
        by: whole.by,
        conductor: whole.conductor,
        begun_unix_ms: BEGUN_UNIX_MS,
        ..Report::default()
    }
}

/// A limit ended it: writes were lost, visits failed, and the drill of last time was better.
pub(super) fn aborted() -> Report {
    let mut report = blackhole();
    report.outcome = Outcome {
        ended: Ended::Aborted,
        why: "errors_percent: 31% of the visits of ten seconds failed".to_owned(),
    };
    report.break_glass = true;
    report.verdict.is_met = false;
    let found = ["did not come", "3 of 1,812 lost", "31% in the worst ten seconds"];
    for (objective, found) in report.verdict.objectives.iter_mut().zip(found) {
        (objective.is_met, objective.found) = (false, found.to_owned());
    }
    report.visits.worst_percent = 31.0;
    report.phases.iter_mut().filter(|phase| phase.name == "99% moved").for_each(|phase| phase.ms = None);
    report.ledger.lost = 3;
    report.ledger.present -= 3;
    report.ledger.lost_records =
        ["frankfurt/611", "frankfurt/612", "frankfurt/615"].map(str::to_owned).to_vec();
    report.timeline.retain(|mark| mark.what != What::Moved);
    report
}

/// So many datacenters, series of so many steps, so many marks.
pub(super) fn large(datacenters: usize, steps: usize, marks: u64) -> Report {
    let mut report = blackhole();
    let names: Vec<String> = (0..datacenters).map(|at| format!("datacenter-{at:02}")).collect();
    let of_each =
        |name: &String| (name.clone(), (0..steps).map(|at| (at as u32 % 13, at as u32 % 3)).collect());
    report.series.witnesses = names.iter().map(of_each).collect();
    report.series.placed =
        names.iter().map(|name| (name.clone(), (0..steps).map(|at| at as u32 % 17).collect())).collect();
    report.series.lags = BTreeMap::new();
    for (at, one) in names.iter().enumerate() {
        for other in names.iter().filter(|other| *other != one) {
            let line = (0..steps).map(|step| (step % 7 > 0).then_some((step * at) as u32)).collect();
            report.series.lags.insert(format!("{one} behind {other}"), line);
        }
    }
    let begun = |name: &String| (name.clone(), vec![(BEGUN_UNIX_MS, "serving".to_owned())]);
    report.series.states = names.iter().map(begun).collect();
    let mark = |at: u64| Mark {
        within_ms: 0,
        at_unix_ms: INJECTED_UNIX_MS + at * 37,
        what: What::NameServerChanged,
        who: format!("ns{at}"),
        text: "answers without the target".to_owned(),
    };
    report.timeline.extend((0..marks).map(mark));
    report.timeline.sort_by_key(|mark| mark.at_unix_ms);
    report
}

fn scenario() -> Scenario {
    Scenario {
        name: "blackhole".to_owned(),
        target: Some(Target::Datacenter("frankfurt".to_owned())),
        steps: vec![Step { faults: vec![Fault::Blackhole { share: 100 }], hold_ms: 20_000 }],
        load: Load { users: 8, visits_per_second: 20, patience_ms: 2_000 },
        durability: "remote:1".to_owned(),
        limits: Limits { errors_percent: 30, p99_ms: 2_000, lag_ms: 5_000 },
        objectives: Objectives { rto_ms: 5_000, rpo: 0 },
        baseline_ms: 10_000,
        recover_ms: 60_000,
    }
}

fn checks() -> Vec<Check> {
    let check =
        |rule: &str, found: &str| Check { rule: rule.to_owned(), holds: true, found: found.to_owned() };
    vec![
        check("no other drill", "none is armed or under way"),
        check("enough others serve", "seoul and virginia serve"),
        check("the stores are close", "at most 41 ms behind each other"),
        check("capacity", "the others can take 1,900 requests a second, 640 are needed"),
        check("every agent has its timer", "3 of 3 have armed"),
    ]
}

fn timeline() -> Vec<Mark> {
    let marks: [(i64, What, &str, &str); 20] = [
        (-9_700, What::Armed, "", "every agent has its timer"),
        (0, What::Injected, "frankfurt", "blackhole 100%, for 20 s"),
        (900, What::Suspected, "seoul", "3 of 3 probes of the front door got no answer"),
        (2_290, What::Voted, "seoul", "down"),
        (2_300, What::Voted, "virginia", "down"),
        (2_350, What::Decided, "seoul", "frankfurt is down by 2 of 2 votes, generation 413"),
        (2_352, What::NameServerSilent, "ns.frankfurt", "no answer within 500 ms, as it is meant to be"),
        (2_361, What::Decided, "virginia", "frankfurt is down by 2 of 2 votes, generation 413"),
        (2_372, What::NameServerChanged, "ns.seoul", "answers without frankfurt"),
        (2_380, What::NameServerChanged, "ns.virginia", "answers without frankfurt"),
        (2_400, What::FirstUserElsewhere, "frankfurt", "192.0.2.0/24 was served by virginia"),
        (2_460, What::Writable, "frankfurt", "a write was acknowledged by virginia"),
        (2_600, What::Moved, "", "99 in 100 of frankfurt's users are served elsewhere"),
        (20_000, What::Undone, "frankfurt", "the blackhole has ended"),
        (20_210, What::NameServerBack, "ns.frankfurt", "answers again"),
        (20_600, What::Noted, "frankfurt", "is catching up"),
        (24_000, What::Restored, "frankfurt", "its first user is back"),
        (25_500, What::Converged, "", "all three stores hold the same 1,815 records"),
        (27_000, What::Noted, "frankfurt", "has half of its users"),
        (30_000, What::Ramped, "frankfurt", "has all of its users"),
    ];
    let mark = |(at, what, who, text): (i64, What, &str, &str)| Mark {
        within_ms: 0,
        at_unix_ms: INJECTED_UNIX_MS.saturating_add_signed(at),
        what,
        who: who.to_owned(),
        text: text.to_owned(),
    };
    marks.map(mark).to_vec()
}

fn phases() -> Vec<Phase> {
    let phases = [
        ("suspected", Some(900)),
        ("voted down", Some(2_290)),
        ("decided", Some(2_350)),
        ("name servers changed", Some(2_380)),
        ("first user elsewhere", Some(2_400)),
        ("writable elsewhere", Some(2_460)),
        ("99% moved", Some(2_600)),
        ("first user back", Some(4_000)),
        ("stores converged", Some(5_500)),
        ("all users back", Some(10_000)),
    ];
    phases.map(|(name, ms)| Phase { name: name.to_owned(), ms }).to_vec()
}

fn ledger() -> Ledger {
    let counted = [("seoul", 1_815), ("frankfurt", 1_815), ("virginia", 1_815)];
    Ledger {
        uncounted: Vec::new(),
        durability: "remote:1".to_owned(),
        acknowledged: 1_812,
        present: 1_812,
        late: 0,
        lost: 0,
        duplicated: 2,
        unacknowledged: 3,
        failed: 94,
        lost_records: Vec::new(),
        counted: counted.map(|(name, records)| (name.to_owned(), records)).into(),
    }
}

/// What the series says of them, so that a reader who adds up finds the same.
fn visits(series: &Series) -> Visits {
    let sum = |from: usize, to: usize| {
        let steps = series.witnesses.values().flat_map(move |line| &line[from..to]);
        steps.fold((0, 0), |(all, failed), (good, bad)| {
            (all + u64::from(good + bad), failed + u64::from(*bad))
        })
    };
    let (all, failed) = sum(20, STEPS as usize);
    let (worst_all, worst_failed) = sum(20, 40);
    let example = |after: u64, user: &str, what: &str| Example {
        at_unix_ms: INJECTED_UNIX_MS + after,
        witness: "virginia".to_owned(),
        user: user.to_owned(),
        what: what.to_owned(),
    };
    Visits {
        all,
        failed,
        worst_percent: worst_failed as f64 * 100.0 / worst_all as f64,
        allowed_percent: 30.0,
        p99_ms: 184,
        examples: vec![
            example(114, "192.0.2.0/24", "page: no answer from 127.0.2.1:8080 in 2.00 s"),
            example(320, "198.51.100.0/24", "page: no answer from 127.0.2.1:8080 in 2.00 s"),
            example(1_208, "203.0.113.0/24", "write: the connection was closed before a reply"),
            example(2_370, "192.0.2.0/24", "page: no answer from 127.0.2.1:8080 in 2.00 s"),
        ],
    }
}

fn previous() -> Difference {
    let phases = [
        ("decided", Some(2_610), Some(2_350)),
        ("99% moved", Some(3_240), Some(2_600)),
        ("all users back", Some(9_700), Some(10_000)),
        ("stores converged", None, Some(5_500)),
    ];
    Difference {
        id: "20260823T101500Z-blackhole-frankfurt".to_owned(),
        phases: phases.map(|(name, then, now)| (name.to_owned(), then, now)).to_vec(),
        lost: (0, 0),
        failed: (84, 70),
    }
}

fn verdict() -> Verdict {
    let objective = |name: &str, wanted: &str, found: &str| Objective {
        name: name.to_owned(),
        wanted: wanted.to_owned(),
        found: found.to_owned(),
        is_met: true,
    };
    Verdict {
        is_met: true,
        objectives: vec![
            objective("rto", "at most 5.00 s", "2.60 s"),
            objective("rpo", "at most 0 lost", "0 of 1,812 lost"),
            objective("errors", "at most 30% in ten seconds", "12.3% in the worst ten seconds"),
        ],
    }
}

fn series() -> Series {
    // Where a step is, in milliseconds from the fault.
    let after = |step: u64| (step * STEP_MS) as i64 - 10_000;
    // Percent of its users that frankfurt has.
    let share = |ms: i64| match ms {
        ..2_500 => 100,
        2_500..24_000 => 0,
        24_000..27_000 => 25,
        27_000..30_000 => 50,
        _ => 100,
    };
    let noise = |step: u64, of: u32| (step as u32).wrapping_mul(2_654_435_761) >> 16 & of;
    let witness = |at: usize, step: u64| {
        let visits = 9 + noise(step + at as u64 * 31, 1);
        let failed = if (0..2_500).contains(&after(step)) { 3 + noise(step + at as u64, 3) } else { 0 };
        (visits - failed, failed)
    };
    let placed = |name: &str, step: u64| {
        let of_frankfurt = share(after(step)) / 10 + if share(after(step)) > 0 { noise(step, 1) } else { 0 };
        let moved = 10 - share(after(step)) / 10;
        match name {
            "frankfurt" => of_frankfurt,
            "virginia" => 9 + noise(step + 7, 1) + moved * 8 / 10,
            _ => 10 + noise(step + 3, 1) + moved * 2 / 10,
        }
    };
    let lag = |one: &str, other: &str, step: u64| {
        let ms = after(step);
        let is_cut = one == "frankfurt" || other == "frankfurt";
        match ms {
            // What is asked of the target gets no answer: its heartbeats stop.
            1_000..20_500 if is_cut && other == "frankfurt" => None,
            20_500..25_500 if is_cut => Some(2_400 - (ms - 20_500) as u32 * 47 / 100 + noise(step, 31)),
            _ => Some(22 + noise(step + one.len() as u64, 15)),
        }
    };
    let steps = || 0..STEPS;
    let names = || DATACENTERS.iter().enumerate();
    let pairs = DATACENTERS.iter().flat_map(|one| DATACENTERS.iter().map(move |other| (*one, *other)));
    Series {
        from_unix_ms: BEGUN_UNIX_MS,
        step_ms: STEP_MS,
        witnesses: names()
            .map(|(at, name)| ((*name).to_owned(), steps().map(|step| witness(at, step)).collect()))
            .collect(),
        placed: names()
            .map(|(_, name)| ((*name).to_owned(), steps().map(|step| placed(name, step)).collect()))
            .collect(),
        lags: pairs
            .filter(|(one, other)| one != other)
            .map(|(one, other)| {
                (format!("{one} behind {other}"), steps().map(|step| lag(one, other, step)).collect())
            })
            .collect(),
        states: states(),
    }
}

fn states() -> BTreeMap<String, Vec<(u64, String)>> {
    let frankfurt = [
        (-10_000, "serving"),
        (2_350, "down"),
        (20_600, "catching-up"),
        (24_000, "ramping 25%"),
        (27_000, "ramping 50%"),
        (30_000, "serving"),
    ];
    let state = |(at, state): (i64, &str)| (INJECTED_UNIX_MS.saturating_add_signed(at), state.to_owned());
    [
        ("frankfurt".to_owned(), frankfurt.map(state).to_vec()),
        ("seoul".to_owned(), vec![state((-10_000, "serving"))]),
        ("virginia".to_owned(), vec![state((-10_000, "serving"))]),
    ]
    .into()
}
