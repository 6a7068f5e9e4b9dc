//! Something that is sent as it is: made ahead of requests, with every form it is sent in, so that a request only picks one.
//! Conditional requests (RFC 9110 section 13), ranges (section 14) and content coding (section 12.5.3) are decided here.

mod coding;
mod condition;

use bytes::Bytes;
use http_range_header::parse_range_header;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use crate::body::Body;
use crate::message::{Fields, Head, Reply};
pub use coding::{Coding, Effort};
use condition::Verdict;

/// Below this a coded form saves no packet.
const CODED_BYTES_MIN: usize = 256;

/// One form, with the heads of its replies made ahead.
#[derive(Clone, Debug)]
struct Form {
    coding: Option<Coding>,
    body: Bytes,
    /// Strong, unless the asset is [`Asset::alike`]: other bytes, other tag.
    tag: HeaderValue,
    /// Of the whole of it.
    head: Head,
    /// Of a reply without it (304, 412, 416): RFC 9110 section 15.4.5.
    brief: Head,
}

/// The whole of it.
#[derive(Clone, Debug)]
pub struct Asset {
    /// None: when it was modified is not worth saying.
    modified_unix: Option<u64>,
    plain: Form,
    coded: Vec<Form>,
}

/// What an asset is.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its media type.
    pub media_type: &'static str,
    /// What `Cache-Control` says of it.
    pub cache: &'static str,
    /// What coding it may cost.
    pub effort: Effort,
}

impl Asset {
    /// Modified then, seconds of Unix time. Codes it, which takes milliseconds: not in a request.
    pub fn new(kind: &Kind, body: Bytes, modified_unix: u64) -> Self {
        Self::made(kind, &format!("\"{}", digest(&body)), body, Some(modified_unix))
    }

    /// One whose bytes differ from time to time without a difference that matters: those that do not differ have the same
    /// `likeness`, of which the (weak) tag is made.
    pub fn alike(kind: &Kind, body: Bytes, likeness: &[u8]) -> Self {
        Self::made(kind, &format!("W/\"{}", digest(likeness)), body, None)
    }

