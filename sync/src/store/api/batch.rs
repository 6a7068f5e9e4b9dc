//! The bodies of writes: many changes at once, a counter or set, an operation to be dropped. Pure; unknown members are refused.

use data_encoding::BASE64;
use serde::Deserialize;

use super::super::op::{Key, Value};
use super::super::request::{CHANGES_MAX, Change, ChangeKind, Condition};
use super::super::stamp::{NotAStamp, OriginId};
use super::problem::Problem;
use super::query::{self, Asked};
use super::route::check_bucket;
use super::write::not_json;

/// How a write's stamps are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The newest, for it is all about one key.
    One,
    /// One for each change.
    Many,
}

/// Many changes, all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
    /// When they are done.
    pub asked: Asked,
}

/// A time as a text, or a number of seconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Seconds(u64),
    Text(String),
}

impl Time {
    fn into_text(self) -> String {
        match self {
            Time::Seconds(seconds) => seconds.to_string(),
            Time::Text(text) => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBatch {
    durability: Option<String>,
    wait: Option<Time>,
    changes: Vec<RawChange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Put,
    Delete,
    Patch,
    Increment,
    Add,
    Remove,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Delete => "delete",
            Op::Patch => "patch",
            Op::Increment => "increment",
            Op::Add => "add",
            Op::Remove => "remove",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChange {
    op: Op,
    bucket: String,
    key: String,
    if_match: Option<String>,
    if_none_match: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value: Option<serde_json::Value>,
    base64: Option<String>,
    ttl: Option<Time>,
    by: Option<i64>,
    element: Option<String>,
}

/// `null` is a value too.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

impl Batch {
    /// Reads the body of `POST /v1/kv/batch`.
    ///
    /// # Errors
    /// What is wrong with it, and in which change.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let raw: RawBatch = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
        let count = raw.changes.len();
        if count == 0 || count > CHANGES_MAX {
            let error =
                format!("a batch has 1 to {CHANGES_MAX} changes, found {count}: it is one transaction");
            return Err(Problem::bad(error, "body, `changes`"));
        }
        let durability = raw.durability.map(|text| query::durability(&text, "body, `durability`"));
        let patience = raw.wait.map(|time| query::patience(&time.into_text(), "body, `wait`"));
        let asked = Asked {
            durability: durability.transpose()?.unwrap_or_default(),
            patience: patience.transpose()?.unwrap_or(query::WAIT),
        };
        let changes = raw.changes.into_iter().enumerate();
        let changes = changes.map(|(at, raw)| change(raw, &format!("body, changes[{at}]")));
        Ok(Self { changes: changes.collect::<Result<_, _>>()?, asked })
    }
}

fn change(mut raw: RawChange, at: &str) -> Result<Change, Problem> {
    let op = raw.op;
    let condition = condition(&raw, at)?;
    let lacks = |name: &str| Problem::bad(format!("{} takes `{name}`, which is missing", op.name()), at);
    let kind = match op {
        Op::Put => {
            let at = |name: &str| format!("{at}, `{name}`");
            let ttl = raw.ttl.take().map(|time| query::ttl(&time.into_text(), &at("ttl"))).transpose()?;
            let (value, base64) = (raw.value.take(), raw.base64.take());
            ChangeKind::Put { value: put(value, base64, &at("base64"))?, ttl }
        }
        Op::Delete => ChangeKind::Delete,
        Op::Patch => ChangeKind::Patch(raw.value.take().ok_or_else(|| lacks("value"))?),
        Op::Increment => ChangeKind::Increment(raw.by.take().ok_or_else(|| lacks("by"))?),
        Op::Add => ChangeKind::Add(raw.element.take().ok_or_else(|| lacks("element"))?),
        Op::Remove => ChangeKind::Remove(raw.element.take().ok_or_else(|| lacks("element"))?),
    };
    let left = [
        (raw.value.is_some(), "value"),
        (raw.base64.is_some(), "base64"),
        (raw.ttl.is_some(), "ttl"),
        (raw.by.is_some(), "by"),
        (raw.element.is_some(), "element"),
    ];
    if let Some((_, name)) = left.into_iter().find(|(is_left, _)| *is_left) {
        return Err(Problem::bad(format!("`{name}` does not go with {}", op.name()), at));
    }
    check_bucket(&raw.bucket, &format!("{at}, `bucket`"))?;
    let key = Key::new(&raw.bucket, &raw.key);
    let key = key.map_err(|error| Problem::bad(error.to_string(), format!("{at}, `key`")))?;
    Ok(Change { key, condition, kind })
}

fn put(value: Option<serde_json::Value>, base64: Option<String>, at: &str) -> Result<Value, Problem> {
    match (value, base64) {
        (Some(value), None) => {
            Ok(Value { is_json: true, bytes: serde_json::to_vec(&value).unwrap_or_default().into() })
        }
        (None, Some(text)) => {
            let wrong = |error| Problem::bad(format!("it is no base64: {error}"), at);
            Ok(Value { is_json: false, bytes: BASE64.decode(text.as_bytes()).map_err(wrong)?.into() })
        }
        (Some(_), Some(_)) | (None, None) => {
            let error = "a put has `value`, which is JSON, or `base64`, which is any bytes: one of the two";
            Err(Problem::bad(error, at))
        }
    }
}

fn condition(raw: &RawChange, at: &str) -> Result<Condition, Problem> {
    let stamp = |text: &str, name: &str| {
        // As in ETag, or without its quotes.
        let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        inner.parse().map_err(|error: NotAStamp| Problem::bad(error.to_string(), format!("{at}, `{name}`")))
    };
    match (raw.if_match.as_deref(), raw.if_none_match.as_deref()) {
        (None, None) => Ok(Condition::None),
        (Some("*"), None) => Ok(Condition::Exists),
        (Some(text), None) => stamp(text, "if_match").map(Condition::Is),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(text)) => stamp(text, "if_none_match").map(Condition::IsNot),
        (Some(_), Some(_)) => Err(Problem::bad("give if_match or if_none_match, not both", at)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlter {
    increment: Option<i64>,
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

/// Reads the body that changes a counter or set; the condition is weighed once, at the first change.
///
/// # Errors
/// What is wrong with it.
pub fn alter(body: &[u8], key: &Key, condition: Condition) -> Result<Vec<Change>, Problem> {
    let raw: RawAlter = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    let count = raw.add.len() + raw.remove.len();
    if raw.increment.is_some() == (count > 0) || count > CHANGES_MAX {
        let error = format!(
            "expected {{\"increment\": 1}} for a counter, or {{\"add\": [\"a\"], \"remove\": [\"b\"]}} with up to \
             {CHANGES_MAX} elements for a set"
        );
        return Err(Problem::bad(error, "body"));
    }
    let kinds = raw.increment.map(ChangeKind::Increment).into_iter();
    let kinds = kinds.chain(raw.add.into_iter().map(ChangeKind::Add));
    let kinds = kinds.chain(raw.remove.into_iter().map(ChangeKind::Remove));
    let change = |(at, kind)| Change {
        key: key.clone(),
        condition: if at == 0 { condition } else { Condition::None },
        kind,
    };
    Ok(kinds.enumerate().map(change).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDrop {
    origin: String,
    sequence: u64,
}

/// Reads the body that names an operation.
///
/// # Errors
/// What is wrong with it.
pub fn dropped(body: &[u8]) -> Result<(OriginId, u64), Problem> {
    let raw: RawDrop = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    let is_id = raw.origin.len() == 8 && raw.origin.bytes().all(|digit| digit.is_ascii_hexdigit());
    let id = u32::from_str_radix(&raw.origin, 16).ok().filter(|_| is_id);
    let error = || format!("expected 8 hexadecimal digits, found `{}`", daemun_fleet::shorten(&raw.origin));
    let id = id.ok_or_else(|| Problem::bad(error(), "body, `origin`"))?;
    Ok((OriginId(id), raw.sequence))
}
