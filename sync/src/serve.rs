//! The agent's API for the other agents and for followers:
//!
//! - `GET /v1/facts?fleet=F&after=FRONTIER&wait_ms=N`: facts that the asker lacks, at once or when there are any.
//! - `GET /v1/view?fleet=F&after=FRONTIER&wait_ms=N`: the view, at once or when it has heard more.
//! - `POST /v1/log`, over HTTP/2: the logs of the store that the asker lacks, without end.
//! - `POST /v1/report`: what a name server or door of this datacenter saw and measured.
//!
//! FRONTIER is `seoul:3,frankfurt:9`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use daemun_fleet::FleetView;
use daemun_fleet::view::Frontier;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::Agent;
use crate::core::{Answer, Input};
use crate::drill;
use crate::listen::Peer;
use crate::rates::Measured;
use crate::store::link;

/// The longest that an asker may wait: below the time-outs of common middleboxes.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// A node's name is a label.
const NODE_BYTES_MAX: usize = 64;
/// Outcomes in one report: well within the limit of a body.
pub(crate) const SEEN_MAX: usize = 4096;

/// The parameters of both calls.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// Name of the asker's fleet.
    pub(crate) fleet: String,
    /// The asker's datacenter, if it is an agent.
    #[serde(default)]
    pub(crate) from: String,
    /// What the asker has heard.
    #[serde(default)]
    pub(crate) after: String,
    /// How long to wait for news.
    #[serde(default)]
    pub(crate) wait_ms: u64,
}

/// What a process of this datacenter saw and measured since its last report.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// Name of its fleet.
    pub(crate) fleet: String,
    /// Its own name.
    pub(crate) node: String,
    /// Outcomes of probes, oldest first.
    pub(crate) seen: Vec<Seen>,
    /// What came in.
    pub(crate) measured: Measured,
}

/// The outcome of a probe.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    /// Name of the server.
    pub(crate) server: String,
    /// Which of its addresses.
    pub(crate) address: IpAddr,
    /// How long before the report it ended, milliseconds.
    pub(crate) old_ms: u64,
    /// What went wrong; none: nothing.
    pub(crate) why: Option<String>,
}

/// The answer to a report.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Reported {
    /// How many processes of this datacenter look.
    pub(crate) eyes: u32,
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
    Router::new()
        .route("/v1/facts", get(facts))
        .route("/v1/view", get(view))
        .route("/v1/report", post(report))
        .route(link::PATH, post(log))
        .with_state(Arc::clone(&agent))
        .layer(from_fn_with_state(Arc::clone(&agent), unless_mute))
        .merge(drill::serve::router(agent))
}

/// Who is silenced by a drill does not answer: the asker waits, as for a stopped process.
async fn unless_mute(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let mut mute = agent.mutes();
    if mute.wait_for(|mute| !mute).await.is_err() {
        return Refused(StatusCode::SERVICE_UNAVAILABLE, "the agent ends".to_owned()).into_response();
    }
    let answer = tokio::select! {
        answer = next.run(request) => answer,
        // What was held is lost.
        Ok(_) = mute.wait_for(|mute| *mute) => {
            Refused(StatusCode::SERVICE_UNAVAILABLE, "the agent is silenced by a drill".to_owned()).into_response()
        }
    };
    answer
}

/// Feeds another store what it lacks.
async fn log(State(agent): State<Arc<Agent>>, peer: Option<Extension<Peer>>, request: Request) -> Response {
    let Some(store) = agent.store().cloned() else {
        let message = format!("the agent of {} has no store", agent.name());
        return Refused(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let certified = peer.map(|Extension(Peer(datacenter))| datacenter);
    let fleet = agent.config().fleet.name.clone();
    Response::new(Body::new(link::feed(store, fleet, certified, request.into_body())))
}

/// The certificate's name is the author. Over plain HTTP the operator vouches for the network.
fn is_who_it_says(peer: Option<&Peer>, name: &str) -> Result<(), Refused> {
    match peer {
        Some(Peer(certified)) if certified != name => {
            let message = format!(
                "the certificate is of datacenter `{certified}`, this is for `{}`",
                daemun_fleet::shorten(name)
            );
            Err(Refused(StatusCode::FORBIDDEN, message))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_fleet(agent: &Agent, theirs: &str) -> Result<(), Refused> {
    let fleet = agent.config().fleet.name.clone();
    if theirs != fleet {
        let message = format!("this is fleet `{fleet}`, not `{}`", daemun_fleet::shorten(theirs));
        return Err(Refused(StatusCode::CONFLICT, message));
    }
    Ok(())
}

fn check(agent: &Agent, asked: &Asked) -> Result<Frontier, Refused> {
    check_fleet(agent, &asked.fleet)?;
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
    peer: Option<Extension<Peer>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Answer>, Refused> {
    let received_unix_ms = agent.unix_ms();
    let frontier = check(&agent, &asked)?;
    if !asked.from.is_empty() {
        is_who_it_says(peer.as_deref(), &asked.from)?;
        agent.take(Input::Asked { peer: asked.from.clone(), after: frontier.clone() });
    }
    let news = when_new(&agent, &asked, || {
        let answer = agent.answer(&frontier, received_unix_ms, false);
        (answer.is_some(), answer)
    });
    let answer = news.await.or_else(|| agent.answer(&frontier, received_unix_ms, true));
    let gone = || Refused(StatusCode::INTERNAL_SERVER_ERROR, "there is no answer".to_owned());
    answer.map(Json).ok_or_else(gone)
}

async fn report(
    State(agent): State<Arc<Agent>>,
    peer: Option<Extension<Peer>>,
    Json(report): Json<Report>,
) -> Result<Json<Reported>, Refused> {
    check_fleet(&agent, &report.fleet)?;
    // What other datacenters see they say as facts of their own.
    is_who_it_says(peer.as_deref(), agent.name())?;
    if report.node.is_empty() || report.node.len() > NODE_BYTES_MAX || report.seen.len() > SEEN_MAX {
        let message =
            format!("a report has a name of at most {NODE_BYTES_MAX} bytes and {SEEN_MAX} outcomes");
        return Err(Refused(StatusCode::BAD_REQUEST, message));
    }
    agent.take(Input::Eye { node: report.node.clone() });
    for Seen { server, address, old_ms, why } in report.seen {
        let outcome =
            why.map_or(Ok(()), |why| Err(format!("{}: {}", report.node, daemun_fleet::shorten(&why))));
        agent.take(Input::Glimpsed { server, address, old: Duration::from_millis(old_ms), outcome });
    }
    agent.measured(&report.node, report.measured);
    Ok(Json(Reported { eyes: agent.eyes() }))
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
