//! A scenario of drills: one of `[[drill.scenarios]]`, or a file of its own.
//!
//! It has two forms. The short one names one fault, in steps that only grow: `fault = "drain"`, `shares = [10, 100]`. The
//! long one has a table for each step, with what fails in it.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::parse::{Names, document, unique};
use super::parse_drill::OBJECTIVES;
use super::read::{self, Kind, Located, Section};
use super::{Config, Problems, defaults};
use crate::drill::{self, Fault, Limits, Load, Objectives, Scenario, Step, Target};

/// More is two scenarios.
const STEPS_MAX: usize = 20;
/// All steps together: a drill is over within a working day.
const STEPS_LAST_MAX: Duration = Duration::from_secs(4 * 3600);
/// No limit or wait in a scenario is longer.
const HOUR: Duration = Duration::from_secs(3600);
/// Nothing is measured more finely.
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Writes that a drill may lose: whoever bears more does not count them.
const RPO_MAX: i64 = 1_000_000_000;

/// The words, each with a fault of no extent yet.
const FAULTS: &[(&str, Fault)] = &[
    ("drain", Fault::Drain { share: 0 }),
    ("blackhole", Fault::Blackhole { share: 0 }),
    ("partition", Fault::Partition),
    ("kill", Fault::Kill),
    ("slow", Fault::Slow { delay_ms: 0 }),
    ("agent-dead", Fault::AgentDead),
];

impl Scenario {
    /// Reads a scenario that has a file of its own, with the keys of `[[drill.scenarios]]`. `file` is its name for messages;
    /// no file is opened here. With a config its datacenters are looked up there, and its objectives hold.
    ///
    /// # Errors
    /// Every problem of the text, in the order of the file.
    pub fn parse(file: &str, text: &str, config: Option<&Config>) -> Result<Scenario, Problems> {
        let names = config.map(|config| Names {
            datacenters: config.fleet.datacenters.iter().map(|one| one.name.clone()).collect(),
            steered: Vec::new(),
        });
        let objectives = config.map_or(OBJECTIVES, |config| config.drill.objectives);
        document(file, text, |source, table| {
            scenario(Section::root(source, table), names.as_ref(), objectives, &mut HashMap::new())
        })
    }
}

/// One scenario; `seen`: the names of those before it.
pub(super) fn scenario(
    mut section: Section<'_>,
    names: Option<&Names>,
    by_default: Objectives,
    seen: &mut HashMap<String, Range<usize>>,
) -> Option<Scenario> {
    let name = section.required("name", &read::name());
    if let Some(name) = &name {
        unique(section.source, "scenario", seen, name.value.clone(), &name.span, &name.value);
    }
    let place = target(&mut section, names);
    let steps = steps(&mut section);
    if let Some(place) = &place {
        check_fit(&section, place, steps.iter().flat_map(|step| &step.faults));
    }
    let load = load(&mut section);
    let durability = section.optional("durability", &durability());
    let baseline = section.optional("baseline", &read::duration(SECOND..=10 * MINUTE));
    let recover = section.optional("recover", &read::duration(Duration::ZERO..=HOUR));
    let objectives = objectives(&mut section, by_default);
    let limits = limits(section.table("abort"), &steps);
    section.finish();
    Some(Scenario {
        name: name?.value,
        target: place.map(|place| place.value),
        steps,
        load,
        durability: durability.map_or_else(|| defaults::DURABILITY.to_owned(), |found| found.value),
        limits,
        objectives,
        baseline_ms: millis(baseline, defaults::BASELINE_MS),
        recover_ms: millis(recover, defaults::RECOVER_MS),
    })
}

/// `target`, its datacenters looked up where they are known.
pub(super) fn target(section: &mut Section<'_>, names: Option<&Names>) -> Option<Located<Target>> {
    let expected = "the name of a datacenter, or two as \"one:other\" for the link between them";
    let kind = Kind::parsed(expected, |text| {
        let target = Target::parse(text);
        let is_right = target.names().into_iter().all(read::is_name);
        (is_right && !matches!(&target, Target::Link(one, other) if one == other)).then_some(target)
    });
    let target = section.optional("target", &kind)?;
    for name in target.value.names() {
        if let Some(names) = names {
            let name = Located { value: name.to_owned(), span: target.span.clone() };
            names.datacenter(section, "target", &name);
        }
    }
    Some(target)
}

