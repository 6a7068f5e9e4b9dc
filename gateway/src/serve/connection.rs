//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemun_fleet::connections::Place;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::stream::Willing;
use super::{FAREWELL, Shared};
use crate::Door;
use crate::answer::{Answer, failed};
use crate::body::Body;
use crate::panics::{Guarded, guarded};

/// A TLS handshake takes a few round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection without a request for so long is over: HTTP/2 has no time of its own for that.
const IDLE: Duration = Duration::from_secs(75);

/// Serves a connection.
pub(super) async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    is_tls: bool,
    place: Place,
    shared: Arc<Shared>,
) {
    let stream = Willing::new(stream);
    match (&shared.tls, is_tls) {
        (Some(tls), true) => match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, peer, place, &shared).await,
            Ok(Err(error)) => tracing::debug!(%error, %peer, "a handshake at the front door"),
            Err(_) => place.closed("handshake"),
        },
        (None, true) => tracing::error!("a TLS listener without a certificate"),
        (_, false) => http(stream, peer, place, &shared).await,
    }
}

async fn http<S>(stream: S, peer: IpAddr, place: Place, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let is_multiplexed = Arc::new(AtomicBool::new(false));
    let (seen, of_service) = (Arc::clone(&place), Arc::clone(&is_multiplexed));
    let door = Arc::clone(&shared.door);
    let streams = Arc::new(());
    let of_streams = Arc::clone(&streams);
    let service = service_fn(move |request: Request<Incoming>| {
        seen.touch(door.now_ms());
        if request.version() == Version::HTTP_2 {
            of_service.store(true, Ordering::Relaxed);
        }
        let answer = answer(&door, &request, peer);
        let streams = of_streams.clone();
        async move {
            let response = match answer {
                Answer::Now(response) => response,
                Answer::Later(response) => response.await,
            };
            Ok::<_, Infallible>(response.map(|body| body.keeping(streams)))
        }
    });
    let connection = shared.http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut phase = shared.phase.clone();
    let reason = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, %peer, "a connection of the front door");
                }
                return;
            }
            () = place.evicted() => return,
            () = idle(&place, &shared.door, &streams) => break Some("idle"),
            changed = phase.changed() => {
                if changed.is_err() || shared.is_closed.load(Ordering::Relaxed) {
                    break None;
                }
                // Clients of HTTP/1.1 are told with an answer: if an idle connection were closed, the request that is on
                // its way would fail.
                if is_multiplexed.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    if let Some(reason) = reason {
        place.closed(reason);
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FAREWELL, connection).await;
}

/// Ends when no request has come for too long, and no answer is still being sent piece by piece.
async fn idle(place: &Place, door: &Door, streams: &Arc<()>) {
    let idle_ms = IDLE.as_millis() as u64;
    loop {
        // One is ours, one the service's.
        if Arc::strong_count(streams) > 2 {
            place.touch(door.now_ms());
        }
        let since = door.now_ms().saturating_sub(place.active_ms());
        if since >= idle_ms {
            return;
        }
        sleep(Duration::from_millis(idle_ms - since)).await;
    }
}

/// The answer of a door, whatever happens within.
pub(crate) fn answer<B>(door: &Arc<Door>, request: &Request<B>, peer: IpAddr) -> Answer {
    let answer = match guarded(|| door.respond(request, peer)) {
        Ok(answer) => answer,
        Err(_) => Answer::Now(stumbled(door)),
    };
    let closes = door.is_draining() && request.version() < Version::HTTP_2;
    let told = move |mut response: Response<Body>| {
        if closes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    };
    match answer {
        Answer::Now(response) => Answer::Now(told(response)),
        Answer::Later(response) => {
            let door = Arc::clone(door);
            Answer::Later(Box::pin(async move {
                let response = Guarded(Box::pin(response)).await;
                told(response.unwrap_or_else(|_| stumbled(&door)))
            }))
        }
    }
}

fn stumbled(door: &Door) -> Response<Body> {
    door.metrics.panics.inc();
    failed()
}
