//! How logs travel: one store follows another over a stream of messages each way. The follower says after what it wants
//! (which acknowledges all up to there), the feeder sends what comes after it, and goes on.
//!
//! ```text
//!   follower                                   feeder
//!   Begin { who I am, after, wants } ───────▶
//!                                   ◀─────── Begin { who I am }
//!                                   ◀─────── Batch …           or, where the log is gone:
//!                                   ◀─────── Cells …, EndOfCells { floors }, Batch …
//!   After { received }              ───────▶                   each time something is durable
//!   Compare { range, digest }       ───────▶
//!                                   ◀─────── Compared { cells, if they differ }
//!                                   ◀─────── Heard { word }    at least twice a second
//! ```
//!
//! Pure: who sends and receives is elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::heads::Heads;
use super::journal::{Floor, JournalError, Logs, Read};
use super::op::{Batch, Key};
use super::replica::{Cells, Denied, FUTURE_MAX_MS, Replica, Word};
use super::stamp::{Origin, OriginId};
use super::verify::{self, Range};
use crate::core::Moment;

/// Version of these messages: another is refused.
pub const VERSION: u32 = 1;
/// Bytes of records in a message: several fit the window of a stream, so that a slow link is kept busy.
pub const BATCH_BYTES: usize = 256 * 1024;
/// Bytes of keys and cells in a message.
const CELLS_BYTES: usize = 256 * 1024;

/// From the follower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// First of all.
    Begin {
        /// [`VERSION`].
        version: u32,
        /// Name of the fleet.
        fleet: String,
        /// Who it is and what it has.
        word: Word,
        /// What it has handed to its disk, durable or not: what comes after is wanted.
        after: Heads,
        /// Datacenters whose logs it wants.
        wants: BTreeSet<String>,
    },
    /// All up to here is durable there.
    After {
        /// Up to here.
        received: Heads,
        /// Datacenters whose logs it wants from now on, if that has changed.
        wants: Option<BTreeSet<String>>,
    },
    /// Is this range the same there?
    Compare(Range),
}

/// From the feeder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// First of all.
    Begin {
        /// [`VERSION`].
        version: u32,
        /// Name of the fleet.
        fleet: String,
        /// Who it is and what it has.
        word: Word,
    },
    /// Who it is and what it has, again.
    Heard(Word),
    /// What comes after in one log.
    Batch(Batch),
    /// What is under some keys: the log that follows is gone.
    Cells(Vec<(Key, Cell)>),
    /// That was all: it is as if the logs had been received up to here.
    EndOfCells(BTreeMap<OriginId, Floor>),
    /// The cells of a range that differs; none: it does not.
    Compared(Range, Option<Vec<(Key, Cell)>>),
    /// It is not spoken with, and why.
    Denied(String),
}

/// Why two stores do not understand each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misunderstanding {
    /// Another version.
    #[error(
        "it speaks version {theirs} of replication, and this is version {VERSION}: bring the older of the two up to date"
    )]
    Version {
        /// Its version.
        theirs: u32,
    },
    /// Another fleet.
    #[error("it is of fleet `{theirs}`, and this is fleet `{ours}`")]
    Fleet {
        /// Its fleet.
        theirs: String,
        /// Ours.
        ours: String,
    },
}

/// Whether a first message is for us.
///
/// # Errors
/// Why it is not.
pub fn check(version: u32, fleet: &str, ours: &str) -> Result<(), Misunderstanding> {
    if version != VERSION {
        return Err(Misunderstanding::Version { theirs: version });
    }
    if fleet != ours {
        return Err(Misunderstanding::Fleet { theirs: daemun_fleet::shorten(fleet), ours: ours.to_owned() });
    }
    Ok(())
}

/// Keys in order, as a snapshot and a comparison read them.
pub trait Scan {
    /// Keys after one and up to another with what is under them: at most so many, and about so many bytes.
    ///
    /// # Errors
    /// When one cannot be read.
    fn scan(
        &self,
        after: Option<&Key>,
        upto: Option<&Key>,
        keys: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError>;

    /// What is applied in them, or a little less.
    fn applied(&self) -> Heads;
}

impl Scan for BTreeMap<Key, Cell> {
    fn scan(
        &self,
        after: Option<&Key>,
        upto: Option<&Key>,
        keys: usize,
        _bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = upto.map_or(Bound::Unbounded, Bound::Included);
        let range = self.range::<Key, _>((from, to)).take(keys);
        Ok(range.map(|(key, cell)| (key.clone(), cell.clone())).collect())
    }

    fn applied(&self) -> Heads {
        self.values().flat_map(|cell| cell.made_of().iter().collect::<Vec<_>>()).collect()
    }
}

/// Feeding one follower.
#[derive(Debug)]
pub struct Feeder {
    follower: OriginId,
    sent: Heads,
    wants: BTreeSet<String>,
    /// It has nothing but its own: it gets everything as it is now before any log. What is forgotten here may have ended
    /// what is still in a log.
    is_empty: bool,
    snapshot: Option<Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    last: Option<Key>,
    floors: BTreeMap<OriginId, Floor>,
}

impl Feeder {
    /// For a follower that wants what comes after.
    pub fn new(follower: &Origin, after: Heads, wants: BTreeSet<String>) -> Self {
        let follower = follower.id();
        let is_empty = after.iter().all(|(origin, _)| origin == follower);
        Self { follower, sent: after, wants, is_empty, snapshot: None }
    }

