//! From a request's head to what is asked: pure, total, and strict. Whatever is not understood is refused with its place and
//! what to do, never passed over: a mistyped parameter must not become a write without it.

use std::borrow::Cow;
use std::time::Duration;

use daemun_fleet::shorten;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, StatusCode};

use super::super::heads::Heads;
use super::super::op::{BadKey, Key};
use super::super::request::Condition;
use super::super::stamp::Stamp;
use super::problem::Problem;
use super::query::{Asked, Query, decode};
use super::routes::{Name, Place, ROUTES, Route};

/// The id of the frontier of a store that has nothing: an empty one would make a client begin anew.
pub const NOTHING: &str = "none";

/// What is asked, but for its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// What is under a key.
    Get {
        /// The key.
        key: Key,
        /// If this is so.
        condition: Condition,
    },
    /// The body is put.
    Put {
        /// The key.
        key: Key,
        /// If this is so.
        condition: Condition,
        /// For so long; `None`: for good.
        ttl: Option<Duration>,
        /// The body must be JSON.
        is_json: bool,
        /// When it is done.
        asked: Asked,
    },
    /// The body is a merge patch.
    Patch {
        /// The key.
        key: Key,
        /// If this is so.
        condition: Condition,
        /// When it is done.
        asked: Asked,
    },
    /// The key is deleted.
    Delete {
        /// The key.
        key: Key,
        /// If this is so.
        condition: Condition,
        /// When it is done.
        asked: Asked,
    },
    /// The body says how a counter or set changes.
    Change {
        /// The key.
        key: Key,
        /// If this is so.
        condition: Condition,
        /// When it is done.
        asked: Asked,
    },
    /// Keys of a bucket.
    List {
        /// The bucket.
        bucket: String,
        /// They begin with this.
        prefix: String,
        /// They are after this one.
        after: Option<String>,
        /// At most so many.
        limit: usize,
        /// With their values.
        values: bool,
    },
    /// How many keys there are.
    Count {
        /// The bucket.
        bucket: String,
        /// They begin with this.
        prefix: String,
    },
    /// All keys are deleted.
    Clear {
        /// The bucket.
        bucket: String,
        /// They begin with this.
        prefix: String,
        /// When it is done.
        asked: Asked,
    },
    /// Changes as they come.
    Watch {
        /// The bucket.
        bucket: String,
        /// Of keys that begin with this.
        prefix: String,
        /// What was seen; `None`: all up to now.
        seen: Option<Heads>,
    },
    /// The body has many changes.
    Batch,
    /// What lost.
    Conflicts {
        /// Numbers below this.
        before: Option<u64>,
        /// At most so many.
        limit: usize,
    },
    /// What waits for its time.
    Held,
    /// The body says what is dropped.
    Drop {
        /// When it is done.
        asked: Asked,
    },
    /// How the store is.
    Status,
    /// The description of all this.
    OpenApi,
}

