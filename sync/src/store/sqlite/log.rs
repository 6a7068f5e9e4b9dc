//! `log.db`: a table for each origin, a row for each batch, by the sequence of its last record.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::heads::Heads;
use super::super::journal::{Floor, Journal, JournalError, Logs, Read, follows};
use super::super::op::Batch;
use super::super::stamp::{Origin, OriginId};
use super::{OpenError, Readers, failed, inode, open_writer, settle};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS origins (
    number INTEGER PRIMARY KEY, datacenter TEXT NOT NULL, incarnation INTEGER NOT NULL,
    floor INTEGER NOT NULL DEFAULT 0, chain INTEGER NOT NULL DEFAULT 0, UNIQUE (datacenter, incarnation)) STRICT;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;";

/// Pages of the write-ahead log after which they are moved to their place: 16 MiB. Logs grow at their end, so that most
/// of these are a few pages written often.
const CHECKPOINT_PAGES: i64 = 4096;
/// Bytes of the newest batches that are kept in memory: who follows closely is served without the disk.
const TAIL_BYTES: usize = 40 << 20;
/// Rows that are let go in one transaction: appends wait for it.
const TRIM_ROWS: i64 = 2000;

/// What is known of the logs without reading them.
#[derive(Debug, Default)]
struct Index {
    logs: BTreeMap<OriginId, Log>,
    tail_bytes: usize,
}

#[derive(Debug)]
struct Log {
    origin: Origin,
    number: i64,
    head: u64,
    chain: u64,
    floor: Floor,
    tail: VecDeque<Batch>,
}

#[derive(Debug)]
struct Shared {
    index: RwLock<Index>,
    readers: Readers,
}

impl Shared {
    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The logs, to be read from anywhere.
#[derive(Clone, Debug)]
pub struct LogReader(Arc<Shared>);

/// The logs, for their one writer.
#[derive(Debug)]
pub struct SqliteLog {
    writer: Connection,
    reader: LogReader,
    me: Origin,
    is_new: bool,
}

fn bits(number: u64) -> i64 {
    number.cast_signed()
}

impl SqliteLog {
    /// Opens the logs of a datacenter's store, or makes them. A store that was made just now is of a new origin, and stays
    /// new until it [has opened](Self::has_opened).
    ///
    /// # Errors
    /// When it cannot be read, or is not ours.
    pub fn open(directory: &Path, datacenter: &str, unix_ms: u64) -> Result<Self, OpenError> {
        let path = directory.join("log.db");
        let writer = open_writer(&path, TABLES)?;
        let database = |error| OpenError::Database { path: path.clone(), error };
        let sql = |error: rusqlite::Error| database(failed(&error));
        writer.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(sql)?;
        let logs = read_index(&writer).map_err(database)?;
        let own: Option<u64> = meta(&writer, "incarnation").map_err(sql)?.and_then(|text| text.parse().ok());
        let name: Option<String> = meta(&writer, "datacenter").map_err(sql)?;
        if name.as_ref().is_some_and(|name| name != datacenter) {
            let found = name.unwrap_or_default();
            let why = format!("it is the store of datacenter {found}, not of {datacenter}");
            return Err(OpenError::Io { path, error: std::io::Error::other(why) });
        }
        let has_opened = meta(&writer, "opened").map_err(sql)?.is_some();
        let is_new = own.is_none() || !has_opened;
        let incarnation = own.unwrap_or(unix_ms);
        let me = Origin { datacenter: datacenter.to_owned(), incarnation };
        set_meta(&writer, "datacenter", datacenter).map_err(sql)?;
        set_meta(&writer, "incarnation", &incarnation.to_string()).map_err(sql)?;
        set_meta(&writer, "inode", &inode(&path).unwrap_or_default()).map_err(sql)?;
        let index = RwLock::new(Index { logs, tail_bytes: 0 });
        let reader = LogReader(Arc::new(Shared { index, readers: Readers::new(path.clone()) }));
        let mut log = Self { writer, reader, me: me.clone(), is_new };
        log.name(&me).map_err(database)?;
        Ok(log)
    }

    /// The store's origin.
    pub fn me(&self) -> &Origin {
        &self.me
    }

    /// It was made just now, and has not taken back yet what the others have.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What the store is from now on: while it has nothing.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn set_me(&mut self, me: &Origin) -> Result<(), JournalError> {
        set_meta(&self.writer, "incarnation", &me.incarnation.to_string()).map_err(|error| failed(&error))?;
        self.me = me.clone();
        self.name(me)
    }

