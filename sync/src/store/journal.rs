//! What an engine gives: logs by origin, appended to durably and read from anywhere. Store, feed and watches are folds
//! above it, the same on every engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::heads::Heads;
use super::op::{BadBatch, Batch};
use super::stamp::{Origin, OriginId};

/// Why a journal could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// There is no room: nothing was written, and reading goes on.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The disk failed: what was being written may be there after a restart, or not.
    #[error("the disk failed: {0}")]
    Io(String),
    /// What is on the disk is not what was written.
    #[error("the store is corrupt: {0}; stop the process and run `daemun kv rebuild`")]
    Corrupt(String),
    /// What was to be appended does not follow what is there.
    #[error(transparent)]
    Batch(#[from] BadBatch),
}

/// What is in a log after some sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next of it, one batch; `None`: nothing yet.
    Next(Option<Batch>),
    /// It is not there any more: the log begins after this sequence.
    Gone(u64),
}

/// Where the log of an origin begins: what is up to it is in the state alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Sequence of the last entry that is gone.
    pub sequence: u64,
    /// The chain after it.
    pub chain: u64,
}

/// Logs by origin, to be read.
pub trait Logs {
    /// What follows a sequence in an origin's log: at most about so many bytes, never part of a write.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_after(&self, origin: OriginId, sequence: u64, bytes: usize) -> Result<Read, JournalError>;

    /// How far each log goes.
    fn heads(&self) -> Heads;

    /// The chain after the last entry of a log.
    fn chain(&self, origin: OriginId) -> u64;

    /// Where each log begins that does not begin at its beginning.
    fn floors(&self) -> BTreeMap<OriginId, Floor>;

    /// Every origin of which there is anything.
    fn origins(&self) -> Vec<Origin>;
}

/// Logs by origin, by the one who writes them.
pub trait Journal: Logs {
    /// Appends batches, all or none of them, each to the end of its origin's log, and makes them durable.
    ///
    /// # Errors
    /// Why not; see [`JournalError`] for what is then there.
    fn append(&mut self, batches: &[Batch]) -> Result<(), JournalError>;

    /// Learns the name of an origin.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn name(&mut self, origin: &Origin) -> Result<(), JournalError>;

    /// Lets go of a log's entries up to a sequence.
    ///
    /// # Errors
    /// When it cannot be done.
    fn trim(&mut self, origin: OriginId, upto: u64) -> Result<(), JournalError>;

    /// A log goes on after a floor that came with a snapshot, if it is above all that is there.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn begin_at(&mut self, origin: OriginId, floor: Floor) -> Result<(), JournalError>;
}

/// A journal in memory, for tests and simulations. What it is given is durable at once.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    logs: BTreeMap<OriginId, Log>,
    names: BTreeMap<OriginId, Origin>,
}

#[derive(Clone, Debug, Default)]
struct Log {
    floor: Floor,
    batches: BTreeMap<u64, Batch>,
}

impl Log {
    fn head(&self) -> u64 {
        self.batches.last_key_value().map_or(self.floor.sequence, |(_, batch)| batch.last())
    }

    fn chain(&self) -> u64 {
        self.batches.last_key_value().map_or(self.floor.chain, |(_, batch)| batch.chain_after())
    }
}

/// Checks that a batch goes on where a log ends.
///
/// # Errors
/// A gap, or another past.
pub fn follows(head: u64, chain: u64, batch: &Batch) -> Result<(), BadBatch> {
    let (origin, first) = (batch.origin, batch.first);
    if first != head + 1 {
        return Err(BadBatch::Gap { origin, first, expected: head + 1 });
    }
    if batch.chain != chain {
        return Err(BadBatch::Diverged { origin, first });
    }
    Ok(())
}

impl MemoryJournal {
    /// Entries kept, of all logs.
    pub fn len(&self) -> usize {
        self.logs.values().flat_map(|log| log.batches.values()).map(|batch| batch.records.len()).sum()
    }

    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Logs for MemoryJournal {
    fn read_after(&self, origin: OriginId, sequence: u64, bytes: usize) -> Result<Read, JournalError> {
        let Some(log) = self.logs.get(&origin) else { return Ok(Read::Next(None)) };
        if sequence < log.floor.sequence {
            return Ok(Read::Gone(log.floor.sequence));
        }
        let mut found: Option<Batch> = None;
        for (_, batch) in log.batches.range(sequence + 1..) {
            match &mut found {
                None => found = Some(batch.clone().after(sequence)?),
                Some(before) if before.bytes() + batch.bytes() > bytes => break,
                Some(before) => {
                    if before.extend(batch.clone()).is_err() {
                        break;
                    }
                }
            }
        }
        Ok(Read::Next(found))
    }

    fn heads(&self) -> Heads {
        self.logs.iter().map(|(origin, log)| (*origin, log.head())).collect()
    }

    fn chain(&self, origin: OriginId) -> u64 {
        self.logs.get(&origin).map_or(0, Log::chain)
    }

    fn floors(&self) -> BTreeMap<OriginId, Floor> {
        let cut = self.logs.iter().filter(|(_, log)| log.floor.sequence > 0);
        cut.map(|(origin, log)| (*origin, log.floor)).collect()
    }

    fn origins(&self) -> Vec<Origin> {
        self.names.values().cloned().collect()
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, batches: &[Batch]) -> Result<(), JournalError> {
        for batch in batches.iter().filter(|batch| !batch.records.is_empty()) {
            let log = self.logs.entry(batch.origin).or_default();
            follows(log.head(), log.chain(), batch)?;
            log.batches.insert(batch.last(), batch.clone());
        }
        Ok(())
    }

    fn name(&mut self, origin: &Origin) -> Result<(), JournalError> {
        self.names.insert(origin.id(), origin.clone());
        Ok(())
    }

    fn trim(&mut self, origin: OriginId, upto: u64) -> Result<(), JournalError> {
        if let Some(log) = self.logs.get_mut(&origin) {
            // Whole batches only: what is left begins where one began.
            let gone: Vec<u64> = log.batches.range(..=upto).map(|(last, _)| *last).collect();
            for last in gone {
                if let Some(batch) = log.batches.remove(&last) {
                    log.floor = Floor { sequence: last, chain: batch.chain_after() };
                }
            }
        }
        Ok(())
    }

    fn begin_at(&mut self, origin: OriginId, floor: Floor) -> Result<(), JournalError> {
        let log = self.logs.entry(origin).or_default();
        if floor.sequence > log.head() {
            *log = Log { floor, batches: BTreeMap::new() };
        }
        Ok(())
    }
}
