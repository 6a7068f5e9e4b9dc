//! The agent's API for the other agents and for followers:
//!
//! - `GET /v1/facts?fleet=F&after=FRONTIER&wait_ms=N`: facts that the asker lacks, at once or when there are any.
//! - `GET /v1/view?fleet=F&after=FRONTIER&wait_ms=N`: the view, at once or when it has heard more.
//!
//! FRONTIER is `seoul:3,frankfurt:9`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use daemun_fleet::FleetView;
use daemun_fleet::view::Frontier;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::Agent;
use crate::facts::Batch;

/// The longest that an asker may wait: below the time-outs of common middleboxes.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// The parameters of both calls.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// Name of the asker's fleet.
    pub(crate) fleet: String,
    /// What the asker has heard.
    #[serde(default)]
    pub(crate) after: String,
    /// How long to wait for news.
    #[serde(default)]
    pub(crate) wait_ms: u64,
}

/// The answer to a call for facts.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct FactsAnswer {
    /// Who answers.
    pub(crate) datacenter: String,
    /// Digest of its config.
    pub(crate) config_digest: String,
    /// The facts.
    pub(crate) batch: Batch,
}

/// A frontier as text for a query.
pub(crate) fn write_frontier(frontier: &Frontier) -> String {
    frontier.0.iter().map(|(author, number)| format!("{author}:{number}")).collect::<Vec<_>>().join(",")
}

fn read_frontier(text: &str) -> Option<Frontier> {
    let pair = |pair: &str| {
        let (author, number) = pair.split_once(':')?;
        Some((author.to_owned(), number.parse().ok()?))
    };
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.map(pair).collect::<Option<_>>().map(Frontier)
}

/// What a wrong call gets: what is wrong, in words.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

/// The routes.
pub(crate) fn router(agent: Arc<Agent>) -> Router {
    Router::new().route("/v1/facts", get(facts)).route("/v1/view", get(view)).with_state(agent)
}

fn check(agent: &Agent, asked: &Asked) -> Result<Frontier, Refused> {
    let fleet = agent.config().fleet.name.clone();
    if asked.fleet != fleet {
        let message = format!("this is fleet `{fleet}`, not `{}`", daemun_fleet::shorten(&asked.fleet));
        return Err(Refused(StatusCode::CONFLICT, message));
    }
    read_frontier(&asked.after).ok_or_else(|| {
        let found = daemun_fleet::shorten(&asked.after);
        Refused(
            StatusCode::BAD_REQUEST,
            format!("after: expected a frontier such as seoul:3,frankfurt:9, found `{found}`"),
        )
    })
}

/// Waits until `ready` gives something new, or the asker's patience ends; then what there is.
async fn when_new<T>(agent: &Agent, asked: &Asked, ready: impl Fn() -> (bool, T)) -> T {
    let mut changes = agent.changes();
    let patience = Duration::from_millis(asked.wait_ms).min(WAIT_MAX);
    let news = async {
        loop {
            changes.mark_unchanged();
            if let (true, found) = ready() {
                return found;
            }
            if changes.changed().await.is_err() {
                return ready().1;
            }
        }
    };
    match timeout(patience, news).await {
        Ok(found) => found,
        Err(_) => ready().1,
    }
}

async fn facts(
    State(agent): State<Arc<Agent>>,
    Query(asked): Query<Asked>,
) -> Result<Json<FactsAnswer>, Refused> {
    let frontier = check(&agent, &asked)?;
    let batch = when_new(&agent, &asked, || {
        let batch = agent.facts_after(&frontier);
        (!frontier.covers(&batch.frontier), batch)
    });
    let batch = batch.await;
    let config_digest = agent.config().digest.clone();
    Ok(Json(FactsAnswer { datacenter: agent.name().to_owned(), config_digest, batch }))
}

async fn view(
    State(agent): State<Arc<Agent>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Arc<FleetView>>, Refused> {
    let frontier = check(&agent, &asked)?;
    let view = when_new(&agent, &asked, || {
        let view = agent.view();
        (asked.after.is_empty() || !frontier.covers(&view.frontier), view)
    });
    Ok(Json(view.await))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontiers_round_trip() {
        let frontier = Frontier([("seoul".to_owned(), 3), ("frankfurt".to_owned(), 9)].into());
        assert_eq!(read_frontier(&write_frontier(&frontier)), Some(frontier));
        assert_eq!(read_frontier(""), Some(Frontier::default()));
        for bad in ["seoul", "seoul:x", "seoul:-1", ":", "a:1;b:2"] {
            assert_eq!(read_frontier(bad), None, "{bad}");
        }
    }
}
