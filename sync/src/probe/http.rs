//! A GET, judged by status, header and body. Redirects are answers: they are not followed.

use std::future::pending;
use std::net::IpAddr;

use daemun_fleet::config::{HeaderCheck, HttpCheck};
use daemun_fleet::shorten;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use url::{Position, Url};

use super::tls::{self, Roots};
use super::{cause, connect};
use crate::health::Outcome;

/// What is kept of an answer's head: more than any server sends.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What is read of a body to find the text in it.
const BODY_BYTES_MAX: usize = 64 << 10;

pub(super) async fn probe(address: IpAddr, check: &HttpCheck, roots: &Roots) -> Outcome {
    let url = &check.url;
    let stream = connect(address, url.port_or_known_default().unwrap_or(80)).await?;
    if url.scheme() != "https" {
        return exchange(stream, check).await;
    }
    // Where the URL has an address, the one that is probed must be in the certificate.
    let name = check.tls_name.as_deref().or(url.domain());
    let name = name.map_or_else(|| address.to_string(), str::to_owned);
    exchange(tls::handshake(stream, &name, b"http/1.1", roots).await?, check).await
}

async fn exchange<S>(stream: S, check: &HttpCheck) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let request = Request::get(&check.url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, host(&check.url))
        .header(USER_AGENT, super::USER_AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("cannot ask for {}: {error}", shorten(check.url.as_str())))?;
    let mut builder = http1::Builder::new();
    let handshake = builder.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| cause(&error))?;
    let conversation = async {
        let response = sender.send_request(request).await.map_err(|error| cause(&error))?;
        let status = response.status().as_u16();
        if !check.status.contains(&status) {
            return Err(format!("answered with status {status}"));
        }
        if let Some(header) = &check.header {
            has_header(response.headers(), header)?;
        }
        match &check.body {
            Some(text) => contains(response.into_body(), text).await,
            None => Ok(()),
        }
    };
    // What goes wrong with the connection, the conversation is told.
    let connection = async {
        let _ = connection.await;
        pending().await
    };
    tokio::select! {
        outcome = conversation => outcome,
        outcome = connection => outcome,
    }
}

/// The Host header that a user would send.
fn host(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

fn has_header(headers: &HeaderMap, wanted: &HeaderCheck) -> Outcome {
    let name = &wanted.name;
    let mut found = headers.get_all(name.as_str()).iter().peekable();
    let Some(first) = found.peek().copied() else { return Err(format!("the header `{name}` is missing")) };
    match &wanted.value {
        Some(value) if !found.any(|found| found.as_bytes().trim_ascii() == value.as_bytes()) => {
            let first = String::from_utf8_lossy(first.as_bytes());
            Err(format!("the header `{name}` is `{}`, not `{}`", shorten(&first), shorten(value)))
        }
        _ => Ok(()),
    }
}

async fn contains(mut body: Incoming, text: &str) -> Outcome {
    let text = text.as_bytes();
    let mut read = Vec::new();
    while read.len() < BODY_BYTES_MAX {
        let Some(frame) = body.frame().await else {
            return Err(format!("the body lacks `{}`", shorten(&String::from_utf8_lossy(text))));
        };
        let frame = frame.map_err(|error| format!("the body broke off: {}", cause(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        // Only what is new, and what of the text may have come before it.
        let from = read.len().saturating_sub(text.len() - 1);
        read.extend_from_slice(&data[..data.len().min(BODY_BYTES_MAX - read.len())]);
        if read[from..].windows(text.len()).any(|window| window == text) {
            return Ok(());
        }
    }
    Err(format!("the first 64 KiB of the body lack `{}`", shorten(&String::from_utf8_lossy(text))))
}
