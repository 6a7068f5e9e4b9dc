//! What an agent answers to others about drills, on the agents' port:
//!
//! - `GET /v1/drill/word`: the newest drill, as far as it is known here.
//! - `GET /v1/drill/ready`: how agent and store are.
//! - `GET /v1/drill/holds`: a sample of what the store holds, for comparing.
//! - `GET /v1/drill/samples?id=ID&life=N&from=N&is_last=BOOL`: what the witness here has seen; asked last, it stops.
//! - `GET /v1/drill/found?id=ID`: the drill's records that are here.
//! - `GET /v1/drill/progress?from=N`: how the drill that is led here goes.
//! - `POST /v1/drill/record`: writes a record.
//! - `POST /v1/drill/witnessed`: what a witness at a command line has seen, for who leads the drill.
//!
//! They are answered while a drill has silenced the agent: who looks is not what fails.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Serialize;

use super::drills::Drills;
use super::records;
use super::talk::{Asked, HandedIn, ToWrite, WhatCame};
use crate::Agent;
use crate::latest::latest;
use crate::store::engine::Store;

/// The longest that a record waits for its durability.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// Some seconds of what a witness has seen.
const HANDED_IN_BYTES_MAX: usize = 8 << 20;

type Refused = (StatusCode, Json<serde_json::Value>);

fn refuse(code: StatusCode, error: impl Into<String>) -> Refused {
    (code, Json(serde_json::json!({ "error": error.into() })))
}

/// The routes.
pub(crate) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/drill/word", get(word))
        .route("/v1/drill/ready", get(ready))
        .route("/v1/drill/holds", get(holds))
        .route("/v1/drill/samples", get(samples))
        .route("/v1/drill/found", get(found))
        .route("/v1/drill/progress", get(progress))
        .route("/v1/drill/record", post(record))
        .route("/v1/drill/witnessed", post(witnessed).layer(DefaultBodyLimit::max(HANDED_IN_BYTES_MAX)))
        .with_state(agent)
}

fn drills<'a>(agent: &'a Arc<Agent>, fleet: &str) -> Result<&'a Arc<Drills>, Refused> {
    let ours = agent.config().fleet.name.clone();
    if fleet != ours {
        let message = format!("this is fleet `{ours}`, not `{}`", daemun_fleet::shorten(fleet));
        return Err(refuse(StatusCode::CONFLICT, message));
    }
    agent.drills().ok_or_else(|| refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent has just begun"))
}

fn store(agent: &Arc<Agent>) -> Result<Store, Refused> {
    let none =
        || refuse(StatusCode::SERVICE_UNAVAILABLE, format!("the agent of {} has no store", agent.name()));
    agent.store().cloned().ok_or_else(none)
}

/// Reads the disk, away from those who must not wait.
async fn reading<T: Serialize + Send + 'static>(
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<Response, Refused> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(found)) => Ok(Json(found).into_response()),
        Ok(Err(why)) => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, why)),
        Err(error) => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

async fn word(State(agent): State<Arc<Agent>>, Query(asked): Query<Asked>) -> Result<Response, Refused> {
    drills(&agent, &asked.fleet)?;
    Ok(Json(agent.drill().map(|(_, word)| word)).into_response())
}

async fn ready(State(agent): State<Arc<Agent>>, Query(asked): Query<Asked>) -> Result<Response, Refused> {
    Ok(Json(drills(&agent, &asked.fleet)?.ready()).into_response())
}

async fn holds(State(agent): State<Arc<Agent>>, Query(asked): Query<Asked>) -> Result<Response, Refused> {
    drills(&agent, &asked.fleet)?;
    let store = store(&agent)?;
    reading(move || records::holds(&store, asked.as_of_unix_ms)).await
}

async fn samples(State(agent): State<Arc<Agent>>, Query(asked): Query<Asked>) -> Result<Response, Refused> {
    let drills = drills(&agent, &asked.fleet)?;
    let none = || {
        refuse(StatusCode::NOT_FOUND, format!("no witness of {} is here", daemun_fleet::shorten(&asked.id)))
    };
    drills
        .samples(&asked.id, asked.life, asked.from, asked.is_last)
        .map(|samples| Json(samples).into_response())
        .ok_or_else(none)
}

async fn found(State(agent): State<Arc<Agent>>, Query(asked): Query<Asked>) -> Result<Response, Refused> {
    drills(&agent, &asked.fleet)?;
    let store = store(&agent)?;
    reading(move || records::found(&store, &asked.id)).await
}

async fn progress(State(agent): State<Arc<Agent>>, Query(asked): Query<Asked>) -> Result<Response, Refused> {
    Ok(Json(drills(&agent, &asked.fleet)?.progress(asked.from)).into_response())
}

async fn record(State(agent): State<Arc<Agent>>, Json(write): Json<ToWrite>) -> Result<Response, Refused> {
    if !drills(&agent, &write.fleet)?.is_under_way(&write.id) {
        return Err(refuse(StatusCode::CONFLICT, "this drill is not under way"));
    }
    let store = store(&agent)?;
    if latest(&agent.mutes()) {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent is silenced by a drill"));
    }
    let patience = Duration::from_millis(write.patience_ms).min(PATIENCE_MAX);
    let written = records::write(&store, &write.id, &write.found, &write.durability, patience).await;
    Ok(Json(WhatCame { failure: written.err() }).into_response())
}

async fn witnessed(
    State(agent): State<Arc<Agent>>,
    Json(handed): Json<HandedIn>,
) -> Result<Response, Refused> {
    let drills = drills(&agent, &handed.fleet)?;
    let failure = drills.take(handed).err();
    Ok(Json(WhatCame { failure }).into_response())
}
