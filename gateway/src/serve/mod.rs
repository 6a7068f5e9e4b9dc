//! The sockets of the front door: a thread with its own runtime for each core, each with its own sockets for all addresses
//! (`SO_REUSEPORT`); HTTP/1.1 and HTTP/2, with TLS and without.
//!
//! A door closes in two steps. It drains: goes on accepting, and says with each answer that it closes, so that clients
//! leave by themselves. Then it closes: what is under way is finished, for a while.

mod connection;
mod eager;
mod http1;
mod input;
mod replay;
mod stream;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemun_fleet::connections::{Caps, Connections};
use daemun_fleet::tls::TlsIdentity;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::Door;
use connection::connection;
use eager::Eager;

pub use replay::{Replayed, replay};

/// Connections at once. In all: bounds memory (each holds its buffers, 50 KiB with TLS at most). For one client: more than
/// a browser opens, and than a proxy that is not one of ours needs.
const CAPS: Caps = Caps { total: 8192, per_client: 1024 };
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// A client that does not finish its request head in this time is dropped; it also bounds idle keep-alive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// More header fields than any browser sends.
const HEADERS_MAX: usize = 64;
/// A request head larger than this is refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Requests at once on one connection of HTTP/2 (RFC 9113 section 6.5.2 asks for 100).
const STREAMS_MAX: u32 = 128;
/// Answers of one connection of HTTP/2 that wait to be sent.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// An HTTP/2 client that is silent is asked whether it is there, and given as long to say so.
const ARE_YOU_THERE: Duration = Duration::from_secs(20);
/// Requests under way when the door closes may take this long.
const FAREWELL: Duration = Duration::from_secs(5);
/// A draining door without a client for so long need not wait for more.
const QUIET: Duration = Duration::from_millis(500);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is looked who is too slow.
const SLOW_LOOK: Duration = Duration::from_secs(1);
/// Of a reply so much may wait in the system, beside what is on its way.
const NOT_SENT_BYTES: u32 = 128 * 1024;
/// After an error of accept (out of files): a pause, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the clock is read for what may be as imprecise: when a connection was last active, the date in replies.
const TICK: Duration = Duration::from_millis(250);

thread_local! {
    /// The time at the last tick of this thread; 0: it has none.
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
}

/// The time, as of the last tick.
fn about_now_ms(door: &Door) -> u64 {
    match NOW_MS.get() {
        0 => door.now_ms(),
        now_ms => now_ms,
    }
}

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is not to be had.
    #[error("gateway: cannot listen on {address}: {error}; `ss -tlpn 'sport = :{}'` shows who has it", address.port())]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A thread or its runtime cannot be had.
    #[error("gateway: cannot start a thread: {0}")]
    Thread(io::Error),
    /// The TLS library refuses.
    #[error("gateway: TLS: {0}")]
    Tls(String),
}

/// The sockets of one thread.
#[derive(Debug, Default)]
struct Sockets {
    plain: Vec<StdListener>,
    tls: Vec<StdListener>,
}

/// Everything that listens, for each thread its own.
#[derive(Debug)]
pub struct Listeners(Vec<Sockets>);

/// Binds every address, for as many threads as there are cores to run on.
///
/// # Errors
/// The first that cannot be had.
pub fn bind(plain: &[SocketAddr], tls: &[SocketAddr]) -> Result<Listeners, ServeError> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut listeners: Vec<Sockets> = (0..threads).map(|_| Sockets::default()).collect();
    for (addresses, is_tls) in [(plain, false), (tls, true)] {
        for &address in addresses {
            let has_v4 = addresses.iter().any(|other| {
                other.is_ipv4() && other.ip().is_unspecified() && other.port() == address.port()
            });
            let both_families = address.ip().is_unspecified() && !has_v4;
            let open = |is_shared| open(address, both_families, is_shared);
            let error = |error| ServeError::Listen { address, error };
            // Alone first: sockets that share would share with another process of ours too, without a word.
            drop(open(false).map_err(error)?);
            for sockets in &mut listeners {
                let of_kind = if is_tls { &mut sockets.tls } else { &mut sockets.plain };
                of_kind.push(open(true).map_err(error)?);
            }
        }
    }
    Ok(Listeners(listeners))
}

