//! The options of an OPT record in a query. Those we do not know are passed over, never echoed (RFC 6891
//! section 6.1.2).

use super::Subnet;

/// NSID (RFC 5001).
pub(super) const NSID: u16 = 3;
/// Client subnet (RFC 7871).
pub(super) const SUBNET: u16 = 8;
/// Cookie (RFC 7873).
pub(crate) const COOKIE: u16 = 10;
/// edns-tcp-keepalive (RFC 7828).
pub(crate) const KEEPALIVE: u16 = 11;
/// Padding (RFC 7830).
pub(crate) const PADDING: u16 = 12;
/// Extended DNS error (RFC 8914).
pub(crate) const EXTENDED_ERROR: u16 = 15;

/// Lengths of a server cookie (RFC 7873 section 4).
const SERVER_COOKIE_BYTES: std::ops::RangeInclusive<usize> = 8..=32;

/// The options of a query that we know.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The client subnet.
    pub subnet: Option<Subnet>,
    /// The cookie; of several the first (RFC 7873 section 5.2).
    pub cookie: Option<ClientCookie>,
    /// The name of the server is asked for.
    pub nsid: bool,
    /// The time-out of the connection is asked for; its length, which must be 0.
    pub keepalive: Option<usize>,
    /// The answer may be padded.
    pub padding: bool,
}

/// A COOKIE option as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCookie {
    /// What the client made up.
    pub client: [u8; 8],
    /// What it says that we gave it; empty: nothing yet.
    pub server: Vec<u8>,
}

impl ClientCookie {
    fn read(value: &[u8]) -> Option<Self> {
        let (client, server) = value.split_first_chunk::<8>()?;
        (server.is_empty() || SERVER_COOKIE_BYTES.contains(&server.len()))
            .then(|| Self { client: *client, server: server.to_vec() })
    }
}

impl Options {
    /// Reads the data of an OPT record; what cannot be read means FORMERR. The others are given all the same: the
    /// error is answered with a cookie, and padded, too.
    pub(super) fn read(mut data: &[u8]) -> (Self, bool) {
        let mut options = Self::default();
        let mut is_right = true;
        while !data.is_empty() {
            let Some((code, value, rest)) = split_option(data) else { return (options, false) };
            data = rest;
            match code {
                SUBNET if options.subnet.is_some() => is_right = false,
                SUBNET => options.subnet = Subnet::read(value),
                COOKIE if options.cookie.is_none() => options.cookie = ClientCookie::read(value),
                NSID => options.nsid = true,
                KEEPALIVE => options.keepalive = Some(value.len()),
                PADDING => options.padding = true,
                _ => {}
            }
            is_right &= match code {
                SUBNET => options.subnet.is_some(),
                COOKIE => options.cookie.is_some(),
                _ => true,
            };
        }
        (options, is_right)
    }
}

/// The first option's code and value, and what follows.
fn split_option(data: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[code_high, code_low, length_high, length_low], rest) = data.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let (value, rest) = rest.split_at_checked(length)?;
    Some((u16::from_be_bytes([code_high, code_low]), value, rest))
}
