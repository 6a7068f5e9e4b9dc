//! The EDNS client subnet (RFC 7871).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use daemun_fleet::Client;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Length of `::ffff:0:0/96`, the clothes of IPv4-mapped addresses.
const MAPPED_LEN: u8 = 96;

/// The client subnet of a query, to be echoed as it came.
#[derive(Clone, Debug)]
pub struct Subnet {
    net: IpNet,
    /// The option as it came: FAMILY, SOURCE, SCOPE, ADDRESS.
    raw: Vec<u8>,
}

impl Subnet {
    /// SOURCE PREFIX-LENGTH.
    pub fn source_len(&self) -> u8 {
        self.net.prefix_len()
    }

    /// The client it stands for.
    pub fn client(&self) -> Client {
        Client::prefix(self.net)
    }

    /// SCOPE PREFIX-LENGTH of an answer to the client it stands for: of an IPv4 client in IPv6 clothes the scope counts
    /// from the start of the clothes.
    pub fn scope(&self, scope: u8) -> u8 {
        match (self.net, self.client().first_address()) {
            (IpNet::V6(_), IpAddr::V4(_)) if scope > 0 => scope + MAPPED_LEN,
            _ => scope,
        }
    }

    /// The option of an answer: all as it came but SCOPE (RFC 7871 section 7.2.1).
    pub(super) fn echo(&self, scope: u8) -> Vec<u8> {
        let mut echo = self.raw.clone();
        echo[3] = scope;
        echo
    }

    /// Reads an option strictly (RFC 7871 section 6): `None` means FORMERR.
    pub(super) fn read(raw: &[u8]) -> Option<Self> {
        let [family_high, family_low, source, scope, address @ ..] = raw else { return None };
        if *scope != 0 || address.len() != usize::from(source.div_ceil(8)) {
            return None;
        }
        let net = match u16::from_be_bytes([*family_high, *family_low]) {
            1 => {
                let mut octets = [0; 4];
                octets.get_mut(..address.len())?.copy_from_slice(address);
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from(octets), *source).ok()?)
            }
            2 => {
                let mut octets = [0; 16];
                octets.get_mut(..address.len())?.copy_from_slice(address);
                IpNet::V6(Ipv6Net::new(Ipv6Addr::from(octets), *source).ok()?)
            }
            _ => return None,
        };
        (net.trunc() == net).then(|| Self { net, raw: raw.to_vec() })
    }
}