    /// It has what the others had, and takes writes: from now on it is no new store.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn has_opened(&mut self) -> Result<(), JournalError> {
        if self.is_new {
            set_meta(&self.writer, "opened", "1").map_err(|error| failed(&error))?;
            self.is_new = false;
        }
        Ok(())
    }

    /// To be read from anywhere.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// Leaves the file whole by itself, at the end.
    pub fn settle(&self) {
        settle(&self.writer);
    }

    fn insert(&self, batches: &[Batch]) -> Result<(), JournalError> {
        let sql = |error: rusqlite::Error| failed(&error);
        // Statements that are at hand: most of a small transaction is preparing it.
        let run = |text: &str| self.writer.prepare_cached(text).and_then(|mut cached| cached.execute([]));
        run("BEGIN IMMEDIATE").map_err(sql)?;
        let inserted = self.insert_each(batches).and_then(|()| run("COMMIT").map_err(sql));
        // Some errors have rolled back by themselves.
        if inserted.is_err()
            && !self.writer.is_autocommit()
            && let Err(error) = run("ROLLBACK")
        {
            tracing::error!(%error, "rolling back");
        }
        inserted.map(drop)
    }

    fn insert_each(&self, batches: &[Batch]) -> Result<(), JournalError> {
        let sql = |error: rusqlite::Error| failed(&error);
        for batch in batches {
            let number = self.reader.0.index().logs.get(&batch.origin).map(|log| log.number);
            let number = number.ok_or_else(|| JournalError::Io(format!("{} was not named", batch.origin)))?;
            let room = Vec::with_capacity(batch.bytes() + 8 * batch.records.len() + 64);
            let body =
                postcard::to_extend(batch, room).map_err(|error| JournalError::Io(error.to_string()))?;
            let insert = format!("INSERT INTO log_{number} (last, chain, crc, body) VALUES (?1, ?2, ?3, ?4)");
            let mut insert = self.writer.prepare_cached(&insert).map_err(sql)?;
            let values = params![bits(batch.last()), bits(batch.chain_after()), crc32fast::hash(&body), body];
            insert.execute(values).map_err(sql)?;
        }
        Ok(())
    }
}

/// Whether the logs in a directory are a copy of those of another file: put back from a backup, or cloned. Such a store
/// would use sequences twice, and bring back what the others have forgotten.
pub(super) fn is_copy(directory: &Path) -> bool {
    let path = directory.join("log.db");
    let known = super::open_reader(&path).ok().and_then(|reader| meta(&reader, "inode").ok().flatten());
    known.is_some_and(|known| Some(known) != inode(&path))
}

fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn set_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    let set = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    connection.execute(set, [key, value]).map(drop)
}

fn read_index(connection: &Connection) -> Result<BTreeMap<OriginId, Log>, JournalError> {
    let read = || -> rusqlite::Result<BTreeMap<OriginId, Log>> {
        let mut origins =
            connection.prepare("SELECT number, datacenter, incarnation, floor, chain FROM origins")?;
        let rows = origins.query_map([], |row| {
            let origin =
                Origin { datacenter: row.get(1)?, incarnation: row.get::<_, i64>(2)?.cast_unsigned() };
            let floor = Floor {
                sequence: row.get::<_, i64>(3)?.cast_unsigned(),
                chain: row.get::<_, i64>(4)?.cast_unsigned(),
            };
            Ok((row.get::<_, i64>(0)?, origin, floor))
        })?;
        let mut logs = BTreeMap::new();
        for row in rows {
            let (number, origin, floor) = row?;
            let newest = format!("SELECT last, chain FROM log_{number} ORDER BY last DESC LIMIT 1");
            let newest = connection
                .query_row(&newest, [], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
                })
                .optional()?;
            let (head, chain) = newest.unwrap_or((floor.sequence, floor.chain));
            logs.insert(origin.id(), Log { origin, number, head, chain, floor, tail: VecDeque::new() });
        }
        Ok(logs)
    };
    read().map_err(|error| failed(&error))
}

impl Index {
    /// Keeps the newest batches at hand, lets the oldest of the longest tail go.
    fn keep(&mut self, batch: &Batch) {
        let Some(log) = self.logs.get_mut(&batch.origin) else { return };
        log.head = batch.last();
        log.chain = batch.chain_after();
        log.tail.push_back(batch.clone());
        self.tail_bytes += batch.bytes();
        while self.tail_bytes > TAIL_BYTES {
            let longest = self.logs.values_mut().max_by_key(|log| log.tail.len());
            let Some(gone) = longest.and_then(|log| log.tail.pop_front()) else { break };
            self.tail_bytes -= gone.bytes();
        }
    }

    /// What follows a sequence, if it is at hand.
    fn at_hand(&self, origin: OriginId, sequence: u64, bytes: usize) -> Option<Batch> {
        let tail = &self.logs.get(&origin)?.tail;
        let from = tail.partition_point(|batch| batch.last() <= sequence);
        let mut rest = tail.range(from..);
        let first = rest.next().filter(|first| first.first <= sequence + 1)?;
        let mut found = first.clone().after(sequence).ok()?;
        for batch in rest {
            if found.bytes() + batch.bytes() > bytes || found.extend(batch.clone()).is_err() {
                break;
            }
        }
        Some(found)
    }
}

