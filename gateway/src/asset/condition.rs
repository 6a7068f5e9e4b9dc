//! Conditional requests: RFC 9110 section 13.

use std::time::UNIX_EPOCH;

use hyper::header::HeaderValue;

use crate::message::Fields;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    NotModified,
    Failed,
}

/// Weighs the conditions in the order of section 13.2.2, but for the range.
pub(super) fn weigh(
    fields: &(impl Fields + ?Sized),
    tag: &HeaderValue,
    modified_unix: Option<u64>,
) -> Verdict {
    if fields.has("if-match") {
        if !is_among(fields, "if-match", tag, false) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(fields, "if-unmodified-since")
        && modified_unix.is_some_and(|modified| modified > since)
    {
        return Verdict::Failed;
    }
    if fields.has("if-none-match") {
        if is_among(fields, "if-none-match", tag, true) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date(fields, "if-modified-since")
        && modified_unix.is_some_and(|modified| modified <= since)
    {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// `If-Range`: whether what the client has a part of is what there is. A date is not believed: two versions may be of one second.
pub(super) fn is_unchanged(fields: &(impl Fields + ?Sized), tag: &HeaderValue) -> bool {
    fields.first("if-range").is_none_or(|known| known == tag.as_bytes())
}

/// Whether a tag is in a list; `*` is any. To compare strongly, both must be strong (section 8.8.3.2).
fn is_among(fields: &(impl Fields + ?Sized), name: &'static str, tag: &HeaderValue, is_weak: bool) -> bool {
    let (bare, is_strong) = match tag.as_bytes().strip_prefix(b"W/") {
        Some(bare) => (bare, false),
        None => (tag.as_bytes(), true),
    };
    fields.values(name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).any(
        |one| {
            one == b"*"
                || match (is_weak, one.strip_prefix(b"W/")) {
                    (true, stripped) => stripped.unwrap_or(one) == bare,
                    (false, stripped) => is_strong && stripped.is_none() && one == bare,
                }
        },
    )
}

/// A date, seconds of Unix time; one that is none is passed over.
fn date(fields: &(impl Fields + ?Sized), name: &'static str) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(fields.first(name)?).ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
