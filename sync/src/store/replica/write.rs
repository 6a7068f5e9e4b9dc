//! Writes of applications: conditions are weighed against what is applied and what is on its way to the disk, so that they
//! are atomic in this datacenter's order.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::cell::{Cell, Register, Seen};
use super::super::journal::JournalError;
use super::super::op::{Action, ELEMENT_BYTES_MAX, ELEMENTS_MAX, Key, VALUE_BYTES_MAX, Value};
use super::super::request::{
    CHANGES_MAX, Change, ChangeKind, Changes, Condition, Durability, Refusal, Reply, Write,
};
use super::super::stamp::{OriginId, Stamp};
use super::waits::Wait;
use super::{Cells, FUTURE_MAX_MS, Phase, Replica};
use crate::core::Moment;

/// Operations that wait for the disk at once: memory is bounded, and a disk that is slower than this is behind for good.
const STAGED_MAX: usize = 100_000;

/// Why a write is not made: the writer's affair, or the store's.
enum Stop {
    Refusal(Refusal),
    Journal(JournalError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refusal(refusal)
    }
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Stop::Journal(error)
    }
}

/// What a key holds as this write goes on: what it has changed itself, then what is staged, then what is applied.
struct Now<'a, C> {
    changed: HashMap<Key, Cell>,
    staged: &'a HashMap<Key, Cell>,
    cells: &'a mut C,
}

impl<C: Cells> Now<'_, C> {
    fn get(&mut self, key: &Key) -> Result<Cell, JournalError> {
        if let Some(cell) = self.changed.get(key).or_else(|| self.staged.get(key)) {
            return Ok(cell.clone());
        }
        Ok(self.cells.get(key)?.unwrap_or_default())
    }
}

impl Replica {
    /// Takes in a write. Its reply comes out with the ticket, now or when it is as durable as was asked.
    ///
    /// # Errors
    /// When a cell cannot be read; the write is refused.
    pub fn write(
        &mut self,
        moment: Moment,
        cells: &mut impl Cells,
        ticket: u64,
        write: &Write,
    ) -> Result<(), JournalError> {
        match self.begin(moment, cells, ticket, write) {
            Ok(()) => Ok(()),
            Err(Stop::Refusal(refusal)) => {
                self.replies.push((ticket, Reply::Refused(refusal)));
                Ok(())
            }
            Err(Stop::Journal(error)) => {
                self.replies.push((ticket, Reply::Refused(Refusal::Disk(error.to_string()))));
                Err(error)
            }
        }
    }

    fn begin(
        &mut self,
        moment: Moment,
        cells: &mut impl Cells,
        ticket: u64,
        write: &Write,
    ) -> Result<(), Stop> {
        self.may_write(write.durability)?;
        let actions = match &write.what {
            Changes::Drop { origin, sequence } => {
                self.check_drop(*origin, *sequence, moment)?;
                vec![(self.clock.next(moment.unix_ms), Action::Drop { origin: *origin, sequence: *sequence })]
            }
            Changes::Keys(changes) => self.actions(moment, cells, changes)?,
        };
        let count = actions.len();
        let stamps: Vec<Stamp> = actions
            .into_iter()
            .enumerate()
            .map(|(at, (time, action))| self.stage(time, action, at + 1 < count))
            .collect();
        let wait = Wait { ticket, stamps, durability: write.durability, until: moment.now + write.patience };
        self.wait(wait);
        Ok(())
    }

