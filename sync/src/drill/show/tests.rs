//! What both forms have to withstand: reports of any size, names that want to be markup, and nothing at all.

use super::super::report::{Check, Difference, Ended, Example, Mark, Objective, Phase, Report, What};
use super::{html, sample, text, words};

/// Elements that have no end.
const VOID: [&str; 3] = ["meta", "link", "br"];

/// Elements that may end themselves, as those of SVG may.
const DRAWN: [&str; 7] = ["path", "line", "rect", "circle", "text", "g", "title"];

/// What is wrong with the tags of a page: each that is opened is closed, in order.
fn unbalanced(page: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').ok_or("a tag does not end")? + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = |tag: &str| tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default().len();
        if let Some(closed) = tag.strip_prefix('/') {
            match open.pop() {
                Some(last) if last == closed => {}
                last => return Err(format!("</{closed}> where {last:?} is open")),
            }
        } else if !tag.starts_with('!') {
            let word = &tag[..name(tag)];
            if !tag.matches('"').count().is_multiple_of(2) {
                return Err(format!("<{tag}> has a quote too many"));
            }
            match tag.ends_with('/') {
                true if VOID.contains(&word) || DRAWN.contains(&word) => {}
                true => return Err(format!("<{tag}> cannot end itself")),
                false => open.push(word),
            }
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("left open: {open:?}")) }
}

/// Every report of the samples, each named.
fn reports() -> Vec<(&'static str, Report)> {
    let mut silent = sample::blackhole();
    silent.series.witnesses.values_mut().flatten().for_each(|step| *step = (0, 0));
    silent.series.placed.values_mut().flatten().for_each(|step| *step = 0);
    silent.series.lags.values_mut().flatten().for_each(|step| *step = None);
    silent.visits = Default::default();
    silent.visits.worst_percent = f64::NAN;
    let mut ragged = sample::large(3, 40, 0);
    ragged.series.placed.values_mut().enumerate().for_each(|(at, line)| line.truncate(at * 7));
    ragged.series.step_ms = 0;
    let mut far = sample::blackhole();
    far.undone_unix_ms = Some(u64::MAX);
    far.ended_unix_ms = u64::MAX;
    far.timeline.push(Mark {
        at_unix_ms: 0,
        what: What::Noted,
        who: String::new(),
        text: String::new(),
        within_ms: 0,
    });
    far.series.step_ms = u64::MAX;
    far.ledger.lost = u64::MAX;
    far.phases.push(Phase { name: String::new(), ms: Some(u64::MAX) });
    let mut backwards = sample::blackhole();
    backwards.undone_unix_ms = Some(backwards.begun_unix_ms - 1);
    backwards.series.states.values_mut().for_each(|states| states.reverse());
    vec![
        ("whole", sample::blackhole()),
        ("skipped", sample::skipped()),
        ("aborted", sample::aborted()),
        ("empty", Report::default()),
        ("one datacenter", sample::large(1, 92, 0)),
        ("64 datacenters", sample::large(64, 92, 0)),
        ("2,000 steps", sample::large(3, 2_000, 0)),
        ("500 marks", sample::large(3, 92, 500)),
        ("silent", silent),
        ("ragged", ragged),
        ("far", far),
        ("backwards", backwards),
        ("hostile", hostile()),
    ]
}

const EVIL: &str = "<script>alert('x')</script>\"&\u{1b}[31m\n\u{202e}";

/// A report in which every text of others wants to be more than text.
fn hostile() -> Report {
    let evil = || EVIL.to_owned();
    let mut report = sample::blackhole();
    for text in [
        &mut report.id,
        &mut report.fleet,
        &mut report.program,
        &mut report.config_digest,
        &mut report.target,
        &mut report.by,
        &mut report.reason,
        &mut report.conductor,
        &mut report.outcome.why,
        &mut report.ledger.durability,
    ] {
        *text = evil();
    }
    if let Some(scenario) = &mut report.scenario {
        (scenario.name, scenario.durability) = (evil(), evil());
        scenario.target = Some(daemun_fleet::drill::Target::Link(evil(), evil()));
    }
    report.checks = vec![Check { rule: evil(), holds: false, found: evil() }];
    report.timeline.push(Mark { at_unix_ms: 1, what: What::Noted, who: evil(), text: evil(), within_ms: 0 });
    report.phases = vec![Phase { name: evil(), ms: Some(1) }];
    report.ledger.lost_records = vec![evil()];
    report.ledger.counted.insert(evil(), 1);
    report.visits.examples = vec![Example { at_unix_ms: 1, witness: evil(), user: evil(), what: evil() }];
    report.series.witnesses.insert(evil(), vec![(1, 1)]);
    report.series.placed.insert(evil(), vec![900]);
    report.series.lags.insert(evil(), vec![Some(1)]);
    report.series.states.insert(evil(), vec![(report.begun_unix_ms, evil()), (report.ended_unix_ms, evil())]);
    report.previous =
        Some(Difference { id: evil(), phases: vec![(evil(), None, None)], ..Difference::default() });
    report.verdict.objectives =
        vec![Objective { name: evil(), wanted: evil(), found: evil(), is_met: false }];
    report.notes = vec![evil()];
    report
}