fn open(address: SocketAddr, both_families: bool, is_shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    // What is accepted has it too (Linux): a system call less for each.
    socket.set_tcp_nodelay(true)?;
    // So is this: that a client takes a little is seen, and not only that it has taken a third of megabytes.
    socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What all connections share.
struct Shared {
    door: Arc<Door>,
    connections: Arc<Connections>,
    tls: Option<TlsAcceptor>,
    http2: http2::Builder<TokioExecutor>,
    /// Another number for each step towards the end.
    phase: watch::Receiver<u8>,
    is_closed: AtomicBool,
}

/// Serves until `stop` says true; then drains for at most `grace`, and finishes what is under way.
///
/// # Errors
/// When a thread cannot be started, or TLS cannot be set up.
pub async fn serve(
    listeners: Listeners,
    door: Arc<Door>,
    identity: Option<Arc<TlsIdentity>>,
    mut stop: watch::Receiver<bool>,
    mut grace: impl FnMut() -> Duration,
) -> Result<(), ServeError> {
    let tls = match &identity {
        Some(identity) => {
            let config = identity.server(&[b"h2", b"http/1.1"]);
            Some(TlsAcceptor::from(Arc::new(config.map_err(|error| ServeError::Tls(error.to_string()))?)))
        }
        None => None,
    };
    let (phase, seen) = watch::channel(0);
    let connections = Connections::new(CAPS, door.metrics.clone());
    let shared = Arc::new(Shared {
        door: Arc::clone(&door),
        connections: Arc::clone(&connections),
        tls,
        http2: http2(),
        phase: seen,
        is_closed: AtomicBool::new(false),
    });
    let mut threads = JoinSet::new();
    for (number, sockets) in listeners.0.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, shared) = (runtime.map_err(ServeError::Thread)?, Arc::clone(&shared));
        let (ended, end) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name(format!("door-{number}"))
            .spawn(move || {
                runtime.block_on(accept_all(sockets, shared));
                drop(ended);
            })
            .map_err(ServeError::Thread)?;
        threads.spawn(end);
    }
    let told = async {
        // Or nobody is left to say so.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let slow = async {
        loop {
            sleep(SLOW_LOOK).await;
            connections.end_slow(door.now_ms());
        }
    };
    tokio::pin!(slow);
    tokio::select! {
        () = told => {}
        () = &mut slow => {}
        _ = threads.join_next() => return Ok(()),
    }
    door.drain();
    phase.send_replace(1);
    let quiet = async {
        let mut calm = Duration::ZERO;
        while calm < QUIET {
            let before = connections.admitted();
            sleep(LOOK).await;
            let is_calm = connections.count() == 0 && connections.admitted() == before;
            calm = if is_calm { calm + LOOK } else { Duration::ZERO };
        }
    };
    tokio::select! {
        drained = timeout(grace(), quiet) => if drained.is_err() {
            tracing::info!(open = connections.count(), "the front door's time to drain is over");
        },
        () = &mut slow => {}
    }
    shared.is_closed.store(true, Ordering::Relaxed);
    phase.send_replace(2);
    connections.end_all();
    while threads.join_next().await.is_some() {}
    Ok(())
}

/// HTTP/2 with its limits.
fn http2() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(SEND_BYTES_MAX)
        .keep_alive_interval(ARE_YOU_THERE)
        .keep_alive_timeout(ARE_YOU_THERE);
    http
}

/// One thread's part.
async fn accept_all(sockets: Sockets, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    for (listeners, is_tls) in [(sockets.plain, false), (sockets.tls, true)] {
        for listener in listeners {
            match readiness(listener) {
                Ok(listener) => drop(tasks.spawn(accept(listener, is_tls, Arc::clone(&shared)))),
                Err(error) => tracing::error!(%error, "a listener of the front door"),
            }
        }
    }
    // Beside the clock: a timer that is set anew with each request is never the first to end, so setting it costs no system
    // call.
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(%error, "a listener of the front door ended"),
                None => return,
            },
            _ = ticks.tick() => NOW_MS.set(shared.door.now_ms()),
        }
    }
}

async fn accept(listener: TcpStream, is_tls: bool, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut phase = shared.phase.clone();
    loop {
        tokio::select! {
            accepted = next(&listener) => admit(accepted, is_tls, &shared, &mut tasks).await,
            changed = phase.changed() => {
                if changed.is_err() || shared.is_closed.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        // Those that have ended in the meantime.
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                shared.door.metrics.panics.inc();
                tracing::error!(%error, "a connection of the front door");
            }
        }
    }
    // Whoever is in the queue was let in by the system: they are served, as long as it lasts.
    while let Ok(accepted) = take(&listener) {
        admit(Ok(accepted), is_tls, &shared, &mut tasks).await;
    }
    drop(listener);
    let finished = async { while tasks.join_next().await.is_some() {} };
    if timeout(FAREWELL, finished).await.is_err() {
        tracing::warn!("connections of the front door were cut after {FAREWELL:?}");
    }
}

/// A listener as something whose readiness can be waited for, and no more: tokio's own listener registers each connection that
/// it accepts, needed or not.
fn readiness(listener: StdListener) -> io::Result<TcpStream> {
    TcpStream::from_std(StdStream::from(OwnedFd::from(listener)))
}

/// The next connection.
async fn next(listener: &TcpStream) -> io::Result<(StdStream, IpAddr)> {
    loop {
        listener.readable().await?;
        match listener.try_io(Interest::READABLE, || take(listener)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            accepted => return accepted,
        }
    }
}

/// The next connection, if there is one; it does not block.
fn take(listener: &TcpStream) -> io::Result<(StdStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = acceptfrom_with(listener, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream.into(), peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip())))
}

async fn admit(
    accepted: io::Result<(StdStream, IpAddr)>,
    is_tls: bool,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
) {
    match accepted {
        Ok((stream, peer)) => {
            // Behind a proxy of ours are many.
            let client = Some(peer).filter(|peer| !shared.door.is_proxy(*peer));
            let place = shared.connections.admit(client, shared.door.now_ms());
            tasks.spawn(connection(Eager::Tried(stream), peer, is_tls, place, Arc::clone(shared)));
        }
        Err(error) => {
            shared.door.metrics.accept_errors.inc();
            tracing::warn!(%error, "accepting at the front door");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

#[cfg(test)]
pub(crate) use connection::answer_to;
#[cfg(test)]
mod tests;
