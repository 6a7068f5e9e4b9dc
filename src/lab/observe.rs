//! A user's eyes: DNS and HTTP over the wire, nothing else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use reqwest::StatusCode;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long a user's resolver waits for one name server.
const PATIENCE: Duration = Duration::from_millis(500);
/// Length of the client prefix that a resolver sends.
const SUBNET_LEN: u8 = 24;

/// Asks a name server for the address of a name on behalf of a client.
pub(super) async fn resolve(server: SocketAddr, name: &str, client: Ipv4Addr) -> anyhow::Result<Vec<IpAddr>> {
    let mut query = Message::query();
    let mut name = Name::from_ascii(name).context("the name")?;
    name.set_fqdn(true);
    query.add_query(Query::query(name, RecordType::A));
    let mut edns = Edns::new();
    let subnet = ClientSubnet::new(client.into(), SUBNET_LEN, 0);
    edns.options_mut().insert(EdnsOption::Subnet(subnet));
    query.edns = Some(edns);

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a socket")?;
    socket.connect(server).await.context("a socket")?;
    socket.send(&query.to_vec()?).await.with_context(|| format!("asking {server}"))?;
    let mut buffer = [0; 1500];
    let received = timeout(PATIENCE, socket.recv(&mut buffer)).await;
    let length = received
        .map_err(|_| anyhow!("{server} does not answer"))?
        .with_context(|| format!("asking {server}"))?;
    let answer = Message::from_vec(&buffer[..length]).with_context(|| format!("the answer of {server}"))?;
    if answer.metadata.id != query.metadata.id {
        return Err(anyhow!("{server} answered another query"));
    }
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(anyhow!("{server} answered {}", answer.metadata.response_code));
    }
    Ok(answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect())
}

/// A key of the store, as an application asks for it: written with `value`, else read; `None`: it has nothing.
pub(super) async fn key(
    store: SocketAddr,
    token: &str,
    key: &str,
    value: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let url = format!("http://{store}/v1/kv/{key}");
    let asking = || format!("asking {url}");
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build();
    let client = client.with_context(asking)?;
    let request = match value {
        Some(value) => client.put(&url).body(value.to_owned()),
        None => client.get(&url),
    };
    let response = request.bearer_auth(token).send().await.with_context(asking)?;
    match response.status() {
        StatusCode::OK => response.text().await.map(Some).with_context(asking),
        StatusCode::NOT_FOUND => Ok(None),
        status => Err(anyhow!("{url} answered with status {status}")),
    }
}

/// Gets a page as a client behind a proxy; its body.
pub(super) async fn get(door: SocketAddr, path: &str, client: Ipv4Addr) -> anyhow::Result<String> {
    let asking = || format!("getting http://{door}{path}");
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(PATIENCE)
        .build()
        .with_context(asking)?;
    let request = http.get(format!("http://{door}{path}")).header("X-Forwarded-For", client.to_string());
    let response = request.send().await.with_context(asking)?;
    if !response.status().is_success() {
        return Err(anyhow!("http://{door}{path} answered with status {}", response.status()));
    }
    response.text().await.with_context(asking)
}