#[test]
fn every_page_is_whole() {
    for (name, report) in reports() {
        let page = html(&report);
        assert_eq!(unbalanced(&page), Ok(()), "{name}");
        assert!(!page.contains("NaN") && !page.contains("inf\"") && !page.contains("inf "), "{name}");
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "{name}");
        let hidden = page.matches("aria-hidden").count();
        let named = page.matches("role=\"img\" aria-label=").count();
        assert!(page.matches("<svg").count() <= hidden + named, "{name}: a drawing without a name");
    }
}

#[test]
fn a_broken_page_is_caught() {
    let page = html(&sample::blackhole());
    let broken = |from: &str, to: &str| unbalanced(&page.replacen(from, to, 1));
    assert!(broken("</section>", "").is_err());
    assert!(broken("</h1>", "</h2>").is_err());
    assert!(broken("</body>", "</main></body>").is_err());
    assert!(unbalanced("<p>one<b>two</p></b>").is_err());
    assert!(unbalanced("<div/>").is_err());
    assert!(unbalanced("<p class=\"one>two</p>").is_err());
    assert!(unbalanced("<p").is_err());
}

#[test]
fn no_line_of_text_is_too_long() {
    let mut reports = reports();
    let mut wide = sample::blackhole();
    wide.reason = "장애조치 훈련 ".repeat(40);
    wide.notes = vec!["x".repeat(450), "두".repeat(200)];
    wide.phases.push(Phase { name: "위".repeat(80), ms: None });
    wide.id = "i".repeat(300);
    wide.ledger.counted.insert("d".repeat(150), 7);
    wide.visits.examples[0].witness = "w".repeat(150);
    reports.push(("wide", wide));
    for (name, report) in reports {
        let text = text(&report);
        for line in text.lines() {
            assert!(super::text::width(line) <= 100, "{name}: {line}");
            assert_eq!(line, line.trim_end(), "{name}: {line}");
        }
        assert!(text.starts_with(words::verdict(&report)), "{name}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{name}");
    }
}

#[test]
fn what_others_wrote_stays_text() {
    let page = html(&hostile());
    assert!(!page.contains("<script") && !page.contains("alert('"));
    assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
    // What is in the head, the header, tables, lists, drawings, the footer.
    assert!(page.matches("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;").count() > 30);
}

#[test]
fn the_text_says_it_in_order() {
    let text = text(&sample::blackhole());
    let first = text.lines().next().unwrap();
    assert_eq!(first, "MET  20261122T101500Z-blackhole-frankfurt  blackhole  frankfurt");
    let mut rest = text.as_str();
    for piece in [
        "ann.kim: quarterly drill, change 4711",
        "2026-11-22T10:15:00.000Z",
        "ended      done",
        "recovery time (rto)",
        "99% moved",
        "2.60 s",
        "1,812",
        "counted in frankfurt: 1,815",
        "70 (3.4%)",
        "12.3% failed in ten seconds; 30.0% allowed",
        "0.64 s faster",
        "14 fewer",
        "- Times of datacenters",
        "-9.700 s",
        "+2.350 s",
    ] {
        let at = rest.find(piece);
        rest = &rest[at.unwrap_or_else(|| panic!("{piece} is not there in its order:\n{text}"))..];
    }
}

