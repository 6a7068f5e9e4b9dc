//! DNS over QUIC (RFC 9250): one query and its answer for each stream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::connections::{Connections, Place};
use daemun_fleet::tls::TlsIdentity;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, TransportConfig, VarInt,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::stream::IDLE;
use super::{QUERY_BYTES_MAX, STREAMS_MAX};
use crate::wire::{self, HEADER_BYTES, Read};
use crate::{Peer, Responder, Transport};

/// Its name in TLS.
const PROTOCOL: &[u8] = b"doq";
/// A handshake takes a few round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Length and message.
const STREAM_BYTES_MAX: usize = 2 + QUERY_BYTES_MAX;
/// What all streams of a connection may hold unread.
const CONNECTION_BYTES_MAX: u32 = 128 * 1024;
/// Answering must not wait for a client that does not read.
const WRITE: Duration = Duration::from_secs(5);
/// From so many connections on, newcomers show first that their address is their own.
const UNPROVEN_MAX: usize = 64;

/// Why a connection or a stream is ended (RFC 9250 section 4.3).
const NO_ERROR: VarInt = VarInt::from_u32(0);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);

/// Takes a socket over.
pub(super) fn endpoint(socket: std::net::UdpSocket, identity: &Arc<TlsIdentity>) -> io::Result<Endpoint> {
    let tls = identity.server(&[PROTOCOL]).map_err(io::Error::other)?;
    let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(VarInt::from_u32(STREAM_BYTES_MAX as u32))
        .receive_window(CONNECTION_BYTES_MAX.into())
        .max_idle_timeout(Some(IDLE.try_into().map_err(io::Error::other)?));
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(Arc::new(transport));
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)
}

/// Serves an endpoint until dropped.
pub(super) async fn serve(endpoint: Endpoint, responder: Arc<Responder>, connections: Arc<Connections>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                if tasks.len() >= UNPROVEN_MAX && !incoming.remote_address_validated() {
                    // Could only fail for those that have been through this.
                    let _ = incoming.retry();
                    continue;
                }
                let place = connections.admit(Some(incoming.remote_address().ip()), responder.now_ms());
                let responder = Arc::clone(&responder);
                tasks.spawn(async move {
                    tokio::select! {
                        () = serve_connection(incoming, &place, responder) => {}
                        // Its place is another's now; dropped, it is closed.
                        () = place.ended() => {}
                    }
                });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn serve_connection(incoming: Incoming, place: &Place, responder: Arc<Responder>) {
    let source = incoming.remote_address();
    let connection = match timeout(HANDSHAKE, incoming.into_future()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, %source, "a QUIC handshake"),
        Err(_) => return place.closed("idle"),
    };
    serve_streams(&connection, source, place, &responder).await;
}

async fn serve_streams(
    connection: &Connection,
    source: SocketAddr,
    place: &Place,
    responder: &Arc<Responder>,
) {
    let peer = Peer::new(source.ip(), Transport::Quic);
    let mut queries: JoinSet<Result<bool, VarInt>> = JoinSet::new();
    let idle = tokio::time::sleep(IDLE);
    tokio::pin!(idle);
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    queries.spawn(answer(send, receive, peer, Arc::clone(responder)));
                }
                Err(_) => return, // closed
            },
            Some(ended) = queries.join_next() => match ended {
                Ok(Err(code)) => {
                    place.closed("malformed");
                    return connection.close(code, b"");
                }
                Ok(Ok(true)) => {
                    place.touch(responder.now_ms());
                    idle.set(tokio::time::sleep(IDLE));
                }
                Ok(Ok(false)) => {} // a stream without a query is no activity
                Err(error) => tracing::error!(%error, "answering over QUIC"),
            },
            // Pings keep a path open, not a place.
            () = &mut idle => {
                place.closed("idle");
                return connection.close(NO_ERROR, b"");
            }
        }
    }
}

/// One stream: a query, then its answer; whether there was one. An error ends the connection with its code.
async fn answer(
    mut send: SendStream,
    mut receive: RecvStream,
    peer: Peer,
    responder: Arc<Responder>,
) -> Result<bool, VarInt> {
    // The whole stream is one message; a client that does not end it has time for that.
    let message = match timeout(IDLE, receive.read_to_end(STREAM_BYTES_MAX)).await {
        Ok(Ok(message)) => message,
        Ok(Err(quinn::ReadToEndError::TooLong)) => return Err(PROTOCOL_ERROR),
        Ok(Err(quinn::ReadToEndError::Read(_))) | Err(_) => return Ok(false),
    };
    let query = message.get(2..).filter(|query| query.len() >= HEADER_BYTES).ok_or(PROTOCOL_ERROR)?;
    let is_whole = usize::from(u16::from_be_bytes([message[0], message[1]])) == query.len();
    // The stream tells queries apart: numbers are 0 (section 4.2.1), and connections have their own keepalive
    // (section 5.5.2).
    let is_numbered = query[..2] != [0, 0];
    let has_keepalive = match wire::read(query) {
        Read::Query(query) => query.head.options().is_some_and(|options| options.keepalive.is_some()),
        _ => false,
    };
    if !is_whole || is_numbered || has_keepalive {
        return Err(PROTOCOL_ERROR);
    }
    responder.impaired().wait(responder.impaired().next()).await;
    let reply = responder.respond(query, peer).ok_or(PROTOCOL_ERROR)?;
    let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes()[..], &reply].concat();
    if let Ok(Ok(())) = timeout(WRITE, send.write_all(&framed)).await {
        let _ = send.finish();
    }
    Ok(true)
}