    /// It wants others from now on.
    pub fn want(&mut self, wants: BTreeSet<String>) {
        self.wants = wants;
    }

    /// The next message, if there is anything to send.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next(
        &mut self,
        journal: &impl Logs,
        cells: &impl Scan,
        origins: &BTreeMap<OriginId, Origin>,
    ) -> Result<Option<Down>, JournalError> {
        if std::mem::take(&mut self.is_empty) {
            self.snapshot = Some(Snapshot { last: None, floors: floors(journal, &cells.applied())? });
        }
        if self.snapshot.is_some() {
            return self.next_of_snapshot(cells).map(Some);
        }
        for (origin, _) in journal.heads().beyond(&self.sent) {
            // Our own log never comes back to us; what we had in an earlier life does.
            let is_wanted =
                origins.get(&origin).is_some_and(|origin| self.wants.contains(&origin.datacenter));
            if origin == self.follower || !is_wanted {
                continue;
            }
            match journal.read_after(origin, self.sent.of(origin), BATCH_BYTES)? {
                Read::Next(None) => {}
                Read::Next(Some(batch)) => {
                    self.sent.raise(origin, batch.last());
                    return Ok(Some(Down::Batch(batch)));
                }
                Read::Gone(_) => {
                    self.snapshot = Some(Snapshot { last: None, floors: floors(journal, &cells.applied())? });
                    return self.next_of_snapshot(cells).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_of_snapshot(&mut self, cells: &impl Scan) -> Result<Down, JournalError> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(Down::Cells(Vec::new())) };
        let page = cells.scan(snapshot.last.as_ref(), None, usize::MAX, CELLS_BYTES)?;
        if let Some((last, _)) = page.last() {
            snapshot.last = Some(last.clone());
            return Ok(Down::Cells(page));
        }
        let floors = std::mem::take(&mut snapshot.floors);
        self.snapshot = None;
        for (origin, floor) in &floors {
            self.sent.raise(*origin, floor.sequence);
        }
        Ok(Down::EndOfCells(floors))
    }
}

/// Where the logs go on after what is applied.
fn floors(journal: &impl Logs, applied: &Heads) -> Result<BTreeMap<OriginId, Floor>, JournalError> {
    let mut floors = BTreeMap::new();
    let mut applied = applied.clone();
    applied.meet(&journal.heads());
    for (origin, sequence) in applied.iter() {
        let chain = match journal.read_after(origin, sequence, 1)? {
            Read::Next(Some(batch)) => batch.chain,
            Read::Next(None) if journal.heads().of(origin) == sequence => journal.chain(origin),
            Read::Next(None) | Read::Gone(_) => continue,
        };
        floors.insert(origin, Floor { sequence, chain });
    }
    Ok(floors)
}

/// What a follower made of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// A snapshot is complete: the cells must be durable before the journal begins at the new floors.
    pub is_end_of_cells: bool,
    /// Keys that were not as they should have been, and are now.
    pub healed: u64,
    /// Keys that were compared.
    pub compared: u64,
}

impl Replica {
    /// Takes in a message of a feeder, which is the store of datacenter `peer`.
    ///
    /// # Errors
    /// What is wrong with it: the stream is to end, and may begin anew.
    pub fn take(
        &mut self,
        moment: Moment,
        cells: &mut (impl Cells + Scan),
        peer: &str,
        message: Down,
    ) -> Result<Took, Denied> {
        let mut took = Took::default();
        match message {
            Down::Begin { word, .. } | Down::Heard(word) => self.hear(moment, peer, &word)?,
            Down::Batch(batch) => {
                self.receive(moment, cells, batch)?;
            }
            Down::Cells(theirs) => {
                self.receive_cells(moment, cells, theirs)?;
            }
            Down::EndOfCells(floors) => {
                self.end_of_snapshot(&floors);
                took.is_end_of_cells = true;
            }
            Down::Compared(range, theirs) => {
                took.compared = range.keys;
                if let Some(theirs) = theirs {
                    took.healed = self.heal(moment, cells, theirs)?;
                }
            }
            Down::Denied(_) => {}
        }
        Ok(took)
    }

    /// Joins the cells of a range that differed; how many of ours lacked what is applied here: the others were only behind.
    fn heal(
        &mut self,
        moment: Moment,
        cells: &mut impl Cells,
        theirs: Vec<(Key, Cell)>,
    ) -> Result<u64, JournalError> {
        let made_of: BTreeMap<Key, Heads> =
            theirs.iter().map(|(key, cell)| (key.clone(), cell.made_of())).collect();
        // What is from the future is healed when its time has come.
        let now = moment.unix_ms + FUTURE_MAX_MS;
        let theirs = theirs.into_iter().filter(|(_, cell)| cell.newest.unix_ms() <= now).collect();
        let changed = self.receive_cells(moment, cells, theirs)?;
        let had = |key: &Key| made_of.get(key).is_some_and(|heads| self.applied().covers(heads));
        Ok(changed.iter().filter(|key| had(key)).count() as u64)
    }
}

/// The answer of a feeder to a comparison.
///
/// # Errors
/// When the cells cannot be read.
pub fn compare(cells: &impl Scan, range: Range) -> Result<Down, JournalError> {
    let ours = verify::read(cells, &range)?;
    let differs = verify::digest(&ours, range.as_of_unix_ms) != range.digest;
    Ok(Down::Compared(range, differs.then_some(ours)))
}
