//! The store as a whole: one thread owns the replica and its journal and does everything in order; another writes what has
//! changed under the keys to disk. Around them stand those who ask ([`Store`]).
//!
//! The thread takes all that has come, makes it durable at once (one transaction, one flush to the disk), and answers all. So
//! the more writers there are, the more writes share a flush.

mod keep;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use daemun_fleet::Clock;
use daemun_fleet::drill::EVERYONE;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::feed::{Down, Scan as _, Took};
use super::heads::Heads;
use super::journal::Logs as _;
use super::replica::{Conflict, DROPPED, Denied, Opened, Replica, Retention, Word};
use super::request::{Reply, Write};
use super::sqlite::cells::{self, Kept, SqliteCells};
use super::sqlite::log::{LogReader, SqliteLog};
use super::sqlite::{Lock, OpenError, lock, set_aside_what_is_stale};
use super::stamp::{Origin, OriginId};
use super::status::{Health, StoreStatus};
use crate::core::Moment;
use crate::latest::last_sent;
use work::Engine;

/// The longest time between two looks at what time asks for.
const TICK: Duration = Duration::from_millis(50);
/// Time between two looks at what may be let go.
const TIDY: Duration = Duration::from_secs(2);

/// What the thread is handed.
pub(super) enum Input {
    /// A write of an application.
    Write(Write, oneshot::Sender<Reply>),
    /// A message of a feeder, the store of that datacenter.
    Down(String, Down, oneshot::Sender<Result<Took, Denied>>),
    /// What a follower says of itself.
    Heard(String, Word, oneshot::Sender<Result<(), Denied>>),
    /// What a follower, this store of that datacenter, has made durable.
    After(String, Origin, Heads),
    /// Who else there is, which of them are forgotten, and how far their clocks are off.
    Fleet { peers: Vec<String>, forgotten: BTreeSet<String>, skews: BTreeMap<String, Option<(i64, u64)>> },
    /// The end.
    Stop,
}

/// How far the store is, as those around it see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is durable here.
    pub received: Heads,
    /// What is handed to the disk.
    pub accepted: Heads,
    /// What users see.
    pub applied: Heads,
}

/// What a store starts from.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Its directory.
    pub directory: PathBuf,
    /// Its datacenter.
    pub datacenter: String,
    /// The others.
    pub peers: Vec<String>,
    /// Where it gets its time from.
    pub clock: Clock,
    /// How much of the log is kept.
    pub retention: Retention,
}

#[derive(Debug, Default)]
struct Inbox {
    inputs: Vec<Input>,
    /// The thread sleeps until so many have come; 0: it does not sleep.
    wake_at: usize,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("input")
    }
}

/// What the threads and those around them share.
#[derive(Debug)]
pub(super) struct Inner {
    inbox: Mutex<Inbox>,
    woken: Condvar,
    pub(super) clock: Clock,
    pub(super) cells: SqliteCells,
    pub(super) log: LogReader,
    progress: watch::Sender<Arc<Progress>>,
    /// What is durable here of all logs, and of others' logs: those who feed and those who follow are not woken for more
    /// than that.
    durable: watch::Sender<Arc<Heads>>,
    durable_of_others: watch::Sender<Arc<Heads>>,
    /// Where writers wait, and where streams do.
    answers: OnceLock<Handle>,
    streams: OnceLock<Handle>,
    status: watch::Sender<Arc<StoreStatus>>,
    words: watch::Sender<Arc<Word>>,
    wants: Mutex<BTreeMap<String, BTreeSet<String>>>,
    links: watch::Sender<Arc<Links>>,
    /// What the writer of the keys is to write: conflicts, and how far.
    to_keep: Mutex<ToKeep>,
    stable: Mutex<Heads>,
    is_stopped: AtomicBool,
    flushed: watch::Sender<Heads>,
    flush_now: AtomicU64,
    flush_done: AtomicU64,
    pub(super) counts: Counts,
    health: Mutex<Health>,
}

/// What a drill makes of the streams to other stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Datacenters that are not heard and hear nothing, [`EVERYONE`] among them or not.
    pub cut: BTreeSet<String>,
    /// Datacenters that are told so much later.
    pub slow: BTreeMap<String, Duration>,
}

impl Links {
    /// Whether nothing is said to a datacenter, nor heard of it.
    pub(super) fn is_cut(&self, peer: &str) -> bool {
        self.cut.contains(peer) || self.cut.contains(EVERYONE)
    }
}

