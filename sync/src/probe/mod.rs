//! Probes on the wire: what a user's first step would be, each on a connection of its own.
//!
//! A [`Target`] is one address of one server. Making it cannot fail: what is wrong with the machine (no certificates,
//! no such program) is the outcome of a probe, so that one server's trouble is never the agent's. Each kind has its
//! file; this one has what they share. They do not judge: [`health`](crate::health) does.

mod dns;
mod exec;
mod grpc;
mod http;
mod tls;

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::config::{Check, Server};
use tokio::net::TcpStream;

use self::tls::Roots;
pub(crate) use self::tls::system_roots;
use crate::health::Outcome;

/// Who we are, to whoever reads the logs of the server.
const USER_AGENT: &str = concat!("daemun-probe/", env!("CARGO_PKG_VERSION"));
/// A reason is a line of `status`, and travels between datacenters in facts.
const REASON_CHARS_MAX: usize = 160;

/// One address of one server, and how it is probed.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    server: Arc<str>,
    datacenter: Arc<str>,
    address: IpAddr,
    check: Arc<Check>,
    roots: Roots,
}

impl Target {
    /// The targets of a server, one for each address, and none if it is not checked; `datacenter` is the name of its
    /// datacenter.
    pub(crate) fn all(server: &Server, datacenter: &str) -> Vec<(IpAddr, Target)> {
        if server.check == Check::None {
            return Vec::new();
        }
        let (name, datacenter) = (Arc::from(server.name.as_str()), Arc::from(datacenter));
        let check = Arc::new(server.check.clone());
        let target = |&address| {
            let (server, datacenter, check) =
                (Arc::clone(&name), Arc::clone(&datacenter), Arc::clone(&check));
            (address, Target { server, datacenter, address, check, roots: Roots::default() })
        };
        server.addresses.iter().map(target).collect()
    }

    /// One probe. Whatever it has begun ends with it, also when it is dropped.
    pub(crate) async fn probe(&self, timeout: Duration) -> Outcome {
        let mut last_heard = None;
        match tokio::time::timeout(timeout, self.ask(&mut last_heard)).await {
            Ok(outcome) => outcome.map_err(|why| one_line(&why)),
            Err(_) => {
                Err(last_heard.unwrap_or_else(|| format!("no answer within {} ms", timeout.as_millis())))
            }
        }
    }

    /// `last_heard` is why it was no answer, if something was heard and waiting went on.
    async fn ask(&self, last_heard: &mut Option<String>) -> Outcome {
        match &*self.check {
            Check::None => Ok(()),
            Check::Http(check) => http::probe(self.address, check, &self.roots).await,
            Check::Tcp { port } => connect(self.address, *port).await.map(drop),
            Check::Dns(check) => dns::probe(self.address, check, last_heard).await,
            Check::Grpc(check) => grpc::probe(self.address, check, &self.roots).await,
            Check::Exec { program, arguments } => {
                let address = self.address.to_string();
                let environment = [
                    ("DAEMUN_SERVER", &*self.server),
                    ("DAEMUN_ADDRESS", &*address),
                    ("DAEMUN_DATACENTER", &*self.datacenter),
                ];
                exec::probe(program, arguments, environment).await
            }
        }
    }
}

async fn connect(address: IpAddr, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect(SocketAddr::new(address, port)).await.map_err(|error| said(&error))
}

/// What the system says, as we say it: "connection refused", not "Connection refused (os error 111)".
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // "TLS" stays.
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// The cause at the bottom: "connection refused" rather than "error sending request".
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.downcast_ref().map_or_else(|| cause.to_string(), said)
}

/// The same for an error of an HTTP client.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() { "no answer in time".to_owned() } else { cause(error) }
}

/// Parts of a reason come from the server, which may be anyone's.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().take(REASON_CHARS_MAX).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests;
