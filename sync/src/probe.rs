//! Probes on the wire: what a user's first step would be, each on a connection of its own.

use std::error::Error as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use daemun_fleet::config::{Check, Server};
use reqwest::redirect::Policy;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::{Host, Url};

use crate::health::Outcome;

/// The probes of one server: one to each of its addresses. It is up when all of them answer.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    targets: Vec<Target>,
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Target {
    Http { client: reqwest::Client, url: Url, status: RangeInclusive<u16> },
    Tcp { address: SocketAddr },
}

impl Prober {
    /// The prober of a server; `None` when it is not checked.
    pub(crate) fn new(server: &Server, timeout: Duration) -> Result<Option<Self>, reqwest::Error> {
        let targets = match &server.check {
            Check::None => return Ok(None),
            Check::Tcp { port } => server
                .addresses
                .iter()
                .map(|&ip| Target::Tcp { address: SocketAddr::new(ip, *port) })
                .collect(),
            Check::Http { url, status } => {
                let clients = clients(server, url, timeout)?.into_iter();
                clients
                    .map(|client| Target::Http { client, url: url.clone(), status: status.clone() })
                    .collect()
            }
        };
        Ok(Some(Self { targets, timeout }))
    }

    /// One round.
    pub(crate) async fn probe(self) -> Outcome {
        let mut rounds = JoinSet::new();
        for target in self.targets {
            rounds.spawn(async move {
                match timeout(self.timeout, target.probe()).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
                }
            });
        }
        while let Some(round) = rounds.join_next().await {
            round.map_err(|error| format!("the probe itself failed: {error}"))??;
        }
        Ok(())
    }
}

/// One client for each address, which connects there whatever the name in the URL says elsewhere.
fn clients(server: &Server, url: &Url, timeout: Duration) -> Result<Vec<reqwest::Client>, reqwest::Error> {
    let builder = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(timeout)
            .user_agent(concat!("daemun-probe/", env!("CARGO_PKG_VERSION")))
    };
    match url.host() {
        Some(Host::Domain(name)) => server
            .addresses
            .iter()
            .map(|&ip| builder().resolve(name, SocketAddr::new(ip, 0)).build())
            .collect(),
        _ => Ok(vec![builder().build()?]),
    }
}

impl Target {
    async fn probe(self) -> Outcome {
        match self {
            Target::Tcp { address } => {
                TcpStream::connect(address).await.map(drop).map_err(|error| format!("{address}: {error}"))
            }
            Target::Http { client, url, status } => {
                let response = client.get(url.clone()).send().await.map_err(|error| innermost(&error))?;
                let got = response.status().as_u16();
                if status.contains(&got) { Ok(()) } else { Err(format!("{url} answered with status {got}")) }
            }
        }
    }
}

/// The cause at the bottom: "connection refused" rather than "error sending request".
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
