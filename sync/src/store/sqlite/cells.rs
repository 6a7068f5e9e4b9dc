//! `state.db`: what is under the keys. What has changed is in memory until the background writer has written it, together
//! with the frontier that it then covers; readers look there first.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::cell::Cell;
use super::super::feed::Scan;
use super::super::heads::Heads;
use super::super::journal::JournalError;
use super::super::op::Key;
use super::super::replica::{Cells, Conflict};
use super::super::verify::size;
use super::{OpenError, Readers, failed, open_writer, settle};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS cells (
    key BLOB PRIMARY KEY, crc INTEGER NOT NULL, past INTEGER, expires INTEGER, cell BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cells_past ON cells (past) WHERE past IS NOT NULL;
CREATE INDEX IF NOT EXISTS cells_expires ON cells (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS conflicts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_unix_ms INTEGER NOT NULL, key BLOB NOT NULL, winner TEXT NOT NULL,
    loser TEXT NOT NULL, is_json INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;";

/// Conflicts that are kept: whoever looks weekly at a busy fleet sees them; older ones are counted and let go.
const CONFLICTS_MAX: u64 = 10_000;
/// Keys of which the past is looked at in one go.
const PAST_KEYS: u64 = 2000;
/// Changed keys that are looked at for one page.
const CHANGED_KEYS: usize = 4096;
/// Bytes of what was written last that are kept to be read.
const WRITTEN_BYTES_MAX: usize = 32 << 20;
/// How long after its end a value is still remembered: clocks differ.
const EXPIRED_MS: u64 = 60_000;

type Map = BTreeMap<Key, Cell>;

/// What has changed and is not in the database yet.
#[derive(Debug, Default)]
struct Changed {
    /// Since the last write began.
    new: Map,
    /// What is being written.
    writing: Option<Arc<Map>>,
    /// What was written last, unless it is much: a key that was just written is often written again.
    written: Map,
}

#[derive(Debug)]
struct Shared {
    changed: RwLock<Changed>,
    /// What is applied in all of them.
    applied: RwLock<Heads>,
    readers: Readers,
    /// About how many bytes have changed.
    bytes: AtomicU64,
    evicted: AtomicU64,
}

impl Shared {
    fn changed(&self) -> RwLockReadGuard<'_, Changed> {
        self.changed.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys, from anywhere.
#[derive(Clone, Debug)]
pub struct SqliteCells(Arc<Shared>);

/// The one who writes them to disk.
#[derive(Debug)]
pub struct CellWriter {
    writer: Connection,
    /// The last key of which the past was looked at.
    past_after: Vec<u8>,
    shared: Arc<Shared>,
}

type Row = (Vec<u8>, u32, Vec<u8>);

fn rows(
    select: &mut rusqlite::CachedStatement<'_>,
    parameters: impl rusqlite::Params,
) -> Result<Vec<Row>, JournalError> {
    let found = select.query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    found.and_then(Iterator::collect).map_err(|error| failed(&error))
}

/// What is in the database beside the keys.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The frontier that the keys cover.
    pub applied: Heads,
    /// Time of the store's clock then.
    pub clock: u64,
    /// Forgotten incarnations, by datacenter.
    pub forgotten: BTreeMap<String, u64>,
}

/// A conflict that is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptConflict {
    /// Its number: newer ones are higher.
    pub number: u64,
    /// When it was seen here, milliseconds of Unix time.
    pub at_unix_ms: u64,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Stamp of what was kept.
    pub winner: String,
    /// Stamp of what lost.
    pub loser: String,
    /// The value that lost: as text if it is any, else in base64.
    pub value: String,
    /// Whether `value` is in base64.
    pub is_base64: bool,
}

fn millis(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms).unwrap_or(i64::MAX)
}

