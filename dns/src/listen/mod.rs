//! The sockets: UDP, TCP, and the three encrypted transports. They read, hand over, and write back; they decide
//! nothing but who is let in.

mod https;
mod proxy;
mod quic;
mod stream;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::connections::{Caps, Connections, Place, Tally};
use daemun_fleet::tls::TlsIdentity;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::{Metrics, Peer, Responder, Transport};

/// Of TCP, and of TLS. A connection holds at most a query that is not whole yet and the answers of one wake, 192 KiB, in all
/// 192 MiB. Slow or idle it holds what it has sent and 4 KiB (64 KiB with TLS), until [`stream::IDLE`] ends it.
const STREAM_CAPS: Caps = Caps { total: 1024, per_client: 128 };
/// Of HTTPS, and of QUIC, whose connections hold [`STREAMS_MAX`] queries and answers at once: at most 1.1 MiB, in all 560 MiB.
const MULTIPLEXED_CAPS: Caps = Caps { total: 512, per_client: 32 };
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Queries at once on one connection of HTTPS or QUIC.
const STREAMS_MAX: u32 = 16;
/// The longest query that is taken over HTTPS or QUIC, where many come at once; none is nearly so long.
const QUERY_BYTES_MAX: usize = 8 * 1024;
/// UDP sockets for one address: more than cores does not help.
const UDP_SOCKETS_MAX: usize = 16;
/// For a PROXY header, and for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a client may take to end a connection that it was told is over.
const FAREWELL: Duration = Duration::from_secs(1);
/// After an error of accept (out of files): a pause, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a transport, counted.
#[derive(Debug)]
struct OfTransport {
    transport: Transport,
    metrics: Metrics,
}

impl Tally for OfTransport {
    fn open(&self, count: usize) {
        let gauge = self.metrics.connections.with_label_values(&[self.transport.name()]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn closed(&self, reason: &'static str) {
        self.metrics.connections_closed.with_label_values(&[self.transport.name(), reason]).inc();
    }
}

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

/// Where to listen.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// UDP and TCP.
    pub plain: Vec<SocketAddr>,
    /// DNS over TLS.
    pub tls: Vec<SocketAddr>,
    /// DNS over HTTPS.
    pub https: Vec<SocketAddr>,
    /// DNS over QUIC.
    pub quic: Vec<SocketAddr>,
}

/// Bound sockets, not yet served.
#[derive(Debug)]
pub struct Listeners {
    udp: Vec<UdpSocket>,
    tcp: Vec<(Transport, TcpListener)>,
    quic: Vec<std::net::UdpSocket>,
}

impl Listeners {
    /// Binds every address. Call it within a runtime.
    ///
    /// # Errors
    /// The first address that cannot be had, and what to do about it.
    pub fn bind(addresses: &Addresses) -> Result<Self, ListenError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(UDP_SOCKETS_MAX);
        let mut listeners = Self { udp: Vec::new(), tcp: Vec::new(), quic: Vec::new() };
        for &address in &addresses.plain {
            let both = takes_both_families(address, &addresses.plain);
            let udp = udp::bind(address, both, cores);
            listeners.udp.extend(udp.map_err(|error| ListenError::new(address, "UDP", error))?);
        }
        let streams = [
            (Transport::Tcp, &addresses.plain),
            (Transport::Tls, &addresses.tls),
            (Transport::Https, &addresses.https),
        ];
        for (transport, all) in streams {
            for &address in all {
                let tcp = bind_tcp(address, takes_both_families(address, all));
                let tcp = tcp.map_err(|error| ListenError::new(address, "TCP", error))?;
                listeners.tcp.push((transport, tcp));
            }
        }
        for &address in &addresses.quic {
            let socket = udp::open(address, takes_both_families(address, &addresses.quic), false);
            let socket = socket.map(std::net::UdpSocket::from);
            listeners.quic.push(socket.map_err(|error| ListenError::new(address, "UDP", error))?);
        }
        Ok(listeners)
    }

