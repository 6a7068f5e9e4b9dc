//! A connection that is tried before it is waited for: most have sent their request when they are accepted, and one that is
//! over after its first reply was never waited for. That saves the system calls that register it, and take it back.
//!
//! System calls go straight to the system (rustix): the C library's are points where a thread could be cancelled, which takes
//! a fiftieth of a request.

use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
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

fn receive(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(stream, buffer, RecvFlags::empty())?.1)
}

fn transmit(stream: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(stream, bytes, SendFlags::NOSIGNAL)?)
}

fn is_to_wait<T>(tried: &io::Result<T>) -> bool {
    matches!(tried, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted))
}

impl AsyncRead for Eager {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        if let Eager::Tried(stream) = &*self {
            let tried = receive(stream, room);
            if !is_to_wait(&tried) {
                return Poll::Ready(tried.map(|read| buffer.advance(read)));
            }
        }
        let stream = self.wait()?;
        loop {
            ready!(stream.poll_read_ready(context))?;
            let mut read = None;
            let tried = stream.try_io(Interest::READABLE, || {
                let count = receive(&*stream, room)?;
                read = Some(count);
                // Less than there is room for is all there was: what comes later will be told. A call less than to be told
                // that there is nothing.
                if count > 0 && count < room.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, tried) {
                (Some(count), _) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                (None, tried) if is_to_wait(&tried) => {}
                (None, tried) => return Poll::Ready(tried),
            }
        }
    }
}

impl AsyncWrite for Eager {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Eager::Tried(stream) = &*self {
            let tried = transmit(stream, bytes);
            if !is_to_wait(&tried) {
                return Poll::Ready(tried);
            }
        }
        let stream = self.wait()?;
        loop {
            ready!(stream.poll_write_ready(context))?;
            let tried = stream.try_io(Interest::WRITABLE, || transmit(&*stream, bytes));
            if !is_to_wait(&tried) {
                return Poll::Ready(tried);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = match &*self {
            Eager::Tried(stream) => shutdown(stream, Shutdown::Write),
            Eager::Waited(stream) => shutdown(stream, Shutdown::Write),
            Eager::Lost => Ok(()),
        };
        match ended {
            // The other end was first.
            Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended.map_err(io::Error::from)),
        }
    }
}