impl Journal for SqliteLog {
    fn append(&mut self, batches: &[Batch]) -> Result<(), JournalError> {
        {
            let index = self.reader.0.index();
            let mut ends: BTreeMap<OriginId, (u64, u64)> = BTreeMap::new();
            for batch in batches {
                let end = || index.logs.get(&batch.origin).map_or((0, 0), |log| (log.head, log.chain));
                let (head, chain) = ends.get(&batch.origin).copied().unwrap_or_else(end);
                follows(head, chain, batch)?;
                ends.insert(batch.origin, (batch.last(), batch.chain_after()));
            }
        }
        self.insert(batches)?;
        let mut index = self.reader.0.index_mut();
        batches.iter().for_each(|batch| index.keep(batch));
        Ok(())
    }

    fn name(&mut self, origin: &Origin) -> Result<(), JournalError> {
        if self.reader.0.index().logs.contains_key(&origin.id()) {
            return Ok(());
        }
        let sql = |error: rusqlite::Error| failed(&error);
        let transaction = self.writer.unchecked_transaction().map_err(sql)?;
        transaction
            .execute(
                "INSERT INTO origins (datacenter, incarnation) VALUES (?1, ?2)",
                params![origin.datacenter, bits(origin.incarnation)],
            )
            .map_err(sql)?;
        let number = transaction.last_insert_rowid();
        let table = format!(
            "CREATE TABLE log_{number} (last INTEGER PRIMARY KEY, chain INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL) STRICT"
        );
        transaction.execute(&table, []).map_err(sql)?;
        transaction.commit().map_err(sql)?;
        let log = Log {
            origin: origin.clone(),
            number,
            head: 0,
            chain: 0,
            floor: Floor::default(),
            tail: VecDeque::new(),
        };
        self.reader.0.index_mut().logs.insert(origin.id(), log);
        Ok(())
    }

    fn trim(&mut self, origin: OriginId, upto: u64) -> Result<(), JournalError> {
        let sql = |error: rusqlite::Error| failed(&error);
        let number = self.reader.0.index().logs.get(&origin).map(|log| log.number);
        let Some(number) = number else { return Ok(()) };
        let transaction = self.writer.unchecked_transaction().map_err(sql)?;
        let upto = bits(upto);
        // A few rows at a time, the last of which becomes the floor.
        let last = format!(
            "SELECT last, chain FROM (SELECT last, chain FROM log_{number} WHERE last <= ?1 ORDER BY last LIMIT {TRIM_ROWS}) ORDER BY last DESC LIMIT 1"
        );
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let found =
            transaction.prepare_cached(&last).and_then(|mut last| last.query_row([upto], row).optional());
        let Some((last, chain)) = found.map_err(sql)? else { return Ok(()) };
        let delete = format!("DELETE FROM log_{number} WHERE last <= ?1");
        transaction.execute(&delete, [last]).map_err(sql)?;
        transaction
            .execute(
                "UPDATE origins SET floor = ?2, chain = ?3 WHERE number = ?1",
                params![number, last, chain],
            )
            .map_err(sql)?;
        transaction.commit().map_err(sql)?;
        let floor = Floor { sequence: last.cast_unsigned(), chain: chain.cast_unsigned() };
        let mut index = self.reader.0.index_mut();
        if let Some(log) = index.logs.get_mut(&origin) {
            log.floor = floor;
        }
        Ok(())
    }

    fn begin_at(&mut self, origin: OriginId, floor: Floor) -> Result<(), JournalError> {
        let sql = |error: rusqlite::Error| failed(&error);
        let found = self.reader.0.index().logs.get(&origin).map(|log| (log.number, log.head));
        let Some((number, head)) = found else { return Ok(()) };
        if floor.sequence <= head {
            return Ok(());
        }
        let transaction = self.writer.unchecked_transaction().map_err(sql)?;
        transaction.execute(&format!("DELETE FROM log_{number}"), []).map_err(sql)?;
        transaction
            .execute(
                "UPDATE origins SET floor = ?2, chain = ?3 WHERE number = ?1",
                params![number, bits(floor.sequence), bits(floor.chain)],
            )
            .map_err(sql)?;
        transaction.commit().map_err(sql)?;
        let mut index = self.reader.0.index_mut();
        let mut gone = 0;
        if let Some(log) = index.logs.get_mut(&origin) {
            gone = log.tail.drain(..).map(|batch| batch.bytes()).sum();
            (log.head, log.chain, log.floor) = (floor.sequence, floor.chain, floor);
        }
        index.tail_bytes -= gone;
        Ok(())
    }
}

