//! Packets to questions, answers to packets. No decision about *what* is answered is taken here.
//!
//! Names and record data are `hickory-proto`'s. The header, the walk over the records and the OPT record are read
//! here, strictly: the library's client subnet parser accepts what RFC 7871 says to refuse, and it reserves memory by
//! the counts in the header before it has seen anything.

mod options;
mod read;
mod subnet;
mod write;

pub(crate) use options::{COOKIE, EXTENDED_ERROR, KEEPALIVE, PADDING};
pub use options::{ClientCookie, Options};
pub use read::{Edns, Head, Query, Read, Refusal, read};
pub use subnet::Subnet;
pub use write::{Extras, Limits, write};

/// Length of the header (RFC 1035 section 4.1.1).
pub const HEADER_BYTES: usize = 12;
/// The largest UDP answer without EDNS (RFC 1035 section 4.2.1).
pub const UDP_PLAIN_MAX: u16 = 512;
/// The largest UDP answer, and the size we advertise: fits every path unfragmented (DNS flag day 2020).
pub const UDP_MAX: u16 = 1232;

#[cfg(test)]
mod tests;
