//! The axis of time that all charts of a page share: seconds from the first fault.

use super::super::report::{Report, Series};
use super::markup::Markup;
use super::words;

/// Width of every chart in its own units; the page scales them.
pub(super) const WIDTH: f64 = 720.0;

/// Where the time begins: before it there is room for the words of the other axis, in the type of a phone.
pub(super) const LEFT: f64 = 78.0;

/// Where it ends.
pub(super) const RIGHT: f64 = WIDTH - 18.0;

/// Room above a chart, for the names of the guide lines.
pub(super) const TOP: f64 = 28.0;

/// Room below it, for the times.
pub(super) const BOTTOM: f64 = 32.0;

/// About as wide is a letter in the largest type, that of a phone.
pub(super) const LETTER: f64 = 12.0;

/// About as wide is a letter in the type of a large screen.
pub(super) const SMALL_LETTER: f64 = 6.0;

/// Lengths between two times on the axis, milliseconds.
const STEPS_MS: [u64; 22] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000,
    300_000, 600_000, 1_800_000, 3_600_000, 7_200_000,
];

/// Times on an axis, at most.
const TICKS_MAX: f64 = 6.0;

/// The axis: which moments it shows, in milliseconds from the first fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Unix time of the first fault.
    pub(super) zero_unix_ms: u64,
    /// Where it begins.
    pub(super) from_ms: f64,
    /// Where it ends: later than it begins.
    pub(super) to_ms: f64,
    /// When the first fault was injected.
    pub(super) injected_ms: Option<f64>,
    /// When the faults ended.
    pub(super) undone_ms: Option<f64>,
}

impl Axis {
    /// From the earliest to the latest of what a report says of the time.
    pub(super) fn of(report: &Report) -> Self {
        let zero_unix_ms = words::zero_unix_ms(report);
        let mut moments = vec![zero_unix_ms];
        moments.extend(report.undone_unix_ms);
        moments.extend(report.timeline.iter().map(|mark| mark.at_unix_ms));
        let steps = steps(&report.series) as u64;
        if steps > 0 {
            let from = report.series.from_unix_ms;
            moments.extend([from, from.saturating_add(steps.saturating_mul(report.series.step_ms))]);
        }
        let ms = |at: u64| from_zero(zero_unix_ms, at);
        let from_ms = moments.iter().copied().min().map_or(0.0, ms);
        let to_ms = moments.iter().copied().max().map_or(0.0, ms);
        Self {
            zero_unix_ms,
            from_ms,
            to_ms: to_ms.max(from_ms + 1.0),
            injected_ms: report.injected_unix_ms.map(ms),
            undone_ms: report.undone_unix_ms.map(ms),
        }
    }

    /// The same with another beginning and end.
    pub(super) fn cut(self, from_ms: f64, to_ms: f64) -> Self {
        Self { from_ms, to_ms: to_ms.max(from_ms + 1.0), ..self }
    }

    /// Milliseconds from the first fault to a moment of Unix time.
    pub(super) fn ms(&self, unix_ms: u64) -> f64 {
        from_zero(self.zero_unix_ms, unix_ms)
    }

    /// Where a moment is across the chart.
    pub(super) fn x(&self, ms: f64) -> f64 {
        let share = (ms - self.from_ms) / (self.to_ms - self.from_ms);
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    /// Times written below a chart, where they are.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let span = self.to_ms - self.from_ms;
        let step = STEPS_MS.iter().map(|step| *step as f64).find(|step| span / step <= TICKS_MAX);
        // Longer than half a day: days, or as many of them as it takes.
        let step = step.unwrap_or_else(|| (span / TICKS_MAX / 86_400_000.0).ceil() * 86_400_000.0);
        let first = (self.from_ms / step).ceil();
        let at = |number: usize| (first + number as f64) * step;
        (0..=TICKS_MAX as usize)
            .map(at)
            .take_while(|at| *at <= self.to_ms)
            .map(|at| (self.x(at), tick(at, step)))
            .collect()
    }

