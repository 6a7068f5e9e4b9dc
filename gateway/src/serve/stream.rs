//! A stream of which some is read already, and whose client has to take what it is sent.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use daemun_fleet::connections::Place;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::about_now_ms;
use crate::Door;

/// To take a part of what waits to be sent.
const STALL: Duration = Duration::from_secs(20);

/// Such a stream.
#[derive(Debug)]
pub(super) struct Willing<S> {
    read: BytesMut,
    stream: S,
    takes: Option<Pin<Box<Sleep>>>,
    place: Arc<Place>,
    door: Arc<Door>,
}

impl<S> Willing<S> {
    /// These bytes come before what the stream still has.
    pub(super) fn new(read: BytesMut, stream: S, place: Arc<Place>, door: Arc<Door>) -> Self {
        Self { read, stream, takes: None, place, door }
    }

    /// Watches over a write.
    fn written<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.takes = None;
            self.place.touch(about_now_ms(&self.door));
            return polled;
        }
        let takes = self.takes.get_or_insert_with(|| Box::pin(sleep(STALL)));
        match takes.as_mut().poll(context) {
            Poll::Ready(()) => {
                let late = "the client takes nothing of what it is sent";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Willing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let part = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..part]);
        self.read.advance(part);
        Poll::Ready(Ok(()))
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
