//! Something that is sent as it is: made ahead of requests, with every form it is sent in, so that a request only picks one.
//! Conditional requests (RFC 9110 section 13), ranges (section 14) and content coding (section 12.5.3) are decided here.

mod coding;
mod condition;

use bytes::Bytes;
use http_body_util::Full;
use http_range_header::parse_range_header;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};

pub use coding::{Coding, Effort};
use condition::Verdict;

/// Below this a coded form saves no packet.
const CODED_BYTES_MIN: usize = 256;

/// One form.
#[derive(Clone, Debug)]
struct Form {
    coding: Option<Coding>,
    body: Bytes,
    /// Strong: other bytes, other tag.
    tag: HeaderValue,
}

/// The whole of it.
#[derive(Clone, Debug)]
pub struct Asset {
    kind: HeaderValue,
    cache: HeaderValue,
    modified_unix: u64,
    modified: HeaderValue,
    plain: Form,
    coded: Vec<Form>,
}

impl Asset {
    /// Of a media type, to be cached as `cache` says, modified then (seconds of Unix time). Codes it, which takes milliseconds:
    /// not in a request.
    pub fn new(
        kind: &'static str,
        cache: &'static str,
        body: Bytes,
        modified_unix: u64,
        effort: Effort,
    ) -> Self {
        let digest = digest(&body);
        let tag = |coding: Option<Coding>| {
            let end = coding.map_or(String::new(), |coding| format!("-{}", coding.name()));
            let quoted = Bytes::from(format!("\"{digest}{end}\""));
            HeaderValue::from_maybe_shared(quoted).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
        };
        let worth_it = coding::pays(kind) && body.len() >= CODED_BYTES_MIN;
        let coded = Coding::ALL.into_iter().filter(|_| worth_it).map(|coding| {
            let form =
                Form { coding: Some(coding), body: coding.encode(&body, effort), tag: tag(Some(coding)) };
            (form.body.len() < body.len()).then_some(form)
        });
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified_unix);
        Self {
            kind: HeaderValue::from_static(kind),
            cache: HeaderValue::from_static(cache),
            modified_unix,
            modified: HeaderValue::from_maybe_shared(Bytes::from(httpdate::fmt_http_date(date)))
                .unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT")),
            coded: coded.flatten().collect(),
            plain: Form { coding: None, tag: tag(None), body },
        }
    }

    /// Its bytes, as they were given.
    pub fn body(&self) -> &Bytes {
        &self.plain.body
    }

    /// When it was modified, seconds of Unix time.
    pub fn modified_unix(&self) -> u64 {
        self.modified_unix
    }

    /// The answer to GET or HEAD with these headers.
    pub fn answer(&self, method: &Method, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let form = self.form(headers);
        let (status, body, range) = match condition::weigh(headers, &form.tag, self.modified_unix) {
            Verdict::Failed => (StatusCode::PRECONDITION_FAILED, Bytes::new(), None),
            Verdict::NotModified => (StatusCode::NOT_MODIFIED, Bytes::new(), None),
            Verdict::Send => match self.range(method, headers, form) {
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
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::ETAG, form.tag.clone());
        headers.insert(header::CACHE_CONTROL, self.cache.clone());
        if !self.coded.is_empty() {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            headers.insert(header::CONTENT_TYPE, self.kind.clone());
            headers.insert(header::LAST_MODIFIED, self.modified.clone());
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            if let Some(coding) = form.coding {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            }
        }
        response
    }

    /// The form a client wants: of those it likes best the smallest.
    fn form(&self, headers: &HeaderMap) -> &Form {
        // A part of a coded form is of use to nobody who has not the rest of that very form.
        if self.coded.is_empty() || headers.contains_key(header::RANGE) {
            return &self.plain;
        }
        let accepted = coding::Accepted::of(headers);
        let forms = self.coded.iter().chain([&self.plain]);
        let liking = |form: &&Form| (accepted.quality(form.coding), std::cmp::Reverse(form.body.len()));
        forms.filter(|form| accepted.quality(form.coding) > 0).max_by_key(liking).unwrap_or(&self.plain)
    }

    fn range(&self, method: &Method, headers: &HeaderMap, form: &Form) -> Range {
        let mut ranges = headers.get_all(header::RANGE).iter();
        let (Some(asked), None, &Method::GET) = (ranges.next(), ranges.next(), method) else {
            return Range::Whole;
        };
        if !condition::is_unchanged(headers, &form.tag) {
            return Range::Whole;
        }
        // What is not understood is passed over (section 14.2), and so are several parts at once.
        let Some(parsed) = asked.to_str().ok().and_then(|asked| parse_range_header(asked).ok()) else {
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
            Err(_) if asked.as_bytes().contains(&b',') => Range::Whole,
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
