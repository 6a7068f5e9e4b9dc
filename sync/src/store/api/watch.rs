//! Changes as they come, as server-sent events (WHATWG HTML, section 9.2). The id of an event is a frontier: whoever comes
//! back with it, here or in another datacenter, gets all that came after it. A client may see a change twice, never not at all;
//! where that cannot be promised any more, it is told to read the bucket anew.
//!
//! There is no queue: an event is made when the connection takes it, from what is then under the key. A slow reader holds up
//! itself alone.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::super::engine::{Progress, Store};
use super::super::heads::Heads;
use super::super::op::{Entry, Key};
use super::super::read::Changes;
use super::route::NOTHING;
use super::serve::{Answer, Body};
use super::show;

/// Time between two signs of life: shorter than the idle time-outs of proxies.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a client waits before it comes back, milliseconds.
const RETRY_MS: u64 = 1000;
/// Bytes of events that are made at once.
const CHUNK_BYTES: usize = 64 * 1024;

type Next = Pin<Box<dyn Future<Output = (Watcher, Option<Bytes>)> + Send>>;

/// The events of one watch.
pub(super) struct Events {
    /// What makes the next of them; `None`: it has ended.
    next: Option<Next>,
}

impl Events {
    /// Changes of the keys of a bucket that begin with a prefix, after what was seen.
    pub(super) fn new(
        store: Store,
        bucket: &str,
        prefix: &str,
        seen: Option<Heads>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let progresses = store.progresses();
        let mut first = format!("retry: {RETRY_MS}\n\n");
        let frontier = seen.unwrap_or_else(|| {
            let now = store.progress().applied.clone();
            event(&mut first, "ready", &now, &format!("{{\"frontier\":\"{}\"}}", id(&now)));
            now
        });
        let (prefix, waiting) = (Key::prefix(bucket, prefix), VecDeque::new());
        let watcher = Watcher { store, prefix, frontier, waiting, after: None, progresses, _place: place };
        let first = Bytes::from(first);
        Self { next: Some(Box::pin(async move { (watcher, Some(first)) })) }
    }

    /// The next of them.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (watcher, chunk) = std::task::ready!(next.as_mut().poll(context));
        self.next = chunk.is_some().then(|| Box::pin(watcher.next()) as Next);
        Poll::Ready(chunk)
    }
}

/// The answer that these events are.
pub(super) fn answer(events: Events) -> Answer {
    let mut answer = Answer::new(Body::Events(Box::new(events)));
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

struct Watcher {
    store: Store,
    prefix: Vec<u8>,
    /// All up to here has been told.
    frontier: Heads,
    /// What was read of the logs and is not told yet.
    waiting: VecDeque<Entry>,
    /// The frontier when all that waits is told.
    after: Option<Heads>,
    progresses: watch::Receiver<std::sync::Arc<Progress>>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// Waits for something to tell, and tells it.
    async fn next(mut self) -> (Self, Option<Bytes>) {
        let heartbeat = tokio::time::sleep(HEARTBEAT);
        tokio::pin!(heartbeat);
        loop {
            self.progresses.mark_unchanged();
            let mut chunk = String::new();
            match self.tell(&mut chunk) {
                Ok(true) if chunk.is_empty() => {
                    // Others' changes: there may be many of them.
                    tokio::select! {
                        biased;
                        () = &mut heartbeat => return self.sign_of_life(),
                        () = tokio::task::yield_now() => continue,
                    }
                }
                Ok(_) if !chunk.is_empty() => return (self, Some(chunk.into())),
                Ok(_) => {}
                Err(error) => {
                    // The client comes back with the last id, and is told with a status if it is still so.
                    tracing::warn!(%error, "a watch ends");
                    return (self, None);
                }
            }
            tokio::select! {
                changed = self.progresses.changed() => if changed.is_err() {
                    return (self, None);
                },
                () = &mut heartbeat => return self.sign_of_life(),
            }
        }
    }

    /// A comment, and how far we are: an id without data is no event, but is remembered.
    fn sign_of_life(self) -> (Self, Option<Bytes>) {
        let chunk = format!(": still here\nid: {}\n\n", id(&self.frontier));
        (self, Some(chunk.into()))
    }

    /// Writes the events that are due; whether there was anything in the logs.
    fn tell(&mut self, chunk: &mut String) -> Result<bool, super::super::journal::JournalError> {
        if self.waiting.is_empty() {
            match self.store.changes(&self.frontier)? {
                Changes::Entries(entries, after) => {
                    self.waiting = last_of_each(entries, &self.prefix);
                    self.after = Some(after);
                }
                Changes::Gone => {
                    self.frontier = self.store.progress().applied.clone();
                    let error = "what has changed since is not known any more: list the bucket anew; what changes \
                                 after this event is told";
                    let data = serde_json::json!({ "error": error, "frontier": id(&self.frontier) });
                    event(chunk, "reset", &self.frontier, &data.to_string());
                    return Ok(true);
                }
            }
        }
        while chunk.len() < CHUNK_BYTES
            && let Some(entry) = self.waiting.front()
        {
            let mut frontier = self.frontier.clone();
            frontier.raise(entry.stamp.origin, entry.sequence);
            if let Some(key) = entry.action.key() {
                show_now(chunk, &self.store, key, &frontier)?;
            }
            self.frontier = frontier;
            self.waiting.pop_front();
        }
        let mut is_news = !chunk.is_empty();
        if self.waiting.is_empty()
            && let Some(after) = self.after.take()
        {
            is_news |= after != self.frontier;
            self.frontier = after;
        }
        Ok(is_news)
    }
}

/// Of the changes of each watched key the last: what is told is what is under it now.
fn last_of_each(entries: Vec<Entry>, prefix: &[u8]) -> VecDeque<Entry> {
    let is_watched = |entry: &Entry| entry.action.key().is_some_and(|key| key.bytes().starts_with(prefix));
    let watched: Vec<Entry> = entries.into_iter().filter(is_watched).collect();
    let mut last = HashMap::new();
    for (at, entry) in watched.iter().enumerate() {
        if let Some(key) = entry.action.key() {
            last.insert(key.clone(), at);
        }
    }
    let is_last =
        |(at, entry): &(usize, Entry)| entry.action.key().is_some_and(|key| last.get(key) == Some(at));
    watched.into_iter().enumerate().filter(is_last).map(|(_, entry)| entry).collect()
}

/// A key as it is now.
fn show_now(
    chunk: &mut String,
    store: &Store,
    key: &Key,
    frontier: &Heads,
) -> Result<(), super::super::journal::JournalError> {
    let cell = store.get(key)?.unwrap_or_default();
    let seen = cell.seen(store.unix_ms());
    let mut data = Vec::new();
    show::key(&mut data, key, &cell, seen.as_ref(), true);
    let name = if seen.is_some() { "put" } else { "delete" };
    event(chunk, name, frontier, &String::from_utf8_lossy(&data));
    Ok(())
}

/// Writes an event; its data is one line.
fn event(chunk: &mut String, name: &str, frontier: &Heads, data: &str) {
    let _ = write!(chunk, "event: {name}\nid: {}\ndata: {data}\n\n", id(frontier));
}

fn id(frontier: &Heads) -> String {
    if frontier.is_empty() { NOTHING.to_owned() } else { frontier.to_string() }
}
