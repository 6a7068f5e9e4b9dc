//! What those who ask see of a store: keys, pages of them, changes as they come.

use super::cell::Cell;
use super::engine::Store;
use super::feed::Scan as _;
use super::heads::Heads;
use super::journal::{JournalError, Logs as _, Read};
use super::op::{Entry, Key};
use super::sqlite::cells::KeptConflict;

/// Bytes of a log that are read at once for a watch.
const CHANGES_BYTES: usize = 256 * 1024;

/// What has changed after a frontier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These, and the frontier after them; none: nothing new.
    Entries(Vec<Entry>, Heads),
    /// It is not known any more what has changed: read the keys, and watch from the frontier now.
    Gone,
}

impl Store {
    /// What is under a key.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn get(&self, key: &Key) -> Result<Option<Cell>, JournalError> {
        self.0.cells.read(key)
    }

    /// Keys of a bucket that begin with a prefix, after one of them: at most so many, and about so many bytes. What is
    /// only remembered is among them.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn page(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        keys: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError> {
        let first = Key::prefix(bucket, prefix);
        let bound = match after.map(|after| Key::prefix(bucket, after)) {
            Some(after) if after >= first => Key::raw(after),
            Some(_) | None => Key::before(first.clone()),
        };
        let page = self.0.cells.scan(Some(&bound), None, keys, bytes)?;
        Ok(page.into_iter().take_while(|(key, _)| key.bytes().starts_with(&first)).collect())
    }

    /// All keys after one: at most so many, and about so many bytes. What is only remembered is among them.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn scan_all(
        &self,
        after: Option<&Key>,
        keys: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError> {
        self.0.cells.scan(after, None, keys, bytes)
    }

    /// What has changed after a frontier, and is seen here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn changes(&self, after: &Heads) -> Result<Changes, JournalError> {
        let applied = self.progress().applied.clone();
        let mut frontier = after.clone();
        let mut entries = Vec::new();
        for (origin, sequence) in applied.beyond(after) {
            match self.0.log.read_after(origin, after.of(origin), CHANGES_BYTES)? {
                Read::Gone(_) => return Ok(Changes::Gone),
                Read::Next(None) => {}
                Read::Next(Some(batch)) => {
                    let seen = batch.entries()?.into_iter().filter(|entry| entry.sequence <= sequence);
                    for entry in seen {
                        frontier.raise(origin, entry.sequence);
                        entries.push(entry);
                    }
                }
            }
        }
        entries.sort_by_key(|entry| entry.stamp);
        Ok(Changes::Entries(entries, frontier))
    }

    /// Operations of an origin that wait for their time, the first of them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn held(&self, count: usize) -> Result<Vec<Entry>, JournalError> {
        let progress = self.progress();
        let mut held = Vec::new();
        for (origin, _) in progress.received.beyond(&progress.applied) {
            if let Read::Next(Some(batch)) =
                self.0.log.read_after(origin, progress.applied.of(origin), 64 * 1024)?
            {
                held.extend(batch.entries()?.into_iter().take(count));
            }
        }
        Ok(held)
    }

    /// Conflicts that are kept, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn conflicts(&self, before: Option<u64>, count: usize) -> Result<Vec<KeptConflict>, JournalError> {
        self.0.cells.conflicts(before, count)
    }
}
