//! `/v1/drills`: plans and begins drills, shows how they go, ends them, shows their reports.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use daemun_fleet::Placer;
use daemun_fleet::drill::{BUILTINS, Fault, Scenario};
use daemun_fleet::placement::{Blast, Load};
use daemun_sync::drill::course::Course;
use daemun_sync::drill::drills::{Drills, Progress};
use daemun_sync::drill::plan::{self, Asked, Plan, Wrong};
use daemun_sync::drill::records;
use daemun_sync::drill::report::{Check, Ended, Outcome, Report};
use daemun_sync::drill::samples::{Found, Samples};
use daemun_sync::drill::word::Word;
use daemun_sync::{latest, verbs};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::orders::Refused;
use crate::clock;

/// A drill that was planned, and perhaps begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Planned {
    /// It has begun; else it was only planned, or refused.
    pub(crate) is_begun: bool,
    /// The drill.
    pub(crate) word: Word,
    /// When every agent is well again by itself, milliseconds after it is armed.
    pub(crate) bound_ms: u64,
    /// Generation of the view before.
    pub(crate) generation: u64,
    /// The rules, and whether they hold.
    pub(crate) checks: Vec<Check>,
    /// Who moves where, and the load that makes.
    pub(crate) blast: Blast,
    /// Load of each datacenter before.
    pub(crate) loads_before: Vec<Load>,
    /// How many of the config's fleet there are for each fault to act on, and how, for people.
    pub(crate) acts: Vec<String>,
}

/// How the newest drill goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Now {
    /// The newest drill, as it is known here.
    pub(crate) word: Option<Word>,
    /// How it goes, if who leads it says so.
    pub(crate) progress: Option<Progress>,
    /// Why it does not.
    pub(crate) failure: Option<String>,
}

/// What can be run, and what was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// The scenarios: name, what it does.
    pub(crate) scenarios: Vec<(String, String)>,
    /// Those that begin by themselves: scenario, target, window, when it is next, milliseconds of Unix time.
    pub(crate) schedules: Vec<(String, String, String, u64)>,
    /// The newest reports, oldest first, without their series.
    pub(crate) reports: Vec<Report>,
}

/// The parameters of questions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct About {
    /// Which drill.
    #[serde(default)]
    pub(crate) id: String,
    /// From which line on.
    #[serde(default)]
    pub(crate) from: u64,
}

/// Who ends a drill.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToAbort {
    /// Who says so.
    pub(crate) by: String,
    /// Why.
    #[serde(default)]
    pub(crate) reason: String,
}

/// What a drill's end came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Aborted {
    /// The drill that was under way; none: there was none.
    pub(crate) id: Option<String>,
}

/// What the witness at a command line has seen, and by which clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Witnessed {
    /// Which drill.
    pub(crate) id: String,
    /// Its clock when this was sent, milliseconds of Unix time.
    pub(crate) unix_ms: u64,
    /// What it has seen.
    pub(crate) samples: Samples,
}

/// A record that the witness at a command line writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToRecord {
    /// Which drill.
    pub(crate) id: String,
    /// Where.
    pub(crate) datacenter: String,
    /// Which record.
    pub(crate) found: Found,
    /// At which durability.
    pub(crate) durability: String,
    /// How long to wait for that, milliseconds.
    pub(crate) patience_ms: u64,
}

fn refuse(code: StatusCode, error: impl ToString) -> Response {
    (code, Json(Refused { error: error.to_string() })).into_response()
}

fn drills(admin: &Admin) -> Result<&Arc<Drills>, Box<Response>> {
    let message = "there is no agent in this process: ask the one with the role sync";
    admin.drills.as_ref().ok_or_else(|| Box::new(refuse(StatusCode::SERVICE_UNAVAILABLE, message)))
}

/// `POST /v1/drills`: plans a drill, checks the rules, and begins it.
pub(super) async fn begin(State(admin): State<Arc<Admin>>, Json(asked): Json<Asked>) -> Response {
    match planned(&admin, &asked).await {
        Ok((planned, _)) if asked.dry_run => Json(planned).into_response(),
        Ok((planned, _)) if !asked.break_glass && planned.checks.iter().any(|check| !check.holds) => {
            (StatusCode::CONFLICT, Json(planned)).into_response()
        }
        Ok((mut planned, plan)) => {
            if !admin.agent.as_ref().is_some_and(|agent| agent.arm_drill(&plan)) {
                let message = "the fleet changed while this was being weighed: look again (`daemun status`), then decide";
                return refuse(StatusCode::PRECONDITION_FAILED, message);
            }
            planned.is_begun = true;
            Json(planned).into_response()
        }
        Err(response) => *response,
    }
}