#[derive(Debug, Default)]
struct ToKeep {
    kept: Kept,
    conflicts: Vec<Conflict>,
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Writes that were answered.
    pub writes: AtomicU64,
    /// Flushes of the log to the disk.
    pub commits: AtomicU64,
    /// Keys that were compared with another store's.
    pub compared: AtomicU64,
    /// Of them such as were not as they should have been.
    pub healed: AtomicU64,
    /// Conflicts.
    pub conflicts: AtomicU64,
    /// Keys of which the past was forgotten.
    pub tidied: AtomicU64,
}

/// A running store.
#[derive(Clone, Debug)]
pub struct Store(pub(super) Arc<Inner>);

/// Its threads: dropped, they end when what is under way is done.
#[derive(Debug)]
pub struct Threads {
    store: Store,
    threads: Vec<JoinHandle<()>>,
    _lock: Lock,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens a store and starts its threads.
    ///
    /// # Errors
    /// When its directory is another's or its files cannot be used.
    pub fn open(settings: &StoreSettings) -> Result<(Self, Threads), OpenError> {
        let StoreSettings { directory, datacenter, peers, clock, retention } = settings;
        let lock = lock(directory)?;
        let moment = Moment { now: (clock.monotonic)(), unix_ms: (clock.unix_ms)() };
        set_aside_what_is_stale(directory)?;
        let log = SqliteLog::open(directory, datacenter, moment.unix_ms)?;
        let (cells, writer, kept) = cells::open(directory)?;
        let (opened, time) = opened(directory, &log, &cells, &kept)?;
        let mut replica = Replica::new(log.me().clone(), &log, opened, moment);
        replica.set_peers(peers.iter().cloned());
        let inner = Arc::new(Inner {
            inbox: Mutex::default(),
            woken: Condvar::new(),
            clock: *clock,
            cells: cells.clone(),
            log: log.reader(),
            progress: watch::Sender::default(),
            durable: watch::Sender::default(),
            durable_of_others: watch::Sender::default(),
            answers: OnceLock::new(),
            streams: OnceLock::new(),
            status: watch::Sender::new(Arc::new(StoreStatus::new(&replica, moment))),
            words: watch::Sender::new(Arc::new(replica.word())),
            wants: Mutex::default(),
            links: watch::Sender::default(),
            to_keep: Mutex::new(ToKeep { kept: Kept { clock: time, ..kept.clone() }, conflicts: Vec::new() }),
            stable: Mutex::default(),
            is_stopped: AtomicBool::new(false),
            flushed: watch::Sender::new(kept.applied),
            flush_now: AtomicU64::new(0),
            flush_done: AtomicU64::new(0),
            counts: Counts::default(),
            health: Mutex::default(),
        });
        let store = Self(inner);
        let fail = |error| OpenError::Io { path: directory.clone(), error };
        let engine = Engine::new(store.clone(), directory.clone(), replica, log, *retention);
        let (has_replayed, replayed) = std::sync::mpsc::channel();
        let (keeper, checked) = (store.clone(), store.clone());
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let threads = vec![
            thread("store").spawn(move || engine.run(&has_replayed)).map_err(fail)?,
            thread("store-keys").spawn(move || keep::keep(&keeper, writer)).map_err(fail)?,
            thread("store-check").spawn(move || keep::check(&checked)).map_err(fail)?,
        ];
        // What the log has and the keys do not is read before anybody asks.
        if replayed.recv().is_err() {
            tracing::error!("the store ended before it began");
        }
        Ok((store.clone(), Threads { store, threads, _lock: lock }))
    }

    pub(super) fn hand(&self, input: Input) {
        let is_awaited = {
            let mut inbox = guard(&self.0.inbox);
            inbox.inputs.push(input);
            inbox.inputs.len() == inbox.wake_at
        };
        // Without the lock in hand: whoever wakes wants it.
        if is_awaited {
            self.0.woken.notify_one();
        }
    }

    /// Writes; the reply comes when it is as durable as asked, or its time is over.
    pub async fn write(&self, write: Write) -> Reply {
        let (sender, receiver) = oneshot::channel();
        self.hand(Input::Write(write, sender));
        self.0.counts.writes.fetch_add(1, Ordering::Relaxed);
        receiver.await.unwrap_or_else(|_| Reply::Unknown("the store has stopped".to_owned()))
    }

    /// How far it is now.
    pub fn progress(&self) -> Arc<Progress> {
        last_sent(&self.0.progress)
    }

