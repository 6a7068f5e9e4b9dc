//! Do two stores hold the same? Ranges of keys are compared by a digest, one after the other, again and again. What differs is
//! sent and joined, so that whatever went wrong (a bug, a bad disk) does not stay.

use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::cell::{Cell, Seen};
use super::feed::Scan;
use super::journal::JournalError;
use super::op::Key;

/// Keys in a range.
const KEYS: usize = 128;
/// Bytes in a range: they go in one message.
const BYTES: usize = 256 * 1024;
/// The most keys of an answer: the other side may have more in the range than we do.
const ANSWER_KEYS: usize = 4 * KEYS;
/// What ends within this time is not compared: the two clocks may differ.
const SOON_MS: u64 = 60_000;

/// A range of keys and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Keys after this one; `None`: from the first.
    pub after: Option<Key>,
    /// And up to this one; `None`: to the last.
    pub upto: Option<Key>,
    /// How many keys the asker has there.
    pub keys: u64,
    /// Of what is seen of them at this time, milliseconds of Unix time.
    pub as_of_unix_ms: u64,
    /// [`digest`].
    pub digest: u128,
}

/// The next range of our own to ask about.
///
/// # Errors
/// When it cannot be read.
pub fn next(cells: &impl Scan, after: Option<Key>, unix_ms: u64) -> Result<Range, JournalError> {
    let page = cells.scan(after.as_ref(), None, KEYS, BYTES)?;
    let is_whole = page.len() >= KEYS || page.iter().map(|(_, cell)| size(cell)).sum::<usize>() >= BYTES;
    let upto = page.last().filter(|_| is_whole).map(|(key, _)| key.clone());
    let as_of_unix_ms = unix_ms + SOON_MS;
    Ok(Range { after, upto, keys: page.len() as u64, as_of_unix_ms, digest: digest(&page, as_of_unix_ms) })
}

/// About how many bytes a cell has.
pub fn size(cell: &Cell) -> usize {
    let value = cell.register.as_ref().and_then(|register| register.value.as_ref());
    64 + value.map_or(0, |value| value.bytes.len()) + 64 * (cell.elements.len() + cell.shares.len())
}

/// Our cells of a range.
///
/// # Errors
/// When they cannot be read.
pub fn read(cells: &impl Scan, range: &Range) -> Result<Vec<(Key, Cell)>, JournalError> {
    cells.scan(range.after.as_ref(), range.upto.as_ref(), ANSWER_KEYS, 2 * BYTES)
}

/// A digest of what users would see of some keys at a time: what is only remembered of a key is not in it, as each store
/// forgets in its own time.
pub fn digest(cells: &[(Key, Cell)], as_of_unix_ms: u64) -> u128 {
    let mut hasher = SipHasher13::new();
    for (key, cell) in cells {
        let Some(seen) = cell.seen(as_of_unix_ms) else { continue };
        hasher.write(key.bytes());
        hasher.write_u8(0);
        match seen {
            Seen::Value(value) => {
                let stamp = cell.register.as_ref().map(|register| register.stamp).unwrap_or_default();
                hasher.write_u64(stamp.time);
                hasher.write_u32(stamp.origin.0);
                hasher.write_usize(value.bytes.len());
                hasher.write(&value.bytes);
            }
            Seen::Counter(sum) => hasher.write_i128(sum),
            Seen::Set(elements) => {
                for element in elements {
                    hasher.write(element.as_bytes());
                    hasher.write_u8(0);
                }
            }
        }
    }
    hasher.finish128().as_u128()
}
