//! The store as a whole: one thread owns the replica and its journal and does everything in order; another writes what has
//! changed under the keys to disk. Around them stand those who ask ([`Store`]).
//!
//! The thread takes all that has come, makes it durable at once (one transaction, one flush to the disk), and answers all. So
//! the more writers there are, the more writes share a flush.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use daemun_fleet::Clock;
use tokio::sync::{oneshot, watch};

use super::feed::{Down, Scan as _, Took};
use super::heads::Heads;
use super::journal::{Journal as _, JournalError, Logs as _};
use super::replica::{Conflict, Denied, Opened, Replica, Word};
use super::request::{Refusal, Reply, Write};
use super::sqlite::cells::{self, CellWriter, Kept, SqliteCells};
use super::sqlite::log::{LogReader, SqliteLog};
use super::sqlite::{Lock, OpenError, lock};
use super::stamp::{Origin, OriginId};
use super::status::{Health, StoreStatus};
use crate::core::Moment;
use crate::latest::{last_sent, latest};

/// Time between two flushes for what is durable elsewhere already: nobody here waits for it.
const PACE: Duration = Duration::from_millis(2);
/// The longest time between two looks at what time asks for.
const TICK: Duration = Duration::from_millis(50);
/// Time between two writes of what has changed under the keys.
const FLUSH: Duration = Duration::from_millis(250);
/// Bytes that have changed and are not written: over it writers wait.
const CHANGED_BYTES_MAX: u64 = 256 << 20;
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
    /// What a follower has made durable.
    After(String, Heads),
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

