//! The charts of a page: visits by witness, where users were sent, how far stores were behind, states of datacenters.
//!
//! Of steps put together counts are added up, of lags the largest is drawn, and a column in which anything is unknown is
//! unknown. Charts of many rows are several drawings, so that a printed page holds each of them whole.

use std::collections::BTreeMap;

use super::super::report::Report;
use super::axis::{
    Axis, BOTTOM, LEFT, LETTER, RIGHT, SMALL_LETTER, TOP, WIDTH, line, number, rectangle, words_at,
};
use super::columns::{Columns, longest};
use super::markup::Markup;
use super::words;

/// Rows of one drawing: more do not fit on a printed page.
const ROWS_MAX: usize = 8;

/// Pairs of stores that are drawn, those furthest behind first.
const PAIRS_MAX: usize = 12;

/// Datacenters with a colour of their own.
const COLOURS: usize = 7;

/// Room above a row, for its name.
const NAME: f64 = 27.0;

/// Names in a chart are cut to this.
const LETTERS_MAX: usize = 34;

/// A drawing, with what is said of it.
pub(super) struct Figure<'a> {
    /// Its heading.
    pub(super) title: &'a str,
    /// What it shows, for those who do not see it.
    pub(super) about: &'a str,
    /// In its own units.
    pub(super) height: f64,
}

impl Figure<'_> {
    /// The drawing alone.
    pub(super) fn draw(&self, page: &mut Markup, fill: impl FnOnce(&mut Markup)) {
        let view = format!("0 0 {} {}", number(WIDTH), number(self.height));
        let label = format!("{}. {}", self.title, self.about);
        page.inside("svg", &[("viewBox", &view), ("role", "img"), ("aria-label", &label)], |page| {
            page.leaf("title", &[], self.title);
            fill(page);
        });
    }
}

/// Visits by witness: those that went well above a line, those that failed below it.
pub(super) fn visits(page: &mut Markup, report: &Report, axis: &Axis) {
    const HALF: f64 = 24.0;
    let columns = Columns::of(report, axis);
    let lines: Vec<(&String, Vec<(u64, u64)>)> = report
        .series
        .witnesses
        .iter()
        .map(|(name, line)| {
            let add = |(good, bad): (u64, u64), step: &(u32, u32)| {
                (good + u64::from(step.0), bad + u64::from(step.1))
            };
            (name, (0..columns.all).map(|at| columns.steps(line, at).iter().fold((0, 0), add)).collect())
        })
        .collect();
    let most = lines.iter().flat_map(|(_, line)| line).map(|(good, bad)| *good.max(bad)).max().unwrap_or(0);
    let high = |visits: u64| visits as f64 / most.max(1) as f64 * HALF;
    let rows = Rows {
        title: "Visits by witness",
        height: NAME + 2.0 * HALF,
        rows: &lines,
        name: |(name, line)| {
            let (good, bad) = line.iter().fold((0, 0), |(good, bad), step| (good + step.0, bad + step.1));
            (clip(name), format!("{} ok, {} failed", words::count(good), words::count(bad)))
        },
    };
    rows.draw(page, axis, |page, (_, line), top| {
        let middle = top + NAME + HALF;
        words_at(page, "", [LEFT - 6.0, middle - 5.0], "end", "ok");
        words_at(page, "", [LEFT - 6.0, middle + 19.0], "end", "failed");
        let path = columns.outline(axis, |at| (line[at].0 > 0).then(|| (middle, middle - high(line[at].0))));
        page.empty("path", &[("class", "ok"), ("d", &path)]);
        let path = columns.outline(axis, |at| (line[at].1 > 0).then(|| (middle, middle + high(line[at].1))));
        page.empty("path", &[("class", "failed"), ("d", &path)]);
        line_across(page, middle);
    });
    let caption = format!(
        "Above each line the visits that went well, below it those that failed. All rows have the same \
         scale: the tallest column is {} visits in {}.",
        words::count(most),
        columns.length()
    );
    page.leaf("figcaption", &[], &caption);
}

