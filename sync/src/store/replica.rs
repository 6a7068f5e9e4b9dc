//! The store of one datacenter without its shell: writes of applications, logs of other datacenters and the passing of time
//! go in; batches to make durable, replies and what is known of lag come out. `run` drives it, and so does the simulator.
//!
//! ```text
//!   write ──▶ staged ──▶ to_append ─(journal)─▶ committed ──▶ applied ──▶ reply
//!   batch ──▶ applied at once, to_append ─(journal)─▶ committed: asked after, which acknowledges it
//! ```
//!
//! Three frontiers: *accepted* (in the journal, or handed to it), *received* (durable here), *applied* (users see it). An own
//! operation is applied when it is durable, another's as soon as it is here: it is durable elsewhere.
//!
//! An operation stamped more than [`FUTURE_MAX_MS`] after now is received and waits; so do all after it of its origin, which
//! are stamped later still. When its time has come it is read from the journal.

mod commit;
mod lag;
mod receive;
mod waits;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, Loser};
use super::heads::Heads;
use super::journal::{Floor, JournalError, Logs, Read};
use super::op::{Action, Batch, Entry, Key};
use super::request::Reply;
use super::stamp::{Hlc, Origin, OriginId, Stamp};
use crate::core::Moment;
pub use lag::{Lag, Stage};
pub(crate) use receive::parse_dropped;
pub use receive::{Denied, Word};
use waits::Wait;

/// An operation stamped later than this after now waits for its time: well-kept clocks agree far better.
pub const FUTURE_MAX_MS: u64 = 500;
/// Time between two heartbeats in a log.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Who was not heard for so long is not in reach.
pub const SILENCE: Duration = crate::pull::SILENCE;
/// A new store waits so long for peers that do not answer before it opens without them.
const OPEN_ALONE: Duration = Duration::from_secs(10);
/// One that goes on after a restart: whether the peers know more of it than it does itself (an old copy of its disk)
/// they say at once, or are out of reach.
const OPEN_AGAIN: Duration = Duration::from_secs(3);
/// Bytes that are read at once to apply what waits.
const CATCH_UP_BYTES: usize = 1 << 20;
/// Bucket of what is remembered of dropped operations: no user's bucket begins with a dot.
pub(super) const DROPPED: &str = ".dropped";

/// The keys and what is under them, as far as it is applied.
pub trait Cells {
    /// What is under a key.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    fn get(&mut self, key: &Key) -> Result<Option<Cell>, JournalError>;

    /// What is under it from now on.
    fn set(&mut self, key: Key, cell: Cell);
}

/// In memory: for tests and simulations.
impl Cells for BTreeMap<Key, Cell> {
    fn get(&mut self, key: &Key) -> Result<Option<Cell>, JournalError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn set(&mut self, key: Key, cell: Cell) {
        self.insert(key, cell);
    }
}

/// What is known when a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// How far the cells have been applied.
    pub applied: Heads,
    /// Newest times that are in the cells or the log: the clock goes on above.
    pub clock: u64,
    /// Operations that are never applied.
    pub dropped: BTreeSet<(OriginId, u64)>,
    /// Incarnations that were forgotten, by datacenter: the highest.
    pub forgotten: BTreeMap<String, u64>,
    /// The store was made just now.
    pub is_new: bool,
}

/// Limits of the log on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many entries are kept though all have them: watches can resume.
    pub entries_min: u64,
    /// Over so many entries the oldest go though somebody lacks them: it gets a snapshot.
    pub entries_max: u64,
}

/// What another datacenter has.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// Its store.
    origin: Option<Origin>,
    /// What it said that it has received.
    received: Heads,
    /// When it last said anything.
    heard_at: Option<Duration>,
    /// Its clock less ours, and how far that may be wrong, milliseconds.
    skew: Option<(i64, u64)>,
}

/// Whether writes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The peers are asked first.
    Opening {
        since: Duration,
        is_new: bool,
        /// What each of them had when it was first heard.
        goals: BTreeMap<String, Heads>,
    },
    Open,
}

/// A key's value that lost against a concurrent one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key.
    pub key: Key,
    /// What lost.
    pub loser: Loser,
}

