//! DNS messages over a stream, each behind its length: TCP (RFC 7766) and TLS (RFC 7858).
//!
//! All queries that one wake brings are answered with one write. An answer never waits for anything, so answers leave
//! in the order of the queries, and none holds up another. A client has a time for each whole query: a byte now and
//! then does not keep a connection.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use daemun_fleet::connections::Place;
use daemun_fleet::impaired::Pause;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::wire::HEADER_BYTES;
use crate::{Peer, Responder};

/// A client that sends no whole query for so long is dropped (RFC 7766 section 6.2.3 asks for seconds; the keepalive
/// option says the same).
pub(super) const IDLE: Duration = Duration::from_secs(crate::responder::KEEPALIVE_TENTHS as u64 / 10);
/// Answering must not wait for a client that does not read.
const WRITE: Duration = Duration::from_secs(5);
/// How long and how often what nobody wants is read before a close.
const LINGER: Duration = Duration::from_millis(500);
const DRAIN_READS: usize = 16;
/// Room made before a read.
const READ_BYTES: usize = 4096;
/// Answers are written when there are so many bytes of them, if the wake brings more queries still.
const WRITE_BYTES: usize = 64 * 1024;

/// Serves a stream until its client ends it, or gives reason to.
pub(super) async fn serve<S>(
    stream: &mut S,
    peer: Peer,
    place: &Place,
    responder: &Responder,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::new();
    let mut output: Vec<u8> = Vec::new();
    let idle = sleep(IDLE);
    tokio::pin!(idle);
    loop {
        let mut is_over = false;
        while let Some(query) = next_message(&mut input) {
            let pause = responder.impaired().next();
            if pause != Pause::None {
                // What is answered already goes out first.
                write(stream, &mut output).await?;
                // Who has left meanwhile does not keep its place for as long as the drill lasts.
                if timeout(IDLE, responder.impaired().wait(pause)).await.is_err() {
                    place.closed("idle");
                    return Ok(());
                }
            }
            let reply = (query.len() >= HEADER_BYTES).then(|| responder.respond(&query, peer)).flatten();
            let Some(reply) = reply else {
                // Not a query, or a response: whoever sends these has lost its way.
                place.closed("malformed");
                is_over = true;
                break;
            };
            place.touch(responder.now_ms());
            idle.set(sleep(IDLE));
            output.extend(u16::try_from(reply.len()).map_err(io::Error::other)?.to_be_bytes());
            output.extend(reply);
            if output.len() >= WRITE_BYTES {
                write(stream, &mut output).await?;
            }
        }
        write(stream, &mut output).await?;
        if is_over {
            // What it has sent besides is taken in: closing on it would take back the answers that are on their way.
            let _ = timeout(LINGER, drain(stream)).await;
            return Ok(());
        }
        input.reserve(READ_BYTES);
        tokio::select! {
            read = stream.read_buf(&mut input) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            () = &mut idle => {
                place.closed("idle");
                return Ok(());
            }
        }
    }
}

/// Ends our side, then reads to the end of the other's, within bounds.
async fn drain<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut nowhere = [0; READ_BYTES];
    for _ in 0..DRAIN_READS {
        if stream.read(&mut nowhere).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// All answers of a wake at once: length and message in one segment (RFC 7766 section 8).
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, output: &mut Vec<u8>) -> io::Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    timeout(WRITE, async {
        stream.write_all(output).await?;
        stream.flush().await
    })
    .await??;
    output.clear();
    output.shrink_to(READ_BYTES);
    Ok(())
}

/// The next whole message, if it is there.
fn next_message(input: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes([*input.first()?, *input.get(1)?]));
    if input.len() < 2 + length {
        return None;
    }
    input.advance(2);
    Some(input.split_to(length))
}
