//! Sockets of the APIs for agents and operators: HTTP/1.1 with its limits set. What they say is decided elsewhere.
//!
//! Agents come over TLS, and only with a certificate of the fleet ([`crate::keys`]); who it is, a handler finds as
//! [`Peer`] among the request's extensions. Whoever is turned away gets no answer, and is counted by why.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use http_body_util::Limited;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::keys::{Keys, datacenter_in};
use crate::latest::latest_seen;
use crate::refusals::{Refusal, Refusals};
use crate::store::link;

/// Connections at once on one listener: every agent and follower of the largest fleet, and operators.
const CONNECTIONS_MAX: usize = 512;
/// Of them from one address at the agents' listener: a datacenter's followers may come from behind one.
const CONNECTIONS_PER_CLIENT_MAX: usize = 64;
/// Handshakes under way at once. Over it, whoever has the most of them loses its oldest: a flood of those that never end, from
/// a few addresses, keeps nobody out.
const HANDSHAKES_MAX: usize = 128;
/// Who does not finish a request head in this time is dropped; it also bounds idle keep-alive, and is longer than a poll
/// between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A handshake is two round trips: longer than the slowest way around the world with a packet lost.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// After this a connection ends with the request under way: who is trusted no longer is out after it at the latest.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// A request head larger than this is refused: a frontier of the largest fleet fits.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A request body larger than this is refused: operations come in batches below it.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Streams of one HTTP/2 connection: a follower has one.
const STREAMS_MAX: u32 = 16;
/// How long streams have to end when their connection does: a follower asks again at once.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// After an error of accept (out of files): a pause, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The datacenter whose agent asks, from its certificate: an extension of each request that came over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(pub String);

/// Who is let in to an agent.
#[derive(Clone, Debug)]
pub struct AgentDoor {
    /// The keys, and every later ones; `None`: plain HTTP, which lets in everyone.
    pub keys: watch::Receiver<Option<Arc<Keys>>>,
    /// Name of the fleet.
    pub fleet: String,
    /// Counts who is not let in.
    pub refusals: Refusals,
}

/// Serves operators, without TLS, until dropped.
pub async fn serve(listener: TcpListener, router: Router) {
    let caps = Caps::new(CONNECTIONS_MAX, CONNECTIONS_MAX);
    accept(listener, |tasks, stream, peer| {
        // Over the cap the newcomer is dropped; it may ask again.
        let Some(place) = caps.admit(peer.ip()) else { return };
        let router = router.clone();
        tasks.spawn(async move {
            let _place = place;
            log(peer, answer(stream, router, false, std::future::pending()).await);
        });
    })
    .await;
}

/// Serves agents until dropped. New keys hold for new connections; those that are open end with the request under way.
pub async fn serve_agents(listener: TcpListener, router: Router, door: AgentDoor) {
    let caps = Caps::new(CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT_MAX);
    let router = router.layer(middleware::from_fn_with_state(door.refusals.clone(), limit_body));
    accept(listener, |tasks, stream, peer| {
        let Some((place, made_room)) = caps.admit_to_handshake(peer.ip()) else {
            return door.refusals.count(Refusal::TooMany);
        };
        let (router, door) = (router.clone(), door.clone());
        tasks.spawn(door.serve(stream, peer, router, place, made_room));
    })
    .await;
}

