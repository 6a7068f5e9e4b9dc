//! DNS over HTTPS (RFC 8484): `GET /dns-query?dns=…` and `POST /dns-query`, over HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use daemun_fleet::connections::Place;
use data_encoding::BASE64URL_NOPAD;
use hickory_proto::op::Message;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use super::stream::IDLE;
use super::{FAREWELL, QUERY_BYTES_MAX, STREAMS_MAX};
use crate::{Peer, Responder};

/// The one path.
const PATH: &str = "/dns-query";
/// Media type of queries and answers.
const MESSAGE: &str = "application/dns-message";
/// How much of a body that is too long is read, so that its sender sees why it is refused.
const PATIENCE_BYTES: usize = 128 * 1024;
/// Headers of one request.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// How often it is looked whether a connection is idle.
const LOOK: Duration = Duration::from_secs(1);

/// Serves a connection until its client ends it, or has been idle for too long.
pub(super) async fn serve<S>(stream: S, peer: Peer, place: Arc<Place>, responder: Arc<Responder>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (seen, clock) = (Arc::clone(&place), Arc::clone(&responder));
    let service = service_fn(move |request| {
        let (place, responder) = (Arc::clone(&seen), Arc::clone(&clock));
        async move {
            let response = answer(request, peer, &responder).await;
            if response.status() == StatusCode::OK {
                place.touch(responder.now_ms());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let idle = async {
        let idle_ms = IDLE.as_millis() as u64;
        while responder.now_ms().saturating_sub(place.active_ms()) < idle_ms {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection of DNS over HTTPS");
            }
            return;
        }
        () = idle => place.closed("idle"),
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(FAREWELL, connection).await;
}

async fn answer(request: Request<Incoming>, peer: Peer, responder: &Responder) -> Response<Full<Bytes>> {
    let is_head = request.method() == Method::HEAD;
    let query = query(request).await;
    responder.impaired().wait(responder.impaired().next()).await;
    let response = match query {
        Ok(query) => match responder.respond(&query, peer) {
            Some(reply) => reply_with(reply),
            None => refuse(StatusCode::BAD_REQUEST, "the message is no query"),
        },
        Err((status, why)) => refuse(status, why),
    };
    // HEAD has a head only (RFC 9110 section 9.3.2).
    if is_head { response.map(|_| Full::default()) } else { response }
}

/// The message of a request.
async fn query(request: Request<Incoming>) -> Result<Bytes, (StatusCode, &'static str)> {
    let (parts, body) = request.into_parts();
    let asked = asked_by(&parts);
    // The body is read whatever is wrong: a client that is still sending would not see our answer.
    let read = tokio::time::timeout(IDLE, read_body(body)).await;
    if let Some(query) = asked? {
        return Ok(query);
    }
    match read {
        Ok(Some(body)) => Ok(body),
        Ok(None) => Err((StatusCode::PAYLOAD_TOO_LARGE, "a query has at most 8,192 bytes here")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

/// A whole body, unless it is too long; then some more of it is read, and not kept.
async fn read_body(mut body: Incoming) -> Option<Bytes> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        length += data.len();
        if length <= QUERY_BYTES_MAX {
            kept.extend_from_slice(&data);
        } else if length > PATIENCE_BYTES {
            return None;
        }
    }
    (length <= QUERY_BYTES_MAX).then(|| kept.freeze())
}

/// The message in a request's head; none if it is in the body.
fn asked_by(parts: &Parts) -> Result<Option<Bytes>, (StatusCode, &'static str)> {
    if parts.uri.path() != PATH {
        return Err((StatusCode::NOT_FOUND, "queries go to /dns-query"));
    }
    match parts.method {
        Method::GET => {
            let query = parts.uri.query().unwrap_or_default();
            let dns = query.split('&').find_map(|pair| pair.strip_prefix("dns="));
            let dns = dns.ok_or((StatusCode::BAD_REQUEST, "the query string has no `dns=`"))?;
            let decoded = BASE64URL_NOPAD.decode(dns.replace("%3D", "=").trim_end_matches('=').as_bytes());
            decoded
                .map(|query| Some(query.into()))
                .map_err(|_| (StatusCode::BAD_REQUEST, "`dns=` is not base64url"))
        }
        Method::POST if !is_message(parts.headers.get(CONTENT_TYPE)) => {
            Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type is not application/dns-message"))
        }
        Method::POST => Ok(None),
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "GET and POST are answered")),
    }
}

/// Whether a content type is ours, in any letter case and whatever follows (RFC 9110 section 8.3.1).
fn is_message(kind: Option<&HeaderValue>) -> bool {
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MESSAGE))
}

/// Fresh for as long as the answer lives (RFC 8484 section 5.1), to this client: the answer may be made for its place.
fn reply_with(reply: Vec<u8>) -> Response<Full<Bytes>> {
    let fresh = Message::from_vec(&reply).ok().and_then(|message| {
        message.answers.iter().chain(&message.authorities).map(|record| record.ttl).min()
    });
    let mut response = Response::new(Full::new(Bytes::from(reply)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MESSAGE));
    let control = format!("private, max-age={}", fresh.unwrap_or(0));
    headers.insert(CACHE_CONTROL, HeaderValue::from_str(&control).expect("letters and digits"));
    response
}

fn refuse(status: StatusCode, why: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{why}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}