/// The plan, with all the rules.
pub(crate) async fn planned(admin: &Admin, asked: &Asked) -> Result<(Planned, Plan), Box<Response>> {
    let drills = drills(admin)?;
    let agent = admin.agent.as_ref().ok_or_else(|| {
        Box::new(refuse(StatusCode::SERVICE_UNAVAILABLE, "there is no agent in this process"))
    })?;
    let mut plan = match agent.plan_drill(asked) {
        Ok(plan) => plan,
        Err(wrong @ Wrong::Changed { .. }) => {
            return Err(Box::new(refuse(StatusCode::PRECONDITION_FAILED, wrong)));
        }
        Err(wrong) => return Err(Box::new(refuse(StatusCode::UNPROCESSABLE_ENTITY, wrong))),
    };
    let world = latest(&admin.worlds);
    let config = world.config();
    let before = Placer::new(Arc::clone(&world.steering), Arc::clone(&plan.before));
    let after = Placer::new(Arc::clone(&world.steering), Arc::new(plan.after.clone()));
    let blast = Blast::between(&before, &after);
    if let Err(why) = Course::of(config, &before, &asked.scenario, config.drill.name.as_deref()) {
        return Err(Box::new(refuse(StatusCode::UNPROCESSABLE_ENTITY, why)));
    }
    let is_measured = before.loads().iter().any(|load| load.asked_rps > 0);
    let ready = drills.ready_all().await;
    plan.checks.push(plan::capacity(verbs::overloads(before.loads(), &blast.loads), is_measured));
    plan.checks.extend(plan::stores(config, &plan.word, &ready));
    plan.checks.push(plan::converged(drills.same().await));
    let lasts_ms = plan.order.for_ms.unwrap_or(0) + plan.word.scenario.recover_ms;
    plan.checks.push(windows(config, clock::unix_ms(), lasts_ms));
    let kills = plan.word.scenario.faults().any(|fault| matches!(fault, Fault::Kill));
    if kills {
        let holds = config.drill.commands.is_some();
        let found =
            if holds { "they are configured" } else { "`drill.kill` and `drill.start` are not configured" };
        plan.checks.push(Check {
            rule: "commands to kill and start".to_owned(),
            holds,
            found: found.to_owned(),
        });
    }
    let planned = Planned {
        is_begun: false,
        word: plan.word.clone(),
        bound_ms: plan.order.for_ms.unwrap_or(0),
        generation: plan.before.generation,
        checks: plan.checks.clone(),
        acts: acts(&plan.word),
        loads_before: before.loads().to_vec(),
        blast,
    };
    Ok((planned, plan))
}

/// The rule that no drill is under way in a time that is blocked.
fn windows(config: &daemun_fleet::Config, unix_ms: u64, lasts_ms: u64) -> Check {
    let blocked = config.drill.blocked_between(unix_ms, unix_ms + lasts_ms);
    let found = match blocked {
        Some(blocked) if blocked.contains(unix_ms) => format!("`drill.blocked` has {blocked} (UTC)"),
        Some(blocked) => format!("`drill.blocked` has {blocked} (UTC), before it may be over"),
        None => "it is over before any blocked time".to_owned(),
    };
    Check { rule: "allowed time".to_owned(), holds: blocked.is_none(), found }
}

