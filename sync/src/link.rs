//! Links between agents: one question and its answer, over HTTP. When to ask, and what an answer that does not come means, the
//! [`pull`](crate::pull) protocol knows.

use std::time::Duration;

use url::Url;

use crate::StartError;
use crate::core::Answer;
use crate::keys::Keys;
use crate::probe::innermost;
use crate::pull::{Ask, GRACE};
use crate::serve::{Asked, write_frontier};

/// The largest answer that is read: all facts of the largest fleet, some 45 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Asks a peer for what we lack.
pub(crate) async fn ask(
    client: &reqwest::Client,
    url: &Url,
    fleet: &str,
    me: &str,
    ask: &Ask,
) -> Result<Answer, String> {
    let asked = Asked {
        fleet: fleet.to_owned(),
        from: me.to_owned(),
        after: write_frontier(&ask.after),
        wait_ms: u64::try_from(ask.hold.as_millis()).unwrap_or(u64::MAX),
    };
    let facts = url.join("/v1/facts").map_err(|error| error.to_string())?;
    fetch(client, facts, &asked, ask.hold + GRACE).await
}

/// One GET of JSON, bounded in time and size.
pub(crate) async fn fetch<T: serde::de::DeserializeOwned>(
    client: &reqwest::Client,
    url: Url,
    asked: &Asked,
    patience: Duration,
) -> Result<T, String> {
    read(client.get(url.clone()).query(asked).timeout(patience), &url).await
}

/// Sends a request and reads JSON, bounded in size.
pub(crate) async fn read<T: serde::de::DeserializeOwned>(
    request: reqwest::RequestBuilder,
    url: &Url,
) -> Result<T, String> {
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