/// Opens the keys of a store, or makes them.
///
/// # Errors
/// When they cannot be read, or are not ours.
pub fn open(directory: &Path) -> Result<(SqliteCells, CellWriter, Kept), OpenError> {
    let path = directory.join("state.db");
    let writer = open_writer(&path, TABLES)?;
    let database = |error| OpenError::Database { path: path.clone(), error };
    let kept = read_kept(&writer).map_err(database)?;
    let evicted: u64 = read_meta(&writer, "evicted").map_err(database)?.unwrap_or_default();
    let shared = Arc::new(Shared {
        changed: RwLock::default(),
        applied: RwLock::new(kept.applied.clone()),
        readers: Readers::new(path),
        bytes: AtomicU64::new(0),
        evicted: AtomicU64::new(evicted),
    });
    Ok((SqliteCells(Arc::clone(&shared)), CellWriter { writer, past_after: Vec::new(), shared }, kept))
}

fn read_meta<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    key: &str,
) -> Result<Option<T>, JournalError> {
    let found = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, Vec<u8>>(0))
        .optional()
        .map_err(|error| failed(&error))?;
    let parse = |bytes: Vec<u8>| {
        serde_json::from_slice(&bytes)
            .map_err(|error| JournalError::Corrupt(format!("state.db, {key}: {error}")))
    };
    found.map(parse).transpose()
}

fn read_kept(connection: &Connection) -> Result<Kept, JournalError> {
    let applied: Option<String> = read_meta(connection, "applied")?;
    let applied = applied.map(|text| text.parse()).transpose();
    Ok(Kept {
        applied: applied
            .map_err(|error: super::super::heads::NotHeads| JournalError::Corrupt(error.to_string()))?
            .unwrap_or_default(),
        clock: read_meta(connection, "clock")?.unwrap_or_default(),
        forgotten: read_meta(connection, "forgotten")?.unwrap_or_default(),
    })
}

fn parse_cell(crc: u32, bytes: &[u8]) -> Result<Cell, JournalError> {
    let cell = (crc32fast::hash(bytes) == crc).then(|| postcard::from_bytes(bytes).ok()).flatten();
    cell.ok_or_else(|| JournalError::Corrupt("state.db, a key's checksum".to_owned()))
}