    /// How far it is, and every later state.
    pub fn progresses(&self) -> watch::Receiver<Arc<Progress>> {
        self.0.progress.subscribe()
    }

    /// What is durable here, and whenever that changes.
    pub(super) fn durables(&self) -> watch::Receiver<Arc<Heads>> {
        self.0.durable.subscribe()
    }

    /// What of others' logs is durable here, and whenever that changes.
    pub(super) fn durables_of_others(&self) -> watch::Receiver<Arc<Heads>> {
        self.0.durable_of_others.subscribe()
    }

    /// Writers wait on this runtime: to wake it for each of them would cost more than all else that is done for them.
    pub(super) fn answer_on(&self, runtime: Handle) {
        // Of several the first: any of them will do.
        let _ = self.0.answers.set(runtime);
    }

    /// Streams wait on this runtime: told from there, each wakes once.
    pub(crate) fn stream_on(&self, runtime: Handle) {
        let _ = self.0.streams.set(runtime);
    }

    /// How it is.
    pub fn status(&self) -> Arc<StoreStatus> {
        last_sent(&self.0.status)
    }

    /// How it is, and every later state.
    pub fn statuses(&self) -> watch::Receiver<Arc<StoreStatus>> {
        self.0.status.subscribe()
    }

    /// Why nothing is taken from it or given to it.
    pub fn refusal(&self) -> Option<String> {
        guard(&self.0.health).corrupt.clone()
    }

    /// What it says of itself to others.
    pub(super) fn word(&self) -> Arc<Word> {
        last_sent(&self.0.words)
    }

    /// The datacenters whose logs are wanted from a peer.
    pub(super) fn wants(&self, peer: &str) -> BTreeSet<String> {
        guard(&self.0.wants).get(peer).cloned().unwrap_or_else(|| [peer.to_owned()].into())
    }

    /// Every origin that is known.
    pub(super) fn origins(&self) -> BTreeMap<OriginId, Origin> {
        self.word().origins.iter().map(|origin| (origin.id(), origin.clone())).collect()
    }

    /// Who else there is, whom to forget, and how far clocks are off.
    pub fn set_fleet(
        &self,
        peers: Vec<String>,
        forgotten: BTreeSet<String>,
        skews: BTreeMap<String, Option<(i64, u64)>>,
    ) {
        self.hand(Input::Fleet { peers, forgotten, skews });
    }

    /// What a drill makes of the streams from now on.
    pub fn set_links(&self, links: Links) {
        let changed = |known: &mut Arc<Links>| {
            let changed = **known != links;
            *known = Arc::new(links);
            changed
        };
        self.0.links.send_if_modified(changed);
    }

    /// What a drill makes of the streams, and whenever that changes.
    pub(super) fn links(&self) -> watch::Receiver<Arc<Links>> {
        self.0.links.subscribe()
    }

    /// Milliseconds of Unix time.
    pub fn unix_ms(&self) -> u64 {
        (self.0.clock.unix_ms)()
    }

    pub(super) fn now(&self) -> Duration {
        (self.0.clock.monotonic)()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.store.hand(Input::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

/// What the replica goes on from, and the newest time that is in the log.
fn opened(
    directory: &Path,
    log: &SqliteLog,
    cells: &SqliteCells,
    kept: &Kept,
) -> Result<(Opened, u64), OpenError> {
    let fail = |error| OpenError::Database { path: directory.to_owned(), error };
    let mut dropped = BTreeSet::new();
    let first = super::op::Key::new(DROPPED, " ").ok();
    for (key, _) in cells.scan(first.as_ref(), None, 10_000, usize::MAX).map_err(fail)? {
        if key.bucket() != DROPPED {
            break;
        }
        dropped.extend(super::replica::parse_dropped(key.name()));
    }
    // The newest entry of our own log has the newest of our times.
    let me = log.me().id();
    let head = log.heads().of(me);
    let mut clock = kept.clock;
    if head > 0
        && let super::journal::Read::Next(Some(batch)) = log.read_after(me, head - 1, 1).map_err(fail)?
    {
        let entries = batch.entries().map_err(|error| fail(error.into()))?;
        clock = entries.iter().map(|entry| entry.stamp.time).max().unwrap_or(0).max(clock);
    }
    let applied = kept.applied.clone();
    let forgotten = kept.forgotten.clone();
    Ok((Opened { applied, clock, dropped, forgotten, is_new: log.is_new() }, clock))
}

#[cfg(test)]
pub(super) mod tests;