/// The store's state.
#[derive(Debug)]
pub struct Replica {
    me: Origin,
    id: OriginId,
    clock: Hlc,
    origins: BTreeMap<OriginId, Origin>,
    /// Names that the journal does not know yet.
    unnamed: Vec<Origin>,
    accepted: Heads,
    received: Heads,
    applied: Heads,
    /// What is applied of others: what an own operation knows.
    others: Arc<Heads>,
    /// What the last own record knew.
    said: Arc<Heads>,
    /// The chain after what is accepted.
    chains: BTreeMap<OriginId, u64>,
    /// The chain after our own that is durable.
    own_chain: u64,
    /// What the newest applied entry of each origin knew, and its number.
    knowledge: BTreeMap<OriginId, (Arc<Heads>, u64)>,
    /// The newest heartbeat applied of each origin, by its clock, and when that was.
    heartbeats: BTreeMap<OriginId, (u64, Duration)>,
    /// To be appended: batches of others, then our own.
    outgoing: Vec<Batch>,
    /// Own entries that are not durable yet, and what the keys will then hold.
    staged: Vec<Entry>,
    staged_cells: HashMap<Key, Cell>,
    /// Operations of others were applied since something was staged.
    has_overtaken: bool,
    waits: BTreeMap<u64, Vec<Wait>>,
    replies: Vec<(u64, Reply)>,
    peers: BTreeMap<String, Peer>,
    /// Datacenters that are not waited for, and the highest incarnation of theirs that is refused.
    forgotten: BTreeMap<String, u64>,
    is_forgotten: BTreeSet<String>,
    dropped: BTreeSet<(OriginId, u64)>,
    held: BTreeMap<OriginId, u64>,
    /// Dropped when they were applied already: to be taken back.
    to_take_back: Vec<(OriginId, u64)>,
    conflicts: Vec<Conflict>,
    phase: Phase,
    heartbeat_at: Duration,
    /// What the others had when they could be reached again: a return waits for it.
    goal: Heads,
    /// Why nothing can be written.
    failure: Option<JournalError>,
    /// The floor of each log after a snapshot: to be told to the journal once the cells are durable.
    floors: BTreeMap<OriginId, Floor>,
    operations: u64,
}

impl Replica {
    /// A store that goes on from what is in its journal and cells.
    pub fn new(me: Origin, journal: &impl Logs, opened: Opened, moment: Moment) -> Self {
        let heads = journal.heads();
        let mut clock = Hlc::default();
        clock.see(opened.clock);
        let id = me.id();
        let origins: BTreeMap<_, _> =
            journal.origins().into_iter().chain([me.clone()]).map(|origin| (origin.id(), origin)).collect();
        let phase = Phase::Opening { since: moment.now, is_new: opened.is_new, goals: BTreeMap::new() };
        // The keys may know more than the log: what is not in it was never said to be here.
        let mut others = opened.applied.clone();
        others.meet(&heads);
        others.remove(id);
        Self {
            own_chain: journal.chain(id),
            unnamed: vec![me.clone()],
            chains: heads.iter().map(|(origin, _)| (origin, journal.chain(origin))).collect(),
            me,
            id,
            clock,
            origins,
            accepted: heads.clone(),
            received: heads,
            applied: opened.applied,
            // Whole in the next record, whatever the last one knew.
            said: Arc::default(),
            others: Arc::new(others),
            knowledge: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            outgoing: Vec::new(),
            staged: Vec::new(),
            staged_cells: HashMap::new(),
            has_overtaken: false,
            waits: BTreeMap::new(),
            replies: Vec::new(),
            peers: BTreeMap::new(),
            forgotten: opened.forgotten,
            is_forgotten: BTreeSet::new(),
            dropped: opened.dropped,
            held: BTreeMap::new(),
            to_take_back: Vec::new(),
            conflicts: Vec::new(),
            phase,
            heartbeat_at: moment.now,
            goal: Heads::default(),
            failure: None,
            floors: BTreeMap::new(),
            operations: 0,
        }
    }

    /// Who else there is: what is known of those that stay is kept.
    pub fn set_peers(&mut self, names: impl IntoIterator<Item = String>) {
        let mut known = std::mem::take(&mut self.peers);
        let names = names.into_iter().filter(|name| *name != self.me.datacenter);
        self.peers = names.map(|name| (name.clone(), known.remove(&name).unwrap_or_default())).collect();
    }

    /// Which datacenters are given up for good: they are not waited for, and what they are now is refused from now on.
    pub fn set_forgotten(&mut self, names: BTreeSet<String>) {
        for name in &names {
            let newest = self.live(name).map_or(0, |origin| origin.incarnation);
            if !self.is_forgotten.contains(name) {
                let refused = self.forgotten.entry(name.clone()).or_default();
                *refused = newest.max(*refused);
            }
        }
        self.is_forgotten = names;
    }