/// Where name servers sent the visits, in percent of all.
pub(super) fn placed(page: &mut Markup, report: &Report, axis: &Axis) {
    const HEIGHT: f64 = 180.0;
    let columns = Columns::of(report, axis);
    let bands = bands(report, &columns);
    let total = |at: usize| bands.iter().map(|band| band.line[at]).sum::<u64>();
    let totals: Vec<u64> = (0..columns.all).map(total).collect();
    let bottom = TOP + HEIGHT;
    let y = |part: u64, at: usize| bottom - part as f64 / totals[at].max(1) as f64 * HEIGHT;
    let about = "Percent of the visits sent to each datacenter, over time.";
    Figure { title: "Where users were sent", about, height: bottom + BOTTOM }.draw(page, |page| {
        rectangle(page, "unknown", [LEFT, TOP, RIGHT - LEFT, HEIGHT], "no visits");
        for (percent, at) in [("100%", 0.0), ("50%", 0.5), ("0%", 1.0)] {
            words_at(page, "", [LEFT - 6.0, TOP + at * HEIGHT + 6.0], "end", percent);
        }
        let mut below = vec![0; columns.all];
        let mut labels = Vec::new();
        for band in &bands {
            let between =
                |at: usize| (totals[at] > 0).then(|| (y(below[at], at), y(below[at] + band.line[at], at)));
            let path = columns.outline(axis, between);
            page.empty("path", &[("class", &band.class()), ("d", &path)]);
            let share = |at: &usize| band.line[*at] as f64 / totals[*at].max(1) as f64;
            let widest = (0..columns.all).max_by(|one, other| share(one).total_cmp(&share(other)));
            if let Some(at) = widest.filter(|at| share(at) > 0.15) {
                let middle = y(below[at] + band.line[at] / 2, at) + 6.0;
                labels.push((label_x(axis, &columns, &band.name, at), middle, band.name.clone()));
            }
            below.iter_mut().zip(&band.line).for_each(|(sum, part)| *sum += part);
        }
        axis.guides(page, TOP, bottom);
        for (x, y, name) in labels {
            words_at(page, "inside", [x, y], "middle", &name);
        }
    });
    let entries = bands.iter().map(|band| (band.class(), band.name.clone()));
    let nobody = totals.contains(&0).then(|| ("unknown".to_owned(), "no visits".to_owned()));
    legend(page, entries.chain(nobody));
    let caption = format!(
        "Percent of the visits that name servers sent to each datacenter, in columns of {}. Where nobody \
         was sent anywhere the chart is hatched.",
        columns.length()
    );
    page.leaf("figcaption", &[], &caption);
}

/// A band of the stacked chart: a datacenter, or all that have no colour of their own.
struct Band {
    name: String,
    colour: usize,
    line: Vec<u64>,
}

impl Band {
    fn class(&self) -> String {
        format!("band s{}", self.colour)
    }
}

fn bands(report: &Report, columns: &Columns) -> Vec<Band> {
    let sum = |line: &[u32]| line.iter().map(|step| u64::from(*step)).sum::<u64>();
    let mut largest: Vec<(&String, &Vec<u32>)> = report.series.placed.iter().collect();
    // The target has a colour, as it is what everybody looks for.
    largest.sort_by_key(|(name, line)| (**name != report.target, std::cmp::Reverse(sum(line))));
    let (own, others) = largest.split_at(largest.len().min(COLOURS));
    let counted = |line: &[u32]| (0..columns.all).map(|at| sum(columns.steps(line, at))).collect::<Vec<_>>();
    let mut bands: Vec<Band> =
        own.iter().map(|(name, line)| Band { name: clip(name), colour: 0, line: counted(line) }).collect();
    bands.sort_by(|one, other| one.name.cmp(&other.name));
    bands.iter_mut().enumerate().for_each(|(colour, band)| band.colour = colour);
    if !others.is_empty() {
        let mut line = vec![0; columns.all];
        for (_, other) in others {
            line.iter_mut().zip(counted(other)).for_each(|(sum, part)| *sum += part);
        }
        bands.push(Band { name: format!("{} others", others.len()), colour: COLOURS, line });
    }
    bands
}

/// Where a band's name fits around a column.
fn label_x(axis: &Axis, columns: &Columns, name: &str, column: usize) -> f64 {
    let half = name.chars().count() as f64 * LETTER / 2.0;
    let x = (columns.x(axis, column) + columns.x(axis, column + 1)) / 2.0;
    x.clamp((LEFT + half).min(RIGHT), (RIGHT - half).max(LEFT + half))
}

