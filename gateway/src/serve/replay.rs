//! A connection without a network: what a client that sends some bytes gets back at once. For fuzzing and for the curious.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use daemun_fleet::connections::Connections;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::CAPS;
use super::http1::{Left, serve};
use crate::Door;

/// What a connection gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Every byte that was sent back.
    pub replies: Vec<u8>,
    /// It began as HTTP/2.
    pub is_http2: bool,
}

/// Sends bytes of HTTP/1.1, in pieces as they are, to a door. What takes its time (a watch, a long poll) gives what it gives at
/// once.
pub fn replay(door: &Arc<Door>, peer: IpAddr, pieces: &[&[u8]]) -> Replayed {
    let place = Connections::new(CAPS, door.metrics.clone()).admit(Some(peer), door.now_ms());
    let mut stream = Pieces { rest: pieces, read: 0, replies: Vec::new() };
    thread_local! {
        // For its timers, of which none ever ends here.
        static RUNTIME: io::Result<Runtime> = Builder::new_current_thread().enable_time().build();
    }
    let left = RUNTIME.with(|runtime| {
        let _within = runtime.as_ref().ok().map(Runtime::enter);
        let mut serving = pin!(serve(&mut stream, peer, &place, door, false));
        // It gives way to others now and then, and is woken at once.
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let polled = serving.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() || !woken.0.swap(false, Ordering::Relaxed) {
                break polled;
            }
        }
    });
    Replayed { is_http2: matches!(left, Poll::Ready(Ok(Left::Http2(_)))), replies: stream.replies }
}

/// Whether it is to be polled again.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is sent, a piece for each read; after the last the client is silent.
struct Pieces<'a> {
    rest: &'a [&'a [u8]],
    /// Bytes of the first that were read.
    read: usize,
    replies: Vec<u8>,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some((first, others)) = self.rest.split_first() {
            let left = &first[self.read.min(first.len())..];
            let part = &left[..left.len().min(buffer.remaining())];
            self.read += part.len();
            buffer.put_slice(part);
            if self.read >= first.len() {
                (self.rest, self.read) = (others, 0);
            }
            if !part.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.replies.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
