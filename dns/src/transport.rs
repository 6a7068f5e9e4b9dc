//! How a query came.

use std::net::IpAddr;

/// A way that queries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams: the asker's address can be forged, and an answer has little room.
    Udp,
    /// A TCP connection (RFC 7766).
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

impl Transport {
    /// Label value.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Https => "https",
            Transport::Quic => "quic",
        }
    }

    /// Nobody on the way can read along, so the length of an answer is worth hiding.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Transport::Tls | Transport::Https | Transport::Quic)
    }

    /// A stream of DNS messages that can be told how long it may idle (RFC 7828; QUIC and HTTP have their own ways).
    pub fn has_keepalive(self) -> bool {
        matches!(self, Transport::Tcp | Transport::Tls)
    }
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address the query came from.
    pub address: IpAddr,
    /// The way it came.
    pub transport: Transport,
}

impl Peer {
    /// IPv4 in IPv6 clothes becomes IPv4.
    pub fn new(address: IpAddr, transport: Transport) -> Self {
        Self { address: address.to_canonical(), transport }
    }
}
