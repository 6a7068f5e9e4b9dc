//! The way of operations to the disk: staged, appended, committed; or not.

use std::sync::Arc;

use super::super::cell::Cell;
use super::super::journal::{JournalError, Logs};
use super::super::op::{Action, Batch, Entry, encode};
use super::super::request::{Refusal, Reply};
use super::super::stamp::{Origin, Stamp};
use super::{Cells, Replica};
use crate::core::Moment;

impl Replica {
    /// Puts an own operation behind those that are on their way to the disk.
    pub(super) fn stage(&mut self, time: u64, action: Action, more: bool) -> Stamp {
        let stamp = Stamp { time, origin: self.id };
        let sequence = self.accepted.of(self.id) + 1;
        let entry = Entry { sequence, stamp, known: Arc::clone(&self.others), more, action };
        let record = encode(&entry, &self.said);
        let chain = self.chains.entry(self.id).or_default();
        let before = *chain;
        *chain = super::super::op::chain(before, &record);
        match self.outgoing.last_mut() {
            Some(batch) if batch.origin == self.id => batch.records.push(record),
            Some(_) | None => self.outgoing.push(Batch {
                origin: self.id,
                first: sequence,
                chain: before,
                known: (*self.said).clone(),
                records: vec![record],
            }),
        }
        self.said = Arc::clone(&entry.known);
        self.accepted.raise(self.id, sequence);
        self.staged.push(entry);
        stamp
    }

    /// Names of origins that the journal is to know before it is given their batches.
    pub fn to_name(&mut self) -> Vec<Origin> {
        std::mem::take(&mut self.unnamed)
    }

    /// What the journal is to make durable now; then [`committed`](Self::committed), or
    /// [`not_committed`](Self::not_committed), before anything else.
    pub fn to_append(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.outgoing)
    }

    /// Whether there is an own operation among what is to be made durable: somebody waits for it.
    pub fn is_waited_for(&self) -> bool {
        !self.staged.is_empty()
    }

    /// How many own operations are on their way to the disk.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Whether anything is to be made durable.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// All that was to be appended is durable.
    ///
    /// # Errors
    /// When a cell cannot be read: then what was written is durable, and applied after a restart.
    pub fn committed(&mut self, moment: Moment, cells: &mut impl Cells) -> Result<(), JournalError> {
        self.failure = None;
        self.received = self.accepted.clone();
        self.own_chain = self.chains.get(&self.id).copied().unwrap_or(0);
        let result = self.apply_staged(moment, cells);
        self.staged.clear();
        self.staged_cells.clear();
        self.has_overtaken = false;
        self.end_done_waits();
        result
    }

    fn apply_staged(&mut self, moment: Moment, cells: &mut impl Cells) -> Result<(), JournalError> {
        for entry in std::mem::take(&mut self.staged) {
            if self.applied.of(self.id) + 1 != entry.sequence {
                break; // what is before it is still to be read from the log
            }
            match entry.action.key() {
                // Written in the knowledge of all that is applied: it replaces whatever there is.
                Some(key)
                    if !self.has_overtaken
                        && matches!(entry.action, Action::Put { .. } | Action::Delete { .. }) =>
                {
                    let mut cell = Cell::default();
                    cell.apply(&entry, moment.unix_ms);
                    cells.set(key.clone(), cell);
                    self.applied.raise(self.id, entry.sequence);
                    self.operations += 1;
                }
                Some(_) | None => self.apply(&entry, moment, cells)?,
            }
        }
        Ok(())
    }

    /// Nothing of what was to be appended is durable.
    pub fn not_committed(&mut self, journal: &impl Logs, error: &JournalError) {
        tracing::error!(%error, "the store cannot write");
        let waits = self.waits.split_off(&(self.received.of(self.id) + 1));
        for wait in waits.into_values().flatten() {
            let reply = match error {
                JournalError::Io(why) => Reply::Unknown(why.clone()),
                JournalError::Full(_) => Reply::Refused(Refusal::Full(error.to_string())),
                _ => Reply::Refused(Refusal::Disk(error.to_string())),
            };
            self.replies.push((wait.ticket, reply));
        }
        self.failure = Some(error.clone());
        self.staged.clear();
        self.staged_cells.clear();
        // What a disk that failed has taken all the same counts.
        self.received = journal.heads();
        self.accepted = self.received.clone();
        self.chains = self.received.iter().map(|(origin, _)| (origin, journal.chain(origin))).collect();
        self.own_chain = journal.chain(self.id);
        // What is not here after all is not held back: it may never come again.
        self.held.retain(|&origin, _| self.received.of(origin) > self.applied.of(origin));
        // Others' operations are applied though they are not durable: what we write next must not say that they are here.
        self.others = Arc::new(self.durably_applied());
        self.said = Arc::default();
    }
}