/// Notes a fault that cannot be made there.
pub(super) fn check_fit<'f>(
    section: &Section<'_>,
    target: &Located<Target>,
    mut faults: impl Iterator<Item = &'f Fault>,
) {
    if matches!(target.value, Target::Link(..))
        && let Some(fault) = faults.find(|fault| !fault.fits_link())
    {
        let message = format!(
            "`{}` is a link: it can have a `partition` or be `slow`, `{}` is of a datacenter",
            target.value,
            fault.name()
        );
        section.wrong("target", &target.span, message);
    }
}

/// The steps, of either form.
fn steps(section: &mut Section<'_>) -> Vec<Step> {
    let (is_short, is_long) = (section.has("fault"), section.has("steps"));
    let short = short_steps(section);
    let tables = section.tables("steps");
    let long = tables.into_iter().map(|table| (table.span.clone(), long_step(table)));
    let long: Vec<_> = long.map(|(span, value)| Located { value, span }).collect();
    match (is_short, is_long) {
        (true, true) => {
            let message = "a scenario has either `fault` or `[[steps]]`, not both";
            section.wrong("fault", &section.place_of("fault"), message);
        }
        (false, false) => section.missing("fault", "what fails, or a [[steps]] table for each step"),
        (false, true) => {
            for key in ["shares", "delay", "hold"].into_iter().filter(|key| section.has(key)) {
                let message = "goes with `fault`: each of the `[[steps]]` has its own";
                section.wrong(key, &section.place_of(key), message);
            }
            if long.is_empty() {
                section.wrong("steps", &section.place_of("steps"), "expected at least one [[steps]] table");
            }
        }
        (true, false) => {}
    }
    let steps = if is_long { long } else { short };
    check_length(section, &steps, if is_long { "steps" } else { "fault" });
    steps.into_iter().map(|step| step.value).collect()
}

/// Notes that there are too many steps, or that they last too long.
fn check_length(section: &Section<'_>, steps: &[Located<Step>], key: &str) {
    if let Some(over) = steps.get(STEPS_MAX) {
        section.wrong(key, &over.span, format!("at most {STEPS_MAX} steps are supported"));
    }
    let mut lasts = Duration::ZERO;
    for step in steps {
        lasts += Duration::from_millis(step.value.hold_ms);
        if lasts > STEPS_LAST_MAX {
            let most = humantime::format_duration(STEPS_LAST_MAX);
            section.wrong(key, &step.span, format!("all steps together last longer than {most}"));
            break;
        }
    }
}

/// `fault`, and what goes with it.
fn short_steps(section: &mut Section<'_>) -> Vec<Located<Step>> {
    let fault = section.optional("fault", &read::one_of(FAULTS));
    let shares = section.list("shares", &percent());
    let faults: Vec<Fault> = fault.iter().map(|fault| fault.value).collect();
    check_share(section, "shares", &faults);
    if let Some(pair) =
        shares.as_deref().and_then(|shares| shares.windows(2).find(|pair| pair[0].value >= pair[1].value))
    {
        section.wrong("shares", &pair[1].span, "the percentages must rise, such as [10, 50, 100]");
    }
    let delay_ms = delay(section, &faults);
    let hold_ms = hold(section);
    let Some(Located { value: fault, span }) = fault else { return Vec::new() };
    let shares = shares.filter(|shares| !shares.is_empty() && has_share(&fault));
    let shares = shares.unwrap_or_else(|| vec![Located { value: i64::from(defaults::SHARE), span }]);
    let step = |Located { value, span }| {
        let faults = vec![with_extent(fault, share(value), delay_ms)];
        Located { value: Step { faults, hold_ms }, span }
    };
    shares.into_iter().map(step).collect()
}

/// One of `[[steps]]`.
fn long_step(mut section: Section<'_>) -> Step {
    let listed = section.list("faults", &read::one_of(FAULTS));
    if !section.has("faults") {
        section.missing("faults", "what fails, such as [\"partition\", \"kill\"]");
    }
    let mut faults: Vec<Fault> = Vec::new();
    for Located { value: fault, span } in listed.unwrap_or_default() {
        if faults.contains(&fault) {
            section.wrong("faults", &span, format!("`{}` stands here twice", fault.name()));
        } else {
            faults.push(fault);
        }
    }
    let found = section.optional("share", &percent());
    check_share(&section, "share", &faults);
    let delay_ms = delay(&mut section, &faults);
    let hold_ms = hold(&mut section);
    section.finish();
    let share = found.map_or(defaults::SHARE, |found| share(found.value));
    Step { faults: faults.into_iter().map(|fault| with_extent(fault, share, delay_ms)).collect(), hold_ms }
}

