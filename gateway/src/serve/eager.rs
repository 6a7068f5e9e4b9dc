//! A connection that is tried before it is waited for: most have sent their request when they are accepted, and one that is
//! over after its first reply was never waited for. That saves the system calls that register it, and take it back.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Such a connection.
#[derive(Debug)]
pub(super) enum Eager {
    /// Tried; it does not block.
    Tried(StdStream),
    /// Waited for.
    Waited(TcpStream),
    /// Between the two, or lost on the way.
    Lost,
}

impl Eager {
    /// From now on it is waited for.
    fn wait(&mut self) -> io::Result<&mut TcpStream> {
        if let Eager::Tried(_) = self
            && let Eager::Tried(stream) = std::mem::replace(self, Eager::Lost)
        {
            *self = Eager::Waited(TcpStream::from_std(stream)?);
        }
        match self {
            Eager::Waited(stream) => Ok(stream),
            Eager::Tried(_) | Eager::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn is_to_wait<T>(tried: &io::Result<T>) -> bool {
    matches!(tried, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Eager {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Eager::Tried(stream) = &mut *self {
            let tried = stream.read(buffer.initialize_unfilled());
            if !is_to_wait(&tried) {
                return Poll::Ready(tried.map(|read| buffer.advance(read)));
            }
        }
        Pin::new(self.wait()?).poll_read(context, buffer)
    }
}

impl AsyncWrite for Eager {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Eager::Tried(stream) = &mut *self {
            let tried = stream.write(bytes);
            if !is_to_wait(&tried) {
                return Poll::Ready(tried);
            }
        }
        Pin::new(self.wait()?).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Eager::Tried(stream) => Poll::Ready(stream.shutdown(std::net::Shutdown::Write)),
            Eager::Waited(stream) => Pin::new(stream).poll_shutdown(context),
            Eager::Lost => Poll::Ready(Ok(())),
        }
    }
}
