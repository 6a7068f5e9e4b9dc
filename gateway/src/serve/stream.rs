//! A stream whose client has to do its part: begin within a time, and take what it is sent.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// To send enough that one can see what it is to be: the preface of HTTP/2, or the beginning of a request.
const BEGIN: Duration = Duration::from_secs(10);
/// Bytes of that preface; from there on the protocols have their own times.
const BEGIN_BYTES: usize = 24;
/// To take a part of what waits to be sent.
const STALL: Duration = Duration::from_secs(20);

/// Such a stream.
#[derive(Debug)]
pub(super) struct Willing<S> {
    stream: S,
    read_bytes: usize,
    begins: Option<Pin<Box<Sleep>>>,
    takes: Option<Pin<Box<Sleep>>>,
}

impl<S> Willing<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, read_bytes: 0, begins: None, takes: None }
    }

    /// Watches over a write.
    fn written<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.takes = None;
            return polled;
        }
        let takes = self.takes.get_or_insert_with(|| Box::pin(sleep(STALL)));
        match takes.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(late("the client takes nothing of what it is sent"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Willing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.read_bytes >= BEGIN_BYTES {
            return polled;
        }
        self.read_bytes += buffer.filled().len() - before;
        if self.read_bytes >= BEGIN_BYTES {
            self.begins = None;
        }
        if polled.is_ready() {
            return polled;
        }
        let begins = self.begins.get_or_insert_with(|| Box::pin(sleep(BEGIN)));
        match begins.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(late("the client does not begin"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Willing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.written(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