    /// Serves until dropped. `identity` is what the encrypted transports show; without one they are not served.
    ///
    /// # Errors
    /// When TLS or QUIC cannot be set up.
    pub async fn serve(
        self,
        responder: Arc<Responder>,
        identity: Option<Arc<TlsIdentity>>,
    ) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(udp::serve(socket, Arc::clone(&responder)));
        }
        let connections = |transport| {
            let is_multiplexed = matches!(transport, Transport::Https | Transport::Quic);
            let caps = if is_multiplexed { MULTIPLEXED_CAPS } else { STREAM_CAPS };
            Connections::new(caps, OfTransport { transport, metrics: responder.metrics().clone() })
        };
        let of_tcp = connections(Transport::Tcp);
        let of_tls = connections(Transport::Tls);
        let of_https = connections(Transport::Https);
        for (transport, listener) in self.tcp {
            let (protocols, connections): (&[&[u8]], _) = match transport {
                Transport::Tls => (&[b"dot"], &of_tls),
                Transport::Https => (&[b"h2", b"http/1.1"], &of_https),
                _ => (&[], &of_tcp),
            };
            let tls = match (&identity, protocols) {
                (_, []) => None,
                (Some(identity), protocols) => {
                    let config = identity.server(protocols).map_err(io::Error::other)?;
                    Some(TlsAcceptor::from(Arc::new(config)))
                }
                (None, _) => continue,
            };
            let door = Door {
                transport,
                tls,
                responder: Arc::clone(&responder),
                connections: Arc::clone(connections),
            };
            tasks.spawn(accept(listener, Arc::new(door)));
        }
        let of_quic = connections(Transport::Quic);
        for socket in self.quic {
            let Some(identity) = &identity else { continue };
            let endpoint = quic::endpoint(socket, identity)?;
            tasks.spawn(quic::serve(endpoint, Arc::clone(&responder), Arc::clone(&of_quic)));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a DNS listener ended");
            }
        }
        Ok(())
    }
}

/// `[::]` takes IPv4 too, unless `0.0.0.0` is listened on at the same port.
fn takes_both_families(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let is_v4_wildcard =
        |other: &SocketAddr| other.port() == address.port() && other.is_ipv4() && other.ip().is_unspecified();
    address.is_ipv6() && address.ip().is_unspecified() && !all.iter().any(is_v4_wildcard)
}

fn bind_tcp(address: SocketAddr, both_families: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// One listener's way in.
struct Door {
    transport: Transport,
    tls: Option<TlsAcceptor>,
    responder: Arc<Responder>,
    connections: Arc<Connections>,
}

async fn accept(listener: TcpListener, door: Arc<Door>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, source)) => {
                    let address = source.ip().to_canonical();
                    let client = (!door.has_header(address)).then_some(address);
                    let place = Arc::new(door.connections.admit(client, door.responder.now_ms()));
                    let door = Arc::clone(&door);
                    tasks.spawn(async move {
                        let served = tokio::select! {
                            served = door.serve(stream, address, &place) => served,
                            // Whatever it is doing: its place is another's now.
                            () = place.ended() => Ok(()),
                        };
                        if let Err(error) = served {
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

impl Door {
    async fn serve(&self, mut stream: TcpStream, source: IpAddr, place: &Arc<Place>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let client = timeout(HANDSHAKE, self.client(&mut stream, source, place)).await;
        let client = client.inspect_err(|_| place.closed("idle"))??;
        let peer = Peer::new(client, self.transport);
        let Some(tls) = &self.tls else {
            return stream::serve(&mut stream, peer, place, &self.responder).await;
        };
        let secured = timeout(HANDSHAKE, tls.accept(stream)).await;
        let mut secured = secured.inspect_err(|_| place.closed("idle"))??;
        if self.transport == Transport::Https {
            https::serve(secured, peer, Arc::clone(place), Arc::clone(&self.responder)).await;
            return Ok(());
        }
        let served = stream::serve(&mut secured, peer, place, &self.responder).await;
        // So that the client knows that nothing was cut off.
        let _ = timeout(FAREWELL, secured.shutdown()).await;
        served
    }

    /// Whether connections from an address begin with who the client is.
    fn has_header(&self, source: IpAddr) -> bool {
        self.transport != Transport::Https && self.responder.is_proxy(source)
    }

    /// Who the client is: a listed proxy says it first.
    async fn client(&self, stream: &mut TcpStream, source: IpAddr, place: &Place) -> io::Result<IpAddr> {
        if !self.has_header(source) {
            return Ok(source);
        }
        let client = proxy::read(stream).await.inspect_err(|_| place.closed("malformed"))?;
        let client = client.unwrap_or(source);
        place.belongs_to(client);
        Ok(client)
    }
}
