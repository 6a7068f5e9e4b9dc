//! A drill's report as text for a terminal: at most a hundred columns, no colours, the verdict first.

use super::super::report::{Ended, Mark, Report};
use super::words;

/// Columns.
const WIDTH: usize = 100;

/// A column other than the last is cut to this, so that the last one has room.
const CELL: usize = 30;

/// Lines of the timeline: more scroll the verdict away, and the page has all of them.
const MARKS_MAX: usize = 60;

/// Failed visits shown.
const EXAMPLES_MAX: usize = 3;

/// Lost records shown.
const LOST_MAX: usize = 10;

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut lines = Lines::default();
    head(&mut lines, report);
    refused(&mut lines, report);
    objectives(&mut lines, report);
    phases(&mut lines, report);
    if report.outcome.ended != Ended::Skipped {
        ledger(&mut lines, report);
        visits(&mut lines, report);
    }
    previous(&mut lines, report);
    if !report.notes.is_empty() {
        lines.heading("Notes");
        report.notes.iter().for_each(|note| lines.wrap("  - ", note));
    }
    timeline(&mut lines, report);
    lines.out
}

fn head(lines: &mut Lines, report: &Report) {
    let (id, scenario) = (or(&report.id, "without an id"), words::scenario(report));
    let first = format!("{id}  {scenario}  {}", or(&report.target, "no target"));
    lines.wrap(&format!("{}  ", words::verdict(report)), &first);
    lines.wrap("", &words::sentence(report));
    lines.out.push('\n');
    let why = if report.reason.is_empty() { String::new() } else { format!(": {}", report.reason) };
    lines.row("who", &format!("{}{why}", or(&report.by, "unknown")));
    if report.break_glass {
        lines.row("against", "the rules, on that person's word (break glass)");
    }
    lines.row("armed", &words::rfc3339(report.begun_unix_ms));
    lines.row("injected", &report.injected_unix_ms.map_or_else(|| "never".to_owned(), words::rfc3339));
    if let Some(undone_unix_ms) = report.undone_unix_ms {
        lines.row("undone", &words::rfc3339(undone_unix_ms));
    }
    lines.row("written", &words::rfc3339(report.ended_unix_ms));
    let why = if report.outcome.why.is_empty() { String::new() } else { format!(": {}", report.outcome.why) };
    lines.row("ended", &format!("{}{why}", report.outcome.ended.name()));
    lines.row("led by", &format!("the agent of {}", or(&report.conductor, "an unknown datacenter")));
    let (fleet, program) = (or(&report.fleet, "unknown"), or(&report.program, "unknown"));
    let config = or(&report.config_digest, "unknown");
    lines.row(
        "fleet",
        &format!("{fleet}, generation {}, config {config}, program {program}", report.generation),
    );
}

fn refused(lines: &mut Lines, report: &Report) {
    let rules: Vec<_> = report.checks.iter().filter(|check| !check.holds).collect();
    if rules.is_empty() {
        return;
    }
    lines.heading("Rules that did not hold");
    let rows = rules.iter().map(|check| [check.rule.clone(), check.found.clone()]);
    lines.table(None, &[], &rows.collect::<Vec<_>>());
}

fn objectives(lines: &mut Lines, report: &Report) {
    if report.verdict.objectives.is_empty() {
        return;
    }
    lines.heading("Objectives");
    let rows = report.verdict.objectives.iter().map(|one| {
        let met = if one.is_met { "met" } else { "NOT MET" };
        [met.to_owned(), words::objective(&one.name), one.wanted.clone(), one.found.clone()]
    });
    let head = ["", "objective", "wanted", "found"];
    lines.table(Some(head), &[], &rows.collect::<Vec<_>>());
}

fn phases(lines: &mut Lines, report: &Report) {
    if report.phases.is_empty() {
        return;
    }
    lines.heading("Phases, from the first fault; those of the return from its undoing");
    let rows = report.phases.iter().map(|phase| [phase.name.clone(), words::phase(phase.ms)]);
    lines.table(None, &[1], &rows.collect::<Vec<_>>());
}