/// How far stores were behind each other.
pub(super) fn lags(page: &mut Markup, report: &Report, axis: &Axis) {
    const HEIGHT: f64 = 40.0;
    let columns = Columns::of(report, axis);
    let furthest = |line: &[Option<u32>]| line.iter().flatten().max().copied();
    let unknown = |line: &[Option<u32>]| line.iter().filter(|step| step.is_none()).count();
    let mut pairs: Vec<(&String, &Vec<Option<u32>>)> = report.series.lags.iter().collect();
    let all = pairs.len();
    if all > PAIRS_MAX {
        pairs.sort_by_key(|(_, line)| std::cmp::Reverse((unknown(line), furthest(line))));
    }
    let left_out = pairs.split_off(all.min(PAIRS_MAX));
    let most = pairs.iter().filter_map(|(_, line)| furthest(line)).max().unwrap_or(0).max(1);
    let rows = Rows {
        title: "Lag between stores",
        height: NAME + HEIGHT,
        rows: &pairs,
        name: |(name, line)| {
            let furthest = line.iter().flatten().max();
            (clip(name), furthest.map_or("never known".to_owned(), |ms| format!("at most {}", lag(*ms))))
        },
    };
    rows.draw(page, axis, |page, (_, line), top| {
        let (top, bottom) = (top + NAME, top + NAME + HEIGHT);
        let column = |at: usize| -> Option<u32> {
            let steps = columns.steps(line, at);
            if steps.is_empty() || steps.iter().any(Option::is_none) { None } else { furthest(steps) }
        };
        let path = columns.outline(axis, |at| column(at).is_none().then_some((bottom, top)));
        if !path.is_empty() {
            page.empty("path", &[("class", "unknown"), ("d", &path)]);
        }
        let high = |ms: u32| bottom - f64::from(ms) / f64::from(most) * (HEIGHT - 4.0);
        let path = columns.outline(axis, |at| column(at).map(|ms| (bottom, high(ms))));
        page.empty("path", &[("class", "lag"), ("d", &path)]);
        if let Some((from, to)) = longest(columns.all, |at| column(at).is_none()) {
            let (from, to) = (columns.x(axis, from), columns.x(axis, to));
            name_inside(page, "unknown", [from, to], (top + bottom) / 2.0 + 6.0);
        }
        line_across(page, bottom);
        words_at(page, "", [LEFT - 6.0, top + 8.0], "end", &lag(most));
        words_at(page, "", [LEFT - 6.0, bottom], "end", "0");
    });
    legend(page, [("lag".to_owned(), "lag".to_owned()), ("unknown".to_owned(), "unknown".to_owned())]);
    let mut caption = format!(
        "How far one store was behind what another had written. All rows have the same scale; the highest \
         point is {}. Hatched where it was not known: that is not nought.",
        pairs.iter().filter_map(|(_, line)| furthest(line)).max().map_or("unknown".to_owned(), lag)
    );
    if !left_out.is_empty() {
        let rest = left_out.iter().filter_map(|(_, line)| furthest(line)).max();
        caption.push_str(&format!(
            " {} of {} pairs are drawn, those longest unknown and furthest behind; of the others none was \
             known to be further behind than {}.",
            pairs.len(),
            words::count(all as u64),
            rest.map_or("unknown".to_owned(), lag)
        ));
    }
    page.leaf("figcaption", &[], &caption);
}

/// In which state each datacenter was.
pub(super) fn states(page: &mut Markup, report: &Report, axis: &Axis) {
    const HEIGHT: f64 = 26.0;
    let rows: Vec<(&String, Vec<Span<'_>>)> =
        report.series.states.iter().map(|(name, changes)| (name, spans(axis, changes))).collect();
    let drawn = Rows {
        title: "States of datacenters",
        height: NAME + HEIGHT,
        rows: &rows,
        name: |(name, _)| (clip(name), String::new()),
    };
    drawn.draw(page, axis, |page, (name, spans), top| {
        rectangle(page, "unknown", [LEFT, top + NAME, RIGHT - LEFT, HEIGHT], "unknown");
        for (from, to, state) in spans {
            let (x, end) = (axis.x(*from), axis.x(*to));
            let title = format!("{name}: {state} for {}", words::seconds((to - from) as u64));
            let class = state_class(state);
            rectangle(page, class, [x, top + NAME, (end - x).max(1.0), HEIGHT], &title);
            name_inside(page, &clip(state), [x, end], top + NAME + HEIGHT / 2.0 + 6.0);
        }
    });
    let mut known = BTreeMap::new();
    for (_, _, state) in rows.iter().flat_map(|(_, spans)| spans) {
        let class = state_class(state);
        let word = if class == "state other" { "another state" } else { first_word(state) };
        known.insert(class.to_owned(), word.to_owned());
    }
    legend(page, known);
    page.inside("ul", &[("class", "plain")], |page| {
        for (name, spans) in rows.iter().filter(|(_, spans)| spans.len() > 1) {
            let said = spans.iter().enumerate().map(|(at, (from, _, state))| match at {
                0 => (*state).to_owned(),
                _ => format!("{state} from {:+.3} s", from / 1000.0),
            });
            let said = said.collect::<Vec<_>>().join(", ");
            page.inside("li", &[], |page| {
                page.leaf("strong", &[], name);
                page.text(&format!(": {said}."));
            });
        }
    });
    let caption = "The state that the agent which led the drill had for each datacenter. Those not listed \
                   above in words kept one state throughout.";
    page.leaf("figcaption", &[], caption);
}

/// From when to when it was in which state, in milliseconds on the axis.
type Span<'a> = (f64, f64, &'a str);