/// Hands each connection to `each`, until dropped.
async fn accept(listener: TcpListener, mut each: impl FnMut(&mut JoinSet<()>, TcpStream, SocketAddr)) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // What is written is to go at once: a stream of small messages would wait for each other's receipt.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, %peer, "an option of a connection");
                    }
                    each(&mut tasks, stream, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting at an API");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

impl AgentDoor {
    /// One connection.
    async fn serve(
        mut self,
        stream: TcpStream,
        peer: SocketAddr,
        router: Router,
        mut place: Place,
        made_room: oneshot::Receiver<()>,
    ) {
        let keys = latest_seen(&mut self.keys);
        let mut later = self.keys.clone();
        let until = async {
            tokio::select! {
                () = sleep(AGE_MAX) => {}
                Ok(()) = later.changed() => {}
            }
        };
        let ended = match keys {
            None => {
                place.has_entered();
                let speaks_h2 = begins_as_h2(&stream).await;
                answer(stream, router, speaks_h2, until).await
            }
            Some(keys) => match self.enter(&keys, stream, made_room).await {
                Ok((stream, datacenter)) => {
                    place.has_entered();
                    let speaks_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    answer(stream, router.layer(Extension(Peer(datacenter))), speaks_h2, until).await
                }
                Err((refusal, why)) => {
                    self.refusals.count(refusal);
                    return tracing::debug!(%peer, reason = refusal.name(), why, "refused at the agent's port");
                }
            },
        };
        if ended.as_ref().is_err_and(hyper::Error::is_parse) {
            self.refusals.count(Refusal::BadRequest);
        }
        log(peer, ended);
    }

    /// The handshake: the stream, and whose it is.
    async fn enter(
        &self,
        keys: &Keys,
        stream: TcpStream,
        made_room: oneshot::Receiver<()>,
    ) -> Result<(TlsStream<TcpStream>, String), (Refusal, String)> {
        let handshake = TlsAcceptor::from(keys.server_config()).accept(stream);
        let handshake = tokio::select! {
            done = timeout(HANDSHAKE_TIMEOUT, handshake) => done,
            _ = made_room => return Err((Refusal::TooMany, "it makes room for another".to_owned())),
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err((Refusal::of_handshake(&error), error.to_string())),
            Err(_) => return Err((Refusal::HandshakeTimeout, "no handshake in time".to_owned())),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let datacenter = shown.and_then(|certificate| datacenter_in(certificate, &self.fleet));
        match datacenter {
            Some(datacenter) => Ok((stream, datacenter)),
            None => {
                let why = format!("its certificate is not for one datacenter of fleet `{}`", self.fleet);
                Err((Refusal::NotOfThisFleet, why))
            }
        }
    }
}

/// Whether a connection without TLS begins as HTTP/2 does (RFC 9113 section 3.4).
async fn begins_as_h2(stream: &TcpStream) -> bool {
    let mut first = [0; 4];
    matches!(timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await, Ok(Ok(4)) if first == *b"PRI ")
}

/// Answers requests until the other side, a limit, or `until` ends it.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    speaks_h2: bool,
    until: impl Future<Output = ()>,
) -> Result<(), hyper::Error> {
    if speaks_h2 {
        return answer_h2(stream, router, until).await;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = until => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// The same over HTTP/2: streams that have no end are given a moment to end, then they are ended.
async fn answer_h2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    until: impl Future<Output = ()>,
) -> Result<(), hyper::Error> {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(link::WINDOW_BYTES)
        .initial_connection_window_size(link::WINDOW_BYTES)
        .keep_alive_interval(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = until => connection.as_mut().graceful_shutdown(),
    }
    timeout(LEAVE_TIMEOUT, connection).await.unwrap_or(Ok(()))
}

fn log(peer: SocketAddr, ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection of an API");
    }
}

/// Refuses bodies that are too large, by what is announced and by what comes, and counts requests that are refused.
async fn limit_body(State(refusals): State<Refusals>, request: Request, next: Next) -> Response {
    if request.uri().path() == link::PATH {
        // Its body has no end, and each message in it a limit of its own.
        return next.run(request).await;
    }
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let response = if announced.is_some_and(|length: u64| length > BODY_BYTES_MAX as u64) {
        let message = serde_json::json!({ "error": format!("a body has at most {BODY_BYTES_MAX} bytes") });
        (StatusCode::PAYLOAD_TOO_LARGE, axum::Json(message)).into_response()
    } else {
        next.run(request.map(|body| Body::new(Limited::new(body, BODY_BYTES_MAX)))).await
    };
    match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => refusals.count(Refusal::BodyTooLarge),
        StatusCode::FORBIDDEN => refusals.count(Refusal::SomeoneElse),
        status if status.is_client_error() => refusals.count(Refusal::BadRequest),
        _ => {}
    }
    response
}

/// How many connections there are, in all and of each client.
#[derive(Debug)]
struct Caps {
    total: usize,
    per_client: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_client: HashMap<IpAddr, usize>,
    /// Those in their handshake, oldest first.
    entering: Vec<Entering>,
    next: u64,
}

#[derive(Debug)]
struct Entering {
    number: u64,
    client: IpAddr,
    makes_room: oneshot::Sender<()>,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
struct Place {
    caps: Arc<Caps>,
    client: IpAddr,
    /// Its number while it is entering.
    entering: Option<u64>,
}

impl Caps {
    fn new(total: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self { total, per_client, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let client = key(client);
        let mut open = self.open();
        if open.by_client.values().sum::<usize>() >= self.total {
            return None;
        }
        let of_client = open.by_client.entry(client).or_default();
        if *of_client >= self.per_client {
            return None;
        }
        *of_client += 1;
        Some(Place { caps: Arc::clone(self), client, entering: None })
    }

    /// The same for one that has yet to show who it is; it is told when it must make room.
    fn admit_to_handshake(self: &Arc<Self>, client: IpAddr) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut place = self.admit(client)?;
        let (makes_room, made_room) = oneshot::channel();
        let mut open = self.open();
        if open.entering.len() >= HANDSHAKES_MAX {
            open.make_room();
        }
        let number = open.next;
        open.next += 1;
        open.entering.push(Entering { number, client: place.client, makes_room });
        drop(open);
        place.entering = Some(number);
        Some((place, made_room))
    }
}

impl Open {
    /// The client with the most handshakes loses its oldest; of several such, whose oldest is the oldest of all.
    fn make_room(&mut self) {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.entering.iter().for_each(|entering| *counts.entry(entering.client).or_default() += 1);
        let most = counts.values().copied().max();
        if let Some(at) =
            self.entering.iter().position(|entering| counts.get(&entering.client).copied() == most)
        {
            // If it is gone already, so much the better.
            let _ = self.entering.remove(at).makes_room.send(());
        }
    }
}

impl Place {
    /// It has shown who it is.
    fn has_entered(&mut self) {
        if let Some(number) = self.entering.take() {
            self.caps.open().entering.retain(|entering| entering.number != number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.has_entered();
        let mut open = self.caps.open();
        if let Some(of_client) = open.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

/// Whoever has an IPv6 address has a /64 of them.
fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests;
