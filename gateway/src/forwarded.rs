//! Who is the HTTP client? The peer, unless it is a proxy that the operator trusts: then what it says in
//! `X-Forwarded-For`.
//!
//! The header is a list to which each proxy appends the peer it saw. Only what trusted proxies appended is true, so
//! the list is read from its end: the first address that is not a trusted proxy is the client.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The client's address. `forwarded` are the values of all `X-Forwarded-For` headers, in order.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    for entry in forwarded.rev().flat_map(|value| value.rsplit(',')) {
        // What does not parse was not written by a proxy of ours: what is before it cannot be believed either.
        let Some(address) = parse(entry.trim()) else { return client };
        client = address.to_canonical();
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// An address, as proxies write it: bare, with a port, in brackets.
fn parse(entry: &str) -> Option<IpAddr> {
    entry
        .parse()
        .or_else(|_| entry.parse::<SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| entry.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[&str]) -> String {
        let trusted = ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        client_address(peer.parse().unwrap(), headers.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("203.0.113.7", &["1.2.3.4"]), "203.0.113.7");
        assert_eq!(client("127.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
    }

    #[test]
    fn the_list_is_read_from_its_end() {
        assert_eq!(
            client("127.0.0.1", &["9.9.9.9, 1.2.3.4, 10.0.0.3"]),
            "1.2.3.4",
            "the client wrote 9.9.9.9 itself"
        );
        assert_eq!(client("127.0.0.1", &["9.9.9.9", "1.2.3.4"]), "1.2.3.4", "several headers are one list");
        assert_eq!(
            client("127.0.0.1", &["1.2.3.4, evil, 10.0.0.3"]),
            "10.0.0.3",
            "nothing before what does not parse"
        );
    }

    #[test]
    fn forms_of_addresses() {
        assert_eq!(client("::ffff:127.0.0.1", &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
    }
}