/// What a request asks.
///
/// # Errors
/// What is wrong with it.
pub fn route(
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<(&'static Route, Call), Problem> {
    let (place, bucket, key) = place(path, method, headers, query)?;
    let route = ROUTES.iter().find(|route| route.place == place && route.method == method.as_str());
    let Some(route) = route else { return Err(not_allowed(place, method)) };
    let query = Query::parse(route, query)?;
    let asked = |query: &Query<'_>| query.asked();
    let call = match route.name {
        Name::Get | Name::Head => Call::Get { key: key_of(bucket, key)?, condition: condition(headers)? },
        Name::Put => Call::Put {
            key: key_of(bucket, key)?,
            condition: condition(headers)?,
            ttl: query.ttl()?,
            is_json: media_type(headers) == "application/json",
            asked: asked(&query)?,
        },
        Name::Patch => {
            check_patch_type(headers)?;
            Call::Patch { key: key_of(bucket, key)?, condition: condition(headers)?, asked: asked(&query)? }
        }
        Name::Delete => {
            Call::Delete { key: key_of(bucket, key)?, condition: condition(headers)?, asked: asked(&query)? }
        }
        Name::Change => {
            Call::Change { key: key_of(bucket, key)?, condition: condition(headers)?, asked: asked(&query)? }
        }
        Name::List => list(bucket_of(bucket)?, &query)?,
        Name::Clear => {
            Call::Clear { bucket: bucket_of(bucket)?, prefix: query.text("prefix"), asked: asked(&query)? }
        }
        Name::Watch => {
            Call::Watch { bucket: bucket_of(bucket)?, prefix: query.text("prefix"), seen: seen(headers)? }
        }
        Name::Batch => Call::Batch,
        Name::Conflicts => Call::Conflicts { before: query.number("before")?, limit: query.limit()? },
        Name::Held => Call::Held,
        Name::Drop => Call::Drop { asked: asked(&query)? },
        Name::Status => Call::Status,
        Name::OpenApi => Call::OpenApi,
    };
    Ok((route, call))
}

/// Where a path leads, and the bucket and key in it, as they are written.
fn place<'p>(
    path: &'p str,
    method: &Method,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<(Place, &'p str, &'p str), Problem> {
    if let Some(rest) = path.strip_prefix("/v1/kv/") {
        let is_watch = |headers| method == Method::GET && accepts_events(headers);
        return Ok(match rest.split_once('/') {
            Some((bucket, "watch")) if is_watch(headers) => (Place::Watch, bucket, ""),
            Some((bucket, key)) => (Place::Key, bucket, key),
            None if rest == "batch" && method == Method::POST => (Place::Batch, "", ""),
            None if has_watch(query) && is_watch(headers) => (Place::Watch, rest, ""),
            None => (Place::Bucket, rest, ""),
        });
    }
    let place = match path {
        "/v1/conflicts" => Place::Conflicts,
        "/v1/held" => Place::Held,
        "/v1/held/drop" => Place::HeldDrop,
        "/v1/store" => Place::Store,
        "/v1/openapi.json" => Place::OpenApi,
        _ => {
            let error = "there is nothing here: keys are at /v1/kv/BUCKET/KEY, and GET /v1/openapi.json says what \
                         else there is";
            return Err(Problem::new(StatusCode::NOT_FOUND, error, shorten(path)));
        }
    };
    Ok((place, "", ""))
}

fn has_watch(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair == "watch" || pair.starts_with("watch=")))
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| essence(one) == "text/event-stream")
}

/// A media type without its parameters.
fn essence(value: &str) -> Cow<'_, str> {
    let essence = value.split(';').next().unwrap_or_default().trim();
    match essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => essence.to_ascii_lowercase().into(),
        false => essence.into(),
    }
}

fn media_type(headers: &HeaderMap) -> Cow<'_, str> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    essence(value.unwrap_or_default())
}

fn check_patch_type(headers: &HeaderMap) -> Result<(), Problem> {
    let found = media_type(headers);
    if matches!(&*found, "application/merge-patch+json" | "application/json") {
        return Ok(());
    }
    let error = format!(
        "a patch is a JSON merge patch (RFC 7396), `Content-Type: application/merge-patch+json`, found `{}`",
        shorten(&found)
    );
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error, "header Content-Type"))
}

fn not_allowed(place: Place, method: &Method) -> Problem {
    let there = ROUTES.iter().filter(|route| route.place == place).map(|route| route.method);
    let allowed = there.collect::<Vec<_>>().join(", ");
    let error = format!("{} takes {allowed}, not {}", place.path(), shorten(method.as_str()));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, error, "method").with(header::ALLOW, allowed)
}

/// Whether an application may use a bucket of this name.
pub(super) fn check_bucket(bucket: &str, at: &str) -> Result<(), Problem> {
    Key::check_bucket(bucket).map_err(|error| Problem::bad(error.to_string(), at))?;
    if bucket.starts_with('.') {
        let error = format!("buckets that begin with a dot are the store's own, found `{bucket}`");
        return Err(Problem::bad(error, at));
    }
    Ok(())
}

