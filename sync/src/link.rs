//! Links between agents: each pulls the others' facts by long poll. A poll that is not answered is how a dead link
//! shows.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::view::Frontier;
use url::Url;

use crate::core::Input;
use crate::keys::Keys;
use crate::probe::innermost;
use crate::serve::{Asked, FactsAnswer, write_frontier};
use crate::{Agent, StartError};

/// How long a peer may hold a poll: a silent link shows soon after.
const POLL: Duration = Duration::from_secs(1);
/// A peer that has said nothing for so long after the poll should have ended has failed.
const GRACE: Duration = Duration::from_millis(800);
/// The largest answer that is read: all facts of the largest fleet are well below.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(300);
/// Pause after an answer, so that a peer with much news does not keep a core busy.
const BREATH: Duration = Duration::from_millis(10);

/// Pulls from one peer until dropped.
pub(crate) async fn pull(agent: Arc<Agent>, peer: String, url: Url, client: reqwest::Client) {
    loop {
        let asked = agent.frontier();
        match ask(&client, &url, &agent, &asked).await {
            Ok(answer) if answer.datacenter != peer => {
                let why = format!("{url} is the agent of `{}`: check `agent` of {peer}", answer.datacenter);
                agent.take(Input::PullFailed { peer: peer.clone(), why });
                tokio::time::sleep(RETRY).await;
            }
            Ok(answer) => {
                agent.take(Input::Pulled {
                    peer: peer.clone(),
                    batch: answer.batch,
                    config_digest: answer.config_digest,
                });
                tokio::time::sleep(BREATH).await;
            }
            Err(why) => {
                agent.take(Input::PullFailed { peer: peer.clone(), why });
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn ask(
    client: &reqwest::Client,
    url: &Url,
    agent: &Agent,
    after: &Frontier,
) -> Result<FactsAnswer, String> {
    let asked = Asked {
        fleet: agent.config().fleet.name.clone(),
        after: write_frontier(after),
        wait_ms: u64::try_from(POLL.as_millis()).unwrap_or(u64::MAX),
    };
    let facts = url.join("/v1/facts").map_err(|error| error.to_string())?;
    fetch(client, facts, &asked, POLL + GRACE).await
}

/// One GET of JSON, bounded in time and size.
pub(crate) async fn fetch<T: serde::de::DeserializeOwned>(
    client: &reqwest::Client,
    url: Url,
    asked: &Asked,
    patience: Duration,
) -> Result<T, String> {
    let request = client.get(url.clone()).query(asked).timeout(patience);
    let mut response = request.send().await.map_err(|error| innermost(&error))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("{url} answered with more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        let said = String::from_utf8_lossy(&body);
        return Err(format!("{url} answered with status {status}: {}", daemun_fleet::shorten(&said)));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{url} answered with what does not parse: {error}"))
}

/// The client for talking to the agent of one datacenter: no proxy, no redirect. With keys it shows them, and believes
/// that datacenter's certificate only; without them agents speak plain HTTP. The machine's own certificates are not
/// looked at: it need not have any.
pub(crate) fn client(keys: Option<&Keys>, peer: &str, fleet: &str) -> Result<reqwest::Client, StartError> {
    let builder = match keys {
        Some(keys) => reqwest::Client::builder().tls_backend_preconfigured(keys.client_config(peer, fleet)?),
        None => reqwest::Client::builder().tls_certs_only([]),
    };
    let builder = builder
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(GRACE)
        .user_agent(concat!("daemun/", env!("CARGO_PKG_VERSION")));
    Ok(builder.build()?)
}
