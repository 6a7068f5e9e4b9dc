//! How far each origin's log is known: a frontier.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::stamp::OriginId;

/// The highest sequence known of each origin's log, without a gap below it; 0 is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heads(BTreeMap<OriginId, u64>);

impl Heads {
    /// How far one origin is known; 0: nothing of it.
    pub fn of(&self, origin: OriginId) -> u64 {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    /// Raises one origin to at least `sequence`; true if it was lower.
    pub fn raise(&mut self, origin: OriginId, sequence: u64) -> bool {
        if sequence <= self.of(origin) {
            return false;
        }
        self.0.insert(origin, sequence);
        true
    }

    /// Raises all to at least those of another.
    pub fn join(&mut self, other: &Heads) {
        for (origin, sequence) in other.iter() {
            self.raise(origin, sequence);
        }
    }

    /// Lowers all to at most those of another.
    pub fn meet(&mut self, other: &Heads) {
        self.0.retain(|origin, sequence| {
            *sequence = (*sequence).min(other.of(*origin));
            *sequence > 0
        });
    }

    /// Whether everything in another is known.
    pub fn covers(&self, other: &Heads) -> bool {
        other.iter().all(|(origin, sequence)| self.of(origin) >= sequence)
    }

    /// What is higher here than in another.
    pub fn beyond(&self, other: &Heads) -> Vec<(OriginId, u64)> {
        self.iter().filter(|(origin, sequence)| *sequence > other.of(*origin)).collect()
    }

    /// Forgets an origin.
    pub fn remove(&mut self, origin: OriginId) {
        self.0.remove(&origin);
    }

    /// Each origin and its sequence.
    pub fn iter(&self) -> impl Iterator<Item = (OriginId, u64)> + '_ {
        self.0.iter().map(|(&origin, &sequence)| (origin, sequence))
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum of all sequences: a number that rises with each operation.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl FromIterator<(OriginId, u64)> for Heads {
    fn from_iter<T: IntoIterator<Item = (OriginId, u64)>>(pairs: T) -> Self {
        let mut heads = Self::default();
        for (origin, sequence) in pairs {
            heads.raise(origin, sequence);
        }
        heads
    }
}

/// As in the id of an event: `5e2a91cc:17,a0b1c2d3:4`.
impl fmt::Display for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (origin, sequence)) in self.iter().enumerate() {
            write!(f, "{}{origin}:{sequence}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// A text that is no frontier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a frontier such as 5e2a91cc:17,a0b1c2d3:4, found `{0}`")]
pub struct NotHeads(String);

impl FromStr for Heads {
    type Err = NotHeads;

    fn from_str(text: &str) -> Result<Self, NotHeads> {
        let pair = |pair: &str| {
            let (origin, sequence) = pair.split_once(':')?;
            let is_written = origin.len() == 8 && origin.bytes().all(|digit| digit.is_ascii_hexdigit());
            let is_number = !sequence.is_empty() && sequence.bytes().all(|digit| digit.is_ascii_digit());
            let origin = u32::from_str_radix(origin, 16).ok().filter(|_| is_written && is_number)?;
            Some((OriginId(origin), sequence.parse().ok()?))
        };
        let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(pair);
        pairs.collect::<Option<Heads>>().ok_or_else(|| NotHeads(daemun_fleet::shorten(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_meet_and_covers() {
        let [a, b] = [1, 2].map(OriginId);
        let mut heads: Heads = [(a, 3), (b, 1)].into_iter().collect();
        let other: Heads = [(a, 2), (b, 5)].into_iter().collect();
        assert!(!heads.covers(&other) && !other.covers(&heads));
        assert_eq!(heads.beyond(&other), [(a, 3)]);
        let mut low = heads.clone();
        low.meet(&other);
        assert_eq!((low.of(a), low.of(b)), (2, 1));
        heads.join(&other);
        assert_eq!((heads.of(a), heads.of(b), heads.total()), (3, 5, 8));
        assert!(heads.covers(&other) && heads.covers(&low));
        assert_eq!(heads.to_string().parse(), Ok(heads));
        for wrong in ["a:1", "00000001", "00000001:", "00000001:-1", "00000001:+1"] {
            assert!(wrong.parse::<Heads>().is_err(), "{wrong}");
        }
    }
}
