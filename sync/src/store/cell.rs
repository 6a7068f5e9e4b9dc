//! What is kept under a key, and how two versions of it become one: a join semilattice (Shapiro et al., "Conflict-free
//! Replicated Data Types", 2011). So operations and whole cells may arrive in any order, any number of times.
//!
//! - A *register* holds what was put, or that it was deleted: the highest stamp wins.
//! - A *counter* holds, for each origin, what that origin has added.
//! - A *set* holds, for each element, the newest addition of each origin, and which additions have been seen by a removal: an
//!   addition that a removal did not know of stays.
//!
//! A put or delete ends what was counted or added before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::heads::Heads;
use super::op::{Action, Entry, Value};
use super::stamp::{OriginId, Stamp};

/// The newest put or delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// When and by whom.
    pub stamp: Stamp,
    /// Its number in its origin's log.
    pub sequence: u64,
    /// What its author had applied.
    pub known: Arc<Heads>,
    /// `None`: deleted.
    pub value: Option<Value>,
    /// When it ends, milliseconds of Unix time; 0: never.
    pub expires_unix_ms: u64,
}

impl Register {
    /// Whether the value has ended or was deleted.
    pub fn is_over(&self, unix_ms: u64) -> bool {
        self.value.is_none() || (self.expires_unix_ms != 0 && self.expires_unix_ms <= unix_ms)
    }

    fn knew(&self, other: &Register) -> bool {
        let origin = other.stamp.origin;
        if origin == self.stamp.origin {
            other.sequence < self.sequence
        } else {
            self.known.of(origin) >= other.sequence
        }
    }
}

/// What one origin has added to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Time of the first increment that is in `total`.
    pub since: u64,
    /// Sequence of the last.
    pub sequence: u64,
    /// Their sum.
    pub total: i64,
}

/// An element of a set, or one that was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// By origin, sequence and time of its newest addition.
    added: BTreeMap<OriginId, (u64, u64)>,
    /// Additions that a removal has seen.
    removed: Heads,
    /// The newest removal by each origin: remembered until everybody has applied it.
    removals: Heads,
}

impl Element {
    /// Whether there is an addition that no removal has seen.
    pub fn is_in(&self) -> bool {
        self.added.iter().any(|(origin, (sequence, _))| *sequence > self.removed.of(*origin))
    }

    /// The additions seen now: what a removal is to end.
    pub fn seen(&self) -> Heads {
        self.added.iter().map(|(origin, (sequence, _))| (*origin, *sequence)).collect()
    }

    fn join(&mut self, other: &Element) {
        for (origin, addition) in &other.added {
            let mine = self.added.entry(*origin).or_default();
            *mine = (*mine).max(*addition);
        }
        self.removed.join(&other.removed);
        self.removals.join(&other.removals);
    }
}

/// All that is known of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The newest put or delete.
    pub register: Option<Register>,
    /// Stamp of the newest operation on it, of whatever kind.
    pub newest: Stamp,
    /// The counter, by origin.
    pub shares: BTreeMap<OriginId, Share>,
    /// The set.
    pub elements: BTreeMap<String, Element>,
}

/// What users see of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A value that was put.
    Value(&'a Value),
    /// The sum of a counter.
    Counter(i128),
    /// The elements of a set, in order.
    Set(Vec<&'a str>),
}

/// A value that lost against one that its author did not know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    /// It.
    pub register: Register,
    /// The stamp that won.
    pub winner: Stamp,
}

impl Cell {
    /// Takes in an operation; the value that lost, if two were truly concurrent.
    pub fn apply(&mut self, entry: &Entry, unix_ms: u64) -> Option<Loser> {
        let Stamp { time, origin } = entry.stamp;
        let register = |value, expires_unix_ms| Register {
            stamp: entry.stamp,
            sequence: entry.sequence,
            known: Arc::clone(&entry.known),
            value,
            expires_unix_ms,
        };
        let mut loser = None;
        match &entry.action {
            Action::Put { value, expires_unix_ms, .. } => {
                loser = self.write(register(Some(value.clone()), *expires_unix_ms), unix_ms);
            }
            Action::Delete { .. } => loser = self.write(register(None, 0), unix_ms),
            Action::Increment { total, since, .. } => {
                let share = Share { since: *since, sequence: entry.sequence, total: *total };
                self.share(origin, share);
            }
            Action::SetAdd { element, .. } => {
                let added = [(origin, (entry.sequence, time))].into();
                self.element(element, &Element { added, ..Element::default() });
            }
            // What has seen nothing ends nothing.
            Action::SetRemove { seen, .. } if seen.is_empty() => {}
            Action::SetRemove { element, seen, .. } => {
                let removals = [(origin, entry.sequence)].into_iter().collect();
                self.element(element, &Element { added: BTreeMap::new(), removed: seen.clone(), removals });
            }
            Action::Heartbeat { .. } | Action::Drop { .. } => return None,
        }
        self.newest = self.newest.max(entry.stamp);
        loser
    }

