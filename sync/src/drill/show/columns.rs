//! The columns of a chart: steps of a series put together, so that a drawing has few points however long the drill was.

use super::super::report::Report;
use super::axis::{Axis, number, steps};
use super::words;

/// Columns of a chart: each is two points of an outline.
const COLUMNS_MAX: usize = 200;

/// Steps put together to columns.
#[derive(Debug)]
pub(super) struct Columns {
    /// Steps in a column.
    each: usize,
    /// How many columns there are.
    pub(super) all: usize,
    from_ms: f64,
    step_ms: f64,
    to_ms: f64,
}

impl Columns {
    /// As many as a chart draws.
    pub(super) fn of(report: &Report, axis: &Axis) -> Self {
        let steps = steps(&report.series);
        let each = steps.div_ceil(COLUMNS_MAX).max(1);
        let (from_ms, step_ms) =
            (axis.ms(report.series.from_unix_ms), (report.series.step_ms as f64) * each as f64);
        let to_ms = from_ms + report.series.step_ms as f64 * steps as f64;
        Self { each, all: steps.div_ceil(each), from_ms, step_ms, to_ms }
    }

    /// The steps of a column of a line, which may be shorter than others.
    pub(super) fn steps<'a, T>(&self, line: &'a [T], column: usize) -> &'a [T] {
        let from = (column * self.each).min(line.len());
        &line[from..(from + self.each).min(line.len())]
    }

    /// Where a column begins: the next one's beginning is its end.
    pub(super) fn x(&self, axis: &Axis, column: usize) -> f64 {
        axis.x((self.from_ms + column as f64 * self.step_ms).min(self.to_ms))
    }

    /// How long a column is, for people.
    pub(super) fn length(&self) -> String {
        words::seconds(self.step_ms as u64)
    }

    /// The outline of columns between two heights, in pieces where some have none.
    pub(super) fn outline(&self, axis: &Axis, between: impl Fn(usize) -> Option<(f64, f64)>) -> String {
        let mut path = String::new();
        let mut column = 0;
        while column < self.all {
            let from = column;
            while column < self.all && between(column).is_some() {
                column += 1;
            }
            let run: Vec<(usize, (f64, f64))> =
                (from..column).filter_map(|at| Some((at, between(at)?))).collect();
            for (at, (_, upper)) in &run {
                let command = if *at == from { 'M' } else { 'L' };
                let (x, end, y) = (self.x(axis, *at), self.x(axis, at + 1), number(*upper));
                path.push_str(&format!("{command}{} {y}H{}", number(x), number(end)));
            }
            for (at, (lower, _)) in run.iter().rev() {
                let (x, end, y) = (self.x(axis, *at), self.x(axis, at + 1), number(*lower));
                path.push_str(&format!("L{} {y}H{}", number(end), number(x)));
            }
            if !run.is_empty() {
                path.push('Z');
            }
            column = column.max(from + 1);
        }
        path
    }
}

/// The longest run of columns of which something holds.
pub(super) fn longest(columns: usize, holds: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let mut found: Option<(usize, usize)> = None;
    let mut from = None;
    for at in 0..=columns {
        match (from, at < columns && holds(at)) {
            (None, true) => from = Some(at),
            (Some(begun), false) => {
                from = None;
                if found.is_none_or(|(one, other)| other - one < at - begun) {
                    found = Some((begun, at));
                }
            }
            _ => {}
        }
    }
    found
}