fn ledger(lines: &mut Lines, report: &Report) {
    let ledger = &report.ledger;
    let durability = or(&ledger.durability, "unknown");
    lines.heading(&format!("Recovery point: writes at durability {durability}, counted one by one"));
    let rows = words::ledger(report)
        .map(|(name, number, meaning)| [name.to_owned(), words::count(number), meaning.to_owned()]);
    lines.table(None, &[1], &rows);
    for (datacenter, number) in &ledger.counted {
        lines.wrap("  counted in ", &format!("{datacenter}: {}", words::count(*number)));
    }
    for datacenter in &ledger.uncounted {
        lines.wrap("  NOT COUNTED in ", datacenter);
    }
    if report.conflicts > 0 {
        lines.row("conflicts", &words::count(report.conflicts));
    }
    if !ledger.lost_records.is_empty() {
        let shown = ledger.lost_records.iter().take(LOST_MAX).map(String::as_str).collect::<Vec<_>>();
        let more = ledger.lost.saturating_sub(shown.len() as u64);
        let more = if more > 0 { format!(" and {} more", words::count(more)) } else { String::new() };
        lines.wrap("  lost: ", &format!("{}{more}", shown.join(", ")));
    }
}

fn visits(lines: &mut Lines, report: &Report) {
    let visits = &report.visits;
    lines.heading("Visits, from the first fault to the end");
    lines.row("all", &words::count(visits.all));
    lines.row("failed", &format!("{} ({})", words::count(visits.failed), words::failed_share(visits)));
    let (worst, allowed) = (words::percent(visits.worst_percent), words::percent(visits.allowed_percent));
    lines.row("worst", &format!("{worst} failed in ten seconds; {allowed} allowed"));
    lines.row("p99", &format!("{} ms, of those that went well", words::count(visits.p99_ms)));
    for example in visits.examples.iter().take(EXAMPLES_MAX) {
        let at = words::relative(words::zero_unix_ms(report), example.at_unix_ms);
        lines.wrap("  example ", &format!("{at} {} for {}: {}", example.witness, example.user, example.what));
    }
}

fn previous(lines: &mut Lines, report: &Report) {
    let Some(previous) = &report.previous else { return };
    lines.heading("Against the drill of this name and target before it");
    lines.row("then", &previous.id);
    let mut rows: Vec<[String; 4]> = previous
        .phases
        .iter()
        .map(|(name, then, now)| {
            [name.clone(), words::phase(*then), words::phase(*now), words::change(*then, *now)]
        })
        .collect();
    for (name, (then, now)) in [("writes lost", previous.lost), ("visits failed", previous.failed)] {
        rows.push([name.to_owned(), words::count(then), words::count(now), words::more(then, now)]);
    }
    lines.table(Some(["", "then", "now", "change"]), &[1, 2], &rows);
}

fn timeline(lines: &mut Lines, report: &Report) {
    if report.timeline.is_empty() {
        return;
    }
    lines.heading(&format!("Timeline, from {}", words::zero(report)));
    let zero = words::zero_unix_ms(report);
    let shown = chosen(&report.timeline);
    let row = |mark: &Mark| {
        let kind = words::what(mark.what).to_owned();
        [words::relative(zero, mark.at_unix_ms), kind, mark.who.clone(), words::said(mark)]
    };
    lines.table(None, &[0], &shown.iter().map(|mark| row(mark)).collect::<Vec<_>>());
    let left_out = report.timeline.len() - shown.len();
    if left_out > 0 {
        lines.wrap("  ", &format!("{left_out} more of the same kinds are in the page and the JSON"));
    }
}

