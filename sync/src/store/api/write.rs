//! Writes: from bodies to changes, and what a write came to.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::Map;

use super::super::engine::Store;
use super::super::op::{Key, Value};
use super::super::request::{Change, ChangeKind, Changes, Condition, Durability, Reply, Write};
use super::batch::Form;
use super::problem::Problem;
use super::query::Asked;
use super::serve::{Answer, answer};
use super::show::json;

/// Keys that are deleted in one write when a bucket is cleared: others' writes are held up for its time.
const CLEAR_KEYS: usize = 500;
/// Bytes of values that are read for it at once.
const CLEAR_BYTES: usize = 1 << 20;

/// The value that a body is.
pub(super) fn value(bytes: Bytes, is_json: bool) -> Result<Value, Problem> {
    if is_json {
        parse(&bytes)?;
    }
    Ok(Value { is_json, bytes })
}

/// JSON, whole.
pub(super) fn parse(body: &[u8]) -> Result<serde_json::Value, Problem> {
    serde_json::from_slice(body).map_err(|error| not_json(&error))
}

pub(super) fn not_json(error: &serde_json::Error) -> Problem {
    let at = format!("body, line {} column {}", error.line(), error.column());
    Problem::bad(format!("the body is not the JSON that is expected: {error}"), at)
}

/// One change of one key.
pub(super) async fn one(
    store: &Store,
    key: Key,
    condition: Condition,
    kind: ChangeKind,
    asked: Asked,
) -> Result<Answer, Problem> {
    write(store, Changes::Keys(vec![Change { key, condition, kind }]), asked, Form::One).await
}

/// Writes, and says what it came to.
pub(super) async fn write(store: &Store, what: Changes, asked: Asked, form: Form) -> Result<Answer, Problem> {
    let Asked { durability, patience } = asked;
    told(&store.write(Write { what, durability, patience }).await, durability, form)
}

/// A reply as an answer.
pub(super) fn told(reply: &Reply, asked: Durability, form: Form) -> Result<Answer, Problem> {
    let (stamps, is_done, whereabouts) = match reply {
        Reply::Written { stamps, is_done, whereabouts } => (stamps, *is_done, whereabouts),
        Reply::Refused(refusal) => return Err(Problem::refused(refusal)),
        Reply::Unknown(why) => return Err(Problem::unknown(why)),
    };
    let mut body = Vec::with_capacity(160);
    let newest = stamps.last().map(ToString::to_string).unwrap_or_default();
    match form {
        Form::One => body.extend([b"{\"stamp\":\"", newest.as_bytes(), b"\""].concat()),
        Form::Many => {
            body.extend(b"{\"stamps\":");
            json(&mut body, &stamps.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
    }
    body.extend(b",\"durable\":");
    json(&mut body, whereabouts);
    if !is_done {
        body.extend(format!(",\"asked\":\"{asked}\"").bytes());
    }
    body.push(b'}');
    let status = if is_done { StatusCode::OK } else { StatusCode::ACCEPTED };
    let tag = (form == Form::One).then_some(newest);
    Ok(answer(status, "application/json", body.into(), tag.as_deref()))
}

/// Deletes every key of a bucket that begins with a prefix, one write after the other, so that nobody waits long behind it.
pub(super) async fn clear(
    store: &Store,
    bucket: &str,
    prefix: &str,
    asked: Asked,
) -> Result<Answer, Problem> {
    let (mut deleted, mut after) = (0_u64, None::<String>);
    let (mut durability, mut is_whole, mut last) = (asked.durability, true, None);
    loop {
        let page = store.page(bucket, prefix, after.as_deref(), CLEAR_KEYS, CLEAR_BYTES);
        let page = page.map_err(|error| Problem::unreadable(&error).and("deleted", deleted))?;
        let Some((end, _)) = page.last() else { break };
        after = Some(end.name().to_owned());
        let unix_ms = store.unix_ms();
        let seen = page.into_iter().filter(|(_, cell)| cell.seen(unix_ms).is_some());
        let delete = |(key, _)| Change { key, condition: Condition::None, kind: ChangeKind::Delete };
        let changes: Vec<Change> = seen.map(delete).collect();
        if changes.is_empty() {
            tokio::task::yield_now().await;
            continue;
        }
        let count = changes.len() as u64;
        let what = Changes::Keys(changes);
        match store.write(Write { what, durability, patience: asked.patience }).await {
            Reply::Written { is_done, whereabouts, .. } => {
                deleted += count;
                // Who is not reached now is not waited for with each write again.
                if !is_done {
                    (durability, is_whole) = (Durability::Local, false);
                }
                last = Some(whereabouts);
            }
            Reply::Refused(refusal) => return Err(Problem::refused(&refusal).and("deleted", deleted)),
            Reply::Unknown(why) => return Err(Problem::unknown(&why).and("deleted", deleted)),
        }
    }
    let mut body = Map::new();
    body.insert("deleted".to_owned(), deleted.into());
    if let Some(whereabouts) = last {
        body.insert("durable".to_owned(), serde_json::to_value(whereabouts).unwrap_or_default());
    }
    if !is_whole {
        body.insert("asked".to_owned(), asked.durability.to_string().into());
    }
    let status = if is_whole { StatusCode::OK } else { StatusCode::ACCEPTED };
    let body = serde_json::to_vec(&body).unwrap_or_default();
    Ok(answer(status, "application/json", body.into(), None))
}