    fn made(kind: &Kind, tag: &str, body: Bytes, modified_unix: Option<u64>) -> Self {
        let is_coded = kind.effort != Effort::None && body.len() >= CODED_BYTES_MIN;
        let worth_it = is_coded && coding::pays(kind.media_type);
        let coded = Coding::ALL.into_iter().filter(|_| worth_it).filter_map(|coding| {
            let coded = coding.encode(&body, kind.effort);
            (coded.len() < body.len()).then_some((coding, coded))
        });
        let coded: Vec<(Coding, Bytes)> = coded.collect();
        let varies = !coded.is_empty();
        let form = |coding: Option<Coding>, body: Bytes| {
            let end = coding.map_or(String::new(), |coding| format!("-{}", coding.name()));
            let tag = value(format!("{tag}{end}\""));
            let mut brief = HeaderMap::new();
            brief.insert(header::ETAG, tag.clone());
            brief.insert(header::CACHE_CONTROL, HeaderValue::from_static(kind.cache));
            // Who may read it depends on whose page asks, whether this one says so or not.
            let vary = if varies { "accept-encoding, origin" } else { "origin" };
            brief.insert(header::VARY, HeaderValue::from_static(vary));
            let mut head = brief.clone();
            head.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.media_type));
            if let Some(seconds) = modified_unix {
                let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
                head.insert(header::LAST_MODIFIED, value(httpdate::fmt_http_date(date)));
                head.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            }
            if let Some(coding) = coding {
                head.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            }
            Form { coding, body, tag, head: Head::new(head), brief: Head::new(brief) }
        };
        Self {
            modified_unix,
            coded: coded.into_iter().map(|(coding, body)| form(Some(coding), body)).collect(),
            plain: form(None, body),
        }
    }

    /// The same, sent with these headers too.
    #[must_use]
    pub fn with_headers<'a>(&self, headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Self {
        let mut asset = self.clone();
        let added: Vec<_> = headers.collect();
        for form in asset.coded.iter_mut().chain([&mut asset.plain]) {
            for head in [&mut form.head, &mut form.brief] {
                let mut fields = head.fields().clone();
                for (name, value) in &added {
                    fields.insert(*name, (*value).clone());
                }
                *head = Head::new(fields);
            }
        }
        asset
    }

    /// Its bytes, as they were given.
    pub fn body(&self) -> &Bytes {
        &self.plain.body
    }

    /// When it was modified, seconds of Unix time.
    pub fn modified_unix(&self) -> u64 {
        self.modified_unix.unwrap_or_default()
    }

    /// What stands in `ETag` for who takes no coding.
    pub fn tag(&self) -> &HeaderValue {
        &self.plain.tag
    }

    /// Memory that its forms take, in bytes.
    pub fn bytes(&self) -> usize {
        self.coded.iter().chain([&self.plain]).map(|form| form.body.len()).sum()
    }

    /// The reply to GET or HEAD with these fields.
    pub fn answer(&self, method: &Method, fields: &(impl Fields + ?Sized)) -> Reply {
        let form = self.form(fields);
        let (status, body, range) = match condition::weigh(fields, &form.tag, self.modified_unix) {
            Verdict::Failed => (StatusCode::PRECONDITION_FAILED, Bytes::new(), None),
            Verdict::NotModified => (StatusCode::NOT_MODIFIED, Bytes::new(), None),
            Verdict::Send => match self.range(method, fields, form) {
                Range::Whole => (StatusCode::OK, form.body.clone(), None),
                Range::Part(first, last) => {
                    let range = format!("bytes {first}-{last}/{}", form.body.len());
                    (StatusCode::PARTIAL_CONTENT, form.body.slice(first..=last), Some(range))
                }
                Range::OutOfBounds => {
                    let range = format!("bytes */{}", form.body.len());
                    (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), Some(range))
                }
            },
        };
        let head = match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => form.head.clone(),
            StatusCode::NOT_MODIFIED => form.brief.clone(),
            _ => {
                // What holds for this request alone must not be kept for others.
                let mut fields = form.brief.fields().clone();
                fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Head::new(fields)
            }
        };
        let more = range.map(|range| (header::CONTENT_RANGE, value(range))).into_iter().collect();
        Reply { status, head, more, body: Body::from(body) }
    }

    /// The same as what is sent when nothing was found: whole, whatever the conditions, and not to be kept.
    pub fn missing(&self, method: &Method, fields: &(impl Fields + ?Sized)) -> Reply {
        let accepted: HeaderMap = fields
            .values("accept-encoding")
            .filter_map(|value| Some((header::ACCEPT_ENCODING, HeaderValue::from_bytes(value).ok()?)))
            .collect();
        let mut reply = self.answer(method, &accepted);
        reply.status = StatusCode::NOT_FOUND;
        let mut fields = reply.head.fields().clone();
        for of_found in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
            fields.remove(of_found);
        }
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        reply.head = Head::new(fields);
        reply
    }

    /// The form a client wants: of those it likes best the smallest.
    fn form(&self, fields: &(impl Fields + ?Sized)) -> &Form {
        // A part of a coded form is of use to nobody who has not the rest of that very form.
        if self.coded.is_empty() || fields.has("range") {
            return &self.plain;
        }
        let accepted = coding::Accepted::of(fields);
        let forms = self.coded.iter().chain([&self.plain]);
        let liking = |form: &&Form| (accepted.quality(form.coding), std::cmp::Reverse(form.body.len()));
        forms.filter(|form| accepted.quality(form.coding) > 0).max_by_key(liking).unwrap_or(&self.plain)
    }

    fn range(&self, method: &Method, fields: &(impl Fields + ?Sized), form: &Form) -> Range {
        let mut ranges = fields.values("range");
        if self.modified_unix.is_none() {
            return Range::Whole;
        }
        let (Some(asked), None, &Method::GET) = (ranges.next(), ranges.next(), method) else {
            return Range::Whole;
        };
        if !condition::is_unchanged(fields, &form.tag) {
            return Range::Whole;
        }
        // What is not understood is passed over (section 14.2), and so are several parts at once.
        let Some(parsed) = std::str::from_utf8(asked).ok().and_then(|asked| parse_range_header(asked).ok())
        else {
            return Range::Whole;
        };
        let size = form.body.len() as u64;
        match parsed.validate(size) {
            Ok(parts) => match parts.as_slice() {
                [part] => match (usize::try_from(*part.start()), usize::try_from(*part.end())) {
                    (Ok(first), Ok(last)) if first <= last && last < form.body.len() => {
                        Range::Part(first, last)
                    }
                    _ => Range::Whole,
                },
                _ => Range::Whole,
            },
            Err(_) if asked.contains(&b',') => Range::Whole,
            // The last so many bytes of fewer are all of them (section 14.1.2).
            Err(_) if asked.starts_with(b"bytes=-") && size > 0 => Range::Part(0, form.body.len() - 1),
            Err(_) => Range::OutOfBounds,
        }
    }
}

/// Which part is sent.
enum Range {
    Whole,
    Part(usize, usize),
    OutOfBounds,
}

/// What we have written ourselves, as the value of a header.
fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// So much of a hash that no two versions of a file meet.
pub(crate) fn digest(body: &[u8]) -> String {
    use std::hash::Hasher as _;

    use siphasher::sip128::{Hasher128 as _, SipHasher13};
    let mut hasher = SipHasher13::new();
    hasher.write(body);
    format!("{:032x}", hasher.finish128().as_u128())
}

#[cfg(test)]
mod tests;
