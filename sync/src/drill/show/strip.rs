//! The timeline of a page: a strip with every mark, its first part enlarged, and the list that says what each of them is.

use super::super::report::{Mark, Report, What};
use super::axis::{Axis, LEFT, RIGHT, TOP, line, number, words_at};
use super::chart::Figure;
use super::markup::Markup;
use super::words;

/// Room that a number takes in a strip.
const NUMBER: f64 = 31.0;

/// Rows of numbers above a strip.
const LEVELS: usize = 4;

/// Height of such a row.
const LEVEL: f64 = 29.0;

/// How far beside its mark a number may be, in numbers: the nearest first.
const ASIDE: [f64; 7] = [0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5];

/// With more marks than this, only those numbers are drawn that have room above their marks.
const CROWD: usize = 60;

/// From the top of a strip to its line.
const DEEP: f64 = LEVEL * LEVELS as f64 + 8.0;

/// The strip and the list.
pub(super) fn timeline(page: &mut Markup, report: &Report, axis: &Axis) {
    let part = enlarged(report, axis);
    // Beside their marks numbers say less of the time: not where they can be read elsewhere, nor where they would fill it.
    let is_crowded = part.is_some() || report.timeline.len() > CROWD;
    let aside = if is_crowded { &ASIDE[..1] } else { &ASIDE[..] };
    if let Some(part) = part {
        page.inside("figure", &[], |page| {
            page.leaf("h3", &[], "The recovery, enlarged");
            strip(page, report, &part, &ASIDE, "The recovery, enlarged");
        });
    }
    page.inside("figure", &[], |page| {
        page.leaf("h3", &[], "All of the drill");
        strip(page, report, axis, aside, "All of the drill");
        let caption = format!(
            "Each stroke is one thing that happened; its number is that of the list below. The tinted \
             part is the time in which something failed. Times are from {}. Where there is no room for a \
             number there is a stroke alone.",
            words::zero(report)
        );
        page.leaf("figcaption", &[], &caption);
    });
    list(page, report);
}

/// The part from the first fault to the end of the recovery, if on the whole strip it would be too narrow to read.
fn enlarged(report: &Report, axis: &Axis) -> Option<Axis> {
    let injected_ms = axis.injected_ms?;
    let is_recovery = |mark: &&Mark| {
        use What::{Decided, FirstUserElsewhere, Moved, NameServerChanged, Suspected, Voted, Writable};
        let kinds = [Suspected, Voted, Decided, NameServerChanged, FirstUserElsewhere, Moved, Writable];
        kinds.contains(&mark.what) && axis.undone_ms.is_none_or(|undone| axis.ms(mark.at_unix_ms) <= undone)
    };
    let last_ms = report
        .timeline
        .iter()
        .filter(is_recovery)
        .map(|mark| axis.ms(mark.at_unix_ms))
        .max_by(f64::total_cmp)?;
    let span = last_ms - injected_ms;
    let is_narrow = span > 0.0 && span < (axis.to_ms - axis.from_ms) / 3.0;
    is_narrow.then(|| axis.cut(injected_ms - span * 0.06, last_ms + span * 0.06))
}

fn strip(page: &mut Markup, report: &Report, axis: &Axis, aside: &[f64], title: &str) {
    let here: Vec<(usize, &Mark)> = report
        .timeline
        .iter()
        .enumerate()
        .filter(|(_, mark)| (axis.from_ms..=axis.to_ms).contains(&axis.ms(mark.at_unix_ms)))
        .collect();
    let bottom = TOP + DEEP + 6.0;
    let about = format!("{} marks on a line of time.", here.len());
    Figure { title, about: &about, height: bottom + super::axis::BOTTOM }.draw(page, |page| {
        axis.tint(page, TOP, bottom);
        axis.guides(page, TOP, bottom);
        let placed: Vec<_> = here.iter().zip(levels(&here, axis, aside)).collect();
        let class = |mark: &Mark| if is_turn(mark.what) { "mark turn" } else { "mark" };
        for ((_, mark), level) in &placed {
            let x = axis.x(axis.ms(mark.at_unix_ms));
            let [to, y] = level.unwrap_or([x, bottom - 8.0]);
            line(page, class(mark), [x, bottom, to, y]);
        }
        // Above all strokes, so that none crosses a number.
        for ((at, mark), level) in &placed {
            let Some([x, y]) = *level else { continue };
            let (across, down) = (number(x), number(y));
            let circle = [("class", class(mark)), ("cx", across.as_str()), ("cy", &down), ("r", "13.5")];
            page.inside("circle", &circle, |page| {
                page.leaf("title", &[], &format!("{}: {} {}", at + 1, words::what(mark.what), mark.who));
            });
            words_at(page, "number", [x, y + 6.0], "middle", &(at + 1).to_string());
        }
    });
}

/// Where there is room for the numbers, as near to their marks as can be; the first mark of each kind chooses first.
fn levels(marks: &[(usize, &Mark)], axis: &Axis, aside: &[f64]) -> Vec<Option<[f64; 2]>> {
    let is_first = |at: usize| !marks[..at].iter().any(|(_, mark)| mark.what == marks[at].1.what);
    let mut order: Vec<(bool, usize)> = (0..marks.len()).map(|at| (!is_first(at), at)).collect();
    order.sort_unstable();
    let mut taken: [Vec<f64>; LEVELS] = Default::default();
    let mut found = vec![None; marks.len()];
    for (_, at) in order {
        let x = axis.x(axis.ms(marks[at].1.at_unix_ms));
        let places = aside.iter().flat_map(|aside| (0..LEVELS).map(move |level| (x + aside * NUMBER, level)));
        let mut places = places.filter(|(x, _)| (LEFT..=RIGHT).contains(x));
        let is_free =
            |(x, level): &(f64, usize)| taken[*level].iter().all(|other| (other - x).abs() >= NUMBER);
        if let Some((x, level)) = places.find(is_free) {
            taken[level].push(x);
            found[at] = Some([x, TOP + DEEP - (level as f64 + 0.5) * LEVEL]);
        }
    }
    found
}

/// What a reader looks for first.
fn is_turn(what: What) -> bool {
    matches!(what, What::Injected | What::Decided | What::Moved | What::Undone | What::Ramped)
}

fn list(page: &mut Markup, report: &Report) {
    let zero = words::zero_unix_ms(report);
    page.inside("ol", &[("class", "timeline")], |page| {
        for mark in &report.timeline {
            let class = if is_turn(mark.what) { "turn" } else { "" };
            page.inside("li", &[("class", class)], |page| {
                page.leaf("b", &[("class", "when")], &words::relative(zero, mark.at_unix_ms));
                page.inside("div", &[], |page| {
                    page.leaf("strong", &[], words::what(mark.what));
                    if !mark.who.is_empty() {
                        page.text(" ");
                        page.leaf("span", &[("class", "who")], &mark.who);
                    }
                    page.text(" ");
                    page.leaf("span", &[("class", "said")], &words::said(mark));
                });
                page.leaf("small", &[("class", "at")], &words::moment(mark.at_unix_ms));
            });
        }
    });
}
