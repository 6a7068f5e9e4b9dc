//! The `[drill]` table: failures on purpose.

use std::collections::HashMap;

use super::check::command;
use super::defaults;
use super::drill::{DrillCommands, DrillConfig, Schedule};
use super::parse::{Names, names_in};
use super::parse_dns::domain_name;
use super::parse_scenario::{check_fit, objectives, scenario, target};
use super::read::{self, Kind, Located, Section, nearest};
use super::{DOOR_ROLE, SteeredName};
use crate::drill::{BUILTINS, Blocked, Objectives, Window};
use crate::shorten;

/// Of each: scenarios, schedules, times without drills. More than anyone reads.
const MANY_MAX: usize = 256;

pub(super) fn drill(mut section: Section<'_>, names: &Names, steered: &[SteeredName]) -> DrillConfig {
    let objectives = objectives(&mut section, OBJECTIVES);
    let name = section.optional("name", &domain_name());
    if let Some(name) = &name {
        names.check_steered(&section, "name", name);
    }
    let fits_users = |one: &&SteeredName| one.role == DOOR_ROLE && !one.name.starts_with("*.");
    let first = || steered.iter().find(fits_users).map(|one| one.name.clone());
    let times = section.list_or_none("blocked", &blocked()).unwrap_or_default();
    if let Some(over) = times.get(MANY_MAX) {
        section.wrong("blocked", &over.span, format!("at most {MANY_MAX} are supported"));
    }
    let commands = commands(&mut section);
    let own = names_in(&mut section, "scenarios");
    let mut seen = HashMap::new();
    let scenarios = bounded(&mut section, "scenarios")
        .into_iter()
        .filter_map(|table| scenario(table, Some(names), objectives, &mut seen))
        .collect();
    let mut drill = DrillConfig {
        objectives,
        name: name.map(|name| name.value).or_else(first),
        blocked: times.into_iter().map(|time| time.value).collect(),
        commands,
        schedules: Vec::new(),
        scenarios,
    };
    drill.schedules = bounded(&mut section, "schedules")
        .into_iter()
        .filter_map(|table| schedule(table, names, &own, &drill))
        .collect();
    section.finish();
    drill
}

/// What drills are to show where nothing is said.
pub(super) const OBJECTIVES: Objectives = Objectives { rto_ms: defaults::RTO_MS, rpo: defaults::RPO };

fn bounded<'a>(section: &mut Section<'a>, key: &'static str) -> Vec<Section<'a>> {
    let mut tables = section.tables(key);
    if let Some(over) = tables.get(MANY_MAX) {
        section.wrong(key, &over.span, format!("at most {MANY_MAX} are supported"));
    }
    tables.truncate(MANY_MAX);
    tables
}

fn blocked() -> Kind<Blocked> {
    let expected = "a time of the week such as \"fri 15:00-24:00\", or dates such as \
                    \"2026-12-24..2026-12-27\", in UTC";
    Kind::parsed(expected, Blocked::parse)
}

fn window() -> Kind<Window> {
    Kind::parsed("a time of the week such as \"tue 10:00-11:00\", in UTC, not empty", Window::parse)
}

/// `kill` and `start`: who can only do the one had better do neither.
fn commands(section: &mut Section<'_>) -> Option<DrillCommands> {
    let (kill, start) = (command(section, "kill"), command(section, "start"));
    for (given, other) in [("kill", "start"), ("start", "kill")] {
        if section.has(given) && !section.has(other) {
            section.missing(other, &format!("a command, as there is one for `{given}`"));
        }
    }
    Some(DrillCommands { kill: kill?, start: start? })
}

/// One of `[[drill.schedules]]`. `own`: names of all scenarios of the config, those with problems too.
fn schedule(
    mut section: Section<'_>,
    names: &Names,
    own: &[String],
    drill: &DrillConfig,
) -> Option<Schedule> {
    let scenario = section.required("scenario", &read::name());
    let place = target(&mut section, Some(names));
    let window = section.required("window", &window());
    let found = scenario.as_ref().and_then(|name| drill.scenario(&name.value));
    if let Some(name) = scenario.as_ref().filter(|name| found.is_none() && !own.contains(&name.value)) {
        unknown_scenario(&section, name, own);
    }
    match (&found, &place) {
        (Some(found), Some(place)) => check_fit(&section, place, found.faults()),
        (Some(found), None) if found.target.is_none() && !section.has("target") => {
            let expected = format!("a target, as the scenario `{}` has none", found.name);
            section.missing("target", &expected);
        }
        _ => {}
    }
    section.finish();
    let target = place.map(|place| place.value).or(found?.target);
    Some(Schedule { scenario: scenario?.value, target: target?, window: window?.value })
}

fn unknown_scenario(section: &Section<'_>, name: &Located<String>, own: &[String]) {
    let builtin = BUILTINS.iter().map(|(name, _)| *name);
    let all: Vec<&str> =
        own.iter().map(String::as_str).filter(|name| !name.is_empty()).chain(builtin).collect();
    let hint = match nearest(&name.value, all.iter().copied()) {
        Some(right) => format!("did you mean `{right}`?"),
        None => format!("the scenarios are {}", all.join(", ")),
    };
    section.wrong("scenario", &name.span, format!("unknown scenario `{}`: {hint}", shorten(&name.value)));
}
