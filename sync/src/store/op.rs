//! Operations, and the records and batches in which they are written, kept and sent.
//!
//! A record is written once, by its origin, and never changed: `crc32 | postcard(Body)`. A log row and a message hold a
//! [`Batch`] of them, consecutive ones of one origin. What an operation's author knew is written as the difference to the
//! record before; a batch carries the whole before its first.

use std::fmt;
use std::hash::Hasher as _;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::heads::Heads;
use super::stamp::{OriginId, Stamp};

/// The longest name of a bucket, bytes: it is in every key.
pub const BUCKET_BYTES_MAX: usize = 64;
/// The longest key, bytes: several fit a page of the store.
pub const KEY_BYTES_MAX: usize = 512;
/// The largest value, bytes: larger ones hold up everyone behind them; put files elsewhere and their name here.
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// The longest element of a set, bytes.
pub const ELEMENT_BYTES_MAX: usize = 256;
/// The most elements of a set, removed ones that are still remembered among them: the whole is rewritten with each change.
pub const ELEMENTS_MAX: usize = 1000;
/// The largest record: a value and what is around it.
const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX + 8 * 1024;
const CRC_BYTES: usize = 4;

/// A bucket and a key in it, in the order of both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Bytes);

/// Why a bucket or key is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The bucket's name.
    #[error("a bucket's name has 1 to {BUCKET_BYTES_MAX} of a-z, 0-9, `-`, `_` and `.`, found `{0}`")]
    Bucket(String),
    /// The key's length.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8, found {0}")]
    Length(usize),
    /// A character.
    #[error("a key has no control characters, found {0:?}")]
    Character(char),
    /// Not text.
    #[error("a key is UTF-8")]
    NotText,
}

impl Key {
    /// A key in a bucket.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn new(bucket: &str, key: &str) -> Result<Self, BadKey> {
        Self::check_bucket(bucket)?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(BadKey::Length(key.len()));
        }
        if let Some(found) = key.chars().find(|found| found.is_control()) {
            return Err(BadKey::Character(found));
        }
        Ok(Self([bucket.as_bytes(), &[0], key.as_bytes()].concat().into()))
    }

    /// Whether a bucket can have this name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_bucket(bucket: &str) -> Result<(), BadKey> {
        let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        if (1..=BUCKET_BYTES_MAX).contains(&bucket.len()) && bucket.bytes().all(is_allowed) {
            return Ok(());
        }
        Err(BadKey::Bucket(daemun_fleet::shorten(bucket)))
    }

    /// From its bytes, as they are kept.
    ///
    /// # Errors
    /// When they are no key.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, BadKey> {
        let text = std::str::from_utf8(&bytes).map_err(|_| BadKey::NotText)?;
        let (bucket, key) = text.split_once('\0').ok_or(BadKey::Length(0))?;
        Self::new(bucket, key)
    }

    /// As it is kept: bucket, a zero, key.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// These bytes, to compare keys with: they need be no key.
    pub(super) fn raw(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// What is before every key that begins with these bytes, and after every key before them.
    pub(super) fn before(mut prefix: Vec<u8>) -> Self {
        // Of two that differ in the last byte the lower, and behind it what no key goes on with.
        match prefix.last_mut() {
            Some(0) => drop(prefix.pop()),
            Some(last) => {
                *last -= 1;
                prefix.extend([0xff; 8]);
            }
            None => {}
        }
        Self(prefix.into())
    }

    /// Bytes with which all keys of a bucket begin.
    pub fn prefix(bucket: &str, prefix: &str) -> Vec<u8> {
        [bucket.as_bytes(), &[0], prefix.as_bytes()].concat()
    }

    fn parts(&self) -> (&str, &str) {
        let text = std::str::from_utf8(&self.0).unwrap_or_default();
        text.split_once('\0').unwrap_or_default()
    }

    /// Its bucket.
    pub fn bucket(&self) -> &str {
        self.parts().0
    }

    /// Its name in the bucket.
    pub fn name(&self) -> &str {
        self.parts().1
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket(), self.name())
    }
}

