//! Conditional requests: RFC 9110 section 13.

use std::time::UNIX_EPOCH;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    NotModified,
    Failed,
}

/// Weighs the conditions in the order of section 13.2.2, but for the range.
pub(super) fn weigh(headers: &HeaderMap, tag: &HeaderValue, modified_unix: Option<u64>) -> Verdict {
    if headers.contains_key(header::IF_MATCH) {
        if !is_among(headers, &header::IF_MATCH, tag, false) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(headers, &header::IF_UNMODIFIED_SINCE)
        && modified_unix.is_none_or(|modified| modified > since)
    {
        return Verdict::Failed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if is_among(headers, &header::IF_NONE_MATCH, tag, true) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date(headers, &header::IF_MODIFIED_SINCE)
        && modified_unix.is_some_and(|modified| modified <= since)
    {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// `If-Range`: whether what the client has a part of is what there is. A date is not believed: two versions may be of one second.
pub(super) fn is_unchanged(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|known| known == tag)
}

/// Whether a tag is in a list; `*` is any. To compare strongly, both must be strong (section 8.8.3.2).
fn is_among(headers: &HeaderMap, name: &HeaderName, tag: &HeaderValue, is_weak: bool) -> bool {
    let (bare, is_strong) = match tag.as_bytes().strip_prefix(b"W/") {
        Some(bare) => (bare, false),
        None => (tag.as_bytes(), true),
    };
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).any(|one| {
        one == b"*"
            || match (is_weak, one.strip_prefix(b"W/")) {
                (true, stripped) => stripped.unwrap_or(one) == bare,
                (false, stripped) => is_strong && stripped.is_none() && one == bare,
            }
    })
}

/// A date, seconds of Unix time; one that is none is passed over.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let date = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
