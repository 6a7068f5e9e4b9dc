//! What comes from other datacenters: what they have, their logs, and snapshots of what is under their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::cell::Cell;
use super::super::heads::Heads;
use super::super::journal::{Floor, JournalError, follows};
use super::super::op::{BadBatch, Batch, Key};
use super::super::stamp::{Origin, OriginId};
use super::{Cells, Conflict, DROPPED, OPEN_AGAIN, OPEN_ALONE, Phase, Replica, SILENCE};
use crate::core::Moment;

/// The most origins that are known: those of the largest fleet with some lives each.
const ORIGINS_MAX: usize = 4096;

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Itself.
    pub me: Origin,
    /// Every origin that it knows.
    pub origins: Vec<Origin>,
    /// What is durable there.
    pub received: Heads,
}

/// Why nothing is taken from, or given to, another store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It was given up.
    #[error("the store {0} was forgotten: stop its process, run `daemun kv rebuild`, and start it again")]
    Forgotten(Origin),
    /// It is not who was asked for.
    #[error("this is the store of {found}, not of {expected}: check `agent` of {expected}")]
    SomeoneElse {
        /// Who it is.
        found: String,
        /// Who it should be.
        expected: String,
    },
    /// Its datacenter is not in the config.
    #[error("datacenter {0} is not in the config here")]
    NotInConfig(String),
    /// A newer store has taken its place.
    #[error("the store {0} was replaced by a newer one of its datacenter")]
    Replaced(Origin),
    /// It runs as our datacenter.
    #[error("the store {0} says that it is of this datacenter: are there two processes of it?")]
    Twin(Origin),
    /// Names without end.
    #[error("more than {ORIGINS_MAX} origins")]
    TooManyOrigins,
    /// Its batch is wrong.
    #[error(transparent)]
    Batch(#[from] BadBatch),
    /// A batch of an origin that it has not named.
    #[error("a batch of {0}, which was not named")]
    Unnamed(OriginId),
    /// The own store failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Replica {
    /// What to tell others.
    pub fn word(&self) -> Word {
        Word {
            me: self.me.clone(),
            origins: self.origins.values().cloned().collect(),
            received: self.received.clone(),
        }
    }

    /// Takes in what another store says of itself; `peer` is the datacenter in its certificate.
    ///
    /// # Errors
    /// Why it is not spoken with.
    pub fn hear(&mut self, moment: Moment, peer: &str, word: &Word) -> Result<(), Denied> {
        self.is_admitted(peer, &word.me)?;
        for origin in &word.origins {
            self.learn(origin)?;
        }
        self.learn(&word.me)?;
        let Some(known) = self.peers.get_mut(peer) else { return Err(Denied::NotInConfig(peer.to_owned())) };
        if known.origin.as_ref() != Some(&word.me) {
            // Another store than before: what the old one had is gone.
            known.origin = Some(word.me.clone());
            known.received = Heads::default();
        }
        known.received.join(&word.received);
        if !is_heard(known.heard_at, moment.now) {
            self.goal.join(&word.received);
        }
        known.heard_at = Some(moment.now);
        if let Phase::Opening { goals, .. } = &mut self.phase {
            goals.entry(peer.to_owned()).or_insert_with(|| word.received.clone());
        }
        let is_newest = |origin: &Origin| {
            origin.datacenter != self.me.datacenter || origin.incarnation <= self.me.incarnation
        };
        if word.received.of(self.id) > self.received.of(self.id) || !self.origins.values().all(is_newest) {
            self.begin_again(moment);
        }
        self.open_if_ready(moment);
        self.end_done_waits();
        Ok(())
    }

    /// A follower has made everything up to here durable.
    pub fn confirmed(&mut self, moment: Moment, peer: &str, store: &Origin, received: &Heads) {
        // A stream of a store that was replaced may still be open.
        let known = self.peers.get_mut(peer).filter(|known| known.origin.as_ref() == Some(store));
        let Some(known) = known else { return };
        known.received.join(received);
        known.heard_at = Some(moment.now);
        self.end_done_waits();
    }

    /// Whether a store may speak for a datacenter.
    ///
    /// # Errors
    /// Why not.
    pub fn is_admitted(&self, peer: &str, store: &Origin) -> Result<(), Denied> {
        if store.datacenter == self.me.datacenter {
            return Err(Denied::Twin(store.clone()));
        }
        if store.datacenter != peer {
            let (found, expected) = (store.datacenter.clone(), peer.to_owned());
            return Err(Denied::SomeoneElse { found, expected });
        }
        if self.forgotten.get(peer).is_some_and(|refused| store.incarnation <= *refused) {
            return Err(Denied::Forgotten(store.clone()));
        }
        if self.live(peer).is_some_and(|live| store.incarnation < live.incarnation) {
            return Err(Denied::Replaced(store.clone()));
        }
        Ok(())
    }

    fn learn(&mut self, origin: &Origin) -> Result<(), Denied> {
        if self.origins.contains_key(&origin.id()) {
            return Ok(());
        }
        if self.origins.len() >= ORIGINS_MAX {
            return Err(Denied::TooManyOrigins);
        }
        self.origins.insert(origin.id(), origin.clone());
        self.unnamed.push(origin.clone());
        Ok(())
    }

    /// Others know more of our log than we do, or of a newer store in our place: our disk is an old copy. What we write from
    /// now on is another origin's, and what is missing of the old one comes from those who have it.
    fn begin_again(&mut self, moment: Moment) {
        self.end_all_waits();
        // What is on its way to the disk would go on where others know something else.
        let (id, received) = (self.id, self.received.of(self.id));
        self.outgoing.retain(|batch| batch.origin != id);
        self.staged.clear();
        self.staged_cells.clear();
        self.accepted.remove(id);
        self.accepted.raise(id, received);
        self.chains.insert(id, self.own_chain);
        self.own_chain = 0;
        let newest = self.origins.values().filter(|origin| origin.datacenter == self.me.datacenter);
        let above = newest.map(|origin| origin.incarnation + 1).max().unwrap_or(0);
        self.me.incarnation = above.max(moment.unix_ms);
        self.id = self.me.id();
        self.origins.insert(self.id, self.me.clone());
        self.unnamed.push(self.me.clone());
        self.others = std::sync::Arc::new(self.durably_applied());
        self.said = std::sync::Arc::default();
        tracing::warn!(origin = %self.me, "the disk is older than what others know: a new incarnation begins");
        let goals = self.peers.iter().filter(|(_, peer)| peer.heard_at.is_some());
        let goals = goals.map(|(name, peer)| (name.clone(), peer.received.clone())).collect();
        self.phase = Phase::Opening { since: moment.now, is_new: true, goals };
    }

    /// Opens for writes when all that the peers had when they were first heard is here, or they cannot be reached.
    pub(super) fn open_if_ready(&mut self, moment: Moment) {
        let Phase::Opening { since, is_new, goals } = &self.phase else { return };
        let waited = moment.now.saturating_sub(*since);
        let is_late = waited >= if *is_new { OPEN_ALONE } else { OPEN_AGAIN };
        // What the log has and the keys do not comes first: what is written next is to know it.
        if self.has_more(moment.unix_ms) {
            return;
        }
        let is_ready = self.counted().all(|(name, peer)| match goals.get(name) {
            None => is_late,
            Some(goal) if *is_new => {
                // One that dies while it is asked is waited for no longer than one that never answered.
                let is_gone = is_late && !is_heard(peer.heard_at, moment.now);
                self.accepted.covers(goal) || is_gone
            }
            Some(_) => true,
        });
        if is_ready {
            tracing::info!(origin = %self.me, "the store is open for writes");
            self.phase = Phase::Open;
            self.heartbeat_at = moment.now;
        }
    }

    /// Whether writes are taken.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Takes in a part of another origin's log. What is known already is passed over; true when anything was new.
    ///
    /// # Errors
    /// What is wrong with it; then nothing of it is taken in.
    pub fn receive(&mut self, moment: Moment, cells: &mut impl Cells, batch: Batch) -> Result<bool, Denied> {
        let origin = batch.origin;
        if !self.origins.contains_key(&origin) {
            return Err(Denied::Unnamed(origin));
        }
        let head = self.accepted.of(origin);
        if batch.records.is_empty() || batch.last() <= head || origin == self.id {
            return Ok(false);
        }
        let batch = batch.after(head)?;
        follows(head, self.chains.get(&origin).copied().unwrap_or(0), &batch)?;
        let entries = batch.entries()?;
        self.chains.insert(origin, batch.chain_after());
        self.accepted.raise(origin, batch.last());
        // The own batch stays last: what it knew is on the disk before it.
        let at =
            self.outgoing.iter().position(|batch| batch.origin == self.id).unwrap_or(self.outgoing.len());
        match at.checked_sub(1).and_then(|before| self.outgoing.get_mut(before)) {
            Some(before) if before.origin == origin => {
                if let Err(batch) = before.extend(batch) {
                    self.outgoing.insert(at, batch);
                }
            }
            Some(_) | None => self.outgoing.insert(at, batch),
        }
        for entry in entries {
            let is_next = self.applied.of(origin) + 1 == entry.sequence;
            if !is_next && self.applied.of(origin) >= entry.sequence {
                // Applied before a write failed, and only now to be durable.
                if origin != self.id {
                    std::sync::Arc::make_mut(&mut self.others).raise(origin, entry.sequence);
                }
                continue;
            }
            if !is_next || !self.may_apply(&entry, moment.unix_ms) {
                break;
            }
            self.apply(&entry, moment, cells)?;
        }
        Ok(true)
    }

    /// Takes in keys of another store, of a snapshot or of a range that differed; gives the keys that changed here.
    ///
    /// # Errors
    /// When a cell cannot be read.
    pub fn receive_cells(
        &mut self,
        moment: Moment,
        cells: &mut impl Cells,
        theirs: Vec<(Key, Cell)>,
    ) -> Result<Vec<Key>, JournalError> {
        let mut changed = Vec::new();
        for (key, mut other) in theirs {
            if let Some(register) = &other.register {
                let (origin, sequence) = (register.stamp.origin, register.sequence);
                if self.dropped.contains(&(origin, sequence)) {
                    other.without(origin, sequence);
                }
            }
            if key.bucket() == DROPPED
                && let Some(dropped) = parse_dropped(key.name())
                && self.dropped.insert(dropped)
            {
                self.to_take_back.push(dropped);
            }
            let mut cell = cells.get(&key)?.unwrap_or_default();
            let (is_changed, loser) = cell.join(&other, moment.unix_ms);
            // Whatever is written here from now on is later, as with any operation that is applied.
            self.clock.see(cell.newest.time);
            if let Some(loser) = loser {
                self.conflicts.push(Conflict { key: key.clone(), loser });
            }
            if is_changed {
                cells.set(key.clone(), cell);
                changed.push(key);
            }
        }
        self.has_overtaken = true;
        Ok(changed)
    }

    /// A snapshot is complete: all of it was taken in, and is as if each log had been received up to its floor.
    pub fn end_of_snapshot(&mut self, floors: &BTreeMap<OriginId, Floor>) {
        let mut adopted = BTreeSet::new();
        for (&origin, &floor) in floors {
            if origin == self.id || floor.sequence <= self.accepted.of(origin) {
                // Applied, though it may not be received: nothing of it is to be asked for the cells' sake.
                continue;
            }
            adopted.insert(origin);
            self.accepted.raise(origin, floor.sequence);
            self.received.raise(origin, floor.sequence);
            self.chains.insert(origin, floor.chain);
            self.floors.insert(origin, floor);
            self.applied.raise(origin, floor.sequence);
            std::sync::Arc::make_mut(&mut self.others).raise(origin, floor.sequence);
            self.held.remove(&origin);
        }
        // The log goes on after the floor; what was on its way to the disk is below it.
        self.outgoing.retain(|batch| !adopted.contains(&batch.origin));
    }

    /// Floors that the journal is to begin at, once the cells are durable.
    pub fn to_begin_at(&mut self) -> BTreeMap<OriginId, Floor> {
        std::mem::take(&mut self.floors)
    }

    /// Whether a link was heard of late.
    pub fn hears(&self, peer: &str, now: Duration) -> bool {
        self.peers.get(peer).is_some_and(|peer| is_heard(peer.heard_at, now))
    }

    /// The datacenters whose logs are wanted from a peer: its own, ours (of earlier lives), and those who cannot be
    /// reached themselves.
    pub fn wants(&self, peer: &str, now: Duration) -> BTreeSet<String> {
        let of_all = self.origins.values().map(|origin| &origin.datacenter).chain(self.peers.keys());
        let is_wanted = |name: &&String| {
            **name == self.me.datacenter
                || **name == peer
                || !self.hears(name, now)
                || !self.peers.contains_key(*name)
        };
        of_all.filter(is_wanted).cloned().collect()
    }

    /// What is asked after: durable, and in no log twice.
    pub fn after(&self) -> Heads {
        self.accepted.clone()
    }
}

fn is_heard(heard_at: Option<Duration>, now: Duration) -> bool {
    heard_at.is_some_and(|at| now.saturating_sub(at) < SILENCE)
}

/// Reads the key under which a dropped operation is remembered.
pub(crate) fn parse_dropped(name: &str) -> Option<(OriginId, u64)> {
    let (origin, sequence) = name.split_once(':')?;
    Some((OriginId(u32::from_str_radix(origin, 16).ok()?), sequence.parse().ok()?))
}
