//! The embedded engine: two SQLite databases in one directory, each with one writer. `log.db` has the logs, a row for each
//! batch that was made durable at once; `state.db` has what is under the keys, written in the background together with the
//! frontier up to which it is applied, and made good from the log after a crash.

pub mod cells;
pub mod log;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::journal::JournalError;

/// Version of the tables: a later one is refused, an earlier one brought up to date.
const SCHEMA_VERSION: i64 = 1;
/// What tells our databases from others'.
const APPLICATION_ID: i64 = 0x6461_656d; // "daem"
/// Kibibytes of pages that a connection keeps.
const CACHE_KIB: i64 = 8 * 1024;
/// How long one connection waits for another of our own, milliseconds.
const BUSY_MS: u64 = 5_000;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{}: another process has it open", .0.display())]
    Locked(PathBuf),
    /// The directory or the lock.
    #[error("{}: {error}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A database.
    #[error("{}: {error}", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        error: JournalError,
    },
    /// A file of something else.
    #[error("{}: this is no store of daemun", .0.display())]
    Foreign(PathBuf),
    /// Written by a later version.
    #[error("{}: its tables are of version {found}, this program knows up to {SCHEMA_VERSION}: use the newer daemun", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
}

/// The one owner of a directory, for as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes a directory for ourselves; makes it if it is not there.
///
/// # Errors
/// When another process has it.
pub fn lock(directory: &Path) -> Result<Lock, OpenError> {
    let fail = |error| OpenError::Io { path: directory.to_owned(), error };
    fs::create_dir_all(directory).map_err(fail)?;
    let path = directory.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// A file that says: what is here is older than what others know of it.
const STALE: &str = "stale";
/// Stores that are set aside in one directory: somebody should look at them.
const ASIDE_MAX: u32 = 100;

/// Says that the store here is older than what others know of it: at the next start it is set aside.
///
/// # Errors
/// When it cannot be said.
pub fn mark_stale(directory: &Path) -> std::io::Result<()> {
    fs::write(directory.join(STALE), "")
}

/// Sets aside what is older than what others know of it, or a copy: it would use sequences twice and bring back what was
/// deleted. All that the others have comes from them.
///
/// # Errors
/// When it cannot be moved.
pub fn set_aside_what_is_stale(directory: &Path) -> Result<(), OpenError> {
    if !directory.join(STALE).exists() && !log::is_copy(directory) {
        return Ok(());
    }
    let fail = |error| OpenError::Io { path: directory.to_owned(), error };
    let free =
        (1..=ASIDE_MAX).map(|number| directory.join(format!("aside-{number}"))).find(|path| !path.exists());
    let aside =
        free.ok_or_else(|| fail(std::io::Error::other(format!("{ASIDE_MAX} stores are set aside there"))))?;
    fs::create_dir(&aside).map_err(fail)?;
    for file in ["log.db", "log.db-wal", "log.db-shm", "state.db", "state.db-wal", "state.db-shm"] {
        let path = directory.join(file);
        if path.exists() {
            fs::rename(&path, aside.join(file)).map_err(fail)?;
        }
    }
    if directory.join(STALE).exists() {
        fs::remove_file(directory.join(STALE)).map_err(fail)?;
    }
    tracing::warn!(aside = %aside.display(), "an old copy of the store is set aside: all is taken from the others");
    Ok(())
}

/// What tells a file from a copy of it.
pub(super) fn inode(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// What SQLite said, in our words.
pub(super) fn failed(error: &rusqlite::Error) -> JournalError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => JournalError::Corrupt(text),
        _ => JournalError::Io(text),
    }
}

/// Opens a database for its one writer, with its tables.
fn open_writer(path: &Path, tables: &str) -> Result<Connection, OpenError> {
    let database =
        |error: rusqlite::Error| OpenError::Database { path: path.to_owned(), error: failed(&error) };
    let connection = Connection::open(path).map_err(database)?;
    let set = || -> rusqlite::Result<(i64, i64)> {
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.set_prepared_statement_cache_capacity(256);
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let id = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        Ok((version, id))
    };
    let (version, id) = set().map_err(database)?;
    if id != APPLICATION_ID && (id != 0 || version != 0 || has_tables(&connection).map_err(database)?) {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    if version > SCHEMA_VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found: version });
    }
    // Tables of version 1 are the first: a later version brings those of an earlier one up to date here, one step each.
    let make = format!(
        "BEGIN IMMEDIATE; {tables} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    );
    connection.execute_batch(&make).map_err(database)?;
    Ok(connection)
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

/// Opens a database to read.
fn open_reader(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|error| failed(&error))
}

/// Moves all that is in the write-ahead log to its place, as far as readers let us: after a good end the files are whole by
/// themselves.
fn settle(writer: &Connection) {
    let moved = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = moved {
        tracing::warn!(%error, "settling the store");
    }
}

/// Connections to read, each used by one at a time.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    idle: std::sync::Mutex<Vec<Connection>>,
}

/// Connections that are kept while nobody uses them.
const IDLE_MAX: usize = 4;

impl Readers {
    fn new(path: PathBuf) -> Self {
        Self { path, idle: std::sync::Mutex::default() }
    }

    fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, JournalError>) -> Result<T, JournalError> {
        let idle = || self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = idle().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let found = read(&connection);
        let mut idle = idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        found
    }
}
