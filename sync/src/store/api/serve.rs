//! The listener of applications: HTTP/1.1 and HTTP/2 without TLS, with its limits set, and a token.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::engine::Store;
use super::super::op::VALUE_BYTES_MAX;
use super::super::request::{ChangeKind, Changes};
use super::problem::Problem;
use super::route::{Call, route};
use super::watch::Events;
use super::{batch, openapi, read, watch, write};

/// Connections at once: the pools of some hundred processes of an application.
const CONNECTIONS_MAX: usize = 4096;
/// Requests at once on one connection of HTTP/2: more wait at the client.
const STREAMS_MAX: u32 = 256;
/// More header fields than any client of an API sends.
const HEADERS_MAX: usize = 64;
/// A request head larger than this is refused: a key with every byte percent-encoded and a frontier fit.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Who does not finish a request head in this time is dropped. It also bounds idle connections, and is longer than clients
/// keep those (90 s is usual), so that it is they who close them.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// A body that is not there after this time is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that is not a value is at most so large: the largest value fits in base64.
const BODY_BYTES_MAX: usize = VALUE_BYTES_MAX * 2;
/// Of a body that is too large so much is read and thrown away, so that its sender reads the answer.
const WASTE_BYTES_MAX: usize = 16 * BODY_BYTES_MAX;
/// Who does not answer a ping of HTTP/2 in this time is gone.
const PING: Duration = Duration::from_secs(20);
/// Watches at once: each reads all that is written.
pub(super) const WATCHERS_MAX: usize = 256;
/// After an error of accept (out of files): a pause, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer, whole or as it comes.
pub(super) type Answer = Response<Body>;

/// What is answered.
pub(super) enum Body {
    /// The whole.
    Whole(Bytes),
    /// Events as they come.
    Events(Box<Events>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Events(events) => {
                events.poll_next(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Events(_) => SizeHint::default(),
        }
    }
}

/// What all connections share.
pub(super) struct Api {
    store: Result<Store, String>,
    token: Arc<str>,
    watchers: Arc<Semaphore>,
}

/// Serves applications until dropped. Without a store, every call is answered with why there is none.
pub async fn serve(listener: TcpListener, store: Result<Store, String>, token: Arc<str>) {
    if let Ok(store) = &store {
        store.answer_on(tokio::runtime::Handle::current());
    }
    let api = Arc::new(Api { store, token, watchers: Arc::new(Semaphore::new(WATCHERS_MAX)) });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    // While no timer is set, the runtime is woken by a system call for each that is: with one that always is, and is due
    // before those of connections, it is not.
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Over the cap the newcomer is dropped; those who are in are served.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let api = Arc::clone(&api);
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = connection(stream, api).await {
                            tracing::debug!(%error, %peer, "a connection of an application");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting applications");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    stream: TcpStream,
    api: Arc<Api>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let service = service_fn(move |request: Request<Incoming>| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.respond(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder.serve_connection(TokioIo::new(stream), service).await
}

impl Api {
    /// The answer to a request. Total: whatever was asked, something readable comes back.
    async fn respond(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let answered = match self.is_let_in(&head.headers) {
            Ok(()) => {
                let uri = &head.uri;
                match route(&head.method, uri.path(), uri.query(), &head.headers) {
                    Ok((route, call)) => {
                        let answered = self.call(call, body).await;
                        debug_assert!(
                            route.all_statuses().contains(&status_of(&answered).as_u16()),
                            "{:?} is not said to answer {}",
                            route.name,
                            status_of(&answered)
                        );
                        answered
                    }
                    Err(problem) => Err(problem),
                }
            }
            Err(problem) => Err(problem),
        };
        let mut answer = answered.unwrap_or_else(|problem| tell(&problem));
        if head.method == Method::HEAD {
            cut(&mut answer);
        }
        answer
    }

    fn is_let_in(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let shown = headers.get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if shown.is_some_and(|shown| is_same(shown, self.token.as_bytes())) {
            return Ok(());
        }
        let error = "the token is missing or wrong: `Authorization: Bearer TOKEN`; the command line takes \
                     --token-file, and the process made its token in its data directory, store.token";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, error, "header Authorization");
        Err(problem.with(header::WWW_AUTHENTICATE, "Bearer"))
    }

    async fn call(&self, call: Call, body: Incoming) -> Result<Answer, Problem> {
        if call == Call::OpenApi {
            // Without a store too.
            return Ok(answer(StatusCode::OK, "application/json", openapi::text(), None));
        }
        let store = self.store.as_ref().map_err(|why| {
            let error = format!("there is no store: {why}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, "store").again()
        })?;
        match call {
            Call::Get { key, condition } => read::get(store, &key, condition),
            Call::Put { key, condition, ttl, is_json, asked } => {
                let bytes = whole(body, VALUE_BYTES_MAX).await?;
                let kind = ChangeKind::Put { value: write::value(bytes, is_json)?, ttl };
                write::one(store, key, condition, kind, asked).await
            }
            Call::Patch { key, condition, asked } => {
                let patch = write::parse(&whole(body, BODY_BYTES_MAX).await?)?;
                write::one(store, key, condition, ChangeKind::Patch(patch), asked).await
            }
            Call::Delete { key, condition, asked } => {
                write::one(store, key, condition, ChangeKind::Delete, asked).await
            }
            Call::Change { key, condition, asked } => {
                let changes = batch::alter(&whole(body, BODY_BYTES_MAX).await?, &key, condition)?;
                write::write(store, Changes::Keys(changes), asked, batch::Form::One).await
            }
            Call::List { bucket, prefix, after, limit, values } => {
                read::list(store, &bucket, &prefix, after, limit, values).await
            }
            Call::Count { bucket, prefix } => read::count(store, &bucket, &prefix).await,
            Call::Clear { bucket, prefix, asked } => write::clear(store, &bucket, &prefix, asked).await,
            Call::Watch { bucket, prefix, seen } => {
                let place = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| {
                    let error = format!("there are {WATCHERS_MAX} watches already: share one, or wait");
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, "watch").again()
                })?;
                Ok(watch::answer(Events::new(store.clone(), &bucket, &prefix, seen, place)))
            }
            Call::Batch => {
                let batch = batch::Batch::parse(&whole(body, BODY_BYTES_MAX).await?)?;
                write::write(store, Changes::Keys(batch.changes), batch.asked, batch::Form::Many).await
            }
            Call::Conflicts { before, limit } => read::conflicts(store, before, limit),
            Call::Held => read::held(store),
            Call::Drop { asked } => {
                let (origin, sequence) = batch::dropped(&whole(body, BODY_BYTES_MAX).await?)?;
                write::write(store, Changes::Drop { origin, sequence }, asked, batch::Form::One).await
            }
            Call::Status => Ok(read::status(store)),
            Call::OpenApi => Ok(answer(StatusCode::OK, "application/json", openapi::text(), None)),
        }
    }
}

/// Compares in a time that does not tell how much is right.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

fn status_of(answered: &Result<Answer, Problem>) -> StatusCode {
    answered.as_ref().map_or_else(|problem| problem.status, Response::status)
}

/// The whole body, copied: what it came in is larger than it and would live as long.
async fn whole(body: Incoming, max: usize) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, read_whole(body, max)).await;
    read.unwrap_or_else(|_| {
        let error = format!("the body was not there after {} seconds", BODY_TIMEOUT.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, error, "body"))
    })
}