fn has_share(fault: &Fault) -> bool {
    matches!(fault, Fault::Drain { .. } | Fault::Blackhole { .. })
}

/// Notes a percentage that belongs to none of the faults.
fn check_share(section: &Section<'_>, key: &str, faults: &[Fault]) {
    // Faults with problems of their own have been named; what goes with them is then not known.
    if section.has(key) && !faults.is_empty() && !faults.iter().any(has_share) {
        section.wrong(key, &section.place_of(key), "goes with `drain` and `blackhole`");
    }
}

/// `delay` in milliseconds, which goes with `slow`, and must.
fn delay(section: &mut Section<'_>, faults: &[Fault]) -> u32 {
    let kind = read::duration(MILLISECOND..=MINUTE);
    let is_slow = faults.iter().any(|fault| matches!(fault, Fault::Slow { .. }));
    let found = if is_slow { section.required("delay", &kind) } else { section.optional("delay", &kind) };
    if section.has("delay") && !is_slow && !faults.is_empty() {
        section.wrong("delay", &section.place_of("delay"), "goes with `slow`");
    }
    u32::try_from(millis(found, u64::from(defaults::DELAY_MS))).expect("range checked")
}

/// `hold` in milliseconds.
fn hold(section: &mut Section<'_>) -> u64 {
    millis(section.optional("hold", &read::duration(SECOND..=HOUR)), defaults::HOLD_MS)
}

fn with_extent(fault: Fault, share: u8, delay_ms: u32) -> Fault {
    match fault {
        Fault::Drain { .. } => Fault::Drain { share },
        Fault::Blackhole { .. } => Fault::Blackhole { share },
        Fault::Slow { .. } => Fault::Slow { delay_ms },
        Fault::Partition | Fault::Kill | Fault::AgentDead => fault,
    }
}

fn percent() -> Kind<i64> {
    read::integer("a percentage", 1..=100)
}

fn share(percent: i64) -> u8 {
    u8::try_from(percent).expect("range checked")
}

/// The users.
fn load(section: &mut Section<'_>) -> Load {
    let mut count = |key, what, range: RangeInclusive<i64>, by_default| {
        let found = section.optional(key, &read::integer(what, range));
        found.map_or(by_default, |found| u32::try_from(found.value).expect("range checked"))
    };
    let users = count("users", "networks", 1..=100, drill::LOAD.users);
    let visits_per_second = count("visits", "visits a second", 1..=200, drill::LOAD.visits_per_second);
    let patience = section.optional("patience", &read::duration(10 * MILLISECOND..=MINUTE));
    Load { users, visits_per_second, patience_ms: millis(patience, drill::LOAD.patience_ms) }
}

/// How durable the users' writes are, in the words of the store.
fn durability() -> Kind<String> {
    let expected = "\"memory\", \"local\", \"remote:N\" with N from 1 to 63, or \"all\"";
    Kind::parsed(expected, |text| {
        let is_right = match text.strip_prefix("remote:") {
            Some(count) => {
                count.parse().is_ok_and(|count: u32| (1..=63).contains(&count))
                    && !count.starts_with(['0', '+'])
            }
            None => matches!(text, "memory" | "local" | "all"),
        };
        is_right.then(|| text.to_owned())
    })
}

/// `rto` and `rpo`.
pub(super) fn objectives(section: &mut Section<'_>, by_default: Objectives) -> Objectives {
    let rto = section.optional("rto", &read::duration(MILLISECOND..=HOUR));
    let rpo = section.optional("rpo", &read::integer("writes", 0..=RPO_MAX));
    Objectives {
        rto_ms: millis(rto, by_default.rto_ms),
        rpo: rpo.map_or(by_default.rpo, |rpo| u64::try_from(rpo.value).expect("range checked")),
    }
}

/// `[abort]`.
fn limits(mut table: Section<'_>, steps: &[Step]) -> Limits {
    let errors = table.optional("errors", &percent());
    let p99 = table.optional("p99", &read::duration(MILLISECOND..=MINUTE));
    let lag = table.optional("lag", &read::duration(MILLISECOND..=HOUR));
    table.finish();
    let by_default = drill::limits(steps);
    Limits {
        errors_percent: errors.map_or(by_default.errors_percent, |errors| share(errors.value)),
        p99_ms: millis(p99, by_default.p99_ms),
        lag_ms: millis(lag, by_default.lag_ms),
    }
}

fn millis(found: Option<Located<Duration>>, by_default: u64) -> u64 {
    found.map_or(by_default, |found| u64::try_from(found.value.as_millis()).expect("range checked"))
}

#[cfg(test)]
mod tests;