    fn may_write(&self, durability: Durability) -> Result<(), Refusal> {
        if let Phase::Opening { is_new, .. } = &self.phase {
            let what = if *is_new {
                "it is new, and first takes back what the others have"
            } else {
                "asking the peers"
            };
            return Err(Refusal::NotOpen(what.to_owned()));
        }
        if let Durability::Remote(wanted) = durability {
            let there = self.counted().count();
            if there < wanted as usize {
                return Err(Refusal::TooFew { wanted, there });
            }
        }
        if self.staged.len() >= STAGED_MAX {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn check_drop(&self, origin: OriginId, sequence: u64, moment: Moment) -> Result<(), Refusal> {
        let no = |why: String| Err(Refusal::NotDroppable(why));
        if self.dropped.contains(&(origin, sequence)) {
            return no(format!("operation {sequence} of {origin} is dropped already"));
        }
        if self.received.of(origin) < sequence {
            return no(format!("operation {sequence} of {origin} is not known here"));
        }
        if self.applied.of(origin) >= sequence {
            let late = self.clock.ahead_ms(moment.unix_ms).min(FUTURE_MAX_MS);
            return no(format!(
                "operation {sequence} of {origin} is applied already (clock {late} ms ahead): write the key anew"
            ));
        }
        Ok(())
    }

    fn actions(
        &mut self,
        moment: Moment,
        cells: &mut impl Cells,
        changes: &[Change],
    ) -> Result<Vec<(u64, Action)>, Stop> {
        if changes.is_empty() || changes.len() > CHANGES_MAX {
            return Err(Refusal::TooLarge { what: "a write", max: CHANGES_MAX, found: changes.len() }.into());
        }
        let mut clock = self.clock;
        let mut actions = Vec::with_capacity(changes.len());
        let mut now = Now { changed: HashMap::new(), staged: &self.staged_cells, cells };
        for change in changes {
            let time = clock.next(moment.unix_ms);
            let stamp = Stamp { time, origin: self.id };
            let Change { key, condition, kind } = change;
            if *condition != Condition::None {
                weigh(key, *condition, &now.get(key)?, moment.unix_ms)?;
            }
            let action = action(self.id, moment.unix_ms, time, key, kind, &mut now)?;
            let mut cell = match action {
                Action::Put { .. } | Action::Delete { .. } => Cell::default(),
                _ => now.get(key)?,
            };
            // Its number is not known yet; nothing that reads what is staged asks for it.
            let sequence = self.accepted.of(self.id) + 1 + actions.len() as u64;
            let known = Arc::clone(&self.others);
            let entry = super::Entry { sequence, stamp, known, more: false, action };
            cell.apply(&entry, moment.unix_ms);
            now.changed.insert(key.clone(), cell);
            actions.push((time, entry.action));
        }
        let changed = now.changed;
        self.staged_cells.extend(changed);
        self.clock = clock;
        Ok(actions)
    }
}

/// The stamp that users see of a cell.
pub(crate) fn current(cell: &Cell, unix_ms: u64) -> Option<Stamp> {
    cell.seen(unix_ms).map(|_| cell.newest)
}

fn weigh(key: &Key, condition: Condition, cell: &Cell, unix_ms: u64) -> Result<(), Refusal> {
    let current = current(cell, unix_ms);
    let holds = match condition {
        Condition::None => true,
        Condition::Is(stamp) => current == Some(stamp),
        Condition::IsNot(stamp) => current != Some(stamp),
        Condition::Exists => current.is_some(),
        Condition::Absent => current.is_none(),
    };
    if holds { Ok(()) } else { Err(Refusal::Condition { key: key.clone(), current }) }
}

/// The operation that makes a change.
fn action<C: Cells>(
    me: OriginId,
    unix_ms: u64,
    time: u64,
    key: &Key,
    kind: &ChangeKind,
    now: &mut Now<'_, C>,
) -> Result<Action, Stop> {
    let key = key.clone();
    Ok(match kind {
        ChangeKind::Put { value, ttl } => {
            check_size(value)?;
            let ttl = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            let expires_unix_ms = if ttl == 0 { 0 } else { unix_ms.saturating_add(ttl) };
            Action::Put { key, value: value.clone(), expires_unix_ms }
        }
        ChangeKind::Delete => Action::Delete { key },
        ChangeKind::Patch(patch) => {
            let cell = now.get(&key)?;
            let (value, expires_unix_ms) = patched(&key, &cell, patch, unix_ms)?;
            Action::Put { key, value, expires_unix_ms }
        }
        ChangeKind::Increment(by) => {
            let cell = now.get(&key)?;
            expect(&key, &cell, unix_ms, "a counter")?;
            let mine = cell.shares.get(&me);
            let since = mine.map_or(time, |share| share.since);
            let total = mine.map_or(0, |share| share.total).checked_add(*by);
            let total = total.ok_or_else(|| Refusal::Overflow { key: key.clone() })?;
            Action::Increment { key, by: *by, total, since }
        }
        ChangeKind::Add(element) => {
            let cell = now.get(&key)?;
            expect(&key, &cell, unix_ms, "a set")?;
            let bytes = element.len();
            if bytes > ELEMENT_BYTES_MAX {
                return Err(too_large("bytes of an element", ELEMENT_BYTES_MAX, bytes));
            }
            if cell.elements.len() >= ELEMENTS_MAX && !cell.elements.contains_key(element) {
                return Err(too_large("elements of a set", ELEMENTS_MAX, cell.elements.len() + 1));
            }
            Action::SetAdd { key, element: element.clone() }
        }
        ChangeKind::Remove(element) => {
            let cell = now.get(&key)?;
            expect(&key, &cell, unix_ms, "a set")?;
            let seen = cell.elements.get(element).map(super::super::cell::Element::seen).unwrap_or_default();
            Action::SetRemove { key, element: element.clone(), seen }
        }
    })
}

fn too_large(what: &'static str, max: usize, found: usize) -> Stop {
    Refusal::TooLarge { what, max, found }.into()
}

fn check_size(value: &Value) -> Result<(), Stop> {
    let bytes = value.bytes.len();
    if bytes <= VALUE_BYTES_MAX { Ok(()) } else { Err(too_large("bytes of a value", VALUE_BYTES_MAX, bytes)) }
}

/// A counter or set may begin where there is nothing.
fn expect(key: &Key, cell: &Cell, unix_ms: u64, wanted: &'static str) -> Result<(), Refusal> {
    let holds = match cell.seen(unix_ms) {
        None => return Ok(()),
        Some(Seen::Value(_)) => "a value",
        Some(Seen::Counter(_)) => "a counter",
        Some(Seen::Set(_)) => "a set",
    };
    if holds == wanted { Ok(()) } else { Err(Refusal::Kind { key: key.clone(), holds, wanted }) }
}

/// The value after a JSON merge patch, and when it ends.
fn patched(key: &Key, cell: &Cell, patch: &serde_json::Value, unix_ms: u64) -> Result<(Value, u64), Stop> {
    let (mut document, expires) = match cell.seen(unix_ms) {
        None => (serde_json::Value::Null, 0),
        Some(Seen::Value(Value { is_json: true, bytes })) => {
            let document =
                serde_json::from_slice(bytes).map_err(|_| Refusal::NotJson { key: key.clone() })?;
            (document, cell.register.as_ref().map_or(0, |Register { expires_unix_ms, .. }| *expires_unix_ms))
        }
        Some(_) => return Err(Refusal::NotJson { key: key.clone() }.into()),
    };
    merge_patch(&mut document, patch);
    let bytes = serde_json::to_vec(&document).map_err(|_| Refusal::NotJson { key: key.clone() })?;
    let value = Value { is_json: true, bytes: bytes.into() };
    check_size(&value)?;
    Ok((value, expires))
}

/// RFC 7396 section 2.
pub(crate) fn merge_patch(target: &mut serde_json::Value, patch: &serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge_patch(target.entry(name).or_insert(serde_json::Value::Null), value);
        }
    }
}