async fn read_whole(mut body: Incoming, max: usize) -> Result<Bytes, Problem> {
    let (mut found, mut size) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::bad(format!("it ended too early: {error}"), "body"))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > WASTE_BYTES_MAX {
            break;
        }
        if size <= max {
            // Most bodies come in one piece.
            if found.is_empty() && body.is_end_stream() {
                return Ok(Bytes::copy_from_slice(&data));
            }
            found.extend_from_slice(&data);
        }
    }
    if size > max {
        let error =
            format!("a body has at most {max} bytes here: keep larger things elsewhere, and their name here");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error, "body"));
    }
    Ok(found.freeze())
}

/// An answer of a type, with a stamp as its tag.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: Bytes, stamp: Option<&str>) -> Answer {
    let mut answer = Response::new(Body::Whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(stamp) = stamp {
        tag(answer.headers_mut(), stamp);
    }
    answer
}

/// HEAD has a head only, which says how long the body would be (RFC 9110 section 9.3.2).
fn cut(answer: &mut Answer) {
    if let Body::Whole(bytes) = answer.body_mut() {
        let length = std::mem::take(bytes).len();
        if answer.status() != StatusCode::NOT_MODIFIED {
            answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
    }
}

/// A stamp as an entity tag.
pub(super) fn tag(headers: &mut HeaderMap, stamp: &str) {
    let quoted = Bytes::from([b"\"", stamp.as_bytes(), b"\""].concat());
    if let Ok(value) = HeaderValue::from_maybe_shared(quoted) {
        headers.insert(header::ETAG, value);
    }
}

fn tell(problem: &Problem) -> Answer {
    let mut answer = answer(problem.status, "application/json", problem.body().into(), None);
    for (name, value) in &problem.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}