    /// The time in which something failed, as a tint below what a chart shows.
    pub(super) fn tint(&self, page: &mut Markup, top: f64, bottom: f64) {
        let Some(injected_ms) = self.injected_ms else { return };
        let (from, to) = (self.x(injected_ms), self.x(self.undone_ms.unwrap_or(self.to_ms)));
        rectangle(page, "tint", [from, top, (to - from).max(0.0), bottom - top], "");
    }

    /// Lines where the faults began and ended, with their names, and the times.
    pub(super) fn guides(&self, page: &mut Markup, top: f64, bottom: f64) {
        let here =
            |at: Option<f64>| at.filter(|at| (self.from_ms..=self.to_ms).contains(at)).map(|at| self.x(at));
        let (injected, undone) = (here(self.injected_ms), here(self.undone_ms));
        let is_near = |(injected, undone): (f64, f64)| undone - injected < "injected ".len() as f64 * LETTER;
        let near = injected.zip(undone).is_some_and(is_near);
        for (name, x, is_left) in [("injected", injected, near), ("undone", undone, false)] {
            let Some(x) = x else { continue };
            line(page, "guide", [x, top - 4.0, x, bottom]);
            // To the right of its line, unless the other name or the chart's end is there.
            let is_left = is_left || x + name.len() as f64 * LETTER > WIDTH;
            let (at, anchor) = if is_left { (x - 4.0, "end") } else { (x + 4.0, "start") };
            words_at(page, "guide-name", [at, top - 9.0], anchor, name);
        }
        line(page, "axis", [LEFT, bottom, RIGHT, bottom]);
        for (x, text) in self.ticks() {
            line(page, "axis", [x, bottom, x, bottom + 4.0]);
            // The outermost ones stay inside the chart.
            let half = text.chars().count() as f64 * LETTER / 2.0;
            let anchor = if x + half > WIDTH { "end" } else { "middle" };
            words_at(page, "", [x.min(WIDTH - 1.0), bottom + 24.0], anchor, &text);
        }
    }
}

/// The number of steps of a series: as many as its longest line has.
pub(super) fn steps(series: &Series) -> usize {
    let witnesses = series.witnesses.values().map(Vec::len);
    let placed = series.placed.values().map(Vec::len);
    let lags = series.lags.values().map(Vec::len);
    witnesses.chain(placed).chain(lags).max().unwrap_or(0)
}

fn from_zero(zero_unix_ms: u64, unix_ms: u64) -> f64 {
    if unix_ms >= zero_unix_ms { (unix_ms - zero_unix_ms) as f64 } else { -((zero_unix_ms - unix_ms) as f64) }
}

/// A time on the axis: in the unit in which its step is a whole number.
fn tick(ms: f64, step_ms: f64) -> String {
    let number = |unit_ms: f64, digits: usize| format!("{:.digits$}", ms / unit_ms + 0.0);
    match step_ms {
        ..10.0 => format!("{} s", number(1_000.0, 3)),
        10.0..100.0 => format!("{} s", number(1_000.0, 2)),
        100.0..1_000.0 => format!("{} s", number(1_000.0, 1)),
        1_000.0..60_000.0 => format!("{} s", number(1_000.0, 0)),
        60_000.0..3_600_000.0 => format!("{} min", number(60_000.0, 0)),
        3_600_000.0..86_400_000.0 => format!("{} h", number(3_600_000.0, 0)),
        _ => format!("{} d", number(86_400_000.0, 0)),
    }
}

/// A number of SVG. What is not finite, which nothing here is, would break the drawing.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// A line from one point to another.
pub(super) fn line(page: &mut Markup, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
    page.empty("line", &[("class", class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]);
}

/// A rectangle: left, top, width, height; with words for who points at it.
pub(super) fn rectangle(page: &mut Markup, class: &str, [x, y, width, height]: [f64; 4], title: &str) {
    let [x, y, width, height] = [x, y, width, height].map(number);
    let attributes = [("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)];
    page.inside("rect", &attributes, |page| {
        if !title.is_empty() {
            page.leaf("title", &[], title);
        }
    });
}

/// Words in a chart.
pub(super) fn words_at(page: &mut Markup, class: &str, [x, y]: [f64; 2], anchor: &str, text: &str) {
    let [x, y] = [x, y].map(number);
    page.leaf("text", &[("class", class), ("x", &x), ("y", &y), ("text-anchor", anchor)], text);
}
