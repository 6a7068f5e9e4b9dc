//! A body of HTTP that is written while it is sent, by a task that lives in it and ends with it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// Messages that wait to be sent: the window of the stream is what bounds them.
const WAITING: usize = 4;

/// The body.
pub(super) struct Streamed {
    frames: mpsc::Receiver<Bytes>,
    writer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Streamed {
    /// A body whose frames `write` sends.
    pub(super) fn new<F: Future<Output = ()> + Send + 'static>(
        write: impl FnOnce(mpsc::Sender<Bytes>) -> F,
    ) -> Self {
        let (sender, frames) = mpsc::channel(WAITING);
        Self { frames, writer: Some(Box::pin(write(sender))) }
    }

    /// A body of frames that are sent from elsewhere.
    pub(super) fn of(frames: mpsc::Receiver<Bytes>) -> Self {
        Self { frames, writer: None }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(writer) = &mut self.writer
            && writer.as_mut().poll(context).is_ready()
        {
            self.writer = None;
        }
        self.frames.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