/// What the faults do, in words.
fn acts(word: &Word) -> Vec<String> {
    let target = &word.target;
    let act = |fault: &Fault| match fault {
        Fault::Drain { share } => {
            format!("{share}% of the users of {target} are sent elsewhere by DNS and list")
        }
        Fault::Blackhole { share } => format!(
            "doors and name servers of {target} leave {share}% of what they are asked without an answer; \
             only daemun's own do, other servers there go on"
        ),
        Fault::Partition => match target.datacenter() {
            Some(name) => {
                format!("the store of {name} and the others do not hear each other; users are served")
            }
            None => format!("the stores on both ends of {target} do not hear each other; users are served"),
        },
        Fault::Kill => {
            format!(
                "the process of {target} is killed, and started again when the steps are over; an end before that does not reach it"
            )
        }
        Fault::Slow { delay_ms } => match target.datacenter() {
            Some(name) => format!("doors and name servers of {name} answer {delay_ms} ms later"),
            None => format!("the stores on both ends of {target} are told {delay_ms} ms later"),
        },
        Fault::AgentDead => {
            format!(
                "the agent of {target} neither speaks nor decides, and its store is cut off; its doors and name servers go on"
            )
        }
    };
    word.scenario.faults().map(act).collect()
}

/// `GET /v1/drills/now?from=N`: how the newest drill goes.
pub(super) async fn now(State(admin): State<Arc<Admin>>, Query(about): Query<About>) -> Response {
    let drills = match drills(&admin) {
        Ok(drills) => drills,
        Err(response) => return *response,
    };
    let word = admin.agent.as_ref().and_then(|agent| agent.drill()).map(|(_, word)| word);
    let progress = match &word {
        Some(word) => drills.progress_of(&word.conductor, about.from).await.map(Some),
        None => Ok(None),
    };
    let failure = progress.as_ref().err().cloned();
    Json(Now { word, progress: progress.ok().flatten(), failure }).into_response()
}

/// `GET /v1/drills`: what can be run, and what was.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Response {
    let world = latest(&admin.worlds);
    let drill = &world.config().drill;
    let own = drill.scenarios.iter().map(|scenario| (scenario.name.clone(), describe(scenario)));
    let built_in = BUILTINS.iter().filter(|(name, _)| drill.scenarios.iter().all(|own| own.name != *name));
    let built_in = built_in.map(|(name, what)| ((*name).to_owned(), (*what).to_owned()));
    let at = clock::unix_ms();
    let schedules = drill.schedules.iter().map(|schedule| {
        let (next, _) = schedule.window.next(at);
        (schedule.scenario.clone(), schedule.target.to_string(), schedule.window.to_string(), next)
    });
    let (scenarios, schedules) = (own.chain(built_in).collect(), schedules.collect());
    let Ok(store) = &admin.store else {
        return Json(Listed { scenarios, schedules, reports: Vec::new() }).into_response();
    };
    let store = store.clone();
    match tokio::task::spawn_blocking(move || records::reports(&store)).await {
        Ok(Ok(mut reports)) => {
            reports.iter_mut().for_each(|report| report.series = Default::default());
            Json(Listed { scenarios, schedules, reports }).into_response()
        }
        Ok(Err(why)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, why),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

fn describe(scenario: &Scenario) -> String {
    let steps: Vec<String> = scenario
        .steps
        .iter()
        .map(|step| step.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))
        .collect();
    steps.join(", then ")
}

/// `GET /v1/drills/scenario?id=NAME`: a scenario of the config, or a built-in one.
pub(super) async fn scenario(State(admin): State<Arc<Admin>>, Query(about): Query<About>) -> Response {
    let world = latest(&admin.worlds);
    match world.config().drill.scenario(&about.id) {
        Some(scenario) => Json(scenario).into_response(),
        None => {
            let own = world.config().drill.scenarios.iter().map(|scenario| scenario.name.as_str());
            let all: Vec<&str> = own.chain(BUILTINS.iter().map(|(name, _)| *name)).collect();
            let found = daemun_fleet::shorten(&about.id);
            let message =
                format!("there is no scenario `{found}`; there are {}, or name a TOML file", all.join(", "));
            refuse(StatusCode::NOT_FOUND, message)
        }
    }
}

/// A scenario as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToRead {
    /// Name of its file, for messages.
    pub(crate) file: String,
    /// The text.
    pub(crate) text: String,
}

/// `POST /v1/drills/scenario`: what a scenario's text means under the config of this fleet.
pub(super) async fn read(State(admin): State<Arc<Admin>>, Json(told): Json<ToRead>) -> Response {
    let world = latest(&admin.worlds);
    match Scenario::parse(&told.file, &told.text, Some(world.config())) {
        Ok(scenario) => Json(scenario).into_response(),
        Err(problems) => refuse(StatusCode::UNPROCESSABLE_ENTITY, problems),
    }
}

