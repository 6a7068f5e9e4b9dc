//! The sockets: UDP and TCP. They read, hand over, and write back; they decide nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Responder;
use crate::metrics::Transport;
use crate::wire;

/// The largest query that is read over UDP; what is longer is not a query.
const UDP_QUERY_MAX: usize = 4096;
/// TCP connections at once over all listeners: bounds memory (each holds at most one query and one answer, 128 KiB).
const TCP_CONNECTIONS_MAX: usize = 1024;
/// A TCP client that sends nothing for so long is dropped (RFC 7766 section 6.2.3 asks for seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answering must not wait for a client that does not read.
const TCP_WRITE: Duration = Duration::from_secs(5);
/// After an error of receive: a pause, so as not to spin.
const RECEIVE_PAUSE: Duration = Duration::from_millis(1);
/// After an error of accept (out of files): a pause, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a DNS listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("dns: cannot listen on {address} ({transport}): {error}{hint}")]
pub struct ListenError {
    address: SocketAddr,
    transport: &'static str,
    error: io::Error,
    hint: String,
}

impl ListenError {
    fn new(address: SocketAddr, transport: &'static str, error: io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let list = if transport == "UDP" { "ss -ulpn" } else { "ss -tlpn" };
                format!("; another process has it: `{list} 'sport = :{}'` shows which", address.port())
            }
            io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
            io::ErrorKind::AddrNotAvailable => "; this machine does not have the address".to_owned(),
            _ => String::new(),
        };
        Self { address, transport, error, hint }
    }
}

/// Bound sockets, not yet served.
#[derive(Debug)]
pub struct Listeners {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Listeners {
    /// Binds UDP and TCP on every address.
    ///
    /// # Errors
    /// The first address that cannot be had, and what to do about it.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let mut listeners = Self { udp: Vec::new(), tcp: Vec::new() };
        for &address in addresses {
            let udp =
                UdpSocket::bind(address).await.map_err(|error| ListenError::new(address, "UDP", error))?;
            let tcp =
                TcpListener::bind(address).await.map_err(|error| ListenError::new(address, "TCP", error))?;
            listeners.udp.push(udp);
            listeners.tcp.push(tcp);
        }
        Ok(listeners)
    }

    /// Serves until dropped.
    pub async fn serve(self, responder: Arc<Responder>) {
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(socket, Arc::clone(&responder)));
        }
        let connections = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
        for listener in self.tcp {
            tasks.spawn(serve_tcp(listener, Arc::clone(&responder), Arc::clone(&connections)));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a DNS listener ended");
            }
        }
    }
}

async fn serve_udp(socket: UdpSocket, responder: Arc<Responder>) {
    let mut buffer = vec![0; UDP_QUERY_MAX];
    loop {
        // Errors here belong to single datagrams (an ICMP from an earlier answer): the socket lives on.
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receiving a DNS datagram");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                continue;
            }
        };
        let answer = responder.respond(&buffer[..length], wire::source(source.ip()), Transport::Udp);
        if let Some(answer) = answer
            && let Err(error) = socket.send_to(&answer, source).await
        {
            tracing::debug!(%error, %source, "sending a DNS datagram");
        }
    }
}

async fn serve_tcp(listener: TcpListener, responder: Arc<Responder>, connections: Arc<Semaphore>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, source)) => {
                    // Over the cap the newcomer is dropped; it may ask again.
                    let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
                    let responder = Arc::clone(&responder);
                    tasks.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = serve_connection(stream, source, &responder).await {
                            tracing::debug!(%error, %source, "a DNS connection");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a DNS connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    source: SocketAddr,
    responder: &Responder,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut query = Vec::new();
    loop {
        let mut length = [0; 2];
        // One deadline for a whole query: a byte now and then does not keep a connection.
        let read = async {
            stream.read_exact(&mut length).await?;
            query.resize(usize::from(u16::from_be_bytes(length)), 0);
            stream.read_exact(&mut query).await
        };
        match timeout(TCP_IDLE, read).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        let Some(answer) = responder.respond(&query, wire::source(source.ip()), Transport::Tcp) else {
            return Ok(());
        };
        // Length and message in one write (RFC 7766 section 8).
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend(length.to_be_bytes());
        framed.extend(answer);
        timeout(TCP_WRITE, stream.write_all(&framed)).await??;
    }
}