impl SqliteCells {
    /// What is under a key.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn read(&self, key: &Key) -> Result<Option<Cell>, JournalError> {
        {
            let changed = self.0.changed();
            let writing = || changed.writing.as_ref().and_then(|writing| writing.get(key));
            // Of the past of a key it may hold more than the database, which is as good.
            let written = || changed.written.get(key);
            if let Some(cell) = changed.new.get(key).or_else(writing).or_else(written) {
                return Ok(Some(cell.clone()));
            }
        }
        self.0.readers.with(|connection| {
            let sql = |error: rusqlite::Error| failed(&error);
            let mut select =
                connection.prepare_cached("SELECT crc, cell FROM cells WHERE key = ?1").map_err(sql)?;
            let mut rows = select.query([key.bytes().as_ref()]).map_err(sql)?;
            let Some(row) = rows.next().map_err(sql)? else { return Ok(None) };
            let bytes = row.get_ref(1).map_err(sql)?;
            let bytes = bytes.as_blob().map_err(|error| JournalError::Corrupt(error.to_string()))?;
            parse_cell(row.get(0).map_err(sql)?, bytes).map(Some)
        })
    }

    /// All that is applied up to here is in them.
    pub fn set_applied(&self, applied: &Heads) {
        applied.clone_into(&mut self.0.applied.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// About how many bytes are not in the database yet.
    pub fn changed_bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Conflicts that were let go because there were too many.
    pub fn evicted(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }

    /// The newest conflicts, newest first, of those before a number.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn conflicts(&self, before: Option<u64>, count: usize) -> Result<Vec<KeptConflict>, JournalError> {
        self.0.readers.with(|connection| {
            let sql = |error: rusqlite::Error| failed(&error);
            let select = "SELECT number, at_unix_ms, key, winner, loser, value FROM conflicts \
                          WHERE number < ?1 ORDER BY number DESC LIMIT ?2";
            let mut select = connection.prepare_cached(select).map_err(sql)?;
            let before = before.map_or(i64::MAX, millis);
            let rows = select.query_map(params![before, i64::try_from(count).unwrap_or(i64::MAX)], |row| {
                let key = Key::from_bytes(Bytes::from(row.get::<_, Vec<u8>>(2)?)).ok();
                let value: Vec<u8> = row.get(5)?;
                let (value, is_base64) = match String::from_utf8(value) {
                    Ok(text) => (text, false),
                    Err(error) => (data_encoding::BASE64.encode(error.as_bytes()), true),
                };
                Ok(KeptConflict {
                    number: row.get::<_, i64>(0)?.cast_unsigned(),
                    at_unix_ms: row.get::<_, i64>(1)?.cast_unsigned(),
                    bucket: key.as_ref().map(|key| key.bucket().to_owned()).unwrap_or_default(),
                    key: key.as_ref().map(|key| key.name().to_owned()).unwrap_or_default(),
                    winner: row.get(3)?,
                    loser: row.get(4)?,
                    value,
                    is_base64,
                })
            });
            rows.map_err(sql)?.collect::<Result<_, _>>().map_err(sql)
        })
    }

    /// Reads all keys and checks their sums; how many there are.
    ///
    /// # Errors
    /// The first that is not as it was written.
    pub fn check(&self, is_over: impl Fn() -> bool) -> Result<u64, JournalError> {
        let (mut keys, mut last) = (0, None::<Key>);
        loop {
            let page = self.page(last.as_ref(), None, 1000, 1 << 20)?;
            keys += page.len() as u64;
            match page.into_iter().next_back() {
                Some((key, _)) if !is_over() => last = Some(key),
                Some(_) | None => return Ok(keys),
            }
        }
    }

    /// A page of the database alone.
    fn page(
        &self,
        after: Option<&Key>,
        upto: Option<&Key>,
        keys: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError> {
        self.0.readers.with(|connection| {
            let sql = |error: rusqlite::Error| failed(&error);
            let select = match upto {
                None => "SELECT key, crc, cell FROM cells WHERE key > ?1 ORDER BY key LIMIT ?2",
                Some(_) => {
                    "SELECT key, crc, cell FROM cells WHERE key > ?1 AND key <= ?3 ORDER BY key LIMIT ?2"
                }
            };
            let mut select = connection.prepare_cached(select).map_err(sql)?;
            let after = after.map(|key| key.bytes().as_ref()).unwrap_or_default();
            let limit = i64::try_from(keys).unwrap_or(i64::MAX);
            let mut rows = match upto {
                None => select.query(params![after, limit]),
                Some(upto) => select.query(params![after, limit, upto.bytes().as_ref()]),
            }
            .map_err(sql)?;
            let (mut page, mut read) = (Vec::new(), 0);
            while read < bytes
                && let Some(row) = rows.next().map_err(sql)?
            {
                let key = Bytes::from(row.get::<_, Vec<u8>>(0).map_err(sql)?);
                let key = Key::from_bytes(key).map_err(|error| JournalError::Corrupt(error.to_string()))?;
                let cell = row.get_ref(2).map_err(sql)?;
                let cell = cell.as_blob().map_err(|error| JournalError::Corrupt(error.to_string()))?;
                read += cell.len() + key.bytes().len();
                page.push((key, parse_cell(row.get(1).map_err(sql)?, cell)?));
            }
            Ok(page)
        })
    }
}

impl Cells for SqliteCells {
    fn get(&mut self, key: &Key) -> Result<Option<Cell>, JournalError> {
        self.read(key)
    }

    fn set(&mut self, key: Key, cell: Cell) {
        let bytes = (size(&cell) + key.bytes().len()) as u64;
        let mut changed = self.0.changed.write().unwrap_or_else(PoisonError::into_inner);
        if changed.new.insert(key, cell).is_none() {
            self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Scan for SqliteCells {
    fn scan(
        &self,
        after: Option<&Key>,
        upto: Option<&Key>,
        keys: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError> {
        // What is changed first, then the database: what is written meanwhile is seen in both, never in neither.
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = upto.map_or(Bound::Unbounded, Bound::Included);
        let mut end: Option<Key> = None;
        let mut merged = Map::new();
        {
            let changed = self.0.changed();
            let count = keys.min(CHANGED_KEYS);
            // The newer one over the older one.
            for map in changed.writing.as_deref().into_iter().chain([&changed.new]) {
                let part: Vec<_> = map.range::<Key, _>((from, to)).take(count).collect();
                // Behind the last that was taken there may be more.
                let last = part.last().filter(|_| part.len() == count).map(|(key, _)| (*key).clone());
                end = end.into_iter().chain(last).min();
                merged.extend(part.into_iter().map(|(key, cell)| (key.clone(), cell.clone())));
            }
        }
        let page = self.page(after, upto, keys, bytes)?;
        let in_page: usize = page.iter().map(|(key, cell)| size(cell) + key.bytes().len()).sum();
        if page.len() >= keys || in_page >= bytes {
            end = end.into_iter().chain(page.last().map(|(key, _)| key.clone())).min();
        }
        for (key, cell) in page {
            merged.entry(key).or_insert(cell);
        }
        let mut read = 0;
        let until = |(key, cell): &(Key, Cell)| {
            let is_in = read < bytes && end.as_ref().is_none_or(|end| key <= end);
            read += size(cell) + key.bytes().len();
            is_in
        };
        Ok(merged.into_iter().take_while(until).take(keys).collect())
    }

    fn applied(&self) -> Heads {
        self.0.applied.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl CellWriter {
    /// Takes what has changed, to be [written](Self::write).
    pub fn take(&self) -> Arc<Map> {
        let mut changed = self.shared.changed.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(writing) = &changed.writing {
            return Arc::clone(writing); // the last write failed
        }
        let taken = Arc::new(std::mem::take(&mut changed.new));
        self.shared.bytes.store(0, Ordering::Relaxed);
        changed.writing = Some(Arc::clone(&taken));
        taken
    }

    /// Leaves the file whole by itself, at the end.
    pub fn settle(&self) {
        settle(&self.writer);
    }

    /// Nothing was taken: there is nothing to write.
    pub fn is_written(&self) {
        let mut changed = self.shared.changed.write().unwrap_or_else(PoisonError::into_inner);
        let gone = (changed.writing.take(), std::mem::take(&mut changed.written));
        drop(changed);
        drop(gone);
    }

    /// Writes what was taken with what it covers, and conflicts.
    ///
    /// # Errors
    /// When it cannot be written: it stays taken, and is tried again.
    pub fn write(
        &mut self,
        taken: Arc<Map>,
        kept: &Kept,
        conflicts: &[Conflict],
        unix_ms: u64,
    ) -> Result<(), JournalError> {
        self.commit(&taken, kept, conflicts, unix_ms).map_err(|error| failed(&error))?;
        let bytes: usize = taken.iter().map(|(key, cell)| size(cell) + key.bytes().len()).sum();
        // Ours is then the only one.
        self.shared.changed.write().unwrap_or_else(PoisonError::into_inner).writing = None;
        let mut written = Arc::into_inner(taken).filter(|_| bytes <= WRITTEN_BYTES_MAX).unwrap_or_default();
        // Others wait for this lock: what is large is let go without it.
        let mut changed = self.shared.changed.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut changed.written, &mut written);
        drop(changed);
        Ok(())
    }

    fn commit(
        &mut self,
        taken: &Map,
        kept: &Kept,
        conflicts: &[Conflict],
        unix_ms: u64,
    ) -> rusqlite::Result<()> {
        let transaction = self.writer.transaction()?;
        {
            let mut set = transaction.prepare_cached(
                "INSERT INTO cells (key, crc, past, expires, cell) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) \
                 DO UPDATE SET crc = excluded.crc, past = excluded.past, expires = excluded.expires, cell = excluded.cell",
            )?;
            for (key, cell) in taken {
                let bytes = postcard::to_allocvec(cell).unwrap_or_default();
                let past = cell.has_a_past(unix_ms).then_some(1);
                let expires = Some(cell.expires_unix_ms()).filter(|expires| *expires > 0).map(millis);
                set.execute(params![key.bytes().as_ref(), crc32fast::hash(&bytes), past, expires, bytes])?;
            }
            let mut add = transaction.prepare_cached(
                "INSERT INTO conflicts (at_unix_ms, key, winner, loser, is_json, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for Conflict { key, loser } in conflicts {
                let Some(value) = &loser.register.value else { continue };
                let stamps = (loser.winner.to_string(), loser.register.stamp.to_string());
                let key = key.bytes().as_ref();
                add.execute(params![
                    millis(unix_ms),
                    key,
                    stamps.0,
                    stamps.1,
                    value.is_json,
                    value.bytes.as_ref()
                ])?;
            }
            let mut meta =
                transaction.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
            let json = |value: serde_json::Value| value.to_string().into_bytes();
            meta.execute(params!["applied", json(kept.applied.to_string().into())])?;
            meta.execute(params!["clock", json(kept.clock.into())])?;
            meta.execute(params!["forgotten", serde_json::to_vec(&kept.forgotten).unwrap_or_default()])?;
        }
        if !conflicts.is_empty() {
            let evicted = transaction.execute(
                "DELETE FROM conflicts WHERE number <= (SELECT max(number) FROM conflicts) - ?1",
                [millis(CONFLICTS_MAX)],
            )? as u64;
            let all = self.shared.evicted.fetch_add(evicted, Ordering::Relaxed) + evicted;
            let all = serde_json::Value::from(all).to_string().into_bytes();
            transaction.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('evicted', ?1)", [all])?;
        }
        transaction.commit()
    }

    /// Forgets what is only remembered and is past everywhere; how many keys went.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn forget_the_past(&mut self, stable: &Heads, unix_ms: u64) -> Result<usize, JournalError> {
        let mut keys = {
            let past = "SELECT key, crc, cell FROM cells WHERE past = 1 AND key > ?1 ORDER BY key LIMIT ?2";
            let mut select = self.writer.prepare_cached(past).map_err(|error| failed(&error))?;
            rows(&mut select, params![self.past_after, millis(PAST_KEYS)])?
        };
        // Those that cannot go yet do not keep the others.
        self.past_after = keys
            .last()
            .filter(|_| keys.len() as u64 == PAST_KEYS)
            .map(|(key, ..)| key.clone())
            .unwrap_or_default();
        let over =
            "SELECT key, crc, cell FROM cells WHERE expires < ?1 AND past IS NULL ORDER BY expires LIMIT ?2";
        let mut select = self.writer.prepare_cached(over).map_err(|error| failed(&error))?;
        keys.extend(rows(
            &mut select,
            params![millis(unix_ms.saturating_sub(EXPIRED_MS)), millis(PAST_KEYS)],
        )?);
        drop(select);
        let mut gone = Vec::new();
        for (key, crc, cell) in keys {
            let cell = parse_cell(crc, &cell)?;
            match cell.without_the_past(stable, unix_ms.saturating_sub(EXPIRED_MS)) {
                None => gone.push((key, None)),
                Some(less) if less != cell => gone.push((key, Some(less))),
                Some(_) => {}
            }
        }
        if gone.is_empty() {
            return Ok(0);
        }
        let count = gone.len();
        let forget = |transaction: &rusqlite::Transaction<'_>| -> rusqlite::Result<()> {
            let mut delete = transaction.prepare_cached("DELETE FROM cells WHERE key = ?1")?;
            let mut set = transaction
                .prepare_cached("UPDATE cells SET crc = ?2, past = ?3, cell = ?4 WHERE key = ?1")?;
            for (key, less) in &gone {
                match less {
                    None => delete.execute([key])?,
                    Some(less) => {
                        let bytes = postcard::to_allocvec(less).unwrap_or_default();
                        let past = less.has_a_past(unix_ms).then_some(1);
                        set.execute(params![key, crc32fast::hash(&bytes), past, bytes])?
                    }
                };
            }
            Ok(())
        };
        let transaction = self.writer.transaction().map_err(|error| failed(&error))?;
        forget(&transaction).and_then(|()| transaction.commit()).map_err(|error| failed(&error))?;
        Ok(count)
    }
}
