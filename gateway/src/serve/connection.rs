//! One connection, from its first byte to its end: HTTP/1.1 by [`http1`], HTTP/2 by hyper.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use daemun_fleet::connections::Place;
use daemun_fleet::impaired::Pause;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::eager::Eager;
use super::http1::{self, Left};
use super::stream::Willing;
use super::{FAREWELL, Shared};
use crate::Door;
use crate::answer::{Answer, failed};
use crate::message::{Asked, Fields, Reply};
use crate::panics::{Guarded, guarded};

/// A TLS handshake takes a few round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection of HTTP/2 without a request for so long is over: the protocol has no time of its own for that.
const IDLE: Duration = Duration::from_secs(75);

/// Serves a connection.
pub(super) async fn connection(
    mut stream: Eager,
    peer: IpAddr,
    is_tls: bool,
    place: Place,
    shared: Arc<Shared>,
) {
    match (&shared.tls, is_tls) {
        // What is larger than the plain case is apart, so that the plain case need not make room for it.
        (Some(tls), true) => Box::pin(secure(stream, tls, peer, place, &shared)).await,
        (None, true) => tracing::error!("a TLS listener without a certificate"),
        (_, false) => http(&mut stream, peer, place, &shared, false).await,
    }
}

async fn secure(stream: Eager, tls: &TlsAcceptor, peer: IpAddr, place: Place, shared: &Arc<Shared>) {
    let shaken = tokio::select! {
        biased;
        shaken = timeout(HANDSHAKE, tls.accept(stream)) => shaken,
        () = place.ended() => return,
    };
    match shaken {
        Ok(Ok(mut stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            http2(&mut stream, BytesMut::new(), peer, place, shared).await;
        }
        Ok(Ok(mut stream)) => http(&mut stream, peer, place, shared, true).await,
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a handshake at the front door"),
        Err(_) => place.closed("handshake"),
    }
}

async fn http<S>(stream: &mut S, peer: IpAddr, place: Place, shared: &Arc<Shared>, is_secure: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match http1::serve(stream, peer, &place, &shared.door, is_secure).await {
        Ok(Left::Over) => {}
        Ok(Left::Http2(read)) => Box::pin(http2(stream, read, peer, place, shared)).await,
        Err(error) => tracing::debug!(%error, %peer, "a connection of the front door"),
    }
}

async fn http2<S>(stream: &mut S, read: BytesMut, peer: IpAddr, place: Place, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    place.set_patience(Duration::ZERO);
    place.touch(shared.door.now_ms());
    let place = Arc::new(place);
    let (seen, door) = (Arc::clone(&place), Arc::clone(&shared.door));
    // One is ours, one the service's; the rest are streams that are being sent piece by piece.
    let streams = Arc::new(());
    let of_service = Arc::clone(&streams);
    let service = service_fn(move |request: Request<Incoming>| {
        seen.touch(door.now_ms());
        let is_head = request.method() == Method::HEAD;
        let (answer, streams) = (answer_to(&door, &Asked::of(&request), peer), Arc::clone(&of_service));
        async move {
            let reply = match answer {
                Answer::Now(reply) => reply,
                Answer::Later(reply) => reply.await,
            };
            Ok::<_, Infallible>(reply.into_response(is_head).map(|body| body.keeping(streams)))
        }
    });
    let willing = Willing::new(read, stream, Arc::clone(&place), Arc::clone(&shared.door));
    let connection = shared.http2.serve_connection(TokioIo::new(willing), service);
    tokio::pin!(connection);
    let mut phase = shared.phase.clone();
    let mut ended = std::pin::pin!(place.ended());
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, %peer, "a connection of the front door");
                }
                return;
            }
            () = ended.as_mut() => {
                if !shared.is_closed.load(Ordering::Relaxed) {
                    return;
                }
                break;
            }
            () = idle(&place, &shared.door, &streams) => {
                place.closed("idle");
                break;
            }
            changed = phase.changed() => {
                // GOAWAY: clients finish what they have asked, and come again on another connection.
                connection.as_mut().graceful_shutdown();
                if changed.is_err() || shared.is_closed.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FAREWELL, connection).await;
}

/// Ends when no request has come for too long, and no answer is still being sent piece by piece.
async fn idle(place: &Place, door: &Door, streams: &Arc<()>) {
    let idle_ms = IDLE.as_millis() as u64;
    loop {
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

/// The answer of a door, whatever happens within; when it is to fail, late or not at all.
pub(crate) fn answer_to(door: &Arc<Door>, asked: &Asked<'_, impl Fields + ?Sized>, peer: IpAddr) -> Answer {
    let answer = sound_answer_to(door, asked, peer);
    match door.impaired().next() {
        Pause::None => answer,
        pause => {
            let impaired = Arc::clone(door.impaired());
            Answer::Later(Box::pin(async move {
                impaired.wait(pause).await;
                match answer {
                    Answer::Now(reply) => reply,
                    Answer::Later(reply) => reply.await,
                }
            }))
        }
    }
}

fn sound_answer_to(door: &Arc<Door>, asked: &Asked<'_, impl Fields + ?Sized>, peer: IpAddr) -> Answer {
    match guarded(|| door.respond(asked, peer)) {
        Ok(Answer::Now(reply)) => Answer::Now(reply),
        Ok(Answer::Later(reply)) => {
            let door = Arc::clone(door);
            Answer::Later(Box::pin(async move {
                let reply = Guarded(Box::pin(reply)).await;
                reply.unwrap_or_else(|_| stumbled(&door))
            }))
        }
        Err(_) => Answer::Now(stumbled(door)),
    }
}

fn stumbled(door: &Door) -> Reply {
    door.metrics.panics.inc();
    failed()
}