fn bucket_of(text: &str) -> Result<String, Problem> {
    let bucket = decode(text, false, "path, the bucket")?;
    check_bucket(&bucket, "path, the bucket")?;
    Ok(bucket.into_owned())
}

fn key_of(bucket: &str, key: &str) -> Result<Key, Problem> {
    let bucket = decode(bucket, false, "path, the bucket")?;
    let key = decode(key, false, "path, the key")?;
    check_bucket(&bucket, "path, the bucket")?;
    Key::new(&bucket, &key).map_err(|error| match error {
        BadKey::Length(0) => Problem::bad(
            "a key has at least one byte; the bucket itself has no slash behind it",
            "path, the key",
        ),
        _ => Problem::bad(error.to_string(), "path, the key"),
    })
}

fn list(bucket: String, query: &Query<'_>) -> Result<Call, Problem> {
    if query.get("watch").is_some() {
        return Err(Problem::bad("a watch takes `Accept: text/event-stream`", "query `watch`"));
    }
    let prefix = query.text("prefix");
    if query.flag("count", false)? {
        if let Some(other) = ["after", "limit", "values"].into_iter().find(|name| query.get(name).is_some()) {
            let error = format!("count says how many keys there are in all: it does not go with {other}");
            return Err(Problem::bad(error, format!("query `{other}`")));
        }
        return Ok(Call::Count { bucket, prefix });
    }
    let after = query.get("after").map(ToOwned::to_owned);
    Ok(Call::List { bucket, prefix, after, limit: query.limit()?, values: query.flag("values", true)? })
}

fn seen(headers: &HeaderMap) -> Result<Option<Heads>, Problem> {
    let at = "header Last-Event-ID";
    match one(headers, &HeaderName::from_static("last-event-id"), at)? {
        None => Ok(None),
        Some("") => Err(Problem::bad(
            "expected the id of an event, found nothing: leave the header out to begin now",
            at,
        )),
        Some(NOTHING) => Ok(Some(Heads::default())),
        Some(text) => text.parse().map(Some).map_err(|error: super::super::heads::NotHeads| {
            Problem::bad(format!("{error}: it is the id of the last event that was seen"), at)
        }),
    }
}

/// The one value of a header.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName, at: &str) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad("the header is given twice", at));
    }
    let text = value.to_str().map_err(|_| Problem::bad("expected ASCII text", at))?;
    Ok(Some(text.trim()))
}

/// What the headers say must be so.
fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let is = one(headers, &header::IF_MATCH, "header If-Match")?;
    let is_not = one(headers, &header::IF_NONE_MATCH, "header If-None-Match")?;
    match (is, is_not) {
        (None, None) => Ok(Condition::None),
        (Some("*"), None) => Ok(Condition::Exists),
        (Some(tag), None) => stamp(tag, "header If-Match").map(Condition::Is),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(tag)) => stamp(tag, "header If-None-Match").map(Condition::IsNot),
        (Some(_), Some(_)) => {
            Err(Problem::bad("give If-Match or If-None-Match, not both", "header If-None-Match"))
        }
    }
}

fn stamp(tag: &str, at: &str) -> Result<Stamp, Problem> {
    if tag.starts_with("W/") {
        return Err(Problem::bad("stamps are strong: take ETag as it is, without `W/`", at));
    }
    if tag.contains(',') {
        return Err(Problem::bad("give one stamp: a list of them is not taken", at));
    }
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        let error = format!("a stamp is in double quotes, as in ETag, found `{}`", shorten(tag));
        return Err(Problem::bad(error, at));
    };
    inner.parse().map_err(|error: super::super::stamp::NotAStamp| Problem::bad(error.to_string(), at))
}
