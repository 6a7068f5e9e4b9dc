//! Probes on the wire: what a user's first step would be, each on a connection of its own.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use daemun_fleet::config::{Check, Server};
use reqwest::header::HOST;
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
    Http { client: reqwest::Client, url: Url, host: String, status: RangeInclusive<u16> },
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
                let client = |ip| client(ip, url, timeout);
                let target = |&ip| {
                    Ok(Target::Http {
                        client: client(ip)?,
                        url: at(url, ip),
                        host: host(url),
                        status: status.clone(),
                    })
                };
                server.addresses.iter().map(target).collect::<Result<_, reqwest::Error>>()?
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

/// A client that connects to one address, whatever the name in the URL says elsewhere.
fn client(address: IpAddr, url: &Url, timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(timeout)
        .user_agent(concat!("daemun-probe/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        // No certificates are needed, and a machine that has none can still probe.
        builder = builder.tls_certs_only([]);
    }
    if let Some(Host::Domain(name)) = url.host() {
        builder = builder.resolve(name, SocketAddr::new(address, 0));
    }
    builder.build()
}

/// The URL to get at one address: an address in the URL is replaced, a name is resolved by the client.
fn at(url: &Url, address: IpAddr) -> Url {
    let mut url = url.clone();
    if !matches!(url.host(), Some(Host::Domain(_))) && url.set_ip_host(address).is_err() {
        tracing::debug!(%url, %address, "a URL that cannot have an address");
    }
    url
}

/// The Host header that a user would send.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Target {
    async fn probe(self) -> Outcome {
        match self {
            Target::Tcp { address } => {
                TcpStream::connect(address).await.map(drop).map_err(|error| format!("{address}: {error}"))
            }
            Target::Http { client, url, host, status } => {
                let response = client
                    .get(url.clone())
                    .header(HOST, host)
                    .send()
                    .await
                    .map_err(|error| innermost(&error))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_probed_as_a_user_would() {
        let url: Url = "http://192.0.2.1:8080/health".parse().unwrap();
        assert_eq!(at(&url, "192.0.2.77".parse().unwrap()).as_str(), "http://192.0.2.77:8080/health");
        assert_eq!(at(&url, "2001:db8::1".parse().unwrap()).as_str(), "http://[2001:db8::1]:8080/health");
        assert_eq!(host(&url), "192.0.2.1:8080");
        let named: Url = "https://www.shop.example/".parse().unwrap();
        assert_eq!(at(&named, "192.0.2.77".parse().unwrap()), named);
        assert_eq!(host(&named), "www.shop.example");
    }
}