/// `GET /v1/drills/report?id=ID`: one report, whole.
pub(super) async fn report(State(admin): State<Arc<Admin>>, Query(about): Query<About>) -> Response {
    let store = match &admin.store {
        Ok(store) => store.clone(),
        Err(why) => return refuse(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let id = about.id.clone();
    match tokio::task::spawn_blocking(move || records::report(&store, &id)).await {
        Ok(Ok(Some(report))) => Json(report).into_response(),
        Ok(Ok(None)) => {
            let found = daemun_fleet::shorten(&about.id);
            refuse(
                StatusCode::NOT_FOUND,
                format!("there is no report `{found}`: `daemun drill history` lists them"),
            )
        }
        Ok(Err(why)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, why),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// `POST /v1/drills/abort`: ends the drill that is under way, wherever it is led.
pub(super) async fn abort(State(admin): State<Arc<Admin>>, Json(told): Json<ToAbort>) -> Response {
    let drills = match drills(&admin) {
        Ok(drills) => drills,
        Err(response) => return *response,
    };
    let by = daemun_fleet::shorten(told.by.trim());
    let why = match told.reason.trim() {
        "" => format!("by {by}"),
        reason => format!("by {by}: {}", daemun_fleet::shorten(reason)),
    };
    Json(Aborted { id: drills.abort(&why) }).into_response()
}

/// `GET /v1/drills/course`: what a witness of the drill that is under way goes by.
pub(super) async fn course(State(admin): State<Arc<Admin>>) -> Response {
    let drills = match drills(&admin) {
        Ok(drills) => drills,
        Err(response) => return *response,
    };
    let Some((_, word)) = admin.agent.as_ref().and_then(|agent| agent.drill()) else {
        return refuse(StatusCode::NOT_FOUND, "there is no drill");
    };
    match drills.course(&word) {
        Ok(course) => Json(course).into_response(),
        Err(why) => refuse(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

/// `POST /v1/drills/record`: writes a record for a witness at a command line.
pub(super) async fn record(State(admin): State<Arc<Admin>>, Json(told): Json<ToRecord>) -> Response {
    let drills = match drills(&admin) {
        Ok(drills) => drills,
        Err(response) => return *response,
    };
    let patience = Duration::from_millis(told.patience_ms);
    let ToRecord { id, datacenter, found, durability, .. } = told;
    match drills.record(&datacenter, &id, found, durability, patience).await {
        Ok(()) => Json(serde_json::json!({})).into_response(),
        Err(why) => refuse(StatusCode::CONFLICT, why),
    }
}

/// `POST /v1/drills/witnessed`: what a witness at a command line has seen, for who leads the drill.
pub(super) async fn witnessed(State(admin): State<Arc<Admin>>, Json(told): Json<Witnessed>) -> Response {
    let drills = match drills(&admin) {
        Ok(drills) => drills,
        Err(response) => return *response,
    };
    let ahead_ms =
        i64::try_from(told.unix_ms).unwrap_or(i64::MAX) - i64::try_from(clock::unix_ms()).unwrap_or(0);
    match drills.hand_in(&told.id, told.samples, ahead_ms).await {
        Ok(()) => Json(serde_json::json!({})).into_response(),
        Err(why) => refuse(StatusCode::CONFLICT, why),
    }
}

/// How the names of reports of drills end that were not begun.
pub(crate) const SKIPPED: &str = "-skipped";

/// The report of a drill that was not begun, for the record.
pub(crate) fn skipped(planned: &Planned, fleet: &str, by: &str, why: &str, unix_ms: u64) -> Report {
    Report {
        v: daemun_sync::drill::report::VERSION,
        id: format!("{}{SKIPPED}", planned.word.id),
        fleet: fleet.to_owned(),
        program: format!("daemun {}", env!("CARGO_PKG_VERSION")),
        generation: planned.generation,
        scenario: Some(planned.word.scenario.clone()),
        target: planned.word.target.to_string(),
        by: by.to_owned(),
        begun_unix_ms: unix_ms,
        ended_unix_ms: unix_ms,
        checks: planned.checks.clone(),
        outcome: Outcome { ended: Ended::Skipped, why: why.to_owned() },
        ..Report::default()
    }
}
