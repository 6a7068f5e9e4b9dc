//! Datagrams. A socket for each core shares the port. On a wildcard address each reply leaves from the address that was
//! asked: the system tells it with the datagram, and is told it with the reply.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::impaired::Pause;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::{Peer, Responder, Transport};

/// The largest query that is read over UDP; what is longer is not a query.
const QUERY_BYTES_MAX: usize = 4096;
/// Datagrams answered before other tasks get a turn.
const TURN: usize = 64;
/// After an error of receive: a pause, so as not to spin.
const PAUSE: Duration = Duration::from_millis(1);
/// Answers that a drill makes late, at once: those beyond are lost, as in a queue that is full.
const LATE_MAX: usize = 10_000;
/// Room for a burst while a core is busy elsewhere.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Sockets that share one address.
///
/// # Errors
/// When the address cannot be had.
pub(super) fn bind(address: SocketAddr, both_families: bool, count: usize) -> io::Result<Vec<UdpSocket>> {
    // Without sharing first: two processes that share a port would take each other's queries, and nobody would be told.
    drop(open(address, both_families, false)?);
    (0..count)
        .map(|_| {
            let socket: std::net::UdpSocket = open(address, both_families, true)?.into();
            if address.ip().is_unspecified() {
                if address.is_ipv4() {
                    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
                } else {
                    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                }
            }
            UdpSocket::from_std(socket)
        })
        .collect()
}

pub(super) fn open(address: SocketAddr, both_families: bool, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    socket.set_reuse_port(is_shared)?;
    // What the system gives of it is enough.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A datagram that has come.
struct Received {
    length: usize,
    source: SockaddrStorage,
    asked: Option<Asked>,
}

/// The address that was asked, as the system told it.
#[derive(Clone, Copy)]
enum Asked {
    V4(Ipv4Addr),
    V6(Ipv6Addr, u32),
}

/// Serves a socket until dropped.
pub(super) async fn serve(socket: UdpSocket, responder: Arc<Responder>) {
    let socket = Arc::new(socket);
    let mut late = JoinSet::new();
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    let mut control = nix::cmsg_space!(in6_pktinfo, in_pktinfo);
    loop {
        if let Err(error) = socket.readable().await {
            tracing::debug!(%error, "waiting for DNS datagrams");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        for _ in 0..TURN {
            let received = socket.try_io(Interest::READABLE, || receive(&socket, &mut buffer, &mut control));
            let received = match received {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Errors here belong to single datagrams (an ICMP from an earlier answer): the socket lives on.
                Err(error) => {
                    tracing::debug!(%error, "receiving a DNS datagram");
                    break;
                }
            };
            let Some(source) = address(&received.source) else { continue };
            let pause = responder.impaired().next();
            if pause == Pause::UntilWell {
                continue;
            }
            let Some(reply) =
                responder.respond(&buffer[..received.length], Peer::new(source, Transport::Udp))
            else {
                continue;
            };
            if pause == Pause::None {
                answer(&socket, &reply, &received, &responder);
            } else if late.len() < LATE_MAX {
                let (socket, responder) = (Arc::clone(&socket), Arc::clone(&responder));
                late.spawn(async move {
                    responder.impaired().wait(pause).await;
                    answer(&socket, &reply, &received, &responder);
                });
            }
        }
        while late.try_join_next().is_some() {}
        tokio::task::yield_now().await;
    }
}

fn answer(socket: &UdpSocket, reply: &[u8], received: &Received, responder: &Responder) {
    if let Err(error) = send(socket, reply, received) {
        // Dropped, as a datagram may be: waiting would hold up the others.
        responder.metrics().send_errors.inc();
        tracing::debug!(%error, "sending a DNS datagram");
    }
}

fn address(source: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = source.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| source.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn receive(socket: &UdpSocket, buffer: &mut [u8], control: &mut [u8]) -> io::Result<Received> {
    let mut into = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut into, Some(control), MsgFlags::empty())?;
    let mut asked = None;
    for told in message.cmsgs()? {
        match told {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                asked = Some(Asked::V4(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // The way back is for the routing table to choose, but where an address says nothing without its link.
                let interface = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                asked = Some(Asked::V6(address, interface));
            }
            _ => {}
        }
    }
    let source = message.address.ok_or_else(|| io::Error::other("a datagram from nowhere"))?;
    Ok(Received { length: message.bytes, source, asked })
}

fn send(socket: &UdpSocket, reply: &[u8], to: &Received) -> io::Result<()> {
    let from = [IoSlice::new(reply)];
    let fd = socket.as_raw_fd();
    let v4;
    let v6;
    let control = match to.asked {
        None => None,
        Some(Asked::V4(asked)) => {
            let s_addr = u32::from_ne_bytes(asked.octets());
            v4 = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr },
                ipi_addr: in_addr { s_addr: 0 },
            };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some(Asked::V6(asked, interface)) => {
            v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: asked.octets() }, ipi6_ifindex: interface };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
    };
    let sent = socket.try_io(Interest::WRITABLE, || {
        Ok(sendmsg(fd, &from, control.as_slice(), MsgFlags::empty(), Some(&to.source))?)
    });
    sent.map(|_| ())
}
