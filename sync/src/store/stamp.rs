//! When an operation was written, and by whom: a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks and
//! Consistent Snapshots in Globally Distributed Databases", 2014). Its order is the order in which the last writer wins.

use std::fmt;
use std::hash::Hasher as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// Bits of the logical part: 65,536 operations of one origin in a millisecond, then the clock runs ahead.
const LOGICAL_BITS: u32 = 16;

/// Where operations are written: one life of a datacenter's store. A store that was lost, restored or emptied begins
/// another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The datacenter.
    pub datacenter: String,
    /// Milliseconds of Unix time when the store was made: a later one is higher.
    pub incarnation: u64,
}

impl Origin {
    /// Its short name in logs and frontiers: 32 bits of a hash.
    pub fn id(&self) -> OriginId {
        let mut hasher = SipHasher13::new();
        hasher.write(self.datacenter.as_bytes());
        hasher.write(&self.incarnation.to_le_bytes());
        let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
        OriginId(u32::from_le_bytes([a, b, c, d]))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.datacenter, self.incarnation)
    }
}

/// The short name of an [`Origin`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OriginId(pub u32);

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A moment of the hybrid logical clock of an origin. No two operations have the same: the origin breaks ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds of Unix time, then 16 bits that count within one.
    pub time: u64,
    /// Who wrote it.
    pub origin: OriginId,
}

impl Stamp {
    /// The physical part, milliseconds of Unix time.
    pub fn unix_ms(self) -> u64 {
        self.time >> LOGICAL_BITS
    }
}

/// As in an entity tag: `019a5c3b2f100003-5e2a91cc`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.time, self.origin)
    }
}

/// A text that is no stamp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a stamp such as 019a5c3b2f100003-5e2a91cc, found `{0}`")]
pub struct NotAStamp(String);

impl FromStr for Stamp {
    type Err = NotAStamp;

    fn from_str(text: &str) -> Result<Self, NotAStamp> {
        let wrong = || NotAStamp(daemun_fleet::shorten(text));
        // The one form that is written: 16 digits, a dash, 8 digits.
        let (time, origin) = text.split_once('-').ok_or_else(wrong)?;
        let is_hexadecimal =
            |digits: &str| digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if time.len() != 16 || origin.len() != 8 || !is_hexadecimal(time) || !is_hexadecimal(origin) {
            return Err(wrong());
        }
        let time = u64::from_str_radix(time, 16).map_err(|_| wrong())?;
        let origin = u32::from_str_radix(origin, 16).map_err(|_| wrong())?;
        Ok(Self { time, origin: OriginId(origin) })
    }
}

/// The clock of one origin: it never gives the same time twice, never goes back, and is never behind a time it has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hlc {
    last: u64,
}

impl Hlc {
    /// The time of an operation that is written now.
    pub fn next(&mut self, unix_ms: u64) -> u64 {
        self.last = (self.last + 1).max(unix_ms << LOGICAL_BITS);
        self.last
    }

    /// An operation was applied: whatever is written from now on is later.
    pub fn see(&mut self, time: u64) {
        self.last = self.last.max(time);
    }

    /// The newest time that was given or seen.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How far it is ahead of the machine's clock, milliseconds.
    pub fn ahead_ms(&self, unix_ms: u64) -> u64 {
        (self.last >> LOGICAL_BITS).saturating_sub(unix_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_whatever_the_machines_clock_does() {
        let mut clock = Hlc::default();
        let mut last = 0;
        for unix_ms in [1000, 1000, 999, 5, 1001, 1001] {
            let time = clock.next(unix_ms);
            assert!(time > last);
            last = time;
        }
        clock.see(2000 << 16);
        assert_eq!(clock.next(1001), (2000 << 16) + 1);
        assert_eq!(clock.ahead_ms(1500), 500);
        assert_eq!(clock.next(3000), 3000 << 16);
    }

    #[test]
    fn a_stamp_is_read_as_it_is_written_and_in_no_other_form() {
        let origin = Origin { datacenter: "seoul".to_owned(), incarnation: 7 };
        let stamp = Stamp { time: 0x019a_5c3b_2f10_0003, origin: origin.id() };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for wrong in
            ["", "-", "19a5c3b2f100003-5e2a91cc", "019A5c3b2f100003-5e2a91cc", "019a5c3b2f100003-5e2a91cc "]
        {
            assert!(wrong.parse::<Stamp>().is_err(), "{wrong}");
        }
        assert!("+19a5c3b2f100003-5e2a91cc".parse::<Stamp>().is_err());
        assert!("x".parse::<Stamp>().unwrap_err().to_string().contains("found `x`"));
    }
}
