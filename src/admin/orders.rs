//! `POST /v1/verbs`: an operator's word, planned, checked against the rules, and carried out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use daemun_fleet::Placer;
use daemun_fleet::placement::Blast;
use daemun_fleet::view::State as DatacenterState;
use daemun_sync::orders::{Order, Verb};
use daemun_sync::verbs::{self, Plan, Told, Wrong};
use daemun_sync::{Agent, latest};
use serde::{Deserialize, Serialize};

use super::Admin;

/// How long to wait for the peers to hear of it, for the answer's sake.
const HEARD: Duration = Duration::from_secs(2);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What a word did, or would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// It is done; else it was only planned, or refused.
    pub(crate) is_done: bool,
    /// The word.
    pub(crate) order: Order,
    /// Generation of the view before.
    pub(crate) generation: u64,
    /// The state of the datacenter now and in the end, if it is about one.
    pub(crate) states: Option<(DatacenterState, DatacenterState)>,
    /// Who moves where, and the load that makes.
    pub(crate) blast: Blast,
    /// Load of each datacenter before.
    pub(crate) loads_before: Vec<daemun_fleet::placement::Load>,
    /// Safety rules that it breaks.
    pub(crate) broken: Vec<String>,
    /// Datacenters whose agents have heard of it.
    pub(crate) heard_by: Vec<String>,
    /// Those that have not yet.
    pub(crate) not_heard_by: Vec<String>,
}

/// What a wrong call gets.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// What is wrong, in words.
    pub(crate) error: String,
}

fn refuse(code: StatusCode, error: impl ToString) -> Response {
    (code, Json(Refused { error: error.to_string() })).into_response()
}

pub(super) async fn tell(State(admin): State<Arc<Admin>>, Json(told): Json<Told>) -> Response {
    let Some(agent) = admin.agent.clone() else {
        let message = "there is no agent in this process: ask the one with the role sync";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    let plan = match agent.plan(&told) {
        Ok(plan) => plan,
        Err(wrong @ Wrong::Changed { .. }) => return refuse(StatusCode::PRECONDITION_FAILED, wrong),
        Err(wrong) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, wrong),
    };
    let mut done = weigh(&admin, &plan);
    if told.dry_run {
        return Json(done).into_response();
    }
    if !done.broken.is_empty() && !told.break_glass {
        return (StatusCode::CONFLICT, Json(done)).into_response();
    }
    if !agent.carry_out(&plan, plan.order.clone()) {
        let message =
            "the fleet changed while this was being weighed: look again (`daemun status`), then decide";
        return refuse(StatusCode::PRECONDITION_FAILED, message);
    }
    tracing::warn!(order = ?plan.order, broken = ?done.broken, "an operator's word");
    done.is_done = true;
    wait_until_heard(&agent, &mut done).await;
    Json(done).into_response()
}

/// The plan with what follows from the loads.
fn weigh(admin: &Admin, plan: &Plan) -> Done {
    let steering = &latest(&admin.worlds).steering;
    let before = Placer::new(Arc::clone(steering), Arc::clone(&plan.before));
    let after = Placer::new(Arc::clone(steering), Arc::new(plan.after.clone()));
    let blast = Blast::between(&before, &after);
    let mut broken = plan.broken.clone();
    if matches!(plan.order.verb, Verb::Drain { .. } | Verb::Pin { .. }) {
        broken.extend(verbs::overloads(before.loads(), &blast.loads));
    }
    let state = |view: &daemun_fleet::FleetView| match &plan.order.about {
        daemun_sync::orders::About::Datacenter(name) => view.datacenters.get(name).map(|d| d.state),
        daemun_sync::orders::About::Fleet | daemun_sync::orders::About::Drill => None,
    };
    Done {
        is_done: false,
        order: plan.order.clone(),
        generation: plan.before.generation,
        states: state(&plan.before).zip(state(&plan.after)),
        loads_before: before.loads().to_vec(),
        blast,
        broken,
        heard_by: Vec::new(),
        not_heard_by: Vec::new(),
    }
}

async fn wait_until_heard(agent: &Agent, done: &mut Done) {
    let heard = async {
        // Who cannot be reached is not waited for.
        while agent.links().iter().any(|link| link.is_up && !link.has_heard_us) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // What is not heard in time is said, not an error: it is on its way.
    let in_time = tokio::time::timeout(HEARD, heard).await.is_ok();
    tracing::debug!(in_time, "waiting for the peers to hear");
    let (heard, not): (Vec<_>, Vec<_>) = agent.links().into_iter().partition(|link| link.has_heard_us);
    done.heard_by =
        std::iter::once(agent.name().to_owned()).chain(heard.into_iter().map(|l| l.peer)).collect();
    done.not_heard_by = not.into_iter().map(|link| link.peer).collect();
}
