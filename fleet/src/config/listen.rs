//! Where to listen, in words that mean the same in every datacenter.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Datacenter;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address or addresses.
    pub host: ListenHost,
    /// The port.
    pub port: u16,
}

/// The host part of where to listen. One config serves all datacenters, so what is not everywhere has a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenHost {
    /// This address.
    Address(IpAddr),
    /// `datacenter`: every address of the datacenter that the process runs in.
    Datacenter,
    /// `agent`: the address in the `agent` URL of that datacenter, or everywhere if there is a name.
    Agent,
}

impl Listen {
    /// The sockets to bind in this datacenter.
    pub fn sockets(self, datacenter: &Datacenter) -> Vec<SocketAddr> {
        let at = |address| SocketAddr::new(address, self.port);
        match self.host {
            ListenHost::Address(address) => vec![at(address)],
            ListenHost::Datacenter => datacenter.addresses.iter().map(|&address| at(address)).collect(),
            ListenHost::Agent => vec![at(match datacenter.agent.host() {
                Some(url::Host::Ipv4(v4)) => v4.into(),
                Some(url::Host::Ipv6(v6)) => v6.into(),
                Some(url::Host::Domain(_)) | None => Ipv6Addr::UNSPECIFIED.into(),
            })],
        }
    }
}
