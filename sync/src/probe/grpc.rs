//! The standard health check of gRPC (`grpc.health.v1.Health/Check`), spoken by hand: two messages of one field each.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};

use daemun_fleet::config::GrpcCheck;
use daemun_fleet::shorten;
use h2::RecvStream;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, TE, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::tls::{self, Roots};
use super::{cause, connect};
use crate::health::Outcome;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The answer is two bytes behind five; a later version may say more.
const ANSWER_BYTES_MAX: usize = 1024;
/// More than any server's headers and trailers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;

/// `HealthCheckResponse.ServingStatus`, by number.
const SERVING: u64 = 1;
const SERVING_NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// The status codes of gRPC, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) async fn probe(address: IpAddr, check: &GrpcCheck, roots: &Roots) -> Outcome {
    let stream = connect(address, check.port).await?;
    match &check.tls_name {
        None => ask(stream, &format!("http://{}", SocketAddr::new(address, check.port)), check).await,
        Some(name) => {
            let stream = tls::handshake(stream, name, b"h2", roots).await?;
            ask(stream, &format!("https://{name}:{}", check.port), check).await
        }
    }
}

async fn ask<S>(stream: S, origin: &str, check: &GrpcCheck) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = Request::post(format!("{origin}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, super::USER_AGENT)
        .body(())
        .map_err(|error| format!("cannot ask {origin}: {error}"))?;
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEADERS_BYTES_MAX);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|error| broken(&error))?;
    let conversation = async {
        let mut sender = sender.ready().await.map_err(|error| broken(&error))?;
        let (response, mut body) = sender.send_request(request, false).map_err(|error| broken(&error))?;
        body.send_data(frame(&check.service), true).map_err(|error| broken(&error))?;
        let (head, body) = response.await.map_err(|error| broken(&error))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("answered with HTTP status {}", head.status.as_u16()));
        }
        // An error may come without a body, its status in the head.
        if head.headers.contains_key(GRPC_STATUS) {
            judge_status(&head.headers)?;
        }
        judge_body(body).await
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

fn broken(error: &h2::Error) -> String {
    format!("no HTTP/2: {}", error.get_io().map_or_else(|| cause(error), super::said))
}

async fn judge_body(mut body: RecvStream) -> Outcome {
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| broken(&error))?;
        if answer.len() + data.len() > ANSWER_BYTES_MAX {
            return Err("answered with more than a health check has to say".to_owned());
        }
        answer.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.map_err(|error| broken(&error))?;
    judge_status(&trailers.unwrap_or_default())?;
    match status(&answer) {
        Some(SERVING) => Ok(()),
        Some(other) => {
            let name = usize::try_from(other).ok().and_then(|other| SERVING_NAMES.get(other));
            Err(name
                .map_or_else(|| format!("answered with health {other}"), |name| format!("answered {name}")))
        }
        None => Err("answered with what is no health message".to_owned()),
    }
}

fn judge_status(headers: &HeaderMap) -> Outcome {
    let Some(status) = headers.get(GRPC_STATUS) else {
        return Err("answered without a gRPC status".to_owned());
    };
    let status = String::from_utf8_lossy(status.as_bytes());
    let name = status.parse::<usize>().ok().and_then(|number| CODES.get(number)).unwrap_or(&"UNKNOWN");
    if *name == "OK" {
        return Ok(());
    }
    let why = headers.get(GRPC_MESSAGE).map(|why| shorten(&String::from_utf8_lossy(why.as_bytes())));
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    Err(format!("answered with gRPC status {} ({name}){why}", shorten(&status)))
}

/// `HealthCheckRequest { string service = 1; }`, framed: not compressed, length, message.
fn frame(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length > 0x7f {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("the config keeps the name short");
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

/// Field 1 of a framed `HealthCheckResponse { ServingStatus status = 1; }`; 0 if it is not there.
fn status(framed: &[u8]) -> Option<u64> {
    let (head, mut rest) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().expect("four of five"));
    if head[0] != 0 || usize::try_from(length) != Ok(rest.len()) {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let skipped = match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(status)
}

/// Seven bits a byte, lowest first.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_name_has_a_length_of_two_bytes() {
        let framed = frame(&"a".repeat(200));
        assert_eq!(framed[..8], [0, 0, 0, 0, 203, 10, 0xc8, 1]);
        assert_eq!(framed.len(), 5 + 203);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(any::<u8>(), 0..32), is_framed: bool) {
            let head = if is_framed { vec![0, 0, 0, 0, message.len() as u8] } else { Vec::new() };
            status(&[head, message].concat());
        }
    }
}
