//! The sockets of the front door: HTTP/1.1 by hyper, with its limits set.

use std::convert::Infallible;
use std::hash::Hasher as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemun_fleet::meter::Counted;
use daemun_fleet::{Client, Placer};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use siphasher::sip::SipHasher13;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::Door;
use crate::forwarded::client_address;
use crate::list::server_list;

/// Connections at once: bounds memory (each holds at most its buffers, 32 KiB).
const CONNECTIONS_MAX: usize = 8192;
/// A client that does not finish its request head in this time is dropped; it also bounds idle keep-alive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// More header fields than any browser sends.
const HEADERS_MAX: usize = 64;
/// A request head larger than this is refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Requests under way when the door closes may take this long.
const DRAIN: Duration = Duration::from_secs(5);
/// After an error of accept (out of files): a pause, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("gateway: cannot listen on {address}: {error}; `ss -tlpn 'sport = :{}'` shows who has it", address.port())]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

/// Binds every address.
///
/// # Errors
/// The first that cannot be had.
pub async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        listeners.push(TcpListener::bind(address).await.map_err(|error| ListenError { address, error })?);
    }
    Ok(listeners)
}

/// Serves until `stop` says true; then requests under way are finished.
pub async fn serve(listeners: Vec<TcpListener>, door: Arc<Door>, stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(listener, Arc::clone(&door), Arc::clone(&connections), stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a listener of the front door ended");
        }
    }
}

async fn accept(
    listener: TcpListener,
    door: Arc<Door>,
    connections: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let of_connections = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Over the cap the newcomer is dropped; those who are in are served.
                    let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
                    let (door, stop) = (Arc::clone(&door), of_connections.clone());
                    tasks.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = connection(stream, peer, door, stop).await {
                            tracing::debug!(%error, %peer, "a connection of the front door");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting at the front door");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("connections of the front door were cut after {DRAIN:?}");
    }
}

/// Ends when the door is to close, or nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    door: Arc<Door>,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let response = door.respond(&request, peer.ip());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stopped(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

impl Door {
    /// The answer to a request from `peer`. Total: whatever was asked, something readable comes back.
    pub fn respond<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        let (route, response) = self.route(request, peer);
        self.metrics.answered(route, response.status().as_u16());
        response
    }

    fn route<B>(&self, request: &Request<B>, peer: IpAddr) -> (&'static str, Response<Full<Bytes>>) {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let is_right = match (hosts.next(), hosts.next()) {
            (Some(host), None) => is_host(host),
            (None, _) => request.version() == Version::HTTP_10,
            (Some(_), Some(_)) => false,
        };
        if !is_right {
            // RFC 9112 section 3.2; hyper leaves it to us.
            return ("refused", text(StatusCode::BAD_REQUEST, "A request needs exactly one Host header.\n"));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return ("refused", response);
        }
        match request.uri().path() {
            "/" => {
                self.count(request, peer);
                ("page", self.page(request))
            }
            "/v1/servers" => ("servers", self.servers(request, peer)),
            "/v1/ping" => ("ping", empty(StatusCode::NO_CONTENT)),
            _ => ("unknown", text(StatusCode::NOT_FOUND, "There is nothing here. Try / or /v1/servers.\n")),
        }
    }

    fn count<B>(&self, request: &Request<B>, peer: IpAddr) {
        let state = self.state.load();
        count(&state.placer, request, &client(&state.placer, request, peer));
    }

    fn page<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let state = self.state.load();
        self.metrics.page(state.page.source.name());
        let mut response = state.page.asset.answer(request.method(), request.headers());
        let headers = response.headers_mut();
        headers.insert("x-door-source", HeaderValue::from_static(state.page.source.name()));
        harden(headers);
        response
    }

    fn servers<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        let state = self.state.load();
        let client = client(&state.placer, request, peer);
        count(&state.placer, request, &client);
        let role = request
            .uri()
            .query()
            .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("role=")));
        let Some(mut list) = server_list(&state.placer, &self.me, &client, role, 0) else {
            return json(StatusCode::NOT_FOUND, br#"{"error":"there is no server of this role"}"#.to_vec());
        };
        // The tag is of what matters to the client: not of the moment.
        list.issued.clear();
        let tag = tag(&serde_json::to_vec(&list).unwrap_or_default());
        if matches_tag(request.headers(), &tag) {
            let mut response = empty(StatusCode::NOT_MODIFIED);
            set_tag(response.headers_mut(), &tag);
            return response;
        }
        list.issued = crate::list::issued((self.clock.unix_ms)());
        let mut response = json(StatusCode::OK, serde_json::to_vec(&list).unwrap_or_default());
        set_tag(response.headers_mut(), &tag);
        response
    }
}

/// Who asks: the peer, or whom a trusted proxy names.
fn client<B>(placer: &Placer, request: &Request<B>, peer: IpAddr) -> Client {
    let trusted = &placer.steering().config().gateway.trusted_proxies;
    // A header that is not text was not written by a proxy: it ends what can be believed.
    let forwarded =
        request.headers().get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?"));
    Client::address(client_address(peer, forwarded.collect::<Vec<_>>().into_iter(), trusted))
}

/// Counts a user's request for its ranking class: capacity is of these. The agents' probes are none.
fn count<B>(placer: &Placer, request: &Request<B>, client: &Client) {
    let is_probe = |agent: &HeaderValue| agent.as_bytes().starts_with(b"daemun-probe/");
    if !request.headers().get(header::USER_AGENT).is_some_and(is_probe) {
        let door = placer.steering().door();
        placer.count(door, &placer.choose(door, client), Counted::Request);
    }
}

/// A host and perhaps a port, nothing else; empty is allowed (RFC 9110 section 7.2).
fn is_host(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.is_empty() || (!text.contains('@') && text.parse::<Authority>().is_ok())
}

fn tag(body: &[u8]) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(body);
    format!("\"{:016x}\"", hasher.finish())
}

fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

fn set_tag(headers: &mut HeaderMap, tag: &str) {
    if let Ok(value) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, value);
    }
    // The list is for one client: no shared cache may keep it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    of_type(status, "application/json", body.into())
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    of_type(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn of_type(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    harden(response.headers_mut());
    response
}

fn harden(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
}
