//! Requests and replies, whichever of two ways they come and go: through hyper, or straight from and to the bytes of
//! HTTP/1.1. What is answered is decided once, on these.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::body::Body;

/// The header fields of a request.
pub trait Fields {
    /// All values of a name, in lower case, in their order.
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]>;

    /// The first value.
    fn first<'a>(&'a self, name: &'static str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Whether there is any.
    fn has(&self, name: &'static str) -> bool {
        self.first(name).is_some()
    }
}

impl Fields for HeaderMap {
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// As they stand in the bytes of a request.
impl Fields for [httparse::Header<'_>] {
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

/// A request, without its body, which is never looked at.
#[derive(Debug)]
pub struct Asked<'a, F: ?Sized> {
    /// The method.
    pub method: &'a Method,
    /// The version.
    pub version: Version,
    /// Host and port in the target: of HTTP/2, of a proxy's request.
    pub authority: Option<&'a str>,
    /// The path.
    pub path: &'a str,
    /// The query.
    pub query: Option<&'a str>,
    /// The header fields.
    pub fields: &'a F,
}

impl<'a> Asked<'a, HeaderMap> {
    /// As hyper has read it.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let uri = request.uri();
        Self {
            method: request.method(),
            version: request.version(),
            authority: uri.authority().map(hyper::http::uri::Authority::as_str),
            path: uri.path(),
            query: uri.query(),
            fields: request.headers(),
        }
    }
}

/// Header fields of replies, made ahead in both forms.
#[derive(Clone, Debug, Default)]
pub struct Head(Arc<Prepared>);

#[derive(Debug, Default)]
struct Prepared {
    fields: HeaderMap,
    /// `name: value` and the end of a line, of each.
    lines: Bytes,
}

impl Head {
    /// Of these fields.
    pub fn new(fields: HeaderMap) -> Self {
        let mut lines = BytesMut::new();
        for (name, value) in &fields {
            write_field(&mut lines, name, value);
        }
        Self(Arc::new(Prepared { fields, lines: lines.freeze() }))
    }

    /// The fields.
    pub fn fields(&self) -> &HeaderMap {
        &self.0.fields
    }
}

fn write_field(to: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    to.extend_from_slice(name.as_str().as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value.as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Fields made ahead.
    pub head: Head,
    /// Fields of this one reply, none of which is in the head.
    pub more: Vec<(HeaderName, HeaderValue)>,
    /// What it carries.
    pub body: Body,
}

impl Reply {
    /// A status, and nothing else.
    pub fn new(status: StatusCode) -> Self {
        Self { status, head: Head::default(), more: Vec::new(), body: Body::Nothing }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.push((name, value));
        self
    }

    /// For hyper, which sends whatever body there is: to HEAD none, though its length is said (RFC 9110 section 9.3.2).
    pub fn into_response(self, is_head: bool) -> Response<Body> {
        let length = match &self.body {
            Body::Whole(bytes) if is_head => Some(bytes.len()),
            _ => None,
        };
        let mut response = Response::new(if is_head { Body::Nothing } else { self.body });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.head.0.fields.clone();
        for (name, value) in self.more {
            response.headers_mut().append(name, value);
        }
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        response
    }

    /// Writes status and fields as HTTP/1.1 has them (RFC 9112 section 2.1), the empty line included, and gives the body that
    /// is to follow.
    pub(crate) fn write_head(
        &self,
        to: &mut BytesMut,
        date: &[u8],
        closes: bool,
        is_head: bool,
    ) -> Option<&Bytes> {
        self.write_fields(to);
        let body = match &self.body {
            Body::Whole(bytes) => Some(bytes),
            Body::Nothing | Body::Events(_) => None,
        };
        // RFC 9110 section 8.6: neither has content, and 204 must not say so.
        if !matches!(self.status, StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT) {
            to.extend_from_slice(b"content-length: ");
            to.extend_from_slice(itoa::Buffer::new().format(body.map_or(0, Bytes::len)).as_bytes());
            to.extend_from_slice(b"\r\n");
        }
        to.extend_from_slice(b"date: ");
        to.extend_from_slice(date);
        to.extend_from_slice(if closes { b"\r\nconnection: close\r\n\r\n" } else { b"\r\n\r\n" });
        body.filter(|_| !is_head)
    }

    /// The same for a body in pieces, which are chunks or go on to the end.
    pub(crate) fn write_stream_head(&self, to: &mut BytesMut, date: &[u8], is_chunked: bool) {
        self.write_fields(to);
        if is_chunked {
            to.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        to.extend_from_slice(b"date: ");
        to.extend_from_slice(date);
        to.extend_from_slice(b"\r\nconnection: close\r\n\r\n");
    }

    fn write_fields(&self, to: &mut BytesMut) {
        match self.status {
            StatusCode::OK => to.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            StatusCode::NOT_MODIFIED => to.extend_from_slice(b"HTTP/1.1 304 Not Modified\r\n"),
            other => {
                to.extend_from_slice(b"HTTP/1.1 ");
                to.extend_from_slice(other.as_str().as_bytes());
                to.extend_from_slice(b" ");
                to.extend_from_slice(other.canonical_reason().unwrap_or("Status").as_bytes());
                to.extend_from_slice(b"\r\n");
            }
        }
        to.extend_from_slice(&self.head.0.lines);
        for (name, value) in &self.more {
            write_field(to, name, value);
        }
    }
}
