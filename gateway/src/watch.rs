//! Waiting for another server list: as server-sent events (the HTML standard, section 9.2), or by a long poll.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use daemun_fleet::connections::network;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, timeout_at};

use crate::answer::{Answer, Question, json, share};
use crate::body::{Body, Events};
use crate::listings::is_known;
use crate::message::{Asked, Fields, Reply};
use crate::panics::Guarded;
use crate::{Door, HARDENED};

/// Clients that wait at once: bounds memory (a few kilobytes each, with the connection).
const WATCHERS_MAX: i64 = 2_048;
/// Of one client, an IPv4 address or an IPv6 /64: an office behind one address.
const WATCHERS_OF_CLIENT_MAX: usize = 64;
/// A comment so often: who is gone is noticed, and proxies see that the stream lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Milliseconds after which a browser comes back, in the stream's own words.
const RETRY: &str = "retry: 2000\n";

/// One who waits, as long as this lives.
#[derive(Debug)]
struct Place {
    door: Arc<Door>,
    client: IpAddr,
}

/// Who waits, by client.
pub(crate) type Waiting = HashMap<IpAddr, usize>;

impl Place {
    /// None: too many wait, or too many of this client.
    fn take(door: &Arc<Door>, question: &Question) -> Option<Self> {
        let client = network(question.client());
        let mut waiting = door.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = waiting.get(&client).copied().unwrap_or_default();
        if of_client >= WATCHERS_OF_CLIENT_MAX || door.metrics.watchers.get() >= WATCHERS_MAX {
            return None;
        }
        waiting.insert(client, of_client + 1);
        door.metrics.watchers.inc();
        Some(Self { door: Arc::clone(door), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.door.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_client) = waiting.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                waiting.remove(&self.client);
            }
        }
        self.door.metrics.watchers.dec();
    }
}

struct Watcher {
    place: Place,
    question: Question,
    changed: Receiver<u64>,
    /// What the client has.
    likeness: String,
}

impl Watcher {
    fn door(&self) -> &Arc<Door> {
        &self.place.door
    }

    /// The newest list as an event, if it is another.
    fn news(&mut self) -> Option<Bytes> {
        let door = Arc::clone(self.door());
        let listing = door.listing(&door.state.load(), &self.question);
        if listing.likeness == self.likeness {
            return None;
        }
        self.likeness.clone_from(&listing.likeness);
        let body = String::from_utf8_lossy(listing.asset.body());
        Some(Bytes::from(format!("id: {}\ndata: {body}\n\n", listing.generation)))
    }

    /// What is to come; a panic in it is its end.
    fn rest(self) -> Events {
        let metrics = self.door().metrics.clone();
        let next = Guarded(Box::pin(self.next()));
        Events::new(async move {
            next.await.unwrap_or_else(|_| {
                metrics.panics.inc();
                None
            })
        })
    }

    /// The next piece of the stream: a list, or a sign of life; none: the door closes.
    async fn next(mut self) -> Option<(Bytes, Events)> {
        let until = sleep(SIGN_OF_LIFE);
        tokio::pin!(until);
        loop {
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = &mut until => return Some((Bytes::from_static(b":\n\n"), self.rest())),
            }
            if self.door().is_draining() {
                return None;
            }
            if let Some(news) = self.news() {
                return Some((news, self.rest()));
            }
        }
    }
}

impl Door {
    /// The list now, and whenever it is another. A client that comes back gets the list of now: what it has missed is in it.
    pub(crate) fn watch(
        self: &Arc<Self>,
        question: Question,
        request: &Asked<'_, impl Fields + ?Sized>,
    ) -> Reply {
        let state = self.state.load();
        let Some(place) = Place::take(self, &question).filter(|_| !self.is_draining()) else {
            return self.no_place(request.fields);
        };
        let mut watcher =
            Watcher { place, question, changed: self.changed.subscribe(), likeness: String::new() };
        let first = watcher.news().unwrap_or_default();
        let first = [RETRY.as_bytes(), &first].concat();
        let body = match *request.method {
            Method::HEAD => Body::Events(Events::new(async { None })),
            _ => Body::Events(Events::new(async move { Some((first.into(), watcher.rest())) })),
        };
        let head = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "private, no-store"),
            // nginx and its kin gather what they pass on, unless told.
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        let more =
            head.into_iter().chain(HARDENED).map(|(name, value)| (name, HeaderValue::from_static(value)));
        let reply = Reply { body, more: more.collect(), ..Reply::new(StatusCode::OK) };
        share(&state, request.fields, reply)
    }

    fn no_place(&self, asked: &(impl Fields + ?Sized)) -> Reply {
        let reply = json(
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"error":"too many wait here: ask again, without waiting"}"#,
        );
        let reply = reply.with(header::RETRY_AFTER, HeaderValue::from_static("5"));
        share(&self.state.load(), asked, reply)
    }

    /// The list, when it is another than the one the client has, or the time is over.
    #[expect(
        clippy::disallowed_methods,
        reason = "the end of a wait, by the runtime's clock that it is waited by"
    )]
    pub(crate) fn long_poll(
        self: &Arc<Self>,
        question: Question,
        request: &Asked<'_, impl Fields + ?Sized>,
        wait: Duration,
    ) -> Answer {
        let Some(place) = Place::take(self, &question) else {
            return Answer::Now(self.no_place(request.fields));
        };
        let (method, fields) = (request.method.clone(), kept(request.fields));
        let (mut changed, until) = (self.changed.subscribe(), Instant::now() + wait);
        Answer::Later(Box::pin(async move {
            let door = &place.door;
            loop {
                let is_other = !is_known(&fields, door.listing(&door.state.load(), &question).asset.tag());
                if is_other || door.is_draining() {
                    break;
                }
                if !matches!(timeout_at(until, changed.changed()).await, Ok(Ok(()))) {
                    break;
                }
            }
            door.servers(&door.state.load(), &question, &method, &fields)
        }))
    }
}

/// What of a request is asked of it again when the wait is over.
fn kept(fields: &(impl Fields + ?Sized)) -> HeaderMap {
    ["if-none-match", "accept-encoding", "origin"]
        .into_iter()
        .flat_map(|name| fields.values(name).map(move |value| (name, value)))
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?))
        })
        .collect()
}
