//! PROXY protocol, version 2: a proxy that is trusted says at the start of a connection who the client is.

use std::io;
use std::net::IpAddr;

use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Addresses and what else the proxy may tell: 216 bytes for the longest addresses, the rest for its notes.
const REST_BYTES_MAX: usize = 2048;

/// The client's address; `None` for the proxy's own connections (command LOCAL).
///
/// # Errors
/// When the header is none, or longer than any should be.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<IpAddr>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not a PROXY protocol v2 header");
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) || rest > REST_BYTES_MAX {
        return Err(malformed());
    }
    header.resize(FIXED_BYTES + rest, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    let header = Header::try_from(header.as_slice()).map_err(|_| malformed())?;
    Ok(match (header.command, header.addresses) {
        (Command::Local, _) => None,
        (Command::Proxy, Addresses::IPv4(v4)) => Some(v4.source_address.into()),
        (Command::Proxy, Addresses::IPv6(v6)) => Some(IpAddr::V6(v6.source_address).to_canonical()),
        // Who it is was not told: the proxy itself.
        (Command::Proxy, Addresses::Unix(_) | Addresses::Unspecified) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

    fn proxied(family: u8, addresses: &[u8], more: &[u8]) -> Vec<u8> {
        let mut header = LOCAL.to_vec();
        header[12] = 0x21;
        header[13] = family;
        header[14..16].copy_from_slice(&((addresses.len() + more.len()) as u16).to_be_bytes());
        header.extend(addresses);
        header.extend(more);
        header
    }

    #[tokio::test]
    async fn who_the_client_is() {
        let v4 = [&[203, 0, 113, 7][..], &[192, 0, 2, 1], &[4, 0, 0, 53]].concat();
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[4, 0, 0, 53]].concat();
        let note = [4, 0, 1, 0];
        assert_eq!(read(&mut &LOCAL[..]).await.unwrap(), None);
        let read_all = async |header: Vec<u8>| read(&mut &header[..]).await.unwrap();
        assert_eq!(read_all(proxied(0x11, &v4, &note)).await, Some("203.0.113.7".parse().unwrap()));
        assert_eq!(read_all(proxied(0x21, &v6, &[])).await, Some("2001:db8::7".parse().unwrap()));
    }

    #[tokio::test]
    async fn what_is_none() {
        let long = proxied(0x11, &[0; 3000], &[]);
        for bad in [&b"GET / HTTP/1.1\r\n\r\n"[..], &LOCAL[..15], &long, &[0; 64]] {
            assert!(read(&mut &bad[..]).await.is_err());
        }
    }
}