/// What is kept under a key by a put.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// It is JSON text; else any bytes.
    pub is_json: bool,
    /// The bytes.
    pub bytes: Bytes,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", daemun_fleet::shorten(&String::from_utf8_lossy(&self.bytes)))
    }
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The key has this value from now on.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Value,
        /// When it ends, milliseconds of Unix time; 0: never.
        expires_unix_ms: u64,
    },
    /// The key has no value from now on.
    Delete {
        /// The key.
        key: Key,
    },
    /// The counter is higher by so much.
    Increment {
        /// The key.
        key: Key,
        /// By how much; below 0: lower.
        by: i64,
        /// All that this origin has added to it, this included, since `since`.
        total: i64,
        /// Time of the first of these increments: a put or delete after it ends them all.
        since: u64,
    },
    /// The set has this element.
    SetAdd {
        /// The key.
        key: Key,
        /// The element.
        element: String,
    },
    /// The set has this element no more, as far as those went who had added it.
    SetRemove {
        /// The key.
        key: Key,
        /// The element.
        element: String,
        /// The newest addition by each origin that the author had seen.
        seen: Heads,
    },
    /// The origin is alive.
    Heartbeat {
        /// By its clock, milliseconds of Unix time.
        unix_ms: u64,
    },
    /// An operation from the future is never to be applied.
    Drop {
        /// Whose.
        origin: OriginId,
        /// Which.
        sequence: u64,
    },
}

impl Action {
    /// The key it is about.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Action::Put { key, .. }
            | Action::Delete { key }
            | Action::Increment { key, .. }
            | Action::SetAdd { key, .. }
            | Action::SetRemove { key, .. } => Some(key),
            Action::Heartbeat { .. } | Action::Drop { .. } => None,
        }
    }

    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Put { .. } => "put",
            Action::Delete { .. } => "delete",
            Action::Increment { .. } => "increment",
            Action::SetAdd { .. } => "set-add",
            Action::SetRemove { .. } => "set-remove",
            Action::Heartbeat { .. } => "heartbeat",
            Action::Drop { .. } => "drop",
        }
    }
}

/// An operation in its origin's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number there, from 1.
    pub sequence: u64,
    /// When and by whom it was written.
    pub stamp: Stamp,
    /// What its origin had applied when it was written, itself up to the entry before.
    pub known: Arc<Heads>,
    /// The next entry belongs to the same write: they are applied together.
    pub more: bool,
    /// What it does.
    pub action: Action,
}

impl Entry {
    /// Whether its author had applied another entry when it wrote this one.
    pub fn knew(&self, origin: OriginId, sequence: u64) -> bool {
        if origin == self.stamp.origin { sequence < self.sequence } else { self.known.of(origin) >= sequence }
    }
}

/// What a record holds beside its checksum.
#[derive(Serialize, Deserialize)]
struct Body {
    time: u64,
    news: Vec<(OriginId, u64)>,
    more: bool,
    action: Action,
}

/// An entry as bytes.
pub type Record = Bytes;

/// What most records have beside a value: room for it is made at once.
const RECORD_BYTES: usize = 128;

/// Writes an entry as a record; `before` is what the entry before it knew.
pub fn encode(entry: &Entry, before: &Heads) -> Record {
    let news = entry.known.beyond(before);
    let body = Body { time: entry.stamp.time, news, more: entry.more, action: entry.action.clone() };
    let value = match &body.action {
        Action::Put { value, .. } => value.bytes.len(),
        _ => 0,
    };
    let mut record = Vec::with_capacity(RECORD_BYTES + value);
    record.resize(CRC_BYTES, 0);
    record = postcard::to_extend(&body, record).expect("these types can be written");
    let crc = checksum(entry.stamp.origin, entry.sequence, record.get(CRC_BYTES..).unwrap_or_default());
    for (byte, of_crc) in record.iter_mut().zip(crc.to_le_bytes()) {
        *byte = of_crc;
    }
    record.into()
}