impl Logs for LogReader {
    fn read_after(&self, origin: OriginId, sequence: u64, bytes: usize) -> Result<Read, JournalError> {
        let number = {
            let index = self.0.index();
            let Some(log) = index.logs.get(&origin) else { return Ok(Read::Next(None)) };
            if sequence >= log.head {
                return Ok(Read::Next(None));
            }
            if let Some(found) = index.at_hand(origin, sequence, bytes) {
                return Ok(Read::Next(Some(found)));
            }
            if sequence < log.floor.sequence {
                return Ok(Read::Gone(log.floor.sequence));
            }
            log.number
        };
        let found = self.0.readers.with(|connection| read_rows(connection, number, sequence, bytes))?;
        // It may have been let go between the two looks.
        let floor = self.0.index().logs.get(&origin).map_or(0, |log| log.floor.sequence);
        if sequence < floor { Ok(Read::Gone(floor)) } else { Ok(Read::Next(found)) }
    }

    fn heads(&self) -> Heads {
        self.0.index().logs.iter().map(|(origin, log)| (*origin, log.head)).collect()
    }

    fn chain(&self, origin: OriginId) -> u64 {
        self.0.index().logs.get(&origin).map_or(0, |log| log.chain)
    }

    fn floors(&self) -> BTreeMap<OriginId, Floor> {
        let index = self.0.index();
        let cut = index.logs.iter().filter(|(_, log)| log.floor.sequence > 0);
        cut.map(|(origin, log)| (*origin, log.floor)).collect()
    }

    fn origins(&self) -> Vec<Origin> {
        self.0.index().logs.values().map(|log| log.origin.clone()).collect()
    }
}

impl Logs for SqliteLog {
    fn read_after(&self, origin: OriginId, sequence: u64, bytes: usize) -> Result<Read, JournalError> {
        self.reader.read_after(origin, sequence, bytes)
    }

    fn heads(&self) -> Heads {
        self.reader.heads()
    }

    fn chain(&self, origin: OriginId) -> u64 {
        self.reader.chain(origin)
    }

    fn floors(&self) -> BTreeMap<OriginId, Floor> {
        self.reader.floors()
    }

    fn origins(&self) -> Vec<Origin> {
        self.reader.origins()
    }
}

fn read_rows(
    connection: &Connection,
    number: i64,
    sequence: u64,
    bytes: usize,
) -> Result<Option<Batch>, JournalError> {
    let sql = |error: rusqlite::Error| failed(&error);
    let select = format!("SELECT crc, body FROM log_{number} WHERE last > ?1 ORDER BY last");
    let mut select = connection.prepare_cached(&select).map_err(sql)?;
    let mut rows = select.query([bits(sequence)]).map_err(sql)?;
    let mut found: Option<Batch> = None;
    while let Some(row) = rows.next().map_err(sql)? {
        let (crc, body) = (row.get::<_, u32>(0).map_err(sql)?, row.get_ref(1).map_err(sql)?);
        let body = body.as_blob().map_err(|error| JournalError::Corrupt(error.to_string()))?;
        let batch: Batch =
            (crc32fast::hash(body) == crc).then(|| postcard::from_bytes(body).ok()).flatten().ok_or_else(
                || JournalError::Corrupt(format!("log.db, a row after {sequence} of log {number}")),
            )?;
        match &mut found {
            None => found = Some(batch.after(sequence)?),
            Some(before) if before.bytes() + batch.bytes() > bytes => break,
            Some(before) => {
                if before.extend(batch).is_err() {
                    return Err(JournalError::Corrupt(format!(
                        "log.db, a gap after {sequence} of log {number}"
                    )));
                }
            }
        }
    }
    Ok(found)
}

impl LogReader {
    /// Reads all rows and checks their sums; how many records there are.
    ///
    /// # Errors
    /// The first that is not as it was written.
    pub fn check(&self, is_over: impl Fn() -> bool) -> Result<u64, JournalError> {
        let mut records = 0;
        for (origin, head) in self.heads().iter() {
            let (number, floor) = {
                let index = self.0.index();
                let Some(log) = index.logs.get(&origin) else { continue };
                (log.number, log.floor.sequence)
            };
            let mut at = floor;
            while at < head && !is_over() {
                let batch = self.0.readers.with(|connection| read_rows(connection, number, at, 1 << 20))?;
                let Some(batch) = batch else { break };
                batch.entries()?;
                records += batch.records.len() as u64;
                at = batch.last();
            }
        }
        Ok(records)
    }

    /// Entries that are kept of all logs.
    pub fn kept(&self) -> u64 {
        self.0.index().logs.values().map(|log| log.head - log.floor.sequence).sum()
    }
}
