//! The client being placed: an address, and how much of it is known.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use crate::config::Config;

/// A client: an address and how many of its leading bits the asker gave us (EDNS client subnet, RFC 7871); the
/// bits behind are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    address: IpAddr,
    prefix_len: u8,
}

impl Client {
    /// A client whose whole address is known. IPv4 in IPv6 clothes becomes IPv4.
    pub fn address(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix_len: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// A client of whom only a prefix is known.
    pub fn prefix(prefix: IpNet) -> Self {
        let prefix = prefix.trunc();
        match prefix.addr().to_canonical() {
            IpAddr::V4(v4) if prefix.addr().is_ipv6() && prefix.prefix_len() >= 96 => {
                Self { address: v4.into(), prefix_len: prefix.prefix_len() - 96 }
            }
            _ => Self { address: prefix.addr(), prefix_len: prefix.prefix_len() },
        }
    }

    /// First address of what is known.
    pub fn first_address(&self) -> IpAddr {
        self.address
    }

    /// Number of leading bits known.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Width of the blocks in which all clients share a fate when a hash decides: /24 and /56, the longest
    /// prefixes that resolvers send (RFC 7871 section 11.1).
    pub fn hash_prefix_len(&self) -> u8 {
        if self.address.is_ipv4() { 24 } else { 56 }
    }

    /// The keyed hash of the client's /24 or /56: the same on every name server of a fleet.
    pub(crate) fn hash(&self, key: HashKey) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
        match self.address {
            IpAddr::V4(v4) => hasher.write(&v4.octets()[..3]),
            IpAddr::V6(v6) => hasher.write(&v6.octets()[..7]),
        }
        hasher.finish()
    }
}

/// Blocks that are not routed between networks: whoever has an address there is where their resolver is (RFC 7871
/// section 11.3; blocks of RFC 6890, but for those of documentation: examples should work as they stand).
const PRIVATE: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/127",
    "100::/64",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// The private blocks that no override of the config is about: where the operator has said who is there, it is known.
pub(crate) fn private_blocks(config: &Config) -> Vec<IpNet> {
    let named = || config.dns.overrides.iter().flat_map(|over| &over.prefixes);
    let blocks = PRIVATE.iter().map(|block| block.parse::<IpNet>().expect("a prefix"));
    blocks.filter(|block| !named().any(|net| net.contains(block) || block.contains(net))).collect()
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        write!(f, "{}", self.address)?;
        if self.prefix_len == whole { Ok(()) } else { write!(f, "/{}", self.prefix_len) }
    }
}

/// A text that is neither an address nor a prefix.
#[derive(Debug, thiserror::Error)]
#[error("expected an address such as 203.0.113.7 or a prefix such as 203.0.113.0/24, found `{0}`")]
pub struct ClientError(String);

impl FromStr for Client {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        text.parse::<IpAddr>()
            .map(Client::address)
            .or_else(|_| text.parse::<IpNet>().map(Client::prefix))
            .map_err(|_| ClientError(crate::shorten(text)))
    }
}

/// The fleet's key for placing clients by hash. Not a secret: it keeps two fleets from sharing a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashKey(u64, u64);

impl HashKey {
    /// The key of the fleet with this name.
    pub(crate) fn of_fleet(name: &str) -> Self {
        let half = |salt| {
            let mut hasher = SipHasher13::new_with_keys(salt, 0);
            hasher.write(name.as_bytes());
            hasher.finish()
        };
        Self(half(1), half(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        text.parse().unwrap()
    }

    #[test]
    fn text_forms() {
        assert_eq!(client("1.2.3.4").to_string(), "1.2.3.4");
        assert_eq!(client("1.2.3.4/16").to_string(), "1.2.0.0/16");
        assert_eq!(client("2001:db8::1/48").to_string(), "2001:db8::/48");
        assert_eq!(client("::ffff:1.2.3.4"), client("1.2.3.4"));
        assert_eq!(client("::ffff:1.2.3.0/120"), client("1.2.3.0/24"));
        assert!("1.2.3".parse::<Client>().is_err());
        assert!("1.2.3.4/33".parse::<Client>().is_err());
    }

    #[test]
    fn one_block_one_hash() {
        let key = HashKey::of_fleet("shop");
        assert_eq!(client("1.2.3.4").hash(key), client("1.2.3.200").hash(key));
        assert_ne!(client("1.2.3.4").hash(key), client("1.2.4.4").hash(key));
        assert_eq!(client("2001:db8:0:100::1").hash(key), client("2001:db8:0:1ff::1").hash(key));
        assert_ne!(client("2001:db8:0:100::1").hash(key), client("2001:db8:0:200::1").hash(key));
        assert_ne!(client("1.2.3.4").hash(key), client("1.2.3.4").hash(HashKey::of_fleet("bank")));
    }

    /// Every name server, of whatever version or machine, must agree: the values are part of the protocol.
    #[test]
    fn the_hash_is_pinned() {
        assert_eq!(client("1.2.3.4").hash(HashKey::of_fleet("shop")), PINNED);
    }
    const PINNED: u64 = 11_957_851_034_640_472_944;
}