    /// Makes this and another one: true when that changed anything.
    pub fn join(&mut self, other: &Cell, unix_ms: u64) -> (bool, Option<Loser>) {
        let before = self.clone();
        let loser = other.register.clone().and_then(|register| self.write(register, unix_ms));
        for (origin, share) in &other.shares {
            self.share(*origin, *share);
        }
        for (name, element) in &other.elements {
            self.element(name, element);
        }
        self.newest = self.newest.max(other.newest);
        (*self != before, loser)
    }

    fn write(&mut self, new: Register, unix_ms: u64) -> Option<Loser> {
        let Some(old) = &self.register else {
            self.register = Some(new);
            self.end_what_was_before();
            return None;
        };
        if old.stamp == new.stamp {
            return None;
        }
        let is_conflict = !old.knew(&new) && !new.knew(old);
        let (winner, loser) = if new.stamp > old.stamp {
            let winner = new.stamp;
            let old = self.register.replace(new);
            self.end_what_was_before();
            (winner, old)
        } else {
            (old.stamp, Some(new))
        };
        let register = loser.filter(|loser| is_conflict && !loser.is_over(unix_ms))?;
        let is_same = self.register.as_ref().is_some_and(|winner| winner.value == register.value);
        (!is_same).then_some(Loser { register, winner })
    }

    fn ended_at(&self) -> Stamp {
        self.register.as_ref().map_or(Stamp::default(), |register| register.stamp)
    }

    fn end_what_was_before(&mut self) {
        let end = self.ended_at();
        self.shares.retain(|&origin, share| Stamp { time: share.since, origin } > end);
        for element in self.elements.values_mut() {
            element.added.retain(|&origin, &mut (_, time)| Stamp { time, origin } > end);
        }
        self.elements.retain(|_, element| !element.added.is_empty() || !element.removed.is_empty());
    }

    fn share(&mut self, origin: OriginId, share: Share) {
        if (Stamp { time: share.since, origin }) <= self.ended_at() {
            return;
        }
        let mine = self.shares.entry(origin).or_insert(share);
        if share.sequence > mine.sequence {
            *mine = share;
        }
    }

    fn element(&mut self, name: &str, other: &Element) {
        self.elements.entry(name.to_owned()).or_default().join(other);
        self.end_what_was_before();
    }

    /// What users see now; `None`: nothing.
    pub fn seen(&self, unix_ms: u64) -> Option<Seen<'_>> {
        if let Some(Register { value: Some(value), .. }) =
            self.register.as_ref().filter(|register| !register.is_over(unix_ms))
        {
            return Some(Seen::Value(value));
        }
        if !self.shares.is_empty() {
            return Some(Seen::Counter(self.shares.values().map(|share| i128::from(share.total)).sum()));
        }
        let elements = self.elements.iter().filter(|(_, element)| element.is_in());
        let names: Vec<&str> = elements.map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then_some(Seen::Set(names))
    }

    /// When the value ends, milliseconds of Unix time; 0: never.
    pub fn expires_unix_ms(&self) -> u64 {
        self.register.as_ref().map_or(0, |register| register.expires_unix_ms)
    }

    /// Whether everything that can still arrive is newer than all that is only remembered here, and so may be left out:
    /// `stable` is what every datacenter has applied.
    ///
    /// Gives what is left of it; `None`: nothing.
    pub fn without_the_past(&self, stable: &Heads, unix_ms: u64) -> Option<Cell> {
        let mut cell = self.clone();
        let is_past = |origin: OriginId, sequence: u64| stable.of(origin) >= sequence;
        cell.elements.retain(|_, element| {
            let additions = element.added.iter().all(|(origin, (sequence, _))| is_past(*origin, *sequence));
            element.is_in() || !additions || !stable.covers(&element.removals)
        });
        let is_over = |register: &Register| {
            register.is_over(unix_ms) && is_past(register.stamp.origin, register.sequence)
        };
        if cell.shares.is_empty() && cell.elements.is_empty() && cell.register.as_ref().is_none_or(is_over) {
            return None;
        }
        Some(cell)
    }

    /// Whether it is only remembered: users see nothing, or part of a set is a memory.
    pub fn has_a_past(&self, unix_ms: u64) -> bool {
        self.seen(unix_ms).is_none() || self.elements.values().any(|element| !element.is_in())
    }

    /// Without a register that was written by a dropped operation.
    pub fn without(&mut self, origin: OriginId, sequence: u64) -> bool {
        let is_it = |register: &Register| register.stamp.origin == origin && register.sequence == sequence;
        let had = self.register.as_ref().is_some_and(is_it);
        if had {
            self.register = None;
        }
        had
    }

    /// The operations that made it what it is, as far as it shows: all of them are in the log of who has it.
    pub fn made_of(&self) -> Heads {
        let register = self.register.iter().map(|register| (register.stamp.origin, register.sequence));
        let shares = self.shares.iter().map(|(origin, share)| (*origin, share.sequence));
        let added = self
            .elements
            .values()
            .flat_map(|element| element.added.iter().map(|(origin, (sequence, _))| (*origin, *sequence)));
        register.chain(shares).chain(added).collect()
    }
}

#[cfg(test)]
mod tests;