fn spans<'a>(axis: &Axis, changes: &'a [(u64, String)]) -> Vec<Span<'a>> {
    let ends = changes.iter().skip(1).map(|(at, _)| axis.ms(*at)).chain([axis.to_ms]);
    let all = changes.iter().zip(ends).map(|((at, state), end)| {
        let clamp = |ms: f64| ms.clamp(axis.from_ms, axis.to_ms);
        (clamp(axis.ms(*at)), clamp(end), state.as_str())
    });
    all.filter(|(from, to, _)| to > from).collect()
}

fn first_word(state: &str) -> &str {
    state.split(' ').next().unwrap_or_default()
}

fn state_class(state: &str) -> &'static str {
    match first_word(state) {
        "serving" => "state serving",
        "draining" => "state draining",
        "drained" => "state drained",
        "down" => "state down",
        "catching-up" => "state catching-up",
        "ramping" => "state ramping",
        _ => "state other",
    }
}

/// Rows below each other with the axis below them, in as many drawings as it takes.
struct Rows<'a, T> {
    title: &'a str,
    height: f64,
    rows: &'a [T],
    /// The name of a row, and what was found in it.
    name: fn(&T) -> (String, String),
}

impl<T> Rows<'_, T> {
    fn draw(&self, page: &mut Markup, axis: &Axis, draw: impl Fn(&mut Markup, &T, f64)) {
        let parts = self.rows.len().div_ceil(ROWS_MAX);
        for (part, rows) in self.rows.chunks(ROWS_MAX).enumerate() {
            let bottom = TOP + rows.len() as f64 * self.height + 6.0;
            let about = format!("{} rows over time, part {} of {parts}.", rows.len(), part + 1);
            Figure { title: self.title, about: &about, height: bottom + BOTTOM }.draw(page, |page| {
                axis.tint(page, TOP, bottom);
                let top = |at: usize| TOP + at as f64 * self.height;
                rows.iter().enumerate().for_each(|(at, row)| draw(page, row, top(at)));
                axis.guides(page, TOP, bottom);
                // Above the guide lines, so that none crosses a word.
                for (at, row) in rows.iter().enumerate() {
                    let (name, found) = (self.name)(row);
                    words_at(page, "row", [LEFT, top(at) + 21.0], "start", &name);
                    words_at(page, "found", [RIGHT, top(at) + 21.0], "end", &found);
                }
            });
        }
    }
}

/// What the colours and hatchings mean.
fn legend(page: &mut Markup, entries: impl IntoIterator<Item = (String, String)>) {
    page.inside("ul", &[("class", "legend")], |page| {
        for (class, name) in entries {
            page.inside("li", &[], |page| {
                page.inside("svg", &[("viewBox", "0 0 18 12"), ("aria-hidden", "true")], |page| {
                    rectangle(page, &class, [0.0, 0.0, 18.0, 12.0], "");
                });
                page.text(&name);
            });
        }
    });
}

fn line_across(page: &mut Markup, y: f64) {
    line(page, "axis", [LEFT, y, RIGHT, y]);
}

/// A word between two points, if it fits; where it fits only in small type, it is for large screens.
fn name_inside(page: &mut Markup, name: &str, [from, to]: [f64; 2], y: f64) {
    let letters = name.chars().count() as f64 + 1.0;
    let class = match to - from {
        room if room >= letters * LETTER => "inside",
        room if room >= letters * SMALL_LETTER => "inside roomy",
        _ => return,
    };
    words_at(page, class, [(from + to) / 2.0, y], "middle", name);
}

fn lag(ms: u32) -> String {
    if ms < 1000 { format!("{ms} ms") } else { words::seconds(ms.into()) }
}

fn clip(name: &str) -> String {
    if name.chars().count() <= LETTERS_MAX {
        return name.to_owned();
    }
    name.chars().take(LETTERS_MAX - 1).chain(['…']).collect()
}
