//! The disk of a datacenter's store, and what is in its memory.

use std::collections::{BTreeMap, BTreeSet};

use daemun_sync::core::Moment;
use daemun_sync::store::cell::Cell;
use daemun_sync::store::feed::Scan;
use daemun_sync::store::heads::Heads;
use daemun_sync::store::journal::{JournalError, Logs as _, MemoryJournal, Read};
use daemun_sync::store::op::Key;
use daemun_sync::store::replica::{Cells, Opened, Replica};
use daemun_sync::store::stamp::{Origin, OriginId};

/// Keys and what is under them.
pub(super) type Map = BTreeMap<Key, Cell>;

/// Keys, and how far they have been applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub(super) map: Map,
    pub(super) applied: Heads,
}

impl Cells for Keys {
    fn get(&mut self, key: &Key) -> Result<Option<Cell>, JournalError> {
        Ok(self.map.get(key).cloned())
    }

    fn set(&mut self, key: Key, cell: Cell) {
        self.map.insert(key, cell);
    }
}

impl Scan for Keys {
    fn scan(
        &self,
        after: Option<&Key>,
        upto: Option<&Key>,
        keys: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError> {
        // Small pages of a snapshot: what changes between two of them is what may go wrong.
        self.map.scan(after, upto, if keys == usize::MAX { 3 } else { keys }, bytes)
    }

    fn applied(&self) -> Heads {
        self.applied.clone()
    }
}

/// What outlives a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// Whose it is; `None`: it is empty.
    pub(super) origin: Option<Origin>,
    pub(super) journal: MemoryJournal,
    /// What was last written of the keys.
    pub(super) keys: Keys,
    pub(super) clock: u64,
    pub(super) dropped: BTreeSet<(OriginId, u64)>,
    pub(super) forgotten: BTreeMap<String, u64>,
    /// It has not been opened for writes yet.
    pub(super) is_new: bool,
    /// Counts the disks of this datacenter: one that is lost is replaced by an empty one.
    pub(super) number: u32,
}

impl Disk {
    /// Writes the keys.
    pub(super) fn keep(&mut self, replica: &Replica, keys: &Keys) {
        self.keys = keys.clone();
        self.keys.applied = replica.applied().clone();
        self.clock = replica.time();
        self.dropped.clone_from(replica.dropped());
        self.forgotten.clone_from(replica.forgotten());
        self.is_new &= !replica.is_open();
    }

    /// Time of the newest operation in its own log.
    fn own_time(&self) -> u64 {
        let Some(id) = self.origin.as_ref().map(Origin::id) else { return 0 };
        let head = self.journal.heads().of(id);
        let last = self.journal.read_after(id, head.saturating_sub(1), 1).expect("in memory");
        let Read::Next(Some(batch)) = last else { return 0 };
        let entries = batch.entries().expect("its own batch is right");
        entries.iter().map(|entry| entry.stamp.time).max().unwrap_or(0)
    }

    /// The time that it goes on after.
    pub(super) fn time(&self) -> u64 {
        self.clock.max(self.own_time())
    }

    /// Opens the store that is on it, or makes one.
    pub(super) fn open(&mut self, name: &str, moment: Moment) -> (Replica, Keys) {
        let clock = self.time();
        let origin = self.origin.get_or_insert_with(|| {
            self.is_new = true;
            Origin { datacenter: name.to_owned(), incarnation: moment.unix_ms }
        });
        let opened = Opened {
            applied: self.keys.applied.clone(),
            clock,
            dropped: self.dropped.clone(),
            forgotten: self.forgotten.clone(),
            is_new: self.is_new,
        };
        let mut keys = self.keys.clone();
        let mut replica = Replica::new(origin.clone(), &self.journal, opened, moment);
        // What the log has and the keys do not, before anybody sees them.
        for _ in 0..10_000 {
            if !replica.has_more(moment.unix_ms) {
                break;
            }
            replica.tick(moment, &self.journal, &mut keys).expect("the journal can be read");
        }
        keys.applied = replica.applied().clone();
        (replica, keys)
    }
}
