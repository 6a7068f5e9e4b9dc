//! What was asked and answered, and every operation that was ever on a disk: what is true, whatever the stores say.

use std::collections::{BTreeMap, HashMap};

use daemun_sync::store::heads::Heads;
use daemun_sync::store::op::{Batch, Entry};
use daemun_sync::store::request::{Condition, Durability, Reply, Write};
use daemun_sync::store::stamp::{OriginId, Stamp};

/// An operation, and when it was on its author's disk.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) entry: Entry,
    pub(super) at_us: u64,
}

/// A write of an application.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) node: usize,
    /// Which of its disks.
    pub(super) disk: u32,
    pub(super) write: Write,
    pub(super) reply: Option<Reply>,
    /// The process died before it answered.
    pub(super) is_lost: bool,
}

impl Asked {
    /// The stamps of a write that was done at the durability it asked for.
    pub(super) fn done(&self) -> Option<&[Stamp]> {
        match &self.reply {
            Some(Reply::Written { stamps, is_done: true, .. }) => Some(stamps),
            _ => None,
        }
    }

    /// Done, and more than in memory.
    pub(super) fn kept(&self) -> Option<&[Stamp]> {
        self.done().filter(|_| self.write.durability != Durability::Memory)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) asked: Vec<Asked>,
    pub(super) facts: BTreeMap<OriginId, Vec<Fact>>,
    pub(super) by_stamp: HashMap<Stamp, u64>,
    /// What was on no other disk when its author's was lost, by origin: after this sequence.
    pub(super) lost_after: BTreeMap<OriginId, u64>,
}

impl Ledger {
    /// A store has written a batch of its own to its disk.
    pub(super) fn wrote(&mut self, batch: &Batch, at_us: u64) {
        let facts = self.facts.entry(batch.origin).or_default();
        for entry in batch.entries().expect("its own batch is right") {
            if entry.sequence == facts.len() as u64 + 1 {
                self.by_stamp.insert(entry.stamp, entry.sequence);
                facts.push(Fact { entry, at_us });
            }
        }
    }

    /// Every operation that some disk still has.
    pub(super) fn survivors<'a>(&'a self, known: &'a Heads) -> impl Iterator<Item = &'a Entry> {
        self.facts.iter().flat_map(move |(origin, facts)| {
            let upto = usize::try_from(known.of(*origin)).unwrap_or(usize::MAX).min(facts.len());
            facts.get(..upto).unwrap_or_default().iter().map(|fact| &fact.entry)
        })
    }

    /// What went with a disk that was lost, by its author's order.
    pub(super) fn lost<'a>(&'a self, known: &'a Heads) -> impl Iterator<Item = &'a Entry> {
        self.lost_after.keys().flat_map(move |origin| {
            let facts = self.facts.get(origin).map_or(&[][..], Vec::as_slice);
            let from = usize::try_from(known.of(*origin)).unwrap_or(usize::MAX).min(facts.len());
            facts.get(from..).unwrap_or_default().iter().map(|fact| &fact.entry)
        })
    }

    /// Operations of an origin after a sequence that were on its disk by then, and when the first of them was written.
    pub(super) fn missing(&self, origin: OriginId, after: u64, by_us: u64) -> (u64, Option<u64>) {
        let facts = self.facts.get(&origin).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(after).unwrap_or(usize::MAX).min(facts.len());
        let rest = facts.get(from..).unwrap_or_default();
        let count = rest.iter().take_while(|fact| fact.at_us <= by_us).count() as u64;
        (count, rest.first().map(|fact| fact.at_us))
    }

    /// The stamp that a write with one change wants to find.
    pub(super) fn condition(write: &Write) -> Option<(&daemun_sync::store::op::Key, Stamp)> {
        let daemun_sync::store::request::Changes::Keys(changes) = &write.what else { return None };
        match changes.as_slice() {
            [change] => match change.condition {
                Condition::Is(stamp) => Some((&change.key, stamp)),
                _ => None,
            },
            _ => None,
        }
    }
}