/// Whose record it is and which belongs to what is checked: one in another's place is found.
fn checksum(origin: OriginId, sequence: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&origin.0.to_le_bytes());
    hasher.update(&sequence.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    /// A record's checksum is wrong.
    #[error("record {sequence} of {origin} has another checksum than it says")]
    Checksum {
        /// Whose.
        origin: OriginId,
        /// Which.
        sequence: u64,
    },
    /// A record's checksum is right, but this version cannot read it.
    #[error("record {sequence} of {origin} does not parse: was it written by a newer version?")]
    Parse {
        /// Whose.
        origin: OriginId,
        /// Which.
        sequence: u64,
    },
    /// Something before it is missing.
    #[error("a batch of {origin} begins at {first}, and {expected} was expected")]
    Gap {
        /// Whose.
        origin: OriginId,
        /// Its first sequence.
        first: u64,
        /// What it should have been.
        expected: u64,
    },
    /// What comes before it is not what we have.
    #[error(
        "the log of {origin} before {first} is not the one that is known here: was an old copy of its disk put back?"
    )]
    Diverged {
        /// Whose.
        origin: OriginId,
        /// Its first sequence.
        first: u64,
    },
}

/// Consecutive records of one origin's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Whose.
    pub origin: OriginId,
    /// Sequence of the first record.
    pub first: u64,
    /// [`chain`] of all records before.
    pub chain: u64,
    /// What the record before the first knew.
    pub known: Heads,
    /// The records.
    pub records: Vec<Record>,
}

/// One number for a log up to a record: two logs that differ anywhere before have another.
pub fn chain(before: u64, record: &Record) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(before);
    hasher.write(record.get(..CRC_BYTES).unwrap_or_default());
    hasher.finish()
}

impl Batch {
    /// Sequence of the last record; that before the first if there is none.
    pub fn last(&self) -> u64 {
        self.first + self.records.len() as u64 - 1
    }

    /// The chain after its last record.
    pub fn chain_after(&self) -> u64 {
        self.records.iter().fold(self.chain, chain)
    }

    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }

    /// Reads and checks all its records.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn entries(&self) -> Result<Vec<Entry>, BadBatch> {
        let mut known = Arc::new(self.known.clone());
        let mut entries = Vec::with_capacity(self.records.len());
        for (sequence, record) in (self.first..).zip(&self.records) {
            let body = self.body(sequence, record)?;
            if !body.news.is_empty() {
                let known = Arc::make_mut(&mut known);
                for (origin, sequence) in body.news {
                    known.raise(origin, sequence);
                }
            }
            let stamp = Stamp { time: body.time, origin: self.origin };
            entries.push(Entry {
                sequence,
                stamp,
                known: Arc::clone(&known),
                more: body.more,
                action: body.action,
            });
        }
        Ok(entries)
    }

    fn body(&self, sequence: u64, record: &Record) -> Result<Body, BadBatch> {
        let origin = self.origin;
        let wrong = BadBatch::Checksum { origin, sequence };
        let (crc, body) = record.split_at_checked(CRC_BYTES).ok_or(wrong.clone())?;
        if record.len() > RECORD_BYTES_MAX || checksum(origin, sequence, body).to_le_bytes() != *crc {
            return Err(wrong);
        }
        postcard::from_bytes(body).map_err(|_| BadBatch::Parse { origin, sequence })
    }

    /// Takes the batch that follows this one into it, if it does; else gives it back.
    pub fn extend(&mut self, next: Batch) -> Result<(), Batch> {
        if next.origin != self.origin || next.first != self.last() + 1 {
            return Err(next);
        }
        self.records.extend(next.records);
        Ok(())
    }

    /// Without the records up to a sequence.
    ///
    /// # Errors
    /// When what is cut off cannot be read.
    pub fn after(mut self, sequence: u64) -> Result<Batch, BadBatch> {
        if sequence < self.first {
            return Ok(self);
        }
        let cut = usize::try_from(sequence - self.first + 1).unwrap_or(usize::MAX).min(self.records.len());
        for (at, record) in (self.first..).zip(self.records.drain(..cut).collect::<Vec<_>>()) {
            for (origin, sequence) in self.body(at, &record)?.news {
                self.known.raise(origin, sequence);
            }
            self.chain = chain(self.chain, &record);
        }
        self.first += cut as u64;
        Ok(self)
    }
}

#[cfg(test)]
pub(in crate::store) mod tests;
