//! Drills that begin by themselves, once in each of their windows: one agent begins them, the first in the config that is heard
//! and is not the target. What a rule refuses is tried again while the window lasts; then it is skipped, and that is kept with
//! its reason like any report.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::config::Schedule;
use daemun_fleet::{Config, FleetView};
use daemun_sync::drill::plan::Asked;
use daemun_sync::drill::records;
use daemun_sync::drill::report::Report;
use daemun_sync::latest;
use daemun_sync::store::request::Durability;
use tokio::time::sleep;

use crate::admin::Admin;
use crate::admin::drills::{SKIPPED, planned, skipped};
use crate::clock;

/// Time between two looks at the windows.
const LOOK: Duration = Duration::from_secs(5);
/// What was refused is tried again so long after.
const AGAIN_MS: u64 = 60_000;
/// Who begins a scheduled drill.
const BY: &str = "the schedule";

/// A drill that is due and was refused: what is kept of it if its window ends so.
struct Refused {
    schedule: Schedule,
    tried_at: u64,
    ends_at: u64,
    report: Option<Report>,
}

/// Begins what is due, for good.
pub(crate) async fn run(admin: Arc<Admin>) -> anyhow::Result<&'static str> {
    let mut refused: Vec<Refused> = Vec::new();
    loop {
        sleep(LOOK).await;
        let config = Arc::clone(latest(&admin.worlds).config());
        let now = clock::unix_ms();
        for over in refused.extract_if(.., |refused| now >= refused.ends_at) {
            if let Some(report) = &over.report {
                keep(&admin, report).await;
            }
        }
        let view = latest::<Arc<FleetView>>(&admin.views);
        let due = config.drill.schedules.iter().filter(|schedule| schedule.window.contains(now));
        for schedule in due.filter(|schedule| begins(&config, &view, schedule).as_deref() == Some(&admin.me))
        {
            let last = refused.iter().position(|refused| refused.schedule == *schedule);
            let is_soon = last.is_some_and(|at| now.saturating_sub(refused[at].tried_at) < AGAIN_MS);
            if is_soon || was_run(&admin, schedule, now).await {
                continue;
            }
            if let Some(at) = last {
                refused.remove(at);
            }
            let report = try_one(&admin, &config, schedule, now).await;
            let (_, ends_at) = schedule.window.next(now);
            refused.push(Refused { schedule: schedule.clone(), tried_at: now, ends_at, report });
        }
    }
}

/// Who is to begin it: one at a time, and another when that one is lost.
fn begins(config: &Config, view: &FleetView, schedule: &Schedule) -> Option<String> {
    let is_fit = |name: &&String| {
        let is_heard = view.observers.get(*name).is_none_or(|observer| observer.is_heard);
        is_heard && schedule.target.datacenter() != Some(name.as_str())
    };
    config.fleet.datacenters.iter().map(|datacenter| &datacenter.name).find(is_fit).cloned()
}

/// Whether it was begun or skipped in this window: by its reports, or the drill that is known.
async fn was_run(admin: &Admin, schedule: &Schedule, now: u64) -> bool {
    let Ok(store) = admin.store.clone() else { return true };
    let (begin, _) = schedule.window.next(now);
    let newest = admin.agent.as_ref().and_then(|agent| agent.drill());
    let is_known = newest.is_some_and(|(order, word)| {
        let is_it = word.scenario.name == schedule.scenario && word.target == schedule.target;
        is_it && order.by == BY && order.at_unix_ms >= begin
    });
    if is_known {
        return true;
    }
    let (name, target) = (schedule.scenario.clone(), schedule.target.to_string());
    let found = tokio::task::spawn_blocking(move || {
        let names = records::report_names(&store).unwrap_or_default();
        // Their names say scenario and target; who began them, they say themselves.
        let ends = format!("-{name}-{}", target.replace(':', "-"));
        let alike = names.iter().filter(|id| id.trim_end_matches(SKIPPED).ends_with(&ends));
        let mut reports = alike.filter_map(|id| records::report(&store, id).ok().flatten());
        reports.any(|report| report.begun_unix_ms >= begin && report.by == BY)
    });
    found.await.unwrap_or(true)
}

/// Begins it, if the rules let it; else the report that is kept if they never do.
async fn try_one(admin: &Admin, config: &Config, schedule: &Schedule, now: u64) -> Option<Report> {
    let mut scenario = config.drill.scenario(&schedule.scenario)?;
    scenario.target = Some(schedule.target.clone());
    let asked = Asked {
        scenario,
        by: BY.to_owned(),
        reason: format!("in its window, {}", schedule.window),
        expect_generation: None,
        dry_run: false,
        break_glass: false,
    };
    let (planned, plan) = match planned(admin, &asked).await {
        Ok(planned) => planned,
        Err(_) => {
            tracing::warn!(scenario = schedule.scenario, "a scheduled drill cannot be planned");
            return None;
        }
    };
    let broken: Vec<String> = planned
        .checks
        .iter()
        .filter(|check| !check.holds)
        .map(|check| format!("{}: {}", check.rule, check.found))
        .collect();
    if broken.is_empty() {
        let has_begun = admin.agent.as_ref().is_some_and(|agent| agent.arm_drill(&plan));
        tracing::warn!(drill = planned.word.id, has_begun, "a scheduled drill");
        return None;
    }
    let why = broken.join("; ");
    tracing::warn!(scenario = schedule.scenario, why, "a scheduled drill is refused");
    Some(skipped(&planned, &config.fleet.name, BY, &why, now))
}

async fn keep(admin: &Admin, report: &Report) {
    let Ok(store) = &admin.store else { return };
    if let Err(error) = records::keep(store, report, Durability::Local).await {
        tracing::error!(error, "that a drill was skipped is not kept");
    }
}