/// Limits of the log on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many entries are kept though all have them: watches can resume.
    pub entries_min: u64,
    /// Over so many entries the oldest go though somebody lacks them: it gets a snapshot.
    pub entries_max: u64,
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
    status: watch::Sender<Arc<StoreStatus>>,
    words: watch::Sender<Arc<Word>>,
    wants: Mutex<BTreeMap<String, BTreeSet<String>>>,
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
            status: watch::Sender::new(Arc::new(StoreStatus::new(&replica, moment))),
            words: watch::Sender::new(Arc::new(replica.word())),
            wants: Mutex::default(),
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
        let engine = Engine {
            store: store.clone(),
            replica,
            log,
            cells,
            tickets: HashMap::new(),
            next_ticket: 0,
            committed_at: Duration::ZERO,
            tidy_at: moment.now,
            ticked_at: Duration::ZERO,
            told_at: Duration::ZERO,
            retention: *retention,
        };
        let (keeper, checked) = (store.clone(), store.clone());
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let threads = vec![
            thread("store").spawn(move || engine.run()).map_err(fail)?,
            thread("store-keys").spawn(move || keep(&keeper, writer)).map_err(fail)?,
            thread("store-check").spawn(move || check(&checked)).map_err(fail)?,
        ];
        Ok((store.clone(), Threads { store, threads, _lock: lock }))
    }

    pub(super) fn hand(&self, input: Input) {
        let mut inbox = guard(&self.0.inbox);
        inbox.inputs.push(input);
        if inbox.inputs.len() == 1 {
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

    /// How it is.
    pub fn status(&self) -> Arc<StoreStatus> {
        last_sent(&self.0.status)
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
    let first = super::op::Key::new(".dropped", " ").ok();
    for (key, _) in cells.scan(first.as_ref(), None, 10_000, usize::MAX).map_err(fail)? {
        if key.bucket() != ".dropped" {
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

struct Engine {
    store: Store,
    replica: Replica,
    log: SqliteLog,
    cells: SqliteCells,
    tickets: HashMap<u64, oneshot::Sender<Reply>>,
    next_ticket: u64,
    committed_at: Duration,
    tidy_at: Duration,
    ticked_at: Duration,
    told_at: Duration,
    retention: Retention,
}

impl Engine {
    fn run(mut self) {
        loop {
            let inputs = self.wait();
            let moment = self.moment();
            let mut is_stopping = false;
            let has_come = !inputs.is_empty();
            for input in inputs {
                is_stopping |= matches!(input, Input::Stop);
                self.take(input, moment);
            }
            if moment.now.saturating_sub(self.ticked_at) >= TICK
                || self.replica.wake_at() <= moment.now
                || self.replica.has_more(moment.unix_ms)
            {
                self.ticked_at = moment.now;
                self.tick(moment);
            }
            let is_due = self.replica.is_waited_for()
                || is_stopping
                || moment.now.saturating_sub(self.committed_at) >= PACE;
            if self.replica.has_outgoing() && is_due {
                self.commit(moment);
            }
            self.answer();
            self.tell(has_come);
            if is_stopping {
                self.store.0.is_stopped.store(true, Ordering::Release);
                return;
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.store.now(), unix_ms: self.store.unix_ms() }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> Vec<Input> {
        let inner = Arc::clone(&self.store.0);
        let now = self.store.now();
        let mut until = self.replica.wake_at().min(self.ticked_at + TICK);
        if self.replica.has_outgoing() {
            until = until.min(self.committed_at + PACE);
        }
        if self.replica.has_more((inner.clock.unix_ms)()) {
            until = now;
        }
        // The disk of the keys is behind: whoever wants to write waits.
        let is_behind = inner.cells.changed_bytes() > CHANGED_BYTES_MAX;
        let mut inbox = guard(&inner.inbox);
        if inbox.inputs.is_empty() || is_behind {
            let nap = if is_behind { Duration::from_millis(5) } else { until.saturating_sub(now) };
            if !nap.is_zero() {
                let woken = inner.woken.wait_timeout(inbox, nap);
                inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        std::mem::take(&mut inbox.inputs)
    }

    fn take(&mut self, input: Input, moment: Moment) {
        match input {
            Input::Write(write, reply) => {
                if let Some(why) = guard(&self.store.0.health).corrupt.clone() {
                    // Whoever waited may be gone.
                    let _ = reply.send(Reply::Refused(Refusal::Disk(why)));
                    return;
                }
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.tickets.insert(ticket, reply);
                if let Err(error) = self.replica.write(moment, &mut self.cells, ticket, &write) {
                    self.fail(&error);
                }
            }
            Input::Down(peer, message, done) => {
                let took = self.replica.take(moment, &mut self.cells, &peer, message);
                let took = took.and_then(|took| {
                    if took.is_end_of_cells {
                        self.end_of_cells()?;
                    }
                    self.store.0.counts.healed.fetch_add(took.healed, Ordering::Relaxed);
                    self.store.0.counts.compared.fetch_add(took.compared, Ordering::Relaxed);
                    Ok(took)
                });
                if let Err(Denied::Journal(error)) = &took {
                    self.fail(error);
                }
                // Whoever asked may be gone.
                let _ = done.send(took);
            }
            Input::Heard(peer, word, done) => {
                let _ = done.send(self.replica.hear(moment, &peer, &word));
            }
            Input::After(peer, received) => self.replica.confirmed(moment, &peer, &received),
            Input::Fleet { peers, forgotten, skews } => {
                self.replica.set_peers(peers);
                self.replica.set_forgotten(forgotten);
                skews.iter().for_each(|(peer, skew)| self.replica.set_skew(peer, *skew));
            }
            Input::Stop => {}
        }
    }

    fn tick(&mut self, moment: Moment) {
        if let Err(error) = self.replica.tick(moment, &self.log, &mut self.cells) {
            self.fail(&error);
        }
        let conflicts = self.replica.conflicts();
        self.store.0.counts.conflicts.fetch_add(conflicts.len() as u64, Ordering::Relaxed);
        let mut to_keep = guard(&self.store.0.to_keep);
        to_keep.conflicts.extend(conflicts);
        drop(to_keep);
        if self.tidy_at <= moment.now {
            self.tidy_at = moment.now + TIDY;
            self.tidy();
        }
    }

    fn commit(&mut self, moment: Moment) {
        self.committed_at = moment.now;
        let me = self.replica.origin().clone();
        let append = |engine: &mut Self| -> Result<(), JournalError> {
            if me != *engine.log.me() {
                engine.log.set_me(&me)?;
            }
            for origin in engine.replica.to_name() {
                engine.log.name(&origin)?;
            }
            let batches = engine.replica.to_append();
            engine.log.append(&batches)
        };
        match append(self) {
            Ok(()) => {
                self.store.0.counts.commits.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = self.replica.committed(self.moment(), &mut self.cells) {
                    self.fail(&error);
                }
            }
            Err(error) => {
                self.replica.not_committed(&self.log, &error);
                self.fail(&error);
                // Not at once again.
                std::thread::sleep(TICK);
            }
        }
    }

    /// The cells of a snapshot are made durable, then the logs begin behind them.
    fn end_of_cells(&mut self) -> Result<(), JournalError> {
        self.publish();
        let inner = Arc::clone(&self.store.0);
        let wanted = inner.flush_now.fetch_add(1, Ordering::AcqRel) + 1;
        // Two rounds of the writer of the keys: one may have been under way.
        let mut rounds = 0;
        while inner.flush_done.load(Ordering::Acquire) < wanted {
            std::thread::sleep(Duration::from_millis(5));
            rounds += 1;
            if rounds > 12_000 {
                return Err(JournalError::Io("the keys of a snapshot cannot be written".to_owned()));
            }
        }
        for origin in self.replica.to_name() {
            self.log.name(&origin)?;
        }
        for (origin, floor) in self.replica.to_begin_at() {
            self.log.begin_at(origin, floor)?;
        }
        Ok(())
    }

    fn fail(&self, error: &JournalError) {
        tracing::error!(%error, "the store");
        if matches!(error, JournalError::Corrupt(_)) {
            guard(&self.store.0.health).corrupt = Some(error.to_string());
        }
    }

    fn answer(&mut self) {
        for (ticket, reply) in self.replica.replies() {
            if let Some(waiting) = self.tickets.remove(&ticket) {
                // Whoever waited may be gone.
                let _ = waiting.send(reply);
            }
        }
    }

    /// Tells those around how far it is.
    fn publish(&self) {
        let inner = &self.store.0;
        inner.cells.set_applied(self.replica.applied());
        let progress = Progress {
            received: self.replica.received().clone(),
            accepted: self.replica.after(),
            applied: self.replica.applied().clone(),
        };
        if *last_sent(&inner.progress) != progress {
            let mut to_keep = guard(&inner.to_keep);
            to_keep.kept.applied = progress.applied.clone();
            to_keep.kept.applied.meet(&progress.received);
            to_keep.kept.clock = self.replica.time();
            drop(to_keep);
            inner.progress.send_replace(Arc::new(progress));
        }
    }

    fn tell(&mut self, has_come: bool) {
        self.publish();
        let moment = self.moment();
        // What people and metrics look at need not be of this very moment.
        if moment.now.saturating_sub(self.told_at) < TICK && has_come {
            return;
        }
        self.told_at = moment.now;
        let inner = &self.store.0;
        inner.words.send_replace(Arc::new(self.replica.word()));
        let status = StoreStatus::new(&self.replica, moment).with(&self.store, &guard(&inner.health));
        inner.status.send_replace(Arc::new(status));
        let peers: Vec<String> = self.replica.peers().map(str::to_owned).collect();
        let wants = peers.into_iter().map(|peer| (peer.clone(), self.replica.wants(&peer, moment.now)));
        *guard(&inner.wants) = wants.collect();
        guard(&inner.to_keep).kept.forgotten.clone_from(self.replica.forgotten());
        *guard(&inner.stable) = self.replica.stable();
    }

    /// Lets go of what all have and nobody needs.
    fn tidy(&mut self) {
        let flushed = last_sent(&self.store.0.flushed);
        let by_all = self.replica.received_by_all();
        let floors = self.log.floors();
        for (origin, head) in self.log.heads().iter() {
            let floor = floors.get(&origin).map_or(0, |floor| floor.sequence);
            let kept = head - floor;
            let all_have = by_all.of(origin).min(head.saturating_sub(self.retention.entries_min));
            let too_many =
                if kept > self.retention.entries_max { head - self.retention.entries_max } else { 0 };
            // Whatever happens, the keys can be made good from the log.
            let upto = all_have.max(too_many).min(flushed.of(origin));
            if upto > floor
                && let Err(error) = self.log.trim(origin, upto)
            {
                self.fail(&error);
            }
        }
    }
}

/// Writes what has changed under the keys, until the store has stopped and all is written.
fn keep(store: &Store, mut writer: CellWriter) {
    let inner = &store.0;
    let mut tidied_at = Duration::ZERO;
    let mut unwritten = None;
    loop {
        let is_last = inner.is_stopped.load(Ordering::Acquire);
        let asked = inner.flush_now.load(Ordering::Acquire);
        // First how far it is, then what has changed: what is taken covers it.
        let (kept, conflicts) = {
            let mut to_keep = guard(&inner.to_keep);
            (to_keep.kept.clone(), std::mem::take(&mut to_keep.conflicts))
        };
        let is_news = kept.applied != last_sent(&inner.flushed)
            || !conflicts.is_empty()
            || asked > inner.flush_done.load(Ordering::Acquire);
        // What was taken before and could not be written covers what it covered then, no more.
        let kept = unwritten.take().unwrap_or(kept);
        let taken = writer.take();
        if is_news || !taken.is_empty() {
            match writer.write(&taken, &kept, &conflicts, store.unix_ms()) {
                Ok(()) => {
                    inner.flushed.send_replace(kept.applied);
                    inner.flush_done.fetch_max(asked, Ordering::AcqRel);
                    guard(&inner.health).keys = None;
                }
                Err(error) => {
                    tracing::error!(%error, "the store cannot write its keys");
                    guard(&inner.health).keys = Some(error.to_string());
                    guard(&inner.to_keep).conflicts.extend(conflicts);
                    unwritten = Some(kept);
                }
            }
        } else {
            writer.is_written();
        }
        if store.now().saturating_sub(tidied_at) >= TIDY {
            tidied_at = store.now();
            let stable = guard(&inner.stable).clone();
            match writer.forget_the_past(&stable, store.unix_ms()) {
                Ok(count) => drop(inner.counts.tidied.fetch_add(count as u64, Ordering::Relaxed)),
                Err(error) => tracing::error!(%error, "the store cannot forget"),
            }
        }
        if is_last {
            return;
        }
        let mut waited = Duration::ZERO;
        while waited < FLUSH
            && inner.flush_now.load(Ordering::Acquire) == asked
            && !inner.is_stopped.load(Ordering::Acquire)
        {
            std::thread::sleep(TICK);
            waited += TICK;
        }
    }
}

/// Reads and checks all that is on the disk, once after the start: what is corrupt must be known before it is needed.
fn check(store: &Store) {
    let inner = &store.0;
    let is_stopped = || inner.is_stopped.load(Ordering::Acquire);
    let found = inner.log.check(is_stopped).and_then(|records| Ok((records, inner.cells.check(is_stopped)?)));
    match found {
        Ok(checked) => guard(&inner.health).checked = Some(checked),
        Err(error) => {
            tracing::error!(%error, "checking the store");
            guard(&inner.health).corrupt = Some(error.to_string());
        }
    }
}

/// How far it is, from a receiver of [`Store::progresses`].
pub fn progress_of(receiver: &watch::Receiver<Arc<Progress>>) -> Arc<Progress> {
    latest(receiver)
}