#[test]
fn verdicts_have_their_words() {
    let mut report = sample::blackhole();
    assert_eq!(
        (words::verdict(&report), words::sentence(&report).as_str()),
        ("MET", "All 3 objectives were met.")
    );
    report.verdict.is_met = false;
    report.verdict.objectives[1].is_met = false;
    let found = (words::verdict(&report), words::sentence(&report));
    assert_eq!(found, ("NOT MET", "1 of 3 objectives not met: rpo.".to_owned()));
    report.outcome.ended = Ended::Expired;
    assert!(words::sentence(&report).ends_with("as nobody else did."));
    assert_eq!(words::verdict(&sample::aborted()), "ABORTED");
    assert_eq!(words::verdict(&sample::skipped()), "SKIPPED");
    assert!(text(&sample::skipped()).contains("virginia is catching-up"));
    assert!(text(&sample::aborted()).contains("lost: frankfurt/611, frankfurt/612, frankfurt/615"));
    assert!(html(&sample::aborted()).contains("3 lost"));
}

#[test]
fn numbers_have_their_forms() {
    assert_eq!([0, 999, 1_000, 1_234_567].map(words::count), ["0", "999", "1,000", "1,234,567"]);
    let times = [0, 900, 1_240, 119_999, 120_000, 7_260_000];
    assert_eq!(
        times.map(words::seconds),
        ["0.00 s", "0.90 s", "1.24 s", "119.99 s", "2 min 0 s", "2 h 1 min"]
    );
    assert_eq!(
        [(5, 1_245), (1_245, 5)].map(|(zero, at)| words::relative(zero, at)),
        ["+1.240 s", "-1.240 s"]
    );
    assert_eq!(words::rfc3339(1_795_342_500_123), "2026-11-22T10:15:00.123Z");
    assert_eq!(words::rfc3339(u64::MAX), "18446744073709551615 ms of Unix time");
    let mut visits = sample::blackhole().visits;
    (visits.all, visits.failed) = (100_000, 1);
    assert_eq!(words::failed_share(&visits), "under 0.1%", "one is not none");
    visits.failed = 0;
    assert_eq!(words::failed_share(&visits), "0.0%");
}

/// Points of each outline of a page.
fn points(page: &str) -> usize {
    page.split(" d=\"")
        .skip(1)
        .map(|path| path.split('"').next().unwrap().matches('H').count())
        .max()
        .unwrap()
}

#[test]
fn many_steps_become_few_points() {
    let page = html(&sample::large(3, 2_000, 0));
    // An outline goes there and back.
    assert!((300..=400).contains(&points(&page)), "{}", points(&page));
    assert!(html(&sample::large(64, 2_000, 0)).len() < 4_000_000);
}

#[test]
fn counts_are_added_up_and_the_largest_lag_stays() {
    let mut report = sample::large(1, 2_000, 0);
    report.series.witnesses.insert("datacenter-00".to_owned(), vec![(1, 0); 2_000]);
    let mut lag = vec![Some(1); 2_000];
    lag[777] = Some(4_321);
    report.series.lags.insert("one behind other".to_owned(), lag);
    let page = html(&report);
    assert!(page.contains("the tallest column is 10 visits in 5.00 s"));
    assert!(page.contains("at most 4.32 s"));
}

#[test]
fn what_is_not_known_is_not_drawn_as_nought() {
    let mut report = sample::blackhole();
    report.series.lags = [("one behind other".to_owned(), vec![None; 92])].into();
    let page = html(&report);
    assert!(page.contains("never known") && page.contains("the highest point is unknown"));
    assert!(page.contains("class=\"lag\" d=\"\""), "no line");
}

#[test]
fn what_is_left_out_is_said() {
    let large = sample::large(64, 20, 500);
    assert!(html(&large).contains("12 of 4,032 pairs are drawn"));
    assert!(html(&large).contains("57 others"));
    let text = text(&large);
    assert!(text.contains("460 more of the same kinds are in the page"), "{text}");
    assert!(text.lines().count() < 130);
}

/// The sample pages, for eyes: `DAEMUN_SHOW=/some/directory cargo test -p daemun-sync drill`.
#[test]
fn pages_to_look_at() {
    let Some(directory) = std::env::var_os("DAEMUN_SHOW") else { return };
    for (name, report) in reports() {
        let path = std::path::Path::new(&directory).join(name.replace([' ', ','], "-"));
        std::fs::write(path.with_extension("html"), html(&report)).unwrap();
        std::fs::write(path.with_extension("txt"), text(&report)).unwrap();
    }
}