/// The first mark of each kind, and the first of the others as far as there is room.
fn chosen(timeline: &[Mark]) -> Vec<&Mark> {
    let is_first = |at: usize| !timeline[..at].iter().any(|mark| mark.what == timeline[at].what);
    let firsts: Vec<bool> = (0..timeline.len()).map(is_first).collect();
    let mut room = MARKS_MAX.saturating_sub(firsts.iter().filter(|first| **first).count());
    let mut keeps = |first: bool| {
        let keeps = first || room > 0;
        room -= usize::from(keeps && !first);
        keeps
    };
    timeline.iter().zip(firsts).filter(|(_, first)| keeps(*first)).map(|(mark, _)| mark).collect()
}

fn or(text: &str, otherwise: &str) -> String {
    if text.trim().is_empty() { otherwise.to_owned() } else { words::clean(text) }
}

/// Lines, none of them too long.
#[derive(Default)]
struct Lines {
    out: String,
}

impl Lines {
    fn heading(&mut self, text: &str) {
        self.out.push('\n');
        self.wrap("", text);
    }

    fn row(&mut self, name: &str, text: &str) {
        self.wrap(&format!("  {name:<10} "), text);
    }

    /// Columns below each other, the last one wrapped; those of numbers and times stand to the right.
    fn table<const N: usize>(&mut self, head: Option<[&str; N]>, right: &[usize], rows: &[[String; N]]) {
        let cut = |row: &[String; N]| -> [String; N] {
            std::array::from_fn(|at| if at + 1 == N { words::clean(&row[at]) } else { clip(&row[at], CELL) })
        };
        let head = head.map(|head| head.map(str::to_owned));
        let rows: Vec<_> = head.iter().chain(rows).map(cut).collect();
        let widths: [usize; N] =
            std::array::from_fn(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0));
        for row in &rows {
            let mut line = "  ".to_owned();
            for (at, cell) in row[..N - 1].iter().enumerate() {
                let gap = " ".repeat(widths[at] - width(cell));
                let (before, after) =
                    if right.contains(&at) { (gap.as_str(), "") } else { ("", gap.as_str()) };
                line.push_str(&format!("{before}{cell}{after}  "));
            }
            if right.contains(&(N - 1)) {
                line.push_str(&" ".repeat(widths[N - 1] - width(&row[N - 1])));
            }
            self.wrap(&line, &row[N - 1]);
        }
    }

    /// Text after a prefix, and what does not fit on the line below its beginning.
    fn wrap(&mut self, prefix: &str, text: &str) {
        let prefix = words::clean(prefix);
        // So much at least is left for the text, however wide the columns before it are.
        let indent = " ".repeat(width(&prefix).min(WIDTH - CELL));
        let mut line = prefix;
        if width(&line) > indent.len() {
            self.out.push_str(line.trim_end());
            self.out.push('\n');
            line.clone_from(&indent);
        }
        let mut is_begun = false;
        for word in words::clean(text).split(' ') {
            let gap = usize::from(is_begun);
            if is_begun && width(&line) + gap + width(word) > WIDTH {
                self.out.push_str(line.trim_end());
                self.out.push('\n');
                line.clone_from(&indent);
            } else if is_begun {
                line.push(' ');
            }
            for letter in word.chars() {
                if width(&line) + letter_width(letter) > WIDTH {
                    self.out.push_str(&line);
                    self.out.push('\n');
                    line.clone_from(&indent);
                }
                line.push(letter);
            }
            is_begun = true;
        }
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }
}

/// Columns of a text.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(letter_width).sum()
}

/// Columns of a letter: two for those of East Asia and for pictures.
fn letter_width(letter: char) -> usize {
    match u32::from(letter) {
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// A text of so many columns at most.
fn clip(text: &str, columns: usize) -> String {
    let text = words::clean(text);
    if width(&text) <= columns {
        return text;
    }
    let mut cut = String::new();
    for letter in text.chars() {
        if width(&cut) + letter_width(letter) + 1 > columns {
            break;
        }
        cut.push(letter);
    }
    cut.push('…');
    cut
}
