//! What an answer carries: bytes that are there, or events as they come.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// The body of an answer.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing, or nothing more.
    #[default]
    Nothing,
    /// All of it.
    Whole(Bytes),
    /// One piece after the other, until there is no next.
    Events(Events),
}

/// Pieces that are waited for.
pub struct Events {
    next: Next,
    /// Lives as long as there are pieces to come.
    kept: Option<Arc<()>>,
}

/// The next piece and what comes after it; none: it is over.
pub(crate) type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Events)>> + Send>>;

impl Events {
    pub(crate) fn new(next: impl Future<Output = Option<(Bytes, Events)>> + Send + 'static) -> Self {
        Self { next: Box::pin(next), kept: None }
    }

    /// The next piece; none: it is over.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let (piece, rest) = self.next.as_mut().await?;
        self.next = rest.next;
        Some(piece)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

impl Body {
    /// Keeps something as long as pieces are to come.
    #[must_use]
    pub(crate) fn keeping(mut self, kept: Arc<()>) -> Self {
        if let Body::Events(events) = &mut self {
            events.kept = Some(kept);
        }
        self
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Body::Nothing } else { Body::Whole(bytes) }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Body::Nothing => None,
            Body::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Body::Nothing;
                Some(bytes)
            }
            Body::Events(events) => match ready!(events.next.as_mut().poll(context)) {
                Some((piece, mut rest)) => {
                    rest.kept = events.kept.take();
                    *self = Body::Events(rest);
                    Some(piece)
                }
                None => {
                    *self = Body::Nothing;
                    None
                }
            },
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Nothing => SizeHint::with_exact(0),
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Events(_) => SizeHint::default(),
        }
    }
}
