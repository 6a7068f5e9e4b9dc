//! What is asked of the store without changing it.

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::json;

use super::super::cell::{Cell, Seen};
use super::super::engine::Store;
use super::super::op::Key;
use super::super::replica::FUTURE_MAX_MS;
use super::super::request::Condition;
use super::problem::Problem;
use super::serve::{Answer, Body, answer, tag};
use super::show;

/// When a value ends, milliseconds of Unix time.
const EXPIRES: HeaderName = HeaderName::from_static("x-expires-unix-ms");
/// Bytes of a page: an answer is whole in memory.
const PAGE_BYTES: usize = 1 << 20;
/// Keys that are read at once.
const SCAN_KEYS: usize = 1000;
/// Keys that are looked at for one page, deleted ones that are still remembered among them.
const LOOKED_AT_MAX: usize = 20_000;
/// Operations that are shown of those that wait.
const HELD_MAX: usize = 1000;

/// What is under a key.
pub(super) fn get(store: &Store, key: &Key, condition: Condition) -> Result<Answer, Problem> {
    let cell = store.get(key).map_err(|error| Problem::unreadable(&error))?.unwrap_or_default();
    let Some(seen) = cell.seen(store.unix_ms()) else {
        let error = "there is nothing under this key";
        return Err(Problem::new(StatusCode::NOT_FOUND, error, format!("{}/{}", key.bucket(), key.name())));
    };
    let stamp = cell.newest.to_string();
    match condition {
        Condition::None | Condition::Exists => {}
        Condition::Is(wanted) if wanted == cell.newest => {}
        Condition::Is(_) => return Err(Problem::condition(key, Some(cell.newest))),
        Condition::IsNot(known) if known != cell.newest => {}
        Condition::IsNot(_) | Condition::Absent => {
            let mut answer = Answer::new(Body::Whole(bytes::Bytes::new()));
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            tag(answer.headers_mut(), &stamp);
            return Ok(answer);
        }
    }
    let (body, kind) = show::value(&seen);
    let mut answer = answer(StatusCode::OK, kind, body, Some(&stamp));
    let headers = answer.headers_mut();
    // What users have stored is never taken for a page of ours.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if matches!(seen, Seen::Value(_)) && cell.expires_unix_ms() > 0 {
        headers.insert(EXPIRES, cell.expires_unix_ms().into());
    }
    Ok(answer)
}

/// Looks at the keys of a bucket, some at a time, so that others have their turn, until `look` has enough.
async fn scan(
    store: &Store,
    bucket: &str,
    prefix: &str,
    mut after: Option<String>,
    mut look: impl FnMut(&Key, &Cell) -> bool,
) -> Result<(), Problem> {
    loop {
        let page = store.page(bucket, prefix, after.as_deref(), SCAN_KEYS, PAGE_BYTES);
        let page = page.map_err(|error| Problem::unreadable(&error))?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.name().to_owned());
        if !page.iter().all(|(key, cell)| look(key, cell)) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// Keys of a bucket.
pub(super) async fn list(
    store: &Store,
    bucket: &str,
    prefix: &str,
    after: Option<String>,
    limit: usize,
    values: bool,
) -> Result<Answer, Problem> {
    let unix_ms = store.unix_ms();
    let mut body = Vec::from(&b"{\"keys\":["[..]);
    let (mut shown, mut looked_at) = (0, 0);
    let (mut last, mut next) = (None::<String>, None::<String>);
    scan(store, bucket, prefix, after, |key, cell| {
        if shown == limit || body.len() >= PAGE_BYTES || looked_at == LOOKED_AT_MAX {
            next = last.take();
            return false;
        }
        looked_at += 1;
        if let Some(seen) = cell.seen(unix_ms) {
            if shown > 0 {
                body.push(b',');
            }
            show::key(&mut body, key, cell, Some(&seen), values);
            shown += 1;
        }
        last = Some(key.name().to_owned());
        true
    })
    .await?;
    body.extend(b"],\"next\":");
    show::json(&mut body, &next);
    body.push(b'}');
    Ok(answer(StatusCode::OK, "application/json", body.into(), None))
}

/// How many keys there are.
pub(super) async fn count(store: &Store, bucket: &str, prefix: &str) -> Result<Answer, Problem> {
    let unix_ms = store.unix_ms();
    let mut count = 0_u64;
    scan(store, bucket, prefix, None, |_, cell| {
        count += u64::from(cell.seen(unix_ms).is_some());
        true
    })
    .await?;
    Ok(of(&json!({ "count": count })))
}

/// Values that lost.
pub(super) fn conflicts(store: &Store, before: Option<u64>, limit: usize) -> Result<Answer, Problem> {
    let conflicts = store.conflicts(before, limit).map_err(|error| Problem::unreadable(&error))?;
    let next = conflicts.last().filter(|_| conflicts.len() == limit).map(|last| last.number);
    let evicted = store.status().conflicts_evicted;
    Ok(of(&json!({ "conflicts": conflicts, "next": next, "evicted": evicted })))
}

/// Operations that wait for their time.
pub(super) fn held(store: &Store) -> Result<Answer, Problem> {
    let status = store.status();
    let held = store.held(HELD_MAX).map_err(|error| Problem::unreadable(&error))?;
    let of_one = |entry: super::super::op::Entry| {
        let origin = entry.stamp.origin.to_string();
        let of = status.held.iter().find(|held| held.origin == origin)?;
        let key = entry.action.key();
        Some(json!({
            "origin": origin,
            "datacenter": of.datacenter,
            "sequence": entry.sequence,
            "stamp": entry.stamp.to_string(),
            "due_unix_ms": entry.stamp.unix_ms().saturating_sub(FUTURE_MAX_MS),
            "op": entry.action.name(),
            "bucket": key.map(Key::bucket),
            "key": key.map(Key::name),
        }))
    };
    let held: Vec<_> = held.into_iter().filter_map(of_one).take(HELD_MAX).collect();
    let waiting: u64 = status.held.iter().map(|held| held.operations).sum();
    Ok(of(&json!({ "held": held, "waiting": waiting })))
}

/// How the store is.
pub(super) fn status(store: &Store) -> Answer {
    of(&*store.status())
}

fn of(value: &impl serde::Serialize) -> Answer {
    answer(StatusCode::OK, "application/json", serde_json::to_vec(value).unwrap_or_default().into(), None)
}