    /// The highest incarnation of each datacenter that is refused for good.
    pub fn forgotten(&self) -> &BTreeMap<String, u64> {
        &self.forgotten
    }

    /// How far a peer's clock is from ours, and how wrong that may be, milliseconds.
    pub fn set_skew(&mut self, peer: &str, skew: Option<(i64, u64)>) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.skew = skew;
        }
    }

    /// The newest store of a datacenter.
    fn live(&self, datacenter: &str) -> Option<&Origin> {
        if datacenter == self.me.datacenter {
            return Some(&self.me);
        }
        let of_it = self.origins.values().filter(|origin| origin.datacenter == datacenter);
        of_it.max_by_key(|origin| origin.incarnation)
    }

    /// Peers that are not forgotten. One that has come back emptied counts, whoever has not taken back the word yet.
    fn counted(&self) -> impl Iterator<Item = (&String, &Peer)> {
        let is_forgotten = |name: &String| {
            let refused = self.forgotten.get(name).copied().unwrap_or(0);
            self.is_forgotten.contains(name)
                && self.live(name).is_none_or(|origin| origin.incarnation <= refused)
        };
        self.peers.iter().filter(move |(name, _)| !is_forgotten(name))
    }

    /// What is applied and in the log, our own left out: what an own operation may say that it knew.
    fn durably_applied(&self) -> Heads {
        let mut known = self.applied.clone();
        known.meet(&self.received);
        known.remove(self.id);
        known
    }

    /// Does what time asks for: heartbeats, operations whose time has come, writers that have waited long enough.
    ///
    /// # Errors
    /// When what waits cannot be read; nothing is lost, it is tried again.
    pub fn tick(
        &mut self,
        moment: Moment,
        journal: &impl Logs,
        cells: &mut impl Cells,
    ) -> Result<(), JournalError> {
        self.open_if_ready(moment);
        self.end_waits(moment.now);
        self.apply_what_waits(moment, journal, cells)?;
        self.take_back(journal, cells)?;
        if self.heartbeat_at <= moment.now && matches!(self.phase, Phase::Open) {
            self.heartbeat_at = moment.now + HEARTBEAT;
            let time = self.clock.next(moment.unix_ms);
            self.stage(time, Action::Heartbeat { unix_ms: moment.unix_ms }, false);
        }
        Ok(())
    }

    fn apply_what_waits(
        &mut self,
        moment: Moment,
        journal: &impl Logs,
        cells: &mut impl Cells,
    ) -> Result<(), JournalError> {
        for (origin, _) in self.received.beyond(&self.applied) {
            let batch = match journal.read_after(origin, self.applied.of(origin), CATCH_UP_BYTES)? {
                Read::Next(Some(batch)) => batch,
                Read::Next(None) => continue,
                Read::Gone(floor) => {
                    let why = format!("the log of {origin} begins after {floor}, and the keys are older");
                    return Err(JournalError::Corrupt(why));
                }
            };
            for entry in batch.entries()? {
                if !self.may_apply(&entry, moment.unix_ms) {
                    break;
                }
                self.apply(&entry, moment, cells)?;
            }
        }
        Ok(())
    }

    /// Whether something is received and due that is not applied: [`tick`](Self::tick) again soon.
    pub fn has_more(&self, unix_ms: u64) -> bool {
        let is_due = |origin: &OriginId| self.held.get(origin).is_none_or(|due| *due <= unix_ms);
        self.received.beyond(&self.applied).iter().any(|(origin, _)| is_due(origin))
    }

    /// Whether an entry is not from the future; if it is, it and all after it of its origin wait.
    fn may_apply(&mut self, entry: &Entry, unix_ms: u64) -> bool {
        let origin = entry.stamp.origin;
        let due = entry.stamp.unix_ms().saturating_sub(FUTURE_MAX_MS);
        // What is never applied is not waited for.
        if self.dropped.contains(&(origin, entry.sequence)) {
            self.held.remove(&origin);
            return true;
        }
        // What our clock has passed is no future: whatever we write is later. So nothing that was seen before a restart is
        // held back after it, though the machine's clock went back. Our own were written by our own clock: users here have
        // been told that they are there.
        let is_passed = entry.stamp.time <= self.clock.last();
        if due <= unix_ms
            || is_passed
            || self.origins.get(&origin).is_some_and(|of| of.datacenter == self.me.datacenter)
        {
            self.held.remove(&origin);
            return true;
        }
        self.held.insert(origin, due);
        false
    }

    /// Origins whose next operation is from the future, and when its time comes, milliseconds of Unix time.
    pub fn held(&self) -> &BTreeMap<OriginId, u64> {
        &self.held
    }

    /// Applies the next entry of its origin.
    fn apply(&mut self, entry: &Entry, moment: Moment, cells: &mut impl Cells) -> Result<(), JournalError> {
        let Stamp { time, origin } = entry.stamp;
        let is_dropped = self.dropped.contains(&(origin, entry.sequence));
        match &entry.action {
            Action::Heartbeat { unix_ms } => {
                self.heartbeats.insert(origin, (*unix_ms, moment.now));
            }
            Action::Drop { origin, sequence } => self.apply_drop(*origin, *sequence, entry, cells)?,
            action => {
                if let Some(key) = action.key().filter(|_| !is_dropped) {
                    let mut cell = cells.get(key)?.unwrap_or_default();
                    if let Some(loser) = cell.apply(entry, moment.unix_ms) {
                        self.conflicts.push(Conflict { key: key.clone(), loser });
                    }
                    cells.set(key.clone(), cell);
                }
                self.operations += 1;
            }
        }
        self.applied.raise(origin, entry.sequence);
        if origin != self.id {
            Arc::make_mut(&mut self.others).raise(origin, entry.sequence);
            self.has_overtaken = true;
        }
        self.knowledge.insert(origin, (Arc::clone(&entry.known), entry.sequence));
        if !is_dropped {
            self.clock.see(time);
        }
        Ok(())
    }

    fn apply_drop(
        &mut self,
        origin: OriginId,
        sequence: u64,
        entry: &Entry,
        cells: &mut impl Cells,
    ) -> Result<(), JournalError> {
        let Ok(key) = Key::new(DROPPED, &format!("{origin}:{sequence}")) else { return Ok(()) };
        // Kept as a key, so that it comes with snapshots and is healed as any other.
        let value = super::op::Value { is_json: false, bytes: bytes::Bytes::new() };
        let action = Action::Put { key: key.clone(), value, expires_unix_ms: 0 };
        let mut cell = cells.get(&key)?.unwrap_or_default();
        cell.apply(&Entry { action, ..entry.clone() }, 0);
        cells.set(key, cell);
        if self.dropped.insert((origin, sequence)) && self.applied.of(origin) >= sequence {
            self.to_take_back.push((origin, sequence));
        }
        Ok(())
    }

    /// Takes back what was dropped when it was applied already; what was there before comes back from a peer that had not
    /// applied it ([`verify`](super::verify)).
    fn take_back(&mut self, journal: &impl Logs, cells: &mut impl Cells) -> Result<(), JournalError> {
        for (origin, sequence) in std::mem::take(&mut self.to_take_back) {
            let Read::Next(Some(batch)) = journal.read_after(origin, sequence.saturating_sub(1), 1)? else {
                continue;
            };
            let entries = batch.entries()?;
            let Some(key) = entries.first().and_then(|entry| entry.action.key()) else { continue };
            if let Some(mut cell) = cells.get(key)?
                && cell.without(origin, sequence)
            {
                cells.set(key.clone(), cell);
            }
        }
        Ok(())
    }

    /// Replies, each with the ticket of its write.
    pub fn replies(&mut self) -> Vec<(u64, Reply)> {
        std::mem::take(&mut self.replies)
    }

    /// Values that lost against concurrent ones since the last call.
    pub fn conflicts(&mut self) -> Vec<Conflict> {
        std::mem::take(&mut self.conflicts)
    }

    /// The store.
    pub fn origin(&self) -> &Origin {
        &self.me
    }

    /// Every origin that is known.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.origins.values()
    }

    /// What is durable here.
    pub fn received(&self) -> &Heads {
        &self.received
    }

    /// What users see.
    pub fn applied(&self) -> &Heads {
        &self.applied
    }

    /// The newest time that was given or seen.
    pub fn time(&self) -> u64 {
        self.clock.last()
    }

    /// The other datacenters.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.peers.keys().map(String::as_str)
    }

    /// Operations applied since the start, heartbeats not among them.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Operations that are never applied.
    pub fn dropped(&self) -> &BTreeSet<(OriginId, u64)> {
        &self.dropped
    }

    /// Why it cannot write.
    pub fn failure(&self) -> Option<&JournalError> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests;
